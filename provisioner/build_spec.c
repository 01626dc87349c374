/* A service's `build` with everything decided: where its context lies, and what of it is ours. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/path.h"
#include "provisioner/config_private.h"
#include "provisioner/model.h"

/* Absolute, by its words: as the user would name it. new */
static char *place_of(const struct model *m, const struct identity *id, const char *path)
{
	const char *home = getenv("HOME"), *begin = m->config->subdirectory;
	if (path[0] == '~' && path[1] == '/' && home)
		return config_path_join(home, path + 2);
	cleanup_free char *directory = xasprintf("%s%s%s", id->root, *begin ? "/" : "", begin), *from_root = path[0] == '/' ? xstrdup(path + 1) : NULL;
	return config_path_join(from_root ? "/" : directory, from_root ? from_root : path);
}

/* As seen from the context. new */
static char *beside(const char *prefix, const char *name)
{
	return xasprintf("%s%s%s", prefix, *prefix ? "/" : "", name);
}

/* In a context that has the workspace in it, what is placed there is known by its place. */
static void set_workspace(struct build_spec *s, const struct identity *id, const char *context, int root_fd)
{
	if (!path_is_within(id->root, context))
		return;
	const char *prefix = id->root + strlen(context);
	prefix += *prefix == '/';
	s->vcs = xstrdup(prefix);
	s->root = *prefix ? xasprintf("/proc/self/fd/%d", root_fd) : NULL;
	s->control = beside(prefix, ".aether");
	s->env = beside(prefix, id->env_name);
	s->env_own = beside(prefix, identity_own_name(id));
}

/* One that the service names is meant; of several the engine knows best which is its own. */
static const char *platform_of(const struct config_service *c, const struct build_options *o)
{
	if (c->container.platform)
		return c->container.platform;
	return strv_len(o->platforms) == 1 ? o->platforms[0] : NULL;
}

static bool mounts(const struct model *m, const struct identity *id, const struct config_service *c, const char *context)
{
	for (size_t i = 0; i < c->n_volumes; i++) {
		cleanup_free char *source = c->volumes[i].type == CONFIG_VOLUME_BIND ? place_of(m, id, c->volumes[i].source) : NULL;
		if (source && path_is_within(context, source))
			return true;
	}
	return false;
}

struct build_spec *model_build_image(const struct model *m, const struct config_service *c, const struct model_params *params)
{
	const struct identity *id = params->id;
	const struct config_service *by = c->built_by ? config_service(m->config, c->built_by) : c;
	const struct build_options *o = &by->build;
	cleanup_free char *context = place_of(m, id, o->context);
	char key[SHA256_HEX];
	struct build_spec s = {.options = o, .platform = platform_of(c, o), .live = mounts(m, id, c, context)};
	cleanup_free char *opened = config_source_path(m->config, params->root_fd, id->root, id->main_root, o->context);
	cleanup_free char *shown = xasprintf("build of %s (%s)", by->name, o->context);
	cleanup_free char *file = o->dockerfile && o->dockerfile[0] == '/' ? config_source_path(m->config, params->root_fd, id->root, id->main_root, o->dockerfile)
	                                                                    : xasprintf("%s/%s", opened, o->dockerfile ? o->dockerfile : "Dockerfile");
	build_options_key(o, s.platform, key);
	s.context = opened;
	s.shown = shown;
	s.dockerfile = o->inline_text ? NULL : file;
	s.key = key;
	set_workspace(&s, id, context, params->root_fd);
	struct build_spec *copy = build_spec_copy(&s);
	free((char *)s.vcs);
	free((char *)s.root);
	free((char *)s.control);
	free((char *)s.env);
	free((char *)s.env_own);
	return copy;
}

char *model_built_image(const struct config_service *c, const struct identity *id)
{
	return build_image_name(id->namespace_, c->built_by ? c->built_by : c->name);
}
