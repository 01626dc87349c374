/* The keeper: mounts, holds what a new server needs, starts the server and starts it again when it dies. See keeper.h.
 *
 * It stays small because it must not fail: while it serves it waits in one poll(2) and keeps nothing but what is declared here. */
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/program.h"
#include "fs/children.h"
#include "fs/drain.h"
#include "fs/keeper.h"
#include "fs/keeper_private.h"
#include "fs/mount.h"
#include "provisioner/native.h"

#define AREA "keeper"
#define TELL_SECONDS 5 /* a server that does not take its descriptors must not hold the keeper */
#define RETRY_STEP_MS 25
#define TABLE_DELAY_MS 200 /* from a change of the mount table until it is read: changes come in bursts, and there may be many keepers */
#define INIT_HAS_RESEND (UINT64_C(1) << 39) /* include/uapi/linux/fuse.h, 7.40 */

struct stash {
	uint32_t key;
	int fd;
};

struct keeper {
	const struct keeper_params *p;
	struct error *err; /* why it never came to answer */
	int shared_fd, pidfd, signal_fd, socket, ready_fd, table_fd;
	int devices[SESSION_COUNT]; /* -1: not mounted */
	unsigned minors[SESSION_COUNT];
	struct shared *shared;
	uint32_t generation; /* of the server */
	pid_t server;
	bool was_ready; /* some server answered */
	bool answers;   /* the present one does */
	bool stopping;  /* no server but one that ends is wanted any more */
	bool asked;     /* ... by a signal */
	pid_t detacher; /* takes the mounts away, for who removes the workspace waits; 0: none */
	bool detacher_stops; /* nothing but its success is why we stop */
	bool forgotten; /* of the environment nothing shall stay */
	uint64_t started_ms;                  /* the present server */
	uint64_t answer_by_ms, stop_by_ms;    /* 0: no such limit now */
	uint64_t look_at_ms;                  /* when to read the mount table; 0: it did not change */
	uint64_t ping_at_ms;                  /* the next turn of the watchdog; 0: there is none */
	unsigned pings;                       /* turns since the server was asked; 0: it has answered */
	uint64_t deaths[KEEPER_RESTARTS_MAX]; /* when, of those that died young */
	unsigned n_deaths;
	struct stash stash[KEEPER_STASH_MAX];
	unsigned n_stash;
};

static const char *const mount_types[SESSION_COUNT] = {
	[SESSION_OVERLAY] = MOUNT_TYPE_OVERLAY, [SESSION_CONTROL] = MOUNT_TYPE_CONTROL};

/* ---- mounts ---- */

static int make_shared(struct keeper *k, struct error *err)
{
	k->shared_fd = memfd_create("aetherfs", MFD_CLOEXEC);
	if (k->shared_fd < 0 || ftruncate(k->shared_fd, (off_t)SHARED_SIZE))
		return error_set_errno(err, ERROR_MOUNT_FAILED, errno, "cannot make the shared memory");
	struct shared *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED, k->shared_fd, 0);
	if (s == MAP_FAILED)
		return error_set_errno(err, ERROR_MOUNT_FAILED, errno, "cannot map the shared memory");
	k->shared = s;
	s->magic = SHARED_MAGIC;
	s->version = SHARED_VERSION;
	s->server_generation = k->generation;
	s->options = k->p->options;
	snprintf(s->root, sizeof s->root, "%s", k->p->id->root);
	snprintf(s->namespace_, sizeof s->namespace_, "%s", k->p->id->namespace_);
	snprintf(s->workspace, sizeof s->workspace, "%s", k->p->workspace ? k->p->workspace : "");
	return 0;
}

static bool is_wanted(const struct keeper *k, int which)
{
	return session_is_wanted(k->p->options, which);
}

static int mount_one(struct keeper *k, int which, const char *options, struct error *err)
{
	struct mount_entry entry = {0};
	int r = mount_fuse(k->p->points[which], mount_types[which], options, &k->devices[which], err);
	if (!r && mount_find(k->p->points[which], &entry))
		k->minors[which] = entry.device;
	return r;
}

