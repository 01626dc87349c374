#include "provisioner/beside_service.h"

#include <string.h>

#include "base/cleanup.h"

/* Where it is stands in such a value: within its container it is elsewhere. */
static bool names_a_place(const char *template)
{
	return !template || strstr(template, "{{host") || strstr(template, "{{port") || strstr(template, "{{url");
}

static void add_variables(const struct keyvals *templates, const struct keyvals *values, bool contained, json_t *env)
{
	for (size_t i = 0; i < values->count; i++) {
		const char *key = values->items[i].key, *value = values->items[i].value;
		if (*value && (!contained || !names_a_place(keyvals_get(templates, key))))
			json_object_set_new(env, key, json_string(value));
	}
}

static void add_arguments(const struct keyvals *templates, const struct keyvals *values, bool contained, json_t *arguments)
{
	for (size_t i = 0; i < values->count; i++) {
		cleanup_strv char **words = NULL;
		if ((contained && names_a_place(keyvals_get(templates, values->items[i].key))) || config_split_words(values->items[i].value, &words, NULL))
			continue;
		json_t *list = json_array();
		for (char **word = words; word && *word; word++)
			json_array_append_new(list, json_string(*word));
		json_object_set_new(arguments, values->items[i].key, list);
	}
}

void beside_service(const struct model *m, const struct model_service *s, struct buffer *out)
{
	bool contained = m && m->backend && strcmp(m->backend, "process");
	json_t *env = json_object(), *arguments = json_object();
	if (s && s->recipe) {
		add_variables(&s->recipe->variables, &s->recipe_env, contained, env);
		add_variables(&s->recipe->beside_env, &s->beside_env, contained, env);
		add_arguments(&s->recipe->beside_arguments, &s->beside_arguments, contained, arguments);
	}
	json_t *json = json_pack("{s:o, s:o}", "env", env, "arguments", arguments);
	cleanup_free char *text = json_dumps(json, JSON_INDENT(2));
	json_decref(json);
	buffer_adds(out, text ? text : "{}");
	buffer_addc(out, '\n');
}
