/* What the parts of an environment share: environment.c (life, turns, state), jobs.c, load.c (configuration),
 * environment_backend.c, demand.c (who waits for what), teardown.c, texts.c. Loop thread.
 *
 * Everything that happens ends in environment_wake; one turn of the loop later environment_turn looks at all of it:
 * teardown, who waits, steps, state, what changed. There is no other order to keep.
 */
#ifndef PROVISIONER_ENVIRONMENT_PRIVATE_H
#define PROVISIONER_ENVIRONMENT_PRIVATE_H

#include "base/digest.h"
#include "provisioner/apply.h"
#include "provisioner/environment.h"
#include "provisioner/events.h"
#include "provisioner/main_layer.h"
#include "provisioner/model.h"
#include "provisioner/store.h"

#define WATCH_INTERVAL_MS 1000 /* between looks at the configuration file */
#define REFUSED_MAX 16
#define REFUSED_MS (10 * 60 * 1000) /* how long a number that the backend would not publish is left alone */
#define REQUESTED_BY_MAX 8     /* of those who started something that status.json names */

/* In the store's `desired`: a teardown has begun; whoever finds it finishes it. */
#define DESIRED_DESTROYING "destroying"

enum teardown { TEARDOWN_NONE, TEARDOWN_PENDING, TEARDOWN_STOPPING, TEARDOWN_VERIFYING, TEARDOWN_TRASHING };

/* Blocking work, one piece at a time and in order: that is what lets it share the store's handle. */
struct job {
	uv_work_t request;
	struct environment *e;
	void (*begin)(struct job *job); /* loop thread, right before; NULL: nothing */
	void (*work)(struct job *job);  /* worker thread */
	void (*after)(struct job *job); /* loop thread; frees */
	const char *what;               /* for the log */
	uint64_t began_ms;
	struct job *next;
};

enum load_flags {
	LOAD_NEEDED = 8, /* somebody waits for what it finds: a look at the clock alone does not repeat what failed */
	LOAD_FORCE = 1,  /* although no file has changed */
	LOAD_APPLY = 2,  /* the new configuration is taken over while services run by the old one */
	LOAD_APPROVE = 4,
	LOAD_REVOKE = 16,
	LOAD_AGAIN = 64, /* the model is made anew from what it was made from: its ports are others; then the files are looked at as ever */
	LOAD_OFFER = 32 /* the same where that contradicts nothing that runs, else it is environment.next */
};

enum wait { WAIT_READY, WAIT_DOWN, WAIT_STOPPED, WAIT_DESTROYED, WAIT_LOADED, WAIT_SETTLED };

/* That an `up` has there before it stops anything, in this order. */
enum images {
	IMAGES_NEEDED,
	IMAGES_BESIDE, /* of what is not needed, but replaced with the rest */
	IMAGES_HAD
};

struct demand {
	struct environment *e;
	struct demand *next;
	enum wait wait;
	bool command; /* somebody typed it: `start: manual` does not hold it back */
	bool all, apply, restart;
	char **names; /* NULL: the default set */
	char **profiles;
	char *file; /* of x-aether.env_files; NULL: none */
	struct requester who;
	demand_done *done;
	void *arg;
	enum load_flags load;
	char *approves;    /* the hash that is to be approved, "" whatever stands there; NULL: none */
	uint64_t load_seq; /* 0: not asked for yet */
	bool admitted, finished;
	bool revives;      /* it came after an end that nobody had told of: what that leaves failed is tried once more */
	bool known;        /* its failure stands in errors.json already */
	char **needed;     /* services that must be ready */
	bool build_always;
	struct demand_build *builds; /* under way; NULL: none */
	enum images images;
	char **renewed;    /* services whose container is of another image now */
	bool extended;     /* it has waited for a build beyond its time */
	uint64_t began_ms; /* monotonic */
	uv_timer_t *deadline;
	struct error error; /* empty: success */
};

struct environment {
	struct environment_params params;
	const struct identity *id;
	struct store *store;     /* jobs alone touch it */
	struct recipes *recipes; /* the same */
	struct digests digests;  /* the same */
	struct events *events;
	struct apply *apply;
	struct backend *backend;
	char *backend_name;
	struct model *model;
	struct model *next; /* that an `up` waits to apply: while what runs by `model` runs on, nothing else is said of it. NULL: none */
	struct error config_error;
	struct trust trust; /* of the configuration as it was last read, whether it was taken over or not */
	char *approves;     /* for the next load */
	char *text_failure;   /* why .env could not be written down, as last told; NULL: it could */
	struct error failure; /* of the environment as a whole; cleared by the next success */
	char **warnings;
	struct buffer user_text;
	uint64_t user_stamp;
	struct main_layer main;
	struct main_layer main_base; /* the main checkout's plain `.env`, where ours has another name and the workspace has none */
	struct buffer base_text;     /* the workspace's own, which may be tracked */
	uint64_t base_stamp;
	struct buffer inherited;     /* what lies beneath the workspace's own lines: all of these */
	struct envset env; /* of what env_key says; environment_variables */
	uint64_t env_key;
	struct more_file *more_files; /* NULL: not known yet */
	size_t n_more_files;
	json_t *requested_by;

	/* as the store has it */
	char *stored_backend, *stored_target, *stored_reason, *desired;
	uint32_t generation;
	uid_t uid;
	json_t *applied; /* of applied.c, the same; NULL: nothing */
	json_t *resting; /* of resting.c, as it is written, or about to be */

