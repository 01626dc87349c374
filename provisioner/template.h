/* `{{name}}` templates: `{{services.db.ports.5432}}`, `{{port}}`, `{{user|urlencode}}`, `{{env.POSTGRES_USER}}`,
 * `{{a ?? b}}` and `{{a ?? "text"}}` (the first that is set and not empty). No nesting, no code. Pure; any thread.
 *
 * Names are [A-Za-z0-9_.-]+. Filters stand after the value, applied from left to right:
 *   |urlencode        percent-encodes (url_encode)
 *   |sql_identifier   in double quotes, as SQL quotes a name
 *   |unless "text"    empty when the value is exactly text
 *   |prefix "text"    text before the value, unless that is empty
 *   |suffix "text"    text behind the value, unless that is empty
 */
#ifndef PROVISIONER_TEMPLATE_H
#define PROVISIONER_TEMPLATE_H

#include "base/error.h"

#define TEMPLATE_RESULT_MAX (1u << 20) /* bytes */

/* borrowed (until the next call) or NULL when the name is not known (an error) ; "" when known and empty. */
typedef const char *template_lookup(void *arg, const char *name);

/* new. CONFIG_INVALID naming the unknown name. */
int template_expand(const char *text, template_lookup *lookup, void *arg, char **ret, struct error *err);
/* Calls `each` with every name used; checks the syntax. */
int template_names(const char *text, void (*each)(void *arg, const char *name), void *arg, struct error *err);

/* A command: like template_expand for each word; a word that is exactly `{{name...}}` stands for all the words of the
 * value, split as a shell splits them (none when it is empty). new: strv_free. */
int template_expand_argv(char *const *argv, template_lookup *lookup, void *arg, char ***ret, struct error *err);

char *url_encode(const char *s); /* new; everything outside RFC 3986 unreserved is percent-encoded */

#endif
