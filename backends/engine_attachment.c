/* A program in a service's container, for somebody who waits for it: its streams are the connection itself, once the engine has handed it over.
 * https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Exec */
#include "backends/engine_attachment.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"

#define TRIES 5 /* there is no terminal, and no process, until the program has begun */
#define TRY_PAUSE_MS 20
#define ASK_PAUSE_MS 10
#define PROC_MAX 16384
#define CHUNK (64u << 10)
#define CANNOT_RUN 126 /* what an engine has not been able to start ends with, whatever the reason was */

static void pause_ms(long ms)
{
	const struct timespec ts = {ms / 1000, ms % 1000 * 1000000};
	nanosleep(&ts, NULL);
}

void engine_attachment_release(struct engine_attachment *s)
{
	http_stream_free(s->stream);
	engine_target_release(&s->target);
	free(s->container);
	free(s->program);
	free(s->what);
	free(s->user);
	free(s);
}

/* ---- calls ---- */

/* Of what cannot be run: what a shell would make 127 and 126 of. */
static enum error_code code_of(const char *text)
{
	if (strcasestr(text, "executable file not found") || strcasestr(text, "no such file or directory"))
		return ERROR_PROGRAM_NOT_FOUND;
	return ERROR_BACKEND_SPAWN_FAILED;
}

/* `running`: what was asked for is to run the program. */
static int refused(const struct engine_attachment *s, const struct engine_reply *reply, bool running, struct error *err)
{
	const char *text = json_string_value(json_object_get(reply->json, "message"));
	if (!text)
		return error_set(err, ERROR_BACKEND_UNREACHABLE, "%s: %s answered with status %d and no reason", s->what, s->target.url, reply->status);
	return error_set(err, running ? code_of(text) : ERROR_SERVICE_FAILED, "%s: %s", s->what, text);
}

static bool is_success(const struct engine_reply *reply)
{
	return (reply->status >= 200 && reply->status < 300) || reply->status == 304;
}

static int call(struct engine_attachment *s, const char *method, const char *path, const json_t *body, bool running, struct engine_reply *ret, struct error *err)
{
	cleanup_reply struct engine_reply reply = {0, NULL};
	int r = engine_ask(&s->target, method, path, body, ATTACHMENT_CALL_MS, &reply, err);
	if (r == 0 && !is_success(&reply))
		r = refused(s, &reply, running, err);
	if (r == 0 && ret)
		*ret = (struct engine_reply){reply.status, move_ptr(reply.json)};
	return r;
}

int engine_attachment_call(struct engine_attachment *s, const char *method, const char *path, const json_t *body, struct engine_reply *ret, struct error *err)
{
	return call(s, method, path, body, false, ret, err);
}

int engine_attachment_run(struct engine_attachment *s, const char *path, struct error *err)
{
	return call(s, "POST", path, NULL, true, NULL, err);
}

int engine_attachment_connect(struct engine_attachment *s, const char *path, const json_t *body, struct error *err)
{
	const struct http_params params = engine_http_params(&s->target);
	cleanup_reply struct engine_reply reply = {0, NULL};
	cleanup_free char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	const struct http_request request = {.method = "POST", .path = path, .body = text, .body_len = text ? strlen(text) : 0, .timeout_ms = ATTACHMENT_CALL_MS,
	                                     .done = engine_take_reply, .arg = &reply};
	int r = http_upgrade(&params, &request, &s->stream, err);
	return r < 0 ? r : r ? 0 : refused(s, &reply, true, err);
}

static bool has_variable(const json_t *there, const char *key)
{
	size_t i, len = strlen(key);
	json_t *item;
	json_array_foreach (there, i, item) {
		const char *text = json_string_value(item);
		if (text && !strncmp(text, key, len) && text[len] == '=')
			return true;
	}
	return false;
}

static void add_variable(json_t *list, const struct keyval *item)
{
	cleanup_free char *text = xasprintf("%s=%s", item->key, item->value ? item->value : "");
	json_array_append_new(list, json_string(text));
}

json_t *engine_attachment_words(char *const *words)
{
	json_t *list = json_array();
	for (; list && *words; words++)
		if (json_array_append_new(list, json_string(*words))) {
			json_decref(list);
			list = NULL;
		}
	return list;
}

