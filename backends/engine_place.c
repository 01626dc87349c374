/* What is asked of an engine without a loop: is it there, and a volume's end. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "backends/engine.h"
#include "base/alloc.h"
#include "base/cleanup.h"

#define ANSWER_MS 1000
#define DISCARD_MS 10000
#define USAGE_MS 5000 /* it walks through all volumes */
#define USAGE_API "/v1.51" /* from 1.52 on it says it otherwise: https://docs.docker.com/reference/api/engine/version-history/ */
#define REMOVE_MS 30000 /* a busy engine takes its time */
#define SWEEP_ROUNDS 10
#define SWEEP_PAUSE_MS 100

int engine_target_resolve(const char *asked, const char *address, struct engine_target *ret, struct error *err)
{
	const struct engine_places places = {.run = "", .uid = geteuid()};
	cleanup_error struct error none = ERROR_INIT;
	int r = address && !strcmp(asked, address) ? engine_target_find("docker", &places, ret, NULL) : -ENOENT;
	if (r == 0 && !strcmp(ret->url, address)) /* who has the address alone wants its certificates, too */
		return 0;
	engine_target_release(ret);
	r = engine_target_find(asked, &places, ret, &none);
	if (address && (r < 0 || strcmp(ret->url, address))) { /* another is meant today; what runs is where it was made */
		engine_target_release(ret);
		return engine_target_parse(address, ret, err);
	}
	if (r < 0)
		error_move(err, &none);
	return r;
}

struct http_params engine_http_params(const struct engine_target *t)
{
	return (struct http_params){.name = "the container engine", .socket_path = t->socket_path, .url = t->http_url, .ca = t->ca, .cert = t->cert, .key = t->key};
}

void engine_take_reply(void *arg, const struct error *err, const struct http_response *res)
{
	struct engine_reply *reply = arg;
	const char *json = res ? strchr(res->body, '{') : NULL, *list = res ? strchr(res->body, '[') : NULL;
	reply->status = res ? res->status : 0;
	if (list && (!json || list < json))
		json = list;
	reply->json = json ? json_loadb(json, res->len - (size_t)(json - res->body), JSON_DISABLE_EOF_CHECK, NULL) : NULL;
}

int engine_ask(const struct engine_target *t, const char *method, const char *path, const json_t *body, unsigned timeout_ms, struct engine_reply *ret,
               struct error *err)
{
	const struct http_params params = engine_http_params(t);
	cleanup_free char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	const struct http_request request = {.method = method, .path = path, .body = text, .body_len = text ? strlen(text) : 0, .timeout_ms = timeout_ms,
	                                     .done = engine_take_reply, .arg = ret};
	*ret = (struct engine_reply){0, NULL};
	return http_wait(&params, &request, err);
}

void engine_reply_release(struct engine_reply *r)
{
	json_decref(r->json);
	r->json = NULL;
}

int engine_find(const char *asked, bool answering, char **address, char **from, struct error *err)
{
	cleanup_engine_target struct engine_target t = ENGINE_TARGET_INIT;
	int r = engine_target_resolve(asked, NULL, &t, err);
	if (r == 0 && answering) {
		struct engine_reply a;
		r = engine_ask(&t, "GET", "/_ping", NULL, ANSWER_MS, &a, err);
		json_decref(a.json);
		if (r == 0 && a.status != 200)
			r = error_set(err, ERROR_BACKEND_UNREACHABLE, "what answers at %s is no container engine (status %d)", t.url, a.status);
	}
	if (r < 0)
		return r;
	*address = xstrdup(t.url);
	*from = xstrdup(t.from);
	return 0;
}

/* ---- what a keeper that was killed has left ---- */

static int failed(const struct engine_target *t, const char *what, const struct engine_reply *a, struct error *err)
{
	const char *why = json_string_value(json_object_get(a->json, "message"));
	return error_set(err, ERROR_BACKEND_DEPROVISION_FAILED, "%s: %s: %s", t->url, what, why ? why : "it cannot be removed");
}

static int remove_thing(const struct engine_target *t, const char *what, const char *path, struct error *err)
{
	struct engine_reply a;
	int r = engine_ask(t, "DELETE", path, NULL, REMOVE_MS, &a, err);
	if (r == 0 && (a.status < 200 || a.status > 299) && a.status != 404)
		r = failed(t, what, &a, err);
	json_decref(a.json);
	return r;
}

/* By name: asked by id, Podman (4.3 at least) removes one that is in use. Docker may have two of one name, and then says 400.
 * 1: it stays, for others use it */
