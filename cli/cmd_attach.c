#include "cli/commands.h"
#include "cli/include.h"
#include "cli/mounting.h"
#include "cli/output.h"
#include "cli/process.h"
#include "cli/reports.h"

static const struct option options[] = {
	{"options", 'o', "LIST", "mount options, as for aetherfs -o"},
	{NULL, 0, NULL, NULL},
};

/* It is mounted all the same, so that there is something to read the error from. */
static void warn_of_broken(const struct error *broken)
{
	output_note("Warning: nothing can be started here: %s", broken->message);
	if (broken->hint)
		output_note("Hint: %s", broken->hint);
}

static void answer(const struct client *c, bool mounted_now, const struct include *included, const struct error *broken)
{
	json_t *status = report_status(c);
	if (error_is_set(broken)) {
		warn_of_broken(broken);
		json_object_set_new(status, "config_error", error_to_json(broken));
	}
	report_warn_of_permissions(status);
	output_line("%s %s (%s)", c->id.root, mounted_now ? "is mounted" : "was mounted already", c->id.namespace_);
	if (included->answer)
		json_object_set(status, "included", included->answer);
	output_document(status);
	client_note_beneath(c);
}

static int run(const struct arguments *args, struct error *err)
{
	cleanup_client struct client c = CLIENT_INIT;
	cleanup_include struct include included = INCLUDE_INIT;
	cleanup_error struct error broken = ERROR_INIT;
	bool mounted_now = false;
	int r = args->words ? client_of(args->words[0], NULL, &c, err) : client_find(NULL, &c, err);
	if (r)
		return r;
	interrupts_note();
	r = include_and_attach(&c, arguments_value(args, "options"), &mounted_now, &included, err);
	if (!r && interrupted()) {
		interrupts_forget();
		if (mounted_now)
			mounting_detach(&c, DETACH_UNUSED, NULL);
		return error_set(err, ERROR_CANCELED, "interrupted");
	}
	interrupts_release();
	if (!r)
		r = mounting_approve(&c, &broken, err);
	if (!r)
		answer(&c, mounted_now, &included, &broken);
	return r;
}

const struct command command_attach = {
	.name = "attach",
	.arguments = "[DIR]",
	.summary = "mount a workspace, a checkout or any directory; starts nothing",
	.help = "Without DIR: the workspace that the working directory is in, or else that directory. With DIR: "
	        "exactly that directory. What is mounted stays mounted, as it is: options that it has not are a warning. Approves the configuration that stands there "
	        "now; one that is broken is a warning. Files that .worktreeinclude of the main checkout names and git ignores are copied from there, once. Where a "
	        "commit tracks .env, the virtual file is .env.local.",
	.options = options,
	.words_max = 1,
	.run = run,
};
