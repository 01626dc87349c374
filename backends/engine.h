/* What the files of the backends `docker` and `podman` share: one object for an environment on a container engine, spoken to by its API
 * (https://docs.docker.com/reference/api/engine/version/v1.41/; Podman answers the same).
 *
 * Loop thread. Everything made is labelled (ENGINE_LABEL_*), and nothing is touched that does not carry this namespace's labels.
 */
#ifndef BACKENDS_ENGINE_H
#define BACKENDS_ENGINE_H

#include <jansson.h>
#include <time.h>

#include "backends/backend.h"
#include "backends/engine_target.h"
#include "backends/http.h"
#include "base/buffer.h"

#define ENGINE_LABEL_MANAGED "aether.managed"
#define ENGINE_LABEL_NAMESPACE "aether.namespace"
#define ENGINE_LABEL_WORKSPACE "aether.workspace"
#define ENGINE_LABEL_SERVICE "aether.service"
#define ENGINE_LABEL_CONFIG_HASH "aether.config-hash"
#define ENGINE_LABEL_GENERATION "aether.generation"
#define ENGINE_LABEL_VOLUME "aether.volume"
#define ENGINE_LABEL_NETWORK "aether.network" /* of one that is not made as it comes: a fingerprint of service_spec.network */
#define ENGINE_LABEL_RUN "aether.run" /* of a container that is no service's: whose it is (attachment.h) */
/* Of images that are built. They are no namespace's: what is equal is built once and gets a name for each; by these names they are its. */
#define ENGINE_LABEL_BUILD "aether.build"           /* build_spec.key */
#define ENGINE_LABEL_CONTEXT "aether.context"       /* build_context.digest */
#define ENGINE_LABEL_DOCKERFILE "aether.dockerfile" /* build_context.file_digest */

/* What docker compose goes by, so that its `ps`, `logs`, `exec` show what is here: https://github.com/docker/compose/blob/main/pkg/api/labels.go */
#define COMPOSE_LABEL_PROJECT "com.docker.compose.project"
#define COMPOSE_LABEL_FILES "com.docker.compose.project.config_files"
#define COMPOSE_LABEL_DIRECTORY "com.docker.compose.project.working_dir"
#define COMPOSE_LABEL_SERVICE "com.docker.compose.service"
#define COMPOSE_LABEL_NUMBER "com.docker.compose.container-number"
#define COMPOSE_LABEL_ONEOFF "com.docker.compose.oneoff"
#define COMPOSE_LABEL_CONFIG_HASH "com.docker.compose.config-hash" /* it lists nothing without one */
#define COMPOSE_LABEL_VERSION "com.docker.compose.version"         /* who has made it; ours have none */
#define COMPOSE_LABEL_NETWORK "com.docker.compose.network"
#define COMPOSE_LABEL_VOLUME "com.docker.compose.volume"
#define COMPOSE_NETWORK "default" /* the key of ours */

#define ENGINE_API_MIN 40 /* 1.40: Docker 19.03 */
#define ENGINE_API_MAX 51
#define ENGINE_CALL_MS 30000   /* of a call that only asks */
#define ENGINE_CHANGE_MS 120000 /* that makes, starts or removes something */

/* Of a container, at once: without its timeout Podman waits for what does not hear SIGTERM; Docker knows no such parameter. And what it has of volumes without a name. */
#define ENGINE_REMOVE "?force=1&timeout=0"
#define ENGINE_REMOVE_ALL ENGINE_REMOVE "&v=1"

struct engine_log;
struct clearing;
struct engine_op;
struct pull;
struct build_job;
struct exec;
struct hooks;
struct build_known;

