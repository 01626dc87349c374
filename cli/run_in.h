/* `ajj run --in IMAGE`: the command in a container of its own, in the environment's network, that sees the workspace where it is. */
#ifndef CLI_RUN_IN_H
#define CLI_RUN_IN_H

#include "cli/arguments.h"
#include "cli/client.h"
#include "provisioner/store.h"

/* `args` as of `ajj run`. Returns what to exit with, or a negative errno. */
int run_in(const struct client *c, const struct arguments *args, struct error *err);

/* Containers whose ajj was killed: adds their names to `found`; with `remove` they go. */
int run_in_sweep(const struct store_environment *e, bool remove, char ***found, struct error *err);

#endif
