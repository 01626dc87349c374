/* The memory that outlives a server: one memfd, made by the keeper and mapped by each server in turn.
 *
 * Rules: everything in it is offsets, indices and plain numbers, never pointers; every record is published by one atomic store
 * of its `state` (release) after its contents are written, so a server killed at any line leaves each record either
 * there or not; indexes, free lists and locks are private to a server and rebuilt from the records. The file is sparse:
 * only what is used occupies memory.
 */
#ifndef FS_SHARED_H
#define FS_SHARED_H

#include <limits.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#define SHARED_MAGIC 0x61657468u
#define SHARED_VERSION 1u

#define SHARED_INIT_MAX 256        /* bytes of a stored FUSE_INIT request (header + fuse_init_in is 104) */

/* ---- FUSE sessions ---- */
enum { SESSION_OVERLAY, SESSION_CONTROL, SESSION_COUNT };

struct shared_init {
	_Atomic uint32_t len; /* 0: the kernel has not sent INIT yet */
	unsigned char request[SHARED_INIT_MAX];
};

/* ---- overlay nodes: (parent, name) -> (device, inode), see fs/node.h ---- */
#define SHARED_NODE_MAX (4u << 20)
#define SHARED_NAME_BYTES (UINT64_C(512) << 20)

struct shared_node {
	_Atomic uint32_t state;      /* 0 free, 1 live */
	uint32_t generation;         /* of this index; the high half of the node id */
	_Atomic uint32_t parent;     /* index */
	uint32_t mode;               /* S_IFMT bits */
	_Atomic uint64_t name;       /* offset of the NUL-terminated name in the name area */
	uint64_t dev, ino;
	_Atomic uint64_t nlookup;    /* the kernel's references */
	_Atomic uint32_t unlinked;   /* 1: no name any more; reached by a descriptor that the keeper holds */
	uint32_t reserved;
};

/* ---- control file system: open handles and the versions they show, see fs/version.h ---- */
#define SHARED_HANDLE_MAX 1024
#define SHARED_VERSION_MAX 1024
#define SHARED_VERSION_SLOT 8192u   /* bytes; a version takes consecutive slots */
#define SHARED_VERSION_SLOTS 8192u  /* 64 MiB of sparse memory */

struct shared_version {
	_Atomic uint32_t state;     /* 0 free, 1 live */
	uint32_t file;              /* which file of the table; service index in the high bits */
	uint64_t ino;               /* unique for ever within the mount */
	uint32_t slot, slots;       /* where its bytes are */
	uint64_t size;              /* exact */
	int64_t mtime_ms;
	_Atomic uint32_t nlookup_lo; /* the kernel's references */
};

struct shared_handle {
	_Atomic uint32_t state;     /* 0 free, 1 live */
	uint32_t file;
	uint64_t ino;               /* the version opened */
	int32_t pid;                /* thread group of the opener */
	uint32_t flags;             /* O_ACCMODE, O_APPEND ... */
	_Atomic uint64_t poll;      /* the kernel's poll handle; 0: none */
	char command[64];
};

struct shared {
	uint32_t magic, version;
	_Atomic uint32_t server_generation; /* 1 for the first; restarts = this - 1 */
	_Atomic uint32_t ready;             /* both sessions answer */
	_Atomic uint64_t next_ino;          /* of the control file system */
	uint32_t options;                   /* enum mount_option bits */
	char root[PATH_MAX];
	char workspace[512];                /* jj's name; "" unknown */
	struct shared_init init[SESSION_COUNT];
	_Atomic uint32_t node_count;        /* high-water mark */
	_Atomic uint64_t name_used;         /* high-water mark */
	struct shared_version versions[SHARED_VERSION_MAX];
	struct shared_handle handles[SHARED_HANDLE_MAX];
	/* followed, at the offsets below, by the areas */
};

enum mount_option {
	MOUNT_LISTED = 1,       /* -o listed: readdir shows .env and .aether */
	MOUNT_ALLOW_OTHER = 2,
	MOUNT_CACHE_STRICT = 4, /* -o cache=strict: no caching beyond a request */
	MOUNT_PASSTHROUGH = 8,  /* -o io=passthrough */
	MOUNT_NO_PREWARM = 16
};

#define SHARED_PAGE(x) (((uint64_t)(x) + 4095) & ~UINT64_C(4095))
#define SHARED_NODES_AT SHARED_PAGE(sizeof(struct shared))
#define SHARED_NAMES_AT SHARED_PAGE(SHARED_NODES_AT + (uint64_t)SHARED_NODE_MAX * sizeof(struct shared_node))
#define SHARED_BYTES_AT SHARED_PAGE(SHARED_NAMES_AT + SHARED_NAME_BYTES)
#define SHARED_SIZE (SHARED_BYTES_AT + (uint64_t)SHARED_VERSION_SLOTS * SHARED_VERSION_SLOT)

static inline struct shared_node *shared_nodes(struct shared *s)
{
	return (struct shared_node *)((char *)s + SHARED_NODES_AT);
}
static inline char *shared_names(struct shared *s)
{
	return (char *)s + SHARED_NAMES_AT;
}
static inline char *shared_bytes(struct shared *s)
{
	return (char *)s + SHARED_BYTES_AT;
}

#endif
