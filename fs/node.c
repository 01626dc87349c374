#include "fs/node.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "fs/names.h"

/* What a server keeps beside a record. Zero is "none" throughout: the array is memory that was never touched. */
struct node_local {
	uint32_t next;     /* in the bucket, the free list or the list of the dropped */
	uint32_t children; /* records that have this one as their parent */
	uint32_t alias;    /* the next name */
	int32_t fd;        /* + 1 */
	_Atomic bool current; /* of a directory: what the kernel has cached of its listing is from after the last change */
};

struct nodes {
	struct shared *shared; /* borrowed */
	struct shared_node *records;
	struct node_local *local;
	struct names names;
	uint32_t *buckets;
	uint32_t mask;
	unsigned live;
	uint32_t free, dropped;
	_Atomic uint32_t dropped_count;
	_Atomic uint32_t moves;
	pthread_rwlock_t lock;
};

#define LOCAL_BYTES ((size_t)SHARED_NODE_MAX * sizeof(struct node_local))
#define BUCKETS_FIRST 1024u /* doubled with the tree: a table for all would be touched all over by a small one */
#define DEPTH_MAX 65536     /* levels; no tree is that deep, but a record written by mistake could be its own ancestor */

void nodes_lock_shared(struct nodes *n)
{
	pthread_rwlock_rdlock(&n->lock);
}

void nodes_lock(struct nodes *n)
{
	pthread_rwlock_wrlock(&n->lock);
}

void nodes_unlock(struct nodes *n)
{
	pthread_rwlock_unlock(&n->lock);
}

unsigned nodes_live(const struct nodes *n)
{
	return n->live;
}

uint32_t nodes_moves(const struct nodes *n)
{
	return atomic_load(&n->moves);
}

/* ---- the index ---- */

static uint32_t bucket_of(const struct nodes *n, uint64_t dev, uint64_t ino)
{
	uint64_t h = (ino ^ dev << 32 ^ dev >> 32) * UINT64_C(0x9e3779b97f4a7c15);
	return (uint32_t)(h >> 32) & n->mask;
}

static void index_add(struct nodes *n, uint32_t index)
{
	uint32_t *bucket = &n->buckets[bucket_of(n, n->records[index].dev, n->records[index].ino)];
	n->local[index].next = *bucket;
	*bucket = index;
}

static void index_remove(struct nodes *n, uint32_t index)
{
	uint32_t *at = &n->buckets[bucket_of(n, n->records[index].dev, n->records[index].ino)];
	while (*at && *at != index)
		at = &n->local[*at].next;
	if (*at)
		*at = n->local[index].next;
}

static void index_grow(struct nodes *n)
{
	uint32_t size = n->mask + 1, count = atomic_load(&n->shared->node_count);
	if (n->live < size)
		return;
	free(n->buckets);
	n->buckets = xcalloc((size_t)size * 2, sizeof(*n->buckets));
	n->mask = size * 2 - 1;
	index_add(n, NODE_ROOT);
	for (uint32_t i = NODE_FIRST; i < count; i++)
		if (atomic_load(&n->records[i].state) == NODE_LIVE)
			index_add(n, i);
}

uint32_t node_find(const struct nodes *n, uint64_t dev, uint64_t ino)
{
	uint32_t index = n->buckets[bucket_of(n, dev, ino)];
	while (index && (n->records[index].ino != ino || n->records[index].dev != dev))
		index = n->local[index].next;
	return index;
}

struct shared_node *node_record(const struct nodes *n, uint32_t index)
{
	return &n->records[index];
}

uint32_t node_index(const struct nodes *n, uint64_t id)
{
	uint32_t index = (uint32_t)id;
	if (index == NODE_ROOT)
		return NODE_ROOT;
	if (index < NODE_FIRST || index >= atomic_load(&n->shared->node_count))
		return NODE_NONE;
	const struct shared_node *r = &n->records[index];
	return atomic_load(&r->state) == NODE_LIVE && r->generation == id >> 32 ? index : NODE_NONE;
}

uint64_t node_id(const struct nodes *n, uint32_t index)
{
	return index == NODE_ROOT ? NODE_ROOT : (uint64_t)n->records[index].generation << 32 | index;
}

bool node_is(const struct nodes *n, uint32_t index, const struct stat *st)
{
	return n->records[index].ino == st->st_ino && n->records[index].dev == st->st_dev;
}

