#include "provisioner/envset.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/envfile.h"
#include "provisioner/envfile_scan.h"

/* A user's variable, and the statement that gives its value: the last one of the topmost file. */
struct variable {
	char *key;
	struct envfile_statement st;
	enum env_layer layer;
	const char *before;  /* expanded; borrowed */
	char *statement;     /* as it goes into the block */
	char *literal;       /* or only its value; with neither it stands where it is */
	const char *service; /* borrowed of the map */
	bool imposed;        /* overridden by a generated one */
	bool emitted;
};

static bool in_block(const struct variable *v)
{
	return v->statement || v->literal;
}

struct making {
	const struct envset_params *params;
	struct keyvals user; /* expanded, as the layers say it */
	struct variable *variables;
	size_t n_variables;
	struct keyvals offered; /* what no layer sets */
	struct envset *out;
};

static void variables_release(struct making *m)
{
	for (size_t i = 0; i < m->n_variables; i++) {
		free(m->variables[i].key);
		free(m->variables[i].statement);
		free(m->variables[i].literal);
	}
	free(m->variables);
	keyvals_release(&m->user);
	keyvals_release(&m->offered);
}

static const char *user_value(void *arg, const char *name)
{
	const struct making *m = arg;
	return keyvals_get(&m->user, name);
}

/* ---- the user's layers ---- */

static struct variable *find_variable(const struct making *m, const char *key, size_t len)
{
	for (size_t i = 0; i < m->n_variables; i++)
		if (m->variables[i].st.key_len == len && !memcmp(m->variables[i].key, key, len))
			return &m->variables[i];
	return NULL;
}

static void collect(struct making *m, const char *text, enum env_layer layer)
{
	struct envfile_cursor cursor = envfile_scan(text);
	struct envfile_statement st;
	while (envfile_next(&cursor, &st)) {
		if (!st.key || !st.assigns || st.bad)
			continue;
		struct variable *v = find_variable(m, st.key, st.key_len);
		if (!v) {
			cleanup_free char *key = xstrndup(st.key, st.key_len);
			if (!keyvals_has(&m->user, key))
				continue; /* its value could not be read */
			array_grow(m->variables, m->n_variables);
			v = &m->variables[m->n_variables++];
			*v = (struct variable){.key = move_ptr(key)};
		}
		v->st = st;
		v->layer = layer;
	}
}

static const char *keyval_of(void *arg, const char *name)
{
	return keyvals_get(arg, name);
}

void envset_user(const char *main, const char *own, struct keyvals *out)
{
	cleanup_keyvals struct keyvals over = KEYVALS_INIT;
	if (main)
		envfile_parse(main, NULL, NULL, NULL, out);
	if (own)
		envfile_parse(own, keyval_of, out, NULL, &over);
	keyvals_copy(out, &over);
}

static void read_layers(struct making *m)
{
	const char *main = m->params->main ? m->params->main : "", *own = m->params->own ? m->params->own : "";
	envset_user(main, own, &m->user);
	collect(m, main, ENV_MAIN);
	collect(m, own, ENV_OWN);
	for (size_t i = 0; i < m->n_variables; i++) {
		m->variables[i].before = keyvals_get(&m->user, m->variables[i].key);
		m->variables[i].imposed = keyvals_has(m->params->imposed, m->variables[i].key);
	}
}

/* ---- statements ---- */

