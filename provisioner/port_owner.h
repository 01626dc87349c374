/* Who listens on a TCP port of this machine. Reads all of /proc: for messages. Any thread. */
#ifndef PROVISIONER_PORT_OWNER_H
#define PROVISIONER_PORT_OWNER_H

#include <stdint.h>

/* new: "redis-server (pid 42)"; NULL: nobody, or another user's program */
char *port_owner(uint16_t port);

#endif
