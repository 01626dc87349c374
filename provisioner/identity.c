#include "provisioner/identity.h"

#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hash.h"
#include "provisioner/env_name.h"

#define LINK_FILE_MAX 65536 /* bytes of .jj/repo, .git, commondir, .jj/working_copy/checkout */
#define NAME_MAX_REDUCED 40
#define SOCKET_PATH_MAX 107 /* sun_path without its NUL, unix(7) */
/* A service has a directory of its own in there, of at most 20 bytes, and Postgres' socket is the longest we know. */
#define SOCKET_TAIL "/01234567890123456789/.s.PGSQL.65535"

/* ---- paths ---- */

/* new: `relative` as seen from the directory `base` (absolute), "." and ".." taken out by text alone. By text, because
 * a look-up would go through `base`, which may lie under a mount that waits for us. */
static char *path_join(const char *base, const char *relative)
{
	cleanup_free char *whole = relative[0] == '/' ? xstrdup(relative) : xasprintf("%s/%s", base, relative);
	cleanup_buffer struct buffer out = BUFFER_INIT;
	for (const char *p = whole; *p;) {
		size_t n = strcspn(p, "/");
		if (n == 2 && !memcmp(p, "..", 2)) {
			char *slash = out.len ? strrchr(out.data, '/') : NULL;
			out.len = slash ? (size_t)(slash - out.data) : 0;
			if (slash)
				*slash = '\0';
		} else if (n && !(n == 1 && *p == '.')) {
			buffer_addc(&out, '/');
			buffer_add(&out, p, n);
		}
		p += n + (p[n] == '/');
	}
	return out.len ? buffer_detach(&out) : xstrdup("/");
}

/* new: without links where it can be reached, else as the text says: a repository that is away for a while keeps its
 * identity. */
static char *path_canonical(const char *path)
{
	char *real = realpath(path, NULL);
	return real ? real : xstrdup(path);
}

static const char *path_base(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

/* new: the directory above; "/" is its own. */
static char *path_parent(const char *path)
{
	const char *slash = strrchr(path, '/');
	return !slash || slash == path ? xstrdup("/") : xstrndup(path, (size_t)(slash - path));
}

/* new: the file's text without white space at its end; NULL when it is missing, empty or no file. */
static char *read_line_file(int dirfd, const char *path)
{
	cleanup_buffer struct buffer b = BUFFER_INIT;
	if (file_read(dirfd, path, LINK_FILE_MAX, &b) || memchr(buffer_str(&b), '\0', b.len))
		return NULL;
	while (b.len && strchr("\r\n \t", b.data[b.len - 1]))
		b.data[--b.len] = '\0';
	return b.len ? buffer_detach(&b) : NULL;
}

/* ---- jj ---- */

static bool varint(const unsigned char **p, const unsigned char *end, uint64_t *ret)
{
	uint64_t v = 0;
	for (unsigned shift = 0; *p < end && shift < 64; shift += 7) {
		unsigned char byte = *(*p)++;
		v |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80)) {
			*ret = v;
			return true;
		}
	}
	return false;
}

/* The workspace's name in `.jj/working_copy/checkout`, a protobuf message (lib/src/protos/local_working_copy.proto:
 * Checkout {bytes operation_id = 2; string workspace_name = 3}). new; NULL when it is not there: older versions of jj
 * left it out for "default", and the format is theirs to change. */
static char *checkout_workspace_name(const struct buffer *message)
{
	const unsigned char *p = (const unsigned char *)buffer_str(message), *end = p + message->len;
	uint64_t tag, length;
	while (p < end && varint(&p, end, &tag)) {
		if ((tag & 7) == 0) {
			if (!varint(&p, end, &length))
				return NULL;
			continue;
		}
		if ((tag & 7) != 2 || !varint(&p, end, &length) || length > (uint64_t)(end - p))
			return NULL;
		if (tag >> 3 == 3)
			return length && !memchr(p, '\0', (size_t)length) ? xstrndup((const char *)p, (size_t)length) : NULL;
		p += length;
	}
	return NULL;
}

