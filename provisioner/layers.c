#include "provisioner/layers.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hash.h"
#include "provisioner/config.h"
#include "provisioner/env_name.h"
#include "provisioner/envfile.h"

uint64_t layers_stamp(uint64_t h, int dirfd, const char *path, int flags)
{
	struct stat st;
	struct {
		uint64_t dev, ino, size, sec, nsec, mode;
	} what = {0};
	if (fstatat(dirfd, path, &st, flags) == 0) {
		what.dev = st.st_dev;
		what.ino = st.st_ino;
		what.size = (uint64_t)st.st_size;
		what.sec = (uint64_t)st.st_mtim.tv_sec;
		what.nsec = (uint64_t)st.st_mtim.tv_nsec;
		what.mode = st.st_mode;
	}
	return hash_bytes(h, &what, sizeof what);
}

uint64_t layers_user_stamp(int root_fd, const char *name, bool *ret_is_link)
{
	struct stat st;
	*ret_is_link = fstatat(root_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode);
	return layers_stamp(HASH_INIT, root_fd, name, AT_SYMLINK_NOFOLLOW);
}

bool layers_is_copied_link(int root_fd, const char *name)
{
	static const char own[] = ".aether/env";
	char target[sizeof own];
	return readlinkat(root_fd, name, target, sizeof target) == sizeof own - 1 && !memcmp(target, own, sizeof own - 1);
}

/* O_NONBLOCK: what answers by waiting (another environment's demand, a FIFO) is not a file of lines. */
void layers_read_lines(int dirfd, const char *path, struct buffer *out)
{
	cleanup_close int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	char self[64];
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return;
	snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
	if (file_read(AT_FDCWD, self, ENVFILE_MAX, out) < 0)
		buffer_clear(out);
}

/* The directory that holds the link's target. A target below the workspace is looked up beneath the mount. */
static int open_parent(const char *root, int root_fd, char *target, const char **ret_base)
{
	size_t len = strlen(root);
	const char *dir = ".";
	int from = root_fd;
	if (!strncmp(target, root, len) && target[len] == '/')
		target += len + 1;
	char *slash = strrchr(target, '/');
	*ret_base = slash ? slash + 1 : target;
	if (slash) {
		*slash = '\0';
		dir = slash == target ? "/" : target;
	}
	return openat(from, dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* Through a mount of ours it is a link, whatever it is called there. */
static bool is_served(int parent, const char *base)
{
	return layers_is_copied_link(parent, base);
}

static void read_link(const char *root, int root_fd, char *target, struct buffer *out)
{
	const char *base;
	cleanup_close int parent = open_parent(root, root_fd, target, &base);
	if (parent >= 0)
		layers_read_lines(parent, is_served(parent, base) ? ".aether/env.own" : base, out);
}

int layers_open_link(const struct identity *id, int root_fd)
{
	char target[PATH_MAX];
	const char *base;
	ssize_t n = readlinkat(root_fd, identity_own_name(id), target, sizeof target - 1);
	if (n < 0)
		return -errno;
	target[n] = '\0';
	cleanup_close int parent = open_parent(id->root, root_fd, target, &base);
	if (parent < 0)
		return -errno;
	if (is_served(parent, base))
		return -EXDEV;
	int fd = openat(parent, base, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

/* A copy of a plain workspace (`cp -a`, a cache that was unpacked) has a block of ours: what was generated for another one is nobody's own. */
static void add_own_lines(const struct buffer *text, struct buffer *out)
{
	bool unused;
	if (strstr(buffer_str(text), ENVFILE_BEGIN) && strstr(buffer_str(text), ENVFILE_END))
		envfile_user_part(buffer_str(text), NULL, out, &unused);
	else
		buffer_add(out, buffer_str(text), text->len);
}

void layers_text_at(const char *root, int root_fd, const char *name, struct buffer *out)
{
	char target[PATH_MAX];
	cleanup_buffer struct buffer text = BUFFER_INIT;
	if (layers_is_copied_link(root_fd, name))
		name = env_name_own(name);
	ssize_t n = readlinkat(root_fd, name, target, sizeof target - 1);
	if (n < 0) {
		layers_read_lines(root_fd, name, &text);
	} else {
		target[n] = '\0';
		read_link(root, root_fd, target, &text);
	}
	add_own_lines(&text, out);
}

void layers_user_text(const struct identity *id, int root_fd, struct buffer *out)
{
	layers_text_at(id->root, root_fd, identity_own_name(id), out);
}

uint64_t layers_base_stamp(const struct identity *id, int root_fd)
{
	return env_name_has_base(id->env_name) ? layers_stamp(HASH_INIT, root_fd, ENV_NAME_DEFAULT, AT_SYMLINK_NOFOLLOW) : 0;
}

void layers_base_text(const struct identity *id, int root_fd, struct buffer *out)
{
	struct stat st;
	if (env_name_has_base(id->env_name) && !fstatat(root_fd, ENV_NAME_DEFAULT, &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode))
		layers_read_lines(root_fd, ENV_NAME_DEFAULT, out);
}

static const char *const config_names[] = {"aether.yaml",
                                           "compose.yaml",
                                           "compose.yml",
                                           "docker-compose.yaml",
                                           "docker-compose.yml",
                                           "compose.override.yaml",
                                           "compose.override.yml",
                                           "docker-compose.override.yaml",
                                           "docker-compose.override.yml",
                                           "aether.local.yaml"};

static uint64_t stamp_directory(uint64_t h, int dirfd)
{
	for (size_t i = 0; i < sizeof config_names / sizeof *config_names; i++)
		h = layers_stamp(h, dirfd, config_names[i], 0);
	return h;
}

uint64_t layers_files_stamp(const struct identity *id, int root_fd, const struct config *config)
{
	uint64_t h = HASH_INIT;
	size_t len = strlen(id->root);
	for (size_t i = 0; config && i < config->n_files; i++) {
		const char *path = config->files[i].path;
		if (!strncmp(path, id->root, len) && path[len] == '/')
			h = layers_stamp(h, root_fd, path + len + 1, 0);
	}
	return h;
}

uint64_t layers_root_stamp(int root_fd)
{
	return stamp_directory(HASH_INIT, root_fd);
}

uint64_t layers_config_stamp(const struct identity *id, int root_fd, char *const *files)
{
	uint64_t h = stamp_directory(HASH_INIT, root_fd);
	size_t len = strlen(id->root);
	if (id->main_root && strcmp(id->main_root, id->root)) {
		cleanup_close int fd = open(id->main_root, O_PATH | O_DIRECTORY | O_CLOEXEC);
		h = stamp_directory(h, fd);
	}
	for (; files && *files; files++) {
		bool beneath = !strncmp(*files, id->root, len) && (*files)[len] == '/';
		h = layers_stamp(h, beneath ? root_fd : AT_FDCWD, beneath ? *files + len + 1 : *files, 0);
	}
	return h;
}
