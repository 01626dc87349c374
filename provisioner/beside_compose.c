#include "provisioner/beside_compose.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "backends/subnet.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/config_effective.h"
#include "provisioner/yaml_text.h"

/* ---- ports and labels ---- */

/* As status.json has them. new */
static json_t *leases_of(const struct model *m)
{
	json_t *services = json_object();
	for (size_t i = 0; i < m->n_services; i++) {
		const struct model_service *s = &m->services[i];
		json_t *ports = json_array();
		for (size_t k = 0; k < s->n_ports; k++)
			json_array_append_new(ports, json_pack("{s:i, s:i, s:s}", "internal", s->ports[k].internal, "external", s->ports[k].external, "protocol", s->ports[k].protocol));
		json_object_set_new(services, s->config->name, json_pack("{s:o}", "ports", ports));
	}
	return services;
}

/* docker compose puts variables in, what stands here is meant: in the shape every $ is doubled, and so it is in what is added to it. */
static json_t *literal(const char *text)
{
	cleanup_buffer struct buffer doubled = BUFFER_INIT;
	for (; *text; text++)
		buffer_printf(&doubled, "%c%s", *text, *text == '$' ? "$" : "");
	return json_string(buffer_str(&doubled));
}

/* A container that docker compose makes anew is ours as much as the one before. */
static void set_labels(json_t *service, const struct model *m, const struct model_service *s)
{
	json_t *labels = json_object_get(service, "labels");
	json_object_set_new(labels, "aether.config-hash", json_string(s->spec.config_hash));
	cleanup_free char *pre_stop = s->spec.container ? container_hooks_text(s->spec.container->pre_stop) : NULL;
	if (pre_stop)
		json_object_set_new(labels, CONTAINER_LABEL_PRE_STOP, literal(pre_stop));
	json_object_set_new(labels, "aether.generation", json_sprintf("%u", m->generation));
}

/* What ends by itself is started again here: an engine that did it as well would keep up what somebody has stopped, and hide what ends again and again. */
static void drop_restart(json_t *service)
{
	json_object_del(service, "restart");
	json_object_del(json_object_get(service, "deploy"), "restart_policy");
}

/* What the image was told by us it is told again. */
static void set_environment(json_t *service, const struct keyvals *told)
{
	json_t *environment = json_object_get(service, "environment");
	if (told->count && !json_is_object(environment))
		json_object_set_new(service, "environment", environment = json_object());
	for (size_t i = 0; i < told->count; i++)
		json_object_set_new(environment, told->items[i].key, literal(told->items[i].value ? told->items[i].value : ""));
}

/* ---- volumes ---- */

static bool is_at(const json_t *mount, const char *target)
{
	const char *at = json_string_value(json_object_get(mount, "target"));
	return at && !strcmp(at, target);
}

/* By its own name, whatever the file calls it. */
static void set_volume(json_t *service, json_t *volumes, const char *record)
{
	cleanup_free char *volume = NULL, *target = NULL;
	if (backend_record_read(record, &volume, &target))
		return;
	json_t *mounts = json_object_get(service, "volumes");
	if (!mounts)
		json_object_set_new(service, "volumes", mounts = json_array());
	for (size_t i = json_array_size(mounts); i-- > 0;)
		if (is_at(json_array_get(mounts, i), target))
			json_array_remove(mounts, i);
	json_array_append_new(mounts, json_pack("{s:s, s:s, s:o, s:{}}", "type", "volume", "source", volume, "target", literal(target), "volume"));
	json_object_set_new(volumes, volume, json_pack("{s:s, s:b}", "name", volume, "external", true));
}

static void set_service_volumes(json_t *service, json_t *volumes, const char *directory)
{
	cleanup_closedir DIR *dir = opendir(directory);
	for (struct dirent *d; dir && (d = readdir(dir));) {
		cleanup_free char *record = xasprintf("%s/%s", directory, d->d_name);
		if (d->d_name[0] != '.')
			set_volume(service, volumes, record);
	}
}

static void set_volumes(json_t *service, json_t *volumes, const struct service_spec *spec)
{
	for (size_t i = 0; i < spec->n_volumes; i++)
		if (spec->volumes[i].kind == VOLUME_NAMED || spec->volumes[i].kind == VOLUME_ANONYMOUS)
			set_volume(service, volumes, spec->volumes[i].source);
	set_service_volumes(service, volumes, spec->data); /* of those that the image declares */
}

/* The service whose name the record of an unnamed volume begins with: "db.var-lib-x". borrowed; NULL: none */
static json_t *owner_of(const json_t *services, const char *record)
{
	json_t *service, *owner = NULL;
	const char *name;
	size_t longest = 0;
	json_object_foreach ((json_t *)(uintptr_t)services, name, service) {
		size_t len = strlen(name);
		if (len >= longest && !strncmp(record, name, len) && record[len] == '.') {
			longest = len;
			owner = service;
		}
	}
	return owner;
}

