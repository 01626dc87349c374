#include "cli/commands.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/reports.h"

static int run(const struct arguments *args, struct error *err)
{
	cleanup_client struct client c = CLIENT_INIT;
	int r = client_find(NULL, &c, err);
	if (r)
		return r;
	if (c.mounted) { /* unmounted, nothing of it runs */
		cleanup_progress struct progress *progress = progress_start(&c, "stopping");
		r = client_command(&c, "down", err);
	}
	if (r)
		return r;
	json_t *status = report_status(&c);
	output_line("%s: %s", c.id.root, report_string(status, "state"));
	output_document(status);
	return 0;
}

const struct command command_down = {
	.name = "down",
	.arguments = "",
	.summary = "stop the services; data and ports stay",
	.run = run,
};
