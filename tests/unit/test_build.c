/* What of building needs no engine: .dockerignore, the Dockerfile, the context and its archive, the engine's words. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <archive.h>
#include <archive_entry.h>

#include "backends/build.h"
#include "base/alloc.h"
#include "base/base64.h"
#include "base/cleanup.h"
#include "base/file.h"

/* ---- .dockerignore ---- */

struct ignore_case {
	const char *patterns, *path;
	bool out;
};

/* Many of them are moby's own: https://github.com/moby/patternmatcher/blob/main/patternmatcher_test.go */
static const struct ignore_case ignore_cases[] = {
    {"**", "file", true},
    {"**", "dir/file", true},
    {"**/", "file", true},
    {"**/", "dir/file", true},
    {"**/**", "dir/file", true},
    {"dir/**", "dir/file", true},
    {"dir/**", "dir/dir2/file", true},
    {"dir/**", "dir", false},
    {"**/dir", "dir", true},
    {"**/dir", "dir/file", true},
    {"**/dir2/*", "dir/dir2/file", true},
    {"**/dir2/*", "dir/dir2/dir2/file", true},
    {"**/dir2/**", "dir/dir2/dir2/file", true},
    {"**file", "file", true},
    {"**file", "dir/file", true},
    {"**file", "dir/dir/other-file", true},
    {"**/file", "dir/other-file", false},
    {"**/*.txt", "file.txt", true},
    {"**/*.txt", "dir/dir/file.txt", true},
    {"**/**/*.txt", "dir/dir/file.txt", true},
    {"**/*.txt2", "file.txt", false},
    {"a**/*.txt", "a/file.txt", true},
    {"a**/*.txt", "a/dir/file.txt", true},
    {"a/*.txt", "a/dir/file.txt", false},
    {"a/*.txt**", "a/file.txt", true},
    {"a[b-d]e", "ace", true},
    {"a[b-d]e", "aae", false},
    {"a[^b-d]e", "aze", true},
    {".*", ".foo", true},
    {".*", "foo", false},
    {"abc.def", "abcdef", false},
    {"abc.def", "abcZdef", false},
    {"abc?def", "abcZdef", true},
    {"abc?def", "abc/def", false},
    {"a\\*b", "a*b", true},
    {"a\\*b", "axb", false},
    {"**/foo/bar", "foo/bar", true},
    {"**/foo/bar", "dir/dir2/foo/bar", true},
    {"abc/**", "abc/def/ghi", true},
    {"**/.foo", ".foo", true},
    {"**/.foo", "bar.foo", false},
    {"./bar.*", "bar.foo", true},
    {"/bar", "bar", true},
    {"node_modules", "node_modules/x/y.js", true},
    {"node_modules", "sub/node_modules/y.js", false},
    {"a/../b", "b", true},
    {"dir/", "dir/file", true},
    {"*\n!README.md", "README.md", false},
    {"*\n!README.md", "src/x.c", true},
    {"*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true},
    {"*.md\nREADME-secret.md\n!README*.md", "README-secret.md", false},
    {"docs\n!docs/README.md", "docs/README.md", false},
    {"docs\n!docs/README.md", "docs/other.md", true},
    {"!docs/x\ndocs", "docs/x", true},
    {"**\n!src/**/*.c", "src/a/b.c", false},
    {"**\n!src/**/*.c", "src/a/b.h", true},
    {"# a comment\n  *.o  \r\n\n", "x.o", true},
    {"# a comment\n", "# a comment", false},
    {"! x\n", "y", false},
    {"\xef\xbb\xbf*.o", "x.o", true},
};

static void ignores(void **state)
{
	for (size_t i = 0; i < sizeof ignore_cases / sizeof *ignore_cases; i++) {
		const struct ignore_case *c = &ignore_cases[i];
		struct build_ignore *g = NULL;
		assert_int_equal(build_ignore_parse(c->patterns, &g, NULL), 0);
		if (build_ignore_matches(g, c->path) != c->out)
			fail_msg("'%s' %s '%s'", c->patterns, c->out ? "does not match" : "matches", c->path);
		build_ignore_free(g);
	}
}

static void looks_into(void **state)
{
	struct build_ignore *g = NULL;
	assert_int_equal(build_ignore_parse("*\n!src/main.c\n!doc*/x", &g, NULL), 0);
	assert_true(build_ignore_looks_into(g, "src"));
	assert_true(build_ignore_looks_into(g, "docs"));
	assert_false(build_ignore_looks_into(g, "node_modules"));
	assert_false(build_ignore_looks_into(g, "sr"));
	build_ignore_free(g);
	assert_int_equal(build_ignore_parse("node_modules\n!**/keep", &g, NULL), 0);
	assert_true(build_ignore_looks_into(g, "node_modules"));
	build_ignore_free(g);
	cleanup_error struct error err = ERROR_INIT;
	assert_true(build_ignore_parse("a\n!\n", &g, &err) < 0);
	assert_non_null(strstr(err.message, "line 2"));
}

/* ---- the Dockerfile ---- */

static const struct {
	const char *text, *images, *buildkit;
} files[] = {
    {"FROM busybox:1\nRUN true\n", "busybox:1", NULL},
    {"from a AS x\nFROM b\nCOPY --from=x /y /z\nCOPY --from=c /y /z\nCOPY --from=0 / /", "a b c", NULL},
    {"ARG V=3\nFROM alpine:${V}\nFROM scratch\nFROM ${NONE}", "alpine:3", NULL},
    {"ARG GIVEN=1\nARG \"Q=2\"\nFROM a:$GIVEN-${OTHER:-x}", "a:given-x", NULL},
    {"# syntax=docker/dockerfile:1\nFROM a\n", "a", NULL},
    {"#syntax = other/frontend\nFROM a\n", "a", "# syntax= with another frontend"},
    {"FROM a\n# syntax=late/one\n", "a", NULL},
    {"FROM a\nRUN --mount=type=cache,target=/x true\n", "a", "RUN --mount"},
    {"FROM a\nRUN \\\n  # why\n  --mount=type=bind,from=b,target=/x \\\n\n  true", "a b", "RUN --mount"},
    {"FROM a\nRUN <<EOF\nFROM no\nEOF\nRUN x\nFROM b", "a b", "heredocs (<<EOF)"},
    {"FROM a\nCOPY <<-'ONE' <<TWO /x/\nFROM no\n\tONE\nFROM no\nTWO\nFROM b", "a b", "heredocs (<<EOF)"},
    {"FROM a\nRUN cat <<<word && echo $((1<<2)) && x << y\n", "a", NULL},
    {"FROM --platform=$BUILDPLATFORM a\n", "a", "FROM --platform=$BUILDPLATFORM"},
    {"FROM --platform=linux/amd64 a\nARG TARGETARCH=x\n", "a", NULL},
    {"FROM a\nARG TARGETARCH\n", "a", "ARG TARGETPLATFORM and its kind"},
    {"FROM a\nCOPY --chmod=755 x y\n", "a", "COPY --chmod"},
    {"FROM a\nCOPY --chown=1:1 x y\nADD x y\n", "a", NULL},
    {"# escape=`\nFROM a\nRUN x `\n--y\nFROM b\r\n", "a b", NULL},
    {"", "", NULL},
};

static void reads_dockerfiles(void **state)
{
	cleanup_keyvals struct keyvals args = KEYVALS_INIT;
	keyvals_set(&args, "GIVEN", "given");
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		struct build_file f;
		cleanup_buffer struct buffer images = BUFFER_INIT;
		build_file_read(files[i].text, &args, &f);
		for (char **image = f.images; image && *image; image++)
			buffer_printf(&images, "%s%s", images.len ? " " : "", *image);
		if (strcmp(buffer_str(&images), files[i].images))
			fail_msg("%zu: the images '%s' instead of '%s'", i, buffer_str(&images), files[i].images);
		if (!f.buildkit != !files[i].buildkit || (f.buildkit && strcmp(f.buildkit, files[i].buildkit)))
			fail_msg("%zu: %s instead of %s", i, f.buildkit ? f.buildkit : "nothing", files[i].buildkit ? files[i].buildkit : "nothing");
		build_file_release(&f);
	}
	struct build_file f;
	build_file_read("# syntax=docker/dockerfile:1.4\n# escape=`\nFROM a\n", &args, &f);
	assert_string_equal(f.plain, "# escape=`\nFROM a\n");
	build_file_release(&f);
}

