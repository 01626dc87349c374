/* What happens by itself, or by other people's hands: the engine's event stream, and a look at each container that it names. A stream
 * that breaks is opened again, and everything is looked at once more, for an engine that was restarted has forgotten its events.
 * https://docs.docker.com/reference/api/engine/version/v1.41/#tag/System/operation/SystemEvents */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "backends/alive.h"
#include "backends/engine.h"
#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"

#define AREA "engine"
#define RETRY_MS 300
#define RETRY_MAX_MS 5000
#define CGROUP_MAX 16384
#define LINE_MAX_BYTES (1u << 20)
#define SLOTS_MAX 2000
#define VOUCH_MS 5000
#define SUCCESSION_MS 15000 /* the grace time of the old one, and a little */

/* ---- what is known ---- */

/* A remote engine's numbers, or a virtual machine's, are others' here. The path of a container's cgroup names it. */
static bool is_local(pid_t pid, const char *id)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_free char *path = xasprintf("/proc/%d/cgroup", (int)pid);
	return pid > 0 && id && *id && !file_read(AT_FDCWD, path, CGROUP_MAX, &text) && strstr(buffer_str(&text), id);
}

bool engine_lives(struct backend *b, const char *service, pid_t pid)
{
	const struct engine_slot *slot = engine_slot((struct engine *)b, service);
	if (slot->state == INSTANCE_EXITED)
		return false; /* which may not be told yet */
	return !slot->local || slot->pid != pid || alive(pid);
}

bool engine_rises(struct backend *b, const char *service)
{
	return engine_slot((struct engine *)b, service)->rises;
}

bool engine_is_dismissed(const struct engine_slot *slot, const struct instance *now)
{
	bool told = slot->told_to_end && now->handle && !strcmp(slot->told_to_end, now->handle) && (!slot->told_vaguely || now->exit_code > 128);
	return now->state == INSTANCE_ABSENT || (now->state == INSTANCE_EXITED && told);
}

static struct instance copy_of(const struct instance *i)
{
	struct instance copy = *i;
	copy.service = xstrdup(i->service);
	copy.handle = xstrdup(i->handle);
	copy.config_hash = xstrdup(i->config_hash);
	return copy;
}

/* ---- an end by somebody's order ---- */

/* An engine that ends has all its containers stopped, in the same words as `docker stop`, and goes on telling of it; but it hears nobody new. */
struct vouching {
	struct engine *e;
	uint64_t number;
	struct instance now;
};

/* By the engine, which goes itself. */
static void tell_lost(struct engine *e, struct engine_slot *slot, const struct instance *now)
{
	struct instance told = *now;
	told.dismissed = false;
	told.lost = slot->unheard = true;
	e->changed(e->changed_arg, &told);
}

static void on_vouched(void *arg, const struct error *err, const struct http_response *res)
{
	struct vouching *v = arg;
	struct engine *e = v->e;
	struct engine_slot *slot = engine_slot(e, v->now.service);
	bool asked = slot->vouching == v->number && !e->closing && e->watching;
	bool holds = asked && !slot->ops && slot->state == INSTANCE_EXITED && slot->id && !strcmp(slot->id, v->now.handle);
	if (asked) {
		slot->vouching = 0;
		e->leaving = err;
	}
	if (holds && err)
		tell_lost(e, slot, &v->now);
	else if (holds)
		e->changed(e->changed_arg, &v->now);
	instance_release(&v->now);
	free(v);
	engine_end(e);
}

static void vouch(struct engine *e, struct engine_slot *slot, const struct instance *now)
{
	struct vouching *v = xcalloc(1, sizeof *v);
	*v = (struct vouching){e, ++e->vouchings, copy_of(now)};
	slot->vouching = v->number;
	engine_begin(e);
	http_start(e->http, &(struct http_request){.path = "/version", .fresh = true, .timeout_ms = VOUCH_MS, .done = on_vouched, .arg = v});
}

static void tell(struct engine *e, struct engine_slot *slot, const struct instance *now)
{
	struct instance told = *now;
	told.dismissed = !now->returned && engine_is_dismissed(slot, now);
	slot->vouching = 0;
	if (told.dismissed && now->state == INSTANCE_EXITED)
		vouch(e, slot, &told);
	else
		e->changed(e->changed_arg, &told);
}

/* ---- an exit, whose reason stands in the log ---- */

struct exited {
	struct engine *e;
	struct instance now;
};

