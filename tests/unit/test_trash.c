/* provisioner/trash: nothing is lost, whenever the process ends. */
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "provisioner/discard.h"
#include "provisioner/trash.h"
#include "tests/unit/scripted_server.h"

static char *top; /* of one test */
static struct identity id;
static struct store *store;
static int root_fd = -1;
static char *const services[] = {(char *)"db", NULL};

static int open_all(void)
{
	cleanup_error struct error err = ERROR_INIT;
	struct store_environment e = {0};
	if (store_open(id.shared_dir, &store, &err))
		return -1;
	e.namespace_ = id.namespace_;
	e.root = id.root;
	e.repository = id.repository;
	e.workspace = id.workspace;
	e.control_dir = id.control_dir;
	e.state_dir = id.state_dir;
	return store_environment_put(store, &e, true, &err);
}

static int set_up(void **state)
{
	char template[] = "/tmp/trash.XXXXXX";
	top = xstrdup(mkdtemp(template));
	cleanup_free char *run = xasprintf("%s/run", top), *shared = xasprintf("%s/state", top),
	                  *root = xasprintf("%s/ws", top);
	setenv("AETHER_RUNTIME_DIR", run, 1);
	setenv("AETHER_STATE_DIR", shared, 1);
	mkdir(root, 0755);
	if (identity_of(root, NULL, &id, NULL) || identity_make_dirs(&id, NULL))
		return -1;
	root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	trash_on_step = NULL;
	return open_all();
}

static int tear_down(void **state)
{
	trash_on_step = NULL;
	store_close(store);
	store = NULL;
	close(root_fd);
	identity_release(&id);
	tree_remove(AT_FDCWD, top);
	free(top);
	return 0;
}

static void ok(int r, struct error *err)
{
	if (r < 0)
		fail_msg("%s", err->message ? err->message : "?");
	error_release(err);
}

/* ---- what there is ---- */

static char *data_path(unsigned generation)
{
	return xasprintf("%s/data/%u/db", id.state_dir, generation);
}

static void make_data(unsigned generation, const char *text)
{
	cleanup_free char *dir = data_path(generation), *file = xasprintf("%s/file", dir);
	assert_int_equal(dir_make(AT_FDCWD, dir, 0700), 0);
	assert_int_equal(file_write_atomic(AT_FDCWD, file, text, strlen(text), 0600), 0);
}

static bool file_holds(const char *path, const char *text)
{
	cleanup_buffer struct buffer b = BUFFER_INIT;
	return !file_read(AT_FDCWD, path, 1 << 20, &b) && !strcmp(buffer_str(&b), text);
}

static bool has_data(unsigned generation, const char *text)
{
	cleanup_free char *dir = data_path(generation), *file = xasprintf("%s/file", dir);
	return file_holds(file, text);
}

static void make_env(const char *text)
{
	assert_int_equal(file_write_atomic(root_fd, ".env", text, strlen(text), 0640), 0);
}

static bool has_env(const char *text)
{
	cleanup_free char *path = xasprintf("%s/.env", id.root);
	return text ? file_holds(path, text) : access(path, F_OK) != 0;
}

struct listing {
	struct trash_entry *items;
	size_t count;
};

static struct listing list(void)
{
	struct listing l = {NULL, 0};
	cleanup_error struct error err = ERROR_INIT;
	ok(store_trash_list(store, NULL, &l.items, &l.count, &err), &err);
	return l;
}

static void listing_release(struct listing *l)
{
	trash_entries_free(l->items, l->count);
}
#define cleanup_listing __attribute__((cleanup(listing_release)))

static int count_in_trash(const char *what, const char *text)
{
	cleanup_listing struct listing l = list();
	int found = 0;
	for (size_t i = 0; i < l.count; i++) {
		cleanup_free char *path = xasprintf("%s/%s", l.items[i].path, what);
		found += file_holds(path, text);
	}
	return found;
}

