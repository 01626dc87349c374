/* Extended attributes. The kernel caches none but ACLs, so each question is a round trip; where the file system beneath has
 * none at all the answer is ENOSYS once, and the kernel asks no more. */
#include "fs/overlay_private.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#define VALUE_MAX 65536 /* the kernel's XATTR_SIZE_MAX and XATTR_LIST_MAX */

/* ENOSYS, or a descriptor of the node. */
static int open_for_xattr(struct overlay *o, fuse_ino_t ino, int for_virtual)
{
	if (!o->xattrs)
		return -ENOSYS;
	return virtual_is(ino) ? for_virtual : overlay_open_node(o, ino, O_PATH, NULL);
}

static void reply_value(fuse_req_t req, ssize_t length, int err, const char *value, size_t size)
{
	if (length < 0)
		fuse_reply_err(req, err);
	else if (size == 0)
		fuse_reply_xattr(req, (size_t)length);
	else
		fuse_reply_buf(req, value, (size_t)length);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	cleanup_close int fd = open_for_xattr(overlay_of(req), ino, -ENODATA);
	if (fd < 0) {
		fuse_reply_err(req, -fd);
		return;
	}
	cleanup_free char *value = size ? malloc(size) : NULL;
	ssize_t length = size && !value ? -1 : getxattr(fd_path(fd).text, name, value, size);
	reply_value(req, length, errno, value, size);
}

/* A server that is root sees trusted ones, which its caller would not. */
static ssize_t without_trusted(char *list, ssize_t length)
{
	char *to = list;
	for (size_t at = 0, one; at < (size_t)length; at += one) {
		one = strlen(list + at) + 1;
		if (strncmp(list + at, "trusted.", 8) == 0)
			continue;
		memmove(to, list + at, one);
		to += one;
	}
	return to - list;
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct overlay *o = overlay_of(req);
	if (virtual_is(ino) && o->xattrs) {
		reply_value(req, 0, 0, "", size);
		return;
	}
	cleanup_close int fd = open_for_xattr(o, ino, 0);
	if (fd < 0) {
		fuse_reply_err(req, -fd);
		return;
	}
	cleanup_free char *list = malloc(VALUE_MAX);
	ssize_t length = list ? listxattr(fd_path(fd).text, list, VALUE_MAX) : -1;
	if (length > 0 && fuse_req_ctx(req)->uid != 0)
		length = without_trusted(list, length);
	if (size && length > (ssize_t)size)
		fuse_reply_err(req, ERANGE);
	else
		reply_value(req, length, errno, list, size);
}

/* Setting an ACL may take the set-gid bit away, depending on the caller's groups. */
static int set_as_caller(fuse_req_t req, int fd, const char *name, const char *value, size_t size, int flags)
{
	bool acl = strncmp(name, "system.posix_acl_", 17) == 0;
	int r = acl ? caller_enter(req) : 0;
	if (r < 0)
		return r;
	if (acl)
		caller_enter_groups(req);
	r = setxattr(fd_path(fd).text, name, value, size, flags) < 0 ? -errno : 0;
	if (acl)
		caller_leave();
	return r;
}

static void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	cleanup_close int fd = open_for_xattr(overlay_of(req), ino, -EPERM);
	int r = fd < 0 ? fd : set_as_caller(req, fd, name, value, size, flags);
	fuse_reply_err(req, r < 0 && !overlay_was_done(r, EEXIST) ? -r : 0);
}

static void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	cleanup_close int fd = open_for_xattr(overlay_of(req), ino, -ENODATA);
	int r = fd < 0 ? fd : removexattr(fd_path(fd).text, name) < 0 ? -errno : 0;
	fuse_reply_err(req, r < 0 && !overlay_was_done(r, ENODATA) ? -r : 0);
}

void overlay_ops_xattrs(struct fuse_lowlevel_ops *ops)
{
	ops->getxattr = op_getxattr;
	ops->listxattr = op_listxattr;
	ops->setxattr = op_setxattr;
	ops->removexattr = op_removexattr;
}
