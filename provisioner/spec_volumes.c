/* What a service mounts: its volumes as a backend takes them, and the files of its secrets and configs. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/path.h"
#include "provisioner/spec_private.h"

#define GRANT_MAX (1u << 20)

static char *absolute(const struct build *b, const char *path)
{
	cleanup_free char *plain = config_path_normalized(path);
	return keep(b->s, xasprintf("/%s", strcmp(plain, ".") ? plain : ""));
}

/* Where an engine finds what is bound. A file that this workspace does not have (nobody tracks it) is the main checkout's, as everywhere: an
 * engine would make a directory of that name. A directory to be written to is each workspace's own. */
static char *bind_source(const struct build *b, const struct config_volume *v)
{
	const struct identity *id = b->params->id;
	if (v->source[0] == '/')
		return absolute(b, v->source);
	cleanup_free char *found = config_source_path(b->m->config, b->params->root_fd, id->root, id->main_root, v->source);
	cleanup_free char *beneath = xasprintf("/proc/self/fd/%d/", b->params->root_fd);
	struct stat st;
	bool here = !strncmp(found, beneath, strlen(beneath));
	bool in_main = !here && id->main_root && strcmp(id->main_root, id->root) && path_is_within(found, id->main_root) && v->source[0] != '~';
	if (in_main && !v->read_only && (stat(found, &st) || S_ISDIR(st.st_mode))) {
		here = true;
		in_main = false;
	}
	if (in_main)
		strv_pushf(&b->m->warnings, "%s: %s is not in this workspace: the main checkout's is mounted", b->s->config->name, v->source);
	cleanup_free char *relative = here ? xasprintf("%s/%s/%s", id->root, b->m->config->subdirectory, v->source) : NULL;
	return absolute(b, relative ? relative : found);
}

/* Not every engine refuses by itself. */
static void refuse_missing(const struct build *b, const struct config_volume *v)
{
	cleanup_free char *path = config_source_path(b->m->config, b->params->root_fd, b->params->id->root, b->params->id->main_root, v->source);
	if (!v->must_exist || access(path, F_OK) == 0 || error_is_set(&b->s->unsupported) || !strcmp(b->m->backend, "process"))
		return;
	error_set(&b->s->unsupported, ERROR_CONFIG_INVALID, "service %s: it mounts %s, which is not there, and create_host_path is false", b->s->config->name, v->source);
	error_hint(&b->s->unsupported, "make it, here or in the main checkout, and ask again");
}

static bool binds(const struct keyvals *options)
{
	const char *o = keyvals_get(options, "o");
	for (size_t len; o && *o; o += len + (o[len] == ',')) {
		len = strcspn(o, ",");
		if (len == 4 && !strncmp(o, "bind", 4))
			return true;
	}
	return false;
}

/* A directory that the local driver binds is relative to the compose file, as that of any bind mount. */
static const struct keyvals *driver_options(const struct build *b, const struct keyvals *options)
{
	const char *device = keyvals_get(options, "device");
	if (!binds(options) || !device || *device == '/' || !*device)
		return options;
	const struct config_volume as = {.source = (char *)device};
	struct keyvals *mine = keep_array(b->s, 1, sizeof *mine);
	*mine = (struct keyvals){keep_array(b->s, options->count, sizeof *mine->items), options->count};
	for (size_t i = 0; i < options->count; i++) {
		mine->items[i] = options->items[i];
		if (!strcmp(options->items[i].key, "device"))
			mine->items[i].value = bind_source(b, &as);
	}
	return mine;
}

/* Who says other options means another volume. */
static void build_named(const struct build *b, struct volume_spec *spec)
{
	const struct config_resource *resource = config_volume_resource(b->m->config, spec->name);
	uint64_t h = HASH_INIT;
	spec->source = data_path(b, SPEC_VOLUMES "/", spec->name);
	if (!strcmp(b->m->backend, "process") || !resource)
		return;
	if (resource->external) {
		spec->kind = VOLUME_EXTERNAL;
		spec->source = config_resource_name(resource);
		return;
	}
	spec->driver = resource->driver;
	spec->driver_opts = driver_options(b, &resource->driver_opts);
	spec->labels = &resource->labels;
	if (!resource->driver && !resource->driver_opts.count)
		return;
	h = hash_str(h, resource->driver ? resource->driver : "");
	for (size_t i = 0; i < resource->driver_opts.count; i++)
		h = hash_str(hash_str(h, resource->driver_opts.items[i].key), resource->driver_opts.items[i].value ? resource->driver_opts.items[i].value : "");
	spec->source = keep(b->s, xasprintf("%s+%08x", spec->source, (unsigned)h));
}

