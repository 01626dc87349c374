/* base/: errors, buffers, lists, files and trees. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/program.h"
#include "base/strv.h"

static char *scratch(void)
{
	const char *tmp = getenv("TMPDIR");
	char *dir = xasprintf("%s/base.XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(dir));
	return dir;
}

static void error_carries_everything(void **state)
{
	cleanup_error struct error e = ERROR_INIT;
	assert_int_equal(error_set(&e, ERROR_NOT_READY, "service %s", "db"), -ETIMEDOUT);
	assert_int_equal(error_prefix(&e, "up"), -ETIMEDOUT);
	assert_int_equal(error_hint(&e, "ajj logs %s", "db"), -ETIMEDOUT);
	error_detail(&e, "service", json_string("db"));
	assert_string_equal(e.message, "up: service db");

	json_t *json = error_to_json(&e);
	assert_string_equal(json_string_value(json_object_get(json, "code")), "NOT_READY");
	cleanup_error struct error back = ERROR_INIT;
	error_from_json(&back, json);
	json_decref(json);
	assert_int_equal(back.code, ERROR_NOT_READY);
	assert_int_equal(back.err, ETIMEDOUT);
	assert_string_equal(back.hint, "ajj logs db");
	assert_string_equal(json_string_value(json_object_get(back.details, "service")), "db");

	cleanup_error struct error other = ERROR_INIT;
	error_set(&other, ERROR_USAGE, "old");
	error_move(&other, &back);
	assert_false(error_is_set(&back));
	assert_string_equal(other.message, "up: service db");
}

static void error_without_an_object_gives_the_errno(void **state)
{
	assert_int_equal(error_set(NULL, ERROR_NO_FUSE, "x"), -ENODEV);
	assert_int_equal(error_set_errno(NULL, ERROR_STORE_FAILED, ENOSPC, "x"), -ENOSPC);
}

static void every_code_has_a_name_and_an_errno(void **state)
{
#define X(code, err)                                                       \
	assert_int_equal(error_code_from_name(#code), ERROR_##code);           \
	assert_int_equal(error_code_errno(ERROR_##code), err);                 \
	assert_true((err) > 0);
	ERROR_CODES(X)
#undef X
	assert_int_equal(error_code_from_name("SOMETHING_ELSE"), ERROR_NONE);
}

static void buffer_grows_and_detaches(void **state)
{
	cleanup_buffer struct buffer b = BUFFER_INIT;
	assert_string_equal(buffer_str(&b), "");
	for (int i = 0; i < 1000; i++)
		buffer_printf(&b, "%d,", i);
	assert_int_equal(b.len, strlen(b.data));
	cleanup_free char *s = buffer_detach(&b);
	assert_memory_equal(s, "0,1,2,", 6);
	assert_int_equal(b.len, 0);
}

static void keyvals_keep_order_and_survive_unset(void **state)
{
	cleanup_keyvals struct keyvals kv = KEYVALS_INIT;
	for (int i = 0; i < 9; i++) {
		char key[8];
		snprintf(key, sizeof key, "K%d", i);
		keyvals_set(&kv, key, "v");
	}
	for (int i = 0; i < 6; i++) {
		char key[8];
		snprintf(key, sizeof key, "K%d", i);
		keyvals_unset(&kv, key);
	}
	for (int i = 20; i < 40; i++) {
		char key[8];
		snprintf(key, sizeof key, "K%d", i);
		keyvals_set(&kv, key, NULL);
	}
	keyvals_set(&kv, "K7", "new");
	assert_int_equal(kv.count, 23);
	assert_string_equal(kv.items[1].key, "K7");
	assert_string_equal(keyvals_get(&kv, "K7"), "new");
	assert_true(keyvals_has(&kv, "K20"));
	assert_null(keyvals_get(&kv, "K20"));
	cleanup_strv char **environ_ = keyvals_environ(&kv);
	assert_int_equal(strv_len(environ_), 3); /* those without a value are not in it */
}

