/* What an entry of the trash holds that an engine keeps: records stand for its volumes and images, files right below the service's directory, and in the
 * place of the directory of a named volume. */
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#include "backends/backend.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/path.h"
#include "provisioner/model.h"
#include "provisioner/trash_private.h"

static void records_in(const char *path, bool in_service, void (*each)(const char *path, void *arg), void *arg)
{
	cleanup_closedir DIR *d = opendir(path);
	for (struct dirent *e; d && (e = readdir(d));) {
		cleanup_free char *entry = xasprintf("%s/%s", path, e->d_name);
		struct stat st;
		bool is_record = name_ends_in(e->d_name, ".volume") || !strcmp(e->d_name, BACKEND_IMAGE_RECORD) || !in_service;
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && is_record && !lstat(entry, &st) && S_ISREG(st.st_mode))
			each(entry, arg);
	}
}

void trash_each_record(const char *path, void (*each)(const char *path, void *arg), void *arg)
{
	cleanup_free char *data = xasprintf("%s/data", path);
	cleanup_closedir DIR *d = opendir(data);
	for (struct dirent *e; d && (e = readdir(d));) {
		cleanup_free char *service = xasprintf("%s/%s", data, e->d_name);
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			records_in(service, strcmp(e->d_name, SPEC_VOLUMES) != 0, each, arg);
	}
}

struct measuring {
	json_t *told;
	int64_t bytes;
};

static void measure_one(const char *path, void *arg)
{
	struct measuring *m = arg;
	int64_t bytes = m->bytes < 0 ? -1 : backend_measure(path, m->told);
	m->bytes = bytes < 0 ? -1 : m->bytes + bytes;
}

int64_t trash_measure(const struct trash_entry *e, json_t *told)
{
	struct measuring m = {told, (int64_t)e->bytes};
	trash_each_record(e->path, measure_one, &m);
	return m.bytes;
}
