/* provisioner/identity: who a workspace is, from what jj and git leave on the disk, and where its directories are. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "provisioner/identity.h"

struct place {
	char *dir; /* canonical */
	int fd;
};

static int set_up(void **state)
{
	struct place *p = xcalloc(1, sizeof *p);
	char template[] = "/tmp/id.XXXXXX";
	p->dir = realpath(mkdtemp(template), NULL);
	p->fd = open(p->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*state = p;
	setenv("AETHER_RUNTIME_DIR", "/tmp/id-runtime", 1);
	setenv("AETHER_STATE_DIR", "/tmp/id-state", 1);
	return 0;
}

static int tear_down(void **state)
{
	struct place *p = *state;
	close(p->fd);
	tree_remove(AT_FDCWD, p->dir);
	free(p->dir);
	free(p);
	return 0;
}

static void put(struct place *p, const char *path, const void *data, size_t len)
{
	cleanup_free char *parent = xstrdup(path);
	char *slash = strrchr(parent, '/');
	if (slash) {
		*slash = '\0';
		assert_int_equal(dir_make(p->fd, parent, 0755), 0);
	}
	assert_int_equal(file_write_atomic(p->fd, path, data, len, 0644), 0);
}

static void puts_at(struct place *p, const char *path, const char *text)
{
	put(p, path, text, strlen(text));
}

static struct identity identify(struct place *p, const char *path, const char *name)
{
	cleanup_free char *whole = xasprintf("%s/%s", p->dir, path);
	struct identity id;
	cleanup_error struct error err = ERROR_INIT;
	if (identity_of(whole, name, &id, &err))
		fail_msg("%s", err.message);
	return id;
}

static void assert_below(struct place *p, const char *path, const char *expected)
{
	cleanup_free char *whole = xasprintf("%s/%s", p->dir, expected);
	assert_non_null(path);
	assert_string_equal(path, whole);
}

/* `.jj/working_copy/checkout` as jj 0.45.1 writes it: operation_id = 2 (64 bytes), workspace_name = 3. */
static void put_checkout(struct place *p, const char *path, const char *name)
{
	unsigned char bytes[256] = {0x12, 0x40};
	size_t n = 2 + 64, len = strlen(name);
	bytes[n++] = 0x1a;
	bytes[n++] = (unsigned char)len;
	memcpy(bytes + n, name, len);
	put(p, path, bytes, n + len);
}

static void jj_main_workspace(void **state)
{
	struct place *p = *state;
	dir_make(p->fd, "main/.jj/repo/store", 0755);
	dir_make(p->fd, "main/.git", 0755);
	put_checkout(p, "main/.jj/working_copy/checkout", "default");
	struct identity id = identify(p, "main", NULL);
	assert_int_equal(id.kind, WORKSPACE_JJ);
	assert_below(p, id.root, "main");
	assert_below(p, id.main_root, "main");
	assert_below(p, id.repository, "main/.jj/repo");
	assert_string_equal(id.workspace, "default");
	identity_release(&id);
}

static void jj_secondary_workspace(void **state)
{
	struct place *p = *state;
	dir_make(p->fd, "main/.jj/repo", 0755);
	puts_at(p, "a/.jj/repo", "../../main/.jj/repo");
	put_checkout(p, "a/.jj/working_copy/checkout", "f\xc3\xa9 at/ure b");
	struct identity id = identify(p, "a", NULL);
	assert_int_equal(id.kind, WORKSPACE_JJ);
	assert_below(p, id.repository, "main/.jj/repo");
	assert_below(p, id.main_root, "main");
	assert_string_equal(id.workspace, "f\xc3\xa9 at/ure b");
	assert_string_equal(id.namespace_ + strlen("aether-01234567"), "-f-at-ure-b");
	identity_release(&id);

	/* before 0.39 the path was absolute */
	cleanup_free char *absolute = xasprintf("%s/main/.jj/repo\n", p->dir);
	puts_at(p, "b/.jj/repo", absolute);
	id = identify(p, "b", NULL);
	assert_below(p, id.repository, "main/.jj/repo");
	assert_string_equal(id.workspace, "b");
	identity_release(&id);

	/* the repository is away: the identity stays what it was */
	puts_at(p, "c/.jj/repo", "../../gone/.jj/repo");
	id = identify(p, "c", NULL);
	assert_below(p, id.repository, "gone/.jj/repo");
	identity_release(&id);
}

static void jj_names_that_cannot_be_read(void **state)
{
	struct place *p = *state;
	static const struct {
		const char *bytes;
		size_t len;
	} bad[] = {
	    {"", 0},
	    {"\x12", 1},
	    {"\x12\x40short", 7},
	    {"\x1a\x05"
	     "ab",
	     4},
	    {"\x1a\x03"
	     "a\0b",
	     5},
	    {"\x1a\x00", 2},
	    {"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12},
	    {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 11},
	    {"\x1b\x03"
	     "abc",
	     5},
	    {"plain text", 10},
	};
	dir_make(p->fd, "w/.jj/repo", 0755);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		put(p, "w/.jj/working_copy/checkout", bad[i].bytes, bad[i].len);
		struct identity id = identify(p, "w", NULL);
		assert_string_equal(id.workspace, "w");
		identity_release(&id);
	}
	/* fields of later versions before it do not hide it */
	put(p, "w/.jj/working_copy/checkout",
	    "\x08\x96\x01\x22\x02xy\x1a\x03"
	    "abc",
	    12);
	struct identity id = identify(p, "w", NULL);
	assert_string_equal(id.workspace, "abc");
	identity_release(&id);
	id = identify(p, "w", "given");
	assert_string_equal(id.workspace, "given");
	identity_release(&id);
}

static void git_main_and_worktree(void **state)
{
	struct place *p = *state;
	dir_make(p->fd, "g/.git/worktrees/w", 0755);
	puts_at(p, "g/.git/worktrees/w/commondir", "../..\n");
	cleanup_free char *gitdir = xasprintf("gitdir: %s/g/.git/worktrees/w\n", p->dir);
	puts_at(p, "trees/w/.git", gitdir);
	puts_at(p, "trees/r/.git", "gitdir: ../../g/.git/worktrees/w"); /* worktree.useRelativePaths */
	struct identity main = identify(p, "g", NULL);
	struct identity tree = identify(p, "trees/w", NULL);
	struct identity relative = identify(p, "trees/r", NULL);
	assert_int_equal(main.kind, WORKSPACE_GIT);
	assert_below(p, main.repository, "g/.git");
	assert_string_equal(main.main_root, main.root);
	assert_int_equal(tree.kind, WORKSPACE_GIT);
	assert_string_equal(tree.repository, main.repository);
	assert_string_equal(tree.main_root, main.root);
	assert_string_equal(tree.workspace, "w");
	assert_string_equal(relative.repository, main.repository);
	identity_release(&main);
	identity_release(&tree);
	identity_release(&relative);
}

static void git_without_a_main_checkout(void **state)
{
	struct place *p = *state;
	dir_make(p->fd, "bare.git/worktrees/w", 0755);
	puts_at(p, "bare.git/worktrees/w/commondir", "../..\n");
	puts_at(p, "w/.git", "gitdir: ../bare.git/worktrees/w\n");
	struct identity id = identify(p, "w", NULL);
	assert_below(p, id.repository, "bare.git");
	assert_null(id.main_root);
	identity_release(&id);

	/* a submodule, and --separate-git-dir, are main checkouts of their own */
	dir_make(p->fd, "super/.git/modules/sub", 0755);
	puts_at(p, "super/sub/.git", "gitdir: ../.git/modules/sub\n");
	id = identify(p, "super/sub", NULL);
	assert_below(p, id.repository, "super/.git/modules/sub");
	assert_string_equal(id.main_root, id.root);
	identity_release(&id);
}

static void git_links_and_rubbish(void **state)
{
	struct place *p = *state;
	dir_make(p->fd, "store/x.git", 0755);
	dir_make(p->fd, "linked", 0755);
	assert_int_equal(symlinkat("../store/x.git", p->fd, "linked/.git"), 0);
	struct identity id = identify(p, "linked", NULL);
	assert_int_equal(id.kind, WORKSPACE_GIT);
	assert_below(p, id.repository, "store/x.git");
	assert_string_equal(id.main_root, id.root);
	identity_release(&id);

	static const char *const rubbish[] = {"", "not a gitdir\n"};
	for (size_t i = 0; i < 2; i++) {
		puts_at(p, "r/.git", rubbish[i]);
		id = identify(p, "r", NULL);
		assert_int_equal(id.kind, WORKSPACE_PLAIN);
		identity_release(&id);
	}
	puts_at(p, "fifo/x", "");
	assert_int_equal(mkfifoat(p->fd, "fifo/.git", 0600), 0);
	id = identify(p, "fifo", NULL); /* and does not hang */
	assert_int_equal(id.kind, WORKSPACE_PLAIN);
	identity_release(&id);
}

static void plain_directories(void **state)
{
	struct place *p = *state;
	dir_make(p->fd, "one/app", 0755);
	dir_make(p->fd, "two/app", 0755);
	symlinkat("one/app", p->fd, "link");
	struct identity one = identify(p, "one/app", NULL), two = identify(p, "two/app", NULL);
	struct identity link = identify(p, "link/../app/.", NULL);
	assert_int_equal(one.kind, WORKSPACE_PLAIN);
	assert_string_equal(one.repository, one.root);
	assert_string_equal(one.main_root, one.root);
	assert_string_equal(one.workspace, "app");
	assert_string_not_equal(one.namespace_, two.namespace_); /* never a base name alone */
	assert_string_equal(link.root, one.root);
	assert_string_equal(link.namespace_, one.namespace_);
	identity_release(&one);
	identity_release(&two);
	identity_release(&link);

	cleanup_error struct error err = ERROR_INIT;
	struct identity id;
	cleanup_free char *missing = xasprintf("%s/none", p->dir);
	assert_int_equal(identity_of(missing, NULL, &id, &err), -ENOENT);
	assert_int_equal(err.code, ERROR_WORKSPACE_NOT_FOUND);
	puts_at(p, "file", "");
	cleanup_free char *file = xasprintf("%s/file", p->dir);
	assert_int_equal(identity_of(file, NULL, &id, NULL), -ENOTDIR);
}

static void names_are_reduced(void **state)
{
	struct place *p = *state;
	static const struct {
		const char *name, *reduced;
	} cases[] = {
	    {"feature-a", "feature-a"},
	    {"Feature_A", "feature-a"},
	    {"a/b c", "a-b-c"},
	    {"--x--", "x"},
	    {"\xe6\x97\xa5\xe6\x9c\xac", "workspace"},
	    {"///", "workspace"},
	    {"0123456789012345678901234567890123456789abc", "0123456789012345678901234567890123456789"},
	    {"012345678901234567890123456789012345678 abc", "012345678901234567890123456789012345678"},
	};
	dir_make(p->fd, "x", 0755);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct identity id = identify(p, "x", cases[i].name);
		assert_string_equal(id.namespace_ + strlen("aether-01234567-"), cases[i].reduced);
		assert_true(strlen(id.namespace_) <= 63); /* a DNS label, and what container engines take */
		assert_string_equal(id.workspace, cases[i].name);
		identity_release(&id);
	}
}

