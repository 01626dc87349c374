/* An environment from configuration to teardown, with a real store, real ports and probes, and a backend that does what
 * each test says. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "provisioner/env_name.h"
#include "provisioner/environment.h"
#include "provisioner/store.h"
#include "scripted_backend.h"

#define LIMIT_MS 15000

static uv_loop_t loop;
static char *scratch, *root;
static struct identity id;
static int root_fd = -1;
static struct environment *env;
static unsigned changed_mask;
static unsigned workspaces;

/* ---- the workspace ---- */

static void compose(const char *text)
{
	assert_int_equal(file_write_atomic(root_fd, "compose.yaml", text, strlen(text), 0644), 0);
}

static void on_changed(void *arg, unsigned what)
{
	changed_mask |= what;
}

static void on_env_named(void *arg, const char *name);

static void env_open(void)
{
	struct error err = ERROR_INIT;
	const struct environment_params params = {.loop = &loop,
	                                          .id = &id,
	                                          .root_fd = root_fd,
	                                          .keeper_pid = 77,
	                                          .keeper_pidfd = -1,
	                                          .shim = "/bin/false",
	                                          .recipes_dir = TEST_SOURCE "/contrib/recipes",
	                                          .env_named = on_env_named,
	                                          .changed = on_changed};
	if (environment_new(&params, &env, &err) < 0)
		fail_msg("environment_new: %s", err.message);
}

static void on_closed(void *arg)
{
	*(bool *)arg = true;
}

static void env_close(bool stop)
{
	bool closed = false;
	uint64_t until = now_monotonic_ms() + LIMIT_MS;
	environment_close(env, stop, on_closed, &closed);
	assert_false(closed);
	while (!closed && now_monotonic_ms() < until)
		uv_run(&loop, UV_RUN_ONCE);
	assert_true(closed);
	env = NULL;
	for (int i = 0; i < 5; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
}

static int setup(void **state)
{
	struct error err = ERROR_INIT;
	root = xasprintf("%s/ws%u", scratch, workspaces++);
	assert_int_equal(mkdir(root, 0755), 0);
	root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (identity_of(root, NULL, &id, &err) < 0 || identity_make_dirs(&id, &err) < 0)
		fail_msg("identity: %s", err.message);
	scripted_reset();
	changed_mask = 0;
	return 0;
}

static int teardown(void **state)
{
	if (env)
		env_close(true);
	scripted_reset();
	for (int i = 0; i < 5; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	tree_remove(AT_FDCWD, id.socket_dir); /* where TMPDIR is deep it is not below it */
	identity_release(&id);
	close(root_fd);
	free(root);
	return 0;
}

/* ---- waiting ---- */

struct answer {
	unsigned times;
	struct error error;
	struct demand *demand;
	uint64_t at_ms;
};

static void on_answer(void *arg, const struct error *err)
{
	struct answer *a = arg;
	a->times++;
	a->at_ms = now_monotonic_ms();
	if (err)
		error_copy(&a->error, err);
}

static void on_time(uv_timer_t *timer)
{
}

static void run_for(unsigned ms)
{
	uint64_t until = now_monotonic_ms() + ms;
	uv_timer_t timer;
	uv_timer_init(&loop, &timer);
	uv_update_time(&loop);
	uv_timer_start(&timer, on_time, ms, 2);
	while (now_monotonic_ms() < until)
		uv_run(&loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&timer, NULL);
	uv_run(&loop, UV_RUN_NOWAIT);
}

static void wait_answer(struct answer *a)
{
	uint64_t until = now_monotonic_ms() + LIMIT_MS;
	while (!a->times && now_monotonic_ms() < until)
		run_for(2);
	if (!a->times) {
		cleanup_buffer struct buffer status = BUFFER_INIT;
		environment_status(env, &status);
		fail_msg("no answer; %s", buffer_str(&status));
	}
}

static const struct requester me = {1, "test"}, other = {2, "other"};

static int demand_by(const struct requester *who, const char *service, struct answer *a)
{
	struct error err = ERROR_INIT;
	memset(a, 0, sizeof *a);
	int r = environment_demand(env, service, who, on_answer, a, &a->demand, &err);
	assert_int_equal(a->times, 0); /* never from within the call */
	error_release(&err);
	return r;
}

static int demand(const char *service, struct answer *a)
{
	return demand_by(&me, service, a);
}

/* Asks and waits; ERROR_NONE: ready */
static enum error_code ask(const char *service)
{
	struct answer a;
	int r = demand(service, &a);
	if (r == 0)
		return ERROR_NONE;
	assert_int_equal(r, 1);
	wait_answer(&a);
	run_for(5);
	assert_int_equal(a.times, 1);
	enum error_code code = a.error.code;
	error_release(&a.error);
	return code;
}

static enum error_code command(const char *line)
{
	struct answer a = {0};
	environment_command(env, line, &me, on_answer, &a);
	assert_int_equal(a.times, 0);
	wait_answer(&a);
	run_for(5);
	assert_int_equal(a.times, 1);
	enum error_code code = a.error.code;
	error_release(&a.error);
	return code;
}

/* ---- looking ---- */

static json_t *status(void)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	environment_status(env, &text);
	json_t *json = json_loads(buffer_str(&text), 0, NULL);
	assert_non_null(json);
	return json;
}

static const char *state_now(void)
{
	static char state[32];
	json_t *json = status();
	snprintf(state, sizeof state, "%s", json_string_value(json_object_get(json, "state")));
	json_decref(json);
	return state;
}

static const char *service_state(const char *service)
{
	static char state[32];
	json_t *json = status();
	json_t *s = json_object_get(json_object_get(json, "services"), service);
	snprintf(state, sizeof state, "%s", s ? json_string_value(json_object_get(s, "state")) : "unknown");
	json_decref(json);
	return state;
}

static void wait_state(const char *state)
{
	uint64_t until = now_monotonic_ms() + LIMIT_MS;
	while (strcmp(state_now(), state) && now_monotonic_ms() < until)
		run_for(5);
	assert_string_equal(state_now(), state);
}

static int port_of(const char *service)
{
	json_t *json = status();
	int port = (int)json_integer_value(
	    json_object_get(json_object_get(json_object_get(json, "resources"), service), "external_port"));
	json_decref(json);
	return port;
}

static int generation(void)
{
	json_t *json = status();
	int g = (int)json_integer_value(json_object_get(json, "generation"));
	json_decref(json);
	return g;
}

static bool env_has(const char *line)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	assert_int_equal(environment_env(env, &text, NULL), 0);
	size_t len = strlen(line);
	for (const char *at = buffer_str(&text); at && *at; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL)
		if (!strncmp(at, line, len) && (at[len] == '\n' || line[len - 1] == '='))
			return true;
	return false;
}

static bool errors_have(const char *text)
{
	cleanup_buffer struct buffer errors = BUFFER_INIT;
	environment_errors(env, &errors);
	return strstr(buffer_str(&errors), text);
}

static bool events_have(const char *text)
{
	char buf[65536];
	size_t n = environment_events_read(env, 0, buf, sizeof buf - 1);
	buf[n] = '\0';
	return strstr(buf, text);
}

static size_t leases(void)
{
	cleanup_buffer struct buffer ports = BUFFER_INIT;
	size_t lines = 0;
	environment_ports(env, &ports);
	for (const char *c = buffer_str(&ports); *c; c++)
		lines += *c == '\n';
	return lines;
}

#define ONE "services: {db: {image: 'example/db:1', ports: ['5432']}}\n"
#define TAIL "x-aether: {backend: memory, timeout: 10s}\n"
#define SHORT "x-aether: {backend: memory, timeout: 300ms}\n"

/* ---- readiness ---- */

static void a_demand_starts_waits_and_is_warm_afterwards(void **state)
{
	struct answer a;
	char line[64];
	compose(ONE TAIL);
	env_open();
	scripted_get("db")->start_ms = 20;
	assert_int_equal(demand(NULL, &a), 1);
	run_for(5);
	wait_answer(&a);
	assert_false(error_is_set(&a.error));
	assert_string_equal(state_now(), "ready");
	snprintf(line, sizeof line, "DB_PORT=%d", port_of("db"));
	assert_in_range(port_of("db"), PORT_RANGE_FIRST, PORT_RANGE_FIRST + PORT_RANGE_COUNT - 1);
	assert_true(env_has(line));
	assert_true(env_has("DB_HOST=127.0.0.1"));
	assert_true(env_has("AETHER_BACKEND=memory"));
	assert_int_equal(demand(NULL, &a), 0);
	assert_int_equal(demand("db", &a), 0);
	assert_int_equal(scripted_get("db")->starts, 1);
	assert_true(changed_mask & CHANGED_ENV && changed_mask & CHANGED_STATUS && changed_mask & CHANGED_EVENTS &&
	            changed_mask & CHANGED_SERVICES);
	assert_true(events_have("\"type\":\"demand\"") && events_have("\"command\":\"test\""));

	json_t *json = status();
	json_t *who = json_array_get(json_object_get(json, "requested_by"), 0);
	assert_int_equal(json_integer_value(json_object_get(who, "pid")), 1);
	assert_string_equal(json_string_value(json_object_get(json, "backend")), "memory");
	assert_int_equal(json_integer_value(json_object_get(json_object_get(json, "aetherfs"), "keeper_pid")), 77);
	json_decref(json);
}

static void ports_are_known_before_anything_is_started(void **state)
{
	compose("services: {db: {image: 'e/db', ports: ['5432']}, app: {build: ., ports: ['8080:80']}}\nx-aether: "
	        "{backend: memory, ports: {PORT: 3000}}\n");
	env_open();
	assert_int_equal(command("approve"), ERROR_NONE); /* what it builds */
	run_for(300);
	assert_true(port_of("db") > 0);
	assert_true(port_of("app") > 0);
	assert_int_equal(leases(), 3);
	assert_true(env_has("PORT="));
	assert_string_equal(state_now(), "absent");
	assert_int_equal(scripted_get("db")->starts, 0);
	assert_true(scripted_get("db")->prepares > 0);
}

