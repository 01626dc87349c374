/* The context of a build: which files go along, their digest, and all of them as a tar archive (libarchive). */
#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backends/build.h"
#include "backends/libarchive.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/path.h"

#define CHUNK (64u << 10)
#define DOCKERFILE "Dockerfile"
#define IGNORE_FILE ".dockerignore"
#define EXTRA_FILE ".dockerfile.aether" /* the Dockerfile, where it is none of the files that go along */
#define DEPTH_MAX 200
#define TIMES_TICK_MS 2000 /* two changes within a tick of a file system's clock have the same times */

struct build_entry {
	char *path;   /* in the archive */
	char *source; /* where it is read; NULL: there */
	bool vcs;     /* what jj or git keeps */
	uint64_t stamp;
};

/* ---- places ---- */

/* The directory that an entry's path begins at: nothing of ours goes through its own mount. */
static int place_of(const struct build_context *c, const char **path)
{
	if (c->root_fd < 0 || !strcmp(*path, c->spec->vcs) || !path_is_within(*path, c->spec->vcs))
		return c->fd;
	*path += strlen(c->spec->vcs) + 1;
	return c->root_fd;
}

/* A directory that has become a link meanwhile leads nowhere. */
static int open_file(const struct build_context *c, const char *path)
{
	struct open_how how = {.flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
	int dirfd = place_of(c, &path);
	return (int)syscall(SYS_openat2, dirfd, path, &how, sizeof how);
}

static int stat_entry(const struct build_context *c, const char *path, struct stat *st)
{
	int dirfd = place_of(c, &path);
	return fstatat(dirfd, path, st, AT_SYMLINK_NOFOLLOW);
}

/* ---- the two small files ---- */

static int failed(const struct build_context *c, int r, struct error *err, const char *what)
{
	error_set(err, r == -ENOSPC ? ERROR_NO_SPACE : ERROR_BUILD_FAILED, "%s: %s: %s", c->spec->shown, what, strerror(-r));
	return r;
}

/* As docker does, a Dockerfile that nobody has named may begin with a small letter. */
static int read_dockerfile(struct build_context *c, struct error *err)
{
	const struct build_options *o = c->spec->options;
	cleanup_buffer struct buffer text = BUFFER_INIT;
	if (o->inline_text) {
		c->text = xstrdup(o->inline_text);
		return 0;
	}
	int r = file_read(AT_FDCWD, c->spec->dockerfile, BUILD_DOCKERFILE_MAX, &text);
	if (r == -ENOENT && !o->dockerfile)
		r = file_read(c->fd, "dockerfile", BUILD_DOCKERFILE_MAX, &text);
	if (r < 0) {
		failed(c, r, err, o->dockerfile ? o->dockerfile : DOCKERFILE);
		return error_hint(err, "build.dockerfile names it, seen from the context");
	}
	c->text = buffer_detach(&text);
	return 0;
}

/* That of the Dockerfile comes before the one of the context. */
static int read_ignore(struct build_context *c, struct error *err)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_free char *own = c->spec->dockerfile ? xasprintf("%s" IGNORE_FILE, c->spec->dockerfile) : NULL;
	int r = own ? file_read(AT_FDCWD, own, BUILD_DOCKERFILE_MAX, &text) : -ENOENT;
	c->own_ignore = r == 0;
	if (r == -ENOENT)
		r = file_read(c->fd, IGNORE_FILE, BUILD_DOCKERFILE_MAX, &text);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return failed(c, r, err, IGNORE_FILE);
	c->ignore_text = buffer_detach(&text);
	r = build_ignore_parse(c->ignore_text, &c->ignore, err);
	if (r < 0)
		error_prefix(err, "%s: " IGNORE_FILE, c->spec->shown);
	return r;
}

/* ---- what goes along ---- */

static bool is_at(const char *path, const char *place)
{
	return place && path_is_within(path, place);
}

/* Of what we place in a workspace nothing goes along. */
static bool is_ours(const struct build_spec *s, const char *path)
{
	bool aside = s->env && s->env_own && strcmp(s->env, s->env_own);
	return is_at(path, s->control) || (aside && (!strcmp(path, s->env) || !strcmp(path, s->env_own)));
}

static bool is_vcs(const struct build_spec *s, const char *path)
{
	const char *at = path;
	if (s->vcs && *s->vcs) {
		size_t n = strlen(s->vcs);
		if (strncmp(path, s->vcs, n) || path[n] != '/')
			return false;
		at += n + 1;
	}
	return s->vcs && (path_is_within(at, ".git") || path_is_within(at, ".jj"));
}

