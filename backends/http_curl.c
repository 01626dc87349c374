#include "backends/http_curl.h"

#include <dlfcn.h>
#include <pthread.h>

#define SONAME "libcurl.so.4"

struct libcurl libcurl;

static struct error failed = ERROR_INIT;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void *find(void *library, const char *name)
{
	void *found = dlsym(library, name);
	if (!found && !error_is_set(&failed))
		error_set(&failed, ERROR_INTERNAL, "libcurl cannot be used: %s", dlerror());
	return found;
}

static void load(void)
{
	void *library = dlopen(SONAME, RTLD_NOW | RTLD_LOCAL);
	if (!library) {
		error_set(&failed, ERROR_INTERNAL, "libcurl cannot be used: %s", dlerror());
		error_hint(&failed, "install the package libcurl4");
		return;
	}
#define X(name) libcurl.name = (__typeof__(libcurl.name))find(library, "curl_" #name);
	LIBCURL_FUNCTIONS(X)
#undef X
	if (!error_is_set(&failed) && libcurl.global_init(CURL_GLOBAL_DEFAULT))
		error_set(&failed, ERROR_INTERNAL, "libcurl cannot be used");
}

int http_curl_load(struct error *err)
{
	pthread_once(&once, load);
	if (!error_is_set(&failed))
		return 0;
	if (err)
		error_copy(err, &failed);
	return -failed.err;
}
