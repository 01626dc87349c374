/* The data of an environment's services: discarded, half made, or of other values than today's. */
#include "environment_harness.h"

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

/* ---- first starts ---- */

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

/* ---- today's values ---- */

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

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(a_removed_services_data_goes_to_the_trash),
	    T(half_made_data_goes_to_the_trash),
	    T(half_made_data_of_who_is_wanted_no_more),
	    T(half_made_data_of_another_configuration),
	    T(what_was_ready_or_has_completed_is_settled),
	    T(what_is_there_gets_todays_values),
	    T(what_cannot_have_todays_values_fails_and_runs),
	};
	return RUN(tests);
}
