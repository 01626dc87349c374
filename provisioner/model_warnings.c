/* What of a configuration the chosen backend does not do as it is written: told, whatever it is, and the services run all the same. */
#include <string.h>

#include "backends/subnet.h"
#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "provisioner/model.h"

/* ---- host processes ---- */

/* What others made is out of a host process's reach: it neither mounts their volumes nor is on their networks. */
static void warn_of_external(struct model *m)
{
	for (size_t i = 0; i < m->config->n_volumes; i++)
		if (m->config->volumes[i].external)
			strv_pushf(&m->warnings, "volumes.%s: it is external; host processes have one of this workspace's own instead", m->config->volumes[i].key);
	for (size_t i = 0; i < m->config->n_volumes; i++)
		if (m->config->volumes[i].driver_opts.count)
			strv_pushf(&m->warnings, "volumes.%s: driver_opts: for containers alone, host processes have a directory of this workspace's own", m->config->volumes[i].key);
	for (size_t i = 0; i < m->config->n_networks; i++)
		if (m->config->networks[i].external)
			strv_pushf(&m->warnings, "networks.%s: it is external; host processes do not reach what else is on it by name", m->config->networks[i].key);
}

/* Fields of which nothing is missed where there is no container are passed over. */
static void warn_of_container_fields(struct model *m, const struct config_service *c)
{
	static char *const harmless[] = {(char *)"labels", (char *)"hostname", (char *)"init", (char *)"tty", (char *)"stdin_open", (char *)"pull_policy", (char *)"platform", NULL};
	cleanup_buffer struct buffer names = BUFFER_INIT;
	for (char **name = c->container_fields; name && *name; name++) {
		bool is_so = !strcmp(*name, "network_mode") && c->container.network && strcmp(c->container.network, "none"); /* they are all on the host's */
		if (!is_so && !strv_contains(harmless, *name))
			buffer_printf(&names, "%s%s", names.len ? ", " : "", *name);
	}
	if (names.len)
		strv_pushf(&m->warnings, "%s: %s: for containers alone, a process of this machine has no such thing", c->name, names.data);
}

/* ---- containers ---- */

/* A device is where it is, whichever volume leads there. */
static void warn_of_volume(struct model *m, const struct config_resource *v)
{
	const char *device = keyvals_get(&v->driver_opts, "device"), *type = keyvals_get(&v->driver_opts, "type");
	bool elsewhere = device && (*device == '/' || strchr(device, ':')); /* else in the workspace, or nowhere */
	if (v->external)
		return;
	if (v->name)
		strv_pushf(&m->warnings, "volumes.%s: each workspace has one of its own, and none of them is called %s", v->key, v->name);
	if ((elsewhere && (!type || strcmp(type, "tmpfs"))) || (v->driver && strcmp(v->driver, "local")))
		strv_pushf(&m->warnings, "volumes.%s: its data is where its driver's options lead (%s), in every workspace the same, and never in the trash", v->key,
		           device ? device : v->driver);
}

static bool is_joined(const struct config *c, const char *network)
{
	for (size_t i = 0; i < c->n_services; i++)
		if (strv_contains(c->services[i].container.networks, network))
			return true;
	return false;
}

static void warn_of_network(struct model *m, const struct config_resource *n)
{
	cleanup_buffer struct buffer words = BUFFER_INIT;
	if (n->external && !m->config->is_main && is_joined(m->config, config_resource_name(n)))
		strv_pushf(&m->warnings, "networks.%s: it is external, and on it the file's names are those of the main checkout's services; this workspace's are found there by AETHER_NAMESPACE-SERVICE",
		           n->key);
	if (n->external)
		return;
	for (char **word = n->unused; word && *word; word++)
		buffer_printf(&words, "%s%s", words.len ? ", " : "", *word);
	if (n->driver && strcmp(n->driver, "bridge"))
		buffer_printf(&words, "%sdriver", words.len ? ", " : "");
	if (n->name)
		buffer_printf(&words, "%sname", words.len ? ", " : "");
	if (words.len)
		strv_pushf(&m->warnings, "networks.%s: %s: not used, for all services of a workspace meet on one network of its own, made as the engine makes them", n->key,
		           buffer_str(&words));
}

char **model_subnet_warnings(const struct model *m, const struct identity *id)
{
	const struct config_resource *n = strcmp(m->backend, "process") ? m->config->addressed : NULL;
	cleanup_free char *now = n ? backend_subnet(id->state_dir) : NULL;
	char **warnings = NULL;
	if (!n || (now ? !strcmp(now, n->subnet) : m->config->is_main))
		return NULL;
	strv_pushf(&warnings, "networks.%s: the subnet %s is %s; here it is %s, in which addresses have the same places", n->key, n->subnet,
	           m->config->is_main ? "another network's, or this one was made before and is in use (ajj down, then ajj up makes it anew)" : "the main checkout's",
	           now ? now : "one that the engine chooses");
	for (size_t i = 0; now && i < m->n_services; i++) {
		const char *address = m->services[i].config->container.ipv4_address;
		cleanup_free char *moved = address ? subnet_moved(address, n->subnet, now) : NULL;
		if (address)
			strv_pushf(&warnings, "%s: its address is %s, not %s: the name is the same in every workspace", m->services[i].config->name, moved ? moved : "the engine's choice", address);
	}
	return warnings;
}

static void warn_of_mode(struct model *m, const struct config_service *c)
{
	const char *mode = c->container.network;
	if (!mode)
		return;
	if (!strcmp(mode, "host"))
		strv_pushf(&m->warnings, "%s: network_mode host: its ports are the host's own, the same in every workspace, and its peers do not find it by its name", c->name);
	else if (!strcmp(mode, "bridge") || !strcmp(mode, "default"))
		strv_pushf(&m->warnings, "%s: network_mode %s: it is on the environment's network instead, where its peers are", c->name, mode);
	else if (c->n_ports)
		strv_pushf(&m->warnings, "%s: network_mode %s: ports of its own cannot be published, and are not", c->name, mode);
}

/* Others' containers are not on the environment's own network. */
static void warn_of_links(struct model *m, const struct config_service *c)
{
	if (c->container.external_links && !c->container.networks)
		strv_pushf(&m->warnings, "%s: external_links: not used, for it is on no network that is external, where others' containers are", c->name);
}

static void warn_of_addresses(struct model *m, const struct config_service *c)
{
	cleanup_buffer struct buffer words = BUFFER_INIT;
	for (char **word = c->network_words; word && *word; word++)
		buffer_printf(&words, "%s%s", words.len ? ", " : "", *word);
	if (words.len)
		strv_pushf(&m->warnings, "%s: networks: %s: not used, for all workspaces have the network of others that it is on, or it is none of the environment's subnet", c->name, buffer_str(&words));
}

void model_warn(struct model *m)
{
	bool processes = !strcmp(m->backend, "process");
	if (processes)
		warn_of_external(m);
	for (size_t i = 0; i < m->n_services; i++) {
		const struct config_service *c = m->services[i].config;
		if (processes) {
			warn_of_container_fields(m, c);
		} else {
			warn_of_mode(m, c);
			warn_of_addresses(m, c);
			warn_of_links(m, c);
		}
	}
	for (size_t i = 0; !processes && i < m->config->n_volumes; i++)
		warn_of_volume(m, &m->config->volumes[i]);
	for (size_t i = 0; !processes && i < m->config->n_networks; i++)
		warn_of_network(m, &m->config->networks[i]);
}
