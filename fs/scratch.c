/* An editor's files beside the virtual ones: swap files, backups, what it will rename over `env`. In memory, bounded. */
#include <errno.h>
#include <string.h>

#include "fs/version.h"

static struct shared_scratch *table(struct versions *v)
{
	return versions_shared(v)->scratch;
}

size_t scratch_end(struct versions *v)
{
	return versions_shared(v)->scratch_count;
}

struct shared_scratch *scratch_at(struct versions *v, size_t index)
{
	struct shared_scratch *s = &table(v)[index];
	return s->state == SCRATCH_FREE ? NULL : s;
}

const char *scratch_name(const struct shared_scratch *s)
{
	uint32_t state = s->state;
	return state == SCRATCH_NAME0 ? s->name[0] : state == SCRATCH_NAME1 ? s->name[1] : NULL;
}

struct shared_scratch *scratch_by_name(struct versions *v, const char *name)
{
	for (size_t i = 0; i < scratch_end(v); i++) {
		const char *have = scratch_name(&table(v)[i]);
		if (have && strcmp(have, name) == 0)
			return &table(v)[i];
	}
	return NULL;
}

struct shared_scratch *scratch_by_ino(struct versions *v, uint64_t ino)
{
	for (size_t i = 0; i < scratch_end(v); i++)
		if (table(v)[i].state != SCRATCH_FREE && table(v)[i].ino == ino)
			return &table(v)[i];
	return NULL;
}

int scratch_create(struct versions *v, const char *name, uint32_t mode, int64_t mtime_ms, struct shared_scratch **ret)
{
	if (strlen(name) >= sizeof(table(v)->name[0]))
		return -ENAMETOOLONG;
	if (scratch_by_name(v, name))
		return -EEXIST;
	for (size_t i = 0; i < SHARED_SCRATCH_MAX; i++) {
		struct shared_scratch *s = &table(v)[i];
		if (s->state != SCRATCH_FREE)
			continue;
		if (i >= scratch_end(v))
			atomic_store(&versions_shared(v)->scratch_count, (uint32_t)i + 1);
		memset(s, 0, sizeof *s);
		s->mode = mode;
		s->ino = atomic_fetch_add(&versions_shared(v)->next_ino, 1);
		s->mtime_ms = mtime_ms;
		strcpy(s->name[0], name);
		atomic_store_explicit(&s->state, SCRATCH_NAME0, memory_order_release);
		*ret = s;
		return 0;
	}
	return -ENOSPC;
}

/* What this one may hold while all the others hold what they hold. */
static uint64_t room(struct versions *v, const struct shared_scratch *s)
{
	uint64_t others = 0;
	for (size_t i = 0; i < scratch_end(v); i++)
		if (table(v)[i].state != SCRATCH_FREE && &table(v)[i] != s)
			others += table(v)[i].text.size;
	return others < SCRATCH_BYTES_MAX ? SCRATCH_BYTES_MAX - others : 0;
}

int scratch_write(struct versions *v, struct shared_scratch *s, uint64_t offset, const void *data, size_t len)
{
	int r = blob_write(v, &s->text, offset, data, len, room(v, s));
	return r == -EFBIG ? -ENOSPC : r;
}

int scratch_resize(struct versions *v, struct shared_scratch *s, uint64_t size)
{
	int r = blob_resize(v, &s->text, size, room(v, s));
	return r == -EFBIG ? -ENOSPC : r;
}

/* The one replaced loses its name first: a crash between the two leaves the source, and the rename comes again. */
int scratch_rename(struct versions *v, struct shared_scratch *s, const char *name)
{
	if (strlen(name) >= sizeof s->name[0])
		return -ENAMETOOLONG;
	struct shared_scratch *target = scratch_by_name(v, name);
	if (target == s)
		return 0;
	if (target)
		scratch_unlink(v, target);
	unsigned other = s->state == SCRATCH_NAME0;
	strcpy(s->name[other], name);
	atomic_store_explicit(&s->state, other ? SCRATCH_NAME1 : SCRATCH_NAME0, memory_order_release);
	return 0;
}

static void scratch_drop(struct versions *v, struct shared_scratch *s)
{
	blob_free(v, &s->text);
	atomic_store(&s->state, SCRATCH_FREE);
}

void scratch_unlink(struct versions *v, struct shared_scratch *s)
{
	atomic_store(&s->state, SCRATCH_NAMELESS);
	if (s->nlookup == 0)
		scratch_drop(v, s);
	else
		scratch_closed(v, s);
}

/* Not only when it is forgotten: that comes some time after its deletion, and its room is wanted now. */
void scratch_closed(struct versions *v, struct shared_scratch *s)
{
	if (s->state == SCRATCH_NAMELESS && !handle_any(v, s->ino))
		blob_free(v, &s->text);
}

void scratch_forget(struct versions *v, struct shared_scratch *s, uint64_t count)
{
	uint64_t have = s->nlookup;
	atomic_store(&s->nlookup, have > count ? have - count : 0);
	if (s->nlookup == 0 && s->state == SCRATCH_NAMELESS)
		scratch_drop(v, s);
}
