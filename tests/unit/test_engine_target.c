/* Which container engine is meant: variables, contexts, sockets, and what is said where none of them leads anywhere. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "backends/engine.h"
#include "backends/engine_target.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/strv.h"

/* A user's places below one directory; "~" in a value is that directory. */
struct user {
	char dir[64];
	struct keyvals variables;
	uid_t uid;
};

static const char *variable(void *arg, const char *name)
{
	return keyvals_get(&((struct user *)arg)->variables, name);
}

static void set(struct user *u, const char *name, const char *value)
{
	const char *at = strchr(value, '~');
	cleanup_free char *text = at ? xasprintf("%.*s%s%s", (int)(at - value), value, u->dir, at + 1) : xstrdup(value);
	keyvals_set(&u->variables, name, text);
}

/* A file, with the directories above it. */
static void put(const struct user *u, const char *path, const char *text, mode_t mode)
{
	cleanup_free char *whole = xasprintf("%s/%s", u->dir, path);
	for (char *slash = whole + strlen(u->dir) + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
		*slash = '\0';
		mkdir(whole, 0755);
	}
	assert_int_equal(file_write_atomic(AT_FDCWD, whole, text, strlen(text), mode), 0);
}

/* What docker calls the directories of the contexts work and far: printf %s NAME | sha256sum */
#define WORK_SHA "00e13ed7af55b27622f1d6eab5bec0147e68efe28dc2b12461117afa1a5ed40e"
#define FAR_SHA "512eea46ceb3921dff4363c7069d89d4964d1d9fccaa0f411851a7aa60a5c868"

static int begin(void **state)
{
	struct user *u = xcalloc(1, sizeof *u);
	strcpy(u->dir, "/tmp/test_engine_target.XXXXXX");
	u->uid = 1000;
	*state = u;
	if (!mkdtemp(u->dir))
		return -1;
	set(u, "HOME", "~/home");
	set(u, "XDG_RUNTIME_DIR", "~/run/user/1000");
	return 0;
}

static int end(void **state)
{
	struct user *u = *state;
	tree_remove(AT_FDCWD, u->dir);
	keyvals_release(&u->variables);
	free(u);
	return 0;
}

/* `expected`: the address, "~" in it is the user's directory; or, with a code, words of the message. */
static void expect(struct user *u, const char *asked, enum error_code code, const char *expected, const char *from)
{
	const struct engine_places places = {variable, u, u->dir, u->uid};
	cleanup_engine_target struct engine_target t = ENGINE_TARGET_INIT;
	cleanup_error struct error err = ERROR_INIT;
	const char *at = strchr(expected, '~');
	cleanup_free char *whole = at ? xasprintf("%.*s%s%s", (int)(at - expected), expected, u->dir, at + 1) : xstrdup(expected);
	int r = engine_target_find(asked, &places, &t, &err);
	if (err.code != code || (r < 0) != (code != ERROR_NONE))
		fail_msg("%s: %s instead of %s", asked, r < 0 ? err.message : t.url, whole);
	if (code == ERROR_NONE) {
		assert_string_equal(t.url, whole);
		assert_string_equal(t.from, from);
	} else if (!strstr(err.message, whole) || !err.hint) {
		fail_msg("%s: '%s', hint '%s', instead of %s", asked, err.message, err.hint ? err.hint : "", whole);
	}
}

static void sockets_come_in_dockers_order(void **state)
{
	struct user *u = *state;
	expect(u, "docker", ERROR_BACKEND_UNREACHABLE, "no socket of Docker", NULL);
	expect(u, "podman", ERROR_BACKEND_UNREACHABLE, "no socket of Podman", NULL);
	put(u, "home/.docker/run/docker.sock", "", 0600);
	expect(u, "docker", ERROR_NONE, "unix://~/home/.docker/run/docker.sock", "the socket of rootless Docker");
	put(u, "run/user/1000/docker.sock", "", 0600);
	expect(u, "docker", ERROR_NONE, "unix://~/run/user/1000/docker.sock", "the socket of rootless Docker");
	put(u, "run/docker.sock", "", 0600);
	expect(u, "docker", ERROR_NONE, "unix://~/run/docker.sock", "the default socket");
	put(u, "run/podman/podman.sock", "", 0600);
	expect(u, "podman", ERROR_NONE, "unix://~/run/podman/podman.sock", "the system's socket");
	put(u, "run/user/1000/podman/podman.sock", "", 0600);
	expect(u, "podman", ERROR_NONE, "unix://~/run/user/1000/podman/podman.sock", "the user's socket");
	u->uid = 0;
	expect(u, "podman", ERROR_NONE, "unix://~/run/podman/podman.sock", "the system's socket");
}