/* The control file system first: the overlay's links point into it. Of this directory's options none is for it. It answers its owner, and root,
 * alone (control_allows); that root may ask at all, and a container engine hand it on, takes allow_other. */
static int mount_both(struct keeper *k, struct error *err)
{
	bool root = geteuid() == 0;
	cleanup_free char *options = xasprintf(
		"default_permissions%s%s%s%s", k->p->may_share ? ",allow_other" : "", root ? ",suid,dev" : "", /* as what it covers */
		*k->p->kernel_options ? "," : "", k->p->kernel_options);
	int r = make_shared(k, err);
	if (!r && is_wanted(k, SESSION_CONTROL))
		r = mount_one(k, SESSION_CONTROL, !root && k->p->may_share ? "allow_other" : "", err);
	if (!r && is_wanted(k, SESSION_OVERLAY))
		r = mount_one(k, SESSION_OVERLAY, options, err);
	return r;
}

static bool is_ours(const struct keeper *k, int which, const char *point)
{
	struct mount_entry entry;
	return mount_find(point, &entry) && entry.device == k->minors[which] && !strcmp(entry.type, mount_types[which]);
}

/* new: where it can be taken away. It may be gone already, and another stand there; a directory above may have another name since. NULL
 * `over`: mount_is_over. Then its number is free, and soon another workspace's: it may not be looked for by that. */
static char *point_of(const struct keeper *k, int which, bool over)
{
	if (is_ours(k, which, k->p->points[which]))
		return xstrdup(k->p->points[which]);
	if (over)
		return NULL;
	cleanup_free char *point = mount_point_of(k->minors[which], mount_types[which]);
	return point && is_ours(k, which, point) ? move_ptr(point) : NULL;
}

/* Whoever still waits for an answer gets ECONNABORTED. */
static void unmount_both(struct keeper *k)
{
	for (int i = 0; i < SESSION_COUNT; i++) {
		if (k->devices[i] < 0)
			continue;
		cleanup_free char *point = point_of(k, i, mount_is_over(k->devices[i]));
		if (point)
			mount_end(point);
		mount_abort(k->devices[i], k->minors[i]); /* a helper may hold the device as well */
	}
	drain(k->devices, SESSION_COUNT, k->server); /* the two together: a helper may wait for either */
	for (int i = 0; i < SESSION_COUNT; i++) {
		if (k->devices[i] >= 0)
			close(k->devices[i]);
		k->devices[i] = -1;
	}
	if (k->shared)
		munmap(k->shared, sizeof *k->shared);
	k->shared = NULL;
	if (k->shared_fd >= 0)
		close(k->shared_fd);
	k->shared_fd = -1;
}

static bool both_mounted(const struct keeper *k)
{
	bool all = true;
	for (int i = 0; i < SESSION_COUNT; i++)
		all &= !is_wanted(k, i) || mount_is(k->p->points[i], mount_types[i]);
	return all;
}

/* ---- stashed descriptors ---- */

static void drop_stash(struct keeper *k)
{
	for (unsigned i = 0; i < k->n_stash; i++)
		close(k->stash[i].fd);
	k->n_stash = 0;
}

static void drop_one(struct keeper *k, uint32_t key)
{
	for (unsigned i = 0; i < k->n_stash; i++)
		if (k->stash[i].key == key) {
			close(k->stash[i].fd);
			k->stash[i] = k->stash[--k->n_stash];
			return;
		}
}

static void keep_stash(struct keeper *k, uint32_t key, int fd)
{
	if (fd < 0)
		return;
	drop_one(k, key); /* a server that died may have said so already */
	if (k->n_stash == KEEPER_STASH_MAX)
		close(fd);
	else
		k->stash[k->n_stash++] = (struct stash){key, fd};
}

/* ---- the server ---- */

