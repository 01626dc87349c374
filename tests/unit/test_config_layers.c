/* Which files a configuration is made of, in what order, and which of them a message names. How one is laid on another:
 * tests/data/valid/local_on_top. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "provisioner/config.h"
#include "provisioner/recipe.h"

static char *base, *root, *main_root;
static struct keyvals user; /* lines of `.env` */
static struct recipes *recipes;

static int fresh(void **state)
{
	const char *tmp = getenv("TMPDIR");
	base = xasprintf("%s/layers.XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(base));
	root = xasprintf("%s/feature", base);
	main_root = xasprintf("%s/main", base);
	return mkdir(root, 0755) | mkdir(main_root, 0755);
}

static int tidy(void **state)
{
	tree_remove(AT_FDCWD, base);
	free(base);
	free(root);
	free(main_root);
	keyvals_release(&user);
	return 0;
}

static void put(const char *directory, const char *name, const char *text)
{
	cleanup_free char *path = xasprintf("%s/%s", directory, name), *parent = xasprintf("%s/infra", directory);
	assert_int_equal(dir_make(AT_FDCWD, parent, 0755), 0);
	assert_int_equal(file_write_atomic(AT_FDCWD, path, text, strlen(text), 0644), 0);
}

static int load_with(struct config **ret, struct error *err)
{
	cleanup_close int fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	const struct config_params params = {.root_fd = fd, .root = root, .main_root = main_root, .variables = &user, .recipes = recipes};
	return config_load(&params, ret, err);
}

/* What was read can be read again when nothing of it is there any more. */
static void is_the_same_again(const struct config *c, json_t *record)
{
	cleanup_free char *aside = xasprintf("%s/empty", base);
	cleanup_error struct error err = ERROR_INIT;
	struct config *again = NULL;
	assert_true(mkdir(aside, 0755) == 0 || errno == EEXIST);
	cleanup_close int fd = open(aside, O_PATH | O_DIRECTORY | O_CLOEXEC);
	const struct config_params params = {.root_fd = fd, .root = root, .main_root = main_root, .variables = &user, .recipes = recipes, .record = record, .again = true};
	if (config_load(&params, &again, &err) < 0)
		fail_msg("again: %s", err.message);
	assert_string_equal(again->text_hash, c->text_hash);
	assert_int_equal(again->n_files, c->n_files);
	for (size_t i = 0; i < c->n_files; i++)
		assert_string_equal(again->files[i].path, c->files[i].path);
	config_free(again);
}

static struct config *loaded(void)
{
	struct config *c = NULL;
	cleanup_error struct error err = ERROR_INIT;
	cleanup_close int fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	json_t *record = json_object();
	const struct config_params params = {.root_fd = fd, .root = root, .main_root = main_root, .variables = &user, .recipes = recipes, .record = record};
	if (config_load(&params, &c, &err) < 0)
		fail_msg("%s", err.message);
	is_the_same_again(c, record);
	json_decref(record);
	return c;
}

static void expect_failure(const char *says, const char *in)
{
	struct config *c = NULL;
	cleanup_error struct error err = ERROR_INIT;
	assert_int_equal(load_with(&c, &err), -EINVAL);
	assert_int_equal(err.code, ERROR_CONFIG_INVALID);
	if (strncmp(err.message, says, strlen(says)) != 0)
		fail_msg("expected %s, got %s", says, err.message);
	assert_string_equal(json_string_value(json_object_get(err.details, "file")), in);
}

static const char *value(const struct config *c, const char *key)
{
	return keyvals_get(&c->services[0].environment, key);
}

static void the_workspaces_lies_on_the_main_checkouts(void **state)
{
	put(root, "compose.yaml", "services: { db: { image: a, environment: { X: team, Y: team, Z: team } } }\n");
	put(main_root, "aether.local.yaml", "services: { db: { environment: { Y: main, Z: main } } }\n");
	put(root, "aether.local.yaml", "services: { db: { environment: { Z: own } } }\n");
	struct config *c = loaded();
	assert_string_equal(value(c, "X"), "team");
	assert_string_equal(value(c, "Y"), "main");
	assert_string_equal(value(c, "Z"), "own");
	assert_int_equal(c->n_files, 3);
	cleanup_free char *team = xasprintf("%s/compose.yaml", root), *of_main = xasprintf("%s/aether.local.yaml", main_root),
	                  *own = xasprintf("%s/aether.local.yaml", root);
	assert_string_equal(c->file, team);
	assert_string_equal(c->files[0].path, team);
	assert_string_equal(c->files[1].path, of_main);
	assert_string_equal(c->files[2].path, own);
	cleanup_free char *hash = xstrdup(c->text_hash);
	config_free(c);
	put(main_root, "aether.local.yaml", "services: { db: { environment: { Y: other } } }\n");
	c = loaded();
	assert_string_not_equal(c->text_hash, hash);
	config_free(c);
}

static void a_message_names_the_file_it_is_about(void **state)
{
	cleanup_free char *of_main = xasprintf("%s/aether.local.yaml", main_root), *own = xasprintf("%s/aether.local.yaml", root),
	                  *team = xasprintf("%s/compose.yaml", root);
	put(root, "compose.yaml", "services:\n  db: { image: a, ports: [tcp] }\n");
	put(root, "aether.local.yaml", "services:\n  web: { image: b }\n");
	expect_failure("compose.yaml:2:27: services.db.ports[0]", team);
	put(root, "compose.yaml", "services:\n  db: { image: a }\n");
	put(root, "aether.local.yaml", "services:\n  web: { image: b, ports: [tcp] }\n");
	expect_failure("aether.local.yaml:2:", own);
	put(root, "aether.local.yaml", "services: [\n");
	expect_failure("aether.local.yaml:", own);
	put(root, "aether.local.yaml", "");
	put(main_root, "aether.local.yaml", "services: { db: { depends_on: [nobody] } }\n");
	cleanup_free char *says = xasprintf("%s:1:", of_main);
	expect_failure(says, of_main);
	put(main_root, "aether.local.yaml", "services: { db: { unheard: 1 } }\n");
	struct config *c = loaded();
	assert_int_equal(c->n_warnings, 1);
	assert_int_equal(strncmp(c->warnings[0].text, says, strlen(says)), 0);
	config_free(c);
}

static void a_local_file_names_the_compose_files(void **state)
{
	put(root, "compose.yaml", "services: { wrong: { image: a } }\n");
	put(root, "infra/dev.yml", "services: { db: { image: 'postgres:16', env_file: dev.env, volumes: ['./d:/d', '../up:/u'] } }\n");
	put(root, "infra/dev.env", "FROM=infra\n");
	put(main_root, "infra/more.yml", "services: { db: { environment: { MORE: main } } }\n"); /* not tracked */
	put(main_root, "aether.local.yaml", "x-aether: { compose: [infra/dev.yml, ./infra/more.yml] }\n");
	struct config *c = loaded();
	assert_int_equal(c->n_services, 1);
	assert_string_equal(c->services[0].name, "db");
	assert_string_equal(value(c, "FROM"), "infra");
	assert_string_equal(value(c, "MORE"), "main");
	assert_string_equal(c->subdirectory, "infra");
	assert_string_equal(c->approval_hash, ""); /* ../up is inside */
	cleanup_free char *file = xasprintf("%s/infra/dev.yml", root), *more = xasprintf("%s/infra/more.yml", main_root);
	assert_string_equal(c->file, file);
	assert_int_equal(c->n_files, 3);
	assert_string_equal(c->files[1].path, more);
	config_free(c);

	/* the workspace's own word counts */
	put(root, "aether.local.yaml", "x-aether: { compose: compose.yaml }\n");
	c = loaded();
	assert_string_equal(c->services[0].name, "wrong");
	config_free(c);
	put(root, "aether.local.yaml", "x-aether:\n  compose: [infra/gone.yml]\n");
	cleanup_free char *own = xasprintf("%s/aether.local.yaml", root);
	expect_failure("aether.local.yaml:2:13: x-aether.compose[0]: infra/gone.yml: No such file", own);
	put(root, "aether.local.yaml", "x-aether: { compose: [../elsewhere.yml] }\n");
	expect_failure("aether.local.yaml:1:23: x-aether.compose[0]: expected a file of this repository", own);
}

static void aether_yaml_lies_on_what_it_names(void **state)
{
	put(root, "aether.yaml", "x-aether: { compose: infra/dev.yml, backend: process }\nservices: { db: { image: b } }\n");
	put(root, "infra/dev.yml", "services: { db: { image: a, environment: { X: '1' } } }\n");
	struct config *c = loaded();
	assert_string_equal(c->services[0].image, "b");
	assert_string_equal(value(c, "X"), "1");
	assert_string_equal(c->backend, "process");
	cleanup_free char *directory = xasprintf("%s/infra", root);
	assert_string_equal(c->directory, directory);
	config_free(c);
	put(root, "aether.yaml", "x-aether: { compose: [aether.yaml, infra/dev.yml] }\nservices: { db: { image: b, profiles: [p] } }\n");
	c = loaded();
	assert_int_equal(c->n_files, 2);
	assert_string_equal(c->services[0].image, "b");
	assert_int_equal(strv_len(c->services[0].profiles), 1);
	config_free(c);
}

static void a_local_file_is_enough(void **state)
{
	put(main_root, "aether.local.yaml", "services: { db: { image: a } }\n");
	struct config *c = loaded();
	assert_string_equal(c->services[0].image, "a");
	assert_string_equal(c->directory, main_root);
	config_free(c);
	put(root, "aether.local.yaml", "services: { db: { image: b } }\n");
	c = loaded();
	assert_string_equal(c->services[0].image, "b");
	assert_string_equal(c->directory, root);
	config_free(c);
}

/* ---- as docker compose finds them ---- */

static void expect_files(const struct config *c, const char *const *names)
{
	size_t n = 0;
	for (; names[n]; n++) {
		cleanup_free char *path = xasprintf("%s/%s", base, names[n]);
		if (n >= c->n_files)
			fail_msg("%s was not read", path);
		assert_string_equal(c->files[n].path, path);
	}
	if (c->n_files > n)
		fail_msg("%s was read", c->files[n].path);
}

#define expect_files(c, ...) expect_files(c, (const char *const[]){__VA_ARGS__, NULL})

static void an_override_lies_beside_what_was_found(void **state)
{
	static const char *const names[] = {"docker-compose.override.yaml", "docker-compose.override.yml", "compose.override.yaml",
	                                    "compose.override.yml"}; /* each wins over those before it */
	put(root, "docker-compose.yml", "services: { db: { image: a, environment: { X: team, Y: team, Z: team } } }\n");
	put(root, "aether.local.yaml", "services: { db: { environment: { Z: own } } }\n");
	for (size_t i = 0; i < 4; i++) {
		cleanup_free char *text = xasprintf("services: { db: { environment: { Y: '%zu', Z: over } } }\n", i), *number = xasprintf("%zu", i),
		                  *path = xasprintf("feature/%s", names[i]);
		put(root, names[i], text);
		struct config *c = loaded();
		assert_string_equal(value(c, "X"), "team");
		assert_string_equal(value(c, "Y"), number);
		assert_string_equal(value(c, "Z"), "own");
		expect_files(c, "feature/docker-compose.yml", path, "feature/aether.local.yaml");
		config_free(c);
	}
}

static void an_override_may_be_the_main_checkouts(void **state)
{
	cleanup_free char *over = xasprintf("%s/compose.override.yaml", main_root);
	put(root, "compose.yaml", "services: { db: { image: a } }\n");
	put(main_root, "compose.yaml", "services: { wrong: { image: a } }\n");
	put(main_root, "compose.override.yaml", "services: { db: { environment: { X: main } } }\n");
	struct config *c = loaded();
	expect_files(c, "feature/compose.yaml", "main/compose.override.yaml");
	assert_string_equal(value(c, "X"), "main");
	config_free(c);
	put(main_root, "compose.override.yaml", "services: { db: { ports: [x] } }\n");
	cleanup_free char *says = xasprintf("%s:1:27: services.db.ports[0]", over);
	expect_failure(says, over);
	put(root, "compose.override.yml", "services: { db: { environment: { X: own } } }\n");
	c = loaded();
	expect_files(c, "feature/compose.yaml", "feature/compose.override.yml");
	config_free(c);
}

static void named_files_have_no_override(void **state)
{
	put(root, "compose.yaml", "services: { db: { image: a } }\n");
	put(root, "compose.override.yaml", "services: { db: { image: over } }\n");
	put(root, "aether.yaml", "x-aether: { compose: compose.yaml }\n");
	struct config *c = loaded();
	expect_files(c, "feature/compose.yaml", "feature/aether.yaml");
	config_free(c);
	put(root, "aether.yaml", "services: { db: { image: a } }\n");
	c = loaded();
	expect_files(c, "feature/aether.yaml");
	config_free(c);
	cleanup_free char *path = xasprintf("%s/aether.yaml", root);
	unlink(path);
	keyvals_set(&user, "COMPOSE_FILE", "compose.yaml");
	c = loaded();
	expect_files(c, "feature/compose.yaml");
	config_free(c);
}

static void the_users_env_names_files(void **state)
{
	put(root, "compose.yaml", "services: { wrong: { image: a } }\n");
	put(root, "infra/dev.yml", "services: { db: { image: a, env_file: dev.env } }\n");
	put(root, "infra/dev.env", "FROM=infra\n");
	put(main_root, "more.yml", "services: { db: { environment: { MORE: main } } }\n");
	put(root, "aether.local.yaml", "services: { db: { environment: { OWN: '1' } } }\n");
	static const char *const values[][2] = {{"infra/dev.yml:more.yml", NULL}, {"./infra//dev.yml:more.yml:", ""}, {"infra/dev.yml;more.yml", ";"}};
	for (size_t i = 0; i < 3; i++) {
		keyvals_set(&user, "COMPOSE_FILE", values[i][0]);
		keyvals_set(&user, "COMPOSE_PATH_SEPARATOR", values[i][1]);
		struct config *c = loaded();
		expect_files(c, "feature/infra/dev.yml", "main/more.yml", "feature/aether.local.yaml");
		assert_string_equal(c->subdirectory, "infra");
		assert_string_equal(value(c, "FROM"), "infra");
		assert_string_equal(value(c, "MORE"), "main");
		assert_string_equal(value(c, "OWN"), "1");
		assert_null(strstr(c->approvals[0].path, "config_files"));
		config_free(c);
	}
	cleanup_free char *absolute = xasprintf("%s/infra/dev.yml", root);
	keyvals_set(&user, "COMPOSE_FILE", absolute);
	struct config *c = loaded();
	assert_string_equal(c->services[0].name, "db");
	config_free(c);
	put(root, "aether.local.yaml", "x-aether: { compose: compose.yaml }\n"); /* the nearer word */
	c = loaded();
	assert_string_equal(c->services[0].name, "wrong");
	config_free(c);
}

static void a_file_that_we_made_is_not_named(void **state)
{
	cleanup_free char *absolute = xasprintf("%s/.aether/compose.yaml", root);
	const char *const values[] = {".aether/compose.yaml", absolute, "./.aether/compose.yaml:more.yml", ""};
	put(root, "compose.yaml", "services: { db: { image: a } }\n");
	for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
		keyvals_set(&user, "COMPOSE_FILE", values[i]);
		struct config *c = loaded();
		expect_files(c, "feature/compose.yaml");
		config_free(c);
	}
}

