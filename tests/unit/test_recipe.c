/* Recipes: the project's own as they are, and others made up here, over programs made up here. */
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
#include "base/file.h"
#include "provisioner/recipe.h"
#include "provisioner/template.h"

static char *scratch(void)
{
	const char *tmp = getenv("TMPDIR");
	char *dir = xasprintf("%s/recipe.XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(dir));
	return dir;
}

static void put_file(const char *path, const char *text, mode_t mode)
{
	cleanup_free char *directory = xstrndup(path, (size_t)(strrchr(path, '/') - path));
	assert_int_equal(dir_make(AT_FDCWD, directory, 0755), 0);
	assert_int_equal(file_write_atomic(AT_FDCWD, path, text, strlen(text), mode), 0);
}

static struct recipes *load(const char *one, const char *two)
{
	char *const directories[] = {(char *)(uintptr_t)one, (char *)(uintptr_t)two, NULL};
	cleanup_error struct error err = ERROR_INIT;
	struct recipes *rs = NULL;
	int r = recipes_load(directories, &rs, &err);
	if (r < 0)
		print_message("%s\n", err.message);
	assert_int_equal(r, 0);
	return rs;
}

/* As copied into the build, where the programs look for them. */
static struct recipes *ours(void)
{
	const char *build = getenv("BUILD");
	cleanup_free char *directory = xasprintf("%s/contrib", build ? build : TEST_BUILD);
	return load(directory, NULL);
}

/* ---- images ---- */

static void images_have_recipes(void **state)
{
	static const struct {
		const char *image, *recipe;
	} cases[] = {
	    {"postgres", "postgres"},
	    {"postgres:16", "postgres"},
	    {"postgres:16-alpine", "postgres"},
	    {"postgres@sha256:0123", "postgres"},
	    {"library/postgres:15", "postgres"},
	    {"docker.io/library/postgres:15", "postgres"},
	    {"docker.io/postgres", "postgres"},
	    {"localhost:5000/postgres:15", "postgres"},
	    {"localhost/postgres", "postgres"},
	    {"public.ecr.aws/docker/library/redis:7", "redis"},
	    {"redis:7.2-bookworm", "redis"},
	    {"valkey/valkey:8", "redis"},
	    {"ghcr.io/valkey/valkey", "redis"},
	    {"postgis/postgis:16-3.4-alpine", "postgres"},
	    {"pgvector/pgvector:pg16", "postgres"},
	    {"somebody/postgres", NULL},
	    {"ghcr.io/somebody/redis:7", NULL},
	    {"postgresql", NULL},
	    {"", NULL},
	};
	struct recipes *rs = ours();
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const struct recipe *r = recipe_for_image(rs, cases[i].image);
		if (!r != !cases[i].recipe || (r && strcmp(r->name, cases[i].recipe)))
			fail_msg("%s: %s", cases[i].image, r ? r->name : "none");
	}
	recipes_free(rs);
}

static void tags_have_majors(void **state)
{
	static const struct {
		const char *image, *major;
	} cases[] = {{"postgres:16", "16"},
	             {"postgres:16.2-alpine", "16"},
	             {"postgres:9.6", "9"},
	             {"x:5000/postgres", NULL},
	             {"x:5000/postgres:15@sha256:0", "15"},
	             {"postgres", NULL},
	             {"postgres:latest", NULL},
	             {"postgres:v3", NULL},
	             {"postgres:20240101", NULL}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		cleanup_free char *major = recipe_image_major(cases[i].image);
		if (!major != !cases[i].major || (major && strcmp(major, cases[i].major)))
			fail_msg("%s: %s", cases[i].image, major ? major : "none");
	}
}

/* The start-up message says its own length first; the protocol is 3.0. */
static void postgres_is_asked_in_its_protocol(void **state)
{
	struct recipes *rs = ours();
	const struct config_probe *p = &recipe_by_name(rs, "postgres")->ready;
	const unsigned char *bytes = (const unsigned char *)p->send;
	assert_int_equal(p->kind, PROBE_TCP);
	assert_int_equal(bytes[0] << 24 | bytes[1] << 16 | bytes[2] << 8 | bytes[3], p->send_len);
	assert_memory_equal(bytes + 4, "\0\3\0\0user\0postgres\0\0", 19);
	assert_string_equal(p->expect[0], "R");
	assert_null(p->expect[1]);
	p = &recipe_by_name(rs, "redis")->ready;
	assert_string_equal(p->send, "PING\r\n");
	recipes_free(rs);
}

/* ---- a recipe's templates ---- */

