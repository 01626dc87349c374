// once
/* The engine backends before an engine that is broken, or lies, in each call of a service's life: they say so in bounded time and words, and
 * all is well, and nothing left, once the engine is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "backends/backend.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "tests/unit/fake_engine.h"

#define WAIT_MS 20000
#define SAID_MAX 3000

/* ---- what is done to a call ---- */

enum fault { NO_FAULT, FAULT_500, FAULT_500_MUTE, FAULT_500_LONG, FAULT_302, FAULT_GARBAGE, FAULT_TEXT, FAULT_NOTHING, FAULT_CUT, FAULT_SHORT, FAULT_CHUNK, FAULT_CLOSE,
             FAULT_HUGE, FAULT_HUGE_LINE, FAULT_OBJECT, FAULT_LIST, FAULT_NULL, FAULT_NUMBERS, FAULT_DEEP, FAULT_SLOW, FAULT_HANG, FAULT_HANG_WITHIN, FAULTS };

static bool endless(int fd, const char *head, char c)
{
	char bytes[65536];
	memset(bytes, c, sizeof bytes);
	scripted_say(fd, head);
	while (send(fd, bytes, sizeof bytes, MSG_NOSIGNAL) > 0)
		;
	return false;
}

static bool deep(int fd)
{
	struct buffer text = BUFFER_INIT;
	for (int i = 0; i < 100000; i++)
		buffer_addc(&text, '[');
	scripted_json(fd, 200, buffer_str(&text));
	buffer_release(&text);
	return true;
}

static bool long_reason(int fd)
{
	struct buffer text = BUFFER_INIT;
	buffer_adds(&text, "{\"message\":\"\\u001b[31m\\n");
	for (int i = 0; i < 100000; i++)
		buffer_adds(&text, "\xc3\xa4 ");
	buffer_adds(&text, "\"}");
	scripted_json(fd, 500, buffer_str(&text));
	buffer_release(&text);
	return true;
}

/* All that an inspection or a list may have, each of another kind than it is. */
#define NUMBERS "{\"Id\":1,\"State\":{\"Running\":\"yes\",\"StartedAt\":7,\"ExitCode\":\"0\",\"Pid\":\"x\"},\"Config\":{\"Labels\":[1]},\"Labels\":7,\"Mounts\":{\"a\":1},\"Names\":3,\"Name\":[]," \
	"\"ApiVersion\":1.41,\"Components\":[null,{\"Name\":4}],\"message\":4}"

static bool spoil(enum fault fault, int fd)
{
	static const char ok[] = "HTTP/1.1 200 OK\r\n";
	switch (fault) {
	case FAULT_500:
		return scripted_json(fd, 500, "{\"message\":\"the engine is out of order\"}");
	case FAULT_500_MUTE:
		return scripted_json(fd, 500, "");
	case FAULT_500_LONG:
		return long_reason(fd);
	case FAULT_302:
		return scripted_say(fd, "HTTP/1.1 302 Found\r\nLocation: http://localhost/x\r\nContent-Length: 0\r\n\r\n"), true;
	case FAULT_GARBAGE:
		return scripted_say(fd, "\x01\x02 not http at all\n\n"), false;
	case FAULT_TEXT:
		return scripted_json(fd, 200, "<html>hello</html>");
	case FAULT_NOTHING:
		return scripted_json(fd, 200, "");
	case FAULT_CUT:
		return scripted_json(fd, 200, "[{\"Id\":\"abc\",\"Sta");
	case FAULT_SHORT:
		return scripted_say(fd, ok), scripted_say(fd, "Content-Length: 100\r\n\r\n{\"Id\":"), false;
	case FAULT_CHUNK:
		return scripted_say(fd, ok), scripted_say(fd, "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"), false;
	case FAULT_CLOSE:
		return false;
	case FAULT_HUGE:
		return endless(fd, "HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n", '\n');
	case FAULT_HUGE_LINE:
		return endless(fd, "HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n", 'x');
	case FAULT_OBJECT:
		return scripted_json(fd, 200, "{}");
	case FAULT_LIST:
		return scripted_json(fd, 200, "[{},null,3,[],{\"Id\":\"a\"},{\"Id\":\"b\",\"State\":\"running\",\"Labels\":{\"aether.service\":\"web\"}}]");
	case FAULT_NULL:
		return scripted_json(fd, 200, "null");
	case FAULT_NUMBERS:
		return scripted_json(fd, 200, NUMBERS);
	case FAULT_DEEP:
		return deep(fd);
	case FAULT_SLOW:
		return usleep(10000), false;
	case FAULT_HANG:
		return scripted_hang(fd);
	case FAULT_HANG_WITHIN:
		return scripted_say(fd, ok), scripted_say(fd, "Content-Length: 100\r\n\r\n{\"Id\":"), scripted_hang(fd);
	case NO_FAULT:
	case FAULTS:
		break;
	}
	return false;
}

struct step {
	const char *method, *part;
};

static const struct step steps[] = {
    {"GET", "/version"}, {"GET", "/containers/ns-web/json"}, {"GET", "/networks/"}, {"POST", "/networks/create"}, {"GET", "/images/"}, {"POST", "/images/create"}, {"POST", "/volumes/create"},
    {"POST", "/containers/create"}, {"POST", "/start"}, {"GET", "/containers/00"}, {"GET", "/logs"}, {"GET", "/events"}, {"GET", "/containers/json"}, {"POST", "/containers/ns-web/exec"},
    {"POST", "/exec/x1/start"}, {"GET", "/exec/x1/json"}, {"POST", "/stop"}, {"DELETE", "/containers/"}, {"DELETE", "/networks/"}};
#define STEPS (sizeof steps / sizeof *steps)

static bool is_background(const struct step *s)
{
	return strstr(s->part, "/logs") || strstr(s->part, "/events");
}

struct spoiling {
	_Atomic enum fault fault;
	const struct step *step;
	_Atomic unsigned hits;
};

static bool on_request(void *arg, int fd, const struct scripted_request *r, bool *keep)
{
	struct spoiling *s = arg;
	if (s->fault == NO_FAULT || strcmp(r->method, s->step->method) || !strstr(r->path, s->step->part))
		return false;
	s->hits++;
	*keep = spoil(s->fault, fd);
	return true;
}

/* ---- a life ---- */

