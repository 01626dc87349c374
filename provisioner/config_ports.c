/* [HOST_IP:][PUBLISHED:]TARGET[/PROTOCOL], each of both a number or a range; and the long form. Which address of the
 * host is meant is not kept: everything is bound to 127.0.0.1. */
#include <arpa/inet.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/config_private.h"

#define PORTS_MAX 1024 /* of one service */

struct port_list {
	struct config_port **ports;
	size_t *count;
};

struct range {
	unsigned from, to; /* 0: none */
};

static int parse_range(const char *text, struct range *ret)
{
	const char *dash = strchr(text, '-');
	uint16_t from, to;
	if (parse_port(text, dash ? (size_t)(dash - text) : strlen(text), &from) < 0)
		return -1;
	to = from;
	if (dash && parse_port(dash + 1, strlen(dash + 1), &to) < 0)
		return -1;
	*ret = (struct range){from, to};
	return to < from ? -1 : 0;
}

static int add_ports(const struct field *f, struct port_list list, struct range target, struct range published,
                     const char *protocol)
{
	unsigned n = target.to - target.from + 1;
	if (published.from && published.to - published.from + 1 != n && n != 1)
		return field_error(f, "the ranges of published ports and of the service's own differ in length");
	if (!strcmp(protocol, "sctp")) {
		field_warn(f, "a port of sctp is not published: peers reach it by the service's name");
		return 0;
	}
	if (strcmp(protocol, "tcp") && strcmp(protocol, "udp"))
		return field_error(f, "expected the protocol tcp or udp, got '%.20s'", protocol);
	if (*list.count + n > PORTS_MAX)
		return field_error(f, "more than %d ports", PORTS_MAX);
	for (unsigned i = 0; i < n; i++) {
		array_grow(*list.ports, *list.count);
		/* of a published range for one port any will do: the first */
		uint16_t number = published.from ? (uint16_t)(published.from + i) : 0;
		(*list.ports)[(*list.count)++] = (struct config_port){(uint16_t)(target.from + i), number, xstrdup(protocol)};
	}
	return 0;
}

#define SHORT_FORM "a port: 5432, \"15432:5432\" or \"127.0.0.1:15432:5432/tcp\""

/* "[::1]" and "::1"; "": any, as where a variable is not set */
static bool is_address(const char *text)
{
	size_t len = strlen(text);
	bool brackets = len > 2 && *text == '[' && text[len - 1] == ']';
	cleanup_free char *plain = xstrndup(text + brackets, len - 2 * brackets);
	unsigned char address[sizeof(struct in6_addr)];
	return !len || inet_pton(AF_INET, plain, address) == 1 || inet_pton(AF_INET6, plain, address) == 1;
}

static int add_short(const struct field *f, struct port_list list, bool publishes)
{
	const char *what = publishes ? SHORT_FORM : "a port: 5432 or \"5432/tcp\"";
	cleanup_free char *text = NULL;
	struct range target, published = {0, 0};
	const char *protocol = "tcp";
	if (f->node->type != YAML_SCALAR || (yaml_kind(f->node) != YAML_IS_TEXT && yaml_kind(f->node) != YAML_IS_INT))
		return field_expected(f, what);
	int r = field_text(f, &text);
	if (r < 0)
		return r;
	cleanup_free char *whole = xstrdup(text);
	char *slash = strrchr(text, '/');
	if (slash) {
		*slash = '\0';
		protocol = slash + 1;
	}
	char *colon = strrchr(text, ':');
	const char *address = NULL;
	bool ok = parse_range(colon ? colon + 1 : text, &target) == 0 && (publishes || !colon);
	if (ok && colon) {
		*colon = '\0';
		char *number = strrchr(text, ':'); /* behind the address; [::1] ends in a bracket */
		if (number) {
			*number = '\0';
			address = text;
		}
		number = number ? number + 1 : text;
		/* an unset ${VAR} leaves ":5432": no number is asked for */
		ok = !*number || parse_range(number, &published) == 0;
	}
	if (!ok)
		return field_error(f, "expected %s, got '%.60s'", what, whole);
	if (address && !is_address(address))
		return field_error(f, "invalid IP address: %.60s", address);
	return add_ports(f, list, target, published, protocol);
}

/* ---- the long form ---- */

struct long_form {
	int64_t target;
	char *published, *protocol;
};

static int read_target(const struct field *f, void *out)
{
	return field_int(f, 1, 65535, &((struct long_form *)out)->target);
}

static int read_published(const struct field *f, void *out)
{
	return field_text(f, &((struct long_form *)out)->published);
}

static int read_protocol(const struct field *f, void *out)
{
	return field_string(f, &((struct long_form *)out)->protocol);
}

static const struct field_reader long_fields[] = {
    {"target", read_target}, {"published", read_published}, {"protocol", read_protocol},    {"host_ip", field_ignore},
    {"mode", field_ignore},  {"name", field_ignore},        {"app_protocol", field_ignore}, {NULL, NULL},
};

static int add_long(const struct field *f, struct port_list list)
{
	struct long_form form = {0, NULL, NULL};
	struct range published = {0, 0};
	int r = field_read_map(f, long_fields, UNKNOWN_WARNS, SHORT_FORM, &form);
	if (r == 0 && !form.target)
		r = field_error(f, "expected target: the service's own port");
	if (r == 0 && form.published && *form.published && parse_range(form.published, &published) < 0)
		r = field_error(f, "expected published: a port or a range of ports, got '%.60s'", form.published);
	if (r == 0) {
		struct range target = {(unsigned)form.target, (unsigned)form.target};
		r = add_ports(f, list, target, published, form.protocol ? form.protocol : "tcp");
	}
	free(form.published);
	free(form.protocol);
	return r;
}

static int read_list(const struct field *f, struct port_list list, bool publishes)
{
	if (f->node->type != YAML_LIST)
		return field_expected(f, "a list of ports");
	int r = 0;
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field item = field_child(f, i);
		r = publishes && item.node->type == YAML_MAP ? add_long(&item, list) : add_short(&item, list, publishes);
	}
	return r;
}

int read_ports(const struct field *f, void *out)
{
	struct config_service *s = out;
	return read_list(f, (struct port_list){&s->ports, &s->n_ports}, true);
}

int read_expose(const struct field *f, void *out)
{
	struct config_service *s = out;
	return read_list(f, (struct port_list){&s->expose, &s->n_expose}, false);
}
