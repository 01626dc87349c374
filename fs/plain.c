#include "fs/plain.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "fs/control_files.h"
#include "provisioner/envfile.h"
#include "provisioner/layers.h"
#include "provisioner/native.h"

#define AREA "plain"
#define PEERS_MAX 256 /* commands and leases at a time */
#define BACKLOG 16
#define NEW_ENV NATIVE_DIRECTORY "/.env.new"
#define WRITE_DELAY_MS 20 /* changes come in bursts */

struct env_text {
	char *path, *name; /* name: in .aether/ */
	uint64_t hash;
};

struct plain {
	struct plain_params p;
	uv_pipe_t listener;
	uv_timer_t timer;
	unsigned changed;           /* not written yet; enum environment_change */
	uint64_t *hashes;           /* of what each file of control_files holds; 0: not written yet */
	struct env_text *texts;     /* of x-aether.env_files */
	size_t n_texts;
	const char *env_name;       /* of what was written; static */
	uint64_t env_hash;
	uint64_t env_stamp;         /* of `.env` as it was written, or is to be written over */
	struct peer *peers;
	unsigned n_peers;
};

struct peer {
	struct plain *p;
	struct peer *next;
	uv_pipe_t pipe;
	struct buffer line;
	struct requester who;
	struct demand *demand;
	bool begun, ended, closed; /* ended: of a command, whose answer comes in any case */
	bool is_demand, leases;
	json_t *answer; /* on success; NULL: {} */
};

/* ---- files ---- */

static int write_file(int root_fd, const char *path, const struct buffer *text, uint64_t *hash)
{
	uint64_t now = hash_bytes(HASH_INIT, buffer_str(text), text->len) | 1;
	if (now == *hash)
		return 0;
	int r = file_write_atomic(root_fd, path, buffer_str(text), text->len, 0600);
	if (!r)
		*hash = now;
	return r;
}

/* A text that cannot be made now stays what it was: errors.json tells why. */
static int write_one(struct plain *p, size_t i)
{
	const struct control_file *file = &control_files[i];
	cleanup_buffer struct buffer text = BUFFER_INIT;
	if (file->place != IN_ROOT || !file->render || file->write == WRITE_COMMAND || file->render(p->p.environment, NULL, &text, NULL) < 0)
		return 0;
	cleanup_free char *path = xasprintf(NATIVE_DIRECTORY "/%s", file->name);
	return write_file(p->p.root_fd, path, &text, &p->hashes[i]);
}

/* Those that were named, and are not any more, go. */
static void follow_texts(struct plain *p)
{
	struct environment *e = p->p.environment;
	for (size_t i = 0; i < p->n_texts; i++) {
		cleanup_free char *path = move_ptr(p->texts[i].path), *name = move_ptr(p->texts[i].name);
		bool stays = false;
		for (size_t k = 0; k < environment_file_count(e); k++)
			stays |= !strcmp(path, environment_file_path(e, k));
		cleanup_free char *old = xasprintf(NATIVE_DIRECTORY "/%s", name);
		if (!stays)
			unlinkat(p->p.root_fd, old, 0);
	}
	free(p->texts);
	p->n_texts = environment_file_count(e);
	p->texts = xcalloc(p->n_texts + 1, sizeof *p->texts);
	for (size_t i = 0; i < p->n_texts; i++) {
		p->texts[i].path = xstrdup(environment_file_path(e, i));
		p->texts[i].name = control_env_file_name(p->texts[i].path);
	}
}

static int write_texts(struct plain *p)
{
	int r = 0;
	for (size_t i = 0; i < p->n_texts; i++) {
		struct env_text *t = &p->texts[i];
		cleanup_buffer struct buffer text = BUFFER_INIT;
		cleanup_free char *path = xasprintf(NATIVE_DIRECTORY "/%s", t->name);
		int failed = environment_file(p->p.environment, t->path, &text, NULL) < 0 ? 0 : write_file(p->p.root_fd, path, &text, &t->hash);
		r = failed ? failed : r;
	}
	return r;
}

