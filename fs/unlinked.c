#include "fs/unlinked.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"

struct view {
	char *name; /* NULL: free */
	pid_t tgid;
	uint64_t until_ms;
};

struct unlinked {
	pthread_mutex_t lock;
	struct view views[UNLINKED_MAX];
};

struct unlinked *unlinked_new(void)
{
	struct unlinked *u = xcalloc(1, sizeof(*u));
	pthread_mutex_init(&u->lock, NULL);
	return u;
}

void unlinked_free(struct unlinked *u)
{
	if (!u)
		return;
	for (int i = 0; i < UNLINKED_MAX; i++)
		free(u->views[i].name);
	pthread_mutex_destroy(&u->lock);
	free(u);
}

static void clear(struct view *v)
{
	free(v->name);
	*v = (struct view){0};
}

/* The one of this name and process (0: any), NULL if none lasts. Lock held. */
static struct view *find(struct unlinked *u, const char *name, pid_t tgid)
{
	uint64_t now = now_monotonic_ms();
	for (int i = 0; i < UNLINKED_MAX; i++) {
		struct view *v = &u->views[i];
		if (v->name && v->until_ms <= now)
			clear(v);
		if (v->name && (!tgid || v->tgid == tgid) && strcmp(v->name, name) == 0)
			return v;
	}
	return NULL;
}

static struct view *oldest(struct unlinked *u)
{
	struct view *found = &u->views[0];
	for (int i = 0; i < UNLINKED_MAX; i++) {
		if (!u->views[i].name)
			return &u->views[i];
		if (u->views[i].until_ms < found->until_ms)
			found = &u->views[i];
	}
	return found;
}

void unlinked_add(struct unlinked *u, const char *name, pid_t tgid)
{
	if (tgid <= 0)
		return; /* a process that we cannot name has no view of its own */
	pthread_mutex_lock(&u->lock);
	struct view *v = find(u, name, tgid);
	if (!v) {
		v = oldest(u);
		clear(v);
		v->name = xstrdup(name);
		v->tgid = tgid;
	}
	v->until_ms = now_monotonic_ms() + UNLINKED_VIEW_MS;
	pthread_mutex_unlock(&u->lock);
}

bool unlinked_hides(struct unlinked *u, const char *name, pid_t tgid)
{
	if (tgid <= 0)
		return false;
	pthread_mutex_lock(&u->lock);
	bool hidden = find(u, name, tgid) != NULL;
	pthread_mutex_unlock(&u->lock);
	return hidden;
}

bool unlinked_any(struct unlinked *u, const char *name)
{
	pthread_mutex_lock(&u->lock);
	bool any = find(u, name, 0) != NULL;
	pthread_mutex_unlock(&u->lock);
	return any;
}

bool unlinked_take(struct unlinked *u, const char *name, pid_t tgid)
{
	if (tgid <= 0)
		return false;
	pthread_mutex_lock(&u->lock);
	struct view *v = find(u, name, tgid);
	bool taken = v != NULL;
	if (v)
		clear(v);
	pthread_mutex_unlock(&u->lock);
	return taken;
}

void unlinked_clear(struct unlinked *u, const char *name)
{
	struct view *v;
	pthread_mutex_lock(&u->lock);
	while ((v = find(u, name, 0)))
		clear(v);
	pthread_mutex_unlock(&u->lock);
}

pid_t thread_group(pid_t tid)
{
	char path[64], line[256];
	int tgid;
	snprintf(path, sizeof(path), "/proc/%d/status", (int)tid);
	cleanup_fclose FILE *f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "Tgid: %d", &tgid) == 1)
			return tgid;
	return tid;
}
