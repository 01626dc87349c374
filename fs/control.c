/* The control file system: its life, its versions and their attributes. */
#include "fs/control_private.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"

#define DIRECTORY_S 1.0 /* services come and go with the configuration */

bool control_allows(const struct control *c, fuse_req_t req)
{
	uid_t uid = fuse_req_ctx(req)->uid;
	return uid == 0 || uid == c->p.owner;
}

/* ---- versions ---- */

static bool is_fresh(const struct control *c, const struct control_file *file, const struct shared_version *version)
{
	const struct control_view *view = &c->views[version_index(c->versions, version)];
	if (view->stale)
		return false;
	return file->max_age_ms == 0 || now_monotonic_ms() - view->rendered_ms < file->max_age_ms;
}

static int publish(struct control *c, uint64_t file, const char *data, size_t len, struct shared_version **ret)
{
	struct shared_version *old = version_current(c->versions, file);
	struct control_told told = {file, old && c->views[version_index(c->versions, old)].seen ? old->ino : 0};
	int r = version_publish(c->versions, file, data, len, now_wall_ms(), ret);
	if (r < 0) {
		log_warning("control", "no room for another version: %s", strerror(-r));
		return r;
	}
	struct control_view *view = &c->views[version_index(c->versions, *ret)];
	if (*ret != old)
		*view = (struct control_view){0};
	if (*ret != old && told.ino)
		control_tell_of(c, told);
	view->stale = false;
	view->rendered_ms = now_monotonic_ms();
	return 0;
}

/* Directories and growing files: what they are never changes, so the one that is there stays. */
static int find_plain(struct control *c, uint64_t key, struct shared_version **ret)
{
	*ret = version_current(c->versions, key);
	return *ret ? 0 : publish(c, key, NULL, 0, ret);
}

int control_refresh(struct control *c, uint64_t key, bool force, struct shared_version **ret, struct error *err)
{
	const struct control_file *file = control_file_of(key);
	const char *service = control_service_of(c->env, key);
	if (!service && key >> 8)
		return -ESTALE;
	if (!file || file->growing)
		return find_plain(c, key, ret);
	struct shared_version *current = version_current(c->versions, key);
	if (current && !force && is_fresh(c, file, current)) {
		*ret = current;
		return 0;
	}
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_error struct error own = ERROR_INIT;
	bool failed = file->render(c->env, service, &text, &own) < 0;
	if (failed)
		buffer_clear(&text);
	int r = publish(c, key, text.data, text.len, ret);
	if (r == 0 && failed)
		c->views[version_index(c->versions, *ret)].stale = true; /* the next one tries again */
	if (failed && err)
		error_move(err, &own);
	return r;
}

void control_stale(struct control *c, unsigned what)
{
	for (size_t i = 0; i < version_end(c->versions); i++) {
		struct shared_version *version = version_at(c->versions, i);
		const struct control_file *file = version ? control_file_of(version->file) : NULL;
		if (file && file->refreshed_by & what)
			c->views[i].stale = true;
	}
}

/* ---- attributes ---- */

static void fill(const struct control *c, uint64_t ino, mode_t mode, uint64_t size, int64_t mtime_ms, struct stat *ret)
{
	*ret = (struct stat){
		.st_ino = ino,
		.st_mode = mode,
		.st_nlink = S_ISDIR(mode) ? 2 : 1,
		.st_uid = c->p.owner,
		.st_gid = getegid(),
		.st_size = (off_t)size,
		.st_blksize = 4096,
		.st_blocks = (blkcnt_t)((size + 511) / 512),
		.st_mtim = {.tv_sec = mtime_ms / 1000, .tv_nsec = mtime_ms % 1000 * 1000000},
	};
	ret->st_atim = ret->st_ctim = ret->st_mtim;
}

static uint64_t growing_size(struct control *c, const struct control_file *file, struct shared_version *node)
{
	uint64_t before = node->base + node->bytes.size;
	uint64_t size = file->growing->size(c->env, control_service_of(c->env, node->file), node);
	if (size != before) {
		node->mtime_ms = now_wall_ms();
		atomic_store(&node->bytes.size, size - node->base);
	}
	return size;
}

void control_attr(struct control *c, struct shared_version *version, struct stat *ret)
{
	const struct control_file *file = control_file_of(version->file);
	if (!file)
		fill(c, version->ino, S_IFDIR | 0700, 0, version->mtime_ms, ret);
	else if (file->growing) {
		uint64_t size = growing_size(c, file, version);
		fill(c, version->ino, S_IFREG | file->mode, size, version->mtime_ms, ret);
	} else
		fill(c, version->ino, S_IFREG | file->mode, version->bytes.size, version->mtime_ms, ret);
}

