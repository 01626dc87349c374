/* What an engine can see of this machine's files. A user's FUSE mount is closed to every other user, root included, unless it was mounted with
 * allow_other (mount.fuse3(8)), which takes user_allow_other in /etc/fuse.conf: then a bind mount fails with "mkdir ...: file exists", or shows
 * the directory beneath. Reads the mount table and asks no mount; any thread. */
#ifndef BACKENDS_ENGINE_VIEW_H
#define BACKENDS_ENGINE_VIEW_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

/* Is `path` (absolute, without links) in a FUSE mount that this user may not look into? `table`: a mount table, "/proc/self/mounts" but in tests. */
bool engine_view_is_closed(const char *table, const char *path, uid_t uid);
/* Whose eyes an engine has: its socket's owner; root's where that cannot be told. */
uid_t engine_view_uid(const char *socket_path);

const char *engine_view_mend(bool overlay); /* one line; static. `overlay`: without that the engine could look into what is asked for */

/* The engine that `backend` ("docker", "podman") means here and now: may it look there? PERMISSION with the mend. Where there is none,
 * nothing is said. */
int engine_view_check(const char *backend, const char *path, struct error *err);

#endif
