/* What config_load_shape gives, as it runs in one environment: its names, its leased ports on 127.0.0.1, its labels, one network.
 * Pure. */
#ifndef PROVISIONER_CONFIG_EFFECTIVE_H
#define PROVISIONER_CONFIG_EFFECTIVE_H

#include <jansson.h>
#include <stdbool.h>

/* Changes `shape`. `is_main`: of the main checkout, whose services have the file's names on others' networks, too; those of other workspaces have none there
 * but their containers' (join_external_networks). docker compose adds the service's own name to either. `services` is that of status.json (borrowed; NULL: none): {"db": {"ports": [{"internal","external","protocol"}]}}; a
 * service that is not there publishes nothing. */
void config_effective(json_t *shape, const char *namespace_, const char *workspace, bool is_main, const json_t *services);

#endif
