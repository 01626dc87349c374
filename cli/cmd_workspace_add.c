#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/strv.h"
#include "cli/commands.h"
#include "cli/configuration.h"
#include "cli/git.h"
#include "cli/include.h"
#include "cli/jj.h"
#include "cli/mounting.h"
#include "cli/output.h"
#include "cli/process.h"
#include "cli/progress.h"
#include "cli/registry.h"
#include "cli/reports.h"
#include "cli/worktree.h"

static const struct option options[] = {
	{"options", 'o', "LIST", "mount options, as for aetherfs -o"},
	{"up", 0, NULL, "also start the services and wait until they are ready"},
	{NULL, 0, NULL, NULL},
};

struct add {
	const struct arguments *args;
	char *repository_root;   /* of the workspace that jj is asked in */
	struct identity git;     /* the checkout that git is asked in; .root NULL: jj is */
	const char *destination; /* borrowed word */
	bool up;
	struct include included;
	char **absent; /* words of the command line that named nothing before */
};

/* `.jj/working_copy` is the last thing that jj makes in a destination. */
static bool is_workspace(const char *directory)
{
	struct stat st;
	cleanup_free char *path = xasprintf("%s/.jj/working_copy", directory);
	return !stat(path, &st);
}

/* With options that we know the one word is DEST. The value of one that we do not know looks like a word, too: DEST is
 * the word that has become a workspace meanwhile. */
static const char *find_destination(char *const *words)
{
	const char *found = NULL;
	if (words && words[0] && !words[1])
		return words[0];
	for (; words && *words; words++)
		if (is_workspace(*words))
			found = *words;
	return found;
}

/* What the words of the command line name and what is not there yet: only that can be undone. */
static void note_absent(struct add *a)
{
	struct stat st;
	cleanup_free char *here = getcwd(NULL, 0); /* unmounting leaves it */
	for (char **w = a->args->words; here && w && *w; w++)
		if (lstat(*w, &st) && errno == ENOENT)
			strv_pushf(&a->absent, "%s/%s", **w == '/' ? "" : here, *w);
}

/* borrowed: the directory that jj has made or begun to make; NULL when it has not, or when it was there before */
static const char *begun_destination(const struct add *a)
{
	for (char **w = a->absent; w && *w; w++) {
		struct stat st;
		cleanup_free char *jj = xasprintf("%s/%s", *w, a->git.root ? ".git" : ".jj");
		if (!lstat(jj, &st))
			return *w;
		rmdir(*w); /* the first thing that jj makes, empty */
	}
	return NULL;
}

static int forget_in_jj(const struct add *a, const char *name, struct error *err)
{
	static char words[][24] = {"workspace", "forget", "--ignore-working-copy", "--quiet", "-R", "--"};
	cleanup_free char **line = NULL;
	cleanup_buffer struct buffer out = BUFFER_INIT;
	for (size_t i = 0; i < 5; i++)
		strv_push(&line, words[i]);
	strv_push(&line, a->repository_root);
	strv_push(&line, words[5]);
	cleanup_free char *copy = xstrdup(name);
	strv_push(&line, copy);
	return jj_capture(line, &out, err);
}

/* Takes back what was made so far, as if the command had not been given: mount, record, jj's workspace, directory. */
static int undo(const struct add *a, struct client *c, const char *destination, struct error *err)
{
	struct identity id = {0};
	int r = c && c->id.root ? mounting_detach(c, DETACH_UNDER_SHELL, err) : 0;
	if (!r && c && c->id.root)
		r = registry_discard(&c->id, err);
	if (r || identity_of(destination, NULL, &id, err))
		return r ? r : -EIO;
	/* jj looks whether the name is free before it makes the directory, so whoever has it now is what was begun; it writes the name down
	 * there last of all */
	const char *name = jj_option_value(a->args->rest, "name", 0);
	if (a->git.root)
		worktree_unmake(&a->git, id.root);
	else if (id.kind == WORKSPACE_JJ)
		forget_in_jj(a, name ? name : id.workspace, NULL); /* it may not have got so far */
	identity_release(&id);
	r = tree_remove(AT_FDCWD, destination);
	return r ? error_set_errno(err, ERROR_INTERNAL, -r, "cannot remove %s", destination) : 0;
}

/* CANCELED. `c` is the environment, NULL: not looked for yet. */
static int canceled(const struct add *a, struct client *c, struct error *err)
{
	cleanup_error struct error why = ERROR_INIT;
	const char *begun = begun_destination(a);
	error_release(err);
	interrupts_forget();
	if (begun && !undo(a, c, begun, &why))
		return error_set(err, ERROR_CANCELED, "interrupted: nothing was made");
	if (!begun && !a->destination)
		return error_set(err, ERROR_CANCELED, "interrupted");
	error_set(err, ERROR_CANCELED, "interrupted: the workspace was made%s%s", why.message ? ", and could not be removed: " : "",
	          why.message ? why.message : "");
	return error_hint(err, "ajj attach %s", begun ? begun : a->destination);
}

