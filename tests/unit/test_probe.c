/* Probes against real sockets, programs and files. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/file.h"
#include "provisioner/probe.h"

static uv_loop_t loop;

/* ---- a server that answers what it is told, and may begin late ---- */

struct server {
	uv_tcp_t listener;
	uv_timer_t delay;
	const char *answer; /* NULL: says nothing; "" : closes */
	uint16_t port;
	unsigned accepted;
	char got[256];
};

static void on_closed_free(uv_handle_t *h)
{
	free(h);
}

static void server_alloc(uv_handle_t *h, size_t size, uv_buf_t *buf)
{
	static char bytes[256];
	*buf = uv_buf_init(bytes, sizeof bytes - 1);
}

static void on_write(uv_write_t *w, int status)
{
	uv_close((uv_handle_t *)w->handle, on_closed_free);
	free(w);
}

static void server_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct server *s = stream->data;
	if (n < 0) {
		uv_close((uv_handle_t *)stream, on_closed_free);
		return;
	}
	buf->base[n] = '\0';
	snprintf(s->got, sizeof s->got, "%s", buf->base);
	if (!s->answer)
		return;
	uv_read_stop(stream);
	uv_write_t *w = xcalloc(1, sizeof *w);
	uv_buf_t out = uv_buf_init((char *)s->answer, (unsigned)strlen(s->answer));
	uv_write(w, stream, &out, 1, on_write);
}

static void on_connection(uv_stream_t *listener, int status)
{
	struct server *s = listener->data;
	uv_tcp_t *client = xcalloc(1, sizeof *client);
	uv_tcp_init(&loop, client);
	client->data = s;
	s->accepted++;
	assert_int_equal(uv_accept(listener, (uv_stream_t *)client), 0);
	uv_read_start((uv_stream_t *)client, server_alloc, server_read);
}

static void server_listen(uv_timer_t *timer)
{
	struct server *s = timer->data;
	assert_int_equal(uv_listen((uv_stream_t *)&s->listener, 16, on_connection), 0);
}

/* Bound at once, so that the port is ours; listening after `delay_ms`. */
static void server_start(struct server *s, const char *answer, unsigned delay_ms)
{
	struct sockaddr_in address;
	int len = sizeof address;
	memset(s, 0, sizeof *s);
	s->answer = answer;
	uv_tcp_init(&loop, &s->listener);
	uv_ip4_addr("127.0.0.1", 0, &address);
	uv_tcp_bind(&s->listener, (struct sockaddr *)&address, 0);
	uv_tcp_getsockname(&s->listener, (struct sockaddr *)&address, &len);
	s->port = ntohs(address.sin_port);
	s->listener.data = s;
	uv_timer_init(&loop, &s->delay);
	s->delay.data = s;
	uv_timer_start(&s->delay, server_listen, delay_ms, 0);
}

static void server_stop(struct server *s)
{
	uv_close((uv_handle_t *)&s->listener, NULL);
	uv_close((uv_handle_t *)&s->delay, NULL);
}

/* ---- running a probe ---- */

struct run {
	unsigned ready;
	bool over;
	uint64_t took_ms;
	const char *outputs; /* of execs: a character each, 0 for success */
	unsigned execs;
	unsigned pending;
	backend_exec_done *done;
	void *done_arg;
};

static void on_ready(void *arg)
{
	struct run *r = arg;
	r->ready++;
	r->over = true;
}

static void on_limit(uv_timer_t *timer)
{
	struct run *r = timer->data;
	r->over = true;
}

/* true: it got ready within `limit_ms` */
static bool probe_runs(struct probe_params params, struct run *r, unsigned limit_ms)
{
	uv_timer_t limit;
	uint64_t from = now_monotonic_ms();
	params.loop = &loop;
	params.host = "127.0.0.1";
	params.ready = on_ready;
	params.arg = r;
	struct probe *p = probe_start(&params);
	assert_int_equal(r->ready, 0); /* never from within the call */
	uv_timer_init(&loop, &limit);
	limit.data = r;
	uv_timer_start(&limit, on_limit, limit_ms, 0);
	while (!r->over)
		uv_run(&loop, UV_RUN_ONCE);
	r->took_ms = now_monotonic_ms() - from;
	if (!r->ready)
		probe_cancel(p);
	uv_close((uv_handle_t *)&limit, NULL);
	uv_run(&loop, UV_RUN_NOWAIT);
	uv_run(&loop, UV_RUN_NOWAIT);
	assert_in_range(r->ready, 0, 1);
	return r->ready;
}

