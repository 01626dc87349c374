/* Configurations as data: tests/data/valid/CASE/{compose.yaml,expected} and
 * tests/data/invalid/CASE/{compose.yaml,error}. A file `dotenv` beside them is the user's `.env`. AETHER_TEST_WRITE=1
 * writes `expected` and `error` anew: read the difference. tests/data/compose/CASE are read as they are, `.env` with them. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/file.h"
#include "provisioner/config.h"
#include "provisioner/envfile.h"
#include "provisioner/recipe.h"

static char from_shell[] = "FROM_SHELL=shell", both[] = "BOTH=shell", home[] = "HOME=/home/dev";
static char *const shell_variables[] = {from_shell, both, home, NULL};
static struct recipes *recipes;

/* ---- what was read, as text ---- */

static void put_list(struct buffer *out, const char *name, char *const *list)
{
	if (!list)
		return;
	buffer_printf(out, "\t%s:", name);
	for (; *list; list++)
		buffer_printf(out, " [%s]", *list);
	buffer_addc(out, '\n');
}

static void put_keyvals(struct buffer *out, const char *name, const struct keyvals *kv)
{
	for (size_t i = 0; i < kv->count; i++)
		buffer_printf(out, "\t%s %s=%s\n", name, kv->items[i].key, kv->items[i].value ? kv->items[i].value : "(null)");
}

static void put_text(struct buffer *out, const char *name, const char *text)
{
	if (text)
		buffer_printf(out, "\t%s: %s\n", name, text);
}

static void put_ports(struct buffer *out, const char *name, const struct config_port *ports, size_t n)
{
	for (size_t i = 0; i < n; i++)
		buffer_printf(out, "\t%s %u/%s published %u\n", name, ports[i].internal, ports[i].protocol, ports[i].published);
}

static void put_probe(struct buffer *out, const char *name, const struct config_probe *p)
{
	static const char *const kinds[] = {"none", "tcp", "http", "exec", "log"};
	if (p->kind == PROBE_NONE && !p->interval_ms && !p->timeout_ms && !p->retries)
		return;
	buffer_printf(out, "\t%s %s", name, kinds[p->kind]);
	if (p->port)
		buffer_printf(out, " port %u", p->port);
	if (p->path)
		buffer_printf(out, " path %s", p->path);
	if (p->pattern)
		buffer_printf(out, " pattern %s", p->pattern);
	buffer_printf(out, " interval %u timeout %u start_period %u retries %u\n", p->interval_ms, p->timeout_ms,
	              p->start_period_ms, p->retries);
	put_list(out, name, p->argv);
}

static void put_volumes(struct buffer *out, const struct config_service *s)
{
	static const char *const types[] = {"named", "anonymous", "bind", "tmpfs"};
	for (size_t i = 0; i < s->n_volumes; i++)
		buffer_printf(out, "\tvolume %s %s -> %s%s\n", types[s->volumes[i].type],
		              s->volumes[i].source ? s->volumes[i].source : "-", s->volumes[i].target,
		              s->volumes[i].read_only ? " read-only" : "");
}

static void put_dependencies(struct buffer *out, const struct config_service *s)
{
	static const char *const conditions[] = {"started", "healthy", "completed"};
	for (size_t i = 0; i < s->n_depends_on; i++)
		buffer_printf(out, "\tdepends on %s %s%s\n", s->depends_on[i].service, conditions[s->depends_on[i].condition],
		              s->depends_on[i].required ? "" : " optional");
}

