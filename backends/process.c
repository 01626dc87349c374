/* The process backend on the loop: which operations wait for which, and who is watched. What they do is in process_*.c.
 */
#include "backends/alive.h"
#include "backends/process_loop.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backends/backends.h"
#include "backends/shim.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"

#define AREA "process"
#define STOP_LOG_TAIL 2048 /* bytes of a log in which a refusal to end stands */

static void stop_overdue(uv_timer_t *timer);

/* A shim's pidfd on the loop; fires once. */
struct watch {
	uv_poll_t poll;
	struct process_backend *backend;
	struct process_service *service; /* NULL: let go */
	int pidfd;
};

enum op_kind { OP_START, OP_STOP, OP_REMOVE, OP_SETTLE };

struct op {
	enum op_kind kind;
	struct process_service *service;
	struct op *next;
	uv_work_t work;
	uv_timer_t timer; /* of stop and remove: the shim's time */
	bool timer_open, waiting_for_exit, verified;
	struct process_start *start;
	int signal; /* stop */
	unsigned grace_ms;
	off_t log_from;             /* where the log ended when the stop began */
	struct process_found found; /* what a worker found */
	int pidfd;                  /* start: the shim */
	struct error err;
	backend_done *done; /* NULL: nobody asks (any more) */
	void *arg;
};

/* ---- the end of the backend ---- */

static void service_free(struct process_service *s)
{
	free(s->name);
	free(s->directory);
	free(s);
}

static void backend_free(void *arg)
{
	struct process_backend *b = arg;
	void (*closed)(void *) = b->closed;
	void *closed_arg = b->closed_arg;
	for (struct process_service *s = b->services, *next; s; s = next) {
		next = s->next;
		service_free(s);
	}
	free(b->settings.namespace_);
	free(b->settings.state_dir);
	free(b->settings.shared_dir);
	free(b->settings.shim);
	close(b->settings.watch_fd);
	close(b->settings.self_fd);
	free(b);
	closed(closed_arg);
}

void process_active_begin(struct process_backend *b)
{
	b->active++;
}

void process_active_end(struct process_backend *b)
{
	if (--b->active == 0 && b->closing)
		backend_free(b);
}

/* ---- answers to what needs no work ---- */

struct answer {
	struct process_backend *backend;
	struct error err;
	backend_done *done;
	void *arg;
};

static void answer_now(void *arg)
{
	struct answer *a = arg;
	a->done(a->arg, error_is_set(&a->err) ? &a->err : NULL);
	process_active_end(a->backend);
	error_release(&a->err);
	free(a);
}

struct error *process_answer_later(struct process_backend *b, backend_done *done, void *arg)
{
	struct answer *a = xcalloc(1, sizeof *a);
	*a = (struct answer){.backend = b, .done = done, .arg = arg};
	process_active_begin(b);
	backend_defer(b->base.loop, answer_now, a);
	return &a->err;
}

void process_cancel(backend_done **done, void *arg)
{
	backend_done *call = *done;
	*done = NULL;
	if (!call)
		return;
	cleanup_error struct error err = ERROR_INIT;
	error_set_errno(&err, ERROR_CANCELED, ECANCELED, "the backend is being closed");
	call(arg, &err);
}

/* ---- services and their queues ---- */

static struct process_service *service_find(struct process_backend *b, const char *name)
{
	for (struct process_service *s = b->services; s; s = s->next)
		if (!strcmp(s->name, name))
			return s;
	return NULL;
}

struct process_service *process_service_get(struct process_backend *b, const char *name)
{
	struct process_service *s = service_find(b, name);
	if (s)
		return s;
	s = xcalloc(1, sizeof *s);
	s->backend = b;
	s->name = xstrdup(name);
	s->directory = xasprintf("%s/services/%s", b->settings.state_dir, name);
	s->next = b->services;
	b->services = s;
	return s;
}

static void op_begin(struct op *op);

static void op_free(struct op *op)
{
	process_start_free(op->start);
	process_found_release(&op->found);
	if (op->pidfd >= 0)
		close(op->pidfd);
	error_release(&op->err);
	free(op);
}

