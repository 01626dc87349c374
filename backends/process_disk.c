#include <sys/statvfs.h>

#include "backends/process.h"

#define ROOM_MIN (UINT64_C(1) << 20) /* bytes: less is as good as none; a failed write has given back what it got */

bool process_disk_full(const char *path)
{
	struct statvfs v;
	return path && *path && !statvfs(path, &v) && (uint64_t)v.f_bavail * v.f_frsize < ROOM_MIN;
}
