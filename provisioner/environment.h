/* One workspace's environment: configuration, plan, state machine, probes, events and the texts of its files.
 *
 * This is what fs/ serves as files. Everything runs on the loop thread; callbacks come on it too and never from within
 * the call that asked for them, unless said. Nothing here blocks: configuration is read in a worker thread, backends
 * are asynchronous, moving data is a worker's job.
 *
 * States: absent, starting, ready, degraded, failed, stopping, stopped.
 */
#ifndef PROVISIONER_ENVIRONMENT_H
#define PROVISIONER_ENVIRONMENT_H

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>
#include <uv.h>

#include "base/buffer.h"
#include "base/error.h"
#include "provisioner/identity.h"

#define ENVIRONMENT_DEMAND_TIMEOUT_MS 120000 /* default bound of a demand; x-aether.timeout overrides */
#define ENVIRONMENT_EVENTS_MAX (256u << 10)  /* bytes of `events` kept in memory; older lines are dropped at a line's end */
#define ENVIRONMENT_ERRORS_MAX 20            /* failures kept in errors.json */

struct environment;

/* Who asks: the caller of a file operation, or ajj. */
struct requester {
	pid_t pid;        /* thread group */
	char command[64]; /* /proc/PID/comm, or what the caller says */
};

enum environment_change {
	CHANGED_ENV = 1,      /* env, env.json, services/X/{url,host,port,env} */
	CHANGED_PORTS = 2,
	CHANGED_STATUS = 4,   /* status.json, services/X/state */
	CHANGED_EVENTS = 8,
	CHANGED_ERRORS = 16,
	CHANGED_SERVICES = 32, /* the list of services */
	CHANGED_ENV_OWN = 64,
	CHANGED_FILES = 128,    /* which files x-aether.env_files names; also told when that is known to be none */
	CHANGED_OWN_FILES = 256 /* the workspace's own lines of one of them */
};

struct environment_params {
	uv_loop_t *loop;
	const struct identity *id; /* borrowed for life */
	int root_fd;               /* directory of the workspace *beneath* the mount; borrowed. Never touch the workspace by path */
	bool keep_own_lines;       /* a teardown leaves the user's own `.env` alone: nobody has deleted it */
	pid_t keeper_pid;
	int keeper_pidfd;          /* borrowed; -1 in tests */
	const char *shim;          /* path of aetherfs-shim */
	const char *recipes_dir;   /* contrib/recipes as installed, or copied into the build tree */
	unsigned server_restarts;
	/* Open demand files: new array of {"pid","command","file"}; called while status.json is made. May be NULL. */
	json_t *(*leases)(void *arg);
	/* The virtual file has this name from now on (static; env_name.h): the owner of `id` writes it there. May be NULL. */
	void (*env_named)(void *arg, const char *name);
	/* What changed, as a mask of enum environment_change; coalesced, once per loop turn at most. */
	void (*changed)(void *arg, unsigned what);
	void *arg;
};

/* Opens the store, reads the configuration (asynchronously), plans (leases ports) and adopts services that already run.
 * A missing or broken configuration is no failure here: it is what demands report. */
int environment_new(const struct environment_params *params, struct environment **ret, struct error *err);

/* Lets go of everything; `closed` is called when no callback can come any more. With `stop_services`
 * they are stopped first and their data and ports kept (unmount); else they go on running (a server handing over). */
void environment_close(struct environment *e, bool stop_services, void (*closed)(void *arg), void *arg);

/* ---- demands ---- */

struct demand;
/* err NULL: ready. borrowed. */
typedef void demand_done(void *arg, const struct error *err);

/* Asks for readiness of `service` and what it depends on (NULL: the default set).
 * 0: ready now, nothing is parked and `done` is not called (the fast path of a warm `cat .env`);
 * 1: parked: `done` is called exactly once later unless cancelled first; *ret identifies it;
 * negative errno: refused at once (err says why).
 * A demand during a teardown waits for it and then makes a fresh environment. With start: manual
 * it is ready as soon as the plan is known. */
int environment_demand(struct environment *e, const char *service, const struct requester *who, demand_done *done,
                       void *arg, struct demand **ret, struct error *err);

/* Calls `changed` now, with what changed and was not told yet; nothing where nothing did. */
void environment_tell(struct environment *e);
/* The same of one of x-aether.env_files: the default set and what it has of its own. */
int environment_demand_file(struct environment *e, const char *path, const struct requester *who, demand_done *done, void *arg,
                            struct demand **ret, struct error *err);
