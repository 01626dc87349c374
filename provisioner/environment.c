#include "provisioner/environment.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "provisioner/environment_private.h"
#include "provisioner/layers.h"

/* ---- what everything here uses ---- */

static void on_turn(uv_timer_t *timer);

void environment_wake(struct environment *e)
{
	if (!uv_is_closing((uv_handle_t *)&e->turn))
		uv_timer_start(&e->turn, on_turn, 0, 0);
}

void environment_mark(struct environment *e, unsigned what)
{
	e->changed |= what;
	environment_wake(e);
}

void environment_event(struct environment *e, const char *type, json_t *fields)
{
	events_add(e->events, type, fields);
	environment_mark(e, CHANGED_EVENTS);
}

char *environment_mask(const struct environment *e, const char *text)
{
	cleanup_free char *masked = model_mask(e->model, text);
	return model_mask(e->next, masked);
}

void environment_fail(struct environment *e, const struct error *err)
{
	cleanup_error struct error masked = ERROR_INIT;
	error_copy(&masked, err);
	char *message = environment_mask(e, err->message ? err->message : "");
	free(masked.message);
	masked.message = message;
	events_fail(e->events, &masked);
	environment_event(e, "error",
	                  json_pack("{s:s, s:s}", "code", error_code_name(err->code), "message", masked.message));
	environment_mark(e, CHANGED_ERRORS | CHANGED_STATUS);
}

json_t *requester_json(const struct requester *who)
{
	return json_pack("{s:i, s:s}", "pid", (int)who->pid, "command", who->command);
}

void requester_of(pid_t tid, struct requester *ret)
{
	char path[64];
	cleanup_buffer struct buffer text = BUFFER_INIT;
	memset(ret, 0, sizeof *ret);
	ret->pid = tid;
	snprintf(path, sizeof path, "/proc/%d/status", (int)tid);
	if (file_read(AT_FDCWD, path, 1 << 16, &text) == 0) {
		const char *tgid = strstr(buffer_str(&text), "\nTgid:");
		if (tgid)
			ret->pid = (pid_t)strtol(tgid + 6, NULL, 10);
	}
	buffer_clear(&text);
	snprintf(path, sizeof path, "/proc/%d/comm", (int)ret->pid);
	if (file_read(AT_FDCWD, path, sizeof ret->command, &text) < 0)
		return;
	snprintf(ret->command, sizeof ret->command, "%s", buffer_str(&text));
	ret->command[strcspn(ret->command, "\n")] = '\0';
}

static void on_handle_closed(uv_handle_t *h)
{
	struct environment *e = h->data;
	e->open_handles--;
	environment_wake(e);
}

static void on_timer_closed(uv_handle_t *h)
{
	on_handle_closed(h);
	free(h);
}

uv_timer_t *environment_timer(struct environment *e, uv_timer_cb cb, uint64_t ms, void *data)
{
	uv_timer_t *timer = xcalloc(1, sizeof *timer);
	uv_timer_init(e->params.loop, timer);
	timer->data = data;
	uv_timer_start(timer, cb, ms, 0);
	return timer;
}

void environment_timer_end(struct environment *e, uv_timer_t **timer)
{
	if (!*timer)
		return;
	(*timer)->data = e;
	e->open_handles++;
	uv_close((uv_handle_t *)*timer, on_timer_closed);
	*timer = NULL;
}

bool environment_is_known(const struct environment *e)
{
	return e->load_done > 0 && (e->adopted || !environment_backend_name(e));
}

bool environment_is_unseen(const struct environment *e)
{
	return !environment_is_known(e) && !error_is_set(&e->backend_error) && e->desired && !strcmp(e->desired, "up");
}

void environment_want_all(struct environment *e, enum plan_goal goal)
{
	for (size_t i = 0; i < apply_count(e->apply); i++)
		apply_want(apply_at(e->apply, i), goal);
}

/* ---- state ---- */

