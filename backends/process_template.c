/* Where a data directory comes from: a template is made once for all environments of the user, copies of it are made
 * ahead of need, and a rename gives one away.
 *
 * A rename is the commit everywhere: what has its final name is complete; *.tmp is swept by the next who holds the
 * key's lock, and DIR.making, beside a data directory, by the next who has the service's turn. Copies made ahead are
 * not flushed to disk, so they carry the boot they were made in, and are dropped after another. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "backends/process.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/path.h"

#define AREA "process"
#define ADAPTED ".aether-values" /* in a data directory: the adapt_key of the values that it knows */
#define ADAPTED_MAX 64
#define LOCK_WAIT_MS 20
#define UNUSED_S (30 * 24 * 3600)           /* a template that nobody has used for so long is dropped */
#define SPARES_FREE_MIN (UINT64_C(1) << 30) /* bytes that stay free: below, nothing is copied ahead */
#define ERROR_OUTPUT_MAX 2000               /* bytes of a failed step's output that an error carries */

/* ---- the copy of a spec ---- */

static bool steps_copy(struct process_steps *to, char *const *const *argv, const char *const *input)
{
	size_t n = 0;
	while (argv && argv[n])
		n++;
	if (!n)
		return false;
	to->argv = xcalloc(n + 1, sizeof *to->argv);
	to->input = xcalloc(n + 1, sizeof *to->input);
	for (size_t i = 0; i < n; i++) {
		to->argv[i] = strv_copy(argv[i]);
		to->input[i] = input ? xstrdup(input[i]) : NULL;
	}
	return true;
}

static void steps_release(struct process_steps *s)
{
	for (size_t i = 0; s->argv && s->argv[i]; i++) {
		strv_free(s->argv[i]);
		free(s->input[i]);
	}
	free(s->argv);
	free(s->input);
}

struct process_template *process_template_new(const struct process_spec *spec)
{
	struct process_template *t = xcalloc(1, sizeof *t);
	if (spec->template_key && steps_copy(&t->init, spec->init, spec->init_stdin))
		t->key = xstrdup(spec->template_key);
	if (spec->adapt_key && steps_copy(&t->adapt, spec->adapt, spec->adapt_stdin))
		t->adapt_key = xstrdup(spec->adapt_key);
	if (spec->init_env)
		keyvals_copy(&t->env, spec->init_env);
	t->seed = process_seed_new(spec);
	return t;
}

void process_template_free(struct process_template *t)
{
	if (!t)
		return;
	steps_release(&t->init);
	steps_release(&t->adapt);
	free(t->key);
	free(t->adapt_key);
	keyvals_release(&t->env);
	process_seed_free(t->seed);
	free(t);
}

/* ---- names and locks ---- */

/* Below shared_dir, so that root's services and its template account can pass through. */
static int place_open(const struct process_settings *p, const char *name, int *ret_fd, struct error *err)
{
	cleanup_free char *path = xasprintf("%s/%s", p->shared_dir, name);
	int r = dir_make(AT_FDCWD, path, geteuid() ? 0700 : 0711);
	if (!r) {
		*ret_fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		r = *ret_fd < 0 ? -errno : 0;
	}
	return r ? error_set_errno(err, r == -ENOSPC ? ERROR_NO_SPACE : ERROR_BACKEND_SPAWN_FAILED, -r, "%s", path) : 0;
}

/* Waits unless `wait` is false: then -EBUSY. The file stays: who removes a lock file gives it to two. */
static int key_lock(const struct process_settings *p, int place, const char *key, bool wait, int *ret_fd,
                    struct error *err)
{
	cleanup_free char *name = xasprintf("%s.lock", key);
	cleanup_close int fd = openat(place, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_set_errno(err, errno == ENOSPC ? ERROR_NO_SPACE : ERROR_BACKEND_SPAWN_FAILED, errno, "%s", name);
	for (;;) {
		struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
		if (!fcntl(fd, F_OFD_SETLK, &lock)) {
			*ret_fd = move_fd(&fd);
			return 0;
		}
		if (errno != EAGAIN && errno != EACCES)
			return error_set_errno(err, ERROR_BACKEND_SPAWN_FAILED, errno, "%s", name);
		if (!wait)
			return -EBUSY;
		if (atomic_load(&p->canceled))
			return error_set(err, ERROR_CANCELED, "template %s: canceled", key);
		nanosleep(&(struct timespec){0, LOCK_WAIT_MS * 1000000}, NULL);
	}
}

static bool is_there(int at, const char *name)
{
	struct stat st;
	return !fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW);
}

