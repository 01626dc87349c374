/* What a container of this machine holds in memory, as its cgroup says: cgroups(7), https://docs.kernel.org/admin-guide/cgroup-v2.html */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "backends/engine.h"
#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"

#define FILE_MAX 16384

/* new: of its line in /proc/PID/cgroup "NUMBER:CONTROLLERS:PATH"; NULL: none */
static char *path_for(const char *text, const char *controller)
{
	for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		const char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
		if (!path || path > line + strcspn(line, "\n"))
			continue;
		cleanup_free char *names = xstrndup(controllers + 1, (size_t)(path - controllers - 1));
		if (!strcmp(names, controller))
			return xstrndup(path + 1, strcspn(path + 1, "\n"));
	}
	return NULL;
}

static uint64_t number_in(const char *directory, const char *file, const char *key)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_free char *path = xasprintf("%s/%s", directory, file);
	if (file_read(AT_FDCWD, path, FILE_MAX, &text))
		return 0;
	const char *at = key ? strstr(buffer_str(&text), key) : buffer_str(&text);
	return at ? strtoull(at + (key ? strlen(key) : 0), NULL, 10) : 0;
}

/* Files that were read and could be dropped count for nobody. */
uint64_t engine_memory(const struct engine_slot *slot)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_free char *file = xasprintf("/proc/%d/cgroup", (int)slot->pid);
	if (!slot->local || slot->state != INSTANCE_RUNNING || file_read(AT_FDCWD, file, FILE_MAX, &text))
		return 0;
	cleanup_free char *old = path_for(buffer_str(&text), "memory"), *unified = path_for(buffer_str(&text), "");
	cleanup_free char *directory = xasprintf("/sys/fs/cgroup%s%s", old ? "/memory" : "", old ? old : unified ? unified : "/");
	uint64_t used = number_in(directory, old ? "memory.usage_in_bytes" : "memory.current", NULL);
	uint64_t idle = number_in(directory, "memory.stat", old ? "\ntotal_inactive_file " : "\ninactive_file ");
	return used > idle ? used - idle : used;
}
