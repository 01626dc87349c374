/* The data of a first start before the engine backends: what was interrupted before it was ready is refused, once, and nothing else is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "backends/backend.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "tests/unit/fake_engine.h"
#include "tests/unit/outcome.h"

#define KILLED 137

struct world {
	struct fake_engine engine;
	uv_loop_t loop;
	struct backend *b;
	char dir[64], data[80], record[100], more[100];
	struct volume_spec volumes[2];
	struct service_spec spec;
};

static void on_changed(void *arg, const struct instance *instance)
{
}

static void open_backend(struct world *w)
{
	w->b = fake_engine_open(&w->engine, &w->loop, w->dir, on_changed, NULL, w);
}

static void close_backend(struct world *w)
{
	struct outcome o = {0};
	backend_close(w->b, on_closed, &o);
	await(&w->loop, &o);
}

static void another_server(struct world *w)
{
	close_backend(w);
	open_backend(w);
}

static enum error_code start(struct world *w)
{
	struct outcome o = {0};
	backend_start(w->b, &w->spec, on_done, &o);
	return await(&w->loop, &o);
}

static enum error_code prepare(struct world *w)
{
	struct outcome o = {0};
	backend_prepare(w->b, &w->spec, on_done, &o);
	return await(&w->loop, &o);
}

/* As the events of a real engine would have it. */
static void look(struct world *w)
{
	struct outcome o = {0};
	backend_list(w->b, on_list, &o);
	await(&w->loop, &o);
}

/* By others: how it ends. */
static void ends(struct world *w, int code)
{
	pthread_mutex_lock(&w->engine.lock);
	json_t *state = json_object_get(fake_find(w->engine.containers, "ns-web"), "State");
	json_object_set_new(state, "Running", json_false());
	json_object_set_new(state, "ExitCode", json_integer(code));
	pthread_mutex_unlock(&w->engine.lock);
}

static void is_removed(struct world *w)
{
	pthread_mutex_lock(&w->engine.lock);
	fake_drop(w->engine.containers, "ns-web");
	pthread_mutex_unlock(&w->engine.lock);
}

static bool has_mark(const char *record, const char *owner)
{
	json_t *json = json_load_file(record, 0, NULL);
	const char *now = json_string_value(json_object_get(json, "unfinished"));
	assert_non_null(json);
	bool same = owner ? now && !strcmp(now, owner) : !now;
	json_decref(json);
	return same;
}

static int setup(void **state)
{
	static const struct keyvals env = KEYVALS_INIT;
	struct world *w = *state = xcalloc(1, sizeof *w);
	snprintf(w->dir, sizeof w->dir, "/tmp/aether-unfinished-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	snprintf(w->data, sizeof w->data, "%s/data", w->dir);
	snprintf(w->record, sizeof w->record, "%s/v.volume", w->data);
	snprintf(w->more, sizeof w->more, "%s/more.volume", w->data);
	w->volumes[0] = (struct volume_spec){.kind = VOLUME_NAMED, .name = "v", .source = w->record, .target = "/v"};
	w->volumes[1] = (struct volume_spec){.kind = VOLUME_NAMED, .name = "more", .source = w->more, .target = "/more"};
	w->spec = (struct service_spec){.name = "web", .image = "app:1", .env = &env, .volumes = w->volumes, .n_volumes = 1, .stop_signal = 15, .stop_grace_ms = 100, .config_hash = "h",
	                                .generation = 1, .data = w->data};
	fake_engine_start(&w->engine);
	uv_loop_init(&w->loop);
	open_backend(w);
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	close_backend(w);
	fake_engine_end(&w->engine, &w->loop, w->dir);
	free(w);
	return 0;
}

/* ---- what is no use ---- */

static void killed_before_it_was_ready(void **state)
{
	struct world *w = *state;
	assert_int_equal(start(w), ERROR_NONE);
	assert_true(has_mark(w->record, "web"));
	ends(w, KILLED);
	look(w);
	assert_int_equal(start(w), ERROR_DATA_UNFINISHED);
	assert_true(has_mark(w->record, NULL)); /* said once */
	assert_int_equal(start(w), ERROR_NONE);
}

/* docker stop, a terminal that closes, an init that tells of its child's end, an engine that died */
static void interrupted_before_it_was_ready(void **state)
{
	struct world *w = *state;
	static const int codes[] = {129, 130, 131, KILLED, 143, 255};
	for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
		assert_int_equal(start(w), ERROR_NONE);
		assert_true(has_mark(w->record, "web"));
		ends(w, codes[i]);
		another_server(w);
		assert_int_equal(start(w), ERROR_DATA_UNFINISHED);
		assert_int_equal(start(w), ERROR_NONE);
		ends(w, codes[i]); /* which stays, for it is not done again and again */
		another_server(w);
		assert_int_equal(start(w), ERROR_NONE);
		backend_settled(w->b, &w->spec);
		ends(w, codes[i]);
		another_server(w);
		assert_int_equal(start(w), ERROR_NONE);
		is_removed(w);
		assert_int_equal(unlink(w->record), 0); /* the next one has new data */
		another_server(w);
	}
}

