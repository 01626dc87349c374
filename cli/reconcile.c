#include "cli/reconcile.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hash.h"
#include "cli/git.h"
#include "cli/jj.h"
#include "cli/mounting.h"
#include "cli/moved.h"
#include "cli/output.h"
#include "cli/registry.h"
#include "cli/teardown.h"
#include "provisioner/mounts.h"
#include "provisioner/native.h"

#define STAMP_MAX 256 /* bytes */

/* What belongs together: a main checkout, its jj repository and its git repository, either of which may be missing. */
struct repository {
	char *main_root, *jj, *git;
	char *here; /* the root of the workspace that we stand in */
	char *here_name; /* what jj calls it; NULL: it is none of jj's */
	struct jj_workspace *jj_list;
	size_t jj_count;
	bool jj_asked;
	bool git_read;
	struct git_worktrees git_list;
};

/* ---- whose ---- */

static bool find_repository(struct repository *ret)
{
	struct identity id = {0};
	cleanup_free char *root = NULL;
	if (identity_find_root(".", &root, NULL) || identity_of(root, NULL, &id, NULL))
		return false;
	ret->here = xstrdup(root);
	ret->here_name = id.kind == WORKSPACE_JJ ? xstrdup(id.workspace) : NULL;
	ret->main_root = xstrdup(id.main_root);
	ret->jj = id.kind == WORKSPACE_JJ ? xstrdup(id.repository) : NULL;
	ret->git = id.kind == WORKSPACE_GIT ? xstrdup(id.repository) : NULL;
	if (id.main_root && !ret->jj)
		ret->jj = xasprintf("%s/.jj/repo", id.main_root);
	if (id.main_root && !ret->git)
		ret->git = xasprintf("%s/.git", id.main_root);
	identity_release(&id);
	return true;
}

static void repository_release(struct repository *r)
{
	free(r->main_root);
	free(r->jj);
	free(r->git);
	free(r->here);
	free(r->here_name);
	jj_workspaces_free(r->jj_list, r->jj_count);
	git_worktrees_release(&r->git_list);
}

static bool is_in(const char *repository, const struct store_environment *e)
{
	return repository && !strcmp(repository, e->repository);
}

/* ---- has it gone? ---- */

/* Unmounted, but its keeper or server lives: that takes the environment down by itself, as after a removal through the mount. */
static bool is_ending(const struct store_environment *e)
{
	return !is_mounted_by_us(e->control_dir) && registry_is_kept(e) && native_find_at(e->root) != NATIVE_PLAIN;
}

/* A mount that nobody serves hides the directory; it is there. While the control file system is served, its server takes the
 * environment down by itself. */
static bool is_gone(const struct store_environment *e)
{
	struct stat st;
	return lstat(e->root, &st) && (errno == ENOENT || errno == ENOTDIR) &&
	       (!is_mounted_by_us(e->control_dir) || mount_is_dead(e->control_dir));
}

/* Renamed where it stood, or moved by `git worktree move`, or it is the one that we stand in: whoever attaches it there finds its data by itself. */
static bool has_moved(const struct repository *repo, const struct store_environment *e)
{
	if (moved_is(AT_FDCWD, repo->here, e))
		return true;
	if (repo->here_name && is_in(repo->jj, e) && !strcmp(repo->here_name, e->workspace))
		return true; /* to another file system */
	for (size_t i = 0; i < repo->git_list.count; i++)
		if (moved_is(AT_FDCWD, repo->git_list.items[i].path, e))
			return true;
	cleanup_free char *beside = moved_beside(e);
	return beside;
}

/* Only one at a time, and not while somebody mounts it. Without its state directory nothing is left to be torn down at once. */
static int lock_state(const struct store_environment *e)
{
	cleanup_close int fd = open(e->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB))
		return -EWOULDBLOCK;
	return fd >= 0 ? move_fd(&fd) : -ENOENT;
}

/* ---- has it been forgotten? ---- */

/* What jj rewrites at every `workspace add`, `forget` and `rename` (0.38 and newer), and, behind a bar, what every operation changes: only that
 * tells of a `jj undo`. new */
static char *jj_stamp(const char *repository)
{
	static const char *const names[] = {"workspace_store/index", "op_heads/heads"};
	cleanup_buffer struct buffer out = BUFFER_INIT;
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		cleanup_free char *path = xasprintf("%s/%s", repository, names[i]);
		struct stat st;
		if (!stat(path, &st))
			buffer_printf(&out, "%llu %lld.%09ld", (unsigned long long)st.st_ino, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
		buffer_adds(&out, i ? "" : "|");
	}
	return buffer_detach(&out);
}

/* new: where the stamp of what jj was last asked about is kept */
static char *stamp_path(const char *repository)
{
	cleanup_free char *shared = NULL;
	if (identity_shared_dir(&shared, NULL))
		return NULL;
	return xasprintf("%s/jj-asked/%016llx", shared, (unsigned long long)hash_str(HASH_INIT, repository));
}

/* The first half, where jj has it, is enough but for who looks closely. */
static bool is_unchanged(const char *path, const char *stamp, bool closely)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	size_t first = strcspn(stamp, "|");
	if (!path || file_read(AT_FDCWD, path, STAMP_MAX, &text))
		return false;
	return closely || !first ? !strcmp(buffer_str(&text), stamp) : !strncmp(buffer_str(&text), stamp, first + 1);
}

static void keep_stamp(const char *path, const char *stamp)
{
	cleanup_free char *directory = path ? xstrndup(path, (size_t)(strrchr(path, '/') - path)) : NULL;
	if (directory && !dir_make(AT_FDCWD, directory, 0700))
		file_write_atomic(AT_FDCWD, path, stamp, strlen(stamp), 0600);
}

