/* What an environment reads: its configuration, the layers of its own lines, the store; and what it makes of a change. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "provisioner/env_name.h"
#include "provisioner/environment_private.h"
#include "provisioner/layers.h"

struct load_job {
	struct job job;
	enum load_flags flags;
	bool plan, first;
	uint64_t old_stamp, stamp, root_stamp;
	char **files; /* that the last configuration was read from */
	struct buffer user_text;
	struct buffer main_text; /* as it is known; of a link, as it is */
	struct buffer base_text, main_base; /* as in struct environment */
	const char *env_name;
	char **tracked; /* as in struct model_params */
	bool unchanged;
	char *approves; /* as in trust_look */
	char *hash;     /* of the trust as it was, which another workspace may have given or revoked since; NULL: none */
	bool approved;
	struct store_environment stored;
	struct model *model;
	struct model *applied; /* before it; NULL: as ever */
	uint16_t refused[REFUSED_MAX + 1]; /* as in model_params */
	char *current; /* the signature of the model when it began */
	struct error error;
};

static int register_environment(struct load_job *job)
{
	struct environment *e = job->job.e;
	int r = 0;
	if (job->first) {
		const struct store_environment self = {
		    .namespace_ = e->id->namespace_,
		    .root = e->id->root,
		    .repository = e->id->repository,
		    .workspace = e->id->workspace,
		    .control_dir = e->id->control_dir,
		    .state_dir = e->id->state_dir,
		    .generation = 1,
		    .desired = (char *)"absent",
		    .created_ms = now_wall_ms(),
		    .uid = (uid_t)-1,
		    .root_id = e->id->root_id,
		};
		r = store_environment_put(e->store, &self, geteuid() == 0, &job->error);
	}
	if (r < 0)
		return r;
	r = store_environment_get(e->store, e->id->namespace_, &job->stored, &job->error);
	if (r == 0)
		return error_set(&job->error, ERROR_STORE_FAILED, "the environment %s is not in the store", e->id->namespace_);
	return r < 0 ? r : 0;
}

static int load_recipes(struct load_job *job)
{
	struct environment *e = job->job.e;
	if (e->recipes)
		return 0;
	const char *config_home = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	cleanup_strv char **directories = NULL;
	cleanup_free char *versions = xasprintf("%s/programs", e->id->shared_dir);
	strv_push(&directories, xstrdup(e->params.recipes_dir));
	if (config_home && *config_home == '/')
		strv_pushf(&directories, "%s/aether/recipes", config_home);
	else if (home && *home == '/')
		strv_pushf(&directories, "%s/.config/aether/recipes", home);
	int r = recipes_load(directories, &e->recipes, &job->error);
	if (r == 0)
		recipes_remember(e->recipes, versions);
	return r;
}

/* Later ones win. */
static void lay_together(struct buffer *out, const struct buffer *base, const struct buffer *main_base, const struct buffer *main_text)
{
	const struct buffer *lowest = base->len ? base : main_base;
	buffer_clear(out);
	buffer_add(out, buffer_str(lowest), lowest->len);
	if (lowest->len && lowest->data[lowest->len - 1] != '\n')
		buffer_addc(out, '\n');
	buffer_add(out, buffer_str(main_text), main_text->len);
}

static bool is_as_trusted(const struct load_job *job)
{
	const struct environment *e = job->job.e;
	return !job->hash || !*job->hash || store_is_approved(e->store, e->id->repository, job->hash, NULL) == job->approved;
}

static void load_applied(struct load_job *job, const struct model_params *params)
{
	bool up = job->first && job->stored.desired && !strcmp(job->stored.desired, "up"), again = job->flags & LOAD_AGAIN;
	json_t *record = up || again ? applied_read(job->job.e) : NULL;
	bool wanted = again ? job->current && applied_is(record, job->current) : !job->model || !applied_is(record, job->model->signature);
	if (record && wanted)
		job->applied = applied_load(record, params);
	json_decref(record);
}

