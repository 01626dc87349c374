#include "provisioner/mounts.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/path.h"
#include "base/strv.h"

#define MOUNTINFO_MAX (16u << 20) /* bytes */

/* The kernel writes space, tab, newline and backslash as three octal digits. In place. */
static char *unescape(char *s)
{
	char *to = s;
	for (char *from = s; *from;) {
		unsigned c;
		if (*from == '\\' && sscanf(from, "\\%3o", &c) == 1) {
			*to++ = (char)c;
			from += 4;
		} else {
			*to++ = *from++;
		}
	}
	*to = '\0';
	return s;
}

/* "36 35 98:0 /root /point options optional... - type source superoptions" */
static bool parse_line(char *line, struct mount *ret)
{
	unsigned major_, minor_;
	char *words[16], *save = NULL;
	size_t n = 0;
	char *separator = strstr(line, " - ");
	if (!separator)
		return false;
	*separator = '\0';
	for (char *w = strtok_r(line, " ", &save); w && n < 16; w = strtok_r(NULL, " ", &save))
		words[n++] = w;
	char *type = strtok_r(separator + 3, " ", &save);
	char *source = strtok_r(NULL, " ", &save);
	const char *super_options = strtok_r(NULL, " ", &save);
	if (n < 6 || !type || !source || sscanf(words[2], "%u:%u", &major_, &minor_) != 2)
		return false;
	*ret = (struct mount){xstrdup(unescape(words[4])), xstrdup(type), xstrdup(unescape(source)), makedev(major_, minor_),
	                      super_options && strstr(super_options, "allow_other")};
	return true;
}

static void parse(char *text, struct mounts *ret)
{
	char *save = NULL;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		array_grow(ret->items, ret->count);
		ret->count += parse_line(line, &ret->items[ret->count]);
	}
}

/* ---- what is known of it ---- */

static struct mounts kept;
static int kept_fd = -1; /* says by POLLPRI that the table is another since it was opened or last polled */
static bool keeps;

void mounts_keep(void)
{
	keeps = true;
}

static void copy(const struct mounts *from, struct mounts *ret)
{
	ret->items = xcalloc(from->count + 1, sizeof *ret->items);
	for (size_t i = 0; i < from->count; i++) {
		const struct mount *m = &from->items[i];
		ret->items[ret->count++] = (struct mount){xstrdup(m->point), xstrdup(m->type), xstrdup(m->source), m->device, m->shared};
	}
}

static int read_again(void)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	char path[32];
	if (kept_fd < 0)
		kept_fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	if (kept_fd < 0)
		return -errno;
	snprintf(path, sizeof path, "/proc/self/fd/%d", kept_fd);
	int r = file_read(AT_FDCWD, path, MOUNTINFO_MAX, &text);
	mounts_release(&kept);
	if (!r && text.data)
		parse(text.data, &kept);
	return r;
}

static int look_at_kept(struct mounts *ret)
{
	struct pollfd p = {kept_fd, POLLPRI, 0};
	bool same = kept.count && poll(&p, 1, 0) == 0;
	int r = same ? 0 : read_again();
	if (!r)
		copy(&kept, ret);
	return r;
}

int mounts_read(struct mounts *ret)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	*ret = (struct mounts)MOUNTS_INIT;
	if (keeps)
		return look_at_kept(ret);
	int r = file_read(AT_FDCWD, "/proc/self/mountinfo", MOUNTINFO_MAX, &text);
	if (!r && text.data)
		parse(text.data, ret);
	return r;
}

void mounts_release(struct mounts *m)
{
	for (size_t i = 0; i < m->count; i++) {
		free(m->items[i].point);
		free(m->items[i].type);
		free(m->items[i].source);
	}
	free(m->items);
	*m = (struct mounts)MOUNTS_INIT;
}

enum mount_kind mount_kind(const struct mount *m)
{
	if (!strcmp(m->type, "fuse.aetherfs"))
		return MOUNT_OVERLAY;
	return strcmp(m->type, "fuse.aetherfs-control") ? MOUNT_FOREIGN : MOUNT_CONTROL;
}

const struct mount *mounts_ours_at(const struct mounts *m, const char *point)
{
	for (size_t i = m->count; i-- > 0;)
		if (!strcmp(m->items[i].point, point))
			return mount_kind(&m->items[i]) ? &m->items[i] : NULL;
	return NULL;
}

bool is_mounted_by_us(const char *point)
{
	cleanup_mounts struct mounts m = MOUNTS_INIT;
	return !mounts_read(&m) && mounts_ours_at(&m, point);
}

/* stat(2) would be answered from what the kernel has cached, for ever. */
static int ask(const char *point)
{
	struct statx st;
	return statx(AT_FDCWD, point, AT_STATX_FORCE_SYNC | AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &st) ? -errno : 0;
}

bool mount_is_dead(const char *point)
{
	int r = mount_is_hung(point) ? 0 : ask(point);
	return r == -ENOTCONN || r == -ECONNABORTED;
}

