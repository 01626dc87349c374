/* Manufactured bad luck: wraps any backend and makes chosen calls fail, lie or take their time. For tests. */
#ifndef BACKENDS_CHAOS_H
#define BACKENDS_CHAOS_H

#include "backends/backend.h"

enum chaos_op { CHAOS_PROBE, CHAOS_PREPARE, CHAOS_START, CHAOS_STOP, CHAOS_REMOVE, CHAOS_CLEAR, CHAOS_LIST, CHAOS_EXEC };

struct chaos_rule {
	enum chaos_op op;
	unsigned skip;              /* so many of its calls pass first */
	unsigned count;             /* then it applies to so many; 0: to all */
	unsigned delay_ms;          /* before the answer is passed on */
	enum error_code instead;    /* fails with it, and the backend beneath never hears of the call */
	enum error_code afterwards; /* the backend beneath does the work, and the caller hears of this failure */
};

/* new: a backend like any other (backend_close ends both). steals `inner`; copies the rules: of those for one call the
 * first that applies counts. */
struct backend *chaos_wrap(struct backend *inner, const struct chaos_rule *rules, size_t n_rules);

#endif
