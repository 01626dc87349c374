/* The configuration: a Compose file (https://github.com/compose-spec/compose-spec, 13-merge and 05-services) plus
 * `x-aether` blocks, read by libfyaml. Immutable after config_load; safe to load on any thread.
 *
 * Looked for in order: aether.yaml, compose.yaml, compose.yml, docker-compose.yaml, docker-compose.yml; in the workspace,
 * then in the main checkout, then (for a plain directory) upwards; on it, compose.override.yaml and its kind beside it or in the
 * main checkout. On top, by Compose's merge rules, aether.local.yaml of the main checkout, then of the workspace. `x-aether.compose`
 * of one of them names the files that lie beneath instead, from the workspace or else the main checkout; else, where the workspace
 * has no aether.yaml, COMPOSE_FILE of the user's `.env`. Errors are CONFIG_INVALID with "file:line:column: what was expected" in the message and
 * details {"file","line","column"}. Warnings never fail.
 */
#ifndef PROVISIONER_CONFIG_H
#define PROVISIONER_CONFIG_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backends/build.h"
#include "backends/container.h"
#include "base/error.h"
#include "base/strv.h"

#define CONFIG_FILE_MAX (4u << 20)      /* bytes of one file */
#define CONFIG_VALUE_MAX (1u << 20)     /* bytes of one value after interpolation */
#define CONFIG_WORDS_MAX 10000u         /* words of one command */
#define CONFIG_EXPANDED_MAX 200000u     /* nodes after aliases are expanded: the guard against alias bombs */

struct config_port {
	uint16_t internal;
	uint16_t published; /* 0: none asked for */
	char *protocol;     /* "tcp" or "udp" */
};

enum config_volume_type { CONFIG_VOLUME_NAMED, CONFIG_VOLUME_ANONYMOUS, CONFIG_VOLUME_BIND, CONFIG_VOLUME_TMPFS };

struct config_volume {
	enum config_volume_type type;
	char *source; /* named: key; bind: as written */
	char *target;
	bool read_only;
	char *options; /* more of them, as an engine takes them: "z,rshared", of a tmpfs "size=64m"; NULL: none */
	char *subpath; /* of a named volume: the directory in it that is mounted; NULL: all of it */
	struct keyvals labels; /* of a volume without a name */
	bool must_exist; /* a bind mount whose source is not made where it is missing */
	char *digest; /* of a bind mount that would be executed: of all that it brings in; NULL: none can be had */
};

/* A volume or a network of the top level. */
struct config_resource {
	char *key;
	char *name;     /* as the file has it for an engine; NULL: not said */
	bool external;  /* made by somebody else, for more than this file */
	char *driver;   /* NULL: not said */
	struct keyvals driver_opts, labels;
	char *subnet, *gateway, *ip_range; /* of a network's IPv4 addresses; NULL: not said */
	char **unused;  /* words of it that are not read here */
};

/* A secret or a config of the top level. */
struct config_source {
	char *name;
	char *path; /* as written; NULL: by text */
	char *text;
	bool secret, external;
};

/* One of them in a service. */
struct config_grant {
	char *source;
	char *target; /* absolute */
	bool secret;
	int32_t uid, gid, mode; /* of the file; -1: not given */
};

enum depends_condition { DEPENDS_STARTED, DEPENDS_HEALTHY, DEPENDS_COMPLETED };

struct config_dependency {
	char *service;
	enum depends_condition condition;
	bool required;
	bool restart; /* with the other one, when that is restarted or made anew */
};

enum probe_kind { PROBE_NONE, PROBE_TCP, PROBE_HTTP, PROBE_EXEC, PROBE_LOG };

/* Compose `healthcheck`, and `x-aether.ready` (tcp: PORT | http: URL-or-path | exec: [..] or string | log: REGEX). */
struct config_probe {
	enum probe_kind kind;
	uint16_t port;       /* TCP, HTTP: internal port; 0: the first */
	char *path;          /* HTTP */
	char **argv;         /* EXEC: {"sh","-c",text} for CMD-SHELL */
	char *pattern;       /* LOG: POSIX extended regular expression */
	char *send;          /* TCP, recipes: bytes to send (may hold NULs: see send_len) */
	size_t send_len;
	char **expect;       /* TCP, recipes: ready when the answer begins with one of these */
	unsigned interval_ms, timeout_ms, start_period_ms; /* 0: default */
	unsigned retries;
	unsigned linger_ms;  /* TCP without `expect`: connected counts when it lasts so long; NONE: it is ready so long after its start */
};

enum restart_policy { RESTART_NO, RESTART_ON_FAILURE, RESTART_ALWAYS, RESTART_UNLESS_STOPPED };

