#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/strv.h"
#include "cli/commands.h"
#include "cli/client.h"
#include "cli/leftovers.h"
#include "cli/mounting.h"
#include "cli/moved.h"
#include "provisioner/discard.h"
#include "provisioner/mounts.h"
#include "cli/output.h"
#include "cli/registry.h"
#include "cli/run_in.h"

#define LOCK_MS 1000
#define SETTLE_MS 500
#define STALE_S 60 /* a younger directory may belong to a mount that is being made */

static const struct option options[] = {
	{"force", 0, NULL, "do it; without it only says what it would do"},
	{NULL, 0, NULL, NULL},
};

struct cleanup {
	bool force;
	struct registry_list known;
	char *runtime_dir;
	json_t *findings;
	unsigned failures;
};

/* Notes one finding; true when something is to be done about it. */
static bool found(struct cleanup *c, const char *kind, const char *thing, const char *text)
{
	output_line("%s%s: %s", c->force ? "" : "would clean up: ", thing, text);
	json_array_append_new(
	    c->findings, json_pack("{s:s, s:s, s:s, s:b}", "kind", kind, "thing", thing, "text", text, "done", c->force));
	return c->force;
}

/* One failure does not keep the rest from being cleaned up. */
static void note(struct cleanup *c, int r, const struct error *why)
{
	if (r >= 0)
		return;
	output_note("Warning: %s", why->message ? why->message : error_code_name(why->code));
	c->failures++;
}

/* ---- what is looked for ---- */

/* A mount of this kind may be another user's, or belong to another state directory. */
static bool is_known(const struct cleanup *c, const char *point)
{
	size_t n = strlen(c->runtime_dir);
	if (!strncmp(point, c->runtime_dir, n) && point[n] == '/')
		return true;
	for (size_t i = 0; i < c->known.count; i++)
		if (!strcmp(point, c->known.items[i].root) || !strcmp(point, c->known.items[i].control_dir))
			return true;
	return false;
}

static int dead_mounts(struct cleanup *c, struct error *err)
{
	cleanup_mounts struct mounts m = MOUNTS_INIT;
	mounts_read(&m);
	for (size_t i = m.count; i-- > 0;) {
		cleanup_error struct error why = ERROR_INIT;
		if (!mount_kind(&m.items[i]) || !is_known(c, m.items[i].point))
			continue;
		if (mount_is_hung(m.items[i].point))
			output_note("Warning: %s is left alone: its server does not answer now", m.items[i].point);
		if (!mount_is_dead(m.items[i].point))
			continue;
		if (found(c, "dead-mount", m.items[i].point, "mounted, but nobody serves it"))
			note(c, mounting_clear_dead(m.items[i].point, &why), &why);
	}
	return 0;
}

static bool is_served(const struct store_environment *e)
{
	return is_mounted_by_us(e->root) || is_mounted_by_us(e->control_dir) || registry_is_kept(e);
}

/* Services of keepers that were killed: their locks are held, and no mount is there that they could belong to. */
static int orphaned_services(struct cleanup *c, struct error *err)
{
	for (size_t i = 0; i < c->known.count; i++) {
		const struct store_environment *e = &c->known.items[i];
		cleanup_error struct error why = ERROR_INIT;
		pid_t pids[LEFTOVERS_MAX];
		cleanup_buffer struct buffer text = BUFFER_INIT;
		size_t n = is_served(e) ? 0 : leftovers_find(e->state_dir, pids, LEFTOVERS_MAX);
		for (size_t k = 0; k < n; k++)
			buffer_printf(&text, "%s %d", k ? "" : "services still run:", (int)pids[k]);
		if (n && found(c, "orphaned-services", e->root, text.data))
			note(c, leftovers_end(e->state_dir, &why), &why);
	}
	return 0;
}

/* The same of backends whose services hold no lock of ours. */
/* Who was killed a moment ago may hold its lock still, without a mount. */
static bool is_served_on(const struct store_environment *e)
{
	for (int ms = 0; ms < LOCK_MS; ms += 20) {
		if (!is_served(e))
			return false;
		if (is_mounted_by_us(e->root) || is_mounted_by_us(e->control_dir))
			return true;
		nanosleep(&(struct timespec){0, 20 * 1000000L}, NULL);
	}
	return true;
}

