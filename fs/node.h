/* The overlay's nodes: what the kernel holds references to. A node is a file beneath, known by device and inode, with the names by which
 * it was found; its path is made of its ancestors' names when it is needed, so a tree of any size costs no descriptors.
 *
 * The records live in shared memory and outlive the server; the index by inode, the free list and the counts of children are private
 * and rebuilt by nodes_new(). A node id is generation << 32 | index, so one that the kernel should not have any more finds nothing.
 *
 * A node lives while the kernel has references (nlookup) or another record names it as its parent. nlookup grows before the reply
 * that carries it is written: a server that dies in between leaves one too many (a node that is never freed), never one too few.
 *
 * Locking: "(shared)" and "(exclusive)" say which lock the caller holds; the others take it themselves.
 */
#ifndef FS_NODE_H
#define FS_NODE_H

#include <stdbool.h>
#include <sys/stat.h>

#include "base/error.h"
#include "fs/shared.h"

enum { NODE_NONE, NODE_ROOT, NODE_FIRST = 16 }; /* indices; those between are the overlay's own: they have no record */

#define NODE_NAMES_MAX 64 /* hard links of one node that are remembered; then the newest takes the place of the first */

struct nodes;

int nodes_new(struct shared *shared, const struct stat *root, struct nodes **ret, struct error *err);
void nodes_free(struct nodes *n); /* closes the descriptors; the records stay */

void nodes_lock_shared(struct nodes *n);
void nodes_lock(struct nodes *n);
void nodes_unlock(struct nodes *n);

/* (shared) NODE_NONE when the kernel's id is of no node */
uint32_t node_index(const struct nodes *n, uint64_t id);
uint64_t node_id(const struct nodes *n, uint32_t index);
uint32_t node_find(const struct nodes *n, uint64_t dev, uint64_t ino);                         /* (shared) */
bool node_is(const struct nodes *n, uint32_t index, const struct stat *st);                    /* (shared) the same inode? */
struct shared_node *node_record(const struct nodes *n, uint32_t index);                        /* (shared) */

/* A path, relative to `fd`, or to the covered directory when that is -1. */
struct node_place {
	int fd;            /* borrowed: a node's own descriptor */
	const char *path;  /* "." for the root, "" for `fd` itself */
	char fixed[1024];
	char *allocated;
};
#define NODE_PLACE_INIT {.fd = -1}
/* (shared) `name` is a record of the node: `index` itself for its first name, then node_next_name(). -ESTALE when it has none. */
int node_place(const struct nodes *n, uint32_t name, struct node_place *place);
/* (shared) of a name in a directory */
int node_place_child(const struct nodes *n, uint32_t directory, const char *child, struct node_place *place);
uint32_t node_next_name(const struct nodes *n, uint32_t index, uint32_t name); /* (shared) NODE_NONE after the last */
void node_place_release(struct node_place *place);
#define cleanup_node_place __attribute__((cleanup(node_place_release)))

/* What stat found at (parent, child) is given to the kernel: a reference more. `moves` is nodes_moves() from before the stat. NODE_NONE and
 * -EAGAIN when something was moved or removed since (stat again), -ESTALE without the parent, -ENOMEM when there are too many. */
uint32_t nodes_moves(const struct nodes *n);
int node_enter(struct nodes *n, uint64_t parent_id, const char *child, const struct stat *st, uint32_t moves, uint32_t *ret);
void node_forget(struct nodes *n, uint32_t index, uint64_t count);
/* (exclusive) A node for a file without a name, with one reference; steals `fd`. NODE_NONE when there are too many. */
uint32_t node_enter_nameless(struct nodes *n, const struct stat *st, enum shared_node_unlinked why, int fd);

/* ---- names that change; (exclusive) ---- */

/* Would the node be without a known name if it lost this one? */
bool node_is_last_name(const struct nodes *n, uint32_t index, uint32_t parent, const char *child);
/* It has lost it. */
void node_unname(struct nodes *n, uint32_t index, uint32_t parent, const char *child);

/* A rename under way. `index` and `other` (of an exchange) may be NODE_NONE: then the kernel knows nothing of them. */
struct node_rename {
	uint32_t index, parent[2];
	const char *name[2];
	uint32_t other;
	bool exchange;
};
int node_rename_begin(struct nodes *n, const struct node_rename *r);
void node_rename_end(struct nodes *n, bool done);
/* The one that a dead server left: fills `r` with borrowed names, valid until node_rename_end(). */
bool node_rename_left(struct nodes *n, struct node_rename *r);

/* ---- the node's own descriptor ---- */

int node_fd(const struct nodes *n, uint32_t index);           /* (shared) borrowed; -1: none */
void node_set_fd(struct nodes *n, uint32_t index, int fd);    /* (exclusive) steals it */
int node_take_fd(struct nodes *n, uint32_t index);            /* (exclusive) -1: none */
bool nodes_dropped(const struct nodes *n);                    /* is there one of these: */
/* A node that was freed with a descriptor: its index is not used again before node_dropped(). */
bool node_next_dropped(struct nodes *n, uint32_t *ret_index, int *ret_fd);
void node_dropped(struct nodes *n, uint32_t index);

/* ---- listings ---- */

/* Names in the directory are others now. */
void node_changed(struct nodes *n, uint64_t id);
/* Has it changed since the kernel was told last to forget what it has cached of its listing? */
bool node_listing_is_stale(struct nodes *n, uint64_t id);
void node_listing_forgotten(struct nodes *n, uint64_t id);

unsigned nodes_live(const struct nodes *n);

#endif
