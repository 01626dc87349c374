/* Files and directories, relative to a directory descriptor (AT_FDCWD for the working directory).
 * All return 0 or a negative errno; none follows a symbolic link in the last component unless it says so. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct buffer;

/* Appends the whole file to `out`; -EFBIG beyond `max` bytes. Follows links. */
int file_read(int dirfd, const char *path, size_t max, struct buffer *out);

/* Replaces `path` atomically: a temporary file in the same directory, fsync, rename. */
int file_write_atomic(int dirfd, const char *path, const void *data, size_t len, mode_t mode);

/* mkdir -p; directories that are missing get `mode`. Follows links in the leading components. */
int dir_make(int dirfd, const char *path, mode_t mode);

/* rm -rf, staying on one file system, never following a link; a missing path is success. */
int tree_remove(int dirfd, const char *path);

/* Copies a directory tree with modes, times, links and, when permitted, owners. Files are cloned (FICLONE)
 * where the file system can, else copied by copy_file_range. `to` must not exist. `uid`/`gid` of -1 keep the
 * owner. On failure what was made is removed. */
int tree_copy(int from_dirfd, const char *from, int to_dirfd, const char *to, uid_t uid, gid_t gid);

/* Changes the owner of everything below, itself included; never follows a link. */
int tree_chown(int dirfd, const char *path, uid_t uid, gid_t gid);

/* Bytes allocated below `path` (st_blocks), each inode once. */
int tree_size(int dirfd, const char *path, uint64_t *ret_bytes);

/* Is there less than a mebibyte for users on the file system of `path`? Less is as good as none: a failed write has given back what it got.
 * false where it cannot be asked. */
bool disk_is_full(const char *path);

int write_all(int fd, const void *data, size_t len);

/* Milliseconds of CLOCK_MONOTONIC, and of the wall clock since the epoch. */
uint64_t now_monotonic_ms(void);
int64_t now_wall_ms(void);
/* "2026-01-31T12:00:00.123Z"; `out` holds at least 32 bytes. */
void format_time(char *out, int64_t wall_ms);

#endif
