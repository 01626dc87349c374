/* What every backend promises: one suite, and over each of them also behind a decorator. Included by test_backend.c and test_backend_engine.c alone. */
#include "tests/contract/backend_world.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "backends/chaos.h"
#include "tests/contract/attachment_suite.h"

static void ends_by_itself(struct service *s)
{
	keyvals_set(&s->env, "MEMORY_EXIT_AFTER_MS", "50");
	keyvals_set(&s->env, "MEMORY_EXIT_CODE", "3");
	s->command[2] = s->container_command[2] = (char *)"sleep 0.05; exit 3";
}

static void start_is_idempotent(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", FOREVER);
	assert_int_equal(look(w, "db").state, INSTANCE_ABSENT);
	start(w, &s);
	struct instance first = look(w, "db");
	assert_int_equal(first.state, INSTANCE_RUNNING);
	start(w, &s);
	struct instance second = look(w, "db");
	assert_int_equal(second.state, INSTANCE_RUNNING);
	assert_int_equal(first.pid, second.pid);
	assert_int_equal(first.started_ms, second.started_ms);
	assert_int_equal(w->changes, 0);
	if (w->b->ops->tells_starts) {
		assert_int_equal(w->told, 2);
		assert_int_equal(w->told_pid, first.pid);
	}
}

static void list_tells_what_it_was_started_with(void **state)
{
	struct world *w = *state;
	SERVICE a, b;
	service_init(&a, "a.b-c_d", FOREVER);
	service_init(&b, "b", FOREVER);
	b.spec.config_hash = "beef";
	int64_t before = now_wall_ms();
	start(w, &a);
	start(w, &b);
	OUTCOME o = {0};
	backend_list(w->b, on_list, &o);
	await_calls(w, &o.calls, 1);
	must(o);
	assert_int_equal(o.count, 2);
	for (size_t i = 0; i < 2; i++) {
		assert_string_equal(o.hashes[i], strcmp(o.names[i], "b") ? "c0ffee" : "beef");
		assert_true(o.items[i].started_ms >= before && o.items[i].started_ms <= now_wall_ms() + 1);
		assert_true(o.items[i].memory_bytes > 0 || is_engine(w)); /* an engine would take a second to say it */
	}
}

static void stop_and_remove_are_idempotent(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", FOREVER);
	stop(w, "db", SIGTERM, 1000);
	discard(w, "db");
	start(w, &s);
	stop(w, "db", SIGTERM, 1000);
	assert_int_equal(look(w, "db").state, INSTANCE_EXITED);
	stop(w, "db", SIGTERM, 1000);
	assert_int_equal(look(w, "db").state, INSTANCE_EXITED);
	start(w, &s);
	assert_int_equal(look(w, "db").state, INSTANCE_RUNNING);
	discard(w, "db");
	assert_int_equal(look(w, "db").state, INSTANCE_ABSENT);
	discard(w, "db");
	assert_int_equal(w->changes, 0); /* all of it was asked for */
}

static void two_starts_at_once_start_one(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", FOREVER);
	OUTCOME a = {0}, b = {0};
	backend_start(w->b, &s.spec, on_done, &a);
	backend_start(w->b, &s.spec, on_done, &b);
	await_calls(w, &a.calls, 1);
	await_calls(w, &b.calls, 1);
	must(a);
	must(b);
	OUTCOME o = {0};
	backend_list(w->b, on_list, &o);
	await_calls(w, &o.calls, 1);
	assert_int_equal(o.count, 1);
}

static void operations_keep_their_order(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", FOREVER);
	OUTCOME a = {0}, b = {0}, c = {0};
	backend_start(w->b, &s.spec, on_done, &a);
	backend_stop(w->b, "db", SIGTERM, 1000, on_done, &b);
	backend_start(w->b, &s.spec, on_done, &c);
	await_calls(w, &c.calls, 1);
	assert_int_equal(a.calls + b.calls, 2);
	must(a);
	must(b);
	must(c);
	assert_int_equal(look(w, "db").state, INSTANCE_RUNNING);
}

