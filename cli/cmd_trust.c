#include <stdint.h>

#include "cli/commands.h"
#include "cli/output.h"
#include "cli/trust.h"

static const struct option options[] = {
	{"show", 0, NULL, "show what could run code, and how it differs from what was approved; approve nothing"},
	{"revoke", 0, NULL, "forget all that was approved for this repository"},
	{NULL, 0, NULL, NULL},
};

static void print_fields(const json_t *fields)
{
	for (size_t i = 0; i < json_array_size(fields); i++) {
		const json_t *one = json_array_get(fields, i);
		output_line("  %s: %s", json_string_value(json_object_get(one, "field")), json_string_value(json_object_get(one, "value")));
	}
}

static int show(const struct client *c, struct error *err)
{
	json_t *trust = NULL;
	int r = trust_read(c, &trust, err);
	if (r)
		return r;
	const json_t *fields = json_object_get(trust, "fields");
	if (!json_array_size(fields)) {
		output_line("nothing here needs approval");
	} else if (json_is_true(json_object_get(trust, "approved"))) {
		output_line("approved:");
		print_fields(fields);
	} else {
		output_line("not approved, beside what was approved last:");
		trust_print_changes(json_object_get(trust, "changes"), output_line, SIZE_MAX);
	}
	output_document(trust);
	return 0;
}

static int approve(const struct client *c, struct error *err)
{
	json_t *changes = NULL;
	int r = trust_approve(c, &changes, err);
	if (r)
		return r;
	if (json_array_size(changes)) {
		output_line(c->id.kind == WORKSPACE_PLAIN ? "approved for %s:" : "approved for all workspaces of %s:", c->id.repository);
		trust_print_changes(changes, output_line, SIZE_MAX);
	} else {
		output_line("nothing here needs approval that has not got it");
	}
	output_document(json_pack("{s:s, s:b, s:o}", "repository", c->id.repository, "approved", true, "changes", changes));
	return 0;
}

static int revoke(const struct client *c, struct error *err)
{
	int r = trust_withdraw(c, err);
	if (r)
		return r;
	output_line("nothing is approved any more for %s; what runs goes on", c->id.repository);
	output_document(json_pack("{s:s, s:b}", "repository", c->id.repository, "approved", false));
	return 0;
}

static int run(const struct arguments *args, struct error *err)
{
	cleanup_client struct client c = CLIENT_INIT;
	if (arguments_flag(args, "show") && arguments_flag(args, "revoke"))
		return error_set(err, ERROR_USAGE, "ajj trust takes --show or --revoke, not both");
	int r = client_find(NULL, &c, err);
	if (r)
		return r;
	return arguments_flag(args, "show") ? show(&c, err) : arguments_flag(args, "revoke") ? revoke(&c, err) : approve(&c, err);
}

const struct command command_trust = {
	.name = "trust",
	.arguments = "",
	.summary = "approve what the configuration could run, for all workspaces of the repository",
	.help = "Commands, builds, mounted scripts with what is in them, images that no recipe knows and the like: a read that meets "
	        "some that nobody approved is refused with EACCES. attach, up and workspace add approve, too, and say what was new. Secrets "
	        "are not shown.",
	.options = options,
	.run = run,
};
