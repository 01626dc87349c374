/* A service of the configuration, its recipe and its leases become the spec that a backend takes. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/hash.h"
#include "provisioner/spec_private.h"
#include "provisioner/template.h"

#define STOP_GRACE_MS 10000 /* Compose's default */
#define SETTLE_MS 300 /* a container of which nothing can be asked is ready when it has run so long: what ends at once has ended by then */
#define PROXY_MS 20 /* in which an engine's proxy, which takes every connection, closes one that leads nowhere */
#define RUN_DIR_NAME_MAX 20 /* of the 107 bytes of a Unix socket's path */

/* ---- a recipe's templates ---- */

struct scope {
	struct model *m;
	struct model_service *s;
	const struct model_params *params;
	const char *data;
	char *value; /* of the last look-up, where it had to be made */
	int failed;
	struct error *err;
};

static const char *made(struct scope *scope, char *value)
{
	free(scope->value);
	return scope->value = value;
}

static const char *secret(struct scope *scope, const char *name)
{
	cleanup_free char *key = xasprintf("%s/%s", scope->s->config->name, *name ? name : "password");
	char *value = NULL;
	if (!scope->params->plan) /* nothing is made for an environment that nobody asked for */
		return "";
	int r = store_secret(scope->params->store, scope->params->id->namespace_, key, &value, scope->err);
	if (r < 0) {
		scope->failed = r;
		return NULL;
	}
	return made(scope, value);
}

static const char *port_text(struct scope *scope, uint16_t internal)
{
	return made(scope, xasprintf("%u", model_external_port(scope->s, internal)));
}

static const char *value_name(struct scope *scope, const char *rest)
{
	return scope->s->config->name;
}

static const char *value_namespace(struct scope *scope, const char *rest)
{
	return scope->params->id->namespace_;
}

static const char *value_workspace(struct scope *scope, const char *rest)
{
	return scope->params->id->workspace;
}

static const char *value_root(struct scope *scope, const char *rest)
{
	return scope->params->id->root;
}

static const char *value_host(struct scope *scope, const char *rest)
{
	return model_host(scope->s);
}

static const char *value_port(struct scope *scope, const char *rest)
{
	return port_text(scope, scope->s->recipe ? scope->s->recipe->port : 0);
}

static const char *value_ports(struct scope *scope, const char *rest)
{
	uint16_t internal = (uint16_t)strtoul(rest, NULL, 10);
	if (!internal || (scope->m->planned && !model_external_port(scope->s, internal)))
		return NULL;
	return port_text(scope, internal);
}

static const char *value_data(struct scope *scope, const char *rest)
{
	return scope->data;
}

static const char *value_scripts(struct scope *scope, const char *rest)
{
	return made(scope, xasprintf("%s.seed", scope->data)); /* where the backend puts them */
}

static const char *value_run(struct scope *scope, const char *rest)
{
	return made(scope, model_run_dir(scope->params->id, scope->s->config->name));
}

static const char *value_bin(struct scope *scope, const char *rest)
{
	return scope->s->program_dir ? scope->s->program_dir : "";
}

static const char *value_major(struct scope *scope, const char *rest)
{
	return scope->s->program_major ? scope->s->program_major : "";
}

static const char *value_image(struct scope *scope, const char *rest)
{
	return scope->s->config->image ? scope->s->config->image : "";
}

/* Images take POSTGRES_PASSWORD_FILE for POSTGRES_PASSWORD; it leads to a secret of the file's. Its text without the last newlines, as a shell takes it */
static const char *value_of_file(struct scope *scope, const char *name)
{
	const struct config_service *c = scope->s->config;
	cleanup_free char *key = xasprintf("%s_FILE", name);
	const char *path = keyvals_get(&c->environment, key);
	for (size_t i = 0; path && i < c->n_grants; i++) {
		cleanup_buffer struct buffer text = BUFFER_INIT;
		const struct config_source *source = config_source_of(scope->m->config, &c->grants[i]);
		if (strcmp(c->grants[i].target, path) || !source || source->external || spec_source_text(scope->m, scope->params, source, &text) < 0)
			continue;
		char *value = xstrdup(buffer_str(&text));
		for (size_t len = strlen(value); len && value[len - 1] == '\n'; len--)
			value[len - 1] = '\0';
		return made(scope, value);
	}
	return "";
}