/* A link to the log of each service, which may come and go. */
static void link_logs(struct plain *p)
{
	struct environment *e = p->p.environment;
	for (size_t i = 0; i < environment_service_count(e); i++) {
		const char *name = environment_service_name(e, i);
		cleanup_free char *dir = xasprintf(NATIVE_DIRECTORY "/services/%s", name), *link = xasprintf("%s/log", dir);
		cleanup_free char *log = environment_service_log(e, name);
		char target[PATH_MAX];
		ssize_t n = log ? readlinkat(p->p.root_fd, link, target, sizeof target - 1) : 0;
		if (!log || (n == (ssize_t)strlen(log) && !memcmp(target, log, (size_t)n)) || dir_make(p->p.root_fd, dir, 0700))
			continue;
		unlinkat(p->p.root_fd, link, 0);
		if (symlinkat(log, p->p.root_fd, link))
			log_warning(AREA, "%s: %s", link, strerror(errno));
	}
}

static uint64_t env_stamp(const struct plain *p)
{
	return layers_stamp(HASH_INIT, p->p.root_fd, p->p.id->env_name, AT_SYMLINK_NOFOLLOW);
}

/* Over what was seen there and nothing else: the two change places, and who wrote meanwhile gets his file back, to be taken in. */
static int put_env(struct plain *p, const struct buffer *text)
{
	int root = p->p.root_fd;
	const char *name = p->p.id->env_name;
	int r = file_write_atomic(root, NEW_ENV, buffer_str(text), text->len, 0600);
	if (r)
		return r;
	uint64_t stamp = layers_stamp(HASH_INIT, root, NEW_ENV, AT_SYMLINK_NOFOLLOW);
	if (!renameat2(root, NEW_ENV, root, name, RENAME_EXCHANGE)) {
		if (layers_stamp(HASH_INIT, root, NEW_ENV, AT_SYMLINK_NOFOLLOW) != p->env_stamp)
			r = renameat2(root, NEW_ENV, root, name, RENAME_EXCHANGE) ? -errno : -EAGAIN;
		unlinkat(root, NEW_ENV, 0);
	} else if (renameat2(root, NEW_ENV, root, name, errno == ENOENT ? RENAME_NOREPLACE : 0)) {
		r = errno == EEXIST ? -EAGAIN : -errno;
		unlinkat(root, NEW_ENV, 0);
	}
	if (!r)
		p->env_stamp = stamp;
	return r;
}

/* The repository has begun, or ceased, to track `.env`: what stands there is not ours any more. */
static int follow_name(struct plain *p)
{
	const char *name = p->p.id->env_name;
	if (name == p->env_name)
		return 0;
	int r = native_rename_env(p->p.id, p->p.root_fd, NULL);
	if (r)
		return r;
	p->env_name = name;
	p->env_hash = 0;
	p->env_stamp = env_stamp(p);
	environment_own_changed(p->p.environment);
	return 0;
}

static int write_env(struct plain *p)
{
	int moved = follow_name(p);
	if (moved)
		return moved;
	cleanup_buffer struct buffer text = BUFFER_INIT;
	if (env_stamp(p) != p->env_stamp || environment_env(p->p.environment, &text, NULL) < 0)
		return 0;
	uint64_t hash = hash_bytes(HASH_INIT, buffer_str(&text), text.len) | 1;
	int r = hash == p->env_hash ? 0 : put_env(p, &text);
	if (r)
		return r == -EAGAIN ? 0 : r;
	p->env_hash = hash;
	return 0;
}

/* Somebody takes it away: a file that comes back behind him would keep it. */
static bool is_going(const struct plain *p)
{
	int root = p->p.root_fd;
	return p->p.id->kind != WORKSPACE_PLAIN && faccessat(root, ".git", F_OK, AT_SYMLINK_NOFOLLOW) &&
	       faccessat(root, ".jj", F_OK, AT_SYMLINK_NOFOLLOW);
}

