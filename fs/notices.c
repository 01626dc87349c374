#include "fs/overlay_private.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

struct notice {
	fuse_ino_t parent;
	char *name; /* NULL: the directory itself, its listing and attributes */
};

struct notices {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	pthread_t thread;
	struct fuse_session *session; /* NULL: there is nobody to tell yet, and nothing is queued */
	struct notice queue[OVERLAY_NOTICES_MAX];
	unsigned first, count;
	bool stop;
};

static void *run(void *arg)
{
	struct notices *n = arg;
	pthread_mutex_lock(&n->lock);
	while (!n->stop) {
		if (n->count == 0) {
			pthread_cond_wait(&n->changed, &n->lock);
			continue;
		}
		struct notice one = n->queue[n->first];
		n->first = (n->first + 1) % OVERLAY_NOTICES_MAX;
		n->count--;
		pthread_mutex_unlock(&n->lock);
		if (one.name)
			fuse_lowlevel_notify_inval_entry(n->session, one.parent, one.name, strlen(one.name));
		else
			fuse_lowlevel_notify_inval_inode(n->session, one.parent, 0, 0);
		free(one.name);
		pthread_mutex_lock(&n->lock);
	}
	pthread_mutex_unlock(&n->lock);
	return NULL;
}

struct notices *notices_new(void)
{
	struct notices *n = xcalloc(1, sizeof(*n));
	pthread_mutex_init(&n->lock, NULL);
	pthread_cond_init(&n->changed, NULL);
	return n;
}

void notices_set_session(struct notices *n, struct fuse_session *se)
{
	pthread_mutex_lock(&n->lock);
	if (!n->session && pthread_create(&n->thread, NULL, run, n) == 0)
		n->session = se;
	pthread_mutex_unlock(&n->lock);
}

/* When the queue is full the oldest goes: what it is about is then noticed at the next lookup. Steals `name`. */
static void add(struct notices *n, fuse_ino_t parent, char *name)
{
	pthread_mutex_lock(&n->lock);
	if (n->session) {
		if (n->count == OVERLAY_NOTICES_MAX) {
			free(n->queue[n->first].name);
			n->first = (n->first + 1) % OVERLAY_NOTICES_MAX;
			n->count--;
		}
		n->queue[(n->first + n->count++) % OVERLAY_NOTICES_MAX] = (struct notice){parent, move_ptr(name)};
		pthread_cond_signal(&n->changed);
	}
	pthread_mutex_unlock(&n->lock);
	free(name);
}

void notices_entry(struct notices *n, fuse_ino_t parent, const char *name)
{
	add(n, parent, xstrdup(name));
}

void notices_directory(struct notices *n, fuse_ino_t directory)
{
	add(n, directory, NULL);
}

void notices_free(struct notices *n)
{
	if (!n)
		return;
	pthread_mutex_lock(&n->lock);
	n->stop = true;
	pthread_cond_signal(&n->changed);
	pthread_mutex_unlock(&n->lock);
	if (n->session)
		pthread_join(n->thread, NULL);
	for (; n->count; n->count--, n->first = (n->first + 1) % OVERLAY_NOTICES_MAX)
		free(n->queue[n->first].name);
	pthread_cond_destroy(&n->changed);
	pthread_mutex_destroy(&n->lock);
	free(n);
}
