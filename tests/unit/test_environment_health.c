/* Healthchecks, the file's and the image's, before a service is ready and afterwards. */
#include "environment_harness.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(a_healthcheck_goes_on_being_asked),
	    T(what_is_unhealthy_has_failed_until_it_is_not),
	    T(what_is_unplugged_is_made_anew_by_a_demand),
	    T(an_images_check_counts),
	    T(an_images_check_is_overridden),
	};
	return RUN(tests);
}
