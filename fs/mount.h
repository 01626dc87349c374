/* Mounting and unmounting: mount(2) as root, else the setuid fusermount3. By the keeper; the server too takes mounts away when its keeper is dead. */
#ifndef FS_MOUNT_H
#define FS_MOUNT_H

#include <stdbool.h>

#include "base/error.h"

#define MOUNT_TYPE_OVERLAY "fuse.aetherfs"
#define MOUNT_TYPE_CONTROL "fuse.aetherfs-control"
#define MOUNT_HELPER_SECONDS 20 /* what fusermount3 may take */

/* What stands on top at a mount point, from /proc/self/mountinfo: asking the file system itself could block. */
struct mount_entry {
	char type[64];
	unsigned device; /* minor number: the name of the connection in /sys/fs/fuse/connections */
};
/* `path` is canonical. */
bool mount_find(const char *path, struct mount_entry *ret);
bool mount_is(const char *path, const char *type);
/* Is that one still mounted anywhere, whatever covers it or wherever it was moved? */
bool mount_exists(unsigned device, const char *type);

/* new: where; the last such place. NULL: nowhere */
char *mount_point_of(unsigned device, const char *type);

/* Could this process mount at all? NO_FUSE, MOUNT_NO_NEW_PRIVS, MOUNT_FAILED with the remedy as a hint. */
int mount_check(struct error *err);
/* May others look into a mount of this user's (user_allow_other, or root)? */
bool mount_may_share(void);

/* Mounts and gives the /dev/fuse descriptor, close-on-exec. The kernel's FUSE_INIT waits there. `type` is one of those above;
 * `options` "a,b", may be "". */
int mount_fuse(const char *path, const char *type, const char *options, int *ret_fd, struct error *err);

/* Has the kernel let go of the connection that this descriptor of /dev/fuse is? */
bool mount_is_over(int fuse);

/* Takes away what stands on top at `path`, lazily: whoever is inside keeps what he has open. 0 or -errno */
int mount_detach(const char *path);
/* The same, of a mount that shall answer nobody any more: where we may, its connection is aborted by that. */
int mount_end(const char *path);
/* Aborts the connection that `fd` is of, so that nobody waits for an answer any more, whoever else still holds a descriptor of it: everything in
 * flight fails with ECONNABORTED. Where the kernel does not let us (/sys/fs/fuse/connections is not mounted, as in containers) closing all
 * descriptors does it: see fs/drain.h. */
void mount_abort(int fd, unsigned device);
/* The canonical path of a directory, from which dead mounts of type `type` (nobody serves them any more: ENOTCONN) were taken
 * away first; other dead mounts are an error, and so is one whose server does not answer. new */
int mount_resolve(const char *path, const char *type, char **ret, struct error *err);

#endif
