/* One file laid on another: https://github.com/compose-spec/compose-spec/blob/main/13-merge.md. Mappings are merged, lists
 * appended, anything else replaced; what is written in two forms is brought into one before; the table below has the rest.
 * Values are merged before they are interpolated, which comes to the same: every file sees the same variables. */
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/hash.h"
#include "provisioner/config_private.h"

enum how {
	BY_TYPE,
	REPLACED,  /* a command is one thing */
	VARIABLES, /* a list of KEY=value is a mapping */
	NAMES,     /* a list of names is a mapping, each to nothing */
	LISTED,    /* one text is a list of one, in which equal items stand once */
	BUILD,     /* a text is its context */
	BY_TEXT,   /* a list in which equal items stand once */
	BY_TARGET, /* the same of mounts: one for each place */
	HOSTS,     /* a mapping is a list of HOST=ADDRESS, in which equal items stand once */
	LOGGING,   /* options are of their driver */
};

/* `*` is any one key. */
static const struct {
	const char *path;
	enum how how;
} rules[] = {
    {"services.*.command", REPLACED},
    {"services.*.entrypoint", REPLACED},
    {"services.*.healthcheck.test", REPLACED},
    {"services.*.x-aether.command", REPLACED},
    {"services.*.x-aether.ready", REPLACED},
    {"x-aether.services", REPLACED}, /* a local file narrows what the team's file chooses */
    {"x-aether.compose", REPLACED},
    {"services.*.environment", VARIABLES},
    {"services.*.x-aether.env", VARIABLES},
    {"services.*.labels", VARIABLES},
    {"services.*.annotations", VARIABLES},
    {"services.*.sysctls", VARIABLES},
    {"services.*.extra_hosts", HOSTS},
    {"services.*.deploy.labels", VARIABLES},
    {"services.*.build.args", VARIABLES},
    {"services.*.build.labels", VARIABLES},
    {"services.*.build.additional_contexts", VARIABLES},
    {"services.*.build.extra_hosts", HOSTS},
    {"networks.*.labels", VARIABLES},
    {"volumes.*.labels", VARIABLES},
    {"services.*.logging", LOGGING},
    {"services.*.ulimits.*", REPLACED},
    {"services.*.build", BUILD},
    {"services.*.depends_on", NAMES},
    {"services.*.networks", NAMES},
    {"services.*.env_file", LISTED},
    {"services.*.tmpfs", LISTED},
    {"services.*.dns", LISTED},
    {"services.*.dns_search", LISTED},
    {"services.*.dns_opt", LISTED},
    {"services.*.label_file", LISTED},
    {"services.*.links", BY_TEXT},
    {"services.*.networks.*.aliases", BY_TEXT},
    {"services.*.ports", BY_TEXT},
    {"services.*.expose", BY_TEXT},
    {"services.*.profiles", BY_TEXT},
    {"services.*.cap_add", BY_TEXT},
    {"services.*.cap_drop", BY_TEXT},
    {"services.*.volumes", BY_TARGET},
    {"services.*.secrets", BY_TARGET},
    {"services.*.configs", BY_TARGET},
    {"services.*.devices", BY_TARGET},
};

struct place {
	const struct place *up; /* NULL: the whole file */
	const char *key;
};

/* Does the path end at this place? `end` is behind what is left of it. */
static bool is_at(const char *path, const char *end, const struct place *at)
{
	if (!at->up || end < path)
		return !at->up && end < path;
	const char *from = end;
	while (from > path && from[-1] != '.')
		from--;
	size_t len = (size_t)(end - from);
	bool same = (len == 1 && *from == '*') || (strlen(at->key) == len && !strncmp(from, at->key, len));
	return same && is_at(path, from - 1, at->up);
}

static enum how how_at(const struct place *at)
{
	for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
		if (is_at(rules[i].path, rules[i].path + strlen(rules[i].path), at))
			return rules[i].how;
	return BY_TYPE;
}

/* ---- texts to where they stand ---- */

struct index {
	struct slot {
		char *key;
		size_t at;
	} * slots;
	size_t size; /* a power of two */
};

static struct index index_new(size_t for_how_many)
{
	struct index x = {NULL, 16};
	while (x.size < 2 * (for_how_many + 1))
		x.size *= 2;
	x.slots = xcalloc(x.size, sizeof *x.slots);
	return x;
}

static void index_release(struct index *x)
{
	for (size_t i = 0; i < x->size; i++)
		free(x->slots[i].key);
	free(x->slots);
}

static struct slot *slot_of(const struct index *x, const char *key)
{
	size_t i = hash_str(HASH_INIT ^ (uintptr_t)x->slots, key) & (x->size - 1);
	while (x->slots[i].key && strcmp(x->slots[i].key, key))
		i = (i + 1) & (x->size - 1);
	return &x->slots[i];
}

/* steals `key`; what is there already stays. At most as many as it was made for. */
static void index_put(struct index *x, char *key, size_t at)
{
	struct slot *slot = slot_of(x, key);
	if (slot->key)
		free(key);
	else
		*slot = (struct slot){key, at};
}

