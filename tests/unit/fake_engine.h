/* A container engine that answers the calls of a service's life as a real one does, but for the one call that a test spoils. */
#ifndef TESTS_UNIT_FAKE_ENGINE_H
#define TESTS_UNIT_FAKE_ENGINE_H

#include <jansson.h>

#include "backends/backend.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/strv.h"
#include "tests/unit/scripted_server.h"

struct fake_engine {
	struct scripted_server server;
	pthread_mutex_t lock;
	json_t *containers, *networks, *volumes, *images; /* by name, as their inspection shows them */
	unsigned made;
	json_t *image; /* what an image's inspection adds */
	int stop_code; /* what a stopped container ends with */
	/* Called before each answer. Returns whether it has answered; `*keep`: whether the connection stays. */
	bool (*spoil)(void *arg, int fd, const struct scripted_request *r, bool *keep);
	void *arg;
};

static inline bool fake_dump(int fd, int status, json_t *json)
{
	cleanup_free char *text = json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY);
	return scripted_json(fd, status, text);
}

static inline bool fake_refuse(int fd, int status, const char *message)
{
	json_t *json = json_pack("{s:s}", "message", message);
	bool keep = fake_dump(fd, status, json);
	json_decref(json);
	return keep;
}

static inline bool fake_empty(int fd)
{
	return scripted_say(fd, "HTTP/1.1 204 No Content\r\n\r\n"), true;
}

/* borrowed; by name or Id */
static inline json_t *fake_find(json_t *things, const char *name)
{
	json_t *thing = json_object_get(things, name), *found = NULL;
	const char *key;
	if (thing)
		return thing;
	json_object_foreach (things, key, thing)
		if (!strcmp(json_string_value(json_object_get(thing, "Id")), name))
			found = thing;
	return found;
}

static inline void fake_drop(json_t *things, const char *name)
{
	json_t *thing;
	const char *key;
	void *next;
	json_object_foreach_safe (things, next, key, thing)
		if (!strcmp(key, name) || !strcmp(json_string_value(json_object_get(thing, "Id")), name))
			json_object_del(things, key);
}

static inline json_t *fake_state(bool running, const char *started)
{
	return json_pack("{s:b, s:i, s:i, s:s, s:s}", "Running", running, "Pid", 0, "ExitCode", 0, "StartedAt", started, "FinishedAt", "2026-01-01T00:00:01.5Z");
}

/* Networks, volumes and containers alike: a new Id, and what it was made with. */
static inline bool fake_make(struct fake_engine *f, int fd, json_t *things, const char *name, json_t *body)
{
	char id[65];
	if (fake_find(things, name))
		return things == f->volumes ? fake_dump(fd, 200, fake_find(things, name)) : fake_refuse(fd, 409, "it is already in use");
	snprintf(id, sizeof id, "%064x", ++f->made);
	json_t *thing = json_pack("{s:s, s:s, s:O, s:o}", "Id", id, "Name", name, "Config", body, "State", fake_state(false, "0001-01-01T00:00:00Z"));
	json_t *labels = json_object_get(body, "Labels");
	json_object_set(thing, "Labels", labels);
	json_object_set_new(things, name, thing);
	return fake_dump(fd, 201, thing);
}

static inline bool fake_list(struct fake_engine *f, int fd)
{
	json_t *list = json_array(), *c;
	const char *name;
	json_object_foreach (f->containers, name, c) {
		bool running = json_is_true(json_object_get(json_object_get(c, "State"), "Running"));
		bool started = strncmp(json_string_value(json_object_get(json_object_get(c, "State"), "StartedAt")), "0001", 4);
		json_array_append_new(list, json_pack("{s:O, s:O, s:s, s:[s]}", "Id", json_object_get(c, "Id"), "Labels", json_object_get(c, "Labels"), "State",
		                                      running ? "running" : started ? "exited" : "created", "Names", name));
	}
	bool keep = fake_dump(fd, 200, list);
	json_decref(list);
	return keep;
}

static inline void fake_stop(const struct fake_engine *f, json_t *container)
{
	json_t *state = fake_state(false, "2026-01-01T00:00:00.123456789Z");
	json_object_set_new(state, "ExitCode", json_integer(f->stop_code));
	json_object_set_new(container, "State", state);
}

static inline bool fake_container(struct fake_engine *f, int fd, const char *method, const char *name, const char *verb)
{
	json_t *c = fake_find(f->containers, name);
	if (!c)
		return fake_refuse(fd, 404, "No such container");
	if (!strcmp(verb, "json"))
		return fake_dump(fd, 200, c);
	if (!strcmp(verb, "start"))
		return json_object_set_new(c, "State", fake_state(true, "2026-01-01T00:00:00.123456789Z")), fake_empty(fd);
	if (!strcmp(verb, "stop"))
		return fake_stop(f, c), fake_empty(fd);
	if (!strcmp(verb, "exec"))
		return scripted_json(fd, 201, "{\"Id\":\"x1\"}");
	if (!strcmp(method, "DELETE"))
		return fake_drop(f->containers, name), fake_empty(fd);
	return fake_refuse(fd, 404, "page not found");
}

