/* What processes use, from /proc alone (proc(5)): of a service all that descends from the process that status.json names, a container's too,
 * where its engine is on this machine. */
#ifndef CLI_USAGE_H
#define CLI_USAGE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct usage {
	uint64_t memory_bytes; /* resident: what several of them share counts for each */
	uint64_t cpu_ticks;    /* user and system, sysconf(_SC_CLK_TCK) a second, since they began */
	unsigned processes;    /* 0: it is not to be seen from here */
};

/* One look for all: `ret` is parallel to `roots`; a root that is 0 has none. */
void usage_look(const pid_t *roots, size_t count, struct usage *ret);

#endif
