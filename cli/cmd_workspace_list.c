#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/strv.h"
#include "cli/commands.h"
#include "cli/git.h"
#include "cli/jj.h"
#include "cli/output.h"
#include "cli/registry.h"
#include "cli/workspace_table.h"
#include "cli/worktree.h"

/* Anything beyond jj's global options (-T, above all) asks for jj's own list. */
static int own_list(const struct arguments *args, struct error *err)
{
	static char words[][16] = {"workspace", "list"};
	char **line = NULL;
	strv_push(&line, words[0]);
	strv_push(&line, words[1]);
	for (char **rest = args->rest; rest && *rest; rest++)
		strv_push(&line, *rest);
	return jj_exec(line, err);
}

static bool wants_own_list(char *const *rest)
{
	return jj_option_value(rest, "template", 'T') != NULL;
}

/* jj older than 0.40 does not tell where a workspace is, and none tells of one whose directory is gone. */
static void find_roots(const char *repository, struct jj_workspace *list, size_t count)
{
	cleanup_registry_list struct registry_list known = {NULL, 0};
	if (registry_list(&known, NULL))
		return;
	for (size_t i = 0; i < count; i++)
		for (size_t k = 0; !list[i].root && k < known.count; k++)
			if (!strcmp(known.items[k].repository, repository) && !strcmp(known.items[k].workspace, list[i].name))
				list[i].root = strdup(known.items[k].root);
}

static void print(const struct jj_workspace *list, size_t count)
{
	struct workspace_row *rows = xcalloc(count + 1, sizeof *rows);
	for (size_t i = 0; i < count; i++)
		rows[i] = (struct workspace_row){.name = list[i].name, .root = list[i].root};
	workspace_table_print(rows, count);
	free(rows);
}

static int run(const struct arguments *args, struct error *err)
{
	cleanup_free char *root = NULL;
	struct identity id = {0};
	struct jj_workspace *list = NULL;
	size_t count = 0;
	const char *repository = jj_option_value(args->rest, "repository", 'R');
	if (git_alone(repository, &id)) {
		int g = worktree_list(&id, err);
		identity_release(&id);
		return g;
	}
	if (wants_own_list(args->rest))
		return own_list(args, err);
	int r = jj_root(repository ? repository : ".", &root, err);
	if (!r)
		r = jj_workspaces(root, &list, &count, err);
	if (!r)
		r = identity_of(root, NULL, &id, err);
	if (r) {
		jj_workspaces_free(list, count);
		return r;
	}
	find_roots(id.repository, list, count);
	print(list, count);
	identity_release(&id);
	jj_workspaces_free(list, count);
	return 0;
}

const struct command command_workspace_list = {
	.name = "workspace list",
	.arguments = "[jj's options]",
	.summary = "the repository's workspaces, and what runs in each",
	.help = "A state of - is a workspace that is not mounted. With -T: jj's own list. In a repository of git's alone: "
	        "git's worktrees.",
	.mode = ARGUMENTS_PASS,
	.looks_closely = true,
	.run = run,
};
