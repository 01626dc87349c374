/* What a container shares with others: volumes and networks that somebody else has made, and the spaces of another container. */
#include <stdlib.h>
#include <string.h>

#include "backends/engine.h"
#include "base/alloc.h"
#include "base/cleanup.h"

/* ---- spaces ---- */

/* new: "service:db" as "container:NAME"; everything else is the engine's to know */
static char *mode_of(const struct engine *e, const char *mode)
{
	if (strncmp(mode, "service:", 8))
		return xstrdup(mode);
	cleanup_free char *name = engine_container_name(e, mode + 8);
	return xasprintf("container:%s", name);
}

static void set_mode(const struct engine *e, struct engine_plan *p, json_t *host, const char *key, const char *asked)
{
	if (!asked)
		return;
	cleanup_free char *mode = mode_of(e, asked);
	p->joins |= !strncmp(mode, "container:", 10);
	json_object_set_new(host, key, json_string(mode));
}

/* "db:ro" as "NAME:ro" */
static void set_volumes_from(const struct engine *e, struct engine_plan *p, json_t *host, char *const *from)
{
	json_t *list = json_array();
	for (; from && *from; from++) {
		size_t len = strcspn(*from, ":");
		cleanup_free char *service = xstrndup(*from, len), *name = engine_container_name(e, service);
		bool foreign = !strncmp(*from, "container:", 10);
		json_array_append_new(list, foreign ? json_string(*from + 10) : json_sprintf("%s%s", name, *from + len));
	}
	if (json_array_size(list)) {
		p->joins = true;
		json_object_set(host, "VolumesFrom", list);
	}
	json_decref(list);
}

void engine_plan_spaces(const struct engine *e, const struct container_options *o, struct engine_plan *p, json_t *create, json_t *host)
{
	const char *network = o->network && strcmp(o->network, "bridge") && strcmp(o->network, "default") ? o->network : NULL;
	set_volumes_from(e, p, host, o->volumes_from);
	set_mode(e, p, host, "PidMode", o->pid);
	set_mode(e, p, host, "IpcMode", o->ipc);
	set_mode(e, p, host, "NetworkMode", network);
	if (network)
		free(move_ptr(p->ipv4_address));
	if (network) { /* ports, names and addresses are whose network it is */
		json_object_del(create, "NetworkingConfig");
		json_object_del(create, "ExposedPorts");
		json_object_del(create, "MacAddress");
		json_object_set_new(host, "PortBindings", json_object());
	}
	for (char **name = o->networks; !network && name && *name; name++)
		strv_push(&p->networks, xstrdup(*name));
	for (char **name = o->network_names; !network && name && *name; name++)
		strv_push(&p->network_names, xstrdup(*name));
	p->external_links = strv_copy(o->external_links);
}

/* ---- one after the other ---- */

struct walk {
	struct engine *e;
	char **paths; /* to be asked for, or to be connected to */
	char **names;
	char *id; /* of the container that joins */
	char *const *aliases; /* NETWORK NAME */
	char *const *links;   /* CONTAINER[:ALIAS] */
	size_t next;
	bool joins;
	struct error error;
	backend_done *done;
	void *arg;
};

static void end(void *arg)
{
	struct walk *w = arg;
	struct engine *e = w->e;
	w->done(w->arg, error_is_set(&w->error) ? &w->error : NULL);
	strv_free(w->paths);
	strv_free(w->names);
	error_release(&w->error);
	free(w->id);
	free(w);
	engine_end(e);
}

static void next(struct walk *w);

/* A network that it is on already is said to be so with 403, or 500 of older ones; Podman says OK, which is no JSON. */
static bool is_joined(const struct walk *w, const struct error *err, int status)
{
	return w->joins && err->message && (status == 200 || strstr(err->message, "already exists in network") || strstr(err->message, "already connected"));
}

static void on_asked(void *arg, const struct error *err, int status, const json_t *json)
{
	struct walk *w = arg;
	const char *name = w->names[w->next - 1], *kind = strncmp(w->paths[w->next - 1], "/volumes/", 9) ? "network" : "volume";
	if (err && status == 404 && !w->joins) {
		error_set(&w->error, ERROR_CONFIG_INVALID, "the %s %s is external, and the engine has none of that name", kind, name);
		error_hint(&w->error, "docker %s create %s, or leave out external: true", kind, name);
	} else if (err && !is_joined(w, err, status)) {
		error_copy(&w->error, err);
	}
	if (error_is_set(&w->error))
		end(w);
	else
		next(w);
}

/* new: how it joins that one */
static json_t *connection(const struct walk *w, const char *network)
{
	size_t len = strlen(network);
	json_t *aliases = json_array();
	for (char *const *alias = w->aliases; alias && *alias; alias++)
		if (!strncmp(*alias, network, len) && (*alias)[len] == ' ')
			json_array_append_new(aliases, json_string(*alias + len + 1));
	json_t *links = w->links && *w->links ? json_array() : NULL;
	for (char *const *link = w->links; link && *link; link++)
		json_array_append_new(links, strchr(*link, ':') ? json_string(*link) : json_sprintf("%s:%s", *link, *link));
	return json_pack("{s:s, s:{s:o, s:o*}}", "Container", w->id, "EndpointConfig", "Aliases", aliases, "Links", links);
}

static void next(struct walk *w)
{
	const char *path = w->paths ? w->paths[w->next] : NULL;
	if (!path) {
		backend_defer(w->e->base.loop, end, w);
		return;
	}
	w->next++;
	if (w->joins)
		engine_call(w->e, "POST", path, connection(w, w->names[w->next - 1]), ENGINE_CHANGE_MS, on_asked, w);
	else
		engine_call(w->e, "GET", path, NULL, ENGINE_CALL_MS, on_asked, w);
}

static struct walk *walk_new(struct engine *e, backend_done *done, void *arg)
{
	struct walk *w = xcalloc(1, sizeof *w);
	*w = (struct walk){.e = e, .error = ERROR_INIT, .done = done, .arg = arg};
	engine_begin(e);
	return w;
}

static void add(struct walk *w, const char *kind, char *const *names, const char *rest)
{
	for (; names && *names; names++) {
		cleanup_free char *name = engine_escape(*names);
		strv_push(&w->names, xstrdup(*names));
		strv_pushf(&w->paths, "/%s/%s%s", kind, name, rest);
	}
}

void engine_external_ensure(struct engine *e, const struct engine_plan *p, backend_done *done, void *arg)
{
	struct walk *w = walk_new(e, done, arg);
	if (p->api_needed && (e->podman || e->api < p->api_needed)) {
		error_set(&w->error, ERROR_CONFIG_INVALID, "volume.subpath: this engine (API 1.%u) cannot mount a part of a volume, that takes Docker 26", e->api);
		backend_defer(e->base.loop, end, w);
		return;
	}
	add(w, "volumes", p->externals, "");
	add(w, "networks", p->networks, "");
	next(w);
}

void engine_external_join(struct engine *e, const struct engine_plan *p, const char *id, backend_done *done, void *arg)
{
	struct walk *w = walk_new(e, done, arg);
	w->joins = true;
	w->id = xstrdup(id);
	w->aliases = p->network_names;
	w->links = p->external_links;
	add(w, "networks", p->networks, "/connect");
	next(w);
}
