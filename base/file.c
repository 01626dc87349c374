#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"

bool disk_is_full(const char *path)
{
	struct statvfs v;
	return path && *path && !statvfs(path, &v) && (uint64_t)v.f_bavail * v.f_frsize < UINT64_C(1) << 20;
}

int write_all(int fd, const void *data, size_t len)
{
	const char *p = data;
	while (len) {
		ssize_t n = write(fd, p, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int file_read(int dirfd, const char *path, size_t max, struct buffer *out)
{
	cleanup_close int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	struct stat st;
	if (fstat(fd, &st))
		return -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	if (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode))
		return -EINVAL; /* would read nothing or block: never what a configuration is */
	size_t total = 0;
	char chunk[16384];
	for (;;) {
		ssize_t n = read(fd, chunk, sizeof chunk);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return 0;
		total += (size_t)n;
		if (total > max)
			return -EFBIG;
		buffer_add(out, chunk, (size_t)n);
	}
}

/* Makes `temporary` durable, then the name. */
static int write_and_rename(int dirfd, const char *temporary, const char *path, const void *data, size_t len,
                            mode_t mode)
{
	cleanup_close int fd = openat(dirfd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	if (fd < 0)
		return -errno;
	int r = write_all(fd, data, len);
	if (!r && fchmod(fd, mode))
		r = -errno;
	if (!r && fsync(fd))
		r = -errno;
	if (!r && renameat(dirfd, temporary, dirfd, path))
		r = -errno;
	if (r)
		unlinkat(dirfd, temporary, 0);
	return r;
}

int file_write_atomic(int dirfd, const char *path, const void *data, size_t len, mode_t mode)
{
	static _Atomic unsigned serial;
	cleanup_free char *temporary = NULL;
	const char *slash = strrchr(path, '/');
	int directory = slash ? (int)(slash - path) + 1 : 0;
	temporary = xasprintf("%.*s.aether-%d-%u.tmp", directory, path, (int)getpid(), atomic_fetch_add(&serial, 1));
	int r = write_and_rename(dirfd, temporary, path, data, len, mode);
	if (r != -EEXIST)
		return r;
	/* left by a process of the same number that was killed */
	unlinkat(dirfd, temporary, 0);
	return write_and_rename(dirfd, temporary, path, data, len, mode);
}

int dir_make(int dirfd, const char *path, mode_t mode)
{
	if (!mkdirat(dirfd, path, mode))
		return 0;
	if (errno == EEXIST) {
		struct stat st;
		if (fstatat(dirfd, path, &st, 0))
			return -errno;
		return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
	}
	if (errno != ENOENT)
		return -errno;
	cleanup_free char *parent = xstrdup(path);
	char *slash = strrchr(parent, '/');
	if (!slash || slash == parent)
		return -ENOENT;
	*slash = '\0';
	int r = dir_make(dirfd, parent, mode);
	if (r)
		return r;
	if (mkdirat(dirfd, path, mode) && errno != EEXIST)
		return -errno;
	return 0;
}

uint64_t now_monotonic_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

int64_t now_wall_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void format_time(char *out, int64_t wall_ms)
{
	time_t seconds = (time_t)(wall_ms / 1000);
	struct tm tm;
	gmtime_r(&seconds, &tm);
	snprintf(out, 32, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ", (unsigned)(tm.tm_year + 1900) % 10000u,
	         (unsigned)(tm.tm_mon + 1) % 100u, (unsigned)tm.tm_mday % 100u, (unsigned)tm.tm_hour % 100u,
	         (unsigned)tm.tm_min % 100u, (unsigned)tm.tm_sec % 100u, (unsigned)(wall_ms % 1000));
}
