/* What the kernel should forget: an entry, a directory's listing.
 *
 * For an entry the kernel takes the directory's lock, which a process may hold whose request we have not answered. A worker would
 * deadlock with itself, and a thread would keep a killed server from dying: it waits unkillably for a request that only the next
 * server can answer, and the keeper waits for it. So a helper process does it; if that has to wait it is alone.
 */
#include "fs/overlay_private.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/file.h"
#include "base/log.h"
#include "base/program.h"

#define HELPER_DEVICE_FD 3 /* where the helper finds the device */
#define RECORDS_MAX 16384  /* bytes for one helper: less than a pipe holds, so that writing them never waits */

extern char **environ;

struct notices {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	pthread_t thread;
	char *helper;
	int device; /* -1: there is nobody to tell yet, and nothing is queued */
	struct buffer records;
	pid_t running; /* the helper; 0: none */
	bool stop;
};

static int start_helper(const struct notices *n, int input, pid_t *ret)
{
	char verb[] = "notify", fd[] = "3", *argv[] = {n->helper, verb, fd, NULL};
	posix_spawn_file_actions_t actions;
	/* over itself, dup2 would leave close-on-exec set */
	cleanup_close int device = fcntl(n->device, F_DUPFD_CLOEXEC, HELPER_DEVICE_FD + 1);
	if (device < 0)
		return -errno;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
	posix_spawn_file_actions_adddup2(&actions, device, HELPER_DEVICE_FD);
	int r = posix_spawn(ret, n->helper, &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	return -r;
}

static int send_records(const struct notices *n, const struct buffer *records, pid_t *ret)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	cleanup_close int input = ends[0];
	cleanup_close int output = ends[1];
	int r = write_all(output, records->data, records->len);
	return r < 0 ? r : start_helper(n, input, ret);
}

static void *run(void *arg)
{
	struct notices *n = arg;
	pthread_mutex_lock(&n->lock);
	while (!n->stop) {
		if (n->records.len == 0) {
			pthread_cond_wait(&n->changed, &n->lock);
			continue;
		}
		int r = send_records(n, &n->records, &n->running);
		buffer_clear(&n->records);
		if (r < 0) {
			log_warning("overlay", "cannot run %s: %s", n->helper, strerror(-r));
			n->running = 0;
			continue;
		}
		pid_t pid = n->running;
		pthread_mutex_unlock(&n->lock);
		waitpid(pid, NULL, 0);
		pthread_mutex_lock(&n->lock);
		n->running = 0;
	}
	pthread_mutex_unlock(&n->lock);
	return NULL;
}

struct notices *notices_new(void)
{
	struct notices *n = xcalloc(1, sizeof(*n));
	n->device = -1;
	pthread_mutex_init(&n->lock, NULL);
	pthread_cond_init(&n->changed, NULL);
	return n;
}

void notices_set_device(struct notices *n, int device)
{
	n->helper = program_path("aetherfs-helper");
	if (pthread_create(&n->thread, NULL, run, n) == 0)
		n->device = device;
}

static struct fuse_out_header header_of(int code, size_t size)
{
	return (struct fuse_out_header){.len = (uint32_t)(sizeof(struct fuse_out_header) + size), .error = code};
}

/* One record of the helper's: its length, then a message of the FUSE protocol. When there are too many they are dropped: the next
 * lookup of a virtual name finds out by itself, later. */
static void add(struct notices *n, int code, const void *body, size_t size, const char *name)
{
	size_t name_size = name ? strlen(name) + 1 : 0;
	struct fuse_out_header header = header_of(code, size + name_size);
	pthread_mutex_lock(&n->lock);
	if (n->device >= 0 && n->records.len + sizeof(header.len) + header.len <= RECORDS_MAX) {
		buffer_add(&n->records, &header.len, sizeof(header.len));
		buffer_add(&n->records, &header, sizeof(header));
		buffer_add(&n->records, body, size);
		buffer_add(&n->records, name ? name : "", name_size);
		pthread_cond_signal(&n->changed);
	}
	pthread_mutex_unlock(&n->lock);
}

void notices_entry(struct notices *n, fuse_ino_t parent, const char *name)
{
	struct fuse_notify_inval_entry_out body = {.parent = parent, .namelen = (uint32_t)strlen(name)};
	add(n, FUSE_NOTIFY_INVAL_ENTRY, &body, sizeof(body), name);
}

/* From 0 to the end: all that is cached of it, and its attributes. */
void notices_inode(struct notices *n, fuse_ino_t ino)
{
	struct fuse_notify_inval_inode_out body = {.ino = ino};
	add(n, FUSE_NOTIFY_INVAL_INODE, &body, sizeof(body), NULL);
}

void notices_inode_now(struct notices *n, fuse_ino_t directory)
{
	struct fuse_notify_inval_inode_out body = {.ino = directory};
	struct fuse_out_header header = header_of(FUSE_NOTIFY_INVAL_INODE, sizeof(body));
	struct iovec parts[] = {{&header, sizeof(header)}, {&body, sizeof(body)}};
	if (n->device >= 0 && writev(n->device, parts, 2) < 0 && errno != ENOENT)
		log_warning("overlay", "the kernel forgets no listing: %s", strerror(errno));
}

void notices_free(struct notices *n)
{
	if (!n)
		return;
	pthread_mutex_lock(&n->lock);
	n->stop = true;
	if (n->running)
		kill(n->running, SIGKILL);
	pthread_cond_signal(&n->changed);
	pthread_mutex_unlock(&n->lock);
	if (n->device >= 0)
		pthread_join(n->thread, NULL);
	buffer_release(&n->records);
	free(n->helper);
	pthread_cond_destroy(&n->changed);
	pthread_mutex_destroy(&n->lock);
	free(n);
}
