/* The process backend: services are processes of this host, each below a shim of its own. Private to process*.c.
 *
 *   state_dir/services/NAME/   lock    held by the shim and everything it started: the proof of ownership
 *                              turn    held by the server that is changing something here: two never do at once
 *                              record  who the shim is and what it was told; written before the service runs
 *                              exit    how it ended; blank until then, so: blank and the lock free means it was killed
 *                              log, log.1
 *   shared_dir/templates/KEY   made once; KEY.lock; KEY.tmp is being made
 *   shared_dir/spares/KEY.BOOT.N   copies made ahead; a rename gives one away
 *
 * What blocks runs in workers (libuv's pool; spare copies in a thread of their own, at low priority) and touches
 * nothing of the loop's: functions below say "worker" or "loop". The operations of one service run one after another.
 *
 * AETHER_PROCESS_NAMESPACES=off and AETHER_PROCESS_CGROUPS=off in the server's environment do without, as on hosts that
 * forbid them. */
#ifndef BACKENDS_PROCESS_H
#define BACKENDS_PROCESS_H

#include <stdatomic.h>

#include "backends/backend.h"
#include "base/buffer.h"

#define PROCESS_SWEEP_MS 5000        /* how long what was killed may take to be gone */
#define PROCESS_SHIM_MARGIN_MS 2000  /* beyond the grace: then the shim hangs, and is killed */
#define PROCESS_REMOVE_GRACE_MS 1000 /* at most, for a service that is removed while it runs */
#define PROCESS_START_MS 20000       /* from the shim's start to the program's */
#define PROCESS_INIT_MS 120000       /* one step of a template */
#define PROCESS_SEED_MS 1800000      /* the scripts of a new database: dumps of gigabytes are loaded so */
#define PROCESS_SPARES 2             /* copies kept ahead, per template */
#define PROCESS_RECORD_MAX 8192      /* bytes read of a record */

/* What every worker may read: immutable after open, but for the two atomics. */
struct process_settings {
	char *namespace_;
	char *state_dir;
	char *shared_dir;
	char *shim;
	uid_t uid;                 /* of the services; (uid_t)-1: our own */
	int watch_fd;              /* pidfd; when it fires the services end */
	int self_fd;               /* pidfd of this process: what programs run once are bound to */
	atomic_bool canceled;      /* the backend is being closed: end soon */
	atomic_bool no_namespaces; /* refused once, or not wanted */
	atomic_bool no_cgroups;
};

/* ---- process_record.c: who runs. Worker ---- */

struct process_record {
	pid_t shim;
	uint64_t shim_ticks;
	pid_t pid;
	int64_t started_ms;
	char *config_hash;
	char *run_dir; /* "": none */
	char *data_dir; /* "": none */
	uint32_t generation;
	int stop_signal;
	unsigned stop_grace_ms;
	bool ended;
	int exit_code;
	int64_t exited_ms;
};

struct process_found {
	bool has_record;
	struct process_record record;
	bool held;      /* somebody holds the lock */
	int shim_pidfd; /* -1: no shim lives */
};

#define PROCESS_FOUND_INIT                                                                                             \
	{                                                                                                                  \
		.shim_pidfd = -1                                                                                               \
	}
void process_found_release(struct process_found *f);
#define cleanup_found __attribute__((cleanup(process_found_release)))

/* Looks, and changes nothing. A directory that is not there is nothing found. */
int process_find(const char *directory, struct process_found *ret, struct error *err);

/* Takes the turn, waiting for it. new descriptor that holds it; -1 and success where there is no directory. */
int process_turn(const struct process_settings *p, const char *directory, int *ret_fd, struct error *err);

/* The caller has the turn. What no shim answers for is killed, and an end that nobody recorded is recorded as a kill.
 * When a shim turns out to live after all, *ret says so and nothing was touched. BACKEND_DEPROVISION_FAILED names what
 * survives. */
int process_settle(const char *directory, struct process_found *ret, struct error *err);

/* new descriptor that holds the lock; -EBUSY when somebody does. */
int process_lock(const char *directory, int *ret_fd, struct error *err);

/* The caller has the turn. Removes the directory, under its lock. */
int process_forget(const char *directory, struct error *err);

/* Resident memory of a shim's descendants, shared pages once. 0: unknown. */
uint64_t process_memory(pid_t shim);

/* ---- process_spawn.c: the shim. Any thread ---- */

/* The order of `spec` (see shim_order.h), without the program and what start adds. `argv` NULL: the service's own
 * command. */
