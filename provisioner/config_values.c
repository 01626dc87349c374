/* The values of config_reader.h. */
#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "provisioner/config_reader.h"

#define LIST_MAX 10000
#define UNSET_MAX 200 /* names that are warned of */

bool field_is_null(const struct field *f)
{
	return f->node->type == YAML_NULL;
}

bool is_variable_name(const char *s)
{
	if (!isalpha((unsigned char)*s) && *s != '_')
		return false;
	while (isalnum((unsigned char)*s) || *s == '_')
		s++;
	return !*s;
}

/* ---- text ---- */

static const char *variable(void *arg, const char *name)
{
	const struct field *f = arg;
	return f->reader->lookup(f->reader->lookup_arg, name);
}

static void hear_unset(void *arg, const char *name)
{
	const struct field *f = arg;
	if (strv_contains(f->reader->unset, name) || strv_len(f->reader->unset) == UNSET_MAX)
		return;
	strv_push(&f->reader->unset, xstrdup(name));
	field_warn(f, "the variable %s is not set, the empty string takes its place", name);
}

static char *undouble_dollars(const char *text)
{
	struct buffer out = BUFFER_INIT;
	for (; *text; text++) {
		buffer_addc(&out, *text);
		text += text[0] == '$' && text[1] == '$';
	}
	return buffer_detach(&out);
}

static int count_bytes(const struct field *f, const char *text)
{
	f->reader->bytes += strlen(text);
	if (f->reader->bytes > READER_BYTES_MAX)
		return field_error(f, "the texts of this file come to more than %u MiB", READER_BYTES_MAX >> 20);
	return 0;
}

int field_text(const struct field *f, char **ret)
{
	const struct yaml *node = f->node;
	cleanup_free char *text = NULL;
	int r = 0;
	f->reader->file = node->file;
	if (node->type == YAML_MAP || node->type == YAML_LIST)
		return field_expected(f, "a text");
	if (strlen(node->text) != node->len)
		return field_error(f, "the text holds a NUL character");
	if (f->verbatim)
		text = undouble_dollars(node->text);
	else if (!f->reader->lookup || node->type == YAML_NULL)
		text = xstrdup(node->type == YAML_NULL ? "" : node->text);
	else if (yaml_kind(node) != YAML_IS_TEXT)
		text = yaml_canonical(node);
	else
		r = config_interpolate(node->text, variable, (void *)(uintptr_t)f, hear_unset, &text, f->reader->err);
	if (r < 0)
		return field_located(f);
	r = count_bytes(f, text);
	if (r == 0)
		*ret = move_ptr(text);
	return r;
}

int field_string(const struct field *f, char **ret)
{
	if (f->node->type != YAML_SCALAR || yaml_kind(f->node) != YAML_IS_TEXT)
		return field_expected(f, "a text");
	return field_text(f, ret);
}

/* After interpolation the text may be anything, so it is shown as it came out. */
static int unexpected(const struct field *f, const char *what, const char *text)
{
	if (f->node->type == YAML_SCALAR && strcmp(text, f->node->text))
		return field_error(f, "expected %s, got '%.60s', which is '%.60s' here", what, f->node->text, text);
	return field_expected(f, what);
}

static int scalar(const struct field *f, const char *what, char **ret)
{
	return f->node->type == YAML_SCALAR ? field_text(f, ret) : field_expected(f, what);
}

int field_choice(const struct field *f, const char *const *words, size_t *ret)
{
	cleanup_buffer struct buffer what = BUFFER_INIT;
	for (size_t i = 0; words[i]; i++)
		buffer_printf(&what, "%s%s", i == 0 ? "" : words[i + 1] ? ", " : " or ", words[i]);
	cleanup_free char *text = NULL;
	int r = scalar(f, buffer_str(&what), &text);
	if (r < 0)
		return r;
	for (size_t i = 0; words[i]; i++)
		if (!strcmp(words[i], text)) {
			*ret = i;
			return 0;
		}
	return unexpected(f, buffer_str(&what), text);
}

