/* The end of an environment: stop all, remove all, look whether anything survived, put the data into the trash, give
 * ports and secrets back, begin the next generation. Every step may be repeated: "destroying" stands in the store until
 * the last is done. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "provisioner/discard.h"
#include "provisioner/environment_private.h"
#include "provisioner/trash.h"

static void failed(struct environment *e, const struct error *err)
{
	e->teardown = TEARDOWN_NONE;
	e->teardown_failed = true;
	error_copy(&e->failure, err);
	environment_fail(e, err);
	for (struct demand *d = e->demands; d; d = d->next)
		if (!d->finished && (d->wait == WAIT_DESTROYED || !d->admitted)) {
			d->finished = d->known = true;
			error_copy(&d->error, err);
		}
	environment_mark(e, CHANGED_STATUS);
}

static void done(struct environment *e)
{
	e->teardown = TEARDOWN_NONE;
	e->satisfied = e->up_stored = e->config_changed = e->plan = false;
	free(move_ptr(e->stored_backend));
	free(move_ptr(e->stored_target));
	free(move_ptr(e->stored_reason));
	free(e->desired);
	e->desired = xstrdup("absent");
	strv_free(move_ptr(e->warnings));
	json_array_clear(e->requested_by);
	error_release(&e->failure);
	environment_drop_next(e);
	json_decref(move_ptr(e->applied));
	if (e->model)
		model_unplan(e->model);
	apply_forget(e->apply);
	apply_set_model(e->apply, e->model); /* what was left of services that are configured no longer goes */
	environment_refresh_user(e);
	environment_event(e, "destroyed", NULL);
	for (struct demand *d = e->demands; d; d = d->next)
		if (d->wait == WAIT_DESTROYED && d->admitted)
			d->finished = true;
	environment_mark(e, CHANGED_ENV | CHANGED_PORTS | CHANGED_STATUS | CHANGED_SERVICES);
}

/* ---- the data ---- */

struct trash_job {
	struct job job;
	uint32_t generation, next;
	bool started; /* something of it was, ever */
	struct error error;
};

static void trash_work(struct job *base)
{
	struct trash_job *job = (struct trash_job *)base;
	struct environment *e = base->e;
	const char *ns = e->id->namespace_;
	cleanup_free char *path = xasprintf("%s/data/%u", e->id->state_dir, job->generation);
	if (!job->started)
		trash_drop_empty(e->id, job->generation);
	if (rmdir(path) < 0 && errno != ENOENT && errno != ENOTEMPTY && errno != EEXIST)
		log_warning("environment", "%s: %s", path, strerror(errno));
	cleanup_strv char **services = discard_data_names(e->id, job->generation); /* also right after a crash, when nobody remembers what ran */
	cleanup_close int env = e->params.keep_own_lines ? -1 : trash_env_open(e->id, e->params.root_fd);
	int r = trash_put(e->store, e->id, job->generation, env, services, &job->error);
	if (r == 0)
		r = store_environment_next_generation(e->store, ns, &job->next, &job->error);
	if (r == 0)
		r = store_ports_release(e->store, ns, &job->error);
	applied_remove(e);
	if (r == 0)
		r = store_secrets_release(e->store, ns, &job->error);
	if (r == 0)
		r = store_environment_set_backend(e->store, ns, NULL, NULL, NULL, &job->error);
	if (r == 0)
		r = store_environment_set_desired(e->store, ns, "absent", &job->error);
	if (r == 0)
		trash_env_aside_done(e->id);
	cleanup_error struct error ignored = ERROR_INIT;
	if (r == 0 && trash_expire(e->store, e->id->shared_dir, &ignored) < 0)
		log_warning("environment", "the trash: %s", ignored.message);
}

struct weighing {
	uv_work_t request;
	struct environment *e;
};

/* With a handle of its own: jobs go on meanwhile. */
static void weigh_work(uv_work_t *request)
{
	const struct weighing *w = request->data;
	const char *shared_dir = w->e->id->shared_dir;
	struct store *store = NULL;
	cleanup_error struct error err = ERROR_INIT;
	int r = store_open(shared_dir, &store, &err);
	if (r == 0)
		r = trash_expire_volumes(store, shared_dir, &err);
	if (r < 0)
		log_warning("environment", "the trash: %s", err.message);
	store_close(store);
}

static void weigh_after(uv_work_t *request, int status)
{
	struct weighing *w = request->data;
	w->e->open_handles--;
	environment_wake(w->e);
	free(w);
}

/* How much engines keep of the trash takes a while to say: nobody waits for it. */
static void weigh_trash(struct environment *e)
{
	struct weighing *w = xcalloc(1, sizeof *w);
	w->request.data = w;
	w->e = e;
	e->open_handles++;
	uv_queue_work(e->params.loop, &w->request, weigh_work, weigh_after);
}

