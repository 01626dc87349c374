/* In whose name a file is made or written beneath. What the kernel checks by default_permissions is done as the server; what
 * leaves an owner, a group or a mode behind, or may clear set-uid bits, is done as the caller, on this thread alone.
 * In an ordinary user's mount there is one name only, and all but the umask does nothing. */
#ifndef FS_CALLER_H
#define FS_CALLER_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#include <stdbool.h>

/* Until caller_leave(), on the same thread: fsuid, fsgid and umask are the caller's, and with a changed fsuid the kernel drops CAP_DAC_OVERRIDE, CAP_FOWNER,
 * CAP_FSETID. 0 or -EPERM. */
int caller_enter(fuse_req_t req);
/* The supplementary groups too: dear (a read of /proc), so only when something failed without them or depends on them. Inside caller_enter(). */
void caller_enter_groups(fuse_req_t req);
void caller_leave(void);
/* The mode to ask for: `mode`, unless this thread could not get a umask of its own. Inside caller_enter(). */
mode_t caller_mode(fuse_req_t req, mode_t mode);

/* Does the server act for others at all (is it root)? */
bool caller_may_differ(void);

#endif
