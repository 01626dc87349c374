#include "base/cleanup.h"
#include "base/strv.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/reports.h"

struct ports {
	char **cells;
	json_t *documents;
};

static void add(struct ports *p, const char *name, json_t *internal, const char *host, json_t *external)
{
	strv_pushf(&p->cells, "%s", name);
	if (internal)
		strv_pushf(&p->cells, "%lld", (long long)json_integer_value(internal));
	else
		strv_pushf(&p->cells, "-");
	strv_pushf(&p->cells, "%s", host);
	strv_pushf(&p->cells, "%lld", (long long)json_integer_value(external));
	json_array_append_new(p->documents, json_pack("{s:s, s:O?, s:s, s:O}", "service", name, "internal_port", internal,
	                                              "host", host, "external_port", external));
}

static void add_all(struct ports *p, const json_t *status)
{
	json_t *service, *port;
	const char *name;
	size_t i;
	json_object_foreach(json_object_get(status, "services"), name, service)
	    json_array_foreach(json_object_get(service, "ports"), i, port) if (json_object_get(port, "external")) add(
	        p, name, json_object_get(port, "internal"), report_string(port, "host"), json_object_get(port, "external"));
	json_object_foreach(json_object_get(status, "app_ports"), name, port) add(p, name, NULL, "127.0.0.1", port);
}

static int run(const struct arguments *args, struct error *err)
{
	cleanup_client struct client c = CLIENT_INIT;
	json_t *status = NULL;
	int r = client_find_mounted(&c, err);
	if (!r)
		r = client_status(&c, &status, err);
	if (r)
		return r;
	struct ports ports = {NULL, json_array()};
	add_all(&ports, status);
	output_table((const char *const *)ports.cells, 4, (unsigned)strv_len(ports.cells) / 4);
	output_document(json_pack("{s:o}", "ports", ports.documents));
	strv_free(ports.cells);
	json_decref(status);
	return 0;
}

const struct command command_ports = {
	.name = "ports",
	.arguments = "",
	.summary = "the leased ports: service, its own port, host, port to connect to",
	.help = "Starts nothing; .aether/ports, in the same form, starts the services when it is read. A name with - "
	        "for its own port is a variable of x-aether.ports.",
	.run = run,
};
