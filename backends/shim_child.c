/* The processes below the shim: the namespace's first, and the service. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backends/shim.h"
#include "backends/shim_order.h"

static const char *const stage_names[] = {
    [STAGE_NONE] = "none", [STAGE_ORDER] = "order",         [STAGE_NAMESPACES] = "namespaces",
    [STAGE_FORK] = "fork", [STAGE_CGROUP] = "cgroup",       [STAGE_RECORD] = "record",
    [STAGE_USER] = "user", [STAGE_DIRECTORY] = "directory", [STAGE_PROGRAM] = "program",
};

const char *stage_name(enum stage stage)
{
	return stage_names[stage];
}

static int text_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ssize_t n = write(fd, text, strlen(text));
	int r = n < 0 ? -errno : 0;
	close(fd);
	return r;
}

/* ---- namespaces ---- */

/* One's own id is the only one that may be mapped without privilege, and only once setgroups is given up
 * (user_namespaces(7)). */
static int map_own_ids(uid_t uid, gid_t gid)
{
	char line[64];
	int r = text_write("/proc/self/setgroups", "deny");
	if (r && r != -ENOENT)
		return r;
	snprintf(line, sizeof line, "%u %u 1", uid, uid);
	r = text_write("/proc/self/uid_map", line);
	if (r)
		return r;
	snprintf(line, sizeof line, "%u %u 1", gid, gid);
	return text_write("/proc/self/gid_map", line);
}

int namespaces_enter(const struct order *o)
{
	if (!o->namespaces)
		return 0;
	if (!strcmp(o->namespaces, "pid"))
		return unshare(CLONE_NEWPID) ? -errno : 0;
	uid_t uid = geteuid();
	gid_t gid = getegid();
	if (unshare(CLONE_NEWUSER | CLONE_NEWPID))
		return -errno;
	return map_own_ids(uid, gid);
}

/* It keeps the lock, so the lock is free only when the namespace is empty, and nothing else. */
static _Noreturn void init_run(int ready)
{
	prctl(PR_SET_NAME, "aetherfs-init");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL); /* whatever the service sends it */
	signal(SIGCHLD, SIG_IGN);             /* the kernel reaps */
	if (write(ready, "", 1) != 1)
		_exit(1);                   /* the shim ended before it could be told of */
	for (int fd = 0; fd < 64; fd++) /* the shim has but a few */
		if (fd != SHIM_FD_LOCK)
			close(fd);
	for (;;)
		pause();
}

pid_t init_start(void)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	pid_t pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		close(ends[0]);
		init_run(ends[1]);
	}
	close(ends[1]);
	char byte;
	ssize_t n = read(ends[0], &byte, 1);
	close(ends[0]);
	return n == 1 ? pid : -EIO;
}

/* ---- the service ---- */

static _Noreturn void give_up(int failed, enum stage stage, int err)
{
	struct stage_failure f = {stage, err};
	ssize_t n = write(failed, &f, sizeof f);
	_exit(n == (ssize_t)sizeof f ? 127 : 126);
}

static void limit(int resource, int64_t value)
{
	struct rlimit now;
	if (value < 0 || getrlimit(resource, &now))
		return;
	rlim_t wanted = (rlim_t)value;
	if (now.rlim_max != RLIM_INFINITY && wanted > now.rlim_max)
		wanted = now.rlim_max;
	now.rlim_cur = wanted;
	if (resource != RLIMIT_NOFILE) /* a service may raise its descriptors; the others are ours to set */
		now.rlim_max = wanted;
	setrlimit(resource, &now);
}

static void apply_limits(const struct order *o)
{
	limit(RLIMIT_CORE, 0);
	limit(RLIMIT_DATA, o->limit_data);
	limit(RLIMIT_NPROC, o->limit_processes);
	limit(RLIMIT_NOFILE, o->limit_files);
	char text[32];
	snprintf(text, sizeof text, "%lld", (long long)o->oom_score);
	if (o->oom_score >= 0)
		text_write("/proc/self/oom_score_adj", text); /* only a preference: may be refused */
}

static int join_cgroups(const struct order *o)
{
	for (size_t i = 0; i < o->cgroups.count; i++) {
		char path[4096];
		snprintf(path, sizeof path, "%s/cgroup.procs", o->cgroups.items[i]);
		int r = text_write(path, "0");
		if (r)
			return r;
	}
	return 0;
}

static int become(const struct order *o)
{
	if (o->uid < 0)
		return 0;
	uid_t uid = (uid_t)o->uid;
	gid_t gid = (gid_t)o->gid;
	if (setgroups(0, NULL) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid))
		return -errno;
	return 0;
}

/* By the system call: posix_spawn leaves the C library's own two signals ignored, and signal() does not reach them. */
static void reset_signals(void)
{
	static const unsigned char standard[64]; /* struct sigaction of the kernel: SIG_DFL, no flags, no mask */
	for (int s = 1; s < NSIG; s++)
		syscall(SYS_rt_sigaction, s, standard, NULL, sizeof(uint64_t));
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void service_run(const struct order *o, pid_t shim, int output, int go, int failed)
{
	char byte;
	if (read(go, &byte, 1) != 1)
		_exit(126); /* the shim ended, or thought better of it */
	setsid();
	if (output >= 0 && (dup2(output, 1) < 0 || dup2(output, 2) < 0))
		give_up(failed, STAGE_FORK, errno);
	if (o->once < 1 && dup2(SHIM_FD_LOCK, SHIM_SERVICE_LOCK_FD) < 0)
		give_up(failed, STAGE_FORK, errno);
	int r = join_cgroups(o);
	if (r)
		give_up(failed, STAGE_CGROUP, -r);
	apply_limits(o);
	r = become(o);
	if (r)
		give_up(failed, STAGE_USER, -r);
	if (o->no_new_privileges > 0)
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* after become: a change of user clears it */
	if (!o->namespaces && getppid() != shim)
		_exit(126);
	umask(022);
	if (o->directory && chdir(o->directory))
		give_up(failed, STAGE_DIRECTORY, errno);
	reset_signals();
	execve(o->program, o->arguments.items, o->environment.items);
	give_up(failed, STAGE_PROGRAM, errno);
}

pid_t service_start(const struct order *o, int output, int *ret_go, int *ret_failed)
{
	int go[2], failed[2];
	if (pipe2(go, O_CLOEXEC) || pipe2(failed, O_CLOEXEC))
		return -errno;
	pid_t shim = getpid();
	pid_t pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		close(go[1]);
		close(failed[0]);
		service_run(o, shim, output, go[0], failed[1]);
	}
	close(go[0]);
	close(failed[1]);
	*ret_go = go[1];
	*ret_failed = failed[0];
	return pid;
}
