/* Services that outlived a keeper. A service inherits a descriptor on a locked file in its state directory; whoever still
 * has that file open is ours, whatever it did to its name or environment, and nothing else is. */
#ifndef CLI_LEFTOVERS_H
#define CLI_LEFTOVERS_H

#include <stddef.h>
#include <sys/types.h>

#include "base/error.h"

#define LEFTOVERS_MAX 256
#define LEFTOVERS_TERM_MS 3000 /* between SIGTERM and SIGKILL */
#define LEFTOVERS_KILL_MS 2000 /* to be gone after SIGKILL */

/* Processes that hold a lock of the environment's services. */
size_t leftovers_find(const char *state_dir, pid_t *ret, size_t max);
/* Ends them. BACKEND_DEPROVISION_FAILED naming those that survive. */
int leftovers_end(const char *state_dir, struct error *err);

#endif
