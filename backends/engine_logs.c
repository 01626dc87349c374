/* A service's output: followed while it runs and kept in STATE/services/NAME/log, as a process' is, so that whatever reads logs finds them
 * in one place. Each message carries its time, which is taken off and becomes the file's: a follower that begins again knows from where. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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
#define PIECE_BYTES (16u << 10) /* of dockerd: daemon/logger/copier.go */
#define UNREADABLE                                                                                                     \
	"ajj: what this service says goes to its logging driver, which lets nobody read it\n"                               \
	"Hint: logging: !reset null in aether.local.yaml brings it here\n"
#define LAST_WORDS_MS 500 /* that an exit is told later: its log says why */

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
	size_t stamp_len, line_len; /* line: of what follows the stamp */
	struct timespec since, last;
	bool known; /* the message was here before: Podman takes whole seconds only */
	unsigned skip;    /* so many of `since` were; UINT_MAX: all of them, as far as is known */
	unsigned at_last; /* that were heard of `last` */
	bool dropped;
	bool again; /* it was to be followed anew before this was over: its container has been started again */
	uv_timer_t timer;
	void (*heard)(void *arg); /* NULL: nobody waits for its end */
	void *heard_arg;
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

void engine_log_add(struct engine *e, const char *service, const char *text)
{
	struct engine_log *l = e->logs, own = {.e = e, .service = (char *)(uintptr_t)service, .fd = -1};
	struct stat st;
	while (l && (l->dropped || l->fd < 0 || strcmp(l->service, service)))
		l = l->next;
	if (!l && (own.fd = open_file(&own)) >= 0 && !fstat(own.fd, &st) && st.st_size)
		own.last = st.st_mtim; /* still that of what was heard last */
	put(l ? l : &own, text, strlen(text));
	date_file(l ? l : &own);
	if (own.fd >= 0)
		close(own.fd);
}

/* ---- what comes ---- */