/* ---- sweeping ---- */

static const char *boot(void)
{
	static _Thread_local char id[9];
	cleanup_buffer struct buffer text = BUFFER_INIT;
	if (!id[0] && !file_read(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, &text) && text.len >= 8)
		memcpy(id, text.data, 8);
	return id[0] ? id : "0";
}

/* Takes the key's lock if it is free, and removes `name`. */
static void remove_if_idle(const struct process_settings *p, int place, const char *key, const char *name)
{
	cleanup_close int lock = -1;
	if (!key_lock(p, place, key, false, &lock, NULL))
		tree_remove(place, name);
}

static bool long_unused(int place, const char *lock)
{
	struct stat st;
	return !fstatat(place, lock, &st, AT_SYMLINK_NOFOLLOW) && st.st_mtime + UNUSED_S < time(NULL);
}

/* One name of templates/ or spares/: remains of a crash, copies of an earlier boot, and what no environment has used
 * for long (a recipe changed, Postgres was upgraded). */
static void sweep_one(const struct process_settings *p, int place, const char *name, const char *own_key)
{
	cleanup_free char *of_now = xasprintf(".%s.", boot());
	size_t len = strlen(name);
	bool is_spare = len > 2 && name[len - 2] == '.' && name[len - 1] >= '0' && name[len - 1] <= '9';
	if (is_spare && !strstr(name, of_now)) {
		tree_remove(place, name);
	} else if (name_ends_in(name, ".tmp")) {
		cleanup_free char *key = xstrndup(name, len - strlen(".tmp"));
		if (strcmp(key, own_key)) /* its lock is ours: another descriptor would be refused */
			remove_if_idle(p, place, key, name);
		else
			tree_remove(place, name);
	} else if (name_ends_in(name, ".lock") && long_unused(place, name)) {
		cleanup_free char *key = xstrndup(name, len - strlen(".lock"));
		remove_if_idle(p, place, key, key);
		for (int i = 0; i < PROCESS_SPARES; i++) {
			cleanup_free char *spare = xasprintf("%s.%s.%d", key, boot(), i);
			remove_if_idle(p, place, key, spare);
		}
	}
}

/* The caller has the lock of `own_key` there. */
static void sweep(const struct process_settings *p, int place, const char *own_key)
{
	cleanup_close int fd = openat(place, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_closedir DIR *d = fd < 0 ? NULL : fdopendir(fd);
	if (!d)
		return;
	move_fd(&fd);
	struct dirent *e;
	while ((e = readdir(d)))
		sweep_one(p, place, e->d_name, own_key);
}

/* ---- making a template ---- */

/* initdb wants a name for its uid, so root's leased ones will not do: an account makes it, and the copies are given
 * away. */
static int account(uid_t *ret_uid, gid_t *ret_gid, struct error *err)
{
	static const char *const names[] = {"postgres", "nobody"};
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		struct passwd entry, *found = NULL;
		char text[4096];
		if (!getpwnam_r(names[i], &entry, text, sizeof text, &found) && found && found->pw_uid) {
			*ret_uid = found->pw_uid;
			*ret_gid = found->pw_gid;
			return 0;
		}
	}
	return error_set(err, ERROR_BACKEND_SPAWN_FAILED, "there is no account \"nobody\" to make a template as");
}

/* new: `text` with every {{data}} replaced. */
static char *with_data(const char *text, const char *data)
{
	static const char mark[] = "{{data}}";
	cleanup_buffer struct buffer out = BUFFER_INIT;
	for (const char *hit; (hit = strstr(text, mark)); text = hit + strlen(mark)) {
		buffer_add(&out, text, (size_t)(hit - text));
		buffer_adds(&out, data);
	}
	buffer_adds(&out, text);
	return buffer_detach(&out);
}

