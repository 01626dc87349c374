/* Volumes of an engine, and the files that say which is whose.
 *
 * What a host path is to a process, a *record* is to a container: a small file where the environment's data of this generation lies, which names
 * the volume. So the volume goes where the data goes: into the trash and back by a rename, and whoever deletes the record for good deletes
 * the volume (engine_discard). It is written before the volume is made: a crash leaves a record of what is not there, never the other way round. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/engine.h"
#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"

#define RECORD_MAX 4096

struct making {
	struct engine *e;
	struct engine_plan *plan;
	char **names, **known; /* known: those whose records were there before */
	size_t next;
	backend_done *done;
	void *arg;
};

/* new: NULL: there is none */
static char *read_record(const char *path, struct error *err)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	int r = file_read(AT_FDCWD, path, RECORD_MAX, &text);
	if (r == -ENOENT)
		return NULL;
	json_t *json = r ? NULL : json_loads(buffer_str(&text), 0, NULL);
	const char *name = json_string_value(json_object_get(json, "volume"));
	char *copy = xstrdup(name);
	json_decref(json);
	if (!copy)
		error_set(err, ERROR_INTERNAL, "%s does not say which volume it is%s%s", path, r ? ": " : "", r ? strerror(-r) : "");
	return copy;
}

/* A name that no volume had before, also where an environment of the same name begins at generation 1 again. new */
static char *new_name(const struct engine *e, const char *key)
{
	uint32_t random = 0;
	if (getrandom(&random, sizeof random, 0) != sizeof random)
		abort();
	char *name = xasprintf("%s-%s-%08x", e->namespace_, key, random);
	for (char *c = name; *c; c++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-", *c))
			*c = '_';
	return name;
}

static char *write_record(const struct engine *e, const char *path, const char *key, const char *target, struct error *err)
{
	cleanup_free char *name = new_name(e, key);
	cleanup_free char *dir = xstrndup(path, (size_t)(strrchr(path, '/') - path));
	json_t *json = json_pack("{s:s, s:s, s:s, s:s, s:s}", "backend", e->base.ops->name, "engine", e->target.url, "volume", name, "target", target, "unfinished", "");
	cleanup_free char *text = json_dumps(json, JSON_INDENT(1));
	json_decref(json);
	int r = dir_make(AT_FDCWD, dir, 0711);
	if (!r)
		r = file_write_atomic(AT_FDCWD, path, text, strlen(text), 0600);
	if (!r)
		return move_ptr(name);
	error_set_errno(err, r == -ENOSPC ? ERROR_NO_SPACE : ERROR_BACKEND_SPAWN_FAILED, -r, "%s", path);
	return NULL;
}

int engine_record_image(const struct engine *e, const char *data, const char *image)
{
	cleanup_free char *path = xasprintf("%s/" BACKEND_IMAGE_RECORD, data);
	if (!access(path, F_OK))
		return 0;
	json_t *json = json_pack("{s:s, s:s, s:s}", "backend", e->base.ops->name, "engine", e->target.url, "image", image);
	cleanup_free char *text = json_dumps(json, JSON_INDENT(1));
	json_decref(json);
	int r = dir_make(AT_FDCWD, data, 0711);
	return r < 0 ? r : file_write_atomic(AT_FDCWD, path, text, strlen(text), 0600);
}

static void finish(struct making *m, const struct error *err)
{
	if (!err)
		engine_plan_set_volumes(m->plan, m->names);
	m->done(m->arg, err);
	strv_free(m->names);
	strv_free(m->known);
	free(m);
}

static void make_next(struct making *m);

static void on_made(void *arg, const struct error *err, int status, const json_t *json)
{
	struct making *m = arg;
	if (err)
		finish(m, err);
	else
		make_next(m);
}

static void make_one(struct making *m, size_t i)
{
	cleanup_free char *generation = xasprintf("%u", m->plan->generation);
	json_t *labels = engine_labels(m->e);
	json_object_set_new(labels, ENGINE_LABEL_VOLUME, json_string(m->plan->volumes[i]));
	json_object_set_new(labels, ENGINE_LABEL_GENERATION, json_string(generation));
	json_object_set_new(labels, COMPOSE_LABEL_VOLUME, json_string(m->plan->volumes[i]));
	json_t *body = json_pack("{s:s}", "Name", m->names[i]), *options = json_object_get(m->plan->volume_options, m->plan->volumes[i]);
	if (options)
		json_object_update(body, options);
	json_t *theirs = json_copy(json_object_get(body, "Labels"));
	if (theirs)
		json_object_update_missing(labels, theirs);
	json_decref(theirs);
	json_object_set_new(body, "Labels", labels);
	engine_call(m->e, "POST", "/volumes/create", body, ENGINE_CHANGE_MS, on_made, m);
}

/* Somebody has removed it (`docker volume prune`): what begins now begins with nothing, and that is to be told. */
static void on_looked(void *arg, const struct error *err, int status, const json_t *json)
{
	struct making *m = arg;
	size_t i = m->next - 1;
	if (!err) {
		make_next(m);
		return;
	}
	if (status == 404 && m->e->progress && !m->e->closing) {
		json_t *lost = json_pack("{s:s}", "lost", m->plan->volumes[i]);
		m->e->progress(m->e->changed_arg, m->plan->service, lost);
		json_decref(lost);
	}
	make_one(m, i);
}

static void make_next(struct making *m)
{
	size_t i = m->next++;
	if (!m->names[i]) {
		finish(m, NULL);
		return;
	}
	if (!strv_contains(m->known, m->names[i])) {
		make_one(m, i);
		return;
	}
	cleanup_free char *path = xasprintf("/volumes/%s", m->names[i]);
	engine_call(m->e, "GET", path, NULL, ENGINE_CALL_MS, on_looked, m);
}

struct failed {
	struct error error;
	backend_done *done;
	void *arg;
};

static void tell_failed(void *arg)
{
	struct failed *f = arg;
	f->done(f->arg, error_is_set(&f->error) ? &f->error : NULL);
	error_release(&f->error);
	free(f);
}

void engine_volumes_ensure(struct engine *e, struct engine_plan *p, backend_done *done, void *arg)
{
	struct failed *f = xcalloc(1, sizeof *f);
	cleanup_strv char **names = NULL, **known = NULL;
	*f = (struct failed){ERROR_INIT, done, arg};
	for (size_t i = 0; p->records && p->records[i] && !error_is_set(&f->error); i++) {
		char *name = read_record(p->records[i], &f->error);
		if (name)
			strv_push(&known, xstrdup(name));
		if (!name && !error_is_set(&f->error))
			name = write_record(e, p->records[i], p->volumes[i], p->targets[i], &f->error);
		if (name)
			strv_push(&names, name);
	}
	if (!names || error_is_set(&f->error)) {
		backend_defer(e->base.loop, tell_failed, f);
		return;
	}
	free(f);
	struct making *m = xcalloc(1, sizeof *m);
	*m = (struct making){e, p, move_ptr(names), move_ptr(known), 0, done, arg};
	make_next(m);
}
