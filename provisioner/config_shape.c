/* The tables of what Compose knows (compose-spec 05-services, 06-networks, 07-volumes, 08-configs, 09-secrets, build, deploy),
 * and what it adds by itself. Compared with docker compose by tests/e2e/compose_config. */
#include "provisioner/config_shape.h"

#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"

static const struct shape build_fields[] = {
    {"context", shape_context},
    {"dockerfile", shape_text},
    {"dockerfile_inline", shape_text},
    {"entitlements", shape_texts},
    {"args", shape_args},
    {"provenance", shape_text},
    {"sbom", shape_text},
    {"ssh", shape_ssh},
    {"labels", shape_mapping},
    {"cache_from", shape_texts},
    {"cache_to", shape_texts},
    {"no_cache", shape_bool},
    {"additional_contexts", shape_contexts},
    {"pull", shape_bool},
    {"extra_hosts", shape_hosts},
    {"isolation", shape_text},
    {"network", shape_text},
    {"target", shape_text},
    {"secrets", shape_file_mounts},
    {"shm_size", shape_bytes},
    {"tags", shape_texts},
    {"ulimits", shape_ulimits},
    {"platforms", shape_texts},
    {"privileged", shape_bool},
    {NULL},
};

static const struct shape update_fields[] = {
    {"parallelism", shape_integer, NULL, true}, {"delay", shape_duration}, {"failure_action", shape_text},
    {"monitor", shape_duration}, {"max_failure_ratio", shape_real}, {"order", shape_text}, {NULL},
};
static const struct shape resource_fields[] = {
    {"cpus", shape_real}, {"memory", shape_bytes}, {"pids", shape_integer}, {"devices", shape_device_requests}, {NULL},
};
static const struct shape resources_fields[] = {
    {"limits", shape_object, resource_fields}, {"reservations", shape_object, resource_fields}, {NULL},
};
static const struct shape restart_fields[] = {
    {"condition", shape_text}, {"delay", shape_duration, NULL, true}, {"max_attempts", shape_integer, NULL, true},
    {"window", shape_duration, NULL, true}, {NULL},
};
static const struct shape preference_fields[] = {{"spread", shape_text}, {NULL}};
static const struct shape placement_fields[] = {
    {"constraints", shape_texts}, {"preferences", shape_objects, preference_fields}, {"max_replicas_per_node", shape_integer}, {NULL},
};
static const struct shape deploy_fields[] = {
    {"mode", shape_text},
    {"replicas", shape_integer, NULL, true},
    {"labels", shape_mapping},
    {"update_config", shape_object, update_fields},
    {"rollback_config", shape_object, update_fields},
    {"resources", shape_object, resources_fields, true},
    {"restart_policy", shape_object, restart_fields},
    {"placement", shape_object, placement_fields, true},
    {"endpoint_mode", shape_text},
    {NULL},
};

static const struct shape healthcheck_fields[] = {
    {"test", shape_test},
    {"timeout", shape_duration, NULL, true},
    {"interval", shape_duration, NULL, true},
    {"retries", shape_integer, NULL, true},
    {"start_period", shape_duration, NULL, true},
    {"start_interval", shape_duration, NULL, true},
    {"disable", shape_bool},
    {NULL},
};
static const struct shape weight_fields[] = {{"path", shape_text}, {"weight", shape_integer}, {NULL}};
static const struct shape rate_fields[] = {{"path", shape_text}, {"rate", shape_bytes}, {NULL}};
static const struct shape blkio_fields[] = {
    {"weight", shape_integer},
    {"weight_device", shape_objects, weight_fields},
    {"device_read_bps", shape_objects, rate_fields},
    {"device_read_iops", shape_objects, rate_fields},
    {"device_write_bps", shape_objects, rate_fields},
    {"device_write_iops", shape_objects, rate_fields},
    {NULL},
};
static const struct shape logging_fields[] = {{"driver", shape_text}, {"options", shape_mapping}, {NULL}};
static const struct shape hook_fields[] = {
    {"command", shape_words, NULL, true}, {"user", shape_text}, {"privileged", shape_bool}, {"working_dir", shape_text},
    {"environment", shape_args}, {NULL},
};
static const struct shape watch_fields[] = {
    {"path", shape_path}, {"action", shape_text}, {"target", shape_text}, {"exec", shape_object, hook_fields, true},
    {"include", shape_texts}, {"ignore", shape_texts}, {"initial_sync", shape_bool}, {NULL},
};
static const struct shape develop_fields[] = {{"watch", shape_objects, watch_fields, true}, {NULL}};

