/* Fingerprints of files and whole directories that are to be run: of the bytes, the names, the links' targets and the owner's x, and of nothing
 * that a copy does not keep. Equal digests: the same is run. */
#ifndef BASE_DIGEST_H
#define BASE_DIGEST_H

#include "base/sha256.h"

#define DIGEST_ENTRIES_MAX 10000 /* of one directory with all below it */

/* Of a file or a directory; a link at the end of `path` is followed. What is not there is as an empty directory, which an engine would
 * mount; sockets, FIFOs and devices in it are passed over, as by tree_copy. -EXDEV: a link below leads out of the directory, so that
 * its target is not covered; -EINVAL: neither file nor directory; -E2BIG: beyond the bound. */
int digest_of(int dirfd, const char *path, char ret[SHA256_HEX]);

#endif
