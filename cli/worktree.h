/* The commands `ajj workspace ...` in a repository of git's alone, where they drive `git worktree`. A workspace's name is the
 * base name of its path. */
#ifndef CLI_WORKTREE_H
#define CLI_WORKTREE_H

#include "cli/arguments.h"
#include "cli/git.h"
#include "provisioner/identity.h"

/* Before and after `git worktree add`: borrowed, the word of its command line that has become a worktree meanwhile; NULL. */
void worktrees_before(const struct identity *here, struct git_worktrees *ret);
const char *worktree_made(const struct identity *here, const struct git_worktrees *before, char *const *words);
/* Git's entry of a worktree that is not wanted after all; its directory is the caller's to remove. */
void worktree_unmake(const struct identity *here, const char *path);

int worktree_forget(const struct arguments *args, const struct identity *here, struct error *err);
int worktree_list(const struct identity *here, struct error *err);

#endif