/* ---- the context ---- */

struct place {
	char path[64];
	struct build_options options;
	struct build_spec spec;
	char context[80], dockerfile[96];
};

static void put(const struct place *p, const char *name, const char *text, mode_t mode)
{
	cleanup_free char *path = xasprintf("%s/%s", p->path, name), *dir = xstrdup(path);
	*strrchr(dir, '/') = '\0';
	assert_int_equal(dir_make(AT_FDCWD, dir, 0755), 0);
	assert_int_equal(file_write_atomic(AT_FDCWD, path, text, strlen(text), mode), 0);
	assert_int_equal(chmod(path, mode), 0);
}

static int make_place(void **state)
{
	struct place *p = xcalloc(1, sizeof *p);
	snprintf(p->path, sizeof p->path, "/tmp/aether-build-XXXXXX");
	assert_non_null(mkdtemp(p->path));
	snprintf(p->dockerfile, sizeof p->dockerfile, "%s/Dockerfile", p->path);
	p->spec = (struct build_spec){.options = &p->options, .context = p->path, .shown = "build of web (.)", .dockerfile = p->dockerfile, .key = "k"};
	put(p, "Dockerfile", "FROM busybox:1\n", 0644);
	put(p, "run", "#!/bin/sh\n", 0755);
	put(p, "src/b.c", "b", 0640);
	put(p, "src/a.c", "a", 0644);
	put(p, "src/\xc3\xa4 x", "umlaut", 0644);
	put(p, "node_modules/m/index.js", "m", 0644);
	cleanup_free char *link = xasprintf("%s/link", p->path);
	assert_int_equal(symlink("/etc/passwd", link), 0);
	*state = p;
	return 0;
}

