#include "backends/http_upgrade.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "backends/http_private.h"
#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"

#define HEAD_MAX 16384
#define ANSWER_MAX (64u << 10) /* of what is no upgrade: a message */
#define ANSWER_SILENCE_MS 1000

struct http_stream {
	CURL *easy;
	curl_socket_t fd;
	bool tls;
	struct buffer early; /* came with the head */
	size_t early_taken;
	char reason[CURL_ERROR_SIZE];
};

/* ---- the connection ---- */

int http_stream_fd(const struct http_stream *s)
{
	return s->fd;
}

bool http_stream_has(const struct http_stream *s)
{
	return s->early_taken < s->early.len;
}

static int errno_of(CURLcode code)
{
	return code == CURLE_OK ? 0 : code == CURLE_AGAIN ? -EAGAIN : code == CURLE_SEND_ERROR ? -EPIPE : -ECONNRESET;
}

ssize_t http_stream_read(struct http_stream *s, void *buf, size_t size)
{
	size_t n = s->early.len - s->early_taken;
	if (n) {
		n = n < size ? n : size;
		memcpy(buf, s->early.data + s->early_taken, n);
		s->early_taken += n;
		return (ssize_t)n;
	}
	CURLcode code = curl_easy_recv(s->easy, buf, size, &n);
	return code == CURLE_OK ? (ssize_t)n : errno_of(code);
}

ssize_t http_stream_write(struct http_stream *s, const void *buf, size_t size)
{
	size_t n = 0;
	CURLcode code = curl_easy_send(s->easy, buf, size, &n);
	return code == CURLE_OK ? (ssize_t)n : errno_of(code);
}

int http_stream_end(struct http_stream *s)
{
	if (s->tls)
		return -EOPNOTSUPP;
	return shutdown(s->fd, SHUT_WR) && errno != ENOTCONN ? -errno : 0;
}

void http_stream_free(struct http_stream *s)
{
	if (!s)
		return;
	curl_easy_cleanup(s->easy);
	buffer_release(&s->early);
	free(s);
}

static void stream_freep(struct http_stream **s)
{
	http_stream_free(*s);
}

