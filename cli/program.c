#include "cli/program.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "cli/exit_codes.h"
#include "cli/output.h"
#include "cli/registry.h"

void program_open_descriptors(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
			open("/dev/null", O_RDWR); /* the lowest that is free */
}

int program_env(const struct arguments *args, bool terminal, struct keyvals *env, struct error *err)
{
	if (terminal && getenv("TERM"))
		keyvals_set(env, "TERM", getenv("TERM"));
	const char *text;
	for (size_t i = 0; (text = arguments_value_at(args, "env", i)); i++) {
		const char *equals = strchr(text, '=');
		cleanup_free char *key = equals ? xstrndup(text, (size_t)(equals - text)) : xstrdup(text);
		const char *value = equals ? equals + 1 : getenv(key);
		if (!*key)
			return error_set(err, ERROR_USAGE, "--env %s names no variable", text);
		if (value)
			keyvals_set(env, key, value);
	}
	return 0;
}

int program_attach(const struct client *c, struct attachment_spec *spec, struct attachment **ret, struct error *err)
{
	struct store_environment e = {0};
	json_t *status = NULL;
	const char *planned = spec->only_check && !client_status(c, &status, NULL) ? json_string_value(json_object_get(status, "backend")) : NULL;
	int r = registry_find_root(c->id.root, &e, err);
	if (r == 0) {
		error_set(err, ERROR_PERMISSION, "%s is another user's, or was never attached", c->id.root);
		r = error_hint(err, "ajj attach");
	}
	if (r > 0)
		r = environment_attach(&e, planned, spec, ret, err);
	json_decref(status);
	store_environment_release(&e);
	return r;
}

int program_failed(int r, const struct error *err)
{
	if (err->code != ERROR_PROGRAM_NOT_FOUND && err->code != ERROR_BACKEND_SPAWN_FAILED)
		return r;
	output_error(err);
	return err->code == ERROR_PROGRAM_NOT_FOUND ? EXIT_CODE_NO_COMMAND : EXIT_CODE_CANNOT_RUN;
}
