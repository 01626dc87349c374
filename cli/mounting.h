/* Mounting and unmounting a workspace for a person: idempotent, over what a killed keeper left, and with a word on who is in the way. */
#ifndef CLI_MOUNTING_H
#define CLI_MOUNTING_H

#include "cli/client.h"

#define DETACH_TIMEOUT_MS 60000  /* until the services are stopped and the keeper is gone */
#define DETACH_BUSY_MS 1000      /* how long a mount may be busy with what passes by itself (an indexer, a child about to end) */

/* Mounts c->id.root with `aetherfs` and returns when it answers. Success, too, when it is mounted already, by whomever. `options`
 * are for -o, NULL: none; of what is mounted without them, a warning tells. `ret_mounted` (may be NULL) says whether it was this call. */
int mounting_attach(struct client *c, const char *options, bool *ret_mounted, struct error *err);

/* Approves the configuration that stands there now, and says what was new of it. A missing or broken one is no failure: it is what a demand will say. Of
 * a broken one `ret_broken` (may be NULL) gets the error. */
int mounting_approve(const struct client *c, struct error *ret_broken, struct error *err);

enum detach_mode {
	DETACH_UNUSED,    /* MOUNT_FAILED naming the holders when it is in use */
	DETACH_UNDER_SHELL /* the shells that asked us may stand in it: it goes from under them */
};

/* Unmounts and waits until keeper and control file system are gone. Success when it is not mounted. Leaves the working
 * directory when that is in the mount. */
int mounting_detach(struct client *c, enum detach_mode mode, struct error *err);

/* Detaches a mount that nobody serves any more, lazily. */
int mounting_clear_dead(const char *point, struct error *err);

#endif
