/* `.env` and `.aether` in the root: symbolic links that exist for lookups alone, and what happens to somebody who treats them as files.
 *
 * A file that is renamed over `.env`, or created in its place by the process that deleted it, becomes the user's lines: its
 * text is handed over and the link is found again. Without OPEN and RELEASE nobody tells us that such a file is closed; but once its
 * entry is invalidated its last close lets go of the inode, and the kernel's FORGET says so. A lookup of .env meanwhile hands over what is
 * there by then: a reader that comes after the writer finds the writer's text.
 */
#include "fs/overlay_private.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/alloc.h"
#include "base/log.h"

/* The two in the root; those at other paths are in overlay_env_files.c. */
static const struct {
	enum virtual_name which;
	const char *name;
} names[] = {
	{VIRTUAL_ENV, NULL}, /* as the repository has it: o->env_name */
	{VIRTUAL_AETHER, ".aether"},
};
#define VIRTUAL_INO 4294967265u /* what stat shows: beyond the numbers that file systems hand out, within 32 bits */

const char *virtual_name_of(struct overlay *o, enum virtual_name v)
{
	if (v >= VIRTUAL_FILES)
		return env_file_name(o, v);
	return v == VIRTUAL_ENV ? atomic_load(&o->env_name) : names[v - VIRTUAL_ENV].name;
}

enum virtual_name virtual_find(struct overlay *o, fuse_ino_t parent, const char *name)
{
	if (parent != FUSE_ROOT_ID || name[0] != '.')
		return VIRTUAL_NONE;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(virtual_name_of(o, names[i].which), name) == 0)
			return names[i].which;
	return VIRTUAL_NONE;
}


const char *virtual_target(struct overlay *o, enum virtual_name v)
{
	if (v >= VIRTUAL_FILES)
		return env_file_target(o, v);
	return v == VIRTUAL_ENV ? ".aether/env" : o->control_dir;
}

void virtual_stat(struct overlay *o, enum virtual_name v, struct stat *st)
{
	*st = (struct stat){
		.st_ino = VIRTUAL_INO + v,
		.st_mode = S_IFLNK | 0777,
		.st_nlink = 1,
		.st_uid = o->root.st_uid,
		.st_gid = o->root.st_gid,
		.st_size = (off_t)strlen(virtual_target(o, v)),
		.st_blksize = 4096,
		.st_atim = o->began,
		.st_mtim = o->began,
		.st_ctim = o->began,
	};
}

void virtual_entry(struct overlay *o, enum virtual_name v, struct fuse_entry_param *ret)
{
	/* of an env file each must ask for himself: it is absent for who has deleted it, and for jj (overlay_jj.c) */
	bool same_for_all = v == VIRTUAL_AETHER && !unlinked_any(o->unlinked, virtual_name_of(o, v));
	*ret = (struct fuse_entry_param){.ino = v, .attr_timeout = overlay_timeout(o),
	                                 .entry_timeout = same_for_all ? overlay_timeout(o) : 0};
	virtual_stat(o, v, &ret->attr);
}

/* ---- the text that replaces .env ---- */