static void put_build(struct buffer *out, const struct config_service *s)
{
	const struct build_options *o = &s->build;
	if (!s->has_build)
		return;
	buffer_printf(out, "\tbuild%s%s\n", s->built_by ? " of " : "", s->built_by ? s->built_by : "");
	put_text(out, "build context", o->context);
	put_text(out, "build dockerfile", o->dockerfile);
	put_text(out, "build inline", o->inline_text);
	put_text(out, "build target", o->target);
	put_text(out, "build network", o->network);
	put_keyvals(out, "build arg", &o->args);
	put_keyvals(out, "build label", &o->labels);
	put_list(out, "build cache_from", o->cache_from);
	put_list(out, "build extra_hosts", o->extra_hosts);
	put_list(out, "build tags", o->tags);
	put_list(out, "build platforms", o->platforms);
	put_list(out, "build refused", o->refused);
	put_list(out, "build ignored", o->ignored);
	for (size_t i = 0; i < o->n_ulimits; i++)
		buffer_printf(out, "\tbuild ulimit %s %lld %lld\n", o->ulimits[i].name, (long long)o->ulimits[i].soft, (long long)o->ulimits[i].hard);
	if (o->shm_bytes || o->no_cache || o->pull)
		buffer_printf(out, "\tbuild shm %llu%s%s\n", (unsigned long long)o->shm_bytes, o->no_cache ? " no_cache" : "", o->pull ? " pull" : "");
}

static void put_service(struct buffer *out, const struct config_service *s)
{
	static const char *const policies[] = {"no", "on-failure", "always", "unless-stopped"};
	buffer_printf(out, "service %s at %u:%u\n", s->name, s->line, s->column);
	put_text(out, "image", s->image);
	if (s->no_instances)
		buffer_adds(out, "\tno instances\n");
	put_build(out, s);
	put_list(out, "command", s->command);
	if (s->is_copy)
		buffer_adds(out, "\ta copy\n");
	put_list(out, "entrypoint", s->entrypoint);
	put_keyvals(out, "environment", &s->environment);
	put_ports(out, "port", s->ports, s->n_ports);
	put_ports(out, "expose", s->expose, s->n_expose);
	put_volumes(out, s);
	put_dependencies(out, s);
	put_probe(out, "healthcheck", &s->healthcheck);
	if (s->healthcheck_disabled)
		buffer_adds(out, "\thealthcheck disabled\n");
	put_list(out, "profiles", s->profiles);
	put_text(out, "working_dir", s->working_dir);
	put_text(out, "container_name", s->container_name);
	put_list(out, "aliases", s->aliases);
	put_list(out, "only containers have", s->container_fields);
	put_text(out, "fault", s->fault.message);
	put_list(out, "device requests", s->container.device_requests);
	put_list(out, "networks of others", s->container.networks);
	put_list(out, "names there", s->container.network_names);
	put_text(out, "user", s->container.user);
	if (s->container.pull != PULL_MISSING)
		buffer_printf(out, "\tpulled by %d after %u s\n", s->container.pull, s->container.pull_after_s);
	for (size_t k = 0; k < s->n_grants; k++)
		buffer_printf(out, "\t%s %s at %s\n", s->grants[k].secret ? "secret" : "config", s->grants[k].source, s->grants[k].target);
	put_list(out, "extra_hosts", s->container.extra_hosts);
	for (size_t k = 0; k < s->container.n_ulimits; k++)
		buffer_printf(out, "\tulimit %s %lld %lld\n", s->container.ulimits[k].name, (long long)s->container.ulimits[k].soft, (long long)s->container.ulimits[k].hard);
	for (size_t k = 0; k < s->container.labels.count; k++)
		buffer_printf(out, "\tlabel %s=%s\n", s->container.labels.items[k].key, s->container.labels.items[k].value);
	if (s->memory_bytes || s->cpus > 0 || s->pids)
		buffer_printf(out, "\tlimits memory %llu cpus %g pids %lld\n", (unsigned long long)s->memory_bytes, s->cpus,
		              (long long)s->pids);
	if (s->stop_signal || s->stop_grace_ms >= 0)
		buffer_printf(out, "\tstop signal %d grace %lld\n", s->stop_signal, (long long)s->stop_grace_ms);
	if (s->restart != RESTART_NO)
		buffer_printf(out, "\trestart %s %u\n", policies[s->restart], s->restart_max);
	put_list(out, "x-aether.command", s->run_command);
	put_text(out, "x-aether.command as written", s->run_shell_text);
	put_probe(out, "x-aether.ready", &s->ready);
	put_keyvals(out, "x-aether.env", &s->x_env);
}

