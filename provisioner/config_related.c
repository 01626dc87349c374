/* `extends` and `include`: services of other files, laid beneath or beside the file's own, before files are laid on each other.
 * https://github.com/compose-spec/compose-spec/blob/main/05-services.md#extends and 14-include.md; where docker compose 2.40 does
 * more (it inherits depends_on, links and volumes_from) or takes another directory, it is followed. */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/config_private.h"

#define EXTENDS_DEPTH_MAX 50
#define INCLUDE_DEPTH_MAX 20
#define INCLUDES_MAX 1000   /* followed, the same file again counted again */
#define RESOURCES_MAX 10000 /* of one kind, with those of included files */

/* One read file and what its texts mean. */
struct file {
	struct yaml_document *doc;
	const char *path;          /* absolute */
	const char *directory;     /* where its relative paths begin, seen from where the configuration's begin; "": there */
	const struct keyvals *env; /* of the include that it came by; NULL: none */
	const struct file *by;     /* whose include that was; NULL: none */
	unsigned depth;
};

struct related {
	struct file file; /* owns path */
};

/* ---- reading ---- */

const char *related_variable(const struct loading *l, const char *file, const char *name)
{
	for (size_t i = 0; file && i < l->n_related; i++)
		if (l->related[i].file.env && yaml_root(l->related[i].file.doc)->file == file)
			return keyvals_get(l->related[i].file.env, name);
	return NULL;
}

void related_release(struct loading *l)
{
	for (size_t i = 0; i < l->n_related; i++)
		free((char *)(uintptr_t)l->related[i].file.path);
	free(l->related);
	for (size_t i = 0; i < l->n_included_envs; i++) {
		keyvals_release(l->included_envs[i]);
		free(l->included_envs[i]);
	}
	free(l->included_envs);
}

/* *ret's directory is left to the caller. The same file with the same variables is read once. */
static int read_related(struct loading *l, const struct file *by, const struct field *f, const char *path, const struct keyvals *env,
                        struct file *ret)
{
	cleanup_free char *known = loading_find_file(l, path), *found = NULL;
	if (known && by->env == env && !strcmp(by->path, known)) {
		*ret = *by;
		return 0;
	}
	for (size_t i = 0; known && i < l->n_related; i++)
		if (l->related[i].file.env == env && !strcmp(l->related[i].file.path, known)) {
			*ret = l->related[i].file;
			return 0;
		}
	struct yaml_document *doc;
	int r = loading_read_file(l, f, path, &found, &doc);
	if (r < 0)
		return r;
	array_grow(l->related, l->n_related);
	l->related[l->n_related].file = (struct file){.doc = doc, .path = move_ptr(found), .env = env};
	*ret = l->related[l->n_related++].file;
	return 0;
}

/* ---- extends ---- */

struct extension {
	const struct extension *up;
	const char *path, *service;
	unsigned depth;
};

struct extends {
	char *service, *file;
};

static int read_extended_service(const struct field *f, void *out)
{
	return field_string(f, &((struct extends *)out)->service);
}

static int read_extended_file(const struct field *f, void *out)
{
	return field_string(f, &((struct extends *)out)->file);
}

static const struct field_reader extends_fields[] = {
    {"service", read_extended_service},
    {"file", read_extended_file},
    {NULL, NULL},
};

static void extends_release(struct extends *e)
{
	free(e->service);
	free(e->file);
}

static int read_extends(const struct field *f, struct extends *ret)
{
	static const char what[] = "the name of a service, or a mapping with service and file";
	int r = f->node->type == YAML_SCALAR ? field_string(f, &ret->service) : field_read_map(f, extends_fields, UNKNOWN_WARNS, what, ret);
	return r < 0 || (ret->service && *ret->service) ? r : field_expected(f, what);
}

/* Written out, as far as `left`. */
static size_t count_nodes(const struct yaml *node, size_t left)
{
	size_t n = 1;
	for (size_t i = 0; i < node->count && n < left; i++)
		n += count_nodes(node->type == YAML_MAP ? node->pairs[i].value : node->items[i], left - n);
	return n;
}

static int count_merged(struct loading *l, const struct field *f, const struct yaml *node)
{
	l->merged_nodes += count_nodes(node, CONFIG_EXPANDED_MAX);
	return l->merged_nodes < CONFIG_EXPANDED_MAX ? 0 : field_error(f, "more than %u values, with extends followed", CONFIG_EXPANDED_MAX);
}

