/* Workspaces that people who never heard of us forgot or removed: `jj workspace forget`, `git worktree remove`, `rm -rf`. There is
 * no daemon to see it, so every command of ours looks first, at what is registered of the repository that it stands in, and takes
 * such environments down to the trash.
 *
 * It costs a look at the registry and a stat for each of these workspaces. jj is asked only when its record of workspaces has
 * changed since it was asked last; `closely`, for `ajj list` and the like, when there was any operation: after a `jj undo` of a `workspace add`. */
#ifndef CLI_RECONCILE_H
#define CLI_RECONCILE_H

#include <stdbool.h>

/* What fails is a warning on stderr: it must not keep the command from being done. */
void reconcile(bool closely);

#endif
