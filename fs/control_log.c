/* services/NAME/log: the service's log file as one growing file. When the file beneath is rotated away (another inode at
 * its path, or a shorter file), offsets go on where it ended, so that a follower neither starts again nor stands still.
 * The rest of the old file is read at PATH.1, where the rotation puts it, as long as it is there. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fs/control_files.h"

/* Size of `path` when it is the file of that inode number. */
static bool size_of(const char *path, uint64_t ino, uint64_t *ret)
{
	struct stat st;
	if (stat(path, &st) < 0 || st.st_ino != ino)
		return false;
	*ret = (uint64_t)st.st_size;
	return true;
}

/* Notes what stands at the path now. The end of everything. */
static uint64_t log_look(const char *path, struct shared_version *node)
{
	struct stat st;
	if (!path || stat(path, &st) < 0)
		return node->base + node->bytes.size;
	uint64_t seen = node->bytes.size;
	if (node->lower != st.st_ino || (uint64_t)st.st_size < seen) {
		if (node->lower && node->lower != st.st_ino) {
			cleanup_free char *rotated = xasprintf("%s.1", path);
			size_of(rotated, node->lower, &seen);
			atomic_store(&node->previous_lower, node->lower);
			atomic_store(&node->previous_base, node->base);
		}
		atomic_store(&node->base, node->base + (node->lower ? seen : 0));
		atomic_store(&node->lower, st.st_ino);
	}
	atomic_store(&node->bytes.size, (uint64_t)st.st_size);
	return node->base + (uint64_t)st.st_size;
}

static uint64_t log_size(struct environment *e, const char *service, struct shared_version *node)
{
	cleanup_free char *path = service ? environment_service_log(e, service) : NULL;
	return log_look(path, node);
}

static size_t read_at(const char *path, uint64_t ino, uint64_t offset, char *buf, size_t size)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0 || st.st_ino != ino)
		return 0;
	ssize_t n = pread(fd, buf, size, (off_t)offset);
	return n > 0 ? (size_t)n : 0;
}

static size_t log_read(struct environment *e, const char *service, struct shared_version *node, uint64_t *offset,
                       char *buf, size_t size)
{
	cleanup_free char *path = service ? environment_service_log(e, service) : NULL;
	log_look(path, node);
	if (!path)
		return 0;
	if (*offset < node->base && *offset >= node->previous_base && node->previous_lower) {
		cleanup_free char *rotated = xasprintf("%s.1", path);
		uint64_t left = node->base - *offset;
		size_t n = read_at(rotated, node->previous_lower, *offset - node->previous_base, buf, left < size ? left : size);
		if (n > 0)
			return n;
	}
	if (*offset < node->base)
		*offset = node->base;
	return read_at(path, node->lower, *offset - node->base, buf, size);
}

const struct control_growing control_log = {.size = log_size, .read = log_read, .timed = true};