/* ---- descriptors ---- */

int node_fd(const struct nodes *n, uint32_t index)
{
	return n->local[index].fd - 1;
}

void node_set_fd(struct nodes *n, uint32_t index, int fd)
{
	n->local[index].fd = fd + 1;
}

int node_take_fd(struct nodes *n, uint32_t index)
{
	int fd = node_fd(n, index);
	n->local[index].fd = 0;
	return fd;
}

bool nodes_dropped(const struct nodes *n)
{
	return atomic_load(&n->dropped_count) != 0;
}

bool node_next_dropped(struct nodes *n, uint32_t *ret_index, int *ret_fd)
{
	nodes_lock(n);
	uint32_t index = n->dropped;
	if (index) {
		n->dropped = n->local[index].next;
		atomic_fetch_sub(&n->dropped_count, 1);
		*ret_index = index;
		*ret_fd = node_take_fd(n, index);
	}
	nodes_unlock(n);
	return index != NODE_NONE;
}

static void free_list_add(struct nodes *n, uint32_t index)
{
	n->local[index] = (struct node_local){.next = n->free};
	n->free = index;
}

void node_dropped(struct nodes *n, uint32_t index)
{
	nodes_lock(n);
	free_list_add(n, index);
	nodes_unlock(n);
}

/* ---- listings ---- */

static void set_current(struct nodes *n, uint64_t id, bool current)
{
	nodes_lock_shared(n);
	uint32_t index = node_index(n, id);
	if (index != NODE_NONE)
		atomic_store(&n->local[index].current, current);
	nodes_unlock(n);
}

void node_changed(struct nodes *n, uint64_t id)
{
	set_current(n, id, false);
}

void node_listing_forgotten(struct nodes *n, uint64_t id)
{
	set_current(n, id, true);
}

bool node_listing_is_stale(struct nodes *n, uint64_t id)
{
	nodes_lock_shared(n);
	uint32_t index = node_index(n, id);
	bool stale = index != NODE_NONE && !atomic_load(&n->local[index].current);
	nodes_unlock(n);
	return stale;
}

/* ---- records ---- */

static uint32_t record_new(struct nodes *n)
{
	uint32_t index = n->free;
	if (index) {
		n->free = n->local[index].next;
		n->local[index] = (struct node_local){0};
		return index;
	}
	index = atomic_load(&n->shared->node_count);
	if (index >= SHARED_NODE_MAX)
		return NODE_NONE;
	atomic_store(&n->shared->node_count, index + 1);
	return index;
}

static void node_put(struct nodes *n, uint32_t index);

static void record_clear(struct nodes *n, uint32_t index)
{
	struct shared_node *r = &n->records[index];
	uint64_t name = atomic_load(&r->name);
	atomic_store(&r->state, NODE_FREE);
	atomic_store(&r->name, 0);
	r->generation++;
	names_drop(&n->names, name);
}

static void parent_leave(struct nodes *n, uint32_t parent)
{
	if (parent == NODE_NONE)
		return;
	n->local[parent].children--;
	node_put(n, parent);
}

static void alias_free(struct nodes *n, uint32_t alias)
{
	uint32_t parent = atomic_load(&n->records[alias].parent);
	record_clear(n, alias);
	free_list_add(n, alias);
	parent_leave(n, parent);
}

static void node_free(struct nodes *n, uint32_t index)
{
	for (uint32_t alias = n->local[index].alias, next; alias; alias = next) {
		next = n->local[alias].alias;
		alias_free(n, alias);
	}
	index_remove(n, index);
	record_clear(n, index);
	n->live--;
	if (node_fd(n, index) < 0) {
		free_list_add(n, index);
	} else {
		n->local[index].next = n->dropped;
		n->dropped = index;
		atomic_fetch_add(&n->dropped_count, 1);
	}
}

/* Frees the node when nothing needs it any more, and then perhaps its ancestors. */
static void node_put(struct nodes *n, uint32_t index)
{
	while (index >= NODE_FIRST && n->local[index].children == 0 && atomic_load(&n->records[index].nlookup) == 0) {
		uint32_t parent = atomic_load(&n->records[index].parent);
		node_free(n, index);
		if (parent == NODE_NONE)
			return;
		n->local[parent].children--;
		index = parent;
	}
}

