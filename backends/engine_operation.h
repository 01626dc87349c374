/* An operation on a service: a queue for each service, so that what is asked for happens in that order, and at its head a walk through the
 * engine's calls. Each step looks at what is there before it makes anything: it may be repeated after a crash at any line. Private to
 * engine_operation.c (the queue), engine_start.c, engine_create.c, engine_launch.c, engine_stop.c and engine_remove.c (the walks).
 *
 * Loop thread. An operation owns all that it points to but `e` and `slot`. It ends once, by engine_op_done or engine_op_fail, and is not to be
 * touched then. A function that takes a step may end it: it is the last thing that its caller does. */
#ifndef BACKENDS_ENGINE_OPERATION_H
#define BACKENDS_ENGINE_OPERATION_H

#include "backends/engine.h"

#define ENGINE_GONE_TRIES 50
#define ENGINE_GONE_DELAY_MS 100 /* between looks at what others are about to take away or to make */

struct engine_op {
	struct engine *e;
	struct engine_slot *slot;
	struct engine_op *next;
	void (*begin)(struct engine_op *op); /* its first step, and that of every new try */
	char *container, *id;
	unsigned grace_ms;
	unsigned tries;
	bool looks; /* what is there is looked at first: what was known of it was wrong */
	engine_answer *on_stopped; /* of engine_op_stop */
	uv_timer_t timer;
	backend_done *done;
	void *arg;
	/* start and prepare; NULL of the others: */
	struct engine_plan *plan;
	bool ahead; /* of need: it is prepared, not started */
	bool given_up; /* nobody wants what it builds */
	bool again; /* its network had gone, and it was made once more */
	bool stopped; /* what ran with another configuration */
	bool plugged; /* into its network again */
	struct instance now; /* as it was seen at the end */
	struct error failed; /* why what was made of it goes again */
	/* remove: */
	char **volumes; /* without a name, of the container */
	unsigned dropped; /* of them */
};

/* ---- the queue (engine_operation.c) ---- */

/* borrowed until its end; `done` as in backend.h. Fill in the rest, then enqueue it: it begins with the loop's next turn, or behind those of its
 * service that wait already. */
struct engine_op *engine_op_new(struct backend *b, const char *service, void (*begin)(struct engine_op *op), backend_done *done, void *arg);
void engine_op_enqueue(struct engine_op *op);

/* Ends it; the next one in the queue begins. err: borrowed; NULL: success. */
void engine_op_done(struct engine_op *op, const struct error *err);
void engine_op_fail(struct engine_op *op, const struct error *err); /* with the service's name */
/* Asked before each step that changes something. true: it has ended, with CANCELED, for it is wanted no more. */
bool engine_op_is_closing(struct engine_op *op);
/* What is not there any more (404) is no failure of whoever wants to know, or have it gone. true: it was another one, and has ended it. */
bool engine_op_has_failed(struct engine_op *op, const struct error *err, int status);

/* Of its container: `rest` is what comes behind the name. Steals body. */
void engine_op_call(struct engine_op *op, const char *method, const char *rest, json_t *body, engine_answer *done);
void engine_op_look(struct engine_op *op, engine_answer *seen); /* inspects it */
bool engine_op_owns(const struct engine_op *op, const json_t *container); /* as inspected: it is of this environment */

void engine_op_begin(struct engine_op *op); /* once more */
void engine_op_begin_soon(struct engine_op *op);
/* Soon, and with the container that has its name by then. false: it was tried so often, or the backend is being closed. */
bool engine_op_try_again(struct engine_op *op, unsigned most);
/* Somebody has taken away what was known to be there, or made what was known not to be (`status` says so). true: it begins again, with a look. */
bool engine_op_look_after_all(struct engine_op *op, int status);

/* ---- the steps of a start ---- */

/* Makes the container and what it needs (engine_create.c), and launches it. */
void engine_op_create(struct engine_op *op);
void engine_op_recreate(struct engine_op *op); /* the one that is there is removed first; its data stays in its volumes */
/* `err`: its network is missing. true: it is recreated, once. */
bool engine_op_recreate_for_network(struct engine_op *op, const struct error *err);

/* Starts the container that is there, in its networks, and runs its post_start hooks (engine_launch.c); what cannot be started is removed. Ahead of
 * need it is left as it is made. */
void engine_op_launch(struct engine_op *op);
void engine_op_launch_seen(struct engine_op *op, const json_t *container); /* the same; plugged into its network first, if it is seen to be out of it */
void engine_op_launched(struct engine_op *op, const json_t *container); /* it runs, or has run, as inspected: the start ends */

/* Its pre_stop hooks, then the stop, within its grace time (engine_stop.c). */
void engine_op_stop(struct engine_op *op, engine_answer *stopped);

#endif
