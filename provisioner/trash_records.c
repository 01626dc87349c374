/* What an entry of the trash holds that an engine keeps: records stand for its volumes and images, files right below the service's directory, and in the
 * place of the directory of a named volume. */
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/backend.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/path.h"
#include "base/strv.h"
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

void trash_each_record(const char *data, void (*each)(const char *path, void *arg), void *arg)
{
	cleanup_closedir DIR *d = opendir(data);
	for (struct dirent *e; d && (e = readdir(d));) {
		cleanup_free char *service = xasprintf("%s/%s", data, e->d_name);
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			records_in(service, strcmp(e->d_name, SPEC_VOLUMES) != 0, each, arg);
	}
}

struct measuring {
	json_t *told;
	uint64_t bytes;
	bool unknown; /* something is */
};

static void measure_one(const char *path, void *arg)
{
	struct measuring *m = arg;
	int64_t bytes = backend_measure(path, m->told);
	m->unknown = m->unknown || bytes < 0;
	m->bytes += bytes < 0 ? 0 : (uint64_t)bytes;
}

static struct measuring measure(const struct trash_entry *e, json_t *told)
{
	struct measuring m = {told, e->bytes, false};
	cleanup_free char *data = xasprintf("%s/data", e->path);
	trash_each_record(data, measure_one, &m);
	return m;
}

int64_t trash_measure(const struct trash_entry *e, json_t *told)
{
	struct measuring m = measure(e, told);
	return m.unknown ? -1 : (int64_t)m.bytes;
}

uint64_t trash_measure_known(const struct trash_entry *e, json_t *told)
{
	return measure(e, told).bytes;
}

struct losing {
	char ***lost;
	size_t count;
};

static void look_for_one(const char *path, void *arg)
{
	struct losing *l = arg;
	if (!strcmp(strrchr(path, '/') + 1, BACKEND_IMAGE_RECORD))
		return;
	char *name = backend_lost(path);
	if (name)
		strv_push(l->lost, name);
	l->count++;
}

size_t trash_lost(const struct trash_entry *e, char ***lost)
{
	cleanup_free char *data = xasprintf("%s/data", e->path);
	struct losing l = {lost, 0};
	trash_each_record(data, look_for_one, &l);
	return l.count;
}

struct dropping {
	const char *namespace_;
	json_t *told;
};

static void drop_if_empty(const char *path, void *arg)
{
	struct dropping *d = arg;
	cleanup_error struct error ignored = ERROR_INIT;
	if (!strcmp(strrchr(path, '/') + 1, BACKEND_IMAGE_RECORD) || backend_measure(path, d->told))
		return;
	if (!backend_discard(path, d->namespace_, &ignored))
		unlink(path);
}

void trash_drop_empty(const struct identity *id, uint32_t generation)
{
	cleanup_free char *data = xasprintf("%s/data/%u", id->state_dir, generation);
	struct dropping d = {id->namespace_, json_object()};
	trash_each_record(data, drop_if_empty, &d);
	json_decref(d.told);
	cleanup_closedir DIR *dir = opendir(data);
	for (struct dirent *e; dir && (e = readdir(dir));)
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			unlinkat(dirfd(dir), e->d_name, AT_REMOVEDIR); /* what holds something stays */
}
