#include "backends/chaos.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"

struct chaos {
	struct backend base;
	struct backend *inner;
	struct chaos_rule *rules;
	unsigned *seen; /* parallel: calls of its kind so far */
	size_t n_rules;
	struct call *calls;
	unsigned active;
	bool closing;
	void (*closed)(void *arg);
	void *closed_arg;
};

/* One call on its way down and its answer on its way up. */
struct call {
	struct chaos *chaos;
	struct call *next;
	struct chaos_rule rule;
	uv_timer_t timer;
	bool answered; /* by the backend beneath, or instead of it */
	struct error err;
	struct instances list;
	int exit_code;
	char *output;
	backend_done *done;
	backend_list_done *list_done;
	backend_exec_done *exec_done;
	void *arg;
};

static void active_end(struct chaos *c)
{
	if (--c->active || !c->closing)
		return;
	void (*closed)(void *) = c->closed;
	void *arg = c->closed_arg;
	free(c->rules);
	free(c->seen);
	free(c);
	closed(arg);
}

static void call_closed(uv_handle_t *handle)
{
	struct call *call = handle->data;
	struct chaos *c = call->chaos;
	error_release(&call->err);
	instances_release(&call->list);
	free(call->output);
	free(call);
	active_end(c);
}

static void call_end(struct call *call)
{
	for (struct call **at = &call->chaos->calls; *at; at = &(*at)->next)
		if (*at == call) {
			*at = call->next;
			break;
		}
	const struct error *err = error_is_set(&call->err) ? &call->err : NULL;
	if (call->done)
		call->done(call->arg, err);
	if (call->list_done)
		call->list_done(call->arg, err, &call->list);
	if (call->exec_done)
		call->exec_done(call->arg, err, call->exit_code, call->output ? call->output : "");
	uv_close((uv_handle_t *)&call->timer, call_closed);
}

static void call_due(uv_timer_t *timer)
{
	call_end(timer->data);
}

/* The answer is known: keep it, spoil it, pass it on in time. */
static void call_answer(struct call *call, const struct error *err)
{
	call->answered = true;
	if (err)
		error_copy(&call->err, err);
	else if (call->rule.afterwards != ERROR_NONE)
		error_set(&call->err, call->rule.afterwards, "chaos: said to have failed");
	if (call->chaos->closing)
		call_end(call);
	else
		uv_timer_start(&call->timer, call_due, call->rule.delay_ms, 0);
}

static void on_done(void *arg, const struct error *err)
{
	call_answer(arg, err);
}

static void on_list(void *arg, const struct error *err, const struct instances *list)
{
	struct call *call = arg;
	call->list.items = xcalloc(list->count + 1, sizeof *call->list.items);
	for (size_t i = 0; i < list->count; i++) {
		struct instance *copy = &call->list.items[call->list.count++];
		*copy = list->items[i];
		copy->service = xstrdup(copy->service);
		copy->handle = xstrdup(copy->handle);
		copy->config_hash = xstrdup(copy->config_hash);
	}
	call_answer(call, err);
}

static void on_exec(void *arg, const struct error *err, int exit_code, const char *output)
{
	struct call *call = arg;
	call->exit_code = exit_code;
	call->output = xstrdup(output);
	call_answer(call, err);
}

static struct chaos_rule rule_for(struct chaos *c, enum chaos_op op)
{
	struct chaos_rule found = {.op = op};
	bool taken = false;
	for (size_t i = 0; i < c->n_rules; i++) {
		const struct chaos_rule *r = &c->rules[i];
		if (r->op != op)
			continue;
		unsigned n = c->seen[i]++;
		if (taken || n < r->skip || (r->count && n >= r->skip + r->count))
			continue;
		found = *r;
		taken = true;
	}
	return found;
}

static struct call *call_new(struct backend *b, enum chaos_op op, void *arg)
{
	struct chaos *c = (struct chaos *)b;
	struct call *call = xcalloc(1, sizeof *call);
	call->chaos = c;
	call->rule = rule_for(c, op);
	call->arg = arg;
	call->next = c->calls;
	c->calls = call;
	c->active++;
	uv_timer_init(c->base.loop, &call->timer);
	call->timer.data = call;
	return call;
}

/* Does it fail before it is passed on? */
static bool stopped(struct call *call)
{
	if (call->rule.instead == ERROR_NONE)
		return false;
	cleanup_error struct error err = ERROR_INIT;
	error_set(&err, call->rule.instead, "chaos: never tried");
	call_answer(call, &err);
	return true;
}

static struct backend *inner(struct backend *b)
{
	return ((struct chaos *)b)->inner;
}

static void chaos_probe(struct backend *b, backend_done *done, void *arg)
{
	struct call *call = call_new(b, CHAOS_PROBE, arg);
	call->done = done;
	if (!stopped(call))
		backend_probe(inner(b), on_done, call);
}

