/* Opening the database and bringing it to today's form. What is kept in it is in store_*.c. */
#include "provisioner/store.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "provisioner/store_sql.h"

/* Append only: a database anywhere in the world stands at one of these steps. PRAGMA user_version counts those applied.
 */
static const char *const migrations[] = {
    "CREATE TABLE environments("
    "  namespace TEXT PRIMARY KEY NOT NULL,"
    "  root TEXT NOT NULL, repository TEXT NOT NULL, workspace TEXT NOT NULL,"
    "  control_dir TEXT NOT NULL, state_dir TEXT NOT NULL,"
    "  backend TEXT, backend_reason TEXT,"
    "  generation INTEGER NOT NULL DEFAULT 1,"
    "  desired TEXT NOT NULL DEFAULT 'absent',"
    "  created_ms INTEGER NOT NULL,"
    "  uid INTEGER UNIQUE);"
    "CREATE TABLE ports("
    "  port INTEGER PRIMARY KEY,"
    "  namespace TEXT NOT NULL, service TEXT NOT NULL, key TEXT NOT NULL,"
    "  UNIQUE(namespace, service, key));"
    "CREATE TABLE foreign_ports(port INTEGER PRIMARY KEY, until_ms INTEGER NOT NULL);"
    "CREATE TABLE secrets("
    "  namespace TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,"
    "  PRIMARY KEY(namespace, key)) WITHOUT ROWID;"
    "CREATE TABLE approvals("
    "  repository TEXT NOT NULL, text TEXT NOT NULL, at_ms INTEGER NOT NULL,"
    "  PRIMARY KEY(repository, text)) WITHOUT ROWID;"
    /* AUTOINCREMENT: an id names a directory, and must not come back while an old one may still stand there */
    "CREATE TABLE trash("
    "  id INTEGER PRIMARY KEY AUTOINCREMENT,"
    "  namespace TEXT NOT NULL, root TEXT NOT NULL, workspace TEXT NOT NULL,"
    "  generation INTEGER NOT NULL, at_ms INTEGER NOT NULL,"
    "  bytes INTEGER NOT NULL DEFAULT 0, has_env INTEGER NOT NULL DEFAULT 0,"
    "  services TEXT NOT NULL DEFAULT '[]',"
    "  committed INTEGER NOT NULL DEFAULT 0);"
    "CREATE INDEX trash_by_namespace ON trash(namespace, at_ms);",
    "ALTER TABLE environments ADD COLUMN root_id TEXT;",
    /* they held commands in clear */
    "DROP TABLE approvals;"
    "CREATE TABLE approvals("
    "  repository TEXT NOT NULL, hash TEXT NOT NULL, fields TEXT NOT NULL, at_ms INTEGER NOT NULL,"
    "  PRIMARY KEY(repository, hash)) WITHOUT ROWID;",
    "ALTER TABLE environments ADD COLUMN backend_target TEXT;",
};
#define MIGRATION_COUNT ((int)(sizeof migrations / sizeof migrations[0]))

/* ---- failures ---- */

static int refuse(struct store *s, int errnum, const char *what, struct error *err)
{
	return error_set_errno(err, ERROR_STORE_FAILED, errnum, "%s: %s", s->path, what);
}

static bool is_out_of_space(struct store *s, int rc)
{
	int system = sqlite3_system_errno(s->db);
	return (rc & 0xff) == SQLITE_FULL || ((rc & 0xff) == SQLITE_IOERR && (system == ENOSPC || system == EDQUOT));
}

static int failed_without_hint(struct store *s, int rc, struct error *err)
{
	int system = sqlite3_system_errno(s->db);
	switch (rc & 0xff) {
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return refuse(s, EIO, "the database is damaged", err);
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return refuse(s, EBUSY, "another process keeps the database locked", err);
	case SQLITE_CANTOPEN:
	case SQLITE_PERM:
	case SQLITE_READONLY:
	case SQLITE_AUTH:
		return refuse(s, system ? system : EACCES, sqlite3_errmsg(s->db), err);
	default:
		return refuse(s, EIO, sqlite3_errmsg(s->db), err);
	}
}

static void add_hint(struct store *s, int rc, struct error *err)
{
	switch (rc & 0xff) {
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		error_hint(err, "nothing of it was removed; to begin a new one: mkdir %s/damaged && mv %s* %s/damaged",
		           s->directory, s->path, s->directory);
		break;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		error_hint(err, "see who: fuser -v %s", s->path);
		break;
	case SQLITE_CANTOPEN:
	case SQLITE_PERM:
	case SQLITE_READONLY:
	case SQLITE_AUTH:
		error_hint(err, "the file and its directory must be this user's, and writable: ls -ld %s %s", s->directory,
		           s->path);
		break;
	}
}

int sql_failed(struct store *s, int rc, struct error *err)
{
	if (is_out_of_space(s, rc)) {
		int full = error_set(err, ERROR_NO_SPACE, "%s cannot grow: the disk is full", s->path);
		error_hint(err, "make room, for example: ajj trash empty");
		return full;
	}
	int r = failed_without_hint(s, rc, err);
	add_hint(s, rc, err);
	return r;
}