static void demands_at_once_start_once(void **state)
{
	struct answer a, b, c;
	compose("services: {db: {image: 'e/db', ports: ['5432']}, cache: {image: 'e/cache', ports: ['6379']}}\n" TAIL);
	env_open();
	scripted_get("db")->start_ms = 200;
	assert_int_equal(demand(NULL, &a), 1);
	assert_int_equal(demand("cache", &b), 1);
	assert_int_equal(demand("db", &c), 1);
	wait_answer(&b);
	assert_int_equal(a.times, 0); /* cache does not wait for db */
	wait_answer(&a);
	wait_answer(&c);
	assert_int_equal(scripted_get("db")->starts, 1);
	assert_int_equal(scripted_get("cache")->starts, 1);
	assert_int_equal(demand("nope", &a), 1);
	wait_answer(&a);
	assert_int_equal(a.error.code, ERROR_SERVICE_UNKNOWN);
	error_release(&a.error);
}

static void independent_services_start_at_the_same_time(void **state)
{
	struct answer a;
	compose("services: {a: {image: 'e/a', ports: ['1000']}, b: {image: 'e/b', ports: ['1000']}, c: {image: 'e/c', "
	        "ports: ['1000']}}\n" TAIL);
	env_open();
	scripted_get("a")->start_ms = scripted_get("b")->start_ms = scripted_get("c")->start_ms = 150;
	run_for(200);
	assert_int_equal(demand(NULL, &a), 1);
	run_for(60);
	assert_int_equal(scripted_get("a")->starts + scripted_get("b")->starts + scripted_get("c")->starts, 3);
	wait_answer(&a);
}

static void dependencies_go_first_and_leave_last(void **state)
{
	compose("services:\n"
	        "  web: {image: 'e/web', ports: ['80'], depends_on: {db: {condition: service_healthy}, job: {condition: "
	        "service_completed_successfully}}}\n"
	        "  db: {image: 'e/db', ports: ['5432']}\n"
	        "  job: {image: 'e/job', depends_on: [db]}\n" TAIL);
	env_open();
	scripted_get("job")->exit_ms = 30;
	assert_int_equal(ask("web"), ERROR_NONE);
	assert_true(scripted_get("db")->order < scripted_get("job")->order);
	assert_true(scripted_get("job")->order < scripted_get("web")->order);
	assert_string_equal(service_state("job"), "completed");
	assert_string_equal(state_now(), "ready");
	assert_int_equal(command("down"), ERROR_NONE);
	assert_true(scripted_get("web")->order < scripted_get("db")->order);
	assert_string_equal(state_now(), "stopped");
}

static void the_default_set_leaves_out_what_is_built_and_profiles(void **state)
{
	compose("services:\n"
	        "  app: {build: ., ports: ['80'], depends_on: [db]}\n"
	        "  db: {image: 'e/db', ports: ['5432']}\n"
	        "  debug: {image: 'e/debug', profiles: [tools]}\n" TAIL);
	env_open();
	assert_int_equal(command("approve"), ERROR_NONE);
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(scripted_get("db")->starts, 1);
	assert_int_equal(scripted_get("app")->starts, 0);
	assert_int_equal(scripted_get("debug")->starts, 0);
	assert_int_equal(command("up --profile=tools"), ERROR_NONE);
	assert_int_equal(scripted_get("debug")->starts, 1);
	assert_int_equal(command("up --all"), ERROR_NONE);
	assert_int_equal(scripted_get("app")->starts, 1);
}

#define BUILT "services:\n  app: {build: ., ports: ['80']}\n  db: {image: 'e/db', ports: ['5432']}\n"

static void up_builds_before_it_stops_anything(void **state)
{
	compose(BUILT TAIL);
	env_open();
	struct scripted *app = scripted_get("app");
	assert_int_equal(command("approve"), ERROR_NONE);
	assert_int_equal(command("up"), ERROR_NONE);
	assert_int_equal(app->builds, 0);
	assert_int_equal(command("up app"), ERROR_NONE);
	assert_int_equal(app->builds, 1);
	assert_int_equal(app->build_when, BUILD_CHANGED);
	assert_int_equal(app->starts, 1);
	assert_int_equal(command("up app"), ERROR_NONE);
	assert_int_equal(app->stops, 0);
	app->build_differs = true;
	assert_int_equal(command("up --build app"), ERROR_NONE);
	assert_int_equal(app->build_when, BUILD_ALWAYS);
	assert_int_equal(app->stops, 1);
	assert_int_equal(app->starts, 2);
	app->build_error = ERROR_BUILD_FAILED;
	assert_int_equal(command("up --all"), ERROR_BUILD_FAILED);
	assert_int_equal(app->stops, 1);
	assert_string_equal(service_state("app"), "ready");
	assert_int_equal(command("restart app"), ERROR_NONE);
	assert_int_equal(app->builds, 4);
}

static void what_cannot_be_built_has_failed(void **state)
{
	compose(BUILT TAIL);
	env_open();
	struct scripted *app = scripted_get("app");
	assert_int_equal(command("approve"), ERROR_NONE);
	app->build_error = ERROR_BUILD_FAILED;
	assert_int_equal(command("up app"), ERROR_BUILD_FAILED);
	assert_string_equal(service_state("app"), "failed");
	assert_int_equal(command("up app"), ERROR_BUILD_FAILED);
	assert_string_equal(service_state("app"), "failed");
	app->build_error = ERROR_NONE;
	assert_int_equal(command("up app"), ERROR_NONE);
	assert_string_equal(service_state("app"), "ready");
}

static void what_runs_goes_on_until_another_image_is_there(void **state)
{
	compose("services: {db: {image: 'e/db', ports: ['5432']}}\n" TAIL);
	env_open();
	struct scripted *db = scripted_get("db");
	assert_int_equal(command("up"), ERROR_NONE);
	assert_int_equal(command("up"), ERROR_NONE);
	assert_int_equal(db->builds, 0);
	db->build_error = ERROR_IMAGE_NOT_FOUND;
	compose("services: {db: {image: 'e/other', ports: ['5432']}}\n" TAIL);
	assert_int_equal(command("up"), ERROR_IMAGE_NOT_FOUND);
	assert_int_equal(db->stops, 0);
	assert_string_equal(service_state("db"), "ready");
	assert_int_equal(ask(NULL), ERROR_NONE);
	db->build_error = ERROR_NONE;
	assert_int_equal(command("up"), ERROR_NONE);
	assert_int_equal(db->stops, 1);
	assert_int_equal(db->starts, 2);
}

static void what_is_built_for_nobody_ends(void **state)
{
	struct answer a = {0}, b = {0};
	compose(BUILT TAIL);
	env_open();
	struct scripted *app = scripted_get("app");
	assert_int_equal(command("approve"), ERROR_NONE);
	app->build_ms = LIMIT_MS * 2;
	environment_command(env, "up app", &me, on_answer, &a);
	environment_command(env, "up app", &me, on_answer, &b);
	while (app->builds < 2)
		run_for(5);
	environment_command_forsaken(env, &a);
	wait_answer(&a);
	assert_int_equal(a.error.code, ERROR_CANCELED);
	assert_int_equal(app->builds_canceled, 1);
	assert_int_equal(b.times, 0);
	assert_int_equal(command("down"), ERROR_NONE);
	wait_answer(&b);
	assert_int_equal(b.error.code, ERROR_CANCELED);
	error_release(&a.error);
	error_release(&b.error);
	a = (struct answer){0};
	environment_command(env, "up app", &me, on_answer, &a);
	while (app->builds < 3)
		run_for(5);
	assert_int_equal(command("destroy"), ERROR_NONE);
	wait_answer(&a);
	assert_int_equal(a.error.code, ERROR_CANCELED);
	error_release(&a.error);
	a = (struct answer){0};
	environment_command(env, "up app", &me, on_answer, &a);
	while (app->builds < 4)
		run_for(5);
	env_close(false);
	assert_int_equal(a.times, 1);
	assert_int_equal(app->starts, 0);
	error_release(&a.error);
	while (scripted_builds)
		run_for(5);
}

static void a_build_takes_the_time_it_takes(void **state)
{
	compose(BUILT "x-aether: {backend: memory, timeout: 300ms}\n");
	env_open();
	assert_int_equal(command("approve"), ERROR_NONE);
	scripted_get("app")->build_ms = 800;
	scripted_get("app")->start_ms = 200;
	assert_int_equal(command("up app"), ERROR_NONE);
}

static void what_is_cancelled_goes_on(void **state)
{
	struct answer a;
	compose(ONE TAIL);
	env_open();
	assert_int_equal(demand(NULL, &a), 1);
	demand_cancel(a.demand); /* before it was even looked at: O_NONBLOCK */
	wait_state("ready");
	assert_int_equal(a.times, 0);
	assert_int_equal(command("destroy"), ERROR_NONE);
	scripted_get("db")->start_ms = 100;
	assert_int_equal(demand(NULL, &a), 1);
	run_for(60);
	demand_cancel(a.demand);
	wait_state("ready");
	assert_int_equal(a.times, 0);
}

static void manual_start_serves_without_provisioning(void **state)
{
	compose(ONE "x-aether: {backend: memory, start: manual}\n");
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(scripted_get("db")->starts, 0);
	assert_true(env_has("DB_PORT="));
	assert_int_equal(command("up"), ERROR_NONE);
	assert_int_equal(scripted_get("db")->starts, 1);
}

static void an_environment_of_ports_alone_is_ready(void **state)
{
	compose("services: {}\nx-aether: {backend: memory, ports: {PORT: 3000}}\n");
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_true(env_has("PORT="));
	assert_string_equal(state_now(), "ready");
	struct answer a;
	assert_int_equal(demand(NULL, &a), 0);
}

/* ---- failures ---- */

