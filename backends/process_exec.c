/* Programs run once, to their end: probes and hooks on the loop, the steps of a template in a worker. Both below a
 * shim, which ends them in time with everything they started. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backends/process.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"

#define WORKER_POLL_MS 50

/* Keeps the last `max` bytes. */
static void keep_last(struct buffer *b, const char *data, size_t len, size_t max)
{
	buffer_add(b, data, len);
	if (b->len <= 2 * max)
		return;
	memmove(b->data, b->data + b->len - max, max + 1);
	b->len = max;
}

static const char *last_of(const struct buffer *b, size_t max)
{
	const char *text = buffer_str(b);
	return b->len > max ? text + b->len - max : text;
}

/* Reads what is there. Returns whether that was the end. */
static bool drain(int fd, struct buffer *out, size_t max)
{
	char chunk[8192];
	for (;;) {
		ssize_t n = read(fd, chunk, sizeof chunk);
		if (n > 0)
			keep_last(out, chunk, (size_t)n, max);
		else if (n < 0 && errno == EINTR)
			continue;
		else
			return n == 0 || errno != EAGAIN;
	}
}

struct run {
	int pidfd, status, output;
	struct buffer said, printed;
};

#define RUN_INIT                                                                                                       \
	{                                                                                                                  \
		-1, -1, -1, BUFFER_INIT, BUFFER_INIT                                                                           \
	}

static void run_release(struct run *r)
{
	int *fds[] = {&r->pidfd, &r->status, &r->output};
	for (size_t i = 0; i < 3; i++)
		if (*fds[i] >= 0)
			close(move_fd(fds[i]));
	buffer_release(&r->said);
	buffer_release(&r->printed);
}

static int run_start(struct run *r, const struct process_settings *p, const char *what, const struct buffer *order,
                     int input, struct error *err)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC))
		return error_set_errno(err, ERROR_BACKEND_SPAWN_FAILED, errno, "%s", what);
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	r->output = ends[0];
	struct process_shim shim = {.settings = p,
	                            .service = what,
	                            .order = order,
	                            .watch_fd = p->self_fd,
	                            .input = input,
	                            .output = ends[1],
	                            .lock_fd = -1,
	                            .directory_fd = -1};
	r->pidfd = process_shim_start(&shim, &r->status, err);
	close(ends[1]);
	return r->pidfd < 0 ? r->pidfd : 0;
}

static int run_result(const struct run *r, const char *what, unsigned timeout_ms, int *ret_code, struct error *err)
{
	struct process_report report;
	process_report_parse(buffer_str(&r->said), &report);
	if (report.status == PROCESS_TIMED_OUT)
		return error_set(err, ERROR_NOT_READY, "%s: not done within %u ms", what, timeout_ms);
	if (report.status != PROCESS_EXITED)
		return process_report_error(&report, what, (uid_t)-1, err);
	*ret_code = report.exit_code;
	return 0;
}

static void shim_kill(int pidfd)
{
	syscall(SYS_pidfd_send_signal, pidfd, SIGTERM, NULL, 0);
}

/* ---- in a worker ---- */

static int input_file(const char *text)
{
	if (!text)
		return -1;
	cleanup_close int fd = memfd_create("input", MFD_CLOEXEC);
	if (fd < 0 || write_all(fd, text, strlen(text)) || lseek(fd, 0, SEEK_SET))
		return -1;
	return move_fd(&fd);
}

int process_run_once(const struct process_settings *p, const char *what, const struct buffer *order, const char *input,
                     int timeout_ms, int *ret_code, struct buffer *ret_output, struct error *err)
{
	struct run run __attribute__((cleanup(run_release))) = RUN_INIT;
	cleanup_buffer struct buffer whole = BUFFER_INIT;
	buffer_add(&whole, order->data, order->len);
	process_order_add(&whole, "once", "1");
	process_order_add(&whole, "timeout_ms", "%d", timeout_ms);
	cleanup_close int in = input_file(input);
	int r = run_start(&run, p, what, &whole, in, err);
	if (r)
		return r;
	bool killed = false, output_ended = false, status_ended = false;
	while (!output_ended || !status_ended) {
		struct pollfd fds[] = {{output_ended ? -1 : run.output, POLLIN, 0},
		                       {status_ended ? -1 : run.status, POLLIN, 0}};
		poll(fds, 2, WORKER_POLL_MS);
		output_ended = output_ended || drain(run.output, &run.printed, BACKEND_EXEC_OUTPUT_MAX);
		status_ended = status_ended || drain(run.status, &run.said, 4096);
		if (!killed && atomic_load(&p->canceled)) {
			shim_kill(run.pidfd);
			killed = true;
		}
	}
	poll(&(struct pollfd){run.pidfd, POLLIN, 0}, 1, 1000);
	process_shim_reap(run.pidfd);
	buffer_adds(ret_output, last_of(&run.printed, BACKEND_EXEC_OUTPUT_MAX));
	return killed ? error_set(err, ERROR_CANCELED, "%s: canceled", what)
	              : run_result(&run, what, (unsigned)timeout_ms, ret_code, err);
}

