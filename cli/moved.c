#include "cli/moved.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "cli/git.h"
#include "provisioner/identity.h"

bool moved_is(int dirfd, const char *name, const struct store_environment *e)
{
	cleanup_free char *id = identity_root_id(dirfd, name);
	return id && e->root_id && !strcmp(id, e->root_id);
}

char *moved_beside(const struct store_environment *e)
{
	cleanup_free char *parent = xstrndup(e->root, (size_t)(strrchr(e->root, '/') - e->root) + 1);
	cleanup_closedir DIR *dir = opendir(parent);
	unsigned long long inode = e->root_id ? strtoull(e->root_id, NULL, 10) : 0;
	for (struct dirent *d; dir && inode && (d = readdir(dir));)
		if (d->d_ino == inode && moved_is(dirfd(dir), d->d_name, e))
			return xasprintf("%s%s", parent, d->d_name);
	return NULL;
}

static char *moved_by_git(const struct store_environment *e)
{
	static const char tail[] = "/.git";
	size_t len = strlen(e->repository);
	struct git_worktrees list = {0};
	char *found = NULL;
	if (len <= strlen(tail) || strcmp(e->repository + len - strlen(tail), tail))
		return NULL;
	cleanup_free char *main_root = xstrndup(e->repository, len - strlen(tail));
	if (!git_worktrees_read(e->repository, main_root, &list))
		for (size_t i = 0; i < list.count && !found; i++)
			if (moved_is(AT_FDCWD, list.items[i].path, e))
				found = xstrdup(list.items[i].path);
	git_worktrees_release(&list);
	return found;
}

char *moved_to(const struct store_environment *e)
{
	char *found = moved_beside(e);
	return found ? found : moved_by_git(e);
}
