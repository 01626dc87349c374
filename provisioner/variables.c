/* The variables of a model: what it generates, and how the user's own are laid under them. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/model.h"
#include "provisioner/plan.h"

/* ---- generated ---- */

void model_service_variables(const struct model_service *s, struct keyvals *out)
{
	uint16_t port = model_external_port(s, s->recipe ? s->recipe->port : 0);
	if (!port)
		return;
	cleanup_free char *url = model_variable_name(s->config->name, "URL");
	cleanup_free char *host = model_variable_name(s->config->name, "HOST");
	cleanup_free char *name = model_variable_name(s->config->name, "PORT");
	char number[8];
	snprintf(number, sizeof number, "%u", port);
	if (s->url)
		keyvals_set(out, url, s->url);
	keyvals_set(out, host, model_host(s));
	keyvals_set(out, name, number);
}

/* 0: a demand starts it, and it publishes a port; 1: it starts it; then those that it does not start, in the same order. */
static int rank(const struct model_service *s, bool chosen)
{
	return (chosen ? 0 : 2) + (s->config->n_ports ? 0 : 1);
}

/* For the first such service in the file, of those that rank best. */
static void add_recipe_variables(const struct model *m, struct keyvals *out)
{
	cleanup_free bool *chosen = xcalloc(m->n_services, sizeof *chosen);
	const struct plan_selection by_default = {.names = NULL};
	if (plan_select(m->config, &by_default, chosen, NULL, NULL) < 0)
		memset(chosen, 0, m->n_services * sizeof *chosen);
	for (int pass = 0; pass < 4; pass++)
		for (size_t i = 0; i < m->n_services; i++) {
			const struct model_service *s = &m->services[i];
			if (s->config->is_copy || !s->recipe || !s->url || rank(s, chosen[i]) != pass || error_is_set(&s->unsupported))
				continue;
			for (size_t v = 0; v < s->recipe_env.count; v++)
				if (!keyvals_has(out, s->recipe_env.items[v].key))
					keyvals_set(out, s->recipe_env.items[v].key, s->recipe_env.items[v].value);
		}
}

/* What nobody runs leads nowhere; what is built is run by the user, on the port that it has here. */
static bool leads_somewhere(const struct model_service *s)
{
	return !s->config->is_copy && (s->config->has_build || !error_is_set(&s->unsupported));
}

void model_generated(const struct model *m, struct keyvals *offered, struct keyvals *imposed)
{
	for (size_t i = 0; i < m->n_services; i++)
		if (leads_somewhere(&m->services[i]))
			model_service_variables(&m->services[i], offered);
	add_recipe_variables(m, offered);
	keyvals_copy(imposed, &m->base);
	keyvals_copy(imposed, &m->app_ports);
	keyvals_copy(imposed, &m->env);
}

/* ---- where the services are ---- */

static uint16_t number_of(const struct keyvals *kv, const char *key)
{
	const char *text = keyvals_get(kv, key);
	unsigned long n = text ? strtoul(text, NULL, 10) : 0;
	return n <= 65535 ? (uint16_t)n : 0;
}

static size_t add_app_ports(const struct model *m, struct rewrite_target *targets, struct rewrite_port *ports)
{
	size_t n = m->app_ports.count;
	for (size_t i = 0; i < n; i++) {
		const char *key = m->app_ports.items[i].key;
		ports[i] = (struct rewrite_port){number_of(&m->app_preferred, key), 0, number_of(&m->app_ports, key)};
		targets[i] = (struct rewrite_target){key, {NULL, NULL}, true, &ports[i], 1, NULL};
	}
	return n;
}

static uint16_t published(const struct model_service *s, const struct port_binding *port)
{
	for (size_t i = 0; i < s->config->n_ports; i++) {
		const struct config_port *p = &s->config->ports[i];
		if (p->internal == port->internal && p->published && !strcmp(model_protocol(p), port->protocol))
			return p->published;
	}
	return 0;
}

static struct rewrite_target target_of(const struct model_service *s, struct rewrite_port *ports)
{
	struct rewrite_target t = {s->config->name, {s->config->name, s->config->container_name}, s->config->has_build && !s->host, ports, 0,
	                           s->config->aliases, s->host};
	for (size_t i = 0; i < s->n_ports; i++)
		if (!strcmp(s->ports[i].protocol, "tcp"))
			ports[t.n_ports++] = (struct rewrite_port){published(s, &s->ports[i]), s->ports[i].internal, s->ports[i].external};
	return t;
}

