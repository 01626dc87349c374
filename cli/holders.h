/* Who keeps a mount busy: processes with a working directory, root, program or open file in it. */
#ifndef CLI_HOLDERS_H
#define CLI_HOLDERS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/buffer.h"

#define HOLDERS_MAX 256 /* looked for; more are not told apart */

enum holder_how { HOLDS_CWD = 1, HOLDS_FILE = 2 };

struct holder {
	pid_t pid;
	char command[64];
	unsigned how;  /* enum holder_how bits */
	bool ancestor; /* of this process: the shell that was asked to run us */
};

/* Processes that this user may look into and that hold something on the device (st_dev of the mount's root). Returns how
 * many of `ret` (room for HOLDERS_MAX) were filled. This process is never among them. */
size_t holders_find(dev_t device, struct holder *ret);

/* "1234 (bash, working directory), 1240 (vim)" */
void holders_describe(const struct holder *list, size_t count, struct buffer *out);

/* Is the process `from`, or started by it, directly or not? */
bool process_descends(pid_t pid, pid_t from);

/* Processes with this very file open: proof that they are ours, when it is a service's lock. */
size_t holders_of_file(dev_t device, ino_t inode, pid_t *ret, size_t max);

#endif
