/* aetherfs-shim: runs one service, keeps its log, records its end, and leaves nothing of it. See shim.h. */
#include "backends/shim.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "backends/children.h"
#include "backends/shim_order.h"

struct shim {
	struct order order;
	int signals;
	int watch;       /* -1 once it has fired */
	int exec_status; /* -1 once the program runs */
	pid_t init;      /* 0: no namespace */
	pid_t service;   /* 0 once reaped */
	int code;        /* exit status, or 128 + signal */
	bool stopping;
	bool timed_out;
	bool killing; /* the service ended or may live no longer: everything goes */
	bool nothing_left;
	int64_t deadline_ms; /* monotonic: when killing begins; 0: none */
	struct log log;
};

static int64_t clock_ms(clockid_t clock)
{
	struct timespec ts;
	clock_gettime(clock, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- what the backend hears ---- */

static void status_say(const char *text)
{
	if (write(SHIM_FD_STATUS, text, strlen(text)) < 0)
		return; /* the server is gone; the record tells the next one */
}

static void status_failed(enum stage stage, int err)
{
	char line[64];
	snprintf(line, sizeof line, "failed %s %d\n", stage_name(stage), err);
	status_say(line);
}

/* ---- the record ---- */

static uint64_t own_start_ticks(void)
{
	char text[1024];
	int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	char *p = strrchr(text, ')'); /* field 2 may hold anything; starttime is field 22 (proc(5)) */
	for (int field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	return p ? strtoull(p, NULL, 10) : 0;
}

static int file_put(const char *name, const char *text, size_t len)
{
	int fd = openat(SHIM_FD_DIRECTORY, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	ssize_t n = write(fd, text, len);
	int r = n == (ssize_t)len ? 0 : n < 0 ? -errno : -ENOSPC;
	close(fd);
	return r;
}

/* The place of the exit comes first: who reads the record finds it. */
static int record_write(const struct shim *s)
{
	char text[SHIM_RECORD_MAX];
	memset(text, ' ', SHIM_EXIT_SIZE);
	int r = file_put("exit", text, SHIM_EXIT_SIZE);
	if (r)
		return r;
	int n = snprintf(text, sizeof text,
	                 "shim %d\nshim_ticks %llu\npid %d\nstarted_ms %lld\nconfig_hash %s\ngeneration %lld\n"
	                 "stop_signal %lld\nstop_grace_ms %lld\nnamespaces %s\nrun_dir %s\ndata_dir %s\n",
	                 (int)getpid(), (unsigned long long)own_start_ticks(), (int)s->service,
	                 (long long)clock_ms(CLOCK_REALTIME), s->order.config_hash ? s->order.config_hash : "-",
	                 (long long)s->order.generation, (long long)s->order.stop_signal, (long long)s->order.stop_grace_ms,
	                 s->order.namespaces ? s->order.namespaces : "-", s->order.run_dir ? s->order.run_dir : "",
	                 s->order.data_dir ? s->order.data_dir : "");
	r = n < (int)sizeof text ? file_put("record.tmp", text, (size_t)n) : -E2BIG;
	if (!r && renameat(SHIM_FD_DIRECTORY, "record.tmp", SHIM_FD_DIRECTORY, "record"))
		r = -errno;
	return r;
}

static void record_drop(void)
{
	static const char *const names[] = {"record", "record.tmp", "exit"};
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		unlinkat(SHIM_FD_DIRECTORY, names[i], 0);
}

/* In place: the block is there since the start. */
static void record_exit(struct shim *s, bool out_of_memory)
{
	char text[SHIM_EXIT_SIZE + 1];
	int n =
	    snprintf(text, sizeof text, "exit %d %lld %d\n", s->code, (long long)clock_ms(CLOCK_REALTIME), out_of_memory);
	int fd = openat(SHIM_FD_DIRECTORY, "exit", O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || pwrite(fd, text, (size_t)n, 0) != n)
		log_say(&s->log, "the exit with %d could not be recorded: %s", s->code, strerror(errno));
	if (fd >= 0)
		close(fd);
}

/* "oom_kill N": memory.events of cgroup v2, memory.oom_control of v1. */
static bool killed_for_memory(const struct shim *s)
{
	char text[512];
	int fd = s->order.memory_events ? open(s->order.memory_events, O_RDONLY | O_CLOEXEC) : -1;
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return false;
	text[n] = '\0';
	const char *p = strstr(text, "oom_kill ");
	return p && atol(p + strlen("oom_kill ")) > 0;
}

/* ---- stopping ---- */

static void stop(struct shim *s, int signal, unsigned grace_ms)
{
	int64_t deadline = clock_ms(CLOCK_MONOTONIC) + grace_ms;
	if (grace_ms != SHIM_GRACE_NONE && (!s->stopping || deadline < s->deadline_ms))
		s->deadline_ms = deadline;
	s->stopping = s->stopping || grace_ms != SHIM_GRACE_NONE;
	if (s->service > 0) {
		kill(s->service, signal);
		kill(s->service, SIGCONT); /* a stopped one would sleep through it */
	}
}

static unsigned grace_ms(const struct shim *s)
{
	return s->order.stop_grace_ms < 0 ? 0 : (unsigned)s->order.stop_grace_ms;
}

static void watched_ended(struct shim *s)
{
	s->watch = -1;
	unsigned grace = grace_ms(s);
	stop(s, s->order.stop_signal > 0 ? (int)s->order.stop_signal : SIGTERM,
	     grace < SHIM_ORPHAN_GRACE_MS ? grace : SHIM_ORPHAN_GRACE_MS);
}

static void cgroups_kill(struct shim *s)
{
	for (size_t i = 0; i < s->order.cgroups.count; i++) {
		char path[4096];
		snprintf(path, sizeof path, "%s/cgroup.kill", s->order.cgroups.items[i]);
		int fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd < 0)
			continue; /* version 1, or before Linux 5.14 */
		if (write(fd, "1", 1) < 0)
			log_say(&s->log, "%s: %s", path, strerror(errno));
		close(fd);
	}
}

static void kill_everything(struct shim *s)
{
	s->killing = true;
	if (s->init > 0)
		kill(s->init, SIGKILL); /* the kernel kills the whole namespace with it */
	cgroups_kill(s);
	children_kill();
}

static void reap(struct shim *s)
{
	int status;
	pid_t pid;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == s->init)
			s->init = -1;
		if (pid != s->service)
			continue;
		s->service = 0;
		s->code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	}
	s->nothing_left = pid < 0 && errno == ECHILD;
	if (!s->service || s->init < 0)
		kill_everything(s);
}

static void on_signal(struct shim *s)
{
	struct signalfd_siginfo info;
	while (read(s->signals, &info, sizeof info) == (ssize_t)sizeof info) {
		if ((int)info.ssi_signo == SHIM_SIGNAL_STOP)
			stop(s, shim_stop_signal(info.ssi_ptr), shim_stop_grace_ms(info.ssi_ptr));
		else if (info.ssi_signo == SIGTERM)
			stop(s, s->order.stop_signal > 0 ? (int)s->order.stop_signal : SIGTERM, grace_ms(s));
	}
	reap(s);
}

static void on_deadline(struct shim *s)
{
	if (!s->deadline_ms || s->killing || clock_ms(CLOCK_MONOTONIC) < s->deadline_ms)
		return;
	s->timed_out = !s->stopping;
	kill_everything(s);
}

/* ---- the life of the service ---- */

/* Returns 0 when the program runs. */
static int on_exec(struct shim *s)
{
	struct stage_failure f = {STAGE_NONE, 0};
	ssize_t n = read(s->exec_status, &f, sizeof f);
	close(s->exec_status);
	s->exec_status = -1;
	if (n == (ssize_t)sizeof f) {
		status_failed((enum stage)f.stage, f.err);
		return -f.err;
	}
	char line[32];
	snprintf(line, sizeof line, "started %d\n", (int)s->service);
	status_say(line);
	if (s->order.once < 1)
		close(SHIM_FD_STATUS);
	return 0;
}

static int timeout_ms(const struct shim *s)
{
	if (s->killing)
		return CHILDREN_SWEEP_MS;
	if (!s->deadline_ms)
		return -1;
	int64_t left = s->deadline_ms - clock_ms(CLOCK_MONOTONIC);
	return left < 0 ? 0 : left > 1000000 ? 1000000 : (int)left;
}

/* Until nothing is left. Returns what on_exec returned. */
static int live(struct shim *s)
{
	int failed = 0;
	while (!s->nothing_left) {
		struct pollfd fds[] = {
		    {s->signals, POLLIN, 0}, {s->watch, POLLIN, 0}, {s->exec_status, POLLIN, 0}, {s->log.pipe, POLLIN, 0}};
		poll(fds, sizeof fds / sizeof fds[0], timeout_ms(s));
		if (fds[2].revents)
			failed = on_exec(s);
		if (fds[3].revents)
			log_pump(&s->log);
		if (fds[0].revents || s->killing)
			on_signal(s);
		if (fds[1].revents)
			watched_ended(s);
		on_deadline(s);
	}
	if (s->exec_status >= 0)
		failed = on_exec(s);
	return failed;
}

/* BASE/aether/ENVIRONMENT/SERVICE: the last one out removes the upper two as well. One that is in use refuses. */
static void cgroups_remove(const struct shim *s)
{
	for (size_t i = 0; i < s->order.cgroups.count; i++) {
		char path[4096];
		snprintf(path, sizeof path, "%s", s->order.cgroups.items[i]);
		char *slash = path;
		for (int level = 0; level < 3 && slash && !rmdir(path); level++)
			if ((slash = strrchr(path, '/')))
				*slash = '\0';
	}
}

static void directory_remove(int at, const char *path)
{
	int fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	for (struct dirent *d; dir && (d = readdir(dir));)
		if (strcmp(d->d_name, ".") && strcmp(d->d_name, "..") && unlinkat(fd, d->d_name, 0) && errno == EISDIR)
			directory_remove(fd, d->d_name);
	if (dir)
		closedir(dir);
	else if (fd >= 0)
		close(fd);
	unlinkat(at, path, AT_REMOVEDIR);
}

/* Sockets of what ended: when the keeper was killed nobody else would take them away. The last one out removes the directory
 * above as well. Before our lock is given back, for the next start makes them anew. */
static void run_dir_remove(const struct shim *s)
{
	char above[4096];
	if (!s->order.run_dir || s->order.run_dir[0] != '/')
		return;
	directory_remove(AT_FDCWD, s->order.run_dir);
	snprintf(above, sizeof above, "%s", s->order.run_dir);
	char *slash = strrchr(above, '/');
	*slash = '\0';
	if (slash > above)
		rmdir(above);
}

static void finish(struct shim *s, int failed)
{
	bool out_of_memory = killed_for_memory(s);
	while (s->log.pipe >= 0 && log_pump(&s->log))
		;
	if (out_of_memory)
		log_say(&s->log, "killed: out of memory");
	cgroups_remove(s);
	if (s->order.once > 0) {
		char line[32];
		snprintf(line, sizeof line, s->timed_out ? "timeout\n" : "exit %d\n", s->code);
		status_say(line);
		return;
	}
	run_dir_remove(s);
	if (failed)
		record_drop();
	else
		record_exit(s, out_of_memory);
}

/* ---- the beginning ---- */

static void prepare_self(void)
{
	setsid();
	if (chdir("/")) /* else it pins the directory of whoever started the server */
		_exit(1);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	for (int fd = SHIM_FD_ORDER; fd < SHIM_FD_END; fd++)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
	if (syscall(SYS_close_range, SHIM_FD_END, ~0u, 0))
		for (int fd = SHIM_FD_END; fd < 1024; fd++)
			close(fd);
	signal(SIGPIPE, SIG_IGN);
}

static int signals_open(void)
{
	sigset_t set;
	sigfillset(&set); /* a terminal's or a stranger's signals mean nothing here */
	sigprocmask(SIG_SETMASK, &set, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SHIM_SIGNAL_STOP);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Namespace, first process, log, service (waiting), record, go. */
static int begin(struct shim *s, enum stage *stage)
{
	*stage = STAGE_NAMESPACES;
	int r = namespaces_enter(&s->order);
	if (r)
		return r;
	*stage = STAGE_FORK;
	s->init = s->order.namespaces ? init_start() : 0;
	if (s->init < 0)
		return s->init;
	int output = s->order.once > 0 ? -1 : log_open(&s->log, s->order.uid, s->order.gid);
	if (output < 0 && s->order.once < 1)
		return output;
	int go;
	s->service = service_start(&s->order, output, &go, &s->exec_status);
	if (output >= 0)
		close(output);
	if (s->service < 0)
		return s->service;
	*stage = STAGE_RECORD;
	r = s->order.once > 0 ? 0 : record_write(s);
	if (!r && write(go, "", 1) != 1)
		r = -errno;
	close(go);
	return r;
}

int main(void)
{
	struct shim s = {.watch = SHIM_FD_WATCH, .exec_status = -1, .log = {.pipe = -1, .file = -1}};
	prepare_self();
	s.signals = signals_open();
	enum stage stage = STAGE_ORDER;
	int r = order_read(SHIM_FD_ORDER, &s.order);
	if (s.order.once > 0) /* of a service it stays open: process_attachment.c reads there how that is run */
		close(SHIM_FD_ORDER);
	if (!r)
		r = begin(&s, &stage);
	if (r) {
		status_failed(stage, -r);
		if (stage > STAGE_ORDER && s.order.once < 1)
			record_drop();
		return 1; /* what was forked waits for a byte that will not come, or dies with us */
	}
	if (s.order.once > 0) {
		/* nobody but the program may hold its output, or its reader waits for ever */
		close(1);
		close(2);
		if (s.order.timeout_ms >= 0)
			s.deadline_ms = clock_ms(CLOCK_MONOTONIC) + s.order.timeout_ms;
	}
	finish(&s, live(&s));
	return 0;
}
