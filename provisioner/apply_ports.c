/* The ports of a service, looked at before it starts: a foreigner's is given up for another, unless its number is asked for. */
#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/apply_private.h"
#include "provisioner/port_owner.h"

/* Looked at before each start: a process that finds its port taken exits with a message of its own, which nobody can
 * understand for all programs. SO_REUSEADDR, as the services do: connections in TIME_WAIT are no hindrance. */
static bool is_taken(const struct port_binding *port)
{
	struct sockaddr_in address = {
	    .sin_family = AF_INET, .sin_port = htons(port->external), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	bool udp = !strcmp(port->protocol, "udp");
	int on = 1;
	cleanup_close int fd = socket(AF_INET, (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
	if (fd < 0 || !port->external)
		return false;
	if (!udp)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	return bind(fd, (const struct sockaddr *)&address, sizeof address) < 0 && errno == EADDRINUSE;
}

static bool is_published(const struct model_service *m, const struct port_binding *port)
{
	for (size_t i = 0; i < m->config->n_ports; i++)
		if (m->config->ports[i].published == port->external)
			return true;
	return false;
}

static void fail_strictly(struct apply_service *s, const struct port_binding *port)
{
	cleanup_error struct error err = ERROR_INIT;
	cleanup_free char *owner = port_owner(port->external);
	error_set(&err, ERROR_PORT_ALLOCATION_FAILED, "service %s: port %u is asked for: %s uses it", s->name, port->external,
	          owner ? owner : "another program");
	error_hint(&err, "end that and ask again, or leave out x-aether.host_ports: strict");
	service_fail(s, &err);
}

bool service_ports_are_free(struct apply_service *s)
{
	for (size_t i = 0; i < s->model->n_ports; i++) {
		const struct port_binding *port = &s->model->ports[i];
		if (!is_taken(port) || backend_rises(s->apply->backend, s->name)) /* that may be its own container, which a killed server has started */
			continue;
		cleanup_error struct error err = ERROR_INIT;
		if (s->model->strict_ports && is_published(s->model, port)) {
			fail_strictly(s, port);
			return false;
		}
		if (s->port_tries++ < APPLY_PORT_TRIES) {
			s->taken = true;
			s->apply->params.port_taken(s->apply->params.arg, s->name, port);
		} else {
			error_set(&err, ERROR_PORT_ALLOCATION_FAILED,
			          "service %s: port %u is taken by another program, and so were %u others", s->name, port->external,
			          APPLY_PORT_TRIES);
			error_hint(&err, "ss -ltnp 'sport = :%u' names who holds it", port->external);
			service_fail(s, &err);
		}
		return false;
	}
	return true;
}

void service_replace_port(struct apply_service *s, const char *message)
{
	for (size_t i = 0; s->model && message && i < s->model->n_ports; i++) {
		const struct port_binding *port = &s->model->ports[i];
		cleanup_free char *words = xasprintf(":%u", port->external);
		const char *at = strstr(message, words);
		if (!at || isdigit((unsigned char)at[strlen(words)]) || is_taken(port) || (s->model->strict_ports && is_published(s->model, port)))
			continue;
		s->taken = true;
		s->apply->params.port_taken(s->apply->params.arg, s->name, port);
		return;
	}
}

void apply_port_failed(struct apply_service *s, const struct error *err)
{
	s->taken = false;
	service_fail(s, err);
	apply_wake(s->apply);
}