json_t *engine_attachment_env(const struct attachment_spec *spec, const json_t *there)
{
	json_t *list = json_array();
	for (size_t i = 0; spec->defaults && i < spec->defaults->count; i++)
		if (!has_variable(there, spec->defaults->items[i].key) && !(spec->env && keyvals_has(spec->env, spec->defaults->items[i].key)))
			add_variable(list, &spec->defaults->items[i]);
	for (size_t i = 0; spec->env && i < spec->env->count; i++)
		add_variable(list, &spec->env->items[i]);
	return list;
}

/* ---- the stream ---- */

size_t engine_attachment_fds(struct attachment *base, bool writing, struct pollfd *ret)
{
	struct engine_attachment *s = (struct engine_attachment *)base;
	bool now = writing || http_stream_has(s->stream); /* there is always room to write soon */
	ret[0] = (struct pollfd){http_stream_fd(s->stream), (short)(POLLIN | (now ? POLLOUT : 0)), 0};
	return 1;
}

int engine_attachment_read(struct attachment *base, attachment_take *take, void *arg)
{
	struct engine_attachment *s = (struct engine_attachment *)base;
	char chunk[CHUNK];
	ssize_t n = http_stream_read(s->stream, chunk, sizeof chunk);
	if (n == -EAGAIN)
		return 1;
	if (n <= 0)
		return (int)n;
	if (s->terminal)
		take(arg, ATTACHMENT_OUT, chunk, (size_t)n);
	else
		engine_frames_feed(&s->frames, chunk, (size_t)n, take, arg);
	return 1;
}

ssize_t engine_attachment_write(struct attachment *base, const void *data, size_t len)
{
	return http_stream_write(((struct engine_attachment *)base)->stream, data, len);
}

int engine_attachment_end_input(struct attachment *base)
{
	return http_stream_end(((struct engine_attachment *)base)->stream);
}

int engine_attachment_resize(struct attachment *base, unsigned rows, unsigned columns)
{
	struct engine_attachment *s = (struct engine_attachment *)base;
	cleanup_free char *path = xasprintf("%s/resize?h=%u&w=%u", s->program, rows, columns);
	int r = -EIO;
	for (int i = 0; i < TRIES && r; i++) {
		if (i)
			pause_ms(TRY_PAUSE_MS);
		r = engine_attachment_call(s, "POST", path, NULL, NULL, NULL);
	}
	return r;
}

/* ---- the end ---- */

/* 1: it runs, 0: *ret_code is how it ended. */
static int look(struct engine_attachment *s, const char *state, int *ret_code, struct error *err)
{
	cleanup_free char *path = xasprintf("%s/json", s->program);
	cleanup_reply struct engine_reply reply = {0, NULL};
	int r = engine_attachment_call(s, "GET", path, NULL, &reply, err);
	if (r < 0)
		return r;
	const json_t *at = state ? json_object_get(reply.json, state) : reply.json;
	if (json_is_true(json_object_get(at, "Running")))
		return 1;
	*ret_code = (int)json_integer_value(json_object_get(at, "ExitCode"));
	return 0;
}

int engine_attachment_wait(struct attachment *base, const char *state, unsigned timeout_ms, int *ret_code, struct error *err)
{
	struct engine_attachment *s = (struct engine_attachment *)base;
	uint64_t until = now_monotonic_ms() + timeout_ms;
	for (;;) {
		int r = look(s, state, ret_code, err);
		if (r <= 0)
			return r;
		if (now_monotonic_ms() + ASK_PAUSE_MS > until)
			return -EAGAIN;
		pause_ms(ASK_PAUSE_MS);
	}
}

/* ---- exec ---- */

/* Of one that is being killed an engine says for a moment that it runs. */
static bool has_ended(struct engine_attachment *s)
{
	cleanup_free char *path = xasprintf("/containers/%s/json", s->container);
	for (int i = 0; i < TRIES; i++) {
		cleanup_reply struct engine_reply reply = {0, NULL};
		if (i)
			pause_ms(TRY_PAUSE_MS);
		if (engine_ask(&s->target, "GET", path, NULL, ATTACHMENT_CALL_MS, &reply, NULL) < 0)
			return false;
		if (reply.status == 404 || (reply.status == 200 && !engine_is_running(reply.json)))
			return true;
	}
	return false;
}

static int went_away(const struct engine_attachment *s, struct error *err)
{
	return error_set(err, ERROR_SERVICE_FAILED, "the container of %s went away meanwhile", s->what);
}

