// once
/* What an engine's events tell of others' doings: who has had a container ended, put another in its place, or taken it out of the network. */
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

#define LATER 1900000000000000000 /* ns: after the start that the fake tells of */
#define BEFORE 1000000000

struct world {
	struct fake_engine engine;
	uv_loop_t loop;
	struct backend *b;
	char dir[64];
	struct service_spec spec;
	_Atomic int events, network_events; /* the streams */
	_Atomic bool slow; /* the next look is answered half a second late, with what there was before; then false */
	/* as told last */
	unsigned told;
	enum instance_state state;
	bool dismissed, unplugged, lost, returned, paused;
	_Atomic bool down; /* it answers nobody */
	_Atomic bool leaving, silent; /* it answers nobody new, or lets them wait */
};

static void on_changed(void *arg, const struct instance *i)
{
	struct world *w = arg;
	w->told++;
	w->state = i->state;
	w->dismissed = i->dismissed;
	w->unplugged = i->unplugged;
	w->lost = i->lost;
	w->returned = i->returned;
	w->paused = i->paused;
}

static void run_for(struct world *w, unsigned ms)
{
	uint64_t until = now_monotonic_ms() + ms;
	while (now_monotonic_ms() < until)
		run_once(&w->loop);
}

static void wait_told(struct world *w, unsigned times)
{
	uint64_t until = now_monotonic_ms() + OUTCOME_WAIT_MS;
	while (w->told < times && now_monotonic_ms() < until)
		run_once(&w->loop);
	assert_int_equal(w->told, times);
}

/* ---- the engine ---- */

static bool streams(void *arg, int fd, const struct scripted_request *r, bool *keep)
{
	struct world *w = arg;
	if (strstr(r->path, "/version") && w->silent)
		return *keep = scripted_hang(fd), true;
	if (w->down || (strstr(r->path, "/version") && w->leaving))
		return true; /* *keep is false */
	if (strstr(r->path, "/ns-web/json") && w->slow) {
		pthread_mutex_lock(&w->engine.lock);
		json_t *before = json_deep_copy(fake_find(w->engine.containers, "ns-web"));
		pthread_mutex_unlock(&w->engine.lock);
		w->slow = false;
		usleep(500000);
		*keep = fake_dump(fd, 200, before);
		json_decref(before);
		return true;
	}
	if (!strstr(r->path, "/events"))
		return false;
	fake_stream(fd);
	if (strstr(r->path, "disconnect"))
		w->network_events = fd;
	else
		w->events = fd;
	*keep = scripted_hang(fd);
	return true;
}

static void send_event(int fd, json_t *event)
{
	cleanup_free char *line = json_dumps(event, JSON_COMPACT), *chunk = xasprintf("%zx\r\n%s\n\r\n", strlen(line) + 1, line);
	scripted_say(fd, chunk);
	json_decref(event);
}

static json_t *container(struct world *w)
{
	return fake_find(w->engine.containers, "ns-web");
}

static char *id_of(struct world *w)
{
	pthread_mutex_lock(&w->engine.lock);
	char *id = xstrdup(json_string_value(json_object_get(container(w), "Id")));
	pthread_mutex_unlock(&w->engine.lock);
	return id;
}

/* signal, name: may be NULL */
static void say(struct world *w, const char *action, const char *id, const char *signal, const char *name, int64_t at)
{
	json_t *attributes = json_pack("{s:s, s:s*, s:s*}", "aether.service", "web", "signal", signal, "name", name);
	send_event(w->events, json_pack("{s:s, s:{s:s, s:o}, s:I}", "Action", action, "Actor", "ID", id, "Attributes", attributes, "timeNano", (json_int_t)at));
}

static void ends(struct world *w, int code)
{
	cleanup_free char *id = id_of(w);
	pthread_mutex_lock(&w->engine.lock);
	json_t *state = json_object_get(container(w), "State");
	json_object_set_new(state, "Running", json_false());
	json_object_set_new(state, "ExitCode", json_integer(code));
	pthread_mutex_unlock(&w->engine.lock);
	say(w, "die", id, NULL, NULL, LATER);
}

