/* The server of a workspace without the overlay looks once a second after what really stands there (provisioner/native.h): links that were deleted come
 * back, a file that was put in the place of `.env` is taken in as the user's own, a directory that was removed or moved is noticed. Loop thread. */
#ifndef FS_PLACED_H
#define FS_PLACED_H

#include <uv.h>

#include "fs/plain.h"
#include "provisioner/environment.h"
#include "provisioner/identity.h"

struct placed;

struct placed_params {
	uv_loop_t *loop;
	const struct identity *id;        /* borrowed */
	int root_fd;                      /* borrowed */
	struct environment *environment;  /* borrowed */
	struct plain *plain;              /* borrowed; NULL: links */
	void (*removed)(void *arg);       /* the directory is gone; once */
	void (*lost)(void *arg);          /* ... or is somewhere else, or out of reach, since the mount that it lies in is dead; once */
	void *arg;
};

struct placed *placed_new(const struct placed_params *params);
void placed_stop(struct placed *p); /* looks no more */

#endif
