/* The shim is started: its order, its descriptors, its first words. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backends/process.h"
#include "backends/shim.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/program.h"

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define FILES_LIMIT 65536 /* soft; what the host allows if less */
#define OOM_SCORE 200     /* a database goes before the editor that uses it */
#define FD_PARKED 64      /* sources stand above the numbers they are given, or one would overwrite the next */

/* ---- the order ---- */

void process_order_add(struct buffer *out, const char *key, const char *fmt, ...)
{
	va_list ap;
	buffer_printf(out, "%s=", key);
	va_start(ap, fmt);
	buffer_vprintf(out, fmt, ap);
	va_end(ap);
	buffer_addc(out, '\0');
}

void process_order_argv(struct buffer *out, char *const *argv)
{
	for (; argv && *argv; argv++)
		process_order_add(out, "arg", "%s", *argv);
}

void process_order_env(struct buffer *out, const struct keyvals *env)
{
	for (size_t i = 0; env && i < env->count; i++)
		if (env->items[i].value) /* named without a value, and the caller has none: not set */
			process_order_add(out, "env", "%s=%s", env->items[i].key, env->items[i].value);
}

/* Who gives up root has no business to get it back through a set-user-id program. An ordinary user's service keeps
 * what the user can do. */
void process_order_user(struct buffer *out, uid_t uid, gid_t gid)
{
	if (uid == (uid_t)-1)
		return;
	process_order_add(out, "uid", "%lld", (long long)uid);
	process_order_add(out, "gid", "%lld", (long long)gid);
	process_order_add(out, "no_new_privileges", "1");
}

void process_order(struct buffer *out, const struct process_settings *p, const struct service_spec *spec)
{
	process_order_env(out, spec->process->env);
	process_order_add(out, "directory", "%s", spec->process->directory ? spec->process->directory : "/");
	process_order_user(out, p->uid, (gid_t)p->uid);
	process_order_add(out, "limit_files", "%d", FILES_LIMIT);
	process_order_add(out, "oom_score", "%d", OOM_SCORE);
	process_order_add(out, "stop_signal", "%d", spec->stop_signal ? spec->stop_signal : SIGTERM);
	process_order_add(out, "stop_grace_ms", "%u", spec->stop_grace_ms);
}

int process_program(const char *name, const struct keyvals *env, char **ret, struct error *err)
{
	const char *path = env ? keyvals_get(env, "PATH") : NULL;
	char *found = program_in_path(name, path ? path : DEFAULT_PATH);
	if (!found) {
		error_set(err, ERROR_PROGRAM_NOT_FOUND, "program %s is not installed", name);
		return error_hint(err, strchr(name, '/') ? "look at the path" : "install it, or set PATH for the service");
	}
	*ret = found;
	return 0;
}

/* ---- descriptors ---- */

static int order_file(const struct buffer *order)
{
	cleanup_close int fd = memfd_create("order", MFD_CLOEXEC);
	if (fd < 0 || write_all(fd, order->data, order->len))
		return -1;
	return move_fd(&fd);
}

static int park(int fd)
{
	return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, FD_PARKED);
}

/* Puts a parked copy of `fd` at `at` in the child. */
static int place(posix_spawn_file_actions_t *actions, int fd, int at, int *ret_parked)
{
	if (fd < 0)
		return 0;
	*ret_parked = park(fd);
	if (*ret_parked < 0)
		return -errno;
	return -posix_spawn_file_actions_adddup2(actions, *ret_parked, at);
}

/* posix_spawn takes a fork's cost to a constant: a server of any size starts a shim in the same time. */
static int spawn(const struct process_shim *s, int order, int status, pid_t *ret_pid)
{
	const int fds[][2] = {
	    {s->input, 0},
	    {s->output, 1},
	    {s->output, 2},
	    {order, SHIM_FD_ORDER},
	    {s->watch_fd, SHIM_FD_WATCH},
	    {status, SHIM_FD_STATUS},
	    {s->lock_fd, SHIM_FD_LOCK},
	    {s->directory_fd, SHIM_FD_DIRECTORY},
	};
	enum { N = sizeof fds / sizeof fds[0] };
	int parked[N];
	memset(parked, -1, sizeof parked);
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	sigset_t set;
	sigemptyset(&set);
	posix_spawnattr_setsigmask(&attr, &set);
	sigfillset(&set);
	posix_spawnattr_setsigdefault(&attr, &set);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	for (int fd = 0; fd < 3; fd++)
		posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_RDWR, 0);
	int r = 0;
	for (int i = 0; i < N && !r; i++)
		r = place(&actions, fds[i][0], fds[i][1], &parked[i]);
	char *const argv[] = {(char *)"aetherfs-shim", s->settings->namespace_, (char *)s->service, NULL};
	char *const env[] = {NULL};
	if (!r)
		r = -posix_spawn(ret_pid, s->settings->shim, &actions, &attr, argv, env);
	for (int i = 0; i < N; i++)
		if (parked[i] >= 0)
			close(parked[i]);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attr);
	return r;
}