static bool find_jj(int root_fd, struct identity *id)
{
	struct stat st;
	if (fstatat(root_fd, ".jj/repo", &st, 0))
		return false;
	cleanup_free char *jj = path_join(id->root, ".jj");
	if (S_ISDIR(st.st_mode)) {
		id->repository = path_join(jj, "repo");
		id->main_root = xstrdup(id->root);
	} else {
		cleanup_free char *target = read_line_file(root_fd, ".jj/repo");
		if (!target)
			return false;
		cleanup_free char *joined = path_join(jj, target);
		id->repository = path_canonical(joined);
		cleanup_free char *above = path_parent(id->repository);
		if (!strcmp(path_base(above), ".jj"))
			id->main_root = path_parent(above);
	}
	id->kind = WORKSPACE_JJ;
	cleanup_buffer struct buffer checkout = BUFFER_INIT;
	if (!id->workspace && !file_read(root_fd, ".jj/working_copy/checkout", LINK_FILE_MAX, &checkout))
		id->workspace = checkout_workspace_name(&checkout);
	return true;
}

/* ---- git ---- */

/* `.git` is a directory, or a link to one, or a file "gitdir: PATH"; a linked worktree's directory has a file
 * `commondir` (gitrepository-layout(5)). */
static bool find_git(int root_fd, struct identity *id)
{
	struct stat st;
	if (fstatat(root_fd, ".git", &st, AT_SYMLINK_NOFOLLOW))
		return false;
	char link[PATH_MAX];
	ssize_t n = S_ISLNK(st.st_mode) ? readlinkat(root_fd, ".git", link, sizeof link - 1) : 0;
	if (n < 0)
		return false;
	link[n] = '\0';
	cleanup_free char *line = S_ISREG(st.st_mode) ? read_line_file(root_fd, ".git") : NULL;
	const char *named = ".git";
	if (S_ISREG(st.st_mode)) {
		if (!line || strncmp(line, "gitdir:", 7))
			return false;
		named = line + 7 + strspn(line + 7, " \t");
	} else if (n) {
		named = link;
	} else if (!S_ISDIR(st.st_mode)) {
		return false;
	}
	id->kind = WORKSPACE_GIT;
	cleanup_free char *git_dir = path_join(id->root, named);
	if (S_ISDIR(st.st_mode)) {
		id->repository = move_ptr(git_dir);
		id->main_root = xstrdup(id->root);
		return true;
	}
	cleanup_free char *commondir_file = path_join(git_dir, "commondir");
	cleanup_free char *commondir = read_line_file(AT_FDCWD, commondir_file);
	cleanup_free char *common = path_join(git_dir, commondir ? commondir : ".");
	id->repository = path_canonical(common);
	if (!commondir)
		id->main_root = xstrdup(id->root); /* a submodule, or `git init --separate-git-dir` */
	else if (!strcmp(path_base(id->repository), ".git"))
		id->main_root = path_parent(id->repository);
	return true;
}

/* ---- directories ---- */

/* new: the variable's value when it is an absolute path, else NULL. */
static char *absolute_from_environment(const char *variable)
{
	const char *value = getenv(variable);
	return value && value[0] == '/' ? path_join("/", value) : NULL;
}

/* 1 with *ret when one of our own variables says where; they are an error when they are relative, because two programs
 * in two directories would not find each other. */
static int explicit_directory(const char *variable, char **ret, struct error *err)
{
	const char *value = getenv(variable);
	if (!value || !*value)
		return 0;
	if (value[0] != '/')
		return error_set(err, ERROR_USAGE, "%s is no absolute path: %s", variable, value);
	*ret = path_join("/", value);
	return 1;
}

static bool is_own_directory(const char *path)
{
	struct stat st;
	return !stat(path, &st) && S_ISDIR(st.st_mode) && st.st_uid == geteuid();
}

static char *fallback_runtime_dir(void)
{
	return xasprintf("/tmp/aether-%u", (unsigned)geteuid());
}

