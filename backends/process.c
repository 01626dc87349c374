/* The process backend on the loop: which operations wait for which, and who is watched. What they do is in process_*.c. */
#include "backends/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
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
#define LIST_PASSES 2          /* the second after leftovers were cleared away */
#define REFILL_DELAY_MS 1000   /* spare copies are made again when the services that took them have started */
#define REFILL_NICE 19
#define REFILL_IO (3 << 13)    /* IOPRIO_CLASS_IDLE (ioprio_set(2)) */

/* A shim's pidfd on the loop; fires once. */
struct watch {
	uv_poll_t poll;
	struct process_backend *backend;
	struct process_service *service; /* NULL: let go */
	int pidfd;
};

struct process_service {
	struct process_backend *backend;
	char *name, *directory;
	struct op *first, *last; /* the first one runs, the others wait */
	struct watch *watch;     /* NULL: nothing known to run */
	bool seen_running;       /* its end has not been told to anybody */
	struct process_service *next;
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
	struct process_found found; /* what a worker found */
	int pidfd;                  /* start: the shim */
	struct error err;
	backend_done *done; /* NULL: nobody asks (any more) */
	void *arg;
};

struct process_backend {
	struct backend base;
	struct process_settings settings;
	backend_changed *changed;
	void *changed_arg;
	struct process_service *services;
	struct listing *listings;
	struct running_exec *execs;
	struct prepare *prepares;
	unsigned active; /* works, handles and threads that will still call back */
	void (*closed)(void *arg);
	void *closed_arg;
	bool closing;
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

static void active_begin(struct process_backend *b)
{
	b->active++;
}

static void active_end(struct process_backend *b)
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
	active_end(a->backend);
	error_release(&a->err);
	free(a);
}

/* Fill in the error, if there is one, before the loop turns. */
static struct error *answer_later(struct process_backend *b, backend_done *done, void *arg)
{
	struct answer *a = xcalloc(1, sizeof *a);
	*a = (struct answer){.backend = b, .done = done, .arg = arg};
	active_begin(b);
	backend_defer(b->base.loop, answer_now, a);
	return &a->err;
}

/* ---- services and their queues ---- */

static struct process_service *service_find(struct process_backend *b, const char *name)
{
	for (struct process_service *s = b->services; s; s = s->next)
		if (!strcmp(s->name, name))
			return s;
	return NULL;
}

static struct process_service *service_get(struct process_backend *b, const char *name)
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
	active_begin(s->backend);
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
	active_end(b);
}

/* ---- watching shims ---- */

static void watch_closed(uv_handle_t *handle)
{
	struct watch *w = handle->data;
	struct process_backend *b = w->backend;
	close(w->pidfd);
	free(w);
	active_end(b);
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
		op_queue(op_new(s, OP_SETTLE, NULL, NULL));
}

/* steals pidfd */
static void watch_open(struct process_service *s, int pidfd)
{
	watch_close(s);
	struct watch *w = xcalloc(1, sizeof *w);
	w->backend = s->backend;
	w->service = s;
	w->pidfd = pidfd;
	active_begin(w->backend);
	w->poll.data = w;
	uv_poll_init(s->backend->base.loop, &w->poll, pidfd);
	uv_poll_start(&w->poll, UV_READABLE, watch_fired);
	s->watch = w;
	s->seen_running = true;
}

/* ---- start ---- */

static void refill_later(struct process_backend *b, struct process_template *t);

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
		watch_open(op->service, move_fd(&op->pidfd));
	if (!b->closing)
		refill_later(b, process_start_refill(op->start));
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
	if (op->found.has_record && op->found.record.run_dir[0] == '/')
		tree_remove(AT_FDCWD, op->found.record.run_dir);
	process_forget(op->service->directory, &op->err);
}

static void fill_instance(struct instance *i, const struct process_service *s, const struct process_record *r, bool running)
{
	*i = (struct instance){.service = s->name, .handle = (char *)"", .config_hash = r->config_hash, .started_ms = r->started_ms};
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
	fill_instance(&instance, s, &found->record, false);
	s->backend->changed(s->backend->changed_arg, &instance);
}

static void stop_send(struct op *op);