static void nobody_saw_how_it_ended(void **state)
{
	struct world *w = *state;
	assert_int_equal(start(w), ERROR_NONE);
	close_backend(w);
	is_removed(w);
	open_backend(w);
	assert_int_equal(start(w), ERROR_DATA_UNFINISHED);
}

static void killed_for_another_configuration(void **state)
{
	struct world *w = *state;
	assert_int_equal(start(w), ERROR_NONE);
	another_server(w);
	w->spec.config_hash = "other";
	w->engine.stop_code = KILLED;
	assert_int_equal(start(w), ERROR_DATA_UNFINISHED);
	w->engine.stop_code = 0;
}

/* ---- what stays ---- */

static void killed_after_it_was_ready(void **state)
{
	struct world *w = *state;
	assert_int_equal(start(w), ERROR_NONE);
	backend_settled(w->b, &w->spec);
	assert_true(has_mark(w->record, NULL));
	ends(w, KILLED);
	another_server(w);
	assert_int_equal(start(w), ERROR_NONE);
	ends(w, KILLED);
	is_removed(w);
	another_server(w);
	assert_int_equal(start(w), ERROR_NONE);
}

/* Its record is as it was: it could not be written. */
static void ready_and_not_written(void **state)
{
	struct world *w = *state;
	assert_int_equal(start(w), ERROR_NONE);
	json_t *before = json_load_file(w->record, 0, NULL);
	backend_settled(w->b, &w->spec);
	assert_int_equal(json_dump_file(before, w->record, 0), 0);
	json_decref(before);
	ends(w, KILLED);
	look(w);
	assert_int_equal(start(w), ERROR_NONE);
	assert_true(has_mark(w->record, NULL));
}

static void ended_by_itself(void **state)
{
	struct world *w = *state;
	static const int codes[] = {0, 1, 134, 139};
	for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
		assert_int_equal(start(w), ERROR_NONE);
		assert_true(has_mark(w->record, i ? NULL : "web"));
		ends(w, codes[i]);
		another_server(w);
		assert_int_equal(start(w), ERROR_NONE);
		is_removed(w);
		another_server(w);
	}
}

static void ended_by_itself_and_was_removed(void **state)
{
	struct world *w = *state;
	assert_int_equal(start(w), ERROR_NONE);
	ends(w, 0);
	look(w);
	is_removed(w);
	assert_int_equal(start(w), ERROR_NONE);
}

static void stopped_for_another_configuration(void **state)
{
	struct world *w = *state;
	assert_int_equal(start(w), ERROR_NONE);
	another_server(w);
	w->spec.config_hash = "other";
	assert_int_equal(start(w), ERROR_NONE);
}