static int exec_wait(struct attachment *base, unsigned timeout_ms, int *ret_code, struct error *err)
{
	cleanup_error struct error why = ERROR_INIT;
	struct engine_attachment *s = (struct engine_attachment *)base;
	int r = engine_attachment_wait(base, NULL, timeout_ms, ret_code, &why);
	if (r < 0 && r != -EAGAIN && why.code != ERROR_BACKEND_UNREACHABLE) /* the engine knows nothing of it any more */
		return went_away(s, err);
	if (r == 0 && *ret_code == CANNOT_RUN && has_ended(s))
		return went_away(s, err);
	if (r < 0 && r != -EAGAIN && err)
		error_move(err, &why);
	return r;
}

static bool read_proc(pid_t pid, const char *file, struct buffer *text)
{
	cleanup_free char *path = xasprintf("/proc/%d/%s", (int)pid, file);
	return !file_read(AT_FDCWD, path, PROC_MAX, text);
}

static bool namespace_of(pid_t pid, char ret[64])
{
	cleanup_free char *path = xasprintf("/proc/%d/ns/pid", (int)pid);
	ssize_t n = pid > 0 ? readlink(path, ret, 63) : -1;
	ret[n > 0 ? n : 0] = '\0';
	return n > 0;
}

/* Is it a process of this machine and of that container? The path of its cgroup names it; a rootless engine may have no cgroups, but there its
 * namespace can be looked at. */
static bool is_of_container(const struct engine_attachment *s, pid_t pid)
{
	cleanup_buffer struct buffer cgroup = BUFFER_INIT;
	char its[64], first[64], ours[64];
	if (pid > 0 && read_proc(pid, "cgroup", &cgroup) && strstr(buffer_str(&cgroup), s->container))
		return true;
	return namespace_of(pid, its) && namespace_of(s->pid, first) && namespace_of(getpid(), ours) && !strcmp(its, first) && strcmp(its, ours);
}

/* The number that it has there; 0: it is another machine's, or gone. */
static long pid_inside(const struct engine_attachment *s, pid_t pid)
{
	cleanup_buffer struct buffer status = BUFFER_INIT;
	if (!is_of_container(s, pid) || !read_proc(pid, "status", &status))
		return 0;
	const char *line = strstr(buffer_str(&status), "\nNSpid:"), *last = NULL;
	for (size_t len = line ? strcspn(line + 1, "\n") : 0; len > 1; len--)
		if (line[len] == '\t' || line[len] == ' ') {
			last = line + len + 1;
			break;
		}
	return last ? strtol(last, NULL, 10) : 0;
}

/* Its number within; 0: it cannot be known. The engine may know none yet of what has just begun. */
static long find_inside(struct engine_attachment *s)
{
	cleanup_free char *path = xasprintf("%s/json", s->program);
	for (int i = 0; i < TRIES; i++) {
		cleanup_reply struct engine_reply program = {0, NULL};
		if (engine_attachment_call(s, "GET", path, NULL, &program, NULL))
			return 0;
		pid_t pid = (pid_t)json_integer_value(json_object_get(program.json, "Pid"));
		if (pid > 0)
			return pid_inside(s, pid);
		pause_ms(TRY_PAUSE_MS);
	}
	return 0;
}

/* An engine has no call for it. So another program does it, as the same user, where there is a shell. */
static int exec_signal(struct attachment *base, int signo)
{
	struct engine_attachment *s = (struct engine_attachment *)base;
	cleanup_reply struct engine_reply made = {0, NULL};
	long pid = find_inside(s);
	if (pid <= 1)
		return -EOPNOTSUPP;
	cleanup_free char *kill = xasprintf("kill -%d %ld", signo, pid), *path = xasprintf("/containers/%s/exec", s->container);
	json_t *body = json_pack("{s:[s, s, s], s:b, s:s}", "Cmd", "/bin/sh", "-c", kill, "AttachStdout", true, "User", s->user ? s->user : "");
	int r = engine_attachment_call(s, "POST", path, body, &made, NULL);
	json_decref(body);
	const char *id = json_string_value(json_object_get(made.json, "Id"));
	cleanup_free char *start = xasprintf("/exec/%s/start", id ? id : "");
	body = json_pack("{s:b}", "Detach", true);
	if (r == 0)
		r = engine_attachment_call(s, "POST", start, body, NULL, NULL);
	json_decref(body);
	return r ? -EOPNOTSUPP : 0;
}

static void exec_close(struct attachment *base)
{
	engine_attachment_release((struct engine_attachment *)base);
}

const struct attachment_ops engine_exec_attachment = {
	.fds = engine_attachment_fds,
	.read = engine_attachment_read,
	.write = engine_attachment_write,
	.end_input = engine_attachment_end_input,
	.resize = engine_attachment_resize,
	.signal = exec_signal,
	.wait = exec_wait,
	.close = exec_close,
};