static void put_resources(struct buffer *out, const char *what, const struct config_resource *list, size_t n, bool external)
{
	cleanup_strv char **keys = NULL;
	for (size_t i = 0; i < n; i++)
		if (!external || list[i].external)
			strv_push(&keys, xstrdup(list[i].key));
	put_list(out, what, keys);
}

static void put_config(struct buffer *out, const struct config *c)
{
	buffer_printf(out, "name %s backend %s start %s up %s inherit %s rewrite %s version %s timeout %u\n",
	              c->name ? c->name : "-", c->backend, c->start == START_MANUAL ? "manual" : "on-demand",
	              c->up_on_add ? "on-add" : "no", c->inherit ? "on" : "off", c->rewrite ? "on" : "off",
	              c->version_exact ? "exact" : "any", c->timeout_ms);
	put_resources(out, "volumes", c->volumes, c->n_volumes, false);
	put_resources(out, "external volumes", c->volumes, c->n_volumes, true);
	put_resources(out, "external networks", c->networks, c->n_networks, true);
	put_list(out, "services", c->service_set);
	put_keyvals(out, "env", &c->env);
	put_keyvals(out, "port", &c->app_ports);
	for (size_t i = 0; i < c->n_more_files; i++) {
		buffer_printf(out, "env file %s\n", c->more_files[i].path);
		put_keyvals(out, "for", &c->more_files[i].services);
		put_keyvals(out, "env", &c->more_files[i].env);
	}
	for (size_t i = 0; i < c->n_services; i++)
		put_service(out, &c->services[i]);
	if (c->n_approvals)
		buffer_adds(out, "approval\n");
	for (size_t i = 0; i < c->n_approvals; i++)
		buffer_printf(out, "%s=%s\n", c->approvals[i].path, c->approvals[i].shown);
	for (size_t i = 0; i < c->n_warnings; i++)
		buffer_printf(out, "warning %s\n", c->warnings[i].text);
}

/* ---- cases ---- */

static int load(const char *root, const char *main_root, struct config **ret, struct error *err)
{
	cleanup_keyvals struct keyvals variables = KEYVALS_INIT;
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_close int fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	if (file_read(fd, "dotenv", ENVFILE_MAX, &text) == 0)
		envfile_parse(buffer_str(&text), NULL, NULL, NULL, &variables);
	const struct config_params params = {.root_fd = fd,
	                                     .root = root,
	                                     .main_root = main_root,
	                                     .variables = &variables,
	                                     .environ_ = shell_variables,
	                                     .recipes = recipes};
	return config_load(&params, ret, err);
}

static bool matches(const char *directory, const char *name, const struct buffer *actual)
{
	cleanup_free char *path = xasprintf("%s/%s", directory, name);
	cleanup_buffer struct buffer expected = BUFFER_INIT;
	if (getenv("AETHER_TEST_WRITE"))
		assert_int_equal(file_write_atomic(AT_FDCWD, path, actual->data, actual->len, 0644), 0);
	if (file_read(AT_FDCWD, path, 1 << 20, &expected) < 0) {
		print_message("%s is missing\n", path);
		return false;
	}
	if (!strcmp(buffer_str(&expected), buffer_str(actual)))
		return true;
	print_message("%s: expected\n%s\ngot\n%s\n", directory, buffer_str(&expected), buffer_str(actual));
	return false;
}

static bool valid_case(const char *directory)
{
	cleanup_error struct error err = ERROR_INIT;
	cleanup_buffer struct buffer out = BUFFER_INIT;
	struct config *c = NULL;
	if (load(directory, NULL, &c, &err) < 0) {
		print_message("%s: %s\n", directory, err.message);
		return false;
	}
	put_config(&out, c);
	config_free(c);
	return matches(directory, "expected", &out);
}

