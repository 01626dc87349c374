/* Which of the registered environments a directory is: the one that is mounted over it, the one that was registered for this very
 * directory, wherever it stood then, or a new one. */
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/identity.h"
#include "provisioner/mounts.h"
#include "provisioner/store.h"

struct rows {
	struct store_environment *items;
	size_t count;
};

static void rows_release(struct rows *rows)
{
	for (size_t i = 0; i < rows->count; i++)
		store_environment_release(&rows->items[i]);
	free(rows->items);
}
#define cleanup_rows __attribute__((cleanup(rows_release)))

static void store_closep(struct store **s)
{
	store_close(*s);
}
#define cleanup_store __attribute__((cleanup(store_closep)))

/* The store, or NULL where this user has none yet: looking makes nothing. */
static int open_store(struct store **ret, struct error *err)
{
	cleanup_free char *shared = NULL;
	int r = identity_shared_dir(&shared, err);
	if (r)
		return r;
	cleanup_free char *database = xasprintf("%s/aether.db", shared);
	return access(database, F_OK) && errno == ENOENT ? 0 : store_open(shared, ret, err);
}

/* new: what the mount over it says: its `.aether` leads to RUNTIME/NAMESPACE. NULL: it is not mounted. */
static char *mounted_namespace(const char *root)
{
	char target[PATH_MAX];
	if (!is_mounted_by_us(root))
		return NULL;
	cleanup_free char *link = xasprintf("%s/.aether", root);
	ssize_t n = readlink(link, target, sizeof target - 1);
	if (n <= 0)
		return NULL;
	target[n] = '\0';
	const char *slash = strrchr(target, '/');
	return slash && !strncmp(slash + 1, "aether-", 7) ? xstrdup(slash + 1) : NULL;
}

/* Is its directory no longer where it was registered? */
static bool has_left(const struct store_environment *e)
{
	if (is_mounted_by_us(e->control_dir))
		return false;
	cleanup_free char *there = identity_root_id(AT_FDCWD, e->root);
	return !there || (e->root_id && strcmp(there, e->root_id));
}

static bool is_gone(const struct store_environment *e)
{
	struct stat st;
	return lstat(e->root, &st) && (errno == ENOENT || errno == ENOTDIR) && !is_mounted_by_us(e->control_dir);
}

static bool is_same_directory(const struct identity *id, const struct store_environment *e)
{
	return id->root_id && e->root_id && !strcmp(id->root_id, e->root_id) && (!strcmp(id->root, e->root) || has_left(e));
}

static bool is_same_place(const struct identity *id, const struct store_environment *e)
{
	return !strcmp(id->root, e->root) && !strcmp(id->workspace, e->workspace);
}

static bool is_same_jj_workspace(const struct identity *id, const struct store_environment *e)
{
	return id->kind == WORKSPACE_JJ && !strcmp(id->repository, e->repository) && !strcmp(id->workspace, e->workspace) &&
	       is_gone(e);
}

/* Surest first. */
static bool (*const rules[])(const struct identity *id, const struct store_environment *e) = {
    is_same_directory, is_same_place, is_same_jj_workspace};

static const struct store_environment *find(const struct rows *rows, const struct identity *id)
{
	for (size_t k = 0; k < sizeof rules / sizeof rules[0]; k++)
		for (size_t i = 0; i < rows->count; i++)
			if (rules[k](id, &rows->items[i]))
				return &rows->items[i];
	return NULL;
}

static bool is_taken(const struct rows *rows, const char *namespace_)
{
	for (size_t i = 0; i < rows->count; i++)
		if (!strcmp(rows->items[i].namespace_, namespace_))
			return true;
	return false;
}

/* new: one that no environment of another directory has, which stood here before */
static char *fresh_namespace(const struct rows *rows, const struct identity *id)
{
	char *namespace_ = identity_namespace(id, 0);
	for (unsigned salt = 1; is_taken(rows, namespace_); salt++) {
		free(namespace_);
		namespace_ = identity_namespace(id, salt);
	}
	return namespace_;
}

int identity_registered(const struct identity *id, char **ret, struct error *err)
{
	cleanup_store struct store *store = NULL;
	cleanup_rows struct rows rows = {NULL, 0};
	*ret = mounted_namespace(id->root);
	if (*ret)
		return 0;
	int r = open_store(&store, err);
	if (!r && store)
		r = store_environment_list(store, &rows.items, &rows.count, err);
	if (r)
		return r;
	const struct store_environment *known = find(&rows, id);
	*ret = known ? xstrdup(known->namespace_) : fresh_namespace(&rows, id);
	return 0;
}

int identity_settle(const struct identity *id, struct error *err)
{
	cleanup_store struct store *store = NULL;
	struct store_environment e = {0};
	int r = open_store(&store, err);
	if (!r && store)
		r = store_environment_get(store, id->namespace_, &e, err);
	if (r == 1)
		r = strcmp(e.root, id->root) ? store_environment_move(store, &e, id->root, id->repository, id->workspace, err) : 0;
	store_environment_release(&e);
	return r;
}
