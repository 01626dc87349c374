#include "cli/whereabouts.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/output.h"
#include "provisioner/mounts.h"

/* Not by getcwd(3), which walks upwards through directories where the kernel says "(unreachable)". */
bool whereabouts_known(void)
{
	char path[PATH_MAX];
	return syscall(SYS_getcwd, path, sizeof path) > 0 && path[0] == '/';
}

void whereabouts_recover(void)
{
	const char *pwd = getenv("PWD");
	if (whereabouts_known() || !pwd || pwd[0] != '/')
		return;
	cleanup_free char *hung = mounts_hung_above(pwd);
	if (!hung && !chdir(pwd))
		output_note("Note: this shell stands in a directory that is not there any more: cd \"$PWD\"");
}
