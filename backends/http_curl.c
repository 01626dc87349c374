#include "backends/http_curl.h"

#include <pthread.h>

#include "base/library.h"

struct libcurl libcurl;

static struct library library = {.soname = "libcurl.so.4", .package = "libcurl4"};
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void load(void)
{
	library_open(&library);
#define X(name) libcurl.name = (__typeof__(libcurl.name))library_find(&library, "curl_" #name);
	LIBCURL_FUNCTIONS(X)
#undef X
	if (!error_is_set(&library.failed) && libcurl.global_init(CURL_GLOBAL_DEFAULT))
		error_set(&library.failed, ERROR_INTERNAL, "libcurl cannot be used");
}

int http_curl_load(struct error *err)
{
	pthread_once(&once, load);
	return library_check(&library, err);
}