/* The pair is not one store: a server killed in between leaves a record that points to nothing, which the next lookup mends; renames, where
 * nobody would look up again, have shared_rename. */
static bool record_name(struct nodes *n, uint32_t record, uint32_t parent, const char *child)
{
	struct shared_node *r = &n->records[record];
	uint64_t name = names_put(&n->names, child), old = atomic_load(&r->name);
	uint32_t old_parent = atomic_load(&r->parent);
	if (!name)
		return false;
	n->local[parent].children++;
	atomic_store(&r->parent, parent);
	atomic_store(&r->name, name);
	names_drop(&n->names, old);
	parent_leave(n, old_parent);
	return true;
}

static void record_unname(struct nodes *n, uint32_t record)
{
	struct shared_node *r = &n->records[record];
	uint64_t name = atomic_load(&r->name);
	uint32_t parent = atomic_load(&r->parent);
	atomic_store(&r->name, 0);
	atomic_store(&r->parent, NODE_NONE);
	names_drop(&n->names, name);
	parent_leave(n, parent);
}

static bool record_is_at(const struct nodes *n, uint32_t record, uint32_t parent, const char *child)
{
	const struct shared_node *r = &n->records[record];
	return atomic_load(&r->parent) == parent && atomic_load(&r->name) &&
	       strcmp(names_get(&n->names, atomic_load(&r->name)), child) == 0;
}

static uint32_t find_name(const struct nodes *n, uint32_t index, uint32_t parent, const char *child)
{
	for (uint32_t name = index; name; name = n->local[name].alias)
		if (record_is_at(n, name, parent, child))
			return name;
	return NODE_NONE;
}

uint32_t node_next_name(const struct nodes *n, uint32_t index, uint32_t name)
{
	return n->local[name].alias;
}

/* ---- paths ---- */

void node_place_release(struct node_place *place)
{
	free(place->allocated);
	*place = (struct node_place){.fd = -1};
}

/* The length of the path that ends in `name` (a record), and where it starts; -ESTALE when an ancestor has lost its name. */
static int measure(const struct nodes *n, uint32_t name, size_t *ret_length, int *ret_fd)
{
	size_t length = 0;
	unsigned depth = 0;
	for (; name != NODE_ROOT; name = atomic_load(&n->records[name].parent)) {
		const struct shared_node *r = &n->records[name];
		bool is_node = atomic_load(&r->state) == NODE_LIVE;
		if (is_node && node_fd(n, name) >= 0) {
			*ret_fd = node_fd(n, name);
			break;
		}
		if (!atomic_load(&r->name) || ++depth > DEPTH_MAX)
			return -ESTALE;
		length += strlen(names_get(&n->names, atomic_load(&r->name))) + 1;
	}
	*ret_length = length;
	return 0;
}

static char *place_room(struct node_place *place, size_t length)
{
	if (length < sizeof(place->fixed))
		return place->fixed;
	place->allocated = xcalloc(length + 1, 1);
	return place->allocated;
}

static char *prepend(char *at, const char *name)
{
	size_t length = strlen(name);
	at -= length;
	memcpy(at, name, length);
	return at;
}

static int make_place(const struct nodes *n, uint32_t name, const char *child, struct node_place *place)
{
	size_t length;
	node_place_release(place);
	int r = measure(n, name, &length, &place->fd);
	if (r < 0)
		return r;
	if (child)
		length += strlen(child) + 1;
	if (length == 0) {
		place->path = place->fd >= 0 ? "" : ".";
		return 0;
	}
	char *room = place_room(place, length), *at = room + length - 1;
	*at = '\0';
	if (child)
		at = prepend(at, child);
	for (; at > room; name = atomic_load(&n->records[name].parent)) {
		if (*at)
			*--at = '/';
		at = prepend(at, names_get(&n->names, atomic_load(&n->records[name].name)));
	}
	place->path = at;
	return 0;
}

int node_place(const struct nodes *n, uint32_t name, struct node_place *place)
{
	return make_place(n, name, NULL, place);
}

int node_place_child(const struct nodes *n, uint32_t directory, const char *child, struct node_place *place)
{
	return make_place(n, directory, child, place);
}

/* ---- what the kernel is given and gives back ---- */

