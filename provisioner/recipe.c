/* Reading recipes (contrib/recipes/README.md) and matching images with them. */
#include "provisioner/recipe.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <regex.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/program.h"
#include "provisioner/config_reader.h"
#include "provisioner/recipe_private.h"
#include "provisioner/template.h"

#define RECIPE_FILE_MAX (256u << 10)
#define RECIPES_MAX 1000

/* ---- releasing ---- */

static void steps_free(struct recipe_init *steps, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		strv_free(steps[i].argv);
		free(steps[i].stdin_);
		free(steps[i].when);
	}
	free(steps);
}

static void recipe_release(struct recipe *r)
{
	free(r->name);
	strv_free(r->images);
	free(r->scheme);
	free(r->url);
	keyvals_release(&r->defaults);
	keyvals_release(&r->variables);
	keyvals_release(&r->beside_env);
	keyvals_release(&r->beside_arguments);
	config_probe_release(&r->ready);
	free(r->stop_signal);
	free(r->data_target);
	strv_free(r->program_paths);
	strv_free(r->programs);
	free(r->package);
	free(r->version_pattern);
	strv_free(r->version_argv);
	steps_free(r->init, r->n_init);
	steps_free(r->adapt, r->n_adapt);
	strv_free(r->command);
	free(r->seed_target);
	strv_free(r->seed);
	keyvals_release(&r->seed_env);
	keyvals_release(&r->process_env);
	keyvals_release(&r->container_env);
	strv_free(r->container_adapt);
	free(r->container_adapt_as);
	free(r);
}

void recipes_free(struct recipes *rs)
{
	if (!rs)
		return;
	for (size_t i = 0; i < rs->count; i++)
		recipe_release(rs->items[i]);
	free(rs->items);
	recipe_found_free(rs);
	pthread_mutex_destroy(&rs->lock);
	free(rs);
}

/* ---- templates ---- */

static void no_name(void *arg, const char *name)
{
}

static int read_template(const struct field *f, char **ret)
{
	char *text = NULL;
	int r = field_text(f, &text);
	if (r < 0)
		return r;
	if (template_names(text, no_name, NULL, f->reader->err) < 0) {
		free(text);
		return field_located(f);
	}
	free(*ret);
	*ret = text;
	return 0;
}

static int read_template_argv(const struct field *f, char ***ret)
{
	int r = field_strings(f, ret);
	for (size_t i = 0; r == 0 && (*ret)[i]; i++) {
		struct field item = field_child(f, i);
		if (template_names((*ret)[i], no_name, NULL, f->reader->err) < 0)
			return field_located(&item);
	}
	return r == 0 && !(*ret)[0] ? field_expected(f, "a command") : r;
}

static int read_templates(const struct field *f, bool any_name, struct keyvals *ret)
{
	if (f->node->type != YAML_MAP)
		return field_expected(f, "a mapping");
	int r = 0;
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field child = field_child(f, i);
		cleanup_free char *text = NULL;
		r = any_name || is_variable_name(child.key) ? read_template(&child, &text)
		                                : field_key_error(&child, "expected a name of letters, digits and '_'");
		if (r == 0)
			keyvals_set(ret, child.key, text);
	}
	return r;
}

static int read_template_map(const struct field *f, struct keyvals *ret)
{
	return read_templates(f, false, ret);
}

/* ---- readiness ---- */

static int read_send(const struct field *f, void *out)
{
	struct config_probe *p = out;
	if (f->node->type != YAML_SCALAR)
		return field_expected(f, "a text");
	p->send_len = f->node->len;
	p->send = xcalloc(p->send_len + 1, 1);
	memcpy(p->send, f->node->text, p->send_len); /* it may hold NULs */
	return 0;
}

static int read_expect(const struct field *f, void *out)
{
	return field_strings_or_one(f, &((struct config_probe *)out)->expect);
}

static const struct field_reader tcp_fields[] = {
    {"send", read_send},
    {"expect", read_expect},
    {NULL, NULL},
};

