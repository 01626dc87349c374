#include "provisioner/yaml_text.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/cleanup.h"

/* What some reader takes for something else than a text: https://yaml.org/type/bool.html, and what may be a number or a date. */
static bool is_word_of_yaml(const char *text)
{
	static const char *const words[] = {"true", "false", "yes", "no", "on", "off", "y", "n", "null", "~", ".inf", ".nan"};
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (!strcasecmp(text, words[i]))
			return true;
	return text[strspn(text, "0123456789+-.:_eExXabcdefABCDEFoOtTzZ ")] == '\0' && strpbrk(text, "0123456789");
}

static bool is_plain(const char *text)
{
	size_t len = strlen(text);
	if (!len || text[0] == ' ' || text[len - 1] == ' ' || text[len - 1] == ':' || strchr("-?:,[]{}#&*!|>'\"%@`=<.+", text[0]) ||
	    is_word_of_yaml(text))
		return false;
	for (const unsigned char *c = (const unsigned char *)text; *c; c++)
		if (*c < ' ' || *c == 0x7f || *c > 0x7e)
			return false;
	return !strstr(text, ": ") && !strstr(text, " #");
}

static void put_text(struct buffer *out, const char *text)
{
	if (is_plain(text)) {
		buffer_adds(out, text);
		return;
	}
	json_t *value = json_string(text);
	cleanup_free char *quoted = json_dumps(value, JSON_ENCODE_ANY); /* JSON's escapes are YAML's */
	buffer_adds(out, quoted ? quoted : "\"\"");
	json_decref(value);
}

static void put_scalar(struct buffer *out, const json_t *value)
{
	if (json_is_string(value)) {
		put_text(out, json_string_value(value));
		return;
	}
	cleanup_free char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(7));
	buffer_adds(out, text ? text : "null");
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* borrowed keys */
static const char **keys_of(const json_t *map, bool sorted)
{
	const char **keys = xcalloc(json_object_size(map) + 1, sizeof *keys), *key;
	size_t n = 0;
	json_t *value;
	json_object_foreach((json_t *)(uintptr_t)map, key, value)
		keys[n++] = key;
	if (sorted && n)
		qsort(keys, n, sizeof *keys, compare);
	return keys;
}

static void put_indent(struct buffer *out, unsigned indent)
{
	buffer_printf(out, "%*s", (int)indent, "");
}

/* `begun`: the first line's indentation stands there. */
static void put(struct buffer *out, const json_t *value, unsigned indent, bool sorted, bool begun);

/* Behind "key:" or "-". */
static void put_behind(struct buffer *out, const json_t *value, unsigned indent)
{
	if (json_array_size(value) || json_object_size(value)) {
		buffer_addc(out, '\n');
		put(out, value, indent, true, false);
		return;
	}
	buffer_addc(out, ' ');
	put_scalar(out, value);
	buffer_addc(out, '\n');
}

static void put(struct buffer *out, const json_t *value, unsigned indent, bool sorted, bool begun)
{
	size_t i;
	json_t *item;
	json_array_foreach(value, i, item) {
		put_indent(out, indent);
		if (json_object_size(item)) {
			buffer_adds(out, "- ");
			put(out, item, indent + 2, true, true);
		} else {
			buffer_addc(out, '-');
			put_behind(out, item, indent + 2);
		}
	}
	cleanup_free const char **keys = json_is_object(value) ? keys_of(value, sorted) : NULL;
	for (const char **key = keys; key && *key; key++) {
		put_indent(out, begun && key == keys ? 0 : indent);
		put_text(out, *key);
		buffer_addc(out, ':');
		put_behind(out, json_object_get(value, *key), indent + 2);
	}
}

void yaml_text(const json_t *value, struct buffer *out)
{
	if (json_array_size(value) || json_object_size(value)) {
		put(out, value, 0, false, false);
		return;
	}
	put_scalar(out, value);
	buffer_addc(out, '\n');
}
