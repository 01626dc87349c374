/* Who holds jj's lock of this working copy sees what is beneath, and no virtual file.
 *
 * jj writes a file of a commit by making it anew, O_EXCL: with a virtual `.env` in the way it skips the one that the commit tracks, and its
 * next snapshot, which finds none in the directory, takes it out of the commit. That a repository tracks `.env` is not always known before
 * somebody's `jj edit` or `jj new` comes to such a commit. So jj makes, reads and removes the real file, and what is in a commit, or gets into
 * one, is never what is made here; to everybody else the real file is the user's lines, as ever.
 *
 * jj (local_working_copy.rs) holds `.jj/working_copy/working_copy.lock` open, and in its directory, over all of a check-out and all of a
 * snapshot, and so does every program that has jj's library in it. Children do not inherit it. */
#include "fs/overlay_private.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#define LOCK ".jj/working_copy/working_copy.lock"

static bool ends_in_lock(const char *target, size_t len)
{
	size_t n = strlen("/" LOCK);
	return len > n && memcmp(target + len - n, "/" LOCK, n) == 0;
}

/* By the names of what it has open: to look at the file itself would be to ask this very server. */
static bool has_lock_open(pid_t pid)
{
	char path[64], target[PATH_MAX];
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	cleanup_closedir DIR *dir = opendir(path);
	for (struct dirent *d; dir && (d = readdir(dir));) {
		ssize_t n = readlinkat(dirfd(dir), d->d_name, target, sizeof(target));
		if (n > 0 && ends_in_lock(target, (size_t)n))
			return true;
	}
	return false;
}

bool overlay_sees_beneath(fuse_req_t req)
{
	struct stat st;
	pid_t pid = fuse_req_ctx(req)->pid;
	return pid > 0 && fstatat(overlay_of(req)->root_fd, LOCK, &st, AT_SYMLINK_NOFOLLOW) == 0 && has_lock_open(pid);
}

enum virtual_name virtual_for(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	enum virtual_name v = virtual_find(overlay_of(req), parent, name);
	return v == VIRTUAL_ENV && overlay_sees_beneath(req) ? VIRTUAL_NONE : v;
}

void overlay_jj_changed(struct overlay *o, fuse_ino_t parent, const char *name)
{
	static const char lock[] = "working_copy.lock";
	bool done = strcmp(name, lock) == 0;
	if ((done || virtual_find(o, parent, name) == VIRTUAL_ENV) && o->events.env_changed)
		o->events.env_changed(o->events.arg);
}