struct world {
	struct fake_engine engine;
	struct spoiling spoiling;
	uv_loop_t loop;
	uv_timer_t guard;
	struct backend *b;
	char dir[64];
	uint64_t until_ms;
	unsigned changes;
	char *told, *told_last; /* of a pull: before it was over, and at last; NULL: nothing, it is over */
	_Atomic bool told_loaded;
};

struct outcome {
	int calls, exit_code;
	size_t count;
	enum error_code code;
	char hint[300];
};

static void take(struct outcome *o, const struct error *err)
{
	o->calls++;
	o->code = err ? err->code : ERROR_NONE;
	if (!err)
		return;
	assert_int_not_equal(err->code, ERROR_NONE);
	assert_non_null(err->message);
	assert_in_range(strlen(err->message), 1, SAID_MAX);
	for (const char *c = err->message; *c; c++)
		assert_true((unsigned char)*c >= ' ');
	json_t *json = json_string(err->message); /* NULL: it is no UTF-8 */
	assert_non_null(json);
	json_decref(json);
}

static void on_done(void *arg, const struct error *err)
{
	take(arg, err);
}

static void on_list(void *arg, const struct error *err, const struct instances *list)
{
	take(arg, err);
	((struct outcome *)arg)->count = list->count;
}

static void on_exec(void *arg, const struct error *err, int exit_code, const char *output)
{
	take(arg, err);
	((struct outcome *)arg)->exit_code = exit_code;
}

static void on_changed(void *arg, const struct instance *instance)
{
	((struct world *)arg)->changes++;
}

