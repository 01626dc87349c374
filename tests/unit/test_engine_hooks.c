// once
/* What is run in a container after its start and before its stop, on an engine that is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "backends/backend.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "tests/unit/fake_engine.h"
#include "tests/unit/outcome.h"

struct world {
	uv_loop_t loop;
	struct fake_engine engine;
	struct backend *b;
	char dir[64], data[128];
	char *post[3], *pre[2];
	struct container_options options;
	struct service_spec spec;
	pthread_mutex_t lock;
	struct buffer calls; /* what it was told to do with containers, in that order */
	const char *exit_code, *refusal; /* of each hook; NULL: 0, and none */
	bool hangs; /* each hook */
};

/* ---- the engine ---- */

static void note(struct world *w, const struct scripted_request *r)
{
	const char *verb = strrchr(r->path, '/') + 1, *of = strstr(r->path, "/containers/");
	json_t *body = json_loads(r->body, 0, NULL);
	pthread_mutex_lock(&w->lock);
	if (of && !strcmp(verb, "exec"))
		buffer_printf(&w->calls, "%s ", json_string_value(json_array_get(json_object_get(body, "Cmd"), 0)));
	else if (of && (!strncmp(verb, "stop", 4) || !strcmp(verb, "start")))
		buffer_printf(&w->calls, "%.*s ", (int)strcspn(verb, "?"), verb);
	else if (of && !strcmp(r->method, "DELETE"))
		buffer_adds(&w->calls, "DELETE ");
	pthread_mutex_unlock(&w->lock);
	json_decref(body);
}

static bool on_call(void *arg, int fd, const struct scripted_request *r, bool *keep)
{
	struct world *w = arg;
	bool makes = strstr(r->path, "/containers/") && strstr(r->path, "/exec"), looks = strstr(r->path, "/exec/") && !strcmp(r->method, "GET");
	cleanup_free char *ended = looks && w->exit_code ? xasprintf("{\"Running\":false,\"ExitCode\":%s}", w->exit_code) : NULL;
	note(w, r);
	if (makes && w->refusal)
		*keep = fake_refuse(fd, 409, w->refusal);
	else if (ended)
		*keep = scripted_json(fd, 200, ended);
	else if (w->hangs && strstr(r->path, "/exec/x1/start"))
		*keep = (fake_stream(fd), scripted_hang(fd));
	else
		return false;
	return true;
}

/* What it was told since it was asked last. new */
static char *told(struct world *w)
{
	pthread_mutex_lock(&w->lock);
	char *calls = xstrdup(buffer_str(&w->calls));
	buffer_clear(&w->calls);
	pthread_mutex_unlock(&w->lock);
	return calls;
}

static bool is_told(struct world *w, const char *word)
{
	pthread_mutex_lock(&w->lock);
	bool told = strstr(buffer_str(&w->calls), word);
	pthread_mutex_unlock(&w->lock);
	return told;
}

static void assert_told(struct world *w, const char *expected)
{
	cleanup_free char *calls = told(w);
	assert_string_equal(calls, expected);
}

/* ---- the backend ---- */

static void open_backend(struct world *w)
{
	w->b = fake_engine_open(&w->engine, &w->loop, w->dir, NULL, NULL, w);
}

static void close_backend(struct world *w)
{
	struct outcome closed = {0};
	backend_close(w->b, on_closed, &closed);
	await(&w->loop, &closed);
}

static enum error_code start(struct world *w)
{
	struct outcome o = {0};
	backend_start(w->b, &w->spec, on_done, &o);
	return await(&w->loop, &o);
}

static enum error_code stop(struct world *w)
{
	struct outcome o = {0};
	backend_stop(w->b, "web", 15, 100, on_done, &o);
	return await(&w->loop, &o);
}

