/* Into the trash, and back. What keeps it in bounds and finishes what was broken off is in trash_expire.c. */
#include "provisioner/trash.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "provisioner/envfile.h"
#include "provisioner/trash_private.h"

void (*trash_on_step)(const char *step);

void trash_step(const char *step)
{
	if (trash_on_step)
		trash_on_step(step);
}

int trash_failed(int r, const char *path, struct error *err)
{
	enum error_code code = r == -ENOSPC || r == -EDQUOT ? ERROR_NO_SPACE : ERROR_INTERNAL;
	return error_set_errno(err, code, -r, "the trash: %s", path);
}

/* One for the whole trash: what it guards is renames, and a long copy only where the state lies on two file systems. */
int trash_lock(struct store *s, int *ret_fd, struct error *err)
{
	cleanup_free char *dir = xasprintf("%s/trash", store_directory(s));
	cleanup_free char *path = xasprintf("%s/.lock", dir);
	int r = dir_make(AT_FDCWD, dir, 0700);
	if (r)
		return trash_failed(r, dir, err);
	cleanup_close int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	while (fd >= 0 && flock(fd, LOCK_EX))
		if (errno != EINTR)
			return trash_failed(-errno, path, err);
	if (fd < 0)
		return trash_failed(-errno, path, err);
	*ret_fd = move_fd(&fd);
	return 0;
}

/* ---- files ---- */

static bool has_content(const char *dir)
{
	cleanup_closedir DIR *d = opendir(dir);
	for (struct dirent *e; d && (e = readdir(d));)
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			return true;
	return false;
}

static bool exists(const char *path)
{
	struct stat st;
	return !lstat(path, &st);
}

static int sync_path(const char *path, int flags)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | flags);
	if (fd < 0)
		return errno == ELOOP ? 0 : -errno; /* a link is written with its directory */
	return fsync(fd) ? -errno : 0;
}

/* By rename; between file systems by a copy that gets its name when it is complete, and only then the original goes. */
static int move_tree(const char *from, const char *to)
{
	if (!rename(from, to))
		return 0;
	if (errno != EXDEV)
		return -errno;
	cleanup_free char *partial = xasprintf("%s.partial", to);
	int r = tree_remove(AT_FDCWD, partial);
	if (!r)
		r = tree_copy(AT_FDCWD, from, AT_FDCWD, partial, (uid_t)-1, (gid_t)-1);
	trash_step("copied between file systems");
	if (!r && rename(partial, to))
		r = -errno;
	trash_step("renamed the copy");
	return r ? r : tree_remove(AT_FDCWD, from);
}

/* ---- the user's .env ---- */

static bool env_worth_keeping(const struct identity *id, int root_fd)
{
	struct stat st;
	if (root_fd < 0 || fstatat(root_fd, identity_own_name(id), &st, AT_SYMLINK_NOFOLLOW))
		return false;
	return S_ISLNK(st.st_mode) || (S_ISREG(st.st_mode) && st.st_size);
}

/* new: where the link `.env` leads, as an absolute path, so that it leads to the same file from the trash; NULL: it is
 * none. */
static char *env_link(const struct identity *id, int root_fd)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(root_fd, identity_own_name(id), target, sizeof target - 1);
	if (n < 0)
		return NULL;
	target[n] = '\0';
	return target[0] == '/' ? xstrdup(target) : xasprintf("%s/%s", id->root, target);
}

static int copy_env(const struct identity *id, int root_fd, const char *to)
{
	cleanup_free char *link = env_link(id, root_fd);
	if (link)
		return symlink(link, to) ? -errno : 0;
	int r = tree_copy(root_fd, identity_own_name(id), AT_FDCWD, to, (uid_t)-1, (gid_t)-1);
	return r ? r : sync_path(to, 0);
}

/* Is what an entry keeps the very `.env` that is there? */
static bool is_same_env(const struct identity *id, int root_fd, const char *kept)
{
	cleanup_free char *link = env_link(id, root_fd);
	char target[PATH_MAX];
	ssize_t n = readlink(kept, target, sizeof target);
	if (link || n >= 0)
		return link && n == (ssize_t)strlen(link) && !memcmp(link, target, (size_t)n);
	cleanup_buffer struct buffer a = BUFFER_INIT, b = BUFFER_INIT;
	return !file_read(root_fd, identity_own_name(id), ENVFILE_MAX, &a) && !file_read(AT_FDCWD, kept, ENVFILE_MAX, &b) &&
	       a.len == b.len && !memcmp(buffer_str(&a), buffer_str(&b), a.len);
}