#define cleanup_index __attribute__((cleanup(index_release)))

/* ---- one form for two ---- */

static struct yaml *text_node(struct yaml_document *doc, const struct yaml *like, const char *text)
{
	struct yaml *node = yaml_new(doc, YAML_SCALAR, like);
	yaml_set_text(node, text);
	return node;
}

static struct yaml *nothing(struct yaml_document *doc, const struct yaml *like)
{
	struct yaml *node = yaml_new(doc, YAML_NULL, like);
	yaml_set_text(node, "");
	return node;
}

/* An item that is no text keeps the list as it is: whoever reads it says what is wrong. */
static const struct yaml *as_map(struct yaml_document *doc, const struct yaml *list, bool values)
{
	struct yaml *map = yaml_new(doc, YAML_MAP, list);
	cleanup_index struct index known = index_new(list->count);
	for (size_t i = 0; i < list->count; i++) {
		const struct yaml *item = list->items[i];
		const struct yaml_pair place = {NULL, item->file, item->line, item->column, NULL};
		if (item->type != YAML_SCALAR)
			return list;
		const char *equals = values ? strchr(item->text, '=') : NULL;
		cleanup_free char *key = equals ? xstrndup(item->text, (size_t)(equals - item->text)) : xstrdup(item->text);
		struct yaml *value = equals ? text_node(doc, item, equals + 1) : nothing(doc, item);
		const struct slot *same = slot_of(&known, key);
		if (same->key) {
			map->pairs[same->at].value = value; /* the last one counts */
			continue;
		}
		index_put(&known, xstrdup(key), map->count);
		yaml_add_pair(map, key, &place, value);
	}
	return map;
}

static void add_host(struct yaml_document *doc, struct yaml *list, const char *host, const struct yaml *address)
{
	for (size_t i = 0; address->type == YAML_LIST && i < address->count; i++)
		add_host(doc, list, host, address->items[i]);
	if (address->type != YAML_SCALAR)
		return;
	cleanup_free char *text = xasprintf("%s=%s", host, address->text);
	yaml_add_item(list, text_node(doc, address, text));
}

static const struct yaml *as_hosts(struct yaml_document *doc, const struct yaml *map)
{
	struct yaml *list = yaml_new(doc, YAML_LIST, map);
	for (size_t i = 0; i < map->count; i++)
		add_host(doc, list, map->pairs[i].key, map->pairs[i].value);
	return list;
}

static const struct yaml *one_form(struct yaml_document *doc, const struct yaml *node, enum how how)
{
	const struct yaml_pair place = {NULL, node->file, node->line, node->column, NULL};
	struct yaml *whole;
	if ((how == VARIABLES || how == NAMES) && node->type == YAML_LIST)
		return as_map(doc, node, how == VARIABLES);
	if (how == HOSTS && node->type == YAML_MAP)
		return as_hosts(doc, node);
	if (how == LISTED && node->type == YAML_SCALAR) {
		yaml_add_item(whole = yaml_new(doc, YAML_LIST, node), node);
		return whole;
	}
	if (how == BUILD && node->type == YAML_SCALAR) {
		yaml_add_pair(whole = yaml_new(doc, YAML_MAP, node), "context", &place, node);
		return whole;
	}
	return node;
}

/* ---- lists ---- */

/* The part of SOURCE:TARGET:OPTIONS that begins at `text`; a ${VAR:-x} holds no separator. */
static size_t part_length(const char *text)
{
	size_t i = 0;
	for (int depth = 0; text[i] && (depth || text[i] != ':'); i++)
		depth += text[i] == '{' ? 1 : text[i] == '}' && depth ? -1 : 0;
	return i;
}

static char *target_of(const char *text)
{
	size_t source = part_length(text);
	const char *target = text[source] ? text + source + 1 : text;
	size_t len = part_length(target);
	while (len > 1 && target[len - 1] == '/')
		len--;
	return xstrndup(target, len);
}

static const char *member(const struct yaml *map, const char *const *names)
{
	const struct yaml *value = NULL;
	for (; !value && *names; names++)
		value = yaml_get(map, *names);
	return value && value->type == YAML_SCALAR ? value->text : "";
}

/* What an item is known by: equal ones are one. new; NULL: nothing, it always stands beside the others */
static char *identity(const struct yaml *item, enum how how)
{
	static const char *const targets[] = {"target", "dst", "destination", "source", NULL}, *const port[] = {"target", NULL},
	                         *const published[] = {"published", NULL}, *const host[] = {"host_ip", NULL},
	                         *const protocol[] = {"protocol", NULL},
	                         *const path[] = {"path", NULL};
	if (item->type == YAML_SCALAR && how == BY_TARGET)
		return target_of(item->text);
	if (item->type == YAML_SCALAR) {
		size_t len = strlen(item->text);
		bool tcp = len > 4 && !strcmp(item->text + len - 4, "/tcp");
		return xstrndup(item->text, len - (tcp ? 4 : 0));
	}
	if (item->type != YAML_MAP)
		return NULL;
	if (how == BY_TARGET)
		return xstrdup(member(item, targets));
	if (*member(item, path)) /* an env_file */
		return xstrdup(member(item, path));
	const char *ip = member(item, host), *number = member(item, published), *kind = member(item, protocol);
	bool other = *kind && strcmp(kind, "tcp") != 0;
	return xasprintf("%s%s%s%s%s%s%s", ip, *ip ? ":" : "", number, *number ? ":" : "", member(item, port), other ? "/" : "",
	                 other ? kind : "");
}