void control_scratch_attr(const struct control *c, const struct shared_scratch *s, struct stat *ret)
{
	fill(c, s->ino, S_IFREG | (s->mode & 07777), s->text.size, s->mtime_ms, ret);
	ret->st_nlink = scratch_name(s) ? 1 : 0;
}

/* How long the kernel may believe attributes: a version's for ever, a growing file's not at all. */
static double attr_timeout(const struct shared_version *version)
{
	const struct control_file *file = control_file_of(version->file);
	return !file ? DIRECTORY_S : file->growing ? 0 : CONTROL_FOREVER_S;
}

void control_entry(struct control *c, struct shared_version *version, struct fuse_entry_param *ret)
{
	*ret = (struct fuse_entry_param){.ino = version->ino, .attr_timeout = attr_timeout(version)};
	if (!control_file_of(version->file))
		ret->entry_timeout = DIRECTORY_S;
	control_attr(c, version, &ret->attr);
}

void control_scratch_entry(struct control *c, const struct shared_scratch *s, struct fuse_entry_param *ret)
{
	*ret = (struct fuse_entry_param){.ino = s->ino};
	control_scratch_attr(c, s, &ret->attr);
}

void control_directory_attr(const struct control *c, uint64_t ino, struct stat *ret)
{
	fill(c, ino, S_IFDIR | 0700, 0, c->mounted_ms, ret);
	ret->st_nlink = 3;
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct control *c = fuse_req_userdata(req);
	struct stat st;
	if (!control_allows(c, req)) {
		fuse_reply_err(req, EACCES);
		return;
	}
	if (ino == FUSE_ROOT_ID || ino == CONTROL_INO_SERVICES) {
		control_directory_attr(c, ino, &st);
		fuse_reply_attr(req, &st, CONTROL_FOREVER_S);
		return;
	}
	struct shared_version *version = version_by_ino(c->versions, ino);
	struct shared_scratch *scratch = version ? NULL : scratch_by_ino(c->versions, ino);
	if (version) {
		control_attr(c, version, &st);
		fuse_reply_attr(req, &st, attr_timeout(version));
	} else if (scratch) {
		control_scratch_attr(c, scratch, &st);
		fuse_reply_attr(req, &st, 0);
	} else
		fuse_reply_err(req, ESTALE);
}

/* Owners and times are taken and forgotten, modes too but for scratch files: an editor or tar that sets them must not fail. */
static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	struct control *c = fuse_req_userdata(req);
	int r = control_allows(c, req) ? 0 : -EACCES;
	if (r == 0 && to_set & FUSE_SET_ATTR_SIZE)
		r = control_truncate(c, ino, fuse_req_ctx(req)->pid, (uint64_t)attr->st_size, fi);
	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	struct shared_scratch *scratch = scratch_by_ino(c->versions, ino);
	if (scratch && to_set & FUSE_SET_ATTR_MODE)
		scratch->mode = attr->st_mode & 07777;
	if (scratch && to_set & FUSE_SET_ATTR_MTIME)
		scratch->mtime_ms = to_set & FUSE_SET_ATTR_MTIME_NOW ? now_wall_ms()
		                                                     : attr->st_mtim.tv_sec * 1000 + attr->st_mtim.tv_nsec / 1000000;
	op_getattr(req, ino, fi);
}

/* ---- the rest ---- */

/* With an atomic O_TRUNC the kernel makes the size of the inode 0 for all who have it open, unasked: but they read on what
 * it held, and its new text is another inode. So the truncation comes as a request of its own. */
static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	conn->want &= ~(unsigned)FUSE_CAP_ATOMIC_O_TRUNC;
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	fuse_reply_err(req, 0);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs st = {
		.f_bsize = 4096,
		.f_frsize = 4096,
		.f_blocks = SCRATCH_BYTES_MAX / 4096,
		.f_files = SHARED_SCRATCH_MAX,
		.f_namemax = 255,
	};
	struct control *c = fuse_req_userdata(req);
	uint64_t used = 0;
	st.f_ffree = SHARED_SCRATCH_MAX;
	for (size_t i = 0; i < scratch_end(c->versions); i++) {
		struct shared_scratch *s = scratch_at(c->versions, i);
		used += s ? s->text.size : 0;
		st.f_ffree -= s != NULL;
	}
	st.f_bfree = st.f_bavail = (SCRATCH_BYTES_MAX - used) / 4096;
	st.f_favail = st.f_ffree;
	fuse_reply_statfs(req, &st);
}

