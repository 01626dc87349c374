/* provisioner/native: what is placed in a workspace goes again, and the user's own file is what it was. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "provisioner/env_name.h"
#include "provisioner/envfile.h"
#include "provisioner/native.h"

static char *top;
static struct identity id;
static int root_fd = -1;

static int setup(void **state)
{
	char template[] = "/tmp/aether-native.XXXXXX";
	top = xstrdup(mkdtemp(template));
	id = (struct identity){.kind = WORKSPACE_PLAIN, .root = top, .env_name = ENV_NAME_DEFAULT, .control_dir = xasprintf("%s/run/aether-0-x", top)};
	root_fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return root_fd < 0;
}

static int teardown(void **state)
{
	close(root_fd);
	free(id.control_dir);
	int r = tree_remove(AT_FDCWD, top);
	free(top);
	return r;
}

static void put(const char *name, const char *text)
{
	assert_int_equal(file_write_atomic(root_fd, name, text, strlen(text), 0640), 0);
}

static void holds(const char *name, const char *text)
{
	cleanup_buffer struct buffer now = BUFFER_INIT;
	assert_int_equal(file_read(root_fd, name, 1 << 16, &now), 0);
	assert_string_equal(buffer_str(&now), text);
}

static bool is_there(const char *name)
{
	struct stat st;
	return !fstatat(root_fd, name, &st, AT_SYMLINK_NOFOLLOW);
}

static void place(enum native_kind kind)
{
	cleanup_error struct error err = ERROR_INIT;
	if (native_place(&id, root_fd, kind, &err))
		fail_msg("%s", err.message);
	assert_int_equal(native_find(root_fd), kind);
}

static void take_away(void)
{
	assert_int_equal(native_take_away(root_fd, NULL), 0);
	assert_int_equal(native_find(root_fd), NATIVE_NONE);
	assert_false(is_there(NATIVE_DIRECTORY) || is_there(".env.user"));
}

static void links_come_and_go(void **state)
{
	put(".env", "A=1\r\n# no newline");
	place(NATIVE_LINKS);
	assert_true(native_env_is_ours(&id, root_fd));
	holds(".env.user", "A=1\r\n# no newline");
	place(NATIVE_LINKS); /* over what a killed one left */
	take_away();
	holds(".env", "A=1\r\n# no newline");
	take_away();
}

static void nothing_was_there(void **state)
{
	place(NATIVE_LINKS);
	take_away();
	assert_false(is_there(".env"));
	place(NATIVE_PLAIN);
	put(".env", ENVFILE_BEGIN "\nB=1\n" ENVFILE_END "\n");
	take_away();
	assert_false(is_there(".env"));
}

static void a_link_stays_a_link(void **state)
{
	char target[16] = "";
	assert_int_equal(symlinkat("elsewhere", root_fd, ".env"), 0);
	place(NATIVE_PLAIN);
	put(".env", ENVFILE_BEGIN "\nB=1\n" ENVFILE_END "\n");
	take_away();
	assert_int_equal(readlinkat(root_fd, ".env", target, sizeof target - 1), 9);
	assert_string_equal(target, "elsewhere");
}

static void a_deleted_link_comes_back(void **state)
{
	put(".env", "A=1\n");
	place(NATIVE_LINKS);
	assert_int_equal(unlinkat(root_fd, ".env", 0), 0);
	assert_int_equal(unlinkat(root_fd, NATIVE_DIRECTORY, 0), 0);
	assert_int_equal(native_place_links(&id, root_fd, NULL), 0);
	assert_true(native_env_is_ours(&id, root_fd));
	assert_int_equal(native_find(root_fd), NATIVE_LINKS);
	holds(".env.user", "A=1\n");
}

static void lines_that_nobody_took_in(void **state)
{
	put(".env", "A=1\nB=2\n");
	place(NATIVE_PLAIN);
	put(".env", "A=1\n#~ B=2\n" ENVFILE_BEGIN "\nB=9\n" ENVFILE_END "\nLATE=1\n");
	take_away();
	holds(".env", "A=1\nB=2\nLATE=1\n");
	/* and a whole file in its place is the newer one */
	place(NATIVE_PLAIN);
	put(".env", "C=1\n");
	take_away();
	holds(".env", "C=1\n");
}

