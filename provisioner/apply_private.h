/* Between apply.c (what is wanted and planned) and the files of one service on its way. Loop thread. */
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

/* ---- apply_state.c ---- */

/* Says its state where it has changed, or `always`. */
void service_tell(struct apply_service *s, bool always);
void service_tell_health(struct apply_service *s); /* it has changed */
/* What others do to it while it runs. */
void service_set_held(struct apply_service *s, bool paused, bool unplugged);

/* ---- apply_operation.c: one at a time, when none is under way ---- */

void service_start(struct apply_service *s);
void service_stop(struct apply_service *s);
void service_remove(struct apply_service *s);

/* ---- apply_ports.c ---- */

/* Before a start. false: a foreigner sits on one, and another number is asked for, or it has failed. */
bool service_ports_are_free(struct apply_service *s);
/* A backend's `message` names a port that is free as far as this process can tell: an engine may hold one that nobody listens on, or somewhere else.
 * Another number is asked for. */
void service_replace_port(struct apply_service *s, const char *message);

/* ---- apply_adapt.c: data in a container that was made with other values (recipe.h: container_adapt) ---- */

/* new: what data that is made now has; NULL: nobody cares */
char *service_values(const struct apply_service *s);
/* It was started with these: if its data is new it has them. */
void service_note_values(struct apply_service *s, const char *values);
/* It runs: the data gets its values unless it has them. true: that goes on, and service_probe follows, or it fails. */
bool service_adapts(struct apply_service *s);
void service_adapt_end(struct apply_service *s);

/* ---- apply_ready.c ---- */

/* It runs: it is ready when it is found to be, and its health is looked at from then on. May be called again. */
void service_probe(struct apply_service *s);
void service_probe_end(struct apply_service *s); /* of all that it is asked */
/* Its data is whole. Before anybody is told that it is ready, or has completed. */
void service_settled(struct apply_service *s);

/* ---- apply_health.c: of what is ready ---- */

void service_health_begin(struct apply_service *s);
void service_health_end(struct apply_service *s);

/* ---- apply_check.c: how it is asked ---- */

/* Borrows `what`; without what is told of its end. */
struct probe_params service_probe_params(struct apply_service *s, const struct config_probe *what);
/* A command for a probe is as good as any. */
bool service_may_probe(const struct apply_service *s, const struct config_probe *what);
/* The image's own, unless the file has another or wants none. Its strings are the backend's. */
bool service_image_check(const struct apply_service *s, struct config_probe *ret);

/* ---- apply_exit.c ---- */

struct exit {
	int code;
	int64_t ms;     /* 0: now */
	bool dismissed, lost, returned; /* as in struct instance */
};
void service_exited(struct apply_service *s, const struct exit *how);
void service_backoff_end(struct apply_service *s);

/* ---- apply_failure.c ---- */

/* With what its log says, `err` becomes why it has failed. */
void service_fail(struct apply_service *s, const struct error *err);
void service_fail_running(struct apply_service *s, const struct error *err); /* before it was ready, and runs on */

/* ---- apply_log.c ---- */

uint64_t service_log_size(const struct apply_service *s); /* bytes; 0: there is none */

/* ---- apply_timer.c ---- */

/* new: its data is `s`; NULL again by service_timer_end, after which it does not fire. */
uv_timer_t *service_timer_new(struct apply_service *s);
void service_timer_end(struct apply_service *s, uv_timer_t **timer);

#endif
