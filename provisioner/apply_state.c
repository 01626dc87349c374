/* The state of a service, and who is told of it. */
#include "provisioner/apply_private.h"

const char *service_state_name(enum service_state state)
{
	static const char *const names[] = {
	    [SERVICE_ABSENT] = "absent",       [SERVICE_WAITING] = "waiting",
	    [SERVICE_STARTING] = "starting",   [SERVICE_READY] = "ready",
	    [SERVICE_COMPLETED] = "completed", [SERVICE_RESTARTING] = "restarting",
	    [SERVICE_FAILED] = "failed",       [SERVICE_STOPPING] = "stopping",
	    [SERVICE_STOPPED] = "stopped",     [SERVICE_UNSUPPORTED] = "unsupported",
	};
	return names[state];
}

static enum service_state state_of(const struct apply_service *s)
{
	if (s->operation == OPERATION_STOP || s->operation == OPERATION_REMOVE || (service_goes_down(s) && service_runs(s)))
		return SERVICE_STOPPING;
	if (s->operation == OPERATION_START)
		return SERVICE_STARTING;
	switch (s->present) {
	case PRESENT_RUNNING:
		return s->unhealthy ? SERVICE_FAILED : SERVICE_STARTING;
	case PRESENT_READY:
		return s->gone ? SERVICE_RESTARTING : SERVICE_READY;
	case PRESENT_COMPLETED:
		return SERVICE_COMPLETED;
	case PRESENT_FAILED:
		return SERVICE_FAILED;
	case PRESENT_ABSENT:
	case PRESENT_STOPPED:
		break;
	}
	if (s->model && error_is_set(&s->model->unsupported))
		return model_is_refused(s->model) ? SERVICE_FAILED : SERVICE_UNSUPPORTED;
	if (s->goal == GOAL_UP)
		return s->backoff ? SERVICE_RESTARTING : SERVICE_WAITING;
	return s->present == PRESENT_STOPPED || s->goal == GOAL_STOPPED ? SERVICE_STOPPED : SERVICE_ABSENT;
}

void service_tell(struct apply_service *s, bool always)
{
	enum service_state state = state_of(s);
	bool state_changed = s->state != state;
	if (!state_changed && !always)
		return;
	s->state = state;
	if (!s->apply->halted)
		s->apply->params.changed(s->apply->params.arg, s, state_changed);
}

void service_tell_health(struct apply_service *s)
{
	if (!s->apply->halted && s->apply->params.health)
		s->apply->params.health(s->apply->params.arg, s);
	service_tell(s, true);
	apply_wake(s->apply);
}

const char *service_health_name(const struct apply_service *s)
{
	return s->paused ? "paused" : s->unplugged ? "unplugged" : s->unhealthy ? "unhealthy" : "healthy";
}

void service_set_held(struct apply_service *s, bool paused, bool unplugged)
{
	bool changed = s->paused != paused || s->unplugged != unplugged;
	s->paused = paused;
	s->unplugged = unplugged;
	if (changed)
		service_tell_health(s);
}
