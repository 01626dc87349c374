/* Carries plans out: for every service what is wanted, what is there, and the operation that is under way. Independent
 * services go at the same time; whatever happens (an operation ends, a service exits, a timer) leads to a new plan.
 * Loop thread.
 */
#ifndef PROVISIONER_APPLY_H
#define PROVISIONER_APPLY_H

#include <uv.h>

#include "backends/backend.h"
#include "provisioner/model.h"
#include "provisioner/plan.h"
#include "provisioner/probe.h"

#define APPLY_BACKOFF_MS 100 /* the first; doubles */
#define APPLY_BACKOFF_MAX_MS 10000
#define APPLY_QUICK_EXIT_MS 10000 /* an exit this soon after the start counts towards a crash loop */
#define APPLY_QUICK_EXITS 5       /* that many restarts, then it is given up */
#define APPLY_LOG_LINES 10        /* of a service's log that an error carries */
#define APPLY_HEALTH_INTERVAL_MS 30000 /* Compose's defaults, */
#define APPLY_HEALTH_RETRIES 3         /* https://docs.docker.com/reference/dockerfile/#healthcheck */
#define APPLY_ENDING_MS 50        /* between looks at what is gone, until that is told */
#define APPLY_PORT_TRIES 5        /* other numbers that are tried when foreigners sit on the leased ones */

enum service_state {
	SERVICE_ABSENT,
	SERVICE_WAITING, /* for what it depends on */
	SERVICE_STARTING,
	SERVICE_READY,
	SERVICE_COMPLETED,
	SERVICE_RESTARTING, /* exited; a timer runs */
	SERVICE_FAILED,
	SERVICE_STOPPING,
	SERVICE_STOPPED,
	SERVICE_UNSUPPORTED
};

const char *service_state_name(enum service_state state); /* borrowed, static */

enum service_operation { OPERATION_NONE, OPERATION_START, OPERATION_STOP, OPERATION_REMOVE };

struct apply;

struct apply_service {
	struct apply *apply;
	char *name;
	const struct model_service *model; /* borrowed; NULL: the configuration does not know it (any more) */
	enum service_state state;          /* as last told */
	enum plan_goal goal;
	enum plan_present present;
	bool made;
	enum service_operation operation;
	bool restart, recreate, stuck;
	bool taken; /* a foreigner sits on its port: waiting for another number */
	unsigned port_tries;
	bool exited; /* while its start was under way */
	bool outdated; /* the start under way is of another configuration than what is to be applied: its result is made anew */
	bool discard; /* its data goes before anything of it is started again; the owner's to do once it is not made, and to clear */
	bool discarding; /* the owner is at it */
	bool unfinished; /* that is why: its first start was interrupted */
	bool anew; /* it was made anew for that: it is not done again and again */
	bool lost; /* it has failed with its engine, and is started again when that answers */
	bool gone; /* its process is not there any more: the backend is about to say so */
	bool proven; /* has been ready since its last start (or may have been: it was found running) */
	pid_t pid;
	char *handle;
	char *config_hash; /* as it was started with */
	char *start_hash;  /* of the start under way */
	char *start_values; /* service_values of it */
	int exit_code;
	int64_t started_ms, exited_ms; /* wall clock */
	uint64_t started_at;           /* monotonic */
	uint64_t memory_bytes;
	json_t *progress; /* of its image's pull or build, as backend_progress tells it; NULL: none goes on */
	char *foreign;    /* its image is for another kind of machine: so it is told; NULL: not that anybody knew */
	unsigned restarts, quick_exits;
	uint64_t log_offset;
	uv_timer_t *backoff; /* NULL: none runs */
	struct probe *probe;
	struct adaptation *adaptation; /* of its data, before it is probed; NULL: none goes on */
	uv_timer_t *health;         /* to the next check of what is ready; NULL: there is none to be made */
	struct probe *health_probe; /* the one under way */
	unsigned health_failures;   /* in a row */
	bool unhealthy;             /* with PRESENT_RUNNING: before it was ever ready, its check's retries are used up, or its data could not be adapted; it has failed, and runs */
	bool used_up;               /* they were, since its last start: the next failure is one, too */
	bool paused; /* by others: it runs and answers nobody */
	bool unplugged; /* by others, from the environment's network: the next demand makes it anew */
	bool dismissed; /* by others, while it was wanted: it rests until somebody wants it again, or starts it */
	uint64_t changes; /* counts operations and exits: an older list says nothing */
	uint64_t changes_at_list;
	struct error error; /* why it failed, or what its last operation said */
};

