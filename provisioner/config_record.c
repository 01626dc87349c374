/* What a configuration was read from, kept as texts by their paths, and reading it again from there when the files have changed since. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "provisioner/config_private.h"

/* new: absolute, as far as anybody can tell; NULL: nobody can */
static char *path_of(const struct loading *l, int dirfd, const char *path)
{
	char link[40], directory[4096];
	struct stat st, root;
	if (path[0] == '/')
		return xstrdup(path);
	if (!fstat(dirfd, &st) && !fstat(l->params->root_fd, &root) && st.st_dev == root.st_dev && st.st_ino == root.st_ino)
		return xasprintf("%s/%s", l->params->root, path);
	snprintf(link, sizeof link, "/proc/self/fd/%d", dirfd);
	ssize_t len = readlink(link, directory, sizeof directory - 1);
	if (len <= 0)
		return NULL;
	directory[len] = '\0';
	return xasprintf("%s/%s", directory, path);
}

void config_record_add(const struct loading *l, int dirfd, const char *path, const char *text)
{
	cleanup_free char *key = l->params->record && !l->params->again ? path_of(l, dirfd, path) : NULL;
	json_t *value = key ? json_string(text) : NULL;
	if (key)
		json_object_set_new(l->params->record, key, value ? value : json_null()); /* it is no UTF-8 */
}

int config_record_open(const struct loading *l, int dirfd, const char *path, struct stat *ret)
{
	cleanup_free char *key = path_of(l, dirfd, path);
	const json_t *value = key ? json_object_get(l->params->record, key) : NULL;
	const char *text = json_string_value(value);
	if (!text)
		return value ? -EILSEQ : -ENOENT;
	cleanup_close int fd = memfd_create("configuration", MFD_CLOEXEC);
	if (fd < 0 || fstat(fd, ret))
		return -errno;
	int r = write_all(fd, text, strlen(text));
	return r < 0 ? r : move_fd(&fd);
}
