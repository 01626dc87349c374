#include "fs/version.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/alloc.h"

#define CHAINS 512
#define NONE UINT16_MAX
#define RETURN_SLOTS 8 /* a blob at least this long gives its pages back when it is freed */

struct versions {
	struct shared *shared;
	unsigned char used[SHARED_VERSION_SLOTS / 8];
	/* by ino and by file; chains of indexes */
	uint16_t ino_head[CHAINS], ino_next[SHARED_VERSION_MAX];
	uint16_t file_head[CHAINS], file_next[SHARED_VERSION_MAX];
};

/* ---- slots ---- */

static uint32_t place_slot(uint64_t place)
{
	return (uint32_t)(place >> 32);
}

static uint32_t place_slots(uint64_t place)
{
	return (uint32_t)place;
}

static bool slot_used(const struct versions *v, uint32_t slot)
{
	return v->used[slot / 8] & (1 << slot % 8);
}

static void slots_mark(struct versions *v, uint64_t place, bool used)
{
	for (uint32_t i = 0; i < place_slots(place); i++) {
		uint32_t slot = place_slot(place) + i;
		if (slot >= SHARED_VERSION_SLOTS)
			return;
		if (used)
			v->used[slot / 8] |= (unsigned char)(1 << slot % 8);
		else
			v->used[slot / 8] &= (unsigned char)~(1 << slot % 8);
	}
}

static bool slots_find(const struct versions *v, uint32_t slots, uint32_t *ret)
{
	uint32_t run = 0;
	for (uint32_t i = 0; i < SHARED_VERSION_SLOTS; i++) {
		run = slot_used(v, i) ? 0 : run + 1;
		if (run == slots) {
			*ret = i + 1 - slots;
			return true;
		}
	}
	return false;
}

static bool versions_evict(struct versions *v);

static int slots_take(struct versions *v, uint64_t bytes, uint64_t *ret_place)
{
	uint64_t slots = (bytes + SHARED_VERSION_SLOT - 1) / SHARED_VERSION_SLOT;
	uint32_t slot = 0;
	if (slots > SHARED_VERSION_SLOTS)
		return -ENOSPC;
	while (!slots_find(v, (uint32_t)slots, &slot))
		if (!versions_evict(v))
			return -ENOSPC;
	*ret_place = (uint64_t)slot << 32 | slots;
	slots_mark(v, *ret_place, true);
	return 0;
}

static void slots_give(struct versions *v, uint64_t place)
{
	slots_mark(v, place, false);
	if (place_slots(place) >= RETURN_SLOTS)
		madvise(shared_bytes(v->shared) + (size_t)place_slot(place) * SHARED_VERSION_SLOT,
		        (size_t)place_slots(place) * SHARED_VERSION_SLOT, MADV_REMOVE);
}

/* ---- bytes ---- */

char *blob_bytes(struct versions *v, const struct shared_blob *b)
{
	return shared_bytes(v->shared) + (size_t)place_slot(b->place) * SHARED_VERSION_SLOT;
}

/* The new place is complete before it is published, so a crash leaves the one or the other. */
static int blob_reserve(struct versions *v, struct shared_blob *b, uint64_t size)
{
	uint64_t old = b->place, place;
	uint64_t have = (uint64_t)place_slots(old) * SHARED_VERSION_SLOT;
	if (size <= have)
		return 0;
	uint64_t want = size < have * 2 ? have * 2 : size;
	int r = slots_take(v, want, &place);
	if (r < 0 && want != size)
		r = slots_take(v, size, &place);
	if (r < 0)
		return r;
	if (b->size)
		memcpy(shared_bytes(v->shared) + (size_t)place_slot(place) * SHARED_VERSION_SLOT, blob_bytes(v, b), b->size);
	atomic_store(&b->place, place);
	slots_give(v, old);
	return 0;
}

int blob_resize(struct versions *v, struct shared_blob *b, uint64_t size, uint64_t max)
{
	if (size > max)
		return -EFBIG;
	int r = blob_reserve(v, b, size);
	if (r < 0)
		return r;
	if (size > b->size)
		memset(blob_bytes(v, b) + b->size, 0, size - b->size);
	atomic_store(&b->size, size);
	return 0;
}

int blob_write(struct versions *v, struct shared_blob *b, uint64_t offset, const void *data, size_t len, uint64_t max)
{
	if (offset > max || len > max - offset)
		return -EFBIG;
	if (len == 0)
		return 0;
	int r = blob_reserve(v, b, offset + len);
	if (r < 0)
		return r;
	if (offset > b->size)
		memset(blob_bytes(v, b) + b->size, 0, offset - b->size);
	memcpy(blob_bytes(v, b) + offset, data, len);
	if (offset + len > b->size)
		atomic_store(&b->size, offset + len);
	return 0;
}

void blob_free(struct versions *v, struct shared_blob *b)
{
	uint64_t old = b->place;
	atomic_store(&b->size, 0);
	atomic_store(&b->place, 0);
	slots_give(v, old);
}

