/* What of a configuration can run code, or show a service what is none of its business: for the user to approve. Values stand
 * here as the file says them where an engine or we would interpolate them later from the user's own `.env`: rotating a password
 * there is no change by a stranger. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/sha256.h"
#include "provisioner/config_private.h"
#include "provisioner/envfile.h"
#include "provisioner/recipe.h"

#define MASK "\"***\""

/* ---- canonical text ---- */

static void put_text(struct buffer *out, const char *text)
{
	buffer_addc(out, '"');
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			buffer_printf(out, "\\%c", *text);
		else if ((unsigned char)*text < 0x20 || *text == 0x7f)
			buffer_printf(out, "\\u%04x", *text);
		else
			buffer_addc(out, *text);
	}
	buffer_addc(out, '"');
}

/* The word behind "--password", NAME=value with such a name, and a URL's password. new */
static char *masked_word(const char *word, const char *before)
{
	const char *equals = strchr(word, '=');
	cleanup_free char *name = equals ? xstrndup(word, (size_t)(equals - word)) : NULL;
	if (before && before[0] == '-' && !strchr(before, '=') && word[0] != '-' && env_name_is_secret(before))
		return xstrdup("***");
	if (name && !strpbrk(name, " \t\n/?&") && env_name_is_secret(name))
		return xasprintf("%s=***", name);
	return strstr(word, "://") ? url_mask_password(word) : xstrdup(word);
}

static void put_word(struct buffer *out, const char *word, const char *before, bool mask)
{
	cleanup_free char *shown = mask ? masked_word(word, before) : NULL;
	put_text(out, mask ? shown : word);
}

static void put_node(struct buffer *out, const struct yaml *node, bool mask)
{
	if (node->type == YAML_SCALAR || node->type == YAML_NULL) {
		if (node->type == YAML_NULL)
			buffer_adds(out, "null");
		else
			put_word(out, node->text, NULL, mask);
		return;
	}
	buffer_addc(out, node->type == YAML_MAP ? '{' : '[');
	for (size_t i = 0; i < node->count; i++) {
		if (i)
			buffer_addc(out, ',');
		if (node->type != YAML_MAP) {
			put_node(out, node->items[i], mask);
			continue;
		}
		put_text(out, node->pairs[i].key);
		buffer_addc(out, ':');
		if (mask && node->pairs[i].value->type == YAML_SCALAR && env_name_is_secret(node->pairs[i].key))
			buffer_adds(out, MASK);
		else
			put_node(out, node->pairs[i].value, mask);
	}
	buffer_addc(out, node->type == YAML_MAP ? '}' : ']');
}

char *approval_node_text(const struct yaml *node)
{
	struct buffer out = BUFFER_INIT;
	put_node(&out, node, false);
	return buffer_detach(&out);
}

/* ---- entries ---- */

/* steals all three */
static void approve(const struct field *f, char *path, char *value, char *shown)
{
	struct loading *l = loading_of(f);
	struct config *c = l->config;
	array_grow(c->approvals, c->n_approvals);
	c->approvals[c->n_approvals++] = (struct config_approval){path, value, shown};
}

static bool wanted(const struct field *f)
{
	return loading_of(f)->params->recipes != NULL;
}

void approve_argv(const struct field *f, char *const *argv)
{
	struct buffer out[2] = {BUFFER_INIT, BUFFER_INIT};
	if (!wanted(f))
		return;
	for (size_t masked = 0; masked < 2; masked++) {
		buffer_addc(&out[masked], '[');
		for (size_t i = 0; argv && argv[i]; i++) {
			if (i)
				buffer_addc(&out[masked], ',');
			put_word(&out[masked], argv[i], i ? argv[i - 1] : NULL, masked);
		}
		buffer_addc(&out[masked], ']');
	}
	approve(f, field_path(f), buffer_detach(&out[0]), buffer_detach(&out[1]));
}

/* Without interpolation: a password that the user's own `.env` gives may change. */
void approve_command(const struct field *f)
{
	cleanup_strv char **words = NULL;
	for (size_t i = 0; f->node->type == YAML_LIST && i < f->node->count; i++)
		strv_push(&words, xstrdup(f->node->items[i]->text ? f->node->items[i]->text : ""));
	if (f->node->type == YAML_LIST || (f->node->type == YAML_SCALAR && config_split_words(f->node->text, &words, NULL) == 0))
		approve_argv(f, words);
	else
		approve_node(f);
}

void approve_node(const struct field *f)
{
	struct buffer shown = BUFFER_INIT;
	if (!wanted(f))
		return;
	put_node(&shown, f->node, true);
	approve(f, field_path(f), approval_node_text(f->node), buffer_detach(&shown));
}

