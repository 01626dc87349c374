/* `x-aether`, at the top and in a service. These keys are ours: an unknown one is an error, a typo must not pass. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/config_private.h"
#include "provisioner/recipe.h"
#include "provisioner/template.h"

/* ---- of a service ---- */

/* Not interpolated: `$PORT` and the like are variables of the process that is to be started. */
static int read_run_command(const struct field *f, void *out)
{
	struct config_service *s = out;
	struct field verbatim = *f;
	verbatim.verbatim = true;
	int r = field_argv(&verbatim, &s->run_command);
	if (r < 0)
		return r;
	if (!s->run_command[0])
		return field_expected(f, "a command");
	if (f->node->type == YAML_SCALAR) {
		r = field_text(&verbatim, &s->run_shell_text);
	} else {
		s->run_shell_text = approval_node_text(f->node);
	}
	approve_argv(f, s->run_command);
	return r;
}

static int read_service_ready(const struct field *f, void *out)
{
	return read_ready(f, &((struct config_service *)out)->ready);
}

static int read_service_env(const struct field *f, void *out)
{
	approve_variables(f);
	return read_variables(f, &((struct config_service *)out)->x_env);
}

static const struct field_reader service_fields[] = {
    {"command", read_run_command},
    {"ready", read_service_ready},
    {"env", read_service_env},
    {NULL, NULL},
};

int read_service_aether(const struct field *f, void *out)
{
	return field_read_map(f, service_fields, UNKNOWN_FAILS, "a mapping", out);
}

/* ---- templates ---- */

struct check {
	const struct field *f;
	const char *text;
	int r;
};

const struct recipe *recipe_of(const struct field *f, const struct config_service *s, int *r)
{
	struct loading *l = loading_of(f);
	if (!s->image)
		return NULL;
	if (!l->params->recipes && !l->recipes && (*r = recipes_load_default(&l->recipes, l->reader.err)) < 0)
		return NULL;
	return recipe_for_service(l->params->recipes ? l->params->recipes : l->recipes, s);
}

/* Calls `each` with its ports, as far as the file and the recipe tell, until that returns true. */
static bool any_port(const struct config_service *s, const struct recipe *recipe,
                     bool (*each)(void *arg, uint16_t port), void *arg)
{
	for (size_t i = 0; i < s->n_ports; i++)
		if (each(arg, s->ports[i].internal))
			return true;
	for (size_t i = 0; i < s->n_expose; i++)
		if (each(arg, s->expose[i].internal))
			return true;
	return (s->ready.port && each(arg, s->ready.port)) || (recipe && recipe->port && each(arg, recipe->port));
}

static bool is_port(void *arg, uint16_t port)
{
	return *(uint16_t *)arg == 0 || *(uint16_t *)arg == port;
}

/* port 0: any */
static bool has_port(const struct config_service *s, const struct recipe *recipe, uint16_t port)
{
	return any_port(s, recipe, is_port, &port);
}

static bool list_port(void *arg, uint16_t port)
{
	struct buffer *out = arg;
	buffer_printf(out, "%s%u", out->len ? ", " : "", port);
	return out->len > 200;
}

static int check_port(const struct check *c, const struct config_service *s, const struct recipe *recipe,
                      const char *number)
{
	uint16_t port;
	if (parse_port(number, strlen(number), &port) < 0)
		return field_error(c->f, "expected a port in {{services.%s.ports.%s}}", s->name, number);
	if (has_port(s, recipe, port))
		return 0;
	cleanup_buffer struct buffer ports = BUFFER_INIT;
	any_port(s, recipe, list_port, &ports);
	int r = field_error(c->f, "the service %s has no port %u", s->name, port);
	if (ports.len)
		error_hint(c->f->reader->err, "its own ports (not the published ones) are: %s", buffer_str(&ports));
	return r;
}

