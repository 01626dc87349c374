/* A user's values that name a service of the configuration, turned to where this workspace has it (DESIGN section 8).
 * Pure functions of text; any thread.
 *
 * What is rewritten, and nothing else:
 *   URLs         [jdbc:]scheme[+driver]://[user[:password]@]host[:port][,host[:port]...][/path][?query]; without a port the
 *                scheme's own (RFC 3986 section 3.2.3). Go's user:password@tcp(host:port)/name too.
 *   pairs        host=... port=... between blanks (libpq, section 34.1.1.1) or semicolons (ADO.NET, PDO), also server=host,port; the port of PDO's driver or of a
 *                libpq string with dbname where none is said. One host and one port alone
 *   host:port    as the whole value, or a list of them between commas
 *   a number     of a key that ends in PORT, where one service only has that port and the key's HOST is not elsewhere
 *   a name       of a key that ends in HOST, where it is a service's
 * A host is a service's by its name, or as localhost, 127.0.0.1 or ::1; its port is the published or the container's.
 * Everything around host and port stays as it is written, ${VAR} too.
 */
#ifndef PROVISIONER_REWRITE_H
#define PROVISIONER_REWRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

struct rewrite_port {
	uint16_t published; /* 0: none asked for */
	uint16_t internal;  /* 0: of an application outside every container */
	uint16_t leased;    /* 0: not leased, so nothing is rewritten to it */
};

struct rewrite_target {
	const char *service;  /* for reports; the variable of a port of x-aether.ports */
	const char *names[2]; /* hosts that it has among its peers; NULL: none */
	bool own_program;     /* mostly run by the user, who may bind ::1: "localhost" stays */
	const struct rewrite_port *ports;
	size_t n_ports;
	char *const *aliases; /* more names; NULL: none */
	const char *host;     /* where it is; NULL: where the map says */
};

struct rewrite_map {
	const struct rewrite_target *targets; /* of equal ports the first own_program goes first */
	size_t n_targets;
	const char *host; /* where leased ports are bound, but for a target's own */
};

/* A variable as the user has it, expanded; borrowed, NULL: not set. */
typedef const char *rewrite_lookup(void *arg, const char *name);

/* Appends the value, rewritten, to `out`: the text between the quotes of a `.env` line. `literal`: no ${VAR} in it (single
 * quotes). Returns the first service that it names (borrowed of the map); NULL: nothing of it is one's, and `out` is as it was. */
const char *rewrite_value(const struct rewrite_map *map, const char *key, const char *value, size_t len, bool literal,
                          rewrite_lookup *lookup, void *arg, struct buffer *out);

/* What goes with a HOST that was rewritten, and is not set: new key (X_PORT of X_HOST), and its number; NULL: nothing. */
char *rewrite_missing_port(const struct rewrite_map *map, const char *key, const char *value, rewrite_lookup *lookup,
                           void *arg, uint16_t *ret_port);

#endif
