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

/* Of large files the digests are remembered, as long as inode, size and times are the same: a dump of a gigabyte takes seconds. For looking
 * at it often; whoever is about to run it must not rely on that. One thread at a time. */
#define DIGEST_REMEMBERED_MIN (256u << 10) /* bytes of a file */
#define DIGEST_REMEMBERED_MAX 64           /* files; the oldest is forgotten */

struct digests {
	struct digest_entry {
		uint64_t what[7];
		char hex[SHA256_HEX];
	} entries[DIGEST_REMEMBERED_MAX];
	unsigned next;
};

int digest_of_known(int dirfd, const char *path, struct digests *known, char ret[SHA256_HEX]);

#endif
