#include "cli/client.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/path.h"
#include "provisioner/mounts.h"
#include "cli/native.h"
#include "cli/output.h"
#include "cli/process.h"
#include "cli/registry.h"
#include "cli/whereabouts.h"

/* new: absolute, without `.` and `..`, by its words alone: no file system is asked */
static char *by_words(const char *path)
{
	cleanup_free char *here = getcwd(NULL, 0); /* the kernel's own */
	cleanup_free char *words = *path == '/' || !here ? xstrdup(path) : xasprintf("%s/%s", here, path);
	struct buffer out = BUFFER_INIT;
	char *save = NULL;
	for (char *w = strtok_r(words, "/", &save); w; w = strtok_r(NULL, "/", &save)) {
		if (!strcmp(w, ".."))
			while (out.len && out.data[--out.len] != '/')
				;
		else if (strcmp(w, "."))
			buffer_printf(&out, "/%s", w);
	}
	buffer_addc(&out, '\0');
	return buffer_detach(&out);
}

/* The server of a mount that it leads into does not answer: whatever is asked for there would wait, too. */
static int refuse_hung(const char *path, struct error *err)
{
	cleanup_free char *whole = by_words(path);
	cleanup_free char *hung = whole ? mounts_hung_above(whole) : NULL;
	if (!hung)
		return 0;
	int r = error_set(err, ERROR_NOT_READY, "the server of %s has not answered for %u s", hung, MOUNT_ANSWER_MS / 1000);
	error_hint(err, "its keeper replaces it after a while (aetherfs -o watchdog=SECONDS); at once: "
	                "kill -9 the aetherfs-server of %s", hung);
	return r;
}

/* new: absolute, without links in all but the last component, which may be a dead mount: only its parent is looked at.
 */
static int canonical(const char *path, char **ret, struct error *err)
{
	int r = refuse_hung(path, err);
	if (r)
		return r;
	*ret = realpath(path, NULL);
	if (*ret)
		return 0;
	int saved = errno;
	cleanup_free char *copy = xstrdup(path);
	size_t n = strlen(copy);
	while (n > 1 && copy[n - 1] == '/')
		copy[--n] = '\0';
	char *slash = strrchr(copy, '/');
	const char *name = slash ? slash + 1 : copy;
	if (saved == ENOTCONN && *name && strcmp(name, ".") && strcmp(name, "..")) {
		cleanup_free char *head = slash ? xstrndup(copy, slash == copy ? 1 : (size_t)(slash - copy)) : xstrdup(".");
		cleanup_free char *parent = realpath(head, NULL);
		if (parent) {
			*ret = xasprintf("%s/%s", strcmp(parent, "/") ? parent : "", name);
			return 0;
		}
	}
	if (saved == ENOTCONN && !strcmp(path, ".")) {
		*ret = getcwd(NULL, 0); /* the kernel knows it without asking the file system */
		if (*ret)
			return 0;
	}
	r = error_set_errno(err, ERROR_WORKSPACE_NOT_FOUND, saved, "%s", path);
	return *path == '/' || whereabouts_known() ? r : error_hint(err, "the working directory is not there any more: cd to another one");
}

/* The nearest mount of ours at or above `path`. borrowed */
static const struct mount *mount_above(const struct mounts *m, const char *path)
{
	cleanup_free char *at = xstrdup(path);
	for (;;) {
		const struct mount *found = mounts_ours_at(m, at);
		char *slash = strrchr(at, '/');
		if (found || !slash || !slash[1])
			return found;
		slash[slash == at] = '\0';
	}
}

/* Somebody stands in .aether, that is in the control file system, which knows its workspace. new; NULL: it does not
 * tell */
static char *workspace_of_control(const char *point)
{
	cleanup_free char *path = xasprintf("%s/status.json", point);
	cleanup_buffer struct buffer text = BUFFER_INIT;
	if (file_read(AT_FDCWD, path, CLIENT_FILE_MAX, &text))
		return NULL;
	json_t *status = json_loads(buffer_str(&text), 0, NULL);
	char *root = xstrdup(json_string_value(json_object_get(status, "workspace_root")));
	json_decref(status);
	return root;
}

/* A name that jj changed since the mount changed the namespace, but not where the mount's link leads. */
static void find_control(struct client *c, const struct mounts *m)
{
	char target[PATH_MAX];
	free(c->control);
	c->control = xstrdup(c->id.control_dir);
	if (!c->mounted || mounts_ours_at(m, c->control))
		return;
	cleanup_free char *link = xasprintf("%s/.aether", c->id.root);
	ssize_t n = readlink(link, target, sizeof target - 1);
	if (n <= 0 || target[0] != '/')
		return;
	free(c->control);
	c->control = xstrndup(target, (size_t)n);
}

/* Without an overlay: what stands there says what it is. */
static void look_up_native(struct client *c, const struct mounts *m)
{
	c->native = native_find_at(c->id.root);
	if (c->native == NATIVE_LINKS) {
		c->mounted = mounts_ours_at(m, c->control) != NULL;
		c->dead = c->mounted && mount_is_dead(c->control);
	} else if (c->native == NATIVE_PLAIN) {
		cleanup_close int fd = native_connect(&c->id);
		c->mounted = fd >= 0;
		free(c->control);
		c->control = xasprintf("%s/" NATIVE_DIRECTORY, c->id.root);
	}
}