static const char *given(void *arg, const char *name)
{
	const struct keyvals *kv = arg;
	const char *value = keyvals_get(kv, name);
	return value || strncmp(name, "env.", 4) ? value : "";
}

static void expect_url(const char *recipe, const char *environment, const char *expected)
{
	struct recipes *rs = ours();
	const struct recipe *r = recipe_by_name(rs, recipe);
	cleanup_keyvals struct keyvals kv = KEYVALS_INIT;
	cleanup_strv char **pairs = NULL;
	cleanup_free char *url = NULL;
	keyvals_set(&kv, "host", "127.0.0.1");
	keyvals_set(&kv, "port", "20001");
	keyvals_set(&kv, "secret", "s3cret");
	keyvals_set(&kv, "args.requirepass", "");
	assert_int_equal(config_split_words(environment, &pairs, NULL), 0);
	for (char **p = pairs; *p; p++) {
		char *equals = strchr(*p, '=');
		*equals = '\0';
		keyvals_set(&kv, *p, equals + 1);
	}
	for (size_t i = 0; i < r->defaults.count; i++) {
		cleanup_free char *value = NULL;
		assert_int_equal(template_expand(r->defaults.items[i].value, given, &kv, &value, NULL), 0);
		keyvals_set(&kv, r->defaults.items[i].key, value);
	}
	assert_int_equal(template_expand(r->url, given, &kv, &url, NULL), 0);
	assert_string_equal(url, expected);
	recipes_free(rs);
}

static void urls_follow_the_environment(void **state)
{
	expect_url("postgres", "env.POSTGRES_PASSWORD=dev", "postgresql://postgres:dev@127.0.0.1:20001/postgres");
	expect_url("postgres", "env.POSTGRES_PASSWORD='p@ss/w:rd' env.POSTGRES_USER=app",
	           "postgresql://app:p%40ss%2Fw%3Ard@127.0.0.1:20001/app");
	expect_url("postgres", "env.POSTGRES_USER=app env.POSTGRES_DB='my db'",
	           "postgresql://app:s3cret@127.0.0.1:20001/my%20db");
	expect_url("redis", "", "redis://127.0.0.1:20001");
	expect_url("redis", "args.requirepass=p@ss", "redis://default:p%40ss@127.0.0.1:20001");
}

/* ---- arguments ---- */

static void expect_arguments(const char *command, bool whole, const char *expected)
{
	char one[] = "redis-server", two[] = "valkey-server";
	char *programs[] = {one, two, NULL};
	const struct recipe r = {.programs = programs};
	cleanup_strv char **words = NULL, **args = NULL;
	assert_int_equal(config_split_words(command, &words, NULL), 0);
	struct config_service s = {.command = words};
	if (recipe_arguments(&r, &s, &args) != whole)
		fail_msg("%s: %s", command, whole ? "in part" : "whole");
	cleanup_free char *joined = config_join_words(args);
	assert_string_equal(joined, expected);
}

static void commands_give_arguments(void **state)
{
	expect_arguments("", true, "");
	expect_arguments("redis-server", true, "");
	expect_arguments("redis-server --save '' --appendonly yes", true, "'--save' '' '--appendonly' 'yes'");
	expect_arguments("/usr/local/bin/valkey-server --port 1", true, "'--port' '1'");
	expect_arguments("--appendonly yes", true, "'--appendonly' 'yes'");
	expect_arguments("docker-entrypoint.sh redis-server --a b", true, "'--a' 'b'");
	expect_arguments("redis-server /etc/redis.conf --a b", false, "'--a' 'b'");
	expect_arguments("sh -c 'redis-server --a b'", false, "");
	expect_arguments("other-server --a", false, "");
}

static void an_entrypoint_of_its_own_is_not_had(void **state)
{
	char program[] = "/start.sh";
	char *entrypoint[] = {program, NULL};
	const struct recipe r = {.programs = entrypoint};
	const struct config_service s = {.entrypoint = entrypoint};
	cleanup_strv char **args = NULL;
	assert_false(recipe_arguments(&r, &s, &args));
	assert_non_null(args);
}

static void expect_serves(const char *image, bool serves, const char *entrypoint, const char *command)
{
	struct recipes *rs = ours();
	cleanup_strv char **before = NULL, **words = NULL;
	assert_int_equal(config_split_words(entrypoint, &before, NULL), 0);
	assert_int_equal(config_split_words(command, &words, NULL), 0);
	const struct config_service s = {.image = (char *)image, .entrypoint = before, .command = words};
	if ((recipe_for_service(rs, &s) != NULL) != serves)
		fail_msg("%s: '%s' '%s' is %s", image, entrypoint, command, serves ? "not the server" : "the server");
	recipes_free(rs);
}

