/* Lines at the end of the terminal that stderr is, drawn over again and again. One thread at a time. */
#ifndef CLI_SCREEN_H
#define CLI_SCREEN_H

#include <stdbool.h>

struct screen {
	unsigned drawn; /* lines */
};

/* What it holds of lines that are drawn: one less than there are, and one column, so that nothing scrolls. */
void screen_size(unsigned *rows, unsigned *columns);
/* In place of those before. Lines that are too long are cut, those that are too many are not shown. */
void screen_draw(struct screen *s, char *const *lines);
/* Takes them away. */
void screen_clear(struct screen *s);

#endif
