/* aetherfs-helper: short-lived work that must not be done by the server itself, because it goes through the server's own mounts or may block in
 * the kernel. libc only.
 *
 *   aetherfs-helper touch PATH...   sets each path's times to now, through the mount: watchers hear IN_ATTRIB
 *   aetherfs-helper notify FD       reads records {uint32_t length, bytes} from standard input and writes each to FD: raw FUSE notifications
 *   aetherfs-helper prewarm DIR     walks DIR once, politely, so that the first `git status` finds everything cached
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NOTIFY_MAX 4096
#define PREWARM_ENTRIES_MAX 200000
#define PREWARM_DEPTH_MAX 64
#define PREWARM_YIELD_EVERY 512
#define PREWARM_SECONDS_MAX 10

static int touch(char **paths)
{
	int failed = 0;
	for (; *paths; paths++)
		failed |= utimensat(AT_FDCWD, *paths, NULL, 0) != 0;
	return failed;
}

static int read_exactly(void *buf, size_t len)
{
	char *p = buf;
	while (len) {
		ssize_t n = read(STDIN_FILENO, p, len);
		if (n <= 0)
			return -1;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static int notify(int fd)
{
	char record[NOTIFY_MAX];
	uint32_t len;
	int failed = 0;
	while (!read_exactly(&len, sizeof len)) {
		if (len > sizeof record || read_exactly(record, len))
			return 1;
		failed |= write(fd, record, len) != (ssize_t)len; /* ENOENT: the kernel does not know the name, which is fine */
	}
	return failed;
}

static unsigned walked;

static void walk(int dirfd, const char *name, dev_t dev, unsigned depth)
{
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return;
	struct stat st;
	DIR *d = !fstat(fd, &st) && st.st_dev == dev ? fdopendir(fd) : NULL;
	if (!d) {
		close(fd);
		return;
	}
	struct dirent *e;
	while ((e = readdir(d)) && walked < PREWARM_ENTRIES_MAX) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (++walked % PREWARM_YIELD_EVERY == 0)
			usleep(1000);
		if (e->d_type == DT_DIR && depth < PREWARM_DEPTH_MAX)
			walk(fd, e->d_name, dev, depth + 1);
	}
	closedir(d);
}

static int prewarm(const char *dir)
{
	struct stat st;
	alarm(PREWARM_SECONDS_MAX);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	setpriority(PRIO_PROCESS, 0, 19);
	syscall(SYS_ioprio_set, 1 /* IOPRIO_WHO_PROCESS */, 0, 3 << 13 /* IOPRIO_CLASS_IDLE */);
	if (stat(dir, &st))
		return 1;
	walk(AT_FDCWD, dir, st.st_dev, 0);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc >= 3 && !strcmp(argv[1], "touch"))
		return touch(argv + 2);
	if (argc == 3 && !strcmp(argv[1], "notify"))
		return notify(atoi(argv[2]));
	if (argc == 3 && !strcmp(argv[1], "prewarm"))
		return prewarm(argv[2]);
	fputs("usage: aetherfs-helper touch PATH... | notify FD | prewarm DIR\n", stderr);
	return 2;
}
