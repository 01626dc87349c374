/* Names in shared memory: NUL-terminated, in blocks of a multiple of 16 bytes, addressed by offset. Which blocks are free is private to
 * a server: a new one marks what the records use and takes the gaps. Not thread-safe: its owner locks. */
#ifndef FS_NAMES_H
#define FS_NAMES_H

#include "fs/shared.h"

#define NAMES_GRAIN 16u
#define NAMES_LENGTH_MAX 1023 /* bytes; the kernel's FUSE_NAME_MAX is 1024 */
#define NAMES_CLASSES ((NAMES_LENGTH_MAX + 1) / NAMES_GRAIN + 1)

struct names {
	char *base;             /* borrowed */
	_Atomic uint64_t *used; /* high-water mark, shared; borrowed */
	uint64_t limit;
	uint64_t free[NAMES_CLASSES]; /* by size in grains: the first; the next is in the block itself. 0: none */
	uint64_t *marks;              /* while it is rebuilt: a bit a grain */
};

void names_init(struct names *n, struct shared *shared);
/* Between the two, every name in use is marked; put and drop come after. */
void names_rebuild(struct names *n);
void names_mark(struct names *n, uint64_t offset);
void names_rebuilt(struct names *n);

/* Its offset; 0 when the area is full or the name too long. */
uint64_t names_put(struct names *n, const char *name);
void names_drop(struct names *n, uint64_t offset);
static inline const char *names_get(const struct names *n, uint64_t offset)
{
	return n->base + offset;
}

#endif
