/* What a sub-reaper (prctl(2)) has below it. */
#ifndef BACKENDS_CHILDREN_H
#define BACKENDS_CHILDREN_H

#define CHILDREN_SWEEP_MS 10 /* between two looks for those that are still there */

/* SIGKILL for every child of this process's first thread that /proc shows. Their children become ours, so call again until none is left. */
void children_kill(void);

#endif