static int read_tcp(const struct field *f, void *out)
{
	struct config_probe *p = out;
	p->kind = PROBE_TCP;
	return field_read_map(f, tcp_fields, UNKNOWN_FAILS, "a mapping with send and expect", p);
}

static int read_http(const struct field *f, void *out)
{
	struct config_probe *p = out;
	p->kind = PROBE_HTTP;
	return read_template(f, &p->path);
}

static int read_exec(const struct field *f, void *out)
{
	struct config_probe *p = out;
	p->kind = PROBE_EXEC;
	return read_template_argv(f, &p->argv);
}

static int read_log(const struct field *f, void *out)
{
	struct config_probe *p = out;
	p->kind = PROBE_LOG;
	return field_text(f, &p->pattern);
}

static const struct field_reader ready_fields[] = {
    {"tcp", read_tcp}, {"http", read_http}, {"exec", read_exec}, {"log", read_log}, {NULL, NULL},
};

static int read_ready(const struct field *f, void *out)
{
	if (f->node->type == YAML_MAP && f->node->count != 1)
		return field_error(f, "expected one of tcp, http, exec and log");
	return field_read_map(f, ready_fields, UNKNOWN_FAILS, "a mapping", &((struct recipe *)out)->ready);
}

/* ---- as a host process ---- */

static int read_program(const struct field *f, void *out)
{
	return field_strings_or_one(f, &((struct recipe *)out)->programs);
}

static int read_paths(const struct field *f, void *out)
{
	return field_strings(f, &((struct recipe *)out)->program_paths);
}

static int read_package(const struct field *f, void *out)
{
	return read_template(f, &((struct recipe *)out)->package);
}

static int read_pattern(const struct field *f, void *out)
{
	struct recipe *recipe = out;
	regex_t regex;
	int r = field_text(f, &recipe->version_pattern);
	if (r < 0)
		return r;
	if (regcomp(&regex, recipe->version_pattern, REG_EXTENDED))
		return field_expected(f, "a POSIX extended regular expression");
	size_t groups = regex.re_nsub;
	regfree(&regex);
	return groups ? 0 : field_error(f, "expected a group around the major version");
}

static int read_version_command(const struct field *f, void *out)
{
	return field_strings(f, &((struct recipe *)out)->version_argv);
}

static const struct field_reader version_fields[] = {
    {"pattern", read_pattern},
    {"arguments", read_version_command},
    {NULL, NULL},
};

static int read_version(const struct field *f, void *out)
{
	return field_read_map(f, version_fields, UNKNOWN_FAILS, "a mapping with pattern", out);
}

static int read_run(const struct field *f, void *out)
{
	return read_template_argv(f, &((struct recipe_init *)out)->argv);
}

static int read_stdin(const struct field *f, void *out)
{
	return read_template(f, &((struct recipe_init *)out)->stdin_);
}

static int read_when(const struct field *f, void *out)
{
	return read_template(f, &((struct recipe_init *)out)->when);
}

static const struct field_reader init_fields[] = {
    {"run", read_run},
    {"stdin", read_stdin},
    {"when", read_when},
    {NULL, NULL},
};

static int read_steps(const struct field *f, struct recipe_init **steps, size_t *n)
{
	if (f->node->type != YAML_LIST)
		return field_expected(f, "a list of steps");
	int r = 0;
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field item = field_child(f, i);
		array_grow(*steps, *n);
		struct recipe_init *step = &(*steps)[(*n)++];
		*step = (struct recipe_init){NULL, NULL, NULL};
		r = field_read_map(&item, init_fields, UNKNOWN_FAILS, "a mapping with run", step);
		if (r == 0 && !step->argv)
			r = field_error(&item, "expected run");
	}
	return r;
}

static int read_init(const struct field *f, void *out)
{
	struct recipe *recipe = out;
	return read_steps(f, &recipe->init, &recipe->n_init);
}

static int read_adapt(const struct field *f, void *out)
{
	struct recipe *recipe = out;
	return read_steps(f, &recipe->adapt, &recipe->n_adapt);
}

