/* What people are shown of images that are pulled. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/strv.h"
#include "cli/pulls.h"

static json_t *layer(const char *id, const char *status, int current, int total)
{
	return json_pack("{s:s, s:s, s:i, s:i}", "id", id, "status", status, "current", current, "total", total);
}

/* steals `pulls` */
static void expect(json_t *pulls, unsigned rows, const char *expected)
{
	cleanup_strv char **lines = NULL;
	cleanup_buffer struct buffer text = BUFFER_INIT;
	pulls_lines(pulls, rows, &lines);
	json_decref(pulls);
	assert_true(strv_len(lines) <= rows);
	for (char **line = lines; line && *line; line++)
		buffer_printf(&text, "%s\n", *line);
	assert_string_equal(buffer_str(&text), expected);
}

static json_t *postgres(void)
{
	json_t *layers = json_pack("[o, o, o, o, o, o]", layer("aaaaaaaaaaaa", "Already exists", 0, 0), layer("bbbbbbbbbbbb", "Pull complete", 2000, 2000),
	                           layer("cccccccccccc", "Extracting", 500000, 5742224), layer("dddddddddddd", "Download complete", 999, 999),
	                           layer("eeeeeeeeeeee", "Downloading", 12300000, 31494043), layer("ffffffffffff", "Waiting", 0, 0));
	return json_pack("{s:s, s:i, s:o}", "image", "postgres:16", "percent", 48, "layers", layers);
}

static void layers_as_docker_shows_them(void **state)
{
	expect(json_pack("[o]", postgres()), 20,
	       "postgres:16: 2 of 6 layers, 18.0 MB of 37.2 MB\n"
	       "  aaaaaaaaaaaa Already exists\n"
	       "  bbbbbbbbbbbb Pull complete      2.0 kB\n"
	       "  cccccccccccc Extracting         500.0 kB of 5.7 MB\n"
	       "  dddddddddddd Download complete  999 B\n"
	       "  eeeeeeeeeeee Downloading        12.3 MB of 31.5 MB\n"
	       "  ffffffffffff Waiting\n");
}

static void what_is_worked_on_comes_first_where_there_is_no_room(void **state)
{
	expect(json_pack("[o]", postgres()), 5,
	       "postgres:16: 2 of 6 layers, 18.0 MB of 37.2 MB\n"
	       "  cccccccccccc Extracting         500.0 kB of 5.7 MB\n"
	       "  dddddddddddd Download complete  999 B\n"
	       "  eeeeeeeeeeee Downloading        12.3 MB of 31.5 MB\n"
	       "  ffffffffffff Waiting\n");
	expect(json_pack("[o]", postgres()), 2, "postgres:16: 2 of 6 layers, 18.0 MB of 37.2 MB\n  cccccccccccc Extracting         500.0 kB of 5.7 MB\n");
	expect(json_pack("[o]", postgres()), 1, "postgres:16: 2 of 6 layers, 18.0 MB of 37.2 MB\n");
	expect(json_pack("[o]", postgres()), 0, "");
}

static json_t *small(const char *image)
{
	return json_pack("{s:s, s:[o]}", "image", image, "layers", layer("x", "Pulling fs layer", 0, 0));
}

static void images_share_the_room(void **state)
{
	/* two services have the same image: it is one */
	expect(json_pack("[o, o, o]", postgres(), small("redis:7"), postgres()), 5,
	       "postgres:16: 2 of 6 layers, 18.0 MB of 37.2 MB\n"
	       "  cccccccccccc Extracting         500.0 kB of 5.7 MB\n"
	       "redis:7: 0 of 1 layers\n"
	       "  x            Pulling fs layer\n");
	expect(json_pack("[o, o, o]", small("a"), small("b"), small("c")), 2, "a: 0 of 1 layers\nb: 0 of 1 layers\n");
	expect(json_array(), 5, "");
}

/* Engines that do not say how much there is; Podman has no word for what is extracted. */
static void numbers_that_are_missing(void **state)
{
	json_t *layers = json_pack("[o, o, {s:s}, s]", layer("u", "Downloading", 1500, 0), layer("v", "Retrying in 5 seconds", 0, 0), "id", "w", "nonsense");
	expect(json_pack("[{s:s, s:o}, {}, s]", "image", "app", "layers", layers, "nonsense"), 10,
	       "app: 0 of 4 layers\n"
	       "  u            Downloading        1.5 kB\n"
	       "  v            Retrying in 5 seconds\n"
	       "  w            \n"
	       "               \n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(layers_as_docker_shows_them),
	    cmocka_unit_test(what_is_worked_on_comes_first_where_there_is_no_room),
	    cmocka_unit_test(images_share_the_room),
	    cmocka_unit_test(numbers_that_are_missing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
