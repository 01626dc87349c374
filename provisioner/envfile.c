/* Writing `.env`, and taking the user's part out of what somebody wrote over it.
 *
 * Rendering is reversible for every text: a line of the user's gets the prefix ENVFILE_OVERRIDDEN when a generated key
 * overrides it, and also when it could be mistaken for a line of ours; no other line begins so. Taking one prefix off
 * each such line gives the text back. */
#include "provisioner/envfile.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/envfile_scan.h"

/* Stands in the block when the user's text does not end in a newline, which the block needs before it. */
#define NO_NEWLINE "# (the last line above ends without a newline)"
#define VALUE_MAX 65000 /* bytes; docker reads lines of 64 KiB */

/* ---- values ---- */

/* Length of the UTF-8 character at p (RFC 3629), 0: none. *ret_code gets its number. */
static size_t utf8_char(const unsigned char *p, uint32_t *ret_code)
{
	static const struct {
		unsigned char mask, lead;
		uint32_t least;
	} forms[] = {{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
	for (size_t n = 0; n < 4; n++) {
		if ((p[0] & forms[n].mask) != forms[n].lead)
			continue;
		uint32_t code = p[0] & (unsigned char)~forms[n].mask;
		for (size_t i = 1; i <= n; i++) {
			if ((p[i] & 0xc0) != 0x80)
				return 0;
			code = code << 6 | (p[i] & 0x3f);
		}
		if (code < forms[n].least || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
			return 0;
		*ret_code = code;
		return n + 1;
	}
	return 0;
}

/* White space to some readers, which trim it or split lines at it. */
static bool is_unicode_space(uint32_t c)
{
	return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
	       c == 0x202f || c == 0x205f || c == 0x3000 || c == 0xfeff;
}

/* What 45 readers read alike without quotes. */
static bool is_plain(const char *value, size_t at, uint32_t c)
{
	if (c >= 0x80)
		return !is_unicode_space(c);
	if (c == '=') /* zsh expands "=word" there */
		return at > 0 && value[at - 1] != ':';
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
	       (c && strchr("_./:@%+,?^-!*[]{}", (int)c));
}

enum envfile_form envfile_quote(const char *value, struct buffer *out)
{
	size_t len = value ? strlen(value) : 0;
	bool plain = len <= VALUE_MAX;
	for (size_t i = 0, n; i < len; i += n) {
		uint32_t c;
		n = utf8_char((const unsigned char *)value + i, &c);
		if (!n || c == '\r') /* some readers refuse the whole file; half of them make a newline of it */
			return ENVFILE_UNREPRESENTABLE;
		plain = plain && is_plain(value, i, c);
	}
	if (plain) {
		buffer_add(out, value, len);
		return ENVFILE_PLAIN;
	}
	/* a backslash at the end would escape the quote for four readers of 13, and take the lines below with it */
	if (value[len - 1] == '\\')
		return ENVFILE_UNREPRESENTABLE;
	char quote = strchr(value, '\'') ? '"' : '\'';
	buffer_addc(out, quote);
	/* Who does not know an escape keeps its backslash: that value is wrong there, no other is. */
	enum envfile_form form = ENVFILE_QUOTED;
	for (size_t i = 0; i < len; i++) {
		if (quote == '"' && strchr("\"$`\\", value[i])) {
			buffer_addc(out, '\\');
			form = ENVFILE_ESCAPED;
		}
		buffer_addc(out, value[i]);
	}
	buffer_addc(out, quote);
	return form;
}

/* ---- lines ---- */

static size_t line_length(const char *p) /* with its newline */
{
	const char *newline = strchr(p, '\n');
	return newline ? (size_t)(newline - p) + 1 : strlen(p);
}

/* Without what editors change at a line's end: the kind of newline, blanks. */
static size_t trimmed(const char *line, size_t len)
{
	while (len && strchr("\r\n \t", line[len - 1]))
		len--;
	return len;
}

static bool line_is(const char *line, size_t len, const char *text)
{
	size_t n = strlen(text);
	return trimmed(line, len) == n && !memcmp(line, text, n);
}

/* How much of the line is the prefix of an overridden one; an editor may have cut its blank where nothing follows. */
static size_t prefix_length(const char *line, size_t len)
{
	size_t n = strlen(ENVFILE_OVERRIDDEN);
	if (len >= n && !memcmp(line, ENVFILE_OVERRIDDEN, n))
		return n;
	return line_is(line, len, "#~") ? n - 1 : 0;
}

static bool looks_like_ours(const char *line, size_t len)
{
	return prefix_length(line, len) || line_is(line, len, ENVFILE_BEGIN) || line_is(line, len, ENVFILE_END);
}

/* ---- rendering ---- */

static void render_user(const char *user, const struct envset *set, struct buffer *out)
{
	struct envfile_cursor cursor = envfile_scan(user);
	struct envfile_statement st;
	while (envfile_next(&cursor, &st)) {
		cleanup_free char *key = st.key && st.assigns ? xstrndup(st.key, st.key_len) : NULL;
		const struct env_entry *entry = key ? envset_find(set, key) : NULL;
		bool overridden = entry && !entry->own_line;
		for (const char *line = st.start; line < st.end;) {
			size_t len = line_length(line);
			if (overridden || looks_like_ours(line, len))
				buffer_adds(out, ENVFILE_OVERRIDDEN);
			buffer_add(out, line, len);
			line += len;
		}
	}
}

static bool is_name(const char *key)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";
	return *key && strchr(letters, *key) &&
	       !key[strspn(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789")];
}

static int render_generated(const struct env_entry *kv, struct buffer *out, char ***flagged, struct error *err)
{
	if (!is_name(kv->key))
		return error_set(err, ERROR_CONFIG_INVALID, "%s is no name for a variable: [A-Za-z_][A-Za-z0-9_]*", kv->key);
	buffer_printf(out, "%s=", kv->key);
	bool hides_the_end = strstr(kv->value, ENVFILE_END) || strstr(kv->value, ENVFILE_BEGIN);
	enum envfile_form form = hides_the_end ? ENVFILE_UNREPRESENTABLE : envfile_quote(kv->value, out);
	if (form == ENVFILE_UNREPRESENTABLE) {
		int r = error_set(err, ERROR_CONFIG_INVALID,
		                  "the value of %s has no form that the readers of a .env file agree on", kv->key);
		error_hint(err, ENVFILE_FORM_HINT);
		return r;
	}
	buffer_addc(out, '\n');
	if (form != ENVFILE_PLAIN && flagged)
		strv_push(flagged, xstrdup(kv->key));
	return 0;
}

/* A user's own statement goes as it is; one that reads as a marker would end the block early. What the user wrote is no
 * error of the configuration: where it has no form it is left out, and flagged. */
static int render_entry(const struct env_entry *e, struct buffer *out, char ***flagged, struct error *err)
{
	cleanup_error struct error no_form = ERROR_INIT;
	size_t before = out->len;
	if (e->own_line)
		return 0;
	if (e->statement && !strstr(e->statement, ENVFILE_BEGIN) && !strstr(e->statement, ENVFILE_END)) {
		buffer_adds(out, e->statement);
		return 0;
	}
	int r = render_generated(e, out, flagged, &no_form);
	if (r < 0 && (e->layer == ENV_MAIN || e->layer == ENV_OWN)) {
		out->len = before;
		out->data[before] = '\0';
		if (flagged)
			strv_push(flagged, xstrdup(e->key));
		return 0;
	}
	if (r < 0 && err)
		error_move(err, &no_form);
	return r;
}

int envfile_render(const char *user, const struct envset *set, struct buffer *out, char ***flagged, struct error *err)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	render_user(user, set, &text);
	bool open_end = text.len && text.data[text.len - 1] != '\n';
	buffer_adds(&text, open_end ? "\n" ENVFILE_BEGIN "\n" NO_NEWLINE "\n" : ENVFILE_BEGIN "\n");
	for (size_t i = 0; i < set->count; i++) {
		int r = render_entry(&set->items[i], &text, flagged, err);
		if (r)
			return r;
	}
	buffer_adds(&text, ENVFILE_END "\n");
	buffer_add(out, text.data, text.len);
	return 0;
}

/* ---- the way back ---- */

struct span {
	const char *start, *end;
};

/* The next block from `p` on: its lines in *ret_inside, and where it begins and ends with its markers. */
static bool find_block(const char *p, struct span *ret_whole, struct span *ret_inside)
{
	const char *begin = NULL;
	for (size_t len; *p; p += len) {
		len = line_length(p);
		if (!begin && line_is(p, len, ENVFILE_BEGIN)) {
			begin = p;
		} else if (begin && line_is(p, len, ENVFILE_END)) {
			*ret_whole = (struct span){begin, p + len};
			*ret_inside = (struct span){begin + line_length(begin), p};
			return true;
		}
	}
	return false;
}

/* Is there such a line in the block? */
static bool has_line(struct span inside, const char *line, size_t len)
{
	size_t n = trimmed(line, len);
	for (const char *p = inside.start; n && p < inside.end; p += line_length(p))
		if (trimmed(p, line_length(p)) == n && !memcmp(p, line, n))
			return true;
	return false;
}

static bool same_lines(struct span a, struct span b)
{
	const char *p = a.start, *q = b.start;
	while (p < a.end && q < b.end) {
		size_t pl = line_length(p), ql = line_length(q), n = trimmed(p, pl);
		if (n != trimmed(q, ql) || memcmp(p, q, n) != 0)
			return false;
		p += pl;
		q += ql;
	}
	return p >= a.end && q >= b.end;
}

/* Lines outside a block. `dropped` are those of the text served, when its markers are gone. */
static void add_users_lines(struct span lines, struct span dropped, struct buffer *out)
{
	for (const char *p = lines.start; p < lines.end;) {
		size_t len = line_length(p), prefix = prefix_length(p, len);
		if (!line_is(p, len, ENVFILE_BEGIN) && !line_is(p, len, ENVFILE_END) && !has_line(dropped, p, len))
			buffer_add(out, p + prefix, len - prefix);
		p += len;
	}
}

void envfile_user_part(const char *written, const char *served, struct buffer *out, bool *ret_changed_inside)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	struct span whole, inside, shown_whole, shown = {NULL, NULL}, nothing = {NULL, NULL};
	bool was_shown = served && find_block(served, &shown_whole, &shown), found = false, open_end = false,
	     changed = false;
	const char *p = written;
	for (; find_block(p, &whole, &inside); p = whole.end) {
		add_users_lines((struct span){p, whole.start}, nothing, &text);
		open_end =
		    line_is(inside.start, line_length(inside.start), NO_NEWLINE) && text.len && text.data[text.len - 1] == '\n';
		changed = changed || (was_shown && !same_lines(inside, shown));
		found = true;
	}
	size_t before = text.len;
	add_users_lines((struct span){p, p + strlen(p)}, found ? nothing : shown, &text);
	if (open_end && text.len == before)
		text.len--;
	buffer_add(out, buffer_str(&text), text.len);
	*ret_changed_inside = changed;
}