static void a_client_is_no_server(void **state)
{
	static const struct {
		const char *image, *entrypoint, *command;
		bool serves;
	} cases[] = {
	    {"redis:7", "", "", true},
	    {"redis:7", "", "redis-server --save ''", true},
	    {"redis:7", "", "--appendonly yes", true},
	    {"redis:7", "", "/usr/local/etc/redis/redis.conf", true},
	    {"redis:7", "", "sh -c 'exec redis-server --requirepass \"$PASS\"'", true},
	    {"redis:7", "", "/bin/sh -ec 'mkdir -p /x && nice -n 10 /usr/bin/redis-server; echo'", true},
	    {"valkey/valkey:8", "tini --", "valkey-server", true},
	    {"redis:7", "/wait-for-it.sh a:1 -- redis-server", "", true},
	    {"redis:7", "", "redis-cli -h redis set a 1", false},
	    {"redis:7", "redis-cli", "-h redis set a 1", false},
	    {"redis:7", "", "sh -c 'until redis-cli -h redis ping; do sleep 1; done'", false},
	    {"redis:7", "", "docker-entrypoint.sh redis-cli ping", false},
	    {"redis:7", "/seed.sh", "", false},
	    {"postgres:16", "", "-c fsync=off", true},
	    {"postgres:16", "docker-entrypoint.sh", "-c fsync=off", true},
	    {"postgres:16", "docker-entrypoint.sh", "", true},
	    {"postgres:16", "/wrapper.sh", "postgres -c fsync=off", true},
	    {"postgres:16", "", "bash -c 'chown -R a /b; exec docker-entrypoint.sh -c ssl=on'", true},
	    {"postgres:16", "", "bash -c 'if true; then su postgres -c \"postgres -D /x\"; fi'", true},
	    {"postgres:16", "", "gosu postgres postgres", true},
	    {"postgres:16", "", "psql -h db -U postgres postgres", false},
	    {"postgres:16", "", "psql postgres://postgres@db/postgres -f /a.sql", false},
	    {"postgres:16", "sh -c", "'until pg_isready -h db -U postgres; do sleep 1; done; psql -h db postgres'", false},
	    {"postgres:16", "", "psql -h db -c 'create table a(x int); select 1' postgres", false},
	    {"postgres:16", "", "sh -c 'psql -h db -c \"create table a(x int);\" postgres && echo done'", false},
	    {"postgres:16", "", "createdb -h db -O postgres app", false},
	    {"postgres:16", "", "gosu postgres psql -h db", false},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		expect_serves(cases[i].image, cases[i].serves, cases[i].entrypoint, cases[i].command);
}

/* What it starts nobody knows: the service says what it is. */
static void a_script_serves_where_a_server_is_wanted(void **state)
{
	char *script[] = {(char *)"/start.sh", NULL}, *client[] = {(char *)"redis-cli", NULL};
	struct config_port port = {.internal = 6379}, other = {.internal = 80};
	struct config_volume data = {.target = (char *)"/data"}, beside = {.target = (char *)"/database"};
	struct recipes *rs = ours();
	const struct {
		struct config_service s;
		bool serves;
	} cases[] = {
	    {{.command = script, .ports = &port, .n_ports = 1}, true},
	    {{.command = client, .ports = &port, .n_ports = 1}, true},
	    {{.command = script, .expose = &port, .n_expose = 1}, true},
	    {{.command = script, .ports = &other, .n_ports = 1}, false},
	    {{.command = script, .volumes = &data, .n_volumes = 1}, true},
	    {{.command = script, .volumes = &beside, .n_volumes = 1}, false},
	    {{.command = client, .volumes = &data, .n_volumes = 1}, false},
	    {{.command = script, .healthcheck.kind = PROBE_EXEC}, true},
	    {{.command = script}, false},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		if (recipe_serves(recipe_by_name(rs, "redis"), &cases[i].s) != cases[i].serves)
			fail_msg("case %zu", i);
	recipes_free(rs);
}

static void arguments_have_values(void **state)
{
	cleanup_strv char **args = NULL;
	assert_int_equal(
	    config_split_words("--requirepass one --appendonly=yes -c max_connections=200 --requirepass two --last", &args,
	                       NULL),
	    0);
	assert_string_equal(recipe_argument(args, "requirepass"), "two");
	assert_string_equal(recipe_argument(args, "appendonly"), "yes");
	assert_string_equal(recipe_argument(args, "max_connections"), "200");
	assert_null(recipe_argument(args, "last"));
	assert_null(recipe_argument(args, "require"));
	assert_null(recipe_argument(NULL, "a"));
}

/* ---- programs of this machine ---- */

static const char recipe_text[] = "images: [db]\n"
                                  "process:\n"
                                  "  program: [db-server, other-server]\n"
                                  "  paths: [\"%s/lib/db/*/bin\", \"%s/opt/db/bin\"]\n"
                                  "  package: db-{{major ?? \"server\"}}\n"
                                  "  version: { pattern: '/db/([0-9]+)/bin$|v=([0-9]+)', arguments: [--version] }\n"
                                  "  command: [\"{{bin}}/db-server\"]\n";

static struct recipes *made_up(const char *base)
{
	cleanup_free char *path = xasprintf("%s/recipes/db.yaml", base), *directory = xasprintf("%s/recipes", base);
	cleanup_buffer struct buffer text = BUFFER_INIT;
	for (const char *at = recipe_text; *at; at++)
		if (at[0] == '%' && at[1] == 's')
			buffer_adds(&text, base), at++;
		else
			buffer_addc(&text, *at);
	put_file(path, buffer_str(&text), 0644);
	return load(directory, NULL);
}

static void install(const char *base, const char *directory, const char *script)
{
	cleanup_free char *path = xasprintf("%s/%s/db-server", base, directory);
	put_file(path, script ? script : "#!/bin/sh\nexit 1\n", 0755);
}

static void expect_program(struct recipes *rs, const char *base, const char *wanted, const char *directory,
                           const char *major)
{
	cleanup_free char *found = NULL, *version = NULL, *expected = xasprintf("%s/%s", base, directory);
	cleanup_error struct error err = ERROR_INIT;
	int r = recipe_find_program(rs, recipe_by_name(rs, "db"), wanted, &found, &version, &err);
	if (r < 0)
		print_message("%s\n", err.message);
	assert_int_equal(r, 0);
	assert_string_equal(found, expected);
	assert_string_equal(version, major);
}

static void the_nearest_version_is_taken(void **state)
{
	cleanup_free char *base = scratch();
	struct recipes *rs = made_up(base);
	install(base, "lib/db/13/bin", NULL);
	install(base, "lib/db/15/bin", NULL);
	install(base, "lib/db/9/bin", NULL);
	expect_program(rs, base, "15", "lib/db/15/bin", "15");
	expect_program(rs, base, "16", "lib/db/15/bin", "15");
	expect_program(rs, base, "14", "lib/db/15/bin", "15"); /* equally near: the newer */
	expect_program(rs, base, "10", "lib/db/9/bin", "9");
	expect_program(rs, base, NULL, "lib/db/15/bin", "15");
	install(base, "lib/db/16/bin", NULL); /* installed while we run */
	expect_program(rs, base, "16", "lib/db/16/bin", "16");
	recipes_free(rs);
	tree_remove(AT_FDCWD, base);
}

static void the_program_is_asked_once_until_it_changes(void **state)
{
	cleanup_free char *base = scratch(), *log = xasprintf("%s/log", base);
	struct recipes *rs = made_up(base);
	cleanup_free char *script = xasprintf("#!/bin/sh\necho x >>%s\necho \"db server v=7.0.15 $1\"\n", log);
	cleanup_free char *newer = xasprintf("#!/bin/sh\necho \"db server v=8.0\"\n");
	cleanup_buffer struct buffer text = BUFFER_INIT;
	install(base, "opt/db/bin", script);
	expect_program(rs, base, "7", "opt/db/bin", "7");
	expect_program(rs, base, "6", "opt/db/bin", "7");
	assert_int_equal(file_read(AT_FDCWD, log, 100, &text), 0);
	assert_string_equal(buffer_str(&text), "x\n");
	install(base, "opt/db/bin", newer);
	expect_program(rs, base, "7", "opt/db/bin", "8");
	recipes_free(rs);
	tree_remove(AT_FDCWD, base);
}

static void what_is_not_installed_names_its_package(void **state)
{
	cleanup_free char *base = scratch(), *directory = NULL, *major = NULL;
	struct recipes *rs = made_up(base);
	cleanup_error struct error err = ERROR_INIT;
	assert_int_equal(recipe_find_program(rs, recipe_by_name(rs, "db"), "16", &directory, &major, &err), -EINVAL);
	assert_int_equal(err.code, ERROR_PROGRAM_NOT_FOUND);
	assert_non_null(strstr(err.message, "db-server"));
	assert_string_equal(err.hint, "apt-get install db-16");
	recipes_free(rs);
	tree_remove(AT_FDCWD, base);
}

static void either_program_will_do(void **state)
{
	cleanup_free char *base = scratch(), *directory = xasprintf("%s/bin", base),
	                  *path = xasprintf("%s/bin/other-server", base);
	struct recipes *rs = made_up(base);
	const struct recipe *r = recipe_by_name(rs, "db");
	assert_null(recipe_program_in(r, directory));
	put_file(path, "", 0644);
	assert_null(recipe_program_in(r, directory)); /* it cannot be run */
	assert_int_equal(chmod(path, 0755), 0);
	assert_string_equal(recipe_program_in(r, directory), "other-server");
	install(base, "bin", NULL);
	assert_string_equal(recipe_program_in(r, directory), "db-server");
	recipes_free(rs);
	tree_remove(AT_FDCWD, base);
}

/* ---- the user's own ---- */

static void the_users_own_win(void **state)
{
	cleanup_free char *base = scratch(), *one = xasprintf("%s/one", base), *two = xasprintf("%s/two", base);
	cleanup_free char *a = xasprintf("%s/db.yaml", one), *b = xasprintf("%s/db.yaml", two),
	                  *c = xasprintf("%s/more.yaml", two);
	put_file(a, "images: [db, extra]\nport: 1\n", 0644);
	put_file(b, "images: [db]\nport: 2\n", 0644);
	struct recipes *rs = load(one, two);
	assert_int_equal(recipe_for_image(rs, "db")->port, 2);
	assert_null(recipe_for_image(rs, "extra")); /* replaced as a whole */
	recipes_free(rs);
	put_file(c, "images: [db]\nport: 3\n", 0644);
	rs = load(one, two);
	assert_int_equal(recipe_for_image(rs, "db")->port, 3); /* another name for the same image: the last */
	recipes_free(rs);
	tree_remove(AT_FDCWD, base);
}

static void mistakes_have_a_place(void **state)
{
	static const struct {
		const char *text, *error;
	} cases[] = {
	    {"port: 1\n", "expected images"},
	    {"images: [x]\nprot: 1\n", "db.yaml:2:1: prot: unknown key"},
	    {"images: [x]\nport: 0\n", "db.yaml:2:7: port: expected a whole number from 1 to 65535"},
	    {"images: [x]\nurl: localhost\n", "url: expected a URL"},
	    {"images: [x]\nurl: \"x://{{host\"\n", "closing '}}' is missing"},
	    {"images: [x]\ndefaults: { a: \"{{b|c}}\" }\n", "unknown filter 'c'"},
	    {"images: [x]\nready: { tcp: {}, http: / }\n", "expected one of tcp, http, exec and log"},
	    {"images: [x]\nprocess: { program: p }\n", "expected program and command"},
	    {"images: [x]\nprocess: { program: p, command: [] }\n", "expected a command"},
	    {"images: [x]\nprocess: { program: p, command: [p], init: [{ when: x }] }\n", "process.init[0]: expected run"},
	    {"images: [x]\nprocess: { program: p, command: [p], version: { pattern: \"(\" } }\n", "regular expression"},
	    {"images: [x]\nprocess: { program: p, command: [p], version: { pattern: \"1\" } }\n", "expected a group"},
	    {"images: [x\n", "db.yaml:2:1: "},
	};
	cleanup_free char *base = scratch(), *path = xasprintf("%s/db.yaml", base);
	char *const directories[] = {base, NULL};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		cleanup_error struct error err = ERROR_INIT;
		struct recipes *rs = NULL;
		put_file(path, cases[i].text, 0644);
		assert_int_equal(recipes_load(directories, &rs, &err), -EINVAL);
		if (!strstr(err.message, cases[i].error))
			fail_msg("%s: %s", cases[i].text, err.message);
	}
	tree_remove(AT_FDCWD, base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(images_have_recipes),
	    cmocka_unit_test(tags_have_majors),
	    cmocka_unit_test(postgres_is_asked_in_its_protocol),
	    cmocka_unit_test(urls_follow_the_environment),
	    cmocka_unit_test(commands_give_arguments),
	    cmocka_unit_test(an_entrypoint_of_its_own_is_not_had),
	    cmocka_unit_test(a_client_is_no_server),
	    cmocka_unit_test(a_script_serves_where_a_server_is_wanted),
	    cmocka_unit_test(arguments_have_values),
	    cmocka_unit_test(the_nearest_version_is_taken),
	    cmocka_unit_test(the_program_is_asked_once_until_it_changes),
	    cmocka_unit_test(what_is_not_installed_names_its_package),
	    cmocka_unit_test(either_program_will_do),
	    cmocka_unit_test(the_users_own_win),
	    cmocka_unit_test(mistakes_have_a_place),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