/* A service, as far as it is known here. */
struct engine_slot {
	struct engine_slot *next;
	char *service;
	struct engine_op *ops;     /* the first of them goes on */
	uint64_t op_ended;         /* engine.ops_ended with its last one: what was asked before may be older than what that did */
	enum instance_state state; /* last seen */
	char *id;                  /* of the container that was seen, or made ahead of need */
	char *config_hash;         /* and what it was made from; "" where it is gone */
	pid_t pid;
	bool paused, unplugged;
	char *told_to_end;         /* the container that somebody has told so since its last start; NULL: none */
	bool told_vaguely;         /* by a signal, nobody knows which */
	bool dismissed;            /* so it was told */
	uint64_t vouching;         /* the question under way whether its end was others' doing, or the engine's (engine_events.c); 0: none */
	bool unheard;              /* it ran when the events ended: what has become of it is not known yet */
	char *successor;           /* a container that docker compose has made to take this one's name; NULL: none */
	uint64_t successor_ms;     /* monotonic: when */
	bool local; /* the pid is of this machine and namespace */
	struct backend_check check; /* argv NULL: none */
	char **pre_stop;            /* of what was seen: bodies of exec calls, as JSON */
	json_t *others;             /* of what was seen, if others have made it: Config, HostConfig.{PortBindings,RestartPolicy}, NetworkSettings.Networks (engine_made.c) */
	bool rises; /* it did not run at the first look of this process, nor was anything done with it since */
	bool looking, look_again; /* at it, for an event; however many come, one look is under way */
	bool missed; /* an event came while an operation is under way, since its last call */
	int64_t started_ms;
	/* How far its log was heard (engine_logs.c). */
	char *log_id; /* of which container; NULL: by another process of ours */
	struct timespec log_last;
	unsigned log_at_last; /* messages of that time */
	/* The data of a first start (engine_unfinished.c). */
	bool ended; /* how its last run has ended is known: */
	int exit_code;
	int64_t exited_ms;
	bool settled; /* its data is whole, whatever its records say: they may not have been written */
};

/* Bytes of this second. */
struct engine_rate {
	uint64_t since_ms, bytes;
};

/* The first failure ends what waits for it; the next caller tries again. */
struct engine_gate {
	bool open, trying;
	struct engine_waiter *waiters;
};

/* Of those who may do something at the same time; the others wait, first come, first served. */
struct engine_turns {
	unsigned taken;
	struct engine_waiter *waiters;
};

struct engine {
	struct backend base;
	char *namespace_, *workspace, *state_dir, *workspace_root;
	backend_changed *changed;
	backend_progress *progress;
	void *changed_arg;
	struct engine_target target;
	struct error no_target; /* why there is none; told by every call */
	struct http *http;      /* NULL without a target */
	unsigned api;           /* minor version, once negotiated */
	bool podman;            /* it is one */
	char *architecture;     /* of its machine; NULL: not known */
	bool told_foreign;      /* of some image */
	struct engine_gate version, network;
	json_t *network_wanted; /* as in struct service_spec; NULL: as it comes */
	bool network_told;      /* somebody has said so */
	bool network_outdated;  /* it was made for something else, and was in use when it was to be made anew */
	unsigned network_tries; /* to have it made, since it was asked for */
	char *subnet;           /* that it has instead of what is wanted, or that very one; NULL: none is wanted, or it was made otherwise */
	struct engine_turns starts; /* of containers */
	struct engine_slot *slots;
	struct engine_log *logs;
	struct pull *pulls;
	struct clearing *clearings; /* wait, or are under way */
	struct build_job *builds;
	struct hooks *hooks;
	struct build_known *known_contexts;
	char **stale_images; /* IDs of ours that have lost their names; removed when nothing uses them */
	/* events */
	struct http_call *events, *network_events;
	struct buffer events_line, network_line;
	uv_timer_t retry;
	unsigned retries;
	bool watching;
	uint64_t ops_ended; /* how many have */
	bool listed;       /* what is there has been looked at: a service without a container is known to have none */
	uint64_t vouchings; /* how many there were */
	bool leaving;      /* it ends, and what it still says is about to be past */
	bool events_cut;   /* by us: they were too many */
	int64_t events_ns; /* of the last one */
	struct engine_rate events_rate;
	/* life */
	unsigned busy; /* operations that are not answered yet */
	bool closing, http_closed, retry_closed;
	void (*closed)(void *arg);
	void *closed_arg;
};

/* ---- calls (engine_api.c) ---- */

/* status is 0 when nobody answered. `err` is set unless it is 2xx or 304, with the engine's own words; `json` is what it answered, borrowed, NULL
 * when that was not JSON. */
typedef void engine_answer(void *arg, const struct error *err, int status, const json_t *json);

/* `path` without the version, escaped. Steals body. Negotiates the version first. */
void engine_call(struct engine *e, const char *method, const char *path, json_t *body, unsigned timeout_ms, engine_answer *done, void *arg);
/* borrowed until its `done`; the stream's pieces go to `data`, what is no success to `done` as above. The version must be known. */
struct http_call *engine_stream(struct engine *e, const char *method, const char *path, json_t *body, char *const *headers, unsigned silence_s,
                                http_data *data, engine_answer *done, void *arg);
