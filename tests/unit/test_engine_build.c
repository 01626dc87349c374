/* Building over an engine's API, against a server that says what each test wants: what is asked for, when, and how it ends. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "backends/backend.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "tests/unit/scripted_server.h"

#define LIMIT_MS 15000

/* What the engine has; both threads. */
static struct {
	pthread_mutex_t lock;
	char key[65], context[65], file[65]; /* labels of the image; key "": there is none. "-": it has none of them */
	unsigned image;                      /* its number; another after each build */
	unsigned builds, tags, deletes;
	bool equal;  /* there is one with the same labels, and one that somebody has made of it */
	bool podman, hangs;
	const char *fails; /* what a build says */
	char path[8192], body[512];
	unsigned container; /* the number of its image; 0: there is none */
} engine = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void take_label(const char *path, const char *name, char ret[65])
{
	cleanup_free char *before = xasprintf("%s%%22%%3A%%22", name);
	const char *at = strstr(path, before);
	at = at ? at + strlen(before) : "";
	snprintf(ret, 65, "%.*s", (int)strcspn(at, "%"), at);
}

static bool say_build(int fd, const struct scripted_request *r)
{
	engine.builds++;
	snprintf(engine.path, sizeof engine.path, "%s", r->path);
	snprintf(engine.body, sizeof engine.body, "%.500s", r->body);
	if (engine.fails) {
		cleanup_free char *text = xasprintf("{\"stream\":\"Step 1/2 : FROM a\\n\"}\n{\"stream\":\"Step 2/2 : RUN make\\n\"}\n{\"stream\":\"no rule\\n\"}\n{\"error\":\"%s\"}\n", engine.fails);
		return scripted_json(fd, 200, text);
	}
	take_label(r->path, "aether.build", engine.key);
	take_label(r->path, "aether.context", engine.context);
	take_label(r->path, "aether.dockerfile", engine.file);
	engine.image++;
	return scripted_json(fd, 200, "{\"stream\":\"Step 1/1 : FROM a\\n\"}\n{\"aux\":{\"ID\":\"sha256:x\"}}\n");
}

static bool say_image(int fd)
{
	if (!*engine.key)
		return scripted_json(fd, 404, "{\"message\":\"No such image\"}");
	bool bare = *engine.key == '-';
	cleanup_free char *text = xasprintf("{\"Id\":\"sha256:%u\",\"RepoTags\":[\"ns-web:latest\"],\"Config\":{\"Labels\":{%s%s%s%s%s%s%s}}}", engine.image, bare ? "" : "\"aether.build\":\"",
	                                    bare ? "" : engine.key, bare ? "" : "\",\"aether.context\":\"", bare ? "" : engine.context, bare ? "" : "\",\"aether.dockerfile\":\"",
	                                    bare ? "" : engine.file, bare ? "" : "\"");
	return scripted_json(fd, 200, text);
}

static bool say_container(int fd)
{
	cleanup_free char *text = xasprintf("{\"Id\":\"c\",\"Image\":\"sha256:%u\"}", engine.container);
	return engine.container ? scripted_json(fd, 200, text) : scripted_json(fd, 404, "{\"message\":\"No such container\"}");
}

static bool answer_locked(int fd, const struct scripted_request *r)
{
	if (strstr(r->path, "/version"))
		return scripted_json(fd, 200, engine.podman ? "{\"ApiVersion\":\"1.41\",\"MinAPIVersion\":\"1.24\",\"Components\":[{\"Name\":\"Podman Engine\"}]}"
		                                            : "{\"ApiVersion\":\"1.41\",\"MinAPIVersion\":\"1.12\"}");
	if (strstr(r->path, "/build?"))
		return say_build(fd, r);
	if (strstr(r->path, "/images/json?"))
		return scripted_json(fd, 200, engine.equal ? "[{\"Id\":\"sha256:8\",\"RepoTags\":[\"aether-1-main-web:latest\"],\"Labels\":{\"aether.build\":\"key-1\"}},"
		                                        "{\"Id\":\"sha256:9\",\"RepoTags\":[\"mine:1\"],\"Labels\":{\"aether.build\":\"key-1\"}}]" : "[]");
	if (strstr(r->path, "/tag?")) {
		engine.tags++;
		engine.image = strstr(r->path, "sha256:8/") ? 7 : 0;
		snprintf(engine.key, sizeof engine.key, "equal");
		return scripted_json(fd, 201, engine.podman ? "Created" : "");
	}
	if (strstr(r->path, "/containers/"))
		return say_container(fd);
	return say_image(fd);
}

