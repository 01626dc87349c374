/* Keeping the trash in bounds, emptying it, and finishing what a process that died left half done. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "backends/backend.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/path.h"
#include "provisioner/trash_private.h"

#define GONE ".gone" /* suffix of a directory whose entry is no more: anybody may remove it */

static bool exists_in(const char *directory, const char *name)
{
	cleanup_free char *path = xasprintf("%s/%s", directory, name);
	struct stat st;
	return !lstat(path, &st);
}

static int remove_in(const char *directory, const char *name)
{
	cleanup_free char *path = xasprintf("%s/%s", directory, name);
	return tree_remove(AT_FDCWD, path);
}

/* ---- recovery ---- */

int trash_finish(struct store *s, const struct trash_entry *e, struct error *err)
{
	bool data = exists_in(e->path, "data"), env = exists_in(e->path, "env");
	int r = remove_in(e->path, "data.partial");
	if (!r)
		r = remove_in(e->path, "env.partial");
	if (!r && !data && !env)
		r = tree_remove(AT_FDCWD, e->path);
	if (r)
		return trash_failed(r, e->path, err);
	if (!data && !env)
		return store_trash_delete(s, e->id, err);
	uint64_t bytes = 0;
	tree_size(AT_FDCWD, e->path, &bytes); /* a guess of 0 is better than no entry */
	r = store_trash_describe(s, e->id, env, data ? e->services : NULL, err);
	trash_step("described");
	if (!r)
		r = store_trash_commit(s, e->id, bytes, err);
	trash_step("committed");
	return r;
}

static int finish_unfinished(struct store *s, int64_t except, struct error *err)
{
	struct trash_entry *entries = NULL;
	size_t count = 0;
	int r = store_trash_unfinished(s, &entries, &count, err);
	for (size_t i = 0; r == 0 && i < count; i++)
		if (entries[i].id != except)
			r = trash_finish(s, &entries[i], err);
	trash_entries_free(entries, count);
	return r;
}

static int adopt(struct store *s, int64_t id, const char *path, struct error *err)
{
	CLEANUP(trash_entry_release) struct trash_entry e = {.id = id};
	trash_note_read(path, &e);
	int r = store_trash_begin(s, &e, &e.id, &e.path, err);
	return r ? r : trash_finish(s, &e, err);
}

/* A power cut may take the last rows, a damaged database all of them, but not the directories: they come back by
 * entry.json. */
static int adopt_orphans(struct store *s, struct error *err)
{
	cleanup_free char *trash = xasprintf("%s/trash", store_directory(s));
	cleanup_closedir DIR *d = opendir(trash);
	int r = 0;
	for (struct dirent *e; r == 0 && d && (e = readdir(d));) {
		char *end;
		long long id = strtoll(e->d_name, &end, 10);
		if (*end || id <= 0)
			continue;
		cleanup_free char *path = xasprintf("%s/%s", trash, e->d_name);
		r = store_trash_has(s, id, err);
		r = r ? r : adopt(s, id, path, err);
		r = r < 0 ? r : 0;
	}
	return r;
}

static int forget_missing(struct store *s, struct error *err)
{
	struct trash_entry *entries = NULL;
	size_t count = 0;
	int r = store_trash_list(s, NULL, &entries, &count, err);
	for (size_t i = 0; r == 0 && i < count; i++)
		if (!exists_in(entries[i].path, "."))
			r = store_trash_delete(s, entries[i].id, err);
	trash_entries_free(entries, count);
	return r;
}

int trash_recover(struct store *s, int64_t except, struct error *err)
{
	int r = finish_unfinished(s, except, err);
	if (r == 0)
		r = adopt_orphans(s, err);
	if (r == 0)
		r = forget_missing(s, err);
	return r;
}