static int drop_place(void **state)
{
	struct place *p = *state;
	tree_remove(AT_FDCWD, p->path);
	build_options_release(&p->options);
	free(p);
	return 0;
}

/* "path mode size [-> link]\n" of each entry; with `name` its text. new */
static char *listed(int fd, const char *name)
{
	struct archive *a = archive_read_new();
	struct archive_entry *e;
	struct buffer out = BUFFER_INIT;
	lseek(fd, 0, SEEK_SET);
	archive_read_support_format_tar(a);
	assert_int_equal(archive_read_open_fd(a, fd, 65536), ARCHIVE_OK);
	for (int r; (r = archive_read_next_header(a, &e)) == ARCHIVE_OK || r == ARCHIVE_WARN;) {
		char text[4096];
		ssize_t n = archive_read_data(a, text, sizeof text);
		if (name && !strcmp(archive_entry_pathname(e), name))
			buffer_add(&out, text, n > 0 ? (size_t)n : 0);
		else if (!name)
			buffer_printf(&out, "%s %o %lld%s%s %lld\n", archive_entry_pathname(e), (unsigned)archive_entry_mode(e), (long long)archive_entry_size(e),
			              archive_entry_symlink(e) ? " -> " : "", archive_entry_symlink(e) ? archive_entry_symlink(e) : "", (long long)archive_entry_uid(e));
	}
	archive_read_free(a);
	return buffer_detach(&out);
}

/* new: as `listed`; *digest as with the archive and without */
static char *packed(const struct place *p, const char *name, char digest[SHA256_HEX])
{
	cleanup_error struct error err = ERROR_INIT;
	struct build_context *c = NULL;
	cleanup_close int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	char alone[SHA256_HEX];
	if (build_context_open(&p->spec, &c, &err) || build_context_pack(c, -1, &err))
		fail_msg("%s", err.message);
	memcpy(alone, c->digest, sizeof alone);
	assert_int_equal(build_context_pack(c, fd, &err), 0);
	assert_string_equal(c->digest, alone);
	if (digest)
		memcpy(digest, c->digest, SHA256_HEX);
	build_context_free(c);
	return listed(fd, name);
}

