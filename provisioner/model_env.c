/* x-aether.env and x-aether.env_files of a model: their templates, filled with what its services got. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/model.h"
#include "provisioner/template.h"

struct scope {
	const struct model *m;
	const struct model_params *params;
	const struct keyvals *user;
	char number[8];
};

static const char *service_value(struct scope *scope, const struct model_service *s, const char *name)
{
	uint16_t port = 0;
	if (!strcmp(name, "host"))
		return model_host(s);
	if (!strcmp(name, "url"))
		return s->url ? s->url : "";
	if (!strcmp(name, "port"))
		port = 0;
	else if (!strncmp(name, "ports.", 6))
		port = (uint16_t)strtoul(name + 6, NULL, 10);
	else
		return keyvals_get(&s->variables, name);
	if (!s->n_ports || (port && !model_external_port(s, port) && scope->m->planned))
		return NULL;
	snprintf(scope->number, sizeof scope->number, "%u", model_external_port(s, port));
	return scope->number;
}

/* Service names may hold dots: the longest that fits. */
static const char *services_value(struct scope *scope, const char *name)
{
	const struct model_service *best = NULL;
	size_t best_len = 0;
	for (size_t i = 0; i < scope->m->n_services; i++) {
		const char *service = scope->m->services[i].config->name;
		size_t len = strlen(service);
		if (len > best_len && !strncmp(name, service, len) && name[len] == '.') {
			best = &scope->m->services[i];
			best_len = len;
		}
	}
	return best ? service_value(scope, best, name + best_len + 1) : NULL;
}

static const char *env_template_value(void *arg, const char *name)
{
	struct scope *scope = arg;
	const char *value;
	if (!strncmp(name, "services.", 9))
		return services_value(scope, name + 9);
	if (!strncmp(name, "ports.", 6))
		return (value = keyvals_get(&scope->m->app_ports, name + 6)) ? value : scope->m->planned ? NULL : "0";
	if (!strncmp(name, "env.", 4))
		return (value = keyvals_get(scope->user, name + 4)) ? value : "";
	if (!strcmp(name, "namespace"))
		return scope->params->id->namespace_;
	if (!strcmp(name, "workspace"))
		return scope->params->id->workspace;
	if (!strcmp(name, "root"))
		return scope->params->id->root;
	return NULL;
}

static int expand_templates(struct scope *scope, const struct keyvals *templates, const char *where, struct keyvals *out, struct error *err)
{
	for (size_t i = 0; i < templates->count; i++) {
		const struct keyval *item = &templates->items[i];
		cleanup_free char *value = NULL;
		int r = template_expand(item->value ? item->value : "", env_template_value, scope, &value, err);
		if (r < 0)
			return error_prefix(err, "%s: x-aether.%senv.%s", scope->m->config->file, where, item->key);
		keyvals_set(out, item->key, value);
	}
	return 0;
}

static int expand_file(const struct model *m, struct model_file *file, const struct model_params *params, const struct keyvals *user,
                       struct error *err)
{
	cleanup_model_view struct model_view view;
	cleanup_free char *where = xasprintf("env_files.%s.", file->config->path);
	model_view_init(&view, m, file);
	struct scope scope = {&view.model, params, user, ""};
	int r = expand_templates(&scope, &m->config->env, "", &file->env, err);
	return r < 0 ? r : expand_templates(&scope, &file->config->env, where, &file->env, err);
}

int model_expand_env(struct model *m, const struct model_params *params, const struct keyvals *user, struct error *err)
{
	if (!m->planned)
		return 0;
	struct scope scope = {m, params, user, ""};
	int r = expand_templates(&scope, &m->config->env, "", &m->env, err);
	for (size_t i = 0; r == 0 && i < m->n_files; i++)
		r = expand_file(m, &m->files[i], params, user, err);
	return r;
}

void model_make_files(struct model *m, const struct model_params *params)
{
	m->files = xcalloc(m->config->n_more_files + 1, sizeof *m->files);
	for (size_t i = 0; i < m->config->n_more_files; i++) {
		const struct config_env_file *c = &m->config->more_files[i];
		bool tracked = params->tracked_files && strv_contains(params->tracked_files, c->path);
		if (tracked || (params->id->env_name && !strcmp(c->path, params->id->env_name))) {
			strv_pushf(&m->warnings, "x-aether.env_files.%s is left alone: %s", c->path,
			           tracked ? "a commit tracks a file there" : "it is the workspace's own here");
			continue;
		}
		struct model_file *file = &m->files[m->n_files++];
		file->config = c;
		for (size_t s = 0; s < c->services.count; s++)
			strv_push(&file->services, xstrdup(c->services.items[s].value));
	}
}
