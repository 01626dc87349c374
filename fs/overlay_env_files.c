/* The virtual files of x-aether.env_files: symbolic links into the control file system, at any path.
 *
 * They are less than `.env`: where a file is renamed over one, or made after it was deleted, that is an ordinary file beneath, which
 * the environment reads as the workspace's own lines, and the next lookup finds the link again. A directory, a link or anything
 * else that is no regular file stays what it is. Directories come, go and are renamed, so nothing of these names is remembered by the kernel, nor
 * of others like them (`.env` in any directory) while there is such a file; other names do not come here.
 *
 * Which files there are is known when the configuration has been read; a lookup before that, of a name that could be one, waits a moment, and so does a
 * listing that shows them. */
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#include "base/alloc.h"
#include "base/strv.h"
#include "fs/overlay_private.h"

#define SETTLE_SECONDS 2

/* Immutable. One that was replaced is kept: its strings may be in use, and configurations rarely change. */
struct env_files {
	struct env_files *older;
	size_t count;
	struct {
		char *path, *directory, *target;
		const char *name; /* in path */
		_Atomic fuse_ino_t found_in; /* the directory, when the name was last looked up there; 0: never */
	} items[VIRTUAL_FILES_MAX];
};

static struct env_files *files_new(char *const *paths, struct env_files *older)
{
	struct env_files *f = xcalloc(1, sizeof(*f));
	f->older = older;
	for (; paths && *paths && f->count < VIRTUAL_FILES_MAX; paths++) {
		size_t i = f->count++;
		const char *slash = strrchr(*paths, '/');
		struct buffer target = BUFFER_INIT;
		f->items[i].path = xstrdup(*paths);
		f->items[i].directory = slash ? xstrndup(*paths, (size_t)(slash - *paths)) : xstrdup(".");
		f->items[i].name = f->items[i].path + (slash ? slash + 1 - *paths : 0);
		for (const char *c = *paths; *c; c++)
			if (*c == '/')
				buffer_adds(&target, "../");
		cleanup_free char *name = control_env_file_name(*paths);
		buffer_printf(&target, ".aether/%s", name);
		f->items[i].target = buffer_detach(&target);
	}
	return f;
}

void env_files_free(struct overlay *o)
{
	for (struct env_files *f = atomic_load(&o->env_files), *older; f; f = older) {
		older = f->older;
		for (size_t i = 0; i < f->count; i++) {
			free(f->items[i].path);
			free(f->items[i].directory);
			free(f->items[i].target);
		}
		free(f);
	}
}

/* ---- which there are ---- */

/* Never behind a link, and by what the directory is: names above it may change at any time. */
static bool is_directory(struct overlay *o, fuse_ino_t id, const char *path)
{
	const struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV};
	struct stat st;
	if (id == FUSE_ROOT_ID || strcmp(path, ".") == 0)
		return id == FUSE_ROOT_ID && strcmp(path, ".") == 0;
	cleanup_close int fd = (int)syscall(SYS_openat2, o->root_fd, path, &how, sizeof(how));
	if (fd < 0 || fstat(fd, &st) < 0)
		return false;
	nodes_lock_shared(o->nodes);
	uint32_t index = node_find(o->nodes, st.st_dev, st.st_ino);
	bool is = index != NODE_NONE && node_id(o->nodes, index) == id;
	nodes_unlock(o->nodes);
	return is;
}

static struct env_files *settled(struct overlay *o)
{
	struct env_files *f = atomic_load(&o->env_files);
	if (f || !o->events.waits_for_files)
		return f;
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += SETTLE_SECONDS;
	pthread_mutex_lock(&o->env_files_lock);
	while (!(f = atomic_load(&o->env_files)) && pthread_cond_timedwait(&o->env_files_known, &o->env_files_lock, &until) == 0)
		;
	if (!f) { /* once is enough */
		f = files_new(NULL, NULL);
		atomic_store(&o->env_files, f);
	}
	pthread_mutex_unlock(&o->env_files_lock);
	return f;
}

