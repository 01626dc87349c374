/* What the shim is told to run, and what its parts share. Private to the program. */
#ifndef BACKENDS_SHIM_ORDER_H
#define BACKENDS_SHIM_ORDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct list {
	char **items; /* NULL-terminated */
	size_t count;
};

/* Strings point into the mapped memfd, for life. Numbers are -1 when not given. */
struct order {
	const char *program; /* path to execute */
	struct list arguments;
	struct list environment;   /* complete */
	const char *directory;     /* working directory */
	int64_t uid, gid;          /* -1: as the shim; else all groups are given up */
	const char *namespaces;    /* "pid", "user" (user + PID), NULL: none */
	struct list cgroups;       /* directories to join; the one with cgroup.kill ends everything at once */
	const char *memory_events; /* file that tells of kills for memory: memory.events or memory.oom_control */
	int64_t limit_data, limit_processes, limit_files;
	int64_t oom_score;
	int64_t no_new_privileges;
	int64_t stop_signal, stop_grace_ms;
	int64_t timeout_ms; /* of a program run once */
	int64_t once;       /* 1: a program run once: no lock, no record, no log of ours */
	const char *config_hash;
	const char *run_dir, *data_dir; /* also for the record: whoever removes the service looks there */
	int64_t generation;
};

/* 0 or a negative errno. */
int order_read(int fd, struct order *ret);

/* ---- shim_child.c: the processes below ---- */

enum stage {
	STAGE_NONE,
	STAGE_ORDER,
	STAGE_NAMESPACES,
	STAGE_FORK,
	STAGE_CGROUP,
	STAGE_RECORD,
	STAGE_USER,
	STAGE_DIRECTORY,
	STAGE_PROGRAM
};

const char *stage_name(enum stage stage);

struct stage_failure {
	int32_t stage; /* enum stage */
	int32_t err;   /* positive errno */
};

/* Enters the namespaces of the order: children of the shim are born in them. */
int namespaces_enter(const struct order *o);

/* PID 1 of the namespace: reaps, and takes everything with it when the shim ends. Returns its pid. */
pid_t init_start(void);

/* Forks the service. It waits for a byte on `*ret_go`, then executes; `*ret_failed` gives a struct stage_failure, or
 * end of file once the program runs. */
pid_t service_start(const struct order *o, int output, int *ret_go, int *ret_failed);

/* ---- shim_log.c ---- */

struct log {
	int pipe; /* read end, non-blocking; -1 at the end of file */
	int file; /* -1: could not be opened, tried again */
	uint64_t size;
	uint64_t lost; /* bytes that found no room */
};

/* Returns the write end for the service, owned by uid, so that it may open /dev/stdout; -errno. */
int log_open(struct log *l, int64_t uid, int64_t gid);
bool log_pump(struct log *l); /* one read's worth; false: nothing more now */
void log_say(struct log *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