static void on_progress(void *arg, const char *service, const json_t *progress)
{
	struct world *w = arg;
	free(w->told_last);
	w->told_last = progress ? json_dumps(progress, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	if (!w->told_last)
		return;
	free(w->told);
	w->told = xstrdup(w->told_last);
	w->told_loaded |= strstr(w->told, "\"current\":4000,\"id\":\"a\",\"status\":\"Download complete\"") != NULL;
}

/* Ticks, for what is answered by a timer leaves the loop asleep. */
static void on_guard(uv_timer_t *timer)
{
	struct world *w = timer->data;
	if (now_monotonic_ms() < w->until_ms)
		return;
	fprintf(stderr, "nothing happened for %d ms\n", WAIT_MS);
	abort();
}

static enum error_code await(struct world *w, const struct outcome *o)
{
	w->until_ms = now_monotonic_ms() + WAIT_MS;
	uv_timer_start(&w->guard, on_guard, 2, 2);
	while (!o->calls)
		uv_run(&w->loop, UV_RUN_ONCE);
	uv_timer_stop(&w->guard);
	assert_int_equal(o->calls, 1);
	return o->code;
}

static void on_pause(uv_timer_t *timer)
{
	*(bool *)timer->data = true;
}

/* The timer repeats: one that is due as the turn begins is over before the turn waits for something to happen. */
static void pause_ms(struct world *w, unsigned ms)
{
	bool over = false;
	uv_timer_t timer;
	uv_timer_init(&w->loop, &timer);
	timer.data = &over;
	uv_timer_start(&timer, on_pause, ms, ms);
	while (!over)
		uv_run(&w->loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&timer, NULL);
	uv_run(&w->loop, UV_RUN_NOWAIT);
}

static void open_backend(struct world *w)
{
	w->b = fake_engine_open(&w->engine, &w->loop, w->dir, on_changed, on_progress, w);
}

static void on_closed(void *arg)
{
	*(int *)arg = 1;
}

static void close_backend(struct world *w)
{
	struct outcome o = {0};
	backend_close(w->b, on_closed, &o.calls);
	await(w, &o);
}

/* What answers with an error of its own was not asked to begin with. */
static struct service_spec spec_of(const struct world *w, struct volume_spec *volume, char *data, size_t size)
{
	static const struct keyvals env = KEYVALS_INIT;
	snprintf(data, size, "%s/data", w->dir);
	static char record[128];
	snprintf(record, sizeof record, "%s/data/v.volume", w->dir);
	*volume = (struct volume_spec){.kind = VOLUME_NAMED, .name = "v", .source = record, .target = "/v"};
	return (struct service_spec){.name = "web", .image = "app:1", .env = &env, .volumes = volume, .n_volumes = 1, .stop_signal = 15, .stop_grace_ms = 100, .config_hash = "h",
	                             .generation = 1, .data = data};
}

/* What an earlier life has begun and not brought to its end. */
static enum error_code start_anew(struct world *w, const struct service_spec *spec)
{
	struct outcome removed = {0}, started = {0};
	backend_remove(w->b, "web", on_done, &removed);
	await(w, &removed);
	tree_remove(AT_FDCWD, spec->data);
	pthread_mutex_lock(&w->engine.lock);
	json_object_clear(w->engine.volumes);
	pthread_mutex_unlock(&w->engine.lock);
	backend_start(w->b, spec, on_done, &started);
	return await(w, &started);
}

#define LIVES 8

/* Probe, prepare, start, list, exec, stop, remove, clear: the code of each. `until`: so many of them; the last one hangs, and is closed. */
static void live(struct world *w, enum error_code codes[LIVES], size_t *listed, bool hangs)
{
	char data[128];
	static char *argv[] = {(char *)"true", NULL};
	struct volume_spec volume;
	const struct service_spec spec = spec_of(w, &volume, data, sizeof data);
	struct outcome o[LIVES] = {{0}};
	open_backend(w);
	for (size_t i = 0; i < LIVES; i++) {
		if (i == 0)
			backend_probe(w->b, on_done, &o[i]);
		if (i == 1)
			backend_prepare(w->b, &spec, on_done, &o[i]);
		if (i == 2)
			backend_start(w->b, &spec, on_done, &o[i]);
		if (i == 3)
			backend_list(w->b, on_list, &o[i]);
		if (i == 4)
			backend_exec(w->b, &spec, argv, 2000, on_exec, &o[i]);
		if (i == 5)
			backend_stop(w->b, "web", 15, 100, on_done, &o[i]);
		if (i == 6)
			backend_remove(w->b, "web", on_done, &o[i]);
		if (i == 7)
			backend_clear(w->b, on_done, &o[i]);
		unsigned hits = w->spoiling.hits;
		while (hangs && !o[i].calls && w->spoiling.hits == hits)
			uv_run(&w->loop, UV_RUN_NOWAIT);
		if (hangs && !o[i].calls) { /* whatever it does, letting go is possible */
			pause_ms(w, 20);
			close_backend(w);
			assert_int_equal(o[i].calls, 1);
			return;
		}
		codes[i] = await(w, &o[i]);
		if (i == 2 && codes[i] == ERROR_DATA_UNFINISHED)
			codes[i] = start_anew(w, &spec);
		if (i == 2 && codes[i] == ERROR_NONE)
			backend_settled(w->b, &spec);
		for (unsigned ms = 0; i == 2 && !hangs && w->spoiling.fault != NO_FAULT && is_background(w->spoiling.step) && !w->spoiling.hits && ms < 5000; ms++)
			pause_ms(w, 1); /* what nobody waits for goes its way */
	}
	*listed = o[3].count;
	assert_int_equal(o[4].exit_code, 0);
	close_backend(w);
}

static void live_well(struct world *w)
{
	enum error_code codes[LIVES];
	size_t listed = 0;
	w->spoiling.fault = NO_FAULT;
	live(w, codes, &listed, false);
	for (size_t i = 0; i < LIVES; i++)
		assert_int_equal(codes[i], ERROR_NONE);
	assert_int_equal(listed, 1);
	assert_int_equal(json_object_size(w->engine.containers), 0);
	assert_int_equal(json_object_size(w->engine.networks), 0);
	assert_int_equal(json_object_size(w->engine.volumes), 1); /* data */
}

static int setup(void **state)
{
	struct world *w = *state = xcalloc(1, sizeof *w);
	snprintf(w->dir, sizeof w->dir, "/tmp/aether-lies-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	fake_engine_start(&w->engine);
	w->engine.spoil = on_request;
	w->engine.arg = &w->spoiling;
	uv_loop_init(&w->loop);
	uv_timer_init(&w->loop, &w->guard);
	w->guard.data = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	uv_close((uv_handle_t *)&w->guard, NULL);
	fake_engine_end(&w->engine, &w->loop, w->dir);
	free(w->told);
	free(w->told_last);
	free(w);
	return 0;
}

/* Connections are counted over the life of a server. */
static void anew(struct world *w)
{
	tree_remove(AT_FDCWD, w->dir);
	mkdir(w->dir, 0700);
	fake_engine_stop(&w->engine);
	fake_engine_start(&w->engine);
	w->engine.spoil = on_request;
	w->engine.arg = &w->spoiling;
	w->spoiling.hits = 0;
}

static void test_well(void **state)
{
	live_well(*state);
	live_well(*state);
}

/* Whoever hears nothing of sense must not take it for success. "{}" is a success of what has nothing to say. */
static bool must_fail(const struct step *s, enum fault f)
{
	bool says_nothing = !strcmp(s->part, "/start") || !strcmp(s->part, "/stop") || !strcmp(s->part, "/images/create") || !strcmp(s->part, "/exec/x1/start") ||
	                    !strcmp(s->part, "/networks/create") || !strcmp(s->part, "/volumes/create") || !strcmp(s->method, "DELETE");
	bool decodes = f == FAULT_NOTHING || f == FAULT_OBJECT || f == FAULT_LIST || f == FAULT_NULL || f == FAULT_NUMBERS;
	bool lists = !strcmp(s->part, "/containers/json") && f == FAULT_LIST;
	bool streams = !strcmp(s->part, "/images/create") || !strcmp(s->part, "/exec/x1/start");
	bool whole = streams && (f == FAULT_TEXT || f == FAULT_CUT || f == FAULT_DEEP);
	return !is_background(s) && !lists && !whole && !(says_nothing && decodes);
}

static void try_fault(struct world *w, const struct step *s, enum fault fault)
{
	enum error_code codes[LIVES];
	size_t listed = 0, failed = 0;
	anew(w);
	w->spoiling.step = s;
	w->spoiling.fault = fault;
	uint64_t begun = now_monotonic_ms();
	live(w, codes, &listed, false);
	for (size_t i = 0; i < LIVES; i++)
		failed += codes[i] != ERROR_NONE;
	if (must_fail(s, fault) != (failed > 0) && must_fail(s, fault))
		fail_msg("%s %s, fault %d: nobody noticed", s->method, s->part, (int)fault);
	if (!w->spoiling.hits)
		fail_msg("%s %s was never called", s->method, s->part);
	if (now_monotonic_ms() - begun > WAIT_MS)
		fail_msg("%s %s, fault %d: took %llu ms", s->method, s->part, (int)fault, (unsigned long long)(now_monotonic_ms() - begun));
	live_well(w);
}

static void test_lies(void **state)
{
	struct world *w = *state;
	for (size_t i = 0; i < STEPS; i++)
		for (enum fault f = FAULT_500; f < FAULT_HANG; f++)
			if (strcmp(steps[i].method, "DELETE") || (f != FAULT_NOTHING && f != FAULT_OBJECT && f != FAULT_LIST && f != FAULT_NUMBERS)) /* who deletes nothing is asked 50 times: once is enough */
				try_fault(w, &steps[i], f);
}

static void test_hangs(void **state)
{
	struct world *w = *state;
	enum error_code codes[LIVES];
	size_t listed;
	for (size_t i = 0; i < STEPS; i++)
		for (enum fault f = FAULT_HANG; f <= FAULT_HANG_WITHIN; f++) {
			anew(w);
			w->spoiling.step = &steps[i];
			w->spoiling.fault = f;
			live(w, codes, &listed, !is_background(&steps[i]));
			live_well(w);
		}
}

/* ---- streams ---- */

static void start_web(struct world *w)
{
	char data[128];
	struct volume_spec volume;
	struct outcome o = {0};
	const struct service_spec spec = spec_of(w, &volume, data, sizeof data);
	open_backend(w);
	backend_start(w->b, &spec, on_done, &o);
	assert_int_equal(await(w, &o), ERROR_NONE);
}

struct flood {
	_Atomic unsigned opened;
	const char *line;
};

static bool flood(void *arg, int fd, const struct scripted_request *r, bool *keep)
{
	struct flood *f = arg;
	if (!strstr(r->path, "/events"))
		return false;
	f->opened++;
	scripted_say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n");
	while (send(fd, f->line, strlen(f->line), MSG_NOSIGNAL) > 0)
		;
	*keep = false;
	return true;
}

/* An event costs a look, however many of them at once, and never many at a time. */
static void test_flood(void **state)
{
	struct world *w = *state;
	static const char *const lines[] = {"{\"Action\":\"start\",\"Actor\":{\"Attributes\":{\"aether.service\":\"web\"}}}\n", "garbage\n", "{}", "\n"};
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
		struct flood f = {.line = lines[i]};
		struct outcome o = {0};
		anew(w);
		w->engine.spoil = flood;
		w->engine.arg = &f;
		start_web(w);
		pause_ms(w, 1200);
		assert_in_range(f.opened, 1, 12); /* two streams */
		assert_in_range(w->engine.server.connections, 1, 26);
		backend_remove(w->b, "web", on_done, &o);
		assert_int_equal(await(w, &o), ERROR_NONE);
		close_backend(w);
	}
}

/* ---- pulls that fail ---- */

struct refusal {
	const char *line; /* of a stream; else */
	int status;       /* an answer without one */
	const char *message;
	enum error_code code;
	const char *hint; /* has these words */
};

static bool refuse(void *arg, int fd, const struct scripted_request *r, bool *keep)
{
	const struct refusal *f = arg;
	if (!strstr(r->path, "/images/create"))
		return false;
	if (f->line) {
		cleanup_free char *text = xasprintf("%zx\r\n%s\r\n0\r\n\r\n", strlen(f->line), f->line);
		fake_stream(fd);
		scripted_say(fd, text);
	} else {
		fake_refuse(fd, f->status, f->message);
	}
	*keep = true;
	return true;
}

static void on_refused(void *arg, const struct error *err)
{
	struct outcome *o = arg;
	take(o, err);
	snprintf(o->hint, sizeof o->hint, "%s", err && err->hint ? err->hint : "");
}

static void test_pulls(void **state)
{
	struct world *w = *state;
	static const struct refusal refusals[] = {
	    {"{\"status\":\"Pulling\"}\n{\"errorDetail\":{\"message\":\"write /var/lib/docker/tmp/GetImageBlob1: no space left on device\"},\"error\":\"write /var/lib/docker/tmp/GetImageBlob1: no space left on device\"}\n",
	     0, NULL, ERROR_NO_SPACE, "make room"},
	    {"{\"error\":\"initializing destination: creating a temporary directory: mkdir /tmp/storage1: permission denied\"}", 0, NULL, ERROR_BACKEND_SPAWN_FAILED, "keeps its images"},
	    {"{\"errorDetail\":{\"message\":\"failed to register layer: Error processing tar file(exit status 1): write /x: no space left on device\"}}", 0, NULL, ERROR_NO_SPACE, "make room"},
	    {NULL, 500, "toomanyrequests: You have reached your pull rate limit.", ERROR_IMAGE_AUTH, "docker login"},
	    {NULL, 404, "no matching manifest for linux/amd64 in the manifest list entries", ERROR_IMAGE_NOT_FOUND, "platform"},
	    {NULL, 404, "manifest for app:1 not found: manifest unknown: manifest unknown", ERROR_IMAGE_NOT_FOUND, "check its name"},
	    {NULL, 404, "pull access denied for app, repository does not exist or may require 'docker login': denied: requested access to the resource is denied", ERROR_IMAGE_AUTH, "docker login"},
	    {NULL, 500, "Get \"https://r.example/v2/\": x509: certificate signed by unknown authority", ERROR_IMAGE_UNREACHABLE, "registry"},
	    {NULL, 500, "Get \"https://r.example/v2/\": dial tcp: lookup r.example on 127.0.0.53:53: no such host", ERROR_IMAGE_UNREACHABLE, "registry"},
	    {"{\"error\":\"initializing source docker://127.0.0.1:1/a:1: pinging container registry 127.0.0.1:1: Get \\\"http://127.0.0.1:1/v2/\\\": dial tcp 127.0.0.1:1: connect: connection refused\"}",
	     0, NULL, ERROR_IMAGE_UNREACHABLE, "registry"},
	    {"{\"progressDetail\":{\"current\":9223372036854775807,\"total\":9223372036854775807},\"id\":\"a\",\"status\":\"Downloading\"}\n"
	     "{\"progressDetail\":{\"current\":-5,\"total\":100},\"id\":\"b\",\"status\":\"Downloading\"}\n{\"error\":\"x\"}\n",
	     0, NULL, ERROR_IMAGE_NOT_FOUND, "check its name"},
	};
	for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
		char data[128];
		struct volume_spec volume;
		struct outcome o = {0}, cleared = {0};
		const struct service_spec spec = spec_of(w, &volume, data, sizeof data);
		w->engine.spoil = refuse;
		w->engine.arg = (void *)(uintptr_t)&refusals[i];
		open_backend(w);
		backend_start(w->b, &spec, on_refused, &o);
		assert_int_equal(await(w, &o), refusals[i].code);
		if (!strstr(o.hint, refusals[i].hint))
			fail_msg("%zu: %s", i, o.hint);
		backend_clear(w->b, on_done, &cleared);
		assert_int_equal(await(w, &cleared), ERROR_NONE);
		close_backend(w);
	}
}