static int pull_policy(const struct field *f, const struct shape *shape, json_t **ret)
{
	int r = shape_text(f, shape, ret);
	if (*ret && !strcmp(json_string_value(*ret), "if_not_present"))
		json_string_set(*ret, "missing");
	return r;
}

/* Those without a function are of finish_service, or resolved and gone. */
static const struct shape service_fields[] = {
    {"annotations", shape_mapping},
    {"attach", shape_bool, NULL, true},
    {"blkio_config", shape_object, blkio_fields},
    {"build", NULL},
    {"cap_add", shape_texts},
    {"cap_drop", shape_texts},
    {"cgroup", shape_text},
    {"cgroup_parent", shape_text},
    {"command", shape_words, NULL, true},
    {"configs", shape_file_mounts},
    {"container_name", shape_text},
    {"cpu_count", shape_integer},
    {"cpu_percent", shape_real},
    {"cpu_period", shape_integer},
    {"cpu_quota", shape_integer},
    {"cpu_rt_period", shape_integer},
    {"cpu_rt_runtime", shape_integer},
    {"cpu_shares", shape_integer},
    {"cpus", shape_real},
    {"cpuset", shape_text},
    {"depends_on", NULL},
    {"deploy", shape_object, deploy_fields},
    {"develop", shape_object, develop_fields},
    {"device_cgroup_rules", shape_texts},
    {"devices", shape_devices},
    {"dns", shape_texts},
    {"dns_opt", shape_texts},
    {"dns_search", shape_texts},
    {"domainname", shape_text},
    {"entrypoint", shape_words, NULL, true},
    {"env_file", NULL},
    {"environment", NULL},
    {"expose", shape_texts},
    {"extends", NULL},
    {"external_links", shape_texts},
    {"extra_hosts", shape_hosts},
    {"gpus", shape_gpus},
    {"group_add", shape_texts},
    {"healthcheck", shape_object, healthcheck_fields},
    {"hostname", shape_text},
    {"image", shape_text},
    {"init", shape_bool, NULL, true},
    {"ipc", shape_text},
    {"isolation", shape_text},
    {"label_file", NULL},
    {"labels", NULL},
    {"links", shape_texts},
    {"logging", shape_object, logging_fields},
    {"mac_address", shape_text},
    {"mem_limit", shape_bytes},
    {"mem_reservation", shape_bytes},
    {"mem_swappiness", shape_bytes},
    {"memswap_limit", shape_bytes},
    {"network_mode", shape_text},
    {"networks", NULL},
    {"oom_kill_disable", shape_bool},
    {"oom_score_adj", shape_integer},
    {"pid", shape_text},
    {"pids_limit", shape_integer},
    {"platform", shape_text},
    {"ports", shape_ports},
    {"post_start", shape_objects, hook_fields},
    {"pre_stop", shape_objects, hook_fields},
    {"privileged", shape_bool},
    {"profiles", shape_texts},
    {"pull_policy", pull_policy},
    {"read_only", shape_bool},
    {"restart", shape_text},
    {"runtime", shape_text},
    {"scale", shape_integer, NULL, true},
    {"secrets", shape_secret_mounts},
    {"security_opt", shape_texts},
    {"shm_size", shape_bytes},
    {"stdin_open", shape_bool},
    {"stop_grace_period", shape_duration, NULL, true},
    {"stop_signal", shape_text},
    {"storage_opt", shape_mapping},
    {"sysctls", shape_mapping},
    {"tmpfs", shape_texts},
    {"tty", shape_bool},
    {"ulimits", shape_ulimits},
    {"use_api_socket", shape_bool},
    {"user", shape_text},
    {"userns_mode", shape_text},
    {"uts", shape_text},
    {"volumes", shape_volumes},
    {"volumes_from", shape_texts},
    {"working_dir", shape_text},
    {NULL},
};

