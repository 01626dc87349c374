#include "cli/worktree.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/strv.h"
#include "cli/git.h"
#include "cli/output.h"
#include "cli/teardown.h"
#include "cli/workspace_table.h"

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash && slash[1] ? slash + 1 : path;
}

/* ---- add ---- */

/* One whose directory is gone is made anew by `add --force`. */
void worktrees_before(const struct identity *here, struct git_worktrees *ret)
{
	git_worktrees_read(here->repository, here->main_root, ret);
	for (size_t i = 0; i < ret->count; i++)
		if (access(ret->items[i].path, F_OK))
			*ret->items[i].path = '\0';
}

/* Which word was its path, and which a branch or a commit, is known best by what has become a worktree. */
const char *worktree_made(const struct identity *here, const struct git_worktrees *before, char *const *words)
{
	cleanup_git_worktrees struct git_worktrees after = GIT_WORKTREES_INIT;
	git_worktrees_read(here->repository, here->main_root, &after);
	for (; words && *words; words++) {
		cleanup_free char *path = realpath(*words, NULL);
		if (path && git_worktrees_at(&after, path) && !git_worktrees_at(before, path))
			return *words;
	}
	return NULL;
}

void worktree_unmake(const struct identity *here, const char *path)
{
	cleanup_git_worktrees struct git_worktrees list = GIT_WORKTREES_INIT;
	git_worktrees_read(here->repository, here->main_root, &list);
	const struct git_worktree *w = git_worktrees_at(&list, path);
	if (w && w->id)
		git_worktree_forget(here->repository, w, NULL);
}

/* ---- list ---- */

static char *note_of(const struct git_worktree *w)
{
	const char *where = w->branch ? w->branch : w->commit ? w->commit : "";
	return xasprintf("(%s%.*s%s%s)", w->commit ? "detached at " : "", w->commit ? 12 : 200, where, w->locked ? ", locked" : "",
	                 access(w->path, F_OK) && errno == ENOENT ? ", gone" : "");
}

int worktree_list(const struct identity *here, struct error *err)
{
	cleanup_git_worktrees struct git_worktrees list = GIT_WORKTREES_INIT;
	cleanup_strv char **notes = NULL;
	git_worktrees_read(here->repository, here->main_root, &list);
	struct workspace_row *rows = xcalloc(list.count + 1, sizeof *rows);
	for (size_t i = 0; i < list.count; i++) {
		const struct git_worktree *w = &list.items[i];
		strv_push(&notes, note_of(w));
		rows[i] = (struct workspace_row){
		    .name = base_name(w->path), .root = w->path, .note = notes[i],
		    .more = json_pack("{s:s?, s:s?, s:b, s:b}", "branch", w->branch, "detached_at", w->commit, "locked", w->locked,
		                      "gone", access(w->path, F_OK) && errno == ENOENT)};
	}
	workspace_table_print(rows, list.count);
	for (size_t i = 0; i < list.count; i++)
		json_decref(rows[i].more);
	free(rows);
	return 0;
}

/* ---- forget ---- */

/* By base name, by git's own name for it, or by path. Two of one base name are told apart by path. */
static int find(const struct git_worktrees *list, const char *name, const struct git_worktree **ret, struct error *err)
{
	cleanup_free char *path = realpath(name, NULL);
	const struct git_worktree *found = path ? git_worktrees_at(list, path) : git_worktrees_at(list, name);
	size_t count = found != NULL;
	for (size_t i = 0; !found && !strchr(name, '/') && i < list->count; i++)
		if (!strcmp(base_name(list->items[i].path), name)) {
			*ret = &list->items[i];
			count++;
		}
	if (found)
		*ret = found;
	if (count == 1)
		return 0;
	if (count)
		error_set(err, ERROR_USAGE, "%zu worktrees are called %s: name one by its path", count, name);
	else
		error_set(err, ERROR_WORKSPACE_NOT_FOUND, "git knows no worktree %s", name);
	error_hint(err, "ajj workspace list");
	return -error_code_errno(count ? ERROR_USAGE : ERROR_WORKSPACE_NOT_FOUND);
}

static int check(const struct git_worktree *w, const char *common, struct error *err)
{
	if (!w->id) {
		error_set(err, ERROR_USAGE, "%s is the main checkout, which cannot be forgotten", w->path);
		error_hint(err, "ajj detach '%s'; ajj destroy in it puts its data into the trash", w->path);
		return -error_code_errno(ERROR_USAGE);
	}
	if (!w->locked)
		return 0;
	error_set(err, ERROR_GIT_FAILED, "%s is locked", w->path);
	error_hint(err, "git --git-dir='%s' worktree unlock '%s'", common, w->path);
	return -error_code_errno(ERROR_GIT_FAILED);
}

/* Its index and its HEAD go with git's entry; what a detached HEAD alone led to, git would collect one day. */
static void say_forgotten(const struct git_worktree *w, const char *common)
{
	if (!output_is_json())
		output_line("Forgot %s%s%s: the directory stays, as a plain one", w->path, w->branch ? ", branch " : "",
		            w->branch ? w->branch : "");
	if (w->commit)
		output_note("Note: its HEAD was detached at %.12s; to keep that: git --git-dir='%s' branch NAME %.12s", w->commit, common,
		            w->commit);
}

static int forget_one(const struct identity *here, const struct git_worktree *w, json_t *done, struct error *err)
{
	int r = access(w->path, F_OK) && errno == ENOENT ? teardown_gone(here->repository, w->path, err)
	                                              : teardown_root(w->path, NULL, err);
	if (!r)
		r = git_worktree_forget(here->repository, w, err);
	if (r)
		return r;
	say_forgotten(w, here->repository);
	json_array_append_new(done, json_pack("{s:s, s:s, s:s?, s:s?}", "workspace", base_name(w->path), "path", w->path, "branch",
	                                      w->branch, "detached_at", w->commit));
	return 0;
}

int worktree_forget(const struct arguments *args, const struct identity *here, struct error *err)
{
	cleanup_git_worktrees struct git_worktrees list = GIT_WORKTREES_INIT;
	cleanup_strv char **names = strv_copy(args->words);
	json_t *done = json_array();
	int r = 0;
	if (args->rest && strv_len(args->rest) > strv_len(args->words))
		r = error_set(err, ERROR_USAGE, "git has no options for forgetting a worktree: %s", args->rest[0]);
	git_worktrees_read(here->repository, here->main_root, &list);
	if (!names)
		strv_pushf(&names, "%s", here->root);
	/* all are found first: unmounting leaves the working directory, which relative paths begin at, and one that is refused refuses all */
	size_t count = strv_len(names);
	const struct git_worktree **wanted = xcalloc(count + 1, sizeof *wanted);
	for (size_t i = 0; !r && i < count; i++) {
		r = find(&list, names[i], &wanted[i], err);
		if (!r)
			r = check(wanted[i], here->repository, err);
	}
	for (size_t i = 0; !r && i < count; i++)
		r = forget_one(here, wanted[i], done, err);
	free(wanted);
	if (!r)
		output_document(json_pack("{s:O}", "forgotten", done));
	json_decref(done);
	return r;
}
