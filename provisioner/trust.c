#include "provisioner/trust.h"

#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/sha256.h"

#define PRINT_LENGTH 16

static json_t *describe(const struct config *config)
{
	json_t *list = json_array();
	for (size_t i = 0; i < config->n_approvals; i++) {
		const struct config_approval *a = &config->approvals[i];
		struct sha256 hash;
		char print[SHA256_HEX];
		sha256_begin(&hash);
		sha256_add_str(&hash, a->path);
		sha256_add_str(&hash, a->value);
		sha256_end(&hash, print);
		json_t *shown = json_string(a->shown); /* NULL for what is no UTF-8 */
		json_array_append_new(list, json_pack("{s:s, s:o, s:s#}", "field", a->path, "value",
		                                      shown ? shown : json_string("(no UTF-8)"), "print", print, PRINT_LENGTH));
	}
	return list;
}

static int look_before(struct store *store, struct trust *t, struct error *err)
{
	cleanup_free char *text = NULL;
	int r = store_approved(store, t->repository, &text, &t->before_ms, err);
	if (r == 1)
		t->before = json_loads(text, 0, NULL);
	return r < 0 ? r : 0;
}

static int approve_it(struct store *store, const struct trust *t, struct error *err)
{
	cleanup_free char *text = json_dumps(t->fields, JSON_COMPACT);
	return store_approve(store, t->repository, t->hash, text, err);
}

int trust_look(struct store *store, const char *repository, const struct config *config, const char *approve, struct trust *ret,
               struct error *err)
{
	struct trust t = {.repository = xstrdup(repository), .hash = xstrdup(config->approval_hash), .fields = describe(config)};
	bool matches = approve && (!*approve || !strcmp(approve, t.hash));
	int r = 0;
	t.approved = !*t.hash;
	if (!t.approved && matches)
		r = approve_it(store, &t, err);
	if (r == 0 && !t.approved) {
		r = store_is_approved(store, repository, t.hash, err);
		t.approved = r == 1;
	}
	if (r >= 0)
		r = look_before(store, &t, err);
	if (r < 0) {
		trust_release(&t);
		return r;
	}
	*ret = t;
	return 0;
}

void trust_release(struct trust *t)
{
	free(t->repository);
	free(t->hash);
	json_decref(t->fields);
	json_decref(t->before);
	*t = (struct trust)TRUST_INIT;
}

void trust_copy(struct trust *to, const struct trust *from)
{
	trust_release(to);
	*to = *from;
	to->repository = xstrdup(from->repository);
	to->hash = xstrdup(from->hash);
	json_incref(to->fields);
	json_incref(to->before);
}

bool trust_is_given(const struct trust *t)
{
	return !t->hash || t->approved;
}

int trust_refuse(const struct trust *t, const char *file, struct error *err)
{
	error_set(err, ERROR_CONFIG_UNTRUSTED, "%s could run code that nobody has approved for this repository", file);
	error_detail(err, "repository", json_string(t->repository));
	return error_hint(err, "ajj trust --show says what it is, ajj trust approves it");
}

/* ---- the difference ---- */

static const char *text_of(const json_t *entry, const char *key)
{
	const char *text = json_string_value(json_object_get(entry, key));
	return text ? text : "";
}

/* Borrowed: of `list`, the entry of the same field with another print that is in nobody's place yet (a field may have
 * several: mounts of one list keep their index, so this is rare). */
static const json_t *find(const json_t *list, const json_t *entry)
{
	for (size_t i = 0; i < json_array_size(list); i++)
		if (!strcmp(text_of(json_array_get(list, i), "field"), text_of(entry, "field")))
			return json_array_get(list, i);
	return NULL;
}

static bool has(const json_t *list, const json_t *entry)
{
	for (size_t i = 0; i < json_array_size(list); i++)
		if (!strcmp(text_of(json_array_get(list, i), "print"), text_of(entry, "print")))
			return true;
	return false;
}

static void add_change(json_t *list, const json_t *before, const json_t *now)
{
	json_array_append_new(list, json_pack("{s:s, s:s?, s:s?}", "field", text_of(now ? now : before, "field"), "before",
	                                      before ? text_of(before, "value") : NULL, "now", now ? text_of(now, "value") : NULL));
}

static json_t *changes(const struct trust *t)
{
	json_t *list = json_array();
	for (size_t i = 0; i < json_array_size(t->fields); i++) {
		const json_t *now = json_array_get(t->fields, i);
		const json_t *before = t->before ? find(t->before, now) : NULL;
		if (!t->before || !has(t->before, now))
			add_change(list, before && !has(t->fields, before) ? before : NULL, now);
	}
	for (size_t i = 0; i < json_array_size(t->before); i++) {
		const json_t *before = json_array_get(t->before, i);
		if (!find(t->fields, before))
			add_change(list, before, NULL);
	}
	return list;
}

json_t *trust_json(const struct trust *t)
{
	char at[32] = "";
	json_t *fields = json_array();
	if (t->before)
		format_time(at, t->before_ms);
	for (size_t i = 0; i < json_array_size(t->fields); i++) {
		const json_t *one = json_array_get(t->fields, i);
		json_array_append_new(fields, json_pack("{s:s, s:s}", "field", text_of(one, "field"), "value", text_of(one, "value")));
	}
	return json_pack("{s:s?, s:b, s:s?, s:s?, s:o, s:o}", "repository", t->repository, "approved", t->hash && t->approved, "hash", t->hash,
	                 "approved_at", *at ? at : NULL, "changes", trust_is_given(t) ? json_array() : changes(t), "fields", fields);
}
