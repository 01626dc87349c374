/* How status.json is shown to people, and completed for a workspace that is not mounted. */
#ifndef CLI_REPORTS_H
#define CLI_REPORTS_H

#include "cli/client.h"

/* new: status.json when mounted; else the same core from what the registry knows, its state `stopped` or `absent`. `mounted` is added. */
json_t *report_status(const struct client *c);
/* `resources` as "db 127.0.0.1:20001, cache 127.0.0.1:20002". new; "" when there are none */
char *report_resources(const json_t *status);
/* Several lines on stdout: root, state, services, warnings, last errors. */
void report_print(const json_t *status);
/* What a command that changed the environment ends with: status.json for people, or as the document.
 * Takes status over. */
void report_tell(json_t *status);
/* On stderr: services that could run here, were it not for a permission, and what mends it. */
void report_warn_of_permissions(const json_t *status);
/* borrowed; "" when missing */
const char *report_string(const json_t *object, const char *key);
/* Do its services run? */
bool report_is_up(const json_t *status);

#endif
