/* backends/http_upgrade: who hands the connection over, and who does not. */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "backends/http_upgrade.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "tests/unit/scripted_server.h"

#define SWITCHING "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
#define LARGE (1u << 20)

static bool echo(int fd)
{
	char chunk[4096];
	ssize_t n;
	while ((n = read(fd, chunk, sizeof chunk)) > 0)
		if (send(fd, chunk, (size_t)n, MSG_NOSIGNAL) < 0)
			return false;
	scripted_say(fd, "end");
	return false;
}

static void say_slowly(int fd, const char *text)
{
	for (; *text; text++) {
		const char one[] = {*text, 0};
		scripted_say(fd, one);
		usleep(1000);
	}
}

static bool answer(void *arg, int fd, const struct scripted_request *r)
{
	if (!strcmp(r->path, "/echo"))
		return scripted_say(fd, SWITCHING), echo(fd);
	if (!strcmp(r->path, "/early"))
		return scripted_say(fd, SWITCHING "early "), echo(fd);
	if (!strcmp(r->path, "/slowly"))
		return say_slowly(fd, SWITCHING), echo(fd);
	if (!strcmp(r->path, "/old"))
		return scripted_say(fd, "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"), echo(fd);
	if (!strcmp(r->path, "/body"))
		return scripted_say(fd, SWITCHING), scripted_say(fd, r->body), echo(fd);
	if (!strcmp(r->path, "/missing"))
		return scripted_json(fd, 404, "{\"message\":\"no such thing\"}");
	if (!strcmp(r->path, "/chunked"))
		return scripted_say(fd, "HTTP/1.1 500 Sorry\r\nTransfer-Encoding: chunked\r\n\r\n11\r\n{\"message\":\"why\"}\r\n0\r\n\r\n"), scripted_hang(fd);
	if (!strcmp(r->path, "/no-upgrade"))
		return scripted_json(fd, 200, "{}");
	if (!strcmp(r->path, "/garbage"))
		return scripted_say(fd, "\x01\x02 not http at all\r\n\r\n"), false;
	if (!strcmp(r->path, "/half"))
		return scripted_say(fd, "HTTP/1.1 101 UPGR"), false;
	if (!strcmp(r->path, "/endless"))
		for (int i = 0; i < 20000; i++)
			scripted_say(fd, "X-Header: and another\r\n");
	if (!strcmp(r->path, "/hang") || !strcmp(r->path, "/endless"))
		return scripted_hang(fd);
	return false;
}

static struct scripted_server server;

struct result {
	int calls, status;
	char body[256];
};

static void on_done(void *arg, const struct error *err, const struct http_response *res)
{
	struct result *r = arg;
	r->calls++;
	assert_null(err);
	r->status = res->status;
	snprintf(r->body, sizeof r->body, "%s", res->body);
}

static int upgrade(const char *path, const char *body, struct result *r, struct http_stream **ret, struct error *err)
{
	const struct http_params params = {.name = "Test", .socket_path = server.path};
	const struct http_request request = {.path = path, .body = body, .body_len = body ? strlen(body) : 0, .timeout_ms = 500, .done = on_done, .arg = r};
	*r = (struct result){0};
	*ret = NULL;
	return http_upgrade(&params, &request, ret, err);
}

static void wait_for(const struct http_stream *s, short events)
{
	struct pollfd p = {http_stream_fd(s), events, 0};
	assert_int_equal(poll(&p, 1, 10000), 1);
}

static void read_until_end(struct http_stream *s, struct buffer *out)
{
	char chunk[4096];
	for (;;) {
		ssize_t n = http_stream_read(s, chunk, sizeof chunk);
		if (n == -EAGAIN) {
			wait_for(s, POLLIN);
			continue;
		}
		assert_true(n >= 0);
		if (!n)
			return;
		buffer_add(out, chunk, (size_t)n);
	}
}

