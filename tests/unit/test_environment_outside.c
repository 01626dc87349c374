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

/* By us, by others; what others have removed; what has ended by itself; what was never there. */
static void what_rests_is_remembered(void **state)
{
	static const char *const policies[] = {"restart: always, ", ""};
	for (size_t i = 0; i < 2; i++) {
		cleanup_free char *text = xasprintf("services: {us: {%simage: 'e/u', ports: ['1']}, others: {%simage: 'e/o', ports: ['2']}, gone: {%simage: 'e/g', ports: ['3']},"
		                                    " itself: {restart: always, image: 'e/i', ports: ['4']}, on: {image: 'e/on', ports: ['5']}}\n" TAIL, policies[i], policies[i], policies[i]);
		compose(text);
		env_open();
		assert_int_equal(command("approve"), ERROR_NONE);
		assert_int_equal(command("up"), ERROR_NONE);
		scripted_get("others")->dismissed = scripted_get("gone")->dismissed = true;
		scripted_exit(scripted_get("others"), 143);
		scripted_exit(scripted_get("gone"), 137);
		scripted_get("gone")->made = false;
		assert_int_equal(command("stop us"), ERROR_NONE);
		scripted_exit(scripted_get("itself"), 1);
		env_close(false); /* as a kill leaves it */
		unsigned starts[] = {scripted_get("us")->starts, scripted_get("others")->starts, scripted_get("gone")->starts};
		env_open();
		run_for(500);
		assert_string_equal(service_state("us"), "stopped");
		assert_string_equal(service_state("others"), "stopped");
		assert_string_equal(service_state("gone"), "stopped");
		assert_string_equal(service_state("itself"), "ready");
		assert_string_equal(service_state("on"), "ready");
		assert_string_equal(state_now(), "degraded");
		assert_int_equal(scripted_get("us")->starts, starts[0]);
		assert_int_equal(scripted_get("others")->starts, starts[1]);
		assert_int_equal(scripted_get("gone")->starts, starts[2]);

		/* what others have started meanwhile is wanted, and so is what anybody asks for */
		env_close(false);
		const struct operation_ports ports = scripted_get("others")->ports;
		scripted_up(scripted_get("others"), &loop, &ports);
		env_open();
		run_for(300);
		assert_string_equal(service_state("others"), "ready");
		assert_int_equal(command("up"), ERROR_NONE);
		env_close(false);
		env_open();
		run_for(300);
		assert_string_equal(state_now(), "ready");
		assert_int_equal(scripted_get("us")->starts, starts[0] + 1);
		env_close(true);
	}
}

/* Whatever their policies, and whoever comes first: but what rested goes on resting, and what has failed is left alone. */
static void what_ends_with_its_engine_returns_with_it(void **state)
{
	static const char *const names[] = {"web", "db", "once", "bad", "rests"};
	compose("services: {web: {image: 'e/w', ports: ['1'], depends_on: [db]}, db: {image: 'e/db', ports: ['5432'], restart: always}, rests: {image: 'e/r', ports: ['2'], restart: always},"
	        " once: {image: 'e/o'}, bad: {image: 'e/bad', ports: ['3']}}\n" TAIL);
	env_open();
	assert_int_equal(command("approve"), ERROR_NONE);
	scripted_get("once")->exit_ms = 1;
	assert_int_equal(ask(NULL), ERROR_NONE);
	scripted_get("rests")->dismissed = true;
	scripted_exit(scripted_get("rests"), 0);
	scripted_exit(scripted_get("bad"), 1);
	run_for(20);
	scripted_lose(scripted_get("web"), false);
	scripted_lose(scripted_get("db"), false);
	run_for(200);
	assert_string_equal(service_state("web"), "failed");
	assert_string_equal(service_state("db"), "failed");
	assert_true(errors_have("BACKEND_UNREACHABLE"));
	assert_int_equal(scripted_get("db")->starts, 1);
	scripted_get("db")->start_error = ERROR_BACKEND_UNREACHABLE; /* who asks meanwhile hears so */
	assert_int_equal(ask("web"), ERROR_BACKEND_UNREACHABLE);
	scripted_get("db")->start_error = ERROR_NONE;
	unsigned before[5];
	for (size_t i = 0; i < 5; i++)
		before[i] = scripted_get(names[i])->starts;
	for (size_t i = 0; i < 5; i++) {
		scripted_lose(scripted_get(names[i]), true);
		run_for(20);
	}
	run_for(200);
	assert_string_equal(service_state("web"), "ready");
	assert_string_equal(service_state("db"), "ready");
	assert_string_equal(service_state("once"), "completed");
	assert_string_equal(service_state("bad"), "failed");
	assert_string_equal(service_state("rests"), "stopped");
	for (size_t i = 0; i < 5; i++)
		assert_int_equal(scripted_get(names[i])->starts, before[i] + (i < 2));
	scripted_lose(scripted_get("web"), true); /* before anybody had noticed */
	run_for(200);
	assert_string_equal(service_state("web"), "ready");
	assert_int_equal(scripted_get("web")->starts, before[0] + 2);
	scripted_lose(scripted_get("web"), false);
	assert_int_equal(command("down"), ERROR_NONE);
	scripted_lose(scripted_get("web"), true);
	run_for(100);
	assert_string_equal(service_state("web"), "stopped");
}

/* A container that has run for long when a server finds it, and has ended since: the end is heard of all the same. */
static void what_is_gone_as_it_is_found_keeps_nobody_busy(void **state)
{
	compose("services: {w: {image: 'e/w'}}\n" TAIL);
	env_open();
	assert_int_equal(command("approve"), ERROR_NONE);
	assert_int_equal(ask(NULL), ERROR_NONE);
	env_close(false);
	alarm(20); /* where nothing else would end it */
	scripted_get("w")->gone = true;
	env_open();
	run_for(300);
	assert_string_equal(service_state("w"), "starting");
	scripted_exit(scripted_get("w"), 3);
	run_for(50);
	assert_string_equal(service_state("w"), "failed");
	alarm(0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(what_others_start_is_wanted),
	    T(what_others_start_is_remembered),
	    T(what_rests_is_remembered),
	    T(what_ends_with_its_engine_returns_with_it),
	    T(what_is_gone_as_it_is_found_keeps_nobody_busy),
	};
	return RUN(tests);
}