static int setup(void **state)
{
	static const struct keyvals env = KEYVALS_INIT;
	struct world *w = xcalloc(1, sizeof *w);
	strcpy(w->dir, "/tmp/aether-hooks-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	snprintf(w->data, sizeof w->data, "%s/data", w->dir);
	assert_int_equal(uv_loop_init(&w->loop), 0);
	pthread_mutex_init(&w->lock, NULL);
	fake_engine_start(&w->engine);
	w->calls = (struct buffer)BUFFER_INIT;
	w->engine.spoil = on_call;
	w->engine.arg = w;
	w->post[0] = (char *)"{\"Cmd\":[\"one\"],\"User\":\"0\"}";
	w->post[1] = (char *)"{\"Cmd\":[\"two\"]}";
	w->pre[0] = (char *)"{\"Cmd\":[\"last\"]}";
	w->options = (struct container_options)CONTAINER_OPTIONS_INIT;
	w->options.post_start = w->post;
	w->options.pre_stop = w->pre;
	w->spec = (struct service_spec){.name = "web", .image = "app:1", .env = &env, .stop_signal = 15, .stop_grace_ms = 100, .config_hash = "h", .generation = 1, .data = w->data, .container = &w->options};
	open_backend(w);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	struct outcome removed = {0}, cleared = {0};
	backend_remove(w->b, "web", on_done, &removed);
	assert_int_equal(await(&w->loop, &removed), ERROR_NONE);
	backend_clear(w->b, on_done, &cleared);
	assert_int_equal(await(&w->loop, &cleared), ERROR_NONE);
	close_backend(w);
	fake_engine_end(&w->engine, &w->loop, w->dir);
	buffer_release(&w->calls);
	pthread_mutex_destroy(&w->lock);
	free(w);
	return 0;
}

/* ---- cases ---- */

static void test_around_each_life(void **state)
{
	struct world *w = *state;
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_free char *log = xasprintf("%s/services/web/log", w->dir);
	assert_int_equal(start(w), ERROR_NONE);
	assert_told(w, "start one two ");
	assert_int_equal(start(w), ERROR_NONE);
	assert_told(w, ""); /* it runs */
	assert_int_equal(stop(w), ERROR_NONE);
	assert_told(w, "last stop ");
	assert_int_equal(stop(w), ERROR_NONE);
	assert_told(w, "");
	assert_int_equal(start(w), ERROR_NONE);
	assert_told(w, "start one two ");
	assert_int_equal(file_read(AT_FDCWD, log, 1000, &text), 0);
	assert_string_equal(buffer_str(&text), "hi\nhi\nhi\nhi\nhi\n"); /* what each has said */
}

/* A later process of ours knows what is to be run from the container alone. */
static void test_after_a_restart_of_ours(void **state)
{
	struct world *w = *state;
	struct outcome listed = {0};
	assert_int_equal(start(w), ERROR_NONE);
	close_backend(w);
	open_backend(w);
	free(told(w));
	backend_list(w->b, on_list, &listed);
	assert_int_equal(await(&w->loop, &listed), ERROR_NONE);
	assert_int_equal(stop(w), ERROR_NONE);
	assert_told(w, "last stop ");
}

static void test_before_another_takes_its_place(void **state)
{
	struct world *w = *state;
	assert_int_equal(start(w), ERROR_NONE);
	free(told(w));
	w->spec.config_hash = "other";
	w->options.pre_stop = NULL; /* it is the old one that is stopped */
	assert_int_equal(start(w), ERROR_NONE);
	assert_told(w, "last stop DELETE start one two ");
	assert_int_equal(stop(w), ERROR_NONE);
	assert_told(w, "stop ");
}

/* A start whose hook fails is none: the next one makes everything again. A stop is one whatever its hook does. */
static void test_failures(void **state)
{
	struct world *w = *state;
	w->exit_code = "3";
	assert_int_equal(start(w), ERROR_SERVICE_FAILED);
	assert_told(w, "start one DELETE ");
	w->exit_code = NULL;
	assert_int_equal(start(w), ERROR_NONE);
	assert_told(w, "start one two ");
	w->exit_code = "3";
	assert_int_equal(stop(w), ERROR_NONE);
	assert_told(w, "last stop ");
}

/* How it has ended is told by its exit. */
static void test_what_does_not_run_has_none(void **state)
{
	static const char *const words[] = {"Container 1 is not running", "can only create exec sessions on running containers: container state improper"};
	struct world *w = *state;
	for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
		w->refusal = words[i];
		assert_int_equal(start(w), ERROR_NONE);
		assert_told(w, "start one ");
		assert_int_equal(stop(w), ERROR_NONE);
		assert_told(w, "last stop ");
	}
}

static void test_one_that_hangs_is_given_up(void **state)
{
	struct world *w = *state;
	struct outcome o = {0};
	w->hangs = true;
	backend_start(w->b, &w->spec, on_done, &o);
	for (unsigned i = 0; i < 50000 && !is_told(w, "one"); i++)
		run_once(&w->loop);
	backend_build_cancel(w->b, "web", NULL);
	assert_int_equal(await(&w->loop, &o), ERROR_CANCELED);
	assert_told(w, "start one DELETE ");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_around_each_life, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_after_a_restart_of_ours, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_before_another_takes_its_place, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_failures, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_what_does_not_run_has_none, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_one_that_hangs_is_given_up, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
