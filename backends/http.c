#include "backends/http_private.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/backend.h"
#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"

#define CONNECTIONS_KEPT 16 /* beside those of streams: as many services are begun at once */
#define UPLOAD_BUFFER (256u << 10)

struct http {
	uv_loop_t *loop;
	CURLM *multi; /* NULL for http_wait */
	uv_timer_t timer;
	struct http_call *calls;
	unsigned streams; /* among them */
	char *name, *socket_path, *url, *ca, *cert, *key;
	bool closing;
	void (*closed)(void *arg);
	void *closed_arg;
};

/* One descriptor that libcurl watches. */
struct watch {
	struct http *h;
	uv_poll_t poll;
	curl_socket_t fd;
};

struct http_call {
	struct http *h;
	struct http_call *next;
	CURL *easy;
	struct curl_slist *headers;
	struct buffer body;
	char *upload;
	int upload_fd; /* -1: none */
	off_t uploaded;
	http_data *data;
	http_done *done;
	void *arg;
	bool canceled, deferred, too_large, began; /* began: curl has it */
	char reason[CURL_ERROR_SIZE];
};

/* ---- calls ---- */

static void call_free(struct http_call *c)
{
	curl_easy_cleanup(c->easy);
	curl_slist_free_all(c->headers);
	buffer_release(&c->body);
	free(c->upload);
	if (c->upload_fd >= 0)
		close(c->upload_fd);
	free(c);
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
	struct http_call *c = arg;
	long status = 0;
	n *= size;
	if (c->canceled)
		return 0;
	curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
	if (c->data && status < 300) { /* an error's body is its text, for everybody */
		bool more = c->data(c->arg, (int)status, data, n);
		c->canceled |= !more;
		return c->canceled ? 0 : n;
	}
	c->too_large = c->body.len + n > HTTP_BODY_MAX;
	if (c->too_large)
		return 0;
	buffer_add(&c->body, data, n);
	return n;
}

static struct http_params params_of(const struct http *h)
{
	return (struct http_params){.name = h->name, .socket_path = h->socket_path, .url = h->url, .ca = h->ca, .cert = h->cert, .key = h->key};
}

static void explain(const struct http_call *c, CURLcode code, struct error *err)
{
	const struct http_params params = params_of(c->h);
	if (c->canceled)
		error_set(err, ERROR_CANCELED, "%s: the request was given up", c->h->name);
	else if (c->too_large)
		error_set_errno(err, ERROR_BACKEND_UNREACHABLE, EMSGSIZE, "%s at %s: an answer of more than %u MiB", c->h->name,
		                c->h->socket_path ? c->h->socket_path : c->h->url, HTTP_BODY_MAX >> 20);
	else
		http_explain(&params, c->easy, code, c->reason, err);
}

static void tell(struct http_call *c, CURLcode code, struct error *err)
{
	long status = 0;
	curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
	if (code == CURLE_OK && !c->canceled && status) {
		const struct http_response res = {(int)status, buffer_str(&c->body), c->body.len};
		c->done(c->arg, NULL, &res);
		return;
	}
	explain(c, code, err);
	c->done(c->arg, err, NULL);
}

static void unlink_call(struct http_call *c)
{
	for (struct http_call **at = &c->h->calls; *at; at = &(*at)->next)
		if (*at == c) {
			*at = c->next;
			break;
		}
}

static void close_when_empty(struct http *h);

/* curl counts what is in use, too: with a few logs followed it would close every other connection after each call. */
static void count_streams(struct http *h, int more)
{
	h->streams += (unsigned)more;
	curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, (long)(CONNECTIONS_KEPT + h->streams));
}

static void finish(struct http_call *c, CURLcode code)
{
	cleanup_error struct error err = ERROR_INIT;
	struct http *h = c->h;
	unlink_call(c);
	if (c->data)
		count_streams(h, -1);
	if (c->began)
		curl_multi_remove_handle(h->multi, c->easy);
	tell(c, code, &err);
	call_free(c);
	close_when_empty(h);
}

/* ---- libcurl's events ---- */

static void hear_results(struct http *h)
{
	int left;
	for (CURLMsg *m; (m = curl_multi_info_read(h->multi, &left));) {
		struct http_call *c = NULL;
		CURLcode code = m->data.result; /* gone with the handle */
		if (m->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&c);
		if (!c->deferred)
			finish(c, code);
		if (!h->multi)
			return;
	}
}

