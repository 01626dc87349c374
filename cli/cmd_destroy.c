#include <sys/stat.h>

#include "base/buffer.h"
#include "cli/commands.h"
#include "cli/mounting.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/registry.h"
#include "cli/reports.h"

static bool is_known(const struct client *c)
{
	struct stat st;
	return !stat(c->id.state_dir, &st);
}

static int destroy_mounted(const struct client *c, struct error *err)
{
	cleanup_progress struct progress *progress = progress_start(c, "destroying");
	return client_command(c, "destroy", err);
}

/* Who mounts it meanwhile is asked in the place of the registry. */
static int destroy(struct client *c, struct error *err)
{
	if (c->mounted)
		return destroy_mounted(c, err);
	cleanup_error struct error why = ERROR_INIT;
	int r = registry_discard(&c->id, &why);
	if (r && why.code == ERROR_IN_USE) {
		client_refresh(c);
		if (c->mounted)
			return destroy_mounted(c, err);
	}
	if (r)
		error_move(err, &why);
	return r;
}

/* Of the real files of `up --plain` they come back instead. */
static bool takes_own_lines(const struct client *c)
{
	cleanup_buffer struct buffer lines = BUFFER_INIT;
	return c->mounted && c->native != NATIVE_PLAIN && !client_read(c, "env.own", &lines, NULL) && lines.len;
}

static int run(const struct arguments *args, struct error *err)
{
	cleanup_client struct client c = CLIENT_INIT;
	int r = client_find(NULL, &c, err);
	if (r)
		return r;
	bool known = c.mounted || is_known(&c), own = takes_own_lines(&c);
	r = destroy(&c, err);
	if (!r && c.native == NATIVE_PLAIN) /* nothing would make a fresh one by itself */
		r = mounting_detach(&c, DETACH_UNUSED, err);
	if (r)
		return r;
	json_t *status = report_status(&c);
	if (known)
		output_line("%s: %s; the data%s%s rest%s in the trash (ajj trash list)", c.id.root, report_string(status, "state"),
		            own ? " and your own lines of " : "", own ? c.id.env_name : "", own ? "" : "s");
	else
		output_line("%s: there is nothing to destroy: it was never mounted, or is destroyed already", c.id.root);
	output_document(status);
	return 0;
}

const struct command command_destroy = {
	.name = "destroy",
	.arguments = "",
	.summary = "tear everything down, as `rm .env` does, and wait; the data goes to the trash",
	.help = "The workspace stays mounted: the next read of .env makes a fresh environment; after `ajj up --plain` nothing stays.",
	.run = run,
};
