/* Starting, stopping and removing: a queue for each service, so that what is asked for happens in that order, and at its head a walk
 * through the engine's calls. Each step looks at what is there before it makes anything: it may be repeated after a crash at any line. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "backends/engine.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"

#define POST_START_MS 600000
#define PRE_STOP_MS 60000 /* then it is stopped all the same */
#define STARTS_AT_ONCE 4 /* with two processors or one, and two for each more: with all at once an engine takes longer for all */
#define GONE_TRIES 50
#define REMOVED_TRIES 10
#define GONE_DELAY_MS 100

enum kind { KIND_START, KIND_PREPARE, KIND_STOP, KIND_REMOVE };

struct engine_op {
	struct engine *e;
	struct engine_slot *slot;
	struct engine_op *next;
	enum kind kind;
	struct engine_plan *plan; /* START, PREPARE */
	char *container, *id;
	char **volumes; /* REMOVE: without a name, of the container */
	unsigned grace_ms;
	unsigned tries, dropped;
	struct instance now; /* START: as it was seen at the end */
	bool given_up; /* START: nobody wants what it builds */
	bool again; /* START: its network had gone, and it was made once more */
	bool stopped; /* START: what ran with another configuration */
	bool plugged; /* START: into its network again */
	bool looks; /* what is there is looked at first: what was known of it was wrong */
	uv_timer_t timer;
	struct error failed;
	backend_done *done;
	void *arg;
};

/* ---- slots ---- */

struct engine_slot *engine_slot(struct engine *e, const char *service)
{
	struct engine_slot *s = e->slots;
	while (s && strcmp(s->service, service))
		s = s->next;
	if (s)
		return s;
	s = xcalloc(1, sizeof *s);
	s->service = xstrdup(service);
	s->next = e->slots;
	return e->slots = s;
}

void engine_slots_free(struct engine *e)
{
	struct engine_slot *next, *s = move_ptr(e->slots);
	for (; s; s = next) {
		next = s->next;
		free(s->service);
		free(s->id);
		free(s->told_to_end);
		free(s->successor);
		free(s->log_id);
		strv_free(s->check.argv);
		strv_free(s->pre_stop);
		json_decref(s->others);
		free(s->config_hash);
		free(s);
	}
}

void engine_slot_set(struct engine_slot *slot, const char *id, const char *config_hash)
{
	char *copies[] = {xstrdup(id), xstrdup(config_hash ? config_hash : "")}; /* they may be its own */
	if (id) {
		free(slot->id);
		slot->id = move_ptr(copies[0]);
	}
	free(slot->config_hash);
	slot->config_hash = copies[1];
}

/* ---- the queue ---- */

static void op_begin(struct engine_op *op);

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

static void op_done(struct engine_op *op, const struct error *err)
{
	struct engine_slot *slot = op->slot;
	slot->ops = op->next;
	slot->op_ended = ++op->e->ops_ended;
	slot->rises = slot->rises && op->kind == KIND_PREPARE;
	op->done(op->arg, err);
	if (slot->ops)
		op_begin(slot->ops);
	else
		engine_clear_next(op->e);
	engine_look_unheard(op->e, slot);
	uv_close((uv_handle_t *)&op->timer, op_free);
}

static bool is_closing(struct engine_op *op)
{
	cleanup_error struct error closing = ERROR_INIT;
	if (!op->e->closing && (op->kind != KIND_PREPARE || !op->e->clearings))
		return false;
	error_set(&closing, ERROR_CANCELED, op->e->closing ? "the backend is being closed" : "what it is made for is torn down");
	op_done(op, &closing);
	return true;
}

static void fail(struct engine_op *op, const struct error *err)
{
	cleanup_error struct error why = ERROR_INIT;
	error_copy(&why, err);
	if (why.code != ERROR_CANCELED)
		error_prefix(&why, "service %s", op->slot->service);
	op_done(op, &why);
}

/* What is not there any more is no failure of whoever wants to know, or have it gone. */
static bool failed_otherwise(struct engine_op *op, const struct error *err, int status)
{
	if (!err || status == 404)
		return false;
	fail(op, err);
	return true;
}

static void first_step(void *arg)
{
	op_begin(arg);
}

static void enqueue(struct engine_op *op)
{
	struct engine_op **end = &op->slot->ops;
	bool first = !*end;
	while (*end)
		end = &(*end)->next;
	*end = op;
	if (first)
		backend_defer(op->e->base.loop, first_step, op);
}

