#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "cli/commands.h"
#include "cli/exit_codes.h"
#include "cli/output.h"
#include "cli/program.h"
#include "cli/progress.h"
#include "cli/run_in.h"

static const struct option options[] = {
	{"in", 0, "IMAGE", "in a container of that image, in the environment's network; the other options are of it"},
	{"no-tty", 'T', NULL, "plain pipes, though stdin and stdout are a terminal"},
	{"user", 'u', "USER", "as another user than you are"},
	{"workdir", 'w', "DIR", "in another directory than this one"},
	{"env", 'e', "NAME=VALUE", "set a variable; NAME alone: as it is here. May be repeated"},
	{NULL, 0, NULL, NULL},
};

extern const struct command command_run;

/* Opens the demand and leaves it open: the descriptor that the command inherits is its lease. */
static int demand(const struct client *c, struct buffer *text, struct error *err)
{
	cleanup_progress struct progress *progress = progress_start(c, "starting");
	cleanup_close int fd = client_hold(c, "env.json", text, err);
	if (fd < 0)
		return fd;
	/* above what programs and shells number by hand */
	int lease = fcntl(fd, F_DUPFD, 100);
	return lease < 0 ? error_set_errno(err, ERROR_INTERNAL, errno, "too many open files") : lease;
}

static int set_environment(const char *text, struct error *err)
{
	json_error_t bad;
	json_t *env = json_loads(text, 0, &bad), *value;
	const char *key;
	if (!env)
		return error_set(err, ERROR_INTERNAL, "env.json: %s", bad.text);
	json_object_foreach(env, key, value) setenv(key, json_string_value(value) ? json_string_value(value) : "", 1);
	json_decref(env);
	return 0;
}

static int check_arguments(const struct arguments *args, struct error *err)
{
	static const char *const of_container[] = {"no-tty", "user", "workdir", "env"};
	for (size_t i = 0; !arguments_flag(args, "in") && i < sizeof of_container / sizeof *of_container; i++)
		if (arguments_flag(args, of_container[i]))
			return error_set(err, ERROR_USAGE, "--%s belongs to --in IMAGE", of_container[i]);
	return args->words || arguments_flag(args, "in") ? 0 : error_set(err, ERROR_USAGE, "ajj run wants %s", command_run.arguments);
}

static int run(const struct arguments *args, struct error *err)
{
	cleanup_client struct client c = CLIENT_INIT;
	cleanup_buffer struct buffer text = BUFFER_INIT;
	int r = check_arguments(args, err);
	if (!r)
		r = client_find_mounted(&c, err);
	if (!r && arguments_flag(args, "in"))
		return run_in(&c, args, err);
	if (!r)
		r = demand(&c, &text, err);
	if (r >= 0)
		r = set_environment(buffer_str(&text), err);
	if (r < 0)
		return r;
	client_note_beneath(&c);
	client_enter_mount(&c);
	output_flush();
	execvp(args->words[0], args->words);
	int saved = errno;
	error_set_errno(err, ERROR_PROGRAM_NOT_FOUND, saved, "%s", args->words[0]);
	output_error(err);
	return saved == ENOENT ? EXIT_CODE_NO_COMMAND : EXIT_CODE_CANNOT_RUN;
}

const struct command command_run = {
	.name = "run",
	.arguments = "[--] COMMAND...",
	.summary = "run a command with the environment's variables, starting the services first",
	.help = "Becomes the command: signals, terminal and exit code are its own. As long as it runs it holds a "
	        "lease, which `ajj status` shows. jj's own run is `ajj jj run`. With --in it runs in a container that sees the workspace at the same path, "
	        "with your user and group, and the services by their names; the container goes when it ends.",
	.options = options,
	.mode = ARGUMENTS_STOP,
	.words_max = COMMAND_WORDS_ANY,
	.run = run,
};