static int check_attribute(const struct check *c, const struct config_service *s, const char *attribute)
{
	const char *known[16] = {"host", "port", "url", "ports"};
	size_t n = 4;
	int r = 0;
	const struct recipe *recipe = recipe_of(c->f, s, &r);
	if (r < 0)
		return r;
	if (!strncmp(attribute, "ports.", 6))
		return check_port(c, s, recipe, attribute + 6);
	if (!strcmp(attribute, "host"))
		return 0;
	if (!strcmp(attribute, "port") || !strcmp(attribute, "url"))
		return has_port(s, recipe, 0) ? 0 : field_error(c->f, "the service %s has no port", s->name);
	for (size_t i = 0; recipe && i < recipe->defaults.count && n < 15; i++) {
		if (!strcmp(recipe->defaults.items[i].key, attribute))
			return 0;
		known[n++] = recipe->defaults.items[i].key;
	}
	const char *near = nearest_name(attribute, known);
	r = field_error(c->f, "a service has no '%s', in {{services.%s.%s}}", attribute, s->name, attribute);
	if (near)
		error_hint(c->f->reader->err, "did you mean {{services.%s.%s}}?", s->name, near);
	else
		error_hint(c->f->reader->err, "it has host, port, ports.NUMBER and url");
	return r;
}

static int unknown_service(const struct field *f, const char *name)
{
	const char *near = nearest_service(loading_of(f)->config, name);
	int r = field_error(f, "there is no service '%s'", name);
	if (near)
		error_hint(f->reader->err, "did you mean %s?", near);
	return r;
}

/* `rest` is what follows "services.". Names may hold dots: the longest that fits. */
static int check_service(const struct check *c, const char *rest)
{
	const struct config *config = loading_of(c->f)->config;
	const struct config_service *best = NULL;
	size_t best_len = 0;
	for (size_t i = 0; i < config->n_services; i++) {
		size_t len = strlen(config->services[i].name);
		if (len > best_len && !strncmp(rest, config->services[i].name, len) && rest[len] == '.') {
			best = &config->services[i];
			best_len = len;
		}
	}
	if (best)
		return check_attribute(c, best, rest + best_len + 1);
	cleanup_free char *name = xstrndup(rest, strcspn(rest, "."));
	if (config_service(config, name))
		return field_error(c->f, "expected {{services.%s.host}}, .port, .ports.NUMBER or .url", name);
	return unknown_service(c->f, name);
}

static int check_template_name(const struct check *c, const char *name)
{
	static const char *const plain[] = {"namespace", "workspace", "root", NULL};
	static const char *const known[] = {"services", "ports", "env", "namespace", "workspace", "root", NULL};
	if (!strncmp(name, "services.", 9))
		return check_service(c, name + 9);
	if (!strncmp(name, "ports.", 6))
		return keyvals_has(&loading_of(c->f)->config->app_ports, name + 6)
		           ? 0
		           : field_error(c->f, "x-aether.ports has no '%s'", name + 6);
	if (!strncmp(name, "env.", 4) && is_variable_name(name + 4))
		return 0;
	for (const char *const *p = plain; *p; p++)
		if (!strcmp(*p, name))
			return 0;
	cleanup_free char *head = xstrndup(name, strcspn(name, "."));
	const char *near = nearest_name(head, known);
	int r = field_error(c->f, "unknown name '%s' in the template", name);
	if (near && strcmp(near, head))
		error_hint(c->f->reader->err, "did you mean %s%s?", near, name + strlen(head));
	else
		error_hint(c->f->reader->err, "there are services.NAME.{host,port,ports.NUMBER,url}, ports.NAME, env.NAME, "
		                              "namespace, workspace and root");
	return r;
}

static void hear_name(void *arg, const char *name)
{
	struct check *c = arg;
	if (c->r == 0)
		c->r = check_template_name(c, name);
}

static int check_template(const struct field *f, const char *text)
{
	struct check c = {f, text, 0};
	cleanup_error struct error bad = ERROR_INIT;
	if (template_names(text, hear_name, &c, &bad) < 0 && c.r == 0)
		return field_error(f, "%s", bad.message);
	return c.r;
}

/* ---- of the top level ---- */

static int read_backend(const struct field *f, void *out)
{
	struct config *c = out;
	free(c->backend);
	c->backend = NULL;
	return field_string(f, &c->backend);
}

static int read_start(const struct field *f, void *out)
{
	static const char *const words[] = {[START_ON_DEMAND] = "on-demand", [START_MANUAL] = "manual", NULL};
	size_t i;
	int r = field_choice(f, words, &i);
	if (r == 0)
		((struct config *)out)->start = (enum config_start)i;
	return r;
}

static int read_up(const struct field *f, void *out)
{
	static const char *const words[] = {"no", "on-add", NULL};
	size_t i;
	int r = field_choice(f, words, &i);
	if (r == 0)
		((struct config *)out)->up_on_add = i == 1;
	return r;
}

