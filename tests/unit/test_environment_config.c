/* A configuration that is missing, changes, is mended or approved while its environment is there. */
#include "environment_harness.h"

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

/* ---- what changes while it runs ---- */

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

static bool is_changed(void)
{
	json_t *json = status();
	bool changed = json_is_true(json_object_get(json, "config_changed"));
	json_decref(json);
	return changed;
}

/* What is read again while that which `up` has taken out still ends is no change that another `up` would apply. */
static void what_up_is_about_is_no_change(void **state)
{
	compose(TWO("one"));
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	scripted_get("cache")->stop_ms = 4000;
	compose("services: {db: {image: 'e/db', ports: ['5432'], environment: {P: one}, frobnicate: 1}}\n" TAIL);
	assert_int_equal(command("up"), ERROR_NONE);
	assert_true(scripted_get("cache")->running);
	assert_false(is_changed());
	compose("services: {db: {image: 'e/db', ports: ['5432'], environment: {P: one}, frobnicate: 22}}\n" TAIL);
	run_for(1500);
	assert_true(scripted_get("cache")->running);
	assert_false(is_changed());
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
	assert_int_equal(command("reload"), ERROR_NONE);
	assert_true(warns_of("is free: `ajj up` takes it") && !warns_of("was not asked for"));
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

/* ---- what is mended ---- */

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

/* ---- approval ---- */

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

static void a_refresh_reads_what_has_changed(void **state)
{
	compose("services: {w: {x-aether: {command: [./w]}}}\n" TAIL);
	env_open();
	assert_int_equal(command("approve"), ERROR_NONE);
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(command("refresh"), ERROR_NONE);
	assert_true(trust_is("approved", "true"));
	compose("services: {w: {x-aether: {command: [./evil]}}}\n" TAIL);
	assert_int_equal(command("refresh"), ERROR_NONE);
	assert_true(trust_is("approved", "false"));
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
	cleanup_free char *hash = xstrdup(scripted_get("w")->hash);

	/* nor is it by a new server */
	env_close(false);
	env_open();
	run_for(300);
	scripted_exit(scripted_get("w"), 1);
	run_for(500);
	assert_string_equal(scripted_get("w")->hash, hash);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(without_a_configuration_a_demand_says_so),
	    T(an_unknown_backend_is_named),
	    T(a_changed_configuration_is_said_and_applied_by_up_alone),
	    T(what_still_stops_is_waited_for),
	    T(what_up_is_about_is_no_change),
	    T(what_stands_still_begins_with_the_new_configuration),
	    T(a_broken_change_lets_what_runs_run),
	    T(a_published_number_that_is_added_later_is_taken_by_up),
	    T(a_changed_env_file_is_a_changed_configuration),
	    T(a_mended_configuration_mends_what_failed),
	    T(a_mended_configuration_mends_what_was_never_ready),
	    T(a_mended_configuration_disturbs_nobody),
	    T(what_was_not_approved_does_not_run),
	    T(what_is_approved_is_what_was_shown),
	    T(a_refresh_reads_what_has_changed),
	    T(an_unapproved_change_starts_nothing),
	    T(what_is_revoked_is_asked_of_the_store),
	};
	return RUN(tests);
}
