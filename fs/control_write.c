/* What is written: the user's lines of `env`, applied at close; commands to `ctl`, one a write; scratch files. */
#include <fcntl.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "fs/control_private.h"

/* ---- env ---- */

static bool writes_text(const struct shared_handle *h)
{
	const struct control_file *file = control_file_of(h->file);
	return file && file->write == WRITE_TEXT && (h->flags & O_ACCMODE) != O_RDONLY;
}

/* A handle that does not append begins with what the file holds, so that writing in place works. */
int control_write_begin(struct control *c, struct shared_handle *h, const struct shared_version *version)
{
	if (!writes_text(h))
		return 0;
	if (h->flags & O_TRUNC) {
		atomic_store(&h->touched, HANDLE_TRUNCATED | HANDLE_WHOLE);
		return 0;
	}
	if (h->flags & O_APPEND)
		return 0;
	atomic_store(&h->touched, HANDLE_WHOLE);
	return blob_write(c->versions, &h->text, 0, version_bytes(c->versions, version), version->bytes.size,
	                  version->bytes.size);
}

int control_replace_env(struct control *c, const char *owner, const char *text, size_t len)
{
	cleanup_error struct error err = ERROR_INIT;
	int r = owner ? environment_write_file(c->env, owner, text, len, &err) : environment_write_env(c->env, text, len, &err);
	if (r < 0)
		log_warning("control", "the user's lines were not written: %s", err.message ? err.message : strerror(-r));
	control_stale(c, CHANGED_ENV | CHANGED_ENV_OWN);
	return r;
}

/* Two that append at once must both stand: what is appended goes to the end of what the file holds by then. */
static int append_env(struct control *c, struct shared_handle *h, const char *owner)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_error struct error err = ERROR_INIT;
	int r = owner ? environment_file(c->env, owner, &text, &err) : environment_env(c->env, &text, &err);
	if (r < 0)
		return r;
	buffer_add(&text, blob_bytes(c->versions, &h->text), h->text.size);
	return control_replace_env(c, owner, text.data, text.len);
}

int control_write_end(struct control *c, struct shared_handle *h, unsigned touched)
{
	if (!writes_text(h) || !(h->touched & touched))
		return 0;
	bool whole = h->touched & HANDLE_WHOLE;
	const char *owner = control_service_of(c->env, h->file);
	if (!owner && h->file >> 8)
		return -ESTALE;
	int r = whole ? control_replace_env(c, owner, blob_bytes(c->versions, &h->text), h->text.size) : append_env(c, h, owner);
	if (r == 0 && !whole)
		blob_resize(c->versions, &h->text, 0, 0);
	atomic_fetch_and(&h->touched, ~(uint32_t)(HANDLE_WRITTEN | HANDLE_TRUNCATED));
	return r;
}

/* The shell closes a descriptor several times before anything is written: `> .env` alone is applied by the last close,
 * what was written by each. */
void control_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct control *c = fuse_req_userdata(req);
	struct shared_handle *h = handle_get(c->versions, fi->fh);
	fuse_reply_err(req, h ? -control_write_end(c, h, HANDLE_WRITTEN) : EBADF);
}

/* Opened to append, it holds the whole file from here on. */
static int make_whole(struct control *c, struct shared_handle *h)
{
	const struct shared_version *version = version_by_ino(c->versions, h->ino);
	cleanup_buffer struct buffer whole = BUFFER_INIT;
	if (version)
		buffer_add(&whole, version_bytes(c->versions, version), version->bytes.size);
	buffer_add(&whole, blob_bytes(c->versions, &h->text), h->text.size);
	return blob_write(c->versions, &h->text, 0, whole.data, whole.len, CONTROL_TEXT_MAX);
}

static int truncate_handle(struct control *c, struct shared_handle *h, uint64_t size)
{
	int r = h->touched & HANDLE_WHOLE ? 0 : make_whole(c, h);
	if (r == 0)
		r = blob_resize(c->versions, &h->text, size, CONTROL_TEXT_MAX);
	if (r == 0)
		atomic_fetch_or(&h->touched, HANDLE_WHOLE | HANDLE_TRUNCATED);
	return r;
}

static int truncate_version(struct control *c, const struct shared_version *version, uint64_t size)
{
	if (size > CONTROL_TEXT_MAX)
		return -EFBIG;
	cleanup_free char *text = xcalloc(1, size + 1);
	memcpy(text, version_bytes(c->versions, version), size < version->bytes.size ? size : version->bytes.size);
	return control_replace_env(c, control_service_of(c->env, version->file), text, size);
}

/* The truncation of an open with O_TRUNC comes without the handle, which the same thread has just got: it must not be
 * applied before the close. One that comes again from a server's death may have been noted already. NULL: there is
 * none, it was truncate(2). */
