/* The caller's terminal in the hands of a program elsewhere: raw while that runs, as it was before whatever happens, and the signals that come
 * meanwhile. One at a time; main thread. */
#ifndef CLI_TERMINAL_H
#define CLI_TERMINAL_H

#include <poll.h>
#include <stdbool.h>

/* stdin and stdout are one. */
bool terminal_is_there(void);
void terminal_size(unsigned *rows, unsigned *columns); /* of stdout's; 0, 0: it has none */

/* From here on signals are noted and nothing else: they are let in by terminal_poll alone. `raw`: keys go through as they are typed. May be called
 * again. */
void terminal_take(bool raw);
/* As it was before. May be called again. */
void terminal_give_back(void);

/* poll(2), which a signal interrupts also when it came a moment before. */
int terminal_poll(struct pollfd *fds, nfds_t count, int timeout_ms);
/* Has the size changed since the last call? */
bool terminal_was_resized(void);
/* The next signal that asks to end (SIGINT, SIGTERM, SIGHUP, SIGQUIT); 0: none since the last call. One that asks to stop (SIGTSTP, of another
 * process: the key goes through) is obeyed here. */
int terminal_signal(void);

#endif
