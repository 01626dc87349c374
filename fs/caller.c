#include "fs/caller.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define GROUPS_MAX 1024

static _Thread_local struct {
	bool ready, root, groups, own_umask;
	uid_t uid;
	gid_t gid;
} this_thread;

/* Blocks and inodes that are reserved for root, and limits of quotas, are root's by CAP_SYS_RESOURCE, whatever fsuid says. */
static void drop_sys_resource(void)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2];
	if (syscall(SYS_capget, &header, data) != 0)
		return;
	data[0].effective &= ~(1u << CAP_SYS_RESOURCE);
	syscall(SYS_capset, &header, data);
}

/* A umask of this thread's own: the kernel hands us the caller's, and a directory's default ACL decides whether it counts. */
static void prepare_thread(void)
{
	this_thread.own_umask = unshare(CLONE_FS) == 0; /* a sandbox may refuse it */
	umask(0);
	this_thread.root = geteuid() == 0;
	if (this_thread.root)
		drop_sys_resource();
	this_thread.ready = true;
}

mode_t caller_mode(fuse_req_t req, mode_t mode)
{
	return this_thread.own_umask ? mode : mode & ~fuse_req_ctx(req)->umask;
}

bool caller_may_differ(void)
{
	return geteuid() == 0;
}

/* setfsuid() reports no errors: asking once more tells what is in force. */
static int set_ids(uid_t uid, gid_t gid)
{
	if (gid != 0)
		setfsgid(gid);
	if (uid != 0)
		setfsuid(uid);
	bool done = (uid == 0 || (uid_t)setfsuid((uid_t)-1) == uid) && (gid == 0 || (gid_t)setfsgid((gid_t)-1) == gid);
	return done ? 0 : -EPERM;
}

int caller_enter(fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	if (!this_thread.ready)
		prepare_thread();
	if (this_thread.own_umask)
		umask(ctx->umask);
	if (!this_thread.root)
		return 0;
	this_thread.uid = ctx->uid;
	this_thread.gid = ctx->gid;
	int r = set_ids(ctx->uid, ctx->gid);
	if (r < 0)
		caller_leave();
	return r;
}

/* By the system call: the C library's setgroups() changes every thread. */
void caller_enter_groups(fuse_req_t req)
{
	gid_t groups[GROUPS_MAX];
	if (!this_thread.root || this_thread.groups)
		return;
	int count = fuse_req_getgroups(req, GROUPS_MAX, groups);
	if (count > 0 && count <= GROUPS_MAX && syscall(SYS_setgroups, (size_t)count, groups) == 0)
		this_thread.groups = true;
}

void caller_leave(void)
{
	if (this_thread.root) {
		if (this_thread.uid != 0)
			setfsuid(0);
		if (this_thread.gid != 0)
			setfsgid(0);
		if (this_thread.groups)
			syscall(SYS_setgroups, (size_t)0, NULL);
		this_thread.groups = false;
		this_thread.uid = 0;
		this_thread.gid = 0;
	}
	umask(0);
}
