/* A directory that looks like a workspace and is none: jj made it one and has forgotten it since; or it is a copy of a git worktree. */
#ifndef CLI_FORGOTTEN_H
#define CLI_FORGOTTEN_H

#include "provisioner/identity.h"

/* WORKSPACE_NOT_FOUND when it is one: attached, the next command would take its environment down again (reconcile.h). Asks jj only
 * where there is reason to. Of a worktree that git looks for elsewhere it says so. */
int forgotten_check(const struct identity *id, struct error *err);

#endif
