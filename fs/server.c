/* The server: everything that the keeper does not do. See keeper.h for what it inherits. */
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <uv.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/program.h"
#include "base/strv.h"
#include "fs/beneath.h"
#include "fs/control.h"
#include "fs/drain.h"
#include "fs/keeper.h"
#include "fs/mount.h"
#include "fs/overlay.h"
#include "fs/placed.h"
#include "fs/plain.h"
#include "fs/removal.h"
#include "fs/session.h"
#include "provisioner/discard.h"
#include "provisioner/environment.h"
#include "provisioner/native.h"
#include "provisioner/store.h"
#include "provisioner/trash.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_LEAK_CHECK 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define WITH_LEAK_CHECK 1
#endif
#ifdef WITH_LEAK_CHECK
#include <sanitizer/lsan_interface.h>
#endif

#define AREA "server"
#define OVERLAY_THREADS 4
#define PREWARM_DELAY_MS 200 /* whoever unmounts at once must not find the walk in the way */
#define POSTED_MAX 1024 /* events of the overlay that the loop has not taken yet; beyond, the oldest kind of news is dropped */

enum posted_type { POSTED_UNLINKED, POSTED_REPLACED, POSTED_ENV_WRITTEN, POSTED_ENV_CHANGED, POSTED_REMOVED };

struct posted {
	struct posted *next;
	enum posted_type type;
	struct requester who;
	char *text;
	size_t len;
};

struct server {
	uv_loop_t loop;
	struct shared *shared;
	struct identity id;
	struct environment *environment;
	struct control *control;
	struct overlay *overlay;
	struct session *sessions[SESSION_COUNT];
	struct unlinked *unlinked;
	struct removal *removal; /* NULL: there is no overlay through which the workspace could be removed */
	struct placed *placed;   /* NULL: there is an overlay */
	struct beneath *beneath; /* NULL: there is no overlay */
	struct plain *plain;     /* NULL: something is mounted */
	char *helper, *shim, *recipes;
	pthread_t overlay_thread;
	bool fresh; /* no server was here before on these mounts: nothing of them is cached */
	bool prewarming, ending, removing;
	uv_poll_t control_poll, keeper_poll, pidfd_poll;
	uv_async_t posted_async, gone_async;
	uv_timer_t prewarm_timer, grace_timer;
	uv_process_t prewarm;
	uv_mutex_t posted_lock;
	struct posted *posted, **posted_tail;
	unsigned n_posted;
};

/* ---- overlay -> loop ---- */

static void post(struct server *s, enum posted_type type, pid_t tgid, char *text, size_t len)
{
	struct posted *p = xcalloc(1, sizeof *p);
	*p = (struct posted){.type = type, .text = text, .len = len};
	if (tgid)
		requester_of(tgid, &p->who); /* now: once its request is answered it may be gone */
	uv_mutex_lock(&s->posted_lock);
	bool full = s->n_posted == POSTED_MAX;
	if (!full) {
		*s->posted_tail = p;
		s->posted_tail = &p->next;
		s->n_posted++;
	}
	uv_mutex_unlock(&s->posted_lock);
	if (full) {
		log_error(AREA, "the loop does not keep up: an event of the overlay was dropped");
		free(text);
		free(p);
		return;
	}
	uv_async_send(&s->posted_async);
}

static void on_unlinked(void *arg, pid_t tgid)
{
	post(arg, POSTED_UNLINKED, tgid, NULL, 0);
}

static void on_replaced(void *arg, pid_t tgid)
{
	post(arg, POSTED_REPLACED, tgid, NULL, 0);
}

static void on_env_written(void *arg, char *text, size_t len)
{
	post(arg, POSTED_ENV_WRITTEN, 0, text, len);
}

static void on_env_changed(void *arg)
{
	post(arg, POSTED_ENV_CHANGED, 0, NULL, 0);
}

static void on_removed(void *arg, pid_t tgid)
{
	post(arg, POSTED_REMOVED, tgid, NULL, 0);
}

static void take_away(struct server *s, const struct requester *who);

static bool wants(const struct server *s, int which)
{
	return session_is_wanted(s->shared->options, which);
}

