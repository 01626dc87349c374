/* Who runs: the lock proves it, the record says who the shim is, and what neither answers for is found and killed. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backends/process.h"
#include "backends/shim.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"

#define AREA "process"
#define SETTLE_WAIT_MS 300 /* a shim writes its record within a millisecond of its start */
#define TURN_WAIT_MS 10
#define SURVIVORS_NAMED 8

static void wait_ms(long ms)
{
	struct timespec ts = {0, ms * 1000000};
	nanosleep(&ts, NULL);
}

void process_found_release(struct process_found *f)
{
	free(f->record.config_hash);
	free(f->record.run_dir);
	free(f->record.data_dir);
	if (f->shim_pidfd >= 0)
		close(f->shim_pidfd);
	*f = (struct process_found)PROCESS_FOUND_INIT;
}

/* ---- the record ---- */

/* borrowed: the text after "key "; NULL when there is no such line. */
static const char *record_field(const char *text, const char *key)
{
	size_t len = strlen(key);
	for (const char *line = text; line && *line;) {
		if (!strncmp(line, key, len) && line[len] == ' ')
			return line + len + 1;
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
	return NULL;
}

static int64_t record_number(const char *text, const char *key)
{
	const char *value = record_field(text, key);
	return value ? strtoll(value, NULL, 10) : 0;
}

static char *record_text(const char *text, const char *key)
{
	const char *value = record_field(text, key);
	return value ? xstrndup(value, strcspn(value, "\n")) : xstrdup("");
}

static void record_parse(const char *text, struct process_record *r)
{
	r->shim = (pid_t)record_number(text, "shim");
	r->shim_ticks = (uint64_t)record_number(text, "shim_ticks");
	r->pid = (pid_t)record_number(text, "pid");
	r->started_ms = record_number(text, "started_ms");
	r->generation = (uint32_t)record_number(text, "generation");
	r->stop_signal = (int)record_number(text, "stop_signal");
	r->stop_grace_ms = (unsigned)record_number(text, "stop_grace_ms");
	r->config_hash = record_text(text, "config_hash");
	r->run_dir = record_text(text, "run_dir");
	r->data_dir = record_text(text, "data_dir");
}

static void exit_read(int dir, struct process_record *r)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	long long at;
	int code;
	if (!file_read(dir, "exit", SHIM_EXIT_SIZE, &text) && sscanf(buffer_str(&text), "exit %d %lld", &code, &at) == 2) {
		r->ended = true;
		r->exit_code = code;
		r->exited_ms = at;
	}
}

static bool record_read(int dir, struct process_record *r)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	if (file_read(dir, "record", PROCESS_RECORD_MAX, &text))
		return false;
	record_parse(buffer_str(&text), r);
	exit_read(dir, r);
	return true;
}

/* ---- the lock ---- */

static struct flock whole_file(void)
{
	return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET};
}

/* A question that takes nothing: taking it for an instant would refuse a start at that instant. */
static bool lock_held(int dir)
{
	cleanup_close int fd = openat(dir, "lock", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	struct flock lock = whole_file();
	return fd >= 0 && !fcntl(fd, F_OFD_GETLK, &lock) && lock.l_type != F_UNLCK;
}

static int lock_take(const char *path, int *ret_fd)
{
	for (;;) {
		cleanup_close int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd < 0)
			return -errno;
		struct flock lock = whole_file();
		if (fcntl(fd, F_OFD_SETLK, &lock))
			return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
		struct stat ours, named;
		if (!fstat(fd, &ours) && !stat(path, &named) && ours.st_ino == named.st_ino && ours.st_dev == named.st_dev) {
			*ret_fd = move_fd(&fd);
			return 0;
		}
		/* removed between the two: what we hold is no longer the lock */
	}
}

static int lock_failed(int r, const char *path, struct error *err)
{
	return error_set_errno(err, r == -ENOSPC ? ERROR_NO_SPACE : ERROR_BACKEND_UNREACHABLE, -r, "%s", path);
}

int process_lock(const char *directory, int *ret_fd, struct error *err)
{
	cleanup_free char *path = xasprintf("%s/lock", directory);
	int r = lock_take(path, ret_fd);
	return r && r != -EBUSY ? lock_failed(r, path, err) : r;
}

int process_turn(const struct process_settings *p, const char *directory, int *ret_fd, struct error *err)
{
	cleanup_free char *path = xasprintf("%s/turn", directory);
	*ret_fd = -1;
	for (;;) {
		int r = lock_take(path, ret_fd);
		if (!r || r == -ENOENT)
			return 0;
		if (r != -EBUSY)
			return lock_failed(r, path, err);
		if (atomic_load(&p->canceled))
			return error_set(err, ERROR_CANCELED, "canceled");
		wait_ms(TURN_WAIT_MS);
	}
}