static struct op *op_new(struct process_service *s, enum op_kind kind, backend_done *done, void *arg)
{
	struct op *op = xcalloc(1, sizeof *op);
	op->kind = kind;
	op->service = s;
	op->found = (struct process_found)PROCESS_FOUND_INIT;
	op->pidfd = -1;
	op->done = done;
	op->arg = arg;
	op->work.data = op;
	return op;
}

static void op_queue(struct op *op)
{
	struct process_service *s = op->service;
	process_active_begin(s->backend);
	if (s->last)
		s->last->next = op;
	else
		s->first = op;
	s->last = op;
	if (s->first == op)
		op_begin(op);
}

static void op_timer_closed(uv_handle_t *handle)
{
	op_free(handle->data);
}

/* The next one begins before this one's caller hears: what the caller asks for now comes after what already waits. */
static void op_finish(struct op *op)
{
	struct process_service *s = op->service;
	struct process_backend *b = s->backend;
	s->first = op->next;
	if (!s->first)
		s->last = NULL;
	else
		op_begin(s->first);
	backend_done *done = op->done;
	op->done = NULL;
	if (done)
		done(op->arg, error_is_set(&op->err) ? &op->err : NULL);
	if (op->timer_open)
		uv_close((uv_handle_t *)&op->timer, op_timer_closed);
	else
		op_free(op);
	process_active_end(b);
}

void process_service_settle(struct process_service *s, backend_done *done, void *arg)
{
	op_queue(op_new(s, OP_SETTLE, done, arg));
}

/* ---- watching shims ---- */

static void watch_closed(uv_handle_t *handle)
{
	struct watch *w = handle->data;
	struct process_backend *b = w->backend;
	close(w->pidfd);
	free(w);
	process_active_end(b);
}

static void watch_close(struct process_service *s)
{
	if (!s->watch)
		return;
	s->watch->service = NULL;
	uv_close((uv_handle_t *)&s->watch->poll, watch_closed);
	s->watch = NULL;
}

static void op_shim_ended(struct op *op);

static void watch_fired(uv_poll_t *poll, int status, int events)
{
	struct watch *w = poll->data;
	struct process_service *s = w->service;
	if (!s)
		return;
	process_shim_reap(w->pidfd);
	watch_close(s);
	if (s->backend->closing)
		return;
	if (s->first && s->first->waiting_for_exit)
		op_shim_ended(s->first);
	else
		process_service_settle(s, NULL, NULL);
}

void process_service_watch(struct process_service *s, int pidfd)
{
	watch_close(s);
	struct watch *w = xcalloc(1, sizeof *w);
	w->backend = s->backend;
	w->service = s;
	w->pidfd = pidfd;
	process_active_begin(w->backend);
	w->poll.data = w;
	uv_poll_init(s->backend->base.loop, &w->poll, pidfd);
	uv_poll_start(&w->poll, UV_READABLE, watch_fired);
	s->watch = w;
	s->seen_running = true;
}

/* ---- start ---- */

static void start_work(uv_work_t *work)
{
	struct op *op = work->data;
	process_start_run(op->start, &op->pidfd, &op->err);
}

static void start_worked(uv_work_t *work, int status)
{
	struct op *op = work->data;
	struct process_backend *b = op->service->backend;
	if (op->pidfd >= 0 && !b->closing)
		process_service_watch(op->service, move_fd(&op->pidfd));
	if (!b->closing)
		process_refill_later(b, process_start_refill(op->start));
	op_finish(op);
}

/* ---- stop, remove, settle ---- */

/* Worker. A shim that lives is left to the loop; otherwise nothing runs any more when this succeeds. */
static void settle_work(uv_work_t *work)
{
	struct op *op = work->data;
	const struct process_settings *p = &op->service->backend->settings;
	cleanup_close int turn = -1;
	int r = process_turn(p, op->service->directory, &turn, &op->err);
	process_found_release(&op->found);
	if (!r)
		r = process_settle(op->service->directory, &op->found, &op->err);
	if (r || op->found.shim_pidfd >= 0)
		return;
	process_limits_remove(p, op->service->name);
	if (op->kind != OP_REMOVE)
		return;
	if (op->found.has_record && op->found.record.data_dir[0] == '/')
		process_shared_memory_remove(op->found.record.data_dir);
	if (op->found.has_record && op->found.record.run_dir[0] == '/')
		tree_remove(AT_FDCWD, op->found.record.run_dir);
	process_forget(op->service->directory, &op->err);
}

