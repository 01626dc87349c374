#include "cli/compose_files.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/strv.h"

static const char *const defaults[] = {"aether.yaml", "compose.yaml", "compose.yml", "docker-compose.yaml",
                                       "docker-compose.yml"};
static const char *const patterns[] = {"compose.yaml",   "compose.yml",   "docker-compose.yaml",   "docker-compose.yml",
                                       "compose.*.yaml", "compose.*.yml", "docker-compose.*.yaml", "docker-compose.*.yml"};
/* what others wrote, and what is made */
static const char *const elsewhere[] = {"node_modules", "vendor", "target", "build", "dist", "venv", "__pycache__"};

bool compose_file_is_default(const char *path)
{
	for (size_t i = 0; i < sizeof defaults / sizeof defaults[0]; i++)
		if (!strcmp(defaults[i], path))
			return true;
	return false;
}

static bool matches(const char *name)
{
	for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++)
		if (!fnmatch(patterns[i], name, 0))
			return true;
	return !strcmp(name, defaults[0]);
}

static bool is_elsewhere(int at, const char *name)
{
	for (size_t i = 0; i < sizeof elsewhere / sizeof elsewhere[0]; i++)
		if (!strcmp(elsewhere[i], name))
			return true;
	struct stat st;
	cleanup_free char *git = xasprintf("%s/.git", name), *jj = xasprintf("%s/.jj", name);
	return name[0] == '.' || !fstatat(at, git, &st, AT_SYMLINK_NOFOLLOW) || !fstatat(at, jj, &st, AT_SYMLINK_NOFOLLOW);
}

/* One level: files into `found`, directories into `below`. */
static void look(const char *root, const char *prefix, unsigned *budget, char ***found, char ***below)
{
	cleanup_free char *path = xasprintf("%s/%s", root, prefix);
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	cleanup_closedir DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	for (struct dirent *d; dir && *budget && (d = readdir(dir)); --*budget) {
		struct stat st;
		if (d->d_name[0] == '.' || fstatat(dirfd(dir), d->d_name, &st, AT_SYMLINK_NOFOLLOW))
			continue;
		if (S_ISREG(st.st_mode) && matches(d->d_name))
			strv_pushf(found, "%s%s", prefix, d->d_name);
		else if (S_ISDIR(st.st_mode) && !is_elsewhere(dirfd(dir), d->d_name))
			strv_pushf(below, "%s%s/", prefix, d->d_name);
	}
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

char **compose_files_find(const char *root)
{
	unsigned budget = COMPOSE_LOOKED_AT_MAX;
	char **found = NULL;
	cleanup_strv char **level = NULL;
	strv_pushf(&level, "%s", "");
	for (unsigned depth = 0; level && depth <= COMPOSE_DEPTH_MAX; depth++) {
		char **below = NULL;
		size_t before = strv_len(found);
		for (char **prefix = level; *prefix; prefix++)
			look(root, *prefix, &budget, &found, &below);
		if (strv_len(found) > before)
			qsort(found + before, strv_len(found) - before, sizeof *found, by_name);
		strv_free(level);
		level = below;
	}
	return found;
}