static struct volume_spec volume(const struct build *b, const struct config_volume *v)
{
	static const enum volume_kind kinds[] = {[CONFIG_VOLUME_NAMED] = VOLUME_NAMED,
	                                         [CONFIG_VOLUME_ANONYMOUS] = VOLUME_ANONYMOUS,
	                                         [CONFIG_VOLUME_BIND] = VOLUME_BIND,
	                                         [CONFIG_VOLUME_TMPFS] = VOLUME_TMPFS};
	struct volume_spec spec = {kinds[v->type], v->source, v->source, v->target, v->read_only, v->options};
	spec.subpath = v->subpath;
	spec.must_exist = v->must_exist;
	if (v->type == CONFIG_VOLUME_NAMED)
		build_named(b, &spec);
	if (v->type == CONFIG_VOLUME_ANONYMOUS) {
		cleanup_free char *target = path_flat(v->target);
		spec.name = keep(b->s, xasprintf("%s.%s", b->s->config->name, target));
		spec.source = data_path(b, SPEC_VOLUMES "/", spec.name);
		spec.labels = v->labels.count ? &v->labels : NULL;
	}
	if (v->type == CONFIG_VOLUME_BIND) {
		spec.source = bind_source(b, v);
		refuse_missing(b, v);
	}
	return spec;
}

void spec_build_volumes(struct build *b)
{
	const struct config_service *c = b->s->config;
	b->volumes = keep_array(b->s, c->n_volumes + c->n_grants, sizeof *b->volumes);
	for (size_t i = 0; i < c->n_volumes; i++)
		b->volumes[i] = volume(b, &c->volumes[i]);
	b->s->spec.volumes = b->volumes;
	b->s->spec.n_volumes = c->n_volumes;
}

/* ---- secrets and configs: copies, for an engine may not look into the workspace; another text is another name ---- */

int spec_source_text(const struct model *m, const struct model_params *params, const struct config_source *source, struct buffer *out)
{
	if (source->text) {
		buffer_adds(out, source->text);
		return 0;
	}
	cleanup_free char *path = config_source_path(m->config, params->root_fd, params->id->root, params->id->main_root, source->path);
	return file_read(AT_FDCWD, path, GRANT_MAX, out);
}

static int grant_text(const struct build *b, const struct config_grant *g, struct buffer *out)
{
	const struct config_source *source = config_source_of(b->m->config, g);
	int r = spec_source_text(b->m, b->params, source, out);
	if (r < 0 && !error_is_set(&b->s->unsupported)) {
		error_set(&b->s->unsupported, ERROR_CONFIG_INVALID, "service %s: %s %s: %s: %s", b->s->config->name, g->secret ? "secret" : "config", g->source, source->path,
		          strerror(-r));
		error_hint(&b->s->unsupported, "make the file, here or in the main checkout");
	}
	return r;
}

#define GRANT_MODE 0444 /* whoever runs in the container reads it */

/* Only root gives files away: others' are their own, readable for whoever was meant. */
static struct config_grant settled_owner(const struct build *b, const struct config_grant *g)
{
	struct config_grant settled = *g;
	bool foreign_uid = g->uid >= 0 && (uid_t)g->uid != geteuid(), foreign_gid = g->gid >= 0 && (gid_t)g->gid != getegid();
	if (geteuid() == 0 || (!foreign_uid && !foreign_gid))
		return settled;
	strv_pushf(&b->m->warnings, "%s: uid and gid of the %s %s are not used, for only root may give files away: it is readable for everybody in the container",
	           b->s->config->name, g->secret ? "secret" : "config", g->source);
	settled.uid = settled.gid = -1;
	if (g->mode >= 0)
		settled.mode = g->mode | 0444;
	return settled;
}

