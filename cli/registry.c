#include "cli/registry.h"

#include <dirent.h>
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
#include "provisioner/mounts.h"
#include "provisioner/trash.h"

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

static void add_names(const char *path, char ***names)
{
	cleanup_closedir DIR *dir = opendir(path);
	for (struct dirent *d; dir && (d = readdir(dir));)
		if (d->d_name[0] != '.' && strcmp(d->d_name, "volumes"))
			strv_pushf(names, "%s", d->d_name);
}

/* new: the names of what holds data in that generation (a directory a service, and volumes/ of named ones), for the
 * trash to show */
static char **data_names(const struct identity *id, uint32_t generation)
{
	char **names = NULL;
	cleanup_free char *services = xasprintf("%s/data/%u", id->state_dir, generation);
	cleanup_free char *volumes = xasprintf("%s/volumes", services);
	add_names(services, &names);
	add_names(volumes, &names);
	return names;
}

/* Every generation that still has data: a crash may have left an older one. */
static int data_to_trash(struct store *store, const struct identity *id, struct error *err)
{
	cleanup_free char *path = xasprintf("%s/data", id->state_dir);
	cleanup_closedir DIR *dir = opendir(path);
	cleanup_close int root = open(id->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	int r = 0;
	for (struct dirent *d; !r && dir && (d = readdir(dir));) {
		uint32_t generation = (uint32_t)strtoul(d->d_name, NULL, 10);
		if (!generation)
			continue;
		cleanup_strv char **names = data_names(id, generation);
		r = trash_put(store, id, generation, root, names, err);
	}
	return r;
}

static int remove_directories(const struct identity *id, struct error *err)
{
	int r = tree_remove(AT_FDCWD, id->state_dir);
	if (!r)
		r = tree_remove(AT_FDCWD, id->socket_dir);
	if (!r && rmdir(id->control_dir) && errno != ENOENT)
		r = -errno;
	return r ? error_set_errno(err, ERROR_BACKEND_DEPROVISION_FAILED, -r, "cannot remove what belonged to %s",
	                           id->namespace_)
	         : 0;
}

int registry_forget(const struct identity *id, struct error *err)
{
	cleanup_store struct store *store = NULL;
	int r = registry_open(&store, err);
	if (!r && store)
		r = store_environment_delete(store, id->namespace_, err);
	return r ? r : remove_directories(id, err);
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
	if (!r && store)
		r = data_to_trash(store, id, err);
	if (!r && store)
		r = store_environment_delete(store, id->namespace_, err);
	return r ? r : remove_directories(id, err);
}

int registry_identity(const struct store_environment *e, struct identity *ret, struct error *err)
{
	return identity_stored(e->namespace_, e->root, e->repository, e->workspace, ret, err);
}
