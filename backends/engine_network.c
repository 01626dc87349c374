/* The environment's own network, in which its services know each other by their names; and the end of it. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/attachment.h"
#include "backends/engine.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"

/* ---- where it is ---- */

static char *made_path(const struct engine *e)
{
	return xasprintf("%s/" BACKEND_MADE "%016llx.json", e->state_dir, (unsigned long long)hash_str(HASH_INIT, e->target.url));
}

/* Written before anything is made, gone when all of it is: whoever tidies up after us knows where to look. */
static void note_made(const struct engine *e)
{
	cleanup_free char *path = made_path(e);
	if (!access(path, F_OK))
		return;
	json_t *json = json_pack("{s:s, s:s}", "backend", e->base.ops->name, "engine", e->target.url);
	cleanup_free char *text = json_dumps(json, JSON_INDENT(1));
	json_decref(json);
	int r = dir_make(AT_FDCWD, e->state_dir, 0711);
	if (!r)
		r = file_write_atomic(AT_FDCWD, path, text, strlen(text), 0600);
	if (r)
		log_warning("engine", "%s: %s", path, strerror(-r));
}

/* ---- made once ---- */

static void network_known(struct engine *e, const struct error *err)
{
	engine_gate_done(&e->network, err);
	engine_clear_next(e);
	engine_end(e);
}

static void on_created(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine *e = arg;
	network_known(e, err && status != 409 ? err : NULL);
}

static void on_inspected(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine *e = arg;
	cleanup_free char *name = engine_network_name(e);
	cleanup_error struct error foreign = ERROR_INIT;
	if (err && status == 404) { /* looked for first: two of one name are possible on older engines */
		json_t *labels = engine_labels(e);
		json_object_set_new(labels, COMPOSE_LABEL_NETWORK, json_string(COMPOSE_NETWORK));
		json_t *body = json_pack("{s:s, s:b, s:o}", "Name", name, "CheckDuplicate", true, "Labels", labels);
		engine_call(e, "POST", "/networks/create", body, ENGINE_CHANGE_MS, on_created, e);
		return;
	}
	if (!err && !engine_is_of(json_object_get(json, "Labels"), e->namespace_))
		error_set(&foreign, ERROR_SERVICE_FAILED, "there is a network %s that is not of this environment", name);
	if (error_is_set(&foreign))
		error_hint(&foreign, "it is left alone; docker network rm %s takes it away", name);
	network_known(e, err ? err : error_is_set(&foreign) ? &foreign : NULL);
}

void engine_network_ensure(struct engine *e, backend_done *done, void *arg)
{
	if (!engine_gate_enter(&e->network, e->base.loop, done, arg))
		return;
	cleanup_free char *name = engine_network_name(e);
	cleanup_free char *path = xasprintf("/networks/%s", name);
	note_made(e);
	engine_begin(e);
	engine_call(e, "GET", path, NULL, ENGINE_CALL_MS, on_inspected, e);
}

void engine_network_plug(struct engine *e, const struct engine_plan *p, const char *id, engine_answer *done, void *arg)
{
	cleanup_free char *name = engine_network_name(e);
	cleanup_free char *path = xasprintf("/networks/%s/connect", name);
	json_t *endpoint = json_object_get(json_object_get(json_object_get(p->create, "NetworkingConfig"), "EndpointsConfig"), name);
	engine_call(e, "POST", path, json_pack("{s:s, s:O*}", "Container", id, "EndpointConfig", endpoint), ENGINE_CHANGE_MS, done, arg);
}

/* ---- the end ---- */

struct clearing {
	struct engine *e;
	struct clearing *later;
	bool begun;
	char **ids;
	size_t next;
	backend_done *done;
	void *arg;
	bool others; /* use the network */
};

static void clear_done(struct clearing *c, const struct error *err)
{
	struct engine *e = c->e;
	struct clearing **at = &e->clearings;
	while (*at != c)
		at = &(*at)->later;
	*at = c->later;
	for (struct engine_slot *s = e->slots; s && !err; s = s->next)
		if (!s->ops)
			engine_slot_set(s, NULL, "");
	c->done(c->arg, err);
	strv_free(c->ids);
	free(c);
	engine_end(e);
}

static void on_images_cleared(void *arg, const struct error *err)
{
	clear_done(arg, NULL);
}

static void all_gone(struct engine *e)
{
	cleanup_free char *path = made_path(e);
	unlink(path);
}

/* A container of somebody else's is in it (a devcontainer, an agent's): it goes on, and finds by the same names what is started next. The
 * network goes with the first teardown after that one's end. Docker says 403, Podman 500. */
bool engine_network_is_in_use(const char *message, int status)
{
	return status == 403 || (message && strstr(message, "associated containers"));
}

