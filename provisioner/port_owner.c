/* Which program listens on a port, as far as /proc tells this user (proc_pid_net(5): tcp, tcp6; proc_pid_fd(5)). */
#include "provisioner/port_owner.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"

#define LISTENING 0x0a /* TCP_LISTEN of net/tcp_states.h */

/* 0: nobody listens. */
static unsigned long listening_inode(const char *table, uint16_t port)
{
	cleanup_fclose FILE *f = fopen(table, "re");
	char line[512];
	while (f && fgets(line, sizeof line, f)) {
		unsigned local, state;
		unsigned long inode;
		if (sscanf(line, " %*u: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*x:%*x %*x:%*x %*x %*u %*u %lu", &local, &state,
		           &inode) == 3 &&
		    local == port && state == LISTENING)
			return inode;
	}
	return 0;
}

static bool has_socket(const char *pid, const char *socket)
{
	cleanup_free char *path = xasprintf("/proc/%s/fd", pid);
	cleanup_closedir DIR *d = opendir(path);
	struct dirent *e;
	char target[64];
	while (d && (e = readdir(d))) {
		ssize_t n = readlinkat(dirfd(d), e->d_name, target, sizeof target - 1);
		if (n <= 0)
			continue;
		target[n] = '\0';
		if (!strcmp(target, socket))
			return true;
	}
	return false;
}

static char *describe(const char *pid)
{
	cleanup_free char *path = xasprintf("/proc/%s/comm", pid);
	cleanup_buffer struct buffer name = BUFFER_INIT;
	if (file_read(AT_FDCWD, path, 256, &name) < 0)
		return NULL;
	return xasprintf("%.*s (pid %s)", (int)strcspn(buffer_str(&name), "\n"), buffer_str(&name), pid);
}

char *port_owner(uint16_t port)
{
	unsigned long inode = listening_inode("/proc/self/net/tcp", port);
	if (!inode)
		inode = listening_inode("/proc/self/net/tcp6", port);
	cleanup_closedir DIR *d = inode ? opendir("/proc") : NULL;
	cleanup_free char *socket = xasprintf("socket:[%lu]", inode);
	struct dirent *e;
	while (d && (e = readdir(d)))
		if (isdigit((unsigned char)e->d_name[0]) && has_socket(e->d_name, socket))
			return describe(e->d_name);
	return NULL;
}
