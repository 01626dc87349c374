#include "provisioner/status.h"

#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "provisioner/envfile.h"

/* ---- JSON ---- */

static void set_string(json_t *object, const char *key, const char *value)
{
	json_object_set_new(object, key, value ? json_string(value) : json_null());
}

static void set_time(json_t *object, const char *key, int64_t wall_ms)
{
	char text[32];
	if (!wall_ms)
		return;
	format_time(text, wall_ms);
	json_object_set_new(object, key, json_string(text));
}

static json_t *strings(char *const *list)
{
	json_t *array = json_array();
	for (; list && *list; list++)
		json_array_append_new(array, json_string(*list));
	return array;
}

static json_t *ports_of(const struct model_service *s)
{
	json_t *array = json_array();
	for (size_t i = 0; i < s->n_ports; i++) {
		json_t *port = json_pack("{s:i, s:s, s:s}", "internal", s->ports[i].internal, "host", MODEL_HOST, "protocol",
		                         s->ports[i].protocol);
		if (s->ports[i].external)
			json_object_set_new(port, "external", json_integer(s->ports[i].external));
		json_array_append_new(array, port);
	}
	return array;
}

enum service_state status_state(const struct apply_service *s, bool unseen)
{
	return unseen && s->state == SERVICE_ABSENT ? SERVICE_STARTING : s->state;
}

static const char *health_of(const struct apply_service *s, enum service_state state)
{
	switch (state) {
	case SERVICE_READY:
		return service_health_name(s);
	case SERVICE_STARTING:
	case SERVICE_RESTARTING:
		return "starting";
	case SERVICE_FAILED:
		return "unhealthy";
	default:
		return "none";
	}
}

static void add_process(json_t *json, const struct apply_service *s)
{
	if (s->pid)
		json_object_set_new(json, "pid", json_integer(s->pid));
	if (s->handle && *s->handle)
		json_object_set_new(json, "container", json_string(s->handle));
	if (s->memory_bytes)
		json_object_set_new(json, "memory_bytes", json_integer((json_int_t)s->memory_bytes));
	set_time(json, "started", s->started_ms);
	if (s->exited_ms) {
		set_time(json, "exited", s->exited_ms);
		json_object_set_new(json, "exit_code", json_integer(s->exit_code));
	}
}

static json_t *masked_error(const struct model *m, const struct error *error)
{
	json_t *json = error_to_json(error);
	cleanup_free char *message = model_mask(m, error->message ? error->message : "");
	set_string(json, "message", message);
	return json;
}

json_t *status_service(const struct model *m, const struct apply_service *s, bool unseen)
{
	enum service_state state = status_state(s, unseen);
	json_t *json = json_object();
	const struct error *error = error_is_set(&s->error) ? &s->error : NULL;
	set_string(json, "state", service_state_name(state));
	set_string(json, "health", health_of(s, state));
	if (s->model) {
		const char *image = s->model->spec.build ? s->model->spec.image : s->model->config->image;
		if (image)
			set_string(json, "image", image);
		if (s->model->recipe)
			set_string(json, "recipe", s->model->recipe->name);
		if (s->model->program_major)
			set_string(json, "version", s->model->program_major);
		json_object_set_new(json, "ports", ports_of(s->model));
		if (!error && error_is_set(&s->model->unsupported))
			error = &s->model->unsupported;
	}
	add_process(json, s);
	if (s->progress)
		json_object_set(json, json_object_get(s->progress, "building") ? "building" : "pulling", s->progress);
	json_object_set_new(json, "restarts", json_integer(s->restarts));
	if (s->probe && *probe_last(s->probe)) {
		cleanup_free char *last = model_mask(m, probe_last(s->probe));
		set_string(json, "waiting_for", last);
	}
	if (error)
		json_object_set_new(json, "error", masked_error(m, error));
	return json;
}

json_t *status_resources(const struct model *m)
{
	json_t *resources = json_object();
	for (size_t i = 0; m && i < m->n_services; i++) {
		const struct model_service *s = &m->services[i];
		uint16_t internal = s->recipe && s->recipe->port ? s->recipe->port : s->n_ports ? s->ports[0].internal : 0;
		uint16_t external = internal ? model_external_port(s, internal) : 0;
		if (!external)
			continue;
		cleanup_free char *masked = s->url ? url_mask_password(s->url) : NULL;
		json_t *r =
		    json_pack("{s:i, s:i, s:s}", "internal_port", internal, "external_port", external, "host", MODEL_HOST);
		if (masked)
			set_string(r, "connection_string", masked);
		json_object_set_new(resources, s->config->name, r);
	}
	return resources;
}

