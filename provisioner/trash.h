/* The trash: destroying is never the loss of data. Entries rest TRASH_KEEP_HOURS or until all are over TRASH_MAX_BYTES, oldest
 * dropped first. Blocking file work (renames; removal of large trees): call from a worker thread or a command. */
#ifndef PROVISIONER_TRASH_H
#define PROVISIONER_TRASH_H

#include "provisioner/identity.h"
#include "provisioner/store.h"

#define TRASH_KEEP_HOURS 24
#define TRASH_MAX_BYTES (UINT64_C(10) << 30)

/* Moves STATE/ns/NS/data/GENERATION (and, when root_fd >= 0, the real `.env` beneath) into a new entry. No entry is made when
 * there is nothing to keep. `services` names whose data it is. */
int trash_put(struct store *s, const struct identity *id, uint32_t generation, int root_fd, char *const *services, struct error *err);
/* Moves an entry's data to be the environment's generation `generation` (which must have no data), and with `env` its `.env` lines back. */
int trash_restore(struct store *s, const struct identity *id, int64_t trash_id, uint32_t generation, bool env, int root_fd, struct error *err);
/* id 0: all. `ret_bytes` may be NULL. */
int trash_empty(struct store *s, int64_t id, uint64_t *ret_bytes, struct error *err);
/* Drops what is over the limits; finishes what a crash left. */
int trash_expire(struct store *s, const char *shared_dir, struct error *err);

#endif
