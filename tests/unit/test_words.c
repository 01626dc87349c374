/* Splitting as sh does, compared with sh itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/strv.h"
#include "provisioner/config.h"

static char *split(const char *text)
{
	cleanup_strv char **words = NULL;
	struct buffer out = BUFFER_INIT;
	assert_int_equal(config_split_words(text, &words, NULL), 0);
	for (char **w = words; *w; w++)
		buffer_printf(&out, "[%s]", *w);
	return buffer_detach(&out);
}

/* What a shell hands to a program. `text` holds nothing that a shell expands. */
static char *split_by_shell(const char *text)
{
	struct buffer out = BUFFER_INIT;
	cleanup_free char *command = xasprintf("printf '[%%s]' %s", text);
	FILE *f = popen(command, "r");
	char part[256];
	assert_non_null(f);
	for (size_t n; (n = fread(part, 1, sizeof part, f)) > 0;)
		buffer_add(&out, part, n);
	assert_int_equal(pclose(f), 0);
	return buffer_detach(&out);
}

static void as_a_shell(void **state)
{
	static const char *const texts[] = {
	    "one",
	    "redis-server --save '' --appendonly no",
	    "a  b\tc",
	    "'a b' \"c d\"",
	    "a'b'\"c\"d",
	    "a\\ b \\\\ \\'",
	    "\"a\\\"b\\\\c\\d\"",
	    "'a\\b'",
	    "\"it's\" 'say \"it\"'",
	    "''",
	    "x''y \"\"",
	    "a\\\nb",
	    "\"a\\\nb\"",
	    "-c 'shared_preload_libraries=pg_stat_statements' -c max_connections=200",
	    "\xc3\xa4 '\xe2\x82\xac'",
	};
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		cleanup_free char *ours = split(texts[i]), *theirs = split_by_shell(texts[i]);
		assert_string_equal(ours, theirs);
	}
}

static void nothing_is_expanded(void **state)
{
	cleanup_free char *words = split("echo $HOME * ~ | cat > x; y && z # w `a` $(b)");
	assert_string_equal(words, "[echo][$HOME][*][~][|][cat][>][x;][y][&&][z][#][w][`a`][$(b)]");
}

static void blanks_alone_are_no_word(void **state)
{
	cleanup_free char *none = split(""), *blanks = split(" \t\n "), *lines = split("a\n\n  b\r\n");
	assert_string_equal(none, "");
	assert_string_equal(blanks, "");
	assert_string_equal(lines, "[a][b]");
}

static void what_is_open_is_refused(void **state)
{
	static const char *const texts[] = {"'a", "a\"b", "a \\", "\"a\\\"", "a 'b' 'c"};
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		cleanup_error struct error err = ERROR_INIT;
		char **words = NULL;
		assert_int_equal(config_split_words(texts[i], &words, &err), -EINVAL);
		assert_int_equal(err.code, ERROR_CONFIG_INVALID);
		assert_null(words);
	}
}

static void joined_words_split_again(void **state)
{
	char a[] = "plain", b[] = "", c[] = "it's \"two\" words\\", d[] = "\n$x'", e[] = "''";
	char *const words[] = {a, b, c, d, e, NULL};
	cleanup_free char *text = config_join_words(words);
	cleanup_strv char **again = NULL;
	assert_int_equal(config_split_words(text, &again, NULL), 0);
	assert_int_equal(strv_len(again), 5);
	for (size_t i = 0; i < 5; i++)
		assert_string_equal(again[i], words[i]);
	cleanup_free char *none = config_join_words(NULL);
	assert_string_equal(none, "");
}

static void their_number_is_bounded(void **state)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	char **words = NULL;
	for (unsigned i = 0; i <= CONFIG_WORDS_MAX; i++)
		buffer_adds(&text, "a ");
	assert_int_equal(config_split_words(buffer_str(&text), &words, NULL), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(as_a_shell),
	    cmocka_unit_test(nothing_is_expanded),
	    cmocka_unit_test(blanks_alone_are_no_word),
	    cmocka_unit_test(what_is_open_is_refused),
	    cmocka_unit_test(joined_words_split_again),
	    cmocka_unit_test(their_number_is_bounded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