void process_instance_fill(struct instance *i, const struct process_service *s, const struct process_record *r,
                           bool running)
{
	*i = (struct instance){
	    .service = s->name, .handle = (char *)"", .config_hash = r->config_hash, .started_ms = r->started_ms};
	i->state = running ? INSTANCE_RUNNING : INSTANCE_EXITED;
	i->pid = running ? r->pid : 0;
	i->exit_code = running ? 0 : r->exit_code;
	i->exited_ms = running ? 0 : r->exited_ms;
}

static void tell_ended(struct process_service *s, const struct process_found *found)
{
	bool tell = s->seen_running && found->has_record;
	s->seen_running = false;
	if (!tell || !s->backend->changed || s->backend->closing)
		return;
	struct instance instance;
	process_instance_fill(&instance, s, &found->record, false);
	s->backend->changed(s->backend->changed_arg, &instance);
}

static void stop_send(struct op *op);

static void settle_worked(uv_work_t *work, int status)
{
	struct op *op = work->data;
	struct process_service *s = op->service;
	bool lives = op->found.shim_pidfd >= 0;
	if (lives && !s->watch && !s->backend->closing)
		process_service_watch(s, move_fd(&op->found.shim_pidfd));
	if (lives && op->kind != OP_SETTLE && !s->backend->closing && !error_is_set(&op->err)) {
		stop_send(op);
		return;
	}
	if (!lives && op->kind == OP_SETTLE)
		tell_ended(s, &op->found);
	if (!lives && op->kind != OP_SETTLE && !error_is_set(&op->err))
		s->seen_running = false;
	op_finish(op);
}

static void settle_begin(struct op *op)
{
	uv_queue_work(op->service->backend->base.loop, &op->work, settle_work, settle_worked);
}

static void shim_signal(int pidfd, int signal, unsigned grace_ms)
{
	siginfo_t info = {0};
	info.si_signo = SHIM_SIGNAL_STOP;
	info.si_code = SI_QUEUE;
	info.si_pid = getpid();
	info.si_uid = getuid();
	info.si_value.sival_ptr = (void *)(uintptr_t)shim_stop_value(signal, grace_ms);
	if (syscall(SYS_pidfd_send_signal, pidfd, SHIM_SIGNAL_STOP, &info, 0))
		syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0); /* its queue of signals is full, or it is gone */
}

static int log_open(const char *directory, off_t *ret_size)
{
	struct stat st;
	cleanup_free char *path = xasprintf("%s/log", directory);
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	*ret_size = fd < 0 || fstat(fd, &st) ? 0 : st.st_size;
	return move_fd(&fd);
}

/* Since the stop began: an older word is of an older day. */
static bool says_no_space(const char *directory, off_t from)
{
	char bytes[STOP_LOG_TAIL + 1];
	off_t size;
	cleanup_close int fd = log_open(directory, &size);
	if (fd < 0)
		return false;
	if (from > size) /* it began anew */
		from = 0;
	ssize_t n = pread(fd, bytes, STOP_LOG_TAIL, size - from > STOP_LOG_TAIL ? size - STOP_LOG_TAIL : from);
	bytes[n > 0 ? n : 0] = '\0';
	return strstr(bytes, ERROR_SAYS_NO_SPACE);
}

/* Its grace is over and it still runs: Redis, for one, refuses to end while it cannot save. What it holds is nowhere else, so on
 * a full disk it is left running. */
static void stop_grace_over(uv_timer_t *timer)
{
	struct op *op = timer->data;
	struct process_service *s = op->service;
	const struct process_record *r = &op->found.record;
	if (!op->waiting_for_exit || !s->watch)
		return;
	if (r->data_dir[0] == '/' && (disk_is_full(r->data_dir) || says_no_space(s->directory, op->log_from))) {
		op->waiting_for_exit = false;
		error_set(&op->err, ERROR_NO_SPACE, "service %s does not end, and the disk of %s is full: it is left running, it may hold "
		          "what could not be written", s->name, r->data_dir);
		error_hint(&op->err, "make room there, then stop it again");
		op_finish(op);
		return;
	}
	uv_timer_start(&op->timer, stop_overdue, PROCESS_SHIM_MARGIN_MS, 0);
	shim_signal(s->watch->pidfd, op->signal > 0 ? op->signal : SIGTERM, 0);
}