/* ---- one service that runs ---- */

static int setup(void **state)
{
	static const struct keyvals env = KEYVALS_INIT;
	struct world *w = *state = xcalloc(1, sizeof *w);
	snprintf(w->dir, sizeof w->dir, "/tmp/aether-events-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	w->spec = (struct service_spec){.name = "web", .image = "app:1", .env = &env, .stop_signal = 15, .stop_grace_ms = 100, .config_hash = "h", .generation = 1, .data = w->dir};
	w->events = w->network_events = -1;
	fake_engine_start(&w->engine);
	w->engine.spoil = streams;
	w->engine.arg = w;
	uv_loop_init(&w->loop);
	w->b = fake_engine_open(&w->engine, &w->loop, w->dir, on_changed, NULL, w);
	struct outcome o = {0};
	backend_start(w->b, &w->spec, on_done, &o);
	assert_int_equal(await(&w->loop, &o), ERROR_NONE);
	while (w->events < 0 || w->network_events < 0)
		run_once(&w->loop);
	w->told = 0;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	struct outcome o = {0};
	backend_close(w->b, on_closed, &o);
	await(&w->loop, &o);
	fake_engine_end(&w->engine, &w->loop, w->dir);
	free(w);
	return 0;
}

/* ---- whose doing an end is ---- */

static void a_kill_says_whose_doing_an_end_is(void **state)
{
	struct world *w = *state;
	static const struct {
		const char *action, *signal;
		int64_t at;
		int code;
		bool dismissed;
	} cases[] = {
	    {"kill", "15", LATER, 0, true},    {"kill", "9", LATER, 137, true}, {"kill", "2", LATER, 0, true},
	    {"kill", "1", LATER, 129, false}, /* a reload, and an accident */
	    {"kill", NULL, LATER, 137, true},  {"kill", NULL, LATER, 3, false}, /* Podman's */
	    {"kill", "15", BEFORE, 1, false}, /* of the run before */
	    {"attach", NULL, LATER, 137, false},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		cleanup_free char *id = id_of(w);
		struct outcome o = {0};
		w->told = 0;
		say(w, cases[i].action, id, cases[i].signal, NULL, cases[i].at);
		ends(w, cases[i].code);
		wait_told(w, 1);
		assert_int_equal(w->state, INSTANCE_EXITED);
		assert_int_equal(w->dismissed, cases[i].dismissed);
		backend_start(w->b, &w->spec, on_done, &o);
		assert_int_equal(await(&w->loop, &o), ERROR_NONE);
	}
}

/* Of what has another signal for its end that alone tells, and it comes last. */
static void a_stop_is_told_afterwards(void **state)
{
	struct world *w = *state;
	cleanup_free char *id = id_of(w);
	ends(w, 0);
	wait_told(w, 1);
	assert_false(w->dismissed);
	say(w, "stop", id, NULL, NULL, LATER);
	wait_told(w, 2);
	assert_int_equal(w->state, INSTANCE_EXITED);
	assert_true(w->dismissed);
}

static void a_start_ends_it(void **state)
{
	struct world *w = *state;
	cleanup_free char *id = id_of(w);
	say(w, "kill", id, "15", NULL, LATER); /* which it has heard, and did not mind */
	say(w, "start", id, NULL, NULL, LATER);
	ends(w, 1);
	wait_told(w, 1);
	assert_false(w->dismissed);
}

static void a_stop_of_ours_is_nobodys(void **state)
{
	struct world *w = *state;
	cleanup_free char *id = id_of(w);
	struct outcome o = {0};
	backend_stop(w->b, "web", 15, 100, on_done, &o);
	assert_int_equal(await(&w->loop, &o), ERROR_NONE);
	say(w, "kill", id, "15", NULL, LATER);
	say(w, "die", id, NULL, NULL, LATER);
	say(w, "stop", id, NULL, NULL, LATER);
	run_for(w, 1000); /* an end is told after its last words */
	assert_int_equal(w->told, 0);
}

static void starts(struct world *w)
{
	cleanup_free char *id = id_of(w);
	pthread_mutex_lock(&w->engine.lock);
	json_object_set_new(container(w), "State", fake_state(true, "2026-01-01T00:01:00Z"));
	pthread_mutex_unlock(&w->engine.lock);
	say(w, "start", id, NULL, NULL, LATER);
}

static void a_start_of_what_we_have_stopped_is_told(void **state)
{
	struct world *w = *state;
	struct outcome o = {0};
	backend_stop(w->b, "web", 15, 100, on_done, &o);
	assert_int_equal(await(&w->loop, &o), ERROR_NONE);
	starts(w);
	wait_told(w, 1);
	assert_int_equal(w->state, INSTANCE_RUNNING);
}

/* Its answer is older than what was done meanwhile. */
static void a_look_from_before_says_nothing(void **state)
{
	struct world *w = *state;
	struct outcome o = {0};
	cleanup_free char *id = id_of(w);
	w->slow = true;
	say(w, "unpause", id, NULL, NULL, LATER);
	while (w->slow)
		run_once(&w->loop);
	backend_stop(w->b, "web", 15, 100, on_done, &o);
	assert_int_equal(await(&w->loop, &o), ERROR_NONE);
	say(w, "stop", id, NULL, NULL, LATER);
	run_for(w, 1000);
	assert_int_equal(w->told, 0);
}

static void pauses(struct world *w)
{
	cleanup_free char *id = id_of(w);
	pthread_mutex_lock(&w->engine.lock);
	json_object_set_new(json_object_get(container(w), "State"), "Paused", json_true());
	pthread_mutex_unlock(&w->engine.lock);
	say(w, "pause", id, NULL, NULL, LATER);
}

/* Nor is what it would have said forgotten: what was done meanwhile may have looked at nothing. */
static void a_look_from_before_is_taken_again(void **state)
{
	struct world *w = *state;
	struct outcome o = {0};
	w->slow = true;
	pauses(w);
	while (w->slow)
		run_once(&w->loop);
	backend_prepare(w->b, &w->spec, on_done, &o);
	assert_int_equal(await(&w->loop, &o), ERROR_NONE);
	wait_told(w, 1);
	assert_true(w->paused);
}

/* It has looked before, and been answered after. */
static void an_event_within_an_operation_is_heard(void **state)
{
	struct world *w = *state;
	struct outcome o = {0};
	w->slow = true;
	backend_start(w->b, &w->spec, on_done, &o);
	while (w->slow)
		run_once(&w->loop);
	pauses(w);
	assert_int_equal(await(&w->loop, &o), ERROR_NONE);
	wait_told(w, 2); /* one is of the start */
	assert_true(w->paused);
}

static void a_removal_is_others_doing(void **state)
{
	struct world *w = *state;
	cleanup_free char *id = id_of(w);
	pthread_mutex_lock(&w->engine.lock);
	fake_drop(w->engine.containers, "ns-web");
	pthread_mutex_unlock(&w->engine.lock);
	say(w, "destroy", id, NULL, NULL, LATER);
	wait_told(w, 1);
	assert_int_equal(w->state, INSTANCE_ABSENT);
	assert_true(w->dismissed);
}

/* "Running", it says of one that waits for its next start. */
static void what_the_engine_starts_again_does_not_run(void **state)
{
	struct world *w = *state;
	cleanup_free char *id = id_of(w);
	pthread_mutex_lock(&w->engine.lock);
	json_object_set_new(json_object_get(container(w), "State"), "Restarting", json_true());
	pthread_mutex_unlock(&w->engine.lock);
	say(w, "die", id, NULL, NULL, LATER);
	wait_told(w, 1);
	assert_int_equal(w->state, INSTANCE_EXITED);
	assert_false(w->dismissed);
}

/* ---- an engine that ends ---- */

static void set_running(struct world *w, bool running)
{
	pthread_mutex_lock(&w->engine.lock);
	json_t *state = json_object_get(container(w), "State");
	json_object_set_new(state, "Running", json_boolean(running));
	json_object_set_new(state, "ExitCode", json_integer(running ? 0 : 137));
	pthread_mutex_unlock(&w->engine.lock);
}

static void end_streams(struct world *w)
{
	int streams[] = {w->events, w->network_events};
	w->events = w->network_events = -1; /* until they are opened again */
	for (size_t i = 0; i < 2; i++)
		shutdown(streams[i], SHUT_RDWR);
}

static void await_streams(struct world *w)
{
	while (w->events < 0)
		run_once(&w->loop);
}

static void what_ends_with_the_engine_is_told_twice(void **state)
{
	struct world *w = *state;
	w->down = true;
	end_streams(w);
	wait_told(w, 1);
	assert_int_equal(w->state, INSTANCE_EXITED);
	assert_true(w->lost);
	assert_false(w->dismissed);
	struct outcome o = {0};
	backend_start(w->b, &w->spec, on_done, &o); /* in vain */
	assert_int_equal(await(&w->loop, &o), ERROR_BACKEND_UNREACHABLE);
	set_running(w, false);
	w->down = false;
	wait_told(w, 2);
	assert_int_equal(w->state, INSTANCE_EXITED);
	assert_true(w->returned);
	assert_false(w->lost);
	run_for(w, 1000);
	assert_int_equal(w->told, 2);
}

/* In the words of a `docker stop`, and it tells of it until all have ended; its socket may be held open by others, who let callers wait for the next one. */
static void what_a_leaving_engine_stops_is_not_others_doing(void **state)
{
	struct world *w = *state;
	cleanup_free char *id = id_of(w);
	for (int i = 0; i < 2; i++) {
		w->told = 0;
		*(i ? &w->silent : &w->leaving) = true;
		say(w, "kill", id, "15", NULL, LATER);
		ends(w, 143);
		if (!i)
			wait_told(w, 1);
		say(w, "stop", id, NULL, NULL, LATER);
		run_for(w, 500);
		assert_int_equal(w->told, !i);
		end_streams(w);
		wait_told(w, 1);
		assert_true(w->lost);
		assert_false(w->dismissed);
		w->silent = w->leaving = false;
		wait_told(w, 2);
		assert_true(w->returned);
		assert_false(w->dismissed);
		await_streams(w);
		struct outcome o = {0};
		backend_start(w->b, &w->spec, on_done, &o);
		assert_int_equal(await(&w->loop, &o), ERROR_NONE);
	}
	w->told = 0;
	say(w, "kill", id, "15", NULL, LATER); /* and of the next one it is others' again */
	ends(w, 143);
	wait_told(w, 1);
	assert_true(w->dismissed);
}

/* As with a socket that something else holds meanwhile. */
static void what_ended_unheard_has_ended_with_the_engine(void **state)
{
	struct world *w = *state;
	cleanup_free char *id = id_of(w);
	set_running(w, false);
	end_streams(w);
	await_streams(w);
	say(w, "kill", id, "15", NULL, LATER); /* by the next one */
	wait_told(w, 1);
	assert_int_equal(w->state, INSTANCE_EXITED);
	assert_true(w->returned);
	assert_false(w->dismissed);
	struct outcome o = {0};
	backend_start(w->b, &w->spec, on_done, &o);
	assert_int_equal(await(&w->loop, &o), ERROR_NONE);
	await_streams(w);
	ends(w, 3); /* and what is heard of is its own again */
	wait_told(w, 2);
	assert_false(w->returned);
}

static void what_runs_on_without_the_engine_runs(void **state)
{
	struct world *w = *state;
	w->down = true;
	end_streams(w);
	wait_told(w, 1);
	w->down = false;
	wait_told(w, 2);
	assert_int_equal(w->state, INSTANCE_RUNNING);
	await_streams(w);
	ends(w, 3);
	wait_told(w, 3);
	assert_false(w->returned);
}

/* ---- other containers ---- */

static void a_command_of_its_own_is_no_service(void **state)
{
	struct world *w = *state;
	struct outcome o = {0};
	pthread_mutex_lock(&w->engine.lock);
	json_t *run = json_deep_copy(container(w));
	json_t *labels = json_object_get(json_object_get(run, "Config"), "Labels");
	json_object_set_new(labels, "com.docker.compose.oneoff", json_string("True"));
	json_object_set(run, "Labels", labels);
	json_object_set_new(run, "Id", json_string("0123"));
	json_object_set_new(json_object_get(run, "State"), "Running", json_false());
	json_object_set_new(w->engine.containers, "ns-web-run-1", run);
	pthread_mutex_unlock(&w->engine.lock);
	backend_list(w->b, on_list, &o);
	assert_int_equal(await(&w->loop, &o), ERROR_NONE);
	run_for(w, 1000);
	assert_int_equal(w->told, 0);
}

static void a_start_waits_for_a_successor(void **state)
{
	struct world *w = *state;
	struct outcome o = {0};
	static const char *const ends_it[] = {"rename", "destroy"};
	for (size_t i = 0; i < 2; i++) {
		w->told = 0;
		say(w, "create", "abc", NULL, "abc_ns-web", LATER);
		ends(w, 0);
		wait_told(w, 1);
		o = (struct outcome){0};
		backend_start(w->b, &w->spec, on_done, &o);
		run_for(w, 400);
		assert_false(o.done);
		say(w, ends_it[i], "abc", NULL, "ns-web", LATER);
		assert_int_equal(await(&w->loop, &o), ERROR_NONE);
	}
	w->told = 0;
	say(w, "create", "def", NULL, "ns-web", LATER); /* that is its own name */
	ends(w, 0);
	wait_told(w, 1);
	o = (struct outcome){0};
	uint64_t began = now_monotonic_ms();
	backend_start(w->b, &w->spec, on_done, &o);
	assert_int_equal(await(&w->loop, &o), ERROR_NONE);
	assert_true(now_monotonic_ms() - began < 5000);
}

/* ---- the network ---- */

static void plug(struct world *w, bool in)
{
	cleanup_free char *id = id_of(w);
	pthread_mutex_lock(&w->engine.lock);
	json_object_set_new(container(w), "HostConfig", json_pack("{s:s}", "NetworkMode", "ns"));
	json_object_set_new(container(w), "NetworkSettings", in ? json_pack("{s:{s:{}}}", "Networks", "ns") : json_pack("{s:{}}", "Networks"));
	pthread_mutex_unlock(&w->engine.lock);
	send_event(w->network_events, json_pack("{s:s, s:{s:s, s:{s:s}}}", "Action", in ? "connect" : "disconnect", "Actor", "ID", "net", "Attributes", "container", id));
}

static void what_leaves_the_network_is_unplugged(void **state)
{
	struct world *w = *state;
	plug(w, false);
	wait_told(w, 1);
	assert_int_equal(w->state, INSTANCE_RUNNING);
	assert_true(w->unplugged);
	plug(w, true);
	wait_told(w, 2);
	assert_false(w->unplugged);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(a_kill_says_whose_doing_an_end_is),
	    T(a_stop_is_told_afterwards),
	    T(a_start_ends_it),
	    T(a_stop_of_ours_is_nobodys),
	    T(a_start_of_what_we_have_stopped_is_told),
	    T(a_look_from_before_says_nothing),
	    T(a_look_from_before_is_taken_again),
	    T(an_event_within_an_operation_is_heard),
	    T(a_removal_is_others_doing),
	    T(what_the_engine_starts_again_does_not_run),
	    T(what_ends_with_the_engine_is_told_twice),
	    T(what_a_leaving_engine_stops_is_not_others_doing),
	    T(what_ended_unheard_has_ended_with_the_engine),
	    T(what_runs_on_without_the_engine_runs),
	    T(a_command_of_its_own_is_no_service),
	    T(a_start_waits_for_a_successor),
	    T(what_leaves_the_network_is_unplugged),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
