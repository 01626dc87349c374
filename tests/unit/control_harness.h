/* A real mount of the control file system over a fake environment. The keeper, a child, starts servers: it was made before
 * anything of the mount was opened, for a server that inherits a file of its own mount hangs when it closes it. Whoever may
 * have to wait is a child too. A test program includes this once. */
#ifndef TESTS_CONTROL_HARNESS_H
#define TESTS_CONTROL_HARNESS_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "fake_environment.h"
#include "fs/control.h"
#include "fs/session.h"

#define HANG_S 100 /* a test program that takes longer hangs in its own mount: the connection is aborted */

/* What a client process saw. */
struct outcome {
	_Atomic int started, done;
	int err;
	int64_t size; /* fstat */
	uint64_t ino;
	size_t len;
	char text[8192];
};

static struct mount {
	char dir[64];
	struct fuse_session *fuse; /* for mounting alone */
	int fd;
	struct shared *shared;
	struct outcome *outcome;
	pid_t keeper, watchdog;
	struct {
		_Atomic int start; /* asks the keeper for another server */
		_Atomic pid_t server;
	} *orders;
	bool allow_other;
	const char *helper;
} m;

/* ---- the server --------------------------------------------------------------------------------------------------- */

struct server {
	uv_loop_t loop;
	uv_poll_t poll;
	uv_timer_t timer;
	struct control *control;
	struct session *session;
};

static void server_readable(uv_poll_t *poll, int status, int events)
{
	struct server *s = poll->data;
	if (session_process(s->session) == -ENODEV)
		uv_stop(&s->loop);
}

static void server_changed(void *arg, unsigned what)
{
	control_changed(arg, what);
}

static void server_turn(uv_timer_t *timer)
{
	struct server *s = timer->data;
	fake_turn(fake_environment, server_changed, s->control);
}

static json_t *server_leases(void *arg)
{
	return control_leases(arg);
}

static void (*real_open)(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);

static void restless_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	static unsigned n;
	if (fake->restless) {
		snprintf(fake->env, sizeof fake->env, "N=%0*u\n", 1 + n % 200, n);
		n++;
		control_changed(fuse_req_userdata(req), CHANGED_ENV);
	}
	real_open(req, ino, fi);
}

static void serve(void)
{
	static struct server s;
	size_t ops_size;
	cleanup_error struct error err = ERROR_INIT;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGCHLD, SIG_DFL);
	uv_loop_init(&s.loop);
	m.shared->server_generation++;
	struct control_params params = {.shared = m.shared, .loop = &s.loop, .unlinked = unlinked_new(), .helper = m.helper,
	                                .control_dir = m.dir, .root = m.dir, .fd = m.fd, .owner = geteuid()};
	if (control_new(&params, &s.control, &err) < 0)
		_exit(90);
	fake_environment = calloc(1, sizeof *fake_environment);
	*fake_environment = (struct environment){.leases = server_leases, .leases_arg = s.control};
	control_set_environment(s.control, fake_environment);
	if (!fake->loading)
		control_changed(s.control, CHANGED_SERVICES);
	struct fuse_lowlevel_ops ops = *control_ops(&ops_size);
	real_open = ops.open;
	ops.open = restless_open;
	if (session_new(m.fd, SESSION_CONTROL, m.shared, &ops, ops_size, s.control, &s.session, &err) < 0) {
		fprintf(stderr, "session: %s\n", err.message);
		_exit(91);
	}
	control_set_session(s.control, s.session);
	uv_poll_init(&s.loop, &s.poll, session_fd(s.session));
	s.poll.data = s.timer.data = &s;
	uv_poll_start(&s.poll, UV_READABLE, server_readable);
	uv_timer_init(&s.loop, &s.timer);
	uv_timer_start(&s.timer, server_turn, 2, 2);
	uv_run(&s.loop, UV_RUN_DEFAULT);
	uv_close((uv_handle_t *)&s.poll, NULL);
	uv_close((uv_handle_t *)&s.timer, NULL);
	control_free(s.control);
	uv_run(&s.loop, UV_RUN_DEFAULT);
	session_free(s.session);
	unlinked_free(params.unlinked);
	free(fake_environment);
	exit(0); /* a sanitizer looks for what leaked */
}

