#include "cli/leftovers.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "cli/holders.h"

size_t leftovers_find(const char *state_dir, pid_t *ret, size_t max)
{
	cleanup_free char *path = xasprintf("%s/services", state_dir);
	cleanup_closedir DIR *dir = opendir(path);
	size_t count = 0;
	for (struct dirent *d; dir && (d = readdir(dir));) {
		struct stat st;
		cleanup_free char *lock = xasprintf("%s/lock", d->d_name);
		if (d->d_name[0] != '.' && !fstatat(dirfd(dir), lock, &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode))
			count += holders_of_file(st.st_dev, st.st_ino, ret + count, max - count);
	}
	return count;
}

/* One signal to each that still holds a lock: through a pidfd taken before the proof is looked at again, so that a
 * number which was given to another process meanwhile is never hit. Returns how many there are. */
static size_t signal_all(const char *state_dir, int signo)
{
	pid_t pids[LEFTOVERS_MAX], again[LEFTOVERS_MAX];
	int fds[LEFTOVERS_MAX];
	size_t n = leftovers_find(state_dir, pids, LEFTOVERS_MAX);
	for (size_t i = 0; i < n; i++)
		fds[i] = (int)syscall(SYS_pidfd_open, pids[i], 0);
	size_t m = n ? leftovers_find(state_dir, again, LEFTOVERS_MAX) : 0;
	for (size_t i = 0; i < n; i++) {
		for (size_t k = 0; k < m && fds[i] >= 0; k++)
			if (again[k] == pids[i]) {
				syscall(SYS_pidfd_send_signal, fds[i], signo, NULL, 0);
				break;
			}
		if (fds[i] >= 0)
			close(fds[i]);
	}
	return m;
}

static bool wait_none(const char *state_dir, unsigned timeout_ms)
{
	pid_t pid;
	uint64_t until = now_monotonic_ms() + timeout_ms;
	while (leftovers_find(state_dir, &pid, 1)) {
		if (now_monotonic_ms() >= until)
			return false;
		poll(NULL, 0, 20);
	}
	return true;
}

int leftovers_end(const char *state_dir, struct error *err)
{
	pid_t pids[LEFTOVERS_MAX];
	cleanup_buffer struct buffer who = BUFFER_INIT;
	if (!signal_all(state_dir, SIGTERM) || wait_none(state_dir, LEFTOVERS_TERM_MS))
		return 0;
	signal_all(state_dir, SIGKILL);
	if (wait_none(state_dir, LEFTOVERS_KILL_MS))
		return 0;
	size_t n = leftovers_find(state_dir, pids, LEFTOVERS_MAX);
	for (size_t i = 0; i < n; i++)
		buffer_printf(&who, " %d", (int)pids[i]);
	return error_set(err, ERROR_BACKEND_DEPROVISION_FAILED, "still running:%s", buffer_str(&who));
}
