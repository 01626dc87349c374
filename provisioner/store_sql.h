/* How the files of the store speak SQL; nobody else includes this. */
#ifndef PROVISIONER_STORE_SQL_H
#define PROVISIONER_STORE_SQL_H

#include <sqlite3.h>

#include "provisioner/store.h"

struct store {
	sqlite3 *db;
	char *directory;         /* STATE */
	char *path;              /* STATE/aether.db */
	uint64_t busy_since_ms;  /* when the wait for another writer began, now_monotonic_ms */
};

/* Turns SQLite's last failure into ours: a full disk, a damaged file, a busy one. */
int sql_failed(struct store *s, int rc, struct error *err);

/* Arguments after `types`, one a letter: s const char * (NULL gives NULL; copied), i int64_t, w (int64_t)-1 gives NULL. */
int sql_prepare(struct store *s, sqlite3_stmt **ret, struct error *err, const char *sql, const char *types, ...);
int sql_bind(struct store *s, sqlite3_stmt *statement, struct error *err, const char *types, ...); /* resets it first */
/* 1: a row, 0: no more. */
int sql_step(struct store *s, sqlite3_stmt *statement, struct error *err);
/* Prepares, runs to the end and finalizes. Returns how many rows changed. */
int sql_run(struct store *s, struct error *err, const char *sql, const char *types, ...);

char *sql_text(sqlite3_stmt *statement, int column); /* new; NULL for NULL */

static inline void sql_finalizep(sqlite3_stmt **statement)
{
	sqlite3_finalize(*statement);
}
#define cleanup_statement __attribute__((cleanup(sql_finalizep)))

/* A write transaction; rolled back when it leaves scope uncommitted. */
struct transaction {
	struct store *store; /* NULL: none is open */
};
#define TRANSACTION_INIT {NULL}
int transaction_begin(struct store *s, struct transaction *t, struct error *err);
int transaction_commit(struct transaction *t, struct error *err);
void transaction_release(struct transaction *t);
#define cleanup_transaction __attribute__((cleanup(transaction_release)))

/* Which uid an environment gets (store_uids.c). Within a transaction. */
int uid_lease(struct store *s, const char *namespace_, struct error *err);

#endif
