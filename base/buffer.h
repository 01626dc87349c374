/* A growable byte string, always NUL-terminated after the first append. Allocation failure aborts the process:
 * the bytes kept here are small and bounded by their callers (see BUFFER_MAX), and a half-built reply helps nobody. */
#ifndef BASE_BUFFER_H
#define BASE_BUFFER_H

#include <stdarg.h>
#include <stddef.h>

#define BUFFER_MAX (64u << 20) /* bytes; an append beyond this aborts: a bound nobody may reach */

struct buffer {
	char *data; /* NULL until the first append */
	size_t len; /* without the NUL */
	size_t cap;
};

#define BUFFER_INIT {NULL, 0, 0}

void buffer_add(struct buffer *b, const void *data, size_t len);
void buffer_adds(struct buffer *b, const char *s);
void buffer_addc(struct buffer *b, char c);
void buffer_printf(struct buffer *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buffer_vprintf(struct buffer *b, const char *fmt, va_list ap);
void buffer_clear(struct buffer *b);   /* length 0, keeps the memory */
char *buffer_detach(struct buffer *b); /* new: the string ("" when empty); the buffer is empty afterwards */
const char *buffer_str(const struct buffer *b); /* borrowed; "" when empty */
void buffer_release(struct buffer *b);

#define cleanup_buffer __attribute__((cleanup(buffer_release)))

#endif
