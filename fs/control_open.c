/* Opens: who demands, who waits, which version is served, and what a handle reads. */
#include <fcntl.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "fs/control_private.h"

/* ---- handles ---- */

struct shared_handle *control_handle(struct control *c, uint64_t file, uint64_t ino, const struct fuse_file_info *fi,
                                     const struct requester *who, pid_t tid)
{
	struct shared_handle *h;
	if (handle_open(c->versions, file, ino, &h) < 0)
		return NULL;
	h->pid = who->pid;
	h->tid = tid;
	h->flags = (uint32_t)fi->flags;
	memcpy(h->command, who->command, sizeof h->command);
	return h;
}

static void handle_drop(struct control *c, struct shared_handle *h)
{
	bool lease = control_is_lease(h);
	struct shared_scratch *scratch = control_file_of(h->file) ? NULL : scratch_by_ino(c->versions, h->ino);
	handle_close(c->versions, h);
	if (scratch)
		scratch_closed(c->versions, scratch);
	if (lease)
		control_wake(c, CHANGED_STATUS);
}

/* The kernel keeps no pages of what we synthesize, and a close asks us only where something is applied by it. */
static void fill_file_info(struct control *c, const struct shared_handle *h, struct fuse_file_info *fi)
{
	const struct control_file *file = control_file_of(h->file);
	bool applies = file && file->write == WRITE_TEXT && (h->flags & O_ACCMODE) != O_RDONLY;
	fi->fh = handle_fh(c->versions, h);
	fi->direct_io = 1;
	fi->noflush = !applies;
}

static void handle_ready(struct control *c, struct shared_handle *h)
{
	handle_answered(h);
	if (control_is_lease(h))
		control_wake(c, CHANGED_STATUS);
}

struct opening {
	fuse_req_t req;
	struct fuse_file_info *fi;
	const struct requester *who;
	pid_t tid;
	bool resent;
};

static void open_version(struct control *c, const struct opening *o, struct shared_version *version)
{
	/* A server that died between making the handle and answering has left it: one open, one lease. */
	struct shared_handle *h = o->resent ? handle_answering(c->versions, o->tid, version->ino) : NULL;
	if (h)
		handle_close(c->versions, h);
	h = control_handle(c, version->file, version->ino, o->fi, o->who, o->tid);
	if (!h) {
		fuse_reply_err(o->req, ENFILE);
		return;
	}
	int r = control_write_begin(c, h, version);
	if (r < 0) {
		handle_drop(c, h);
		fuse_reply_err(o->req, -r);
		return;
	}
	fill_file_info(c, h, o->fi);
	if (fuse_reply_open(o->req, o->fi) == 0)
		handle_ready(c, h);
	else
		handle_drop(c, h); /* the opener is gone */
}

/* ---- demands ---- */

static bool is_retry(const struct control *c, pid_t tid, uint64_t file)
{
	for (size_t i = 0; i < CONTROL_RETRIES; i++)
		if (c->retries[i].tid == tid && c->retries[i].file == file && c->retries[i].until_ms > now_monotonic_ms())
			return true;
	return false;
}

static void answer_stale(struct control *c, fuse_req_t req, pid_t tid, uint64_t file)
{
	c->retries[c->next_retry++ % CONTROL_RETRIES] = (struct control_retry){tid, file, now_monotonic_ms() + CONTROL_RETRY_MS};
	fuse_reply_err(req, ESTALE);
}

/* The environment is ready. The inode that was opened must show what is true now, for its size is all that its reader
 * will see; else the kernel is sent to look the name up again. It does so once: a warm open that comes again is served
 * what its lookup found a moment ago. */
static void demand_answer(struct control *c, const struct opening *o, fuse_ino_t ino, uint64_t file, bool parked)
{
	cleanup_error struct error err = ERROR_INIT;
	struct shared_version *now, *asked;
	int r = control_refresh(c, file, parked, &now, &err);
	if (r < 0 || error_is_set(&err)) {
		fuse_reply_err(o->req, error_is_set(&err) ? error_reported_errno(&err) : -r);
		return;
	}
	asked = version_by_ino(c->versions, ino);
	if (asked == now || (asked && !parked && is_retry(c, o->tid, file)))
		open_version(c, o, asked);
	else
		answer_stale(c, o->req, o->tid, file);
}

static void demand_ended(void *arg, const struct error *err)
{
	struct parked *p = arg;
	struct control *c = p->c;
	struct opening o = {p->req, &p->fi, &p->who, p->tid, p->resent};
	control_unpark(p);
	if (err)
		fuse_reply_err(p->req, error_reported_errno(err));
	else
		demand_answer(c, &o, p->ino, p->file, true);
	free(p);
}

