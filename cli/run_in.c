#include "cli/run_in.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "cli/native.h"
#include "cli/output.h"
#include "cli/program.h"
#include "cli/progress.h"
#include "cli/pulls.h"
#include "cli/registry.h"
#include "cli/relay.h"
#include "cli/screen.h"
#include "cli/terminal.h"
#include "provisioner/attachment.h"

int run_in_sweep(const struct store_environment *e, bool remove, char ***found, struct error *err)
{
	return attachment_sweep(e->backend, e->backend_target, e->namespace_, remove, found, err);
}

/* ---- what it gets ---- */

/* Opens the demand, whose being open is the lease, and reads what containers see of the environment. */
static int demand(const struct client *c, struct keyvals *env, struct error *err)
{
	cleanup_progress struct progress *progress = progress_start(c, "starting");
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_close int fd = client_hold(c, "env.container.json", &text, err);
	if (fd < 0)
		return fd;
	json_t *json = json_loads(buffer_str(&text), 0, NULL), *value;
	const char *key;
	json_object_foreach (json, key, value)
		keyvals_set(env, key, json_string_value(value));
	bool is_read = json != NULL;
	json_decref(json);
	return is_read ? move_fd(&fd) : error_set(err, ERROR_INTERNAL, "env.container.json cannot be read");
}

static void show_pull(void *arg, const json_t *progress)
{
	static struct screen screen;
	static struct pulls_said said;
	cleanup_strv char **lines = NULL;
	const char *image = json_string_value(json_object_get(progress, "image")), *foreign = json_string_value(json_object_get(progress, "foreign"));
	unsigned rows, columns;
	if (foreign)
		output_note("Warning: %s", foreign);
	if (!isatty(STDERR_FILENO)) {
		if (image)
			pulls_say(&said, image, json_is_true(json_object_get(progress, "pulled")));
		else
			pulls_said_release(&said);
		return;
	}
	screen_size(&rows, &columns);
	json_t *pulls = progress ? json_pack("[O]", progress) : NULL;
	pulls_lines(pulls, rows, &lines);
	json_decref(pulls);
	if (lines)
		screen_draw(&screen, lines);
	else
		screen_clear(&screen);
}

/* From here on a container is there, and a signal must not end us before it is taken away. */
static void hold_signals(void *arg)
{
	terminal_take(*(const bool *)arg);
}

/* The workspace as it is mounted, and the control file system that its links lead to. */
static void add_binds(const struct client *c, char ***binds)
{
	char target[PATH_MAX];
	strv_push(binds, xstrdup(c->id.root));
	if (c->native != NATIVE_PLAIN && realpath(c->control, target) && strcmp(target, c->id.root))
		strv_push(binds, xstrdup(target));
}

/* Where we stand, when that is in the workspace; else its root. new */
static char *directory_of(const struct client *c, const struct arguments *args)
{
	const char *asked = arguments_value(args, "workdir");
	cleanup_free char *here = getcwd(NULL, 0);
	size_t len = strlen(c->id.root);
	bool inside = here && !strncmp(here, c->id.root, len) && (!here[len] || here[len] == '/');
	return xstrdup(asked ? asked : inside ? here : c->id.root);
}

/* ---- the whole ---- */

static int attach(const struct client *c, const struct arguments *args, struct attachment_spec *spec, int *ret_lease, struct attachment **ret, struct error *err)
{
	cleanup_keyvals struct keyvals env = KEYVALS_INIT, defaults = KEYVALS_INIT;
	spec->env = &env;
	spec->defaults = &defaults;
	spec->only_check = true;
	int r = program_env(args, spec->terminal, &env, err);
	if (!r)
		r = program_attach(c, spec, ret, err);
	if (r)
		return r;
	*ret_lease = demand(c, &defaults, err);
	if (*ret_lease < 0)
		return *ret_lease;
	spec->only_check = false;
	return program_attach(c, spec, ret, err);
}

int run_in(const struct client *c, const struct arguments *args, struct error *err)
{
	char *none[] = {NULL};
	bool terminal = terminal_is_there() && !arguments_flag(args, "no-tty");
	cleanup_free char *directory = directory_of(c, args);
	cleanup_strv char **binds = NULL;
	cleanup_close int lease = -1;
	cleanup_attachment struct attachment *a = NULL;
	add_binds(c, &binds);
	cleanup_free char *seen = xasprintf("%s/.aether", c->id.root);
	const struct attachment_container container = {.image = arguments_value(args, "in"), .binds = binds, .seen = seen, .uid = getuid(), .gid = getgid(),
	                                               .progress = show_pull, .making = hold_signals, .arg = &terminal};
	struct attachment_spec spec = {.container = &container, .argv = args->words ? args->words : none, .user = arguments_value(args, "user"),
	                               .directory = directory, .terminal = terminal};
	program_open_descriptors();
	log_set_level(LOG_LEVEL_WARNING); /* the terminal is the command's */
	terminal_size(&spec.rows, &spec.columns);
	int r = attach(c, args, &spec, &lease, &a, err);
	if (!r) {
		output_flush();
		r = relay_run(a, terminal, err);
	}
	attachment_close(move_ptr(a));
	terminal_give_back();
	return r < 0 ? program_failed(r, err) : r;
}