static void on_network_removed(void *arg, const struct error *err, int status, const json_t *json)
{
	struct clearing *c = arg;
	c->e->network.open = false;
	if (!err || status == 404)
		all_gone(c->e);
	if (err && status != 404 && !(c->others && engine_network_is_in_use(err->message, status)))
		clear_done(c, err);
	else
		engine_images_clear(c->e, on_images_cleared, c);
}

/* Whoever is in the network and no service: not one of ours that is only just going. What `ajj run --in` has started counts as somebody else's. */
static bool has_others(const struct engine *e, const json_t *network)
{
	const char *id;
	json_t *user;
	size_t len = strlen(e->namespace_);
	json_object_foreach ((json_t *)(uintptr_t)json_object_get(network, "Containers"), id, user) {
		const char *name = json_string_value(json_object_get(user, "Name"));
		if (name && (strncmp(name, e->namespace_, len) || name[len] != '-' || !strncmp(name + len, "-run-", 5)))
			return true;
	}
	return e->podman; /* does not say who: that there is somebody */
}

/* One of that name that somebody else has made is left alone. */
static void on_network_seen(void *arg, const struct error *err, int status, const json_t *json)
{
	struct clearing *c = arg;
	const char *id = json_string_value(json_object_get(json, "Id"));
	if (err && status != 404) {
		clear_done(c, err);
		return;
	}
	if (err || !id || !engine_is_of(json_object_get(json, "Labels"), c->e->namespace_)) {
		c->e->network.open = false;
		all_gone(c->e);
		engine_images_clear(c->e, on_images_cleared, c);
		return;
	}
	c->others = has_others(c->e, json);
	cleanup_free char *name = engine_network_name(c->e);
	cleanup_free char *path = xasprintf("/networks/%s", c->e->podman ? name : id); /* asked by id, Podman removes one that is in use (to 4.3 at least) */
	engine_call(c->e, "DELETE", path, NULL, ENGINE_CHANGE_MS, on_network_removed, c);
}

static void clear_next(struct clearing *c);

static void on_container_removed(void *arg, const struct error *err, int status, const json_t *json)
{
	struct clearing *c = arg;
	if (err && status != 404 && status != 409)
		clear_done(c, err);
	else
		clear_next(c);
}

static void clear_next(struct clearing *c)
{
	const char *id = c->ids ? c->ids[c->next] : NULL;
	if (id) {
		cleanup_free char *path = xasprintf("/containers/%s" ENGINE_REMOVE_ALL, id);
		c->next++;
		engine_call(c->e, "DELETE", path, NULL, ENGINE_CHANGE_MS, on_container_removed, c);
		return;
	}
	cleanup_free char *name = engine_network_name(c->e);
	cleanup_free char *path = xasprintf("/networks/%s", name);
	engine_call(c->e, "GET", path, NULL, ENGINE_CALL_MS, on_network_seen, c);
}

/* A command's own (attachment.h), which goes on as one of another's would: it may be where `rm .env` was typed. Its caller removes it. */
static bool is_somebodys(const json_t *container)
{
	const char *owner = engine_label(json_object_get(container, "Labels"), ENGINE_LABEL_RUN);
	return owner && !attachment_owner_is_gone(owner);
}

static void on_listed(void *arg, const struct error *err, int status, const json_t *json)
{
	struct clearing *c = arg;
	size_t i;
	json_t *container;
	if (err) {
		clear_done(c, err);
		return;
	}
	json_array_foreach (json, i, container) {
		const char *id = json_string_value(json_object_get(container, "Id"));
		if (id && engine_is_of(json_object_get(container, "Labels"), c->e->namespace_) && !is_somebodys(container))
			strv_push(&c->ids, xstrdup(id));
	}
	clear_next(c);
}

static bool is_busy(const struct engine *e)
{
	const struct engine_slot *slot = e->slots;
	while (slot && !slot->ops)
		slot = slot->next;
	return slot;
}

void engine_clear_next(struct engine *e)
{
	if (!e->clearings || is_busy(e) || e->network.trying) /* it is made while nobody waits for it yet, too */
		return;
	for (struct clearing *c = e->clearings; c; c = c->later) {
		cleanup_free char *path = engine_labelled("/containers/json?all=1&", e->namespace_);
		if (c->begun)
			continue;
		c->begun = true;
		engine_call(e, "GET", path, NULL, ENGINE_CALL_MS, on_listed, c);
	}
}

/* After all that is under way: what is made ahead of need gives up at its next step, and an image that is pulled for it is wanted no more. */
void engine_clear(struct backend *b, backend_done *done, void *arg)
{
	struct engine *e = (struct engine *)b;
	struct clearing *c = xcalloc(1, sizeof *c);
	*c = (struct clearing){.e = e, .later = e->clearings, .done = done, .arg = arg};
	e->clearings = c;
	engine_begin(e);
	engine_images_give_up(e);
	engine_clear_next(e);
}
