#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "cli/arguments.h"
#include "cli/commands.h"

static const struct option options[] = {
	{"all", 'a', NULL, ""},
	{"format", 'f', "FORMAT", ""},
	{NULL, 0, NULL, NULL},
};

#define ARGV(...) ((char *[]){__VA_ARGS__, NULL})

static void assert_list(char *const *list, const char *expected)
{
	char text[256] = "";
	for (; list && *list; list++) {
		strcat(text, *list);
		if (list[1])
			strcat(text, " ");
	}
	assert_string_equal(text, expected);
}

static void own_options(void **state)
{
	struct arguments args;
	assert_int_equal(arguments_parse(ARGV("one", "--all", "-fnul", "--json", "two", "--", "--all"), options,
	                                 ARGUMENTS_OWN, &args, NULL),
	                 0);
	assert_true(arguments_flag(&args, "all"));
	assert_string_equal(arguments_value(&args, "format"), "nul");
	assert_true(args.json);
	assert_false(args.help);
	assert_list(args.words, "one two --all");
	assert_int_equal(arguments_word_count(&args), 3);
	arguments_release(&args);
}

static void values(void **state)
{
	char *const *const lines[] = {ARGV("--format", "sh"), ARGV("--format=sh"), ARGV("-f", "sh"), ARGV("-fsh")};
	for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
		struct arguments args;
		assert_int_equal(arguments_parse(lines[i], options, ARGUMENTS_OWN, &args, NULL), 0);
		assert_string_equal(arguments_value(&args, "format"), "sh");
		assert_null(args.words);
		arguments_release(&args);
	}
}

static void letters_together_and_values_again(void **state)
{
	struct arguments args;
	assert_int_equal(arguments_parse(ARGV("-afone", "--format=two", "-f", "three"), options, ARGUMENTS_OWN, &args, NULL), 0);
	assert_true(arguments_flag(&args, "all"));
	assert_string_equal(arguments_value(&args, "format"), "three");
	assert_string_equal(arguments_value_at(&args, "format", 0), "one");
	assert_string_equal(arguments_value_at(&args, "format", 1), "two");
	assert_string_equal(arguments_value_at(&args, "format", 2), "three");
	assert_null(arguments_value_at(&args, "format", 3));
	assert_null(arguments_value_at(&args, "all", 0));
	arguments_release(&args);
}

static void wrong(void **state)
{
	const struct {
		char *const *argv;
		const char *message;
	} cases[] = {
	    {ARGV("--fomat", "x"), "unknown option --fomat"},
	    {ARGV("-x"), "unknown option -x"},
	    {ARGV("--format"), "--format wants FORMAT"},
	    {ARGV("--all=1"), "--all=1 takes no value"},
	    {ARGV("-ax"), "-ax takes no value"},
	    {ARGV("--json=1"), "unknown option --json=1"},
	    {ARGV("--", "x", "--format"), NULL},
	    {ARGV("-"), NULL},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct arguments args;
		struct error err = ERROR_INIT;
		int r = arguments_parse(cases[i].argv, options, ARGUMENTS_OWN, &args, &err);
		if (!cases[i].message) {
			assert_int_equal(r, 0);
			arguments_release(&args);
			continue;
		}
		assert_int_equal(r, -EINVAL);
		assert_int_equal(err.code, ERROR_USAGE);
		assert_string_equal(err.message, cases[i].message);
		error_release(&err);
	}
}

static void stops_at_the_first_word(void **state)
{
	struct arguments args;
	assert_int_equal(
	    arguments_parse(ARGV("--json", "psql", "-c", "x", "--", "--help"), NULL, ARGUMENTS_STOP, &args, NULL), 0);
	assert_true(args.json);
	assert_false(args.help);
	assert_list(args.words, "psql -c x -- --help");
	arguments_release(&args);

	assert_int_equal(arguments_parse(ARGV("--", "--odd", "x"), NULL, ARGUMENTS_STOP, &args, NULL), 0);
	assert_list(args.words, "--odd x");
	arguments_release(&args);
}

