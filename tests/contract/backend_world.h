/* What the contract tests of backends stand on: one loop, one backend, services of one's own, and everything waited for
 * with a limit. Included by test_backend*.c alone. */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "backends/backend.h"
#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"

#pragma GCC diagnostic ignored "-Wunused-function" /* each program takes what it needs */

#define WAIT_MS 30000
#define TURN_MS 10
#define SERVICES_UID 61234 /* under root */

struct world {
	const char *target; /* backend */
	uv_loop_t loop;
	uv_timer_t guard;
	uint64_t until_ms;
	struct backend *b;
	char *dir; /* private; removed at the end */
	char *state, *shared;
	int keeper_pidfd;
	unsigned changes;
	unsigned told; /* of what runs */
	pid_t told_pid;
	struct instance changed; /* the last one; its strings are not kept */
	char changed_service[64];
};

/* Servers are forked here from a program that has threads. */
#if defined(__SANITIZE_THREAD__)
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
	return "die_after_fork=0";
}
#endif

#define skip_saying(name, why)                                                                                         \
	do {                                                                                                               \
		printf("skip: %s: %s\n", (name), (why));                                                                       \
		fflush(stdout);                                                                                                \
		skip();                                                                                                        \
	} while (0)

/* ---- waiting ---- */

static void on_guard(uv_timer_t *timer)
{
	const struct world *w = timer->data;
	if (now_monotonic_ms() < w->until_ms)
		return;
	fprintf(stderr, "nothing happened for %d ms\n", WAIT_MS);
	abort();
}

struct outcome {
	int calls;
	enum error_code code;
	int err;
	char message[512];
	json_t *details;
	/* list */
	struct instance items[16];
	char names[16][64], hashes[16][64];
	size_t count;
	/* exec */
	int exit_code;
	char *output;
};

static void outcome_release(struct outcome *o)
{
	json_decref(o->details);
	free(o->output);
}
#define OUTCOME __attribute__((cleanup(outcome_release))) struct outcome

static void take_error(struct outcome *o, const struct error *err)
{
	o->calls++;
	o->code = err ? err->code : ERROR_NONE;
	o->err = err ? err->err : 0;
	snprintf(o->message, sizeof o->message, "%s", err && err->message ? err->message : "");
	json_decref(o->details);
	o->details = err && err->details ? json_incref(err->details) : NULL;
}

static void on_done(void *arg, const struct error *err)
{
	take_error(arg, err);
}

static void on_list(void *arg, const struct error *err, const struct instances *list)
{
	struct outcome *o = arg;
	take_error(o, err);
	o->count = list->count;
	assert_true(list->count <= 16);
	for (size_t i = 0; i < list->count; i++) {
		o->items[i] = list->items[i];
		snprintf(o->names[i], sizeof o->names[i], "%s", list->items[i].service);
		snprintf(o->hashes[i], sizeof o->hashes[i], "%s", list->items[i].config_hash);
	}
}

static void on_exec(void *arg, const struct error *err, int exit_code, const char *output)
{
	struct outcome *o = arg;
	take_error(o, err);
	o->exit_code = exit_code;
	free(o->output);
	o->output = xstrdup(output);
}

static void on_closed(void *arg)
{
	(*(int *)arg)++;
}

static void on_changed(void *arg, const struct instance *instance)
{
	struct world *w = arg;
	if (instance->state == INSTANCE_RUNNING) {
		w->told_pid = instance->pid;
		w->told++;
		return;
	}
	w->changes++;
	w->changed = *instance;
	snprintf(w->changed_service, sizeof w->changed_service, "%s", instance->service);
}

/* It ends each turn soon: what is waited for may come of a timer that is due as a turn begins (the loop's own clock stands while a test waits for something
 * else), and the turn would go on and wait for something to happen. */
static void guard_start(struct world *w)
{
	w->guard.data = w; /* a server that was forked has one of its own */
	w->until_ms = now_monotonic_ms() + WAIT_MS;
	uv_update_time(&w->loop);
	uv_timer_start(&w->guard, on_guard, TURN_MS, TURN_MS);
}

static void await_calls(struct world *w, const int *calls, int count)
{
	guard_start(w);
	while (*calls < count)
		uv_run(&w->loop, UV_RUN_ONCE);
	uv_timer_stop(&w->guard);
}

static void on_nap(uv_timer_t *timer)
{
	(*(int *)timer->data)++;
}

