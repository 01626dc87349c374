/* Trust: a read must not run a stranger's code. The fields that can (config->approvals) are hashed together, and the user approves that hash
 * for the repository, and so for all of its workspaces. Kept are the hash and, for `ajj trust --show`, each field's text without
 * what is secret beside a fingerprint of the whole, by which a change of the secret alone is seen.
 *
 * Blocking (SQLite): a worker thread, or ajj's own. */
#ifndef PROVISIONER_TRUST_H
#define PROVISIONER_TRUST_H

#include <jansson.h>

#include "provisioner/config.h"
#include "provisioner/store.h"

struct trust {
	char *repository;
	char *hash;     /* config->approval_hash; "": nothing needs approval. NULL: no configuration has been looked at */
	bool approved;
	json_t *fields; /* [{"field","value","print"}] as they are now; value: without what is secret */
	json_t *before; /* those that were approved last; NULL: none ever was */
	int64_t before_ms;
};

#define TRUST_INIT {.approved = false}

/* Approves the hash first when `approve` is it, or is "" (whatever stands there). NULL: no. */
int trust_look(struct store *store, const char *repository, const struct config *config, const char *approve, struct trust *ret,
               struct error *err);
void trust_copy(struct trust *to, const struct trust *from); /* `to` is released first */
void trust_release(struct trust *t);
#define cleanup_trust __attribute__((cleanup(trust_release)))

/* Is there nothing that keeps services from being started? */
bool trust_is_given(const struct trust *t);
/* CONFIG_UNTRUSTED */
int trust_refuse(const struct trust *t, const char *file, struct error *err);

/* new: {"repository", "approved", "hash", "approved_at", "fields": [{"field","value"}],
 * "changes": [{"field", "before", "now"}]}: what differs from what was approved last; none when it is approved. "before" is null for
 * what is new, "now" for what is gone; equal ones differ in what is secret. */
json_t *trust_json(const struct trust *t);

#endif
