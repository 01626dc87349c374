/* What `ajj workspace list` shows, whosever workspaces they are. */
#ifndef CLI_WORKSPACE_TABLE_H
#define CLI_WORKSPACE_TABLE_H

#include <jansson.h>
#include <stddef.h>

struct workspace_row {
	const char *name; /* borrowed */
	const char *root; /* borrowed; NULL: nobody knows where it is */
	const char *note; /* in words, behind the rest; borrowed, NULL: none */
	json_t *more;     /* members for its JSON object; borrowed, NULL: none */
};

void workspace_table_print(const struct workspace_row *rows, size_t count);

#endif
