#include "provisioner/discard.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/backend.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "provisioner/model.h"
#include "provisioner/trash.h"

static void add_names(const char *path, char ***names)
{
	cleanup_closedir DIR *dir = opendir(path);
	for (struct dirent *d; dir && (d = readdir(dir));)
		if (d->d_name[0] != '.' && strcmp(d->d_name, SPEC_VOLUMES))
			strv_pushf(names, "%s", d->d_name);
}

char **discard_data_names(const struct identity *id, uint32_t generation)
{
	char **names = NULL;
	cleanup_free char *services = xasprintf("%s/data/%u", id->state_dir, generation);
	cleanup_free char *volumes = xasprintf("%s/" SPEC_VOLUMES, services);
	add_names(services, &names);
	add_names(volumes, &names);
	return names;
}

static int data_to_trash(struct store *store, const struct identity *id, bool started, int root_fd, struct error *err)
{
	cleanup_free char *path = xasprintf("%s/data", id->state_dir);
	cleanup_closedir DIR *dir = opendir(path);
	cleanup_close int env = trash_env_open(id, root_fd);
	int r = 0;
	for (struct dirent *d; !r && dir && (d = readdir(dir));) {
		uint32_t generation = (uint32_t)strtoul(d->d_name, NULL, 10);
		if (!generation)
			continue;
		if (!started)
			trash_drop_empty(id, generation);
		cleanup_strv char **names = discard_data_names(id, generation);
		r = trash_put(store, id, generation, env, names, err);
	}
	if (!r && trash_env_is_aside(id))
		r = trash_put(store, id, 1, env, NULL, err);
	return r;
}

int discard_directories(const struct identity *id, struct error *err)
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

int discard_orphans(const struct store_environment *e, bool remove, char ***found, struct error *err)
{
	int r = backend_sweep(e->backend, e->backend_target, e->namespace_, remove, found, err);
	return r < 0 ? r : backend_sweep_made(e->state_dir, e->namespace_, remove, found, err);
}

static int remove_orphans(struct store *s, const struct identity *id, bool *ret_started, struct error *err)
{
	struct store_environment e = {0};
	int r = store_environment_get(s, id->namespace_, &e, err);
	*ret_started = r != 1 || e.backend;
	if (r == 1)
		r = discard_orphans(&e, true, NULL, err);
	store_environment_release(&e);
	return r < 0 ? r : 0;
}

int discard_record(struct store *s, const struct identity *id, int root_fd, struct error *err)
{
	bool started;
	int r = remove_orphans(s, id, &started, err);
	if (!r)
		r = data_to_trash(s, id, started, root_fd, err);
	return r ? r : store_environment_delete(s, id->namespace_, err);
}
