/* provisioner/envfile over any bytes: up to the first NUL the user's text, behind it what somebody wrote over `.env`.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/envfile.h"

/* With generated variables that win over the user's. */
static int render(const char *user, const struct keyvals *generated, struct buffer *out, char ***flagged, struct error *err)
{
	static const struct keyvals none = KEYVALS_INIT;
	const struct envset_params params = {.own = user, .offered = &none, .imposed = generated};
	cleanup_envset struct envset set;
	envset_make(&params, &set);
	return envfile_render(user, &set, out, flagged, err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void no_line(void *arg, unsigned line)
{
	require(line >= 1);
}

/* A value that has a form is read back from it. */
static void check_value(const char *key, const char *value)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_keyvals struct keyvals back = KEYVALS_INIT;
	buffer_printf(&text, "K=");
	enum envfile_form form = envfile_quote(value, &text);
	require((form == ENVFILE_UNREPRESENTABLE) == (text.len == 2 && *value));
	if (form == ENVFILE_UNREPRESENTABLE)
		return;
	buffer_adds(&text, "\nLAST=1\n");
	envfile_parse(text.data, NULL, NULL, NULL, &back);
	require(back.count == 2 && !strcmp(keyvals_get(&back, "K"), value));
	env_name_is_secret(key);
	cleanup_free char *masked = url_mask_password(value);
	require(masked != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	cleanup_keyvals struct keyvals parsed = KEYVALS_INIT, generated = KEYVALS_INIT;
	cleanup_buffer struct buffer served = BUFFER_INIT, own = BUFFER_INIT;
	bool changed = true;
	if (size > 65536)
		return 0;
	cleanup_free char *whole = xcalloc(1, size + 2);
	if (size)
		memcpy(whole, data, size);
	const char *user = whole, *written = whole + strlen(whole) + 1;
	if (written > whole + size)
		written = "";

	envfile_parse(user, NULL, NULL, no_line, &parsed);
	for (size_t i = 0; i < parsed.count; i++) {
		check_value(parsed.items[i].key, parsed.items[i].value);
		if (i % 2)
			keyvals_set(&generated, parsed.items[i].key, "generated");
	}
	/* keys with a dot are no names for a shell: an error, and nothing is written */
	if (render(user, &generated, &served, NULL, NULL)) {
		require(served.len == 0);
		return 0;
	}
	envfile_user_part(served.data, served.data, &own, &changed);
	require(!strcmp(buffer_str(&own), user) && !changed);

	/* what is written comes to rest: shown and saved again, it is what it was */
	cleanup_buffer struct buffer kept = BUFFER_INIT, again = BUFFER_INIT, shown = BUFFER_INIT;
	envfile_user_part(written, served.data, &kept, &changed);
	require(render(buffer_str(&kept), &generated, &shown, NULL, NULL) == 0);
	envfile_user_part(shown.data, shown.data, &again, &changed);
	require(!strcmp(buffer_str(&again), buffer_str(&kept)));
	return 0;
}
