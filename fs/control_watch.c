/* Who is told of a change.
 *
 * Those who poll(2): the kernel's poll handle is in the handle's record and is notified from here; that takes no lock that
 * a request could hold.
 *
 * Those who watch by inotify, to whom a change made by a server is nothing that happened: their kernel is told by a helper
 * process, which may wait where we may not (both steps take the directory's lock). First FUSE_NOTIFY_DELETE of the version
 * that was replaced, for a watch on it; then the path is touched through the mount, for watches on the directory and on
 * what stands there now. When somebody has looked up the new version already, the name no longer leads to the old one: then
 * the helper's first touch is led to that, by answering its lookup alone with it.
 *
 * Nothing is parked under a directory's lock here (unlink, create and rename are answered at once), so the helper always gets it.
 * Only files that somebody has looked up since the last time are told: without readers there is no helper.
 */
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/strv.h"
#include "fs/control_private.h"

/* ---- poll(2) ---- */

static unsigned ready_now(struct control *c, struct shared_handle *h)
{
	const struct control_file *file = control_file_of(h->file);
	struct shared_version *version = version_by_ino(c->versions, h->ino), *now;
	if (!file || file->poll == POLL_ALWAYS || !version)
		return POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM;
	if (file->poll == POLL_UNREAD) {
		const char *service = control_service_of(c->env, h->file);
		return h->position < file->growing->size(c->env, service, version) ? POLLIN | POLLRDNORM : 0;
	}
	bool changed = control_refresh(c, h->file, false, &now, NULL) < 0 || now != version;
	return changed ? POLLIN | POLLRDNORM | POLLPRI : 0;
}

void control_poll(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct fuse_pollhandle *ph)
{
	struct control *c = fuse_req_userdata(req);
	struct shared_handle *h = handle_get(c->versions, fi->fh);
	if (ph && h) {
		/* The number by which the kernel knows the poll must outlive this server, and libfuse shows it to nobody: it is the
		 * first member of its handle, in every version so far (lib/fuse_i.h). */
		uint64_t kernel_handle;
		memcpy(&kernel_handle, ph, sizeof kernel_handle);
		atomic_store(&h->poll, kernel_handle);
		const struct control_file *file = control_file_of(h->file);
		if (file && file->growing && file->growing->timed && !uv_is_active((uv_handle_t *)&c->log_timer))
			uv_timer_start(&c->log_timer, control_log_look, CONTROL_LOG_POLL_MS, CONTROL_LOG_POLL_MS);
	}
	if (ph)
		fuse_pollhandle_destroy(ph);
	if (h)
		fuse_reply_poll(req, ready_now(c, h));
	else
		fuse_reply_err(req, EBADF);
}

static void wake(struct control *c, const struct shared_handle *h)
{
	struct {
		struct fuse_out_header header;
		struct fuse_notify_poll_wakeup_out out;
	} message = {{sizeof message, FUSE_NOTIFY_POLL, 0}, {h->poll}};
	if (write(c->p.fd, &message, sizeof message) < 0)
		log_debug("control", "poll notification: %s", strerror(errno)); /* the mount is gone */
}

/* Makes the files concerned stale too, so that those who wake find what is new. */
void control_wake(struct control *c, unsigned what)
{
	control_stale(c, what);
	for (size_t i = 0; i < handle_end(c->versions); i++) {
		struct shared_handle *h = handle_at(c->versions, i);
		const struct control_file *file = h && h->poll ? control_file_of(h->file) : NULL;
		if (file && file->refreshed_by & what)
			wake(c, h);
	}
}

/* Nobody says when a log has grown. */
void control_log_look(uv_timer_t *timer)
{
	struct control *c = timer->data;
	bool any = false;
	for (size_t i = 0; i < handle_end(c->versions); i++) {
		struct shared_handle *h = handle_at(c->versions, i);
		const struct control_file *file = h && h->poll ? control_file_of(h->file) : NULL;
		if (!file || !file->growing || !file->growing->timed)
			continue;
		any = true;
		if (ready_now(c, h))
			wake(c, h);
	}
	if (!any)
		uv_timer_stop(timer);
}

/* ---- inotify ---- */

bool control_is_helper(const struct control *c, fuse_req_t req)
{
	return c->helper_runs && fuse_req_ctx(req)->pid == c->helper.pid;
}

struct shared_version *control_told_version(struct control *c, fuse_req_t req, uint64_t file)
{
	if (c->telling != TELL_TOUCH_OLD || !control_is_helper(c, req))
		return NULL;
	for (size_t i = 0; i < c->tell_count; i++)
		if (c->tell[i].file == file && c->tell[i].ino)
			return version_by_ino(c->versions, c->tell[i].ino);
	return NULL;
}

