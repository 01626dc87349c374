/* Files that a new workspace lacks: `.worktreeinclude` of the main checkout, in gitignore's syntax, names them. What it matches and
 * git or jj ignores is cloned into the workspace (by reflink where the file system can), never over what is there and never through
 * a link. The main checkout's own `.env` is none of them: it is a layer of every workspace's. */
#ifndef CLI_INCLUDE_H
#define CLI_INCLUDE_H

#include <jansson.h>

#include "cli/client.h"

#define INCLUDE_FILE ".worktreeinclude"
#define INCLUDE_PATHS_MAX 100 /* that the JSON answer names; the count is always whole */

struct include {
	char *hash;      /* of the text that was done; NULL: there is nothing to do, or it did not come to an end */
	json_t *answer;  /* {"from","files","bytes","existing","failed","paths"}; NULL: nothing was copied or looked for */
};

#define INCLUDE_INIT {NULL, NULL}

/* mounting_attach, and the copying, with a line of progress on a terminal and one at the end. Once for a workspace and a text: what the user
 * deleted since does not come back. What fails of it is a warning. `ret` is to be released in any case. */
int include_and_attach(struct client *c, const char *options, bool *ret_mounted, struct include *ret, struct error *err);
void include_release(struct include *done);
#define cleanup_include __attribute__((cleanup(include_release)))

#endif
