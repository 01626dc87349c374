#include "backends/attached_process.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pty.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backends/children.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/program.h"

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define CHUNK (64u << 10)

struct running {
	struct attachment base;
	pid_t child;  /* ours to wait for: the program, or who waits for it outside of its namespace */
	pid_t group;  /* the program's process group, as numbered here */
	int pidfd;    /* of child */
	int in, out, err; /* of a terminal all one: in and out are its master, err is -1 */
	bool terminal, ended;
	int code;
};

/* ---- the child ---- */

enum failure { FAILED_NAMESPACE = 1, FAILED_FORK, FAILED_USER, FAILED_DIRECTORY, FAILED_PROGRAM, FAILED_TERMINAL };

/* What the child tells of: first the number of the program, then, only if it cannot be run, why. */
struct told {
	int32_t failure, value; /* 0, pid */
};

struct ends {
	int in, out, err; /* the child's */
	int tell;
};

static _Noreturn void give_up(const struct ends *e, enum failure failure, int err)
{
	struct told t = {failure, err};
	ssize_t n = write(e->tell, &t, sizeof t);
	_exit(n == (ssize_t)sizeof t ? 127 : 126);
}

static void join_cgroups(char *const *cgroups)
{
	for (; cgroups && *cgroups; cgroups++) {
		char path[4096];
		snprintf(path, sizeof path, "%s/cgroup.procs", *cgroups);
		int fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd >= 0 && write(fd, "0", 1) < 0)
			errno = 0; /* its limits are the service's only where they can be */
		if (fd >= 0)
			close(fd);
	}
}

static void take_ends(const struct attached_process *p, const struct ends *e)
{
	if (p->terminal && ioctl(e->in, TIOCSCTTY, 0))
		give_up(e, FAILED_TERMINAL, errno);
	if (dup2(e->in, 0) < 0 || dup2(e->out, 1) < 0 || dup2(e->err, 2) < 0)
		give_up(e, FAILED_TERMINAL, errno);
	syscall(SYS_close_range, 3, ~0u, 4 /* CLOSE_RANGE_CLOEXEC */);
}

