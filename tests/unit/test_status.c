/* The texts of an environment's files, from models made by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "provisioner/envfile.h"
#include "provisioner/status.h"

static struct config_service services[2];
static struct model_service models[2];
static struct port_binding db_ports[] = {{5432, 21001, "tcp"}, {9000, 21002, "udp"}};
static struct port_binding web_ports[] = {{80, 21003, "tcp"}};
static struct config config;
static struct recipe recipe;
static struct model model;
static struct identity id;

static int setup(void **state)
{
	memset(services, 0, sizeof services);
	memset(models, 0, sizeof models);
	memset(&config, 0, sizeof config);
	memset(&recipe, 0, sizeof recipe);
	memset(&model, 0, sizeof model);
	services[0].name = (char *)"db";
	services[0].image = (char *)"postgres:16";
	services[1].name = (char *)"my-web.1";
	services[1].has_build = true;
	keyvals_set(&services[0].environment, "POSTGRES_PASSWORD", "s3cret");
	config = (struct config){.file = (char *)"/w/compose.yaml", .services = services, .n_services = 2, .inherit = true, .rewrite = true};
	recipe.name = (char *)"postgres";
	recipe.port = 5432;
	models[0] = (struct model_service){.config = &services[0], .recipe = &recipe, .ports = db_ports, .n_ports = 2};
	models[0].url = (char *)"postgres://postgres:s3cret@127.0.0.1:21001/postgres";
	keyvals_set(&models[0].recipe_env, "DATABASE_URL", models[0].url);
	keyvals_set(&models[0].recipe_env, "PGPORT", "21001");
	models[1] = (struct model_service){.config = &services[1], .ports = web_ports, .n_ports = 1};
	models[1].url = (char *)"http://127.0.0.1:21003";
	model = (struct model){.backend = (char *)"process", .config = &config, .services = models, .n_services = 2, .planned = true};
	keyvals_set(&model.app_ports, "PORT", "21004");
	keyvals_set(&model.app_preferred, "PORT", "3000");
	keyvals_set(&model.env, "API_TOKEN", "abc");
	keyvals_set(&model.base, "AETHER_NAMESPACE", "aether-1-w");
	id = (struct identity){.root = (char *)"/w", .workspace = (char *)"w", .namespace_ = (char *)"aether-1-w"};
	return 0;
}

static int teardown(void **state)
{
	keyvals_release(&services[0].environment);
	keyvals_release(&models[0].recipe_env);
	keyvals_release(&model.app_ports);
	keyvals_release(&model.app_preferred);
	keyvals_release(&model.env);
	keyvals_release(&model.base);
	return 0;
}

static void wake(void *arg)
{
}

static void changed(void *arg, const struct apply_service *s, bool state_changed)
{
}

static struct apply *make_apply(void)
{
	const struct apply_params params = {.wake = wake, .changed = changed};
	struct apply *a = apply_new(&params);
	apply_set_model(a, &model);
	return a;
}

static json_t *render(struct status_view view, char **ret_text)
{
	cleanup_buffer struct buffer out = BUFFER_INIT;
	status_json(&view, &out);
	json_t *json = json_loads(buffer_str(&out), 0, NULL);
	assert_non_null(json);
	if (ret_text)
		*ret_text = buffer_detach(&out);
	return json;
}

static void status_has_the_core_and_no_secret(void **state)
{
	struct apply *a = make_apply();
	char *text;
	json_t *leases = json_pack("[{s:i, s:s}]", "pid", 5, "command", "ajj");
	cleanup_envset struct envset set;
	model_environment(&model, "INHERITED=1\n", "DB_PORT=5432\nX=1\nAPI_TOKEN=old\nDB_SECRET=db:5432\n", &set);
	json_t *json = render((struct status_view){.id = &id,
	                                           .state = "ready",
	                                           .backend = "process",
	                                           .model = &model,
	                                           .apply = a,
	                                           .env = &set,
	                                           .leases = leases,
	                                           .keeper_pid = 7,
	                                           .server_pid = 8,
	                                           .server_restarts = 2},
	                      &text);
	assert_string_equal(json_string_value(json_object_get(json, "workspace_root")), "/w");
	assert_string_equal(json_string_value(json_object_get(json, "backend")), "process");
	assert_string_equal(json_string_value(json_object_get(json, "state")), "ready");
	json_t *db = json_object_get(json_object_get(json, "resources"), "db");
	assert_int_equal(json_integer_value(json_object_get(db, "internal_port")), 5432);
	assert_int_equal(json_integer_value(json_object_get(db, "external_port")), 21001);
	assert_string_equal(json_string_value(json_object_get(db, "host")), "127.0.0.1");
	assert_string_equal(json_string_value(json_object_get(db, "connection_string")),
	                    "postgres://postgres:***@127.0.0.1:21001/postgres");
	assert_null(strstr(text, "s3cret"));
	assert_non_null(strstr(text, "\"state\": \"ready\""));
	assert_int_equal(json_integer_value(json_object_get(json_object_get(json, "app_ports"), "PORT")), 21004);
	assert_int_equal(json_array_size(json_object_get(json, "leases")), 1);
	assert_string_equal(json_string_value(json_array_get(json_object_get(json, "overridden"), 0)), "API_TOKEN");
	json_t *rewrites = json_object_get(json, "rewrites"), *port = json_array_get(rewrites, 0);
	assert_int_equal(json_array_size(rewrites), 2);
	assert_string_equal(json_string_value(json_object_get(port, "key")), "DB_PORT");
	assert_string_equal(json_string_value(json_object_get(port, "service")), "db");
	assert_string_equal(json_string_value(json_object_get(port, "before")), "5432");
	assert_string_equal(json_string_value(json_object_get(port, "after")), "21001");
	assert_string_equal(json_string_value(json_object_get(json_array_get(rewrites, 1), "after")), "***");
	json_t *layers = json_object_get(json, "layers");
	assert_string_equal(json_string_value(json_object_get(layers, "INHERITED")), "main");
	assert_string_equal(json_string_value(json_object_get(layers, "X")), "workspace");
	assert_string_equal(json_string_value(json_object_get(layers, "DB_URL")), "service");
	assert_string_equal(json_string_value(json_object_get(layers, "API_TOKEN")), "configuration");
	json_t *aetherfs = json_object_get(json, "aetherfs");
	assert_int_equal(json_integer_value(json_object_get(aetherfs, "keeper_pid")), 7);
	assert_int_equal(json_integer_value(json_object_get(aetherfs, "server_restarts")), 2);
	assert_string_equal(
	    json_string_value(json_object_get(json_object_get(json_object_get(json, "services"), "db"), "state")),
	    "absent");
	json_decref(json);
	/* nobody has looked yet: not a word of absence */
	json = render((struct status_view){.id = &id, .state = "starting", .model = &model, .apply = a, .unseen = true, .env = &set}, NULL);
	assert_string_equal(json_string_value(json_object_get(json_object_get(json_object_get(json, "services"), "db"), "state")), "starting");
	assert_string_equal(json_string_value(json_object_get(json_object_get(json_object_get(json, "services"), "db"), "health")), "starting");
	free(text);
	json_decref(json);
	json_decref(leases);
	apply_free(a);
}