static void an_open_directory_is_enough(void **state)
{
	struct place *p = *state;
	dir_make(p->fd, "main/.jj/repo", 0755);
	puts_at(p, "a/.jj/repo", "../../main/.jj/repo");
	struct identity by_path = identify(p, "a", NULL), by_fd;
	cleanup_close int fd = openat(p->fd, "a", O_PATH | O_DIRECTORY);
	/* the directory is covered, here by being away: only the descriptor leads to it */
	assert_int_equal(renameat(p->fd, "a", p->fd, "elsewhere"), 0);
	assert_int_equal(identity_of_fd(fd, by_path.root, NULL, NULL, &by_fd, NULL), 0);
	assert_string_equal(by_fd.namespace_, by_path.namespace_);
	assert_string_equal(by_fd.main_root, by_path.main_root);
	identity_release(&by_path);
	identity_release(&by_fd);
}

static void root_is_found_upwards(void **state)
{
	struct place *p = *state;
	dir_make(p->fd, "g/.git", 0755);
	dir_make(p->fd, "g/sub/deep", 0755);
	dir_make(p->fd, "g/inner/.jj/repo", 0755);
	cleanup_free char *deep = xasprintf("%s/g/sub/deep", p->dir);
	cleanup_free char *inner = xasprintf("%s/g/inner", p->dir);
	char *root = NULL;
	assert_int_equal(identity_find_root(deep, &root, NULL), 0);
	assert_below(p, root, "g");
	free(root);
	assert_int_equal(identity_find_root(inner, &root, NULL), 0);
	assert_below(p, root, "g/inner");
	free(root);
	cleanup_error struct error err = ERROR_INIT;
	assert_int_equal(identity_find_root("/proc", &root, &err), -ENOENT);
	assert_int_equal(err.code, ERROR_NOT_A_REPOSITORY);
	assert_non_null(err.hint);
}

