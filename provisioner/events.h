/* What happened, as newline-delimited JSON, and the last failures. Bounded memory: older lines are dropped whole. Loop
 * thread.
 *
 * A line: {"seq":7,"time":"2026-01-31T12:00:00.123Z","type":"service","service":"db","state":"ready",...}. `seq` grows
 * by one and never repeats within one server; a reader that finds a gap has missed what was dropped.
 */
#ifndef PROVISIONER_EVENTS_H
#define PROVISIONER_EVENTS_H

#include <jansson.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"

struct events;

/* `max_bytes` of lines and `max_errors` failures are kept. */
struct events *events_new(size_t max_bytes, size_t max_errors);
void events_free(struct events *ev);

/* `fields` (NULL: none) is an object whose members are added; steals it. */
void events_add(struct events *ev, const char *type, json_t *fields);
/* Bytes [offset, ...) of everything ever appended; 0 at the end. Below what is kept it begins at the oldest line. */
size_t events_read(const struct events *ev, uint64_t offset, char *buf, size_t size);
uint64_t events_size(const struct events *ev);
uint64_t events_start(const struct events *ev); /* offset of the oldest line kept */

/* A failure for errors.json: {"time","code","message","hint"?,"details"?}, newest last. The same failure again moves to
 * the end and counts. */
void events_fail(struct events *ev, const struct error *err);
size_t events_failures(const struct events *ev);
void events_failures_text(const struct events *ev, struct buffer *out);
void events_failures_clear(struct events *ev);

#endif
