#include "fs/session.h"

#include <errno.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"

/* Bits of fuse_init_in/out.flags | flags2 << 32 (include/uapi/linux/fuse.h 7.45) that libfuse 3.14 does not know. */
#define INIT_EXT (UINT64_C(1) << 30)
#define INIT_HANDLE_KILLPRIV_V2 (UINT64_C(1) << 28)
#define INIT_HAS_RESEND (UINT64_C(1) << 39)
#define NOTIFY_RESEND 7
#define UNIQUE_RESEND (UINT64_C(1) << 63)

#define PROCESS_MAX 64 /* requests handled per call, so that the loop's other work gets its turn */
#define INIT_WAIT_MS 5000
#define PAGE 4096
#define READY_BYTES (132u << 10)         /* of these are touched beforehand: a write of 128 KiB */
#define POISON_DEATHS 2 /* servers that died by a fault of their own while they handled the same request */

struct session {
	struct fuse_session *fuse;
	int fd, which;
	struct shared *shared;
	struct shared_init *stored;
	_Atomic unsigned workers; /* threads that took a place in shared->handling */
	void *buffer;             /* for the requests that come before the workers, and of the first of them */
	bool killpriv;
	uint64_t init_unique; /* of the INIT now being answered; 0: none */
	uint64_t init_flags;
	bool replaying;
};

/* libfuse hands the hooks its own user data, which belongs to the operations: sessions are found by descriptor. */
static struct session *sessions[SESSION_COUNT];
static _Thread_local bool resent;
static _Thread_local unsigned place[SESSION_COUNT]; /* of this thread in shared->handling, from 1; 0: none yet */

static struct session *session_of(int fd)
{
	for (int i = 0; i < SESSION_COUNT; i++)
		if (sessions[i] && sessions[i]->fd == fd)
			return sessions[i];
	abort();
}

static void note_init(struct session *s, const void *request, size_t len)
{
	const struct fuse_in_header *h = request;
	const struct fuse_init_in *in = (const void *)(h + 1);
	s->init_unique = h->unique;
	s->init_flags = in->flags | ((in->flags & INIT_EXT) ? (uint64_t)in->flags2 << 32 : 0);
	if (s->replaying || len > SHARED_INIT_MAX)
		return;
	memcpy(s->stored->request, request, len);
	atomic_store_explicit(&s->stored->len, (uint32_t)len, memory_order_release);
}

/* ---- requests that kill servers ---- */

/* What this thread handles from now on; 0: nothing. */
static void handle(struct session *s, uint64_t unique)
{
	unsigned *mine = &place[s->which];
	if (!*mine)
		*mine = 1 + atomic_fetch_add(&s->workers, 1);
	if (*mine <= SHARED_WORKERS)
		atomic_store_explicit(&s->shared->handling[s->which][*mine - 1], unique & ~UNIQUE_RESEND, memory_order_relaxed);
}

static struct shared_suspect *suspect(struct session *s, uint64_t unique)
{
	for (int i = 0; i < SHARED_SUSPECTS; i++) {
		struct shared_suspect *one = &s->shared->suspects[i];
		if (one->unique == (unique & ~UNIQUE_RESEND) && one->session == (uint32_t)s->which)
			return one;
	}
	return NULL;
}

/* Before any thread reads: what the last server was handling when it died of itself is suspected, the oldest suspicion forgotten. */
static void suspect_handled(struct session *s)
{
	for (int i = 0; i < SHARED_WORKERS; i++) {
		uint64_t unique = atomic_exchange(&s->shared->handling[s->which][i], 0);
		if (!unique || !atomic_load(&s->shared->faulted))
			continue;
		struct shared_suspect *one = suspect(s, unique);
		if (!one) {
			one = &s->shared->suspects[s->shared->suspect_next++ % SHARED_SUSPECTS];
			*one = (struct shared_suspect){unique, (uint32_t)s->which, 0};
		}
		one->deaths++;
	}
}

