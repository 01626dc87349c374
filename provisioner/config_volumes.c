/* [SOURCE:]TARGET[:OPTIONS], and the long form. A source that begins with `/`, `.` or `~` is a path of the host. */
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/config_private.h"

#define VOLUMES_MAX 1000 /* of one service */

/* Where the entrypoints of well-known images look for scripts (https://hub.docker.com/_/postgres, _/nginx: docker-entrypoint*.d),
 * and where any image has its programs and libraries. */
static bool is_executed(const char *target)
{
	static const char *const places[] = {"/docker-entrypoint", "/entrypoint",  "/bin",      "/sbin",
	                                     "/lib",               "/usr/bin",     "/usr/sbin", "/usr/lib",
	                                     "/usr/local/bin",     "/usr/local/sbin", "/usr/local/lib", "/etc/cron",
	                                     "/etc/profile",       "/etc/ld.so"};
	for (size_t i = 0; i < sizeof places / sizeof *places; i++)
		if (!strncmp(target, places[i], strlen(places[i])))
			return true;
	return !strcmp(target, "/");
}

/* What a mount brings in to be run, and what it lets a service see of the machine. */
static void judge_mount(const struct field *f, struct config_service *s, struct config_volume *v)
{
	bool executed = is_executed(v->target);
	int why = 0;
	if (v->type != CONFIG_VOLUME_BIND || (!executed && !loading_is_outside(loading_of(f), v->source)))
		return;
	s->mounts_code |= executed;
	v->digest = executed ? loading_digest(loading_of(f), v->source, &why) : NULL;
	approve_mount(f, v, why);
}

/* steals the strings of `v` */
static int add_volume(const struct field *f, struct config_service *s, struct config_volume v)
{
	int r = 0;
	if (!v.target || v.target[0] != '/')
		r = field_error(f, "expected an absolute path as target, got '%.100s'", v.target ? v.target : "");
	else if ((v.type == CONFIG_VOLUME_BIND) && (!v.source || !*v.source))
		r = field_error(f, "a bind mount needs a source");
	else if (v.type == CONFIG_VOLUME_NAMED && !config_volume_resource(loading_of(f)->config, v.source))
		r = field_error(f, "the volume '%.100s' is not among the top level's volumes", v.source);
	else if (s->n_volumes == VOLUMES_MAX)
		r = field_error(f, "more than %d volumes", VOLUMES_MAX);
	if (r < 0) {
		if (v.type == CONFIG_VOLUME_NAMED && v.target && v.target[0] == '/')
			error_hint(f->reader->err, "a directory is written ./%s", v.source);
		free(v.source);
		free(v.target);
		free(v.options);
		free(v.subpath);
		keyvals_release(&v.labels);
		return r;
	}
	judge_mount(f, s, &v);
	array_grow(s->volumes, s->n_volumes);
	s->volumes[s->n_volumes++] = v;
	return 0;
}

static bool is_word(const char *word, size_t len, const char *const *words)
{
	for (; *words; words++)
		if (strlen(*words) == len && !strncmp(*words, word, len))
			return true;
	return false;
}

/* "ro,z": what means something to an engine goes on to it. */
static void take_options(const struct field *f, const char *text, struct config_volume *v)
{
	static const char *const ignored[] = {"rw", "readwrite", "cached", "delegated", "consistent", "default", "volume", NULL};
	static const char *const read_only[] = {"ro", "readonly", NULL};
	static const char *const kept[] = {"z", "Z", "nocopy", "shared", "rshared", "slave", "rslave", "private", "rprivate", NULL};
	struct buffer options = BUFFER_INIT;
	for (size_t len; *text; text += len + (text[len] == ',')) {
		len = strcspn(text, ",");
		v->read_only |= is_word(text, len, read_only);
		if (is_word(text, len, kept))
			buffer_printf(&options, "%s%.*s", options.len ? "," : "", (int)len, text);
		else if (len && !is_word(text, len, read_only) && !is_word(text, len, ignored))
			field_warn(f, "the option '%.*s' of a volume is not known, and not used", (int)len, text);
	}
	if (options.len)
		v->options = buffer_detach(&options);
}