/* The second line comes at the heels of the first, and a third not before that was told. */
static bool pull_in_steps(void *arg, int fd, const struct scripted_request *r, bool *keep)
{
	struct world *w = arg;
	if (!strstr(r->path, "/images/create"))
		return false;
	static const char *const lines[] = {"{\"status\":\"Downloading\",\"progressDetail\":{\"current\":10,\"total\":4000},\"id\":\"a\"}\n{\"status\":\"Downloading\",\"progressDetail\":{\"current\":7},\"id\":\"b\"}\n",
	                                    "{\"status\":\"Download complete\",\"progressDetail\":{},\"id\":\"a\"}\n",
	                                    "{\"status\":\"Extracting\",\"progressDetail\":{\"current\":50,\"total\":4000},\"id\":\"a\"}\n{\"status\":\"Already exists\",\"progressDetail\":{},\"id\":\"b\"}\n"};
	fake_stream(fd);
	for (size_t i = 0; i < 3; i++) {
		cleanup_free char *chunk = xasprintf("%zx\r\n%s\r\n", strlen(lines[i]), lines[i]);
		while (i == 2 && !w->told_loaded) /* the test has a bound */
			usleep(1000);
		scripted_say(fd, chunk);
	}
	pthread_mutex_lock(&w->engine.lock);
	json_object_set_new(w->engine.images, "app%3A1", json_pack("{s:s}", "Id", "sha256:1"));
	pthread_mutex_unlock(&w->engine.lock);
	scripted_say(fd, "0\r\n\r\n");
	*keep = true;
	return true;
}