void process_order(struct buffer *out, const struct process_settings *p, const struct service_spec *spec);
void process_order_add(struct buffer *out, const char *key, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void process_order_argv(struct buffer *out, char *const *argv);
void process_order_env(struct buffer *out, const struct keyvals *env);
void process_order_user(struct buffer *out, uid_t uid, gid_t gid);

/* new: the program's path, or PROGRAM_NOT_FOUND. */
int process_program(const char *name, const struct keyvals *env, char **ret, struct error *err);

struct process_shim {
	const struct process_settings *settings;
	const char *service; /* for `ps` */
	const struct buffer *order;
	int watch_fd;
	int input;                 /* -1: /dev/null */
	int output;                /* -1: /dev/null */
	int lock_fd, directory_fd; /* -1 for a program run once */
};

/* Returns the shim's pidfd. *ret_status: read end of its status pipe, non-blocking. */
int process_shim_start(const struct process_shim *s, int *ret_status, struct error *err);
void process_shim_reap(int pidfd);

/* A line of the status pipe; the stage's error text is made here. */
enum process_status { PROCESS_STARTED, PROCESS_FAILED, PROCESS_EXITED, PROCESS_TIMED_OUT, PROCESS_SILENT };
struct process_report {
	enum process_status status; /* PROCESS_SILENT: the shim said nothing and is gone */
	pid_t pid;
	int exit_code;
	char stage[16];
	int err; /* positive errno of FAILED */
};
void process_report_parse(const char *text, struct process_report *ret);
/* `uid` is whom the program was to run as, (uid_t)-1: who we are; it is named where a permission was refused. */
int process_report_error(const struct process_report *r, const char *what, uid_t uid, struct error *err);

/* Reads until the line after which nothing changes any more (started or failed; exit or timeout when `once`). Worker.
 */
int process_report_wait(const struct process_settings *p, int status_fd, bool once, int timeout_ms,
                        struct process_report *ret, struct error *err);

/* ---- process_start.c: one start, from the directories to the running program. Worker ---- */

struct process_start; /* a copy of what the spec says */
struct process_start *process_start_new(const struct process_settings *p, const struct service_spec *spec);
void process_start_free(struct process_start *s);
/* 0: the service runs; *ret_pidfd is its shim. */
int process_start_run(struct process_start *s, int *ret_pidfd, struct error *err);
/* new: the template whose copy the start has used up; NULL: none. Once. */
struct process_template *process_start_refill(struct process_start *s);

/* ---- process_template.c: where a data directory comes from. Worker ---- */

struct process_steps {
	char ***argv; /* NULL-terminated list of argvs; NULL: none */
	char **input; /* parallel; NULL entries */
};
struct process_template {
	char *key; /* NULL: an empty directory */
	struct process_steps init;
	char *adapt_key; /* NULL: nothing to adapt */
	struct process_steps adapt;
	struct keyvals env;
	struct process_seed *seed; /* NULL: none */
};
struct process_template *process_template_new(const struct process_spec *spec);
void process_template_free(struct process_template *t);
/* Runs them one after the other; an error has the last `lines` of what the failed one printed. */
struct process_run {
	const struct process_settings *settings;
	const char *what; /* for messages */
	const struct process_steps *steps;
	const struct keyvals *env;
	const char *data; /* {{data}} */
	uid_t uid;
	gid_t gid;
	unsigned timeout_ms; /* of one */
	unsigned lines;
};
int process_steps_run(const struct process_run *run, struct error *err);
/* Makes data_dir unless it is there with content: 1, else 0. */
int process_data_make(const struct process_settings *p, const struct process_template *t, const char *data_dir,
                      struct error *err);
/* Brings the data in line with what the configuration says now, unless that was done; `made`: it is new, and is. Nothing
 * runs on it; the caller has the service's turn. */
int process_data_adapt(const struct process_settings *p, const struct process_template *t, const char *data_dir,
                       bool made, struct error *err);
/* The template, made unless it is there. */
int process_template_make(const struct process_settings *p, const struct process_template *t, struct error *err);
/* Fills up the spare copies; sweeps those of an earlier boot. */
int process_spares_make(const struct process_settings *p, const struct process_template *t, struct error *err);

/* ---- process_seed.c: the scripts of a new database. Worker ---- */

struct process_seed;
struct process_seed *process_seed_new(const struct process_spec *spec); /* new; NULL: there are none */
void process_seed_free(struct process_seed *s);
/* Runs them on a data directory that is being made. */
int process_seed_run(const struct process_settings *p, const struct process_seed *s, const char *data, struct error *err);

/* ---- process_leftovers.c: worker ---- */

/* Nothing runs on this data any more, and nothing will. */
void process_shared_memory_remove(const char *data_dir);

/* ---- process_limits.c: cgroups. Any thread ---- */

enum { PROCESS_LIMIT_MEMORY = 1, PROCESS_LIMIT_PIDS = 2, PROCESS_LIMIT_CPU = 4, PROCESS_LIMIT_KILL = 8 };

struct process_limits {
	uint64_t memory_bytes; /* 0: none */
	int64_t pids;
	double cpus;
};

/* What a cgroup of ours can do here; asked of the kernel once. */
unsigned process_limits_available(const struct process_settings *p);
/* Makes the service's cgroups, sets their limits, and adds them to the order. What cannot be is left out (check has
 * said so). */
void process_limits_apply(const struct process_settings *p, const char *service, const struct process_limits *l,
                          struct buffer *order);
/* Kills what is in them, and removes them. */
void process_limits_remove(const struct process_settings *p, const char *service);

/* ---- process_check.c: what cannot be honoured. Loop ---- */

void process_check(struct backend *b, const struct service_spec *spec, backend_diagnostic *report, void *arg);
const struct process_settings *process_settings_of(const struct backend *b);

/* ---- process_attachment.c: no loop ---- */

int process_attach(const struct attachment_spec *spec, struct attachment **ret, struct error *err);

/* ---- process_exec.c ---- */

struct process_exec;
/* Loop. `finished` is called exactly once, after which nothing of it is used any more. */
struct process_exec *process_exec_start(uv_loop_t *loop, const struct process_settings *p,
                                        const struct service_spec *spec, char *const *argv, unsigned timeout_ms,
                                        backend_exec_done *done, void *arg, void (*finished)(void *owner), void *owner);
void process_exec_cancel(struct process_exec *e);

/* Worker: runs a program to its end. *ret_output is its last BACKEND_EXEC_OUTPUT_MAX bytes. */
int process_run_once(const struct process_settings *p, const char *what, const struct buffer *order, const char *input,
                     int timeout_ms, int *ret_code, struct buffer *ret_output, struct error *err);

#endif