static int read_scripts(const struct field *f, void *out)
{
	struct recipe *recipe = out;
	int r = field_string(f, &recipe->seed_target);
	size_t len = r == 0 ? strlen(recipe->seed_target) : 0;
	return r == 0 && (len < 2 || recipe->seed_target[0] != '/' || recipe->seed_target[len - 1] == '/')
	           ? field_expected(f, "the directory of an image")
	           : r;
}

static int read_seed_run(const struct field *f, void *out)
{
	return read_template_argv(f, &((struct recipe *)out)->seed);
}

static int read_seed_env(const struct field *f, void *out)
{
	return read_template_map(f, &((struct recipe *)out)->seed_env);
}

static const struct field_reader seed_fields[] = {
    {"scripts", read_scripts},
    {"run", read_seed_run},
    {"env", read_seed_env},
    {NULL, NULL},
};

static int read_seed(const struct field *f, void *out)
{
	const struct recipe *recipe = out;
	int r = field_read_map(f, seed_fields, UNKNOWN_FAILS, "a mapping with scripts and run", out);
	return r == 0 && (!recipe->seed || !recipe->seed_target) ? field_error(f, "expected scripts and run") : r;
}

static int read_command(const struct field *f, void *out)
{
	return read_template_argv(f, &((struct recipe *)out)->command);
}

static int read_process_env(const struct field *f, void *out)
{
	return read_template_map(f, &((struct recipe *)out)->process_env);
}

static int read_unprivileged(const struct field *f, void *out)
{
	return field_bool(f, &((struct recipe *)out)->needs_unprivileged);
}

static const struct field_reader process_fields[] = {
    {"program", read_program},
    {"paths", read_paths},
    {"package", read_package},
    {"version", read_version},
    {"init", read_init},
    {"adapt", read_adapt},
    {"seed", read_seed},
    {"command", read_command},
    {"env", read_process_env},
    {"unprivileged", read_unprivileged},
    {NULL, NULL},
};

static int read_process(const struct field *f, void *out)
{
	struct recipe *recipe = out;
	int r = field_read_map(f, process_fields, UNKNOWN_FAILS, "a mapping", recipe);
	if (r == 0 && (!recipe->programs || !recipe->programs[0] || !recipe->command))
		return field_error(f, "expected program and command");
	return r;
}

/* ---- the whole ---- */

static int read_images(const struct field *f, void *out)
{
	return field_strings(f, &((struct recipe *)out)->images);
}

static int read_port(const struct field *f, void *out)
{
	int64_t port;
	int r = field_int(f, 1, 65535, &port);
	if (r == 0)
		((struct recipe *)out)->port = (uint16_t)port;
	return r;
}

static int read_url(const struct field *f, void *out)
{
	struct recipe *recipe = out;
	int r = read_template(f, &recipe->url);
	const char *colon = r == 0 ? strstr(recipe->url, "://") : NULL;
	if (r == 0 && !colon)
		return field_expected(f, "a URL");
	if (r == 0)
		recipe->scheme = xstrndup(recipe->url, (size_t)(colon - recipe->url));
	return r;
}

static int read_defaults(const struct field *f, void *out)
{
	return read_template_map(f, &((struct recipe *)out)->defaults);
}

static int read_variables(const struct field *f, void *out)
{
	return read_template_map(f, &((struct recipe *)out)->variables);
}

static int read_beside_env(const struct field *f, void *out)
{
	return read_template_map(f, &((struct recipe *)out)->beside_env);
}

static int read_beside_arguments(const struct field *f, void *out)
{
	return read_templates(f, true, &((struct recipe *)out)->beside_arguments);
}

static const struct field_reader beside_fields[] = {{"env", read_beside_env}, {"arguments", read_beside_arguments}, {NULL, NULL}};

static int read_beside(const struct field *f, void *out)
{
	return field_read_map(f, beside_fields, UNKNOWN_FAILS, "a mapping", out);
}

static int read_stop_signal(const struct field *f, void *out)
{
	return field_string(f, &((struct recipe *)out)->stop_signal);
}

