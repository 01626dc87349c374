/* The program `aetherfs`: checks what can be checked, starts the keeper in the background and returns when the mount answers. */
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "aether_config.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/path.h"
#include "fs/keeper.h"
#include "fs/keeper_private.h"
#include "fs/mount.h"
#include "fs/mount_options.h"
#include "provisioner/mounts.h"
#include "provisioner/native.h"

#define AREA "aetherfs"
#define LOCK_WAIT_MS (KEEPER_STOP_MS + KEEPER_END_MS + 10000) /* for a keeper that starts or ends */
#define LOCK_STEP_MS 10
#define SETTLE_TRIES 20
#define SETTLE_STEP_US 500
#define OPTIONS_MAX 4096
#define LOG_MAX (1 << 20) /* bytes; a longer log is put aside at the start, and one such is kept */

struct start {
	const struct mount_options *options;
	struct identity id;
	char *dir, *control_dir; /* canonical */
	struct keeper_params keeper;
};

static void start_release(struct start *s)
{
	identity_release(&s->id);
	free(s->dir);
	free(s->control_dir);
	if (s->keeper.lock_fd >= 0)
		close(s->keeper.lock_fd);
	if (s->keeper.root_fd >= 0)
		close(s->keeper.root_fd);
}

/* ---- one keeper a workspace ---- */

static bool answers(const struct identity *id)
{
	cleanup_close int fd = native_connect(id);
	return fd >= 0;
}

/* Mounted and answering: the keeper that holds the lock has said so. */
static bool is_ready(const struct start *s)
{
	struct stat st;
	if (mount_is(s->dir, MOUNT_TYPE_OVERLAY))
		return !stat(s->dir, &st);
	switch (native_find_at(s->dir)) {
	case NATIVE_LINKS:
		return mount_is(s->id.control_dir, MOUNT_TYPE_CONTROL) && !stat(s->id.control_dir, &st);
	case NATIVE_PLAIN:
		return answers(&s->id);
	default:
		return false;
	}
}

/* 0 with the lock, 1 while another has it. The directory and the lock in it go with an environment that is forgotten; what is locked then
 * is nobody's. */
static int try_lock(struct start *s, const char *path, struct error *err)
{
	struct stat held, there;
	int fd = s->keeper.lock_fd;
	if (fd < 0) {
		int r = identity_make_dirs(&s->id, err);
		if (r)
			return r;
		fd = s->keeper.lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd < 0)
			return errno == ENOENT ? 1 : error_set_errno(err, ERROR_MOUNT_FAILED, errno, "%s", path);
	}
	if (flock(fd, LOCK_EX | LOCK_NB))
		return 1;
	if (!fstat(fd, &held) && !stat(path, &there) && held.st_ino == there.st_ino)
		return 0;
	close(fd);
	s->keeper.lock_fd = -1;
	return 1;
}

/* Keeper and server hold it for life. Who comes second waits for the first, and finds it mounted: 1. */
static int take_lock(struct start *s, struct error *err)
{
	cleanup_free char *path = xasprintf("%s/keeper.lock", s->id.state_dir);
	int r;
	for (int waited = 0; (r = try_lock(s, path, err)); waited += LOCK_STEP_MS) {
		if (r < 0)
			return r;
		if (is_ready(s))
			return 1;
		if (waited > LOCK_WAIT_MS) {
			error_set(err, ERROR_MOUNT_FAILED, "another aetherfs of %s is neither ready nor gone", s->dir);
			error_hint(err, "see %s/log", s->id.state_dir);
			return -error_code_errno(ERROR_MOUNT_FAILED);
		}
		usleep(LOCK_STEP_MS * 1000);
	}
	return 0;
}

/* ---- options ---- */

/* In the lock, for whoever comes later and asks for others. */
static void note_options(const struct start *s)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	mount_options_list(s->options, &text);
	if (ftruncate(s->keeper.lock_fd, 0) || pwrite(s->keeper.lock_fd, buffer_str(&text), text.len, 0) < 0)
		log_warning(AREA, "%s/keeper.lock: %s", s->id.state_dir, strerror(errno));
}

/* What was asked for and the mount has not, between commas; nothing where it is not known what that has. */
static void find_missing(struct start *s, struct buffer *ret)
{
	cleanup_buffer struct buffer has = BUFFER_INIT, asked = BUFFER_INIT;
	char *save = NULL;
	mount_options_list(s->options, &asked);
	if (!asked.len || mount_is_hung(s->dir) || (!s->id.state_dir && identity_of(s->dir, s->options->workspace, &s->id, NULL)))
		return;
	cleanup_free char *path = xasprintf("%s/keeper.lock", s->id.state_dir);
	if (file_read(AT_FDCWD, path, OPTIONS_MAX, &has))
		return;
	cleanup_free char *lines = xasprintf("\n%s", buffer_str(&has)), *words = xstrdup(buffer_str(&asked));
	for (char *word = strtok_r(words, "\n", &save); word; word = strtok_r(NULL, "\n", &save)) {
		cleanup_free char *line = xasprintf("\n%s\n", word);
		if (!strstr(lines, line))
			buffer_printf(ret, "%s%s", ret->len ? "," : "", word);
	}
}