/* The same, with `len` bytes of a file as the body, a tar archive. */
struct http_call *engine_upload(struct engine *e, const char *path, int fd, size_t len, char *const *headers, unsigned timeout_ms, unsigned silence_s, http_data *data,
                                engine_answer *done, void *arg);
/* Which engine it is and which version it speaks. */
void engine_negotiate(struct engine *e, backend_done *done, void *arg);

/* Whoever comes first sets `trying` and does it; all are told when it is done. true: it is to be done now, by the caller. */
bool engine_gate_enter(struct engine_gate *g, uv_loop_t *loop, backend_done *done, void *arg);
void engine_gate_done(struct engine_gate *g, const struct error *err);

/* `done` when it is the caller's turn, perhaps at once; then one engine_turn_give is due. */
void engine_turn_take(struct engine_turns *t, unsigned most, backend_done *done, void *arg);
void engine_turn_give(struct engine_turns *t);

void engine_begin(struct engine *e); /* an operation */
void engine_end(struct engine *e);   /* answered; may free e when it is closing */

/* new: percent-encoded for a path or a query */
char *engine_escape(const char *text);
/* new: `path`, which ends in ? or &, and the filter for what carries this namespace's label */
char *engine_labelled(const char *path, const char *namespace_);
const char *engine_label(const json_t *labels, const char *key); /* borrowed or NULL */
const char *engine_service_of(const json_t *labels); /* the service that this is the container of; NULL: `docker compose run` has made it for one command. borrowed */
bool engine_is_of(const json_t *labels, const char *namespace_); /* is what carries them that namespace's? */
/* RFC 3339 with nanoseconds, since 1970; 0: never ("0001-01-01T00:00:00Z"), or it is no time. */
int64_t engine_milliseconds(const char *text);
/* Of ".123456Z", with what comes behind the digits. */
long engine_nanoseconds(const char *fraction, char **rest);
/* new: its words, bounded, on one line, for status.json and a terminal */
char *engine_told(const char *text);
bool engine_says(const char *text, const char *const *words); /* one of those, to a NULL, in whatever case */
/* It has to do with what others do on this machine just then, and may not be so in a moment: an engine that looks at all network interfaces fails when one
 * of them, of a container that ends, goes meanwhile (Go's net.InterfaceAddrs; Podman). */
bool engine_is_passing(const struct error *err);
/* What an engine said on failure, as an error of ours. */
void engine_error(const struct engine *e, const char *what, int status, const json_t *json, struct error *err);

/* ---- what is to be made (engine_spec.c): pure ---- */

char *engine_container_name(const struct engine *e, const char *service); /* new */
char *engine_network_name(const struct engine *e);                        /* new */

/* Everything that a start needs; outlives the spec. */
struct engine_plan {
	char *service, *container, *image, *config_hash;
	struct build_spec *build; /* of the image; NULL: it is pulled */
	char *image_id;           /* of what was built */
	char *data; /* as in struct service_spec */
	char *platform; /* NULL: the engine's */
	enum pull_policy pull;
	unsigned pull_after_s; /* PULL_OLD */
	char *ipv4_address; /* as in struct container_options; NULL: any */
	char **post_start; /* as in struct container_options */
	json_t *create;   /* the body of POST /containers/create */
	char **records;   /* of volumes: the files that name them (engine_volumes.c) */
	char **volumes;   /* their keys */
	char **targets;   /* where they are mounted */
	uint32_t generation;
	json_t *volume_options; /* of volumes, by their keys: Driver, DriverOpts, Labels; NULL: none */
	char **externals, **networks; /* volumes and networks of others: must be there; the networks are joined before it is started */
	char **network_names, **external_links; /* as in struct container_options */
	unsigned api_needed;    /* minor version; 0: any */
	bool joins;             /* another container's network or processes: made when that one is there, and always anew */
};

#define ENGINE_START_INTERVAL "StartInterval"
#define ENGINE_API_MAC_ADDRESS 44 /* of an endpoint, where Docker 25 wants it */
#define ENGINE_API_ANNOTATIONS 43 /* 1.43: Docker 24; the others pass over them */
#define ENGINE_API_START_INTERVAL 44 /* 1.44: Docker 25 */
#define ENGINE_API_SUBPATH 45 /* 1.45: Docker 26 */