static inline bool fake_stream(int fd)
{
	scripted_say(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
	return true;
}

static inline bool fake_life(struct fake_engine *f, int fd, const char *method, char **at, const char *query, json_t *body)
{
	const char *kind = at[0] ? at[0] : "", *name = at[0] && at[1] ? at[1] : "", *verb = *name && at[2] ? at[2] : "";
	if (!strcmp(kind, "containers")) {
		if (!strcmp(name, "json"))
			return fake_list(f, fd);
		if (!strcmp(name, "create"))
			return fake_make(f, fd, f->containers, query + strlen("name="), body);
		return fake_container(f, fd, method, name, verb);
	}
	if (!strcmp(kind, "exec"))
		return scripted_json(fd, 200, "{\"Running\":false,\"ExitCode\":0}");
	json_t *things = !strcmp(kind, "networks") ? f->networks : !strcmp(kind, "volumes") ? f->volumes : f->images;
	if (!strcmp(name, "create"))
		return fake_make(f, fd, things, json_string_value(json_object_get(body, "Name")), body);
	if (!fake_find(things, name))
		return fake_refuse(fd, 404, "not found");
	if (!strcmp(method, "DELETE"))
		return fake_drop(things, name), fake_empty(fd);
	return fake_dump(fd, 200, fake_find(things, name));
}

/* {stdout, 0, 0, 0, length} */
#define FAKE_OUTPUT "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n\1\0\0\0\0\0\0\3hi\n\r\n0\r\n\r\n"

static inline bool fake_answer(void *arg, int fd, const struct scripted_request *r)
{
	struct fake_engine *f = arg;
	bool keep = false;
	if (f->spoil && f->spoil(f->arg, fd, r, &keep))
		return keep;
	if (!strcmp(r->path, "/version"))
		return scripted_json(fd, 200, "{\"ApiVersion\":\"1.41\",\"MinAPIVersion\":\"1.12\",\"Arch\":\"amd64\"}");
	if (strstr(r->path, "/events") || strstr(r->path, "/logs"))
		return fake_stream(fd), scripted_hang(fd);
	if (strstr(r->path, "/exec/x1/start"))
		return send(fd, FAKE_OUTPUT, sizeof FAKE_OUTPUT - 1, MSG_NOSIGNAL) > 0;
	cleanup_free char *path = xstrdup(r->path), *copy = NULL;
	char *query = strchr(path, '?'), *save = NULL, *at[4] = {NULL};
	if (query)
		*query++ = '\0';
	copy = xstrdup(strlen(path) > 6 ? path + 6 : ""); /* "/v1.41" */
	char *word = strtok_r(copy, "/", &save);
	for (size_t i = 0; i < 3 && word; i++, word = strtok_r(NULL, "/", &save))
		at[i] = word;
	json_t *body = json_loads(r->body, 0, NULL);
	pthread_mutex_lock(&f->lock);
	if (!strncmp(r->path, "/v1.41/images/create", 20)) { /* the pull of the one that it has */
		json_object_set_new(f->images, "app%3A1", json_pack("{s:s, s:O}", "Id", "sha256:1", "Config", f->image));
		fake_stream(fd);
		scripted_say(fd, "e\r\n{\"status\":\"a\"}\r\n0\r\n\r\n");
		keep = true;
	} else {
		keep = fake_life(f, fd, r->method, at, query ? query : "", body);
	}
	pthread_mutex_unlock(&f->lock);
	json_decref(body);
	return keep;
}

static inline void fake_engine_start(struct fake_engine *f)
{
	*f = (struct fake_engine){.containers = json_object(), .networks = json_object(), .volumes = json_object(), .images = json_object(), .image = json_object()};
	pthread_mutex_init(&f->lock, NULL);
	scripted_server_start(&f->server, fake_answer, f);
}

static inline void fake_engine_stop(struct fake_engine *f)
{
	scripted_server_stop(&f->server);
	json_decref(f->containers);
	json_decref(f->networks);
	json_decref(f->volumes);
	json_decref(f->images);
	json_decref(f->image);
	pthread_mutex_destroy(&f->lock);
}

static inline void fake_engine_change_ignored(void *arg, const struct instance *now)
{
}

/* A backend of the namespace "ns" on it, whose files are all in `dir`. `changed` and `progress` may be NULL. */
static inline struct backend *fake_engine_open(const struct fake_engine *f, uv_loop_t *loop, const char *dir, void (*changed)(void *arg, const struct instance *now),
                                               void (*progress)(void *arg, const char *service, const json_t *progress), void *arg)
{
	cleanup_free char *target = xasprintf("unix://%s", f->server.path);
	const struct backend_params params = {.loop = loop, .target = target, .namespace_ = "ns", .workspace = "w", .workspace_root = dir, .state_dir = dir,
	                                      .shared_dir = dir, .keeper_pidfd = -1, .uid = (uid_t)-1, .changed = changed ? changed : fake_engine_change_ignored, .progress = progress, .changed_arg = arg};
	struct backend *b = NULL;
	assert_int_equal(backend_open(&params, &b, NULL), 0);
	return b;
}

/* After the backend was closed: the loop, the engine and `dir`. */
static inline void fake_engine_end(struct fake_engine *f, uv_loop_t *loop, const char *dir)
{
	uv_run(loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(loop), 0);
	fake_engine_stop(f);
	tree_remove(AT_FDCWD, dir);
}

#endif