static void load_work(struct job *base)
{
	struct load_job *job = (struct load_job *)base;
	struct environment *e = base->e;
	int r = job->first ? register_environment(job) : 0;
	layers_user_text(e->id, e->params.root_fd, &job->user_text);
	if (e->main.is_link) {
		buffer_clear(&job->main_text);
		main_layer_read_link(&e->main, &job->main_text);
	}
	job->root_stamp = layers_root_stamp(e->params.root_fd);
	job->stamp = layers_config_stamp(e->id, e->params.root_fd, job->files);
	job->env_name = env_name_read(e->id->shared_dir, e->id->repository, NULL);
	if (r == 0 && !(job->flags & LOAD_FORCE) && job->stamp == job->old_stamp && is_as_trusted(job)) {
		job->unchanged = true;
		return;
	}
	if (r == 0)
		r = load_recipes(job);
	if (r == 0 && !job->first)
		r = register_environment(job);
	if (r == 0 && job->flags & LOAD_REVOKE)
		r = store_revoke(e->store, e->id->repository, &job->error);
	if (r < 0)
		return;
	cleanup_buffer struct buffer inherited = BUFFER_INIT;
	lay_together(&inherited, &job->base_text, &job->main_base, &job->main_text);
	job->tracked = env_name_tracked(e->id->shared_dir, e->id->repository);
	const struct model_params params = {
	    .id = e->id,
	    .root_fd = e->params.root_fd,
	    .recipes = e->recipes,
	    .store = e->store,
	    .user_text = buffer_str(&job->user_text),
	    .main_text = buffer_str(&inherited),
	    .tracked_text = buffer_str(&job->base_text),
	    .backend = job->stored.backend,
	    .backend_target = job->stored.backend_target,
	    .backend_reason = job->stored.backend_reason,
	    .generation = job->stored.generation,
	    .uid = job->stored.uid,
	    .beside_compose = !e->params.keep_own_lines,
	    .refused = job->refused,
	    .plan = job->plan,
	    .move = job->flags & LOAD_APPLY ? LEASE_MOVES : job->flags & LOAD_OFFER ? LEASE_MAY_MOVE : LEASE_STAYS,
	    .approve = job->approves,
	    .digests = &e->digests,
	    .tracked_files = job->tracked,
	};
	model_load(&params, &job->model, &job->error);
	load_applied(job, &params);
}

static void take_stored(struct environment *e, struct load_job *job)
{
	if (!job->stored.namespace_)
		return;
	e->registered = true;
	free(e->stored_backend);
	free(e->stored_target);
	free(e->stored_reason);
	e->stored_backend = move_ptr(job->stored.backend);
	e->stored_target = move_ptr(job->stored.backend_target);
	e->stored_reason = move_ptr(job->stored.backend_reason);
	e->generation = job->stored.generation;
	e->uid = job->stored.uid;
	if (!job->first)
		return;
	free(e->desired);
	e->desired = move_ptr(job->stored.desired);
	e->up_stored = e->desired && !strcmp(e->desired, "up");
}

static void publish_own_lines(struct environment *e)
{
	int r = main_layer_publish(e->id, e->id->env_name, buffer_str(&e->user_text), e->user_text.len);
	if (r == 0 && env_name_has_base(e->id->env_name))
		r = main_layer_publish(e->id, ENV_NAME_DEFAULT, buffer_str(&e->base_text), e->base_text.len);
	if (r < 0)
		log_warning("environment", "other workspaces may see an old .env of this checkout: %s", strerror(-r));
}

static void replace_text(struct buffer *old, const struct buffer *text)
{
	buffer_clear(old);
	buffer_add(old, buffer_str(text), text->len);
}

static void take_main_text(struct environment *e, struct load_job *job)
{
	if (!e->main.is_link || !strcmp(buffer_str(&e->main.text), buffer_str(&job->main_text)))
		return;
	replace_text(&e->main.text, &job->main_text);
	lay_together(&e->inherited, &e->base_text, &e->main_base.text, &e->main.text);
	environment_mark(e, CHANGED_ENV | CHANGED_STATUS);
}

/* What a regular file holds is read here and now; a link's target only the job may read. */
static void take_user_text(struct environment *e, struct load_job *job)
{
	bool is_link;
	uint64_t stamp = layers_user_stamp(e->params.root_fd, identity_own_name(e->id), &is_link);
	if (!is_link) {
		environment_refresh_user(e);
		return;
	}
	e->user_stamp = stamp;
	if (!strcmp(buffer_str(&e->user_text), buffer_str(&job->user_text)))
		return;
	environment_set_user_text(e, &job->user_text);
}

