/* A plain workspace: no file system of ours at all, but the same texts in real files of `.aether/`, kept as they should be, the text of `.env` in its place,
 * and a socket for what `ctl` takes (provisioner/native.h). Nothing that reads a file starts anything here. Loop thread. */
#ifndef FS_PLAIN_H
#define FS_PLAIN_H

#include <jansson.h>
#include <uv.h>

#include "provisioner/environment.h"
#include "provisioner/identity.h"

struct plain;

struct plain_params {
	uv_loop_t *loop;
	const struct identity *id;       /* borrowed */
	int root_fd;                     /* borrowed */
	struct environment *environment; /* borrowed */
};

/* Listens. */
int plain_new(const struct plain_params *params, struct plain **ret, struct error *err);
/* environment_params.leases */
json_t *plain_leases(const struct plain *p);
/* environment_params.changed */
void plain_changed(struct plain *p, unsigned what);
/* Stand the files there as they were written? */
bool plain_is_right(const struct plain *p);
/* Takes in what was written into `.env` or put in its place, and writes what is missing. */
void plain_put_right(struct plain *p);

#endif
