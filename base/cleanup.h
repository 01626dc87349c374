/* Scoped cleanup: `cleanup_free char *s = ...` is released when it leaves scope; `return move_ptr(s)` hands it out.
 * After crun's utils.h in form. Every destructor used here accepts NULL (or -1 for a descriptor). */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(func) __attribute__((cleanup(func)))

static inline void cleanup_freep(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_closep(int *fd)
{
	int saved = errno;
	if (*fd >= 0)
		close(*fd);
	errno = saved;
}

static inline void cleanup_fclosep(FILE **f)
{
	if (*f)
		fclose(*f);
}

static inline void cleanup_closedirp(DIR **d)
{
	if (*d)
		closedir(*d);
}

#define cleanup_free CLEANUP(cleanup_freep)
#define cleanup_close CLEANUP(cleanup_closep)
#define cleanup_fclose CLEANUP(cleanup_fclosep)
#define cleanup_closedir CLEANUP(cleanup_closedirp)

/* Takes the value out of a scoped variable so that its cleanup does nothing. */
#define move_ptr(p)                \
	__extension__({                \
		__typeof__(p) moved_ = (p); \
		(p) = NULL;                \
		moved_;                    \
	})

static inline int move_fd(int *fd)
{
	int moved = *fd;
	*fd = -1;
	return moved;
}

#endif