static void take(struct server *s, struct posted *p)
{
	cleanup_error struct error err = ERROR_INIT;
	switch (p->type) {
	case POSTED_UNLINKED:
		environment_unlinked(s->environment, &p->who, UNLINKED_VIEW_MS);
		break;
	case POSTED_REPLACED:
		environment_replaced(s->environment, p->who.pid);
		break;
	case POSTED_ENV_CHANGED:
		environment_own_changed(s->environment);
		control_changed(s->control, CHANGED_ENV | CHANGED_ENV_OWN);
		break;
	case POSTED_REMOVED:
		take_away(s, &p->who);
		break;
	case POSTED_ENV_WRITTEN:
		if (environment_write_env(s->environment, p->text, p->len, &err))
			log_error(AREA, "what was written over .env was not kept: %s", err.message);
		break;
	}
}

static void on_posted(uv_async_t *async)
{
	struct server *s = async->data;
	uv_mutex_lock(&s->posted_lock);
	struct posted *list = s->posted;
	s->posted = NULL;
	s->posted_tail = &s->posted;
	s->n_posted = 0;
	uv_mutex_unlock(&s->posted_lock);
	while (list) {
		struct posted *p = list;
		list = p->next;
		take(s, p);
		free(p->text);
		free(p);
	}
}

/* ---- the keeper ---- */

static void say(uint32_t type, uint32_t key, const char *text)
{
	struct keeper_message m = {.type = type, .key = key};
	size_t len = offsetof(struct keeper_message, text);
	if (text)
		len += (size_t)snprintf(m.text, sizeof m.text, "%s", text) + 1;
	if (len > sizeof m)
		len = sizeof m;
	send(KEEPER_FD_SOCKET, &m, len, MSG_NOSIGNAL);
}

static int fail(struct error *err)
{
	json_t *json = error_to_json(err);
	char *text = json_dumps(json, JSON_COMPACT);
	log_error(AREA, "%s", err->message);
	say(KEEPER_FAILED, 0, text);
	free(text);
	json_decref(json);
	return 1;
}

static void environment_closed(void *arg)
{
	struct server *s = arg;
	uv_stop(&s->loop);
}

/* The services stop, their data and ports stay; then the keeper unmounts what is left. What is mounted still answers meanwhile. */
static void end(struct server *s)
{
	if (s->ending)
		return;
	s->ending = true;
	say(KEEPER_ENDING, 0, NULL);
	if (s->prewarming)
		uv_process_kill(&s->prewarm, SIGTERM);
	if (s->beneath)
		beneath_stop(s->beneath);
	if (s->placed)
		placed_stop(s->placed);
	environment_close(s->environment, true, environment_closed, s);
}

static void start_grace(struct server *s);

/* The workspace was removed through its mount. The environment goes now; who still stands in the mount is answered for a while. */
static void take_away(struct server *s, const struct requester *who)
{
	if (s->removing || s->ending)
		return;
	s->removing = true;
	log_info(AREA, "the workspace was removed: its environment goes to the trash");
	if (s->prewarming)
		uv_process_kill(&s->prewarm, SIGTERM);
	environment_unlinked(s->environment, who, 0);
	if (s->overlay)
		start_grace(s);
	else
		end(s);
}

static bool is_being_removed(const struct server *s, pid_t *ret_tgid)
{
	return s->removal && removal_has_begun(s->removal, ret_tgid);
}

static void on_grace(uv_timer_t *timer)
{
	struct server *s = timer->data;
	struct requester who = {0};
	if (is_being_removed(s, &who.pid))
		take_away(s, &who);
	end(s);
}

static void start_grace(struct server *s)
{
	if (!uv_is_active((uv_handle_t *)&s->grace_timer))
		uv_timer_start(&s->grace_timer, on_grace, REMOVAL_GRACE_MS, 0);
}

/* A mount is gone, or the keeper wants the end. While the workspace is being removed that is known, and on_removed will come: not before what
 * is hidden is put aside. */
static void end_or_go_on(struct server *s)
{
	pid_t tgid;
	if (is_being_removed(s, &tgid))
		start_grace(s);
	else
		end(s);
}

