#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/configuration.h"
#include "cli/output.h"
#include "provisioner/beside_compose.h"
#include "provisioner/config.h"
#include "provisioner/config_effective.h"
#include "provisioner/yaml_text.h"

static const struct option options[] = {
	{"format", 0, "yaml|json", "yaml when it is not given"},
	{"effective", 0, NULL, "with this workspace's ports, volumes and names instead of those that are written"},
	{"profile", 0, "NAMES", "with the services of these profiles, separated by commas, instead of COMPOSE_PROFILES; * for all"},
	{NULL, 0, NULL, NULL},
};

static int make_effective(const struct client *c, const struct config *config, json_t *shape, struct error *err)
{
	json_t *status = NULL;
	int r = client_need_mounted(c, err);
	if (!r)
		r = client_status(c, &status, err);
	if (!r) {
		cleanup_free char *data = xasprintf("%s/data/%lld", c->id.state_dir, (long long)json_integer_value(json_object_get(status, "generation")));
		config_effective(shape, c->id.namespace_, c->id.workspace, config->is_main, json_object_get(status, "services"));
		beside_compose_network(shape, config, c->id.state_dir);
		beside_compose_volumes(shape, data);
	}
	json_decref(status);
	return r;
}

static void print(json_t *shape, bool as_json)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_free char *dumped = as_json ? json_dumps(shape, JSON_INDENT(2) | JSON_REAL_PRECISION(7)) : NULL;
	if (!as_json)
		yaml_text(shape, &text);
	if (as_json)
		output_line("%s", dumped);
	else
		output_line("%.*s", (int)text.len - 1, buffer_str(&text)); /* it ends in a newline */
}

static int run(const struct arguments *args, struct error *err)
{
	cleanup_client struct client c = CLIENT_INIT;
	struct config *config = NULL;
	json_t *shape = NULL;
	const char *format = arguments_value(args, "format");
	if (format && strcmp(format, "json") && strcmp(format, "yaml"))
		return error_set(err, ERROR_USAGE, "expected --format=yaml or --format=json, got %s", format);
	const char *profiles = arguments_value(args, "profile") ? arguments_value(args, "profile") : getenv("COMPOSE_PROFILES");
	int r = client_find(NULL, &c, err);
	if (!r)
		r = configuration_shape(&c.id, profiles, &config, &shape, err);
	if (!r && !arguments_flag(args, "effective"))
		r = config_check_dependencies(config, err);
	for (size_t i = 0; !r && i < config->n_warnings; i++)
		output_note("Warning: %s", config->warnings[i].text);
	if (!r && arguments_flag(args, "effective"))
		r = make_effective(&c, config, shape, err);
	if (!r) {
		print(shape, format && !strcmp(format, "json"));
		output_document(json_incref(shape));
	}
	json_decref(shape);
	config_free(config);
	return r;
}

const struct command command_compose_config = {
	.name = "compose-config",
	.arguments = "",
	.summary = "the configuration as docker compose config prints it, resolved",
	.help = "All files laid on each other, extends and include followed, short forms written out, variables and env_files resolved, "
	        "paths absolute: as the files are written, or with --effective as it runs here. Starts nothing.",
	.options = options,
	.run = run,
};
