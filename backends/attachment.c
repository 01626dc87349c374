#include "backends/attachment.h"

#include <string.h>

#include "backends/backend.h"

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

int attachment_sweep(const char *backend, const char *address, const char *namespace_, attachment_gone *gone, bool remove, char ***found, struct error *err)
{
	const struct backend_ops *ops = backend ? backend_find(backend) : NULL;
	return ops && ops->sweep_attached && address ? ops->sweep_attached(address, namespace_, gone, remove, found, err) : 0;
}

void attachment_close(struct attachment *s)
{
	if (s)
		s->ops->close(s);
}