/* ---- what does not answer ---- */

struct question {
	const char *point;
	uint32_t number;
	int answers;
};

static void *ask_one(void *arg)
{
	const struct question *q = arg;
	ask(q->point);
	if (write(q->answers, &q->number, sizeof q->number) < 0)
		_exit(1);
	return NULL;
}

/* A process of its own, which may be left waiting: one that waits for a server that has taken its request cannot be killed. */
static void ask_all(const struct mounts *m, int answers)
{
	/* what it holds is held as long: who reads our output waits for its end */
	if (answers > 0 && dup2(answers, 0) < 0)
		_exit(1);
	answers = 0;
	syscall(SYS_close_range, 1, ~0U, 0);
	for (size_t i = 0; i < m->count; i++) {
		pthread_t thread;
		struct question *q = xcalloc(1, sizeof *q);
		*q = (struct question){m->items[i].point, (uint32_t)i, answers};
		if (mount_kind(&m->items[i]) && pthread_create(&thread, NULL, ask_one, q))
			write(answers, &q->number, sizeof q->number); /* it is not known to hang */
	}
	for (;;)
		pause();
}

/* Takes out of `waiting` what was answered in time. */
static void hear_answers(int answers, bool *waiting, size_t count)
{
	struct pollfd p = {answers, POLLIN, 0};
	uint64_t now, until = now_monotonic_ms() + MOUNT_ANSWER_MS;
	uint32_t number;
	while (count && (now = now_monotonic_ms()) < until)
		if (poll(&p, 1, (int)(until - now)) > 0) {
			if (read(answers, &number, sizeof number) != sizeof number)
				break;
			waiting[number] = false;
			count--;
		}
}

/* Each point is asked once in the life of this process. */
static char **asked, **hung;

/* Of those that were not asked yet, all at once. */
static void ask_for_hung(const struct mounts *m)
{
	cleanup_free bool *waiting = xcalloc(m->count + 1, sizeof *waiting);
	size_t count = 0;
	int pipes[2];
	for (size_t i = 0; i < m->count; i++)
		count += waiting[i] = mount_kind(&m->items[i]) != MOUNT_FOREIGN;
	if (!count || pipe2(pipes, O_CLOEXEC))
		return;
	pid_t pid = fork();
	if (pid == 0)
		ask_all(m, pipes[1]);
	close(pipes[1]);
	if (pid > 0)
		hear_answers(pipes[0], waiting, count);
	close(pipes[0]);
	if (pid < 0)
		return;
	kill(pid, SIGKILL);
	bool any = false;
	for (size_t i = 0; i < m->count; i++) {
		strv_push(&asked, xstrdup(m->items[i].point));
		if (waiting[i])
			strv_push(&hung, xstrdup(m->items[i].point));
		any = any || waiting[i];
	}
	waitpid(pid, NULL, any ? WNOHANG : 0);
}

/* Asks those mounts of ours that `wanted` says, and no other: one that hangs costs whoever asks it MOUNT_ANSWER_MS. */
static void ask_wanted(bool (*wanted)(const struct mount *m, const void *arg), const void *arg)
{
	cleanup_mounts struct mounts all = MOUNTS_INIT;
	struct mounts some = MOUNTS_INIT;
	if (mounts_read(&all))
		return;
	some.items = xcalloc(all.count + 1, sizeof *some.items);
	for (size_t i = 0; i < all.count; i++)
		if (mount_kind(&all.items[i]) && wanted(&all.items[i], arg) && !strv_contains(asked, all.items[i].point))
			some.items[some.count++] = all.items[i];
	ask_for_hung(&some);
	free(some.items);
}

static bool is_one_of(const struct mount *m, const void *points)
{
	return strv_contains((char *const *)points, m->point);
}

bool mounts_any_hung(char *const *points)
{
	ask_wanted(is_one_of, points);
	for (; points && *points; points++)
		if (strv_contains(hung, *points))
			return true;
	return false;
}

bool mount_is_hung(const char *point)
{
	char *const points[] = {(char *)(uintptr_t)point, NULL};
	return mounts_any_hung(points);
}

static bool is_above(const struct mount *m, const void *path)
{
	return path_is_within(path, m->point);
}

char *mounts_hung_above(const char *path)
{
	ask_wanted(is_above, path);
	for (char *const *p = hung; p && *p; p++)
		if (path_is_within(path, *p))
			return xstrdup(*p);
	return NULL;
}

int mounts_wait_gone(const char *point, unsigned timeout_ms)
{
	uint64_t until = now_monotonic_ms() + timeout_ms;
	cleanup_close int fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	while (is_mounted_by_us(point)) {
		uint64_t now = now_monotonic_ms();
		if (now >= until)
			return -ETIMEDOUT;
		/* the file reports a change as POLLPRI since it was opened or last polled; the bound heals a missed one */
		struct pollfd p = {fd, POLLPRI, 0};
		poll(&p, 1, until - now < 50 ? (int)(until - now) : 50);
	}
	return 0;
}
