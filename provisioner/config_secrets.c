/* Secrets and configs: files that containers get (compose-spec 08-configs, 09-secrets). */
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/config_private.h"

#define SOURCES_MAX 1000

/* ---- the top level ---- */

static int take_file(const struct field *f, void *out)
{
	return field_text(f, &((struct config_source *)out)->path);
}

static int take_content(const struct field *f, void *out)
{
	return field_text(f, &((struct config_source *)out)->text);
}

static int take_variable(const struct field *f, void *out)
{
	struct config_source *s = out;
	cleanup_free char *name = NULL;
	int r = field_text(f, &name);
	const char *value = r == 0 ? f->reader->lookup(f->reader->lookup_arg, name) : NULL;
	if (r == 0 && !value)
		field_warn(f, "the variable %s is not set, the empty string takes its place", name);
	if (r == 0)
		s->text = xstrdup(value ? value : "");
	return r;
}

static int take_external(const struct field *f, void *out)
{
	if (f->node->type == YAML_MAP) {
		((struct config_source *)out)->external = true;
		return 0;
	}
	return field_bool(f, &((struct config_source *)out)->external);
}

static const struct field_reader source_fields[] = {
    {"file", take_file},   {"content", take_content}, {"environment", take_variable}, {"external", take_external},
    {"name", field_ignore}, {"labels", field_ignore},  {"driver", NULL},               {"driver_opts", NULL},
    {"template_driver", NULL}, {NULL, NULL}};

static int read_sources(const struct field *f, struct config *c, bool secret)
{
	int r = f->node->type == YAML_MAP && f->node->count <= SOURCES_MAX ? 0 : field_expected(f, "a mapping");
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field child = field_child(f, i);
		array_grow(c->sources, c->n_sources);
		struct config_source *s = &c->sources[c->n_sources++];
		*s = (struct config_source){.name = xstrdup(child.key), .secret = secret};
		r = field_read_map(&child, source_fields, UNKNOWN_WARNS, "a mapping with file, environment or content", s);
		if (r == 0 && !s->path && !s->text && !s->external)
			r = field_error(&child, "expected file, environment or content");
	}
	return r;
}

int read_secret_sources(const struct field *f, void *out)
{
	return read_sources(f, out, true);
}

int read_config_sources(const struct field *f, void *out)
{
	return read_sources(f, out, false);
}

const struct config_source *config_source_of(const struct config *c, const struct config_grant *g)
{
	for (size_t i = 0; i < c->n_sources; i++)
		if (c->sources[i].secret == g->secret && !strcmp(c->sources[i].name, g->source))
			return &c->sources[i];
	return NULL;
}

/* ---- of a service ---- */

static int take_source(const struct field *f, void *out)
{
	return field_text(f, &((struct config_grant *)out)->source);
}

static int take_target(const struct field *f, void *out)
{
	return field_text(f, &((struct config_grant *)out)->target);
}

static int take_number(const struct field *f, int32_t *ret)
{
	int64_t number;
	int r = field_int(f, 0, INT32_MAX, &number);
	if (r == 0)
		*ret = (int32_t)number;
	return r;
}

static int take_uid(const struct field *f, void *out)
{
	return take_number(f, &((struct config_grant *)out)->uid);
}

static int take_gid(const struct field *f, void *out)
{
	return take_number(f, &((struct config_grant *)out)->gid);
}

static int take_mode(const struct field *f, void *out)
{
	unsigned mode;
	int r = field_mode(f, &mode);
	if (r == 0 && mode > 0777)
		field_warn(f, "of the mode 0%o only 0%o is used", mode, mode & 0777);
	if (r == 0)
		((struct config_grant *)out)->mode = (int32_t)(mode & 0777);
	return r;
}

static const struct field_reader grant_fields[] = {{"source", take_source}, {"target", take_target}, {"uid", take_uid}, {"gid", take_gid}, {"mode", take_mode}, {NULL, NULL}};

static void grant_release(struct config_grant *g)
{
	free(g->source);
	free(g->target);
}

/* NAME below /run/secrets, a config at the root; a target of its own is absolute, or below the same. */
static void settle_target(struct config_grant *g)
{
	const char *begin = g->secret ? "/run/secrets/" : "/";
	char *target = g->target ? g->target : xstrdup(g->source);
	g->target = target[0] == '/' ? xstrdup(target) : xasprintf("%s%s", begin, target);
	free(target);
}

static int add_grant(const struct field *f, struct config_service *s, struct config_grant g)
{
	struct config *c = loading_of(f)->config;
	int r = 0;
	if (!g.source)
		r = field_error(f, "expected a source");
	const struct config_source *source = r == 0 ? config_source_of(c, &g) : NULL;
	if (r == 0 && !source)
		r = field_error(f, "'%.100s' is not among the top level's %s", g.source, g.secret ? "secrets" : "configs");
	if (r < 0 || !source) {
		grant_release(&g);
		return r;
	}
	if (source->external)
		field_warn(f, "'%.100s' is external: only a swarm has it, the service starts without", g.source);
	settle_target(&g);
	array_grow(s->grants, s->n_grants);
	s->grants[s->n_grants++] = g;
	return 0;
}

static int read_grants(const struct field *f, struct config_service *s, bool secret)
{
	int r = f->node->type == YAML_LIST ? 0 : field_expected(f, "a list");
	strv_push(&s->container_fields, xstrdup(secret ? "secrets" : "configs"));
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field child = field_child(f, i);
		struct config_grant g = {.secret = secret, .uid = -1, .gid = -1, .mode = -1};
		r = child.node->type == YAML_MAP ? field_read_map(&child, grant_fields, UNKNOWN_WARNS, "a mapping with source", &g) : field_text(&child, &g.source);
		if (r < 0)
			grant_release(&g);
		else
			r = add_grant(&child, s, g);
	}
	return r;
}

int read_secrets(const struct field *f, void *out)
{
	return read_grants(f, out, true);
}

int read_configs(const struct field *f, void *out)
{
	return read_grants(f, out, false);
}