static void keep(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGCHLD, SIG_IGN);
	for (;; usleep(1000)) {
		if (!m.orders->start)
			continue;
		pid_t pid = fork();
		if (pid == 0)
			serve();
		m.orders->server = pid;
		m.orders->start = 0;
	}
}

static void start_server(void)
{
	m.orders->start = 1;
	while (m.orders->start)
		usleep(500);
}

/* After the unmount it ends by itself. */
static void end_server(void)
{
	for (int i = 0; i < 4000 && kill(m.orders->server, 0) == 0; i++)
		usleep(500);
	kill(m.orders->server, SIGKILL);
}

static inline void kill_server(void)
{
	kill(m.orders->server, SIGKILL);
	while (kill(m.orders->server, 0) == 0)
		usleep(500);
}

/* ---- the mount ---------------------------------------------------------------------------------------------------- */

/* A hung mount holds the test itself: only another process can abort the connection. */
static void start_watchdog(const char *connection)
{
	m.watchdog = fork();
	if (m.watchdog)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	close(m.fd);
	sleep(HANG_S);
	fprintf(stderr, "hangs: the connection is aborted\n");
	int fd = open(connection, O_WRONLY);
	if ((fd < 0 || write(fd, "1", 1) < 0) && umount2(m.dir, MNT_FORCE) < 0)
		fprintf(stderr, "%s: %s\n", connection, strerror(errno));
	_exit(1);
}

