/* A model as a container in the environment's network has it: services are where their peers find them, by name and on their own ports.
 * What depends on that is expanded once more when the model is loaded, for that takes the store; the rest is the model's own. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/model.h"
#include "provisioner/plan.h"

struct inside_service {
	const char *host; /* NULL: as it is for everybody */
	struct port_binding *ports;
	char *url;
	struct keyvals variables, recipe_env;
};

struct model_inside {
	struct inside_service *services; /* parallel to the model's */
	size_t n_services;
	struct keyvals env;
};

void model_inside_release(struct model *m)
{
	struct model_inside *inside = m->inside;
	for (size_t i = 0; inside && i < inside->n_services; i++) {
		struct inside_service *s = &inside->services[i];
		free(s->ports);
		free(s->url);
		keyvals_release(&s->variables);
		keyvals_release(&s->recipe_env);
	}
	if (inside) {
		free(inside->services);
		keyvals_release(&inside->env);
	}
	free(move_ptr(m->inside));
}

static bool has_network(const struct model *m)
{
	return m->backend && strcmp(m->backend, "process") && strcmp(m->backend, "memory");
}

char *model_network(const struct model *m, const struct identity *id)
{
	return m && has_network(m) ? xstrdup(id->namespace_) : NULL;
}

/* ---- the view ---- */

/* Shallow: the model with its own array of services, at the places that they have inside. free() its services. */
static struct model view_of(const struct model *m, const struct model_inside *inside)
{
	struct model view = *m;
	view.services = xcalloc(m->n_services + 1, sizeof *view.services);
	view.env = inside->env;
	view.n_files = 0; /* x-aether.env_files are for programs of the host */
	for (size_t i = 0; i < m->n_services; i++) {
		const struct inside_service *s = &inside->services[i];
		view.services[i] = m->services[i];
		view.services[i].ports = s->ports;
		view.services[i].host = s->host;
		view.services[i].url = s->url;
		view.services[i].variables = s->variables;
		view.services[i].recipe_env = s->recipe_env;
	}
	return view;
}

/* The other way round: what was made for the view is kept. */
static void take_values(struct model_inside *inside, const struct model *view)
{
	inside->env = view->env;
	for (size_t i = 0; i < inside->n_services; i++) {
		inside->services[i].url = view->services[i].url;
		inside->services[i].variables = view->services[i].variables;
		inside->services[i].recipe_env = view->services[i].recipe_env;
	}
}

/* ---- places ---- */

static struct inside_service place(const struct model_service *s, bool in_network)
{
	struct inside_service place = {.host = in_network ? s->config->name : NULL, .ports = xcalloc(s->n_ports + 1, sizeof *place.ports)};
	for (size_t i = 0; i < s->n_ports; i++) {
		place.ports[i] = s->ports[i];
		if (in_network)
			place.ports[i].external = s->ports[i].internal;
	}
	return place;
}

static struct model_inside *places_of(const struct model *m)
{
	struct model_inside *inside = xcalloc(1, sizeof *inside);
	const struct plan_selection by_default = {.names = NULL};
	cleanup_free bool *chosen = xcalloc(m->n_services + 1, sizeof *chosen);
	if (plan_select(m->config, &by_default, chosen, NULL, NULL) < 0)
		memset(chosen, 0, m->n_services * sizeof *chosen);
	inside->n_services = m->n_services;
	inside->services = xcalloc(m->n_services + 1, sizeof *inside->services);
	for (size_t i = 0; i < m->n_services; i++)
		inside->services[i] = place(&m->services[i], m->services[i].network == NETWORK_OWN && (chosen[i] || !m->services[i].config->has_build));
	return inside;
}

int model_inside_make(struct model *m, const struct model_params *params, const struct keyvals *user, struct error *err)
{
	if (!m->planned || !has_network(m))
		return 0;
	m->inside = places_of(m);
	struct model view = view_of(m, m->inside);
	int r = model_expand_values(&view, params, user, err);
	take_values(m->inside, &view);
	free(view.services);
	return r;
}

void model_container_environment(const struct model *m, const char *main_text, const char *user_text, struct envset *ret)
{
	if (!m || !m->inside) {
		model_environment(m, main_text, user_text, ret);
		return;
	}
	struct model view = view_of(m, m->inside);
	model_environment(&view, main_text, user_text, ret);
	free(view.services);
}
