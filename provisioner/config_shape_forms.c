#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/config_shape.h"

/* The items of a list; each may give several. */
static int each_item(const struct field *f, int (*add)(const struct field *item, json_t *list), const struct shape *shape, json_t **ret)
{
	json_t *list = json_array();
	int r = f->node->type == YAML_LIST ? 0 : field_expected(f, "a list");
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field item = field_child(f, i);
		r = add(&item, list);
	}
	if (r == 0 && (json_array_size(list) || shape->always))
		*ret = list;
	else
		json_decref(list);
	return r;
}

static void set_text(json_t *object, const char *key, const char *text)
{
	if (text && *text)
		json_object_set_new(object, key, json_string(text));
}

static void set_default(json_t *object, const char *key, const char *text)
{
	if (!json_object_get(object, key))
		json_object_set_new(object, key, json_string(text));
}

/* ---- ports ---- */

static unsigned numbers(const char *range, unsigned *ret_from)
{
	const char *dash = strchr(range, '-');
	*ret_from = (unsigned)strtoul(range, NULL, 10);
	return dash ? (unsigned)strtoul(dash + 1, NULL, 10) - *ret_from + 1 : 1;
}

/* It has been read by config_ports.c, which knows what is wrong with it. */
static int add_short_port(const struct field *f, json_t *list)
{
	cleanup_free char *text = NULL;
	int r = field_text(f, &text);
	if (r < 0)
		return r;
	char *slash = strrchr(text, '/'), *published = (char *)"", *ip = (char *)"";
	if (slash)
		*slash = '\0';
	char *target = strrchr(text, ':');
	if (target) {
		*target++ = '\0';
		char *number = strrchr(text, ':');
		if (number) {
			*number++ = '\0';
			ip = text;
		}
		published = number ? number : text;
	}
	if (*ip == '[') {
		ip[strlen(ip) - 1] = '\0';
		ip++;
	}
	unsigned from, number = 0, n = numbers(target ? target : text, &from), of_host = *published ? numbers(published, &number) : 0;
	for (unsigned i = 0; i < n; i++) {
		cleanup_free char *one = of_host == n ? xasprintf("%u", number + i) : xstrdup(published);
		json_t *port = json_pack("{s:s, s:i, s:s}", "mode", "ingress", "target", (int)(from + i), "protocol", slash ? slash + 1 : "tcp");
		set_text(port, "host_ip", ip);
		set_text(port, "published", one);
		json_array_append_new(list, port);
	}
	return 0;
}

static const struct shape port_fields[] = {
    {"target", shape_integer}, {"published", shape_text}, {"host_ip", shape_text},      {"protocol", shape_text},
    {"mode", shape_text},      {"name", shape_text},      {"app_protocol", shape_text}, {NULL},
};

static int add_port(const struct field *f, json_t *list)
{
	static const struct shape port = {"", shape_object, port_fields, false};
	json_t *object = NULL;
	if (f->node->type != YAML_MAP)
		return add_short_port(f, list);
	int r = shape_object(f, &port, &object);
	set_default(object, "mode", "ingress");
	set_default(object, "protocol", "tcp");
	json_array_append_new(list, object);
	return r;
}

int shape_ports(const struct field *f, const struct shape *shape, json_t **ret)
{
	return each_item(f, add_port, shape, ret);
}

/* ---- volumes ---- */

static const struct shape bind_fields[] = {
    {"propagation", shape_text}, {"create_host_path", shape_bool}, {"selinux", shape_text}, {"recursive", shape_text}, {NULL},
};
static const struct shape named_fields[] = {
    {"nocopy", shape_bool}, {"subpath", shape_text}, {"labels", shape_mapping}, {NULL},
};
static const struct shape tmpfs_fields[] = {
    {"size", shape_bytes}, {"mode", shape_mode_number}, {NULL},
};
static const struct shape image_fields[] = {
    {"subpath", shape_text}, {NULL},
};
static const struct shape volume_fields[] = {
    {"type", shape_text},
    {"source", shape_text},
    {"src", NULL},
    {"target", shape_text},
    {"dst", NULL},
    {"destination", NULL},
    {"read_only", shape_bool},
    {"readonly", NULL},
    {"consistency", shape_text},
    {"bind", shape_object, bind_fields},
    {"volume", shape_object, named_fields},
    {"tmpfs", shape_object, tmpfs_fields},
    {"image", shape_object, image_fields},
    {NULL},
};