static bool answer(void *arg, int fd, const struct scripted_request *r)
{
	if (strstr(r->path, "/build?") && engine.hangs) {
		pthread_mutex_lock(&engine.lock);
		engine.builds++;
		pthread_mutex_unlock(&engine.lock);
		scripted_say(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
		return scripted_hang(fd);
	}
	pthread_mutex_lock(&engine.lock);
	bool more = answer_locked(fd, r);
	pthread_mutex_unlock(&engine.lock);
	return more;
}

struct fixture {
	struct scripted_server server;
	uv_loop_t loop;
	struct backend *b;
	char dir[64], context[96], dockerfile[128];
	struct build_options options;
	struct build_spec build;
	struct service_spec spec;
	unsigned told;
	char last[512];
};

static void on_changed(void *arg, const struct instance *i)
{
}

static void on_progress(void *arg, const char *service, const json_t *progress)
{
	struct fixture *f = arg;
	cleanup_free char *text = progress ? json_dumps(progress, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	assert_string_equal(service, "web");
	f->told++;
	snprintf(f->last, sizeof f->last, "%s", text ? text : "over");
}

static void put(const struct fixture *f, const char *name, const char *text)
{
	cleanup_free char *path = xasprintf("%s/%s", f->context, name);
	assert_int_equal(file_write_atomic(AT_FDCWD, path, text, strlen(text), 0644), 0);
}

static int setup(void **state)
{
	struct fixture *f = *state = xcalloc(1, sizeof *f);
	memset((char *)&engine + sizeof engine.lock, 0, sizeof engine - sizeof engine.lock);
	scripted_server_start(&f->server, answer, NULL);
	assert_int_equal(uv_loop_init(&f->loop), 0);
	snprintf(f->dir, sizeof f->dir, "/tmp/aether-built-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->context, sizeof f->context, "%s/context", f->dir);
	snprintf(f->dockerfile, sizeof f->dockerfile, "%s/Dockerfile", f->context);
	assert_int_equal(mkdir(f->context, 0755), 0);
	put(f, "Dockerfile", "FROM a\nCOPY . /\n");
	put(f, "file", "one");
	f->build = (struct build_spec){.options = &f->options, .context = f->context, .shown = "build of web (.)", .dockerfile = f->dockerfile, .key = "key-1"};
	f->spec = (struct service_spec){.name = "web", .image = "ns-web", .build = &f->build, .config_hash = "h"};
	cleanup_free char *target = xasprintf("unix://%s", f->server.path);
	const struct backend_params params = {.loop = &f->loop, .target = target, .address = target, .namespace_ = "ns", .state_dir = f->dir, .workspace_root = f->context,
	                                      .changed = on_changed, .progress = on_progress, .changed_arg = f};
	assert_int_equal(backend_open(&params, &f->b, NULL), 0);
	return 0;
}

static void on_closed(void *arg)
{
	*(bool *)arg = true;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	bool closed = !f->b;
	if (f->b)
		backend_close(f->b, on_closed, &closed);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_true(closed);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	scripted_server_stop(&f->server);
	tree_remove(AT_FDCWD, f->dir);
	build_options_release(&f->options);
	free(f);
	return 0;
}

struct result {
	int calls;
	bool differs;
	struct error err;
};

static void on_built(void *arg, const struct error *err, bool differs)
{
	struct result *r = arg;
	r->calls++;
	r->differs = differs;
	if (err)
		error_copy(&r->err, err);
}

static void wait_for(struct fixture *f, const struct result *r)
{
	uint64_t until = now_monotonic_ms() + LIMIT_MS;
	while (!r->calls && now_monotonic_ms() < until) {
		uv_run(&f->loop, UV_RUN_NOWAIT);
		usleep(1000);
	}
	assert_int_equal(r->calls, 1);
}

static struct result build(struct fixture *f, enum build_when when)
{
	struct result r = {.err = ERROR_INIT};
	backend_build(f->b, &f->spec, when, on_built, &r);
	assert_int_equal(r.calls, 0);
	wait_for(f, &r);
	return r;
}

static void succeeds(struct fixture *f, enum build_when when, unsigned builds, bool differs)
{
	struct result r = build(f, when);
	if (error_is_set(&r.err))
		fail_msg("%s", r.err.message);
	assert_int_equal(engine.builds, builds);
	assert_int_equal(r.differs, differs);
}

/* ---- when ---- */

static void builds_when_it_must(void **state)
{
	struct fixture *f = *state;
	succeeds(f, BUILD_MISSING, 1, false);
	engine.container = engine.image;
	succeeds(f, BUILD_MISSING, 1, false);
	succeeds(f, BUILD_CHANGED, 1, false);
	put(f, "file", "two");
	succeeds(f, BUILD_MISSING, 1, false);
	succeeds(f, BUILD_CHANGED, 2, true);
	succeeds(f, BUILD_CHANGED, 2, true); /* the container is still the old one */
	engine.container = engine.image;
	succeeds(f, BUILD_ALWAYS, 3, true);
	f->build.key = "key-2";
	succeeds(f, BUILD_MISSING, 4, true);
	f->build.live = true;
	put(f, "file", "three");
	succeeds(f, BUILD_CHANGED, 4, true);
	put(f, "Dockerfile", "FROM b\n");
	succeeds(f, BUILD_CHANGED, 5, true);
	assert_string_equal(f->last, "over");
	snprintf(engine.key, sizeof engine.key, "-"); /* docker compose's */
	succeeds(f, BUILD_CHANGED, 5, true);
	succeeds(f, BUILD_ALWAYS, 6, true);
}

static void equal_ones_are_named(void **state)
{
	struct fixture *f = *state;
	engine.equal = true;
	succeeds(f, BUILD_MISSING, 0, false);
	assert_int_equal(engine.tags, 1);
	assert_int_equal(engine.image, 7);
	succeeds(f, BUILD_ALWAYS, 1, false);
}

/* ---- what ---- */

static void asks_for(const char *text)
{
	if (!strstr(engine.path, text))
		fail_msg("no %s in %s", text, engine.path);
}

static void asks_as_it_is_told(void **state)
{
	struct fixture *f = *state;
	keyvals_set(&f->options.args, "A", "x y");
	keyvals_set(&f->options.args, "NOTHING", NULL);
	keyvals_set(&f->options.labels, "l", "v");
	f->options.target = xstrdup("final");
	f->options.network = xstrdup("none");
	strv_push(&f->options.extra_hosts, xstrdup("a:1.2.3.4"));
	strv_push(&f->options.cache_from, xstrdup("c:1"));
	strv_push(&f->options.tags, xstrdup("team/x:1"));
	f->options.shm_bytes = 1024;
	f->options.no_cache = f->options.pull = true;
	f->build.platform = "linux/arm64";
	succeeds(f, BUILD_MISSING, 1, false);
	asks_for("t=ns-web&");
	asks_for("t=team%2Fx%3A1");
	asks_for("&dockerfile=Dockerfile&");
	asks_for("&target=final");
	asks_for("&networkmode=none");
	asks_for("&extrahosts=a%3A1.2.3.4");
	asks_for("&cachefrom=%5B%22c%3A1%22%5D");
	asks_for("&buildargs=%7B%22A%22%3A%22x%20y%22%7D&");
	asks_for("%22l%22%3A%22v%22");
	asks_for("&shmsize=1024");
	asks_for("&nocache=1");
	asks_for("&pull=1");
	asks_for("&platform=linux%2Farm64");
	assert_null(strstr(engine.path, "version=2"));
	put(f, "Dockerfile", "FROM scratch\nCOPY --link . /\n");
	succeeds(f, BUILD_ALWAYS, 2, false);
	asks_for("&version=2");
	assert_null(strstr(engine.path, "pull=1"));
}

static void takes_what_docker_is_configured_with(void **state)
{
	struct fixture *f = *state;
	cleanup_free char *path = xasprintf("%s/config.json", f->dir);
	static const char config[] = "{\"proxies\": {\"default\": {\"httpProxy\": \"p:1\", \"noProxy\": \"x\"}}, \"auths\": {\"r.test\": {\"auth\": \"dTpw\"}}}";
	assert_int_equal(file_write_atomic(AT_FDCWD, path, config, sizeof config - 1, 0600), 0);
	setenv("DOCKER_CONFIG", f->dir, 1);
	keyvals_set(&f->options.args, "NO_PROXY", "mine");
	put(f, "Dockerfile", "FROM r.test/a:1\n");
	succeeds(f, BUILD_MISSING, 1, false);
	unsetenv("DOCKER_CONFIG");
	asks_for("%22NO_PROXY%22%3A%22mine%22");
	asks_for("%22HTTP_PROXY%22%3A%22p%3A1%22");
	asks_for("%22http_proxy%22%3A%22p%3A1%22");
}

static void podman_is_asked_its_way(void **state)
{
	struct fixture *f = *state;
	engine.podman = true;
	strv_push(&f->options.extra_hosts, xstrdup("a:1.2.3.4"));
	put(f, "Dockerfile", "FROM a\nRUN <<EOF\nEOF\n");
	succeeds(f, BUILD_MISSING, 1, false);
	asks_for("&extrahosts=%5B%22a%3A1.2.3.4%22%5D");
	assert_null(strstr(engine.path, "version=2"));
}

/* ---- how it ends ---- */

static void fails_with(struct fixture *f, const char *message, const char *hint)
{
	struct result r = build(f, BUILD_ALWAYS);
	assert_int_equal(r.err.code, ERROR_BUILD_FAILED);
	if (!strstr(r.err.message, message) || !r.err.hint || !strstr(r.err.hint, hint))
		fail_msg("%s; %s", r.err.message, r.err.hint);
	error_release(&r.err);
}

static void says_what_failed(void **state)
{
	struct fixture *f = *state;
	engine.fails = "it returned 2";
	fails_with(f, "at step 2 of 2 (RUN make): it returned 2; its output ends: no rule", "/services/web/build.log");
	cleanup_free char *path = xasprintf("%s/services/web/build.log", f->dir);
	cleanup_buffer struct buffer log = BUFFER_INIT;
	assert_int_equal(file_read(AT_FDCWD, path, 1 << 20, &log), 0);
	assert_non_null(strstr(buffer_str(&log), "\nno rule\n"));
	put(f, "Dockerfile", "FROM a\nRUN <<EOF\nEOF\n");
	fails_with(f, "heredocs", "docker compose build web");
	put(f, "Dockerfile", "# syntax=some/thing\nFROM a\n");
	fails_with(f, "frontend", "docker compose build web");
	unlink(f->dockerfile);
	fails_with(f, "Dockerfile: No such file", "build.dockerfile");
	put(f, "Dockerfile", "FROM a\n");
	put(f, ".dockerignore", "!\n");
	struct result r = build(f, BUILD_ALWAYS);
	assert_int_equal(r.err.code, ERROR_CONFIG_INVALID);
	error_release(&r.err);
}

static void wait_for_builds(struct fixture *f, unsigned n)
{
	uint64_t until = now_monotonic_ms() + LIMIT_MS;
	while (engine.builds < n && now_monotonic_ms() < until) {
		uv_run(&f->loop, UV_RUN_NOWAIT);
		usleep(1000);
	}
	assert_int_equal(engine.builds, n);
}

static void who_gives_up_hears_so(void **state)
{
	struct fixture *f = *state;
	struct result one = {.err = ERROR_INIT}, other = {.err = ERROR_INIT};
	engine.hangs = true;
	backend_build(f->b, &f->spec, BUILD_CHANGED, on_built, &one);
	backend_build(f->b, &f->spec, BUILD_MISSING, on_built, &other);
	wait_for_builds(f, 1);
	backend_build_cancel(f->b, "web", &one);
	assert_int_equal(one.calls, 0);
	wait_for(f, &one);
	assert_int_equal(one.err.code, ERROR_CANCELED);
	assert_int_equal(other.calls, 0);
	backend_build_cancel(f->b, "web", &other);
	wait_for(f, &other);
	error_release(&one.err);
	error_release(&other.err);
	one.calls = 0;
	backend_build(f->b, &f->spec, BUILD_CHANGED, on_built, &one); /* another one, which goes on as the backend is closed */
	wait_for_builds(f, 2);
	bool closed = false;
	backend_close(f->b, on_closed, &closed);
	wait_for(f, &one);
	assert_int_equal(one.err.code, ERROR_CANCELED);
	while (!closed)
		uv_run(&f->loop, UV_RUN_ONCE);
	f->b = NULL;
	error_release(&one.err);
}

static void on_started(void *arg, const struct error *err)
{
	struct result *r = arg;
	r->calls++;
	if (err)
		error_copy(&r->err, err);
}

static void a_start_gives_up(void **state)
{
	struct fixture *f = *state;
	struct result r = {.err = ERROR_INIT};
	engine.hangs = true;
	backend_start(f->b, &f->spec, on_started, &r);
	wait_for_builds(f, 1);
	backend_build_cancel(f->b, "web", NULL);
	wait_for(f, &r);
	assert_int_equal(r.err.code, ERROR_CANCELED);
	error_release(&r.err);
}

/* Two services of one build: one after the other, and the second finds the first one's. */
static void one_after_the_other(void **state)
{
	struct fixture *f = *state;
	struct service_spec twin = f->spec;
	struct result one = {.err = ERROR_INIT}, other = {.err = ERROR_INIT};
	engine.hangs = true;
	twin.image = "ns-twin";
	backend_build(f->b, &f->spec, BUILD_MISSING, on_built, &one);
	wait_for_builds(f, 1); /* both ask for their image first: the answers may come in either order */
	backend_build(f->b, &twin, BUILD_MISSING, on_built, &other);
	for (unsigned i = 0; i < 50; i++) {
		uv_run(&f->loop, UV_RUN_NOWAIT);
		usleep(1000);
	}
	assert_int_equal(engine.builds, 1);
	backend_build_cancel(f->b, "web", &one);
	wait_for(f, &one);
	wait_for_builds(f, 2);
	backend_build_cancel(f->b, "web", &other);
	wait_for(f, &other);
	error_release(&one.err);
	error_release(&other.err);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(builds_when_it_must), T(equal_ones_are_named), T(asks_as_it_is_told), T(takes_what_docker_is_configured_with), T(podman_is_asked_its_way), T(says_what_failed),
	    T(who_gives_up_hears_so), T(a_start_gives_up), T(one_after_the_other),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