struct config_service {
	char *name;
	char *image;         /* NULL: none */
	bool no_instances;   /* `scale: 0`, `replicas: 0`: none runs but where it is named */
	bool has_build;      /* its image is built, by itself or by another one's `build` */
	struct build_options build;
	const char *built_by; /* the service whose `build` makes its image: the same `image`; borrowed; NULL: its own, or none does */
	char **command;      /* NULL: not given; argv after shell-word splitting */
	char **entrypoint;
	struct keyvals environment; /* env_file layers beneath, environment above; interpolated */
	struct config_port *ports;
	size_t n_ports;
	struct config_port *expose;
	size_t n_expose;
	struct config_volume *volumes;
	size_t n_volumes;
	bool mounts_code;    /* files that its image would execute are mounted into it */
	struct config_dependency *depends_on;
	size_t n_depends_on;
	struct config_probe healthcheck; /* kind NONE: not given; EXEC otherwise */
	bool healthcheck_disabled;
	char **profiles;
	char *working_dir;
	char *container_name;
	char **aliases;      /* more names that its peers know it by: hostname, container_name, aliases on networks */
	char **networks;     /* the keys of those that it is on */
	char **network_aliases; /* KEY NAME: which of `aliases` it has there */
	char **network_addresses; /* KEY ADDRESS: its ipv4_address there */
	char **network_words; /* fields of these that are not read here: ipv4_address */
	struct config_grant *grants;
	size_t n_grants;
	struct container_options container;
	char **container_fields; /* the names of those that it has */
	uint64_t memory_bytes;
	double cpus;
	int64_t pids;
	int stop_signal;         /* number; 0: not given */
	int64_t stop_grace_ms;   /* -1: not given (Compose: 10 s) */
	enum restart_policy restart;
	bool restart_of_deploy;  /* deploy.restart_policy says it */
	unsigned restart_max;    /* on-failure:N; 0: unlimited */
	/* x-aether of the service */
	char **run_command;      /* x-aether.command: how to run it as a host process; NULL: not given */
	char *run_shell_text;    /* the command as written, for approval and messages */
	struct config_probe ready;
	struct keyvals x_env;    /* x-aether.env of the service: environment of the process */
	struct error fault;      /* set: it cannot be run as it stands (an env_file is missing), and the others can */
	bool is_copy;            /* of another one, for a further env file alone: no other file's variables speak of it */
	const char *file;        /* of the service's key; borrowed: config_file.shown */
	unsigned line, column;
};

/* x-aether.env_files: a virtual file beside `.env`. */
struct config_env_file {
	char *path;              /* below the workspace; plain components, checked */
	struct keyvals services; /* service -> the one that stands for it in this file */
	struct keyvals env;      /* templates, checked; beside and over x-aether.env */
};
#define CONFIG_ENV_FILES_MAX 12

struct config_warning {
	char *text; /* "file:line:col: ..." */
};

/* One of the files that a configuration is made of. */
struct config_file {
	char *path;  /* absolute */
	char *shown; /* as messages name it */
};

struct config_place {
	const char *file; /* borrowed: config_file.shown */
	unsigned line, column;
};

/* A field that can run code, or show a service what is none of its business. */
struct config_approval {
	char *path;  /* "services.db.command" */
	char *value; /* canonical, on one line. Secret */
	char *shown; /* the same without what is secret */
};

enum config_start { START_ON_DEMAND, START_MANUAL };

struct config {
	char *file;         /* absolute path of the first that was read, or would be */
	struct config_file *files; /* all of them, later ones lie on top */
	size_t n_files;
	char **env_files;   /* absolute; where each, and what a mount would execute, was looked for, found or not */
	char *directory;    /* of the first: what relative paths begin at */
	char *subdirectory; /* and below the workspace: "infra"; "": the workspace itself */
	char *text_hash;    /* hex of the text of every file read: changed means changed */
	char *name;         /* top-level name; NULL: not given */
	struct config_service *services; /* in the file's order */
	size_t n_services;
	bool is_main;        /* of the main checkout, or there is no other */
	struct config_resource *volumes, *networks; /* of the top level */
	size_t n_volumes, n_networks;
	/* Of the file's own networks that services are on, for they all meet on one. */
	const struct config_resource *addressed; /* where they have addresses of their own; borrowed; NULL: nowhere */
	struct keyvals network_labels, network_opts;
	struct config_source *sources;
	size_t n_sources;
	/* x-aether of the top level */
	char *backend;       /* "auto" when not given */
	enum config_start start;
	bool up_on_add;
	bool inherit, rewrite; /* true when not given */
	bool version_exact;
	bool strict_ports;     /* host_ports: strict: a published number is had or the service fails */
	unsigned timeout_ms;   /* of a demand; 0: default */
	char **service_set;    /* x-aether.services; NULL: default set */
	char **profiles;       /* COMPOSE_PROFILES of the user's `.env`; NULL: none */
	char **asked;          /* names of variables that were looked up, set or not */
	struct keyvals env;    /* x-aether.env: templates, checked */
	struct config_place *env_places; /* parallel to its items */
	struct keyvals app_ports; /* x-aether.ports: variable -> preferred number */
	struct config_env_file *more_files; /* x-aether.env_files */
	size_t n_more_files;
	struct config_approval *approvals; /* the fields that run code; sorted: moving a service within the file is no change */
	size_t n_approvals;
	char *approval_hash;   /* SHA-256 of all of them; "" when there are none */
	struct config_warning *warnings;
	size_t n_warnings;
	size_t n_own_warnings; /* without those of fields that only the shape has, which stand behind them */
};

