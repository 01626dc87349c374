/* Recipes: what is known of a well-known image. contrib/recipes/NAME.yaml, then the user's own in
 * $XDG_CONFIG_HOME/aether/recipes/ (which win). The format is documented in contrib/recipes/README.md.
 * Loaded once; immutable; any thread. */
#ifndef PROVISIONER_RECIPE_H
#define PROVISIONER_RECIPE_H

#include "provisioner/config.h"

#define RECIPE_VERSION_TIMEOUT_MS 5000 /* of `program --version` */

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
	struct keyvals beside_env;       /* for `ajj exec`, over `variables`: templates; an empty value is left out */
	struct keyvals beside_arguments; /* the same of programs that read no variables: name -> words, split as a shell would */
	struct config_probe ready;
	char *stop_signal; /* "SIGINT"; NULL: SIGTERM */
	char *data_target; /* where the image keeps its data: mounts there are the data directory */
	struct keyvals container_env; /* templates: what an image wants to be told, where the service's environment has no such name */
	char **container_adapt;       /* templates: run in the container on data that was made with other values; NULL: nothing can be done */
	char *container_adapt_as;     /* template: kept with the data, and the last argument of the next such run; NULL: none */
	/* as a host process */
	char **program_paths; /* globs of directories to look in for the programs, besides PATH, best first */
	char **programs;      /* files of which one must exist there, best first; also what `command:` may begin with */
	char *package;        /* template: what to install when it does not: "postgresql" */
	char *version_pattern;/* extended regex over the program's directory or `program --version`; group 1 is the major */
	char **version_argv;  /* NULL: the directory is matched */
	struct recipe_init *init;
	size_t n_init;
	struct recipe_init *adapt; /* of data that is there already: to what the templates say now */
	size_t n_adapt;
	char **command;       /* templates; {{args...}} is what the service's own `command:` adds (recipe_arguments) */
	char *seed_target;    /* the directory of the image whose scripts fill a new database; NULL: none */
	char **seed;          /* templates: runs them, from the directory {{scripts}} */
	struct keyvals seed_env; /* templates: over the service's own environment and process_env */
	struct keyvals process_env; /* templates: its whole environment */
	bool needs_unprivileged;
};

struct recipes; /* all of them */

/* `directories` is a NULL-terminated list, later ones win. new: recipes_free. */
int recipes_load(char *const *directories, struct recipes **ret, struct error *err);
/* The project's own and the user's. */
int recipes_load_default(struct recipes **ret, struct error *err);
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

/* What programs said of their versions is also kept in this file from now on, and taken from it: asking two of them costs tens of
 * milliseconds. A file that cannot be read or written is as good as none. Before the first recipe_find_program. */
void recipes_remember(struct recipes *rs, const char *path);

/* Which of the recipe's programs that directory holds: {{program}}. borrowed; NULL: none (any more) */
const char *recipe_program_in(const struct recipe *r, const char *directory);

/* What the service's `command` adds to the recipe's, for {{args...}}: `postgres -c x=1` and `-c x=1` both give {"-c","x=1"}.
 * *ret is new and never NULL. False when not all of it can be had so: another program, a shell's line, a file of the image. */
bool recipe_arguments(const struct recipe *r, const struct config_service *s, char ***ret);

/* False for a client of another server, made from the same image: its `command` or `entrypoint` names none of the recipe's programs, and it
 * has neither the recipe's port nor, where a script is started, a health check or a mount where a server has its data. */
bool recipe_serves(const struct recipe *r, const struct config_service *s);
/* Does the service publish, expose or answer on it? */
bool recipe_has_its_port(const struct recipe *r, const struct config_service *s);
/* The recipe of its image where it serves. borrowed; NULL: none */
const struct recipe *recipe_for_service(const struct recipes *rs, const struct config_service *s);

/* The value of one of them, for {{args.NAME}}: --NAME value, --NAME=value, -c NAME=value; the last wins. borrowed; NULL: none */
const char *recipe_argument(char *const *args, const char *name);

#endif
