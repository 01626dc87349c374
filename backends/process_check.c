/* What a host process cannot honour is said before anything starts. */
#include <string.h>

#include "backends/process.h"
#include "base/alloc.h"
#include "base/cleanup.h"

struct check {
	const struct process_settings *settings;
	const struct service_spec *spec;
	backend_diagnostic *report;
	void *arg;
};

static void warn(const struct check *c, const char *field, const char *text, const char *hint)
{
	c->report(c->arg, DIAGNOSTIC_WARNING, c->spec->name, field, text, hint);
}

static void check_limits(const struct check *c)
{
	unsigned have = process_limits_available(c->settings);
	if (c->spec->memory_bytes && !(have & PROCESS_LIMIT_MEMORY))
		warn(c, "mem_limit", "there is no memory cgroup for us: each process is limited to that much data instead",
		     "run below a systemd user manager that delegates the memory controller");
	if (c->spec->pids > 0 && !(have & PROCESS_LIMIT_PIDS))
		warn(c, "pids_limit",
		     "there is no pids cgroup for us: the limit is set only where the service has a user namespace",
		     "run below a systemd user manager that delegates the pids controller");
	if (c->spec->cpus > 0 && !(have & PROCESS_LIMIT_CPU))
		warn(c, "cpus", "there is no cpu cgroup for us: the service is not limited",
		     "run below a systemd user manager that delegates the cpu controller");
}

static const char *path_or_empty(const char *path)
{
	return path ? path : "";
}

static bool is_script(const struct check *c, const struct volume_spec *v)
{
	for (size_t i = 0; i < c->spec->process->n_scripts; i++)
		if (!strcmp(c->spec->process->scripts[i].target, path_or_empty(v->target)))
			return true;
	return false;
}

/* A process sees the host's files. What holds the data is where the backend put it; nothing else is mounted. */
static void check_volume(const struct check *c, const struct volume_spec *v)
{
	const char *data = path_or_empty(c->spec->process->data_dir);
	if (v->kind == VOLUME_ANONYMOUS || is_script(c, v) || (*data && !strcmp(path_or_empty(v->source), data)))
		return;
	cleanup_free char *text =
	    xasprintf("a process of this host sees no %s: nothing is mounted there", path_or_empty(v->target));
	warn(c, "volumes", text, "use backend: docker, if the service needs it");
}

static void check_environment(const struct check *c)
{
	for (size_t i = 0; c->spec->process->env && i < c->spec->process->env->count; i++)
		if (strchr(c->spec->process->env->items[i].key, '='))
			warn(c, "environment", "a name with '=' in it cannot be passed on", "rename it");
}

void process_check(struct backend *b, const struct service_spec *spec, backend_diagnostic *report, void *arg)
{
	struct check c = {process_settings_of(b), spec, report, arg};
	if (!spec->process) {
		report(arg, DIAGNOSTIC_UNSUPPORTED, spec->name, "image",
		       "there is no recipe to run it as a process of this host",
		       "give it x-aether: {command: ...}, or use backend: docker");
		return;
	}
	check_limits(&c);
	check_environment(&c);
	for (size_t i = 0; i < spec->n_volumes; i++)
		check_volume(&c, &spec->volumes[i]);
}
