/* The backends `docker` and `podman`: an environment's life on a container engine. */
#include "backends/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/backends.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/path.h"

/* ---- life ---- */

static void engine_free(struct engine *e)
{
	void (*closed)(void *arg) = e->closed;
	void *arg = e->closed_arg;
	engine_slots_free(e);
	engine_target_release(&e->target);
	error_release(&e->no_target);
	buffer_release(&e->events_line);
	buffer_release(&e->network_line);
	json_decref(e->network_wanted);
	free(e->subnet);
	free(e->namespace_);
	free(e->workspace);
	free(e->state_dir);
	free(e->workspace_root);
	free(e->architecture);
	engine_builds_free(e);
	free(e);
	closed(arg);
}

static void free_when_done(struct engine *e)
{
	if (e->closing && !e->busy && e->http_closed && e->retry_closed)
		engine_free(e);
}

void engine_begin(struct engine *e)
{
	e->busy++;
}

void engine_end(struct engine *e)
{
	e->busy--;
	free_when_done(e);
}

static int engine_open(const struct backend_ops *ops, const struct backend_params *params, struct backend **ret, struct error *err)
{
	struct engine *e = xcalloc(1, sizeof *e);
	const char *asked = params->target && strstr(params->target, "://") ? params->target : ops->name;
	e->base = (struct backend){ops, params->loop};
	e->namespace_ = xstrdup(params->namespace_);
	e->workspace = xstrdup(params->workspace);
	e->state_dir = xstrdup(params->state_dir);
	e->workspace_root = xstrdup(params->workspace_root);
	e->changed = params->changed;
	e->progress = params->progress;
	e->changed_arg = params->changed_arg;
	e->no_target = (struct error)ERROR_INIT;
	int r = engine_target_resolve(asked, params->address, &e->target, &e->no_target);
	if (r == 0) {
		const struct http_params http = {.loop = params->loop, .name = ops->name, .socket_path = e->target.socket_path, .url = e->target.http_url,
		                                 .ca = e->target.ca, .cert = e->target.cert, .key = e->target.key};
		r = http_new(&http, &e->http, &e->no_target);
	}
	if (r < 0)
		e->http_closed = true; /* probe says why */
	uv_timer_init(params->loop, &e->retry);
	e->retry.data = e;
	*ret = &e->base;
	return 0;
}

static int docker_open(const struct backend_params *params, struct backend **ret, struct error *err)
{
	return engine_open(&backend_docker, params, ret, err);
}

static int podman_open(const struct backend_params *params, struct backend **ret, struct error *err)
{
	return engine_open(&backend_podman, params, ret, err);
}

static void on_http_closed(void *arg)
{
	struct engine *e = arg;
	e->http_closed = true;
	free_when_done(e);
}

static void on_retry_closed(uv_handle_t *handle)
{
	struct engine *e = handle->data;
	e->retry_closed = true;
	free_when_done(e);
}

static void engine_close(struct backend *b, void (*closed)(void *arg), void *arg)
{
	struct engine *e = (struct engine *)b;
	e->closing = true;
	e->closed = closed;
	e->closed_arg = arg;
	engine_unwatch(e);
	uv_close((uv_handle_t *)&e->retry, on_retry_closed);
	if (e->http)
		http_close(e->http, on_http_closed, e);
}

static void engine_probe(struct backend *b, backend_done *done, void *arg)
{
	engine_negotiate((struct engine *)b, done, arg);
}

/* ---- what it cannot do ---- */

static void check_build(const struct service_spec *spec, backend_diagnostic *report, void *arg)
{
	const struct build_options *o = spec->build->options;
	for (char **field = o->refused; field && *field; field++) {
		cleanup_free char *name = xasprintf("build.%s", *field), *text = xasprintf("build.%s is not supported", *field);
		cleanup_free char *hint = xasprintf("leave it out in aether.local.yaml (build: !override ...), or take an image that is built elsewhere");
		report(arg, DIAGNOSTIC_UNSUPPORTED, spec->name, name, text, hint);
	}
	for (char **field = o->ignored; field && *field; field++) {
		cleanup_free char *name = xasprintf("build.%s", *field);
		report(arg, DIAGNOSTIC_WARNING, spec->name, name, "is not used", NULL);
	}
}

static void engine_check(struct backend *b, const struct service_spec *spec, backend_diagnostic *report, void *arg)
{
	if (!spec->image)
		report(arg, DIAGNOSTIC_UNSUPPORTED, spec->name, "image", "it has neither an image nor build", "name one");
	if (spec->build)
		check_build(spec, report, arg);
	const struct engine *e = (const struct engine *)b;
	cleanup_free char *far = spec->n_ports && engine_target_is_elsewhere(&e->target)
	                             ? xasprintf("the engine at %s seems to be on another machine, and publishes them on its own 127.0.0.1, which is not reached from here", e->target.url)
	                             : NULL;
	if (far)
		report(arg, DIAGNOSTIC_WARNING, spec->name, "ports", far, NULL);
	engine_check_binds(e, spec, report, arg);
	engine_check_options(e, spec, report, arg);
}

#define ENGINE_OPS                                                                                                     \
	.close = engine_close, .probe = engine_probe, .find = engine_find, .sweep = engine_sweep, .discard = engine_discard, .usage = engine_usage, .holds = engine_holds, .check = engine_check, .prepare = engine_prepare, .build = engine_build, .build_cancel = engine_build_cancel, .start = engine_start, .stop = engine_stop, \
	.remove = engine_remove, .clear = engine_clear, .list = engine_list, .exec = engine_exec, .attach = engine_attach, .sweep_attached = engine_sweep_attached, .check_of = engine_check_of, .settled = engine_settled, .differs = engine_differs, .log_path = engine_log_path, .lives = engine_lives, .rises = engine_rises, .tells_starts = true

const struct backend_ops backend_docker = {.name = "docker", .open = docker_open, ENGINE_OPS};
const struct backend_ops backend_podman = {.name = "podman", .open = podman_open, ENGINE_OPS};