static int make_workspace(struct add *a, struct error *err)
{
	static char words[2][2][16] = {{"workspace", "add"}, {"worktree", "add"}};
	const char *destination;
	cleanup_git_worktrees struct git_worktrees before = GIT_WORKTREES_INIT;
	cleanup_free char **line = NULL;
	strv_push(&line, words[a->git.root != NULL][0]);
	strv_push(&line, words[a->git.root != NULL][1]);
	for (char **rest = a->args->rest; rest && *rest; rest++)
		strv_push(&line, *rest);
	note_absent(a);
	if (a->git.root)
		worktrees_before(&a->git, &before);
	int r = a->git.root ? git_run(line, err) : jj_run(line, err);
	if (interrupted())
		return canceled(a, NULL, err);
	if (r)
		return r;
	destination = a->git.root ? worktree_made(&a->git, &before, a->args->words) : find_destination(a->args->words);
	a->destination = destination && (a->git.root || is_workspace(destination)) ? destination : NULL;
	if (!a->destination) {
		error_set(err, ERROR_WORKSPACE_NOT_FOUND, "a workspace was made, but where is not clear from the command line");
		return error_hint(err, "ajj attach DEST");
	}
	return 0;
}

static int mount_workspace(struct add *a, struct client *c, struct error *err)
{
	int r = client_of(a->destination, NULL, c, err);
	if (!r && !interrupted())
		r = include_and_attach(c, arguments_value(a->args, "options"), NULL, &a->included, err);
	if (!r && !interrupted())
		r = mounting_approve(c, NULL, err);
	if (interrupted())
		return canceled(a, c, err);
	if (!r)
		return 0;
	cleanup_free char *first = err->hint ? xasprintf("%s, then: ", err->hint) : xstrdup("");
	error_prefix(err, "the workspace was made, but is not mounted");
	error_hint(err, "%sajj attach %s", first, a->destination);
	return r;
}

static int start_services(const struct client *c, struct error *err)
{
	cleanup_progress struct progress *progress = progress_start(c, "starting");
	int r = interrupted() ? error_set(err, ERROR_CANCELED, "interrupted") : client_command(c, "up", err);
	if (!r || err->code != ERROR_CANCELED)
		return r;
	error_set(err, ERROR_CANCELED, "interrupted: %s was made and is mounted; its services go on starting", c->id.root);
	return error_hint(err, "ajj up waits for them, ajj down stops them, ajj workspace forget takes it all away");
}

static void answer(const struct client *c, const struct include *included)
{
	json_t *status = report_status(c);
	cleanup_free char *resources = report_resources(status);
	report_warn_of_permissions(status);
	output_line("Mounted %s (%s)%s%s", c->id.root, c->id.namespace_, *resources ? ": " : "", resources);
	if (included->answer)
		json_object_set(status, "included", included->answer);
	json_object_set_new(status, "path", json_string(c->id.root));
	output_document(status);
}

static int add(struct add *a, struct client *c, struct error *err)
{
	interrupts_note();
	int r = make_workspace(a, err);
	if (!r)
		r = mount_workspace(a, c, err);
	if (!r && a->up)
		r = start_services(c, err);
	interrupts_end(!r);
	return r;
}

static int run(const struct arguments *args, struct error *err)
{
	cleanup_client struct client c = CLIENT_INIT;
	cleanup_free char *jj = NULL;
	struct add a = {.args = args, .up = arguments_flag(args, "up")};
	const char *repository = jj_option_value(args->rest, "repository", 'R');
	/* -R is jj's, and git's -C would take DEST along */
	bool git = !repository && git_alone(NULL, &a.git);
	int r = git ? 0 : jj_find(&jj, err);
	if (!r && !git)
		r = jj_root(repository ? repository : ".", &a.repository_root, err);
	if (!r)
		r = configuration_check(git ? a.git.root : a.repository_root, &a.up, err);
	if (!r)
		r = add(&a, &c, err);
	if (!r)
		answer(&c, &a.included);
	free(a.repository_root);
	identity_release(&a.git);
	include_release(&a.included);
	strv_free(a.absent);
	return r;
}

const struct command command_workspace_add = {
	.name = "workspace add",
	.arguments = "DEST [jj's options]",
	.summary = "jj workspace add, then mount: ports are leased, nothing is started",
	.help = "jj's own options are handed on (--name, -r, ...). A broken configuration fails before jj is called. "
	        "When the mount fails the workspace stays, and `ajj attach DEST` tries again; Ctrl-C takes back what was "
	        "made, but for services that have begun to start. With --json: "
	        "status.json and `path`. In a repository of git's alone it is `git worktree add`, with git's options (-b, "
	        "--detach, a branch or commit after DEST).",
	.options = options,
	.mode = ARGUMENTS_PASS,
	.words_min = 1,
	.words_max = COMMAND_WORDS_ANY,
	.run = run,
};
