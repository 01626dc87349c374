/* Health: Compose's healthcheck of what is ready. */
#include "base/log.h"
#include "provisioner/apply_private.h"

void service_health_end(struct apply_service *s)
{
	probe_cancel(s->health_probe);
	s->health_probe = NULL;
	s->health_failures = 0;
	s->unhealthy = false;
	service_timer_end(s, &s->health);
}

/* A recipe's process is asked in the recipe's way: the file's check means the image's programs, and its ports. */
static bool health_check(const struct apply_service *s, struct config_probe *ret)
{
	const struct model_service *m = s->model;
	const struct config_service *c = m ? m->config : NULL;
	if (!m || !s->apply->backend)
		return false;
	if (c->healthcheck.kind == PROBE_NONE || c->healthcheck_disabled)
		return service_image_check(s, ret);
	*ret = c->healthcheck;
	if (m->recipe && m->spec.process && !c->run_command) {
		*ret = m->ready;
		ret->interval_ms = c->healthcheck.interval_ms;
		ret->retries = c->healthcheck.retries;
		if (ret->kind == PROBE_NONE || ret->kind == PROBE_LOG)
			return false;
	}
	return service_may_probe(s, ret);
}

static void on_health_timer(uv_timer_t *timer);

static void health_again(struct apply_service *s)
{
	struct config_probe what;
	if (s->health && health_check(s, &what))
		uv_timer_start(s->health, on_health_timer, what.interval_ms ? what.interval_ms : APPLY_HEALTH_INTERVAL_MS, 0);
}

static void health_next(struct apply_service *s, bool unhealthy)
{
	bool changed = s->unhealthy != unhealthy;
	s->health_probe = NULL;
	s->unhealthy = unhealthy;
	health_again(s);
	if (changed)
		service_tell_health(s);
}

static void on_healthy(void *arg)
{
	struct apply_service *s = arg;
	s->health_failures = 0;
	health_next(s, false);
}

static void on_unhealthy(void *arg, const char *why)
{
	struct apply_service *s = arg;
	struct config_probe what;
	unsigned retries = health_check(s, &what) ? what.retries : 0;
	bool unhealthy = ++s->health_failures >= (retries ? retries : APPLY_HEALTH_RETRIES);
	if (unhealthy && !s->unhealthy)
		log_warning("apply", "%s is unhealthy: %s", s->name, why);
	health_next(s, s->unhealthy || unhealthy);
}

static void on_health_timer(uv_timer_t *timer)
{
	struct apply_service *s = timer->data;
	struct config_probe what;
	if (s->present != PRESENT_READY || !health_check(s, &what))
		return;
	struct probe_params params = service_probe_params(s, &what);
	params.ready = on_healthy;
	params.failed = on_unhealthy;
	s->health_probe = probe_start(&params);
}

void service_health_begin(struct apply_service *s)
{
	struct config_probe what;
	service_health_end(s);
	if (!health_check(s, &what))
		return;
	s->health = service_timer_new(s);
	health_again(s);
}
