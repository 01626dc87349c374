#include "backends/container.h"

#include <jansson.h>
#include <stdlib.h>

#include "base/hash.h"

#define TEXTS(o) {(o)->user, (o)->hostname, (o)->domainname, (o)->platform, (o)->pid, (o)->ipc, (o)->uts, (o)->userns, (o)->cgroup, (o)->runtime, (o)->cpuset, (o)->cgroup_parent, (o)->network}
#define LATER_TEXTS(o) {(o)->log_driver, (o)->mac_address, (o)->blkio, (o)->ipv4_address}
#define LATER_LISTS(o) {(o)->post_start, (o)->pre_stop, (o)->external_links}
#define LATER_MAPS(o) {&(o)->annotations, &(o)->log_options}
#define LISTS(o)                                                                                                       \
	{(o)->cap_add, (o)->cap_drop, (o)->group_add, (o)->security_opt, (o)->devices, (o)->device_rules, (o)->device_requests, (o)->dns, (o)->dns_search, (o)->dns_options, (o)->extra_hosts, (o)->networks, (o)->network_names, (o)->volumes_from, (o)->check.test}
#define COUNT(array) (sizeof(array) / sizeof *(array))

static uint64_t hash_list(uint64_t h, char *const *list)
{
	for (; list && *list; list++)
		h = hash_str(h, *list);
	return hash_str(h, "");
}

static uint64_t hash_map(uint64_t h, const struct keyvals *map)
{
	for (size_t i = 0; i < map->count; i++)
		h = hash_str(hash_str(h, map->items[i].key), map->items[i].value ? map->items[i].value : "");
	return hash_str(h, "");
}

/* What came to be honoured later counts where it is used: a new version alone makes no container anew. */
static uint64_t hash_later(uint64_t h, const struct container_options *o)
{
	const char *const texts[] = LATER_TEXTS(o);
	char *const *const lists[] = LATER_LISTS(o);
	const struct keyvals *const maps[] = LATER_MAPS(o);
	for (size_t i = 0; i < COUNT(texts); i++)
		if (texts[i])
			h = hash_str(hash_bytes(h, &i, sizeof i), texts[i]);
	for (size_t i = 0; i < COUNT(lists); i++)
		if (lists[i])
			h = hash_list(hash_bytes(h, &i, sizeof i), lists[i]);
	for (size_t i = 0; i < COUNT(maps); i++)
		if (maps[i]->count)
			h = hash_map(hash_bytes(h, &i, sizeof i), maps[i]);
	return h;
}

uint64_t container_options_hash(uint64_t h, const struct container_options *o)
{
	const char *const texts[] = TEXTS(o);
	char *const *const lists[] = LISTS(o);
	const int64_t numbers[] = {(int64_t)o->shm_bytes, (int64_t)o->memory_reservation_bytes, o->memory_swap_bytes, o->memory_swappiness, o->cpu_shares, o->cpu_quota, o->cpu_period, o->oom_score_adj,
	                           o->privileged, o->read_only, o->init, o->tty, o->stdin_open, o->oom_kill_disable, o->check.interval_ms, o->check.timeout_ms,
	                           o->check.start_period_ms, o->check.start_interval_ms, o->check.retries};
	for (size_t i = 0; i < COUNT(texts); i++)
		h = hash_str(h, texts[i] ? texts[i] : "");
	for (size_t i = 0; i < COUNT(lists); i++)
		h = hash_list(h, lists[i]);
	h = hash_map(hash_map(hash_map(h, &o->labels), &o->sysctls), &o->storage);
	for (size_t i = 0; i < o->n_ulimits; i++) {
		h = hash_str(h, o->ulimits[i].name);
		h = hash_bytes(h, &o->ulimits[i].soft, sizeof o->ulimits[i].soft);
		h = hash_bytes(h, &o->ulimits[i].hard, sizeof o->ulimits[i].hard);
	}
	return hash_later(hash_bytes(h, numbers, sizeof numbers), o);
}

char *container_hooks_text(char *const *hooks)
{
	json_t *list = json_array();
	for (; hooks && *hooks; hooks++)
		json_array_append_new(list, json_loads(*hooks, 0, NULL));
	char *text = json_array_size(list) ? json_dumps(list, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	json_decref(list);
	return text;
}

void ulimit_options_free(struct ulimit_option *list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(list[i].name);
	free(list);
}

void container_options_release(struct container_options *o)
{
	char *const texts[] = TEXTS(o), *const later_texts[] = LATER_TEXTS(o);
	struct keyvals *const later_maps[] = LATER_MAPS(o);
	char **const lists[] = LISTS(o), **const later_lists[] = LATER_LISTS(o);
	for (size_t i = 0; i < COUNT(texts); i++)
		free(texts[i]);
	for (size_t i = 0; i < COUNT(lists); i++)
		strv_free(lists[i]);
	for (size_t i = 0; i < COUNT(later_texts); i++)
		free(later_texts[i]);
	for (size_t i = 0; i < COUNT(later_lists); i++)
		strv_free(later_lists[i]);
	for (size_t i = 0; i < COUNT(later_maps); i++)
		keyvals_release(later_maps[i]);
	keyvals_release(&o->labels);
	keyvals_release(&o->sysctls);
	keyvals_release(&o->storage);
	ulimit_options_free(o->ulimits, o->n_ulimits);
	*o = (struct container_options)CONTAINER_OPTIONS_INIT;
}
