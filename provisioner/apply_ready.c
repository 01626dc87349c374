/* Readiness: what runs is asked until it says that it is ready, first where the file says, then beyond. */
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "provisioner/apply_private.h"

void service_settled(struct apply_service *s)
{
	if (s->model && s->apply->backend)
		backend_settled(s->apply->backend, &s->model->spec);
}

static void on_proven(void *arg)
{
	struct apply_service *s = arg;
	s->probe = NULL;
	s->present = PRESENT_READY;
	s->proven = true;
	s->used_up = false;
	service_settled(s);
	service_health_begin(s);
	error_release(&s->error);
	service_tell(s, false);
	apply_wake(s->apply);
}

/* As docker says, and whoever waits for it to be healthy: it runs on, and may become so yet. */
static void on_exhausted(void *arg, const char *why, unsigned tries)
{
	struct apply_service *s = arg;
	cleanup_error struct error err = ERROR_INIT;
	cleanup_free char *times = s->used_up ? xstrdup("again") : xasprintf("%u times", tries);
	error_set(&err, ERROR_SERVICE_FAILED, "service %s is unhealthy: its health check has failed %s: %s", s->name, times, why);
	s->used_up = true;
	service_fail_running(s, &err);
}

/* A check whose failures count: Compose's defaults where it says nothing. */
static void count_retries(const struct apply_service *s, struct config_probe *check, struct probe_params *params)
{
	check->interval_ms = s->used_up ? 0 : check->interval_ms ? check->interval_ms : APPLY_HEALTH_INTERVAL_MS;
	check->start_period_ms = s->used_up ? 0 : check->start_period_ms;
	check->retries = s->used_up ? 1 : check->retries ? check->retries : APPLY_HEALTH_RETRIES;
	params->exhausted = on_exhausted;
}

static void probe_more(struct apply_service *s, struct config_probe *what, bool counts)
{
	struct probe_params params = service_probe_params(s, what);
	params.ready = on_proven;
	if (counts)
		count_retries(s, what, &params);
	s->probe = probe_start(&params);
}

static void probe_for(struct apply_service *s, unsigned least_ms);

/* What the file says of readiness counts alone, but that its check may find what is not reached; else the image is heard, too. */
static void on_ready(void *arg)
{
	struct apply_service *s = arg;
	struct config_probe check;
	s->probe = NULL;
	if (s->model && s->model->ready.kind == PROBE_NONE && s->apply->backend && !backend_lives(s->apply->backend, s->name, s->pid)) {
		probe_for(s, APPLY_ENDING_MS); /* it has ended, which is about to be told, by this loop: not at once */
		return;
	}
	if (s->model && s->model->reached.kind != PROBE_NONE) {
		check = s->model->reached;
		probe_more(s, &check, false);
	} else if (s->model && s->model->config->ready.kind == PROBE_NONE && service_image_check(s, &check)) {
		probe_more(s, &check, true);
	} else {
		on_proven(s);
	}
}

/* What was found running has run for a while. */
static unsigned left_to_settle(const struct apply_service *s, unsigned ms)
{
	int64_t ran = s->proven ? now_wall_ms() - s->started_ms : 0;
	return ran < 0 || ran > ms ? 0 : ms - (unsigned)ran;
}

/* What is asked of nothing takes at least so long. */
static void probe_for(struct apply_service *s, unsigned least_ms)
{
	if (!s->model || s->probe || s->adaptation || service_adapts(s) || !service_may_probe(s, &s->model->ready))
		return;
	cleanup_free char *log = backend_log_path(s->apply->backend, s->name);
	struct config_probe what = s->model->ready;
	if (what.kind == PROBE_NONE)
		what.linger_ms = left_to_settle(s, what.linger_ms);
	if (what.kind == PROBE_NONE && what.linger_ms < least_ms)
		what.linger_ms = least_ms;
	struct probe_params params = service_probe_params(s, &what);
	params.log_path = log;
	params.log_offset = s->log_offset;
	params.ready = on_ready;
	if (what.argv && what.argv == s->model->config->healthcheck.argv)
		count_retries(s, &what, &params);
	s->probe = probe_start(&params);
}

void service_probe(struct apply_service *s)
{
	probe_for(s, 0);
}

void service_probe_end(struct apply_service *s)
{
	probe_cancel(s->probe);
	s->probe = NULL;
	service_adapt_end(s);
	service_health_end(s);
}
