/* Paths by their words alone: no file system is asked. Absolute, without `.` and `..`, where two are compared. */
#ifndef BASE_PATH_H
#define BASE_PATH_H

#include <stdbool.h>

bool path_is_within(const char *path, const char *directory); /* the directory itself, or below it */
bool name_ends_in(const char *name, const char *suffix);      /* and does not consist of it */
char *path_flat(const char *path);                            /* new: "/var/lib/x" as a name: "var-lib-x" */

#endif
