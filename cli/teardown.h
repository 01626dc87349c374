/* Taking down the environment of a workspace that is forgotten: its data goes to the trash, its record and its directories go. */
#ifndef CLI_TEARDOWN_H
#define CLI_TEARDOWN_H

#include "cli/client.h"
#include "provisioner/store.h"

/* Destroys, unmounts and forgets one environment; the directory stays as it is. */
int teardown_client(struct client *c, struct error *err);
/* The same for the workspace `name` at `root`. */
int teardown_root(const char *root, const char *name, struct error *err);
/* The same for all that is registered of a repository at `root`, which is gone. */
int teardown_gone(const char *repository, const char *root, struct error *err);
/* The same for a record, whose directory may be gone. */
int teardown_record(const struct store_environment *e, struct error *err);

#endif
