#include "provisioner/model.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/hash.h"
#include "provisioner/envfile.h"
#include "provisioner/plan.h"

static void service_release(struct model_service *s)
{
	free(s->program_dir);
	free(s->program_major);
	keyvals_release(&s->variables);
	keyvals_release(&s->beside_env);
	keyvals_release(&s->beside_arguments);
	keyvals_release(&s->recipe_env);
	free(s->ports);
	free(s->url);
	error_release(&s->unsupported);
	keyvals_release(&s->process_env);
	keyvals_release(&s->container_env);
	keyvals_release(&s->told);
	build_spec_free(s->build);
	keyvals_release(&s->seed_env);
	strv_free(s->owned);
	for (size_t i = 0; i < s->n_owned_arrays; i++)
		free(s->owned_arrays[i]);
	free(s->owned_arrays);
}

void model_free(struct model *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < m->n_services; i++)
		service_release(&m->services[i]);
	free(m->services);
	for (size_t i = 0; i < m->n_files; i++) {
		keyvals_release(&m->files[i].env);
		strv_free(m->files[i].services);
	}
	free(m->files);
	model_inside_release(m);
	trust_release(&m->trust);
	config_free(m->config);
	keyvals_release(&m->app_ports);
	keyvals_release(&m->app_preferred);
	keyvals_release(&m->env);
	keyvals_release(&m->base);
	free(m->backend);
	free(m->backend_target);
	free(m->backend_reason);
	strv_free(m->warnings);
	free(m->signature);
	free(m->network);
	json_decref(m->shape);
	json_decref(m->record);
	free(m);
}

struct model_service *model_service(const struct model *m, const char *name)
{
	for (size_t i = 0; m && i < m->n_services; i++)
		if (!strcmp(m->services[i].config->name, name))
			return &m->services[i];
	return NULL;
}

const char *model_host(const struct model_service *s)
{
	return s->host ? s->host : MODEL_HOST;
}

uint16_t model_external_port(const struct model_service *s, uint16_t internal)
{
	for (size_t i = 0; i < s->n_ports; i++)
		if (!internal || s->ports[i].internal == internal)
			return s->ports[i].external;
	return 0;
}

char *model_variable_name(const char *service, const char *suffix)
{
	char *name = xasprintf("%s%s_%s", isdigit((unsigned char)service[0]) ? "_" : "", service, suffix);
	for (char *c = name; *c; c++)
		*c = isalnum((unsigned char)*c) && !(*c & 0x80) ? (char)toupper((unsigned char)*c) : '_';
	return name;
}

/* ---- the backend ---- */

/* Decided once per environment: an engine that is down tomorrow must not mean an empty database in another place. */
/* As it was decided before, until it is destroyed. */
static void keep_backend(struct model *m, const struct model_params *params, const char *asked)
{
	m->backend = xstrdup(params->backend);
	m->backend_target = xstrdup(params->backend_target);
	m->backend_reason = xstrdup(params->backend_reason);
	if (strcmp(asked, "auto") && strcmp(asked, params->backend) && (!params->backend_target || strcmp(asked, params->backend_target)))
		strv_pushf(&m->warnings, "the configuration says backend '%s', this environment runs on '%s' until it is destroyed", asked, params->backend);
}

/* The first engine that answers; none: processes of this host. */
static void choose_backend(struct model *m)
{
	cleanup_buffer struct buffer why = BUFFER_INIT;
	for (const struct backend_ops *const *ops = backend_all(); *ops; ops++) {
		cleanup_error struct error err = ERROR_INIT;
		cleanup_free char *from = NULL;
		if (!(*ops)->find)
			continue;
		if (backend_locate((*ops)->name, true, &m->backend_target, &from, &err) == 0) {
			m->backend = xstrdup((*ops)->name);
			m->backend_reason = xasprintf("auto: it answers at %s (%s)", m->backend_target, from);
			return;
		}
		buffer_printf(&why, "; %s", err.message);
	}
	m->backend = xstrdup("process");
	m->backend_reason = xasprintf("auto: no container engine, so host processes%s", buffer_str(&why));
}