/* What a layer has come to is told at once, for nothing may follow for long; that it is there is told before it is over. */
static void test_pull_progress(void **state)
{
	struct world *w = *state;
	char data[128];
	struct volume_spec volume;
	struct outcome o = {0};
	const struct service_spec spec = spec_of(w, &volume, data, sizeof data);
	w->engine.spoil = pull_in_steps;
	w->engine.arg = w;
	open_backend(w);
	backend_prepare(w->b, &spec, on_done, &o);
	assert_int_equal(await(w, &o), ERROR_NONE);
	assert_null(w->told_last);
	assert_string_equal(w->told, "{\"image\":\"app:1\",\"layers\":[{\"current\":50,\"id\":\"a\",\"status\":\"Extracting\",\"total\":4000},"
	                             "{\"current\":0,\"id\":\"b\",\"status\":\"Already exists\",\"total\":0}],\"percent\":100,\"pulled\":true}");
	close_backend(w);
}

/* One that is there for another platform than is asked for is pulled; where none is asked for, it is said for which one it is. */
static void test_platform(void **state)
{
	struct world *w = *state;
	static const struct {
		const char *platform, *os, *architecture;
		bool pulled, foreign;
	} cases[] = {{"linux/arm64", "linux", "amd64", true}, {"linux/amd64", "linux", "amd64", false}, {"linux/x86_64", "linux", "amd64", false}, {"amd64", "linux", "amd64", false},
	             {"arm64", "linux", "amd64", true}, {"linux", "linux", "amd64", false}, {"linux/arm/v7", "linux", "arm", false}, {"windows/amd64", "linux", "amd64", true}, {NULL, "linux", "arm64", false, true},
	             {NULL, "linux", "386", false}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char data[128];
		struct volume_spec volume;
		struct outcome o = {0};
		struct service_spec spec = spec_of(w, &volume, data, sizeof data);
		const struct container_options options = {.memory_swappiness = CONTAINER_UNSET, .platform = (char *)(uintptr_t)cases[i].platform};
		anew(w);
		json_object_set_new(w->engine.images, "app%3A1", json_pack("{s:s, s:s, s:s}", "Id", "old", "Os", cases[i].os, "Architecture", cases[i].architecture));
		free(move_ptr(w->told_last));
		spec.container = &options;
		open_backend(w);
		backend_prepare(w->b, &spec, on_done, &o);
		await(w, &o);
		if ((strcmp(json_string_value(json_object_get(json_object_get(w->engine.images, "app%3A1"), "Id")), "old") != 0) != cases[i].pulled)
			fail_msg("%s over %s", cases[i].platform, cases[i].architecture);
		if ((w->told_last && strstr(w->told_last, "\"foreign\":\"the image app:1 is for another kind of machine, arm64, and the engine's is amd64")) != cases[i].foreign)
			fail_msg("%s over %s: %s", cases[i].platform, cases[i].architecture, w->told_last);
		close_backend(w);
	}
}

/* One that is there is pulled again when it was pulled too long ago, or nobody knows when. */
static void test_old_images(void **state)
{
	struct world *w = *state;
	static const struct {
		int ago_s; /* -1: the engine does not say */
		unsigned after_s;
		bool pulled;
	} cases[] = {{3000, 3600, false}, {4000, 3600, true}, {86000, 86400, false}, {-1, 86400, true}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char data[128], when[64] = "0001-01-01T00:00:00Z";
		time_t at = time(NULL) - cases[i].ago_s + 2 * 3600;
		struct volume_spec volume;
		struct outcome o = {0};
		struct service_spec spec = spec_of(w, &volume, data, sizeof data);
		const struct container_options options = {.memory_swappiness = CONTAINER_UNSET, .pull = PULL_OLD, .pull_after_s = cases[i].after_s};
		if (cases[i].ago_s >= 0)
			strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S.123456789+02:00", gmtime(&at));
		anew(w);
		json_object_set_new(w->engine.images, "app%3A1", json_pack("{s:s, s:{s:s}}", "Id", "old", "Metadata", "LastTagTime", when));
		spec.container = &options;
		open_backend(w);
		backend_prepare(w->b, &spec, on_done, &o);
		await(w, &o);
		if ((strcmp(json_string_value(json_object_get(json_object_get(w->engine.images, "app%3A1"), "Id")), "old") != 0) != cases[i].pulled)
			fail_msg("of %d s ago, wanted anew after %u s", cases[i].ago_s, cases[i].after_s);
		close_backend(w);
	}
}

/* ---- torn down while something is made ahead of need ---- */

struct delay {
	const char *part; /* of the path of what takes its time */
	bool forever;
	_Atomic unsigned hits;
};

static bool delay(void *arg, int fd, const struct scripted_request *r, bool *keep)
{
	struct delay *d = arg;
	if (strcmp(r->method, "POST") || !strstr(r->path, d->part))
		return false;
	d->hits++;
	if (d->forever)
		*keep = scripted_hang(fd);
	else
		usleep(50000);
	return d->forever;
}

static void test_clear_beside_prepare(void **state)
{
	struct world *w = *state;
	static const struct {
		const char *part;
		bool forever;
	} cases[] = {{"/images/create", true}, {"/images/create", false}, {"/networks/create", false}, {"/volumes/create", false}, {"/containers/create", false}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char data[128];
		struct volume_spec volume;
		struct outcome prepared = {0}, cleared = {0};
		struct delay d = {.part = cases[i].part, .forever = cases[i].forever};
		const struct service_spec spec = spec_of(w, &volume, data, sizeof data);
		anew(w);
		w->engine.spoil = delay;
		w->engine.arg = &d;
		open_backend(w);
		backend_prepare(w->b, &spec, on_done, &prepared);
		for (unsigned ms = 0; !d.hits && ms < 5000; ms++)
			pause_ms(w, 1);
		backend_clear(w->b, on_done, &cleared);
		assert_int_equal(await(w, &cleared), ERROR_NONE);
		assert_int_equal(prepared.calls, 1);
		pause_ms(w, 100);
		assert_int_equal(json_object_size(w->engine.containers), 0);
		assert_int_equal(json_object_size(w->engine.networks), 0);
		close_backend(w);
	}
}

/* ---- many at once ---- */

#define MANY 40

struct counting {
	_Atomic unsigned now, most;
};

