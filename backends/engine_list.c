/* What is there: one call for all, and one more for each container that is not known yet as it is now. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backends/engine.h"
#include "base/alloc.h"
#include "base/cleanup.h"

#define LIST_MAX 2000 /* of one environment */

struct listing {
	struct engine *e;
	struct instances list;
	unsigned open; /* inspections */
	uint64_t ops_ended; /* when it began */
	struct error failed;
	backend_list_done *done;
	void *arg;
};

int64_t engine_milliseconds(const char *text)
{
	struct tm tm = {0};
	long offset = 0, fraction = 0;
	char *rest = text ? strptime(text, "%Y-%m-%dT%H:%M:%S", &tm) : NULL;
	if (!rest || tm.tm_year < 70)
		return 0;
	if (*rest == '.')
		fraction = engine_nanoseconds(rest, &rest);
	unsigned hours, minutes;
	if ((*rest == '+' || *rest == '-') && sscanf(rest + 1, "%2u:%2u", &hours, &minutes) == 2)
		offset = ((long)hours * 60 + (long)minutes) * (*rest == '-' ? -60 : 60);
	return ((int64_t)timegm(&tm) - offset) * 1000 + fraction / 1000000;
}

bool engine_is_running(const json_t *container)
{
	return json_is_true(json_object_get(json_object_get(container, "State"), "Running"));
}

/* Docker's alone: Podman does not say which network it was made for. */
bool engine_is_unplugged(const struct engine *e, const json_t *container)
{
	cleanup_free char *network = engine_network_name(e);
	const char *mode = json_string_value(json_object_get(json_object_get(container, "HostConfig"), "NetworkMode"));
	const json_t *networks = json_object_get(json_object_get(container, "NetworkSettings"), "Networks");
	return mode && !strcmp(mode, network) && json_is_object(networks) && !json_object_get(networks, network);
}

bool engine_instance_of(const struct engine *e, const json_t *container, struct instance *ret)
{
	const json_t *labels = json_object_get(json_object_get(container, "Config"), "Labels"), *state = json_object_get(container, "State");
	const char *service = engine_service_of(labels), *hash = engine_label(labels, ENGINE_LABEL_CONFIG_HASH);
	const char *id = json_string_value(json_object_get(container, "Id"));
	int64_t started = engine_milliseconds(json_string_value(json_object_get(state, "StartedAt")));
	if (!id || !engine_is_of(labels, e->namespace_) || !backend_service_name_valid(service) || !started)
		return false;
	bool paused = json_is_true(json_object_get(state, "Paused")), waits = json_is_true(json_object_get(state, "Restarting")); /* for its next start: and "Running" */
	bool running = paused || (json_is_true(json_object_get(state, "Running")) && !waits);
	*ret = (struct instance){
	    .service = xstrdup(service),
	    .state = running ? INSTANCE_RUNNING : INSTANCE_EXITED,
	    .pid = running ? (pid_t)json_integer_value(json_object_get(state, "Pid")) : 0,
	    .handle = xstrdup(id),
	    .config_hash = xstrdup(hash ? hash : ""),
	    .exit_code = running ? 0 : (int)json_integer_value(json_object_get(state, "ExitCode")),
	    .started_ms = started,
	    .exited_ms = running ? 0 : engine_milliseconds(json_string_value(json_object_get(state, "FinishedAt"))),
	    .paused = paused,
	    .unplugged = running && engine_is_unplugged(e, container),
	};
	return true;
}

static void finish(struct listing *l)
{
	if (--l->open)
		return;
	bool failed = error_is_set(&l->failed);
	l->e->listed = l->e->listed || !failed;
	const struct instances none = {NULL, 0};
	if (!failed && l->list.count)
		engine_watch(l->e);
	l->done(l->arg, failed ? &l->failed : NULL, failed ? &none : &l->list);
	engine_end(l->e);
	instances_release(&l->list);
	error_release(&l->failed);
	free(l);
}

