#include "fs/drain.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "fs/children.h"
#include "fs/mount.h"
#include "fs/shared.h"

#define AREA "drain"
#define TURN_MS 10
#define TURN_MAX 1024 /* requests, until it is seen whether there is still somebody to wait for */
#define NOTIFY_RESEND 7

/* ---- who holds a connection ---- */

static bool is_helper(pid_t pid)
{
	cleanup_free char *path = xasprintf("/proc/%d/comm", (int)pid);
	cleanup_buffer struct buffer name = BUFFER_INIT;
	return !file_read(AT_FDCWD, path, 64, &name) && !strcmp(buffer_str(&name), "aetherfs-helper\n");
}

/* How many of them are still there. */
static unsigned kill_holders(pid_t server)
{
	pid_t all[CHILDREN_MAX];
	unsigned n = children_list(all, CHILDREN_MAX), left = 0;
	for (unsigned i = 0; i < n; i++) {
		if (all[i] != server && !is_helper(all[i]))
			continue;
		kill(all[i], SIGKILL);
		if (waitpid(all[i], NULL, WNOHANG) == 0)
			left++;
		else if (all[i] == server)
			return kill_holders(0); /* its helpers are our children since it died */
	}
	return left;
}

/* ---- what is asked ---- */

static bool wants_answer(uint32_t opcode)
{
	return opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET && opcode != FUSE_INTERRUPT;
}

/* What is there now. A server that was not quite dead may have taken more since the last time. */
static void refuse_requests(int fuse, void *buffer)
{
	const struct fuse_out_header resend = {.len = sizeof resend, .error = NOTIFY_RESEND};
	const struct fuse_in_header *request = buffer;
	if (write(fuse, &resend, sizeof resend) < 0)
		log_debug(AREA, "FUSE_NOTIFY_RESEND: %s", strerror(errno));
	for (int i = 0; i < TURN_MAX; i++) {
		ssize_t n = read(fuse, buffer, SHARED_REQUEST_BYTES);
		if (n < 0 && (errno == ENOENT || errno == EINTR)) /* that one was taken back */
			continue;
		if (n < (ssize_t)sizeof *request)
			break;
		const struct fuse_out_header refusal = {.len = sizeof refusal, .error = -ECONNABORTED, .unique = request->unique};
		if (wants_answer(request->opcode) && write(fuse, &refusal, sizeof refusal) < 0)
			log_debug(AREA, "request %u: %s", request->opcode, strerror(errno)); /* ENOENT: who asked does not wait any more */
	}
}

/* false: nobody can wait for an answer any more. */
static bool any_left(struct pollfd *fuse, unsigned n)
{
	bool any = false;
	for (unsigned i = 0; i < n; i++) {
		if (fuse[i].fd >= 0 && mount_is_over(fuse[i].fd))
			fuse[i].fd = -1;
		any |= fuse[i].fd >= 0;
	}
	return any;
}

void drain(const int *fuse, unsigned n, pid_t server)
{
	struct pollfd left[SESSION_COUNT];
	uint64_t until = now_monotonic_ms() + DRAIN_MS;
	for (unsigned i = 0; i < n; i++)
		left[i] = (struct pollfd){fuse[i], POLLIN, 0};
	if (!any_left(left, n) || !kill_holders(server))
		return;
	void *buffer = mmap(NULL, SHARED_REQUEST_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (buffer == MAP_FAILED)
		return;
	for (unsigned i = 0; i < n; i++)
		if (left[i].fd >= 0)
			fcntl(left[i].fd, F_SETFL, fcntl(left[i].fd, F_GETFL) | O_NONBLOCK);
	unsigned holders;
	do {
		for (unsigned i = 0; i < n; i++)
			if (left[i].fd >= 0)
				refuse_requests(left[i].fd, buffer);
		poll(left, n, TURN_MS);
		holders = kill_holders(server);
	} while (holders && any_left(left, n) && now_monotonic_ms() < until);
	if (holders && any_left(left, n))
		log_error(AREA, "%u processes of ours cannot be ended: requests of the mount may hang", holders);
	munmap(buffer, SHARED_REQUEST_BYTES);
}
