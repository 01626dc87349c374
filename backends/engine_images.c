/* Images: there already, or pulled, each once at a time however many services want it.
 * The pull's answer is a stream of JSON lines, and a failure in the middle of one stands in it, not in the status:
 * https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Image/operation/ImageCreate */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "backends/engine.h"
#include "backends/engine_auth.h"
#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/log.h"

#define SILENCE_S 120 /* a registry that says nothing for so long */
#define LINE_MAX_BYTES (1u << 20)

struct pull {
	struct engine *e;
	struct pull *next;
	char *image, *platform;
	enum pull_policy policy;
	struct engine_gate gate;
	struct buffer line;
	struct error failed; /* in the stream */
	char *auth;
};

static void pull_end(struct pull *p, const struct error *err)
{
	for (struct pull **at = &p->e->pulls; *at; at = &(*at)->next)
		if (*at == p) {
			*at = p->next;
			break;
		}
	engine_gate_done(&p->gate, err);
	engine_end(p->e);
	buffer_release(&p->line);
	error_release(&p->failed);
	free(p->image);
	free(p->platform);
	free(p->auth);
	free(p);
}

static bool means_denied(int status, const char *text)
{
	return status == 401 || status == 403 ||
	       (text && (strcasestr(text, "unauthorized") || strcasestr(text, "authentication required") || strcasestr(text, "no basic auth credentials") || strcasestr(text, "denied")));
}

static void explain(const struct pull *p, int status, const char *text, struct error *err)
{
	if (strcasestr(text, "no space left on device")) {
		error_set(err, ERROR_NO_SPACE, "the image %s: %s", p->image, text);
	} else if (means_denied(status, text)) {
		error_set(err, ERROR_IMAGE_AUTH, "the image %s: %s", p->image, text);
		error_hint(err, "docker login its registry, or check the name: a private image and one that does not exist look alike");
	} else {
		error_set(err, ERROR_IMAGE_NOT_FOUND, "the image %s: %s", p->image, text);
		error_hint(err, "check its name and tag, and the way to its registry; docker pull %s tells more", p->image);
	}
}

static void take_line(struct pull *p, const char *line)
{
	json_t *json = json_loads(line, 0, NULL);
	const char *failed = json_string_value(json_object_get(json, "error"));
	if (!failed)
		failed = json_string_value(json_object_get(json_object_get(json, "errorDetail"), "message"));
	if (failed && !error_is_set(&p->failed))
		explain(p, 0, failed, &p->failed);
	json_decref(json);
}

static bool on_data(void *arg, int status, const char *data, size_t len)
{
	struct pull *p = arg;
	for (const char *end; len && (end = memchr(data, '\n', len)); len -= (size_t)(end + 1 - data), data = end + 1) {
		buffer_add(&p->line, data, (size_t)(end - data));
		take_line(p, buffer_str(&p->line));
		buffer_clear(&p->line);
	}
	buffer_add(&p->line, data, len);
	return p->line.len < LINE_MAX_BYTES;
}

static void on_pulled(void *arg, const struct error *err, int status, const json_t *json)
{
	struct pull *p = arg;
	cleanup_error struct error why = ERROR_INIT;
	if (p->line.len)
		take_line(p, buffer_str(&p->line));
	if (err && status)
		explain(p, status, err->message, &why);
	else if (err)
		error_copy(&why, err);
	else if (error_is_set(&p->failed))
		error_move(&why, &p->failed);
	pull_end(p, error_is_set(&why) ? &why : NULL);
}

static void begin_pull(struct pull *p)
{
	struct engine_image_name name;
	engine_image_name_parse(p->image, &name);
	cleanup_free char *from = engine_escape(name.repository), *tag = engine_escape(name.tag);
	cleanup_free char *platform = p->platform ? engine_escape(p->platform) : NULL;
	cleanup_free char *path = xasprintf("/images/create?fromImage=%s&tag=%s%s%s", from, tag, platform ? "&platform=" : "", platform ? platform : "");
	cleanup_free char *auth = p->auth ? xasprintf("X-Registry-Auth: %s", p->auth) : NULL;
	char *const headers[] = {auth, NULL};
	log_info("engine", "pulling %s", p->image);
	engine_stream(p->e, "POST", path, NULL, headers, SILENCE_S, on_data, on_pulled, p);
	engine_image_name_release(&name);
}

static void on_auth(void *arg, const struct error *err, const char *auth)
{
	struct pull *p = arg;
	if (err || p->e->closing) {
		cleanup_error struct error closing = ERROR_INIT;
		error_set(&closing, ERROR_CANCELED, "the backend is being closed");
		pull_end(p, err ? err : &closing);
		return;
	}
	p->auth = xstrdup(auth);
	begin_pull(p);
}

static void refuse_to_pull(struct pull *p)
{
	cleanup_error struct error absent = ERROR_INIT;
	error_set(&absent, ERROR_IMAGE_NOT_FOUND, "the image %s is not there, and its pull_policy says that it is not to be pulled", p->image);
	pull_end(p, &absent);
}

static void on_inspected(void *arg, const struct error *err, int status, const json_t *json)
{
	struct pull *p = arg;
	if ((!err && p->policy != PULL_ALWAYS) || (err && status != 404))
		pull_end(p, err);
	else if (p->policy == PULL_NEVER)
		refuse_to_pull(p);
	else
		engine_auth_find(p->e, p->image, on_auth, p);
}

static bool is_same(const char *a, const char *b)
{
	return a == b || (a && b && !strcmp(a, b));
}

void engine_image_ensure(struct engine *e, const struct engine_plan *plan, backend_done *done, void *arg)
{
	const char *image = plan->image;
	struct pull *p = e->pulls;
	while (p && (strcmp(p->image, image) || !is_same(p->platform, plan->platform) || p->policy != plan->pull))
		p = p->next;
	if (p) {
		engine_gate_enter(&p->gate, e->base.loop, done, arg);
		return;
	}
	p = xcalloc(1, sizeof *p);
	*p = (struct pull){.e = e, .next = e->pulls, .image = xstrdup(image), .platform = xstrdup(plan->platform), .policy = plan->pull, .line = BUFFER_INIT, .failed = ERROR_INIT};
	e->pulls = p;
	engine_begin(e);
	engine_gate_enter(&p->gate, e->base.loop, done, arg);
	cleanup_free char *escaped = engine_escape(image);
	cleanup_free char *path = xasprintf("/images/%s/json", escaped);
	engine_call(e, "GET", path, NULL, ENGINE_CALL_MS, on_inspected, p);
}