static void hand_over(struct overlay *o, int fd, const struct stat *st)
{
	char *text = malloc((size_t)st->st_size + 1);
	ssize_t length = text ? pread(fd, text, (size_t)st->st_size, 0) : -1;
	if (length < 0 || !o->events.env_written) {
		free(text);
		return;
	}
	text[length] = '\0';
	o->events.env_written(o->events.arg, text, (size_t)length);
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* replacement_lock held. `closed`: even when nothing was written, for then it is an empty file that was put there. */
static void deliver(struct overlay *o, struct replacement *r, bool closed)
{
	struct stat st;
	nodes_lock_shared(o->nodes);
	fuse_ino_t id = node_id(o->nodes, r->index);
	nodes_unlock(o->nodes);
	cleanup_close int fd = overlay_open_node(o, id, O_RDONLY, &st);
	if (fd < 0 || (st.st_size == 0 && !closed) || same_time(&st.st_mtim, &r->written))
		return;
	if (st.st_size > OVERLAY_ENV_TEXT_MAX) {
		log_warning("overlay", "what was written in the place of .env is too long: %lld bytes", (long long)st.st_size);
		return;
	}
	r->written = st.st_mtim;
	hand_over(o, fd, &st);
}

static void deliver_all(struct overlay *o)
{
	if (atomic_load(&o->replacement_count) == 0)
		return;
	pthread_mutex_lock(&o->replacement_lock);
	for (int i = 0; i < OVERLAY_REPLACEMENTS_MAX; i++)
		if (o->replacements[i].index != NODE_NONE)
			deliver(o, &o->replacements[i], false);
	pthread_mutex_unlock(&o->replacement_lock);
}

/* Beyond the bound the earliest is followed no longer: it was handed over by a lookup, or is superseded anyway. */
static void follow_replacement(struct overlay *o, uint32_t index, const struct timespec *written)
{
	pthread_mutex_lock(&o->replacement_lock);
	struct replacement *r = NULL;
	for (int i = 0; i < OVERLAY_REPLACEMENTS_MAX && !r; i++)
		if (o->replacements[i].index == NODE_NONE)
			r = &o->replacements[i];
	if (!r) {
		memmove(o->replacements, o->replacements + 1, sizeof(*r) * (OVERLAY_REPLACEMENTS_MAX - 1));
		r = &o->replacements[OVERLAY_REPLACEMENTS_MAX - 1];
	} else {
		atomic_fetch_add(&o->replacement_count, 1);
	}
	*r = (struct replacement){.index = index};
	if (written)
		r->written = *written;
	pthread_mutex_unlock(&o->replacement_lock);
}

void virtual_closed(struct overlay *o, uint32_t index, uint64_t forgotten)
{
	if (atomic_load(&o->replacement_count) == 0)
		return;
	nodes_lock_shared(o->nodes);
	const struct shared_node *n = node_record(o->nodes, index);
	bool last = atomic_load(&n->unlinked) == NODE_REPLACES_ENV && atomic_load(&n->nlookup) <= forgotten;
	nodes_unlock(o->nodes);
	if (!last)
		return;
	pthread_mutex_lock(&o->replacement_lock);
	for (int i = 0; i < OVERLAY_REPLACEMENTS_MAX; i++) {
		struct replacement *r = &o->replacements[i];
		if (r->index != index)
			continue;
		deliver(o, r, true);
		*r = (struct replacement){0};
		atomic_fetch_sub(&o->replacement_count, 1);
	}
	pthread_mutex_unlock(&o->replacement_lock);
}

void virtual_restore(struct overlay *o)
{
	uint32_t count = atomic_load(&o->shared->node_count);
	for (uint32_t i = NODE_FIRST; i < count; i++) {
		const struct shared_node *n = node_record(o->nodes, i);
		if (atomic_load(&n->state) == NODE_LIVE && atomic_load(&n->unlinked) == NODE_REPLACES_ENV)
			follow_replacement(o, i, NULL);
	}
}

/* ---- the requests ---- */

void virtual_lookup(fuse_req_t req, enum virtual_name v)
{
	struct overlay *o = overlay_of(req);
	struct fuse_entry_param e;
	const char *name = v >= VIRTUAL_FILES ? env_file_path(o, v) : virtual_name_of(o, v);
	if (v == VIRTUAL_ENV)
		deliver_all(o);
	virtual_entry(o, v, &e);
	if (e.entry_timeout == 0 && unlinked_hides(o->unlinked, name, thread_group(fuse_req_ctx(req)->pid)))
		fuse_reply_err(req, ENOENT);
	else
		fuse_reply_entry(req, &e);
}

/* Told before it is answered: until then the kernel lets nobody else look in this directory. */
void virtual_unlink(fuse_req_t req, enum virtual_name v)
{
	struct overlay *o = overlay_of(req);
	pid_t tgid = thread_group(fuse_req_ctx(req)->pid);
	bool again = session_request_resent() && unlinked_hides(o->unlinked, virtual_name_of(o, v), tgid);
	unlinked_add(o->unlinked, virtual_name_of(o, v), tgid);
	if (!again && o->events.unlinked)
		o->events.unlinked(o->events.arg, tgid);
	removal_name_gone(o->removal, virtual_name_of(o, v), fuse_req_ctx(req)->pid);
	fuse_reply_err(req, 0);
}

/* The caller puts something in the place of .env: no teardown then. */
static void replaces(fuse_req_t req)
{
	struct overlay *o = overlay_of(req);
	pid_t tgid = thread_group(fuse_req_ctx(req)->pid);
	if (unlinked_take(o->unlinked, virtual_name_of(o, VIRTUAL_ENV), tgid) && o->events.replaced)
		o->events.replaced(o->events.arg, tgid);
}

static int open_nameless(fuse_req_t req, mode_t mode)
{
	struct overlay *o = overlay_of(req);
	int r = caller_enter(req);
	if (r < 0)
		return r;
	mode_t wanted = caller_mode(req, mode) & 07777;
	int fd = openat(o->root_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, wanted);
	caller_leave();
	if (fd >= 0)
		return fd;
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	fd = memfd_create("env", MFD_CLOEXEC);
	if (fd >= 0 && (fchmod(fd, wanted & ~ctx->umask) < 0 || (caller_may_differ() && fchown(fd, ctx->uid, ctx->gid) < 0)))
		log_warning("overlay", "the file in the place of .env has another owner or mode than asked for");
	return fd < 0 ? -errno : fd;
}

/* An entry that is looked up the next time, and then found to be the link. */
static int enter_replacement(fuse_req_t req, mode_t mode, struct fuse_entry_param *e)
{
	struct overlay *o = overlay_of(req);
	struct stat st;
	int fd = open_nameless(req, mode);
	if (fd < 0 || fstat(fd, &st) < 0)
		return fd < 0 ? fd : -EIO;
	uint32_t index = overlay_enter_nameless(o, &st, NODE_REPLACES_ENV, fd);
	if (index == NODE_NONE)
		return -ENFILE;
	follow_replacement(o, index, NULL);
	st.st_nlink = 1; /* it passes for a file with a name */
	*e = (struct fuse_entry_param){.ino = node_id(o->nodes, index), .attr = st, .attr_timeout = overlay_timeout(o)};
	return 0;
}

void virtual_create(fuse_req_t req, enum virtual_name v, mode_t mode, struct fuse_file_info *fi)
{
	struct overlay *o = overlay_of(req);
	struct fuse_entry_param e;
	int r = v != VIRTUAL_ENV || !S_ISREG(mode | (fi ? S_IFREG : 0)) ? -EPERM : enter_replacement(req, mode, &e);
	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	replaces(req);
	if (fi) {
		fi->keep_cache = 1;
		fi->noflush = 1;
	}
	notices_entry(o->notices, FUSE_ROOT_ID, virtual_name_of(o, v));
	if ((fi ? fuse_reply_create(req, &e, fi) : fuse_reply_entry(req, &e)) == -ENOENT)
		overlay_forget(o, e.ino, 1);
}

static void changed_beneath(struct overlay *o)
{
	if (o->events.env_changed)
		o->events.env_changed(o->events.arg);
}

static int symlink_beneath(fuse_req_t req, const char *target, const char *name)
{
	struct overlay *o = overlay_of(req);
	char temporary[64];
	snprintf(temporary, sizeof(temporary), ".env.aether-%d-%d", (int)getpid(), (int)fuse_req_ctx(req)->pid);
	int r = caller_enter(req);
	if (r < 0)
		return r;
	r = symlinkat(target, o->root_fd, temporary) < 0 ? -errno : 0;
	caller_leave();
	if (r == 0 && renameat(o->root_fd, temporary, o->root_fd, name) < 0) {
		r = -errno;
		unlinkat(o->root_fd, temporary, 0);
	}
	return r;
}

/* What `cp -a` takes from another mounted workspace: kept beneath it would hide the user's lines and lead to itself. */
static bool is_own_link(struct overlay *o, const char *target)
{
	return strcmp(target, virtual_target(o, VIRTUAL_ENV)) == 0;
}

/* ln -s other/.env .env after a delete: the link is the real entry beneath, and read through. */
void virtual_symlink(fuse_req_t req, enum virtual_name v, const char *target)
{
	struct overlay *o = overlay_of(req);
	struct fuse_entry_param e;
	if (v != VIRTUAL_ENV) {
		fuse_reply_err(req, EPERM);
		return;
	}
	int r = is_own_link(o, target) ? 0 : symlink_beneath(req, target, virtual_name_of(o, v));
	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	overlay_directory_changed(o, FUSE_ROOT_ID, true);
	replaces(req);
	changed_beneath(o);
	virtual_entry(o, v, &e);
	fuse_reply_entry(req, &e);
	notices_inode(o->notices, FUSE_ROOT_ID);
}

/* A regular file: its text is handed over, its name goes, and as long as somebody has it open it is followed as one that was created here. */
static int rename_text_over(struct overlay *o, fuse_ino_t from, const char *name, struct fuse_entry_param *e)
{
	struct stat st;
	if (e->attr.st_size > OVERLAY_ENV_TEXT_MAX)
		return -EFBIG;
	cleanup_close int fd = overlay_open_node(o, e->ino, O_RDONLY, &st);
	int r = fd < 0 ? fd : overlay_remove_name(o, from, name);
	if (r < 0)
		return r;
	nodes_lock(o->nodes);
	uint32_t index = node_index(o->nodes, e->ino);
	struct shared_node *n = node_record(o->nodes, index);
	bool nameless = atomic_load(&n->unlinked) == NODE_UNLINKED;
	if (nameless)
		atomic_store(&n->unlinked, NODE_REPLACES_ENV);
	nodes_unlock(o->nodes);
	if (nameless)
		follow_replacement(o, index, &st.st_mtim);
	hand_over(o, fd, &st);
	return 0;
}

static int rename_link_over(struct overlay *o, fuse_ino_t from, const char *name, fuse_ino_t link)
{
	char target[PATH_MAX];
	cleanup_close int fd = overlay_open_node(o, link, O_PATH, NULL);
	ssize_t n = fd < 0 ? -1 : readlinkat(fd, "", target, sizeof(target) - 1);
	target[n < 0 ? 0 : n] = '\0';
	if (is_own_link(o, target))
		return overlay_remove_name(o, from, name);
	int r = overlay_rename(o, from, name, FUSE_ROOT_ID, virtual_name_of(o, VIRTUAL_ENV), 0);
	if (r == 0)
		changed_beneath(o);
	return r;
}

void virtual_rename_over(fuse_req_t req, enum virtual_name v, fuse_ino_t from, const char *name, unsigned flags)
{
	struct overlay *o = overlay_of(req);
	struct fuse_entry_param e;
	int r = v != VIRTUAL_ENV ? -EPERM : flags & RENAME_NOREPLACE ? -EEXIST : overlay_find(o, from, name, &e);
	if (r < 0) {
		/* what a dead server had renamed is gone */
		fuse_reply_err(req, overlay_was_done(r, ENOENT) ? 0 : -r);
		return;
	}
	if (S_ISREG(e.attr.st_mode))
		r = rename_text_over(o, from, name, &e);
	else if (S_ISLNK(e.attr.st_mode))
		r = rename_link_over(o, from, name, e.ino);
	else
		r = -EPERM;
	if (r == 0) {
		replaces(req);
		/* the notice waits in the kernel for the directory that this request holds, and is next when it is answered */
		notices_entry(o->notices, FUSE_ROOT_ID, virtual_name_of(o, v));
		notices_inode(o->notices, FUSE_ROOT_ID);
	}
	fuse_reply_err(req, -r);
	overlay_forget(o, e.ino, 1);
}
