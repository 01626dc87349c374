/* What goes on while a demand or a command is waited for: on a terminal a line that is drawn over again, who is starting, and for how long, with the
 * layers of images that are pulled below; else a line as each image's pull begins and ends. All on stderr. It follows .aether/events on a thread of
 * its own by poll(2), which parks nothing. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include "cli/client.h"

#define PROGRESS_QUIET_MS 300 /* what is done sooner needs no line */

struct progress;

/* `what` begins the line. May return NULL: nothing is shown. */
struct progress *progress_start(const struct client *c, const char *what);
/* Takes the lines away. NULL is allowed. */
void progress_stop(struct progress *p);
static inline void progress_stopp(struct progress **p)
{
	progress_stop(*p);
}
#define cleanup_progress __attribute__((cleanup(progress_stopp)))

#endif
