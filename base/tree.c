/* Whole directory trees. Every step goes by descriptor and name, so that nobody who may write there can lead us elsewhere
 * by a link put in the way. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"

static DIR *open_directory(int at, const char *path)
{
	int fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	DIR *d = fdopendir(fd);
	if (!d)
		close(fd);
	return d;
}

/* NULL at the end, with errno 0, or on an error. Skips "." and "..". */
static const char *next_name(DIR *d)
{
	for (;;) {
		errno = 0;
		struct dirent *e = readdir(d);
		if (!e)
			return NULL;
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			return e->d_name;
	}
}

/* ---- removal ---- */

static int remove_at(int at, const char *name, dev_t dev);

static int remove_contents(int at, const char *name, dev_t dev)
{
	cleanup_closedir DIR *d = open_directory(at, name);
	if (!d && errno == EACCES && !fchmodat(at, name, 0700, 0))
		d = open_directory(at, name);
	if (!d)
		return -errno;
	int result = 0;
	const char *child;
	while ((child = next_name(d))) {
		int r = remove_at(dirfd(d), child, dev);
		if (r && !result)
			result = r; /* go on: remove as much as can be */
	}
	return result ? result : -errno;
}

static int remove_at(int at, const char *name, dev_t dev)
{
	struct stat st;
	if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? 0 : -errno;
	if (st.st_dev != dev)
		return -EXDEV;
	if (!S_ISDIR(st.st_mode))
		return unlinkat(at, name, 0) && errno != ENOENT ? -errno : 0;
	if (!unlinkat(at, name, AT_REMOVEDIR))
		return 0;
	int r = remove_contents(at, name, dev);
	if (!unlinkat(at, name, AT_REMOVEDIR) || errno == ENOENT)
		return 0;
	return r ? r : -errno;
}