/* Of a directory its names are entries of their own. */
static uint64_t stamp_of(struct build_context *c, const char *path, const struct stat *st)
{
	const int64_t looks[] = {(int64_t)st->st_ino, st->st_size, st->st_mtim.tv_sec, st->st_mtim.tv_nsec, st->st_ctim.tv_sec, st->st_ctim.tv_nsec};
	uint64_t h = hash_bytes(hash_str(HASH_INIT, path), &st->st_mode, sizeof st->st_mode);
	if (S_ISDIR(st->st_mode))
		return h;
	int64_t changed_ms = (int64_t)st->st_ctim.tv_sec * 1000 + st->st_ctim.tv_nsec / 1000000;
	if (changed_ms > c->newest_ms)
		c->newest_ms = changed_ms;
	return hash_bytes(h, looks, sizeof looks);
}

static void add_entry(struct build_context *c, const char *path, const char *source, const struct stat *st)
{
	array_grow(c->entries, c->n_entries);
	c->entries[c->n_entries++] = (struct build_entry){xstrdup(path), xstrdup(source), is_vcs(c->spec, path), stamp_of(c, path, st)};
}

static int list_directory(struct build_context *c, int fd, const char *prefix, unsigned depth, struct error *err);

/* A directory that is left out is an entry nevertheless when something below it is not. */
static int list_below(struct build_context *c, int dirfd, const char *name, const char *path, const struct stat *st, bool out, unsigned depth, struct error *err)
{
	bool workspace = c->root_fd >= 0 && !strcmp(path, c->spec->vcs);
	cleanup_close int fd = workspace ? fcntl(c->root_fd, F_DUPFD_CLOEXEC, 3) : openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	size_t before = c->n_entries;
	if (fd < 0)
		return failed(c, -errno, err, path);
	if (depth == DEPTH_MAX)
		return failed(c, -ELOOP, err, path);
	if (!out)
		add_entry(c, path, NULL, st);
	int r = list_directory(c, fd, path, depth + 1, err);
	if (r == 0 && out && c->n_entries > before)
		add_entry(c, path, NULL, st);
	return r;
}

static int list_name(struct build_context *c, int dirfd, const char *name, const char *path, unsigned depth, struct error *err)
{
	struct stat st;
	if (is_ours(c->spec, path))
		return 0;
	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? 0 : failed(c, -errno, err, path);
	bool out = build_ignore_matches(c->ignore, path);
	if (S_ISDIR(st.st_mode))
		return out && !build_ignore_looks_into(c->ignore, path) ? 0 : list_below(c, dirfd, name, path, &st, out, depth, err);
	if (!out && (S_ISREG(st.st_mode) || S_ISLNK(st.st_mode))) /* sockets, FIFOs and devices are nothing for an image */
		add_entry(c, path, NULL, &st);
	return c->n_entries < BUILD_ENTRIES_MAX ? 0 : failed(c, -E2BIG, err, "more files than a context may have");
}

static int list_directory(struct build_context *c, int fd, const char *prefix, unsigned depth, struct error *err)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3), r = 0;
	cleanup_closedir DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	if (!dir) {
		r = -errno;
		if (copy >= 0)
			close(copy);
		return failed(c, r, err, *prefix ? prefix : ".");
	}
	for (struct dirent *d; r == 0 && (d = readdir(dir));) {
		if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, ".."))
			continue;
		cleanup_free char *path = xasprintf("%s%s%s", prefix, *prefix ? "/" : "", d->d_name);
		r = list_name(c, fd, d->d_name, path, depth, err);
	}
	return r;
}

static int compare(const void *one, const void *other)
{
	const struct build_entry *a = one, *b = other;
	return strcmp(a->path, b->path);
}

static const struct build_entry *find(const struct build_context *c, const char *path)
{
	const struct build_entry key = {.path = (char *)path};
	return bsearch(&key, c->entries, c->n_entries, sizeof key, compare);
}

/* Where the Dockerfile is one of the files that go along it is sent as that, else as one more. */
static void name_dockerfile(struct build_context *c)
{
	const struct build_options *o = c->spec->options;
	const char *name = o->dockerfile ? o->dockerfile : DOCKERFILE;
	while (!strncmp(name, "./", 2))
		name += 2;
	bool same = !o->inline_text && find(c, name) && !c->file.plain && !c->own_ignore;
	c->dockerfile = xstrdup(same ? name : EXTRA_FILE);
}

