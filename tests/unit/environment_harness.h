/* An environment from configuration to teardown, with a real store, real ports and probes, and a backend that does what
 * each test says. A test program includes this once. */
#ifndef TESTS_ENVIRONMENT_HARNESS_H
#define TESTS_ENVIRONMENT_HARNESS_H

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "provisioner/env_name.h"
#include "provisioner/environment.h"
#include "provisioner/store.h"
#include "scripted_backend.h"

#define LIMIT_MS 15000

static uv_loop_t loop;
static char *scratch, *root;
static struct identity id;
static int root_fd = -1;
static struct environment *env;
static unsigned changed_mask;
static unsigned workspaces;

/* ---- the workspace ---- */

static inline void compose(const char *text)
{
	assert_int_equal(file_write_atomic(root_fd, "compose.yaml", text, strlen(text), 0644), 0);
}

static inline void on_changed(void *arg, unsigned what)
{
	changed_mask |= what;
}

static inline void on_env_named(void *arg, const char *name)
{
	id.env_name = name;
}

static inline void env_open(void)
{
	struct error err = ERROR_INIT;
	const struct environment_params params = {.loop = &loop,
	                                          .id = &id,
	                                          .root_fd = root_fd,
	                                          .keeper_pid = 77,
	                                          .keeper_pidfd = -1,
	                                          .shim = "/bin/false",
	                                          .recipes_dir = TEST_SOURCE "/contrib/recipes",
	                                          .env_named = on_env_named,
	                                          .changed = on_changed};
	if (environment_new(&params, &env, &err) < 0)
		fail_msg("environment_new: %s", err.message);
}

static inline void on_closed(void *arg)
{
	*(bool *)arg = true;
}

static inline void env_close(bool stop)
{
	bool closed = false;
	uint64_t until = now_monotonic_ms() + LIMIT_MS;
	environment_close(env, stop, on_closed, &closed);
	assert_false(closed);
	while (!closed && now_monotonic_ms() < until)
		uv_run(&loop, UV_RUN_ONCE);
	assert_true(closed);
	env = NULL;
	for (int i = 0; i < 5; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
}

static inline int setup(void **state)
{
	struct error err = ERROR_INIT;
	root = xasprintf("%s/ws%u", scratch, workspaces++);
	assert_int_equal(mkdir(root, 0755), 0);
	root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (identity_of(root, NULL, &id, &err) < 0 || identity_make_dirs(&id, &err) < 0)
		fail_msg("identity: %s", err.message);
	scripted_reset();
	changed_mask = 0;
	return 0;
}

static inline int teardown(void **state)
{
	if (env)
		env_close(true);
	scripted_reset();
	for (int i = 0; i < 5; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	tree_remove(AT_FDCWD, id.socket_dir); /* where TMPDIR is deep it is not below it */
	identity_release(&id);
	close(root_fd);
	free(root);
	return 0;
}

/* ---- waiting ---- */

struct answer {
	unsigned times;
	struct error error;
	struct demand *demand;
	uint64_t at_ms;
};

static inline void on_answer(void *arg, const struct error *err)
{
	struct answer *a = arg;
	a->times++;
	a->at_ms = now_monotonic_ms();
	if (err)
		error_copy(&a->error, err);
}

static inline void on_time(uv_timer_t *timer)
{
}

static inline void run_for(unsigned ms)
{
	uint64_t until = now_monotonic_ms() + ms;
	uv_timer_t timer;
	uv_timer_init(&loop, &timer);
	uv_update_time(&loop);
	uv_timer_start(&timer, on_time, ms, 2);
	while (now_monotonic_ms() < until)
		uv_run(&loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&timer, NULL);
	uv_run(&loop, UV_RUN_NOWAIT);
}

static inline void wait_answer(struct answer *a)
{
	uint64_t until = now_monotonic_ms() + LIMIT_MS;
	while (!a->times && now_monotonic_ms() < until)
		run_for(2);
	if (!a->times) {
		cleanup_buffer struct buffer status = BUFFER_INIT;
		environment_status(env, &status);
		fail_msg("no answer; %s", buffer_str(&status));
	}
}

static const struct requester me = {1, "test"};

static inline int demand_by(const struct requester *who, const char *service, struct answer *a)
{
	struct error err = ERROR_INIT;
	memset(a, 0, sizeof *a);
	int r = environment_demand(env, service, who, on_answer, a, &a->demand, &err);
	assert_int_equal(a->times, 0); /* never from within the call */
	error_release(&err);
	return r;
}

static inline int demand(const char *service, struct answer *a)
{
	return demand_by(&me, service, a);
}

/* Once, and never again. */
static inline enum error_code answered(struct answer *a)
{
	wait_answer(a);
	run_for(5);
	assert_int_equal(a->times, 1);
	enum error_code code = a->error.code;
	error_release(&a->error);
	return code;
}

/* Asks and waits; ERROR_NONE: ready */
static inline enum error_code ask(const char *service)
{
	struct answer a;
	int r = demand(service, &a);
	if (r == 0)
		return ERROR_NONE;
	assert_int_equal(r, 1);
	return answered(&a);
}

static inline enum error_code command(const char *line)
{
	struct answer a = {0};
	environment_command(env, line, &me, on_answer, &a);
	assert_int_equal(a.times, 0);
	return answered(&a);
}

/* ---- looking ---- */

static inline json_t *status(void)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	environment_status(env, &text);
	json_t *json = json_loads(buffer_str(&text), 0, NULL);
	assert_non_null(json);
	return json;
}

static inline const char *state_now(void)
{
	static char state[32];
	json_t *json = status();
	snprintf(state, sizeof state, "%s", json_string_value(json_object_get(json, "state")));
	json_decref(json);
	return state;
}

static inline const char *service_state(const char *service)
{
	static char state[32];
	json_t *json = status();
	json_t *s = json_object_get(json_object_get(json, "services"), service);
	snprintf(state, sizeof state, "%s", s ? json_string_value(json_object_get(s, "state")) : "unknown");
	json_decref(json);
	return state;
}

static inline void wait_state(const char *state)
{
	uint64_t until = now_monotonic_ms() + LIMIT_MS;
	while (strcmp(state_now(), state) && now_monotonic_ms() < until)
		run_for(5);
	assert_string_equal(state_now(), state);
}

static inline int port_of(const char *service)
{
	json_t *json = status();
	int port = (int)json_integer_value(
	    json_object_get(json_object_get(json_object_get(json, "resources"), service), "external_port"));
	json_decref(json);
	return port;
}

static inline int generation(void)
{
	json_t *json = status();
	int g = (int)json_integer_value(json_object_get(json, "generation"));
	json_decref(json);
	return g;
}

static inline bool env_has(const char *line)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	assert_int_equal(environment_env(env, &text, NULL), 0);
	size_t len = strlen(line);
	for (const char *at = buffer_str(&text); at && *at; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL)
		if (!strncmp(at, line, len) && (at[len] == '\n' || line[len - 1] == '='))
			return true;
	return false;
}

