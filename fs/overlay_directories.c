/* Reading directories. OPENDIR is answered ENOSYS, so a request is (node, offset), the offset a cookie of the file system beneath. A
 * listing under way is kept as a stream (descriptor, entries already got), so that the next request goes on where the last one
 * ended instead of seeking: seeking costs a sort in ext4, and in some file systems (tmpfs before Linux 6.6) loses entries when others
 * were removed meanwhile. A stream that is gone is replaced by a
 * seek, and one goes as soon as a name is added: whoever begins to read after that may come to the same place, and must find it.
 *
 * The kernel caches listings too, put together by all who read at the same time, and asks whether one is still true only of who begins
 * to read. One begun before a change and finished after it would be shown to those who are in the middle, so whoever begins after a change
 * has it forgotten. Changes and readers exclude each other by the directory's lock in the kernel. */
#include "fs/overlay_private.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#define STREAM_BYTES 32768

/* Cookies of the virtual names, which come last when they are listed. ext4's end is 2^63 - 1, and no file system counts this far. */
#define COOKIE_VIRTUAL INT64_C(0x7fffffffffffff00)

struct stream {
	fuse_ino_t ino;
	int64_t next; /* the cookie that continues it */
	struct timespec read; /* when the directory had changed last, as it was opened */
	uint64_t used;
	int fd;
	size_t at, length;
	bool end;
	char bytes[STREAM_BYTES] __attribute__((aligned(8)));
};

static void stream_free(struct stream *s)
{
	if (!s)
		return;
	close(s->fd);
	free(s);
}

static void stream_freep(struct stream **s)
{
	stream_free(*s);
}

void streams_free(struct overlay *o)
{
	for (int i = 0; i < OVERLAY_STREAMS_MAX; i++) {
		stream_free(o->streams[i]);
		o->streams[i] = NULL;
	}
}

/* With more doors than one others change the directory and nobody says so. */
static bool is_outdated(const struct overlay *o, const struct stream *s)
{
	struct stat st;
	return overlay_timeout(o) < OVERLAY_FOREVER && (fstat(s->fd, &st) < 0 || st.st_mtim.tv_sec != s->read.tv_sec || st.st_mtim.tv_nsec != s->read.tv_nsec);
}

static struct stream *take_stream(struct overlay *o, fuse_ino_t ino, int64_t offset)
{
	struct stream *found = NULL;
	pthread_mutex_lock(&o->stream_lock);
	for (int i = 0; i < OVERLAY_STREAMS_MAX && offset != 0 && !found; i++) {
		struct stream *s = o->streams[i];
		if (s && s->ino == ino && s->next == offset) {
			found = s;
			o->streams[i] = NULL;
		}
	}
	pthread_mutex_unlock(&o->stream_lock);
	if (found && is_outdated(o, found)) {
		stream_free(found);
		found = NULL;
	}
	return found;
}

static void drop_streams(struct overlay *o, fuse_ino_t ino)
{
	pthread_mutex_lock(&o->stream_lock);
	for (int i = 0; i < OVERLAY_STREAMS_MAX; i++)
		if (o->streams[i] && o->streams[i]->ino == ino) {
			stream_free(o->streams[i]);
			o->streams[i] = NULL;
		}
	pthread_mutex_unlock(&o->stream_lock);
}

void overlay_directory_changed(struct overlay *o, fuse_ino_t directory, bool added)
{
	node_changed(o->nodes, directory);
	if (added)
		drop_streams(o, directory);
}

static void keep_stream(struct overlay *o, struct stream *s)
{
	pthread_mutex_lock(&o->stream_lock);
	int oldest = 0;
	for (int i = 0; i < OVERLAY_STREAMS_MAX; i++) {
		if (!o->streams[i]) {
			oldest = i;
			break;
		}
		if (o->streams[i]->used < o->streams[oldest]->used)
			oldest = i;
	}
	struct stream *gone = o->streams[oldest];
	s->used = ++o->stream_clock;
	o->streams[oldest] = s;
	pthread_mutex_unlock(&o->stream_lock);
	stream_free(gone);
}