static const char *state_of_services(const struct environment *e)
{
	size_t up = 0, ready = 0, completed = 0, failed = 0, unhealthy = 0, restarting = 0, stopping = 0, dismissed = 0;
	for (size_t i = 0; i < apply_count(e->apply); i++) {
		const struct apply_service *s = apply_at(e->apply, i);
		stopping += s->state == SERVICE_STOPPING;
		dismissed += s->dismissed;
		if (s->goal != GOAL_UP)
			continue;
		up++;
		unhealthy += s->state == SERVICE_READY && (s->unhealthy || s->paused || s->unplugged);
		ready += s->state == SERVICE_READY || s->state == SERVICE_COMPLETED;
		completed += s->state == SERVICE_COMPLETED;
		failed += s->state == SERVICE_FAILED;
		restarting += s->state == SERVICE_RESTARTING;
	}
	if (dismissed && completed == up)
		return "stopped";
	if (up && ready == up)
		return unhealthy || dismissed ? "degraded" : "ready";
	if (failed)
		return ready ? "degraded" : "failed";
	if (up)
		return restarting && e->was_ready ? "degraded" : "starting";
	if (stopping)
		return "stopping";
	if (error_is_set(&e->failure))
		return "failed";
	if (e->satisfied)
		return "ready";
	return e->desired && (!strcmp(e->desired, "stopped") || !strcmp(e->desired, "up")) ? "stopped" : "absent";
}

const char *environment_state(const struct environment *e)
{
	if (e->teardown != TEARDOWN_NONE)
		return "stopping";
	if (e->teardown_failed)
		return "failed";
	if (environment_is_unseen(e))
		return "starting";
	if (!environment_is_known(e) && !error_is_set(&e->backend_error) && e->desired && !strcmp(e->desired, DESIRED_DESTROYING))
		return "stopping";
	for (const struct demand *d = e->demands; d; d = d->next)
		if (d->wait == WAIT_READY && !d->finished && !apply_is_active(e->apply) && !error_is_set(&d->error))
			return "starting";
	return state_of_services(e);
}

static void update_state(struct environment *e)
{
	const char *state = environment_state(e);
	if (e->state && !strcmp(e->state, state))
		return;
	e->state = state;
	if (!strcmp(state, "ready")) {
		e->was_ready = true;
		error_release(&e->failure);
	} else if (strcmp(state, "degraded") && strcmp(state, "starting")) {
		e->was_ready = false;
	}
	log_info("environment", "%s", state);
	environment_event(e, "state", json_pack("{s:s}", "state", state));
	e->changed |= CHANGED_STATUS;
}

/* apply_params.changed */
static void on_service_changed(void *arg, const struct apply_service *s, bool state_changed)
{
	struct environment *e = arg;
	environment_mark(e, CHANGED_STATUS);
	if (!state_changed)
		return;
	json_t *fields = json_pack("{s:s, s:s}", "service", s->name, "state", service_state_name(s->state));
	if (s->pid)
		json_object_set_new(fields, "pid", json_integer(s->pid));
	if (s->state == SERVICE_FAILED && error_is_set(&s->error)) {
		json_object_set_new(fields, "code", json_string(error_code_name(s->error.code)));
		environment_fail(e, &s->error);
	}
	environment_event(e, "service", fields);
}

/* apply_params.health */
static void on_service_health(void *arg, const struct apply_service *s)
{
	environment_event(arg, "health", json_pack("{s:s, s:s}", "service", s->name, "health", service_health_name(s)));
}

/* apply_params.started: as if it had been asked for here */
static bool on_service_started(void *arg, const struct apply_service *s)
{
	struct environment *e = arg;
	char *const names[] = {s->name, NULL};
	if (e->teardown != TEARDOWN_NONE || e->closing || !e->model)
		return false;
	demands_cancel_stops(e, names);
	environment_store_up(e);
	return true;
}

static void on_apply_wake(void *arg)
{
	environment_wake(arg);
}

/* ---- turns ---- */

static void close_turn(struct environment *e);

void environment_tell(struct environment *e)
{
	unsigned what = e->changed;
	e->changed = 0;
	if (what && !e->closing && e->params.changed)
		e->params.changed(e->params.arg, what);
}

static void on_turn(uv_timer_t *timer)
{
	struct environment *e = timer->data;
	if (!e->halted) {
		environment_backend_turn(e);
		teardown_turn(e);
		demands_admit(e);
		applied_turn(e);
		size_t services = apply_count(e->apply);
		discard_turn(e);
		apply_turn(e->apply);
		if (apply_count(e->apply) != services)
			e->changed |= CHANGED_SERVICES | CHANGED_STATUS;
		resting_turn(e);
		demands_judge(e);
		update_state(e);
	}
	demands_finish(e);
	environment_tell(e);
	if (e->closing)
		close_turn(e);
}

static void on_watch(uv_timer_t *timer)
{
	struct environment *e = timer->data;
	if (!e->closing && !e->load_queued && !e->running_job)
		environment_load(e, 0);
}

/* ---- life ---- */