static bool look_for_containers(struct cleanup *c)
{
	bool unserved = false;
	for (size_t i = 0; i < c->known.count; i++) {
		const struct store_environment *e = &c->known.items[i];
		cleanup_error struct error why = ERROR_INIT;
		cleanup_strv char **names = NULL;
		if ((e->backend && !strcmp(e->backend, "process")) || is_served_on(e))
			continue;
		unserved = true;
		note(c, discard_orphans(e, false, &names, &why), &why);
		cleanup_buffer struct buffer text = BUFFER_INIT;
		for (char **name = names; name && *name; name++)
			buffer_printf(&text, "%s %s", name == names ? "nobody serves it, and its containers and network are there:" : "", *name);
		if (names && found(c, "orphaned-containers", e->root, text.data))
			note(c, discard_orphans(e, true, NULL, &why), &why);
	}
	return unserved;
}

/* Twice: what a keeper that was killed a moment ago has asked of its engine may only come to be now. */
static int orphaned_containers(struct cleanup *c, struct error *err)
{
	if (!look_for_containers(c) || !c->force || c->failures)
		return 0;
	nanosleep(&(struct timespec){0, SETTLE_MS * 1000000L}, NULL);
	look_for_containers(c);
	return 0;
}

/* `ajj run --in` that was killed, of environments that are served, too. An engine that is not there has nothing that could be asked for. */
static int orphaned_runs(struct cleanup *c, struct error *err)
{
	for (size_t i = 0; i < c->known.count; i++) {
		const struct store_environment *e = &c->known.items[i];
		cleanup_error struct error why = ERROR_INIT;
		cleanup_strv char **names = NULL;
		int r = run_in_sweep(e, false, &names, &why);
		if (r && why.code != ERROR_BACKEND_UNREACHABLE)
			note(c, r, &why);
		for (char **name = names; name && *name; name++)
			if (found(c, "orphaned-runs", *name, "a container whose ajj run was killed"))
				note(c, run_in_sweep(e, true, NULL, &why), &why);
	}
	return 0;
}

/* What a keeper that was killed has placed in its workspace. The next command there does it as well. */
static int placed_files(struct cleanup *c, struct error *err)
{
	for (size_t i = 0; i < c->known.count; i++) {
		const struct store_environment *e = &c->known.items[i];
		cleanup_error struct error why = ERROR_INIT;
		struct client client = CLIENT_INIT;
		if (is_served(e) || native_find_at(e->root) == NATIVE_NONE)
			continue;
		if (found(c, "placed-files", e->root, "holds what was placed there without an overlay"))
			note(c, client_of(e->root, NULL, &client, &why), &why);
		client_release(&client);
	}
	return 0;
}

static int gone_workspaces(struct cleanup *c, struct error *err)
{
	for (size_t i = 0; i < c->known.count; i++) {
		const struct store_environment *e = &c->known.items[i];
		cleanup_error struct error why = ERROR_INIT;
		struct identity id = {0};
		struct stat st;
		if (is_served(e) || !stat(e->root, &st) || errno != ENOENT)
			continue;
		cleanup_free char *to = moved_to(e);
		if (to) {
			output_note("Note: %s is %s now, and keeps its data: ajj attach %s", e->root, to, to);
			continue;
		}
		if (!found(c, "gone-workspace", e->root,
		           "the directory is gone; its data goes to the trash, its ports are free again"))
			continue;
		int r = registry_identity(e, &id, &why);
		note(c, r ? r : registry_discard(&id, &why), &why);
		identity_release(&id);
	}
	return 0;
}

/* new: the directories in RUNTIME that mounted environments use */
static char **runtime_in_use(const struct cleanup *c)
{
	char **used = NULL;
	for (size_t i = 0; i < c->known.count; i++) {
		struct identity id = {0};
		if (!is_served(&c->known.items[i]) || registry_identity(&c->known.items[i], &id, NULL))
			continue;
		strv_pushf(&used, "%s", id.socket_dir);
		strv_pushf(&used, "%s", id.control_dir);
		identity_release(&id);
	}
	return used;
}

static bool is_stale(const char *path)
{
	struct stat st;
	return !lstat(path, &st) && S_ISDIR(st.st_mode) && time(NULL) - st.st_mtime > STALE_S;
}

/* RUNTIME/NAMESPACE and RUNTIME/s-HASH of what is not mounted. */
static int stale_directories(struct cleanup *c, struct error *err)
{
	cleanup_strv char **used = runtime_in_use(c);
	cleanup_closedir DIR *dir = opendir(c->runtime_dir);
	for (struct dirent *d; dir && (d = readdir(dir));) {
		cleanup_error struct error why = ERROR_INIT;
		cleanup_free char *path = xasprintf("%s/%s", c->runtime_dir, d->d_name);
		if (strncmp(d->d_name, "aether-", 7) && strncmp(d->d_name, "s-", 2))
			continue;
		if (strv_contains(used, path) || is_mounted_by_us(path) || !is_stale(path))
			continue;
		if (!found(c, "stale-directory", path, "belongs to nothing that is mounted"))
			continue;
		int r = d->d_name[0] == 's' ? tree_remove(AT_FDCWD, path) : rmdir(path) ? -errno : 0;
		note(c, r ? error_set_errno(&why, ERROR_INTERNAL, -r, "%s", path) : 0, &why);
	}
	return 0;
}

