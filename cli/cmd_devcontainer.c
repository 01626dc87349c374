#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "provisioner/attachment.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/reports.h"

static const struct option options[] = {
	{"docker", 0, NULL, "the same as arguments of docker run, one a line"},
	{"vcs", 0, NULL, "with the main checkout's .jj and .git, writable, so that jj and git work there"},
	{"sandbox", 0, NULL, ".aether is read-only: nothing inside gives commands, or approves what would run outside"},
	{NULL, 0, NULL, NULL},
};

/* A field of the comma-separated list that --mount takes (encoding/csv of Go). */
static void add_field(struct buffer *out, const char *name, const char *value)
{
	bool quoted = strpbrk(value, ",\"");
	buffer_printf(out, ",%s%s=", quoted ? "\"" : "", name);
	for (; *value; value++)
		buffer_printf(out, "%s%c", *value == '"' ? "\"" : "", *value);
	buffer_adds(out, quoted ? "\"" : "");
}

/* new: the directory at the same path in the container */
static char *bind(const char *path, bool read_only)
{
	struct buffer out = BUFFER_INIT;
	buffer_adds(&out, "type=bind");
	add_field(&out, "source", path);
	add_field(&out, "target", path);
	buffer_adds(&out, read_only ? ",readonly" : "");
	return buffer_detach(&out);
}

static void add_mount(json_t *mounts, const char *path, bool read_only)
{
	cleanup_free char *text = bind(path, read_only);
	json_array_append_new(mounts, json_string(text));
}

/* What a workspace of jj's or a worktree of git's leads to. */
static void add_vcs(json_t *mounts, const struct identity *id)
{
	static const char *const names[] = {".jj", ".git"};
	for (size_t i = 0; id->main_root && strcmp(id->main_root, id->root) && i < sizeof names / sizeof *names; i++) {
		struct stat st;
		cleanup_free char *path = xasprintf("%s/%s", id->main_root, names[i]);
		if (!lstat(path, &st) && S_ISDIR(st.st_mode))
			add_mount(mounts, path, false);
	}
}

/* Where the services are containers, one among them; else the host's network is the only one that leads to them. */
static json_t *run_arguments(const struct client *c, const char *network)
{
	return json_pack("[o, o]", json_sprintf("--network=%s", *network ? network : "host"),
	                 json_sprintf("--env-file=%s/.aether/env.container.list", c->id.root));
}

static json_t *forwarded(const json_t *status)
{
	json_t *ports = json_array(), *port;
	const char *name;
	json_object_foreach (json_object_get(status, "app_ports"), name, port)
		json_array_append(ports, port);
	return ports;
}

/* Of the engine that the services are on, or that docker's own users would reach. */
static int check_view(const struct client *c, const char *backend, struct error *err)
{
	const char *engine = !strcmp(backend, "podman") ? backend : "docker";
	int r = attachment_is_seen(engine, c->id.root, err);
	return r < 0 || c->native == NATIVE_PLAIN ? r : attachment_is_seen(engine, c->control, err);
}

static json_t *document(const struct client *c, const json_t *status, bool vcs, bool sandbox)
{
	cleanup_free char *workspace = bind(c->id.root, false);
	json_t *mounts = json_array(), *ports = forwarded(status);
	if (c->native != NATIVE_PLAIN) /* there .aether is a directory of the workspace */
		add_mount(mounts, c->control, sandbox);
	if (vcs)
		add_vcs(mounts, &c->id);
	json_t *document = json_pack("{s:s, s:s, s:o, s:o}", "workspaceFolder", c->id.root, "workspaceMount", workspace, "mounts", mounts, "runArgs",
	                             run_arguments(c, report_string(status, "network")));
	if (json_array_size(ports))
		json_object_set(document, "forwardPorts", ports);
	json_decref(ports);
	return document;
}

static void print_arguments(const json_t *document)
{
	json_t *item;
	size_t i;
	json_array_foreach (json_object_get(document, "runArgs"), i, item)
		output_line("%s", json_string_value(item));
	output_line("--mount=%s", report_string(document, "workspaceMount"));
	json_array_foreach (json_object_get(document, "mounts"), i, item)
		output_line("--mount=%s", json_string_value(item));
	output_line("--workdir=%s", report_string(document, "workspaceFolder"));
}

static int run(const struct arguments *args, struct error *err)
{
	cleanup_client struct client c = CLIENT_INIT;
	json_t *status = NULL;
	int r = client_find_mounted(&c, err);
	if (!r)
		r = client_status(&c, &status, err);
	if (!r)
		r = check_view(&c, report_string(status, "backend"), err);
	if (!r) {
		json_t *what = document(&c, status, arguments_flag(args, "vcs"), arguments_flag(args, "sandbox"));
		cleanup_free char *text = json_dumps(what, JSON_INDENT(2));
		if (arguments_flag(args, "docker"))
			print_arguments(what);
		else
			output_line("%s", text);
		output_document(what);
	}
	json_decref(status);
	return r;
}

const struct command command_devcontainer = {
	.name = "devcontainer",
	.arguments = "",
	.summary = "what a container needs to be at home in this workspace, for devcontainer.json or docker run",
	.help = "Mounts of the workspace and of its .aether at the same paths, so that the links lead somewhere; the network on which the services are found by "
	        "their names; and .aether/env.container.list, which starts them when docker reads it. Starts nothing itself.",
	.options = options,
	.run = run,
};
