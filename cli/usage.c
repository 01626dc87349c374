#include "cli/usage.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"

#define STAT_MAX 4096

struct process {
	pid_t pid, parent;
	uint64_t ticks, pages;
};

struct table {
	struct process *items;
	size_t count;
};

/* The fields behind the name, which may hold anything: state, ppid, ... (14) utime, (15) stime, ... (24) rss. */
static bool read_process(const char *name, struct process *ret)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_free char *path = xasprintf("/proc/%s/stat", name);
	unsigned long utime, stime;
	long rss;
	int parent;
	if (file_read(AT_FDCWD, path, STAT_MAX, &text))
		return false;
	const char *rest = strrchr(buffer_str(&text), ')');
	if (!rest || sscanf(rest + 1, " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %*d %*d %*u %*u %ld", &parent, &utime, &stime, &rss) != 4)
		return false;
	*ret = (struct process){atoi(name), parent, utime + stime, rss > 0 ? (uint64_t)rss : 0};
	return true;
}

static struct table read_table(void)
{
	struct table t = {NULL, 0};
	cleanup_closedir DIR *d = opendir("/proc");
	struct process p;
	for (struct dirent *e; d && (e = readdir(d));)
		if (isdigit((unsigned char)e->d_name[0]) && read_process(e->d_name, &p)) {
			array_grow(t.items, t.count);
			t.items[t.count++] = p;
		}
	return t;
}

static const struct process *find(const struct table *t, pid_t pid)
{
	for (size_t i = 0; i < t->count; i++)
		if (t->items[i].pid == pid)
			return &t->items[i];
	return NULL;
}

static bool descends(const struct table *t, const struct process *p, pid_t root)
{
	for (unsigned depth = 0; p && depth < 1000; depth++) {
		if (p->pid == root)
			return true;
		p = find(t, p->parent);
	}
	return false;
}

void usage_look(const pid_t *roots, size_t count, struct usage *ret)
{
	struct table t = read_table();
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	for (size_t i = 0; i < count; i++) {
		ret[i] = (struct usage){0, 0, 0};
		for (size_t k = 0; roots[i] > 0 && k < t.count; k++)
			if (descends(&t, &t.items[k], roots[i])) {
				ret[i].memory_bytes += t.items[k].pages * page;
				ret[i].cpu_ticks += t.items[k].ticks;
				ret[i].processes++;
			}
	}
	free(t.items);
}