static void demand(struct control *c, const struct opening *o, struct shared_version *version)
{
	const struct control_file *file = control_file_of(version->file);
	const char *owner = control_service_of(c->env, version->file);
	if (file->demand != DEMAND_ENVIRONMENT && !owner) {
		fuse_reply_err(o->req, ESTALE);
		return;
	}
	struct parked *p = xcalloc(1, sizeof *p);
	*p = (struct parked){.req = o->req, .ino = version->ino, .file = version->file, .fi = *o->fi, .who = *o->who,
	                     .tid = o->tid, .resent = o->resent};
	cleanup_error struct error err = ERROR_INIT;
	int r = file->demand == DEMAND_FILE ? environment_demand_file(c->env, owner, o->who, demand_ended, p, &p->demand, &err)
	                                    : environment_demand(c->env, owner, o->who, demand_ended, p, &p->demand, &err);
	if (r == 1 && !(o->fi->flags & O_NONBLOCK) && control_park(c, p))
		return;
	if (r == 1)
		demand_cancel(p->demand); /* it goes on being provisioned */
	free(p);
	if (r == 0) {
		environment_tell(c->env); /* what the demand has just seen changed: it is answered before the next turn */
		demand_answer(c, o, version->ino, version->file, false);
	} else {
		fuse_reply_err(o->req, r < 0 ? -r : EAGAIN);
	}
}

/* ---- open ---- */

static void open_scratch(struct control *c, const struct opening *o, struct shared_scratch *s)
{
	struct shared_handle *h = control_handle(c, 0, s->ino, o->fi, o->who, o->tid);
	if (!h) {
		fuse_reply_err(o->req, ENFILE);
		return;
	}
	if (o->fi->flags & O_TRUNC)
		scratch_resize(c->versions, s, 0);
	fill_file_info(c, h, o->fi);
	if (fuse_reply_open(o->req, o->fi) == 0)
		handle_ready(c, h);
	else
		handle_drop(c, h);
}

static void open_file(struct control *c, fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, bool resent)
{
	struct requester who;
	struct opening o = {req, fi, &who, fuse_req_ctx(req)->pid, resent};
	if (!control_allows(c, req)) {
		fuse_reply_err(req, EACCES);
		return;
	}
	struct shared_version *version = version_by_ino(c->versions, ino);
	struct shared_scratch *scratch = version ? NULL : scratch_by_ino(c->versions, ino);
	const struct control_file *file = version ? control_file_of(version->file) : NULL;
	bool writes = (fi->flags & O_ACCMODE) != O_RDONLY || fi->flags & O_TRUNC;
	if (!file && !scratch) {
		fuse_reply_err(req, ESTALE);
		return;
	}
	if (file && writes && file->write == WRITE_REFUSED) {
		fuse_reply_err(req, EACCES);
		return;
	}
	requester_of(o.tid, &who);
	if (scratch)
		open_scratch(c, &o, scratch);
	else if (file->demand > DEMAND_HELD && (fi->flags & O_ACCMODE) != O_WRONLY)
		demand(c, &o, version);
	else
		open_version(c, &o, version);
}

static void open_delayed(struct control *c, struct delayed *d)
{
	open_file(c, d->req, d->ino, &d->fi, d->resent);
}

void control_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct control *c = fuse_req_userdata(req);
	if (!control_delay(c, &(struct delayed){.run = open_delayed, .req = req, .ino = ino}, NULL, fi))
		open_file(c, req, ino, fi, session_request_resent());
}

/* ---- create ---- */

/* The answer to a create is two: an entry, and an open file. */
static void reply_create(struct control *c, const struct opening *o, struct shared_handle *h, struct fuse_entry_param *entry,
                         _Atomic uint64_t *nlookup)
{
	fill_file_info(c, h, o->fi);
	atomic_fetch_add(nlookup, 1);
	if (fuse_reply_create(o->req, entry, o->fi) == 0) {
		handle_ready(c, h);
		return;
	}
	atomic_fetch_sub(nlookup, 1);
	handle_drop(c, h);
}

/* The process that deleted the name makes it anew: a replacement, by what it will have written at close. */
static void create_replacement(struct control *c, const struct opening *o, const struct control_file *file)
{
	struct shared_version *version;
	struct fuse_entry_param entry;
	char name[CONTROL_HIDDEN_NAME];
	if (file->write != WRITE_TEXT) {
		fuse_reply_err(o->req, EACCES);
		return;
	}
	if (!unlinked_take(c->p.unlinked, control_hidden_name(file, name), o->who->pid)) {
		fuse_reply_err(o->req, o->fi->flags & O_EXCL ? EEXIST : ESTALE); /* it is there: the kernel looks it up again */
		return;
	}
	environment_replaced(c->env, o->who->pid);
	int r = control_refresh(c, control_file_key(file, NULL), false, &version, NULL);
	o->fi->flags |= O_TRUNC;
	struct shared_handle *h = r < 0 ? NULL : control_handle(c, version->file, version->ino, o->fi, o->who, o->tid);
	if (!h) {
		fuse_reply_err(o->req, r < 0 ? -r : ENFILE);
		return;
	}
	control_write_begin(c, h, version);
	control_entry(c, version, &entry);
	reply_create(c, o, h, &entry, &version->nlookup);
}

