#include "cli/surroundings.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "cli/configuration.h"
#include "cli/output.h"
#include "cli/reports.h"

#define ENVIRON_MAX (4u << 20)
#define SERVER_NAME "aetherfs-server\n" /* as /proc/PID/comm has it, 15 characters */

/* What the server was started with. false: it cannot be known here (another user's, or seen from a container with numbers of its own). */
static bool environment_in_use(const json_t *status, struct buffer *out)
{
	long long pid = json_integer_value(json_object_get(json_object_get(status, "aetherfs"), "server_pid"));
	cleanup_buffer struct buffer name = BUFFER_INIT;
	cleanup_free char *comm = xasprintf("/proc/%lld/comm", pid), *environment = xasprintf("/proc/%lld/environ", pid);
	return pid > 0 && !file_read(AT_FDCWD, comm, 64, &name) && !strcmp(buffer_str(&name), SERVER_NAME) && !file_read(AT_FDCWD, environment, ENVIRON_MAX, out);
}

/* borrowed; NULL: it has none of that name */
static const char *value_in(const struct buffer *environment, const char *name)
{
	size_t len = strlen(name);
	for (const char *at = environment->data, *end = at + environment->len; at && at < end; at += strlen(at) + 1)
		if (!strncmp(at, name, len) && at[len] == '=')
			return at + len + 1;
	return NULL;
}

/* A shell that has sourced `.env` has them from there. */
static bool is_made_here(const json_t *status, const char *name)
{
	const char *layer = report_string(json_object_get(status, "layers"), name);
	const json_t *rewrite;
	size_t i;
	json_array_foreach (json_object_get(status, "rewrites"), i, rewrite)
		if (!strcmp(report_string(rewrite, "key"), name))
			return true;
	return !strcmp(layer, "service") || !strcmp(layer, "configuration");
}

static bool differ(const char *a, const char *b)
{
	return !a != !b || (a && strcmp(a, b));
}

/* `lines` are read when the first is asked for: mostly none is. */
static bool is_other(const struct identity *id, const char *name, const struct buffer *environment, struct keyvals *lines)
{
	const char *mine = getenv(name), *used = value_in(environment, name);
	if (!differ(mine, used))
		return false;
	if (!lines->count)
		configuration_lines(id, lines);
	const char *line = keyvals_get(lines, name);
	return differ(mine ? mine : line, used ? used : line);
}

void surroundings_note(const struct client *c, const json_t *status)
{
	cleanup_buffer struct buffer environment = BUFFER_INIT, others = BUFFER_INIT;
	cleanup_keyvals struct keyvals lines = KEYVALS_INIT;
	json_t *variable;
	size_t i;
	bool known = environment_in_use(status, &environment);
	json_array_foreach (json_object_get(status, "variables"), i, variable) {
		const char *name = json_string_value(variable);
		if (known && name && is_other(&c->id, name, &environment, &lines) && !is_made_here(status, name))
			buffer_printf(&others, "%s%s%s", others.len ? ", " : "", name, getenv(name) ? "" : " (not set here)");
	}
	if (others.len)
		output_note("Warning: this shell's variables are not used: %s. The configuration sees those of the shell in which the workspace was attached, and "
		            "lines of .env where that has none; `ajj detach`, then `ajj up` takes these",
		            others.data);
}
