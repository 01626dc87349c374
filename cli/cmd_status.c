#include "base/cleanup.h"
#include "base/strv.h"
#include "cli/commands.h"
#include "cli/client.h"
#include "cli/jj.h"
#include "cli/jj_guarded.h"
#include "cli/output.h"
#include "cli/reports.h"

/* jj's own status comes after ours; where there is no jj repository or no jj, ours is all. */
static int then_jj(const struct client *c, const struct arguments *args, struct error *err)
{
	static char status[] = "status";
	cleanup_free char *path = NULL;
	char **line = NULL;
	if (c->id.kind != WORKSPACE_JJ || jj_find(&path, NULL))
		return 0;
	client_enter_mount(c);
	strv_push(&line, status);
	for (char **rest = args->rest; rest && *rest; rest++)
		strv_push(&line, *rest);
	output_line("%s", "");
	return jj_guarded(line, err);
}

static int run(const struct arguments *args, struct error *err)
{
	cleanup_client struct client c = CLIENT_INIT;
	int r = client_find(NULL, &c, err);
	if (r)
		return r;
	json_t *status = report_status(&c);
	if (output_is_json()) {
		output_document(status);
		return 0;
	}
	report_print(status);
	json_decref(status);
	client_note_beneath(&c);
	return then_jj(&c, args, err);
}

const struct command command_status = {
	.name = "status",
	.arguments = "[jj's arguments]",
	.summary = "the state of the environment, then jj's own status",
	.help = "Starts nothing and waits for nothing. With --json: .aether/status.json with `mounted`, without jj's "
	        "status.",
	.mode = ARGUMENTS_PASS,
	.words_max = COMMAND_WORDS_ANY,
	.run = run,
};
