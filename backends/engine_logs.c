/* A service's output: followed while it runs and kept in STATE/services/NAME/log, as a process' is, so that whatever reads logs finds them
 * in one place. Each message carries its time, which is taken off and becomes the file's: a follower that begins again knows from where. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "backends/engine.h"
#include "backends/shim.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"

#define AREA "engine"
#define STAMP_MAX 40

struct engine_log {
	struct engine *e;
	struct engine_log *next;
	char *service, *id;
	int fd;
	struct http_call *call; /* NULL: it has ended */
	struct engine_frames frames;
	bool begun, raw;        /* raw: of a terminal, without frames */
	bool in_stamp;
	char stamp[STAMP_MAX + 1];
	size_t stamp_len;
	struct timespec since, last;
	bool known; /* the message was here before: Podman takes whole seconds only */
	bool dropped;
};

char *engine_log_path(struct backend *b, const char *service)
{
	const struct engine *e = (const struct engine *)b;
	return xasprintf("%s/services/%s/log", e->state_dir, service);
}

/* ---- the file ---- */

static int open_file(const struct engine_log *l)
{
	cleanup_free char *dir = xasprintf("%s/services/%s", l->e->state_dir, l->service), *path = xasprintf("%s/log", dir);
	int r = dir_make(AT_FDCWD, dir, 0700);
	int fd = r ? r : open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		log_warning(AREA, "%s: %s", path, strerror(r ? -r : errno));
	return fd < 0 ? -1 : fd;
}

static void put(struct engine_log *l, const char *text, size_t len)
{
	struct stat st;
	if (l->fd >= 0 && !fstat(l->fd, &st) && (uint64_t)st.st_size + len > SHIM_LOG_MAX) {
		cleanup_free char *path = engine_log_path(&l->e->base, l->service), *old = xasprintf("%s.1", path);
		rename(path, old);
		close(l->fd);
		l->fd = open_file(l);
	}
	if (l->fd >= 0 && write_all(l->fd, text, len)) {
		; /* a full disk: the rest of it is lost, and the service must not die for it */
	}
}

static void date_file(const struct engine_log *l)
{
	const struct timespec times[2] = {{0, UTIME_OMIT}, l->last};
	if (l->fd >= 0 && l->last.tv_sec)
		futimens(l->fd, times);
}

/* ---- what comes ---- */

static void take_stamp(struct engine_log *l)
{
	struct tm tm = {0};
	l->stamp[l->stamp_len] = '\0';
	char *rest = strptime(l->stamp, "%Y-%m-%dT%H:%M:%S", &tm);
	if (!rest)
		return;
	const struct timespec at = {timegm(&tm), *rest == '.' ? engine_nanoseconds(rest, &rest) : 0};
	l->known = at.tv_sec < l->since.tv_sec || (at.tv_sec == l->since.tv_sec && at.tv_nsec <= l->since.tv_nsec);
	if (!l->known)
		l->last = at;
}

/* Up to the first blank, where a message begins. */
static void take_text(void *arg, int stream, const char *text, size_t len)
{
	struct engine_log *l = arg;
	while (l->in_stamp && len) {
		if (*text == ' ' || l->stamp_len == STAMP_MAX) {
			take_stamp(l);
			l->in_stamp = false;
		} else {
			l->stamp[l->stamp_len++] = *text;
		}
		text++;
		len--;
	}
	if (len && !l->known)
		put(l, text, len);
}

static void take_lines(struct engine_log *l, const char *data, size_t len)
{
	while (len) {
		const char *end = memchr(data, '\n', len);
		size_t n = end ? (size_t)(end + 1 - data) : len;
		take_text(l, 1, data, n);
		if (end) {
			l->in_stamp = true;
			l->stamp_len = 0;
		}
		data += n;
		len -= n;
	}
}

/* One frame is one message; where one begins, its time does. */
static void take_frames(struct engine_log *l, const char *data, size_t len)
{
	while (len) {
		size_t n = l->frames.have < sizeof l->frames.head ? sizeof l->frames.head - l->frames.have : l->frames.left;
		if (l->frames.have == 0) {
			l->in_stamp = true;
			l->stamp_len = 0;
		}
		n = n < len ? n : len;
		engine_frames_feed(&l->frames, data, n, take_text, l);
		data += n;
		len -= n;
	}
}

static bool on_data(void *arg, int status, const char *data, size_t len)
{
	struct engine_log *l = arg;
	if (!l->begun && len) {
		l->begun = l->in_stamp = true;
		l->raw = (unsigned char)data[0] > 2;
	}
	(l->raw ? take_lines : take_frames)(l, data, len);
	date_file(l);
	return true;
}

/* ---- life ---- */

static void log_free(struct engine_log *l)
{
	for (struct engine_log **at = &l->e->logs; *at; at = &(*at)->next)
		if (*at == l) {
			*at = l->next;
			break;
		}
	if (l->fd >= 0)
		close(l->fd);
	free(l->service);
	free(l->id);
	free(l);
}

static void on_end(void *arg, const struct error *err, int status, const json_t *json)
{
	log_free(arg);
}

void engine_log_follow(struct engine *e, const char *service, const char *id)
{
	for (struct engine_log *l = e->logs; l; l = l->next)
		if (!strcmp(l->id, id) && !l->dropped)
			return;
	struct engine_log *l = xcalloc(1, sizeof *l);
	struct stat st;
	*l = (struct engine_log){.e = e, .next = e->logs, .service = xstrdup(service), .id = xstrdup(id), .fd = -1};
	e->logs = l;
	l->fd = open_file(l);
	if (l->fd >= 0 && !fstat(l->fd, &st) && st.st_size)
		l->since = st.st_mtim;
	cleanup_free char *path = xasprintf("/containers/%s/logs?follow=1&stdout=1&stderr=1&timestamps=1&since=%lld.%09ld", id, (long long)l->since.tv_sec, l->since.tv_nsec);
	l->call = engine_stream(e, "GET", path, NULL, NULL, 0, on_data, on_end, l);
}

void engine_log_drop(struct engine *e, const char *service)
{
	cleanup_free char *dir = xasprintf("%s/services/%s", e->state_dir, service);
	for (struct engine_log *l = e->logs; l; l = l->next)
		if (!strcmp(l->service, service) && !l->dropped) {
			l->dropped = true;
			http_cancel(l->call);
		}
	int r = tree_remove(AT_FDCWD, dir);
	if (r)
		log_warning(AREA, "%s: %s", dir, strerror(-r));
}
