#include "provisioner/exclude.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"

#define EXCLUDE_MAX (1u << 20)  /* bytes of info/exclude */
#define TARGET_MAX 65536        /* bytes of git_target */

char *git_directory(const struct identity *id)
{
	if (id->kind != WORKSPACE_JJ)
		return id->kind == WORKSPACE_GIT ? xstrdup(id->repository) : NULL;
	cleanup_free char *store = xasprintf("%s/store", id->repository);
	cleanup_free char *file = xasprintf("%s/git_target", store);
	cleanup_buffer struct buffer text = BUFFER_INIT;
	if (file_read(AT_FDCWD, file, TARGET_MAX, &text) || !text.len)
		return NULL;
	cleanup_free char *named = xstrndup(buffer_str(&text), strcspn(buffer_str(&text), "\r\n"));
	cleanup_free char *path = *named == '/' ? xstrdup(named) : xasprintf("%s/%s", store, named);
	return *named ? realpath(path, NULL) : NULL;
}

static bool has_line(const char *text, const char *line)
{
	size_t len = strlen(line);
	for (const char *at = text; (at = strstr(at, line)); at += len)
		if ((at == text || at[-1] == '\n') && (at[len] == '\n' || !at[len]))
			return true;
	return false;
}

int exclude_add(const struct identity *id, const char *line, struct error *err)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_free char *git = git_directory(id);
	if (!git)
		return id->kind == WORKSPACE_PLAIN ? 0 : error_set(err, ERROR_GIT_FAILED, "this repository has no git directory");
	cleanup_free char *info = xasprintf("%s/info", git), *path = xasprintf("%s/exclude", info);
	int r = file_read(AT_FDCWD, path, EXCLUDE_MAX, &text);
	if (r && r != -ENOENT)
		return error_set_errno(err, ERROR_GIT_FAILED, -r, "%s", path);
	if (has_line(buffer_str(&text), line))
		return 0;
	if (text.len && text.data[text.len - 1] != '\n')
		buffer_addc(&text, '\n');
	buffer_printf(&text, "%s\n", line);
	struct stat st;
	mode_t mode = stat(path, &st) ? 0644 : st.st_mode & 0777;
	r = dir_make(AT_FDCWD, info, 0755);
	if (!r)
		r = file_write_atomic(AT_FDCWD, path, text.data, text.len, mode);
	return r ? error_set_errno(err, ERROR_GIT_FAILED, -r, "%s", path) : 0;
}