static void drain(void)
{
	uv_run(&loop, UV_RUN_DEFAULT);
}

static void none_is_ready_at_once(void **state)
{
	struct run r = {0};
	const struct config_probe what = {.kind = PROBE_NONE};
	assert_true(probe_runs((struct probe_params){.what = &what}, &r, 1000));
	drain();
}

static void none_may_have_to_last(void **state)
{
	struct run r = {0};
	const struct config_probe what = {.kind = PROBE_NONE, .linger_ms = 80};
	assert_true(probe_runs((struct probe_params){.what = &what}, &r, 5000));
	assert_true(r.took_ms >= 75);
	drain();
}

static void tcp_waits_until_somebody_listens(void **state)
{
	struct server s;
	struct run r = {0};
	const struct config_probe what = {.kind = PROBE_TCP};
	server_start(&s, NULL, 150);
	assert_true(probe_runs((struct probe_params){.what = &what, .port = s.port}, &r, 5000));
	assert_true(r.took_ms >= 140);
	server_stop(&s);
	drain();
}

static void tcp_is_not_ready_where_nobody_listens(void **state)
{
	struct server s;
	struct run r = {0};
	const struct config_probe what = {.kind = PROBE_TCP};
	server_start(&s, NULL, 60000);
	assert_false(probe_runs((struct probe_params){.what = &what, .port = s.port}, &r, 200));
	server_stop(&s);
	drain();
}

static void tcp_sends_and_compares(void **state)
{
	struct server s;
	char *expect[] = {(char *)"+PONG", (char *)"-NOAUTH", NULL};
	const struct config_probe what = {.kind = PROBE_TCP, .send = (char *)"PING\r\n", .send_len = 6, .expect = expect};
	const struct {
		const char *answer;
		bool ready;
	} cases[] = {
	    {"+PONG\r\n", true}, {"-NOAUTH needs it\r\n", true}, {"-LOADING\r\n", false}, {"+PO", false}, {NULL, false}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct run r = {0};
		server_start(&s, cases[i].answer, 0);
		assert_int_equal(
		    probe_runs((struct probe_params){.what = &what, .port = s.port}, &r, cases[i].ready ? 5000 : 200),
		    cases[i].ready);
		assert_string_equal(s.got, "PING\r\n");
		server_stop(&s);
		drain();
	}
}

static void silence_is_asked_again(void **state)
{
	struct server s;
	struct run r = {0};
	char *expect[] = {(char *)"x", NULL};
	const struct config_probe what = {
	    .kind = PROBE_TCP, .send = (char *)"?", .send_len = 1, .expect = expect, .timeout_ms = 50};
	server_start(&s, NULL, 0);
	assert_false(probe_runs((struct probe_params){.what = &what, .port = s.port}, &r, 400));
	assert_true(s.accepted >= 2);
	server_stop(&s);
	drain();
}

static void http_wants_a_good_status(void **state)
{
	struct server s;
	const struct config_probe what = {.kind = PROBE_HTTP, .path = (char *)"/healthz"};
	const struct {
		const char *answer;
		bool ready;
	} cases[] = {{"HTTP/1.1 200 OK\r\n\r\n", true},
	             {"HTTP/1.0 302 Found\r\nLocation: /\r\n\r\n", true},
	             {"HTTP/1.1 503 Not yet\r\n\r\n", false},
	             {"SSH-2.0-OpenSSH\r\n", false}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct run r = {0};
		server_start(&s, cases[i].answer, 0);
		assert_int_equal(
		    probe_runs((struct probe_params){.what = &what, .port = s.port}, &r, cases[i].ready ? 5000 : 200),
		    cases[i].ready);
		assert_true(!strncmp(s.got, "GET /healthz HTTP/1.0\r\n", 23));
		server_stop(&s);
		drain();
	}
}

/* ---- exec ---- */

static void answer_exec(uv_timer_t *timer)
{
	struct run *r = timer->data;
	int code = r->outputs[r->execs] == '0' ? 0 : 1;
	r->execs += r->outputs[r->execs + 1] != '\0';
	r->pending--;
	uv_close((uv_handle_t *)timer, on_closed_free);
	r->done(r->done_arg, NULL, code, "no\nmore");
}