/* Who names an engine that cannot be used, by DOCKER_HOST or a context, expects no other. Asked of files and variables alone. */
static void warn_of_unusable(struct model *m)
{
	for (const struct backend_ops *const *ops = backend_all(); *ops; ops++) {
		cleanup_error struct error err = ERROR_INIT;
		cleanup_free char *address = NULL, *from = NULL;
		if (!(*ops)->find)
			continue;
		if (!strcmp((*ops)->name, m->backend))
			return; /* those behind it were not asked for */
		if (backend_locate((*ops)->name, false, &address, &from, &err) < 0 && err.code == ERROR_CONFIG_INVALID)
			strv_pushf(&m->warnings, "backend auto: %s; services run on %s instead", err.message, m->backend);
	}
}

static int decide_backend(struct model *m, const struct model_params *params, struct error *err)
{
	const char *asked = m->config->backend ? m->config->backend : "auto";
	const struct backend_ops *ops = backend_find(asked);
	if (params->backend)
		keep_backend(m, params, asked);
	else if (!strcmp(asked, "auto"))
		choose_backend(m);
	if (m->backend && !strcmp(asked, "auto"))
		warn_of_unusable(m);
	if (m->backend)
		return 0;
	if (ops) {
		cleanup_error struct error later = ERROR_INIT; /* its first use says it, with the place that is tried */
		cleanup_free char *from = NULL;
		backend_locate(asked, false, &m->backend_target, &from, &later);
		m->backend = xstrdup(ops->name);
		m->backend_reason = from && strcmp(from, "x-aether.backend") ? xasprintf("configured; %s by %s", m->backend_target, from) : xstrdup("configured");
		return 0;
	}
	cleanup_buffer struct buffer known = BUFFER_INIT;
	for (const struct backend_ops *const *all = backend_all(); *all; all++)
		buffer_printf(&known, "%s%s", known.len ? ", " : "", (*all)->name);
	error_set(err, ERROR_CONFIG_INVALID, "%s: backend '%s' is not supported", m->config->file, asked);
	return error_hint(err, "supported are: auto, %s, and the address of an engine (unix:///run/docker.sock)", buffer_str(&known));
}

/* ---- ports ---- */

static enum service_network service_network(const struct model *m, const struct model_service *s)
{
	const char *mode = s->config->container.network;
	if (!mode || !strcmp(m->backend, "process") || !strcmp(mode, "bridge") || !strcmp(mode, "default"))
		return NETWORK_OWN;
	return strcmp(mode, "host") ? NETWORK_OTHER : NETWORK_HOST;
}

static size_t leased_ports(const struct model_service *s)
{
	return s->network == NETWORK_OWN ? s->n_ports : 0;
}

static void want_port(struct model_service *s, uint16_t internal, const char *protocol)
{
	if (!internal)
		return;
	for (size_t i = 0; i < s->n_ports; i++)
		if (s->ports[i].internal == internal && !strcmp(s->ports[i].protocol, protocol))
			return;
	array_grow(s->ports, s->n_ports);
	s->ports[s->n_ports++] = (struct port_binding){internal, 0, protocol};
}

const char *model_protocol(const struct config_port *p)
{
	return p->protocol && !strcmp(p->protocol, "udp") ? "udp" : "tcp";
}

/* On the host's network a service has the ports that it has; on another's, or none, it has none to publish. */
static void settle_mode(const struct model *m, struct model_service *s)
{
	s->network = service_network(m, s);
	if (s->network == NETWORK_OTHER)
		s->n_ports = 0;
	for (size_t i = 0; s->network == NETWORK_HOST && i < s->n_ports; i++)
		s->ports[i].external = s->ports[i].internal;
}

