/* The backend that an environment's configuration leads to: opened, asked what runs, told what will be wanted; what it says of itself. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "provisioner/environment_private.h"

#define PULL_STEP_PERCENT 5 /* between two events of one pull */

/* ---- what it tells ---- */

static void on_backend_changed(void *arg, const struct instance *instance)
{
	struct environment *e = arg;
	apply_instance_changed(e->apply, instance);
}

/* Each step is an event. */
static void tell_of_build(struct environment *e, const struct apply_service *s, const json_t *progress)
{
	json_t *step = json_object_get(progress, "step"), *steps = json_object_get(progress, "steps"), *text = json_object_get(progress, "text");
	if (s->progress && json_equal(step, json_object_get(s->progress, "step")) && json_equal(steps, json_object_get(s->progress, "steps")))
		return;
	cleanup_free char *state = json_integer_value(steps) ? xasprintf("building %d/%d", (int)json_integer_value(step), (int)json_integer_value(steps)) : xstrdup("building");
	cleanup_free char *masked = environment_mask(e, json_string_value(text) ? json_string_value(text) : "");
	environment_event(e, "build", json_pack("{s:s, s:s, s:O, s:s}", "service", s->name, "state", state, "image", json_object_get(progress, "image"), "text", masked));
}

/* Its beginning, some steps and, where it could be had, its end are events. */
static void tell_of_pull(struct environment *e, const struct apply_service *s, const json_t *progress)
{
	json_int_t percent = json_integer_value(json_object_get(progress, "percent")), before = json_integer_value(json_object_get(s->progress, "percent"));
	bool pulled = json_is_true(json_object_get(progress, "pulled"));
	if (!pulled && s->progress && percent / PULL_STEP_PERCENT == before / PULL_STEP_PERCENT)
		return;
	cleanup_free char *state = pulled ? xstrdup("pulled") : xasprintf("pulling %d %%", (int)percent);
	environment_event(e, "pull", json_pack("{s:s, s:s, s:O}", "service", s->name, "state", state, "image", json_object_get(progress, "image")));
}

static void tell_of_loss(struct environment *e, const char *service, const char *volume)
{
	cleanup_free char *text = xasprintf("%s: its volume %s was removed by others (docker volume prune?): it begins with no data", service, volume);
	log_warning("environment", "%s", text);
	environment_event(e, "data_lost", json_pack("{s:s, s:s}", "service", service, "volume", volume));
	if (e->model && !strv_contains(e->model->warnings, text))
		strv_push(&e->model->warnings, xstrdup(text));
	environment_mark(e, CHANGED_STATUS);
}

/* borrowed; NULL: nobody's. Of what is next there may be services that nothing else is known of yet. */
static struct apply_service *whose_progress(struct environment *e, const char *service, const json_t *progress)
{
	struct apply_service *s = apply_find(e->apply, service);
	if (s || !progress || e->halted || !model_service(e->next, service))
		return s;
	environment_mark(e, CHANGED_SERVICES);
	return apply_find_or_add(e->apply, service);
}

static void on_backend_progress(void *arg, const char *service, const json_t *progress)
{
	struct environment *e = arg;
	struct apply_service *s = whose_progress(e, service, progress);
	const char *lost = json_string_value(json_object_get(progress, "lost"));
	if (!s || e->halted)
		return;
	if (lost) {
		tell_of_loss(e, service, lost);
		return;
	}
	if (json_object_get(progress, "foreign")) {
		free(s->foreign);
		s->foreign = xstrdup(json_string_value(json_object_get(progress, "foreign")));
		environment_mark(e, CHANGED_STATUS);
		return;
	}
	if (json_object_get(progress, "building"))
		tell_of_build(e, s, progress);
	else if (progress)
		tell_of_pull(e, s, progress);
	json_decref(s->progress);
	s->progress = progress ? json_deep_copy(progress) : NULL;
	if (json_object_get(s->progress, "text")) { /* a step may have an argument's value in it */
		cleanup_free char *masked = environment_mask(e, json_string_value(json_object_get(s->progress, "text")));
		json_object_set_new(s->progress, "text", json_string(masked));
	}
	environment_mark(e, CHANGED_STATUS);
}

static void on_diagnostic(void *arg, enum diagnostic_level level, const char *service, const char *field,
                          const char *text, const char *hint)
{
	struct model *m = arg;
	struct model_service *s = model_service(m, service);
	if (level == DIAGNOSTIC_WARNING || !s) {
		strv_pushf(&m->warnings, "%s%s%s: %s", service, field ? "." : "", field ? field : "", text);
		return;
	}
	if (error_is_set(&s->unsupported))
		return;
	enum error_code code = s->config->run_command ? ERROR_PROGRAM_NOT_FOUND : field && !strcmp(field, "volumes") ? ERROR_PERMISSION
	                       : field && !strncmp(field, "build.", 6) ? ERROR_BUILD_FAILED
	                                                               : ERROR_IMAGE_NOT_FOUND;
	error_set(&s->unsupported, code, "service %s: %s", service, text);
	if (hint)
		error_hint(&s->unsupported, "%s", hint);
}