/* Also what YAML 1.1 called so: docker compose takes it, and says what it thinks of it. */
int field_bool(const struct field *f, bool *ret)
{
	static const char *const words[] = {"true", "false", "yes", "no", "on", "off", "y", "n"};
	cleanup_free char *text = NULL;
	int r = scalar(f, "true or false", &text);
	if (r < 0)
		return r;
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (!strcasecmp(words[i], text)) {
			*ret = i % 2 == 0;
			return 0;
		}
	return unexpected(f, "true or false", text);
}

int field_switch(const struct field *f, bool *ret)
{
	static const char *const words[] = {"on", "off", "true", "false", "yes", "no", NULL};
	size_t i;
	int r = field_choice(f, words, &i);
	if (r == 0)
		*ret = i % 2 == 0;
	return r;
}

/* ---- numbers ---- */

int field_int(const struct field *f, int64_t min, int64_t max, int64_t *ret)
{
	cleanup_free char *what = max == INT64_MAX
	                              ? xasprintf("a whole number of at least %lld", (long long)min)
	                              : xasprintf("a whole number from %lld to %lld", (long long)min, (long long)max);
	cleanup_free char *text = NULL;
	int r = scalar(f, what, &text);
	if (r < 0)
		return r;
	char *end;
	errno = 0;
	long long value = strtoll(text, &end, 10);
	if (end == text || *end || errno || isspace((unsigned char)*text) || value < min || value > max)
		return unexpected(f, what, text);
	*ret = value;
	return 0;
}

int field_mode(const struct field *f, unsigned *ret)
{
	static const char what[] = "a file mode like 0440";
	cleanup_free char *text = NULL;
	char *end;
	int r = scalar(f, what, &text);
	if (r < 0)
		return r;
	unsigned long mode = strtoul(text, &end, yaml_kind(f->node) == YAML_IS_TEXT ? 8 : 10);
	if (!*text || *end || !isdigit((unsigned char)*text) || mode > 07777)
		return unexpected(f, what, text);
	*ret = (unsigned)mode;
	return 0;
}

int field_double(const struct field *f, double *ret)
{
	cleanup_free char *text = NULL;
	int r = scalar(f, "a number", &text);
	if (r < 0)
		return r;
	char *end;
	double value = strtod(text, &end);
	if (end == text || *end || strspn(text, "0123456789.") != strlen(text))
		return unexpected(f, "a number", text);
	*ret = value;
	return 0;
}

/* "1.5gb": the number and what follows it. -EINVAL: no number. */
static int split_number(const char *text, double *ret, const char **ret_rest)
{
	size_t digits = strspn(text, "0123456789.");
	char number[64];
	char *end;
	if (!digits || digits >= sizeof number)
		return -EINVAL;
	memcpy(number, text, digits);
	number[digits] = '\0';
	*ret = strtod(number, &end);
	*ret_rest = text + digits;
	return *end || end == number ? -EINVAL : 0;
}

int parse_bytes(const char *text, uint64_t *ret)
{
	static const struct {
		const char *unit;
		unsigned shift;
	} units[] = {{"", 0},     {"b", 0},  {"k", 10},  {"kb", 10},  {"kib", 10}, {"m", 20},  {"mb", 20},
	             {"mib", 20}, {"g", 30}, {"gb", 30}, {"gib", 30}, {"t", 40},   {"tb", 40}, {"tib", 40}};
	double number;
	const char *unit;
	if (split_number(text, &number, &unit) < 0)
		return -EINVAL;
	while (*unit == ' ')
		unit++;
	for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
		if (strcasecmp(units[i].unit, unit))
			continue;
		double bytes = number * (double)(UINT64_C(1) << units[i].shift);
		if (bytes > 9e18)
			return -EINVAL;
		*ret = (uint64_t)bytes;
		return 0;
	}
	return -EINVAL;
}

