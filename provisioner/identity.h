/* Who an environment is and where its things live. Pure look-ups: nothing is created here but by identity_make_dirs.
 *
 * identity = repository + workspace + path; namespace = "aether-<8 hex of repository and path>-<name>", the name reduced
 * to [a-z0-9-], at most 40 characters. The repository is found without running jj or git: `.jj/repo` (a directory in
 * the main workspace; a file holding a path relative to `.jj/` in the others; jj 0.39+), else `.git` (a directory, or a
 * file "gitdir: ..." with `commondir`), else the directory itself.
 *
 * A directory that was moved while it was not mounted is known again, keeps the namespace that it was registered with, and with that its data:
 * by its inode number and birth time together (an inode number alone is soon another's), else, in jj, by repository and
 * name when nothing stands at the old place any more.
 *
 * Directories:
 *   runtime  AETHER_RUNTIME_DIR, else $XDG_RUNTIME_DIR/aether, else /tmp/aether-UID (0700, owner checked); root: /run/aether (0711)
 *   state    AETHER_STATE_DIR, else $XDG_STATE_HOME/aether, else ~/.local/state/aether; root: /var/lib/aether (0711)
 */
#ifndef PROVISIONER_IDENTITY_H
#define PROVISIONER_IDENTITY_H

#include <stdbool.h>

#include "base/error.h"

enum workspace_kind { WORKSPACE_PLAIN, WORKSPACE_GIT, WORKSPACE_JJ };

struct identity {
	enum workspace_kind kind;
	char *root;        /* absolute, canonical path of the workspace */
	char *repository;  /* absolute path that all workspaces of the repository share (jj: .jj/repo; git: the common dir; plain: root) */
	char *main_root;   /* the main checkout's directory; equal to root there and in a plain directory, NULL where there is none */
	char *workspace;   /* jj's name where known, else the base name of root */
	char *namespace_;
	char *root_id;     /* "INODE:BIRTH" of the directory beneath; NULL: unknown, or its file system has no birth times */
	char *runtime_dir; /* RUNTIME */
	char *control_dir; /* RUNTIME/NAMESPACE: mount point of the control file system */
	char *socket_dir;  /* RUNTIME/s-<8 hex>: a directory for each service's Unix sockets (at most 71 bytes; below /tmp/aether-UID where RUNTIME is too long) */
	char *state_dir;   /* STATE/ns/NAMESPACE */
	char *shared_dir;  /* STATE: aether.db, trash/, templates/, ns/ */
	bool native;       /* ours really stands in the workspace, and the user's own file beside it (native.h): only its server says so */
	_Atomic(const char *) env_name; /* static: what the virtual `.env` of this repository is called (env_name.h); the server's own may change */
};

/* `path` may be any directory; it is the workspace root itself. `workspace` names it, NULL: found or derived. Asks the mount and
 * the registry under which namespace it is known. */
int identity_of(const char *path, const char *workspace, struct identity *ret, struct error *err);

/* The same for a directory that is already open, as the server's own is, beneath its mount: `root` is its canonical path and is
 * not looked at, nor is anything below it by path. `namespace_` is what identity_of found; NULL: by the rule above. */
int identity_of_fd(int root_fd, const char *root, const char *workspace, const char *namespace_, struct identity *ret, struct error *err);

/* new: "INODE:BIRTH" of a directory (`path` "": the descriptor's own); NULL */
char *identity_root_id(int dirfd, const char *path);
/* new: the namespace by the rule; from `salt` 1 on the next ones, for a directory at a place whose first owner moved on */
char *identity_namespace(const struct identity *id, unsigned salt);
/* new: the namespace that this directory is registered under, or shall be. `id` has all that does not follow from it. */
int identity_registered(const struct identity *id, char **ret, struct error *err);
/* Writes down where a moved one is now. Only with the environment's lock. */
int identity_settle(const struct identity *id, struct error *err);

/* The same from what the registry keeps: nothing is looked at, for the directory may be gone. The kind is unknown and said to be PLAIN. */
int identity_stored(const char *namespace_, const char *root, const char *repository, const char *workspace, struct identity *ret,
                    struct error *err);

/* Walks up from `path` to the nearest directory that is a workspace root (has .jj or .git), else NOT_A_REPOSITORY.
 * new: absolute path. */
int identity_find_root(const char *path, char **ret_root, struct error *err);

/* Creates runtime_dir, control_dir, socket_dir, state_dir, shared_dir with their modes, and refuses a runtime
 * directory that another user owns or that is a link. */
int identity_make_dirs(const struct identity *id, struct error *err);

/* new: the directories alone (for `ajj list`, `cleanup`). */
int identity_runtime_dir(char **ret, struct error *err);
int identity_shared_dir(char **ret, struct error *err);

/* static: the name of the file with the user's own lines */
const char *identity_own_name(const struct identity *id);

void identity_release(struct identity *id);

#endif
