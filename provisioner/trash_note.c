/* entry.json: what the trash must know even when the store is lost, and the secrets that its data was made with. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "provisioner/trash_private.h"

#define NOTE_MAX (1u << 20)

static json_t *services_json(char *const *services)
{
	json_t *array = json_array();
	for (; services && *services; services++)
		json_array_append_new(array, json_string(*services));
	return array;
}

static json_t *secrets_json(const struct keyvals *secrets)
{
	json_t *object = json_object();
	for (size_t i = 0; i < secrets->count; i++)
		json_object_set_new(object, secrets->items[i].key, json_string(secrets->items[i].value));
	return object;
}

int trash_note_write(struct store *s, const struct trash_entry *e, struct error *err)
{
	cleanup_keyvals struct keyvals secrets = KEYVALS_INIT;
	int r = store_secrets_list(s, e->namespace_, &secrets, err);
	if (r)
		return r;
	json_t *note = json_object();
	/* a path need not be UTF-8, which JSON must be: then it is left out */
	json_object_set_new(note, "namespace", json_string(e->namespace_));
	json_object_set_new(note, "root", json_string(e->root));
	json_object_set_new(note, "workspace", json_string(e->workspace));
	json_object_set_new(note, "generation", json_integer(e->generation));
	json_object_set_new(note, "at_ms", json_integer(e->at_ms));
	json_object_set_new(note, "services", services_json(e->services));
	json_object_set_new(note, "secrets", secrets_json(&secrets));
	cleanup_free char *text = json_dumps(note, JSON_INDENT(2));
	cleanup_free char *path = xasprintf("%s/entry.json", e->path);
	json_decref(note);
	r = text ? file_write_atomic(AT_FDCWD, path, text, strlen(text), 0600) : -ENOMEM;
	return r ? trash_failed(r, path, err) : 0;
}

static json_t *note_load(const char *path)
{
	cleanup_free char *file = xasprintf("%s/entry.json", path);
	cleanup_buffer struct buffer text = BUFFER_INIT;
	if (file_read(AT_FDCWD, file, NOTE_MAX, &text))
		return NULL;
	json_t *note = json_loadb(buffer_str(&text), text.len, 0, NULL);
	if (note && json_is_object(note))
		return note;
	json_decref(note);
	return NULL;
}

static char *text_of(const json_t *note, const char *key, const char *otherwise)
{
	const char *text = json_string_value(json_object_get(note, key));
	return xstrdup(text ? text : otherwise);
}

void trash_note_read(const char *path, struct trash_entry *e)
{
	json_t *note = note_load(path), *name;
	size_t i;
	e->namespace_ = text_of(note, "namespace", "unknown");
	e->root = text_of(note, "root", "unknown");
	e->workspace = text_of(note, "workspace", "unknown");
	e->generation = (uint32_t)json_integer_value(json_object_get(note, "generation"));
	e->at_ms = json_integer_value(json_object_get(note, "at_ms"));
	json_array_foreach(json_object_get(note, "services"), i, name) if (json_is_string(name))
	    strv_push(&e->services, xstrdup(json_string_value(name)));
	json_decref(note);
}

int trash_note_restore_secrets(struct store *s, const char *path, const char *namespace_, struct error *err)
{
	json_t *note = note_load(path), *value;
	const char *key;
	int r = 0;
	json_object_foreach(json_object_get(note, "secrets"), key, value) if (r == 0 && json_is_string(value)) r =
	    store_secret_set(s, namespace_, key, json_string_value(value), err);
	json_decref(note);
	return r;
}
