/* A service's spec as the body of POST /containers/create. Pure: nothing is asked, nothing is made. */
#include <stdlib.h>
#include <string.h>

#include "backends/engine.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/path.h"

char *engine_container_name(const struct engine *e, const char *service)
{
	return xasprintf("%s-%s", e->namespace_, service);
}

char *engine_network_name(const struct engine *e)
{
	return xstrdup(e->namespace_);
}

json_t *engine_labels(const struct engine *e)
{
	return json_pack("{s:s, s:s, s:s, s:s}", ENGINE_LABEL_MANAGED, "true", ENGINE_LABEL_NAMESPACE, e->namespace_, ENGINE_LABEL_WORKSPACE,
	                 e->workspace ? e->workspace : "", COMPOSE_LABEL_PROJECT, e->namespace_);
}

static json_t *strings(char *const *words)
{
	json_t *list = json_array();
	for (; words && *words; words++)
		json_array_append_new(list, json_string(*words));
	return list;
}

/* A name without a value is not set at all, as in Compose when the caller has none. */
static json_t *environment(const struct keyvals *env)
{
	json_t *list = json_array();
	for (size_t i = 0; env && i < env->count; i++) {
		cleanup_free char *text = env->items[i].value ? xasprintf("%s=%s", env->items[i].key, env->items[i].value) : NULL;
		if (text)
			json_array_append_new(list, json_string(text));
	}
	return list;
}

static void add_ports(const struct service_spec *spec, json_t *exposed, json_t *bindings)
{
	for (size_t i = 0; i < spec->n_ports; i++) {
		const struct port_binding *p = &spec->ports[i];
		cleanup_free char *key = xasprintf("%u/%s", p->internal, p->protocol ? p->protocol : "tcp"), *number = xasprintf("%u", p->external);
		json_object_set_new(exposed, key, json_object());
		json_object_set_new(bindings, key, json_pack("[{s:s, s:s}]", "HostIp", "127.0.0.1", "HostPort", number));
	}
}

/* Is `word` among "ro,z,word"? */
static bool has_option(const char *options, const char *word)
{
	size_t len = strlen(word);
	for (const char *at = options; at && *at; at += strcspn(at, ","), at += *at == ',')
		if (!strncmp(at, word, len) && (!at[len] || at[len] == ','))
			return true;
	return false;
}

/* "Source" of one of ours is its name when that is known. */
static json_t *volume_mount(struct engine_plan *p, const struct volume_spec *v, const char *source)
{
	json_t *options = json_object();
	if (has_option(v->options, "nocopy"))
		json_object_set_new(options, "NoCopy", json_true());
	if (v->subpath) {
		json_object_set_new(options, "Subpath", json_string(v->subpath));
		p->api_needed = ENGINE_API_SUBPATH;
	}
	return json_pack("{s:s, s:s, s:s, s:b, s:o}", "Type", "volume", "Source", source, "Target", v->target, "ReadOnly", v->read_only, "VolumeOptions", options);
}

static json_t *bind_mount(const struct volume_spec *v)
{
	static const char *const words[] = {"rshared", "shared", "rslave", "slave", "rprivate", "private"};
	json_t *options = json_object();
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (has_option(v->options, words[i]))
			json_object_set_new(options, "Propagation", json_string(words[i]));
	return json_pack("{s:s, s:s, s:s, s:b, s:o}", "Type", "bind", "Source", v->source, "Target", v->target, "ReadOnly", v->read_only, "BindOptions", options);
}

/* For when it is made. */
static void keep_volume_options(struct engine_plan *p, const struct volume_spec *v)
{
	json_t *options = json_pack("{s:o, s:o}", "DriverOpts", keyvals_json(v->driver_opts), "Labels", keyvals_json(v->labels));
	if (v->driver)
		json_object_set_new(options, "Driver", json_string(v->driver));
	if (!p->volume_options)
		p->volume_options = json_object();
	json_object_set_new(p->volume_options, v->name, options);
}