static const struct yaml *without(struct yaml_document *doc, const struct yaml *map, const char *key)
{
	struct yaml *rest = yaml_new(doc, YAML_MAP, map);
	rest->change = map->change;
	for (size_t i = 0; i < map->count; i++)
		if (strcmp(map->pairs[i].key, key))
			yaml_add_pair(rest, map->pairs[i].key, &map->pairs[i], map->pairs[i].value);
	return rest;
}

static int resolve_service(struct loading *l, const struct file *file, const struct field *service, const struct extension *up,
                           const struct yaml **ret);

static int no_service(const struct field *f, const struct field *services, const char *name, const struct file *in)
{
	cleanup_free const char **names = xcalloc(services->node->count + 1, sizeof *names);
	for (size_t i = 0; i < services->node->count; i++)
		names[i] = services->node->pairs[i].key;
	int r = field_error(f, "there is no service '%s' in %s", name, yaml_root(in->doc)->file);
	const char *near = nearest_name(name, names);
	if (near)
		error_hint(f->reader->err, "did you mean %s?", near);
	return r;
}

static int circle(const struct field *f, const struct extension *way, const char *to)
{
	char **names = NULL;
	cleanup_buffer struct buffer text = BUFFER_INIT;
	for (; way; way = way->up)
		strv_push(&names, xstrdup(way->service));
	for (size_t n = strv_len(names); n-- > 0;)
		buffer_printf(&text, "%s -> ", names[n]);
	strv_free(names);
	return field_error(f, "services extend each other in a circle: %s%s", buffer_str(&text), to);
}

static int resolve_base(struct loading *l, const struct file *file, const struct field *extends, const struct extends *what,
                        const struct extension *up, const struct yaml **ret)
{
	struct file other = *file;
	cleanup_free char *directory = NULL;
	if (what->file) {
		cleanup_free char *path = config_path_join(file->directory, what->file);
		int r = read_related(l, file, extends, path, file->env, &other);
		if (r < 0)
			return r;
		other.directory = directory = config_path_parent(path);
	}
	struct field root = field_root(&l->reader, yaml_root(other.doc)), services, service;
	if (!field_find(&root, "services", &services) || services.node->type != YAML_MAP)
		return field_error(extends, "there are no services in %s", root.file);
	if (!field_find(&services, what->service, &service))
		return no_service(extends, &services, what->service, &other);
	for (const struct extension *e = up; e; e = e->up)
		if (!strcmp(e->path, other.path) && !strcmp(e->service, what->service))
			return circle(extends, up, what->service);
	if (up->depth == EXTENDS_DEPTH_MAX)
		return field_error(extends, "services extend each other more than %d deep", EXTENDS_DEPTH_MAX);
	return resolve_service(l, &other, &service, up, ret);
}

/* The service with what it extends, its paths seen from where the configuration's begin. */
static int resolve_service(struct loading *l, const struct file *file, const struct field *service, const struct extension *up,
                           const struct yaml **ret)
{
	__attribute__((cleanup(extends_release))) struct extends what = {NULL, NULL};
	const struct extension self = {up, file->path, service->key, up ? up->depth + 1 : 0};
	const struct yaml *base = NULL, *own;
	struct field extends;
	int r = config_paths_of_service(file->doc, service, file->directory, ret);
	if (r < 0 || service->node->type != YAML_MAP || !field_find(service, "extends", &extends))
		return r;
	own = without(file->doc, *ret, "extends");
	*ret = own;
	r = field_is_null(&extends) ? 0 : read_extends(&extends, &what);
	if (r == 0 && what.service)
		r = resolve_base(l, file, &extends, &what, &self, &base);
	if (r < 0 || !base || base->type != YAML_MAP)
		return r;
	*ret = config_merge_service(file->doc, base, own);
	return count_merged(l, &extends, *ret);
}

/* What is included is a project of its own: a build that names no context has that one's directory. */
static const struct yaml *with_context(const struct file *file, const struct yaml *service)
{
	const struct yaml *build = yaml_get(service, "build");
	if (!file->by || !build || build->type != YAML_MAP || yaml_get(build, "context"))
		return service;
	struct yaml *context = yaml_new(file->doc, YAML_SCALAR, build), *own = yaml_new(file->doc, YAML_MAP, build);
	struct yaml *whole = yaml_new(file->doc, YAML_MAP, service);
	const struct yaml_pair place = {NULL, build->file, build->line, build->column, NULL};
	yaml_set_text(context, *file->directory ? file->directory : ".");
	yaml_add_pair(own, "context", &place, context);
	for (size_t i = 0; i < build->count; i++)
		yaml_add_pair(own, build->pairs[i].key, &build->pairs[i], build->pairs[i].value);
	for (size_t i = 0; i < service->count; i++)
		yaml_add_pair(whole, service->pairs[i].key, &service->pairs[i],
		              service->pairs[i].value == build ? own : service->pairs[i].value);
	return whole;
}

