/* Is a service ready? One probe asks until it is: at once, then at intervals that grow with the time that has passed.
 * It never gives up by itself: how long is too long is its owner's business, and how often. Loop thread.
 */
#ifndef PROVISIONER_PROBE_H
#define PROVISIONER_PROBE_H

#include <uv.h>

#include "backends/backend.h"
#include "provisioner/config.h"

#define PROBE_FIRST_MS 5           /* a local Postgres is ready 27-40 ms after its start */
#define PROBE_INTERVAL_MAX_MS 1000 /* a health check every 30 s is no reason to begin the day with 30 s */
#define PROBE_EXEC_FIRST_MS 20     /* a process each */
#define PROBE_TIMEOUT_MS 1000      /* of one try by network; */
#define PROBE_EXEC_TIMEOUT_MS 5000 /* by program */
#define PROBE_ANSWER_MAX 4096      /* bytes of an answer that are looked at */

struct probe;

struct probe_params {
	uv_loop_t *loop;
	const struct config_probe *what; /* copied; kind NONE is ready after its linger_ms */
	const char *host;                /* 127.0.0.1; copied */
	uint16_t port;                   /* where what->port is reached; TCP and HTTP */
	const char *log_path;            /* LOG; copied; may not exist yet */
	uint64_t log_offset;             /* LOG: older bytes belong to an earlier run */
	/* EXEC: backend_exec with the service's spec; `done` is called exactly once, later. */
	void (*exec)(void *arg, char *const *argv, unsigned timeout_ms, backend_exec_done *done, void *done_arg);
	void (*ready)(void *arg); /* once; the probe is freed afterwards */
	/* Not NULL: one try alone, and this is called, once, when it fails. The probe is freed afterwards, too. */
	void (*failed)(void *arg, const char *why);
	/* Not NULL: called once when what->retries tries, what->interval_ms apart and the first of them after what->start_period_ms, have failed, as an engine
	 * counts. It is asked on. */
	void (*exhausted)(void *arg, const char *why, unsigned tries);
	void *arg;
};

struct probe *probe_start(const struct probe_params *params);
/* `ready` will not be called. NULL is allowed. Handles and an exec in flight end by themselves later, on the loop. */
void probe_cancel(struct probe *p);
/* Why the last try failed, for people: "connection refused". borrowed; "" before the first. */
const char *probe_last(const struct probe *p);
/* new: "tcp 127.0.0.1:20001", for messages */
char *probe_describe(const struct config_probe *what, uint16_t port);

#endif