/* The file it stood for is gone from beneath us: operations on it find nothing, and its inode number may be another file's. */
static void orphan(struct nodes *n, uint32_t index)
{
	struct shared_node *r = &n->records[index];
	index_remove(n, index);
	r->dev = 0;
	r->ino = 0;
	index_add(n, index);
	record_unname(n, index);
	atomic_store(&r->unlinked, NODE_UNLINKED);
}

static bool is_ancestor(const struct nodes *n, uint32_t index, uint32_t of)
{
	unsigned depth = 0;
	while (of != NODE_ROOT && of != NODE_NONE && of != index && ++depth < DEPTH_MAX)
		of = atomic_load(&n->records[of].parent);
	return of == index;
}

static uint32_t node_new(struct nodes *n, const struct stat *st)
{
	uint32_t index = record_new(n);
	if (index == NODE_NONE)
		return NODE_NONE;
	struct shared_node *r = &n->records[index];
	r->mode = st->st_mode & S_IFMT;
	r->dev = st->st_dev;
	r->ino = st->st_ino;
	atomic_store(&r->parent, NODE_NONE);
	atomic_store(&r->name, 0);
	atomic_store(&r->nlookup, 0);
	atomic_store(&r->unlinked, NODE_NAMED);
	return index;
}

static void node_publish(struct nodes *n, uint32_t index)
{
	n->live++;
	index_grow(n); /* indexes all that is live, which this is not yet */
	atomic_store(&n->local[index].current, true); /* the kernel knows nothing of it yet */
	atomic_store(&n->records[index].nlookup, 1);
	atomic_store(&n->records[index].state, NODE_LIVE);
	index_add(n, index);
}

static uint32_t node_new_at(struct nodes *n, uint32_t parent, const char *child, const struct stat *st)
{
	uint32_t index = node_new(n, st);
	if (index == NODE_NONE)
		return NODE_NONE;
	if (!record_name(n, index, parent, child)) {
		free_list_add(n, index);
		return NODE_NONE;
	}
	node_publish(n, index);
	return index;
}

static void alias_add(struct nodes *n, uint32_t index, uint32_t parent, const char *child)
{
	unsigned count = 1;
	for (uint32_t name = n->local[index].alias; name; name = n->local[name].alias)
		count++;
	uint32_t alias = count < NODE_NAMES_MAX ? record_new(n) : NODE_NONE;
	if (alias == NODE_NONE) {
		record_name(n, index, parent, child);
		return;
	}
	struct shared_node *r = &n->records[alias];
	atomic_store(&r->parent, NODE_NONE);
	atomic_store(&r->name, 0);
	if (!record_name(n, alias, parent, child)) {
		free_list_add(n, alias);
		return;
	}
	atomic_store(&r->nlookup, index);
	atomic_store(&r->state, NODE_ALIAS);
	n->local[alias].alias = n->local[index].alias;
	n->local[index].alias = alias;
}

/* A node that exists was found at (parent, child). False: it cannot be the same any more. */
static bool found_at(struct nodes *n, uint32_t index, uint32_t parent, const char *child, const struct stat *st)
{
	struct shared_node *r = &n->records[index];
	if (r->mode != (st->st_mode & S_IFMT) || (S_ISDIR(st->st_mode) && is_ancestor(n, index, parent)))
		return false;
	if (find_name(n, index, parent, child))
		return true;
	if (!S_ISDIR(st->st_mode) && st->st_nlink > 1 && atomic_load(&r->name))
		alias_add(n, index, parent, child);
	else if (!record_name(n, index, parent, child))
		return false;
	atomic_store(&r->unlinked, NODE_NAMED);
	return true;
}

int node_enter(struct nodes *n, uint64_t parent_id, const char *child, const struct stat *st, uint32_t moves, uint32_t *ret)
{
	nodes_lock(n);
	uint32_t parent = node_index(n, parent_id), index = node_find(n, st->st_dev, st->st_ino);
	int r = parent == NODE_NONE ? -ESTALE : moves != atomic_load(&n->moves) ? -EAGAIN : 0;
	if (r == 0 && index != NODE_NONE && index != NODE_ROOT && !found_at(n, index, parent, child, st)) {
		orphan(n, index);
		index = NODE_NONE;
	}
	if (r == 0 && index == NODE_NONE) {
		index = node_new_at(n, parent, child, st);
		r = index == NODE_NONE ? -ENOMEM : 0;
	} else if (r == 0) {
		atomic_fetch_add(&n->records[index].nlookup, 1);
	}
	nodes_unlock(n);
	if (r == 0)
		*ret = index;
	return r;
}

