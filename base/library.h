/* A shared library that is loaded by who first needs it: linked, it and what it wants in turn would cost every process that never does a part of its start. */
#ifndef BASE_LIBRARY_H
#define BASE_LIBRARY_H

#include "base/error.h"

struct library {
	const char *soname;
	const char *package; /* of Debian */
	void *handle;
	struct error failed; /* of the first that failed */
};

/* From one thread, once (pthread_once); failures are kept for library_check. */
void library_open(struct library *l);
void *library_find(struct library *l, const char *symbol); /* NULL: failed */

/* ERROR_INTERNAL, with the package as the hint. Any thread, after the others. */
int library_check(const struct library *l, struct error *err);

#endif