/* The workspace is on another file system, most likely: a copy, safe on the disk before the original goes. */
static int move_env(const struct identity *id, int root_fd, const char *entry)
{
	cleanup_free char *partial = xasprintf("%s/env.partial", entry);
	cleanup_free char *kept = xasprintf("%s/env", entry);
	int r = tree_remove(AT_FDCWD, partial);
	if (!r)
		r = copy_env(id, root_fd, partial);
	if (r == -ENOENT && !env_worth_keeping(id, root_fd))
		return 0; /* put aside meanwhile */
	trash_step("copied .env");
	if (!r && rename(partial, kept))
		r = -errno;
	if (!r)
		r = sync_path(entry, O_DIRECTORY);
	trash_step("kept .env");
	if (!r && unlinkat(root_fd, identity_own_name(id), 0) && errno != ENOENT)
		r = -errno;
	trash_step("unlinked .env");
	return r;
}

static char *aside_path(const struct identity *id)
{
	return xasprintf("%s/removed", id->state_dir);
}

int trash_env_aside(const struct identity *id, int root_fd, struct error *err)
{
	struct stat st;
	cleanup_free char *dir = aside_path(id);
	cleanup_free char *partial = xasprintf("%s/%s.partial", dir, id->env_name);
	cleanup_free char *kept = xasprintf("%s/%s", dir, id->env_name);
	int r = dir_make(AT_FDCWD, dir, 0700);
	if (r)
		return trash_failed(r, dir, err);
	if (fstatat(root_fd, identity_own_name(id), &st, AT_SYMLINK_NOFOLLOW) || S_ISDIR(st.st_mode))
		return 0;
	if (!renameat(root_fd, identity_own_name(id), AT_FDCWD, kept))
		return 0;
	r = errno == EXDEV ? tree_remove(AT_FDCWD, partial) : -errno;
	if (!r)
		r = copy_env(id, root_fd, partial);
	if (!r && rename(partial, kept))
		r = -errno;
	if (!r)
		r = sync_path(dir, O_DIRECTORY);
	if (!r && unlinkat(root_fd, identity_own_name(id), 0) && errno != ENOENT)
		r = -errno;
	return r && r != -ENOENT ? trash_failed(r, ".env", err) : 0;
}

bool trash_env_is_aside(const struct identity *id)
{
	cleanup_free char *dir = aside_path(id);
	return exists(dir);
}

void trash_env_aside_done(const struct identity *id)
{
	cleanup_free char *dir = aside_path(id);
	rmdir(dir);
}

int trash_env_open(const struct identity *id, int root_fd)
{
	cleanup_free char *dir = aside_path(id);
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	return fd >= 0 || root_fd < 0 ? fd : fcntl(root_fd, F_DUPFD_CLOEXEC, 0);
}

/* ---- putting ---- */

struct putting {
	struct store *s;
	const struct identity *id;
	char *data; /* where it is now; NULL: none */
	bool env;
	int root_fd;
	struct trash_entry entry;
};

static void putting_release(struct putting *p)
{
	free(p->data);
	trash_entry_release(&p->entry);
}

/* 1: a process died while it put this very generation away, and what it left can be continued: the data is in one place
 * only. */
static int find_broken_off(struct putting *p, uint32_t generation, struct error *err)
{
	struct trash_entry *entries = NULL;
	size_t count = 0;
	int found = store_trash_unfinished(p->s, &entries, &count, err);
	for (size_t i = 0; found == 0 && i < count; i++) {
		cleanup_free char *data = xasprintf("%s/data", entries[i].path);
		cleanup_free char *env = xasprintf("%s/env", entries[i].path);
		if (strcmp(entries[i].namespace_, p->id->namespace_) || entries[i].generation != generation ||
		    (p->data && exists(data)) || (p->env && exists(env) && !is_same_env(p->id, p->root_fd, env)))
			continue;
		p->entry = entries[i];
		entries[i] = (struct trash_entry){0};
		found = 1;
	}
	trash_entries_free(entries, count);
	return found;
}

static int begin(struct putting *p, uint32_t generation, char *const *services, struct error *err)
{
	p->entry = (struct trash_entry){
	    .namespace_ = xstrdup(p->id->namespace_),
	    .root = xstrdup(p->id->root),
	    .workspace = xstrdup(p->id->workspace),
	    .generation = generation,
	    .at_ms = now_wall_ms(),
	    .services = strv_copy(services),
	};
	return store_trash_begin(p->s, &p->entry, &p->entry.id, &p->entry.path, err);
}

