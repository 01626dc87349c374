/* Work ahead of need: templates and spare copies. */
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backends/process_loop.h"
#include "base/alloc.h"
#include "base/log.h"

#define AREA "process"
#define REFILL_DELAY_MS 1000 /* spare copies are made again when the services that took them have started */
#define REFILL_NICE 19
#define REFILL_IO (3 << 13) /* IOPRIO_CLASS_IDLE (ioprio_set(2)) */

/* Its own thread, at low priority: copying takes as long as a start, and must not take its processor. An ordinary
 * thread cannot raise its priority again, so libuv's will not do. */
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
	process_active_end(b);
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
	process_active_begin(b);
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

void process_refill_later(struct process_backend *b, struct process_template *t)
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

void process_prepare(struct backend *base, const struct service_spec *spec, backend_done *done, void *arg)
{
	struct process_backend *b = (struct process_backend *)base;
	struct process_template *t = spec->process ? process_template_new(spec->process) : NULL;
	if (!t || !t->key) {
		process_template_free(t);
		process_answer_later(b, done, arg);
		return;
	}
	struct prepare *p = prepare_new(b, t);
	p->make_template = true;
	p->done = done;
	p->arg = arg;
	prepare_run(p);
}

void process_prepare_cancel(struct process_backend *b)
{
	for (struct prepare *p = b->prepares; p; p = p->next) {
		process_cancel(&p->done, p->arg);
		if (p->waiting)
			refill_due(&p->timer);
	}
}
