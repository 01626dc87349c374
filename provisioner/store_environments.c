/* The registry: which environments there are, where they live, what is wanted of them. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "provisioner/store_sql.h"

#define COLUMNS                                                                                                        \
	"namespace, root, repository, workspace, control_dir, state_dir, backend, backend_reason, generation, desired, "   \
	"created_ms, uid, root_id, backend_target"

static void read_row(sqlite3_stmt *row, struct store_environment *e)
{
	char **const texts[] = {&e->namespace_,  &e->root,      &e->repository, &e->workspace,
	                        &e->control_dir, &e->state_dir, &e->backend,    &e->backend_reason};
	for (int i = 0; i < 8; i++)
		*texts[i] = sql_text(row, i);
	e->generation = (uint32_t)sqlite3_column_int64(row, 8);
	e->desired = sql_text(row, 9);
	e->created_ms = sqlite3_column_int64(row, 10);
	e->uid = sqlite3_column_type(row, 11) == SQLITE_NULL ? (uid_t)-1 : (uid_t)sqlite3_column_int64(row, 11);
	e->root_id = sql_text(row, 12);
	e->backend_target = sql_text(row, 13);
}

int store_environment_put(struct store *s, const struct store_environment *e, bool want_uid, struct error *err)
{
	cleanup_transaction struct transaction t = TRANSACTION_INIT;
	int r = transaction_begin(s, &t, err);
	if (r == 0)
		r = sql_run(
		    s, err,
		    "INSERT INTO environments(namespace, root, repository, workspace, control_dir, state_dir, generation,"
		    " desired, created_ms, root_id) VALUES(?,?,?,?,?,?,?,?,?,?) ON CONFLICT(namespace) DO UPDATE SET"
		    " root=excluded.root, repository=excluded.repository, workspace=excluded.workspace,"
		    " control_dir=excluded.control_dir, state_dir=excluded.state_dir,"
		    " root_id=COALESCE(excluded.root_id, root_id)",
		    "ssssssisis", e->namespace_, e->root, e->repository, e->workspace, e->control_dir, e->state_dir,
		    (int64_t)(e->generation ? e->generation : 1), e->desired ? e->desired : "absent",
		    e->created_ms ? e->created_ms : now_wall_ms(), e->root_id);
	if (r >= 0 && want_uid && geteuid() == 0)
		r = uid_lease(s, e->namespace_, err);
	return r < 0 ? r : transaction_commit(&t, err);
}

int store_environment_get(struct store *s, const char *namespace_, struct store_environment *ret, struct error *err)
{
	cleanup_statement sqlite3_stmt *row = NULL;
	int r = sql_prepare(s, &row, err, "SELECT " COLUMNS " FROM environments WHERE namespace=?", "s", namespace_);
	if (r == 0)
		r = sql_step(s, row, err);
	if (r == 1)
		read_row(row, ret);
	return r;
}

int store_environment_list(struct store *s, struct store_environment **ret, size_t *ret_count, struct error *err)
{
	cleanup_statement sqlite3_stmt *row = NULL;
	struct store_environment *list = NULL;
	size_t count = 0;
	int r = sql_prepare(s, &row, err, "SELECT " COLUMNS " FROM environments ORDER BY created_ms, namespace", "");
	while (r == 0 && (r = sql_step(s, row, err)) == 1) {
		array_grow(list, count);
		read_row(row, &list[count++]);
		r = 0;
	}
	if (r < 0) {
		while (count)
			store_environment_release(&list[--count]);
		free(list);
		return r;
	}
	*ret = list;
	*ret_count = count;
	return 0;
}

/* What sql_run returned, where exactly one environment had to be there. */
static int one_changed(int r, const char *namespace_, struct error *err)
{
	return r < 0 ? r : r ? 0 : error_set(err, ERROR_WORKSPACE_NOT_FOUND, "no environment %s is registered", namespace_);
}

int store_environment_move(struct store *s, const struct store_environment *from, const char *root,
                           const char *repository, const char *workspace, struct error *err)
{
	cleanup_transaction struct transaction t = TRANSACTION_INIT;
	int r = transaction_begin(s, &t, err);
	if (r == 0)
		r = one_changed(sql_run(s, err, "UPDATE environments SET root=?, repository=?, workspace=? WHERE namespace=?",
		                        "ssss", root, repository, workspace, from->namespace_),
		                from->namespace_, err);
	if (r == 0 && !strcmp(from->repository, from->root))
		r = sql_run(s, err,
		            "INSERT OR IGNORE INTO approvals(repository, hash, fields, at_ms)"
		            " SELECT ?, hash, fields, at_ms FROM approvals WHERE repository=?",
		            "ss", repository, from->repository);
	return r < 0 ? r : transaction_commit(&t, err);
}

int store_environment_set_backend(struct store *s, const char *namespace_, const char *backend, const char *target,
                                  const char *reason, struct error *err)
{
	int r = sql_run(s, err, "UPDATE environments SET backend=?, backend_target=?, backend_reason=? WHERE namespace=?", "ssss", backend,
	                target, reason, namespace_);
	return one_changed(r, namespace_, err);
}

int store_environment_set_desired(struct store *s, const char *namespace_, const char *desired, struct error *err)
{
	int r = sql_run(s, err, "UPDATE environments SET desired=? WHERE namespace=?", "ss", desired, namespace_);
	return one_changed(r, namespace_, err);
}

int store_environment_next_generation(struct store *s, const char *namespace_, uint32_t *ret, struct error *err)
{
	cleanup_transaction struct transaction t = TRANSACTION_INIT;
	cleanup_statement sqlite3_stmt *row = NULL;
	int r = transaction_begin(s, &t, err);
	if (r == 0)
		r = one_changed(
		    sql_run(s, err, "UPDATE environments SET generation=generation+1 WHERE namespace=?", "s", namespace_),
		    namespace_, err);
	if (r == 0)
		r = sql_prepare(s, &row, err, "SELECT generation FROM environments WHERE namespace=?", "s", namespace_);
	if (r == 0)
		r = sql_step(s, row, err);
	if (r < 0)
		return r;
	uint32_t generation = (uint32_t)sqlite3_column_int64(row, 0);
	sqlite3_reset(row); /* an open read would keep the commit from ending the transaction */
	r = transaction_commit(&t, err);
	if (r == 0)
		*ret = generation;
	return r;
}

int store_environment_delete(struct store *s, const char *namespace_, struct error *err)
{
	static const char *const deletions[] = {
	    "DELETE FROM environments WHERE namespace=?", /* and with it the uid */
	    "DELETE FROM ports WHERE namespace=?",
	    "DELETE FROM secrets WHERE namespace=?",
	};
	cleanup_transaction struct transaction t = TRANSACTION_INIT;
	int r = transaction_begin(s, &t, err);
	for (size_t i = 0; r >= 0 && i < sizeof deletions / sizeof deletions[0]; i++)
		r = sql_run(s, err, deletions[i], "s", namespace_);
	return r < 0 ? r : transaction_commit(&t, err);
}

void store_environment_release(struct store_environment *e)
{
	free(e->namespace_);
	free(e->root);
	free(e->repository);
	free(e->workspace);
	free(e->control_dir);
	free(e->state_dir);
	free(e->backend);
	free(e->backend_reason);
	free(e->backend_target);
	free(e->desired);
	free(e->root_id);
	*e = (struct store_environment){0};
}