static json_t *services_of(const struct model *m, const struct apply *a, bool unseen)
{
	json_t *services = json_object();
	for (size_t i = 0; i < apply_count(a); i++)
		json_object_set_new(services, apply_at(a, i)->name, status_service(m, apply_at(a, i), unseen));
	return services;
}

static json_t *app_ports(const struct model *m)
{
	json_t *ports = json_object();
	for (size_t i = 0; m && i < m->app_ports.count; i++)
		json_object_set_new(ports, m->app_ports.items[i].key,
		                    json_integer(strtol(m->app_ports.items[i].value, NULL, 10)));
	return ports;
}

static json_t *warnings_of(const struct status_view *v)
{
	json_t *warnings = strings(v->model ? v->model->warnings : NULL);
	for (size_t i = 0; v->model && i < v->model->n_services; i++)
		if (error_is_set(&v->model->services[i].unsupported))
			json_array_append_new(warnings, json_string(v->model->services[i].unsupported.message));
	for (size_t i = 0; i < apply_count(v->apply); i++) {
		const struct apply_service *s = apply_at(v->apply, i);
		cleanup_free char *foreign = s->model && s->foreign ? xasprintf("%s: %s", s->name, s->foreign) : NULL;
		if (foreign)
			json_array_append_new(warnings, json_string(foreign));
	}
	cleanup_strv char **subnets = v->model ? model_subnet_warnings(v->model, v->id) : NULL;
	char *const *const lists[] = {subnets, v->warnings};
	for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
		json_t *more = strings(lists[i]);
		json_array_extend(warnings, more);
		json_decref(more);
	}
	return warnings;
}

/* A user's value, for people to see what became of it: never a secret. */
static json_t *shown_value(const char *key, const char *value)
{
	if (env_name_is_secret(key))
		return json_string("***");
	cleanup_free char *masked = url_mask_password(value);
	return json_string(masked);
}

static json_t *rewrite_of(const struct env_entry *e)
{
	return json_pack("{s:s, s:s, s:s, s:o, s:o}", "key", e->key, "layer", env_layer_name(e->layer), "service", e->service,
	                 "before", shown_value(e->key, e->before), "after", shown_value(e->key, e->value));
}

static json_t *override_of(const struct env_entry *e)
{
	return json_pack("{s:s, s:o, s:o}", "key", e->key, "before", shown_value(e->key, e->before ? e->before : e->value), "after",
	                 shown_value(e->key, e->value));
}

static bool is_flagged(const struct env_entry *e)
{
	cleanup_buffer struct buffer form = BUFFER_INIT;
	return !e->own_line && !e->statement && envfile_quote(e->value, &form) != ENVFILE_PLAIN;
}

static void add_environment_keys(json_t *json, const struct status_view *v)
{
	json_t *overridden = json_array(), *overrides = json_array(), *rewrites = json_array(), *flagged = json_array(), *layers = json_object();
	for (size_t i = 0; v->env && i < v->env->count; i++) {
		const struct env_entry *e = &v->env->items[i];
		json_object_set_new(layers, e->key, json_string(env_layer_name(e->layer)));
		if (e->layer == ENV_IMPOSED && e->overrides) {
			json_array_append_new(overridden, json_string(e->key));
			json_array_append_new(overrides, override_of(e));
		}
		if (e->service && e->before)
			json_array_append_new(rewrites, rewrite_of(e));
		if (is_flagged(e))
			json_array_append_new(flagged, json_string(e->key));
	}
	json_object_set_new(json, "overridden", overridden);
	json_object_set_new(json, "overrides", overrides);
	json_object_set_new(json, "rewrites", rewrites);
	json_object_set_new(json, "flagged", flagged);
	json_object_set_new(json, "layers", layers);
}

/* All that it was read from, later ones lie on top. */
static json_t *config_files(const struct model *m)
{
	json_t *files = json_array();
	for (size_t i = 0; m && i < m->config->n_files; i++)
		json_array_append_new(files, json_string(m->config->files[i].path));
	return files;
}

/* Of the surroundings: the names that the configuration looked up, set or not. */
static json_t *variables(const struct model *m)
{
	json_t *names = json_array();
	for (char **name = m ? m->config->asked : NULL; name && *name; name++)
		json_array_append_new(names, json_string(*name));
	return names;
}

/* x-aether.env_files, and what stands for what in them. */
static json_t *more_files(const struct model *m)
{
	json_t *files = json_object();
	for (size_t i = 0; m && i < m->n_files; i++) {
		const struct keyvals *map = &m->files[i].config->services;
		json_t *services = json_object();
		for (size_t k = 0; k < map->count; k++)
			json_object_set_new(services, map->items[k].key, json_string(map->items[k].value));
		json_object_set_new(files, m->files[i].config->path, services);
	}
	return files;
}

