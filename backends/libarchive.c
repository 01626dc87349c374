#include "backends/libarchive.h"

#include <pthread.h>

#include "base/library.h"

struct libarchive libarchive;

static struct library library = {.soname = "libarchive.so.13", .package = "libarchive13"};
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void load(void)
{
	library_open(&library);
#define X(name) libarchive.name##_ = (__typeof__(libarchive.name##_))library_find(&library, "archive_" #name);
	LIBARCHIVE_FUNCTIONS(X)
#undef X
}

int libarchive_load(struct error *err)
{
	pthread_once(&once, load);
	return library_check(&library, err);
}
