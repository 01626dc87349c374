#include "cli/exclude.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "cli/output.h"

static bool has_local_file(const char *root)
{
	cleanup_free char *path = xasprintf("%s/" LOCAL_FILE, root);
	return faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

void exclude_local_file(const struct identity *id)
{
	cleanup_error struct error why = ERROR_INIT;
	if (!has_local_file(id->root) && !(id->main_root && has_local_file(id->main_root)))
		return;
	if (exclude_add(id, "/" LOCAL_FILE, &why))
		output_note("Warning: " LOCAL_FILE " is not kept out of the VCS: %s", why.message);
}
