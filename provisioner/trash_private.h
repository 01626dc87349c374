/* What trash*.c share. All of these want the lock held. */
#ifndef PROVISIONER_TRASH_PRIVATE_H
#define PROVISIONER_TRASH_PRIVATE_H

#include "provisioner/trash.h"

/* Makes STATE/trash and takes its lock; close the descriptor to let go. */
int trash_lock(struct store *s, int *ret_fd, struct error *err);

/* Commits what an entry holds, or drops it when it holds nothing. */
int trash_finish(struct store *s, const struct trash_entry *e, struct error *err);

/* Finishes every entry that is not committed, but for `except` (0: none); gives directories without a row theirs, and
 * forgets rows without a directory. */
int trash_recover(struct store *s, int64_t except, struct error *err);

/* Every record of an engine's volume or image in the data of a generation (trash_records.c). */
void trash_each_record(const char *data, void (*each)(const char *path, void *arg), void *arg);

int trash_failed(int r, const char *path, struct error *err); /* NO_SPACE or INTERNAL, with the errno */
void trash_step(const char *step);

/* STATE/trash/ID/entry.json */
int trash_note_write(struct store *s, const struct trash_entry *e, struct error *err);
/* Fills what it tells of `e` (new strings); what it does not tell gets a place holder. */
void trash_note_read(const char *path, struct trash_entry *e);
int trash_note_restore_secrets(struct store *s, const char *path, const char *namespace_, struct error *err);

#endif
