/* An `up` that changes what runs: what takes its place is had first, and what runs is told of as it runs till then. */
#include "environment_harness.h"

/* What is served of the services, without what says that the configuration has changed. new */
static char *served(void)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	json_t *json = status();
	cleanup_free char *resources = json_dumps(json_object_get(json, "resources"), JSON_SORT_KEYS), *db = json_dumps(json_object_get(json_object_get(json, "services"), "db"), JSON_SORT_KEYS);
	assert_int_equal(environment_env(env, &text, NULL), 0);
	environment_ports(env, &text);
	assert_int_equal(environment_service(env, "db", SERVICE_ENV, &text, NULL), 0);
	buffer_printf(&text, "%s\n%s\n", resources, db);
	json_decref(json);
	return xstrdup(buffer_str(&text));
}

#define POSTGRES(image, port, password) \
	"services: {db: {image: '" image "', ports: ['" port "'], environment: {POSTGRES_PASSWORD: " password "}, x-aether: {ready: {tcp: 5432}}}" \
	", cache: {image: 'e/c', ports: ['6379']}}\n" TAIL

static void what_runs_is_told_of_as_it_runs(void **state)
{
	static struct answer a; /* outlives a failure */
	compose(POSTGRES("postgres:16", "5432", "first"));
	env_open();
	struct scripted *db = scripted_get("db"), *cache = scripted_get("cache");
	assert_int_equal(command("up"), ERROR_NONE);
	assert_true(env_has("PGPASSWORD=first"));
	cleanup_free char *before = served();

	db->build_error = ERROR_IMAGE_NOT_FOUND;
	db->build_ms = 400;
	compose(POSTGRES("postgres:99", "5433", "second"));
	environment_command(env, "up", &me, on_answer, &a);
	while (!db->builds)
		run_for(5);
	cleanup_free char *meanwhile = served();
	assert_string_equal(before, meanwhile);
	assert_int_equal(ask(NULL), ERROR_NONE); /* a read waits for none of it */
	wait_answer(&a);
	assert_int_equal(a.error.code, ERROR_IMAGE_NOT_FOUND);
	error_release(&a.error);
	cleanup_free char *after = served();
	assert_string_equal(before, after);
	assert_true(errors_have("as the test says") && warns_of("could not be applied") && warns_of("as the test says"));
	assert_string_equal(state_now(), "ready");

	env_close(false); /* a new server is told by the files of what is next alone */
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	cleanup_free char *by_another = served();
	assert_string_equal(before, by_another);
	assert_true(warns_of("has changed"));
	run_for(1200); /* the clock has looked, too */
	cleanup_free char *later = served();
	assert_string_equal(before, later);

	db->build_error = ERROR_NONE;
	assert_int_equal(command("up"), ERROR_NONE);
	assert_true(env_has("PGPASSWORD=second"));
	assert_false(warns_of("could not be applied"));
	assert_int_equal(db->stops, 1);
	assert_int_equal(cache->starts, 1);
}

static void what_is_replaced_beside_is_had_first_too(void **state)
{
	compose(POSTGRES("postgres:16", "5432", "first"));
	env_open();
	struct scripted *db = scripted_get("db");
	assert_int_equal(command("up"), ERROR_NONE);
	compose(POSTGRES("postgres:99", "5432", "second"));
	db->build_error = ERROR_IMAGE_NOT_FOUND;
	assert_int_equal(command("up cache"), ERROR_IMAGE_NOT_FOUND);
	assert_int_equal(db->stops, 0);
	assert_true(env_has("PGPASSWORD=first"));
	db->build_error = ERROR_NONE;
	assert_int_equal(command("up cache"), ERROR_NONE);
	run_for(100);
	assert_int_equal(db->stops, 1);
	assert_true(env_has("PGPASSWORD=second"));
}