static bool count_starts(void *arg, int fd, const struct scripted_request *r, bool *keep)
{
	struct counting *c = arg;
	if (!strstr(r->path, "/start"))
		return false;
	unsigned now = ++c->now;
	if (now > c->most)
		c->most = now;
	usleep(20000);
	c->now--;
	return false;
}

/* Started some at a time; and those that wait are let go when the backend is. */
static void test_many(void **state)
{
	struct world *w = *state;
	unsigned processors = uv_available_parallelism(), most = processors > 2 ? 2 * processors : 4;
	for (unsigned closes = 0; closes < 2; closes++) {
		char data[128], names[MANY][8];
		struct volume_spec volume;
		struct outcome o[MANY] = {{0}};
		struct counting c = {0};
		struct service_spec spec = spec_of(w, &volume, data, sizeof data);
		anew(w);
		spec.n_volumes = 0;
		w->engine.spoil = count_starts;
		w->engine.arg = &c;
		open_backend(w);
		for (size_t i = 0; i < MANY; i++) {
			snprintf(names[i], sizeof names[i], "s%zu", i);
			spec.name = names[i];
			backend_start(w->b, &spec, on_done, &o[i]);
		}
		for (unsigned ms = 0; closes && !c.most && ms < 5000; ms++)
			pause_ms(w, 1);
		for (size_t i = 0; !closes && i < MANY; i++)
			assert_int_equal(await(w, &o[i]), ERROR_NONE);
		close_backend(w);
		for (size_t i = 0; i < MANY; i++)
			assert_int_equal(o[i].calls, 1);
		assert_in_range(c.most, closes ? 1 : 2, most < MANY ? most : MANY);
		assert_true(!closes || o[MANY - 1].code == ERROR_CANCELED);
	}
}

/* ---- its version ---- */

struct version {
	const char *says;
	char asked[16]; /* the beginning of the path of what is asked then */
};

static bool on_version(void *arg, int fd, const struct scripted_request *r, bool *keep)
{
	struct version *v = arg;
	if (strcmp(r->path, "/version"))
		return snprintf(v->asked, sizeof v->asked, "%.6s", r->path), false;
	*keep = scripted_json(fd, 200, v->says);
	return true;
}

static void test_versions(void **state)
{
	struct world *w = *state;
	static const struct {
		const char *says, *asked; /* NULL: it is refused */
	} cases[] = {{"{\"ApiVersion\":\"1.40\",\"MinAPIVersion\":\"1.12\"}", "/v1.40"}, /* Docker 19.03 */
	             {"{\"ApiVersion\":\"1.41\",\"MinAPIVersion\":\"1.24\"}", "/v1.41"}, /* Podman's */
	             {"{\"ApiVersion\":\"1.52\",\"MinAPIVersion\":\"1.44\"}", "/v1.51"}, /* Docker 29 */
	             {"{\"ApiVersion\":\"1.51\"}", "/v1.51"},
	             {"{\"ApiVersion\":\"1.38\",\"MinAPIVersion\":\"1.12\"}", NULL},
	             {"{\"ApiVersion\":\"1.70\",\"MinAPIVersion\":\"1.60\"}", NULL}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct version v = {.says = cases[i].says};
		struct outcome o = {0};
		w->engine.spoil = on_version;
		w->engine.arg = &v;
		open_backend(w);
		backend_list(w->b, on_list, &o);
		if (await(w, &o) != (cases[i].asked ? ERROR_NONE : ERROR_BACKEND_UNREACHABLE))
			fail_msg("%s: %d", cases[i].says, o.code);
		assert_string_equal(v.asked, cases[i].asked ? cases[i].asked : "");
		close_backend(w);
	}
}

/* ---- networks of others ---- */

static bool hear_connection(void *arg, int fd, const struct scripted_request *r, bool *keep)
{
	if (strstr(r->path, "/connect"))
		snprintf(arg, SAID_MAX, "%s %s", strstr(r->path, "/networks/"), r->body);
	return false;
}

static void test_joins(void **state)
{
	struct world *w = *state;
	char data[128], heard[SAID_MAX] = "";
	static char *networks[] = {(char *)"proxy", NULL}, *names[] = {(char *)"prox no", (char *)"proxy web", (char *)"proxy site", NULL}, *links[] = {(char *)"other", (char *)"shop_db_1:db", NULL};
	struct volume_spec volume;
	struct outcome o = {0}, removed = {0}, cleared = {0};
	struct service_spec spec = spec_of(w, &volume, data, sizeof data);
	const struct container_options options = {.memory_swappiness = CONTAINER_UNSET, .networks = networks, .network_names = names, .external_links = links};
	json_object_set_new(w->engine.networks, "proxy", json_pack("{s:s, s:{}}", "Id", "p1", "Labels"));
	spec.container = &options;
	w->engine.spoil = hear_connection;
	w->engine.arg = heard;
	open_backend(w);
	backend_start(w->b, &spec, on_done, &o);
	assert_int_equal(await(w, &o), ERROR_NONE);
	json_t *body = json_loads(strchr(heard, '{'), 0, NULL), *aliases = json_object_get(json_object_get(body, "EndpointConfig"), "Aliases");
	assert_memory_equal(heard, "/networks/proxy/connect ", 24);
	cleanup_free char *text = json_dumps(aliases, JSON_COMPACT);
	assert_string_equal(text, "[\"web\",\"site\"]");
	cleanup_free char *linked = json_dumps(json_object_get(json_object_get(body, "EndpointConfig"), "Links"), JSON_COMPACT);
	assert_string_equal(linked, "[\"other:other\",\"shop_db_1:db\"]");
	json_decref(body);

	/* made anew by docker compose, which names it there in any case */
	pthread_mutex_lock(&w->engine.lock);
	json_t *container = fake_find(w->engine.containers, "ns-web");
	json_object_set_new(json_object_get(json_object_get(container, "Config"), "Labels"), "com.docker.compose.version", json_string("2"));
	json_object_set_new(json_object_get(container, "Config"), "Image", json_string("app:1"));
	json_object_set_new(container, "NetworkSettings", json_pack("{s:{s:{s:[s]}}}", "Networks", "proxy", "Aliases", "web"));
	pthread_mutex_unlock(&w->engine.lock);
	close_backend(w);
	open_backend(w);
	struct outcome listed = {0};
	backend_list(w->b, on_list, &listed);
	assert_int_equal(await(w, &listed), ERROR_NONE);
	bool as_main = backend_differs(w->b, &spec);
	names[1] = NULL;
	bool as_another = backend_differs(w->b, &spec);
	names[1] = (char *)"proxy web";
	assert_false(as_main);
	assert_true(as_another);
	backend_remove(w->b, "web", on_done, &removed);
	assert_int_equal(await(w, &removed), ERROR_NONE);
	backend_clear(w->b, on_done, &cleared);
	assert_int_equal(await(w, &cleared), ERROR_NONE);
	assert_non_null(json_object_get(w->engine.networks, "proxy"));
	close_backend(w);
}