static const struct shape pool_fields[] = {
    {"subnet", shape_text}, {"gateway", shape_text}, {"ip_range", shape_text}, {"aux_addresses", shape_mapping}, {NULL},
};
static const struct shape ipam_fields[] = {{"driver", shape_text}, {"config", shape_objects, pool_fields}, {NULL}};
static const struct shape network_fields[] = {
    {"name", shape_text},
    {"driver", shape_text},
    {"driver_opts", shape_mapping},
    {"ipam", shape_object, ipam_fields, true},
    {"external", NULL},
    {"internal", shape_bool},
    {"attachable", shape_bool},
    {"labels", shape_mapping},
    {"enable_ipv4", shape_bool, NULL, true},
    {"enable_ipv6", shape_bool, NULL, true},
    {NULL},
};
static const struct shape volume_fields[] = {
    {"name", shape_text}, {"driver", shape_text}, {"driver_opts", shape_mapping}, {"external", NULL}, {"labels", shape_mapping}, {NULL},
};
static const struct shape file_fields[] = {
    {"name", shape_text},      {"file", shape_path},       {"environment", shape_text},    {"content", shape_text},        {"external", NULL},
    {"labels", shape_mapping}, {"driver", shape_text},     {"driver_opts", shape_mapping}, {"template_driver", shape_text}, {NULL},
};

/* ---- services ---- */

static int make(const struct field *f, const char *key, const struct shape *shape, json_t *service)
{
	struct field child;
	json_t *value = NULL;
	if (!field_find(f, key, &child) || field_is_null(&child))
		return 0;
	int r = shape->make(&child, shape, &value);
	if (value)
		json_object_set_new(service, key, value);
	return r;
}

static int finish_build(const struct field *f, json_t *service)
{
	static const struct shape whole = {"", shape_object, build_fields, false};
	struct field build;
	json_t *object = NULL;
	int r = 0;
	if (!field_find(f, "build", &build) || field_is_null(&build))
		return 0;
	if (build.node->type == YAML_MAP) {
		r = shape_object(&build, &whole, &object);
	} else {
		json_t *context = NULL;
		object = json_object();
		r = shape_context(&build, &whole, &context);
		if (context)
			json_object_set_new(object, "context", context);
	}
	if (!json_object_get(object, "context"))
		json_object_set_new(object, "context", json_string(loading_of(f)->config->directory));
	if (!json_object_get(object, "dockerfile") && !json_object_get(object, "dockerfile_inline"))
		json_object_set_new(object, "dockerfile", json_string("Dockerfile"));
	json_object_set_new(service, "build", object);
	return r;
}

static void need(json_t *depends_on, const char *service, bool restart)
{
	if (json_object_get(depends_on, service))
		return;
	json_t *one = json_pack("{s:s, s:b}", "condition", "service_started", "required", 1);
	if (restart)
		json_object_set_new(one, "restart", json_true());
	json_object_set_new(depends_on, service, one);
}

/* Whoever is linked, shared with, or mounted from, is depended on. */
static int finish_depends_on(const struct field *f, json_t *service)
{
	static const struct shape whole = {"", shape_depends_on, NULL, false};
	static const char *const spaces[] = {"network_mode", "ipc", "pid", "uts", "cgroup"};
	size_t i;
	json_t *text, *all;
	int r = make(f, "depends_on", &whole, service);
	all = json_object_get(service, "depends_on") ? json_incref(json_object_get(service, "depends_on")) : json_object();
	json_array_foreach(json_object_get(service, "links"), i, text) {
		cleanup_free char *name = xstrndup(json_string_value(text), strcspn(json_string_value(text), ":"));
		need(all, name, true);
	}
	for (i = 0; i < sizeof spaces / sizeof *spaces; i++) {
		const char *of = json_string_value(json_object_get(service, spaces[i]));
		if (of && !strncmp(of, "service:", 8))
			need(all, of + 8, true);
	}
	json_array_foreach(json_object_get(service, "volumes_from"), i, text) {
		const char *from = json_string_value(text);
		cleanup_free char *name = xstrndup(from, strcspn(from, ":"));
		if (strncmp(from, "container:", 10))
			need(all, name, false);
	}
	if (json_object_size(all))
		json_object_set(service, "depends_on", all);
	json_decref(all);
	return r;
}

