#include "cli/terminal.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static const int caught[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGTSTP, SIGPIPE};
#define N_CAUGHT (sizeof caught / sizeof *caught)

static struct {
	bool taken, raw, is_raw;
	struct termios modes;
	sigset_t mask; /* as it was: what terminal_poll lets in */
	struct sigaction actions[N_CAUGHT];
} before;

static volatile sig_atomic_t came[N_CAUGHT];

static void on_signal(int signo)
{
	for (size_t i = 0; i < N_CAUGHT; i++)
		if (caught[i] == signo)
			came[i] = 1;
}

static bool take_one(int signo)
{
	for (size_t i = 0; i < N_CAUGHT; i++)
		if (caught[i] == signo && came[i]) {
			came[i] = 0;
			return true;
		}
	return false;
}

bool terminal_is_there(void)
{
	return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
}

void terminal_size(unsigned *rows, unsigned *columns)
{
	struct winsize size = {0};
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size))
		size = (struct winsize){0};
	*rows = size.ws_row;
	*columns = size.ws_col;
}

static void make_raw(void)
{
	if (!before.raw || tcgetattr(STDIN_FILENO, &before.modes))
		return;
	struct termios raw = before.modes;
	cfmakeraw(&raw);
	before.is_raw = !tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
}

static void make_as_before(void)
{
	if (before.is_raw)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &before.modes);
	before.is_raw = false;
}

void terminal_take(bool raw)
{
	sigset_t set;
	if (before.taken)
		return;
	sigemptyset(&set);
	before.raw = raw;
	for (size_t i = 0; i < N_CAUGHT; i++) {
		struct sigaction action = {.sa_handler = on_signal};
		bool skipped = caught[i] == SIGTSTP && !raw; /* it stops us, as it stops anything */
		came[i] = 0;
		sigaction(caught[i], NULL, &before.actions[i]);
		if (skipped || (before.actions[i].sa_handler == SIG_IGN && caught[i] != SIGWINCH && caught[i] != SIGPIPE)) /* nohup */
			continue;
		sigaddset(&set, caught[i]);
		sigaction(caught[i], &action, NULL);
	}
	sigprocmask(SIG_BLOCK, &set, &before.mask);
	before.taken = true;
	make_raw();
}

/* What a write of ours has raised since the last poll was heard of by its EPIPE, and is not to end us now. */
static void forget_broken_pipes(void)
{
	const struct timespec none = {0, 0};
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGPIPE);
	while (sigtimedwait(&set, NULL, &none) == SIGPIPE)
		;
}

void terminal_give_back(void)
{
	if (!before.taken)
		return;
	before.taken = false;
	make_as_before();
	forget_broken_pipes();
	for (size_t i = 0; i < N_CAUGHT; i++)
		sigaction(caught[i], &before.actions[i], NULL);
	sigprocmask(SIG_SETMASK, &before.mask, NULL);
}

int terminal_poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
	struct timespec ts = {timeout_ms / 1000, timeout_ms % 1000 * 1000000L};
	return ppoll(fds, count, timeout_ms < 0 ? NULL : &ts, &before.mask);
}

bool terminal_was_resized(void)
{
	return take_one(SIGWINCH);
}

/* Whoever continues us may have changed the terminal, and its size. */
static void stop_ourselves(void)
{
	make_as_before();
	raise(SIGSTOP);
	make_raw();
	on_signal(SIGWINCH);
}

int terminal_signal(void)
{
	static const int ends[] = {SIGHUP, SIGTERM, SIGQUIT, SIGINT};
	if (take_one(SIGTSTP))
		stop_ourselves();
	for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
		if (take_one(ends[i]))
			return ends[i];
	return 0;
}
