/* Between what we were started with (0, 1, 2) and a program elsewhere (provisioner/attachment.h), until that has ended. Main thread. */
#ifndef CLI_RELAY_H
#define CLI_RELAY_H

#include "provisioner/attachment.h"

/* `terminal`: the program has one, and ours goes through to it, raw. Returns what to exit with: the program's exit code, 128 + the signal that ended
 * us first, or a negative errno when it is not known how it ended. */
int relay_run(struct attachment *a, bool terminal, struct error *err);

#endif