static bool is_recorded(const struct cleanup *c, const char *state_dir)
{
	for (size_t i = 0; i < c->known.count; i++)
		if (!strcmp(c->known.items[i].state_dir, state_dir))
			return true;
	return false;
}

static bool has_names(const char *path)
{
	cleanup_closedir DIR *dir = opendir(path);
	for (struct dirent *d; dir && (d = readdir(dir));)
		if (strcmp(d->d_name, ".") && strcmp(d->d_name, ".."))
			return true;
	return false;
}

/* Or lines of .env that were put aside. */
static bool has_data(const char *state_dir)
{
	cleanup_free char *path = xasprintf("%s/data", state_dir), *aside = xasprintf("%s/removed", state_dir);
	cleanup_closedir DIR *dir = opendir(path);
	for (struct dirent *d; dir && (d = readdir(dir));) {
		cleanup_free char *generation = xasprintf("%s/%s", path, d->d_name);
		if (d->d_name[0] != '.' && has_names(generation))
			return true;
	}
	return has_names(aside);
}

/* STATE/ns/NAMESPACE of an environment that is forgotten: who was at it was killed just before this was to go. Both locks say that nobody
 * begins in it. */
static int forgotten_state(struct cleanup *c, struct error *err)
{
	cleanup_free char *shared = NULL;
	int r = identity_shared_dir(&shared, err);
	if (r)
		return r;
	cleanup_free char *ns = xasprintf("%s/ns", shared);
	cleanup_closedir DIR *dir = opendir(ns);
	for (struct dirent *d; dir && (d = readdir(dir));) {
		cleanup_error struct error why = ERROR_INIT;
		cleanup_free char *path = xasprintf("%s/%s", ns, d->d_name), *file = xasprintf("%s/keeper.lock", path);
		if (strncmp(d->d_name, "aether-", 7) || is_recorded(c, path))
			continue;
		cleanup_close int held = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		cleanup_close int lock = open(file, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
		if (held < 0 || lock < 0 || flock(held, LOCK_EX | LOCK_NB) || flock(lock, LOCK_EX | LOCK_NB) || has_data(path))
			continue;
		if (!found(c, "forgotten-state", path, "left of an environment that is forgotten"))
			continue;
		r = tree_remove(AT_FDCWD, path);
		note(c, r ? error_set_errno(&why, ERROR_INTERNAL, -r, "%s", path) : 0, &why);
	}
	return 0;
}

/* In this order: what is dead or orphaned must be gone before its environment can be. */
static int (*const scans[])(struct cleanup *c, struct error *err) = {dead_mounts, orphaned_services, orphaned_containers, orphaned_runs, placed_files, gone_workspaces,
	                                                                 forgotten_state, stale_directories};

static int run(const struct arguments *args, struct error *err)
{
	struct cleanup c = {.force = arguments_flag(args, "force"), .findings = json_array()};
	int r = registry_list(&c.known, err);
	if (!r)
		r = identity_runtime_dir(&c.runtime_dir, err);
	for (size_t i = 0; !r && i < sizeof scans / sizeof scans[0]; i++)
		r = scans[i](&c, err);
	size_t count = json_array_size(c.findings);
	if (!r && !count)
		output_line("nothing to clean up");
	if (!r && count && !c.force)
		output_note("Hint: ajj cleanup --force");
	if (!r && c.failures)
		r = error_set(err, ERROR_BACKEND_DEPROVISION_FAILED, "%u of %zu could not be cleaned up", c.failures, count);
	if (!r)
		output_document(json_pack("{s:O, s:b}", "findings", c.findings, "done", c.force));
	json_decref(c.findings);
	registry_list_release(&c.known);
	free(c.runtime_dir);
	return r;
}

const struct command command_cleanup = {
	.name = "cleanup",
	.arguments = "",
	.summary = "clean up after killed keepers and removed workspaces",
	.help = "Looks for mounts that nobody serves, services whose keeper was killed, environments whose directory "
	        "is gone and directories that belong to nothing. Only what is provably ours is touched; data goes to "
	        "the trash.",
	.options = options,
	.looks_away = true,
	.run = run,
};