/* Nothing is closed to root. */
static void as_somebody(void)
{
	if (geteuid() == 0)
		assert_int_equal(seteuid(65534), 0);
}

/* The system's engine is there, and not for this user. */
static void a_closed_socket_hides_no_open_one(void **state)
{
	struct user *u = *state;
	put(u, "run/docker.sock", "", 0);
	assert_int_equal(chmod(u->dir, 0755), 0);
	as_somebody();
	expect(u, "docker", ERROR_NONE, "unix://~/run/docker.sock", "the default socket"); /* so that its error says why */
	assert_int_equal(seteuid(getuid()), 0);
	put(u, "run/user/1000/docker.sock", "", 0666);
	as_somebody();
	expect(u, "docker", ERROR_NONE, "unix://~/run/user/1000/docker.sock", "the socket of rootless Docker");
	assert_int_equal(seteuid(getuid()), 0);
}

static void variables_come_before_contexts(void **state)
{
	struct user *u = *state;
	put(u, "run/docker.sock", "", 0600);
	put(u, "home/.docker/contexts/meta/" WORK_SHA "/meta.json", "{\"Name\":\"work\",\"Endpoints\":{\"docker\":{\"Host\":\"unix:///srv/work.sock\",\"SkipTLSVerify\":false}}}", 0600);
	put(u, "home/.docker/contexts/meta/" FAR_SHA "/meta.json", "{\"Name\":\"far\",\"Endpoints\":{\"docker\":{\"Host\":\"ssh://me@far\"}}}", 0600);
	expect(u, "docker", ERROR_NONE, "unix://~/run/docker.sock", "the default socket");
	put(u, "home/.docker/config.json", "{\"currentContext\":\"default\"}", 0600);
	expect(u, "docker", ERROR_NONE, "unix://~/run/docker.sock", "the default socket");
	put(u, "home/.docker/config.json", "{\"currentContext\":\"work\"}", 0600);
	expect(u, "docker", ERROR_NONE, "unix:///srv/work.sock", "context work (currentContext of config.json)");
	set(u, "DOCKER_CONTEXT", "far");
	expect(u, "docker", ERROR_CONFIG_INVALID, "context 'far' (DOCKER_CONTEXT): an engine behind ssh (ssh://me@far) is not supported", NULL);
	set(u, "DOCKER_CONTEXT", "gone");
	expect(u, "docker", ERROR_CONFIG_INVALID, "context 'gone' (DOCKER_CONTEXT) cannot be read", NULL);
	set(u, "DOCKER_CONTEXT", "default");
	expect(u, "docker", ERROR_NONE, "unix://~/run/docker.sock", "the default socket");
	set(u, "DOCKER_CONTEXT", "work");
	set(u, "DOCKER_HOST", "tcp://127.0.0.1:1");
	expect(u, "docker", ERROR_NONE, "tcp://127.0.0.1:1", "DOCKER_HOST");
	set(u, "DOCKER_HOST", "");
	expect(u, "docker", ERROR_NONE, "unix:///srv/work.sock", "context work (DOCKER_CONTEXT)");
	set(u, "DOCKER_CONFIG", "~/elsewhere");
	expect(u, "docker", ERROR_CONFIG_INVALID, "context 'work' (DOCKER_CONTEXT) cannot be read", NULL);
	/* Podman has nothing of this */
	expect(u, "podman", ERROR_BACKEND_UNREACHABLE, "no socket of Podman", NULL);
	set(u, "CONTAINER_HOST", "unix:///srv/podman.sock");
	expect(u, "podman", ERROR_NONE, "unix:///srv/podman.sock", "CONTAINER_HOST");
	/* and an address of the file's is none of the user's variables */
	expect(u, "unix:///srv/named.sock", ERROR_NONE, "unix:///srv/named.sock", "x-aether.backend");
}