static void want_ports(struct model_service *s)
{
	const struct config_service *c = s->config;
	for (size_t i = 0; i < c->n_ports; i++)
		want_port(s, c->ports[i].internal, model_protocol(&c->ports[i]));
	if (s->recipe)
		want_port(s, s->recipe->port, "tcp");
	for (size_t i = 0; i < c->n_expose; i++)
		want_port(s, c->expose[i].internal, model_protocol(&c->expose[i]));
	if (c->ready.kind == PROBE_TCP || c->ready.kind == PROBE_HTTP)
		want_port(s, c->ready.port, "tcp");
}

/* A published number is a preference, and the main checkout's alone: every other workspace would only fight for it. */
static uint16_t preferred(const struct model_params *params, const struct config_service *c,
                          const struct port_binding *p, bool strict)
{
	if (!strict && (!params->id->main_root || strcmp(params->id->main_root, params->id->root)))
		return 0;
	for (size_t i = 0; i < c->n_ports; i++)
		if (c->ports[i].internal == p->internal && !strcmp(model_protocol(&c->ports[i]), p->protocol))
			return c->ports[i].published;
	return 0;
}

static uint16_t app_preferred(const struct model_params *params, const char *number)
{
	if (!params->id->main_root || strcmp(params->id->main_root, params->id->root))
		return 0;
	return (uint16_t)strtoul(number ? number : "0", NULL, 10);
}

static bool is_refused_number(const struct model_params *params, uint16_t port)
{
	for (const uint16_t *refused = params->refused; refused && *refused; refused++)
		if (*refused == port)
			return true;
	return false;
}

/* A number that the file asks for and does not get is never passed over in silence. */
static int warn_of_others(struct model *m, const struct model_params *params, const struct port_lease *leases, size_t count,
                          struct error *err)
{
	for (size_t i = 0; i < count; i++) {
		const struct port_lease *l = &leases[i];
		cleanup_free char *holder = NULL;
		if (!l->preferred || l->preferred == l->port || l->strict)
			continue;
		int r = store_port_holder(params->store, l->preferred, &holder, err);
		if (r < 0)
			return r;
		const char *name = *l->service ? l->service : l->key;
		if (is_refused_number(params, l->preferred))
			strv_pushf(&m->warnings, "%s: has port %u, not %u: that one was refused a while ago, somebody has it who is not seen from here", name, l->port, l->preferred);
		else if (holder)
			strv_pushf(&m->warnings, "%s: has port %u, not %u: %s; `ajj up` takes it when it is free", name, l->port, l->preferred, holder);
		else
			strv_pushf(&m->warnings, "%s: has port %u; the file's own, %u, is free: `ajj up` takes it", name, l->port, l->preferred);
	}
	return 0;
}

bool model_is_refused(const struct model_service *s)
{
	return s->unsupported.code == ERROR_PORT_ALLOCATION_FAILED || s->unsupported.code == ERROR_CONFIG_INVALID;
}

static int refuse(struct model_service *s, const struct model_params *params, const struct port_lease *l, struct error *err)
{
	cleanup_free char *holder = NULL;
	int r = store_port_holder(params->store, l->preferred, &holder, err);
	if (r < 0 || error_is_set(&s->unsupported))
		return r;
	error_set(&s->unsupported, ERROR_PORT_ALLOCATION_FAILED, "service %s: port %u is asked for: %s", s->config->name,
	          l->preferred, holder ? holder : "somebody had it until now");
	error_detail(&s->unsupported, "port", json_integer(l->preferred));
	error_hint(&s->unsupported, "end that and ask again, or leave out x-aether.host_ports: strict");
	return 0;
}

