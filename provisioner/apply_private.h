/* Between apply.c (what is wanted and planned) and apply_service.c (one service on its way). */
#ifndef PROVISIONER_APPLY_PRIVATE_H
#define PROVISIONER_APPLY_PRIVATE_H

#include "provisioner/apply.h"

struct apply {
	struct apply_params params;
	struct backend *backend;
	const struct model *model;
	struct apply_service **services; /* those of the configuration in its order, then others */
	size_t count;
	bool held;
	bool halted;
	bool listing, list_again;
	unsigned open_timers; /* close callbacks that are to come */
};

static inline void apply_wake(struct apply *a)
{
	if (!a->halted)
		a->params.wake(a->params.arg);
}

static inline bool service_runs(const struct apply_service *s)
{
	return s->present == PRESENT_RUNNING || s->present == PRESENT_READY;
}

static inline bool service_is_unhealthy(const struct apply_service *s) /* and has not been ready */
{
	return s->present == PRESENT_RUNNING && s->unhealthy;
}

static inline bool service_goes_down(const struct apply_service *s)
{
	return s->goal == GOAL_STOPPED || s->goal == GOAL_ABSENT;
}

/* Says its state where it has changed, or `always`. */
void service_tell(struct apply_service *s, bool always);
/* What others do to it while it runs. */
void service_set_held(struct apply_service *s, bool paused, bool unplugged);
struct exit {
	int code;
	int64_t ms;     /* 0: now */
	bool dismissed, lost, returned; /* as in struct instance */
};
void service_exited(struct apply_service *s, const struct exit *how);
void service_probe(struct apply_service *s);
void service_probe_end(struct apply_service *s);
void service_backoff_end(struct apply_service *s);
/* It has failed before it was ready, and runs on. Steals what `err` holds. */
void service_fail_running(struct apply_service *s, struct error *err);

/* ---- apply_adapt.c: data in a container that was made with other values (recipe.h: container_adapt) ---- */

/* new: what data that is made now has; NULL: nobody cares */
char *service_values(const struct apply_service *s);
/* It was started with these: if its data is new it has them. */
void service_note_values(struct apply_service *s, const char *values);
/* It runs: the data gets its values unless it has them. true: that goes on, and service_probe follows, or it fails. */
bool service_adapts(struct apply_service *s);
void service_adapt_end(struct apply_service *s);

void service_start(struct apply_service *s);
void service_stop(struct apply_service *s);
void service_remove(struct apply_service *s);

#endif