void environment_notice_change(struct environment *e, const struct error *err)
{
	if (!e->config_changed)
		environment_event(e, "config_changed", err ? json_pack("{s:s}", "error", err->message) : NULL);
	e->config_changed = true;
	strv_free(e->warnings);
	e->warnings = NULL;
	if (err)
		strv_pushf(&e->warnings,
		           "the configuration has changed and cannot be read, the services run by the old one: %s",
		           err->message);
	else if (!trust_is_given(&e->trust))
		strv_push(&e->warnings, xstrdup("the configuration has changed and could run code that nobody has approved, the services run "
		                                "by the old one: `ajj trust --show`"));
	else
		strv_push(&e->warnings,
		          xstrdup("the configuration has changed, the services run by the old one: `ajj up` applies it"));
	environment_mark(e, CHANGED_STATUS);
}

void environment_notice_failure(struct environment *e, const struct error *err)
{
	cleanup_free char *message = environment_mask(e, err->message);
	strv_free(move_ptr(e->warnings));
	strv_pushf(&e->warnings, "the configuration has changed and could not be applied, the services run by the old one: %s", message);
	environment_mark(e, CHANGED_STATUS);
}

void environment_drop_next(struct environment *e)
{
	model_free(move_ptr(e->next));
}

static void set_next(struct environment *e, struct model *model)
{
	if (e->next && !strcmp(e->next->signature, model->signature)) {
		model_free(model);
		return;
	}
	environment_drop_next(e);
	e->next = model;
	demand_builds_anew(e);
}

static void take_over(struct environment *e, struct model *model)
{
	struct model *old = e->model;
	bool same = old && model && old->planned == model->planned && !strcmp(old->signature, model->signature);
	environment_drop_next(e);
	e->model = model;
	apply_set_model(e->apply, model);
	model_free(old);
	e->config_changed = false;
	environment_mark(e, CHANGED_STATUS);
	if (same)
		return;
	e->prepared = false;
	environment_mark(e, CHANGED_ENV | CHANGED_PORTS | CHANGED_SERVICES);
}

/* What runs may still be as the old one had it: accepted early (a port, a new server), applied by `up` alone. */
static void take_over_and_compare(struct environment *e, struct model *model)
{
	take_over(e, model);
	if (apply_has_changes(e->apply))
		environment_notice_change(e, NULL);
}

static bool may_take_over(const struct environment *e, const struct load_job *job, const struct model *model)
{
	bool stranger = !trust_is_given(&model->trust);
	if (e->recalled)
		return false;
	bool offered = (job->flags & LOAD_OFFER) && !apply_contradicts(e->apply, model);
	if (e->model && stranger && trust_is_given(&e->model->trust) && apply_is_active(e->apply))
		return false; /* what runs goes on as it was approved */
	return !e->model || !trust_is_given(&e->model->trust) || (job->flags & LOAD_APPLY) || offered || !apply_is_active(e->apply) || !e->model->planned ||
	       !strcmp(e->model->signature, model->signature) ||
	       ((job->flags & LOAD_NEEDED) && apply_may_follow(e->apply, model));
}

static void take_model(struct environment *e, struct load_job *job)
{
	bool keeps = e->model && (e->recalled || apply_is_active(e->apply));
	if (error_is_set(&job->error)) {
		error_move(&e->config_error, &job->error);
		if (keeps)
			environment_notice_change(e, &e->config_error);
		else
			take_over(e, NULL);
		return;
	}
	if (error_is_set(&e->config_error) && e->failure.code == e->config_error.code)
		error_release(&e->failure);
	error_release(&e->config_error);
	if (!e->recalled)
		environment_backend_check(e, job->model);
	if (!may_take_over(e, job, job->model)) {
		if (e->model->trust.hash && !strcmp(e->model->trust.hash, job->model->trust.hash))
			trust_copy(&e->model->trust, &job->model->trust);
		if (e->recalled || (job->flags & LOAD_OFFER && trust_is_given(&job->model->trust)))
			set_next(e, job->model);
		else
			model_free(job->model);
		if (!e->recalled)
			environment_notice_change(e, NULL);
		return;
	}
	strv_free(e->warnings);
	e->warnings = NULL;
	take_over_and_compare(e, job->model);
}

