/* The volumes and networks of the top level: https://github.com/compose-spec/compose-spec, 06-networks and 07-volumes. Which of their words are
 * used is the backend's: they are kept, and warned of when it is known (model_warnings.c). */
#include <stdlib.h>
#include <string.h>

#include "backends/subnet.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/config_private.h"

#define RESOURCES_MAX 1000

void config_resources_release(struct config_resource *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(list[i].key);
		free(list[i].name);
		free(list[i].driver);
		keyvals_release(&list[i].driver_opts);
		keyvals_release(&list[i].labels);
		free(list[i].subnet);
		free(list[i].gateway);
		free(list[i].ip_range);
		strv_free(list[i].unused);
	}
	free(list);
}

static int take_name(const struct field *f, void *out)
{
	struct config_resource *r = out;
	free(move_ptr(r->name));
	return field_text(f, &r->name);
}

static const struct field_reader old_external[] = {{"name", take_name}, {NULL, NULL}};

/* `external: true`, and the old form `external: {name: ...}` */
static int take_external(const struct field *f, void *out)
{
	struct config_resource *r = out;
	r->external = f->node->type == YAML_MAP;
	return r->external ? field_read_map(f, old_external, UNKNOWN_WARNS, "true, or a mapping with name", out) : field_bool(f, &r->external);
}

static int take_driver(const struct field *f, void *out)
{
	return field_text(f, &((struct config_resource *)out)->driver);
}

static int take_driver_opts(const struct field *f, void *out)
{
	return read_variables(f, &((struct config_resource *)out)->driver_opts);
}

static int take_labels(const struct field *f, void *out)
{
	return read_variables(f, &((struct config_resource *)out)->labels);
}

static int take_unused(const struct field *f, void *out)
{
	bool is_false = f->node->type == YAML_SCALAR && !strcmp(f->node->text, "false");
	if (!is_false)
		strv_push(&((struct config_resource *)out)->unused, xstrdup(f->key));
	return 0;
}

/* ---- ipam ---- */

static int take_subnet(const struct field *f, void *out)
{
	return field_text(f, &((struct config_resource *)out)->subnet);
}

static int take_gateway(const struct field *f, void *out)
{
	return field_text(f, &((struct config_resource *)out)->gateway);
}

static int take_ip_range(const struct field *f, void *out)
{
	return field_text(f, &((struct config_resource *)out)->ip_range);
}

static int take_unused_ipam(const struct field *f, void *out)
{
	strv_pushf(&((struct config_resource *)out)->unused, "ipam.%s", f->key);
	return 0;
}

static const struct field_reader pool_fields[] = {
    {"subnet", take_subnet}, {"gateway", take_gateway}, {"ip_range", take_ip_range}, {"aux_addresses", take_unused_ipam}, {NULL, NULL}};

/* The first of IPv4: an engine's bridge has one. */
static int take_pools(const struct field *f, void *out)
{
	struct config_resource *network = out;
	int r = f->node->type == YAML_LIST ? 0 : field_expected(f, "a list of subnets");
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field child = field_child(f, i);
		struct config_resource pool = {.unused = network->unused};
		r = field_read_map(&child, pool_fields, UNKNOWN_WARNS, "a mapping with subnet", &pool);
		network->unused = pool.unused;
		bool taken = r == 0 && !network->subnet && subnet_is(pool.subnet);
		if (r == 0 && !taken)
			strv_pushf(&network->unused, "ipam (%s)", pool.subnet ? pool.subnet : "no subnet");
		if (taken) {
			network->subnet = move_ptr(pool.subnet);
			network->gateway = move_ptr(pool.gateway);
			network->ip_range = move_ptr(pool.ip_range);
		}
		free(pool.subnet);
		free(pool.gateway);
		free(pool.ip_range);
	}
	return r;
}

static int take_ipam_driver(const struct field *f, void *out)
{
	bool is_default = f->node->type == YAML_SCALAR && !strcmp(f->node->text, "default");
	return is_default ? 0 : take_unused_ipam(f, out);
}

static const struct field_reader ipam_fields[] = {{"driver", take_ipam_driver}, {"config", take_pools}, {"options", take_unused_ipam}, {NULL, NULL}};

static int take_ipam(const struct field *f, void *out)
{
	return field_read_map(f, ipam_fields, UNKNOWN_WARNS, "a mapping with config", out);
}

static const struct field_reader volume_fields[] = {
    {"name", take_name}, {"external", take_external}, {"driver", take_driver}, {"driver_opts", take_driver_opts}, {"labels", take_labels}, {NULL, NULL}};
static const struct field_reader network_fields[] = {
    {"name", take_name},       {"external", take_external},  {"driver", take_driver},     {"driver_opts", take_driver_opts}, {"labels", take_labels},
    {"ipam", take_ipam},       {"internal", take_unused},    {"attachable", field_ignore}, {"enable_ipv4", take_unused},      {"enable_ipv6", take_unused}, {NULL, NULL}};

static int read_resources(const struct field *f, const struct field_reader *table, const char *what, struct config_resource **list, size_t *n)
{
	int r = 0;
	if (f->node->type != YAML_MAP)
		return field_expected(f, what);
	if (f->node->count > RESOURCES_MAX)
		return field_error(f, "more than %d of them", RESOURCES_MAX);
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field child = field_child(f, i);
		if (!strncmp(child.key, "x-", 2))
			continue;
		array_grow(*list, *n);
		struct config_resource *resource = &(*list)[(*n)++];
		*resource = (struct config_resource){.key = xstrdup(child.key)};
		if (child.node->type != YAML_MAP && !field_is_null(&child))
			return field_expected(&child, "a mapping, or nothing");
		if (child.node->type == YAML_MAP)
			r = field_read_map(&child, table, UNKNOWN_WARNS, "a mapping, or nothing", resource);
	}
	return r;
}