/* Of a removed workspace's environment nothing shall stay, unless some of it could not be stopped: then it is for `ajj cleanup`. */
static bool forget(const struct server *s)
{
	cleanup_error struct error err = ERROR_INIT;
	struct store_environment e = {0};
	struct store *store = NULL;
	int r = store_open(s->id.shared_dir, &store, &err);
	if (!r && (r = store_environment_get(store, s->id.namespace_, &e, &err)) >= 0) {
		bool whole = !r || !e.desired || !strcmp(e.desired, "absent");
		r = whole ? discard_record(store, &s->id, KEEPER_FD_ROOT, &err) : error_set(&err, ERROR_BACKEND_DEPROVISION_FAILED, "it is not torn down");
	}
	store_environment_release(&e);
	store_close(store);
	if (r)
		log_error(AREA, "the environment of the removed workspace is not forgotten: %s", err.message);
	return !r;
}

static void on_keeper_message(uv_poll_t *poll, int status, int events)
{
	struct server *s = poll->data;
	struct keeper_message m;
	ssize_t n = recv(KEEPER_FD_SOCKET, &m, sizeof m, MSG_DONTWAIT);
	if (n == 0) {
		uv_poll_stop(poll); /* the pidfd says the rest */
		return;
	}
	if (n > 0 && m.type == KEEPER_STOP)
		end_or_go_on(s);
	if (n > 0 && m.type == KEEPER_PING)
		say(KEEPER_PONG, 0, NULL);
	if (n > 0 && m.type == KEEPER_DETACHED && s->removal)
		removal_detached(s->removal, m.key);
}

/* Without a keeper nobody would start us again or end the services: take the mounts away, so that the plain directory is back. The
 * services' shims see by themselves that it is gone. */
static void leave(const struct server *s)
{
	log_error(AREA, "the keeper is gone");
	if (!s->id.root)
		_exit(1);
	if (wants(s, SESSION_OVERLAY))
		mount_detach(s->id.root);
	else
		native_take_away(KEEPER_FD_ROOT, NULL);
	if (wants(s, SESSION_CONTROL))
		mount_detach(s->id.control_dir);
	drain((const int[]){KEEPER_FD_CONTROL}, 1, 0); /* this thread was the one that served it */
	rmdir(s->id.control_dir);
	rmdir(s->id.socket_dir); /* while a service has its sockets there, it is for that one's shim */
	_exit(1);
}

static void on_keeper_death(uv_poll_t *poll, int status, int events)
{
	leave(poll->data);
}

static bool keeper_is_dead(void)
{
	struct pollfd p = {KEEPER_FD_PIDFD, POLLIN, 0};
	return poll(&p, 1, 0) > 0;
}

/* Descriptors of earlier servers; they come before anything else. */
static int receive_stash(struct server *s, struct error *err)
{
	for (;;) {
		struct keeper_message m;
		union {
			char bytes[CMSG_SPACE(sizeof(int))];
			struct cmsghdr align;
		} control;
		struct iovec iov = {&m, sizeof m};
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
		ssize_t n = recvmsg(KEEPER_FD_SOCKET, &msg, MSG_CMSG_CLOEXEC);
		if (n <= 0)
			return error_set(err, ERROR_INTERNAL, "the keeper does not answer");
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		int fd = -1;
		if (c && c->cmsg_type == SCM_RIGHTS)
			memcpy(&fd, CMSG_DATA(c), sizeof fd);
		if (m.type == KEEPER_RESTORE && fd >= 0 && s->overlay)
			overlay_restore(s->overlay, m.key, fd);
		if (m.type == KEEPER_RESTORED)
			return 0;
	}
}

/* ---- the sessions ---- */

static void on_control(uv_poll_t *poll, int status, int events)
{
	struct server *s = poll->data;
	if (session_process(s->sessions[SESSION_CONTROL]) < 0) {
		uv_poll_stop(poll);
		end_or_go_on(s);
	}
}