static const char *value_env(struct scope *scope, const char *rest)
{
	const char *value = keyvals_get(&scope->s->config->environment, rest);
	return value && *value ? value : value_of_file(scope, rest);
}

static const char *value_program(struct scope *scope, const char *rest)
{
	const char *name =
	    scope->s->recipe && scope->s->program_dir ? recipe_program_in(scope->s->recipe, scope->s->program_dir) : NULL;
	return name ? name : "";
}

static const char *value_url(struct scope *scope, const char *rest)
{
	return scope->s->url ? scope->s->url : "";
}

/* All of them as a text that splits into words again, or the value of the one that `rest` names. */
static const char *value_args(struct scope *scope, const char *rest)
{
	cleanup_strv char **args = NULL;
	if (!scope->s->recipe)
		return "";
	recipe_arguments(scope->s->recipe, scope->s->config, &args);
	if (!*rest)
		return made(scope, config_join_words(args));
	const char *value = recipe_argument(args, rest);
	return value ? made(scope, xstrdup(value)) : "";
}

/* What a recipe's templates may name, beside its own `defaults`. A name that ends in a dot takes what follows. */
static const struct {
	const char *name;
	const char *(*value)(struct scope *scope, const char *rest);
} values[] = {
    {"name", value_name},
    {"service", value_name},
    {"namespace", value_namespace},
    {"workspace", value_workspace},
    {"root", value_root},
    {"image", value_image},
    {"host", value_host},
    {"port", value_port},
    {"ports.", value_ports},
    {"data", value_data},
    {"scripts", value_scripts},
    {"run", value_run},
    {"bin", value_bin},
    {"program", value_program},
    {"url", value_url},
    {"args", value_args},
    {"args.", value_args},
    {"major", value_major},
    {"version", value_major},
    {"env.", value_env},
    {"secret", secret},
    {"secret.", secret},
};

static const char *lookup(void *arg, const char *name)
{
	struct scope *scope = arg;
	const char *value = keyvals_get(&scope->s->variables, name);
	for (size_t i = 0; !value && i < sizeof values / sizeof *values; i++) {
		size_t len = strlen(values[i].name);
		bool takes_more = values[i].name[len - 1] == '.';
		if (takes_more ? !strncmp(name, values[i].name, len) && name[len] : !strcmp(name, values[i].name))
			return values[i].value(scope, takes_more ? name + len : "");
	}
	return value;
}

/* What the template's own words were, or the store's, which stand in err already. */
static int expanded(struct scope *scope, int r, struct error *bad)
{
	free(scope->value);
	if (r == 0 || scope->failed)
		return scope->failed;
	error_move(scope->err, bad);
	error_prefix(scope->err, "recipe %s, service %s", scope->s->recipe ? scope->s->recipe->name : "-",
	             scope->s->config->name);
	return r;
}

int model_expand(struct model *m, struct model_service *s, const struct model_params *params, const char *data,
                 const char *text, char **ret, struct error *err)
{
	struct scope scope = {m, s, params, data, NULL, 0, err};
	cleanup_error struct error bad = ERROR_INIT;
	return expanded(&scope, template_expand(text, lookup, &scope, ret, &bad), &bad);
}

char *model_run_dir(const struct identity *id, const char *service)
{
	if (strlen(service) <= RUN_DIR_NAME_MAX)
		return xasprintf("%s/%s", id->socket_dir, service);
	return xasprintf("%s/%016llx", id->socket_dir, (unsigned long long)hash_str(HASH_INIT, service));
}

static char *expand(const struct build *b, const char *data, const char *text, int *r)
{
	char *value = NULL;
	if (*r == 0)
		*r = model_expand(b->m, b->s, b->params, data, text, &value, b->err);
	return *r == 0 ? keep(b->s, value) : NULL;
}

static char **expand_argv(const struct build *b, const char *data, char *const *argv, int *r)
{
	struct scope scope = {b->m, b->s, b->params, data, NULL, 0, b->err};
	cleanup_error struct error bad = ERROR_INIT;
	cleanup_strv char **words = NULL;
	if (*r == 0)
		*r = expanded(&scope, template_expand_argv(argv, lookup, &scope, &words, &bad), &bad);
	if (*r < 0)
		return NULL;
	char **out = keep_array(b->s, strv_len(words) + 1, sizeof *out);
	for (size_t i = 0; words && words[i]; i++)
		out[i] = keep(b->s, xstrdup(words[i]));
	return out;
}