static void say_mounted(struct start *s)
{
	cleanup_buffer struct buffer missing = BUFFER_INIT;
	find_missing(s, &missing);
	if (missing.len)
		fprintf(stderr, "Warning: %s is mounted already, without %s: ajj detach %s, then again\n", s->dir, missing.data, s->dir);
	else if (!s->options->json) /* for programs that is no news */
		fprintf(stderr, "%s is mounted already\n", s->dir);
}

/* ---- what the keeper needs ---- */

static int share(struct start *s, struct error *err)
{
	s->keeper.may_share = mount_may_share();
	if ((s->options->bits & MOUNT_ALLOW_OTHER) && !s->keeper.may_share) {
		error_set(err, ERROR_MOUNT_FAILED, "allow_other is not allowed to users here");
		error_hint(err, "an administrator must add the line user_allow_other to /etc/fuse.conf");
		return -error_code_errno(ERROR_MOUNT_FAILED);
	}
	return 0;
}

/* Held by keeper and server for life. Who comes second waits for the first, and finds it mounted: 1. */
/* The directory as it is without us: 0, or 1 when it is mounted already. Opened with the lock held, for what another puts over it
 * meanwhile would be laid over itself. */
static int open_root(struct start *s, struct error *err)
{
	free(s->dir);
	s->dir = NULL;
	int r = mount_resolve(s->options->dir, MOUNT_TYPE_OVERLAY, &s->dir, err);
	if (r)
		return r;
	s->keeper.root_fd = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->keeper.root_fd < 0)
		return error_set_errno(err, ERROR_WORKSPACE_NOT_FOUND, errno, "%s", s->dir);
	return mount_is(s->dir, MOUNT_TYPE_OVERLAY);
}

static bool is_above(const char *dir, const char *path)
{
	return !strcmp(dir, "/") || path_is_within(path, dir);
}

/* What the server itself works in would lie beneath its own mount, and its first look there would wait for itself. */
static int refuse_own_home(const struct start *s, struct error *err)
{
	const char *const ours[] = {s->id.shared_dir, s->id.runtime_dir};
	for (int i = 0; i < 2; i++) {
		if (!is_above(s->dir, ours[i]))
			continue;
		error_set(err, ERROR_MOUNT_FAILED, "%s cannot be mounted: aetherfs keeps its own files below it, in %s", s->dir, ours[i]);
		error_hint(err, "mount a directory below it, or set %s to one outside", i ? "AETHER_RUNTIME_DIR" : "AETHER_STATE_DIR");
		return -error_code_errno(ERROR_MOUNT_FAILED);
	}
	return 0;
}

/* With the lock held: what stands there without the overlay is what a killed keeper left. */
static int place(const struct start *s, struct error *err)
{
	if (session_is_wanted(s->options->bits, SESSION_OVERLAY))
		return native_take_away(s->keeper.root_fd, err);
	return native_place(&s->id, s->keeper.root_fd, s->options->bits & MOUNT_PLAIN ? NATIVE_PLAIN : NATIVE_LINKS, err);
}

/* 0, or 1 when it is mounted already. */
static int find(struct start *s, struct error *err)
{
	int r = mount_resolve(s->options->dir, MOUNT_TYPE_OVERLAY, &s->dir, err);
	if (!r && !(s->options->bits & MOUNT_PLAIN))
		r = mount_check(err);
	if (r || mount_is(s->dir, MOUNT_TYPE_OVERLAY))
		return r ? r : 1;
	r = share(s, err);
	if (!r)
		r = identity_of(s->dir, s->options->workspace, &s->id, err);
	if (!r)
		r = refuse_own_home(s, err);
	if (!r)
		r = take_lock(s, err);
	if (!r)
		r = identity_settle(&s->id, err);
	if (!r)
		r = open_root(s, err);
	if (!r)
		r = identity_make_dirs(&s->id, err); /* the keeper that had the lock before took some away */
	if (!r)
		r = mount_resolve(s->id.control_dir, MOUNT_TYPE_CONTROL, &s->control_dir, err);
	return r ? r : place(s, err);
}

static void fill(struct start *s)
{
	s->keeper.id = &s->id;
	s->keeper.points[SESSION_OVERLAY] = s->dir;
	s->keeper.points[SESSION_CONTROL] = s->control_dir;
	s->keeper.kernel_options = s->options->kernel;
	s->keeper.workspace = s->options->workspace;
	s->keeper.options = s->options->bits;
	s->keeper.mask_resend = s->options->mask_resend;
	s->keeper.watchdog_ms = s->options->watchdog_s * 1000;
}

/* ---- background ---- */

static void say_who_may_look(const struct start *s)
{
	if (!s->keeper.may_share && session_is_wanted(s->options->bits, SESSION_OVERLAY))
		log_info(AREA, "other users, root included, cannot look into %s: an administrator may add the line user_allow_other to /etc/fuse.conf", s->dir);
}