static int read_version(const struct field *f, void *out)
{
	static const char *const words[] = {"any", "exact", NULL};
	size_t i;
	int r = field_choice(f, words, &i);
	if (r == 0)
		((struct config *)out)->version_exact = i == 1;
	return r;
}

static int read_host_ports(const struct field *f, void *out)
{
	static const char *const words[] = {"prefer", "strict", NULL};
	size_t i;
	int r = field_choice(f, words, &i);
	if (r == 0)
		((struct config *)out)->strict_ports = i == 1;
	return r;
}

static int read_inherit(const struct field *f, void *out)
{
	return field_switch(f, &((struct config *)out)->inherit);
}

static int read_rewrite(const struct field *f, void *out)
{
	return field_switch(f, &((struct config *)out)->rewrite);
}

static int read_timeout(const struct field *f, void *out)
{
	int64_t ms;
	int r = field_duration(f, &ms);
	if (r == 0 && (ms < 1 || ms > INT_MAX))
		return field_error(f, "expected a duration from 1ms to 596h");
	if (r == 0)
		((struct config *)out)->timeout_ms = (unsigned)ms;
	return r;
}

static int read_service_set(const struct field *f, void *out)
{
	struct config *c = out;
	int r = field_strings(f, &c->service_set);
	for (size_t i = 0; r == 0 && c->service_set[i]; i++) {
		struct field item = field_child(f, i);
		if (!config_service(c, c->service_set[i]))
			r = unknown_service(&item, c->service_set[i]);
	}
	return r;
}

static int check_variable(const struct field *f)
{
	return is_variable_name(f->key) ? 0
	                                : field_key_error(f, "expected the name of a variable: letters, digits and '_'");
}

static int read_app_ports(const struct field *f, void *out)
{
	struct config *c = out;
	if (f->node->type != YAML_MAP)
		return field_expected(f, "a mapping of variables to ports");
	int r = 0;
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field child = field_child(f, i);
		int64_t port = 0;
		char number[8];
		r = check_variable(&child);
		if (r == 0 && !field_is_null(&child)) /* NAME alone: any port will do */
			r = field_int(&child, 1, 65535, &port);
		snprintf(number, sizeof number, "%d", (int)port);
		if (r == 0)
			keyvals_set(&c->app_ports, child.key, number);
	}
	return r;
}

int read_templates(const struct field *f, int (*each)(const struct field *variable, const char *text, void *arg), void *arg)
{
	if (f->node->type != YAML_MAP)
		return field_expected(f, "a mapping of variables to texts");
	int r = 0;
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field child = field_child(f, i);
		cleanup_free char *text = NULL;
		r = check_variable(&child);
		if (r == 0)
			r = field_text(&child, &text);
		if (r == 0)
			r = check_template(&child, text);
		if (r == 0)
			r = each(&child, text, arg);
	}
	return r;
}

static int add_env(const struct field *variable, const char *text, void *arg)
{
	struct config *c = arg;
	if (keyvals_has(&c->env, variable->key))
		return 0;
	c->env_places = xrealloc(c->env_places, (c->env.count + 1) * sizeof *c->env_places);
	c->env_places[c->env.count] = (struct config_place){variable->file, variable->line, variable->column};
	keyvals_set(&c->env, variable->key, text);
	return 0;
}

static const struct field_reader top_fields[] = {
    {"backend", read_backend},
    {"start", read_start},
    {"up", read_up},
    {"inherit", read_inherit},
    {"rewrite", read_rewrite},
    {"version", read_version},
    {"host_ports", read_host_ports},
    {"timeout", read_timeout},
    {"services", read_service_set},
    {"ports", read_app_ports},
    {"env", field_ignore},
    {"env_files", field_ignore},
    {"compose", field_ignore}, /* config_files.c has read them */
    {NULL, NULL},
};

int read_aether(const struct field *f, void *out)
{
	struct field child;
	int r = field_read_map(f, top_fields, UNKNOWN_FAILS, "a mapping", out);
	/* last: their templates may name the ports */
	if (r == 0 && field_find(f, "env", &child) && !field_is_null(&child))
		r = read_templates(&child, add_env, out);
	if (r == 0 && field_find(f, "env_files", &child) && !field_is_null(&child))
		r = read_env_files(&child, out);
	return r;
}
