/* backends/http: a well-behaved server, and the other kinds. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "backends/http.h"
#include "base/cleanup.h"
#include "tests/unit/scripted_server.h"

static bool answer(void *arg, int fd, const struct scripted_request *r)
{
	if (!strcmp(r->path, "/hang"))
		return scripted_hang(fd);
	if (!strcmp(r->path, "/garbage"))
		return scripted_say(fd, "\x01\x02 not http at all\n\n"), false;
	if (!strcmp(r->path, "/close"))
		return false;
	if (!strcmp(r->path, "/short"))
		return scripted_say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"), false;
	if (!strcmp(r->path, "/stream")) {
		scripted_say(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n");
		usleep(20000);
		scripted_say(fd, "4\r\ntwo\n\r\n0\r\n\r\n");
		return true;
	}
	if (!strcmp(r->path, "/endless")) {
		scripted_say(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n");
		return scripted_hang(fd);
	}
	if (!strcmp(r->path, "/big")) {
		scripted_say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n");
		char zeros[65536];
		memset(zeros, 'x', sizeof zeros);
		while (send(fd, zeros, sizeof zeros, MSG_NOSIGNAL) > 0)
			;
		return false;
	}
	if (!strcmp(r->path, "/missing"))
		return scripted_json(fd, 404, "{\"message\":\"no such thing\"}");
	cleanup_free char *text = xasprintf("%s %s", r->method, r->body);
	return scripted_json(fd, 200, text);
}

struct result {
	int calls, status;
	enum error_code code;
	int err;
	struct buffer body, message;
	struct http_call *call; /* to be canceled by data */
	bool enough;
};

static void on_done(void *arg, const struct error *err, const struct http_response *res)
{
	struct result *r = arg;
	r->calls++;
	assert_true(!err != !res);
	if (err) {
		r->code = err->code;
		r->err = err->err;
		buffer_adds(&r->message, err->message);
		return;
	}
	r->status = res->status;
	buffer_add(&r->body, res->body, res->len);
}

static bool on_data(void *arg, int status, const char *data, size_t len)
{
	struct result *r = arg;
	r->status = status;
	buffer_add(&r->body, data, len);
	if (r->call)
		http_cancel(r->call);
	return !r->enough;
}

static void release(struct result *r)
{
	buffer_release(&r->body);
	buffer_release(&r->message);
	*r = (struct result){0};
}

struct fixture {
	struct scripted_server server;
	uv_loop_t loop;
	struct http *h;
};

static void open_at(struct fixture *f, const char *path)
{
	const struct http_params params = {.loop = &f->loop, .name = "docker", .socket_path = path};
	assert_int_equal(uv_loop_init(&f->loop), 0);
	assert_int_equal(http_new(&params, &f->h, NULL), 0);
}

static void on_closed(void *arg)
{
	*(bool *)arg = true;
}

static void close_it(struct fixture *f)
{
	bool closed = false;
	http_close(f->h, on_closed, &closed);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_true(closed);
	assert_int_equal(uv_loop_close(&f->loop), 0);
}

static int setup(void **state)
{
	struct fixture *f = *state = xcalloc(1, sizeof *f);
	scripted_server_start(&f->server, answer, NULL);
	open_at(f, f->server.path);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	close_it(f);
	scripted_server_stop(&f->server);
	free(f);
	return 0;
}

static void run(struct fixture *f, const struct http_request *request, struct result *r)
{
	struct http_request q = *request;
	q.done = on_done;
	q.arg = r;
	struct http_call *call = http_start(f->h, &q);
	assert_int_equal(r->calls, 0);
	if (r->call)
		r->call = call;
	while (!r->calls && uv_run(&f->loop, UV_RUN_ONCE))
		;
	assert_int_equal(r->calls, 1);
}

static void test_answers(void **state)
{
	struct fixture *f = *state;
	struct {
		struct http_request request;
		int status;
		const char *body;
	} cases[] = {
	    {{.path = "/x"}, 200, "GET "},
	    {{.path = "/x", .method = "POST"}, 200, "POST "},
	    {{.path = "/x", .body = "{}", .body_len = 2}, 200, "POST {}"},
	    {{.path = "/x", .method = "DELETE"}, 200, "DELETE "},
	    {{.path = "/x", .method = "PUT", .body = "a", .body_len = 1}, 200, "PUT a"},
	    {{.path = "/missing"}, 404, "{\"message\":\"no such thing\"}"},
	    {{.path = "/missing", .data = on_data}, 404, "{\"message\":\"no such thing\"}"},
	    {{.path = "/stream", .data = on_data}, 200, "one\ntwo\n"},
	    {{.path = "/stream"}, 200, "one\ntwo\n"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct result r = {0};
		run(f, &cases[i].request, &r);
		assert_int_equal(r.status, cases[i].status);
		assert_string_equal(buffer_str(&r.body), cases[i].body);
		release(&r);
	}
	assert_int_equal(f->server.connections, 1); /* kept */
}

/* A file as the body, larger than what goes at once; also when the file is closed meanwhile. */
static void test_uploads(void **state)
{
	enum { SIZE = 700001 };
	struct fixture *f = *state;
	cleanup_free char *text = xcalloc(1, SIZE + 1);
	for (size_t i = 0; i < SIZE; i++)
		text[i] = (char)('a' + i * 7 % 26);
	int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, text, SIZE), SIZE);
	struct result r = {0};
	const struct http_request request = {.path = "/x", .method = "POST", .body_fd = fd, .body_len = SIZE, .body_type = "application/x-tar", .done = on_done, .arg = &r};
	http_start(f->h, &request);
	close(fd);
	while (!r.calls && uv_run(&f->loop, UV_RUN_ONCE))
		;
	assert_int_equal(r.status, 200);
	assert_int_equal(r.body.len, SIZE + 5);
	assert_string_equal(r.body.data + 5, text);
	release(&r);
}

