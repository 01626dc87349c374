/* What the files of the control file system share: control.c (names and attributes), control_open.c (opens and demands),
 * control_write.c (what is written), control_watch.c (who is told). Loop thread alone. */
#ifndef FS_CONTROL_PRIVATE_H
#define FS_CONTROL_PRIVATE_H

#include "fs/control.h"
#include "fs/control_files.h"
#include "fs/version.h"

#define CONTROL_INO_SERVICES 2
#define CONTROL_TEXT_MAX (1u << 20)   /* bytes that can be written over `env` */
#define CONTROL_COMMAND_MAX 4096u     /* bytes of one command */
#define CONTROL_PARKED_MAX 1024       /* requests that wait; beyond: EAGAIN */
#define CONTROL_SIGNAL_MS 50          /* how often an interrupted request's thread is looked at */
#define CONTROL_TELL_DELAY_MS 100     /* from a change until watchers are told */
#define CONTROL_TELL_INTERVAL_MS 1000 /* at most once in this time */
#define CONTROL_TELL_MAX 64           /* files told at once */
#define CONTROL_LOG_POLL_MS 200       /* how often a log is looked at while somebody polls it */
#define CONTROL_SETTLE_MS 2000        /* how long names wait for the first configuration */
#define CONTROL_RETRIES 16            /* opens answered ESTALE that are remembered */
#define CONTROL_RETRY_MS 2000

/* A request that waits for the environment: an open, or a write to `ctl`. */
struct parked {
	struct parked *next, **link;
	struct control *c; /* NULL: answered already, only the end of its command is awaited */
	fuse_req_t req;
	fuse_ino_t ino;
	uint64_t file;
	struct fuse_file_info fi;
	size_t size; /* of a command's write */
	struct requester who;
	pid_t tid;
	struct demand *demand; /* NULL: a command */
	bool interrupted, resent;
};

/* A request that came before the environment knew its services: the arguments of its operation. */
struct delayed {
	struct delayed *next;
	void (*run)(struct control *c, struct delayed *d);
	fuse_req_t req;
	fuse_ino_t ino;
	char *name;
	size_t size;
	off_t offset;
	struct fuse_file_info fi;
	bool resent;
};

/* What this server knows of a version; by version_index(). */
struct control_view {
	bool stale; /* something changed since it was rendered */
	bool seen;  /* somebody looked it up, so somebody may be watching */
	uint64_t rendered_ms;
};

/* An open that was answered ESTALE: the same thread comes again at once, and then gets what its lookup found. */
struct control_retry {
	pid_t tid;
	uint64_t file;
	uint64_t until_ms;
};

/* A file of which somebody saw the version `ino` that has been replaced. 0: nobody need have seen any */
struct control_told {
	uint64_t file;
	uint64_t ino;
};

enum control_telling { TELL_NOTHING, TELL_TOUCH_OLD, TELL_DELETE, TELL_TOUCH };

struct control {
	struct control_params p;
	struct environment *env;
	struct session *session;
	struct versions *versions;
	struct control_view views[SHARED_VERSION_MAX];
	int64_t mounted_ms; /* wall clock: mtime of the directories */

	struct parked *parked;
	size_t parked_count;
	struct control_retry retries[CONTROL_RETRIES];
	size_t next_retry;
	uv_timer_t signal_timer;

	bool settled; /* the environment has read its configuration */
	struct delayed *delayed, **delayed_tail;
	size_t delayed_count;
	uv_timer_t settle_timer;

	uv_timer_t log_timer;
	uv_timer_t tell_timer;
	unsigned untold; /* changes of which nobody was told since the mount */
	uint64_t told_ms;
	enum control_telling telling;
	struct control_told tell[CONTROL_TELL_MAX], pending[CONTROL_TELL_MAX]; /* being told; to be told */
	size_t tell_count, pending_count;
	uv_process_t helper;
	bool helper_runs;

	unsigned uv_handles; /* not closed yet */
	bool closing;
};

#define CONTROL_FOREVER_S (365 * 86400.0)

