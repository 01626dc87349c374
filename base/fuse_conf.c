#include "base/fuse_conf.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

bool fuse_conf_allows_other(void)
{
	cleanup_fclose FILE *f = fopen("/etc/fuse.conf", "re");
	char line[256];
	while (f && fgets(line, sizeof line, f)) {
		line[strcspn(line, " \t\n#")] = '\0';
		if (!strcmp(line, "user_allow_other"))
			return true;
	}
	return false;
}
