#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/strv.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/compose_files.h"
#include "cli/configuration.h"
#include "cli/exclude.h"
#include "cli/output.h"
#include "provisioner/config.h"

#define NAMES_SHOWN 12         /* of keys and services in one comment */

struct found {
	char *root;          /* where it is written */
	char **files;        /* compose files */
	const char *chosen;  /* one below the root that must be named to be read; NULL: none, or one is found by itself */
	struct keyvals env;  /* the user's own .env */
	struct config *config; /* of what is found by itself, or of `chosen`; NULL: there is none, or it is broken */
};

/* ---- what is there ---- */

/* borrowed; the parts of a file are laid over another, so one that has none in its name comes first */
static const char *choose(char *const *files)
{
	for (char *const *f = files; f && *f; f++)
		if (compose_file_is_default(*f))
			return NULL;
	for (char *const *f = files; f && *f; f++) {
		const char *slash = strrchr(*f, '/');
		if (compose_file_is_default(slash ? slash + 1 : *f))
			return *f;
	}
	return files ? files[0] : NULL;
}

/* new; of the directory that the file is in, where it is found by its name. NULL: broken, or its name is another */
static struct config *load(const char *root, const char *file, const struct keyvals *variables)
{
	const char *slash = file ? strrchr(file, '/') : NULL;
	if (file && !compose_file_is_default(slash ? slash + 1 : file))
		return NULL;
	cleanup_free char *directory = slash ? xasprintf("%s/%.*s", root, (int)(slash - file), file) : xstrdup(root);
	cleanup_close int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_keyvals struct keyvals others = KEYVALS_INIT;
	keyvals_copy(&others, variables);
	keyvals_unset(&others, "COMPOSE_FILE"); /* it is this file that is asked about */
	struct config_params params = {.root_fd = fd, .root = directory, .variables = &others};
	struct config *config = NULL;
	return fd < 0 || config_load(&params, &config, NULL) ? NULL : config;
}

static void look(struct found *f)
{
	f->files = compose_files_find(f->root);
	f->chosen = choose(f->files);
	configuration_read_env(f->root, &f->env);
	if (f->files)
		f->config = load(f->root, f->chosen, &f->env);
}

static void found_release(struct found *f)
{
	free(f->root);
	strv_free(f->files);
	keyvals_release(&f->env);
	config_free(f->config);
}

/* ---- the text ---- */

static void add_services(const struct config *c, struct buffer *out)
{
	size_t n = c ? c->n_services : 0;
	for (size_t i = 0; i < n && i < NAMES_SHOWN; i++)
		buffer_printf(out, "%s%s", i ? ", " : "", c->services[i].name);
	if (n > NAMES_SHOWN)
		buffer_printf(out, ", and %zu more", n - NAMES_SHOWN);
}

static void write_compose(const struct found *f, struct buffer *out)
{
	buffer_adds(out, "  # The compose files to begin with, relative to this directory; each lies on top of the one before.\n"
	                 "  # One in this directory is found by itself. What there is:\n");
	for (char **file = f->files; file && *file; file++) {
		struct config *c = load(f->root, *file, &f->env);
		buffer_printf(out, "  #   %s%s", *file, c ? ": " : "");
		add_services(c, out);
		buffer_addc(out, '\n');
		config_free(c);
	}
	if (!f->files)
		buffer_adds(out, "  #   none\n");
	buffer_printf(out, "  %scompose: [\"%s\"]\n\n", f->chosen ? "" : "# ", f->chosen ? f->chosen : f->files ? f->files[0] : "infra/compose.yaml");
}

static void write_services(const struct found *f, struct buffer *out)
{
	buffer_adds(out, "  # What a read of .env starts. Without this line: every service without `build:`, and what they need.\n"
	                 "  # services: [");
	bool any = false;
	for (size_t i = 0; f->config && i < f->config->n_services; i++)
		if (!f->config->services[i].has_build) {
			buffer_printf(out, "%s%s", any ? ", " : "", f->config->services[i].name);
			any = true;
		}
	buffer_adds(out, any ? "]\n\n" : "db]\n\n");
}

/* PORT=3000 is what the application itself listens on, unless a service of the file has that port. */
static const char *application_port(const struct found *f, const char **ret_key)
{
	for (size_t i = 0; i < f->env.count; i++) {
		const char *key = f->env.items[i].key, *value = f->env.items[i].value;
		size_t n = value ? strspn(value, "0123456789") : 0;
		if (!strcmp(key, "PORT") && n && n < 6 && !value[n]) {
			*ret_key = key;
			return value;
		}
	}
	*ret_key = "PORT";
	return "3000";
}

static void write_ports(const struct found *f, struct buffer *out)
{
	const char *key, *value = application_port(f, &key);
	buffer_printf(out,
	              "  # Ports for the application itself: each workspace gets one of its own, in this variable; the number is\n"
	              "  # what the main checkout gets when it is free.\n"
	              "  # ports: { %s: %s }\n\n",
	              key, value);
}