static int lease_ports(struct model *m, const struct model_params *params, struct error *err)
{
	size_t count = m->config->app_ports.count, n = 0;
	for (size_t i = 0; i < m->n_services; i++)
		count += leased_ports(&m->services[i]);
	if (!count)
		return 0;
	cleanup_free struct port_lease *leases = xcalloc(count, sizeof *leases);
	cleanup_strv char **keys = NULL;
	for (size_t i = 0; i < m->n_services; i++) {
		struct model_service *s = &m->services[i];
		for (size_t p = 0; p < leased_ports(s); p++, n++) {
			char *key = xasprintf("%u/%s", s->ports[p].internal, s->ports[p].protocol);
			strv_push(&keys, key);
			leases[n] = (struct port_lease){s->config->name, key, preferred(params, s->config, &s->ports[p], s->strict_ports)};
			leases[n].strict = s->strict_ports;
		}
	}
	for (size_t i = 0; i < m->config->app_ports.count; i++, n++) {
		const struct keyval *app = &m->config->app_ports.items[i];
		leases[n] = (struct port_lease){"", app->key, app_preferred(params, app->value)};
	}
	for (size_t i = 0; i < count; i++)
		leases[i].move = is_refused_number(params, leases[i].preferred) ? LEASE_STAYS : params->move;
	int r = store_ports_lease(params->store, params->id->namespace_, leases, count, err);
	if (r == 0)
		r = warn_of_others(m, params, leases, count, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < count; i++)
		m->moves = m->moves || leases[i].moves;
	n = 0;
	for (size_t i = 0; i < m->n_services; i++)
		for (size_t p = 0; p < leased_ports(&m->services[i]); p++, n++) {
			m->services[i].ports[p].external = leases[n].port;
			if (!leases[n].port && (r = refuse(&m->services[i], params, &leases[n], err)) < 0)
				return r;
		}
	for (; n < count; n++) {
		char number[8];
		snprintf(number, sizeof number, "%u", leases[n].port);
		keyvals_set(&m->app_ports, leases[n].key, number);
	}
	return 0;
}

/* ---- recipes ---- */

static int find_program(struct model *m, struct model_service *s, const struct model_params *params, struct error *err)
{
	cleanup_free char *wanted = recipe_image_major(s->config->image);
	cleanup_error struct error missing = ERROR_INIT;
	int r = recipe_find_program(params->recipes, s->recipe, wanted, &s->program_dir, &s->program_major, &missing);
	if (r < 0) {
		if (missing.code != ERROR_PROGRAM_NOT_FOUND) {
			error_move(err, &missing);
			return error_prefix(err, "service %s", s->config->name);
		}
		error_prefix(&missing, "service %s", s->config->name);
		error_move(&s->unsupported, &missing);
		return 0;
	}
	if (!wanted || !s->program_major || !strcmp(wanted, s->program_major))
		return 0;
	if (m->config->version_exact) {
		error_set(&s->unsupported, ERROR_PROGRAM_NOT_FOUND,
		          "service %s: %s is asked for, this machine has version %s (%s)", s->config->name, s->config->image,
		          s->program_major, s->program_dir);
		error_hint(&s->unsupported, "install version %s, or leave out x-aether.version: exact", wanted);
		return 0;
	}
	strv_pushf(&m->warnings, "%s: %s is asked for and runs on this machine's version %s", s->config->name,
	           s->config->image, s->program_major);
	return 0;
}

static int expand_variables(struct model *m, struct model_service *s, const struct model_params *params,
                            struct error *err)
{
	for (size_t i = 0; s->recipe && i < s->recipe->defaults.count; i++) {
		const struct keyval *d = &s->recipe->defaults.items[i];
		cleanup_free char *value = NULL;
		int r = model_expand(m, s, params, "", d->value ? d->value : "", &value, err);
		if (r < 0)
			return r;
		keyvals_set(&s->variables, d->key, value);
	}
	return 0;
}

/* Ports whose protocol is no secret to anybody; whatever else speaks is "tcp". */
static const char *scheme_of(uint16_t port)
{
	static const struct {
		uint16_t port;
		const char *scheme;
	} known[] = {{80, "http"},   {443, "https"}, {3000, "http"},     {3306, "mysql"},   {4000, "http"},
	             {4222, "nats"}, {5000, "http"}, {5432, "postgres"}, {5672, "amqp"},    {6379, "redis"},
	             {8000, "http"}, {8080, "http"}, {9000, "http"},     {27017, "mongodb"}};
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (known[i].port == port)
			return known[i].scheme;
	return "tcp";
}

