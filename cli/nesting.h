/* A workspace inside another one that is mounted, as tools make them (`.claude/worktrees/x`). */
#ifndef CLI_NESTING_H
#define CLI_NESTING_H

/* new: the mounted workspace above `root` (canonical) that the setuid fusermount3 may not look into, so that this user
 * cannot mount anything in it; NULL where there is none. */
char *nesting_closed_by(const char *root);

#endif
