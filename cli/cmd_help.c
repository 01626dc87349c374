#include "base/strv.h"
#include "cli/commands.h"
#include "cli/jj.h"

static int run(const struct arguments *args, struct error *err)
{
	static char help[] = "help", *none[] = {help, NULL};
	unsigned words;
	if (!args->words) {
		help_print(NULL);
		return 0;
	}
	const struct command *command = command_find(args->words, &words);
	if (command) {
		help_print(command);
		return 0;
	}
	if (!args->words[1] && command_is_family(args->words[0])) {
		help_print_family(args->words[0]);
		return 0;
	}
	char *const *rest = args->rest ? args->rest : none;
	char **line = NULL;
	strv_push(&line, help);
	for (; *rest; rest++)
		strv_push(&line, *rest);
	return jj_exec(line, err); /* the process ends either way: `line` is not freed */
}

const struct command command_help = {
	.name = "help",
	.arguments = "[COMMAND]",
	.summary = "this text, more about one command, or jj's own help",
	.help = "With --json: the table of commands, their options and the exit codes.",
	.mode = ARGUMENTS_PASS,
	.words_max = COMMAND_WORDS_ANY,
	.looks_away = true,
	.run = run,
};