/* Another server has started services by it, and the files say something else now. */
static void recall(struct environment *e, struct model *applied)
{
	take_over(e, applied);
	e->recalled = true;
}

/* Nothing but what has to be: what was written into the files since waits for an `up` as before. */
static void renew(struct environment *e, struct load_job *job)
{
	struct model *next = move_ptr(e->next);
	bool changed = e->config_changed;
	if (!job->applied || !e->model || !applied_is(e->model->record, job->current)) { /* it is another one by now, or cannot be had again */
		model_free(job->applied);
		e->next = next;
		job->flags |= LOAD_APPLY;
		return;
	}
	environment_backend_check(e, job->applied);
	take_over(e, job->applied);
	e->next = next;
	e->config_changed = changed;
}

void environment_settle_recalled(struct environment *e)
{
	bool recalled = e->recalled;
	e->recalled = false;
	if (!recalled || !e->next)
		return;
	environment_backend_check(e, e->next);
	if (apply_contradicts(e->apply, e->next))
		environment_notice_change(e, NULL);
	else
		environment_take_next(e);
}

static void take_trust(struct environment *e, const struct model *model)
{
	if (!model)
		return;
	trust_copy(&e->trust, &model->trust);
	environment_mark(e, CHANGED_STATUS);
}

/* ajj has asked jj or git, and it is another now. What was read under the old name is read again. */
static void take_name(struct environment *e, const struct load_job *job)
{
	if (!job->env_name || job->env_name == e->id->env_name || !e->params.env_named)
		return;
	e->params.env_named(e->params.arg, job->env_name);
	environment_event(e, "env_named", json_pack("{s:s}", "name", job->env_name));
	environment_close_layers(e);
	environment_open_layers(e);
	e->user_stamp = 0;
	environment_refresh_user(e);
	environment_mark(e, CHANGED_ENV | CHANGED_ENV_OWN | CHANGED_STATUS);
	environment_load(e, LOAD_FORCE);
}

static void take_files(struct environment *e)
{
	e->files_stamp = e->model ? layers_files_stamp(e->id, e->params.root_fd, e->model->config) : 0;
	more_files_take(e);
}

void environment_take_next(struct environment *e)
{
	if (!e->next)
		return;
	take_over(e, move_ptr(e->next));
	take_files(e);
}

static void load_after(struct job *base)
{
	struct load_job *job = (struct load_job *)base;
	struct environment *e = base->e;
	bool was_error = error_is_set(&e->config_error);
	if (e->load_done++ == 0)
		environment_mark(e, CHANGED_FILES);
	e->root_stamp = job->root_stamp;
	take_name(e, job);
	take_user_text(e, job);
	take_main_text(e, job);
	take_trust(e, job->model ? job->model : job->applied);
	if (!job->unchanged) {
		e->config_stamp = job->stamp;
		take_stored(e, job);
		if (job->flags & LOAD_AGAIN)
			renew(e, job);
		else if (job->applied)
			recall(e, job->applied);
		take_model(e, job);
		take_files(e);
		if (was_error != error_is_set(&e->config_error))
			environment_mark(e, CHANGED_STATUS);
	}
	store_environment_release(&job->stored);
	error_release(&job->error);
	buffer_release(&job->user_text);
	buffer_release(&job->main_text);
	buffer_release(&job->base_text);
	buffer_release(&job->main_base);
	strv_free(job->files);
	strv_free(job->tracked);
	free(job->current);
	free(job->approves);
	free(job->hash);
	free(job);
}

/* Files that are written in place change neither the time of their directory nor that of the configuration. */
static bool mounts_code(const struct model *m)
{
	for (size_t i = 0; m && i < m->n_services; i++)
		if (m->services[i].config->mounts_code)
			return true;
	return false;
}