static void settle_worked(uv_work_t *work, int status)
{
	struct op *op = work->data;
	struct process_service *s = op->service;
	bool lives = op->found.shim_pidfd >= 0;
	if (lives && !s->watch && !s->backend->closing)
		watch_open(s, move_fd(&op->found.shim_pidfd));
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
	unsigned grace_ms = op->kind == OP_STOP ? op->grace_ms : r->stop_grace_ms < PROCESS_REMOVE_GRACE_MS ? r->stop_grace_ms : PROCESS_REMOVE_GRACE_MS;
	op->waiting_for_exit = true;
	if (!op->timer_open) {
		uv_timer_init(s->backend->base.loop, &op->timer);
		op->timer.data = op;
		op->timer_open = true;
	}
	uv_timer_start(&op->timer, stop_overdue, (uint64_t)grace_ms + PROCESS_SHIM_MARGIN_MS, 0);
	shim_signal(s->watch->pidfd, signal > 0 ? signal : SIGTERM, grace_ms);
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

/* ---- list ---- */

struct listed {
	char *name;
	struct process_found found;
	uint64_t memory_bytes;
};

struct listing {
	struct process_backend *backend;
	struct listing *next;
	uv_work_t work;
	struct listed *items;
	size_t count;
	unsigned pass;
	unsigned settling; /* leftovers being cleared away */
	struct error err;
	backend_list_done *done;
	void *arg;
};

static void listing_clear(struct listing *l)
{
	for (size_t i = 0; i < l->count; i++) {
		free(l->items[i].name);
		process_found_release(&l->items[i].found);
	}
	free(l->items);
	l->items = NULL;
	l->count = 0;
}

static void listing_work(uv_work_t *work)
{
	struct listing *l = work->data;
	cleanup_free char *path = xasprintf("%s/services", l->backend->settings.state_dir);
	cleanup_closedir DIR *d = opendir(path);
	if (!d && errno != ENOENT) {
		error_set_errno(&l->err, ERROR_BACKEND_UNREACHABLE, errno, "%s", path);
		return;
	}
	struct dirent *e;
	while (d && (e = readdir(d)) && !error_is_set(&l->err)) {
		struct listed item = {.found = PROCESS_FOUND_INIT};
		cleanup_free char *directory = xasprintf("%s/%s", path, e->d_name);
		if (!backend_service_name_valid(e->d_name) || process_find(directory, &item.found, &l->err))
			continue;
		item.name = xstrdup(e->d_name);
		if (item.found.shim_pidfd >= 0)
			item.memory_bytes = process_memory(item.found.record.shim);
		array_grow(l->items, l->count);
		l->items[l->count++] = item;
	}
}

static void listing_unlink(struct listing *l)
{
	for (struct listing **p = &l->backend->listings; *p; p = &(*p)->next)
		if (*p == l) {
			*p = l->next;
			return;
		}
}

static void listing_finish(struct listing *l)
{
	struct process_backend *b = l->backend;
	struct instances list = {xcalloc(l->count + 1, sizeof *list.items), 0};
	for (size_t i = 0; i < l->count; i++) {
		const struct process_found *f = &l->items[i].found;
		if (!f->has_record)
			continue;
		struct instance *instance = &list.items[list.count++];
		fill_instance(instance, service_get(b, l->items[i].name), &f->record, f->shim_pidfd >= 0);
		instance->memory_bytes = l->items[i].memory_bytes;
	}
	listing_unlink(l);
	if (l->done)
		l->done(l->arg, error_is_set(&l->err) ? &l->err : NULL, &list);
	free(list.items);
	listing_clear(l);
	error_release(&l->err);
	free(l);
	active_end(b);
}

static void listing_begin(struct listing *l);

static void listing_settled(void *arg, const struct error *err)
{
	struct listing *l = arg;
	if (err && !error_is_set(&l->err))
		error_copy(&l->err, err);
	if (--l->settling)
		return;
	if (error_is_set(&l->err) || l->backend->closing)
		listing_finish(l);
	else
		listing_begin(l);
}

static bool unsettled(const struct process_found *f)
{
	return f->shim_pidfd < 0 && (f->held || (f->has_record && !f->record.ended));
}

/* Adopts what runs; has what nobody answers for cleared away, then looks again. A service that an operation works on is
 * that operation's. */
static void listing_worked(uv_work_t *work, int status)
{
	struct listing *l = work->data;
	struct process_backend *b = l->backend;
	bool again = ++l->pass < LIST_PASSES && !b->closing && !error_is_set(&l->err);
	l->settling = 1;
	for (size_t i = 0; i < l->count && !b->closing; i++) {
		struct process_found *f = &l->items[i].found;
		struct process_service *s = service_get(b, l->items[i].name);
		if (s->first)
			continue;
		if (f->shim_pidfd >= 0 && !s->watch)
			watch_open(s, fcntl(f->shim_pidfd, F_DUPFD_CLOEXEC, 0));
		if (again && unsettled(f)) {
			l->settling++;
			op_queue(op_new(s, OP_SETTLE, listing_settled, l));
		}
	}
	if (--l->settling == 0)
		listing_finish(l);
}

static void listing_begin(struct listing *l)
{
	listing_clear(l);
	l->work.data = l;
	uv_queue_work(l->backend->base.loop, &l->work, listing_work, listing_worked);
}

static void process_list(struct backend *base, backend_list_done *done, void *arg)
{
	struct process_backend *b = (struct process_backend *)base;
	struct listing *l = xcalloc(1, sizeof *l);
	l->backend = b;
	l->done = done;
	l->arg = arg;
	l->next = b->listings;
	b->listings = l;
	active_begin(b);
	listing_begin(l);
}

/* ---- work ahead ---- */

/* Its own thread, at low priority: copying takes as long as a start, and must not take its processor. An ordinary thread
 * cannot raise its priority again, so libuv's will not do. */
struct prepare {
	struct process_backend *backend;
	struct prepare *next;
	uv_thread_t thread;
	uv_async_t finished;
	uv_timer_t timer;
	bool waiting; /* for its time: the timer is open */
	bool make_template;
	struct process_template *template;
	struct error err;
	backend_done *done;
	void *arg;
};

static void prepare_unlink(struct prepare *p)
{
	for (struct prepare **at = &p->backend->prepares; *at; at = &(*at)->next)
		if (*at == p) {
			*at = p->next;
			return;
		}
}

static void prepare_closed(uv_handle_t *handle)
{
	struct prepare *p = handle->data;
	struct process_backend *b = p->backend;
	process_template_free(p->template);
	error_release(&p->err);
	free(p);
	active_end(b);
}

static void prepare_finished(uv_async_t *async)
{
	struct prepare *p = async->data;
	uv_thread_join(&p->thread);
	prepare_unlink(p);
	if (error_is_set(&p->err) && p->err.code != ERROR_CANCELED && !p->done)
		log_warning(AREA, "no spare copies of %s: %s", p->template->key, p->err.message);
	if (p->done)
		p->done(p->arg, error_is_set(&p->err) ? &p->err : NULL);
	uv_close((uv_handle_t *)async, prepare_closed);
}

static void prepare_thread(void *arg)
{
	struct prepare *p = arg;
	const struct process_settings *settings = &p->backend->settings;
	int r = p->make_template ? process_template_make(settings, p->template, &p->err) : 0;
	setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), REFILL_NICE);
	syscall(SYS_ioprio_set, 1 /* IOPRIO_WHO_PROCESS */, 0, REFILL_IO);
	if (!r)
		process_spares_make(settings, p->template, &p->err);
	uv_async_send(&p->finished);
}

