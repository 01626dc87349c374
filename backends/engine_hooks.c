/* What is run in a service's container when it has been started, and before it is stopped, as docker compose does it:
 * https://github.com/compose-spec/compose-spec/blob/main/05-services.md#post_start. One that fails after the start has the start fail; one that fails before
 * the stop does not keep anything up. */
#include <stdlib.h>
#include <string.h>

#include "backends/engine.h"
#include "base/alloc.h"
#include "base/cleanup.h"

#define HOOKS_MAX 100 /* of a label */

struct hooks {
	struct engine *e;
	struct hooks *later;
	char *service, *container;
	const char *kind;
	char **bodies;
	size_t next;
	struct exec *exec;
	unsigned timeout_ms;
	bool given_up; /* before the present one was over: that is left to itself */
	struct error error;
	backend_done *done;
	void *arg;
};

/* ---- which ---- */

void engine_hooks_take(struct engine *e, const char *service, const json_t *container)
{
	struct engine_slot *slot = engine_slot(e, service);
	const char *label = engine_label(json_object_get(json_object_get(container, "Config"), "Labels"), CONTAINER_LABEL_PRE_STOP);
	json_t *list = label ? json_loads(label, 0, NULL) : NULL;
	strv_free(move_ptr(slot->pre_stop));
	for (size_t i = 0; i < json_array_size(list) && i < HOOKS_MAX; i++)
		if (json_is_object(json_array_get(list, i)))
			strv_push(&slot->pre_stop, json_dumps(json_array_get(list, i), JSON_COMPACT | JSON_SORT_KEYS));
	json_decref(list);
}

/* ---- one after the other ---- */

static void end(void *arg)
{
	struct hooks *h = arg;
	struct engine *e = h->e;
	for (struct hooks **at = &e->hooks; *at; at = &(*at)->later)
		if (*at == h) {
			*at = h->later;
			break;
		}
	h->done(h->arg, error_is_set(&h->error) ? &h->error : NULL);
	error_release(&h->error);
	strv_free(h->bodies);
	free(h->service);
	free(h->container);
	free(h);
	engine_end(e);
}

/* Docker's words, and Podman's. That it has ended is told otherwise, and better. */
static bool does_not_run(const struct error *err)
{
	static const char *const words[] = {"is not running", "on running containers", "No such container", "no such container", "is paused"};
	for (size_t i = 0; err && err->message && i < sizeof words / sizeof *words; i++)
		if (strstr(err->message, words[i]))
			return true;
	return false;
}

/* borrowed of `text`, which is cut */
static const char *last_line(char *text)
{
	size_t len = strlen(text);
	while (len && strchr("\r\n ", text[len - 1]))
		text[--len] = '\0';
	const char *line = strrchr(text, '\n');
	return line ? line + 1 : text;
}

static void next(struct hooks *h);

static void on_exec(void *arg, const struct error *err, int exit_code, const char *output)
{
	struct hooks *h = arg;
	h->exec = NULL;
	cleanup_free char *said = xstrdup(output ? output : ""), *heard = *said ? xasprintf("%s%s", said, said[strlen(said) - 1] == '\n' ? "" : "\n") : NULL;
	if (heard && !h->e->closing)
		engine_log_add(h->e, h->service, heard);
	if (does_not_run(err)) {
		end(h);
		return;
	}
	if (h->given_up)
		error_set(&h->error, ERROR_CANCELED, "its %s hook was given up", h->kind);
	else if (err)
		error_copy(&h->error, err);
	else if (exit_code)
		error_set(&h->error, ERROR_SERVICE_FAILED, "its %s hook %zu has ended with exit status %d%s%s", h->kind, h->next, exit_code, *said ? ": " : "", last_line(said));
	next(h);
}

static void next(struct hooks *h)
{
	const char *body = error_is_set(&h->error) || h->e->closing || !h->bodies ? NULL : h->bodies[h->next];
	cleanup_free char *what = xasprintf("%s hook %zu of %s", h->kind, h->next + 1, h->service);
	if (!body) {
		backend_defer(h->e->base.loop, end, h);
		return;
	}
	h->next++;
	h->exec = engine_exec_body(h->e, what, h->container, json_loads(body, 0, NULL), h->timeout_ms, on_exec, h);
}

void engine_hooks_run(struct engine *e, const char *service, const char *container, const char *kind, char *const *hooks, unsigned timeout_ms, backend_done *done, void *arg)
{
	struct hooks *h = xcalloc(1, sizeof *h);
	*h = (struct hooks){.e = e, .later = e->hooks, .service = xstrdup(service), .container = xstrdup(container), .kind = kind, .bodies = strv_copy(hooks), .timeout_ms = timeout_ms,
	                    .error = ERROR_INIT, .done = done, .arg = arg};
	e->hooks = h;
	engine_begin(e);
	next(h);
}

void engine_hooks_give_up(struct engine *e, const char *service)
{
	for (struct hooks *h = e->hooks; h; h = h->later)
		if (!strcmp(h->service, service) && h->exec && !h->given_up) {
			h->given_up = true;
			engine_exec_give_up(h->exec);
		}
}