static void directories_come_from_the_environment(void **state)
{
	struct place *p = *state;
	char *dir = NULL;
	setenv("AETHER_RUNTIME_DIR", "relative", 1);
	assert_int_equal(identity_runtime_dir(&dir, NULL), -EINVAL);
	setenv("AETHER_RUNTIME_DIR", "/tmp//x/./y/..", 1);
	assert_int_equal(identity_runtime_dir(&dir, NULL), 0);
	assert_string_equal(dir, "/tmp/x");
	free(dir);
	unsetenv("AETHER_RUNTIME_DIR");
	unsetenv("AETHER_STATE_DIR");
	if (geteuid() == 0) {
		identity_runtime_dir(&dir, NULL);
		assert_string_equal(dir, "/run/aether");
		free(dir);
		identity_shared_dir(&dir, NULL);
		assert_string_equal(dir, "/var/lib/aether");
		free(dir);
		return;
	}
	setenv("XDG_RUNTIME_DIR", p->dir, 1);
	identity_runtime_dir(&dir, NULL);
	assert_below(p, dir, "aether");
	free(dir);
	/* of another user, as `su` leaves it */
	setenv("XDG_RUNTIME_DIR", "/etc", 1);
	identity_runtime_dir(&dir, NULL);
	cleanup_free char *fallback = xasprintf("/tmp/aether-%u", (unsigned)geteuid());
	assert_string_equal(dir, fallback);
	free(dir);
	setenv("XDG_STATE_HOME", p->dir, 1);
	identity_shared_dir(&dir, NULL);
	assert_below(p, dir, "aether");
	free(dir);
	unsetenv("XDG_STATE_HOME");
	setenv("HOME", p->dir, 1);
	identity_shared_dir(&dir, NULL);
	assert_below(p, dir, ".local/state/aether");
	free(dir);
}