struct engine_plan *engine_plan_new(const struct engine *e, const struct service_spec *spec);
/* Names the volumes that the records say, `names` parallel to plan->volumes. */
void engine_plan_set_volumes(struct engine_plan *p, char *const *names);
/* What the image (as inspected) declares to be a volume, and nothing of the plan, nor of another container, is mounted there, becomes one of the plan's: its data rests
 * in the trash like any other. */
void engine_plan_add_image_volumes(struct engine_plan *p, const json_t *image);
/* new: the volumes without a name that an inspected container has */
char **engine_anonymous_volumes(const json_t *container);
void engine_plan_free(struct engine_plan *p);
json_t *engine_labels(const struct engine *e);

/* ---- what belongs to others (engine_external.c) ---- */

/* network_mode, pid and ipc, of services the containers that they are here; and which networks it joins. */
void engine_plan_spaces(const struct engine *e, const struct container_options *o, struct engine_plan *p, json_t *create, json_t *host);
/* Are its volumes and networks there, and can this engine do what is asked? Once the version is known. */
void engine_external_ensure(struct engine *e, const struct engine_plan *p, backend_done *done, void *arg);
/* Connects the container to its further networks; repeated, it is success. */
void engine_external_join(struct engine *e, const struct engine_plan *p, const char *id, backend_done *done, void *arg);

/* ---- what it can see of this machine (engine_view.c) ---- */

void engine_check_binds(const struct engine *e, const struct service_spec *spec, backend_diagnostic *report, void *arg);

/* ---- options of containers (engine_options.c): pure ---- */

/* Into the body of a create call, and its "HostConfig". */
void engine_container_options(const struct container_options *o, json_t *create, json_t *host);
/* What this engine, as far as it is known, does not do of them. */
void engine_check_options(const struct engine *e, const struct service_spec *spec, backend_diagnostic *report, void *arg);
/* What depends on the engine, once its version is known. */
void engine_options_settle(const struct engine *e, json_t *create);

/* ---- without a loop (engine_place.c): may block, any thread ---- */

/* As engine_target_find, but what an earlier start has found (`address`, may be NULL) is kept. */
int engine_target_resolve(const char *asked, const char *address, struct engine_target *ret, struct error *err);
int engine_find(const char *asked, bool answering, char **address, char **from, struct error *err);

struct engine_reply {
	int status;   /* 0: nobody answered */
	json_t *json; /* NULL: it was none */
};
struct http_params engine_http_params(const struct engine_target *t);
/* An answer, whatever its status is, is success. Release `ret`. */
int engine_ask(const struct engine_target *t, const char *method, const char *path, const json_t *body, unsigned timeout_ms, struct engine_reply *ret,
               struct error *err);
void engine_take_reply(void *reply, const struct error *err, const struct http_response *res); /* an http_done */
void engine_reply_release(struct engine_reply *r);
#define cleanup_reply __attribute__((cleanup(engine_reply_release)))
int engine_sweep(const char *address, const char *namespace_, bool remove, char ***found, struct error *err);
int engine_discard(const json_t *record, const char *namespace_, struct error *err);
int engine_usage(const json_t *record, json_t **ret, struct error *err);
int engine_holds(const json_t *record, struct error *err);

/* ---- images (engine_images.c) ---- */

/* There already, or pulled, as the plan's policy says. One pull, and one look, an image at a time in a process; whoever waits hears of its end.
 * What it declares to be a volume is added to `told`, which is there until then; NULL: nobody is told. */
void engine_image_ensure(struct engine *e, const struct engine_plan *plan, struct engine_plan *told, backend_done *done, void *arg);

/* ---- building (engine_build.c, engine_build_request.c, engine_build_images.c) ---- */

/* id: borrowed */
typedef void engine_build_done(void *arg, const struct error *err, const char *id);
/* `data`: as in struct service_spec. The image of that name: there already as `when` says, named anew from an equal one, or built. */
void engine_build_ensure(struct engine *e, const char *service, const char *image, const char *data, const struct build_spec *spec, enum build_when when, engine_build_done *done, void *arg,
                         const void *token);
