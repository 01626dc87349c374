/* Removing the workspace through its own mount, by people who never heard of us: `rm -rf`, `git worktree remove` and the like delete what
 * they see and end in rmdir of a mount point, which is EBUSY and never reaches us. So when a process takes the last listed name of the
 * root away, and `.jj` or `.git` was among what it took, then before that is answered the mounts go, and what is hidden beneath.
 *
 * Who merely empties a repository keeps those two; who makes one by himself and fails (`git clone` into the directory) takes away what
 * he made. The names go while the kernel holds the root's lock, so the calls here come one at a time. What is noted of a process is in the shared
 * memory: the next server goes on with it. */
#ifndef FS_REMOVAL_H
#define FS_REMOVAL_H

#include <stdbool.h>
#include <sys/types.h>

#include "fs/shared.h"
#include "provisioner/identity.h"

#define REMOVAL_DETACH_MS 15000 /* until the keeper has unmounted; then the caller's rmdir fails as it always did */
#define REMOVAL_GRACE_MS 2000   /* how long the detached mount answers those who still stand in it */

enum removal_bit {
	REMOVAL_MADE = 1,        /* .git or .jj: its own */
	REMOVAL_REPOSITORY = 2,  /* .git or .jj is gone by it */
	REMOVAL_ENV = 4,         /* it deleted .env */
	REMOVAL_AETHER = 8
};

struct removal;

struct removal_params {
	struct shared *shared;
	int root_fd;               /* beneath; borrowed */
	int keeper_socket;         /* borrowed; -1: none, and nothing is ever removed */
	const struct identity *id; /* borrowed */
	void (*begun)(void *arg, pid_t tgid); /* the mounts are gone: the environment shall follow. Worker thread; must not block */
	void *arg;
};

struct removal *removal_new(const struct removal_params *params);

/* `name` was made in the root by thread `tid`, or has gone from it, the virtual names too; not answered yet. Inside an operation, on a
 * worker thread; the second one blocks when it is the end, at most REMOVAL_DETACH_MS. */
void removal_name_made(struct removal *r, const char *name, pid_t tid);
void removal_name_gone(struct removal *r, const char *name, pid_t tid);

/* The real `.env` beneath was listed to somebody, who may keep the listing. Any thread. */
void removal_env_shown(struct removal *r);

/* Has the end begun? Any thread. Said before the mounts go, so whoever finds them gone can ask. */
bool removal_has_begun(const struct removal *r, pid_t *ret_tgid);

/* KEEPER_DETACHED came; loop thread. */
void removal_detached(struct removal *r, bool failed);

#endif
