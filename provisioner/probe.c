#include "provisioner/probe.h"

#include <fcntl.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"

/* One try is one object with handles of its own, so that a try that is given up cannot talk into the next one. */
struct
try {
	struct probe *probe; /* NULL: given up */
	uv_tcp_t tcp;
	uv_connect_t connect;
	uv_write_t write;
	bool open; /* the tcp handle is */
	char *request;
	struct buffer answer;
};

struct probe {
	uv_loop_t *loop;
	struct config_probe what;
	char *host;
	uint16_t port;
	char *log_path;
	uint64_t log_offset;
	struct buffer log_rest; /* a last line without its end */
	regex_t pattern;
	bool has_pattern;
	void (*exec)(void *arg, char *const *argv, unsigned timeout_ms, backend_exec_done *done, void *done_arg);
	void (*ready)(void *arg);
	void (*failed)(void *arg, const char *why);
	void (*exhausted)(void *arg, const char *why, unsigned tries); /* NULL: nobody counts (any more) */
	void *arg;

	uv_timer_t timer; /* to the next try, or the end of the one under way */
	struct try *trying;
	uint64_t began_ms, counts_ms; /* from when on the next failure counts */
	unsigned failures;
	unsigned executing; /* execs in flight: the object outlives them */
	bool timer_closed;
	bool over;
	char *last;
};

struct kind {
	unsigned first_ms, timeout_ms;
	void (*try_once)(struct probe *p);
};

static const struct kind kinds[PROBE_LOG + 1];

static void probe_maybe_free(struct probe *p)
{
	if (!p->timer_closed || p->executing)
		return;
	free(p->host);
	free(p->log_path);
	free(p->what.path);
	free(p->what.pattern);
	free(p->what.send);
	strv_free(p->what.argv);
	strv_free(p->what.expect);
	buffer_release(&p->log_rest);
	if (p->has_pattern)
		regfree(&p->pattern);
	free(p->last);
	free(p);
}

static void on_timer_closed(uv_handle_t *h)
{
	struct probe *p = h->data;
	p->timer_closed = true;
	probe_maybe_free(p);
}

static void on_try_closed(uv_handle_t *h)
{
	struct try *t = h->data;
	buffer_release(&t->answer);
	free(t->request);
	free(t);
}

static void try_end(struct probe *p)
{
	struct try *t = p->trying;
	p->trying = NULL;
	if (!t)
		return;
	t->probe = NULL;
	if (t->open)
		uv_close((uv_handle_t *)&t->tcp, on_try_closed);
}

static void finish(struct probe *p)
{
	if (p->over)
		return;
	p->over = true;
	try_end(p);
	uv_close((uv_handle_t *)&p->timer, on_timer_closed);
}

void probe_cancel(struct probe *p)
{
	if (p)
		finish(p);
}

static void succeeded(struct probe *p)
{
	if (p->over)
		return;
	finish(p);
	p->ready(p->arg);
}

static void on_next(uv_timer_t *timer);

/* A tenth of the time that has passed: that much, and no more, the waiting may add. */
static uint64_t interval(const struct probe *p)
{
	unsigned most = p->what.interval_ms && p->what.interval_ms < PROBE_INTERVAL_MAX_MS ? p->what.interval_ms
	                                                                                   : PROBE_INTERVAL_MAX_MS;
	unsigned least = kinds[p->what.kind].first_ms;
	uint64_t tenth = (now_monotonic_ms() - p->began_ms) / 10;
	return tenth < least ? least : tenth > most ? most : tenth;
}

/* It is tried more often than an engine would. */
static void count_failure(struct probe *p)
{
	uint64_t now = now_monotonic_ms();
	if (!p->exhausted || now < p->counts_ms)
		return;
	p->counts_ms = now + p->what.interval_ms;
	if (++p->failures < p->what.retries)
		return;
	void (*exhausted)(void *arg, const char *why, unsigned tries) = p->exhausted;
	p->exhausted = NULL;
	exhausted(p->arg, p->last, p->failures);
}

static void failed(struct probe *p, const char *why)
{
	if (p->over)
		return;
	if (p->failed) {
		finish(p);
		p->failed(p->arg, why);
		return;
	}
	try_end(p);
	free(p->last);
	p->last = xstrdup(why);
	uv_timer_start(&p->timer, on_next, interval(p), 0);
	count_failure(p);
}

static void on_try_timeout(uv_timer_t *timer)
{
	failed(timer->data, "no answer in time");
}

static void on_next(uv_timer_t *timer)
{
	struct probe *p = timer->data;
	if (p->what.kind == PROBE_TCP || p->what.kind == PROBE_HTTP)
		uv_timer_start(&p->timer, on_try_timeout, p->what.timeout_ms ? p->what.timeout_ms : PROBE_TIMEOUT_MS, 0);
	kinds[p->what.kind].try_once(p);
}

/* ---- tcp and http ---- */