static int resolve_services(struct loading *l, const struct file *file, const struct field *services, const struct yaml **ret)
{
	const struct yaml *old = services->node;
	int r = 0;
	*ret = old;
	if (old->type != YAML_MAP)
		return 0;
	struct yaml *all = yaml_new(file->doc, YAML_MAP, old);
	all->change = old->change;
	for (size_t i = 0; r == 0 && i < old->count; i++) {
		struct field service = field_child(services, i);
		const struct yaml *whole = service.node;
		r = resolve_service(l, file, &service, NULL, &whole);
		yaml_add_pair(all, service.key, &old->pairs[i], r == 0 ? with_context(file, whole) : whole);
	}
	*ret = all;
	return r;
}

/* ---- include ---- */

struct include {
	char **paths, **env_files;
	struct field path; /* of the first */
	char *project_directory;
};

static void include_release(struct include *i)
{
	strv_free(i->paths);
	strv_free(i->env_files);
	free(i->project_directory);
}

static int read_include_paths(const struct field *f, void *out)
{
	((struct include *)out)->path = *f;
	return field_strings_or_one(f, &((struct include *)out)->paths);
}

static int read_include_env_file(const struct field *f, void *out)
{
	return field_strings_or_one(f, &((struct include *)out)->env_files);
}

static int read_include_directory(const struct field *f, void *out)
{
	return field_string(f, &((struct include *)out)->project_directory);
}

static const struct field_reader include_fields[] = {
    {"path", read_include_paths},
    {"env_file", read_include_env_file},
    {"project_directory", read_include_directory},
    {NULL, NULL},
};

static int add_env(struct loading *l, const struct field *f, const char *path, bool required, struct keyvals *out)
{
	bool outside;
	cleanup_keyvals struct keyvals own = KEYVALS_INIT;
	l->reader.file = f->file;
	int r = loading_read_env_file(l, path, false, &own, &outside);
	for (size_t i = 0; i < l->strange_env.count; i++) {
		cleanup_free char *key = xasprintf("%s.%s", path, l->strange_env.items[i].key);
		keyvals_set(&l->included_env, key, l->strange_env.items[i].value ? l->strange_env.items[i].value : "");
	}
	keyvals_release(&l->strange_env);
	if (r == 0 && outside)
		approve_file(l, path);
	for (size_t i = 0; r == 0 && i < own.count; i++)
		keyvals_set(out, own.items[i].key, own.items[i].value ? own.items[i].value : "");
	bool missing = r == -ENOENT || r == -ENOTDIR || r == -EISDIR;
	return r == 0 || (missing && !required) ? 0 : field_error(f, "%s: %s", path, strerror(-r));
}

/* Its env_file, else `.env` of its directory; what the including file has comes first. *ret is the loading's. */
static int include_env(struct loading *l, const struct file *by, const struct field *f, const struct include *i, const char *directory,
                       const struct keyvals **ret)
{
	cleanup_keyvals struct keyvals own = KEYVALS_INIT;
	int r = 0;
	for (char **path = i->env_files; r == 0 && path && *path; path++) {
		cleanup_free char *from_here = config_path_join(by->directory, *path);
		r = add_env(l, f, from_here, true, &own);
	}
	if (!i->env_files && strcmp(directory, by->directory)) {
		cleanup_free char *path = config_path_join(directory, ".env");
		r = add_env(l, f, path, false, &own);
	}
	*ret = by->env;
	if (r < 0 || !own.count)
		return r;
	struct keyvals *all = xcalloc(1, sizeof *all);
	array_grow(l->included_envs, l->n_included_envs);
	l->included_envs[l->n_included_envs++] = all;
	if (by->env)
		keyvals_copy(all, by->env);
	for (size_t k = 0; k < own.count; k++)
		if (!keyvals_has(all, own.items[k].key))
			keyvals_set(all, own.items[k].key, own.items[k].value);
	*ret = all;
	return 0;
}

