/* Generated secrets, and what the user has approved. */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "provisioner/store_sql.h"

#define SECRET_LENGTH 24  /* 6 bits each */
#define APPROVALS_MAX 100 /* of one repository; the oldest are forgotten */

/* new; NULL when the kernel has no randomness to give. Begins with a letter or digit: "-x" would be taken for an
 * option. */
static char *make_secret(void)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
	unsigned char random[SECRET_LENGTH];
	char *secret = xcalloc(1, SECRET_LENGTH + 1);
	do {
		if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) {
			free(secret);
			return NULL;
		}
		for (size_t i = 0; i < SECRET_LENGTH; i++)
			secret[i] = alphabet[random[i] & 63];
	} while (strchr("_-", secret[0]));
	return secret;
}

/* 1 found */
static int find_secret(struct store *s, const char *namespace_, const char *key, char **ret, struct error *err)
{
	cleanup_statement sqlite3_stmt *row = NULL;
	int r = sql_prepare(s, &row, err, "SELECT value FROM secrets WHERE namespace=? AND key=?", "ss", namespace_, key);
	if (r == 0)
		r = sql_step(s, row, err);
	if (r == 1)
		*ret = sql_text(row, 0);
	return r;
}

int store_secret(struct store *s, const char *namespace_, const char *key, char **ret, struct error *err)
{
	int r = find_secret(s, namespace_, key, ret, err);
	if (r)
		return r < 0 ? r : 0;
	cleanup_free char *secret = make_secret();
	if (!secret)
		return error_set_errno(err, ERROR_INTERNAL, errno ? errno : EIO, "getrandom");
	/* somebody may have been faster: then theirs it is */
	r = sql_run(s, err, "INSERT OR IGNORE INTO secrets(namespace, key, value) VALUES(?,?,?)", "sss", namespace_, key,
	            secret);
	if (r >= 0)
		r = find_secret(s, namespace_, key, ret, err);
	return r < 0 ? r : r ? 0 : error_set(err, ERROR_STORE_FAILED, "%s: a secret vanished", s->path);
}

int store_secrets_list(struct store *s, const char *namespace_, struct keyvals *out, struct error *err)
{
	cleanup_statement sqlite3_stmt *row = NULL;
	int r = sql_prepare(s, &row, err, "SELECT key, value FROM secrets WHERE namespace=? ORDER BY key", "s", namespace_);
	while (r == 0 && (r = sql_step(s, row, err)) == 1) {
		keyvals_set(out, (const char *)sqlite3_column_text(row, 0), (const char *)sqlite3_column_text(row, 1));
		r = 0;
	}
	return r;
}

int store_secret_set(struct store *s, const char *namespace_, const char *key, const char *value, struct error *err)
{
	int r = sql_run(s, err, "INSERT OR REPLACE INTO secrets(namespace, key, value) VALUES(?,?,?)", "sss", namespace_,
	                key, value);
	return r < 0 ? r : 0;
}

int store_secrets_release(struct store *s, const char *namespace_, struct error *err)
{
	int r = sql_run(s, err, "DELETE FROM secrets WHERE namespace=?", "s", namespace_);
	return r < 0 ? r : 0;
}

/* ---- approvals ---- */

int store_approve(struct store *s, const char *repository, const char *hash, const char *fields, struct error *err)
{
	cleanup_transaction struct transaction t = TRANSACTION_INIT;
	int r = transaction_begin(s, &t, err);
	if (r == 0)
		r = sql_run(s, err,
		            "INSERT OR REPLACE INTO approvals(repository, hash, fields, at_ms) VALUES(?1,?2,?3,"
		            " max(?4, (SELECT ifnull(max(at_ms), 0) + 1 FROM approvals WHERE repository=?1)))",
		            "sssi", repository, hash, fields, now_wall_ms());
	if (r >= 0)
		r = sql_run(s, err,
		            "DELETE FROM approvals WHERE repository=?1 AND hash NOT IN"
		            " (SELECT hash FROM approvals WHERE repository=?1 ORDER BY at_ms DESC LIMIT ?2)",
		            "si", repository, (int64_t)APPROVALS_MAX);
	return r < 0 ? r : transaction_commit(&t, err);
}

int store_is_approved(struct store *s, const char *repository, const char *hash, struct error *err)
{
	cleanup_statement sqlite3_stmt *row = NULL;
	int r = sql_prepare(s, &row, err, "SELECT 1 FROM approvals WHERE repository=? AND hash=?", "ss", repository, hash);
	return r < 0 ? r : sql_step(s, row, err);
}

int store_approved(struct store *s, const char *repository, char **ret_fields, int64_t *ret_at_ms, struct error *err)
{
	cleanup_statement sqlite3_stmt *row = NULL;
	int r = sql_prepare(s, &row, err, "SELECT fields, at_ms FROM approvals WHERE repository=? ORDER BY at_ms DESC LIMIT 1", "s",
	                    repository);
	if (r == 0)
		r = sql_step(s, row, err);
	if (r != 1)
		return r;
	*ret_fields = sql_text(row, 0);
	*ret_at_ms = sqlite3_column_int64(row, 1);
	return 1;
}

int store_revoke(struct store *s, const char *repository, struct error *err)
{
	return sql_run(s, err, "DELETE FROM approvals WHERE repository=?", "s", repository);
}
