/* stdout answers, stderr talks. With --json stdout carries exactly one JSON document, also on failure; people get
 * `Error:` and `Hint:` on stderr. One program, one output: this is its only global state. Main thread. */
#ifndef CLI_OUTPUT_H
#define CLI_OUTPUT_H

#include <stdbool.h>

#include "base/error.h"

void output_set_json(bool json);
bool output_is_json(void);

/* With --json: the answer. steals. A second call in one run is a mistake and aborts. Without: released, nothing printed. */
void output_document(json_t *document);

/* A line for people, on stdout; nothing with --json. */
void output_line(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* A line for people, on stderr, in both modes. */
void output_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Error: and Hint: on stderr, or {"error": {...}} on stdout. */
void output_error(const struct error *err);

/* Columns of text as wide as their widest cell, on a terminal cut so that a row is a line of it; control characters are shown as '?', so that
 * a row is always one line. The last column is not padded. `cells` holds rows of `columns` strings. */
void output_table(const char *const *cells, unsigned columns, unsigned rows);

/* new: the text on one line, control characters as '?', cut to so many columns (at least 1), the last of them an ellipsis; -1: as long as it is. */
char *output_cell(const char *text, int columns);

/* Everything to the kernel. 0, or a negative errno when stdout did not take it (a full disk). */
int output_flush(void);

/* What `ajj` exits with for an error (its codes are in `ajj --help`). */
int output_exit_code(const struct error *err);

#endif
