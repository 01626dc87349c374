/* `{{name}}` templates: `{{services.db.ports.5432}}`, `{{port}}`, `{{user|urlencode}}`, `{{env.POSTGRES_USER}}`,
 * `{{a ?? b}}` and `{{a ?? "text"}}` (the first that is set and not empty). No nesting, no code. Pure; any thread. */
#ifndef PROVISIONER_TEMPLATE_H
#define PROVISIONER_TEMPLATE_H

#include "base/error.h"

/* borrowed or NULL when the name is not known (an error) ; "" when known and empty. */
typedef const char *template_lookup(void *arg, const char *name);

/* new. CONFIG_INVALID naming the unknown name. */
int template_expand(const char *text, template_lookup *lookup, void *arg, char **ret, struct error *err);
/* Calls `each` with every name used; checks the syntax. */
int template_names(const char *text, void (*each)(void *arg, const char *name), void *arg, struct error *err);

char *url_encode(const char *s); /* new; everything outside RFC 3986 unreserved is percent-encoded */

#endif
