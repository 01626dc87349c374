/* `x-aether.env_files`: virtual files beside `.env`, and which services have others in their place there. A compose file may be a
 * stranger's: a path stays below the workspace, away from what the VCS keeps there, and ends in a name that only env files have. */
#include <ctype.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/config_private.h"
#include "provisioner/env_name.h"

#define PATH_BYTES_MAX 200

/* ---- the path ---- */

static bool is_kept_away(const char *component, size_t len)
{
	static const char *const names[] = {"", ".", "..", ".git", ".jj", ".hg", ".aether"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strlen(names[i]) == len && !strncasecmp(names[i], component, len))
			return true;
	return false;
}

static bool has_plain_components(const char *path)
{
	for (const char *at = path;; at++) {
		size_t len = strcspn(at, "/");
		if (is_kept_away(at, len))
			return false;
		at += len;
		if (!*at)
			return true;
	}
}

static bool has_plain_characters(const char *path)
{
	while (isalnum((unsigned char)*path) || (*path && strchr("._-/@+", *path)))
		path++;
	return !*path;
}

static int check_path(const struct field *f)
{
	const char *slash = strrchr(f->key, '/'), *name = slash ? slash + 1 : f->key;
	for (size_t i = 0; env_names[i]; i++)
		if (!strcmp(f->key, env_names[i]) && i != 1) /* .env.local may be one, where it is not the name of all */
			return field_key_error(f, "%s is there already, as the workspace's own", f->key);
	if (strlen(f->key) > PATH_BYTES_MAX || !has_plain_characters(f->key) || !has_plain_components(f->key))
		return field_key_error(f, "expected a path below the workspace, of letters, digits and ._-/@+, outside of .git, .jj and .aether");
	if (!env_name_is_possible(name))
		return field_key_error(f, "expected a name that begins with .env or ends in .env");
	return 0;
}

/* ---- the fields ---- */

static int read_services_map(const struct field *f, void *out)
{
	struct config_env_file *file = out;
	const struct config *c = loading_of(f)->config;
	if (f->node->type != YAML_MAP)
		return field_expected(f, "a mapping of services to those that stand for them");
	int r = 0;
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field child = field_child(f, i);
		cleanup_free char *to = NULL;
		if (!config_service(c, child.key)) {
			const char *near = nearest_service(c, child.key);
			r = field_key_error(&child, "there is no service '%s'", child.key);
			if (near)
				error_hint(f->reader->err, "did you mean %s?", near);
		}
		if (r == 0)
			r = field_text(&child, &to);
		if (r == 0 && !config_service(c, to))
			r = field_error(&child, "there is no service '%s'", to);
		if (r == 0)
			keyvals_set(&file->services, child.key, to);
	}
	return r;
}

static int add_env(const struct field *variable, const char *text, void *arg)
{
	struct config_env_file *file = arg;
	keyvals_set(&file->env, variable->key, text);
	return 0;
}

static int read_env(const struct field *f, void *out)
{
	return read_templates(f, add_env, out);
}

static const struct field_reader fields[] = {
    {"services", read_services_map},
    {"env", read_env},
    {NULL, NULL},
};

int read_env_files(const struct field *f, void *out)
{
	struct config *c = out;
	if (f->node->type != YAML_MAP)
		return field_expected(f, "a mapping of paths");
	if (f->node->count > CONFIG_ENV_FILES_MAX)
		return field_error(f, "more than %d env_files", CONFIG_ENV_FILES_MAX);
	int r = 0;
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field child = field_child(f, i);
		r = check_path(&child);
		if (r < 0)
			return r;
		array_grow(c->more_files, c->n_more_files);
		struct config_env_file *file = &c->more_files[c->n_more_files++];
		*file = (struct config_env_file){.path = xstrdup(child.key)};
		if (!field_is_null(&child))
			r = field_read_map(&child, fields, UNKNOWN_FAILS, "a mapping with services or env", file);
	}
	return r;
}

/* ---- services of their own ---- */

static int copies_of(struct loading *l, const struct field *services,
                     int (*copy)(struct loading *l, const struct field *name, const char *from, const char *to))
{
	int r = 0;
	for (size_t i = 0; r == 0 && services->node->type == YAML_MAP && i < services->node->count; i++) {
		struct field child = field_child(services, i);
		cleanup_free char *to = NULL;
		if (child.node->type != YAML_SCALAR)
			continue; /* read_env_files will say so */
		r = field_text(&child, &to);
		if (r == 0 && config_service(l->config, child.key) && !config_service(l->config, to))
			r = copy(l, &child, child.key, to);
	}
	return r;
}

int env_files_copies(struct loading *l, int (*copy)(struct loading *l, const struct field *name, const char *from, const char *to))
{
	struct field root = field_root(&l->reader, l->root), aether, files, services;
	int r = 0;
	if (!field_find(&root, "x-aether", &aether) || aether.node->type != YAML_MAP || !field_find(&aether, "env_files", &files) ||
	    files.node->type != YAML_MAP)
		return 0;
	for (size_t i = 0; r == 0 && i < files.node->count && i < CONFIG_ENV_FILES_MAX; i++) {
		struct field file = field_child(&files, i);
		if (file.node->type == YAML_MAP && field_find(&file, "services", &services))
			r = copies_of(l, &services, copy);
	}
	return r;
}
