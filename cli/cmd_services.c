/* restart, stop, start: of some services alone, each a command of `ctl`. */
#include "base/buffer.h"
#include "base/cleanup.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/reports.h"

static int command(const char *verb, const char *what, const struct arguments *args, struct error *err)
{
	cleanup_client struct client c = CLIENT_INIT;
	cleanup_buffer struct buffer line = BUFFER_INIT;
	int r = client_find_mounted(&c, err);
	if (r)
		return r;
	buffer_adds(&line, verb);
	for (char **word = args->words; *word; word++)
		buffer_printf(&line, " %s", *word);
	{
		cleanup_progress struct progress *progress = progress_start(&c, what);
		r = client_command(&c, line.data, err);
	}
	if (r)
		return r;
	report_tell(report_status(&c));
	return 0;
}

static int run_restart(const struct arguments *args, struct error *err)
{
	return command("restart", "restarting", args, err);
}

static int run_stop(const struct arguments *args, struct error *err)
{
	return command("stop", "stopping", args, err);
}

static int run_start(const struct arguments *args, struct error *err)
{
	return command("start", "starting", args, err);
}

const struct command command_restart = {
	.name = "restart",
	.arguments = "SERVICE...",
	.summary = "stop and start services, and wait until they are ready",
	.words_min = 1,
	.words_max = COMMAND_WORDS_ANY,
	.run = run_restart,
};

const struct command command_stop = {
	.name = "stop",
	.arguments = "SERVICE...",
	.summary = "stop some services; the next demand starts them again",
	.words_min = 1,
	.words_max = COMMAND_WORDS_ANY,
	.run = run_stop,
};

const struct command command_start = {
	.name = "start",
	.arguments = "SERVICE...",
	.summary = "start some services and what they depend on, and wait until they are ready",
	.words_min = 1,
	.words_max = COMMAND_WORDS_ANY,
	.run = run_start,
};
