#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/strv.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/output.h"

#define SOURCES_MAX 256
#define PLAIN_LOOK_MS 200
#define LINE_MAX_BYTES 65536 /* a longer line is broken */
#define TAIL_ALL SIZE_MAX
#define TAIL_MAX 1000000

static const struct option options[] = {
	{"follow", 'f', NULL, "go on with what is added, until interrupted"},
	{"tail", 'n', "N", "the last N lines of each alone; all: all of them"},
	{NULL, 0, NULL, NULL},
};

struct source {
	char *name;
	int fd;
	struct buffer pending; /* a line that is not whole yet */
	json_t *lines;         /* with --json */
	char **last;           /* with --tail, until the present end is reached: a ring of them */
	size_t n_last;         /* that were put in */
};

struct sources {
	struct source items[SOURCES_MAX];
	size_t count;
	int width; /* of the names; 0: one service, no prefix */
	size_t tail; /* lines of each; TAIL_ALL */
	bool at_end; /* the present end has been reached once */
};

static void sources_release(struct sources *s)
{
	for (size_t i = 0; i < s->count; i++) {
		free(s->items[i].name);
		if (s->items[i].fd >= 0)
			close(s->items[i].fd);
		buffer_release(&s->items[i].pending);
		json_decref(s->items[i].lines);
		for (size_t k = 0; s->items[i].last && k < s->tail; k++)
			free(s->items[i].last[k]);
		free(s->items[i].last);
	}
	free(s);
}

static void sources_releasep(struct sources **s)
{
	sources_release(*s);
}

static int add_source(const struct client *c, const char *name, struct sources *s, struct error *err)
{
	cleanup_free char *path = xasprintf("%s/services/%s/log", c->control, name);
	if (s->count == SOURCES_MAX)
		return error_set(err, ERROR_QUOTA_EXCEEDED, "more than %d services", SOURCES_MAX);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		error_set(err, ERROR_SERVICE_UNKNOWN, "there is no service %s", name);
		return error_hint(err, "ajj status");
	}
	s->items[s->count++] = (struct source){xstrdup(name), fd, BUFFER_INIT, json_array()};
	if ((int)strlen(name) > s->width)
		s->width = (int)strlen(name);
	return 0;
}

static int add_all(const struct client *c, struct sources *s, struct error *err)
{
	cleanup_free char *path = xasprintf("%s/services", c->control);
	cleanup_closedir DIR *dir = opendir(path);
	int r = 0;
	for (struct dirent *d; !r && dir && (d = readdir(dir));)
		if (d->d_name[0] != '.')
			r = add_source(c, d->d_name, s, err);
	return r;
}

static void write_line(const struct sources *s, struct source *one, const char *line, size_t len)
{
	if (output_is_json()) {
		json_t *text = json_stringn(line, len); /* NULL: no UTF-8 */
		json_array_append_new(one->lines, text ? text : json_string("(not UTF-8)"));
	} else if (s->width) {
		printf("%-*s | %.*s\n", s->width, one->name, (int)len, line);
	} else {
		printf("%.*s\n", (int)len, line);
	}
}

static void keep_line(const struct sources *s, struct source *one, const char *line, size_t len)
{
	if (!s->tail)
		return;
	if (!one->last)
		one->last = xcalloc(s->tail, sizeof *one->last);
	char **slot = &one->last[one->n_last++ % s->tail];
	free(*slot);
	*slot = xstrndup(line, len);
}

static void put_line(const struct sources *s, struct source *one, const char *line, size_t len)
{
	if (s->tail == TAIL_ALL || s->at_end)
		write_line(s, one, line, len);
	else
		keep_line(s, one, line, len);
}

static void write_last(const struct sources *s, struct source *one)
{
	for (size_t i = one->n_last > s->tail ? one->n_last - s->tail : 0; i < one->n_last; i++) {
		const char *line = one->last[i % s->tail];
		write_line(s, one, line, strlen(line));
	}
}