static void the_last_change_is_the_one_that_is_applied(void **state)
{
	static struct answer a; /* outlives a failure */
	compose(POSTGRES("postgres:16", "5432", "first"));
	env_open();
	struct scripted *db = scripted_get("db");
	assert_int_equal(command("up"), ERROR_NONE);
	db->build_ms = LIMIT_MS * 2;
	compose(POSTGRES("postgres:16", "5432", "second"));
	environment_command(env, "up", &me, on_answer, &a);
	while (db->builds < 1)
		run_for(5);
	db->build_ms = 0;
	compose(POSTGRES("postgres:16", "5432", "third"));
	assert_int_equal(command("up"), ERROR_NONE);
	wait_answer(&a);
	assert_false(error_is_set(&a.error));
	assert_true(db->builds_canceled > 0); /* of what nobody asks for any more */
	assert_true(env_has("PGPASSWORD=third"));
	assert_int_equal(db->starts, 2);

	compose(POSTGRES("postgres:16", "5432", "fourth")); /* given up: it is as if nobody had asked */
	a = (struct answer){0};
	unsigned builds = db->builds;
	db->build_ms = LIMIT_MS * 2;
	environment_command(env, "up", &me, on_answer, &a);
	while (db->builds == builds)
		run_for(5);
	environment_command_forsaken(env, &a);
	wait_answer(&a);
	assert_int_equal(a.error.code, ERROR_CANCELED);
	error_release(&a.error);
	assert_true(env_has("PGPASSWORD=third"));
	a = (struct answer){0};
	builds = db->builds;
	environment_command(env, "up", &me, on_answer, &a);
	while (db->builds == builds)
		run_for(5);
	assert_int_equal(command("destroy"), ERROR_NONE);
	wait_answer(&a);
	assert_int_equal(a.error.code, ERROR_CANCELED);
	error_release(&a.error);
	db->build_ms = 0;
	assert_int_equal(command("up"), ERROR_NONE);
	assert_true(env_has("PGPASSWORD=fourth"));
	while (scripted_builds)
		run_for(5);
}

static uint16_t free_port(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof a;
	cleanup_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(bind(fd, (struct sockaddr *)&a, size) == 0 && getsockname(fd, (struct sockaddr *)&a, &size) == 0);
	return ntohs(a.sin_port);
}

static void a_number_is_given_up_when_another_is_used(void **state)
{
	char text[512];
	compose(POSTGRES("postgres:16", "5432", "first"));
	env_open();
	struct scripted *db = scripted_get("db");
	assert_int_equal(command("up"), ERROR_NONE);
	int port = port_of("db"), wanted = free_port();
	snprintf(text, sizeof text, POSTGRES("postgres:99", "%d:5432", "first"), wanted);
	compose(text);
	db->build_error = ERROR_IMAGE_NOT_FOUND;
	assert_int_equal(command("up"), ERROR_IMAGE_NOT_FOUND);
	assert_int_equal(port_of("db"), port);
	compose(POSTGRES("postgres:16", "5432", "first"));
	assert_int_equal(command("up"), ERROR_NONE);
	assert_int_equal(port_of("db"), port);
	assert_int_equal(db->starts, 1);

	db->build_error = ERROR_NONE;
	compose(text);
	assert_int_equal(command("up"), ERROR_NONE);
	assert_int_equal(port_of("db"), wanted);
	env_close(false);
	env_open();
	assert_int_equal(command("up"), ERROR_NONE);
	assert_int_equal(port_of("db"), wanted);
	assert_int_equal(db->starts, 2);
}

static void what_runs_is_recalled_as_long_as_it_runs(void **state)
{
	compose(POSTGRES("postgres:16", "5432", "first"));
	env_open();
	assert_int_equal(command("up"), ERROR_NONE);
	env_close(false);
	compose("services: [\n");
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_true(env_has("PGPASSWORD=first"));
	assert_true(warns_of("cannot be read"));
	assert_int_equal(command("up"), ERROR_CONFIG_INVALID);

	env_close(false);
	compose(POSTGRES("postgres:16", "5432", "second"));
	env_open();
	assert_int_equal(command("up"), ERROR_NONE); /* at once */
	assert_true(env_has("PGPASSWORD=second"));
	assert_int_equal(scripted_get("db")->starts, 2);
	assert_int_equal(scripted_get("cache")->starts, 1);

	env_close(false);
	scripted_exit(scripted_get("db"), 0);
	scripted_exit(scripted_get("cache"), 0);
	compose(POSTGRES("postgres:16", "5432", "third"));
	env_open();
	run_for(100);
	assert_true(env_has("PGPASSWORD=third"));
	assert_false(warns_of("has changed"));
	assert_int_equal(command("destroy"), ERROR_NONE);
	cleanup_free char *applied = xasprintf("%s/applied.json", id.state_dir);
	assert_int_equal(access(applied, F_OK), -1); /* the user's values are in it */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(what_runs_is_told_of_as_it_runs),
	    T(what_runs_is_recalled_as_long_as_it_runs),
	    T(a_number_is_given_up_when_another_is_used),
	    T(what_is_replaced_beside_is_had_first_too),
	    T(the_last_change_is_the_one_that_is_applied),
	};
	return RUN(tests);
}