static void write_changed(struct plain *p)
{
	unsigned what = p->changed;
	int r = 0;
	p->changed = 0;
	if (native_find(p->p.root_fd) != NATIVE_PLAIN || is_going(p))
		return; /* somebody took it away, or the workspace */
	for (size_t i = 0; i < control_files_count; i++)
		if (!p->hashes[i] || control_files[i].refreshed_by & what) {
			int failed = write_one(p, i);
			r = failed ? failed : r;
		}
	if (what & CHANGED_FILES)
		follow_texts(p);
	if (what & (CHANGED_SERVICES | CHANGED_STATUS))
		link_logs(p);
	int texts = write_texts(p), env = write_env(p);
	r = env ? env : texts ? texts : r;
	if (r)
		log_warning(AREA, "what was to be written into %s is not: %s", p->p.id->root, strerror(-r));
}

static void on_write(uv_timer_t *timer)
{
	write_changed(timer->data);
}

void plain_changed(struct plain *p, unsigned what)
{
	p->changed |= what;
	if (!uv_is_active((uv_handle_t *)&p->timer))
		uv_timer_start(&p->timer, on_write, WRITE_DELAY_MS, 0);
}

/* ---- what others wrote ---- */

/* A link or file of the user's in the place of `.env`. */
static void take_in(struct plain *p)
{
	cleanup_error struct error err = ERROR_INIT;
	cleanup_buffer struct buffer text = BUFFER_INIT;
	struct stat st;
	const char *name = p->p.id->env_name;
	uint64_t stamp = env_stamp(p); /* what is written there after this is not known yet */
	int r = fstatat(p->p.root_fd, name, &st, AT_SYMLINK_NOFOLLOW), there = !r;
	bool made_before = !p->env_stamp && there && native_own_is_newer(p->p.root_fd, name, identity_own_name(p->p.id));
	if (made_before) {
		r = 0;
	} else if (there && S_ISREG(st.st_mode)) {
		layers_read_lines(p->p.root_fd, name, &text);
		r = environment_write_env(p->p.environment, buffer_str(&text), text.len, &err);
	} else if (there && S_ISLNK(st.st_mode)) {
		r = renameat(p->p.root_fd, name, p->p.root_fd, identity_own_name(p->p.id)) ? -errno : 0;
		stamp = env_stamp(p);
		environment_own_changed(p->p.environment);
	} else if (there) {
		return; /* a directory: there is nothing to be taken from it, and no place */
	} else {
		r = 0;
	}
	if (r)
		log_warning(AREA, "what was written into %s is not taken in: %s", name, err.message ? err.message : strerror(-r));
	p->env_stamp = stamp;
	p->env_hash = 0;
}

bool plain_is_right(const struct plain *p)
{
	return native_find(p->p.root_fd) == NATIVE_PLAIN && env_stamp(p) == p->env_stamp;
}

void plain_put_right(struct plain *p)
{
	cleanup_error struct error err = ERROR_INIT;
	if (native_find(p->p.root_fd) != NATIVE_PLAIN) {
		memset(p->hashes, 0, control_files_count * sizeof *p->hashes);
		for (size_t i = 0; i < p->n_texts; i++)
			p->texts[i].hash = 0;
		if (native_make_directory(p->p.root_fd, &err))
			log_warning(AREA, "%s", err.message);
	}
	if (env_stamp(p) != p->env_stamp)
		take_in(p);
	plain_changed(p, ~0U);
}

