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
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define SHARED_MAGIC 0x61657468u
#define SHARED_VERSION 2u

#define SHARED_INIT_MAX 256        /* bytes of a stored FUSE_INIT request (header + fuse_init_in is 104) */
#define SHARED_REQUEST_BYTES ((1u << 20) + 4096) /* for which a read of /dev/fuse must have room; libfuse's: 256 pages and the header of a write */

/* ---- FUSE sessions ---- */
enum { SESSION_OVERLAY, SESSION_CONTROL, SESSION_COUNT };

struct shared_init {
	_Atomic uint32_t len; /* 0: the kernel has not sent INIT yet */
	unsigned char request[SHARED_INIT_MAX];
};

/* What each thread of a server is handling, so that a request that kills servers is found out: see session.c. */
#define SHARED_WORKERS 16
#define SHARED_SUSPECTS 64

struct shared_suspect {
	uint64_t unique; /* without FUSE_UNIQUE_RESEND; 0: none */
	uint32_t session;
	uint32_t deaths; /* of servers that were handling it */
};

/* ---- overlay nodes: (parent, name) -> (device, inode), see fs/node.h ---- */
#define SHARED_NODE_MAX (4u << 20)
#define SHARED_NAME_BYTES (UINT64_C(512) << 20)

struct shared_node {
	_Atomic uint32_t state;      /* enum shared_node_state */
	_Atomic uint32_t generation; /* of this index; the high half of the node id */
	_Atomic uint32_t parent;     /* index */
	uint32_t mode;               /* S_IFMT bits */
	_Atomic uint64_t name;       /* offset of the NUL-terminated name in the name area */
	uint64_t dev, ino;
	_Atomic uint64_t nlookup;    /* the kernel's references; of NODE_ALIAS: the index of the node */
	_Atomic uint32_t unlinked;   /* enum shared_node_unlinked */
	uint32_t reserved;
};
enum shared_node_state {
	NODE_FREE,
	NODE_LIVE,
	NODE_ALIAS /* one more name of a node with several hard links */
};
enum shared_node_unlinked {
	NODE_NAMED,
	NODE_UNLINKED, /* no name any more; reached by a descriptor that the keeper holds */
	NODE_REPLACES_ENV /* the same; its text becomes the user's lines of .env once it is closed */
};

/* The rename under way, written before the system call and cleared after the records follow it, so that a server that finds one can
 * tell from the files which of the two it was. There is one at a time. */
struct shared_rename {
	_Atomic uint32_t state; /* 1: under way */
	uint32_t exchange;
	uint32_t record[2];     /* of what moves from 0 to 1, and (exchange) of what moves from 1 to 0; 0: none */
	uint32_t parent[2];     /* old and new place */
	uint64_t name[2];
};

/* ---- removal of the workspace through its own mount, see fs/removal.h ---- */
#define SHARED_REMOVERS 8

/* What one process did to the names in the root that matter. Written while the kernel holds the root's lock. */
struct shared_remover {
	_Atomic uint32_t what; /* enum removal_bit; 0: free */
	int32_t tgid;
	uint64_t began;        /* when the process began (clock ticks since boot): its number may be given away again */
};

struct shared_removal {
	_Atomic uint32_t begun; /* by tgid; there is no way back once the mounts are detached */
	_Atomic int32_t tgid;
	uint32_t next;
	struct shared_remover removers[SHARED_REMOVERS];
};

/* ---- control file system: open handles and the versions they show, see fs/version.h ---- */
#define SHARED_HANDLE_MAX 1024
#define SHARED_VERSION_MAX 1024
#define SHARED_SCRATCH_MAX 64
#define SHARED_VERSION_SLOT 8192u   /* bytes; a version takes consecutive slots */
#define SHARED_VERSION_SLOTS 8192u  /* 64 MiB of sparse memory */

/* Bytes in consecutive slots; `place` is slot << 32 | slots, 0 while it has none, and moves by one store. */
struct shared_blob {
	_Atomic uint64_t place;
	_Atomic uint64_t size;
};

struct shared_version {
	_Atomic uint32_t state;     /* enum shared_version_state */
	uint32_t reserved;
	uint64_t file;              /* hash of the service's name << 8 | index in the table; see fs/control_files.h */
	uint64_t ino;               /* unique for ever within the mount */
	struct shared_blob bytes;   /* exact; of a growing file its size as last seen, and no bytes */
	int64_t mtime_ms;
	_Atomic uint64_t nlookup;   /* the kernel's references */
	/* a growing file over files that are rotated: where in its bytes the present and the previous one begin, and which they are */
	_Atomic uint64_t base, lower, previous_base, previous_lower;
};
enum shared_version_state {
	VERSION_FREE,
	VERSION_LIVE,   /* what a lookup of the name finds */
	VERSION_RETIRED /* a later one has its name */
};