int identity_runtime_dir(char **ret, struct error *err)
{
	int r = explicit_directory("AETHER_RUNTIME_DIR", ret, err);
	if (r)
		return r < 0 ? r : 0;
	if (geteuid() == 0) {
		*ret = xstrdup("/run/aether");
		return 0;
	}
	/* `su` and `sudo -u` leave the variable of another user behind, cron none */
	cleanup_free char *xdg = absolute_from_environment("XDG_RUNTIME_DIR");
	*ret = xdg && is_own_directory(xdg) ? path_join(xdg, "aether") : fallback_runtime_dir();
	return 0;
}

int identity_shared_dir(char **ret, struct error *err)
{
	int r = explicit_directory("AETHER_STATE_DIR", ret, err);
	if (r)
		return r < 0 ? r : 0;
	if (geteuid() == 0) {
		*ret = xstrdup("/var/lib/aether");
		return 0;
	}
	cleanup_free char *xdg = absolute_from_environment("XDG_STATE_HOME");
	if (xdg) {
		*ret = path_join(xdg, "aether");
		return 0;
	}
	cleanup_free char *home = absolute_from_environment("HOME");
	if (!home) {
		const struct passwd *pw = getpwuid(geteuid());
		if (!pw || pw->pw_dir[0] != '/') {
			r = error_set(err, ERROR_PERMISSION, "this user has no home directory to keep state in");
			error_hint(err, "set AETHER_STATE_DIR to a directory of this user");
			return r;
		}
		home = xstrdup(pw->pw_dir);
	}
	*ret = path_join(home, ".local/state/aether");
	return 0;
}

/* ---- the whole ---- */

/* new: [a-z0-9-] of the name, other runs as one '-', none at the ends. */
static char *reduce_name(const char *name)
{
	cleanup_buffer struct buffer out = BUFFER_INIT;
	for (const char *p = name; *p && out.len < NAME_MAX_REDUCED; p++) {
		char c = *p >= 'A' && *p <= 'Z' ? (char)(*p - 'A' + 'a') : *p;
		if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))
			buffer_addc(&out, c);
		else if (out.len && out.data[out.len - 1] != '-')
			buffer_addc(&out, '-');
	}
	while (out.len && out.data[out.len - 1] == '-')
		out.data[--out.len] = '\0';
	return out.len ? buffer_detach(&out) : xstrdup("workspace");
}

static uint32_t fold(uint64_t hash)
{
	return (uint32_t)(hash ^ hash >> 32);
}

/* In the runtime directory, or where that is too deep for a socket's path, below the short fallback. */
static char *choose_socket_dir(const struct identity *id)
{
	uint64_t hash = hash_str(HASH_INIT, id->namespace_);
	char *dir = xasprintf("%s/s-%08x", id->runtime_dir, fold(hash));
	if (strlen(dir) + strlen(SOCKET_TAIL) <= SOCKET_PATH_MAX)
		return dir;
	free(dir);
	cleanup_free char *base = fallback_runtime_dir();
	return xasprintf("%s/s-%08x", base, fold(hash_str(hash, id->runtime_dir)));
}

/* Fills in what follows from the namespace. */
static int add_directories(struct identity *id, struct error *err)
{
	int r = identity_runtime_dir(&id->runtime_dir, err);
	if (!r)
		r = identity_shared_dir(&id->shared_dir, err);
	if (r)
		return r;
	id->env_name = env_name_read(id->shared_dir, id->repository, NULL);
	id->control_dir = xasprintf("%s/%s", id->runtime_dir, id->namespace_);
	id->socket_dir = choose_socket_dir(id);
	id->state_dir = xasprintf("%s/ns/%s", id->shared_dir, id->namespace_);
	return 0;
}

char *identity_namespace(const struct identity *id, unsigned salt)
{
	cleanup_free char *name = reduce_name(id->workspace);
	uint64_t hash = hash_str(hash_str(HASH_INIT, id->repository), id->root);
	if (salt)
		hash = hash_bytes(hash, &salt, sizeof salt);
	return xasprintf("aether-%08x-%s", fold(hash), name);
}

