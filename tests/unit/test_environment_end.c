/* Environments that are stopped or torn down, and servers that end before they are. */
#include "environment_harness.h"

static const struct requester other = {2, "other"};

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

static void what_was_never_made_is_destroyed_without_its_backend(void **state)
{
	compose(ONE TAIL);
	scripted_unreachable = true;
	env_open();
	assert_int_equal(command("up"), ERROR_BACKEND_UNREACHABLE);
	assert_int_equal(command("destroy"), ERROR_NONE);
	assert_string_equal(state_now(), "absent");
	scripted_unreachable = false;
	assert_int_equal(command("up"), ERROR_NONE);
	assert_int_equal(port_of("db") > 0, 1);
	env_close(false);

	scripted_unreachable = true;
	env_open();
	assert_int_equal(command("destroy"), ERROR_BACKEND_UNREACHABLE);
	env_close(false);
	scripted_unreachable = false;
	env_open();
	assert_int_equal(command("destroy"), ERROR_NONE);
	assert_false(scripted_get("db")->made);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(destroying_leaves_nothing_and_the_next_is_fresh),
	    T(a_demand_during_a_teardown_waits_and_starts_afresh),
	    T(an_unlink_waits_its_time_or_for_somebody_elses_demand),
	    T(what_survives_is_reported_and_not_forgotten),
	    T(what_was_never_made_is_destroyed_without_its_backend),
	    T(down_keeps_and_up_resumes),
	    T(one_service_is_commanded),
	    T(a_new_server_finds_what_runs),
	    T(a_server_that_ends_in_a_start_is_followed_by_one_that_goes_on),
	    T(a_server_that_ends_in_a_teardown_is_followed_by_one_that_finishes_it),
	    T(an_unlink_is_not_forgotten_by_the_next_server),
	    T(unmounting_stops_and_keeps),
	    T(parked_demands_are_answered_at_the_close),
	};
	return RUN(tests);
}
