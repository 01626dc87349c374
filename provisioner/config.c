#include "provisioner/config.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/hash.h"
#include "provisioner/config_shape.h"
#include "provisioner/recipe.h"

#define VOLUMES_MAX 10000

/* ---- releasing ---- */

static void config_env_file_release(struct config_env_file *f)
{
	free(f->path);
	keyvals_release(&f->services);
	keyvals_release(&f->env);
}

static void ports_free(struct config_port *ports, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(ports[i].protocol);
	free(ports);
}

void config_probe_release(struct config_probe *p)
{
	free(p->path);
	strv_free(p->argv);
	free(p->pattern);
	free(p->send);
	strv_free(p->expect);
	*p = (struct config_probe){0};
}

static void service_release(struct config_service *s)
{
	free(s->name);
	free(s->image);
	strv_free(s->command);
	strv_free(s->entrypoint);
	keyvals_release(&s->environment);
	ports_free(s->ports, s->n_ports);
	ports_free(s->expose, s->n_expose);
	for (size_t i = 0; i < s->n_volumes; i++) {
		free(s->volumes[i].source);
		free(s->volumes[i].target);
		free(s->volumes[i].options);
		free(s->volumes[i].subpath);
		keyvals_release(&s->volumes[i].labels);
		free(s->volumes[i].digest);
	}
	free(s->volumes);
	for (size_t i = 0; i < s->n_depends_on; i++)
		free(s->depends_on[i].service);
	free(s->depends_on);
	config_probe_release(&s->healthcheck);
	strv_free(s->profiles);
	free(s->working_dir);
	free(s->container_name);
	strv_free(s->aliases);
	strv_free(s->networks);
	strv_free(s->network_aliases);
	strv_free(s->network_addresses);
	strv_free(s->network_words);
	for (size_t i = 0; i < s->n_grants; i++) {
		free(s->grants[i].source);
		free(s->grants[i].target);
	}
	free(s->grants);
	container_options_release(&s->container);
	build_options_release(&s->build);
	strv_free(s->container_fields);
	strv_free(s->run_command);
	free(s->run_shell_text);
	config_probe_release(&s->ready);
	keyvals_release(&s->x_env);
	error_release(&s->fault);
}

void config_forget_since(struct config *c, size_t approvals, size_t warnings)
{
	for (; c->n_approvals > approvals; c->n_approvals--) {
		struct config_approval *a = &c->approvals[c->n_approvals - 1];
		free(a->path);
		free(a->value);
		free(a->shown);
	}
	for (; c->n_warnings > warnings; c->n_warnings--)
		free(c->warnings[c->n_warnings - 1].text);
}

void config_free(struct config *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->n_services; i++)
		service_release(&c->services[i]);
	free(c->services);
	for (size_t i = 0; i < c->n_sources; i++) {
		free(c->sources[i].name);
		free(c->sources[i].path);
		free(c->sources[i].text);
	}
	free(c->sources);
	free(c->file);
	for (size_t i = 0; i < c->n_files; i++) {
		free(c->files[i].path);
		free(c->files[i].shown);
	}
	free(c->files);
	free(c->subdirectory);
	strv_free(c->env_files);
	free(c->directory);
	free(c->text_hash);
	free(c->name);
	config_resources_release(c->volumes, c->n_volumes);
	config_resources_release(c->networks, c->n_networks);
	keyvals_release(&c->network_labels);
	keyvals_release(&c->network_opts);
	free(c->backend);
	strv_free(c->service_set);
	strv_free(c->profiles);
	strv_free(c->asked);
	keyvals_release(&c->env);
	free(c->env_places);
	keyvals_release(&c->app_ports);
	for (size_t i = 0; i < c->n_more_files; i++)
		config_env_file_release(&c->more_files[i]);
	free(c->more_files);
	config_forget_since(c, 0, 0);
	free(c->approvals);
	free(c->approval_hash);
	free(c->warnings);
	free(c);
}

const struct config_service *config_service(const struct config *c, const char *name)
{
	for (size_t i = 0; i < c->n_services; i++)
		if (!strcmp(c->services[i].name, name))
			return &c->services[i];
	return NULL;
}

/* ---- the top level ---- */

/* The file's `name`, else its directory's, in lower case and of [a-z0-9_-] alone: compose-spec 04-version-and-name. new
 */
static char *project_name(const struct config *c)
{
	const char *slash = strrchr(c->directory, '/');
	char *name = xstrdup(c->name ? c->name : slash ? slash + 1 : c->directory), *to = name;
	for (const char *from = name; *from; from++)
		if (isalnum((unsigned char)*from) || (to != name && (*from == '_' || *from == '-')))
			*to++ = (char)tolower((unsigned char)*from);
	*to = '\0';
	return name;
}

