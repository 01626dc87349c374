/* The trash: destroying is never the loss of data. Entries rest TRASH_KEEP_HOURS or until all are over TRASH_MAX_BYTES
 * (the newest stays, however large it is) or the file system is short of space, oldest dropped first. Blocking file work (renames; removal of large trees):
 * call from a worker thread or a command.
 *
 * STATE/trash/ID/ holds
 *   data        what was the data directory of a generation
 *   env         the user's own `.env`: a file or a link
 *   entry.json  whose it is, and the generated secrets that open it (0600)
 * Everything moves by rename, under one lock, and the row in the store says "committed" last. A process that dies in
 * between leaves the data in the one place or the other; trash_expire, and the next of these calls, finish what it
 * began.
 */
#ifndef PROVISIONER_TRASH_H
#define PROVISIONER_TRASH_H

#include "provisioner/identity.h"
#include "provisioner/store.h"

#define TRASH_KEEP_HOURS 24
#define TRASH_MAX_BYTES (UINT64_C(10) << 30)

/* Moves STATE/ns/NS/data/GENERATION (and, when root_fd >= 0, the real `.env` beneath) into a new entry, with a copy of
 * the namespace's secrets. No entry is made when there is nothing to keep: an empty directory, an empty file. May be
 * called again after a crash: it continues. `services` names whose data it is. */
int trash_put(struct store *s, const struct identity *id, uint32_t generation, int root_fd, char *const *services,
              struct error *err);
/* Only what is named of a generation: paths below its directory; what is not there is passed over. Nothing runs on it. */
int trash_put_parts(struct store *s, const struct identity *id, uint32_t generation, char *const *parts,
                    char *const *services, struct error *err);
/* The user's `.env` of a workspace that is being removed through its mount is put aside, into STATE/ns/NS/removed, for the directory must be
 * empty before its environment can be stopped. May be called again. */
int trash_env_aside(const struct identity *id, int root_fd, struct error *err);
bool trash_env_is_aside(const struct identity *id);
void trash_env_aside_done(const struct identity *id); /* it was put into the trash */
/* new descriptor, for trash_put: the directory in which it is now, else `root_fd`; -1: none */
int trash_env_open(const struct identity *id, int root_fd);
/* Moves an entry's data to be the environment's generation `generation` (which must have no data: else
 * WORKSPACE_EXISTS), gives it to the environment's user, sets its secrets again, and with `env` its `.env` lines back;
 * lines that are there then go into an entry of their own. Without `env` they stay in the trash. */
int trash_restore(struct store *s, const struct identity *id, int64_t trash_id, uint32_t generation, bool env,
                  int root_fd, struct error *err);
/* Bytes of its files and, as their engines tell, of its volumes; -1: nobody says. `told`: see backend_measure. May block. */
int64_t trash_measure(const struct trash_entry *e, json_t *told);
uint64_t trash_measure_known(const struct trash_entry *e, json_t *told); /* without what nobody says */

/* Adds to `lost` the names of an entry's volumes that their engines do not have any more (`docker volume prune`). Returns how many it had. May block. */
size_t trash_lost(const struct trash_entry *e, char ***lost);

/* Of an environment in which nothing was ever started: volumes that were made ahead of need and are empty, as their engine says, go for good, and the trash
 * gets nothing of them. Restored data stays. After its containers are gone; may block. */
void trash_drop_empty(const struct identity *id, uint32_t generation);

/* id 0: all. `ret_bytes` may be NULL. */
int trash_empty(struct store *s, int64_t id, uint64_t *ret_bytes, struct error *err);
/* Drops what is over the limits, and oldest first while less than a twentieth of the file system (at most
 * TRASH_MAX_BYTES) is free; finishes what a crash left. */
int trash_expire(struct store *s, const char *shared_dir, struct error *err);
/* The same where entries are over the limit together with what engines say of their volumes. It asks them: not while anybody waits. */
int trash_expire_volumes(struct store *s, const char *shared_dir, struct error *err);

/* For tests: hears of each step when it is done, and may end the process there. */
extern void (*trash_on_step)(const char *step);

#endif