int read_network_resources(const struct field *f, void *out)
{
	struct config *c = out;
	return read_resources(f, network_fields, "a mapping of networks", &c->networks, &c->n_networks);
}

int read_volume_resources(const struct field *f, void *out)
{
	struct config *c = out;
	return read_resources(f, volume_fields, "a mapping of volumes", &c->volumes, &c->n_volumes);
}

static const struct config_resource *find(const struct config_resource *list, size_t n, const char *key)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(list[i].key, key))
			return &list[i];
	return NULL;
}

const struct config_resource *config_volume_resource(const struct config *c, const char *key)
{
	return find(c->volumes, c->n_volumes, key);
}

const struct config_resource *config_network(const struct config *c, const char *key)
{
	return find(c->networks, c->n_networks, key);
}

const char *config_resource_name(const struct config_resource *r)
{
	return r->name ? r->name : r->key;
}

/* By the names that docker compose would give it there. Those of ten workspaces would be each other's: they are the main checkout's, as the
 * published numbers of ports are. */
static void name_on_external(const struct config *c, struct config_service *s, const char *key, const char *network)
{
	size_t len = strlen(key);
	if (!c->is_main || s->is_copy)
		return;
	strv_pushf(&s->container.network_names, "%s %s", network, s->name);
	for (char **alias = s->network_aliases; alias && *alias; alias++)
		if (!strncmp(*alias, key, len) && (*alias)[len] == ' ')
			strv_pushf(&s->container.network_names, "%s %s", network, *alias + len + 1);
}

/* A container joins those that others made; the rest is the environment's own one. */
void join_external_networks(struct config *c)
{
	for (size_t i = 0; i < c->n_services; i++) {
		struct config_service *s = &c->services[i];
		static char *const by_default[] = {(char *)"default", NULL};
		for (char *const *key = s->networks ? s->networks : by_default; *key; key++) {
			const struct config_resource *network = config_network(c, *key);
			if (!network || !network->external)
				continue;
			strv_push(&s->container.networks, xstrdup(config_resource_name(network)));
			name_on_external(c, s, *key, config_resource_name(network));
		}
	}
}

/* ---- the environment's own network ---- */

static bool is_on(const struct config_service *s, const char *key)
{
	return s->networks ? strv_contains(s->networks, key) : !s->container.network && !strcmp(key, "default");
}

static bool is_own(const struct config *c, const struct config_resource *network)
{
	bool used = false;
	for (size_t i = 0; !network->external && i < c->n_services; i++)
		used = used || is_on(&c->services[i], network->key);
	return used;
}

/* "default" is one that is there although the file does not say so. */
static bool is_unsaid(const struct config *c)
{
	bool on = false;
	for (size_t i = 0; i < c->n_services; i++)
		on = on || is_on(&c->services[i], "default");
	return on && !config_network(c, "default");
}

/* A bridge of that name is one machine's: two workspaces cannot have it. */
static bool is_shared(const char *option)
{
	return !strcmp(option, "com.docker.network.bridge.name");
}

/* What one of them says alone would be said of the others, too. */
static bool agree(const struct config *c, const struct keyval *option)
{
	bool all = !is_unsaid(c) && (c->is_main || !is_shared(option->key));
	for (size_t i = 0; all && i < c->n_networks; i++) {
		const char *other = is_own(c, &c->networks[i]) ? keyvals_get(&c->networks[i].driver_opts, option->key) : option->value;
		all = (!other && !option->value) || (other && option->value && !strcmp(other, option->value));
	}
	return all;
}

static void add_own(struct config *c, struct config_resource *network)
{
	for (size_t i = 0; i < network->labels.count; i++)
		if (!keyvals_get(&c->network_labels, network->labels.items[i].key))
			keyvals_set(&c->network_labels, network->labels.items[i].key, network->labels.items[i].value ? network->labels.items[i].value : "");
	for (size_t i = 0; i < network->driver_opts.count; i++) {
		const struct keyval *option = &network->driver_opts.items[i];
		if (agree(c, option))
			keyvals_set(&c->network_opts, option->key, option->value);
		else
			strv_pushf(&network->unused, "driver_opts.%s", option->key);
	}
	if (network->subnet && c->addressed)
		strv_push(&network->unused, xstrdup("ipam"));
	else if (network->subnet)
		c->addressed = network;
}

static void take_address(const struct config *c, struct config_service *s, const char *entry)
{
	size_t len = strcspn(entry, " ");
	bool addressed = c->addressed && strlen(c->addressed->key) == len && !strncmp(entry, c->addressed->key, len);
	if (addressed && !s->is_copy)
		s->container.ipv4_address = xstrdup(entry + len + 1);
	else if (!addressed)
		strv_push(&s->network_words, xstrdup("ipv4_address"));
}

void settle_own_network(struct config *c)
{
	for (size_t i = 0; i < c->n_networks; i++)
		if (is_own(c, &c->networks[i]))
			add_own(c, &c->networks[i]);
		else if (!c->networks[i].external && c->networks[i].subnet)
			strv_push(&c->networks[i].unused, xstrdup("ipam"));
	for (size_t i = 0; i < c->n_services; i++)
		for (char **entry = c->services[i].network_addresses; entry && *entry; entry++)
			take_address(c, &c->services[i], *entry);
}
