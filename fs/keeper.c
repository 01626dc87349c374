/* The keeper: mounts, holds what a new server needs, starts the server and starts it again when it dies. See keeper.h.
 *
 * It stays small because it must not fail: after start-up it allocates nothing and waits in one poll(2). */
#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "aether_config.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/program.h"
#include "fs/keeper.h"
#include "fs/shared.h"
#include "provisioner/identity.h"

#define AREA "keeper"
#define END_GRACE_MS 20000 /* what services may take to stop when the mount ends; then they are killed */
#define LOCK_WAIT_MS 30000 /* for a keeper that starts or ends */
#define LOCK_STEP_MS 10
#define INIT_HAS_RESEND (UINT64_C(1) << 39)

struct stash {
	uint32_t key;
	int fd;
};

struct keeper {
	const struct identity *id;
	bool allow_other, read_only;
	uint32_t options;
	const char *workspace;
	int lock_fd; /* held for life: one keeper a workspace */
	int root_fd, shared_fd, pidfd, signal_fd, socket, front;
	int devices[SESSION_COUNT];
	struct fuse_session *mounts[SESSION_COUNT]; /* they hold the descriptors above */
	struct shared *shared;
	pid_t server;
	bool ready, stopping, mask_resend;
	uint64_t deaths[KEEPER_RESTARTS_MAX]; /* when, of those that died young */
	uint64_t started_ms;                  /* the present server */
	unsigned n_deaths;
	struct stash stash[KEEPER_STASH_MAX];
	unsigned n_stash;
};

/* ---- the mount table ---- */

static void unescape(char *s)
{
	char *out = s;
	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
			*out++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 3;
		} else {
			*out++ = *s;
		}
	}
	*out = '\0';
}

/* Is there a mount of the given type at `path`, on top? */
static bool is_mounted(const char *path, const char *type)
{
	cleanup_fclose FILE *f = fopen("/proc/self/mountinfo", "re");
	cleanup_free char *line = NULL;
	size_t cap = 0;
	bool found = false;
	while (f && getline(&line, &cap, f) > 0) {
		char *point, *rest, *save = NULL;
		strtok_r(line, " ", &save);
		for (int i = 0; i < 3; i++)
			strtok_r(NULL, " ", &save);
		point = strtok_r(NULL, " ", &save);
		rest = save ? strstr(save, " - ") : NULL;
		if (!point || !rest)
			continue;
		unescape(point);
		if (!strcmp(point, path))
			found = !strncmp(rest + 3, type, strlen(type)) && rest[3 + strlen(type)] == ' ';
	}
	return found;
}

/* ---- mounting ---- */

static int run(const char *const argv[])
{
	pid_t pid = fork();
	if (pid == 0) {
		sigset_t none;
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		int null = open("/dev/null", O_RDWR);
		dup2(null, STDERR_FILENO);
		execvp(argv[0], (char *const *)argv);
		_exit(127);
	}
	int status;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

static int detach(const char *path)
{
	if (geteuid() == 0)
		return umount2(path, MNT_DETACH) ? -errno : 0;
	return run((const char *const[]){"fusermount3", "-u", "-z", "-q", "--", path, NULL});
}

static void detach_dead(const char *path)
{
	struct stat st;
	for (int i = 0; i < 8 && stat(path, &st) && errno == ENOTCONN; i++)
		if (detach(path))
			return;
}

static int mount_session(struct keeper *k, int which, const char *path, struct error *err)
{
	static const struct fuse_lowlevel_ops none;
	cleanup_free char *options =
		xasprintf("fsname=%s,subtype=%s%s%s%s%s", which == SESSION_OVERLAY ? "aetherfs" : "aetherfs-control",
	              which == SESSION_OVERLAY ? "aetherfs" : "aetherfs-control", which == SESSION_OVERLAY ? ",default_permissions" : "",
	              which == SESSION_OVERLAY && k->allow_other ? ",allow_other" : "",
	              which == SESSION_OVERLAY && geteuid() == 0 ? ",suid,dev" : "", /* root's mount is as what it covers */
	              k->read_only ? ",ro" : "");
	char name[] = "aetherfs", flag[] = "-o", *argv[] = {name, flag, options, NULL};
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);
	struct fuse_session *se = fuse_session_new(&args, &none, sizeof none, NULL);
	fuse_opt_free_args(&args);
	if (!se)
		return error_set(err, ERROR_MOUNT_FAILED, "libfuse refused the options %s", options);
	if (fuse_session_mount(se, path)) {
		fuse_session_destroy(se);
		return error_set(err, ERROR_MOUNT_FAILED, "cannot mount on %s", path);
	}
	k->mounts[which] = se;
	k->devices[which] = fuse_session_fd(se);
	fcntl(k->devices[which], F_SETFD, FD_CLOEXEC);
	return 0;
}