int tree_remove(int at, const char *path)
{
	struct stat st;
	if (fstatat(at, path, &st, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? 0 : -errno;
	return remove_at(at, path, st.st_dev);
}

/* ---- copying ---- */

struct copy {
	uid_t uid;
	gid_t gid;
};

static int copy_bytes(int from, int to, off_t size)
{
	if (!ioctl(to, FICLONE, from))
		return 0;
	while (size > 0) {
		ssize_t n = copy_file_range(from, NULL, to, NULL, (size_t)size, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP))
			break;
		if (n < 0)
			return -errno;
		if (n == 0)
			return 0; /* it shrank meanwhile */
		size -= n;
	}
	if (size <= 0)
		return 0;
	char chunk[65536];
	for (;;) {
		ssize_t n = read(from, chunk, sizeof chunk);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		int r = write_all(to, chunk, (size_t)n);
		if (r)
			return r;
	}
}

/* Owner before mode: chown clears set-id bits. */
static int copy_owner(int fd, const struct stat *st, const struct copy *how)
{
	uid_t uid = how->uid == (uid_t)-1 ? st->st_uid : how->uid;
	gid_t gid = how->gid == (gid_t)-1 ? st->st_gid : how->gid;
	if (fchown(fd, uid, gid) && (errno != EPERM || how->uid != (uid_t)-1))
		return -errno;
	return fchmod(fd, st->st_mode & 07777) ? -errno : 0;
}

static int copy_file(int from_dir, const char *from, int to_dir, const char *to, const struct stat *st,
                     const struct copy *how)
{
	cleanup_close int in = openat(from_dir, from, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (in < 0)
		return -errno;
	cleanup_close int out = openat(to_dir, to, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (out < 0)
		return -errno;
	int r = st->st_size ? copy_bytes(in, out, st->st_size) : 0;
	if (!r)
		r = copy_owner(out, st, how);
	const struct timespec times[2] = {st->st_atim, st->st_mtim};
	if (!r && futimens(out, times))
		r = -errno;
	return r;
}

static int copy_link(int from_dir, const char *from, int to_dir, const char *to, const struct stat *st,
                     const struct copy *how)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(from_dir, from, target, sizeof target - 1);
	if (n < 0)
		return -errno;
	target[n] = '\0';
	if (symlinkat(target, to_dir, to))
		return -errno;
	uid_t uid = how->uid == (uid_t)-1 ? st->st_uid : how->uid;
	gid_t gid = how->gid == (gid_t)-1 ? st->st_gid : how->gid;
	if (fchownat(to_dir, to, uid, gid, AT_SYMLINK_NOFOLLOW) && how->uid != (uid_t)-1)
		return -errno;
	return 0;
}

static int copy_at(int from_dir, const char *from, int to_dir, const char *to, const struct copy *how);

static int copy_directory(int from_dir, const char *from, int to_dir, const char *to, const struct stat *st,
                          const struct copy *how)
{
	if (mkdirat(to_dir, to, 0700))
		return -errno;
	cleanup_closedir DIR *source = open_directory(from_dir, from);
	cleanup_close int target = openat(to_dir, to, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (!source || target < 0)
		return -errno;
	const char *child;
	while ((child = next_name(source))) {
		int r = copy_at(dirfd(source), child, target, child, how);
		if (r)
			return r;
	}
	if (errno)
		return -errno;
	return copy_owner(target, st, how);
}

static int copy_at(int from_dir, const char *from, int to_dir, const char *to, const struct copy *how)
{
	struct stat st;
	if (fstatat(from_dir, from, &st, AT_SYMLINK_NOFOLLOW))
		return -errno;
	if (S_ISDIR(st.st_mode))
		return copy_directory(from_dir, from, to_dir, to, &st, how);
	if (S_ISREG(st.st_mode))
		return copy_file(from_dir, from, to_dir, to, &st, how);
	if (S_ISLNK(st.st_mode))
		return copy_link(from_dir, from, to_dir, to, &st, how);
	return 0; /* sockets, FIFOs and devices are of the process that made them */
}

int tree_copy(int from_dirfd, const char *from, int to_dirfd, const char *to, uid_t uid, gid_t gid)
{
	struct copy how = {uid, gid};
	struct stat st;
	if (!fstatat(to_dirfd, to, &st, AT_SYMLINK_NOFOLLOW))
		return -EEXIST;
	int r = copy_at(from_dirfd, from, to_dirfd, to, &how);
	if (r)
		tree_remove(to_dirfd, to);
	return r;
}

/* ---- owners ---- */

int tree_chown(int at, const char *path, uid_t uid, gid_t gid)
{
	struct stat st;
	if (fstatat(at, path, &st, AT_SYMLINK_NOFOLLOW))
		return -errno;
	if (S_ISDIR(st.st_mode)) {
		cleanup_closedir DIR *d = open_directory(at, path);
		if (!d)
			return -errno;
		const char *child;
		while ((child = next_name(d))) {
			int r = tree_chown(dirfd(d), child, uid, gid);
			if (r)
				return r;
		}
		if (errno)
			return -errno;
	}
	return fchownat(at, path, uid, gid, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

/* ---- size ---- */

struct seen {
	ino_t *inodes; /* those with more than one link */
	size_t count;
};

static bool seen_before(struct seen *s, ino_t ino)
{
	for (size_t i = 0; i < s->count; i++)
		if (s->inodes[i] == ino)
			return true;
	array_grow(s->inodes, s->count);
	s->inodes[s->count++] = ino;
	return false;
}

static int size_at(int at, const char *path, struct seen *seen, uint64_t *bytes)
{
	struct stat st;
	if (fstatat(at, path, &st, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? 0 : -errno; /* it went meanwhile */
	if (S_ISDIR(st.st_mode) || st.st_nlink < 2 || !seen_before(seen, st.st_ino))
		*bytes += (uint64_t)st.st_blocks * 512;
	if (!S_ISDIR(st.st_mode))
		return 0;
	cleanup_closedir DIR *d = open_directory(at, path);
	if (!d)
		return -errno;
	const char *child;
	while ((child = next_name(d))) {
		int r = size_at(dirfd(d), child, seen, bytes);
		if (r)
			return r;
	}
	return -errno;
}

int tree_size(int at, const char *path, uint64_t *ret_bytes)
{
	struct seen seen = {NULL, 0};
	uint64_t bytes = 0;
	int r = size_at(at, path, &seen, &bytes);
	free(seen.inodes);
	if (!r)
		*ret_bytes = bytes;
	return r;
}