int field_bytes(const struct field *f, uint64_t *ret)
{
	static const char what[] = "a size like 512m or 1gb";
	cleanup_free char *text = NULL;
	int r = scalar(f, what, &text);
	if (r < 0)
		return r;
	return parse_bytes(text, ret) < 0 ? unexpected(f, what, text) : 0;
}

static double unit_ms(const char *at, size_t len)
{
	static const struct {
		const char *unit;
		double ms;
	} units[] = {{"ns", 1e-6}, {"us", 1e-3}, {"\xc2\xb5s", 1e-3}, {"ms", 1}, {"s", 1e3}, {"m", 60e3}, {"h", 3600e3}};
	for (size_t i = 0; i < sizeof units / sizeof *units; i++)
		if (strlen(units[i].unit) == len && !strncmp(units[i].unit, at, len))
			return units[i].ms;
	return -1;
}

int parse_duration(const char *text, int64_t *ret_ms)
{
	double total = 0;
	if (!strcmp(text, "0")) {
		*ret_ms = 0;
		return 0;
	}
	if (!*text)
		return -EINVAL;
	while (*text) {
		double number;
		const char *unit;
		if (split_number(text, &number, &unit) < 0)
			return -EINVAL;
		size_t len = strcspn(unit, "0123456789.");
		double ms = unit_ms(unit, len);
		if (ms < 0)
			return -EINVAL;
		total += number * ms;
		text = unit + len;
	}
	if (total > 1e13) /* three hundred years */
		return -EINVAL;
	*ret_ms = (int64_t)total;
	*ret_ms += (double)*ret_ms < total; /* a nanosecond is not nothing */
	return 0;
}

int field_duration(const struct field *f, int64_t *ret_ms)
{
	static const char what[] = "a duration like 30s or 1m30s";
	cleanup_free char *text = NULL;
	int r = scalar(f, what, &text);
	if (r < 0)
		return r;
	return parse_duration(text, ret_ms) < 0 ? unexpected(f, what, text) : 0;
}

int parse_port(const char *text, size_t len, uint16_t *ret)
{
	unsigned port = 0;
	for (size_t i = 0; i < len; i++) {
		if (!isdigit((unsigned char)text[i]) || port > 65535)
			return -EINVAL;
		port = 10 * port + (unsigned)(text[i] - '0');
	}
	if (!port || port > 65535)
		return -EINVAL;
	*ret = (uint16_t)port;
	return 0;
}

/* ---- lists ---- */

int field_strings(const struct field *f, char ***ret)
{
	if (f->node->type != YAML_LIST)
		return field_expected(f, "a list of texts");
	if (f->node->count > LIST_MAX)
		return field_error(f, "more than %d items", LIST_MAX);
	cleanup_strv char **list = xcalloc(f->node->count + 1, sizeof *list);
	for (size_t i = 0; i < f->node->count; i++) {
		struct field item = field_child(f, i);
		if (item.node->type == YAML_NULL)
			return field_expected(&item, "a text");
		int r = field_text(&item, &list[i]);
		if (r < 0)
			return r;
	}
	*ret = move_ptr(list);
	return 0;
}

int field_strings_or_one(const struct field *f, char ***ret)
{
	if (f->node->type == YAML_LIST)
		return field_strings(f, ret);
	if (f->node->type != YAML_SCALAR)
		return field_expected(f, "a text or a list of texts");
	char *text = NULL;
	int r = field_text(f, &text);
	if (r < 0)
		return r;
	*ret = NULL;
	strv_push(ret, text);
	return 0;
}

int field_argv(const struct field *f, char ***ret)
{
	if (f->node->type == YAML_LIST)
		return field_strings(f, ret);
	if (f->node->type != YAML_SCALAR || (f->node->plain && yaml_kind(f->node) == YAML_IS_BOOL))
		return field_expected(f, "a command: a text or a list of texts");
	cleanup_free char *text = NULL;
	int r = field_text(f, &text);
	if (r < 0)
		return r;
	return config_split_words(text, ret, f->reader->err) < 0 ? field_located(f) : 0;
}
