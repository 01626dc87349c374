#include "cli/progress.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/strv.h"
#include "cli/pulls.h"
#include "cli/screen.h"

#define REDRAW_MS 100
#define JOIN_S 2 /* a server that hangs answers the thread no more than anybody */
#define LINE_MAX_BYTES 65536 /* of one event */

struct progress {
	pthread_t thread;
	int events; /* descriptor */
	int stop;   /* eventfd */
	char *what, *status; /* the path of status.json */
	uint64_t started_ms;
	struct keyvals states; /* service -> state */
	struct buffer pending; /* an event that is not whole yet */
	bool terminal;
	struct screen screen;
	bool pulling; /* images, or it is not known: status.json tells of their layers */
	json_t *pulls; /* what it told last; NULL: nothing */
	struct pulls_said said;
};

static void take_event(struct progress *p, const char *line, size_t len)
{
	json_t *event = json_loadb(line, len, 0, NULL);
	const char *service = json_string_value(json_object_get(event, "service"));
	const char *state = json_string_value(json_object_get(event, "state"));
	const char *type = json_string_value(json_object_get(event, "type")), *image = json_string_value(json_object_get(event, "image"));
	bool pull = state && image && type && !strcmp(type, "pull");
	p->pulling |= pull && p->terminal;
	if (pull && !p->terminal)
		pulls_say(&p->said, image, !strcmp(state, "pulled"));
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

/* Those that began before we came, too. */
static void look_at_pulls(struct progress *p)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	json_t *status = file_read(AT_FDCWD, p->status, CLIENT_FILE_MAX, &text) ? NULL : json_loadb(buffer_str(&text), text.len, 0, NULL), *service;
	const char *name;
	json_decref(p->pulls);
	p->pulls = json_array();
	json_object_foreach (json_object_get(status, "services"), name, service) {
		json_t *pull = json_object_get(service, "pulling");
		const char *image = json_string_value(json_object_get(pull, "image"));
		if (pull)
			json_array_append(p->pulls, pull);
		if (image && !p->terminal)
			pulls_say(&p->said, image, false);
	}
	p->pulling = p->terminal && json_array_size(p->pulls) > 0;
	json_decref(status);
}

static void draw(struct progress *p, uint64_t elapsed)
{
	cleanup_buffer struct buffer line = BUFFER_INIT;
	cleanup_strv char **lines = NULL;
	unsigned rows, columns;
	buffer_printf(&line, "%s (%u.%u s)", p->what, (unsigned)(elapsed / 1000), (unsigned)(elapsed / 100 % 10));
	for (size_t i = 0; i < p->states.count; i++)
		buffer_printf(&line, "%s %s %s", i ? "," : ":", p->states.items[i].key, p->states.items[i].value);
	strv_push(&lines, buffer_detach(&line));
	screen_size(&rows, &columns);
	pulls_lines(p->pulls, rows - 1, &lines);
	screen_draw(&p->screen, lines);
}

static void show(struct progress *p)
{
	if (p->pulling)
		look_at_pulls(p);
	if (p->terminal)
		draw(p, now_monotonic_ms() - p->started_ms);
}

static void *follow(void *arg)
{
	struct progress *p = arg;
	struct pollfd stopped = {p->stop, POLLIN, 0};
	poll(&stopped, 1, PROGRESS_QUIET_MS); /* what happens meanwhile is in the events */
	for (;;) {
		struct pollfd fds[2] = {{p->stop, POLLIN, 0}, {p->events, POLLIN, 0}};
		int n = poll(fds, 2, p->terminal || p->pulling ? REDRAW_MS : -1);
		if (n < 0 && errno != EINTR)
			break;
		if (fds[1].revents & (POLLERR | POLLHUP | POLLNVAL))
			break; /* unmounted meanwhile */
		if (fds[1].revents)
			read_events(p);
		if (fds[0].revents)
			break;
		show(p);
	}
	return NULL;
}

static void progress_free(struct progress *p)
{
	close(p->events);
	if (p->stop >= 0)
		close(p->stop);
	keyvals_release(&p->states);
	buffer_release(&p->pending);
	json_decref(p->pulls);
	pulls_said_release(&p->said);
	free(p->status);
	free(p->what);
	free(p);
}

struct progress *progress_start(const struct client *c, const char *what)
{
	cleanup_free char *path = xasprintf("%s/events", c->control);
	int events = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (events < 0)
		return NULL;
	struct progress *p = xcalloc(1, sizeof *p);
	p->events = events;
	p->stop = eventfd(0, EFD_CLOEXEC);
	p->what = xstrdup(what);
	p->status = xasprintf("%s/status.json", c->control);
	p->terminal = isatty(STDERR_FILENO);
	p->pulling = true;
	p->started_ms = now_monotonic_ms();
	lseek(events, 0, SEEK_END); /* what was before is not what is waited for */
	/* a signal must reach the thread that waits: it is what is to be interrupted */
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	bool failed = p->stop < 0 || pthread_create(&p->thread, NULL, follow, p);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (failed) {
		progress_free(p);
		return NULL;
	}
	return p;
}

void progress_stop(struct progress *p)
{
	static const uint64_t one = 1;
	struct timespec until;
	if (!p)
		return;
	write_all(p->stop, &one, sizeof one);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += JOIN_S;
	if (pthread_timedjoin_np(p->thread, NULL, &until)) {
		pthread_detach(p->thread); /* what it uses is left to it */
		return;
	}
	screen_clear(&p->screen);
	progress_free(p);
}