static int not_running(const char *service, struct error *err)
{
	error_set(err, ERROR_SERVICE_FAILED, "service %s does not run", service);
	return error_hint(err, "ajj start %s", service);
}

/* The service's container: ours, and running. */
static int find_container(struct engine_attachment *s, const struct attachment_spec *spec, struct engine_reply *ret, struct error *err)
{
	cleanup_free char *path = xasprintf("/containers/%s-%s/json", spec->namespace_, spec->service);
	int r = engine_ask(&s->target, "GET", path, NULL, ATTACHMENT_CALL_MS, ret, err);
	if (r < 0)
		return error_hint(err, "is the engine running? ajj status says which it is");
	const json_t *labels = json_object_get(json_object_get(ret->json, "Config"), "Labels"), *state = json_object_get(ret->json, "State");
	if (ret->status == 404)
		return not_running(spec->service, err);
	if (ret->status != 200)
		return refused(s, ret, false, err);
	if (!engine_is_of(labels, spec->namespace_))
		return error_set(err, ERROR_SERVICE_FAILED, "%s: the container %s-%s is not of this environment", s->what, spec->namespace_, spec->service);
	const char *id = json_string_value(json_object_get(ret->json, "Id"));
	if (!id || !engine_is_running(ret->json))
		return not_running(spec->service, err);
	s->container = xstrdup(id);
	s->pid = (pid_t)json_integer_value(json_object_get(state, "Pid"));
	return 0;
}

static int make(struct engine_attachment *s, const struct attachment_spec *spec, const json_t *container, struct error *err)
{
	cleanup_free char *path = xasprintf("/containers/%s/exec", s->container);
	cleanup_reply struct engine_reply made = {0, NULL};
	json_t *cmd = engine_attachment_words(spec->argv), *env = engine_attachment_env(spec, json_object_get(json_object_get(container, "Config"), "Env"));
	json_t *body = json_pack("{s:b, s:b, s:b, s:b, s:o, s:o, s:s, s:s, s:s}", "AttachStdin", true, "AttachStdout", true, "AttachStderr", true, "Tty",
	                         (int)spec->terminal, "Cmd", cmd, "Env", env, "User", spec->user ? spec->user : "", "WorkingDir",
	                         spec->directory ? spec->directory : "", "DetachKeys", ATTACHMENT_DETACH_KEYS);
	if (!body)
		return error_set(err, ERROR_USAGE, ENGINE_NOT_UTF8);
	if (spec->terminal && spec->rows) /* from API 1.42 on; older ones hear of it once it runs */
		json_object_set_new(body, "ConsoleSize", json_pack("[i, i]", (int)spec->rows, (int)spec->columns));
	int r = engine_attachment_call(s, "POST", path, body, &made, err);
	json_decref(body);
	const char *id = json_string_value(json_object_get(made.json, "Id"));
	if (r == 0)
		s->program = xasprintf("/exec/%s", id ? id : "");
	return r;
}

int engine_attach(const struct attachment_spec *spec, struct attachment **ret, struct error *err)
{
	if (!spec->service)
		return engine_one_off(spec, ret, err);
	cleanup_engine_attachment struct engine_attachment *s = xcalloc(1, sizeof *s);
	cleanup_reply struct engine_reply container = {0, NULL};
	s->base.ops = &engine_exec_attachment;
	s->what = xasprintf("service %s", spec->service);
	s->terminal = spec->terminal;
	s->user = xstrdup(spec->user);
	if (!spec->address)
		return not_running(spec->service, err);
	int r = engine_target_resolve(spec->address, spec->address, &s->target, err);
	if (r == 0)
		r = find_container(s, spec, &container, err);
	if (r == 0)
		r = make(s, spec, container.json, err);
	if (r < 0)
		return r;
	cleanup_free char *path = xasprintf("%s/start", s->program);
	json_t *body = json_pack("{s:b, s:b}", "Detach", false, "Tty", (int)spec->terminal);
	cleanup_error struct error why = ERROR_INIT;
	r = engine_attachment_connect(s, path, body, &why);
	json_decref(body);
	if (r < 0 && why.code == ERROR_BACKEND_SPAWN_FAILED && has_ended(s))
		return went_away(s, err);
	if (r < 0 && err)
		error_move(err, &why);
	if (r < 0)
		return r;
	if (spec->terminal)
		engine_attachment_resize(&s->base, spec->rows, spec->columns);
	*ret = &move_ptr(s)->base;
	return 0;
}
