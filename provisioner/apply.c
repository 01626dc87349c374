#include "provisioner/apply.h"

#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/apply_private.h"

/* ---- life ---- */

struct apply *apply_new(const struct apply_params *params)
{
	struct apply *a = xcalloc(1, sizeof *a);
	a->params = *params;
	return a;
}

static void service_free(struct apply_service *s)
{
	free(s->name);
	free(s->handle);
	free(s->config_hash);
	free(s->start_hash);
	free(s->start_values);
	json_decref(s->progress);
	free(s->foreign);
	error_release(&s->error);
	free(s);
}

void apply_halt(struct apply *a)
{
	a->halted = true;
	for (size_t i = 0; i < a->count; i++) {
		service_backoff_end(a->services[i]);
		service_probe_end(a->services[i]);
	}
}

bool apply_may_free(const struct apply *a)
{
	return !a->open_timers;
}

void apply_free(struct apply *a)
{
	for (size_t i = 0; a && i < a->count; i++)
		service_free(a->services[i]);
	if (a)
		free(a->services);
	free(a);
}

void apply_set_backend(struct apply *a, struct backend *backend)
{
	a->backend = backend;
}

size_t apply_count(const struct apply *a)
{
	return a->count;
}

struct apply_service *apply_at(const struct apply *a, size_t i)
{
	return a->services[i];
}

struct apply_service *apply_find(const struct apply *a, const char *name)
{
	for (size_t i = 0; i < a->count; i++)
		if (!strcmp(a->services[i]->name, name))
			return a->services[i];
	return NULL;
}

static struct apply_service *service_new(struct apply *a, const char *name)
{
	struct apply_service *s = xcalloc(1, sizeof *s);
	s->apply = a;
	s->name = xstrdup(name);
	s->handle = xstrdup("");
	return s;
}

struct apply_service *apply_find_or_add(struct apply *a, const char *name)
{
	struct apply_service *s = apply_find(a, name);
	if (s)
		return s;
	a->services = xrealloc(a->services, (a->count + 1) * sizeof *a->services);
	return a->services[a->count++] = service_new(a, name);
}

static bool is_of_interest(const struct apply_service *s)
{
	return s->made || s->operation != OPERATION_NONE || s->progress;
}

void apply_set_model(struct apply *a, const struct model *model)
{
	size_t n = model ? model->n_services : 0;
	struct apply_service **services = xcalloc(n + a->count, sizeof *services);
	a->model = model;
	for (size_t i = 0; i < n; i++) {
		const char *name = model->services[i].config->name;
		services[i] = apply_find(a, name);
		if (!services[i])
			services[i] = service_new(a, name);
		services[i]->model = &model->services[i];
		services[i]->taken = false; /* it may bring another port; if not, the next start finds out */
	}
	for (size_t i = 0; i < a->count; i++) {
		struct apply_service *s = a->services[i];
		if (model_service(model, s->name))
			continue;
		s->model = NULL;
		if (is_of_interest(s)) {
			service_probe_end(s);
			services[n++] = s;
		} else {
			service_backoff_end(s);
			service_probe_end(s);
			service_free(s);
		}
	}
	free(a->services);
	a->services = services;
	a->count = n;
}

/* ---- planning ---- */

/* A dependency that nobody wants up (it is not supported here, or `required: false`) holds nobody back. */
static bool counts(const struct apply_service *on)
{
	return !error_is_set(&on->model->unsupported) && on->goal == GOAL_UP;
}

static bool is_joined(const struct apply_service *s, const char *name)
{
	const struct container_options *o = s->model->spec.process ? NULL : s->model->spec.container;
	const char *const modes[] = {o ? o->network : NULL, o ? o->pid : NULL, o ? o->ipc : NULL};
	for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
		if (modes[i] && !strncmp(modes[i], "service:", 8) && !strcmp(modes[i] + 8, name))
			return true;
	return false;
}

static struct plan_dependency *dependencies(const struct apply *a, const struct apply_service *s, size_t *ret_n)
{
	*ret_n = 0;
	if (!s->model)
		return NULL;
	const struct config_service *c = s->model->config;
	struct plan_dependency *deps = xcalloc(c->n_depends_on, sizeof *deps);
	for (size_t d = 0; d < c->n_depends_on; d++)
		for (size_t i = 0; i < a->count; i++) {
			const struct apply_service *on = a->services[i];
			if (!on->model || strcmp(on->name, c->depends_on[d].service))
				continue;
			if (service_goes_down(s) || counts(on))
				deps[(*ret_n)++] = (struct plan_dependency){i, c->depends_on[d].condition, c->depends_on[d].restart, is_joined(s, on->name)};
		}
	return deps;
}

