#include "cli/mounting.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/program.h"
#include "base/strv.h"
#include "cli/forgotten.h"
#include "cli/holders.h"
#include "cli/nesting.h"
#include "provisioner/mounts.h"
#include "cli/output.h"
#include "cli/process.h"
#include "cli/registry.h"
#include "cli/trust.h"

#define APPROVED_SHOWN 10   /* lines; `ajj trust --show` has all of them */
#define LOCK_WAIT_MS 10000 /* a mount takes some ten ms */

/* ---- mounting ---- */

/* What `aetherfs` said: with -o json one object on a line. */
static int refused(const struct buffer *said, int code, const char *root, struct error *err)
{
	const char *text = buffer_str(said), *brace = strchr(text, '{');
	json_t *json = brace ? json_loads(brace, JSON_DISABLE_EOF_CHECK, NULL) : NULL;
	if (json) {
		error_from_json(err, json);
		json_decref(json);
		return err ? -err->err : -EIO;
	}
	error_set(err, ERROR_MOUNT_FAILED, "%s: %.*s", root, (int)strcspn(text, "\n"), *text ? text : "aetherfs ended without a word");
	error_detail(err, "exit_code", json_integer(code));
	return -error_code_errno(ERROR_MOUNT_FAILED);
}

static bool has_option(const char *list, const char *word)
{
	cleanup_free char *found = xasprintf(",%s,", list), *wanted = xasprintf(",%s,", word);
	return strstr(found, wanted);
}

static int run_aetherfs(const char *root, const char *options, struct error *err)
{
	cleanup_free char *program = program_path("aetherfs");
	cleanup_buffer struct buffer said = BUFFER_INIT;
	cleanup_strv char **argv = NULL;
	strv_pushf(&argv, "aetherfs");
	strv_pushf(&argv, "-o");
	strv_pushf(&argv, "json%s%s", options ? "," : "", options ? options : "");
	strv_pushf(&argv, "%s", root);
	output_flush();
	/* a group of its own: an interruption shall not end it between its two mounts; the caller undoes what it made */
	struct process p = {
	    .program = program, .argv = argv, .directory = "/", .err = &said, .out_to_err = true, .own_group = true};
	int r = process_run(&p, err);
	if (r > 128 && interrupted()) /* before it had its group */
		return error_set(err, ERROR_CANCELED, "interrupted");
	if (r > 0)
		return refused(&said, r, root, err);
	if (r == 0 && said.len)
		fputs(said.data, stderr); /* warnings */
	return r;
}

/* An ordinary user unmounts through the setuid helper of libfuse, as fuse(8) says. `option` is "-u" or "-uz". */
static int fusermount(const char *option, const char *point, struct buffer *said, struct error *err)
{
	cleanup_free char *program = program_in_path("fusermount3", getenv("PATH"));
	cleanup_strv char **argv = NULL;
	if (!program) {
		error_set(err, ERROR_PROGRAM_NOT_FOUND, "fusermount3 is not in PATH");
		return error_hint(err, "install the package fuse3");
	}
	strv_pushf(&argv, "fusermount3");
	strv_pushf(&argv, "%s", option);
	strv_pushf(&argv, "--");
	strv_pushf(&argv, "%s", point);
	struct process p = {.program = program, .argv = argv, .directory = "/", .err = said, .out_to_err = true};
	return process_run(&p, err);
}

/* EINVAL and ENOENT: it is not mounted any more. */
static bool is_gone(int errnum)
{
	return errnum == EINVAL || errnum == ENOENT;
}

int mounting_clear_dead(const char *point, struct error *err)
{
	cleanup_buffer struct buffer said = BUFFER_INIT;
	if (geteuid() == 0) {
		if (umount2(point, MNT_DETACH | UMOUNT_NOFOLLOW) && !is_gone(errno))
			return error_set_errno(err, ERROR_MOUNT_FAILED, errno, "cannot unmount %s", point);
		return 0;
	}
	int r = fusermount("-uz", point, &said, err);
	if (r > 0 && is_mounted_by_us(point))
		return error_set(err, ERROR_MOUNT_FAILED, "cannot unmount %s: %.*s", point,
		                 (int)strcspn(buffer_str(&said), "\n"), buffer_str(&said));
	return r < 0 ? r : 0;
}

