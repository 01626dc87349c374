/* The children of this process, among them what lost its own parent when this one is a sub-reaper. */
#ifndef FS_CHILDREN_H
#define FS_CHILDREN_H

#include <sys/types.h>

#define CHILDREN_MAX 256

/* Those of all threads, and those that ended and were not waited for yet. How many; beyond `max` they are left out. */
unsigned children_list(pid_t *ret, unsigned max);

#endif