static void a_volume_more(void **state)
{
	struct world *w = *state;
	assert_int_equal(start(w), ERROR_NONE);
	backend_settled(w->b, &w->spec);
	w->spec.n_volumes = 2;
	w->spec.config_hash = "other";
	assert_int_equal(start(w), ERROR_NONE);
	assert_true(has_mark(w->more, "web"));
	ends(w, KILLED);
	another_server(w);
	assert_int_equal(start(w), ERROR_NONE);
	backend_settled(w->b, &w->spec);
	assert_true(has_mark(w->more, NULL));
}

static void of_a_release_without_marks(void **state)
{
	struct world *w = *state;
	assert_int_equal(start(w), ERROR_NONE);
	json_t *record = json_load_file(w->record, 0, NULL);
	json_object_del(record, "unfinished");
	json_object_del(record, "begun_ms");
	assert_int_equal(json_dump_file(record, w->record, 0), 0);
	json_decref(record);
	ends(w, KILLED);
	another_server(w);
	assert_int_equal(start(w), ERROR_NONE);
	assert_true(has_mark(w->record, NULL));
}

/* docker compose up, before anything of ours */
static void begun_by_others(void **state)
{
	struct world *w = *state;
	assert_int_equal(prepare(w), ERROR_NONE);
	assert_true(has_mark(w->record, ""));
	ends(w, KILLED);
	another_server(w);
	backend_settled(w->b, &w->spec);
	assert_true(has_mark(w->record, NULL));
	assert_int_equal(start(w), ERROR_NONE);
	ends(w, KILLED);
	another_server(w);
	assert_int_equal(start(w), ERROR_NONE);
}

static bool refuse_start(void *arg, int fd, const struct scripted_request *r, bool *keep)
{
	if (!strstr(r->path, "/start"))
		return false;
	*keep = fake_refuse(fd, 500, "driver failed");
	return true;
}

static void never_started(void **state)
{
	struct world *w = *state;
	w->engine.spoil = refuse_start;
	assert_int_not_equal(start(w), ERROR_NONE);
	w->engine.spoil = NULL;
	assert_true(has_mark(w->record, ""));
	another_server(w);
	assert_int_equal(start(w), ERROR_NONE);
}

static void ran_for_long(void **state)
{
	struct world *w = *state;
	assert_int_equal(start(w), ERROR_NONE);
	json_t *record = json_load_file(w->record, 0, NULL);
	json_object_set_new(record, "begun_ms", json_integer(now_wall_ms() - 11 * 60 * 1000));
	assert_int_equal(json_dump_file(record, w->record, 0), 0);
	json_decref(record);
	is_removed(w);
	another_server(w);
	assert_int_equal(start(w), ERROR_NONE);
}

/* ---- a call that a killed server has left ---- */

static void what_was_found_may_rise(void **state)
{
	struct world *w = *state;
	look(w);
	assert_int_equal(prepare(w), ERROR_NONE);
	assert_false(backend_rises(w->b, "web")); /* its own */
	another_server(w);
	look(w);
	assert_true(backend_rises(w->b, "web"));
	assert_int_equal(prepare(w), ERROR_NONE);
	look(w);
	assert_true(backend_rises(w->b, "web"));
	assert_int_equal(start(w), ERROR_NONE);
	assert_false(backend_rises(w->b, "web"));
	another_server(w);
	look(w);
	assert_false(backend_rises(w->b, "web")); /* it runs */
	ends(w, 0);
	look(w);
	assert_false(backend_rises(w->b, "web"));
	another_server(w);
	look(w);
	assert_true(backend_rises(w->b, "web"));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(killed_before_it_was_ready),
	    T(interrupted_before_it_was_ready),
	    T(nobody_saw_how_it_ended),
	    T(killed_for_another_configuration),
	    T(killed_after_it_was_ready),
	    T(ready_and_not_written),
	    T(ended_by_itself),
	    T(ended_by_itself_and_was_removed),
	    T(stopped_for_another_configuration),
	    T(a_volume_more),
	    T(of_a_release_without_marks),
	    T(begun_by_others),
	    T(never_started),
	    T(ran_for_long),
	    T(what_was_found_may_rise),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
