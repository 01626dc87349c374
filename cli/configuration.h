/* A look at the configuration before anything is made. */
#ifndef CLI_CONFIGURATION_H
#define CLI_CONFIGURATION_H

#include <stdbool.h>

#include "base/error.h"
#include "base/strv.h"
#include "provisioner/identity.h"

struct config;

/* Reads the configuration that a new workspace of the repository will have: the main checkout's, or that of `root` where there is no main
 * checkout. Broken is an error, missing is none. `*up` becomes true when it asks for `up: on-add`. Warnings go to stderr. */
int configuration_check(const char *root, bool *up, struct error *err);

/* The user's own lines of a checkout's `.env`: from a mounted one through `env.own`, for reading its `.env` would start its services. */
void configuration_read_env(const char *root, struct keyvals *ret);

/* The user's lines that the configuration of a workspace sees: the main checkout's, and its own over them. */
void configuration_lines(const struct identity *id, struct keyvals *ret);

/* COMPOSE_PROFILES of the environment, if the user's lines do not say the same. borrowed; NULL: nothing more than they say */
const char *configuration_profiles(const struct identity *id);

/* Adds the paths of its x-aether.env_files. A configuration that is not there, or cannot be read, has none. */
void configuration_more_files(const struct identity *id, char ***names);

/* Is there one for this workspace, as its server will look for it? CONFIG_NOT_FOUND. A broken one is there. */
int configuration_find(const struct identity *id, struct error *err);

/* The configuration of this workspace, and its shape as config_load_shape gives it, for these profiles (between commas) instead of COMPOSE_PROFILES;
 * NULL: for those. Both new. */
int configuration_shape(const struct identity *id, const char *profiles, struct config **ret, json_t **ret_shape, struct error *err);

#endif
