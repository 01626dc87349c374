#include "backends/attachment.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/backend.h"
#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"

#define PROC_MAX 4096

int attachment_open(const char *backend, const struct attachment_spec *spec, struct attachment **ret, struct error *err)
{
	const struct backend_ops *ops = backend ? backend_find(backend) : NULL;
	if (!spec->argv || (!spec->argv[0] && spec->service))
		return error_set(err, ERROR_USAGE, "nothing to run");
	if (spec->service && !backend_service_name_valid(spec->service))
		return error_set(err, ERROR_SERVICE_UNKNOWN, "\"%s\" is no service's name", spec->service);
	if (!ops || !ops->attach)
		return error_set(err, ERROR_CONFIG_INVALID, "the backend %s runs no programs beside its services", backend ? backend : "(none)");
	return ops->attach(spec, ret, err);
}

int attachment_sweep(const char *backend, const char *address, const char *namespace_, bool remove, char ***found, struct error *err)
{
	const struct backend_ops *ops = backend ? backend_find(backend) : NULL;
	return ops && ops->sweep_attached && address ? ops->sweep_attached(address, namespace_, remove, found, err) : 0;
}

static unsigned long long start_ticks(pid_t pid)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_free char *path = xasprintf("/proc/%d/stat", (int)pid);
	const char *p = file_read(AT_FDCWD, path, PROC_MAX, &text) ? NULL : strrchr(buffer_str(&text), ')'); /* field 2 of proc(5); starttime is 22 */
	for (int field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	return p ? strtoull(p, NULL, 10) : 0;
}

static char *owner_of(pid_t pid)
{
	cleanup_buffer struct buffer boot = BUFFER_INIT;
	file_read(AT_FDCWD, "/proc/sys/kernel/random/boot_id", PROC_MAX, &boot);
	return xasprintf("%d:%llu:%.*s", (int)pid, start_ticks(pid), (int)strcspn(buffer_str(&boot), "\n"), buffer_str(&boot));
}

char *attachment_owner(void)
{
	return owner_of(getpid());
}

bool attachment_owner_is_gone(const char *owner)
{
	cleanup_free char *now = owner_of((pid_t)atoi(owner));
	return strcmp(now, owner) != 0;
}

void attachment_close(struct attachment *s)
{
	if (s)
		s->ops->close(s);
}
