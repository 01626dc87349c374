#include "cli/progress.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/strv.h"

#define REDRAW_MS 100
#define LINE_MAX_BYTES 65536 /* of one event */

struct progress {
	pthread_t thread;
	int events; /* descriptor */
	int stop;   /* eventfd */
	char *what;
	uint64_t started_ms;
	struct keyvals states; /* service -> state */
	struct buffer pending; /* an event that is not whole yet */
	bool shown;
};

static void take_event(struct progress *p, const char *line, size_t len)
{
	json_t *event = json_loadb(line, len, 0, NULL);
	const char *service = json_string_value(json_object_get(event, "service"));
	const char *state = json_string_value(json_object_get(event, "state"));
	if (service && state)
		keyvals_set(&p->states, service, state);
	json_decref(event);
}

static void read_events(struct progress *p)
{
	char chunk[8192];
	ssize_t n;
	while ((n = read(p->events, chunk, sizeof chunk)) > 0) {
		buffer_add(&p->pending, chunk, (size_t)n);
		char *start = p->pending.data, *end;
		while ((end = memchr(start, '\n', p->pending.len - (size_t)(start - p->pending.data)))) {
			take_event(p, start, (size_t)(end - start));
			start = end + 1;
		}
		size_t rest = p->pending.len - (size_t)(start - p->pending.data);
		memmove(p->pending.data, start, rest);
		p->pending.len = rest < LINE_MAX_BYTES ? rest : 0;
	}
}

static void draw(struct progress *p)
{
	struct winsize size = {0};
	cleanup_buffer struct buffer line = BUFFER_INIT;
	uint64_t elapsed = now_monotonic_ms() - p->started_ms;
	if (elapsed < PROGRESS_QUIET_MS)
		return;
	buffer_printf(&line, "%s (%u.%u s)", p->what, (unsigned)(elapsed / 1000), (unsigned)(elapsed / 100 % 10));
	for (size_t i = 0; i < p->states.count; i++)
		buffer_printf(&line, "%s %s %s", i ? "," : ":", p->states.items[i].key, p->states.items[i].value);
	int columns = !ioctl(2, TIOCGWINSZ, &size) && size.ws_col > 1 ? size.ws_col - 1 : 79;
	fprintf(stderr, "\r\033[K%.*s", columns, line.data);
	p->shown = true;
}

static void *follow(void *arg)
{
	struct progress *p = arg;
	for (;;) {
		struct pollfd fds[2] = {{p->stop, POLLIN, 0}, {p->events, POLLIN, 0}};
		int n = poll(fds, 2, REDRAW_MS);
		if (n < 0 && errno != EINTR)
			break;
		if (fds[0].revents)
			break;
		if (fds[1].revents & (POLLERR | POLLHUP | POLLNVAL))
			break; /* unmounted meanwhile */
		if (fds[1].revents)
			read_events(p);
		draw(p);
	}
	return NULL;
}

struct progress *progress_start(const struct client *c, const char *what)
{
	if (!isatty(2))
		return NULL;
	cleanup_free char *path = xasprintf("%s/events", c->control);
	int events = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (events < 0)
		return NULL;
	struct progress *p = xcalloc(1, sizeof *p);
	p->events = events;
	p->stop = eventfd(0, EFD_CLOEXEC);
	p->what = xstrdup(what);
	p->started_ms = now_monotonic_ms();
	lseek(events, 0, SEEK_END); /* what was before is not what is waited for */
	/* a signal must reach the thread that waits: it is what is to be interrupted */
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	bool failed = p->stop < 0 || pthread_create(&p->thread, NULL, follow, p);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (failed) {
		close(p->events);
		if (p->stop >= 0)
			close(p->stop);
		free(p->what);
		free(p);
		return NULL;
	}
	return p;
}

void progress_stop(struct progress *p)
{
	static const uint64_t one = 1;
	if (!p)
		return;
	write_all(p->stop, &one, sizeof one);
	pthread_join(p->thread, NULL);
	if (p->shown)
		fputs("\r\033[K", stderr);
	close(p->events);
	close(p->stop);
	keyvals_release(&p->states);
	buffer_release(&p->pending);
	free(p->what);
	free(p);
}