static bool invalid_case(const char *directory)
{
	cleanup_error struct error err = ERROR_INIT;
	cleanup_buffer struct buffer out = BUFFER_INIT;
	struct config *c = NULL;
	if (load(directory, NULL, &c, &err) == 0) {
		print_message("%s: no error\n", directory);
		config_free(c);
		return false;
	}
	assert_int_equal(err.code, ERROR_CONFIG_INVALID);
	assert_true(json_is_integer(json_object_get(err.details, "line")) &&
	            json_is_integer(json_object_get(err.details, "column")));
	assert_true(json_is_string(json_object_get(err.details, "file")));
	buffer_printf(&out, "%s\n", err.message);
	if (err.hint)
		buffer_printf(&out, "hint: %s\n", err.hint);
	return matches(directory, "error", &out);
}

/* ---- as docker compose prints it ---- */

/* The folder of the cases stands as @. */
static void put_shape(struct buffer *out, const json_t *shape, const char *folder)
{
	cleanup_free char *text = json_dumps(shape, JSON_INDENT(1) | JSON_SORT_KEYS | JSON_REAL_PRECISION(7));
	const char *at = text;
	for (const char *found; (found = strstr(at, folder)); at = found + strlen(folder)) {
		buffer_add(out, at, (size_t)(found - at));
		buffer_addc(out, '@');
	}
	buffer_printf(out, "%s\n", at);
}

/* Nobody can tell from the configuration that the shape was wanted, too. */
static void same_without_shape(const struct config_params *params, const struct config *with)
{
	struct config *c = NULL;
	assert_int_equal(config_load(params, &c, NULL), 0);
	assert_string_equal(c->text_hash, with->text_hash);
	assert_string_equal(c->approval_hash, with->approval_hash);
	assert_int_equal(c->n_own_warnings, c->n_warnings);
	assert_int_equal(c->n_own_warnings, with->n_own_warnings);
	for (size_t i = 0; i < c->n_warnings; i++)
		assert_string_equal(c->warnings[i].text, with->warnings[i].text);
	config_free(c);
}

static bool shape_case(const char *directory)
{
	cleanup_error struct error err = ERROR_INIT;
	cleanup_buffer struct buffer out = BUFFER_INIT, text = BUFFER_INIT;
	cleanup_keyvals struct keyvals variables = KEYVALS_INIT;
	cleanup_close int fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	cleanup_free char *folder = xstrndup(directory, (size_t)(strrchr(directory, '/') - directory));
	struct config *c = NULL;
	json_t *shape = NULL;
	if (file_read(fd, ".env", ENVFILE_MAX, &text) == 0)
		envfile_parse(buffer_str(&text), NULL, NULL, NULL, &variables);
	const struct config_params params = {
	    .root_fd = fd, .root = directory, .variables = &variables, .environ_ = shell_variables, .recipes = recipes};
	if (config_load_shape(&params, &c, &shape, &err) < 0) {
		print_message("%s: %s\n", directory, err.message);
		return false;
	}
	same_without_shape(&params, c);
	put_shape(&out, shape, folder);
	json_decref(shape);
	config_free(c);
	return matches(directory, "expected.json", &out);
}

/* Another user sees copies of the tests and of the build only, which TESTS and BUILD name. */
static char *test_data(const char *folder)
{
	const char *tests = getenv("TESTS");
	return tests ? xasprintf("%s/data/%s", tests, folder) : xasprintf(TEST_DATA "/%s", folder);
}

static void run_cases(const char *folder, bool (*run)(const char *directory), size_t at_least)
{
	cleanup_free char *path = test_data(folder);
	cleanup_closedir DIR *dir = opendir(path);
	size_t n = 0, failed = 0;
	assert_non_null(dir);
	for (struct dirent *entry; (entry = readdir(dir));) {
		cleanup_free char *directory = xasprintf("%s/%s", path, entry->d_name);
		if (entry->d_name[0] == '.')
			continue;
		n++;
		failed += !run(directory);
	}
	assert_true(n >= at_least);
	assert_int_equal(failed, 0);
}

static void valid_files_are_read(void **state)
{
	run_cases("valid", valid_case, 5);
}

