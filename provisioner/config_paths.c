/* Paths of a file that lies elsewhere (include, extends), as they are from where the configuration's own begin. Compose makes them
 * absolute; here they stay relative, for what they name may be in the workspace or in the main checkout alone. */
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/config_private.h"

char *config_path_normalized(const char *path)
{
	cleanup_strv char **parts = NULL;
	struct buffer out = BUFFER_INIT;
	while (*path) {
		size_t len = strcspn(path, "/"), n = strv_len(parts);
		if (len == 2 && !strncmp(path, "..", 2) && n && strcmp(parts[n - 1], "..")) {
			free(parts[n - 1]);
			parts[n - 1] = NULL;
		} else if (len && !(len == 1 && *path == '.')) {
			strv_push(&parts, xstrndup(path, len));
		}
		path += len + (path[len] == '/');
	}
	for (char **part = parts; part && *part; part++)
		buffer_printf(&out, "%s%s", out.len ? "/" : "", *part);
	if (!out.len)
		buffer_adds(&out, ".");
	return buffer_detach(&out);
}

char *config_path_join(const char *directory, const char *path)
{
	if (*path == '/' || *path == '~' || strstr(path, "://"))
		return xstrdup(path);
	cleanup_free char *whole = xasprintf("%s/%s", directory, path), *plain = config_path_normalized(*directory ? whole : path);
	return *directory == '/' ? xasprintf("/%s", plain) : *directory == '~' ? xstrdup(whole) : move_ptr(plain);
}

char *config_path_parent(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash == path ? xstrdup("/") : slash ? xstrndup(path, (size_t)(slash - path)) : xstrdup("");
}

/* What a path is a part of. */
enum form {
	PATH,     /* the whole text */
	CONTEXT,  /* of a build: may be a URL */
	MOUNT,    /* SOURCE:TARGET, or a mapping with a source that is bound */
	CONTEXTS, /* NAME=CONTEXT, or a mapping */
	DRIVER,   /* options of the local driver of volumes, which may bind */
};

struct moving {
	struct yaml_document *doc;
	const char *directory;
};

static bool is_elsewhere(const char *text)
{
	static const char *const beginnings[] = {"git@", "github.com/", "service:"};
	for (size_t i = 0; i < sizeof beginnings / sizeof *beginnings; i++)
		if (!strncmp(text, beginnings[i], strlen(beginnings[i])))
			return true;
	return strstr(text, "://") != NULL;
}

static char *double_dollars(const char *text)
{
	struct buffer out = BUFFER_INIT;
	for (; *text; text++) {
		buffer_addc(&out, *text);
		if (*text == '$')
			buffer_addc(&out, '$');
	}
	return buffer_detach(&out);
}

/* new: what the text becomes; NULL: it stays */
static char *moved_text(const struct moving *m, enum form form, const char *text)
{
	if (!*text || *text == '/' || *text == '~' || ((form == CONTEXT || form == CONTEXTS) && is_elsewhere(text)))
		return NULL;
	if (form == CONTEXTS) {
		const char *equals = strchr(text, '=');
		cleanup_free char *path = equals ? moved_text(m, CONTEXT, equals + 1) : NULL;
		return path ? xasprintf("%.*s=%s", (int)(equals - text), text, path) : NULL;
	}
	if (form != MOUNT)
		return config_path_join(m->directory, text);
	const char *colon = strchr(text, ':');
	if (*text != '.' || !colon)
		return NULL;
	cleanup_free char *source = xstrndup(text, (size_t)(colon - text)), *path = config_path_join(m->directory, source);
	return xasprintf("%s%s%s", strchr("./", *path) ? "" : "./", path, colon);
}

/* A text with variables is read now: it is the path that they make which moves. */
static int move_text(const struct moving *m, enum form form, const struct field *f, const struct yaml **ret)
{
	cleanup_free char *text = NULL;
	*ret = f->node;
	if (f->node->type != YAML_SCALAR)
		return 0;
	bool variables = strchr(f->node->text, '$') != NULL;
	int r = variables ? field_text(f, &text) : 0;
	if (r < 0)
		return r;
	cleanup_free char *moved = moved_text(m, form, variables ? text : f->node->text);
	if (!moved)
		return 0;
	cleanup_free char *kept = variables ? double_dollars(moved) : xstrdup(moved);
	struct yaml *node = yaml_new(m->doc, YAML_SCALAR, f->node);
	yaml_set_text(node, kept);
	*ret = node;
	return 0;
}

/* ---- maps and lists ---- */

static const char *text_of(const struct yaml *map, const char *key)
{
	const struct yaml *value = yaml_get(map, key);
	return value && value->type == YAML_SCALAR ? value->text : "";
}

typedef int mover(const struct moving *m, const struct field *f, const void *arg, const struct yaml **ret);

