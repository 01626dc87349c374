/* THE table of virtual files: what is in `.aether/` and in `.aether/services/NAME/`, and by which rules each behaves.
 * Adding a virtual file is one line of the table and one function. */
#ifndef FS_CONTROL_FILES_H
#define FS_CONTROL_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "fs/version.h"
#include "provisioner/environment.h"

enum control_place { IN_ROOT, IN_SERVICE, IN_ENV_FILES /* in the root, too: one for each of x-aether.env_files */ };
/* What an open for reading waits for. An open demand file is a lease; DEMAND_HELD is one that waits for nothing and starts nothing. */
enum control_demand { DEMAND_NONE, DEMAND_HELD, DEMAND_ENVIRONMENT, DEMAND_SERVICE, DEMAND_FILE };
enum control_write {
	WRITE_REFUSED, /* EACCES */
	WRITE_TEXT,    /* collected, applied at close to the user's own lines */
	WRITE_COMMAND  /* each write(2) is one command, answered when it is done */
};
enum control_unlink {
	UNLINK_REFUSED,     /* EPERM */
	UNLINK_ENVIRONMENT, /* asks for the teardown of everything */
	UNLINK_ERRORS       /* clears */
};
enum control_poll {
	POLL_ALWAYS, /* as a regular file: always ready */
	POLL_UNREAD, /* ready when there is more than was read */
	POLL_CHANGED /* ready when the file is another one than was opened */
};

/* A file that grows at its end. Offsets are those of everything ever appended; `node` keeps what must outlive a server. */
struct control_growing {
	uint64_t (*size)(struct environment *e, const char *service, struct shared_version *node);
	/* Bytes from *offset on; where they were dropped already, from the oldest kept, and *offset says where that is. */
	size_t (*read)(struct environment *e, const char *service, struct shared_version *node, uint64_t *offset, char *buf,
	               size_t size);
	bool timed; /* nobody says when it grows: it is looked at while somebody polls */
};

struct control_file {
	const char *name;
	enum control_place place;
	mode_t mode;
	enum control_demand demand;
	enum control_write write;
	enum control_unlink unlink;
	enum control_poll poll;
	unsigned refreshed_by; /* enum environment_change */
	unsigned max_age_ms;   /* rendered again when older, at a lookup; 0: only when it changed */
	/* Exactly one of these. A versioned file appends its text to `out`; `service` is NULL in the root, and an env file's path. */
	int (*render)(struct environment *e, const char *service, struct buffer *out, struct error *err);
	const struct control_growing *growing;
};

/* Index of the table's first entry in shared_version.file; what stands before are directories. */
enum { CONTROL_DIR_SERVICE = 0, CONTROL_FILE_FIRST = 1 };

extern const struct control_file control_files[];
extern const size_t control_files_count;

const struct control_file *control_file_find(enum control_place place, const char *name); /* NULL: none */

/* What an env file at a path is called in the root: "env:apps:api:.env". new */
#define CONTROL_ENV_FILE_PREFIX "env:"
char *control_env_file_name(const char *path);
/* A file of the root by its name; `*ret_owner` (borrowed) is the path of an env file, else NULL. NULL: none */
const struct control_file *control_root_file(struct environment *e, const char *name, const char **ret_owner);

/* shared_version.file: hash of the owner, a service's name or an env file's path (0 in the root) << 8 | index. */
uint64_t control_file_key(const struct control_file *file, const char *service);
uint64_t control_dir_key(const char *service);
const struct control_file *control_file_of(uint64_t key); /* NULL: a directory */
/* The service or env file whose key this is, as the environment lists it; NULL: none (any more), or in the root. borrowed */
const char *control_service_of(struct environment *e, uint64_t key);

/* new: its path below `.aether`; NULL: it has none any more */
char *control_file_path(struct environment *e, uint64_t key);

/* fs/control_log.c: the log file of a service, over rotation */
extern const struct control_growing control_log;

#endif