static int step_failed(const struct process_run *s, const char *program, int code, const struct buffer *output,
                       struct error *err)
{
	const char *text = buffer_str(output), *what = s->what, *data = s->data;
	if (output->len > ERROR_OUTPUT_MAX)
		text += output->len - ERROR_OUTPUT_MAX;
	size_t end = strcspn(text, "");
	while (end && (text[end - 1] == '\n' || text[end - 1] == ' '))
		end--;
	size_t line = end;
	for (unsigned lines = s->lines; line && (text[line - 1] != '\n' || --lines);)
		line--;
	/* what has failed cleans up after itself, so its own words count before the disk's */
	bool full = strstr(text, ERROR_SAYS_NO_SPACE) || disk_is_full(data);
	if (full) {
		error_set(err, ERROR_NO_SPACE, "%s: the disk of %s is full: %s ended with %d", what, data, program, code);
		error_hint(err, "make room there, and ask again");
	} else {
		error_set(err, ERROR_BACKEND_SPAWN_FAILED, "%s: %s ended with %d: %.*s", what, program, code, (int)(end - line),
		          text + line);
	}
	error_detail(err, "output", json_string(text));
	return full ? -ENOSPC : -EIO;
}

static int step_run(const struct process_run *s, size_t i, struct error *err)
{
	cleanup_buffer struct buffer order = BUFFER_INIT, output = BUFFER_INIT;
	cleanup_free char *program = NULL;
	int r = process_program(s->steps->argv[i][0], s->env, &program, err);
	if (r)
		return r;
	process_order_add(&order, "program", "%s", program);
	for (char **arg = s->steps->argv[i]; *arg; arg++) {
		cleanup_free char *text = with_data(*arg, s->data);
		process_order_add(&order, "arg", "%s", text);
	}
	process_order_env(&order, s->env);
	process_order_user(&order, s->uid, s->gid);
	process_order_add(&order, "directory", "%s", s->data);
	cleanup_free char *input = s->steps->input[i] ? with_data(s->steps->input[i], s->data) : NULL;
	int code;
	r = process_run_once(s->settings, s->what, &order, input, (int)s->timeout_ms, &code, &output, err);
	return r ? r : code ? step_failed(s, program, code, &output, err) : 0;
}

int process_steps_run(const struct process_run *s, struct error *err)
{
	int r = 0;
	for (size_t i = 0; s->steps->argv && s->steps->argv[i] && !r; i++)
		r = step_run(s, i, err);
	return r;
}