static void chaos_check(struct backend *b, const struct service_spec *spec, backend_diagnostic *report, void *arg)
{
	backend_check(inner(b), spec, report, arg);
}

static void chaos_prepare(struct backend *b, const struct service_spec *spec, backend_done *done, void *arg)
{
	struct call *call = call_new(b, CHAOS_PREPARE, arg);
	call->done = done;
	if (!stopped(call))
		backend_prepare(inner(b), spec, on_done, call);
}

static void chaos_start(struct backend *b, const struct service_spec *spec, backend_done *done, void *arg)
{
	struct call *call = call_new(b, CHAOS_START, arg);
	call->done = done;
	if (!stopped(call))
		backend_start(inner(b), spec, on_done, call);
}

static void chaos_stop(struct backend *b, const char *service, int signal, unsigned grace_ms, backend_done *done,
                       void *arg)
{
	struct call *call = call_new(b, CHAOS_STOP, arg);
	call->done = done;
	if (!stopped(call))
		backend_stop(inner(b), service, signal, grace_ms, on_done, call);
}

static void chaos_remove(struct backend *b, const char *service, backend_done *done, void *arg)
{
	struct call *call = call_new(b, CHAOS_REMOVE, arg);
	call->done = done;
	if (!stopped(call))
		backend_remove(inner(b), service, on_done, call);
}

static void chaos_clear(struct backend *b, backend_done *done, void *arg)
{
	struct call *call = call_new(b, CHAOS_CLEAR, arg);
	call->done = done;
	if (!stopped(call))
		backend_clear(inner(b), on_done, call);
}

static void chaos_list(struct backend *b, backend_list_done *done, void *arg)
{
	struct call *call = call_new(b, CHAOS_LIST, arg);
	call->list_done = done;
	if (!stopped(call))
		backend_list(inner(b), on_list, call);
}

static void chaos_exec(struct backend *b, const struct service_spec *spec, char *const *argv, unsigned timeout_ms,
                       backend_exec_done *done, void *arg)
{
	struct call *call = call_new(b, CHAOS_EXEC, arg);
	call->exec_done = done;
	if (!stopped(call))
		backend_exec(inner(b), spec, argv, timeout_ms, on_exec, call);
}

static bool chaos_differs(struct backend *b, const struct service_spec *spec)
{
	return backend_differs(inner(b), spec);
}

static void chaos_settled(struct backend *b, const struct service_spec *spec)
{
	backend_settled(inner(b), spec);
}

static const struct backend_check *chaos_check_of(struct backend *b, const char *service)
{
	return backend_check_of(inner(b), service);
}

static bool chaos_lives(struct backend *b, const char *service, pid_t pid)
{
	return backend_lives(inner(b), service, pid);
}

static bool chaos_rises(struct backend *b, const char *service)
{
	return backend_rises(inner(b), service);
}

static char *chaos_log_path(struct backend *b, const char *service)
{
	return backend_log_path(inner(b), service);
}

static void inner_closed(void *arg)
{
	active_end(arg);
}

/* What waits for its time is canceled here; what is still beneath is canceled there. */
static void close_now(void *arg)
{
	struct chaos *c = arg;
	for (struct call *call = c->calls, *next; call; call = next) {
		next = call->next;
		if (!call->answered)
			continue;
		error_set_errno(&call->err, ERROR_CANCELED, ECANCELED, "the backend is being closed");
		call_end(call);
	}
	backend_close(c->inner, inner_closed, c);
}

static void chaos_close(struct backend *b, void (*closed)(void *arg), void *arg)
{
	struct chaos *c = (struct chaos *)b;
	c->closing = true;
	c->closed = closed;
	c->closed_arg = arg;
	backend_defer(c->base.loop, close_now, c);
}

static const struct backend_ops chaos_ops = {
    .name = "chaos",
    .close = chaos_close,
    .probe = chaos_probe,
    .check = chaos_check,
    .prepare = chaos_prepare,
    .start = chaos_start,
    .stop = chaos_stop,
    .remove = chaos_remove,
    .clear = chaos_clear,
    .list = chaos_list,
    .exec = chaos_exec,
    .check_of = chaos_check_of,
    .settled = chaos_settled,
    .differs = chaos_differs,
    .log_path = chaos_log_path,
    .lives = chaos_lives,
    .rises = chaos_rises,
};

struct backend *chaos_wrap(struct backend *wrapped, const struct chaos_rule *rules, size_t n_rules)
{
	struct chaos *c = xcalloc(1, sizeof *c);
	c->base = (struct backend){&chaos_ops, wrapped->loop};
	c->inner = wrapped;
	c->rules = xcalloc(n_rules + 1, sizeof *c->rules);
	for (size_t i = 0; i < n_rules; i++)
		c->rules[i] = rules[i];
	c->seen = xcalloc(n_rules + 1, sizeof *c->seen);
	c->n_rules = n_rules;
	c->active = 1; /* until the one beneath is closed */
	return &c->base;
}