static bool is_same(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* false: it is none */
static bool take_stamp(struct engine_log *l)
{
	struct tm tm = {0};
	l->stamp[l->stamp_len] = '\0';
	char *rest = strptime(l->stamp, "%Y-%m-%dT%H:%M:%S", &tm);
	if (!rest)
		return false;
	const struct timespec at = {timegm(&tm), *rest == '.' ? engine_nanoseconds(rest, &rest) : 0};
	bool of_since = is_same(&at, &l->since);
	l->known = at.tv_sec < l->since.tv_sec || (at.tv_sec == l->since.tv_sec && at.tv_nsec < l->since.tv_nsec) || (of_since && l->skip);
	if (of_since && l->skip && l->skip != UINT_MAX)
		l->skip--;
	if (l->known)
		return true;
	l->at_last = is_same(&at, &l->last) ? l->at_last + 1 : 1;
	l->last = at;
	return true;
}

/* Up to the first blank, where a message begins. */
static void take_text(void *arg, int stream, const char *text, size_t len)
{
	struct engine_log *l = arg;
	while (l->in_stamp && len) {
		bool over = *text == ' ' || l->stamp_len == STAMP_MAX;
		if (!over) {
			l->stamp[l->stamp_len++] = *text++;
			len--;
			continue;
		}
		l->in_stamp = false;
		l->line_len = 0;
		if (take_stamp(l)) {
			text++;
			len--;
		} else if (!l->known) {
			put(l, l->stamp, l->stamp_len);
		}
	}
	l->line_len += len;
	if (len && !l->known)
		put(l, text, len);
}

/* Of a terminal a long line comes in pieces, each with its time in front. */
static void take_lines(struct engine_log *l, const char *data, size_t len)
{
	while (len) {
		size_t most = !l->in_stamp && l->line_len < PIECE_BYTES ? PIECE_BYTES - l->line_len : len;
		size_t n = l->in_stamp ? 1 : most < len ? most : len;
		const char *end = memchr(data, '\n', n);
		n = end ? (size_t)(end + 1 - data) : n;
		take_text(l, 1, data, n);
		if (end || (!l->in_stamp && l->line_len == PIECE_BYTES)) {
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

static void on_timer_closed(uv_handle_t *handle)
{
	struct engine_log *l = handle->data;
	struct engine *e = l->e;
	free(l->service);
	free(l->id);
	free(l);
	engine_end(e);
}

static void tell_heard(struct engine_log *l)
{
	void (*heard)(void *arg) = l->heard;
	l->heard = NULL;
	if (heard)
		heard(l->heard_arg);
}

static void on_last_words(uv_timer_t *timer)
{
	tell_heard(timer->data);
}

/* For whoever follows the same container once more: messages of one time may be old and new ones. */
static void note_heard(const struct engine_log *l)
{
	struct engine_slot *slot = engine_slot(l->e, l->service);
	free(slot->log_id);
	slot->log_id = xstrdup(l->id);
	slot->log_last = l->last;
	slot->log_at_last = l->at_last;
}

static void recall_heard(struct engine_log *l)
{
	const struct engine_slot *slot = engine_slot(l->e, l->service);
	bool same = slot->log_id && !strcmp(slot->log_id, l->id);
	l->skip = slot->log_id && !same ? 0 : UINT_MAX; /* another container has said nothing yet */
	if (!same || !is_same(&slot->log_last, &l->since))
		return;
	l->skip = l->at_last = slot->log_at_last;
	l->last = l->since;
}

static bool runs_again(const struct engine_log *l)
{
	const struct engine_slot *slot = engine_slot(l->e, l->service);
	return l->again && !l->dropped && !l->e->closing && slot->state == INSTANCE_RUNNING && slot->id && !strcmp(slot->id, l->id);
}

/* Docker's words, and Podman's. */
static bool is_unreadable(const struct error *err)
{
	return err && err->message && (strstr(err->message, "does not support reading") || strstr(err->message, "cannot read logs"));
}

static bool ends_with(const struct engine_log *l, const char *text)
{
	cleanup_free char *path = engine_log_path(&l->e->base, l->service);
	cleanup_close int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	char last[sizeof UNREADABLE];
	size_t len = strlen(text);
	struct stat st;
	return fd >= 0 && !fstat(fd, &st) && st.st_size >= (off_t)len && pread(fd, last, len, st.st_size - (off_t)len) == (ssize_t)len && !memcmp(last, text, len);
}

/* Else an empty log says that the service has nothing to say. */
static void tell_unreadable(struct engine_log *l)
{
	if (!ends_with(l, UNREADABLE))
		put(l, UNREADABLE, strlen(UNREADABLE));
}

static void on_end(void *arg, const struct error *err, int status, const json_t *json)
{
	struct engine_log *l = arg;
	if (is_unreadable(err) && !l->e->closing && !l->dropped)
		tell_unreadable(l);
	if (!l->e->closing && !l->dropped)
		note_heard(l);
	for (struct engine_log **at = &l->e->logs; *at; at = &(*at)->next)
		if (*at == l) {
			*at = l->next;
			break;
		}
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
	tell_heard(l);
	if (runs_again(l))
		engine_log_follow(l->e, l->service, l->id);
	uv_close((uv_handle_t *)&l->timer, on_timer_closed);
}

bool engine_log_hear(struct engine *e, const char *id, void (*heard)(void *arg), void *arg)
{
	struct engine_log *l = e->logs;
	while (l && (l->dropped || l->heard || !id || strcmp(l->id, id)))
		l = l->next;
	if (!l)
		return false;
	l->heard = heard;
	l->heard_arg = arg;
	uv_timer_start(&l->timer, on_last_words, LAST_WORDS_MS, 0);
	return true;
}

bool engine_log_is_heard(const struct engine *e, const char *id)
{
	const struct engine_log *l = e->logs;
	while (l && (l->dropped || !l->heard || strcmp(l->id, id)))
		l = l->next;
	return l;
}

void engine_log_follow(struct engine *e, const char *service, const char *id)
{
	for (struct engine_log *l = e->logs; l; l = l->next)
		if (!strcmp(l->id, id) && !l->dropped) {
			l->again = true; /* Podman tells of its end a while after that */
			return;
		}
	struct engine_log *l = xcalloc(1, sizeof *l);
	struct stat st;
	*l = (struct engine_log){.e = e, .next = e->logs, .service = xstrdup(service), .id = xstrdup(id), .fd = -1};
	e->logs = l;
	engine_begin(e);
	uv_timer_init(e->base.loop, &l->timer);
	l->timer.data = l;
	l->fd = open_file(l);
	if (l->fd >= 0 && !fstat(l->fd, &st) && st.st_size)
		l->since = st.st_mtim;
	recall_heard(l);
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
