#include "provisioner/native.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "provisioner/env_name.h"
#include "provisioner/envfile.h"
#include "provisioner/exclude.h"
#include "provisioner/layers.h"

#define AREA "native"
#define MARK NATIVE_DIRECTORY "/.placed"
#define MARK_TEXT "made by aetherfs, removed by it: %llu\n"
#define MARK_MAX 256
#define ENV_LINK NATIVE_DIRECTORY "/env"

static bool exists(int root_fd, const char *name)
{
	struct stat st;
	return !fstatat(root_fd, name, &st, AT_SYMLINK_NOFOLLOW);
}

static int failed(int r, const char *name, struct error *err)
{
	return error_set_errno(err, r == -ENOSPC ? ERROR_NO_SPACE : ERROR_MOUNT_FAILED, -r, "%s", name);
}

/* ---- what is there ---- */

/* RUNTIME/NAMESPACE, whichever RUNTIME it was. */
static bool is_our_target(const char *target)
{
	const char *slash = strrchr(target, '/');
	return target[0] == '/' && slash && !strncmp(slash + 1, "aether-", 7);
}

/* A commit may bring a directory of this name, with whatever in it, but not with its own inode number, and git and jj make it as open as the umask has it.
 * A copy does not keep the number either, but ours is closed to others, and that it does keep. Where root unpacks it, it may be another user's. */
static enum native_kind find_directory(int root_fd)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	struct stat st;
	if (fstatat(root_fd, NATIVE_DIRECTORY, &st, AT_SYMLINK_NOFOLLOW) || !S_ISDIR(st.st_mode) || file_read(root_fd, MARK, MARK_MAX, &text))
		return NATIVE_NONE;
	cleanup_free char *mark = xasprintf(MARK_TEXT, (unsigned long long)st.st_ino);
	if (st.st_uid == geteuid() && !strcmp(buffer_str(&text), mark))
		return NATIVE_PLAIN;
	bool may_be_ours = (st.st_uid == geteuid() || geteuid() == 0) && !(st.st_mode & 077);
	return may_be_ours && !strncmp(buffer_str(&text), MARK_TEXT, strcspn(MARK_TEXT, "%")) ? NATIVE_COPY : NATIVE_NONE;
}

enum native_kind native_find(int root_fd)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(root_fd, NATIVE_DIRECTORY, target, sizeof target - 1);
	if (n > 0) {
		target[n] = '\0';
		return is_our_target(target) ? NATIVE_LINKS : NATIVE_NONE;
	}
	return find_directory(root_fd);
}

enum native_kind native_find_at(const char *root)
{
	cleanup_close int fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? NATIVE_NONE : native_find(fd);
}

bool native_env_is_ours(const struct identity *id, int root_fd)
{
	return layers_is_copied_link(root_fd, id->env_name);
}

/* ---- taking away ---- */

bool native_own_is_newer(int root_fd, const char *name, const char *own)
{
	struct stat st, st_own;
	if (fstatat(root_fd, name, &st, AT_SYMLINK_NOFOLLOW) || fstatat(root_fd, own, &st_own, 0))
		return false;
	return st_own.st_mtim.tv_sec != st.st_mtim.tv_sec ? st_own.st_mtim.tv_sec > st.st_mtim.tv_sec
	                                                 : st_own.st_mtim.tv_nsec > st.st_mtim.tv_nsec;
}

/* What was written into a plain `.env` since it was made, where there is nobody to take it in: those are the user's lines now. The file that rests
 * stays the very same otherwise. */
static int take_lines(int root_fd, const char *name, const char *own)
{
	cleanup_buffer struct buffer text = BUFFER_INIT, lines = BUFFER_INIT, rests = BUFFER_INIT, same = BUFFER_INIT;
	bool changed;
	int r = file_read(root_fd, name, ENVFILE_MAX, &text);
	if (r || !strstr(buffer_str(&text), ENVFILE_BEGIN))
		return r;
	envfile_user_part(buffer_str(&text), NULL, &lines, &changed);
	layers_text_at("", root_fd, own, &rests);
	envfile_user_part(buffer_str(&rests), NULL, &same, &changed);
	if (native_own_is_newer(root_fd, name, own) || !strcmp(buffer_str(&lines), buffer_str(&same)))
		return unlinkat(root_fd, name, 0) ? -errno : 0;
	r = file_write_atomic(root_fd, name, buffer_str(&lines), lines.len, 0600);
	return r ? r : unlinkat(root_fd, own, 0) && errno != ENOENT ? -errno : 0;
}

/* One name: ours goes, and what rests comes back. A file of the user's that has taken the name since is the newer one, and stays. */
static int take_away_env(int root_fd, const char *name, bool plain, struct error *err)
{
	const char *own = env_name_own(name);
	struct stat st;
	int r = 0;
	if (layers_is_copied_link(root_fd, name))
		r = unlinkat(root_fd, name, 0) ? -errno : 0;
	else if (plain && !fstatat(root_fd, name, &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode))
		r = take_lines(root_fd, name, own);
	if (!r && exists(root_fd, own))
		r = exists(root_fd, name) ? unlinkat(root_fd, own, 0) : renameat(root_fd, own, root_fd, name);
	return r ? failed(r == -1 ? -errno : r, name, err) : 0;
}