static int make_url(struct model *m, struct model_service *s, const struct model_params *params, struct error *err)
{
	uint16_t port = model_external_port(s, s->recipe ? s->recipe->port : 0);
	if (!port)
		return 0;
	if (s->recipe && s->recipe->url)
		return model_expand(m, s, params, "", s->recipe->url, &s->url, err);
	s->url = xasprintf("%s://%s:%u", s->recipe && s->recipe->scheme ? s->recipe->scheme : scheme_of(s->ports[0].internal), model_host(s), port);
	return 0;
}

/* ---- recipes' variables ---- */

static int expand_all(struct model *m, struct model_service *s, const struct model_params *params, const struct keyvals *templates, struct keyvals *out,
                      struct error *err)
{
	for (size_t i = 0; i < templates->count; i++) {
		const struct keyval *v = &templates->items[i];
		cleanup_free char *value = NULL;
		int r = model_expand(m, s, params, "", v->value ? v->value : "", &value, err);
		if (r < 0)
			return r;
		keyvals_set(out, v->key, value);
	}
	return 0;
}

static int expand_recipe_variables(struct model *m, struct model_service *s, const struct model_params *params,
                                   struct error *err)
{
	if (!s->recipe || !s->url)
		return 0;
	int r = expand_all(m, s, params, &s->recipe->variables, &s->recipe_env, err);
	if (r == 0)
		r = expand_all(m, s, params, &s->recipe->beside_env, &s->beside_env, err);
	return r < 0 ? r : expand_all(m, s, params, &s->recipe->beside_arguments, &s->beside_arguments, err);
}

void model_unplan(struct model *m)
{
	m->planned = false;
	model_inside_release(m);
	for (size_t i = 0; i < m->n_services; i++) {
		struct model_service *s = &m->services[i];
		for (size_t p = 0; p < s->n_ports; p++)
			s->ports[p].external = 0;
		free(s->url);
		s->url = NULL;
		keyvals_release(&s->recipe_env);
		keyvals_release(&s->beside_env);
		keyvals_release(&s->beside_arguments);
	}
	keyvals_release(&m->app_ports);
	keyvals_release(&m->env);
	for (size_t i = 0; i < m->n_files; i++)
		keyvals_release(&m->files[i].env);
}

/* ---- secrets ---- */

static void mask_all(char **text, const struct keyvals *kv)
{
	for (size_t i = 0; i < kv->count; i++)
		if (env_name_is_secret(kv->items[i].key))
			text_mask_value(text, kv->items[i].value);
}

char *model_mask(const struct model *m, const char *text)
{
	char *masked = xstrdup(text);
	for (size_t i = 0; m && i < m->n_services; i++) {
		mask_all(&masked, &m->services[i].config->environment);
		mask_all(&masked, &m->services[i].config->x_env);
		mask_all(&masked, &m->services[i].variables);
		mask_all(&masked, &m->services[i].config->build.args);
	}
	if (m)
		mask_all(&masked, &m->env);
	return masked;
}

/* ---- loading ---- */

/* As in struct service_spec. new; NULL: as the engine makes it */
static char *network_text(const struct config *c)
{
	const struct config_resource *a = c->addressed;
	if (!a && !c->network_labels.count && !c->network_opts.count)
		return NULL;
	json_t *network = json_pack("{s:o, s:o}", "Labels", keyvals_json(&c->network_labels), "Options", keyvals_json(&c->network_opts));
	if (a)
		json_object_update_new(network, json_pack("{s:s, s:s*, s:s*, s:b}", "Subnet", a->subnet, "Gateway", a->gateway, "IPRange", a->ip_range, "Exact", c->is_main));
	char *text = json_dumps(network, JSON_COMPACT | JSON_SORT_KEYS);
	json_decref(network);
	return text;
}