static void a_failed_start_is_the_demands_error(void **state)
{
	compose(ONE TAIL);
	env_open();
	scripted_get("db")->start_error = ERROR_BACKEND_SPAWN_FAILED;
	assert_int_equal(ask(NULL), ERROR_BACKEND_SPAWN_FAILED);
	assert_string_equal(state_now(), "failed");
	assert_string_equal(service_state("db"), "failed");
	assert_true(errors_have("BACKEND_SPAWN_FAILED"));
	environment_errors_clear(env);
	assert_false(errors_have("BACKEND_SPAWN_FAILED"));
	scripted_get("db")->start_error = ERROR_NONE; /* the next demand is another try */
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_string_equal(state_now(), "ready");
}

static void what_needs_a_failed_one_fails_too(void **state)
{
	compose("services: {web: {image: 'e/web', depends_on: [db]}, db: {image: 'e/db', ports: ['5432']}}\n" TAIL);
	env_open();
	scripted_get("db")->start_error = ERROR_PROGRAM_NOT_FOUND;
	assert_int_equal(ask("web"), ERROR_PROGRAM_NOT_FOUND);
	assert_int_equal(scripted_get("web")->starts, 0);
}

static void never_ready_ends_in_time_with_the_log(void **state)
{
	struct answer a;
	compose(ONE SHORT);
	env_open();
	scripted_get("db")->deaf = true;
	scripted_get("db")->log = "hello\nI am thinking\n";
	uint64_t began = now_monotonic_ms();
	assert_int_equal(demand(NULL, &a), 1);
	wait_answer(&a);
	assert_int_equal(a.error.code, ERROR_NOT_READY);
	assert_int_equal(a.error.err, ETIMEDOUT);
	assert_in_range(a.at_ms - began, 250, 2000);
	assert_non_null(strstr(a.error.message, "db"));
	assert_non_null(strstr(a.error.message, "I am thinking"));
	run_for(5);
	assert_true(errors_have("I am thinking"));
	assert_string_equal(state_now(), "starting"); /* it goes on being tried */
	error_release(&a.error);
}

static void secrets_in_logs_are_masked(void **state)
{
	compose("services: {db: {image: 'e/db', ports: ['5432'], environment: {DB_PASSWORD: hunter2hunter2}}}\n" SHORT);
	env_open();
	scripted_get("db")->deaf = true;
	scripted_get("db")->log = "user admin, password hunter2hunter2\n";
	assert_int_equal(ask(NULL), ERROR_NOT_READY);
	assert_true(errors_have("user admin, password ***"));
	assert_false(errors_have("hunter2"));
	assert_false(events_have("hunter2"));
	json_t *json = status();
	char *text = json_dumps(json, 0);
	assert_null(strstr(text, "hunter2"));
	free(text);
	json_decref(json);
}

static void an_exit_during_the_start_fails_at_once(void **state)
{
	struct answer a;
	compose(ONE TAIL);
	env_open();
	scripted_get("db")->deaf = true;
	scripted_get("db")->exit_ms = 20;
	scripted_get("db")->exit_code = 3;
	scripted_get("db")->log = "no good\n";
	assert_int_equal(demand(NULL, &a), 1);
	wait_answer(&a);
	assert_int_equal(a.error.code, ERROR_SERVICE_FAILED);
	assert_non_null(strstr(a.error.message, "exit status 3"));
	assert_non_null(strstr(a.error.message, "no good"));
	error_release(&a.error);
	assert_int_equal(scripted_get("db")->starts, 1);
}

#define RESTARTS "services: {db: {image: 'e/db', ports: ['5432'], restart: always}}\n"

static void a_crash_loop_backs_off_and_is_given_up(void **state)
{
	struct answer a;
	compose(RESTARTS TAIL);
	env_open();
	scripted_get("db")->deaf = true;
	scripted_get("db")->exit_ms = 5;
	scripted_get("db")->exit_code = 1;
	uint64_t began = now_monotonic_ms();
	assert_int_equal(demand(NULL, &a), 1);
	wait_answer(&a);
	assert_int_equal(a.error.code, ERROR_SERVICE_FAILED);
	assert_true(a.at_ms - began >= 100 + 200 + 400 + 800 + 1600);
	assert_int_equal(scripted_get("db")->starts, 6);
	assert_string_equal(state_now(), "failed");
	error_release(&a.error);
}

static void a_crash_is_restarted_and_counted(void **state)
{
	compose(RESTARTS TAIL);
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	scripted_exit(scripted_get("db"), 137);
	run_for(20);
	assert_string_equal(service_state("db"), "restarting");
	assert_string_equal(state_now(), "degraded");
	assert_int_equal(ask(NULL), ERROR_NONE); /* parks until it is back */
	assert_int_equal(scripted_get("db")->starts, 2);
	json_t *json = status();
	assert_int_equal(
	    json_integer_value(json_object_get(json_object_get(json_object_get(json, "services"), "db"), "restarts")), 1);
	json_decref(json);
}

static void what_others_have_stopped_stays_so(void **state)
{
	compose("services: {db: {image: 'e/db', ports: ['5432'], restart: always}, w: {image: 'e/w', ports: ['1']}}\n" TAIL);
	env_open();
	assert_int_equal(command("approve"), ERROR_NONE);
	assert_int_equal(ask(NULL), ERROR_NONE);
	scripted_get("db")->dismissed = true;
	scripted_exit(scripted_get("db"), 143);
	run_for(300);
	assert_string_equal(service_state("db"), "stopped");
	assert_string_equal(state_now(), "degraded");
	assert_int_equal(scripted_get("db")->starts, 1);
	scripted_get("w")->dismissed = true;
	scripted_exit(scripted_get("w"), 137);
	run_for(50);
	assert_string_equal(service_state("w"), "stopped"); /* which is no failure, whatever its exit status */
	assert_string_equal(state_now(), "stopped");
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(scripted_get("db")->starts, 2);
	assert_string_equal(state_now(), "ready");
	scripted_exit(scripted_get("db"), 137); /* that is its own */
	run_for(20);
	assert_string_equal(service_state("db"), "restarting");
	scripted_get("db")->dismissed = true; /* which is heard of while it waits for its next start */
	scripted_exit(scripted_get("db"), 137);
	run_for(300);
	assert_string_equal(service_state("db"), "stopped");
	assert_int_equal(scripted_get("db")->starts, 2);
}

static void without_a_policy_the_next_demand_revives(void **state)
{
	compose(ONE TAIL);
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	scripted_exit(scripted_get("db"), 1);
	run_for(300);
	assert_string_equal(state_now(), "failed");
	assert_int_equal(scripted_get("db")->starts, 1);
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(scripted_get("db")->starts, 2);
}

/* Right after a kill, when the end has not been told yet. */
static void what_is_gone_is_not_ready(void **state)
{
	struct answer a;
	compose(ONE TAIL);
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	run_for(50); /* its pid is known */
	scripted_get("db")->gone = true;
	assert_int_equal(demand(NULL, &a), 1);
	run_for(50);
	assert_int_equal(a.times, 0);
	assert_string_equal(service_state("db"), "restarting");
	scripted_get("db")->gone = false;
	scripted_exit(scripted_get("db"), 137);
	wait_answer(&a);
	assert_int_equal(a.error.code, ERROR_NONE);
	assert_int_equal(scripted_get("db")->starts, 2);
}

static void unsupported_is_a_warning_unless_it_is_named(void **state)
{
	compose("services: {odd: {image: 'e/odd', ports: ['1']}, db: {image: 'e/db', ports: ['5432'], depends_on: "
	        "[odd]}}\n" TAIL);
	env_open();
	scripted_get("odd")->unsupported = true;
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_string_equal(service_state("odd"), "unsupported");
	assert_int_equal(scripted_get("odd")->starts, 0);
	json_t *json = status();
	char *warnings = json_dumps(json_object_get(json, "warnings"), 0);
	assert_non_null(strstr(warnings, "cannot run here"));
	free(warnings);
	json_decref(json);
	assert_int_equal(ask("odd"), ERROR_IMAGE_NOT_FOUND);
	assert_int_equal(ask("db"), ERROR_IMAGE_NOT_FOUND); /* named, and it needs odd */
	assert_int_equal(ask(NULL), ERROR_NONE);
}

#define ODD_AND_DB                                                                                                     \
	"services:\n"                                                                                                      \
	"  odd: {image: 'e/odd', ports: ['1']}\n"                                                                          \
	"  db: {image: 'e/db', ports: ['5432'], depends_on: {odd: {condition: service_healthy}}}\n"                        \
	"  other: {image: 'e/other', ports: ['2'], depends_on: {odd: {condition: service_started, required: false}}}\n"

static void what_the_configuration_names_must_run(void **state)
{
	compose(ODD_AND_DB "x-aether: {backend: memory, services: [db]}\n");
	env_open();
	scripted_get("odd")->unsupported = true;
	assert_int_equal(ask(NULL), ERROR_IMAGE_NOT_FOUND); /* db needs it */
	assert_int_equal(command("up other"), ERROR_NONE);  /* it does without */
	assert_int_equal(command("up db"), ERROR_IMAGE_NOT_FOUND);
	assert_int_equal(scripted_get("db")->starts, 0);
}

static void what_nobody_named_holds_nobody_back(void **state)
{
	compose(ODD_AND_DB TAIL);
	env_open();
	scripted_get("odd")->unsupported = true;
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(command("up --all"), ERROR_NONE);
	assert_int_equal(scripted_get("db")->starts, 1);
	assert_int_equal(scripted_get("other")->starts, 1);
	assert_int_equal(command("up odd"), ERROR_IMAGE_NOT_FOUND);
}

