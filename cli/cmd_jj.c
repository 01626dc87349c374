#include "cli/commands.h"
#include "cli/jj_guarded.h"

static int run(const struct arguments *args, struct error *err)
{
	return jj_guarded(args->words, err);
}

const struct command command_jj = {
	.name = "jj",
	.arguments = "ARGUMENTS...",
	.summary = "run jj, also for its commands that have a namesake here",
	.help = "`ajj jj run`, `ajj jj status` and `ajj jj help` are jj's own.",
	.mode = ARGUMENTS_RAW,
	.words_max = COMMAND_WORDS_ANY,
	.run = run,
};
