#include "backends/engine_view.h"

#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "backends/engine.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/fuse_conf.h"
#include "base/path.h"

/* It is neither theirs nor opened to others. */
static bool is_closed_to(const struct mntent *m, uid_t uid)
{
	const char *owner = hasmntopt(m, "user_id");
	return !strncmp(m->mnt_type, "fuse", 4) && owner && strtoul(owner + strlen("user_id="), NULL, 10) != uid && !hasmntopt(m, "allow_other");
}

bool engine_view_is_closed(const char *table, const char *path, uid_t uid)
{
	FILE *mounts = setmntent(table, "re");
	struct mntent entry;
	char text[8192];
	size_t nearest = 0;
	bool closed = false;
	while (mounts && getmntent_r(mounts, &entry, text, sizeof text)) {
		size_t len = strlen(entry.mnt_dir);
		if (len < nearest || !path_is_within(path, entry.mnt_dir))
			continue;
		nearest = len; /* of the same place the last one is on top */
		closed = is_closed_to(&entry, uid);
	}
	if (mounts)
		endmntent(mounts);
	return closed;
}

uid_t engine_view_uid(const char *socket_path)
{
	struct stat st;
	return socket_path && !stat(socket_path, &st) ? st.st_uid : 0;
}

/* What is mounted already was not opened by a line that came later. */
const char *engine_view_mend(bool overlay)
{
	if (fuse_conf_allows_other())
		return "it was mounted before /etc/fuse.conf had user_allow_other: ajj detach, then ajj attach";
	return overlay ? "once, as root: echo user_allow_other >>/etc/fuse.conf; then ajj detach and ajj attach. Without root: ajj detach, then ajj attach -o overlay=off, or a rootless engine"
	               : "once, as root: echo user_allow_other >>/etc/fuse.conf; then ajj detach and ajj attach. Without root: a rootless engine";
}

/* The directory of this machine that it shows; borrowed; NULL: none */
static const char *bound(const struct volume_spec *v)
{
	const char *device = v->driver_opts ? keyvals_get(v->driver_opts, "device") : NULL;
	return v->kind == VOLUME_BIND ? v->source : device && *device == '/' ? device : NULL;
}

void engine_check_binds(const struct engine *e, const struct service_spec *spec, backend_diagnostic *report, void *arg)
{
	uid_t uid = engine_view_uid(e->target.socket_path);
	for (size_t i = 0; i < spec->n_volumes; i++) {
		const struct volume_spec *v = &spec->volumes[i];
		const char *path = bound(v);
		if (!path || !engine_view_is_closed("/proc/self/mounts", path, uid))
			continue;
		cleanup_free char *text = xasprintf("it mounts %s, and the engine, which is another user, may not look into this user's FUSE mounts", path);
		report(arg, DIAGNOSTIC_UNSUPPORTED, spec->name, "volumes", text, engine_view_mend(true));
		return;
	}
}

int engine_view_check(const char *backend, const char *path, struct error *err)
{
	cleanup_engine_target struct engine_target t = ENGINE_TARGET_INIT;
	cleanup_error struct error none = ERROR_INIT;
	if (engine_target_resolve(backend, NULL, &t, &none) < 0 || !engine_view_is_closed("/proc/self/mounts", path, engine_view_uid(t.socket_path)))
		return 0;
	error_set(err, ERROR_PERMISSION, "the engine at %s is another user, and may not look into this user's mount at %s", t.url, path);
	return error_hint(err, "%s", engine_view_mend(true));
}