/* A disk so full that no row can be written is a reason to go on making room, not to stop. */
static int recover_if_possible(struct store *s, struct error *err)
{
	cleanup_error struct error failure = ERROR_INIT;
	int r = trash_recover(s, 0, &failure);
	if (r == -ENOSPC)
		return 0;
	if (r && err)
		error_move(err, &failure);
	return r;
}

static int lock_and_recover(struct store *s, struct error *err)
{
	cleanup_close int lock = -1;
	int r = trash_lock(s, &lock, err);
	return r ? r : recover_if_possible(s, err);
}

/* ---- dropping ---- */

/* The rename comes first: a row whose directory is missing is forgotten, a directory without a row would be adopted. On
 * a full disk the row cannot go yet: it does when what follows has made room. */
static int condemn(struct store *s, const struct trash_entry *e, struct error *err)
{
	cleanup_free char *gone = xasprintf("%s" GONE, e->path);
	cleanup_error struct error failure = ERROR_INIT;
	if (rename(e->path, gone) && errno != ENOENT)
		return trash_failed(-errno, e->path, err);
	trash_step("condemned");
	int r = store_trash_delete(s, e->id, &failure);
	trash_step("forgot the row");
	if (r == -ENOSPC)
		return 0;
	if (r && err)
		error_move(err, &failure);
	return r;
}

struct discarding {
	const char *namespace_;
	struct error *err;
	int result; /* the first failure */
};

/* A record stays until its volume is gone, whenever its engine answers again. */
static void discard_one(const char *path, void *arg)
{
	struct discarding *d = arg;
	cleanup_error struct error why = ERROR_INIT;
	int r = backend_discard(path, d->namespace_, &why);
	if (!r && unlink(path))
		r = trash_failed(-errno, path, &why);
	if (r && !d->result && d->err)
		error_move(d->err, &why);
	d->result = d->result ? d->result : r;
}

static int discard_volumes(const char *gone, struct error *err)
{
	CLEANUP(trash_entry_release) struct trash_entry entry = {0};
	trash_note_read(gone, &entry);
	struct discarding d = {entry.namespace_, err, 0};
	cleanup_free char *data = xasprintf("%s/data", gone);
	trash_each_record(data, discard_one, &d);
	return d.result;
}

/* Without the lock: a large tree takes its time, and two may well remove the same one. */
static int remove_condemned(struct store *s, struct error *err)
{
	cleanup_free char *trash = xasprintf("%s/trash", store_directory(s));
	cleanup_closedir DIR *d = opendir(trash);
	int result = 0;
	for (struct dirent *e; d && (e = readdir(d));) {
		if (!name_ends_in(e->d_name, GONE))
			continue;
		cleanup_free char *gone = xasprintf("%s/%s", trash, e->d_name);
		int r = discard_volumes(gone, result ? NULL : err);
		if (r) {
			result = result ? result : r;
			continue;
		}
		r = remove_in(trash, e->d_name);
		if (r && !result)
			result = trash_failed(r, e->d_name, err);
	}
	return result;
}

/* With the lock held: `id` alone, or all. */
static int condemn_some(struct store *s, int64_t id, uint64_t *ret_bytes, struct error *err)
{
	struct trash_entry *entries = NULL;
	size_t count = 0;
	bool found = id == 0;
	int r = store_trash_list(s, NULL, &entries, &count, err);
	for (size_t i = 0; r == 0 && i < count; i++) {
		if (id && entries[i].id != id)
			continue;
		found = true;
		*ret_bytes += entries[i].bytes;
		r = condemn(s, &entries[i], err);
	}
	trash_entries_free(entries, count);
	if (r || found)
		return r;
	r = error_set(err, ERROR_TRASH_NOT_FOUND, "no entry %lld is in the trash", (long long)id);
	error_hint(err, "ajj trash list");
	return r;
}