struct refusing {
	const char *method, *parts[2], *words;
	unsigned left; /* times */
};

static bool refuse_for_now(void *arg, int fd, const struct scripted_request *r, bool *keep)
{
	struct refusing *f = arg;
	if (f->left == 0 || strcmp(r->method, f->method) || !(strstr(r->path, f->parts[0]) || strstr(r->path, f->parts[1])))
		return false;
	f->left--;
	*keep = fake_refuse(fd, 500, f->words);
	return true;
}

/* Podman's, while the interfaces of other containers go. */
static void test_interfaces_that_go(void **state)
{
	struct world *w = *state;
	char data[128];
	struct volume_spec volume;
	struct outcome o = {0};
	struct service_spec spec = spec_of(w, &volume, data, sizeof data);
	struct refusing f = {"POST", {"/start", "/networks/create"}, "route ip+net: no such network interface", 5};
	w->engine.spoil = refuse_for_now;
	w->engine.arg = &f;
	open_backend(w);
	backend_start(w->b, &spec, on_done, &o);
	assert_int_equal(await(w, &o), ERROR_NONE);
	assert_int_equal(f.left, 0);
	close_backend(w);
}

/* Podman's, of what is removed while it looks at it. */
static void test_removed_while_looked_at(void **state)
{
	struct world *w = *state;
	char data[128];
	struct volume_spec volume;
	struct service_spec spec = spec_of(w, &volume, data, sizeof data);
	struct refusing f = {"GET", {"/containers/ns-web/json", "/containers/00"}, "container 05d9 does not exist in database: no such container", 0};
	w->engine.spoil = refuse_for_now;
	w->engine.arg = &f;
	open_backend(w);
	for (int again = 0; again < 2; again++) {
		struct outcome o = {0}, stopped = {0};
		backend_start(w->b, &spec, on_done, &o);
		assert_int_equal(await(w, &o), ERROR_NONE);
		assert_int_equal(f.left, 0);
		backend_stop(w->b, "web", 15, 100, on_done, &stopped);
		assert_int_equal(await(w, &stopped), ERROR_NONE);
		f.left = 1;
	}
	close_backend(w);
}

static bool hear_order(void *arg, int fd, const struct scripted_request *r, bool *keep)
{
	char *heard = arg;
	const char *letter = strstr(r->path, "/connect") ? "c" : !strcmp(r->method, "POST") && strstr(r->path, "/start") ? "s" : "";
	strcat(heard, letter);
	return false;
}

/* What may be brief is in its network before it begins, also where nobody has told that it was taken out. */
static void test_plugged_in_first(void **state)
{
	struct world *w = *state;
	char data[128], heard[64] = "";
	struct volume_spec volume;
	struct service_spec spec = spec_of(w, &volume, data, sizeof data);
	w->engine.spoil = hear_order;
	w->engine.arg = heard;
	spec.n_ports = 0;
	open_backend(w);
	for (int again = 0; again < 2; again++) {
		struct outcome o = {0}, settled = {0};
		backend_start(w->b, &spec, on_done, &o);
		assert_int_equal(await(w, &o), ERROR_NONE);
		backend_settled(w->b, &spec);
		backend_stop(w->b, "web", 15, 100, on_done, &settled);
		assert_int_equal(await(w, &settled), ERROR_NONE);
		pthread_mutex_lock(&w->engine.lock);
		json_t *container = fake_find(w->engine.containers, "ns-web");
		json_object_set_new(container, "HostConfig", json_pack("{s:s}", "NetworkMode", "ns"));
		json_object_set_new(container, "NetworkSettings", json_pack("{s:{}}", "Networks"));
		pthread_mutex_unlock(&w->engine.lock);
	}
	close_backend(w);
	assert_string_equal(heard, "scs");
}

/* ---- devices by what they can do ---- */

static void test_device_requests(void **state)
{
	struct world *w = *state;
	char data[128];
	static char *requests[] = {(char *)"{\"Count\":-1,\"Capabilities\":[[\"gpu\"]]}", (char *)"{\"DeviceIDs\":[\"3\"]}", NULL};
	struct volume_spec volume;
	struct outcome o = {0};
	struct service_spec spec = spec_of(w, &volume, data, sizeof data);
	const struct container_options options = {.memory_swappiness = CONTAINER_UNSET, .device_requests = requests};
	spec.container = &options;
	open_backend(w);
	backend_prepare(w->b, &spec, on_done, &o);
	assert_int_equal(await(w, &o), ERROR_NONE);
	const json_t *host = json_object_get(json_object_get(json_object_get(w->engine.containers, "ns-web"), "Config"), "HostConfig");
	cleanup_free char *text = json_dumps(json_object_get(host, "DeviceRequests"), JSON_COMPACT);
	assert_string_equal(text, "[{\"Count\":-1,\"Capabilities\":[[\"gpu\"]]},{\"DeviceIDs\":[\"3\"]}]");
	close_backend(w);
}

/* ---- logs ---- */

struct log_streams {
	_Atomic unsigned begun;
	_Atomic bool over; /* the first of them */
};

static void say_message(int fd, const char *text)
{
	char chunk[256];
	size_t len = strlen(text);
	int head = snprintf(chunk, sizeof chunk, "%zx\r\n%c%c%c%c%c%c%c%c", len + 8, 1, 0, 0, 0, 0, 0, 0, (int)len);
	memcpy(chunk + head, text, len);
	memcpy(chunk + head + len, "\r\n", 2);
	send(fd, chunk, (size_t)head + len + 2, MSG_NOSIGNAL);
}

