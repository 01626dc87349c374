/* What the files of the configuration share while one is being loaded; nobody else includes this.
 *   config.c            finding, reading, the top level, dependencies
 *   config_services.c   the table of a service's fields
 *   config_dependencies.c  whom services need, and whether it is there
 *   config_resources.c  volumes and networks of the top level
 *   config_secrets.c    secrets and configs
 *   config_container.c  those that only a container has
 *   config_build.c      how an image is built
 *   config_environment.c, config_ports.c, config_volumes.c, config_probe.c   the longer fields
 *   config_aether.c     x-aether
 *   config_env_files.c  x-aether.env_files, and the services that are copied for them
 *   config_approval.c   what runs code, for the user to approve
 *   config_files.c      which files, and reading below the workspace
 *   config_merge.c      one laid on another
 *   config_record.c     the same from what was read before
 *   config_related.c    extends and include
 *   config_paths.c      the paths of a file that lies elsewhere
 *   config_shape*.c     all of it as docker compose prints it
 */
#ifndef PROVISIONER_CONFIG_PRIVATE_H
#define PROVISIONER_CONFIG_PRIVATE_H

#include <sys/stat.h>

#include "base/buffer.h"
#include "provisioner/config_reader.h"

struct related; /* a file that another one extends or includes */

struct loading {
	struct reader reader; /* first: a field leads to its loading */
	struct yaml_document **docs; /* of config->files, not in their order */
	size_t n_docs;
	size_t bytes; /* of their texts */
	struct related *related;
	size_t n_related;
	size_t merged_nodes; /* that extends has made */
	unsigned includes;   /* that were followed */
	struct keyvals **included_envs; /* of include.env_file */
	size_t n_included_envs;
	const struct yaml *root; /* borrowed of them */
	const struct config_params *params;
	struct config *config;
	struct recipes *recipes; /* the default ones, loaded when they are needed; NULL: not yet */
	int dir_fd;              /* of config->directory; owned unless it is params->root_fd */
	enum { IN_WORKSPACE, IN_MAIN, ABOVE } place;
	char *project; /* what Compose calls it: the value of COMPOSE_PROJECT_NAME where nobody sets that */
	uint64_t hash;
	struct keyvals env_files; /* of the service being read */
	struct keyvals strange_env; /* what of it stands in files that come with the repository */
	struct keyvals included_env; /* of include.env_file, as it is written there */
};

static inline struct loading *loading_of(const struct field *f)
{
	return (struct loading *)f->reader;
}

/* ---- config_files.c ---- */

/* Finds and parses the files, and lays them on each other; sets l->root, config->files, file and directory, place, dir_fd. */
int loading_read(struct loading *l);
/* One more file, which stands for itself: its path as an env_file's. `f` is where it is named, and where what fails is told. *ret_path: new, absolute */
int loading_read_file(struct loading *l, const struct field *f, const char *path, char **ret_path, struct yaml_document **ret);
/* Where it is, absolute: what tells one file from another. new; NULL: nowhere */
char *loading_find_file(struct loading *l, const char *path);
/* An env_file as it is written. 0, or a negative errno without a message (-ENOENT: nowhere); *ret_outside says that it
 * lies outside of the workspace and the main checkout. `raw`: a value is what stands behind the =. */
int loading_read_env_file(struct loading *l, const char *path, bool raw, struct keyvals *out, bool *ret_outside);
int loading_read_labels(struct loading *l, const char *path, struct keyvals *out, bool *ret_outside); /* of the same form, and no environment's */
/* Is what this path names neither in the workspace nor in the main checkout, or led out of them by a link? */
bool loading_is_outside(const struct loading *l, const char *path);
/* new: fingerprint of what a bind mount brings in (base/digest.h); NULL: *ret_why says why there is none. */
char *loading_digest(struct loading *l, const char *source, int *ret_why);
/* The environment, then the user's variables, then what Compose itself sets; PWD is the workspace. What is asked for is noted. borrowed; NULL: not set */
const char *loading_variable(void *arg, const char *name);

/* ---- config_record.c ---- */

void config_record_add(const struct loading *l, int dirfd, const char *path, const char *text);
/* As open(O_RDONLY) with fstat: what was read at `path` then; -ENOENT: nothing was, -EILSEQ: it
 * could not be kept. */
int config_record_open(const struct loading *l, int dirfd, const char *path, struct stat *ret);

/* ---- config_merge.c ---- */

/* `above` laid on `below`, made of their nodes and new ones of `doc`. borrowed of all three */
const struct yaml *config_merge(struct yaml_document *doc, const struct yaml *below, const struct yaml *above);

