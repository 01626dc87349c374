/* The process backend's data directories: made once, copied ahead, given away by a rename; and nothing half made is
 * ever taken for whole. */
#include "tests/contract/backend_world.h"

#include <sys/prctl.h>

/* A service whose data directory comes from a template that counts how often it is made. */
struct database {
	struct service s;
	char *data, *run_dir, *out, *script, *mark;
	char *argv[4];
	char *const *init[2];
	const char *input[2];
};

static void database_init(struct world *w, struct database *db, const char *name, const char *then)
{
	*db = (struct database){0};
	db->mark = unique_sleep();
	db->out = xasprintf("%s/out", w->dir);
	if (mkdir(db->out, 0777) == 0)
		assert_int_equal(chmod(db->out, 0777), 0);
	service_init(&db->s, name, FOREVER);
	db->data = xasprintf("%s/data/1/%s", w->state, name);
	db->run_dir = xasprintf("%s/run/%s", w->state, name);
	db->script =
	    xasprintf("echo made >> %s/made; mkdir {{data}}/sub; cat > {{data}}/sub/input; echo whole > {{data}}/whole; %s",
	              db->out, then);
	db->argv[0] = (char *)"sh";
	db->argv[1] = (char *)"-c";
	db->argv[2] = db->script;
	db->init[0] = db->argv;
	db->input[0] = "for {{data}}";
	db->s.process.data_dir = db->data;
	db->s.process.run_dir = db->run_dir;
	db->s.process.template_key = "test-1";
	db->s.process.init = db->init;
	db->s.process.init_stdin = db->input;
	db->s.process.init_env = &db->s.env;
}

static void database_release(struct database *db)
{
	service_release(&db->s);
	char *all[] = {db->data, db->run_dir, db->out, db->script, db->mark};
	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
		free(all[i]);
}
#define DATABASE __attribute__((cleanup(database_release))) struct database

static int times_made(const struct database *db)
{
	cleanup_free char *text = read_text("%s/made", db->out);
	return (int)(strlen(text) / strlen("made\n"));
}

