#include "provisioner/config_yaml.h"

#include <libfyaml.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/hash.h"
#include "base/strv.h"
#include "provisioner/config.h"

/* ---- names: text -> pointer, open addressing; keys are borrowed ---- */

struct names {
	struct name {
		const char *key;
		void *value;
	} * slots;
	size_t size, count; /* size is a power of two or 0 */
};

static struct name *names_slot(const struct names *t, const char *key)
{
	size_t i = hash_str(HASH_INIT ^ (uintptr_t)t->slots, key) & (t->size - 1);
	while (t->slots[i].key && strcmp(t->slots[i].key, key))
		i = (i + 1) & (t->size - 1);
	return &t->slots[i];
}

static void *names_get(const struct names *t, const char *key)
{
	return t->size ? names_slot(t, key)->value : NULL;
}

static void names_put(struct names *t, const char *key, void *value)
{
	if (2 * (t->count + 1) > t->size) {
		struct names bigger = {xcalloc(t->size ? 2 * t->size : 16, sizeof *bigger.slots), t->size ? 2 * t->size : 16,
		                       t->count};
		for (size_t i = 0; i < t->size; i++)
			if (t->slots[i].key)
				*names_slot(&bigger, t->slots[i].key) = t->slots[i];
		free(t->slots);
		*t = bigger;
	}
	struct name *slot = names_slot(t, key);
	t->count += !slot->key;
	*slot = (struct name){key, value};
}

static void names_release(struct names *t)
{
	free(t->slots);
}

/* ---- the tree ---- */

struct yaml_document {
	struct yaml **nodes; /* all of them: an alias makes them shared, so the document owns them */
	size_t count;
	size_t merged;  /* pairs that merge keys have copied */
	char **anchors; /* their names, which the builder's table borrows */
	size_t n_anchors;
	const struct yaml **roots; /* at least one, once it has been parsed */
	size_t n_roots;
};

struct builder {
	struct yaml_document *doc;
	struct fy_parser *parser;
	struct fy_diag *diag;
	struct names anchors; /* name -> node; a node with `nodes` of 0 is not finished */
	const char *name;
	struct error *err;
	bool many; /* documents may follow each other */
	unsigned depth;
	unsigned line, column; /* where the last event stood, for events without a token */
};

void yaml_free(struct yaml_document *doc)
{
	if (!doc)
		return;
	for (size_t i = 0; i < doc->count; i++) {
		struct yaml *node = doc->nodes[i];
		for (size_t k = 0; node->pairs && k < node->count; k++)
			free(node->pairs[k].key);
		free(node->pairs);
		free(node->items);
		free(node->text);
		free(node);
	}
	free(doc->nodes);
	for (size_t i = 0; i < doc->n_anchors; i++)
		free(doc->anchors[i]);
	free(doc->anchors);
	free(doc->roots);
	free(doc);
}

const struct yaml *yaml_root(const struct yaml_document *doc)
{
	return doc->roots[0];
}

const struct yaml *yaml_next_root(const struct yaml_document *doc, size_t i)
{
	return i < doc->n_roots ? doc->roots[i] : NULL;
}

void yaml_set_root(struct yaml_document *doc, const struct yaml *root)
{
	doc->roots[0] = root;
	doc->n_roots = 1;
}

const struct yaml *yaml_get(const struct yaml *map, const char *key)
{
	for (size_t i = 0; map && map->type == YAML_MAP && i < map->count; i++)
		if (!strcmp(map->pairs[i].key, key))
			return map->pairs[i].value;
	return NULL;
}

/* ---- trees made of others ---- */

struct yaml *yaml_new(struct yaml_document *doc, enum yaml_type type, const struct yaml *like)
{
	struct yaml *node = xcalloc(1, sizeof *node);
	*node = (struct yaml){.type = type, .file = like->file, .line = like->line, .column = like->column, .depth = 1};
	array_grow(doc->nodes, doc->count);
	return doc->nodes[doc->count++] = node;
}