/* It would kill this server too: it is answered EIO, it alone, and everything else goes on. */
static bool refuse_poison(struct session *s, const struct fuse_in_header *h)
{
	const struct shared_suspect *one = resent ? suspect(s, h->unique) : NULL;
	if (!one || one->deaths < POISON_DEATHS)
		return false;
	log_error("session", "request %u of process %u on node %llu ended %u servers: it fails", h->opcode, h->pid,
	          (unsigned long long)h->nodeid, one->deaths);
	struct fuse_out_header out = {.len = sizeof out, .error = -EIO, .unique = h->unique};
	return write(s->fd, &out, sizeof out) == sizeof out;
}

/* ---- between libfuse and the kernel ---- */

/* A thread that is being killed may still take a request from the kernel, or give an answer. Where that has to fault a page in the kernel gives
 * up, and the client gets EIO. So the pages are there before: those of the answer always, those of the buffer but for the end of large
 * writes, and no fork (uv_spawn) takes away the right to write to them. */
static void *buffer_new(void)
{
	char *buffer = mmap(NULL, SHARED_REQUEST_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (buffer == MAP_FAILED)
		return NULL;
	madvise(buffer, SHARED_REQUEST_BYTES, MADV_DONTFORK);
	for (size_t at = 0; at < READY_BYTES; at += PAGE)
		*(volatile char *)(buffer + at) = 0;
	return buffer;
}

static void buffer_free(void *buffer)
{
	if (buffer)
		munmap(buffer, SHARED_REQUEST_BYTES);
}

static void touch(const struct iovec *iov, int count)
{
	for (int i = 0; i < count; i++)
		for (size_t at = 0; at < iov[i].iov_len; at += PAGE)
			(void)((const volatile char *)iov[i].iov_base)[at];
}

static ssize_t hook_read(int fd, void *buf, size_t len, void *userdata)
{
	struct session *s = session_of(fd);
	const struct fuse_in_header *h = buf;
	ssize_t n;
	handle(s, 0);
	do {
		n = read(fd, buf, len < SHARED_REQUEST_BYTES ? len : SHARED_REQUEST_BYTES);
		if (n < (ssize_t)sizeof *h)
			return n;
		resent = h->unique & UNIQUE_RESEND;
	} while (refuse_poison(s, h));
	handle(s, h->unique);
	if (h->opcode == FUSE_INIT)
		note_init(s, buf, (size_t)n);
	return n;
}

static void patch_init(struct session *s, struct fuse_init_out *out)
{
	uint64_t wanted = INIT_HAS_RESEND | (s->killpriv ? INIT_HANDLE_KILLPRIV_V2 : 0);
	uint64_t flags = out->flags | ((uint64_t)out->flags2 << 32);
	flags |= wanted & s->init_flags;
	if (s->init_flags & INIT_EXT)
		flags |= INIT_EXT;
	out->flags = (uint32_t)flags;
	out->flags2 = (uint32_t)(flags >> 32);
}

static ssize_t hook_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	const struct fuse_out_header *h = iov[0].iov_base;
	struct session *s = session_of(fd);
	touch(iov, count);
	if (!s->init_unique || h->unique != s->init_unique)
		return writev(fd, iov, count);
	s->init_unique = 0;
	if (!h->error && count >= 2)
		patch_init(s, iov[1].iov_base);
	ssize_t n = writev(fd, iov, count);
	/* a server that died between the request and its answer left the kernel waiting; else it has had its answer and says ENOENT */
	return n < 0 && s->replaying ? (ssize_t)h->len : n;
}

static int replay(struct session *s, struct error *err)
{
	char copy[SHARED_INIT_MAX];
	uint32_t len = atomic_load_explicit(&s->stored->len, memory_order_acquire);
	memcpy(copy, s->stored->request, len);
	s->replaying = true;
	note_init(s, copy, len);
	struct fuse_buf buf = {.size = len, .mem = copy};
	fuse_session_process_buf(s->fuse, &buf);
	s->replaying = false;
	if (fuse_session_exited(s->fuse))
		return error_set(err, ERROR_MOUNT_FAILED, "the stored FUSE_INIT was not accepted");
	/* Behind a gone mount this succeeds too, and the next read says ENODEV. */
	struct fuse_out_header notify = {.len = sizeof notify, .error = NOTIFY_RESEND};
	if (write(s->fd, &notify, sizeof notify) < 0)
		return error_set_errno(err, ERROR_MOUNT_FAILED, errno, "FUSE_NOTIFY_RESEND");
	return 0;
}