static void same_list(const struct place *p, const char *expected)
{
	cleanup_free char *list = packed(p, NULL, NULL);
	assert_string_equal(list, expected);
}

static void packs(void **state)
{
	struct place *p = *state;
	put(p, ".dockerignore", "node_modules\n", 0644);
	same_list(p, ".dockerignore 100644 13 0\n"
	             "Dockerfile 100644 15 0\n"
	             "link 120777 0 -> /etc/passwd 0\n"
	             "run 100755 10 0\n"
	             "src/ 40755 0 0\n"
	             "src/a.c 100644 1 0\n"
	             "src/b.c 100640 1 0\n"
	             "src/\xc3\xa4 x 100644 6 0\n");
	put(p, ".dockerignore", "*\n!src/a.c\n", 0644);
	same_list(p, "src/ 40755 0 0\nsrc/a.c 100644 1 0\n.dockerfile.aether 100644 15 0\n.dockerignore 100644 34 0\n");
	cleanup_free char *ignore = packed(p, ".dockerignore", NULL);
	assert_string_equal(ignore, "\n.dockerfile.aether\n.dockerignore\n");
}

static void digests(void **state)
{
	struct place *p = *state;
	char first[SHA256_HEX], second[SHA256_HEX];
	p->spec.vcs = "";
	free(packed(p, NULL, first));
	put(p, "src/a.c", "a", 0644); /* another file of the same text */
	put(p, ".git/HEAD", "ref", 0644);
	put(p, ".jj/x/y", "z", 0644);
	free(packed(p, NULL, second));
	assert_string_equal(first, second);
	cleanup_free char *head = packed(p, ".git/HEAD", NULL);
	assert_string_equal(head, "ref");
	static const struct {
		const char *name, *text;
		mode_t mode;
	} changes[] = {{"src/a.c", "A", 0644}, {"src/a.c", "A", 0755}, {"new", "", 0644}, {"Dockerfile", "FROM busybox:2\n", 0644}, {".dockerignore", "nothing\n", 0644}};
	for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
		put(p, changes[i].name, changes[i].text, changes[i].mode);
		free(packed(p, NULL, second));
		if (!strcmp(first, second))
			fail_msg("change %zu goes unseen", i);
		memcpy(first, second, sizeof first);
	}
}

static uint64_t stamp_of(const struct place *p)
{
	struct build_context *c = NULL;
	assert_int_equal(build_context_open(&p->spec, &c, NULL), 0);
	uint64_t stamp = c->stamp;
	build_context_free(c);
	return stamp;
}

static void stamps(void **state)
{
	struct place *p = *state;
	p->spec.vcs = "";
	uint64_t first = stamp_of(p);
	put(p, ".git/HEAD", "ref", 0644);
	assert_true(first == stamp_of(p));
	put(p, "node_modules/m/index.js", "n", 0644);
	uint64_t second = stamp_of(p);
	assert_true(first != second);
	put(p, ".dockerignore", "node_modules\n", 0644);
	uint64_t third = stamp_of(p);
	put(p, "node_modules/m/index.js", "o", 0644);
	assert_true(second != third && third == stamp_of(p));
}

static void leaves_out_ours(void **state)
{
	struct place *p = *state;
	put(p, ".aether/status.json", "{}", 0644);
	put(p, ".env", "GENERATED=1\n", 0600);
	put(p, ".env.user", "OWN=1\n", 0600);
	p->spec.control = ".aether";
	p->spec.env = ".env";
	p->spec.env_own = ".env.user";
	cleanup_free char *list = packed(p, NULL, NULL), *own = packed(p, ".env", NULL);
	assert_null(strstr(list, ".aether"));
	assert_null(strstr(list, ".env.user"));
	assert_string_equal(own, "OWN=1\n");
	p->spec.env_own = ".env"; /* the overlay: what lies beneath is the user's */
	cleanup_free char *beneath = packed(p, ".env", NULL);
	assert_string_equal(beneath, "GENERATED=1\n");
}

