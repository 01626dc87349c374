/* Which container engine is meant, as docker's own users expect it:
 * x-aether.backend, then DOCKER_HOST, DOCKER_CONTEXT, currentContext of config.json, the default socket, rootless sockets;
 * of Podman CONTAINER_HOST, then the user's socket, then the system's. A socket that is closed to this user comes after those that are not.
 * Formats: https://docs.docker.com/engine/manage-resources/contexts/ and https://docs.docker.com/reference/cli/docker/#environment-variables
 *
 * Reads small files of the user's and asks nobody; any thread. */
#ifndef BACKENDS_ENGINE_TARGET_H
#define BACKENDS_ENGINE_TARGET_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

struct engine_target {
	bool podman;       /* asked for by name */
	char *url;         /* as docker writes it: "unix:///run/docker.sock", "tcp://127.0.0.1:2375" */
	char *socket_path; /* NULL: by TCP */
	char *http_url;    /* "http://127.0.0.1:2375", "https://..."; NULL: by the socket */
	char *ca, *cert, *key; /* PEM files; NULL: none */
	char *from;        /* where it was found: "DOCKER_HOST", "context work", "the default socket" */
};

#define ENGINE_TARGET_INIT {false, NULL, NULL, NULL, NULL, NULL, NULL, NULL}

/* What the look-up depends on. */
struct engine_places {
	const char *(*variable)(void *arg, const char *name); /* borrowed; NULL: the process environment */
	void *arg;
	const char *run; /* where "/run" is: "" but in tests */
	uid_t uid;
};

/* `asked`: "docker", "podman", or an address, "unix:///...", "tcp://host:port". CONFIG_INVALID: a context or an address that cannot be
 * used; BACKEND_UNREACHABLE: there is no socket anywhere, the places looked at in the hint. */
int engine_target_find(const char *asked, const struct engine_places *places, struct engine_target *ret, struct error *err);
/* An address that was found earlier (`url`). */
int engine_target_parse(const char *url, struct engine_target *ret, struct error *err);
/* By its name, as far as that tells: what it publishes on its 127.0.0.1 is not reached from here. */
bool engine_target_is_elsewhere(const struct engine_target *t);
void engine_target_release(struct engine_target *t);
#define cleanup_engine_target __attribute__((cleanup(engine_target_release)))

/* borrowed or NULL: `places->variable` or the environment; an empty value counts as none */
const char *engine_variable(const struct engine_places *places, const char *name);
/* new: $DOCKER_CONFIG or ~/.docker; NULL: there is no home */
char *engine_config_dir(const struct engine_places *places);

#endif