static void make_services(struct model *m, const struct model_params *params)
{
	m->n_services = m->config->n_services;
	m->services = xcalloc(m->n_services, sizeof *m->services);
	for (size_t i = 0; i < m->n_services; i++) {
		struct model_service *s = &m->services[i];
		s->config = &m->config->services[i];
		s->recipe = recipe_for_service(params->recipes, s->config);
		s->strict_ports = m->config->strict_ports;
		if (error_is_set(&s->config->fault))
			error_copy(&s->unsupported, &s->config->fault);
		want_ports(s);
		settle_mode(m, s);
	}
	for (size_t i = 0; i < m->config->n_own_warnings; i++)
		strv_push(&m->warnings, xstrdup(m->config->warnings[i].text));
	m->network = network_text(m->config);
	model_warn(m);
}

static bool has_form(const char *value)
{
	cleanup_buffer struct buffer unused = BUFFER_INIT;
	return envfile_quote(value ? value : "", &unused) != ENVFILE_UNREPRESENTABLE && !strstr(value, ENVFILE_BEGIN) &&
	       !strstr(value, ENVFILE_END);
}

/* A directory may have any name, and is no reason to have no .env. new */
static char *name_with_form(const char *name)
{
	char *text = xstrdup(name);
	size_t len = strlen(text);
	for (size_t i = 0; i < len; i++)
		if (text[i] == '\r' || (text[i] == '\\' && i + 1 == len))
			text[i] = '_';
	for (size_t i = 0; !has_form(text) && i < len; i++)
		if (text[i] & 0x80)
			text[i] = '_';
	return text;
}

static void set_base(struct model *m, const struct model_params *params)
{
	keyvals_set(&m->base, "AETHER_NAMESPACE", params->id->namespace_);
	cleanup_free char *workspace = name_with_form(params->id->workspace);
	if (strcmp(workspace, params->id->workspace))
		strv_pushf(&m->warnings, "AETHER_WORKSPACE is %s: the workspace's own name has no form that a .env file can hold",
		           workspace);
	keyvals_set(&m->base, "AETHER_WORKSPACE", workspace);
	keyvals_set(&m->base, "AETHER_BACKEND", m->backend);
	if (!m->shape)
		return;
	cleanup_free char *file = xasprintf("%s/" MODEL_COMPOSE_FILE, params->id->root);
	if (!has_form(file))
		return;
	keyvals_set(&m->base, "COMPOSE_PROJECT_NAME", params->id->namespace_);
	keyvals_set(&m->base, "COMPOSE_FILE", file);
}

/* ---- values that .env can hold ---- */

static int no_form(const struct config *c, struct config_place at, const char *path, const char *key, struct error *err)
{
	int r = error_set(err, ERROR_CONFIG_INVALID,
	                  "%s:%u:%u: %s: the value of %s has no form that the readers of a .env file agree on", at.file,
	                  at.line, at.column, path, key);
	for (size_t i = 0; i < c->n_files; i++)
		if (!strcmp(c->files[i].shown, at.file))
			error_detail(err, "file", json_string(c->files[i].path));
	error_detail(err, "line", json_integer(at.line));
	error_detail(err, "column", json_integer(at.column));
	error_detail(err, "path", json_string(path));
	error_hint(err, ENVFILE_FORM_HINT);
	return r;
}

/* Found out now, where the place is known: a read of .env has nothing to show for it. */
static int check_forms(const struct model *m, struct error *err)
{
	const struct config *c = m->config;
	for (size_t i = 0; i < m->env.count; i++) {
		const struct keyval *kv = &m->env.items[i];
		cleanup_free char *path = xasprintf("x-aether.env.%s", kv->key);
		for (size_t p = 0; p < c->env.count && !has_form(kv->value); p++)
			if (!strcmp(c->env.items[p].key, kv->key))
				return no_form(c, c->env_places[p], path, kv->key, err);
	}
	for (size_t i = 0; i < m->n_services; i++) {
		const struct config_service *s = m->services[i].config;
		cleanup_free char *path = xasprintf("services.%s", s->name);
		for (size_t v = 0; v < m->services[i].recipe_env.count; v++) {
			const struct keyval *kv = &m->services[i].recipe_env.items[v];
			if (!has_form(kv->value))
				return no_form(c, (struct config_place){s->file, s->line, s->column}, path, kv->key, err);
		}
	}
	return 0;
}