/* Unless it is a thing of the past by now. */
static void tell_exit(void *arg)
{
	struct exited *x = arg;
	struct engine *e = x->e;
	struct engine_slot *slot = engine_slot(e, x->now.service);
	bool holds = !e->closing && !slot->ops && slot->state == INSTANCE_EXITED && slot->id && !strcmp(slot->id, x->now.handle);
	if (holds && slot->unheard)
		tell_lost(e, slot, &x->now);
	else if (holds)
		tell(e, slot, &x->now);
	instance_release(&x->now);
	free(x);
}

static bool is_told_later(struct engine *e, const struct instance *now)
{
	struct exited *x = xcalloc(1, sizeof *x);
	*x = (struct exited){e, copy_of(now)};
	if (engine_log_hear(e, now->handle, tell_exit, x))
		return true;
	instance_release(&x->now);
	free(x);
	return false;
}

void engine_seen(struct engine *e, const struct instance *now, bool by_us)
{
	struct engine_slot *slot = engine_slot(e, now->service);
	if (e->leaving && slot->unheard && now->state == INSTANCE_EXITED)
		return;
	bool returned = now->state == INSTANCE_EXITED && slot->unheard && !now->lost; /* what a killed engine has left running, the next one stops as others would */
	bool dismissed = !returned && engine_is_dismissed(slot, now), same_id = slot->id && now->handle && !strcmp(slot->id, now->handle);
	struct instance told = *now;
	told.returned = returned;
	bool same = !returned && slot->state == now->state && slot->paused == now->paused && slot->unplugged == now->unplugged && slot->dismissed == dismissed && slot->started_ms == now->started_ms && same_id;
	slot->state = now->state;
	slot->rises = slot->rises && now->state == INSTANCE_EXITED;
	slot->paused = now->paused;
	slot->unplugged = now->unplugged;
	slot->dismissed = dismissed;
	slot->unheard = slot->unheard && now->lost;
	slot->started_ms = now->started_ms;
	slot->pid = now->pid;
	engine_slot_set(slot, now->handle, now->config_hash);
	engine_data_ended(slot, now);
	slot->local = now->state == INSTANCE_RUNNING && is_local(now->pid, slot->id);
	if (same || by_us || e->closing || (now->state == INSTANCE_EXITED && is_told_later(e, &told)))
		return;
	tell(e, slot, &told);
}

static void tell_gone(struct engine *e, struct engine_slot *slot, enum instance_state state)
{
	cleanup_free char *id = slot->id ? xstrdup(slot->id) : NULL; /* the slot's own goes when it is set */
	const struct instance gone = {.service = slot->service, .state = state, .handle = id, .config_hash = (char *)"", .started_ms = slot->started_ms,
	                              .exited_ms = now_wall_ms(), .exit_code = 255, .lost = state == INSTANCE_EXITED};
	engine_seen(e, &gone, false);
}

/* ---- a look ---- */

struct look {
	struct engine *e;
	char *service;
	uint64_t ops_ended; /* when it was asked */
};

static void look(struct engine *e, const char *service);

static void on_looked(void *arg, const struct error *err, int status, const json_t *json)
{
	struct look *l = arg;
	struct engine *e = l->e;
	struct engine_slot *slot = engine_slot(e, l->service);
	struct instance now;
	bool old = slot->op_ended > l->ops_ended, again = slot->look_again || old;
	slot->looking = slot->look_again = false;
	slot->missed = slot->missed || slot->ops;
	if (slot->ops || old || e->closing) {
		; /* what it does may not be in this answer */
	} else if (status == 404 && slot->state != INSTANCE_ABSENT) {
		tell_gone(e, slot, INSTANCE_ABSENT);
	} else if (status == 200 && engine_instance_of(e, json, &now)) {
		engine_check_take(e, now.service, json);
		engine_hooks_take(e, now.service, json);
		engine_made_take(e, now.service, json);
		engine_seen(e, &now, false);
		if (now.state == INSTANCE_RUNNING)
			engine_log_follow(e, now.service, now.handle);
		instance_release(&now);
	}
	if (again)
		look(e, l->service);
	free(l->service);
	free(l);
	engine_end(e);
}

/* By its name: whoever made it anew (docker compose up) gave it the same. */
static void look(struct engine *e, const char *service)
{
	struct engine_slot *slot = engine_slot(e, service);
	slot->look_again = slot->looking; /* what it is asked now may be older than this event */
	slot->missed = slot->missed || slot->ops;
	if (e->closing || slot->ops || slot->looking)
		return;
	slot->looking = true;
	struct look *l = xcalloc(1, sizeof *l);
	*l = (struct look){e, xstrdup(service), e->ops_ended};
	cleanup_free char *name = engine_container_name(e, service);
	cleanup_free char *path = xasprintf("/containers/%s/json", name);
	engine_begin(e);
	engine_call(e, "GET", path, NULL, ENGINE_CALL_MS, on_looked, l);
}

