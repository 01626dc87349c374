/* Options of containers as the body of POST /containers/create says them.
 * https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerCreate */
#include <stdlib.h>
#include <string.h>

#include "backends/backends.h"
#include "backends/engine.h"
#include "base/alloc.h"
#include "base/cleanup.h"

static void set_text(json_t *object, const char *key, const char *text)
{
	if (text && *text)
		json_object_set_new(object, key, json_string(text));
}

static void set_list(json_t *object, const char *key, char *const *words)
{
	if (!words)
		return;
	json_t *list = json_object_get(object, key);
	if (!list) {
		list = json_array();
		json_object_set_new(object, key, list);
	}
	for (; *words; words++)
		json_array_append_new(list, json_string(*words));
}

static void set_number(json_t *object, const char *key, int64_t number)
{
	if (number)
		json_object_set_new(object, key, json_integer(number));
}

static void set_true(json_t *object, const char *key, bool on)
{
	if (on)
		json_object_set_new(object, key, json_true());
}

static void set_map(json_t *object, const char *key, const struct keyvals *map)
{
	json_t *old = json_object_get(object, key), *values = old ? old : json_object();
	for (size_t i = 0; i < map->count; i++)
		json_object_set_new(values, map->items[i].key, json_string(map->items[i].value ? map->items[i].value : ""));
	if (!old)
		json_object_set_new(object, key, values);
}

/* HOST[:CONTAINER[:PERMISSIONS]] */
static json_t *device(const char *text)
{
	cleanup_free char *copy = xstrdup(text);
	char *target = strchr(copy, ':'), *permissions = NULL;
	if (target)
		*target++ = '\0';
	if (target && (permissions = strchr(target, ':')))
		*permissions++ = '\0';
	return json_pack("{s:s, s:s, s:s}", "PathOnHost", copy, "PathInContainer", target && *target ? target : copy, "CgroupPermissions",
	                 permissions ? permissions : "rwm");
}

static void set_devices(json_t *host, char *const *devices)
{
	json_t *list = json_array();
	for (; devices && *devices; devices++)
		json_array_append_new(list, device(*devices));
	json_object_set_new(host, "Devices", list);
}

static void set_device_requests(json_t *host, char *const *requests)
{
	json_t *list = json_array();
	for (; requests && *requests; requests++)
		json_array_append_new(list, json_loads(*requests, 0, NULL));
	if (json_array_size(list))
		json_object_set(host, "DeviceRequests", list);
	json_decref(list);
}

static void set_ulimits(json_t *host, const struct container_options *o)
{
	json_t *list = json_array();
	for (size_t i = 0; i < o->n_ulimits; i++)
		json_array_append_new(list, json_pack("{s:s, s:I, s:I}", "Name", o->ulimits[i].name, "Soft", (json_int_t)o->ulimits[i].soft, "Hard",
		                                      (json_int_t)o->ulimits[i].hard));
	json_object_set_new(host, "Ulimits", list);
}

/* Their own word about it counts: "no-new-privileges:false". */
static bool speaks_of_privileges(char *const *words)
{
	for (; words && *words; words++)
		if (!strncmp(*words, "no-new-privileges", 17))
			return true;
	return false;
}

static void set_security(json_t *host, const struct container_options *o)
{
	if (o->privileged || speaks_of_privileges(o->security_opt))
		json_object_del(host, "SecurityOpt");
	set_list(host, "SecurityOpt", o->security_opt);
	set_true(host, "Privileged", o->privileged);
	set_list(host, "CapAdd", o->cap_add);
	set_list(host, "CapDrop", o->cap_drop);
	set_list(host, "GroupAdd", o->group_add);
}

/* Without a driver the options are the engine's own one's. */
static void set_logging(json_t *host, const struct container_options *o)
{
	if (!o->log_driver && !o->log_options.count)
		return;
	json_t *logging = json_pack("{s:s}", "Type", o->log_driver ? o->log_driver : "");
	set_map(logging, "Config", &o->log_options);
	json_object_set_new(host, "LogConfig", logging);
}

static void set_blkio(json_t *host, const char *blkio)
{
	json_t *limits = blkio ? json_loads(blkio, 0, NULL) : NULL;
	if (limits)
		json_object_update(host, limits);
	json_decref(limits);
}

static void set_nanoseconds(json_t *object, const char *key, unsigned ms)
{
	set_number(object, key, (int64_t)ms * 1000000);
}

static void set_check(json_t *create, const struct container_check *c)
{
	json_t *check = json_object();
	set_list(check, "Test", c->test);
	set_nanoseconds(check, "Interval", c->interval_ms);
	set_nanoseconds(check, "Timeout", c->timeout_ms);
	set_nanoseconds(check, "StartPeriod", c->start_period_ms);
	set_nanoseconds(check, ENGINE_START_INTERVAL, c->start_interval_ms);
	set_number(check, "Retries", c->retries);
	if (json_object_size(check))
		json_object_set(create, "Healthcheck", check);
	json_decref(check);
}