int model_expand_values(struct model *m, const struct model_params *params, const struct keyvals *user, struct error *err)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < m->n_services; i++) {
		struct model_service *s = &m->services[i];
		r = expand_variables(m, s, params, err);
		if (r == 0)
			r = make_url(m, s, params, err);
		if (r == 0)
			r = expand_recipe_variables(m, s, params, err);
	}
	return r < 0 ? r : model_expand_env(m, params, user, err);
}

static int build_services(struct model *m, const struct model_params *params, const struct keyvals *user,
                          struct error *err)
{
	int r = 0;
	bool as_process = !strcmp(m->backend, "process");
	for (size_t i = 0; r == 0 && i < m->n_services; i++)
		if (as_process && m->services[i].recipe && !m->services[i].config->run_command)
			r = find_program(m, &m->services[i], params, err);
	if (r == 0)
		r = model_expand_values(m, params, user, err);
	if (r == 0)
		r = check_forms(m, err);
	if (r == 0)
		r = model_inside_make(m, params, user, err);
	cleanup_envset struct envset set = {NULL, 0};
	cleanup_keyvals struct keyvals env = KEYVALS_INIT;
	model_environment(m, params->main_text, params->user_text, &set);
	envset_values(&set, &env);
	for (size_t i = 0; r == 0 && i < m->n_services; i++)
		r = model_build_spec(m, &m->services[i], params, &env, err);
	if (r == 0)
		model_join_specs(m);
	return r;
}

static void sign(struct model *m)
{
	uint64_t h = HASH_INIT;
	cleanup_keyvals struct keyvals generated = KEYVALS_INIT;
	model_generated(m, &generated, &generated);
	for (size_t i = 0; i < generated.count; i++) {
		h = hash_str(h, generated.items[i].key);
		h = hash_str(h, generated.items[i].value);
	}
	for (size_t i = 0; i < m->n_services; i++) {
		h = hash_str(h, m->services[i].config->name);
		h = hash_str(h, m->services[i].spec.config_hash);
	}
	for (size_t i = 0; i < m->n_files; i++) {
		h = hash_str(h, m->files[i].config->path);
		for (size_t k = 0; k < m->files[i].env.count; k++)
			h = hash_str(hash_str(h, m->files[i].env.items[k].key), m->files[i].env.items[k].value);
		for (size_t k = 0; k < m->files[i].config->services.count; k++)
			h = hash_str(hash_str(h, m->files[i].config->services.items[k].key), m->files[i].config->services.items[k].value);
	}
	h = hash_bytes(h, &m->config->start, sizeof m->config->start);
	h = hash_bytes(h, &m->config->timeout_ms, sizeof m->config->timeout_ms);
	for (char **s = m->config->service_set; s && *s; s++)
		h = hash_str(h, *s);
	for (char **p = m->config->profiles; p && *p; p++)
		h = hash_str(h, *p);
	m->signature = xasprintf("%016llx", (unsigned long long)h);
}

static void record_surroundings(struct model *m)
{
	json_t *variables = json_array();
	for (char **name = m->config->asked; name && *name; name++)
		if (getenv(*name))
			json_array_append_new(variables, json_sprintf("%s=%s", *name, getenv(*name)));
	json_object_set_new(m->record, "variables", variables);
}

/* new: of the strings, which are borrowed */
static char **recorded_surroundings(const json_t *record)
{
	const json_t *variables = json_object_get(record, "variables");
	char **list = xcalloc(json_array_size(variables) + 1, sizeof *list);
	for (size_t i = 0; i < json_array_size(variables); i++)
		list[i] = (char *)(uintptr_t)json_string_value(json_array_get(variables, i));
	return list;
}