static void set_target(json_t *volume, const char *target)
{
	cleanup_free char *plain = config_path_normalized(target);
	cleanup_free char *whole = *target == '/' ? xasprintf("/%s", strcmp(plain, ".") ? plain : "") : xstrdup(plain);
	set_text(volume, "target", whole);
}

static void set_options(json_t *volume, const char *options, const char *kind)
{
	static const char *const propagations[] = {"rprivate", "private", "rshared", "shared", "rslave", "slave"};
	json_t *own = json_object();
	for (size_t len; *options; options += len + (options[len] == ',')) {
		len = strcspn(options, ",");
		cleanup_free char *option = xstrndup(options, len);
		if (!strcmp(option, "ro"))
			json_object_set_new(volume, "read_only", json_true());
		else if (!strcmp(option, "nocopy"))
			json_object_set_new(own, "nocopy", json_true());
		else if (!strcmp(option, "z") || !strcmp(option, "Z"))
			set_text(own, "selinux", option);
		for (size_t i = 0; i < sizeof propagations / sizeof *propagations; i++)
			if (!strcmp(option, propagations[i]))
				set_text(own, "propagation", option);
	}
	if (!strcmp(kind, "bind"))
		json_object_set_new(own, "create_host_path", json_true());
	json_object_set_new(volume, kind, own);
}

static json_t *bound_path(const struct field *f, const char *source)
{
	const struct yaml node = {.type = YAML_SCALAR, .text = (char *)(uintptr_t)source, .len = strlen(source), .file = f->file};
	struct field path = *f;
	json_t *ret = NULL;
	path.node = &node;
	path.verbatim = true; /* the variables have had their turn */
	return shape_path(&path, NULL, &ret) < 0 ? NULL : ret;
}

static int add_short_volume(const struct field *f, json_t *list)
{
	cleanup_free char *text = NULL;
	int r = field_text(f, &text);
	if (r < 0)
		return r;
	char *target = strchr(text, ':'), *options = (char *)"";
	if (target) {
		*target++ = '\0';
		char *colon = strchr(target, ':');
		if (colon) {
			*colon = '\0';
			options = colon + 1;
		}
	}
	const char *kind = target && strchr("/.~", *text) ? "bind" : "volume";
	json_t *volume = json_pack("{s:s}", "type", kind);
	if (target)
		json_object_set_new(volume, "source", strcmp(kind, "bind") ? json_string(text) : bound_path(f, text));
	set_target(volume, target ? target : text);
	set_options(volume, options, kind);
	json_array_append_new(list, volume);
	return 0;
}

static int add_volume(const struct field *f, json_t *list)
{
	static const struct shape volume = {"", shape_object, volume_fields, false};
	json_t *object = NULL;
	if (f->node->type != YAML_MAP)
		return add_short_volume(f, list);
	int r = shape_object(f, &volume, &object);
	const char *type = json_string_value(json_object_get(object, "type")), *source = json_string_value(json_object_get(object, "source")),
	           *target = json_string_value(json_object_get(object, "target"));
	if (r == 0 && type && source && !strcmp(type, "bind"))
		json_object_set_new(object, "source", bound_path(f, source));
	cleanup_free char *old = target ? xstrdup(target) : NULL;
	if (old)
		set_target(object, old);
	json_array_append_new(list, object);
	return r;
}

