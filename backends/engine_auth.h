/* Credentials for a registry, where docker login has put them: $DOCKER_CONFIG/config.json and credential helpers.
 * https://docs.docker.com/reference/cli/docker/login/#credential-stores (credHelpers over credsStore over auths); the protocol of a helper:
 * https://github.com/docker/docker-credential-helpers (`docker-credential-X get`, the registry on stdin, JSON on stdout). */
#ifndef BACKENDS_ENGINE_AUTH_H
#define BACKENDS_ENGINE_AUTH_H

#include "backends/engine.h"

#define ENGINE_AUTH_HELPER_MS 30000

struct engine_image_name {
	char *registry;   /* "docker.io" when the name has none */
	char *repository; /* with the registry, as it is written */
	char *tag;        /* "latest" when it has none; a digest, "sha256:...", counts as one */
};

void engine_image_name_parse(const char *image, struct engine_image_name *ret);
void engine_image_name_release(struct engine_image_name *n);

/* The value of X-Registry-Auth, borrowed; NULL: none is needed, or none is known. */
typedef void engine_auth_done(void *arg, const struct error *err, const char *auth);
/* A helper is a program: it runs in a worker, for at most ENGINE_AUTH_HELPER_MS. */
void engine_auth_find(struct engine *e, const char *image, engine_auth_done *done, void *arg);

/* The same, blocking. new or NULL */
json_t *engine_auth_of(const char *registry, const struct engine_places *places, struct error *err);
char *engine_auth_lookup(const char *registry, const struct engine_places *places, struct error *err);
/* What `proxies` there says, as the arguments that docker gives to every build; those of `args` stay as they are.
 * https://docs.docker.com/engine/cli/proxy/ */
void engine_proxies(const struct engine_places *places, struct keyvals *args);
/* The value of X-Registry-Config for a build that begins with these images. new or NULL: none is known. `err`: why one of them is not known, which is
 * no reason to refuse what everybody may have. */
char *engine_auth_config(char *const *images, const struct engine_places *places, struct error *err);

#endif
