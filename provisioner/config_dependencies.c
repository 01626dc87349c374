/* Whom services depend on, by which profiles they are active, and which networks they name: when all of them have been read. */
#include <string.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "provisioner/config_private.h"

/* ---- whom they depend on ---- */

/* The place of a dependency in the file: entries and s->depends_on are parallel; behind them come the links'. */
static struct field dependency_field(const struct field *service, size_t i, struct field *list)
{
	if (field_find(service, "depends_on", list) && i < list->node->count)
		return field_child(list, i);
	if (!field_find(service, "links", list))
		*list = *service; /* network_mode: service:NAME, and its kind */
	return *list;
}

const char *nearest_service(const struct config *c, const char *wrong)
{
	cleanup_free const char **names = xcalloc(c->n_services + 1, sizeof *names);
	for (size_t i = 0; i < c->n_services; i++)
		names[i] = c->services[i].name;
	return nearest_name(wrong, names);
}

static int check_dependencies(const struct field *services, const struct config *c, const struct config_service *s)
{
	struct field service, list;
	field_find(services, s->name, &service);
	for (size_t i = 0; i < s->n_depends_on; i++) {
		if (config_service(c, s->depends_on[i].service) || !s->depends_on[i].required)
			continue;
		struct field f = dependency_field(&service, i, &list);
		int r = field_key_error(&f, "there is no service '%s'", s->depends_on[i].service);
		const char *near = nearest_service(c, s->depends_on[i].service);
		if (near)
			error_hint(f.reader->err, "did you mean %s?", near);
		return r;
	}
	return 0;
}

/* ---- profiles ---- */

bool config_has_profile_of(const struct config_service *s, char *const *profiles)
{
	for (char **p = s->profiles; p && *p; p++)
		if (strv_contains(profiles, *p) || strv_contains(profiles, "*"))
			return true;
	return false;
}

bool config_in_profiles(const struct config_service *s, char *const *profiles)
{
	return !s->profiles || !s->profiles[0] || config_has_profile_of(s, profiles);
}

/* The first that `s` needs and that is of none of the active ones; borrowed; NULL: none */
static const struct config_service *needed_inactive(const struct config *c, const struct config_service *s)
{
	for (size_t i = 0; config_in_profiles(s, c->profiles) && i < s->n_depends_on; i++) {
		const struct config_service *on = s->depends_on[i].required ? config_service(c, s->depends_on[i].service) : NULL;
		if (on && !config_in_profiles(on, c->profiles))
			return on;
	}
	return NULL;
}

/* One that need not be there, and is in no file: here it is passed over. */
static const char *undefined(const struct config *c, const struct config_service *s)
{
	for (size_t i = 0; config_in_profiles(s, c->profiles) && i < s->n_depends_on; i++)
		if (!config_service(c, s->depends_on[i].service))
			return s->depends_on[i].service;
	return NULL;
}

int config_check_dependencies(const struct config *c, struct error *err)
{
	for (size_t i = 0; i < c->n_services; i++) {
		const struct config_service *s = &c->services[i], *on = s->is_copy ? NULL : needed_inactive(c, s);
		const char *nobody = undefined(c, s);
		if (nobody)
			return error_set(err, ERROR_CONFIG_INVALID, "%s:%u:%u: service \"%s\" depends on undefined service \"%s\"", s->file, s->line, s->column, s->name, nobody);
		if (!on)
			continue;
		error_set(err, ERROR_CONFIG_INVALID, "%s:%u:%u: service \"%s\" depends on undefined service \"%s\": none of its profiles is active", s->file, s->line,
		          s->column, s->name, on->name);
		return error_hint(err, "--profile %s, or COMPOSE_PROFILES=%s", on->profiles[0], on->profiles[0]);
	}
	return 0;
}

static void warn_of_profiles(const struct field *services, const struct config *c)
{
	for (size_t i = 0; i < c->n_services; i++) {
		const struct config_service *s = &c->services[i], *on = needed_inactive(c, s);
		struct field f;
		if (on && field_find(services, s->name, &f))
			field_warn(&f, "%s depends on %s, none of whose profiles is active: it is started nevertheless, docker compose refuses that", s->name, on->name);
	}
}

/* ---- networks ---- */

static int check_network(const struct field *service, const struct config *c, const struct config_service *s, const char *key)
{
	struct field f;
	if (!strcmp(key, "default") || config_network(c, key))
		return 0;
	field_find(service, "networks", &f);
	int r = field_error(&f, "service \"%s\" refers to undefined network %s", s->name, key);
	error_hint(f.reader->err, "networks: { %s: {} } at the top level", key);
	return r;
}

/* Of services that nobody starts docker compose does not ask. */
static int check_networks(const struct field *services, const struct config *c, const struct config_service *s)
{
	struct field service, mode;
	int r = 0;
	if (!s->networks || !config_in_profiles(s, c->profiles) || !field_find(services, s->name, &service))
		return 0;
	if (field_find(&service, "network_mode", &mode) && !field_is_null(&mode))
		return field_error(&mode, "service %s declares mutually exclusive `network_mode` and `networks`", s->name);
	for (char **key = s->networks; r == 0 && *key; key++)
		r = check_network(&service, c, s, *key);
	return r;
}

/* ---- circles ---- */

enum walked { UNSEEN, ON_THE_WAY, DONE };

struct walk {
	const struct field *services;
	const struct config *config;
	enum walked *seen;
	const struct config_service **way;
	size_t length;
};

static int circle(const struct walk *w, const struct config_service *from, size_t dependency,
                  const struct config_service *to)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	struct field service, list;
	for (size_t i = 0; i < w->length; i++)
		if (text.len || w->way[i] == to)
			buffer_printf(&text, "%s -> ", w->way[i]->name);
	field_find(w->services, from->name, &service);
	struct field f = dependency_field(&service, dependency, &list);
	return field_key_error(&f, "services depend on each other in a circle: %s%s", buffer_str(&text), to->name);
}

static int walk_from(struct walk *w, const struct config_service *s)
{
	size_t at = (size_t)(s - w->config->services);
	int r = 0;
	if (w->seen[at] == DONE)
		return 0;
	w->seen[at] = ON_THE_WAY;
	w->way[w->length++] = s;
	for (size_t i = 0; r == 0 && i < s->n_depends_on; i++) {
		const struct config_service *to = config_service(w->config, s->depends_on[i].service);
		if (to && w->seen[to - w->config->services] == ON_THE_WAY)
			r = circle(w, s, i, to);
		else if (to)
			r = walk_from(w, to);
	}
	w->length--;
	w->seen[at] = DONE;
	return r;
}

int check_circles(const struct field *services, const struct config *c)
{
	struct walk w = {services, c, xcalloc(c->n_services + 1, sizeof *w.seen), xcalloc(c->n_services + 1, sizeof *w.way),
	                 0};
	int r = 0;
	for (size_t i = 0; r == 0 && i < c->n_services; i++)
		r = walk_from(&w, &c->services[i]);
	free(w.seen);
	free(w.way);
	return r;
}

int check_services(const struct field *services, const struct config *c)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < c->n_services; i++)
		if ((r = check_dependencies(services, c, &c->services[i])) == 0)
			r = check_networks(services, c, &c->services[i]);
	if (r == 0)
		warn_of_profiles(services, c);
	return r;
}