static bool starts_with_any(const struct buffer *answer, char *const *expect, bool *ret_may_yet)
{
	*ret_may_yet = false;
	for (; *expect; expect++) {
		size_t len = strlen(*expect);
		if (answer->len >= len && !memcmp(buffer_str(answer), *expect, len))
			return true;
		if (answer->len < len && !memcmp(buffer_str(answer), *expect, answer->len))
			*ret_may_yet = true;
	}
	return false;
}

static void judge_tcp(struct probe *p, bool at_end)
{
	bool may_yet;
	if (starts_with_any(&p->trying->answer, p->what.expect, &may_yet))
		succeeded(p);
	else if (at_end || !may_yet)
		failed(p, at_end && !p->trying->answer.len ? "the connection was closed without an answer"
		                                           : "an answer that was not expected");
}

static void judge_http(struct probe *p, bool at_end)
{
	int status = 0;
	const char *text = buffer_str(&p->trying->answer);
	if (sscanf(text, "HTTP/%*d.%*d %3d", &status) != 1) {
		if (at_end || p->trying->answer.len > 64)
			failed(p, "the answer is not HTTP");
		return;
	}
	if (status >= 200 && status < 400) {
		succeeded(p);
		return;
	}
	char why[64];
	snprintf(why, sizeof why, "HTTP status %d", status);
	failed(p, why);
}

static bool is_bare(const struct probe *p)
{
	return p->what.kind == PROBE_TCP && !p->what.expect;
}

static void on_lasted(uv_timer_t *timer)
{
	succeeded(timer->data);
}

static void judge(struct probe *p, bool at_end)
{
	if (is_bare(p) && at_end && !p->trying->answer.len)
		failed(p, "the connection was closed at once");
	else if (is_bare(p))
		succeeded(p); /* it even speaks first */
	else if (p->what.kind == PROBE_HTTP)
		judge_http(p, at_end);
	else
		judge_tcp(p, at_end);
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
	static char bytes[PROBE_ANSWER_MAX]; /* the loop thread's alone, and empty again before the next read */
	*buf = uv_buf_init(bytes, sizeof bytes);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct try *t = stream->data;
	if (!t->probe || n == 0)
		return;
	if (n > 0 && t->answer.len < PROBE_ANSWER_MAX)
		buffer_add(&t->answer, buf->base, (size_t)n);
	judge(t->probe, n < 0 || t->answer.len >= PROBE_ANSWER_MAX);
}

static void on_written(uv_write_t *req, int status)
{
	struct try *t = req->data;
	if (t->probe && status < 0)
		failed(t->probe, uv_strerror(status));
}

static void on_connect(uv_connect_t *req, int status)
{
	struct try *t = req->data;
	struct probe *p = t->probe;
	if (!p)
		return;
	if (status < 0) {
		failed(p, uv_strerror(status));
		return;
	}
	if (is_bare(p) && !p->what.linger_ms) {
		succeeded(p);
		return;
	}
	if (is_bare(p))
		uv_timer_start(&p->timer, on_lasted, p->what.linger_ms, 0);
	uv_buf_t out = uv_buf_init(p->what.send, (unsigned)p->what.send_len);
	if (p->what.kind == PROBE_HTTP) {
		t->request = xasprintf("GET %s HTTP/1.0\r\nHost: %s:%u\r\nConnection: close\r\n\r\n",
		                       p->what.path && *p->what.path ? p->what.path : "/", p->host, p->port);
		out = uv_buf_init(t->request, (unsigned)strlen(t->request));
	}
	t->write.data = t;
	int r = out.len ? uv_write(&t->write, (uv_stream_t *)&t->tcp, &out, 1, on_written) : 0;
	if (r == 0)
		r = uv_read_start((uv_stream_t *)&t->tcp, on_alloc, on_read);
	if (r < 0)
		failed(p, uv_strerror(r));
}

static void try_network(struct probe *p)
{
	struct try *t = xcalloc(1, sizeof *t);
	struct sockaddr_in address;
	t->probe = p;
	t->tcp.data = t->connect.data = t;
	p->trying = t;
	int r = uv_tcp_init(p->loop, &t->tcp);
	t->open = r == 0;
	if (r == 0)
		r = uv_ip4_addr(p->host, p->port, &address);
	if (r == 0)
		r = uv_tcp_connect(&t->connect, &t->tcp, (const struct sockaddr *)&address, on_connect);
	if (r < 0) {
		if (!t->open) {
			p->trying = NULL;
			free(t);
		}
		failed(p, uv_strerror(r));
	}
}

/* ---- exec ---- */

static void on_exec(void *arg, const struct error *err, int exit_code, const char *output)
{
	struct probe *p = arg;
	p->executing--;
	if (p->over) {
		probe_maybe_free(p);
		return;
	}
	if (!err && exit_code == 0) {
		succeeded(p);
		return;
	}
	const char *text = output ? output : "";
	size_t len = strcspn(text, "\r\n");
	cleanup_free char *why =
	    err ? xstrdup(err->message)
	        : xasprintf("exit status %d%s%.*s", exit_code, len ? ": " : "", (int)(len > 200 ? 200 : len), text);
	failed(p, why);
}

static void try_exec(struct probe *p)
{
	p->executing++;
	p->exec(p->arg, p->what.argv, p->what.timeout_ms ? p->what.timeout_ms : PROBE_EXEC_TIMEOUT_MS, on_exec, p);
}