/* Of a container it became one of what it is in a network: https://docs.docker.com/reference/api/engine/version-history/#v144-api-changes */
static void settle_mac_address(const struct engine *e, json_t *create)
{
	const char *network;
	json_t *address = json_object_get(create, "MacAddress"), *endpoint;
	if (!address || (!e->podman && e->api < ENGINE_API_MAC_ADDRESS))
		return;
	json_object_foreach (json_object_get(json_object_get(create, "NetworkingConfig"), "EndpointsConfig"), network, endpoint)
		json_object_set(endpoint, "MacAddress", address);
	json_object_del(create, "MacAddress");
}

static bool is_podmans_driver(const char *driver)
{
	static const char *const known[] = {"", "json-file", "k8s-file", "journald", "none", "passthrough"};
	size_t i = 0, n = sizeof known / sizeof *known;
	while (driver && i < n && strcmp(known[i], driver))
		i++;
	return !driver || i < n;
}

/* Podman refuses a container whose driver it has not, and nobody's service is not to run for that. */
static void settle_logging(const struct engine *e, json_t *create)
{
	json_t *host = json_object_get(create, "HostConfig");
	if (e->podman && !is_podmans_driver(json_string_value(json_object_get(json_object_get(host, "LogConfig"), "Type"))))
		json_object_del(host, "LogConfig");
}

/* Podman takes the words of a test apart and wants a systemd to run it: there it is run by us alone. */
void engine_options_settle(const struct engine *e, json_t *create)
{
	settle_mac_address(e, create);
	settle_logging(e, create);
	json_t *check = json_object_get(create, "Healthcheck");
	if (e->podman && json_object_get(check, "Test"))
		json_object_set_new(create, "Healthcheck", json_pack("{s:[s]}", "Test", "NONE"));
	else if (e->podman)
		json_object_del(create, "Healthcheck");
	else if (e->api < ENGINE_API_START_INTERVAL)
		json_object_del(check, ENGINE_START_INTERVAL);
}

void engine_check_options(const struct engine *e, const struct service_spec *spec, backend_diagnostic *report, void *arg)
{
	const struct container_options *o = spec->container;
	bool podman = e->podman || e->base.ops == &backend_podman;
	cleanup_free char *other = o && podman && !is_podmans_driver(o->log_driver) ? xasprintf("Podman has no driver %s, and logs as it does by itself", o->log_driver) : NULL;
	if (other)
		report(arg, DIAGNOSTIC_WARNING, spec->name, "logging", other, NULL);
	if (o && o->external_links && podman)
		report(arg, DIAGNOSTIC_WARNING, spec->name, "external_links", "not used, Podman has no links", NULL);
	if (o && o->annotations.count && (podman || (e->api && e->api < ENGINE_API_ANNOTATIONS)))
		report(arg, DIAGNOSTIC_WARNING, spec->name, "annotations", "not used, for that takes Docker 24", NULL);
}

void engine_container_options(const struct container_options *o, json_t *create, json_t *host)
{
	set_text(create, "User", o->user);
	set_text(create, "Hostname", o->hostname);
	set_text(create, "Domainname", o->domainname);
	set_text(create, "MacAddress", o->mac_address);
	set_true(create, "Tty", o->tty);
	set_true(create, "OpenStdin", o->stdin_open);
	set_check(create, &o->check);
	json_t *ours = json_deep_copy(json_object_get(create, "Labels"));
	set_map(create, "Labels", &o->labels);
	json_object_update(json_object_get(create, "Labels"), ours); /* nobody's file claims to be another's container */
	json_decref(ours);
	set_security(host, o);
	set_devices(host, o->devices);
	set_device_requests(host, o->device_requests);
	set_ulimits(host, o);
	set_map(host, "Sysctls", &o->sysctls);
	if (o->annotations.count)
		set_map(host, "Annotations", &o->annotations);
	set_logging(host, o);
	set_blkio(host, o->blkio);
	if (o->storage.count)
		set_map(host, "StorageOpt", &o->storage);
	set_list(host, "DeviceCgroupRules", o->device_rules);
	set_list(host, "Dns", o->dns);
	set_list(host, "DnsSearch", o->dns_search);
	set_list(host, "DnsOptions", o->dns_options);
	set_list(host, "ExtraHosts", o->extra_hosts);
	set_text(host, "PidMode", o->pid);
	set_text(host, "IpcMode", o->ipc);
	set_text(host, "UTSMode", o->uts);
	set_text(host, "UsernsMode", o->userns);
	set_text(host, "CgroupnsMode", o->cgroup);
	set_text(host, "Runtime", o->runtime);
	set_text(host, "CpusetCpus", o->cpuset);
	set_text(host, "CgroupParent", o->cgroup_parent);
	set_number(host, "CpuShares", o->cpu_shares);
	set_number(host, "CpuQuota", o->cpu_quota);
	set_number(host, "CpuPeriod", o->cpu_period);
	set_number(host, "ShmSize", (int64_t)o->shm_bytes);
	set_number(host, "MemoryReservation", (int64_t)o->memory_reservation_bytes);
	set_number(host, "MemorySwap", o->memory_swap_bytes);
	set_number(host, "OomScoreAdj", o->oom_score_adj);
	if (o->memory_swappiness != CONTAINER_UNSET)
		json_object_set_new(host, "MemorySwappiness", json_integer(o->memory_swappiness));
	set_true(host, "OomKillDisable", o->oom_kill_disable);
	set_true(host, "ReadonlyRootfs", o->read_only);
	set_true(host, "Init", o->init);
}
