/* The fields of a service that only a container has (compose-spec 05-services). A process of this machine takes none of them: their names are
 * kept for the warning that says so. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/config_private.h"
#include "provisioner/config_shape.h"

#define ULIMITS_MAX 100

static struct container_options *options(const struct field *f, void *out)
{
	struct config_service *s = out;
	if (f->key && !strv_contains(s->container_fields, f->key))
		strv_push(&s->container_fields, xstrdup(f->key));
	return &s->container;
}

#define TEXT(member)                                                                                                   \
	static int take_##member(const struct field *f, void *out)                                                         \
	{                                                                                                                  \
		free(move_ptr(((struct config_service *)out)->container.member));                                              \
		return field_text(f, &options(f, out)->member);                                                                \
	}
#define LIST(member)                                                                                                   \
	static int take_##member(const struct field *f, void *out)                                                         \
	{                                                                                                                  \
		strv_free(move_ptr(((struct config_service *)out)->container.member));                                         \
		return field_strings_or_one(f, &options(f, out)->member);                                                      \
	}
#define SWITCH(member)                                                                                                 \
	static int take_##member(const struct field *f, void *out)                                                         \
	{                                                                                                                  \
		return field_bool(f, &options(f, out)->member);                                                                \
	}
#define BYTES(member)                                                                                                  \
	static int take_##member(const struct field *f, void *out)                                                         \
	{                                                                                                                  \
		return field_bytes(f, &options(f, out)->member);                                                               \
	}
#define NUMBER(member, least, most)                                                                                    \
	static int take_##member(const struct field *f, void *out)                                                         \
	{                                                                                                                  \
		return field_int(f, least, most, &options(f, out)->member);                                                    \
	}

TEXT(user)
TEXT(domainname)
TEXT(platform)
TEXT(pid)
TEXT(network)
TEXT(ipc)
TEXT(uts)
TEXT(userns)
TEXT(cgroup)
TEXT(runtime)
TEXT(cpuset)
TEXT(cgroup_parent)
TEXT(mac_address)
LIST(cap_add)
LIST(cap_drop)
LIST(group_add)
LIST(security_opt)
LIST(device_rules)
LIST(volumes_from)
LIST(external_links)
LIST(dns)
LIST(dns_search)
LIST(dns_options)
SWITCH(privileged)
SWITCH(read_only)
SWITCH(init)
SWITCH(tty)
SWITCH(stdin_open)
SWITCH(oom_kill_disable)
BYTES(shm_bytes)
BYTES(memory_reservation_bytes)
NUMBER(memory_swappiness, 0, 100)
NUMBER(cpu_shares, 0, INT64_MAX)
NUMBER(cpu_quota, -1, INT64_MAX)
NUMBER(cpu_period, 0, INT64_MAX)
NUMBER(oom_score_adj, -1000, 1000)

/* The shared name is also one by which its peers know it. */
static int take_hostname(const struct field *f, void *out)
{
	struct config_service *s = out;
	char *name = NULL;
	int r = field_string(f, &name);
	if (r < 0)
		return r;
	strv_push(&s->aliases, xstrdup(name));
	free(s->container.hostname);
	s->container.hostname = name;
	return 0;
}

static int take_labels(const struct field *f, void *out)
{
	return read_variables(f, &options(f, out)->labels);
}

static int take_annotations(const struct field *f, void *out)
{
	return read_variables(f, &options(f, out)->annotations);
}

static int take_sysctls(const struct field *f, void *out)
{
	return read_variables(f, &options(f, out)->sysctls);
}

static int take_storage(const struct field *f, void *out)
{
	return read_variables(f, &options(f, out)->storage);
}

/* ---- logging ---- */

static int take_log_driver(const struct field *f, void *out)
{
	return field_text(f, &((struct container_options *)out)->log_driver);
}

static int take_log_options(const struct field *f, void *out)
{
	return read_variables(f, &((struct container_options *)out)->log_options);
}

static const struct field_reader logging_fields[] = {{"driver", take_log_driver}, {"options", take_log_options}, {NULL, NULL}};

static int take_logging(const struct field *f, void *out)
{
	return field_read_map(f, logging_fields, UNKNOWN_WARNS, "a mapping with driver and options", options(f, out));
}

/* ---- label_file: what labels says lies above ---- */