/* The first request of a fresh mount is INIT, and it is there when mount(2) returns. Done here, a server that dies from now on leaves a session
 * that can be taken over. */
static int receive_init(struct session *s, struct error *err)
{
	struct pollfd readable = {s->fd, POLLIN, 0};
	struct fuse_buf buf = {.mem = s->buffer};
	if (poll(&readable, 1, INIT_WAIT_MS) <= 0)
		return error_set(err, ERROR_MOUNT_FAILED, "the kernel did not send FUSE_INIT");
	if (fuse_session_receive_buf(s->fuse, &buf) > 0)
		fuse_session_process_buf(s->fuse, &buf);
	handle(s, 0);
	return 0; /* a mount that is gone again is noticed by whoever reads next */
}

int session_new(int fd, int which, struct shared *shared, const struct fuse_lowlevel_ops *ops, size_t ops_size,
                void *userdata, struct session **ret, struct error *err)
{
	char name[] = "aetherfs", *argv[] = {name, NULL};
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	static const struct fuse_custom_io io = {.read = hook_read, .writev = hook_writev};
	struct session *s = xcalloc(1, sizeof *s);
	s->fd = fd;
	s->which = which;
	s->shared = shared;
	s->killpriv = which == SESSION_OVERLAY;
	s->stored = &shared->init[which];
	s->fuse = fuse_session_new(&args, ops, ops_size, userdata);
	fuse_opt_free_args(&args);
	s->buffer = buffer_new();
	if (!s->fuse || !s->buffer || fuse_session_custom_io(s->fuse, &io, fd)) {
		session_free(s);
		return error_set(err, ERROR_MOUNT_FAILED, "libfuse refused the session");
	}
	sessions[which] = s;
	suspect_handled(s);
	int r = atomic_load(&s->stored->len) ? replay(s, err) : receive_init(s, err);
	if (r) {
		session_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void session_free(struct session *s)
{
	if (!s)
		return;
	if (sessions[s->which] == s)
		sessions[s->which] = NULL;
	if (s->fuse)
		fuse_session_destroy(s->fuse);
	buffer_free(s->buffer);
	free(s);
}

/* 0: go on; -EAGAIN: nothing is there now; -ENODEV: the mount is gone. */
static int serve_one(struct session *s, void *buffer)
{
	struct fuse_buf buf = {.mem = buffer};
	int r = fuse_session_receive_buf(s->fuse, &buf);
	if (r > 0)
		fuse_session_process_buf(s->fuse, &buf);
	else if (r == 0)
		r = -ENODEV;
	return r == -EINTR || r > 0 ? 0 : r == -EAGAIN ? r : -ENODEV;
}

static void *work(void *arg)
{
	struct session *s = arg;
	void *buffer = buffer_new();
	while (buffer && serve_one(s, buffer) == 0)
		;
	buffer_free(buffer);
	return NULL;
}

int session_run(struct session *s, unsigned threads)
{
	pthread_t others[SHARED_WORKERS];
	unsigned n = 0;
	while (n + 1 < threads && n < SHARED_WORKERS && !pthread_create(&others[n], NULL, work, s))
		n++;
	while (serve_one(s, s->buffer) == 0)
		;
	for (unsigned i = 0; i < n; i++)
		pthread_join(others[i], NULL);
	return 0;
}

int session_process(struct session *s)
{
	int r = 0;
	for (int i = 0; r == 0 && i < PROCESS_MAX; i++)
		r = serve_one(s, s->buffer);
	handle(s, 0);
	return r == -EAGAIN ? 0 : r;
}

int session_fd(const struct session *s)
{
	return s->fd;
}

struct fuse_session *session_fuse(struct session *s)
{
	return s->fuse;
}

bool session_request_resent(void)
{
	return resent;
}