static void a_port_of_a_foreigner_is_replaced(void **state)
{
	compose(ONE TAIL);
	env_open();
	run_for(200);
	int port = port_of("db"), on = 1;
	struct sockaddr_in a = {
	    .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	cleanup_close int foreigner = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(foreigner, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	assert_int_equal(bind(foreigner, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(foreigner, 1), 0);
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_true(port_of("db") != port);
	assert_true(events_have("port_replaced"));
}

/* ---- configuration ---- */

static void without_a_configuration_a_demand_says_so(void **state)
{
	env_open();
	assert_int_equal(ask(NULL), ERROR_CONFIG_NOT_FOUND);
	assert_true(errors_have("CONFIG_NOT_FOUND"));
	compose("services: {db: {image: [}\n");
	assert_int_equal(ask(NULL), ERROR_CONFIG_INVALID);
	assert_string_equal(state_now(), "failed");
	compose(ONE TAIL); /* mended: at once, without a command */
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_string_equal(state_now(), "ready");
}

static void an_unknown_backend_is_named(void **state)
{
	struct answer a;
	compose("services: {db: {image: 'e/db'}}\nx-aether: {backend: hovercraft}\n");
	env_open();
	assert_int_equal(demand(NULL, &a), 1);
	wait_answer(&a);
	assert_int_equal(a.error.code, ERROR_CONFIG_INVALID);
	assert_non_null(strstr(a.error.message, "hovercraft"));
	assert_non_null(strstr(a.error.hint, "memory"));
	error_release(&a.error);
}

#define TWO(password)                                                                                                  \
	"services: {db: {image: 'e/db', ports: ['5432'], environment: {P: " password                                       \
	"}}, cache: {image: 'e/c', ports: ['6379']}}\n" TAIL

static void a_changed_configuration_is_said_and_applied_by_up_alone(void **state)
{
	compose(TWO("one"));
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	int port = port_of("db");
	compose(TWO("two"));
	uint64_t until = now_monotonic_ms() + LIMIT_MS;
	json_t *json = status();
	while (!json_is_true(json_object_get(json, "config_changed")) && now_monotonic_ms() < until) {
		json_decref(json);
		run_for(20);
		json = status();
	}
	assert_true(json_is_true(json_object_get(json, "config_changed")));
	assert_true(json_array_size(json_object_get(json, "warnings")) > 0);
	json_decref(json);
	assert_true(events_have("config_changed"));
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(scripted_get("db")->starts, 1);

	assert_int_equal(command("up"), ERROR_NONE);
	assert_int_equal(scripted_get("db")->starts, 2);
	assert_int_equal(scripted_get("db")->removes, 1);
	assert_int_equal(scripted_get("cache")->starts, 1); /* what did not change runs on */
	assert_int_equal(port_of("db"), port);
	json = status();
	assert_true(json_is_false(json_object_get(json, "config_changed")));
	json_decref(json);

	compose("services: {db: {image: 'e/db', ports: ['5432'], environment: {P: two}}}\n" TAIL); /* cache is gone */
	assert_int_equal(command("up"), ERROR_NONE);
	run_for(50);
	assert_false(scripted_get("cache")->running);
	assert_int_equal(scripted_get("db")->starts, 2);
	assert_false(environment_has_service(env, "cache"));
}

/* It is taken out and comes back while it still ends: neither is it ready, nor does it go. */
static void what_still_stops_is_waited_for(void **state)
{
	struct answer out = {0};
	compose(TWO("one"));
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	scripted_get("cache")->stop_ms = 300;
	compose("services: {db: {image: 'e/db', ports: ['5432'], environment: {P: one}}}\n" TAIL);
	assert_int_equal(command("up"), ERROR_NONE);
	assert_int_equal(scripted_get("cache")->stops, 1);
	assert_true(scripted_get("cache")->running);
	compose(TWO("one"));
	assert_int_equal(command("up"), ERROR_NONE);
	assert_string_equal(service_state("cache"), "ready");
	assert_int_equal(scripted_get("cache")->starts, 2);
	assert_true(scripted_get("cache")->running);

	environment_command(env, "stop cache", &me, on_answer, &out); /* the same by hand, and a read */
	run_for(50);
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_string_equal(service_state("cache"), "ready");
	assert_int_equal(scripted_get("cache")->starts, 3);
	error_release(&out.error);
}

static void what_stands_still_begins_with_the_new_configuration(void **state)
{
	compose(TWO("one"));
	env_open();
	assert_int_equal(ask("db"), ERROR_NONE);
	compose(ONE TAIL);
	assert_int_equal(ask("db"), ERROR_NONE);
	run_for(1200); /* noticed while db runs */
	assert_int_equal(scripted_get("db")->starts, 1);
	assert_int_equal(command("down"), ERROR_NONE);
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_false(environment_has_service(env, "cache"));
	assert_int_equal(scripted_get("cache")->starts, 0);
}

static void a_broken_change_lets_what_runs_run(void **state)
{
	compose(ONE TAIL);
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	compose("services: [\n");
	assert_int_equal(command("up"), ERROR_CONFIG_INVALID);
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_true(scripted_get("db")->running);
	assert_int_equal(command("reload"), ERROR_CONFIG_INVALID);
}

static uint16_t free_port(int *ret_fd)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof a;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(bind(fd, (struct sockaddr *)&a, size) == 0 && listen(fd, 1) == 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &size), 0);
	*ret_fd = fd;
	return ntohs(a.sin_port);
}

static bool warns_of(const char *text)
{
	json_t *json = status();
	char *warnings = json_dumps(json_object_get(json, "warnings"), JSON_ENCODE_ANY);
	bool found = strstr(warnings, text);
	free(warnings);
	json_decref(json);
	return found;
}

static void a_published_number_that_is_added_later_is_taken_by_up(void **state)
{
	char text[256], kept[64];
	int fd;
	uint16_t wanted = free_port(&fd);
	compose(ONE TAIL);
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	int port = port_of("db");
	snprintf(text, sizeof text, "services: {db: {image: 'example/db:1', ports: ['%u:5432']}}\n" TAIL, wanted);
	snprintf(kept, sizeof kept, "db: has port %d, not %u: test_environmen (pid", port, wanted);
	compose(text);
	assert_int_equal(command("up"), ERROR_NONE);
	assert_int_equal(port_of("db"), port); /* somebody listens there: kept, and said */
	assert_true(warns_of(kept));
	assert_int_equal(scripted_get("db")->starts, 1);
	close(fd);
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(port_of("db"), port); /* a read moves nothing */
	assert_int_equal(command("up"), ERROR_NONE);
	assert_int_equal(port_of("db"), wanted);
	assert_int_equal(scripted_get("db")->starts, 2);
	assert_false(warns_of("db: has port"));
	snprintf(text, sizeof text, "DB_PORT=%u", wanted);
	assert_true(env_has(text));
}

static void a_changed_env_file_is_a_changed_configuration(void **state)
{
	compose("services: {db: {image: 'e/db', ports: ['5432'], env_file: ./db.env}}\n" TAIL);
	assert_int_equal(file_write_atomic(root_fd, "db.env", "A=1\n", 4, 0644), 0);
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	run_for(2500); /* the clock has looked, too */
	assert_false(warns_of("has changed"));
	assert_int_equal(file_write_atomic(root_fd, "db.env", "A=2\n", 4, 0644), 0);
	uint64_t until = now_monotonic_ms() + LIMIT_MS;
	while (!warns_of("has changed") && now_monotonic_ms() < until)
		run_for(20);
	assert_true(warns_of("has changed"));
	assert_int_equal(command("up"), ERROR_NONE);
	assert_int_equal(scripted_get("db")->starts, 2);
	assert_false(warns_of("has changed"));
}

static void put_data(const char *relative)
{
	cleanup_free char *path = xasprintf("%s/data/1/%s/file", id.state_dir, relative);
	cleanup_free char *parent = xstrndup(path, strlen(path) - strlen("/file"));
	assert_int_equal(dir_make(AT_FDCWD, parent, 0700), 0);
	assert_int_equal(file_write_atomic(AT_FDCWD, path, relative, strlen(relative), 0600), 0);
}

static bool has_data(const char *relative)
{
	cleanup_free char *path = xasprintf("%s/data/1/%s/file", id.state_dir, relative);
	return access(path, F_OK) == 0;
}

/* Removing one service is a teardown as any other: fresh afterwards, and the old data in the trash. */
static void a_removed_services_data_goes_to_the_trash(void **state)
{
	struct answer a;
	struct store *s;
	struct trash_entry *entries;
	size_t count;
	compose("services:\n"
	        "  db: {image: 'e/db', ports: ['5432'], volumes: ['own:/a', 'both:/b', '/c']}\n"
	        "  cache: {image: 'e/c', ports: ['6379'], volumes: ['both:/b']}\n"
	        "volumes: {own: , both: }\n" TAIL);
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	put_data("db");
	put_data("cache");
	put_data("+volumes/own");
	put_data("+volumes/both");
	put_data("+volumes/db.c");
	assert_int_equal(environment_service_remove(env, "db", &me, NULL), 0);
	assert_int_equal(demand("db", &a), 1); /* at once: it waits for what goes, and is fresh */
	wait_answer(&a);
	assert_int_equal(a.error.code, ERROR_NONE);
	assert_int_equal(scripted_get("db")->starts, 2);
	assert_int_equal(scripted_get("cache")->starts, 1);
	assert_false(has_data("db") || has_data("+volumes/own") || has_data("+volumes/db.c"));
	assert_true(has_data("cache") && has_data("+volumes/both"));
	env_close(true);
	assert_int_equal(store_open(id.shared_dir, &s, NULL), 0);
	assert_int_equal(store_trash_list(s, id.namespace_, &entries, &count, NULL), 0);
	assert_int_equal(count, 1);
	assert_string_equal(entries[0].services[0], "db");
	static const char *const kept[] = {"db", "+volumes/own", "+volumes/db.c"};
	for (size_t i = 0; i < 3; i++) {
		cleanup_free char *path = xasprintf("%s/data/%s/file", entries[0].path, kept[i]);
		assert_int_equal(access(path, F_OK), 0);
	}
	trash_entries_free(entries, count);
	store_close(s);
}

/* Once: what is half made again is told. */
static void half_made_data_goes_to_the_trash(void **state)
{
	compose("services: {db: {image: 'e/db', ports: ['5432']}}\n" TAIL);
	env_open();
	put_data("db");
	scripted_get("db")->unfinished = 1;
	assert_int_equal(ask("db"), ERROR_NONE);
	assert_int_equal(scripted_get("db")->starts, 2);
	assert_false(has_data("db"));
	assert_true(events_have("\"type\":\"discarded\",\"service\":\"db\",\"reason\""));
	assert_int_equal(command("down"), ERROR_NONE);
	scripted_get("db")->unfinished = 1000;
	assert_int_equal(ask("db"), ERROR_DATA_UNFINISHED);
	assert_int_equal(scripted_get("db")->starts, 4);
	scripted_get("db")->unfinished = 1;
	assert_int_equal(ask("db"), ERROR_NONE);
}

/* The start is under way for `ms`. */
static void ask_on_half_made_data(struct answer *a, unsigned ms)
{
	compose("services: {db: {image: 'e/db', ports: ['5432']}}\n" TAIL);
	env_open();
	put_data("db");
	scripted_get("db")->unfinished = 1;
	scripted_get("db")->start_ms = 100;
	assert_int_equal(demand("db", a), 1);
	run_for(ms);
}

/* It was said while the service was being stopped: the next start has new data, and nobody waits for it. */
static void half_made_data_of_who_is_wanted_no_more(void **state)
{
	struct answer a;
	ask_on_half_made_data(&a, 50);
	assert_int_equal(command("stop db"), ERROR_NONE);
	assert_int_equal(command("settle"), ERROR_NONE);
	assert_true(has_data("db"));
	error_release(&a.error);
	assert_int_equal(ask("db"), ERROR_NONE);
	assert_false(has_data("db"));
	assert_int_equal(scripted_get("db")->starts, 2);
}

static void half_made_data_of_another_configuration(void **state)
{
	struct answer a;
	ask_on_half_made_data(&a, 30);
	compose("services: {db: {image: 'e/db', ports: ['5432'], environment: {A: b}}}\n" TAIL);
	assert_int_equal(command("up"), ERROR_NONE);
	assert_false(has_data("db"));
	assert_int_equal(a.times, 1);
	error_release(&a.error);
}

static void what_was_ready_or_has_completed_is_settled(void **state)
{
	compose("services:\n"
	        "  db: {image: 'e/db', ports: ['5432'], depends_on: {job: {condition: service_completed_successfully}}}\n"
	        "  job: {image: 'e/job'}\n" TAIL);
	env_open();
	scripted_get("job")->check = "never";
	scripted_get("job")->sick = true;
	scripted_get("job")->exit_ms = 30;
	assert_int_equal(ask("db"), ERROR_NONE);
	assert_int_equal(scripted_get("db")->settled, 1);
	assert_int_equal(scripted_get("job")->settled, 1);
}

static bool has_health(const char *service, const char *health)
{
	json_t *json = status();
	json_t *s = json_object_get(json_object_get(json, "services"), service);
	bool is = !strcmp(json_string_value(json_object_get(s, "health")), health);
	json_decref(json);
	return is;
}

static void a_healthcheck_goes_on_being_asked(void **state)
{
	compose("services: {db: {image: 'e/db', ports: ['5432'], healthcheck: {test: 'ok', interval: 20ms, retries: 2}}}\n" TAIL);
	env_open();
	assert_int_equal(command("approve"), ERROR_NONE);
	assert_int_equal(ask(NULL), ERROR_NONE);
	run_for(200);
	assert_true(has_health("db", "healthy"));
	scripted_get("db")->sick = true;
	changed_mask = 0;
	run_for(300);
	assert_true(has_health("db", "unhealthy"));
	assert_true(changed_mask & CHANGED_STATUS);
	assert_string_equal(service_state("db"), "ready"); /* as with Compose: said, and nothing done */
	assert_string_equal(state_now(), "degraded");
	scripted_get("db")->sick = false;
	run_for(300);
	assert_true(has_health("db", "healthy"));
	assert_string_equal(state_now(), "ready");
	assert_int_equal(command("down"), ERROR_NONE);
}

/* Before it was ever ready: as docker says. */
static void what_is_unhealthy_has_failed_until_it_is_not(void **state)
{
	compose("services: {db: {image: 'e/db', ports: ['5432'], healthcheck: {test: 'ok', interval: 30ms, retries: 3, start_period: 100ms}},\n"
	        " needs: {image: 'e/n', ports: ['1'], depends_on: {db: {condition: service_healthy}}}, beside: {image: 'e/b', ports: ['2'], depends_on: [db]}}\n" TAIL);
	env_open();
	assert_int_equal(command("approve"), ERROR_NONE);
	scripted_get("db")->sick = true;
	uint64_t began = now_monotonic_ms();
	assert_int_equal(ask(NULL), ERROR_SERVICE_FAILED);
	assert_true(now_monotonic_ms() - began >= 160);
	run_for(100);
	assert_string_equal(service_state("db"), "failed");
	assert_true(has_health("db", "unhealthy"));
	assert_string_equal(service_state("needs"), "failed");
	assert_string_equal(service_state("beside"), "ready");
	assert_int_equal(scripted_get("needs")->starts, 0);
	assert_true(scripted_get("db")->running);
	unsigned execs = scripted_get("db")->execs;
	assert_int_equal(ask("db"), ERROR_SERVICE_FAILED); /* it is looked at once more */
	assert_true(scripted_get("db")->execs > execs);
	scripted_get("db")->sick = false;
	run_for(300);
	assert_string_equal(service_state("db"), "ready");
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(scripted_get("db")->starts, 1);
	assert_string_equal(state_now(), "ready");
	scripted_get("db")->sick = true;
	assert_int_equal(command("restart db"), ERROR_SERVICE_FAILED);
	assert_int_equal(command("down"), ERROR_NONE);
	assert_false(scripted_get("db")->running);
}

static void what_is_unplugged_is_made_anew_by_a_demand(void **state)
{
	compose("services: {db: {image: 'e/db', ports: ['5432']}}\n" TAIL);
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	scripted_unplug(scripted_get("db"), true);
	run_for(50);
	assert_true(has_health("db", "unplugged"));
	assert_string_equal(state_now(), "degraded");
	scripted_unplug(scripted_get("db"), false);
	run_for(50);
	assert_true(has_health("db", "healthy"));
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(scripted_get("db")->starts, 1);
	scripted_unplug(scripted_get("db"), true);
	run_for(50);
	assert_int_equal(scripted_get("db")->starts, 1);
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(scripted_get("db")->removes, 1);
	assert_int_equal(scripted_get("db")->starts, 2);
	assert_true(has_health("db", "healthy"));
	assert_string_equal(state_now(), "ready");
}

/* Beside our own probe, where the file has no check of its own. */
static void an_images_check_counts(void **state)
{
	compose("services: {db: {image: 'e/db', ports: ['5432']}, job: {image: 'e/job'}}\n" TAIL);
	env_open();
	assert_int_equal(command("approve"), ERROR_NONE);
	scripted_get("db")->check = scripted_get("job")->check = "check";
	scripted_get("db")->sick = true;
	assert_int_equal(ask("db"), ERROR_SERVICE_FAILED);
	assert_string_equal(service_state("db"), "failed");
	scripted_get("db")->sick = false;
	run_for(1200);
	assert_string_equal(service_state("db"), "ready");
	assert_true(has_health("db", "healthy"));
	assert_int_equal(ask("job"), ERROR_NONE);
	assert_true(scripted_get("job")->execs > 0);
	scripted_get("db")->sick = true;
	run_for(200);
	assert_true(has_health("db", "unhealthy"));
	assert_string_equal(state_now(), "degraded");
	assert_int_equal(command("down"), ERROR_NONE);
}

static void an_images_check_is_overridden(void **state)
{
	compose("services: {off: {image: 'e/db', healthcheck: {disable: true}}, none: {image: 'e/db', healthcheck: {test: [NONE]}},\n"
	        " own: {image: 'e/db', ports: ['5432'], x-aether: {ready: {tcp: 5432}}}}\n" TAIL);
	env_open();
	assert_int_equal(command("approve"), ERROR_NONE);
	static const char *const names[] = {"off", "none", "own"};
	for (size_t i = 0; i < 3; i++) {
		scripted_get(names[i])->check = "check";
		scripted_get(names[i])->sick = true;
	}
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(scripted_get("off")->execs + scripted_get("none")->execs, 0);
	run_for(200);
	assert_int_equal(scripted_get("off")->execs + scripted_get("none")->execs, 0);
	assert_true(has_health("own", "unhealthy")); /* it is ready as the file says, and asked afterwards */
	assert_int_equal(command("down"), ERROR_NONE);
}

/* Services are made and mended by people who look at a read's error: no command is needed in between. */
static void a_mended_configuration_mends_what_failed(void **state)
{
	compose(TWO("one"));
	env_open();
	scripted_get("db")->deaf = true;
	scripted_get("db")->exit_ms = 5;
	scripted_get("db")->exit_code = 1;
	assert_int_equal(ask(NULL), ERROR_SERVICE_FAILED);
	assert_int_equal(ask("cache"), ERROR_NONE);
	scripted_get("db")->deaf = false;
	scripted_get("db")->exit_ms = 0;
	char hash[32];
	snprintf(hash, sizeof hash, "%s", scripted_get("db")->hash);
	compose(TWO("two"));
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_string_not_equal(scripted_get("db")->hash, hash);
	assert_int_equal(scripted_get("cache")->starts, 1);
	run_for(1200);
	json_t *json = status();
	assert_true(json_is_false(json_object_get(json, "config_changed")));
	json_decref(json);
}

static void a_mended_configuration_mends_what_was_never_ready(void **state)
{
	compose("services: {db: {image: 'e/db', ports: ['5432'], environment: {P: one}}}\n" SHORT);
	env_open();
	scripted_get("db")->deaf = true;
	assert_int_equal(ask(NULL), ERROR_NOT_READY);
	scripted_get("db")->deaf = false;
	compose("services: {db: {image: 'e/db', ports: ['5432'], environment: {P: two}}}\n" SHORT);
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(scripted_get("db")->starts, 2);
	assert_int_equal(scripted_get("db")->stops, 1);
}

/* What is in use is not restarted by a read; its error says what would. */
static void a_mended_configuration_disturbs_nobody(void **state)
{
	struct answer a;
	compose(TWO("one"));
	env_open();
	assert_int_equal(ask("db"), ERROR_NONE);
	scripted_get("cache")->deaf = true;
	scripted_get("cache")->exit_ms = 5;
	scripted_get("cache")->exit_code = 1;
	assert_int_equal(ask(NULL), ERROR_SERVICE_FAILED);
	compose(TWO("two"));
	assert_int_equal(demand(NULL, &a), 1);
	wait_answer(&a);
	assert_int_equal(a.error.code, ERROR_SERVICE_FAILED);
	assert_non_null(strstr(a.error.hint, "ajj up"));
	error_release(&a.error);
	assert_int_equal(scripted_get("db")->starts, 1);
}

static void what_was_not_approved_does_not_run(void **state)
{
	struct answer a;
	compose("services: {w: {x-aether: {command: [./w], ready: {tcp: 4000}}, ports: ['4000']}}\n" TAIL);
	env_open();
	assert_int_equal(demand(NULL, &a), 1);
	wait_answer(&a);
	assert_int_equal(a.error.code, ERROR_CONFIG_UNTRUSTED);
	assert_int_equal(a.error.err, EACCES);
	assert_non_null(strstr(a.error.hint, "ajj trust"));
	error_release(&a.error);
	assert_int_equal(command("approve"), ERROR_NONE);
	assert_int_equal(ask(NULL), ERROR_NONE);
}

static char *trust_value(const char *key)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	environment_trust(env, &text);
	json_t *json = json_loads(buffer_str(&text), 0, NULL);
	json_t *value = json_object_get(json, key);
	char *out = json_is_string(value) ? xstrdup(json_string_value(value)) : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
	json_decref(json);
	return out;
}