static void *overlay_main(void *arg)
{
	struct server *s = arg;
	session_run(s->sessions[SESSION_OVERLAY], OVERLAY_THREADS);
	uv_async_send(&s->gone_async);
	return NULL;
}

/* Signals are the loop's: a worker interrupted by one would fail a client's call with EINTR. */
static int start_overlay(struct server *s, struct error *err)
{
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = pthread_create(&s->overlay_thread, NULL, overlay_main, s);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r)
		return error_set_errno(err, ERROR_MOUNT_FAILED, r, "cannot start a thread");
	pthread_detach(s->overlay_thread); /* it says by gone_async when it is done, and ends with the process */
	return 0;
}

static void on_overlay_gone(uv_async_t *async)
{
	struct server *s = async->data;
	on_grace(&s->grace_timer); /* nobody stands in it any more */
}

static void set_env_files(struct server *s)
{
	cleanup_strv char **paths = NULL;
	for (size_t i = 0; i < environment_file_count(s->environment); i++)
		strv_push(&paths, xstrdup(environment_file_path(s->environment, i)));
	overlay_set_env_files(s->overlay, paths);
}

static void on_changed(void *arg, unsigned what)
{
	struct server *s = arg;
	if (s->control)
		control_changed(s->control, what);
	if (s->overlay && (what & CHANGED_ENV_OWN))
		overlay_own_changed(s->overlay);
	if (s->overlay && (what & CHANGED_OWN_FILES))
		overlay_env_files_changed(s->overlay);
	if (s->overlay && (what & CHANGED_FILES))
		set_env_files(s);
	if (s->plain)
		plain_changed(s->plain, what);
}

static void on_env_named(void *arg, const char *name)
{
	struct server *s = arg;
	s->id.env_name = name;
	if (s->overlay)
		overlay_set_env_name(s->overlay, name);
}

static json_t *on_leases(void *arg)
{
	struct server *s = arg;
	return s->control ? control_leases(s->control) : s->plain ? plain_leases(s->plain) : json_array();
}

/* ---- start ---- */

static void prepare_process(void)
{
	for (int fd = KEEPER_FD_OVERLAY; fd <= KEEPER_FD_LOCK; fd++)
		fcntl(fd, F_SETFD, FD_CLOEXEC); /* a service that inherits /dev/fuse keeps a dead mount hanging */
	fcntl(KEEPER_FD_CONTROL, F_SETFL, fcntl(KEEPER_FD_CONTROL, F_GETFL) | O_NONBLOCK);
	umask(0);
	mallopt(M_ARENA_MAX, 2);
	mallopt(M_TRIM_THRESHOLD, 128 << 10);
	struct rlimit files;
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	signal(SIGPIPE, SIG_IGN);
}

static int make_environment(struct server *s, struct error *err)
{
	s->shim = program_path("aetherfs-shim");
	s->helper = program_path("aetherfs-helper");
	s->recipes = program_recipes_dir();
	struct environment_params params = {
		.loop = &s->loop,
		.id = &s->id,
		.root_fd = KEEPER_FD_ROOT,
		.keep_own_lines = !wants(s, SESSION_CONTROL),
		.keeper_pid = getppid(),
		.keeper_pidfd = KEEPER_FD_PIDFD,
		.shim = s->shim,
		.recipes_dir = s->recipes,
		.server_restarts = atomic_load(&s->shared->server_generation) - 1,
		.leases = on_leases,
		.changed = on_changed,
		.env_named = on_env_named,
		.arg = s,
	};
	return environment_new(&params, &s->environment, err);
}

static int make_control(struct server *s, struct error *err)
{
	struct control_params control = {
		.shared = s->shared,
		.loop = &s->loop,
		.unlinked = s->unlinked,
		.helper = s->helper,
		.control_dir = s->id.control_dir,
		.root = s->id.root,
		.fd = KEEPER_FD_CONTROL,
		.owner = geteuid(),
	};
	return control_new(&control, &s->control, err);
}

static void on_left_beneath(void *arg)
{
	struct server *s = arg;
	overlay_nobody_beneath(s->overlay);
}

static void on_may_write_beneath(void *arg, dev_t device, ino_t inode)
{
	struct server *s = arg;
	overlay_written_beneath(s->overlay, device, inode);
}

