#include "backends/engine_operation.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"

/* ---- its life ---- */

struct engine_op *engine_op_new(struct backend *b, const char *service, void (*begin)(struct engine_op *op), backend_done *done, void *arg)
{
	struct engine *e = (struct engine *)b;
	struct engine_op *op = xcalloc(1, sizeof *op);
	*op = (struct engine_op){.e = e, .slot = engine_slot(e, service), .begin = begin, .failed = ERROR_INIT, .done = done, .arg = arg};
	op->container = engine_container_name(e, service);
	uv_timer_init(e->base.loop, &op->timer);
	op->timer.data = op;
	engine_begin(e);
	return op;
}

static void op_free(uv_handle_t *handle)
{
	struct engine_op *op = handle->data;
	struct engine *e = op->e;
	engine_plan_free(op->plan);
	error_release(&op->failed);
	instance_release(&op->now);
	free(op->container);
	free(op->id);
	strv_free(op->volumes);
	free(op);
	engine_end(e);
}

void engine_op_done(struct engine_op *op, const struct error *err)
{
	struct engine_slot *slot = op->slot;
	slot->ops = op->next;
	slot->op_ended = ++op->e->ops_ended;
	slot->rises = slot->rises && op->ahead;
	op->done(op->arg, err);
	if (slot->ops)
		engine_op_begin(slot->ops);
	else
		engine_clear_next(op->e);
	engine_look_after_op(op->e, slot);
	uv_close((uv_handle_t *)&op->timer, op_free);
}

bool engine_op_is_closing(struct engine_op *op)
{
	cleanup_error struct error closing = ERROR_INIT;
	if (!op->e->closing && (!op->ahead || !op->e->clearings))
		return false;
	error_set(&closing, ERROR_CANCELED, op->e->closing ? "the backend is being closed" : "what it is made for is torn down");
	engine_op_done(op, &closing);
	return true;
}

void engine_op_fail(struct engine_op *op, const struct error *err)
{
	cleanup_error struct error why = ERROR_INIT;
	error_copy(&why, err);
	if (why.code != ERROR_CANCELED)
		error_prefix(&why, "service %s", op->slot->service);
	engine_op_done(op, &why);
}

bool engine_op_has_failed(struct engine_op *op, const struct error *err, int status)
{
	if (!err || status == 404)
		return false;
	engine_op_fail(op, err);
	return true;
}

/* ---- the queue ---- */

void engine_op_begin(struct engine_op *op)
{
	if (!engine_op_is_closing(op))
		op->begin(op);
}

static void first_step(void *arg)
{
	engine_op_begin(arg);
}

void engine_op_enqueue(struct engine_op *op)
{
	struct engine_op **end = &op->slot->ops;
	bool first = !*end;
	while (*end)
		end = &(*end)->next;
	*end = op;
	if (first)
		backend_defer(op->e->base.loop, first_step, op);
}

static void on_timer(uv_timer_t *timer)
{
	engine_op_begin(timer->data);
}

void engine_op_begin_soon(struct engine_op *op)
{
	uv_timer_start(&op->timer, on_timer, ENGINE_GONE_DELAY_MS, 0);
}

bool engine_op_try_again(struct engine_op *op, unsigned most)
{
	if (op->tries++ >= most || op->e->closing)
		return false;
	free(move_ptr(op->id));
	engine_op_begin_soon(op);
	return true;
}

bool engine_op_look_after_all(struct engine_op *op, int status)
{
	if (op->looks || (status != 404 && status != 409) || op->e->closing)
		return false;
	op->looks = true;
	free(move_ptr(op->id));
	engine_op_begin(op);
	return true;
}

/* ---- its container ---- */

void engine_op_call(struct engine_op *op, const char *method, const char *rest, json_t *body, engine_answer *done)
{
	cleanup_free char *path = xasprintf("/containers/%s%s", op->id ? op->id : op->container, rest);
	bool asks = !strcmp(method, "GET");
	op->slot->missed = false; /* the answer tells of it */
	engine_call(op->e, method, path, body, asks ? ENGINE_CALL_MS : ENGINE_CHANGE_MS + op->grace_ms, done, op);
}

bool engine_op_owns(const struct engine_op *op, const json_t *container)
{
	return engine_is_of(json_object_get(json_object_get(container, "Config"), "Labels"), op->e->namespace_);
}

void engine_op_look(struct engine_op *op, engine_answer *seen)
{
	engine_op_call(op, "GET", "/json", NULL, seen);
}