int shape_volumes(const struct field *f, const struct shape *shape, json_t **ret)
{
	return each_item(f, add_volume, shape, ret);
}

/* ---- what others are needed, and where they are met ---- */

static const struct shape dependency_fields[] = {
    {"condition", shape_text}, {"restart", shape_bool}, {"required", shape_bool, NULL, true}, {NULL},
};

int shape_depends_on(const struct field *f, const struct shape *shape, json_t **ret)
{
	static const struct shape dependency = {"", shape_object, dependency_fields, false};
	int r = 0;
	*ret = json_object();
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field child = field_child(f, i);
		cleanup_free char *name = NULL;
		json_t *object = NULL;
		if (child.key)
			r = shape_object(&child, &dependency, &object);
		else
			r = field_text(&child, &name);
		object = object ? object : json_object();
		set_default(object, "condition", "service_started");
		if (!json_object_get(object, "required"))
			json_object_set_new(object, "required", json_true());
		json_object_set_new(*ret, child.key ? child.key : name ? name : "", object);
	}
	return r;
}

static const struct shape network_fields[] = {
    {"aliases", shape_texts},     {"driver_opts", shape_mapping}, {"gw_priority", shape_integer},  {"interface_name", shape_text},
    {"ipv4_address", shape_text}, {"ipv6_address", shape_text},   {"link_local_ips", shape_texts}, {"mac_address", shape_text},
    {"priority", shape_integer},  {NULL},
};

int shape_networks(const struct field *f, const struct shape *shape, json_t **ret)
{
	static const struct shape networks = {"", shape_map, network_fields, true};
	if (f->node->type != YAML_LIST)
		return shape_map(f, &networks, ret);
	int r = 0;
	*ret = json_object();
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field item = field_child(f, i);
		cleanup_free char *name = NULL;
		r = field_text(&item, &name);
		if (r == 0)
			json_object_set_new(*ret, name, json_null());
	}
	return r;
}

/* ---- files and devices ---- */

static const struct shape device_fields[] = {
    {"source", shape_text}, {"target", shape_text}, {"permissions", shape_text}, {NULL},
};

static int add_device(const struct field *f, json_t *list)
{
	static const struct shape device = {"", shape_object, device_fields, false};
	json_t *object = NULL;
	cleanup_free char *text = NULL;
	int r = f->node->type == YAML_MAP ? shape_object(f, &device, &object) : field_text(f, &text);
	if (r == 0 && text) {
		char *target = strchr(text, ':'), *permissions = target ? strchr(target + 1, ':') : NULL;
		if (target)
			*target++ = '\0';
		if (permissions)
			*permissions++ = '\0';
		object = json_pack("{s:s, s:s, s:s}", "source", text, "target", target && *target ? target : text, "permissions",
		                   permissions ? permissions : "rwm");
	}
	if (object)
		json_array_append_new(list, object);
	return r;
}

int shape_devices(const struct field *f, const struct shape *shape, json_t **ret)
{
	return each_item(f, add_device, shape, ret);
}

static const struct shape mount_fields[] = {
    {"source", shape_text}, {"target", shape_text}, {"uid", shape_text}, {"gid", shape_text}, {"mode", shape_mode}, {NULL},
};

static int add_mount(const struct field *f, json_t *list)
{
	static const struct shape mount = {"", shape_object, mount_fields, false};
	json_t *object = NULL, *source = NULL;
	int r = f->node->type == YAML_MAP ? shape_object(f, &mount, &object) : shape_text(f, &mount, &source);
	if (source)
		object = json_pack("{s:o}", "source", source);
	if (object)
		json_array_append_new(list, object);
	return r;
}

int shape_file_mounts(const struct field *f, const struct shape *shape, json_t **ret)
{
	return each_item(f, add_mount, shape, ret);
}