static void it_is_handed_over(void **state)
{
	static const struct {
		const char *path, *body, *said;
	} cases[] = {{"/echo", NULL, "helloend"}, {"/early", NULL, "early helloend"}, {"/slowly", NULL, "helloend"}, {"/old", NULL, "helloend"}, {"/body", "{\"a\":1}", "{\"a\":1}helloend"}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct result r;
		struct http_stream *s;
		cleanup_buffer struct buffer out = BUFFER_INIT;
		assert_int_equal(upgrade(cases[i].path, cases[i].body, &r, &s, NULL), 1);
		assert_int_equal(r.calls, 0);
		assert_int_equal(http_stream_write(s, "hello", 5), 5);
		assert_int_equal(http_stream_end(s), 0);
		read_until_end(s, &out);
		assert_string_equal(buffer_str(&out), cases[i].said);
		http_stream_free(s);
	}
}

static void a_full_connection_says_so(void **state)
{
	struct result r;
	struct http_stream *s;
	cleanup_buffer struct buffer out = BUFFER_INIT;
	cleanup_free char *bytes = xcalloc(1, LARGE);
	memset(bytes, 'x', LARGE);
	assert_int_equal(upgrade("/echo", NULL, &r, &s, NULL), 1);
	size_t sent = 0;
	bool was_full = false;
	char chunk[8192];
	while (sent < LARGE || out.len < LARGE) {
		ssize_t n = sent < LARGE ? http_stream_write(s, bytes + sent, LARGE - sent) : 0;
		assert_true(n >= 0 || n == -EAGAIN);
		sent += n > 0 ? (size_t)n : 0;
		was_full |= n == -EAGAIN;
		ssize_t got = http_stream_read(s, chunk, sizeof chunk);
		assert_true(got > 0 || got == -EAGAIN);
		if (got > 0)
			buffer_add(&out, chunk, (size_t)got);
		else
			wait_for(s, (short)(POLLIN | (sent < LARGE ? POLLOUT : 0)));
	}
	assert_true(was_full);
	http_stream_free(s);
}

static void other_answers_are_told(void **state)
{
	static const struct {
		const char *path;
		int status;
		const char *body;
	} cases[] = {{"/missing", 404, "no such thing"}, {"/chunked", 500, "{\"message\":\"why\"}"}, {"/no-upgrade", 200, "{}"}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct result r;
		struct http_stream *s;
		assert_int_equal(upgrade(cases[i].path, NULL, &r, &s, NULL), 0);
		assert_null(s);
		assert_int_equal(r.calls, 1);
		assert_int_equal(r.status, cases[i].status);
		assert_non_null(strstr(r.body, cases[i].body));
	}
}

static void no_answer_is_an_error(void **state)
{
	static const char *const paths[] = {"/garbage", "/half", "/endless", "/hang", "/close"};
	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
		struct result r;
		struct http_stream *s;
		cleanup_error struct error err = ERROR_INIT;
		uint64_t begun = now_monotonic_ms();
		assert_true(upgrade(paths[i], NULL, &r, &s, &err) < 0);
		assert_int_equal(err.code, ERROR_BACKEND_UNREACHABLE);
		assert_non_null(strstr(err.message, server.path));
		assert_int_equal(r.calls, 0);
		assert_null(s);
		assert_true(now_monotonic_ms() - begun < 5000);
	}
	const struct http_params params = {.name = "Test", .socket_path = "/nowhere/at/all"};
	const struct http_request request = {.path = "/", .timeout_ms = 500, .done = on_done};
	struct http_stream *s = NULL;
	cleanup_error struct error err = ERROR_INIT;
	assert_true(http_upgrade(&params, &request, &s, &err) < 0);
	assert_int_equal(err.err, ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(it_is_handed_over),
	    cmocka_unit_test(a_full_connection_says_so),
	    cmocka_unit_test(other_answers_are_told),
	    cmocka_unit_test(no_answer_is_an_error),
	};
	scripted_server_start(&server, answer, NULL);
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	scripted_server_stop(&server);
	return failed;
}
