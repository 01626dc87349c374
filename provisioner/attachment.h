/* A program beside an environment's service, or in its network: whose environment it is, and where, is what this user's own store says. What
 * stands in the workspace, or in another user's runtime directory, leads nowhere. */
#ifndef PROVISIONER_ATTACHMENT_H
#define PROVISIONER_ATTACHMENT_H

#include "backends/attachment.h"
#include "provisioner/store.h"

/* Fills in the environment, `e` as the store has it (borrowed for the call), and opens it (backends/attachment.h). `planned`: the backend of one that
 * was never started, of which spec->only_check may ask; NULL: it is not known. */
int environment_attach(const struct store_environment *e, const char *planned, struct attachment_spec *spec, struct attachment **ret, struct error *err);

/* May the engine that `backend` ("docker", "podman") means here and now look into `path`? PERMISSION with what mends it; 0 where there is none. */
int attachment_is_seen(const char *backend, const char *path, struct error *err);

#endif
