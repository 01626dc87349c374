/* What the files of the overlay share: the object, how a node is opened, and the operations by family. */
#ifndef FS_OVERLAY_PRIVATE_H
#define FS_OVERLAY_PRIVATE_H

#include <pthread.h>

#include "base/cleanup.h"
#include "fs/caller.h"
#include "fs/node.h"
#include "fs/control_files.h"
#include "fs/overlay.h"
#include "provisioner/config.h"
#include "provisioner/env_name.h"

#define OVERLAY_PINS_MAX 3072    /* descriptors held for nodes, less than KEEPER_STASH_MAX */
#define OVERLAY_CREATORS_MAX 64  /* of them, for files that their creator may write and nobody else */
#define OVERLAY_STREAMS_MAX 8    /* directories being read */
#define OVERLAY_ENV_TEXT_MAX (1u << 20) /* bytes of a file that takes the place of .env */
#define OVERLAY_BENEATH 1.0      /* seconds, while somebody stands beneath */
#define OVERLAY_FOREVER 1e8      /* seconds; of attributes and entries: there is one door */

struct stream;
struct notices;

/* A file that was put in the place of .env and is perhaps still being written. */
struct replacement {
	uint32_t index; /* NODE_NONE: free */
	uint32_t generation;
	struct timespec written; /* mtime of what was handed over last */
};
#define OVERLAY_REPLACEMENTS_MAX 8

struct overlay {
	struct nodes *nodes;
	struct shared *shared; /* borrowed */
	int root_fd;           /* borrowed */
	struct stat root;
	char *control_dir;
	_Atomic(const char *) env_name; /* static */
	struct unlinked *unlinked; /* borrowed */
	struct removal *removal;   /* borrowed */
	struct overlay_events events;
	bool strict;         /* nothing is remembered */
	bool one_door;       /* nobody else changes it, now or later */
	_Atomic bool beneath; /* somebody stands beneath, who came before the mount: what is remembered is asked for again soon */
	bool listed;         /* readdir shows the virtual names */
	bool stable_inodes;  /* an inode keeps its number beneath */
	bool xattrs, acls;   /* the file system beneath has them */
	struct timespec began;

	/* Held over a change of a node's descriptor and the message about it, so that the keeper hears of both in one order. Taken
	 * before the nodes' lock. */
	pthread_mutex_t pin_lock;
	int keeper_socket;
	unsigned pins;
	struct { uint32_t index, generation; } creators[OVERLAY_CREATORS_MAX];
	unsigned next_creator;

	pthread_mutex_t widen_lock; /* held while a mode is not what it should be, see overlay_open.c */

	pthread_mutex_t stream_lock;
	struct stream *streams[OVERLAY_STREAMS_MAX];
	uint64_t stream_clock;

	pthread_mutex_t replacement_lock;
	struct replacement replacements[OVERLAY_REPLACEMENTS_MAX];
	_Atomic unsigned replacement_count;

	struct notices *notices;

	_Atomic(struct env_files *) env_files; /* NULL: not known yet */
	pthread_mutex_t env_files_lock;
	pthread_cond_t env_files_known;

	/* the rename that a dead server had done already: the kernel will ask for it again */
	struct { uint64_t parent; char *name; } renamed[2];
};

/* Seconds: of entries and attributes. */
static inline double overlay_timeout(const struct overlay *o)
{
	return o->strict ? 0 : atomic_load(&o->beneath) ? OVERLAY_BENEATH : OVERLAY_FOREVER;
}

static inline struct overlay *overlay_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* ---- overlay_open.c: from a node to a descriptor ---- */

/* new descriptor or negative errno; -ESTALE when what is there is not the node. `flags` without O_CREAT; `st` may be NULL. */
int overlay_open_node(struct overlay *o, fuse_ino_t id, int flags, struct stat *st);
/* The same for a directory that names are looked up in, O_PATH; the root is borrowed, so close `*ret_owned` alone. */
int overlay_open_directory(struct overlay *o, fuse_ino_t id, int *ret_owned);
/* "/proc/self/fd/N": for calls that refuse an O_PATH descriptor. It reaches symbolic links themselves, too. */
struct fd_path { char text[32]; };
struct fd_path fd_path(int fd);
/* O_PATH; of a directory's entry as it is beneath. */
int overlay_stat_child(struct overlay *o, fuse_ino_t parent, const char *name, struct stat *st);

/* ---- overlay_pins.c: the descriptors that nodes have ---- */

/* Keeps `fd` (duplicated) as the node's own and with the keeper. False when it has one already, or there are too many. */
bool overlay_pin(struct overlay *o, uint32_t index, int fd);
void overlay_unpin(struct overlay *o, uint32_t index);
/* The same for the descriptor that created a file; an older one may go for it. */
void overlay_pin_creator(struct overlay *o, uint32_t index, int fd);
/* A node for a nameless file, pinned; steals fd. NODE_NONE when there are too many. */
uint32_t overlay_enter_nameless(struct overlay *o, const struct stat *st, enum shared_node_unlinked why, int fd);
void overlay_forget(struct overlay *o, fuse_ino_t id, uint64_t count);

/* ---- overlay_names.c ---- */

/* Gives the kernel the entry (parent, name): one reference more, which the caller takes back if the reply fails. 0 or negative errno. */
int overlay_enter(struct overlay *o, fuse_ino_t parent, const char *name, struct stat *st, uint32_t moves,
                  struct fuse_entry_param *ret);