static void add_volume(struct engine_plan *p, const struct volume_spec *v, json_t *mounts, json_t *binds, json_t *tmpfs)
{
	switch (v->kind) {
	case VOLUME_NAMED:
	case VOLUME_ANONYMOUS:
		strv_push(&p->volumes, xstrdup(v->name));
		strv_push(&p->records, xstrdup(v->source));
		strv_push(&p->targets, xstrdup(v->target));
		keep_volume_options(p, v);
		json_array_append_new(mounts, volume_mount(p, v, v->name));
		return;
	case VOLUME_EXTERNAL:
		strv_push(&p->externals, xstrdup(v->source));
		json_array_append_new(mounts, volume_mount(p, v, v->source));
		return;
	case VOLUME_BIND:
		bool labelled = has_option(v->options, "z") || has_option(v->options, "Z"); /* for SELinux: in this form alone; that it is there has been seen */
		if ((!v->must_exist || labelled) && !strchr(v->source, ':') && !strchr(v->target, ':')) { /* what is not there is made, as Compose does */
			cleanup_free char *bind = xasprintf("%s:%s:%s%s%s", v->source, v->target, v->read_only ? "ro" : "rw", v->options ? "," : "", v->options ? v->options : "");
			json_array_append_new(binds, json_string(bind));
			return;
		}
		json_array_append_new(mounts, bind_mount(v));
		return;
	case VOLUME_TMPFS:
		json_object_set_new(tmpfs, v->target, json_sprintf("%s%s%s", v->options ? v->options : "", v->options && v->read_only ? "," : "", v->read_only ? "ro" : ""));
		return;
	}
}

static json_t *host_config(const struct engine *e, struct engine_plan *p, const struct service_spec *spec, json_t *bindings)
{
	json_t *mounts = json_array(), *binds = json_array(), *tmpfs = json_object();
	cleanup_free char *network = engine_network_name(e);
	for (size_t i = 0; i < spec->n_volumes; i++)
		add_volume(p, &spec->volumes[i], mounts, binds, tmpfs);
	json_t *host = json_pack("{s:o, s:o, s:o, s:o, s:s, s:[s], s:{s:s}}", "PortBindings", bindings, "Mounts", mounts, "Binds", binds, "Tmpfs", tmpfs,
	                         "NetworkMode", network, "SecurityOpt", "no-new-privileges", "RestartPolicy", "Name", "no");
	if (spec->memory_bytes)
		json_object_set_new(host, "Memory", json_integer((json_int_t)spec->memory_bytes));
	if (spec->cpus > 0)
		json_object_set_new(host, "NanoCpus", json_integer((json_int_t)(spec->cpus * 1e9)));
	if (spec->pids)
		json_object_set_new(host, "PidsLimit", json_integer(spec->pids));
	return host;
}

static json_t *labels(const struct engine *e, const struct service_spec *spec)
{
	cleanup_free char *generation = xasprintf("%u", spec->generation);
	json_t *all = engine_labels(e);
	json_object_set_new(all, ENGINE_LABEL_SERVICE, json_string(spec->name));
	json_object_set_new(all, ENGINE_LABEL_CONFIG_HASH, json_string(spec->config_hash ? spec->config_hash : ""));
	json_object_set_new(all, ENGINE_LABEL_GENERATION, json_string(generation));
	cleanup_free char *pre_stop = spec->container ? container_hooks_text(spec->container->pre_stop) : NULL;
	if (pre_stop)
		json_object_set_new(all, CONTAINER_LABEL_PRE_STOP, json_string(pre_stop));
	json_object_set_new(all, COMPOSE_LABEL_SERVICE, json_string(spec->name));
	json_object_set_new(all, COMPOSE_LABEL_FILES, json_sprintf("%s/" BACKEND_COMPOSE_FILE, e->workspace_root));
	json_object_set_new(all, COMPOSE_LABEL_DIRECTORY, json_string(e->workspace_root));
	json_object_set_new(all, COMPOSE_LABEL_NUMBER, json_string("1"));
	json_object_set_new(all, COMPOSE_LABEL_ONEOFF, json_string("False"));
	json_object_set_new(all, COMPOSE_LABEL_CONFIG_HASH, json_string(spec->config_hash ? spec->config_hash : ""));
	return all;
}

struct engine_plan *engine_plan_new(const struct engine *e, const struct service_spec *spec)
{
	struct engine_plan *p = xcalloc(1, sizeof *p);
	json_t *exposed = json_object(), *bindings = json_object();
	p->service = xstrdup(spec->name);
	p->container = engine_container_name(e, spec->name);
	p->image = xstrdup(spec->image);
	p->build = spec->build ? build_spec_copy(spec->build) : NULL;
	p->config_hash = xstrdup(spec->config_hash ? spec->config_hash : "");
	p->generation = spec->generation;
	p->data = xstrdup(spec->data);
	p->platform = spec->container ? xstrdup(spec->container->platform) : NULL;
	p->pull = spec->container ? spec->container->pull : PULL_MISSING;
	p->ipv4_address = spec->container && spec->container->ipv4_address ? xstrdup(spec->container->ipv4_address) : NULL;
	p->post_start = spec->container ? strv_copy(spec->container->post_start) : NULL;
	p->pull_after_s = spec->container ? spec->container->pull_after_s : 0;
	add_ports(spec, exposed, bindings);
	cleanup_free char *network = engine_network_name(e);
	json_t *create = json_pack("{s:s, s:o, s:o, s:o, s:i}", "Image", spec->image ? spec->image : "", "Env", environment(spec->env), "Labels",
	                           labels(e, spec), "ExposedPorts", exposed, "StopTimeout", (int)((spec->stop_grace_ms + 999) / 1000));
	if (spec->stop_signal)
		json_object_set_new(create, "StopSignal", json_sprintf("%d", spec->stop_signal));
	if (spec->command)
		json_object_set_new(create, "Cmd", strings(spec->command));
	if (spec->entrypoint)
		json_object_set_new(create, "Entrypoint", strings(spec->entrypoint));
	if (spec->working_dir)
		json_object_set_new(create, "WorkingDir", json_string(spec->working_dir));
	json_t *aliases = strings(spec->aliases), *host = host_config(e, p, spec, bindings);
	json_array_insert_new(aliases, 0, json_string(spec->name));
	json_object_set_new(create, "HostConfig", host);
	json_object_set_new(create, "NetworkingConfig", json_pack("{s:{s:{s:o}}}", "EndpointsConfig", network, "Aliases", aliases));
	if (spec->container) {
		engine_container_options(spec->container, create, host);
		engine_plan_spaces(e, spec->container, p, create, host);
	}
	p->create = create;
	return p;
}