static void invalid_files_are_refused_with_the_place(void **state)
{
	run_cases("invalid", invalid_case, 20);
}

/* That docker compose says the same: tests/e2e/compose_config. */
static void files_have_the_shape_of_compose(void **state)
{
	run_cases("compose", shape_case, 8);
}

/* ---- where it is looked for ---- */

static char *scratch(void)
{
	const char *tmp = getenv("TMPDIR");
	char *dir = xasprintf("%s/config.XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(dir));
	return dir;
}

static void put_file(const char *directory, const char *name, const char *text)
{
	cleanup_free char *path = xasprintf("%s/%s", directory, name);
	assert_int_equal(file_write_atomic(AT_FDCWD, path, text, strlen(text), 0644), 0);
}

static void expect_file(const char *root, const char *main_root, const char *name)
{
	cleanup_error struct error err = ERROR_INIT;
	struct config *c = NULL;
	int r = load(root, main_root, &c, &err);
	if (r < 0)
		print_message("%s\n", err.message);
	assert_int_equal(r, 0);
	const char *slash = strrchr(c->file, '/');
	assert_string_equal(slash + 1, name);
	config_free(c);
}

#define DB "services: { db: { image: 'postgres:16' } }\n"

static void names_have_an_order(void **state)
{
	static const char *const names[] = {"docker-compose.yml", "docker-compose.yaml", "compose.yml", "compose.yaml",
	                                    "aether.yaml"};
	cleanup_free char *root = scratch();
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		put_file(root, names[i], DB);
		expect_file(root, NULL, names[i]);
	}
	tree_remove(AT_FDCWD, root);
}

static void nothing_is_found_and_the_names_are_told(void **state)
{
	cleanup_free char *root = scratch();
	cleanup_error struct error err = ERROR_INIT;
	struct config *c = NULL;
	assert_int_equal(load(root, NULL, &c, &err), -EINVAL);
	assert_int_equal(err.code, ERROR_CONFIG_NOT_FOUND);
	assert_non_null(strstr(err.hint, "docker-compose.yml"));
	tree_remove(AT_FDCWD, root);
}

static void the_main_checkout_comes_second(void **state)
{
	cleanup_free char *base = scratch();
	cleanup_free char *main_root = xasprintf("%s/main", base), *root = xasprintf("%s/feature", base);
	cleanup_error struct error err = ERROR_INIT;
	struct config *c = NULL;
	assert_int_equal(mkdir(main_root, 0755) | mkdir(root, 0755), 0);
	put_file(main_root, "compose.yml", DB);
	assert_int_equal(load(root, main_root, &c, &err), 0);
	assert_string_equal(c->directory, main_root);
	config_free(c);
	put_file(root, "docker-compose.yml", DB);
	assert_int_equal(load(root, main_root, &c, &err), 0);
	assert_string_equal(c->directory, root);
	config_free(c);
	tree_remove(AT_FDCWD, base);
}

static void upwards_from_a_plain_directory(void **state)
{
	cleanup_free char *base = scratch(), *deep = xasprintf("%s/a/b", base), *root = xasprintf("%s/c", deep);
	cleanup_error struct error err = ERROR_INIT;
	struct config *c = NULL;
	assert_int_equal(dir_make(AT_FDCWD, root, 0755), 0);
	put_file(base, "compose.yaml", DB);
	cleanup_close int fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct config_params params = {.root_fd = fd, .root = root};
	assert_int_equal(config_load(&params, &c, &err), -EINVAL);
	error_release(&err);
	params.search_upwards = true;
	assert_int_equal(config_load(&params, &c, &err), 0);
	assert_string_equal(c->directory, base);
	config_free(c);
	tree_remove(AT_FDCWD, base);
}

/* ---- env_file ---- */

static const char *variable_of(const struct config *c, const char *name)
{
	return keyvals_get(&c->services[0].environment, name);
}