/* ---- host processes ---- */

static uint64_t hash_argv(uint64_t h, char *const *argv)
{
	for (; argv && *argv; argv++)
		h = hash_str(h, *argv);
	return hash_str(h, "");
}

static uint64_t hash_keyvals(uint64_t h, const struct keyvals *kv)
{
	for (size_t i = 0; kv && i < kv->count; i++) {
		h = hash_str(h, kv->items[i].key);
		h = hash_str(h, kv->items[i].value ? kv->items[i].value : "");
	}
	return hash_str(h, "");
}

struct steps {
	char ***argv; /* NULL-terminated */
	const char **input;
	size_t n;
	uint64_t hash;
};

/* {{data}} stays: the backend alone knows whether it is a template's or a service's own. */
static int expand_steps(const struct build *b, const struct recipe_init *from, size_t count, struct steps *ret)
{
	int r = 0;
	*ret = (struct steps){.argv = keep_array(b->s, count + 1, sizeof *ret->argv),
	                      .input = keep_array(b->s, count + 1, sizeof *ret->input),
	                      .hash = hash_str(HASH_INIT, b->s->recipe->name)};
	for (size_t i = 0; r == 0 && i < count; i++) {
		const struct recipe_init *step = &from[i];
		const char *when = step->when ? expand(b, "{{data}}", step->when, &r) : "always", *input;
		if (r < 0 || !*when)
			continue;
		ret->argv[ret->n] = expand_argv(b, "{{data}}", step->argv, &r);
		ret->input[ret->n] = input = step->stdin_ ? expand(b, "{{data}}", step->stdin_, &r) : NULL;
		if (r < 0)
			break;
		ret->hash = hash_str(hash_argv(ret->hash, ret->argv[ret->n]), input ? input : "");
		ret->n++;
	}
	return r;
}

static int build_init(const struct build *b)
{
	const struct recipe *recipe = b->s->recipe;
	struct steps steps;
	int r = expand_steps(b, recipe->init, recipe->n_init, &steps);
	if (r < 0 || !steps.n)
		return r;
	uint64_t h = hash_str(steps.hash, b->s->program_dir ? b->s->program_dir : "");
	b->s->process.init = (char *const *const *)steps.argv;
	b->s->process.init_stdin = steps.input;
	b->s->process.template_key =
	    keep(b->s, xasprintf("%s-%s-%016llx", recipe->name, b->s->program_major ? b->s->program_major : "0",
	                         (unsigned long long)h));
	return 0;
}

static int build_adapt(const struct build *b)
{
	struct steps steps;
	int r = expand_steps(b, b->s->recipe->adapt, b->s->recipe->n_adapt, &steps);
	if (r < 0 || !steps.n)
		return r;
	b->s->process.adapt = (char *const *const *)steps.argv;
	b->s->process.adapt_stdin = steps.input;
	b->s->process.adapt_key = keep(b->s, xasprintf("%016llx", (unsigned long long)steps.hash));
	return 0;
}

/* ---- what fills a new database ---- */

/* The name of a mount right below the directory, "" for the directory itself; NULL: elsewhere. borrowed */
static const char *script_name(const char *target, const char *directory)
{
	size_t len = strlen(directory);
	if (strncmp(target, directory, len) || (target[len] && target[len] != '/'))
		return NULL;
	const char *name = target + len;
	while (*name == '/')
		name++;
	return strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, "..") ? NULL : name;
}

/* Compose's environment, as the image gives it to its scripts; then what leads to this database. */
static int build_seed_env(const struct build *b)
{
	struct model_service *s = b->s;
	int r = 0;
	keyvals_copy(&s->seed_env, &s->config->environment);
	keyvals_copy(&s->seed_env, &s->process_env);
	for (size_t i = 0; i < s->recipe->seed_env.count; i++) {
		const struct keyval *item = &s->recipe->seed_env.items[i];
		keyvals_set(&s->seed_env, item->key, expand(b, "", item->value ? item->value : "", &r));
	}
	return r;
}

