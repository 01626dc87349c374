/* The configuration by which services were started, kept for when the files say something else: a new server tells of what runs as it runs, and a port that has to be
 * another brings nothing else with it. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "provisioner/environment_private.h"

#define APPLIED_FILE "applied.json" /* model.record: values of the user's are in it */
#define APPLIED_MAX (64u << 20)

static char *path_of(const struct environment *e)
{
	return xasprintf("%s/" APPLIED_FILE, e->id->state_dir);
}

static const char *text_of(const json_t *record, const char *key)
{
	return json_string_value(json_object_get(record, key));
}

json_t *applied_read(const struct environment *e)
{
	cleanup_free char *path = path_of(e);
	cleanup_buffer struct buffer text = BUFFER_INIT;
	return file_read(AT_FDCWD, path, APPLIED_MAX, &text) ? NULL : json_loads(buffer_str(&text), 0, NULL);
}

bool applied_is(const json_t *record, const char *signature)
{
	const char *own = text_of(record, "signature");
	return own && !strcmp(own, signature);
}

struct model *applied_load(json_t *record, const struct model_params *params)
{
	cleanup_error struct error err = ERROR_INIT;
	struct model *m = NULL;
	struct model_params again = *params;
	again.again = record;
	again.user_text = text_of(record, "own");
	again.main_text = text_of(record, "main");
	again.tracked_text = text_of(record, "tracked");
	again.move = LEASE_STAYS;
	again.approve = NULL;
	if (again.user_text && again.main_text && again.tracked_text && model_load(&again, &m, &err) < 0)
		log_warning("environment", APPLIED_FILE ": %s", err.message);
	return m;
}

void applied_remove(const struct environment *e)
{
	cleanup_free char *path = path_of(e);
	if (unlink(path) && errno != ENOENT)
		log_warning("environment", "%s: %s", path, strerror(errno));
}

struct applied_job {
	struct job job;
	char *text;
};

static void work(struct job *base)
{
	struct applied_job *job = (struct applied_job *)base;
	cleanup_free char *path = path_of(base->e);
	int r = file_write_atomic(AT_FDCWD, path, job->text, strlen(job->text), 0600);
	if (r)
		log_warning("environment", "%s: %s", path, strerror(-r)); /* the next server knows the files alone */
}

static void after(struct job *base)
{
	free(((struct applied_job *)base)->text);
	free(base);
}

void applied_turn(struct environment *e)
{
	bool up = e->up_stored || e->storing_up;
	json_t *record = e->model && e->model->planned && !e->model->moves ? e->model->record : NULL;
	if (!up || !record || record == e->applied || e->closing || e->teardown != TEARDOWN_NONE)
		return;
	bool same = e->applied && json_equal(record, e->applied);
	json_decref(e->applied);
	e->applied = json_incref(record);
	char *text = same ? NULL : json_dumps(record, JSON_COMPACT);
	if (!text)
		return;
	struct applied_job *job = xcalloc(1, sizeof *job);
	job->job.what = "applied";
	job->job.work = work;
	job->job.after = after;
	job->text = text;
	environment_job(e, &job->job);
}
