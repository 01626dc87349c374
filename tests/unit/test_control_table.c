/* The table of virtual files, and what of the control file system needs no mount. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fake_environment.h"
#include "fs/control_private.h"

static int setup(void **state)
{
	fake = calloc(1, sizeof *fake);
	fake->service_count = FAKE_SERVICES;
	fake_environment = calloc(1, sizeof *fake_environment);
	return 0;
}

static int teardown(void **state)
{
	free(fake);
	free(fake_environment);
	return 0;
}

static void every_entry_has_one_text_and_one_name(void **state)
{
	assert_in_range(control_files_count, 1, 255 - CONTROL_FILE_FIRST); /* the index is a byte of the key */
	for (size_t i = 0; i < control_files_count; i++) {
		const struct control_file *file = &control_files[i];
		assert_ptr_equal(control_file_find(file->place, file->name), file); /* no name twice */
		assert_true(!file->render != !file->growing);
		assert_true(file->poll != POLL_UNREAD || file->growing);
		assert_true(strlen(file->name) + sizeof ".aether/" <= CONTROL_HIDDEN_NAME);
		/* nobody but the owner */
		assert_int_equal(file->mode & 0177, 0);
	}
	assert_null(control_file_find(IN_ROOT, "url"));
	assert_null(control_file_find(IN_SERVICE, "ports"));
	assert_null(control_file_find(IN_ROOT, ""));
}

/* name, demand, write, unlink: the design's table */
static void the_table_is_the_designs(void **state)
{
	static const struct {
		enum control_place place;
		const char *name;
		enum control_demand demand;
		enum control_write write;
		enum control_unlink unlink;
	} want[] = {
		{IN_ROOT, "env", DEMAND_ENVIRONMENT, WRITE_TEXT, UNLINK_ENVIRONMENT},
		{IN_ROOT, "ports", DEMAND_ENVIRONMENT, WRITE_REFUSED, UNLINK_ENVIRONMENT},
		{IN_ROOT, "env.json", DEMAND_ENVIRONMENT, WRITE_REFUSED, UNLINK_REFUSED},
		{IN_ROOT, "env.container", DEMAND_ENVIRONMENT, WRITE_REFUSED, UNLINK_REFUSED},
		{IN_ROOT, "env.container.json", DEMAND_ENVIRONMENT, WRITE_REFUSED, UNLINK_REFUSED},
		{IN_ROOT, "env.container.list", DEMAND_ENVIRONMENT, WRITE_REFUSED, UNLINK_REFUSED},
		{IN_ROOT, "compose.yaml", DEMAND_ENVIRONMENT, WRITE_REFUSED, UNLINK_REFUSED},
		{IN_ROOT, "status.json", DEMAND_NONE, WRITE_REFUSED, UNLINK_ENVIRONMENT},
		{IN_ROOT, "env.own", DEMAND_NONE, WRITE_REFUSED, UNLINK_REFUSED},
		{IN_ROOT, "events", DEMAND_NONE, WRITE_REFUSED, UNLINK_REFUSED},
		{IN_ROOT, "ctl", DEMAND_NONE, WRITE_COMMAND, UNLINK_REFUSED},
		{IN_ROOT, "errors.json", DEMAND_NONE, WRITE_REFUSED, UNLINK_ERRORS},
		{IN_SERVICE, "url", DEMAND_SERVICE, WRITE_REFUSED, UNLINK_REFUSED},
		{IN_SERVICE, "host", DEMAND_SERVICE, WRITE_REFUSED, UNLINK_REFUSED},
		{IN_SERVICE, "port", DEMAND_SERVICE, WRITE_REFUSED, UNLINK_REFUSED},
		{IN_SERVICE, "env", DEMAND_SERVICE, WRITE_REFUSED, UNLINK_REFUSED},
		{IN_ENV_FILES, CONTROL_ENV_FILE_PREFIX, DEMAND_FILE, WRITE_TEXT, UNLINK_REFUSED},
		{IN_ROOT, "trust.json", DEMAND_NONE, WRITE_REFUSED, UNLINK_REFUSED},
		{IN_SERVICE, "exec", DEMAND_HELD, WRITE_REFUSED, UNLINK_REFUSED},
		{IN_SERVICE, "state", DEMAND_NONE, WRITE_REFUSED, UNLINK_REFUSED},
		{IN_SERVICE, "log", DEMAND_NONE, WRITE_REFUSED, UNLINK_REFUSED},
	};
	for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
		const struct control_file *file = control_file_find(want[i].place, want[i].name);
		assert_non_null(file);
		assert_int_equal(file->demand, want[i].demand);
		assert_int_equal(file->write, want[i].write);
		assert_int_equal(file->unlink, want[i].unlink);
	}
	assert_int_equal(sizeof want / sizeof *want, control_files_count);
}

static void keys_lead_back_to_file_and_service(void **state)
{
	for (size_t i = 0; i < control_files_count; i++) {
		const struct control_file *file = &control_files[i];
		const char *service = file->place == IN_SERVICE ? "a b" : NULL;
		uint64_t key = control_file_key(file, service);
		assert_ptr_equal(control_file_of(key), file);
		if (service)
			assert_string_equal(control_service_of(fake_environment, key), service);
		else
			assert_null(control_service_of(fake_environment, key));
	}
	assert_null(control_file_of(control_dir_key("db")));
	assert_string_equal(control_service_of(fake_environment, control_dir_key("db")), "db");
	assert_int_not_equal(control_dir_key("db"), control_dir_key("cache"));
	/* another order of services, as after a reload, changes no key; a service that is gone leads nowhere */
	uint64_t cache = control_dir_key("cache");
	fake->service_count = 1;
	assert_null(control_service_of(fake_environment, cache));
	assert_null(control_file_of(0xff));
}

