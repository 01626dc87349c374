#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/strv.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/registry.h"
#include "cli/trash_id.h"
#include "provisioner/env_name.h"
#include "provisioner/trash.h"

static const struct option options[] = {
	{"env", 0, NULL, "also the user's own lines of .env"},
	{"here", 0, NULL, "ID may be of another workspace: its data comes to this one"},
	{NULL, 0, NULL, NULL},
};

/* Is it what was asked for: `id`, or with 0 something to give back? (An entry whose data went back without its lines has them still.) */
static bool is_wanted(const struct trash_entry *e, int64_t id, bool env)
{
	return id ? e->id == id : (e->services && *e->services) || (env && e->has_env);
}

/* The entry `id`, or with 0 the namespace's newest. */
static int choose(struct store *store, const char *namespace_, int64_t id, bool env, struct trash_entry *ret,
                  struct error *err)
{
	struct trash_entry *entries = NULL;
	size_t count = 0, found = 0;
	int r = store_trash_list(store, id ? NULL : namespace_, &entries, &count, err);
	if (r)
		return r;
	while (found < count && !is_wanted(&entries[found], id, env))
		found++;
	if (found < count) {
		*ret = entries[found];
		entries[found] = (struct trash_entry){0};
	} else {
		r = id ? error_set(err, ERROR_TRASH_NOT_FOUND, "there is no entry %lld in the trash", (long long)id)
		       : error_set(err, ERROR_TRASH_NOT_FOUND, "nothing of this workspace is in the trash");
		error_hint(err, "ajj trash list");
	}
	trash_entries_free(entries, count);
	return r;
}

/* A workspace that jj has renamed since is still the one at its path. */
static bool is_own(const struct client *c, const struct trash_entry *e)
{
	return !strcmp(e->namespace_, c->id.namespace_) || !strcmp(e->root, c->id.root);
}

static int refuse_foreign(const struct client *c, const struct trash_entry *e, struct error *err)
{
	error_set(err, ERROR_USAGE, "entry %lld is of %s, not of %s", (long long)e->id, e->root, c->id.root);
	error_detail(err, "workspace_root", json_string(e->root));
	if (access(e->root, F_OK))
		return error_hint(err, "to have it here: ajj trash restore --here %lld", (long long)e->id);
	return error_hint(err, "there: cd %s && ajj trash restore %lld; here: ajj trash restore --here %lld", e->root, (long long)e->id, (long long)e->id);
}

/* What is there now goes to the trash in its place. Then the generation that waits for data. */
static int make_room(const struct client *c, struct store *store, uint32_t *ret_generation, struct error *err)
{
	struct store_environment e = {0};
	if (c->mounted) {
		cleanup_progress struct progress *progress = progress_start(c, "destroying");
		int r = client_command(c, "destroy", err);
		if (r)
			return r;
	} else {
		int r = registry_discard(&c->id, err);
		if (r)
			return r;
	}
	int r = store_environment_get(store, c->id.namespace_, &e, err);
	if (r == 1) {
		*ret_generation = e.generation;
		store_environment_release(&e);
		return 0;
	}
	if (r < 0)
		return r;
	struct store_environment fresh = {.namespace_ = c->id.namespace_,
	                                  .root = c->id.root,
	                                  .repository = c->id.repository,
	                                  .workspace = c->id.workspace,
	                                  .control_dir = c->id.control_dir,
	                                  .state_dir = c->id.state_dir,
	                                  .generation = 1,
	                                  .uid = (uid_t)-1,
	                                  .root_id = c->id.root_id};
	char desired[] = "stopped";
	fresh.desired = desired;
	fresh.created_ms = now_wall_ms();
	*ret_generation = 1;
	r = identity_make_dirs(&c->id, err);
	return r ? r : store_environment_put(store, &fresh, geteuid() == 0, err);
}

/* The mount covers the real .env: the lines, or the link that it was, come back through it by a rename, as an editor saves. Without an overlay they rest beside it. The
 * entry, whose data is restored by now, goes. */
