/* What the store knows of environments that no server serves now: their records, data and leftovers. Each call opens the
 * store for itself. Nothing here may be done to a mounted environment: its server owns it. */
#ifndef CLI_REGISTRY_H
#define CLI_REGISTRY_H

#include "provisioner/identity.h"
#include "provisioner/store.h"

/* The store, or 0 and NULL where this user has none yet. */
int registry_open(struct store **ret, struct error *err);
static inline void store_closep(struct store **s)
{
	if (*s)
		store_close(*s);
}
#define cleanup_store __attribute__((cleanup(store_closep)))

struct registry_list {
	struct store_environment *items;
	size_t count;
};

int registry_list(struct registry_list *ret, struct error *err);
void registry_list_release(struct registry_list *list);
#define cleanup_registry_list __attribute__((cleanup(registry_list_release)))

/* Who that record is of; its directory may be gone. */
int registry_identity(const struct store_environment *e, struct identity *ret, struct error *err);

/* 1 with the record of the environment at `root` (absolute, canonical), 0 none. */
int registry_find_root(const char *root, struct store_environment *ret, struct error *err);

/* Is there a keeper, or a server, which ends by itself what it began? Also one whose mounts are gone already. */
bool registry_is_kept(const struct store_environment *e);

/* Tears down what is not mounted: ends leftovers of a killed keeper, puts data (and, where the directory is still there, the user's own
 * .env lines) into the trash, releases ports and secrets, removes state and runtime directories. Success when there is nothing; IN_USE when
 * somebody mounts it meanwhile. */
int registry_discard(const struct identity *id, struct error *err);

/* What runs, or may run, of one that nobody serves because its keeper was killed: new, NULL where there is nothing, where it was ended as it should be, or where its
 * engine does not say. May block, at most for seconds. */
char **registry_orphans(const struct store_environment *e);
/* Ends that; data, ports and secrets stay. Success where there is nothing; IN_USE when somebody mounts it meanwhile. */
int registry_stop(const struct identity *id, struct error *err);

/* After a mounted environment was destroyed and unmounted: forgets its record and its directories. */
int registry_forget(const struct identity *id, struct error *err);

#endif
