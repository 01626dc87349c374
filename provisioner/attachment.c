#include "provisioner/attachment.h"

#include "backends/backend.h"
#include "backends/engine_view.h"
#include "base/cleanup.h"

static int check_planned(const char *planned, struct attachment_spec *spec, struct error *err)
{
	cleanup_free char *address = NULL, *from = NULL;
	int r = backend_locate(planned, false, &address, &from, err);
	spec->address = address;
	r = r ? r : attachment_open(planned, spec, NULL, err);
	spec->address = NULL;
	return r;
}

int environment_attach(const struct store_environment *e, const char *planned, struct attachment_spec *spec, struct attachment **ret, struct error *err)
{
	spec->namespace_ = e->namespace_;
	spec->workspace = e->workspace;
	spec->state_dir = e->state_dir;
	spec->address = e->backend_target;
	spec->uid = e->uid;
	if (e->backend)
		return attachment_open(e->backend, spec, ret, err);
	if (planned && spec->only_check)
		return check_planned(planned, spec, err);
	if (!spec->service)
		return error_set(err, ERROR_SERVICE_FAILED, "nothing of %s was ever started", e->root);
	error_set(err, ERROR_SERVICE_FAILED, "service %s does not run", spec->service);
	return error_hint(err, "ajj start %s", spec->service);
}

int attachment_is_seen(const char *backend, const char *path, struct error *err)
{
	return engine_view_check(backend, path, err);
}
