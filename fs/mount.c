#include "fs/mount.h"

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/fuse_conf.h"
#include "base/program.h"
#include "provisioner/mounts.h"

#define WITHOUT "without mounts: ajj up --plain; " /* the way out that is always there */
#define DEAD_MAX 16 /* dead mounts on top of each other that are taken away */

/* ---- the mount table ---- */

/* The table writes space, tab, newline and backslash as \ooo. */
static void unescape(char *s)
{
	char *out = s;
	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
			*out++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 3;
		} else {
			*out++ = *s;
		}
	}
	*out = '\0';
}

struct mount_line {
	unsigned device;
	const char *point, *type;
	size_t type_len;
};

/* "ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAGS] - TYPE SOURCE ...": proc_pid_mountinfo(5) */
static bool parse_line(char *line, struct mount_line *ret)
{
	int point_at = 0, point_end = 0;
	if (sscanf(line, "%*d %*d %*u:%u %*s %n%*s%n", &ret->device, &point_at, &point_end) != 1 || !point_end)
		return false;
	char *rest = strstr(line + point_end, " - ");
	if (!rest)
		return false;
	line[point_end] = '\0';
	unescape(line + point_at);
	ret->point = line + point_at;
	ret->type = rest + 3;
	ret->type_len = strcspn(ret->type, " ");
	return true;
}

bool mount_find(const char *path, struct mount_entry *ret)
{
	cleanup_fclose FILE *f = fopen("/proc/self/mountinfo", "re");
	cleanup_free char *line = NULL;
	size_t cap = 0;
	bool found = false;
	while (f && getline(&line, &cap, f) > 0) {
		struct mount_line l;
		if (!parse_line(line, &l) || strcmp(l.point, path))
			continue;
		found = true; /* the last one is on top */
		ret->device = l.device;
		snprintf(ret->type, sizeof ret->type, "%.*s", (int)l.type_len, l.type);
	}
	return found;
}

static bool is_of(const struct mount_line *l, unsigned device, const char *type)
{
	return l->device == device && l->type_len == strlen(type) && !strncmp(l->type, type, l->type_len);
}

bool mount_exists(unsigned device, const char *type)
{
	cleanup_fclose FILE *f = fopen("/proc/self/mountinfo", "re");
	cleanup_free char *line = NULL;
	size_t cap = 0;
	while (f && getline(&line, &cap, f) > 0) {
		struct mount_line l;
		if (parse_line(line, &l) && is_of(&l, device, type))
			return true;
	}
	return !f; /* who cannot look must not conclude */
}

char *mount_point_of(unsigned device, const char *type)
{
	cleanup_fclose FILE *f = fopen("/proc/self/mountinfo", "re");
	cleanup_free char *line = NULL;
	size_t cap = 0;
	char *found = NULL;
	while (f && getline(&line, &cap, f) > 0) {
		struct mount_line l;
		if (!parse_line(line, &l) || !is_of(&l, device, type))
			continue;
		free(found);
		found = xstrdup(l.point);
	}
	return found;
}

bool mount_is(const char *path, const char *type)
{
	struct mount_entry e;
	return mount_find(path, &e) && !strcmp(e.type, type);
}

/* ---- what must be there ---- */

bool mount_may_share(void)
{
	return geteuid() == 0 || fuse_conf_allows_other();
}

int mount_check(struct error *err)
{
	struct stat st;
	cleanup_close int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	/* a sandbox may have put something else there */
	if (fd < 0 || fstat(fd, &st) || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(10, 229)) {
		int saved = fd < 0 ? errno : ENODEV;
		error_set_errno(err, ERROR_NO_FUSE, saved, "/dev/fuse cannot be opened");
		if (saved == EACCES)
			error_hint(err, WITHOUT "or an administrator runs: chmod 666 /dev/fuse");
		else
			error_hint(err, WITHOUT "or load the kernel's module (modprobe fuse), in a container: --device /dev/fuse --cap-add SYS_ADMIN");
		return -error_code_errno(ERROR_NO_FUSE);
	}
	if (geteuid() == 0)
		return 0;
	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1) {
		error_set(err, ERROR_MOUNT_NO_NEW_PRIVS, "this process may not gain privileges (no_new_privs), so fusermount3 cannot mount");
		error_hint(err, WITHOUT "or go outside of the sandbox");
		return -error_code_errno(ERROR_MOUNT_NO_NEW_PRIVS);
	}
	cleanup_free char *mounter = program_in_path("fusermount3", getenv("PATH"));
	if (!mounter) {
		error_set(err, ERROR_MOUNT_FAILED, "fusermount3 is not installed");
		error_hint(err, WITHOUT "or install the package fuse3: apt-get install fuse3");
		return -error_code_errno(ERROR_MOUNT_FAILED);
	}
	return 0;
}

/* ---- mounting ---- */

/* libfuse and fusermount3 say on standard error why they refuse. */
static int divert_stderr(int *ret_saved)
{
	int memory = memfd_create("stderr", MFD_CLOEXEC);
	*ret_saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	if (memory >= 0)
		dup2(memory, STDERR_FILENO);
	return memory;
}

