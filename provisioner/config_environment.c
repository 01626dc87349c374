#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/config_private.h"

#define VARIABLES_MAX 5000 /* of one list */

/* A name alone: from where the caller stands; not set there, the service does not have it either. */
static void take_from_caller(const struct field *f, const char *key, struct keyvals *out)
{
	f->reader->file = f->file;
	const char *value = loading_variable(loading_of(f), key);
	if (value)
		keyvals_set(out, key, value);
}

static int read_listed(const struct field *f, struct keyvals *out)
{
	cleanup_free char *text = NULL;
	if (f->node->type == YAML_MAP) {
		int r = field_expected(f, "KEY=value");
		error_hint(f->reader->err, "write `- KEY=value`, or leave out the dashes");
		return r;
	}
	if (f->node->type != YAML_SCALAR)
		return field_expected(f, "KEY=value");
	int r = field_text(f, &text);
	if (r < 0)
		return r;
	char *equals = strchr(text, '=');
	if (equals)
		*equals = '\0';
	if (!*text)
		return field_expected(f, "KEY=value");
	if (equals)
		keyvals_set(out, text, equals + 1);
	else
		take_from_caller(f, text, out);
	return 0;
}

static int read_mapped(const struct field *f, struct keyvals *out)
{
	cleanup_free char *text = NULL;
	if (!*f->key || strchr(f->key, '='))
		return field_key_error(f, "expected the name of a variable");
	if (field_is_null(f)) {
		take_from_caller(f, f->key, out);
		return 0;
	}
	if (f->node->type != YAML_SCALAR)
		return field_expected(f, "a text");
	int r = field_text(f, &text);
	if (r == 0)
		keyvals_set(out, f->key, text);
	return r;
}

int read_variables(const struct field *f, void *out)
{
	if (f->node->type != YAML_MAP && f->node->type != YAML_LIST)
		return field_expected(f, "variables: a mapping, or a list of KEY=value");
	if (f->node->count > VARIABLES_MAX)
		return field_error(f, "more than %d variables", VARIABLES_MAX);
	int r = 0;
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field child = field_child(f, i);
		r = child.key ? read_mapped(&child, out) : read_listed(&child, out);
	}
	return r;
}

int read_environment(const struct field *f, void *out)
{
	struct config_service *s = out;
	return read_variables(f, &s->environment);
}

/* ---- env_file ---- */

struct env_file {
	char *path;
	bool required, raw;
};

static int read_path(const struct field *f, void *out)
{
	return field_string(f, &((struct env_file *)out)->path);
}

static int read_required(const struct field *f, void *out)
{
	return field_bool(f, &((struct env_file *)out)->required);
}

static int read_format(const struct field *f, void *out)
{
	static const char *const words[] = {"raw", NULL};
	size_t i;
	((struct env_file *)out)->raw = true;
	return field_choice(f, words, &i);
}

static const struct field_reader env_file_fields[] = {
    {"path", read_path},
    {"required", read_required},
    {"format", read_format},
    {NULL, NULL},
};

/* It is mostly the built application's, which nobody may want to start here: no reason to have no database. */
static void note_missing(const struct field *f, struct config_service *s, const char *path, int r)
{
	struct error *err = f->reader->err;
	if (error_is_set(&s->fault))
		return;
	f->reader->err = &s->fault;
	field_error(f, "%s: %s", path, strerror(-r));
	error_hint(&s->fault, "{ path: %s, required: false } passes over a file that is not there", path);
	f->reader->err = err;
}

static int take_env_file(const struct field *f, struct config_service *s, const char *path, bool required, bool raw)
{
	struct loading *l = loading_of(f);
	bool outside = false;
	if (!path || !*path)
		return field_error(f, "expected the path of a file");
	int r = loading_read_env_file(l, path, raw, &l->env_files, &outside);
	if (outside && r == 0)
		approve_text(f, path);
	bool missing = r == -ENOENT || r == -ENOTDIR;
	if (missing && required)
		note_missing(f, s, path, r);
	return r == 0 || missing ? 0 : field_error(f, "%s: %s", path, strerror(-r));
}

static int read_one(const struct field *f, struct config_service *s)
{
	struct env_file file = {NULL, true, false};
	int r = f->node->type == YAML_MAP      ? field_read_map(f, env_file_fields, UNKNOWN_WARNS, "a path", &file)
	        : f->node->type == YAML_SCALAR ? field_text(f, &file.path)
	                                       : field_expected(f, "a path");
	if (r == 0)
		r = take_env_file(f, s, file.path, file.required, file.raw);
	free(file.path);
	return r;
}

int read_env_file(const struct field *f, void *out)
{
	if (f->node->type != YAML_LIST)
		return read_one(f, out);
	int r = 0;
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field item = field_child(f, i);
		r = read_one(&item, out);
	}
	return r;
}
