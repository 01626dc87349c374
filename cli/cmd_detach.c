#include "base/file.h"
#include "cli/commands.h"
#include "cli/mounting.h"
#include "cli/output.h"

/* Unmounting ends what runs, whatever it holds. On a full disk that may be what could not be saved: then stop first, and who cannot save
 * stays, as with `down`. */
static int stop_before(const struct client *c, struct error *err)
{
	return c->mounted && !c->dead && disk_is_full(c->id.state_dir) ? client_command(c, "down", err) : 0;
}

static int run(const struct arguments *args, struct error *err)
{
	cleanup_client struct client c = CLIENT_INIT;
	int r = args->words ? client_of(args->words[0], NULL, &c, err) : client_find(NULL, &c, err);
	if (r)
		return r;
	bool was_mounted = c.mounted;
	r = stop_before(&c, err);
	if (!r)
		r = mounting_detach(&c, DETACH_UNUSED, err);
	if (r)
		return r;
	output_line("%s %s", c.id.root, was_mounted ? "is unmounted" : "is not mounted");
	output_document(json_pack("{s:s, s:s, s:b, s:b}", "workspace_root", c.id.root, "namespace", c.id.namespace_,
	                          "mounted", 0, "was_mounted", was_mounted));
	return 0;
}

const struct command command_detach = {
	.name = "detach",
	.arguments = "[DIR]",
	.summary = "stop the services, keeping data and ports, and unmount",
	.help = "Returns when nothing runs any more. A directory that is in use stays mounted, and the error says who "
	        "uses it.",
	.words_max = 1,
	.run = run,
};
