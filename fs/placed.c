#include "fs/placed.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "provisioner/envfile.h"
#include "provisioner/layers.h"
#include "provisioner/native.h"

#define AREA "placed"
#define LOOK_MS 1000
#define WAITS_MAX 30 /* looks for which a process that may be removing the directory is waited for */

struct placed {
	struct placed_params p;
	uv_timer_t timer;
	uint64_t stamp; /* of the last look */
	char place[PATH_MAX]; /* of the directory, as the kernel told it at first */
	unsigned waits;
};

/* Asks nobody: the path itself may lead through another mount by now. False where the kernel does not know: it forgets the name of what changes
 * behind it in a mount that this one lies in. */
static bool find_place(const struct placed *p, char ret[PATH_MAX])
{
	static const char unknown[] = " (deleted)";
	char link[32];
	snprintf(link, sizeof link, "/proc/self/fd/%d", p->p.root_fd);
	ssize_t n = readlink(link, ret, PATH_MAX - 1);
	ret[n < 0 ? 0 : n] = '\0';
	ssize_t tail = n - (ssize_t)strlen(unknown);
	return n > 0 && !(tail > 0 && !strcmp(ret + tail, unknown));
}

/* No mount point keeps it, or a directory above it, from being renamed. */
static bool is_moved(const struct placed *p)
{
	char now[PATH_MAX];
	return p->place[0] && find_place(p, now) && strcmp(now, p->place);
}

enum { THERE, REMOVED, LOST };

static int how_is_root(const struct placed *p)
{
	struct stat st;
	if (!fstat(p->p.root_fd, &st))
		return !st.st_nlink ? REMOVED : is_moved(p) ? LOST : THERE;
	return errno == ENOENT || errno == ESTALE ? REMOVED : errno == ENOTCONN || errno == ECONNABORTED ? LOST : THERE;
}

static uint64_t look_at(const struct placed *p)
{
	uint64_t h = layers_stamp(HASH_INIT, p->p.root_fd, ".", 0);
	h = layers_stamp(h, p->p.root_fd, NATIVE_DIRECTORY, AT_SYMLINK_NOFOLLOW);
	return layers_stamp(h, p->p.root_fd, p->p.id->env_name, AT_SYMLINK_NOFOLLOW);
}

static bool is_there(const struct placed *p, const char *name)
{
	struct stat st;
	return !fstatat(p->p.root_fd, name, &st, AT_SYMLINK_NOFOLLOW);
}

/* ---- is it being removed? ---- */

static bool holds_directory_below(const char *pid, const char *root, size_t len)
{
	cleanup_free char *path = xasprintf("/proc/%s/fd", pid);
	cleanup_closedir DIR *dir = opendir(path); /* of other users: refused, and they cannot remove it */
	for (struct dirent *d; dir && (d = readdir(dir));) {
		char target[PATH_MAX];
		struct stat st;
		ssize_t n = readlinkat(dirfd(dir), d->d_name, target, sizeof target - 1);
		if (n < (ssize_t)len || strncmp(target, root, len) || (n > (ssize_t)len && target[len] != '/' && target[len] != ' '))
			continue;
		if (!fstatat(dirfd(dir), d->d_name, &st, 0) && S_ISDIR(st.st_mode))
			return true;
	}
	return false;
}

/* `rm -rf` and its kind hold the directory that they empty; a link that comes back behind them would keep it. */
static bool is_being_walked(const struct placed *p)
{
	char self[16], parent[16];
	cleanup_closedir DIR *proc = opendir("/proc");
	snprintf(self, sizeof self, "%d", (int)getpid());
	snprintf(parent, sizeof parent, "%d", (int)getppid());
	for (struct dirent *d; proc && (d = readdir(proc));)
		if (d->d_name[0] >= '1' && d->d_name[0] <= '9' && strcmp(d->d_name, self) && strcmp(d->d_name, parent) &&
		    holds_directory_below(d->d_name, p->p.id->root, strlen(p->p.id->root)))
			return true;
	return false;
}

static bool is_a_workspace(const struct placed *p)
{
	return p->p.id->kind == WORKSPACE_PLAIN || is_there(p, ".git") || is_there(p, ".jj");
}

/* ---- putting it right ---- */

/* An editor or `sed -i` has renamed a file over the link: what it holds was meant for .env. */
static int take_in(const struct placed *p, struct error *err)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	struct stat st;
	const char *name = p->p.id->env_name;
	if (fstatat(p->p.root_fd, name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
		return 0;
	layers_read_lines(p->p.root_fd, name, &text);
	int r = environment_write_env(p->p.environment, buffer_str(&text), text.len, err);
	if (!r && unlinkat(p->p.root_fd, name, 0) && errno != ENOENT)
		r = error_set_errno(err, ERROR_PERMISSION, errno, "%s", name);
	return r;
}

static void put_links_right(struct placed *p)
{
	cleanup_error struct error err = ERROR_INIT;
	int r = take_in(p, &err);
	if (!r)
		r = native_place_links(p->p.id, p->p.root_fd, &err);
	if (r)
		log_warning(AREA, "the links in %s are not as they should be: %s", p->p.id->root, err.message);
	environment_own_changed(p->p.environment);
}

static void put_right(struct placed *p)
{
	if (p->p.plain)
		plain_put_right(p->p.plain);
	else
		put_links_right(p);
	p->stamp = look_at(p);
}

static bool is_right(const struct placed *p)
{
	if (p->p.plain)
		return plain_is_right(p->p.plain);
	return native_env_is_ours(p->p.id, p->p.root_fd) && native_find(p->p.root_fd) == NATIVE_LINKS;
}

/* What has just changed is looked at once more: whoever did it may not be done. */
static void look(struct placed *p)
{
	uint64_t stamp = look_at(p), before = p->stamp;
	p->stamp = stamp;
	environment_own_changed(p->p.environment); /* the main checkout's lines, too */
	if (is_right(p) || stamp != before || !is_a_workspace(p)) {
		p->waits = 0;
		return;
	}
	if (p->waits++ < WAITS_MAX && is_being_walked(p))
		return;
	p->waits = 0;
	put_right(p);
}

static void on_look(uv_timer_t *timer)
{
	struct placed *p = timer->data;
	int how = how_is_root(p);
	if (how == THERE) {
		look(p);
		return;
	}
	placed_stop(p);
	(how == REMOVED ? p->p.removed : p->p.lost)(p->p.arg);
}

struct placed *placed_new(const struct placed_params *params)
{
	struct placed *p = xcalloc(1, sizeof *p);
	p->p = *params;
	if (!find_place(p, p->place))
		p->place[0] = '\0';
	uv_timer_init(params->loop, &p->timer);
	p->timer.data = p;
	uv_timer_start(&p->timer, on_look, LOOK_MS, LOOK_MS);
	return p;
}

void placed_stop(struct placed *p)
{
	uv_timer_stop(&p->timer);
}