static void reset_signals(void)
{
	sigset_t none;
	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void run_program(const struct attached_process *p, const struct ends *e, const char *path, char *const *envp)
{
	setsid();
	take_ends(p, e);
	join_cgroups(p->cgroups);
	if (p->uid != (uid_t)-1 && (setgroups(0, NULL) || setresgid(p->gid, p->gid, p->gid) || setresuid(p->uid, p->uid, p->uid)))
		give_up(e, FAILED_USER, errno);
	if (p->no_new_privileges)
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* a change of user clears it */
	umask(022);
	if (p->directory && chdir(p->directory))
		give_up(e, FAILED_DIRECTORY, errno);
	reset_signals();
	execve(path, p->argv, envp);
	give_up(e, FAILED_PROGRAM, errno);
}

/* Until the program has ended; when its caller ends, so does it. It is always waited for here: a namespace is not gone, and its service not stopped,
 * before somebody has done so for each process in it. */
static int wait_for(pid_t pid, const sigset_t *signals)
{
	int status = 0;
	while (waitpid(pid, &status, WNOHANG) != pid)
		if (sigwaitinfo(signals, NULL) == SIGHUP)
			kill(pid, SIGKILL);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Who enters a PID namespace is not in it; only what he forks then. He ends as that does. */
static _Noreturn void enter_and_wait(const struct attached_process *p, const struct ends *e, const char *path, char *const *envp, pid_t caller)
{
	sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	setsid(); /* what is typed is not for him */
	prctl(PR_SET_PDEATHSIG, SIGHUP);
	prctl(PR_SET_NAME, "ajj-wait");
	if (getppid() != caller)
		_exit(126);
	if ((p->user_ns >= 0 && setns(p->user_ns, CLONE_NEWUSER)) || setns(p->pid_ns, CLONE_NEWPID))
		give_up(e, FAILED_NAMESPACE, errno);
	pid_t pid = fork();
	if (pid < 0)
		give_up(e, FAILED_FORK, errno);
	if (pid == 0)
		run_program(p, e, path, envp);
	struct told t = {0, pid};
	if (write(e->tell, &t, sizeof t) < 0)
		kill(pid, SIGKILL);
	syscall(SYS_close_range, 0, ~0u, 0); /* nobody but the program may hold its pipes */
	_exit(wait_for(pid, &signals));
}

/* ---- the child, without a PID namespace ---- */

/* The descriptors of who stands in the namespace's place. */
enum { KEEPER_SIGNALS, KEEPER_UNTIL, KEEPER_TELL, KEEPER_FDS };

struct keeper {
	pid_t program; /* 0 once it is told of */
	bool killing;  /* they may live no longer: everything goes */
	bool none_left;
};

/* What the keeper tells of the program's end. */
struct kept {
	int32_t code;
	int32_t last; /* nothing of it is left: the keeper ends, too */
};

static void keeper_reap(struct keeper *k)
{
	int status, code = -1;
	pid_t pid;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (pid == k->program)
			code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	k->none_left = pid < 0 && errno == ECHILD;
	if (code < 0)
		return;
	const struct kept told = {code, k->none_left};
	k->program = 0;
	if (write(KEEPER_TELL, &told, sizeof told) < 0)
		errno = 0; /* nobody waits for it any more */
	close(KEEPER_TELL);
}

static void keeper_on_signal(struct keeper *k)
{
	struct signalfd_siginfo info;
	while (read(KEEPER_SIGNALS, &info, sizeof info) == (ssize_t)sizeof info)
		if (info.ssi_signo == SIGHUP && k->program) /* its caller has ended */
			kill(k->program, SIGKILL);
}

/* As a namespace would: as long as anything of the program is there, and not longer than whom it goes with. */
static _Noreturn void keep(struct keeper *k, bool until)
{
	while (!k->none_left) {
		struct pollfd fds[] = {{KEEPER_SIGNALS, POLLIN, 0}, {until && !k->killing ? KEEPER_UNTIL : -1, POLLIN, 0}};
		poll(fds, 2, k->killing ? CHILDREN_SWEEP_MS : -1);
		k->killing = k->killing || fds[1].revents;
		keeper_on_signal(k);
		if (k->killing)
			children_kill();
		keeper_reap(k);
	}
	_exit(0);
}

/* Moves those to the lowest numbers and closes all others. */
static void hold_only(const int *fds, int n)
{
	int high[KEEPER_FDS];
	for (int i = 0; i < n; i++)
		high[i] = fds[i] < 0 ? -1 : fcntl(fds[i], F_DUPFD, n);
	for (int i = 0; i < n; i++)
		if (high[i] < 0 || dup2(high[i], i) < 0)
			close(i);
	syscall(SYS_close_range, n, ~0u, 0);
}

/* Its session, its process group and its daemons have this one as their reaper, so all of them are found. */
static _Noreturn void keeper_run(const struct attached_process *p, const struct ends *e, const char *path, char *const *envp, pid_t waiter, int tell)
{
	sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGCHLD);
	prctl(PR_SET_NAME, "ajj-keep");
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	prctl(PR_SET_PDEATHSIG, SIGHUP);
	if (getppid() != waiter)
		_exit(126);
	const int fds[KEEPER_FDS] = {signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC), p->until, tell};
	struct keeper k = {.program = fds[KEEPER_SIGNALS] < 0 ? -1 : fork()};
	if (k.program < 0)
		give_up(e, FAILED_FORK, errno);
	if (k.program == 0)
		run_program(p, e, path, envp);
	struct told t = {0, k.program};
	if (write(e->tell, &t, sizeof t) < 0)
		kill(k.program, SIGKILL);
	if (chdir("/")) /* a daemon may have it stay; it pins no directory then */
		errno = 0;
	hold_only(fds, KEEPER_FDS);
	keep(&k, p->until >= 0);
}