static void file_replaces_atomically(void **state)
{
	cleanup_free char *dir = scratch();
	cleanup_close int fd = open(dir, O_RDONLY | O_DIRECTORY);
	assert_int_equal(file_write_atomic(fd, "a", "one", 3, 0600), 0);
	assert_int_equal(file_write_atomic(fd, "a", "two!", 4, 0640), 0);
	cleanup_buffer struct buffer b = BUFFER_INIT;
	assert_int_equal(file_read(fd, "a", 100, &b), 0);
	assert_string_equal(b.data, "two!");
	struct stat st;
	fstatat(fd, "a", &st, 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	buffer_clear(&b);
	assert_int_equal(file_read(fd, "a", 3, &b), -EFBIG);
	assert_int_equal(file_read(fd, ".", 3, &b), -EISDIR);
	assert_int_equal(file_read(fd, "none", 3, &b), -ENOENT);
	mkfifoat(fd, "fifo", 0600);
	assert_int_equal(file_read(fd, "fifo", 3, &b), -EINVAL);
	assert_int_equal(tree_remove(AT_FDCWD, dir), 0);
}

static void file_write_leaves_nothing_when_it_fails(void **state)
{
	cleanup_free char *dir = scratch();
	cleanup_close int fd = open(dir, O_RDONLY | O_DIRECTORY);
	assert_int_equal(mkdirat(fd, "d", 0700), 0);
	assert_true(file_write_atomic(fd, "d", "x", 1, 0600) < 0);
	assert_int_equal(unlinkat(fd, "d", AT_REMOVEDIR), 0);
	assert_int_equal(rmdir(dir), 0); /* no temporary is left */
}

static void dir_make_makes_all_and_minds_files(void **state)
{
	cleanup_free char *dir = scratch();
	cleanup_close int fd = open(dir, O_RDONLY | O_DIRECTORY);
	assert_int_equal(dir_make(fd, "a/b/c", 0700), 0);
	assert_int_equal(dir_make(fd, "a/b/c", 0700), 0);
	file_write_atomic(fd, "f", "", 0, 0600);
	assert_int_equal(dir_make(fd, "f", 0700), -ENOTDIR);
	assert_int_equal(tree_remove(AT_FDCWD, dir), 0);
}

static void tree_copies_and_removes(void **state)
{
	cleanup_free char *dir = scratch();
	cleanup_close int fd = open(dir, O_RDONLY | O_DIRECTORY);
	cleanup_free char *big = xcalloc(1, 300000);
	memset(big, 'x', 300000);
	dir_make(fd, "from/sub/deep", 0750);
	file_write_atomic(fd, "from/sub/file", big, 300000, 0640);
	file_write_atomic(fd, "from/empty", "", 0, 0400);
	symlinkat("../nowhere", fd, "from/link");
	assert_int_equal(tree_copy(fd, "from", fd, "to", (uid_t)-1, (gid_t)-1), 0);
	assert_int_equal(tree_copy(fd, "from", fd, "to", (uid_t)-1, (gid_t)-1), -EEXIST);

	cleanup_buffer struct buffer b = BUFFER_INIT;
	assert_int_equal(file_read(fd, "to/sub/file", 1 << 20, &b), 0);
	assert_int_equal(b.len, 300000);
	assert_memory_equal(b.data, big, b.len);
	struct stat st;
	fstatat(fd, "to/empty", &st, 0);
	assert_int_equal(st.st_mode & 07777, 0400);
	fstatat(fd, "to/sub", &st, 0);
	assert_int_equal(st.st_mode & 07777, 0750);
	char target[64] = "";
	readlinkat(fd, "to/link", target, sizeof target);
	assert_string_equal(target, "../nowhere");

	uint64_t bytes = 0;
	assert_int_equal(tree_size(fd, "to", &bytes), 0);
	assert_true(bytes >= 300000);
	linkat(fd, "to/sub/file", fd, "to/again", 0);
	uint64_t linked = 0;
	assert_int_equal(tree_size(fd, "to", &linked), 0);
	assert_true(linked < bytes + 300000); /* a second name is no second file */

	assert_int_equal(tree_remove(fd, "to"), 0);
	assert_int_equal(tree_remove(fd, "to"), 0);
	assert_int_equal(tree_remove(AT_FDCWD, dir), 0);
	assert_int_equal(access(dir, F_OK), -1);
}

static void tree_remove_never_follows_a_link(void **state)
{
	cleanup_free char *dir = scratch();
	cleanup_close int fd = open(dir, O_RDONLY | O_DIRECTORY);
	dir_make(fd, "keep", 0700);
	file_write_atomic(fd, "keep/file", "x", 1, 0600);
	dir_make(fd, "gone", 0700);
	symlinkat("../keep", fd, "gone/link");
	assert_int_equal(tree_remove(fd, "gone"), 0);
	assert_int_equal(faccessat(fd, "keep/file", F_OK, 0), 0);
	tree_remove(AT_FDCWD, dir);
}

static void times_are_iso(void **state)
{
	char text[32];
	format_time(text, INT64_C(1767225600123));
	assert_string_equal(text, "2026-01-01T00:00:00.123Z");
}

static void hash_is_fnv1a(void **state)
{
	/* test vector of draft-eastlake-fnv: FNV-1a 64 of "foobar" */
	assert_true(hash_bytes(HASH_INIT, "foobar", 6) == UINT64_C(0x85944171f73967e8));
	assert_true(hash_str(hash_str(HASH_INIT, "ab"), "c") != hash_str(hash_str(HASH_INIT, "a"), "bc"));
}

static void sha256_is_fips_180(void **state)
{
	struct sha256 s;
	char hex[SHA256_HEX];
	sha256_begin(&s);
	sha256_end(&s, hex);
	assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	sha256_begin(&s);
	sha256_add(&s, "abc", 3);
	sha256_end(&s, hex);
	assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	cleanup_free char *many = xcalloc(1, 1000);
	memset(many, 'a', 1000);
	sha256_begin(&s);
	for (size_t left = 1000000, n = 1; left; left -= n, n = n * 7 % 997) { /* in pieces of all sizes */
		n = n < left ? n : left;
		sha256_add(&s, many, n);
	}
	sha256_end(&s, hex);
	assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void put(const char *dir, const char *name, const char *text, mode_t mode)
{
	cleanup_free char *path = xasprintf("%s/%s", dir, name);
	assert_int_equal(file_write_atomic(AT_FDCWD, path, text, strlen(text), mode), 0);
}

static void a_digest_is_of_what_would_be_run(void **state)
{
	cleanup_free char *dir = scratch();
	char one[SHA256_HEX], two[SHA256_HEX];
	cleanup_free char *sub = xasprintf("%s/d/sub", dir), *d = xasprintf("%s/d", dir), *copy = xasprintf("%s/copy", dir);
	cleanup_free char *link = xasprintf("%s/d/sub/l", dir);
	assert_int_equal(dir_make(AT_FDCWD, sub, 0755), 0);
	assert_int_equal(digest_of(AT_FDCWD, copy, one), 0); /* it is not there */
	put(d, "a", "text", 0600);
	put(sub, "b", "more", 0700);
	assert_int_equal(symlink("../a", link), 0);
	assert_int_equal(digest_of(AT_FDCWD, d, two), 0);
	assert_string_not_equal(one, two);
	assert_int_equal(tree_copy(AT_FDCWD, d, AT_FDCWD, copy, (uid_t)-1, (gid_t)-1), 0);
	assert_int_equal(digest_of(AT_FDCWD, copy, one), 0);
	assert_string_equal(one, two);
	put(d, "a", "text", 0644); /* who may read it is not of interest */
	assert_int_equal(digest_of(AT_FDCWD, d, one), 0);
	assert_string_equal(one, two);
	put(d, "a", "text", 0700);
	assert_int_equal(digest_of(AT_FDCWD, d, one), 0);
	assert_string_not_equal(one, two);
	put(d, "a", "texT", 0600);
	assert_int_equal(digest_of(AT_FDCWD, d, one), 0);
	assert_string_not_equal(one, two);
	/* a large one is remembered, until it changes */
	static struct digests known;
	cleanup_free char *large = xcalloc(1, DIGEST_REMEMBERED_MIN + 1), *path = xasprintf("%s/large", d);
	memset(large, 'x', DIGEST_REMEMBERED_MIN);
	put(d, "large", large, 0600);
	assert_int_equal(digest_of_known(AT_FDCWD, path, &known, one), 0);
	assert_int_equal(known.next, 0); /* it may be changed within the tick */
	usleep(80000);
	assert_int_equal(digest_of_known(AT_FDCWD, path, &known, one), 0);
	assert_int_equal(digest_of_known(AT_FDCWD, path, &known, two), 0);
	assert_string_equal(one, two);
	assert_int_equal(known.next, 1);
	assert_int_equal(digest_of(AT_FDCWD, path, two), 0);
	assert_string_equal(one, two);
	large[0] = 'y';
	put(d, "large", large, 0600);
	usleep(80000);
	assert_int_equal(digest_of_known(AT_FDCWD, path, &known, two), 0);
	assert_string_not_equal(one, two);
	assert_int_equal(known.next, 2);
	static const char *const out[] = {"/etc/passwd", "../../a", "b/../../../a", "../sub/../../x"};
	for (size_t i = 0; i < sizeof out / sizeof *out; i++) {
		unlink(link);
		assert_int_equal(symlink(out[i], link), 0);
		assert_int_equal(digest_of(AT_FDCWD, d, one), -EXDEV);
	}
	tree_remove(AT_FDCWD, dir);
}

static void programs_are_found_in_path(void **state)
{
	cleanup_free char *sh = program_in_path("sh", "/nowhere:/bin");
	assert_string_equal(sh, "/bin/sh");
	assert_null(program_in_path("no-such-program-here", "/bin:/usr/bin"));
	assert_null(program_in_path("/etc/passwd", "/bin"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(error_carries_everything),
		cmocka_unit_test(error_without_an_object_gives_the_errno),
		cmocka_unit_test(every_code_has_a_name_and_an_errno),
		cmocka_unit_test(buffer_grows_and_detaches),
		cmocka_unit_test(keyvals_keep_order_and_survive_unset),
		cmocka_unit_test(file_replaces_atomically),
		cmocka_unit_test(file_write_leaves_nothing_when_it_fails),
		cmocka_unit_test(dir_make_makes_all_and_minds_files),
		cmocka_unit_test(tree_copies_and_removes),
		cmocka_unit_test(tree_remove_never_follows_a_link),
		cmocka_unit_test(times_are_iso),
		cmocka_unit_test(hash_is_fnv1a),
		cmocka_unit_test(sha256_is_fips_180),
		cmocka_unit_test(a_digest_is_of_what_would_be_run),
		cmocka_unit_test(programs_are_found_in_path),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
