/* One start: the lock, the data, the program, the limits, the shim. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/process.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"

#define AREA "process"
#define SPAWN_TRIES 4

struct process_start {
	const struct process_settings *settings;
	char *service;
	char *directory; /* state_dir/services/NAME */
	char **command;
	struct keyvals env; /* to look for the program */
	char *data_dir, *run_dir;
	struct process_template *template;
	bool needs_unprivileged;
	bool took_copy; /* the data directory was made now */
	struct process_limits limits;
	struct buffer order; /* all that is known before the start */
};

struct process_start *process_start_new(const struct process_settings *p, const struct service_spec *spec)
{
	const struct process_spec *process = spec->process;
	struct process_start *s = xcalloc(1, sizeof *s);
	s->settings = p;
	s->service = xstrdup(spec->name);
	s->directory = xasprintf("%s/services/%s", p->state_dir, spec->name);
	s->command = strv_copy(process->command);
	if (process->env)
		keyvals_copy(&s->env, process->env);
	s->data_dir = xstrdup(process->data_dir);
	s->run_dir = xstrdup(process->run_dir);
	s->template = process_template_new(process);
	s->needs_unprivileged = process->needs_unprivileged;
	s->limits = (struct process_limits){spec->memory_bytes, spec->pids, spec->cpus};
	process_order(&s->order, p, spec);
	process_order_argv(&s->order, process->command);
	process_order_add(&s->order, "config_hash", "%s", spec->config_hash ? spec->config_hash : "-");
	if (process->run_dir)
		process_order_add(&s->order, "run_dir", "%s", process->run_dir);
	if (process->data_dir)
		process_order_add(&s->order, "data_dir", "%s", process->data_dir);
	process_order_add(&s->order, "generation", "%u", spec->generation);
	return s;
}

void process_start_free(struct process_start *s)
{
	if (!s)
		return;
	free(s->service);
	free(s->directory);
	strv_free(s->command);
	keyvals_release(&s->env);
	free(s->data_dir);
	free(s->run_dir);
	process_template_free(s->template);
	buffer_release(&s->order);
	free(s);
}

struct process_template *process_start_refill(struct process_start *s)
{
	return s->took_copy && s->template->key ? move_ptr(s->template) : NULL;
}

/* Root's services live under other uids, so what leads to their directories can be passed through. */
static int directory_make(const struct process_settings *p, const char *path, struct error *err)
{
	cleanup_free char *parent = xstrdup(path);
	char *slash = strrchr(parent, '/');
	if (!slash || slash == parent)
		return error_set(err, ERROR_INTERNAL, "%s: not below a directory", path);
	*slash = '\0';
	int r = dir_make(AT_FDCWD, parent, p->uid == (uid_t)-1 ? 0700 : 0711);
	if (!r)
		r = dir_make(AT_FDCWD, path, 0700);
	if (!r && p->uid != (uid_t)-1 && lchown(path, p->uid, (gid_t)p->uid))
		r = -errno;
	return r ? error_set_errno(err, r == -ENOSPC ? ERROR_NO_SPACE : ERROR_BACKEND_SPAWN_FAILED, -r, "%s", path) : 0;
}

/* We hold the lock, so nothing of ours runs there: the pid in it is a dead one's, or by now a stranger's, for which
 * Postgres would refuse to start. A foreign Postgres on the directory is still found by its shared memory. */
static void stale_locks_remove(const char *data_dir)
{
	static const char *const names[] = {"postmaster.pid"};
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		cleanup_free char *path = xasprintf("%s/%s", data_dir, names[i]);
		unlink(path);
	}
}

/* A directory that another uid has used (restored from the trash, leased anew) changes hands. */
static int data_own(const struct process_settings *p, const char *data_dir, struct error *err)
{
	struct stat st;
	if (p->uid == (uid_t)-1 || lstat(data_dir, &st) || st.st_uid == p->uid)
		return 0;
	int r = tree_chown(AT_FDCWD, data_dir, p->uid, (gid_t)p->uid);
	return r ? error_set_errno(err, ERROR_BACKEND_SPAWN_FAILED, -r, "%s: cannot be given to uid %d", data_dir,
	                           (int)p->uid)
	         : 0;
}

/* Empty: Postgres has a lock file with a pid beside its socket as well. */
static int run_dir_make(const struct process_settings *p, const char *run_dir, struct error *err)
{
	int r = tree_remove(AT_FDCWD, run_dir);
	if (r)
		return error_set_errno(err, ERROR_BACKEND_SPAWN_FAILED, -r, "%s", run_dir);
	return directory_make(p, run_dir, err);
}

static int directories_make(struct process_start *s, struct error *err)
{
	int r = 0;
	if (s->run_dir && s->template->seed) /* its sockets lie there, too */
		r = run_dir_make(s->settings, s->run_dir, err);
	if (!r && s->data_dir)
		r = process_data_make(s->settings, s->template, s->data_dir, err);
	s->took_copy = r > 0;
	r = r > 0 ? 0 : r;
	if (!r && s->data_dir)
		r = data_own(s->settings, s->data_dir, err);
	if (!r && s->data_dir)
		stale_locks_remove(s->data_dir);
	if (!r && s->data_dir)
		r = process_data_adapt(s->settings, s->template, s->data_dir, s->took_copy, err);
	if (r)
		return error_prefix(err, "service %s", s->service);
	if (!r && s->run_dir)
		r = run_dir_make(s->settings, s->run_dir, err);
	return r;
}