/* The same of two services. */
const struct yaml *config_merge_service(struct yaml_document *doc, const struct yaml *below, const struct yaml *above);

/* ---- config_related.c ---- */

/* The file without `extends` and `include`: what they name is read and laid beneath, or beside. *ret is borrowed of l->docs. */
int related_resolve(struct loading *l, struct yaml_document *doc, const char *path, const struct yaml **ret);
/* What the env_file of an include says, for texts of the files that it includes. borrowed; NULL: nothing */
const char *related_variable(const struct loading *l, const char *file, const char *name);
void related_release(struct loading *l);

/* ---- config_paths.c ---- */

/* `path` as seen from where `directory` begins; absolute ones, and such of a home directory, stay. new */
char *config_path_join(const char *directory, const char *path);
char *config_path_parent(const char *path); /* new; "": none */
/* The service, and what beside services holds paths, with all of them seen from where `directory` begins. Nodes of `doc`. */
int config_paths_of_service(struct yaml_document *doc, const struct field *service, const char *directory, const struct yaml **ret);
int config_paths_of_top(struct yaml_document *doc, const struct field *root, const char *directory, const struct yaml **ret);

/* ---- services ---- */

/* All services into a struct config, and whom they depend on. */
field_read read_services;

/* ---- config_dependencies.c ---- */

const char *nearest_service(const struct config *c, const char *wrong); /* borrowed; NULL: none is near */
int check_services(const struct field *services, const struct config *c);
int check_circles(const struct field *services, const struct config *c); /* with the copies of env_files */

/* What was said while something was read once more is dropped: approvals and warnings beyond these counts. */
void config_forget_since(struct config *c, size_t approvals, size_t warnings);

/* Those that only containers have; the table of services goes on with them. */
extern const struct field_reader container_fields[];

/* ---- config_resources.c ---- */

field_read read_volume_resources, read_network_resources; /* of the top level, before the services */
void config_resources_release(struct config_resource *list, size_t n);
void join_external_networks(struct config *c); /* after both */
void settle_own_network(struct config *c);     /* the same */
int read_extra_hosts(const struct field *f, char ***hosts); /* a list or a mapping, as NAME:ADDRESS */
int read_device_requests(const struct field *f, void *out); /* deploy.resources.reservations.devices */
int read_ulimits(const struct field *f, struct ulimit_option **limits, size_t *n);

/* ---- config_build.c ---- */

field_read read_build;
void build_share(struct config *c); /* when all services have been read */

/* ---- config_secrets.c ---- */

field_read read_secret_sources, read_config_sources; /* of the top level, before the services */
field_read read_secrets, read_configs;

field_read read_environment, read_env_file, read_ports, read_expose, read_volumes, read_tmpfs, read_healthcheck;

/* KEY: value, or a list of KEY=value, into `out` (struct keyvals); KEY alone is taken from the environment. */
int read_variables(const struct field *f, void *out);
int read_ready(const struct field *f, void *out); /* into struct config_probe */

/* ---- config_aether.c ---- */

field_read read_aether; /* of the top level, into a struct config; after the services */
field_read read_service_aether;
/* borrowed; NULL: none (then *r may be an error) */
const struct recipe *recipe_of(const struct field *f, const struct config_service *s, int *r);

/* A mapping of variables to templates, each checked; `each` is called for every one. */
int read_templates(const struct field *f, int (*each)(const struct field *variable, const char *text, void *arg), void *arg);

/* ---- config_env_files.c ---- */

field_read read_env_files; /* into a struct config; last of x-aether */
/* Calls `copy` for every service that a file has under a name of its own which no service of the compose files has. */
int env_files_copies(struct loading *l, int (*copy)(struct loading *l, const struct field *name, const char *from, const char *to));

/* ---- config_approval.c ---- */

/* Each is one entry of config->approvals, or one for each variable. */
void approve_argv(const struct field *f, char *const *argv);
void approve_command(const struct field *f); /* as it stands in the file; a text and the list of its words are one */
void approve_node(const struct field *f);    /* as it stands in the file */
void approve_text(const struct field *f, const char *text);
void approve_file(struct loading *l, const char *path); /* of the configuration, and outside of the repository */
void approve_mount(const struct field *f, const struct config_volume *v, int why_no_digest);
void approve_variables(const struct field *f); /* a mapping, or a list of KEY=value, as it stands in the file */
/* What a service says beside its command: when all of it has been read. */
int approve_service(const struct field *f, const struct config_service *s);
int approve_top(const struct field *f, struct config *c);
/* Sorts them and makes config->approval_hash. */
void approvals_finish(struct loading *l);
char *approval_node_text(const struct yaml *node); /* new: canonical, on one line */

#endif