static int finish_networks(const struct field *f, json_t *service)
{
	static const struct shape whole = {"", shape_networks, NULL, false};
	int r = make(f, "networks", &whole, service);
	json_t *networks = json_object_get(service, "networks");
	if (json_object_get(service, "network_mode") || json_object_get(service, "provider"))
		return r;
	if (!json_object_size(networks))
		json_object_set_new(service, "networks", json_pack("{s:n}", "default"));
	return r;
}

/* What the files say lies beneath. */
static int finish_labels(const struct field *f, json_t *service)
{
	static const struct shape whole = {"", shape_mapping, NULL, false}, texts = {"", shape_texts, NULL, false};
	struct loading *l = loading_of(f);
	cleanup_keyvals struct keyvals labels = KEYVALS_INIT;
	struct field files;
	json_t *paths = NULL, *path;
	size_t i;
	bool outside;
	int r = make(f, "labels", &whole, service);
	if (r < 0 || !field_find(f, "label_file", &files) || field_is_null(&files))
		return r;
	r = shape_texts(&files, &texts, &paths);
	json_array_foreach(paths, i, path) {
		int why = r < 0 ? 0 : loading_read_env_file(l, json_string_value(path), false, &labels, &outside);
		if (why < 0)
			r = field_error(&files, "%s: %s", json_string_value(path), strerror(-why));
	}
	json_decref(paths);
	json_t *all = json_object();
	for (i = 0; i < labels.count; i++)
		json_object_set_new(all, labels.items[i].key, json_string(labels.items[i].value ? labels.items[i].value : ""));
	json_object_update(all, json_object_get(service, "labels"));
	json_object_set_new(service, "labels", all);
	return r;
}

static int add_service(const struct field *f, json_t *services)
{
	static const struct shape whole = {"", shape_object, service_fields, false};
	json_t *service = NULL, *environment = NULL;
	int r = shape_object(f, &whole, &service);
	if (r == 0)
		r = finish_build(f, service);
	if (r == 0)
		r = finish_depends_on(f, service);
	if (r == 0)
		r = finish_networks(f, service);
	if (r == 0)
		r = finish_labels(f, service);
	if (r == 0)
		r = shape_environment(f, &whole, &environment);
	if (environment)
		json_object_set_new(service, "environment", environment);
	json_object_set_new(services, f->key, service);
	return r;
}

static bool is_chosen(const struct config *c, const char *name, bool all)
{
	const struct config_service *s = config_service(c, name);
	return s && (all || config_in_profiles(s, c->profiles));
}

/* ---- what they use ---- */

static bool is_used(json_t *services, const char *section, const char *name)
{
	const char *key;
	json_t *service, *item;
	size_t i;
	bool networks = !strcmp(section, "networks"), volumes = !strcmp(section, "volumes");
	json_object_foreach(services, key, service) {
		if (networks && json_object_get(json_object_get(service, section), name))
			return true;
		json_t *const lists[] = {networks ? NULL : json_object_get(service, section),
		                         volumes ? NULL : json_object_get(json_object_get(service, "build"), section)};
		for (size_t k = 0; k < 2; k++)
			json_array_foreach(lists[k], i, item) {
				const char *type = json_string_value(json_object_get(item, "type")), *source = json_string_value(json_object_get(item, "source"));
				if (source && !strcmp(source, name) && (!volumes || (type && !strcmp(type, "volume"))))
					return true;
			}
	}
	return false;
}

/* `external: true`, and the old `external: { name: x }`. */
static int name_resource(const struct field *f, const char *project, const char *key, json_t *resource)
{
	static const struct shape fields[] = {{"name", shape_text}, {NULL}}, old = {"", shape_object, fields, false}, flag = {"", shape_bool, NULL, false};
	struct field external;
	json_t *value = NULL;
	int r = 0;
	if (f && field_find(f, "external", &external) && !field_is_null(&external))
		r = external.node->type == YAML_MAP ? shape_object(&external, &old, &value) : shape_bool(&external, &flag, &value);
	if (value)
		json_object_set_new(resource, "external", json_true());
	if (!json_object_get(resource, "name") && json_is_object(value))
		json_object_set(resource, "name", json_object_get(value, "name"));
	if (!json_object_get(resource, "name"))
		json_object_set_new(resource, "name", value ? json_string(key) : json_sprintf("%s_%s", project, key));
	json_decref(value);
	return r;
}

