/* The contract of a backend: something that can run the services of an environment.
 *
 * Form: a const struct of designated initialisers per backend (`const struct backend_ops backend_process`), one line in
 * backends/registry.c, and tests/contract/ runs over every registered one. Callers use the inline wrappers below.
 *
 * Thread: everything is called on the loop thread and calls back there. No operation blocks; work that would goes to
 * uv_queue_work or to a child process.
 * Completion: an operation that takes a `backend_done` calls it exactly once, never from within the call itself, and
 * also after backend_cancel (with ECANCELED). The struct error it is given is borrowed for the call; NULL means success.
 * Idempotence: every operation may be repeated after a crash at any line. start of what runs is success; stop or remove
 * of what is absent is success.
 * Ownership: only what carries this namespace's proof of ownership is ever touched.
 * Specs are borrowed for the duration of the call only; a backend copies what it keeps.
 */
#ifndef BACKENDS_BACKEND_H
#define BACKENDS_BACKEND_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

#include "backends/build.h"
#include "backends/container.h"
#include "base/error.h"
#include "base/strv.h"

/* ---- what is to be run ------------------------------------------------------------------------------------------ */

struct port_binding {
	uint16_t internal; /* the service's own port */
	uint16_t external; /* leased on host_ip; what clients connect to */
	const char *protocol; /* "tcp" or "udp" */
};

enum volume_kind { VOLUME_NAMED, VOLUME_ANONYMOUS, VOLUME_BIND, VOLUME_TMPFS, VOLUME_EXTERNAL /* of an engine, made by others */ };

struct volume_spec {
	enum volume_kind kind;
	const char *name;   /* named: the volume's key; anonymous: derived from the target */
	const char *source; /* bind: absolute host path. external: its name. named/anonymous: absolute path under the environment's data generation: a
	                     * directory of a host-path backend's, an engine's record of its own volume */
	const char *target; /* path inside the service */
	bool read_only;
	const char *options; /* more, as an engine takes them: "z,rshared", of a tmpfs "size=64m"; NULL: none */
	const char *subpath; /* of a volume: the directory in it that is mounted; NULL: all of it */
	bool must_exist;     /* bind: it is not made where it is missing */
	const char *driver;  /* named: of an engine; NULL: its own */
	const struct keyvals *driver_opts, *labels; /* may be NULL */
};

/* A file, or a directory of them, for a new database. */
struct process_script {
	const char *name;   /* that the file gets; NULL: what the directory holds, by its own names */
	const char *path;   /* absolute, to be opened by this process (never through its own mount) */
	const char *shown;  /* as messages name it */
	const char *target; /* where an image would have it mounted */
	const char *digest; /* base/digest.h: of what was approved; nothing else is run. NULL: none could be had, it is refused */
};

/* How a host-process backend runs a recipe's service or an `x-aether: {command: ...}`. All strings are expanded: no
 * templates are left. NULL where a service has no way to run as a process. */
struct process_spec {
	char *const *command;      /* argv; argv[0] absolute or looked up in PATH */
	const struct keyvals *env; /* the complete environment: nothing else is inherited */
	const char *directory;     /* working directory, absolute */
	const char *data_dir;      /* absolute; NULL when the service keeps none. Created 0700 by the backend */
	const char *run_dir;       /* absolute, short: Unix sockets; the service's alone: made 0700 and empty by
	                            * every start, gone with remove; may be NULL */

	/* Template: `init` runs once in an empty directory for all environments with the same key, and each environment's
	 * data_dir begins as a clone of the result. NULL init: data_dir begins empty. */
	const char *template_key;    /* a file name: recipe, version and a fingerprint of what went into init */
	char *const *const *init;    /* NULL-terminated list of argvs; "{{data}}" in an argument is the directory being made */
	const char *const *init_stdin; /* parallel to init: text for its standard input; NULL entries: none. May be NULL */
	const struct keyvals *init_env;

	/* Data that an earlier start has left may not know the values of today's configuration (a user, a password): steps
	 * like those of `init`, run before the start unless this data has had them already. NULL: none are known. */
	const char *adapt_key; /* a fingerprint of them */
	char *const *const *adapt;
	const char *const *adapt_stdin;

