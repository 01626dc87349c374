#include "base/strv.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"

void strv_push(char ***v, char *s)
{
	size_t n = strv_len(*v);
	*v = xrealloc(*v, (n + 2) * sizeof **v);
	(*v)[n] = s;
	(*v)[n + 1] = NULL;
}

void strv_pushf(char ***v, const char *fmt, ...)
{
	va_list ap;
	char *s = NULL;
	va_start(ap, fmt);
	int n = vasprintf(&s, fmt, ap);
	va_end(ap);
	if (n < 0)
		abort();
	strv_push(v, s);
}

size_t strv_len(char *const *v)
{
	size_t n = 0;
	while (v && v[n])
		n++;
	return n;
}

bool strv_contains(char *const *v, const char *s)
{
	for (; v && *v; v++)
		if (!strcmp(*v, s))
			return true;
	return false;
}

char **strv_copy(char *const *v)
{
	if (!v)
		return NULL;
	size_t n = strv_len(v);
	char **copy = xcalloc(n + 1, sizeof *copy);
	for (size_t i = 0; i < n; i++)
		copy[i] = xstrdup(v[i]);
	return copy;
}

void strv_free(char **v)
{
	for (size_t i = 0; v && v[i]; i++)
		free(v[i]);
	free(v);
}

static struct keyval *find(const struct keyvals *kv, const char *key)
{
	uint64_t hash = hash_str(HASH_INIT, key);
	for (size_t i = 0; i < kv->count; i++)
		if (kv->items[i].hash == hash && !strcmp(kv->items[i].key, key))
			return &kv->items[i];
	return NULL;
}

void keyvals_set(struct keyvals *kv, const char *key, const char *value)
{
	struct keyval *item = find(kv, key);
	if (item) {
		char *copy = xstrdup(value);
		free(item->value);
		item->value = copy;
		return;
	}
	array_grow(kv->items, kv->count);
	kv->items[kv->count++] = (struct keyval){xstrdup(key), xstrdup(value), hash_str(HASH_INIT, key)};
}

const char *keyvals_get(const struct keyvals *kv, const char *key)
{
	const struct keyval *item = find(kv, key);
	return item ? item->value : NULL;
}

bool keyvals_has(const struct keyvals *kv, const char *key)
{
	return find(kv, key) != NULL;
}

void keyvals_unset(struct keyvals *kv, const char *key)
{
	struct keyval *item = find(kv, key);
	if (!item)
		return;
	free(item->key);
	free(item->value);
	size_t at = (size_t)(item - kv->items);
	/* array_grow doubles at powers of two, so the count may shrink only while the memory is kept: it is. */
	memmove(item, item + 1, (kv->count - at - 1) * sizeof *item);
	kv->count--;
}

void keyvals_copy(struct keyvals *to, const struct keyvals *from)
{
	for (size_t i = 0; i < from->count; i++)
		keyvals_set(to, from->items[i].key, from->items[i].value);
}

char **keyvals_environ(const struct keyvals *kv)
{
	char **v = xcalloc(kv->count + 1, sizeof *v);
	size_t n = 0;
	for (size_t i = 0; i < kv->count; i++)
		if (kv->items[i].value)
			v[n++] = xasprintf("%s=%s", kv->items[i].key, kv->items[i].value);
	return v;
}

json_t *keyvals_json(const struct keyvals *kv)
{
	json_t *map = json_object();
	for (size_t i = 0; kv && i < kv->count; i++)
		json_object_set_new(map, kv->items[i].key, json_string(kv->items[i].value ? kv->items[i].value : ""));
	return map;
}

void keyvals_release(struct keyvals *kv)
{
	for (size_t i = 0; i < kv->count; i++) {
		free(kv->items[i].key);
		free(kv->items[i].value);
	}
	free(kv->items);
	*kv = (struct keyvals)KEYVALS_INIT;
}