/* The user's own, which rest elsewhere meanwhile, under their name. */
static void add_own_lines(struct build_context *c)
{
	const struct build_spec *s = c->spec;
	struct stat st;
	if (s->env && s->env_own && strcmp(s->env, s->env_own) && !stat_entry(c, s->env_own, &st) && !build_ignore_matches(c->ignore, s->env))
		add_entry(c, s->env, s->env_own, &st);
}

static void stamp(struct build_context *c)
{
	c->stamp = hash_str(hash_str(HASH_INIT, c->text), c->ignore_text ? c->ignore_text : "");
	for (size_t i = 0; i < c->n_entries; i++)
		if (!c->entries[i].vcs)
			c->stamp = hash_bytes(c->stamp, &c->entries[i].stamp, sizeof c->entries[i].stamp);
	c->settled = now_wall_ms() - c->newest_ms > TIMES_TICK_MS;
}

int build_context_open(const struct build_spec *spec, struct build_context **ret, struct error *err)
{
	struct build_context *c = xcalloc(1, sizeof *c);
	struct sha256 hash;
	c->spec = spec;
	c->fd = open(spec->context, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = c->fd < 0 ? failed(c, -errno, err, "the context") : 0;
	c->root_fd = spec->root ? open(spec->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (r == 0 && spec->root && c->root_fd < 0)
		r = failed(c, -errno, err, "the workspace");
	if (r == 0)
		r = read_dockerfile(c, err);
	if (r == 0)
		r = read_ignore(c, err);
	if (r == 0)
		r = list_directory(c, c->fd, "", 0, err);
	if (r < 0) {
		build_context_free(c);
		return r;
	}
	add_own_lines(c);
	if (c->n_entries)
		qsort(c->entries, c->n_entries, sizeof *c->entries, compare);
	stamp(c);
	build_file_read(c->text, &spec->options->args, &c->file);
	name_dockerfile(c);
	sha256_begin(&hash);
	sha256_add_str(&hash, c->text);
	sha256_add_str(&hash, c->ignore_text ? c->ignore_text : "");
	sha256_end(&hash, c->file_digest);
	*ret = c;
	return 0;
}

void build_context_free(struct build_context *c)
{
	if (!c)
		return;
	if (c->fd >= 0)
		close(c->fd);
	if (c->root_fd >= 0)
		close(c->root_fd);
	for (size_t i = 0; i < c->n_entries; i++) {
		free(c->entries[i].path);
		free(c->entries[i].source);
	}
	free(c->entries);
	free(c->text);
	free(c->ignore_text);
	free(c->dockerfile);
	build_ignore_free(c->ignore);
	build_file_release(&c->file);
	free(c);
}

/* ---- the archive ---- */

struct packing {
	struct build_context *c;
	struct archive *archive; /* NULL: the digest alone */
	struct sha256 hash;
	bool counts; /* this entry, towards the digest */
	char *chunk;
	struct error *err;
};

static void hash_text(struct packing *p, const char *text)
{
	if (p->counts)
		sha256_add_str(&p->hash, text);
}

static int archive_failed(const struct packing *p, const char *path)
{
	int number = archive_errno(p->archive);
	return failed(p->c, number > 0 ? -number : -EIO, p->err, path);
}

/* Of nobody in particular: who builds is no matter of the image. */
static int put_header(struct packing *p, const char *path, const struct stat *st, const char *link)
{
	if (!p->archive)
		return 0;
	struct archive_entry *e = archive_entry_new();
	archive_entry_set_pathname(e, path);
	archive_entry_set_mode(e, st->st_mode);
	archive_entry_set_mtime(e, st->st_mtim.tv_sec, 0);
	archive_entry_set_size(e, S_ISREG(st->st_mode) ? st->st_size : 0);
	if (link)
		archive_entry_set_symlink(e, link);
	int r = archive_write_header(p->archive, e) < ARCHIVE_WARN ? archive_failed(p, path) : 0;
	archive_entry_free(e);
	return r;
}

static int put_bytes(struct packing *p, const char *path, const void *data, size_t len)
{
	if (p->counts)
		sha256_add(&p->hash, data, len);
	return p->archive && archive_write_data(p->archive, data, len) < 0 ? archive_failed(p, path) : 0;
}

/* As long as it was when it was looked at: one that grows meanwhile does so without us. */
static int put_file(struct packing *p, const char *path, int fd, off_t left)
{
	int r = 0;
	while (left > 0 && r == 0) {
		size_t want = left < (off_t)CHUNK ? (size_t)left : CHUNK;
		ssize_t n = read(fd, p->chunk, want);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return failed(p->c, -errno, p->err, path);
		if (n == 0) { /* one that shrinks is filled up */
			memset(p->chunk, 0, want);
			n = (ssize_t)want;
		}
		r = put_bytes(p, path, p->chunk, (size_t)n);
		left -= n;
	}
	return r;
}

static int put_link(struct packing *p, const struct build_entry *e, const char *source, const struct stat *st)
{
	char target[PATH_MAX];
	int dirfd = place_of(p->c, &source);
	ssize_t n = readlinkat(dirfd, source, target, sizeof target - 1);
	if (n < 0)
		return failed(p->c, -errno, p->err, e->path);
	target[n] = '\0';
	hash_text(p, target);
	return put_header(p, e->path, st, target);
}

static int put_regular(struct packing *p, const struct build_entry *e, const char *source)
{
	struct stat st;
	cleanup_close int fd = open_file(p->c, source);
	if (fd < 0 || fstat(fd, &st))
		return failed(p->c, -errno, p->err, e->path);
	if (!S_ISREG(st.st_mode))
		return 0;
	int r = put_header(p, e->path, &st, NULL);
	return r < 0 ? r : put_file(p, e->path, fd, st.st_size);
}

/* One that is not there any more is as if it had never been. */
static int put_entry(struct packing *p, const struct build_entry *e)
{
	struct stat st;
	char mode[32];
	const char *source = e->source ? e->source : e->path;
	if (stat_entry(p->c, source, &st))
		return errno == ENOENT ? 0 : failed(p->c, -errno, p->err, e->path);
	p->counts = !e->vcs && strcmp(e->path, IGNORE_FILE); /* file_digest has that */
	if (!p->counts && !p->archive)
		return 0;
	snprintf(mode, sizeof mode, "%o %lld", (unsigned)st.st_mode, S_ISREG(st.st_mode) ? (long long)st.st_size : 0LL);
	hash_text(p, e->path);
	hash_text(p, mode);
	if (S_ISLNK(st.st_mode))
		return put_link(p, e, source, &st);
	return S_ISREG(st.st_mode) ? put_regular(p, e, source) : put_header(p, e->path, &st, NULL);
}

static int put_text(struct packing *p, const char *path, const char *text)
{
	const struct stat st = {.st_mode = S_IFREG | 0644, .st_size = (off_t)strlen(text)};
	p->counts = false;
	int r = put_header(p, path, &st, NULL);
	return r < 0 ? r : put_bytes(p, path, text, strlen(text));
}

/* The classic builder takes the Dockerfile and the .dockerignore out again when the latter says so: that leaves the one that was sent beside
 * the context out of the image. Its other lines have been heeded here. */
static int put_ignore(struct packing *p, bool present)
{
	const struct build_context *c = p->c;
	cleanup_free char *text = xasprintf("%s\n" EXTRA_FILE "\n%s", present && !c->own_ignore ? c->ignore_text : "", present ? "" : IGNORE_FILE "\n");
	return put_text(p, IGNORE_FILE, text);
}

static int put_all(struct packing *p)
{
	const struct build_context *c = p->c;
	bool extra = !strcmp(c->dockerfile, EXTRA_FILE), present = false;
	int r = 0;
	for (size_t i = 0; r == 0 && i < c->n_entries; i++) {
		bool replaced = p->archive && extra && !strcmp(c->entries[i].path, IGNORE_FILE);
		present |= replaced;
		if (!replaced)
			r = put_entry(p, &c->entries[i]);
	}
	if (r == 0 && p->archive && extra)
		r = put_text(p, EXTRA_FILE, c->file.plain ? c->file.plain : c->text);
	if (r == 0 && p->archive && extra)
		r = put_ignore(p, present);
	return r;
}

int build_context_pack(struct build_context *c, int fd, struct error *err)
{
	struct packing p = {.c = c, .chunk = xcalloc(1, CHUNK), .err = err};
	int r = fd >= 0 ? libarchive_load(err) : 0;
	sha256_begin(&p.hash);
	sha256_add_str(&p.hash, c->file_digest);
	if (fd >= 0 && r == 0) {
		p.archive = archive_write_new();
		archive_write_set_format_pax_restricted(p.archive);
		if (archive_write_open_fd(p.archive, fd) != ARCHIVE_OK)
			r = archive_failed(&p, "the archive");
	}
	if (r == 0)
		r = put_all(&p);
	if (r == 0 && p.archive && archive_write_close(p.archive) != ARCHIVE_OK)
		r = archive_failed(&p, "the archive");
	if (p.archive)
		archive_write_free(p.archive);
	free(p.chunk);
	sha256_end(&p.hash, c->digest);
	return r;
}