static struct engine_op *op_new(struct backend *b, enum kind kind, const char *service, backend_done *done, void *arg)
{
	struct engine *e = (struct engine *)b;
	struct engine_op *op = xcalloc(1, sizeof *op);
	*op = (struct engine_op){.e = e, .slot = engine_slot(e, service), .kind = kind, .failed = ERROR_INIT, .done = done, .arg = arg};
	op->container = engine_container_name(e, service);
	uv_timer_init(e->base.loop, &op->timer);
	op->timer.data = op;
	engine_begin(e);
	return op;
}

static void call(struct engine_op *op, const char *method, const char *rest, json_t *body, engine_answer *done)
{
	cleanup_free char *path = xasprintf("/containers/%s%s", op->id ? op->id : op->container, rest);
	bool asks = !strcmp(method, "GET");
	engine_call(op->e, method, path, body, asks ? ENGINE_CALL_MS : ENGINE_CHANGE_MS + op->grace_ms, done, op);
}

/* ---- what is there ---- */

static bool is_ours(const struct engine *e, const json_t *container)
{
	return engine_is_of(json_object_get(json_object_get(container, "Config"), "Labels"), e->namespace_);
}

static bool is_running(const json_t *container)
{
	return json_is_true(json_object_get(json_object_get(container, "State"), "Running"));
}

static void refuse_foreign(struct engine_op *op)
{
	cleanup_error struct error err = ERROR_INIT;
	error_set(&err, ERROR_SERVICE_FAILED, "service %s: there is a container %s that is not of this environment", op->slot->service, op->container);
	error_hint(&err, "it is left alone; docker rm -f %s takes it away", op->container);
	op_done(op, &err);
}

/* ---- start ---- */

static void make(struct engine_op *op);

static void start_ended(void *arg)
{
	struct engine_op *op = arg;
	struct engine *e = op->e;
	struct instance now = op->now;
	op->now = (struct instance){.service = NULL};
	engine_watch(e);
	if (op->plan->build)
		engine_images_drop_stale(e);
	op_done(op, NULL);
	if (now.service)
		engine_seen(e, &now, false);
	instance_release(&now);
}

/* What it did since is told as a change; what has ended already, with its last words. */
static void end_start(struct engine_op *op, const json_t *container)
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

static void on_look_again(uv_timer_t *timer)
{
	op_begin(timer->data);
}

static bool begun_again(struct engine_op *op, unsigned most)
{
	if (op->tries++ >= most || op->e->closing)
		return false;
	free(move_ptr(op->id));
	uv_timer_start(&op->timer, on_look_again, GONE_DELAY_MS, 0);
	return true;
}

static bool was_plugged_in(struct engine_op *op, const json_t *container);

static void on_started_seen(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	struct instance now;
	cleanup_error struct error unknown = ERROR_INIT;
	if (!err && engine_instance_of(op->e, json, &now)) {
		instance_release(&now);
		if (!was_plugged_in(op, json))
			end_start(op, json);
		return;
	}
	if (status == 404 && begun_again(op, REMOVED_TRIES)) /* docker compose has made another in its place, or is about to */
		return;
	error_set(&unknown, ERROR_BACKEND_SPAWN_FAILED, err ? "the container was removed as soon as it was started" : "the engine does not say what became of the container");
	fail(op, err && status != 404 ? err : &unknown);
}

static bool misses_network(const struct error *err)
{
	return err->message && strcasestr(err->message, "network") && (strcasestr(err->message, "not found") || strcasestr(err->message, "unable to find"));
}

static void on_old_removed(void *arg, const struct error *err, int status, const json_t *json);

/* Somebody has pruned it. */
static bool made_again(struct engine_op *op, const struct error *err, bool container)
{
	if (op->again || !misses_network(err) || op->e->closing)
		return false;
	op->again = true;
	op->e->network.open = false;
	if (container)
		call(op, "DELETE", ENGINE_REMOVE, NULL, on_old_removed);
	else
		make(op);
	return true;
}

static void on_rolled_back(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	cleanup_error struct error why = ERROR_INIT;
	error_move(&why, &op->failed);
	op->slot->state = INSTANCE_ABSENT;
	fail(op, &why);
}

/* What cannot be started is not left standing: Podman keeps the port of one, and the next try begins afresh. */
static void roll_back(struct engine_op *op, const struct error *err)
{
	error_copy(&op->failed, err);
	engine_slot_set(op->slot, NULL, "");
	engine_data_untouched(op->plan);
	call(op, "DELETE", ENGINE_REMOVE, NULL, on_rolled_back);
}

