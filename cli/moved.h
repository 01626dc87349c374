/* A workspace that is not where the registry has it: gone, or moved while it was not mounted? Whoever attaches it where it is now finds its
 * data by itself. */
#ifndef CLI_MOVED_H
#define CLI_MOVED_H

#include <stdbool.h>

#include "provisioner/store.h"

/* Is it that directory now? By inode and birth time. */
bool moved_is(int dirfd, const char *name, const struct store_environment *e);
/* new: where it is now, of the directories beside its old place; NULL: none of them. */
char *moved_beside(const struct store_environment *e);
/* new: beside its old place, or where git has moved it; NULL: nothing is known of it. */
char *moved_to(const struct store_environment *e);

#endif
