#include "cli/git.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/program.h"
#include "base/strv.h"
#include "cli/jj.h"
#include "cli/output.h"
#include "cli/process.h"

#define LINE_FILE_MAX 65536 /* bytes of HEAD, gitdir */
#define LOOSE_REFS_MAX 500  /* beyond, asking git costs little more than looking */

/* ---- what there is ---- */

/* `*ret` new: a file's text without the end of its last line. A path in it may hold line ends of its own. */
static int read_text(const char *directory, const char *name, char **ret)
{
	cleanup_free char *path = xasprintf("%s/%s", directory, name);
	cleanup_buffer struct buffer text = BUFFER_INIT;
	int r = file_read(AT_FDCWD, path, LINE_FILE_MAX, &text);
	if (r)
		return r;
	size_t len = text.len;
	while (len && strchr("\r\n", text.data[len - 1]))
		len--;
	*ret = xstrndup(buffer_str(&text), len);
	return 0;
}

/* new; NULL when there is none */
static char *read_line(const char *directory, const char *name)
{
	char *text = NULL;
	read_text(directory, name, &text);
	return text;
}

static void read_head(const char *git_dir, struct git_worktree *ret)
{
	static const char prefix[] = "ref: refs/heads/";
	cleanup_free char *head = read_line(git_dir, "HEAD");
	if (head && !strncmp(head, prefix, sizeof prefix - 1)) {
		const char *name = head + sizeof prefix - 1;
		ret->branch = strcmp(name, ".invalid") ? xstrdup(name) : NULL; /* reftable keeps the real one elsewhere */
	} else if (head && strncmp(head, "ref:", 4)) {
		ret->commit = move_ptr(head);
	}
}

/* new: the worktree that `gitdir` names, without links as far as it is there: its path is what the registry is asked with. */
static char *worktree_path(const char *admin, const char *gitdir)
{
	cleanup_free char *whole = gitdir[0] == '/' ? xstrdup(gitdir) : xasprintf("%s/%s", admin, gitdir);
	char *slash = strrchr(whole, '/');
	if (!slash || strcmp(slash, "/.git"))
		return NULL;
	*slash = '\0';
	char *real = realpath(whole, NULL);
	return real ? real : move_ptr(whole);
}

static void add(struct git_worktrees *list, struct git_worktree w)
{
	array_grow(list->items, list->count);
	list->items[list->count++] = w;
}

static void read_entry(const char *worktrees, const char *id, struct git_worktrees *ret)
{
	struct stat st;
	cleanup_free char *admin = xasprintf("%s/%s", worktrees, id);
	cleanup_free char *gitdir = read_line(admin, "gitdir");
	cleanup_free char *locked = xasprintf("%s/locked", admin);
	cleanup_free char *path = gitdir ? worktree_path(admin, gitdir) : NULL;
	if (!path)
		return;
	struct git_worktree w = {.id = xstrdup(id), .path = move_ptr(path), .locked = !stat(locked, &st)};
	read_head(admin, &w);
	add(ret, w);
}

int git_worktrees_read(const char *common, const char *main_root, struct git_worktrees *ret)
{
	*ret = (struct git_worktrees)GIT_WORKTREES_INIT;
	cleanup_free char *head = read_line(common, "HEAD");
	if (!head)
		return -ENOENT;
	if (main_root) {
		struct git_worktree w = {.path = xstrdup(main_root)};
		read_head(common, &w);
		add(ret, w);
	}
	cleanup_free char *worktrees = xasprintf("%s/worktrees", common);
	struct dirent **names = NULL;
	int n = scandir(worktrees, &names, NULL, alphasort);
	int r = n < 0 && errno != ENOENT ? -errno : 0;
	for (int i = 0; i < n; i++) {
		if (names[i]->d_name[0] != '.')
			read_entry(worktrees, names[i]->d_name, ret);
		free(names[i]);
	}
	free(names);
	return r;
}

const struct git_worktree *git_worktrees_at(const struct git_worktrees *list, const char *path)
{
	for (size_t i = 0; i < list->count; i++)
		if (!strcmp(list->items[i].path, path))
			return &list->items[i];
	return NULL;
}

void git_worktrees_release(struct git_worktrees *list)
{
	for (size_t i = 0; i < list->count; i++) {
		free(list->items[i].id);
		free(list->items[i].path);
		free(list->items[i].branch);
		free(list->items[i].commit);
	}
	free(list->items);
	*list = (struct git_worktrees)GIT_WORKTREES_INIT;
}

