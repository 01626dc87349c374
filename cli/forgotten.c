#include "cli/forgotten.h"

#include <fcntl.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "cli/git.h"
#include "cli/jj.h"
#include "cli/output.h"

#define INDEX_MAX (4u << 20) /* bytes */

/* jj's record of its workspaces (0.38 and newer) is its own, but a name that it does not hold anywhere is a reason to ask, and one that
 * it holds saves asking: jj takes longer than all the rest of attaching. */
static bool may_be_forgotten(const struct identity *id)
{
	cleanup_buffer struct buffer index = BUFFER_INIT;
	cleanup_free char *path = xasprintf("%s/workspace_store/index", id->repository);
	if (id->kind != WORKSPACE_JJ || file_read(AT_FDCWD, path, INDEX_MAX, &index))
		return false;
	return !memmem(buffer_str(&index), index.len, id->workspace, strlen(id->workspace));
}

/* A copy has the first one's HEAD and index: whatever is done with git in one of the two is done to the other. */
static int check_claim(const struct identity *id, struct error *err)
{
	cleanup_free char *place = NULL;
	enum git_claim claim = git_worktree_claim(id->repository, id->root, &place);
	if (claim == GIT_CLAIM_MOVED)
		output_note("Note: git still looks for this worktree at %s: git worktree repair, in %s, tells it", place, id->root);
	if (claim != GIT_CLAIM_OTHERS)
		return 0;
	error_set(err, ERROR_WORKSPACE_NOT_FOUND, "%s is a copy of the worktree %s, and no worktree of its own", id->root, place);
	error_hint(err, "rm '%s/.git' makes it a plain directory; or make another worktree: ajj workspace add DEST", id->root);
	return -error_code_errno(ERROR_WORKSPACE_NOT_FOUND);
}

int forgotten_check(const struct identity *id, struct error *err)
{
	if (id->kind == WORKSPACE_GIT)
		return check_claim(id, err);
	struct jj_workspace *list = NULL;
	size_t count = 0;
	bool known = false;
	if (!may_be_forgotten(id) || jj_workspaces(id->main_root ? id->main_root : id->root, &list, &count, NULL))
		return 0;
	for (size_t i = 0; i < count; i++)
		known = known || !strcmp(list[i].name, id->workspace);
	jj_workspaces_free(list, count);
	if (known)
		return 0;
	error_set(err, ERROR_WORKSPACE_NOT_FOUND, "jj has forgotten the workspace %s, which was at %s", id->workspace, id->root);
	if (id->main_root && !strcmp(id->main_root, id->root)) /* its .jj is the repository itself */
		error_hint(err, "jj undo, right after it, brings it back; or make another one: ajj workspace add DEST");
	else
		error_hint(err, "rm -r '%s/.jj' makes it a plain directory; or make another one: ajj workspace add DEST", id->root);
	return -error_code_errno(ERROR_WORKSPACE_NOT_FOUND);
}