/* Somebody has taken away what was known to be there, or made what was known not to be. */
static bool looked_after_all(struct engine_op *op, int status)
{
	if (op->looks || (status != 404 && status != 409) || op->e->closing)
		return false;
	op->looks = true;
	free(move_ptr(op->id));
	op_begin(op);
	return true;
}

/* What is not as it was meant to be after its start is not left standing either: the next start tries all of it again. */
static void on_post_start(void *arg, const struct error *err)
{
	struct engine_op *op = arg;
	if (!err) {
		call(op, "GET", "/json", NULL, on_started_seen);
	} else if (op->e->closing) {
		fail(op, err);
	} else {
		error_copy(&op->failed, err);
		engine_slot_set(op->slot, NULL, "");
		call(op, "DELETE", ENGINE_REMOVE, NULL, on_rolled_back);
	}
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
	if (!err && op->plan->post_start && status != 304) /* it ran already */
		run_post_start(op);
	else if (!err)
		call(op, "GET", "/json", NULL, on_started_seen);
	else if (made_again(op, err, true) || looked_after_all(op, status))
		return;
	else if (status && !op->e->closing)
		roll_back(op, err);
	else
		fail(op, err);
}

static void on_turn(void *arg, const struct error *err)
{
	struct engine_op *op = arg;
	struct engine_turns *turns = &op->e->starts;
	if (is_closing(op))
		engine_turn_give(turns);
	else
		call(op, "POST", "/start", NULL, on_started);
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
		fail(op, err);
	else
		engine_turn_take(&op->e->starts, starts_at_once(), on_turn, op);
}

/* It may have ended for want of it meanwhile: a start of what runs is none. */
static void on_plugged(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	if (!err || !made_again(op, err, true))
		on_joined(op, err);
}

/* Once: it was taken out while it did not run, of which nothing is told, and started without. Made anew its first start would be interrupted. */
static bool was_plugged_in(struct engine_op *op, const json_t *container)
{
	if (op->plugged || op->e->closing || !engine_is_unplugged(op->e, container))
		return false;
	op->plugged = true;
	engine_network_plug(op->e, op->plan, op->id, on_plugged, op);
	return true;
}

static void on_network(void *arg, const struct error *err)
{
	struct engine_op *op = arg;
	if (err)
		fail(op, err);
	else if (op->kind == KIND_PREPARE)
		op_done(op, NULL);
	else if (!is_closing(op)) {
		engine_data_begun(op->slot, op->plan);
		engine_external_join(op->e, op->plan, op->id ? op->id : op->container, on_joined, op);
	}
}

/* It is made while its network is: only a start needs that. */
static void start_container(struct engine_op *op)
{
	engine_slot_set(op->slot, op->id, op->plan->config_hash);
	if (!is_closing(op))
		engine_network_ensure(op->e, on_network, op);
}

/* A call that a killed or closed predecessor of ours has left on its way has made it meanwhile, or removes it just now. */
static bool looked_again(struct engine_op *op, const struct error *err, int status)
{
	bool taken = err->message && (strcasestr(err->message, "already in use") || strcasestr(err->message, "already in progress"));
	return (status == 409 || taken) && begun_again(op, GONE_TRIES);
}

static void on_created(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	const char *id = json_string_value(json_object_get(json, "Id"));
	if (err && (made_again(op, err, false) || looked_after_all(op, status) || looked_again(op, err, status)))
		return;
	if (err || !id) {
		cleanup_error struct error none = ERROR_INIT;
		error_set(&none, ERROR_BACKEND_SPAWN_FAILED, "the engine made a container and does not say which");
		fail(op, err ? err : &none);
		return;
	}
	free(op->id);
	op->id = xstrdup(id);
	start_container(op);
}

static void create(void *arg, const struct error *err)
{
	struct engine_op *op = arg;
	if (err) {
		fail(op, err);
		return;
	}
	if (is_closing(op))
		return;
	engine_options_settle(op->e, op->plan->create);
	cleanup_free char *platform = op->plan->platform && op->e->api >= 41 ? engine_escape(op->plan->platform) : NULL;
	cleanup_free char *path = xasprintf("/containers/create?name=%s%s%s", op->container, platform ? "&platform=" : "", platform ? platform : "");
	engine_call(op->e, "POST", path, json_incref(op->plan->create), ENGINE_CHANGE_MS, on_created, op);
}

