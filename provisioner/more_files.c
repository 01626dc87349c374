/* The files of x-aether.env_files: their lines, and the texts that are read there. As `.env` they have three layers: the same path in the
 * main checkout, the workspace's own file beneath, what is generated. Whoever renames a file over one, or makes it anew, has put an
 * ordinary file there: it is the workspace's own, but for the block of ours that it may hold. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "provisioner/env_name.h"
#include "provisioner/envfile.h"
#include "provisioner/environment_private.h"
#include "provisioner/layers.h"

struct more_file {
	char *path, *flat; /* the path with ':' for '/': a name in one directory */
	uint64_t stamp;
	struct buffer own;
	struct main_layer main;
};

static void file_release(struct more_file *f)
{
	main_layer_close(&f->main);
	buffer_release(&f->own);
	free(f->path);
	free(f->flat);
}

void more_files_release(struct environment *e)
{
	for (size_t i = 0; i < e->n_more_files; i++)
		file_release(&e->more_files[i]);
	free(move_ptr(e->more_files));
	e->n_more_files = 0;
}

/* ---- beneath ---- */

/* The directory that it lies in, beneath the mount and never behind a link. */
static int open_directory(const struct environment *e, const struct more_file *f, const char **ret_name)
{
	const struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV};
	const char *slash = strrchr(f->path, '/');
	cleanup_free char *directory = slash ? xstrndup(f->path, (size_t)(slash - f->path)) : xstrdup(".");
	*ret_name = slash ? slash + 1 : f->path;
	int fd = (int)syscall(SYS_openat2, e->params.root_fd, directory, &how, sizeof how);
	return fd < 0 ? -errno : fd;
}

static int write_lines(const struct environment *e, const struct more_file *f, const struct buffer *text, struct error *err)
{
	const char *name;
	struct stat st;
	cleanup_close int directory = open_directory(e, f, &name);
	bool exists = directory >= 0 && fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
	int r = directory;
	if (r >= 0 && !exists && !text->len)
		return 0;
	if (r >= 0)
		r = exists && !S_ISREG(st.st_mode) ? -EEXIST
		                                   : file_write_atomic(directory, name, buffer_str(text), text->len, exists ? st.st_mode & 07777 : 0600);
	return r < 0 ? error_set_errno(err, r == -ENOSPC ? ERROR_NO_SPACE : ERROR_PERMISSION, -r, "cannot write %s beneath the mount", f->path) : 0;
}

static void take_own(struct environment *e, struct more_file *f, const struct buffer *text)
{
	buffer_clear(&f->own);
	buffer_adds(&f->own, buffer_str(text));
	environment_mark(e, CHANGED_OWN_FILES);
	int r = main_layer_publish(e->id, f->flat, buffer_str(&f->own), f->own.len);
	if (r < 0)
		log_warning("environment", "other workspaces may see an old %s of this checkout: %s", f->path, strerror(-r));
}

/* What is there now. A block of ours in it (somebody has renamed what he had read over it) goes: what is inherited stands in no file. */
static void refresh_own(struct environment *e, struct more_file *f)
{
	cleanup_buffer struct buffer text = BUFFER_INIT, own = BUFFER_INIT;
	const char *name;
	struct stat st;
	bool edited;
	cleanup_close int directory = open_directory(e, f, &name);
	uint64_t stamp = layers_stamp(HASH_INIT, directory, name, AT_SYMLINK_NOFOLLOW);
	if (directory < 0)
		stamp = 1;
	if (stamp == f->stamp)
		return;
	f->stamp = stamp;
	if (directory >= 0 && !fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode))
		layers_read_lines(directory, name, &text);
	envfile_user_part(buffer_str(&text), NULL, &own, &edited);
	if (strcmp(buffer_str(&own), buffer_str(&text)) && !write_lines(e, f, &own, NULL))
		f->stamp = layers_stamp(HASH_INIT, directory, name, AT_SYMLINK_NOFOLLOW);
	if (strcmp(buffer_str(&own), buffer_str(&f->own)) || !f->own.data)
		take_own(e, f, &own);
}

static void refresh(struct environment *e, struct more_file *f)
{
	refresh_own(e, f);
	main_layer_refresh(&f->main);
}

void more_files_refresh(struct environment *e)
{
	for (size_t i = 0; i < e->n_more_files; i++)
		refresh(e, &e->more_files[i]);
}

/* ---- which there are ---- */

static bool are_same(const struct environment *e, const struct model *m)
{
	bool same = e->n_more_files == m->n_files;
	for (size_t i = 0; same && i < m->n_files; i++)
		same = !strcmp(e->more_files[i].path, m->files[i].config->path);
	return same;
}

/* With a configuration that cannot be read the names stay, and say so. */
void more_files_take(struct environment *e)
{
	const struct model *m = e->model;
	if (!m || (e->more_files && are_same(e, m)))
		return;
	more_files_release(e);
	e->more_files = xcalloc(m->n_files + 1, sizeof *e->more_files);
	for (size_t i = 0; i < m->n_files; i++) {
		struct more_file *f = &e->more_files[e->n_more_files++];
		f->path = xstrdup(m->files[i].config->path);
		f->flat = env_name_flat(f->path);
		main_layer_open(e->id, f->path, &f->main);
		refresh(e, f);
	}
	environment_mark(e, CHANGED_FILES | CHANGED_STATUS);
}

size_t environment_file_count(const struct environment *e)
{
	return e->n_more_files;
}

const char *environment_file_path(const struct environment *e, size_t i)
{
	return e->more_files[i].path;
}

static struct more_file *find(const struct environment *e, const char *path)
{
	for (size_t i = 0; i < e->n_more_files; i++)
		if (!strcmp(e->more_files[i].path, path))
			return &e->more_files[i];
	return NULL;
}

/* ---- texts ---- */

static void variables(const struct environment *e, const struct more_file *f, struct envset *ret)
{
	const struct model_file *file = model_file(e->model, f->path);
	if (file)
		model_file_environment(e->model, file, buffer_str(&f->main.text), buffer_str(&f->own), ret);
	else
		model_environment(NULL, NULL, buffer_str(&f->own), ret);
}

int environment_file(struct environment *e, const char *path, struct buffer *out, struct error *err)
{
	struct more_file *f = find(e, path);
	cleanup_envset struct envset set = {NULL, 0};
	if (!f)
		return error_set_errno(err, ERROR_INTERNAL, ESTALE, "%s is no env file any more", path);
	refresh(e, f);
	variables(e, f, &set);
	int r = envfile_render(buffer_str(&f->own), &set, out, NULL, err);
	return r < 0 ? error_prefix(err, "%s", path) : 0;
}

int environment_write_file(struct environment *e, const char *path, const char *text, size_t len, struct error *err)
{
	struct more_file *f = find(e, path);
	cleanup_free char *written = xstrndup(text, len);
	cleanup_buffer struct buffer served = BUFFER_INIT, own = BUFFER_INIT;
	bool edited = false;
	if (!f)
		return error_set_errno(err, ERROR_INTERNAL, ESTALE, "%s is no env file any more", path);
	environment_file(e, path, &served, NULL);
	envfile_user_part(written, served.len ? buffer_str(&served) : NULL, &own, &edited);
	if (!strcmp(buffer_str(&own), buffer_str(&f->own)))
		return 0;
	int r = write_lines(e, f, &own, err);
	if (r < 0)
		environment_fail(e, err);
	else
		take_own(e, f, &own);
	environment_tell(e); /* who has closed it lists the directory next */
	return r;
}