int trash_empty(struct store *s, int64_t id, uint64_t *ret_bytes, struct error *err)
{
	uint64_t bytes = 0;
	cleanup_close int lock = -1;
	int r = trash_lock(s, &lock, err);
	if (r == 0)
		r = recover_if_possible(s, err);
	if (r == 0)
		r = condemn_some(s, id, &bytes, err);
	if (lock >= 0)
		close(move_fd(&lock));
	if (r == 0)
		r = remove_condemned(s, err);
	if (r == 0)
		r = lock_and_recover(s, err);
	if (r == 0 && ret_bytes)
		*ret_bytes = bytes;
	return r;
}

/* Is less than a twentieth free? Of a large disk the last TRASH_MAX_BYTES are enough. */
static bool is_short_of_space(const char *directory)
{
	struct statvfs fs;
	if (statvfs(directory, &fs))
		return false;
	uint64_t least = (uint64_t)fs.f_blocks * fs.f_frsize / 20;
	if (least > TRASH_MAX_BYTES)
		least = TRASH_MAX_BYTES;
	return (uint64_t)fs.f_bavail * fs.f_frsize < least;
}

/* The oldest that is still there, when it has to go. 1 with *ret. `told`: see trash_measure; NULL: volumes are not counted. */
static int next_victim(struct store *s, json_t *told, struct trash_entry *ret, struct error *err)
{
	struct trash_entry *entries = NULL;
	size_t count = 0, present = 0, oldest = SIZE_MAX;
	uint64_t bytes = 0;
	int r = store_trash_list(s, NULL, &entries, &count, err);
	if (r)
		return r;
	for (size_t i = 0; i < count; i++)
		if (exists_in(entries[i].path, ".")) {
			bytes += told ? trash_measure_known(&entries[i], told) : entries[i].bytes;
			oldest = i;
			present++;
		}
	bool over = bytes > TRASH_MAX_BYTES && present > 1; /* what was destroyed a moment ago is not lost for its size alone */
	if (oldest != SIZE_MAX && (entries[oldest].at_ms < now_wall_ms() - TRASH_KEEP_HOURS * INT64_C(3600000) ||
	                           over || is_short_of_space(store_directory(s)))) {
		*ret = entries[oldest];
		entries[oldest] = (struct trash_entry){0};
		r = 1;
	}
	trash_entries_free(entries, count);
	return r;
}

static int drop_one(struct store *s, json_t *told, struct error *err)
{
	CLEANUP(trash_entry_release) struct trash_entry victim = {0};
	cleanup_close int lock = -1;
	int r = trash_lock(s, &lock, err);
	if (r == 0)
		r = next_victim(s, told, &victim, err);
	if (r == 1) {
		r = condemn(s, &victim, err);
		return r ? r : 1;
	}
	return r;
}

static int expire(struct store *s, const char *shared_dir, json_t *told, struct error *err)
{
	cleanup_free char *trash = xasprintf("%s/trash", shared_dir);
	if (access(trash, F_OK) && errno == ENOENT)
		return 0;
	int r = lock_and_recover(s, err);
	do /* one after the other: each may have made room enough */
		r = r < 0 ? r : remove_condemned(s, err);
	while (r == 0 && (r = drop_one(s, told, err)) == 1);
	return r ? r : lock_and_recover(s, err);
}

int trash_expire(struct store *s, const char *shared_dir, struct error *err)
{
	return expire(s, shared_dir, NULL, err);
}

int trash_expire_volumes(struct store *s, const char *shared_dir, struct error *err)
{
	struct trash_entry *entries = NULL;
	size_t count = 0;
	uint64_t bytes = 0;
	json_t *told = json_object();
	int r = store_trash_list(s, NULL, &entries, &count, err);
	for (size_t i = 0; r == 0 && i < count; i++) /* without the lock: an engine takes its time */
		bytes += trash_measure_known(&entries[i], told);
	trash_entries_free(entries, count);
	if (r == 0 && bytes > TRASH_MAX_BYTES)
		r = expire(s, shared_dir, told, err);
	json_decref(told);
	return r;
}
