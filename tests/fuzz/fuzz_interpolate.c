/* Texts of the configuration's small languages: interpolation, words, templates. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/strv.h"
#include "provisioner/config.h"
#include "provisioner/config_reader.h"
#include "provisioner/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
	if (!holds)
		abort();
}

static const char *variable(void *arg, const char *name)
{
	require(is_variable_name(name));
	return name[0] == 'S' ? "v$alue" : name[0] == 'E' ? "" : NULL;
}

static const char *template_value(void *arg, const char *name)
{
	require(*name && !strpbrk(name, " {}|\"?"));
	return name[0] == 'u' ? NULL : name;
}

static void count_name(void *arg, const char *name)
{
	++*(size_t *)arg;
}

/* Without a dollar nothing happens; a doubled text comes back as it was. */
static void check_interpolation(const char *text)
{
	cleanup_free char *out = NULL, *doubled = xcalloc(2, strlen(text) + 1), *back = NULL;
	int r = config_interpolate(text, variable, NULL, NULL, &out, NULL);
	require(r == 0 ? out != NULL : out == NULL);
	require(strchr(text, '$') || !strcmp(out, text));
	char *at = doubled;
	for (const char *c = text; *c; c++) {
		*at++ = *c;
		if (*c == '$')
			*at++ = '$';
	}
	require(config_interpolate(doubled, variable, NULL, NULL, &back, NULL) == 0 && !strcmp(back, text));
}

static void check_words(const char *text)
{
	cleanup_strv char **words = NULL, **again = NULL;
	if (config_split_words(text, &words, NULL) < 0)
		return;
	cleanup_free char *joined = config_join_words(words);
	require(config_split_words(joined, &again, NULL) == 0 && strv_len(again) == strv_len(words));
	for (size_t i = 0; words[i]; i++)
		require(!strcmp(words[i], again[i]));
}

static void check_template(const char *text)
{
	cleanup_free char *out = NULL, *word = xstrdup(text);
	cleanup_strv char **argv = NULL;
	char *const one[] = {word, NULL};
	size_t names = 0;
	int expanded = template_expand(text, template_value, NULL, &out, NULL);
	int checked = template_names(text, count_name, &names, NULL);
	require(expanded < 0 || checked == 0);
	require(names || checked < 0 || strstr(text, "{{") || !strcmp(out, text));
	template_expand_argv(one, template_value, NULL, &argv, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size > 20000)
		return 0;
	cleanup_free char *text = xcalloc(1, size + 1);
	uint64_t bytes;
	int64_t ms;
	if (size)
		memcpy(text, data, size);
	check_interpolation(text);
	check_words(text);
	check_template(text);
	require(parse_duration(text, &ms) < 0 || ms >= 0);
	parse_bytes(text, &bytes);
	return 0;
}
