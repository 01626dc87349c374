#include "backends/shim_order.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum kind { STRING, NUMBER, LIST };

static const struct field {
	const char *key;
	enum kind kind;
	size_t offset;
} fields[] = {
    {"program", STRING, offsetof(struct order, program)},
    {"arg", LIST, offsetof(struct order, arguments)},
    {"env", LIST, offsetof(struct order, environment)},
    {"directory", STRING, offsetof(struct order, directory)},
    {"uid", NUMBER, offsetof(struct order, uid)},
    {"gid", NUMBER, offsetof(struct order, gid)},
    {"namespaces", STRING, offsetof(struct order, namespaces)},
    {"cgroup", LIST, offsetof(struct order, cgroups)},
    {"memory_events", STRING, offsetof(struct order, memory_events)},
    {"limit_data", NUMBER, offsetof(struct order, limit_data)},
    {"limit_processes", NUMBER, offsetof(struct order, limit_processes)},
    {"limit_files", NUMBER, offsetof(struct order, limit_files)},
    {"oom_score", NUMBER, offsetof(struct order, oom_score)},
    {"no_new_privileges", NUMBER, offsetof(struct order, no_new_privileges)},
    {"stop_signal", NUMBER, offsetof(struct order, stop_signal)},
    {"stop_grace_ms", NUMBER, offsetof(struct order, stop_grace_ms)},
    {"timeout_ms", NUMBER, offsetof(struct order, timeout_ms)},
    {"once", NUMBER, offsetof(struct order, once)},
    {"run_dir", STRING, offsetof(struct order, run_dir)},
    {"data_dir", STRING, offsetof(struct order, data_dir)},
    {"config_hash", STRING, offsetof(struct order, config_hash)},
    {"generation", NUMBER, offsetof(struct order, generation)},
};
#define N_FIELDS (sizeof fields / sizeof fields[0])

static int list_add(struct list *l, char *value)
{
	char **items = realloc(l->items, (l->count + 2) * sizeof *items);
	if (!items)
		return -ENOMEM;
	l->items = items;
	l->items[l->count++] = value;
	l->items[l->count] = NULL;
	return 0;
}

static int field_set(struct order *o, const struct field *f, char *value)
{
	void *at = (char *)o + f->offset;
	switch (f->kind) {
	case STRING:
		*(const char **)at = value;
		return 0;
	case NUMBER:
		*(int64_t *)at = strtoll(value, NULL, 10);
		return 0;
	case LIST:
		return list_add(at, value);
	}
	return -EINVAL;
}

static int field_parse(struct order *o, char *text)
{
	char *equals = strchr(text, '=');
	for (size_t i = 0; equals && i < N_FIELDS; i++)
		if (strlen(fields[i].key) == (size_t)(equals - text) && !strncmp(fields[i].key, text, (size_t)(equals - text)))
			return field_set(o, &fields[i], equals + 1);
	return -EINVAL;
}

int order_read(int fd, struct order *ret)
{
	struct stat st;
	if (fstat(fd, &st) || st.st_size <= 0)
		return -EINVAL;
	char *text = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (text == MAP_FAILED)
		return -errno;
	if (text[st.st_size - 1] != '\0')
		return -EINVAL;
	struct order o = {0};
	for (size_t i = 0; i < N_FIELDS; i++)
		if (fields[i].kind == NUMBER)
			*(int64_t *)((char *)&o + fields[i].offset) = -1;
	for (char *p = text; p < text + st.st_size; p += strlen(p) + 1) {
		int r = field_parse(&o, p);
		if (r)
			return r;
	}
	char *none = NULL;
	if (!o.program || !o.arguments.count || (!o.environment.items && list_add(&o.environment, none)))
		return -EINVAL;
	*ret = o;
	return 0;
}
