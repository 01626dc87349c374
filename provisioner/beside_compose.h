/* The file that docker compose is led to in a workspace whose services are containers (`.aether/compose.yaml`, by COMPOSE_FILE in `.env`):
 * the configuration as it runs, with the containers', the network's and the volumes' own names, so that `docker compose up` finds what is
 * there instead of starting it a second time. */
#ifndef PROVISIONER_BESIDE_COMPOSE_H
#define PROVISIONER_BESIDE_COMPOSE_H

#include "base/buffer.h"
#include "provisioner/model.h"

/* Of a planned model with a shape; otherwise nothing is added. Reads the records of the volumes: small files. */
void beside_compose_text(const struct model *m, const struct identity *id, struct buffer *out);

/* The volumes of an engine that the data of a generation is in, in the directory `data`, as far as there are any: under their own names, instead of what
 * the shape says of them. */
void beside_compose_volumes(json_t *shape, const char *data);

/* The environment's network, and what its services are on it, as far as the file says more than names; `state_dir` is the environment's. */
void beside_compose_network(json_t *shape, const struct config *config, const char *state_dir);

#endif