struct shared_handle {
	_Atomic uint32_t state;     /* enum shared_handle_state */
	uint32_t generation;        /* of this index; the high half of fh */
	uint64_t file;
	uint64_t ino;               /* the version opened */
	int32_t pid, tid;           /* thread group and thread of the opener */
	uint32_t flags;             /* O_ACCMODE, O_APPEND ... */
	uint32_t server;            /* server_generation that opened it */
	_Atomic uint64_t poll;      /* the kernel's poll handle; 0: none */
	_Atomic uint64_t position;  /* end of what was read so far */
	_Atomic int64_t skip;       /* added to its offsets: what was dropped from the beginning of a growing file */
	_Atomic uint32_t touched;   /* enum shared_handle_touched */
	uint32_t reserved;
	struct shared_blob text;    /* what is being written */
	char command[64];
};
enum shared_handle_state {
	HANDLE_FREE,
	HANDLE_LIVE,
	HANDLE_ANSWERING /* its open is about to be answered: after a crash the same open may come again */
};
enum shared_handle_touched {
	HANDLE_WRITTEN = 1,   /* and not applied yet */
	HANDLE_TRUNCATED = 2, /* nor this */
	HANDLE_WHOLE = 4      /* `text` is the whole file; else it is what is appended to it */
};

/* An editor's file. */
struct shared_scratch {
	_Atomic uint32_t state; /* enum shared_scratch_state */
	uint32_t mode;
	uint64_t ino;
	int64_t mtime_ms;
	struct shared_blob text;
	_Atomic uint64_t nlookup;
	char name[2][256]; /* which one counts is in `state`, so that a rename is one store */
};
enum shared_scratch_state { SCRATCH_FREE, SCRATCH_NAME0, SCRATCH_NAME1, SCRATCH_NAMELESS };

struct shared {
	uint32_t magic, version;
	_Atomic uint32_t server_generation; /* 1 for the first; restarts = this - 1 */
	_Atomic uint32_t ready;             /* both sessions answer */
	_Atomic uint64_t next_ino;          /* of the control file system */
	uint32_t options;                   /* enum mount_option bits */
	char root[PATH_MAX];
	char namespace_[128];               /* of the environment: a directory that was moved keeps it */
	char workspace[512];                /* jj's name; "" unknown */
	struct shared_init init[SESSION_COUNT];
	_Atomic uint32_t faulted;           /* set by the keeper: the last server died by a fault of its own, not by a kill */
	_Atomic uint64_t handling[SESSION_COUNT][SHARED_WORKERS]; /* unique; 0: nothing */
	struct shared_suspect suspects[SHARED_SUSPECTS];
	uint32_t suspect_next;
	_Atomic uint32_t node_count;        /* high-water mark */
	_Atomic uint64_t name_used;         /* high-water mark */
	_Atomic uint32_t version_count, handle_count, scratch_count; /* high-water marks: reading a hole would fill it */
	struct shared_rename rename;
	struct shared_removal removal;
	struct shared_version versions[SHARED_VERSION_MAX];
	struct shared_handle handles[SHARED_HANDLE_MAX];
	struct shared_scratch scratch[SHARED_SCRATCH_MAX];
	/* followed, at the offsets below, by the areas */
};

enum mount_option {
	MOUNT_LISTED = 1,       /* -o listed: readdir shows .env and .aether */
	MOUNT_ALLOW_OTHER = 2,
	MOUNT_CACHE_STRICT = 4, /* -o cache=strict: no caching beyond a request */
	MOUNT_PASSTHROUGH = 8,  /* -o io=passthrough */
	MOUNT_NO_PREWARM = 16,
	MOUNT_NO_OVERLAY = 32,  /* -o overlay=off: the control file system alone, and links to it (provisioner/native.h) */
	MOUNT_PLAIN = 64        /* -o plain: nothing is mounted at all; real files, kept as they should be */
};

/* Is that one of the two mounts that a workspace of these options has? */
static inline bool session_is_wanted(uint32_t options, int which)
{
	return !(options & MOUNT_PLAIN) && (which == SESSION_CONTROL || !(options & MOUNT_NO_OVERLAY));
}

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
