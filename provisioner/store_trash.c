/* What rests in the trash. The directories are trash.c's business; here are the rows that tell of them. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "provisioner/store_sql.h"

#define COLUMNS "id, namespace, root, workspace, generation, at_ms, bytes, has_env, services"

static char *services_text(char *const *services)
{
	json_t *array = json_array();
	for (; services && *services; services++)
		json_array_append_new(array, json_string(*services));
	char *text = json_dumps(array, JSON_COMPACT);
	json_decref(array);
	return text;
}

static char **services_of(const char *text)
{
	char **services = NULL;
	json_t *array = json_loads(text ? text : "[]", 0, NULL), *name;
	size_t i;
	json_array_foreach(array, i, name) if (json_is_string(name)) strv_push(&services, xstrdup(json_string_value(name)));
	json_decref(array);
	return services;
}

static char *path_of(const struct store *s, int64_t id)
{
	return xasprintf("%s/trash/%lld", s->directory, (long long)id);
}

static void read_row(struct store *s, sqlite3_stmt *row, struct trash_entry *e)
{
	*e = (struct trash_entry){
	    .id = sqlite3_column_int64(row, 0),
	    .namespace_ = sql_text(row, 1),
	    .root = sql_text(row, 2),
	    .workspace = sql_text(row, 3),
	    .generation = (uint32_t)sqlite3_column_int64(row, 4),
	    .at_ms = sqlite3_column_int64(row, 5),
	    .bytes = (uint64_t)sqlite3_column_int64(row, 6),
	    .has_env = sqlite3_column_int(row, 7),
	    .services = services_of((const char *)sqlite3_column_text(row, 8)),
	};
	e->path = path_of(s, e->id);
}

int store_trash_begin(struct store *s, const struct trash_entry *e, int64_t *ret_id, char **ret_path, struct error *err)
{
	cleanup_free char *services = services_text(e->services);
	/* an id of the caller's is for a directory that lost its row */
	int r =
	    sql_run(s, err,
	            "INSERT INTO trash(id, namespace, root, workspace, generation, at_ms, has_env, services)"
	            " VALUES(?,?,?,?,?,?,?,?)",
	            "wsssiiis", e->id ? e->id : (int64_t)-1, e->namespace_, e->root, e->workspace, (int64_t)e->generation,
	            e->at_ms ? e->at_ms : now_wall_ms(), (int64_t)e->has_env, services ? services : "[]");
	if (r < 0)
		return r;
	*ret_id = sqlite3_last_insert_rowid(s->db);
	*ret_path = path_of(s, *ret_id);
	return 0;
}

int store_trash_commit(struct store *s, int64_t id, uint64_t bytes, struct error *err)
{
	int r = sql_run(s, err, "UPDATE trash SET committed=1, bytes=? WHERE id=?", "ii", (int64_t)bytes, id);
	return r < 0 ? r : r ? 0 : error_set(err, ERROR_TRASH_NOT_FOUND, "no entry %lld is in the trash", (long long)id);
}

int store_trash_uncommit(struct store *s, int64_t id, struct error *err)
{
	int r = sql_run(s, err, "UPDATE trash SET committed=0 WHERE id=?", "i", id);
	return r < 0 ? r : r ? 0 : error_set(err, ERROR_TRASH_NOT_FOUND, "no entry %lld is in the trash", (long long)id);
}

int store_trash_describe(struct store *s, int64_t id, bool has_env, char *const *services, struct error *err)
{
	cleanup_free char *text = services_text(services);
	int r = sql_run(s, err, "UPDATE trash SET has_env=?, services=? WHERE id=?", "isi", (int64_t)has_env,
	                text ? text : "[]", id);
	return r < 0 ? r : 0;
}

int store_trash_delete(struct store *s, int64_t id, struct error *err)
{
	int r = sql_run(s, err, "DELETE FROM trash WHERE id=?", "i", id);
	return r < 0 ? r : 0;
}

int store_trash_has(struct store *s, int64_t id, struct error *err)
{
	cleanup_statement sqlite3_stmt *row = NULL;
	int r = sql_prepare(s, &row, err, "SELECT 1 FROM trash WHERE id=?", "i", id);
	return r < 0 ? r : sql_step(s, row, err);
}

static int list(struct store *s, const char *namespace_, bool committed, struct trash_entry **ret, size_t *ret_count,
                struct error *err)
{
	cleanup_statement sqlite3_stmt *row = NULL;
	struct trash_entry *entries = NULL;
	size_t count = 0;
	int r = sql_prepare(s, &row, err,
	                    "SELECT " COLUMNS " FROM trash WHERE committed=?1 AND (?2 IS NULL OR namespace=?2)"
	                    " ORDER BY at_ms DESC, id DESC",
	                    "is", (int64_t)committed, namespace_);
	while (r == 0 && (r = sql_step(s, row, err)) == 1) {
		array_grow(entries, count);
		read_row(s, row, &entries[count++]);
		r = 0;
	}
	if (r < 0) {
		trash_entries_free(entries, count);
		return r;
	}
	*ret = entries;
	*ret_count = count;
	return 0;
}

int store_trash_list(struct store *s, const char *namespace_, struct trash_entry **ret, size_t *ret_count,
                     struct error *err)
{
	return list(s, namespace_, true, ret, ret_count, err);
}

int store_trash_unfinished(struct store *s, struct trash_entry **ret, size_t *ret_count, struct error *err)
{
	return list(s, NULL, false, ret, ret_count, err);
}

void trash_entry_release(struct trash_entry *e)
{
	free(e->namespace_);
	free(e->root);
	free(e->workspace);
	free(e->path);
	strv_free(e->services);
	*e = (struct trash_entry){0};
}

void trash_entries_free(struct trash_entry *e, size_t count)
{
	for (size_t i = 0; i < count; i++)
		trash_entry_release(&e[i]);
	free(e);
}
