/* Where a configuration is looked for, and reading files of the workspace from beneath our own mount. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hash.h"
#include "provisioner/config_private.h"
#include "provisioner/envfile.h"

#ifndef FUSE_SUPER_MAGIC
#define FUSE_SUPER_MAGIC 0x65735546
#endif

static const char *const file_names[] = {"aether.yaml",         "compose.yaml",       "compose.yml",
                                         "docker-compose.yaml", "docker-compose.yml", NULL};

/* A link may lead into a mount of ours (`.env -> .aether/env`), where reading would start services: such a file is on a
 * FUSE file system other than the directory's, and is as if it were not there. Looking costs no open (O_PATH). */
static int open_to_look(int dirfd, const char *path, struct stat *ret)
{
	struct stat dir;
	struct statfs fs;
	cleanup_close int fd = openat(dirfd, path, O_PATH | O_CLOEXEC);
	if (fd < 0 || fstat(fd, ret) < 0 || fstat(dirfd, &dir) < 0 || fstatfs(fd, &fs) < 0)
		return -errno;
	if (fs.f_type == FUSE_SUPER_MAGIC && ret->st_dev != dir.st_dev)
		return -ENOENT;
	if (!S_ISREG(ret->st_mode))
		return S_ISDIR(ret->st_mode) ? -EISDIR : -EINVAL;
	return move_fd(&fd);
}

static int read_file(struct loading *l, int dirfd, const char *path, struct buffer *out)
{
	struct stat st;
	char proc[40];
	cleanup_close int fd = open_to_look(dirfd, path, &st);
	if (fd < 0)
		return fd;
	snprintf(proc, sizeof proc, "/proc/self/fd/%d", fd);
	size_t before = out->len;
	int r = file_read(AT_FDCWD, proc, CONFIG_FILE_MAX, out);
	if (r < 0)
		return r;
	l->hash = hash_str(l->hash, path);
	l->hash = hash_bytes(l->hash, out->data ? out->data + before : "", out->len - before);
	return 0;
}

/* ---- the configuration ---- */

static int found(struct loading *l, const char *directory, const char *name, struct buffer *out)
{
	l->config->directory = xstrdup(directory);
	l->config->file = xasprintf("%s%s%s", directory, !strcmp(directory, "/") ? "" : "/", name);
	/* by its name alone in the workspace and the main checkout: there people stand */
	l->reader.file = l->place == ABOVE ? l->config->file : name;
	l->reader.path = l->config->file;
	int r = read_file(l, l->dir_fd, name, out);
	if (r == -EFBIG)
		return error_set(l->reader.err, ERROR_CONFIG_INVALID, "%s is larger than %u MiB", l->config->file,
		                 CONFIG_FILE_MAX >> 20);
	return r < 0 ? error_set_errno(l->reader.err, ERROR_CONFIG_INVALID, -r, "%s cannot be read", l->config->file) : 0;
}

/* 1: there it is; 0: go on; negative errno. A directory or a dangling link of that name is passed over. */
static int try_directory(struct loading *l, const char *directory, struct buffer *out)
{
	struct stat st;
	for (const char *const *name = file_names; *name; name++) {
		cleanup_close int fd = open_to_look(l->dir_fd, *name, &st);
		if (fd == -EACCES)
			return error_set_errno(l->reader.err, ERROR_CONFIG_INVALID, EACCES, "%s/%s", directory, *name);
		if (fd < 0)
			continue;
		/* above the workspace may lie what a stranger put there: /tmp/compose.yaml */
		if (l->place == ABOVE && st.st_uid != geteuid() && st.st_uid != 0)
			continue;
		int r = found(l, directory, *name, out);
		return r < 0 ? r : 1;
	}
	return 0;
}

static void leave_directory(struct loading *l)
{
	if (l->dir_fd >= 0 && l->dir_fd != l->params->root_fd)
		close(l->dir_fd);
	l->dir_fd = -1;
}

static int try_path(struct loading *l, const char *directory, struct buffer *out)
{
	leave_directory(l);
	l->dir_fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return l->dir_fd < 0 ? 0 : try_directory(l, directory, out);
}

static int try_above(struct loading *l, struct buffer *out)
{
	cleanup_free char *directory = xstrdup(l->params->root);
	int r = 0;
	l->place = ABOVE;
	for (char *slash; r == 0 && (slash = strrchr(directory, '/')) && directory[1];) {
		slash[slash == directory] = '\0'; /* the root keeps its slash */
		r = try_path(l, directory, out);
	}
	return r;
}

int loading_find(struct loading *l, struct buffer *out)
{
	const struct config_params *p = l->params;
	l->place = IN_WORKSPACE;
	l->dir_fd = p->root_fd;
	int r = try_directory(l, p->root, out);
	if (r == 0 && p->main_root && strcmp(p->main_root, p->root)) {
		l->place = IN_MAIN;
		r = try_path(l, p->main_root, out);
	}
	if (r == 0 && p->search_upwards)
		r = try_above(l, out);
	if (r != 0)
		return r < 0 ? r : 0;
	r = error_set(l->reader.err, ERROR_CONFIG_NOT_FOUND, "no configuration in %s%s%s", p->root,
	              p->main_root && strcmp(p->main_root, p->root) ? " or " : "",
	              p->main_root && strcmp(p->main_root, p->root) ? p->main_root : "");
	error_hint(l->reader.err,
	           "looked for aether.yaml, compose.yaml, compose.yml, docker-compose.yaml and docker-compose.yml%s",
	           p->search_upwards ? ", also in the directories above" : "");
	return r;
}