/* A read lease is refused where somebody has it open for writing. Whoever opens it for that in between breaks the lease, which is told by a signal. */
static bool is_being_written(const struct plain *p)
{
	cleanup_close int fd = openat(p->p.root_fd, p->p.id->env_name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return false;
	fcntl(fd, F_SETSIG, SIGURG); /* ignored, as SIGIO is not */
	bool refused = fcntl(fd, F_SETLEASE, F_RDLCK) && errno == EAGAIN;
	fcntl(fd, F_SETLEASE, F_UNLCK);
	return refused;
}

/* What was written a moment ago counts for what is asked now: the clock may not have looked yet. What is missing, or half written, is left to it. */
static void catch_up(struct plain *p)
{
	struct stat st;
	bool there = !fstatat(p->p.root_fd, p->p.id->env_name, &st, AT_SYMLINK_NOFOLLOW);
	if (there && native_find(p->p.root_fd) == NATIVE_PLAIN && !is_going(p) && env_stamp(p) != p->env_stamp && !is_being_written(p))
		take_in(p);
	environment_own_changed(p->p.environment);
}

/* ---- commands ---- */

static void on_peer_closed(uv_handle_t *handle)
{
	struct peer *peer = handle->data;
	peer->closed = true;
	if (peer->begun && !peer->ended)
		return; /* the command goes on, and says so when it is done */
	buffer_release(&peer->line);
	free(peer);
}

static void close_peer(struct peer *peer)
{
	if (uv_is_closing((uv_handle_t *)&peer->pipe))
		return;
	for (struct peer **at = &peer->p->peers; *at; at = &(*at)->next)
		if (*at == peer) {
			*at = peer->next;
			break;
		}
	peer->p->n_peers--;
	plain_changed(peer->p, CHANGED_STATUS);
	uv_close((uv_handle_t *)&peer->pipe, on_peer_closed);
}

/* Files first: who is told that it is done reads them. */
static void answer(struct peer *peer, const struct error *error)
{
	environment_tell(peer->p->p.environment);
	write_changed(peer->p);
	json_t *json = error ? error_to_json(error) : peer->answer ? move_ptr(peer->answer) : json_object();
	char *text = json_dumps(json, JSON_COMPACT);
	cleanup_free char *line = xasprintf("%s\n", text);
	uv_buf_t buf = uv_buf_init(line, (unsigned)strlen(line));
	int r = uv_try_write((uv_stream_t *)&peer->pipe, &buf, 1);
	free(text);
	json_decref(json);
	if (r < 0 || error)
		close_peer(peer); /* else the other end does */
}

static void on_done(void *arg, const struct error *error)
{
	struct peer *peer = arg;
	peer->ended = true;
	peer->demand = NULL;
	peer->leases = peer->is_demand && !error;
	if (peer->closed) {
		buffer_release(&peer->line);
		free(peer);
		return;
	}
	if (!uv_is_closing((uv_handle_t *)&peer->pipe))
		answer(peer, error);
}

/* A lease without a demand. */
static int hold(struct peer *peer, const char *service, struct error *err)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	int r = environment_service(peer->p->p.environment, service, SERVICE_EXEC, &text, err);
	peer->is_demand = r >= 0;
	peer->answer = r < 0 ? NULL : json_loads(buffer_str(&text), 0, NULL);
	return r;
}

static void run_line(struct peer *peer)
{
	cleanup_error struct error err = ERROR_INIT;
	struct environment *e = peer->p->p.environment;
	const char *line = buffer_str(&peer->line);
	peer->begun = true;
	catch_up(peer->p);
	if (!strcmp(line, NATIVE_LOOK)) {
		on_done(peer, NULL);
		return;
	}
	if (!strncmp(line, NATIVE_HOLD, strlen(NATIVE_HOLD))) {
		on_done(peer, hold(peer, line + strlen(NATIVE_HOLD), &err) < 0 ? &err : NULL);
		return;
	}
	if (strcmp(line, NATIVE_DEMAND)) {
		environment_command(e, line, &peer->who, on_done, peer);
		return;
	}
	peer->is_demand = true;
	int r = environment_demand(e, NULL, &peer->who, on_done, peer, &peer->demand, &err);
	if (r <= 0)
		on_done(peer, r < 0 ? &err : NULL);
}