static int read_name(const struct field *f, void *out)
{
	struct config *c = out;
	struct loading *l = loading_of(f);
	int r = field_string(f, &c->name);
	if (r < 0)
		return r;
	free(l->project);
	l->project = project_name(c);
	return 0;
}

static const struct field_reader known_keys[] = {
    {"services", field_ignore}, {"name", field_ignore},    {"volumes", field_ignore},
    {"x-aether", field_ignore}, {"version", field_ignore}, /* obsolete: compose-spec 04-version-and-name */
    {"networks", field_ignore}, {"secrets", field_ignore}, {"configs", field_ignore},
    {"include", field_ignore},  {"models", NULL},          {NULL, NULL},
};

/* Whatever the file's order: services name volumes, x-aether names services. */
static const struct field_reader in_order[] = {
    {"name", read_name},
    {"volumes", read_volume_resources},
    {"networks", read_network_resources},
    {"secrets", read_secret_sources},
    {"configs", read_config_sources},
    {"services", read_services},
    {"x-aether", read_aether},
};

static int read_top(const struct field *f, struct config *c)
{
	bool any = false;
	int r = field_read_map(f, known_keys, UNKNOWN_WARNS, "a mapping with services", c);
	for (size_t i = 0; r == 0 && i < sizeof in_order / sizeof *in_order; i++) {
		struct field child;
		if (!field_find(f, in_order[i].key, &child))
			continue;
		any = any || !strcmp(child.key, "x-aether");
		if (!field_is_null(&child))
			r = in_order[i].read(&child, c);
	}
	join_external_networks(c);
	settle_own_network(c);
	if (r == 0 && (any || c->n_services))
		r = approve_top(f, c);
	if (r < 0 || any || c->n_services)
		return r;
	r = field_error(f, "expected services");
	error_hint(f->reader->err, "services: { db: { image: \"postgres:16\" } }");
	return r;
}

/* ---- the whole ---- */

static void add_warning(void *arg, const char *text)
{
	struct config *c = arg;
	array_grow(c->warnings, c->n_warnings);
	c->warnings[c->n_warnings++].text = xstrdup(text);
}

static char **profiles_of(const struct config_params *params)
{
	const char *at = params->profiles ? params->profiles : params->variables ? keyvals_get(params->variables, "COMPOSE_PROFILES") : NULL;
	char **profiles = NULL;
	while (at && *(at += strspn(at, ", "))) {
		size_t len = strcspn(at, ", ");
		strv_push(&profiles, xstrndup(at, len));
		at += len;
	}
	return profiles;
}

static int load(struct loading *l)
{
	l->config->profiles = profiles_of(l->params);
	int r = loading_read(l);
	if (r < 0)
		return r;
	l->project = project_name(l->config);
	struct field root = field_root(&l->reader, l->root);
	return read_top(&root, l->config);
}

/* What is wrong with those that nobody has asked for (an env_file that is not there) is no reason to have no shape of the others. */
static int shape_of(struct loading *l, json_t **ret)
{
	int r = config_shape(l, l->params->whole_shape, ret);
	if (r == 0 || !l->params->whole_shape)
		return r;
	error_release(l->reader.err);
	return config_shape(l, false, ret);
}

/* Whether somebody wants the shape must not change what is approved, nor what is warned of. */
static int load_shape(struct loading *l, json_t **ret_shape)
{
	struct config *c = l->config;
	int r = load(l);
	approvals_finish(l);
	c->text_hash = xasprintf("%016llx", (unsigned long long)l->hash);
	reader_tell_unused(&l->reader);
	c->n_own_warnings = c->n_warnings;
	if (r == 0 && ret_shape)
		r = shape_of(l, ret_shape);
	reader_finish(&l->reader);
	return r;
}

int config_load_shape(const struct config_params *params, struct config **ret, json_t **ret_shape, struct error *err)
{
	struct config *c = xcalloc(1, sizeof *c);
	struct loading l = {.params = params, .config = c, .dir_fd = -1, .hash = HASH_INIT};
	l.reader = (struct reader){
	    .err = err, .lookup = loading_variable, .lookup_arg = &l, .warn = add_warning, .warn_arg = c};
	c->inherit = c->rewrite = true;
	c->is_main = !params->main_root || !strcmp(params->main_root, params->root);
	int r = load_shape(&l, ret_shape);
	for (size_t i = 0; i < l.n_docs; i++)
		yaml_free(l.docs[i]);
	free(l.docs);
	if (!c->backend)
		c->backend = xstrdup("auto");
	keyvals_release(&l.env_files);
	keyvals_release(&l.strange_env);
	keyvals_release(&l.included_env);
	related_release(&l);
	free(l.project);
	recipes_free(l.recipes);
	if (l.dir_fd >= 0 && l.dir_fd != params->root_fd)
		close(l.dir_fd);
	if (r < 0) {
		config_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

int config_load(const struct config_params *params, struct config **ret, struct error *err)
{
	return config_load_shape(params, ret, NULL, err);
}