/* ---- where the branches stand (gitrepository-layout(5), gitformat-reftable(5)) ---- */

struct walk {
	uint64_t hash;
	unsigned left; /* files that may still be read */
	bool failed;
};

static void hash_refs(struct walk *w, const char *path);

static void hash_ref(struct walk *w, const char *path)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	int r = w->left ? file_read(AT_FDCWD, path, LINE_FILE_MAX, &text) : -EFBIG;
	w->left -= w->left > 0;
	if (r == -EISDIR)
		hash_refs(w, path);
	else if (r && r != -ENOENT)
		w->failed = true;
	w->hash = hash_str(hash_str(w->hash, path), buffer_str(&text));
}

static void hash_refs(struct walk *w, const char *path)
{
	struct dirent **names = NULL;
	int n = scandir(path, &names, NULL, alphasort);
	w->failed = w->failed || (n < 0 && errno != ENOENT);
	for (int i = 0; i < n; i++) {
		cleanup_free char *one = xasprintf("%s/%s", path, names[i]->d_name);
		if (names[i]->d_name[0] != '.' && !w->failed)
			hash_ref(w, one);
		free(names[i]);
	}
	free(names);
}

bool git_refs_fingerprint(const char *common, const struct git_worktrees *list, uint64_t *ret)
{
	static const char *const places[] = {"reftable/tables.list", "refs/heads", "refs/remotes"};
	struct walk w = {HASH_INIT, LOOSE_REFS_MAX, false};
	struct stat st = {0};
	cleanup_free char *packed = xasprintf("%s/packed-refs", common); /* always replaced, never written in place */
	if (stat(packed, &st) && errno != ENOENT)
		return false;
	const uint64_t what[] = {st.st_ino, (uint64_t)st.st_size, (uint64_t)st.st_mtim.tv_sec, (uint64_t)st.st_mtim.tv_nsec};
	w.hash = hash_bytes(w.hash, what, sizeof what);
	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		cleanup_free char *place = xasprintf("%s/%s", common, places[i]);
		hash_ref(&w, place);
	}
	for (size_t i = 0; i < list->count; i++)
		w.hash = hash_str(w.hash, list->items[i].commit ? list->items[i].commit : "");
	*ret = w.hash;
	return !w.failed;
}

/* ---- whose is a directory's `.git` file? ---- */

/* `*ret` new: what it leads to, without links. -ENOENT: nothing; any other: that is not known. */
static int linked_directory(const char *directory, char **ret)
{
	static const char prefix[] = "gitdir: ";
	cleanup_free char *line = NULL;
	int r = read_text(directory, ".git", &line);
	if (!r && strncmp(line, prefix, sizeof prefix - 1))
		r = -ENOENT;
	if (r)
		return r == -ENOTDIR ? -ENOENT : r;
	const char *named = line + sizeof prefix - 1;
	cleanup_free char *whole = named[0] == '/' ? xstrdup(named) : xasprintf("%s/%s", directory, named);
	*ret = realpath(whole, NULL);
	return *ret ? 0 : errno == ENOTDIR ? -ENOENT : -errno;
}

static bool is_same_directory(const char *a, const char *b)
{
	struct stat first, second;
	return !strcmp(a, b) || (!stat(a, &first) && !stat(b, &second) && first.st_dev == second.st_dev && first.st_ino == second.st_ino);
}

static bool leads_to(const char *directory, const char *target)
{
	cleanup_free char *found = NULL;
	return !linked_directory(directory, &found) && !strcmp(found, target);
}

enum git_claim git_worktree_claim(const char *common, const char *root, char **ret_path)
{
	cleanup_free char *admin = NULL, *gitdir = NULL, *real = realpath(common, NULL);
	int r = linked_directory(root, &admin);
	if (r == -EISDIR || (!r && real && !strcmp(admin, real)))
		return GIT_CLAIM_OWN;
	if (!r)
		r = read_text(admin, "gitdir", &gitdir);
	cleanup_free char *path = r ? NULL : worktree_path(admin, gitdir);
	if (!path)
		return (r == 0 || r == -ENOENT) && real ? GIT_CLAIM_NONE : GIT_CLAIM_UNKNOWN;
	if (is_same_directory(path, root))
		return GIT_CLAIM_OWN;
	enum git_claim claim = leads_to(path, admin) ? GIT_CLAIM_OTHERS : GIT_CLAIM_MOVED;
	if (ret_path)
		*ret_path = move_ptr(path);
	return claim;
}

