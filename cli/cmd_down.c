#include "base/buffer.h"
#include "cli/commands.h"
#include "cli/mounting.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/registry.h"
#include "cli/reports.h"

static const struct option options[] = {
	{"force", 0, NULL, "also when somebody holds .env open"},
	{NULL, 0, NULL, NULL},
};

/* IN_USE naming who holds a lease: an open `.env`, or a command under `ajj run`. */
static int need_unused(const struct client *c, struct error *err)
{
	cleanup_buffer struct buffer who = BUFFER_INIT;
	json_t *status = NULL, *lease;
	size_t i;
	int r = client_status(c, &status, err);
	if (r)
		return r;
	json_t *leases = json_object_get(status, "leases");
	json_array_foreach(leases, i, lease) buffer_printf(&who, "%s%lld (%s)", i ? ", " : "",
	                                                   (long long)json_integer_value(json_object_get(lease, "pid")),
	                                                   report_string(lease, "command"));
	if (i) {
		error_set(err, ERROR_IN_USE, "%s is in use by %s", c->id.root, buffer_str(&who));
		error_detail(err, "holders", json_incref(leases));
		r = -error_code_errno(ERROR_IN_USE);
		error_hint(err, "end what uses it, or: ajj down --force");
	}
	json_decref(status);
	return r;
}

/* Unmounted, nothing of it runs, unless its keeper was killed. */
static int stop(struct client *c, bool force, struct error *err)
{
	if (!c->mounted || c->dead) {
		cleanup_error struct error why = ERROR_INIT;
		int r = registry_stop(&c->id, &why);
		if (r && why.code == ERROR_IN_USE)
			client_refresh(c);
		if (!r || !c->mounted || c->dead) {
			error_move(err, &why);
			return r;
		}
	}
	int r = force ? 0 : need_unused(c, err);
	if (r)
		return r;
	cleanup_progress struct progress *progress = progress_start(c, "stopping");
	return client_command(c, "down", err);
}

static int run(const struct arguments *args, struct error *err)
{
	cleanup_client struct client c = CLIENT_INIT;
	int r = client_find(NULL, &c, err);
	if (r)
		return r;
	r = stop(&c, arguments_flag(args, "force"), err);
	if (!r && c.native == NATIVE_PLAIN) /* nobody is asked there by reading: what stands there would be stale */
		r = mounting_detach(&c, DETACH_UNUSED, err);
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
	.help = "After `ajj up --plain` the workspace is as it was before, too. Refused, with the holders' names, while somebody holds .env open or a command runs under `ajj run`, but with --force.",
	.options = options,
	.run = run,
};