static void a_named_file_outside_is_a_matter_of_trust(void **state)
{
	cleanup_free char *outside = xasprintf("%s/shared", base);
	put(root, "compose.yaml", "services: { db: { image: a } }\n");
	put(outside, "dev.yml", "services: { db: { image: 'postgres:16', env_file: dev.env } }\n");
	put(outside, "dev.env", "POSTGRES_USER=shared\n");
	keyvals_set(&user, "COMPOSE_FILE", "../shared/dev.yml");
	struct config *c = loaded();
	expect_files(c, "shared/dev.yml");
	assert_string_equal(value(c, "POSTGRES_USER"), "shared");
	bool approved = false;
	for (size_t i = 0; i < c->n_approvals; i++)
		approved = approved || (!strcmp(c->approvals[i].path, "config_files") && !strcmp(c->approvals[i].value, "\"../shared/dev.yml\""));
	assert_true(approved);
	config_free(c);
	keyvals_set(&user, "COMPOSE_FILE", "gone.yml");
	cleanup_error struct error err = ERROR_INIT;
	assert_int_equal(load_with(&c, &err), -EINVAL);
	assert_string_equal(err.message, "COMPOSE_FILE of .env: gone.yml: No such file or directory");
}

static void what_is_included_is_found_like_the_rest(void **state)
{
	cleanup_free char *outside = xasprintf("%s/shared", base);
	put(root, "compose.yaml", "include: [infra/db.yml, ../shared/cache.yml]\nservices: { web: { extends: { file: infra/common.yml, service: web } } }\n");
	put(main_root, "infra/db.yml", "services: { db: { image: 'postgres:16', volumes: ['./seed:/docker-entrypoint-initdb.d'] } }\n"); /* not tracked */
	put(main_root, "infra/seed", "select 1;\n");
	put(root, "infra/common.yml", "services: { web: { environment: { X: '1' } } }\n");
	put(outside, "cache.yml", "services: { cache: { image: 'redis:7' } }\n");
	struct config *c = loaded();
	expect_files(c, "feature/compose.yaml", "feature/infra/common.yml", "main/infra/db.yml", "shared/cache.yml");
	assert_string_equal(value(c, "X"), "1");
	assert_int_equal(c->n_services, 3);
	assert_string_equal(config_service(c, "db")->volumes[0].source, "./infra/seed");
	assert_non_null(config_service(c, "db")->volumes[0].digest);
	assert_string_equal(c->approvals[0].path, "config_files");
	assert_string_equal(c->approvals[0].value, "\"../shared/cache.yml\"");
	cleanup_free char *hash = xstrdup(c->text_hash), *approved = xstrdup(c->approval_hash);
	config_free(c);
	put(outside, "cache.yml", "services: { cache: { image: 'redis:7', command: other } }\n");
	c = loaded();
	assert_string_not_equal(c->text_hash, hash);
	assert_string_not_equal(c->approval_hash, approved);
	config_free(c);
	put(outside, "cache.yml", "services: { cache: { image: 'redis:7', ports: [x] } }\n");
	cleanup_free char *file = xasprintf("%s/cache.yml", outside), *says = xasprintf("%s:1:48: services.cache.ports[0]", file);
	expect_failure(says, file);
}