/* A context above the workspace: what lies there beneath our mount is taken from beneath it. */
static void workspace_below(void **state)
{
	struct place *p = *state;
	char beneath[] = "/tmp/aether-beneath-XXXXXX";
	assert_non_null(mkdtemp(beneath));
	put(p, "ws/covered", "seen through the mount", 0644);
	cleanup_free char *file = xasprintf("%s/beneath", beneath), *git = xasprintf("%s/.git", beneath), *sub = xasprintf("%s/sub", beneath), *deep = xasprintf("%s/sub/deep", beneath),
	                  *link = xasprintf("%s/link", beneath);
	assert_int_equal(file_write_atomic(AT_FDCWD, file, "beneath", 7, 0644), 0);
	assert_int_equal(file_write_atomic(AT_FDCWD, git, "gitdir", 6, 0644), 0);
	assert_int_equal(mkdir(sub, 0755), 0);
	assert_int_equal(file_write_atomic(AT_FDCWD, deep, "deep", 4, 0644), 0);
	assert_int_equal(symlink("beneath", link), 0);
	p->spec.vcs = "ws";
	p->spec.root = beneath;
	cleanup_free char *list = packed(p, NULL, NULL), *text = packed(p, "ws/beneath", NULL), *below = packed(p, "ws/sub/deep", NULL);
	assert_null(strstr(list, "covered"));
	assert_non_null(strstr(list, "\nws/link 120777 0 -> beneath"));
	assert_non_null(strstr(list, "\nsrc/a.c "));
	assert_string_equal(text, "beneath");
	assert_string_equal(below, "deep");
	tree_remove(AT_FDCWD, beneath);
}

static void other_dockerfiles(void **state)
{
	struct place *p = *state;
	p->options.inline_text = xstrdup("FROM inline\n");
	p->spec.dockerfile = NULL;
	cleanup_free char *in_line = packed(p, ".dockerfile.aether", NULL);
	assert_string_equal(in_line, "FROM inline\n");
	free(p->options.inline_text);
	p->options.inline_text = NULL;
	p->options.dockerfile = xstrdup("docker/web.Dockerfile");
	snprintf(p->dockerfile, sizeof p->dockerfile, "%s/docker/web.Dockerfile", p->path);
	p->spec.dockerfile = p->dockerfile;
	put(p, "docker/web.Dockerfile", "FROM web\n", 0644);
	put(p, "docker/web.Dockerfile.dockerignore", "src\n", 0644);
	put(p, ".dockerignore", "run\n", 0644);
	cleanup_free char *list = packed(p, NULL, NULL), *ignore = packed(p, ".dockerignore", NULL);
	assert_null(strstr(list, "src/a.c"));
	assert_non_null(strstr(list, "\nrun "));
	assert_string_equal(ignore, "\n.dockerfile.aether\n");
	assert_int_equal(unlink(p->dockerfile), 0);
	cleanup_error struct error err = ERROR_INIT;
	struct build_context *c = NULL;
	assert_true(build_context_open(&p->spec, &c, &err) < 0);
	assert_int_equal(err.code, ERROR_BUILD_FAILED);
	assert_non_null(strstr(err.message, "docker/web.Dockerfile"));
}

static void copies(void **state)
{
	struct place *p = *state;
	strv_push(&p->options.tags, xstrdup("x"));
	keyvals_set(&p->options.args, "A", "1");
	keyvals_set(&p->options.args, "B", NULL);
	struct build_spec *copy = build_spec_copy(&p->spec);
	char one[SHA256_HEX], other[SHA256_HEX];
	build_options_key(copy->options, NULL, one);
	build_options_key(&p->options, NULL, other);
	assert_string_equal(one, other);
	keyvals_set(&p->options.args, "B", "");
	build_options_key(&p->options, NULL, other);
	assert_string_not_equal(one, other);
	build_options_key(copy->options, "linux/arm64", other);
	assert_string_not_equal(one, other);
	build_spec_free(copy);
}

/* ---- names ---- */

