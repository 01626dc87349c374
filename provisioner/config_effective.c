#include "provisioner/config_effective.h"

#include <stdbool.h>
#include <string.h>

#include "backends/build.h"
#include "base/alloc.h"
#include "base/cleanup.h"

static void set_ports(json_t *service, const json_t *leased)
{
	size_t i;
	json_t *port, *ports = json_array();
	json_array_foreach(leased, i, port) {
		const char *protocol = json_string_value(json_object_get(port, "protocol"));
		json_int_t internal = json_integer_value(json_object_get(port, "internal")), external = json_integer_value(json_object_get(port, "external"));
		if (internal && external)
			json_array_append_new(ports, json_pack("{s:s, s:s, s:I, s:o, s:s}", "mode", "ingress", "host_ip", "127.0.0.1", "target", internal,
			                                       "published", json_sprintf("%lld", (long long)external), "protocol", protocol ? protocol : "tcp"));
	}
	if (json_array_size(ports))
		json_object_set(service, "ports", ports);
	else
		json_object_del(service, "ports");
	json_decref(ports);
}

static void add_alias(json_t *aliases, json_t *name)
{
	size_t i;
	json_t *old;
	json_array_foreach(aliases, i, old)
		if (json_equal(old, name))
			return;
	json_array_append(aliases, name);
}

static bool is_external(const json_t *resources, const char *key)
{
	const json_t *resource = json_object_get(resources, key), *external = json_object_get(resource, "external");
	return external && !json_is_false(external);
}

/* "default" is the key of ours. */
static const char *joined_key(const char *key)
{
	return strcmp(key, "default") ? key : "default-external";
}

/* What two workspaces cannot both have there: addresses, and names, which are the main checkout's. new */
static json_t *shareable(const json_t *network, bool is_main)
{
	static const char *const own[] = {"ipv4_address", "ipv6_address", "link_local_ips", "mac_address"};
	if (!json_object_size(network))
		return json_incref((json_t *)(uintptr_t)network);
	json_t *rest = json_copy((json_t *)(uintptr_t)network);
	for (size_t i = 0; i < sizeof own / sizeof *own; i++)
		json_object_del(rest, own[i]);
	if (!is_main)
		json_object_del(rest, "aliases");
	if (json_object_size(rest))
		return rest;
	json_decref(rest);
	return json_null();
}

/* Services meet on the environment's one network, by all the names that they have; those of others they join as well. */
static void set_network(json_t *service, const json_t *networks, bool is_main)
{
	const char *key;
	json_t *network, *aliases = json_array(), *alias, *hostname = json_object_get(service, "hostname"), *container = json_object_get(service, "container_name");
	size_t i;
	if (!json_object_get(service, "networks")) {
		json_decref(aliases);
		return;
	}
	if (hostname)
		add_alias(aliases, hostname);
	if (container)
		add_alias(aliases, container);
	json_t *joined = json_object();
	json_object_foreach(json_object_get(service, "networks"), key, network) {
		if (is_external(networks, key))
			json_object_set_new(joined, joined_key(key), shareable(network, is_main));
		json_array_foreach(json_object_get(network, "aliases"), i, alias)
			add_alias(aliases, alias);
	}
	json_object_set_new(joined, "default", json_array_size(aliases) ? json_pack("{s:O}", "aliases", aliases) : json_null());
	json_object_set_new(service, "networks", joined);
	json_decref(aliases);
}

/* The name that a link gives is the linked service's own, there. */
static void set_links(json_t *services)
{
	const char *key;
	json_t *service, *link;
	size_t i;
	json_object_foreach(services, key, service) {
		json_array_foreach(json_object_get(service, "links"), i, link) {
			const char *text = json_string_value(link), *colon = strchr(text, ':');
			cleanup_free char *name = xstrndup(text, strcspn(text, ":"));
			json_t *networks = json_object_get(json_object_get(services, name), "networks"), *network = json_object_get(networks, "default");
			if (!colon || !network)
				continue;
			if (!json_is_object(network))
				json_object_set_new(networks, "default", network = json_object());
			if (!json_object_get(network, "aliases"))
				json_object_set_new(network, "aliases", json_array());
			json_t *alias = json_string(colon + 1);
			add_alias(json_object_get(network, "aliases"), alias);
			json_decref(alias);
		}
		json_object_del(service, "links");
	}
}

