/* The timers of services: one is freed in its close callback, which the apply outlives. */
#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/apply_private.h"

uv_timer_t *service_timer_new(struct apply_service *s)
{
	uv_timer_t *timer = xcalloc(1, sizeof *timer);
	uv_timer_init(s->apply->params.loop, timer);
	s->apply->open_timers++;
	timer->data = s;
	return timer;
}

static void on_timer_closed(uv_handle_t *h)
{
	struct apply *a = h->data;
	a->open_timers--;
	free(h);
}

void service_timer_end(struct apply_service *s, uv_timer_t **timer)
{
	uv_timer_t *ended = move_ptr(*timer);
	if (!ended)
		return;
	ended->data = s->apply;
	uv_close((uv_handle_t *)ended, on_timer_closed);
}