static int template_fill(const struct process_settings *p, const struct process_template *t, int place,
                         const char *name, struct error *err)
{
	uid_t uid = (uid_t)-1;
	gid_t gid = (gid_t)-1;
	int r = geteuid() ? 0 : account(&uid, &gid, err);
	if (r)
		return r;
	if (mkdirat(place, name, 0700) || (!geteuid() && fchownat(place, name, uid, gid, AT_SYMLINK_NOFOLLOW)))
		return error_set_errno(err, errno == ENOSPC ? ERROR_NO_SPACE : ERROR_BACKEND_SPAWN_FAILED, errno, "template %s",
		                       t->key);
	cleanup_free char *data = xasprintf("%s/templates/%s", p->shared_dir, name);
	cleanup_free char *what = xasprintf("template %s", t->key);
	r = process_steps_run(&(struct process_run){p, what, &t->init, &t->env, data, uid, gid, PROCESS_INIT_MS, 1}, err);
	/* a template outlives power failures, so its bytes come before its name */
	cleanup_close int fd = r ? -1 : openat(place, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (!r && (fd < 0 || syncfs(fd)))
		r = error_set_errno(err, errno == ENOSPC ? ERROR_NO_SPACE : ERROR_BACKEND_SPAWN_FAILED, errno, "template %s",
		                    t->key);
	return r;
}

int process_template_make(const struct process_settings *p, const struct process_template *t, struct error *err)
{
	cleanup_close int place = -1, lock = -1;
	int r = place_open(p, "templates", &place, err);
	if (r || is_there(place, t->key))
		return r;
	r = key_lock(p, place, t->key, true, &lock, err);
	if (r || is_there(place, t->key))
		return r;
	uint64_t began = now_monotonic_ms();
	cleanup_free char *name = xasprintf("%s.tmp", t->key);
	sweep(p, place, t->key);
	r = template_fill(p, t, place, name, err);
	if (!r && renameat(place, name, place, t->key))
		r = error_set_errno(err, ERROR_BACKEND_SPAWN_FAILED, errno, "template %s", t->key);
	if (r)
		tree_remove(place, name);
	else
		log_info(AREA, "template %s: made in %llu ms", t->key, (unsigned long long)(now_monotonic_ms() - began));
	return r;
}

/* ---- spare copies ---- */

static char *spare_name(const struct process_template *t, int n)
{
	return xasprintf("%s.%s.%d", t->key, boot(), n);
}

/* The times of the lock files are those of the last use. */
static void used_now(int place, const char *key)
{
	cleanup_free char *name = xasprintf("%s.lock", key);
	utimensat(place, name, NULL, AT_SYMLINK_NOFOLLOW);
}

static bool space_short(int place)
{
	struct statvfs v;
	return fstatvfs(place, &v) || (uint64_t)v.f_bavail * v.f_frsize < SPARES_FREE_MIN;
}

int process_spares_make(const struct process_settings *p, const struct process_template *t, struct error *err)
{
	cleanup_close int templates = -1, place = -1, lock = -1;
	int r = place_open(p, "templates", &templates, err);
	if (!r)
		r = place_open(p, "spares", &place, err);
	if (!r)
		r = key_lock(p, place, t->key, false, &lock, err);
	if (r)
		return r == -EBUSY ? 0 : r; /* another process is at it */
	used_now(templates, t->key);
	used_now(place, t->key);
	sweep(p, place, t->key);
	cleanup_free char *unfinished = xasprintf("%s.tmp", t->key);
	for (int i = 0; i < PROCESS_SPARES && !r; i++) {
		cleanup_free char *name = spare_name(t, i);
		if (is_there(place, name) || !is_there(templates, t->key))
			continue;
		if (space_short(place) || atomic_load(&p->canceled))
			return 0;
		r = tree_copy(templates, t->key, place, unfinished, (uid_t)-1, (gid_t)-1);
		if (!r && renameat(place, unfinished, place, name))
			r = -errno;
		if (r)
			error_set_errno(err, r == -ENOSPC ? ERROR_NO_SPACE : ERROR_BACKEND_SPAWN_FAILED, -r, "spare copy of %s",
			                t->key);
	}
	return r;
}

/* ---- a data directory ---- */

/* A rename has one winner: two that claim at once get two copies, or one gets none. */
static bool spare_claim(const struct process_settings *p, const struct process_template *t, const char *to)
{
	for (int i = 0; i < PROCESS_SPARES; i++) {
		cleanup_free char *name = spare_name(t, i);
		cleanup_free char *from = xasprintf("%s/spares/%s", p->shared_dir, name);
		if (!renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE))
			return true;
	}
	return false;
}

static int data_fill(const struct process_settings *p, const struct process_template *t, const char *to,
                     struct error *err)
{
	if (!t->key)
		return mkdir(to, 0700) ? -errno : 0;
	if (spare_claim(p, t, to))
		return p->uid == (uid_t)-1 ? 0 : tree_chown(AT_FDCWD, to, p->uid, (gid_t)p->uid);
	int r = process_template_make(p, t, err);
	if (r)
		return r;
	cleanup_free char *from = xasprintf("%s/templates/%s", p->shared_dir, t->key);
	return tree_copy(AT_FDCWD, from, AT_FDCWD, to, p->uid, p->uid == (uid_t)-1 ? (gid_t)-1 : (gid_t)p->uid);
}

static int data_give(const struct process_settings *p, const char *making, const char *data_dir)
{
	if (p->uid != (uid_t)-1 && lchown(making, p->uid, (gid_t)p->uid))
		return -errno;
	if (rmdir(data_dir) && errno != ENOENT)
		return -errno;
	return renameat2(AT_FDCWD, making, AT_FDCWD, data_dir, RENAME_NOREPLACE) ? -errno : 0;
}

static bool has_content(const char *directory)
{
	cleanup_closedir DIR *d = opendir(directory);
	struct dirent *e;
	while (d && (e = readdir(d)))
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			return true;
	return false;
}

