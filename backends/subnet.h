/* IPv4 subnets, and the places in them: where an address of one is in another. */
#ifndef BACKENDS_SUBNET_H
#define BACKENDS_SUBNET_H

#include <stdbool.h>

bool subnet_is(const char *text); /* "172.28.0.0/16" */
/* new: as far from the beginning of `to` as `address` is from that of `from`; NULL: it is not in `from`, or `to` has no such place. */
char *subnet_moved(const char *address, const char *from, const char *to);
/* The same of a part of `from`, "172.28.5.0/24". */
char *subnet_moved_part(const char *part, const char *from, const char *to);

#endif