/* ---- indexes ---- */

static size_t ino_chain(uint64_t ino)
{
	return ino % CHAINS;
}

static size_t file_chain(uint64_t file)
{
	return (file ^ file >> 8 ^ file >> 32) % CHAINS;
}

static void index_add(struct versions *v, uint16_t i)
{
	const struct shared_version *version = &v->shared->versions[i];
	uint16_t *head = &v->ino_head[ino_chain(version->ino)];
	v->ino_next[i] = *head;
	*head = i;
	head = &v->file_head[file_chain(version->file)];
	v->file_next[i] = *head;
	*head = i;
}

static void chain_remove(uint16_t *head, uint16_t *next, uint16_t i)
{
	for (uint16_t *p = head; *p != NONE; p = &next[*p]) {
		if (*p == i) {
			*p = next[i];
			return;
		}
	}
}

static void index_remove(struct versions *v, uint16_t i)
{
	const struct shared_version *version = &v->shared->versions[i];
	chain_remove(&v->ino_head[ino_chain(version->ino)], v->ino_next, i);
	chain_remove(&v->file_head[file_chain(version->file)], v->file_next, i);
}

static void slots_of_live(struct versions *v)
{
	struct shared *s = v->shared;
	for (uint16_t i = 0; i < s->version_count; i++)
		if (s->versions[i].state != VERSION_FREE)
			slots_mark(v, s->versions[i].bytes.place, true);
	for (size_t i = 0; i < s->handle_count; i++)
		if (s->handles[i].state != HANDLE_FREE)
			slots_mark(v, s->handles[i].text.place, true);
	for (size_t i = 0; i < s->scratch_count; i++)
		if (s->scratch[i].state != SCRATCH_FREE)
			slots_mark(v, s->scratch[i].text.place, true);
}

/* A crash between publishing a version and retiring the one before leaves two: the later counts. */
static void retire_doubles(struct versions *v)
{
	for (uint16_t i = 0; i < v->shared->version_count; i++) {
		struct shared_version *version = &v->shared->versions[i];
		if (version->state != VERSION_LIVE)
			continue;
		struct shared_version *current = version_current(v, version->file);
		if (current != version)
			version_retire(v, version);
	}
}

struct versions *versions_new(struct shared *shared)
{
	struct versions *v = xcalloc(1, sizeof *v);
	v->shared = shared;
	if (shared->next_ino < VERSION_FIRST_INO)
		shared->next_ino = VERSION_FIRST_INO;
	memset(v->ino_head, 0xff, sizeof v->ino_head);
	memset(v->file_head, 0xff, sizeof v->file_head);
	for (uint16_t i = 0; i < shared->version_count; i++)
		if (shared->versions[i].state != VERSION_FREE)
			index_add(v, i);
	slots_of_live(v);
	retire_doubles(v);
	return v;
}

void versions_free(struct versions *v)
{
	free(v);
}

struct shared *versions_shared(struct versions *v)
{
	return v->shared;
}

/* ---- versions ---- */

size_t version_index(const struct versions *v, const struct shared_version *version)
{
	return (size_t)(version - v->shared->versions);
}

size_t version_end(const struct versions *v)
{
	return v->shared->version_count;
}

struct shared_version *version_at(struct versions *v, size_t index)
{
	struct shared_version *version = &v->shared->versions[index];
	return version->state == VERSION_FREE ? NULL : version;
}

struct shared_version *version_by_ino(struct versions *v, uint64_t ino)
{
	for (uint16_t i = v->ino_head[ino_chain(ino)]; i != NONE; i = v->ino_next[i])
		if (v->shared->versions[i].ino == ino)
			return &v->shared->versions[i];
	return NULL;
}

struct shared_version *version_current(struct versions *v, uint64_t file)
{
	struct shared_version *best = NULL;
	for (uint16_t i = v->file_head[file_chain(file)]; i != NONE; i = v->file_next[i]) {
		struct shared_version *version = &v->shared->versions[i];
		if (version->file == file && version->state == VERSION_LIVE && (!best || version->ino > best->ino))
			best = version;
	}
	return best;
}

const char *version_bytes(struct versions *v, const struct shared_version *version)
{
	return blob_bytes(v, &version->bytes);
}

static void version_drop(struct versions *v, struct shared_version *version)
{
	index_remove(v, (uint16_t)version_index(v, version));
	uint64_t place = version->bytes.place;
	atomic_store(&version->state, VERSION_FREE);
	slots_give(v, place);
}

bool handle_any(struct versions *v, uint64_t ino)
{
	for (size_t i = 0; i < v->shared->handle_count; i++)
		if (v->shared->handles[i].state != HANDLE_FREE && v->shared->handles[i].ino == ino)
			return true;
	return false;
}