/* Calls `see` with every name that the value refers to, until it says true. */
static bool any_reference(const struct variable *v, bool (*see)(void *arg, const char *name, size_t len), void *arg)
{
	static const char name[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789";
	const char *p = v->st.value, *end = p + v->st.value_len;
	if (v->st.quote == '\'' || v->literal)
		return false;
	for (; p && (p = memchr(p, '$', (size_t)(end - p))); p++) {
		const char *start = p + 1 + (p + 1 < end && p[1] == '{');
		size_t len = 0;
		while (start + len < end && strchr(name, start[len]))
			len++;
		if (len && see(arg, start, len))
			return true;
	}
	return false;
}

static bool is_name(void *arg, const char *name, size_t len)
{
	const char *key = arg;
	return !strncmp(key, name, len) && !key[len];
}

/* new: the statement with another value; whole lines. */
static char *statement_with(const struct envfile_statement *st, const char *value, size_t len)
{
	static const char bom[] = "\xef\xbb\xbf";
	struct buffer b = BUFFER_INIT;
	const char *start = st->start;
	if (!strncmp(start, bom, sizeof bom - 1))
		start += sizeof bom - 1;
	start += strspn(start, " \t");
	buffer_add(&b, start, (size_t)(st->value - start));
	buffer_add(&b, value, len);
	const char *rest = st->value + st->value_len, *end = st->end;
	while (end > rest && strchr("\r\n \t", end[-1]))
		end--;
	buffer_add(&b, rest, (size_t)(end - rest));
	buffer_addc(&b, '\n');
	return buffer_detach(&b);
}

/* X=$X:more means the X before, which the block does not have. */
static void move_to_block(struct variable *v)
{
	if (in_block(v))
		return;
	if (any_reference(v, is_name, v->key))
		v->literal = xstrdup(v->before);
	else
		v->statement = statement_with(&v->st, v->st.value, v->st.value_len);
}

/* ---- rewriting ---- */

static void rewrite_variable(struct making *m, struct variable *v)
{
	cleanup_buffer struct buffer value = BUFFER_INIT;
	bool refers_to_itself = any_reference(v, is_name, v->key);
	const char *text = refers_to_itself ? v->before : v->st.value;
	size_t len = refers_to_itself ? strlen(text) : v->st.value_len;
	v->service = rewrite_value(m->params->map, v->key, text, len, refers_to_itself || v->st.quote == '\'', user_value, m,
	                           &value);
	if (v->service && refers_to_itself)
		v->literal = buffer_detach(&value);
	else if (v->service)
		v->statement = statement_with(&v->st, buffer_str(&value), value.len);
}

static void complete_port(struct making *m, const struct variable *v)
{
	uint16_t port;
	cleanup_free char *key = rewrite_missing_port(m->params->map, v->key, v->before, user_value, m, &port);
	char number[8];
	if (!key || keyvals_has(m->params->imposed, key))
		return;
	snprintf(number, sizeof number, "%u", port);
	keyvals_set(&m->offered, key, number);
}

static void rewrite_all(struct making *m)
{
	for (size_t i = 0; i < m->n_variables; i++) {
		struct variable *v = &m->variables[i];
		if (v->imposed)
			continue;
		if (m->params->map) {
			rewrite_variable(m, v);
			complete_port(m, v);
		}
		if (v->layer == ENV_MAIN)
			move_to_block(v);
	}
}

/* ---- the block ---- */

static bool stands_in_block(void *arg, const char *name, size_t len)
{
	const struct making *m = arg;
	const struct variable *v = find_variable(m, name, len);
	if (v)
		return in_block(v) || v->imposed;
	cleanup_free char *key = xstrndup(name, len);
	return keyvals_has(m->params->imposed, key) || keyvals_has(&m->offered, key);
}

/* A line of the workspace's own text stands above the block: it cannot refer to what the block says. */
static void move_referring(struct making *m)
{
	for (bool moved = true; moved;) {
		moved = false;
		for (size_t i = 0; i < m->n_variables; i++) {
			struct variable *v = &m->variables[i];
			if (in_block(v) || v->imposed || !any_reference(v, stands_in_block, m))
				continue;
			move_to_block(v);
			moved = true;
		}
	}
}

static struct env_entry *add_entry(struct making *m, const char *key, enum env_layer layer, const char *value)
{
	struct envset *set = m->out;
	array_grow(set->items, set->count);
	struct env_entry *e = &set->items[set->count++];
	*e = (struct env_entry){.key = xstrdup(key), .layer = layer, .value = xstrdup(value)};
	return e;
}

static void add_generated(struct making *m, const struct keyvals *kv, enum env_layer layer)
{
	for (size_t i = 0; i < kv->count; i++) {
		if (!kv->items[i].value)
			continue;
		struct env_entry *e = add_entry(m, kv->items[i].key, layer, kv->items[i].value);
		const char *before = keyvals_get(&m->user, e->key);
		e->overrides = before != NULL;
		e->before = before && strcmp(before, e->value) != 0 ? xstrdup(before) : NULL;
	}
}

static bool emit_first(void *arg, const char *name, size_t len);

static void emit(struct making *m, struct variable *v)
{
	if (v->emitted || v->imposed)
		return;
	v->emitted = true;
	if (in_block(v))
		any_reference(v, emit_first, m);
	struct env_entry *e = add_entry(m, v->key, v->layer, v->literal ? v->literal : v->before);
	e->own_line = !in_block(v);
	e->statement = move_ptr(v->statement);
}

static bool emit_first(void *arg, const char *name, size_t len)
{
	struct making *m = arg;
	struct variable *v = find_variable(m, name, len);
	if (v && in_block(v))
		emit(m, v);
	return false;
}

/* ---- what it all comes to ---- */

static const char *known_value(void *arg, const char *name)
{
	const struct making *m = arg;
	const struct variable *v = find_variable(m, name, strlen(name));
	const char *value = keyvals_get(m->params->imposed, name);
	if (!value)
		value = keyvals_get(&m->offered, name);
	return value || !v ? value : v->literal;
}

/* The statements in the order in which a reader meets them. */
static void expand(struct making *m, struct keyvals *after)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	for (size_t i = 0; i < m->n_variables; i++) {
		const struct variable *v = &m->variables[i];
		if (v->layer == ENV_OWN && !v->imposed && !in_block(v)) {
			buffer_add(&text, v->st.start, (size_t)(v->st.end - v->st.start));
			buffer_addc(&text, '\n');
		}
	}
	for (size_t i = 0; i < m->out->count; i++)
		if (m->out->items[i].statement)
			buffer_adds(&text, m->out->items[i].statement);
	envfile_parse(buffer_str(&text), known_value, m, NULL, after);
}

