/* Calls to an engine: the version first, errors in its own words, streams cut into lines or frames elsewhere. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "backends/engine.h"
#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"

/* ---- words ---- */

char *engine_escape(const char *text)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~";
	struct buffer out = BUFFER_INIT;
	for (; *text; text++)
		if (strchr(plain, *text))
			buffer_addc(&out, *text);
		else
			buffer_printf(&out, "%%%02X", (unsigned char)*text);
	return buffer_detach(&out);
}

char *engine_labelled(const char *path, const char *namespace_)
{
	cleanup_free char *label = xasprintf(ENGINE_LABEL_NAMESPACE "=%s", namespace_);
	json_t *filters = json_pack("{s:[s]}", "label", label);
	cleanup_free char *text = json_dumps(filters, JSON_COMPACT);
	cleanup_free char *escaped = engine_escape(text);
	json_decref(filters);
	return xasprintf("%sfilters=%s", path, escaped);
}

const char *engine_label(const json_t *labels, const char *key)
{
	return json_string_value(json_object_get(labels, key));
}

const char *engine_service_of(const json_t *labels)
{
	const char *one_off = engine_label(labels, COMPOSE_LABEL_ONEOFF);
	return one_off && !strcasecmp(one_off, "true") ? NULL : engine_label(labels, ENGINE_LABEL_SERVICE);
}

bool engine_is_of(const json_t *labels, const char *namespace_)
{
	const char *owner = engine_label(labels, ENGINE_LABEL_NAMESPACE);
	return owner && !strcmp(owner, namespace_);
}

/* Digits of a second to nanoseconds: no engine's number is too large for it. */
long engine_nanoseconds(const char *fraction, char **rest)
{
	long ns = 0, unit = 100000000;
	for (fraction++; isdigit((unsigned char)*fraction); fraction++, unit /= 10)
		ns += (*fraction - '0') * unit;
	*rest = (char *)fraction;
	return ns;
}

/* ---- errors ---- */

#define TOLD_MAX 1000 /* bytes of an engine's words */