static int fill(struct putting *p, struct error *err)
{
	const char *path = p->entry.path;
	cleanup_free char *kept = xasprintf("%s/data", path);
	trash_step("begun");
	if (mkdir(path, 0700) && errno != EEXIST)
		return trash_failed(-errno, path, err);
	trash_step("made the directory");
	int r = trash_note_write(p->s, &p->entry, err);
	trash_step("wrote the note");
	if (!r && p->data && (r = move_tree(p->data, kept)))
		trash_failed(r, p->data, err);
	trash_step("moved the data");
	if (!r && p->env && (r = move_env(p->id, p->root_fd, path)))
		trash_failed(r, ".env", err);
	return r;
}

/* With the lock held. `data` is stolen; NULL: none. */
static int put(struct store *s, const struct identity *id, uint32_t generation, char *data, int root_fd,
               char *const *services, struct error *err)
{
	CLEANUP(putting_release) struct putting p = {s, id, data, env_worth_keeping(id, root_fd), root_fd, {0}};
	int found = find_broken_off(&p, generation, err);
	int r = found < 0 ? found : trash_recover(s, found ? p.entry.id : 0, err);
	if (r)
		return r;
	if (!found && !p.data && !p.env)
		return 0;
	r = found ? 0 : begin(&p, generation, services, err);
	if (!r)
		r = fill(&p, err);
	/* also after a failure: what did get there is to be seen */
	int finished = p.entry.path ? trash_finish(s, &p.entry, r ? NULL : err) : 0;
	return r ? r : finished;
}

/* Parts are gathered here, and the whole goes the way that a generation goes. */
static char *gathering_path(const struct identity *id)
{
	return xasprintf("%s/data/removed", id->state_dir);
}

/* Left by a process that died while it gathered: an entry of its own. */
static int put_gathered(struct store *s, const struct identity *id, uint32_t generation, char *const *services,
                        struct error *err)
{
	char *gathered = gathering_path(id);
	if (has_content(gathered))
		return put(s, id, generation, gathered, -1, services, err);
	rmdir(gathered);
	free(gathered);
	return 0;
}

static int gather(const struct identity *id, uint32_t generation, const char *part)
{
	cleanup_free char *gathered = gathering_path(id);
	cleanup_free char *from = xasprintf("%s/data/%u/%s", id->state_dir, generation, part);
	cleanup_free char *to = xasprintf("%s/%s", gathered, part);
	cleanup_free char *parent = xstrndup(to, (size_t)(strrchr(to, '/') - to));
	if (!exists(from))
		return 0;
	int r = dir_make(AT_FDCWD, parent, geteuid() == 0 ? 0711 : 0700);
	if (!r && rename(from, to))
		r = -errno;
	trash_step("gathered a part");
	return r;
}

int trash_put_parts(struct store *s, const struct identity *id, uint32_t generation, char *const *parts,
                    char *const *services, struct error *err)
{
	cleanup_close int lock = -1;
	int r = trash_lock(s, &lock, err);
	if (!r)
		r = put_gathered(s, id, generation, NULL, err);
	for (; !r && *parts; parts++)
		if ((r = gather(id, generation, *parts)))
			trash_failed(r, *parts, err);
	return r ? r : put_gathered(s, id, generation, services, err);
}

int trash_put(struct store *s, const struct identity *id, uint32_t generation, int root_fd, char *const *services,
              struct error *err)
{
	char *data = xasprintf("%s/data/%u", id->state_dir, generation);
	cleanup_close int lock = -1;
	int r = trash_lock(s, &lock, err);
	if (r) {
		free(data);
		return r;
	}
	r = put_gathered(s, id, generation, NULL, err);
	if (r) {
		free(data);
		return r;
	}
	if (!has_content(data)) {
		rmdir(data);
		free(move_ptr(data));
	}
	r = put(s, id, generation, data, root_fd, services, err);
	if (!r && root_fd >= 0 && !env_worth_keeping(id, root_fd)) {
		struct stat st; /* an empty one holds nothing, but deleting means that it is gone */
		if (!fstatat(root_fd, identity_own_name(id), &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode))
			unlinkat(root_fd, identity_own_name(id), 0);
	}
	return r;
}

/* ---- restoring ---- */

static int find_entry(struct store *s, int64_t id, struct trash_entry *ret, struct error *err)
{
	struct trash_entry *entries = NULL;
	size_t count = 0;
	int r = store_trash_list(s, NULL, &entries, &count, err);
	if (r)
		return r;
	r = -ENOENT;
	for (size_t i = 0; i < count && r; i++)
		if (entries[i].id == id) {
			*ret = entries[i];
			entries[i] = (struct trash_entry){0};
			r = 0;
		}
	trash_entries_free(entries, count);
	if (r) {
		error_set(err, ERROR_TRASH_NOT_FOUND, "no entry %lld is in the trash", (long long)id);
		error_hint(err, "ajj trash list");
	}
	return r;
}