static int read_label_file(const struct field *f, struct config_service *s, const char *path, struct keyvals *labels)
{
	bool outside = false;
	struct error *err = f->reader->err;
	int r = loading_read_labels(loading_of(f), path, labels, &outside);
	if (outside && r == 0)
		approve_text(f, path);
	if (r == 0 || error_is_set(&s->fault))
		return 0;
	f->reader->err = &s->fault;
	field_error(f, "%s: %s", path, strerror(-r));
	f->reader->err = err;
	return 0;
}

static int take_label_file(const struct field *f, void *out)
{
	struct config_service *s = out;
	cleanup_strv char **paths = NULL;
	cleanup_keyvals struct keyvals labels = KEYVALS_INIT;
	struct keyvals *own = &options(f, out)->labels;
	int r = field_strings_or_one(f, &paths);
	for (char **path = paths; r == 0 && path && *path; path++)
		r = read_label_file(f, s, *path, &labels);
	keyvals_copy(&labels, own);
	keyvals_release(own);
	*own = labels;
	labels = (struct keyvals)KEYVALS_INIT;
	return r;
}

/* ---- blkio_config ---- */

struct device_rate {
	char *path;
	int64_t weight;
	uint64_t bytes;
};

static int take_rate_path(const struct field *f, void *out)
{
	return field_text(f, &((struct device_rate *)out)->path);
}

static int take_weight(const struct field *f, void *out)
{
	return field_int(f, 0, 1000, &((struct device_rate *)out)->weight);
}

static int take_rate(const struct field *f, void *out)
{
	return field_bytes(f, &((struct device_rate *)out)->bytes);
}

static const struct field_reader weight_fields[] = {{"path", take_rate_path}, {"weight", take_weight}, {NULL, NULL}};
static const struct field_reader rate_fields[] = {{"path", take_rate_path}, {"rate", take_rate}, {NULL, NULL}};

static int take_rates(const struct field *f, json_t *list, bool weights)
{
	int r = f->node->type == YAML_LIST ? 0 : field_expected(f, "a list of devices");
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field child = field_child(f, i);
		struct device_rate rate = {NULL, 0, 0};
		r = field_read_map(&child, weights ? weight_fields : rate_fields, UNKNOWN_WARNS, weights ? "path and weight" : "path and rate", &rate);
		if (r == 0)
			json_array_append_new(list, json_pack("{s:s, s:I}", "Path", rate.path ? rate.path : "", weights ? "Weight" : "Rate",
			                                      weights ? (json_int_t)rate.weight : (json_int_t)rate.bytes));
		free(rate.path);
	}
	return r;
}

static int take_blkio_weight(const struct field *f, void *out)
{
	struct device_rate rate = {NULL, 0, 0};
	int r = take_weight(f, &rate);
	json_object_set_new(out, "BlkioWeight", json_integer(rate.weight));
	return r;
}

/* https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerCreate, HostConfig */
static int take_blkio_devices(const struct field *f, void *out)
{
	static const char *const names[][2] = {{"weight_device", "BlkioWeightDevice"},       {"device_read_bps", "BlkioDeviceReadBps"},   {"device_read_iops", "BlkioDeviceReadIOps"},
	                                       {"device_write_bps", "BlkioDeviceWriteBps"}, {"device_write_iops", "BlkioDeviceWriteIOps"}};
	size_t i = 0;
	while (strcmp(names[i][0], f->key))
		i++;
	json_t *list = json_array();
	json_object_set_new(out, names[i][1], list);
	return take_rates(f, list, i == 0);
}

static const struct field_reader blkio_fields[] = {
    {"weight", take_blkio_weight},            {"weight_device", take_blkio_devices},    {"device_read_bps", take_blkio_devices}, {"device_read_iops", take_blkio_devices},
    {"device_write_bps", take_blkio_devices}, {"device_write_iops", take_blkio_devices}, {NULL, NULL}};

