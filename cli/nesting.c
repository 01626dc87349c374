#include "cli/nesting.h"

#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/mounts.h"

/* The nearest of our mounts strictly above `path`. borrowed */
static const struct mount *overlay_above(const struct mounts *m, const char *path)
{
	cleanup_free char *at = xstrdup(path);
	for (char *slash; (slash = strrchr(at, '/')) && slash != at;) {
		*slash = '\0';
		const struct mount *found = mounts_ours_at(m, at);
		if (found)
			return found;
	}
	return NULL;
}

/* The kernel closes a user's mount to every process that has another uid or gid in any of its credentials
 * (fuse_allow_current_process), and fusermount3 is setuid. Mounted the other way round, the inner one first, it never
 * has to look in. */
char *nesting_closed_by(const char *root)
{
	cleanup_mounts struct mounts m = MOUNTS_INIT;
	if (geteuid() == 0 || mounts_read(&m))
		return NULL;
	const struct mount *above = overlay_above(&m, root);
	return above && mount_kind(above) == MOUNT_OVERLAY && !above->shared ? xstrdup(above->point) : NULL;
}