/* Podman looks for the network when it makes a container; so do others that have just said so. */
static void on_volumes(void *arg, const struct error *err)
{
	struct engine_op *op = arg;
	if (err || !(op->e->podman || op->again))
		create(op, err);
	else if (!is_closing(op))
		engine_network_ensure(op->e, create, op);
}

static void on_image(void *arg, const struct error *err)
{
	struct engine_op *op = arg;
	if (err)
		fail(op, err);
	else if (op->kind == KIND_PREPARE && op->plan->joins)
		op_done(op, NULL);
	else if (!is_closing(op))
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
		fail(op, err);
		return;
	}
	if (is_closing(op))
		return;
	if (op->plan->build) /* before anything else it was built */
		engine_call(op->e, "GET", path, NULL, ENGINE_CALL_MS, on_built_seen, op);
	else
		engine_image_ensure(op->e, op->plan, op->plan, on_image, op);
}

static void ignore(void *arg, const struct error *err)
{
}

static void make(struct engine_op *op)
{
	if (is_closing(op))
		return;
	engine_network_ensure(op->e, ignore, NULL); /* meanwhile: a tenth of a second; who needs it hears how it went */
	engine_external_ensure(op->e, op->plan, on_external, op);
}

/* ---- what is run before a stop ---- */

static void before_stop(struct engine_op *op, backend_done *then)
{
	if (op->slot->pre_stop)
		engine_hooks_run(op->e, op->slot->service, op->id ? op->id : op->container, "pre_stop", op->slot->pre_stop, PRE_STOP_MS, then, op);
	else
		then(op, NULL);
}

/* It is stopped all the same. */
static void tell_pre_stop(const struct engine_op *op, const struct error *err)
{
	if (err && !op->e->closing) {
		cleanup_free char *text = xasprintf("ajj: %s\n", err->message);
		log_warning("engine", "%s: %s", op->slot->service, err->message);
		engine_log_add(op->e, op->slot->service, text);
	}
}

static void on_old_removed(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	free(move_ptr(op->id));
	if (err && status != 404) {
		fail(op, err);
		return;
	}
	op->slot->state = INSTANCE_ABSENT; /* by us: nobody is to be told */
	make(op);
}

static void on_start_inspected(void *arg, const struct error *err, int status, const json_t *json);

/* Another configuration: its data stays in its volumes. */
static void on_old_stopped(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	op->stopped = true;
	if (err && !status)
		fail(op, err);
	else if (engine_data_is_begun(op->slot, op->plan)) /* how it ended says what its data is worth */
		call(op, "GET", "/json", NULL, on_start_inspected);
	else
		call(op, "DELETE", ENGINE_REMOVE, NULL, on_old_removed);
}

static void stop_old(void *arg, const struct error *err)
{
	struct engine_op *op = arg;
	cleanup_free char *stop = xasprintf("/stop?t=%u", (op->grace_ms + 999) / 1000);
	tell_pre_stop(op, err);
	call(op, "POST", stop, NULL, on_old_stopped);
}

static void replace(struct engine_op *op, bool running)
{
	if (running && !op->stopped)
		before_stop(op, stop_old);
	else
		call(op, "DELETE", ENGINE_REMOVE, NULL, on_old_removed);
}

/* Said by the first look alone: what is missing from then on, this start has removed itself. */
static bool is_ruined(struct engine_op *op)
{
	cleanup_error struct error err = ERROR_INIT;
	if (op->kind != KIND_START || op->tries || op->looks || !engine_data_is_ruined(op->slot, op->plan))
		return false;
	error_set(&err, ERROR_DATA_UNFINISHED, "its first start was interrupted, and its data is half made");
	fail(op, &err);
	return true;
}