static void stop_overdue(uv_timer_t *timer)
{
	struct op *op = timer->data;
	struct process_service *s = op->service;
	if (!op->waiting_for_exit || !s->watch)
		return;
	log_warning(AREA, "service %s: its shim does not answer and is killed", s->name);
	syscall(SYS_pidfd_send_signal, s->watch->pidfd, SIGKILL, NULL, 0);
}

/* The service runs and is watched. The shim waits out the grace and kills; we kill the shim if it does not. */
static void stop_send(struct op *op)
{
	struct process_service *s = op->service;
	const struct process_record *r = &op->found.record;
	int signal = op->kind == OP_STOP ? op->signal : r->stop_signal;
	unsigned grace_ms = op->kind == OP_STOP                          ? op->grace_ms
	                    : r->stop_grace_ms < PROCESS_REMOVE_GRACE_MS ? r->stop_grace_ms
	                                                                 : PROCESS_REMOVE_GRACE_MS;
	op->waiting_for_exit = true;
	if (!op->timer_open) {
		uv_timer_init(s->backend->base.loop, &op->timer);
		op->timer.data = op;
		op->timer_open = true;
	}
	off_t size = 0;
	cleanup_close int log = log_open(s->directory, &size);
	op->log_from = size;
	bool looks = r->data_dir[0] == '/' && grace_ms;
	uv_timer_start(&op->timer, looks ? stop_grace_over : stop_overdue,
	               looks ? grace_ms : (uint64_t)grace_ms + PROCESS_SHIM_MARGIN_MS, 0);
	shim_signal(s->watch->pidfd, signal > 0 ? signal : SIGTERM, looks ? SHIM_GRACE_NONE : grace_ms);
}

static void op_shim_ended(struct op *op)
{
	op->waiting_for_exit = false;
	uv_timer_stop(&op->timer);
	settle_begin(op);
}

static void op_begin(struct op *op)
{
	if (op->kind == OP_START)
		uv_queue_work(op->service->backend->base.loop, &op->work, start_work, start_worked);
	else
		settle_begin(op);
}

/* ---- programs run once ---- */

struct running_exec {
	struct process_backend *backend;
	struct running_exec *next;
	struct process_exec *exec;
};

static void exec_finished(void *owner)
{
	struct running_exec *x = owner;
	struct process_backend *b = x->backend;
	for (struct running_exec **at = &b->execs; *at; at = &(*at)->next)
		if (*at == x) {
			*at = x->next;
			break;
		}
	free(x);
	process_active_end(b);
}

static void process_exec_op(struct backend *base, const struct service_spec *spec, char *const *argv,
                            unsigned timeout_ms, backend_exec_done *done, void *arg)
{
	struct process_backend *b = (struct process_backend *)base;
	struct running_exec *x = xcalloc(1, sizeof *x);
	x->backend = b;
	x->next = b->execs;
	b->execs = x;
	process_active_begin(b);
	x->exec = process_exec_start(b->base.loop, &b->settings, spec, argv, timeout_ms, done, arg, exec_finished, x);
}

/* ---- the operations ---- */

const struct process_settings *process_settings_of(const struct backend *b)
{
	return &((const struct process_backend *)b)->settings;
}

static void process_probe(struct backend *base, backend_done *done, void *arg)
{
	struct process_backend *b = (struct process_backend *)base;
	struct error *err = process_answer_later(b, done, arg);
	if (access(b->settings.shim, X_OK))
		error_set_errno(err, ERROR_BACKEND_UNREACHABLE, errno, "%s", b->settings.shim);
}

static void process_start(struct backend *base, const struct service_spec *spec, backend_done *done, void *arg)
{
	struct process_backend *b = (struct process_backend *)base;
	if (!spec->process) {
		struct error *err = process_answer_later(b, done, arg);
		error_set(err, ERROR_BACKEND_SPAWN_FAILED, "service %s: there is no way known to run it as a process",
		          spec->name);
		error_hint(err, "give it x-aether: {command: ...}, or use another backend");
		return;
	}
	struct op *op = op_new(process_service_get(b, spec->name), OP_START, done, arg);
	op->start = process_start_new(&b->settings, spec);
	op_queue(op);
}