uint32_t node_enter_nameless(struct nodes *n, const struct stat *st, enum shared_node_unlinked why, int fd)
{
	uint32_t index = node_new(n, st);
	if (index == NODE_NONE)
		return NODE_NONE;
	atomic_store(&n->records[index].unlinked, why);
	node_publish(n, index);
	node_set_fd(n, index, fd);
	return index;
}

void node_forget(struct nodes *n, uint32_t index, uint64_t count)
{
	if (index < NODE_FIRST)
		return;
	nodes_lock(n);
	struct shared_node *r = &n->records[index];
	uint64_t held = atomic_load(&r->nlookup);
	if (count > held) {
		log_warning("overlay", "node %u: %llu references forgotten of %llu", index, (unsigned long long)count,
		            (unsigned long long)held);
		count = held;
	}
	atomic_store(&r->nlookup, held - count);
	node_put(n, index);
	nodes_unlock(n);
}

/* ---- names that change ---- */

bool node_is_last_name(const struct nodes *n, uint32_t index, uint32_t parent, const char *child)
{
	return n->local[index].alias == NODE_NONE && record_is_at(n, index, parent, child);
}

/* The last of the other names becomes the node's first. */
static bool promote_alias(struct nodes *n, uint32_t index)
{
	uint32_t alias = n->local[index].alias;
	if (!alias)
		return false;
	struct shared_node *from = &n->records[alias];
	uint64_t name = atomic_load(&from->name);
	bool done = record_name(n, index, atomic_load(&from->parent), names_get(&n->names, name));
	if (!done)
		record_unname(n, index);
	n->local[index].alias = n->local[alias].alias;
	alias_free(n, alias);
	return done;
}

void node_unname(struct nodes *n, uint32_t index, uint32_t parent, const char *child)
{
	atomic_fetch_add(&n->moves, 1);
	uint32_t name = find_name(n, index, parent, child);
	if (name == index) {
		if (!promote_alias(n, index)) {
			/* the descriptor is what is left of it: say so before the name goes */
			atomic_store(&n->records[index].unlinked, NODE_UNLINKED);
			record_unname(n, index);
		}
	} else if (name) {
		uint32_t before = index;
		while (n->local[before].alias != name)
			before = n->local[before].alias;
		n->local[before].alias = n->local[name].alias;
		alias_free(n, name);
	}
}

int node_rename_begin(struct nodes *n, const struct node_rename *r)
{
	struct shared_rename *s = &n->shared->rename;
	atomic_fetch_add(&n->moves, 1);
	*s = (struct shared_rename){.exchange = r->exchange};
	s->record[0] = r->index ? find_name(n, r->index, r->parent[0], r->name[0]) : NODE_NONE;
	s->record[1] = r->exchange && r->other ? find_name(n, r->other, r->parent[1], r->name[1]) : NODE_NONE;
	for (int i = 0; i < 2; i++) {
		s->parent[i] = r->parent[i];
		s->name[i] = names_put(&n->names, r->name[i]);
		n->local[r->parent[i]].children++; /* held until the end */
	}
	if (!s->name[0] || !s->name[1]) {
		node_rename_end(n, false);
		return -ENOMEM;
	}
	atomic_store(&s->state, 1);
	return 0;
}

static void follow(struct nodes *n, uint32_t record, uint32_t parent, uint64_t name)
{
	if (record && !record_is_at(n, record, parent, names_get(&n->names, name)))
		record_name(n, record, parent, names_get(&n->names, name));
}

void node_rename_end(struct nodes *n, bool done)
{
	struct shared_rename *s = &n->shared->rename;
	if (done) {
		follow(n, s->record[0], s->parent[1], s->name[1]);
		follow(n, s->record[1], s->parent[0], s->name[0]);
	}
	atomic_store(&s->state, 0);
	for (int i = 0; i < 2; i++) {
		names_drop(&n->names, s->name[i]);
		parent_leave(n, s->parent[i]);
	}
}

/* The node of a record: itself, or what it is another name of. */
static uint32_t owner_of(const struct nodes *n, uint32_t record)
{
	if (record == NODE_NONE)
		return NODE_NONE;
	const struct shared_node *r = &n->records[record];
	return atomic_load(&r->state) == NODE_ALIAS ? (uint32_t)atomic_load(&r->nlookup) : record;
}