static inline bool errors_have(const char *text)
{
	cleanup_buffer struct buffer errors = BUFFER_INIT;
	environment_errors(env, &errors);
	return strstr(buffer_str(&errors), text);
}

static inline bool warns_of(const char *text)
{
	json_t *json = status();
	char *warnings = json_dumps(json_object_get(json, "warnings"), JSON_ENCODE_ANY);
	bool found = strstr(warnings, text);
	free(warnings);
	json_decref(json);
	return found;
}

static inline bool events_have(const char *text)
{
	char buf[65536];
	size_t n = environment_events_read(env, 0, buf, sizeof buf - 1);
	buf[n] = '\0';
	return strstr(buf, text);
}

static inline size_t leases(void)
{
	cleanup_buffer struct buffer ports = BUFFER_INIT;
	size_t lines = 0;
	environment_ports(env, &ports);
	for (const char *c = buffer_str(&ports); *c; c++)
		lines += *c == '\n';
	return lines;
}

#define ONE "services: {db: {image: 'example/db:1', ports: ['5432']}}\n"
#define TAIL "x-aether: {backend: memory, timeout: 10s}\n"
#define SHORT "x-aether: {backend: memory, timeout: 300ms}\n"
#define RESTARTS "services: {db: {image: 'e/db', ports: ['5432'], restart: always}}\n"

/* ---- the program ---- */

static inline int group_setup(void **state)
{
	scratch = xasprintf("%s/environment.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(scratch));
	cleanup_free char *runtime = xasprintf("%s/run", scratch), *st = xasprintf("%s/state", scratch);
	/* images that need no approval */
	cleanup_free char *recipes = xasprintf("%s/aether/recipes", scratch), *recipe = xasprintf("%s/e.yaml", recipes);
	static const char known[] = "images: [e/a, e/b, e/c, e/cache, e/db, e/debug, e/job, e/odd, e/other, e/web, example/db]\n";
	assert_int_equal(dir_make(AT_FDCWD, recipes, 0700), 0);
	assert_int_equal(file_write_atomic(AT_FDCWD, recipe, known, sizeof known - 1, 0600), 0);
	cleanup_free char *adapts = xasprintf("%s/f.yaml", recipes);
	static const char adapting[] = "images: [f/db]\ndefaults: {password: '{{env.PASS}}'}\ncontainer: {adapt: {as: '{{password}}', run: [give, it]}}\n";
	assert_int_equal(file_write_atomic(AT_FDCWD, adapts, adapting, sizeof adapting - 1, 0600), 0);
	setenv("XDG_CONFIG_HOME", scratch, 1);
	setenv("AETHER_RUNTIME_DIR", runtime, 1);
	setenv("AETHER_STATE_DIR", st, 1);
	scripted_logs = scratch;
	return uv_loop_init(&loop);
}

static inline int group_teardown(void **state)
{
	uv_run(&loop, UV_RUN_DEFAULT);
	tree_remove(AT_FDCWD, scratch);
	free(scratch);
	return uv_loop_close(&loop);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define RUN(tests) (cmocka_set_test_filter(getenv("CMOCKA_TEST_FILTER")), cmocka_run_group_tests(tests, group_setup, group_teardown))

#endif