static void describe(const struct apply *a, const struct apply_service *s, struct plan_service *ret)
{
	size_t n;
	const struct plan_dependency *deps = dependencies(a, s, &n);
	*ret = (struct plan_service){
	    .goal = s->goal,
	    .present = s->present,
	    .made = s->made,
	    .busy = s->operation != OPERATION_NONE,
	    .stuck = s->stuck,
	    .held = s->discard || a->held || s->backoff || s->taken || !s->model || error_is_set(&s->model->unsupported),
	    .restart = s->restart,
	    .recreate = s->recreate,
	    .depends_on = deps,
	    .n_depends_on = n,
	};
}

/* Who waits for a service that has failed for good will not start: it fails for the same reason. */
static bool fail_dependents(struct apply *a, struct plan_service *plan)
{
	bool any = false;
	for (size_t i = 0; i < a->count; i++) {
		struct apply_service *s = a->services[i];
		if (s->goal != GOAL_UP || (s->present != PRESENT_ABSENT && s->present != PRESENT_STOPPED) ||
		    s->operation != OPERATION_NONE)
			continue;
		for (size_t d = 0; d < plan[i].n_depends_on; d++) {
			const struct apply_service *on = a->services[plan[i].depends_on[d].service];
			bool for_good = on->present == PRESENT_FAILED && !on->lost;
			if (!for_good && (!service_is_unhealthy(on) || plan[i].depends_on[d].condition != DEPENDS_HEALTHY))
				continue;
			cleanup_error struct error err = ERROR_INIT;
			error_copy(&err, &on->error);
			error_prefix(&err, "service %s needs %s", s->name, on->name);
			error_move(&s->error, &err);
			plan[i].present = s->present = PRESENT_FAILED;
			any = true;
			service_tell(s, false);
			break;
		}
	}
	return any;
}

/* A service that is configured no longer goes when nothing of it is left. */
static void prune(struct apply *a)
{
	size_t n = 0;
	for (size_t i = 0; i < a->count; i++) {
		struct apply_service *s = a->services[i];
		if (s->model || is_of_interest(s)) {
			a->services[n++] = s;
			continue;
		}
		service_backoff_end(s);
		service_probe_end(s);
		service_free(s);
	}
	a->count = n;
}

static void (*const actions[])(struct apply_service *s) = {
    [PLAN_START] = service_start, [PLAN_STOP] = service_stop, [PLAN_REMOVE] = service_remove};

void apply_turn(struct apply *a)
{
	if (!a->backend || a->halted || !a->count)
		return;
	cleanup_free struct plan_service *plan = xcalloc(a->count, sizeof *plan);
	cleanup_free struct plan_step *steps = xcalloc(a->count, sizeof *steps);
	for (size_t i = 0; i < a->count; i++)
		describe(a, a->services[i], &plan[i]);
	while (fail_dependents(a, plan))
		;
	size_t n = plan_steps(plan, a->count, steps);
	for (size_t i = 0; i < n; i++)
		if (steps[i].now)
			actions[steps[i].action](a->services[steps[i].service]);
	for (size_t i = 0; i < a->count; i++) {
		free((void *)plan[i].depends_on);
		service_tell(a->services[i], false);
	}
	prune(a);
}

/* ---- what is wanted ---- */

bool apply_has_failed(const struct apply_service *s)
{
	return s->present == PRESENT_FAILED || (service_is_unhealthy(s) && s->operation == OPERATION_NONE);
}

void apply_want(struct apply_service *s, enum plan_goal goal)
{
	if (s->present == PRESENT_FAILED) {
		s->present = s->made ? PRESENT_STOPPED : PRESENT_ABSENT;
		s->quick_exits = 0;
		error_release(&s->error);
	}
	if (service_is_unhealthy(s)) {
		service_probe_end(s);
		error_release(&s->error);
	}
	s->stuck = s->dismissed = false;
	s->port_tries = 0;
	if (goal != GOAL_UP && s->operation == OPERATION_START && s->apply->backend)
		backend_build_cancel(s->apply->backend, s->name, NULL);
	if (goal != GOAL_UP) {
		service_backoff_end(s);
		s->restart = s->recreate = s->lost = false;
	}
	if (goal != s->goal)
		s->quick_exits = 0;
	s->goal = goal;
	if (goal == GOAL_UP && (s->discard || s->unplugged))
		s->recreate = s->made;
	if (goal == GOAL_UP && s->present == PRESENT_RUNNING && s->operation == OPERATION_NONE && s->apply->backend)
		service_probe(s);
	apply_wake(s->apply);
}