enum virtual_name env_file_find_slow(struct overlay *o, fuse_ino_t parent, const char *name)
{
	struct env_files *f = settled(o);
	struct stat st;
	for (size_t i = 0; f && i < f->count; i++) {
		if (strcmp(f->items[i].name, name) != 0 || !is_directory(o, parent, f->items[i].directory))
			continue;
		atomic_store(&f->items[i].found_in, parent);
		bool exists = overlay_stat_child(o, parent, name, &st) == 0, is_other = exists && !S_ISREG(st.st_mode);
		if (exists && unlinked_any(o->unlinked, f->items[i].path)) /* somebody has made it anew */
			unlinked_clear(o->unlinked, f->items[i].path);
		return is_other ? VIRTUAL_NONE : (enum virtual_name)(VIRTUAL_FILES + i);
	}
	return VIRTUAL_NONE;
}

bool env_file_like_slow(struct overlay *o, const char *name)
{
	const struct env_files *f = atomic_load(&o->env_files);
	for (size_t i = 0; f && i < f->count; i++)
		if (strcmp(f->items[i].name, name) == 0)
			return true;
	return false;
}

bool env_file_directory(struct overlay *o, fuse_ino_t directory)
{
	struct env_files *f = atomic_load(&o->env_files);
	for (size_t i = 0; f && i < f->count; i++)
		if (atomic_load(&f->items[i].found_in) == directory)
			return true;
	return false;
}

/* The kernel may hold the id of one that is there no more. */
const char *env_file_path(struct overlay *o, enum virtual_name v)
{
	const struct env_files *f = atomic_load(&o->env_files);
	size_t i = (size_t)v - VIRTUAL_FILES;
	return f && i < f->count ? f->items[i].path : "";
}

const char *env_file_name(struct overlay *o, enum virtual_name v)
{
	const char *path = env_file_path(o, v), *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

const char *env_file_target(struct overlay *o, enum virtual_name v)
{
	const struct env_files *f = atomic_load(&o->env_files);
	size_t i = (size_t)v - VIRTUAL_FILES;
	return f && i < f->count ? f->items[i].target : "";
}

bool env_file_is_in(struct overlay *o, enum virtual_name v, fuse_ino_t directory)
{
	const struct env_files *f = settled(o); /* a listing is whole or not at all */
	size_t i = (size_t)v - VIRTUAL_FILES;
	return f && i < f->count && is_directory(o, directory, f->items[i].directory);
}

/* ---- a change ---- */

/* `names`: other files than before; else only what lies beneath is another. */
static void forget(struct overlay *o, const struct env_files *f, bool names)
{
	for (size_t i = 0; f && i < f->count; i++) {
		const struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
		struct stat st;
		cleanup_close int fd = (int)syscall(SYS_openat2, o->root_fd, f->items[i].directory, &how, sizeof(how));
		if (names)
			notices_inode(o->notices, VIRTUAL_FILES + i);
		if (fd < 0 || fstat(fd, &st) < 0)
			continue;
		nodes_lock_shared(o->nodes);
		uint32_t index = node_find(o->nodes, st.st_dev, st.st_ino);
		fuse_ino_t id = strcmp(f->items[i].directory, ".") == 0 ? FUSE_ROOT_ID : index == NODE_NONE ? 0 : node_id(o->nodes, index);
		nodes_unlock(o->nodes);
		if (!id)
			continue;
		if (names)
			notices_entry(o->notices, id, f->items[i].name);
		overlay_directory_changed(o, id, true);
		if (names)
			notices_inode(o->notices, id);
		else
			notices_inode_now(o->notices, id); /* who has just written it lists the directory next */
	}
}

void overlay_set_env_files(struct overlay *o, char *const *paths)
{
	pthread_mutex_lock(&o->env_files_lock);
	struct env_files *old = atomic_load(&o->env_files), *now = files_new(paths, old);
	atomic_store(&o->env_files, now);
	pthread_cond_broadcast(&o->env_files_known);
	pthread_mutex_unlock(&o->env_files_lock);
	forget(o, old, true);
	forget(o, now, true);
}

void overlay_env_files_changed(struct overlay *o)
{
	forget(o, atomic_load(&o->env_files), false);
}

void env_file_changed(struct overlay *o, fuse_ino_t parent, const char *name)
{
	if (!env_file_like(o, name))
		return;
	/* what was renamed here brought the time along that its entry is good for */
	notices_entry(o->notices, parent, name);
	if (o->events.env_changed)
		o->events.env_changed(o->events.arg);
}
