/* A program of this machine as an attachment: with pipes, or a terminal of its own (pty(7)); in the namespaces, cgroups and as the user that it is told.
 * It ends with its caller, and with the PID namespace that it is in; where that is none, it and all that it has started end with `until`. */
#ifndef BACKENDS_ATTACHED_PROCESS_H
#define BACKENDS_ATTACHED_PROCESS_H

#include "backends/attachment.h"

struct attached_process {
	const char *what;     /* for messages */
	char *const *argv;    /* argv[0] is looked up in PATH of env */
	const struct keyvals *env; /* the complete environment */
	const char *directory; /* NULL: ours */
	char *const *cgroups; /* directories to join; what cannot be is left out. NULL: none */
	int user_ns, pid_ns;  /* -1: ours */
	int until;            /* pidfd of who takes it along without a PID namespace; -1: nobody */
	uid_t uid;            /* (uid_t)-1: ours; else all groups are given up */
	gid_t gid;
	bool no_new_privileges;
	bool terminal;
	unsigned rows, columns;
};

int attached_process_open(const struct attached_process *p, struct attachment **ret, struct error *err);

#endif