static size_t count_entries(const char *below)
{
	cleanup_free char *path = xasprintf("%s/%s", id.shared_dir, below);
	cleanup_closedir DIR *d = opendir(path);
	size_t count = 0;
	for (struct dirent *e; d && (e = readdir(d));)
		count += e->d_name[0] != '.';
	return count;
}

/* Every directory in the trash has a committed row, and the other way round; nothing half done lies about. */
static void assert_tidy(void)
{
	cleanup_listing struct listing l = list();
	struct trash_entry *unfinished = NULL;
	size_t count = 0;
	cleanup_error struct error err = ERROR_INIT;
	ok(store_trash_unfinished(store, &unfinished, &count, &err), &err);
	trash_entries_free(unfinished, count);
	assert_int_equal(count, 0);
	assert_int_equal(count_entries("trash"), l.count);
	for (size_t i = 0; i < l.count; i++) {
		cleanup_free char *data = xasprintf("%s/data", l.items[i].path), *env = xasprintf("%s/env", l.items[i].path);
		struct stat st;
		assert_int_equal(!lstat(env, &st), l.items[i].has_env);
		assert_true(!lstat(data, &st) || l.items[i].has_env);
	}
}

/* ---- putting and restoring ---- */

static void data_and_lines_rest_together(void **state)
{
	cleanup_error struct error err = ERROR_INIT;
	make_data(1, "rows");
	make_env("MINE=1\n");
	ok(trash_put(store, &id, 1, root_fd, services, &err), &err);
	assert_false(has_data(1, "rows"));
	assert_true(has_env(NULL));
	cleanup_listing struct listing l = list();
	assert_int_equal(l.count, 1);
	assert_int_equal(l.items[0].generation, 1);
	assert_string_equal(l.items[0].namespace_, id.namespace_);
	assert_string_equal(l.items[0].root, id.root);
	assert_string_equal(l.items[0].services[0], "db");
	assert_true(l.items[0].has_env);
	assert_true(l.items[0].bytes > 0);
	assert_int_equal(count_in_trash("data/db/file", "rows"), 1);
	assert_int_equal(count_in_trash("env", "MINE=1\n"), 1);
	assert_tidy();
}

static void nothing_makes_no_entry(void **state)
{
	cleanup_error struct error err = ERROR_INIT;
	cleanup_free char *empty = xasprintf("%s/data/1", id.state_dir);
	ok(trash_put(store, &id, 1, root_fd, NULL, &err), &err);
	dir_make(AT_FDCWD, empty, 0700);
	make_env("");
	ok(trash_put(store, &id, 1, root_fd, NULL, &err), &err);
	cleanup_listing struct listing l = list();
	assert_int_equal(l.count, 0);
	assert_int_equal(access(empty, F_OK), -1);
	assert_true(has_env(NULL)); /* it was deleted, empty or not */
	make_env("A=1\n");
	ok(trash_put(store, &id, 1, -1, NULL, &err), &err);
	assert_true(has_env("A=1\n"));
}

/* A workspace was removed through its mount, and another is at its place before the first is forgotten. */
static void lines_put_aside_are_the_removed_ones(void **state)
{
	cleanup_error struct error err = ERROR_INIT;
	struct store_environment e;
	make_data(1, "rows");
	make_env("MINE=1\n");
	assert_false(trash_env_is_aside(&id));
	ok(trash_env_aside(&id, root_fd, &err), &err);
	assert_true(trash_env_is_aside(&id));
	assert_true(has_env(NULL));
	ok(trash_env_aside(&id, root_fd, &err), &err); /* by the next server */
	make_env("NEXT=1\n");
	ok(discard_record(store, &id, root_fd, &err), &err);
	cleanup_listing struct listing l = list();
	assert_int_equal(l.count, 1);
	assert_int_equal(count_in_trash("data/db/file", "rows"), 1);
	assert_int_equal(count_in_trash("env", "MINE=1\n"), 1);
	assert_true(has_env("NEXT=1\n"));
	assert_int_equal(store_environment_get(store, id.namespace_, &e, &err), 0);
	ok(discard_record(store, &id, -1, &err), &err);
	assert_tidy();
}