static void to_background(const struct start *s)
{
	setsid();
	cleanup_free char *log = xasprintf("%s/log", s->id.state_dir), *old = xasprintf("%s.1", log);
	struct stat st;
	if (!stat(log, &st) && st.st_size > LOG_MAX)
		rename(log, old);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	dup2(null, STDIN_FILENO);
	dup2(out >= 0 ? out : null, STDOUT_FILENO);
	dup2(out >= 0 ? out : null, STDERR_FILENO);
	close(null);
	if (out >= 0)
		close(out);
	if (chdir("/"))
		log_warning(AREA, "cannot go to /: %s", strerror(errno));
}

static void keep_in_background(struct start *s, int ready_fd)
{
	cleanup_error struct error err = ERROR_INIT;
	to_background(s);
	say_who_may_look(s);
	s->keeper.ready_fd = ready_fd;
	if (!keeper_run(&s->keeper, &err))
		_exit(0);
	log_error(AREA, "%s", err.message);
	json_t *json = error_to_json(&err);
	char *text = json_dumps(json, JSON_COMPACT);
	write_all(ready_fd, text, strlen(text));
	_exit(1);
}

static int hear_keeper(int fd, const struct start *s, struct error *err)
{
	char text[KEEPER_TEXT_MAX];
	size_t len = 0;
	for (;;) {
		ssize_t n = read(fd, text + len, sizeof text - 1 - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		len += (size_t)n;
		if (len == 2 && !memcmp(text, "ok", 2)) /* the end of the file comes with the keeper's own */
			return 0;
	}
	text[len] = '\0';
	json_t *json = json_loads(text, 0, NULL);
	if (json)
		error_from_json(err, json);
	else
		error_set(err, ERROR_MOUNT_FAILED, "the keeper ended before it was ready");
	if (err && !err->hint)
		error_hint(err, "see %s/log", s->id.state_dir);
	json_decref(json);
	return -err->err;
}

/* What the root's mode is the kernel does not know before it asks, and it drops the answer when it is told at that moment to forget what it
 * knows, as the server does when it has read .env: whoever came first would be refused. Known once, it stays known. */
static void settle_root(const char *dir)
{
	for (int i = 0; i < SETTLE_TRIES && access(dir, X_OK) && errno == EACCES; i++)
		usleep(SETTLE_STEP_US);
}

static int start_keeper(struct start *s, struct error *err)
{
	int front[2];
	if (pipe2(front, O_CLOEXEC))
		return error_set_errno(err, ERROR_MOUNT_FAILED, errno, "pipe");
	pid_t pid = fork();
	if (pid == 0) {
		close(front[0]);
		keep_in_background(s, front[1]);
	}
	int saved = errno;
	close(front[1]);
	int r = pid < 0 ? error_set_errno(err, ERROR_MOUNT_FAILED, saved, "fork") : hear_keeper(front[0], s, err);
	close(front[0]);
	if (!r)
		settle_root(s->dir);
	return r;
}

static int mount_directory(const struct mount_options *o, struct error *err)
{
	__attribute__((cleanup(start_release))) struct start s = {
		.options = o, .keeper = {.root_fd = -1, .lock_fd = -1, .ready_fd = -1}};
	int r = find(&s, err);
	if (r > 0)
		say_mounted(&s);
	if (r)
		return r < 0 ? r : 0;
	note_options(&s);
	fill(&s);
	if (!o->foreground)
		return start_keeper(&s, err);
	say_who_may_look(&s);
	if (chdir("/"))
		return error_set_errno(err, ERROR_MOUNT_FAILED, errno, "/");
	r = keeper_run(&s.keeper, err);
	if (!r)
		_exit(0); /* libfuse's copies of the mount points are freed by its own unmounting alone, which would unmount once more */
	return r;
}

/* ---- the program ---- */

static int complain(const struct error *err, bool json)
{
	if (json) {
		json_t *object = error_to_json(err);
		json_dumpf(object, stderr, JSON_COMPACT);
		fputc('\n', stderr);
		json_decref(object);
	} else {
		fprintf(stderr, "Error: %s\n", err->message);
		if (err->hint)
			fprintf(stderr, "Hint: %s\n", err->hint);
	}
	return err->code == ERROR_USAGE ? 2 : 1;
}

static bool wants_json(const struct mount_options *o)
{
	const char *wish = getenv("AETHER_JSON_ERRORS");
	return o->json || (wish && !strcmp(wish, "1"));
}

int main(int argc, char **argv)
{
	cleanup_mount_options struct mount_options o = {0};
	cleanup_error struct error err = ERROR_INIT;
	/* what we were left by mistake (a lock, the end of a pipe) would be held as long as the mount */
	syscall(SYS_close_range, 3, ~0U, 0);
	int r = mount_options_parse(argc, argv, &o, &err);
	if (!r && (o.help || o.version)) {
		if (o.help)
			mount_options_help(stdout);
		else
			puts("aetherfs " AETHER_VERSION);
		return 0;
	}
	if (!r)
		r = mount_directory(&o, &err);
	return r ? complain(&err, wants_json(&o)) : 0;
}