void apply_restart(struct apply_service *s)
{
	apply_want(s, GOAL_UP);
	service_backoff_end(s);
	s->quick_exits = 0;
	if (s->present == PRESENT_COMPLETED)
		s->present = PRESENT_STOPPED;
	s->restart = service_runs(s) || s->operation != OPERATION_NONE;
}

static bool is_otherwise(const struct apply_service *s, const struct model_service *m)
{
	return s->config_hash && strcmp(s->config_hash, m->spec.config_hash) != 0;
}

static bool differs(const struct apply_service *s, const struct model_service *m)
{
	if (!s->made || !m)
		return false;
	return is_otherwise(s, m) || (service_runs(s) && s->apply->backend && backend_differs(s->apply->backend, &m->spec));
}

static bool is_changed(const struct apply_service *s)
{
	return differs(s, s->model);
}

/* What does not run is made by the next start as the model says then. */
static bool is_of_use(const struct apply_service *s)
{
	return s->present == PRESENT_COMPLETED || (service_runs(s) && s->proven);
}

bool apply_has_changes(const struct apply *a)
{
	for (size_t i = 0; i < a->count; i++) {
		const struct apply_service *s = a->services[i];
		bool goes = !s->model && s->made && s->goal != GOAL_ABSENT; /* what ends already, or is about to be made anew, is no change that waits for `up` */
		if (goes || (is_changed(s) && is_of_use(s) && !s->recreate))
			return true;
	}
	return false;
}

bool apply_may_follow(const struct apply *a, const struct model *model)
{
	bool broken = false;
	for (size_t i = 0; i < a->count; i++) {
		const struct apply_service *s = a->services[i];
		const struct model_service *m = model_service(model, s->name);
		if (s->operation != OPERATION_NONE)
			return false;
		if (!is_of_use(s))
			broken = broken || s->goal == GOAL_UP;
		else if (!m || !s->config_hash || strcmp(s->config_hash, m->spec.config_hash))
			return false;
	}
	return broken;
}

bool apply_contradicts(const struct apply *a, const struct model *model)
{
	for (size_t i = 0; i < a->count; i++) {
		const struct apply_service *s = a->services[i];
		const struct model_service *m = model_service(model, s->name);
		if (service_runs(s) && (!m || is_otherwise(s, m)))
			return true;
	}
	return false;
}

bool apply_is_replaced(const struct apply_service *s, const struct model_service *m)
{
	return service_runs(s) && differs(s, m);
}

void apply_renew(struct apply_service *s)
{
	if (!is_changed(s) || is_of_use(s) || s->operation != OPERATION_NONE)
		return;
	service_backoff_end(s);
	s->recreate = true;
	s->quick_exits = 0;
}

void apply_recreate(struct apply_service *s)
{
	service_backoff_end(s);
	if (s->present == PRESENT_COMPLETED || s->present == PRESENT_FAILED)
		s->present = PRESENT_STOPPED;
	s->recreate = s->made;
	s->quick_exits = 0;
}

void apply_changes(struct apply *a)
{
	for (size_t i = 0; i < a->count; i++) {
		struct apply_service *s = a->services[i];
		s->outdated = s->operation == OPERATION_START && s->model && strcmp(s->start_hash, s->model->spec.config_hash) != 0;
		if (!s->model && s->made)
			apply_want(s, GOAL_ABSENT);
		if (is_changed(s))
			apply_recreate(s);
	}
	apply_wake(a);
}

void apply_hold(struct apply *a, bool held)
{
	a->held = held;
	apply_wake(a);
}

bool apply_is_active(const struct apply *a)
{
	for (size_t i = 0; i < a->count; i++) {
		const struct apply_service *s = a->services[i];
		if (service_runs(s) || s->operation != OPERATION_NONE || s->goal == GOAL_UP)
			return true;
	}
	return false;
}