static int make_shared(struct keeper *k, struct error *err)
{
	k->shared_fd = memfd_create("aetherfs", MFD_CLOEXEC);
	if (k->shared_fd < 0 || ftruncate(k->shared_fd, (off_t)SHARED_SIZE))
		return error_set_errno(err, ERROR_MOUNT_FAILED, errno, "cannot make the shared memory");
	k->shared = mmap(NULL, sizeof *k->shared, PROT_READ | PROT_WRITE, MAP_SHARED, k->shared_fd, 0);
	if (k->shared == MAP_FAILED)
		return error_set_errno(err, ERROR_MOUNT_FAILED, errno, "cannot map the shared memory");
	k->shared->magic = SHARED_MAGIC;
	k->shared->version = SHARED_VERSION;
	k->shared->options = k->options;
	snprintf(k->shared->root, sizeof k->shared->root, "%s", k->id->root);
	snprintf(k->shared->workspace, sizeof k->shared->workspace, "%s", k->workspace ? k->workspace : "");
	return 0;
}

/* The control file system first: the overlay's links point into it. */
static int mount_both(struct keeper *k, struct error *err)
{
	int r = make_shared(k, err);
	if (!r)
		r = mount_session(k, SESSION_CONTROL, k->id->control_dir, err);
	if (!r)
		r = mount_session(k, SESSION_OVERLAY, k->id->root, err);
	return r;
}

/* Closing the descriptors aborts the connections: whoever still waits for an answer gets ECONNABORTED. */
static void unmount_both(struct keeper *k)
{
	const char *const paths[] = {k->id->root, k->id->control_dir};
	const char *const types[] = {"fuse.aetherfs", "fuse.aetherfs-control"};
	for (int i = 0; i < SESSION_COUNT; i++) {
		if (k->mounts[i] && is_mounted(paths[i], types[i]))
			detach(paths[i]);
		if (k->mounts[i]) {
			close(k->devices[i]);
			k->mounts[i] = NULL;
		}
	}
	if (k->shared)
		munmap(k->shared, sizeof *k->shared);
	k->shared = NULL;
	if (k->shared_fd >= 0)
		close(k->shared_fd);
	k->shared_fd = -1;
}

/* ---- the server ---- */

