/* What is there: what runs is adopted, what nobody answers for is cleared away first. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "backends/process_loop.h"
#include "base/alloc.h"
#include "base/cleanup.h"

#define LIST_PASSES 2 /* the second after leftovers were cleared away */

struct listed {
	char *name;
	struct process_found found;
	uint64_t memory_bytes;
};

struct listing {
	struct process_backend *backend;
	struct listing *next;
	uv_work_t work;
	struct listed *items;
	size_t count;
	unsigned pass;
	unsigned settling; /* leftovers being cleared away */
	struct error err;
	backend_list_done *done;
	void *arg;
};

static void listing_clear(struct listing *l)
{
	for (size_t i = 0; i < l->count; i++) {
		free(l->items[i].name);
		process_found_release(&l->items[i].found);
	}
	free(l->items);
	l->items = NULL;
	l->count = 0;
}

static void listing_work(uv_work_t *work)
{
	struct listing *l = work->data;
	cleanup_free char *path = xasprintf("%s/services", l->backend->settings.state_dir);
	cleanup_closedir DIR *d = opendir(path);
	if (!d && errno != ENOENT) {
		error_set_errno(&l->err, ERROR_BACKEND_UNREACHABLE, errno, "%s", path);
		return;
	}
	struct dirent *e;
	while (d && (e = readdir(d)) && !error_is_set(&l->err)) {
		struct listed item = {.found = PROCESS_FOUND_INIT};
		cleanup_free char *directory = xasprintf("%s/%s", path, e->d_name);
		if (!backend_service_name_valid(e->d_name) || process_find(directory, &item.found, &l->err))
			continue;
		item.name = xstrdup(e->d_name);
		if (item.found.shim_pidfd >= 0)
			item.memory_bytes = process_memory(item.found.record.shim);
		array_grow(l->items, l->count);
		l->items[l->count++] = item;
	}
}

static void listing_unlink(struct listing *l)
{
	for (struct listing **p = &l->backend->listings; *p; p = &(*p)->next)
		if (*p == l) {
			*p = l->next;
			return;
		}
}

static void listing_finish(struct listing *l)
{
	struct process_backend *b = l->backend;
	struct instances list = {xcalloc(l->count + 1, sizeof *list.items), 0};
	for (size_t i = 0; i < l->count; i++) {
		const struct process_found *f = &l->items[i].found;
		if (!f->has_record)
			continue;
		struct instance *instance = &list.items[list.count++];
		process_instance_fill(instance, process_service_get(b, l->items[i].name), &f->record, f->shim_pidfd >= 0);
		instance->memory_bytes = l->items[i].memory_bytes;
	}
	listing_unlink(l);
	if (l->done)
		l->done(l->arg, error_is_set(&l->err) ? &l->err : NULL, &list);
	free(list.items);
	listing_clear(l);
	error_release(&l->err);
	free(l);
	process_active_end(b);
}

static void listing_begin(struct listing *l);

static void listing_settled(void *arg, const struct error *err)
{
	struct listing *l = arg;
	if (err && !error_is_set(&l->err))
		error_copy(&l->err, err);
	if (--l->settling)
		return;
	if (error_is_set(&l->err) || l->backend->closing)
		listing_finish(l);
	else
		listing_begin(l);
}

static bool unsettled(const struct process_found *f)
{
	return f->shim_pidfd < 0 && (f->held || (f->has_record && !f->record.ended));
}

/* Adopts what runs; has what nobody answers for cleared away, then looks again. A service that an operation works on is
 * that operation's. */
static void listing_worked(uv_work_t *work, int status)
{
	struct listing *l = work->data;
	struct process_backend *b = l->backend;
	bool again = ++l->pass < LIST_PASSES && !b->closing && !error_is_set(&l->err);
	l->settling = 1;
	for (size_t i = 0; i < l->count && !b->closing; i++) {
		struct process_found *f = &l->items[i].found;
		struct process_service *s = process_service_get(b, l->items[i].name);
		if (s->first)
			continue;
		if (f->shim_pidfd >= 0 && !s->watch)
			process_service_watch(s, fcntl(f->shim_pidfd, F_DUPFD_CLOEXEC, 0));
		if (again && unsettled(f)) {
			l->settling++;
			process_service_settle(s, listing_settled, l);
		}
	}
	if (--l->settling == 0)
		listing_finish(l);
}

static void listing_begin(struct listing *l)
{
	listing_clear(l);
	l->work.data = l;
	uv_queue_work(l->backend->base.loop, &l->work, listing_work, listing_worked);
}

void process_list(struct backend *base, backend_list_done *done, void *arg)
{
	struct process_backend *b = (struct process_backend *)base;
	struct listing *l = xcalloc(1, sizeof *l);
	l->backend = b;
	l->done = done;
	l->arg = arg;
	l->next = b->listings;
	b->listings = l;
	process_active_begin(b);
	listing_begin(l);
}

static void listing_cancel(struct listing *l)
{
	backend_list_done *done = l->done;
	l->done = NULL;
	if (!done)
		return;
	cleanup_error struct error err = ERROR_INIT;
	error_set_errno(&err, ERROR_CANCELED, ECANCELED, "the backend is being closed");
	done(l->arg, &err, &(struct instances){NULL, 0});
}

void process_list_cancel(struct process_backend *b)
{
	for (struct listing *l = b->listings; l; l = l->next)
		listing_cancel(l);
}
