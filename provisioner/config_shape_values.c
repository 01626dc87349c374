#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/config_shape.h"

/* ---- one text ---- */

int shape_text(const struct field *f, const struct shape *shape, json_t **ret)
{
	cleanup_free char *text = NULL;
	int r = field_text(f, &text);
	if (r == 0 && (*text || shape->always))
		*ret = json_string(text);
	return r;
}

int shape_integer(const struct field *f, const struct shape *shape, json_t **ret)
{
	int64_t number;
	int r = field_int(f, INT64_MIN, INT64_MAX, &number);
	if (r == 0 && (number || shape->always))
		*ret = json_integer(number);
	return r;
}

int shape_real(const struct field *f, const struct shape *shape, json_t **ret)
{
	double number;
	int r = field_double(f, &number);
	if (r == 0 && (number != 0 || shape->always))
		*ret = json_real(number);
	return r;
}

int shape_bool(const struct field *f, const struct shape *shape, json_t **ret)
{
	bool value;
	int r = field_bool(f, &value);
	if (r == 0 && (value || shape->always))
		*ret = json_boolean(value);
	return r;
}

int shape_bytes(const struct field *f, const struct shape *shape, json_t **ret)
{
	uint64_t bytes;
	cleanup_free char *text = NULL;
	if (f->node->type == YAML_SCALAR && !strcmp(f->node->text, "-1")) { /* unlimited */
		*ret = json_string("-1");
		return 0;
	}
	int r = field_bytes(f, &bytes);
	if (r == 0 && bytes) {
		text = xasprintf("%llu", (unsigned long long)bytes);
		*ret = json_string(text);
	}
	return r;
}

/* As Go writes a time.Duration. */
static char *duration_text(int64_t ms)
{
	long long s = ms / 1000, h = s / 3600, m = s / 60 % 60;
	double rest = (double)(ms % 60000) / 1000;
	if (ms < 1000)
		return ms ? xasprintf("%lldms", (long long)ms) : xstrdup("0s");
	return h ? xasprintf("%lldh%lldm%gs", h, m, rest) : m ? xasprintf("%lldm%gs", m, rest) : xasprintf("%gs", rest);
}

int shape_duration(const struct field *f, const struct shape *shape, json_t **ret)
{
	int64_t ms;
	int r = field_duration(f, &ms);
	if (r < 0 || (!ms && !shape->always))
		return r;
	cleanup_free char *text = duration_text(ms);
	*ret = json_string(text);
	return 0;
}

/* Octal where it looks so, and as a text. */
int shape_mode_number(const struct field *f, const struct shape *shape, json_t **ret)
{
	int r = shape_mode(f, shape, ret);
	if (r == 0) {
		long mode = strtol(json_string_value(*ret), NULL, 8);
		json_decref(*ret);
		*ret = json_integer(mode);
	}
	return r;
}

int shape_mode(const struct field *f, const struct shape *shape, json_t **ret)
{
	unsigned mode;
	int r = field_mode(f, &mode);
	if (r < 0)
		return r;
	cleanup_free char *octal = xasprintf("0%o", mode);
	*ret = json_string(octal);
	return 0;
}

static int any_scalar(const struct field *f, json_t **ret)
{
	cleanup_free char *text = NULL;
	int r = field_text(f, &text);
	if (r < 0)
		return r;
	switch (yaml_kind(f->node)) {
	case YAML_IS_BOOL:
		*ret = json_boolean(!strcmp(text, "true"));
		break;
	case YAML_IS_INT:
		*ret = json_integer(strtoll(text, NULL, 10));
		break;
	case YAML_IS_FLOAT:
		*ret = isfinite(strtod(text, NULL)) ? json_real(strtod(text, NULL)) : json_string(text);
		break;
	default:
		*ret = json_string(text);
	}
	return 0;
}

int shape_any(const struct field *f, const struct shape *shape, json_t **ret)
{
	int r = 0;
	if (f->node->type == YAML_SCALAR)
		return any_scalar(f, ret);
	*ret = f->node->type == YAML_NULL ? json_null() : f->node->type == YAML_MAP ? json_object() : json_array();
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field child = field_child(f, i);
		json_t *value = NULL;
		r = shape_any(&child, NULL, &value);
		if (child.key)
			json_object_set_new(*ret, child.key, value);
		else
			json_array_append_new(*ret, value);
	}
	return r;
}

/* ---- paths ---- */

int shape_path(const struct field *f, const struct shape *shape, json_t **ret)
{
	struct loading *l = loading_of(f);
	cleanup_free char *text = NULL;
	int r = field_text(f, &text);
	if (r < 0 || !*text)
		return r;
	const char *home = text[0] == '~' ? loading_variable(l, "HOME") : NULL;
	cleanup_free char *path = home ? config_path_join(home, text[1] == '/' && text[2] ? text + 2 : ".") : config_path_join(l->config->directory, text);
	*ret = json_string(path);
	return 0;
}

