/* A service's output: read from a pipe, kept in `log`, which becomes `log.1` at SHIM_LOG_MAX. What finds no room on the
 * disk is counted and dropped: the service must neither block nor die for it. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/shim.h"
#include "backends/shim_order.h"

static char chunk[32768];

static void file_open(struct log *l)
{
	l->file = openat(SHIM_FD_DIRECTORY, "log", O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
	struct stat st;
	l->size = l->file >= 0 && !fstat(l->file, &st) ? (uint64_t)st.st_size : 0;
}

int log_open(struct log *l, int64_t uid, int64_t gid)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	if (uid >= 0 && fchown(ends[1], (uid_t)uid, (gid_t)gid))
		return -errno;
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	l->pipe = ends[0];
	l->lost = 0;
	file_open(l);
	return ends[1];
}

static void rotate(struct log *l)
{
	close(l->file);
	renameat(SHIM_FD_DIRECTORY, "log", SHIM_FD_DIRECTORY, "log.1");
	file_open(l);
}

/* Returns how many bytes found room. */
static size_t put(struct log *l, const char *data, size_t len)
{
	if (l->file < 0)
		file_open(l);
	if (l->file < 0)
		return 0;
	size_t done = 0;
	while (done < len) {
		ssize_t n = write(l->file, data + done, len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	l->size += done;
	return done;
}

static void store(struct log *l, const char *data, size_t len)
{
	if (l->size + len > SHIM_LOG_MAX && l->file >= 0)
		rotate(l);
	if (l->lost) {
		char note[96];
		int n = snprintf(note, sizeof note, "\naetherfs: %llu bytes of output found no room here\n",
		                 (unsigned long long)l->lost);
		if (put(l, note, (size_t)n) < (size_t)n) {
			l->lost += len;
			return;
		}
		l->lost = 0;
	}
	l->lost += len - put(l, data, len);
}

bool log_pump(struct log *l)
{
	ssize_t n = read(l->pipe, chunk, sizeof chunk);
	if (n > 0) {
		store(l, chunk, (size_t)n);
		return true;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	close(l->pipe);
	l->pipe = -1;
	return false;
}

void log_say(struct log *l, const char *fmt, ...)
{
	char line[256] = "aetherfs: ";
	size_t used = strlen(line);
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(line + used, sizeof line - used - 1, fmt, ap);
	va_end(ap);
	strcat(line, "\n");
	store(l, line, strlen(line));
}
