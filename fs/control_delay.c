/* Requests that come before the environment has read its configuration: just after the mount, and just after a server
 * took the place of a dead one, whose clients must not see services vanish and come back. Names wait, for some
 * milliseconds; what is open already does not. */
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "fs/control_private.h"

bool control_delay(struct control *c, const struct delayed *d, const char *name, const struct fuse_file_info *fi)
{
	if (c->settled || c->delayed_count >= CONTROL_PARKED_MAX)
		return false;
	struct delayed *copy = xcalloc(1, sizeof *copy);
	*copy = *d;
	copy->name = xstrdup(name);
	if (fi)
		copy->fi = *fi;
	copy->resent = session_request_resent();
	*c->delayed_tail = copy;
	c->delayed_tail = &copy->next;
	c->delayed_count++;
	return true;
}

static struct delayed *take_all(struct control *c)
{
	struct delayed *all = c->delayed;
	c->delayed = NULL;
	c->delayed_tail = &c->delayed;
	c->delayed_count = 0;
	return all;
}

static struct delayed *next_of(struct delayed *d)
{
	struct delayed *next = d->next;
	free(d->name);
	free(d);
	return next;
}

void control_settle(struct control *c)
{
	if (c->settled)
		return;
	c->settled = true;
	uv_timer_stop(&c->settle_timer);
	for (struct delayed *d = take_all(c); d; d = next_of(d))
		d->run(c, d);
}

void control_settle_now(uv_timer_t *timer)
{
	struct control *c = timer->data;
	log_warning("control", "the configuration is not read after %d ms: names are answered without it", CONTROL_SETTLE_MS);
	control_settle(c);
}

void control_delay_end(struct control *c)
{
	for (struct delayed *d = take_all(c); d; d = next_of(d))
		fuse_reply_err(d->req, ENOTCONN);
}
