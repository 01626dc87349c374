#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/buffer.h"
#include "cli/commands.h"
#include "cli/client.h"
#include "cli/explain.h"
#include "cli/output.h"
#include "cli/progress.h"

static const struct option options[] = {
	{"format", 'f', "FORMAT", "sh (default), docker, json or nul"},
	{"container", 0, NULL, "as a container in the environment's network has them: services by their names, on their own ports"},
	{"explain", 0, NULL, "where each comes from, and what was rewritten or overridden; secrets are masked"},
	{NULL, 0, NULL, NULL},
};

static bool is_shell_name(const char *key)
{
	static const char name[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789";
	return *key && !(*key >= '0' && *key <= '9') && !key[strspn(key, name)];
}

/* For eval in a POSIX shell: 'it'\''s' */
static int write_sh(const char *key, const char *value, struct buffer *out, struct error *err)
{
	if (!is_shell_name(key)) {
		output_note("Note: %s is left out: no shell can export that name (`ajj run` sets it)", key);
		return 0;
	}
	buffer_printf(out, "export %s='", key);
	for (const char *p = value; *p; p++)
		if (*p == '\'')
			buffer_adds(out, "'\\''");
		else
			buffer_addc(out, *p);
	buffer_adds(out, "'\n");
	return 0;
}

/* docker run --env-file: everything after = is the value, to the end of the line. */
static int write_docker(const char *key, const char *value, struct buffer *out, struct error *err)
{
	if (strpbrk(value, "\r\n")) {
		error_set(err, ERROR_CONFIG_INVALID, "%s holds a line break, which the docker format cannot carry", key);
		return error_hint(err, "ajj env --format json");
	}
	buffer_printf(out, "%s=%s\n", key, value);
	return 0;
}

static int write_nul(const char *key, const char *value, struct buffer *out, struct error *err)
{
	buffer_printf(out, "%s=%s", key, value);
	buffer_addc(out, '\0');
	return 0;
}

static const struct {
	const char *name;
	int (*write)(const char *key, const char *value, struct buffer *out,
	             struct error *err); /* NULL: the object itself */
} formats[] = {{"sh", write_sh}, {"docker", write_docker}, {"nul", write_nul}, {"json", NULL}};

static int find_format(const char *name, size_t *ret, struct error *err)
{
	for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
		if (!strcmp(formats[i].name, name)) {
			*ret = i;
			return 0;
		}
	error_set(err, ERROR_USAGE, "there is no format %s", name);
	return error_hint(err, "sh, docker, json or nul");
}

static int demand(const struct client *c, const char *file, json_t **ret, struct error *err)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	json_error_t bad;
	int r = client_need_mounted(c, err);
	if (r)
		return r;
	struct progress *progress = progress_start(c, "starting");
	r = client_read(c, file, &text, err);
	progress_stop(progress);
	if (r)
		return r;
	*ret = json_loads(buffer_str(&text), 0, &bad);
	return *ret ? 0 : error_set(err, ERROR_INTERNAL, "%s: %s", file, bad.text);
}

static int explain(const struct client *c, const json_t *env, struct error *err)
{
	json_t *status = NULL;
	int r = client_status(c, &status, err);
	if (!r)
		explain_variables(env, status);
	json_decref(status);
	return r;
}

static int run(const struct arguments *args, struct error *err)
{
	cleanup_client struct client c = CLIENT_INIT;
	cleanup_buffer struct buffer out = BUFFER_INIT;
	size_t format = 0;
	json_t *env = NULL, *value;
	const char *key;
	if (arguments_value(args, "format") && find_format(arguments_value(args, "format"), &format, err))
		return -EINVAL;
	if (output_is_json() || !formats[format].write)
		output_set_json(true);
	int r = client_find(NULL, &c, err);
	if (!r)
		r = demand(&c, arguments_flag(args, "container") ? "env.container.json" : "env.json", &env, err);
	if (!r && arguments_flag(args, "explain")) {
		r = explain(&c, env, err);
		json_decref(env);
		return r;
	}
	if (r || output_is_json()) {
		if (!r)
			output_document(env);
		return r;
	}
	json_object_foreach(env, key, value) if (!r) r = formats[format].write(key, json_string_value(value), &out, err);
	if (!r)
		fwrite(buffer_str(&out), 1, out.len, stdout);
	json_decref(env);
	return r;
}

const struct command command_env = {
	.name = "env",
	.arguments = "",
	.summary = "print the environment's variables, starting the services first",
	.help = "Formats: sh for eval \"$(ajj env)\", without names that no shell can export; docker for docker run --env-file; json; nul: KEY=value ended by "
	        "NUL bytes. The values are expanded, as `ajj run` sets them. --explain is for people (and with --json for programs): "
	        "where each comes from, what was rewritten or overridden, and no secrets.",
	.options = options,
	.run = run,
};
