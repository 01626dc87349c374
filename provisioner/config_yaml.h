/* YAML 1.2 text as a tree with positions: the one place that knows libfyaml (https://pantoniou.github.io/libfyaml/), of
 * which the event parser alone is used. Anchors, aliases and merge keys (`<<`, https://yaml.org/type/merge.html) are
 * resolved here, by sharing: an alias is the very node it names. What the tree would be if it were written out is
 * counted and bounded (CONFIG_EXPANDED_MAX), so walking it is cheap however it was written; it has no cycles. Keys are
 * unique texts.
 */
#ifndef PROVISIONER_CONFIG_YAML_H
#define PROVISIONER_CONFIG_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define YAML_DEPTH_MAX 64
#define YAML_EXPANDED_BYTES_MAX (16u << 20) /* of all texts, aliases expanded */

enum yaml_type { YAML_NULL, YAML_SCALAR, YAML_LIST, YAML_MAP };

/* Compose's tags for a file that is laid on another (compose-spec 13-merge). */
enum yaml_change { YAML_MERGES, YAML_RESETS, YAML_OVERRIDES };

struct yaml_pair {
	char *key;
	const char *file;      /* borrowed: the name that yaml_parse got */
	unsigned line, column; /* of the key, from 1 */
	const struct yaml *value;
};

struct yaml {
	enum yaml_type type;
	bool plain;                /* a scalar without quotes: may be meant as a number or boolean. False for !!str */
	char *text;                /* SCALAR; NULL type: as written ("", "~", "null") */
	size_t len;                /* of text, which may hold NULs ("\0") and ends with one more */
	struct yaml_pair *pairs;   /* MAP, in the file's order, merged ones last */
	const struct yaml **items; /* LIST */
	size_t count;
	enum yaml_change change;
	const char *file;      /* borrowed: the name that yaml_parse got */
	unsigned line, column; /* from 1 */
	unsigned depth;        /* 1 for a scalar */
	uint64_t nodes, bytes; /* written out, itself included */
};

struct yaml_document;

/* Parses one document. `name` stands before positions in messages: "name:line:column: ...". Errors are CONFIG_INVALID
 * with details line and column. `root` of *ret is borrowed from it, and `name` by its nodes. new: yaml_free. */
int yaml_parse(const char *name, const char *text, size_t len, struct yaml_document **ret, struct error *err);
/* The same of a text in which several may follow each other, with `---` between them. */
int yaml_parse_all(const char *name, const char *text, size_t len, struct yaml_document **ret, struct error *err);
const struct yaml *yaml_root(const struct yaml_document *doc); /* never NULL: an empty text is a NULL node */
const struct yaml *yaml_next_root(const struct yaml_document *doc, size_t i); /* 0 is yaml_root; NULL: there are no more */
void yaml_set_root(struct yaml_document *doc, const struct yaml *root); /* in the place of all */
void yaml_free(struct yaml_document *doc);

static inline void yaml_freep(struct yaml_document **doc)
{
	yaml_free(*doc);
}

/* For trees made of others: a node of `doc` that stands where `like` does; what it holds may be another document's, which
 * then must live as long. */
struct yaml *yaml_new(struct yaml_document *doc, enum yaml_type type, const struct yaml *like);
void yaml_set_text(struct yaml *scalar, const char *text); /* a quoted one's */
void yaml_add_item(struct yaml *list, const struct yaml *item);
void yaml_add_pair(struct yaml *map, const char *key, const struct yaml_pair *place, const struct yaml *value);

const struct yaml *yaml_get(const struct yaml *map, const char *key); /* borrowed; NULL: no map, or not in it */

/* What a plain scalar is by the core schema of YAML 1.2 (10.3.2), with docker compose's numbers: yes, no, on and off are texts. */
enum yaml_kind { YAML_IS_TEXT, YAML_IS_NULL, YAML_IS_BOOL, YAML_IS_INT, YAML_IS_FLOAT };
enum yaml_kind yaml_kind(const struct yaml *scalar);
/* new: its text as docker compose hands it on: numbers and booleans are written anew (1.50 is 1.5, 010 is 8, True is true) */
char *yaml_canonical(const struct yaml *scalar);
/* config_yaml_number.c. new: a number as Go writes it; NULL: it is none */
char *yaml_number(const char *text, bool *ret_integer);

#endif