static int resolve_file(struct loading *l, const struct file *file, const struct yaml **ret);

static int check_include(struct loading *l, const struct file *by, const struct field *f, const struct file *file)
{
	for (const struct file *up = by; up; up = up->by)
		if (!strcmp(up->path, file->path))
			return field_error(f, "files include each other in a circle: %s", yaml_root(file->doc)->file);
	if (l->includes++ == INCLUDES_MAX)
		return field_error(f, "more than %d files are included", INCLUDES_MAX);
	return by->depth < INCLUDE_DEPTH_MAX ? 0 : field_error(f, "files include each other more than %d deep", INCLUDE_DEPTH_MAX);
}

/* The files of one entry, laid on each other. */
static int read_included(struct loading *l, const struct file *by, const struct field *f, const struct include *i, const struct yaml **ret)
{
	cleanup_free char *first = config_path_join(by->directory, i->paths[0]),
	                  *directory = i->project_directory ? config_path_join(by->directory, i->project_directory) : config_path_parent(first);
	const struct keyvals *env;
	if (!strcmp(directory, "."))
		*directory = '\0';
	int r = include_env(l, by, f, i, directory, &env);
	*ret = NULL;
	for (char **path = i->paths; r == 0 && *path; path++) {
		cleanup_free char *from_here = config_path_join(by->directory, *path);
		struct field at = i->path.node->type == YAML_LIST ? field_child(&i->path, (size_t)(path - i->paths)) : i->path;
		const struct yaml *whole = NULL;
		struct file file;
		r = read_related(l, by, &at, from_here, env, &file);
		file.by = by;
		file.depth = by->depth + 1;
		file.directory = directory;
		if (r == 0)
			r = check_include(l, by, &at, &file);
		if (r == 0)
			r = resolve_file(l, &file, &whole);
		if (r == 0)
			*ret = *ret ? config_merge(file.doc, *ret, whole) : whole;
	}
	return r;
}

static bool is_equal(const struct yaml *a, const struct yaml *b)
{
	if (a->type != b->type || a->count != b->count || a->count > RESOURCES_MAX) /* comparing more takes too long */
		return false;
	if (a->type == YAML_SCALAR)
		return !strcmp(a->text, b->text);
	for (size_t i = 0; i < a->count; i++) {
		const struct yaml *other = a->type == YAML_MAP ? yaml_get(b, a->pairs[i].key) : b->items[i];
		if (!other || !is_equal(a->type == YAML_MAP ? a->pairs[i].value : a->items[i], other))
			return false;
	}
	return true;
}

/* What is there twice must be the same: https://github.com/compose-spec/compose-spec/blob/main/14-include.md */
static int import(struct yaml *to, const struct field *section)
{
	if (to->count + section->node->count > RESOURCES_MAX)
		return field_error(section, "more than %d, with those of other files", RESOURCES_MAX);
	for (size_t i = 0; i < section->node->count; i++) {
		struct field own = field_child(section, i);
		const struct yaml *there = yaml_get(to, own.key);
		if (!there) {
			yaml_add_pair(to, own.key, &section->node->pairs[i], own.node);
			continue;
		}
		if (!is_equal(there, own.node))
			return field_key_error(&own, "there is another %s at %s:%u:%u, and no file may change what it includes", own.key, there->file,
			                       there->line, there->column);
	}
	return 0;
}

static const char *const sections[] = {"services", "volumes", "networks", "secrets", "configs", "models"};

/* steals nothing: `whole` is a copy of the including file's root whose sections are copies, too */
static int import_all(struct loading *l, struct yaml *whole, const struct yaml *included)
{
	struct field root = field_root(&l->reader, included), section;
	int r = 0;
	if (included->type == YAML_NULL)
		return 0;
	if (included->type != YAML_MAP)
		return field_expected(&root, "a mapping with services");
	for (size_t i = 0; r == 0 && i < sizeof sections / sizeof *sections; i++) {
		if (!field_find(&root, sections[i], &section) || field_is_null(&section))
			continue;
		r = section.node->type != YAML_MAP ? field_expected(&section, "a mapping")
		                                   : import((struct yaml *)(uintptr_t)yaml_get(whole, sections[i]), &section);
	}
	if (r == 0 && field_find(&root, "x-aether", &section))
		field_warn(&section, "of a file that is included, not used");
	return r;
}