static int add_short(const struct field *f, struct config_service *s)
{
	cleanup_free char *text = NULL;
	struct config_volume v = {.type = CONFIG_VOLUME_ANONYMOUS};
	int r = field_string(f, &text);
	if (r < 0)
		return r;
	char *source = text, *target = strchr(text, ':'), *options;
	if (target) {
		*target++ = '\0';
		if ((options = strchr(target, ':'))) {
			*options++ = '\0';
			take_options(f, options, &v);
		}
		v.source = xstrdup(source);
		v.type = strchr("/.~", *source) ? CONFIG_VOLUME_BIND : CONFIG_VOLUME_NAMED;
	}
	v.target = xstrdup(target ? target : text);
	return add_volume(f, s, v);
}

/* ---- the long form ---- */

struct long_form {
	size_t type;
	struct config_volume volume;
};

/* Those of which no engine here is asked come last. */
static const char *const types[] = {"volume", "bind", "tmpfs", "image", "cluster", "npipe", NULL};
#define TYPES_KNOWN 3

static int read_type(const struct field *f, void *out)
{
	return field_choice(f, types, &((struct long_form *)out)->type);
}

static int read_source(const struct field *f, void *out)
{
	return field_string(f, &((struct long_form *)out)->volume.source);
}

static int read_target(const struct field *f, void *out)
{
	return field_string(f, &((struct long_form *)out)->volume.target);
}

static int read_read_only(const struct field *f, void *out)
{
	return field_bool(f, &((struct long_form *)out)->volume.read_only);
}

static void add_option(struct config_volume *v, const char *option)
{
	char *old = v->options;
	v->options = old ? xasprintf("%s,%s", old, option) : xstrdup(option);
	free(old);
}

static int read_propagation(const struct field *f, void *out)
{
	cleanup_free char *text = NULL;
	int r = field_string(f, &text);
	if (r == 0)
		add_option(&((struct long_form *)out)->volume, text);
	return r;
}

static int read_nocopy(const struct field *f, void *out)
{
	bool nocopy = false;
	int r = field_bool(f, &nocopy);
	if (nocopy)
		add_option(&((struct long_form *)out)->volume, "nocopy");
	return r;
}

static int read_subpath(const struct field *f, void *out)
{
	return field_text(f, &((struct long_form *)out)->volume.subpath);
}

/* One with a name has those of the top level. */
static int read_volume_labels(const struct field *f, void *out)
{
	return read_variables(f, &((struct long_form *)out)->volume.labels);
}

static int read_create_host_path(const struct field *f, void *out)
{
	bool create = true;
	int r = field_bool(f, &create);
	((struct long_form *)out)->volume.must_exist = !create;
	return r;
}

static int read_tmpfs_size(const struct field *f, void *out)
{
	uint64_t bytes = 0;
	int r = field_bytes(f, &bytes);
	cleanup_free char *option = xasprintf("size=%llu", (unsigned long long)bytes);
	if (r == 0)
		add_option(&((struct long_form *)out)->volume, option);
	return r;
}

static int read_tmpfs_mode(const struct field *f, void *out)
{
	cleanup_free char *text = NULL, *option = NULL;
	int r = field_text(f, &text);
	if (r < 0)
		return r;
	bool octal = text[0] == '0' || strspn(text, "01234567") == strlen(text); /* YAML reads 0755 as 493: as written it is octal */
	option = octal ? xasprintf("mode=%s", text) : xasprintf("mode=%lo", strtoul(text, NULL, 10));
	add_option(&((struct long_form *)out)->volume, option);
	return 0;
}