static mode_t mode_of(const char *path)
{
	struct stat st;
	assert_int_equal(lstat(path, &st), 0);
	assert_true(S_ISDIR(st.st_mode));
	return st.st_mode & 07777;
}

static struct identity with_directories(struct place *p, const char *runtime, const char *state_)
{
	cleanup_free char *r = xasprintf("%s/%s", p->dir, runtime), *s = xasprintf("%s/%s", p->dir, state_);
	setenv("AETHER_RUNTIME_DIR", r, 1);
	setenv("AETHER_STATE_DIR", s, 1);
	dir_make(p->fd, "w", 0755);
	return identify(p, "w", NULL);
}

static void directories_are_made_with_their_modes(void **state)
{
	struct place *p = *state;
	mode_t expected = geteuid() == 0 ? 0711 : 0700;
	struct identity id = with_directories(p, "deep/run", "deep/state");
	mode_t old = umask(077);
	for (int i = 0; i < 2; i++) {
		cleanup_error struct error err = ERROR_INIT;
		if (identity_make_dirs(&id, &err))
			fail_msg("%s", err.message);
	}
	umask(old);
	const char *const paths[] = {id.runtime_dir, id.socket_dir, id.shared_dir, id.state_dir};
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(mode_of(paths[i]), expected);
	assert_int_equal(mode_of(id.control_dir), 0700);
	identity_release(&id);
}