static int tell(struct keeper *k, uint32_t type, uint32_t key, int fd)
{
	struct keeper_message m = {.type = type, .key = key};
	struct iovec iov = {&m, offsetof(struct keeper_message, text)};
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {{0}};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	if (fd >= 0) {
		msg.msg_control = control.bytes;
		msg.msg_controllen = sizeof control.bytes;
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof fd);
	}
	return sendmsg(k->socket, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static void exec_server(struct keeper *k, int socket)
{
	int sources[] = {k->devices[SESSION_OVERLAY], k->devices[SESSION_CONTROL], k->shared_fd, k->p->root_fd, socket, k->pidfd, k->p->lock_fd};
	enum { COUNT = sizeof sources / sizeof sources[0] };
	int none = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int i = 0; i < COUNT; i++) /* so that each number is taken */
		sources[i] = sources[i] < 0 ? none : sources[i];
	for (int i = 0; i < COUNT; i++) /* out of the way of the numbers they get */
		sources[i] = fcntl(sources[i], F_DUPFD_CLOEXEC, KEEPER_FD_OVERLAY + COUNT);
	for (int i = 0; i < COUNT; i++)
		dup2(sources[i], KEEPER_FD_OVERLAY + i);
	setpgid(0, 0); /* Ctrl-C before a keeper in the foreground is for the keeper alone */
	sigset_t unblocked;
	sigemptyset(&unblocked);
	sigprocmask(SIG_SETMASK, &unblocked, NULL);
	char *path = program_path("aetherfs-server");
	execl(path, "aetherfs-server", k->p->id->root, (char *)NULL);
	log_error(AREA, "cannot start %s: %s", path, strerror(errno));
	_exit(127);
}

static int start_server(struct keeper *k)
{
	int pair[2];
	const struct timeval patience = {TELL_SECONDS, 0};
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -errno;
	setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	atomic_store(&k->shared->server_generation, ++k->generation);
	k->started_ms = now_monotonic_ms();
	k->answer_by_ms = k->started_ms + KEEPER_START_MS;
	k->answers = false;
	k->ping_at_ms = 0;
	k->server = fork();
	if (k->server == 0)
		exec_server(k, pair[1]);
	close(pair[1]);
	if (k->socket >= 0)
		close(k->socket);
	k->socket = pair[0];
	if (k->server < 0)
		return -errno;
	int r = 0;
	for (unsigned i = 0; !r && i < k->n_stash; i++)
		r = tell(k, KEEPER_RESTORE, k->stash[i].key, k->stash[i].fd);
	if (!r)
		r = tell(k, KEEPER_RESTORED, 0, -1);
	if (!r && k->stopping)
		r = tell(k, KEEPER_STOP, 0, -1);
	if (r)
		kill(k->server, SIGKILL); /* it is replaced, or was the last */
	return 0;
}

/* What a dead server had taken can be had again: Linux 6.9 and later, and the kernel's INIT is known to have been taken whole. */
static bool can_take_over(const struct keeper *k)
{
	for (int i = 0; i < SESSION_COUNT; i++) {
		const struct shared_init *stored = &k->shared->init[i];
		struct fuse_in_header head;
		struct fuse_init_in in = {0};
		uint32_t len = atomic_load(&stored->len);
		if (!is_wanted(k, i))
			continue;
		if (k->p->mask_resend || len < sizeof head + 5 * sizeof(uint32_t) || len > sizeof stored->request)
			return false;
		memcpy(&in, stored->request + sizeof head, len - sizeof head < sizeof in ? len - sizeof head : sizeof in);
		if (!(in.flags & FUSE_INIT_EXT) || !((uint64_t)in.flags2 << 32 & INIT_HAS_RESEND))
			return false;
	}
	return true;
}

/* Abort, so that nobody hangs, and begin anew. What had files open or stood in the directory must do so again. */
static int mount_again(struct keeper *k)
{
	cleanup_error struct error err = ERROR_INIT;
	if (!both_mounted(k))
		return -ENODEV; /* somebody wanted it gone */
	unmount_both(k);
	drop_stash(k);
	int r = mount_both(k, &err);
	if (r)
		log_error(AREA, "cannot mount again: %s", err.message);
	return r;
}