	/* What the image would run on a new database: `seed` is run once on the data directory that was made, before it gets
	 * its place; when it fails there is none. The files are copied to the directory "{{data}}.seed" first. NULL: nothing */
	char *const *seed; /* argv; "{{data}}" as in init */
	const struct keyvals *seed_env;
	const struct process_script *scripts;
	size_t n_scripts;

	bool needs_unprivileged;     /* refuses uid 0 (Postgres): under root it gets the environment's own uid */
};

struct service_spec {
	const char *name;
	const char *image;          /* may be NULL */
	const struct build_spec *build; /* that is to be built, and gets that name; NULL: none is */
	const struct keyvals *env;  /* container environment */
	char *const *command;       /* NULL: the image's own */
	char *const *entrypoint;    /* NULL: the image's own */
	const char *working_dir;    /* NULL: the image's own */
	const struct port_binding *ports;
	size_t n_ports;
	const struct volume_spec *volumes;
	size_t n_volumes;
	uint64_t memory_bytes;      /* 0: unlimited */
	double cpus;                /* 0: unlimited */
	int64_t pids;               /* 0: unlimited */
	int stop_signal;            /* a signal number; 0: the image's own, else SIGTERM */
	unsigned stop_grace_ms;
	char *const *aliases;       /* more names in the environment's network; NULL: none */
	const struct container_options *container; /* NULL: none */
	const char *config_hash;    /* hex; of everything above */
	const char *network;        /* how the environment's network is to be made, the same for all of its services, as JSON: {"Labels", "Options", "Subnet", "Gateway", "IPRange"},
	                             * "Exact": it has that subnet, else one in which addresses have the same places. NULL: as the engine makes it */
	uint32_t generation;        /* of the data */
	const char *data;           /* absolute: where the data of this generation keeps what is this service's alone. A backend whose data is
	                             * elsewhere (an engine's volumes) keeps there, and at `source` of its volumes, *records*: files that name it */
	const struct process_spec *process; /* NULL: none known */
};

/* ---- what is there ------------------------------------------------------------------------------------------------ */

enum instance_state { INSTANCE_ABSENT, INSTANCE_RUNNING, INSTANCE_EXITED };

struct instance {
	char *service;
	enum instance_state state;
	pid_t pid;           /* 0 when the backend has none to show */
	char *handle;        /* container id and the like; "" for processes */
	char *config_hash;   /* as it was started with */
	int exit_code;       /* EXITED: exit status, or 128 + signal */
	int64_t started_ms;  /* wall clock */
	int64_t exited_ms;
	uint64_t memory_bytes; /* resident now; 0 unknown */
	bool paused;         /* RUNNING, and held by somebody: it answers nobody */
	bool unplugged;      /* RUNNING, and others have taken it out of the environment's network: nobody reaches it */
	bool dismissed;      /* EXITED, ABSENT: others have had it ended (`docker stop`, `docker rm -f`); nobody is to start it again unasked */
	bool lost;           /* EXITED: with its engine, as far as can be told, which does not answer: it is told again when it does */
	bool returned;       /* EXITED: with its engine, or while nobody heard of it, and that answers: who wants it starts it again, whatever its policy */
};

struct instances {
	struct instance *items;
	size_t count;
};

void instance_release(struct instance *i); /* its strings */
void instances_release(struct instances *list);

/* ---- operations --------------------------------------------------------------------------------------------------- */

#define BACKEND_COMPOSE_FILE ".aether/compose.yaml" /* below the workspace: what docker compose is led to */
#define BACKEND_SUBNET "network.subnet" /* in the state directory: which one the network has got, where one was asked for */
char *backend_subnet(const char *state_dir); /* new: what stands there; NULL: none was asked for, or it is not made yet */
#define BACKEND_MADE "made-at-" /* then a hash and .json: {"backend", "engine": its address} */

struct attachment; /* attachment.h */
struct attachment_spec;

struct backend; /* opaque; every implementation begins its own struct with `struct backend base` */

typedef void backend_done(void *arg, const struct error *err);
typedef void backend_list_done(void *arg, const struct error *err, const struct instances *list); /* borrowed */
/* output: borrowed, NUL-terminated, its last BACKEND_EXEC_OUTPUT_MAX bytes of stdout and stderr together */
typedef void backend_exec_done(void *arg, const struct error *err, int exit_code, const char *output);

