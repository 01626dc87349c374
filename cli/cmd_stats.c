#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/reports.h"
#include "cli/usage.h"

#define SAMPLE_MS 500
#define SERVICES_MAX 1000

struct row {
	const char *name, *state; /* borrowed of the status */
};

static json_t *row_json(const struct row *row, pid_t pid, const struct usage *u, double cpus)
{
	if (!u->processes)
		return json_pack("{s:s}", "state", row->state);
	return json_pack("{s:s, s:i, s:I, s:f, s:i}", "state", row->state, "pid", (int)pid, "memory_bytes", (json_int_t)u->memory_bytes, "cpus", cpus, "processes",
	                 (int)u->processes);
}

static void print_row(const struct row *row, const struct usage *u, double cpus)
{
	if (u->processes)
		output_line("%-16s %-10s %8.1f MiB %7.2f cpus %4u processes", row->name, row->state, (double)u->memory_bytes / (1 << 20), cpus, u->processes);
	else
		output_line("%-16s %-10s", row->name, row->state);
}

/* Two looks, and what the time between them says. */
static void sample(const struct row *rows, const pid_t *pids, size_t n)
{
	struct usage *before = xcalloc(n + 1, sizeof *before), *after = xcalloc(n + 1, sizeof *after);
	uint64_t begun = now_monotonic_ms();
	usage_look(pids, n, before);
	nanosleep(&(struct timespec){0, SAMPLE_MS * 1000000L}, NULL);
	usage_look(pids, n, after);
	double seconds = (double)(now_monotonic_ms() - begun) / 1000;
	json_t *services = json_object();
	for (size_t i = 0; i < n; i++) {
		bool same = before[i].processes && after[i].cpu_ticks >= before[i].cpu_ticks;
		double cpus = same ? (double)(after[i].cpu_ticks - before[i].cpu_ticks) / (double)sysconf(_SC_CLK_TCK) / seconds : 0;
		if (!output_is_json())
			print_row(&rows[i], &after[i], cpus);
		json_object_set_new(services, rows[i].name, row_json(&rows[i], pids[i], &after[i], cpus));
	}
	output_document(json_pack("{s:o}", "services", services));
	free(before);
	free(after);
}

static int run(const struct arguments *args, struct error *err)
{
	cleanup_client struct client c = CLIENT_INIT;
	json_t *status = NULL, *service;
	const char *name;
	struct row rows[SERVICES_MAX];
	pid_t pids[SERVICES_MAX];
	size_t n = 0;
	int r = client_find_mounted(&c, err);
	if (!r)
		r = client_status(&c, &status, err);
	if (r)
		return r;
	json_object_foreach (json_object_get(status, "services"), name, service) {
		if (n == SERVICES_MAX)
			break;
		rows[n] = (struct row){name, report_string(service, "state")};
		pids[n++] = (pid_t)json_integer_value(json_object_get(service, "pid"));
	}
	sample(rows, pids, n);
	json_decref(status);
	return 0;
}

const struct command command_stats = {
	.name = "stats",
	.arguments = "",
	.summary = "memory and processor time of the services",
	.help = "Of all processes of a service, as /proc shows them; memory that they share counts for each. Nothing of services in another machine's engine.",
	.run = run,
};
