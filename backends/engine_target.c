#include "backends/engine_target.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/sha256.h"

void engine_target_release(struct engine_target *t)
{
	free(t->url);
	free(t->socket_path);
	free(t->http_url);
	free(t->ca);
	free(t->cert);
	free(t->key);
	free(t->from);
	*t = (struct engine_target)ENGINE_TARGET_INIT;
}

const char *engine_variable(const struct engine_places *places, const char *name)
{
	const char *value = places && places->variable ? places->variable(places->arg, name) : getenv(name);
	return value && *value ? value : NULL;
}

char *engine_config_dir(const struct engine_places *places)
{
	const char *config = engine_variable(places, "DOCKER_CONFIG"), *home = engine_variable(places, "HOME");
	return config ? xstrdup(config) : home ? xasprintf("%s/.docker", home) : NULL;
}

/* ---- addresses ---- */

static int take_tcp(const char *rest, struct engine_target *ret, struct error *err)
{
	const char *colon = strrchr(rest, ':');
	if (!*rest || *rest == ':' || strchr(rest, '@'))
		return error_set(err, ERROR_CONFIG_INVALID, "%s is no address of an engine: tcp://host:port", ret->url);
	bool port = colon && colon[1] && strspn(colon + 1, "0123456789/") == strlen(colon + 1);
	size_t len = strcspn(rest, "/");
	ret->http_url = xasprintf("%s://%.*s%s", ret->ca || ret->cert ? "https" : "http", (int)len, rest, port ? "" : ret->ca ? ":2376" : ":2375");
	return 0;
}

static int take_address(const char *url, struct engine_target *ret, struct error *err)
{
	free(ret->url);
	ret->url = xstrdup(url);
	if (!strncmp(url, "unix://", 7) && url[7] == '/') {
		ret->socket_path = xstrdup(url + 7);
		return 0;
	}
	if (!strncmp(url, "tcp://", 6))
		return take_tcp(url + 6, ret, err);
	if (!strncmp(url, "ssh://", 6)) {
		error_set(err, ERROR_CONFIG_INVALID, "an engine behind ssh (%s) is not supported yet", url);
		return error_hint(err, "take an engine of this machine (docker context use default): ports that one of another machine publishes on its 127.0.0.1 are not reached from here");
	}
	error_set(err, ERROR_CONFIG_INVALID, "%s is no address of an engine", url);
	return error_hint(err, "unix:///path/to/docker.sock, or tcp://host:port");
}

int engine_target_parse(const char *url, struct engine_target *ret, struct error *err)
{
	*ret = (struct engine_target)ENGINE_TARGET_INIT;
	int r = take_address(url, ret, err);
	if (r < 0)
		engine_target_release(ret);
	return r;
}

bool engine_target_is_elsewhere(const struct engine_target *t)
{
	static const char *const here[] = {"localhost", "127.", "[::1]"};
	const char *host = t->http_url ? strstr(t->http_url, "://") : NULL;
	for (size_t i = 0; host && i < sizeof here / sizeof *here; i++)
		if (!strncmp(host + 3, here[i], strlen(here[i])))
			return false;
	return host;
}

/* DOCKER_TLS_VERIFY and DOCKER_CERT_PATH, for an address of DOCKER_HOST. */
static void take_tls_of_environment(const struct engine_places *places, struct engine_target *ret)
{
	cleanup_free char *config = engine_config_dir(places);
	const char *dir = engine_variable(places, "DOCKER_CERT_PATH");
	if (!engine_variable(places, "DOCKER_TLS_VERIFY") || !(dir = dir ? dir : config))
		return;
	ret->ca = xasprintf("%s/ca.pem", dir);
	ret->cert = xasprintf("%s/cert.pem", dir);
	ret->key = xasprintf("%s/key.pem", dir);
}

/* "host:port" is one of TCP, as docker reads it. */
static int take_variable(const char *name, const char *value, struct engine_target *ret, struct error *err)
{
	bool bare = *value != '/' && !strstr(value, "://") && strchr(value, ':');
	cleanup_free char *url = xasprintf("%s%s", bare ? "tcp://" : "", value);
	ret->from = xstrdup(name);
	int r = take_address(url, ret, err);
	if (r < 0)
		error_prefix(err, "%s", name);
	return r;
}

/* ---- contexts ---- */

static void hash_of_name(const char *name, char hex[SHA256_HEX])
{
	struct sha256 h;
	sha256_begin(&h);
	sha256_add(&h, name, strlen(name));
	sha256_end(&h, hex);
}

static char *file_if_there(const char *dir, const char *hex, const char *name)
{
	char *path = xasprintf("%s/contexts/tls/%s/docker/%s", dir, hex, name);
	if (access(path, F_OK) == 0)
		return path;
	free(path);
	return NULL;
}

