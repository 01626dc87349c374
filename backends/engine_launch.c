/* A container that is there is started: it joins its networks, waits for its turn, has its hooks run, and is looked at until it is seen to run, or to have run. */
#include <stdlib.h>

#include "backends/engine_operation.h"
#include "base/cleanup.h"

#define POST_START_MS 600000
#define STARTS_AT_ONCE 4 /* with two processors or one, and two for each more: with all at once an engine takes longer for all */
#define REMOVED_TRIES 10
#define PASSING_TRIES 20

/* ---- the end ---- */

static void start_ended(void *arg)
{
	struct engine_op *op = arg;
	struct engine *e = op->e;
	struct instance now = op->now;
	op->now = (struct instance){.service = NULL};
	engine_watch(e);
	if (op->plan->build)
		engine_images_drop_stale(e);
	engine_op_done(op, NULL);
	if (now.service && now.state == INSTANCE_EXITED)
		engine_seen(e, &now, false);
	else if (now.service && !e->closing)
		e->changed(e->changed_arg, &now);
	instance_release(&now);
}

/* What it did since is told as a change; what has ended already, with its last words. */
void engine_op_launched(struct engine_op *op, const json_t *container)
{
	struct engine *e = op->e;
	struct instance running;
	if (engine_instance_of(e, container, &op->now)) {
		engine_check_take(e, op->now.service, container);
		engine_hooks_take(e, op->now.service, container);
		engine_made_take(e, op->now.service, container);
		running = op->now;
		running.state = INSTANCE_RUNNING;
		free(move_ptr(op->slot->told_to_end));
		engine_seen(e, &running, true);
		engine_log_follow(e, op->slot->service, op->now.handle);
		if (op->now.state == INSTANCE_EXITED && engine_log_hear(e, op->now.handle, start_ended, op))
			return;
	}
	start_ended(op);
}

static void on_rolled_back(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	cleanup_error struct error why = ERROR_INIT;
	error_move(&why, &op->failed);
	op->slot->state = INSTANCE_ABSENT;
	engine_op_fail(op, &why);
}

/* What cannot be started is not left standing: Podman keeps the port of one, and the next try begins afresh. */
static void roll_back(struct engine_op *op, const struct error *err)
{
	error_copy(&op->failed, err);
	engine_slot_set(op->slot, NULL, "");
	engine_op_call(op, "DELETE", ENGINE_REMOVE, NULL, on_rolled_back);
}

/* ---- the start ---- */

static bool was_plugged_in(struct engine_op *op, const json_t *container, engine_answer *then);
static void on_plugged(void *arg, const struct error *err, int status, const json_t *json);

static void on_started_seen(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	struct instance now;
	cleanup_error struct error unknown = ERROR_INIT;
	if (!err && engine_instance_of(op->e, json, &now)) {
		instance_release(&now);
		if (!was_plugged_in(op, json, on_plugged))
			engine_op_launched(op, json);
		return;
	}
	if (status == 404 && engine_op_try_again(op, REMOVED_TRIES)) /* docker compose has made another in its place, or is about to */
		return;
	error_set(&unknown, ERROR_BACKEND_SPAWN_FAILED, err ? "the container was removed as soon as it was started" : "the engine does not say what became of the container");
	engine_op_fail(op, err && status != 404 ? err : &unknown);
}

/* What is not as it was meant to be after its start is not left standing either: the next start tries all of it again. */
static void on_post_start(void *arg, const struct error *err)
{
	struct engine_op *op = arg;
	if (!err)
		engine_op_look(op, on_started_seen);
	else if (op->e->closing)
		engine_op_fail(op, err);
	else
		roll_back(op, err);
}

static void run_post_start(struct engine_op *op)
{
	if (op->id)
		engine_log_follow(op->e, op->slot->service, op->id);
	engine_hooks_run(op->e, op->slot->service, op->id ? op->id : op->container, "post_start", op->plan->post_start, POST_START_MS, on_post_start, op);
}

static void on_started(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	engine_turn_give(&op->e->starts);
	if (!err && op->plan->post_start && status != 304) { /* it ran already */
		run_post_start(op);
	} else if (!err) {
		engine_op_look(op, on_started_seen);
	} else if (engine_op_recreate_for_network(op, err) || engine_op_look_after_all(op, status) || (engine_is_passing(err) && engine_op_try_again(op, PASSING_TRIES))) {
		return;
	} else if (status && !op->e->closing) {
		engine_data_untouched(op->plan);
		roll_back(op, err);
	} else {
		engine_op_fail(op, err);
	}
}

static void on_turn(void *arg, const struct error *err)
{
	struct engine_op *op = arg;
	struct engine_turns *turns = &op->e->starts;
	if (engine_op_is_closing(op))
		engine_turn_give(turns);
	else
		engine_op_call(op, "POST", "/start", NULL, on_started);
}

/* Those of this machine: an engine elsewhere is rarely a smaller one. */
static unsigned starts_at_once(void)
{
	unsigned processors = uv_available_parallelism();
	return processors > STARTS_AT_ONCE / 2 ? 2 * processors : STARTS_AT_ONCE;
}

static void on_joined(void *arg, const struct error *err)
{
	struct engine_op *op = arg;
	if (err)
		engine_op_fail(op, err);
	else
		engine_turn_take(&op->e->starts, starts_at_once(), on_turn, op);
}

/* It may have ended for want of it meanwhile: a start of what runs is none. */
static void on_plugged(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	if (!err || !engine_op_recreate_for_network(op, err))
		on_joined(op, err);
}

/* Once: it was taken out while it did not run, of which nothing is told. Made anew its first start would be interrupted. */
static bool was_plugged_in(struct engine_op *op, const json_t *container, engine_answer *then)
{
	if (op->plugged || op->e->closing || !engine_is_unplugged(op->e, container))
		return false;
	op->plugged = true;
	engine_network_plug(op->e, op->plan, op->id, then, op);
	return true;
}

static void on_network(void *arg, const struct error *err)
{
	struct engine_op *op = arg;
	if (err)
		engine_op_fail(op, err);
	else if (op->ahead)
		engine_op_done(op, NULL);
	else if (!engine_op_is_closing(op)) {
		engine_data_begun(op->slot, op->plan);
		engine_external_join(op->e, op->plan, op->id ? op->id : op->container, on_joined, op);
	}
}

/* It is made while its network is: only a start needs that. */
void engine_op_launch(struct engine_op *op)
{
	engine_slot_set(op->slot, op->id, op->plan->config_hash);
	if (!engine_op_is_closing(op))
		engine_network_ensure(op->e, on_network, op);
}

static void on_plugged_first(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	if (!err)
		engine_op_launch(op);
	else if (!engine_op_recreate_for_network(op, err))
		engine_op_fail(op, err);
}

void engine_op_launch_seen(struct engine_op *op, const json_t *container)
{
	if (op->ahead || !was_plugged_in(op, container, on_plugged_first))
		engine_op_launch(op);
}
