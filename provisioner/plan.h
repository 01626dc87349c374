/* The plan: what is wanted and what is present give the steps between them. Pure: no clock, no I/O, no backend; any
 * thread.
 *
 * It is computed anew whenever something happened (level, not edge): a crash between two steps loses nothing, because
 * the next computation starts from what is present then.
 */
#ifndef PROVISIONER_PLAN_H
#define PROVISIONER_PLAN_H

#include <stdbool.h>
#include <stddef.h>

#include "provisioner/config.h"

enum plan_goal {
	GOAL_NONE, /* leave it as it is */
	GOAL_UP,
	GOAL_STOPPED, /* not running; what was made and its data stay */
	GOAL_ABSENT
};

enum plan_present {
	PRESENT_ABSENT,
	PRESENT_STOPPED, /* made, does not run, and would be started again */
	PRESENT_RUNNING, /* started, not ready yet */
	PRESENT_READY,
	PRESENT_COMPLETED, /* has run to its end with success, as it should */
	PRESENT_FAILED     /* given up: only a new demand or a command tries again */
};

struct plan_dependency {
	size_t service; /* index */
	enum depends_condition condition;
	bool follows; /* it is restarted when that one is */
	bool joined; /* it lives in that one's network or among its processes: it ends with it, and starts after it */
};

struct plan_service {
	enum plan_goal goal;
	enum plan_present present;
	bool made;     /* the backend knows an instance of it, running or not */
	bool busy;     /* an operation on it is under way */
	bool stuck;    /* could not be brought down: it is left alone, and holds nobody back */
	bool held;     /* not to be started now: backing off, waiting for a port or for the store */
	bool restart;  /* stop it first, then start it */
	bool recreate; /* the same, and remove it in between: its configuration changed */
	const struct plan_dependency *depends_on;
	size_t n_depends_on;
};

enum plan_action { PLAN_START, PLAN_STOP, PLAN_REMOVE };

struct plan_step {
	enum plan_action action;
	size_t service;
	bool now; /* its preconditions hold; else it waits for other steps or for readiness */
};

/* Stops and removals come first, dependents before what they depend on; then starts, the other way round. `ret` holds
 * up to `count` steps (a service has at most one at a time). Returns how many. Indices of dependencies are below
 * `count`. */
size_t plan_steps(const struct plan_service *services, size_t count, struct plan_step *ret);

/* Do all of its dependencies hold, so that it may start? One that is being replaced does not, until it runs again. */
bool plan_may_start(const struct plan_service *services, size_t service);

/* ---- which services ---- */

struct plan_selection {
	bool all;           /* with those that have build: */
	char *const *names; /* by name; NULL: the configuration's own set, else the default one */
	char *const *profiles; /* with all that have one of these, built or not: whoever asks for a profile means them. NULL: the
	                        * configuration's, without those that are built */
	char *const *also;  /* these, too; NULL: none */
};

/* Fills `ret` (config->n_services booleans) with the services chosen and what they depend on. `named` (may be NULL)
 * gets those that were named or are needed by one that was: they may not be missing. SERVICE_UNKNOWN names what is not
 * there. */
int plan_select(const struct config *config, const struct plan_selection *selection, bool *ret, bool *named,
                struct error *err);

/* CONFIG_INVALID naming the circle, when services depend on each other in one. */
int plan_check_circles(const struct config *config, struct error *err);

#endif