static void fake_exec(void *arg, char *const *argv, unsigned timeout_ms, backend_exec_done *done, void *done_arg)
{
	struct run *r = arg;
	assert_string_equal(argv[0], "pg_isready");
	r->done = done;
	r->done_arg = done_arg;
	r->pending++;
	uv_timer_t *timer = xcalloc(1, sizeof *timer);
	uv_timer_init(&loop, timer);
	timer->data = r;
	uv_timer_start(timer, answer_exec, 10, 0);
}

static void exec_is_asked_until_it_exits_with_0(void **state)
{
	char *argv[] = {(char *)"pg_isready", NULL};
	const struct config_probe what = {.kind = PROBE_EXEC, .argv = argv};
	struct run r = {.outputs = "1110"};
	assert_true(probe_runs((struct probe_params){.what = &what, .exec = fake_exec}, &r, 5000));
	assert_int_equal(r.execs, 3);
	drain();
}

static void an_exec_in_flight_outlives_the_cancelled_probe(void **state)
{
	char *argv[] = {(char *)"pg_isready", NULL};
	const struct config_probe what = {.kind = PROBE_EXEC, .argv = argv};
	struct run r = {.outputs = "00"};
	assert_false(probe_runs((struct probe_params){.what = &what, .exec = fake_exec}, &r, 3));
	drain(); /* under the sanitizers: no use of freed memory, nothing leaked */
	assert_int_equal(r.pending, 0);
	assert_int_equal(r.ready, 0);
}

/* ---- log ---- */

static char log_path[] = "/tmp/probe.XXXXXX";

static void append(uv_timer_t *timer)
{
	int fd = open(log_path, O_WRONLY | O_APPEND);
	const char *text = timer->data;
	assert_true(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
	uv_close((uv_handle_t *)timer, NULL);
}

static bool log_runs(const char *pattern, const char *before, const char *later, uint64_t offset, unsigned limit_ms)
{
	struct run r = {0};
	uv_timer_t timer;
	const struct config_probe what = {.kind = PROBE_LOG, .pattern = (char *)pattern};
	assert_int_equal(file_write_atomic(AT_FDCWD, log_path, before, strlen(before), 0600), 0);
	uv_timer_init(&loop, &timer);
	timer.data = (void *)later;
	uv_timer_start(&timer, append, 30, 0);
	bool ready =
	    probe_runs((struct probe_params){.what = &what, .log_path = log_path, .log_offset = offset}, &r, limit_ms);
	drain();
	return ready;
}

static void log_waits_for_its_line(void **state)
{
	close(mkstemp(log_path));
	assert_true(log_runs("ready to (accept|serve)", "starting\n", "now ready to accept connections\n", 0, 5000));
	assert_true(log_runs("^listening$", "a\nb\n", "listening\n", 0, 5000));
	assert_true(log_runs("prompt>", "", "prompt> ", 0, 5000)); /* no end of line */
	assert_false(log_runs("ready", "starting\n", "still starting\n", 0, 200));
	assert_false(log_runs("ready", "ready\n", "starting again\n", 6, 200)); /* an earlier run's */
	assert_true(log_runs("ready", "new\n", "ready\n", 1000, 5000));         /* rotated: shorter than where we were */
	unlink(log_path);
}

int main(void)
{
	uv_loop_init(&loop);
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(none_is_ready_at_once),
	    cmocka_unit_test(none_may_have_to_last),
	    cmocka_unit_test(tcp_waits_until_somebody_listens),
	    cmocka_unit_test(tcp_is_not_ready_where_nobody_listens),
	    cmocka_unit_test(tcp_sends_and_compares),
	    cmocka_unit_test(silence_is_asked_again),
	    cmocka_unit_test(http_wants_a_good_status),
	    cmocka_unit_test(exec_is_asked_until_it_exits_with_0),
	    cmocka_unit_test(an_exec_in_flight_outlives_the_cancelled_probe),
	    cmocka_unit_test(log_waits_for_its_line),
	};
	int r = cmocka_run_group_tests(tests, NULL, NULL);
	return r ? r : uv_loop_close(&loop) != 0;
}
