#include "base/path.h"

#include <string.h>

#include "base/alloc.h"

bool path_is_within(const char *path, const char *directory)
{
	size_t n = strlen(directory);
	return !strncmp(path, directory, n) && (!path[n] || path[n] == '/');
}

bool name_ends_in(const char *name, const char *suffix)
{
	size_t n = strlen(name), m = strlen(suffix);
	return n > m && !strcmp(name + n - m, suffix);
}

char *path_flat(const char *path)
{
	char *name = xstrdup(path[0] == '/' ? path + 1 : path);
	for (char *c = name; *c; c++)
		if (*c == '/')
			*c = '-';
	return name;
}
