/* Is a process still there, from /proc alone: what will be said of its end is on its way yet. A microsecond's look; any thread. */
#ifndef BACKENDS_ALIVE_H
#define BACKENDS_ALIVE_H

#include <stdbool.h>
#include <sys/types.h>

bool alive(pid_t pid);

#endif