/* Two, for a daemon is not waited for: the one who is ends with the program, the other with the last of what that has started. */
static _Noreturn void keep_and_wait(const struct attached_process *p, const struct ends *e, const char *path, char *const *envp, pid_t caller)
{
	sigset_t all;
	int tell[2];
	struct kept kept = {128 + SIGKILL, true};
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL); /* what ends it is that its caller ends */
	setsid(); /* what is typed is not for them */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, "ajj-wait");
	if (getppid() != caller)
		_exit(126);
	pid_t waiter = getpid(), keeper = pipe2(tell, O_CLOEXEC) ? -1 : fork();
	if (keeper < 0)
		give_up(e, FAILED_FORK, errno);
	if (keeper == 0) {
		close(tell[0]);
		keeper_run(p, e, path, envp, waiter, tell[1]);
	}
	hold_only(tell, 1);
	ssize_t n = read(0, &kept, sizeof kept);
	if (n <= 0 || kept.last) /* else whoever adopts it reaps it: not every first process does */
		waitpid(keeper, NULL, 0);
	_exit(kept.code);
}

/* ---- its descriptors ---- */

static int open_terminal(const struct attached_process *p, struct running *r, struct ends *e)
{
	struct winsize size = {.ws_row = (unsigned short)p->rows, .ws_col = (unsigned short)p->columns};
	int master, slave;
	if (openpty(&master, &slave, NULL, NULL, p->rows && p->columns ? &size : NULL))
		return -errno;
	fcntl(master, F_SETFD, FD_CLOEXEC);
	fcntl(slave, F_SETFD, FD_CLOEXEC);
	if (p->uid != (uid_t)-1 && fchown(slave, p->uid, (gid_t)-1))
		errno = 0; /* only who opens it anew by its name minds */
	r->in = r->out = master;
	e->in = e->out = e->err = slave;
	return 0;
}

static int open_pipe(int *ours, int *theirs, bool we_write)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	*ours = ends[we_write];
	*theirs = ends[!we_write];
	return 0;
}

static int open_pipes(struct running *r, struct ends *e)
{
	int n = open_pipe(&r->in, &e->in, true);
	if (!n)
		n = open_pipe(&r->out, &e->out, false);
	return n ? n : open_pipe(&r->err, &e->err, false);
}

static void close_ends(const struct ends *e)
{
	if (e->in >= 0)
		close(e->in);
	if (e->out >= 0 && e->out != e->in)
		close(e->out);
	if (e->err >= 0 && e->err != e->in)
		close(e->err);
	if (e->tell >= 0)
		close(e->tell);
}

/* ---- operations ---- */

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(move_fd(fd));
}

static size_t running_fds(struct attachment *base, bool writing, struct pollfd *ret)
{
	const struct running *r = (const struct running *)base;
	if (r->terminal) {
		ret[0] = (struct pollfd){r->out, (short)(POLLIN | (writing ? POLLOUT : 0)), 0};
		ret[1] = (struct pollfd){r->pidfd, POLLIN, 0};
		return 2;
	}
	ret[0] = (struct pollfd){writing ? r->in : -1, POLLOUT, 0};
	ret[1] = (struct pollfd){r->out, POLLIN, 0};
	ret[2] = (struct pollfd){r->err, POLLIN, 0};
	ret[3] = (struct pollfd){r->pidfd, POLLIN, 0};
	return 4;
}

static bool has_ended(struct running *r)
{
	siginfo_t info = {0};
	if (r->ended || waitid(P_PID, (id_t)r->child, &info, WEXITED | WNOHANG) || !info.si_pid)
		return r->ended;
	r->ended = true;
	r->code = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
	return true;
}