/* ---- control.c ---- */
bool control_allows(const struct control *c, fuse_req_t req);
/* The version that a lookup finds now, rendered if need be. `err` is set when there was nothing to render (the text is
 * empty then), which is no failure here; -errno when no version could be made, -ESTALE when the service is gone. */
int control_refresh(struct control *c, uint64_t file, bool force, struct shared_version **ret, struct error *err);
void control_attr(struct control *c, struct shared_version *version, struct stat *ret);
void control_directory_attr(const struct control *c, uint64_t ino, struct stat *ret); /* the root and `services` */
void control_scratch_attr(const struct control *c, const struct shared_scratch *s, struct stat *ret);
void control_entry(struct control *c, struct shared_version *version, struct fuse_entry_param *ret);
void control_scratch_entry(struct control *c, const struct shared_scratch *s, struct fuse_entry_param *ret);
void control_stale(struct control *c, unsigned what);
bool control_is_lease(const struct shared_handle *h);
void control_closed(struct control *c); /* the last libuv handle is closed */

/* ---- control_delay.c ---- */
/* True: the request waits until the environment is settled, and `run` then answers it. `name` and `fi` may be NULL. */
bool control_delay(struct control *c, const struct delayed *d, const char *name, const struct fuse_file_info *fi);
void control_settle(struct control *c);
void control_settle_now(uv_timer_t *timer);
void control_delay_end(struct control *c);

/* ---- control_names.c ---- */
/* The name by which fs/unlinked.h knows a file of the root. `buf` holds it. */
#define CONTROL_HIDDEN_NAME 64
const char *control_hidden_name(const struct control_file *file, char buf[CONTROL_HIDDEN_NAME]);
void control_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void control_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count);
void control_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void control_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void control_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
void control_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void control_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void control_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to_parent, const char *to,
                    unsigned flags);
void control_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t dev);
void control_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void control_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void control_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name);

/* ---- control_open.c ---- */
void control_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void control_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
void control_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
void control_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
/* NULL: -ENFILE. `ino` is a version's or a scratch file's. */
struct shared_handle *control_handle(struct control *c, uint64_t file, uint64_t ino, const struct fuse_file_info *fi,
                                     const struct requester *who, pid_t tid);

/* ---- control_park.c ---- */
/* Takes its place among those that wait; false when there are too many. steals `p` when true */
bool control_park(struct control *c, struct parked *p);
void control_unpark(struct parked *p); /* frees nothing */
/* Is a command being carried out through this inode? */
bool control_busy(const struct control *c, fuse_ino_t ino);
void control_park_signals(uv_timer_t *timer);
void control_park_end(struct control *c);
/* Would one of the signals that end a program be delivered now? `status` is the text of /proc/TID/status. */
bool control_signal_ends(const char *status);

/* ---- control_write.c ---- */
int control_write_begin(struct control *c, struct shared_handle *h, const struct shared_version *version);
void control_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t offset, struct fuse_file_info *fi);
void control_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
int control_write_end(struct control *c, struct shared_handle *h, unsigned touched);
int control_truncate(struct control *c, fuse_ino_t ino, pid_t tid, uint64_t size, struct fuse_file_info *fi);
int control_replace_env(struct control *c, const char *owner, const char *text, size_t len); /* owner: of an env file; NULL: `env` */

/* ---- control_watch.c ---- */
void control_poll(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct fuse_pollhandle *ph);
void control_wake(struct control *c, unsigned what);
void control_tell(struct control *c, unsigned what);
/* A version that somebody has seen was replaced: who watches is told with the next. */
void control_tell_of(struct control *c, struct control_told told);
void control_tell_now(uv_timer_t *timer);
void control_log_look(uv_timer_t *timer);
/* While the helper touches the old version of a file, its lookups find that one. NULL: as everybody's */
struct shared_version *control_told_version(struct control *c, fuse_req_t req, uint64_t file);
bool control_is_helper(const struct control *c, fuse_req_t req);
void control_watch_end(struct control *c);

#endif