static void look_up_once(struct client *c, const struct mounts *m)
{
	c->native = NATIVE_NONE;
	c->mounted = mounts_ours_at(m, c->id.root) != NULL;
	c->hung = mount_is_hung(c->id.root) || mount_is_hung(c->id.control_dir);
	if (c->hung)
		return;
	c->dead = c->mounted && mount_is_dead(c->id.root);
	if (!c->dead)
		find_control(c, m);
	if (!c->mounted)
		look_up_native(c, m);
}

/* What is mounted between the two looks shows links, too. */
static void look_up(struct client *c, const struct mounts *m)
{
	look_up_once(c, m);
	if (c->native && is_mounted_by_us(c->id.root)) {
		cleanup_mounts struct mounts again = MOUNTS_INIT;
		mounts_read(&again);
		look_up_once(c, &again);
	}
}

void client_refresh(struct client *c)
{
	cleanup_mounts struct mounts m = MOUNTS_INIT;
	mounts_read(&m);
	look_up(c, &m);
}

/* A dead mount covers what would tell who it is: the registry remembers. */
static int identify(const char *root, const char *workspace, struct identity *ret, struct error *err)
{
	struct store_environment e = {0};
	if (!is_mounted_by_us(root) || !mount_is_dead(root) || registry_find_root(root, &e, NULL) != 1)
		return identity_of(root, workspace, ret, err);
	int r = registry_identity(&e, ret, err);
	store_environment_release(&e);
	return r;
}

int client_of(const char *root, const char *workspace, struct client *ret, struct error *err)
{
	*ret = (struct client)CLIENT_INIT;
	cleanup_free char *path = NULL;
	int r = canonical(root, &path, err);
	if (!r)
		native_wait_moved(path);
	if (!r)
		r = identify(path, workspace, &ret->id, err);
	if (r)
		return r;
	client_refresh(ret);
	return native_repair(ret, err);
}

/* new: the nearest of what is mounted by us and what is a workspace's root; `path` itself where there is neither. */
static char *nearest_root(const char *path, const struct mounts *m)
{
	cleanup_free char *root = NULL;
	const struct mount *mount = mount_above(m, path);
	if (mount && mount_kind(mount) == MOUNT_CONTROL) {
		char *shown = workspace_of_control(mount->point);
		if (shown)
			return shown;
		mount = NULL;
	}
	if (identity_find_root(path, &root, NULL))
		root = NULL;
	/* both are `path` or lie above it: the longer one is nearer */
	return xstrdup(mount && (!root || strlen(mount->point) >= strlen(root)) ? mount->point : root ? root : path);
}

int client_find(const char *directory, struct client *ret, struct error *err)
{
	cleanup_free char *path = NULL;
	cleanup_mounts struct mounts m = MOUNTS_INIT;
	*ret = (struct client)CLIENT_INIT;
	int r = canonical(directory ? directory : ".", &path, err);
	if (r)
		return r;
	mounts_read(&m);
	cleanup_free char *root = nearest_root(path, &m);
	native_wait_moved(root);
	r = identify(root, NULL, &ret->id, err);
	if (r)
		return r;
	look_up(ret, &m);
	return native_repair(ret, err);
}

void client_release(struct client *c)
{
	identity_release(&c->id);
	free(c->control);
	c->control = NULL;
}

int client_need_mounted(const struct client *c, struct error *err)
{
	if (c->mounted && !c->dead)
		return 0;
	if (c->dead) {
		error_set(err, ERROR_NOT_MOUNTED, "%s is mounted, but nobody serves it any more", c->id.root);
		return error_hint(err, "ajj attach %s", c->id.root);
	}
	error_set(err, ERROR_NOT_MOUNTED, "%s is not mounted", c->id.root);
	return error_hint(err, "ajj attach");
}

int client_find_mounted(struct client *ret, struct error *err)
{
	int r = client_find(NULL, ret, err);
	return r ? r : client_need_mounted(ret, err);
}

/* The newest failure that errors.json tells of and that happened since `since` (as it writes times). */
static bool told(const struct client *c, const char *since, struct error *err)
{
	cleanup_free char *path = xasprintf("%s/errors.json", c->control);
	cleanup_buffer struct buffer text = BUFFER_INIT;
	if (file_read(AT_FDCWD, path, CLIENT_FILE_MAX, &text))
		return false;
	json_t *list = json_loads(buffer_str(&text), 0, NULL);
	json_t *last = json_array_get(list, json_array_size(list) - 1);
	const char *time = json_string_value(json_object_get(last, "time"));
	bool found = time && strcmp(time, since) >= 0;
	if (found && err)
		error_from_json(err, last);
	json_decref(list);
	return found;
}