static void trash_after(struct job *base)
{
	struct trash_job *job = (struct trash_job *)base;
	struct environment *e = base->e;
	if (error_is_set(&job->error)) {
		failed(e, &job->error);
	} else {
		e->generation = job->next;
		done(e);
		if (job->started)
			weigh_trash(e);
	}
	error_release(&job->error);
	free(job);
}

static void trash_begin(struct environment *e)
{
	struct trash_job *job = xcalloc(1, sizeof *job);
	job->job.what = "trash";
	job->job.work = trash_work;
	job->job.after = trash_after;
	job->generation = e->generation;
	job->started = e->stored_backend != NULL;
	e->teardown = TEARDOWN_TRASHING;
	environment_job(e, &job->job);
}

/* ---- the data of one service ---- */

struct discard_job {
	struct job job;
	uint32_t generation;
	char *service, **parts;
	struct error error;
};

static void discard_work(struct job *base)
{
	struct discard_job *job = (struct discard_job *)base;
	char *const services[] = {job->service, NULL};
	trash_put_parts(base->e->store, base->e->id, job->generation, job->parts, services, &job->error);
}

static void tell_discarded(struct environment *e, const char *service, bool unfinished)
{
	json_t *fields = json_pack("{s:s}", "service", service);
	if (unfinished) {
		json_object_set_new(fields, "reason", json_string("its first start was interrupted before it was ready: what that left is in the trash (ajj trash list)"));
		log_warning("environment", "%s: its first start was interrupted before it was ready: what that left is in the trash, and it starts with new data", service);
	}
	environment_event(e, "discarded", fields);
}

static void discard_after(struct job *base)
{
	struct discard_job *job = (struct discard_job *)base;
	struct environment *e = base->e;
	struct apply_service *s = apply_find(e->apply, job->service);
	if (error_is_set(&job->error))
		environment_fail(e, &job->error);
	else
		tell_discarded(e, job->service, s && s->unfinished);
	if (s)
		s->discard = s->discarding = s->unfinished = false;
	error_release(&job->error);
	free(job->service);
	strv_free(job->parts);
	free(job);
}

static bool mounts(const struct model_service *s, const char *source)
{
	for (size_t i = 0; i < s->spec.n_volumes; i++)
		if (s->spec.volumes[i].source && !strcmp(s->spec.volumes[i].source, source))
			return true;
	return false;
}

/* Its directory and the volumes that no other service has, below the generation's directory. */
static char **parts_of(const struct environment *e, const struct apply_service *s)
{
	char **parts = NULL;
	strv_push(&parts, xstrdup(s->name));
	for (size_t i = 0; s->model && i < s->model->spec.n_volumes; i++) {
		const struct volume_spec *v = &s->model->spec.volumes[i];
		bool shared = v->kind != VOLUME_NAMED && v->kind != VOLUME_ANONYMOUS;
		for (size_t o = 0; o < e->model->n_services && !shared; o++)
			shared = &e->model->services[o] != s->model && mounts(&e->model->services[o], v->source);
		if (!shared)
			strv_pushf(&parts, SPEC_VOLUMES "/%s", v->name);
	}
	return parts;
}

void discard_turn(struct environment *e)
{
	for (size_t i = 0; i < apply_count(e->apply) && e->teardown == TEARDOWN_NONE; i++) {
		struct apply_service *s = apply_at(e->apply, i);
		if (!s->discard || s->discarding || s->made || s->operation != OPERATION_NONE)
			continue;
		struct discard_job *job = xcalloc(1, sizeof *job);
		job->job.what = "discard";
		job->job.work = discard_work;
		job->job.after = discard_after;
		job->generation = e->generation;
		job->service = xstrdup(s->name);
		job->parts = parts_of(e, s);
		s->discarding = true;
		environment_job(e, &job->job);
	}
}

/* ---- what survived ---- */

/* One that is kept on a full disk says itself what is to be done. */
static void survivors(const struct environment *e, const char *names, struct error *ret)
{
	for (size_t i = 0; i < apply_count(e->apply); i++) {
		const struct apply_service *s = apply_at(e->apply, i);
		if (s->stuck && s->error.code == ERROR_NO_SPACE) {
			error_copy(ret, &s->error);
			return;
		}
	}
	error_set(ret, ERROR_BACKEND_DEPROVISION_FAILED, "not everything could be removed: %s", names);
}

