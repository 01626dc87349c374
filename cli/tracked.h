/* Does a commit that somebody may switch to track `.env`? Then the virtual file of all the repository's workspaces has another name
 * (provisioner/env_name.h). Asked by what mounts or starts, through jj's stable doors, or of git by two short processes; while
 * no branch has moved, of nobody. */
#ifndef CLI_TRACKED_H
#define CLI_TRACKED_H

#include "cli/client.h"

#define TRACKED_REFS_MAX 5000 /* branches that are looked at */

/* Asks, writes down what follows, and says it where it is new; `c->id.env_name` is right then. What is mounted follows. Where jj or git
 * cannot be asked all stays as it was. Once one of the repository's workspaces has no overlay, what is checked out counts, too: there ours really stands
 * where jj looks. */
void tracked_settle(struct client *c);

#endif
