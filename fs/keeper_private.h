/* The two halves of the program `aetherfs`: aetherfs.c is asked, checks and goes into the background; keeper.c mounts and stays. */
#ifndef FS_KEEPER_PRIVATE_H
#define FS_KEEPER_PRIVATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "fs/shared.h"
#include "provisioner/identity.h"

#define KEEPER_START_MS 30000 /* until a server must answer */
#define KEEPER_STOP_MS 60000  /* what the server may take to stop its services; a second signal ends the patience */
#define KEEPER_END_MS 20000   /* what processes that are still there then may take before they are killed */
#define KEEPER_KILL_MS 5000   /* ... and what they may take to die then */

struct keeper_params {
	const struct identity *id;
	const char *points[SESSION_COUNT]; /* where to mount: canonical */
	const char *kernel_options;        /* for the overlay: "ro,nosuid" or "" */
	const char *workspace;             /* as it was asked for; NULL */
	uint32_t options;                  /* enum mount_option */
	bool may_share;                    /* others may look in */
	bool mask_resend;
	unsigned watchdog_ms;              /* a server that is silent for so long is replaced; 0: never */
	int root_fd;                       /* the directory that will be covered */
	int lock_fd;                       /* one keeper a workspace */
	int ready_fd;                      /* gets "ok" once both file systems answer; when its reader is gone before that,
	                                    * nobody wants the mount any more. -1: none. All are borrowed */
};

/* Mounts, serves until it is unmounted or told to end, and leaves nothing behind. Signals are blocked, children are all this process's
 * own. An error when it never came to answer; what happened later is in the log. */
int keeper_run(const struct keeper_params *params, struct error *err);

#endif
