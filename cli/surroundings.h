/* The variables of whoever types: what interpolation sees of them is decided when a workspace is mounted, for a read of `.env` has none of its own. */
#ifndef CLI_SURROUNDINGS_H
#define CLI_SURROUNDINGS_H

#include "cli/client.h"

/* Names on stderr those that the configuration asks for and that are other ones here. What the shell has from `.env` itself does not count.
 * status: as report_status() has it. */
void surroundings_note(const struct client *c, const json_t *status);

#endif