static bool trust_is(const char *key, const char *expected)
{
	cleanup_free char *value = trust_value(key);
	if (strcmp(value, expected))
		print_message("%s: %s, not %s\n", key, value, expected);
	return !strcmp(value, expected);
}

static void what_is_approved_is_what_was_shown(void **state)
{
	compose("services: {w: {x-aether: {command: [./w]}}}\n" TAIL);
	env_open();
	assert_int_equal(command("reload"), ERROR_NONE);
	cleanup_free char *hash = trust_value("hash"), *line = xasprintf("approve %s", hash);
	assert_true(trust_is("changes", "[{\"field\":\"services.w.x-aether.command\",\"before\":null,\"now\":\"[\\\"./w\\\"]\"}]"));
	compose("services: {w: {x-aether: {command: [./evil]}}}\n" TAIL);
	assert_int_equal(command(line), ERROR_CONFIG_UNTRUSTED);
	assert_int_equal(ask(NULL), ERROR_CONFIG_UNTRUSTED);
	assert_int_equal(scripted_get("w")->starts, 0);
	compose("services: {w: {x-aether: {command: [./w]}}}\n" TAIL);
	assert_int_equal(command(line), ERROR_NONE);
	assert_true(trust_is("approved", "true"));
	assert_int_equal(ask(NULL), ERROR_NONE);
}