static void env_files_fall_back_to_the_main_checkout(void **state)
{
	cleanup_free char *base = scratch();
	cleanup_free char *main_root = xasprintf("%s/main", base), *root = xasprintf("%s/feature", base);
	cleanup_error struct error err = ERROR_INIT;
	struct config *c = NULL;
	assert_int_equal(mkdir(main_root, 0755) | mkdir(root, 0755), 0);
	put_file(main_root, "api.env", "ONE=main\n");
	put_file(root, "compose.yaml", "services: { api: { image: x, env_file: api.env } }\n");
	assert_int_equal(load(root, main_root, &c, &err), 0);
	assert_string_equal(variable_of(c, "ONE"), "main");
	config_free(c);
	put_file(root, "api.env", "ONE=own\n");
	assert_int_equal(load(root, main_root, &c, &err), 0);
	assert_string_equal(variable_of(c, "ONE"), "own");
	config_free(c);
	tree_remove(AT_FDCWD, base);
}

/* `.env` may be a virtual name, whose reading starts services: it is never opened. */
static void dot_env_is_what_the_caller_read(void **state)
{
	cleanup_free char *root = scratch();
	cleanup_error struct error err = ERROR_INIT;
	struct config *c = NULL;
	put_file(root, "dotenv", "ONE=given\n");
	put_file(root, ".env", "ONE=opened\n");
	put_file(root, "compose.yaml", "services: { api: { image: x, env_file: ./.env } }\n");
	assert_int_equal(load(root, NULL, &c, &err), 0);
	assert_string_equal(variable_of(c, "ONE"), "given");
	config_free(c);
	tree_remove(AT_FDCWD, root);
}

static void a_pipe_is_not_waited_for(void **state)
{
	cleanup_free char *root = scratch(), *path = xasprintf("%s/compose.yaml", root);
	cleanup_error struct error err = ERROR_INIT;
	struct config *c = NULL;
	assert_int_equal(mkfifo(path, 0644), 0);
	assert_int_equal(load(root, NULL, &c, &err), -EINVAL);
	assert_int_equal(err.code, ERROR_CONFIG_NOT_FOUND);
	tree_remove(AT_FDCWD, root);
}

static void the_hash_is_of_all_files(void **state)
{
	cleanup_free char *root = scratch();
	struct config *one = NULL, *two = NULL, *three = NULL;
	put_file(root, "compose.yaml", "services: { api: { image: x, env_file: api.env } }\n");
	put_file(root, "api.env", "ONE=1\n");
	assert_int_equal(load(root, NULL, &one, NULL) | load(root, NULL, &two, NULL), 0);
	assert_string_equal(one->text_hash, two->text_hash);
	put_file(root, "api.env", "ONE=2\n");
	assert_int_equal(load(root, NULL, &three, NULL), 0);
	assert_string_not_equal(one->text_hash, three->text_hash);
	config_free(one);
	config_free(two);
	config_free(three);
	tree_remove(AT_FDCWD, root);
}

/* ---- approval ---- */

static char *approval_in(const char *root, const char *yaml)
{
	cleanup_error struct error err = ERROR_INIT;
	struct config *c = NULL;
	put_file(root, "compose.yaml", yaml);
	int r = load(root, NULL, &c, &err);
	if (r < 0)
		print_message("%s\n", err.message);
	assert_int_equal(r, 0);
	struct buffer text = BUFFER_INIT;
	for (size_t i = 0; i < c->n_approvals; i++)
		buffer_printf(&text, "%s=%s\n", c->approvals[i].path, c->approvals[i].value);
	assert_int_equal(strlen(c->approval_hash), c->n_approvals ? 64 : 0);
	config_free(c);
	return buffer_detach(&text);
}

static char *approval_of(const char *yaml)
{
	cleanup_free char *root = scratch();
	char *text = approval_in(root, yaml);
	tree_remove(AT_FDCWD, root);
	return text;
}