static int make_overlay(struct server *s, struct error *err)
{
	const struct removal_params removal = {
		.shared = s->shared,
		.root_fd = KEEPER_FD_ROOT,
		.keeper_socket = KEEPER_FD_SOCKET,
		.id = &s->id,
		.begun = on_removed,
		.arg = s,
	};
	s->removal = removal_new(&removal);
	struct overlay_params overlay = {
		.shared = s->shared,
		.root_fd = KEEPER_FD_ROOT,
		.keeper_socket = KEEPER_FD_SOCKET,
		.control_dir = s->id.control_dir,
		.env_name = s->id.env_name,
		.beneath = beneath_stands_anybody(KEEPER_FD_ROOT, s->id.root),
		.unlinked = s->unlinked,
		.removal = s->removal,
		.events = {on_unlinked, on_replaced, on_env_written, on_env_changed, true, s},
	};
	int r = overlay_new(&overlay, &s->overlay, err);
	if (r)
		return r;
	const struct beneath_params beneath = {&s->loop, KEEPER_FD_ROOT, s->id.root, overlay.beneath, on_left_beneath, on_may_write_beneath, s};
	s->beneath = beneath_new(&beneath);
	return 0;
}

static int make_sessions(struct server *s, struct error *err)
{
	size_t size;
	const struct fuse_lowlevel_ops *ops = control_ops(&size);
	control_set_environment(s->control, s->environment);
	int r = session_new(KEEPER_FD_CONTROL, SESSION_CONTROL, s->shared, ops, size, s->control, &s->sessions[SESSION_CONTROL], err);
	if (r)
		return r;
	control_set_session(s->control, s->sessions[SESSION_CONTROL]);
	if (!s->overlay)
		return 0;
	ops = overlay_ops(&size);
	r = session_new(KEEPER_FD_OVERLAY, SESSION_OVERLAY, s->shared, ops, size, s->overlay, &s->sessions[SESSION_OVERLAY], err);
	if (!r)
		overlay_set_session(s->overlay, s->sessions[SESSION_OVERLAY]);
	return r;
}

static void on_directory_gone(void *arg)
{
	static const struct requester nobody;
	take_away(arg, &nobody);
}

/* Who attaches it again, where it is then, finds its data there. */
static void on_directory_lost(void *arg)
{
	struct server *s = arg;
	log_info(AREA, "%s was moved, or is out of reach: the services are stopped", s->id.root);
	end(s);
}

/* What really stands in the workspace, in the overlay's place. */
static int make_placed(struct server *s, struct error *err)
{
	const struct plain_params plain = {&s->loop, &s->id, KEEPER_FD_ROOT, s->environment};
	int r = wants(s, SESSION_CONTROL) ? 0 : plain_new(&plain, &s->plain, err);
	if (r)
		return r;
	const struct placed_params placed = {&s->loop, &s->id, KEEPER_FD_ROOT, s->environment, s->plain, on_directory_gone, on_directory_lost, s};
	s->placed = placed_new(&placed);
	return 0;
}

static int make_file_systems(struct server *s, struct error *err)
{
	int r = wants(s, SESSION_CONTROL) ? make_control(s, err) : 0;
	if (!r && wants(s, SESSION_OVERLAY))
		r = make_overlay(s, err);
	if (!r)
		r = receive_stash(s, err);
	if (!r && s->control)
		r = make_sessions(s, err);
	return r || s->overlay ? r : make_placed(s, err);
}

static void on_prewarmed(uv_process_t *process, int64_t status, int signal)
{
	struct server *s = process->data;
	s->prewarming = false;
	uv_close((uv_handle_t *)process, NULL);
}

/* One walk through the fresh mount by a helper, so that the first `git status` finds everything cached. */
static void on_prewarm(uv_timer_t *timer)
{
	struct server *s = timer->data;
	char verb[] = "prewarm";
	char *argv[] = {s->helper, verb, s->id.root, NULL};
	uv_process_options_t options = {.file = s->helper, .args = argv, .exit_cb = on_prewarmed};
	if (s->ending)
		return;
	s->prewarm.data = s;
	int r = uv_spawn(&s->loop, &s->prewarm, &options);
	s->prewarming = !r;
	if (r) {
		log_warning(AREA, "no prewarming: %s", uv_strerror(r));
		uv_close((uv_handle_t *)&s->prewarm, NULL);
	}
}

