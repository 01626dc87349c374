/* Running jj. Only through its stable doors: `--ignore-working-copy`, templates with json(), exit codes; what it prints
 * for people is handed on and never parsed. Works from jj 0.31 (json()) on. */
#ifndef CLI_JJ_H
#define CLI_JJ_H

#include "base/buffer.h"
#include "base/error.h"

/* new: jj in PATH that is not ajj itself under jj's name; JJ_NOT_FOUND with how to get it. */
int jj_find(char **ret, struct error *err);

/* Becomes `jj argv...` (without "jj" itself). Returns only on failure. */
int jj_exec(char *const *argv, struct error *err);

/* Runs it as it is and waits. Returns the exit code, or a negative errno. */
int jj_wait(char *const *argv, struct error *err);

/* Runs it and waits. Its messages go to the terminal, or with --json into the error: then a failure is JJ_FAILED
 * with {"exit_code","stderr"}. Returns the exit code, or a negative errno with `err` set. */
int jj_run(char *const *argv, struct error *err);

/* Runs it and keeps stdout; any failure is JJ_FAILED. */
int jj_capture(char *const *argv, struct buffer *out, struct error *err);

struct jj_workspace {
	char *name;
	char *root; /* absolute; NULL: jj does not know it (older than 0.40, or the directory is gone) */
};

/* All workspaces of the repository that the workspace at `root` belongs to. new: jj_workspaces_free. */
int jj_workspaces(const char *root, struct jj_workspace **ret, size_t *ret_count, struct error *err);
void jj_workspaces_free(struct jj_workspace *list, size_t count);

/* new: the jj repository's workspace root at or above `directory`; NOT_A_REPOSITORY. */
int jj_root(const char *directory, char **ret, struct error *err);

#endif