int shape_secret_mounts(const struct field *f, const struct shape *shape, json_t **ret)
{
	size_t i;
	json_t *mount;
	int r = each_item(f, add_mount, shape, ret);
	json_array_foreach(*ret, i, mount) {
		const char *source = json_string_value(json_object_get(mount, "source"));
		cleanup_free char *target = xasprintf("/run/secrets/%s", source ? source : "");
		set_default(mount, "target", target);
	}
	return r;
}

/* ---- one number or two, one text or many ---- */

int shape_ulimits(const struct field *f, const struct shape *shape, json_t **ret)
{
	static const struct shape fields[] = {{"soft", shape_integer}, {"hard", shape_integer}, {NULL}};
	static const struct shape both = {"", shape_object, fields, false}, one = {"", shape_integer, NULL, true};
	int r = f->node->type == YAML_MAP ? 0 : field_expected(f, "a mapping of limits");
	json_t *map = json_object();
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field child = field_child(f, i);
		json_t *value = NULL;
		r = child.node->type == YAML_MAP ? shape_object(&child, &both, &value) : shape_integer(&child, &one, &value);
		if (value)
			json_object_set_new(map, child.key, value);
	}
	if (r == 0 && json_object_size(map))
		*ret = map;
	else
		json_decref(map);
	return r;
}

static int compare_texts(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int add_hosts(const struct field *f, const char *key, char ***hosts)
{
	cleanup_free char *text = NULL;
	int r = 0;
	for (size_t i = 0; r == 0 && key && f->node->type == YAML_LIST && i < f->node->count; i++) {
		struct field item = field_child(f, i);
		r = add_hosts(&item, key, hosts);
	}
	if (f->node->type == YAML_LIST || r < 0)
		return r;
	r = field_text(f, &text);
	if (r < 0)
		return r;
	/* a list that was merged with a mapping has become keys of its own */
	const char *whole = key && *text ? NULL : key ? key : text, *split = whole ? whole + strcspn(whole, "=") : NULL;
	if (split && !*split)
		split = whole + strcspn(whole, ":");
	cleanup_free char *host = whole ? xstrndup(whole, (size_t)(split - whole)) : xstrdup(key);
	const char *address = whole ? split + (*split != '\0') : text;
	size_t len = strlen(address);
	bool brackets = len > 2 && *address == '[' && address[len - 1] == ']';
	strv_pushf(hosts, "%s=%.*s", host, (int)(brackets ? len - 2 : len), address + brackets);
	return 0;
}

int shape_hosts(const struct field *f, const struct shape *shape, json_t **ret)
{
	cleanup_strv char **hosts = NULL;
	int r = f->node->type == YAML_MAP || f->node->type == YAML_LIST ? 0 : field_expected(f, "hosts and their addresses");
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field child = field_child(f, i);
		r = add_hosts(&child, child.key, &hosts);
	}
	if (r < 0 || !hosts)
		return r;
	qsort(hosts, strv_len(hosts), sizeof *hosts, compare_texts);
	*ret = json_array();
	for (char **host = hosts; *host; host++)
		json_array_append_new(*ret, json_string(*host));
	return 0;
}

int shape_test(const struct field *f, const struct shape *shape, json_t **ret)
{
	json_t *text = NULL;
	if (f->node->type == YAML_LIST)
		return shape_texts(f, shape, ret);
	int r = shape_text(f, &(struct shape){.always = true}, &text);
	if (r == 0)
		*ret = json_pack("[s, o]", "CMD-SHELL", text);
	return r;
}

/* ---- build ---- */

static bool is_elsewhere(const char *text)
{
	return strstr(text, "://") || !strncmp(text, "git@", 4) || !strncmp(text, "github.com/", 11) || !strncmp(text, "service:", 8);
}

int shape_context(const struct field *f, const struct shape *shape, json_t **ret)
{
	json_t *text = NULL;
	int r = shape_text(f, shape, &text);
	if (r == 0 && text && !is_elsewhere(json_string_value(text))) {
		*ret = bound_path(f, json_string_value(text));
		json_decref(text);
	} else {
		*ret = text;
	}
	return r;
}

