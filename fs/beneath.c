#include "fs/beneath.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"

#define LOOK_MS 1000
#define WRITERS_MAX 64 /* files; who holds more is seen as far as that */
#define FDINFO_MAX 4096

struct writer {
	pid_t pid;
	int fd;
	dev_t device;
	ino_t inode;
};

struct beneath {
	struct beneath_params p;
	uv_timer_t timer;
	uv_work_t walk;
	bool walking, standing, stopped;
	struct writer writers[WRITERS_MAX]; /* the walk's own until it is done */
	unsigned count;
};

static bool is_below(const char *path, size_t n, const char *root)
{
	size_t len = strlen(root);
	return n >= len && !strncmp(path, root, len) && (n == len || path[len] == '/' || path[len] == ' ' || len == 1);
}

/* Of the file system that the mount covers, not of the mount, which has the same paths. What is cached is enough, so that nobody is asked. */
static bool is_beneath(int dirfd, const char *name, const char *root, dev_t device, struct statx *ret)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(dirfd, name, target, sizeof target - 1);
	if (n <= 0)
		return false;
	target[n] = '\0';
	return is_below(target, (size_t)n, root) &&
	       !statx(dirfd, name, AT_STATX_DONT_SYNC, STATX_TYPE | STATX_INO, ret) &&
	       makedev(ret->stx_dev_major, ret->stx_dev_minor) == device;
}

static bool is_other_process(const struct dirent *d)
{
	long pid = strtol(d->d_name, NULL, 10);
	return pid > 0 && pid != getpid() && pid != getppid(); /* the keeper holds the directory, too */
}

bool beneath_stands_anybody(int root_fd, const char *root)
{
	struct stat st;
	struct statx unused;
	cleanup_closedir DIR *proc = fstat(root_fd, &st) ? NULL : opendir("/proc");
	for (struct dirent *d; proc && (d = readdir(proc));) {
		cleanup_free char *cwd = is_other_process(d) ? xasprintf("%s/cwd", d->d_name) : NULL;
		if (cwd && is_beneath(dirfd(proc), cwd, root, st.st_dev, &unused))
			return true;
	}
	return false;
}

/* ---- files that are held open ---- */

/* proc_pid_fdinfo(5): "flags:" is octal. */
static bool is_for_writing(int proc, pid_t pid, int fd)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_free char *path = xasprintf("%d/fdinfo/%d", (int)pid, fd);
	unsigned flags;
	if (file_read(proc, path, FDINFO_MAX, &text))
		return false;
	const char *at = strstr(buffer_str(&text), "flags:");
	return at && sscanf(at, "flags: %o", &flags) == 1 && (flags & O_ACCMODE) != O_RDONLY && !(flags & O_PATH);
}

static void look_at_process(struct beneath *b, int proc, pid_t pid, dev_t device)
{
	cleanup_free char *path = xasprintf("%d/fd", (int)pid);
	cleanup_close int fd = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_closedir DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir)
		return;
	move_fd(&fd);
	for (struct dirent *d; b->count < WRITERS_MAX && (d = readdir(dir));) {
		struct statx st;
		int number = atoi(d->d_name);
		if (d->d_name[0] != '.' && is_beneath(dirfd(dir), d->d_name, b->p.root, device, &st) && S_ISREG(st.stx_mode) &&
		    is_for_writing(proc, pid, number))
			b->writers[b->count++] = (struct writer){pid, number, device, st.stx_ino};
	}
}

static void walk(uv_work_t *work)
{
	struct beneath *b = work->data;
	struct stat st;
	cleanup_closedir DIR *proc = fstat(b->p.root_fd, &st) ? NULL : opendir("/proc");
	for (struct dirent *d; proc && (d = readdir(proc));)
		if (is_other_process(d))
			look_at_process(b, dirfd(proc), (pid_t)strtol(d->d_name, NULL, 10), st.st_dev);
}

static bool still_holds(const struct writer *w)
{
	char path[64];
	struct statx st;
	snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)w->pid, w->fd);
	return !statx(AT_FDCWD, path, AT_STATX_DONT_SYNC, STATX_INO, &st) && st.stx_ino == w->inode &&
	       makedev(st.stx_dev_major, st.stx_dev_minor) == w->device;
}

/* Once more, too, for who has just let go: what was written last is to be seen. */
static void look_at_writers(struct beneath *b)
{
	unsigned left = 0;
	for (unsigned i = 0; i < b->count; i++) {
		struct writer w = b->writers[i];
		if (still_holds(&w))
			b->writers[left++] = w;
		b->p.may_write(b->p.arg, w.device, w.inode);
	}
	b->count = left;
}

/* ---- turns ---- */

static void on_look(uv_timer_t *timer)
{
	struct beneath *b = timer->data;
	if (!b->walking)
		look_at_writers(b);
	if (b->standing && !beneath_stands_anybody(b->p.root_fd, b->p.root)) {
		b->standing = false;
		b->p.left(b->p.arg);
	}
	if (!b->standing && !b->walking && !b->count)
		uv_timer_stop(timer);
}

static void walked(uv_work_t *work, int status)
{
	struct beneath *b = work->data;
	b->walking = false;
	if (!b->stopped && (b->count || b->standing))
		uv_timer_start(&b->timer, on_look, LOOK_MS, LOOK_MS);
}

struct beneath *beneath_new(const struct beneath_params *params)
{
	struct beneath *b = xcalloc(1, sizeof *b);
	b->p = *params;
	b->standing = params->standing;
	uv_timer_init(params->loop, &b->timer);
	b->timer.data = b->walk.data = b;
	b->walking = !uv_queue_work(params->loop, &b->walk, walk, walked);
	if (b->standing)
		uv_timer_start(&b->timer, on_look, LOOK_MS, LOOK_MS);
	return b;
}

void beneath_stop(struct beneath *b)
{
	b->stopped = true;
	uv_timer_stop(&b->timer);
}
