/* What the files of an environment hold now, and the writing of its `.env`. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hash.h"
#include "provisioner/beside_compose.h"
#include "provisioner/beside_service.h"
#include "provisioner/envfile.h"
#include "provisioner/environment_private.h"
#include "provisioner/layers.h"
#include "provisioner/status.h"

/* A model is replaced as a whole, but for a teardown's taking its ports away and what the backend's check says of it. */
static uint64_t variables_key(const struct environment *e)
{
	uint64_t h = hash_str(HASH_INIT, buffer_str(&e->user_text));
	h = hash_str(h, buffer_str(&e->inherited));
	h = hash_bytes(h, &e->model, sizeof e->model);
	for (size_t i = 0; e->model && i < e->model->n_services; i++)
		h = hash_bytes(h, &e->model->services[i].unsupported.code, sizeof e->model->services[i].unsupported.code);
	return e->model ? hash_bytes(hash_str(h, e->model->signature), &e->model->planned, sizeof e->model->planned) : h;
}

/* Who reads it gets an errno alone: the words stand in errors.json, once however often it is looked at. */
static void text_failed(struct environment *e, const struct error *err)
{
	if (e->text_failure && !strcmp(e->text_failure, err->message))
		return;
	free(e->text_failure);
	e->text_failure = xstrdup(err->message);
	environment_fail(e, err);
}

/* Without a configuration there are the user's own lines: they can be appended to all the same. */
const struct envset *environment_variables(struct environment *e)
{
	environment_refresh_user(e);
	uint64_t key = variables_key(e);
	if (key != e->env_key || !e->env.items) {
		envset_release(&e->env);
		model_environment(e->model, buffer_str(&e->inherited), buffer_str(&e->user_text), &e->env);
		e->env_key = key;
	}
	return &e->env;
}

static int env_text(struct environment *e, const struct envset *set, struct buffer *out, struct error *err)
{
	cleanup_error struct error why = ERROR_INIT;
	int r = envfile_render(buffer_str(&e->user_text), set, out, NULL, &why);
	if (r < 0)
		text_failed(e, &why);
	else
		free(move_ptr(e->text_failure));
	if (r < 0 && err)
		error_move(err, &why);
	return r;
}

int environment_env(struct environment *e, struct buffer *out, struct error *err)
{
	return env_text(e, environment_variables(e), out, err);
}

int environment_container(struct environment *e, enum container_text form, struct buffer *out, struct error *err)
{
	cleanup_envset struct envset set = {NULL, 0};
	environment_refresh_user(e);
	model_container_environment(e->model, buffer_str(&e->inherited), buffer_str(&e->user_text), &set);
	if (form == CONTAINER_ENV)
		return env_text(e, &set, out, err);
	if (form == CONTAINER_ENV_JSON)
		status_env_json(&set, out);
	else
		status_env_list(&set, out);
	return 0;
}

int environment_env_json(struct environment *e, struct buffer *out, struct error *err)
{
	status_env_json(environment_variables(e), out);
	return 0;
}

void environment_compose(struct environment *e, struct buffer *out)
{
	if (e->model)
		beside_compose_text(e->model, e->id, out);
}

void environment_ports(struct environment *e, struct buffer *out)
{
	status_ports(e->model, out);
}

void environment_env_own(struct environment *e, struct buffer *out)
{
	environment_refresh_user(e);
	buffer_adds(out, buffer_str(&e->user_text));
}

void environment_status(struct environment *e, struct buffer *out)
{
	json_t *leases = e->params.leases ? e->params.leases(e->params.arg) : NULL;
	const struct status_view view = {
	    .id = e->id,
	    .state = environment_state(e),
	    .backend = e->stored_backend ? e->stored_backend
	               : e->model        ? e->model->backend
	                                 : NULL,
	    .backend_reason = e->stored_backend ? e->stored_reason
	                      : e->model        ? e->model->backend_reason
	                                        : NULL,
	    .generation = e->generation,
	    .model = e->model,
	    .apply = e->apply,
	    .unseen = environment_is_unseen(e),
	    .env = environment_variables(e),
	    .config_changed = e->config_changed,
	    .failure = error_is_set(&e->failure)        ? &e->failure
	               : error_is_set(&e->config_error) ? &e->config_error
	                                                : NULL,
	    .warnings = e->warnings,
	    .leases = leases,
	    .requested_by = e->requested_by,
	    .keeper_pid = e->params.keeper_pid,
	    .server_pid = getpid(),
	    .server_restarts = e->params.server_restarts,
	};
	status_json(&view, out);
	json_decref(leases);
	if (apply_is_active(e->apply) && now_monotonic_ms() - e->refreshed_ms > WATCH_INTERVAL_MS) {
		e->refreshed_ms = now_monotonic_ms();
		apply_refresh(e->apply);
	}
}