/* `done` will not be called; provisioning goes on. NULL is allowed. */
void demand_cancel(struct demand *d);

/* ---- deletion ---- */

/* `.env`, `.aether`, `ports` or `status.json` was unlinked by `who`: the environment becomes `stopping` for all to see, and
 * its teardown starts after `delay_ms` or at the next demand by another process, whichever is first. */
void environment_unlinked(struct environment *e, const struct requester *who, unsigned delay_ms);
/* The same process created the name again: that was a replacement, no teardown. Does nothing once it has begun. */
void environment_replaced(struct environment *e, pid_t tgid);

/* ---- the user's own lines ---- */

/* `text` was written over `.env` and closed: the user's part goes to the real file beneath. */
int environment_write_env(struct environment *e, const char *text, size_t len, struct error *err);
/* The real file beneath is another, or one of x-aether.env_files: they are read again. */
void environment_own_changed(struct environment *e);

/* ---- commands (ctl) ---- */

/* One line of `ctl`: up [--all] [SERVICE...], down, destroy, restart SERVICE, stop SERVICE, start SERVICE, reload,
 * approve [HASH], revoke. `done` is always called later, exactly once. */
void environment_command(struct environment *e, const char *line, const struct requester *who, demand_done *done, void *arg);
/* Whoever gave the command with that `arg` does not wait for it any more: what is being built for it ends, and so does the command then. All else
 * goes on, and so does `done`. */
void environment_command_forsaken(struct environment *e, const void *arg);
/* One command a line with a word on each; borrowed. */
const char *environment_command_list(void);

/* ---- texts: each appends to `out` what the file holds now ---- */

int environment_env(struct environment *e, struct buffer *out, struct error *err);
/* What docker compose is led to (beside_compose.h); nothing where the services are no containers. */
void environment_compose(struct environment *e, struct buffer *out);
int environment_env_json(struct environment *e, struct buffer *out, struct error *err);
/* The same variables for a container in the environment's network (model_container_environment): as `.env`, as env.json, and as docker's
 * --env-file takes them. */
enum container_text { CONTAINER_ENV, CONTAINER_ENV_JSON, CONTAINER_ENV_LIST };
int environment_container(struct environment *e, enum container_text form, struct buffer *out, struct error *err);
void environment_ports(struct environment *e, struct buffer *out);
void environment_status(struct environment *e, struct buffer *out);
void environment_env_own(struct environment *e, struct buffer *out);
void environment_errors(struct environment *e, struct buffer *out);
void environment_errors_clear(struct environment *e);
void environment_trust(struct environment *e, struct buffer *out); /* trust_json */

/* ---- x-aether.env_files ---- */

size_t environment_file_count(const struct environment *e);
const char *environment_file_path(const struct environment *e, size_t i); /* below the workspace; borrowed until the next CHANGED_FILES */
int environment_file(struct environment *e, const char *path, struct buffer *out, struct error *err);
int environment_write_file(struct environment *e, const char *path, const char *text, size_t len, struct error *err);

/* `events`: bytes [offset, ...) of everything ever appended. Returns the bytes copied, 0 at the end now; when `offset` was
 * dropped already, reading begins at the oldest line kept. */
size_t environment_events_read(struct environment *e, uint64_t offset, char *buf, size_t size);
uint64_t environment_events_size(struct environment *e);
/* The offset of the oldest line that is kept: a reader whose own is below has missed lines, and goes on from here. */
uint64_t environment_events_start(struct environment *e);

/* ---- services ---- */

size_t environment_service_count(struct environment *e);
const char *environment_service_name(struct environment *e, size_t i); /* borrowed until the next CHANGED_SERVICES */
bool environment_has_service(struct environment *e, const char *service);
enum service_text { SERVICE_URL, SERVICE_HOST, SERVICE_PORT, SERVICE_ENV, SERVICE_STATE, SERVICE_EXEC /* beside_service.h */ };
int environment_service(struct environment *e, const char *service, enum service_text what, struct buffer *out, struct error *err);
/* new: path of the log file, NULL: none (yet). */
char *environment_service_log(struct environment *e, const char *service);
/* rmdir services/NAME: tears the one service down; returns at once; it stays listed, `absent`. */
int environment_service_remove(struct environment *e, const char *service, const struct requester *who, struct error *err);

/* Fills from /proc: the thread group and comm of a caller's thread id. */
void requester_of(pid_t tid, struct requester *ret);

#endif