static bool versions_evict(struct versions *v)
{
	struct shared_version *oldest = NULL;
	for (uint16_t i = 0; i < v->shared->version_count; i++) {
		struct shared_version *version = &v->shared->versions[i];
		if (version->state == VERSION_RETIRED && (!oldest || version->ino < oldest->ino) &&
		    !handle_any(v, version->ino))
			oldest = version;
	}
	if (oldest)
		version_drop(v, oldest);
	return oldest != NULL;
}

static int version_take(struct versions *v, struct shared_version **ret)
{
	do {
		for (uint16_t i = 0; i < SHARED_VERSION_MAX; i++) {
			if (v->shared->versions[i].state == VERSION_FREE) {
				if (i >= v->shared->version_count)
					atomic_store(&v->shared->version_count, i + 1u);
				*ret = &v->shared->versions[i];
				return 0;
			}
		}
	} while (versions_evict(v));
	return -ENOSPC;
}

static bool same_bytes(struct versions *v, const struct shared_version *version, const void *data, size_t len)
{
	return version->bytes.size == len && (len == 0 || memcmp(version_bytes(v, version), data, len) == 0);
}

int version_publish(struct versions *v, uint64_t file, const void *data, size_t len, int64_t mtime_ms,
                    struct shared_version **ret)
{
	struct shared_version *old = version_current(v, file), *version;
	if (old && same_bytes(v, old, data, len)) {
		*ret = old;
		return 0;
	}
	uint64_t place = 0;
	int r = len ? slots_take(v, len, &place) : 0;
	if (r < 0)
		return r;
	r = version_take(v, &version);
	if (r < 0) {
		slots_give(v, place);
		return r;
	}
	memset(version, 0, sizeof *version);
	version->file = file;
	version->ino = atomic_fetch_add(&v->shared->next_ino, 1);
	version->bytes.place = place;
	version->bytes.size = len;
	version->mtime_ms = mtime_ms;
	if (len)
		memcpy(blob_bytes(v, &version->bytes), data, len);
	atomic_store_explicit(&version->state, VERSION_LIVE, memory_order_release);
	index_add(v, (uint16_t)version_index(v, version));
	version_retire(v, old);
	*ret = version;
	return 0;
}

void version_retire(struct versions *v, struct shared_version *version)
{
	if (!version)
		return;
	atomic_store(&version->state, VERSION_RETIRED);
	if (version->nlookup == 0)
		version_drop(v, version);
}

void version_ref(struct shared_version *version)
{
	atomic_fetch_add(&version->nlookup, 1);
}

void version_forget(struct versions *v, struct shared_version *version, uint64_t count)
{
	uint64_t have = version->nlookup;
	atomic_store(&version->nlookup, have > count ? have - count : 0);
	if (version->nlookup == 0 && version->state == VERSION_RETIRED)
		version_drop(v, version);
}

/* ---- handles ---- */

int handle_open(struct versions *v, uint64_t file, uint64_t ino, struct shared_handle **ret)
{
	for (size_t i = 0; i < SHARED_HANDLE_MAX; i++) {
		struct shared_handle *h = &v->shared->handles[i];
		if (h->state != HANDLE_FREE)
			continue;
		if (i >= v->shared->handle_count)
			atomic_store(&v->shared->handle_count, (uint32_t)i + 1);
		uint32_t generation = h->generation + 1;
		memset(h, 0, sizeof *h);
		h->generation = generation;
		h->file = file;
		h->ino = ino;
		h->server = v->shared->server_generation;
		atomic_store_explicit(&h->state, HANDLE_ANSWERING, memory_order_release);
		*ret = h;
		return 0;
	}
	return -ENFILE;
}

void handle_answered(struct shared_handle *h)
{
	atomic_store(&h->state, HANDLE_LIVE);
}

struct shared_handle *handle_answering(struct versions *v, int32_t tid, uint64_t ino)
{
	for (size_t i = 0; i < v->shared->handle_count; i++) {
		struct shared_handle *h = &v->shared->handles[i];
		if (h->state == HANDLE_ANSWERING && h->tid == tid && h->ino == ino)
			return h;
	}
	return NULL;
}

uint64_t handle_fh(const struct versions *v, const struct shared_handle *h)
{
	return (uint64_t)h->generation << 32 | (uint64_t)(h - v->shared->handles);
}

struct shared_handle *handle_get(struct versions *v, uint64_t fh)
{
	uint32_t index = (uint32_t)fh;
	if (index >= v->shared->handle_count)
		return NULL;
	struct shared_handle *h = &v->shared->handles[index];
	return h->state != HANDLE_FREE && h->generation == fh >> 32 ? h : NULL;
}

void handle_close(struct versions *v, struct shared_handle *h)
{
	blob_free(v, &h->text);
	atomic_store(&h->state, HANDLE_FREE);
}

size_t handle_end(const struct versions *v)
{
	return v->shared->handle_count;
}

struct shared_handle *handle_at(struct versions *v, size_t index)
{
	struct shared_handle *h = &v->shared->handles[index];
	return h->state == HANDLE_FREE ? NULL : h;
}