static void the_users_env_names_profiles(void **state)
{
	put(root, "compose.yaml", "services: { db: { image: a, profiles: [p] } }\n");
	keyvals_set(&user, "COMPOSE_PROFILES", " one, two,,");
	struct config *c = loaded();
	assert_int_equal(strv_len(c->profiles), 2);
	assert_string_equal(c->profiles[0], "one");
	assert_string_equal(c->profiles[1], "two");
	config_free(c);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, fresh, tidy)

/* The names of the services in the shape, a blank behind each. new */
static char *shaped(bool whole)
{
	cleanup_close int fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	const struct config_params params = {.root_fd = fd, .root = root, .main_root = main_root, .variables = &user, .recipes = recipes, .whole_shape = whole};
	cleanup_error struct error err = ERROR_INIT;
	struct config *c = NULL;
	json_t *shape = NULL, *service;
	const char *name;
	char *names = xstrdup("");
	if (config_load_shape(&params, &c, &shape, &err) < 0)
		fail_msg("%s", err.message);
	json_object_foreach (json_object_get(shape, "services"), name, service) {
		cleanup_free char *before = names;
		names = xasprintf("%s%s ", before, name);
	}
	json_decref(shape);
	config_free(c);
	return names;
}

static void a_whole_shape_has_what_is_not_active(void **state)
{
	put(root, "compose.yaml", "services: { db: { image: a }, debug: { image: b, profiles: [tools] } }\n");
	cleanup_free char *active = shaped(false), *whole = shaped(true);
	assert_string_equal(active, "db ");
	assert_string_equal(whole, "db debug ");
}

