/* The overlay: everything but the virtual names passes through to the directory beneath. Worker threads; never blocks on a
 * backend. Its two virtual names, `.env` (or what the repository has in its place) and `.aether` in the root, are symbolic links into the control file system and are not
 * listed by readdir unless MOUNT_LISTED.
 */
#ifndef FS_OVERLAY_H
#define FS_OVERLAY_H

#include "fs/removal.h"
#include "fs/session.h"
#include "fs/unlinked.h"

/* What the overlay tells the environment; called on worker threads, must not block: the server posts it to the loop. */
struct overlay_events {
	/* `.env` or `.aether` was unlinked by thread group `tgid` */
	void (*unlinked)(void *arg, pid_t tgid);
	/* ... and created again by it */
	void (*replaced)(void *arg, pid_t tgid);
	/* a file was renamed over `.env` or created in its place and closed: new text for the user's lines. steals `text` */
	void (*env_written)(void *arg, char *text, size_t len);
	/* the real entry beneath `.env` (a symbolic link was put there), or one of x-aether.env_files, is another now; may be NULL */
	void (*env_changed)(void *arg);
	bool waits_for_files; /* overlay_set_env_files() will come */
	void *arg;
};

struct overlay_params {
	struct shared *shared;
	int root_fd;                 /* borrowed */
	int keeper_socket;           /* for KEEPER_STASH; -1: none */
	const char *control_dir;     /* target of .aether; borrowed */
	const char *env_name;        /* of the other virtual name (provisioner/env_name.h); static */
	struct unlinked *unlinked;   /* borrowed */
	struct removal *removal;     /* borrowed */
	bool beneath;                /* somebody stands beneath (fs/beneath.h) */
	struct overlay_events events;
};

struct overlay;

int overlay_new(const struct overlay_params *params, struct overlay **ret, struct error *err);
/* Before session_run(): without it nothing can be invalidated. borrowed; its descriptor must outlive the overlay */
void overlay_set_session(struct overlay *o, struct session *s);
/* The real `.env` was made, written or removed beneath: the kernel forgets what it lists in the root, and the file that a link leads to. Any
 * thread; returns at once. */
void overlay_own_changed(struct overlay *o);
/* Static. Any thread; returns at once. */
void overlay_set_env_name(struct overlay *o, const char *name);
/* Nobody stands beneath any more. Any thread. */
void overlay_nobody_beneath(struct overlay *o);
/* The file is perhaps another than the kernel remembers. Any thread; returns at once. */
void overlay_written_beneath(struct overlay *o, dev_t device, ino_t inode);
/* Paths below the workspace, NULL at the end; copied. Any thread; returns at once. */
void overlay_set_env_files(struct overlay *o, char *const *paths);
/* The real file beneath one of them was made, written or removed. */
void overlay_env_files_changed(struct overlay *o);
void overlay_restore(struct overlay *o, uint32_t key, int fd); /* steals fd: one that an earlier server stashed */
void overlay_free(struct overlay *o);
const struct fuse_lowlevel_ops *overlay_ops(size_t *ret_size);

#endif
