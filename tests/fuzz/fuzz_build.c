/* Texts of others that building reads: a .dockerignore, a Dockerfile, what an engine says. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "backends/build.h"
#include "base/alloc.h"
#include "base/cleanup.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
	if (!holds)
		abort();
}

/* What one may not look into has nothing in it that goes along. */
static void check_ignore(const char *text)
{
	static const char *const directories[] = {"a", "node_modules", "src/a", "."};
	struct build_ignore *g = NULL;
	if (build_ignore_parse(text, &g, NULL) < 0)
		return;
	for (size_t i = 0; i < sizeof directories / sizeof *directories; i++) {
		cleanup_free char *below = xasprintf("%s/x.c", directories[i]);
		bool out = build_ignore_matches(g, directories[i]);
		require(!out || build_ignore_looks_into(g, directories[i]) || build_ignore_matches(g, below));
	}
	build_ignore_free(g);
}

static void check_dockerfile(const char *text)
{
	cleanup_keyvals struct keyvals args = KEYVALS_INIT;
	struct build_file f;
	keyvals_set(&args, "A", "a");
	build_file_read(text, &args, &f);
	for (char **image = f.images; image && *image; image++)
		require(**image && strcmp(*image, "scratch"));
	require(!f.heredocs || f.buildkit);
	build_file_release(&f);
}

static void check_progress(const char *text, size_t size)
{
	struct build_progress p = BUILD_PROGRESS_INIT;
	for (size_t i = 0; i < size; i += 7)
		build_progress_feed(&p, text + i, size - i < 7 ? size - i : 7);
	build_progress_end(&p);
	for (unsigned i = 0; i < p.n_lines && i < BUILD_LINES_MAX; i++) {
		json_t *line = json_string(p.lines[i]);
		require(line != NULL);
		json_decref(line);
	}
	build_progress_release(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size > 4000)
		return 0;
	cleanup_free char *text = xcalloc(1, size + 1);
	if (size)
		memcpy(text, data, size);
	check_ignore(text);
	check_dockerfile(text);
	check_progress(text, size);
	return 0;
}