/* Whoever waits with that token hears ECANCELED, later; false: nobody does. */
bool engine_build_give_up(struct engine *e, const char *service, const void *token);
void engine_build(struct backend *b, const struct service_spec *spec, enum build_when when, backend_build_done *done, void *arg);

void engine_builds_free(struct engine *e);

/* new: what is asked for; `buildkit`: of the builder that knows all of today's Dockerfiles */
char *engine_build_path(const struct engine *e, const struct build_context *c, const char *image, bool buildkit);
bool engine_image_is(const char *one, const char *other); /* two IDs, with or without their algorithm */

/* Removes those of stale_images that nothing uses. */
void engine_images_drop_stale(struct engine *e);
/* And what else was built and has no name, of whatever namespace. `done` hears no error: what others use stays. */
void engine_images_clear(struct engine *e, backend_done *done, void *arg);
/* Of an image as it is listed: has some environment built it, with that build_spec.key? */
bool engine_image_is_built(const json_t *image, const char *key);

/* Pulls that go on end with ECANCELED. */
void engine_images_give_up(struct engine *e);

/* ---- volumes (engine_volumes.c) ---- */

/* Makes those of a plan and their records, and sets their names in it. */
void engine_volumes_ensure(struct engine *e, struct engine_plan *p, backend_done *done, void *arg);

/* ---- data of a first start (engine_unfinished.c) ---- */

void engine_data_begun(struct engine_slot *slot, const struct engine_plan *p); /* something starts on it */
bool engine_data_is_begun(const struct engine_slot *slot, const struct engine_plan *p); /* and was not ready since */
void engine_data_untouched(const struct engine_plan *p); /* it did not come to that */
void engine_data_ended(struct engine_slot *slot, const struct instance *last); /* as it was seen; what runs has not ended */
/* It was begun, never ready, and interrupted; asked once, then it is forgotten. */
bool engine_data_is_ruined(const struct engine_slot *slot, const struct engine_plan *p);
void engine_settled(struct backend *b, const struct service_spec *spec);

/* The record of an image that is built, where `data` lies, unless there is one. 0, or a negative errno. */
int engine_record_image(const struct engine *e, const char *data, const char *image);

/* ---- services (engine_operation.h, engine_start.c, engine_stop.c, engine_remove.c) ---- */

void engine_start(struct backend *b, const struct service_spec *spec, backend_done *done, void *arg);
void engine_prepare(struct backend *b, const struct service_spec *spec, backend_done *done, void *arg);
void engine_build_cancel(struct backend *b, const char *service, void *arg);
void engine_stop(struct backend *b, const char *service, int signal, unsigned grace_ms, backend_done *done, void *arg);
void engine_remove(struct backend *b, const char *service, backend_done *done, void *arg);

/* ---- what is known of them (engine_slots.c) ---- */

/* borrowed; made when it is not there */
struct engine_slot *engine_slot(struct engine *e, const char *service);
void engine_slots_free(struct engine *e);
/* This container is the service's. */
void engine_slot_set(struct engine_slot *slot, const char *id, const char *config_hash);
bool engine_slot_is_empty(const struct engine_slot *slot); /* no container is known */

/* ---- the network (engine_network.c) ---- */

void engine_network_ensure(struct engine *e, backend_done *done, void *arg);
void engine_network_take(struct engine *e, const struct service_spec *spec); /* what it is to be like */
/* Gives the plan's container its address, once the network is known. */
void engine_network_address(const struct engine *e, struct engine_plan *p);
void engine_network_plug(struct engine *e, struct engine_plan *p, const char *id, engine_answer *done, void *arg); /* one that others have taken out, by the names that it has there */
bool engine_network_is_in_use(const char *message, int status); /* by others: why it is not removed */
/* What no service has: containers that were made ahead of need, then the network. */
void engine_clear(struct backend *b, backend_done *done, void *arg);
void engine_clear_next(struct engine *e); /* nothing is under way in some slot */

/* ---- what is there (engine_list.c) ---- */

void engine_list(struct backend *b, backend_list_done *done, void *arg);
/* What an inspected container is, as an instance of ours; false: it is not ours, or was never started. Release `ret`. */
bool engine_instance_of(const struct engine *e, const json_t *container, struct instance *ret);
bool engine_is_running(const json_t *container); /* as inspected */
bool engine_is_unplugged(const struct engine *e, const json_t *container); /* as inspected, or listed */

