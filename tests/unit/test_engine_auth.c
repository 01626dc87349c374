/* backends/engine_auth: names of images, and what docker's configuration says of their registries. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "backends/engine_auth.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"

static char scratch[] = "/tmp/aether-auth-XXXXXX";

static void test_names(void **state)
{
	static const struct {
		const char *image, *registry, *repository, *tag;
	} cases[] = {
	    {"postgres", "docker.io", "postgres", "latest"},
	    {"postgres:16", "docker.io", "postgres", "16"},
	    {"bitnami/postgresql:16", "docker.io", "bitnami/postgresql", "16"},
	    {"ghcr.io/x/y", "ghcr.io", "ghcr.io/x/y", "latest"},
	    {"localhost/x", "localhost", "localhost/x", "latest"},
	    {"host:5000/x:1", "host:5000", "host:5000/x", "1"},
	    {"x@sha256:ab", "docker.io", "x", "sha256:ab"},
	    {"x:1@sha256:ab", "docker.io", "x", "sha256:ab"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct engine_image_name n;
		engine_image_name_parse(cases[i].image, &n);
		assert_string_equal(n.registry, cases[i].registry);
		assert_string_equal(n.repository, cases[i].repository);
		assert_string_equal(n.tag, cases[i].tag);
		engine_image_name_release(&n);
	}
}

/* "": none. The URL's base64, decoded, has these words. */
static void expect(const char *config, const char *registry, bool header, enum error_code code)
{
	cleanup_free char *path = xasprintf("%s/config.json", scratch);
	const struct engine_places places = {.run = ""};
	cleanup_error struct error err = ERROR_INIT;
	assert_int_equal(file_write_atomic(AT_FDCWD, path, config, strlen(config), 0600), 0);
	cleanup_free char *got = engine_auth_lookup(registry, &places, &err);
	if (!got != !header || err.code != code)
		fail_msg("%s: %s, %s", config, got ? got : "no header", err.message ? err.message : "no error");
}

static void helper(const char *name, const char *script)
{
	cleanup_free char *path = xasprintf("%s/docker-credential-%s", scratch, name);
	assert_int_equal(file_write_atomic(AT_FDCWD, path, script, strlen(script), 0755), 0);
}

static void test_configurations(void **state)
{
	expect("{\"auths\":{\"r\":{\"auth\":\"dXNlcjpwYXNz\"}}}", "r", true, ERROR_NONE);
	expect("{\"auths\":{\"https://r\":{\"auth\":\"dXNlcjpwYXNz\"}}}", "r", true, ERROR_NONE);
	expect("{\"auths\":{\"https://index.docker.io/v1/\":{\"auth\":\"dXNlcjpwYXNz\"}}}", "docker.io", true, ERROR_NONE);
	expect("{\"auths\":{\"r\":{\"identitytoken\":\"abc\"}}}", "r", true, ERROR_NONE);
	expect("{\"auths\":{\"https://r/v2/\":{\"auth\":\"dXNlcjpwYXNz\"}}}", "r", true, ERROR_NONE);
	expect("{\"auths\":{\"http://r:5000\":{\"auth\":\"dXNlcjpwYXNz\"}}}", "r:5000", true, ERROR_NONE);
	expect("{\"auths\":{\"https://r:5000\":{\"auth\":\"dXNlcjpwYXNz\"},\"r/5000\":{\"auth\":\"dXNlcjpwYXNz\"}}}", "r:500", false, ERROR_NONE);
	expect("{\"auths\":{\"other\":{\"auth\":\"dXNlcjpwYXNz\"}}}", "r", false, ERROR_NONE);
	static const char *const bad[] = {"", "{", "[]", "null", "{\"auths\":[]}", "{\"auths\":{\"r\":3}}", "{\"auths\":{\"r\":{\"auth\":7}}}", "{\"auths\":{\"r\":{\"auth\":\"=\"}}}",
	                                  "{\"auths\":{\"r\":{\"auth\":\"//86/w==\"}}}" /* 0xff 0xff ':' 0xff */, "{\"auths\":{\"r\":{\"auth\":\"dXNlcg==\"}}}", "{\"credHelpers\":{\"r\":5}}"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		expect(bad[i], "r", false, ERROR_NONE);
}

static void test_helpers(void **state)
{
	helper("good", "#!/bin/sh\nread -r server\nprintf '{\"ServerURL\":\"%s\",\"Username\":\"u\",\"Secret\":\"s\"}' \"$server\"\n");
	helper("none", "#!/bin/sh\necho 'credentials not found in native keychain'\nexit 1\n");
	helper("mad", "#!/bin/sh\nexec cat /dev/zero\n");
	helper("deaf", "#!/bin/sh\nexec <&-\nprintf '{\"Username\":\"<token>\",\"Secret\":\"s\"}'\n");
	expect("{\"credsStore\":\"good\"}", "r", true, ERROR_NONE);
	expect("{\"credHelpers\":{\"r\":\"deaf\"},\"credsStore\":\"none\"}", "r", true, ERROR_NONE);
	expect("{\"credsStore\":\"none\"}", "r", false, ERROR_NONE);
	helper("angry", "#!/bin/sh\necho 'no session: log in first'\nexit 1\n");
	helper("broken", "#!/bin/sh\nprintf '\\377'\nexit 3\n");
	expect("{\"credsStore\":\"angry\"}", "r", false, ERROR_IMAGE_AUTH);
	expect("{\"credsStore\":\"broken\"}", "r", false, ERROR_IMAGE_AUTH);
	expect("{\"credsStore\":\"mad\"}", "r", false, ERROR_IMAGE_AUTH);
	expect("{\"credsStore\":\"of-another-machine\"}", "r", false, ERROR_IMAGE_AUTH);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_names), cmocka_unit_test(test_configurations), cmocka_unit_test(test_helpers)};
	if (!mkdtemp(scratch))
		return 1;
	cleanup_free char *path = xasprintf("%s:/usr/bin:/bin", scratch);
	signal(SIGPIPE, SIG_IGN); /* as the server does */
	setenv("DOCKER_CONFIG", scratch, 1);
	setenv("PATH", path, 1);
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	tree_remove(AT_FDCWD, scratch);
	return failed;
}