static void *shared_memory(size_t size)
{
	int fd = memfd_create("shared", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		return NULL;
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	close(fd);
	return p == MAP_FAILED ? NULL : p;
}

static int mount_setup(void **state)
{
	static const struct fuse_lowlevel_ops none;
	char connection[64];
	struct stat st;
	m.allow_other = geteuid() == 0;
	char *argv[] = {(char *)"test", (char *)(m.allow_other ? "-oallow_other,fsname=test" : "-ofsname=test"), NULL};
	struct fuse_args args = FUSE_ARGS_INIT(2, argv);
	snprintf(m.dir, sizeof m.dir, "/tmp/control.XXXXXX");
	if (!mkdtemp(m.dir))
		return -1;
	m.fuse = fuse_session_new(&args, &none, sizeof none, NULL);
	fuse_opt_free_args(&args);
	if (!m.fuse || fuse_session_mount(m.fuse, m.dir) != 0) {
		fprintf(stderr, "skip: no mount here\n");
		return -1;
	}
	m.fd = fuse_session_fd(m.fuse);
	fcntl(m.fd, F_SETFL, fcntl(m.fd, F_GETFL) | O_NONBLOCK);
	const char *build = getenv("BUILD"); /* a copy, where another user may not look into the checkout */
	static char helper[PATH_MAX];
	snprintf(helper, sizeof helper, "%s/aetherfs-helper", build ? build : TEST_BUILD);
	m.helper = helper;
	m.shared = shared_memory(SHARED_SIZE);
	m.outcome = shared_memory(16 * sizeof *m.outcome);
	fake = shared_memory(sizeof *fake);
	m.orders = shared_memory(sizeof *m.orders);
	if (!m.shared || !m.outcome || !fake || !m.orders)
		return -1;
	fake->service_count = FAKE_SERVICES;
	strcpy(fake->env, "A=1\n");
	strcpy(fake->status, "{\"state\": \"absent\"}\n");
	m.keeper = fork();
	if (m.keeper == 0)
		keep();
	start_server();
	if (stat(m.dir, &st) < 0)
		return -1;
	snprintf(connection, sizeof connection, "/sys/fs/fuse/connections/%u/abort", minor(st.st_dev));
	start_watchdog(connection);
	return 0;
}

static int mount_teardown(void **state)
{
	kill(m.watchdog, SIGKILL);
	waitpid(m.watchdog, NULL, 0);
	fuse_session_unmount(m.fuse);
	end_server();
	kill(m.keeper, SIGKILL);
	waitpid(m.keeper, NULL, 0);
	fuse_session_destroy(m.fuse);
	munmap(m.orders, sizeof *m.orders);
	munmap(m.shared, SHARED_SIZE);
	munmap(m.outcome, 16 * sizeof *m.outcome);
	munmap(fake, sizeof *fake);
	rmdir(m.dir);
	return 0;
}

#define T(name) cmocka_unit_test_setup_teardown(name, mount_setup, mount_teardown)

/* ---- what tests do ------------------------------------------------------------------------------------------------ */

static inline const char *at(const char *name)
{
	static char paths[8][512];
	static unsigned next;
	char *path = paths[next++ % 8];
	snprintf(path, sizeof paths[0], "%s/%s", m.dir, name);
	return path;
}

#define eventually(condition)                                              \
	do {                                                                   \
		int tries_ = 0;                                                    \
		while (!(condition) && tries_++ < 2500)                            \
			usleep(2000);                                                  \
		if (!(condition))                                                  \
			fail_msg("waited in vain for: %s", #condition);                \
	} while (0)

static inline bool within(const _Atomic int *flag, int ms)
{
	for (int i = 0; i < ms / 2 && !*flag; i++)
		usleep(2000);
	return *flag;
}

static inline void changed(unsigned what)
{
	fake->changed |= what;
	eventually(fake->changed == 0);
}

static inline void set_env(const char *text)
{
	snprintf(fake->env, sizeof fake->env, "%s", text);
	changed(CHANGED_ENV);
}

static inline void read_into(const char *path, int flags, struct outcome *o)
{
	o->started = 1;
	struct stat st;
	int fd = open(path, flags);
	o->err = fd < 0 ? errno : 0;
	if (fd >= 0) {
		fstat(fd, &st);
		o->size = st.st_size;
		o->ino = st.st_ino;
		ssize_t n;
		while ((n = read(fd, o->text + o->len, sizeof o->text - 1 - o->len)) > 0)
			o->len += (size_t)n;
		if (n < 0)
			o->err = errno;
		close(fd);
	}
	o->done = 1;
}

/* As fork(2). The device stays with the keeper: a client that hung in the mount would keep the connection alive by it. */
static inline pid_t client(void)
{
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(m.fd);
	}
	return pid;
}

/* A process that reads; `i` is its place among the outcomes. */
static inline pid_t reader(int i, const char *path, int flags, void (*before)(void))
{
	struct outcome *o = &m.outcome[i];
	memset(o, 0, sizeof *o);
	pid_t pid = client();
	if (pid == 0) {
		if (before)
			before();
		read_into(path, flags, o);
		_exit(0);
	}
	return pid;
}

static inline void join(pid_t pid)
{
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static inline void expect_text(const char *name, const char *text)
{
	struct outcome *o = &m.outcome[15];
	memset(o, 0, sizeof *o);
	read_into(at(name), O_RDONLY, o);
	assert_int_equal(o->err, 0);
	assert_string_equal(o->text, text);
	assert_int_equal(o->size, strlen(text));
}

static inline void expect_errno(int err, int result)
{
	int have = errno;
	assert_int_equal(result, -1);
	assert_int_equal(have, err);
}

static inline uint64_t ino_of(const char *name)
{
	struct stat st;
	assert_return_code(stat(at(name), &st), errno);
	return st.st_ino;
}

/* A whole file by one open with `flags`, one write, one close. The errno of the first that fails. */
static inline int put(const char *name, const char *text, int flags)
{
	int fd = open(at(name), O_WRONLY | flags, 0600), err = 0;
	if (fd < 0)
		return errno;
	if (*text && write(fd, text, strlen(text)) < 0)
		err = errno;
	if (close(fd) < 0 && !err)
		err = errno;
	return err;
}

#endif