void yaml_set_text(struct yaml *scalar, const char *text)
{
	free(scalar->text);
	scalar->text = xstrdup(text);
	scalar->len = strlen(text);
}

void yaml_add_item(struct yaml *list, const struct yaml *item)
{
	array_grow(list->items, list->count);
	list->items[list->count++] = item;
}

void yaml_add_pair(struct yaml *map, const char *key, const struct yaml_pair *place, const struct yaml *value)
{
	array_grow(map->pairs, map->count);
	map->pairs[map->count++] = (struct yaml_pair){xstrdup(key), place->file, place->line, place->column, value};
}

static int fail(struct builder *b, unsigned line, unsigned column, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static int fail(struct builder *b, unsigned line, unsigned column, const char *fmt, ...)
{
	char text[400];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	int r = error_set(b->err, ERROR_CONFIG_INVALID, "%s:%u:%u: %s", b->name, line, column, text);
	error_detail(b->err, "line", json_integer(line));
	error_detail(b->err, "column", json_integer(column));
	return r;
}

static void note_position(struct builder *b, struct fy_token *token)
{
	const struct fy_mark *mark = token ? fy_token_start_mark(token) : NULL;
	if (!mark)
		return;
	b->line = (unsigned)mark->line + 1;
	enum fy_scalar_style style = fy_token_scalar_style(token);
	bool quoted = style == FYSS_SINGLE_QUOTED || style == FYSS_DOUBLE_QUOTED; /* the mark stands behind the quote */
	b->column = (unsigned)mark->column + 1 - (quoted && mark->column);
}

static int new_node(struct builder *b, enum yaml_type type, struct fy_token *token, struct yaml **ret)
{
	note_position(b, token);
	if (b->doc->count == CONFIG_EXPANDED_MAX)
		return fail(b, b->line, b->column, "more than %u values", CONFIG_EXPANDED_MAX);
	struct yaml *node = xcalloc(1, sizeof *node);
	node->type = type;
	node->file = b->name;
	node->line = b->line;
	node->column = b->column;
	array_grow(b->doc->nodes, b->doc->count);
	b->doc->nodes[b->doc->count++] = *ret = node;
	return 0;
}

static int token_text(struct builder *b, struct fy_token *token, char **ret, size_t *ret_len)
{
	size_t len = 0;
	const char *text = token ? fy_token_get_text(token, &len) : "";
	if (!text)
		return fail(b, b->line, b->column, "not a valid text");
	*ret = xcalloc(len + 1, 1); /* the text may hold NULs */
	memcpy(*ret, text, len);
	if (ret_len)
		*ret_len = len;
	return 0;
}

static int set_anchor(struct builder *b, struct fy_token *token, struct yaml *node)
{
	char *name = NULL;
	if (!token)
		return 0;
	int r = token_text(b, token, &name, NULL);
	if (r < 0)
		return r;
	names_put(&b->anchors, name, node);
	array_grow(b->doc->anchors, b->doc->n_anchors);
	b->doc->anchors[b->doc->n_anchors++] = name;
	return 0;
}

/* What the node would be if it were written out. */
static int finish(struct builder *b, struct yaml *node)
{
	node->nodes = 1;
	node->bytes = node->len;
	node->depth = 1;
	for (size_t i = 0; i < node->count; i++) {
		const struct yaml *child = node->type == YAML_MAP ? node->pairs[i].value : node->items[i];
		node->nodes += child->nodes + (node->type == YAML_MAP);
		node->bytes += child->bytes + (node->type == YAML_MAP ? strlen(node->pairs[i].key) : 0);
		if (child->depth >= node->depth)
			node->depth = child->depth + 1;
		/* every sum is bounded before the next is added, so nothing overflows */
		if (node->nodes > CONFIG_EXPANDED_MAX || node->bytes > YAML_EXPANDED_BYTES_MAX)
			return fail(b, node->line, node->column, "more than %u values or %u MiB, with aliases expanded",
			            CONFIG_EXPANDED_MAX, YAML_EXPANDED_BYTES_MAX >> 20);
		if (node->depth > YAML_DEPTH_MAX)
			return fail(b, node->line, node->column, "nested deeper than %d", YAML_DEPTH_MAX);
	}
	return 0;
}

/* ---- events ---- */

static int parser_error(struct builder *b)
{
	void *iterator = NULL;
	const struct fy_diag_error *e = fy_diag_errors_iterate(b->diag, &iterator);
	if (!e)
		return fail(b, b->line ? b->line : 1, b->column ? b->column : 1, "not a valid YAML text");
	return fail(b, e->line > 0 ? (unsigned)e->line : 1, e->column > 0 ? (unsigned)e->column : 1, "%s",
	            e->msg ? e->msg : "not valid YAML");
}

static int next_event(struct builder *b, struct fy_event **ret)
{
	*ret = fy_parser_parse(b->parser);
	return *ret && !fy_parser_get_stream_error(b->parser) ? 0 : parser_error(b);
}

static int build(struct builder *b, struct fy_event *event, struct yaml **ret);

static bool is_string_tag(struct fy_token *tag)
{
	const char *text = tag ? fy_token_get_text0(tag) : NULL;
	return text && (!strcmp(text, "tag:yaml.org,2002:str") || !strcmp(text, "!"));
}

static enum yaml_change change_of(struct fy_token *tag)
{
	const char *text = tag ? fy_token_get_text0(tag) : NULL;
	if (!text)
		return YAML_MERGES;
	return !strcmp(text, "!reset") ? YAML_RESETS : !strcmp(text, "!override") ? YAML_OVERRIDES : YAML_MERGES;
}

static int build_scalar(struct builder *b, const struct fy_event_scalar_data *data, struct yaml **ret)
{
	int r = new_node(b, YAML_SCALAR, data->value, ret);
	if (r == 0)
		r = token_text(b, data->value, &(*ret)->text, &(*ret)->len);
	if (r < 0)
		return r;
	(*ret)->change = change_of(data->tag);
	(*ret)->plain = fy_token_scalar_style(data->value) == FYSS_PLAIN && !is_string_tag(data->tag);
	if ((*ret)->plain && yaml_kind(*ret) == YAML_IS_NULL)
		(*ret)->type = YAML_NULL;
	r = set_anchor(b, data->anchor, *ret);
	return r < 0 ? r : finish(b, *ret);
}

static int build_alias(struct builder *b, const struct fy_event_alias_data *data, struct yaml **ret)
{
	cleanup_free char *name = NULL;
	note_position(b, data->anchor);
	int r = token_text(b, data->anchor, &name, NULL);
	if (r < 0)
		return r;
	*ret = names_get(&b->anchors, name);
	if (!*ret)
		return fail(b, b->line, b->column, "the alias *%.100s names no anchor above it", name);
	if (!(*ret)->nodes)
		return fail(b, b->line, b->column, "the alias *%.100s stands within what it names", name);
	return 0;
}

static int build_list(struct builder *b, const struct fy_event_sequence_start_data *data, struct yaml **ret)
{
	int r = new_node(b, YAML_LIST, data->sequence_start, ret);
	if (r == 0)
		r = set_anchor(b, data->anchor, *ret);
	if (r == 0)
		(*ret)->change = change_of(data->tag);
	while (r == 0) {
		struct fy_event *event = NULL;
		struct yaml *item = NULL;
		r = next_event(b, &event);
		bool end = r == 0 && event->type == FYET_SEQUENCE_END;
		if (r == 0 && !end)
			r = build(b, event, &item);
		fy_parser_event_free(b->parser, event);
		if (end)
			return finish(b, *ret);
		if (r == 0) {
			array_grow((*ret)->items, (*ret)->count);
			(*ret)->items[(*ret)->count++] = item;
		}
	}
	return r;
}

/* ---- mappings ---- */

static void add_pair(struct yaml *map, struct names *keys, struct yaml_pair pair)
{
	array_grow(map->pairs, map->count);
	map->pairs[map->count++] = pair;
	names_put(keys, pair.key, map); /* any value: it is there */
}

/* What stands in the mapping itself wins over what is merged, earlier sources win over later ones. */
static int merge_map(struct builder *b, struct yaml *map, struct names *keys, const struct yaml *from)
{
	if (from->type == YAML_NULL)
		return 0;
	if (from->type != YAML_MAP)
		return fail(b, from->line, from->column, "<<: expected a mapping or a list of mappings");
	for (size_t i = 0; i < from->count; i++) {
		struct yaml_pair pair = from->pairs[i];
		if (names_get(keys, pair.key))
			continue;
		if (b->doc->merged++ == CONFIG_EXPANDED_MAX)
			return fail(b, map->line, map->column, "merge keys expand to more than %u values", CONFIG_EXPANDED_MAX);
		pair.key = xstrdup(pair.key);
		add_pair(map, keys, pair);
	}
	return 0;
}

static int merge(struct builder *b, struct yaml *map, struct names *keys, const struct yaml *source)
{
	if (source->type != YAML_LIST)
		return merge_map(b, map, keys, source);
	int r = 0;
	for (size_t i = 0; r == 0 && i < source->count; i++)
		r = merge_map(b, map, keys, source->items[i]);
	return r;
}

/* What stands behind a << goes to `*merges` and is merged once the mapping's own keys are known. */
static int build_pair(struct builder *b, struct fy_event *key, struct yaml *map, struct names *keys,
                      struct yaml **merges)
{
	struct fy_event *event = NULL;
	struct yaml *value = NULL;
	struct yaml_pair pair = {NULL, b->name, 0, 0, NULL};
	size_t len = 0;
	if (key->type != FYET_SCALAR)
		return fail(b, b->line, b->column, "expected a text as key");
	note_position(b, key->scalar.value);
	pair.line = b->line;
	pair.column = b->column;
	int r = token_text(b, key->scalar.value, &pair.key, &len);
	bool is_merge = r == 0 && !strcmp(pair.key, "<<") && fy_token_scalar_style(key->scalar.value) == FYSS_PLAIN;
	if (r == 0 && strlen(pair.key) != len)
		r = fail(b, pair.line, pair.column, "a key holds a NUL character");
	if (r == 0 && (is_merge ? *merges != NULL : names_get(keys, pair.key) != NULL))
		r = fail(b, pair.line, pair.column, "the key '%.200s' is there already", pair.key);
	if (r == 0)
		r = next_event(b, &event);
	if (r == 0)
		r = build(b, event, &value);
	fy_parser_event_free(b->parser, event);
	pair.value = value;
	if (r < 0 || is_merge)
		free(pair.key);
	if (r == 0 && is_merge)
		*merges = value;
	else if (r == 0)
		add_pair(map, keys, pair);
	return r;
}

static int build_map(struct builder *b, const struct fy_event_mapping_start_data *data, struct yaml **ret)
{
	struct names keys = {NULL, 0, 0};
	struct yaml *merges = NULL;
	bool end = false;
	int r = new_node(b, YAML_MAP, data->mapping_start, ret);
	if (r == 0)
		r = set_anchor(b, data->anchor, *ret);
	if (r == 0)
		(*ret)->change = change_of(data->tag);
	while (r == 0 && !end) {
		struct fy_event *event = NULL;
		r = next_event(b, &event);
		end = r == 0 && event->type == FYET_MAPPING_END;
		if (r == 0 && !end)
			r = build_pair(b, event, *ret, &keys, &merges);
		fy_parser_event_free(b->parser, event);
	}
	if (r == 0 && merges)
		r = merge(b, *ret, &keys, merges);
	names_release(&keys);
	return r < 0 ? r : finish(b, *ret);
}

static int build(struct builder *b, struct fy_event *event, struct yaml **ret)
{
	int r;
	if (b->depth++ == YAML_DEPTH_MAX)
		return fail(b, b->line, b->column, "nested deeper than %d", YAML_DEPTH_MAX);
	switch (event->type) {
	case FYET_SCALAR:
		r = build_scalar(b, &event->scalar, ret);
		break;
	case FYET_ALIAS:
		r = build_alias(b, &event->alias, ret);
		break;
	case FYET_SEQUENCE_START:
		r = build_list(b, &event->sequence_start, ret);
		break;
	case FYET_MAPPING_START:
		r = build_map(b, &event->mapping_start, ret);
		break;
	default:
		r = fail(b, b->line, b->column, "expected a value");
	}
	b->depth--;
	return r;
}

/* ---- the text ---- */

/* Bytes of the character of UTF-8 (RFC 3629) at `at`; 0: there is none. */
static size_t character(const unsigned char *at, const unsigned char *end)
{
	static const struct {
		unsigned char mask, lead;
		unsigned long least;
	} forms[] = {{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
	for (size_t n = 1; n <= 4; n++) {
		if ((*at & forms[n - 1].mask) != forms[n - 1].lead)
			continue;
		unsigned long c = *at & (unsigned char)~forms[n - 1].mask;
		for (size_t i = 1; i < n; i++) {
			if (at + i == end || (at[i] & 0xc0) != 0x80)
				return 0;
			c = c << 6 | (at[i] & 0x3f);
		}
		return c < forms[n - 1].least || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff) ? 0 : n;
	}
	return 0;
}

/* libfyaml 0.7.12 takes a byte that is not UTF-8, and a NUL, for the end of the text where it stands in a comment, and
 * loops for ever where it stands in a directive. */
static int check_text(struct builder *b, const char *text, size_t len)
{
	const unsigned char *at = (const unsigned char *)text, *end = at + len;
	unsigned line = 1, column = 1;
	for (size_t n; at < end; at += n) {
		n = character(at, end);
		if (!n)
			return fail(b, line, column, "the byte 0x%02x is not valid UTF-8", *at);
		if ((*at < 0x20 && *at != '\t' && *at != '\n' && *at != '\r') || *at == 0x7f)
			return fail(b, line, column, "the control character 0x%02x is not allowed", *at);
		column = *at == '\n' ? 1 : column + 1;
		line += *at == '\n';
	}
	return 0;
}

/* ---- the whole ---- */

static int build_empty(struct builder *b, struct yaml **ret)
{
	b->line = b->column = 1;
	int r = new_node(b, YAML_NULL, NULL, ret);
	if (r < 0)
		return r;
	(*ret)->text = xstrdup("");
	return finish(b, *ret);
}

static void add_root(struct builder *b, const struct yaml *root)
{
	array_grow(b->doc->roots, b->doc->n_roots);
	b->doc->roots[b->doc->n_roots++] = root;
}

/* Anchors are a document's own to YAML, but the file's to docker compose: a later document may name those of an earlier one. */
static int build_documents(struct builder *b)
{
	bool end = false;
	int r = 0;
	while (r == 0 && !end) {
		struct fy_event *event = NULL;
		struct yaml *root = NULL;
		r = next_event(b, &event);
		if (r < 0)
			break;
		if (event->type == FYET_DOCUMENT_START) {
			note_position(b, event->document_start.document_start);
			if (b->doc->n_roots && !b->many)
				r = fail(b, b->line, b->column, "expected one document, a second one begins here");
		} else if (event->type == FYET_STREAM_END) {
			end = true;
		} else if (event->type != FYET_STREAM_START && event->type != FYET_DOCUMENT_END) {
			r = build(b, event, &root);
		}
		fy_parser_event_free(b->parser, event);
		if (root)
			add_root(b, root);
	}
	struct yaml *empty = NULL;
	if (r == 0 && !b->doc->n_roots && (r = build_empty(b, &empty)) == 0)
		add_root(b, empty);
	return r;
}

static int parse(struct builder *b, const char *text, size_t len)
{
	struct fy_diag_cfg diag_config;
	fy_diag_cfg_default(&diag_config);
	diag_config.fp = NULL;
	diag_config.output_fn = NULL;
	b->diag = fy_diag_create(&diag_config);
	if (!b->diag)
		return error_set(b->err, ERROR_NO_MEMORY, "libfyaml: no diagnostics");
	fy_diag_set_collect_errors(b->diag, true);
	const struct fy_parse_cfg config = {
	    /* sloppy: a `]` below its key, as many files have it, and as the readers of Compose and Go take it */
	    .flags = FYPCF_QUIET | FYPCF_COLLECT_DIAG | FYPCF_DEFAULT_VERSION_1_2 | FYPCF_JSON_NONE |
	             FYPCF_SLOPPY_FLOW_INDENTATION,
	    .diag = b->diag};
	b->parser = fy_parser_create(&config);
	int r = b->parser && fy_parser_set_string(b->parser, text, len) == 0
	            ? 0
	            : error_set(b->err, ERROR_NO_MEMORY, "libfyaml: no parser");
	if (r == 0)
		r = build_documents(b);
	fy_parser_destroy(b->parser);
	fy_diag_destroy(b->diag);
	return r;
}

static int parse_text(const char *name, const char *text, size_t len, bool many, struct yaml_document **ret, struct error *err)
{
	struct builder b = {.doc = xcalloc(1, sizeof *b.doc), .name = name, .err = err, .many = many, .line = 1, .column = 1};
	if (len >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) {
		text += 3;
		len -= 3;
	}
	int r = check_text(&b, text, len);
	if (r == 0)
		r = parse(&b, text, len);
	names_release(&b.anchors);
	if (r < 0) {
		yaml_free(b.doc);
		return r;
	}
	*ret = b.doc;
	return 0;
}

int yaml_parse(const char *name, const char *text, size_t len, struct yaml_document **ret, struct error *err)
{
	return parse_text(name, text, len, false, ret, err);
}

int yaml_parse_all(const char *name, const char *text, size_t len, struct yaml_document **ret, struct error *err)
{
	return parse_text(name, text, len, true, ret, err);
}

/* ---- the core schema ---- */

static bool in_list(const char *text, const char *const *list)
{
	for (; *list; list++)
		if (!strcmp(text, *list))
			return true;
	return false;
}

enum yaml_kind yaml_kind(const struct yaml *scalar)
{
	static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
	static const char *const booleans[] = {"true", "True", "TRUE", "false", "False", "FALSE", NULL};
	bool integer = false;
	if (scalar->type == YAML_NULL)
		return YAML_IS_NULL;
	if (!scalar->plain || strlen(scalar->text) != scalar->len)
		return YAML_IS_TEXT;
	if (in_list(scalar->text, nulls))
		return YAML_IS_NULL;
	if (in_list(scalar->text, booleans))
		return YAML_IS_BOOL;
	cleanup_free char *number = yaml_number(scalar->text, &integer);
	return !number ? YAML_IS_TEXT : integer ? YAML_IS_INT : YAML_IS_FLOAT;
}

char *yaml_canonical(const struct yaml *scalar)
{
	bool integer;
	switch (yaml_kind(scalar)) {
	case YAML_IS_BOOL:
		return xstrdup(scalar->text[0] == 't' || scalar->text[0] == 'T' ? "true" : "false");
	case YAML_IS_INT:
	case YAML_IS_FLOAT:
		return yaml_number(scalar->text, &integer);
	default:
		return xstrdup(scalar->text);
	}
}