char *identity_root_id(int dirfd, const char *path)
{
	struct statx st;
	int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | (*path ? 0 : AT_EMPTY_PATH);
	if (statx(dirfd, path, flags, STATX_INO | STATX_BTIME, &st) || !(st.stx_mask & STATX_BTIME))
		return NULL;
	return xasprintf("%llu:%lld.%09u", (unsigned long long)st.stx_ino, (long long)st.stx_btime.tv_sec, st.stx_btime.tv_nsec);
}

/* What can be told without the registry. */
static void look_at(int root_fd, const char *root, const char *workspace, struct identity *id)
{
	*id = (struct identity){.kind = WORKSPACE_PLAIN, .root = xstrdup(root), .root_id = identity_root_id(root_fd, "")};
	id->workspace = workspace && *workspace ? xstrdup(workspace) : NULL;
	if (!find_jj(root_fd, id) && !find_git(root_fd, id)) {
		id->repository = xstrdup(root);
		id->main_root = xstrdup(root);
	}
	if (!id->workspace)
		id->workspace = xstrdup(*path_base(root) ? path_base(root) : "root");
}

int identity_stored(const char *namespace_, const char *root, const char *repository, const char *workspace, struct identity *ret,
                    struct error *err)
{
	struct identity id = {.kind = WORKSPACE_PLAIN, .root = xstrdup(root), .repository = xstrdup(repository),
	                      .workspace = xstrdup(workspace), .namespace_ = xstrdup(namespace_)};
	int r = add_directories(&id, err);
	if (r) {
		identity_release(&id);
		return r;
	}
	*ret = id;
	return 0;
}

int identity_of_fd(int root_fd, const char *root, const char *workspace, const char *namespace_, struct identity *ret,
                   struct error *err)
{
	struct identity id;
	look_at(root_fd, root, workspace, &id);
	id.namespace_ = namespace_ ? xstrdup(namespace_) : identity_namespace(&id, 0);
	int r = add_directories(&id, err);
	if (r) {
		identity_release(&id);
		return r;
	}
	*ret = id;
	return 0;
}

int identity_of(const char *path, const char *workspace, struct identity *ret, struct error *err)
{
	cleanup_free char *root = realpath(path, NULL);
	if (!root)
		return error_set_errno(err, ERROR_WORKSPACE_NOT_FOUND, errno, "%s", path);
	cleanup_close int fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return error_set_errno(err, ERROR_WORKSPACE_NOT_FOUND, errno, "%s", path);
	struct identity id;
	look_at(fd, root, workspace, &id);
	int r = identity_registered(&id, &id.namespace_, err);
	if (!r)
		r = add_directories(&id, err);
	if (r) {
		identity_release(&id);
		return r;
	}
	*ret = id;
	return 0;
}

int identity_find_root(const char *path, char **ret_root, struct error *err)
{
	cleanup_free char *dir = realpath(path, NULL);
	if (!dir)
		return error_set_errno(err, ERROR_WORKSPACE_NOT_FOUND, errno, "%s", path);
	for (;;) {
		cleanup_free char *jj = path_join(dir, ".jj");
		cleanup_free char *git = path_join(dir, ".git");
		struct stat st;
		if (!lstat(jj, &st) || !lstat(git, &st)) {
			*ret_root = move_ptr(dir);
			return 0;
		}
		if (!strcmp(dir, "/"))
			break;
		char *above = path_parent(dir);
		free(dir);
		dir = above;
	}
	int r = error_set(err, ERROR_NOT_A_REPOSITORY, "%s is in no jj or git workspace", path);
	error_hint(err, "jj git init, or name a workspace's directory");
	return r;
}

/* ---- making them ---- */

/* Services of root's environments run under other users, who must get through to what is theirs; a user's are the
 * user's. */
static mode_t passable_mode(void)
{
	return geteuid() == 0 ? 0711 : 0700;
}

/* Is the open directory ours, and closed to writing by others? A directory that the user named may have any mode else.
 */
