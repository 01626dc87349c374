/* Which name the virtual file of a repository's workspaces has: `.env`, or where a commit tracks that one (as somebody may switch to any
 * time) the next of the list. A virtual `.env` in its way would have jj and git skip the tracked one and then record that it was deleted.
 * ajj asks jj or git and writes it down; everybody else reads. STATE/names/<16 hex of the repository>, one line each: the name, and by
 * what state of the repository that was found out; then the other env files that are tracked, for which there is no other name. */
#ifndef PROVISIONER_ENV_NAME_H
#define PROVISIONER_ENV_NAME_H

#include <stdbool.h>
#include <string.h>

#include "base/error.h"

#define ENV_NAME_DEFAULT ".env"

/* Best first, NULL at the end; the later are read after the earlier by those who read several (dotenv's convention). */
extern const char *const env_names[];

/* borrowed, one of env_names: the default where nothing is written down. `ret_state` (may be NULL): new, "" where there is none. */
const char *env_name_read(const char *shared_dir, const char *repository, char **ret_state);
int env_name_write(const char *shared_dir, const char *repository, const char *name, const char *state, char *const *tracked, struct error *err);
char **env_name_tracked(const char *shared_dir, const char *repository); /* new; NULL: none */

/* Is the tracked `.env` an ordinary file, beneath the lines of `name`? */
bool env_name_has_base(const char *name);

/* May a file of this name be one of x-aether.env_files? So that other names cost no second look. */
static inline bool env_name_is_possible(const char *name)
{
	size_t len = strlen(name);
	return len >= 4 && (!memcmp(name, ".env", 4) || !memcmp(name + len - 4, ".env", 4));
}

/* new: such a file's path as a name in one directory, with ':' for '/', which no such path has. */
char *env_name_flat(const char *path);

/* static: where the user's own file rests while ours really stands in its place (native.h). `name` is one of env_names. */
const char *env_name_own(const char *name);

#endif
