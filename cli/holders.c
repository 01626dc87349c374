#include "cli/holders.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"

#define ANCESTORS_MAX 64 /* a longer chain is a loop of pid reuse */

static pid_t parent_of(pid_t pid)
{
	char path[64];
	cleanup_buffer struct buffer text = BUFFER_INIT;
	int parent = 0;
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	if (file_read(AT_FDCWD, path, 4096, &text))
		return 0;
	char *end = strrchr(buffer_str(&text), ')'); /* the name may hold spaces and parentheses */
	if (!end || sscanf(end + 1, " %*c %d", &parent) != 1)
		return 0;
	return parent;
}

bool process_descends(pid_t pid, pid_t from)
{
	for (int i = 0; pid > 0 && i < ANCESTORS_MAX; i++, pid = parent_of(pid))
		if (pid == from)
			return true;
	return false;
}

static void comm_of(pid_t pid, char *out, size_t size)
{
	char path[64];
	cleanup_buffer struct buffer text = BUFFER_INIT;
	snprintf(path, sizeof path, "/proc/%d/comm", (int)pid);
	if (file_read(AT_FDCWD, path, 4096, &text))
		buffer_adds(&text, "?");
	snprintf(out, size, "%.*s", (int)strcspn(buffer_str(&text), "\n"), buffer_str(&text));
}

/* statx, not stat: what is cached is enough, and a mount whose server hangs must not hang us. */
static bool on_device(int dirfd, const char *name, dev_t device)
{
	struct statx st;
	if (statx(dirfd, name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, 0, &st))
		return false;
	return makedev(st.stx_dev_major, st.stx_dev_minor) == device;
}

/* Calls `each` for every descriptor of the process until it says true. */
static bool any_descriptor(int proc, bool (*each)(int dirfd, const char *name, const void *arg), const void *arg)
{
	int fd = openat(proc, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return false;
	cleanup_closedir DIR *dir = fdopendir(fd);
	for (struct dirent *d; dir && (d = readdir(dir));)
		if (d->d_name[0] != '.' && each(fd, d->d_name, arg))
			return true;
	return false;
}

static bool descriptor_on_device(int dirfd, const char *name, const void *arg)
{
	return on_device(dirfd, name, *(const dev_t *)arg);
}

static unsigned how_it_holds(int proc, dev_t device)
{
	unsigned how = 0;
	if (on_device(proc, "cwd", device) || on_device(proc, "root", device))
		how |= HOLDS_CWD;
	if (on_device(proc, "exe", device) || any_descriptor(proc, descriptor_on_device, &device))
		how |= HOLDS_FILE;
	return how;
}

/* Calls `each` for every process but this one while it says true. */
static void each_process(bool (*each)(pid_t pid, int proc, void *arg), void *arg)
{
	cleanup_closedir DIR *dir = opendir("/proc");
	for (struct dirent *d; dir && (d = readdir(dir));) {
		pid_t pid = (pid_t)atoi(d->d_name);
		if (pid <= 0 || pid == getpid())
			continue;
		cleanup_close int proc = openat(dirfd(dir), d->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (proc >= 0 && !each(pid, proc, arg))
			return;
	}
}

struct device_search {
	dev_t device;
	struct holder *list;
	size_t count;
};

static bool look_for_device(pid_t pid, int proc, void *arg)
{
	struct device_search *search = arg;
	unsigned how = how_it_holds(proc, search->device);
	if (!how)
		return true;
	struct holder *h = &search->list[search->count++];
	*h = (struct holder){.pid = pid, .how = how, .ancestor = process_descends(getppid(), pid)};
	comm_of(pid, h->command, sizeof h->command);
	return search->count < HOLDERS_MAX;
}

size_t holders_find(dev_t device, struct holder *ret)
{
	struct device_search search = {device, ret, 0};
	each_process(look_for_device, &search);
	return search.count;
}

void holders_describe(const struct holder *list, size_t count, struct buffer *out)
{
	for (size_t i = 0; i < count; i++)
		buffer_printf(out, "%s%d (%s%s)", i ? ", " : "", (int)list[i].pid, list[i].command,
		              list[i].how & HOLDS_CWD ? ", working directory" : "");
}

struct file_search {
	dev_t device;
	ino_t inode;
	pid_t *list;
	size_t count, max;
};

static bool descriptor_is(int dirfd, const char *name, const void *arg)
{
	const struct file_search *search = arg;
	struct statx st;
	return !statx(dirfd, name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_INO, &st) && st.stx_ino == search->inode &&
	       makedev(st.stx_dev_major, st.stx_dev_minor) == search->device;
}

static bool look_for_file(pid_t pid, int proc, void *arg)
{
	struct file_search *search = arg;
	if (any_descriptor(proc, descriptor_is, search))
		search->list[search->count++] = pid;
	return search->count < search->max;
}

size_t holders_of_file(dev_t device, ino_t inode, pid_t *ret, size_t max)
{
	struct file_search search = {device, inode, ret, 0, max};
	if (max)
		each_process(look_for_file, &search);
	return search.count;
}