static void specs_are_borrowed_for_the_call_only(void **state)
{
	struct world *w = *state;
	struct service *s = xcalloc(1, sizeof *s);
	cleanup_free char *name = xstrdup("db"), *script = xstrdup(FOREVER), *hash = xstrdup("feed");
	service_init(s, name, script);
	s->spec.config_hash = hash;
	OUTCOME o = {0};
	backend_start(w->b, &s->spec, on_done, &o);
	memset(name, 'x', strlen(name));
	memset(script, 'x', strlen(script));
	memset(hash, 'x', strlen(hash));
	service_release(s);
	memset(s, 0x55, sizeof *s);
	free(s);
	await_calls(w, &o.calls, 1);
	must(o);
	assert_int_equal(look(w, "db").state, INSTANCE_RUNNING);
}

static void an_exit_is_told_once(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", FOREVER);
	ends_by_itself(&s);
	start(w, &s);
	await_changes(w, 1);
	assert_string_equal(w->changed_service, "db");
	assert_int_equal(w->changed.state, INSTANCE_EXITED);
	assert_int_equal(w->changed.exit_code, 3);
	assert_true(w->changed.exited_ms >= w->changed.started_ms);
	nap(w, 100);
	struct instance i = look(w, "db");
	assert_int_equal(i.state, INSTANCE_EXITED);
	assert_int_equal(i.exit_code, 3);
	stop(w, "db", SIGTERM, 1000);
	discard(w, "db");
	assert_int_equal(w->changes, 1);
}

static void it_starts_again_after_an_exit(void **state)
{
	struct world *w = *state;
	for (unsigned i = 1; i <= 3; i++) {
		SERVICE s;
		service_init(&s, "db", FOREVER);
		ends_by_itself(&s);
		start(w, &s);
		await_changes(w, i);
	}
}

static void services_outlive_the_backend(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", FOREVER);
	start(w, &s);
	struct instance before = look(w, "db");
	world_close(w);
	world_open(w);
	struct instance after = look(w, "db");
	assert_int_equal(after.state, INSTANCE_RUNNING);
	assert_int_equal(after.pid, before.pid);
	assert_int_equal(after.started_ms, before.started_ms);
	stop(w, "db", SIGTERM, 1000);
	assert_int_equal(look(w, "db").state, INSTANCE_EXITED);
	assert_int_equal(w->changes, 0);
}

static void start_adopts_what_runs(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", FOREVER);
	start(w, &s);
	struct instance before = look(w, "db");
	world_close(w);
	world_open(w);
	start(w, &s);
	assert_int_equal(look(w, "db").started_ms, before.started_ms);
}

static void an_adopted_service_tells_of_its_exit(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", FOREVER);
	keyvals_set(&s.env, "MEMORY_EXIT_AFTER_MS", "300");
	keyvals_set(&s.env, "MEMORY_EXIT_CODE", "4");
	s.command[2] = (char *)"sleep 0.3; exit 4";
	s.container_command[2] = (char *)"sleep 2; exit 4"; /* its start takes longer */
	start(w, &s);
	world_close(w);
	world_open(w);
	assert_int_equal(look(w, "db").state, INSTANCE_RUNNING);
	await_changes(w, 1);
	assert_int_equal(w->changed.exit_code, 4);
	nap(w, 50);
	assert_int_equal(w->changes, 1);
}

static void close_answers_everything_once(void **state)
{
	struct world *w = *state;
	enum { N = 8 };
	SERVICE a, b;
	service_init(&a, "a", FOREVER);
	service_init(&b, "b", FOREVER);
	keyvals_set(&b.env, "MEMORY_IGNORE_STOP", "yes");
	b.command[2] = b.container_command[2] = (char *)"trap '' TERM; while :; do sleep 1000; done";
	start(w, &b);
	struct outcome o[N] = {{0}};
	char *sleep[] = {(char *)"/bin/sleep", (char *)"1000", NULL};
	keyvals_set(&a.env, "MEMORY_EXEC_DELAY_MS", "100000");
	backend_start(w->b, &a.spec, on_done, &o[0]);
	backend_stop(w->b, "a", SIGTERM, 1000, on_done, &o[1]);
	backend_stop(w->b, "b", SIGTERM, 60000, on_done, &o[2]);
	backend_list(w->b, on_list, &o[3]);
	backend_exec(w->b, &a.spec, sleep, 60000, on_exec, &o[4]);
	backend_remove(w->b, "none", on_done, &o[5]);
	backend_start(w->b, &a.spec, on_done, &o[6]);
	backend_stop(w->b, "..", SIGTERM, 0, on_done, &o[7]);
	uint64_t before = now_monotonic_ms();
	world_close(w);
	assert_true(now_monotonic_ms() - before < 10000);
	for (int i = 0; i < N; i++) {
		assert_int_equal(o[i].calls, 1);
		outcome_release(&o[i]);
	}
	assert_int_equal(o[2].code, ERROR_CANCELED);
	assert_int_equal(o[4].code, ERROR_CANCELED);
	for (int i = 0; i < 5; i++) /* nothing comes after `closed` */
		uv_run(&w->loop, UV_RUN_NOWAIT);
	for (int i = 0; i < N; i++)
		assert_int_equal(o[i].calls, 1);
}

