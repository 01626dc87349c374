/* What an environment makes of services that fail, end, or cannot run here. */
#include "environment_harness.h"

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

static int listen_at(int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(fd, 1), 0);
	return fd;
}

static void a_port_of_a_foreigner_is_replaced(void **state)
{
	compose(ONE TAIL);
	env_open();
	run_for(200);
	int port = port_of("db");
	cleanup_close int foreigner = listen_at(port);
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_true(port_of("db") != port);
	assert_true(events_have("port_replaced"));
}

static void a_replaced_port_brings_no_other_change(void **state)
{
	compose("services: {db: {image: 'e/db', ports: ['5432'], restart: always, environment: {P: one}}, cache: {image: 'e/c', ports: ['6379']}}\n" TAIL);
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	int port = port_of("db");
	cleanup_free char *cache = xasprintf("CACHE_PORT=%d", port_of("cache"));
	compose("services: {db: {image: 'e/db', ports: ['5432'], restart: always, environment: {P: two}}}\n" TAIL);
	scripted_exit(scripted_get("db"), 1);
	cleanup_close int foreigner = listen_at(port);
	while (scripted_get("db")->starts < 2)
		run_for(5);
	wait_state("ready");
	assert_true(port_of("db") != port);
	assert_true(env_has(cache));
	run_for(1200);
	assert_true(env_has(cache) && warns_of("has changed"));
	assert_int_equal(command("up"), ERROR_NONE);
	assert_false(env_has(cache) || warns_of("has changed"));
}

/* An engine that has not forgotten who had it. */
static void a_port_that_the_backend_refuses_is_replaced(void **state)
{
	compose(ONE TAIL);
	env_open();
	run_for(200);
	int port = port_of("db");
	scripted_get("db")->refuses_port = true;
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(scripted_get("db")->refused, port);
	assert_true(port_of("db") != port);
	assert_true(events_have("port_replaced"));
}

/* Nobody is seen to have it: who said that another up takes it would say so after that one, too. */
static void a_published_number_that_the_backend_refuses_is_not_tried_again(void **state)
{
	char text[256];
	int fd = listen_at(0);
	struct sockaddr_in a;
	socklen_t size = sizeof a;
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &size), 0);
	close(fd);
	snprintf(text, sizeof text, "services: {db: {image: 'example/db:1', ports: ['%u:5432']}}\n" TAIL, ntohs(a.sin_port));
	compose(text);
	env_open();
	struct scripted *db = scripted_get("db");
	db->refuses_port = true;
	assert_int_equal(command("up"), ERROR_NONE);
	assert_int_equal(db->refused, ntohs(a.sin_port));
	int port = port_of("db");
	unsigned starts = db->starts;
	assert_true(warns_of("was refused") && !warns_of("`ajj up` takes it"));
	assert_int_equal(command("up"), ERROR_NONE);
	assert_int_equal(port_of("db"), port);
	assert_int_equal(db->starts, starts);
}

/* The server was killed while it was started: nobody else has its port. */
static void a_port_of_its_own_is_kept(void **state)
{
	compose(ONE TAIL);
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	int port = port_of("db");
	env_close(false);
	struct scripted *db = scripted_get("db");
	db->rises = true;
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(port_of("db"), port);
	assert_false(events_have("port_replaced"));
	assert_int_equal(db->starts, 2);
	env_close(false);

	scripted_down(db); /* somebody else has it after all */
	db->rises = true;
	cleanup_close int foreigner = listen_at(port);
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_true(port_of("db") != port);
	assert_true(events_have("port_replaced"));
	assert_int_equal(db->starts, 4);
}

/* ---- what ends later ---- */

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

/* ---- what cannot run here ---- */

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

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(a_failed_start_is_the_demands_error),
	    T(what_needs_a_failed_one_fails_too),
	    T(never_ready_ends_in_time_with_the_log),
	    T(secrets_in_logs_are_masked),
	    T(an_exit_during_the_start_fails_at_once),
	    T(a_port_of_a_foreigner_is_replaced),
	    T(a_replaced_port_brings_no_other_change),
	    T(a_port_that_the_backend_refuses_is_replaced),
	    T(a_published_number_that_the_backend_refuses_is_not_tried_again),
	    T(a_port_of_its_own_is_kept),
	    T(a_crash_loop_backs_off_and_is_given_up),
	    T(a_crash_is_restarted_and_counted),
	    T(what_others_have_stopped_stays_so),
	    T(without_a_policy_the_next_demand_revives),
	    T(what_is_gone_is_not_ready),
	    T(unsupported_is_a_warning_unless_it_is_named),
	    T(what_the_configuration_names_must_run),
	    T(what_nobody_named_holds_nobody_back),
	};
	return RUN(tests);
}
