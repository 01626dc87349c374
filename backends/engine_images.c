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
#include "base/file.h"
#include "base/log.h"

#define SILENCE_S 120 /* a registry that says nothing for so long */
#define LAYERS_MAX 200
#define LAYER_MAX (1LL << 45) /* bytes: what they come to fits in a number */
#define TELL_EVERY_MS 200
#define LINE_MAX_BYTES (1u << 20)

struct layer {
	char *id;
	char *status;
	json_int_t current, total;
};

struct pull {
	struct engine *e;
	struct pull *next;
	char **services; /* that wait for it */
	struct layer *layers;
	size_t n_layers;
	uint64_t told_ms; /* 0: never */
	bool untold; /* a layer has come to something else since */
	char *image, *platform;
	enum pull_policy policy;
	unsigned after_s; /* PULL_OLD */
	struct engine_gate gate;
	struct buffer line;
	struct error failed; /* in the stream */
	struct engine_rate rate;
	struct http_call *call; /* NULL: not begun, or over */
	bool mad; /* what it says is none of a pull */
	char *auth;
	char *auth_failed; /* why there is none, though docker's configuration names somebody to ask */
	json_t *seen; /* the image, once it is there */
};

/* One who wants it. */
struct wanted {
	struct pull *pull;
	struct engine_plan *told; /* what it declares to be a volume; NULL: nobody */
	backend_done *done;
	void *arg;
};

/* ---- how far it has come ---- */

static struct layer *layer_of(struct pull *p, const char *id)
{
	for (size_t i = 0; i < p->n_layers; i++)
		if (!strcmp(p->layers[i].id, id))
			return &p->layers[i];
	if (p->n_layers == LAYERS_MAX)
		return NULL;
	array_grow(p->layers, p->n_layers);
	p->layers[p->n_layers] = (struct layer){.id = xstrdup(id)};
	return &p->layers[p->n_layers++];
}

/* Downloading is most of it; what is extracted is there. Layers whose size is not known yet count nothing. */
static json_int_t percent_of(const struct pull *p)
{
	json_int_t current = 0, total = 0;
	for (size_t i = 0; i < p->n_layers; i++) {
		const struct layer *l = &p->layers[i];
		bool loads = l->status && !strcmp(l->status, "Downloading");
		total += l->total;
		current += loads && l->total ? l->current : l->total;
	}
	return total ? current * 100 / total : 0;
}

static void tell(struct pull *p, bool pulled)
{
	json_t *layers = json_array(), *progress;
	for (size_t i = 0; i < p->n_layers; i++)
		json_array_append_new(layers, json_pack("{s:s, s:s, s:I, s:I}", "id", p->layers[i].id, "status", p->layers[i].status ? p->layers[i].status : "", "current",
		                                        p->layers[i].current, "total", p->layers[i].total));
	progress = json_pack("{s:s, s:I, s:o}", "image", p->image, "percent", percent_of(p), "layers", layers);
	if (pulled)
		json_object_set_new(progress, "pulled", json_true());
	p->told_ms = now_monotonic_ms();
	p->untold = false;
	for (char **service = p->services; service && *service; service++)
		p->e->progress(p->e->changed_arg, *service, progress);
	json_decref(progress);
}

static void tell_over(struct pull *p, bool pulled)
{
	if (p->told_ms && pulled)
		tell(p, true);
	for (char **service = p->services; p->told_ms && service && *service; service++)
		p->e->progress(p->e->changed_arg, *service, NULL);
}

/* How much of it that is, where the engine gives no number: what is loaded is there whole. */
static json_int_t bytes_of(const struct layer *l, const json_t *detail)
{
	static const char *const whole[] = {"Verifying Checksum", "Download complete", "Pull complete", NULL};
	const json_t *given = json_object_get(detail, "current");
	json_int_t current = given ? json_integer_value(given) : strv_contains((char *const *)whole, l->status) ? l->total : 0, most = l->total ? l->total : LAYER_MAX;
	return current < 0 ? 0 : current > most ? most : current;
}

static void take_progress(struct pull *p, const json_t *json)
{
	const char *id = json_string_value(json_object_get(json, "id")), *status = json_string_value(json_object_get(json, "status"));
	const json_t *detail = json_object_get(json, "progressDetail");
	struct layer *l = id && status && detail ? layer_of(p, id) : NULL;
	json_int_t total = json_integer_value(json_object_get(detail, "total"));
	if (!l)
		return;
	if (!l->status || strcmp(l->status, status)) {
		free(l->status);
		l->status = xstrdup(status);
		p->untold = true;
	}
	if (total > 0 && total < LAYER_MAX)
		l->total = total;
	l->current = bytes_of(l, detail);
}

