/* What others have made in a container's place carries our labels, and the configuration's hash with them: whether it is what the configuration
 * says is seen in the container itself. */
#include <stdlib.h>
#include <string.h>

#include "backends/engine.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/strv.h"

/* Docker's and Podman's. They say of every container which one has made it; of ours there is none. */
bool engine_made_by_others(const json_t *labels)
{
	return engine_label(labels, COMPOSE_LABEL_VERSION) || engine_label(labels, "io.podman.compose.version");
}

/* "redis:7" is Podman's "docker.io/library/redis:7" */
static bool is_image(const char *asked, const char *has)
{
	size_t asked_len = strlen(asked), len = has ? strlen(has) : 0;
	if (!has || len < asked_len || strcmp(has + len - asked_len, asked))
		return false;
	return len == asked_len || has[len - asked_len - 1] == '/';
}

/* What it has beyond that is its image's. */
static bool has_all(const json_t *asked, const json_t *has)
{
	size_t i, k;
	const json_t *one, *other;
	json_array_foreach (asked, i, one) {
		bool found = false;
		json_array_foreach (has, k, other)
			found = found || json_equal(one, other);
		if (!found)
			return false;
	}
	return true;
}

static const char *published(const json_t *bindings, const char *port)
{
	const char *number = json_string_value(json_object_get(json_array_get(json_object_get(bindings, port), 0), "HostPort"));
	return number ? number : "";
}

static bool publishes_all(const json_t *asked, const json_t *has)
{
	const char *port;
	json_t *unused;
	json_object_foreach ((json_t *)(uintptr_t)asked, port, unused)
		if (strcmp(published(asked, port), published(has, port)))
			return false;
	return true;
}

static const char *restart_policy(const json_t *host)
{
	const char *name = json_string_value(json_object_get(json_object_get(host, "RestartPolicy"), "Name"));
	return name && *name ? name : "no";
}

/* docker compose gives a service's plain name to it on every network: on others' that may be another workspace's. */
static bool has_name_of_others(const struct engine_plan *p, const json_t *networks)
{
	const json_t *alias;
	size_t i;
	for (char **network = p->networks; network && *network; network++) {
		cleanup_free char *own = xasprintf("%s %s", *network, p->service);
		json_array_foreach (json_object_get(json_object_get(networks, *network), "Aliases"), i, alias)
			if (!strv_contains(p->network_names, own) && !strcmp(json_string_value(alias) ? json_string_value(alias) : "", p->service))
				return true;
	}
	return false;
}

static const json_t *networks_of(const json_t *container)
{
	return json_object_get(json_object_get(container, "NetworkSettings"), "Networks");
}

bool engine_made_differs(const struct engine_plan *p, const json_t *container)
{
	static const char *const own[] = {"Cmd", "Entrypoint", "WorkingDir", "User"}; /* where nothing is asked for, it is the image's */
	const json_t *config = json_object_get(container, "Config"), *host = json_object_get(container, "HostConfig");
	if (!engine_made_by_others(json_object_get(config, "Labels")))
		return false;
	for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
		const json_t *asked = json_object_get(p->create, own[i]);
		if (asked && !json_equal(asked, json_object_get(config, own[i])))
			return true;
	}
	if (strcmp(restart_policy(json_object_get(p->create, "HostConfig")), restart_policy(host)) != 0)
		return true;
	return !is_image(p->image ? p->image : "", json_string_value(json_object_get(config, "Image"))) ||
	       !has_all(json_object_get(p->create, "Env"), json_object_get(config, "Env")) ||
	       !publishes_all(json_object_get(json_object_get(p->create, "HostConfig"), "PortBindings"), json_object_get(host, "PortBindings")) ||
	       has_name_of_others(p, networks_of(container));
}

void engine_made_take(struct engine *e, const char *service, const json_t *container)
{
	struct engine_slot *slot = engine_slot(e, service);
	const json_t *config = json_object_get(container, "Config"), *host = json_object_get(container, "HostConfig");
	json_decref(slot->others);
	slot->others = NULL;
	if (engine_made_by_others(json_object_get(config, "Labels")))
		slot->others = json_pack("{s:O, s:{s:O?, s:O?}, s:{s:O?}}", "Config", config, "HostConfig", "PortBindings", json_object_get(host, "PortBindings"), "RestartPolicy",
		                         json_object_get(host, "RestartPolicy"), "NetworkSettings", "Networks", networks_of(container));
}

bool engine_differs(struct backend *b, const struct service_spec *spec)
{
	struct engine *e = (struct engine *)b;
	const struct engine_slot *slot = engine_slot(e, spec->name);
	if (!slot->others)
		return false;
	struct engine_plan *p = engine_plan_new(e, spec);
	bool differs = engine_made_differs(p, slot->others);
	engine_plan_free(p);
	return differs;
}
