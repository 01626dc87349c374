/* Images that are pulled, as people are shown them: on a terminal the layers of each, where they stand; else a line on stderr as each begins and
 * as it is there. What a pull looks like is backend_progress (backends/backend.h), or status.json, which has the same. */
#ifndef CLI_PULLS_H
#define CLI_PULLS_H

#include <jansson.h>
#include <stdbool.h>

/* Appends at most `rows` lines on the pulls, an array, to `lines`. An image that several services have is one. Where there are more layers than lines,
 * those that come nearest to being worked on are shown; its first line counts all. Pure. */
void pulls_lines(const json_t *pulls, unsigned rows, char ***lines);

/* What was said of each image, for whoever has no terminal. */
struct pulls_said {
	char **begun, **pulled;
};

/* Each image once, however often it is told. */
void pulls_say(struct pulls_said *s, const char *image, bool pulled);
void pulls_said_release(struct pulls_said *s);

#endif