/* Written under another name and given its own when all is right: what is there under that is never half made. */
static int write_grant(const char *path, const struct config_grant *g, const struct buffer *text)
{
	cleanup_free char *partial = xasprintf("%s.%d.tmp", path, (int)getpid());
	mode_t mode = g->mode >= 0 ? (mode_t)g->mode : GRANT_MODE;
	int r = file_write_atomic(AT_FDCWD, partial, buffer_str(text), text->len, 0600);
	if (r == 0 && (g->uid >= 0 || g->gid >= 0) && chown(partial, (uid_t)g->uid, (gid_t)g->gid))
		r = -errno;
	if (r == 0 && (chmod(partial, mode) || rename(partial, path)))
		r = -errno;
	if (r < 0)
		unlink(partial);
	return r;
}

static int build_grant(struct build *b, const struct config_grant *written)
{
	cleanup_buffer struct buffer text = BUFFER_INIT, kind = BUFFER_INIT;
	if (config_source_of(b->m->config, written)->external || grant_text(b, written, &text) < 0)
		return 0;
	const struct config_grant settled = settled_owner(b, written), *g = &settled;
	if (g->uid >= 0 || g->gid >= 0 || g->mode >= 0)
		buffer_printf(&kind, "-%d.%d.%o", g->uid, g->gid, g->mode >= 0 ? (unsigned)g->mode : GRANT_MODE);
	cleanup_free char *dir = xasprintf("%s/files", b->params->id->state_dir);
	char *path = keep(b->s, xasprintf("%s/%016llx%s", dir, (unsigned long long)hash_bytes(HASH_INIT, buffer_str(&text), text.len), buffer_str(&kind)));
	b->volumes[b->s->spec.n_volumes++] = (struct volume_spec){VOLUME_BIND, NULL, path, g->target, true, NULL};
	if (!b->params->plan || access(path, F_OK) == 0)
		return 0;
	int r = dir_make(AT_FDCWD, dir, 0700);
	if (!r)
		r = write_grant(path, g, &text);
	return r < 0 ? error_set_errno(b->err, r == -ENOSPC ? ERROR_NO_SPACE : ERROR_STORE_FAILED, -r, "%s", path) : 0;
}

int spec_build_grants(struct build *b)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < b->s->config->n_grants; i++)
		r = build_grant(b, &b->s->config->grants[i]);
	return r;
}

/* "/data/" and "/data" are one place; a mount of a parent (/var/lib/postgresql) holds the data, too. */
static bool holds(const char *target, const char *data)
{
	size_t len = strlen(target);
	while (len > 1 && target[len - 1] == '/')
		len--;
	return !strncmp(target, data, len) && (!data[len] || data[len] == '/');
}

static void warn_of_bind(const struct build *b, const struct volume_spec *v)
{
	strv_pushf(&b->m->warnings, "%s: the data lies in the environment's own directory, not in %s", b->s->config->name,
	           v->source);
}

/* A named volume where the image keeps its data *is* the data directory; a bind mount there would have ten workspaces
 * and the trash fight for one directory of the user's, and the data land in the VCS: it becomes an anonymous volume. */
const char *spec_data_dir(const struct build *b)
{
	const char *target = b->s->recipe ? b->s->recipe->data_target : NULL;
	const char *own = data_path(b, "", b->s->config->name), *dir = own;
	for (size_t i = 0; target && i < b->s->spec.n_volumes; i++) {
		struct volume_spec *v = &b->volumes[i];
		if (!holds(v->target, target))
			continue;
		if (v->kind == VOLUME_NAMED) {
			dir = v->source;
			continue;
		}
		if (v->kind == VOLUME_BIND)
			warn_of_bind(b, v);
		v->kind = VOLUME_ANONYMOUS;
		v->name = b->s->config->name;
		v->source = own;
	}
	return dir;
}

/* The same for an engine, which keeps data in volumes of its own, and a tmpfs as one. Ten databases on one external volume destroy it. */
void spec_bind_to_volume(const struct build *b)
{
	const char *target = b->s->recipe ? b->s->recipe->data_target : NULL;
	for (size_t i = 0; target && i < b->s->spec.n_volumes; i++) {
		struct volume_spec *v = &b->volumes[i];
		if ((v->kind != VOLUME_BIND && v->kind != VOLUME_EXTERNAL) || !holds(v->target, target))
			continue;
		warn_of_bind(b, v);
		v->kind = VOLUME_ANONYMOUS;
		v->name = keep(b->s, xasprintf("%s.data", b->s->config->name));
		v->source = keep(b->s, xasprintf("%s/data.volume", b->s->spec.data));
	}
}
