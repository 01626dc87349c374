#include <string.h>

#include "backends/backend.h"
#include "backends/backends.h"

static const struct backend_ops *const backends[] = {
    &backend_process,
    &backend_docker,
    &backend_podman,
    &backend_memory,
    NULL,
};

const struct backend_ops *backend_find(const char *name)
{
	if (strstr(name, "://")) /* the address of an engine */
		return &backend_docker;
	for (const struct backend_ops *const *b = backends; *b; b++)
		if (!strcmp((*b)->name, name))
			return *b;
	return NULL;
}

const struct backend_ops *const *backend_all(void)
{
	return backends;
}
