/* A service's `build` (compose-spec build.md). What no engine can be asked for without a session of BuildKit's is kept by name: the backend says so. */
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/config_private.h"

#define ULIMITS_MAX 100

#define TEXT(member)                                                                                                   \
	static int take_##member(const struct field *f, void *out)                                                         \
	{                                                                                                                  \
		return field_text(f, &((struct build_options *)out)->member);                                                  \
	}
#define LIST(member)                                                                                                   \
	static int take_##member(const struct field *f, void *out)                                                         \
	{                                                                                                                  \
		return field_strings_or_one(f, &((struct build_options *)out)->member);                                        \
	}
#define SWITCH(member)                                                                                                 \
	static int take_##member(const struct field *f, void *out)                                                         \
	{                                                                                                                  \
		return field_bool(f, &((struct build_options *)out)->member);                                                  \
	}
#define MAP(member)                                                                                                    \
	static int take_##member(const struct field *f, void *out)                                                         \
	{                                                                                                                  \
		return read_variables(f, &((struct build_options *)out)->member);                                              \
	}

TEXT(context)
TEXT(dockerfile)
TEXT(inline_text)
TEXT(target)
TEXT(network)
LIST(cache_from)
LIST(tags)
LIST(platforms)
SWITCH(no_cache)
SWITCH(pull)
MAP(args)
MAP(labels)

static int take_shm(const struct field *f, void *out)
{
	return field_bytes(f, &((struct build_options *)out)->shm_bytes);
}

static int take_hosts(const struct field *f, void *out)
{
	return read_extra_hosts(f, &((struct build_options *)out)->extra_hosts);
}

static int take_limits(const struct field *f, void *out)
{
	struct build_options *o = out;
	return read_ulimits(f, &o->ulimits, &o->n_ulimits);
}

/* An empty list asks for nothing. */
static int refuse(const struct field *f, void *out)
{
	struct build_options *o = out;
	bool asks = f->node->type == YAML_SCALAR || f->node->count;
	if (asks)
		strv_push(&o->refused, xstrdup(f->key));
	return 0;
}

/* `privileged: false` and its kind say nothing. */
static bool is_off(const struct field *f)
{
	return f->node->type == YAML_SCALAR && !strcmp(f->node->text, "false");
}

static int refuse_switch(const struct field *f, void *out)
{
	return is_off(f) ? 0 : refuse(f, out);
}

static int ignore(const struct field *f, void *out)
{
	if (!is_off(f))
		strv_push(&((struct build_options *)out)->ignored, xstrdup(f->key));
	return 0;
}

static const struct field_reader build_fields[] = {
    {"context", take_context},
    {"dockerfile", take_dockerfile},
    {"dockerfile_inline", take_inline_text},
    {"args", take_args},
    {"target", take_target},
    {"cache_from", take_cache_from},
    {"labels", take_labels},
    {"network", take_network},
    {"no_cache", take_no_cache},
    {"pull", take_pull},
    {"shm_size", take_shm},
    {"extra_hosts", take_hosts},
    {"platforms", take_platforms},
    {"tags", take_tags},
    {"ulimits", take_limits},
    {"secrets", refuse},
    {"ssh", refuse},
    {"additional_contexts", refuse},
    {"entitlements", refuse},
    {"privileged", refuse_switch},
    {"cache_to", ignore},
    {"provenance", ignore},
    {"sbom", ignore},
    {"isolation", ignore},
    {NULL, NULL},
};

/* "https://...", "git@...", "docker-image://..." */
static bool is_elsewhere(const char *context)
{
	return strstr(context, "://") || !strncmp(context, "git@", 4) || !strncmp(context, "github.com/", 11);
}

static int settle(const struct field *f, struct build_options *o)
{
	if (!o->context)
		o->context = xstrdup(".");
	if (o->inline_text && o->dockerfile)
		return field_error(f, "dockerfile and dockerfile_inline cannot both be given");
	if (strv_len(o->platforms) > 1)
		strv_push(&o->ignored, xstrdup("platforms (of several, the engine's own or the service's)"));
	if (is_elsewhere(o->context))
		strv_push(&o->refused, xstrdup("context (a directory elsewhere)"));
	return 0;
}

int read_build(const struct field *f, void *out)
{
	struct config_service *s = out;
	struct build_options *o = &s->build;
	int r = f->node->type == YAML_MAP    ? field_read_map(f, build_fields, UNKNOWN_WARNS, "a mapping", o)
	        : f->node->type == YAML_SCALAR ? field_text(f, &o->context)
	                                       : field_expected(f, "a directory or a mapping");
	if (r == 0)
		r = settle(f, o);
	if (r == 0)
		s->has_build = true;
	return r;
}

/* What is named as an image, and is that of another service that builds it, is built there; like that one it is no service that a read starts. */
void build_share(struct config *c)
{
	for (size_t i = 0; i < c->n_services; i++)
		for (size_t k = 0; k < c->n_services && c->services[i].image && !c->services[i].has_build; k++) {
			const struct config_service *o = &c->services[k];
			if (o->has_build && !o->built_by && o->image && !strcmp(o->image, c->services[i].image)) {
				c->services[i].built_by = o->name;
				break;
			}
		}
	for (size_t i = 0; i < c->n_services; i++)
		c->services[i].has_build |= c->services[i].built_by != NULL;
}
