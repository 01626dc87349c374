#include "base/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/strv.h"

#define TIMES_TICK_MS 50 /* two changes within a tick of the kernel's have the same times */

struct walk {
	struct sha256 hash;
	unsigned entries;
	struct digests *known; /* NULL: none */
};

static int add_contents(struct walk *w, int fd)
{
	cleanup_free char *chunk = xcalloc(1, 65536);
	for (;;) {
		ssize_t n = read(fd, chunk, 65536);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		sha256_add(&w->hash, chunk, (size_t)n);
	}
}

static struct digest_entry *remembered(struct digests *known, const struct stat *st)
{
	const uint64_t what[7] = {st->st_dev, st->st_ino, (uint64_t)st->st_size, (uint64_t)st->st_mtim.tv_sec, (uint64_t)st->st_mtim.tv_nsec,
	                          (uint64_t)st->st_ctim.tv_sec, (uint64_t)st->st_ctim.tv_nsec};
	int64_t changed_ms = (int64_t)st->st_ctim.tv_sec * 1000 + st->st_ctim.tv_nsec / 1000000;
	if (!known || st->st_size < DIGEST_REMEMBERED_MIN || now_wall_ms() - changed_ms < TIMES_TICK_MS)
		return NULL;
	for (size_t i = 0; i < DIGEST_REMEMBERED_MAX; i++)
		if (!memcmp(known->entries[i].what, what, sizeof what))
			return &known->entries[i];
	struct digest_entry *e = &known->entries[known->next++ % DIGEST_REMEMBERED_MAX];
	*e = (struct digest_entry){.hex = ""};
	memcpy(e->what, what, sizeof what);
	return e;
}

static int contents_of(int fd, const struct stat *st, struct digests *known, char hex[SHA256_HEX])
{
	struct walk inner = {.entries = 0};
	struct digest_entry *e = remembered(known, st);
	if (e && *e->hex) {
		memcpy(hex, e->hex, SHA256_HEX);
		return 0;
	}
	sha256_begin(&inner.hash);
	int r = add_contents(&inner, fd);
	sha256_end(&inner.hash, hex);
	if (r == 0 && e)
		memcpy(e->hex, hex, SHA256_HEX);
	return r;
}

/* The contents have a length of their own, lest the next name continue them. */
static int add_file(struct walk *w, int fd, const struct stat *st)
{
	char hex[SHA256_HEX];
	int r = contents_of(fd, st, w->known, hex);
	sha256_add_str(&w->hash, st->st_mode & 0100 ? "x" : "f");
	sha256_add_str(&w->hash, hex);
	return r;
}

/* Up as far as the directory itself, and only at the beginning: behind a name ".." may lead anywhere. */
static bool stays_inside(const char *target, unsigned depth)
{
	bool down = false;
	if (*target == '/')
		return false;
	while (*target) {
		size_t len = strcspn(target, "/");
		bool up = len == 2 && !strncmp(target, "..", 2);
		if (up && (down || depth-- == 0))
			return false;
		down = down || (!up && len && !(len == 1 && *target == '.'));
		target += len + (target[len] == '/');
	}
	return true;
}

static int add_link(struct walk *w, int at, const char *name, unsigned depth)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(at, name, target, sizeof target - 1);
	if (n < 0)
		return -errno;
	target[n] = '\0';
	if (!stays_inside(target, depth))
		return -EXDEV;
	sha256_add_str(&w->hash, "l");
	sha256_add_str(&w->hash, target);
	return 0;
}

static int add_directory(struct walk *w, int fd, unsigned depth);

static int add_entry(struct walk *w, int at, const char *name, unsigned depth)
{
	struct stat st;
	if (++w->entries > DIGEST_ENTRIES_MAX || depth > 100)
		return -E2BIG;
	if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW))
		return -errno;
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode) && !S_ISLNK(st.st_mode))
		return 0;
	sha256_add_str(&w->hash, name);
	if (S_ISLNK(st.st_mode))
		return add_link(w, at, name, depth);
	int flags = S_ISDIR(st.st_mode) ? O_DIRECTORY : 0;
	cleanup_close int fd = openat(at, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | flags);
	if (fd < 0 || fstat(fd, &st))
		return -errno;
	return S_ISDIR(st.st_mode) ? add_directory(w, fd, depth + 1) : add_file(w, fd, &st);
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int list_names(int fd, char ***ret, size_t *ret_n)
{
	int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	cleanup_closedir DIR *d = own < 0 ? NULL : fdopendir(own);
	char **names = NULL;
	size_t n = 0;
	if (!d)
		return -errno;
	rewinddir(d);
	for (struct dirent *e; n <= DIGEST_ENTRIES_MAX && (e = readdir(d));)
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) {
			array_grow(names, n);
			names[n++] = xstrdup(e->d_name);
		}
	if (n)
		qsort(names, n, sizeof *names, compare);
	*ret = names;
	*ret_n = n;
	return 0;
}

static int add_directory(struct walk *w, int fd, unsigned depth)
{
	char **names = NULL;
	size_t n = 0;
	int r = list_names(fd, &names, &n);
	sha256_add_str(&w->hash, "d");
	for (size_t i = 0; i < n; i++) {
		if (r == 0)
			r = add_entry(w, fd, names[i], depth);
		free(names[i]);
	}
	free(names);
	sha256_add_str(&w->hash, ""); /* no name: its end */
	return r;
}

int digest_of(int dirfd, const char *path, char ret[SHA256_HEX])
{
	return digest_of_known(dirfd, path, NULL, ret);
}

int digest_of_known(int dirfd, const char *path, struct digests *known, char ret[SHA256_HEX])
{
	struct walk w = {.known = known};
	struct stat st;
	int r = 0;
	sha256_begin(&w.hash);
	cleanup_close int fd = openat(dirfd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 && errno != ENOENT)
		return -errno;
	if (fd >= 0 && fstat(fd, &st))
		return -errno;
	if (fd < 0) {
		sha256_add_str(&w.hash, "d");
		sha256_add_str(&w.hash, "");
	} else if (S_ISDIR(st.st_mode)) {
		r = add_directory(&w, fd, 0);
	} else {
		r = S_ISREG(st.st_mode) ? add_file(&w, fd, &st) : -EINVAL;
	}
	if (r == 0)
		sha256_end(&w.hash, ret);
	return r;
}
