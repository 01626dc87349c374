/* The end of an environment's record, once nothing of it runs: what a teardown leaves, for that keeps an environment that may be wanted
 * again. Blocks; only with the lock that keepers hold for life (STATE/ns/NS/keeper.lock). */
#ifndef PROVISIONER_DISCARD_H
#define PROVISIONER_DISCARD_H

#include "provisioner/identity.h"
#include "provisioner/store.h"

/* new: the names of what holds data in that generation, for the trash to show: services, and volumes by their own names */
char **discard_data_names(const struct identity *id, uint32_t generation);

/* What runs of an environment that nobody serves, in a backend where no lock shows it (containers): adds its names to `found`; with `remove`
 * all of it goes but data. */
int discard_orphans(const struct store_environment *e, bool remove, char ***found, struct error *err);

/* What still runs is removed; data of every generation (a crash may have left an older one) and the user's own .env lines, from where they were put aside or the directory
 * `root_fd` (-1: it is gone), go to the trash; then its row in the store goes, with ports and secrets. May be called again. */
int discard_record(struct store *s, const struct identity *id, int root_fd, struct error *err);

/* The directories that are its own: state, sockets, the mount point of its control file system. */
int discard_directories(const struct identity *id, struct error *err);

#endif