void engine_plan_set_volumes(struct engine_plan *p, char *const *names)
{
	json_t *mount, *mounts = json_object_get(json_object_get(p->create, "HostConfig"), "Mounts");
	size_t i;
	json_array_foreach (mounts, i, mount)
		for (size_t n = 0; p->targets && p->targets[n] && names[n]; n++)
			if (!strcmp(json_string_value(json_object_get(mount, "Target")), p->targets[n]))
				json_object_set_new(mount, "Source", json_string(names[n]));
}

/* An engine gives them 64 hexadecimal digits. */
static bool is_anonymous(const json_t *mount)
{
	const char *type = json_string_value(json_object_get(mount, "Type")), *name = json_string_value(json_object_get(mount, "Name"));
	return type && name && !strcmp(type, "volume") && strlen(name) == 64 && strspn(name, "0123456789abcdef") == 64;
}

char **engine_anonymous_volumes(const json_t *container)
{
	char **names = NULL;
	size_t i;
	json_t *mount;
	json_array_foreach (json_object_get(container, "Mounts"), i, mount)
		if (is_anonymous(mount))
			strv_push(&names, xstrdup(json_string_value(json_object_get(mount, "Name"))));
	return names;
}

/* "source:target[:mode]" */
static bool binds_at(const json_t *binds, const char *target)
{
	size_t i, len = strlen(target);
	json_t *bind;
	json_array_foreach (binds, i, bind) {
		const char *at = strchr(json_string_value(bind), ':') + 1;
		if (!strncmp(at, target, len) && (!at[len] || at[len] == ':'))
			return true;
	}
	return false;
}

static bool mounts_at(const json_t *mounts, const char *target)
{
	size_t i;
	json_t *mount;
	json_array_foreach (mounts, i, mount)
		if (!strcmp(json_string_value(json_object_get(mount, "Target")), target))
			return true;
	return false;
}

void engine_plan_add_image_volumes(struct engine_plan *p, const json_t *image)
{
	json_t *host = json_object_get(p->create, "HostConfig"), *mounts = json_object_get(host, "Mounts");
	const char *target;
	json_t *unused;
	if (json_object_get(host, "VolumesFrom")) /* the other's come first: which, the engine alone knows */
		return;
	json_object_foreach (json_object_get(json_object_get(image, "Config"), "Volumes"), target, unused) {
		cleanup_free char *flat = path_flat(target);
		if (!p->data || !*flat || mounts_at(mounts, target) || binds_at(json_object_get(host, "Binds"), target) ||
		    json_object_get(json_object_get(host, "Tmpfs"), target))
			continue;
		strv_pushf(&p->volumes, "%s.%s", p->service, flat);
		strv_pushf(&p->records, "%s/%s.volume", p->data, flat);
		strv_push(&p->targets, xstrdup(target));
		json_array_append_new(mounts, json_pack("{s:s, s:s, s:s}", "Type", "volume", "Source", flat, "Target", target));
	}
}

void engine_plan_free(struct engine_plan *p)
{
	if (!p)
		return;
	free(p->service);
	free(p->container);
	free(p->image);
	free(p->image_id);
	build_spec_free(p->build);
	free(p->config_hash);
	free(p->data);
	free(p->platform);
	json_decref(p->create);
	json_decref(p->volume_options);
	free(p->ipv4_address);
	strv_free(p->post_start);
	strv_free(p->externals);
	strv_free(p->networks);
	strv_free(p->network_names);
	strv_free(p->external_links);
	strv_free(p->records);
	strv_free(p->volumes);
	strv_free(p->targets);
	free(p);
}
