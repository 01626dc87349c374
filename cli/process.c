#include "cli/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "base/cleanup.h"

#define INTERRUPT_AGAIN_MS 100

extern char **environ;

enum { ENDING = 3 };

static volatile sig_atomic_t noted;
static const int ending[ENDING] = {SIGINT, SIGTERM, SIGHUP};
static struct sigaction before[ENDING];
static timer_t again[ENDING]; /* says it again until it is obeyed */
static bool has_timer[ENDING];

static void every(int i, long ms)
{
	const struct timespec t = {0, ms * 1000000};
	if (has_timer[i])
		timer_settime(again[i], 0, &(struct itimerspec){t, t}, NULL);
}

/* One that came just before a call that waits would not end its waiting: it comes again. */
static void note(int signo)
{
	int saved = errno;
	noted = signo;
	for (int i = 0; i < ENDING; i++)
		if (ending[i] == signo)
			every(i, INTERRUPT_AGAIN_MS);
	errno = saved;
}

void interrupts_note(void)
{
	struct sigaction action = {.sa_handler = note}; /* no SA_RESTART: what waits shall look */
	sigemptyset(&action.sa_mask);
	noted = 0;
	for (int i = 0; i < ENDING; i++) {
		struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = ending[i]};
		has_timer[i] = has_timer[i] || !timer_create(CLOCK_MONOTONIC, &event, &again[i]);
		sigaction(ending[i], NULL, &before[i]);
		if (before[i].sa_handler != SIG_IGN) /* nohup */
			sigaction(ending[i], &action, NULL);
	}
}

void interrupts_release(void)
{
	for (int i = 0; i < ENDING; i++) {
		every(i, 0);
		sigaction(ending[i], &before[i], NULL);
	}
}

void interrupts_forget(void)
{
	for (int i = 0; i < 2 * ENDING; i++) /* twice: one that was on its way when its timer stopped has started it again */
		every(i % ENDING, 0);
	noted = 0;
}

void interrupts_ignore(void)
{
	for (int i = 0; i < ENDING; i++) {
		every(i, 0);
		signal(ending[i], SIG_IGN);
	}
}

void interrupts_end(bool done)
{
	if (done)
		interrupts_ignore();
	else
		interrupts_release();
}

int interrupted(void)
{
	return noted;
}

/* The read end and write end of a stream that is kept; both -1 when it is not. */
struct stream {
	int read, write;
	struct buffer *into;
};

static void stream_close(struct stream *s)
{
	if (s->read >= 0)
		close(s->read);
	if (s->write >= 0)
		close(s->write);
	s->read = s->write = -1;
}

static int stream_open(struct stream *s, struct buffer *into)
{
	int fds[2];
	*s = (struct stream){-1, -1, into};
	if (!into)
		return 0;
	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	s->read = fds[0];
	s->write = fds[1];
	return 0;
}

/* Reads what is there; false at the end. */
static bool stream_read(struct stream *s)
{
	char chunk[4096];
	ssize_t n = read(s->read, chunk, sizeof chunk);
	if (n < 0 && errno == EINTR)
		return true;
	if (n <= 0)
		return false;
	if (s->into->len + (size_t)n <= PROCESS_OUTPUT_MAX)
		buffer_add(s->into, chunk, (size_t)n);
	return true;
}

static int start(const struct process *p, const struct stream *streams, pid_t *ret)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	int r;

	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attributes);
	if (p->directory)
		posix_spawn_file_actions_addchdir_np(&actions, p->directory);
	if (p->in)
		posix_spawn_file_actions_adddup2(&actions, p->in, 0);
	if (p->out)
		posix_spawn_file_actions_adddup2(&actions, streams[0].write, 1);
	else if (p->out_to_err)
		posix_spawn_file_actions_adddup2(&actions, 2, 1);
	if (p->err)
		posix_spawn_file_actions_adddup2(&actions, streams[1].write, 2);
	if (p->own_group) {
		posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
		posix_spawnattr_setpgroup(&attributes, 0);
	}
	r = posix_spawn(ret, p->program, &actions, &attributes, p->argv, environ);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return -r;
}

static void pass_on(const struct process *p, pid_t pid, bool *passed)
{
	if (noted && !p->own_group && !*passed) {
		kill(pid, noted);
		*passed = true;
	}
}

/* Reads the kept streams to their ends. A grandchild that holds one open (a daemon) would keep us here for ever, so the
 * end of the child itself is the end: what it wrote is in the pipe by then. */
static void drain(const struct process *p, struct stream *streams, pid_t pid, bool *passed)
{
	for (;;) {
		struct pollfd fds[2] = {{streams[0].read, POLLIN, 0}, {streams[1].read, POLLIN, 0}};
		siginfo_t info = {0};
		if (fds[0].fd < 0 && fds[1].fd < 0)
			return;
		bool ended = !waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) && info.si_pid == pid;
		int n = poll(fds, 2, ended ? 0 : 20);
		pass_on(p, pid, passed);
		if (n == 0 && ended)
			return;
		for (int i = 0; n > 0 && i < 2; i++)
			if (fds[i].revents && !stream_read(&streams[i]))
				stream_close(&streams[i]);
	}
}

static int wait_for(const struct process *p, pid_t pid, bool *passed)
{
	int status;
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
		pass_on(p, pid, passed);
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int process_run(const struct process *p, struct error *err)
{
	struct stream streams[2] = {{-1, -1, NULL}, {-1, -1, NULL}};
	bool passed = false;
	pid_t pid = -1;
	int r = stream_open(&streams[0], p->out);
	if (!r)
		r = stream_open(&streams[1], p->err);
	if (!r)
		r = start(p, streams, &pid);
	for (int i = 0; i < 2; i++) {
		if (streams[i].write >= 0)
			close(streams[i].write);
		streams[i].write = -1;
	}
	if (!r) {
		drain(p, streams, pid, &passed);
		r = wait_for(p, pid, &passed);
	}
	stream_close(&streams[0]);
	stream_close(&streams[1]);
	if (r < 0)
		return error_set_errno(err, ERROR_INTERNAL, -r, "cannot run %s", p->program);
	return r;
}
