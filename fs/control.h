/* The control file system of one workspace, mounted at RUNTIME/NAMESPACE: a table of synthesized files (fs/control_files.c) over
 * provisioner/environment.h. Served by the loop thread alone: no locks; a demand is a parked request. */
#ifndef FS_CONTROL_H
#define FS_CONTROL_H

#include <jansson.h>

#include "fs/session.h"
#include "fs/unlinked.h"
#include "provisioner/environment.h"

struct control;

struct control_params {
	struct shared *shared;
	uv_loop_t *loop;
	struct unlinked *unlinked; /* borrowed */
	const char *helper;        /* aetherfs-helper, for touching paths through the mounts; borrowed */
	const char *control_dir;   /* borrowed */
	const char *root;          /* the workspace, for touching .env through it; borrowed */
	int fd;                    /* the control /dev/fuse, for notifications sent by the helper; borrowed */
	uid_t owner;               /* it answers its owner and root alone */
};

int control_new(const struct control_params *params, struct control **ret, struct error *err);
/* Must be set before the first request is processed. borrowed */
void control_set_environment(struct control *c, struct environment *e);
void control_set_session(struct control *c, struct session *s);
const struct fuse_lowlevel_ops *control_ops(size_t *ret_size);
/* environment_params.changed: makes new versions, wakes poll(2), tells watchers. */
void control_changed(struct control *c, unsigned what);
/* environment_params.leases */
json_t *control_leases(struct control *c);
/* Answers everything that is parked with ENOTCONN and lets go. */
void control_free(struct control *c);

#endif