/* docker compose refuses a whole file where one that has a container_name has several instances. */
static void set_instances(json_t *service)
{
	json_t *deploy = json_object_get(service, "deploy");
	if (json_integer_value(json_object_get(service, "scale")) > 1)
		json_object_del(service, "scale");
	if (json_integer_value(json_object_get(deploy, "replicas")) > 1)
		json_object_del(deploy, "replicas");
}

/* As a text, as docker compose prints it, it does not read it. */
static void set_unlimited_swap(json_t *service)
{
	const char *limit = json_string_value(json_object_get(service, "memswap_limit"));
	if (limit && !strcmp(limit, "-1"))
		json_object_set_new(service, "memswap_limit", json_integer(-1));
}

static void set_labels(json_t *service, const char *namespace_, const char *workspace, const char *name)
{
	if (!json_object_get(service, "labels"))
		json_object_set_new(service, "labels", json_object());
	json_t *labels = json_object_get(service, "labels");
	json_object_set_new(labels, "aether.managed", json_string("true"));
	json_object_set_new(labels, "aether.namespace", json_string(namespace_));
	json_object_set_new(labels, "aether.workspace", json_string(workspace ? workspace : ""));
	json_object_set_new(labels, "aether.service", json_string(name));
}

/* Others' keep their names. */
static void name_all(json_t *resources, const char *namespace_)
{
	const char *key;
	json_t *resource;
	json_object_foreach(resources, key, resource)
		if (!json_object_get(resource, "external"))
			json_object_set_new(resource, "name", json_sprintf("%s_%s", namespace_, key));
}

/* What is built has a name of this environment's, also where others take it as their image. */
static void set_images(json_t *services, const char *namespace_)
{
	const char *key;
	json_t *service, *built = json_object();
	json_object_foreach (services, key, service) {
		const char *image = json_string_value(json_object_get(service, "image"));
		if (json_object_get(service, "build") && image && !json_object_get(built, image))
			json_object_set_new(built, image, json_string(key));
	}
	json_object_foreach (services, key, service) {
		const char *image = json_string_value(json_object_get(service, "image"));
		const char *by = json_object_get(service, "build") ? key : image ? json_string_value(json_object_get(built, image)) : NULL;
		cleanup_free char *name = by ? build_image_name(namespace_, by) : NULL;
		if (name)
			json_object_set_new(service, "image", json_string(name));
	}
	json_decref(built);
}

void config_effective(json_t *shape, const char *namespace_, const char *workspace, bool is_main, const json_t *services)
{
	const char *key;
	json_t *service, *network, *all = json_object_get(shape, "services"), *networks = json_object_get(shape, "networks"), *kept = json_object();
	bool meets = false;
	json_object_foreach(networks, key, network)
		if (is_external(networks, key))
			json_object_set(kept, joined_key(key), network);
	set_images(all, namespace_);
	json_object_set_new(shape, "name", json_string(namespace_));
	json_object_foreach(all, key, service) {
		set_ports(service, json_object_get(service, "network_mode") ? NULL : json_object_get(json_object_get(services, key), "ports"));
		set_network(service, networks, is_main);
		json_object_set_new(service, "container_name", json_sprintf("%s-%s", namespace_, key));
		set_instances(service);
		set_unlimited_swap(service);
		set_labels(service, namespace_, workspace, key);
		meets = meets || json_object_get(service, "networks");
	}
	set_links(all);
	if (meets)
		json_object_set_new(kept, "default", json_pack("{s:s, s:{}}", "name", namespace_, "ipam"));
	if (json_object_size(kept))
		json_object_set(shape, "networks", kept);
	else
		json_object_del(shape, "networks");
	json_decref(kept);
	name_all(json_object_get(shape, "volumes"), namespace_);
	name_all(json_object_get(shape, "secrets"), namespace_);
	name_all(json_object_get(shape, "configs"), namespace_);
}