static void create_scratch(struct control *c, const struct opening *o, const char *name, mode_t mode)
{
	struct shared_scratch *s;
	struct fuse_entry_param entry;
	int r = scratch_create(c->versions, name, mode & 07777, now_wall_ms(), &s);
	if (r == -EEXIST && (o->resent || !(o->fi->flags & O_EXCL))) {
		s = scratch_by_name(c->versions, name);
		r = o->fi->flags & O_TRUNC ? scratch_resize(c->versions, s, 0) : 0;
	}
	struct shared_handle *h = r < 0 ? NULL : control_handle(c, 0, s->ino, o->fi, o->who, o->tid);
	if (!h) {
		fuse_reply_err(o->req, r < 0 ? -r : ENFILE);
		return;
	}
	control_scratch_entry(c, s, &entry);
	reply_create(c, o, h, &entry, &s->nlookup);
}

void control_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct control *c = fuse_req_userdata(req);
	struct requester who;
	struct opening o = {req, fi, &who, fuse_req_ctx(req)->pid, session_request_resent()};
	const char *owner;
	const struct control_file *file = control_root_file(c->env, name, &owner);
	if (!control_allows(c, req) || parent != FUSE_ROOT_ID) {
		fuse_reply_err(req, control_allows(c, req) ? EPERM : EACCES);
		return;
	}
	requester_of(o.tid, &who);
	if (file)
		create_replacement(c, &o, file);
	else if (strcmp(name, "services") == 0)
		fuse_reply_err(req, EEXIST);
	else
		create_scratch(c, &o, name, mode);
}

/* ---- read ---- */

static void reply_part(fuse_req_t req, const char *data, uint64_t len, size_t size, off_t offset)
{
	if ((uint64_t)offset >= len)
		fuse_reply_buf(req, NULL, 0);
	else
		fuse_reply_buf(req, data + offset, len - (uint64_t)offset < size ? len - (uint64_t)offset : size);
}

/* Where in everything ever appended the handle reads. Its offsets leave out what was dropped before it came there; who seeks
 * by the file's size means that, though. With a new server the file may have begun anew, and its followers with it. */
static uint64_t growing_offset(struct control *c, struct shared_handle *h, uint64_t end, off_t offset)
{
	bool is_heir = h->server != c->p.shared->server_generation;
	h->server = c->p.shared->server_generation;
	if ((uint64_t)(offset + h->skip) <= end)
		return (uint64_t)(offset + h->skip);
	if ((uint64_t)offset <= end)
		atomic_store(&h->skip, 0);
	else if (is_heir)
		atomic_store(&h->skip, -offset);
	return (uint64_t)(offset + h->skip);
}

static void read_growing(struct control *c, fuse_req_t req, struct shared_handle *h, const struct control_file *file,
                         size_t size, off_t offset)
{
	struct shared_version *node = version_by_ino(c->versions, h->ino);
	if (!node) {
		fuse_reply_err(req, ESTALE);
		return;
	}
	const char *service = control_service_of(c->env, h->file);
	uint64_t at = growing_offset(c, h, file->growing->size(c->env, service, node), offset);
	cleanup_free char *buf = xcalloc(1, size);
	uint64_t from = at;
	size_t n = file->growing->read(c->env, service, node, &from, buf, size);
	atomic_fetch_add(&h->skip, (int64_t)(from - at));
	atomic_store(&h->position, from + n);
	fuse_reply_buf(req, buf, n);
}

/* What was opened for reading and writing shows what was written, at once; what is appended stands after the version. */
static void read_written(struct control *c, fuse_req_t req, struct shared_handle *h, size_t size, off_t offset)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	struct shared_version *version = version_by_ino(c->versions, h->ino);
	if (!(h->touched & HANDLE_WHOLE) && version)
		buffer_add(&text, version_bytes(c->versions, version), version->bytes.size);
	buffer_add(&text, blob_bytes(c->versions, &h->text), h->text.size);
	reply_part(req, text.data, text.len, size, offset);
}

void control_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct control *c = fuse_req_userdata(req);
	struct shared_handle *h = handle_get(c->versions, fi->fh);
	const struct control_file *file = h ? control_file_of(h->file) : NULL;
	struct shared_version *version = version_by_ino(c->versions, ino);
	struct shared_scratch *scratch = version ? NULL : scratch_by_ino(c->versions, ino);
	if (!h || (!version && !scratch))
		fuse_reply_err(req, EBADF);
	else if (scratch)
		reply_part(req, blob_bytes(c->versions, &scratch->text), scratch->text.size, size, offset);
	else if (file->growing)
		read_growing(c, req, h, file, size, offset);
	else if (file->write == WRITE_TEXT && (h->flags & O_ACCMODE) != O_RDONLY)
		read_written(c, req, h, size, offset);
	else
		reply_part(req, version_bytes(c->versions, version), version->bytes.size, size, offset);
}

void control_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct control *c = fuse_req_userdata(req);
	struct shared_handle *h = handle_get(c->versions, fi->fh);
	int r = 0;
	if (h) {
		r = control_write_end(c, h, HANDLE_WRITTEN | HANDLE_TRUNCATED);
		handle_drop(c, h);
	}
	fuse_reply_err(req, -r);
}
