/* A service has ended: that is its completion, a failure, or it is restarted after a while. */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "provisioner/apply_private.h"

static bool may_end(const struct apply_service *s)
{
	const struct model *m = s->apply->model;
	if (s->model->one_shot)
		return true;
	for (size_t i = 0; i < m->n_services; i++)
		for (size_t d = 0; d < m->services[i].config->n_depends_on; d++) {
			const struct config_dependency *dep = &m->services[i].config->depends_on[d];
			if (dep->condition == DEPENDS_COMPLETED && !strcmp(dep->service, s->name))
				return true;
		}
	return false;
}

/* ---- restarts ---- */

static bool restarts(const struct apply_service *s)
{
	switch (s->model->config->restart) {
	case RESTART_NO:
		return false;
	case RESTART_ON_FAILURE:
		return s->exit_code != 0 && (!s->model->config->restart_max || s->restarts < s->model->config->restart_max);
	case RESTART_ALWAYS:
	case RESTART_UNLESS_STOPPED:
		return true;
	}
	return false;
}

void service_backoff_end(struct apply_service *s)
{
	service_timer_end(s, &s->backoff);
}

static void on_backoff(uv_timer_t *timer)
{
	struct apply_service *s = timer->data;
	service_backoff_end(s);
	apply_wake(s->apply);
}

static void back_off(struct apply_service *s)
{
	uint64_t delay = (uint64_t)APPLY_BACKOFF_MS << (s->quick_exits ? s->quick_exits - 1 : 0);
	s->restarts++;
	s->present = PRESENT_STOPPED;
	s->backoff = service_timer_new(s);
	uv_timer_start(s->backoff, on_backoff, delay > APPLY_BACKOFF_MAX_MS ? APPLY_BACKOFF_MAX_MS : delay, 0);
}

/* ---- exits ---- */

static void describe_exit(const struct apply_service *s, char *out, size_t size)
{
	if (s->exit_code > 128 && s->exit_code < 128 + 65)
		snprintf(out, size, "killed by signal %d", s->exit_code - 128);
	else
		snprintf(out, size, "exit status %d", s->exit_code);
}

static void judge_exit(struct apply_service *s, bool was_ready)
{
	char how[48];
	cleanup_error struct error err = ERROR_INIT;
	describe_exit(s, how, sizeof how);
	if (s->exit_code == 0 && s->model->config->restart <= RESTART_ON_FAILURE && may_end(s)) {
		service_settled(s);
		s->present = PRESENT_COMPLETED;
		return;
	}
	if (!restarts(s)) {
		error_set(&err, ERROR_SERVICE_FAILED, "service %s has ended%s: %s", s->name,
		          was_ready ? "" : " before it was ready", how);
		service_fail(s, &err);
		return;
	}
	bool quick = !was_ready || now_monotonic_ms() - s->started_at < APPLY_QUICK_EXIT_MS;
	s->quick_exits = quick ? s->quick_exits + 1 : 1;
	if (s->quick_exits <= APPLY_QUICK_EXITS) {
		back_off(s);
		return;
	}
	error_set(&err, ERROR_SERVICE_FAILED, "service %s ends again and again (%u times in a row): %s", s->name,
	          s->quick_exits, how);
	service_fail(s, &err);
}

/* Whoever has ended it does not want it, and may be about to make another in its place. */
static void dismiss(struct apply_service *s)
{
	service_backoff_end(s);
	error_release(&s->error);
	s->goal = GOAL_NONE;
	s->dismissed = true;
}

static void lose(struct apply_service *s)
{
	cleanup_error struct error err = ERROR_INIT;
	error_set(&err, ERROR_BACKEND_UNREACHABLE, "service %s has ended with its engine, which does not answer", s->name);
	error_hint(&err, "it is started again when that answers");
	s->lost = true;
	service_fail(s, &err);
}

void service_exited(struct apply_service *s, const struct exit *how)
{
	bool was_ready = s->present == PRESENT_READY;
	s->changes++;
	s->exit_code = how->code;
	s->exited_ms = how->ms ? how->ms : now_wall_ms();
	s->pid = 0;
	s->memory_bytes = 0;
	s->gone = s->lost = s->paused = s->unplugged = false;
	service_probe_end(s);
	s->present = PRESENT_STOPPED;
	bool counts = s->goal == GOAL_UP && s->model && s->operation == OPERATION_NONE && !s->restart && !s->recreate;
	if (counts && how->dismissed)
		dismiss(s);
	else if (counts && how->lost)
		lose(s);
	else if (counts && !how->returned)
		judge_exit(s, was_ready);
	service_tell(s, true);
	apply_wake(s->apply);
}