static void on_verified(void *arg, const struct error *err, const struct instances *list)
{
	struct environment *e = arg;
	cleanup_error struct error survived = ERROR_INIT;
	cleanup_buffer struct buffer names = BUFFER_INIT;
	if (e->halted)
		return;
	for (size_t i = 0; !err && i < list->count; i++)
		if (list->items[i].state != INSTANCE_ABSENT)
			buffer_printf(&names, "%s%s (pid %d)", names.len ? ", " : "", list->items[i].service,
			              (int)list->items[i].pid);
	if (!err && !names.len) {
		trash_begin(e);
		return;
	}
	if (err)
		error_copy(&survived, err);
	else
		survivors(e, buffer_str(&names), &survived);
	for (size_t i = 0; i < apply_count(e->apply); i++) {
		const struct apply_service *s = apply_at(e->apply, i);
		if (s->stuck && error_is_set(&s->error))
			error_detail(&survived, s->name, json_string(s->error.message));
	}
	if (!survived.hint)
		error_hint(&survived, "ajj destroy tries again; data and ports are kept until it succeeds");
	failed(e, &survived);
}

static void on_cleared(void *arg, const struct error *err)
{
	struct environment *e = arg;
	if (e->halted)
		return;
	if (err)
		failed(e, err);
	else
		backend_list(e->backend, on_verified, e);
}

static void verify(struct environment *e)
{
	if (!e->backend) {
		trash_begin(e);
		return;
	}
	e->teardown = TEARDOWN_VERIFYING;
	backend_clear(e->backend, on_cleared, e);
}

/* ---- the way down ---- */

/* Neither started, nor ahead of need: then it does not matter what its backend says. */
static bool is_nothing_made(const struct environment *e)
{
	cleanup_strv char **names = discard_data_names(e->id, e->generation);
	return !e->stored_backend && !names && !backend_has_made(e->id->state_dir);
}

void teardown_begin(struct environment *e)
{
	if (e->teardown > TEARDOWN_PENDING)
		return;
	uv_timer_stop(&e->unlink_timer);
	e->teardown = TEARDOWN_STOPPING;
	e->teardown_failed = false;
	error_release(&e->backend_error);
	error_release(&e->failure);
	environment_store_desired(e, DESIRED_DESTROYING);
	environment_want_all(e, GOAL_NONE); /* whatever was stuck is tried again */
	demands_cancel_all(e, true, "the environment is being torn down, somebody asked for that meanwhile",
	                   "again, it waits for the teardown and begins afresh");
	environment_event(e, "destroy", e->unlinker.pid ? requester_json(&e->unlinker) : NULL);
	environment_mark(e, CHANGED_STATUS);
}

void teardown_turn(struct environment *e)
{
	bool stored = !e->running_job && !e->jobs;
	if (stored && e->teardown == TEARDOWN_NONE && !e->teardown_failed && environment_is_known(e) && e->desired &&
	    !strcmp(e->desired, DESIRED_DESTROYING))
		teardown_begin(e);
	if (e->teardown != TEARDOWN_STOPPING || !stored)
		return;
	if (!environment_is_known(e)) {
		if (error_is_set(&e->backend_error) && is_nothing_made(e))
			trash_begin(e);
		else if (error_is_set(&e->backend_error))
			failed(e, &e->backend_error);
		return;
	}
	for (size_t i = 0; i < apply_count(e->apply); i++)
		if (apply_at(e->apply, i)->goal != GOAL_ABSENT)
			apply_want(apply_at(e->apply, i), GOAL_ABSENT);
	if (apply_is_down(e->apply, true))
		verify(e);
}

static void on_unlink_timer(uv_timer_t *timer)
{
	teardown_begin(timer->data);
}

void environment_unlinked(struct environment *e, const struct requester *who, unsigned delay_ms)
{
	if (e->closing || e->teardown > TEARDOWN_PENDING)
		return;
	e->unlinker = *who;
	environment_event(e, "unlink", requester_json(who));
	if (!delay_ms) {
		teardown_begin(e);
		return;
	}
	if (e->teardown == TEARDOWN_NONE) {
		free(e->desired_before);
		e->desired_before = xstrdup(e->desired ? e->desired : "absent");
	}
	e->teardown = TEARDOWN_PENDING;
	environment_store_desired(e, DESIRED_DESTROYING); /* whoever serves next knows, too */
	uv_timer_start(&e->unlink_timer, on_unlink_timer, delay_ms, 0);
	environment_mark(e, CHANGED_STATUS);
}

void environment_replaced(struct environment *e, pid_t tgid)
{
	if (e->teardown != TEARDOWN_PENDING || e->unlinker.pid != tgid)
		return;
	uv_timer_stop(&e->unlink_timer);
	e->teardown = TEARDOWN_NONE;
	environment_store_desired(e, e->desired_before);
	environment_event(e, "replaced", requester_json(&e->unlinker));
	environment_mark(e, CHANGED_STATUS);
}