/* What the last server left behind is said from the first moment on, before anything is looked at. */
static int read_desired(struct environment *e, struct error *err)
{
	struct store_environment stored = {0};
	int r = store_environment_get(e->store, e->id->namespace_, &stored, err);
	if (r == 1) {
		e->desired = move_ptr(stored.desired);
		e->generation = stored.generation;
	}
	store_environment_release(&stored);
	return r < 0 ? r : 0;
}

int environment_new(const struct environment_params *params, struct environment **ret, struct error *err)
{
	struct environment *e = xcalloc(1, sizeof *e);
	e->params = *params;
	e->id = params->id;
	e->plan = true;
	e->uid = (uid_t)-1;
	e->generation = 1;
	int r = store_open(params->id->shared_dir, &e->store, err);
	if (r == 0)
		r = read_desired(e, err);
	if (r < 0) {
		store_close(e->store);
		free(e);
		return r;
	}
	e->events = events_new(ENVIRONMENT_EVENTS_MAX, ENVIRONMENT_ERRORS_MAX);
	e->requested_by = json_array();
	resting_read(e);
	const struct apply_params apply = {params->loop, on_apply_wake, on_service_changed, on_service_health, on_service_started, environment_port_taken, e};
	e->apply = apply_new(&apply);
	uv_timer_init(params->loop, &e->turn);
	uv_timer_init(params->loop, &e->watch);
	uv_timer_init(params->loop, &e->unlink_timer);
	e->turn.data = e->watch.data = e->unlink_timer.data = e;
	uv_timer_start(&e->watch, on_watch, WATCH_INTERVAL_MS, WATCH_INTERVAL_MS);
	environment_open_layers(e);
	environment_refresh_user(e);
	environment_load(e, LOAD_FORCE);
	environment_wake(e);
	*ret = e;
	return 0;
}

static void environment_free(struct environment *e)
{
	apply_free(e->apply);
	model_free(e->model);
	model_free(e->next);
	recipes_free(e->recipes);
	store_close(e->store);
	events_free(e->events);
	json_decref(e->requested_by);
	json_decref(e->resting);
	json_decref(e->applied);
	error_release(&e->config_error);
	trust_release(&e->trust);
	free(e->approves);
	error_release(&e->failure);
	error_release(&e->backend_error);
	strv_free(e->warnings);
	buffer_release(&e->user_text);
	environment_close_layers(e);
	more_files_release(e);
	buffer_release(&e->base_text);
	buffer_release(&e->inherited);
	envset_release(&e->env);
	free(e->backend_name);
	free(e->stored_backend);
	free(e->stored_target);
	free(e->stored_reason);
	free(e->desired);
	free(e->desired_before);
	free(e->text_failure);
	free(e);
}

static void on_turn_closed(uv_handle_t *h)
{
	struct environment *e = h->data;
	void (*closed)(void *arg) = e->closed;
	void *arg = e->closed_arg;
	environment_free(e);
	closed(arg);
}

/* Stopping means: a teardown that was asked for is done, else what runs is stopped, data and ports kept. */
static bool stopped(struct environment *e)
{
	if (!e->stop_services)
		return true;
	if (!environment_is_known(e) && !error_is_set(&e->backend_error))
		return false;
	if (e->teardown == TEARDOWN_PENDING)
		teardown_begin(e);
	if (e->teardown != TEARDOWN_NONE)
		return false;
	if (!e->stored_stop) {
		e->stored_stop = true;
		if (e->storing_up || (e->desired && !strcmp(e->desired, "up")))
			environment_store_desired(e, "stopped");
		environment_want_all(e, GOAL_STOPPED);
	}
	return apply_is_down(e->apply, false);
}

static void halt(struct environment *e)
{
	e->halted = true;
	apply_halt(e->apply);
	e->open_handles += 2;
	uv_close((uv_handle_t *)&e->watch, on_handle_closed);
	uv_close((uv_handle_t *)&e->unlink_timer, on_handle_closed);
	environment_backend_close(e);
}

static void close_turn(struct environment *e)
{
	if (!e->halted && stopped(e))
		halt(e);
	if (!e->halted || e->open_handles || e->running_job || e->jobs || uv_is_closing((uv_handle_t *)&e->turn))
		return;
	if (apply_may_free(e->apply))
		uv_close((uv_handle_t *)&e->turn, on_turn_closed);
	else
		environment_wake(e);
}

void environment_close(struct environment *e, bool stop_services, void (*closed)(void *arg), void *arg)
{
	e->closing = true;
	e->stop_services = stop_services;
	e->closed = closed;
	e->closed_arg = arg;
	demands_cancel_all(e, false, "the workspace is being unmounted", "ajj attach mounts it again");
	environment_wake(e);
}
