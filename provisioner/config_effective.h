/* What config_load_shape gives, as it runs in one environment: its names, its leased ports on 127.0.0.1, its labels, one network.
 * Pure. */
#ifndef PROVISIONER_CONFIG_EFFECTIVE_H
#define PROVISIONER_CONFIG_EFFECTIVE_H

#include <jansson.h>

/* Changes `shape`. `services` is that of status.json (borrowed; NULL: none): {"db": {"ports": [{"internal","external","protocol"}]}}; a
 * service that is not there publishes nothing. */
void config_effective(json_t *shape, const char *namespace_, const char *workspace, const json_t *services);

#endif