/* Each version that was seen has its place: one may be watched by one, the next by another. Those that the kernel has
 * forgotten meanwhile give theirs up. */
void control_tell_of(struct control *c, struct control_told told)
{
	for (size_t i = 0; i < c->pending_count; i++) {
		struct control_told *p = &c->pending[i];
		if (p->file == told.file && !version_by_ino(c->versions, p->ino)) {
			*p = told;
			return;
		}
	}
	if (c->pending_count < CONTROL_TELL_MAX)
		c->pending[c->pending_count++] = told;
}

/* Renders what somebody has seen and is stale: only what really is another version by now is told. */
static void refresh_seen(struct control *c)
{
	for (size_t i = 0; i < version_end(c->versions); i++) {
		struct shared_version *version = version_at(c->versions, i), *now;
		if (version && version->state == VERSION_LIVE && c->views[i].seen && c->views[i].stale)
			control_refresh(c, version->file, false, &now, NULL);
	}
}

static bool is_told(const struct control *c, uint64_t file)
{
	for (size_t i = 0; i < c->tell_count; i++)
		if (c->tell[i].file == file)
			return true;
	return false;
}

/* One version of each file at a time, for a name leads to one; the others' turn comes next. */
static void choose(struct control *c)
{
	size_t left = 0;
	c->tell_count = 0;
	refresh_seen(c);
	for (size_t i = 0; i < c->pending_count; i++) {
		struct control_told told = c->pending[i];
		if (is_told(c, told.file) && version_by_ino(c->versions, told.ino))
			c->pending[left++] = told;
		else if (!is_told(c, told.file))
			c->tell[c->tell_count++] = told;
	}
	c->pending_count = left;
	/* Who watches the directory need not have looked anything up. */
	for (size_t i = 0; i < control_files_count; i++) {
		const struct control_file *file = &control_files[i];
		uint64_t key = control_file_key(file, NULL);
		bool unknown = file->place == IN_ROOT && !file->growing && file->refreshed_by & c->untold && !is_told(c, key) &&
		               !version_current(c->versions, key);
		if (unknown && c->tell_count < CONTROL_TELL_MAX)
			c->tell[c->tell_count++] = (struct control_told){.file = key};
	}
	c->untold = 0;
}

/* Has the name been looked up again, so that it leads to a later version? */
static bool leads_elsewhere(struct control *c, const struct control_told *told)
{
	struct shared_version *now = version_current(c->versions, told->file);
	return version_by_ino(c->versions, told->ino) && now && now->ino != told->ino && now->nlookup > 0;
}

static char **touch_arguments(struct control *c, bool old)
{
	char **argv = NULL;
	strv_pushf(&argv, "%s", c->p.helper);
	strv_pushf(&argv, "touch");
	for (size_t i = 0; i < c->tell_count; i++) {
		const struct control_file *file = control_file_of(c->tell[i].file);
		cleanup_free char *path = control_file_path(c->env, c->tell[i].file);
		if (!path || (old && !leads_elsewhere(c, &c->tell[i])))
			continue;
		strv_pushf(&argv, "%s/%s", c->p.control_dir, path);
		if (!old && file->place == IN_ROOT && file->write == WRITE_TEXT)
			strv_pushf(&argv, "%s/.%s", c->p.root, file->name);
		if (!old && file->place == IN_ENV_FILES)
			strv_pushf(&argv, "%s/%s", c->p.root, control_service_of(c->env, c->tell[i].file));
	}
	return argv;
}

/* One record for each version that was replaced: a notification, as it is written to the descriptor. */
static void delete_records(struct control *c, struct buffer *out)
{
	for (size_t i = 0; i < c->tell_count; i++) {
		const struct control_file *file = control_file_of(c->tell[i].file);
		const char *service = file->place == IN_SERVICE ? control_service_of(c->env, c->tell[i].file) : NULL;
		struct shared_version *dir = service ? version_current(c->versions, control_dir_key(service)) : NULL;
		cleanup_free char *path = control_file_path(c->env, c->tell[i].file);
		if (!path || !version_by_ino(c->versions, c->tell[i].ino) || (file->place == IN_SERVICE && !dir))
			continue;
		const char *name = file->place == IN_SERVICE ? file->name : path;
		struct fuse_notify_delete_out delete = {
			.parent = dir ? dir->ino : FUSE_ROOT_ID, .child = c->tell[i].ino, .namelen = (uint32_t)strlen(name)};
		uint32_t len = (uint32_t)(sizeof(struct fuse_out_header) + sizeof delete) + delete.namelen + 1;
		struct fuse_out_header header = {.len = len, .error = FUSE_NOTIFY_DELETE};
		buffer_add(out, &len, sizeof len);
		buffer_add(out, &header, sizeof header);
		buffer_add(out, &delete, sizeof delete);
		buffer_add(out, name, delete.namelen + 1);
	}
}