static void on_inspected(void *arg, const struct error *err, int status, const json_t *json)
{
	struct listing *l = arg;
	struct instance i;
	if (err && status != 404 && !error_is_set(&l->failed))
		error_copy(&l->failed, err);
	if (!err && engine_instance_of(l->e, json, &i)) {
		array_grow(l->list.items, l->list.count);
		l->list.items[l->list.count++] = i;
		struct engine_slot *slot = engine_slot(l->e, i.service);
		engine_check_take(l->e, i.service, json);
		engine_hooks_take(l->e, i.service, json);
		engine_made_take(l->e, i.service, json);
		if (!slot->ops && slot->op_ended <= l->ops_ended) {
			engine_seen(l->e, &i, slot->state == INSTANCE_ABSENT);
			slot->rises = slot->rises || (!l->e->listed && i.state == INSTANCE_EXITED);
		}
		struct instance *item = &l->list.items[l->list.count - 1];
		item->dismissed = engine_is_dismissed(slot, item);
		item->memory_bytes = engine_memory(slot);
		if (item->state == INSTANCE_EXITED && (slot->vouching || engine_log_is_heard(l->e, item->handle)))
			item->state = INSTANCE_RUNNING; /* that it has ended is about to be told */
		if (i.state == INSTANCE_RUNNING)
			engine_log_follow(l->e, i.service, i.handle);
	}
	finish(l);
}

/* It is as it was when it was inspected last. */
static bool take_known(struct listing *l, const json_t *container)
{
	const json_t *labels = json_object_get(container, "Labels");
	const char *service = engine_service_of(labels), *hash = engine_label(labels, ENGINE_LABEL_CONFIG_HASH);
	const char *id = json_string_value(json_object_get(container, "Id")), *state = json_string_value(json_object_get(container, "State"));
	if (!engine_is_of(labels, l->e->namespace_) || !backend_service_name_valid(service) || !id || !state)
		return true;
	const struct engine_slot *slot = engine_slot(l->e, service);
	bool running = !strcmp(state, "running");
	if (!running || slot->state != INSTANCE_RUNNING || slot->paused || slot->unplugged || engine_is_unplugged(l->e, container) || !slot->id || strcmp(slot->id, id) || !l->e->watching)
		return false;
	array_grow(l->list.items, l->list.count);
	l->list.items[l->list.count++] = (struct instance){
	    .service = xstrdup(service), .state = INSTANCE_RUNNING, .pid = slot->pid, .handle = xstrdup(id), .config_hash = xstrdup(hash ? hash : ""), .started_ms = slot->started_ms,
	    .memory_bytes = engine_memory(slot)};
	return true;
}

/* Made ahead of need, perhaps by our predecessor. */
static bool take_created(struct listing *l, const json_t *container, const char *state)
{
	const json_t *labels = json_object_get(container, "Labels");
	struct engine_slot *slot = engine_slot(l->e, engine_service_of(labels));
	if (strcmp(state, "created"))
		return false;
	if (!slot->ops && slot->state == INSTANCE_ABSENT && !engine_made_by_others(labels)) {
		engine_slot_set(slot, json_string_value(json_object_get(container, "Id")), engine_label(labels, ENGINE_LABEL_CONFIG_HASH));
		slot->rises = slot->rises || !l->e->listed; /* Docker lists it so until its start is over */
	}
	return true;
}

static void on_listed(void *arg, const struct error *err, int status, const json_t *json)
{
	struct listing *l = arg;
	size_t i;
	json_t *container;
	if (err)
		error_copy(&l->failed, err);
	else if (!json_is_array(json) || json_array_size(json) > LIST_MAX)
		error_set(&l->failed, ERROR_BACKEND_UNREACHABLE, "%s answers with what is no list of at most %d containers", l->e->target.url, LIST_MAX);
	for (i = 0; !error_is_set(&l->failed) && (container = json_array_get(json, i)); i++) {
		const char *state = json_string_value(json_object_get(container, "State")), *id = json_string_value(json_object_get(container, "Id"));
		if (take_known(l, container) || take_created(l, container, state))
			continue;
		cleanup_free char *path = xasprintf("/containers/%s/json", id);
		l->open++;
		engine_call(l->e, "GET", path, NULL, ENGINE_CALL_MS, on_inspected, l);
	}
	finish(l);
}

void engine_list(struct backend *b, backend_list_done *done, void *arg)
{
	struct engine *e = (struct engine *)b;
	struct listing *l = xcalloc(1, sizeof *l);
	*l = (struct listing){.e = e, .open = 1, .ops_ended = e->ops_ended, .failed = ERROR_INIT, .done = done, .arg = arg};
	cleanup_free char *path = engine_labelled("/containers/json?all=1&", e->namespace_);
	engine_begin(e);
	engine_call(e, "GET", path, NULL, ENGINE_CALL_MS, on_listed, l);
}
