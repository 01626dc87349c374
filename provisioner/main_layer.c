#include "provisioner/main_layer.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hash.h"
#include "provisioner/env_name.h"
#include "provisioner/envfile.h"
#include "provisioner/layers.h"
#include "provisioner/mounts.h"

static bool is_other(const struct identity *id)
{
	return id->main_root && strcmp(id->main_root, id->root) != 0;
}

static char *copy_path(const struct identity *id, const char *root, const char *name)
{
	cleanup_free char *flat = env_name_flat(name);
	return xasprintf("%s/lines/%016llx%s", id->shared_dir, (unsigned long long)hash_str(HASH_INIT, root),
	                 strcmp(name, ENV_NAME_DEFAULT) ? flat : "");
}

void main_layer_open(const struct identity *id, const char *name, struct main_layer *ret)
{
	*ret = (struct main_layer){.name = name, .table_fd = -1};
	if (!is_other(id))
		return;
	ret->root = xstrdup(id->main_root);
	ret->copy = copy_path(id, ret->root, name);
	ret->table_fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	ret->is_mounted = is_mounted_by_us(ret->root);
}

void main_layer_close(struct main_layer *l)
{
	free(l->root);
	free(l->copy);
	if (l->table_fd >= 0)
		close(l->table_fd);
	buffer_release(&l->text);
}

/* proc_pid_mountinfo(5): the descriptor reports a change of the table once, as POLLPRI. */
static void look_at_mounts(struct main_layer *l)
{
	struct pollfd p = {l->table_fd, POLLPRI, 0};
	if (l->table_fd < 0 || poll(&p, 1, 0) > 0)
		l->is_mounted = is_mounted_by_us(l->root);
}

static bool take_text(struct main_layer *l, const struct buffer *text)
{
	if (!strcmp(buffer_str(text), buffer_str(&l->text)))
		return false;
	buffer_clear(&l->text);
	buffer_adds(&l->text, buffer_str(text));
	return true;
}

/* A plain `.env` may hold a block of ours (`ajj up --plain`): that is the main checkout's alone. */
static void read_own_lines(const char *path, struct buffer *out)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	bool unused;
	layers_read_lines(AT_FDCWD, path, &text);
	envfile_user_part(buffer_str(&text), NULL, out, &unused);
}

/* new: without an overlay there, the user's own file rests under another name. */
static char *own_path(const struct main_layer *l)
{
	cleanup_free char *path = xasprintf("%s/%s", l->root, l->name);
	return layers_is_copied_link(AT_FDCWD, path) ? xasprintf("%s/%s", l->root, env_name_own(l->name)) : move_ptr(path);
}

bool main_layer_refresh(struct main_layer *l)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_free char *direct = NULL;
	struct stat st = {0};
	if (!l->root)
		return false;
	look_at_mounts(l);
	if (!l->is_mounted)
		direct = own_path(l);
	const char *path = direct ? direct : l->copy;
	bool exists = fstatat(AT_FDCWD, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
	l->is_link = direct && exists && S_ISLNK(st.st_mode);
	if (l->is_link)
		return false;
	if (l->is_mounted && !exists)
		return false; /* its server is just beginning: what was known stays */
	uint64_t stamp = layers_stamp(hash_str(HASH_INIT, path), AT_FDCWD, path, AT_SYMLINK_NOFOLLOW);
	if (stamp == l->stamp)
		return false;
	l->stamp = stamp;
	if (exists)
		read_own_lines(path, &text);
	return take_text(l, &text);
}

void main_layer_read_link(const struct main_layer *l, struct buffer *out)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	bool unused;
	cleanup_close int fd = open(l->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	layers_text_at(l->root, fd, l->name, &text);
	envfile_user_part(buffer_str(&text), NULL, out, &unused);
}

int main_layer_publish(const struct identity *id, const char *name, const char *text, size_t len)
{
	if (id->kind == WORKSPACE_PLAIN || !id->main_root || is_other(id))
		return 0;
	cleanup_free char *directory = xasprintf("%s/lines", id->shared_dir), *path = copy_path(id, id->root, name);
	struct stat st;
	if (!len && stat(path, &st) < 0)
		return 0;
	int r = dir_make(AT_FDCWD, directory, 0700);
	return r < 0 ? r : file_write_atomic(AT_FDCWD, path, text, len, 0600);
}
