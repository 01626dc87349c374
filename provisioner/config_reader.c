#include "provisioner/config_reader.h"

#include <stdarg.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"

struct unused_key {
	const char *key;       /* borrowed of a table */
	const char *file;
	unsigned line, column; /* the first */
	char **places;         /* "services.db" */
};

/* ---- places ---- */

struct field field_root(struct reader *r, const struct yaml *node)
{
	return (struct field){.reader = r, .node = node, .file = node->file, .line = node->line, .column = node->column};
}

struct field field_child(const struct field *f, size_t i)
{
	struct field child = {.reader = f->reader, .up = f, .index = i, .verbatim = f->verbatim};
	if (f->node->type == YAML_MAP) {
		const struct yaml_pair *pair = &f->node->pairs[i];
		child.key = pair->key;
		child.key_file = pair->file;
		child.key_line = pair->line;
		child.key_column = pair->column;
		child.node = pair->value;
	} else {
		child.node = f->node->items[i];
	}
	child.file = child.node->file;
	child.line = child.node->line;
	child.column = child.node->column;
	return child;
}

bool field_find(const struct field *f, const char *key, struct field *ret)
{
	for (size_t i = 0; f->node->type == YAML_MAP && i < f->node->count; i++)
		if (!strcmp(f->node->pairs[i].key, key)) {
			*ret = field_child(f, i);
			return true;
		}
	return false;
}

static void add_path(const struct field *f, struct buffer *out)
{
	if (!f->up)
		return;
	add_path(f->up, out);
	if (f->key)
		buffer_printf(out, "%s%s", out->len ? "." : "", f->key);
	else
		buffer_printf(out, "[%zu]", f->index);
}

char *field_path(const struct field *f)
{
	struct buffer out = BUFFER_INIT;
	add_path(f, &out);
	return buffer_detach(&out);
}

static const char *path_of(const struct reader *r, const char *file)
{
	for (size_t i = 0; i < r->n_files; i++)
		if (!strcmp(r->files[i].shown, file))
			return r->files[i].path;
	return NULL;
}

static int fail_at(const struct field *f, const char *file, unsigned line, unsigned column, const char *text)
{
	struct error *err = f->reader->err;
	cleanup_free char *path = field_path(f);
	int r = error_set(err, ERROR_CONFIG_INVALID, "%s:%u:%u: %s%s%s", file, line, column, path,
	                  *path ? ": " : "", text);
	const char *absolute = path_of(f->reader, file);
	if (absolute)
		error_detail(err, "file", json_string(absolute));
	error_detail(err, "line", json_integer(line));
	error_detail(err, "column", json_integer(column));
	error_detail(err, "path", json_string(path));
	return r;
}

#define FORMAT(fmt, text)                                                                                              \
	char *text = NULL;                                                                                                 \
	va_list ap;                                                                                                        \
	va_start(ap, fmt);                                                                                                 \
	if (vasprintf(&text, fmt, ap) < 0)                                                                                 \
		abort();                                                                                                       \
	va_end(ap)

int field_error(const struct field *f, const char *fmt, ...)
{
	FORMAT(fmt, text);
	int r = fail_at(f, f->file, f->line, f->column, text);
	free(text);
	return r;
}

int field_key_error(const struct field *f, const char *fmt, ...)
{
	FORMAT(fmt, text);
	int r = f->key_line ? fail_at(f, f->key_file, f->key_line, f->key_column, text)
	                    : fail_at(f, f->file, f->line, f->column, text);
	free(text);
	return r;
}

static const char *what_it_is(const struct yaml *node)
{
	static const char *const kinds[] = {[YAML_IS_TEXT] = "the text ",
	                                    [YAML_IS_NULL] = "nothing",
	                                    [YAML_IS_BOOL] = "the boolean ",
	                                    [YAML_IS_INT] = "the number ",
	                                    [YAML_IS_FLOAT] = "the number "};
	if (node->type == YAML_MAP)
		return node->count ? "a mapping" : "an empty mapping";
	if (node->type == YAML_LIST)
		return node->count ? "a list" : "an empty list";
	return kinds[yaml_kind(node)];
}

int field_expected(const struct field *f, const char *what)
{
	const struct yaml *node = f->node;
	if (node->type != YAML_SCALAR)
		return field_error(f, "expected %s, got %s", what, what_it_is(node));
	const char *quote = node->plain && yaml_kind(node) != YAML_IS_TEXT ? "" : "'";
	return field_error(f, "expected %s, got %s%s%.60s%s%s", what, what_it_is(node), quote, node->text,
	                   node->len > 60 ? "..." : "", quote);
}

int field_located(const struct field *f)
{
	struct error *err = f->reader->err;
	cleanup_error struct error why = ERROR_INIT;
	if (!err)
		return -EINVAL;
	error_move(&why, err);
	int r = fail_at(f, f->file, f->line, f->column, why.message);
	if (why.hint)
		error_hint(err, "%s", why.hint);
	return r;
}

static void warn_at(const struct reader *r, const char *file, unsigned line, unsigned column, const char *text)
{
	if (!r->warn)
		return;
	cleanup_free char *whole = xasprintf("%s:%u:%u: %s", file, line, column, text);
	r->warn(r->warn_arg, whole);
}