/* ---- waiting for other writers ---- */

/* A write takes a fraction of a millisecond, so the pauses are short and differ between processes; SQLite's own handler
 * sleeps up to 100 ms, which ten processes at once would feel. */
static void pause_for(int count)
{
	long ns = 200000L << (count < 5 ? count : 5), jitter = (long)getpid() * 7919 % 100000;
	nanosleep(&(struct timespec){0, ns + jitter}, NULL);
}

static int wait_a_turn(void *arg, int count)
{
	struct store *s = arg;
	if (count == 0)
		s->busy_since_ms = now_monotonic_ms();
	else if (now_monotonic_ms() - s->busy_since_ms > STORE_BUSY_MS)
		return 0;
	pause_for(count);
	return 1;
}

/* For what SQLite does not ask its busy handler about: the change to WAL, recovery, a schema that changed meanwhile. */
static bool may_retry(int rc, uint64_t deadline_ms)
{
	if (((rc & 0xff) != SQLITE_BUSY && (rc & 0xff) != SQLITE_LOCKED) || now_monotonic_ms() > deadline_ms)
		return false;
	pause_for(3);
	return true;
}

static int execute(struct store *s, const char *sql)
{
	uint64_t deadline_ms = now_monotonic_ms() + STORE_BUSY_MS;
	int rc;
	do
		rc = sqlite3_exec(s->db, sql, NULL, NULL, NULL);
	while (may_retry(rc, deadline_ms));
	return rc;
}

/* ---- statements ---- */

static int bind_all(struct store *s, sqlite3_stmt *statement, struct error *err, const char *types, va_list ap)
{
	int rc = SQLITE_OK;
	for (int i = 1; rc == SQLITE_OK && types[i - 1]; i++) {
		if (types[i - 1] == 's') {
			rc = sqlite3_bind_text(statement, i, va_arg(ap, const char *), -1, SQLITE_TRANSIENT);
			continue;
		}
		int64_t value = va_arg(ap, int64_t);
		rc = types[i - 1] == 'w' && value == -1 ? sqlite3_bind_null(statement, i)
		                                        : sqlite3_bind_int64(statement, i, value);
	}
	return rc == SQLITE_OK ? 0 : sql_failed(s, rc, err);
}

static int prepare(struct store *s, sqlite3_stmt **ret, struct error *err, const char *sql, const char *types,
                   va_list ap)
{
	uint64_t deadline_ms = now_monotonic_ms() + STORE_BUSY_MS;
	int rc;
	do
		rc = sqlite3_prepare_v2(s->db, sql, -1, ret, NULL);
	while (may_retry(rc, deadline_ms));
	return rc == SQLITE_OK ? bind_all(s, *ret, err, types, ap) : sql_failed(s, rc, err);
}

int sql_prepare(struct store *s, sqlite3_stmt **ret, struct error *err, const char *sql, const char *types, ...)
{
	va_list ap;
	va_start(ap, types);
	int r = prepare(s, ret, err, sql, types, ap);
	va_end(ap);
	return r;
}

int sql_bind(struct store *s, sqlite3_stmt *statement, struct error *err, const char *types, ...)
{
	sqlite3_reset(statement);
	va_list ap;
	va_start(ap, types);
	int r = bind_all(s, statement, err, types, ap);
	va_end(ap);
	return r;
}

int sql_step(struct store *s, sqlite3_stmt *statement, struct error *err)
{
	uint64_t deadline_ms = now_monotonic_ms() + STORE_BUSY_MS;
	int rc;
	while (rc = sqlite3_step(statement), may_retry(rc, deadline_ms))
		sqlite3_reset(statement);
	return rc == SQLITE_ROW ? 1 : rc == SQLITE_DONE ? 0 : sql_failed(s, rc, err);
}

int sql_run(struct store *s, struct error *err, const char *sql, const char *types, ...)
{
	cleanup_statement sqlite3_stmt *statement = NULL;
	va_list ap;
	va_start(ap, types);
	int r = prepare(s, &statement, err, sql, types, ap);
	va_end(ap);
	while (r == 0 && (r = sql_step(s, statement, err)) > 0)
		r = 0;
	return r < 0 ? r : sqlite3_changes(s->db);
}

char *sql_text(sqlite3_stmt *statement, int column)
{
	return xstrdup((const char *)sqlite3_column_text(statement, column));
}

/* ---- transactions ---- */

int transaction_begin(struct store *s, struct transaction *t, struct error *err)
{
	int rc = execute(s, "BEGIN IMMEDIATE");
	if (rc != SQLITE_OK)
		return sql_failed(s, rc, err);
	t->store = s;
	return 0;
}

int transaction_commit(struct transaction *t, struct error *err)
{
	int rc = execute(t->store, "COMMIT");
	if (rc != SQLITE_OK)
		return sql_failed(t->store, rc, err);
	t->store = NULL;
	return 0;
}

void transaction_release(struct transaction *t)
{
	/* a failure as grave as a full disk has rolled back by itself */
	if (t->store && !sqlite3_get_autocommit(t->store->db))
		sqlite3_exec(t->store->db, "ROLLBACK", NULL, NULL, NULL);
	t->store = NULL;
}