static int take_context(const char *dir, const char *name, const char *from, struct engine_target *ret, struct error *err)
{
	char hex[SHA256_HEX];
	hash_of_name(name, hex);
	cleanup_free char *path = xasprintf("%s/contexts/meta/%s/meta.json", dir, hex);
	const char *host = NULL;
	json_error_t why;
	json_t *meta = json_load_file(path, 0, &why);
	if (meta)
		json_unpack(meta, "{s:{s:{s:s}}}", "Endpoints", "docker", "Host", &host);
	int r = 0;
	if (host) {
		ret->ca = file_if_there(dir, hex, "ca.pem");
		ret->cert = file_if_there(dir, hex, "cert.pem");
		ret->key = file_if_there(dir, hex, "key.pem");
		r = take_address(host, ret, err);
	} else {
		error_set(err, ERROR_CONFIG_INVALID, "docker's context '%s' (%s) cannot be read: %s", name, from, meta ? "it names no host" : why.text);
		r = error_hint(err, "docker context ls");
	}
	if (r == 0)
		ret->from = xasprintf("context %s (%s)", name, from);
	else if (host)
		error_prefix(err, "docker's context '%s' (%s)", name, from);
	json_decref(meta);
	return r;
}

/* new: NULL: none is set */
static char *current_context(const char *dir)
{
	cleanup_free char *path = xasprintf("%s/config.json", dir);
	const char *name = NULL;
	json_t *config = json_load_file(path, 0, NULL);
	if (config)
		json_unpack(config, "{s:s}", "currentContext", &name);
	char *copy = name && *name ? xstrdup(name) : NULL;
	json_decref(config);
	return copy;
}

/* ---- sockets ---- */

struct candidate {
	char *path;
	const char *from;
};

/* NULL: there is none */
static const struct candidate *first_with(const struct candidate *candidates, size_t count, int mode)
{
	for (size_t i = 0; i < count; i++)
		if (candidates[i].path && faccessat(AT_FDCWD, candidates[i].path, mode, AT_EACCESS) == 0)
			return &candidates[i];
	return NULL;
}

/* One that this user may use comes first: beside a rootless engine there is often a system's own, which is closed to him. */
static int take_first(struct candidate *candidates, size_t count, const char *name, struct engine_target *ret, struct error *err)
{
	cleanup_buffer struct buffer looked = BUFFER_INIT;
	const struct candidate *first = first_with(candidates, count, R_OK | W_OK);
	first = first ? first : first_with(candidates, count, F_OK);
	cleanup_free char *url = first ? xasprintf("unix://%s", first->path) : NULL;
	ret->from = first ? xstrdup(first->from) : NULL;
	for (size_t i = 0; i < count; i++) {
		if (candidates[i].path)
			buffer_printf(&looked, "%s%s", looked.len ? ", " : "", candidates[i].path);
		free(candidates[i].path);
	}
	if (url)
		return take_address(url, ret, err);
	error_set(err, ERROR_BACKEND_UNREACHABLE, "there is no socket of %s", name);
	return error_hint(err, "looked for %s; is it installed, and does it run?", buffer_str(&looked));
}

static int find_docker(const struct engine_places *places, struct engine_target *ret, struct error *err)
{
	const char *host = engine_variable(places, "DOCKER_HOST"), *context = engine_variable(places, "DOCKER_CONTEXT");
	const char *runtime = engine_variable(places, "XDG_RUNTIME_DIR"), *home = engine_variable(places, "HOME");
	cleanup_free char *dir = engine_config_dir(places);
	cleanup_free char *current = dir ? current_context(dir) : NULL;
	if (host) {
		take_tls_of_environment(places, ret);
		return take_variable("DOCKER_HOST", host, ret, err);
	}
	const char *name = context ? context : current, *from = context ? "DOCKER_CONTEXT" : "currentContext of config.json";
	if (name && strcmp(name, "default") && dir)
		return take_context(dir, name, from, ret, err);
	struct candidate candidates[] = {
	    {xasprintf("%s/run/docker.sock", places->run), "the default socket"},
	    {runtime ? xasprintf("%s/docker.sock", runtime) : NULL, "the socket of rootless Docker"},
	    {home ? xasprintf("%s/.docker/run/docker.sock", home) : NULL, "the socket of rootless Docker"},
	};
	return take_first(candidates, sizeof candidates / sizeof *candidates, "Docker", ret, err);
}

static int find_podman(const struct engine_places *places, struct engine_target *ret, struct error *err)
{
	const char *host = engine_variable(places, "CONTAINER_HOST"), *runtime = engine_variable(places, "XDG_RUNTIME_DIR");
	ret->podman = true;
	if (host)
		return take_variable("CONTAINER_HOST", host, ret, err);
	struct candidate candidates[] = {
	    {places->uid == 0 ? xasprintf("%s/run/podman/podman.sock", places->run) : NULL, "the system's socket"},
	    {runtime ? xasprintf("%s/podman/podman.sock", runtime) : NULL, "the user's socket"},
	    {places->uid ? xasprintf("%s/run/podman/podman.sock", places->run) : NULL, "the system's socket"},
	};
	return take_first(candidates, sizeof candidates / sizeof *candidates, "Podman", ret, err);
}

int engine_target_find(const char *asked, const struct engine_places *places, struct engine_target *ret, struct error *err)
{
	*ret = (struct engine_target)ENGINE_TARGET_INIT;
	int r;
	if (!strcmp(asked, "docker")) {
		r = find_docker(places, ret, err);
	} else if (!strcmp(asked, "podman")) {
		r = find_podman(places, ret, err);
	} else {
		ret->from = xstrdup("x-aether.backend");
		r = take_address(asked, ret, err);
	}
	if (r < 0)
		engine_target_release(ret);
	return r;
}