void beside_compose_volumes(json_t *shape, const char *data)
{
	json_t *services = json_object_get(shape, "services"), *volumes = json_object_get(shape, "volumes"), *made = json_object(), *service;
	const char *name;
	cleanup_free char *named = xasprintf("%s/" SPEC_VOLUMES, data);
	cleanup_closedir DIR *dir = opendir(named);
	for (struct dirent *d; dir && (d = readdir(dir));) {
		cleanup_free char *record = xasprintf("%s/%s", named, d->d_name), *key = xstrndup(d->d_name, strcspn(d->d_name, "+")), *volume = NULL, *target = NULL;
		json_t *resource = json_object_get(volumes, key), *owner = owner_of(services, d->d_name);
		if (d->d_name[0] == '.' || backend_record_read(record, &volume, &target))
			continue;
		if (resource)
			json_object_set_new(resource, "name", json_string(volume));
		else if (owner)
			set_volume(owner, made, record);
	}
	json_object_foreach (services, name, service) {
		cleanup_free char *own = xasprintf("%s/%s", data, name);
		set_service_volumes(service, made, own);
	}
	if (json_object_size(made) && !volumes)
		json_object_set_new(shape, "volumes", volumes = json_object());
	json_object_update(volumes, made);
	json_decref(made);
}

/* What no service has any more under the name in the file. */
static bool is_mounted(const json_t *services, const char *volume)
{
	const char *key;
	json_t *service, *mount;
	size_t i;
	json_object_foreach ((json_t *)(uintptr_t)services, key, service)
		json_array_foreach (json_object_get(service, "volumes"), i, mount) {
			const char *source = json_string_value(json_object_get(mount, "source"));
			if (source && !strcmp(source, volume))
				return true;
		}
	return false;
}

static void drop_unused(json_t *volumes, const json_t *services)
{
	const char *key;
	json_t *unused;
	void *next;
	json_object_foreach_safe (volumes, next, key, unused)
		if (!is_mounted(services, key))
			json_object_del(volumes, key);
}

/* ---- the network ---- */

static void set_map(json_t *object, const char *key, const struct keyvals *map)
{
	json_t *all = map->count ? json_object() : NULL;
	for (size_t i = 0; i < map->count; i++)
		json_object_set_new(all, map->items[i].key, literal(map->items[i].value ? map->items[i].value : ""));
	if (all)
		json_object_set_new(object, key, all);
}

static void set_moved(json_t *pool, const char *key, char *moved)
{
	if (moved)
		json_object_set_new(pool, key, json_string(moved));
	free(moved);
}

/* As the engine makes it. */
static void set_pool(json_t *network, const struct config_resource *a, const char *subnet)
{
	json_t *pool = json_pack("{s:s}", "subnet", subnet);
	set_moved(pool, "gateway", a->gateway ? subnet_moved(a->gateway, a->subnet, subnet) : NULL);
	set_moved(pool, "ip_range", a->ip_range ? subnet_moved_part(a->ip_range, a->subnet, subnet) : NULL);
	json_object_set_new(network, "ipam", json_pack("{s:[o]}", "config", pool));
}

static void set_address(json_t *service, const char *address)
{
	json_t *networks = json_object_get(service, "networks"), *own = json_object_get(networks, "default");
	if (!networks)
		return;
	if (!json_is_object(own))
		json_object_set_new(networks, "default", own = json_object());
	json_object_set_new(own, "ipv4_address", json_string(address));
}

void beside_compose_network(json_t *shape, const struct config *config, const char *state_dir)
{
	const struct config_resource *a = config->addressed;
	json_t *services = json_object_get(shape, "services"), *network = json_object_get(json_object_get(shape, "networks"), "default");
	cleanup_free char *now = a ? backend_subnet(state_dir) : NULL;
	const char *subnet = now ? now : a && config->is_main ? a->subnet : NULL;
	if (network) {
		set_map(network, "labels", &config->network_labels);
		set_map(network, "driver_opts", &config->network_opts);
	}
	if (network && subnet)
		set_pool(network, a, subnet);
	for (size_t i = 0; i < config->n_services; i++) {
		const struct container_options *o = &config->services[i].container;
		json_t *service = json_object_get(services, config->services[i].name);
		cleanup_free char *address = o->ipv4_address && subnet ? subnet_moved(o->ipv4_address, a->subnet, subnet) : NULL;
		if (service && address)
			set_address(service, address);
		if (service && o->mac_address && json_object_get(service, "networks"))
			json_object_set_new(service, "mac_address", literal(o->mac_address));
	}
}

/* ---- the whole ---- */

void beside_compose_text(const struct model *m, const struct identity *id, struct buffer *out)
{
	if (!m->shape || !m->planned)
		return;
	json_t *shape = json_deep_copy(m->shape), *leases = leases_of(m), *services = json_object_get(shape, "services"), *volumes = json_object();
	for (size_t i = 0; i < m->n_services; i++)
		if (json_object_get(services, m->services[i].config->name))
			set_environment(json_object_get(services, m->services[i].config->name), &m->services[i].told);
	config_effective(shape, id->namespace_, id->workspace, m->config->is_main, leases);
	beside_compose_network(shape, m->config, id->state_dir);
	if (json_object_get(shape, "volumes"))
		json_object_update(volumes, json_object_get(shape, "volumes"));
	for (size_t i = 0; i < m->n_services; i++) {
		json_t *service = json_object_get(services, m->services[i].config->name);
		if (!service)
			continue;
		set_labels(service, m, &m->services[i]);
		drop_restart(service);
		set_volumes(service, volumes, &m->services[i].spec);
	}
	drop_unused(volumes, services);
	json_object_set_new(shape, "volumes", volumes);
	if (!json_object_get(shape, "networks"))
		json_object_set_new(shape, "networks", json_object());
	json_object_set_new(json_object_get(shape, "networks"), "default", json_pack("{s:s, s:b}", "name", id->namespace_, "external", true));
	yaml_text(shape, out);
	json_decref(shape);
	json_decref(leases);
}
