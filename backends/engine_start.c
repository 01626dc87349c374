/* Start, and prepare: what is there is kept, or gives way to what the plan says, or is made; then it is launched. What this process
 * knows it does not look at. */
#include <stdlib.h>
#include <string.h>

#include "backends/engine_operation.h"
#include "base/alloc.h"
#include "base/cleanup.h"

/* ---- what is there ---- */

static void refuse_foreign(struct engine_op *op)
{
	cleanup_error struct error err = ERROR_INIT;
	error_set(&err, ERROR_SERVICE_FAILED, "service %s: there is a container %s that is not of this environment", op->slot->service, op->container);
	error_hint(&err, "it is left alone; docker rm -f %s takes it away", op->container);
	engine_op_done(op, &err);
}

static void on_inspected(void *arg, const struct error *err, int status, const json_t *json);

/* Another configuration: its data stays in its volumes. */
static void on_old_stopped(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	op->stopped = true;
	if (err && !status)
		engine_op_fail(op, err);
	else if (engine_data_is_begun(op->slot, op->plan)) /* how it ended says what its data is worth */
		engine_op_look(op, on_inspected);
	else
		engine_op_recreate(op);
}

static void replace(struct engine_op *op, bool running)
{
	if (running && !op->stopped)
		engine_op_stop(op, on_old_stopped);
	else
		engine_op_recreate(op);
}

/* Said by the first look alone: what is missing from then on, this start has removed itself. */
static bool is_ruined(struct engine_op *op)
{
	cleanup_error struct error err = ERROR_INIT;
	if (op->ahead || op->tries || op->looks || !engine_data_is_ruined(op->slot, op->plan))
		return false;
	error_set(&err, ERROR_DATA_UNFINISHED, "its first start was interrupted, and its data is half made");
	engine_op_fail(op, &err);
	return true;
}

static void on_inspected(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	struct instance last;
	if (engine_op_has_failed(op, err, status))
		return;
	if (status == 404) {
		if (!is_ruined(op))
			engine_op_create(op);
		return;
	}
	if (!engine_op_owns(op, json)) {
		refuse_foreign(op);
		return;
	}
	const char *hash = engine_label(json_object_get(json_object_get(json, "Config"), "Labels"), ENGINE_LABEL_CONFIG_HASH);
	free(op->id);
	op->id = xstrdup(json_string_value(json_object_get(json, "Id")));
	engine_hooks_take(op->e, op->slot->service, json);
	if (engine_instance_of(op->e, json, &last)) {
		engine_data_ended(op->slot, &last);
		instance_release(&last);
	}
	if (op->ahead && engine_is_running(json)) {
		engine_op_done(op, NULL); /* of whatever configuration: nobody has said that it is to go */
		return;
	}
	if (!engine_is_running(json) && is_ruined(op))
		return;
	bool stale = op->plan->joins && !engine_is_running(json); /* it names a container that may be another one by now */
	bool other_image = op->plan->image_id && !engine_image_is(op->plan->image_id, json_string_value(json_object_get(json, "Image")));
	if (!hash || strcmp(hash, op->plan->config_hash) || stale || other_image || engine_made_differs(op->plan, json)) {
		replace(op, engine_is_running(json));
	} else if (engine_is_running(json)) {
		engine_op_launched(op, json);
	} else {
		engine_op_launch_seen(op, json);
	}
}

/* ---- the first step ---- */

/* What this process has seen or made itself needs no look: an id is never another's, and with one that is gone by now, or a name that is taken,
 * the engine says so. */
static bool is_known(const struct engine_op *op)
{
	return !op->looks && !op->tries && !op->plan->build;
}

static bool is_as_planned(const struct engine_op *op)
{
	const struct engine_slot *slot = op->slot;
	return slot->id && slot->config_hash && !slot->others && !strcmp(slot->config_hash, op->plan->config_hash);
}

static bool is_known_absent(const struct engine_op *op)
{
	return engine_slot_is_empty(op->slot) && op->slot->state == INSTANCE_ABSENT && op->e->listed;
}

/* What publishes nothing may have ended before it is seen to be out of its network. */
static bool publishes(const struct engine_op *op)
{
	return json_object_size(json_object_get(json_object_get(op->plan->create, "HostConfig"), "PortBindings"));
}

static bool is_given_up(struct engine_op *op)
{
	cleanup_error struct error err = ERROR_INIT;
	if (!op->given_up || op->plan->image_id)
		return false;
	error_set(&err, ERROR_CANCELED, "the build was given up");
	engine_op_done(op, &err);
	return true;
}

static void on_built(void *arg, const struct error *err, const char *id)
{
	struct engine_op *op = arg;
	if (err) {
		engine_op_fail(op, err);
		return;
	}
	op->plan->image_id = xstrdup(id);
	engine_op_begin(op);
}

static void begin_start(struct engine_op *op)
{
	bool runs = op->slot->state == INSTANCE_RUNNING, shares = op->plan->joins || op->plan->networks; /* with what may be others by now */
	if (is_given_up(op))
		return;
	if (engine_is_succeeded(op->slot)) {
		engine_op_begin_soon(op);
	} else if (op->plan->build && !op->plan->image_id) {
		engine_build_ensure(op->e, op->slot->service, op->plan->image, op->plan->data, op->plan->build, BUILD_MISSING, on_built, op, op);
	} else if (!is_known(op) || engine_data_is_begun(op->slot, op->plan)) { /* of what has begun, how it ended counts, too */
		engine_op_look(op, on_inspected);
	} else if (is_as_planned(op) && !runs && !shares && publishes(op)) {
		op->id = xstrdup(op->slot->id);
		engine_op_launch(op);
	} else if (is_known_absent(op)) {
		engine_op_create(op);
	} else {
		engine_op_look(op, on_inspected);
	}
}

/* A build is no work for later: it is asked for. What runs is there, of whatever configuration. */
static void begin_ahead(struct engine_op *op)
{
	bool is_there = op->slot->state == INSTANCE_RUNNING || is_as_planned(op);
	if (op->plan->build || (is_known(op) && is_there))
		engine_op_done(op, NULL);
	else if (is_known(op) && is_known_absent(op))
		engine_op_create(op);
	else
		engine_op_look(op, on_inspected);
}

void engine_start(struct backend *b, const struct service_spec *spec, backend_done *done, void *arg)
{
	struct engine_op *op = engine_op_new(b, spec->name, begin_start, done, arg);
	engine_network_take(op->e, spec);
	op->plan = engine_plan_new(op->e, spec);
	op->grace_ms = spec->stop_grace_ms;
	engine_op_enqueue(op);
}

void engine_prepare(struct backend *b, const struct service_spec *spec, backend_done *done, void *arg)
{
	struct engine_op *op = engine_op_new(b, spec->name, begin_ahead, done, arg);
	engine_network_take(op->e, spec);
	op->plan = engine_plan_new(op->e, spec);
	op->ahead = true;
	engine_op_enqueue(op);
}

void engine_build_cancel(struct backend *b, const char *service, void *arg)
{
	struct engine *e = (struct engine *)b;
	struct engine_op *op = engine_slot(e, service)->ops;
	bool starts = op && op->plan && op->plan->build && !op->ahead;
	if (!arg)
		engine_hooks_give_up(e, service);
	if (!arg && starts)
		op->given_up = true;
	if (arg || starts)
		engine_build_give_up(e, service, arg ? arg : op);
}