#define BACKEND_EXEC_OUTPUT_MAX (16u << 10)

/* The check that an image brings along (its HEALTHCHECK): to be executed in the service, exit status 0 is healthy. 0: Docker's default */
struct backend_check {
	char **argv;
	unsigned interval_ms, timeout_ms, start_period_ms, retries;
};

/* A finding about a service before anything is started. */
enum diagnostic_level { DIAGNOSTIC_WARNING, DIAGNOSTIC_UNSUPPORTED /* the service cannot run here */ };
typedef void backend_diagnostic(void *arg, enum diagnostic_level level, const char *service, const char *field,
                                const char *text, const char *hint);

enum build_when {
	BUILD_MISSING, /* there is none, or of another configuration */
	BUILD_CHANGED, /* or what goes into it has changed since */
	BUILD_ALWAYS
};

/* differs: what is there of the service was made of another image than the one that was built and has its name now. */
typedef void backend_build_done(void *arg, const struct error *err, bool differs);

/* Called on the loop thread when an instance changes by itself (it exits, it is removed by others); and see tells_starts. */
typedef void backend_changed(void *arg, const struct instance *instance);

/* How far the work for a service has come that takes long (its image is pulled), borrowed: {"image", "percent", "layers": [{"id", "status", "current",
 * "total"}]}, bytes, a total of 0: not known yet, the last time with "pulled": true where it is there then; of a build {"image", "building": true, "step", "steps", "text"}, 0 steps: not known yet, at each step; of a volume that others have
 * removed, and that is made anew, empty, {"lost": its key}; of an image for another kind of machine than the engine's, where no platform is asked for,
 * {"foreign": a sentence}, null where that is past. NULL: it is over. On the loop thread, a few times a second at most. */
typedef void backend_progress(void *arg, const char *service, const json_t *progress);

struct backend_params {
	uv_loop_t *loop;
	const char *target;      /* the backend's name, or an engine's address */
	const char *address;     /* as `find` gave it when this environment was first provisioned; NULL: found out now */
	const char *namespace_;
	const char *workspace;   /* for labels */
	const char *workspace_root;
	const char *state_dir;   /* absolute: this environment's own directory; a backend uses state_dir/services/NAME */
	const char *shared_dir;  /* absolute: shared between environments of the user (templates, spare copies) */
	const char *shim;        /* absolute path of the program aetherfs-shim */
	int keeper_pidfd;        /* services end when this process does; -1: they are bound to the calling process */
	uid_t uid;               /* under root: the environment's leased uid and gid; else (uid_t)-1 */
	backend_changed *changed;
	backend_progress *progress; /* NULL: nobody wants to know */
	void *changed_arg;       /* of both */
};