static void test_failures(void **state)
{
	struct fixture *f = *state;
	struct {
		struct http_request request;
		enum error_code code;
		int err;
		const char *says;
	} cases[] = {
	    {{.path = "/hang", .timeout_ms = 100}, ERROR_BACKEND_UNREACHABLE, ETIMEDOUT, "does not answer"},
	    {{.path = "/endless", .silence_s = 1}, ERROR_BACKEND_UNREACHABLE, ETIMEDOUT, "does not answer"},
	    {{.path = "/garbage"}, ERROR_BACKEND_UNREACHABLE, ECONNREFUSED, "docker at "},
	    {{.path = "/close"}, ERROR_BACKEND_UNREACHABLE, ECONNREFUSED, "docker at "},
	    {{.path = "/short"}, ERROR_BACKEND_UNREACHABLE, ECONNREFUSED, "docker at "},
	    {{.path = "/big"}, ERROR_BACKEND_UNREACHABLE, EMSGSIZE, "16 MiB"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct result r = {0};
		run(f, &cases[i].request, &r);
		assert_int_equal(r.code, cases[i].code);
		assert_int_equal(r.err, cases[i].err);
		assert_non_null(strstr(buffer_str(&r.message), cases[i].says));
		release(&r);
	}
}

static void test_cancel(void **state)
{
	struct fixture *f = *state;
	struct result r = {.enough = true};
	run(f, &(struct http_request){.path = "/endless", .data = on_data}, &r);
	assert_int_equal(r.code, ERROR_CANCELED);
	assert_string_equal(buffer_str(&r.body), "one\n");
	release(&r);
	r.call = (struct http_call *)&r; /* from within data */
	run(f, &(struct http_request){.path = "/endless", .data = on_data}, &r);
	assert_int_equal(r.code, ERROR_CANCELED);
	release(&r);
	http_cancel(http_start(f->h, &(struct http_request){.path = "/hang", .done = on_done, .arg = &r}));
	assert_int_equal(r.calls, 0);
	uv_run(&f->loop, UV_RUN_ONCE);
	assert_int_equal(r.code, ERROR_CANCELED);
	release(&r);
}

static void test_many_at_once_and_close(void **state)
{
	struct fixture *f = *state;
	struct result good = {0}, open = {0};
	for (int i = 0; i < 40; i++)
		http_start(f->h, &(struct http_request){.path = "/x", .done = on_done, .arg = &good});
	while (good.calls < 40)
		uv_run(&f->loop, UV_RUN_ONCE);
	assert_int_equal(good.status, 200);
	release(&good);
	for (int i = 0; i < 5; i++)
		http_start(f->h, &(struct http_request){.path = "/hang", .done = on_done, .arg = &open});
	close_it(f);
	assert_int_equal(open.calls, 5);
	assert_int_equal(open.code, ERROR_CANCELED);
	release(&open);
	open_at(f, f->server.path);
}

static void test_nobody_there(void **state)
{
	struct fixture *f = *state;
	struct result r = {0};
	close_it(f);
	open_at(f, "/nowhere/docker.sock");
	run(f, &(struct http_request){.path = "/x"}, &r);
	assert_int_equal(r.code, ERROR_BACKEND_UNREACHABLE);
	assert_int_equal(r.err, ENOENT);
	assert_string_equal(buffer_str(&r.message), "docker at /nowhere/docker.sock: No such file or directory");
	release(&r);
}

static void test_wait(void **state)
{
	struct fixture *f = *state;
	struct result r = {0};
	cleanup_error struct error err = ERROR_INIT;
	const struct http_params params = {.name = "docker", .socket_path = f->server.path};
	assert_int_equal(http_wait(&params, &(struct http_request){.path = "/x", .done = on_done, .arg = &r}, &err), 0);
	assert_string_equal(buffer_str(&r.body), "GET ");
	release(&r);
	assert_int_equal(http_wait(&params, &(struct http_request){.path = "/hang", .timeout_ms = 100, .done = on_done, .arg = &r}, &err), -ETIMEDOUT);
	assert_int_equal(err.code, ERROR_BACKEND_UNREACHABLE);
	assert_int_equal(r.calls, 1);
	release(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_answers, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_uploads, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_failures, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_many_at_once_and_close, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_nobody_there, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_wait, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