static bool dies_too_often(struct keeper *k)
{
	uint64_t now = now_monotonic_ms();
	if (k->answers && now - k->started_ms > KEEPER_RESTARTS_YOUNG_MS)
		return false;
	if (k->n_deaths == KEEPER_RESTARTS_MAX) {
		if (now - k->deaths[0] < KEEPER_RESTARTS_WINDOW_MS)
			return true;
		memmove(k->deaths, k->deaths + 1, sizeof k->deaths - sizeof k->deaths[0]);
		k->n_deaths--;
	}
	k->deaths[k->n_deaths++] = now;
	return false;
}

static bool is_fault(int status)
{
	if (!WIFSIGNALED(status))
		return WEXITSTATUS(status) != 0;
	return WTERMSIG(status) != SIGKILL && WTERMSIG(status) != SIGTERM && WTERMSIG(status) != SIGINT && WTERMSIG(status) != SIGHUP;
}

/* A dead server's place is taken; false: that cannot be. */
static bool replace_server(struct keeper *k, int status)
{
	log_warning(AREA, "the server %d died (%s %d)", (int)k->server, WIFSIGNALED(status) ? "signal" : "status",
	            WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	k->server = 0;
	if (dies_too_often(k)) {
		log_error(AREA, "servers die too often: unmounting");
		return false;
	}
	atomic_store(&k->shared->faulted, is_fault(status));
	if (!k->answers)
		usleep(k->n_deaths * RETRY_STEP_MS * 1000); /* a second in all until it is given up */
	if (!can_take_over(k) && mount_again(k))
		return false;
	return start_server(k) == 0;
}

/* ---- the loop ---- */

static void answer_ready(struct keeper *k)
{
	k->answers = k->was_ready = true;
	k->answer_by_ms = 0;
	k->pings = 0;
	k->ping_at_ms = k->p->watchdog_ms ? now_monotonic_ms() + k->p->watchdog_ms / KEEPER_PINGS : 0;
	if (k->ready_fd >= 0) {
		write_all(k->ready_fd, "ok", 2);
		k->ready_fd = -1;
	}
}

static void stop(struct keeper *k)
{
	if (!k->stopping)
		k->stop_by_ms = now_monotonic_ms() + KEEPER_STOP_MS;
	k->stopping = true;
}

/* The overlay decides: when it stays, because something stands over it, nothing is done. */
static int detach_both(const struct keeper *k, const bool over[SESSION_COUNT])
{
	cleanup_free char *overlay = point_of(k, SESSION_OVERLAY, over[SESSION_OVERLAY]);
	cleanup_free char *control = point_of(k, SESSION_CONTROL, over[SESSION_CONTROL]);
	int r = overlay ? mount_detach(overlay) : 0;
	if (overlay ? is_ours(k, SESSION_OVERLAY, overlay) : !over[SESSION_OVERLAY] && mount_exists(k->minors[SESSION_OVERLAY], MOUNT_TYPE_OVERLAY)) {
		log_warning(AREA, "cannot unmount %s: %s", k->p->points[SESSION_OVERLAY], overlay ? strerror(-r) : "something stands over it");
		return 1;
	}
	if (control)
		mount_detach(control);
	return 0;
}

static int detach_in_child(struct keeper *k)
{
	bool over[SESSION_COUNT];
	for (int i = 0; i < SESSION_COUNT; i++) {
		over[i] = mount_is_over(k->devices[i]);
		close(k->devices[i]); /* should it be the last of us, what it asks the mount must fail */
	}
	return detach_both(k, over);
}

/* By a process of its own: unmounting may ask the server something, and when that dies it is for the keeper to start another. */
static void start_detaching(struct keeper *k)
{
	if (k->detacher)
		return;
	k->detacher = fork();
	if (k->detacher == 0)
		_exit(detach_in_child(k));
	if (k->detacher > 0) {
		k->detacher_stops = !k->stopping;
		stop(k);
		return;
	}
	k->detacher = 0;
	tell(k, KEEPER_DETACHED, 1, -1);
}

static void end_detaching(struct keeper *k, int status)
{
	bool failed = !WIFEXITED(status) || WEXITSTATUS(status);
	k->detacher = 0;
	if (failed && k->detacher_stops && !k->asked) {
		k->stopping = false;
		k->stop_by_ms = 0;
	}
	tell(k, KEEPER_DETACHED, failed, -1);
}

/* The first server's failure is final, and the answer to whoever asked. A later one may have met what passes: it is tried again,
 * as after any death. */
static bool take_failure(struct keeper *k, const char *text)
{
	if (k->was_ready)
		return true;
	json_t *json = json_loads(text, 0, NULL);
	if (json)
		error_from_json(k->err, json);
	json_decref(json);
	return false;
}

/* false: it is over. */
static bool take_message(struct keeper *k, const struct keeper_message *m, int fd)
{
	switch (m->type) {
	case KEEPER_READY:
		answer_ready(k);
		return true;
	case KEEPER_PONG:
		k->pings = 0;
		return true;
	case KEEPER_FAILED:
		return take_failure(k, m->text);
	case KEEPER_STASH:
		keep_stash(k, m->key, fd);
		return true;
	case KEEPER_UNSTASH:
		drop_one(k, m->key);
		return true;
	case KEEPER_ENDING:
		stop(k);
		return true;
	case KEEPER_DETACH:
		start_detaching(k);
		return true;
	case KEEPER_DONE:
		k->forgotten = m->key;
		return false;
	default:
		return true;
	}
}

/* false: it is over. */
static bool hear_server(struct keeper *k)
{
	struct keeper_message m = {0};
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {&m, sizeof m - 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
	ssize_t n = recvmsg(k->socket, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (n < (ssize_t)offsetof(struct keeper_message, text)) {
		if (n >= 0 || (errno != EAGAIN && errno != EINTR)) {
			close(k->socket); /* the end of this server: SIGCHLD says the rest */
			k->socket = -1;
		}
		return true;
	}
	int fd = -1;
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(c), sizeof fd);
	return take_message(k, &m, fd);
}

/* Reaps what ended; false: it is over, or the server cannot be replaced. */
static bool reap(struct keeper *k)
{
	int status;
	pid_t pid;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == k->detacher)
			end_detaching(k, status);
		if (pid != k->server)
			continue;
		while (k->socket >= 0) { /* what it said last may still be there */
			struct pollfd p = {k->socket, POLLIN, 0};
			if (poll(&p, 1, 0) <= 0)
				break;
			if (!hear_server(k))
				return false;
		}
		if (!replace_server(k, status))
			return false;
	}
	return true;
}