static void assert_whole(const struct database *db)
{
	cleanup_free char *whole = read_text("%s/whole", db->data), *input = read_text("%s/sub/input", db->data);
	assert_string_equal(whole, "whole\n");
	assert_true(!strncmp(input, "for /", 5));
	struct stat st;
	assert_int_equal(stat(db->data, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(st.st_uid, geteuid() ? geteuid() : SERVICES_UID);
	cleanup_free char *inner = xasprintf("%s/sub/input", db->data);
	assert_int_equal(stat(inner, &st), 0);
	assert_int_equal(st.st_uid, geteuid() ? geteuid() : SERVICES_UID);
}

static int count_in(const char *dir, const char *end)
{
	int count = 0;
	cleanup_closedir DIR *d = opendir(dir);
	for (struct dirent *e; d && (e = readdir(d));) {
		size_t n = strlen(e->d_name), m = strlen(end);
		count += e->d_name[0] != '.' && n >= m && !strcmp(e->d_name + n - m, end);
	}
	return count;
}

/* Complete spare copies, whatever boot. */
static int spares(const struct world *w)
{
	cleanup_free char *dir = xasprintf("%s/spares", w->shared);
	return count_in(dir, ".0") + count_in(dir, ".1");
}

static void prepare(struct world *w, const struct database *db)
{
	OUTCOME o = {0};
	backend_prepare(w->b, &db->s.spec, on_done, &o);
	assert_int_equal(o.calls, 0);
	await_calls(w, &o.calls, 1);
	must(o);
}

/* ---- */

static void made_once_and_cloned(void **state)
{
	struct world *w = *state;
	DATABASE a, b;
	database_init(w, &a, "a", "");
	database_init(w, &b, "b", "");
	start(w, &a.s);
	start(w, &b.s);
	assert_whole(&a);
	assert_whole(&b);
	assert_int_equal(times_made(&a), 1);
	assert_true(exists("%s/run/a", w->state));
}

static void prepared_ahead_and_claimed(void **state)
{
	struct world *w = *state;
	DATABASE a, b;
	database_init(w, &a, "a", "");
	database_init(w, &b, "b", "");
	prepare(w, &a);
	assert_int_equal(spares(w), 2);
	assert_int_equal(look(w, "a").state, INSTANCE_ABSENT);
	OUTCOME x = {0}, y = {0}; /* two claim at once */
	backend_start(w->b, &a.s.spec, on_done, &x);
	backend_start(w->b, &b.s.spec, on_done, &y);
	await_calls(w, &x.calls, 1);
	await_calls(w, &y.calls, 1);
	must(x);
	must(y);
	assert_int_equal(spares(w), 0);
	assert_whole(&a);
	assert_whole(&b);
	assert_int_equal(times_made(&a), 1);
	for (int i = 0; i < 200 && spares(w) < 2; i++) /* made again when all is quiet */
		nap(w, 50);
	assert_int_equal(spares(w), 2);
	prepare(w, &a);
	assert_int_equal(spares(w), 2);
	assert_int_equal(times_made(&a), 1);
}

static void what_is_there_is_never_touched(void **state)
{
	struct world *w = *state;
	DATABASE db;
	database_init(w, &db, "a", "");
	start(w, &db.s);
	cleanup_free char *own = xasprintf("%s/own", db.data), *whole = xasprintf("%s/whole", db.data);
	assert_int_equal(file_write_atomic(AT_FDCWD, own, "precious", 8, 0600), 0);
	assert_int_equal(unlink(whole), 0);
	discard(w, "a");
	start(w, &db.s);
	cleanup_free char *text = read_text("%s", own);
	assert_string_equal(text, "precious");
	assert_false(exists("%s", whole));
}

/* What the configuration says now reaches data that is there: once, and not when the data was made by it. */
static void old_data_learns_new_values(void **state)
{
	struct world *w = *state;
	DATABASE db;
	database_init(w, &db, "a", "");
	cleanup_free char *script = xasprintf("cat >> {{data}}/values; echo >> {{data}}/values; exit $(cat %s/code 2>/dev/null || echo 0)", db.out);
	char *argv[] = {(char *)"sh", (char *)"-c", script, NULL};
	char *const *steps[] = {argv, NULL};
	const char *input[] = {"two", NULL};
	db.s.process.adapt = steps;
	db.s.process.adapt_stdin = input;
	db.s.process.adapt_key = "one";
	start(w, &db.s);
	assert_false(exists("%s/values", db.data));
	stop(w, "a", SIGTERM, 1000);
	start(w, &db.s);
	assert_false(exists("%s/values", db.data));
	stop(w, "a", SIGTERM, 1000);
	db.s.process.adapt_key = "two";
	for (int i = 0; i < 2; i++) {
		start(w, &db.s);
		cleanup_free char *values = read_text("%s/values", db.data);
		assert_string_equal(values, "two\n");
		stop(w, "a", SIGTERM, 1000);
	}
	cleanup_free char *mark = xasprintf("%s/.aether-values", db.data), *code = xasprintf("%s/code", db.out);
	struct stat st;
	assert_int_equal(stat(mark, &st), 0);
	assert_int_equal(st.st_uid, geteuid() ? geteuid() : SERVICES_UID);
	assert_whole(&db);

	db.s.process.adapt_key = "three";
	assert_int_equal(file_write_atomic(AT_FDCWD, code, "3", 1, 0644), 0);
	OUTCOME o = {0};
	backend_start(w->b, &db.s.spec, on_done, &o);
	await_calls(w, &o.calls, 1);
	assert_int_equal(o.code, ERROR_BACKEND_SPAWN_FAILED);
	assert_non_null(strstr(o.message, "other values"));
	assert_whole(&db); /* still the service's own */
	assert_int_equal(unlink(code), 0);
	start(w, &db.s); /* and tried again */
}

static void an_empty_directory_is_filled(void **state)
{
	struct world *w = *state;
	DATABASE db;
	database_init(w, &db, "a", "");
	assert_int_equal(dir_make(AT_FDCWD, db.data, 0711), 0);
	start(w, &db.s);
	assert_whole(&db);
}

static void without_a_template_it_begins_empty(void **state)
{
	struct world *w = *state;
	DATABASE db;
	database_init(w, &db, "a", "");
	db.s.process.init = NULL;
	start(w, &db.s);
	struct stat st;
	assert_int_equal(stat(db.data, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(st.st_uid, geteuid() ? geteuid() : SERVICES_UID);
	assert_int_equal(stat(db.run_dir, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(st.st_uid, geteuid() ? geteuid() : SERVICES_UID);
	assert_int_equal(times_made(&db), 0);
}

static void data_of_another_uid_changes_hands(void **state)
{
	struct world *w = *state;
	if (geteuid())
		skip_saying("data_of_another_uid_changes_hands", "needs root");
	DATABASE db;
	database_init(w, &db, "a", "");
	start(w, &db.s);
	discard(w, "a");
	assert_int_equal(tree_chown(AT_FDCWD, db.data, SERVICES_UID + 1, SERVICES_UID + 1), 0);
	start(w, &db.s);
	assert_whole(&db);
}

static void a_stale_lock_of_postgres_goes(void **state)
{
	struct world *w = *state;
	DATABASE db;
	database_init(w, &db, "a", "");
	start(w, &db.s);
	cleanup_free char *lock = xasprintf("%s/postmaster.pid", db.data),
	                  *socket = xasprintf("%s/.s.PGSQL.1.lock", db.run_dir);
	assert_int_equal(file_write_atomic(AT_FDCWD, lock, "1\n", 2, 0600), 0);
	assert_int_equal(file_write_atomic(AT_FDCWD, socket, "1\n", 2, 0600), 0);
	start(w, &db.s); /* it runs: nothing is touched */
	assert_true(exists("%s", lock) && exists("%s", socket));
	stop(w, "a", SIGTERM, 1000);
	start(w, &db.s);
	assert_false(exists("%s", lock) || exists("%s", socket));
}

static void a_failed_step_says_why_and_leaves_nothing(void **state)
{
	struct world *w = *state;
	DATABASE bad, good;
	database_init(w, &bad, "a", "echo some words; echo the reason >&2; exit 3");
	OUTCOME o = {0};
	backend_start(w->b, &bad.s.spec, on_done, &o);
	await_calls(w, &o.calls, 1);
	assert_int_equal(o.code, ERROR_BACKEND_SPAWN_FAILED);
	assert_non_null(strstr(o.message, "ended with 3: the reason"));
	assert_string_equal(json_string_value(json_object_get(o.details, "output")), "some words\nthe reason\n");
	assert_false(exists("%s", bad.data));
	assert_false(exists("%s/templates/test-1", w->shared));
	assert_false(exists("%s/templates/test-1.tmp", w->shared));
	assert_false(exists("%s.making", bad.data));
	database_init(w, &good, "a", "");
	start(w, &good.s);
	assert_whole(&good);
}

static void a_missing_program_of_a_step_is_named(void **state)
{
	struct world *w = *state;
	DATABASE db;
	database_init(w, &db, "a", "");
	db.argv[0] = (char *)"no-such-initdb";
	OUTCOME o = {0};
	backend_start(w->b, &db.s.spec, on_done, &o);
	await_calls(w, &o.calls, 1);
	assert_int_equal(o.code, ERROR_PROGRAM_NOT_FOUND);
	assert_non_null(strstr(o.message, "no-such-initdb"));
	assert_false(exists("%s/templates/test-1", w->shared));
}

static void closing_ends_a_step(void **state)
{
	struct world *w = *state;
	DATABASE db;
	database_init(w, &db, "a", "");
	cleanup_free char *slow = xasprintf("sleep %s", db.mark);
	db.argv[2] = slow;
	OUTCOME a = {0}, b = {0};
	backend_start(w->b, &db.s.spec, on_done, &a);
	backend_prepare(w->b, &db.s.spec, on_done, &b);
	nap(w, 100);
	assert_int_equal(processes_with(db.mark, NULL) > 0, 1);
	uint64_t before = now_monotonic_ms();
	world_close(w);
	assert_true(now_monotonic_ms() - before < 5000);
	assert_int_equal(a.calls, 1);
	assert_int_equal(a.code, ERROR_CANCELED);
	assert_int_equal(b.calls, 1);
	assert_int_equal(b.code, ERROR_CANCELED);
	assert_int_equal(processes_with(db.mark, NULL), 0);
	assert_false(exists("%s/templates/test-1", w->shared));
}

/* A world of a forked process's own over the same shared directory. */
static void world_of_child(struct world *own, const struct world *w, int n)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	*own = *w;
	own->state = xasprintf("%s/state%d", w->dir, n);
	mkdir(own->state, 0711);
	uv_loop_init(&own->loop);
	uv_timer_init(&own->loop, &own->guard);
	world_open(own);
}

static void four_processes_make_one(void **state)
{
	struct world *w = *state;
	world_close(w);
	pid_t children[4];
	for (int i = 0; i < 4; i++) {
		children[i] = fork();
		if (children[i])
			continue;
		struct world own;
		world_of_child(&own, w, i);
		DATABASE db;
		database_init(&own, &db, "db", "sleep 0.3");
		start(&own, &db.s);
		assert_whole(&db);
		prepare(&own, &db);
		discard(&own, "db");
		_exit(0);
	}
	for (int i = 0; i < 4; i++) {
		int status;
		waitpid(children[i], &status, 0);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	world_open(w);
	DATABASE db;
	database_init(w, &db, "db", "");
	assert_int_equal(times_made(&db), 1);
	assert_int_equal(spares(w), 2);
}

/* Killed at many moments: what has a final name is whole, and the next one gets on with it. */
static void killed_while_making(void **state)
{
	struct world *w = *state;
	world_close(w);
	for (int i = 0; i < 12; i++) {
		pid_t child = fork();
		if (!child) {
			struct world own;
			world_of_child(&own, w, i);
			DATABASE db;
			database_init(&own, &db, "db", "sleep 0.02");
			OUTCOME o = {0};
			backend_prepare(own.b, &db.s.spec, on_done, &o);
			await_calls(&own, &o.calls, 1);
			start(&own, &db.s);
			for (;;)
				pause();
		}
		usleep((useconds_t)(i * 6000));
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		cleanup_free char *made = xasprintf("%s/templates/test-1", w->shared);
		if (exists("%s", made))
			assert_true(exists("%s/whole", made));
	}
	world_open(w);
	DATABASE db;
	database_init(w, &db, "db", "");
	start(w, &db.s);
	assert_whole(&db);
	prepare(w, &db);
	assert_int_equal(spares(w), 2);
	cleanup_free char *templates = xasprintf("%s/templates", w->shared), *copies = xasprintf("%s/spares", w->shared);
	assert_int_equal(count_in(templates, ".tmp") + count_in(copies, ".tmp"), 0);
}

static void remains_are_swept(void **state)
{
	struct world *w = *state;
	static const char *const stale[] = {"spares/test-1.00000000.0", "spares/other.00000000.1", "spares/gone.tmp",
	                                    "templates/gone.tmp", "templates/old"};
	static const char *const kept[] = {"templates/young"};
	for (size_t i = 0; i < sizeof stale / sizeof stale[0]; i++) {
		cleanup_free char *path = xasprintf("%s/%s/x", w->shared, stale[i]);
		assert_int_equal(dir_make(AT_FDCWD, path, 0711), 0);
	}
	cleanup_free char *young = xasprintf("%s/%s/x", w->shared, kept[0]);
	assert_int_equal(dir_make(AT_FDCWD, young, 0711), 0);
	static const char *const locks[] = {"templates/old.lock", "templates/young.lock"};
	for (size_t i = 0; i < 2; i++) {
		cleanup_free char *path = xasprintf("%s/%s", w->shared, locks[i]);
		assert_int_equal(file_write_atomic(AT_FDCWD, path, "", 0, 0600), 0);
		struct timespec long_ago[2] = {{0, 0}, {time(NULL) - 40 * 24 * 3600, 0}};
		if (!i)
			assert_int_equal(utimensat(AT_FDCWD, path, long_ago, 0), 0);
	}
	DATABASE db;
	database_init(w, &db, "a", "");
	prepare(w, &db);
	for (size_t i = 0; i < sizeof stale / sizeof stale[0]; i++)
		if (exists("%s/%s", w->shared, stale[i]))
			fail_msg("%s is still there", stale[i]);
	assert_true(exists("%s/%s", w->shared, kept[0]));
	assert_int_equal(spares(w), 2);
}

static void removal_spares_the_data(void **state)
{
	struct world *w = *state;
	DATABASE db;
	database_init(w, &db, "a", "");
	start(w, &db.s);
	assert_true(exists("%s", db.run_dir));
	discard(w, "a");
	assert_whole(&db);
	assert_false(exists("%s", db.run_dir));
}

static int setup(void **state)
{
	struct world *w = xcalloc(1, sizeof *w);
	*state = w;
	return world_begin(w, "process");
}

static int teardown(void **state)
{
	struct world *w = *state;
	world_end(w);
	free(w);
	return 0;
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(made_once_and_cloned),
	    T(prepared_ahead_and_claimed),
	    T(what_is_there_is_never_touched),
	    T(old_data_learns_new_values),
	    T(an_empty_directory_is_filled),
	    T(without_a_template_it_begins_empty),
	    T(data_of_another_uid_changes_hands),
	    T(a_stale_lock_of_postgres_goes),
	    T(a_failed_step_says_why_and_leaves_nothing),
	    T(a_missing_program_of_a_step_is_named),
	    T(closing_ends_a_step),
	    T(four_processes_make_one),
	    T(killed_while_making),
	    T(remains_are_swept),
	    T(removal_spares_the_data),
	};
	return cmocka_run_group_tests_name("templates", tests, NULL, NULL);
}
