#include "cli/registry.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "cli/leftovers.h"
#include "provisioner/discard.h"
#include "provisioner/mounts.h"

#define KEEPER_END_MS 3000 /* until keeper and server of what was just unmounted are gone */

int registry_open(struct store **ret, struct error *err)
{
	cleanup_free char *shared = NULL;
	*ret = NULL;
	int r = identity_shared_dir(&shared, err);
	if (r)
		return r;
	cleanup_free char *database = xasprintf("%s/aether.db", shared);
	if (access(database, F_OK) && errno == ENOENT)
		return 0;
	return store_open(shared, ret, err);
}

int registry_list(struct registry_list *ret, struct error *err)
{
	cleanup_store struct store *store = NULL;
	*ret = (struct registry_list){NULL, 0};
	int r = registry_open(&store, err);
	return r || !store ? r : store_environment_list(store, &ret->items, &ret->count, err);
}

void registry_list_release(struct registry_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		store_environment_release(&list->items[i]);
	free(list->items);
	*list = (struct registry_list){NULL, 0};
}

int registry_find_root(const char *root, struct store_environment *ret, struct error *err)
{
	cleanup_registry_list struct registry_list list = {NULL, 0};
	int r = registry_list(&list, err);
	for (size_t i = 0; !r && i < list.count; i++)
		if (!strcmp(list.items[i].root, root)) {
			*ret = list.items[i];
			list.items[i] = (struct store_environment){0};
			return 1;
		}
	return r;
}

int registry_forget(const struct identity *id, struct error *err)
{
	cleanup_store struct store *store = NULL;
	int r = registry_open(&store, err);
	if (!r && store)
		r = store_environment_delete(store, id->namespace_, err);
	return r ? r : discard_directories(id, err);
}

bool registry_is_kept(const struct store_environment *e)
{
	cleanup_free char *path = xasprintf("%s/keeper.lock", e->state_dir);
	cleanup_close int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	return fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;
}

/* Keeper and server hold this lock for life, from before they mount: with it nobody begins on what is being taken away. IN_USE when
 * it is mounted meanwhile. */
static int lock_out_keepers(const struct identity *id, int *ret_fd, struct error *err)
{
	cleanup_free char *path = xasprintf("%s/keeper.lock", id->state_dir);
	uint64_t until = now_monotonic_ms() + KEEPER_END_MS;
	cleanup_close int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return errno == ENOENT ? 0 : error_set_errno(err, ERROR_INTERNAL, errno, "%s", path);
	while (flock(fd, LOCK_EX | LOCK_NB)) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return error_set_errno(err, ERROR_INTERNAL, errno, "%s", path);
		if (is_mounted_by_us(id->root) || now_monotonic_ms() >= until)
			return error_set(err, ERROR_IN_USE, "%s is being mounted by somebody else", id->root);
		poll(NULL, 0, 5);
	}
	*ret_fd = move_fd(&fd);
	return 0;
}

int registry_discard(const struct identity *id, struct error *err)
{
	cleanup_store struct store *store = NULL;
	cleanup_close int lock = -1;
	int r = lock_out_keepers(id, &lock, err);
	if (!r)
		r = leftovers_end(id->state_dir, err);
	if (!r)
		r = registry_open(&store, err);
	cleanup_close int root = open(id->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (!r && store)
		r = discard_record(store, id, root, err);
	return r ? r : discard_directories(id, err);
}

/* Whoever ends as he should says so in the record. */
static bool was_killed(const struct store_environment *e)
{
	return e->backend && e->desired && strcmp(e->desired, "absent") && strcmp(e->desired, "stopped");
}

char **registry_orphans(const struct store_environment *e)
{
	char **names = NULL;
	if (was_killed(e) && !registry_is_kept(e))
		discard_orphans(e, false, &names, NULL);
	return names;
}

static int stop_record(struct store *store, const struct store_environment *e, struct error *err)
{
	int r = leftovers_end(e->state_dir, err);
	if (!r)
		r = discard_orphans(e, true, NULL, err);
	/* one that was being destroyed is to go on with that when it is served again */
	return r < 0 || strcmp(e->desired, "up") ? r : store_environment_set_desired(store, e->namespace_, "stopped", err);
}

int registry_stop(const struct identity *id, struct error *err)
{
	cleanup_store struct store *store = NULL;
	struct store_environment e = {0};
	cleanup_close int lock = -1;
	int r = registry_open(&store, err);
	if (!r && store)
		r = store_environment_get(store, id->namespace_, &e, err);
	if (r == 1) {
		r = was_killed(&e) ? lock_out_keepers(id, &lock, err) : 0;
		if (!r && lock >= 0)
			r = stop_record(store, &e, err);
		store_environment_release(&e);
	}
	return r < 0 ? r : 0;
}

int registry_identity(const struct store_environment *e, struct identity *ret, struct error *err)
{
	return identity_stored(e->namespace_, e->root, e->repository, e->workspace, ret, err);
}