static void status_without_a_model_is_whole(void **state)
{
	const struct apply_params params = {.wake = wake, .changed = changed};
	struct apply *a = apply_new(&params);
	struct error failure = ERROR_INIT;
	error_set(&failure, ERROR_CONFIG_NOT_FOUND, "none");
	json_t *json = render(
	    (struct status_view){.id = &id, .state = "absent", .apply = a, .failure = &failure}, NULL);
	assert_true(json_is_null(json_object_get(json, "backend")));
	assert_true(json_is_object(json_object_get(json, "resources")));
	assert_string_equal(json_string_value(json_object_get(json_object_get(json, "error"), "code")), "CONFIG_NOT_FOUND");
	json_decref(json);
	error_release(&failure);
	apply_free(a);
}

static void unsupported_and_failed_services_say_why(void **state)
{
	error_set(&models[1].unsupported, ERROR_IMAGE_NOT_FOUND, "service my-web.1: cannot run");
	struct apply *a = make_apply();
	struct apply_service *db = apply_find(a, "db");
	db->state = SERVICE_FAILED;
	error_set(&db->error, ERROR_SERVICE_FAILED, "service db has ended");
	json_t *json =
	    render((struct status_view){.id = &id, .state = "failed", .model = &model, .apply = a}, NULL);
	json_t *list = json_object_get(json, "services");
	json_t *error = json_object_get(json_object_get(list, "db"), "error");
	assert_string_equal(json_string_value(json_object_get(error, "message")), "service db has ended");
	assert_non_null(json_object_get(json_object_get(list, "my-web.1"), "error"));
	assert_string_equal(json_string_value(json_array_get(json_object_get(json, "warnings"), 0)),
	                    "service my-web.1: cannot run");
	json_decref(json);
	apply_free(a);
	error_release(&models[1].unsupported);
}