static void addresses(void **state)
{
	struct user *u = *state;
	static const struct {
		const char *host, *http, *says;
		bool elsewhere;
	} cases[] = {{"tcp://127.0.0.1:2375", "http://127.0.0.1:2375", NULL, false},
	             {"tcp://box", "http://box:2375", NULL, true},
	             {"tcp://[::1]:77", "http://[::1]:77", NULL, false},
	             {"tcp://[::1]", "http://[::1]:2375", NULL, false},
	             {"tcp://[fe80::1]", "http://[fe80::1]:2375", NULL, true},
	             {"tcp://box:77/", "http://box:77", NULL, true},
	             {"localhost:2375", "http://localhost:2375", NULL, false},
	             {"ssh://me@box", NULL, "DOCKER_HOST: an engine behind ssh (ssh://me@box) is not supported"},
	             {"npipe:////./pipe/x", NULL, "DOCKER_HOST: npipe"},
	             {"unix://docker.sock", NULL, "is no address of an engine"},
	             {"/run/docker.sock", NULL, "is no address of an engine"},
	             {"nonsense", NULL, "is no address of an engine"}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const struct engine_places places = {variable, u, u->dir, u->uid};
		cleanup_engine_target struct engine_target t = ENGINE_TARGET_INIT;
		cleanup_error struct error err = ERROR_INIT;
		set(u, "DOCKER_HOST", cases[i].host);
		if (cases[i].says) {
			expect(u, "docker", ERROR_CONFIG_INVALID, cases[i].says, NULL);
			continue;
		}
		assert_int_equal(engine_target_find("docker", &places, &t, &err), 0);
		assert_null(t.socket_path);
		assert_string_equal(t.http_url, cases[i].http);
		assert_int_equal(engine_target_is_elsewhere(&t), cases[i].elsewhere);
	}
}

static void a_socket_is_here(void **state)
{
	cleanup_engine_target struct engine_target t = ENGINE_TARGET_INIT;
	assert_int_equal(engine_target_parse("unix:///srv/docker.sock", &t, NULL), 0);
	assert_false(engine_target_is_elsewhere(&t));
}

static void with_certificates_it_is_https(void **state)
{
	struct user *u = *state;
	const struct engine_places places = {variable, u, u->dir, u->uid};
	cleanup_engine_target struct engine_target of_variable = ENGINE_TARGET_INIT, of_context = ENGINE_TARGET_INIT;
	cleanup_free char *ca = xasprintf("%s/certs/ca.pem", u->dir);
	put(u, "home/.docker/contexts/meta/" WORK_SHA "/meta.json", "{\"Name\":\"work\",\"Endpoints\":{\"docker\":{\"Host\":\"tcp://box:2376\"}}}", 0600);
	put(u, "home/.docker/contexts/tls/" WORK_SHA "/docker/ca.pem", "x", 0600);
	set(u, "DOCKER_CONTEXT", "work");
	assert_int_equal(engine_target_find("docker", &places, &of_context, NULL), 0);
	assert_string_equal(of_context.http_url, "https://box:2376");
	assert_non_null(of_context.ca);
	assert_null(of_context.cert);
	set(u, "DOCKER_HOST", "tcp://box");
	set(u, "DOCKER_TLS_VERIFY", "1");
	set(u, "DOCKER_CERT_PATH", "~/certs");
	assert_int_equal(engine_target_find("docker", &places, &of_variable, NULL), 0);
	assert_string_equal(of_variable.http_url, "https://box:2376");
	assert_string_equal(of_variable.ca, ca);
}

/* What knows an engine by its address alone (exec, cleanup) speaks to it as its user does. */
static void an_address_keeps_its_certificates(void **state)
{
	static const char url[] = "tcp://box:2376", *const asked[] = {"docker", url};
	setenv("DOCKER_HOST", url, 1);
	setenv("DOCKER_TLS_VERIFY", "1", 1);
	setenv("DOCKER_CERT_PATH", "/certs", 1);
	for (size_t i = 0; i < 2; i++) {
		cleanup_engine_target struct engine_target t = ENGINE_TARGET_INIT, other = ENGINE_TARGET_INIT;
		assert_int_equal(engine_target_resolve(asked[i], url, &t, NULL), 0);
		assert_string_equal(t.http_url, "https://box:2376");
		assert_int_equal(engine_target_resolve(asked[i], "tcp://elsewhere:1", &other, NULL), 0);
		assert_string_equal(other.http_url, "http://elsewhere:1");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(sockets_come_in_dockers_order, begin, end),
	    cmocka_unit_test_setup_teardown(a_closed_socket_hides_no_open_one, begin, end),
	    cmocka_unit_test_setup_teardown(variables_come_before_contexts, begin, end),
	    cmocka_unit_test_setup_teardown(addresses, begin, end),
	    cmocka_unit_test_setup_teardown(with_certificates_it_is_https, begin, end),
	    cmocka_unit_test(a_socket_is_here),
	    cmocka_unit_test(an_address_keeps_its_certificates),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
