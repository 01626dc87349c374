#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/strv.h"
#include "cli/commands.h"
#include "cli/git.h"
#include "cli/jj.h"
#include "cli/output.h"
#include "cli/registry.h"
#include "cli/teardown.h"
#include "cli/worktree.h"

/* Ours, so that jj gets it as an absolute path: by then we stand elsewhere. */
static const struct option options[] = {
	{"repository", 'R', "PATH", "the repository, as for jj"},
	{NULL, 0, NULL, NULL},
};

struct forget {
	const struct arguments *args;
	struct identity here; /* the workspace that jj is asked in */
	char *elsewhere;      /* a workspace root to run jj in when `here` is among the forgotten: the main checkout */
	json_t *done;
};

static bool is_wanted(const struct forget *f, const char *name)
{
	return f->args->words ? strv_contains(f->args->words, name) : !strcmp(name, f->here.workspace);
}

/* The record of a workspace whose directory was removed, or that jj cannot place. */
static int take_down_by_record(const struct forget *f, const char *name, struct error *err)
{
	cleanup_registry_list struct registry_list list = {NULL, 0};
	int r = registry_list(&list, err);
	for (size_t i = 0; !r && i < list.count; i++) {
		const struct store_environment *e = &list.items[i];
		if (!strcmp(e->repository, f->here.repository) && !strcmp(e->workspace, name))
			r = teardown_record(e, err);
	}
	return r;
}

static int take_down_all(struct forget *f, const struct jj_workspace *list, size_t count, struct error *err)
{
	int r = 0;
	for (size_t i = 0; !r && i < count; i++) {
		if (!is_wanted(f, list[i].name))
			continue;
		r = list[i].root ? teardown_root(list[i].root, list[i].name, err) : take_down_by_record(f, list[i].name, err);
		if (!r)
			json_array_append_new(f->done, json_pack("{s:s, s:s?}", "workspace", list[i].name, "path", list[i].root));
	}
	return r;
}

/* Without names jj means the workspace that it stands in, whose mount is gone by now: it is named, and jj stands
 * elsewhere. */
static int forget_in_jj(const struct forget *f, struct error *err)
{
	static char words[][16] = {"workspace", "forget", "-R"};
	cleanup_free char **line = NULL;
	strv_push(&line, words[0]);
	strv_push(&line, words[1]);
	strv_push(&line, words[2]);
	strv_push(&line, f->elsewhere);
	for (char **rest = f->args->rest; rest && *rest; rest++)
		strv_push(&line, *rest);
	if (!f->args->words)
		strv_push(&line, f->here.workspace);
	return jj_run(line, err);
}

static int find_here(struct forget *f, struct error *err)
{
	cleanup_free char *root = NULL;
	const char *repository = arguments_value(f->args, "repository");
	int r = jj_root(repository ? repository : ".", &root, err);
	if (!r)
		r = identity_of(root, NULL, &f->here, err);
	if (!r)
		f->elsewhere = strdup(f->here.main_root && !access(f->here.main_root, F_OK) ? f->here.main_root : f->here.root);
	return r;
}

static void say_done(const struct forget *f)
{
	json_t *one;
	size_t i;
	json_array_foreach (f->done, i, one) {
		const char *path = json_string_value(json_object_get(one, "path"));
		output_line("Forgot %s%s%s: its data, if it had any, rests in the trash (ajj trash list)", json_string_value(json_object_get(one, "workspace")), path ? ", at " : "",
		            path ? path : "");
	}
	output_document(json_pack("{s:O}", "forgotten", f->done));
}

static int run(const struct arguments *args, struct error *err)
{
	struct forget f = {.args = args, .done = json_array()};
	struct jj_workspace *list = NULL;
	size_t count = 0;
	struct identity git;
	if (git_alone(arguments_value(args, "repository"), &git)) {
		int g = worktree_forget(args, &git, err);
		identity_release(&git);
		json_decref(f.done);
		return g;
	}
	int r = find_here(&f, err);
	if (!r)
		r = jj_workspaces(f.here.root, &list, &count, err);
	if (!r)
		r = take_down_all(&f, list, count, err);
	if (!r)
		r = forget_in_jj(&f, err);
	if (!r)
		say_done(&f);
	jj_workspaces_free(list, count);
	identity_release(&f.here);
	free(f.elsewhere);
	json_decref(f.done);
	return r;
}

const struct command command_workspace_forget = {
	.name = "workspace forget",
	.arguments = "[NAME...] [jj's options]",
	.summary = "destroy the environment (to the trash), unmount, then jj workspace forget",
	.help = "Without NAME: the workspace that the working directory is in. The directory stays, with nothing of "
	        "ours in it. In a repository of git's alone: git's entry of the worktree goes, and the directory stays as "
	        "a plain one, without its .git file; branches are not touched. `git worktree remove` would delete it.",
	.options = options,
	.mode = ARGUMENTS_PASS,
	.words_max = COMMAND_WORDS_ANY,
	.run = run,
};