/* What runs goes on by the approved one; nothing is started by the other, not even by itself; the old text is approved still. */
static void an_unapproved_change_starts_nothing(void **state)
{
	compose("services: {w: {restart: always, x-aether: {command: [./w]}}}\n" TAIL);
	env_open();
	assert_int_equal(command("approve"), ERROR_NONE);
	assert_int_equal(ask(NULL), ERROR_NONE);
	compose("services: {w: {restart: always, x-aether: {command: [./evil]}}}\n" TAIL);
	assert_int_equal(ask(NULL), ERROR_CONFIG_UNTRUSTED);
	assert_int_equal(ask(NULL), ERROR_CONFIG_UNTRUSTED); /* nor is it warm the second time */
	assert_int_equal(command("up"), ERROR_CONFIG_UNTRUSTED);
	assert_string_equal(service_state("w"), "ready");
	assert_true(trust_is("changes", "[{\"field\":\"services.w.x-aether.command\",\"before\":\"[\\\"./w\\\"]\",\"now\":\"[\\\"./evil\\\"]\"}]"));

	/* a new server knows the new file alone */
	env_close(false);
	env_open();
	run_for(300);
	scripted_exit(scripted_get("w"), 1);
	run_for(500);
	assert_int_equal(scripted_get("w")->starts, 1);
	assert_int_equal(ask(NULL), ERROR_CONFIG_UNTRUSTED);
	compose("services: {w: {restart: always, x-aether: {command: [./w]}}}\n" TAIL);
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(scripted_get("w")->starts, 2);
}

static void what_is_revoked_is_asked_of_the_store(void **state)
{
	compose("services: {w: {x-aether: {command: [./w]}}}\n" TAIL);
	env_open();
	assert_int_equal(command("approve"), ERROR_NONE);
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(command("down"), ERROR_NONE);
	struct store *s = NULL;
	assert_int_equal(store_open(id.shared_dir, &s, NULL), 0);
	assert_true(store_revoke(s, id.repository, NULL) > 0); /* as another workspace's ajj does */
	store_close(s);
	assert_int_equal(ask(NULL), ERROR_CONFIG_UNTRUSTED);
	assert_int_equal(command("approve"), ERROR_NONE);
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(command("revoke"), ERROR_NONE);
	assert_int_equal(ask(NULL), ERROR_CONFIG_UNTRUSTED);
}

/* ---- another name for .env ---- */

static void on_env_named(void *arg, const char *name)
{
	id.env_name = name;
}

static void a_tracked_file_is_a_layer_beneath(void **state)
{
	static const char tracked[] = "A=1\nB=1\n", own[] = "B=2";
	cleanup_error struct error err = ERROR_INIT;
	compose(ONE TAIL);
	assert_int_equal(file_write_atomic(root_fd, ".env", tracked, sizeof tracked - 1, 0644), 0);
	env_open();
	assert_int_equal(command("reload"), ERROR_NONE);
	assert_true(env_has("B=1"));
	assert_int_equal(env_name_write(id.shared_dir, id.repository, ".env.local", "", NULL, &err), 0);
	assert_int_equal(command("reload"), ERROR_NONE);
	run_for(50);
	assert_string_equal(id.env_name, ".env.local");
	assert_true(env_has("A=1"));
	assert_int_equal(environment_write_env(env, own, sizeof own - 1, &err), 0);
	assert_true(env_has("A=1"));
	assert_true(env_has("B=2"));
	assert_false(env_has("B=1"));
	/* a teardown takes the user's lines, and not what is tracked */
	assert_int_equal(faccessat(root_fd, ".env.local", F_OK, 0), 0);
	assert_int_equal(command("destroy"), ERROR_NONE);
	assert_int_equal(faccessat(root_fd, ".env.local", F_OK, 0), -1);
	assert_int_equal(faccessat(root_fd, ".env", F_OK, 0), 0);
	assert_int_equal(env_name_write(id.shared_dir, id.repository, ".env", "", NULL, &err), 0);
	assert_int_equal(command("reload"), ERROR_NONE);
	run_for(50);
	assert_string_equal(id.env_name, ".env");
}

/* ---- the end of it ---- */

static void destroying_leaves_nothing_and_the_next_is_fresh(void **state)
{
	compose(ONE TAIL);
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	int old = generation();
	cleanup_free char *data = xasprintf("%s/data/%d", id.state_dir, old);
	assert_int_equal(access(data, F_OK), 0);
	assert_int_equal(command("destroy"), ERROR_NONE);
	assert_false(scripted_get("db")->made);
	assert_string_equal(state_now(), "absent");
	assert_int_equal(leases(), 0);
	assert_true(access(data, F_OK) < 0);
	assert_true(environment_has_service(env, "db")); /* stays listed */
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(generation(), old + 1);
	assert_int_equal(scripted_get("db")->starts, 2);
	assert_int_equal(command("destroy"), ERROR_NONE);
	assert_int_equal(command("destroy"), ERROR_NONE); /* again is success */
}

static void a_demand_during_a_teardown_waits_and_starts_afresh(void **state)
{
	struct answer a, before;
	compose(ONE TAIL);
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	int old = generation();
	scripted_get("db")->stop_ms = 150;
	environment_unlinked(env, &me, 0);
	assert_string_equal(state_now(), "stopping");
	run_for(30);
	assert_string_equal(state_now(), "stopping");
	assert_int_equal(demand(NULL, &a), 1);
	run_for(30);
	assert_int_equal(a.times, 0);
	wait_answer(&a);
	assert_false(error_is_set(&a.error));
	assert_int_equal(generation(), old + 1);
	assert_int_equal(scripted_get("db")->starts, 2);

	/* two demands and a destroy: who asked before hears that it is gone, and nothing is left */
	assert_int_equal(command("destroy"), ERROR_NONE);
	scripted_get("db")->start_ms = 100;
	assert_int_equal(demand(NULL, &a), 1);
	assert_int_equal(demand("db", &before), 1);
	run_for(50);
	assert_int_equal(command("destroy"), ERROR_NONE);
	wait_answer(&a);
	wait_answer(&before);
	assert_int_equal(a.error.code, ERROR_CANCELED);
	assert_int_equal(before.error.code, ERROR_CANCELED);
	assert_int_equal(a.times + before.times, 2);
	assert_false(scripted_get("db")->made);
	error_release(&a.error);
	error_release(&before.error);
}

static void an_unlink_waits_its_time_or_for_somebody_elses_demand(void **state)
{
	struct answer a;
	compose(ONE TAIL);
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);

	environment_unlinked(env, &me, 200);
	run_for(50);
	assert_string_equal(state_now(), "stopping"); /* for all to see */
	assert_int_equal(scripted_get("db")->stops, 0);
	environment_replaced(env, other.pid); /* not who unlinked */
	run_for(5);
	assert_string_equal(state_now(), "stopping");
	environment_replaced(env, me.pid);
	run_for(250);
	assert_string_equal(state_now(), "ready");
	assert_int_equal(scripted_get("db")->stops, 0);

	environment_unlinked(env, &me, 200);
	run_for(400);
	wait_state("absent");
	assert_false(scripted_get("db")->made);
	environment_replaced(env, me.pid); /* too late: nothing */

	assert_int_equal(ask(NULL), ERROR_NONE);
	environment_unlinked(env, &me, 60000);
	assert_int_equal(demand_by(&other, NULL, &a), 1);
	wait_answer(&a);
	assert_false(error_is_set(&a.error));
	assert_int_equal(scripted_get("db")->removes, 2);
	assert_true(scripted_get("db")->running);

	/* its own demand waits for the time to pass */
	environment_unlinked(env, &me, 150);
	assert_int_equal(demand(NULL, &a), 1);
	run_for(60);
	assert_int_equal(scripted_get("db")->stops, 2);
	wait_answer(&a);
	assert_int_equal(scripted_get("db")->removes, 3);
}

