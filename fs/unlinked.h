/* The unlinker's view: for UNLINKED_VIEW_MS after it deleted a virtual name, the process that did so finds it absent, until it creates it.
 * Without this `tar x` of an archive holding `.env` loops for ever. Shared by overlay workers and the loop thread; thread-safe. */
#ifndef FS_UNLINKED_H
#define FS_UNLINKED_H

#include <stdbool.h>
#include <sys/types.h>

#define UNLINKED_VIEW_MS 1000
#define UNLINKED_MAX 64 /* remembered at once; the oldest is forgotten first */

struct unlinked; /* (name, thread group, until) */

struct unlinked *unlinked_new(void);
void unlinked_free(struct unlinked *u);
void unlinked_add(struct unlinked *u, const char *name, pid_t tgid);
/* Is the name absent for this process now? */
bool unlinked_hides(struct unlinked *u, const char *name, pid_t tgid);
/* Is it absent for anybody? (then no lookup of it may be cached) */
bool unlinked_any(struct unlinked *u, const char *name);
/* The process creates the name: true when it was absent for it; it is no more. */
bool unlinked_take(struct unlinked *u, const char *name, pid_t tgid);

/* It is absent for nobody any more. */
void unlinked_clear(struct unlinked *u, const char *name);

/* Thread group of a thread, from /proc/TID/status; `tid` itself when that is gone. */
pid_t thread_group(pid_t tid);

#endif