static void approve_at(const struct field *f, char *path, const char *name, const char *text)
{
	struct buffer value = BUFFER_INIT, shown = BUFFER_INIT;
	if (text)
		put_text(&value, text);
	else
		buffer_adds(&value, "null");
	if (text && env_name_is_secret(name))
		buffer_adds(&shown, MASK);
	else if (text)
		put_word(&shown, text, NULL, true);
	else
		buffer_adds(&shown, "null");
	approve(f, path, buffer_detach(&value), buffer_detach(&shown));
}

void approve_text(const struct field *f, const char *text)
{
	if (wanted(f))
		approve_at(f, field_path(f), "", text);
}

void approve_file(struct loading *l, const char *path)
{
	const struct yaml nowhere = {.type = YAML_MAP};
	const struct field f = {.reader = &l->reader, .node = &nowhere};
	if (wanted(&f))
		approve_at(&f, xstrdup("config_files"), "", path);
}

void approve_mount(const struct field *f, const struct config_volume *v, int why_no_digest)
{
	cleanup_free char *mount = xasprintf("%s:%s", v->source, v->target);
	cleanup_free char *text = v->digest       ? xasprintf("%s sha256:%s", mount, v->digest)
	                          : why_no_digest ? xasprintf("%s (%s)", mount, strerror(-why_no_digest))
	                                          : xstrdup(mount);
	approve_text(f, text);
}

static void approve_variable(const struct field *f, const char *key, const char *text)
{
	cleanup_free char *path = field_path(f);
	if (wanted(f))
		approve_at(f, xasprintf("%s.%s", path, key), key, text);
}

void approve_variables(const struct field *f)
{
	for (size_t i = 0; i < f->node->count && f->node->type == YAML_MAP; i++) {
		const struct yaml *value = f->node->pairs[i].value;
		approve_variable(f, f->node->pairs[i].key, value->type == YAML_SCALAR ? value->text : NULL);
	}
	for (size_t i = 0; i < f->node->count && f->node->type == YAML_LIST; i++) {
		const char *text = f->node->items[i]->type == YAML_SCALAR ? f->node->items[i]->text : "";
		const char *equals = strchr(text, '=');
		cleanup_free char *key = equals ? xstrndup(text, (size_t)(equals - text)) : xstrdup(text);
		approve_variable(f, key, equals ? equals + 1 : NULL);
	}
}

/* ---- services ---- */

/* More of the machine than a container has, other code in it, or code beside it. */
static const char *const powers[] = {
    "annotations",   "build",         "cap_add",  "cgroup",     "cgroup_parent", "configs",   "credential_spec", "device_cgroup_rules",
    "devices",       "develop",  "gpus",       "group_add",     "ipc",       "network_mode",
    "pid",           "post_start", "pre_stop", "privileged",    "provider",  "runtime",         "secrets",
    "security_opt",  "sysctls",  "use_api_socket", "user",      "userns_mode", "uts",           "volumes_from",
};

static bool is_in(const char *key, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(key, list[i]))
			return true;
	return false;
}

/* As `devices`, in another place. */
static void approve_reserved_devices(const struct field *service)
{
	struct field deploy, resources, reservations, devices;
	if (field_find(service, "deploy", &deploy) && field_find(&deploy, "resources", &resources) && field_find(&resources, "reservations", &reservations) &&
	    field_find(&reservations, "devices", &devices) && !field_is_null(&devices))
		approve_node(&devices);
}

/* A driver may send what the service says to anybody, and Podman's option `path` names the file that is written, as the engine's user. */
static void approve_logging(const struct field *service)
{
	static const char *const drivers[] = {"", "json-file", "local", "journald", "none"};
	static const char *const harmless[] = {"compress", "env", "env-regex", "labels", "labels-regex", "max-buffer-size", "max-file", "max-size", "mode", "tag"};
	struct field logging, driver, options;
	if (!field_find(service, "logging", &logging) || logging.node->type != YAML_MAP)
		return;
	bool known = !field_find(&logging, "driver", &driver) || field_is_null(&driver) ||
	             (driver.node->type == YAML_SCALAR && is_in(driver.node->text, drivers, sizeof drivers / sizeof *drivers));
	if (known && field_find(&logging, "options", &options) && !field_is_null(&options)) {
		known = options.node->type == YAML_MAP;
		for (size_t i = 0; known && i < options.node->count; i++)
			known = is_in(options.node->pairs[i].key, harmless, sizeof harmless / sizeof *harmless);
	}
	if (!known)
		approve_node(&logging);
}

