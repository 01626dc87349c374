/* The number of a trash entry on a command line. */
#ifndef CLI_TRASH_ID_H
#define CLI_TRASH_ID_H

#include <stdint.h>
#include <stdlib.h>

#include "base/error.h"

static inline int trash_id_parse(const char *word, int64_t *ret, struct error *err)
{
	char *end;
	errno = 0;
	long long id = strtoll(word, &end, 10);
	if (*end || end == word || errno || id <= 0) {
		error_set(err, ERROR_USAGE, "%s is no id of an entry in the trash", word);
		return error_hint(err, "ajj trash list");
	}
	*ret = id;
	return 0;
}

#endif