char *engine_told(const char *text)
{
	size_t len = strnlen(text, TOLD_MAX + 1);
	bool cut = len > TOLD_MAX;
	for (len -= cut; cut && len && ((unsigned char)text[len] & 0xc0) == 0x80; len--) /* not within a character */
		;
	char *line = xasprintf("%.*s%s", (int)len, text, cut ? " ..." : "");
	for (char *c = line; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = ' ';
	return line;
}

bool engine_is_passing(const struct error *err)
{
	return err->message && strstr(err->message, "no such network interface");
}

bool engine_says(const char *text, const char *const *words)
{
	for (; *words; words++)
		if (strcasestr(text, *words))
			return true;
	return false;
}

static enum error_code code_of(const char *text)
{
	static const char *const port[] = {"port is already allocated", "address already in use", "cannot listen on the TCP port", "cannot listen on the UDP port", NULL};
	static const char *const space[] = {"no space left on device", "disk quota exceeded", NULL};
	static const char *const platform[] = {"does not match the specified platform", NULL};
	return engine_says(text, port) ? ERROR_PORT_ALLOCATION_FAILED : engine_says(text, space) ? ERROR_NO_SPACE : engine_says(text, platform) ? ERROR_IMAGE_NOT_FOUND : ERROR_BACKEND_SPAWN_FAILED;
}

void engine_error(const struct engine *e, const char *what, int status, const json_t *json, struct error *err)
{
	const char *text = json_string_value(json_object_get(json, "message"));
	if (!text)
		text = json_string_value(json_object_get(json, "cause"));
	cleanup_free char *line = text ? engine_told(text) : NULL;
	if (!line) {
		error_set(err, ERROR_BACKEND_UNREACHABLE, "%s%s%s answered with status %d and no reason", what, *what ? ": " : "", e->target.url, status);
		return;
	}
	error_set(err, code_of(line), "%s%s%s", what, *what ? ": " : "", line);
	if (strstr(line, "could not select device driver"))
		error_hint(err, "gpus, or deploy.resources.reservations.devices, asks for devices that the engine has no driver of; for NVIDIA's that is nvidia-container-toolkit");
	if (err->code == ERROR_IMAGE_NOT_FOUND)
		error_hint(err, "there is none of it for the platform: that the file names; leave that out, or name another");
}

/* ---- one call ---- */

struct call {
	struct engine *e;
	char *method, *path;
	json_t *body;
	unsigned timeout_ms;
	uint64_t began_ms;
	http_data *data; /* of a stream */
	engine_answer *done;
	void *arg;
};

static void call_free(struct call *c)
{
	free(c->method);
	free(c->path);
	json_decref(c->body);
	free(c);
}

static void explain_unreachable(const struct engine *e, struct error *err)
{
	if (err->err == EACCES)
		error_hint(err, "your user may not use it: join its group (sudo usermod -aG docker $USER, then log in again), or use a rootless engine");
	else
		error_hint(err, "is it running? It was chosen by %s", e->target.from ? e->target.from : "an earlier start");
}

/* What is removed while Podman 4.3 looks at it is not found either. */
static int status_of(const struct http_response *res, const struct error *said)
{
	bool gone = res->status == 500 && said->message && strstr(said->message, "does not exist in database: no such container");
	return gone ? 404 : res->status;
}

static void on_response(void *arg, const struct error *err, const struct http_response *res)
{
	struct call *c = arg;
	struct engine *e = c->e;
	cleanup_error struct error said = ERROR_INIT;
	json_t *json = res && res->len ? json_loadb(res->body, res->len, JSON_DECODE_ANY, NULL) : NULL;
	bool success = res && ((res->status >= 200 && res->status < 300) || res->status == 304);
	bool asked = !c->data && !strcmp(c->method, "GET");
	if (res && !success)
		engine_error(e, "", res->status, json, &said);
	else if (res && !json && (res->len || asked))
		error_set(&said, ERROR_BACKEND_UNREACHABLE, "%s answered %s %s with what is no JSON", e->target.url, c->method, c->path);
	if (err)
		error_copy(&said, err);
	if (said.code == ERROR_BACKEND_UNREACHABLE && !said.hint)
		explain_unreachable(e, &said);
	log_debug("engine", "%s %s: %d after %llu ms", c->method, c->path, res ? res->status : 0, (unsigned long long)(now_monotonic_ms() - c->began_ms));
	c->done(c->arg, error_is_set(&said) ? &said : NULL, res ? status_of(res, &said) : 0, json);
	json_decref(json);
	call_free(c);
	engine_end(e);
}

static bool on_piece(void *arg, int status, const char *data, size_t len)
{
	struct call *c = arg;
	return c->data(c->arg, status, data, len);
}

static struct http_call *send_call(struct call *c, char *const *headers, unsigned silence_s)
{
	struct engine *e = c->e;
	cleanup_free char *path = xasprintf("/v1.%u%s", e->api, c->path);
	cleanup_free char *text = c->body ? json_dumps(c->body, JSON_COMPACT) : NULL;
	const struct http_request request = {
	    .method = c->method,
	    .path = path,
	    .headers = headers,
	    .body = text,
	    .body_len = text ? strlen(text) : 0,
	    .timeout_ms = c->timeout_ms,
	    .silence_s = silence_s,
	    .data = c->data ? on_piece : NULL,
	    .done = on_response,
	    .arg = c,
	};
	return http_start(e->http, &request);
}

static struct call *call_new(struct engine *e, const char *method, const char *path, json_t *body, engine_answer *done, void *arg)
{
	struct call *c = xcalloc(1, sizeof *c);
	*c = (struct call){.e = e, .method = xstrdup(method), .path = xstrdup(path), .body = body, .began_ms = now_monotonic_ms(), .done = done, .arg = arg};
	engine_begin(e);
	return c;
}

static void on_version_known(void *arg, const struct error *err)
{
	struct call *c = arg;
	struct engine *e = c->e;
	if (!err && !e->closing) {
		send_call(c, NULL, 0);
		return;
	}
	cleanup_error struct error closing = ERROR_INIT;
	error_set(&closing, ERROR_CANCELED, "the backend is being closed");
	c->done(c->arg, err ? err : &closing, 0, NULL);
	call_free(c);
	engine_end(e);
}

void engine_call(struct engine *e, const char *method, const char *path, json_t *body, unsigned timeout_ms, engine_answer *done, void *arg)
{
	struct call *c = call_new(e, method, path, body, done, arg);
	c->timeout_ms = timeout_ms;
	engine_negotiate(e, on_version_known, c);
}

struct http_call *engine_stream(struct engine *e, const char *method, const char *path, json_t *body, char *const *headers, unsigned silence_s,
                                http_data *data, engine_answer *done, void *arg)
{
	struct call *c = call_new(e, method, path, body, done, arg);
	c->data = data;
	return send_call(c, headers, silence_s);
}

struct http_call *engine_upload(struct engine *e, const char *path, int fd, size_t len, char *const *headers, unsigned timeout_ms, unsigned silence_s, http_data *data,
                                engine_answer *done, void *arg)
{
	struct call *c = call_new(e, "POST", path, NULL, done, arg);
	cleanup_free char *versioned = xasprintf("/v1.%u%s", e->api, path);
	const struct http_request request = {
	    .method = "POST",
	    .path = versioned,
	    .headers = headers,
	    .body_fd = fd,
	    .body_len = len,
	    .body_type = "application/x-tar",
	    .timeout_ms = timeout_ms,
	    .silence_s = silence_s,
	    .data = on_piece,
	    .done = on_response,
	    .arg = c,
	};
	c->data = data;
	return http_start(e->http, &request);
}

/* ---- one at a time ---- */

struct engine_waiter {
	struct engine_waiter *next;
	backend_done *done;
	void *arg;
};

static void tell_open(void *arg)
{
	struct engine_waiter *w = arg;
	w->done(w->arg, NULL);
	free(w);
}

static void add_waiter(struct engine_waiter **end, struct engine_waiter *w)
{
	while (*end)
		end = &(*end)->next;
	*end = w;
}

bool engine_gate_enter(struct engine_gate *g, uv_loop_t *loop, backend_done *done, void *arg)
{
	struct engine_waiter *w = xcalloc(1, sizeof *w);
	*w = (struct engine_waiter){NULL, done, arg};
	if (g->open) {
		backend_defer(loop, tell_open, w);
		return false;
	}
	add_waiter(&g->waiters, w);
	bool first = !g->trying;
	g->trying = true;
	return first;
}

void engine_gate_done(struct engine_gate *g, const struct error *err)
{
	g->open = !err;
	g->trying = false;
	struct engine_waiter *next, *w = g->waiters;
	g->waiters = NULL;
	for (; w; w = next) {
		next = w->next;
		w->done(w->arg, err);
		free(w);
	}
}

void engine_turn_take(struct engine_turns *t, unsigned most, backend_done *done, void *arg)
{
	if (t->taken < most) {
		t->taken++;
		done(arg, NULL);
		return;
	}
	struct engine_waiter *w = xcalloc(1, sizeof *w);
	*w = (struct engine_waiter){NULL, done, arg};
	add_waiter(&t->waiters, w);
}

void engine_turn_give(struct engine_turns *t)
{
	struct engine_waiter *w = t->waiters;
	if (!w) {
		t->taken--;
		return;
	}
	t->waiters = w->next;
	w->done(w->arg, NULL); /* the turn changes hands */
	free(w);
}

/* ---- the version ---- */

/* "1.41" -> 41; 0: it is no version of the API */
static unsigned minor_of(const json_t *json, const char *key)
{
	const char *text = json_string_value(json_object_get(json, key));
	return text && !strncmp(text, "1.", 2) ? (unsigned)strtoul(text + 2, NULL, 10) : 0;
}

static bool is_podman(const json_t *json)
{
	size_t i;
	json_t *component;
	json_array_foreach (json_object_get(json, "Components"), i, component) {
		const char *name = json_string_value(json_object_get(component, "Name"));
		if (name && strstr(name, "Podman"))
			return true;
	}
	return false;
}

static int take_version(struct engine *e, const struct http_response *res, struct error *err)
{
	json_t *json = res->status == 200 ? json_loadb(res->body, res->len, 0, NULL) : NULL;
	unsigned newest = minor_of(json, "ApiVersion"), oldest = minor_of(json, "MinAPIVersion");
	const char *architecture = json_string_value(json_object_get(json, "Arch"));
	bool podman = is_podman(json);
	if (architecture) {
		free(e->architecture);
		e->architecture = xstrdup(architecture);
	}
	json_decref(json);
	if (!newest) {
		error_set(err, ERROR_BACKEND_UNREACHABLE, "what answers at %s is no container engine (status %d)", e->target.url, res->status);
		return -err->err;
	}
	if (newest < ENGINE_API_MIN || oldest > ENGINE_API_MAX) {
		error_set(err, ERROR_BACKEND_UNREACHABLE, "the engine at %s speaks versions 1.%u to 1.%u of its API, 1.%u to 1.%u are supported", e->target.url,
		          oldest, newest, ENGINE_API_MIN, ENGINE_API_MAX);
		return -err->err;
	}
	e->api = newest < ENGINE_API_MAX ? newest : ENGINE_API_MAX;
	e->podman = podman;
	return 0;
}

static void on_version(void *arg, const struct error *err, const struct http_response *res)
{
	struct engine *e = arg;
	cleanup_error struct error bad = ERROR_INIT;
	if (err)
		error_copy(&bad, err);
	else
		take_version(e, res, &bad);
	if (error_is_set(&bad) && bad.code == ERROR_BACKEND_UNREACHABLE)
		explain_unreachable(e, &bad);
	engine_gate_done(&e->version, error_is_set(&bad) ? &bad : NULL);
	engine_end(e);
}

static void tell_no_target(void *arg)
{
	struct engine *e = arg;
	engine_gate_done(&e->version, &e->no_target);
	engine_end(e);
}

void engine_negotiate(struct engine *e, backend_done *done, void *arg)
{
	if (!engine_gate_enter(&e->version, e->base.loop, done, arg))
		return;
	engine_begin(e);
	if (!e->http)
		backend_defer(e->base.loop, tell_no_target, e);
	else
		http_start(e->http, &(struct http_request){.path = "/version", .timeout_ms = ENGINE_CALL_MS / 3, .done = on_version, .arg = e});
}

/* ---- streams ---- */

#define FLOOD_BYTES (8u << 20) /* in a second: eight thousand events */
#define FLOOD_LINE 1000        /* what a line costs, however short */

bool engine_is_flood(struct engine_rate *r, const char *data, size_t len)
{
	uint64_t now = now_monotonic_ms();
	if (now - r->since_ms > 1000)
		*r = (struct engine_rate){now, 0};
	r->bytes += len;
	for (const char *end = data + len; data < end && (data = memchr(data, '\n', (size_t)(end - data))); data++)
		r->bytes += FLOOD_LINE;
	return r->bytes > FLOOD_BYTES;
}

void engine_frames_feed(struct engine_frames *f, const char *data, size_t len, void (*take)(void *arg, int stream, const char *text, size_t len), void *arg)
{
	while (len) {
		if (f->have < sizeof f->head) {
			size_t n = sizeof f->head - f->have < len ? sizeof f->head - f->have : len;
			memcpy(f->head + f->have, data, n);
			f->have += n;
			data += n;
			len -= n;
			f->left = (size_t)f->head[4] << 24 | (size_t)f->head[5] << 16 | (size_t)f->head[6] << 8 | f->head[7];
			if (f->have == sizeof f->head && !f->left)
				f->have = 0;
			continue;
		}
		size_t n = f->left < len ? f->left : len;
		take(arg, f->head[0], data, n);
		f->left -= n;
		data += n;
		len -= n;
		if (!f->left)
			f->have = 0;
	}
}