static void names(void **state)
{
	static const char *const as_they_are[] = {"web", "my-web", "a.b_c__d--e", "1"};
	static const char *const others[] = {"Web", "a..b", "-a", "a_", "a___b", "a.-b"};
	for (size_t i = 0; i < sizeof as_they_are / sizeof *as_they_are; i++) {
		cleanup_free char *name = build_image_name("ns", as_they_are[i]), *expected = xasprintf("ns-%s", as_they_are[i]);
		assert_string_equal(name, expected);
	}
	for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
		cleanup_free char *name = build_image_name("ns", others[i]), *plain = xasprintf("ns-%s", others[i]);
		assert_string_not_equal(name, plain);
		assert_int_equal(strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-"), strlen(name));
	}
}

/* ---- what an engine says ---- */

static void says(struct build_progress *p, const char *text)
{
	assert_true(build_progress_feed(p, text, strlen(text)));
}

static void progress(void **state)
{
	struct build_progress p = BUILD_PROGRESS_INIT;
	says(&p, "{\"stream\":\"Step 1/3 : FROM busybox:1\\n\"}\r\n{\"stream\":\" ---\\u003e 1a\\n\"}\n{\"str");
	assert_int_equal(p.step, 1);
	says(&p, "eam\":\"Step 2/3 : RUN make\\n\"}\n");
	assert_int_equal(p.step, 2);
	assert_int_equal(p.steps, 3);
	assert_string_equal(p.what, "RUN make");
	says(&p, "{\"stream\":\"\\u001b[91mno rule\\rhalf \"}\n{\"stream\":\"of it\\n\"}\n");
	assert_string_equal(p.lines[(p.n_lines - 1) % BUILD_LINES_MAX], "half of it");
	says(&p, "{\"errorDetail\":{\"code\":2,\"message\":\"it returned 2\"},\"error\":\"it returned 2\"}");
	build_progress_end(&p);
	assert_string_equal(p.failed.message, "it returned 2");
	build_progress_release(&p);

	p = (struct build_progress)BUILD_PROGRESS_INIT;
	says(&p, "{\"stream\":\"[1/2] STEP 1/2: FROM a AS b\\n\"}\n{\"stream\":\"STEP 4/5: RUN x\\n\"}\nno json\n");
	assert_int_equal(p.step, 4);
	for (unsigned i = 0; i < 3 * BUILD_LINES_MAX; i++)
		says(&p, "{\"stream\":\"x\\n\"}\n");
	build_progress_release(&p);
}

/* A StatusResponse with a vertex that has begun, and a line of its output; and what is none at all. */
static void buildkit_progress(void **state)
{
	struct build_progress p = BUILD_PROGRESS_INIT;
	says(&p, "{\"id\":\"moby.buildkit.trace\",\"aux\":\"Ch0KA2E6MRoQWzIvM10gUlVOIG1ha2UgYSoECAEQAhoNCgNhOjEiBm9uZQp0dw==\"}\n");
	assert_int_equal(p.step, 2);
	assert_int_equal(p.steps, 3);
	assert_string_equal(p.what, "RUN make a");
	assert_string_equal(p.lines[(p.n_lines - 1) % BUILD_LINES_MAX], "one");
	says(&p, "{\"id\":\"moby.buildkit.trace\",\"aux\":\"Gg0KA2E6MSIGb25lCnR3Ch8K//////////8B\"}\n{\"id\":\"moby.buildkit.trace\",\"aux\":\"////\"}\n");
	build_progress_end(&p);
	build_progress_release(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(ignores),
	    cmocka_unit_test(looks_into),
	    cmocka_unit_test(reads_dockerfiles),
	    cmocka_unit_test_setup_teardown(packs, make_place, drop_place),
	    cmocka_unit_test_setup_teardown(digests, make_place, drop_place),
	    cmocka_unit_test_setup_teardown(stamps, make_place, drop_place),
	    cmocka_unit_test_setup_teardown(leaves_out_ours, make_place, drop_place),
	    cmocka_unit_test_setup_teardown(workspace_below, make_place, drop_place),
	    cmocka_unit_test_setup_teardown(other_dockerfiles, make_place, drop_place),
	    cmocka_unit_test_setup_teardown(copies, make_place, drop_place),
	    cmocka_unit_test(names),
	    cmocka_unit_test(progress),
	    cmocka_unit_test(buildkit_progress),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
