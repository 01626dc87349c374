/* The model: a configuration with everything that it leaves open decided: ports leased, recipes and programs found,
 * secrets made, templates expanded, and for each service the spec that a backend takes. Immutable once it is loaded,
 * but for what the backend's check says; loading blocks (files, SQLite): a worker thread.
 */
#ifndef PROVISIONER_MODEL_H
#define PROVISIONER_MODEL_H

#include "backends/backend.h"
#include "provisioner/config.h"
#include "provisioner/envset.h"
#include "provisioner/identity.h"
#include "provisioner/recipe.h"
#include "provisioner/store.h"
#include "provisioner/trust.h"

#define MODEL_COMPOSE_FILE BACKEND_COMPOSE_FILE /* what docker compose is led to (beside_compose.h) */
#define SPEC_VOLUMES "+volumes" /* named volumes, in a generation's directory; no service can have that name */
#define MODEL_HOST "127.0.0.1" /* services are never bound to anything else */

enum service_network {
	NETWORK_OWN,  /* the environment's; of a process, the host's with leased ports */
	NETWORK_HOST, /* a container's network_mode: its ports are what they are */
	NETWORK_OTHER /* another container's, or none */
};

struct model_service {
	const struct config_service *config; /* borrowed of the model's configuration */
	const struct recipe *recipe;         /* borrowed; NULL: none */
	char *program_dir, *program_major;   /* of the recipe, on this machine; NULL: not looked for, or not there */
	struct keyvals variables;            /* the recipe's template variables, expanded: user, password ... Secret */
	struct keyvals recipe_env;  /* its DATABASE_URL and the like, expanded; empty where no port is leased. Secret */
	struct keyvals beside_env, beside_arguments; /* of its recipe, expanded, as recipe_env. Secret */
	struct port_binding *ports; /* external 0: not leased */
	size_t n_ports;
	enum service_network network;
	const char *host;          /* where these are, borrowed; NULL: MODEL_HOST */
	char *url;                 /* NULL: it has no port, or none is leased */
	struct config_probe ready; /* borrowed strings, but for an expanded argv and path; kind NONE: running is ready */
	struct config_probe reached; /* as ready: asked when that has said yes; kind NONE: nothing more is */
	bool one_shot;             /* nothing to connect to and nothing to ask: may end with success */
	struct error unsupported;  /* set: it cannot run here, and why; model_is_refused tells some apart */
	bool strict_ports;         /* of the configuration */
	struct service_spec spec;
	struct process_spec process;
	struct build_spec *build;
	struct keyvals process_env, seed_env;
	struct keyvals container_env; /* of the spec, where it is not the configuration's own: with `told` of the recipe */
	struct keyvals told;          /* what the recipe adds to it. Secret */
	char *const *adapt;           /* of its recipe, expanded: makes its values true of data that a container finds there; NULL: nothing does */
	const char *adapt_as, *adapt_key; /* what the next one is told of these values, and their fingerprint */
	char **owned; /* strings that spec and process point to */
	void **owned_arrays;
	size_t n_owned_arrays;
};

/* One of x-aether.env_files. */
struct model_file {
	const struct config_env_file *config; /* borrowed of the model's configuration */
	struct keyvals env;                   /* x-aether.env and its own, expanded as its services are */
	char **services;                      /* that it needs beside the default ones; NULL: none */
};

struct model_inside;

struct model {
	struct config *config;
	json_t *record;               /* what it was made from (model_params.again); with its signature */
	struct model_service *services; /* parallel to config->services */
	size_t n_services;
	bool planned;                 /* ports are leased */
	bool moves;                   /* but for numbers that are had as soon as it is applied (LEASE_MAY_MOVE) */
	struct trust trust;           /* of its configuration; not given: nothing of it is started */
	struct keyvals app_ports;     /* x-aether.ports: variable -> leased number; empty when not planned */
	struct keyvals app_preferred; /* and -> the number in the file */
	struct keyvals env;           /* x-aether.env, expanded */
	struct keyvals base;          /* AETHER_* */
	struct model_file *files;
	size_t n_files;
	struct model_inside *inside;  /* what the services are to containers of their network; NULL: there is none (inside.c) */
	char *backend, *backend_target, *backend_reason; /* target: NULL where there is but one */
	uint32_t generation;
	char **warnings;
	char *network;   /* as in struct service_spec */
	json_t *shape;   /* config_load_shape's, for what docker compose reads; NULL: not on an engine */
	char *signature; /* equal signatures: nothing that is generated or started differs */
};

struct model_params {
	const struct identity *id;
	int root_fd;
	const struct recipes *recipes;
	struct store *store;
	const char *user_text; /* the workspace's own lines */
	const char *main_text; /* the main checkout's, and what else lies beneath, "": none */
	const char *tracked_text; /* what of it came with a commit; NULL: nothing */
	const char *backend;   /* as decided before; NULL: not yet */
	const char *backend_target;
	const char *backend_reason;
	uint32_t generation;
	uid_t uid;
	bool beside_compose; /* .env leads docker compose to what runs, where that is on an engine */
	bool plan;    /* lease ports */
	enum lease_move move; /* to the numbers that the file publishes, where others are held and those are free */
	const uint16_t *refused; /* numbers that the backend would not publish lately, though nobody is seen to have them: they are not tried again. 0 ends it; NULL: none */
	const char *approve; /* as in trust_look */
	json_t *again; /* a record of a model: its files and the variables that they asked for are as they were; NULL: as they are */
	struct digests *digests; /* as in config_params */
	char *const *tracked_files; /* of x-aether.env_files, those that a commit tracks: left alone; NULL: none */
};