struct backend_ops {
	const char *name;
	/* Succeeds without I/O that could block; whether anything answers is probe's business. */
	int (*open)(const struct backend_params *params, struct backend **ret, struct error *err);
	/* Lets go and leaves the services running. Pending operations complete with ECANCELED, after which `closed` is called. */
	void (*close)(struct backend *b, void (*closed)(void *arg), void *arg);
	/* Can this backend be used here and now? NULL: always. */
	void (*probe)(struct backend *b, backend_done *done, void *arg);
	/* Where it is, for a backend that can be in several places: new strings, `from` for people ("DOCKER_HOST"). `asked` is its
	 * name or an address. With `answering` somebody must also answer there, within a second. May block; any thread. NULL: it has no place. */
	int (*find)(const char *asked, bool answering, char **address, char **from, struct error *err);
	/* What of a namespace is there though nobody serves it, running or not: adds the names to `found`. With `remove` all of it that is no data goes,
	 * verified; 1: something stays that others use. May block, at most for seconds a container; any thread. NULL: it ends with its keeper, or is seen by its locks (cli/leftovers.h). */
	int (*sweep)(const char *address, const char *namespace_, bool remove, char ***found, struct error *err);
	/* Deletes for good the data that a record stands for (see service_spec.data). `record` is its JSON. What is not there, or carries
	 * another namespace's label, is left alone: success. May block, at most for seconds; any thread. NULL: data is files. */
	int (*discard)(const json_t *record, const char *namespace_, struct error *err);
	/* What the data in that record's place takes: *ret, new, is an object of volumes and their bytes, -1: it does not say. May block, at most for seconds; any thread.
	 * NULL: data is files. */
	int (*usage)(const json_t *record, json_t **ret, struct error *err);
	/* Is the data that a record stands for still there? 1, 0: it is not, -errno: nobody says. May block, at most for seconds; any thread. NULL: data is files. */
	int (*holds)(const json_t *record, struct error *err);
	/* Reports every field that it cannot honour. Synchronous, no I/O beyond looking for programs. */
	void (*check)(struct backend *b, const struct service_spec *spec, backend_diagnostic *report, void *arg);
	/* Work ahead of need (templates, spare copies, images). Starts nothing. May be NULL. */
	void (*prepare)(struct backend *b, const struct service_spec *spec, backend_done *done, void *arg);
	/* Has the image of a spec there: built when it must be, or pulled as its policy says; whatever runs goes on. A start does the same with BUILD_MISSING.
	 * `done` is called exactly once, later. NULL: there are no images here. */
	void (*build)(struct backend *b, const struct service_spec *spec, enum build_when when, backend_build_done *done, void *arg);
	/* The build that was asked for with that `arg`, or (NULL) the one that a start of the service waits for, completes with ECANCELED; one that
	 * nobody waits for any more ends. */
	void (*build_cancel)(struct backend *b, const char *service, void *arg);
	/* Makes and starts the service. Success says that it has been started, not that it is ready. */
	void (*start)(struct backend *b, const struct service_spec *spec, backend_done *done, void *arg);
	/* Sends `signal`, waits `grace_ms`, then kills; success says that nothing of the service runs any more. */
	void (*stop)(struct backend *b, const char *service, int signal, unsigned grace_ms, backend_done *done, void *arg);
	/* Stops at once if need be and removes what start made, but no data (data belongs to the provisioner's
	 * generations); verifies, and reports what survived. */
	void (*remove)(struct backend *b, const char *service, backend_done *done, void *arg);
	/* After every service was removed: what none of them has (a network, containers that were made ahead of need). NULL: nothing. */
	void (*clear)(struct backend *b, backend_done *done, void *arg);
	/* All instances of this namespace, running or not. */
	void (*list)(struct backend *b, backend_list_done *done, void *arg);
	/* Runs a program in the service's surroundings (a probe, a hook): its environment, user and data. */
	void (*exec)(struct backend *b, const struct service_spec *spec, char *const *argv, unsigned timeout_ms,
	             backend_exec_done *done, void *arg);
	/* borrowed, until the next turn of the loop: of what runs under that name, as far as it has been looked at; NULL: it has none. NULL op: nothing has. */
	const struct backend_check *(*check_of)(struct backend *b, const char *service);
	/* It has been ready, or has completed, and nobody was told yet: its data is whole from now on. Until then a start on new data on which it was interrupted
	 * before fails, once, with DATA_UNFINISHED: the caller removes it, discards the data and starts again. NULL: the backend makes its data whole or not at all. */
	void (*settled)(struct backend *b, const struct service_spec *spec);
	/* Others have made what runs under that name, as far as it has been looked at, and it is not what `spec` says. NULL op: nobody can. */
	bool (*differs)(struct backend *b, const struct service_spec *spec);
	/* As exec, for somebody at a terminal or in a pipe: attachment.h. Asked by a command, which has no loop and no backend object. NULL: none here. */
	int (*attach)(const struct attachment_spec *spec, struct attachment **ret, struct error *err);
	/* Of what that has made, the part whose owner is gone (attachment_sweep). May block. NULL: it makes nothing that stays. */
	int (*sweep_attached)(const char *address, const char *namespace_, bool remove, char ***found, struct error *err);
	/* new: absolute path of the service's current log file, where logs are files (every start appends to it; when it has
	 * grown it becomes PATH.1 and a new one begins); NULL op or NULL: they are not. */
	char *(*log_path)(struct backend *b, const char *service);
	/* Is the process that `list` showed still there? For whoever must not be told of a service that has just been killed: a
	 * microsecond's look, before `changed` can say so. NULL op: as far as is known. */
	bool (*lives)(struct backend *b, const char *service, pid_t pid);
	/* It was not running when it was looked at, and may be by now, with its ports: a call that a killed predecessor has left can be on its way. A start
	 * finds out. NULL op: no. */
	bool (*rises)(struct backend *b, const char *service);
	bool tells_starts; /* right after a start's `done` comes `changed`, with what runs: nobody needs to list for that */
};