static const char *namespaces_wanted(const struct process_settings *p)
{
	if (atomic_load(&p->no_namespaces))
		return NULL;
	return p->uid == (uid_t)-1 ? "user" : "pid";
}

/* Returns the shim's pidfd. Our own copy of the lock is closed at once: from here on the shim's is the proof. */
static int attempt(struct process_start *s, const char *program, struct process_report *report, struct error *err)
{
	cleanup_buffer struct buffer order = BUFFER_INIT;
	buffer_add(&order, s->order.data, s->order.len);
	process_order_add(&order, "program", "%s", program);
	if (namespaces_wanted(s->settings))
		process_order_add(&order, "namespaces", "%s", namespaces_wanted(s->settings));
	process_limits_apply(s->settings, s->service, &s->limits, &order);
	cleanup_close int lock = -1, status = -1;
	int r = process_lock(s->directory, &lock, err);
	if (r)
		return r == -EBUSY ? error_set_errno(err, ERROR_BACKEND_SPAWN_FAILED, EBUSY, "service %s", s->service) : r;
	cleanup_close int directory = open(s->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct process_shim shim = {.settings = s->settings,
	                            .service = s->service,
	                            .order = &order,
	                            .watch_fd = s->settings->watch_fd,
	                            .input = -1,
	                            .output = -1,
	                            .lock_fd = lock,
	                            .directory_fd = directory};
	cleanup_close int pidfd = process_shim_start(&shim, &status, err);
	close(move_fd(&lock));
	if (pidfd < 0)
		return pidfd;
	r = process_report_wait(s->settings, status, false, PROCESS_START_MS, report, err);
	return r ? r : move_fd(&pidfd);
}

/* Can the start be tried again, without what was refused? Remembered, so that it is refused once; but starts that run
 * side by side are refused side by side. */
static bool try_again(struct process_settings *p, const struct process_report *report, int *tries)
{
	bool cgroup = !strcmp(report->stage, "cgroup");
	atomic_bool *what = cgroup ? &p->no_cgroups : !strcmp(report->stage, "namespaces") ? &p->no_namespaces : NULL;
	if (!what || report->status != PROCESS_FAILED || ++*tries > SPAWN_TRIES)
		return false;
	if (cgroup && report->err == ENOENT && *tries < SPAWN_TRIES)
		return true; /* somebody tidied the empty one up */
	if (!atomic_exchange(what, true))
		log_warning(AREA, "this host refuses us %s (%s): services run without", report->stage, strerror(report->err));
	return true;
}

static int spawn(struct process_start *s, const char *program, int *ret_pidfd, struct error *err)
{
	for (int tries = 0;;) {
		cleanup_found struct process_found found = PROCESS_FOUND_INIT;
		int r = process_settle(s->directory, &found, err); /* after a refusal: until its remains are gone */
		if (r)
			return r;
		struct process_report report = {.status = PROCESS_SILENT};
		cleanup_close int pidfd = attempt(s, program, &report, err);
		if (pidfd < 0)
			return pidfd;
		if (report.status == PROCESS_STARTED) {
			*ret_pidfd = move_fd(&pidfd);
			return 0;
		}
		poll(&(struct pollfd){pidfd, POLLIN, 0}, 1, PROCESS_SWEEP_MS); /* it has said so and cleans up */
		process_shim_reap(pidfd);
		if (try_again((struct process_settings *)s->settings, &report, &tries))
			continue;
		process_limits_remove(s->settings, s->service);
		cleanup_free char *what = xasprintf("service %s: %s", s->service, program);
		return process_report_error(&report, what, s->settings->uid, err);
	}
}

/* Takes the turn, and finds out whether it runs already: then *ret_pidfd is its shim. */
static int turn_take(struct process_start *s, int *ret_turn, int *ret_pidfd, struct error *err)
{
	int r = dir_make(AT_FDCWD, s->directory, 0700);
	if (r)
		return error_set_errno(err, r == -ENOSPC ? ERROR_NO_SPACE : ERROR_BACKEND_SPAWN_FAILED, -r, "%s", s->directory);
	r = process_turn(s->settings, s->directory, ret_turn, err);
	if (r)
		return r;
	cleanup_found struct process_found found = PROCESS_FOUND_INIT;
	r = process_settle(s->directory, &found, err);
	*ret_pidfd = move_fd(&found.shim_pidfd);
	return r;
}

int process_start_run(struct process_start *s, int *ret_pidfd, struct error *err)
{
	if (s->settings->uid == (uid_t)-1 && geteuid() == 0)
		return error_set(err, ERROR_BACKEND_SPAWN_FAILED,
		                 "service %s: there is no user to run it as, and root it shall not be", s->service);
	if (!s->command || !s->command[0])
		return error_set(err, ERROR_CONFIG_INVALID, "service %s: nothing to run", s->service);
	cleanup_close int turn = -1, running = -1;
	int r = turn_take(s, &turn, &running, err);
	if (r || running >= 0) {
		*ret_pidfd = move_fd(&running);
		return r;
	}
	cleanup_free char *program = NULL;
	r = process_program(s->command[0], &s->env, &program, err);
	if (r) {
		error_prefix(err, "service %s", s->service);
		return r;
	}
	r = directories_make(s, err);
	if (!r && atomic_load(&s->settings->canceled))
		r = error_set(err, ERROR_CANCELED, "service %s: canceled", s->service);
	return r ? r : spawn(s, program, ret_pidfd, err);
}