static bool has_jj(const char *directory)
{
	struct stat st;
	cleanup_free char *path = xasprintf("%s/.jj", directory);
	return !stat(path, &st);
}

/* A git worktree of a colocated repository that stands inside a jj workspace is in jj's; a git repository that merely stands
 * there is its own. */
bool git_alone(const char *directory, struct identity *ret)
{
	cleanup_free char *root = NULL, *jj = NULL;
	if (identity_find_root(directory ? directory : ".", &root, NULL) || has_jj(root) || identity_of(root, NULL, ret, NULL))
		return false;
	bool in_jj = ret->main_root && has_jj(ret->main_root) && !jj_root(root, &jj, NULL);
	if (ret->kind == WORKSPACE_GIT && !in_jj)
		return true;
	identity_release(ret);
	return false;
}

/* ---- running git ---- */

static int find(char **ret, struct error *err)
{
	*ret = program_in_path("git", getenv("PATH"));
	if (*ret)
		return 0;
	error_set(err, ERROR_PROGRAM_NOT_FOUND, "git is not in PATH");
	error_hint(err, "install the package git");
	return -error_code_errno(ERROR_PROGRAM_NOT_FOUND);
}

/* new array, borrowed elements */
static char **command_line(char *const *argv)
{
	static char name[] = "git";
	size_t n = strv_len(argv);
	char **line = xcalloc(n + 2, sizeof *line);
	line[0] = name;
	for (size_t i = 0; i < n; i++)
		line[i + 1] = argv[i];
	return line;
}

static int failed(char *const *argv, int code, const struct buffer *said, struct error *err)
{
	const char *text = buffer_str(said), *fatal = strstr(text, "fatal: ");
	const char *message = fatal ? fatal + 7 : text;
	int n = (int)strcspn(message, "\n");
	error_set(err, ERROR_GIT_FAILED, "git %s: %.*s", argv[0] ? argv[0] : "", n ? n : 20, n ? message : "failed without a word");
	error_detail(err, "exit_code", json_integer(code));
	error_detail(err, "stderr", json_string(text));
	return -error_code_errno(ERROR_GIT_FAILED);
}

int git_filter(char *const *argv, const struct buffer *in, struct buffer *out, struct buffer *said, struct error *err)
{
	cleanup_free char *path = NULL;
	cleanup_free char **line = command_line(argv);
	cleanup_close int input = -1;
	int r = find(&path, err);
	if (r)
		return r;
	if (in) {
		input = memfd_create("input", MFD_CLOEXEC);
		if (input < 0 || write_all(input, buffer_str(in), in->len) || lseek(input, 0, SEEK_SET))
			return error_set_errno(err, ERROR_INTERNAL, errno, "cannot hold the input of git");
	}
	output_flush();
	struct process p = {.program = path, .argv = line, .in = in ? input : 0, .out = out, .err = said, .out_to_err = true};
	return process_run(&p, err);
}

int git_run(char *const *argv, struct error *err)
{
	cleanup_buffer struct buffer said = BUFFER_INIT;
	int r = git_filter(argv, NULL, NULL, output_is_json() ? &said : NULL, err);
	return r > 0 && output_is_json() ? failed(argv, r, &said, err) : r;
}

/* ---- forgetting ---- */

int git_worktree_forget(const char *common, const struct git_worktree *w, struct error *err)
{
	cleanup_free char *worktrees = xasprintf("%s/worktrees", common);
	cleanup_free char *admin = xasprintf("%s/%s", worktrees, w->id);
	cleanup_free char *link = xasprintf("%s/.git", w->path);
	cleanup_free char *real = realpath(admin, NULL);
	/* only the file that leads to this entry: another worktree may stand there meanwhile */
	if (real && leads_to(w->path, real) && unlink(link) && errno != ENOENT)
		return error_set_errno(err, ERROR_GIT_FAILED, errno, "%s", link);
	int r = tree_remove(AT_FDCWD, admin);
	if (r)
		return error_set_errno(err, ERROR_GIT_FAILED, -r, "%s", admin);
	rmdir(worktrees); /* git takes it away with the last one, too */
	return 0;
}
