#include <string.h>

#include "base/buffer.h"
#include "cli/commands.h"
#include "cli/mounting.h"
#include "cli/output.h"
#include "cli/process.h"
#include "cli/progress.h"
#include "cli/reports.h"

static const struct option options[] = {
	{"all", 0, NULL, "also the services that have build:"},
	{"profile", 0, "NAMES", "also the services of these profiles, separated by commas"},
	{NULL, 0, NULL, NULL},
};

/* ctl splits its line as a shell does */
static void add_word(struct buffer *line, const char *prefix, const char *word, size_t len)
{
	buffer_printf(line, " '%s", prefix);
	for (const char *p = word; p < word + len; p++)
		if (*p == '\'')
			buffer_adds(line, "'\\''");
		else
			buffer_addc(line, *p == '\n' ? ' ' : *p);
	buffer_addc(line, '\'');
}

static void write_line(const struct arguments *args, struct buffer *line)
{
	buffer_adds(line, arguments_flag(args, "all") ? "up --all" : "up");
	for (const char *p = arguments_value(args, "profile"); p && *p;) {
		size_t n = strcspn(p, ",");
		if (n)
			add_word(line, "--profile=", p, n);
		p += n + (p[n] == ',');
	}
	for (char **w = args->words; w && *w; w++)
		add_word(line, "", *w, strlen(*w));
}

static int up(const struct client *c, const struct arguments *args, struct error *err)
{
	cleanup_buffer struct buffer line = BUFFER_INIT;
	cleanup_progress struct progress *progress = progress_start(c, "starting");
	write_line(args, &line);
	int r = mounting_approve(c, err);
	return r ? r : client_command(c, line.data, err);
}

static int run(const struct arguments *args, struct error *err)
{
	cleanup_client struct client c = CLIENT_INIT;
	int r = client_find(NULL, &c, err);
	if (!r)
		r = mounting_attach(&c, NULL, NULL, err);
	if (!r)
		r = up(&c, args, err);
	if (r)
		return r;
	json_t *status = report_status(&c);
	if (!output_is_json())
		report_print(status);
	output_document(status);
	client_note_beneath(&c);
	return 0;
}

const struct command command_up = {
	.name = "up",
	.arguments = "[SERVICE...]",
	.summary = "start the services and wait until they are ready; apply a changed configuration",
	.help = "Mounts first where need be. Without SERVICE: those that a read of .env would start. Approves the "
	        "configuration that stands there now.",
	.options = options,
	.words_max = COMMAND_WORDS_ANY,
	.run = run,
};