static void another_name(void **state)
{
	put(".env", "TRACKED=1\n");
	put(".env.local", "A=1\n");
	id.env_name = env_names[1];
	place(NATIVE_LINKS);
	holds(".env", "TRACKED=1\n");
	holds(".env.local.user", "A=1\n");
	id.env_name = env_names[0]; /* it is no longer tracked */
	assert_int_equal(native_place_links(&id, root_fd, NULL), 0);
	holds(".env.local", "A=1\n");
	holds(".env.user", "TRACKED=1\n");
	take_away();
	holds(".env", "TRACKED=1\n");
}

static void another_name_of_a_plain_file(void **state)
{
	put(".env", "A=1\n");
	put(".env.local", "L=1\n");
	place(NATIVE_PLAIN);
	put(".env", "A=1\n" ENVFILE_BEGIN "\nB=9\n" ENVFILE_END "\n");
	id.env_name = env_names[1]; /* a commit tracks it */
	assert_int_equal(native_rename_env(&id, root_fd, NULL), 0);
	holds(".env", "A=1\n");
	holds(".env.local.user", "L=1\n");
	assert_false(is_there(".env.user") || is_there(".env.local"));
	put(".env.local", "L=1\n" ENVFILE_BEGIN "\nB=9\n" ENVFILE_END "\n");
	take_away();
	holds(".env", "A=1\n");
	holds(".env.local", "L=1\n");
}

static void what_is_not_ours(void **state)
{
	cleanup_error struct error err = ERROR_INIT;
	put(".env.user", "mine\n");
	assert_int_equal(native_place(&id, root_fd, NATIVE_LINKS, &err), -EEXIST);
	error_release(&err);
	assert_int_equal(unlinkat(root_fd, ".env.user", 0), 0);
	/* a commit may bring a copy of a plain workspace's directory */
	assert_int_equal(mkdirat(root_fd, NATIVE_DIRECTORY, 0755), 0);
	put(NATIVE_DIRECTORY "/.placed", "made by aetherfs, removed by it: 1\n");
	put(NATIVE_DIRECTORY "/status.json", "{}\n");
	assert_int_equal(native_find(root_fd), NATIVE_NONE);
	assert_int_equal(native_take_away(root_fd, NULL), 0);
	assert_int_equal(native_place(&id, root_fd, NATIVE_PLAIN, &err), -EEXIST);
	assert_true(is_there(NATIVE_DIRECTORY "/status.json") && err.hint);
}

static void a_copy_has_the_users_lines(void **state)
{
	put(".env", "A=1\n");
	place(NATIVE_PLAIN);
	put(".env", "A=1\n" ENVFILE_BEGIN "\nB=9\n" ENVFILE_END "\n");
	put(NATIVE_DIRECTORY "/.placed", "made by aetherfs, removed by it: 1\n"); /* another's number */
	assert_int_equal(native_find(root_fd), NATIVE_COPY);
	place(NATIVE_PLAIN); /* replaces what was generated */
	holds(".env.user", "A=1\n");
	assert_false(is_there(".env"));
	put(NATIVE_DIRECTORY "/.placed", "made by aetherfs, removed by it: 1\n");
	put(".env", "A=1\n" ENVFILE_BEGIN "\nB=9\n" ENVFILE_END "\nLATE=1\n");
	take_away();
	holds(".env", "A=1\nLATE=1\n");
	/* and over it links may be placed */
	place(NATIVE_PLAIN);
	put(NATIVE_DIRECTORY "/.placed", "made by aetherfs, removed by it: 1\n");
	place(NATIVE_LINKS);
	take_away();
	holds(".env", "A=1\nLATE=1\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(links_come_and_go, setup, teardown),
		cmocka_unit_test_setup_teardown(nothing_was_there, setup, teardown),
		cmocka_unit_test_setup_teardown(a_link_stays_a_link, setup, teardown),
		cmocka_unit_test_setup_teardown(a_deleted_link_comes_back, setup, teardown),
		cmocka_unit_test_setup_teardown(lines_that_nobody_took_in, setup, teardown),
		cmocka_unit_test_setup_teardown(another_name, setup, teardown),
		cmocka_unit_test_setup_teardown(another_name_of_a_plain_file, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_not_ours, setup, teardown),
		cmocka_unit_test_setup_teardown(a_copy_has_the_users_lines, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
