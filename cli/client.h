/* An environment as ajj sees it: a directory, and files in it. There is no protocol: ROOT is covered by the overlay, and
 * RUNTIME/NAMESPACE is the control file system, whose files are read and written like any other (DESIGN section 1).
 * The kernel's mount table says what is mounted. Main thread; calls block.
 */
#ifndef CLI_CLIENT_H
#define CLI_CLIENT_H

#include <jansson.h>
#include <stdbool.h>

#include "base/buffer.h"
#include "provisioner/identity.h"
#include "provisioner/native.h"

#define CLIENT_FILE_MAX (16u << 20) /* bytes of a file that is read */

struct client {
	struct identity id;
	bool mounted;  /* it is served: the overlay is over id.root, or `native` */
	enum native_kind native; /* ... without an overlay: links and the control file system alone, or real files (provisioner/native.h) */
	bool dead;     /* and nobody serves it any more; `id` is from the registry then */
	bool hung;     /* or its server does not answer: nothing may be asked there. Of client_refresh() alone, the others refuse it */
	char *control; /* where the control file system is; id.control_dir unless the workspace was renamed since */
};

#define CLIENT_INIT {.mounted = false}

/* The environment that `directory` (NULL: the working directory) belongs to: the nearest directory at or above it that
 * is mounted by us or is a workspace's root; where there is none, that directory itself. */
int client_find(const char *directory, struct client *ret, struct error *err);
/* The environment of exactly this directory. */
int client_of(const char *root, const char *workspace, struct client *ret, struct error *err);
/* Looks at the mount table again. */
void client_refresh(struct client *c);
/* NOT_MOUNTED, with how to mount it, unless it is. */
int client_need_mounted(const struct client *c, struct error *err);
/* The one of the working directory, mounted. */
int client_find_mounted(struct client *ret, struct error *err);
void client_release(struct client *c);
#define cleanup_client __attribute__((cleanup(client_release)))

/* Appends what the file holds now. -errno as the file gave it; `err` has the whole story where errors.json tells it. */
int client_read(const struct client *c, const char *file, struct buffer *out, struct error *err);
/* new; never provisions and never waits for a backend. */
int client_status(const struct client *c, json_t **ret, struct error *err);
/* Opens a demand: returns when it is ready. A descriptor (close-on-exec), whose being open is the lease. */
int client_demand(const struct client *c, const char *file, struct error *err);
/* Opens a demand and appends what it says: the descriptor is the lease. */
int client_hold(const struct client *c, const char *file, struct buffer *out, struct error *err);
/* One line for `ctl`; returns when it is done. */
int client_command(const struct client *c, const char *line, struct error *err);

/* pid of the process that keeps the mount, from status.json; 0 unknown */
pid_t status_keeper(const json_t *status);

/* Does the working directory lie beneath the mount: entered before it was mounted? (`cd .` leads out.) */
bool client_stands_beneath(const struct client *c);
/* Says so. */
void client_note_beneath(const struct client *c);
/* Takes this process, which is about to become another program, out of there. */
void client_enter_mount(const struct client *c);

#endif