/* The words of the file stay the same when a commit makes a link of the directory. */
static void a_context_that_a_link_leads_out_is_approved_as_such(void **state)
{
	static const char yaml[] = "services: { a: { build: in }, b: { build: { context: in, dockerfile: ../link/Dockerfile } } }\n";
	cleanup_free char *root = scratch(), *in = xasprintf("%s/in", root), *link = xasprintf("%s/link", root);
	assert_int_equal(mkdir(in, 0755), 0);
	cleanup_free char *inside = approval_in(root, yaml);
	assert_string_equal(inside, "services.a.build=\"in\"\nservices.b.build={\"context\":\"in\",\"dockerfile\":\"../link/Dockerfile\"}\n");
	assert_int_equal(rmdir(in), 0);
	assert_int_equal(symlink("/etc", in), 0);
	assert_int_equal(symlink("/etc", link), 0);
	cleanup_free char *outside = approval_in(root, yaml);
	assert_non_null(strstr(outside, "services.a.build=\"in (outside of the repository)\"\n"));
	assert_non_null(strstr(outside, "services.b.build=\"link/Dockerfile (outside of the repository)\"\n"));
	tree_remove(AT_FDCWD, root);
}

static void images_and_ports_need_no_approval(void **state)
{
	cleanup_free char *text = approval_of(
	    "services: { db: { image: 'postgres:16', ports: ['5432'], environment: { POSTGRES_PASSWORD: dev } } }\n");
	assert_string_equal(text, "");
}

static void an_engines_address_is_approved(void **state)
{
	cleanup_free char *address = approval_of("services: { db: { image: \"postgres:16\" } }\nx-aether: { backend: \"tcp://10.1.2.3:2375\" }\n");
	cleanup_free char *name = approval_of("services: { db: { image: \"postgres:16\" } }\nx-aether: { backend: docker }\n");
	assert_string_equal(address, "x-aether.backend=\"tcp://10.1.2.3:2375\"\n");
	assert_string_equal(name, "");
}