static bool hear_signals(struct keeper *k)
{
	struct signalfd_siginfo info;
	while (read(k->signal_fd, &info, sizeof info) == sizeof info) {
		if (info.ssi_signo == SIGCHLD) {
			if (!reap(k))
				return false;
			continue;
		}
		if (k->asked)
			return false;
		k->asked = true;
		stop(k);
		tell(k, KEEPER_STOP, 0, -1);
	}
	return true;
}

/* Lazily detached, a mount in which somebody stands answers on, and its server hears nothing: but nobody can come in any more, and what was
 * wanted is the end. */
static void look_at_table(struct keeper *k)
{
	k->look_at_ms = 0;
	bool all = true;
	for (int i = 0; i < SESSION_COUNT; i++)
		all &= !is_wanted(k, i) || mount_exists(k->minors[i], mount_types[i]);
	if (k->stopping || all)
		return;
	log_info(AREA, "a mount is gone: the services are stopped");
	stop(k);
	tell(k, KEEPER_STOP, 0, -1);
}

/* A debugger holds it, then it is meant to stand still. */
static bool is_traced(pid_t pid)
{
	cleanup_free char *path = xasprintf("/proc/%d/status", (int)pid);
	cleanup_buffer struct buffer text = BUFFER_INIT;
	if (file_read(AT_FDCWD, path, 1 << 16, &text) < 0)
		return false;
	const char *tracer = strstr(buffer_str(&text), "\nTracerPid:\t");
	return tracer && tracer[12] != '0';
}

