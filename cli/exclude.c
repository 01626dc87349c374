#include "cli/exclude.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "cli/git.h"
#include "cli/output.h"

#define EXCLUDE_MAX (1u << 20) /* bytes of info/exclude */

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

static bool has_local_file(const char *root)
{
	cleanup_free char *path = xasprintf("%s/" LOCAL_FILE, root);
	return faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

void exclude_local_file(const struct identity *id)
{
	cleanup_error struct error why = ERROR_INIT;
	if (!has_local_file(id->root) && !(id->main_root && has_local_file(id->main_root)))
		return;
	if (exclude_add(id, "/" LOCAL_FILE, &why))
		output_note("Warning: " LOCAL_FILE " is not kept out of the VCS: %s", why.message);
}
