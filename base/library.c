#include "base/library.h"

#include <dlfcn.h>

static void *failed(struct library *l)
{
	if (!error_is_set(&l->failed)) {
		error_set(&l->failed, ERROR_INTERNAL, "%s cannot be used: %s", l->soname, dlerror());
		error_hint(&l->failed, "install the package %s", l->package);
	}
	return NULL;
}

void library_open(struct library *l)
{
	l->handle = dlopen(l->soname, RTLD_NOW | RTLD_LOCAL);
	if (!l->handle)
		failed(l);
}

void *library_find(struct library *l, const char *symbol)
{
	void *found = l->handle ? dlsym(l->handle, symbol) : NULL;
	return found || !l->handle ? found : failed(l);
}

int library_check(const struct library *l, struct error *err)
{
	if (!error_is_set(&l->failed))
		return 0;
	if (err)
		error_copy(err, &l->failed);
	return -l->failed.err;
}
