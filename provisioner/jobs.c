/* An environment's blocking work, one job after the other on the thread pool; and of these the small words with the store. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "provisioner/environment_private.h"

/* ---- jobs ---- */

static void job_next(struct environment *e);

static void on_work(uv_work_t *request)
{
	struct job *job = request->data;
	job->work(job);
}

static void on_after(uv_work_t *request, int status)
{
	struct job *job = request->data;
	struct environment *e = job->e;
	e->running_job = NULL;
	log_debug("environment", "%s: %llu ms", job->what, (unsigned long long)(now_monotonic_ms() - job->began_ms));
	job->after(job);
	job_next(e);
	environment_wake(e);
}

static void job_next(struct environment *e)
{
	struct job *job = e->jobs;
	if (e->running_job || !job)
		return;
	e->jobs = job->next;
	e->running_job = job;
	if (job->begin)
		job->begin(job);
	job->request.data = job;
	job->began_ms = now_monotonic_ms();
	uv_queue_work(e->params.loop, &job->request, on_work, on_after);
}

void environment_job(struct environment *e, struct job *job)
{
	struct job **end = &e->jobs;
	while (*end)
		end = &(*end)->next;
	job->e = e;
	job->next = NULL;
	*end = job;
	job_next(e);
}

/* ---- the store's small words ---- */

struct store_job {
	struct job job;
	char *desired;
	bool up;
	char *backend, *target, *reason;
	uint32_t generation;
	struct error error;
};

static int make_data_dir(const struct environment *e, uint32_t generation, struct error *err)
{
	cleanup_free char *path = xasprintf("%s/data/%u", e->id->state_dir, generation);
	int r = dir_make(AT_FDCWD, path, 0711); /* services of other uids pass through */
	return r < 0 ? error_set_errno(err, r == -ENOSPC ? ERROR_NO_SPACE : ERROR_STORE_FAILED, -r, "cannot make %s", path)
	             : 0;
}

static void store_work(struct job *base)
{
	struct store_job *job = (struct store_job *)base;
	struct environment *e = base->e;
	int r = 0;
	if (job->up)
		r = make_data_dir(e, job->generation, &job->error);
	if (r == 0 && job->up && job->backend)
		r = store_environment_set_backend(e->store, e->id->namespace_, job->backend, job->target, job->reason, &job->error);
	if (r == 0)
		store_environment_set_desired(e->store, e->id->namespace_, job->desired, &job->error);
}

static void store_after(struct job *base)
{
	struct store_job *job = (struct store_job *)base;
	struct environment *e = base->e;
	if (error_is_set(&job->error)) {
		log_warning("environment", "the store: %s", job->error.message);
		environment_fail(e, &job->error);
		if (job->up) /* nothing was started: whoever waits hears why */
			demands_fail_all(e, true, &job->error);
	} else {
		free(e->desired);
		e->desired = xstrdup(job->desired);
		if (job->backend) {
			free(e->stored_backend);
			free(e->stored_target);
			free(e->stored_reason);
			e->stored_backend = xstrdup(job->backend);
			e->stored_target = xstrdup(job->target);
			e->stored_reason = xstrdup(job->reason);
		}
		e->up_stored = !strcmp(job->desired, "up");
	}
	if (job->up) {
		e->storing_up = false;
		apply_hold(e->apply, error_is_set(&job->error));
	}
	error_release(&job->error);
	free(job->desired);
	free(job->backend);
	free(job->target);
	free(job->reason);
	free(job);
	environment_mark(e, CHANGED_STATUS);
}

static struct store_job *store_job_new(const char *desired)
{
	struct store_job *job = xcalloc(1, sizeof *job);
	job->job.what = "store";
	job->job.work = store_work;
	job->job.after = store_after;
	job->desired = xstrdup(desired);
	return job;
}

void environment_store_desired(struct environment *e, const char *desired)
{
	if (e->desired && !strcmp(e->desired, desired) && !e->running_job && !e->jobs)
		return;
	e->up_stored = false;
	environment_job(e, &store_job_new(desired)->job);
}

void environment_store_up(struct environment *e)
{
	if (e->up_stored || e->storing_up)
		return;
	struct store_job *job = store_job_new("up");
	job->up = true;
	job->generation = e->generation;
	if (!e->stored_backend) {
		job->backend = xstrdup(e->model->backend);
		job->target = xstrdup(e->model->backend_target);
		job->reason = xstrdup(e->model->backend_reason);
	}
	e->storing_up = true;
	apply_hold(e->apply, true);
	environment_job(e, &job->job);
}

/* ---- a port that is a foreigner's ---- */

struct port_job {
	struct job job;
	char *service, *key;
	uint16_t old, port;
	bool unseen; /* who has it */
	struct error error;
};

static void port_work(struct job *base)
{
	struct port_job *job = (struct port_job *)base;
	job->unseen = store_port_is_free(job->old);
	store_port_replace(base->e->store, base->e->id->namespace_, job->service, job->key, &job->port, &job->error);
}

static void port_after(struct job *base)
{
	struct port_job *job = (struct port_job *)base;
	struct environment *e = base->e;
	struct apply_service *s = apply_find(e->apply, job->service);
	if (error_is_set(&job->error)) {
		if (s)
			apply_port_failed(s, &job->error);
	} else {
		if (job->unseen) {
			e->refused[e->next_refused % REFUSED_MAX].port = job->old;
			e->refused[e->next_refused++ % REFUSED_MAX].until_ms = now_monotonic_ms() + REFUSED_MS;
		}
		log_warning("environment", "%s: port %u is taken by another program, now %u", job->service, job->old,
		            job->port);
		environment_event(e, "port_replaced",
		                  json_pack("{s:s, s:i, s:i}", "service", job->service, "from", job->old, "to", job->port));
		environment_load(e, LOAD_FORCE | LOAD_AGAIN); /* the new model lets it go on */
	}
	error_release(&job->error);
	free(job->service);
	free(job->key);
	free(job);
}

void environment_port_taken(void *arg, const char *service, const struct port_binding *port)
{
	struct port_job *job = xcalloc(1, sizeof *job);
	job->job.what = "port";
	job->job.work = port_work;
	job->job.after = port_after;
	job->service = xstrdup(service);
	job->key = xasprintf("%u/%s", port->internal, port->protocol);
	job->old = port->external;
	environment_job(arg, &job->job);
}
