/* The texts of an environment's files, as functions of what is known. No I/O, no clock; loop thread. Secrets are masked
 * in all but the env texts.
 */
#ifndef PROVISIONER_STATUS_H
#define PROVISIONER_STATUS_H

#include <jansson.h>

#include "base/buffer.h"
#include "provisioner/apply.h"
#include "provisioner/identity.h"
#include "provisioner/model.h"

struct status_view {
	const struct identity *id;
	const char *state;
	const char *backend, *backend_reason; /* NULL: not decided */
	uint32_t generation;
	const struct model *model; /* NULL: none (yet) */
	const struct apply *apply;
	bool unseen; /* what runs has not been looked at yet, and something should run */
	const struct envset *env;
	bool config_changed;
	const struct error *failure; /* of the environment as a whole; NULL: none */
	char *const *warnings;       /* beside the model's; NULL: none */
	json_t *leases;              /* borrowed array; NULL: none */
	json_t *requested_by;        /* borrowed array; NULL: none */
	pid_t keeper_pid, server_pid;
	unsigned server_restarts;
};

void status_json(const struct status_view *view, struct buffer *out);
/* {state, pid, ports, ...} of one service; new. `unseen` as above: nobody is told that a service is absent before somebody has looked. */
json_t *status_service(const struct model *m, const struct apply_service *s, bool unseen);
enum service_state status_state(const struct apply_service *s, bool unseen);
/* {service: {internal_port, external_port, host, connection_string}}; new */
json_t *status_resources(const struct model *m);

/* `service internal host external` a line; x-aether.ports by the variable's name. */
void status_ports(const struct model *m, struct buffer *out);

/* The variables as one JSON object, expanded. */
void status_env_json(const struct envset *env, struct buffer *out);
/* KEY=value to the end of the line, nothing quoted. A value with a line break has no such form: a comment names the variable. */
void status_env_list(const struct envset *env, struct buffer *out);

/* The variables of one service: NAME_URL, NAME_HOST, NAME_PORT and its recipe's. */
int status_service_env(const struct model_service *s, struct buffer *out, struct error *err);

#endif