static int build_seed(const struct build *b)
{
	struct model_service *s = b->s;
	const struct config_service *c = s->config;
	struct process_script *scripts = keep_array(s, c->n_volumes, sizeof *scripts);
	size_t n = 0;
	for (size_t i = 0; i < c->n_volumes; i++) {
		const struct config_volume *v = &c->volumes[i];
		const char *name = v->type == CONFIG_VOLUME_BIND ? script_name(v->target, s->recipe->seed_target) : NULL;
		if (!name)
			continue;
		char *path = config_source_path(b->m->config, b->params->root_fd, b->params->id->root, b->params->id->main_root, v->source);
		scripts[n++] = (struct process_script){*name ? name : NULL, keep(s, path), v->source, v->target, v->digest};
	}
	if (!n)
		return 0;
	int r = build_seed_env(b);
	s->process.seed = expand_argv(b, "{{data}}", s->recipe->seed, &r);
	s->process.seed_env = &s->seed_env;
	s->process.scripts = scripts;
	s->process.n_scripts = n;
	return r;
}

static int build_recipe_process(const struct build *b)
{
	struct model_service *s = b->s;
	cleanup_strv char **args = NULL;
	int r = 0;
	if (!recipe_arguments(s->recipe, s->config, &args))
		strv_pushf(&b->m->warnings,
		           "%s: its command is for the image; a process of this machine takes only the %s options from it",
		           s->config->name, s->recipe->name);
	for (size_t i = 0; i < s->recipe->process_env.count; i++) {
		const struct keyval *item = &s->recipe->process_env.items[i];
		keyvals_set(&s->process_env, item->key, expand(b, "", item->value ? item->value : "", &r));
	}
	s->process.data_dir = spec_data_dir(b);
	s->process.run_dir = keep(s, model_run_dir(b->params->id, s->config->name));
	s->process.directory = s->process.data_dir;
	s->process.command = expand_argv(b, s->process.data_dir, s->recipe->command, &r);
	s->process.env = &s->process_env;
	s->process.needs_unprivileged = s->recipe->needs_unprivileged;
	s->process.init_env = &s->process_env;
	if (r == 0 && s->recipe->n_init)
		r = build_init(b);
	if (r == 0 && s->recipe->n_adapt)
		r = build_adapt(b);
	if (r == 0 && s->recipe->seed)
		r = build_seed(b);
	s->spec.process = &s->process;
	return r;
}