int model_load(const struct model_params *params, struct model **ret, struct error *err);
void model_free(struct model *m);

struct model_service *model_service(const struct model *m, const char *name); /* borrowed; NULL: none */

/* Adds the generated variables: `imposed` on the user's, and `offered` where the user has none; both may be one list. */
void model_generated(const struct model *m, struct keyvals *offered, struct keyvals *imposed);

/* The user's texts with what is generated: what `.env` and env.json show. `m` may be NULL: the workspace's own lines. */
void model_environment(const struct model *m, const char *main_text, const char *user_text, struct envset *ret);

/* The same as a container in the environment's network has them: its peers by their names, on their own ports. What the user runs
 * himself (x-aether.ports, a service with `build:` that is not started by default) is on 127.0.0.1 there, too, by its leased number, which
 * can be published as it is. Where services are no containers a container reaches them on the host's network alone: there it is the same text. */
void model_container_environment(const struct model *m, const char *main_text, const char *user_text, struct envset *ret);
/* new: the network's name; NULL: the services are no containers */
char *model_network(const struct model *m, const struct identity *id);

/* The same for one of x-aether.env_files. */
void model_file_environment(const struct model *m, const struct model_file *file, const char *main_text, const char *user_text,
                            struct envset *ret);
const struct model_file *model_file(const struct model *m, const char *path); /* borrowed; NULL: none */

/* The model as one of its env files sees it: a service for which another stands there is that one, under its own name. Shallow:
 * for reading, while the model is there. */
struct model_view {
	struct model model;
	struct config_service *configs;
};
void model_view_init(struct model_view *v, const struct model *m, const struct model_file *file);
void model_view_release(struct model_view *v);
#define cleanup_model_view __attribute__((cleanup(model_view_release)))

/* Its NAME_URL, NAME_HOST, NAME_PORT are added; nothing without a leased port. */
void model_service_variables(const struct model_service *s, struct keyvals *out);

/* Values that name a service of the file are turned to where this workspace has it, as in `.env`: within a network of its own
 * `db:5432` is right, for a process of the host it is not. */
void model_rewrite(const struct model *m, struct keyvals *variables);

/* After a teardown: the ports are not ours any more, so nothing may name them. */
void model_unplan(struct model *m);

/* Where its ports are; borrowed. */
const char *model_host(const struct model_service *s);
/* The port where `internal` (0: the first) is reached; 0: none. */
uint16_t model_external_port(const struct model_service *s, uint16_t internal);

/* It could run here, were it not for what can be mended (a number that somebody holds under host_ports: strict, an env_file
 * that is missing): whoever needs it fails, named or not. */
bool model_is_refused(const struct model_service *s);

/* Replaces every secret value that the model knows with ***, in place of text meant for logs, events and errors. new */
char *model_mask(const struct model *m, const char *text);

/* NAME of NAME_URL: upper case, everything but [A-Z0-9] is _. new */
char *model_variable_name(const char *service, const char *suffix);

/* "tcp" or "udp" */
const char *model_protocol(const struct config_port *p);

/* ---- model_env.c ---- */

void model_make_files(struct model *m, const struct model_params *params); /* once; those that a commit tracks are left alone, with a warning */
/* When ports are leased; nothing before. */
int model_expand_env(struct model *m, const struct model_params *params, const struct keyvals *user, struct error *err);

/* ---- model_warnings.c ---- */

void model_warn(struct model *m);
/* Which subnet the services' addresses are in, where it is not the file's, as the engine has made the network by now. new; NULL: none */
char **model_subnet_warnings(const struct model *m, const struct identity *id);

/* ---- inside.c ---- */

/* When ports are leased and the services' values are known. */
int model_inside_make(struct model *m, const struct model_params *params, const struct keyvals *user, struct error *err);
void model_inside_release(struct model *m);

/* Everything that says where services are: their variables, URLs, x-aether.env, for the hosts and ports that they have. */
int model_expand_values(struct model *m, const struct model_params *params, const struct keyvals *user, struct error *err);

/* ---- build_spec.c ---- */

/* new: how the image of a service with `build` is built, and its name. Two workspaces never have one name. */
struct build_spec *model_build_image(const struct model *m, const struct config_service *c, const struct model_params *params);
char *model_built_image(const struct config_service *c, const struct identity *id);

/* ---- spec.c ---- */

/* Builds s->spec (and s->process for a backend of host processes) of a service whose ports, program and variables are
 * known. `env` are the generated variables and the user's, for processes that are not a recipe's. */
int model_build_spec(struct model *m, struct model_service *s, const struct model_params *params,
                     const struct keyvals *env, struct error *err);

/* Who is in another's network is made anew when that one is. After all have been built. */
void model_join_specs(struct model *m);

/* Expands a recipe's template for this service. `data` stands for {{data}}. new */
int model_expand(struct model *m, struct model_service *s, const struct model_params *params, const char *data,
                 const char *text, char **ret, struct error *err);

/* The directory of host processes' sockets; new. */
char *model_run_dir(const struct identity *id, const char *service);

#endif
