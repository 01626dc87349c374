#include "provisioner/events.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"

struct events {
	size_t max_bytes;
	size_t max_errors;
	uint64_t dropped; /* bytes before the first one kept */
	uint64_t seq;
	struct buffer text;
	json_t *failures;
};

struct events *events_new(size_t max_bytes, size_t max_errors)
{
	struct events *ev = xcalloc(1, sizeof *ev);
	ev->max_bytes = max_bytes;
	ev->max_errors = max_errors;
	ev->failures = json_array();
	return ev;
}

void events_free(struct events *ev)
{
	if (!ev)
		return;
	buffer_release(&ev->text);
	json_decref(ev->failures);
	free(ev);
}

/* Drops a quarter at a time: a line for a line would move all of it for each. */
static void drop_old(struct events *ev)
{
	if (ev->text.len <= ev->max_bytes)
		return;
	size_t least = ev->text.len - ev->max_bytes + ev->max_bytes / 4;
	if (least > ev->text.len)
		least = ev->text.len;
	char *end = memchr(ev->text.data + least - 1, '\n', ev->text.len - least + 1);
	size_t n = end ? (size_t)(end - ev->text.data) + 1 : ev->text.len;
	memmove(ev->text.data, ev->text.data + n, ev->text.len - n + 1);
	ev->text.len -= n;
	ev->dropped += n;
}

static json_t *now_text(void)
{
	char time[32];
	format_time(time, now_wall_ms());
	return json_string(time);
}

void events_add(struct events *ev, const char *type, json_t *fields)
{
	json_t *line = json_object();
	json_object_set_new(line, "seq", json_integer((json_int_t)++ev->seq));
	json_object_set_new(line, "time", now_text());
	json_object_set_new(line, "type", json_string(type));
	if (fields)
		json_object_update(line, fields);
	json_decref(fields);
	cleanup_free char *text = json_dumps(line, JSON_COMPACT);
	json_decref(line);
	if (!text)
		return; /* a name that is no UTF-8: nothing that a reader of JSON could be told */
	buffer_adds(&ev->text, text);
	buffer_addc(&ev->text, '\n');
	drop_old(ev);
}

size_t events_read(const struct events *ev, uint64_t offset, char *buf, size_t size)
{
	uint64_t at = offset < ev->dropped ? 0 : offset - ev->dropped;
	if (at >= ev->text.len)
		return 0;
	size_t n = ev->text.len - (size_t)at;
	if (n > size)
		n = size;
	memcpy(buf, ev->text.data + at, n);
	return n;
}

uint64_t events_size(const struct events *ev)
{
	return ev->dropped + ev->text.len;
}

uint64_t events_start(const struct events *ev)
{
	return ev->dropped;
}

static bool same_failure(json_t *a, json_t *b)
{
	return json_equal(json_object_get(a, "code"), json_object_get(b, "code")) &&
	       json_equal(json_object_get(a, "message"), json_object_get(b, "message"));
}

void events_fail(struct events *ev, const struct error *err)
{
	json_t *failure = json_object(), *old;
	json_int_t times = 1;
	size_t i;
	json_object_set_new(failure, "time", now_text());
	json_t *rest = error_to_json(err);
	json_object_update(failure, rest);
	json_decref(rest);
	json_array_foreach(ev->failures, i, old) if (same_failure(old, failure))
	{
		times += json_is_integer(json_object_get(old, "times")) ? json_integer_value(json_object_get(old, "times")) : 1;
		json_array_remove(ev->failures, i);
		break;
	}
	if (times > 1)
		json_object_set_new(failure, "times", json_integer(times));
	json_array_append_new(ev->failures, failure);
	while (json_array_size(ev->failures) > ev->max_errors)
		json_array_remove(ev->failures, 0);
}

size_t events_failures(const struct events *ev)
{
	return json_array_size(ev->failures);
}

void events_failures_text(const struct events *ev, struct buffer *out)
{
	cleanup_free char *text = json_dumps(ev->failures, JSON_INDENT(2));
	buffer_adds(out, text ? text : "[]");
	buffer_addc(out, '\n');
}

void events_failures_clear(struct events *ev)
{
	json_array_clear(ev->failures);
}
