/* Allocation that aborts when memory is exhausted: for small, bounded objects. new: the caller frees with free(). */
#ifndef BASE_ALLOC_H
#define BASE_ALLOC_H

#include <stddef.h>

void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t size);
char *xstrdup(const char *s);              /* NULL gives NULL */
char *xstrndup(const char *s, size_t n);
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Makes room for one more element in a (pointer, count) array that grows by doubling at powers of two. */
#define array_grow(array, count)                                                       \
	do {                                                                               \
		if (((count) & ((count)-1)) == 0)                                              \
			(array) = xrealloc((array), ((count) ? (count)*2 : 1) * sizeof *(array));  \
	} while (0)

#endif
