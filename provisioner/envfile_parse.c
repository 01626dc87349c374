/* Reading `.env` as Compose does (https://github.com/compose-spec/compose-go, dotenv/). */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/config.h"
#include "provisioner/envfile.h"
#include "provisioner/envfile_scan.h"

#define KEYS_MAX 10000 /* in one file; keyvals are a list */
#define BOM "\xef\xbb\xbf"

/* ---- finding statements ---- */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\v' || c == '\f' || c == '\r';
}

static const char *skip_blanks(const char *p)
{
	while (is_blank(*p))
		p++;
	return p;
}

static bool is_key_start(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
}

static bool is_key_char(char c)
{
	return is_key_start(c) || (c >= '0' && c <= '9') || c == '.' || c == '-';
}

static const char *line_end(const char *p)
{
	const char *newline = strchr(p, '\n');
	return newline ? newline : p + strlen(p);
}

struct envfile_cursor envfile_scan(const char *text)
{
	return (struct envfile_cursor){text, 1};
}

/* The closing quote of the value that begins behind an opening one; a backslash keeps either kind from closing it. */
static const char *closing_quote(const char *p, char quote)
{
	for (; *p; p++) {
		if (*p == quote)
			return p;
		if (*p == '\\' && p[1])
			p++;
	}
	return NULL;
}

static void scan_unquoted(struct envfile_statement *st, const char *value, bool after_blank)
{
	const char *end = line_end(value);
	for (const char *p = value; p < end; p++)
		if (*p == '#' && (p == value ? after_blank : is_blank(p[-1])))
			end = p;
	while (end > value && is_blank(end[-1]))
		end--;
	st->value = value;
	st->value_len = (size_t)(end - value);
}

/* Returns where the statement's last line has to be looked for. */
static const char *scan_value(struct envfile_statement *st, const char *p)
{
	const char *value = skip_blanks(p);
	if (*value != '\'' && *value != '"') {
		scan_unquoted(st, value, value > p);
		return value;
	}
	const char *close = closing_quote(value + 1, *value);
	if (!close) { /* of this line alone, then: nothing below shall be lost with it */
		st->bad = true;
		return value;
	}
	st->quote = *value;
	st->value = value + 1;
	st->value_len = (size_t)(close - value - 1);
	const char *rest = skip_blanks(close + 1);
	st->bad = *rest && *rest != '\n' && *rest != '#';
	return close;
}

static const char *scan_statement(struct envfile_statement *st, const char *p)
{
	if (!strncmp(p, "export", 6) && is_blank(p[6]))
		p = skip_blanks(p + 6);
	if (!is_key_start(*p)) {
		st->bad = true;
		return p;
	}
	const char *key = p;
	while (is_key_char(*p))
		p++;
	size_t key_len = (size_t)(p - key);
	p = skip_blanks(p);
	st->assigns = *p == '=' || *p == ':';
	if (!st->assigns && *p && *p != '\n') {
		st->bad = true;
		return p;
	}
	st->key = key;
	st->key_len = key_len;
	return st->assigns ? scan_value(st, p + 1) : p;
}

bool envfile_next(struct envfile_cursor *c, struct envfile_statement *ret)
{
	if (!*c->at)
		return false;
	*ret = (struct envfile_statement){.start = c->at, .line = c->line};
	const char *p = c->at;
	if (c->line == 1 && !strncmp(p, BOM, strlen(BOM)))
		p += strlen(BOM);
	p = skip_blanks(p);
	if (*p && *p != '\n' && *p != '#')
		p = scan_statement(ret, p);
	p = line_end(p);
	ret->end = *p ? p + 1 : p;
	for (const char *q = ret->start; (q = memchr(q, '\n', (size_t)(ret->end - q))); q++)
		c->line++;
	c->at = ret->end;
	return true;
}

/* ---- values ---- */

static char simple_escape(char c)
{
	static const char from[] = "abfnrtv\"\\`", to[] = "\a\b\f\n\r\t\v\"\\`";
	const char *found = c ? strchr(from, c) : NULL;
	return found ? to[found - from] : '\0';
}

