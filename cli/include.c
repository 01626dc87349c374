#include "cli/include.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/strv.h"
#include "cli/exclude.h"
#include "cli/git.h"
#include "cli/mounting.h"
#include "cli/output.h"
#include "cli/process.h"
#include "cli/progress.h"
#include "cli/tracked.h"
#include "provisioner/env_name.h"

#define TEXT_MAX (1u << 20)  /* bytes of .worktreeinclude */
#define MARK_MAX 64          /* bytes of the note that it is done */

/* ---- which: git says ---- */

/* Below a hook of git's these lead to the worktree that is being made. */
static void forget_git_environment(void)
{
	static const char *const names[] = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX",
	                                    "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"};
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		unsetenv(names[i]);
}

static int ask_git(const struct identity *id, const char *const *words, const struct buffer *in, struct buffer *out, struct error *err)
{
	struct stat st;
	cleanup_strv char **argv = NULL;
	cleanup_buffer struct buffer said = BUFFER_INIT;
	cleanup_free char *git = xasprintf("%s/.git", id->main_root);
	/* git does not see by itself what a jj repository is that is not colocated */
	cleanup_free char *git_dir = lstat(git, &st) ? git_directory(id) : NULL;
	strv_pushf(&argv, "-C");
	strv_pushf(&argv, "%s", id->main_root);
	if (git_dir) {
		strv_pushf(&argv, "--git-dir=%s", git_dir);
		strv_pushf(&argv, "--work-tree=%s", id->main_root);
	}
	for (; *words; words++)
		strv_pushf(&argv, "%s", *words);
	int r = git_filter(argv, in, out, &said, err);
	/* check-ignore says 1 when nothing is ignored */
	if (r > 1 || (r == 1 && !in))
		r = error_set(err, ERROR_GIT_FAILED, "git: %.*s", (int)strcspn(buffer_str(&said), "\n"), buffer_str(&said));
	return r < 0 ? r : 0;
}

/* Names, each ended by NUL: what the patterns match, of that what is ignored anyway. In jj's git directory there is no index, so there
 * the first list has what is tracked as well; that stands in the workspace already. */
static int find_names(const struct identity *id, struct buffer *out, struct error *err)
{
	static const char *const matching[] = {"ls-files", "-z", "--others", "--ignored", "--exclude-from=" INCLUDE_FILE, NULL};
	static const char *const ignored[] = {"check-ignore", "-z", "--stdin", NULL};
	cleanup_buffer struct buffer names = BUFFER_INIT;
	forget_git_environment();
	int r = ask_git(id, matching, NULL, &names, err);
	if (!r && names.len)
		r = ask_git(id, ignored, &names, out, err);
	return r;
}

static bool has_component(const char *path, const char *name)
{
	size_t n = strlen(name);
	for (const char *p = path; (p = strstr(p, name)); p += n)
		if ((p == path || p[-1] == '/') && (!p[n] || p[n] == '/'))
			return true;
	return false;
}

/* What belongs to jj, git or us; a name that ends in '/' is a repository inside. */
static bool is_wanted(const struct identity *id, const char *name)
{
	size_t n = strlen(name);
	return n && name[n - 1] != '/' && strcmp(name, ENV_NAME_DEFAULT) && strcmp(name, id->env_name) && strncmp(name, ".aether", 7) && !has_component(name, ".jj") &&
	       !has_component(name, ".git");
}

/* ---- copying ---- */

struct copying {
	const struct identity *id;    /* borrowed */
	int from, to;                 /* the two roots */
	int from_dir, to_dir;         /* where the last file was; -1: nowhere yet, or it cannot be entered */
	char *dir;
	uint64_t files, bytes, existing, failed, total, started_ms, shown_ms;
	int error;                    /* the first one */
	char *error_name;
	json_t *paths;
};

static void leave(struct copying *c)
{
	if (c->from_dir >= 0)
		close(c->from_dir);
	if (c->to_dir >= 0)
		close(c->to_dir);
	c->from_dir = c->to_dir = -1;
	free(c->dir);
	c->dir = NULL;
}

/* Makes the directory like the other one. */
static int make_like(int at, const char *name, const struct stat *st)
{
	if (mkdirat(at, name, (st->st_mode & 0777) | 0700))
		return errno == EEXIST ? 0 : -errno;
	if (geteuid() == 0 && fchownat(at, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW))
		return -errno;
	return 0;
}

