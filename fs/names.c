#include "fs/names.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

static unsigned grains(const char *name)
{
	return (unsigned)(strlen(name) + 1 + NAMES_GRAIN - 1) / NAMES_GRAIN;
}

void names_init(struct names *n, struct shared *shared)
{
	*n = (struct names){.base = shared_names(shared), .used = &shared->name_used, .limit = SHARED_NAME_BYTES};
	if (atomic_load(n->used) == 0)
		atomic_store(n->used, NAMES_GRAIN); /* offset 0 means none */
}

void names_rebuild(struct names *n)
{
	memset(n->free, 0, sizeof(n->free));
	n->marks = xcalloc(atomic_load(n->used) / NAMES_GRAIN / 64 + 1, sizeof(*n->marks));
	n->marks[0] |= 1;
}

void names_mark(struct names *n, uint64_t offset)
{
	uint64_t first = offset / NAMES_GRAIN, last = first + grains(names_get(n, offset));
	for (uint64_t i = first; i < last; i++)
		n->marks[i / 64] |= UINT64_C(1) << (i % 64);
}

static void push(struct names *n, uint64_t offset, unsigned size)
{
	memcpy(n->base + offset, &n->free[size], sizeof(uint64_t));
	n->free[size] = offset;
}

static uint64_t pop(struct names *n, unsigned size)
{
	uint64_t offset = n->free[size];
	if (offset)
		memcpy(&n->free[size], n->base + offset, sizeof(uint64_t));
	return offset;
}

/* A gap of any length, cut into blocks. */
static void give(struct names *n, uint64_t first, uint64_t count)
{
	while (count > 0) {
		unsigned size = count < NAMES_CLASSES ? (unsigned)count : NAMES_CLASSES - 1;
		push(n, first * NAMES_GRAIN, size);
		first += size;
		count -= size;
	}
}

void names_rebuilt(struct names *n)
{
	uint64_t total = atomic_load(n->used) / NAMES_GRAIN, gap = 0;
	for (uint64_t i = 0; i < total; i++) {
		bool in_use = n->marks[i / 64] >> (i % 64) & 1;
		if (in_use && gap) {
			give(n, i - gap, gap);
			gap = 0;
		} else if (!in_use) {
			gap++;
		}
	}
	give(n, total - gap, gap);
	free(n->marks);
	n->marks = NULL;
}

/* The smallest block that is larger, its rest given back. */
static uint64_t split(struct names *n, unsigned size)
{
	for (unsigned larger = size + 1; larger < NAMES_CLASSES; larger++) {
		uint64_t offset = pop(n, larger);
		if (offset) {
			push(n, offset + size * NAMES_GRAIN, larger - size);
			return offset;
		}
	}
	return 0;
}

static uint64_t extend(struct names *n, unsigned size)
{
	uint64_t offset = atomic_load(n->used);
	if (offset + size * NAMES_GRAIN > n->limit)
		return 0;
	atomic_store(n->used, offset + size * NAMES_GRAIN);
	return offset;
}

uint64_t names_put(struct names *n, const char *name)
{
	unsigned size = grains(name);
	if (size >= NAMES_CLASSES)
		return 0;
	uint64_t offset = pop(n, size);
	if (!offset)
		offset = split(n, size);
	if (!offset)
		offset = extend(n, size);
	if (offset)
		strcpy(n->base + offset, name);
	return offset;
}

void names_drop(struct names *n, uint64_t offset)
{
	if (offset)
		push(n, offset, grains(names_get(n, offset)));
}