static void process_stop(struct backend *base, const char *service, int signal, unsigned grace_ms, backend_done *done,
                         void *arg)
{
	struct process_backend *b = (struct process_backend *)base;
	struct op *op = op_new(process_service_get(b, service), OP_STOP, done, arg);
	op->signal = signal;
	op->grace_ms = grace_ms;
	op_queue(op);
}

static void process_remove(struct backend *base, const char *service, backend_done *done, void *arg)
{
	struct process_backend *b = (struct process_backend *)base;
	op_queue(op_new(process_service_get(b, service), OP_REMOVE, done, arg));
}

static char *process_log_path(struct backend *base, const char *service)
{
	struct process_backend *b = (struct process_backend *)base;
	return xasprintf("%s/services/%s/log", b->settings.state_dir, service);
}

/* ---- opening and closing ---- */

static bool wanted(const char *variable)
{
	const char *value = getenv(variable);
	return !value || strcmp(value, "off") != 0;
}

static int process_open(const struct backend_params *params, struct backend **ret, struct error *err)
{
	cleanup_close int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	cleanup_close int watch =
	    self < 0 ? -1 : fcntl(params->keeper_pidfd >= 0 ? params->keeper_pidfd : self, F_DUPFD_CLOEXEC, 0);
	if (watch < 0)
		return error_set_errno(err, ERROR_BACKEND_UNREACHABLE, errno, "process: pidfd (Linux 5.4 is needed)");
	struct process_backend *b = xcalloc(1, sizeof *b);
	b->settings = (struct process_settings){
	    .namespace_ = xstrdup(params->namespace_),
	    .state_dir = xstrdup(params->state_dir),
	    .shared_dir = xstrdup(params->shared_dir),
	    .shim = xstrdup(params->shim),
	    .uid = geteuid() ? (uid_t)-1 : params->uid,
	    .watch_fd = move_fd(&watch),
	    .self_fd = move_fd(&self),
	};
	atomic_init(&b->settings.no_namespaces, !wanted("AETHER_PROCESS_NAMESPACES"));
	atomic_init(&b->settings.no_cgroups, !wanted("AETHER_PROCESS_CGROUPS"));
	b->changed = params->changed;
	b->changed_arg = params->changed_arg;
	b->active = 1; /* until close */
	*ret = &b->base;
	return 0;
}

/* What a worker has begun it ends; nobody hears of it. What waits never begins. */
static void service_cancel(struct process_service *s)
{
	watch_close(s);
	struct op *first = s->first;
	struct op *waiting = first ? first->next : NULL;
	s->last = first;
	if (first) {
		first->next = NULL;
		process_cancel(&first->done, first->arg);
	}
	while (waiting) {
		struct op *op = waiting;
		waiting = op->next;
		process_cancel(&op->done, op->arg);
		op_free(op);
		process_active_end(s->backend);
	}
	if (first && first->waiting_for_exit)
		op_finish(first); /* the shim carries the stop out without us */
}

static void close_now(void *arg)
{
	struct process_backend *b = arg;
	process_list_cancel(b);
	for (struct process_service *s = b->services; s; s = s->next)
		service_cancel(s);
	for (struct running_exec *x = b->execs; x; x = x->next)
		process_exec_cancel(x->exec);
	process_prepare_cancel(b);
	process_active_end(b);
}

static void process_close(struct backend *base, void (*closed)(void *arg), void *arg)
{
	struct process_backend *b = (struct process_backend *)base;
	b->closing = true;
	b->closed = closed;
	b->closed_arg = arg;
	atomic_store(&b->settings.canceled, true);
	backend_defer(b->base.loop, close_now, b);
}

static bool process_lives(struct backend *b, const char *service, pid_t pid)
{
	return alive(pid);
}

const struct backend_ops backend_process = {
    .name = "process",
    .open = process_open,
    .close = process_close,
    .probe = process_probe,
    .check = process_check,
    .prepare = process_prepare,
    .start = process_start,
    .stop = process_stop,
    .remove = process_remove,
    .list = process_list,
    .exec = process_exec_op,
    .attach = process_attach,
    .log_path = process_log_path,
    .lives = process_lives,
};