static struct shared_handle *handle_just_opened(struct control *c, fuse_ino_t ino, pid_t tid)
{
	uint32_t not_before = HANDLE_WRITTEN | (session_request_resent() ? 0 : HANDLE_TRUNCATED);
	for (size_t i = 0; i < handle_end(c->versions); i++) {
		struct shared_handle *h = handle_at(c->versions, i);
		if (h && h->tid == tid && h->ino == ino && writes_text(h) && !(h->touched & not_before))
			return h;
	}
	return NULL;
}

int control_truncate(struct control *c, fuse_ino_t ino, pid_t tid, uint64_t size, struct fuse_file_info *fi)
{
	struct shared_scratch *scratch = scratch_by_ino(c->versions, ino);
	if (scratch)
		return scratch_resize(c->versions, scratch, size);
	struct shared_version *version = version_by_ino(c->versions, ino);
	const struct control_file *file = version ? control_file_of(version->file) : NULL;
	struct shared_handle *h = fi          ? handle_get(c->versions, fi->fh)
	                          : size == 0 ? handle_just_opened(c, ino, tid)
	                                      : NULL;
	if (!file)
		return -ESTALE;
	if (file->write == WRITE_COMMAND)
		return 0; /* `>` to it, in two steps */
	if (file->write != WRITE_TEXT)
		return -EACCES;
	return h && writes_text(h) ? truncate_handle(c, h, size) : truncate_version(c, version, size);
}

/* A write that comes again from a server's death may have been done: then its bytes stand at the end. */
static bool appended_already(struct control *c, const struct shared_blob *b, const char *buf, size_t size)
{
	return session_request_resent() && b->size >= size &&
	       memcmp(blob_bytes(c->versions, b) + b->size - size, buf, size) == 0;
}

static int write_text(struct control *c, struct shared_handle *h, const char *buf, size_t size, uint64_t offset)
{
	if (h->flags & O_APPEND)
		offset = h->text.size;
	if (h->flags & O_APPEND && appended_already(c, &h->text, buf, size))
		return 0;
	int r = blob_write(c->versions, &h->text, offset, buf, size, CONTROL_TEXT_MAX);
	if (r == 0)
		atomic_fetch_or(&h->touched, HANDLE_WRITTEN);
	return r;
}

static int write_scratch(struct control *c, struct shared_scratch *s, const struct shared_handle *h, const char *buf,
                         size_t size, uint64_t offset)
{
	if (h->flags & O_APPEND)
		offset = s->text.size;
	if (h->flags & O_APPEND && appended_already(c, &s->text, buf, size))
		return 0;
	s->mtime_ms = now_wall_ms();
	return scratch_write(c->versions, s, offset, buf, size);
}

/* ---- ctl ---- */

static void command_ended(void *arg, const struct error *err)
{
	struct parked *p = arg;
	if (p->c) {
		control_unpark(p);
		if (err)
			fuse_reply_err(p->req, error_reported_errno(err));
		else
			fuse_reply_write(p->req, p->size);
	}
	free(p);
}

/* One line, with or without its end. */
static char *command_of(const char *buf, size_t size)
{
	if (size > 0 && buf[size - 1] == '\n')
		size--;
	bool is_line = size > 0 && size <= CONTROL_COMMAND_MAX && !memchr(buf, '\n', size) && !memchr(buf, '\0', size);
	return is_line ? xstrndup(buf, size) : NULL;
}

static void write_command(struct control *c, fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size)
{
	cleanup_free char *line = command_of(buf, size);
	if (!line) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	struct parked *p = xcalloc(1, sizeof *p);
	*p = (struct parked){.req = req, .ino = ino, .size = size, .tid = fuse_req_ctx(req)->pid};
	requester_of(p->tid, &p->who);
	if (!control_park(c, p)) {
		free(p);
		fuse_reply_err(req, EAGAIN);
		return;
	}
	environment_command(c->env, line, &p->who, command_ended, p);
}

/* ---- write ---- */

void control_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct control *c = fuse_req_userdata(req);
	struct shared_handle *h = handle_get(c->versions, fi->fh);
	const struct control_file *file = h ? control_file_of(h->file) : NULL;
	struct shared_scratch *scratch = h && !file ? scratch_by_ino(c->versions, ino) : NULL;
	int r = -EBADF;
	if (file && file->write == WRITE_COMMAND) {
		write_command(c, req, ino, buf, size);
		return;
	}
	if (scratch)
		r = write_scratch(c, scratch, h, buf, size, (uint64_t)offset);
	else if (h && writes_text(h))
		r = write_text(c, h, buf, size, (uint64_t)offset);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_write(req, size);
}