/* A root whose sections can be added to. */
static int openable(struct loading *l, const struct file *file, const struct yaml *root, struct yaml **ret)
{
	struct field top = field_root(&l->reader, root), section;
	struct yaml *whole = yaml_new(file->doc, YAML_MAP, root);
	for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
		bool has = field_find(&top, sections[i], &section);
		const struct yaml_pair place = {NULL, has ? section.key_file : root->file, has ? section.key_line : root->line,
		                                has ? section.key_column : root->column, NULL};
		if (has && !field_is_null(&section) && section.node->type != YAML_MAP)
			return field_expected(&section, "a mapping");
		struct yaml *copy = yaml_new(file->doc, YAML_MAP, has ? section.node : root);
		copy->change = has ? section.node->change : YAML_MERGES;
		for (size_t k = 0; has && k < section.node->count; k++)
			yaml_add_pair(copy, section.node->pairs[k].key, &section.node->pairs[k], section.node->pairs[k].value);
		yaml_add_pair(whole, sections[i], &place, copy);
	}
	for (size_t i = 0; i < root->count; i++)
		if (!yaml_get(whole, root->pairs[i].key) && strcmp(root->pairs[i].key, "include"))
			yaml_add_pair(whole, root->pairs[i].key, &root->pairs[i], root->pairs[i].value);
	*ret = whole;
	return 0;
}

static int include_one(struct loading *l, const struct file *file, const struct field *f, struct yaml *whole)
{
	__attribute__((cleanup(include_release))) struct include include = {.paths = NULL};
	const struct yaml *included = NULL;
	int r = f->node->type == YAML_MAP ? field_read_map(f, include_fields, UNKNOWN_WARNS, "a path", &include) : read_include_paths(f, &include);
	if (r == 0 && (!include.paths || !include.paths[0]))
		r = field_expected(f, "the path of a file, or a mapping with path");
	if (r == 0)
		r = read_included(l, file, f, &include, &included);
	return r < 0 ? r : import_all(l, whole, included);
}

static int resolve_includes(struct loading *l, const struct file *file, const struct field *list, const struct yaml **ret)
{
	struct yaml *whole = NULL;
	if (!field_is_null(list) && list->node->type != YAML_LIST)
		return field_expected(list, "a list of paths");
	int r = openable(l, file, *ret, &whole);
	for (size_t i = 0; r == 0 && i < list->node->count; i++) {
		struct field item = field_child(list, i);
		r = include_one(l, file, &item, whole);
	}
	if (r < 0)
		return r;
	struct yaml *used = yaml_new(file->doc, YAML_MAP, whole);
	for (size_t i = 0; i < whole->count; i++)
		if (whole->pairs[i].value->count || whole->pairs[i].value->type != YAML_MAP || yaml_get(*ret, whole->pairs[i].key))
			yaml_add_pair(used, whole->pairs[i].key, &whole->pairs[i], whole->pairs[i].value);
	*ret = used;
	return 0;
}

/* ---- the whole ---- */

static bool has_extends(const struct yaml *services)
{
	for (size_t i = 0; services && services->type == YAML_MAP && i < services->count; i++)
		if (yaml_get(services->pairs[i].value, "extends"))
			return true;
	return false;
}

static int resolve_file(struct loading *l, const struct file *file, const struct yaml **ret)
{
	struct field root = field_root(&l->reader, yaml_root(file->doc)), services, list = root;
	bool includes = field_find(&root, "include", &list);
	int r = config_paths_of_top(file->doc, &root, file->directory, ret);
	if (r < 0 || root.node->type != YAML_MAP)
		return r;
	if (field_find(&root, "services", &services) && (*file->directory || has_extends(services.node))) {
		const struct yaml *own = *ret, *all = NULL;
		struct yaml *whole = yaml_new(file->doc, YAML_MAP, own);
		r = resolve_services(l, file, &services, &all);
		for (size_t i = 0; i < own->count; i++)
			yaml_add_pair(whole, own->pairs[i].key, &own->pairs[i], !strcmp(own->pairs[i].key, "services") ? all : own->pairs[i].value);
		*ret = whole;
	}
	return r < 0 || !includes ? r : resolve_includes(l, file, &list, ret);
}

int related_resolve(struct loading *l, struct yaml_document *doc, const char *path, const struct yaml **ret)
{
	const struct file file = {.doc = doc, .path = path, .directory = ""};
	return resolve_file(l, &file, ret);
}