static int connect_to(const struct http_params *params, const char *path, struct http_stream *s, struct error *err)
{
	http_set_endpoint(s->easy, params, path);
	curl_easy_setopt(s->easy, CURLOPT_ERRORBUFFER, s->reason);
	curl_easy_setopt(s->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(s->easy, CURLOPT_CONNECT_ONLY, 1L);
	CURLcode code = curl_easy_perform(s->easy);
	if (code == CURLE_OK)
		code = curl_easy_getinfo(s->easy, CURLINFO_ACTIVESOCKET, &s->fd);
	s->tls = params->url && !strncmp(params->url, "https:", 6);
	return code == CURLE_OK ? 0 : http_explain(params, s->easy, code, s->reason, err);
}

/* ---- the question ---- */

static void write_head(const struct http_params *params, const struct http_request *request, struct buffer *out)
{
	const char *host = params->url ? strstr(params->url, "//") : NULL;
	buffer_printf(out, "%s %s HTTP/1.1\r\nHost: %s\r\n", request->method ? request->method : "POST", request->path, host ? host + 2 : "localhost");
	buffer_adds(out, "Connection: Upgrade\r\nUpgrade: tcp\r\n");
	for (char *const *header = request->headers; header && *header; header++)
		buffer_printf(out, "%s\r\n", *header);
	buffer_printf(out, "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n", request->body_len);
	if (request->body_len)
		buffer_add(out, request->body, request->body_len);
}

/* Waits; 0, or -ETIMEDOUT. */
static int wait_for(struct http_stream *s, short events, uint64_t until_ms)
{
	for (;;) {
		struct pollfd p = {s->fd, events, 0};
		uint64_t now = now_monotonic_ms();
		int n = poll(&p, 1, until_ms > now ? (int)(until_ms - now) : 0);
		if (n > 0)
			return 0;
		if (n == 0 || errno != EINTR)
			return n ? -errno : -ETIMEDOUT;
	}
}

static int send_all(struct http_stream *s, const struct buffer *text, uint64_t until_ms)
{
	for (size_t at = 0; at < text->len;) {
		ssize_t n = http_stream_write(s, text->data + at, text->len - at);
		if (n < 0 && n != -EAGAIN)
			return (int)n;
		if (n > 0)
			at += (size_t)n;
		int r = n < 0 ? wait_for(s, POLLOUT, until_ms) : 0;
		if (r)
			return r;
	}
	return 0;
}

/* ---- the answer ---- */

/* One read's worth more; 0: the end. */
static ssize_t receive(struct http_stream *s, struct buffer *text, uint64_t until_ms)
{
	char chunk[4096];
	for (;;) {
		ssize_t n = http_stream_read(s, chunk, sizeof chunk);
		if (n > 0)
			buffer_add(text, chunk, (size_t)n);
		if (n != -EAGAIN)
			return n;
		int r = wait_for(s, POLLIN, until_ms);
		if (r)
			return r;
	}
}

/* Returns the head's length, with the empty line. */
static ssize_t receive_head(struct http_stream *s, struct buffer *text, uint64_t until_ms)
{
	for (;;) {
		const char *end = text->len ? memmem(text->data, text->len, "\r\n\r\n", 4) : NULL;
		if (end)
			return end + 4 - text->data;
		ssize_t n = text->len > HEAD_MAX ? -EMSGSIZE : receive(s, text, until_ms);
		if (n <= 0)
			return n ? n : -ECONNRESET;
	}
}

/* borrowed, up to the line's end; NULL: no such header */
static const char *header_of(const char *head, const char *name)
{
	const char *at = strcasestr(head, name);
	return at && at > head && at[-1] == '\n' ? at + strlen(name) : NULL;
}

static bool is_raw(const char *head)
{
	const char *type = header_of(head, "Content-Type:");
	size_t len = type ? strcspn(type, "\r") : 0;
	return type && (memmem(type, len, "raw-stream", 10) || memmem(type, len, "multiplexed-stream", 18));
}

/* As much of a message as comes. */
static void receive_rest(struct http_stream *s, const char *head, struct buffer *body)
{
	const char *length = header_of(head, "Content-Length:");
	size_t wanted = length ? strtoul(length, NULL, 10) : ANSWER_MAX;
	while (body->len < wanted && body->len < ANSWER_MAX && receive(s, body, now_monotonic_ms() + ANSWER_SILENCE_MS) > 0)
		;
}

static int take_answer(struct http_stream *s, struct buffer *text, const struct http_request *request, uint64_t until_ms)
{
	ssize_t len = receive_head(s, text, until_ms);
	if (len < 0)
		return (int)len;
	cleanup_free char *head = xstrndup(text->data, (size_t)len);
	cleanup_buffer struct buffer body = BUFFER_INIT;
	int status = 0;
	if (sscanf(head, "HTTP/1.%*d %d", &status) != 1)
		return -EPROTO;
	buffer_add(&body, text->data + len, text->len - (size_t)len);
	if (status == 101 || (status == 200 && is_raw(head))) {
		s->early = body;
		body = (struct buffer)BUFFER_INIT;
		return 1;
	}
	receive_rest(s, head, &body);
	const struct http_response res = {status, buffer_str(&body), body.len};
	request->done(request->arg, NULL, &res);
	return 0;
}

int http_upgrade(const struct http_params *params, const struct http_request *request, struct http_stream **ret, struct error *err)
{
	int r = http_curl_load(err);
	if (r < 0)
		return r;
	CLEANUP(stream_freep) struct http_stream *s = xcalloc(1, sizeof *s);
	cleanup_buffer struct buffer question = BUFFER_INIT, answer = BUFFER_INIT;
	uint64_t until_ms = now_monotonic_ms() + request->timeout_ms;
	s->easy = curl_easy_init();
	if (!s->easy)
		abort(); /* out of memory */
	r = connect_to(params, request->path, s, err);
	if (r)
		return r;
	write_head(params, request, &question);
	r = send_all(s, &question, until_ms);
	if (!r)
		r = take_answer(s, &answer, request, until_ms);
	if (r < 0)
		return error_set_errno(err, ERROR_BACKEND_UNREACHABLE, -r, "%s at %s", params->name, params->socket_path ? params->socket_path : params->url);
	if (r)
		*ret = move_ptr(s);
	return r;
}