void engine_look_after_op(struct engine *e, struct engine_slot *slot)
{
	if ((slot->unheard || slot->missed) && !slot->ops && e->watching) {
		slot->missed = false;
		look(e, slot->service);
	}
}

/* ---- the stream ---- */

/* Or may become so: docker compose has made it. */
static bool is_known(const struct engine *e, const char *service)
{
	size_t n = 0;
	for (const struct engine_slot *s = e->slots; s; s = s->next, n++)
		if (service && !strcmp(s->service, service))
			return true;
	return n < SLOTS_MAX && backend_service_name_valid(service);
}

/* A `docker stop` is a kill with a signal that is meant to end it (others are for its own use: a reload), the end, then a stop: of a container that has
 * another signal for its end that alone tells. Podman does not say which signal it was, and 4.3 has no stop. */
static void note_order(struct engine_slot *slot, const char *action, const char *id, const char *signal, int64_t at_ms)
{
	static const char *const ends[] = {"2", "3", "9", "15"};
	bool vaguely = !signal && !strcmp(action, "kill"), told = vaguely || !strcmp(action, "stop");
	for (size_t i = 0; signal && !strcmp(action, "kill") && i < sizeof ends / sizeof *ends; i++)
		told = told || !strcmp(signal, ends[i]);
	bool past = slot->id && id && !strcmp(slot->id, id) && at_ms < slot->started_ms; /* it has been started again since */
	if (!id || past || (!told && strcmp(action, "start") != 0))
		return;
	free(slot->told_to_end);
	slot->told_to_end = told ? xstrdup(id) : NULL;
	slot->told_vaguely = vaguely;
}

/* docker compose makes another container under another name, has the old one stopped and removed, and renames the new one. */
static void note_succession(const struct engine *e, struct engine_slot *slot, const char *action, const char *id, const char *name)
{
	cleanup_free char *own = engine_container_name(e, slot->service);
	bool ours = slot->successor && id && !strcmp(slot->successor, id);
	if (id && name && !strcmp(action, "create") && strcmp(name, own) != 0) {
		free(slot->successor);
		slot->successor = xstrdup(id);
		slot->successor_ms = now_monotonic_ms();
	} else if (ours && (!strcmp(action, "rename") || !strcmp(action, "start") || !strcmp(action, "destroy"))) {
		free(move_ptr(slot->successor));
	}
}

bool engine_is_succeeded(const struct engine_slot *slot)
{
	return slot->successor && now_monotonic_ms() - slot->successor_ms < SUCCESSION_MS;
}

static void take_event(struct engine *e, const char *line)
{
	static const char *const told[] = {"start", "die", "stop", "destroy", "remove", "pause", "unpause"};
	json_t *json = json_loads(line, 0, NULL);
	const char *action = json_string_value(json_object_get(json, "Action"));
	const json_t *actor = json_object_get(json, "Actor"), *attributes = json_object_get(actor, "Attributes");
	const char *service = engine_service_of(attributes);
	int64_t at = json_integer_value(json_object_get(json, "timeNano"));
	if (at > e->events_ns)
		e->events_ns = at;
	if (action && is_known(e, service)) {
		const char *id = json_string_value(json_object_get(actor, "ID"));
		note_order(engine_slot(e, service), action, id, json_string_value(json_object_get(attributes, "signal")), at / 1000000);
		note_succession(e, engine_slot(e, service), action, id, json_string_value(json_object_get(attributes, "name")));
	}
	for (size_t i = 0; action && is_known(e, service) && i < sizeof told / sizeof *told; i++)
		if (!strcmp(action, told[i]))
			look(e, service);
	json_decref(json);
}

/* Somebody has put a container into our network, or taken it out. What it says is known already of each start. */
static void take_network_event(struct engine *e, const char *line)
{
	json_t *json = json_loads(line, 0, NULL);
	const char *action = json_string_value(json_object_get(json, "Action"));
	const char *id = json_string_value(json_object_get(json_object_get(json_object_get(json, "Actor"), "Attributes"), "container"));
	bool out = action && !strcmp(action, "disconnect");
	for (struct engine_slot *s = e->slots; id && s; s = s->next)
		if (s->state == INSTANCE_RUNNING && s->id && !strcmp(s->id, id) && (s->unplugged != out || s->looking))
			look(e, s->service);
	json_decref(json);
}

static bool take_lines(struct engine *e, struct buffer *line, const char *data, size_t len, void (*take)(struct engine *e, const char *line))
{
	if (engine_is_flood(&e->events_rate, data, len))
		return false;
	for (const char *end; len && (end = memchr(data, '\n', len)); len -= (size_t)(end + 1 - data), data = end + 1) {
		buffer_add(line, data, (size_t)(end - data));
		take(e, buffer_str(line));
		buffer_clear(line);
	}
	buffer_add(line, data, len);
	return line->len < LINE_MAX_BYTES;
}