static int remove_network(const struct engine_target *t, const char *name, const char *id, struct error *err)
{
	struct engine_reply a;
	cleanup_free char *path = xasprintf("/networks/%s", name);
	int r = engine_ask(t, "DELETE", path, NULL, REMOVE_MS, &a, err);
	if (r == 0 && a.status == 400) {
		json_decref(a.json);
		free(path);
		path = xasprintf("/networks/%s", id);
		r = engine_ask(t, "DELETE", path, NULL, REMOVE_MS, &a, err);
	}
	if (r == 0 && a.status >= 300 && a.status != 404)
		r = engine_network_is_in_use(json_string_value(json_object_get(a.json, "message")), a.status) ? 1 : failed(t, name, &a, err);
	json_decref(a.json);
	return r;
}

/* new: the list at `path` of what carries this namespace's label */
static int list_labelled(const struct engine_target *t, const char *path, const char *namespace_, json_t **ret, struct error *err)
{
	cleanup_free char *url = engine_labelled(path, namespace_);
	struct engine_reply a;
	int r = engine_ask(t, "GET", url, NULL, DISCARD_MS, &a, err);
	if (r == 0 && (a.status != 200 || !json_is_array(a.json)))
		r = failed(t, path, &a, err);
	if (r < 0)
		json_decref(a.json);
	else
		*ret = a.json;
	return r;
}

static const char *first_name(const json_t *item)
{
	const char *name = json_string_value(json_array_get(json_object_get(item, "Names"), 0));
	return name ? name + (*name == '/') : json_string_value(json_object_get(item, "Name"));
}

enum kind { CONTAINERS, NETWORKS };

/* What carries the namespace's label is removed. Returns how many there were but for those that others use. */
static int sweep_kind(const struct engine_target *t, enum kind kind, const char *namespace_, bool remove, char ***found, bool *stays, struct error *err)
{
	json_t *all = NULL, *item;
	size_t i;
	int n = 0, r = list_labelled(t, kind == NETWORKS ? "/networks?" : "/containers/json?all=1&", namespace_, &all, err);
	json_array_foreach (all, i, item) {
		const char *id = json_string_value(json_object_get(item, "Id")), *name = first_name(item);
		if (!id || !engine_is_of(json_object_get(item, "Labels"), namespace_))
			continue;
		name = name ? name : id;
		cleanup_free char *container = xasprintf("/containers/%s" ENGINE_REMOVE_ALL, id);
		if (found && !strv_contains(*found, name))
			strv_push(found, xstrdup(name));
		if (remove && r >= 0)
			r = kind == NETWORKS ? remove_network(t, name, id, err) : remove_thing(t, name, container, err);
		*stays |= r == 1;
		n += r != 1;
	}
	json_decref(all);
	return r < 0 ? r : n;
}

static int sweep_once(const struct engine_target *t, const char *namespace_, bool remove, char ***found, bool *stays, struct error *err)
{
	int containers = sweep_kind(t, CONTAINERS, namespace_, remove, found, stays, err);
	int networks = containers < 0 ? containers : sweep_kind(t, NETWORKS, namespace_, remove, found, stays, err);
	return networks < 0 ? networks : containers + networks;
}

/* Until there is nothing: a call that the killed one had sent may make something yet. */
int engine_sweep(const char *address, const char *namespace_, bool remove, char ***found, struct error *err)
{
	cleanup_engine_target struct engine_target t = ENGINE_TARGET_INIT;
	int r = engine_target_resolve(address, address, &t, err);
	bool stays = false;
	for (int round = 0; r == 0 && round < SWEEP_ROUNDS; round++) {
		cleanup_error struct error why = ERROR_INIT;
		stays = false;
		int n = sweep_once(&t, namespace_, remove, found, &stays, &why);
		bool over = n == 0 || !remove || round == SWEEP_ROUNDS - 1 || why.code == ERROR_BACKEND_UNREACHABLE;
		if (over && remove && n > 0)
			error_set(&why, ERROR_BACKEND_DEPROVISION_FAILED, "%s: somebody makes containers of %s again and again", t.url, namespace_);
		if (over && error_is_set(&why)) {
			r = -why.err;
			if (err)
				error_move(err, &why);
		}
		if (over)
			break;
		found = NULL;
		nanosleep(&(struct timespec){0, SWEEP_PAUSE_MS * 1000000L}, NULL);
	}
	return r < 0 ? r : stays;
}

/* ---- the end of a volume ---- */

static int discard_volume(const struct engine_target *t, const char *volume, const char *namespace_, struct error *err)
{
	cleanup_free char *name = engine_escape(volume), *path = xasprintf("/volumes/%s", name), *what = xasprintf("the volume %s", volume);
	struct engine_reply a;
	int r = engine_ask(t, "GET", path, NULL, DISCARD_MS, &a, err);
	bool ours = r == 0 && a.status == 200 && engine_is_of(json_object_get(a.json, "Labels"), namespace_);
	if (r == 0 && a.status != 200 && a.status != 404)
		r = failed(t, what, &a, err);
	json_decref(a.json);
	return r < 0 || !ours ? r : remove_thing(t, what, path, err);
}