/* Whole seconds, and an end that comes late, as Podman has it. */
static bool on_logs(void *arg, int fd, const struct scripted_request *r, bool *keep)
{
	struct log_streams *l = arg;
	if (!strstr(r->path, "/logs"))
		return false;
	unsigned number = ++l->begun;
	fake_stream(fd);
	say_message(fd, "2026-01-01T00:00:01Z one\n");
	say_message(fd, "2026-01-01T00:00:01Z two\n");
	for (unsigned ms = 0; number == 1 && !l->over && ms < WAIT_MS; ms++)
		usleep(1000);
	if (number > 1) {
		say_message(fd, "2026-01-01T00:00:01Z three\n");
		say_message(fd, "2026-01-01T00:00:02Z four\n");
	}
	*keep = number > 1 ? scripted_hang(fd) : (scripted_say(fd, "0\r\n\r\n"), true);
	return true;
}

static void test_log_after_a_restart(void **state)
{
	struct world *w = *state;
	struct log_streams streams = {0};
	struct outcome o[5] = {{0}};
	char data[128];
	struct volume_spec volume;
	struct service_spec spec = spec_of(w, &volume, data, sizeof data);
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_free char *log = xasprintf("%s/services/web/log", w->dir);
	w->engine.spoil = on_logs;
	w->engine.arg = &streams;
	open_backend(w);
	backend_start(w->b, &spec, on_done, &o[0]);
	assert_int_equal(await(w, &o[0]), ERROR_NONE);
	backend_settled(w->b, &spec);
	pause_ms(w, 50);
	backend_stop(w->b, "web", 15, 100, on_done, &o[1]);
	assert_int_equal(await(w, &o[1]), ERROR_NONE);
	backend_start(w->b, &spec, on_done, &o[2]);
	assert_int_equal(await(w, &o[2]), ERROR_NONE);
	streams.over = true; /* only now */
	for (unsigned ms = 0; ms < WAIT_MS && !strstr(buffer_str(&text), "four"); ms += 5) {
		pause_ms(w, 5);
		buffer_clear(&text);
		file_read(AT_FDCWD, log, 1000, &text);
	}
	assert_string_equal(buffer_str(&text), "one\ntwo\nthree\nfour\n");
	backend_remove(w->b, "web", on_done, &o[3]);
	assert_int_equal(await(w, &o[3]), ERROR_NONE);
	backend_clear(w->b, on_done, &o[4]);
	assert_int_equal(await(w, &o[4]), ERROR_NONE);
	close_backend(w);
}

static bool refuse_logs(void *arg, int fd, const struct scripted_request *r, bool *keep)
{
	if (!strstr(r->path, "/logs"))
		return false;
	*keep = fake_refuse(fd, 501, arg);
	return true;
}

/* What a driver keeps to itself is said in the log's place, once for however many times it is asked for. */
static void test_log_that_cannot_be_read(void **state)
{
	struct world *w = *state;
	static char *const words[] = {"configured logging driver does not support reading", "this container is using the 'none' log driver, cannot read logs: this container is not logging output"};
	for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
		struct outcome o[5] = {{0}};
		char data[128];
		struct volume_spec volume;
		struct service_spec spec = spec_of(w, &volume, data, sizeof data);
		cleanup_buffer struct buffer text = BUFFER_INIT;
		cleanup_free char *log = xasprintf("%s/services/web/log", w->dir);
		anew(w);
		w->engine.spoil = refuse_logs;
		w->engine.arg = words[i];
		open_backend(w);
		for (size_t k = 0; k < 4; k += 2) {
			backend_start(w->b, &spec, on_done, &o[k]);
			assert_int_equal(await(w, &o[k]), ERROR_NONE);
			backend_settled(w->b, &spec);
			pause_ms(w, 50);
			backend_stop(w->b, "web", 15, 100, on_done, &o[k + 1]);
			assert_int_equal(await(w, &o[k + 1]), ERROR_NONE);
		}
		assert_int_equal(file_read(AT_FDCWD, log, 1000, &text), 0);
		assert_memory_equal(buffer_str(&text), "ajj: what this service says goes to its logging driver", 54);
		char *hint = strstr(buffer_str(&text), "\nHint: ");
		assert_non_null(hint);
		assert_null(strstr(hint + 1, "ajj: what"));
		backend_remove(w->b, "web", on_done, &o[4]);
		assert_int_equal(await(w, &o[4]), ERROR_NONE);
		close_backend(w);
	}
}

/* ---- what is not ours ---- */

static void test_foreign_network(void **state)
{
	struct world *w = *state;
	struct outcome o = {0};
	json_object_set_new(w->engine.networks, "ns", json_pack("{s:s, s:{s:s}}", "Id", "foreign", "Labels", "aether.namespace", "another"));
	open_backend(w);
	backend_clear(w->b, on_done, &o);
	assert_int_equal(await(w, &o), ERROR_NONE);
	assert_int_equal(json_object_size(w->engine.networks), 1);
	close_backend(w);
}

static void test_foreign_container(void **state)
{
	struct world *w = *state;
	struct outcome o = {0}, stopped = {0}, removed = {0}, cleared = {0};
	char data[128];
	struct volume_spec volume;
	const struct service_spec spec = spec_of(w, &volume, data, sizeof data);
	json_object_set_new(w->engine.containers, "ns-web", json_pack("{s:s, s:{}, s:{s:{}}, s:o}", "Id", "foreign", "Labels", "Config", "Labels", "State", fake_state(true, "2026-01-01T00:00:00Z")));
	open_backend(w);
	backend_start(w->b, &spec, on_done, &o);
	assert_int_equal(await(w, &o), ERROR_SERVICE_FAILED);
	backend_stop(w->b, "web", 15, 100, on_done, &stopped);
	assert_int_equal(await(w, &stopped), ERROR_NONE);
	backend_remove(w->b, "web", on_done, &removed);
	assert_int_equal(await(w, &removed), ERROR_NONE);
	backend_clear(w->b, on_done, &cleared);
	assert_int_equal(await(w, &cleared), ERROR_NONE);
	json_t *c = json_object_get(w->engine.containers, "ns-web");
	assert_true(json_is_true(json_object_get(json_object_get(c, "State"), "Running")));
	close_backend(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_well, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_lies, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_hangs, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_flood, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_pulls, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_pull_progress, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_platform, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_old_images, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_clear_beside_prepare, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_many, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_versions, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_joins, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_interfaces_that_go, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_removed_while_looked_at, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_plugged_in_first, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_log_after_a_restart, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_log_that_cannot_be_read, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_device_requests, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_foreign_network, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_foreign_container, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