int process_data_make(const struct process_settings *p, const struct process_template *t, const char *data_dir,
                      struct error *err)
{
	if (has_content(data_dir))
		return 0;
	cleanup_free char *making = xasprintf("%s.making", data_dir);
	cleanup_free char *parent = xstrndup(data_dir, (size_t)(strrchr(data_dir, '/') - data_dir));
	int r = dir_make(AT_FDCWD, parent, p->uid == (uid_t)-1 ? 0700 : 0711);
	if (!r)
		r = tree_remove(AT_FDCWD, making);
	cleanup_error struct error why = ERROR_INIT;
	if (!r)
		r = data_fill(p, t, making, &why);
	if (!r && t->seed)
		r = process_seed_run(p, t->seed, making, &why);
	if (!r)
		r = data_give(p, making, data_dir);
	if (!r)
		return 1;
	tree_remove(AT_FDCWD, making);
	if (error_is_set(&why)) {
		error_copy(err, &why);
		return r;
	}
	return error_set_errno(err, r == -ENOSPC ? ERROR_NO_SPACE : ERROR_BACKEND_SPAWN_FAILED, -r, "%s", data_dir);
}

/* ---- what the data knows of the configuration ---- */

/* The directory is the service's own: what stands under that name may be anything. */
static bool is_adapted(int directory, const char *key)
{
	char text[ADAPTED_MAX + 1];
	cleanup_close int fd = openat(directory, ADAPTED, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, ADAPTED_MAX);
	if (n < 0)
		return false;
	text[n] = '\0';
	return !strcmp(text, key);
}

/* The service's own file: what copies a whole data directory (pg_basebackup) must be able to read it. */
static int adapted(const struct process_settings *p, int directory, const char *key)
{
	int r = file_write_atomic(directory, ADAPTED, key, strlen(key), 0600);
	if (!r && p->uid != (uid_t)-1 && fchownat(directory, ADAPTED, p->uid, (gid_t)p->uid, AT_SYMLINK_NOFOLLOW))
		r = -errno;
	return r;
}

/* A program that wants a name for its uid (Postgres, as initdb) gets the data lent under root. The directory itself goes
 * first and comes back last: whoever finds it another's after a crash takes all of it back. */
static int adapt(const struct process_settings *p, const struct process_template *t, const char *data_dir,
                 struct error *err)
{
	uid_t uid = (uid_t)-1;
	gid_t gid = (gid_t)-1;
	int r = geteuid() ? 0 : account(&uid, &gid, err);
	if (!r && uid != (uid_t)-1 && (lchown(data_dir, uid, gid) || tree_chown(AT_FDCWD, data_dir, uid, gid)))
		r = error_set_errno(err, ERROR_BACKEND_SPAWN_FAILED, errno, "%s", data_dir);
	if (!r)
		r = process_steps_run(&(struct process_run){p, data_dir, &t->adapt, &t->env, data_dir, uid, gid, PROCESS_INIT_MS, 1}, err);
	int back = uid == (uid_t)-1 ? 0 : tree_chown(AT_FDCWD, data_dir, p->uid, (gid_t)p->uid);
	return r || !back ? r : error_set_errno(err, ERROR_BACKEND_SPAWN_FAILED, -back, "%s", data_dir);
}

int process_data_adapt(const struct process_settings *p, const struct process_template *t, const char *data_dir,
                       bool made, struct error *err)
{
	if (!t->adapt_key)
		return 0;
	cleanup_close int directory = open(data_dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (directory < 0)
		return error_set_errno(err, ERROR_BACKEND_SPAWN_FAILED, errno, "%s", data_dir);
	if (!made && is_adapted(directory, t->adapt_key))
		return 0;
	int r = 0;
	if (!made) {
		r = adapt(p, t, data_dir, err);
		if (r && err && err->code == ERROR_BACKEND_SPAWN_FAILED) {
			error_prefix(err, "its data was made with other values, and they cannot be changed");
			error_hint(err, "put the old values back, or start fresh: ajj destroy (the data goes to the trash)");
		}
		if (r)
			return r;
		log_info(AREA, "%s: brought in line with the configuration", data_dir);
	}
	r = adapted(p, directory, t->adapt_key);
	return r ? error_set_errno(err, r == -ENOSPC ? ERROR_NO_SPACE : ERROR_BACKEND_SPAWN_FAILED, -r, "%s", data_dir) : 0;
}