bool apply_is_down(const struct apply *a, bool removed)
{
	for (size_t i = 0; i < a->count; i++) {
		const struct apply_service *s = a->services[i];
		if (s->operation != OPERATION_NONE || (!s->stuck && (service_runs(s) || (removed && s->made))))
			return false;
	}
	return true;
}

void apply_forget(struct apply *a)
{
	for (size_t i = 0; i < a->count; i++) {
		struct apply_service *s = a->services[i];
		service_backoff_end(s);
		service_probe_end(s);
		s->goal = GOAL_NONE;
		s->present = PRESENT_ABSENT;
		s->made = s->stuck = s->dismissed = s->restart = s->recreate = s->taken = s->gone = s->lost = s->paused = s->unplugged = s->discard = s->unfinished = false;
		s->restarts = s->quick_exits = s->port_tries = 0;
		s->pid = 0;
		s->memory_bytes = 0;
		s->started_ms = s->exited_ms = 0;
		s->exit_code = 0;
		free(s->config_hash);
		s->config_hash = NULL;
		error_release(&s->error);
		service_tell(s, false);
	}
}

/* ---- what is there ---- */

static void take_details(struct apply_service *s, const struct instance *i)
{
	bool differs = s->pid != i->pid || i->memory_bytes > s->memory_bytes + s->memory_bytes / 8 ||
	               i->memory_bytes < s->memory_bytes - s->memory_bytes / 8;
	s->pid = i->pid;
	s->memory_bytes = i->memory_bytes;
	if (i->started_ms)
		s->started_ms = i->started_ms;
	if (i->handle && strcmp(s->handle, i->handle)) {
		free(s->handle);
		s->handle = xstrdup(i->handle);
	}
	if (differs)
		service_tell(s, true);
	service_set_held(s, i->paused, i->unplugged);
}

static const struct instance *instance_of(const struct instances *list, const char *name)
{
	for (size_t i = 0; i < list->count; i++)
		if (!strcmp(list->items[i].service, name))
			return &list->items[i];
	return NULL;
}

/* Nothing of it is there, not even how it ended: it never began. Who was to hear why (a server that was killed meanwhile) is gone; the next start
 * is told. */
static void start_was_lost(struct apply_service *s)
{
	s->changes++;
	s->pid = 0;
	service_probe_end(s);
	s->present = PRESENT_STOPPED;
	service_tell(s, false);
	apply_wake(s->apply);
}

static void on_list(void *arg, const struct error *err, const struct instances *list)
{
	struct apply *a = arg;
	bool again = a->list_again;
	a->listing = a->list_again = false;
	for (size_t i = 0; !a->halted && !err && i < a->count; i++) {
		struct apply_service *s = a->services[i];
		if (s->changes != s->changes_at_list || s->operation != OPERATION_NONE || !service_runs(s))
			continue;
		const struct instance *found = instance_of(list, s->name);
		if (found && found->state == INSTANCE_RUNNING)
			take_details(s, found);
		else if (!found && !*s->handle && s->present == PRESENT_RUNNING)
			start_was_lost(s);
		else
			service_exited(s, found ? &(struct exit){.code = found->exit_code, .ms = found->exited_ms, .dismissed = found->dismissed} : &(struct exit){.dismissed = *s->handle});
	}
	if (again)
		apply_refresh(a);
}

bool apply_look(struct apply *a)
{
	bool any = false;
	for (size_t i = 0; a->backend && i < a->count; i++) {
		struct apply_service *s = a->services[i];
		if (s->present != PRESENT_READY || s->operation != OPERATION_NONE)
			continue;
		if (!s->gone && !backend_lives(a->backend, s->name, s->pid)) {
			s->gone = true;
			service_tell(s, false);
			apply_wake(a);
		}
		any = any || s->gone;
	}
	return any;
}

void apply_refresh(struct apply *a)
{
	a->list_again = a->listing; /* what it shows may have been looked at before what has changed now: a start, a pid */
	if (a->listing || a->halted || !a->backend)
		return;
	a->listing = true;
	for (size_t i = 0; i < a->count; i++)
		a->services[i]->changes_at_list = a->services[i]->changes;
	backend_list(a->backend, on_list, a);
}

json_t *apply_resting(const struct apply *a)
{
	json_t *resting = json_object();
	for (size_t i = 0; i < a->count; i++) {
		const struct apply_service *s = a->services[i];
		bool by_us = s->goal == GOAL_STOPPED && (s->present == PRESENT_STOPPED || s->present == PRESENT_ABSENT);
		if (s->model && s->operation == OPERATION_NONE && (by_us || s->dismissed))
			json_object_set_new(resting, s->name, json_string(s->dismissed ? RESTING_BY_OTHERS : RESTING_BY_US));
	}
	return resting;
}