/* A copy of a mapping or list with each value moved that `key` (NULL: any) stands for. */
static int move_each(const struct moving *m, const struct field *f, const char *key, mover *move, const void *arg, const struct yaml **ret)
{
	const struct yaml *old = f->node;
	struct yaml *copy = yaml_new(m->doc, old->type, old);
	int r = 0;
	copy->change = old->change;
	*ret = copy;
	for (size_t i = 0; r == 0 && i < old->count; i++) {
		struct field child = field_child(f, i);
		const struct yaml *value = child.node;
		if (!key || (child.key && !strcmp(child.key, key)))
			r = move(m, &child, arg, &value);
		if (old->type == YAML_MAP)
			yaml_add_pair(copy, child.key, &old->pairs[i], value);
		else
			yaml_add_item(copy, value);
	}
	return r;
}

struct rule {
	const char *path; /* `*`: each of a mapping or list; `?`: each of a list, or the one text in its place */
	enum form form;
};

static int move_at(const struct moving *m, const struct field *f, const char *path, enum form form, const struct yaml **ret);

static int move_below(const struct moving *m, const struct field *f, const void *arg, const struct yaml **ret)
{
	const struct rule *rule = arg;
	return move_at(m, f, rule->path, rule->form, ret);
}

static bool is_moved_map(const struct yaml *map, enum form form)
{
	if (form == MOUNT)
		return !strcmp(text_of(map, "type"), "bind");
	return form == DRIVER && strstr(text_of(map, "o"), "bind");
}

static int move_value(const struct moving *m, const struct field *f, enum form form, const struct yaml **ret)
{
	static const struct rule whole = {"", PATH};
	*ret = f->node;
	if (f->node->type == YAML_SCALAR)
		return form == DRIVER ? 0 : move_text(m, form, f, ret);
	if (form == CONTEXTS && f->node->type == YAML_LIST)
		return move_each(m, f, NULL, move_below, &(struct rule){"", CONTEXTS}, ret);
	if (form == CONTEXTS && f->node->type == YAML_MAP)
		return move_each(m, f, NULL, move_below, &(struct rule){"", CONTEXT}, ret);
	if (f->node->type != YAML_MAP || !is_moved_map(f->node, form))
		return 0;
	return move_each(m, f, form == DRIVER ? "device" : *text_of(f->node, "src") ? "src" : "source", move_below, &whole, ret);
}

static int move_at(const struct moving *m, const struct field *f, const char *path, enum form form, const struct yaml **ret)
{
	size_t len = strcspn(path, ".");
	const struct rule rest = {path[len] ? path + len + 1 : "", form};
	const struct yaml *node = f->node;
	*ret = node;
	if (!*path)
		return move_value(m, f, form, ret);
	bool any = len == 1 && *path == '*', list = len == 1 && *path == '?';
	if (list && node->type == YAML_SCALAR && !*rest.path)
		return move_value(m, f, form, ret);
	if (list ? node->type != YAML_LIST : node->type != YAML_MAP && !(any && node->type == YAML_LIST))
		return 0;
	cleanup_free char *key = any || list ? NULL : xstrndup(path, len);
	struct field child;
	return key && !field_find(f, key, &child) ? 0 : move_each(m, f, key, move_below, &rest, ret);
}

/* ---- what holds paths ---- */

/* compose-spec 05-services, 08-configs, 09-secrets, 07-volumes */
static const struct rule of_service[] = {
    {"build", CONTEXT},    {"build.context", CONTEXT}, {"build.additional_contexts", CONTEXTS},
    {"env_file.?", PATH},  {"env_file.*.path", PATH},  {"label_file.?", PATH},
    {"volumes.*", MOUNT},  {"develop.watch.*.path", PATH},
};

static const struct rule of_top[] = {
    {"configs.*.file", PATH},
    {"secrets.*.file", PATH},
    {"volumes.*.driver_opts", DRIVER},
};

static int move_by(const struct moving *m, const struct field *f, const struct rule *rules, size_t n, const struct yaml **ret)
{
	struct field now = *f;
	int r = 0;
	for (size_t i = 0; r == 0 && i < n; i++) {
		r = move_at(m, &now, rules[i].path, rules[i].form, ret);
		now.node = *ret;
	}
	return r;
}

int config_paths_of_service(struct yaml_document *doc, const struct field *service, const char *directory, const struct yaml **ret)
{
	const struct moving m = {doc, directory};
	*ret = service->node;
	return *directory ? move_by(&m, service, of_service, sizeof of_service / sizeof *of_service, ret) : 0;
}

int config_paths_of_top(struct yaml_document *doc, const struct field *root, const char *directory, const struct yaml **ret)
{
	const struct moving m = {doc, directory};
	*ret = root->node;
	return *directory ? move_by(&m, root, of_top, sizeof of_top / sizeof *of_top, ret) : 0;
}
