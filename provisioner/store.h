/* What workspaces share: one SQLite database (STATE/aether.db, WAL; https://www.sqlite.org/wal.html), safe with 100
 * processes on it. Migrations are one append-only array in store.c.
 *
 * Thread: a handle belongs to one thread. Calls may wait up to STORE_BUSY_MS for another writer, then fail with
 * STORE_FAILED. Every multi-row change is one transaction: a crash leaves before or after. */
#ifndef PROVISIONER_STORE_H
#define PROVISIONER_STORE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/strv.h"

#define STORE_BUSY_MS 10000

struct store;

int store_open(const char *shared_dir, struct store **ret, struct error *err);
void store_close(struct store *s); /* NULL is allowed */
const char *store_directory(const struct store *s); /* borrowed: `shared_dir` as given */

/* ---- environments ---- */

/* Under root the services of each environment run as a user of their own from this range, left out where /etc/passwd or
 * /etc/subuid gives the number to somebody (and from 60600-61099 in a user namespace that has 65536 users only). */
#define UID_RANGE_FIRST 800000
#define UID_RANGE_COUNT 10000

struct store_environment {
	char *namespace_;
	char *root;
	char *repository;
	char *workspace;
	char *control_dir;
	char *state_dir;
	char *backend;       /* decided; NULL: not yet */
	char *backend_reason;
	char *backend_target; /* where it is, for those that can be in several places; NULL: none */
	uint32_t generation; /* of the data; from 1 */
	char *desired;       /* "absent", "up", "stopped" */
	int64_t created_ms;  /* wall clock */
	uid_t uid;           /* leased under root; (uid_t)-1: none */
	char *root_id;       /* of the directory, wherever it is moved (identity.h); NULL: none */
};

/* Registers (or refreshes paths of) an environment; under root leases a uid when `want_uid`. */
int store_environment_put(struct store *s, const struct store_environment *e, bool want_uid, struct error *err);
/* 1 found, 0 not. Fills `ret`. */
int store_environment_get(struct store *s, const char *namespace_, struct store_environment *ret, struct error *err);
int store_environment_list(struct store *s, struct store_environment **ret, size_t *ret_count, struct error *err);
/* Its directory is elsewhere now. What was approved for the old repository, when that was the directory itself, stays approved. */
int store_environment_move(struct store *s, const struct store_environment *from, const char *root, const char *repository,
                           const char *workspace, struct error *err);
int store_environment_set_backend(struct store *s, const char *namespace_, const char *backend, const char *target, const char *reason,
                                  struct error *err);
int store_environment_set_desired(struct store *s, const char *namespace_, const char *desired, struct error *err);
int store_environment_next_generation(struct store *s, const char *namespace_, uint32_t *ret, struct error *err);
/* Forgets it with its ports, secrets and uid. */
int store_environment_delete(struct store *s, const char *namespace_, struct error *err);
void store_environment_release(struct store_environment *e);

/* ---- port leases ---- */

#define PORT_RANGE_FIRST 20000
#define PORT_RANGE_COUNT 10000

/* What becomes of a number that is held already where the preferred one is free. */
enum lease_move {
	LEASE_STAYS,
	LEASE_MAY_MOVE, /* it is told, and nothing is given up */
	LEASE_MOVES
};

struct port_lease {
	const char *service; /* "" for x-aether.ports of the application */
	const char *key;     /* "5432/tcp", or the variable's name */
	uint16_t preferred;  /* tried first when not 0 */
	uint16_t port;       /* result */
	enum lease_move move;
	bool moves;          /* result: `port` is what LEASE_MAY_MOVE has found free, and is not held yet */
	bool strict;         /* `preferred` or nothing: then `port` is 0, what is held already stays, and nothing fails */
};

/* The range moves or shrinks where the kernel takes its ephemeral ports from it (net.ipv4.ip_local_port_range [low, high]):
 * what is leased then. */
void port_range_outside(uint32_t low, uint32_t high, uint32_t *ret_first, uint32_t *ret_count);

/* Leases all or none, in one transaction; stable: what this namespace already holds is returned as it is. Each new
 * number is checked by bind on 127.0.0.1. PORT_ALLOCATION_FAILED when the range is exhausted. */
int store_ports_lease(struct store *s, const char *namespace_, struct port_lease *leases, size_t count, struct error *err);
/* Why this namespace does not have that number: who leased it, or what uses it; new. NULL: it is free. */
int store_port_holder(struct store *s, uint16_t port, char **ret, struct error *err);
/* A number that turned out to be taken by a foreigner: it is marked for a while and the next one leased. */
int store_port_replace(struct store *s, const char *namespace_, const char *service, const char *key, uint16_t *ret, struct error *err);
bool store_port_is_free(uint16_t port); /* as far as this process can tell */
int store_ports_release(struct store *s, const char *namespace_, struct error *err);

/* ---- generated secrets: stable per environment until teardown ---- */
/* new: [A-Za-z0-9_-], 24 characters. */
int store_secret(struct store *s, const char *namespace_, const char *key, char **ret, struct error *err);
/* Adds all of them to `out`; and sets one, whatever it was: they go into the trash and come back with the data they open. */
int store_secrets_list(struct store *s, const char *namespace_, struct keyvals *out, struct error *err);
int store_secret_set(struct store *s, const char *namespace_, const char *key, const char *value, struct error *err);
int store_secrets_release(struct store *s, const char *namespace_, struct error *err);

/* ---- approvals of configuration that runs code ---- */
/* `fields` describes it for people, without what is secret (provisioner/trust.h); the newest is what `ajj trust --show` compares with. */
int store_approve(struct store *s, const char *repository, const char *hash, const char *fields, struct error *err);
/* 1 approved, 0 not */
int store_is_approved(struct store *s, const char *repository, const char *hash, struct error *err);
/* The newest: 1 and new, 0: there is none. */
int store_approved(struct store *s, const char *repository, char **ret_fields, int64_t *ret_at_ms, struct error *err);
/* All of them. How many there were. */
int store_revoke(struct store *s, const char *repository, struct error *err);

/* ---- trash ---- */

struct trash_entry {
	int64_t id;
	char *namespace_;
	char *root;
	char *workspace;
	uint32_t generation;
	int64_t at_ms;     /* wall clock */
	uint64_t bytes;
	char *path;        /* STATE/trash/ID, absolute */
	bool has_env;      /* path/env holds the user's own lines */
	char **services;   /* whose data it holds */
};

/* Reserves an id (the entry's own when it is not 0) and its path; the caller fills the directory by rename, then commits. An uncommitted entry is
 * finished or dropped by trash_expire. */
int store_trash_begin(struct store *s, const struct trash_entry *e, int64_t *ret_id, char **ret_path, struct error *err);
int store_trash_commit(struct store *s, int64_t id, uint64_t bytes, struct error *err);
int store_trash_uncommit(struct store *s, int64_t id, struct error *err); /* its directory is about to be changed */
int store_trash_describe(struct store *s, int64_t id, bool has_env, char *const *services, struct error *err);
int store_trash_delete(struct store *s, int64_t id, struct error *err);
int store_trash_has(struct store *s, int64_t id, struct error *err); /* 1: committed or not */
/* Newest first; `namespace_` NULL: all. Committed ones; then those that are not. */
int store_trash_list(struct store *s, const char *namespace_, struct trash_entry **ret, size_t *ret_count, struct error *err);
int store_trash_unfinished(struct store *s, struct trash_entry **ret, size_t *ret_count, struct error *err);
void trash_entries_free(struct trash_entry *e, size_t count);
void trash_entry_release(struct trash_entry *e);

#endif