/* What a file operation reported as an errno, in full where the environment wrote it down. */
static int explain(const struct client *c, const char *since, int errnum, const char *what, struct error *err)
{
	static const struct {
		int err;
		enum error_code code;
	} codes[] = {
	    {ECONNREFUSED, ERROR_BACKEND_UNREACHABLE},
	    {ETIMEDOUT, ERROR_NOT_READY},
	    {EINVAL, ERROR_CONFIG_INVALID},
	    {EACCES, ERROR_CONFIG_UNTRUSTED},
	    {ENOSPC, ERROR_QUOTA_EXCEEDED},
	    {EINTR, ERROR_CANCELED},
	    {ENOTCONN, ERROR_NOT_MOUNTED},
	    {ENOENT, ERROR_SERVICE_UNKNOWN},
	};
	if (errnum == EINTR && interrupted())
		return error_set(err, ERROR_CANCELED, "%s: interrupted", what);
	if (errnum != ENOTCONN && told(c, since, err))
		return -errnum;
	if (errnum == ENOENT && c->native != NATIVE_PLAIN && !is_mounted_by_us(c->control)) {
		error_set(err, ERROR_NOT_MOUNTED, "%s is not mounted, though the workspace is", c->control);
		return error_hint(err, "ajj detach %s, then ajj attach %s", c->id.root, c->id.root);
	}
	enum error_code code = ERROR_INTERNAL;
	for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
		if (codes[i].err == errnum)
			code = codes[i].code;
	return error_set_errno(err, code, errnum, "%s", what);
}

static int read_all(const struct client *c, const char *since, int fd, const char *file, struct buffer *out, struct error *err)
{
	char chunk[16384];
	ssize_t n;
	while ((n = read(fd, chunk, sizeof chunk)) > 0 || (n < 0 && errno == EINTR))
		if (n > 0 && out->len < CLIENT_FILE_MAX)
			buffer_add(out, chunk, (size_t)n);
	return n < 0 ? explain(c, since, errno, file, err) : 0;
}

int client_read(const struct client *c, const char *file, struct buffer *out, struct error *err)
{
	char since[32];
	format_time(since, now_wall_ms());
	if (c->native == NATIVE_PLAIN && c->mounted && !native_is_demand(file))
		native_look(c);
	cleanup_close int fd = client_demand(c, file, err);
	return fd < 0 ? fd : read_all(c, since, fd, file, out, err);
}

int client_hold(const struct client *c, const char *file, struct buffer *out, struct error *err)
{
	char since[32];
	bool plain = c->native == NATIVE_PLAIN; /* its files are nobody's lease */
	format_time(since, now_wall_ms());
	cleanup_close int held = plain ? native_demand(c, err) : -1;
	if (plain && held < 0)
		return held;
	cleanup_close int fd = client_demand(c, file, err);
	int r = fd < 0 ? fd : read_all(c, since, fd, file, out, err);
	return r ? r : move_fd(plain ? &held : &fd);
}

int client_status(const struct client *c, json_t **ret, struct error *err)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	json_error_t bad;
	int r = client_read(c, "status.json", &text, err);
	if (r)
		return r;
	*ret = json_loads(buffer_str(&text), 0, &bad);
	if (!*ret)
		return error_set(err, ERROR_INTERNAL, "%s/status.json: %s", c->control, bad.text);
	return 0;
}

int client_demand(const struct client *c, const char *file, struct error *err)
{
	char since[32];
	cleanup_free char *path = xasprintf("%s/%s", c->control, file);
	format_time(since, now_wall_ms());
	int r = c->native == NATIVE_PLAIN && native_is_demand(file) ? native_command(c, NATIVE_DEMAND, err) : 0;
	if (r)
		return r;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? explain(c, since, errno, file, err) : fd;
}

int client_command(const struct client *c, const char *line, struct error *err)
{
	char since[32];
	cleanup_free char *path = xasprintf("%s/ctl", c->control);
	cleanup_free char *text = xasprintf("%s\n", line);
	format_time(since, now_wall_ms());
	if (c->native == NATIVE_PLAIN)
		return native_command(c, line, err);
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return explain(c, since, errno, line, err);
	/* one write: it returns when the command is done */
	if (write(fd, text, strlen(text)) < 0)
		return explain(c, since, errno, line, err);
	return 0;
}

pid_t status_keeper(const json_t *status)
{
	return (pid_t)json_integer_value(json_object_get(json_object_get(status, "aetherfs"), "keeper_pid"));
}

bool client_stands_beneath(const struct client *c)
{
	struct stat here, there;
	cleanup_free char *path = getcwd(NULL, 0);
	if (!c->mounted || c->native || !path || !path_is_within(path, c->id.root))
		return false;
	return !stat(".", &here) && !stat(path, &there) && here.st_dev != there.st_dev;
}

void client_note_beneath(const struct client *c)
{
	if (client_stands_beneath(c))
		output_note(
		    "Note: this shell has stood in the directory since before it was mounted and sees what lies beneath: cd .");
}

void client_enter_mount(const struct client *c)
{
	if (!client_stands_beneath(c))
		return;
	cleanup_free char *path = getcwd(NULL, 0);
	if (path && chdir(path))
		output_note("Note: cannot enter %s: %s", path, strerror(errno));
}
