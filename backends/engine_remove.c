/* Remove: the container goes, however long the engine takes for it, and with it its volumes without a name. */
#include <string.h>

#include "backends/engine_operation.h"
#include "base/alloc.h"
#include "base/cleanup.h"

static void end_remove(struct engine_op *op)
{
	op->slot->state = INSTANCE_ABSENT;
	engine_slot_set(op->slot, NULL, "");
	engine_log_drop(op->e, op->slot->service);
	engine_op_done(op, NULL);
}

static void drop_volumes(struct engine_op *op);

/* One that another container uses, too, stays; those that Docker took with the container are not there. */
static void on_volume_dropped(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	if (err && !status)
		engine_op_fail(op, err);
	else
		drop_volumes(op);
}

static void drop_volumes(struct engine_op *op)
{
	const char *name = op->volumes ? op->volumes[op->dropped] : NULL;
	if (!name) {
		end_remove(op);
		return;
	}
	op->dropped++;
	cleanup_free char *path = xasprintf("/volumes/%s", name);
	engine_call(op->e, "DELETE", path, NULL, ENGINE_CHANGE_MS, on_volume_dropped, op);
}

static void remove_container(struct engine_op *op);

static void on_gone_timer(uv_timer_t *timer)
{
	struct engine_op *op = timer->data;
	if (!engine_op_is_closing(op))
		remove_container(op);
}

static void on_removed(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	bool first_others = err && err->message && strstr(err->message, "dependent containers"); /* Podman: who is in its network goes first, and is about to */
	if (err && status != 404 && status != 409 && !first_others) {
		engine_op_fail(op, err);
	} else if (status == 404) {
		if (op->tries || !engine_op_look_after_all(op, status))
			drop_volumes(op);
	} else if (op->tries++ < ENGINE_GONE_TRIES) { /* asked again until nobody knows it: 409 says that somebody is removing it already */
		uv_timer_start(&op->timer, on_gone_timer, op->tries > 1 ? ENGINE_GONE_DELAY_MS : 0, 0);
	} else {
		cleanup_error struct error survived = ERROR_INIT;
		error_set(&survived, ERROR_BACKEND_DEPROVISION_FAILED, "the container %s cannot be removed%s%s", op->container, err ? ": " : "", err ? err->message : "");
		engine_op_fail(op, &survived);
	}
}

static void remove_container(struct engine_op *op)
{
	engine_op_call(op, "DELETE", ENGINE_REMOVE_ALL, NULL, on_removed);
}

static void on_inspected(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	if (engine_op_has_failed(op, err, status))
		return;
	if (status == 404 || !engine_op_owns(op, json)) {
		end_remove(op);
		return;
	}
	op->id = xstrdup(json_string_value(json_object_get(json, "Id")));
	op->volumes = engine_anonymous_volumes(json);
	remove_container(op);
}

/* Podman keeps volumes without a name: they are looked for. */
static void begin(struct engine_op *op)
{
	const struct engine_slot *slot = op->slot;
	if (op->looks || op->e->podman || !slot->id || engine_slot_is_empty(slot)) {
		engine_op_look(op, on_inspected);
		return;
	}
	op->id = xstrdup(slot->id);
	remove_container(op);
}

void engine_remove(struct backend *b, const char *service, backend_done *done, void *arg)
{
	engine_op_enqueue(engine_op_new(b, service, begin, done, arg));
}
