#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/strv.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/registry.h"
#include "cli/reports.h"

/* new: the status of one record, without asking a mount that nobody serves. */
static json_t *status_of(const struct store_environment *e)
{
	struct client c = CLIENT_INIT;
	struct stat st;
	json_t *status;
	if (registry_identity(e, &c.id, NULL))
		return json_object();
	client_refresh(&c);
	bool gone = !c.hung && stat(e->root, &st) && errno == ENOENT;
	status = report_status(&c);
	if (gone)
		json_object_set_new(status, "state", json_string("gone"));
	client_release(&c);
	return status;
}

static const char *how(const json_t *status)
{
	const char *mode = report_string(status, "mode");
	return !*mode ? "-" : strcmp(mode, "overlay") ? mode : "mounted";
}

static int run(const struct arguments *args, struct error *err)
{
	cleanup_registry_list struct registry_list list = {NULL, 0};
	cleanup_strv char **cells = NULL;
	json_t *documents = json_array();
	int r = registry_list(&list, err);
	for (size_t i = 0; !r && i < list.count; i++) {
		json_t *status = status_of(&list.items[i]);
		cleanup_free char *resources = report_resources(status);
		strv_pushf(&cells, "%s", report_string(status, "state"));
		strv_pushf(&cells, "%s", how(status));
		strv_pushf(&cells, "%s", list.items[i].root);
		strv_pushf(&cells, "%s", resources);
		json_array_append_new(documents, status);
	}
	if (!r)
		output_table((const char *const *)cells, 4, (unsigned)strv_len(cells) / 4);
	if (!r && !list.count)
		output_note("no environments");
	if (r)
		json_decref(documents);
	else
		output_document(json_pack("{s:o}", "environments", documents));
	return r;
}

const struct command command_list = {
	.name = "list",
	.arguments = "",
	.summary = "all environments of this user, whatever repository they belong to",
	.help = "States besides those of an environment: `dead`, mounted but served by nobody, and `gone`, whose "
	        "directory was removed; `ajj cleanup` is for both. `orphaned`: its keeper was killed and its containers are there; `ajj up`, `down` or `destroy` there, or `ajj cleanup`. `hung`: its server does not answer now.",
	.looks_closely = true,
	.run = run,
};
