/* The user's own lines of .env: read, written and kept. */
#include "environment_harness.h"

static char *real_env(void)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	return file_read(root_fd, ".env", 1 << 16, &text) < 0 ? NULL : buffer_detach(&text);
}

static void the_users_lines_stay_the_users(void **state)
{
	compose(ONE TAIL);
	assert_int_equal(file_write_atomic(root_fd, ".env", "A=1\nDB_HOST=db\n", 15, 0640), 0);
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_true(env_has("A=1"));
	assert_true(env_has("#~ DB_HOST=db"));
	assert_true(env_has("DB_HOST=127.0.0.1"));
	json_t *json = status();
	json_t *rewrite = json_array_get(json_object_get(json, "rewrites"), 0);
	assert_string_equal(json_string_value(json_object_get(rewrite, "key")), "DB_HOST");
	json_decref(json);

	/* :wq changes nothing */
	cleanup_buffer struct buffer text = BUFFER_INIT;
	assert_int_equal(environment_env(env, &text, NULL), 0);
	assert_int_equal(environment_write_env(env, text.data, text.len, NULL), 0);
	cleanup_free char *same = real_env();
	assert_string_equal(same, "A=1\nDB_HOST=db\n");

	/* a line more is the user's, beneath, with the old mode */
	changed_mask = 0;
	buffer_adds(&text, "B=2\n");
	assert_int_equal(environment_write_env(env, text.data, text.len, NULL), 0);
	cleanup_free char *more = real_env();
	assert_non_null(strstr(more, "B=2\n"));
	assert_null(strstr(more, "DB_PORT"));
	struct stat st;
	assert_int_equal(fstatat(root_fd, ".env", &st, 0), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
	assert_true(env_has("B=2"));
	run_for(5);
	assert_true(changed_mask & CHANGED_ENV && changed_mask & CHANGED_ENV_OWN);

	cleanup_buffer struct buffer own = BUFFER_INIT;
	environment_env_own(env, &own);
	assert_string_equal(buffer_str(&own), more);

	/* edited behind our back: read anew */
	assert_int_equal(file_write_atomic(root_fd, ".env", "C=3\n", 4, 0600), 0);
	assert_true(env_has("C=3"));
	assert_false(env_has("A=1"));

	cleanup_buffer struct buffer json_text = BUFFER_INIT;
	assert_int_equal(environment_env_json(env, &json_text, NULL), 0);
	json = json_loads(buffer_str(&json_text), 0, NULL);
	assert_string_equal(json_string_value(json_object_get(json, "C")), "3");
	assert_string_equal(json_string_value(json_object_get(json, "DB_HOST")), "127.0.0.1");
	json_decref(json);
}

static void nothing_written_makes_no_file(void **state)
{
	compose(ONE TAIL);
	env_open();
	run_for(100);
	cleanup_buffer struct buffer text = BUFFER_INIT;
	assert_int_equal(environment_env(env, &text, NULL), 0);
	assert_int_equal(environment_write_env(env, text.data, text.len, NULL), 0);
	assert_null(real_env());
}

static void a_link_to_anothers_lines_is_read_through(void **state)
{
	compose(ONE TAIL);
	cleanup_free char *shared = xasprintf("%s/shared.env", scratch);
	assert_int_equal(file_write_atomic(AT_FDCWD, shared, "SHARED=1\n", 9, 0600), 0);
	assert_int_equal(symlinkat("../shared.env", root_fd, ".env"), 0);
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_true(env_has("SHARED=1"));
	assert_int_equal(environment_write_env(env, "SHARED=2\n", 9, NULL), 0);
	struct stat st;
	assert_int_equal(fstatat(root_fd, ".env", &st, AT_SYMLINK_NOFOLLOW), 0);
	assert_true(S_ISLNK(st.st_mode));
	cleanup_buffer struct buffer text = BUFFER_INIT;
	assert_int_equal(file_read(AT_FDCWD, shared, 100, &text), 0);
	assert_string_equal(buffer_str(&text), "SHARED=2\n");
}

static void the_users_lines_rest_with_the_data(void **state)
{
	compose(ONE TAIL);
	assert_int_equal(file_write_atomic(root_fd, ".env", "A=1\n", 4, 0600), 0);
	env_open();
	assert_int_equal(ask(NULL), ERROR_NONE);
	assert_int_equal(command("destroy"), ERROR_NONE);
	assert_null(real_env());
	assert_false(env_has("A=1"));
	struct store *store;
	struct trash_entry *entries;
	size_t count;
	assert_int_equal(store_open(id.shared_dir, &store, NULL), 0);
	assert_int_equal(store_trash_list(store, id.namespace_, &entries, &count, NULL), 0);
	assert_int_equal(count, 1);
	assert_true(entries[0].has_env);
	trash_entries_free(entries, count);
	store_close(store);
}

/* ---- another name for .env ---- */

static void a_tracked_file_is_a_layer_beneath(void **state)
{
	static const char tracked[] = "A=1\nB=1\n", own[] = "B=2";
	cleanup_error struct error err = ERROR_INIT;
	compose(ONE TAIL);
	assert_int_equal(file_write_atomic(root_fd, ".env", tracked, sizeof tracked - 1, 0644), 0);
	env_open();
	assert_int_equal(command("reload"), ERROR_NONE);
	assert_true(env_has("B=1"));
	assert_int_equal(env_name_write(id.shared_dir, id.repository, ".env.local", "", NULL, &err), 0);
	assert_int_equal(command("reload"), ERROR_NONE);
	run_for(50);
	assert_string_equal(id.env_name, ".env.local");
	assert_true(env_has("A=1"));
	assert_int_equal(environment_write_env(env, own, sizeof own - 1, &err), 0);
	assert_true(env_has("A=1"));
	assert_true(env_has("B=2"));
	assert_false(env_has("B=1"));
	/* a teardown takes the user's lines, and not what is tracked */
	assert_int_equal(faccessat(root_fd, ".env.local", F_OK, 0), 0);
	assert_int_equal(command("destroy"), ERROR_NONE);
	assert_int_equal(faccessat(root_fd, ".env.local", F_OK, 0), -1);
	assert_int_equal(faccessat(root_fd, ".env", F_OK, 0), 0);
	assert_int_equal(env_name_write(id.shared_dir, id.repository, ".env", "", NULL, &err), 0);
	assert_int_equal(command("reload"), ERROR_NONE);
	run_for(50);
	assert_string_equal(id.env_name, ".env");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(the_users_lines_stay_the_users),
	    T(nothing_written_makes_no_file),
	    T(a_link_to_anothers_lines_is_read_through),
	    T(the_users_lines_rest_with_the_data),
	    T(a_tracked_file_is_a_layer_beneath),
	};
	return RUN(tests);
}