/* Bytes a few times a second; what a layer has come to at once: nothing may come after it for long. */
static void tell_of_more(struct pull *p)
{
	if (p->e->progress && !p->e->closing && p->n_layers && (p->untold || now_monotonic_ms() - p->told_ms >= TELL_EVERY_MS))
		tell(p, false);
}

static void layers_free(struct pull *p)
{
	for (size_t i = 0; i < p->n_layers; i++) {
		free(p->layers[i].id);
		free(p->layers[i].status);
	}
	free(p->layers);
	strv_free(p->services);
}

/* ---- a pull ---- */

static void pull_end(struct pull *p, const struct error *err)
{
	for (struct pull **at = &p->e->pulls; *at; at = &(*at)->next)
		if (*at == p) {
			*at = p->next;
			break;
		}
	if (!p->e->closing)
		tell_over(p, !err);
	engine_gate_done(&p->gate, err);
	engine_end(p->e);
	buffer_release(&p->line);
	error_release(&p->failed);
	free(p->image);
	free(p->platform);
	layers_free(p);
	free(p->auth);
	free(p->auth_failed);
	json_decref(p->seen);
	free(p);
}

/* May run without emulation: what it says is what it is for, and machines run what their smaller sisters do. */
static bool runs_on(const char *machine, const char *image)
{
	return !strcmp(machine, image) || (!strcmp(machine, "amd64") && !strcmp(image, "386")) || (!strcmp(machine, "arm64") && !strcmp(image, "arm"));
}

/* As docker does, which warns, for the engine may emulate it. */
static void tell_of_machine(struct pull *p, const json_t *json)
{
	struct engine *e = p->e;
	const char *is = json_string_value(json_object_get(json, "Architecture"));
	bool foreign = e->architecture && is && *is && !p->platform && !runs_on(e->architecture, is);
	if (!e->progress || e->closing || (!foreign && !e->told_foreign))
		return;
	cleanup_free char *words = foreign ? xasprintf("the image %s is for another kind of machine, %s, and the engine's is %s: it runs emulated (qemu-user-static) or not at all", p->image, is, e->architecture)
	                                   : NULL;
	cleanup_free char *line = words ? engine_told(words) : NULL;
	json_t *told = json_pack("{s:s?}", "foreign", line);
	e->told_foreign |= foreign;
	for (char **service = p->services; service && *service; service++)
		e->progress(e->changed_arg, *service, told);
	json_decref(told);
}

static void image_seen(struct pull *p, const json_t *json)
{
	cleanup_error struct error unknown = ERROR_INIT;
	if (!json_string_value(json_object_get(json, "Id")))
		error_set(&unknown, ERROR_BACKEND_UNREACHABLE, "the engine does not say what the image %s is", p->image);
	tell_of_machine(p, json);
	p->seen = json_incref((json_t *)(uintptr_t)json);
	pull_end(p, error_is_set(&unknown) ? &unknown : NULL);
}

static bool means_denied(int status, const char *text)
{
	static const char *const words[] = {"unauthorized", "authentication required", "no basic auth credentials", "denied", NULL};
	return status == 401 || status == 403 || engine_says(text, words);
}

