/* What is known of each service: the containers that were seen here, or made. */
#include <stdlib.h>
#include <string.h>

#include "backends/engine.h"
#include "base/alloc.h"
#include "base/cleanup.h"

struct engine_slot *engine_slot(struct engine *e, const char *service)
{
	struct engine_slot *s = e->slots;
	while (s && strcmp(s->service, service))
		s = s->next;
	if (s)
		return s;
	s = xcalloc(1, sizeof *s);
	s->service = xstrdup(service);
	s->next = e->slots;
	return e->slots = s;
}

void engine_slots_free(struct engine *e)
{
	struct engine_slot *next, *s = move_ptr(e->slots);
	for (; s; s = next) {
		next = s->next;
		free(s->service);
		free(s->id);
		free(s->told_to_end);
		free(s->successor);
		free(s->log_id);
		strv_free(s->check.argv);
		strv_free(s->pre_stop);
		json_decref(s->others);
		free(s->config_hash);
		free(s);
	}
}

void engine_slot_set(struct engine_slot *slot, const char *id, const char *config_hash)
{
	char *copies[] = {xstrdup(id), xstrdup(config_hash ? config_hash : "")}; /* they may be its own */
	if (id) {
		free(slot->id);
		slot->id = move_ptr(copies[0]);
	}
	free(slot->config_hash);
	slot->config_hash = copies[1];
}

bool engine_slot_is_empty(const struct engine_slot *slot)
{
	return !slot->config_hash || !*slot->config_hash;
}
