/* Where the variables of an environment come from, for `ajj env --explain`. Values of secrets are masked. */
#ifndef CLI_EXPLAIN_H
#define CLI_EXPLAIN_H

#include <jansson.h>

/* Prints a row for each of `env` (env.json), by what `status` (status.json) says of its layer; with --json
 * {"variables": [{"key", "layer", "value", "before"?, "service"?}]}. Borrowed. */
void explain_variables(const json_t *env, const json_t *status);

#endif