static void explain(const struct pull *p, int status, const char *text, struct error *err)
{
	static const char *const space[] = {"no space left on device", "disk quota exceeded", NULL};
	static const char *const its_own[] = {"mkdir /", "open /", "read-only file system", NULL}; /* and permission denied */
	static const char *const limited[] = {"toomanyrequests", "rate limit", NULL};
	static const char *const no_way[] = {"dial tcp", "no such host", "name resolution", "i/o timeout", "connection refused", "connection reset", "is unreachable", "no route to host", "tls handshake",
	                                     "x509:", "http response to https client", "client.timeout", "deadline exceeded", "proxyconnect", "http status: 5", ": eof", NULL};
	static const char *const other_machine[] = {"no matching manifest", "does not match the specified platform", "image operating system", NULL};
	if (engine_says(text, space)) {
		error_set(err, ERROR_NO_SPACE, "the image %s: %s", p->image, text);
		error_hint(err, "make room on the engine's disk: docker system df says what takes it");
	} else if (engine_says(text, its_own)) {
		error_set(err, ERROR_BACKEND_SPAWN_FAILED, "the image %s: %s", p->image, text);
		error_hint(err, "the engine cannot write where it keeps its images; its own log tells more");
	} else if (engine_says(text, no_way)) {
		error_set(err, ERROR_IMAGE_UNREACHABLE, "the image %s: %s", p->image, text);
		error_hint(err, "there is no way to its registry from the engine: its name, the network, a proxy, its certificate; docker pull %s tells more", p->image);
	} else if (means_denied(status, text)) {
		error_set(err, ERROR_IMAGE_AUTH, "the image %s: %s%s%s", p->image, text, p->auth_failed ? "; " : "", p->auth_failed ? p->auth_failed : "");
		error_hint(err, "docker login its registry, or check the name: a private image and one that does not exist look alike");
	} else if (engine_says(text, limited)) {
		error_set(err, ERROR_IMAGE_AUTH, "the image %s: %s", p->image, text);
		error_hint(err, "its registry gives no more to whoever has not logged in: docker login, or wait");
	} else if (engine_says(text, other_machine)) {
		error_set(err, ERROR_IMAGE_NOT_FOUND, "the image %s: %s", p->image, text);
		error_hint(err, "there is none of it for this machine%s", p->platform ? "'s platform, which the file names" : "; platform: takes another that the engine can emulate");
	} else {
		error_set(err, ERROR_IMAGE_NOT_FOUND, "the image %s: %s", p->image, text);
		error_hint(err, "check its name and tag; docker pull %s tells more", p->image);
	}
}

static void take_line(struct pull *p, const char *line)
{
	json_t *json = json_loads(line, 0, NULL);
	const char *failed = json_string_value(json_object_get(json, "error"));
	if (!failed)
		failed = json_string_value(json_object_get(json_object_get(json, "errorDetail"), "message"));
	cleanup_free char *text = failed ? engine_told(failed) : NULL;
	if (text && !error_is_set(&p->failed))
		explain(p, 0, text, &p->failed);
	take_progress(p, json);
	json_decref(json);
}

static bool on_data(void *arg, int status, const char *data, size_t len)
{
	struct pull *p = arg;
	p->mad |= engine_is_flood(&p->rate, data, len);
	for (const char *end; !p->mad && len && (end = memchr(data, '\n', len)); len -= (size_t)(end + 1 - data), data = end + 1) {
		buffer_add(&p->line, data, (size_t)(end - data));
		take_line(p, buffer_str(&p->line));
		buffer_clear(&p->line);
	}
	tell_of_more(p);
	if (!p->mad)
		buffer_add(&p->line, data, len);
	p->mad |= p->line.len >= LINE_MAX_BYTES;
	return !p->mad;
}

static void on_pulled_seen(void *arg, const struct error *err, int status, const json_t *json)
{
	if (err)
		pull_end(arg, err);
	else
		image_seen(arg, json);
}

static void inspect(struct pull *p, engine_answer *done)
{
	cleanup_free char *name = engine_escape(p->image), *path = xasprintf("/images/%s/json", name);
	engine_call(p->e, "GET", path, NULL, ENGINE_CALL_MS, done, p);
}

static void on_pulled(void *arg, const struct error *err, int status, const json_t *json)
{
	struct pull *p = arg;
	cleanup_error struct error why = ERROR_INIT;
	p->call = NULL;
	if (p->line.len && !p->mad)
		take_line(p, buffer_str(&p->line));
	if (error_is_set(&p->failed))
		error_move(&why, &p->failed);
	else if (p->mad)
		error_set(&why, ERROR_BACKEND_UNREACHABLE, "the image %s: what %s says of its pull has no end", p->image, p->e->target.url);
	else if (err && status && err->code != ERROR_BACKEND_UNREACHABLE)
		explain(p, status, err->message, &why);
	else if (err)
		error_copy(&why, err);
	if (error_is_set(&why))
		pull_end(p, &why);
	else
		inspect(p, on_pulled_seen);
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
	p->call = engine_stream(p->e, "POST", path, NULL, headers, SILENCE_S, on_data, on_pulled, p);
	engine_image_name_release(&name);
}

static void on_auth(void *arg, const struct error *err, const char *auth)
{
	struct pull *p = arg;
	if (p->e->closing) {
		cleanup_error struct error closing = ERROR_INIT;
		error_set(&closing, ERROR_CANCELED, "the backend is being closed");
		pull_end(p, &closing);
		return;
	}
	if (err) { /* a helper of another machine's configuration is no reason to refuse what everybody may have */
		log_warning("engine", "%s", err->message);
		p->auth_failed = xstrdup(err->message);
	}
	p->auth = xstrdup(auth);
	begin_pull(p);
}

