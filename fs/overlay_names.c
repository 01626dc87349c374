/* Operations on names: looking up, making, removing, renaming. The kernel holds the directory's lock over those that change it,
 * and has checked the permissions. */
#include "fs/overlay_private.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/alloc.h"

#define ENTER_TRIES 8
#define YOUNG_SECONDS 10

bool overlay_was_done(int err, int done_err)
{
	return err == -done_err && session_request_resent();
}

/* A file beside .env that was made a moment ago may be about to be renamed over it (sed -i, ln -sf), and its entry takes the time it is
 * good for along: none, so that .env is looked up and found to be what it is. */
static double entry_timeout(struct overlay *o, fuse_ino_t parent, const char *name, const struct stat *st)
{
	if (env_file_like(o, name) || virtual_find(o, parent, name) == VIRTUAL_ENV)
		return 0;
	if (S_ISDIR(st->st_mode) || (parent != FUSE_ROOT_ID && !env_file_directory(o, parent)))
		return overlay_timeout(o);
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec - st->st_ctim.tv_sec < YOUNG_SECONDS ? 0 : overlay_timeout(o);
}

int overlay_enter(struct overlay *o, fuse_ino_t parent, const char *name, struct stat *st, uint32_t moves,
                  struct fuse_entry_param *ret)
{
	uint32_t index;
	int r;
	for (int i = 0; (r = node_enter(o->nodes, parent, name, st, moves, &index)) == -EAGAIN; i++) {
		moves = nodes_moves(o->nodes);
		if (i < ENTER_TRIES && (r = overlay_stat_child(o, parent, name, st)) < 0)
			return r;
	}
	if (r < 0)
		return r;
	*ret = (struct fuse_entry_param){.ino = node_id(o->nodes, index), .attr = *st, .attr_timeout = overlay_timeout(o),
	                                 .entry_timeout = entry_timeout(o, parent, name, st)};
	return 0;
}

int overlay_find(struct overlay *o, fuse_ino_t parent, const char *name, struct fuse_entry_param *ret)
{
	struct stat st;
	uint32_t moves = nodes_moves(o->nodes);
	int r = overlay_stat_child(o, parent, name, &st);
	return r < 0 ? r : overlay_enter(o, parent, name, &st, moves, ret);
}