static void ports_are_one_a_line(void **state)
{
	cleanup_buffer struct buffer out = BUFFER_INIT;
	status_ports(&model, &out);
	assert_string_equal(buffer_str(&out), "db 5432 127.0.0.1 21001\n"
	                                      "db 9000 127.0.0.1 21002\n"
	                                      "my-web.1 80 127.0.0.1 21003\n"
	                                      "PORT 3000 127.0.0.1 21004\n");
	buffer_clear(&out);
	struct port_binding saved = db_ports[0];
	db_ports[0].external = 0; /* nothing that is not leased is named */
	status_ports(&model, &out);
	assert_null(strstr(buffer_str(&out), "5432"));
	db_ports[0] = saved;
}

static bool has_line(const char *text, const char *line)
{
	size_t len = strlen(line);
	for (const char *at = text; at; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL)
		if (!strncmp(at, line, len) && at[len] == '\n')
			return true;
	return false;
}

static int render_env(const struct model *m, const char *user, struct buffer *out)
{
	cleanup_envset struct envset set;
	model_environment(m, "", user, &set);
	return envfile_render(user, &set, out, NULL, NULL);
}

/* docker's --env-file knows no quotes. */
static void a_list_has_values_as_they_are(void **state)
{
	cleanup_keyvals struct keyvals values = KEYVALS_INIT, none = KEYVALS_INIT;
	keyvals_set(&values, "PLAIN", "a b & 'c' $d");
	keyvals_set(&values, "KEY", "-----BEGIN\n-----END");
	cleanup_envset struct envset set;
	const struct envset_params params = {.offered = &none, .imposed = &values};
	envset_make(&params, &set);
	cleanup_buffer struct buffer out = BUFFER_INIT;
	status_env_list(&set, &out);
	assert_string_equal(buffer_str(&out), "PLAIN=a b & 'c' $d\n# KEY has a line break, and is left out\n");
}

static void env_layers_win_in_their_order(void **state)
{
	cleanup_buffer struct buffer out = BUFFER_INIT;
	const char *user = "PGPORT=1\nDB_HOST=db\nMINE=x\nAPI_TOKEN=old\n";
	assert_int_equal(render_env(&model, user, &out), 0);
	const char *text = buffer_str(&out);
	assert_true(has_line(text, "PGPORT=1")); /* a recipe's variable yields to the user's */
	assert_false(has_line(text, "PGPORT=21001"));
	assert_true(has_line(text, "DATABASE_URL=postgres://postgres:s3cret@127.0.0.1:21001/postgres"));
	assert_true(has_line(text, "#~ DB_HOST=db")); /* what every service gives does not */
	assert_true(has_line(text, "DB_HOST=127.0.0.1"));
	assert_true(has_line(text, "DB_PORT=21001"));
	assert_true(has_line(text, "MY_WEB_1_URL=http://127.0.0.1:21003"));
	assert_true(has_line(text, "MINE=x"));
	assert_true(has_line(text, "PORT=21004"));
	assert_true(has_line(text, "#~ API_TOKEN=old"));
	assert_true(has_line(text, "API_TOKEN=abc")); /* x-aether.env wins */
	assert_true(has_line(text, "AETHER_NAMESPACE=aether-1-w"));

	cleanup_buffer struct buffer json_text = BUFFER_INIT;
	cleanup_envset struct envset set;
	model_environment(&model, "", user, &set);
	status_env_json(&set, &json_text);
	json_t *json = json_loads(buffer_str(&json_text), 0, NULL);
	assert_string_equal(json_string_value(json_object_get(json, "PGPORT")), "1");
	assert_string_equal(json_string_value(json_object_get(json, "MINE")), "x");
	assert_string_equal(json_string_value(json_object_get(json, "API_TOKEN")), "abc");
	json_decref(json);
}

