/* The working directory as the shell that called us means it. */
#ifndef CLI_WHEREABOUTS_H
#define CLI_WHEREABOUTS_H

#include <stdbool.h>

/* Where the working directory is in no file system any more (a mount that went with its keeper, a directory that was removed and made again), goes to
 * what $PWD names and says so. Nothing happens where that is no directory either. */
void whereabouts_recover(void);
/* Is it still there? Asks the kernel alone, and no file system. */
bool whereabouts_known(void);

#endif