/* A caller that was killed meanwhile does not get it (ENOENT), and the kernel then never forgets it. */
void overlay_reply_entry(fuse_req_t req, const struct fuse_entry_param *e)
{
	struct overlay *o = overlay_of(req);
	fuse_ino_t ino = e->ino;
	if (fuse_reply_entry(req, e) == -ENOENT && ino && !virtual_is(ino))
		overlay_forget(o, ino, 1);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct overlay *o = overlay_of(req);
	struct fuse_entry_param e;
	enum virtual_name v = virtual_find(o, parent, name);
	bool own = v == VIRTUAL_ENV;
	if (!v)
		v = env_file_find(o, parent, name);
	if (v && v != VIRTUAL_AETHER && overlay_sees_beneath(req))
		v = VIRTUAL_NONE;
	if (v)
		return virtual_lookup(req, v);
	int r = overlay_find(o, parent, name, &e);
	if (r == -ENOENT && overlay_timeout(o) > 0 && !own && !env_file_like(o, name)) {
		e = (struct fuse_entry_param){.entry_timeout = overlay_timeout(o)}; /* absence is remembered, too */
		r = 0;
	}
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		overlay_reply_entry(req, &e);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	overlay_forget(overlay_of(req), ino, count);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		overlay_forget(overlay_of(req), forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

/* ---- making ---- */

/* What is to be made; `fd` is set where making it opens it. */
struct making {
	const char *name;
	mode_t mode;
	dev_t rdev;
	const char *target; /* of a symbolic link */
	int open_flags;     /* not 0: by open(2) */
	int fd;
};

static int make_as_caller(fuse_req_t req, int directory, struct making *m)
{
	mode_t mode = caller_mode(req, m->mode);
	int r;
	if (m->open_flags)
		r = m->fd = openat(directory, m->name, m->open_flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, mode & 07777);
	else if (S_ISDIR(m->mode))
		r = mkdirat(directory, m->name, mode & 07777);
	else if (S_ISLNK(m->mode))
		r = symlinkat(m->target, directory, m->name);
	else
		r = mknodat(directory, m->name, mode, m->rdev);
	return r < 0 ? -errno : 0;
}

/* The caller's other groups decide in a directory that it may write by one of them, and whether a set-gid bit may stay. */
static int make(fuse_req_t req, int directory, struct making *m)
{
	int r = caller_enter(req);
	if (r < 0)
		return r;
	if (m->mode & S_ISGID)
		caller_enter_groups(req);
	r = make_as_caller(req, directory, m);
	if (r == -EACCES && caller_may_differ()) {
		caller_enter_groups(req);
		r = make_as_caller(req, directory, m);
	}
	caller_leave();
	return r;
}

/* Does what was to be made exist, from the hands of a server that died? */
static bool made_before(struct overlay *o, fuse_ino_t parent, const struct making *m)
{
	struct stat st;
	if (overlay_stat_child(o, parent, m->name, &st) < 0 || (st.st_mode & S_IFMT) != (m->mode & S_IFMT))
		return false;
	if (!S_ISLNK(st.st_mode))
		return true;
	struct fuse_entry_param e;
	if (overlay_find(o, parent, m->name, &e) < 0)
		return false;
	char target[PATH_MAX];
	cleanup_close int fd = overlay_open_node(o, e.ino, O_PATH, NULL);
	ssize_t length = fd < 0 ? -1 : readlinkat(fd, "", target, sizeof(target));
	overlay_forget(o, e.ino, 1);
	return length == (ssize_t)strlen(m->target) && memcmp(target, m->target, (size_t)length) == 0;
}

static int make_entry(fuse_req_t req, fuse_ino_t parent, struct making *m, struct fuse_entry_param *e)
{
	struct overlay *o = overlay_of(req);
	cleanup_close int owned = -1;
	int directory = overlay_open_directory(o, parent, &owned);
	if (directory < 0)
		return directory;
	m->fd = -1;
	int r = make(req, directory, m);
	if (overlay_was_done(r, EEXIST) && made_before(o, parent, m))
		r = 0;
	if (r < 0)
		return r;
	overlay_directory_changed(o, parent, true);
	env_file_changed(o, parent, m->name);
	overlay_jj_changed(o, parent, m->name);
	if (parent == FUSE_ROOT_ID)
		removal_name_made(o->removal, m->name, fuse_req_ctx(req)->pid);
	return overlay_find(o, parent, m->name, e);
}

static void reply_made(fuse_req_t req, fuse_ino_t parent, struct making *m)
{
	struct fuse_entry_param e;
	int r = make_entry(req, parent, m, &e);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		overlay_reply_entry(req, &e);
}

/* May an ordinary user's server not open this again as it is made? Then what makes it must be kept. */
static bool needs_creator(mode_t mode)
{
	return !caller_may_differ() && (mode & (S_IRUSR | S_IWUSR)) != (S_IRUSR | S_IWUSR);
}

static void keep_creator(struct overlay *o, struct making *m, fuse_ino_t id)
{
	if (m->fd < 0)
		return;
	if (needs_creator(m->mode))
		overlay_pin_creator(o, (uint32_t)id, m->fd);
	else
		close(m->fd);
	m->fd = -1;
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	enum virtual_name v = virtual_for(req, parent, name);
	if (v)
		return virtual_create(req, v, mode, NULL);
	struct making m = {.name = name, .mode = mode, .rdev = rdev};
	reply_made(req, parent, &m);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	if (virtual_for(req, parent, name)) {
		fuse_reply_err(req, EPERM);
		return;
	}
	struct making m = {.name = name, .mode = mode | S_IFDIR};
	reply_made(req, parent, &m);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	enum virtual_name v = virtual_for(req, parent, name);
	if (v)
		return virtual_symlink(req, v, target);
	struct making m = {.name = name, .mode = S_IFLNK | 0777, .target = target};
	reply_made(req, parent, &m);
}

/* It was there already, which the kernel did not know: opened as the caller, it says itself whether that may. */
static int open_existing(fuse_req_t req, fuse_ino_t parent, struct making *m, int flags, struct fuse_entry_param *e)
{
	m->open_flags = (flags & (O_ACCMODE | O_TRUNC)) | O_CREAT;
	int r = make_entry(req, parent, m, e);
	if (r == -ELOOP)
		r = -EEXIST; /* and the kernel looks it up again */
	return r;
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct overlay *o = overlay_of(req);
	enum virtual_name v = virtual_for(req, parent, name);
	if (v)
		return virtual_create(req, v, mode, fi);
	struct fuse_entry_param e;
	struct making m = {.name = name, .mode = mode | S_IFREG, .open_flags = O_CREAT | O_EXCL | O_RDWR};
	int r = make_entry(req, parent, &m, &e);
	if (r == -EEXIST && !(fi->flags & O_EXCL))
		r = open_existing(req, parent, &m, fi->flags, &e);
	if (r < 0) {
		if (m.fd >= 0)
			close(m.fd);
		fuse_reply_err(req, -r);
		return;
	}
	keep_creator(o, &m, e.ino);
	fi->fh = 0;
	fi->keep_cache = 1;
	fi->noflush = 1;
	if (fuse_reply_create(req, &e, fi) == -ENOENT)
		overlay_forget(o, e.ino, 1);
}

static int link_node(struct overlay *o, fuse_ino_t ino, fuse_ino_t parent, const char *name, struct fuse_entry_param *e)
{
	struct stat st, there;
	cleanup_close int owned = -1;
	cleanup_close int file = overlay_open_node(o, ino, O_PATH, &st);
	int directory = overlay_open_directory(o, parent, &owned);
	if (file < 0 || directory < 0)
		return file < 0 ? file : directory;
	int r = linkat(AT_FDCWD, fd_path(file).text, directory, name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
	if (overlay_was_done(r, EEXIST) && overlay_stat_child(o, parent, name, &there) == 0 && there.st_ino == st.st_ino &&
	    there.st_dev == st.st_dev)
		r = 0;
	if (r < 0)
		return r;
	overlay_directory_changed(o, parent, true);
	return overlay_find(o, parent, name, e);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e;
	int r = virtual_is(ino) ? -EPERM : virtual_for(req, parent, name) ? -EEXIST : link_node(overlay_of(req), ino, parent, name, &e);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		overlay_reply_entry(req, &e);
}

/* ---- removing ---- */

/* What stands at a name, before it goes: its node, pinned if this is the last name that is known of it. */
struct leaving {
	uint32_t node; /* NODE_NONE: the kernel knows nothing of it */
	uint32_t parent;
	bool pinned;
	struct stat st;
};

static int prepare_leaving(struct overlay *o, fuse_ino_t parent, int directory, const char *name, struct leaving *l)
{
	*l = (struct leaving){0};
	cleanup_close int fd = openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &l->st) < 0)
		return -errno;
	nodes_lock_shared(o->nodes);
	l->parent = node_index(o->nodes, parent);
	l->node = node_find(o->nodes, l->st.st_dev, l->st.st_ino);
	bool last = l->node != NODE_NONE && l->parent != NODE_NONE && node_is_last_name(o->nodes, l->node, l->parent, name);
	nodes_unlock(o->nodes);
	if (last && overlay_pin(o, l->node, fd)) {
		move_fd(&fd);
		l->pinned = true;
	}
	return 0;
}

/* Nodes' lock held. */
static void has_left(struct overlay *o, const struct leaving *l, const char *name)
{
	if (l->node != NODE_NONE && l->parent != NODE_NONE)
		node_unname(o->nodes, l->node, l->parent, name);
}

static int remove_name(struct overlay *o, fuse_ino_t parent, const char *name, int flags)
{
	struct leaving l;
	cleanup_close int owned = -1;
	int directory = overlay_open_directory(o, parent, &owned);
	if (directory < 0)
		return directory;
	int r = prepare_leaving(o, parent, directory, name, &l);
	if (r < 0)
		return r;
	if (unlinkat(directory, name, flags) < 0) {
		r = -errno;
		if (l.pinned)
			overlay_unpin(o, l.node);
		return r;
	}
	nodes_lock(o->nodes);
	has_left(o, &l, name);
	nodes_unlock(o->nodes);
	overlay_directory_changed(o, parent, false);
	return 0;
}

int overlay_remove_name(struct overlay *o, fuse_ino_t parent, const char *name)
{
	return remove_name(o, parent, name, 0);
}

/* With the last name of the root it may be the workspace that is being removed; the mount is gone when that is answered. */
static void reply_removed(fuse_req_t req, fuse_ino_t parent, const char *name, int r)
{
	if (overlay_was_done(r, ENOENT))
		r = 0;
	if (r == 0 && parent == FUSE_ROOT_ID)
		removal_name_gone(overlay_of(req)->removal, name, fuse_req_ctx(req)->pid);
	fuse_reply_err(req, -r);
}

/* Of an env file the user's lines go, if there are any; the rest is there again for everybody else, and in a second for who did
 * that (tar deletes a name until it is gone). */
static int env_file_unlinked(fuse_req_t req, fuse_ino_t parent, const char *name, int r)
{
	struct overlay *o = overlay_of(req);
	enum virtual_name v = r == 0 || r == -ENOENT ? env_file_find(o, parent, name) : VIRTUAL_NONE;
	if (!v)
		return r;
	unlinked_add(o->unlinked, env_file_path(o, v), thread_group(fuse_req_ctx(req)->pid));
	env_file_changed(o, parent, name);
	return 0;
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	enum virtual_name v = virtual_for(req, parent, name);
	if (v)
		return virtual_unlink(req, v);
	int r = remove_name(overlay_of(req), parent, name, 0);
	if (r == 0)
		overlay_jj_changed(overlay_of(req), parent, name);
	if (env_name_is_possible(name))
		r = env_file_unlinked(req, parent, name, r);
	reply_removed(req, parent, name, r);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	if (virtual_for(req, parent, name)) {
		fuse_reply_err(req, ENOTDIR);
		return;
	}
	reply_removed(req, parent, name, remove_name(overlay_of(req), parent, name, AT_REMOVEDIR));
}

/* ---- renaming ---- */

struct renaming {
	fuse_ino_t parent[2];
	const char *name[2];
	int directory[2];
	unsigned flags;
};

/* Over the system call the tree stands still: a path made of names that are about to change finds nothing. */
static int rename_locked(struct overlay *o, const struct renaming *m, const struct stat *source, const struct leaving *target)
{
	struct node_rename r = {.exchange = m->flags & RENAME_EXCHANGE};
	r.index = node_find(o->nodes, source->st_dev, source->st_ino);
	r.other = r.exchange ? target->node : NODE_NONE;
	for (int i = 0; i < 2; i++) {
		r.parent[i] = node_index(o->nodes, m->parent[i]);
		r.name[i] = m->name[i];
		if (r.parent[i] == NODE_NONE)
			return -ESTALE;
	}
	int done = node_rename_begin(o->nodes, &r);
	if (done < 0)
		return done;
	done = renameat2(m->directory[0], m->name[0], m->directory[1], m->name[1], m->flags) < 0 ? -errno : 0;
	if (done == 0 && !r.exchange && target->node != r.index)
		has_left(o, target, m->name[1]);
	node_rename_end(o->nodes, done == 0);
	return done;
}

/* The kernel asks again for what a dead server did: the records say so, or the source is gone and the target there. */
static bool renamed_before(struct overlay *o, const struct renaming *m, int err)
{
	struct stat st;
	if (!session_request_resent())
		return false;
	if (o->renamed[0].name && o->renamed[0].parent == m->parent[0] && o->renamed[1].parent == m->parent[1] &&
	    strcmp(o->renamed[0].name, m->name[0]) == 0 && strcmp(o->renamed[1].name, m->name[1]) == 0)
		return true;
	return err == -ENOENT && overlay_stat_child(o, m->parent[1], m->name[1], &st) == 0;
}

static int rename_beneath(struct overlay *o, struct renaming *m)
{
	struct stat source;
	struct leaving target = {0};
	cleanup_close int owned0 = -1, owned1 = -1;
	m->directory[0] = overlay_open_directory(o, m->parent[0], &owned0);
	m->directory[1] = overlay_open_directory(o, m->parent[1], &owned1);
	if (m->directory[0] < 0 || m->directory[1] < 0)
		return m->directory[0] < 0 ? m->directory[0] : m->directory[1];
	if (renamed_before(o, m, 0))
		return 0;
	if (fstatat(m->directory[0], m->name[0], &source, AT_SYMLINK_NOFOLLOW) < 0)
		return renamed_before(o, m, -errno) ? 0 : -errno;
	int r = prepare_leaving(o, m->parent[1], m->directory[1], m->name[1], &target);
	if (r < 0 && r != -ENOENT)
		return r;
	nodes_lock(o->nodes);
	r = rename_locked(o, m, &source, &target);
	nodes_unlock(o->nodes);
	for (int i = 0; i < 2 && r == 0; i++)
		overlay_directory_changed(o, m->parent[i], true);
	bool stays = r < 0 || m->flags & RENAME_EXCHANGE || (source.st_ino == target.st.st_ino && source.st_dev == target.st.st_dev);
	if (target.pinned && stays)
		overlay_unpin(o, target.node);
	return r;
}

int overlay_rename(struct overlay *o, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
                   unsigned flags)
{
	struct renaming m = {.parent = {parent, new_parent}, .name = {name, new_name}, .flags = flags};
	return rename_beneath(o, &m);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
                      unsigned flags)
{
	enum virtual_name over = virtual_for(req, new_parent, new_name);
	if (virtual_for(req, parent, name) || (over && flags & RENAME_EXCHANGE)) {
		fuse_reply_err(req, EBUSY);
		return;
	}
	if (over)
		return virtual_rename_over(req, over, parent, name, flags);
	int r = overlay_rename(overlay_of(req), parent, name, new_parent, new_name, flags);
	if (r == -ENOENT && env_file_find(overlay_of(req), parent, name))
		r = -EBUSY; /* there are no lines of the user's to be moved */
	if (r == 0) {
		env_file_changed(overlay_of(req), new_parent, new_name);
		env_file_changed(overlay_of(req), parent, name);
		overlay_jj_changed(overlay_of(req), new_parent, new_name);
		overlay_jj_changed(overlay_of(req), parent, name);
	}
	fuse_reply_err(req, -r);
}

void overlay_recover_rename(struct overlay *o)
{
	struct node_rename r;
	struct stat st;
	if (!node_rename_left(o->nodes, &r))
		return;
	bool done = r.index != NODE_NONE && overlay_stat_child(o, node_id(o->nodes, r.parent[1]), r.name[1], &st) == 0 &&
	            node_is(o->nodes, r.index, &st);
	for (int i = 0; i < 2 && done; i++) {
		o->renamed[i].parent = node_id(o->nodes, r.parent[i]);
		o->renamed[i].name = xstrdup(r.name[i]);
	}
	nodes_lock(o->nodes);
	node_rename_end(o->nodes, done);
	nodes_unlock(o->nodes);
}

void overlay_ops_names(struct fuse_lowlevel_ops *ops)
{
	ops->lookup = op_lookup;
	ops->forget = op_forget;
	ops->forget_multi = op_forget_multi;
	ops->mknod = op_mknod;
	ops->mkdir = op_mkdir;
	ops->symlink = op_symlink;
	ops->link = op_link;
	ops->create = op_create;
	ops->unlink = op_unlink;
	ops->rmdir = op_rmdir;
	ops->rename = op_rename;
}
