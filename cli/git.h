/* git's linked worktrees. What there is, is read from `.git/worktrees` as gitrepository-layout(5) describes it: no process, so
 * that it can be asked at every command; what changes something is done by git itself, but for what git has no command for. */
#ifndef CLI_GIT_H
#define CLI_GIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"
#include "provisioner/identity.h"

struct git_worktree {
	char *id;     /* its directory in .git/worktrees; NULL: the main checkout */
	char *path;   /* absolute, canonical where it is there; it may be gone */
	char *branch; /* NULL: HEAD is detached, or not in a file (reftable) */
	char *commit; /* HEAD when it is detached */
	bool locked;  /* `git worktree lock` */
};

struct git_worktrees {
	struct git_worktree *items; /* the main checkout first, where there is one */
	size_t count;
};

#define GIT_WORKTREES_INIT {NULL, 0}

/* `common` is the repository's directory (identity.repository), `main_root` may be NULL. A negative errno when it cannot be looked
 * into: then a worktree that is not in `ret` may be there all the same. */
int git_worktrees_read(const char *common, const char *main_root, struct git_worktrees *ret);
/* borrowed, by path (canonical); NULL */
const struct git_worktree *git_worktrees_at(const struct git_worktrees *list, const char *path);
void git_worktrees_release(struct git_worktrees *list);
#define cleanup_git_worktrees __attribute__((cleanup(git_worktrees_release)))

/* A fingerprint of where all branches stand and what each worktree has checked out: while it is the same, so is every commit that somebody may switch
 * to. false: that is not known, or there are too many to look at at every command. */
bool git_refs_fingerprint(const char *common, const struct git_worktrees *list, uint64_t *ret);

/* What git's entry says that a directory's `.git` leads to. */
enum git_claim {
	GIT_CLAIM_UNKNOWN, /* it cannot be looked at */
	GIT_CLAIM_NONE,   /* there is none: git has forgotten it */
	GIT_CLAIM_OWN,    /* it is this directory's; a main checkout's always is */
	GIT_CLAIM_MOVED,  /* it names a place where the worktree is not any more: moved by others than git, which `git worktree repair` mends */
	GIT_CLAIM_OTHERS, /* it is that of another directory, which is there: this one is a copy, or the entry's name was given again */
};
/* `*ret_path` (may be NULL): new, the place that the entry names; of MOVED and OTHERS alone. */
enum git_claim git_worktree_claim(const char *common, const char *root, char **ret_path);

/* Is this a repository of git's alone, that jj would not know what to do in? Then `ret` is who the checkout is, which the
 * caller releases. `directory` NULL: where we are. */
bool git_alone(const char *directory, struct identity *ret);

/* `git argv...` (without "git" itself), its stdout on stderr. GIT_FAILED, PROGRAM_NOT_FOUND. */
int git_run(char *const *argv, struct error *err);
/* The same with stdout and stdin as they are wanted; NULL: inherited, nothing. Returns the exit code, or a negative errno. */
int git_filter(char *const *argv, const struct buffer *in, struct buffer *out, struct buffer *said, struct error *err);

/* Forgets a linked worktree and leaves its directory, which git has no command for: its entry in .git/worktrees goes, and with it
 * the directory's `.git` file. That one would come to mean another worktree as soon as git gives the same name again. */
int git_worktree_forget(const char *common, const struct git_worktree *w, struct error *err);

#endif