/* Lets the loop turn for that long. */
static void nap(struct world *w, unsigned ms)
{
	uv_timer_t timer;
	int calls = 0;
	uv_update_time(&w->loop);
	uv_timer_init(&w->loop, &timer);
	timer.data = &calls;
	uv_timer_start(&timer, on_nap, ms, 0);
	await_calls(w, &calls, 1);
	uv_close((uv_handle_t *)&timer, NULL);
	uv_run(&w->loop, UV_RUN_NOWAIT);
}

static void await_changes(struct world *w, unsigned count)
{
	for (uint64_t until = now_monotonic_ms() + WAIT_MS; w->changes < count && now_monotonic_ms() < until;)
		nap(w, 5);
	assert_int_equal(w->changes, count);
}

/* ---- the world ---- */

static const char *shim_path(void)
{
	static char path[4096];
	const char *build = getenv("BUILD");
	snprintf(path, sizeof path, "%s/aetherfs-shim", build ? build : TEST_BUILD);
	return path;
}

static int pidfd_of(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

static struct backend_params params_of(struct world *w)
{
	return (struct backend_params){.loop = &w->loop,
	                               .target = w->target,
	                               .namespace_ = "aether-contract-test",
	                               .workspace = "w",
	                               .workspace_root = w->dir,
	                               .state_dir = w->state,
	                               .shared_dir = w->shared,
	                               .shim = shim_path(),
	                               .keeper_pidfd = w->keeper_pidfd,
	                               .uid = geteuid() ? (uid_t)-1 : SERVICES_UID,
	                               .changed = on_changed,
	                               .changed_arg = w};
}

static bool is_engine(const struct world *w)
{
	return strcmp(w->target, "process") && strcmp(w->target, "memory");
}

static void world_open(struct world *w)
{
	struct backend_params params = params_of(w);
	cleanup_error struct error err = ERROR_INIT;
	if (backend_open(&params, &w->b, &err))
		fail_msg("%s", err.message);
}

static void world_close(struct world *w)
{
	int closed = 0;
	backend_close(w->b, on_closed, &closed);
	w->b = NULL;
	await_calls(w, &closed, 1);
	assert_int_equal(closed, 1);
}

static int world_begin(struct world *w, const char *target)
{
	const char *tmp = getenv("TMPDIR");
	*w = (struct world){.target = target, .keeper_pidfd = -1};
	w->dir = xasprintf("%s/backend.XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(w->dir));
	assert_int_equal(chmod(w->dir, 0711), 0); /* root's services pass through */
	w->state = xasprintf("%s/state", w->dir);
	w->shared = xasprintf("%s/shared", w->dir);
	assert_int_equal(mkdir(w->state, 0711) | mkdir(w->shared, 0711), 0);
	uv_loop_init(&w->loop);
	uv_timer_init(&w->loop, &w->guard);
	uv_unref((uv_handle_t *)&w->guard);
	world_open(w);
	return 0;
}

static void stop_all(struct world *w)
{
	OUTCOME list = {0};
	backend_list(w->b, on_list, &list);
	await_calls(w, &list.calls, 1);
	for (size_t i = 0; i < list.count; i++) {
		OUTCOME o = {0};
		backend_remove(w->b, list.names[i], on_done, &o);
		await_calls(w, &o.calls, 1);
		assert_string_equal(o.message, "");
	}
	OUTCOME o = {0};
	backend_clear(w->b, on_done, &o);
	await_calls(w, &o.calls, 1);
	assert_string_equal(o.message, "");
}

static void world_end(struct world *w)
{
	if (!w->b)
		world_open(w);
	stop_all(w);
	world_close(w);
	uv_close((uv_handle_t *)&w->guard, NULL);
	uv_run(&w->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&w->loop), 0);
	if (w->keeper_pidfd >= 0)
		close(w->keeper_pidfd);
	assert_int_equal(tree_remove(AT_FDCWD, w->dir), 0);
	free(w->dir);
	free(w->state);
	free(w->shared);
}

/* ---- services ---- */

struct service {
	struct service_spec spec;
	struct process_spec process;
	struct keyvals env;
	char *command[8], *container_command[4];
	struct port_binding port;
};

static void service_release(struct service *s)
{
	keyvals_release(&s->env);
}
#define SERVICE __attribute__((cleanup(service_release))) struct service

static const char *const FOREVER = "exec sleep 1000";
/* In a container it is process 1, which no signal ends that it does not handle. */
static const char *const FOREVER_AS_FIRST = "trap 'exit 143' TERM; sleep 1000 & wait";

/* A service that runs `script` with sh; the memory backend has its own ways. */
static void service_init(struct service *s, const char *name, const char *script)
{
	*s = (struct service){0};
	keyvals_set(&s->env, "PATH", "/usr/bin:/bin");
	s->command[0] = (char *)"/bin/sh";
	s->command[1] = (char *)"-c";
	s->command[2] = (char *)script;
	memcpy(s->container_command, s->command, sizeof s->container_command);
	if (script == FOREVER)
		s->container_command[2] = (char *)FOREVER_AS_FIRST;
	s->process = (struct process_spec){.command = s->command, .env = &s->env, .directory = "/"};
	s->spec = (struct service_spec){.name = name,
	                                .image = "busybox:1",
	                                .env = &s->env,
	                                .command = s->container_command,
	                                .stop_signal = SIGTERM,
	                                .stop_grace_ms = 3000,
	                                .config_hash = "c0ffee",
	                                .generation = 1,
	                                .process = &s->process};
}


#define must(o)                                                                                                        \
	do {                                                                                                               \
		if ((o).code != ERROR_NONE)                                                                                    \
			fail_msg("%s: %s", error_code_name((o).code), (o).message);                                                \
	} while (0)

static void start(struct world *w, const struct service *s)
{
	OUTCOME o = {0};
	backend_start(w->b, &s->spec, on_done, &o);
	assert_int_equal(o.calls, 0);
	await_calls(w, &o.calls, 1);
	must(o);
}

static void stop(struct world *w, const char *service, int signal, unsigned grace_ms)
{
	OUTCOME o = {0};
	backend_stop(w->b, service, signal, grace_ms, on_done, &o);
	assert_int_equal(o.calls, 0);
	await_calls(w, &o.calls, 1);
	must(o);
}

static void discard(struct world *w, const char *service)
{
	OUTCOME o = {0};
	backend_remove(w->b, service, on_done, &o);
	assert_int_equal(o.calls, 0);
	await_calls(w, &o.calls, 1);
	must(o);
}

/* What list says of the service; state ABSENT when nothing. */
static struct instance look(struct world *w, const char *service)
{
	OUTCOME o = {0};
	backend_list(w->b, on_list, &o);
	assert_int_equal(o.calls, 0);
	await_calls(w, &o.calls, 1);
	must(o);
	for (size_t i = 0; i < o.count; i++)
		if (!strcmp(o.names[i], service))
			return o.items[i];
	return (struct instance){.state = INSTANCE_ABSENT};
}

/* ---- files ---- */

static char *read_text(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static char *read_text(const char *fmt, ...)
{
	cleanup_buffer struct buffer path = BUFFER_INIT;
	struct buffer text = BUFFER_INIT;
	va_list ap;
	va_start(ap, fmt);
	buffer_vprintf(&path, fmt, ap);
	va_end(ap);
	file_read(AT_FDCWD, path.data, 32u << 20, &text);
	return buffer_detach(&text);
}

static bool exists(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static bool exists(const char *fmt, ...)
{
	cleanup_buffer struct buffer path = BUFFER_INIT;
	va_list ap;
	va_start(ap, fmt);
	buffer_vprintf(&path, fmt, ap);
	va_end(ap);
	struct stat st;
	return !lstat(path.data, &st);
}

/* Processes with `mark` in their command line, and their first pid. */
static int processes_with(const char *mark, pid_t *ret_pid)
{
	int count = 0;
	cleanup_closedir DIR *d = opendir("/proc");
	struct dirent *e;
	while ((e = readdir(d))) {
		cleanup_buffer struct buffer text = BUFFER_INIT;
		cleanup_free char *path = xasprintf("/proc/%s/cmdline", e->d_name);
		pid_t pid = atoi(e->d_name);
		if (pid <= 0 || pid == getpid() || file_read(AT_FDCWD, path, 65536, &text) || !text.data)
			continue;
		if (!memmem(text.data, text.len, mark, strlen(mark)))
			continue;
		if (ret_pid && !count)
			*ret_pid = pid;
		count++;
	}
	return count;
}

/* A mark that no other process of this machine has: an odd number of seconds to sleep. */
static char *unique_sleep(void)
{
	static unsigned serial;
	return xasprintf("%d%u", 100000 + (int)getpid(), serial++);
}