/* One turn of the watchdog. Turns are counted, not time: a machine that slept, or was frozen as a whole, has not heard its server for long
 * either. Clients notice nothing of the replacement. */
static void ping(struct keeper *k)
{
	k->ping_at_ms = now_monotonic_ms() + k->p->watchdog_ms / KEEPER_PINGS;
	if (k->pings++ == 0) {
		tell(k, KEEPER_PING, 0, -1);
	} else if (k->pings > KEEPER_PINGS && !is_traced(k->server)) {
		log_error(AREA, "the server %d gives no sign of life", (int)k->server);
		k->ping_at_ms = 0;
		kill(k->server, SIGKILL);
	}
}

static int wait_ms(const struct keeper *k)
{
	const uint64_t limits[] = {k->answer_by_ms, k->stop_by_ms, k->look_at_ms, k->ping_at_ms};
	uint64_t now = now_monotonic_ms(), by = 0;
	for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++)
		if (limits[i] && (!by || limits[i] < by))
			by = limits[i];
	return !by ? -1 : by <= now ? 0 : (int)(by - now);
}

/* false: it took too long. */
static bool look_at_clock(struct keeper *k)
{
	uint64_t now = now_monotonic_ms();
	if (k->stop_by_ms && now >= k->stop_by_ms) {
		log_error(AREA, "the services did not stop in time: they are ended without asking");
		return false;
	}
	if (k->answer_by_ms && now >= k->answer_by_ms) {
		log_error(AREA, "the server does not answer");
		k->answer_by_ms = 0;
		kill(k->server, SIGKILL);
	}
	if (k->look_at_ms && now >= k->look_at_ms)
		look_at_table(k);
	if (k->ping_at_ms && now >= k->ping_at_ms)
		ping(k);
	return true;
}

static void keep(struct keeper *k)
{
	enum { SIGNALS, SERVER, ASKER, TABLE };
	for (;;) {
		struct pollfd fds[] = {{k->signal_fd, POLLIN, 0}, {k->socket, POLLIN, 0}, {k->ready_fd, 0, 0}, {k->table_fd, POLLPRI, 0}};
		if (poll(fds, sizeof fds / sizeof fds[0], wait_ms(k)) < 0 && errno != EINTR)
			return;
		if (fds[SERVER].revents && !hear_server(k))
			return;
		if (fds[SIGNALS].revents && !hear_signals(k))
			return;
		if (fds[ASKER].revents && k->ready_fd >= 0)
			return; /* whoever asked is gone before it was ready */
		if (fds[TABLE].revents && !k->look_at_ms)
			k->look_at_ms = now_monotonic_ms() + TABLE_DELAY_MS;
		if (!look_at_clock(k))
			return;
	}
}

/* ---- the end ---- */

static bool contains(const pid_t *pids, unsigned count, pid_t pid)
{
	for (unsigned i = 0; i < count; i++)
		if (pids[i] == pid)
			return true;
	return false;
}

/* As the sub-reaper of everything that the servers started, the keeper knows when nothing is left: what loses its parent becomes
 * a child here. Each is asked once, and killed when its time is up. What hangs in the kernel even then (on a dead network's file system)
 * is left. */
