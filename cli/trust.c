#include "cli/trust.h"

#include <fcntl.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "cli/configuration.h"
#include "cli/registry.h"
#include "provisioner/envset.h"
#include "provisioner/layers.h"
#include "provisioner/main_layer.h"
#include "provisioner/recipe.h"
#include "provisioner/trust.h"

#define TRIES 5 /* while the files change under our hands */

extern char **environ;

/* ---- without a mount ---- */

static void read_variables(const struct identity *id, int root_fd, struct keyvals *ret)
{
	cleanup_buffer struct buffer own = BUFFER_INIT;
	cleanup_keyvals struct keyvals user = KEYVALS_INIT;
	if (id->main_root && strcmp(id->main_root, id->root))
		configuration_read_env(id->main_root, ret);
	layers_user_text(id, root_fd, &own);
	envset_user(NULL, buffer_str(&own), &user);
	keyvals_copy(ret, &user);
}

static int load_config(const struct identity *id, struct recipes *recipes, struct config **ret, struct error *err)
{
	cleanup_keyvals struct keyvals variables = KEYVALS_INIT;
	cleanup_close int root_fd = open(id->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root_fd < 0)
		return error_set_errno(err, ERROR_CONFIG_NOT_FOUND, errno, "%s", id->root);
	read_variables(id, root_fd, &variables);
	const struct config_params params = {.root_fd = root_fd,
	                                     .root = id->root,
	                                     .main_root = id->main_root,
	                                     .search_upwards = id->kind == WORKSPACE_PLAIN,
	                                     .variables = &variables,
	                                     .environ_ = environ,
	                                     .recipes = recipes};
	return config_load(&params, ret, err);
}

static int look(const struct identity *id, const char *approve, json_t **ret, struct error *err)
{
	cleanup_store struct store *store = NULL;
	cleanup_trust struct trust trust = TRUST_INIT;
	struct recipes *recipes = NULL;
	struct config *config = NULL;
	int r = recipes_load_default(&recipes, err);
	if (!r)
		r = load_config(id, recipes, &config, err);
	if (!r)
		r = store_open(id->shared_dir, &store, err);
	if (!r)
		r = trust_look(store, id->repository, config, approve, &trust, err);
	if (!r)
		*ret = trust_json(&trust);
	config_free(config);
	recipes_free(recipes);
	return r;
}

/* ---- with one ---- */

static int read_file(const struct client *c, json_t **ret, struct error *err)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	int r = client_command(c, "refresh", err);
	if (!r)
		r = client_read(c, "trust.json", &text, err);
	if (r)
		return r;
	*ret = json_loads(buffer_str(&text), 0, NULL);
	return *ret ? 0 : error_set(err, ERROR_INTERNAL, "%s/trust.json is no JSON", c->control);
}

/* ---- either ---- */

int trust_read(const struct client *c, json_t **ret, struct error *err)
{
	return c->mounted ? read_file(c, ret, err) : look(&c->id, NULL, ret, err);
}

static int approve_hash(const struct client *c, const char *hash, struct error *err)
{
	json_t *now = NULL;
	cleanup_free char *line = xasprintf("approve %s", hash);
	if (c->mounted)
		return client_command(c, line, err);
	int r = look(&c->id, hash, &now, err);
	if (!r && !json_is_true(json_object_get(now, "approved")))
		r = error_set(err, ERROR_CONFIG_UNTRUSTED, "the configuration of %s has changed since it was looked at", c->id.root);
	json_decref(now);
	return r;
}

static int approve_once(const struct client *c, json_t **ret, struct error *err)
{
	json_t *trust = NULL;
	int r = trust_read(c, &trust, err);
	if (r)
		return r;
	const char *hash = json_string_value(json_object_get(trust, "hash"));
	if (hash && *hash && !json_is_true(json_object_get(trust, "approved")))
		r = approve_hash(c, hash, err);
	if (!r && ret)
		*ret = json_incref(json_object_get(trust, "changes"));
	json_decref(trust);
	return r;
}

int trust_approve(const struct client *c, json_t **ret, struct error *err)
{
	for (int i = 1;; i++) {
		cleanup_error struct error why = ERROR_INIT;
		int r = approve_once(c, ret, &why);
		if (r && why.code == ERROR_CONFIG_UNTRUSTED && i < TRIES)
			continue;
		if (r)
			error_move(err, &why);
		return r;
	}
}

int trust_withdraw(const struct client *c, struct error *err)
{
	cleanup_store struct store *store = NULL;
	cleanup_error struct error why = ERROR_INIT;
	int r = store_open(c->id.shared_dir, &store, err);
	if (!r)
		r = store_revoke(store, c->id.repository, err);
	/* the servers of the other workspaces ask the store before they start anything */
	if (r >= 0 && c->mounted)
		client_command(c, "reload", &why);
	return r < 0 ? r : 0;
}

void trust_print_changes(const json_t *changes, void (*line)(const char *fmt, ...), size_t max)
{
	size_t n = json_array_size(changes);
	for (size_t i = 0; i < n && i < max; i++) {
		const json_t *one = json_array_get(changes, i);
		const char *field = json_string_value(json_object_get(one, "field"));
		const char *before = json_string_value(json_object_get(one, "before")), *now = json_string_value(json_object_get(one, "now"));
		if (before && now && !strcmp(before, now)) {
			line("~ %s: %s (in what is not shown)", field, now);
			continue;
		}
		if (before)
			line("- %s: %s", field, before);
		if (now)
			line("+ %s: %s", field, now);
	}
	if (n > max)
		line("  and %zu more", n - max);
}