/* Gives what the services of another time owned to the environment's user of today; what is root's stays root's. */
static int give_away(const char *path, uid_t uid)
{
	cleanup_closedir DIR *d = opendir(path);
	int r = d ? 0 : -errno;
	for (struct dirent *e; !r && (e = readdir(d));) {
		struct stat st;
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
		    fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW))
			continue;
		cleanup_free char *below = xasprintf("%s/%s", path, e->d_name);
		if (st.st_uid == 0 && S_ISDIR(st.st_mode))
			r = give_away(below, uid);
		else if (st.st_uid != 0 && st.st_uid != uid)
			r = tree_chown(AT_FDCWD, below, uid, (gid_t)uid);
	}
	return r;
}

static int give_to_environment(struct store *s, const struct identity *id, const char *data, struct error *err)
{
	struct store_environment e = {0};
	int found = geteuid() == 0 ? store_environment_get(s, id->namespace_, &e, err) : 0;
	if (found <= 0)
		return found;
	int r = e.uid == (uid_t)-1 ? 0 : give_away(data, e.uid);
	store_environment_release(&e);
	return r ? trash_failed(r, data, err) : 0;
}

static int restore_data(struct store *s, const struct identity *id, const struct trash_entry *e, uint32_t generation,
                        struct error *err)
{
	cleanup_free char *kept = xasprintf("%s/data", e->path);
	cleanup_free char *all = xasprintf("%s/data", id->state_dir);
	cleanup_free char *target = xasprintf("%s/%u", all, generation);
	if (!exists(kept))
		return 0;
	int r = give_to_environment(s, id, kept, err);
	if (!r)
		r = trash_note_restore_secrets(s, e->path, id->namespace_, err);
	trash_step("restored the secrets");
	if (r)
		return r;
	r = dir_make(AT_FDCWD, all, geteuid() == 0 ? 0711 : 0700);
	rmdir(target);
	if (!r)
		r = move_tree(kept, target);
	trash_step("restored the data");
	return r ? trash_failed(r, target, err) : 0;
}

/* The lines that are there now go into an entry of their own first. */
static int restore_env(struct store *s, const struct identity *id, const struct trash_entry *e, uint32_t generation,
                       int root_fd, struct error *err)
{
	cleanup_free char *kept = xasprintf("%s/env", e->path);
	cleanup_free char *temporary = xasprintf(".env.aether-%d.tmp", (int)getpid());
	if (!exists(kept))
		return 0;
	int r = env_worth_keeping(id, root_fd) ? put(s, id, generation, NULL, root_fd, NULL, err) : 0;
	if (r)
		return r;
	unlinkat(root_fd, temporary, 0);
	r = tree_copy(AT_FDCWD, kept, root_fd, temporary, (uid_t)-1, (gid_t)-1);
	if (!r && renameat(root_fd, temporary, root_fd, identity_own_name(id)))
		r = -errno;
	trash_step("restored .env");
	if (r)
		return trash_failed(r, ".env", err);
	r = store_trash_uncommit(s, e->id, err); /* its row says that it has one */
	if (r)
		return r;
	return unlink(kept) ? trash_failed(-errno, kept, err) : 0;
}

int trash_restore(struct store *s, const struct identity *id, int64_t trash_id, uint32_t generation, bool env,
                  int root_fd, struct error *err)
{
	CLEANUP(trash_entry_release) struct trash_entry e = {0};
	cleanup_free char *target = xasprintf("%s/data/%u", id->state_dir, generation);
	cleanup_close int lock = -1;
	int r = trash_lock(s, &lock, err);
	if (!r)
		r = trash_recover(s, 0, err);
	if (!r)
		r = find_entry(s, trash_id, &e, err);
	if (!r && has_content(target))
		r = error_set(err, ERROR_WORKSPACE_EXISTS, "%s has data already", target);
	if (!r && env && root_fd >= 0)
		r = restore_env(s, id, &e, generation, root_fd, err);
	if (r)
		return r;
	r = store_trash_uncommit(s, e.id, err);
	trash_step("uncommitted");
	if (!r)
		r = restore_data(s, id, &e, generation, err);
	int finished = trash_finish(s, &e, r ? NULL : err);
	return r ? r : finished;
}