static void put_lines(const struct sources *s, struct source *one)
{
	char *start = one->pending.data, *end;
	if (!start)
		return;
	size_t left = one->pending.len;
	while ((end = memchr(start, '\n', left))) {
		put_line(s, one, start, (size_t)(end - start));
		left -= (size_t)(end - start) + 1;
		start = end + 1;
	}
	if (left >= LINE_MAX_BYTES) {
		put_line(s, one, start, left);
		left = 0;
	}
	memmove(one->pending.data, start, left);
	one->pending.len = left;
}

/* Reads to the present end. */
static void drain(const struct sources *s, struct source *one)
{
	char chunk[16384];
	ssize_t n;
	while ((n = read(one->fd, chunk, sizeof chunk)) > 0) {
		buffer_add(&one->pending, chunk, (size_t)n);
		put_lines(s, one);
	}
}

static void drain_all(struct sources *s, bool at_end)
{
	for (size_t i = 0; i < s->count; i++) {
		struct source *one = &s->items[i];
		drain(s, one);
		if (at_end && one->pending.len) {
			put_line(s, one, one->pending.data, one->pending.len);
			buffer_clear(&one->pending);
		}
		if (s->tail != TAIL_ALL && !s->at_end)
			write_last(s, one);
	}
	s->at_end = true;
}

/* poll(2) parks nothing; it ends when the environment is unmounted. */
static int follow(struct sources *s, bool plain)
{
	struct pollfd fds[SOURCES_MAX];
	for (;;) {
		size_t alive = 0;
		for (size_t i = 0; i < s->count; i++)
			fds[i] = (struct pollfd){s->items[i].fd, POLLIN, 0};
		fflush(stdout);
		if (plain)
			poll(NULL, 0, PLAIN_LOOK_MS); /* regular files: always ready */
		if (ferror(stdout) || poll(fds, s->count, -1) < 0)
			return 0;
		for (size_t i = 0; i < s->count; i++) {
			if (fds[i].revents & POLLIN)
				drain(s, &s->items[i]);
			alive += !(fds[i].revents & (POLLERR | POLLHUP | POLLNVAL));
		}
		if (!alive)
			return 0;
	}
}

static void answer_json(struct sources *s)
{
	json_t *services = json_object();
	for (size_t i = 0; i < s->count; i++)
		json_object_set(services, s->items[i].name, s->items[i].lines);
	output_document(json_pack("{s:o}", "services", services));
}

static int read_tail(const char *text, size_t *ret, struct error *err)
{
	char *end;
	*ret = TAIL_ALL;
	if (!text || !strcmp(text, "all"))
		return 0;
	unsigned long n = strtoul(text, &end, 10);
	if (!isdigit((unsigned char)*text) || *end || n > TAIL_MAX)
		return error_set(err, ERROR_USAGE, "expected --tail=N, a number of lines up to %d, or all, got %s", TAIL_MAX, text);
	*ret = n;
	return 0;
}

static int run(const struct arguments *args, struct error *err)
{
	cleanup_client struct client c = CLIENT_INIT;
	CLEANUP(sources_releasep) struct sources *s = xcalloc(1, sizeof *s);
	int r = client_find(NULL, &c, err);
	if (output_is_json() && arguments_flag(args, "follow"))
		return error_set(err, ERROR_USAGE, "--json is one document: it cannot follow");
	if (!r)
		r = read_tail(arguments_value(args, "tail"), &s->tail, err);
	if (!r)
		r = client_need_mounted(&c, err);
	if (!r && !args->words)
		r = add_all(&c, s, err);
	for (char **w = args->words; !r && w && *w; w++)
		r = add_source(&c, *w, s, err);
	if (r)
		return r;
	if (args->words && s->count == 1)
		s->width = 0;
	drain_all(s, !arguments_flag(args, "follow"));
	if (output_is_json())
		answer_json(s);
	return arguments_flag(args, "follow") ? follow(s, c.native == NATIVE_PLAIN) : 0;
}

const struct command command_logs = {
	.name = "logs",
	.arguments = "[SERVICE...]",
	.summary = "what the services wrote",
	.options = options,
	.words_max = SOURCES_MAX,
	.run = run,
};