int shape_paths(const struct field *f, const struct shape *shape, json_t **ret)
{
	int r = 0;
	*ret = json_array();
	for (size_t i = 0; r == 0 && f->node->type == YAML_LIST && i < f->node->count; i++) {
		struct field item = field_child(f, i);
		json_t *path = NULL;
		r = shape_path(&item, shape, &path);
		if (path)
			json_array_append_new(*ret, path);
	}
	json_t *path = NULL;
	if (f->node->type != YAML_LIST)
		r = shape_path(f, shape, &path);
	if (path)
		json_array_append_new(*ret, path);
	return r;
}

/* ---- lists and mappings ---- */

/* steals `list`; an empty one is as if it were not there */
static int kept(json_t *list, const struct shape *shape, json_t **ret)
{
	if (json_array_size(list) || json_object_size(list) || shape->always)
		*ret = list;
	else
		json_decref(list);
	return 0;
}

static json_t *of_texts(char *const *texts)
{
	json_t *list = json_array();
	for (; texts && *texts; texts++)
		json_array_append_new(list, json_string(*texts));
	return list;
}

int shape_texts(const struct field *f, const struct shape *shape, json_t **ret)
{
	json_t *list = json_array();
	int r = 0;
	if (f->node->type != YAML_LIST && f->node->type != YAML_SCALAR)
		r = field_expected(f, "a text, or a list of texts");
	for (size_t i = 0; r == 0 && i < (f->node->type == YAML_LIST ? f->node->count : 1); i++) {
		struct field item = f->node->type == YAML_LIST ? field_child(f, i) : *f;
		cleanup_free char *text = NULL;
		r = field_text(&item, &text);
		if (r == 0)
			json_array_append_new(list, json_string(text));
	}
	if (r == 0)
		return kept(list, shape, ret);
	json_decref(list);
	return r;
}

int shape_mapping(const struct field *f, const struct shape *shape, json_t **ret)
{
	json_t *map = json_object();
	int r = f->node->type == YAML_MAP || f->node->type == YAML_LIST ? 0 : field_expected(f, "a mapping, or a list of KEY=value");
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field child = field_child(f, i);
		cleanup_free char *text = NULL;
		r = field_text(&child, &text);
		char *equals = r == 0 && !child.key ? strchr(text, '=') : NULL;
		if (equals)
			*equals++ = '\0';
		if (r == 0)
			json_object_set_new(map, child.key ? child.key : text, json_string(child.key ? text : equals ? equals : ""));
	}
	if (r == 0)
		return kept(map, shape, ret);
	json_decref(map);
	return r;
}

int shape_words(const struct field *f, const struct shape *shape, json_t **ret)
{
	cleanup_strv char **words = NULL;
	int r = f->node->type == YAML_NULL ? 0 : field_argv(f, &words);
	if (r == 0)
		*ret = f->node->type == YAML_NULL ? json_null() : of_texts(words);
	return r;
}

/* ---- objects ---- */

static const struct shape *find(const struct shape *fields, const char *key)
{
	while (fields && fields->key && strcmp(fields->key, key))
		fields++;
	return fields && fields->key ? fields : NULL;
}

/* What is there although nobody wrote it. */
static json_t *new_object(const struct shape *fields)
{
	json_t *object = json_object();
	for (; fields && fields->key; fields++)
		if (fields->always && (fields->make == shape_words || fields->make == shape_object))
			json_object_set_new(object, fields->key, fields->make == shape_words ? json_null() : new_object(fields->fields));
	return object;
}

int shape_object(const struct field *f, const struct shape *shape, json_t **ret)
{
	static const struct shape other = {"", shape_any, NULL, true};
	int r = f->node->type == YAML_MAP || f->node->type == YAML_NULL ? 0 : field_expected(f, "a mapping");
	*ret = new_object(shape->fields);
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field child = field_child(f, i);
		const struct shape *field = find(shape->fields, child.key);
		json_t *value = NULL;
		if (!strncmp(child.key, "x-", 2) || (field && !field->make) || field_is_null(&child))
			continue;
		field = field ? field : &other;
		r = field->make(&child, field, &value);
		if (value)
			json_object_set_new(*ret, child.key, value);
	}
	return r;
}

int shape_objects(const struct field *f, const struct shape *shape, json_t **ret)
{
	json_t *list = json_array();
	int r = f->node->type == YAML_LIST ? 0 : field_expected(f, "a list of mappings");
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field item = field_child(f, i);
		json_t *value = NULL;
		r = shape_object(&item, shape, &value);
		json_array_append_new(list, value);
	}
	if (r == 0)
		return kept(list, shape, ret);
	json_decref(list);
	return r;
}

int shape_map(const struct field *f, const struct shape *shape, json_t **ret)
{
	json_t *map = json_object();
	int r = f->node->type == YAML_MAP ? 0 : field_expected(f, "a mapping");
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field child = field_child(f, i);
		json_t *value = field_is_null(&child) ? json_null() : NULL;
		if (!value)
			r = shape_object(&child, shape, &value);
		json_object_set_new(map, child.key, value);
	}
	if (r == 0)
		return kept(map, shape, ret);
	json_decref(map);
	return r;
}