/* 1: a container of the namespace is made of it. An engine takes a name away from what is used, where it has another. */
static int is_used(const struct engine_target *t, const char *id, const char *namespace_, struct error *err)
{
	json_t *containers = NULL, *container;
	size_t i;
	int r = list_labelled(t, "/containers/json?all=1&", namespace_, &containers, err);
	json_array_foreach (containers, i, container)
		if (r == 0 && engine_image_is(id, json_string_value(json_object_get(container, "ImageID"))))
			r = 1;
	json_decref(containers);
	return r;
}

/* The name that a namespace has of it, and with its last name the image. What uses it, a later generation's container, has a record of its own. */
static int discard_image(const struct engine_target *t, const char *image, const char *namespace_, struct error *err)
{
	cleanup_free char *name = engine_escape(image), *path = xasprintf("/images/%s", name), *look = xasprintf("%s/json", path);
	size_t len = strlen(namespace_);
	struct engine_reply a;
	if (strncmp(image, namespace_, len) || image[len] != '-')
		return 0;
	int r = engine_ask(t, "GET", look, NULL, DISCARD_MS, &a, err);
	const char *id = json_string_value(json_object_get(a.json, "Id"));
	int used = r < 0 ? r : a.status == 200 && id ? is_used(t, id, namespace_, err) : 1;
	json_decref(a.json);
	if (used)
		return used < 0 ? used : 0;
	r = engine_ask(t, "DELETE", path, NULL, DISCARD_MS, &a, err);
	json_decref(a.json);
	return r;
}

int engine_discard(const json_t *record, const char *namespace_, struct error *err)
{
	const char *backend = json_string_value(json_object_get(record, "backend")), *url = json_string_value(json_object_get(record, "engine"));
	const char *volume = json_string_value(json_object_get(record, "volume")), *image = json_string_value(json_object_get(record, "image"));
	cleanup_engine_target struct engine_target t = ENGINE_TARGET_INIT;
	if (!url || (!volume && !image))
		return 0;
	int r = engine_target_resolve(backend, url, &t, err);
	return r < 0 ? r : volume ? discard_volume(&t, volume, namespace_, err) : discard_image(&t, image, namespace_, err);
}

int engine_holds(const json_t *record, struct error *err)
{
	const char *backend = json_string_value(json_object_get(record, "backend")), *url = json_string_value(json_object_get(record, "engine"));
	cleanup_free char *name = engine_escape(json_string_value(json_object_get(record, "volume"))), *path = xasprintf("/volumes/%s", name);
	cleanup_engine_target struct engine_target t = ENGINE_TARGET_INIT;
	struct engine_reply a;
	int r = engine_target_resolve(backend, url, &t, err);
	if (r == 0)
		r = engine_ask(&t, "GET", path, NULL, DISCARD_MS, &a, err);
	if (r < 0)
		return r;
	if (a.status != 200 && a.status != 404)
		r = failed(&t, path, &a, err);
	json_decref(a.json);
	return r < 0 ? r : a.status == 200;
}

static int ask_usage(const struct engine_target *t, const char *version, json_t **ret, struct error *err)
{
	cleanup_free char *path = xasprintf("%s/system/df?type=volume", version);
	struct engine_reply a;
	int r = engine_ask(t, "GET", path, NULL, USAGE_MS, &a, err);
	if (r == 0 && a.status == 200)
		*ret = json_incref(json_object_get(a.json, "Volumes"));
	json_decref(a.json);
	return r;
}

int engine_usage(const json_t *record, json_t **ret, struct error *err)
{
	const char *backend = json_string_value(json_object_get(record, "backend")), *url = json_string_value(json_object_get(record, "engine"));
	cleanup_engine_target struct engine_target t = ENGINE_TARGET_INIT;
	json_t *volumes = NULL, *volume;
	size_t i;
	int r = engine_target_resolve(backend, url, &t, err);
	if (r == 0)
		r = ask_usage(&t, "", &volumes, err);
	if (r == 0 && !volumes)
		r = ask_usage(&t, USAGE_API, &volumes, err);
	if (r < 0)
		return r;
	if (!volumes)
		return error_set(err, ERROR_BACKEND_UNREACHABLE, "%s does not say what its volumes take", t.url);
	*ret = json_object();
	json_array_foreach (volumes, i, volume) {
		const char *name = json_string_value(json_object_get(volume, "Name"));
		json_t *size = json_object_get(json_object_get(volume, "UsageData"), "Size");
		if (name)
			json_object_set_new(*ret, name, json_integer(json_is_integer(size) ? json_integer_value(size) : -1));
	}
	json_decref(volumes);
	return 0;
}
