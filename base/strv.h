/* NULL-terminated arrays of strings, as execve takes them, and ordered key/value lists. */
#ifndef BASE_STRV_H
#define BASE_STRV_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Appends. steals `s`. `*v` may be NULL. O(n): lists are short. */
void strv_push(char ***v, char *s);
void strv_pushf(char ***v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
size_t strv_len(char *const *v); /* 0 for NULL */
bool strv_contains(char *const *v, const char *s);
char **strv_copy(char *const *v); /* new; NULL gives NULL */
void strv_free(char **v);
static inline void strv_freep(char ***v)
{
	strv_free(*v);
}
#define cleanup_strv __attribute__((cleanup(strv_freep)))

struct keyval {
	char *key;
	char *value; /* NULL: named without a value (Compose: taken from the caller's environment) */
	uint64_t hash; /* of the key: what is looked up is mostly another */
};

/* An insertion-ordered map; setting a key that is there replaces its value in place. */
struct keyvals {
	struct keyval *items;
	size_t count;
};

#define KEYVALS_INIT {NULL, 0}

void keyvals_set(struct keyvals *kv, const char *key, const char *value); /* copies both */
const char *keyvals_get(const struct keyvals *kv, const char *key);       /* borrowed; NULL when absent */
bool keyvals_has(const struct keyvals *kv, const char *key);
void keyvals_unset(struct keyvals *kv, const char *key);
void keyvals_copy(struct keyvals *to, const struct keyvals *from); /* adds all of `from` to `to` */
char **keyvals_environ(const struct keyvals *kv);                  /* new: "KEY=value" strings */
json_t *keyvals_json(const struct keyvals *kv);                    /* new: an object; without a value "". NULL gives an empty one */
void keyvals_release(struct keyvals *kv);
#define cleanup_keyvals __attribute__((cleanup(keyvals_release)))

#endif