static void take_host_variables(struct keyvals *env)
{
	static const char *const names[] = {"PATH", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "SHELL"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (getenv(names[i]))
			keyvals_set(env, names[i], getenv(names[i]));
	if (getenv("HOME") && geteuid() != 0) /* root's home is closed to the uid that the services get */
		keyvals_set(env, "HOME", getenv("HOME"));
}

/* "./worker" is below the working directory, and a word that is exactly $PORT is the port: no shell stands between. */
static char **command_argv(const struct build *b)
{
	char *const *words = b->s->config->run_command;
	char **argv = keep_array(b->s, strv_len(words) + 1, sizeof *argv);
	for (size_t i = 0; words[i]; i++) {
		const char *value = words[i][0] == '$' ? keyvals_get(&b->s->process_env, words[i] + 1) : NULL;
		bool relative = i == 0 && strchr(words[i], '/') && words[i][0] != '/';
		argv[i] = keep(b->s, relative ? xasprintf("%s/%s", b->s->process.directory, words[i])
		                              : xstrdup(value ? value : words[i]));
	}
	return argv;
}

/* `x-aether: {command: ...}`: like the application itself, it gets what .env gives; what the file says for it wins. */
static int build_command_process(const struct build *b)
{
	struct model_service *s = b->s;
	uint16_t port = model_external_port(s, 0);
	take_host_variables(&s->process_env);
	keyvals_copy(&s->process_env, b->env);
	cleanup_keyvals struct keyvals own = KEYVALS_INIT;
	keyvals_copy(&own, &s->config->environment);
	model_rewrite(b->m, &own);
	keyvals_copy(&s->process_env, &own);
	if (port) {
		char number[8];
		snprintf(number, sizeof number, "%u", port);
		keyvals_set(&s->process_env, "PORT", number);
		keyvals_set(&s->process_env, "HOST", MODEL_HOST);
	}
	keyvals_copy(&s->process_env, &s->config->x_env);
	s->process.data_dir = spec_data_dir(b);
	s->process.run_dir = keep(s, model_run_dir(b->params->id, s->config->name));
	s->process.directory = b->params->id->root;
	if (s->config->working_dir && s->config->working_dir[0] == '/' && !access(s->config->working_dir, X_OK))
		s->process.directory = s->config->working_dir;
	s->process.command = command_argv(b);
	s->process.env = &s->process_env;
	s->spec.process = &s->process;
	return 0;
}

static int build_process(const struct build *b)
{
	const struct config_service *c = b->s->config;
	if (c->run_command)
		return build_command_process(b);
	if (b->s->recipe && b->s->program_dir)
		return build_recipe_process(b);
	if (error_is_set(&b->s->unsupported) && b->s->recipe)
		return 0; /* its program is not there */
	const struct recipe *server = c->image ? recipe_for_image(b->params->recipes, c->image) : NULL;
	if (server)
		error_set(&b->s->unsupported, ERROR_IMAGE_NOT_FOUND,
		          "service %s: its command is not the server of %s, and is for a container: it is not run as a process of this machine", c->name, c->image);
	else if (c->image)
		error_set(&b->s->unsupported, ERROR_IMAGE_NOT_FOUND,
		          "service %s: no recipe says how to run the image %s as a process of this machine", c->name, c->image);
	else
		error_set(&b->s->unsupported, ERROR_IMAGE_NOT_FOUND,
		          "service %s: it has no image, and no command to run it as a process of this machine", c->name);
	error_hint(&b->s->unsupported, "add x-aether: {command: ...} to the service%s", server ? "" : ", or a recipe for its image");
	return 0;
}

/* ---- readiness: x-aether.ready, the recipe's own for its process, healthcheck (then the recipe's own), the first port, "it runs" ---- */

/* Where other ports of a container are named than the recipe's, it listens there perhaps. */
static bool is_elsewhere(const struct model_service *s)
{
	const struct config_service *c = s->config;
	return !s->spec.process && (c->n_ports || c->n_expose) && !recipe_has_its_port(s->recipe, c);
}

/* At the recipe's port, wherever that stands among the service's; else at the first. */
static int recipe_ready(const struct build *b, struct config_probe *ret)
{
	int r = 0;
	*ret = b->s->recipe->ready;
	ret->port = ret->port || is_elsewhere(b->s) ? ret->port : b->s->recipe->port;
	ret->argv = ret->argv ? expand_argv(b, "", ret->argv, &r) : NULL;
	ret->path = ret->path ? expand(b, "", ret->path, &r) : NULL;
	return r;
}

/* A healthcheck runs within the container and may find what nobody else does: Postgres' image makes its database by a server of the socket alone,
 * which pg_isready takes for the one. */
static bool is_reached_by_recipe(const struct model_service *s)
{
	return !is_elsewhere(s) && !s->spec.process && model_external_port(s, s->recipe->port);
}

static int build_ready(const struct build *b)
{
	struct model_service *s = b->s;
	const struct config_service *c = s->config;
	bool by_recipe = s->recipe && s->recipe->ready.kind != PROBE_NONE;
	bool recipe_process = s->spec.process && !c->run_command;
	int r = 0;
	s->one_shot = !s->n_ports && c->ready.kind == PROBE_NONE && c->healthcheck.kind == PROBE_NONE;
	if (c->ready.kind != PROBE_NONE) {
		s->ready = c->ready;
	} else if (c->healthcheck.kind != PROBE_NONE && !c->healthcheck_disabled && !(by_recipe && recipe_process)) {
		s->ready = c->healthcheck;
		if (by_recipe && is_reached_by_recipe(s))
			r = recipe_ready(b, &s->reached);
	} else if (by_recipe) {
		r = recipe_ready(b, &s->ready);
	} else {
		for (size_t i = 0; s->ready.kind == PROBE_NONE && i < s->n_ports; i++)
			if (!strcmp(s->ports[i].protocol, "tcp"))
				s->ready = (struct config_probe){.kind = PROBE_TCP, .port = s->ports[i].internal};
	}
	return r;
}

/* ---- what an image wants to be told ---- */

static bool has_variable(const struct keyvals *env, const char *name)
{
	cleanup_free char *file = xasprintf("%s_FILE", name);
	const char *value = keyvals_get(env, name), *path = keyvals_get(env, file);
	return (value && *value) || (path && *path); /* it takes one of them */
}

/* Its own values win; an empty one is none, as for a process of the recipe. */
static int build_container_env(const struct build *b)
{
	struct model_service *s = b->s;
	int r = 0;
	for (size_t i = 0; r == 0 && s->recipe && i < s->recipe->container_env.count; i++) {
		const struct keyval *item = &s->recipe->container_env.items[i];
		if (!has_variable(&s->config->environment, item->key))
			keyvals_set(&s->told, item->key, expand(b, "", item->value ? item->value : "", &r));
	}
	if (!s->told.count)
		return r;
	keyvals_copy(&s->container_env, s->spec.env);
	keyvals_copy(&s->container_env, &s->told);
	s->spec.env = &s->container_env;
	return r;
}

/* ---- data that has other values ---- */

static int build_container_adapt(const struct build *b)
{
	struct model_service *s = b->s;
	int r = 0;
	if (!s->recipe || !s->recipe->container_adapt)
		return 0;
	char *const *argv = expand_argv(b, "", s->recipe->container_adapt, &r);
	s->adapt_as = expand(b, "", s->recipe->container_adapt_as ? s->recipe->container_adapt_as : "", &r);
	if (r < 0)
		return r;
	s->adapt = argv;
	s->adapt_key = keep(s, xasprintf("%016llx", (unsigned long long)hash_keyvals(hash_argv(HASH_INIT, argv), &s->variables)));
	return 0;
}

/* ---- the whole ---- */

static const struct {
	const char *name;
	int number;
} signals[] = {{"HUP", SIGHUP},   {"INT", SIGINT},   {"QUIT", SIGQUIT}, {"KILL", SIGKILL},
               {"USR1", SIGUSR1}, {"USR2", SIGUSR2}, {"TERM", SIGTERM}, {"WINCH", SIGWINCH}};

static int signal_number(const char *name)
{
	if (name && !strncmp(name, "SIG", 3))
		name += 3;
	for (size_t i = 0; name && i < sizeof signals / sizeof *signals; i++)
		if (!strcmp(name, signals[i].name))
			return signals[i].number;
	return 0;
}

static uint64_t hash_process(uint64_t h, const struct process_spec *p)
{
	if (!p)
		return h;
	h = hash_argv(h, p->command);
	h = hash_keyvals(h, p->env);
	h = hash_str(h, p->directory);
	h = hash_str(h, p->data_dir ? p->data_dir : "");
	return hash_str(h, p->template_key ? p->template_key : "");
}

static char *hash_spec(const struct service_spec *spec)
{
	uint64_t h = hash_str(HASH_INIT, spec->image ? spec->image : "");
	if (spec->build)
		h = hash_str(h, spec->build->key);
	h = hash_keyvals(h, spec->env);
	h = hash_argv(h, spec->command);
	h = hash_argv(h, spec->entrypoint);
	h = hash_str(h, spec->working_dir ? spec->working_dir : "");
	for (size_t i = 0; i < spec->n_ports; i++) {
		uint16_t pair[2] = {spec->ports[i].internal, spec->ports[i].external};
		h = hash_bytes(h, pair, sizeof pair);
		h = hash_str(h, spec->ports[i].protocol);
	}
	for (size_t i = 0; i < spec->n_volumes; i++) {
		h = hash_bytes(h, &spec->volumes[i].kind, sizeof spec->volumes[i].kind);
		h = hash_str(h, spec->volumes[i].source ? spec->volumes[i].source : "");
		h = hash_str(h, spec->volumes[i].target);
		h = hash_bytes(h, &spec->volumes[i].read_only, sizeof spec->volumes[i].read_only);
		h = hash_str(h, spec->volumes[i].options ? spec->volumes[i].options : "");
		if (spec->volumes[i].subpath || spec->volumes[i].must_exist)
			h = hash_str(hash_str(h, spec->volumes[i].subpath ? spec->volumes[i].subpath : ""), spec->volumes[i].must_exist ? "!" : "");
	}
	h = hash_bytes(h, &spec->memory_bytes, sizeof spec->memory_bytes);
	h = hash_bytes(h, &spec->cpus, sizeof spec->cpus);
	h = hash_bytes(h, &spec->pids, sizeof spec->pids);
	h = hash_bytes(h, &spec->generation, sizeof spec->generation);
	if (!spec->process && spec->container) /* a process has none of it */
		h = hash_bytes(container_options_hash(hash_argv(h, spec->aliases), spec->container), &spec->stop_signal, sizeof spec->stop_signal);
	h = hash_process(h, spec->process);
	return xasprintf("%016llx", (unsigned long long)h);
}

/* On the host's network its peers are where they are for the host's own programs. */
static void build_host_environment(const struct build *b)
{
	keyvals_copy(&b->s->process_env, &b->s->config->environment);
	model_rewrite(b->m, &b->s->process_env);
	b->s->spec.env = &b->s->process_env;
}

static void join(struct model_service *s, const struct model_service *to)
{
	if (to && !s->spec.process)
		s->spec.config_hash = keep(s, xasprintf("%016llx", (unsigned long long)hash_str(hash_str(HASH_INIT, s->spec.config_hash), to->spec.config_hash)));
}

static const struct model_service *joined(const struct model *m, const char *mode)
{
	return mode && !strncmp(mode, "service:", 8) ? model_service(m, mode + 8) : NULL;
}

void model_join_specs(struct model *m)
{
	for (size_t i = 0; i < m->n_services; i++) {
		struct model_service *s = &m->services[i];
		const struct container_options *o = s->spec.container;
		const struct model_service *to[] = {joined(m, o->network), joined(m, o->pid), joined(m, o->ipc)};
		for (size_t k = 0; k < sizeof to / sizeof *to; k++)
			join(s, to[k]);
		for (char **from = o->volumes_from; from && *from; from++) {
			cleanup_free char *name = xstrndup(*from, strcspn(*from, ":"));
			join(s, strncmp(*from, "container:", 10) ? model_service(m, name) : NULL);
		}
	}
}

int model_build_spec(struct model *m, struct model_service *s, const struct model_params *params,
                     const struct keyvals *env, struct error *err)
{
	struct build b = {m, s, params, env, NULL, err};
	const struct config_service *c = s->config;
	s->spec = (struct service_spec){
	    .name = c->name,
	    .image = c->image,
	    .env = &c->environment,
	    .command = c->command,
	    .entrypoint = c->entrypoint,
	    .working_dir = c->working_dir,
	    .ports = s->ports,
	    .n_ports = s->n_ports,
	    .memory_bytes = c->memory_bytes,
	    .cpus = c->cpus,
	    .pids = c->pids,
	    .stop_signal = c->stop_signal ? c->stop_signal : signal_number(s->recipe ? s->recipe->stop_signal : NULL),
	    .stop_grace_ms = c->stop_grace_ms >= 0 ? (unsigned)c->stop_grace_ms : STOP_GRACE_MS,
	    .generation = m->generation,
	    .data = data_path(&b, "", c->name),
	    .aliases = c->aliases,
	    .container = &c->container,
	    .network = m->network,
	};
	spec_build_volumes(&b);
	if (s->network == NETWORK_HOST)
		build_host_environment(&b);
	bool as_process = !strcmp(m->backend, "process");
	int r = as_process ? build_process(&b) : 0;
	if (!as_process && c->has_build) {
		s->build = model_build_image(m, c, params);
		s->spec.build = s->build;
		s->spec.image = keep(s, model_built_image(c, params->id));
	}
	if (!as_process) {
		spec_bind_to_volume(&b);
		r = spec_build_grants(&b);
		if (r == 0)
			r = build_container_env(&b);
		if (r == 0)
			r = build_container_adapt(&b);
	}
	if (r == 0)
		r = build_ready(&b);
	s->reached.linger_ms = PROXY_MS;
	s->ready.linger_ms = as_process ? 0 : s->ready.kind == PROBE_NONE ? SETTLE_MS : PROXY_MS;
	s->spec.config_hash = keep(s, hash_spec(&s->spec));
	return r;
}