void field_warn(const struct field *f, const char *fmt, ...)
{
	FORMAT(fmt, text);
	cleanup_free char *path = field_path(f);
	cleanup_free char *whole = xasprintf("%s%s%s", path, *path ? ": " : "", text);
	free(text);
	warn_at(f->reader, f->key_line ? f->key_file : f->file, f->key_line ? f->key_line : f->line,
	        f->key_line ? f->key_column : f->column, whole);
}

/* ---- nearest names ---- */

#define NAME_LEN_MAX 40

/* Edits to make `b` of `a`: Levenshtein's distance, a swap of neighbours counts once. Both at most NAME_LEN_MAX long.
 */
static size_t distance(const char *a, const char *b)
{
	size_t rows[3][NAME_LEN_MAX + 1], n = strlen(b);
	size_t *before = rows[0], *last = rows[1], *row = rows[2];
	for (size_t j = 0; j <= n; j++)
		last[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		row[0] = i;
		for (size_t j = 1; j <= n; j++) {
			size_t best = last[j - 1] + (a[i - 1] != b[j - 1]);
			best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
			best = last[j] + 1 < best ? last[j] + 1 : best;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best)
				best = before[j - 2] + 1;
			row[j] = best;
		}
		size_t *spare = before;
		before = last;
		last = row;
		row = spare;
	}
	return last[n];
}

const char *nearest_name(const char *wrong, const char *const *names)
{
	const char *best = NULL;
	size_t len = strlen(wrong), best_distance = len < 5 ? 2 : 3; /* one edit of a short name, two of a long one */
	for (; len <= NAME_LEN_MAX && names && *names; names++) {
		if (strlen(*names) > NAME_LEN_MAX)
			continue;
		size_t d = distance(wrong, *names);
		if (d < best_distance && d < len) {
			best = *names;
			best_distance = d;
		}
	}
	return best;
}

/* ---- mappings ---- */

int field_ignore(const struct field *f, void *out)
{
	return 0;
}

static void note_unused(const struct field *f, const char *key)
{
	struct reader *r = f->reader;
	size_t i = 0;
	while (i < r->n_unused && strcmp(r->unused[i].key, key))
		i++;
	if (i == r->n_unused) {
		array_grow(r->unused, r->n_unused);
		r->unused[r->n_unused++] = (struct unused_key){key, f->key_file, f->key_line, f->key_column, NULL};
	}
	struct unused_key *u = &r->unused[i];
	char *place = f->up ? field_path(f->up) : xstrdup("");
	if (strv_contains(u->places, place))
		free(place);
	else
		strv_push(&u->places, place);
}

static void tell_unused(const struct reader *r, const struct unused_key *u)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	for (char **place = u->places; *place; place++)
		if (**place)
			buffer_printf(&text, "%s%s", text.len ? ", " : " of ", *place);
	cleanup_free char *whole = xasprintf("%s%s is not used yet", u->key, buffer_str(&text));
	warn_at(r, u->file, u->line, u->column, whole);
}

void reader_tell_unused(struct reader *r)
{
	for (size_t i = 0; i < r->n_unused; i++) {
		tell_unused(r, &r->unused[i]);
		strv_free(r->unused[i].places);
	}
	free(r->unused);
	r->unused = NULL;
	r->n_unused = 0;
}

void reader_finish(struct reader *r)
{
	reader_tell_unused(r);
	strv_free(r->unset);
	r->unset = NULL;
}

static const struct field_reader *next_reader(const struct field_reader *entry)
{
	return !entry->key && entry->more ? entry->more : entry;
}

static int unknown_key(const struct field *f, const struct field_reader *table, enum field_unknown unknown)
{
	const char *names[160];
	size_t n = 0;
	for (; table->key && n < sizeof names / sizeof *names - 1; table = next_reader(table + 1))
		names[n++] = table->key;
	names[n] = NULL;
	const char *near = nearest_name(f->key, names);
	if (unknown == UNKNOWN_WARNS) {
		if (strncmp(f->key, "x-", 2))
			field_warn(f, near ? "unknown key, ignored; did you mean %s?" : "unknown key, ignored", near);
		return 0;
	}
	cleanup_buffer struct buffer all = BUFFER_INIT;
	for (size_t i = 0; i < n; i++)
		buffer_printf(&all, "%s%s", i ? ", " : "", names[i]);
	int r = field_key_error(f, "unknown key");
	if (near)
		error_hint(f->reader->err, "did you mean %s?", near);
	else
		error_hint(f->reader->err, "known here: %s", buffer_str(&all));
	return r;
}

int field_read_map(const struct field *f, const struct field_reader *table, enum field_unknown unknown,
                   const char *what, void *out)
{
	if (f->node->type != YAML_MAP)
		return field_expected(f, what);
	int r = 0;
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field child = field_child(f, i);
		const struct field_reader *entry = table;
		while (entry->key && strcmp(entry->key, child.key))
			entry = next_reader(entry + 1);
		if (!entry->key)
			r = unknown_key(&child, table, unknown);
		else if (!entry->read)
			note_unused(&child, entry->key);
		else if (!field_is_null(&child))
			r = entry->read(&child, out);
	}
	return r;
}