static void refuse_to_pull(struct pull *p)
{
	cleanup_error struct error absent = ERROR_INIT;
	error_set(&absent, ERROR_IMAGE_NOT_FOUND, "the image %s is not there%s%s, and its pull_policy says that it is not to be pulled", p->image, p->platform ? " for " : "",
	          p->platform ? p->platform : "");
	error_hint(&absent, "docker pull%s%s %s, or another pull_policy", p->platform ? " --platform " : "", p->platform ? p->platform : "", p->image);
	pull_end(p, &absent);
}

/* "x86_64" is what uname calls it. */
static bool is_architecture(const char *wanted, const char *is)
{
	static const char *const same[][2] = {{"x86_64", "amd64"}, {"aarch64", "arm64"}, {"armhf", "arm"}, {"i386", "386"}};
	for (size_t i = 0; i < sizeof same / sizeof *same; i++)
		if (!strcmp(wanted, same[i][0]))
			wanted = same[i][1];
	return !strcmp(wanted, is);
}

/* os[/arch[/variant]], or an architecture alone. An image that does not say is taken as right. */
static bool is_for(const char *platform, const json_t *image)
{
	const char *os = json_string_value(json_object_get(image, "Os")), *is = json_string_value(json_object_get(image, "Architecture"));
	cleanup_free char *text = xstrdup(platform);
	char *save = NULL, *first = text ? strtok_r(text, "/", &save) : NULL, *wanted = first ? strtok_r(NULL, "/", &save) : NULL;
	if (!first || !os || !is)
		return true;
	if (!wanted)
		return !strcasecmp(first, os) || is_architecture(first, is);
	return !strcasecmp(first, os) && is_architecture(wanted, is);
}

/* An engine that does not say when it got it is asked to look. */
static bool is_stale(const struct pull *p, const json_t *image)
{
	int64_t had = engine_milliseconds(json_string_value(json_object_get(json_object_get(image, "Metadata"), "LastTagTime")));
	return p->policy == PULL_ALWAYS || (p->policy == PULL_OLD && now_wall_ms() - had > (int64_t)p->after_s * 1000);
}

static void on_inspected(void *arg, const struct error *err, int status, const json_t *json)
{
	struct pull *p = arg;
	bool there = !err && is_for(p->platform, json);
	if (there && !is_stale(p, json))
		image_seen(p, json);
	else if (err && status != 404)
		pull_end(p, err);
	else if (p->policy == PULL_NEVER)
		refuse_to_pull(p);
	else
		engine_auth_find(p->e, p->image, on_auth, p);
}

void engine_images_give_up(struct engine *e)
{
	for (struct pull *p = e->pulls; p; p = p->next)
		http_cancel(p->call);
}

static bool is_same(const char *a, const char *b)
{
	return a == b || (a && b && !strcmp(a, b));
}

static void on_there(void *arg, const struct error *err)
{
	struct wanted *w = arg;
	if (!err && w->told)
		engine_plan_add_image_volumes(w->told, w->pull->seen);
	w->done(w->arg, err);
	free(w);
}

static void wait_for(struct pull *p, const char *service, struct engine_plan *told, backend_done *done, void *arg)
{
	struct wanted *w = xcalloc(1, sizeof *w);
	*w = (struct wanted){p, told, done, arg};
	if (!strv_contains(p->services, service))
		strv_push(&p->services, xstrdup(service));
	engine_gate_enter(&p->gate, p->e->base.loop, on_there, w);
}

void engine_image_ensure(struct engine *e, const struct engine_plan *plan, struct engine_plan *told, backend_done *done, void *arg)
{
	const char *image = plan->image;
	struct pull *p = e->pulls;
	while (p && (strcmp(p->image, image) || !is_same(p->platform, plan->platform) || p->policy != plan->pull || p->after_s != plan->pull_after_s))
		p = p->next;
	if (p) {
		wait_for(p, plan->service, told, done, arg);
		return;
	}
	p = xcalloc(1, sizeof *p);
	*p = (struct pull){.e = e, .next = e->pulls, .image = xstrdup(image), .platform = xstrdup(plan->platform), .policy = plan->pull, .after_s = plan->pull_after_s, .line = BUFFER_INIT, .failed = ERROR_INIT};
	e->pulls = p;
	engine_begin(e);
	wait_for(p, plan->service, told, done, arg);
	inspect(p, on_inspected);
}
