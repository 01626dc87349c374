/* An environment that comes up: who asks, who waits, what is started for it, and in what order. */
#include "environment_harness.h"

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

/* ---- images that are built, or are to be had first ---- */

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

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(a_demand_starts_waits_and_is_warm_afterwards),
	    T(ports_are_known_before_anything_is_started),
	    T(demands_at_once_start_once),
	    T(independent_services_start_at_the_same_time),
	    T(dependencies_go_first_and_leave_last),
	    T(the_default_set_leaves_out_what_is_built_and_profiles),
	    T(what_is_cancelled_goes_on),
	    T(manual_start_serves_without_provisioning),
	    T(an_environment_of_ports_alone_is_ready),
	    T(up_builds_before_it_stops_anything),
	    T(what_cannot_be_built_has_failed),
	    T(what_runs_goes_on_until_another_image_is_there),
	    T(what_is_built_for_nobody_ends),
	    T(a_build_takes_the_time_it_takes),
	};
	return RUN(tests);
}
