/* value  := alternative ("??" alternative)* ("|" filter)*
 * alternative := name | '"' text '"'
 * Scanned in place; a value is copied out before the next look-up, which may free what the last one returned. */
#include "provisioner/template.h"

#include <ctype.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/strv.h"
#include "provisioner/config.h"

#define NAME_MAX_ 300

struct scan {
	const char *text; /* the whole, for messages */
	const char *at;
	template_lookup *lookup;
	void (*each)(void *arg, const char *name); /* instead of lookup: names only */
	void *arg;
	struct error *err;
};

char *url_encode(const char *s)
{
	struct buffer out = BUFFER_INIT;
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;
		if (c < 0x80 && (isalnum(c) || strchr("-._~", c)))
			buffer_addc(&out, *s);
		else
			buffer_printf(&out, "%%%02X", c);
	}
	return buffer_detach(&out);
}

static bool is_name(char c)
{
	return isalnum((unsigned char)c) || c == '_' || c == '.' || c == '-';
}

static void skip_space(struct scan *s)
{
	while (*s->at == ' ' || *s->at == '\t')
		s->at++;
}

static int bad(struct scan *s, const char *what)
{
	return error_set(s->err, ERROR_CONFIG_INVALID, "%s in the template '%.200s'", what, s->text);
}

static int scan_name(struct scan *s, char name[NAME_MAX_])
{
	size_t n = 0;
	for (; is_name(*s->at); s->at++) {
		if (n == NAME_MAX_ - 1)
			return bad(s, "a name is too long");
		name[n++] = *s->at;
	}
	name[n] = '\0';
	return n ? 0 : bad(s, "a name or a text in double quotes is missing");
}

static int scan_text(struct scan *s, struct buffer *out)
{
	for (s->at++; *s->at != '"'; s->at++) {
		if (*s->at == '\\' && s->at[1])
			s->at++;
		if (!*s->at)
			return bad(s, "the closing quote is missing");
		buffer_addc(out, *s->at);
	}
	s->at++;
	return 0;
}

/* Leaves `out` alone when it is filled already: only the first alternative that holds something counts. */
static int scan_alternative(struct scan *s, struct buffer *out)
{
	char name[NAME_MAX_];
	skip_space(s);
	if (*s->at == '"') {
		cleanup_buffer struct buffer text = BUFFER_INIT;
		int r = scan_text(s, &text);
		if (r == 0 && !out->len)
			buffer_adds(out, buffer_str(&text));
		return r;
	}
	int r = scan_name(s, name);
	if (r < 0)
		return r;
	if (s->each) {
		s->each(s->arg, name);
		return 0;
	}
	if (out->len)
		return 0;
	const char *value = s->lookup(s->arg, name);
	if (!value)
		return error_set(s->err, ERROR_CONFIG_INVALID, "unknown name '%s' in the template '%.200s'", name, s->text);
	buffer_adds(out, value);
	return 0;
}

/* ---- filters ---- */

static void filter_urlencode(struct buffer *value, const char *argument)
{
	cleanup_free char *encoded = url_encode(buffer_str(value));
	buffer_clear(value);
	buffer_adds(value, encoded);
}

static bool is_control(char c)
{
	return (unsigned char)c < ' ' || c == 0x7f;
}

static bool has_control(const char *text)
{
	for (; *text; text++)
		if (is_control(*text))
			return true;
	return false;
}

enum escapes { AS_IT_IS, AS_UNICODE, AS_HEX };

/* How control characters are written: a newline would end the statement where lines are statements (Postgres's
 * single-user mode), and make another one of what follows. */
static void add_quoted(struct buffer *out, const char *text, char quote, enum escapes escapes)
{
	buffer_addc(out, quote);
	for (const char *c = text; *c; c++) {
		if (escapes != AS_IT_IS && is_control(*c)) {
			buffer_printf(out, escapes == AS_UNICODE ? "\\%04x" : "\\x%02x", (unsigned)*c);
			continue;
		}
		if (*c == quote || (escapes != AS_IT_IS && *c == '\\'))
			buffer_addc(out, *c);
		buffer_addc(out, *c);
	}
	buffer_addc(out, quote);
}

static void filter_sql_identifier(struct buffer *value, const char *argument)
{
	cleanup_free char *name = buffer_detach(value);
	bool control = has_control(name);
	buffer_adds(value, control ? "U&" : "");
	add_quoted(value, name, '"', control ? AS_UNICODE : AS_IT_IS);
}

/* Of Postgres: E'' means the same whatever standard_conforming_strings says. */
static void filter_sql_literal(struct buffer *value, const char *argument)
{
	cleanup_free char *text = buffer_detach(value);
	buffer_addc(value, 'E');
	add_quoted(value, text, '\'', AS_HEX);
}

static void filter_unless(struct buffer *value, const char *argument)
{
	if (!strcmp(buffer_str(value), argument))
		buffer_clear(value);
}

static void filter_prefix(struct buffer *value, const char *argument)
{
	if (!value->len)
		return;
	cleanup_free char *text = buffer_detach(value);
	buffer_printf(value, "%s%s", argument, text);
}