int process_shim_start(const struct process_shim *s, int *ret_status, struct error *err)
{
	int ends[2];
	cleanup_close int order = order_file(s->order);
	if (order < 0 || pipe2(ends, O_CLOEXEC))
		return error_set_errno(err, ERROR_BACKEND_SPAWN_FAILED, errno, "service %s", s->service);
	cleanup_close int status = ends[0];
	pid_t pid;
	int r = spawn(s, order, ends[1], &pid);
	close(ends[1]);
	if (r)
		return error_set_errno(err, ERROR_BACKEND_SPAWN_FAILED, -r, "%s", s->settings->shim);
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0) {
		r = error_set_errno(err, ERROR_BACKEND_SPAWN_FAILED, errno, "pidfd_open");
		kill(pid, SIGKILL); /* our child, not reaped yet: the number is still its own */
		waitpid(pid, NULL, 0);
		return r;
	}
	fcntl(status, F_SETFL, O_NONBLOCK);
	*ret_status = move_fd(&status);
	return pidfd;
}

/* Only of a shim of our own making: those of an earlier server are the keeper's children. */
void process_shim_reap(int pidfd)
{
	siginfo_t info;
	if (waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG))
		return;
}

/* ---- the first words ---- */

void process_report_parse(const char *text, struct process_report *ret)
{
	struct process_report r = {.status = PROCESS_SILENT};
	for (const char *line = text; line && *line;) {
		if (sscanf(line, "failed %15s %d", r.stage, &r.err) == 2)
			r.status = PROCESS_FAILED;
		else if (sscanf(line, "exit %d", &r.exit_code) == 1 && r.status != PROCESS_FAILED)
			r.status = PROCESS_EXITED;
		else if (!strncmp(line, "timeout\n", 8))
			r.status = PROCESS_TIMED_OUT;
		else if (sscanf(line, "started %d", &r.pid) == 1)
			r.status = PROCESS_STARTED;
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
	*ret = r;
}

int process_report_error(const struct process_report *r, const char *what, uid_t uid, struct error *err)
{
	static const struct {
		const char *stage, *text;
	} texts[] = {
	    {"program", "cannot execute"},
	    {"directory", "cannot enter the working directory"},
	    {"user", "cannot become the services' user"},
	    {"record", "cannot write its record"},
	};
	if (r->status != PROCESS_FAILED)
		return error_set(err, ERROR_BACKEND_SPAWN_FAILED, "%s: the shim ended before the program ran", what);
	if (!strcmp(r->stage, "program") && r->err == ENOENT)
		return error_set(err, ERROR_PROGRAM_NOT_FOUND,
		                 "%s: the program, or the interpreter that it names, is not there", what);
	cleanup_free char *who = NULL;
	if (uid != (uid_t)-1 && (r->err == EACCES || r->err == EPERM))
		who = xasprintf(" as user %u, who runs this environment's services", (unsigned)uid);
	enum error_code code = r->err == ENOSPC ? ERROR_NO_SPACE : ERROR_BACKEND_SPAWN_FAILED;
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
		if (!strcmp(texts[i].stage, r->stage))
			return error_set_errno(err, code, r->err, "%s: %s%s", what, texts[i].text, who ? who : "");
	return error_set_errno(err, code, r->err, "%s: %s", what, r->stage);
}

/* Returns whether the pipe is at its end. */
static bool status_read(int fd, struct buffer *text)
{
	char chunk[256];
	for (;;) {
		ssize_t n = read(fd, chunk, sizeof chunk);
		if (n > 0 && text->len < 4096)
			buffer_add(text, chunk, (size_t)n);
		else if (n < 0 && errno == EINTR)
			continue;
		else
			return n >= 0 || errno != EAGAIN;
	}
}

int process_report_wait(const struct process_settings *p, int status_fd, bool once, int timeout_ms,
                        struct process_report *ret, struct error *err)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	uint64_t deadline = now_monotonic_ms() + (uint64_t)timeout_ms;
	for (;;) {
		bool end = status_read(status_fd, &text);
		process_report_parse(buffer_str(&text), ret);
		if (end || (!once && ret->status != PROCESS_SILENT))
			return 0;
		if (now_monotonic_ms() >= deadline)
			return error_set(err, ERROR_BACKEND_SPAWN_FAILED, "the shim has not answered in %d s", timeout_ms / 1000);
		if (atomic_load(&p->canceled))
			return error_set(err, ERROR_CANCELED, "canceled");
		struct pollfd fd = {status_fd, POLLIN, 0};
		poll(&fd, 1, 50);
	}
}