/* Closed at every moment of a start: what is found afterwards runs or does not, and can be started and removed. */
static void close_at_any_moment_of_a_start(void **state)
{
	struct world *w = *state;
	for (unsigned i = 0; i < 8; i++) {
		SERVICE s;
		service_init(&s, "db", FOREVER);
		OUTCOME o = {0};
		backend_start(w->b, &s.spec, on_done, &o);
		if (is_engine(w)) /* whose calls go out and come back on the loop */
			nap(w, 50 * i);
		else
			usleep(1000 * i);
		world_close(w);
		assert_int_equal(o.calls, 1);
		world_open(w);
		start(w, &s);
		assert_int_equal(look(w, "db").state, INSTANCE_RUNNING);
		discard(w, "db");
		assert_int_equal(look(w, "db").state, INSTANCE_ABSENT);
	}
}

static void exec_gives_code_and_output(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", FOREVER);
	keyvals_set(&s.env, "MEMORY_EXEC_OUTPUT", "out\nerr\n");
	keyvals_set(&s.env, "MEMORY_EXEC_EXIT", "7");
	char *argv[] = {(char *)"sh", (char *)"-c", (char *)"echo out; sleep 0.1; echo err >&2; exit 7", NULL};
	OUTCOME o = {0};
	start(w, &s);
	backend_exec(w->b, &s.spec, argv, 10000, on_exec, &o);
	assert_int_equal(o.calls, 0);
	await_calls(w, &o.calls, 1);
	must(o);
	assert_int_equal(o.exit_code, 7);
	assert_string_equal(o.output, "out\nerr\n");
}

static void exec_ends_in_time(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", FOREVER);
	keyvals_set(&s.env, "MEMORY_EXEC_DELAY_MS", "100000");
	char *argv[] = {(char *)"sh", (char *)"-c", (char *)"trap '' TERM; sleep 1000", NULL};
	OUTCOME o = {0};
	start(w, &s);
	uint64_t before = now_monotonic_ms();
	backend_exec(w->b, &s.spec, argv, 200, on_exec, &o);
	await_calls(w, &o.calls, 1);
	assert_int_equal(o.code, ERROR_NOT_READY);
	assert_true(now_monotonic_ms() - before >= 190);
	assert_true(now_monotonic_ms() - before < 5000);
}

static void bad_names_are_refused(void **state)
{
	struct world *w = *state;
	static const char *const names[] = {"", ".", "..", "../x", "a/b", "a b", "\n", ".hidden"};
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		SERVICE s;
		service_init(&s, names[i], FOREVER);
		OUTCOME a = {0}, b = {0}, c = {0};
		backend_start(w->b, &s.spec, on_done, &a);
		backend_stop(w->b, names[i], SIGTERM, 0, on_done, &b);
		backend_remove(w->b, names[i], on_done, &c);
		assert_int_equal(a.calls + b.calls + c.calls, 0);
		await_calls(w, &c.calls, 1);
		assert_int_equal(a.code, ERROR_CONFIG_INVALID);
		assert_int_equal(b.code, ERROR_CONFIG_INVALID);
		assert_int_equal(c.code, ERROR_CONFIG_INVALID);
		assert_null(backend_log_path(w->b, names[i]));
	}
}

static void a_port_without_a_lease_is_refused(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", FOREVER);
	s.port = (struct port_binding){5432, 0, "tcp"};
	s.spec.ports = &s.port;
	s.spec.n_ports = 1;
	OUTCOME o = {0};
	backend_start(w->b, &s.spec, on_done, &o);
	await_calls(w, &o.calls, 1);
	assert_int_equal(o.code, ERROR_INTERNAL);
}