static int check_directory(int fd, const char *path, bool made, bool explicit_, struct error *err)
{
	struct stat st;
	if (fstat(fd, &st))
		return error_set_errno(err, ERROR_PERMISSION, errno, "%s", path);
	if (st.st_uid != geteuid()) {
		int r = error_set(err, ERROR_PERMISSION, "%s belongs to user %u", path, (unsigned)st.st_uid);
		error_hint(err, "remove it, or set AETHER_RUNTIME_DIR and AETHER_STATE_DIR to directories of your own");
		return r;
	}
	mode_t mode = st.st_mode & 07777, wanted = passable_mode();
	if (explicit_ && !made) {
		if (mode & S_IWOTH) {
			int r = error_set(err, ERROR_PERMISSION, "everybody may write to %s", path);
			error_hint(err, "chmod go-w %s", path);
			return r;
		}
		wanted |= mode;
	}
	if (mode != wanted && fchmod(fd, wanted))
		return error_set_errno(err, ERROR_PERMISSION, errno, "chmod %s", path);
	return 0;
}

/* `open_flags` is O_NOFOLLOW where a link is refused. */
static int make_directory(const char *path, bool explicit_, int open_flags, struct error *err)
{
	cleanup_free char *parent = path_parent(path);
	int r = dir_make(AT_FDCWD, parent, 0755);
	bool made = !r && !mkdir(path, 0700);
	if (!r && !made && errno != EEXIST)
		r = -errno;
	if (r)
		return error_set_errno(err, r == -ENOSPC ? ERROR_NO_SPACE : ERROR_PERMISSION, -r, "mkdir %s", path);
	cleanup_close int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | open_flags);
	if (fd < 0 && (errno == ELOOP || errno == ENOTDIR)) {
		r = error_set(err, ERROR_PERMISSION, "%s is no directory, or a link", path);
		error_hint(err, "remove it");
		return r;
	}
	if (fd < 0)
		return error_set_errno(err, ERROR_PERMISSION, errno, "open %s", path);
	return check_directory(fd, path, made, explicit_, err);
}

/* A mount point: it is not opened, because a file system that hangs may cover it; the directory above is ours alone. */
static int make_mount_point(const char *path, struct error *err)
{
	if (mkdir(path, 0700) && errno != EEXIST)
		return error_set_errno(err, errno == ENOSPC ? ERROR_NO_SPACE : ERROR_PERMISSION, errno, "mkdir %s", path);
	return 0;
}

static bool is_set(const char *variable)
{
	const char *value = getenv(variable);
	return value && *value;
}

int identity_make_dirs(const struct identity *id, struct error *err)
{
	cleanup_free char *sockets_parent = path_parent(id->socket_dir);
	cleanup_free char *namespaces = path_parent(id->state_dir);
	bool explicit_runtime = is_set("AETHER_RUNTIME_DIR"), explicit_state = is_set("AETHER_STATE_DIR");
	int r = make_directory(id->runtime_dir, explicit_runtime, O_NOFOLLOW, err);
	if (!r && strcmp(sockets_parent, id->runtime_dir))
		r = make_directory(sockets_parent, false, O_NOFOLLOW, err);
	if (!r)
		r = make_mount_point(id->control_dir, err);
	if (!r)
		r = make_directory(id->socket_dir, false, O_NOFOLLOW, err);
	if (!r) /* may be a link: people put their state on a larger disk */
		r = make_directory(id->shared_dir, explicit_state, 0, err);
	if (!r)
		r = make_directory(namespaces, false, O_NOFOLLOW, err);
	if (!r)
		r = make_directory(id->state_dir, false, O_NOFOLLOW, err);
	return r;
}

void identity_release(struct identity *id)
{
	free(id->root);
	free(id->repository);
	free(id->main_root);
	free(id->workspace);
	free(id->namespace_);
	free(id->root_id);
	free(id->runtime_dir);
	free(id->control_dir);
	free(id->socket_dir);
	free(id->state_dir);
	free(id->shared_dir);
	*id = (struct identity){0};
}

const char *identity_own_name(const struct identity *id)
{
	return id->native ? env_name_own(id->env_name) : id->env_name;
}
