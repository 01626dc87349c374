/* Where the statements of a `.env` text begin and end; for envfile*.c alone. */
#ifndef PROVISIONER_ENVFILE_SCAN_H
#define PROVISIONER_ENVFILE_SCAN_H

#include <stdbool.h>
#include <stddef.h>

struct envfile_statement {
	const char *start; /* whole lines: a quoted value may take several */
	const char *end;   /* behind the last one's newline */
	unsigned line;     /* of `start`, from 1 */
	const char *key;   /* NULL: blank, a comment, or nothing that can be read */
	size_t key_len;
	bool assigns;      /* else the key stands alone: its value is the caller's */
	const char *value; /* without its quotes */
	size_t value_len;
	char quote; /* '\'', '"', or 0 */
	bool bad;   /* Compose would not read it; `key` may be known all the same */
};

struct envfile_cursor {
	const char *at;
	unsigned line;
};

struct envfile_cursor envfile_scan(const char *text);
bool envfile_next(struct envfile_cursor *c, struct envfile_statement *ret); /* false at the end */

#endif
