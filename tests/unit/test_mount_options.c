#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>
#include <unistd.h>

#include "fs/mount_options.c"

static int parse(struct mount_options *o, struct error *err, const char *const *argv)
{
	int argc = 0;
	while (argv[argc])
		argc++;
	return mount_options_parse(argc, (char *const *)argv, o, err);
}

#define PARSE(o, err, ...) parse((o), (err), (const char *const[]){"aetherfs", __VA_ARGS__, NULL})

static void a_directory_alone(void **state)
{
	cleanup_mount_options struct mount_options o = {0};
	assert_int_equal(PARSE(&o, NULL, "ws"), 0);
	assert_string_equal(o.dir, "ws");
	assert_null(o.workspace);
	assert_string_equal(o.kernel, "");
	assert_int_equal(o.bits, 0);
	assert_false(o.foreground || o.json || o.mask_resend || o.help || o.version);
}

/* mount.fuse3 calls `aetherfs SOURCE DIR -o rw,nosuid,nodev` */
static void as_mount_calls_it(void **state)
{
	cleanup_mount_options struct mount_options o = {0};
	assert_int_equal(PARSE(&o, NULL, "none", "/w s", "-o", "rw,nosuid,nodev,noatime,_netdev,x-systemd.automount,user=me"), 0);
	assert_string_equal(o.dir, "/w s");
	assert_string_equal(o.kernel, "nosuid,nodev");
}

static void every_option(void **state)
{
	cleanup_mount_options struct mount_options o = {0};
	assert_int_equal(PARSE(&o, NULL, "-f", "-olisted,cache=strict", "-o", "noprewarm,allow_other,json,ro,ro", "ws", "-o", "workspace=a b"), 0);
	assert_int_equal(o.bits, MOUNT_LISTED | MOUNT_CACHE_STRICT | MOUNT_NO_PREWARM | MOUNT_ALLOW_OTHER);
	assert_true(o.foreground && o.json);
	assert_string_equal(o.kernel, "ro");
	assert_string_equal(o.workspace, "a b");
}

static void what_a_mount_has(void **state)
{
	cleanup_mount_options struct mount_options o = {0}, p = {0};
	cleanup_buffer struct buffer text = BUFFER_INIT, none = BUFFER_INIT;
	assert_int_equal(PARSE(&o, NULL, "-o", "ro,overlay=off,noexec,json,listed,rw,watchdog=5", "ws"), 0);
	mount_options_list(&o, &text);
	assert_string_equal(buffer_str(&text), "listed\noverlay=off\nwatchdog=5\nro\nnoexec\n");
	assert_int_equal(PARSE(&p, NULL, "-o", "rw,json,watchdog=30", "ws"), 0);
	mount_options_list(&p, &none);
	assert_int_equal(none.len, 0);
}

static void without_the_overlay(void **state)
{
	cleanup_mount_options struct mount_options o = {0}, p = {0};
	assert_int_equal(PARSE(&o, NULL, "-o", "overlay=off", "ws"), 0);
	assert_int_equal(o.bits, MOUNT_NO_OVERLAY);
	assert_true(session_is_wanted(o.bits, SESSION_CONTROL) && !session_is_wanted(o.bits, SESSION_OVERLAY));
	assert_int_equal(PARSE(&p, NULL, "-o", "plain", "ws"), 0);
	assert_false(session_is_wanted(p.bits, SESSION_CONTROL) || session_is_wanted(p.bits, SESSION_OVERLAY));
}

static void the_watchdog(void **state)
{
	cleanup_mount_options struct mount_options o = {0}, p = {0};
	assert_int_equal(PARSE(&o, NULL, "ws"), 0);
	assert_int_equal(o.watchdog_s, MOUNT_WATCHDOG_S);
	assert_int_equal(PARSE(&p, NULL, "-o", "watchdog=0", "ws"), 0);
	assert_int_equal(p.watchdog_s, 0);
	static const char *const bad[] = {"watchdog=", "watchdog=-1", "watchdog=1s", "watchdog= 1", "watchdog=99999999999999999999"};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		cleanup_mount_options struct mount_options q = {0};
		cleanup_error struct error err = ERROR_INIT;
		assert_int_equal(PARSE(&q, &err, "-o", bad[i], "ws"), -EINVAL);
		assert_int_equal(err.code, ERROR_USAGE);
	}
}