static int send_message(int socket, const struct keeper_message *m, size_t len, int fd)
{
	struct iovec iov = {(void *)m, len};
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
	return sendmsg(socket, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static void tell(struct keeper *k, uint32_t type, uint32_t key, int fd)
{
	struct keeper_message m = {.type = type, .key = key};
	send_message(k->socket, &m, offsetof(struct keeper_message, text), fd);
}

static void exec_server(struct keeper *k, int socket)
{
	int sources[] = {k->devices[SESSION_OVERLAY], k->devices[SESSION_CONTROL], k->shared_fd, k->root_fd, socket, k->pidfd};
	enum { COUNT = sizeof sources / sizeof sources[0] };
	for (int i = 0; i < COUNT; i++) /* out of the way of the numbers they get */
		sources[i] = fcntl(sources[i], F_DUPFD_CLOEXEC, KEEPER_FD_OVERLAY + COUNT);
	for (int i = 0; i < COUNT; i++)
		dup2(sources[i], KEEPER_FD_OVERLAY + i);
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	char *path = program_path("aetherfs-server");
	execl(path, "aetherfs-server", k->id->root, (char *)NULL);
	log_error(AREA, "cannot start %s: %s", path, strerror(errno));
	_exit(127);
}

static int start_server(struct keeper *k)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -errno;
	atomic_fetch_add(&k->shared->server_generation, 1);
	k->started_ms = now_monotonic_ms();
	k->server = fork();
	if (k->server == 0)
		exec_server(k, pair[1]);
	close(pair[1]);
	if (k->socket >= 0)
		close(k->socket);
	k->socket = pair[0];
	if (k->server < 0)
		return -errno;
	for (unsigned i = 0; i < k->n_stash; i++)
		tell(k, KEEPER_RESTORE, k->stash[i].key, k->stash[i].fd);
	tell(k, KEEPER_RESTORED, 0, -1);
	if (k->stopping)
		tell(k, KEEPER_STOP, 0, -1);
	return 0;
}

static bool kernel_can_resend(const struct keeper *k)
{
	/* struct fuse_in_header (40 bytes), then fuse_init_in: major, minor, max_readahead, flags, flags2 */
	const uint32_t *in = (const void *)(k->shared->init[SESSION_OVERLAY].request + 40);
	return !k->mask_resend && atomic_load(&k->shared->init[SESSION_OVERLAY].len) >= 60 &&
	       ((uint64_t)in[4] << 32 & INIT_HAS_RESEND);
}

static void drop_stash(struct keeper *k)
{
	for (unsigned i = 0; i < k->n_stash; i++)
		close(k->stash[i].fd);
	k->n_stash = 0;
}

static bool dies_too_often(struct keeper *k)
{
	uint64_t now = now_monotonic_ms();
	if (now - k->started_ms > KEEPER_RESTARTS_YOUNG_MS)
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

/* A dead server's place is taken; false: that cannot be. */
static bool replace_server(struct keeper *k, int status)
{
	log_warning(AREA, "the server %d died (%s %d)", (int)k->server, WIFSIGNALED(status) ? "signal" : "status",
	            WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	if (dies_too_often(k))
		return false;
	if (atomic_load(&k->shared->init[SESSION_OVERLAY].len) && !kernel_can_resend(k)) {
		/* before Linux 6.9 what the dead one had taken is lost: abort, so that nobody hangs, and begin anew */
		cleanup_error struct error err = ERROR_INIT;
		unmount_both(k);
		drop_stash(k);
		if (mount_both(k, &err)) {
			log_error(AREA, "cannot mount again: %s", err.message);
			return false;
		}
	}
	return start_server(k) == 0;
}

/* ---- the loop ---- */

static void answer_front(struct keeper *k, const char *text)
{
	if (k->front < 0)
		return;
	write_all(k->front, text, strlen(text));
	close(k->front);
	k->front = -1;
}

static void keep_stash(struct keeper *k, uint32_t key, int fd)
{
	if (fd < 0)
		return;
	if (k->n_stash == KEEPER_STASH_MAX) {
		close(fd);
		return;
	}
	k->stash[k->n_stash++] = (struct stash){key, fd};
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
	switch (m.type) {
	case KEEPER_READY:
		k->ready = true;
		answer_front(k, "ok");
		return true;
	case KEEPER_FAILED:
		answer_front(k, m.text);
		return false;
	case KEEPER_STASH:
		keep_stash(k, m.key, fd);
		return true;
	case KEEPER_UNSTASH:
		drop_one(k, m.key);
		return true;
	case KEEPER_DONE:
		return false;
	default:
		return true;
	}
}

/* Reaps what ended; false: the server cannot be replaced. */
static bool reap(struct keeper *k)
{
	int status;
	pid_t pid;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid != k->server)
			continue;
		/* what it said last may still be there */
		while (k->socket >= 0) {
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

static void keep(struct keeper *k)
{
	for (;;) {
		struct pollfd fds[] = {{k->signal_fd, POLLIN, 0}, {k->socket, POLLIN, 0}};
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return;
		if (fds[1].revents && !hear_server(k))
			return;
		struct signalfd_siginfo info;
		while (fds[0].revents && read(k->signal_fd, &info, sizeof info) == sizeof info) {
			if (info.ssi_signo == SIGCHLD) {
				if (!reap(k))
					return;
			} else if (!k->stopping) {
				k->stopping = true;
				tell(k, KEEPER_STOP, 0, -1);
			}
		}
	}
}

/* ---- the end ---- */

static unsigned signal_children(int signal)
{
	unsigned count = 0;
	cleanup_free char *path = xasprintf("/proc/self/task/%d/children", (int)getpid());
	cleanup_fclose FILE *f = fopen(path, "re");
	int pid;
	while (f && fscanf(f, "%d", &pid) == 1) {
		kill(pid, signal);
		count++;
	}
	return count;
}

/* As the sub-reaper of everything that the servers started, the keeper knows when nothing is left. */
static void end_children(void)
{
	uint64_t begun = now_monotonic_ms();
	int signal = SIGTERM;
	while (signal_children(signal)) {
		uint64_t waited = now_monotonic_ms() - begun;
		if (waited > END_GRACE_MS)
			signal = SIGKILL;
		else
			signal = 0; /* asked once: now only counted */
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		usleep(5000);
	}
}

static void end(struct keeper *k)
{
	unmount_both(k);
	drop_stash(k);
	if (k->socket >= 0)
		close(k->socket);
	end_children();
	rmdir(k->id->control_dir);
	rmdir(k->id->socket_dir);
}

/* ---- the command line ---- */

struct options {
	const char *dir, *workspace;
	bool foreground, allow_other, read_only, json, mask_resend;
	uint32_t bits;
};

static int one_option(struct options *o, char *word, struct error *err)
{
	static const struct {
		const char *name;
		uint32_t bit;
	} bits[] = {{"listed", MOUNT_LISTED}, {"allow_other", MOUNT_ALLOW_OTHER}, {"cache=strict", MOUNT_CACHE_STRICT}, {"noprewarm", MOUNT_NO_PREWARM}};
	/* what mount(8) and fstab add for every file system; a FUSE mount is nosuid and nodev for a user anyway */
	static const char *const ignored[] = {"rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "auto", "noauto", "user", "nouser", "users", "defaults", "_netdev", "relatime", "noatime", "default_permissions"};
	for (size_t i = 0; i < sizeof bits / sizeof bits[0]; i++)
		if (!strcmp(word, bits[i].name)) {
			o->bits |= bits[i].bit;
			return 0;
		}
	for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++)
		if (!strcmp(word, ignored[i]))
			return 0;
	if (!strcmp(word, "ro"))
		o->read_only = true;
	else if (!strcmp(word, "json"))
		o->json = true;
	else if (!strncmp(word, "workspace=", 10))
		o->workspace = word + 10;
	else if (!strcmp(word, "no_resend")) /* as on kernels before 6.9: for tests */
		o->mask_resend = true;
	else {
		error_set(err, ERROR_USAGE, "unknown mount option '%s'", word);
		return error_hint(err, "aetherfs --help lists them");
	}
	return 0;
}

static const char usage[] =
	"usage: aetherfs [-f] [-o OPTION,...] DIR\n"
	"Lays itself over DIR in place and gives it .env and .aether/ (see README.md). Unmount with: fusermount3 -u DIR\n"
	"  -f               stay in the foreground\n"
	"  -o listed        readdir shows .env and .aether\n"
	"  -o allow_other   other users may look in (needs user_allow_other in /etc/fuse.conf)\n"
	"  -o cache=strict  nothing is cached: for directories that others change behind the mount\n"
	"  -o workspace=N   the workspace's name\n"
	"  -o noprewarm     no walk through the fresh mount\n"
	"  -o ro            read-only\n"
	"  -o json          errors as one JSON object\n";

static int parse(int argc, char **argv, struct options *o, struct error *err)
{
	const char *places[2] = {NULL, NULL};
	int n = 0;
	for (int i = 1; i < argc; i++) {
		char *word = argv[i], *save = NULL;
		if (!strcmp(word, "-f")) {
			o->foreground = true;
		} else if (!strncmp(word, "-o", 2)) {
			char *list = word[2] ? word + 2 : i + 1 < argc ? argv[++i] : NULL;
			if (!list)
				return error_set(err, ERROR_USAGE, "-o wants options");
			for (char *p = strtok_r(list, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
				int r = one_option(o, p, err);
				if (r)
					return r;
			}
		} else if (word[0] == '-' && word[1]) {
			error_set(err, ERROR_USAGE, "unknown option %s", word);
			return error_hint(err, "aetherfs --help");
		} else if (n < 2) {
			places[n++] = word;
		} else {
			n = 3;
		}
	}
	if (n < 1 || n > 2) {
		error_set(err, ERROR_USAGE, "one directory is wanted");
		return error_hint(err, "aetherfs DIR");
	}
	o->dir = places[n - 1]; /* mount(8) gives a source first */
	return 0;
}

/* ---- what must be there ---- */

static bool users_may_share(void)
{
	cleanup_fclose FILE *f = fopen("/etc/fuse.conf", "re");
	char line[256];
	while (f && fgets(line, sizeof line, f))
		if (!strncmp(line, "user_allow_other", 16) && (line[16] == '\n' || line[16] == '\0' || line[16] == ' '))
			return true;
	return false;
}

static int check_fuse(struct error *err)
{
	cleanup_close int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		int saved = errno;
		error_set_errno(err, ERROR_NO_FUSE, saved, "/dev/fuse cannot be opened");
		if (saved == EACCES)
			return error_hint(err, "an administrator must run: chmod 666 /dev/fuse");
		return error_hint(err, "load the kernel module (modprobe fuse), or in a container: --device /dev/fuse --cap-add SYS_ADMIN");
	}
	if (geteuid() == 0)
		return 0;
	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1) {
		error_set(err, ERROR_MOUNT_NO_NEW_PRIVS, "this process may not gain privileges (no_new_privs), so fusermount3 cannot mount");
		return error_hint(err, "mount from outside the sandbox: ajj attach DIR");
	}
	cleanup_free char *mounter = program_in_path("fusermount3", getenv("PATH"));
	if (!mounter) {
		error_set(err, ERROR_MOUNT_FAILED, "fusermount3 is not installed");
		return error_hint(err, "apt-get install fuse3");
	}
	return 0;
}

/* ---- start ---- */

static void keep_forever(struct keeper *k, const struct options *o)
{
	cleanup_error struct error err = ERROR_INIT;
	sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	k->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	k->pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	fcntl(k->pidfd, F_SETFD, FD_CLOEXEC);
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	int r = mount_both(k, &err);
	if (!r && start_server(k))
		r = error_set(&err, ERROR_MOUNT_FAILED, "cannot start the server");
	if (!r)
		keep(k);
	end(k);
	if (!r && !k->ready)
		error_set(&err, ERROR_MOUNT_FAILED, "the server did not come up");
	if (error_is_set(&err)) {
		json_t *json = error_to_json(&err);
		char *text = json_dumps(json, JSON_COMPACT);
		answer_front(k, text);
		free(text);
		json_decref(json);
	}
}

static void daemonize(const struct identity *id)
{
	setsid();
	cleanup_free char *log = xasprintf("%s/log", id->state_dir);
	struct stat st;
	if (!stat(log, &st) && st.st_size > 1 << 20) {
		cleanup_free char *old = xasprintf("%s.1", log);
		rename(log, old);
	}
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	dup2(null, STDIN_FILENO);
	dup2(out >= 0 ? out : null, STDOUT_FILENO);
	dup2(out >= 0 ? out : null, STDERR_FILENO);
	if (chdir("/"))
		return;
}

static int wait_for_keeper(int fd, struct error *err)
{
	char text[KEEPER_TEXT_MAX];
	size_t len = 0;
	for (;;) {
		ssize_t n = read(fd, text + len, sizeof text - 1 - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	text[len] = '\0';
	if (!strcmp(text, "ok"))
		return 0;
	json_t *json = json_loads(text, 0, NULL);
	if (json)
		error_from_json(err, json);
	else
		error_set(err, ERROR_MOUNT_FAILED, "the keeper ended before it was ready");
	json_decref(json);
	return -err->err;
}

/* Mounted and answering: the keeper that holds the lock has said so. */
static bool is_ready(const char *dir)
{
	struct stat st;
	return is_mounted(dir, "fuse.aetherfs") && !stat(dir, &st);
}

static int mount_directory(const struct options *o, struct error *err)
{
	cleanup_free char *dir = NULL;
	detach_dead(o->dir);
	dir = realpath(o->dir, NULL);
	if (!dir)
		return error_set_errno(err, ERROR_WORKSPACE_NOT_FOUND, errno, "%s", o->dir);
	int r = check_fuse(err);
	if (r)
		return r;
	if (is_mounted(dir, "fuse.aetherfs")) {
		fprintf(stderr, "%s is mounted already\n", dir);
		return 0;
	}
	static struct keeper k;
	static struct identity id;
	k = (struct keeper){.id = &id, .options = o->bits, .workspace = o->workspace, .read_only = o->read_only,
	                    .mask_resend = o->mask_resend, .socket = -1, .front = -1, .shared_fd = -1};
	k.allow_other = geteuid() == 0 || users_may_share();
	if ((o->bits & MOUNT_ALLOW_OTHER) && !k.allow_other) {
		error_set(err, ERROR_MOUNT_FAILED, "allow_other is not allowed to users here");
		return error_hint(err, "an administrator must add the line user_allow_other to /etc/fuse.conf");
	}
	k.root_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (k.root_fd < 0)
		return error_set_errno(err, ERROR_WORKSPACE_NOT_FOUND, errno, "%s", dir);
	r = identity_of(dir, o->workspace, &id, err);
	if (!r)
		r = identity_make_dirs(&id, err);
	if (r)
		return r;
	detach_dead(id.control_dir);
	/* one keeper a workspace: who comes second waits for the first, and finds it mounted */
	cleanup_free char *lock = xasprintf("%s/keeper.lock", id.state_dir);
	k.lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (k.lock_fd < 0)
		return error_set_errno(err, ERROR_MOUNT_FAILED, errno, "%s", lock);
	for (int waited = 0; flock(k.lock_fd, LOCK_EX | LOCK_NB); waited += LOCK_STEP_MS) {
		if (is_ready(dir))
			return 0;
		if (waited > LOCK_WAIT_MS) {
			error_set(err, ERROR_MOUNT_FAILED, "another aetherfs of %s is neither ready nor gone", dir);
			return error_hint(err, "see %s/log", id.state_dir);
		}
		usleep(LOCK_STEP_MS * 1000);
	}
	int front[2];
	if (pipe2(front, O_CLOEXEC))
		return error_set_errno(err, ERROR_MOUNT_FAILED, errno, "pipe");
	pid_t pid = fork();
	if (pid < 0)
		return error_set_errno(err, ERROR_MOUNT_FAILED, errno, "fork");
	if (pid == 0) {
		close(front[0]);
		k.front = front[1];
		daemonize(&id);
		keep_forever(&k, o);
		_exit(0);
	}
	close(front[1]);
	r = wait_for_keeper(front[0], err);
	if (!r && o->foreground)
		waitpid(pid, NULL, 0);
	return r;
}

static int complain(const struct error *err, bool json)
{
	if (json) {
		json_t *object = error_to_json(err);
		json_dumpf(object, stderr, JSON_COMPACT);
		fputc('\n', stderr);
		json_decref(object);
	} else {
		fprintf(stderr, "Error: %s\n", err->message);
		if (err->hint)
			fprintf(stderr, "Hint: %s\n", err->hint);
	}
	return err->code == ERROR_USAGE ? 2 : 1;
}

int main(int argc, char **argv)
{
	struct options o = {0};
	cleanup_error struct error err = ERROR_INIT;
	if (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		fputs(usage, stdout);
		return 0;
	}
	if (argc == 2 && !strcmp(argv[1], "--version")) {
		puts("aetherfs " AETHER_VERSION);
		return 0;
	}
	int r = parse(argc, argv, &o, &err);
	if (!r)
		r = mount_directory(&o, &err);
	return r ? complain(&err, o.json || getenv("AETHER_JSON_ERRORS")) : 0;
}