/* What a service says goes nowhere that nobody has agreed to. */
static void a_log_that_goes_elsewhere_is_approved(void **state)
{
	static const struct {
		const char *field, *approval;
	} cases[] = {
	    {"logging: { driver: json-file, options: { max-size: 10m, max-file: 3 } }", ""},
	    {"logging: { driver: none }", ""},
	    {"logging: { options: { tag: x } }", ""},
	    {"logging: { driver: syslog, options: { syslog-address: 'tcp://evil.example:514' } }", "services.a.logging={\"driver\":\"syslog\",\"options\":{\"syslog-address\":\"tcp://evil.example:514\"}}\n"},
	    {"logging: { driver: json-file, options: { path: /etc/cron.d/x } }", "services.a.logging={\"driver\":\"json-file\",\"options\":{\"path\":\"/etc/cron.d/x\"}}\n"},
	    {"logging: { driver: $DRIVER }", "services.a.logging={\"driver\":\"$DRIVER\"}\n"},
	    {"annotations: { run.oci.handler: x }", "services.a.annotations={\"run.oci.handler\":\"x\"}\n"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		cleanup_free char *compose = xasprintf("services: { a: { image: \"redis:7\", %s } }\n", cases[i].field), *text = approval_of(compose);
		assert_string_equal(text, cases[i].approval);
	}
}

static void subnets_and_options_of_networks_are_approved(void **state)
{
	cleanup_free char *text = approval_of("services: { a: { image: \"redis:7\" } }\nnetworks: { n: { labels: { a: b }, ipam: { config: [{ subnet: 10.0.0.0/8 }] }, driver_opts: { x: y } } }\n");
	assert_string_equal(text, "networks.n.driver_opts={\"x\":\"y\"}\nnetworks.n.ipam={\"config\":[{\"subnet\":\"10.0.0.0/8\"}]}\n");
}

static void what_runs_code_is_approved_whatever_its_order(void **state)
{
	cleanup_free char *one =
	    approval_of("services:\n  a: { image: x, command: run me }\n  b: { x-aether: { command: [./b] } }\n");
	cleanup_free char *two =
	    approval_of("services:\n  b: { x-aether: { command: [./b] } }\n  a: { image: x, command: [run, me] }\n");
	assert_string_equal(one, "services.a.command=[\"run\",\"me\"]\nservices.a.image=\"x\"\nservices.b.x-aether.command=[\"./b\"]\n");
	assert_string_equal(one, two);
}

static void one_line_stays_one_line(void **state)
{
	cleanup_free char *text =
	    approval_of("services:\n  a: { image: x, command: [\"a\\nservices.b.command=[]\", 'q\"'] }\n");
	assert_string_equal(text, "services.a.command=[\"a\\u000aservices.b.command=[]\",\"q\\\"\"]\nservices.a.image=\"x\"\n");
}

static void expanded_size_is_bounded(void **state)
{
	cleanup_free char *root = scratch();
	cleanup_error struct error err = ERROR_INIT;
	cleanup_buffer struct buffer text = BUFFER_INIT;
	struct config *c = NULL;
	buffer_adds(&text, "a0: &a0 [x]\n");
	for (int i = 1; i < 60; i++)
		buffer_printf(&text, "a%d: &a%d [*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d]\n", i, i, i - 1, i - 1, i - 1, i - 1,
		              i - 1, i - 1, i - 1, i - 1);
	put_file(root, "compose.yaml", buffer_str(&text));
	assert_int_equal(load(root, NULL, &c, &err), -EINVAL);
	assert_non_null(strstr(err.message, "with aliases expanded"));
	tree_remove(AT_FDCWD, root);
}

/* Two lists of many items, one laid on the other: compared each with each this takes minutes. */
static void merging_takes_no_square_of_time(void **state)
{
	cleanup_free char *root = scratch();
	cleanup_error struct error err = ERROR_INIT;
	cleanup_buffer struct buffer text = BUFFER_INIT;
	struct config *c = NULL;
	const char *const heads[] = {"services:\n  base:\n    cap_add:\n", "  own:\n    extends: base\n    cap_add:\n"};
	for (int k = 0; k < 2; k++) {
		buffer_adds(&text, heads[k]);
		for (int i = 0; i < 45000; i++)
			buffer_printf(&text, "    - x%d-%d\n", k, i);
	}
	put_file(root, "compose.yaml", buffer_str(&text));
	assert_int_equal(load(root, NULL, &c, &err), -EINVAL);
	assert_non_null(strstr(err.message, "more than 10000 items"));
	tree_remove(AT_FDCWD, root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(valid_files_are_read),
	    cmocka_unit_test(invalid_files_are_refused_with_the_place),
	    cmocka_unit_test(files_have_the_shape_of_compose),
	    cmocka_unit_test(names_have_an_order),
	    cmocka_unit_test(nothing_is_found_and_the_names_are_told),
	    cmocka_unit_test(the_main_checkout_comes_second),
	    cmocka_unit_test(upwards_from_a_plain_directory),
	    cmocka_unit_test(env_files_fall_back_to_the_main_checkout),
	    cmocka_unit_test(dot_env_is_what_the_caller_read),
	    cmocka_unit_test(a_pipe_is_not_waited_for),
	    cmocka_unit_test(the_hash_is_of_all_files),
	    cmocka_unit_test(images_and_ports_need_no_approval),
	    cmocka_unit_test(an_engines_address_is_approved),
	    cmocka_unit_test(subnets_and_options_of_networks_are_approved),
	    cmocka_unit_test(a_log_that_goes_elsewhere_is_approved),
	    cmocka_unit_test(a_context_that_a_link_leads_out_is_approved_as_such),
	    cmocka_unit_test(what_runs_code_is_approved_whatever_its_order),
	    cmocka_unit_test(one_line_stays_one_line),
	    cmocka_unit_test(expanded_size_is_bounded),
	    cmocka_unit_test(merging_takes_no_square_of_time),
	};
	const char *build = getenv("BUILD");
	cleanup_strv char **directories = NULL;
	strv_pushf(&directories, "%s/contrib", build ? build : TEST_BUILD);
	if (recipes_load(directories, &recipes, NULL) < 0 || !recipe_by_name(recipes, "postgres"))
		return 1;
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	recipes_free(recipes);
	return failed;
}