/* 1: there may be more at once. */
static int read_one(int *fd, int stream, attachment_take *take, void *arg)
{
	char chunk[CHUNK];
	ssize_t n = *fd < 0 ? -1 : read(*fd, chunk, sizeof chunk);
	if (n > 0)
		take(arg, stream, chunk, (size_t)n);
	else if (*fd >= 0 && (n == 0 || (errno != EAGAIN && errno != EINTR)))
		close_fd(fd);
	return n > 0;
}

/* Whoever still holds its pipes when it has ended (a daemon) is not waited for. */
static int running_read(struct attachment *base, attachment_take *take, void *arg)
{
	struct running *r = (struct running *)base;
	bool ended = has_ended(r); /* asked first: what it wrote is there then */
	int out = read_one(&r->out, ATTACHMENT_OUT, take, arg), err = read_one(&r->err, ATTACHMENT_ERR, take, arg);
	if (r->terminal && r->out < 0)
		r->in = -1;
	return out || err || !ended;
}

static ssize_t running_write(struct attachment *base, const void *data, size_t len)
{
	const struct running *r = (const struct running *)base;
	ssize_t n = r->in < 0 ? -1 : write(r->in, data, len);
	return n >= 0 ? n : r->in < 0 || (errno != EAGAIN && errno != EINTR) ? -EPIPE : -EAGAIN;
}

static int running_end_input(struct attachment *base)
{
	struct running *r = (struct running *)base;
	if (!r->terminal)
		close_fd(&r->in);
	return 0;
}

static int running_resize(struct attachment *base, unsigned rows, unsigned columns)
{
	const struct running *r = (const struct running *)base;
	const struct winsize size = {.ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns};
	return ioctl(r->out, TIOCSWINSZ, &size) ? -errno : 0;
}

static int running_signal(struct attachment *base, int signo)
{
	struct running *r = (struct running *)base;
	if (has_ended(r))
		return 0;
	return kill(-r->group, signo) ? -EOPNOTSUPP : 0;
}

static int running_wait(struct attachment *base, unsigned timeout_ms, int *ret_code, struct error *err)
{
	struct running *r = (struct running *)base;
	struct pollfd p = {r->pidfd, POLLIN, 0};
	if (!has_ended(r) && poll(&p, 1, (int)timeout_ms) <= 0)
		return -EAGAIN;
	if (!has_ended(r))
		return -EAGAIN;
	*ret_code = r->code;
	return 0;
}

static void running_close(struct attachment *base)
{
	struct running *r = (struct running *)base;
	if (r->in != r->out)
		close_fd(&r->in);
	close_fd(&r->out);
	close_fd(&r->err);
	if (r->child > 0 && !has_ended(r)) {
		kill(-r->group, SIGHUP);
		kill(r->group, SIGKILL);
		waitpid(r->child, NULL, 0);
	}
	close_fd(&r->pidfd);
	free(r);
}

static const struct attachment_ops ops = {
	.fds = running_fds,
	.read = running_read,
	.write = running_write,
	.end_input = running_end_input,
	.resize = running_resize,
	.signal = running_signal,
	.wait = running_wait,
	.close = running_close,
};

/* ---- the start ---- */

static int failed(const struct attached_process *p, const struct told *t, struct error *err)
{
	switch ((enum failure)t->failure) {
	case FAILED_DIRECTORY:
		return error_set_errno(err, ERROR_SERVICE_FAILED, t->value, "%s: cannot enter %s", p->what, p->directory);
	case FAILED_PROGRAM:
		return error_set_errno(err, t->value == ENOENT ? ERROR_PROGRAM_NOT_FOUND : ERROR_BACKEND_SPAWN_FAILED, t->value, "%s", p->argv[0]);
	case FAILED_USER:
		return error_set_errno(err, ERROR_SERVICE_FAILED, t->value, "%s: cannot become user %u", p->what, (unsigned)p->uid);
	case FAILED_NAMESPACE:
		return error_set_errno(err, ERROR_SERVICE_FAILED, t->value, "%s: cannot enter its namespaces", p->what);
	case FAILED_FORK:
		return error_set_errno(err, ERROR_BACKEND_SPAWN_FAILED, t->value, "%s", p->what);
	case FAILED_TERMINAL:
		break;
	}
	return error_set_errno(err, ERROR_SERVICE_FAILED, t->value, "%s: it gets no terminal", p->what);
}

