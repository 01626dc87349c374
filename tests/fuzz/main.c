/* Runs a fuzzer's function without libFuzzer: over the files given; without any over its corpus and what random changes
 * make of it, always the same ones. A failure leaves the input in the file `fuzz-failure` of the working directory. */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"

#define ROUNDS 30000
#define INPUT_MAX (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned seed = 20260131;

static size_t below(size_t n)
{
	return n ? (size_t)rand_r(&seed) % n : 0;
}

static void feed(const struct buffer *input)
{
	/* of its exact size, so that a sanitizer sees a read behind it */
	cleanup_free uint8_t *copy = xcalloc(1, input->len ? input->len : 1);
	if (input->len)
		memcpy(copy, input->data, input->len);
	static int fd = -1;
	if (fd < 0)
		fd = open("fuzz-failure", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0 && (ftruncate(fd, 0) || pwrite(fd, copy, input->len, 0) < 0))
		fprintf(stderr, "fuzz-failure cannot be written\n");
	LLVMFuzzerTestOneInput(copy, input->len);
}

/* Takes a piece of one, or its beginning, puts in a piece of another, changes bytes. */
static void mutate(const struct buffer *corpus, size_t count, struct buffer *out)
{
	if (below(2)) {
		const struct buffer *from = &corpus[below(count)];
		buffer_add(out, buffer_str(from), below(from->len + 1));
	}
	static const char bytes[] = "\n\r\t '\"\\$#={}:~@/[]-&*!|>%,";
	for (size_t pieces = 1 + below(4); pieces; pieces--) {
		const struct buffer *from = &corpus[below(count)];
		size_t start = below(from->len + 1), len = below(from->len - start + 1);
		buffer_add(out, buffer_str(from) + start, len < 400 ? len : 400);
	}
	for (size_t changes = below(6); changes && out->len; changes--)
		out->data[below(out->len)] = below(4) ? bytes[below(sizeof bytes)] : (char)below(256);
}

/* new: the corpus of this fuzzer; another user sees a copy of the tests only, which TESTS names. */
static char *corpus_directory(void)
{
	const char *tests = getenv("TESTS");
	return tests ? xasprintf("%s/data/fuzz/%s", tests, FUZZ_NAME) : xstrdup(FUZZ_CORPUS);
}

static size_t read_corpus(struct buffer **ret)
{
	size_t count = 0;
	cleanup_free char *dir = corpus_directory();
	cleanup_closedir DIR *d = opendir(dir);
	for (struct dirent *e; d && (e = readdir(d));) {
		cleanup_free char *path = xasprintf("%s/%s", dir, e->d_name);
		struct buffer b = BUFFER_INIT;
		if (e->d_name[0] == '.' || file_read(AT_FDCWD, path, INPUT_MAX, &b))
			continue;
		array_grow(*ret, count);
		(*ret)[count++] = b;
	}
	return count;
}

int main(int argc, char **argv)
{
	struct buffer *corpus = NULL;
	for (int i = 1; i < argc; i++) {
		cleanup_buffer struct buffer input = BUFFER_INIT;
		if (!file_read(AT_FDCWD, argv[i], INPUT_MAX, &input))
			feed(&input);
	}
	size_t count = argc > 1 ? 0 : read_corpus(&corpus);
	if (argc == 1 && !count) {
		fprintf(stderr, "there is no corpus for %s\n", FUZZ_NAME);
		return 1;
	}
	for (size_t i = 0; i < count; i++)
		feed(&corpus[i]);
	for (int round = 0; count && round < ROUNDS; round++) {
		cleanup_buffer struct buffer input = BUFFER_INIT;
		mutate(corpus, count, &input);
		feed(&input);
	}
	for (size_t i = 0; i < count; i++)
		buffer_release(&corpus[i]);
	free(corpus);
	remove("fuzz-failure");
	printf("[       OK ] fuzz_" FUZZ_NAME "\n"); /* as cmocka says it, for tests/run */
	return 0;
}