int shape_contexts(const struct field *f, const struct shape *shape, json_t **ret)
{
	const char *key;
	json_t *value, *map = NULL;
	int r = shape_mapping(f, shape, &map);
	if (r < 0 || !map)
		return r;
	*ret = json_object();
	json_object_foreach(map, key, value) {
		const char *text = json_string_value(value);
		json_object_set_new(*ret, key, is_elsewhere(text) ? json_string(text) : bound_path(f, text));
	}
	json_decref(map);
	return 0;
}

/* Without those that nobody has set. */
int shape_args(const struct field *f, const struct shape *shape, json_t **ret)
{
	cleanup_keyvals struct keyvals args = KEYVALS_INIT;
	int r = read_variables(f, &args);
	if (r < 0 || !args.count)
		return r;
	*ret = json_object();
	for (size_t i = 0; i < args.count; i++)
		json_object_set_new(*ret, args.items[i].key, json_string(args.items[i].value));
	return 0;
}

int shape_ssh(const struct field *f, const struct shape *shape, json_t **ret)
{
	json_t *map = NULL, *value;
	const char *key;
	int r = shape_mapping(f, shape, &map);
	if (r < 0 || !map)
		return r;
	*ret = json_array();
	json_object_foreach(map, key, value) {
		const char *path = json_string_value(value);
		cleanup_free char *text = *path ? xasprintf("%s=%s", key, path) : xstrdup(key);
		json_array_append_new(*ret, json_string(text));
	}
	json_decref(map);
	return 0;
}

/* ---- what the configuration has read already ---- */

/* `f` is the service. What a name alone stands for, and nobody has set, is null. */
int shape_environment(const struct field *f, const struct shape *shape, json_t **ret)
{
	const struct config_service *s = config_service(loading_of(f)->config, f->key);
	struct field environment;
	json_t *map = json_object();
	for (size_t i = 0; s && i < s->environment.count; i++)
		json_object_set_new(map, s->environment.items[i].key,
		                    s->environment.items[i].value ? json_string(s->environment.items[i].value) : json_null());
	bool given = field_find(f, "environment", &environment);
	for (size_t i = 0; given && i < environment.node->count; i++) {
		struct field child = field_child(&environment, i);
		const char *name = child.key ? child.key : child.node->text;
		if (name && (child.key ? field_is_null(&child) : !strchr(name, '=')) && !json_object_get(map, name))
			json_object_set_new(map, name, json_null());
	}
	if (json_object_size(map))
		*ret = map;
	else
		json_decref(map);
	return 0;
}

/* ---- devices by what they can do ---- */

static int device_count(const struct field *f, const struct shape *shape, json_t **ret)
{
	json_t *text = NULL;
	int r = shape_text(f, shape, &text);
	const char *count = json_string_value(text);
	if (count)
		*ret = json_integer(strcmp(count, "all") ? strtoll(count, NULL, 10) : -1);
	json_decref(text);
	return r;
}

static const struct shape request_fields[] = {
    {"capabilities", shape_texts}, {"driver", shape_text}, {"count", device_count}, {"device_ids", shape_texts}, {"options", shape_mapping}, {NULL},
};

int shape_device_requests(const struct field *f, const struct shape *shape, json_t **ret)
{
	static const struct shape requests = {"", shape_objects, request_fields, false};
	size_t i;
	json_t *request;
	int r = shape_objects(f, &requests, ret);
	json_array_foreach(*ret, i, request)
		if (!json_object_get(request, "count") && !json_object_get(request, "device_ids"))
			json_object_set_new(request, "count", json_integer(-1));
	return r;
}

int shape_gpus(const struct field *f, const struct shape *shape, json_t **ret)
{
	if (f->node->type == YAML_LIST)
		return shape_device_requests(f, shape, ret);
	*ret = json_pack("[{s:i}]", "count", -1);
	return 0;
}