/* ---- on the loop ---- */

struct process_exec {
	struct run run;
	char *what;
	unsigned timeout_ms;
	uv_poll_t output, status, end;
	unsigned handles; /* not closed yet */
	unsigned waiting; /* ends still to come: of the output, of the status, of the shim */
	struct error failed;
	backend_exec_done *done;
	void *arg;
	void (*finished)(void *owner);
	void *owner;
};

static void exec_free(struct process_exec *e)
{
	void (*finished)(void *) = e->finished;
	void *owner = e->owner;
	run_release(&e->run);
	error_release(&e->failed);
	free(e->what);
	free(e);
	finished(owner);
}

static void exec_handle_closed(uv_handle_t *handle)
{
	struct process_exec *e = handle->data;
	if (--e->handles == 0)
		exec_free(e);
}

/* Calls back once; a canceled one has been answered already. */
static void exec_answer(struct process_exec *e)
{
	backend_exec_done *done = e->done;
	e->done = NULL;
	if (!done)
		return;
	int code = -1;
	cleanup_error struct error err = ERROR_INIT;
	if (error_is_set(&e->failed))
		error_copy(&err, &e->failed);
	else
		run_result(&e->run, e->what, e->timeout_ms, &code, &err);
	done(e->arg, error_is_set(&err) ? &err : NULL, code, last_of(&e->run.printed, BACKEND_EXEC_OUTPUT_MAX));
}

static void exec_part_ended(struct process_exec *e, uv_poll_t *part)
{
	uv_close((uv_handle_t *)part, exec_handle_closed);
	if (--e->waiting == 0)
		exec_answer(e);
}

static void exec_on_output(uv_poll_t *poll, int status, int events)
{
	struct process_exec *e = poll->data;
	if (drain(e->run.output, &e->run.printed, BACKEND_EXEC_OUTPUT_MAX))
		exec_part_ended(e, poll);
}

static void exec_on_status(uv_poll_t *poll, int status, int events)
{
	struct process_exec *e = poll->data;
	if (drain(e->run.status, &e->run.said, 4096))
		exec_part_ended(e, poll);
}

static void exec_on_end(uv_poll_t *poll, int status, int events)
{
	struct process_exec *e = poll->data;
	process_shim_reap(e->run.pidfd);
	exec_part_ended(e, poll);
}

static void exec_watch(struct process_exec *e, uv_loop_t *loop, uv_poll_t *poll, int fd, uv_poll_cb callback)
{
	uv_poll_init(loop, poll, fd);
	poll->data = e;
	uv_poll_start(poll, UV_READABLE, callback);
	e->handles++;
	e->waiting++;
}

static void exec_failed(void *arg)
{
	struct process_exec *e = arg;
	exec_answer(e);
	exec_free(e);
}

struct process_exec *process_exec_start(uv_loop_t *loop, const struct process_settings *p,
                                        const struct service_spec *spec, char *const *argv, unsigned timeout_ms,
                                        backend_exec_done *done, void *arg, void (*finished)(void *owner), void *owner)
{
	struct process_exec *e = xcalloc(1, sizeof *e);
	*e = (struct process_exec){
	    .run = RUN_INIT, .timeout_ms = timeout_ms, .done = done, .arg = arg, .finished = finished, .owner = owner};
	e->what = xasprintf("%s: %s", spec->name, argv[0]);
	cleanup_buffer struct buffer order = BUFFER_INIT;
	cleanup_free char *program = NULL;
	int r = process_program(argv[0], spec->process->env, &program, &e->failed);
	if (!r) {
		process_order(&order, p, spec);
		process_order_add(&order, "program", "%s", program);
		process_order_argv(&order, argv);
		process_order_add(&order, "once", "1");
		process_order_add(&order, "stop_grace_ms", "0");
		process_order_add(&order, "timeout_ms", "%u", timeout_ms);
		r = run_start(&e->run, p, spec->name, &order, -1, &e->failed);
	}
	if (r) {
		backend_defer(loop, exec_failed, e);
		return e;
	}
	exec_watch(e, loop, &e->output, e->run.output, exec_on_output);
	exec_watch(e, loop, &e->status, e->run.status, exec_on_status);
	exec_watch(e, loop, &e->end, e->run.pidfd, exec_on_end);
	return e;
}

void process_exec_cancel(struct process_exec *e)
{
	if (e->done) {
		cleanup_error struct error err = ERROR_INIT;
		error_set(&err, ERROR_CANCELED, "%s: canceled", e->what);
		backend_exec_done *done = e->done;
		e->done = NULL;
		done(e->arg, &err, -1, "");
	}
	if (e->run.pidfd >= 0)
		shim_kill(e->run.pidfd);
}