static void filter_suffix(struct buffer *value, const char *argument)
{
	if (value->len)
		buffer_adds(value, argument);
}

static const struct {
	const char *name;
	bool takes_argument;
	void (*apply)(struct buffer *value, const char *argument);
} filters[] = {
    {"urlencode", false, filter_urlencode}, {"sql_identifier", false, filter_sql_identifier},
    {"sql_literal", false, filter_sql_literal},
    {"unless", true, filter_unless},        {"prefix", true, filter_prefix},
    {"suffix", true, filter_suffix},
};

static int scan_filter(struct scan *s, struct buffer *value)
{
	char name[NAME_MAX_];
	skip_space(s);
	int r = scan_name(s, name);
	if (r < 0)
		return r;
	for (size_t i = 0; i < sizeof filters / sizeof *filters; i++) {
		if (strcmp(filters[i].name, name))
			continue;
		cleanup_buffer struct buffer argument = BUFFER_INIT;
		skip_space(s);
		if (filters[i].takes_argument && *s->at != '"')
			return bad(s, "a filter lacks its text in double quotes");
		if (filters[i].takes_argument && (r = scan_text(s, &argument)) < 0)
			return r;
		filters[i].apply(value, buffer_str(&argument));
		return 0;
	}
	return error_set(s->err, ERROR_CONFIG_INVALID, "unknown filter '%s' in the template '%.200s'", name, s->text);
}

/* ---- the whole ---- */

static int scan_value(struct scan *s, struct buffer *out)
{
	cleanup_buffer struct buffer value = BUFFER_INIT;
	int r = scan_alternative(s, &value);
	for (skip_space(s); r == 0 && s->at[0] == '?' && s->at[1] == '?'; skip_space(s)) {
		s->at += 2;
		r = scan_alternative(s, &value);
	}
	for (; r == 0 && *s->at == '|'; skip_space(s)) {
		s->at++;
		r = scan_filter(s, &value);
	}
	if (r < 0)
		return r;
	if (s->at[0] != '}' || s->at[1] != '}')
		return bad(s,
		           *s->at ? "something other than '}}', a double question mark or '|'" : "the closing '}}' is missing");
	s->at += 2;
	if (out->len + value.len > TEMPLATE_RESULT_MAX)
		return bad(s, "more than 1 MiB comes");
	buffer_adds(out, buffer_str(&value));
	return 0;
}

static int scan_all(struct scan *s, struct buffer *out)
{
	while (*s->at) {
		if (s->at[0] == '{' && s->at[1] == '{') {
			s->at += 2;
			int r = scan_value(s, out);
			if (r < 0)
				return r;
			continue;
		}
		size_t plain = strcspn(s->at, "{");
		plain += plain == 0;
		if (out->len + plain > TEMPLATE_RESULT_MAX)
			return bad(s, "more than 1 MiB comes");
		buffer_add(out, s->at, plain);
		s->at += plain;
	}
	return 0;
}

int template_expand(const char *text, template_lookup *lookup, void *arg, char **ret, struct error *err)
{
	cleanup_buffer struct buffer out = BUFFER_INIT;
	struct scan s = {.text = text, .at = text, .lookup = lookup, .arg = arg, .err = err};
	int r = scan_all(&s, &out);
	if (r == 0)
		*ret = buffer_detach(&out);
	return r;
}

int template_names(const char *text, void (*each)(void *arg, const char *name), void *arg, struct error *err)
{
	cleanup_buffer struct buffer out = BUFFER_INIT;
	struct scan s = {.text = text, .at = text, .each = each, .arg = arg, .err = err};
	return scan_all(&s, &out);
}

/* "{{name...}}" -> name; NULL: an ordinary word. new */
static char *splice_name(const char *word)
{
	size_t len = strlen(word);
	if (len <= 7 || strncmp(word, "{{", 2) || strcmp(word + len - 5, "...}}"))
		return NULL;
	char *name = xstrndup(word + 2, len - 7);
	for (const char *c = name; *c; c++)
		if (!is_name(*c)) {
			free(name);
			return NULL;
		}
	return name;
}

static int splice(const char *word, const char *name, template_lookup *lookup, void *arg, char ***out,
                  struct error *err)
{
	cleanup_strv char **words = NULL;
	const char *value = lookup(arg, name);
	if (!value)
		return error_set(err, ERROR_CONFIG_INVALID, "unknown name '%s' in the template '%.200s'", name, word);
	int r = config_split_words(value, &words, err);
	for (char **w = words; r == 0 && w && *w; w++)
		strv_push(out, xstrdup(*w));
	return r;
}

int template_expand_argv(char *const *argv, template_lookup *lookup, void *arg, char ***ret, struct error *err)
{
	cleanup_strv char **out = xcalloc(1, sizeof *out);
	for (; argv && *argv; argv++) {
		cleanup_free char *name = splice_name(*argv);
		char *word = NULL;
		int r = name ? splice(*argv, name, lookup, arg, &out, err) : template_expand(*argv, lookup, arg, &word, err);
		if (r < 0)
			return r;
		if (word)
			strv_push(&out, word);
	}
	*ret = move_ptr(out);
	return 0;
}
