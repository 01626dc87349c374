#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/strv.h"
#include "provisioner/template.h"

/* Hands out memory that the next look-up frees, as the contract allows. */
static const char *value(void *arg, const char *name)
{
	static const struct {
		const char *name, *value;
	} known[] = {
	    {"port", "5432"},         {"empty", ""}, {"user", "a b/\xc3\xa9"}, {"services.my.db.ports.80", "20001"},
	    {"words", "--a 'b c' d"}, {"open", "'"}, {"sql", "my\"db"}, {"lines", "a\nb\\'"},        {"braces", "{{port}}"}};
	char **last = arg;
	free(*last);
	*last = NULL;
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (!strcmp(known[i].name, name))
			return *last = xstrdup(known[i].value);
	return NULL;
}

static void expect(const char *text, const char *expected)
{
	cleanup_free char *last = NULL, *actual = NULL;
	cleanup_error struct error err = ERROR_INIT;
	int r = template_expand(text, value, &last, &actual, &err);
	if (r < 0)
		print_message("%s: %s\n", text, err.message);
	assert_int_equal(r, 0);
	assert_string_equal(actual, expected);
}

static void expect_error(const char *text, const char *part)
{
	cleanup_free char *last = NULL, *actual = NULL;
	cleanup_error struct error err = ERROR_INIT;
	assert_int_equal(template_expand(text, value, &last, &actual, &err), -EINVAL);
	assert_int_equal(err.code, ERROR_CONFIG_INVALID);
	if (!strstr(err.message, part))
		print_message("%s: %s\n", text, err.message);
	assert_non_null(strstr(err.message, part));
}

static void names(void **state)
{
	expect("", "");
	expect("nothing { } }} here", "nothing { } }} here");
	expect("{{port}}", "5432");
	expect(":{{ port }}/{{empty}}x", ":5432/x");
	expect("{{services.my.db.ports.80}}", "20001");
	expect("{{braces}}", "{{port}}");
	expect("{{\"{{\"}}", "{{");
}

static void alternatives(void **state)
{
	expect("{{port ?? empty}}", "5432");
	expect("{{empty ?? port}}", "5432");
	expect("{{empty??port??user}}", "5432");
	expect("{{empty ?? \"text\"}}", "text");
	expect("{{empty ?? \"\" ?? \"a\\\"b\\\\\"}}", "a\"b\\");
	expect("{{port ?? not.known}}", "5432"); /* only names of text that is taken are asked for */
}

static void filters(void **state)
{
	expect("{{user|urlencode}}", "a%20b%2F%C3%A9");
	expect("{{empty ?? user | urlencode}}", "a%20b%2F%C3%A9");
	expect("{{sql|sql_identifier}}", "\"my\"\"db\"");
	expect("{{lines|sql_identifier}}", "U&\"a\\000ab\\\\'\""); /* one line, and no way out of it */
	expect("{{lines|sql_literal}}", "E'a\\x0ab\\\\'''");
	expect("{{port|unless \"5432\"}}", "");
	expect("{{port|unless \"543\"}}", "5432");
	expect("{{port|prefix \":\"|suffix \"/\"}}", ":5432/");
	expect("{{empty|prefix \":\"|suffix \"/\"}}", "");
}

static void malformed(void **state)
{
	expect_error("{{", "missing");
	expect_error("{{port", "closing '}}'");
	expect_error("{{port}", "something other");
	expect_error("{{}}", "missing");
	expect_error("{{port port}}", "something other");
	expect_error("{{port ??}}", "missing");
	expect_error("{{port ?? \"x}}", "closing quote");
	expect_error("{{port|}}", "missing");
	expect_error("{{port|shout}}", "unknown filter 'shout'");
	expect_error("{{port|unless}}", "text in double quotes");
	expect_error("{{nope}}", "unknown name 'nope'");
	expect_error("{{{port}}}", "missing");
}

static void collect(void *arg, const char *name)
{
	buffer_printf(arg, "%s,", name);
}

static void all_names_are_told(void **state)
{
	cleanup_buffer struct buffer out = BUFFER_INIT;
	assert_int_equal(template_names("a{{b}}{{c.d ?? e|urlencode}}{{\"f\" ?? g}}", collect, &out, NULL), 0);
	assert_string_equal(buffer_str(&out), "b,c.d,e,g,");
	assert_int_equal(template_names("{{b}} {{", collect, &out, NULL), -EINVAL);
}

static void commands(void **state)
{
	char program[] = "x{{port}}", all[] = "{{words...}}", none[] = "{{empty...}}", part[] = "a{{words}}", last[] = "";
	char *const argv[] = {program, all, none, part, last, NULL};
	cleanup_free char *memory = NULL;
	cleanup_strv char **out = NULL;
	assert_int_equal(template_expand_argv(argv, value, &memory, &out, NULL), 0);
	static const char *const expected[] = {"x5432", "--a", "b c", "d", "a--a 'b c' d", ""};
	assert_int_equal(strv_len(out), 6);
	for (size_t i = 0; i < 6; i++)
		assert_string_equal(out[i], expected[i]);
}

static void commands_fail_as_a_whole(void **state)
{
	char open_quote[] = "{{open...}}", unknown[] = "{{nope...}}", half[] = "x{{words...}}";
	char *const bad[][2] = {{open_quote, NULL}, {unknown, NULL}, {half, NULL}};
	for (size_t i = 0; i < 3; i++) {
		cleanup_free char *memory = NULL;
		char **out = NULL;
		assert_int_equal(template_expand_argv(bad[i], value, &memory, &out, NULL), -EINVAL);
		assert_null(out);
	}
}

static void urls(void **state)
{
	cleanup_free char *plain = url_encode("aZ09-._~"), *other = url_encode(":/?#[]@!$&'()*+,;=% \x7f\xff");
	assert_string_equal(plain, "aZ09-._~");
	assert_string_equal(other, "%3A%2F%3F%23%5B%5D%40%21%24%26%27%28%29%2A%2B%2C%3B%3D%25%20%7F%FF");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(names),
	    cmocka_unit_test(alternatives),
	    cmocka_unit_test(filters),
	    cmocka_unit_test(malformed),
	    cmocka_unit_test(all_names_are_told),
	    cmocka_unit_test(commands),
	    cmocka_unit_test(commands_fail_as_a_whole),
	    cmocka_unit_test(urls),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