static void a_name_with_a_comma(void **state)
{
	cleanup_mount_options struct mount_options o = {0};
	assert_int_equal(PARSE(&o, NULL, "-o", "listed,workspace=a\\,b\\\\c,ro", "ws"), 0);
	assert_string_equal(o.workspace, "a,b\\c");
	assert_string_equal(o.kernel, "ro");
	assert_int_equal(o.bits, MOUNT_LISTED);
}

static void a_directory_like_an_option(void **state)
{
	cleanup_mount_options struct mount_options o = {0};
	assert_int_equal(PARSE(&o, NULL, "--", "-o"), 0);
	assert_string_equal(o.dir, "-o");
}

static void suid_is_for_root(void **state)
{
	cleanup_mount_options struct mount_options o = {0};
	assert_int_equal(PARSE(&o, NULL, "-o", "suid,dev", "ws"), 0);
	assert_string_equal(o.kernel, geteuid() == 0 ? "suid,dev" : "");
}

static void help_wants_no_directory(void **state)
{
	cleanup_mount_options struct mount_options o = {0};
	assert_int_equal(PARSE(&o, NULL, "--help"), 0);
	assert_true(o.help);
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	mount_options_help(out);
	fclose(out);
	assert_non_null(strstr(text, "-o workspace=NAME"));
	assert_non_null(strstr(text, "-o cache=strict"));
	assert_null(strstr(text, "no_resend"));
	free(text);
}

static void what_is_refused(void **state)
{
	static const struct {
		const char *argv[6];
		const char *message;
	} cases[] = {
		{{"aetherfs", NULL}, "a directory is wanted"},
		{{"aetherfs", "a", "b", "c", NULL}, "one directory"},
		{{"aetherfs", "--wat", "ws", NULL}, "--wat"},
		{{"aetherfs", "ws", "-o", NULL}, "-o wants"},
		{{"aetherfs", "-o", "wat", "ws", NULL}, "'wat'"},
		{{"aetherfs", "-o", "listedx", "ws", NULL}, "'listedx'"},
		{{"aetherfs", "-o", "workspace=", "ws", NULL}, "wants a text"},
		{{"aetherfs", "-o", "io=passthrough", "ws", NULL}, "not implemented"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		cleanup_mount_options struct mount_options o = {0};
		cleanup_error struct error err = ERROR_INIT;
		assert_int_equal(parse(&o, &err, cases[i].argv), -EINVAL);
		assert_int_equal(err.code, ERROR_USAGE);
		assert_non_null(strstr(err.message, cases[i].message));
	}
}

/* An error must come out as JSON even when `json` stands behind what is wrong. */
static void json_counts_wherever_it_stands(void **state)
{
	cleanup_mount_options struct mount_options o = {0};
	cleanup_error struct error err = ERROR_INIT;
	assert_int_equal(PARSE(&o, &err, "-o", "wat,json", "ws"), -EINVAL);
	assert_true(o.json);
	assert_non_null(strstr(err.message, "'wat'"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_directory_alone),       cmocka_unit_test(as_mount_calls_it),
		cmocka_unit_test(every_option),
		cmocka_unit_test(what_a_mount_has),        cmocka_unit_test(without_the_overlay),
		cmocka_unit_test(the_watchdog), cmocka_unit_test(a_name_with_a_comma),
		cmocka_unit_test(a_directory_like_an_option), cmocka_unit_test(suid_is_for_root),
		cmocka_unit_test(help_wants_no_directory), cmocka_unit_test(what_is_refused),
		cmocka_unit_test(json_counts_wherever_it_stands),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
