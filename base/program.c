#include "base/program.h"

#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "aether_config.h"
#include "base/alloc.h"
#include "base/cleanup.h"

/* new: the directory of the running program; NULL when /proc does not tell. */
static char *own_directory(void)
{
	char path[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
	if (n <= 0)
		return NULL;
	path[n] = '\0';
	char *slash = strrchr(path, '/');
	return slash ? xstrndup(path, (size_t)(slash - path)) : NULL;
}

static bool is_executable_file(const char *path)
{
	struct stat st;
	return !stat(path, &st) && S_ISREG(st.st_mode) && !access(path, X_OK);
}

static bool is_directory(const char *path)
{
	struct stat st;
	return !stat(path, &st) && S_ISDIR(st.st_mode);
}

char *program_path(const char *name)
{
	/* beside (build tree, libexec), from libexec to bin, from bin to libexec: an installation may be moved as a whole */
	static const char *const places[] = {".", "../libexec/aetherfs", "../../bin"};
	cleanup_free char *own = own_directory();
	for (size_t i = 0; own && i < sizeof places / sizeof places[0]; i++) {
		cleanup_free char *path = xasprintf("%s/%s/%s", own, places[i], name);
		if (is_executable_file(path))
			return realpath(path, NULL);
	}
	return xasprintf("%s/%s", AETHER_LIBEXECDIR, name);
}

char *program_recipes_dir(void)
{
	cleanup_free char *own = own_directory();
	const char *const suffixes[] = {"contrib", "../share/aetherfs/recipes", "../../share/aetherfs/recipes"};
	for (size_t i = 0; own && i < sizeof suffixes / sizeof suffixes[0]; i++) {
		cleanup_free char *dir = xasprintf("%s/%s", own, suffixes[i]);
		if (is_directory(dir))
			return realpath(dir, NULL);
	}
	return xstrdup(AETHER_RECIPESDIR);
}

char *program_in_path(const char *name, const char *path)
{
	if (strchr(name, '/'))
		return is_executable_file(name) ? xstrdup(name) : NULL;
	for (const char *p = path; p && *p;) {
		size_t n = strcspn(p, ":");
		cleanup_free char *candidate = xasprintf("%.*s/%s", n ? (int)n : 1, n ? p : ".", name);
		if (is_executable_file(candidate))
			return move_ptr(candidate);
		p += n + (p[n] == ':');
	}
	return NULL;
}