static void only_signals_that_end_a_program_end_a_wait(void **state)
{
	static const struct {
		const char *status;
		bool ends;
	} cases[] = {
		{"Name:\tx\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\nSigBlk:\t0000000000000000\n", false},
		{"Name:\tx\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000002\nSigBlk:\t0000000000000000\n", true},  /* INT */
		{"Name:\tx\nSigPnd:\t0000000000004000\nShdPnd:\t0000000000000000\nSigBlk:\t0000000000000000\n", true},  /* TERM */
		{"Name:\tx\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\nSigBlk:\t0000000000000000\n", true},  /* KILL */
		{"Name:\tx\nSigPnd:\t0000000000000001\nShdPnd:\t0000000000000000\nSigBlk:\t0000000000000000\n", true},  /* HUP */
		{"Name:\tx\nSigPnd:\t0000000000000004\nShdPnd:\t0000000000000000\nSigBlk:\t0000000000000000\n", true},  /* QUIT */
		{"Name:\tx\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000002\nSigBlk:\t0000000000000002\n", false}, /* blocked */
		{"Name:\tx\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000010000\nSigBlk:\t0000000000000000\n", false}, /* CHLD */
		{"Name:\tx\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000080000\nSigBlk:\t0000000000000000\n", false}, /* TSTP */
		{"Name:\tx\nSigPnd:\t0000000008000000\nShdPnd:\t0000000000000000\nSigBlk:\t0000000000000000\n", false}, /* WINCH */
		{"", false},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		assert_int_equal(control_signal_ends(cases[i].status), cases[i].ends);
}

/* ---- events and logs ---------------------------------------------------------------------------------------------- */

static void add_events(const char *text)
{
	memcpy(fake->events + fake->events_end, text, strlen(text));
	fake->events_end += strlen(text);
}

static void events_begin_at_the_oldest_kept(void **state)
{
	const struct control_growing *events = control_file_find(IN_ROOT, "events")->growing;
	struct shared_version node = {0};
	char buf[64] = "";
	add_events("one\ntwo\nthree\n");
	uint64_t offset = 4;
	assert_int_equal(events->read(fake_environment, NULL, &node, &offset, buf, 3), 3);
	assert_memory_equal(buf, "two", 3);
	assert_int_equal(offset, 4);
	fake->events_begin = 8;
	offset = 4;
	assert_int_equal(events->read(fake_environment, NULL, &node, &offset, buf, sizeof buf), 6);
	assert_int_equal(offset, 8);
	assert_memory_equal(buf, "three\n", 6);
	offset = 14;
	assert_int_equal(events->read(fake_environment, NULL, &node, &offset, buf, sizeof buf), 0);
	assert_int_equal(events->size(fake_environment, NULL, &node), 14);
}

static void put(const char *path, const char *text, bool append)
{
	FILE *f = fopen(path, append ? "a" : "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void expect_log(struct shared_version *node, uint64_t offset, uint64_t from, const char *text)
{
	char buf[64] = "";
	size_t n = control_log.read(fake_environment, "db", node, &offset, buf, sizeof buf - 1);
	assert_int_equal(offset, from);
	buf[n] = 0;
	assert_string_equal(buf, text);
}

static void a_log_goes_on_when_it_is_rotated(void **state)
{
	char dir[] = "/tmp/log.XXXXXX", rotated[64];
	assert_non_null(mkdtemp(dir));
	struct shared_version node = {0};
	assert_int_equal(control_log.size(fake_environment, "db", &node), 0); /* none yet */
	snprintf(fake->log, sizeof fake->log, "%s/log", dir);
	snprintf(rotated, sizeof rotated, "%s/log.1", dir);
	assert_int_equal(control_log.size(fake_environment, "db", &node), 0);
	put(fake->log, "first\n", false);
	expect_log(&node, 0, 0, "first\n");
	expect_log(&node, 6, 6, "");
	put(fake->log, "late\n", true); /* not read before the rotation */
	assert_return_code(rename(fake->log, rotated), errno);
	put(fake->log, "second\n", false);
	assert_int_equal(control_log.size(fake_environment, "db", &node), 18);
	expect_log(&node, 6, 6, "late\n");
	expect_log(&node, 11, 11, "second\n");
	/* who begins now, begins with what is kept: here all */
	expect_log(&node, 0, 0, "first\nlate\n");
	/* the old one is gone: then with the new one */
	assert_return_code(unlink(rotated), errno);
	expect_log(&node, 0, 11, "second\n");
	/* cut short in place */
	put(fake->log, "x\n", false);
	assert_int_equal(control_log.size(fake_environment, "db", &node), 20);
	expect_log(&node, 18, 18, "x\n");
	unlink(fake->log);
	rmdir(dir);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(every_entry_has_one_text_and_one_name),
		T(the_table_is_the_designs),
		T(keys_lead_back_to_file_and_service),
		T(only_signals_that_end_a_program_end_a_wait),
		T(events_begin_at_the_oldest_kept),
		T(a_log_goes_on_when_it_is_rotated),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