bool node_rename_left(struct nodes *n, struct node_rename *r)
{
	struct shared_rename *s = &n->shared->rename;
	if (!atomic_load(&s->state))
		return false;
	*r = (struct node_rename){.exchange = s->exchange};
	r->index = owner_of(n, s->record[0]);
	r->other = owner_of(n, s->record[1]);
	for (int i = 0; i < 2; i++) {
		r->parent[i] = s->parent[i];
		r->name[i] = names_get(&n->names, s->name[i]);
	}
	return true;
}

/* ---- a server begins ---- */

static void rebuild_record(struct nodes *n, uint32_t index)
{
	struct shared_node *r = &n->records[index];
	uint32_t state = atomic_load(&r->state);
	if (state == NODE_FREE) {
		free_list_add(n, index);
		return;
	}
	if (atomic_load(&r->name))
		names_mark(&n->names, atomic_load(&r->name));
	if (atomic_load(&r->parent))
		n->local[atomic_load(&r->parent)].children++;
	if (state == NODE_LIVE) {
		n->live++;
		index_grow(n);
	}
}

/* After all records were counted: what an unfinished change left over goes. */
static void rebuild_links(struct nodes *n, uint32_t index)
{
	struct shared_node *r = &n->records[index];
	if (atomic_load(&r->state) == NODE_LIVE) {
		node_put(n, index);
	} else if (atomic_load(&r->state) == NODE_ALIAS) {
		uint32_t of = (uint32_t)atomic_load(&r->nlookup);
		if (atomic_load(&n->records[of].state) != NODE_LIVE) {
			alias_free(n, index);
			return;
		}
		n->local[index].alias = n->local[of].alias;
		n->local[of].alias = index;
	}
}

static void rebuild(struct nodes *n)
{
	uint32_t count = atomic_load(&n->shared->node_count);
	struct shared_rename *rename = &n->shared->rename;
	names_rebuild(&n->names);
	for (uint32_t i = count; i-- > NODE_FIRST;)
		rebuild_record(n, i);
	for (int i = 0; i < 2 && atomic_load(&rename->state); i++) {
		names_mark(&n->names, rename->name[i]);
		n->local[rename->parent[i]].children++;
	}
	names_rebuilt(&n->names);
	memset(n->buckets, 0, ((size_t)n->mask + 1) * sizeof(*n->buckets));
	index_add(n, NODE_ROOT);
	for (uint32_t i = NODE_FIRST; i < count; i++)
		if (atomic_load(&n->records[i].state) == NODE_LIVE)
			index_add(n, i);
	for (uint32_t i = NODE_FIRST; i < count; i++)
		rebuild_links(n, i);
}

static void set_root(struct nodes *n, const struct stat *st)
{
	struct shared_node *root = &n->records[NODE_ROOT];
	root->mode = st->st_mode & S_IFMT;
	root->dev = st->st_dev;
	root->ino = st->st_ino;
	atomic_store(&root->state, NODE_LIVE);
	if (atomic_load(&n->shared->node_count) < NODE_FIRST)
		atomic_store(&n->shared->node_count, NODE_FIRST);
}

int nodes_new(struct shared *shared, const struct stat *root, struct nodes **ret, struct error *err)
{
	struct nodes *n = xcalloc(1, sizeof(*n));
	n->shared = shared;
	n->records = shared_nodes(shared);
	n->local = mmap(NULL, LOCAL_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (n->local == MAP_FAILED) {
		free(n);
		return error_set_errno(err, ERROR_NO_MEMORY, ENOMEM, "no address space for the overlay's nodes");
	}
	n->buckets = xcalloc(BUCKETS_FIRST, sizeof(*n->buckets));
	n->mask = BUCKETS_FIRST - 1;
	pthread_rwlock_init(&n->lock, NULL);
	names_init(&n->names, shared);
	set_root(n, root);
	rebuild(n);
	*ret = n;
	return 0;
}

void nodes_free(struct nodes *n)
{
	if (!n)
		return;
	uint32_t count = atomic_load(&n->shared->node_count);
	for (uint32_t i = NODE_FIRST; i < count; i++)
		if (n->local[i].fd)
			close(n->local[i].fd - 1);
	pthread_rwlock_destroy(&n->lock);
	munmap(n->local, LOCAL_BYTES);
	free(n->buckets);
	free(n);
}