static int open_stream(struct overlay *o, fuse_ino_t ino, int64_t offset, struct stream **ret)
{
	struct stat st;
	cleanup_close int fd = overlay_open_node(o, ino, O_RDONLY | O_DIRECTORY, &st);
	if (fd < 0)
		return fd;
	if (offset > 0 && offset < COOKIE_VIRTUAL && lseek(fd, offset, SEEK_SET) < 0)
		return -errno;
	struct stream *s = malloc(sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->ino = ino;
	s->next = offset;
	s->read = st.st_mtim;
	s->fd = move_fd(&fd);
	s->at = s->length = 0;
	s->end = offset >= COOKIE_VIRTUAL; /* after the virtual names, or ext4's own end */
	*ret = s;
	return 0;
}

/* The next entry of the directory beneath, not consumed; NULL at the end. */
static int stream_peek(struct stream *s, struct dirent64 **ret)
{
	*ret = NULL;
	if (s->at == s->length && !s->end) {
		ssize_t n = syscall(SYS_getdents64, s->fd, s->bytes, sizeof(s->bytes));
		if (n < 0)
			return errno == ENOENT ? 0 : -errno; /* a directory that was removed has no entries */
		s->at = 0;
		s->length = (size_t)n;
		s->end = n == 0;
	}
	if (s->at < s->length)
		*ret = (struct dirent64 *)(s->bytes + s->at);
	return 0;
}

/* ---- the reply ---- */

struct listing {
	fuse_req_t req;
	struct overlay *o;
	struct stream *stream;
	bool plus;
	char *data;
	size_t size, used;
};

/* False when it does not fit. */
static bool put(struct listing *l, const char *name, const struct fuse_entry_param *e, int64_t next)
{
	size_t room = l->size - l->used, need;
	if (l->plus)
		need = fuse_add_direntry_plus(l->req, l->data + l->used, room, name, e, next);
	else
		need = fuse_add_direntry(l->req, l->data + l->used, room, name, &e->attr, next);
	if (need > room)
		return false;
	l->used += need;
	l->stream->next = next;
	return true;
}

/* What a lookup of the name would give. An entry without a node (ino 0) is listed, and looked up when it is wanted. False: it has gone
 * since it was read. */
static bool complete(struct listing *l, const struct dirent64 *d, struct fuse_entry_param *e)
{
	struct overlay *o = l->o;
	enum virtual_name v = virtual_find(l->o, l->stream->ino, d->d_name);
	struct stat st;
	*e = (struct fuse_entry_param){.attr = {.st_ino = d->d_ino, .st_mode = (mode_t)d->d_type << 12}};
	if (!v)
		v = env_file_find(o, l->stream->ino, d->d_name);
	if (v) {
		virtual_entry(o, v, e);
		if (e->entry_timeout == 0)
			e->ino = 0; /* absent for somebody: each must look for himself */
		if (d->d_type == DT_DIR) /* which a commit tracks: jj looks no further where it is told that there is none */
			e->attr.st_mode = S_IFDIR | 0755;
		return true;
	}
	if (!l->plus || strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
		return true;
	uint32_t moves = nodes_moves(o->nodes);
	struct fuse_entry_param found;
	if (fstatat(l->stream->fd, d->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno != ENOENT;
	if (overlay_enter(o, l->stream->ino, d->d_name, &st, moves, &found) == 0)
		*e = found;
	return true;
}

/* A real .env beneath is the user's own file and is listed, as the link that a lookup gives; a real .aether is covered. */
static bool is_hidden(const struct listing *l, const char *name)
{
	enum virtual_name v = virtual_find(l->o, l->stream->ino, name);
	if (v == VIRTUAL_ENV)
		removal_env_shown(l->o->removal);
	if (!v && l->o->listed)
		v = env_file_find(l->o, l->stream->ino, name);
	return v == VIRTUAL_AETHER || (v && l->o->listed);
}

static int list_beneath(struct listing *l)
{
	struct stream *s = l->stream;
	struct dirent64 *d;
	int r;
	while ((r = stream_peek(s, &d)) == 0 && d) {
		struct fuse_entry_param e;
		if (!is_hidden(l, d->d_name) && complete(l, d, &e) && !put(l, d->d_name, &e, d->d_off)) {
			if (l->plus && e.ino && !virtual_is(e.ino))
				overlay_forget(l->o, e.ino, 1);
			return 1;
		}
		s->at += d->d_reclen;
	}
	return r;
}

static void list_virtual(struct listing *l)
{
	struct stream *s = l->stream;
	if (!l->o->listed)
		return;
	int64_t first = s->next >= COOKIE_VIRTUAL && s->next < COOKIE_VIRTUAL + 0xff ? s->next - COOKIE_VIRTUAL + 1 : VIRTUAL_ENV;
	for (int64_t v = first; v < VIRTUAL_END; v++) {
		struct fuse_entry_param e;
		if (v < VIRTUAL_FILES ? s->ino != FUSE_ROOT_ID : !env_file_is_in(l->o, (enum virtual_name)v, s->ino))
			continue;
		virtual_entry(l->o, (enum virtual_name)v, &e);
		if (e.entry_timeout == 0)
			e.ino = 0;
		if (!put(l, virtual_name_of(l->o, (enum virtual_name)v), &e, COOKIE_VIRTUAL + v))
			return;
	}
}

/* The caller was killed meanwhile: what the reply gave is taken back. */
static void forget_reply(struct listing *l)
{
	for (size_t at = 0; at < l->used;) {
		const struct fuse_direntplus *d = (const struct fuse_direntplus *)(l->data + at);
		if (d->entry_out.nodeid && !virtual_is(d->entry_out.nodeid))
			overlay_forget(l->o, d->entry_out.nodeid, 1);
		at += FUSE_DIRENTPLUS_SIZE(d);
	}
}

static void begin_listing(struct overlay *o, fuse_ino_t ino)
{
	if (overlay_timeout(o) == OVERLAY_FOREVER && !node_listing_is_stale(o->nodes, ino))
		return;
	notices_inode_now(o->notices, ino);
	node_listing_forgotten(o->nodes, ino); /* not before: another who begins now would not wait for it */
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, bool plus)
{
	struct overlay *o = overlay_of(req);
	if (offset == 0)
		begin_listing(o, ino);
	__attribute__((cleanup(stream_freep))) struct stream *s = take_stream(o, ino, offset);
	int r = s ? 0 : open_stream(o, ino, offset, &s);
	cleanup_free char *data = malloc(size);
	struct listing l = {.req = req, .o = o, .stream = s, .plus = plus, .data = data, .size = size};
	if (r == 0 && !data)
		r = -ENOMEM;
	if (r == 0)
		r = list_beneath(&l);
	if (r == 0)
		list_virtual(&l);
	if (r < 0 && l.used == 0) {
		fuse_reply_err(req, -r);
		return;
	}
	if (l.used > 0)
		keep_stream(o, move_ptr(s));
	if (fuse_reply_buf(req, data, l.used) == -ENOENT && plus)
		forget_reply(&l);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	list(req, ino, size, offset, false);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	list(req, ino, size, offset, true);
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fuse_reply_err(req, ENOSYS);
}

static void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	cleanup_close int fd = overlay_open_node(overlay_of(req), ino, O_RDONLY | O_DIRECTORY, NULL);
	int r = fd < 0 ? fd : (datasync ? fdatasync(fd) : fsync(fd)) < 0 ? -errno : 0;
	fuse_reply_err(req, -r);
}

void overlay_ops_directories(struct fuse_lowlevel_ops *ops)
{
	ops->opendir = op_opendir;
	ops->readdir = op_readdir;
	ops->readdirplus = op_readdirplus;
	ops->fsyncdir = op_fsyncdir;
}
