/* A directory that jj made a workspace of and has forgotten since: it still looks like one. */
#ifndef CLI_FORGOTTEN_H
#define CLI_FORGOTTEN_H

#include "provisioner/identity.h"

/* WORKSPACE_NOT_FOUND when it is one: attached, the next command would take its environment down again (reconcile.h). Asks jj only
 * where there is reason to. */
int forgotten_check(const struct identity *id, struct error *err);

#endif