/* ---- what it takes (engine_memory.c) ---- */

uint64_t engine_memory(const struct engine_slot *slot); /* 0: unknown */

/* ---- the check of its image (engine_check.c) ---- */

void engine_check_take(struct engine *e, const char *service, const json_t *container);
const struct backend_check *engine_check_of(struct backend *b, const char *service);

/* ---- what others have made in a container's place (engine_made.c) ---- */

bool engine_made_by_others(const json_t *labels);
bool engine_made_differs(const struct engine_plan *p, const json_t *container); /* others have made it, and it is not what the plan says */
void engine_made_take(struct engine *e, const char *service, const json_t *container);
bool engine_differs(struct backend *b, const struct service_spec *spec);

/* ---- what happens by itself (engine_events.c) ---- */

void engine_watch(struct engine *e); /* from now on; may be called again */
void engine_unwatch(struct engine *e);
bool engine_lives(struct backend *b, const char *service, pid_t pid);
bool engine_rises(struct backend *b, const char *service);
bool engine_is_succeeded(const struct engine_slot *slot); /* another container is about to take its name, and is not to be met with one of ours */
bool engine_is_dismissed(const struct engine_slot *slot, const struct instance *now); /* others have had it ended */
void engine_look_after_op(struct engine *e, struct engine_slot *slot); /* where the events told of something that it may not have seen */
/* The state as it is known now; tells of a change that nobody asked for. */
void engine_seen(struct engine *e, const struct instance *now, bool by_us);

/* ---- logs (engine_logs.c) ---- */

char *engine_log_path(struct backend *b, const char *service);
void engine_log_follow(struct engine *e, const char *service, const char *id); /* may be called again */
void engine_log_drop(struct engine *e, const char *service);
/* What has ended is told of when its log has been heard, or soon: `heard` is called later, once. false: there is none to wait for. */
bool engine_log_hear(struct engine *e, const char *id, void (*heard)(void *arg), void *arg);
void engine_log_add(struct engine *e, const char *service, const char *text); /* what is said of it beside its own words */
bool engine_log_is_heard(const struct engine *e, const char *id); /* it is waited for */

/* ---- programs inside (engine_exec.c) ---- */

/* The same of a whole body of the call, which it steals, in any container of ours. borrowed until its `done` */
struct exec *engine_exec_body(struct engine *e, const char *what, const char *container, json_t *body, unsigned timeout_ms, backend_exec_done *done, void *arg);
void engine_exec_give_up(struct exec *x); /* it is left to itself, and `done` hears that it was not done */
void engine_exec(struct backend *b, const struct service_spec *spec, char *const *argv, unsigned timeout_ms, backend_exec_done *done, void *arg);

/* ---- hooks: Compose's post_start and pre_stop (engine_hooks.c) ---- */

void engine_hooks_take(struct engine *e, const char *service, const json_t *container); /* of an inspected one: what is run before its stop */
/* One after the other in the service's container, until one fails; what they say goes to its log. A container that does not run (any more) has no hooks. `done` is called
 * later, once. */
void engine_hooks_run(struct engine *e, const char *service, const char *container, const char *kind, char *const *hooks, unsigned timeout_ms, backend_done *done, void *arg);
/* Those of a start that nobody wants any more end with ECANCELED. */
void engine_hooks_give_up(struct engine *e, const char *service);

/* More of it than any engine in its right mind says of events or of a pull: it must not keep the loop busy. */
bool engine_is_flood(struct engine_rate *r, const char *data, size_t len);

/* ---- programs for somebody who waits (engine_attachment.c) ---- */

int engine_attach(const struct attachment_spec *spec, struct attachment **ret, struct error *err);
int engine_sweep_attached(const char *address, const char *namespace_, bool remove, char ***found, struct error *err);

/* One frame after the other of a stream without a terminal: {1|2, 0, 0, 0, length as 4 bytes big-endian}.
 * https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerAttach */
struct engine_frames {
	unsigned char head[8];
	size_t have; /* of the head */
	size_t left; /* of the frame's bytes */
};
/* Calls `take` for each piece of text; stream 1: stdout, 2: stderr. */
void engine_frames_feed(struct engine_frames *f, const char *data, size_t len, void (*take)(void *arg, int stream, const char *text, size_t len), void *arg);

#endif