static void tell_next(struct control *c);

static void helper_closed(uv_handle_t *handle)
{
	struct control *c = handle->data;
	c->helper_runs = false;
	if (--c->uv_handles > 0 && !c->closing)
		tell_next(c);
	else if (c->uv_handles == 0)
		control_closed(c);
}

static void helper_ended(uv_process_t *process, int64_t status, int signal)
{
	if (status || signal)
		log_debug("control", "the helper ended with %d, signal %d", (int)status, signal);
	if (!uv_is_closing((uv_handle_t *)process))
		uv_close((uv_handle_t *)process, helper_closed);
}

/* `input` is the helper's standard input, -1: none. With it the device is its descriptor 3. */
static int run_helper(struct control *c, char **argv, int input)
{
	uv_stdio_container_t stdio[4] = {
		{.flags = input < 0 ? UV_IGNORE : UV_INHERIT_FD, .data.fd = input},
		{.flags = UV_IGNORE},
		{.flags = UV_INHERIT_FD, .data.fd = 2},
		{.flags = UV_INHERIT_FD, .data.fd = c->p.fd},
	};
	uv_process_options_t options = {
		.file = argv[0], .args = argv, .exit_cb = helper_ended, .stdio = stdio, .stdio_count = input < 0 ? 3 : 4};
	c->helper = (uv_process_t){.data = c};
	int r = uv_spawn(c->p.loop, &c->helper, &options);
	c->uv_handles++;
	c->helper_runs = true;
	if (r < 0) {
		log_warning("control", "%s: %s", argv[0], uv_strerror(r));
		uv_close((uv_handle_t *)&c->helper, helper_closed);
	}
	return r;
}

/* The records fit in a pipe: CONTROL_TELL_MAX of them are a few thousand bytes, and nobody waits. */
static bool run_delete(struct control *c)
{
	cleanup_buffer struct buffer records = BUFFER_INIT;
	delete_records(c, &records);
	int fds[2];
	if (records.len == 0 || pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return false;
	cleanup_close int in = fds[0], out = fds[1];
	if (write(out, records.data, records.len) != (ssize_t)records.len)
		return false;
	char *argv[] = {(char *)c->p.helper, (char *)"notify", (char *)"3", NULL};
	run_helper(c, argv, in);
	return true;
}

static bool run_touch(struct control *c, bool old)
{
	cleanup_strv char **argv = touch_arguments(c, old);
	if (strv_len(argv) <= 2)
		return false;
	run_helper(c, argv, -1);
	return true;
}

/* The steps, one helper after the other; a step with nothing to do is passed over. */
static void tell_next(struct control *c)
{
	for (;;) {
		c->telling = c->telling == TELL_TOUCH ? TELL_NOTHING : c->telling + 1;
		if (c->telling == TELL_NOTHING)
			return;
		if (c->telling == TELL_DELETE ? run_delete(c) : run_touch(c, c->telling == TELL_TOUCH_OLD))
			return;
	}
}

void control_tell_now(uv_timer_t *timer)
{
	struct control *c = timer->data;
	if (c->telling != TELL_NOTHING) {
		uv_timer_start(timer, control_tell_now, CONTROL_TELL_DELAY_MS, 0);
		return;
	}
	choose(c);
	if (c->tell_count == 0)
		return;
	c->told_ms = now_monotonic_ms();
	if (c->pending_count)
		uv_timer_start(timer, control_tell_now, CONTROL_TELL_INTERVAL_MS, 0);
	tell_next(c);
}

static bool anybody_to_tell(struct control *c, unsigned what)
{
	for (size_t i = 0; i < version_end(c->versions); i++) {
		struct shared_version *version = version_at(c->versions, i);
		const struct control_file *file = version ? control_file_of(version->file) : NULL;
		if (file && c->views[i].seen && file->refreshed_by & what)
			return true;
	}
	return c->untold & what;
}

void control_tell(struct control *c, unsigned what)
{
	if (!c->p.helper || uv_is_active((uv_handle_t *)&c->tell_timer) || !anybody_to_tell(c, what))
		return;
	uint64_t now = now_monotonic_ms(), next = c->told_ms + CONTROL_TELL_INTERVAL_MS;
	uint64_t wait = c->told_ms && next > now + CONTROL_TELL_DELAY_MS ? next - now : CONTROL_TELL_DELAY_MS;
	uv_timer_start(&c->tell_timer, control_tell_now, wait, 0);
}

void control_watch_end(struct control *c)
{
	if (!c->helper_runs || uv_is_closing((uv_handle_t *)&c->helper))
		return;
	uv_process_kill(&c->helper, SIGKILL);
	uv_close((uv_handle_t *)&c->helper, helper_closed);
}
