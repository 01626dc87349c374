#include "fs/overlay_private.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <time.h>

#include "base/alloc.h"
#include "base/log.h"

#define MAX_BACKGROUND 64 /* requests that nobody waits for, in the kernel's queue at once (its default is 12) */
#ifndef CIFS_SUPER_MAGIC
#define CIFS_SUPER_MAGIC 0xFF534D42
#endif
#ifndef SMB2_SUPER_MAGIC
#define SMB2_SUPER_MAGIC 0xFE534D42
#endif

/* ACLs are the kernel's to check: by mode bits alone it would grant what an ACL's mask shows in place of the group's. They cost nothing where the
 * caller owns the file. The umask comes with the request, for a directory's default ACL overrides it. */
static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	const struct overlay *o = userdata;
	const unsigned never = FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_HANDLE_KILLPRIV | FUSE_CAP_WRITEBACK_CACHE |
	                       FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE;
	const unsigned one_door = FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_EXPLICIT_INVAL_DATA;
	unsigned want = conn->want & ~never;
	want |= FUSE_CAP_READDIRPLUS | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_DONT_MASK;
	if (o->one_door)
		want = (want | one_door) & ~(unsigned)FUSE_CAP_AUTO_INVAL_DATA;
	else
		want = (want | FUSE_CAP_AUTO_INVAL_DATA) & ~one_door;
	if (o->acls)
		want |= FUSE_CAP_POSIX_ACL;
	conn->want = want & conn->capable;
	conn->max_background = MAX_BACKGROUND;
	conn->time_gran = 1;
}

const struct fuse_lowlevel_ops *overlay_ops(size_t *ret_size)
{
	static struct fuse_lowlevel_ops ops;
	ops.init = op_init;
	overlay_ops_names(&ops);
	overlay_ops_attributes(&ops);
	overlay_ops_xattrs(&ops);
	overlay_ops_data(&ops);
	overlay_ops_directories(&ops);
	*ret_size = sizeof(ops);
	return &ops;
}

/* Some file systems give an inode another number when it is copied up or looked at again. */
static bool inodes_are_stable(int fd)
{
	struct statfs s;
	if (fstatfs(fd, &s) < 0)
		return false;
	switch ((unsigned)s.f_type) {
	case OVERLAYFS_SUPER_MAGIC:
	case FUSE_SUPER_MAGIC:
	case V9FS_MAGIC:
	case CIFS_SUPER_MAGIC:
	case SMB2_SUPER_MAGIC:
		return false;
	}
	return true;
}

static bool is_one_of(const char *word, const char *const *words)
{
	while (*words && strcmp(*words, word) != 0)
		words++;
	return *words != NULL;
}

/* A file system that other machines change, or the host of this one: nothing may be remembered. By the mount's type, for FUSE is both: the
 * network's (sshfs, s3fs, rclone) and this machine's own (our overlay, in which this one may be nested). */
static bool others_change_it(const struct stat *st)
{
	static const char *const network[] = {"nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "ceph", "afs", "lustre", "vboxsf", "fuse", NULL};
	static const char *const own[] = {"fuse.aetherfs", "fuse.fuse-overlayfs", "fuse.bindfs", NULL};
	cleanup_fclose FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t size = 0;
	bool found = false;
	while (f && !found && getline(&line, &size, f) > 0) {
		unsigned major, minor;
		char type[64];
		const char *rest = strstr(line, " - ");
		if (!rest || sscanf(line, "%*d %*d %u:%u", &major, &minor) != 2 || sscanf(rest, " - %63s", type) != 1 ||
		    makedev(major, minor) != st->st_dev)
			continue;
		found = is_one_of(type, network) || (strncmp(type, "fuse.", 5) == 0 && !is_one_of(type, own));
	}
	free(line);
	return found;
}

static bool has_xattr_support(int fd, const char *name)
{
	return fgetxattr(fd, name, NULL, 0) >= 0 || errno != EOPNOTSUPP;
}

static int probe(struct overlay *o, struct error *err)
{
	struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_BENEATH};
	cleanup_close int fd = (int)syscall(SYS_openat2, o->root_fd, ".", &how, sizeof(how));
	if (fd < 0)
		return error_set_errno(err, ERROR_MOUNT_FAILED, errno, "openat2, which the overlay needs (Linux 5.6)");
	if (fstat(o->root_fd, &o->root) < 0)
		return error_set_errno(err, ERROR_MOUNT_FAILED, errno, "the covered directory");
	o->strict = o->shared->options & MOUNT_CACHE_STRICT || others_change_it(&o->root);
	o->one_door = !o->strict && !o->beneath;
	o->stable_inodes = inodes_are_stable(o->root_fd);
	o->xattrs = has_xattr_support(o->root_fd, "user.aether") || has_xattr_support(o->root_fd, "security.capability");
	o->acls = has_xattr_support(o->root_fd, "system.posix_acl_access");
	clock_gettime(CLOCK_REALTIME, &o->began);
	return 0;
}

