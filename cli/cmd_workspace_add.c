#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/strv.h"
#include "cli/commands.h"
#include "cli/configuration.h"
#include "cli/jj.h"
#include "cli/mounting.h"
#include "cli/output.h"
#include "cli/process.h"
#include "cli/progress.h"
#include "cli/reports.h"

static const struct option options[] = {
	{"up", 0, NULL, "also start the services and wait until they are ready"},
	{NULL, 0, NULL, NULL},
};

struct add {
	const struct arguments *args;
	char *repository_root;   /* of the workspace that jj is asked in */
	const char *destination; /* borrowed word */
	bool up;
};

/* `.jj/working_copy` is the last thing that jj makes in a destination. */
static bool is_workspace(const char *directory)
{
	struct stat st;
	cleanup_free char *path = xasprintf("%s/.jj/working_copy", directory);
	return !stat(path, &st);
}

/* With options that we know the one word is DEST. The value of one that we do not know looks like a word, too: DEST is
 * the word that has become a workspace meanwhile. */
static const char *find_destination(char *const *words)
{
	const char *found = NULL;
	if (words && words[0] && !words[1])
		return words[0];
	for (; words && *words; words++)
		if (is_workspace(*words))
			found = *words;
	return found;
}

static int make_workspace(struct add *a, struct error *err)
{
	static char words[][16] = {"workspace", "add"};
	cleanup_free char **line = NULL;
	strv_push(&line, words[0]);
	strv_push(&line, words[1]);
	for (char **rest = a->args->rest; rest && *rest; rest++)
		strv_push(&line, *rest);
	int r = jj_run(line, err);
	if (r)
		return r;
	a->destination = find_destination(a->args->words);
	if (!a->destination || !is_workspace(a->destination)) {
		error_set(err, ERROR_WORKSPACE_NOT_FOUND, "jj made a workspace, but where is not clear from the command line");
		return error_hint(err, "ajj attach DEST");
	}
	return 0;
}

/* What jj made stays: it is the user's. What we made goes. */
static int canceled(struct client *c, bool mounted, const char *destination, struct error *err)
{
	if (mounted)
		mounting_detach(c, DETACH_UNUSED, NULL);
	error_release(err);
	error_set(err, ERROR_CANCELED, "interrupted: the workspace was made, but is not mounted");
	return error_hint(err, "ajj attach %s", destination);
}

static int mount_workspace(const struct add *a, struct client *c, struct error *err)
{
	bool mounted = false;
	int r = client_of(a->destination, NULL, c, err);
	if (!r && interrupted())
		return canceled(c, false, a->destination, err);
	if (!r)
		r = mounting_attach(c, NULL, &mounted, err);
	if (!r && interrupted())
		return canceled(c, mounted, a->destination, err);
	if (!r)
		r = mounting_approve(c, err);
	if (!r)
		return 0;
	cleanup_free char *first = err->hint ? xasprintf("%s, then: ", err->hint) : xstrdup("");
	error_prefix(err, "the workspace was made, but is not mounted");
	error_hint(err, "%sajj attach %s", first, a->destination);
	return r;
}

static int start_services(const struct client *c, struct error *err)
{
	cleanup_progress struct progress *progress = progress_start(c, "starting");
	return client_command(c, "up", err);
}

static void answer(const struct client *c)
{
	json_t *status = report_status(c);
	cleanup_free char *resources = report_resources(status);
	output_line("Mounted %s (%s)%s%s", c->id.root, c->id.namespace_, *resources ? ": " : "", resources);
	json_object_set_new(status, "path", json_string(c->id.root));
	output_document(status);
}

static int run(const struct arguments *args, struct error *err)
{
	cleanup_client struct client c = CLIENT_INIT;
	cleanup_free char *jj = NULL, *root = NULL;
	struct add a = {.args = args, .up = arguments_flag(args, "up")};
	const char *repository = jj_option_value(args->rest, "repository", 'R');
	int r = jj_find(&jj, err);
	if (!r)
		r = jj_root(repository ? repository : ".", &root, err);
	if (!r)
		r = configuration_check(root, &a.up, err);
	if (r)
		return r;
	interrupts_note();
	r = make_workspace(&a, err);
	if (r)
		return r;
	r = mount_workspace(&a, &c, err);
	interrupts_release();
	if (!r && a.up)
		r = start_services(&c, err);
	if (!r)
		answer(&c);
	return r;
}

const struct command command_workspace_add = {
	.name = "workspace add",
	.arguments = "DEST [jj's options]",
	.summary = "jj workspace add, then mount: ports are leased, nothing is started",
	.help = "jj's own options are handed on (--name, -r, ...). A broken configuration fails before jj is called. "
	        "When the mount fails the workspace stays, and `ajj attach DEST` tries again. With --json: "
	        "status.json and `path`.",
	.options = options,
	.mode = ARGUMENTS_PASS,
	.words_min = 1,
	.words_max = COMMAND_WORDS_ANY,
	.run = run,
};