/* The environment of anything but a recipe's own process decides what code that runs (PATH, LD_PRELOAD, NODE_OPTIONS). */
static void approve_environment(const struct field *f)
{
	const struct keyvals *strange = &loading_of(f)->strange_env;
	for (size_t i = 0; i < f->node->count; i++) {
		struct field child = field_child(f, i);
		if (!strcmp(child.key, "environment"))
			approve_variables(&child);
		if (!strcmp(child.key, "env_file"))
			for (size_t k = 0; k < strange->count; k++)
				approve_variable(&child, strange->items[k].key, strange->items[k].value);
		if (!strcmp(child.key, "env_file") || !strcmp(child.key, "working_dir"))
			approve_node(&child);
	}
}

/* Words of a command line that an image's environment gives: POSTGRES_INITDB_ARGS. */
static void approve_arguments(const struct field *f, const struct config_service *s)
{
	for (size_t i = 0; i < s->environment.count; i++) {
		const char *key = s->environment.items[i].key;
		size_t len = strlen(key);
		if (len > 5 && !strcmp(key + len - 5, "_ARGS") && s->environment.items[i].value)
			approve_variable(f, key, s->environment.items[i].value);
	}
}

/* A context, or a Dockerfile, that a link leads out of the repository: the words alone do not say what goes into the image. */
static void approve_places(const struct field *f, const struct build_options *o)
{
	const char *const places[] = {o->context, o->dockerfile};
	for (size_t i = 0; i < 2; i++) {
		cleanup_free char *joined = places[i] && i ? config_path_join(o->context, places[i]) : NULL;
		const char *path = joined ? joined : places[i];
		cleanup_free char *text = path && loading_is_outside(loading_of(f), path) ? xasprintf("%s (outside of the repository)", path) : NULL;
		if (text)
			approve_text(f, text);
	}
}

int approve_service(const struct field *f, const struct config_service *s)
{
	int r = 0;
	if (!wanted(f))
		return 0;
	const struct recipe *recipe = recipe_of(f, s, &r);
	if (r < 0)
		return r;
	for (size_t i = 0; i < f->node->count; i++) {
		struct field child = field_child(f, i);
		if (is_in(child.key, powers, sizeof powers / sizeof *powers) && !field_is_null(&child))
			approve_node(&child);
		if (!strcmp(child.key, "build") && s->build.context)
			approve_places(&child, &s->build);
		if (!strcmp(child.key, "image") && !recipe)
			approve_text(&child, s->image);
	}
	approve_reserved_devices(f);
	approve_logging(f);
	if (!recipe || s->run_command || s->mounts_code)
		approve_environment(f);
	if (!s->run_command)
		approve_arguments(f, s);
	return 0;
}

/* ---- the top level ---- */

/* Whoever sources `.env` gets these variables: no stranger's. */
static bool leads_to_code(const char *name)
{
	static const char *const names[] = {"PATH", "IFS", "ENV", "SHELL", "CDPATH", "EDITOR", "VISUAL", "PAGER", "BROWSER", "HOME",
	                                    "PROMPT_COMMAND", "PS0", "PS1", "PS2", "PS4", "SHELLOPTS", "BASHOPTS", "ZDOTDIR", "FPATH"};
	static const char *const beginnings[] = {"LD_", "DYLD_", "BASH_", "GIT_", "PYTHON", "PERL", "RUBY", "NODE_", "NPM_", "npm_",
	                                         "JAVA", "_JAVA", "JDK_", "MAVEN_", "GRADLE_", "LUA", "PHP", "GEM_", "BUNDLE_", "CARGO_",
	                                         "RUSTC", "RUSTFLAGS", "GOFLAGS", "GOROOT", "DOTNET_", "GCONV_", "LESS"};
	for (size_t i = 0; i < sizeof beginnings / sizeof *beginnings; i++)
		if (!strncmp(name, beginnings[i], strlen(beginnings[i])))
			return true;
	size_t len = strlen(name);
	return is_in(name, names, sizeof names / sizeof *names) || (len > 5 && !strcmp(name + len - 5, "_OPTS")) ||
	       (len > 8 && !strcmp(name + len - 8, "_OPTIONS")) || (len > 6 && !strcmp(name + len - 6, "_FLAGS"));
}

static void approve_env_of(const struct field *f)
{
	struct field env;
	if (f->node->type != YAML_MAP || !field_find(f, "env", &env) || env.node->type != YAML_MAP)
		return;
	for (size_t i = 0; i < env.node->count; i++) {
		struct field child = field_child(&env, i);
		if (leads_to_code(child.key))
			approve_node(&child);
	}
}

static void approve_env(const struct field *top)
{
	struct field aether, files;
	if (!field_find(top, "x-aether", &aether))
		return;
	approve_env_of(&aether);
	if (aether.node->type != YAML_MAP || !field_find(&aether, "env_files", &files) || files.node->type != YAML_MAP)
		return;
	for (size_t i = 0; i < files.node->count; i++) {
		struct field file = field_child(&files, i);
		approve_env_of(&file);
	}
}

