/* The loop's side of the process backend: what its parts share. Loop thread alone. */
#ifndef BACKENDS_PROCESS_LOOP_H
#define BACKENDS_PROCESS_LOOP_H

#include "backends/process.h"

struct process_service {
	struct process_backend *backend;
	char *name, *directory;
	struct op *first, *last; /* the first one runs, the others wait */
	struct watch *watch;     /* NULL: nothing known to run */
	bool seen_running;       /* its end has not been told to anybody */
	struct process_service *next;
};

struct process_backend {
	struct backend base;
	struct process_settings settings;
	backend_changed *changed;
	void *changed_arg;
	struct process_service *services;
	struct listing *listings;
	struct running_exec *execs;
	struct prepare *prepares;
	unsigned active; /* works, handles and threads that will still call back */
	void (*closed)(void *arg);
	void *closed_arg;
	bool closing;
};

/* The backend is freed, and `closed` called, when the last of these has ended. */
void process_active_begin(struct process_backend *b);
void process_active_end(struct process_backend *b);

/* Completes a call that needs no work. Fill in the error, if there is one, before the loop turns. */
struct error *process_answer_later(struct process_backend *b, backend_done *done, void *arg);

/* Tells a caller of the cancellation, once: *done becomes NULL. */
void process_cancel(backend_done **done, void *arg);

struct process_service *process_service_get(struct process_backend *b, const char *name);
/* steals pidfd, of the service's shim: its end is noticed. */
void process_service_watch(struct process_service *s, int pidfd);
/* Has cleared away what nobody answers for, after what the service already waits for. */
void process_service_settle(struct process_service *s, backend_done *done, void *arg);
/* All strings borrowed. */
void process_instance_fill(struct instance *i, const struct process_service *s, const struct process_record *r,
                           bool running);

/* ---- process_list.c ---- */

void process_list(struct backend *base, backend_list_done *done, void *arg);
void process_list_cancel(struct process_backend *b);

/* ---- process_prepare.c ---- */

void process_prepare(struct backend *base, const struct service_spec *spec, backend_done *done, void *arg);
/* Fills up the spare copies in a while. steals t; NULL: nothing to do. */
void process_refill_later(struct process_backend *b, struct process_template *t);
void process_prepare_cancel(struct process_backend *b);

#endif