static void what_is_wrong_with_the_inactive_costs_no_other_its_shape(void **state)
{
	put(root, "compose.yaml", "services: { db: { image: a }, debug: { image: b, profiles: [tools], develop: [1] } }\n");
	cleanup_free char *whole = shaped(true);
	assert_string_equal(whole, "db ");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    CASE(the_workspaces_lies_on_the_main_checkouts),
	    CASE(a_message_names_the_file_it_is_about),
	    CASE(a_local_file_names_the_compose_files),
	    CASE(aether_yaml_lies_on_what_it_names),
	    CASE(a_local_file_is_enough),
	    CASE(an_override_lies_beside_what_was_found),
	    CASE(an_override_may_be_the_main_checkouts),
	    CASE(named_files_have_no_override),
	    CASE(the_users_env_names_files),
	    CASE(a_file_that_we_made_is_not_named),
	    CASE(a_named_file_outside_is_a_matter_of_trust),
	    CASE(what_is_included_is_found_like_the_rest),
	    CASE(the_users_env_names_profiles),
	    CASE(a_whole_shape_has_what_is_not_active),
	    CASE(what_is_wrong_with_the_inactive_costs_no_other_its_shape),
	};
	const char *build = getenv("BUILD");
	cleanup_strv char **directories = NULL;
	strv_pushf(&directories, "%s/contrib", build ? build : TEST_BUILD);
	if (recipes_load(directories, &recipes, NULL) < 0)
		return 1;
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	recipes_free(recipes);
	return failed;
}