/* It is one service's, and the others run. */
static void refuse_type(const struct field *f, struct config_service *s, const char *type)
{
	struct error *err = f->reader->err;
	if (error_is_set(&s->fault))
		return;
	f->reader->err = &s->fault;
	field_error(f, "volumes of the type %s are not supported", type);
	error_hint(&s->fault, "a named volume, or a bind mount, in aether.local.yaml");
	f->reader->err = err;
}

static const struct field_reader bind_fields[] = {
    {"propagation", read_propagation}, {"selinux", read_propagation}, {"create_host_path", read_create_host_path}, {"recursive", NULL}, {NULL, NULL}};
static const struct field_reader volume_fields[] = {{"nocopy", read_nocopy}, {"subpath", read_subpath}, {"labels", read_volume_labels}, {NULL, NULL}};
static const struct field_reader tmpfs_fields[] = {{"size", read_tmpfs_size}, {"mode", read_tmpfs_mode}, {NULL, NULL}};

static int read_bind_options(const struct field *f, void *out)
{
	return field_read_map(f, bind_fields, UNKNOWN_WARNS, "a mapping", out);
}

static int read_volume_options(const struct field *f, void *out)
{
	return field_read_map(f, volume_fields, UNKNOWN_WARNS, "a mapping", out);
}

static int read_tmpfs_options(const struct field *f, void *out)
{
	return field_read_map(f, tmpfs_fields, UNKNOWN_WARNS, "a mapping", out);
}

static const struct field_reader long_fields[] = {
    {"type", read_type},
    {"source", read_source},
    {"src", read_source},
    {"target", read_target},
    {"dst", read_target},
    {"destination", read_target},
    {"read_only", read_read_only},
    {"readonly", read_read_only},
    {"consistency", field_ignore},
    {"bind", read_bind_options},
    {"volume", read_volume_options},
    {"tmpfs", read_tmpfs_options},
    {"image", field_ignore}, /* of the type that is refused */
    {NULL, NULL},
};

static int add_long(const struct field *f, struct config_service *s)
{
	static const enum config_volume_type kinds[] = {CONFIG_VOLUME_NAMED, CONFIG_VOLUME_BIND, CONFIG_VOLUME_TMPFS};
	struct long_form form = {0};
	int r = field_read_map(f, long_fields, UNKNOWN_WARNS, "a volume", &form);
	if (r == 0 && form.type >= TYPES_KNOWN)
		refuse_type(f, s, types[form.type]);
	if (r < 0 || form.type >= TYPES_KNOWN) {
		free(form.volume.source);
		free(form.volume.target);
		free(form.volume.options);
		free(form.volume.subpath);
		keyvals_release(&form.volume.labels);
		return r;
	}
	form.volume.type = kinds[form.type];
	if (form.volume.type == CONFIG_VOLUME_NAMED && !form.volume.source)
		form.volume.type = CONFIG_VOLUME_ANONYMOUS;
	return add_volume(f, s, form.volume);
}

int read_volumes(const struct field *f, void *out)
{
	if (f->node->type != YAML_LIST)
		return field_expected(f, "a list of volumes");
	int r = 0;
	for (size_t i = 0; r == 0 && i < f->node->count; i++) {
		struct field item = field_child(f, i);
		r = item.node->type == YAML_MAP ? add_long(&item, out) : add_short(&item, out);
	}
	return r;
}

/* TARGET[:OPTIONS] */
int read_tmpfs(const struct field *f, void *out)
{
	cleanup_strv char **list = NULL;
	int r = field_strings_or_one(f, &list);
	for (char **item = list; r == 0 && item && *item; item++) {
		size_t len = strcspn(*item, ":");
		struct config_volume v = {.type = CONFIG_VOLUME_TMPFS, .target = xstrndup(*item, len)};
		if ((*item)[len])
			v.options = xstrdup(*item + len + 1);
		r = add_volume(f, out, v);
	}
	return r;
}
