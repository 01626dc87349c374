#include "cli/relay.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "cli/output.h"
#include "cli/terminal.h"

#define INPUT_MAX 65536
#define OUTPUT_STEP 4096 /* PIPE_BUF: what a pipe that has room takes without waiting */
#define WAIT_STEP_MS 100 /* between two looks at signals while the program has closed its output and goes on */
#define SIGNALS_OBEYED 3 /* whoever asks that often means us */

struct relay {
	struct attachment *a;
	bool terminal;
	bool input_open;  /* ours is not at its end */
	bool input_ended; /* and the program has heard of it */
	char input[INPUT_MAX];
	size_t at, len; /* of what it has not taken yet */
	bool broken[3]; /* nobody reads our 1, 2 any more */
	int signo;      /* we were asked to end */
	int signals;
};

/* ---- signals ---- */

/* A terminal that is taken away takes the program with it; what ^C is for it comes as a key. */
static void take_signals(struct relay *r)
{
	unsigned rows, columns;
	for (int signo; (signo = terminal_signal());) {
		int sent = r->a->ops->signal(r->a, r->terminal ? SIGHUP : signo);
		if (sent || r->terminal || ++r->signals >= SIGNALS_OBEYED)
			r->signo = signo;
	}
	if (terminal_was_resized() && r->terminal) {
		terminal_size(&rows, &columns);
		if (rows && columns)
			r->a->ops->resize(r->a, rows, columns);
	}
}

/* ---- output ---- */

static int fd_of(int stream)
{
	return stream == ATTACHMENT_ERR ? STDERR_FILENO : STDOUT_FILENO;
}

/* Nobody reads it: the program hears of it as it would if that were its own pipe. */
static void output_broke(struct relay *r, int fd)
{
	if (!r->broken[fd] && fd == STDOUT_FILENO) {
		r->a->ops->signal(r->a, SIGPIPE);
		r->signo = SIGPIPE;
	}
	r->broken[fd] = true;
}

static void take_output(void *arg, int stream, const char *data, size_t len)
{
	struct relay *r = arg;
	int fd = fd_of(stream);
	while (len && !r->broken[fd] && !r->signo) {
		struct pollfd room = {fd, POLLOUT, 0};
		if (terminal_poll(&room, 1, -1) < 0) {
			take_signals(r);
			continue;
		}
		ssize_t n = write(fd, data, len < OUTPUT_STEP ? len : OUTPUT_STEP);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			output_broke(r, fd);
		if (n > 0) {
			data += n;
			len -= (size_t)n;
		}
	}
}

/* ---- input ---- */

static void read_input(struct relay *r)
{
	ssize_t n = read(STDIN_FILENO, r->input, sizeof r->input);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	r->at = 0;
	r->len = n > 0 ? (size_t)n : 0;
	r->input_open = n > 0;
}

static void write_input(struct relay *r)
{
	ssize_t n = r->len ? r->a->ops->write(r->a, r->input + r->at, r->len) : 0;
	if (n == -EAGAIN)
		return;
	if (n < 0) { /* it reads no more: what comes is not asked for either, or a full pipe's writer would wait for us */
		r->len = 0;
		r->input_open = false;
		r->input_ended = true;
		return;
	}
	r->at += (size_t)n;
	r->len -= (size_t)n;
	if (!r->len && !r->input_open && !r->input_ended) {
		if (r->a->ops->end_input(r->a) == -EOPNOTSUPP)
			output_note("Note: the connection is by TLS, which cannot tell the command that its input ends");
		r->input_ended = true;
	}
}

/* ---- the whole ---- */

/* As attachment_ops.read. */
static int turn(struct relay *r)
{
	struct pollfd fds[ATTACHMENT_FDS_MAX + 1];
	bool writing = r->len || (!r->input_open && !r->input_ended);
	bool reading = r->input_open && !r->len;
	size_t n = r->a->ops->fds(r->a, writing, fds);
	fds[n] = (struct pollfd){reading ? STDIN_FILENO : -1, POLLIN, 0};
	int failed = terminal_poll(fds, n + 1, -1) < 0 ? errno : 0;
	take_signals(r);
	if (failed)
		return failed == EINTR ? 1 : -failed;
	if (fds[n].revents)
		read_input(r);
	if (writing || r->len)
		write_input(r);
	return r->a->ops->read(r->a, take_output, r);
}

static int wait_end(struct relay *r, struct error *err)
{
	int code = 0;
	for (;;) {
		int n = r->a->ops->wait(r->a, WAIT_STEP_MS, &code, err);
		if (n != -EAGAIN)
			return n < 0 ? n : code;
		terminal_poll(NULL, 0, 0);
		take_signals(r);
		if (r->signo)
			return 128 + r->signo;
	}
}

int relay_run(struct attachment *a, bool terminal, struct error *err)
{
	static struct relay r;
	r = (struct relay){.a = a, .terminal = terminal, .input_open = true};
	terminal_take(terminal);
	int n = 1;
	while (n > 0 && !r.signo)
		n = turn(&r);
	int code = r.signo ? 128 + r.signo : wait_end(&r, err);
	terminal_give_back();
	return code;
}
