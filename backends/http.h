/* An HTTP client for one server, on the loop: libcurl's multi interface driven by libuv
 * (https://curl.se/libcurl/c/libcurl-multi.html).
 *
 * Thread: the loop's. Nothing blocks; `done` is called exactly once a call, never from within the call itself, and with
 * ECANCELED after http_cancel or http_close. Connections are kept and used again.
 * Errors: whatever keeps an answer from coming is BACKEND_UNREACHABLE; an answer, whatever its status, is success.
 * Bounds: a body that is collected is at most HTTP_BODY_MAX bytes; more is an error of the server's (EMSGSIZE).
 */
#ifndef BACKENDS_HTTP_H
#define BACKENDS_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "base/error.h"

#define HTTP_BODY_MAX (16u << 20)

struct http;
struct http_call;

struct http_params {
	uv_loop_t *loop;
	const char *name;        /* of the server, as messages call it; copied, as all strings here */
	const char *socket_path; /* absolute, a Unix socket; NULL: by url */
	const char *url;         /* "http://host:port", "https://..."; with a socket only its host is used. NULL: http://localhost */
	const char *ca, *cert, *key; /* PEM files for https; NULL: the system's, none */
};

struct http_response {
	int status;
	const char *body; /* borrowed, NUL-terminated; "" when it was streamed */
	size_t len;
};

/* res is NULL exactly when err is not. Both are borrowed. */
typedef void http_done(void *arg, const struct error *err, const struct http_response *res);
/* A piece of the body, as it comes. false: enough, the call ends with ECANCELED. */
typedef bool http_data(void *arg, int status, const char *data, size_t len);

/* Copied, the body too. */
struct http_request {
	const char *method;  /* NULL: GET, or POST with a body */
	const char *path;    /* "/v1.41/containers/json?all=1": escaped by the caller */
	char *const *headers; /* "Name: value"; NULL: none */
	const char *body;
	size_t body_len;
	const char *body_type;   /* NULL: application/json */
	int body_fd;             /* more than 0: the body is body_len bytes of this file, from its begin; duplicated */
	unsigned timeout_ms;     /* for the whole call; 0: none */
	bool fresh;              /* by a connection of its own, as who comes now gets it */
	unsigned silence_s;      /* end it after so many seconds in which nothing came or went; 0: never */
	http_data *data;         /* NULL: the body is collected */
	http_done *done;
	void *arg;
};

int http_new(const struct http_params *params, struct http **ret, struct error *err);
/* Calls end with ECANCELED, then `closed` is called. */
void http_close(struct http *h, void (*closed)(void *arg), void *arg);
/* borrowed: valid until its `done` has been called */
struct http_call *http_start(struct http *h, const struct http_request *request);
void http_cancel(struct http_call *call);

/* The same for callers without a loop (a command, a worker): waits, at most `request->timeout_ms`. `done` is called before it
 * returns. Returns what `done` got. */
int http_wait(const struct http_params *params, const struct http_request *request, struct error *err);

#endif
