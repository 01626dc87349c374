/* A program in a service's container: a probe, a hook.
 * https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Exec */
#include <stdlib.h>
#include <string.h>

#include "backends/engine.h"
#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"

struct exec {
	struct engine *e;
	char *what, *id;
	struct http_call *call;
	uv_timer_t timer;
	unsigned timeout_ms;
	bool timed_out, answered;
	struct engine_frames frames;
	struct buffer output;
	backend_exec_done *done;
	void *arg;
};

static void on_timer_closed(uv_handle_t *handle)
{
	struct exec *x = handle->data;
	engine_end(x->e);
	buffer_release(&x->output);
	free(x->what);
	free(x->id);
	free(x);
}

static void finish(struct exec *x, const struct error *err, int exit_code)
{
	const char *text = buffer_str(&x->output);
	if (x->output.len > BACKEND_EXEC_OUTPUT_MAX)
		text += x->output.len - BACKEND_EXEC_OUTPUT_MAX;
	cleanup_error struct error late = ERROR_INIT;
	if (x->timed_out && !x->e->closing)
		error_set(&late, ERROR_NOT_READY, "%s: not done within %u ms", x->what, x->timeout_ms);
	x->done(x->arg, error_is_set(&late) ? &late : err, exit_code, text);
	uv_close((uv_handle_t *)&x->timer, on_timer_closed);
}

static void on_inspected(void *arg, const struct error *err, int status, const json_t *json)
{
	struct exec *x = arg;
	const json_t *code = json_object_get(json, "ExitCode");
	cleanup_error struct error unknown = ERROR_INIT;
	if (!json_is_integer(code)) /* it runs still: the stream broke */
		error_set(&unknown, ERROR_BACKEND_UNREACHABLE, "%s: the engine does not say how it ended", x->what);
	finish(x, err ? err : error_is_set(&unknown) ? &unknown : NULL, (int)json_integer_value(code));
}

static void on_end(void *arg, const struct error *err, int status, const json_t *json)
{
	struct exec *x = arg;
	x->call = NULL;
	uv_timer_stop(&x->timer);
	cleanup_free char *path = xasprintf("/exec/%s/json", x->id);
	if (err)
		finish(x, err, 0);
	else
		engine_call(x->e, "GET", path, NULL, ENGINE_CALL_MS, on_inspected, x);
}

static void take(void *arg, int stream, const char *text, size_t len)
{
	struct exec *x = arg;
	buffer_add(&x->output, text, len);
	if (x->output.len <= 2 * BACKEND_EXEC_OUTPUT_MAX)
		return;
	memmove(x->output.data, x->output.data + x->output.len - BACKEND_EXEC_OUTPUT_MAX, BACKEND_EXEC_OUTPUT_MAX + 1);
	x->output.len = BACKEND_EXEC_OUTPUT_MAX;
}

static bool on_data(void *arg, int status, const char *data, size_t len)
{
	struct exec *x = arg;
	engine_frames_feed(&x->frames, data, len, take, x);
	return true;
}

static void on_made(void *arg, const struct error *err, int status, const json_t *json)
{
	struct exec *x = arg;
	const char *id = json_string_value(json_object_get(json, "Id"));
	cleanup_error struct error none = ERROR_INIT;
	error_set(&none, x->e->closing || x->timed_out ? ERROR_CANCELED : ERROR_INTERNAL, "%s: not begun", x->what);
	if (err || !id || x->e->closing || x->timed_out) {
		finish(x, err ? err : &none, 0);
		return;
	}
	x->id = xstrdup(id);
	cleanup_free char *path = xasprintf("/exec/%s/start", id);
	json_t *body = json_pack("{s:b, s:b}", "Detach", false, "Tty", false);
	x->call = engine_stream(x->e, "POST", path, body, NULL, 0, on_data, on_end, x);
}

/* The program is left to itself: an engine has no way to end one. */
static void on_timeout(uv_timer_t *timer)
{
	struct exec *x = timer->data;
	x->timed_out = true;
	http_cancel(x->call);
}

struct exec *engine_exec_body(struct engine *e, const char *what, const char *container, json_t *body, unsigned timeout_ms, backend_exec_done *done, void *arg)
{
	struct exec *x = xcalloc(1, sizeof *x);
	*x = (struct exec){.e = e, .what = xstrdup(what), .timeout_ms = timeout_ms, .output = BUFFER_INIT, .done = done, .arg = arg};
	engine_begin(e);
	uv_timer_init(e->base.loop, &x->timer);
	x->timer.data = x;
	uv_update_time(e->base.loop); /* the caller may have been at work since the loop looked at its clock */
	uv_timer_start(&x->timer, on_timeout, timeout_ms, 0);
	cleanup_free char *path = xasprintf("/containers/%s/exec", container);
	engine_call(e, "POST", path, body, ENGINE_CALL_MS, on_made, x);
	return x;
}

void engine_exec_give_up(struct exec *x)
{
	on_timeout(&x->timer);
}

void engine_exec(struct backend *b, const struct service_spec *spec, char *const *argv, unsigned timeout_ms, backend_exec_done *done, void *arg)
{
	struct engine *e = (struct engine *)b;
	json_t *cmd = json_array();
	cleanup_free char *what = xasprintf("%s in %s", argv[0] ? argv[0] : "", spec->name), *name = engine_container_name(e, spec->name);
	for (; *argv; argv++)
		json_array_append_new(cmd, json_string(*argv));
	engine_exec_body(e, what, name, json_pack("{s:b, s:b, s:o}", "AttachStdout", true, "AttachStderr", true, "Cmd", cmd), timeout_ms, done, arg);
}
