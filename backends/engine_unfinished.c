/* The data of a first start: until the service has been ready once, nobody but its image knows whether what lies in a new volume is whole.
 *
 * The record of a volume says so: `unfinished` is "" until something starts on it, then the name of the service that does, `begun_ms` when. It goes,
 * by a write that is synced with its directory, before anybody is told that the service is ready (or has completed). What is found begun later, and was interrupted, is no
 * use: the image would find half a database, and take it for a whole one. A start says DATA_UNFINISHED then, once, and whoever asked moves the data to the trash.
 *
 * Good data must never seem unfinished:
 * - A record without the word, of a release before this or of a volume that was ready once, is whole for good, however its container ends.
 * - A server that is killed between ready and the write has told nobody that it was ready. The container goes on, the next server takes it over, finds
 *   it ready, and writes. If the container is killed before that, too, what is in it at most is what somebody wrote in those moments by other ways; it is in the trash.
 * - What cannot be written (a full disk) this server knows all the same (`settled`), and writes with the next start.
 * - What others have started (docker compose up) has no owner, and is never thrown away; when it has been ready the word goes, for a later start must not begin it.
 * - Interrupted is what ended by a signal that others send to end a program (128 and more, as shells and inits say it, and so do programs that clean up and end by it
 *   all the same), with its engine, or without anybody having seen how. Who was asked to end and does so with 0 was a server already, for entrypoints that are still filling a
 *   database do not. An error, and a signal of its own making (SIGSEGV), are the image's own affair: what fails again and again until a peer is there would begin anew
 *   each time. So is what ran for LONG_MS without being ready: its data stays. How it ended is known from the container, and in this process also when that is gone.
 * - One volume that is whole, or another service's, and all of the service's stay: a volume that was added to a service with data is no reason to take that away.
 *   Of a volume that others mount, too, the record stays in any case (provisioner/teardown.c).
 * Half made data may seem whole: where the server dies between saying so and the trash. It stays where it is then. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "backends/engine.h"
#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"

#define RECORD_MAX 4096
#define LONG_MS (10 * 60 * 1000)
#define EXIT_SIGNAL 128 /* and the signal's number */
#define EXIT_UNKNOWN 255 /* the engine died meanwhile */

/* new: named volumes, and those that the image has beside them */
static char **records_of(const struct engine_plan *p)
{
	char **paths = NULL;
	cleanup_closedir DIR *dir = p->data ? opendir(p->data) : NULL;
	for (char **record = p->records; record && *record; record++)
		strv_push(&paths, xstrdup(*record));
	for (struct dirent *d; dir && (d = readdir(dir));) {
		cleanup_free char *path = xasprintf("%s/%s", p->data, d->d_name);
		if (d->d_name[0] != '.' && !strv_contains(paths, path))
			strv_push(&paths, move_ptr(path));
	}
	return paths;
}

/* new; NULL: it is none of a volume, or not there */
static json_t *read_record(const char *path)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	json_t *json = file_read(AT_FDCWD, path, RECORD_MAX, &text) ? NULL : json_loads(buffer_str(&text), 0, NULL);
	if (json_object_get(json, "volume"))
		return json;
	json_decref(json);
	return NULL;
}

/* borrowed; NULL: it is whole */
static const char *owner_of(const json_t *record)
{
	return json_string_value(json_object_get(record, "unfinished"));
}

/* That of the file: its new name outlives a power failure, as what the service has written by then does. */
static int sync_directory(const char *path)
{
	cleanup_free char *parent = xstrndup(path, (size_t)(strrchr(path, '/') - path));
	cleanup_close int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 || fsync(fd) ? -errno : 0;
}

static int write_mark(const char *path, json_t *record, const char *owner)
{
	json_object_del(record, "unfinished");
	json_object_del(record, "begun_ms");
	if (owner)
		json_object_set_new(record, "unfinished", json_string(owner));
	if (owner && *owner)
		json_object_set_new(record, "begun_ms", json_integer(now_wall_ms()));
	cleanup_free char *text = json_dumps(record, JSON_INDENT(1));
	int r = file_write_atomic(AT_FDCWD, path, text, strlen(text), 0600);
	return r || owner ? r : sync_directory(path);
}

/* The number of records that had that owner. `next` NULL: none, ever again. */
static size_t mark_all(const struct engine_plan *p, const char *owner, const char *next)
{
	cleanup_strv char **paths = records_of(p);
	size_t n = 0;
	for (char **path = paths; path && *path; path++) {
		json_t *record = read_record(*path);
		const char *now = owner_of(record);
		bool is_its = now && !strcmp(now, owner);
		int r = is_its ? write_mark(*path, record, next) : 0;
		if (r)
			log_warning("engine", "%s: %s", *path, strerror(-r));
		n += is_its;
		json_decref(record);
	}
	return n;
}

void engine_data_begun(struct engine_slot *slot, const struct engine_plan *p)
{
	if (slot->settled)
		mark_all(p, p->service, NULL);
	if (mark_all(p, "", p->service))
		slot->settled = slot->ended = false; /* of other data */
}

void engine_data_untouched(const struct engine_plan *p)
{
	mark_all(p, p->service, "");
}

void engine_data_ended(struct engine_slot *slot, const struct instance *last)
{
	if (last->state == INSTANCE_ABSENT)
		return; /* as it was before */
	slot->ended = last->state == INSTANCE_EXITED;
	slot->exit_code = last->exit_code;
	slot->exited_ms = last->exited_ms;
}

/* 0: nothing has, or not on these alone: what is whole, or another's, would go with the rest */
static int64_t begun_ms(const struct engine_plan *p)
{
	cleanup_strv char **paths = records_of(p);
	int64_t begun = 0;
	bool others = false;
	for (char **path = paths; path && *path; path++) {
		json_t *record = read_record(*path);
		const char *owner = owner_of(record);
		if (owner && !strcmp(owner, p->service))
			begun = json_integer_value(json_object_get(record, "begun_ms"));
		others = others || (record && (!owner || (*owner && strcmp(owner, p->service))));
		json_decref(record);
	}
	return others ? 0 : begun;
}

bool engine_data_is_begun(const struct engine_slot *slot, const struct engine_plan *p)
{
	return !slot->settled && begun_ms(p);
}

static bool was_interrupted(const struct engine_slot *slot)
{
	static const int signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGTERM};
	for (size_t i = 0; slot->ended && i < sizeof signals / sizeof *signals; i++)
		if (slot->exit_code == EXIT_SIGNAL + signals[i])
			return true;
	return !slot->ended || slot->exit_code == EXIT_UNKNOWN;
}

bool engine_data_is_ruined(const struct engine_slot *slot, const struct engine_plan *p)
{
	int64_t begun = slot->settled ? 0 : begun_ms(p), end = slot->ended && slot->exited_ms ? slot->exited_ms : now_wall_ms();
	if (!begun)
		return false;
	mark_all(p, p->service, NULL); /* said once: what stays of it all the same is no reason to refuse again, nor is what somebody takes out of the trash */
	return was_interrupted(slot) && end - begun < LONG_MS;
}

void engine_settled(struct backend *b, const struct service_spec *spec)
{
	struct engine *e = (struct engine *)b;
	struct engine_plan *p = engine_plan_new(e, spec);
	engine_slot(e, spec->name)->settled = true;
	mark_all(p, p->service, NULL);
	mark_all(p, "", NULL);
	engine_plan_free(p);
}