void environment_backend_check(struct environment *e, struct model *m)
{
	for (size_t i = 0; e->backend && m && i < m->n_services; i++)
		if (!error_is_set(&m->services[i].unsupported))
			backend_check(e->backend, &m->services[i].spec, on_diagnostic, m);
}

/* ---- its life ---- */

static void on_backend_closed(void *arg)
{
	struct environment *e = arg;
	e->open_handles--;
	environment_wake(e);
}

void environment_backend_close(struct environment *e)
{
	if (!e->backend)
		return;
	apply_set_backend(e->apply, NULL);
	e->open_handles++;
	backend_close(move_ptr(e->backend), on_backend_closed, e);
	free(move_ptr(e->backend_name));
	e->adopted = false;
}

static void backend_failed(struct environment *e, const struct error *err)
{
	error_copy(&e->backend_error, err);
	error_copy(&e->failure, err);
	environment_fail(e, err);
}

static void open_backend(struct environment *e, const char *name)
{
	const struct backend_params params = {
	    .loop = e->params.loop,
	    .target = name,
	    .address = e->model ? e->model->backend_target : e->stored_target,
	    .namespace_ = e->id->namespace_,
	    .workspace = e->id->workspace,
	    .workspace_root = e->id->root,
	    .state_dir = e->id->state_dir,
	    .shared_dir = e->id->shared_dir,
	    .shim = e->params.shim,
	    .keeper_pidfd = e->params.keeper_pidfd,
	    .uid = e->uid,
	    .changed = on_backend_changed,
	    .progress = on_backend_progress,
	    .changed_arg = e,
	};
	cleanup_error struct error err = ERROR_INIT;
	if (backend_open(&params, &e->backend, &err) < 0) {
		e->backend = NULL;
		backend_failed(e, &err);
		return;
	}
	free(e->backend_name);
	e->backend_name = xstrdup(name);
	apply_set_backend(e->apply, e->backend);
	environment_backend_check(e, e->model);
	environment_mark(e, CHANGED_STATUS);
}

static void on_adopted(void *arg, const struct error *err, const struct instances *list)
{
	struct environment *e = arg;
	e->adopting = false;
	if (e->halted)
		return;
	if (err) {
		backend_failed(e, err);
		return;
	}
	e->adopted = true;
	const char *desired = e->desired ? e->desired : "";
	apply_adopt(e->apply, list, !strcmp(desired, "up"), e->resting);
	if (!strcmp(desired, "stopped"))
		environment_want_all(e, GOAL_STOPPED);
	environment_settle_recalled(e);
	if (apply_has_changes(e->apply))
		environment_notice_change(e, NULL);
	environment_mark(e, CHANGED_STATUS | CHANGED_SERVICES);
}

static void on_prepared(void *arg, const struct error *err)
{
	if (err && err->err != ECANCELED)
		log_warning("environment", "preparing: %s", err->message); /* its start will say it to who waits */
}

static void prepare(struct environment *e)
{
	cleanup_free bool *chosen = xcalloc(e->model->n_services, sizeof *chosen);
	const struct plan_selection by_default = {.names = NULL};
	if (!trust_is_given(&e->model->trust))
		return; /* words of its command lines are the file's */
	e->prepared = true;
	if (plan_select(e->model->config, &by_default, chosen, NULL, NULL) < 0)
		return;
	for (size_t i = 0; i < e->model->n_services; i++) {
		const struct model_service *s = &e->model->services[i];
		if (chosen[i] && !error_is_set(&s->unsupported) && (!s->spec.process || s->spec.process->init))
			backend_prepare(e->backend, &s->spec, on_prepared, e);
	}
}

const char *environment_backend_name(const struct environment *e)
{
	return e->model ? e->model->backend : e->stored_backend;
}

void environment_backend_turn(struct environment *e)
{
	const char *name = environment_backend_name(e);
	if (!e->load_done || !name)
		return;
	if (e->backend && strcmp(e->backend_name, name) && !apply_is_active(e->apply) && e->teardown == TEARDOWN_NONE &&
	    !e->adopting)
		environment_backend_close(e);
	if (!e->backend && !error_is_set(&e->backend_error))
		open_backend(e, name);
	if (e->backend && !e->adopted && !e->adopting && !error_is_set(&e->backend_error)) {
		e->adopting = true;
		backend_list(e->backend, on_adopted, e);
	}
	if (e->adopted && !e->prepared && e->model && e->model->planned && e->teardown == TEARDOWN_NONE && !e->closing)
		prepare(e);
}
