/* What registry.c lists. */
#ifndef BACKENDS_BACKENDS_H
#define BACKENDS_BACKENDS_H

#include "backends/backend.h"

extern const struct backend_ops backend_process;
extern const struct backend_ops backend_memory;
extern const struct backend_ops backend_docker;
extern const struct backend_ops backend_podman;

#endif
