/* What others do with services, by hand or with their engine, and what the next server knows of it. */
#include "environment_harness.h"

static void what_others_start_is_wanted(void **state)
{
	struct answer a = {0};
	compose("services: {db: {image: 'e/db', ports: ['5432']}, w: {image: 'e/w', ports: ['1']}}\n" TAIL);
	env_open();
	assert_int_equal(command("approve"), ERROR_NONE);
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(command("stop db"), ERROR_NONE);
	scripted_start_outside(scripted_get("db"));
	run_for(300);
	assert_string_equal(service_state("db"), "ready");
	assert_int_equal(scripted_get("db")->stops, 1);
	assert_int_equal(command("down"), ERROR_NONE);
	scripted_start_outside(scripted_get("db"));
	run_for(300);
	assert_string_equal(service_state("db"), "ready");
	assert_string_equal(service_state("w"), "stopped");
	assert_string_equal(state_now(), "ready");
	assert_int_equal(scripted_get("db")->stops, 2);
	scripted_exit(scripted_get("db"), 1); /* and judged as what is wanted */
	run_for(50);
	assert_string_equal(service_state("db"), "failed");

	/* who waits for its end does not wait for ever */
	assert_int_equal(ask(NULL), ERROR_NONE);
	scripted_get("w")->stop_ms = 200;
	environment_command(env, "down", &me, on_answer, &a);
	run_for(100);
	assert_string_equal(service_state("db"), "stopped");
	scripted_start_outside(scripted_get("db"));
	wait_answer(&a);
	assert_int_equal(a.error.code, ERROR_CANCELED);
	error_release(&a.error);
	run_for(300);
	assert_string_equal(service_state("db"), "ready");
	assert_string_equal(service_state("w"), "stopped");

	/* but what goes for good goes */
	assert_int_equal(command("down"), ERROR_NONE);
	scripted_get("w")->stop_ms = 0;
	environment_command(env, "destroy", &me, on_answer, &a);
	scripted_start_outside(scripted_get("db"));
	a = (struct answer){0};
	wait_answer(&a);
	assert_int_equal(a.error.code, ERROR_NONE);
	assert_false(scripted_get("db")->made);
}

/* The next server goes on with it. */
static void what_others_start_is_remembered(void **state)
{
	compose(ONE TAIL);
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(command("down"), ERROR_NONE);
	scripted_start_outside(scripted_get("db"));
	run_for(100);
	env_close(false);
	env_open();
	wait_state("ready");
	assert_int_equal(scripted_get("db")->stops, 1);
	assert_int_equal(scripted_get("db")->starts, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(what_others_start_is_wanted),
	    T(what_others_start_is_remembered),
	};
	return RUN(tests);
}
