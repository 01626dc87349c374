/* The end of a FUSE connection that the kernel does not let us abort (mount_abort).
 *
 * It ends when the last descriptor of it is closed, but one of our own helpers may have it, in the midst of a notification, and wait unkillably
 * for a directory's lock, which is held by who waits, unkillably as well, for an answer of the dead server's: then the last one never is. */
#ifndef FS_DRAIN_H
#define FS_DRAIN_H

#include <sys/types.h>

#define DRAIN_MS 2000 /* in which nothing but a process that makes requests all the time, or a kernel that cannot resend, is left over */

/* Kills the helpers among the children of this process, and `server` (0: there is none), and answers everything that is asked of the connections
 * `fuse` (-1: none) with ECONNABORTED until those are gone, for DRAIN_MS at most. What a dead server had taken is asked for again
 * (FUSE_NOTIFY_RESEND, Linux 6.9). Nobody else may serve them any more, and the mounts should be detached. Does nothing where all are over. */
void drain(const int *fuse, unsigned n, pid_t server);

#endif