/* The job sees what is known when it begins, not when it was asked for. */
static void load_begin(struct job *base)
{
	struct load_job *job = (struct load_job *)base;
	struct environment *e = base->e;
	job->flags = e->load_flags;
	replace_text(&job->main_text, &e->main.text);
	replace_text(&job->base_text, &e->base_text);
	replace_text(&job->main_base, &e->main_base.text);
	job->first = !e->registered;
	job->plan = e->plan;
	job->old_stamp = e->config_stamp;
	job->current = e->model ? xstrdup(e->model->signature) : NULL;
	for (size_t i = 0, n = 0; i < REFUSED_MAX; i++)
		if (e->refused[i].until_ms > now_monotonic_ms())
			job->refused[n++] = e->refused[i].port;
	bool refused = false;
	for (size_t i = 0; e->model && i < e->model->n_services; i++)
		refused = refused || model_is_refused(&e->model->services[i]);
	bool settled = e->model && !refused && e->model->planned == e->plan && trust_is_given(&e->trust) && !e->config_changed &&
	               !error_is_set(&e->config_error);
	if ((job->flags & LOAD_NEEDED) && (!settled || mounts_code(e->model)))
		job->flags |= LOAD_FORCE;
	job->files = e->model ? strv_copy(e->model->config->env_files) : NULL;
	if (e->model)
		for (size_t i = 0; i < e->model->config->n_files; i++)
			strv_push(&job->files, xstrdup(e->model->config->files[i].path));
	job->approves = job->flags & LOAD_APPROVE ? move_ptr(e->approves) : NULL;
	job->hash = xstrdup(e->trust.hash);
	job->approved = e->trust.approved;
	e->load_flags = 0;
	e->load_queued = false;
	e->load_started++;
}

uint64_t environment_load(struct environment *e, enum load_flags flags)
{
	uint64_t seq = e->load_started + 1;
	e->load_flags |= flags;
	if (!e->load_queued) {
		struct load_job *job = xcalloc(1, sizeof *job);
		job->job.what = "load";
		job->job.begin = load_begin;
		job->job.work = load_work;
		job->job.after = load_after;
		e->load_queued = true;
		environment_job(e, &job->job);
	}
	return seq;
}

void environment_set_user_text(struct environment *e, const struct buffer *text)
{
	replace_text(&e->user_text, text);
	publish_own_lines(e);
	environment_mark(e, CHANGED_ENV | CHANGED_ENV_OWN | CHANGED_STATUS);
}

static void refresh_own(struct environment *e)
{
	bool is_link;
	uint64_t stamp = layers_user_stamp(e->params.root_fd, identity_own_name(e->id), &is_link);
	if (stamp == e->user_stamp)
		return;
	e->user_stamp = stamp;
	if (is_link) { /* its target may lie behind another mount */
		if (e->load_started && !e->closing)
			e->user_load = environment_load(e, 0);
		return;
	}
	cleanup_buffer struct buffer text = BUFFER_INIT;
	layers_user_text(e->id, e->params.root_fd, &text);
	if (strcmp(buffer_str(&text), buffer_str(&e->user_text)) != 0)
		environment_set_user_text(e, &text);
}

void environment_own_changed(struct environment *e)
{
	environment_refresh_user(e);
	more_files_refresh(e);
}

static bool refresh_base(struct environment *e)
{
	uint64_t stamp = layers_base_stamp(e->id, e->params.root_fd);
	if (stamp == e->base_stamp)
		return false;
	e->base_stamp = stamp;
	buffer_clear(&e->base_text);
	layers_base_text(e->id, e->params.root_fd, &e->base_text);
	publish_own_lines(e);
	if (e->load_started && !e->closing) /* it may be a stranger's, and what it says is approved with the rest */
		e->user_load = environment_load(e, LOAD_FORCE);
	return true;
}

void environment_refresh_user(struct environment *e)
{
	refresh_own(e);
	bool base = refresh_base(e), main_base = main_layer_refresh(&e->main_base), main_text = main_layer_refresh(&e->main);
	if (!base && !main_base && !main_text)
		return;
	lay_together(&e->inherited, &e->base_text, &e->main_base.text, &e->main.text);
	environment_mark(e, CHANGED_ENV | CHANGED_STATUS);
}

void environment_open_layers(struct environment *e)
{
	main_layer_open(e->id, e->id->env_name, &e->main);
	if (env_name_has_base(e->id->env_name))
		main_layer_open(e->id, ENV_NAME_DEFAULT, &e->main_base);
	else
		e->main_base = (struct main_layer){.table_fd = -1};
	e->base_stamp = 0;
	buffer_clear(&e->base_text);
	buffer_clear(&e->inherited);
}

void environment_close_layers(struct environment *e)
{
	main_layer_close(&e->main);
	main_layer_close(&e->main_base);
}
