#include <sys/stat.h>

#include "cli/commands.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/registry.h"
#include "cli/reports.h"

static bool is_known(const struct client *c)
{
	struct stat st;
	return !stat(c->id.state_dir, &st);
}

static int run(const struct arguments *args, struct error *err)
{
	cleanup_client struct client c = CLIENT_INIT;
	int r = client_find(NULL, &c, err);
	if (r)
		return r;
	bool known = c.mounted || is_known(&c);
	if (c.mounted) {
		cleanup_progress struct progress *progress = progress_start(&c, "destroying");
		r = client_command(&c, "destroy", err);
	} else {
		r = registry_discard(&c.id, err);
	}
	if (r)
		return r;
	json_t *status = report_status(&c);
	if (known)
		output_line("%s: %s; the data rests in the trash (ajj trash list)", c.id.root, report_string(status, "state"));
	else
		output_line("%s: there is nothing to destroy: it was never mounted, or is destroyed already", c.id.root);
	output_document(status);
	return 0;
}

const struct command command_destroy = {
	.name = "destroy",
	.arguments = "",
	.summary = "tear everything down, as `rm .env` does, and wait; the data goes to the trash",
	.help = "The workspace stays mounted: the next read of .env makes a fresh environment.",
	.run = run,
};