static void probe_and_prepare_answer(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", FOREVER);
	OUTCOME a = {0}, b = {0};
	backend_probe(w->b, on_done, &a);
	backend_prepare(w->b, &s.spec, on_done, &b);
	assert_int_equal(a.calls + b.calls, 0);
	await_calls(w, &a.calls, 1);
	await_calls(w, &b.calls, 1);
	must(a);
	must(b);
	assert_int_equal(look(w, "db").state, INSTANCE_ABSENT);
}

/* Work ahead of need is nobody's harm: also when the configuration has changed. */
static void prepare_leaves_what_runs(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", FOREVER);
	start(w, &s);
	struct instance before = look(w, "db");
	OUTCOME o = {0};
	s.spec.config_hash = "of another configuration";
	for (int i = 0; i < 2; i++) { /* also for a server that has just begun, which has not looked yet */
		o = (struct outcome){0};
		backend_prepare(w->b, &s.spec, on_done, &o);
		await_calls(w, &o.calls, 1);
		must(o);
		struct instance now = look(w, "db");
		assert_int_equal(now.state, INSTANCE_RUNNING);
		assert_int_equal(now.started_ms, before.started_ms);
		world_close(w);
		world_open(w);
	}
}

/* ---- the memory backend's own ---- */

static uint16_t free_port(void)
{
	cleanup_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof address;
	assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
	return ntohs(address.sin_port);
}

static bool connects(uint16_t port)
{
	cleanup_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	return !connect(fd, (struct sockaddr *)&address, sizeof address);
}

static void memory_listens(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", FOREVER);
	s.port = (struct port_binding){5432, free_port(), "tcp"};
	s.spec.ports = &s.port;
	s.spec.n_ports = 1;
	start(w, &s);
	assert_true(connects(s.port.external));
	world_close(w);
	world_open(w);
	assert_true(connects(s.port.external));
	stop(w, "db", SIGTERM, 0);
	assert_false(connects(s.port.external));
	keyvals_set(&s.env, "MEMORY_LISTEN_DELAY_MS", "100");
	start(w, &s);
	assert_false(connects(s.port.external));
	nap(w, 200);
	assert_true(connects(s.port.external));
}

static void memory_fails_as_asked(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", FOREVER);
	keyvals_set(&s.env, "MEMORY_FAIL_START", "NO_SPACE: the disk is full");
	keyvals_set(&s.env, "MEMORY_FAIL_COUNT", "2");
	for (int i = 0; i < 2; i++) {
		OUTCOME o = {0};
		backend_start(w->b, &s.spec, on_done, &o);
		await_calls(w, &o.calls, 1);
		assert_int_equal(o.code, ERROR_NO_SPACE);
		assert_string_equal(o.message, "the disk is full");
	}
	start(w, &s);
}

/* ---- decorators ---- */

static void chaos(struct world *w, const struct chaos_rule *rules, size_t n)
{
	w->b = chaos_wrap(w->b, rules, n);
}

static void chaos_fails_instead_and_afterwards(void **state)
{
	struct world *w = *state;
	static const struct chaos_rule rules[] = {
	    {.op = CHAOS_START, .count = 1, .instead = ERROR_BACKEND_UNREACHABLE},
	    {.op = CHAOS_START, .skip = 1, .count = 1, .afterwards = ERROR_NOT_READY},
	};
	chaos(w, rules, 2);
	SERVICE s;
	service_init(&s, "db", FOREVER);
	OUTCOME a = {0}, b = {0};
	backend_start(w->b, &s.spec, on_done, &a);
	assert_int_equal(a.calls, 0);
	await_calls(w, &a.calls, 1);
	assert_int_equal(a.code, ERROR_BACKEND_UNREACHABLE);
	assert_int_equal(look(w, "db").state, INSTANCE_ABSENT);
	backend_start(w->b, &s.spec, on_done, &b);
	await_calls(w, &b.calls, 1);
	assert_int_equal(b.code, ERROR_NOT_READY);
	assert_int_equal(look(w, "db").state, INSTANCE_RUNNING);
	start(w, &s);
}