/* One step down in both trees, through no link. -EXDEV: a jj workspace of its own, which is somebody else's. */
static int step(struct copying *c, const char *name)
{
	struct stat st;
	cleanup_close int from = openat(c->from_dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (from < 0 || fstat(from, &st))
		return -errno;
	if (!fstatat(from, ".jj", &st, AT_SYMLINK_NOFOLLOW))
		return -EXDEV;
	int r = make_like(c->to_dir, name, &st);
	cleanup_close int to = r ? -1 : openat(c->to_dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (to < 0)
		return r ? r : -errno;
	close(c->from_dir);
	close(c->to_dir);
	c->from_dir = move_fd(&from);
	c->to_dir = move_fd(&to);
	return 0;
}

static int enter(struct copying *c, const char *dir)
{
	if (c->dir && !strcmp(c->dir, dir))
		return 0;
	leave(c);
	c->from_dir = fcntl(c->from, F_DUPFD_CLOEXEC, 3);
	c->to_dir = fcntl(c->to, F_DUPFD_CLOEXEC, 3);
	cleanup_free char *rest = xstrdup(dir);
	char *save = NULL;
	for (char *name = strtok_r(rest, "/", &save); name; name = strtok_r(NULL, "/", &save)) {
		int r = step(c, name);
		if (r) {
			leave(c);
			return r;
		}
	}
	c->dir = xstrdup(dir);
	return 0;
}

/* Under another name first: half a file must not look like one that is there. */
static int copy_one(struct copying *c, const char *name, const struct stat *st)
{
	char temporary[48];
	snprintf(temporary, sizeof temporary, ".aether-copy-%d", (int)getpid());
	int r = tree_copy(c->from_dir, name, c->to_dir, temporary, geteuid() ? (uid_t)-1 : st->st_uid,
	                  geteuid() ? (gid_t)-1 : st->st_gid);
	if (r)
		return r;
	if (renameat2(c->to_dir, temporary, c->to_dir, name, RENAME_NOREPLACE)) {
		r = -errno;
		unlinkat(c->to_dir, temporary, 0);
	}
	return r;
}

static int copy_name(struct copying *c, const char *path)
{
	struct stat st, there;
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	cleanup_free char *dir = slash ? xstrndup(path, (size_t)(slash - path)) : xstrdup("");
	int r = enter(c, dir);
	if (r)
		return r;
	if (!fstatat(c->to_dir, name, &there, AT_SYMLINK_NOFOLLOW))
		return -EEXIST;
	if (fstatat(c->from_dir, name, &st, AT_SYMLINK_NOFOLLOW))
		return -errno;
	if (!S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))
		return -EXDEV;
	r = copy_one(c, name, &st);
	if (!r)
		c->bytes += (uint64_t)st.st_size;
	return r;
}

static void show(struct copying *c)
{
	uint64_t now = now_monotonic_ms();
	if (now - c->started_ms < PROGRESS_QUIET_MS || now - c->shown_ms < 100 || !isatty(STDERR_FILENO))
		return;
	c->shown_ms = now;
	fprintf(stderr, "\r\033[Kcopying what " INCLUDE_FILE " names: %llu of %llu files",
	        (unsigned long long)(c->files + c->existing + c->failed), (unsigned long long)c->total);
}

static void note_result(struct copying *c, const char *name, int r)
{
	if (!r) {
		c->files++;
		if (json_array_size(c->paths) < INCLUDE_PATHS_MAX)
			json_array_append_new(c->paths, json_string(name));
	} else if (r == -EEXIST || r == -ENOTDIR || r == -ELOOP) { /* it, or a file or link where its directory would be */
		c->existing++;
	} else if (r != -EXDEV && r != -ENOENT) { /* somebody else's; gone meanwhile */
		if (!c->failed++) {
			c->error = -r;
			c->error_name = xstrdup(name);
		}
	}
}

/* True when it came to its end. */
static bool copy_all(struct copying *c, const struct buffer *names)
{
	const char *end = buffer_str(names) + names->len;
	for (const char *p = buffer_str(names); p < end; p += strlen(p) + 1)
		c->total += is_wanted(c->id, p);
	c->started_ms = now_monotonic_ms();
	for (const char *p = buffer_str(names); p < end && !interrupted() && c->error != ENOSPC; p += strlen(p) + 1) {
		if (is_wanted(c->id, p))
			note_result(c, p, copy_name(c, p));
		show(c);
	}
	if (c->shown_ms)
		fputs("\r\033[K", stderr);
	leave(c);
	return !interrupted() && !c->failed;
}

/* ---- the whole ---- */

/* new: of the patterns; NULL when there are none, or they were done */
static char *what_to_do(const struct identity *id)
{
	cleanup_buffer struct buffer text = BUFFER_INIT, mark = BUFFER_INIT;
	if (!id->main_root || !strcmp(id->main_root, id->root))
		return NULL;
	cleanup_free char *path = xasprintf("%s/" INCLUDE_FILE, id->main_root);
	cleanup_free char *done = xasprintf("%s/included", id->state_dir);
	if (access(path, F_OK) || file_read(AT_FDCWD, path, TEXT_MAX, &text))
		return NULL;
	cleanup_free char *hash = xasprintf("%016llx", (unsigned long long)hash_bytes(HASH_INIT, buffer_str(&text), text.len));
	if (!file_read(AT_FDCWD, done, MARK_MAX, &mark) && !strcmp(buffer_str(&mark), hash))
		return NULL;
	return move_ptr(hash);
}

static void say(const struct copying *c, const char *from)
{
	if (c->files)
		output_note("Copied %llu file%s (%llu kB) from %s, as " INCLUDE_FILE " says", (unsigned long long)c->files,
		            c->files == 1 ? "" : "s", (unsigned long long)(c->bytes + 1023) / 1024, from);
	if (c->failed)
		output_note("Warning: %llu of the files that " INCLUDE_FILE " names could not be copied, the first %s: %s",
		            (unsigned long long)c->failed, c->error_name, strerror(c->error));
}

static void include_copy(const struct identity *id, struct include *ret)
{
	cleanup_error struct error err = ERROR_INIT;
	cleanup_buffer struct buffer names = BUFFER_INIT;
	cleanup_free char *hash = what_to_do(id);
	if (!hash)
		return;
	if (find_names(id, &names, &err)) {
		output_note("Warning: what " INCLUDE_FILE " names was not copied: %s", err.message);
		return;
	}
	cleanup_close int from = open(id->main_root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_close int to = open(id->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct copying c = {.id = id, .from = from, .to = to, .from_dir = -1, .to_dir = -1, .paths = json_array()};
	if (from >= 0 && to >= 0 && copy_all(&c, &names))
		ret->hash = move_ptr(hash);
	say(&c, id->main_root);
	ret->answer = json_pack("{s:s, s:I, s:I, s:I, s:I, s:o}", "from", id->main_root, "files", (json_int_t)c.files, "bytes",
	                        (json_int_t)c.bytes, "existing", (json_int_t)c.existing, "failed", (json_int_t)c.failed, "paths",
	                        c.paths);
	free(c.error_name);
}

/* The environment's directories are there by now. */
static void settle(const struct identity *id, const struct include *done)
{
	cleanup_free char *path = xasprintf("%s/included", id->state_dir);
	if (done->hash)
		file_write_atomic(AT_FDCWD, path, done->hash, strlen(done->hash), 0600);
}

int include_and_attach(struct client *c, const char *options, bool *ret_mounted, struct include *ret, struct error *err)
{
	*ret = (struct include)INCLUDE_INIT;
	bool was_mounted = c->mounted, was_dead = c->dead;
	if (!was_dead) {
		exclude_local_file(&c->id);
		tracked_settle(c); /* the file of that name is not copied, and the mount has it from the beginning */
	}
	/* reflinks do not cross a mount's edge, and copies cost more through it */
	if (!was_mounted)
		include_copy(&c->id, ret);
	int r = mounting_attach(c, options, ret_mounted, err);
	if (!r && (was_dead || c->native)) /* without an overlay more counts (cli/tracked.h) */
		tracked_settle(c);
	if (!r && was_mounted)
		include_copy(&c->id, ret);
	if (!r)
		settle(&c->id, ret);
	return r;
}

void include_release(struct include *done)
{
	free(done->hash);
	json_decref(done->answer);
	*done = (struct include)INCLUDE_INIT;
}
