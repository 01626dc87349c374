/* Reading typed values out of a YAML tree, with the place of each (file, line, column and path) at hand for messages.
 *
 * A mapping is read by a table of keys and functions (`struct field_reader`); a value by one of the field_* functions.
 * All return 0 or a negative errno with CONFIG_INVALID "file:line:column: services.db.ports: expected ..., got ..." and
 * details
 * {"file","line","column","path"}. `*ret` is new and written on success only.
 */
#ifndef PROVISIONER_CONFIG_READER_H
#define PROVISIONER_CONFIG_READER_H

#include "base/strv.h"
#include "provisioner/config.h"
#include "provisioner/config_yaml.h"

struct unused_key; /* known, not read yet: told once for all the places where it stands */

struct reader {
	const struct config_file *files; /* absolute paths of what yaml_parse was told, for details; borrowed; may be NULL */
	size_t n_files;
	struct error *err;
	config_lookup *lookup; /* NULL: values are not interpolated */
	void *lookup_arg;
	void (*warn)(void *arg, const char *text);
	void *warn_arg;
	const char *file; /* of the text that is being interpolated: whose variables count; borrowed */
	size_t bytes; /* that texts came to, bounded by READER_BYTES_MAX */
	/* kept by the reader; reader_finish releases them */
	char **unset; /* names warned of */
	struct unused_key *unused;
	size_t n_unused;
};

#define READER_BYTES_MAX (16u << 20)

void reader_tell_unused(struct reader *r); /* the warnings that were gathered until now */
/* Tells them, and releases what the reader holds. */
void reader_finish(struct reader *r);

/* A value and how it was reached. Lives on the stack of whoever reads; `up` is borrowed. */
struct field {
	struct reader *reader;
	const struct field *up; /* NULL: the root */
	const char *key;        /* NULL: an item of a list */
	size_t index;
	const struct yaml *node;
	const char *file; /* as messages name it; borrowed */
	unsigned line, column;
	const char *key_file;
	unsigned key_line, key_column; /* 0: no key */
	bool verbatim;                 /* not interpolated: `$$` is a `$`, everything else stays */
};

struct field field_root(struct reader *r, const struct yaml *node);
struct field field_child(const struct field *f, size_t i);                  /* pair or item i < f->node->count */
bool field_find(const struct field *f, const char *key, struct field *ret); /* in a mapping */
char *field_path(const struct field *f);                                    /* new: "services.db.ports[1]" */

int field_error(const struct field *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* At the key instead of the value. */
int field_key_error(const struct field *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* "expected `what`, got a mapping" */
int field_expected(const struct field *f, const char *what);
/* Puts the place before the message of an error that is already there. */
int field_located(const struct field *f);
void field_warn(const struct field *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- mappings ---- */

typedef int field_read(const struct field *f, void *out);

struct field_reader {
	const char *key;
	field_read *read; /* NULL: known, and not used yet: a warning. field_ignore: nothing is said */
	const struct field_reader *more; /* of the last entry: the table goes on there; NULL: it does not */
};

enum field_unknown { UNKNOWN_WARNS, UNKNOWN_FAILS };

int field_ignore(const struct field *f, void *out);

/* Reads each pair by the table, which ends with a NULL key. With UNKNOWN_WARNS keys that begin with x- are extensions.
 * A null value is as if the key were not there. Not a mapping: expected `what`. */
int field_read_map(const struct field *f, const struct field_reader *table, enum field_unknown unknown,
                   const char *what, void *out);

/* The nearest of `names`, when it is near enough to be meant; borrowed; NULL: none. */
const char *nearest_name(const char *wrong, const char *const *names);

/* ---- values ---- */

int field_text(const struct field *f, char **ret);   /* any scalar, interpolated; null is "" */
int field_string(const struct field *f, char **ret); /* the same, but no number or boolean: what Compose wants quoted */
int field_bool(const struct field *f, bool *ret);    /* true, false */
int field_switch(const struct field *f, bool *ret);  /* on, off, true, false, yes, no */
int field_int(const struct field *f, int64_t min, int64_t max, int64_t *ret);
int field_mode(const struct field *f, unsigned *ret); /* 0440 and "0440", octal; 288 is the same */
int field_double(const struct field *f, double *ret);
int field_bytes(const struct field *f, uint64_t *ret);      /* 64m, 1.5gb, 1024; binary units, as Docker reads them */
int field_duration(const struct field *f, int64_t *ret_ms); /* 1m30s, 500ms, as Go's time.ParseDuration */
int field_choice(const struct field *f, const char *const *words, size_t *ret); /* index into a NULL-terminated list */
int field_strings(const struct field *f, char ***ret);                          /* a list of texts */
int field_strings_or_one(const struct field *f, char ***ret);
int field_argv(const struct field *f, char ***ret); /* a list, or a string that is split into words */
bool field_is_null(const struct field *f);

/* Parsers of text, 0 or -EINVAL. */
int parse_bytes(const char *text, uint64_t *ret);
int parse_duration(const char *text, int64_t *ret_ms);
int parse_port(const char *text, size_t len, uint16_t *ret); /* 1..65535 */

bool is_variable_name(const char *s); /* [A-Za-z_][A-Za-z0-9_]* */

#endif