static void prepare_run(struct prepare *p)
{
	uv_async_init(p->backend->base.loop, &p->finished, prepare_finished);
	p->finished.data = p;
	if (uv_thread_create(&p->thread, prepare_thread, p))
		abort();
}

/* steals t */
static struct prepare *prepare_new(struct process_backend *b, struct process_template *t)
{
	struct prepare *p = xcalloc(1, sizeof *p);
	p->backend = b;
	p->template = t;
	p->next = b->prepares;
	b->prepares = p;
	active_begin(b);
	return p;
}

static void refill_timer_closed(uv_handle_t *handle)
{
	struct prepare *p = handle->data;
	p->waiting = false;
	if (!p->backend->closing) {
		prepare_run(p);
		return;
	}
	prepare_unlink(p);
	prepare_closed(handle);
}

static void refill_due(uv_timer_t *timer)
{
	if (!uv_is_closing((uv_handle_t *)timer))
		uv_close((uv_handle_t *)timer, refill_timer_closed);
}

/* steals t; NULL: nothing to do. */
static void refill_later(struct process_backend *b, struct process_template *t)
{
	if (!t)
		return;
	struct prepare *p = prepare_new(b, t);
	p->waiting = true;
	uv_timer_init(b->base.loop, &p->timer);
	p->timer.data = p;
	uv_timer_start(&p->timer, refill_due, REFILL_DELAY_MS, 0);
	uv_unref((uv_handle_t *)&p->timer);
}

