/* Child processes of ajj: started by posix_spawn (no copy of the page tables), waited for, their output kept when it is
 * wanted. And the signals that ask ajj itself to end, for the commands that must tidy up first. Main thread. */
#ifndef CLI_PROCESS_H
#define CLI_PROCESS_H

#include <stdbool.h>

#include "base/buffer.h"
#include "base/error.h"

#define PROCESS_OUTPUT_MAX (16u << 20) /* bytes kept of one stream; what comes after is read and dropped */

struct process {
	const char *program;  /* path */
	char *const *argv;
	const char *directory; /* NULL: where we are */
	int in;               /* becomes stdin; 0: inherited */
	struct buffer *out;   /* stdout is kept here; NULL: inherited */
	struct buffer *err;   /* the same for stderr */
	bool out_to_err;      /* stdout goes to stderr: with --json it is ours alone */
	bool own_group;       /* Ctrl-C on the terminal does not reach it: we decide what to undo */
};

/* Runs it to its end. Returns its exit code (128 + signal when one killed it), or a negative errno when it could not be
 * started or waited for. An interruption (below) is handed on once, as it came, unless own_group. */
int process_run(const struct process *p, struct error *err);

/* From here on SIGINT, SIGTERM and SIGHUP end nothing by themselves: they are only noted. */
void interrupts_note(void);
/* Back to what they did. */
void interrupts_release(void);
/* It is being obeyed: what is started now to undo things does not get it, too. */
void interrupts_forget(void);
/* All is done, and said or about to be: the exit code shall say the same. */
void interrupts_ignore(void);
/* One of these two. */
void interrupts_end(bool done);
/* The signal that came, 0: none. */
int interrupted(void);

#endif