static void what_survives_is_reported_and_not_forgotten(void **state)
{
	struct answer a;
	compose(ONE TAIL);
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	int old = generation(), port = port_of("db");
	scripted_get("db")->immortal = true;
	assert_int_equal(command("destroy"), ERROR_BACKEND_DEPROVISION_FAILED);
	assert_true(errors_have("BACKEND_DEPROVISION_FAILED"));
	assert_string_equal(state_now(), "failed");
	assert_int_equal(generation(), old);
	assert_int_equal(port_of("db"), port);
	assert_int_equal(demand(NULL, &a), 1); /* tries the teardown again first */
	wait_answer(&a);
	assert_int_equal(a.error.code, ERROR_BACKEND_DEPROVISION_FAILED);
	error_release(&a.error);
	scripted_get("db")->immortal = false;
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(generation(), old + 1);
}

static void down_keeps_and_up_resumes(void **state)
{
	compose(ONE TAIL);
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	int port = port_of("db"), gen = generation();
	assert_int_equal(command("down"), ERROR_NONE);
	assert_string_equal(state_now(), "stopped");
	assert_string_equal(service_state("db"), "stopped");
	assert_false(scripted_get("db")->running);
	assert_int_equal(command("down"), ERROR_NONE);
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(port_of("db"), port);
	assert_int_equal(generation(), gen);
	assert_int_equal(scripted_get("db")->starts, 2);
	assert_int_equal(scripted_get("db")->removes, 0);
}

static void one_service_is_commanded(void **state)
{
	compose("services: {db: {image: 'e/db', ports: ['5432']}, cache: {image: 'e/c', ports: ['6379']}}\n" TAIL);
	env_open();
	assert_int_equal(command("start db"), ERROR_NONE);
	assert_int_equal(scripted_get("cache")->starts, 0);
	assert_int_equal(command("restart db"), ERROR_NONE);
	assert_int_equal(scripted_get("db")->starts, 2);
	assert_int_equal(command("stop db"), ERROR_NONE);
	assert_string_equal(service_state("db"), "stopped");
	assert_int_equal(command("restart db"), ERROR_NONE);
	assert_string_equal(service_state("db"), "ready");
	assert_int_equal(command("stop nope"), ERROR_SERVICE_UNKNOWN);
	assert_int_equal(command("explode"), ERROR_USAGE);
	assert_int_equal(command("restart"), ERROR_USAGE);
	assert_int_equal(command("down now"), ERROR_USAGE);
	assert_int_equal(command(""), ERROR_USAGE);
	assert_int_equal(environment_service_remove(env, "db", &me, NULL), 0);
	run_for(50);
	assert_string_equal(service_state("db"), "absent");
	assert_false(scripted_get("db")->made);
	assert_true(environment_service_remove(env, "nope", &me, NULL) < 0);
	assert_int_equal(ask("db"), ERROR_NONE);
	assert_non_null(strstr(environment_command_list(), "\ndestroy"));
}

/* ---- servers that end ---- */

static void a_new_server_finds_what_runs(void **state)
{
	struct answer a;
	compose(ONE TAIL);
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	int port = port_of("db");
	env_close(false);
	assert_true(scripted_get("db")->running);
	env_open();
	wait_state("ready");
	assert_int_equal(port_of("db"), port);
	assert_int_equal(demand(NULL, &a), 0);
	assert_int_equal(scripted_get("db")->starts, 1);
	scripted_exit(scripted_get("db"), 0); /* and watches it */
	run_for(20);
	assert_string_equal(state_now(), "failed");
}

static void a_server_that_ends_in_a_start_is_followed_by_one_that_goes_on(void **state)
{
	struct answer a;
	for (unsigned ms = 0; ms < 60; ms += 6) {
		compose(RESTARTS TAIL);
		env_open();
		scripted_get("db")->start_ms = 20;
		assert_int_equal(demand(NULL, &a), 1);
		run_for(ms);
		env_close(false);
		assert_int_equal(a.times, 1); /* ready or canceled, once */
		error_release(&a.error);
		env_open();
		assert_int_equal(ask(NULL), ERROR_NONE);
		assert_true(scripted_get("db")->running);
		assert_int_equal(command("destroy"), ERROR_NONE);
		env_close(false);
	}
}

static void a_server_that_ends_in_a_teardown_is_followed_by_one_that_finishes_it(void **state)
{
	struct answer a = {0};
	for (unsigned ms = 0; ms < 80; ms += 8) {
		compose(ONE TAIL);
		env_open();
		scripted_get("db")->stop_ms = 30;
		assert_int_equal(ask(NULL), ERROR_NONE);
		int old = generation();
		memset(&a, 0, sizeof a);
		environment_command(env, "destroy", &me, on_answer, &a);
		run_for(ms);
		env_close(false);
		assert_int_equal(a.times, 1);
		bool begun = ms > 0 || !scripted_get("db")->running;
		error_release(&a.error);
		env_open();
		run_for(200);
		if (begun)
			wait_state("absent");
		assert_int_equal(ask(NULL), ERROR_NONE);
		if (begun)
			assert_int_equal(generation(), old + 1);
		assert_int_equal(command("destroy"), ERROR_NONE);
		env_close(true);
	}
}

static void an_unlink_is_not_forgotten_by_the_next_server(void **state)
{
	compose(ONE TAIL);
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	int old = generation();
	environment_unlinked(env, &me, 60000);
	run_for(50);
	env_close(false);
	assert_true(scripted_get("db")->running);
	env_open();
	wait_state("absent");
	assert_false(scripted_get("db")->made);
	assert_int_equal(generation(), old + 1);

	assert_int_equal(ask(NULL), ERROR_NONE); /* but a replacement is */
	environment_unlinked(env, &me, 60000);
	run_for(50);
	environment_replaced(env, me.pid);
	run_for(50);
	env_close(false);
	env_open();
	wait_state("ready");
	assert_int_equal(generation(), old + 1);
}

static void unmounting_stops_and_keeps(void **state)
{
	compose(ONE TAIL);
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	int port = port_of("db"), gen = generation();
	env_close(true);
	assert_false(scripted_get("db")->running);
	env_open();
	run_for(200);
	assert_string_equal(state_now(), "stopped");
	assert_int_equal(scripted_get("db")->starts, 1);
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(port_of("db"), port);
	assert_int_equal(generation(), gen);

	environment_unlinked(env, &me, 60000); /* rm .env; umount: the teardown is done, not forgotten */
	env_close(true);
	assert_false(scripted_get("db")->made);
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(generation(), gen + 1);
}

static void parked_demands_are_answered_at_the_close(void **state)
{
	struct answer a, b = {0};
	compose(ONE TAIL);
	env_open();
	scripted_get("db")->deaf = true;
	assert_int_equal(demand(NULL, &a), 1);
	run_for(60);
	environment_command(env, "up", &me, on_answer, &b);
	env_close(true);
	assert_int_equal(a.times, 1);
	assert_int_equal(b.times, 1);
	assert_int_equal(a.error.code, ERROR_CANCELED);
	error_release(&a.error);
	error_release(&b.error);
	env_open(); /* closed before it has read anything */
	env_close(false);
	env_open();
	env_close(true);
}

/* ---- .env ---- */

static char *real_env(void)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	return file_read(root_fd, ".env", 1 << 16, &text) < 0 ? NULL : buffer_detach(&text);
}

