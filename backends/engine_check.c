/* The check that an image brings along, as the inspection of its container shows it.
 * https://docs.docker.com/reference/dockerfile/#healthcheck */
#include <stdlib.h>
#include <string.h>

#include "backends/engine.h"
#include "base/alloc.h"

#define WORDS_MAX 1000

/* Nanoseconds; 0: the default */
static unsigned milliseconds(const json_t *check, const char *key)
{
	json_int_t ms = json_integer_value(json_object_get(check, key)) / 1000000;
	return ms < 0 ? 0 : ms > 86400000 ? 86400000 : (unsigned)ms;
}

static void add_words(char ***argv, const json_t *list, size_t from)
{
	size_t i, n = json_array_size(list);
	for (i = from; i < n && i < WORDS_MAX; i++) {
		const char *word = json_string_value(json_array_get(list, i));
		strv_push(argv, xstrdup(word ? word : ""));
	}
}

/* ["CMD", words...], ["CMD-SHELL", text], ["NONE"]. new; NULL: none */
static char **command(const json_t *config, const json_t *test)
{
	const char *kind = json_string_value(json_array_get(test, 0)), *text = json_string_value(json_array_get(test, 1));
	const json_t *shell = json_object_get(config, "Shell");
	char **argv = NULL;
	if (kind && text && !strcmp(kind, "CMD"))
		add_words(&argv, test, 1);
	if (!kind || !text || strcmp(kind, "CMD-SHELL"))
		return argv;
	if (json_array_size(shell)) {
		add_words(&argv, shell, 0);
	} else {
		strv_push(&argv, xstrdup("/bin/sh"));
		strv_push(&argv, xstrdup("-c"));
	}
	strv_push(&argv, xstrdup(text));
	return argv;
}

void engine_check_take(struct engine *e, const char *service, const json_t *container)
{
	struct engine_slot *slot = engine_slot(e, service);
	const json_t *config = json_object_get(container, "Config"), *check = json_object_get(config, "Healthcheck");
	json_int_t retries = json_integer_value(json_object_get(check, "Retries"));
	strv_free(slot->check.argv);
	slot->check = (struct backend_check){command(config, json_object_get(check, "Test")), milliseconds(check, "Interval"), milliseconds(check, "Timeout"),
	                                     milliseconds(check, "StartPeriod"), retries > 0 && retries < 1000000 ? (unsigned)retries : 0};
}

const struct backend_check *engine_check_of(struct backend *b, const char *service)
{
	const struct engine_slot *slot = engine_slot((struct engine *)b, service);
	return slot->check.argv ? &slot->check : NULL;
}
