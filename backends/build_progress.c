/* The answer to a build: a JSON object a line. The classic builder and Podman tell their output in "stream"; BuildKit in "aux", as base64 of its
 * own control.StatusResponse (https://github.com/moby/buildkit/blob/master/api/services/control/control.proto). */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/build.h"
#include "base/alloc.h"
#include "base/base64.h"
#include "base/cleanup.h"
#include "base/file.h"

#define LINE_MAX_BYTES (4u << 20)
#define TEXT_MAX_BYTES 4096 /* of a line of output */
#define VERTICES_MAX 2000

/* ---- steps ---- */

static void set_step(struct build_progress *p, unsigned step, unsigned steps, const char *what)
{
	p->step = step;
	p->steps = steps;
	free(p->what);
	p->what = xstrdup(what);
}

/* "Step 2/5 : RUN x", "STEP 2/5: RUN x", "[1/2] STEP 2/5: RUN x", "[2/5] RUN x", "[build 2/5] RUN x" */
static void look_for_step(struct build_progress *p, const char *line, bool vertex)
{
	const char *at = line;
	unsigned step, steps;
	int end = 0;
	if (vertex && *at == '[') {
		const char *close = strchr(at, ']'), *number = close;
		while (number && number > at + 1 && (isdigit((unsigned char)number[-1]) || number[-1] == '/'))
			number--;
		if (close && sscanf(number, "%u/%u", &step, &steps) == 2)
			set_step(p, step, steps, close + 1 + strspn(close + 1, " "));
		return;
	}
	if (*at == '[')
		at += strcspn(at, " ") + strspn(at + strcspn(at, " "), " ");
	if (strncasecmp(at, "step ", 5) || sscanf(at + 5, "%u/%u%n", &step, &steps, &end) != 2)
		return;
	at += 5 + end;
	set_step(p, step, steps, at + strspn(at, " :"));
}

/* ---- output ---- */

/* JSON wants UTF-8, a terminal nothing that moves its cursor. */
static char *printable(const char *text, size_t len)
{
	struct buffer out = BUFFER_INIT;
	for (const char *end = text + len; text < end; text++) {
		if (*text == '\x1b' && text + 1 < end && text[1] == '[') {
			for (text += 2; text < end && !isalpha((unsigned char)*text); text++)
				;
			continue;
		}
		if ((unsigned char)*text >= ' ' && *text != 0x7f)
			buffer_addc(&out, *text);
		else if (*text == '\t')
			buffer_addc(&out, ' ');
	}
	json_t *valid = json_stringn(buffer_str(&out), out.len);
	for (size_t i = 0; !valid && i < out.len; i++)
		if ((unsigned char)out.data[i] >= 0x80)
			out.data[i] = '?';
	json_decref(valid);
	return buffer_detach(&out);
}

/* What the classic builder says of itself. */
static bool is_noise(const char *line)
{
	static const char *const beginnings[] = {" ---> ", "Removing intermediate container ", "Removing image "};
	for (size_t i = 0; i < sizeof beginnings / sizeof *beginnings; i++)
		if (!strncmp(line, beginnings[i], strlen(beginnings[i])))
			return true;
	return false;
}

static void take_line(struct build_progress *p, const char *text, size_t len)
{
	const char *last = memrchr(text, '\r', len && text[len - 1] == '\r' ? len - 1 : len);
	size_t skipped = last ? (size_t)(last + 1 - text) : 0; /* a bar that is drawn over itself */
	char *line = printable(text + skipped, len - skipped < TEXT_MAX_BYTES ? len - skipped : TEXT_MAX_BYTES);
	if (p->log_fd >= 0) {
		cleanup_free char *logged = xasprintf("%s\n", line);
		if (write_all(p->log_fd, logged, strlen(logged)))
			p->log_fd = -1; /* a full disk is no reason to end it; the owner closes it */
	}
	if (!*line || is_noise(line)) {
		free(line);
		return;
	}
	look_for_step(p, line, false);
	char **slot = &p->lines[p->n_lines++ % BUILD_LINES_MAX];
	free(*slot);
	*slot = line;
}

static void take_text(struct build_progress *p, const char *text, size_t len)
{
	for (const char *end; len && (end = memchr(text, '\n', len)); len -= (size_t)(end + 1 - text), text = end + 1) {
		buffer_add(&p->text, text, (size_t)(end - text));
		take_line(p, buffer_str(&p->text), p->text.len);
		buffer_clear(&p->text);
	}
	if (p->text.len < LINE_MAX_BYTES)
		buffer_add(&p->text, text, len);
}

/* ---- BuildKit: protobuf's wire format (https://protobuf.dev/programming-guides/encoding/) ---- */

struct message {
	const unsigned char *at, *end;
};

static bool varint(struct message *m, uint64_t *ret)
{
	*ret = 0;
	for (unsigned shift = 0; m->at < m->end && shift < 64; shift += 7) {
		*ret |= (uint64_t)(*m->at & 0x7f) << shift;
		if (!(*m->at++ & 0x80))
			return true;
	}
	return false;
}

