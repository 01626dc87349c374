/* ajj: a thin convenience over jj and an environment's files. What is no command of the table goes to jj as it came. */
#include <stdio.h>
#include <string.h>

#include "aether_config.h"
#include "base/cleanup.h"
#include "cli/commands.h"
#include "cli/exit_codes.h"
#include "cli/jj_guarded.h"
#include "cli/output.h"
#include "cli/process.h"
#include "cli/reconcile.h"
#include "cli/whereabouts.h"
#include "provisioner/mounts.h"

/* Prints the error and says what to exit with. */
static int failed(const struct error *err, int r)
{
	output_error(err);
	output_flush();
	interrupts_ignore();
	return error_is_set(err) ? output_exit_code(err) : r < 0 ? EXIT_CODE_FAILED : r;
}

static int count_words(const struct command *c, const struct arguments *args, struct error *err)
{
	unsigned n = arguments_word_count(args);
	if (n < c->words_min)
		return error_set(err, ERROR_USAGE, "ajj %s wants %s", c->name, c->arguments);
	if (n > c->words_max)
		return error_set(err, ERROR_USAGE, "ajj %s takes no argument %s", c->name, args->words[c->words_max]);
	return 0;
}

static int run_command(const struct command *c, char *const *argv, bool json)
{
	cleanup_error struct error err = ERROR_INIT;
	cleanup_arguments struct arguments args = {0};
	bool asked = json;

	/* that the answer is to be JSON must be known although the rest cannot be read */
	for (char *const *a = argv; c->mode == ARGUMENTS_OWN && *a && strcmp(*a, "--"); a++)
		asked |= !strcmp(*a, "--json");
	output_set_json(asked);
	int r = arguments_parse(argv, c->options, c->mode, &args, &err);
	output_set_json(asked || args.json);
	if (!r && args.help) {
		help_print(c);
		return output_flush() ? EXIT_CODE_FAILED : 0;
	}
	if (!r)
		r = count_words(c, &args, &err);
	if (!r && !c->looks_away)
		reconcile(c->looks_closely);
	if (r)
		error_hint(&err, "ajj help %s", c->name);
	else
		r = c->run(&args, &err);
	if (r < 0)
		return failed(&err, r);
	bool unsaid = output_flush();
	interrupts_ignore();
	return unsaid && !r ? EXIT_CODE_FAILED : r;
}

/* "ajj trash explode": the family is ours alone, so jj need not be asked. */
static int unknown_member(char *const *argv)
{
	cleanup_error struct error err = ERROR_INIT;
	cleanup_free char *members = command_family(argv[0]);
	if (argv[1])
		error_set(&err, ERROR_USAGE, "ajj %s has no command %s", argv[0], argv[1]);
	else
		error_set(&err, ERROR_USAGE, "ajj %s wants a command", argv[0]);
	error_hint(&err, "ajj %s %s", argv[0], members);
	return failed(&err, 0);
}

static int to_jj(char *const *argv)
{
	cleanup_error struct error err = ERROR_INIT;
	reconcile(false);
	int r = jj_guarded(argv, &err);
	if (!*argv &&
	    err.code == ERROR_JJ_NOT_FOUND) { /* a bare `ajj` is a bare jj; without jj it may as well say what it can do */
		help_print(NULL);
		return output_flush() ? EXIT_CODE_FAILED : 0;
	}
	return r < 0 ? failed(&err, r) : r;
}

static int global_option(const char *option)
{
	if (!strcmp(option, "-V") || !strcmp(option, "--version")) {
		if (output_is_json())
			output_document(json_pack("{s:s}", "version", AETHER_VERSION));
		output_line("ajj %s", AETHER_VERSION);
	} else {
		help_print(NULL);
	}
	return output_flush() ? EXIT_CODE_FAILED : 0;
}

static bool is_global_option(const char *word)
{
	return !strcmp(word, "-V") || !strcmp(word, "--version") || !strcmp(word, "-h") || !strcmp(word, "--help");
}

static bool asks_for_help(char *const *words)
{
	if (*words && !strcmp(*words, "--json")) {
		output_set_json(true);
		words++;
	}
	return *words && (!strcmp(*words, "-h") || !strcmp(*words, "--help"));
}

int main(int argc, char **argv)
{
	char **rest = argv + (argc > 0);
	bool json = *rest && !strcmp(*rest, "--json");
	unsigned words = 0;

	char **verb = rest + json;
	output_set_json(json);
	if (*verb && is_global_option(*verb)) {
		output_set_json(json || (verb[1] && !strcmp(verb[1], "--json")));
		return global_option(*verb);
	}
	mounts_keep();
	whereabouts_recover();
	const struct command *command = *verb ? command_find(verb, &words) : NULL;
	if (command)
		return run_command(command, verb + words, json);
	if (*verb && command_is_family(*verb) && asks_for_help(verb + 1)) {
		help_print_family(*verb);
		return output_flush() ? EXIT_CODE_FAILED : 0;
	}
	if (*verb && command_is_family(*verb) && strcmp(*verb, "workspace"))
		return unknown_member(verb);
	output_set_json(false);
	return to_jj(rest);
}
