#include <string.h>

#include "base/buffer.h"
#include "cli/commands.h"
#include "cli/configuration.h"
#include "cli/exclude.h"
#include "cli/mounting.h"
#include "cli/output.h"
#include "cli/process.h"
#include "cli/progress.h"
#include "cli/reports.h"
#include "cli/surroundings.h"
#include "cli/tracked.h"

static const struct option options[] = {
	{"plain", 0, NULL, "mount nothing: a real .env and real files in .aether/, until `ajj down` (for sandboxes without FUSE)"},
	{"all", 0, NULL, "also the services that have build:"},
	{"build", 0, NULL, "build the images of those anew; the engine's cache stands"},
	{"profile", 0, "NAMES", "also the services of these profiles, separated by commas; COMPOSE_PROFILES says the same"},
	{NULL, 0, NULL, NULL},
};

/* ctl splits its line as a shell does */
static void add_word(struct buffer *line, const char *prefix, const char *word, size_t len)
{
	buffer_printf(line, " '%s", prefix);
	for (const char *p = word; p < word + len; p++)
		if (*p == '\'')
			buffer_adds(line, "'\\''");
		else
			buffer_addc(line, *p == '\n' ? ' ' : *p);
	buffer_addc(line, '\'');
}

static void write_line(const struct client *c, const struct arguments *args, struct buffer *line)
{
	buffer_printf(line, "up%s%s", arguments_flag(args, "all") ? " --all" : "", arguments_flag(args, "build") ? " --build" : "");
	const char *profiles = arguments_value(args, "profile") ? arguments_value(args, "profile") : configuration_profiles(&c->id);
	for (const char *p = profiles; p && *p;) {
		size_t n = strcspn(p, ",");
		if (n)
			add_word(line, "--profile=", p, n);
		p += n + (p[n] == ',');
	}
	for (char **w = args->words; w && *w; w++)
		add_word(line, "", *w, strlen(*w));
}

static int up(const struct client *c, const struct arguments *args, struct error *err)
{
	cleanup_buffer struct buffer line = BUFFER_INIT;
	cleanup_progress struct progress *progress = progress_start(c, "starting");
	write_line(c, args, &line);
	int r = mounting_approve(c, NULL, err);
	if (!r && interrupted())
		r = error_set(err, ERROR_CANCELED, "interrupted");
	return r ? r : client_command(c, line.data, err);
}

/* Without a configuration, or interrupted, it is as if we had not been asked: what was mounted for this goes again. A service that fails
 * leaves the mount, which tells why. */
static bool is_undone(const struct error *err)
{
	return err->code == ERROR_CANCELED || err->code == ERROR_CONFIG_NOT_FOUND || err->code == ERROR_CONFIG_INVALID;
}

static int mount_and_start(struct client *c, const struct arguments *args, bool *ret_mounted_now, struct error *err)
{
	cleanup_error struct error why = ERROR_INIT;
	bool mounted_now = false;
	int r = c->mounted ? 0 : configuration_find(&c->id, &why);
	if (!r && !c->dead) {
		exclude_local_file(&c->id);
		tracked_settle(c);
	}
	if (!r)
		r = mounting_attach(c, arguments_flag(args, "plain") ? "plain" : NULL, &mounted_now, &why);
	if (!r && mounted_now && c->native) /* without an overlay more counts (cli/tracked.h) */
		tracked_settle(c);
	if (!r && interrupted())
		r = error_set(&why, ERROR_CANCELED, "interrupted");
	if (!r)
		r = up(c, args, &why);
	if (r && mounted_now && is_undone(&why)) {
		cleanup_error struct error undoing = ERROR_INIT;
		interrupts_forget();
		if (mounting_detach(c, DETACH_UNDER_SHELL, &undoing))
			output_note("Warning: %s stays mounted: %s", c->id.root, undoing.message);
	}
	if (r)
		error_move(err, &why);
	*ret_mounted_now = mounted_now;
	return r;
}

static int run(const struct arguments *args, struct error *err)
{
	cleanup_client struct client c = CLIENT_INIT;
	json_t *status = NULL;
	bool mounted_now = false;
	interrupts_note();
	int r = client_find(NULL, &c, err);
	if (!r)
		r = mount_and_start(&c, args, &mounted_now, err);
	bool noted = c.mounted && !mounted_now, goes_on = noted && interrupted();
	if (!r || noted)
		status = report_status(&c);
	if (noted)
		surroundings_note(&c, status);
	interrupts_end(!r);
	if (r) {
		if (err->code == ERROR_CANCELED && goes_on)
			error_hint(err, "what was begun goes on: ajj status shows it, ajj down ends it");
		json_decref(status);
		return r;
	}
	report_tell(status);
	client_note_beneath(&c);
	return 0;
}

const struct command command_up = {
	.name = "up",
	.arguments = "[SERVICE...]",
	.summary = "start the services and wait until they are ready; apply a changed configuration",
	.help = "Mounts first where need be. Without SERVICE: those that a read of .env would start. Approves the "
	        "configuration that stands there now. With --plain the text of .env is written into the workspace, marked and for its owner alone; "
	        "a .env of your own rests in .env.user and comes back by `ajj down`, `destroy` or `detach`, byte for byte, with what you wrote meanwhile.",
	.options = options,
	.words_max = COMMAND_WORDS_ANY,
	.run = run,
};
