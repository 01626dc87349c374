/* exec: a program beside a service that runs. Nothing is started for it, and nothing ends while it lasts: it holds a lease. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/native.h"
#include "cli/output.h"
#include "cli/program.h"
#include "cli/registry.h"
#include "cli/relay.h"
#include "cli/terminal.h"

static const struct option options[] = {
	{"no-tty", 'T', NULL, "plain pipes, though stdin and stdout are a terminal"},
	{"user", 'u', "USER", "as another user; on process of root alone"},
	{"workdir", 'w', "DIR", "in another directory than the service's own"},
	{"env", 'e', "NAME=VALUE", "set a variable; NAME alone: as it is here. May be repeated"},
	{"interactive", 'i', NULL, "nothing: it is so by itself (`docker exec -it` is typed by habit)"},
	{"tty", 't', NULL, "nothing: the same"},
	{NULL, 0, NULL, NULL},
};

static int know_service(const struct client *c, const char *service, struct error *err)
{
	json_t *status = NULL, *value;
	int r = client_status(c, &status, err);
	const json_t *services = json_object_get(status, "services");
	if (!r && !json_object_get(services, service)) {
		cleanup_buffer struct buffer names = BUFFER_INIT;
		const char *name;
		json_object_foreach ((json_t *)services, name, value)
			buffer_printf(&names, "%s%s", names.len ? ", " : "", name);
		r = error_set(err, ERROR_SERVICE_UNKNOWN, "there is no service %s", service);
		error_hint(err, names.len ? "there are: %s" : "ajj status%s", buffer_str(&names));
	}
	json_decref(status);
	return r;
}

/* "SERVICE -- COMMAND" is read as "-- SERVICE COMMAND". */
static char **command_of(const struct arguments *args)
{
	return args->words + 1 + !strcmp(args->words[1], "--");
}

/* The lease, and what stands in it. */
static int hold(const struct client *c, const char *service, json_t **ret, struct error *err)
{
	if (c->native == NATIVE_PLAIN)
		return native_hold(c, service, ret, err);
	cleanup_free char *file = xasprintf("services/%s/exec", service);
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_close int fd = client_hold(c, file, &text, err);
	if (fd < 0)
		return fd;
	*ret = json_loads(buffer_str(&text), 0, NULL);
	return *ret ? move_fd(&fd) : error_set(err, ERROR_INTERNAL, "%s cannot be read", file);
}

static void take_defaults(const json_t *beside, struct keyvals *defaults)
{
	const char *key;
	json_t *value;
	json_object_foreach (json_object_get(beside, "env"), key, value)
		keyvals_set(defaults, key, json_string_value(value));
}

/* The command, with what the recipe knows of its program put before its own arguments, which win. new: the array; its strings are borrowed */
static char **command_beside(char *const *command, const json_t *beside)
{
	const char *slash = strrchr(command[0], '/');
	const json_t *arguments = json_object_get(json_object_get(beside, "arguments"), slash ? slash + 1 : command[0]);
	char **argv = NULL;
	size_t i;
	json_t *word;
	strv_push(&argv, command[0]);
	json_array_foreach (arguments, i, word)
		strv_push(&argv, (char *)json_string_value(word));
	for (command++; *command; command++)
		strv_push(&argv, *command);
	return argv;
}

static int attach(const struct client *c, const struct arguments *args, const json_t *beside, struct attachment **ret, struct error *err)
{
	cleanup_keyvals struct keyvals env = KEYVALS_INIT, defaults = KEYVALS_INIT;
	cleanup_free char **argv = command_beside(command_of(args), beside);
	struct attachment_spec spec = {
	    .service = args->words[0],
	    .argv = argv,
	    .env = &env,
	    .defaults = &defaults,
	    .user = arguments_value(args, "user"),
	    .directory = arguments_value(args, "workdir"),
	    .terminal = terminal_is_there() && !arguments_flag(args, "no-tty"),
	};
	terminal_size(&spec.rows, &spec.columns);
	take_defaults(beside, &defaults);
	int r = program_env(args, spec.terminal, &env, err);
	return r ? r : program_attach(c, &spec, ret, err);
}

static int run(const struct arguments *args, struct error *err)
{
	cleanup_client struct client c = CLIENT_INIT;
	cleanup_attachment struct attachment *a = NULL;
	json_t *beside = NULL;
	program_open_descriptors();
	int r = client_find_mounted(&c, err);
	if (!r)
		r = know_service(&c, args->words[0], err);
	cleanup_close int lease = r ? -1 : hold(&c, args->words[0], &beside, err);
	r = r ? r : lease < 0 ? lease : attach(&c, args, beside, &a, err);
	json_decref(beside);
	if (!r) {
		output_flush();
		r = relay_run(a, terminal_is_there() && !arguments_flag(args, "no-tty"), err);
	}
	return r < 0 ? program_failed(r, err) : r;
}

const struct command command_exec = {
	.name = "exec",
	.arguments = "SERVICE [--] COMMAND...",
	.summary = "run a command beside a service that runs: in its container, or as its process is run",
	.help = "On a terminal it gets one (its size follows, ^C is a key); else its stdin, stdout and stderr are ours, each for itself. It exits with the "
	        "command's exit code. Nothing is started for it, and `ajj down` waits for it. A container's command ends with the container, not with a `kill -9` of ajj. On "
	        "process it has the service's variables, directory, user, limits and PID namespace, and what leads to the service (PGHOST, ...).",
	.options = options,
	.mode = ARGUMENTS_STOP,
	.words_min = 2,
	.words_max = COMMAND_WORDS_ANY,
	.run = run,
};
