/* A connection that an HTTP server hands over: "Upgrade: tcp", answered 101 (or, by older engines, 200 with a raw stream), and from then on
 * bytes in both directions (https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerAttach, "Hijacking").
 *
 * Without a loop: for one thread that waits by poll(2). Making it blocks; after that nothing does. */
#ifndef BACKENDS_HTTP_UPGRADE_H
#define BACKENDS_HTTP_UPGRADE_H

#include <sys/types.h>

#include "backends/http.h"

struct http_stream;

/* Sends `request` and waits for the head of the answer, at most request->timeout_ms. 1: *ret is the connection, `done` was not called;
 * 0: another answer, which `done` got before this returns; else a negative errno and `err`. */
int http_upgrade(const struct http_params *params, const struct http_request *request, struct http_stream **ret, struct error *err);

int http_stream_fd(const struct http_stream *s);
/* Bytes may be there already though the descriptor is not readable: what came with the answer's head, or in TLS's record. */
bool http_stream_has(const struct http_stream *s);
/* How many; 0: the end; -EAGAIN, or another negative errno. */
ssize_t http_stream_read(struct http_stream *s, void *buf, size_t size);
ssize_t http_stream_write(struct http_stream *s, const void *buf, size_t size);
/* Nothing more will be written, and the other side hears of it. -EOPNOTSUPP over TLS, where libcurl has no way to say so. */
int http_stream_end(struct http_stream *s);
void http_stream_free(struct http_stream *s); /* NULL is allowed */

#endif