static int take_blkio(const struct field *f, void *out)
{
	struct container_options *o = options(f, out);
	json_t *host = json_object();
	int r = field_read_map(f, blkio_fields, UNKNOWN_WARNS, "a mapping", host);
	free(o->blkio);
	o->blkio = r == 0 && json_object_size(host) ? json_dumps(host, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	json_decref(host);
	return r;
}

static int take_memory_swap(const struct field *f, void *out)
{
	struct container_options *o = options(f, out);
	uint64_t bytes = 0;
	if (f->node->type == YAML_SCALAR && !strcmp(f->node->text, "-1")) {
		o->memory_swap_bytes = -1;
		return 0;
	}
	int r = field_bytes(f, &bytes);
	o->memory_swap_bytes = (int64_t)bytes;
	return r;
}

/* "12h", "1w2d": seconds; 0: it is no such time */
static unsigned parse_age(const char *text)
{
	static const char units[] = "wdhms";
	static const unsigned seconds[] = {7 * 86400, 86400, 3600, 60, 1};
	uint64_t age = 0;
	while (*text) {
		size_t digits = strspn(text, "0123456789");
		const char *unit = text[digits] ? strchr(units, text[digits]) : NULL;
		if (!digits || digits > 6 || !unit)
			return 0;
		age += strtoull(text, NULL, 10) * seconds[unit - units];
		text += digits + 1;
	}
	return age > UINT32_MAX ? UINT32_MAX : (unsigned)age;
}

static int take_pull(const struct field *f, void *out)
{
	static const struct {
		const char *word;
		enum pull_policy policy;
		unsigned after_s;
	} policies[] = {{"missing", PULL_MISSING}, {"if_not_present", PULL_MISSING}, {"refresh", PULL_MISSING}, /* as docker compose reads it */
	                {"always", PULL_ALWAYS},   {"never", PULL_NEVER},            {"build", PULL_NEVER},
	                {"daily", PULL_OLD, 86400}, {"weekly", PULL_OLD, 7 * 86400}};
	struct container_options *o = options(f, out);
	cleanup_free char *text = NULL;
	int r = field_string(f, &text);
	if (r < 0)
		return r;
	for (size_t i = 0; i < sizeof policies / sizeof *policies; i++)
		if (!strcmp(text, policies[i].word)) {
			o->pull = policies[i].policy;
			o->pull_after_s = policies[i].after_s;
			return 0;
		}
	o->pull = PULL_OLD;
	o->pull_after_s = !strncmp(text, "every_", 6) ? parse_age(text + 6) : 0;
	return o->pull_after_s ? 0 : field_expected(f, "missing, if_not_present, always, never, build, daily, weekly or every_12h");
}

/* ---- extra_hosts: a list of NAME:ADDRESS or NAME=ADDRESS, or a mapping ---- */

static int take_host(const struct field *f, char ***hosts)
{
	cleanup_free char *text = NULL;
	int r = field_text(f, &text);
	if (r < 0)
		return r;
	char *at = f->key ? NULL : strpbrk(text, "=:");
	if (!f->key && (!at || at == text || !at[1]))
		return field_expected(f, "NAME:ADDRESS");
	const char *address = f->key ? text : at + 1;
	size_t len = strlen(address);
	bool brackets = len > 2 && *address == '[' && address[len - 1] == ']'; /* an engine knows none */
	if (at)
		*at = '\0';
	strv_pushf(hosts, "%s:%.*s", f->key ? f->key : text, (int)(len - 2 * brackets), address + brackets);
	return 0;
}

int read_extra_hosts(const struct field *f, char ***hosts)
{
	int r = 0;
	if (f->node->type != YAML_LIST && f->node->type != YAML_MAP)
		return field_expected(f, "a list of NAME:ADDRESS, or a mapping");
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field child = field_child(f, i);
		bool several = child.key && child.node->type == YAML_LIST;
		for (size_t k = 0; r == 0 && several && k < child.node->count; k++) {
			struct field address = field_child(&child, k);
			address.key = child.key;
			r = take_host(&address, hosts);
		}
		if (!several)
			r = take_host(&child, hosts);
	}
	return r;
}

static int take_extra_hosts(const struct field *f, void *out)
{
	return read_extra_hosts(f, &options(f, out)->extra_hosts);
}

/* ---- devices ---- */

struct device {
	char *source, *target, *permissions;
};

static int take_device_source(const struct field *f, void *out)
{
	return field_text(f, &((struct device *)out)->source);
}

static int take_device_target(const struct field *f, void *out)
{
	return field_text(f, &((struct device *)out)->target);
}

static int take_device_permissions(const struct field *f, void *out)
{
	return field_text(f, &((struct device *)out)->permissions);
}

static const struct field_reader device_fields[] = {
    {"source", take_device_source}, {"target", take_device_target}, {"permissions", take_device_permissions}, {NULL, NULL}};

