#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "cli/commands.h"
#include "cli/exit_codes.h"
#include "cli/output.h"

#define HELP_COLUMNS 100

static const struct option common_options[] = {
	{"json", 0, NULL, "one JSON document on stdout, also on failure"},
	{"help", 'h', NULL, "this text"},
	{NULL, 0, NULL, NULL},
};

static const struct {
	int code;
	const char *text;
} exit_codes[] = {
#define X(name, value, text) {value, text},
	EXIT_CODES(X)
#undef X
};

static void print_options(const struct option *options)
{
	for (const struct option *o = options; o && o->name; o++) {
		cleanup_free char *name = xasprintf("--%s%s%s", o->name, o->value ? " " : "", o->value ? o->value : "");
		if (o->letter)
			printf("  -%c, %-20s %s\n", o->letter, name, o->help);
		else
			printf("      %-20s %s\n", name, o->help);
	}
}

/* At most HELP_COLUMNS wide. */
static void print_wrapped(const char *text)
{
	int column = 0;
	while (*text) {
		int n = (int)strcspn(text, " ");
		if (column && column + 1 + n > HELP_COLUMNS) {
			putchar('\n');
			column = 0;
		}
		column += printf("%s%.*s", column ? " " : "", n, text);
		text += n + (text[n] == ' ');
	}
	putchar('\n');
}

static void print_command(const struct command *c)
{
	printf("ajj %s: %s\n\nUsage: ajj %s%s%s%s\n", c->name, c->summary, c->name, c->options ? " [OPTIONS]" : "",
	       *c->arguments ? " " : "", c->arguments);
	if (c->help) {
		putchar('\n');
		print_wrapped(c->help);
	}
	printf("\nOptions:\n");
	print_options(c->options);
	print_options(common_options);
}

static json_t *options_json(const struct option *options)
{
	json_t *list = json_array();
	for (const struct option *o = options; o && o->name; o++) {
		json_t *one = json_pack("{s:s, s:s}", "name", o->name, "help", o->help);
		if (o->letter)
			json_object_set_new(one, "letter", json_stringn(&o->letter, 1));
		if (o->value)
			json_object_set_new(one, "value", json_string(o->value));
		json_array_append_new(list, one);
	}
	return list;
}

static json_t *command_json(const struct command *c)
{
	return json_pack("{s:s, s:s, s:s, s:o}", "name", c->name, "arguments", c->arguments, "summary", c->summary,
	                 "options", options_json(c->options));
}

static void print_line(const struct command *c)
{
	cleanup_free char *left = xasprintf("%s%s%s", c->name, *c->arguments ? " " : "", c->arguments);
	printf("  %-42s %s\n", left, c->summary);
}

static bool is_member(const struct command *c, const char *word)
{
	size_t n = strlen(word);
	return !strncmp(c->name, word, n) && c->name[n] == ' ';
}

void help_print_family(const char *word)
{
	json_t *list = json_array();
	output_line("Usage: ajj %s COMMAND [ARGUMENTS]\n", word);
	for (size_t i = 0; commands[i]; i++) {
		if (!is_member(commands[i], word))
			continue;
		if (output_is_json())
			json_array_append_new(list, command_json(commands[i]));
		else
			print_line(commands[i]);
	}
	output_line("\n`ajj help %s COMMAND` says more about one.%s", word,
	            strcmp(word, "workspace") ? "" : " The others of jj go to jj: `ajj jj workspace --help`.");
	output_document(json_pack("{s:o}", "commands", list));
}

static void print_all(void)
{
	printf("ajj: jj, with services of its own for each workspace\n\nUsage: ajj COMMAND [ARGUMENTS]\n\n");
	for (size_t i = 0; commands[i]; i++)
		print_line(commands[i]);
	printf("\nEvery other command goes to jj unchanged, and its exit code comes back.\n"
	       "`ajj jj run ...` is for the commands of jj that have a namesake here.\n\nOptions of every command:\n");
	print_options(common_options);
	printf("  -V, %-20s %s\n\nExit codes:\n", "--version", "print the version");
	for (size_t i = 0; i < sizeof exit_codes / sizeof exit_codes[0]; i++)
		printf("  %3d  %s\n", exit_codes[i].code, exit_codes[i].text);
	printf("\n`ajj help COMMAND` says more about one.\n");
}

static void print_json(const struct command *command)
{
	if (command) {
		output_document(command_json(command));
		return;
	}
	json_t *list = json_array(), *codes = json_object();
	for (size_t i = 0; commands[i]; i++)
		json_array_append_new(list, command_json(commands[i]));
	for (size_t i = 0; i < sizeof exit_codes / sizeof exit_codes[0]; i++) {
		cleanup_free char *key = xasprintf("%d", exit_codes[i].code);
		json_object_set_new(codes, key, json_string(exit_codes[i].text));
	}
	output_document(
	    json_pack("{s:o, s:o, s:o}", "commands", list, "options", options_json(common_options), "exit_codes", codes));
}

void help_print(const struct command *command)
{
	if (output_is_json())
		print_json(command);
	else if (command)
		print_command(command);
	else
		print_all();
}
