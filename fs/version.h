/* Versions, handles and scratch files: the records of the control file system in shared memory, with indexes that each
 * server makes for itself. Nothing of FUSE here, and no clock: what is stored is what the caller says.
 *
 * A version is one rendering of one file as an inode of its own: size, bytes and mtime never change. Publishing other
 * bytes retires it and makes another; publishing the same bytes finds it again. Directories and growing files are
 * versions without bytes. A retired version lives while the kernel refers to it.
 *
 * When a table or the byte area is full, the oldest retired version that nobody holds open gives way: the kernel's count of
 * it may be wrong by a crash between counting and answering, and what is looked up by an old number is then ESTALE.
 *
 * Loop thread alone. Pointers to records are borrowed and stay valid until the record is freed.
 */
#ifndef FS_VERSION_H
#define FS_VERSION_H

#include <stdbool.h>
#include <stddef.h>

#include "fs/shared.h"

#define VERSION_FIRST_INO 16                /* below: fixed directories */
#define SCRATCH_BYTES_MAX (16u << 20)       /* of all scratch files together */

struct versions;

/* Indexes what an earlier server left. `shared` is borrowed. */
struct versions *versions_new(struct shared *shared);
void versions_free(struct versions *v);
struct shared *versions_shared(struct versions *v); /* borrowed */

/* ---- versions ---- */

struct shared_version *version_by_ino(struct versions *v, uint64_t ino);
/* What a lookup of the file finds; NULL: nothing was published, or it was retired. */
struct shared_version *version_current(struct versions *v, uint64_t file);
/* Makes `data` the current version of `file`: the one that is current when its bytes are the same. -ENOSPC. */
int version_publish(struct versions *v, uint64_t file, const void *data, size_t len, int64_t mtime_ms,
                    struct shared_version **ret);
/* The next lookup finds another inode. Frees it when the kernel does not know it. NULL is allowed. */
void version_retire(struct versions *v, struct shared_version *version);
void version_ref(struct shared_version *version);
void version_forget(struct versions *v, struct shared_version *version, uint64_t count);
const char *version_bytes(struct versions *v, const struct shared_version *version); /* version->bytes.size of them */
size_t version_index(const struct versions *v, const struct shared_version *version);
size_t version_end(const struct versions *v); /* above all that were ever used */
/* By index, in no order; NULL: free. */
struct shared_version *version_at(struct versions *v, size_t index);

/* ---- handles ---- */

/* A record in state HANDLE_ANSWERING. -ENFILE when all are in use. */
int handle_open(struct versions *v, uint64_t file, uint64_t ino, struct shared_handle **ret);
void handle_answered(struct shared_handle *h);
/* The handle of an open that an earlier server was about to answer when it died; NULL: none. */
struct shared_handle *handle_answering(struct versions *v, int32_t tid, uint64_t ino);
uint64_t handle_fh(const struct versions *v, const struct shared_handle *h);
struct shared_handle *handle_get(struct versions *v, uint64_t fh); /* NULL: not open (any more) */
void handle_close(struct versions *v, struct shared_handle *h);
bool handle_any(struct versions *v, uint64_t ino); /* is one open on it? */
size_t handle_end(const struct versions *v);
struct shared_handle *handle_at(struct versions *v, size_t index); /* NULL: free */

/* ---- bytes that are being written ---- */

/* -EFBIG beyond `max`, -ENOSPC. A gap reads as zeroes. */
int blob_write(struct versions *v, struct shared_blob *b, uint64_t offset, const void *data, size_t len, uint64_t max);
int blob_resize(struct versions *v, struct shared_blob *b, uint64_t size, uint64_t max);
void blob_free(struct versions *v, struct shared_blob *b);
char *blob_bytes(struct versions *v, const struct shared_blob *b); /* b->size of them */

/* ---- scratch files ---- */

struct shared_scratch *scratch_by_name(struct versions *v, const char *name);
struct shared_scratch *scratch_by_ino(struct versions *v, uint64_t ino);
size_t scratch_end(struct versions *v);
struct shared_scratch *scratch_at(struct versions *v, size_t index); /* NULL: free */
const char *scratch_name(const struct shared_scratch *s);            /* NULL: nameless */
/* -EEXIST, -ENOSPC: too many, -ENAMETOOLONG. */
int scratch_create(struct versions *v, const char *name, uint32_t mode, int64_t mtime_ms, struct shared_scratch **ret);
/* -ENOSPC when all of them would hold more than SCRATCH_BYTES_MAX. */
int scratch_write(struct versions *v, struct shared_scratch *s, uint64_t offset, const void *data, size_t len);
int scratch_resize(struct versions *v, struct shared_scratch *s, uint64_t size);
/* Takes the place of one that has the name. */
int scratch_rename(struct versions *v, struct shared_scratch *s, const char *name);
/* Its bytes stay while it is open, itself until the kernel forgets it. */
void scratch_unlink(struct versions *v, struct shared_scratch *s);
/* A handle on it was closed. */
void scratch_closed(struct versions *v, struct shared_scratch *s);
void scratch_forget(struct versions *v, struct shared_scratch *s, uint64_t count);

#endif
