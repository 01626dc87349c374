#include "backends/alive.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"

#define STAT_MAX 4096
enum { STAT_STATE = 3, STAT_FLAGS = 9, STAT_THREADS = 20, STAT_PENDING = 31 }; /* as proc(5) numbers them */
#define FLAG_EXITING 0x4 /* PF_EXITING of linux/sched.h: it closes its descriptors before it becomes a zombie */

struct look {
	bool there; /* it could be looked at */
	bool lives;
	unsigned long threads;
};

/* A kill that is sent is a death, though the thread has not run since to die of it. */
static struct look look_at(const char *path)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	if (file_read(AT_FDCWD, path, STAT_MAX, &text) || !text.len)
		return (struct look){false, true, 1};
	unsigned long flags = 0, pending = 0;
	struct look look = {true, true, 1};
	char *at = strrchr(text.data, ')'), *save = NULL; /* the name before it may hold anything */
	char *word = at ? strtok_r(at + 1, " ", &save) : NULL;
	for (int field = STAT_STATE; word; word = strtok_r(NULL, " ", &save), field++) {
		if (field == STAT_STATE)
			look.lives = *word != 'Z' && *word != 'X';
		else if (field == STAT_FLAGS)
			flags = strtoul(word, NULL, 10);
		else if (field == STAT_THREADS)
			look.threads = strtoul(word, NULL, 10);
		else if (field == STAT_PENDING)
			pending = strtoul(word, NULL, 10);
	}
	look.lives = look.lives && !(flags & FLAG_EXITING) && !(pending & 1ul << (SIGKILL - 1));
	return look;
}

/* A first thread may end and leave the others at work. */
static bool any_thread_lives(pid_t pid)
{
	cleanup_free char *tasks = xasprintf("/proc/%d/task", (int)pid);
	cleanup_closedir DIR *d = opendir(tasks);
	struct dirent *e;
	while (d && (e = readdir(d))) {
		cleanup_free char *path = xasprintf("%s/%s/stat", tasks, e->d_name);
		struct look look = e->d_name[0] == '.' ? (struct look){false} : look_at(path);
		if (look.there && look.lives)
			return true;
	}
	return false;
}

bool alive(pid_t pid)
{
	char path[40];
	if (kill(pid, 0) && errno == ESRCH)
		return false;
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	struct look look = look_at(path);
	return look.lives || (look.threads > 1 && any_thread_lives(pid));
}