static void write_env(const struct found *f, struct buffer *out)
{
	buffer_adds(out, "  # Variables that .env gets beside your own, which a service's own are available for.\n"
	                 "  # env: { API_URL: \"http://127.0.0.1:{{ports.PORT}}\" }\n\n");
	buffer_printf(out, "  # Your own .env here has %zu key%s", f->env.count, f->env.count == 1 ? "" : "s");
	for (size_t i = 0; i < f->env.count && i < NAMES_SHOWN; i++)
		buffer_printf(out, "%s%s", i ? ", " : ": ", f->env.items[i].key);
	buffer_printf(out, "%s.\n", f->env.count > NAMES_SHOWN ? ", ..." : "");
	buffer_adds(out, "  # They are in every workspace's .env; `off`: they are not.\n"
	                 "  # inherit: on\n"
	                 "  # Values that name a service of the compose file get its host and port in that workspace; `off`: they stay.\n"
	                 "  # rewrite: on\n");
}

static void write_text(const struct found *f, struct buffer *out)
{
	buffer_adds(out, "# What is yours alone in this repository. It lies on top of the team's compose file, by Compose's merge rules, in\n"
	                 "# all workspaces, and is kept out of git and jj. A line that is commented out is the default, or an example:\n"
	                 "# take the `# ` away to make it count. `ajj up` applies a change, `ajj status` shows what came of it.\n\n");
	/* a key without a value would be no block at all */
	buffer_adds(out, f->chosen ? "x-aether:\n" : "# x-aether:\n");
	write_compose(f, out);
	buffer_adds(out, "  # Where services run: auto is decided once for each workspace, process are the host's own packages.\n"
	                 "  # backend: auto\n\n"
	                 "  # on-demand: a read of .env starts them; manual: only `ajj up` does.\n"
	                 "  # start: on-demand\n\n"
	                 "  # How long a read of .env waits for them.\n"
	                 "  # timeout: 120s\n\n");
	write_services(f, out);
	write_ports(f, out);
	write_env(f, out);
	buffer_adds(out, "\n# Any field of a service can be changed here, or a service added.\n"
	                 "# services:\n");
	buffer_printf(out, "#   %s:\n", f->config && f->config->n_services ? f->config->services[0].name : "db");
	buffer_adds(out, "#     environment: { EXAMPLE: value }\n");
}

/* ---- the whole ---- */

/* Never over one that is there. */
static int write_file(const char *path, const struct buffer *text, struct error *err)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0 && errno == EEXIST) {
		error_set(err, ERROR_WORKSPACE_EXISTS, "%s is there already", path);
		error_hint(err, "edit it; or move it away, then: ajj init");
		return -error_code_errno(ERROR_WORKSPACE_EXISTS);
	}
	if (fd < 0)
		return error_set_errno(err, ERROR_PERMISSION, errno, "%s", path);
	int r = write_all(fd, text->data, text->len);
	if (r) {
		unlink(path);
		return error_set_errno(err, r == -ENOSPC ? ERROR_NO_SPACE : ERROR_INTERNAL, -r, "%s", path);
	}
	return 0;
}

static void answer(const struct found *f, const char *path)
{
	cleanup_buffer struct buffer services = BUFFER_INIT;
	json_t *files = json_array(), *keys = json_array(), *names = json_array();
	add_services(f->config, &services);
	output_line("Wrote %s%s%s%s%s", path, f->files ? " (" : " (no compose file found)", f->files ? f->chosen ? f->chosen : f->files[0] : "",
	            services.len ? ": " : "", buffer_str(&services));
	for (char **file = f->files; file && *file; file++)
		json_array_append_new(files, json_string(*file));
	for (size_t i = 0; i < f->env.count; i++)
		json_array_append_new(keys, json_string(f->env.items[i].key));
	for (size_t i = 0; f->config && i < f->config->n_services; i++)
		json_array_append_new(names, json_string(f->config->services[i].name));
	output_document(json_pack("{s:s, s:o, s:o, s:o}", "path", path, "compose_files", files, "services", names, "env_keys", keys));
}

static int init(const struct identity *id, struct error *err)
{
	cleanup_error struct error why = ERROR_INIT;
	cleanup_buffer struct buffer text = BUFFER_INIT;
	struct found f = {.root = xstrdup(id->main_root ? id->main_root : id->root)};
	cleanup_free char *path = xasprintf("%s/" LOCAL_FILE, f.root);
	look(&f);
	write_text(&f, &text);
	/* first: jj takes up any file that it sees */
	int excluded = exclude_add(id, "/" LOCAL_FILE, &why);
	int r = write_file(path, &text, err);
	if (!r && excluded)
		output_note("Warning: %s is not kept out of the VCS: %s", path, why.message);
	if (!r)
		answer(&f, path);
	found_release(&f);
	return r;
}

static int run(const struct arguments *args, struct error *err)
{
	(void)args;
	cleanup_client struct client c = CLIENT_INIT;
	int r = client_find(NULL, &c, err);
	return r ? r : init(&c.id, err);
}

const struct command command_init = {
	.name = "init",
	.arguments = "",
	.summary = "write aether.local.yaml, what is yours alone, from what is found here",
	.help = "Into the main checkout: compose files also in subdirectories, their services, the keys of .env, each line "
	        "explained. What is the default is commented out. Never over one that is there. It is kept out of git and "
	        "jj by info/exclude of the repository.",
	.run = run,
};
