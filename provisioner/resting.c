/* Which services of an environment that is up rest all the same, and by whose word (apply_resting): a file, for the next server, which would take what does not
 * run for what has ended. Written when it changes, before whoever asked for a stop hears of its end. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "provisioner/environment_private.h"

#define RESTING_FILE "resting.json" /* {SERVICE: RESTING_*}; not there: none */
#define RESTING_MAX (1u << 20)

static char *path_of(const struct environment *e)
{
	return xasprintf("%s/" RESTING_FILE, e->id->state_dir);
}

void resting_read(struct environment *e)
{
	cleanup_free char *path = path_of(e);
	cleanup_buffer struct buffer text = BUFFER_INIT;
	e->resting = file_read(AT_FDCWD, path, RESTING_MAX, &text) ? NULL : json_loads(buffer_str(&text), 0, NULL);
	if (json_is_object(e->resting))
		return;
	json_decref(e->resting);
	e->resting = json_object();
}

struct resting_job {
	struct job job;
	char *path, *text; /* NULL: none rests */
};

static void work(struct job *base)
{
	struct resting_job *job = (struct resting_job *)base;
	int r = job->text ? file_write_atomic(AT_FDCWD, job->path, job->text, strlen(job->text), 0600) : unlink(job->path) && errno != ENOENT ? -errno : 0;
	if (r)
		log_warning("environment", "%s: %s", job->path, strerror(-r)); /* the next server starts them again */
}

static void after(struct job *base)
{
	struct resting_job *job = (struct resting_job *)base;
	free(job->path);
	free(job->text);
	free(job);
}

void resting_turn(struct environment *e)
{
	if (!e->adopted || !e->model || e->closing || e->teardown != TEARDOWN_NONE || !e->desired || strcmp(e->desired, "up"))
		return;
	json_t *now = apply_resting(e->apply);
	if (json_equal(now, e->resting)) {
		json_decref(now);
		return;
	}
	json_decref(e->resting);
	e->resting = now;
	struct resting_job *job = xcalloc(1, sizeof *job);
	job->job.what = "resting";
	job->job.work = work;
	job->job.after = after;
	job->path = path_of(e);
	job->text = json_object_size(now) ? json_dumps(now, JSON_INDENT(1) | JSON_SORT_KEYS) : NULL;
	environment_job(e, &job->job);
}
