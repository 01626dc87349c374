/* A container is made, when all that it names is there: volumes and networks of others, its image, its own volumes. */
#include <stdlib.h>
#include <string.h>

#include "backends/engine_operation.h"
#include "base/alloc.h"
#include "base/cleanup.h"

static bool misses_network(const struct error *err)
{
	static const char *const said[] = {"not found", "unable to find", "does not belong to any of this network", "networks with user configured subnets", NULL};
	return err->message && strcasestr(err->message, "network") && engine_says(err->message, said);
}

/* Somebody has pruned it. */
static bool has_lost_network(struct engine_op *op, const struct error *err)
{
	if (op->again || !misses_network(err) || op->e->closing)
		return false;
	op->again = true;
	op->e->network.open = false;
	return true;
}

/* A call that a killed or closed predecessor of ours has left on its way has made it meanwhile, or removes it just now. */
static bool looked_again(struct engine_op *op, const struct error *err, int status)
{
	bool taken = err->message && (strcasestr(err->message, "already in use") || strcasestr(err->message, "already in progress"));
	return (status == 409 || taken) && engine_op_try_again(op, ENGINE_GONE_TRIES);
}

static void on_created(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	const char *id = json_string_value(json_object_get(json, "Id"));
	if (err && has_lost_network(op, err)) {
		engine_op_create(op);
		return;
	}
	if (err && (engine_op_look_after_all(op, status) || looked_again(op, err, status)))
		return;
	if (err || !id) {
		cleanup_error struct error none = ERROR_INIT;
		error_set(&none, ERROR_BACKEND_SPAWN_FAILED, "the engine made a container and does not say which");
		engine_op_fail(op, err ? err : &none);
		return;
	}
	free(op->id);
	op->id = xstrdup(id);
	engine_op_launch(op);
}

static void create(void *arg, const struct error *err)
{
	struct engine_op *op = arg;
	if (err) {
		engine_op_fail(op, err);
		return;
	}
	if (engine_op_is_closing(op))
		return;
	engine_network_address(op->e, op->plan);
	engine_options_settle(op->e, op->plan->create);
	cleanup_free char *platform = op->plan->platform && op->e->api >= 41 ? engine_escape(op->plan->platform) : NULL;
	cleanup_free char *path = xasprintf("/containers/create?name=%s%s%s", op->container, platform ? "&platform=" : "", platform ? platform : "");
	engine_call(op->e, "POST", path, json_incref(op->plan->create), ENGINE_CHANGE_MS, on_created, op);
}

/* Podman looks for the network when it makes a container; so do others that have just said so. An address is one of its subnet. */
static void on_volumes(void *arg, const struct error *err)
{
	struct engine_op *op = arg;
	if (err || !(op->e->podman || op->again || op->plan->ipv4_address))
		create(op, err);
	else if (!engine_op_is_closing(op))
		engine_network_ensure(op->e, create, op);
}

static void on_image(void *arg, const struct error *err)
{
	struct engine_op *op = arg;
	if (err)
		engine_op_fail(op, err);
	else if (op->ahead && op->plan->joins)
		engine_op_done(op, NULL);
	else if (!engine_op_is_closing(op))
		engine_volumes_ensure(op->e, op->plan, on_volumes, op);
}

static void on_built_seen(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	cleanup_error struct error unknown = ERROR_INIT;
	if (!json_string_value(json_object_get(json, "Id")))
		error_set(&unknown, ERROR_BACKEND_UNREACHABLE, "the engine does not say what the image %s is", op->plan->image);
	else
		engine_plan_add_image_volumes(op->plan, json);
	on_image(op, err ? err : error_is_set(&unknown) ? &unknown : NULL);
}

static void on_external(void *arg, const struct error *err)
{
	struct engine_op *op = arg;
	cleanup_free char *name = engine_escape(op->plan->image), *path = xasprintf("/images/%s/json", name);
	if (err) {
		engine_op_fail(op, err);
		return;
	}
	if (engine_op_is_closing(op))
		return;
	if (op->plan->build) /* before anything else it was built */
		engine_call(op->e, "GET", path, NULL, ENGINE_CALL_MS, on_built_seen, op);
	else
		engine_image_ensure(op->e, op->plan, op->plan, on_image, op);
}

static void ignore(void *arg, const struct error *err)
{
}

void engine_op_create(struct engine_op *op)
{
	if (engine_op_is_closing(op))
		return;
	engine_network_ensure(op->e, ignore, NULL); /* meanwhile: a tenth of a second; who needs it hears how it went */
	engine_external_ensure(op->e, op->plan, on_external, op);
}

static void on_old_removed(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	free(move_ptr(op->id));
	if (err && status != 404) {
		engine_op_fail(op, err);
		return;
	}
	op->slot->state = INSTANCE_ABSENT; /* by us: nobody is to be told */
	engine_op_create(op);
}

void engine_op_recreate(struct engine_op *op)
{
	engine_op_call(op, "DELETE", ENGINE_REMOVE, NULL, on_old_removed);
}

bool engine_op_recreate_for_network(struct engine_op *op, const struct error *err)
{
	if (!has_lost_network(op, err))
		return false;
	engine_op_recreate(op);
	return true;
}