static void the_users_lines_stay_the_users(void **state)
{
	compose(ONE TAIL);
	assert_int_equal(file_write_atomic(root_fd, ".env", "A=1\nDB_HOST=db\n", 15, 0640), 0);
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_true(env_has("A=1"));
	assert_true(env_has("#~ DB_HOST=db"));
	assert_true(env_has("DB_HOST=127.0.0.1"));
	json_t *json = status();
	json_t *rewrite = json_array_get(json_object_get(json, "rewrites"), 0);
	assert_string_equal(json_string_value(json_object_get(rewrite, "key")), "DB_HOST");
	json_decref(json);

	/* :wq changes nothing */
	cleanup_buffer struct buffer text = BUFFER_INIT;
	assert_int_equal(environment_env(env, &text, NULL), 0);
	assert_int_equal(environment_write_env(env, text.data, text.len, NULL), 0);
	cleanup_free char *same = real_env();
	assert_string_equal(same, "A=1\nDB_HOST=db\n");

	/* a line more is the user's, beneath, with the old mode */
	changed_mask = 0;
	buffer_adds(&text, "B=2\n");
	assert_int_equal(environment_write_env(env, text.data, text.len, NULL), 0);
	cleanup_free char *more = real_env();
	assert_non_null(strstr(more, "B=2\n"));
	assert_null(strstr(more, "DB_PORT"));
	struct stat st;
	assert_int_equal(fstatat(root_fd, ".env", &st, 0), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
	assert_true(env_has("B=2"));
	run_for(5);
	assert_true(changed_mask & CHANGED_ENV && changed_mask & CHANGED_ENV_OWN);

	cleanup_buffer struct buffer own = BUFFER_INIT;
	environment_env_own(env, &own);
	assert_string_equal(buffer_str(&own), more);

	/* edited behind our back: read anew */
	assert_int_equal(file_write_atomic(root_fd, ".env", "C=3\n", 4, 0600), 0);
	assert_true(env_has("C=3"));
	assert_false(env_has("A=1"));

	cleanup_buffer struct buffer json_text = BUFFER_INIT;
	assert_int_equal(environment_env_json(env, &json_text, NULL), 0);
	json = json_loads(buffer_str(&json_text), 0, NULL);
	assert_string_equal(json_string_value(json_object_get(json, "C")), "3");
	assert_string_equal(json_string_value(json_object_get(json, "DB_HOST")), "127.0.0.1");
	json_decref(json);
}

static void nothing_written_makes_no_file(void **state)
{
	compose(ONE TAIL);
	env_open();
	run_for(100);
	cleanup_buffer struct buffer text = BUFFER_INIT;
	assert_int_equal(environment_env(env, &text, NULL), 0);
	assert_int_equal(environment_write_env(env, text.data, text.len, NULL), 0);
	assert_null(real_env());
}

static void a_link_to_anothers_lines_is_read_through(void **state)
{
	compose(ONE TAIL);
	cleanup_free char *shared = xasprintf("%s/shared.env", scratch);
	assert_int_equal(file_write_atomic(AT_FDCWD, shared, "SHARED=1\n", 9, 0600), 0);
	assert_int_equal(symlinkat("../shared.env", root_fd, ".env"), 0);
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_true(env_has("SHARED=1"));
	assert_int_equal(environment_write_env(env, "SHARED=2\n", 9, NULL), 0);
	struct stat st;
	assert_int_equal(fstatat(root_fd, ".env", &st, AT_SYMLINK_NOFOLLOW), 0);
	assert_true(S_ISLNK(st.st_mode));
	cleanup_buffer struct buffer text = BUFFER_INIT;
	assert_int_equal(file_read(AT_FDCWD, shared, 100, &text), 0);
	assert_string_equal(buffer_str(&text), "SHARED=2\n");
}

static void the_users_lines_rest_with_the_data(void **state)
{
	compose(ONE TAIL);
	assert_int_equal(file_write_atomic(root_fd, ".env", "A=1\n", 4, 0600), 0);
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(command("destroy"), ERROR_NONE);
	assert_null(real_env());
	assert_false(env_has("A=1"));
	struct store *store;
	struct trash_entry *entries;
	size_t count;
	assert_int_equal(store_open(id.shared_dir, &store, NULL), 0);
	assert_int_equal(store_trash_list(store, id.namespace_, &entries, &count, NULL), 0);
	assert_int_equal(count, 1);
	assert_true(entries[0].has_env);
	trash_entries_free(entries, count);
	store_close(store);
}

#define VALUES(password) "services: {db: {image: 'f/db', environment: {PASS: '" password "'}}}\n" TAIL

static void what_is_there_gets_todays_values(void **state)
{
	compose(VALUES("one"));
	env_open();
	struct scripted *db = scripted_get("db");
	assert_int_equal(command("up"), ERROR_NONE);
	assert_int_equal(command("restart db"), ERROR_NONE);
	assert_int_equal(db->execs, 0);
	compose(VALUES("two"));
	assert_int_equal(command("up"), ERROR_NONE);
	assert_int_equal(db->execs, 1);
	assert_int_equal(command("restart db"), ERROR_NONE);
	assert_int_equal(db->execs, 1);
	assert_int_equal(command("destroy"), ERROR_NONE);
	compose(VALUES("three"));
	assert_int_equal(command("up"), ERROR_NONE); /* new data */
	assert_int_equal(db->execs, 1);
}

static void what_cannot_have_todays_values_fails_and_runs(void **state)
{
	compose(VALUES("one"));
	env_open();
	struct scripted *db = scripted_get("db");
	assert_int_equal(command("up"), ERROR_NONE);
	db->sick = true;
	compose(VALUES("two"));
	assert_int_equal(command("up"), ERROR_SERVICE_FAILED);
	assert_string_equal(service_state("db"), "failed");
	assert_int_equal(db->starts, 2);
	assert_int_equal(ask(NULL), ERROR_SERVICE_FAILED);
	assert_int_equal(db->starts, 2);
	db->sick = false;
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(db->starts, 2);
	assert_int_equal(db->execs, 3);
	db->sick = true;
	compose(VALUES("three"));
	assert_int_equal(command("up"), ERROR_SERVICE_FAILED);
	unsigned stops = db->stops;
	assert_int_equal(command("down"), ERROR_NONE);
	assert_int_equal(db->stops, stops + 1);
	assert_string_equal(service_state("db"), "stopped");
	compose(VALUES("two")); /* what it has */
	assert_int_equal(command("up"), ERROR_NONE);
}

/* ---- main ---- */

static int group_setup(void **state)
{
	scratch = xasprintf("%s/environment.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(scratch));
	cleanup_free char *runtime = xasprintf("%s/run", scratch), *st = xasprintf("%s/state", scratch);
	/* images that need no approval */
	cleanup_free char *recipes = xasprintf("%s/aether/recipes", scratch), *recipe = xasprintf("%s/e.yaml", recipes);
	static const char known[] = "images: [e/a, e/b, e/c, e/cache, e/db, e/debug, e/job, e/odd, e/other, e/web, example/db]\n";
	assert_int_equal(dir_make(AT_FDCWD, recipes, 0700), 0);
	assert_int_equal(file_write_atomic(AT_FDCWD, recipe, known, sizeof known - 1, 0600), 0);
	cleanup_free char *adapts = xasprintf("%s/f.yaml", recipes);
	static const char adapting[] = "images: [f/db]\ndefaults: {password: '{{env.PASS}}'}\ncontainer: {adapt: {as: '{{password}}', run: [give, it]}}\n";
	assert_int_equal(file_write_atomic(AT_FDCWD, adapts, adapting, sizeof adapting - 1, 0600), 0);
	setenv("XDG_CONFIG_HOME", scratch, 1);
	setenv("AETHER_RUNTIME_DIR", runtime, 1);
	setenv("AETHER_STATE_DIR", st, 1);
	scripted_logs = scratch;
	return uv_loop_init(&loop);
}

static int group_teardown(void **state)
{
	uv_run(&loop, UV_RUN_DEFAULT);
	tree_remove(AT_FDCWD, scratch);
	free(scratch);
	return uv_loop_close(&loop);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(a_demand_starts_waits_and_is_warm_afterwards),
	    T(ports_are_known_before_anything_is_started),
	    T(demands_at_once_start_once),
	    T(independent_services_start_at_the_same_time),
	    T(dependencies_go_first_and_leave_last),
	    T(the_default_set_leaves_out_what_is_built_and_profiles),
	    T(up_builds_before_it_stops_anything),
	    T(what_cannot_be_built_has_failed),
	    T(what_runs_goes_on_until_another_image_is_there),
	    T(what_is_there_gets_todays_values),
	    T(what_cannot_have_todays_values_fails_and_runs),
	    T(what_is_built_for_nobody_ends),
	    T(a_build_takes_the_time_it_takes),
	    T(what_is_cancelled_goes_on),
	    T(manual_start_serves_without_provisioning),
	    T(an_environment_of_ports_alone_is_ready),
	    T(a_failed_start_is_the_demands_error),
	    T(what_needs_a_failed_one_fails_too),
	    T(never_ready_ends_in_time_with_the_log),
	    T(secrets_in_logs_are_masked),
	    T(an_exit_during_the_start_fails_at_once),
	    T(a_crash_loop_backs_off_and_is_given_up),
	    T(a_crash_is_restarted_and_counted),
	    T(what_others_have_stopped_stays_so),
	    T(without_a_policy_the_next_demand_revives),
	    T(what_is_gone_is_not_ready),
	    T(unsupported_is_a_warning_unless_it_is_named),
	    T(what_the_configuration_names_must_run),
	    T(what_nobody_named_holds_nobody_back),
	    T(a_port_of_a_foreigner_is_replaced),
	    T(without_a_configuration_a_demand_says_so),
	    T(an_unknown_backend_is_named),
	    T(a_changed_configuration_is_said_and_applied_by_up_alone),
	    T(what_still_stops_is_waited_for),
	    T(what_stands_still_begins_with_the_new_configuration),
	    T(a_broken_change_lets_what_runs_run),
	    T(a_published_number_that_is_added_later_is_taken_by_up),
	    T(a_removed_services_data_goes_to_the_trash),
	    T(half_made_data_goes_to_the_trash),
	    T(half_made_data_of_who_is_wanted_no_more),
	    T(half_made_data_of_another_configuration),
	    T(what_was_ready_or_has_completed_is_settled),
	    T(a_healthcheck_goes_on_being_asked),
	    T(what_is_unhealthy_has_failed_until_it_is_not),
	    T(what_is_unplugged_is_made_anew_by_a_demand),
	    T(an_images_check_counts),
	    T(an_images_check_is_overridden),
	    T(a_changed_env_file_is_a_changed_configuration),
	    T(a_mended_configuration_mends_what_failed),
	    T(a_mended_configuration_mends_what_was_never_ready),
	    T(a_mended_configuration_disturbs_nobody),
	    T(what_was_not_approved_does_not_run),
	    T(what_is_approved_is_what_was_shown),
	    T(an_unapproved_change_starts_nothing),
	    T(what_is_revoked_is_asked_of_the_store),
	    T(a_tracked_file_is_a_layer_beneath),
	    T(destroying_leaves_nothing_and_the_next_is_fresh),
	    T(a_demand_during_a_teardown_waits_and_starts_afresh),
	    T(an_unlink_waits_its_time_or_for_somebody_elses_demand),
	    T(what_survives_is_reported_and_not_forgotten),
	    T(down_keeps_and_up_resumes),
	    T(one_service_is_commanded),
	    T(a_new_server_finds_what_runs),
	    T(a_server_that_ends_in_a_start_is_followed_by_one_that_goes_on),
	    T(a_server_that_ends_in_a_teardown_is_followed_by_one_that_finishes_it),
	    T(an_unlink_is_not_forgotten_by_the_next_server),
	    T(unmounting_stops_and_keeps),
	    T(parked_demands_are_answered_at_the_close),
	    T(the_users_lines_stay_the_users),
	    T(nothing_written_makes_no_file),
	    T(a_link_to_anothers_lines_is_read_through),
	    T(the_users_lines_rest_with_the_data),
	};
	cmocka_set_test_filter(getenv("CMOCKA_TEST_FILTER"));
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