static bool jj_knows(const struct repository *repo, const char *name)
{
	for (size_t i = 0; i < repo->jj_count; i++)
		if (!strcmp(repo->jj_list[i].name, name))
			return true;
	return false;
}

/* A mount that nobody serves hides the `.git` file, so it goes, with the other one. False where somebody is about to serve it again. */
static bool uncover(const struct store_environment *e)
{
	cleanup_close int lock = lock_state(e);
	if (lock == -EWOULDBLOCK || registry_is_kept(e))
		return false;
	const char *const points[] = {e->root, e->control_dir};
	for (size_t i = 0; i < sizeof points / sizeof points[0]; i++)
		while (is_mounted_by_us(points[i]) && mount_is_dead(points[i]))
			if (mounting_clear_dead(points[i], NULL))
				return false;
	return true;
}

/* That its place is not in git's list says nothing: git does not notice that one was moved. */
static bool git_has_forgotten(const struct repository *repo, const struct store_environment *e)
{
	if (git_worktrees_at(&repo->git_list, e->root))
		return false;
	if (mount_is_dead(e->root) && !uncover(e))
		return false;
	enum git_claim claim = git_worktree_claim(e->repository, e->root, NULL);
	return claim == GIT_CLAIM_NONE || claim == GIT_CLAIM_OTHERS;
}

/* Does its own record of who it is, which a rename changes, name a workspace that jj does not have? */
static bool is_forgotten(const struct repository *repo, const struct store_environment *e)
{
	struct identity id = {0};
	if (is_in(repo->git, e))
		return git_has_forgotten(repo, e);
	if (!repo->jj_asked)
		return false;
	if (mount_is_dead(e->root))
		return !jj_knows(repo, e->workspace);
	if (identity_of(e->root, NULL, &id, NULL))
		return false;
	bool forgotten = id.kind == WORKSPACE_JJ && !strcmp(id.repository, e->repository) && !jj_knows(repo, id.workspace);
	identity_release(&id);
	return forgotten;
}

/* ---- doing it ---- */

static bool take_down(const struct store_environment *e, const char *why)
{
	cleanup_error struct error err = ERROR_INIT;
	cleanup_close int lock = lock_state(e);
	if (lock == -EWOULDBLOCK)
		return true;
	int r = teardown_record(e, &err);
	if (r)
		output_note("Warning: %s %s, but its environment could not be taken down: %s", e->root, why, err.message);
	else
		output_note("Note: %s %s: its environment was taken down; its data, if it had any, is in the trash (ajj trash list)", e->root, why);
	return !r;
}

/* Reads and asks what is needed for the environments that are registered; false when there are none. */
static bool look(struct repository *repo, const struct registry_list *list, const char *stamp, const char *path, bool closely)
{
	bool jj = false, any = false;
	for (size_t i = 0; i < list->count; i++) {
		jj |= is_in(repo->jj, &list->items[i]);
		any |= is_in(repo->jj, &list->items[i]) || is_in(repo->git, &list->items[i]);
	}
	if (any && repo->git)
		repo->git_read = !git_worktrees_read(repo->git, repo->main_root, &repo->git_list);
	if (!jj || is_unchanged(path, stamp, closely))
		return any;
	/* without an error to fill, what jj says goes nowhere; a main checkout may be a mount that nobody serves */
	const char *const places[] = {repo->main_root, repo->here};
	for (size_t i = 0; i < 2 && !repo->jj_asked; i++)
		repo->jj_asked = places[i] && !jj_workspaces(places[i], &repo->jj_list, &repo->jj_count, NULL);
	return any;
}

static bool look_at_each(const struct repository *repo, const struct registry_list *list)
{
	bool done = true;
	for (size_t i = 0; i < list->count; i++) {
		const struct store_environment *e = &list->items[i];
		/* of git's, nothing can be said when git's list cannot be read */
		bool ours = is_in(repo->jj, e) || (is_in(repo->git, e) && repo->git_read);
		if (!ours || is_ending(e))
			continue;
		if (is_gone(e)) {
			const struct git_worktree *w = is_in(repo->git, e) ? git_worktrees_at(&repo->git_list, e->root) : NULL;
			/* locked: git's word for one on a disk that is not always there */
			if (!(w && w->locked) && !has_moved(repo, e))
				done &= take_down(e, "was removed");
		} else if (is_forgotten(repo, e)) {
			done &= take_down(e, "was forgotten");
		}
	}
	return done;
}

static bool any_hung(const struct registry_list *list)
{
	cleanup_strv char **points = NULL;
	for (size_t i = 0; i < list->count; i++) {
		strv_push(&points, xstrdup(list->items[i].root));
		strv_push(&points, xstrdup(list->items[i].control_dir));
	}
	return mounts_any_hung(points);
}

void reconcile(bool closely)
{
	cleanup_registry_list struct registry_list list = {NULL, 0};
	struct repository repo = {.here = NULL};
	/* who waits for one that hangs says nothing of the others either */
	if (registry_list(&list, NULL) || !list.count || any_hung(&list) || !find_repository(&repo)) {
		repository_release(&repo);
		return;
	}
	cleanup_free char *back = getcwd(NULL, 0); /* unmounting leaves it */
	cleanup_free char *stamp = repo.jj ? jj_stamp(repo.jj) : xstrdup("");
	cleanup_free char *path = repo.jj ? stamp_path(repo.jj) : NULL;
	bool done = !look(&repo, &list, stamp, path, closely) || look_at_each(&repo, &list);
	/* of before jj was asked: what happened meanwhile is looked at next time */
	if (done && repo.jj_asked)
		keep_stamp(path, stamp);
	if (back && chdir(back))
		output_note("Note: %s is gone", back);
	repository_release(&repo);
}