struct backend {
	const struct backend_ops *ops;
	uv_loop_t *loop;
};

/* ---- registry ----------------------------------------------------------------------------------------------------- */

/* Names that a service may have here: [A-Za-z0-9._-]+, not beginning with a dot, at most 128. */
bool backend_service_name_valid(const char *name);

/* Calls `call` on the loop's next turn, in the order of these calls. How an operation completes that ends before it began. */
void backend_defer(uv_loop_t *loop, void (*call)(void *arg), void *arg);

/* borrowed, static; NULL when unknown. "process", "docker", "podman", "memory", or an engine's address: "unix:///run/x.sock" */
const struct backend_ops *backend_find(const char *name);
const struct backend_ops *const *backend_all(void); /* NULL-terminated */

/* ---- the waist: validates and logs -------------------------------------------------------------------------------- */

/* `asked`: a name or an address. Without a place *address and *from stay NULL. */
int backend_locate(const char *asked, bool answering, char **address, char **from, struct error *err);
/* `backend`, `address`: as they were stored; backend NULL: nothing was ever started. */
int backend_sweep(const char *backend, const char *address, const char *namespace_, bool remove, char ***found, struct error *err);
/* The same of every place of which a file in `state_dir`, BACKEND_MADE*, says that something was made there: ahead of need, before the store knows where. */
int backend_sweep_made(const char *state_dir, const char *namespace_, bool remove, char ***found, struct error *err);
bool backend_has_made(const char *state_dir); /* is there such a file? */
#define BACKEND_IMAGE_RECORD "image.record" /* of an image that was built, in service_spec.data */
/* new: what a record names and where it was mounted first; 0, or -ENOENT: it is no record. */
int backend_record_read(const char *path, char **volume, char **target);
/* Deletes what the record at `path` stands for, not the record. A file that is no record is left alone: success. May block. */
int backend_discard(const char *path, const char *namespace_, struct error *err);
/* Bytes of the volume that the record at `path` names; 0: it names none, or one that is gone; -1: nobody says. `told`, an object, keeps between calls what each
 * place has said: it is asked once. May block. */
int64_t backend_measure(const char *path, json_t *told);

/* The name of the volume that the record at `path` stands for and that is gone: new. NULL: it is there, nobody says, or it is no record of a volume. May block. */
char *backend_lost(const char *path);

int backend_open(const struct backend_params *params, struct backend **ret, struct error *err);
void backend_close(struct backend *b, void (*closed)(void *arg), void *arg); /* NULL b: calls closed at once */
void backend_probe(struct backend *b, backend_done *done, void *arg);
void backend_check(struct backend *b, const struct service_spec *spec, backend_diagnostic *report, void *arg);
void backend_prepare(struct backend *b, const struct service_spec *spec, backend_done *done, void *arg);
void backend_build(struct backend *b, const struct service_spec *spec, enum build_when when, backend_build_done *done, void *arg);
void backend_build_cancel(struct backend *b, const char *service, void *arg);
void backend_start(struct backend *b, const struct service_spec *spec, backend_done *done, void *arg);
void backend_stop(struct backend *b, const char *service, int signal, unsigned grace_ms, backend_done *done, void *arg);
void backend_remove(struct backend *b, const char *service, backend_done *done, void *arg);
void backend_clear(struct backend *b, backend_done *done, void *arg);
void backend_list(struct backend *b, backend_list_done *done, void *arg);
void backend_exec(struct backend *b, const struct service_spec *spec, char *const *argv, unsigned timeout_ms,
                  backend_exec_done *done, void *arg);
const struct backend_check *backend_check_of(struct backend *b, const char *service);
void backend_settled(struct backend *b, const struct service_spec *spec);
bool backend_differs(struct backend *b, const struct service_spec *spec);
char *backend_log_path(struct backend *b, const char *service);
bool backend_lives(struct backend *b, const char *service, pid_t pid); /* pid 0: true */
bool backend_rises(struct backend *b, const char *service);

#endif