static void emit_all(struct making *m)
{
	size_t first = m->out->count;
	for (size_t i = 0; i < m->n_variables; i++)
		emit(m, &m->variables[i]);
	cleanup_keyvals struct keyvals after = KEYVALS_INIT;
	expand(m, &after);
	for (size_t i = first; i < m->out->count; i++) {
		struct env_entry *e = &m->out->items[i];
		const struct variable *v = find_variable(m, e->key, strlen(e->key));
		if (!v)
			continue;
		const char *value = v->literal ? v->literal : keyvals_get(&after, e->key);
		if (value && strcmp(value, e->value) != 0) {
			free(e->value);
			e->value = xstrdup(value);
		}
		e->service = v->service ? xstrdup(v->service) : NULL;
		e->before = strcmp(e->value, v->before) != 0 ? xstrdup(v->before) : NULL;
	}
}

void envset_make(const struct envset_params *params, struct envset *ret)
{
	struct making m = {.params = params, .out = ret};
	*ret = (struct envset){NULL, 0};
	read_layers(&m);
	for (size_t i = 0; i < params->offered->count; i++)
		if (!find_variable(&m, params->offered->items[i].key, strlen(params->offered->items[i].key)) &&
		    !keyvals_has(params->imposed, params->offered->items[i].key))
			keyvals_set(&m.offered, params->offered->items[i].key, params->offered->items[i].value);
	rewrite_all(&m);
	move_referring(&m);
	add_generated(&m, params->imposed, ENV_IMPOSED);
	add_generated(&m, &m.offered, ENV_SERVICE);
	emit_all(&m);
	variables_release(&m);
}

void envset_release(struct envset *set)
{
	for (size_t i = 0; i < set->count; i++) {
		struct env_entry *e = &set->items[i];
		free(e->key);
		free(e->value);
		free(e->statement);
		free(e->before);
		free(e->service);
	}
	free(set->items);
	*set = (struct envset){NULL, 0};
}

const struct env_entry *envset_find(const struct envset *set, const char *key)
{
	for (size_t i = 0; i < set->count; i++)
		if (!strcmp(set->items[i].key, key))
			return &set->items[i];
	return NULL;
}

void envset_values(const struct envset *set, struct keyvals *out)
{
	for (size_t i = 0; i < set->count; i++)
		keyvals_set(out, set->items[i].key, set->items[i].value);
}

const char *env_layer_name(enum env_layer layer)
{
	static const char *const names[] = {"main", "workspace", "service", "configuration"};
	return names[layer];
}