static bool wants_prewarming(const struct server *s)
{
	return s->overlay && s->fresh && !(s->shared->options & (MOUNT_NO_PREWARM | MOUNT_CACHE_STRICT));
}

static void watch(struct server *s, uv_poll_t *poll, int fd, uv_poll_cb callback)
{
	uv_poll_init(&s->loop, poll, fd);
	poll->data = s;
	uv_poll_start(poll, UV_READABLE, callback);
}

/* The workspace that stood here before was removed, and who took its environment down was killed at that. */
static void finish_removal(struct server *s)
{
	pid_t tgid;
	const struct requester nobody = {0};
	if (trash_env_is_aside(&s->id) && !is_being_removed(s, &tgid))
		environment_unlinked(s->environment, &nobody, 0);
}

static int start(struct server *s, struct error *err)
{
	uv_loop_init(&s->loop);
	uv_mutex_init(&s->posted_lock);
	s->posted_tail = &s->posted;
	uv_async_init(&s->loop, &s->posted_async, on_posted);
	uv_async_init(&s->loop, &s->gone_async, on_overlay_gone);
	uv_timer_init(&s->loop, &s->prewarm_timer);
	uv_timer_init(&s->loop, &s->grace_timer);
	s->prewarm_timer.data = s->grace_timer.data = s->posted_async.data = s->gone_async.data = s;
	s->unlinked = unlinked_new();
	s->fresh = !atomic_load(&s->shared->init[SESSION_OVERLAY].len);
	int r = identity_of_fd(KEEPER_FD_ROOT, s->shared->root, s->shared->workspace[0] ? s->shared->workspace : NULL,
	                       s->shared->namespace_, &s->id, err);
	s->id.native = !wants(s, SESSION_OVERLAY);
	if (!r)
		r = make_environment(s, err);
	if (!r)
		r = make_file_systems(s, err);
	if (r)
		return r;
	finish_removal(s);
	if (s->control)
		watch(s, &s->control_poll, KEEPER_FD_CONTROL, on_control);
	watch(s, &s->keeper_poll, KEEPER_FD_SOCKET, on_keeper_message);
	watch(s, &s->pidfd_poll, KEEPER_FD_PIDFD, on_keeper_death);
	r = s->overlay ? start_overlay(s, err) : 0;
	if (r)
		return r;

	if (wants_prewarming(s))
		uv_timer_start(&s->prewarm_timer, on_prewarm, PREWARM_DELAY_MS, 0);
	atomic_store(&s->shared->ready, 1);
	say(KEEPER_READY, 0, NULL);
	return 0;
}

/* The server leaves by _exit(2), for its threads wait in the kernel: LeakSanitizer would never look. */
static void look_for_leaks(void)
{
#ifdef WITH_LEAK_CHECK
	__lsan_do_recoverable_leak_check();
#endif
}

int main(int argc, char **argv)
{
	static struct server server;
	struct server *s = &server;
	cleanup_error struct error err = ERROR_INIT;
	prepare_process();
	s->shared = mmap(NULL, SHARED_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, KEEPER_FD_SHARED, 0);
	if (s->shared == MAP_FAILED || s->shared->magic != SHARED_MAGIC || s->shared->version != SHARED_VERSION) {
		fputs("aetherfs-server is started by aetherfs: aetherfs DIR\n", stderr);
		return 2;
	}
	if (start(s, &err)) {
		if (keeper_is_dead())
			leave(s);
		return fail(&err);
	}
	uv_run(&s->loop, UV_RUN_DEFAULT);
	look_for_leaks(); /* once told, the keeper kills us */
	say(KEEPER_DONE, s->removing && forget(s), NULL);
	/* the keeper takes the mounts away; whoever still waits is answered by that */
	_exit(0);
}
