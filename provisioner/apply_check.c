/* How a service is asked whether it is there, ready or healthy. */
#include "provisioner/apply_private.h"

static void probe_exec(void *arg, char *const *argv, unsigned timeout_ms, backend_exec_done *done, void *done_arg)
{
	struct apply_service *s = arg;
	backend_exec(s->apply->backend, &s->model->spec, argv, timeout_ms, done, done_arg);
}

struct probe_params service_probe_params(struct apply_service *s, const struct config_probe *what)
{
	return (struct probe_params){
	    .loop = s->apply->params.loop,
	    .what = what,
	    .host = MODEL_HOST,
	    .port = model_external_port(s->model, what->port),
	    .exec = probe_exec,
	    .arg = s,
	};
}

bool service_may_probe(const struct apply_service *s, const struct config_probe *what)
{
	return what->kind != PROBE_EXEC || trust_is_given(&s->apply->model->trust);
}

bool service_image_check(const struct apply_service *s, struct config_probe *ret)
{
	const struct config_service *c = s->model->config;
	bool counts = s->apply->backend && c->healthcheck.kind == PROBE_NONE && !c->healthcheck_disabled;
	const struct backend_check *check = counts ? backend_check_of(s->apply->backend, s->name) : NULL;
	if (!check)
		return false;
	*ret = (struct config_probe){.kind = PROBE_EXEC, .argv = check->argv, .interval_ms = check->interval_ms, .timeout_ms = check->timeout_ms,
	                             .start_period_ms = check->start_period_ms, .retries = check->retries};
	return true;
}