/* ---- processes ---- */

static int pidfd_open(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

static bool pidfd_lives(int pidfd)
{
	struct pollfd p = {pidfd, POLLIN, 0};
	return poll(&p, 1, 0) == 0;
}

static uint64_t start_ticks(pid_t pid)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_free char *path = xasprintf("/proc/%d/stat", (int)pid);
	if (file_read(AT_FDCWD, path, 4096, &text))
		return 0;
	char *p = text.data ? strrchr(text.data, ')') : NULL; /* field 2; starttime is field 22 (proc(5)) */
	for (int field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	return p ? strtoull(p, NULL, 10) : 0;
}

/* The pidfd first: what is compared afterwards is then the process that it stands for. */
static int shim_open(const struct process_record *r)
{
	cleanup_close int pidfd = r->shim > 0 ? pidfd_open(r->shim) : -1;
	if (pidfd < 0 || start_ticks(r->shim) != r->shim_ticks || !pidfd_lives(pidfd))
		return -1;
	return move_fd(&pidfd);
}

static int directory_open(const char *directory)
{
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static void find_at(int dir, struct process_found *f)
{
	f->held = lock_held(dir);
	f->has_record = record_read(dir, &f->record);
	if (f->held && f->has_record)
		f->shim_pidfd = shim_open(&f->record);
}

int process_find(const char *directory, struct process_found *ret, struct error *err)
{
	*ret = (struct process_found)PROCESS_FOUND_INIT;
	cleanup_close int dir = directory_open(directory);
	if (dir == -ENOENT)
		return 0;
	if (dir < 0)
		return error_set_errno(err, ERROR_BACKEND_UNREACHABLE, -dir, "%s", directory);
	find_at(dir, ret);
	return 0;
}

/* ---- holders of the lock, wherever they are ---- */

/* fdinfo tells a lock's holder from who merely has the file open (a backup, `cat`). */
static bool fd_holds_lock(pid_t pid, const char *fd)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_free char *path = xasprintf("/proc/%d/fdinfo/%s", (int)pid, fd);
	return !file_read(AT_FDCWD, path, 65536, &text) && text.data && strstr(text.data, "OFDLCK");
}

/* By readlink alone: a stat would ask the file systems beneath, which may be hung, or be ours. */
static bool process_holds(pid_t pid, const char *lock)
{
	cleanup_free char *fds = xasprintf("/proc/%d/fd", (int)pid);
	cleanup_closedir DIR *d = opendir(fds);
	size_t len = strlen(lock);
	struct dirent *e;
	while (d && (e = readdir(d))) {
		char target[4096];
		ssize_t n = readlinkat(dirfd(d), e->d_name, target, sizeof target);
		if (n == (ssize_t)len && !memcmp(target, lock, len) && fd_holds_lock(pid, e->d_name))
			return true;
	}
	return false;
}

/* The lock's path as the kernel writes it. */
static char *lock_path(int dir)
{
	cleanup_close int fd = openat(dir, "lock", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	cleanup_free char *link = xasprintf("/proc/self/fd/%d", fd);
	char target[4096];
	ssize_t n = fd < 0 ? -1 : readlink(link, target, sizeof target);
	return n > 0 && n < (ssize_t)sizeof target ? xstrndup(target, (size_t)n) : NULL;
}

static void holder_kill(pid_t pid, const char *lock)
{
	cleanup_close int pidfd = pidfd_open(pid);
	if (pidfd >= 0 && process_holds(pid, lock)) /* again: the number may have changed hands */
		syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
}

/* Returns how many there are; names some of them. */
static size_t holders_kill(const char *lock, struct buffer *names)
{
	cleanup_closedir DIR *proc = opendir("/proc");
	size_t count = 0;
	struct dirent *e;
	while (proc && lock && (e = readdir(proc))) {
		pid_t pid = isdigit((unsigned char)e->d_name[0]) ? (pid_t)atoi(e->d_name) : 0;
		if (pid <= 0 || pid == getpid() || !process_holds(pid, lock))
			continue;
		if (count++ < SURVIVORS_NAMED)
			buffer_printf(names, " %d", (int)pid);
		holder_kill(pid, lock);
	}
	return count;
}

/* ---- settling ---- */

/* 137 is what a kill gives; when it happened is not known better than now. */
static void record_unrecorded(int dir, struct process_record *r)
{
	r->ended = true;
	r->exit_code = 128 + SIGKILL;
	r->exited_ms = now_wall_ms();
	cleanup_free char *text = xasprintf("exit %d %lld 0\n", r->exit_code, (long long)r->exited_ms);
	if (file_write_atomic(dir, "exit", text, strlen(text), 0600))
		log_warning(AREA, "the end of pid %d could not be recorded", (int)r->pid);
}

static int sweep(int dir, const char *directory, struct error *err)
{
	cleanup_free char *lock = lock_path(dir);
	uint64_t deadline = now_monotonic_ms() + PROCESS_SWEEP_MS;
	for (long pause = 1; lock_held(dir); pause = pause < 64 ? pause * 2 : pause) {
		cleanup_buffer struct buffer names = BUFFER_INIT;
		size_t count = holders_kill(lock, &names);
		if (now_monotonic_ms() > deadline) {
			error_set_errno(err, ERROR_BACKEND_DEPROVISION_FAILED, ETIMEDOUT, "%zu processes of %s survive SIGKILL:%s",
			                count, directory, buffer_str(&names));
			return error_hint(err, "ps -o pid,stat,cmd%s", count ? " -p the numbers above" : "");
		}
		wait_ms(pause);
	}
	return 0;
}

int process_settle(const char *directory, struct process_found *ret, struct error *err)
{
	*ret = (struct process_found)PROCESS_FOUND_INIT;
	cleanup_close int dir = directory_open(directory);
	if (dir == -ENOENT)
		return 0;
	if (dir < 0)
		return error_set_errno(err, ERROR_BACKEND_UNREACHABLE, -dir, "%s", directory);
	uint64_t until = now_monotonic_ms() + SETTLE_WAIT_MS;
	for (;;) {
		process_found_release(ret);
		find_at(dir, ret);
		if (!ret->held || ret->shim_pidfd >= 0 || now_monotonic_ms() >= until)
			break;
		wait_ms(5); /* what is dying is gone in a moment; who has just begun will be found */
	}
	if (ret->shim_pidfd >= 0)
		return 0;
	if (ret->held) {
		log_warning(AREA, "%s: killing what no shim answers for", directory);
		int r = sweep(dir, directory, err);
		if (r)
			return r;
	}
	ret->held = false;
	if (ret->has_record && !ret->record.ended)
		exit_read(dir, &ret->record);
	if (ret->has_record && !ret->record.ended)
		record_unrecorded(dir, &ret->record);
	return 0;
}

int process_forget(const char *directory, struct error *err)
{
	cleanup_close int dir = directory_open(directory);
	if (dir == -ENOENT)
		return 0;
	cleanup_close int lock = -1;
	int r = process_lock(directory, &lock, err);
	if (r == -EBUSY)
		return error_set_errno(err, ERROR_BACKEND_DEPROVISION_FAILED, EBUSY, "%s: somebody runs there again",
		                       directory);
	if (r)
		return r;
	r = tree_remove(AT_FDCWD, directory);
	return r ? error_set_errno(err, ERROR_BACKEND_DEPROVISION_FAILED, -r, "%s", directory) : 0;
}

/* ---- memory ---- */

struct usage {
	uint64_t private_pages;
	uint64_t most_shared; /* of one process: what they share is counted once */
};

static void usage_add(struct usage *u, pid_t pid)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_free char *path = xasprintf("/proc/%d/statm", (int)pid);
	uint64_t resident, shared;
	if (file_read(AT_FDCWD, path, 256, &text) ||
	    sscanf(buffer_str(&text), "%*u %" SCNu64 " %" SCNu64, &resident, &shared) != 2)
		return;
	u->private_pages += resident > shared ? resident - shared : 0;
	u->most_shared = shared > u->most_shared ? shared : u->most_shared;
}

static void usage_below(struct usage *u, pid_t pid, int depth)
{
	cleanup_free char *tasks = xasprintf("/proc/%d/task", (int)pid);
	cleanup_closedir DIR *d = opendir(tasks);
	struct dirent *e;
	while (d && depth && (e = readdir(d))) {
		cleanup_buffer struct buffer text = BUFFER_INIT;
		cleanup_free char *path = xasprintf("%s/children", e->d_name);
		if (e->d_name[0] == '.' || file_read(dirfd(d), path, 1 << 16, &text))
			continue;
		char *end;
		for (char *p = text.data; p && *p; p = end) {
			long child = strtol(p, &end, 10);
			if (end == p)
				break;
			usage_add(u, (pid_t)child);
			usage_below(u, (pid_t)child, depth - 1);
		}
	}
}

uint64_t process_memory(pid_t shim)
{
	struct usage u = {0, 0};
	usage_below(&u, shim, 16);
	return (u.private_pages + u.most_shared) * (uint64_t)sysconf(_SC_PAGESIZE);
}