const struct fuse_lowlevel_ops *control_ops(size_t *ret_size)
{
	/* No access, xattr, lock or lseek: ENOSYS once, and the kernel asks no more. */
	static const struct fuse_lowlevel_ops ops = {
		.init = op_init,
		.lookup = control_lookup,
		.forget = control_forget,
		.forget_multi = control_forget_multi,
		.getattr = op_getattr,
		.setattr = op_setattr,
		.mknod = control_mknod,
		.mkdir = control_mkdir,
		.unlink = control_unlink,
		.rmdir = control_rmdir,
		.symlink = control_symlink,
		.rename = control_rename,
		.link = control_link,
		.open = control_open,
		.create = control_create,
		.read = control_read,
		.write = control_write,
		.flush = control_flush,
		.release = control_release,
		.fsync = op_fsync,
		.opendir = control_opendir,
		.readdir = control_readdir,
		.statfs = op_statfs,
		.poll = control_poll,
	};
	*ret_size = sizeof ops;
	return &ops;
}

/* ---- life ---- */

static void handles_of_old_files(struct control *c)
{
	for (size_t i = 0; i < handle_end(c->versions); i++) {
		struct shared_handle *h = handle_at(c->versions, i);
		const struct control_file *file = h ? control_file_of(h->file) : NULL;
		if (file && file->growing && file->growing->timed && h->poll)
			uv_timer_start(&c->log_timer, control_log_look, CONTROL_LOG_POLL_MS, CONTROL_LOG_POLL_MS);
	}
}

static void add_timer(struct control *c, uv_timer_t *timer)
{
	timer->data = c;
	uv_timer_init(c->p.loop, timer); /* cannot fail */
	c->uv_handles++;
}

int control_new(const struct control_params *params, struct control **ret, struct error *err)
{
	struct control *c = xcalloc(1, sizeof *c);
	c->p = *params;
	c->mounted_ms = now_wall_ms();
	c->untold = ~0u;
	add_timer(c, &c->signal_timer);
	add_timer(c, &c->log_timer);
	add_timer(c, &c->tell_timer);
	add_timer(c, &c->settle_timer);
	c->delayed_tail = &c->delayed;
	uv_timer_start(&c->settle_timer, control_settle_now, CONTROL_SETTLE_MS, 0);
	c->versions = versions_new(params->shared);
	for (size_t i = 0; i < SHARED_VERSION_MAX; i++) /* an earlier server's: who looks is unknown, and so is what changed */
		c->views[i] = (struct control_view){.stale = true, .seen = true};
	handles_of_old_files(c);
	*ret = c;
	return 0;
}

void control_set_environment(struct control *c, struct environment *e)
{
	c->env = e;
}

void control_set_session(struct control *c, struct session *s)
{
	c->session = s;
}

void control_changed(struct control *c, unsigned what)
{
	if (c->closing)
		return;
	control_wake(c, what);
	if (what & CHANGED_SERVICES) /* the first time says that there are any, or none */
		control_settle(c);
	control_tell(c, what);
}

bool control_is_lease(const struct shared_handle *h)
{
	const struct control_file *file = control_file_of(h->file);
	return file && file->demand != DEMAND_NONE && (h->flags & O_ACCMODE) != O_WRONLY;
}

static json_t *lease_of(struct control *c, const struct shared_handle *h)
{
	cleanup_free char *path = control_file_path(c->env, h->file);
	json_t *name = json_string(path ? path : control_file_of(h->file)->name);
	json_t *command = json_stringn(h->command, strnlen(h->command, sizeof h->command));
	return json_pack("{s:i, s:o, s:o}", "pid", (int)h->pid, "command",
	                 command ? command : json_string("?") /* not UTF-8 */, "file", name);
}

json_t *control_leases(struct control *c)
{
	json_t *leases = json_array();
	for (size_t i = 0; i < handle_end(c->versions); i++) {
		struct shared_handle *h = handle_at(c->versions, i);
		if (h && control_is_lease(h))
			json_array_append_new(leases, lease_of(c, h));
	}
	return leases;
}

void control_closed(struct control *c)
{
	versions_free(c->versions);
	free(c);
}

static void timer_closed(uv_handle_t *timer)
{
	struct control *c = timer->data;
	if (--c->uv_handles == 0)
		control_closed(c);
}

void control_free(struct control *c)
{
	if (!c)
		return;
	c->closing = true;
	control_delay_end(c);
	control_park_end(c);
	uv_timer_t *all[] = {&c->signal_timer, &c->log_timer, &c->tell_timer, &c->settle_timer};
	control_watch_end(c);
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		uv_close((uv_handle_t *)all[i], timer_closed);
}
