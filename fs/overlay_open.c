/* From a node to a descriptor. Every path is resolved beneath the covered directory without following a link (openat2), so a
 * directory that somebody swaps for a link to /etc through another door leads nowhere, even for a server that is root. What was opened is compared
 * with the node: a file that was replaced through another door is ESTALE, never written in the other's place; the kernel looks
 * up again when it meets that on a path. */
#include "fs/overlay_private.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

/* A file that became a fifo, a terminal or leased through another door must not hold a worker. */
#define DATA_FLAGS (O_NONBLOCK | O_NOCTTY)

struct fd_path fd_path(int fd)
{
	struct fd_path p;
	snprintf(p.text, sizeof(p.text), "/proc/self/fd/%d", fd);
	return p;
}

static int open2(int base, const char *path, int flags)
{
	struct open_how how = {
		.flags = (unsigned)(flags | O_CLOEXEC | O_NOFOLLOW | (flags & O_PATH ? 0 : DATA_FLAGS)),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	int fd = (int)syscall(SYS_openat2, base, path, &how, sizeof(how));
	return fd < 0 ? -errno : fd;
}

/* A path longer than one call takes, in steps. */
static int open_beneath(int base, const char *path, int flags)
{
	cleanup_close int step = -1;
	while (strlen(path) >= PATH_MAX) {
		char part[PATH_MAX];
		memcpy(part, path, sizeof(part));
		char *cut = memrchr(part, '/', sizeof(part));
		if (!cut)
			return -ENAMETOOLONG;
		*cut = '\0';
		path += cut - part + 1;
		int next = open2(step >= 0 ? step : base, part, O_PATH | O_DIRECTORY);
		if (next < 0)
			return next;
		cleanup_closep(&step);
		step = next;
	}
	return open2(step >= 0 ? step : base, path, flags);
}

/* A node's own descriptor is O_PATH, or open for reading and writing. */
static int open_own(int own, int flags)
{
	if (!(flags & O_PATH) && fcntl(own, F_GETFL) & O_PATH) {
		int fd = open(fd_path(own).text, flags | DATA_FLAGS | O_CLOEXEC);
		return fd < 0 ? -errno : fd;
	}
	int fd = fcntl(own, F_DUPFD_CLOEXEC, 3);
	return fd < 0 ? -errno : fd;
}

static int check(struct overlay *o, uint32_t index, int *fd, struct stat *st)
{
	if (*fd < 0)
		return *fd == -ENOENT || *fd == -ENOTDIR || *fd == -ELOOP || *fd == -EXDEV ? -ESTALE : *fd;
	int r = fstat(*fd, st) < 0 ? -errno : o->stable_inodes && !node_is(o->nodes, index, st) ? -ESTALE : 0;
	if (r < 0)
		close(move_fd(fd));
	return r;
}

static int open_by_name(struct overlay *o, uint32_t name, int flags)
{
	cleanup_node_place struct node_place place = NODE_PLACE_INIT;
	int r = node_place(o->nodes, name, &place);
	if (r < 0)
		return r;
	return open_beneath(place.fd >= 0 ? place.fd : o->root_fd, place.path, flags);
}

/* By its own descriptor, else by each of its names. Nodes' lock held, shared. */
static int open_index(struct overlay *o, uint32_t index, int flags, struct stat *st)
{
	int r = -ESTALE, own = node_fd(o->nodes, index);
	if (own >= 0) {
		int fd = open_own(own, flags);
		r = check(o, index, &fd, st);
		return r < 0 ? r : fd;
	}
	for (uint32_t name = index; name != NODE_NONE; name = node_next_name(o->nodes, index, name)) {
		int fd = open_by_name(o, name, flags);
		r = check(o, index, &fd, st);
		if (r != -ESTALE)
			return r < 0 ? r : fd;
	}
	return r;
}

static int try_open(struct overlay *o, fuse_ino_t id, int flags, struct stat *st, uint32_t *ret_index)
{
	nodes_lock_shared(o->nodes);
	uint32_t index = node_index(o->nodes, id);
	int fd = index == NODE_NONE ? -ESTALE : open_index(o, index, flags, st);
	nodes_unlock(o->nodes);
	*ret_index = index;
	return fd;
}

/* The kernel has let the caller read or write, for it opened the file before its mode took that away, or created it without (git's objects are
 * 0444 from the start). An ordinary user's server cannot open it again as it is, but as its owner it can give itself the permission for a moment. What
 * is opened so is kept with the creators: the next request finds it. */
static int open_widened(struct overlay *o, fuse_ino_t id, int flags, struct stat *st, uint32_t index)
{
	cleanup_close int path = try_open(o, id, O_PATH, st, &index);
	if (path < 0)
		return path;
	if (st->st_uid != geteuid() || !(S_ISREG(st->st_mode) || S_ISDIR(st->st_mode)))
		return -EACCES;
	int access = S_ISREG(st->st_mode) ? O_RDWR : flags;
	struct fd_path name = fd_path(path);
	int fd = -EACCES;
	pthread_mutex_lock(&o->widen_lock);
	if (fstat(path, st) == 0 && chmod(name.text, (st->st_mode & 07777) | S_IRWXU) == 0) {
		fd = open(name.text, access | DATA_FLAGS | O_CLOEXEC);
		fd = fd < 0 ? -errno : fd;
		chmod(name.text, st->st_mode & 07777);
	}
	pthread_mutex_unlock(&o->widen_lock);
	if (fd >= 0 && S_ISREG(st->st_mode))
		overlay_pin_creator(o, index, fcntl(fd, F_DUPFD_CLOEXEC, 3));
	return fd;
}

int overlay_open_node(struct overlay *o, fuse_ino_t id, int flags, struct stat *st)
{
	struct stat unused;
	uint32_t index;
	st = st ? st : &unused;
	int fd = try_open(o, id, flags, st, &index);
	if (fd == -EPERM && (flags & O_ACCMODE) == O_WRONLY)
		fd = try_open(o, id, flags | O_APPEND, st, &index); /* a file that may only grow (chattr +a) */
	if (fd == -EACCES && !(flags & O_PATH) && !caller_may_differ())
		fd = open_widened(o, id, flags, st, index);
	return fd;
}

int overlay_open_directory(struct overlay *o, fuse_ino_t id, int *ret_owned)
{
	*ret_owned = -1;
	if (id == FUSE_ROOT_ID)
		return o->root_fd;
	*ret_owned = overlay_open_node(o, id, O_PATH | O_DIRECTORY, NULL);
	return *ret_owned;
}

int overlay_stat_child(struct overlay *o, fuse_ino_t parent, const char *name, struct stat *st)
{
	if (parent == FUSE_ROOT_ID)
		return fstatat(o->root_fd, name, st, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
	cleanup_node_place struct node_place place = NODE_PLACE_INIT;
	nodes_lock_shared(o->nodes);
	uint32_t index = node_index(o->nodes, parent);
	int r = index == NODE_NONE ? -ESTALE : node_place_child(o->nodes, index, name, &place);
	cleanup_close int fd = -1;
	if (r == 0)
		fd = open_beneath(place.fd >= 0 ? place.fd : o->root_fd, place.path, O_PATH);
	nodes_unlock(o->nodes);
	if (r == 0 && fd < 0)
		r = fd == -ELOOP || fd == -EXDEV ? -ESTALE : fd;
	if (r == 0 && fstat(fd, st) < 0)
		r = -errno;
	return r;
}