/* ---- log ---- */

static bool line_matches(struct probe *p)
{
	char *text = p->log_rest.data, *end;
	size_t used = 0;
	while (text && (end = memchr(p->log_rest.data + used, '\n', p->log_rest.len - used))) {
		*end = '\0';
		if (!regexec(&p->pattern, p->log_rest.data + used, 0, NULL, 0))
			return true;
		used = (size_t)(end - p->log_rest.data) + 1;
	}
	if (text && !regexec(&p->pattern, text + used, 0, NULL, 0)) /* a prompt without a line's end counts too */
		return true;
	if (used) {
		memmove(text, text + used, p->log_rest.len - used + 1);
		p->log_rest.len -= used;
	}
	if (p->log_rest.len > PROBE_ANSWER_MAX)
		buffer_clear(&p->log_rest);
	return false;
}

static void try_log(struct probe *p)
{
	struct stat st;
	cleanup_close int fd = p->log_path ? open(p->log_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
	if (fd < 0 || fstat(fd, &st) < 0) {
		failed(p, "there is no log yet");
		return;
	}
	if ((uint64_t)st.st_size < p->log_offset) { /* rotated */
		p->log_offset = 0;
		buffer_clear(&p->log_rest);
	}
	char bytes[16384];
	ssize_t n;
	while ((n = pread(fd, bytes, sizeof bytes, (off_t)p->log_offset)) > 0) {
		p->log_offset += (uint64_t)n;
		for (ssize_t i = 0; i < n; i++)
			if (!bytes[i])
				bytes[i] = ' ';
		buffer_add(&p->log_rest, bytes, (size_t)n);
		if (line_matches(p)) {
			succeeded(p);
			return;
		}
	}
	failed(p, "the line has not appeared in its log");
}

static void try_none(struct probe *p)
{
	if (p->what.linger_ms)
		uv_timer_start(&p->timer, on_lasted, p->what.linger_ms, 0);
	else
		succeeded(p);
}

static const struct kind kinds[PROBE_LOG + 1] = {
    [PROBE_NONE] = {0, 0, try_none},
    [PROBE_TCP] = {PROBE_FIRST_MS, PROBE_TIMEOUT_MS, try_network},
    [PROBE_HTTP] = {PROBE_FIRST_MS, PROBE_TIMEOUT_MS, try_network},
    [PROBE_EXEC] = {PROBE_EXEC_FIRST_MS, PROBE_EXEC_TIMEOUT_MS, try_exec},
    [PROBE_LOG] = {PROBE_FIRST_MS, 0, try_log},
};

static void copy_what(struct probe *p, const struct config_probe *what)
{
	p->what = *what;
	p->what.path = xstrdup(what->path);
	p->what.pattern = xstrdup(what->pattern);
	p->what.argv = strv_copy(what->argv);
	p->what.expect = strv_copy(what->expect);
	p->what.send = NULL;
	if (what->send) {
		p->what.send = xcalloc(what->send_len + 1, 1);
		memcpy(p->what.send, what->send, what->send_len);
	}
}

struct probe *probe_start(const struct probe_params *params)
{
	struct probe *p = xcalloc(1, sizeof *p);
	copy_what(p, params->what);
	p->loop = params->loop;
	p->host = xstrdup(params->host);
	p->port = params->port;
	p->log_path = xstrdup(params->log_path);
	p->log_offset = params->log_offset;
	p->exec = params->exec;
	p->ready = params->ready;
	p->failed = params->failed;
	p->exhausted = params->exhausted;
	p->arg = params->arg;
	p->last = xstrdup("");
	if (p->what.kind == PROBE_LOG) /* the configuration has compiled it once already */
		p->has_pattern = !regcomp(&p->pattern, p->what.pattern ? p->what.pattern : "", REG_EXTENDED | REG_NOSUB);
	if (p->what.kind == PROBE_LOG && !p->has_pattern)
		p->what.kind = PROBE_NONE;
	p->began_ms = now_monotonic_ms();
	p->counts_ms = p->began_ms + (p->what.start_period_ms > p->what.interval_ms ? p->what.start_period_ms : p->what.interval_ms);
	uv_timer_init(p->loop, &p->timer);
	p->timer.data = p;
	uv_timer_start(&p->timer, on_next, 0, 0);
	return p;
}

const char *probe_last(const struct probe *p)
{
	return p->last;
}

char *probe_describe(const struct config_probe *what, uint16_t port)
{
	switch (what->kind) {
	case PROBE_TCP:
		return xasprintf("tcp 127.0.0.1:%u", port);
	case PROBE_HTTP:
		return xasprintf("http://127.0.0.1:%u%s", port, what->path && *what->path ? what->path : "/");
	case PROBE_EXEC:
		return xasprintf("exec %s", what->argv && what->argv[0] ? what->argv[0] : "");
	case PROBE_LOG:
		return xasprintf("log /%s/", what->pattern ? what->pattern : "");
	case PROBE_NONE:
		break;
	}
	return xstrdup("none");
}