/* Whose data nothing is, and a link as what it leads to from where it was. */
static void lines_alone_put_aside(void **state)
{
	cleanup_error struct error err = ERROR_INIT;
	cleanup_free char *target = xasprintf("%s/../main/.env", id.root);
	char found[4096] = "";
	assert_int_equal(symlinkat("../main/.env", root_fd, ".env"), 0);
	ok(trash_env_aside(&id, root_fd, &err), &err);
	ok(discard_record(store, &id, -1, &err), &err);
	cleanup_listing struct listing l = list();
	assert_int_equal(l.count, 1);
	cleanup_free char *kept = xasprintf("%s/env", l.items[0].path);
	assert_true(readlink(kept, found, sizeof found - 1) > 0);
	assert_string_equal(found, target);
	assert_tidy();
}

static void restored_is_what_was_put(void **state)
{
	cleanup_error struct error err = ERROR_INIT;
	make_data(1, "rows");
	make_env("MINE=1\n");
	char *secret = NULL, *again = NULL;
	ok(store_secret(store, id.namespace_, "db.password", &secret, &err), &err);
	ok(trash_put(store, &id, 1, root_fd, services, &err), &err);
	ok(store_secrets_release(store, id.namespace_, &err), &err);
	cleanup_listing struct listing l = list();

	make_data(7, "newer");
	assert_int_equal(trash_restore(store, &id, l.items[0].id, 7, true, root_fd, &err), -EEXIST);
	assert_int_equal(err.code, ERROR_WORKSPACE_EXISTS);
	assert_true(has_data(7, "newer"));
	ok(trash_restore(store, &id, l.items[0].id, 2, true, root_fd, &err), &err);
	assert_true(has_data(2, "rows"));
	assert_true(has_env("MINE=1\n"));
	struct stat st;
	fstatat(root_fd, ".env", &st, 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	/* the data opens with the secret that it was made with */
	ok(store_secret(store, id.namespace_, "db.password", &again, &err), &err);
	assert_string_equal(secret, again);
	free(secret);
	free(again);
	assert_int_equal(trash_restore(store, &id, l.items[0].id, 3, true, root_fd, &err), -ENOENT);
	assert_int_equal(err.code, ERROR_TRASH_NOT_FOUND);
	assert_tidy();
	cleanup_listing struct listing after = list();
	assert_int_equal(after.count, 0);
}

static void lines_stay_unless_asked_for(void **state)
{
	cleanup_error struct error err = ERROR_INIT;
	make_data(1, "rows");
	make_env("MINE=1\n");
	ok(trash_put(store, &id, 1, root_fd, services, &err), &err);
	cleanup_listing struct listing l = list();
	make_env("OTHER=2\n");
	ok(trash_restore(store, &id, l.items[0].id, 2, false, root_fd, &err), &err);
	assert_true(has_data(2, "rows"));
	assert_true(has_env("OTHER=2\n"));
	assert_int_equal(count_in_trash("env", "MINE=1\n"), 1);
	assert_tidy();
	/* and now they are: what is there rests in their place */
	ok(trash_restore(store, &id, l.items[0].id, 3, true, root_fd, &err), &err);
	assert_true(has_env("MINE=1\n"));
	assert_int_equal(count_in_trash("env", "OTHER=2\n"), 1);
	assert_int_equal(count_in_trash("env", "MINE=1\n"), 0);
	assert_tidy();
}

static void links_are_kept_as_links(void **state)
{
	cleanup_error struct error err = ERROR_INIT;
	cleanup_free char *shared = xasprintf("%s/shared.env", top);
	file_write_atomic(AT_FDCWD, shared, "SHARED=1\n", 9, 0600);
	assert_int_equal(symlinkat("../shared.env", root_fd, ".env"), 0);
	ok(trash_put(store, &id, 1, root_fd, NULL, &err), &err);
	assert_true(has_env(NULL));
	assert_true(file_holds(shared, "SHARED=1\n"));
	assert_int_equal(count_in_trash("env", "SHARED=1\n"), 1); /* it can be read from there */
	cleanup_listing struct listing l = list();
	ok(trash_restore(store, &id, l.items[0].id, 2, true, root_fd, &err), &err);
	assert_true(has_env("SHARED=1\n"));
	struct stat st;
	fstatat(root_fd, ".env", &st, AT_SYMLINK_NOFOLLOW);
	assert_true(S_ISLNK(st.st_mode));
}

static void restored_data_belongs_to_todays_user(void **state)
{
	if (geteuid() != 0) {
		printf("skip: restored_data_belongs_to_todays_user: root alone\n");
		skip();
	}
	cleanup_error struct error err = ERROR_INIT;
	struct store_environment e = {0};
	assert_int_equal(store_environment_get(store, id.namespace_, &e, &err), 1);
	make_data(1, "rows");
	cleanup_free char *dir = data_path(1);
	assert_int_equal(tree_chown(AT_FDCWD, dir, 54321, 54321), 0);
	ok(trash_put(store, &id, 1, -1, services, &err), &err);
	cleanup_listing struct listing l = list();
	ok(trash_restore(store, &id, l.items[0].id, 2, false, -1, &err), &err);
	cleanup_free char *back = data_path(2), *file = xasprintf("%s/file", back);
	struct stat st;
	assert_int_equal(stat(file, &st), 0);
	assert_int_equal(st.st_uid, e.uid);
	cleanup_free char *above = xasprintf("%s/data/2", id.state_dir);
	assert_int_equal(stat(above, &st), 0);
	assert_int_equal(st.st_uid, 0);
	store_environment_release(&e);
}

static void emptying(void **state)
{
	cleanup_error struct error err = ERROR_INIT;
	for (unsigned g = 1; g <= 3; g++) {
		make_data(g, "rows");
		ok(trash_put(store, &id, g, -1, services, &err), &err);
	}
	cleanup_listing struct listing l = list();
	assert_int_equal(l.count, 3);
	assert_int_equal(l.items[0].generation, 3);
	uint64_t bytes = 0;
	ok(trash_empty(store, l.items[1].id, &bytes, &err), &err);
	assert_true(bytes > 0);
	assert_tidy();
	assert_int_equal(count_in_trash("data/db/file", "rows"), 2);
	assert_int_equal(trash_empty(store, 12345, NULL, &err), -ENOENT);
	assert_int_equal(err.code, ERROR_TRASH_NOT_FOUND);
	ok(trash_empty(store, 0, NULL, &err), &err);
	assert_int_equal(count_in_trash("data/db/file", "rows"), 0);
	assert_tidy();
	ok(trash_empty(store, 0, NULL, &err), &err);
}

/* ---- bounds ---- */

static int64_t put_aged(int64_t hours, uint64_t bytes)
{
	cleanup_error struct error err = ERROR_INIT;
	struct trash_entry e = {.namespace_ = id.namespace_,
	                        .root = id.root,
	                        .workspace = id.workspace,
	                        .generation = 1,
	                        .at_ms = now_wall_ms() - hours * 3600000 - 1000};
	int64_t entry = 0;
	char *path = NULL;
	ok(store_trash_begin(store, &e, &entry, &path, &err), &err);
	cleanup_free char *data = xasprintf("%s/data/db", path);
	assert_int_equal(dir_make(AT_FDCWD, data, 0700), 0);
	ok(store_trash_commit(store, entry, bytes, &err), &err);
	free(path);
	return entry;
}

static void old_entries_go(void **state)
{
	cleanup_error struct error err = ERROR_INIT;
	put_aged(25, 1);
	int64_t young = put_aged(23, 1);
	put_aged(100, 1);
	ok(trash_expire(store, id.shared_dir, &err), &err);
	cleanup_listing struct listing l = list();
	assert_int_equal(l.count, 1);
	assert_int_equal(l.items[0].id, young);
	assert_tidy();
}

static void large_ones_go_oldest_first(void **state)
{
	cleanup_error struct error err = ERROR_INIT;
	int64_t a = put_aged(1, TRASH_MAX_BYTES / 2), b = put_aged(3, TRASH_MAX_BYTES / 2),
	        c = put_aged(2, TRASH_MAX_BYTES / 2);
	ok(trash_expire(store, id.shared_dir, &err), &err);
	cleanup_listing struct listing l = list();
	assert_int_equal(l.count, 2);
	assert_int_equal(l.items[0].id, a);
	assert_int_equal(l.items[1].id, c);
	assert_int_not_equal(b, 0);
	assert_tidy();
}

static void the_newest_is_not_too_large(void **state)
{
	cleanup_error struct error err = ERROR_INIT;
	put_aged(2, 1);
	int64_t large = put_aged(1, TRASH_MAX_BYTES + 1);
	ok(trash_expire(store, id.shared_dir, &err), &err);
	cleanup_listing struct listing l = list();
	assert_int_equal(l.count, 1);
	assert_int_equal(l.items[0].id, large);
}

/* Three volumes, the third of unknown size. */
static bool tells_sizes(void *arg, int fd, const struct scripted_request *r)
{
	cleanup_free char *text = xasprintf("{\"Volumes\":[{\"Name\":\"v1\",\"UsageData\":{\"Size\":%llu}},{\"Name\":\"v2\",\"UsageData\":{\"Size\":%llu}},"
	                                    "{\"Name\":\"v3\",\"UsageData\":{\"Size\":-1}}]}",
	                                    (unsigned long long)TRASH_MAX_BYTES / 2, (unsigned long long)TRASH_MAX_BYTES / 4 * 3);
	bool asks = strstr(r->path, "/system/df");
	*(_Atomic unsigned *)arg += asks;
	return scripted_json(fd, asks ? 200 : 404, asks ? text : "{\"message\":\"no such volume\"}");
}

static int64_t put_volume(int64_t hours, const char *socket, const char *volume)
{
	int64_t entry = put_aged(hours, 1);
	cleanup_free char *path = xasprintf("%s/trash/%lld/data/db/data.volume", id.shared_dir, (long long)entry);
	cleanup_free char *text = xasprintf("{\"backend\":\"docker\",\"engine\":\"unix://%s\",\"volume\":\"%s\",\"target\":\"/data\"}", socket, volume);
	assert_int_equal(file_write_atomic(AT_FDCWD, path, text, strlen(text), 0600), 0);
	return entry;
}

static void an_engines_volumes_count(void **state)
{
	struct scripted_server *engine = xcalloc(1, sizeof *engine);
	_Atomic unsigned asked = 0;
	cleanup_error struct error err = ERROR_INIT;
	scripted_server_start(engine, tells_sizes, &asked);
	int64_t newest = put_volume(1, engine->path, "v2"), oldest = put_volume(4, engine->path, "v1");
	put_volume(3, engine->path, "v3");
	put_volume(2, "/nobody/listens", "v1");
	ok(trash_expire(store, id.shared_dir, &err), &err); /* who waits for that waits for no engine */
	assert_int_equal(asked, 0);
	cleanup_listing struct listing before = list();
	assert_int_equal(before.count, 4);
	ok(trash_expire_volumes(store, id.shared_dir, &err), &err);
	assert_int_equal(asked, 1);
	cleanup_listing struct listing l = list();
	assert_int_equal(l.count, 3);
	assert_int_equal(l.items[0].id, newest);
	for (size_t i = 0; i < l.count; i++)
		assert_int_not_equal(l.items[i].id, oldest);
	scripted_server_stop(engine);
	free(engine);
}

static void an_absent_trash_is_no_failure(void **state)
{
	cleanup_error struct error err = ERROR_INIT;
	ok(trash_expire(store, id.shared_dir, &err), &err);
	cleanup_free char *trash = xasprintf("%s/trash", id.shared_dir);
	assert_int_equal(access(trash, F_OK), -1);
}

/* In a child, in a mount namespace of its own: the state on a file system of 4 MiB. */
static int on_a_small_disk(void)
{
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return 77;
	store_close(store);
	if (mount("tmpfs", id.shared_dir, "tmpfs", 0, "size=4m,mode=0711") || identity_make_dirs(&id, NULL) || open_all())
		return 77;
	char *block = xcalloc(1, 1 << 20);
	memset(block, 'x', (1 << 20) - 1);
	for (unsigned g = 1; g <= 3; g++) {
		make_data(g, block);
		if (trash_put(store, &id, g, -1, services, NULL))
			return 1;
	}
	if (trash_expire(store, id.shared_dir, NULL))
		return 2;
	struct listing l = list();
	if (l.count != 3) /* a quarter is free */
		return 3;
	listing_release(&l);
	cleanup_free char *other = xasprintf("%s/other", id.shared_dir);
	int fd = open(other, O_WRONLY | O_CREAT, 0600);
	while (write(fd, block, 4096) > 0) /* until nothing is */
		;
	close(fd);
	if (trash_expire(store, id.shared_dir, NULL))
		return 4;
	l = list();
	if (l.count != 2 || l.items[1].generation != 2)
		return 5;
	listing_release(&l);
	fd = open(other, O_WRONLY | O_APPEND);
	while (write(fd, block, 4096) > 0)
		;
	close(fd);
	store_close(store);
	if (store_open(id.shared_dir, &store, NULL) || trash_empty(store, 0, NULL, NULL)) /* the way out of a full disk */
		return 6;
	l = list();
	if (l.count || count_entries("trash"))
		return 7;
	store_close(store);
	return 0;
}

/* cmocka's assertions jump, so the child's own checks are return values. */
static int in_child(int (*work)(void))
{
	pid_t pid = fork();
	if (pid == 0)
		_exit(work());
	int status;
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void the_oldest_goes_when_space_is_short(void **state)
{
	int r = in_child(on_a_small_disk);
	if (r == 77) {
		printf("skip: the_oldest_goes_when_space_is_short: only root can mount\n");
		skip();
	}
	assert_int_equal(r, 0);
}

static int across_file_systems(void)
{
	cleanup_free char *namespaces = xasprintf("%s/ns", id.shared_dir);
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("tmpfs", namespaces, "tmpfs", 0, "size=4m") || identity_make_dirs(&id, NULL))
		return 77;
	make_data(1, "rows");
	if (trash_put(store, &id, 1, -1, services, NULL) || has_data(1, "rows"))
		return 1;
	struct listing l = list();
	if (l.count != 1 || trash_restore(store, &id, l.items[0].id, 2, false, -1, NULL) || !has_data(2, "rows"))
		return 2;
	listing_release(&l);
	l = list();
	if (l.count)
		return 3;
	make_env("MINE=1\n");
	if (trash_env_aside(&id, root_fd, NULL) || !has_env(NULL) || discard_record(store, &id, root_fd, NULL))
		return 4;
	return count_in_trash("env", "MINE=1\n") == 1 && count_in_trash("data/db/file", "rows") == 1 ? 0 : 5;
}

static void state_may_lie_on_two_file_systems(void **state)
{
	int r = in_child(across_file_systems);
	if (r == 77) {
		printf("skip: state_may_lie_on_two_file_systems: only root can mount\n");
		skip();
	}
	assert_int_equal(r, 0);
}

/* ---- crashes ---- */

static int steps_left;

static void die_at_step(const char *step)
{
	if (steps_left-- == 0)
		kill(getpid(), SIGKILL);
}

/* Runs `work` in a process that is killed after `steps` steps. False when it ended before that. */
static bool killed_after(int steps, int (*work)(void))
{
	pid_t pid = fork();
	if (pid == 0) {
		store_close(store); /* a handle does not survive fork(2) */
		steps_left = steps;
		trash_on_step = die_at_step;
		_exit(open_all() ? 98 : work());
	}
	int status;
	waitpid(pid, &status, 0);
	if (WIFEXITED(status))
		assert_int_equal(WEXITSTATUS(status), 0);
	return WIFSIGNALED(status);
}

static void fresh(void **state)
{
	tear_down(state);
	assert_int_equal(set_up(state), 0);
}

static int work_put(void)
{
	return trash_put(store, &id, 1, root_fd, services, NULL) ? 1 : 0;
}

static void check_after_put(int steps)
{
	bool data = has_data(1, "rows"), env = has_env("MINE=1\n");
	int kept_data = count_in_trash("data/db/file", "rows"), kept_env = count_in_trash("env", "MINE=1\n");
	if (data + kept_data != 1)
		fail_msg("after %d steps: data %d, in the trash %d", steps, data, kept_data);
	if (env + kept_env < 1)
		fail_msg("after %d steps: the lines are lost", steps);
}

/* Whoever comes next, the same teardown again or somebody else's expiry: nothing is lost, nothing is left half done. */
static void killed_while_putting(void **state)
{
	int steps = 0;
	for (bool killed = true; killed; steps++) {
		for (int again = 0; again < 2; again++) {
			cleanup_error struct error err = ERROR_INIT;
			fresh(state);
			make_data(1, "rows");
			make_env("MINE=1\n");
			killed = killed_after(steps, work_put);
			if (again)
				ok(trash_put(store, &id, 1, root_fd, services, &err), &err);
			else
				ok(trash_expire(store, id.shared_dir, &err), &err);
			check_after_put(steps);
			assert_tidy();
			if (!again)
				continue;
			/* the second time it is done: all in one entry, unless the first had come to its end */
			assert_false(has_data(1, "rows"));
			assert_true(has_env(NULL));
			cleanup_listing struct listing l = list();
			assert_int_equal(l.count, 1);
			assert_string_equal(l.items[0].services[0], "db");
		}
	}
	assert_true(steps > 8);
}

static int64_t the_entry;

static int work_restore(void)
{
	return trash_restore(store, &id, the_entry, 2, true, root_fd, NULL) ? 1 : 0;
}

static void killed_while_restoring(void **state)
{
	int steps = 0;
	for (bool killed = true; killed; steps++) {
		cleanup_error struct error err = ERROR_INIT;
		fresh(state);
		make_data(1, "rows");
		make_env("MINE=1\n");
		ok(trash_put(store, &id, 1, root_fd, services, &err), &err);
		make_env("NOW=2\n");
		cleanup_listing struct listing l = list();
		the_entry = l.items[0].id;
		killed = killed_after(steps, work_restore);
		ok(trash_expire(store, id.shared_dir, &err), &err);
		assert_tidy();
		assert_int_equal(has_data(2, "rows") + count_in_trash("data/db/file", "rows"), 1);
		assert_true(has_env("MINE=1\n") || count_in_trash("env", "MINE=1\n"));
		assert_true(has_env("NOW=2\n") || count_in_trash("env", "NOW=2\n"));
	}
	assert_true(steps > 8);
}

static int work_empty(void)
{
	return trash_empty(store, 0, NULL, NULL) ? 1 : 0;
}

static void killed_while_emptying(void **state)
{
	for (int steps = 0, killed = 1; killed; steps++) {
		cleanup_error struct error err = ERROR_INIT;
		fresh(state);
		make_data(1, "rows");
		ok(trash_put(store, &id, 1, -1, services, &err), &err);
		killed = killed_after(steps, work_empty);
		ok(trash_expire(store, id.shared_dir, &err), &err);
		assert_tidy();
		assert_int_equal(count_in_trash("data/db/file", "rows"), 0); /* once begun, it is done */
	}
}

static void a_lost_store_loses_no_data(void **state)
{
	cleanup_error struct error err = ERROR_INIT;
	make_data(1, "rows");
	make_env("MINE=1\n");
	ok(trash_put(store, &id, 1, root_fd, services, &err), &err);
	store_close(store);
	static const char *const names[] = {"aether.db", "aether.db-wal", "aether.db-shm"};
	for (int i = 0; i < 3; i++) {
		cleanup_free char *path = xasprintf("%s/%s", id.shared_dir, names[i]);
		unlink(path);
	}
	cleanup_free char *foreign = xasprintf("%s/trash/77/data", id.shared_dir);
	dir_make(AT_FDCWD, foreign, 0700); /* without a note */
	assert_int_equal(open_all(), 0);
	make_data(2, "others");
	ok(trash_put(store, &id, 2, -1, services, &err), &err);
	assert_int_equal(count_in_trash("data/db/file", "rows"), 1);
	assert_int_equal(count_in_trash("data/db/file", "others"), 1);
	cleanup_listing struct listing l = list();
	for (size_t i = 0; i < l.count; i++)
		if (l.items[i].generation == 1) {
			assert_string_equal(l.items[i].namespace_, id.namespace_);
			assert_string_equal(l.items[i].services[0], "db");
			assert_true(l.items[i].has_env);
		}
	assert_int_equal(l.count, 3);
	assert_tidy();
}

static int work_many(void)
{
	cleanup_free char *name = xasprintf("ns-%d", (int)getpid());
	struct identity own = id;
	own.namespace_ = name;
	own.state_dir = xasprintf("%s/ns/%s", id.shared_dir, name);
	for (unsigned g = 1; g <= 20; g++) {
		cleanup_free char *data = xasprintf("%s/data/%u/db", own.state_dir, g);
		if (dir_make(AT_FDCWD, data, 0700) || trash_put(store, &own, g, -1, services, NULL))
			return 1;
		if (trash_expire(store, id.shared_dir, NULL))
			return 2;
	}
	return 0;
}

static void many_at_once(void **state)
{
	pid_t pids[8];
	for (int i = 0; i < 8; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			store_close(store);
			_exit(open_all() ? 98 : work_many());
		}
	}
	for (int i = 0; i < 8; i++) {
		int status;
		waitpid(pids[i], &status, 0);
		assert_int_equal(status, 0);
	}
	cleanup_listing struct listing l = list();
	assert_int_equal(l.count, 160);
	assert_tidy();
}

#define test(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    test(data_and_lines_rest_together),
	    test(nothing_makes_no_entry),
	    test(lines_put_aside_are_the_removed_ones),
	    test(lines_alone_put_aside),
	    test(restored_is_what_was_put),
	    test(lines_stay_unless_asked_for),
	    test(links_are_kept_as_links),
	    test(restored_data_belongs_to_todays_user),
	    test(emptying),
	    test(old_entries_go),
	    test(large_ones_go_oldest_first),
	    test(the_newest_is_not_too_large),
	    test(an_engines_volumes_count),
	    test(an_absent_trash_is_no_failure),
	    test(the_oldest_goes_when_space_is_short),
	    test(state_may_lie_on_two_file_systems),
	    test(killed_while_putting),
	    test(killed_while_restoring),
	    test(killed_while_emptying),
	    test(a_lost_store_loses_no_data),
	    test(many_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