static void on_alloc(uv_handle_t *handle, size_t size, uv_buf_t *ret)
{
	static char bytes[4096];
	*ret = uv_buf_init(bytes, sizeof bytes);
}

/* Who goes away wants no answer; a demand is nobody's then. */
static void on_end(struct peer *peer)
{
	if (peer->demand) {
		demand_cancel(move_ptr(peer->demand));
		peer->ended = true;
	} else if (peer->begun) {
		environment_command_forsaken(peer->p->p.environment, peer);
	}
	close_peer(peer);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct peer *peer = stream->data;
	if (n < 0 || peer->line.len > NATIVE_LINE_MAX) {
		on_end(peer);
		return;
	}
	if (peer->begun)
		return;
	buffer_add(&peer->line, buf->base, (size_t)n);
	char *newline = peer->line.len ? memchr(peer->line.data, '\n', peer->line.len) : NULL;
	if (!newline)
		return;
	*newline = '\0';
	run_line(peer);
}

/* The directory lets others in where root's services run under uids of their own. */
static bool may_command(struct peer *peer)
{
	uv_os_fd_t fd;
	struct ucred who;
	socklen_t len = sizeof who;
	if (uv_fileno((uv_handle_t *)&peer->pipe, &fd) || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len))
		return false;
	requester_of(who.pid, &peer->who);
	return who.uid == geteuid() || who.uid == 0;
}

static void on_connection(uv_stream_t *stream, int status)
{
	struct plain *p = stream->data;
	struct peer *peer = xcalloc(1, sizeof *peer);
	peer->p = p;
	peer->line = (struct buffer)BUFFER_INIT;
	uv_pipe_init(p->p.loop, &peer->pipe, 0);
	peer->pipe.data = peer;
	peer->next = p->peers;
	p->peers = peer;
	p->n_peers++;
	if (status < 0 || uv_accept(stream, (uv_stream_t *)&peer->pipe) || p->n_peers > PEERS_MAX || !may_command(peer) ||
	    uv_read_start((uv_stream_t *)&peer->pipe, on_alloc, on_read))
		close_peer(peer);
}

json_t *plain_leases(const struct plain *p)
{
	json_t *list = json_array();
	for (const struct peer *peer = p->peers; peer; peer = peer->next) {
		struct requester now;
		requester_of(peer->who.pid, &now); /* it has become another program, perhaps */
		if (peer->leases)
			json_array_append_new(list, json_pack("{s:i, s:s, s:s}", "pid", (int)now.pid, "command", now.command, "file", "env.json"));
	}
	return list;
}

/* ---- life ---- */

int plain_new(const struct plain_params *params, struct plain **ret, struct error *err)
{
	struct plain *p = xcalloc(1, sizeof *p);
	cleanup_free char *path = xasprintf("%s/" NATIVE_SOCKET, params->id->socket_dir);
	p->p = *params;
	p->env_name = params->id->env_name;
	/* the user's own was put aside: what stands there is of the server before us, and may have been written into since */
	p->env_stamp = faccessat(params->root_fd, params->id->env_name, F_OK, AT_SYMLINK_NOFOLLOW) ? env_stamp(p) : 0;
	p->hashes = xcalloc(control_files_count, sizeof *p->hashes);
	uv_timer_init(params->loop, &p->timer);
	uv_pipe_init(params->loop, &p->listener, 0);
	p->timer.data = p->listener.data = p;
	unlink(path); /* a server's before us; ours alone is the workspace's lock */
	int r = uv_pipe_bind(&p->listener, path);
	if (!r && chmod(path, 0600))
		r = -errno;
	if (!r)
		r = uv_listen((uv_stream_t *)&p->listener, BACKLOG, on_connection);
	if (r)
		return error_set_errno(err, ERROR_MOUNT_FAILED, -r, "%s", path);
	p->changed = ~0U;
	write_changed(p); /* whoever waits for us reads them next */
	*ret = p;
	return 0;
}