static void act(struct http *h, curl_socket_t fd, int events)
{
	int running;
	curl_multi_socket_action(h->multi, fd, events, &running);
	hear_results(h);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct watch *w = poll->data;
	int what = status < 0 ? CURL_CSELECT_ERR : 0;
	what |= events & UV_READABLE ? CURL_CSELECT_IN : 0;
	what |= events & UV_WRITABLE ? CURL_CSELECT_OUT : 0;
	act(w->h, w->fd, what);
}

static void on_watch_closed(uv_handle_t *handle)
{
	struct watch *w = handle->data;
	free(w);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	struct http *h = arg;
	struct watch *w = socket_arg;
	if (what == CURL_POLL_REMOVE) {
		if (w)
			uv_close((uv_handle_t *)&w->poll, on_watch_closed);
		curl_multi_assign(h->multi, fd, NULL);
		return 0;
	}
	if (!w) {
		w = xcalloc(1, sizeof *w);
		w->h = h;
		w->fd = fd;
		w->poll.data = w;
		if (uv_poll_init_socket(h->loop, &w->poll, fd)) {
			free(w);
			return -1;
		}
		curl_multi_assign(h->multi, fd, w);
	}
	uv_poll_start(&w->poll, (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0), on_poll);
	return 0;
}

static void on_timeout(uv_timer_t *timer)
{
	act(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

static int on_timer(CURLM *multi, long timeout_ms, void *arg)
{
	struct http *h = arg;
	if (timeout_ms < 0)
		uv_timer_stop(&h->timer);
	else
		uv_timer_start(&h->timer, on_timeout, (uint64_t)timeout_ms, 0);
	return 0;
}

/* ---- requests ---- */

static size_t on_upload(char *data, size_t size, size_t n, void *arg)
{
	struct http_call *c = arg;
	ssize_t got = pread(c->upload_fd, data, size * n, c->uploaded);
	if (got < 0)
		return CURL_READFUNC_ABORT;
	c->uploaded += got;
	return (size_t)got;
}

/* Once more from there, on another connection. */
static int on_upload_seek(void *arg, curl_off_t offset, int origin)
{
	struct http_call *c = arg;
	if (origin != SEEK_SET)
		return CURL_SEEKFUNC_CANTSEEK;
	c->uploaded = (off_t)offset;
	return CURL_SEEKFUNC_OK;
}

static void set_file(struct http_call *c, const struct http_request *request)
{
	c->upload_fd = fcntl(request->body_fd, F_DUPFD_CLOEXEC, 3);
	curl_easy_setopt(c->easy, CURLOPT_READFUNCTION, on_upload);
	curl_easy_setopt(c->easy, CURLOPT_READDATA, c);
	curl_easy_setopt(c->easy, CURLOPT_SEEKFUNCTION, on_upload_seek);
	curl_easy_setopt(c->easy, CURLOPT_SEEKDATA, c);
	curl_easy_setopt(c->easy, CURLOPT_UPLOAD_BUFFERSIZE, (long)UPLOAD_BUFFER);
}

static void set_body(struct http_call *c, const struct http_request *request)
{
	cleanup_free char *type = xasprintf("Content-Type: %s", request->body_type ? request->body_type : "application/json");
	c->headers = curl_slist_append(c->headers, type);
	c->headers = curl_slist_append(c->headers, "Expect:"); /* no 100-continue: one round trip less */
	curl_easy_setopt(c->easy, CURLOPT_POST, 1L);
	curl_easy_setopt(c->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_len);
	if (request->body_fd > 0) {
		set_file(c, request);
		return;
	}
	c->upload = xcalloc(1, request->body_len + 1);
	memcpy(c->upload, request->body, request->body_len);
	curl_easy_setopt(c->easy, CURLOPT_POSTFIELDS, c->upload);
}

static void set_method(struct http_call *c, const struct http_request *request)
{
	if (request->body || request->body_fd > 0)
		set_body(c, request);
	if (!request->method)
		return;
	if (!strcmp(request->method, "HEAD")) {
		curl_easy_setopt(c->easy, CURLOPT_NOBODY, 1L);
	} else if (!strcmp(request->method, "POST") && !request->body && request->body_fd <= 0) {
		curl_easy_setopt(c->easy, CURLOPT_POSTFIELDSIZE, 0L);
		curl_easy_setopt(c->easy, CURLOPT_COPYPOSTFIELDS, "");
	} else {
		curl_easy_setopt(c->easy, CURLOPT_CUSTOMREQUEST, request->method);
	}
}

static struct http_call *call_new(struct http *h, const struct http_request *request)
{
	struct http_call *c = xcalloc(1, sizeof *c);
	c->h = h;
	c->easy = curl_easy_init();
	if (!c->easy)
		abort(); /* out of memory */
	c->body = (struct buffer)BUFFER_INIT;
	c->upload_fd = -1;
	c->data = request->data;
	c->done = request->done;
	c->arg = request->arg;
	const struct http_params params = params_of(h);
	http_set_endpoint(c->easy, &params, request->path);
	set_method(c, request);
	for (char *const *header = request->headers; header && *header; header++)
		c->headers = curl_slist_append(c->headers, *header);
	curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, c->headers);
	curl_easy_setopt(c->easy, CURLOPT_PRIVATE, c);
	curl_easy_setopt(c->easy, CURLOPT_ERRORBUFFER, c->reason);
	curl_easy_setopt(c->easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(c->easy, CURLOPT_WRITEDATA, c);
	curl_easy_setopt(c->easy, CURLOPT_TIMEOUT_MS, (long)request->timeout_ms);
	curl_easy_setopt(c->easy, CURLOPT_FRESH_CONNECT, request->fresh ? 1L : 0L);
	if (request->silence_s) {
		curl_easy_setopt(c->easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
		curl_easy_setopt(c->easy, CURLOPT_LOW_SPEED_TIME, (long)request->silence_s);
	}
	return c;
}

static void finish_deferred(void *arg)
{
	finish(arg, CURLE_ABORTED_BY_CALLBACK);
}

/* libcurl's handles must not be taken away from within its callbacks. */
static void defer_finish(struct http_call *c)
{
	c->canceled = true;
	if (!c->deferred)
		backend_defer(c->h->loop, finish_deferred, c);
	c->deferred = true;
}

struct http_call *http_start(struct http *h, const struct http_request *request)
{
	struct http_call *c = call_new(h, request);
	c->next = h->calls;
	h->calls = c;
	if (c->data)
		count_streams(h, 1);
	if (h->closing || curl_multi_add_handle(h->multi, c->easy) != CURLM_OK)
		defer_finish(c);
	else
		c->began = true;
	return c;
}

void http_cancel(struct http_call *c)
{
	if (c)
		defer_finish(c);
}

/* ---- life ---- */

static void http_free(struct http *h)
{
	free(h->name);
	free(h->socket_path);
	free(h->url);
	free(h->ca);
	free(h->cert);
	free(h->key);
	free(h);
}

static void set_params(struct http *h, const struct http_params *params)
{
	h->loop = params->loop;
	h->name = xstrdup(params->name);
	h->socket_path = xstrdup(params->socket_path);
	h->url = xstrdup(params->url ? params->url : "http://localhost");
	h->ca = xstrdup(params->ca);
	h->cert = xstrdup(params->cert);
	h->key = xstrdup(params->key);
}

int http_new(const struct http_params *params, struct http **ret, struct error *err)
{
	int r = http_curl_load(err);
	if (r < 0)
		return r;
	struct http *h = xcalloc(1, sizeof *h);
	set_params(h, params);
	h->multi = curl_multi_init();
	if (!h->multi)
		abort(); /* out of memory */
	curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
	curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, on_timer);
	curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
	count_streams(h, 0);
	uv_timer_init(h->loop, &h->timer);
	h->timer.data = h;
	*ret = h;
	return 0;
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct http *h = handle->data;
	if (h->closed)
		h->closed(h->closed_arg);
	http_free(h);
}

static void close_when_empty(struct http *h)
{
	if (!h->closing || h->calls || !h->multi)
		return;
	curl_multi_cleanup(move_ptr(h->multi)); /* closes what is kept, which tells on_socket */
	uv_close((uv_handle_t *)&h->timer, on_timer_closed);
}

static void close_later(void *arg)
{
	close_when_empty(arg);
}

void http_close(struct http *h, void (*closed)(void *arg), void *arg)
{
	h->closing = true;
	h->closed = closed;
	h->closed_arg = arg;
	for (struct http_call *c = h->calls; c; c = c->next)
		defer_finish(c);
	backend_defer(h->loop, close_later, h);
}

int http_wait(const struct http_params *params, const struct http_request *request, struct error *err)
{
	struct http h = {.loop = NULL};
	cleanup_error struct error failed = ERROR_INIT;
	int r = http_curl_load(err);
	if (r < 0)
		return r;
	set_params(&h, params);
	struct http_call *c = call_new(&h, request);
	tell(c, curl_easy_perform(c->easy), &failed);
	r = -failed.err;
	call_free(c);
	free(h.name);
	free(h.socket_path);
	free(h.url);
	free(h.ca);
	free(h.cert);
	free(h.key);
	if (r && err)
		error_move(err, &failed);
	return r;
}