static int read_data(const struct field *f, void *out)
{
	return field_string(f, &((struct recipe *)out)->data_target);
}

static int read_container_env(const struct field *f, void *out)
{
	return read_template_map(f, &((struct recipe *)out)->container_env);
}

static int read_container_adapt_as(const struct field *f, void *out)
{
	return read_template(f, &((struct recipe *)out)->container_adapt_as);
}

static int read_container_adapt_run(const struct field *f, void *out)
{
	return read_template_argv(f, &((struct recipe *)out)->container_adapt);
}

static const struct field_reader container_adapt_fields[] = {{"as", read_container_adapt_as}, {"run", read_container_adapt_run}, {NULL, NULL}};

static int read_container_adapt(const struct field *f, void *out)
{
	int r = field_read_map(f, container_adapt_fields, UNKNOWN_FAILS, "a mapping with run", out);
	return r == 0 && !((struct recipe *)out)->container_adapt ? field_error(f, "expected run") : r;
}

static const struct field_reader container_recipe_fields[] = {{"env", read_container_env}, {"adapt", read_container_adapt}, {NULL, NULL}};

static int read_container(const struct field *f, void *out)
{
	return field_read_map(f, container_recipe_fields, UNKNOWN_FAILS, "a mapping with env and adapt", out);
}

static const struct field_reader recipe_fields[] = {
    {"images", read_images},       {"port", read_port},   {"url", read_url},   {"defaults", read_defaults},
    {"variables", read_variables}, {"ready", read_ready}, {"data", read_data}, {"stop_signal", read_stop_signal},
    {"process", read_process},     {"container", read_container}, {"exec", read_beside}, {NULL, NULL},
};

static int parse_recipe(const char *file, const struct buffer *text, struct recipe *recipe, struct error *err)
{
	CLEANUP(yaml_freep) struct yaml_document *doc = NULL;
	const struct config_file self = {(char *)file, (char *)file};
	struct reader reader = {.files = &self, .n_files = 1, .err = err};
	int r = yaml_parse(file, buffer_str(text), text->len, &doc, err);
	if (r < 0)
		return r;
	struct field root = field_root(&reader, yaml_root(doc));
	r = field_read_map(&root, recipe_fields, UNKNOWN_FAILS, "a mapping with images", recipe);
	if (r == 0 && !recipe->images)
		r = field_error(&root, "expected images");
	reader_finish(&reader);
	return r;
}

static void add_recipe(struct recipes *rs, struct recipe *recipe)
{
	for (size_t i = 0; i < rs->count; i++)
		if (!strcmp(rs->items[i]->name, recipe->name)) {
			recipe_release(rs->items[i]);
			rs->items[i] = recipe;
			return;
		}
	array_grow(rs->items, rs->count);
	rs->items[rs->count++] = recipe;
}

static int load_file(struct recipes *rs, const char *directory, const char *name, struct error *err)
{
	cleanup_free char *file = xasprintf("%s/%s", directory, name);
	cleanup_buffer struct buffer text = BUFFER_INIT;
	int r = file_read(AT_FDCWD, file, RECIPE_FILE_MAX, &text);
	if (r < 0)
		return error_set_errno(err, ERROR_CONFIG_INVALID, -r, "recipe %s", file);
	struct recipe *recipe = xcalloc(1, sizeof *recipe);
	recipe->name = xstrndup(name, strlen(name) - 5);
	r = parse_recipe(file, &text, recipe, err);
	if (r < 0)
		recipe_release(recipe);
	else
		add_recipe(rs, recipe);
	return r;
}

static int is_recipe(const struct dirent *entry)
{
	size_t len = strlen(entry->d_name);
	return len > 5 && entry->d_name[0] != '.' && !strcmp(entry->d_name + len - 5, ".yaml");
}

