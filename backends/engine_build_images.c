/* The end of images that were built, also by docker compose beside us. They are ours by their names, NAMESPACE-SERVICE, which rest in the trash with the data, by
 * a record (engine_volumes.c): who begins again after a teardown does not build again. What has lost its name goes when nothing uses it. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backends/engine.h"
#include "base/alloc.h"
#include "base/cleanup.h"

#define YOUNG_S 60 /* one without a name may be about to get it from another process */

bool engine_image_is(const char *one, const char *other)
{
	const char *a = one && !strncmp(one, "sha256:", 7) ? one + 7 : one, *b = other && !strncmp(other, "sha256:", 7) ? other + 7 : other;
	return a && b && !strcmp(a, b);
}

/* "aether-1-main-web:latest", of Podman with "localhost/" before it */
static bool is_of_namespace(const char *name, const char *namespace_)
{
	static const char local[] = "localhost/", library[] = "docker.io/library/";
	size_t len = strlen(namespace_);
	if (!strncmp(name, local, sizeof local - 1))
		name += sizeof local - 1;
	else if (!strncmp(name, library, sizeof library - 1))
		name += sizeof library - 1;
	return !strncmp(name, namespace_, len) && name[len] == '-';
}

bool engine_image_is_built(const json_t *image, const char *key)
{
	const char *built = engine_label(json_object_get(image, "Labels"), ENGINE_LABEL_BUILD);
	bool named = false;
	size_t i;
	json_t *name;
	json_array_foreach (json_object_get(image, "RepoTags"), i, name) /* they all begin like this (provisioner/identity.h) */
		named |= json_is_string(name) && is_of_namespace(json_string_value(name), "aether");
	return named && built && !strcmp(built, key);
}

static bool has_name(const json_t *image)
{
	const char *name = json_string_value(json_array_get(json_object_get(image, "RepoTags"), 0));
	return name && strcmp(name, "<none>:<none>") != 0;
}

/* ---- one after the other ---- */

struct dropping {
	struct engine *e;
	char **names; /* IDs */
	size_t next;
	bool stale;
	backend_done *done; /* may be NULL */
	void *arg;
};

static void drop_next(struct dropping *d);

static void drop_done(struct dropping *d)
{
	struct engine *e = d->e;
	if (d->done)
		d->done(d->arg, NULL);
	strv_free(d->names);
	free(d);
	engine_end(e);
}

/* 409: something uses it. It is tried again with the next one. */
static void on_dropped(void *arg, const struct error *err, int status, const json_t *json)
{
	struct dropping *d = arg;
	const char *name = d->names[d->next++];
	if (d->stale && status == 409)
		strv_push(&d->e->stale_images, xstrdup(name));
	drop_next(d);
}

static void drop(struct dropping *d)
{
	cleanup_free char *escaped = engine_escape(d->names[d->next]), *path = xasprintf("/images/%s", escaped);
	engine_call(d->e, "DELETE", path, NULL, ENGINE_CHANGE_MS, on_dropped, d);
}

/* Asked to remove one by its ID an engine would take its only name, whoever has given it. */
static void on_seen(void *arg, const struct error *err, int status, const json_t *json)
{
	struct dropping *d = arg;
	if (!err && !has_name(json)) {
		drop(d);
		return;
	}
	d->next++;
	drop_next(d);
}

static void drop_next(struct dropping *d)
{
	const char *name = d->names ? d->names[d->next] : NULL;
	if (!name || d->e->closing) {
		drop_done(d);
		return;
	}
	cleanup_free char *path = xasprintf("/images/%s/json", name);
	engine_call(d->e, "GET", path, NULL, ENGINE_CALL_MS, on_seen, d);
}

void engine_images_drop_stale(struct engine *e)
{
	if (!e->stale_images)
		return;
	struct dropping *d = xcalloc(1, sizeof *d);
	*d = (struct dropping){.e = e, .names = move_ptr(e->stale_images), .stale = true};
	engine_begin(e);
	drop_next(d);
}

/* ---- all ---- */

static void choose(struct dropping *d, const json_t *image)
{
	const char *id = json_string_value(json_object_get(image, "Id"));
	if (id && !has_name(image) && engine_label(json_object_get(image, "Labels"), ENGINE_LABEL_BUILD) && json_integer_value(json_object_get(image, "Created")) < (json_int_t)time(NULL) - YOUNG_S)
		strv_pushf(&d->names, "%s%s", strncmp(id, "sha256:", 7) ? "sha256:" : "", id);
}

static void on_listed(void *arg, const struct error *err, int status, const json_t *json)
{
	struct dropping *d = arg;
	size_t i;
	json_t *image;
	for (char **id = d->e->stale_images; id && *id; id++)
		strv_push(&d->names, xstrdup(*id));
	strv_free(move_ptr(d->e->stale_images));
	json_array_foreach (json, i, image)
		choose(d, image);
	drop_next(d);
}

void engine_images_clear(struct engine *e, backend_done *done, void *arg)
{
	struct dropping *d = xcalloc(1, sizeof *d);
	*d = (struct dropping){.e = e, .done = done, .arg = arg};
	engine_begin(e);
	engine_call(e, "GET", "/images/json", NULL, ENGINE_CALL_MS, on_listed, d);
}