/* Looks it up beneath first. */
int overlay_find(struct overlay *o, fuse_ino_t parent, const char *name, struct fuse_entry_param *ret);
void overlay_reply_entry(fuse_req_t req, const struct fuse_entry_param *e);
/* An attempt at something that a dead server may have done: is `err` (negative) what that looks like? */
bool overlay_was_done(int err, int done_err);
void overlay_recover_rename(struct overlay *o);
/* What is beneath, whatever the names mean to the overlay. Inside an operation on them. */
int overlay_remove_name(struct overlay *o, fuse_ino_t parent, const char *name);
int overlay_rename(struct overlay *o, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
                   unsigned flags);
void overlay_ops_names(struct fuse_lowlevel_ops *ops);

/* ---- overlay_virtual.c: .env and .aether ---- */

/* Also their node ids. From VIRTUAL_FILES on they are x-aether.env_files, in their order. */
enum virtual_name { VIRTUAL_NONE, VIRTUAL_ENV = 2, VIRTUAL_AETHER = 3, VIRTUAL_FILES = 4, VIRTUAL_END = NODE_FIRST };
#define VIRTUAL_FILES_MAX (VIRTUAL_END - VIRTUAL_FILES)
_Static_assert(VIRTUAL_FILES_MAX >= CONFIG_ENV_FILES_MAX, "node ids for all env files");

static inline bool virtual_is(fuse_ino_t id)
{
	return id >= VIRTUAL_ENV && id < VIRTUAL_END;
}
enum virtual_name virtual_find(struct overlay *o, fuse_ino_t parent, const char *name);
const char *virtual_name_of(struct overlay *o, enum virtual_name v);
void virtual_entry(struct overlay *o, enum virtual_name v, struct fuse_entry_param *ret);
void virtual_stat(struct overlay *o, enum virtual_name v, struct stat *st);
const char *virtual_target(struct overlay *o, enum virtual_name v);
/* Each answers the request. */
void virtual_lookup(fuse_req_t req, enum virtual_name v);
void virtual_unlink(fuse_req_t req, enum virtual_name v);
void virtual_create(fuse_req_t req, enum virtual_name v, mode_t mode, struct fuse_file_info *fi); /* fi NULL: mknod */
void virtual_symlink(fuse_req_t req, enum virtual_name v, const char *target);
void virtual_rename_over(fuse_req_t req, enum virtual_name v, fuse_ino_t from, const char *name, unsigned flags);
/* A node that is being freed, or written: hands the text over if it replaces .env. */
void virtual_closed(struct overlay *o, uint32_t index, uint64_t forgotten);
void virtual_restore(struct overlay *o);

/* ---- overlay_env_files.c ---- */

enum virtual_name env_file_find_slow(struct overlay *o, fuse_ino_t parent, const char *name);
bool env_file_like_slow(struct overlay *o, const char *name);
/* VIRTUAL_NONE, or one of those from VIRTUAL_FILES on. */
static inline enum virtual_name env_file_find(struct overlay *o, fuse_ino_t parent, const char *name)
{
	return env_name_is_possible(name) ? env_file_find_slow(o, parent, name) : VIRTUAL_NONE;
}
/* Has one of them this name, in whatever directory? Then its entries are not remembered. */
static inline bool env_file_like(struct overlay *o, const char *name)
{
	return env_name_is_possible(name) && env_file_like_slow(o, name);
}
/* Has one of them been looked up in this directory? */
bool env_file_directory(struct overlay *o, fuse_ino_t directory);
/* borrowed as long as the overlay lives */
const char *env_file_path(struct overlay *o, enum virtual_name v);
const char *env_file_name(struct overlay *o, enum virtual_name v);
const char *env_file_target(struct overlay *o, enum virtual_name v);
bool env_file_is_in(struct overlay *o, enum virtual_name v, fuse_ino_t directory);
/* Inside an operation that has changed what is beneath at this name. */
void env_file_changed(struct overlay *o, fuse_ino_t parent, const char *name);
void env_files_free(struct overlay *o);

/* ---- overlay_jj.c: who holds jj's lock ---- */

/* Is the caller jj at work on this working copy? */
bool overlay_sees_beneath(fuse_req_t req);
/* virtual_find() for who asks. */
enum virtual_name virtual_for(fuse_req_t req, fuse_ino_t parent, const char *name);
/* Inside an operation that has made or removed this name beneath: tells of the user's lines, also when jj is done. */
void overlay_jj_changed(struct overlay *o, fuse_ino_t parent, const char *name);

/* ---- notices.c: what the kernel is to forget; any thread, returns at once ---- */

struct notices *notices_new(void);
void notices_set_device(struct notices *n, int device); /* borrowed */
void notices_entry(struct notices *n, fuse_ino_t parent, const char *name);
void notices_inode(struct notices *n, fuse_ino_t ino);
/* The same at once, for a request that reads the directory: of what is cached the kernel locks single pages alone. */
void notices_inode_now(struct notices *n, fuse_ino_t directory);
void notices_free(struct notices *n);

/* ---- operations by family: each fills in its own ---- */

void overlay_ops_attributes(struct fuse_lowlevel_ops *ops);
void overlay_ops_xattrs(struct fuse_lowlevel_ops *ops);
void overlay_ops_data(struct fuse_lowlevel_ops *ops);
void overlay_ops_directories(struct fuse_lowlevel_ops *ops);

/* A name was added to the directory or taken from it, and that is not answered yet. */
void overlay_directory_changed(struct overlay *o, fuse_ino_t directory, bool added);
void streams_free(struct overlay *o);

#endif
