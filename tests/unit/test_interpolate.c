/* Compose's interpolation, case by case. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "provisioner/config.h"

static const char *variable(void *arg, const char *name)
{
	static const struct {
		const char *name, *value;
	} known[] = {{"SET", "value"}, {"EMPTY", ""}, {"DOLLAR", "$SET ${SET}"}, {"_U1", "under"}};
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (!strcmp(known[i].name, name))
			return known[i].value;
	return NULL;
}

static struct buffer heard;

static void hear(void *arg, const char *name)
{
	buffer_printf(&heard, "%s,", name);
}

static void expect(const char *text, const char *expected, const char *unset)
{
	cleanup_free char *actual = NULL;
	cleanup_error struct error err = ERROR_INIT;
	buffer_clear(&heard);
	int r = config_interpolate(text, variable, NULL, hear, &actual, &err);
	if (r < 0)
		print_message("%s: %s\n", text, err.message);
	assert_int_equal(r, 0);
	assert_string_equal(actual, expected);
	assert_string_equal(buffer_str(&heard), unset);
}

static void expect_error(const char *text, const char *part)
{
	cleanup_free char *actual = NULL;
	cleanup_error struct error err = ERROR_INIT;
	assert_int_equal(config_interpolate(text, variable, NULL, NULL, &actual, &err), -EINVAL);
	assert_null(actual);
	assert_int_equal(err.code, ERROR_CONFIG_INVALID);
	if (!strstr(err.message, part))
		print_message("%s: %s\n", text, err.message);
	assert_non_null(strstr(err.message, part));
}

static void plain(void **state)
{
	expect("", "", "");
	expect("no variables { } here", "no variables { } here", "");
	expect("$SET", "value", "");
	expect("a$SET.b", "avalue.b", "");
	expect("${SET}s", "values", "");
	expect("$_U1", "under", "");
	expect("$SETx", "", "SETx,");
	expect("[$NOPE][${NOPE}]", "[][]", "NOPE,NOPE,");
	expect("$EMPTY", "", "");
	expect("$$SET $${SET} $$$SET", "$SET ${SET} $value", "");
	expect("$DOLLAR", "$SET ${SET}", ""); /* values are not interpolated again */
}

static void defaults(void **state)
{
	expect("${NOPE:-d}", "d", "");
	expect("${NOPE-d}", "d", "");
	expect("${EMPTY:-d}", "d", "");
	expect("${EMPTY-d}", "", "");
	expect("${SET:-d}", "value", "");
	expect("${NOPE:-}", "", "");
	expect("${NOPE:-a:-b?c}", "a:-b?c", "");
	expect("${NOPE:-}}", "}", "");
	expect("http://${NOPE:-localhost}:${PORT:-80}/", "http://localhost:80/", "");
}

static void replacements(void **state)
{
	expect("${SET:+r}", "r", "");
	expect("${SET+r}", "r", "");
	expect("${EMPTY:+r}", "", "");
	expect("${EMPTY+r}", "r", "");
	expect("${NOPE:+r}", "", "");
	expect("${NOPE+$ALSO_NOT}", "", ""); /* what is not taken is not looked at */
}

static void nested(void **state)
{
	expect("${NOPE:-${SET}}", "value", "");
	expect("${NOPE:-${ALSO:-$SET!}}", "value!", "");
	expect("${NOPE:-a${NO}b}", "ab", "NO,");
	expect("${NOPE:-$$x}", "$x", "");
	expect("${SET:+${SET:+${SET}}}", "value", "");
}

static void required(void **state)
{
	expect("${SET:?message}", "value", "");
	expect("${EMPTY?message}", "", "");
	expect_error("${EMPTY:?say it}", "EMPTY is required: say it");
	expect_error("${NOPE?}", "NOPE is required");
	expect_error("${NOPE:?because of ${SET}}", "because of value");
}

static void malformed(void **state)
{
	expect_error("$", "'$' is not a variable");
	expect_error("a $ b", "is not a variable");
	expect_error("$5", "is not a variable");
	expect_error("${", "is not a variable");
	expect_error("${}", "is not a variable");
	expect_error("${SET", "is not a variable");
	expect_error("${SET:-a", "is not a variable");
	expect_error("${SET:}", "is not a variable");
	expect_error("${SET!}", "is not a variable");
	expect_error("${5}", "is not a variable");
	expect_error("${ SET}", "is not a variable");
	expect_error("${NOPE:-${SET}", "is not a variable");
}

static void depth_is_bounded(void **state)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	for (int i = 0; i < 1000; i++)
		buffer_adds(&text, "${N:-");
	for (int i = 0; i < 1000; i++)
		buffer_adds(&text, "}");
	expect_error(buffer_str(&text), "nested deeper");
}

static const char *long_value(void *arg, const char *name)
{
	return arg;
}

static void size_is_bounded(void **state)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_free char *value = xcalloc(1, 65537), *actual = NULL;
	cleanup_error struct error err = ERROR_INIT;
	memset(value, 'x', 65536);
	for (int i = 0; i < 17; i++)
		buffer_adds(&text, "$A");
	assert_int_equal(config_interpolate(buffer_str(&text), long_value, value, NULL, &actual, &err), -EINVAL);
	assert_null(actual);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(plain),
	    cmocka_unit_test(defaults),
	    cmocka_unit_test(replacements),
	    cmocka_unit_test(nested),
	    cmocka_unit_test(required),
	    cmocka_unit_test(malformed),
	    cmocka_unit_test(depth_is_bounded),
	    cmocka_unit_test(size_is_bounded),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	buffer_release(&heard);
	return failed;
}
