/* Which mounts an engine may look into, by the mount table's words. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "backends/engine_view.h"
#include "base/file.h"

static const char table_text[] =
    "/dev/sda1 / ext4 rw,relatime 0 0\n"
    "aetherfs /src/mine fuse.aetherfs rw,nosuid,nodev,user_id=1000,group_id=1000,default_permissions 0 0\n"
    "aetherfs /src/shared fuse.aetherfs rw,nosuid,nodev,user_id=1000,group_id=1000,default_permissions,allow_other 0 0\n"
    "aetherfs /src/root\\040s fuse.aetherfs rw,user_id=0,group_id=0,default_permissions 0 0\n"
    "aetherfs /src/covered fuse.aetherfs rw,user_id=1000,group_id=1000 0 0\n"
    "tmpfs /src/covered tmpfs rw 0 0\n"
    "tmpfs /src/mine/native tmpfs rw 0 0\n"
    "tmpfs /a tmpfs rw 0 0\n";

static char table[] = "/tmp/test_engine_view.XXXXXX";

static void a_users_mount_is_his_own(void **state)
{
	static const struct {
		const char *path;
		uid_t uid;
		bool closed;
	} cases[] = {{"/src/mine", 0, true},          {"/src/mine/conf/x", 0, true}, {"/src/mine/conf", 1001, true}, {"/src/mine/conf", 1000, false},
	             {"/src/mine2", 0, false},        {"/src/mine/native/x", 0, false}, {"/src/shared/x", 0, false}, {"/src/root s/x", 0, false},
	             {"/src/root s/x", 1000, true},   {"/src/covered/x", 0, false},  {"/etc/passwd", 0, false}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		if (engine_view_is_closed(table, cases[i].path, cases[i].uid) != cases[i].closed)
			fail_msg("%s as %u", cases[i].path, cases[i].uid);
}

static void without_a_table_nothing_is_closed(void **state)
{
	assert_false(engine_view_is_closed("/nonexistent/mounts", "/src/mine", 0));
}

static void an_engine_is_its_sockets_owner(void **state)
{
	assert_int_equal(engine_view_uid(NULL), 0);
	assert_int_equal(engine_view_uid("/nonexistent/docker.sock"), 0);
	assert_int_equal(engine_view_uid(table), geteuid());
}

int main(void)
{
	int fd = mkstemp(table);
	if (fd < 0 || write_all(fd, table_text, strlen(table_text)) < 0)
		return 1;
	close(fd);
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_users_mount_is_his_own),
	    cmocka_unit_test(without_a_table_nothing_is_closed),
	    cmocka_unit_test(an_engine_is_its_sockets_owner),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(table);
	return failed;
}