static void end_children(struct keeper *k)
{
	pid_t now[CHILDREN_MAX], asked[CHILDREN_MAX];
	unsigned n, n_asked = 0;
	uint64_t until = now_monotonic_ms() + KEEPER_END_MS;
	struct pollfd wake = {k->signal_fd, POLLIN, 0};
	struct signalfd_siginfo info;
	while ((n = children_list(now, CHILDREN_MAX))) {
		if (now_monotonic_ms() >= until + KEEPER_KILL_MS) {
			log_error(AREA, "%u processes cannot be killed, %d is one: they are left", n, (int)now[0]);
			return;
		}
		for (unsigned i = 0; i < n; i++) {
			if (now_monotonic_ms() >= until)
				kill(now[i], SIGKILL);
			else if (!contains(asked, n_asked, now[i]))
				kill(now[i], now[i] == k->server ? SIGKILL : SIGTERM);
		}
		memcpy(asked, now, n * sizeof now[0]);
		n_asked = n;
		poll(&wake, 1, 50);
		while (read(k->signal_fd, &info, sizeof info) > 0)
			;
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
}

/* Last of all, for the lock lies in it: whoever waits for that begins in a directory of his own. */
static void forget(const struct keeper *k)
{
	const char *dir = k->p->id->state_dir;
	cleanup_free char *aside = xasprintf("%s.removed-%d", dir, (int)getpid());
	if (rename(dir, aside) || tree_remove(AT_FDCWD, aside))
		log_warning(AREA, "cannot remove %s: %s", dir, strerror(errno));
}

/* The workspace as it was, also where it was removed meanwhile, or its server died too often to do it. */
static void take_away_placed(const struct keeper *k)
{
	cleanup_error struct error err = ERROR_INIT;
	if (!is_wanted(k, SESSION_OVERLAY) && native_take_away(k->p->root_fd, &err))
		log_warning(AREA, "what stood in %s without the overlay is left: %s", k->p->id->root, err.message);
}

static void end(struct keeper *k)
{
	unmount_both(k);
	drop_stash(k);
	if (k->socket >= 0)
		close(k->socket);
	end_children(k);
	take_away_placed(k);
	rmdir(k->p->id->control_dir);
	tree_remove(AT_FDCWD, k->p->id->socket_dir); /* sockets of what ended */
	if (ftruncate(k->p->lock_fd, 0)) /* the options: only of one that was killed they count once more */
		log_warning(AREA, "keeper.lock: %s", strerror(errno));
	if (k->forgotten)
		forget(k);
}

/* ---- start ---- */

static int prepare(struct keeper *k, struct error *err)
{
	sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	/* ignored, as some parents (a script's `aetherfs -f DIR &`) leave them, they would never come; SIGHUP is nohup's */
	signal(SIGCHLD, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	struct rlimit files;
	if (!getrlimit(RLIMIT_NOFILE, &files) && files.rlim_cur < KEEPER_STASH_MAX + 64) {
		files.rlim_cur = files.rlim_max < KEEPER_STASH_MAX + 64 ? files.rlim_max : KEEPER_STASH_MAX + 64;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	k->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	k->pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0); /* close-on-exec by itself */
	k->table_fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	if (k->signal_fd < 0 || k->pidfd < 0)
		return error_set_errno(err, ERROR_MOUNT_FAILED, errno, "cannot watch processes");
	return 0;
}

int keeper_run(const struct keeper_params *params, struct error *err)
{
	static struct keeper k;
	cleanup_error struct error why = ERROR_INIT;
	k = (struct keeper){.p = params, .err = &why, .shared_fd = -1, .pidfd = -1, .signal_fd = -1, .socket = -1,
	                    .ready_fd = params->ready_fd, .devices = {-1, -1}};
	int r = prepare(&k, &why);
	if (!r)
		r = mount_both(&k, &why);
	if (!r && start_server(&k))
		error_set(&why, ERROR_MOUNT_FAILED, "cannot start the server");
	else if (!r)
		keep(&k);
	end(&k);
	if (k.was_ready)
		return 0;
	if (!error_is_set(&why) && k.stopping)
		error_set(&why, ERROR_CANCELED, "stopped before it was mounted");
	if (!error_is_set(&why))
		error_set(&why, ERROR_MOUNT_FAILED, "the server did not come up");
	r = -why.err;
	if (err)
		error_move(err, &why);
	return r;
}