static int take_device(const struct field *f, struct container_options *o)
{
	struct device d = {NULL, NULL, NULL};
	char *text = NULL;
	int r = 0;
	if (f->node->type == YAML_MAP) {
		r = field_read_map(f, device_fields, UNKNOWN_WARNS, "a device", &d);
		if (r == 0 && !d.source)
			r = field_error(f, "a device needs a source");
		if (r == 0)
			text = xasprintf("%s:%s:%s", d.source, d.target ? d.target : d.source, d.permissions ? d.permissions : "rwm");
	} else {
		r = field_text(f, &text);
	}
	free(d.source);
	free(d.target);
	free(d.permissions);
	if (r == 0)
		strv_push(&o->devices, text);
	return r;
}

static int take_devices(const struct field *f, void *out)
{
	struct container_options *o = options(f, out);
	int r = f->node->type == YAML_LIST ? 0 : field_expected(f, "a list of devices");
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field child = field_child(f, i);
		r = take_device(&child, o);
	}
	return r;
}

/* ---- devices by what they can do: gpus, and deploy.resources.reservations.devices ---- */

/* https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerCreate, DeviceRequest; new */
static char *device_request(const json_t *one, bool gpu)
{
	static const char *const names[][2] = {{"driver", "Driver"}, {"count", "Count"}, {"device_ids", "DeviceIDs"}, {"options", "Options"}};
	json_t *able = json_array(), *request = json_object();
	if (json_object_get(one, "capabilities"))
		json_array_extend(able, json_object_get(one, "capabilities"));
	if (gpu)
		json_array_append_new(able, json_string("gpu"));
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (json_object_get(one, names[i][0]))
			json_object_set(request, names[i][1], json_object_get(one, names[i][0]));
	json_object_set_new(request, "Capabilities", json_pack("[o]", able));
	char *text = json_dumps(request, JSON_COMPACT | JSON_SORT_KEYS);
	json_decref(request);
	return text;
}

static int take_requests(const struct field *f, struct container_options *o, bool gpu)
{
	json_t *all = NULL, *one;
	size_t i;
	int r = gpu ? shape_gpus(f, NULL, &all) : shape_device_requests(f, NULL, &all);
	json_array_foreach (all, i, one)
		if (r == 0)
			strv_push(&o->device_requests, device_request(one, gpu));
	json_decref(all);
	return r;
}

static int take_gpus(const struct field *f, void *out)
{
	if (f->node->type == YAML_SCALAR && strcmp(f->node->text, "all"))
		return field_expected(f, "all, or a list of devices");
	return take_requests(f, options(f, out), true);
}

int read_device_requests(const struct field *f, void *out)
{
	return take_requests(f, options(f, out), false);
}

/* ---- ulimits: NAME: N, or NAME: {soft: N, hard: N} ---- */

static int take_soft(const struct field *f, void *out)
{
	return field_int(f, -1, INT64_MAX, &((struct ulimit_option *)out)->soft);
}

static int take_hard(const struct field *f, void *out)
{
	return field_int(f, -1, INT64_MAX, &((struct ulimit_option *)out)->hard);
}

static const struct field_reader ulimit_fields[] = {{"soft", take_soft}, {"hard", take_hard}, {NULL, NULL}};

int read_ulimits(const struct field *f, struct ulimit_option **limits, size_t *n)
{
	int r = f->node->type == YAML_MAP && f->node->count <= ULIMITS_MAX ? 0 : field_expected(f, "a mapping of limits");
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field child = field_child(f, i);
		struct ulimit_option limit = {NULL, -1, -1};
		if (child.node->type == YAML_MAP)
			r = field_read_map(&child, ulimit_fields, UNKNOWN_FAILS, "a number, or soft and hard", &limit);
		else if ((r = take_soft(&child, &limit)) == 0)
			limit.hard = limit.soft;
		if (r < 0)
			break;
		limit.name = xstrdup(child.key);
		array_grow(*limits, *n);
		(*limits)[(*n)++] = limit;
	}
	return r;
}

static int take_ulimits(const struct field *f, void *out)
{
	struct container_options *o = options(f, out);
	return read_ulimits(f, &o->ulimits, &o->n_ulimits);
}

/* ---- post_start, pre_stop: what is run in it when it has been started, and before it is stopped ---- */

struct hook {
	char **command, *user, *directory;
	struct keyvals env;
	bool privileged;
};

static int take_hook_command(const struct field *f, void *out)
{
	return field_argv(f, &((struct hook *)out)->command);
}

static int take_hook_user(const struct field *f, void *out)
{
	return field_text(f, &((struct hook *)out)->user);
}

static int take_hook_directory(const struct field *f, void *out)
{
	return field_text(f, &((struct hook *)out)->directory);
}