struct recipes;
struct digests;

struct config_params {
	int root_fd;             /* O_PATH or readable directory: the workspace beneath the mount */
	const char *root;        /* its path, for messages and relative bind sources */
	const char *main_root;   /* NULL: none */
	bool search_upwards;     /* plain directories */
	const struct keyvals *variables; /* for interpolation: the user's `.env` layers; the process environment wins over them, as in Compose. NULL: none */
	const char *profiles; /* between commas, instead of COMPOSE_PROFILES of the user's lines; NULL: those */
	bool whole_shape;     /* with the services of all profiles; if that cannot be had, of the active ones alone */
	const char *tracked_text; /* lines of theirs that came with a commit, a stranger's perhaps; NULL: none */
	char *const *environ_;   /* the environment to interpolate from; NULL: none */
	struct digests *digests; /* of mounted scripts, remembered (base/digest.h); NULL: none */
	json_t *record;          /* gets the texts of all that is read: an object, path -> text; NULL: nobody keeps them */
	bool again;              /* read from these, whatever stands in the files now */
	const struct recipes *recipes; /* what x-aether.env may name of a well-known image; NULL: the default ones, loaded if need be, and
	                                * no approvals are made out */
};

/* new: config_free. CONFIG_NOT_FOUND when there is none, with the names looked for in the hint. */
int config_load(const struct config_params *params, struct config **ret, struct error *err);
void config_free(struct config *c);

/* The same, and in *ret_shape (new; NULL: not wanted) as `docker compose config --format json` prints it: every form written out,
 * paths absolute, variables resolved and env_files read, without what no service of the active profiles uses. */
int config_load_shape(const struct config_params *params, struct config **ret, json_t **ret_shape, struct error *err);

/* Where this process opens what a bind mount names: in the workspace beneath our own mount (`root_fd`); what is not there (because
 * it is not tracked) in the main checkout. new */
char *config_source_path(const struct config *c, int root_fd, const char *root, const char *main_root, const char *source);

char *config_path_normalized(const char *path); /* new: "./a//b/../c" -> "a/c"; leading ".." stay */

void config_probe_release(struct config_probe *p);

/* borrowed; never NULL for a grant of this configuration's */
const struct config_source *config_source_of(const struct config *c, const struct config_grant *g);

/* borrowed; NULL: none of that key */
const struct config_resource *config_volume_resource(const struct config *c, const char *key);
const struct config_resource *config_network(const struct config *c, const char *key);
const char *config_resource_name(const struct config_resource *r); /* what an engine calls it; borrowed */

/* borrowed; NULL when there is none of that name */
const struct config_service *config_service(const struct config *c, const char *name);

/* Does it belong to one of these, or to none? "*" is all. */
bool config_in_profiles(const struct config_service *s, char *const *profiles);
bool config_has_profile_of(const struct config_service *s, char *const *profiles);
/* What docker compose refuses and is run here: it knows nothing of a service whose profiles are not active (here whoever needs it starts it, with a warning), and
 * takes `required: false` for a service of the file alone. */
int config_check_dependencies(const struct config *c, struct error *err);

/* Compose interpolation of one string: $V ${V} ${V:-d} ${V-d} ${V:?e} ${V?e} ${V:+r} ${V+r}, nested, $$.
 * `lookup` returns borrowed text or NULL. `unset` (may be NULL) hears of names without a value or default. */
typedef const char *config_lookup(void *arg, const char *name);
int config_interpolate(const char *text, config_lookup *lookup, void *arg, void (*unset)(void *arg, const char *name),
                       char **ret, struct error *err);

/* Splits a string as a POSIX shell splits words (quotes and backslashes; no expansion). */
int config_split_words(const char *text, char ***ret, struct error *err);
/* new: a text that splits into these words again. */
char *config_join_words(char *const *words);

#endif
