/* Recipes: what is known of a well-known image. contrib/recipes/NAME.yaml, then the user's own in
 * $XDG_CONFIG_HOME/aether/recipes/ (which win). The format is documented in contrib/recipes/README.md.
 * Loaded once; immutable; any thread. */
#ifndef PROVISIONER_RECIPE_H
#define PROVISIONER_RECIPE_H

#include "provisioner/config.h"

struct recipe_init {
	char **argv;  /* templates */
	char *stdin_; /* template; NULL: none */
	char *when;   /* template; the step is left out when it expands to "" ; NULL: always */
};

struct recipe {
	char *name;        /* "postgres" */
	char **images;     /* repository names without registry, tag or digest: "postgres", "pgvector/pgvector" */
	uint16_t port;
	char *scheme;
	char *url;         /* template of NAME_URL */
	struct keyvals defaults;  /* template variables: user, password, database ...: templates over env.* */
	struct keyvals variables; /* DATABASE_URL, PGHOST ...: templates, for the first such service in the file */
	struct config_probe ready;
	char *stop_signal; /* "SIGINT"; NULL: SIGTERM */
	char *data_target; /* where the image keeps its data: mounts there are the data directory */
	/* as a host process */
	char **program_paths; /* globs of directories to look in for the programs, besides PATH, best first */
	char *program;        /* the file that must exist there */
	char *package;        /* template: what to install when it does not: "postgresql" */
	char *version_pattern;/* extended regex over the program's directory or `program --version`; group 1 is the major */
	char **version_argv;  /* NULL: the directory is matched */
	struct recipe_init *init;
	size_t n_init;
	char **command;       /* templates */
	struct keyvals process_env; /* templates: its whole environment */
	bool needs_unprivileged;
};

struct recipes; /* all of them */

/* `directories` is a NULL-terminated list, later ones win. new: recipes_free. */
int recipes_load(char *const *directories, struct recipes **ret, struct error *err);
void recipes_free(struct recipes *r);

/* Which recipe an image reference belongs to: registry, tag and digest are ignored. borrowed; NULL: none. */
const struct recipe *recipe_for_image(const struct recipes *r, const char *image);
/* borrowed; NULL: none */
const struct recipe *recipe_by_name(const struct recipes *r, const char *name);

/* The tag's leading number ("16-alpine" -> "16"); new; NULL when there is none. */
char *recipe_image_major(const char *image);

/* Looks for the recipe's program on this machine. new strings: the program's directory and major version (nearest to
 * `wanted`, which may be NULL). PROGRAM_NOT_FOUND names the package. May run `version_argv`: any thread, may block
 * for its run time; results are cached in the recipes object under a lock. */
int recipe_find_program(const struct recipes *rs, const struct recipe *r, const char *wanted, char **ret_dir, char **ret_major, struct error *err);

#endif