/* ---- env_file ---- */

/* "./a//b/../c" -> "a/c"; leading ".." stay. new */
static char *normalized(const char *path)
{
	cleanup_strv char **parts = NULL;
	struct buffer out = BUFFER_INIT;
	while (*path) {
		size_t len = strcspn(path, "/"), n = strv_len(parts);
		if (len == 2 && !strncmp(path, "..", 2) && n && strcmp(parts[n - 1], "..")) {
			free(parts[n - 1]);
			parts[n - 1] = NULL;
		} else if (len && !(len == 1 && *path == '.')) {
			strv_push(&parts, xstrndup(path, len));
		}
		path += len + (path[len] == '/');
	}
	for (char **part = parts; part && *part; part++)
		buffer_printf(&out, "%s%s", out.len ? "/" : "", *part);
	if (!out.len)
		buffer_adds(&out, ".");
	return buffer_detach(&out);
}

/* What follows `directory` in an absolute path; NULL: it does not lie below. borrowed */
static const char *below(const char *path, const char *directory)
{
	size_t len = directory ? strlen(directory) : 0;
	return len && !strncmp(path, directory, len) && path[len] == '/' ? path + len + 1 : NULL;
}

bool loading_is_outside(const struct loading *l, const char *path)
{
	cleanup_free char *relative = normalized(path);
	if (path[0] == '~')
		return true;
	if (path[0] != '/')
		return !strcmp(relative, "..") || !strncmp(relative, "../", 3);
	cleanup_free char *absolute = xasprintf("/%s", relative);
	return !below(absolute, l->params->root) && !below(absolute, l->params->main_root);
}

static int read_anywhere(struct loading *l, const char *path, struct buffer *out, bool *ret_outside)
{
	const struct config_params *p = l->params;
	const char *inside = path[0] == '/' ? below(path, p->root) : NULL;
	cleanup_free char *relative = normalized(inside ? inside : path);
	bool above = !strcmp(relative, "..") || !strncmp(relative, "../", 3);
	int r;
	*ret_outside = above || l->place == ABOVE;
	if (path[0] == '/' && !inside) {
		*ret_outside = !below(path, p->main_root);
		cleanup_close int slash = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
		return read_file(l, slash, path, out);
	}
	r = read_file(l, inside ? p->root_fd : l->dir_fd, relative, out);
	/* what is not tracked stands in the main checkout alone */
	if (r == -ENOENT && !above && l->place == IN_WORKSPACE && p->main_root && strcmp(p->main_root, p->root)) {
		cleanup_close int main_fd = open(p->main_root, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (main_fd >= 0)
			r = read_file(l, main_fd, relative, out);
	}
	return r;
}

/* `.env` beside the configuration is the user's layers, which whoever loads us has read (never through a mount, where a
 * read starts services); a fresh workspace has no such file. */
static bool is_users_env(const struct loading *l, const char *path)
{
	const char *inside = path[0] == '/' ? below(path, l->params->root) : NULL;
	if (path[0] == '/' && !inside)
		inside = below(path, l->params->main_root);
	if (l->place == ABOVE || (path[0] == '/' && !inside))
		return false;
	cleanup_free char *relative = normalized(inside ? inside : path);
	return !strcmp(relative, ".env");
}

/* A change of any of the places where it may be is a change of the configuration. */
static void remember_env_file(struct loading *l, const char *path)
{
	const struct config_params *p = l->params;
	if (path[0] == '/') {
		strv_push(&l->config->env_files, xstrdup(path));
		return;
	}
	cleanup_free char *relative = normalized(path);
	strv_pushf(&l->config->env_files, "%s/%s", l->config->directory, relative);
	if (l->place == IN_WORKSPACE && p->main_root && strcmp(p->main_root, p->root))
		strv_pushf(&l->config->env_files, "%s/%s", p->main_root, relative);
}

int loading_read_env_file(struct loading *l, const char *path, struct keyvals *out, bool *ret_outside)
{
	*ret_outside = false;
	if (is_users_env(l, path)) {
		if (l->params->variables)
			keyvals_copy(out, l->params->variables);
		return 0;
	}
	cleanup_buffer struct buffer text = BUFFER_INIT;
	remember_env_file(l, path);
	int r = read_anywhere(l, path, &text, ret_outside);
	if (r < 0)
		return r;
	envfile_parse(buffer_str(&text), loading_variable, l, NULL, out);
	return 0;
}

const char *loading_variable(void *arg, const char *name)
{
	const struct loading *l = arg;
	size_t len = strlen(name);
	for (char *const *e = l->params->environ_; e && *e; e++)
		if (!strncmp(*e, name, len) && (*e)[len] == '=')
			return *e + len + 1;
	const char *value = l->params->variables ? keyvals_get(l->params->variables, name) : NULL;
	return value || strcmp(name, "COMPOSE_PROJECT_NAME") ? value : l->project;
}
