/* What an environment's configuration could run, and the user's word on it. Through `trust.json` and `ctl` where it is mounted,
 * else as the server would see it when it were mounted from here. */
#ifndef CLI_TRUST_H
#define CLI_TRUST_H

#include "cli/client.h"

/* new: as trust_json says (provisioner/trust.h), of the files as they are now. */
int trust_read(const struct client *c, json_t **ret, struct error *err);

/* Approves what stands there now, and nothing that comes between its being read and this. *ret (may be NULL): new, what was new of it,
 * as trust.json's "changes". */
int trust_approve(const struct client *c, json_t **ret, struct error *err);

int trust_withdraw(const struct client *c, struct error *err);

/* One line a change: "- field: before", "+ field: now". */
void trust_print_changes(const json_t *changes, void (*line)(const char *fmt, ...), size_t max);

#endif
