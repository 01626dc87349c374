/* A build as the engines' API is asked for it: https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Image/operation/ImageBuild */
#include <stdlib.h>
#include <string.h>

#include "backends/engine.h"
#include "base/alloc.h"
#include "base/cleanup.h"

static void add_text(struct buffer *path, const char *name, const char *value)
{
	cleanup_free char *escaped = value ? engine_escape(value) : NULL;
	if (escaped)
		buffer_printf(path, "&%s=%s", name, escaped);
}

/* steals value */
static void add_json(struct buffer *path, const char *name, json_t *value)
{
	cleanup_free char *text = json_dumps(value, JSON_COMPACT);
	if (json_object_size(value) || json_array_size(value))
		add_text(path, name, text);
	json_decref(value);
}

static json_t *strings(char *const *words)
{
	json_t *list = json_array();
	for (; words && *words; words++)
		json_array_append_new(list, json_string(*words));
	return list;
}

static json_t *values(const struct keyvals *map)
{
	json_t *object = json_object();
	for (size_t i = 0; i < map->count; i++)
		if (map->items[i].value)
			json_object_set_new(object, map->items[i].key, json_string(map->items[i].value));
	return object;
}

static json_t *labels(const struct build_context *c)
{
	json_t *all = values(&c->spec->options->labels);
	json_object_set_new(all, ENGINE_LABEL_MANAGED, json_string("true"));
	json_object_set_new(all, ENGINE_LABEL_BUILD, json_string(c->spec->key));
	json_object_set_new(all, ENGINE_LABEL_CONTEXT, json_string(c->digest));
	json_object_set_new(all, ENGINE_LABEL_DOCKERFILE, json_string(c->file_digest));
	return all;
}

static json_t *ulimits(const struct build_options *o)
{
	json_t *list = json_array();
	for (size_t i = 0; i < o->n_ulimits; i++)
		json_array_append_new(list, json_pack("{s:s, s:I, s:I}", "Name", o->ulimits[i].name, "Soft", (json_int_t)o->ulimits[i].soft, "Hard",
		                                      (json_int_t)o->ulimits[i].hard));
	return list;
}

/* Docker takes each by itself, Podman a list. */
static void add_hosts(struct buffer *path, const struct engine *e, char *const *hosts)
{
	if (e->podman)
		add_json(path, "extrahosts", strings(hosts));
	for (; !e->podman && hosts && *hosts; hosts++)
		add_text(path, "extrahosts", *hosts);
}

char *engine_build_path(const struct engine *e, const struct build_context *c, const char *image, bool buildkit)
{
	const struct build_options *o = c->spec->options;
	struct buffer path = BUFFER_INIT;
	buffer_adds(&path, "/build?rm=1&forcerm=1");
	add_text(&path, "t", image);
	for (char **tag = o->tags; tag && *tag; tag++)
		add_text(&path, "t", *tag);
	add_text(&path, "dockerfile", c->dockerfile);
	add_text(&path, "target", o->target);
	add_text(&path, "networkmode", o->network);
	add_text(&path, "platform", c->spec->platform);
	add_json(&path, "buildargs", values(&o->args));
	add_json(&path, "labels", labels(c));
	add_json(&path, "cachefrom", strings(o->cache_from));
	add_json(&path, "ulimits", ulimits(o));
	add_hosts(&path, e, o->extra_hosts);
	if (o->shm_bytes)
		buffer_printf(&path, "&shmsize=%llu", (unsigned long long)o->shm_bytes);
	if (o->no_cache)
		buffer_adds(&path, "&nocache=1");
	if (o->pull && !buildkit) /* BuildKit cannot, without a session: they are pulled ahead */
		buffer_adds(&path, "&pull=1");
	if (buildkit)
		buffer_adds(&path, "&version=2");
	return buffer_detach(&path);
}
