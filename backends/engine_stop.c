/* Stop: the container ends within its grace time, and stays. */
#include <stdlib.h>

#include "backends/engine_operation.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"

#define PRE_STOP_MS 60000 /* then it is stopped all the same */

/* It is stopped all the same. */
static void on_pre_stop(void *arg, const struct error *err)
{
	struct engine_op *op = arg;
	cleanup_free char *rest = xasprintf("/stop?t=%u", (op->grace_ms + 999) / 1000);
	if (err && !op->e->closing) {
		cleanup_free char *text = xasprintf("ajj: %s\n", err->message);
		log_warning("engine", "%s: %s", op->slot->service, err->message);
		engine_log_add(op->e, op->slot->service, text);
	}
	engine_op_call(op, "POST", rest, NULL, op->on_stopped);
}

void engine_op_stop(struct engine_op *op, engine_answer *stopped)
{
	op->on_stopped = stopped;
	if (op->slot->pre_stop)
		engine_hooks_run(op->e, op->slot->service, op->id ? op->id : op->container, "pre_stop", op->slot->pre_stop, PRE_STOP_MS, on_pre_stop, op);
	else
		on_pre_stop(op, NULL);
}

static void on_stopped_seen(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	struct instance now;
	if (engine_op_has_failed(op, err, status))
		return;
	if (status == 200 && engine_is_running(json)) {
		cleanup_error struct error survived = ERROR_INIT;
		error_set(&survived, ERROR_BACKEND_DEPROVISION_FAILED, "the engine says that the container is stopped, and it runs");
		engine_op_fail(op, &survived);
		return;
	}
	if (status == 200 && engine_instance_of(op->e, json, &now)) {
		free(op->slot->told_to_end);
		op->slot->told_to_end = xstrdup(now.handle);
		op->slot->told_vaguely = false;
		engine_seen(op->e, &now, true);
		instance_release(&now);
	}
	engine_op_done(op, NULL);
}

static void on_stopped(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	if (err && status != 404)
		engine_op_fail(op, err);
	else if (!err || !engine_op_look_after_all(op, status))
		engine_op_look(op, on_stopped_seen);
}

static void on_inspected(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	if (engine_op_has_failed(op, err, status))
		return;
	if (status == 404 || !engine_op_owns(op, json) || !engine_is_running(json)) {
		engine_op_done(op, NULL);
		return;
	}
	op->id = xstrdup(json_string_value(json_object_get(json, "Id")));
	engine_hooks_take(op->e, op->slot->service, json);
	engine_op_stop(op, on_stopped);
}

/* The id is never another's: with one that is gone by now the engine says so. */
static void begin(struct engine_op *op)
{
	const struct engine_slot *slot = op->slot;
	if (op->looks || !slot->id || slot->state != INSTANCE_RUNNING) {
		engine_op_look(op, on_inspected);
		return;
	}
	op->id = xstrdup(slot->id);
	engine_op_stop(op, on_stopped);
}

/* The signal is the container's own, set when it was made: before version 1.42 a stop takes none. */
void engine_stop(struct backend *b, const char *service, int signal, unsigned grace_ms, backend_done *done, void *arg)
{
	struct engine_op *op = engine_op_new(b, service, begin, done, arg);
	op->grace_ms = grace_ms;
	engine_op_enqueue(op);
}
