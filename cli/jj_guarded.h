/* jj's own commands, handed on. Where the overlay is mounted it sees to it that jj finds its files (fs/overlay_jj.c); without one, a real `.env` of ours stands
 * in the way of the one that a commit tracks. */
#ifndef CLI_JJ_GUARDED_H
#define CLI_JJ_GUARDED_H

#include "base/error.h"

/* Runs `jj argv...` in the workspace that we stand in: becomes it, where there is nothing to be seen to. Else, before and after, what a commit that was
 * checked out tracks in the place of ours is put there, and ours is under another name from then on. Returns jj's exit code, or a negative errno: JJ_FAILED
 * where it was not run because it would lose that file. */
int jj_guarded(char *const *argv, struct error *err);

#endif
