/* Workspaces without the overlay (`-o overlay=off`) and without FUSE (`ajj up --plain`): what is really placed in the directory, and taken
 * away without a trace.
 *
 *   .aether     a link to the control file system; plain: a directory of real files
 *   .env        (or as id->env_name says) the link `.aether/env`; plain: the text itself, marked
 *   .env.user   the user's own file rests there meanwhile (env_name_own), as it is: a link stays a link
 *
 * All three are kept out of git and jj by info/exclude. The directory is known by its descriptor; `.aether` is followed by nobody here. Whoever
 * calls holds the environment's keeper.lock, or is its server. Any thread.
 */
#ifndef PROVISIONER_NATIVE_H
#define PROVISIONER_NATIVE_H

#include <stdbool.h>
#include <stdint.h>

#include "provisioner/identity.h"

#define NATIVE_DIRECTORY ".aether"

enum native_kind {
	NATIVE_NONE,
	NATIVE_LINKS, /* overlay=off */
	NATIVE_PLAIN,
	NATIVE_COPY /* of a plain one: made elsewhere, or unpacked; served by nobody, and taken away as a plain one is */
};

/* What `.aether` says; whether anybody serves it is another question. */
enum native_kind native_find(int root_fd);
/* The same by path. */
enum native_kind native_find_at(const char *root);

/* Puts the user's own file aside and places what `kind` has. What is left of an earlier one is taken away first. MOUNT_FAILED where something of the
 * user's has one of the names. */
int native_place(const struct identity *id, int root_fd, enum native_kind kind, struct error *err);

/* The links again, where they are missing; a file or link of the user's in the place of ours is put aside, over what rested there. */
int native_place_links(const struct identity *id, int root_fd, struct error *err);

/* `.aether` of a plain workspace, which is known by it. */
int native_make_directory(int root_fd, struct error *err);

/* Of a plain workspace: id->env_name is another since. The file under the old name is as it was; under the new one, there is none. */
int native_rename_env(const struct identity *id, int root_fd, struct error *err);

/* The directory as it was: the user's own file under its name. Lines that were written into a plain `.env` since are kept. */
int native_take_away(int root_fd, struct error *err);

/* To the server of a plain workspace: a stream socket, SOCKET_DIR/ctl. It takes one line, of those of `ctl`, `demand` or `look`, and answers with one JSON object on
 * a line when that is done: {} or the error. Before any of them, what was written into `.env` is taken in; after it, the files tell what is true then, `look` is that alone. `hold SERVICE` starts nothing and answers with what its `exec` would hold (beside_service.h). Who stays connected after a demand, or a hold, has a lease. A descriptor (close-on-exec), or -errno: there is none. */
int native_connect(const struct identity *id);
#define NATIVE_SOCKET "ctl"
#define NATIVE_LINE_MAX 65536
#define NATIVE_DEMAND "demand"
#define NATIVE_LOOK "look"
#define NATIVE_HOLD "hold "

/* Was the user's own file written after the plain `.env`? Then that holds older lines, of a server that was killed before it saw the new ones. */
bool native_own_is_newer(int root_fd, const char *name, const char *own);

/* Is `.env` the link that we placed? */
bool native_env_is_ours(const struct identity *id, int root_fd);

#endif
