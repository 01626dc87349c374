/* Compose files wherever they lie in a checkout: infra/, docker/ and the like. */
#ifndef CLI_COMPOSE_FILES_H
#define CLI_COMPOSE_FILES_H

#include <stdbool.h>

#define COMPOSE_DEPTH_MAX 3         /* directories below the root */
#define COMPOSE_LOOKED_AT_MAX 20000 /* directory entries: a monorepo must not keep us */

/* new (strv): paths relative to `root`, those nearer to it first, then by name. */
char **compose_files_find(const char *root);
/* Is it read by itself when it lies in the root? */
bool compose_file_is_default(const char *path);

#endif