static bool on_data(void *arg, int status, const char *data, size_t len)
{
	struct engine *e = arg;
	e->retries = 0;
	e->events_cut = !take_lines(e, &e->events_line, data, len, take_event);
	return !e->events_cut;
}

static bool on_network_data(void *arg, int status, const char *data, size_t len)
{
	struct engine *e = arg;
	return take_lines(e, &e->network_line, data, len, take_network_event);
}

/* Opened again with the other stream: where it is not to be had, that alone is what there is. */
static void on_network_end(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine *e = arg;
	e->network_events = NULL;
	buffer_clear(&e->network_line);
	if (err && e->watching && !e->closing)
		log_debug(AREA, "the events of the network: %s", err->message);
}

static void open_stream(struct engine *e);

static void on_retry(uv_timer_t *timer)
{
	open_stream(timer->data);
}

/* Nobody answers where it stood: what it ran ended with it, as far as anybody can tell. */
static void lose_all(struct engine *e)
{
	for (struct engine_slot *s = e->slots; s; s = s->next)
		if (s->state == INSTANCE_RUNNING && !s->ops)
			tell_gone(e, s, INSTANCE_EXITED);
}

/* What ran, and what was ended by an order that nobody has vouched for. */
static void note_unheard(struct engine *e)
{
	for (struct engine_slot *s = e->slots; s; s = s->next) {
		s->unheard = s->unheard || s->state == INSTANCE_RUNNING || (s->id && engine_log_is_heard(e, s->id));
		if (!s->vouching)
			continue;
		const struct instance lost = {.service = s->service, .state = INSTANCE_EXITED, .handle = s->id, .config_hash = (char *)"", .started_ms = s->started_ms, .exited_ms = now_wall_ms(), .exit_code = 255};
		s->vouching = 0;
		tell_lost(e, s, &lost);
	}
}

static void on_end(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine *e = arg;
	e->events = NULL;
	buffer_clear(&e->events_line);
	if (!e->watching || e->closing)
		return;
	if (!e->events_cut)
		note_unheard(e);
	e->events_cut = false;
	if (err)
		log_warning(AREA, "the events of %s: %s", e->target.url, err->message);
	if (err && !status && e->retries)
		lose_all(e);
	unsigned delay = RETRY_MS << (e->retries < 5 ? e->retries : 5);
	e->retries++;
	uv_timer_start(&e->retry, on_retry, delay < RETRY_MAX_MS ? delay : RETRY_MAX_MS, 0);
}

static struct http_call *open_events(struct engine *e, json_t *filters, http_data *data, engine_answer *done)
{
	cleanup_free char *text = json_dumps(filters, JSON_COMPACT);
	cleanup_free char *escaped = engine_escape(text);
	cleanup_free char *path = xasprintf("/events?filters=%s&since=%lld.%09lld", escaped, (long long)(e->events_ns / 1000000000), (long long)(e->events_ns % 1000000000));
	json_decref(filters);
	return engine_stream(e, "GET", path, NULL, NULL, 0, data, done, e);
}

static void open_stream(struct engine *e)
{
	e->leaving = false;
	cleanup_free char *network = engine_network_name(e);
	cleanup_free char *label = xasprintf(ENGINE_LABEL_NAMESPACE "=%s", e->namespace_);
	e->events = open_events(e, json_pack("{s:[s], s:[s]}", "type", "container", "label", label), on_data, on_end);
	if (!e->network_events && !e->podman) /* its events have no labels; Podman has no such filter */
		e->network_events = open_events(e, json_pack("{s:[s], s:[s], s:[s, s]}", "type", "network", "network", network, "event", "connect", "disconnect"), on_network_data, on_network_end);
	for (struct engine_slot *s = e->slots; s; s = s->next) { /* what became of them since, nobody knows */
		free(move_ptr(s->told_to_end));
		free(move_ptr(s->successor));
	}
	for (struct engine_slot *s = e->slots; e->retries && s; s = s->next)
		if (s->id)
			look(e, s->service);
}

void engine_watch(struct engine *e)
{
	if (e->watching || e->closing || !e->version.open)
		return;
	e->watching = true;
	e->retries = 0;
	e->events_ns = now_wall_ms() * 1000000;
	open_stream(e);
}

void engine_unwatch(struct engine *e)
{
	e->watching = false;
	uv_timer_stop(&e->retry);
	http_cancel(e->events);
	http_cancel(e->network_events);
}
