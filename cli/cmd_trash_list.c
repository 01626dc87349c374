#include <stdlib.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/buffer.h"
#include "base/file.h"
#include "base/strv.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/registry.h"
#include "cli/reports.h"
#include "provisioner/trash.h"

/* -1: nobody says */
static char *size_text(int64_t bytes)
{
	if (bytes < 0)
		return xstrdup("-");
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	struct buffer out = BUFFER_INIT;
	double n = (double)bytes;
	size_t unit = 0;
	for (; n >= 1024 && unit < 4; unit++)
		n /= 1024;
	buffer_printf(&out, unit ? "%.1f %s" : "%.0f %s", n, units[unit]);
	return buffer_detach(&out);
}

static char *join(char *const *words)
{
	struct buffer out = BUFFER_INIT;
	for (; words && *words; words++)
		buffer_printf(&out, "%s%s", out.len ? ", " : "", *words);
	return buffer_detach(&out);
}

static json_t *entry_json(const struct trash_entry *e, int64_t bytes)
{
	char time[32];
	json_t *services = json_array();
	format_time(time, e->at_ms);
	for (char **s = e->services; s && *s; s++)
		json_array_append_new(services, json_string(*s));
	return json_pack("{s:I, s:s, s:s, s:s, s:s, s:o, s:b, s:o}", "id", (json_int_t)e->id, "time", time, "namespace",
	                 e->namespace_, "workspace_root", e->root, "workspace", e->workspace, "bytes", bytes < 0 ? json_null() : json_integer(bytes),
	                 "has_env", e->has_env, "services", services);
}

static void add_row(const struct trash_entry *e, int64_t bytes, char ***cells)
{
	char time[32];
	cleanup_free char *size = size_text(bytes), *services = join(e->services);
	format_time(time, e->at_ms);
	time[19] = '\0'; /* seconds will do */
	strv_pushf(cells, "%lld", (long long)e->id);
	strv_pushf(cells, "%s", time);
	strv_pushf(cells, "%s", size);
	strv_pushf(cells, "%s%s", services, e->has_env ? *services ? ", .env" : ".env" : "");
	strv_pushf(cells, "%s", e->root);
}

static int run(const struct arguments *args, struct error *err)
{
	cleanup_store struct store *store = NULL;
	cleanup_strv char **cells = NULL;
	struct trash_entry *entries = NULL;
	size_t count = 0;
	int r = registry_open(&store, err);
	if (!r && store)
		r = store_trash_list(store, NULL, &entries, &count, err);
	if (r)
		return r;
	json_t *documents = json_array(), *told = json_object();
	for (size_t i = 0; i < count; i++) {
		int64_t bytes = trash_measure(&entries[i], told);
		add_row(&entries[i], bytes, &cells);
		json_array_append_new(documents, entry_json(&entries[i], bytes));
	}
	json_decref(told);
	output_table((const char *const *)cells, 5, (unsigned)count);
	if (!count)
		output_note("the trash is empty");
	output_document(json_pack("{s:o}", "trash", documents));
	trash_entries_free(entries, count);
	return 0;
}

const struct command command_trash_list = {
	.name = "trash list",
	.arguments = "",
	.summary = "what was destroyed and can be had back: id, time (UTC), size, whose data, workspace",
	.help = "Entries rest for 24 hours, or until all are over 10 GB; the oldest are dropped first, never the newest for its size. An engine's volumes are shown with what the engine says of them "
	        "(- where it says nothing), and count as that.",
	.run = run,
};