/* A volume of the local driver may be a directory that is bound. */
static int find_device(const struct field *f, json_t *resource)
{
	static const struct shape path = {"", shape_path, NULL, false};
	struct field options, device;
	json_t *made = json_object_get(resource, "driver_opts"), *value = NULL;
	const char *driver = json_string_value(json_object_get(resource, "driver")), *o = json_string_value(json_object_get(made, "o"));
	if (!driver || strcmp(driver, "local") || !o || strcmp(o, "bind") || !field_find(f, "driver_opts", &options) ||
	    !field_find(&options, "device", &device))
		return 0;
	int r = shape_path(&device, &path, &value);
	if (value)
		json_object_set_new(made, "device", value);
	return r;
}

static const struct section {
	const char *key;
	const struct shape *fields;
} sections[] = {{"networks", network_fields}, {"volumes", volume_fields}, {"secrets", file_fields}, {"configs", file_fields}};

static int add_section(const struct field *root, const struct section *section, const char *project, json_t *whole)
{
	const struct shape shape = {section->key, shape_object, section->fields, false};
	json_t *all = json_object(), *services = json_object_get(whole, "services");
	struct field map;
	int r = 0;
	bool given = field_find(root, section->key, &map);
	for (size_t i = 0; r == 0 && given && i < map.node->count; i++) {
		struct field child = field_child(&map, i);
		json_t *resource = NULL;
		if (!is_used(services, section->key, child.key))
			continue;
		r = shape_object(&child, &shape, &resource);
		if (r == 0)
			r = name_resource(&child, project, child.key, resource);
		if (r == 0 && section->fields == volume_fields)
			r = find_device(&child, resource);
		json_object_set_new(all, child.key, resource);
	}
	if (r == 0 && !strcmp(section->key, "networks") && !json_object_get(all, "default") && is_used(services, "networks", "default")) {
		json_t *network = json_pack("{s:{}}", "ipam");
		name_resource(NULL, project, "default", network);
		json_object_set_new(all, "default", network);
	}
	if (json_object_size(all))
		json_object_set(whole, section->key, all);
	json_decref(all);
	return r;
}

/* ---- the whole ---- */

/* So that whoever reads it interpolates nothing. */
static json_t *escaped(json_t *value)
{
	const char *key, *text = json_string_value(value);
	json_t *child, *copy;
	size_t i;
	if (text && strchr(text, '$')) {
		cleanup_buffer struct buffer out = BUFFER_INIT;
		for (; *text; text++)
			buffer_printf(&out, "%c%s", *text, *text == '$' ? "$" : "");
		return json_string(buffer_str(&out));
	}
	if (json_is_object(value)) {
		copy = json_object();
		json_object_foreach(value, key, child)
			json_object_set_new(copy, key, escaped(child));
		return copy;
	}
	if (!json_is_array(value))
		return json_incref(value);
	copy = json_array();
	json_array_foreach(value, i, child)
		json_array_append_new(copy, escaped(child));
	return copy;
}

static int add_all(const struct field *root, const char *project, bool inactive, json_t *whole)
{
	struct field services;
	json_t *all = json_object();
	int r = 0;
	json_object_set_new(whole, "name", json_string(project));
	json_object_set_new(whole, "services", all);
	bool given = field_find(root, "services", &services);
	for (size_t i = 0; r == 0 && given && i < services.node->count; i++) {
		struct field service = field_child(&services, i);
		if (is_chosen(loading_of(root)->config, service.key, inactive))
			r = add_service(&service, all);
	}
	for (size_t i = 0; r == 0 && i < sizeof sections / sizeof *sections; i++)
		r = add_section(root, &sections[i], project, whole);
	for (size_t i = 0; r == 0 && i < root->node->count; i++) {
		struct field child = field_child(root, i);
		json_t *value = NULL;
		if (strncmp(child.key, "x-", 2))
			continue;
		r = shape_any(&child, NULL, &value);
		json_object_set_new(whole, child.key, value);
	}
	return r;
}

int config_shape(struct loading *l, bool inactive, json_t **ret)
{
	struct field root = field_root(&l->reader, l->root);
	json_t *whole = json_object();
	const char *project = loading_variable(l, "COMPOSE_PROJECT_NAME");
	int r = add_all(&root, project ? project : "", inactive, whole);
	if (r == 0)
		*ret = escaped(whole);
	json_decref(whole);
	return r;
}
