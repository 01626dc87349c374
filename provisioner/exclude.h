/* What is a person's own, or ours, is kept out of git and jj by info/exclude of the repository: gitignore(5). jj reads that of its git repository,
 * colocated or not. Any thread; nothing is run. */
#ifndef PROVISIONER_EXCLUDE_H
#define PROVISIONER_EXCLUDE_H

#include "provisioner/identity.h"

/* new: the directory of the git repository behind a checkout of git's or jj's; NULL: there is none */
char *git_directory(const struct identity *id);

/* Adds the line unless it is there. Nothing to do, and no error, in a plain directory. */
int exclude_add(const struct identity *id, const char *line, struct error *err);

#endif
