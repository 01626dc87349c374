#include "cli/explain.h"

#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/strv.h"
#include "cli/output.h"
#include "cli/reports.h"
#include "provisioner/envfile.h"

enum { COLUMNS = 4 };

static char *shown(const char *key, const char *value)
{
	return env_name_is_secret(key) ? xstrdup("***") : url_mask_password(value);
}

/* borrowed: what `list` of status.json says of that variable; NULL: nothing */
static const json_t *find(const json_t *status, const char *list, const char *key)
{
	const json_t *item;
	size_t i;
	json_array_foreach(json_object_get(status, list), i, item) if (!strcmp(report_string(item, "key"), key)) return item;
	return NULL;
}

static const char *layer_of(const json_t *status, const char *key)
{
	return report_string(json_object_get(status, "layers"), key);
}

static json_t *explained(const json_t *status, const char *key, const char *value)
{
	const json_t *rewrite = find(status, "rewrites", key), *override = find(status, "overrides", key);
	cleanup_free char *masked = shown(key, value);
	json_t *row = json_pack("{s:s, s:s, s:s}", "key", key, "layer", layer_of(status, key), "value", masked);
	if (rewrite)
		json_object_set_new(row, "service", json_string(report_string(rewrite, "service")));
	if (rewrite || override)
		json_object_set_new(row, "before", json_string(report_string(rewrite ? rewrite : override, "before")));
	return row;
}

static void add_cells(const json_t *row, char ***cells)
{
	const json_t *before = json_object_get(row, "before"), *service = json_object_get(row, "service");
	strv_pushf(cells, "%s", report_string(row, "key"));
	strv_pushf(cells, "%s", report_string(row, "layer"));
	strv_pushf(cells, "%s", report_string(row, "value"));
	if (service)
		strv_pushf(cells, "rewritten to %s, was %s", json_string_value(service), json_string_value(before));
	else
		strv_pushf(cells, before ? "overrides %s" : "%s", before ? json_string_value(before) : "");
}

void explain_variables(const json_t *env, const json_t *status)
{
	cleanup_strv char **cells = NULL;
	json_t *rows = json_array(), *value;
	const char *key;
	json_object_foreach((json_t *)env, key, value)
	{
		json_t *row = explained(status, key, json_string_value(value));
		add_cells(row, &cells);
		json_array_append_new(rows, row);
	}
	output_table((const char *const *)cells, COLUMNS, (unsigned)strv_len(cells) / COLUMNS);
	output_document(json_pack("{s:o}", "variables", rows));
}