/* What was said meanwhile, its last line. */
static void restore_stderr(int memory, int saved, char *said, size_t size)
{
	said[0] = '\0';
	if (saved >= 0)
		dup2(saved, STDERR_FILENO);
	else
		close(STDERR_FILENO);
	if (saved >= 0)
		close(saved);
	if (memory < 0)
		return;
	off_t end = lseek(memory, 0, SEEK_END), from = end > (off_t)size - 1 ? end - (off_t)size + 1 : 0;
	ssize_t n = pread(memory, said, size - 1, from);
	close(memory);
	said[n > 0 ? n : 0] = '\0';
	while (n > 0 && said[n - 1] == '\n')
		said[--n] = '\0';
	char *last = strrchr(said, '\n');
	if (last)
		memmove(said, last + 1, strlen(last));
}

int mount_fuse(const char *path, const char *type, const char *options, int *ret_fd, struct error *err)
{
	static const struct fuse_lowlevel_ops none;
	const char *subtype = strchr(type, '.') + 1;
	cleanup_free char *all = xasprintf("fsname=%s,subtype=%s%s%s", subtype, subtype, *options ? "," : "", options);
	char name[] = "aetherfs", flag[] = "-o", *argv[] = {name, flag, all, NULL}, said[512];
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);
	int saved, memory = divert_stderr(&saved), fd = -1;
	struct fuse_session *se = fuse_session_new(&args, &none, sizeof none, NULL);
	bool mounted = se && !fuse_session_mount(se, path);
	if (mounted)
		fd = fcntl(fuse_session_fd(se), F_DUPFD_CLOEXEC, 3);
	restore_stderr(memory, saved, said, sizeof said);
	if (se)
		fuse_session_destroy(se); /* its own descriptor alone */
	fuse_opt_free_args(&args);
	if (fd >= 0) {
		*ret_fd = fd;
		return 0;
	}
	if (mounted)
		mount_detach(path);
	error_set(err, ERROR_MOUNT_FAILED, "cannot mount on %s%s%s", path, *said ? ": " : "", said);
	error_hint(err, geteuid() == 0 ? WITHOUT "or give it CAP_SYS_ADMIN, in a container: --cap-add SYS_ADMIN" : WITHOUT "or see to what fusermount3 says");
	return -error_code_errno(ERROR_MOUNT_FAILED);
}

/* ---- unmounting ---- */

static int run(const char *const argv[])
{
	pid_t pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		sigset_t none;
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		signal(SIGALRM, SIG_DFL);
		alarm(MOUNT_HELPER_SECONDS);
		int null = open("/dev/null", O_RDWR);
		dup2(null, STDERR_FILENO);
		execvp(argv[0], (char *const *)argv);
		_exit(127);
	}
	int status;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

int mount_detach(const char *path)
{
	if (geteuid() == 0)
		return umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) ? -errno : 0;
	return run((const char *const[]){"fusermount3", "-u", "-z", "-q", "--", path, NULL});
}

int mount_end(const char *path)
{
	if (geteuid() == 0 && !umount2(path, MNT_FORCE | MNT_DETACH | UMOUNT_NOFOLLOW))
		return 0;
	return mount_detach(path); /* in a container's user namespace root may not force */
}

bool mount_is_over(int fuse)
{
	struct pollfd alive = {fuse, 0, 0};
	return poll(&alive, 1, 0) != 0; /* POLLERR: unmounted everywhere, or aborted */
}

void mount_abort(int fuse, unsigned device)
{
	char path[64];
	if (mount_is_over(fuse))
		return; /* the number may be another's by now */
	snprintf(path, sizeof path, "/sys/fs/fuse/connections/%u/abort", device);
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0)
		write_all(fd, "1", 1);
}

/* realpath(3) fails on a dead mount itself, not on its parent. */
static char *resolve_dead(const char *path)
{
	cleanup_free char *copy = xstrdup(path), *parent = NULL;
	size_t len = strlen(copy);
	while (len > 1 && copy[len - 1] == '/')
		copy[--len] = '\0';
	char *slash = strrchr(copy, '/'), *base = slash ? slash + 1 : copy;
	if (!strcmp(base, ".") || !strcmp(base, ".."))
		return NULL;
	if (slash)
		*slash = '\0';
	parent = realpath(slash ? (*copy ? copy : "/") : ".", NULL);
	return parent ? xasprintf("%s/%s", strcmp(parent, "/") ? parent : "", base) : NULL;
}

int mount_resolve(const char *path, const char *type, char **ret, struct error *err)
{
	for (int i = 0; i < DEAD_MAX; i++) {
		struct stat st;
		cleanup_free char *whole = realpath(path, NULL);
		if (whole && mount_is(whole, type) && mount_is_hung(whole))
			return error_set(err, ERROR_NOT_READY, "the server of %s has not answered for %u s", whole, MOUNT_ANSWER_MS / 1000);
		if (whole && !stat(whole, &st)) {
			*ret = move_ptr(whole);
			return 0;
		}
		int saved = errno;
		if (saved != ENOTCONN && saved != ECONNABORTED)
			return error_set_errno(err, ERROR_WORKSPACE_NOT_FOUND, saved, "%s", path);
		cleanup_free char *dead = resolve_dead(path);
		if (!dead || !mount_is(dead, type) || mount_detach(dead))
			break;
	}
	error_set_errno(err, ERROR_MOUNT_FAILED, ENOTCONN, "%s is a mount that nobody serves", path);
	error_hint(err, "fusermount3 -u -z %s", path);
	return err ? -err->err : -ENOTCONN;
}