/* A keeper that was killed with kill -9 leaves mounts that nobody serves. With them gone the workspace can be looked at
 * again. */
static int clear_what_is_dead(struct client *c, struct error *err)
{
	const char *const points[] = {c->id.root, c->id.control_dir};
	struct client again = CLIENT_INIT;
	bool cleared = false;
	for (size_t i = 0; i < sizeof points / sizeof points[0]; i++)
		while (is_mounted_by_us(points[i]) && mount_is_dead(points[i])) {
			int r = mounting_clear_dead(points[i], err);
			if (r)
				return r;
			cleared = true;
		}
	if (!cleared)
		return 0;
	int r = client_of(c->id.root, NULL, &again, err);
	if (!r) {
		client_release(c);
		*c = again;
	}
	return r;
}

/* Two at once must not mount twice: the environment's own directory is locked, which leaves no file behind. Returns the
 * descriptor that holds the lock. */
static int lock_environment(const struct identity *id, struct error *err)
{
	uint64_t until = now_monotonic_ms() + LOCK_WAIT_MS;
	int r = identity_make_dirs(id, err);
	if (r)
		return r;
	cleanup_close int fd = open(id->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return error_set_errno(err, ERROR_MOUNT_FAILED, errno, "%s", id->state_dir);
	while (flock(fd, LOCK_EX | LOCK_NB)) {
		if (errno != EWOULDBLOCK || now_monotonic_ms() >= until)
			return error_set_errno(err, ERROR_MOUNT_FAILED, errno, "%s is being mounted by somebody else", id->root);
		poll(NULL, 0, 5);
	}
	return move_fd(&fd);
}

#define OVERLAY_OFF "overlay=off"

/* Its keeper notes the options in its lock, and forgets them when it ends as it should (fs/aetherfs.c, fs/keeper.c). */
static bool was_killed_without_overlay(const struct client *c)
{
	cleanup_free char *path = xasprintf("%s/keeper.lock", c->id.state_dir);
	cleanup_buffer struct buffer text = BUFFER_INIT;
	if (file_read(AT_FDCWD, path, CLIENT_FILE_MAX, &text))
		return false;
	cleanup_free char *lines = xasprintf("\n%s", buffer_str(&text));
	return strstr(lines, "\n" OVERLAY_OFF "\n");
}

/* new: with what this place asks for. Inside a mount that fusermount3 may not look into the directory itself cannot be covered. */
static char *fitting_options(const struct client *c, const char *options)
{
	cleanup_free char *outer = nesting_closed_by(c->id.root);
	const char *given = options ? options : "";
	if (!options && was_killed_without_overlay(c)) {
		output_note("Note: %s is attached without an overlay (" OVERLAY_OFF "), as it was when its keeper was killed", c->id.root);
		return xstrdup(OVERLAY_OFF);
	}
	if (!outer || strstr(given, OVERLAY_OFF) || has_option(given, "plain"))
		return xstrdup(options);
	output_note("Note: %s lies inside %s, which is mounted and closed to fusermount3: it is attached without an overlay (" OVERLAY_OFF ")",
	            c->id.root, outer);
	return xasprintf("%s%s" OVERLAY_OFF, given, *given ? "," : "");
}

int mounting_attach(struct client *c, const char *asked, bool *ret_mounted, struct error *err)
{
	if (ret_mounted)
		*ret_mounted = false;
	int r = clear_what_is_dead(c, err);
	if (!r && !c->mounted)
		r = forgotten_check(&c->id, err);
	if (r || (c->mounted && !asked))
		return r;
	if (c->mounted) /* judges what is asked for, and warns of what this mount has not */
		return run_aetherfs(c->id.root, asked, err);
	cleanup_close int lock = lock_environment(&c->id, err);
	if (lock < 0)
		return lock;
	client_refresh(c);
	if (c->mounted)
		return 0;
	cleanup_free char *options = fitting_options(c, asked);
	r = run_aetherfs(c->id.root, options, err);
	client_refresh(c);
	if (!r && ret_mounted)
		*ret_mounted = true;
	return r;
}

int mounting_approve(const struct client *c, struct error *ret_broken, struct error *err)
{
	cleanup_error struct error why = ERROR_INIT;
	json_t *changes = NULL;
	int r = trust_approve(c, &changes, &why);
	if (json_array_size(changes)) {
		output_note(c->id.kind == WORKSPACE_PLAIN ? "Approved for this directory (ajj trust):" : "Approved for all workspaces of this repository (ajj trust):");
		trust_print_changes(changes, output_note, APPROVED_SHOWN);
	}
	json_decref(changes);
	if (!r || why.code == ERROR_CONFIG_NOT_FOUND)
		return 0;
	bool broken = why.code == ERROR_CONFIG_INVALID;
	if (!broken || ret_broken)
		error_move(broken ? ret_broken : err, &why);
	return broken ? 0 : r;
}

/* ---- unmounting ---- */

/* 0, -EBUSY, or a negative errno with `err` set. */
static int unmount_once(const char *point, struct error *err)
{
	cleanup_buffer struct buffer said = BUFFER_INIT;
	if (geteuid() == 0) {
		if (!umount2(point, UMOUNT_NOFOLLOW) || is_gone(errno))
			return 0;
		return errno == EBUSY ? -EBUSY : error_set_errno(err, ERROR_MOUNT_FAILED, errno, "cannot unmount %s", point);
	}
	int r = fusermount("-u", point, &said, err);
	if (r < 0)
		return r;
	return is_mounted_by_us(point) ? -EBUSY : 0;
}

/* What is unmounted to end it. */
static const char *main_point(const struct client *c)
{
	return c->native ? c->control : c->id.root;
}

struct busy {
	struct holder list[HOLDERS_MAX];
	size_t count;
	bool services; /* processes below the keeper are among them */
	bool ancestors_only;
};

static void look_who(const struct client *c, pid_t keeper, struct busy *ret)
{
	cleanup_mounts struct mounts m = MOUNTS_INIT;
	mounts_read(&m);
	const struct mount *mount = mounts_ours_at(&m, main_point(c));
	ret->count = mount ? holders_find(mount->device, ret->list) : 0;
	ret->services = false;
	ret->ancestors_only = ret->count > 0;
	for (size_t i = 0; i < ret->count; i++) {
		if (keeper > 0 && process_descends(ret->list[i].pid, keeper))
			ret->services = true;
		if (!ret->list[i].ancestor || ret->list[i].how & HOLDS_FILE)
			ret->ancestors_only = false;
	}
}

/* new: an environment without an overlay that lies inside, whose keeper holds its directory; NULL */
static char *inner_workspace(const char *root)
{
	cleanup_registry_list struct registry_list list = {NULL, 0};
	size_t n = strlen(root);
	registry_list(&list, NULL);
	for (size_t i = 0; i < list.count; i++) {
		const char *inner = list.items[i].root;
		if (!strncmp(inner, root, n) && inner[n] == '/' && native_find_at(inner) && registry_is_kept(&list.items[i]))
			return xstrdup(inner);
	}
	return NULL;
}

static int say_busy(const struct client *c, const struct busy *b, struct error *err)
{
	cleanup_buffer struct buffer who = BUFFER_INIT;
	json_t *list = json_array();
	holders_describe(b->list, b->count, &who);
	for (size_t i = 0; i < b->count; i++)
		json_array_append_new(list, json_pack("{s:i, s:s}", "pid", (int)b->list[i].pid, "command", b->list[i].command));
	error_set_errno(err, ERROR_MOUNT_FAILED, EBUSY, "%s is in use by %s", c->id.root,
	                b->count ? buffer_str(&who) : "a process that this user may not look into");
	error_detail(err, "holders", list);
	cleanup_free char *inner = inner_workspace(c->id.root);
	if (inner)
		return error_hint(err, "first the one inside: ajj detach %s; then again: ajj detach %s", inner, c->id.root);
	return error_hint(err, "leave the directory (cd ..) and end what uses it, then again: ajj detach %s", c->id.root);
}

/* Is busy with something that passes? Tries until DETACH_BUSY_MS are over. Services that stand in the workspace are
 * stopped. */
static int unmount_patiently(const struct client *c, pid_t keeper, enum detach_mode mode, struct busy *b,
                             struct error *err)
{
	uint64_t until = now_monotonic_ms() + DETACH_BUSY_MS;
	bool stopped = false;
	for (;;) {
		int r = unmount_once(main_point(c), err);
		if (r != -EBUSY)
			return r;
		look_who(c, keeper, b);
		if (b->services && !stopped) {
			stopped = true;
			r = client_command(c, "down", err);
			if (r)
				return r;
			until = now_monotonic_ms() + DETACH_BUSY_MS;
			continue;
		}
		if (mode == DETACH_UNDER_SHELL && b->ancestors_only)
			return mounting_clear_dead(main_point(c), err);
		if (now_monotonic_ms() >= until)
			return say_busy(c, b, err);
		poll(NULL, 0, 50);
	}
}

static int wait_ended(const struct client *c, int keeper_pidfd, struct error *err)
{
	if (mounts_wait_gone(c->control, DETACH_TIMEOUT_MS)) {
		error_set(err, ERROR_BACKEND_DEPROVISION_FAILED, "%s is unmounted, but its services did not end in %u s",
		          c->id.root, DETACH_TIMEOUT_MS / 1000);
		return error_hint(err, "ajj cleanup");
	}
	struct pollfd p = {keeper_pidfd, POLLIN, 0};
	if (keeper_pidfd >= 0)
		poll(&p, 1, DETACH_TIMEOUT_MS);
	return 0;
}

/* Nothing is unmounted: the keeper is told to end. */
static int end_plain(struct client *c, struct error *err)
{
	json_t *status = NULL;
	int r = client_status(c, &status, err);
	pid_t keeper = status_keeper(status);
	json_decref(status);
	if (r)
		return r;
	cleanup_close int pidfd = keeper > 0 ? (int)syscall(SYS_pidfd_open, keeper, 0) : -1;
	struct pollfd ended = {pidfd, POLLIN, 0};
	if (pidfd >= 0 && syscall(SYS_pidfd_send_signal, pidfd, SIGTERM, NULL, 0))
		return error_set_errno(err, ERROR_BACKEND_DEPROVISION_FAILED, errno, "process %d, which keeps %s", (int)keeper, c->id.root);
	if (pidfd < 0 || poll(&ended, 1, DETACH_TIMEOUT_MS) <= 0)
		return error_set(err, ERROR_BACKEND_DEPROVISION_FAILED, "the keeper of %s does not end", c->id.root);
	client_refresh(c);
	return 0;
}

int mounting_detach(struct client *c, enum detach_mode mode, struct error *err)
{
	json_t *status = NULL;
	struct busy busy = {.count = 0};
	client_refresh(c);
	if (!c->mounted)
		return 0;
	if (c->native == NATIVE_PLAIN)
		return end_plain(c, err);
	if (chdir("/"))
		return error_set_errno(err, ERROR_INTERNAL, errno, "cd /");
	if (c->dead || mount_is_dead(c->control))
		return clear_what_is_dead(c, err);
	client_status(c, &status, NULL);
	pid_t keeper = status_keeper(status);
	json_decref(status);
	cleanup_close int pidfd = keeper > 0 ? (int)syscall(SYS_pidfd_open, keeper, 0) : -1;
	int r = unmount_patiently(c, keeper, mode, &busy, err);
	/* a mount that shells still stand in is alive until they leave: its keeper must be told to end */
	if (!r && mode == DETACH_UNDER_SHELL && busy.ancestors_only && pidfd >= 0)
		syscall(SYS_pidfd_send_signal, pidfd, SIGTERM, NULL, 0);
	if (!r)
		r = wait_ended(c, pidfd, err);
	client_refresh(c);
	return r;
}