static void on_start_inspected(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	struct instance last;
	if (failed_otherwise(op, err, status))
		return;
	if (status == 404) {
		if (!is_ruined(op))
			make(op);
		return;
	}
	if (!is_ours(op->e, json)) {
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
	if (op->kind == KIND_PREPARE && is_running(json)) {
		op_done(op, NULL); /* of whatever configuration: nobody has said that it is to go */
		return;
	}
	if (!is_running(json) && is_ruined(op))
		return;
	bool stale = op->plan->joins && !is_running(json); /* it names a container that may be another one by now */
	bool other_image = op->plan->image_id && !engine_image_is(op->plan->image_id, json_string_value(json_object_get(json, "Image")));
	if (!hash || strcmp(hash, op->plan->config_hash) || stale || other_image || engine_made_differs(op->plan, json)) {
		replace(op, is_running(json));
	} else if (is_running(json)) {
		end_start(op, json);
	} else {
		start_container(op);
	}
}

void engine_start(struct backend *b, const struct service_spec *spec, backend_done *done, void *arg)
{
	struct engine_op *op = op_new(b, KIND_START, spec->name, done, arg);
	op->plan = engine_plan_new(op->e, spec);
	op->grace_ms = spec->stop_grace_ms;
	enqueue(op);
}

void engine_prepare(struct backend *b, const struct service_spec *spec, backend_done *done, void *arg)
{
	struct engine_op *op = op_new(b, KIND_PREPARE, spec->name, done, arg);
	op->plan = engine_plan_new(op->e, spec);
	enqueue(op);
}

/* ---- stop ---- */

static void on_stopped_seen(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	struct instance now;
	if (failed_otherwise(op, err, status))
		return;
	if (status == 200 && is_running(json)) {
		cleanup_error struct error survived = ERROR_INIT;
		error_set(&survived, ERROR_BACKEND_DEPROVISION_FAILED, "the engine says that the container is stopped, and it runs");
		fail(op, &survived);
		return;
	}
	if (status == 200 && engine_instance_of(op->e, json, &now)) {
		free(op->slot->told_to_end);
		op->slot->told_to_end = xstrdup(now.handle);
		op->slot->told_vaguely = false;
		engine_seen(op->e, &now, true);
		instance_release(&now);
	}
	op_done(op, NULL);
}

static void on_stopped(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	if (err && status != 404)
		fail(op, err);
	else if (!err || !looked_after_all(op, status))
		call(op, "GET", "/json", NULL, on_stopped_seen);
}

static void send_stop(void *arg, const struct error *err)
{
	struct engine_op *op = arg;
	tell_pre_stop(op, err);
	cleanup_free char *rest = xasprintf("/stop?t=%u", (op->grace_ms + 999) / 1000);
	call(op, "POST", rest, NULL, on_stopped);
}

static void stop_container(struct engine_op *op)
{
	before_stop(op, send_stop);
}

static void on_stop_inspected(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	if (failed_otherwise(op, err, status))
		return;
	if (status == 404 || !is_ours(op->e, json) || !is_running(json)) {
		op_done(op, NULL);
		return;
	}
	op->id = xstrdup(json_string_value(json_object_get(json, "Id")));
	engine_hooks_take(op->e, op->slot->service, json);
	stop_container(op);
}

/* The signal is the container's own, set when it was made: before version 1.42 a stop takes none. */
void engine_stop(struct backend *b, const char *service, int signal, unsigned grace_ms, backend_done *done, void *arg)
{
	struct engine_op *op = op_new(b, KIND_STOP, service, done, arg);
	op->grace_ms = grace_ms;
	enqueue(op);
}

/* ---- remove ---- */

static void remove_container(struct engine_op *op);

static void end_remove(struct engine_op *op)
{
	op->slot->state = INSTANCE_ABSENT;
	engine_slot_set(op->slot, NULL, "");
	engine_log_drop(op->e, op->slot->service);
	op_done(op, NULL);
}

static void drop_volumes(struct engine_op *op);

/* One that another container uses, too, stays; those that Docker took with the container are not there. */
static void on_volume_dropped(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	if (err && !status)
		fail(op, err);
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

static void on_gone_timer(uv_timer_t *timer)
{
	struct engine_op *op = timer->data;
	if (!is_closing(op))
		remove_container(op);
}

static void on_removed(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	bool first_others = err && err->message && strstr(err->message, "dependent containers"); /* Podman: who is in its network goes first, and is about to */
	if (err && status != 404 && status != 409 && !first_others) {
		fail(op, err);
	} else if (status == 404) {
		if (op->tries || !looked_after_all(op, status))
			drop_volumes(op);
	} else if (op->tries++ < GONE_TRIES) { /* asked again until nobody knows it: 409 says that somebody is removing it already */
		uv_timer_start(&op->timer, on_gone_timer, op->tries > 1 ? GONE_DELAY_MS : 0, 0);
	} else {
		cleanup_error struct error survived = ERROR_INIT;
		error_set(&survived, ERROR_BACKEND_DEPROVISION_FAILED, "the container %s cannot be removed%s%s", op->container, err ? ": " : "", err ? err->message : "");
		fail(op, &survived);
	}
}

static void remove_container(struct engine_op *op)
{
	call(op, "DELETE", ENGINE_REMOVE_ALL, NULL, on_removed);
}

static void on_remove_inspected(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_op *op = arg;
	if (failed_otherwise(op, err, status))
		return;
	if (status == 404 || !is_ours(op->e, json)) {
		end_remove(op);
		return;
	}
	op->id = xstrdup(json_string_value(json_object_get(json, "Id")));
	op->volumes = engine_anonymous_volumes(json);
	remove_container(op);
}

void engine_remove(struct backend *b, const char *service, backend_done *done, void *arg)
{
	enqueue(op_new(b, KIND_REMOVE, service, done, arg));
}

/* ---- the walk ---- */

static void on_built(void *arg, const struct error *err, const char *id);

static bool is_given_up(struct engine_op *op)
{
	cleanup_error struct error err = ERROR_INIT;
	if (!op->given_up || op->plan->image_id)
		return false;
	error_set(&err, ERROR_CANCELED, "the build was given up");
	op_done(op, &err);
	return true;
}

/* What this process has seen or made itself needs no look: an id is never another's, and with one that is gone by now, or a name that is taken,
 * the engine says so. */
static bool begun_at_once(struct engine_op *op)
{
	const struct engine_slot *slot = op->slot;
	bool same = slot->id && op->plan && slot->config_hash && !slot->others && !strcmp(slot->config_hash, op->plan->config_hash);
	bool gone = !slot->config_hash || !*slot->config_hash, runs = slot->state == INSTANCE_RUNNING;
	bool makes = op->plan && gone && slot->state == INSTANCE_ABSENT && op->e->listed;
	bool shares = op->plan && (op->plan->joins || op->plan->networks); /* with what may be others by now */
	bool starts = op->kind == KIND_START && same && !runs && !shares, stops = op->kind == KIND_STOP && slot->id && runs;
	bool is_prepared = op->kind == KIND_PREPARE && (same || runs);
	bool removes = op->kind == KIND_REMOVE && slot->id && !gone && !op->e->podman; /* it keeps volumes without a name: they are looked for */
	if (op->looks || op->tries || (op->plan && op->plan->build) || (op->kind == KIND_START && engine_data_is_begun(slot, op->plan)))
		return false; /* of what has begun, how it ended counts, too */
	if (starts || stops || removes)
		op->id = xstrdup(slot->id);
	if (is_prepared)
		op_done(op, NULL);
	else if (starts)
		start_container(op);
	else if (stops)
		stop_container(op);
	else if (removes)
		remove_container(op);
	else if (makes)
		make(op);
	return is_prepared || starts || stops || removes || makes;
}

static void op_begin(struct engine_op *op)
{
	static engine_answer *const first[] = {
	    [KIND_START] = on_start_inspected, [KIND_PREPARE] = on_start_inspected, [KIND_STOP] = on_stop_inspected, [KIND_REMOVE] = on_remove_inspected};
	if (is_closing(op) || is_given_up(op))
		return;
	if (op->kind == KIND_START && engine_is_succeeded(op->slot)) {
		uv_timer_start(&op->timer, on_look_again, GONE_DELAY_MS, 0);
		return;
	}
	if (op->kind == KIND_PREPARE && op->plan->build)
		op_done(op, NULL); /* a build is no work for later: it is asked for */
	else if (op->kind == KIND_START && op->plan->build && !op->plan->image_id)
		engine_build_ensure(op->e, op->slot->service, op->plan->image, op->plan->data, op->plan->build, BUILD_MISSING, on_built, op, op);
	else if (!begun_at_once(op))
		call(op, "GET", "/json", NULL, first[op->kind]);
}

static void on_built(void *arg, const struct error *err, const char *id)
{
	struct engine_op *op = arg;
	if (err) {
		fail(op, err);
		return;
	}
	op->plan->image_id = xstrdup(id);
	op_begin(op);
}

void engine_build_cancel(struct backend *b, const char *service, void *arg)
{
	struct engine *e = (struct engine *)b;
	struct engine_op *op = engine_slot(e, service)->ops;
	bool starts = op && op->kind == KIND_START && op->plan->build;
	if (!arg)
		engine_hooks_give_up(e, service);
	if (!arg && starts)
		op->given_up = true;
	if (arg || starts)
		engine_build_give_up(e, service, arg ? arg : op);
}