/* false: it was not at rest */
static bool rest(struct apply_service *s, const json_t *resting)
{
	const char *by = s->model ? json_string_value(json_object_get(resting, s->name)) : NULL;
	if (!by)
		return false;
	s->dismissed = !strcmp(by, RESTING_BY_OTHERS);
	s->goal = s->dismissed ? GOAL_NONE : GOAL_STOPPED;
	return true;
}

/* Which others have removed, or was never made. */
static void adopt_absent(struct apply *a, const json_t *resting)
{
	for (size_t i = 0; i < a->count; i++) {
		struct apply_service *s = a->services[i];
		if (s->made || !rest(s, resting))
			continue;
		s->present = s->dismissed ? PRESENT_STOPPED : PRESENT_ABSENT;
		service_tell(s, false);
	}
}

void apply_adopt(struct apply *a, const struct instances *list, bool up, const json_t *resting)
{
	for (size_t i = 0; i < list->count; i++) {
		const struct instance *found = &list->items[i];
		if (found->state == INSTANCE_ABSENT)
			continue;
		struct apply_service *s = apply_find_or_add(a, found->service);
		s->made = true;
		free(s->config_hash);
		s->config_hash = found->config_hash && *found->config_hash ? xstrdup(found->config_hash) : NULL;
		s->started_ms = found->started_ms;
		s->goal = up && s->model ? GOAL_UP : GOAL_NONE;
		s->proven = true;
		if (found->state == INSTANCE_RUNNING) {
			s->present = PRESENT_RUNNING;
			take_details(s, found);
			if (up)
				service_probe(s);
			service_tell(s, false);
		} else {
			s->present = PRESENT_READY; /* as far as we know it had been */
			if (up)
				rest(s, resting);
			service_exited(s, &(struct exit){.code = found->exit_code, .ms = found->exited_ms, .dismissed = found->dismissed});
		}
	}
	if (up)
		adopt_absent(a, resting);
}

/* Whoever starts it wants it, whoever has stopped it: but for what goes for good. */
static void want_as_others(struct apply_service *s)
{
	const struct apply_params *params = &s->apply->params;
	if (s->model && s->goal != GOAL_UP && s->goal != GOAL_ABSENT && params->started(params->arg, s))
		s->goal = GOAL_UP;
}

/* Somebody else has started it, or made it anew: it is ours all the same. */
static void take_over(struct apply_service *s, const struct instance *i)
{
	service_backoff_end(s);
	error_release(&s->error);
	s->made = true;
	s->gone = s->lost = s->stuck = s->used_up = false;
	s->changes++;
	s->dismissed = false;
	want_as_others(s);
	free(s->config_hash);
	s->config_hash = i->config_hash && *i->config_hash ? xstrdup(i->config_hash) : NULL;
	s->present = PRESENT_RUNNING;
	take_details(s, i);
	if (s->goal == GOAL_UP && s->model)
		service_probe(s);
	service_tell(s, false);
	apply_wake(s->apply);
}

/* Its engine answers again. */
static void return_from_loss(struct apply_service *s)
{
	s->lost = false;
	if (s->goal == GOAL_UP && s->operation == OPERATION_NONE)
		apply_want(s, GOAL_UP);
}

void apply_instance_changed(struct apply *a, const struct instance *i)
{
	struct apply_service *s = a->halted ? NULL : apply_find(a, i->service);
	if (!s)
		return;
	if (i->state == INSTANCE_RUNNING) {
		if (service_runs(s))
			take_details(s, i);
		else if (s->operation == OPERATION_NONE)
			take_over(s, i);
		return;
	}
	if (s->operation == OPERATION_START && i->started_ms && i->started_ms < s->started_ms)
		return; /* of the run before */
	s->exit_code = i->exit_code;
	s->exited_ms = i->exited_ms;
	if (s->operation == OPERATION_START)
		s->exited = true;
	else if (s->operation == OPERATION_NONE && (service_runs(s) || (i->dismissed && (s->backoff || s->present == PRESENT_FAILED))))
		service_exited(s, &(struct exit){i->exit_code, i->exited_ms, i->dismissed, i->lost, i->returned});
	else if (s->lost && i->returned)
		return_from_loss(s);
}