static void foreign_directories_are_refused(void **state)
{
	struct place *p = *state;
	cleanup_error struct error err = ERROR_INIT;
	struct identity id = with_directories(p, "run", "state");
	dir_make(p->fd, "target", 0700);
	symlinkat("target", p->fd, "run");
	assert_int_equal(identity_make_dirs(&id, &err), -EACCES);
	assert_int_equal(err.code, ERROR_PERMISSION);
	assert_non_null(err.hint);
	unlinkat(p->fd, "run", 0);

	puts_at(p, "run", "a file");
	assert_int_equal(identity_make_dirs(&id, NULL), -EACCES);
	unlinkat(p->fd, "run", 0);

	dir_make(p->fd, "run", 0700);
	fchmodat(p->fd, "run", 0777, 0);
	assert_int_equal(identity_make_dirs(&id, NULL), -EACCES);
	fchmodat(p->fd, "run", 0755, 0);
	assert_int_equal(identity_make_dirs(&id, NULL), 0);
	if (geteuid() == 0) {
		assert_int_equal(fchownat(p->fd, "run", 65534, 65534, 0), 0);
		assert_int_equal(identity_make_dirs(&id, &err), -EACCES);
	}
	identity_release(&id);

	/* state may lie behind a link: a larger disk */
	id = with_directories(p, "run2", "state2");
	symlinkat("target", p->fd, "state2");
	assert_int_equal(identity_make_dirs(&id, NULL), 0);
	identity_release(&id);
}

static void sockets_fit_however_deep_the_runtime_directory(void **state)
{
	struct place *p = *state;
	cleanup_free char *deep = xcalloc(1, 200);
	memset(deep, 'd', 150);
	struct identity id = with_directories(p, deep, "state");
	assert_true(strlen(id.socket_dir) + strlen("/01234567890123456789/.s.PGSQL.21000") <= 107);
	cleanup_free char *prefix = xasprintf("/tmp/aether-%u/s-", (unsigned)geteuid());
	assert_memory_equal(id.socket_dir, prefix, strlen(prefix));
	struct identity other = with_directories(p, "short", "state");
	assert_string_not_equal(id.socket_dir, other.socket_dir);
	assert_memory_equal(other.socket_dir, other.runtime_dir, strlen(other.runtime_dir));
	identity_release(&id);
	identity_release(&other);
}

/* What the installed jj and git write today, when they are here. */
static void real_jj_and_git_agree(void **state)
{
	struct place *p = *state;
	char command[512]; /* skip() leaves by longjmp */
	snprintf(command, sizeof command,
	         "cd %s && export HOME=$PWD JJ_CONFIG=/dev/null && "
	         "jj --quiet git init m && cd m && jj --quiet workspace add --name 'x/y z' ../s && cd .. && "
	         "git init -q g && cd g && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x && "
	         "git worktree add -q ../gw",
	         p->dir);
	if (system("jj --version && git --version") || system(command)) {
		printf("skip: real_jj_and_git_agree: no jj and git in PATH that work\n");
		skip();
	}
	struct identity id = identify(p, "s", NULL);
	assert_string_equal(id.workspace, "x/y z");
	assert_below(p, id.repository, "m/.jj/repo");
	assert_below(p, id.main_root, "m");
	identity_release(&id);
	id = identify(p, "m", NULL);
	assert_string_equal(id.workspace, "default");
	identity_release(&id);
	id = identify(p, "gw", NULL);
	assert_below(p, id.repository, "g/.git");
	assert_below(p, id.main_root, "g");
	identity_release(&id);
}

#define test(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    test(jj_main_workspace),
	    test(jj_secondary_workspace),
	    test(jj_names_that_cannot_be_read),
	    test(git_main_and_worktree),
	    test(git_without_a_main_checkout),
	    test(git_links_and_rubbish),
	    test(plain_directories),
	    test(names_are_reduced),
	    test(an_open_directory_is_enough),
	    test(root_is_found_upwards),
	    test(directories_come_from_the_environment),
	    test(directories_are_made_with_their_modes),
	    test(foreign_directories_are_refused),
	    test(sockets_fit_however_deep_the_runtime_directory),
	    test(real_jj_and_git_agree),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