struct apply_params {
	uv_loop_t *loop;
	void (*wake)(void *arg); /* something happened: call apply_turn soon */
	void (*changed)(void *arg, const struct apply_service *s,
	                bool state_changed); /* its state, pid or memory; from within apply_turn or an event */
	void (*health)(void *arg, const struct apply_service *s); /* what is ready has become unhealthy, was paused or unplugged, or is healthy again; `changed` follows */
	bool (*started)(void *arg, const struct apply_service *s); /* others have started what nobody wanted up. true: so it is wanted from now on */
	/* The external port is a foreigner's: lease another, load the model anew, apply_set_model; or apply_port_failed. */
	void (*port_taken)(void *arg, const char *service, const struct port_binding *port);
	void *arg;
};

struct apply *apply_new(const struct apply_params *params);
/* No callback comes after `apply_halt`; the object may be freed when the backend is closed, too (its operations end
 * with it). */
void apply_halt(struct apply *a);
bool apply_may_free(const struct apply *a);
void apply_free(struct apply *a);

void apply_set_backend(struct apply *a, struct backend *backend); /* borrowed; NULL: none (yet) */
/* Services are matched by name; one that is not configured any more stays known while an instance of it is there. */
void apply_set_model(struct apply *a, const struct model *model);
/* Services that are to rest, and by whose word. */
#define RESTING_BY_US "ajj"        /* a command's */
#define RESTING_BY_OTHERS "others" /* dismissed */
json_t *apply_resting(const struct apply *a); /* new: {SERVICE: RESTING_*}, of those that are at rest already */
/* What the backend lists when we begin. `up`: it goes on, but for those that were at `resting` (as above) and do not run; else what runs is left for the caller to say.
 */
void apply_adopt(struct apply *a, const struct instances *list, bool up, const json_t *resting);

/* backend_params.changed */
void apply_instance_changed(struct apply *a, const struct instance *instance);

size_t apply_count(const struct apply *a);
struct apply_service *apply_at(const struct apply *a, size_t i);
struct apply_service *apply_find(const struct apply *a, const char *name);
/* One that is not configured yet, and of which there is something to tell: `progress` set before the next turn. */
struct apply_service *apply_find_or_add(struct apply *a, const char *name);
/* Of what is ready: "healthy", or what is the matter. static */
const char *service_health_name(const struct apply_service *s);
bool apply_has_failed(const struct apply_service *s); /* given up, or unhealthy before it was ready */

/* What is wanted. Trying again is part of wanting: a failed service gets another chance. */
void apply_want(struct apply_service *s, enum plan_goal goal);
void apply_restart(struct apply_service *s);
/* Everything that runs with another configuration than the model's is recreated, what is no longer configured removed.
 */
void apply_changes(struct apply *a);
/* What was made of it goes, and is made anew by a start. */
void apply_recreate(struct apply_service *s);
bool apply_has_changes(const struct apply *a);
/* May a demand go by another model than the one that services were started with? When something that is wanted has never
 * been ready (the old model may be why), and what is of use to somebody runs as `model` says, too. */
bool apply_may_follow(const struct apply *a, const struct model *model);
/* Does something run that was started with another configuration than `model` has of it, or that `model` does not know? */
bool apply_contradicts(const struct apply *a, const struct model *model);
/* It runs, and what was made of it goes when `m` is applied: not before the image of what comes in its place is there. */
bool apply_is_replaced(const struct apply_service *s, const struct model_service *m);
/* Its image could not be had. false: it runs, or is on its way, without; else that is why it does not. */
bool apply_image_failed(struct apply_service *s, const struct error *err);
/* A service that is of no use as it is, and was made with another configuration than the model's, is made anew. */
void apply_renew(struct apply_service *s);
/* No service is started while held (the store has to know first). */
void apply_hold(struct apply *a, bool held);
void apply_port_failed(struct apply_service *s, const struct error *err);

/* Takes every step that can be taken now. */
void apply_turn(struct apply *a);
/* Looks whether what is ready is still there. What is not is not ready any more, and a turn follows; true: there is such. */
bool apply_look(struct apply *a);
/* Asks the backend for pids and memory, at most once at a time. */
void apply_refresh(struct apply *a);

bool apply_is_active(const struct apply *a); /* something runs, is under way or is wanted up */
bool apply_is_down(const struct apply *a,
                   bool removed);   /* nothing runs or is under way (and nothing made is left), but for what is stuck */
void apply_forget(struct apply *a); /* after a teardown: every service is absent */

/* new: the last lines of its log, secrets masked; NULL when there are none. */
char **apply_log_tail(const struct apply_service *s);

#endif