static void raw_is_not_looked_at(void **state)
{
	struct arguments args;
	assert_int_equal(arguments_parse(ARGV("--json", "-h", "--", "x"), NULL, ARGUMENTS_RAW, &args, NULL), 0);
	assert_false(args.json);
	assert_list(args.words, "--json -h -- x");
	arguments_release(&args);
}

static void passes_what_is_not_ours(void **state)
{
	struct arguments args;
	assert_int_equal(
	    arguments_parse(ARGV("--name", "feature/a b", "../dest", "-r", "main", "-a", "--sparse-patterns=full", "--json",
	                         "-R../main", "--color", "never", "--future"),
	                    options, ARGUMENTS_PASS, &args, NULL),
	    0);
	assert_true(arguments_flag(&args, "all"));
	assert_true(args.json);
	assert_list(args.words, "../dest");
	assert_list(args.rest,
	            "--name feature/a b ../dest -r main --sparse-patterns=full -R../main --color never --future");
	assert_string_equal(jj_option_value(args.rest, "repository", 'R'), "../main");
	assert_string_equal(jj_option_value(args.rest, "name", 0), "feature/a b");
	assert_null(jj_option_value(args.rest, "template", 'T'));
	arguments_release(&args);
}

static void words_after_the_dashes_pass_too(void **state)
{
	struct arguments args;
	assert_int_equal(arguments_parse(ARGV("-m", "--json", "--", "--up"), options, ARGUMENTS_PASS, &args, NULL), 0);
	assert_false(args.json); /* it is the message */
	assert_list(args.words, "--up");
	assert_list(args.rest, "-m --json -- --up");
	assert_null(jj_option_value(ARGV("--", "-R", "x"), "repository", 'R'));
	assert_string_equal(jj_option_value(ARGV("-R", "a", "--repository=b"), "repository", 'R'), "b");
	arguments_release(&args);
}

static void names(void **state)
{
	unsigned words = 0;
	assert_string_equal(command_find(ARGV("workspace", "add", "x"), &words)->name, "workspace add");
	assert_int_equal(words, 2);
	assert_string_equal(command_find(ARGV("up"), &words)->name, "up");
	assert_int_equal(words, 1);
	assert_null(command_find(ARGV("workspace"), &words));
	assert_null(command_find(ARGV("workspace", "root"), &words));
	assert_null(command_find(ARGV("u"), &words));
	assert_null(command_find(ARGV("log"), &words));
	assert_true(command_is_family("trash"));
	assert_false(command_is_family("tras"));
	assert_false(command_is_family("up"));
}

static void the_table_is_whole(void **state)
{
	for (size_t i = 0; commands[i]; i++) {
		unsigned words;
		assert_non_null(commands[i]->run);
		assert_true(*commands[i]->summary);
		assert_non_null(commands[i]->arguments);
		assert_true(commands[i]->words_min <= commands[i]->words_max);
		for (const struct option *o = commands[i]->options; o && o->name; o++) {
			assert_true(o->help && *o->help);
			assert_string_not_equal(o->name, "json");
			assert_string_not_equal(o->name, "help");
		}
		char *first[] = {strdup(commands[i]->name), NULL, NULL};
		char *space = strchr(first[0], ' ');
		if (space) {
			*space = '\0';
			first[1] = space + 1;
		}
		assert_ptr_equal(command_find(first, &words), commands[i]);
		free(first[0]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(own_options),
	    cmocka_unit_test(values),
		cmocka_unit_test(letters_together_and_values_again),
	    cmocka_unit_test(wrong),
	    cmocka_unit_test(stops_at_the_first_word),
	    cmocka_unit_test(raw_is_not_looked_at),
	    cmocka_unit_test(passes_what_is_not_ours),
	    cmocka_unit_test(words_after_the_dashes_pass_too),
	    cmocka_unit_test(names),
	    cmocka_unit_test(the_table_is_whole),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