struct places {
	struct rewrite_map map;
	struct rewrite_target *targets;
	struct rewrite_port *ports;
};

static void places_release(struct places *p)
{
	free(p->targets);
	free(p->ports);
}

static void places_init(struct places *p, const struct model *m)
{
	size_t n_ports = 0, n;
	for (size_t i = 0; i < m->n_services; i++)
		n_ports += m->services[i].n_ports;
	p->ports = xcalloc(m->app_ports.count + n_ports, sizeof *p->ports);
	p->targets = xcalloc(m->app_ports.count + m->n_services, sizeof *p->targets);
	n = add_app_ports(m, p->targets, p->ports);
	struct rewrite_port *next = p->ports + n;
	for (size_t i = 0; i < m->n_services; i++) {
		if (m->services[i].config->is_copy)
			continue;
		p->targets[n] = target_of(&m->services[i], next);
		next += p->targets[n++].n_ports;
	}
	p->map = (struct rewrite_map){p->targets, n, MODEL_HOST};
}

void model_environment(const struct model *m, const char *main_text, const char *user_text, struct envset *ret)
{
	cleanup_keyvals struct keyvals offered = KEYVALS_INIT, imposed = KEYVALS_INIT;
	__attribute__((cleanup(places_release))) struct places places = {.targets = NULL};
	struct envset_params params = {.own = user_text, .offered = &offered, .imposed = &imposed};
	if (!m) {
		envset_make(&params, ret);
		return;
	}
	model_generated(m, &offered, &imposed);
	places_init(&places, m);
	params.main = m->config->inherit ? main_text : NULL;
	params.map = m->config->rewrite && m->planned ? &places.map : NULL;
	envset_make(&params, ret);
}

/* ---- as a further env file has them ---- */

const struct model_file *model_file(const struct model *m, const char *path)
{
	for (size_t i = 0; m && i < m->n_files; i++)
		if (!strcmp(m->files[i].config->path, path))
			return &m->files[i];
	return NULL;
}

/* What is published, and what its peers call it, stays; what it leads to is the other. */
static void stand_in(struct model_service *s, struct config_service *config, const struct model_service *other)
{
	*config = *s->config;
	*s = *other;
	s->config = config;
}

void model_view_init(struct model_view *v, const struct model *m, const struct model_file *file)
{
	const struct keyvals *map = &file->config->services;
	size_t size = m->n_services * sizeof *m->services;
	*v = (struct model_view){*m, xcalloc(map->count + 1, sizeof *v->configs)};
	v->model.services = xcalloc(m->n_services + 1, sizeof *m->services);
	memcpy(v->model.services, m->services, size);
	v->model.env = file->env;
	for (size_t i = 0; i < map->count; i++) {
		struct model_service *s = model_service(&v->model, map->items[i].key);
		const struct model_service *other = model_service(m, map->items[i].value);
		if (s && other)
			stand_in(s, &v->configs[i], other);
	}
}

void model_view_release(struct model_view *v)
{
	free(v->model.services);
	free(v->configs);
}

void model_file_environment(const struct model *m, const struct model_file *file, const char *main_text, const char *user_text,
                            struct envset *ret)
{
	cleanup_model_view struct model_view view;
	model_view_init(&view, m, file);
	model_environment(&view.model, main_text, user_text, ret);
}

/* ---- a service's own environment ---- */

static const char *own_value(void *arg, const char *name)
{
	return keyvals_get(arg, name);
}

void model_rewrite(const struct model *m, struct keyvals *variables)
{
	__attribute__((cleanup(places_release))) struct places places = {.targets = NULL};
	cleanup_keyvals struct keyvals before = KEYVALS_INIT;
	if (!m->config->rewrite || !m->planned)
		return;
	places_init(&places, m);
	keyvals_copy(&before, variables);
	for (size_t i = 0; i < before.count; i++) {
		const char *key = before.items[i].key, *value = before.items[i].value;
		cleanup_buffer struct buffer text = BUFFER_INIT;
		uint16_t port;
		if (!value || !rewrite_value(&places.map, key, value, strlen(value), true, own_value, &before, &text))
			continue;
		keyvals_set(variables, key, buffer_str(&text));
		cleanup_free char *missing = rewrite_missing_port(&places.map, key, value, own_value, &before, &port);
		char number[8];
		snprintf(number, sizeof number, "%u", missing ? port : 0);
		if (missing && !keyvals_has(variables, missing))
			keyvals_set(variables, missing, number);
	}
}
