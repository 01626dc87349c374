/* What is in files. OPEN is answered ENOSYS, once: the kernel opens files by itself from then on, and each request names a node. What the kernel lets a
 * caller read or write, it has checked. Writes are done in the caller's name, for set-uid bits, quotas and reserved blocks. */
#include "fs/overlay_private.h"

#include <fcntl.h>
#include <stdlib.h>

#define READ_BUFFER (128u << 10) /* what the kernel reads ahead by default; a block of its own from malloc() would be mapped and faulted in each time */

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fuse_reply_err(req, ENOSYS);
}

static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fuse_reply_err(req, ENOSYS);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	char buffer[READ_BUFFER]; /* thread-local it would be cleared, and so kept, in every thread of the program */
	cleanup_close int fd = overlay_open_node(overlay_of(req), ino, O_RDONLY, NULL);
	if (fd < 0) {
		fuse_reply_err(req, -fd);
		return;
	}
	cleanup_free char *larger = size > sizeof(buffer) ? malloc(size) : NULL;
	char *data = size > sizeof(buffer) ? larger : buffer;
	ssize_t length = data ? pread(fd, data, size, offset) : -1;
	if (length < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_buf(req, data, (size_t)length);
}

static ssize_t write_fully(int fd, const char *data, size_t size, off_t offset)
{
	size_t done = 0;
	while (done < size) {
		ssize_t n = pwrite(fd, data + done, size - done, offset + (off_t)done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return done ? (ssize_t)done : -errno;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset, struct fuse_file_info *fi)
{
	cleanup_close int fd = overlay_open_node(overlay_of(req), ino, O_WRONLY, NULL);
	ssize_t n = fd < 0 ? fd : caller_enter(req);
	if (n == 0) {
		n = write_fully(fd, data, size, offset);
		caller_leave();
	}
	if (n < 0)
		fuse_reply_err(req, (int)-n);
	else
		fuse_reply_write(req, (size_t)n);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	cleanup_close int fd = overlay_open_node(overlay_of(req), ino, O_RDONLY, NULL);
	int r = fd < 0 ? fd : (datasync ? fdatasync(fd) : fsync(fd)) < 0 ? -errno : 0;
	fuse_reply_err(req, -r);
}

static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *fi)
{
	cleanup_close int fd = overlay_open_node(overlay_of(req), ino, O_WRONLY, NULL);
	int r = fd < 0 ? fd : caller_enter(req);
	if (r == 0) {
		r = fallocate(fd, mode, offset, length) < 0 ? -errno : 0;
		caller_leave();
	}
	fuse_reply_err(req, -r);
}

static void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
	cleanup_close int fd = overlay_open_node(overlay_of(req), ino, O_RDONLY, NULL);
	off_t at = fd < 0 ? fd : lseek(fd, offset, whence);
	if (at < 0)
		fuse_reply_err(req, fd < 0 ? -fd : errno);
	else
		fuse_reply_lseek(req, at);
}

static void op_copy_file_range(fuse_req_t req, fuse_ino_t from, off_t from_offset, struct fuse_file_info *from_fi, fuse_ino_t to,
                               off_t to_offset, struct fuse_file_info *to_fi, size_t length, int flags)
{
	struct overlay *o = overlay_of(req);
	cleanup_close int in = overlay_open_node(o, from, O_RDONLY, NULL);
	cleanup_close int out = overlay_open_node(o, to, O_WRONLY, NULL);
	ssize_t n = in < 0 ? in : out < 0 ? out : caller_enter(req);
	if (n == 0) {
		n = copy_file_range(in, &from_offset, out, &to_offset, length, (unsigned)flags);
		n = n < 0 ? -errno : n;
		caller_leave();
	}
	if (n < 0)
		fuse_reply_err(req, (int)-n);
	else
		fuse_reply_write(req, (size_t)n);
}

void overlay_ops_data(struct fuse_lowlevel_ops *ops)
{
	ops->open = op_open;
	ops->flush = op_flush;
	ops->read = op_read;
	ops->write = op_write;
	ops->fsync = op_fsync;
	ops->fallocate = op_fallocate;
	ops->lseek = op_lseek;
	ops->copy_file_range = op_copy_file_range;
}
