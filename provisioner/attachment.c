#include "provisioner/attachment.h"

int environment_attach(const struct store_environment *e, struct attachment_spec *spec, struct attachment **ret, struct error *err)
{
	if (!e->backend) {
		error_set(err, ERROR_SERVICE_FAILED, "nothing of %s was ever started", e->root);
		return error_hint(err, "ajj up");
	}
	spec->namespace_ = e->namespace_;
	spec->workspace = e->workspace;
	spec->state_dir = e->state_dir;
	spec->address = e->backend_target;
	spec->uid = e->uid;
	return attachment_open(e->backend, spec, ret, err);
}