static void chaos_delays_and_is_canceled(void **state)
{
	struct world *w = *state;
	static const struct chaos_rule rules[] = {{.op = CHAOS_LIST, .count = 1, .delay_ms = 150},
	                                          {.op = CHAOS_START, .delay_ms = 100000}};
	chaos(w, rules, 2);
	uint64_t before = now_monotonic_ms();
	look(w, "db");
	assert_true(now_monotonic_ms() - before >= 150);
	SERVICE s;
	service_init(&s, "db", FOREVER);
	OUTCOME o = {0};
	backend_start(w->b, &s.spec, on_done, &o);
	nap(w, 300);
	assert_int_equal(o.calls, 0);
	world_close(w);
	assert_int_equal(o.calls, 1);
	assert_int_equal(o.code, ERROR_CANCELED);
}

/* ---- the suite over all of them ---- */

typedef void body(void **state);

static const struct {
	const char *name;
	body *run;
	const char *only; /* backend; NULL: all */
} cases[] = {
#define CASE(f)                                                                                                        \
	{                                                                                                                  \
#f, f, NULL                                                                                                    \
	}
    CASE(start_is_idempotent),
    CASE(list_tells_what_it_was_started_with),
    CASE(stop_and_remove_are_idempotent),
    CASE(two_starts_at_once_start_one),
    CASE(operations_keep_their_order),
    CASE(specs_are_borrowed_for_the_call_only),
    CASE(an_exit_is_told_once),
    CASE(it_starts_again_after_an_exit),
    CASE(services_outlive_the_backend),
    CASE(start_adopts_what_runs),
    CASE(an_adopted_service_tells_of_its_exit),
    CASE(close_answers_everything_once),
    CASE(close_at_any_moment_of_a_start),
    CASE(exec_gives_code_and_output),
    CASE(exec_ends_in_time),
    CASE(bad_names_are_refused),
    CASE(a_port_without_a_lease_is_refused),
    CASE(probe_and_prepare_answer),
    CASE(beside_a_service_streams_are_apart),
    CASE(beside_a_service_bytes_stay_what_they_are),
    CASE(beside_a_service_is_its_environment),
    CASE(beside_a_service_is_a_terminal),
    CASE(beside_a_service_signals_arrive),
    CASE(beside_a_service_what_cannot_be_run_says_so),
    CASE(beside_a_service_that_ends),
    CASE(beside_a_service_its_reader_goes_away),
    CASE(prepare_leaves_what_runs),
    CASE(chaos_fails_instead_and_afterwards),
    CASE(chaos_delays_and_is_canceled),
#undef CASE
    {"memory_listens", memory_listens, "memory"},
    {"memory_fails_as_asked", memory_fails_as_asked, "memory"},
};
enum { N_CASES = sizeof cases / sizeof cases[0] };

static int setup(void **state)
{
	const char *target = *state;
	struct world *w = xcalloc(1, sizeof *w);
	*state = w;
	return world_begin(w, target);
}

static int teardown(void **state)
{
	struct world *w = *state;
	world_end(w);
	free(w);
	return 0;
}

/* Every operation of every backend once more behind a decorator that does nothing. */
static int setup_behind_chaos(void **state)
{
	int r = setup(state);
	struct world *w = *state;
	chaos(w, NULL, 0);
	return r;
}

static void a_name_that_is_none(void **state)
{
	struct backend_params params = {.target = "teleport"};
	struct backend *b = NULL;
	cleanup_error struct error err = ERROR_INIT;
	assert_true(backend_open(&params, &b, &err) < 0);
	assert_int_equal(err.code, ERROR_CONFIG_INVALID);
	assert_null(backend_find("teleport"));
}

/* Runs it over the backends named, each also behind a decorator that does nothing. */
static int run_suite(const char *const *names)
{
	struct CMUnitTest tests[256] = {cmocka_unit_test(a_name_that_is_none)};
	size_t n = 1;
	for (; *names; names++)
		for (size_t i = 0; i < 2 * N_CASES; i++) {
			bool behind = i >= N_CASES;
			size_t c = i % N_CASES;
			if (cases[c].only && strcmp(cases[c].only, *names))
				continue;
			tests[n++] = (struct CMUnitTest){xasprintf("%s%s: %s", behind ? "chaos over " : "", *names, cases[c].name), cases[c].run,
			                                 behind ? setup_behind_chaos : setup, teardown, (void *)*names};
		}
	int failed = _cmocka_run_group_tests("backends", tests, n, NULL, NULL);
	for (size_t i = 1; i < n; i++)
		free((char *)tests[i].name);
	return failed;
}
