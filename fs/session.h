/* A FUSE session over an inherited /dev/fuse descriptor that an earlier server may have served: libfuse's low-level
 * session through fuse_session_custom_io (libfuse 3.13+), with the stored INIT replayed and FUSE_NOTIFY_RESEND asked for.
 * Kernel interface: Documentation/filesystems/fuse/, include/uapi/linux/fuse.h (7.45). */
#ifndef FS_SESSION_H
#define FS_SESSION_H

#include <stdbool.h>

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#include "base/error.h"
#include "fs/shared.h"

struct session;

/* Takes no ownership of `fd`. INIT is answered before this returns: the kernel's own, which is stored, or the stored one once more, after
 * which the kernel is asked to resend what the dead server had taken. So no thread may read before. A request with which two servers
 * died of themselves (shared->faulted) is answered EIO. `which` is SESSION_OVERLAY or SESSION_CONTROL; one of each in a process. */
int session_new(int fd, int which, struct shared *shared, const struct fuse_lowlevel_ops *ops, size_t ops_size,
                void *userdata, struct session **ret, struct error *err);
void session_free(struct session *s);

/* Serves with `threads` workers until the mount is gone; returns then. For the overlay; on a thread of its own. */
int session_run(struct session *s, unsigned threads);

/* Receives and processes the requests that are there now, without blocking, up to a bounded number. For the control file
 * system, from the loop thread, when its descriptor is readable. -ENODEV when the mount is gone. */
int session_process(struct session *s);

int session_fd(const struct session *s);
struct fuse_session *session_fuse(struct session *s); /* borrowed */

/* Is the request now being handled one that the kernel has sent before, to a server that died with it (FUSE_UNIQUE_RESEND)?
 * Valid inside an operation, on its thread. */
bool session_request_resent(void);

#endif