static void note_item(struct index *known, const struct yaml *item, enum how how, size_t at)
{
	char *own = how == BY_TYPE ? NULL : identity(item, how);
	if (own)
		index_put(known, own, at);
}

static void add_item(struct yaml *list, struct index *known, const struct yaml *item, enum how how)
{
	cleanup_free char *own = how == BY_TYPE ? NULL : identity(item, how);
	const struct slot *same = own ? slot_of(known, own) : NULL;
	if (same && same->key) {
		list->items[same->at] = item;
		return;
	}
	note_item(known, item, how, list->count);
	yaml_add_item(list, item);
}

static const struct yaml *merge_lists(struct yaml_document *doc, const struct yaml *below, const struct yaml *above,
                                      enum how how)
{
	struct yaml *list = yaml_new(doc, YAML_LIST, above);
	enum how items = how == LISTED || how == HOSTS ? BY_TEXT : how == BY_TEXT || how == BY_TARGET ? how : BY_TYPE;
	cleanup_index struct index known = index_new(below->count + above->count);
	for (size_t i = 0; i < below->count; i++) {
		yaml_add_item(list, below->items[i]);
		note_item(&known, below->items[i], items, i);
	}
	for (size_t i = 0; i < above->count; i++)
		add_item(list, &known, above->items[i], items);
	return list;
}

/* ---- mappings ---- */

static const struct yaml *merge(struct yaml_document *doc, const struct yaml *below, const struct yaml *above,
                                const struct place *at);

static struct index keys_of(const struct yaml *map)
{
	struct index x = index_new(map->count);
	for (size_t i = 0; i < map->count; i++)
		index_put(&x, xstrdup(map->pairs[i].key), i);
	return x;
}

static const struct yaml_pair *find_pair(const struct yaml *map, const struct index *keys, const char *key)
{
	const struct slot *slot = slot_of(keys, key);
	return slot->key ? &map->pairs[slot->at] : NULL;
}

static const struct yaml *merge_maps(struct yaml_document *doc, const struct yaml *below, const struct yaml *above,
                                     const struct place *at)
{
	struct yaml *map = yaml_new(doc, YAML_MAP, below->count ? below : above);
	cleanup_index struct index old_keys = keys_of(below), new_keys = keys_of(above);
	for (size_t i = 0; i < below->count; i++) {
		const struct yaml_pair *old = &below->pairs[i], *new = find_pair(above, &new_keys, old->key);
		const struct place child = {at, old->key};
		if (!new)
			yaml_add_pair(map, old->key, old, old->value);
		else if (new->value->change != YAML_RESETS)
			yaml_add_pair(map, old->key, new->value->type == YAML_NULL ? old : new, merge(doc, old->value, new->value, &child));
	}
	for (size_t i = 0; i < above->count; i++) {
		const struct yaml_pair *new = &above->pairs[i];
		if (!find_pair(below, &old_keys, new->key) && new->value->change != YAML_RESETS)
			yaml_add_pair(map, new->key, new, new->value);
	}
	return map;
}

static bool is_other_driver(const struct yaml *below, const struct yaml *above)
{
	const struct yaml *old = yaml_get(below, "driver"), *new = yaml_get(above, "driver");
	return old && new && old->type == YAML_SCALAR && new->type == YAML_SCALAR && strcmp(old->text, new->text);
}

static const struct yaml *merge(struct yaml_document *doc, const struct yaml *below, const struct yaml *above,
                                const struct place *at)
{
	enum how how = how_at(at);
	if (above->type == YAML_NULL && above->change != YAML_OVERRIDES)
		return below;
	if (how == REPLACED || above->change == YAML_OVERRIDES || (how == LOGGING && is_other_driver(below, above)))
		return above;
	const struct yaml *old = one_form(doc, below, how), *new = one_form(doc, above, how);
	if (old->type == YAML_MAP && new->type == YAML_MAP)
		return merge_maps(doc, old, new, at);
	if (old->type == YAML_LIST && new->type == YAML_LIST)
		return merge_lists(doc, old, new, how);
	return above;
}

const struct yaml *config_merge_service(struct yaml_document *doc, const struct yaml *below, const struct yaml *above)
{
	const struct place top = {NULL, NULL}, services = {&top, "services"};
	return merge(doc, below, above, &(struct place){&services, "*"});
}

const struct yaml *config_merge(struct yaml_document *doc, const struct yaml *below, const struct yaml *above)
{
	return merge(doc, below, above, &(struct place){NULL, NULL});
}