/* The escapes of a double-quoted value; "\$" becomes "$$", which the interpolation turns into "$". */
static void unescape(const char *p, size_t len, struct buffer *out)
{
	for (const char *end = p + len; p < end; p++) {
		if (*p != '\\' || p + 1 == end) {
			buffer_addc(out, *p);
			continue;
		}
		char c = *++p;
		if (c == '$') {
			buffer_adds(out, "$$");
		} else if (simple_escape(c)) {
			buffer_addc(out, simple_escape(c));
		} else if (c == '0') {
			unsigned value = 0;
			for (int n = 0; n < 3 && p + 1 < end && p[1] >= '0' && p[1] <= '7'; n++)
				value = value * 8 + (unsigned)(*++p - '0');
			if (value && value < 256) /* a NUL cannot be in an environment */
				buffer_addc(out, (char)value);
		} else {
			buffer_addc(out, '\\');
			buffer_addc(out, c);
		}
	}
}

/* Single quotes keep all as it is, but for \' (which a shell would not know). */
static void unescape_single(const char *p, size_t len, struct buffer *out)
{
	for (const char *end = p + len; p < end; p++)
		if (*p != '\\' || p + 1 == end || p[1] != '\'')
			buffer_addc(out, *p);
}

struct names {
	const struct keyvals *earlier;
	const char *(*lookup)(void *arg, const char *name);
	void *arg;
};

static const char *find_name(void *arg, const char *name)
{
	const struct names *names = arg;
	const char *value = keyvals_get(names->earlier, name);
	return value || !names->lookup ? value : names->lookup(names->arg, name);
}

/* new; NULL when it cannot be read. */
static char *value_of(const struct envfile_statement *st, struct names *names)
{
	cleanup_buffer struct buffer b = BUFFER_INIT;
	if (st->quote == '\'') {
		unescape_single(st->value, st->value_len, &b);
		return buffer_detach(&b);
	}
	if (st->quote == '"')
		unescape(st->value, st->value_len, &b);
	else
		buffer_add(&b, st->value, st->value_len);
	if (!memchr(buffer_str(&b), '$', b.len))
		return buffer_detach(&b);
	char *expanded = NULL;
	return config_interpolate(buffer_str(&b), find_name, names, NULL, &expanded, NULL) ? NULL : expanded;
}

static bool read_statement(const struct envfile_statement *st, struct names *names, struct keyvals *out)
{
	if (!st->key)
		return !st->bad;
	cleanup_free char *key = xstrndup(st->key, st->key_len);
	if (st->bad || (out->count >= KEYS_MAX && !keyvals_has(out, key)))
		return false;
	if (!st->assigns) {
		const char *inherited = names->lookup ? names->lookup(names->arg, key) : NULL;
		if (inherited)
			keyvals_set(out, key, inherited);
		return true;
	}
	cleanup_free char *value = value_of(st, names);
	if (value)
		keyvals_set(out, key, value);
	return value;
}

void envfile_parse(const char *text, const char *(*lookup)(void *arg, const char *name), void *arg,
                   void (*bad_line)(void *arg, unsigned line), struct keyvals *out)
{
	struct names names = {out, lookup, arg};
	struct envfile_cursor cursor = envfile_scan(text);
	struct envfile_statement st;
	while (envfile_next(&cursor, &st))
		if (!read_statement(&st, &names, out) && bad_line)
			bad_line(arg, st.line);
}

void envfile_parse_raw(const char *text, const char *(*lookup)(void *arg, const char *name), void *arg, struct keyvals *out)
{
	for (size_t len; *text; text += len + (text[len] == '\n')) {
		len = strcspn(text, "\n");
		size_t skip = strspn(text, " \t"), end = len && text[len - 1] == '\r' ? len - 1 : len;
		if (skip >= end || text[skip] == '#')
			continue;
		cleanup_free char *line = xstrndup(text + skip, end - skip);
		char *equals = strchr(line, '=');
		const char *value = equals ? equals + 1 : lookup ? lookup(arg, line) : NULL;
		if (equals)
			*equals = '\0';
		if (*line && value)
			keyvals_set(out, line, value);
	}
}
