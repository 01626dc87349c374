/* What is a person's own is kept out of git and jj (provisioner/exclude.h). */
#ifndef CLI_EXCLUDE_H
#define CLI_EXCLUDE_H

#include "provisioner/exclude.h"

#define LOCAL_FILE "aether.local.yaml"

/* aether.local.yaml where there is one, whoever wrote it. What fails is a warning on stderr. */
void exclude_local_file(const struct identity *id);

#endif