int native_take_away(int root_fd, struct error *err)
{
	enum native_kind kind = native_find(root_fd);
	bool plain = kind == NATIVE_PLAIN || kind == NATIVE_COPY;
	int r = 0;
	for (size_t i = 0; env_names[i]; i++)
		if (kind != NATIVE_NONE || layers_is_copied_link(root_fd, env_names[i]))
			r = take_away_env(root_fd, env_names[i], plain, err) ? -EIO : r;
	if (r || kind == NATIVE_NONE) /* last: it says that there is something to be taken away */
		return r;
	r = tree_remove(root_fd, NATIVE_DIRECTORY);
	return r ? failed(r, NATIVE_DIRECTORY, err) : 0;
}

/* ---- placing ---- */

/* The lines are there before the names are: jj takes what it sees. */
static void keep_out(const struct identity *id)
{
	cleanup_error struct error why = ERROR_INIT;
	const char *const names[] = {NATIVE_DIRECTORY, id->env_name, env_name_own(id->env_name)};
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		cleanup_free char *line = xasprintf("/%s", names[i]);
		if (!error_is_set(&why))
			exclude_add(id, line, &why);
	}
	if (error_is_set(&why))
		log_warning(AREA, "git and jj see %s and %s: %s", names[0], names[1], why.message);
}

/* Something of the user's has the name of ours. */
static int refuse(const struct identity *id, const char *name, struct error *err)
{
	error_set_errno(err, ERROR_MOUNT_FAILED, EEXIST, "%s/%s is not of aetherfs", id->root, name);
	return error_hint(err, "rename it: that name is needed");
}

static int check_names(const struct identity *id, int root_fd, struct error *err)
{
	const char *name = id->env_name, *own = env_name_own(name);
	struct stat st;
	if (exists(root_fd, NATIVE_DIRECTORY))
		return refuse(id, NATIVE_DIRECTORY, err);
	if (exists(root_fd, own))
		return refuse(id, own, err);
	if (!fstatat(root_fd, name, &st, AT_SYMLINK_NOFOLLOW) && S_ISDIR(st.st_mode))
		return refuse(id, name, err);
	return 0;
}

static int put_aside(const struct identity *id, int root_fd)
{
	const char *name = id->env_name;
	return renameat(root_fd, name, root_fd, env_name_own(name)) && errno != ENOENT ? -errno : 0;
}

static int link_to(int root_fd, const char *target, const char *name)
{
	return symlinkat(target, root_fd, name) && errno != EEXIST ? -errno : 0;
}

/* The repository has begun, or ceased, to track `.env`: what is ours under another name goes. */
static int leave_names(const struct identity *id, int root_fd, bool plain, struct error *err)
{
	int r = 0;
	for (size_t i = 0; !r && env_names[i]; i++)
		if (strcmp(env_names[i], id->env_name) && (plain || layers_is_copied_link(root_fd, env_names[i])))
			r = take_away_env(root_fd, env_names[i], plain, err);
	return r;
}

int native_rename_env(const struct identity *id, int root_fd, struct error *err)
{
	int r = leave_names(id, root_fd, true, err);
	if (r)
		return r;
	keep_out(id);
	r = put_aside(id, root_fd);
	return r ? failed(r, id->env_name, err) : 0;
}

int native_place_links(const struct identity *id, int root_fd, struct error *err)
{
	struct stat st;
	const char *name = id->env_name;
	int r = leave_names(id, root_fd, false, err);
	if (r)
		return r;
	keep_out(id);
	r = link_to(root_fd, id->control_dir, NATIVE_DIRECTORY);
	bool there = !fstatat(root_fd, name, &st, AT_SYMLINK_NOFOLLOW);
	if (!r && there && !S_ISDIR(st.st_mode) && !native_env_is_ours(id, root_fd))
		r = put_aside(id, root_fd);
	if (!r && !(there && S_ISDIR(st.st_mode)))
		r = link_to(root_fd, ENV_LINK, name);
	return r ? failed(r, name, err) : 0;
}

int native_make_directory(int root_fd, struct error *err)
{
	struct stat st;
	int r = mkdirat(root_fd, NATIVE_DIRECTORY, 0700) && errno != EEXIST ? -errno : 0;
	if (!r && fstatat(root_fd, NATIVE_DIRECTORY, &st, AT_SYMLINK_NOFOLLOW))
		r = -errno;
	if (r)
		return failed(r, NATIVE_DIRECTORY, err);
	cleanup_free char *mark = xasprintf(MARK_TEXT, (unsigned long long)st.st_ino);
	r = file_write_atomic(root_fd, MARK, mark, strlen(mark), 0600);
	return r ? failed(r, NATIVE_DIRECTORY, err) : 0;
}

int native_place(const struct identity *id, int root_fd, enum native_kind kind, struct error *err)
{
	int r = native_take_away(root_fd, err);
	if (!r)
		r = check_names(id, root_fd, err);
	if (r || kind == NATIVE_LINKS)
		return r ? r : native_place_links(id, root_fd, err);
	keep_out(id);
	r = native_make_directory(root_fd, err);
	if (r)
		return r;
	r = put_aside(id, root_fd);
	return r ? failed(r, id->env_name, err) : 0;
}

int native_connect(const struct identity *id)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	cleanup_free char *path = xasprintf("%s/" NATIVE_SOCKET, id->socket_dir);
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (strlen(path) >= sizeof address.sun_path)
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, strlen(path));
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address))
		return -errno;
	return move_fd(&fd);
}