void environment_errors(struct environment *e, struct buffer *out)
{
	events_failures_text(e->events, out);
}

void environment_trust(struct environment *e, struct buffer *out)
{
	json_t *json = trust_json(&e->trust);
	cleanup_free char *text = json_dumps(json, JSON_INDENT(2));
	buffer_printf(out, "%s\n", text);
	json_decref(json);
}

void environment_errors_clear(struct environment *e)
{
	events_failures_clear(e->events);
	environment_mark(e, CHANGED_ERRORS);
}

size_t environment_events_read(struct environment *e, uint64_t offset, char *buf, size_t size)
{
	return events_read(e->events, offset, buf, size);
}

uint64_t environment_events_size(struct environment *e)
{
	return events_size(e->events);
}

uint64_t environment_events_start(struct environment *e)
{
	return events_start(e->events);
}

/* ---- services ---- */

size_t environment_service_count(struct environment *e)
{
	return apply_count(e->apply);
}

const char *environment_service_name(struct environment *e, size_t i)
{
	return apply_at(e->apply, i)->name;
}

bool environment_has_service(struct environment *e, const char *service)
{
	return apply_find(e->apply, service) != NULL;
}

static int service_env(struct environment *e, const struct model_service *m, struct buffer *out, struct error *err)
{
	cleanup_error struct error why = ERROR_INIT;
	int r = status_service_env(m, out, &why);
	if (r < 0)
		text_failed(e, &why);
	if (r < 0 && err)
		error_move(err, &why);
	return r;
}

int environment_service(struct environment *e, const char *service, enum service_text what, struct buffer *out,
                        struct error *err)
{
	const struct apply_service *s = apply_find(e->apply, service);
	if (!s)
		return error_set(err, ERROR_SERVICE_UNKNOWN, "there is no service '%s'", service);
	const struct model_service *m = s->model;
	uint16_t port = m ? model_external_port(m, m->recipe ? m->recipe->port : 0) : 0;
	switch (what) {
	case SERVICE_URL:
		buffer_printf(out, "%s\n", m && m->url ? m->url : "");
		break;
	case SERVICE_HOST:
		buffer_adds(out, MODEL_HOST "\n");
		break;
	case SERVICE_PORT:
		if (port)
			buffer_printf(out, "%u\n", port);
		break;
	case SERVICE_ENV:
		return m ? service_env(e, m, out, err) : 0;
	case SERVICE_STATE:
		buffer_printf(out, "%s\n", service_state_name(status_state(s, environment_is_unseen(e))));
		break;
	case SERVICE_EXEC:
		beside_service(e->model, m, out);
		break;
	}
	return 0;
}

char *environment_service_log(struct environment *e, const char *service)
{
	return e->backend && apply_find(e->apply, service) ? backend_log_path(e->backend, service) : NULL;
}

/* ---- the user's own lines ---- */

static int write_beneath(struct environment *e, const struct buffer *text, struct error *err)
{
	struct stat st;
	const char *name = identity_own_name(e->id);
	bool exists = fstatat(e->params.root_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	              !layers_is_copied_link(e->params.root_fd, name);
	int r = 0;
	if (!text->len && !exists)
		return 0;
	if (exists && S_ISLNK(st.st_mode)) {
		/* A link stays a link: its target gets the lines, as it would without us. */
		cleanup_close int fd = layers_open_link(e->id, e->params.root_fd);
		r = fd < 0 ? fd : write_all(fd, buffer_str(text), text->len);
	} else {
		mode_t mode = exists ? st.st_mode & 07777 : 0600;
		r = file_write_atomic(e->params.root_fd, name, buffer_str(text), text->len, mode);
	}
	if (r < 0)
		return error_set_errno(err, r == -ENOSPC ? ERROR_NO_SPACE : ERROR_PERMISSION, -r,
		                       "cannot write the %s beneath the mount", name);
	return 0;
}

int environment_write_env(struct environment *e, const char *text, size_t len, struct error *err)
{
	cleanup_free char *written = xstrndup(text, len);
	cleanup_buffer struct buffer served = BUFFER_INIT, own = BUFFER_INIT;
	bool changed_inside = false;
	envfile_render(buffer_str(&e->user_text), environment_variables(e), &served, NULL, NULL);
	envfile_user_part(written, served.len ? buffer_str(&served) : NULL, &own, &changed_inside);
	if (changed_inside)
		environment_event(e, "warning",
		                  json_pack("{s:s}", "message", "edits between the aether markers of .env are not kept"));
	if (!strcmp(buffer_str(&own), buffer_str(&e->user_text)))
		return 0;
	int r = write_beneath(e, &own, err);
	if (r < 0) {
		environment_fail(e, err);
		return r;
	}
	environment_set_user_text(e, &own); /* a link's target is read again by a load; what was written is known now */
	environment_refresh_user(e);
	return 0;
}
