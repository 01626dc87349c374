/* The text of `.env` (DESIGN section 8), as pure functions of text. Which characters every reader reads alike was measured
 * over 45 readers. Any thread.
 *
 * Layout: the workspace's own lines verbatim, one that a generated key overrides as `#~ KEY=value`; then
 *   # >>> aether (generated: edits here are not kept) >>>
 *   KEY=value ...
 *   # <<< aether <<<
 */
#ifndef PROVISIONER_ENVFILE_H
#define PROVISIONER_ENVFILE_H

#include "base/buffer.h"
#include "base/error.h"
#include "base/strv.h"
#include "provisioner/envset.h"

#define ENVFILE_BEGIN "# >>> aether (generated: edits here are not kept) >>>"
#define ENVFILE_END "# <<< aether <<<"
#define ENVFILE_OVERRIDDEN "#~ "
#define ENVFILE_MAX (1u << 20) /* bytes of a user's file */

/* Reads KEY=value lines as Compose's dotenv does: `export`, quotes, escapes, comments, ${VAR} in unquoted and
 * double-quoted values (from earlier keys, then `lookup`; NULL: none). Lines that cannot be read are skipped;
 * `bad_line` (may be NULL) hears of them. */
void envfile_parse(const char *text, const char *(*lookup)(void *arg, const char *name), void *arg,
                   void (*bad_line)(void *arg, unsigned line), struct keyvals *out);

/* The same of a file as docker's --env-file takes it: everything behind = is the value, to the end of the line. A name alone is `lookup`'s. */
void envfile_parse_raw(const char *text, const char *(*lookup)(void *arg, const char *name), void *arg, struct keyvals *out);

enum envfile_form {
	ENVFILE_PLAIN,           /* unquoted: all readers agree */
	ENVFILE_QUOTED,          /* single- or double-quoted where most agree: flagged in status.json */
	ENVFILE_ESCAPED,         /* double-quoted with backslashes: right for shells and where there is no $ or ` for most others,
	                          * wrong for node and dotenv of js; flagged as well */
	ENVFILE_UNREPRESENTABLE, /* no form */
};

#define ENVFILE_FORM_HINT "without a \\ at its end, a carriage return, or bytes that are no UTF-8 it would have one"

/* Appends the value in its best form. */
enum envfile_form envfile_quote(const char *value, struct buffer *out);

/* Renders the text. `user` is the workspace's own text ("" for none), of which `set` was made. `flagged` (may be NULL)
 * collects the keys that are QUOTED or ESCAPED; an UNREPRESENTABLE one is CONFIG_INVALID naming the key. */
int envfile_render(const char *user, const struct envset *set, struct buffer *out, char ***flagged, struct error *err);

/* The user's part of a text that was written over `.env`: what is outside the markers, `#~ ` turned back; with the
 * markers gone, lines equal to ones of `served` (the text last shown; may be NULL) inside its block are dropped.
 * `*ret_changed_inside` says that somebody edited the generated block. */
void envfile_user_part(const char *written, const char *served, struct buffer *out, bool *ret_changed_inside);

/* Does a variable's name say that its value is secret (password, secret, token, key)? */
bool env_name_is_secret(const char *name);
/* new: the URL with the password of its userinfo, or the connection string with those of its pairs, as ***. */
char *url_mask_password(const char *url);
/* Replaces a secret value in *text, which may be reallocated, by ***; a short one only where it stands alone. */
void text_mask_value(char **text, const char *value);

#endif
