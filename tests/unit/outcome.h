/* How an operation of a backend has ended, waited for in its loop. */
#ifndef TESTS_UNIT_OUTCOME_H
#define TESTS_UNIT_OUTCOME_H

#include <stdbool.h>
#include <unistd.h>
#include <uv.h>

#include "backends/backend.h"
#include "base/error.h"

#define OUTCOME_WAIT_MS 20000

struct outcome {
	bool done;
	enum error_code code;
};

static inline void on_done(void *arg, const struct error *err)
{
	*(struct outcome *)arg = (struct outcome){true, err ? err->code : ERROR_NONE};
}

static inline void on_list(void *arg, const struct error *err, const struct instances *list)
{
	on_done(arg, err);
}

static inline void on_closed(void *arg)
{
	((struct outcome *)arg)->done = true;
}

static inline void run_once(uv_loop_t *loop)
{
	uv_run(loop, UV_RUN_NOWAIT);
	usleep(200);
}

static inline enum error_code await(uv_loop_t *loop, const struct outcome *o)
{
	uint64_t until = now_monotonic_ms() + OUTCOME_WAIT_MS;
	while (!o->done && now_monotonic_ms() < until)
		run_once(loop);
	assert_true(o->done);
	return o->code;
}

#endif