static void freep(struct overlay **o)
{
	overlay_free(*o);
}

int overlay_new(const struct overlay_params *params, struct overlay **ret, struct error *err)
{
	__attribute__((cleanup(freep))) struct overlay *o = xcalloc(1, sizeof(*o));
	o->shared = params->shared;
	o->root_fd = params->root_fd;
	o->keeper_socket = params->keeper_socket;
	o->control_dir = xstrdup(params->control_dir);
	o->env_name = params->env_name;
	o->unlinked = params->unlinked;
	o->removal = params->removal;
	o->beneath = params->beneath;
	o->events = params->events;
	o->listed = params->shared->options & MOUNT_LISTED;
	pthread_mutex_init(&o->pin_lock, NULL);
	pthread_mutex_init(&o->widen_lock, NULL);
	pthread_mutex_init(&o->stream_lock, NULL);
	pthread_mutex_init(&o->replacement_lock, NULL);
	pthread_mutex_init(&o->env_files_lock, NULL);
	pthread_cond_init(&o->env_files_known, NULL);
	o->notices = notices_new();
	int r = probe(o, err);
	if (r == 0)
		r = nodes_new(o->shared, &o->root, &o->nodes, err);
	if (r < 0)
		return r;
	overlay_recover_rename(o);
	virtual_restore(o);
	*ret = move_ptr(o);
	return 0;
}

void overlay_set_session(struct overlay *o, struct session *s)
{
	notices_set_device(o->notices, session_fd(s));
}

/* The file that the real .env leads to, if it is one of this workspace: it was perhaps written beneath. */
static void forget_link_target(struct overlay *o)
{
	char target[PATH_MAX];
	struct stat st;
	ssize_t n = readlinkat(o->root_fd, o->env_name, target, sizeof(target) - 1);
	if (n <= 0)
		return;
	target[n] = '\0';
	size_t root = strlen(o->shared->root);
	bool by_root = strncmp(target, o->shared->root, root) == 0 && target[root] == '/';
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV};
	cleanup_close int fd = (int)syscall(SYS_openat2, o->root_fd, by_root ? target + root + 1 : target, &how, sizeof(how));
	if (fd >= 0 && !fstat(fd, &st))
		overlay_written_beneath(o, st.st_dev, st.st_ino);
}

void overlay_written_beneath(struct overlay *o, dev_t device, ino_t inode)
{
	nodes_lock_shared(o->nodes);
	uint32_t index = node_find(o->nodes, device, inode);
	fuse_ino_t id = index == NODE_NONE ? 0 : node_id(o->nodes, index);
	nodes_unlock(o->nodes);
	if (id)
		notices_inode(o->notices, id);
}

/* Both names are looked up anew: one has become the virtual file, the other an ordinary one. */
void overlay_set_env_name(struct overlay *o, const char *name)
{
	const char *old = atomic_exchange(&o->env_name, name);
	notices_entry(o->notices, FUSE_ROOT_ID, old);
	notices_entry(o->notices, FUSE_ROOT_ID, name);
	overlay_directory_changed(o, FUSE_ROOT_ID, true);
	notices_inode(o->notices, FUSE_ROOT_ID);
}

void overlay_nobody_beneath(struct overlay *o)
{
	atomic_store(&o->beneath, false);
}

void overlay_own_changed(struct overlay *o)
{
	forget_link_target(o);
	overlay_directory_changed(o, FUSE_ROOT_ID, true);
	notices_inode(o->notices, FUSE_ROOT_ID);
}

void overlay_free(struct overlay *o)
{
	if (!o)
		return;
	notices_free(o->notices);
	streams_free(o);
	env_files_free(o);
	nodes_free(o->nodes);
	for (int i = 0; i < 2; i++)
		free(o->renamed[i].name);
	free(o->control_dir);
	pthread_mutex_destroy(&o->pin_lock);
	pthread_mutex_destroy(&o->widen_lock);
	pthread_mutex_destroy(&o->stream_lock);
	pthread_mutex_destroy(&o->replacement_lock);
	pthread_mutex_destroy(&o->env_files_lock);
	pthread_cond_destroy(&o->env_files_known);
	free(o);
}
