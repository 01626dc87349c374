/* Requests that wait. FUSE sends INTERRUPT for any signal and only once, while an open or write that returns EINTR for a
 * SIGCHLD breaks scripts: so an interrupted request is answered EINTR only when a signal that ends a program is pending
 * for its thread, and looked at again and again until then. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "fs/control_private.h"

static uint64_t signal_set(const char *status, const char *field)
{
	const char *line = strstr(status, field);
	uint64_t set = 0;
	return line && sscanf(line + strlen(field), "%" SCNx64, &set) == 1 ? set : 0;
}

bool control_signal_ends(const char *status)
{
	static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGKILL};
	uint64_t pending = signal_set(status, "\nSigPnd:") | signal_set(status, "\nShdPnd:");
	uint64_t blocked = signal_set(status, "\nSigBlk:"), set = 0;
	for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
		set |= UINT64_C(1) << (ends[i] - 1);
	return pending & ~blocked & set;
}

/* A thread that cannot be seen (it is gone, or of another pid namespace) cannot be asked: then its signal counts. */
static bool thread_ends(pid_t tid)
{
	cleanup_buffer struct buffer status = BUFFER_INIT;
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/status", (int)tid);
	return tid <= 0 || file_read(AT_FDCWD, path, 64 << 10, &status) < 0 || control_signal_ends(buffer_str(&status));
}

/* The completion of a command cannot be called off; then its record waits alone. */
static void interrupt(struct parked *p)
{
	control_unpark(p);
	fuse_reply_err(p->req, EINTR);
	if (p->demand) {
		demand_cancel(p->demand);
		free(p);
	} else {
		environment_command_forsaken(p->c->env, p);
		p->c = NULL;
	}
}

void control_park_signals(uv_timer_t *timer)
{
	struct control *c = timer->data;
	bool left = false;
	for (struct parked *p = c->parked, *next; p; p = next) {
		next = p->next;
		if (!p->interrupted)
			continue;
		if (thread_ends(p->tid))
			interrupt(p);
		else
			left = true;
	}
	if (left)
		uv_timer_start(timer, control_park_signals, CONTROL_SIGNAL_MS, 0);
}

static void interrupted(fuse_req_t req, void *data)
{
	struct parked *p = data;
	p->interrupted = true;
	uv_timer_start(&p->c->signal_timer, control_park_signals, 0, 0);
}

bool control_park(struct control *c, struct parked *p)
{
	if (c->parked_count >= CONTROL_PARKED_MAX)
		return false;
	c->parked_count++;
	p->c = c;
	p->next = c->parked;
	p->link = &c->parked;
	if (p->next)
		p->next->link = &p->next;
	c->parked = p;
	fuse_req_interrupt_func(p->req, interrupted, p);
	return true;
}

void control_unpark(struct parked *p)
{
	*p->link = p->next;
	if (p->next)
		p->next->link = p->link;
	p->c->parked_count--;
}

bool control_busy(const struct control *c, fuse_ino_t ino)
{
	for (const struct parked *p = c->parked; p; p = p->next)
		if (p->ino == ino && !p->demand)
			return true;
	return false;
}

void control_park_end(struct control *c)
{
	for (struct parked *p = c->parked, *next; p; p = next) {
		next = p->next;
		control_unpark(p);
		fuse_reply_err(p->req, ENOTCONN);
		if (p->demand) {
			demand_cancel(p->demand);
			free(p);
		} else
			p->c = NULL;
	}
}