	struct job *jobs, *running_job;
	uint64_t load_started, load_done; /* numbers of loads */
	bool registered;                  /* a load has put it into the store, or found it there */
	uint64_t user_load;               /* the one that reads a link that was put in the place of .env */
	enum load_flags load_flags;
	bool load_queued;
	uint64_t config_stamp;
	uint64_t root_stamp; /* the part of it that a read may look at: the workspace's own files */
	uint64_t files_stamp; /* layers_files_stamp of the model */
	bool plan; /* ports may be leased: false from a teardown to the next demand */
	bool config_changed;
	bool adopted, adopting;
	bool recalled; /* the model is what was applied once; whether anything runs by it is not known yet, and what the files say is `next` */
	bool up_stored, storing_up;
	bool prepared;
	struct error backend_error;

	enum teardown teardown;
	bool teardown_failed; /* something survived: it is tried again before anything is made anew */
	char *desired_before; /* an unlink that may yet turn out to be a replacement */
	struct requester unlinker;
	uv_timer_t unlink_timer;

	struct {
		uint16_t port;
		uint64_t until_ms; /* monotonic */
	} refused[REFUSED_MAX]; /* as in model_params; the oldest goes first */
	unsigned next_refused;

	struct demand *demands;
	uint64_t refreshed_ms; /* when pids and memory were last asked for */
	const char *state;     /* as last told */
	bool was_ready;
	bool satisfied; /* a demand was answered, and there was nothing to run for it */

	uv_timer_t turn, watch;
	unsigned changed;
	unsigned open_handles; /* timers, backends: close callbacks that are to come */

	bool closing, stop_services, halted, stored_stop;
	void (*closed)(void *arg);
	void *closed_arg;
};

void environment_wake(struct environment *e);
void environment_mark(struct environment *e, unsigned what); /* enum environment_change; wakes */
/* A line of `events`; steals fields. */
void environment_event(struct environment *e, const char *type, json_t *fields);
/* new: without the secrets of what is and what is next */
char *environment_mask(const struct environment *e, const char *text);
/* Into errors.json, masked. */
void environment_fail(struct environment *e, const struct error *err);
json_t *requester_json(const struct requester *who);                                           /* new */
uv_timer_t *environment_timer(struct environment *e, uv_timer_cb cb, uint64_t ms, void *data); /* of the heap */
void environment_timer_end(struct environment *e, uv_timer_t **timer);
bool environment_is_unseen(const struct environment *e);    /* it is not known yet what runs, and something should */
bool environment_is_known(const struct environment *e);     /* the first load is done, and what runs is adopted */
const char *environment_state(const struct environment *e); /* static */
void environment_want_all(struct environment *e, enum plan_goal goal);

/* jobs.c */
void environment_job(struct environment *e, struct job *job);
void environment_store_desired(struct environment *e, const char *desired);
void environment_store_up(struct environment *e); /* before the first start: the data's directory, the backend, "up" */
void environment_port_taken(void *arg, const char *service, const struct port_binding *port);

/* load.c */
uint64_t environment_load(struct environment *e, enum load_flags flags); /* done when load_done is that far */
void environment_notice_change(struct environment *e, const struct error *err); /* what runs is not what is configured; err: which cannot be read */
void environment_take_next(struct environment *e); /* it becomes the model */
void environment_settle_recalled(struct environment *e); /* what runs is known now */
void environment_drop_next(struct environment *e);
void environment_notice_failure(struct environment *e, const struct error *err); /* what is next cannot be applied */
void environment_set_user_text(struct environment *e, const struct buffer *text); /* as it stands in the file now */
void environment_refresh_user(struct environment *e); /* and the main checkout's */
void environment_open_layers(struct environment *e); /* also when their names have changed */
void environment_close_layers(struct environment *e);

/* environment_backend.c */
const char *environment_backend_name(const struct environment *e); /* NULL: there is none to be opened */
void environment_backend_turn(struct environment *e); /* opens, adopts, prepares */
void environment_backend_check(struct environment *e, struct model *m); /* what it cannot do of the model becomes its warnings and errors */
void environment_backend_close(struct environment *e);

/* more_files.c */
void more_files_take(struct environment *e); /* as the model says */
void more_files_refresh(struct environment *e);
void more_files_release(struct environment *e);

/* texts.c */
const struct envset *environment_variables(struct environment *e); /* borrowed until anything changes */

/* demand.c */
void demands_admit(struct environment *e);
void demand_end(struct demand *d, const struct error *err);
void demand_begin_anew(struct demand *d); /* its time begins now */
void demands_judge(struct environment *e);
void demands_finish(struct environment *e); /* calls back */
void demands_fail_all(struct environment *e, bool admitted_only, const struct error *err);
void demands_cancel_all(struct environment *e, bool admitted_only, const char *why, const char *hint);
void demands_cancel_stops(struct environment *e, char *const *services); /* who waits for the end of these hears that they were started again */

/* demand_builds.c */
struct model *demand_model(const struct demand *d); /* borrowed: that it is about; an `up` is about what is next */
void demand_builds_anew(struct environment *e);     /* that is another now */
bool demand_builds(struct demand *d); /* true: the images are there */
void demand_builds_give_up(struct demand *d);
bool demand_is_building(const struct demand *d);

/* applied.c */
json_t *applied_read(const struct environment *e); /* worker; new; NULL: there is none */
bool applied_is(const json_t *record, const char *signature); /* of that model? */
struct model *applied_load(json_t *record, const struct model_params *params); /* worker; new; NULL: it cannot be read any more */
void applied_remove(const struct environment *e); /* worker */
void applied_turn(struct environment *e); /* writes down what has changed */

/* resting.c */
void resting_read(struct environment *e);
void resting_turn(struct environment *e); /* writes down what has changed */

/* teardown.c */
void teardown_begin(struct environment *e);
void teardown_turn(struct environment *e);
/* Of services that were removed by themselves. */
void discard_turn(struct environment *e);

#endif