/* Until it runs, or says why not. */
static int hear(const struct attached_process *p, struct running *r, int fd, struct error *err)
{
	struct told t;
	ssize_t n;
	r->group = r->child;
	for (;;) {
		while ((n = read(fd, &t, sizeof t)) < 0 && errno == EINTR)
			;
		if (n != (ssize_t)sizeof t)
			return 0; /* closed by the execution */
		if (t.failure)
			return failed(p, &t, err);
		r->group = t.value;
	}
}

static int start(const struct attached_process *p, struct running *r, struct ends *e, const char *path, struct error *err)
{
	int tell[2];
	if (pipe2(tell, O_CLOEXEC))
		return error_set_errno(err, ERROR_BACKEND_SPAWN_FAILED, errno, "%s", p->what);
	cleanup_close int told = tell[0];
	char **envp = keyvals_environ(p->env);
	pid_t caller = getpid();
	e->tell = tell[1];
	signal(SIGCHLD, SIG_DFL); /* ignored, as some start us, the kernel would tell nobody how it ended */
	r->child = fork();
	if (r->child == 0 && p->pid_ns >= 0)
		enter_and_wait(p, e, path, envp, caller);
	if (r->child == 0)
		keep_and_wait(p, e, path, envp, caller);
	int saved = errno;
	strv_free(envp);
	close(e->tell);
	e->tell = -1;
	if (r->child < 0)
		return error_set_errno(err, ERROR_BACKEND_SPAWN_FAILED, saved, "%s", p->what);
	r->pidfd = (int)syscall(SYS_pidfd_open, r->child, 0);
	if (r->pidfd < 0)
		return error_set_errno(err, ERROR_BACKEND_SPAWN_FAILED, errno, "pidfd_open");
	return hear(p, r, told, err);
}

int attached_process_open(const struct attached_process *p, struct attachment **ret, struct error *err)
{
	const char *dirs = keyvals_get(p->env, "PATH");
	cleanup_free char *path = strchr(p->argv[0], '/') ? xstrdup(p->argv[0]) : program_in_path(p->argv[0], dirs ? dirs : DEFAULT_PATH);
	if (!path) {
		error_set(err, ERROR_PROGRAM_NOT_FOUND, "%s: there is no %s in its PATH", p->what, p->argv[0]);
		return error_hint(err, "PATH is %s", dirs ? dirs : DEFAULT_PATH);
	}
	cleanup_attachment struct attachment *a = xcalloc(1, sizeof(struct running));
	struct running *r = (struct running *)a;
	struct ends e = {-1, -1, -1, -1};
	*r = (struct running){.base = {&ops}, .child = -1, .pidfd = -1, .in = -1, .out = -1, .err = -1, .terminal = p->terminal};
	int n = p->terminal ? open_terminal(p, r, &e) : open_pipes(r, &e);
	n = n ? error_set_errno(err, ERROR_BACKEND_SPAWN_FAILED, -n, "%s", p->what) : start(p, r, &e, path, err);
	close_ends(&e);
	if (n)
		return n;
	const int fds[] = {r->in, r->out, r->err};
	for (size_t i = 0; i < 3; i++)
		if (fds[i] >= 0)
			fcntl(fds[i], F_SETFL, fcntl(fds[i], F_GETFL) | O_NONBLOCK);
	*ret = move_ptr(a);
	return 0;
}
