/* The variables of a workspace: the layers of DESIGN section 8 laid over each other. Pure functions of text; any thread.
 *
 * Later ones win: the main checkout's `.env`, the workspace's own lines, what is generated. A generated variable is
 * either imposed (x-aether.env, x-aether.ports, AETHER_*) or offered (a recipe's, NAME_URL and the like: set where no
 * layer sets it). A user's value that names a service is rewritten, see rewrite.h.
 */
#ifndef PROVISIONER_ENVSET_H
#define PROVISIONER_ENVSET_H

#include <stdbool.h>

#include "base/strv.h"
#include "provisioner/rewrite.h"

enum env_layer { ENV_MAIN, ENV_OWN, ENV_SERVICE, ENV_IMPOSED };

struct env_entry {
	char *key;
	enum env_layer layer; /* whose value it is */
	char *value;          /* expanded by Compose's rules: what env.json holds */
	char *statement;      /* how it stands in the generated block, whole lines; NULL: KEY=value, quoted as need be */
	bool own_line;        /* it stands in the workspace's own text, and not in the block */
	bool overrides;       /* an imposed one that the user's layers set too */
	char *before;         /* what the user's layers say, expanded; NULL: nothing, or the same */
	char *service;        /* that a user's value was turned to; NULL: none */
};

struct envset {
	struct env_entry *items; /* in the order of the block: no line refers to a later one of the block */
	size_t count;
};

struct envset_params {
	const char *main, *own;         /* texts; NULL: none */
	const struct keyvals *offered, *imposed;
	const struct rewrite_map *map;  /* NULL: nothing is rewritten */
};

void envset_make(const struct envset_params *params, struct envset *ret);
void envset_release(struct envset *set);
#define cleanup_envset __attribute__((cleanup(envset_release)))

const struct env_entry *envset_find(const struct envset *set, const char *key); /* borrowed; NULL: none */

void envset_values(const struct envset *set, struct keyvals *out); /* adds them all, expanded */
/* The user's layers alone, expanded. Texts may be NULL. */
void envset_user(const char *main, const char *own, struct keyvals *out);

/* "main", "workspace", "service", "configuration" */
const char *env_layer_name(enum env_layer layer);

#endif