static int place_env(const struct client *c, struct store *store, const struct trash_entry *entry, struct error *err)
{
	cleanup_free char *saved = xasprintf("%s/env", entry->path);
	cleanup_free char *temporary = xasprintf("%s/.env.aether-%d.tmp", c->id.root, (int)getpid());
	const char *name = c->native ? env_name_own(c->id.env_name) : c->id.env_name;
	cleanup_free char *target = xasprintf("%s/%s", c->id.root, name);
	unlink(temporary);
	int r = tree_copy(AT_FDCWD, saved, AT_FDCWD, temporary, (uid_t)-1, (gid_t)-1);
	if (!r && rename(temporary, target))
		r = -errno;
	if (r) {
		unlink(temporary);
		return error_set_errno(err, ERROR_INTERNAL, -r, "%s", target);
	}
	return trash_empty(store, entry->id, NULL, err);
}

/* Before anything is torn down for it. An entry of which nothing is left is no data, but its .env lines can be had. */
static int check_lost(const struct trash_entry *e, bool env, struct error *err)
{
	cleanup_strv char **lost = NULL;
	cleanup_buffer struct buffer names = BUFFER_INIT;
	size_t count = trash_lost(e, &lost);
	if (!lost)
		return 0;
	for (char **name = lost; *name; name++)
		buffer_printf(&names, "%s%s", name == lost ? "" : ", ", *name);
	bool all = strv_len(lost) == count;
	if (!all || (env && e->has_env)) {
		output_note("Warning: %s of entry %lld was removed by others (docker volume prune?): what was in it is lost", buffer_str(&names), (long long)e->id);
		return 0;
	}
	error_set(err, ERROR_TRASH_NOT_FOUND, "nothing is left of the data of entry %lld: others have removed %s (docker volume prune?)", (long long)e->id, buffer_str(&names));
	return error_hint(err, "ajj trash empty %lld", (long long)e->id);
}

static int restore(const struct client *c, struct store *store, const struct trash_entry *entry, bool env,
                   struct error *err)
{
	cleanup_close int root = c->mounted ? -1 : open(c->id.root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	uint32_t generation = 0;
	int r = check_lost(entry, env, err);
	if (!r)
		r = make_room(c, store, &generation, err);
	if (!r)
		r = trash_restore(store, &c->id, entry->id, generation, env && !c->mounted, root, err);
	if (!r && env && entry->has_env && c->mounted)
		r = place_env(c, store, entry, err);
	return r;
}

static int run(const struct arguments *args, struct error *err)
{
	cleanup_client struct client c = CLIENT_INIT;
	cleanup_store struct store *store = NULL;
	struct trash_entry entry = {0};
	int64_t id = 0;
	int r = args->words ? trash_id_parse(args->words[0], &id, err) : 0;
	if (!r)
		r = client_find(NULL, &c, err);
	if (!r)
		r = registry_open(&store, err);
	if (!r && !store) {
		error_set(err, ERROR_TRASH_NOT_FOUND, "the trash is empty");
		r = error_hint(err, "ajj destroy is what puts data there");
	}
	if (!r && c.mounted) /* `rm .env` returns before its data is in the trash */
		r = client_command(&c, "settle", err);
	if (!r)
		r = choose(store, c.id.namespace_, id, arguments_flag(args, "env"), &entry, err);
	if (r)
		return r;
	bool own = is_own(&c, &entry);
	r = own || arguments_flag(args, "here") ? restore(&c, store, &entry, arguments_flag(args, "env"), err) : refuse_foreign(&c, &entry, err);
	if (!r) {
		output_line("restored %lld%s%s to %s", (long long)entry.id, own ? "" : " of ", own ? "" : entry.root, c.id.root);
		if (entry.has_env && !arguments_flag(args, "env"))
			output_line("its .env lines stay in the trash, in %s/env: they come along with --env", entry.path);
		output_document(json_pack("{s:I, s:s, s:s, s:s}", "id", (json_int_t)entry.id, "workspace_root", c.id.root,
		                          "namespace", c.id.namespace_, "from", entry.root));
	}
	trash_entry_release(&entry);
	return r;
}

const struct command command_trash_restore = {
	.name = "trash restore",
	.arguments = "[ID]",
	.summary = "give this workspace its newest data back, or that of ID; what it has goes to the trash",
	.help = "Starts nothing: the next read of .env, or `ajj up`, runs on the restored data. An ID of another workspace is refused but with --here. "
	        "A teardown that is under way, as after rm .env, is waited for.",
	.options = options,
	.words_max = 1,
	.run = run,
};