static void one_services_variables(void **state)
{
	cleanup_buffer struct buffer out = BUFFER_INIT;
	assert_int_equal(status_service_env(&models[0], &out, NULL), 0);
	assert_true(has_line(buffer_str(&out), "DB_PORT=21001"));
	assert_true(has_line(buffer_str(&out), "PGPORT=21001"));
	assert_null(strstr(buffer_str(&out), "MY_WEB"));
}

static void names_become_variables(void **state)
{
	const char *const cases[][2] = {
	    {"db", "DB_URL"}, {"my-web.1", "MY_WEB_1_URL"}, {"1st", "_1ST_URL"}, {"Ünï", "__N___URL"}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char *name = model_variable_name(cases[i][0], "URL");
		assert_string_equal(name, cases[i][1]);
		free(name);
	}
}

static void secrets_are_masked_in_texts(void **state)
{
	char *masked = model_mask(&model, "FATAL: password \"s3cret\" of s3cret2, token abc");
	assert_string_equal(masked, "FATAL: password \"***\" of ***2, token ***");
	free(masked);
	masked = model_mask(&model, "abc: /abc/null, abcdef, x_abc, (abc)"); /* a short one where it stands alone */
	assert_string_equal(masked, "***: /abc/null, abcdef, x_abc, (***)");
	free(masked);
}

static void after_a_teardown_nothing_names_a_port(void **state)
{
	struct model_service gone[2] = {models[0], models[1]};
	struct model m = {.backend = (char *)"process", .config = &config, .services = gone, .n_services = 2, .planned = true};
	struct port_binding ports[2] = {db_ports[0], db_ports[1]};
	gone[0].ports = gone[1].ports = ports;
	gone[0].url = xstrdup(models[0].url);
	gone[1].url = xstrdup(models[1].url);
	gone[0].recipe_env = (struct keyvals)KEYVALS_INIT;
	keyvals_set(&gone[0].recipe_env, "DATABASE_URL", "x");
	model_unplan(&m);
	cleanup_buffer struct buffer out = BUFFER_INIT;
	status_ports(&m, &out);
	assert_int_equal(render_env(&m, "", &out), 0);
	assert_null(strstr(buffer_str(&out), "2100"));
	assert_null(strstr(buffer_str(&out), "DATABASE_URL"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(status_has_the_core_and_no_secret, setup, teardown),
	    cmocka_unit_test_setup_teardown(status_without_a_model_is_whole, setup, teardown),
	    cmocka_unit_test_setup_teardown(unsupported_and_failed_services_say_why, setup, teardown),
	    cmocka_unit_test_setup_teardown(ports_are_one_a_line, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_list_has_values_as_they_are, setup, teardown),
	    cmocka_unit_test_setup_teardown(env_layers_win_in_their_order, setup, teardown),
	    cmocka_unit_test_setup_teardown(one_services_variables, setup, teardown),
	    cmocka_unit_test_setup_teardown(names_become_variables, setup, teardown),
	    cmocka_unit_test_setup_teardown(secrets_are_masked_in_texts, setup, teardown),
	    cmocka_unit_test_setup_teardown(after_a_teardown_nothing_names_a_port, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