void status_json(const struct status_view *v, struct buffer *out)
{
	cleanup_free char *network = model_network(v->model, v->id);
	json_t *json = json_object();
	set_string(json, "workspace_root", v->id->root);
	set_string(json, "env_file", v->id->env_name);
	json_object_set_new(json, "env_files", more_files(v->model));
	set_string(json, "backend", v->backend);
	set_string(json, "state", v->state);
	json_object_set_new(json, "resources", status_resources(v->model));
	set_string(json, "namespace", v->id->namespace_);
	set_string(json, "workspace", v->id->workspace);
	set_string(json, "backend_reason", v->backend_reason);
	set_string(json, "network", network);
	json_object_set_new(json, "services", services_of(v->model, v->apply, v->unseen));
	json_object_set_new(json, "app_ports", app_ports(v->model));
	set_string(json, "config_file", v->model ? v->model->config->file : NULL);
	json_object_set_new(json, "config_files", config_files(v->model));
	json_object_set_new(json, "variables", variables(v->model));
	json_object_set_new(json, "config_changed", json_boolean(v->config_changed));
	json_object_set_new(json, "generation", json_integer(v->generation));
	if (v->failure && error_is_set(v->failure))
		json_object_set_new(json, "error", masked_error(v->model, v->failure));
	json_object_set_new(json, "warnings", warnings_of(v));
	json_object_set_new(json, "leases", v->leases ? json_incref(v->leases) : json_array());
	json_object_set_new(json, "requested_by", v->requested_by ? json_incref(v->requested_by) : json_array());
	add_environment_keys(json, v);
	json_object_set_new(json, "aetherfs",
	                    json_pack("{s:I, s:I, s:i}", "keeper_pid", (json_int_t)v->keeper_pid, "server_pid",
	                              (json_int_t)v->server_pid, "server_restarts", (int)v->server_restarts));
	cleanup_free char *text = json_dumps(json, JSON_INDENT(2));
	json_decref(json);
	buffer_adds(out, text ? text : "{}");
	buffer_addc(out, '\n');
}

/* ---- ports ---- */

void status_ports(const struct model *m, struct buffer *out)
{
	for (size_t i = 0; m && i < m->n_services; i++) {
		const struct model_service *s = &m->services[i];
		for (size_t p = 0; p < s->n_ports; p++)
			if (s->ports[p].external)
				buffer_printf(out, "%s %u %s %u\n", s->config->name, s->ports[p].internal, MODEL_HOST,
				              s->ports[p].external);
	}
	for (size_t i = 0; m && i < m->app_ports.count; i++) {
		const char *preferred = keyvals_get(&m->app_preferred, m->app_ports.items[i].key);
		buffer_printf(out, "%s %s %s %s\n", m->app_ports.items[i].key, preferred && *preferred ? preferred : "0",
		              MODEL_HOST, m->app_ports.items[i].value);
	}
}

/* ---- env ---- */

void status_env_json(const struct envset *env, struct buffer *out)
{
	json_t *json = json_object();
	for (size_t i = 0; i < env->count; i++)
		set_string(json, env->items[i].key, env->items[i].value);
	cleanup_free char *text = json_dumps(json, JSON_INDENT(2));
	json_decref(json);
	buffer_adds(out, text ? text : "{}");
	buffer_addc(out, '\n');
}

void status_env_list(const struct envset *env, struct buffer *out)
{
	for (size_t i = 0; i < env->count; i++)
		if (strpbrk(env->items[i].value, "\r\n"))
			buffer_printf(out, "# %s has a line break, and is left out\n", env->items[i].key);
		else
			buffer_printf(out, "%s=%s\n", env->items[i].key, env->items[i].value);
}

int status_service_env(const struct model_service *s, struct buffer *out, struct error *err)
{
	cleanup_keyvals struct keyvals vars = KEYVALS_INIT;
	model_service_variables(s, &vars);
	for (size_t i = 0; i < s->recipe_env.count; i++)
		if (!keyvals_has(&vars, s->recipe_env.items[i].key))
			keyvals_set(&vars, s->recipe_env.items[i].key, s->recipe_env.items[i].value);
	for (size_t i = 0; i < vars.count; i++) {
		buffer_printf(out, "%s=", vars.items[i].key);
		if (envfile_quote(vars.items[i].value, out) == ENVFILE_UNREPRESENTABLE)
			return error_set(err, ERROR_CONFIG_INVALID, "the value of %s has no form in a .env file",
			                 vars.items[i].key);
		buffer_addc(out, '\n');
	}
	return 0;
}