/* ---- opening ---- */

/* WAL keeps its index in shared memory, which the machines of a network file system do not share
 * (https://www.sqlite.org/wal.html). FUSE is taken for one: sshfs is as likely as anything. */
static bool is_network_file_system(const char *directory)
{
	static const unsigned long networks[] = {
	    NFS_SUPER_MAGIC,       SMB_SUPER_MAGIC, 0xff534d42 /* cifs */, 0xfe534d42 /* smb2 */, V9FS_MAGIC,
	    0x00c36400 /* ceph */, AFS_SUPER_MAGIC, CODA_SUPER_MAGIC,      FUSE_SUPER_MAGIC,
	};
	struct statfs fs;
	if (statfs(directory, &fs))
		return false;
	for (size_t i = 0; i < sizeof networks / sizeof networks[0]; i++)
		if (((unsigned long)fs.f_type & 0xffffffffUL) == networks[i])
			return true;
	return false;
}

/* The empty file, so that it is private whatever the umask. Never opened when it is there: closing a descriptor would
 * drop the locks that another handle of this process has on it (fcntl(2),
 * https://www.sqlite.org/howtocorrupt.html 2.2). */
static void create_private(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd >= 0)
		close(fd);
}

static int set_journal(struct store *s, struct error *err)
{
	bool network = is_network_file_system(s->directory);
	cleanup_statement sqlite3_stmt *statement = NULL;
	int r = sql_prepare(s, &statement, err, "PRAGMA journal_mode", "");
	if (r == 0)
		r = sql_step(s, statement, err);
	if (r < 0)
		return r;
	const char *mode = network ? "delete" : "wal";
	bool right = r == 1 && !strcmp((const char *)sqlite3_column_text(statement, 0), mode);
	sqlite3_reset(statement);
	int rc = right ? SQLITE_OK : execute(s, network ? "PRAGMA journal_mode=DELETE" : "PRAGMA journal_mode=WAL");
	if (rc == SQLITE_OK) /* in WAL mode NORMAL loses at most the last commits to a power cut, never the file */
		rc = execute(s, network ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL");
	return rc == SQLITE_OK ? 0 : sql_failed(s, rc, err);
}

static int schema_version(struct store *s, struct error *err)
{
	cleanup_statement sqlite3_stmt *statement = NULL;
	int r = sql_prepare(s, &statement, err, "PRAGMA user_version", "");
	if (r == 0)
		r = sql_step(s, statement, err);
	return r < 0 ? r : sqlite3_column_int(statement, 0);
}

static int apply_migrations(struct store *s, struct error *err)
{
	cleanup_transaction struct transaction t = TRANSACTION_INIT;
	int r = transaction_begin(s, &t, err);
	int version = r ? r : schema_version(s, err); /* again: another process may have been faster */
	if (version < 0)
		return version;
	for (; version < MIGRATION_COUNT; version++) {
		cleanup_free char *count = xasprintf("PRAGMA user_version=%d", version + 1);
		int rc = execute(s, migrations[version]);
		if (rc == SQLITE_OK)
			rc = execute(s, count);
		if (rc != SQLITE_OK)
			return sql_failed(s, rc, err);
	}
	return transaction_commit(&t, err);
}

static int prepare_database(struct store *s, struct error *err)
{
	sqlite3_extended_result_codes(s->db, 1);
	/* else the last one to leave copies the log into the file and syncs both: most of what a short command spends here
	 */
	sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	sqlite3_busy_handler(s->db, wait_a_turn, s);
	int r = set_journal(s, err);
	if (r)
		return r;
	/* the server keeps a handle open for days: 256 KiB of pages are plenty */
	int rc = execute(s, "PRAGMA cache_size=-256; PRAGMA temp_store=MEMORY; PRAGMA secure_delete=ON");
	if (rc != SQLITE_OK)
		return sql_failed(s, rc, err);
	int version = schema_version(s, err);
	if (version < 0 || version == MIGRATION_COUNT)
		return version < 0 ? version : 0;
	if (version > MIGRATION_COUNT)
		return refuse(s, EIO, "the database was written by a newer version of this program", err);
	return apply_migrations(s, err);
}

int store_open(const char *shared_dir, struct store **ret, struct error *err)
{
	int r = dir_make(AT_FDCWD, shared_dir, geteuid() == 0 ? 0711 : 0700);
	if (r)
		return error_set_errno(err, r == -ENOSPC ? ERROR_NO_SPACE : ERROR_STORE_FAILED, -r, "mkdir %s", shared_dir);
	struct store *s = xcalloc(1, sizeof *s);
	s->directory = xstrdup(shared_dir);
	s->path = xasprintf("%s/aether.db", shared_dir);
	create_private(s->path);
	int rc = sqlite3_open_v2(s->path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX, NULL);
	r = rc == SQLITE_OK ? prepare_database(s, err) : sql_failed(s, rc, err);
	if (r) {
		store_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

const char *store_directory(const struct store *s)
{
	return s->directory;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	sqlite3_close(s->db);
	free(s->directory);
	free(s->path);
	free(s);
}