static int load_directory(struct recipes *rs, const char *directory, struct error *err)
{
	struct dirent **entries = NULL;
	int n = scandir(directory, &entries, is_recipe, alphasort), r = 0;
	for (int i = 0; i < n; i++) {
		if (r == 0 && rs->count < RECIPES_MAX)
			r = load_file(rs, directory, entries[i]->d_name, err);
		free(entries[i]);
	}
	free(entries);
	return r; /* a directory that is not there holds none */
}

int recipes_load(char *const *directories, struct recipes **ret, struct error *err)
{
	struct recipes *rs = xcalloc(1, sizeof *rs);
	pthread_mutex_init(&rs->lock, NULL);
	int r = 0;
	for (; r == 0 && directories && *directories; directories++)
		r = load_directory(rs, *directories, err);
	if (r < 0)
		recipes_free(rs);
	else
		*ret = rs;
	return r;
}

int recipes_load_default(struct recipes **ret, struct error *err)
{
	cleanup_strv char **directories = NULL;
	const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	strv_push(&directories, program_recipes_dir());
	if (config && *config == '/')
		strv_pushf(&directories, "%s/aether/recipes", config);
	else if (home && *home == '/')
		strv_pushf(&directories, "%s/.config/aether/recipes", home);
	return recipes_load(directories, ret, err);
}

/* ---- images ---- */

/* "docker.io/library/postgres:16@sha256:..." -> "postgres"; the first part is a registry when it has a dot or a colon,
 * or is localhost (distribution/reference). new */
static char *repository_of(const char *image)
{
	const char *slash = strchr(image, '/');
	size_t first = slash ? (size_t)(slash - image) : 0;
	if (slash &&
	    (memchr(image, '.', first) || memchr(image, ':', first) || (first == 9 && !strncmp(image, "localhost", 9))))
		image = slash + 1;
	if (!strncmp(image, "docker/library/", 15)) /* public.ecr.aws mirrors the official images there */
		image += 15;
	if (!strncmp(image, "library/", 8))
		image += 8;
	return xstrndup(image, strcspn(image, ":@"));
}

const struct recipe *recipe_for_image(const struct recipes *rs, const char *image)
{
	cleanup_free char *repository = repository_of(image);
	for (size_t i = rs->count; i-- > 0;) /* the user's own, which come last, win */
		if (strv_contains(rs->items[i]->images, repository))
			return rs->items[i];
	return NULL;
}

const struct recipe *recipe_by_name(const struct recipes *rs, const char *name)
{
	for (size_t i = 0; i < rs->count; i++)
		if (!strcmp(rs->items[i]->name, name))
			return rs->items[i];
	return NULL;
}

char *recipe_image_major(const char *image)
{
	const char *slash = strrchr(image, '/');
	const char *tag = strchr(slash ? slash : image, ':');
	size_t digits = tag ? strspn(tag + 1, "0123456789") : 0;
	return digits && digits < 6 ? xstrndup(tag + 1, digits) : NULL;
}

/* ---- arguments ---- */

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

bool recipe_arguments(const struct recipe *r, const struct config_service *s, char ***ret)
{
	char *const *word = s->command;
	bool whole = !s->entrypoint || !s->entrypoint[0];
	*ret = xcalloc(1, sizeof **ret);
	if (!word || !*word)
		return whole;
	if (!strcmp(base_name(*word), "docker-entrypoint.sh"))
		word++;
	if (*word && strv_contains(r->programs, base_name(*word)))
		word++;
	else if (*word && **word != '-')
		return false;
	for (; *word && **word != '-'; word++) /* a configuration file of the image */
		whole = false;
	for (; *word; word++)
		strv_push(ret, xstrdup(*word));
	return whole;
}

const char *recipe_argument(char *const *args, const char *name)
{
	size_t len = strlen(name);
	const char *value = NULL;
	for (; args && *args; args++) {
		const char *word = *args;
		if (!strcmp(word, "-c") && args[1])
			word = *++args;
		else if (!strncmp(word, "--", 2))
			word += 2;
		else
			continue;
		if (!strncmp(word, name, len) && word[len] == '=')
			value = word + len + 1;
		else if (!strcmp(word, name) && args[1])
			value = *++args;
	}
	return value;
}