static int read_config(struct model *m, const struct model_params *params, const struct keyvals *user, struct config **ret, json_t **ret_shape, struct error *err)
{
	cleanup_free char **then = params->again ? recorded_surroundings(params->again) : NULL;
	const struct config_params config = {
	    .root_fd = params->root_fd,
	    .root = params->id->root,
	    .main_root = params->id->main_root,
	    .search_upwards = params->id->kind == WORKSPACE_PLAIN,
	    .variables = user,
	    .tracked_text = params->tracked_text,
	    .digests = params->digests,
	    .recipes = params->recipes,
	    .environ_ = then ? then : environ,
	    .record = json_object_get(m->record, "files"),
	    .again = params->again,
	    .whole_shape = true, /* what runs because somebody has asked for it must not be an orphan to docker compose */
	};
	return ret_shape ? config_load_shape(&config, ret, ret_shape, err) : config_load(&config, ret, err);
}

static bool is_engine(const char *backend)
{
	return backend && strcmp(backend, "process") && strcmp(backend, "memory");
}

/* With the shape, where it will be wanted; one that cannot be had is no reason to have no services. */
static int read_all(struct model *m, const struct model_params *params, const struct keyvals *user, bool shape, struct error *err)
{
	cleanup_error struct error ignored = ERROR_INIT;
	if (shape && !read_config(m, params, user, &m->config, &m->shape, &ignored))
		return 0;
	return read_config(m, params, user, &m->config, NULL, err);
}

/* Which backend it is was not known when the configuration was read: read again. Nobody misses it where there is no engine. */
static void settle_shape(struct model *m, const struct model_params *params, const struct keyvals *user)
{
	struct config *again = NULL;
	cleanup_error struct error ignored = ERROR_INIT;
	bool wanted = params->beside_compose && is_engine(m->backend);
	if (wanted && !m->shape)
		read_config(m, params, user, &again, &m->shape, &ignored);
	else if (!wanted)
		json_decref(move_ptr(m->shape));
	config_free(again);
}

/* Also of what is no UTF-8. new */
static json_t *text_or_null(const char *text)
{
	json_t *value = json_string(text ? text : "");
	return value ? value : json_null();
}

/* Interpolation sees the user's layers as they are written. The main checkout's is one of them until the configuration says otherwise. */
static int load(struct model *m, const struct model_params *params, struct error *err)
{
	cleanup_keyvals struct keyvals user = KEYVALS_INIT;
	bool shape = params->beside_compose && is_engine(params->backend);
	envset_user(params->main_text, params->user_text, &user);
	m->record = params->again ? json_deep_copy(params->again) : json_pack("{s:{}, s:o, s:o, s:o}", "files", "own", text_or_null(params->user_text), "main", text_or_null(params->main_text), "tracked", text_or_null(params->tracked_text));
	int r = read_all(m, params, &user, shape, err);
	if (r == 0 && !m->config->inherit && *params->main_text) {
		config_free(move_ptr(m->config));
		json_decref(move_ptr(m->shape));
		keyvals_release(&user);
		envset_user(NULL, params->user_text, &user);
		r = read_all(m, params, &user, shape, err);
	}
	if (r == 0)
		r = plan_check_circles(m->config, err);
	if (r == 0)
		r = decide_backend(m, params, err);
	if (r < 0)
		return r;
	settle_shape(m, params, &user);
	m->generation = params->generation;
	m->planned = params->plan;
	keyvals_copy(&m->app_preferred, &m->config->app_ports);
	make_services(m, params);
	model_make_files(m, params);
	set_base(m, params);
	if (params->plan)
		r = lease_ports(m, params, err);
	if (r == 0)
		r = build_services(m, params, &user, err);
	if (r == 0)
		r = trust_look(params->store, params->id->repository, m->config, params->approve, &m->trust, err);
	if (r < 0)
		return r;
	sign(m);
	if (!params->again)
		record_surroundings(m);
	json_object_set_new(m->record, "signature", json_string(m->signature));
	return 0;
}

int model_load(const struct model_params *params, struct model **ret, struct error *err)
{
	struct model *m = xcalloc(1, sizeof *m);
	int r = load(m, params, err);
	if (r < 0) {
		model_free(m);
		return r;
	}
	*ret = m;
	return 0;
}
