#include "cli/workspace_table.h"

#include "base/cleanup.h"
#include "base/strv.h"
#include "cli/client.h"
#include "cli/output.h"
#include "cli/reports.h"

static json_t *status_of(const struct workspace_row *row)
{
	cleanup_client struct client c = CLIENT_INIT;
	if (!row->root || client_of(row->root, row->name, &c, NULL))
		return json_pack("{s:s?, s:s, s:b}", "workspace_root", row->root, "state", "absent", "mounted", 0);
	return report_status(&c);
}

void workspace_table_print(const struct workspace_row *rows, size_t count)
{
	cleanup_strv char **cells = NULL;
	json_t *documents = json_array();
	for (size_t i = 0; i < count; i++) {
		json_t *status = status_of(&rows[i]);
		cleanup_free char *resources = report_resources(status);
		strv_pushf(&cells, "%s", rows[i].name);
		strv_pushf(&cells, "%s",
		           json_is_true(json_object_get(status, "mounted")) ? report_string(status, "state") : "-");
		strv_pushf(&cells, "%s", rows[i].root ? rows[i].root : "?");
		strv_pushf(&cells, "%s%s%s", resources, *resources && rows[i].note ? "  " : "", rows[i].note ? rows[i].note : "");
		json_object_set_new(status, "workspace", json_string(rows[i].name));
		if (rows[i].more)
			json_object_update(status, rows[i].more);
		json_array_append_new(documents, status);
	}
	output_table((const char *const *)cells, 4, (unsigned)count);
	output_document(json_pack("{s:o}", "workspaces", documents));
}
