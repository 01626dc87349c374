/* The environment's own network, in which its services know each other by their names; and the end of it. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/attachment.h"
#include "backends/engine.h"
#include "backends/subnet.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"

#define NETWORK_TRIES 4 /* others may take the subnet that was just free */

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

/* Where an address of the file's is: for whoever writes it down. */
static void note_subnet(const struct engine *e)
{
	cleanup_free char *path = xasprintf("%s/" BACKEND_SUBNET, e->state_dir);
	int r = e->subnet ? file_write_atomic(AT_FDCWD, path, e->subnet, strlen(e->subnet), 0600) : 0;
	if (!e->subnet)
		unlink(path);
	if (r)
		log_warning("engine", "%s: %s", path, strerror(-r));
}

static void network_known(struct engine *e, const struct error *err)
{
	if (!err && e->network_told)
		note_subnet(e);
	engine_gate_done(&e->network, err);
	engine_clear_next(e);
	engine_end(e);
}

static const char *wanted(const struct engine *e, const char *key)
{
	return json_string_value(json_object_get(e->network_wanted, key));
}

/* new; NULL: it is to be as it comes */
static char *fingerprint(const struct engine *e)
{
	cleanup_free char *text = e->network_wanted ? json_dumps(e->network_wanted, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	return text ? xasprintf("%016llx", (unsigned long long)hash_str(HASH_INIT, text)) : NULL;
}

static void set_moved(const struct engine *e, json_t *pool, const char *key, char *(*moved)(const char *text, const char *from, const char *to), const char *subnet)
{
	cleanup_free char *text = wanted(e, key) ? moved(wanted(e, key), wanted(e, "Subnet"), subnet) : NULL;
	if (text)
		json_object_set_new(pool, key, json_string(text));
}

/* `subnet` NULL: the engine's choice */
static json_t *network_body(const struct engine *e, const char *subnet)
{
	cleanup_free char *name = engine_network_name(e), *own = fingerprint(e);
	json_t *labels = json_object(), *ours = engine_labels(e), *options = json_object_get(e->network_wanted, "Options");
	json_object_update(labels, json_object_get(e->network_wanted, "Labels"));
	json_object_update(labels, ours);
	json_decref(ours);
	json_object_set_new(labels, COMPOSE_LABEL_NETWORK, json_string(COMPOSE_NETWORK));
	if (own && (subnet || !wanted(e, "Subnet")))
		json_object_set_new(labels, ENGINE_LABEL_NETWORK, json_string(own));
	json_t *body = json_pack("{s:s, s:b, s:o}", "Name", name, "CheckDuplicate", true, "Labels", labels);
	if (json_object_size(options)) {
		json_object_set_new(body, "Driver", json_string("bridge")); /* without it Podman takes none of its options */
		json_object_set(body, "Options", options);
	}
	if (!subnet)
		return body;
	json_t *pool = json_pack("{s:s}", "Subnet", subnet);
	set_moved(e, pool, "Gateway", subnet_moved, subnet);
	set_moved(e, pool, "IPRange", subnet_moved_part, subnet);
	json_object_set_new(body, "IPAM", json_pack("{s:s, s:[o]}", "Driver", "default", "Config", pool));
	return body;
}

static void network_call(struct engine *e, const char *method, engine_answer *done)
{
	cleanup_free char *name = engine_network_name(e), *path = xasprintf("/networks/%s", name);
	engine_call(e, method, path, NULL, strcmp(method, "GET") ? ENGINE_CHANGE_MS : ENGINE_CALL_MS, done, e);
}

static void make_network(struct engine *e);
static void on_inspected(void *arg, const struct error *err, int status, const json_t *json);

/* borrowed; NULL: it has none of IPv4 */
static const char *subnet_of(const json_t *network)
{
	size_t i;
	const json_t *pool;
	json_array_foreach (json_object_get(json_object_get(network, "IPAM"), "Config"), i, pool)
		if (subnet_is(json_string_value(json_object_get(pool, "Subnet"))))
			return json_string_value(json_object_get(pool, "Subnet"));
	return NULL;
}

/* Docker's words, and Podman's. */
static bool is_taken(const struct engine *e, const struct error *err)
{
	return err->message && wanted(e, "Subnet") && (strstr(err->message, "overlap") || strstr(err->message, "already used") || strstr(err->message, "already being used"));
}

static void create_network(struct engine *e, engine_answer *done)
{
	engine_call(e, "POST", "/networks/create", network_body(e, e->subnet), ENGINE_CHANGE_MS, done, e);
}

static void on_created(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine *e = arg;
	if (err && engine_is_passing(err) && e->network_tries++ < NETWORK_TRIES) {
		create_network(e, on_created);
	} else if (err && is_taken(e, err) && e->network_tries++ < NETWORK_TRIES) {
		log_warning("engine", "the network's subnet %s: %s; another one is taken", e->subnet, err->message);
		free(move_ptr(e->subnet));
		make_network(e);
	} else if (status == 409 && wanted(e, "Subnet") && e->network_tries++ < NETWORK_TRIES) {
		network_call(e, "GET", on_inspected);
	} else {
		network_known(e, err && status != 409 ? err : NULL);
	}
}

/* ---- a subnet that is free: the engine knows, and gives addresses of those alone that were asked for ---- */

static void on_given_back(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine *e = arg;
	if (err && status != 404)
		network_known(e, err);
	else
		create_network(e, on_created);
}

static void on_lent_seen(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine *e = arg;
	const char *subnet = err ? NULL : subnet_of(json);
	if (err || !subnet) {
		network_known(e, err);
		return;
	}
	e->subnet = xstrdup(subnet);
	network_call(e, "DELETE", on_given_back);
}

static void on_lent(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine *e = arg;
	if (err && status != 409)
		network_known(e, err);
	else
		network_call(e, "GET", on_lent_seen);
}

/* The subnet as it is written is the main checkout's, unless somebody has it already. */
static void make_network(struct engine *e)
{
	const char *subnet = wanted(e, "Subnet");
	free(move_ptr(e->subnet));
	if (subnet && json_is_true(json_object_get(e->network_wanted, "Exact")) && !e->network_tries)
		e->subnet = xstrdup(subnet);
	create_network(e, !subnet || e->subnet ? on_created : on_lent);
}

/* It is used: what it is to be like counts when it is made the next time. */
static void on_outdated_removed(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine *e = arg;
	if (!err || status == 404) {
		e->network_outdated = false;
		make_network(e);
		return;
	}
	if (!e->network_outdated)
		log_warning("engine", "the network is not as the configuration says, and is in use: ajj down, then ajj up makes it anew");
	e->network_outdated = true;
	network_known(e, NULL);
}

/* As it is wanted, or nobody has said what is. */
static bool is_as_wanted(const struct engine *e, const json_t *network)
{
	cleanup_free char *own = fingerprint(e);
	const char *has = engine_label(json_object_get(network, "Labels"), ENGINE_LABEL_NETWORK);
	return !e->network_told || (own && has ? !strcmp(own, has) : !own && !has);
}

static void on_inspected(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine *e = arg;
	cleanup_free char *name = engine_network_name(e);
	cleanup_error struct error foreign = ERROR_INIT;
	if (err && status == 404) { /* looked for first: two of one name are possible on older engines */
		make_network(e);
		return;
	}
	if (!err && !engine_is_of(json_object_get(json, "Labels"), e->namespace_))
		error_set(&foreign, ERROR_SERVICE_FAILED, "there is a network %s that is not of this environment", name);
	if (error_is_set(&foreign))
		error_hint(&foreign, "it is left alone; docker network rm %s takes it away", name);
	if (!err && !error_is_set(&foreign)) {
		bool as_wanted = is_as_wanted(e, json);
		e->network_outdated = e->network_outdated && !as_wanted;
		const char *subnet = wanted(e, "Subnet") ? subnet_of(json) : NULL;
		cleanup_free char *noted = as_wanted ? NULL : backend_subnet(e->state_dir);
		bool counts = subnet && (as_wanted || (noted && !strcmp(noted, subnet))); /* only where it was asked for does it give addresses */
		free(e->subnet);
		e->subnet = counts ? xstrdup(subnet) : NULL;
		if (!as_wanted) {
			network_call(e, "DELETE", on_outdated_removed);
			return;
		}
	}
	network_known(e, err ? err : error_is_set(&foreign) ? &foreign : NULL);
}

void engine_network_ensure(struct engine *e, backend_done *done, void *arg)
{
	if (!engine_gate_enter(&e->network, e->base.loop, done, arg))
		return;
	cleanup_free char *name = engine_network_name(e);
	cleanup_free char *path = xasprintf("/networks/%s", name);
	note_made(e);
	e->network_tries = 0;
	engine_begin(e);
	engine_call(e, "GET", path, NULL, ENGINE_CALL_MS, on_inspected, e);
}

void engine_network_take(struct engine *e, const struct service_spec *spec)
{
	json_t *now = spec->network ? json_loads(spec->network, 0, NULL) : NULL;
	bool same = e->network_told && (now ? json_equal(now, e->network_wanted) : !e->network_wanted);
	if (!same && !e->network.trying) {
		json_decref(e->network_wanted);
		e->network_wanted = now ? json_incref(now) : NULL;
		e->network_told = true;
	}
	if (!same || e->network_outdated) /* whoever uses it may have gone */
		e->network.open = false;
	json_decref(now);
}

void engine_network_address(const struct engine *e, struct engine_plan *p)
{
	cleanup_free char *name = engine_network_name(e), *address = p->ipv4_address && e->subnet ? subnet_moved(p->ipv4_address, wanted(e, "Subnet"), e->subnet) : NULL;
	json_t *endpoint = json_object_get(json_object_get(json_object_get(p->create, "NetworkingConfig"), "EndpointsConfig"), name);
	if (endpoint && address)
		json_object_set_new(endpoint, "IPAMConfig", json_pack("{s:s}", "IPv4Address", address));
	if (p->ipv4_address && !address)
		log_warning("engine", "%s: there is no place for its address %s in the network (%s)", p->service, p->ipv4_address, e->subnet ? e->subnet : "made without the file's subnet");
}

void engine_network_plug(struct engine *e, struct engine_plan *p, const char *id, engine_answer *done, void *arg)
{
	cleanup_free char *name = engine_network_name(e);
	cleanup_free char *path = xasprintf("/networks/%s/connect", name);
	engine_network_address(e, p);
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
	cleanup_free char *path = made_path(e), *subnet = xasprintf("%s/" BACKEND_SUBNET, e->state_dir);
	unlink(path);
	unlink(subnet);
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