/* A named volume may be any directory of the machine, by its driver's options. */
static void approve_volumes(const struct field *top)
{
	struct field volumes, options;
	if (!field_find(top, "volumes", &volumes))
		return;
	for (size_t i = 0; volumes.node->type == YAML_MAP && i < volumes.node->count; i++) {
		struct field child = field_child(&volumes, i);
		if (field_find(&child, "driver_opts", &options) && !field_is_null(&options))
			approve_node(&options);
	}
}

/* A subnet takes the addresses in it from whoever has them on this machine's way to them, and options name bridges of the machine. */
static void approve_networks(const struct field *top)
{
	static const char *const keys[] = {"driver_opts", "ipam"};
	struct field networks, what;
	if (!field_find(top, "networks", &networks))
		return;
	for (size_t i = 0; networks.node->type == YAML_MAP && i < networks.node->count; i++) {
		struct field child = field_child(&networks, i);
		for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
			if (child.node->type == YAML_MAP && field_find(&child, keys[k], &what) && !field_is_null(&what))
				approve_node(&what);
	}
}

/* What others have made: their data, and who else is there. */
static void approve_external(const struct field *top, const char *what)
{
	struct field list, external;
	if (!field_find(top, what, &list))
		return;
	for (size_t i = 0; list.node->type == YAML_MAP && i < list.node->count; i++) {
		struct field child = field_child(&list, i);
		bool yes = child.node->type == YAML_MAP && field_find(&child, "external", &external) && !field_is_null(&external) &&
		           !(external.node->type == YAML_SCALAR && !strcmp(external.node->text, "false"));
		if (yes)
			approve_node(&child);
	}
}

/* An address is whose machine the services, and what they are given, go to. */
static void approve_backend(const struct field *top)
{
	struct field aether, backend;
	if (field_find(top, "x-aether", &aether) && aether.node->type == YAML_MAP && field_find(&aether, "backend", &backend) &&
	    backend.node->type == YAML_SCALAR && strpbrk(backend.node->text, ":$"))
		approve_node(&backend);
}

int approve_top(const struct field *f, struct config *c)
{
	static const char *const files[] = {"configs", "secrets"};
	struct field child;
	if (!wanted(f))
		return 0;
	approve_env(f);
	approve_backend(f);
	approve_volumes(f);
	approve_networks(f);
	approve_external(f, "volumes");
	approve_external(f, "networks");
	for (size_t i = 0; i < sizeof files / sizeof *files; i++)
		if (field_find(f, files[i], &child) && !field_is_null(&child))
			approve_node(&child);
	return 0;
}

/* ---- the whole ---- */

static int compare(const void *one, const void *other)
{
	const struct config_approval *a = one, *b = other;
	int r = strcmp(a->path, b->path);
	return r ? r : strcmp(a->value, b->value);
}

/* A command may have a variable's value in it: "run --key ${API_KEY}". */
static void mask_values(const struct loading *l, struct config_approval *a)
{
	const struct keyvals *user = l->params->variables;
	for (size_t i = 0; user && i < user->count; i++)
		if (env_name_is_secret(user->items[i].key))
			text_mask_value(&a->shown, user->items[i].value);
}

/* They are variables of whatever is run, and stand for ${VAR} in what is. */
static void approve_tracked(struct loading *l)
{
	cleanup_keyvals struct keyvals tracked = KEYVALS_INIT;
	const struct yaml nowhere = {.type = YAML_MAP};
	const struct field f = {.reader = &l->reader, .node = &nowhere};
	for (size_t i = 0; l->config->n_approvals && i < l->included_env.count; i++)
		approve_at(&f, xasprintf("include.env_file.%s", l->included_env.items[i].key), l->included_env.items[i].key, l->included_env.items[i].value);
	if (!l->config->n_approvals || !l->params->tracked_text)
		return;
	envfile_parse(l->params->tracked_text, NULL, NULL, NULL, &tracked);
	for (size_t i = 0; i < tracked.count; i++)
		approve_at(&f, xasprintf(".env.%s", tracked.items[i].key), tracked.items[i].key, tracked.items[i].value);
}

void approvals_finish(struct loading *l)
{
	struct config *c = l->config;
	approve_tracked(l);
	struct sha256 hash;
	char hex[SHA256_HEX] = "";
	if (c->n_approvals) {
		qsort(c->approvals, c->n_approvals, sizeof *c->approvals, compare);
		sha256_begin(&hash);
		for (size_t i = 0; i < c->n_approvals; i++) {
			sha256_add_str(&hash, c->approvals[i].path);
			sha256_add_str(&hash, c->approvals[i].value);
			mask_values(l, &c->approvals[i]);
		}
		sha256_end(&hash, hex);
	}
	c->approval_hash = xstrdup(hex);
}
