/* Attributes, link targets, the file system's size. */
#include "fs/overlay_private.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/statvfs.h>

static int stat_node(struct overlay *o, fuse_ino_t ino, struct stat *st)
{
	cleanup_close int fd = overlay_open_node(o, ino, O_PATH, st);
	if (fd < 0)
		return fd;
	nodes_lock_shared(o->nodes);
	uint32_t index = node_index(o->nodes, ino);
	if (index != NODE_NONE && atomic_load(&node_record(o->nodes, index)->unlinked) == NODE_REPLACES_ENV)
		st->st_nlink = 1;
	nodes_unlock(o->nodes);
	return 0;
}

static void reply_attr(fuse_req_t req, fuse_ino_t ino)
{
	struct overlay *o = overlay_of(req);
	struct stat st;
	int r = 0;
	if (virtual_is(ino))
		virtual_stat(o, (enum virtual_name)ino, &st);
	else
		r = stat_node(o, ino, &st);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_attr(req, &st, overlay_timeout(o));
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	reply_attr(req, ino);
}

/* Truncated in the caller's name: the kernel beneath then takes set-uid bits away as it would have from him. */
static int set_size(fuse_req_t req, fuse_ino_t ino, off_t size)
{
	cleanup_close int fd = overlay_open_node(overlay_of(req), ino, O_WRONLY, NULL);
	if (fd < 0)
		return fd;
	int r = caller_enter(req);
	if (r < 0)
		return r;
	r = ftruncate(fd, size) < 0 ? -errno : 0;
	caller_leave();
	return r;
}

static int set_mode(struct overlay *o, int fd, mode_t mode)
{
	pthread_mutex_lock(&o->widen_lock);
	int r = chmod(fd_path(fd).text, mode & 07777) < 0 ? -errno : 0;
	pthread_mutex_unlock(&o->widen_lock);
	return r;
}

static int set_owner(int fd, const struct stat *to, int what)
{
	uid_t uid = what & FUSE_SET_ATTR_UID ? to->st_uid : (uid_t)-1;
	gid_t gid = what & FUSE_SET_ATTR_GID ? to->st_gid : (gid_t)-1;
	return fchownat(fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int set_times(int fd, const struct stat *to, int what)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};
	if (what & FUSE_SET_ATTR_ATIME_NOW)
		times[0].tv_nsec = UTIME_NOW;
	else if (what & FUSE_SET_ATTR_ATIME)
		times[0] = to->st_atim;
	if (what & FUSE_SET_ATTR_MTIME_NOW)
		times[1].tv_nsec = UTIME_NOW;
	else if (what & FUSE_SET_ATTR_MTIME)
		times[1] = to->st_mtim;
	return utimensat(AT_FDCWD, fd_path(fd).text, times, 0) < 0 ? -errno : 0;
}

/* The size first, for a new mode may forbid it; the owner before the mode, for a change of owner takes set-uid bits away. */
static int set_attributes(fuse_req_t req, fuse_ino_t ino, const struct stat *to, int what)
{
	struct overlay *o = overlay_of(req);
	int r = what & FUSE_SET_ATTR_SIZE ? set_size(req, ino, to->st_size) : 0;
	if (r < 0)
		return r;
	cleanup_close int fd = overlay_open_node(o, ino, O_PATH, NULL);
	if (fd < 0)
		return fd;
	if (what & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
		r = set_owner(fd, to, what);
	if (r == 0 && what & FUSE_SET_ATTR_MODE)
		r = set_mode(o, fd, to->st_mode);
	if (r == 0 && what & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME))
		r = set_times(fd, to, what);
	return r;
}

/* Tools that restore times and owners of links (tar, rsync, cp -a) are not told off; nothing changes. */
static int set_virtual(struct overlay *o, const struct stat *to, int what)
{
	bool other_owner = (what & FUSE_SET_ATTR_UID && to->st_uid != o->root.st_uid) ||
	                   (what & FUSE_SET_ATTR_GID && to->st_gid != o->root.st_gid);
	return other_owner || what & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_SIZE) ? -EPERM : 0;
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *to, int what, struct fuse_file_info *fi)
{
	int r = virtual_is(ino) ? set_virtual(overlay_of(req), to, what) : set_attributes(req, ino, to, what);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		reply_attr(req, ino);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct overlay *o = overlay_of(req);
	char target[PATH_MAX + 1];
	if (virtual_is(ino)) {
		fuse_reply_readlink(req, virtual_target(o, (enum virtual_name)ino));
		return;
	}
	cleanup_close int fd = overlay_open_node(o, ino, O_PATH, NULL);
	ssize_t length = fd < 0 ? fd : readlinkat(fd, "", target, PATH_MAX);
	if (length < 0) {
		fuse_reply_err(req, fd < 0 ? -fd : errno);
		return;
	}
	target[length] = '\0';
	fuse_reply_readlink(req, target);
}

/* Of the file's own file system: there may be others mounted beneath. */
static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct overlay *o = overlay_of(req);
	struct statvfs s;
	cleanup_close int fd = overlay_open_node(o, virtual_is(ino) ? FUSE_ROOT_ID : ino, O_PATH, NULL);
	if (fstatvfs(fd < 0 ? o->root_fd : fd, &s) < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_statfs(req, &s);
}

void overlay_ops_attributes(struct fuse_lowlevel_ops *ops)
{
	ops->getattr = op_getattr;
	ops->setattr = op_setattr;
	ops->readlink = op_readlink;
	ops->statfs = op_statfs;
}