static void process_prepare(struct backend *base, const struct service_spec *spec, backend_done *done, void *arg)
{
	struct process_backend *b = (struct process_backend *)base;
	struct process_template *t = spec->process ? process_template_new(spec->process) : NULL;
	if (!t || !t->key) {
		process_template_free(t);
		answer_later(b, done, arg);
		return;
	}
	struct prepare *p = prepare_new(b, t);
	p->make_template = true;
	p->done = done;
	p->arg = arg;
	prepare_run(p);
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
	active_end(b);
}

static void process_exec_op(struct backend *base, const struct service_spec *spec, char *const *argv, unsigned timeout_ms,
                            backend_exec_done *done, void *arg)
{
	struct process_backend *b = (struct process_backend *)base;
	struct running_exec *x = xcalloc(1, sizeof *x);
	x->backend = b;
	x->next = b->execs;
	b->execs = x;
	active_begin(b);
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
	struct error *err = answer_later(b, done, arg);
	if (access(b->settings.shim, X_OK))
		error_set_errno(err, ERROR_BACKEND_UNREACHABLE, errno, "%s", b->settings.shim);
}

static void process_start(struct backend *base, const struct service_spec *spec, backend_done *done, void *arg)
{
	struct process_backend *b = (struct process_backend *)base;
	if (!spec->process) {
		struct error *err = answer_later(b, done, arg);
		error_set(err, ERROR_BACKEND_SPAWN_FAILED, "service %s: there is no way known to run it as a process", spec->name);
		error_hint(err, "give it x-aether: {command: ...}, or use another backend");
		return;
	}
	struct op *op = op_new(service_get(b, spec->name), OP_START, done, arg);
	op->start = process_start_new(&b->settings, spec);
	op_queue(op);
}

static void process_stop(struct backend *base, const char *service, int signal, unsigned grace_ms, backend_done *done, void *arg)
{
	struct process_backend *b = (struct process_backend *)base;
	struct op *op = op_new(service_get(b, service), OP_STOP, done, arg);
	op->signal = signal;
	op->grace_ms = grace_ms;
	op_queue(op);
}

static void process_remove(struct backend *base, const char *service, backend_done *done, void *arg)
{
	struct process_backend *b = (struct process_backend *)base;
	op_queue(op_new(service_get(b, service), OP_REMOVE, done, arg));
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
	cleanup_close int watch = self < 0 ? -1 : fcntl(params->keeper_pidfd >= 0 ? params->keeper_pidfd : self, F_DUPFD_CLOEXEC, 0);
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

static void cancel(backend_done **done, void *arg)
{
	backend_done *call = *done;
	*done = NULL;
	if (!call)
		return;
	cleanup_error struct error err = ERROR_INIT;
	error_set_errno(&err, ERROR_CANCELED, ECANCELED, "the backend is being closed");
	call(arg, &err);
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
		cancel(&first->done, first->arg);
	}
	while (waiting) {
		struct op *op = waiting;
		waiting = op->next;
		cancel(&op->done, op->arg);
		op_free(op);
		active_end(s->backend);
	}
	if (first && first->waiting_for_exit)
		op_finish(first); /* the shim carries the stop out without us */
}

static void listing_cancel(struct listing *l)
{
	backend_list_done *done = l->done;
	l->done = NULL;
	if (!done)
		return;
	cleanup_error struct error err = ERROR_INIT;
	error_set_errno(&err, ERROR_CANCELED, ECANCELED, "the backend is being closed");
	done(l->arg, &err, &(struct instances){NULL, 0});
}

static void close_now(void *arg)
{
	struct process_backend *b = arg;
	for (struct listing *l = b->listings; l; l = l->next)
		listing_cancel(l);
	for (struct process_service *s = b->services; s; s = s->next)
		service_cancel(s);
	for (struct running_exec *x = b->execs; x; x = x->next)
		process_exec_cancel(x->exec);
	for (struct prepare *p = b->prepares; p; p = p->next) {
		cancel(&p->done, p->arg);
		if (p->waiting)
			refill_due(&p->timer);
	}
	active_end(b);
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
	.log_path = process_log_path,
};