/* false: there is no more. `bytes` is set of a field that has a length. */
static bool next_field(struct message *m, unsigned *number, struct message *bytes)
{
	uint64_t tag, n;
	*bytes = (struct message){NULL, NULL};
	if (!varint(m, &tag))
		return false;
	*number = (unsigned)(tag >> 3);
	switch (tag & 7) {
	case 0:
		return varint(m, &n);
	case 1:
		n = 8;
		break;
	case 2:
		if (!varint(m, &n))
			return false;
		break;
	case 5:
		n = 4;
		break;
	default:
		return false;
	}
	if (n > (uint64_t)(m->end - m->at))
		return false;
	*bytes = (struct message){m->at, m->at + n};
	m->at += n;
	return true;
}

static char *text_of(struct message bytes)
{
	return bytes.at ? xstrndup((const char *)bytes.at, (size_t)(bytes.end - bytes.at)) : NULL;
}

static bool first_time(struct build_progress *p, const char *digest)
{
	if (strv_contains(p->vertices, digest) || strv_len(p->vertices) >= VERTICES_MAX)
		return false;
	strv_push(&p->vertices, xstrdup(digest));
	return true;
}

/* digest = 1, name = 3, cached = 4, started = 5, completed = 6, error = 7 */
static void take_vertex(struct build_progress *p, struct message m)
{
	cleanup_free char *digest = NULL, *name = NULL;
	bool started = false;
	unsigned number;
	for (struct message bytes; next_field(&m, &number, &bytes);) {
		if (number == 1 && !digest)
			digest = text_of(bytes);
		else if (number == 3 && !name)
			name = text_of(bytes);
		started |= number == 5;
	}
	if (!digest || !name || !started || !first_time(p, digest))
		return;
	look_for_step(p, name, true);
	take_text(p, name, strlen(name));
	take_text(p, "\n", 1);
}

/* msg = 4 */
static void take_log(struct build_progress *p, struct message m)
{
	unsigned number;
	for (struct message bytes; next_field(&m, &number, &bytes);)
		if (number == 4 && bytes.at)
			take_text(p, (const char *)bytes.at, (size_t)(bytes.end - bytes.at));
}

static void take_trace(struct build_progress *p, const char *aux)
{
	cleanup_buffer struct buffer raw = BUFFER_INIT;
	base64_decode(aux, &raw);
	struct message m = {(const unsigned char *)buffer_str(&raw), (const unsigned char *)buffer_str(&raw) + raw.len};
	unsigned number;
	for (struct message bytes; next_field(&m, &number, &bytes);) {
		if (number == 1 && bytes.at)
			take_vertex(p, bytes);
		else if (number == 3 && bytes.at)
			take_log(p, bytes);
	}
}

/* ---- the stream ---- */

static void take_object(struct build_progress *p, const char *line)
{
	json_t *json = json_loads(line, 0, NULL);
	const char *stream = json_string_value(json_object_get(json, "stream")), *id = json_string_value(json_object_get(json, "id"));
	const char *aux = json_string_value(json_object_get(json, "aux")), *status = json_string_value(json_object_get(json, "status"));
	const char *failed = json_string_value(json_object_get(json_object_get(json, "errorDetail"), "message"));
	if (!failed)
		failed = json_string_value(json_object_get(json, "error"));
	if (stream)
		take_text(p, stream, strlen(stream));
	if (aux && id && !strcmp(id, "moby.buildkit.trace"))
		take_trace(p, aux);
	if (status && !json_object_get(json, "progressDetail")) {
		take_text(p, status, strlen(status));
		take_text(p, "\n", 1);
	}
	if (failed && !error_is_set(&p->failed)) {
		cleanup_free char *text = printable(failed, strcspn(failed, "\n"));
		error_set(&p->failed, ERROR_BUILD_FAILED, "%s", text);
	}
	json_decref(json);
}

bool build_progress_feed(struct build_progress *p, const char *data, size_t len)
{
	for (const char *end; len && (end = memchr(data, '\n', len)); len -= (size_t)(end + 1 - data), data = end + 1) {
		buffer_add(&p->line, data, (size_t)(end - data));
		take_object(p, buffer_str(&p->line));
		buffer_clear(&p->line);
	}
	buffer_add(&p->line, data, len);
	return p->line.len < LINE_MAX_BYTES;
}

void build_progress_end(struct build_progress *p)
{
	if (p->line.len)
		take_object(p, buffer_str(&p->line));
	if (p->text.len)
		take_text(p, "\n", 1);
	buffer_clear(&p->line);
}

void build_progress_release(struct build_progress *p)
{
	buffer_release(&p->line);
	buffer_release(&p->text);
	for (size_t i = 0; i < BUILD_LINES_MAX; i++)
		free(p->lines[i]);
	free(p->what);
	error_release(&p->failed);
	strv_free(p->vertices);
}