static int take_hook_privileged(const struct field *f, void *out)
{
	return field_bool(f, &((struct hook *)out)->privileged);
}

static int take_hook_environment(const struct field *f, void *out)
{
	return read_variables(f, &((struct hook *)out)->env);
}

static const struct field_reader hook_fields[] = {{"command", take_hook_command},       {"user", take_hook_user},               {"working_dir", take_hook_directory},
                                                  {"privileged", take_hook_privileged}, {"environment", take_hook_environment}, {NULL, NULL}};

/* https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Exec/operation/ContainerExec; new */
static char *hook_text(const struct hook *h)
{
	json_t *words = json_array(), *env = json_array();
	for (char **word = h->command; word && *word; word++)
		json_array_append_new(words, json_string(*word));
	for (size_t i = 0; i < h->env.count; i++)
		if (h->env.items[i].value)
			json_array_append_new(env, json_sprintf("%s=%s", h->env.items[i].key, h->env.items[i].value));
	json_t *body = json_pack("{s:b, s:b, s:o, s:o, s:b, s:s*, s:s*}", "AttachStdout", true, "AttachStderr", true, "Cmd", words, "Env", env, "Privileged", h->privileged, "User", h->user,
	                         "WorkingDir", h->directory);
	char *text = json_dumps(body, JSON_COMPACT | JSON_SORT_KEYS);
	json_decref(body);
	return text;
}

static int take_hooks(const struct field *f, char ***hooks)
{
	int r = f->node->type == YAML_LIST ? 0 : field_expected(f, "a list of mappings with command");
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field child = field_child(f, i);
		struct hook h = {.env = KEYVALS_INIT};
		r = field_read_map(&child, hook_fields, UNKNOWN_WARNS, "a mapping with command", &h);
		if (r == 0 && !(h.command && *h.command))
			r = field_error(&child, "it has no command");
		if (r == 0)
			strv_push(hooks, hook_text(&h));
		strv_free(h.command);
		free(h.user);
		free(h.directory);
		keyvals_release(&h.env);
	}
	return r;
}

static int take_post_start(const struct field *f, void *out)
{
	return take_hooks(f, &options(f, out)->post_start);
}

static int take_pre_stop(const struct field *f, void *out)
{
	return take_hooks(f, &options(f, out)->pre_stop);
}

const struct field_reader container_fields[] = {
    {"annotations", take_annotations},
    {"blkio_config", take_blkio},
    {"cap_add", take_cap_add},
    {"cap_drop", take_cap_drop},
    {"cgroup", take_cgroup},
    {"cgroup_parent", take_cgroup_parent},
    {"cpu_period", take_cpu_period},
    {"cpu_quota", take_cpu_quota},
    {"cpu_shares", take_cpu_shares},
    {"cpuset", take_cpuset},
    {"device_cgroup_rules", take_device_rules},
    {"devices", take_devices},
    {"dns", take_dns},
    {"dns_opt", take_dns_options},
    {"dns_search", take_dns_search},
    {"domainname", take_domainname},
    {"external_links", take_external_links},
    {"extra_hosts", take_extra_hosts},
    {"gpus", take_gpus},
    {"group_add", take_group_add},
    {"hostname", take_hostname},
    {"init", take_init},
    {"ipc", take_ipc},
    {"label_file", take_label_file},
    {"labels", take_labels},
    {"logging", take_logging},
    {"mac_address", take_mac_address},
    {"mem_reservation", take_memory_reservation_bytes},
    {"mem_swappiness", take_memory_swappiness},
    {"memswap_limit", take_memory_swap},
    {"network_mode", take_network},
    {"oom_kill_disable", take_oom_kill_disable},
    {"oom_score_adj", take_oom_score_adj},
    {"pid", take_pid},
    {"platform", take_platform},
    {"post_start", take_post_start},
    {"pre_stop", take_pre_stop},
    {"privileged", take_privileged},
    {"pull_policy", take_pull},
    {"read_only", take_read_only},
    {"runtime", take_runtime},
    {"security_opt", take_security_opt},
    {"shm_size", take_shm_bytes},
    {"stdin_open", take_stdin_open},
    {"storage_opt", take_storage},
    {"sysctls", take_sysctls},
    {"tty", take_tty},
    {"ulimits", take_ulimits},
    {"user", take_user},
    {"userns_mode", take_userns},
    {"uts", take_uts},
    {"volumes_from", take_volumes_from},
    {NULL, NULL},
};
