/* What is a person's own is kept out of git and jj by info/exclude of the repository: gitignore(5). jj reads that of its git repository,
 * colocated or not. */
#ifndef CLI_EXCLUDE_H
#define CLI_EXCLUDE_H

#include "provisioner/identity.h"

#define LOCAL_FILE "aether.local.yaml"

/* Adds the line unless it is there. Nothing to do, and no error, in a plain directory. */
int exclude_add(const struct identity *id, const char *line, struct error *err);

/* ... for aether.local.yaml where there is one, whoever wrote it. What fails is a warning on stderr. */
void exclude_local_file(const struct identity *id);

#endif
