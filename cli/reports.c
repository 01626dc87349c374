#include "cli/reports.h"

#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/strv.h"
#include "cli/output.h"
#include "cli/registry.h"

const char *report_string(const json_t *object, const char *key)
{
	const char *s = json_string_value(json_object_get(object, key));
	return s ? s : "";
}

/* What unmounting keeps is `stopped`: data, ports. Where nothing is kept, or ever was, `absent`; where its keeper was killed and containers are there, `orphaned`. */
static json_t *unmounted(const struct client *c)
{
	cleanup_store struct store *store = NULL;
	struct store_environment e = {0};
	bool known = !registry_open(&store, NULL) && store && store_environment_get(store, c->id.namespace_, &e, NULL) == 1;
	bool kept = known && e.backend && e.desired && strcmp(e.desired, "absent");
	cleanup_strv char **orphans = known && !c->hung ? registry_orphans(&e) : NULL;
	const char *state = orphans ? "orphaned" : kept ? "stopped" : "absent";
	json_t *status = json_pack("{s:s, s:s?, s:s, s:{}, s:s, s:s}", "workspace_root", c->id.root, "backend",
	                           known ? e.backend : NULL, "state", state, "resources", "namespace", c->id.namespace_, "workspace", c->id.workspace);
	for (char **name = orphans; name && *name; name++) {
		json_t *names = json_object_get(status, "orphans");
		if (!names)
			json_object_set_new(status, "orphans", names = json_array());
		json_array_append_new(names, json_string(*name));
	}
	if (known)
		store_environment_release(&e);
	return status ? status : json_object(); /* a path that is no UTF-8 cannot be told in JSON */
}

json_t *report_status(const struct client *c)
{
	static const char *const modes[] = {[NATIVE_NONE] = "overlay", [NATIVE_LINKS] = "links", [NATIVE_PLAIN] = "plain"};
	json_t *status = NULL;
	if (!c->mounted || c->dead || c->hung || client_status(c, &status, NULL))
		status = unmounted(c);
	if (c->dead || c->hung)
		json_object_set_new(status, "state", json_string(c->dead ? "dead" : "hung"));
	json_object_set_new(status, "mounted", json_boolean(c->mounted));
	if (c->mounted)
		json_object_set_new(status, "mode", json_string(modes[c->native]));
	return status;
}

char *report_resources(const json_t *status)
{
	struct buffer out = BUFFER_INIT;
	json_t *resource;
	const char *name;
	json_object_foreach(json_object_get(status, "resources"), name, resource)
	    buffer_printf(&out, "%s%s %s:%lld", out.len ? ", " : "", name, report_string(resource, "host"),
	                  (long long)json_integer_value(json_object_get(resource, "external_port")));
	return buffer_detach(&out);
}

static void print_orphans(const json_t *status)
{
	cleanup_buffer struct buffer line = BUFFER_INIT;
	json_t *name;
	size_t i;
	json_array_foreach (json_object_get(status, "orphans"), i, name)
		buffer_printf(&line, " %s", json_string_value(name));
	if (i)
		output_line("  nobody serves it, but its containers are there:%s: ajj up takes them over, ajj down stops them", line.data);
}

static void print_services(const json_t *status)
{
	json_t *services = json_object_get(status, "services"), *service;
	json_t *resources = json_object_get(status, "resources");
	const char *name;
	json_object_foreach(services, name, service)
	{
		cleanup_buffer struct buffer line = BUFFER_INIT;
		json_t *resource = json_object_get(resources, name);
		json_t *pid = json_object_get(service, "pid");
		const char *state = report_string(service, "state"), *health = report_string(service, "health");
		buffer_printf(&line, "  %-16s %s", name, state);
		if (!strcmp(state, "ready") && *health && strcmp(health, "healthy"))
			buffer_printf(&line, " (%s)", health);
		if (resource)
			buffer_printf(&line, "  %s:%lld", report_string(resource, "host"),
			              (long long)json_integer_value(json_object_get(resource, "external_port")));
		if (json_integer_value(pid) > 0)
			buffer_printf(&line, "  pid %lld", (long long)json_integer_value(pid));
		output_line("%s", line.data);
	}
}

/* What went wrong, once, though a service and the environment both tell it. */
static void print_errors(const json_t *status)
{
	const char *failure = report_string(json_object_get(status, "error"), "message"), *name;
	json_t *service;
	if (*failure)
		output_line("Error: %s", failure);
	json_object_foreach(json_object_get(status, "services"), name, service) {
		const char *message = report_string(json_object_get(service, "error"), "message");
		if (*message && strcmp(message, failure) && strcmp(report_string(service, "state"), "unsupported"))
			output_line("Error: %s: %s", name, message);
	}
}

static void print_leases(const json_t *status)
{
	json_t *lease;
	size_t i;
	json_array_foreach(json_object_get(status, "leases"), i, lease)
	    output_line("  in use by %lld (%s)", (long long)json_integer_value(json_object_get(lease, "pid")),
	                report_string(lease, "command"));
}

static void print_warnings(const json_t *status)
{
	json_t *warning;
	size_t i;
	json_array_foreach(json_object_get(status, "warnings"), i, warning) output_line(
	    "Warning: %s", json_is_string(warning) ? json_string_value(warning) : report_string(warning, "text"));
}

void report_print(const json_t *status)
{
	bool mounted = json_is_true(json_object_get(status, "mounted"));
	const char *backend = report_string(status, "backend");
	output_line("%s: %s%s%s%s", report_string(status, "workspace_root"), report_string(status, "state"),
	            *backend ? " (" : "", backend, *backend ? ")" : "");
	if (!mounted || !strcmp(report_string(status, "state"), "dead")) {
		output_line(mounted ? "  mounted, but nobody serves it any more: ajj attach" : "  not mounted: ajj attach");
		print_orphans(status);
		return;
	}
	print_services(status);
	print_leases(status);
	print_warnings(status);
	print_errors(status);
}

bool report_is_up(const json_t *status)
{
	static const char *const up[] = {"starting", "ready", "degraded"};
	for (size_t i = 0; i < sizeof up / sizeof up[0]; i++)
		if (!strcmp(report_string(status, "state"), up[i]))
			return true;
	return false;
}

void report_warn_of_permissions(const json_t *status)
{
	const char *name, *hint = "";
	json_t *service;
	json_object_foreach(json_object_get(status, "services"), name, service) {
		const json_t *error = json_object_get(service, "error");
		if (strcmp(report_string(service, "state"), "unsupported") || strcmp(report_string(error, "code"), error_code_name(ERROR_PERMISSION)))
			continue;
		output_note("Warning: %s", report_string(error, "message"));
		hint = report_string(error, "hint");
	}
	if (*hint)
		output_note("Hint: %s", hint);
}

void report_tell(json_t *status)
{
	if (!output_is_json())
		report_print(status);
	output_document(status);
}
