/* The process backend: nothing of a service is left, whoever dies; and what a service is given. All of it with
 * namespaces and cgroups, where the host allows them, and without. */
#include "tests/contract/backend_world.h"

#include <sys/prctl.h>

#include "backends/attachment.h"
#include "backends/shim.h"

/* ---- helpers ---- */

static int64_t record_number(const struct world *w, const char *service, const char *key)
{
	cleanup_free char *text = read_text("%s/services/%s/record", w->state, service);
	cleanup_free char *word = xasprintf("%s ", key);
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		if (!strncmp(line, word, strlen(word)))
			return strtoll(line + strlen(word), NULL, 10);
	return 0;
}

static pid_t shim_of(const struct world *w, const char *service)
{
	pid_t pid = (pid_t)record_number(w, service, "shim");
	assert_true(pid > 1);
	return pid;
}

static void await_gone(const char *mark)
{
	for (uint64_t until = now_monotonic_ms() + WAIT_MS; processes_with(mark, NULL) && now_monotonic_ms() < until;)
		usleep(2000);
	assert_int_equal(processes_with(mark, NULL), 0);
}

/* At most as many as that afterwards: at the moment of its exec a process has no command line. */
static void await_processes(const char *mark, int count)
{
	uint64_t until = now_monotonic_ms() + WAIT_MS;
	while (processes_with(mark, NULL) != count) {
		if (now_monotonic_ms() > until)
			fail_msg("%d processes instead of %d", processes_with(mark, NULL), count);
		usleep(2000);
	}
}

static char *log_of(const struct world *w, const char *service)
{
	return read_text("%s/services/%s/log", w->state, service);
}

static void await_log(struct world *w, const char *service, const char *text)
{
	for (int i = 0; i < 1000; i++) {
		cleanup_free char *now = log_of(w, service);
		if (strstr(now, text))
			return;
		nap(w, 5);
	}
	fail_msg("no \"%s\" in the log", text);
}

/* Runs a script to its end; returns how it ended. */
static int run(struct world *w, struct service *s)
{
	unsigned before = w->changes;
	start(w, s);
	await_changes(w, before + 1);
	return w->changed.exit_code;
}

/* Children, grandchildren and daemons that left their session, let go of everything but the lock, or of that too. */
static char *busy_script(const char *mark)
{
	return xasprintf("sleep %s & (setsid sh -c 'sleep %s & exec sleep %s' >/dev/null 2>&1 </dev/null &) ; "
	                 "(setsid sleep %s >/dev/null 2>&1 </dev/null 131>&- &) ; trap '' HUP; exec sleep %s",
	                 mark, mark, mark, mark, mark);
}
enum { BUSY = 5 };

/* ---- what a service is given ---- */

static void environment_is_exact(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", "");
	keyvals_set(&s.env, "EMPTY", "");
	keyvals_set(&s.env, "QUOTED", "a 'b' \"c\" $d\n=e");
	s.command[0] = (char *)"env";
	s.command[1] = (char *)"-0";
	s.command[2] = NULL;
	assert_int_equal(run(w, &s), 0);
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_free char *path = backend_log_path(w->b, "db");
	assert_int_equal(file_read(AT_FDCWD, path, 4096, &text), 0);
	static const char wanted[] = "PATH=/usr/bin:/bin\0EMPTY=\0QUOTED=a 'b' \"c\" $d\n=e";
	assert_int_equal(text.len, sizeof wanted);
	assert_memory_equal(text.data, wanted, sizeof wanted);
}

static void descriptors_are_four(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", "echo up; read x; while :; do sleep 0.02; done");
	start(w, &s);
	pid_t pid = look(w, "db").pid;
	await_log(w, "db", "up\n"); /* it has loaded its libraries */
	cleanup_free char *path = xasprintf("/proc/%d/fd", pid);
	cleanup_closedir DIR *d = opendir(path);
	assert_non_null(d);
	unsigned count = 0;
	for (struct dirent *e; (e = readdir(d));)
		if (e->d_name[0] != '.') {
			int fd = atoi(e->d_name);
			assert_true(fd <= 2 || fd == SHIM_SERVICE_LOCK_FD);
			count++;
		}
	assert_int_equal(count, 4);
}

static void assert_line(const char *text, const char *line)
{
	if (!strstr(text, line))
		fail_msg("no \"%s\" in:\n%s", line, text);
}

static void user_and_limits(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", FOREVER);
	start(w, &s);
	pid_t pid = look(w, "db").pid;
	cleanup_free char *status = read_text("/proc/%d/status", pid);
	cleanup_free char *limits = read_text("/proc/%d/limits", pid);
	cleanup_free char *oom = read_text("/proc/%d/oom_score_adj", pid);
	assert_line(limits, "Max core file size        0                    0");
	assert_string_equal(oom, "200\n");
	assert_line(status, "SigBlk:\t0000000000000000");
	assert_line(status, "SigIgn:\t0000000000000000");
	assert_line(status, "Umask:\t0022");
	if (!geteuid()) {
		assert_line(status, "Uid:\t61234\t61234\t61234\t61234");
		assert_line(status, "Gid:\t61234\t61234\t61234\t61234");
		assert_line(status, "Groups:\t \n");
		assert_line(status, "CapEff:\t0000000000000000");
		assert_line(status, "NoNewPrivs:\t1");
	}
}

static void standard_output_can_be_opened(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db",
	             "echo first; echo second > /dev/stdout; echo third > /dev/stderr; read x; echo input ends; pwd");
	s.process.directory = w->dir;
	assert_int_equal(run(w, &s), 0);
	cleanup_free char *text = log_of(w, "db");
	cleanup_free char *wanted = xasprintf("first\nsecond\nthird\ninput ends\n%s\n", w->dir);
	assert_string_equal(text, wanted);
}

static void root_is_never_lent(void **state)
{
	struct world *w = *state;
	if (geteuid())
		skip_saying("root_is_never_lent", "needs root");
	world_close(w);
	struct backend_params params = params_of(w);
	params.uid = (uid_t)-1;
	assert_int_equal(backend_open(&params, &w->b, NULL), 0);
	SERVICE s;
	service_init(&s, "db", FOREVER);
	OUTCOME o = {0};
	backend_start(w->b, &s.spec, on_done, &o);
	await_calls(w, &o.calls, 1);
	assert_int_equal(o.code, ERROR_BACKEND_SPAWN_FAILED);
	assert_int_equal(look(w, "db").state, INSTANCE_ABSENT);
}

/* ---- starts that fail ---- */

static void fails_with(struct world *w, const struct service *s, enum error_code code, const char *text)
{
	OUTCOME o = {0};
	backend_start(w->b, &s->spec, on_done, &o);
	await_calls(w, &o.calls, 1);
	if (o.code != code || !strstr(o.message, text))
		fail_msg("%s: %s", error_code_name(o.code), o.message);
	assert_int_equal(look(w, s->spec.name).state, INSTANCE_ABSENT);
	assert_int_equal(w->changes, 0);
}

static void failed_starts_say_why_and_leave_nothing(void **state)
{
	struct world *w = *state;
	cleanup_free char *script = xasprintf("%s/script", w->dir), *plain = xasprintf("%s/plain", w->dir);
	assert_int_equal(file_write_atomic(AT_FDCWD, script, "#!/no/such/interpreter\n", 23, 0755), 0);
	assert_int_equal(file_write_atomic(AT_FDCWD, plain, "x", 1, 0755), 0);
	SERVICE s;
	service_init(&s, "db", FOREVER);
	s.command[0] = (char *)"no-such-program";
	fails_with(w, &s, ERROR_PROGRAM_NOT_FOUND, "no-such-program");
	s.command[0] = script;
	fails_with(w, &s, ERROR_PROGRAM_NOT_FOUND, "interpreter");
	s.command[0] = plain;
	fails_with(w, &s, ERROR_BACKEND_SPAWN_FAILED, "Exec format error");
	s.command[0] = (char *)"/bin/sh";
	s.process.directory = "/no/such/directory";
	fails_with(w, &s, ERROR_BACKEND_SPAWN_FAILED, "No such file or directory");
	s.process.directory = "/";
	start(w, &s);
}

static void on_diagnostic(void *arg, enum diagnostic_level level, const char *service, const char *field,
                          const char *text, const char *hint)
{
	buffer_printf(arg, "%s %s\n", level == DIAGNOSTIC_UNSUPPORTED ? "unsupported" : "warning", field);
}

static void what_cannot_be_is_said_before(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", FOREVER);
	cleanup_buffer struct buffer found = BUFFER_INIT;
	backend_check(w->b, &s.spec, on_diagnostic, &found);
	assert_string_equal(buffer_str(&found), "");
	struct volume_spec volumes[] = {{.kind = VOLUME_BIND, .source = "/srv", .target = "/srv"},
	                                {.kind = VOLUME_NAMED, .source = w->dir, .target = "/data"}};
	s.spec.volumes = volumes;
	s.spec.n_volumes = 2;
	s.process.data_dir = w->dir;
	backend_check(w->b, &s.spec, on_diagnostic, &found);
	assert_string_equal(buffer_str(&found), "warning volumes\n");
	s.spec.process = NULL;
	backend_check(w->b, &s.spec, on_diagnostic, &found);
	assert_string_equal(buffer_str(&found), "warning volumes\nunsupported image\n");
	fails_with(w, &s, ERROR_BACKEND_SPAWN_FAILED, "no way known");
}

/* ---- stopping ---- */

static void a_stop_is_asked_for_first(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", "trap 'exit 5' USR1; echo up; while :; do sleep 0.02; done");
	start(w, &s);
	nap(w, 100); /* the trap is set */
	uint64_t before = now_monotonic_ms();
	stop(w, "db", SIGUSR1, 20000);
	assert_true(now_monotonic_ms() - before < 5000);
	assert_int_equal(look(w, "db").exit_code, 5);
}

static void then_it_is_killed(void **state)
{
	struct world *w = *state;
	SERVICE s;
	cleanup_free char *mark = unique_sleep();
	cleanup_free char *script = xasprintf("trap '' TERM INT; while :; do sleep %s; done", mark);
	service_init(&s, "db", script);
	start(w, &s);
	await_processes(mark, 2);
	uint64_t before = now_monotonic_ms();
	stop(w, "db", SIGTERM, 400);
	uint64_t took = now_monotonic_ms() - before;
	assert_true(took >= 390 && took < 2000);
	assert_int_equal(look(w, "db").exit_code, 137);
	assert_int_equal(processes_with(mark, NULL), 0);
	assert_int_equal(w->changes, 0);
}

static void a_frozen_service_stops(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", FOREVER);
	start(w, &s);
	assert_int_equal(kill(look(w, "db").pid, SIGSTOP), 0);
	uint64_t before = now_monotonic_ms();
	stop(w, "db", SIGTERM, 20000);
	assert_true(now_monotonic_ms() - before < 5000);
	assert_int_equal(look(w, "db").exit_code, 128 + SIGTERM);
}

static void stop_leaves_no_daemon(void **state)
{
	struct world *w = *state;
	SERVICE s;
	cleanup_free char *mark = unique_sleep();
	cleanup_free char *script = busy_script(mark);
	service_init(&s, "db", script);
	start(w, &s);
	await_processes(mark, BUSY);
	stop(w, "db", SIGTERM, 1000);
	assert_int_equal(processes_with(mark, NULL), 0);
	start(w, &s);
	await_processes(mark, BUSY);
	discard(w, "db");
	assert_int_equal(processes_with(mark, NULL), 0);
	assert_false(exists("%s/services/db", w->state));
}

static void an_exit_leaves_no_daemon(void **state)
{
	struct world *w = *state;
	SERVICE s;
	cleanup_free char *mark = unique_sleep();
	cleanup_free char *script =
	    xasprintf("(setsid sleep %s >/dev/null 2>&1 &); (setsid sleep %s &); sleep 0.1; exit 9", mark, mark);
	service_init(&s, "db", script);
	assert_int_equal(run(w, &s), 9);
	assert_int_equal(processes_with(mark, NULL), 0);
}

/* ---- who dies ---- */

static void a_killed_shim_takes_all_with_it(void **state)
{
	struct world *w = *state;
	SERVICE s;
	cleanup_free char *mark = unique_sleep();
	cleanup_free char *script =
	    xasprintf("sleep %s & (setsid sh -c 'sleep %s & exec sleep %s' >/dev/null 2>&1 </dev/null &) ; exec sleep %s",
	              mark, mark, mark, mark);
	service_init(&s, "db", script);
	for (unsigned i = 1; i <= 2; i++) {
		start(w, &s);
		await_processes(mark, 4);
		assert_int_equal(kill(shim_of(w, "db"), SIGKILL), 0);
		await_changes(w, i);
		assert_int_equal(w->changed.exit_code, 137);
		assert_int_equal(processes_with(mark, NULL), 0);
		assert_int_equal(look(w, "db").state, INSTANCE_EXITED);
	}
	nap(w, 50);
	assert_int_equal(w->changes, 2);
}

static void a_killed_shim_is_cleaned_up_after_by_the_next_server(void **state)
{
	struct world *w = *state;
	SERVICE s;
	cleanup_free char *mark = unique_sleep();
	cleanup_free char *script = xasprintf("(setsid sleep %s >/dev/null 2>&1 </dev/null &) ; exec sleep %s", mark, mark);
	service_init(&s, "db", script);
	start(w, &s);
	await_processes(mark, 2);
	world_close(w);
	assert_int_equal(kill(shim_of(w, "db"), SIGKILL), 0);
	usleep(50000);
	world_open(w);
	struct instance i = look(w, "db");
	assert_int_equal(i.state, INSTANCE_EXITED);
	assert_int_equal(i.exit_code, 137);
	assert_int_equal(processes_with(mark, NULL), 0);
	assert_int_equal(w->changes, 0);
	start(w, &s);
	await_processes(mark, 2);
}

/* Only who holds the lock is ours; who reads the file is not. */
static void a_reader_of_the_lock_is_spared(void **state)
{
	struct world *w = *state;
	SERVICE s;
	cleanup_free char *mark = unique_sleep();
	cleanup_free char *script = xasprintf("(setsid sleep %s >/dev/null 2>&1 </dev/null &) ; exec sleep %s", mark, mark);
	service_init(&s, "db", script);
	start(w, &s);
	await_processes(mark, 2);
	pid_t reader = fork();
	if (!reader) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		cleanup_free char *path = xasprintf("%s/services/db/lock", w->state);
		if (open(path, O_RDWR) < 0)
			_exit(1);
		for (;;)
			pause();
	}
	usleep(50000);
	assert_int_equal(kill(shim_of(w, "db"), SIGKILL), 0);
	await_changes(w, 1);
	assert_int_equal(processes_with(mark, NULL), 0);
	assert_int_equal(waitpid(reader, NULL, WNOHANG), 0);
	kill(reader, SIGKILL);
	waitpid(reader, NULL, 0);
}

static void a_hung_shim_is_not_waited_for(void **state)
{
	struct world *w = *state;
	SERVICE s;
	cleanup_free char *mark = unique_sleep();
	cleanup_free char *script = busy_script(mark);
	service_init(&s, "db", script);
	start(w, &s);
	await_processes(mark, BUSY);
	assert_int_equal(kill(shim_of(w, "db"), SIGSTOP), 0);
	uint64_t before = now_monotonic_ms();
	stop(w, "db", SIGTERM, 100);
	assert_true(now_monotonic_ms() - before < 10000);
	assert_int_equal(look(w, "db").exit_code, 137);
	/* without a namespace, a daemon that let go of the lock as well belongs to nobody: nothing can prove that it was
	 * ours */
	if (processes_with(mark, NULL)) {
		pid_t pid = 0;
		assert_non_null(getenv("AETHER_PROCESS_NAMESPACES"));
		assert_int_equal(processes_with(mark, &pid), 1);
		kill(pid, SIGKILL);
	}
}

/* A program beside the service with a daemon that has a session of its own: both go when the service does, however that ends. */
static struct attachment *attach_with_daemon(struct world *w, const char *mark)
{
	static const char script[] = "(setsid sh -c 'exec sleep $MARK' >/dev/null 2>&1 </dev/null &); sleep $MARK; exit 3";
	char *const argv[] = {(char *)"sh", (char *)"-c", (char *)script, NULL};
	cleanup_keyvals struct keyvals env = KEYVALS_INIT;
	keyvals_set(&env, "MARK", mark); /* so that whoever has it in its command line has its session */
	struct attachment_spec spec = {.argv = argv, .env = &env, .service = "db", .state_dir = w->state, .uid = (uid_t)-1};
	struct attachment *a = NULL;
	cleanup_error struct error err = ERROR_INIT;
	if (attachment_open("process", &spec, &a, &err))
		fail_msg("%s", err.message);
	await_processes(mark, 2);
	return a;
}

static int code_of(struct attachment *a)
{
	int code = -1;
	cleanup_error struct error err = ERROR_INIT;
	assert_int_equal(a->ops->wait(a, WAIT_MS, &code, &err), 0);
	attachment_close(a);
	return code;
}

static void what_is_beside_ends_with_the_service(void **state)
{
	struct world *w = *state;
	SERVICE s;
	cleanup_free char *mark = unique_sleep();
	service_init(&s, "db", FOREVER);
	start(w, &s);
	struct attachment *a = attach_with_daemon(w, mark);
	stop(w, "db", SIGTERM, 1000);
	assert_int_equal(code_of(a), 137);
	await_gone(mark);
	start(w, &s);
	a = attach_with_daemon(w, mark);
	assert_int_equal(kill(shim_of(w, "db"), SIGKILL), 0);
	assert_int_equal(code_of(a), 137);
	await_gone(mark);
}

/* Its daemon is not waited for; it stays as long as the service. */
static void a_daemon_beside_outlives_its_program(void **state)
{
	struct world *w = *state;
	SERVICE s;
	cleanup_free char *mark = unique_sleep();
	service_init(&s, "db", FOREVER);
	start(w, &s);
	struct attachment *a = attach_with_daemon(w, mark);
	assert_int_equal(a->ops->signal(a, SIGTERM), 0);
	assert_int_equal(code_of(a), 143);
	await_processes(mark, 1);
	stop(w, "db", SIGTERM, 1000);
	await_gone(mark);
}

static pid_t keeper_begin(struct world *w)
{
	pid_t keeper = fork();
	if (!keeper) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	world_close(w);
	w->keeper_pidfd = pidfd_of(keeper);
	world_open(w);
	return keeper;
}

static void services_end_with_the_keeper(void **state)
{
	struct world *w = *state;
	pid_t keeper = keeper_begin(w);
	SERVICE a, b;
	cleanup_free char *mark = unique_sleep();
	cleanup_free char *script = busy_script(mark);
	cleanup_free char *stubborn = xasprintf("trap '' TERM; while :; do sleep %s; done", mark);
	service_init(&a, "a", script);
	service_init(&b, "b", stubborn);
	b.spec.stop_grace_ms = 60000;
	start(w, &a);
	start(w, &b);
	await_processes(mark, BUSY + 2);
	kill(keeper, SIGKILL);
	waitpid(keeper, NULL, 0);
	uint64_t before = now_monotonic_ms();
	await_gone(mark);
	assert_true(now_monotonic_ms() - before < SHIM_ORPHAN_GRACE_MS + 3000);
	await_changes(w, 2);
	assert_int_equal(look(w, "a").exit_code, 128 + SIGTERM);
	assert_int_equal(look(w, "b").exit_code, 137);
}

static void services_outlive_a_killed_server(void **state)
{
	struct world *w = *state;
	cleanup_free char *mark = unique_sleep();
	cleanup_free char *script = xasprintf("echo up; exec sleep %s", mark);
	pid_t keeper = keeper_begin(w);
	world_close(w);
	pid_t server = fork();
	if (!server) {
		struct world own = *w;
		uv_loop_init(&own.loop);
		uv_timer_init(&own.loop, &own.guard);
		world_open(&own);
		SERVICE s;
		service_init(&s, "db", script);
		start(&own, &s);
		raise(SIGKILL);
	}
	int status;
	waitpid(server, &status, 0);
	assert_true(WIFSIGNALED(status));
	world_open(w);
	struct instance i = look(w, "db");
	assert_int_equal(i.state, INSTANCE_RUNNING);
	await_processes(mark, 1);
	assert_int_equal(kill(i.pid, SIGUSR1), 0);
	await_changes(w, 1);
	assert_int_equal(w->changed.exit_code, 128 + SIGUSR1);
	kill(keeper, SIGKILL);
	waitpid(keeper, NULL, 0);
}

/* Four servers at once, which a crash and a hasty restart may give for a moment. */
static void many_servers_start_one(void **state)
{
	struct world *w = *state;
	cleanup_free char *mark = unique_sleep();
	cleanup_free char *script = xasprintf("exec sleep %s", mark);
	w->keeper_pidfd = pidfd_of(getpid());
	world_close(w);
	pid_t servers[4];
	for (int i = 0; i < 4; i++) {
		servers[i] = fork();
		if (servers[i])
			continue;
		struct world own = *w;
		uv_loop_init(&own.loop);
		uv_timer_init(&own.loop, &own.guard);
		for (int round = 0; round < 5; round++) {
			world_open(&own);
			SERVICE s;
			service_init(&s, "db", script);
			start(&own, &s);
			bool one = look(&own, "db").state == INSTANCE_RUNNING && processes_with(mark, NULL) <= 1;
			world_close(&own);
			if (!one)
				_exit(1);
		}
		_exit(0);
	}
	for (int i = 0; i < 4; i++) {
		int status;
		waitpid(servers[i], &status, 0);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	world_open(w);
	assert_int_equal(look(w, "db").state, INSTANCE_RUNNING);
	await_processes(mark, 1);
}

/* ---- logs ---- */

static void logs_are_bounded(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", "head -c 12000000 /dev/zero | tr '\\0' x; echo the end");
	assert_int_equal(run(w, &s), 0);
	struct stat now, before;
	cleanup_free char *path = backend_log_path(w->b, "db"), *old = xasprintf("%s.1", path);
	assert_int_equal(stat(path, &now) | stat(old, &before), 0);
	assert_true(now.st_size <= SHIM_LOG_MAX && before.st_size <= SHIM_LOG_MAX);
	assert_true(now.st_size + before.st_size > SHIM_LOG_MAX);
	cleanup_free char *text = log_of(w, "db");
	assert_string_equal(text + strlen(text) - 8, "the end\n");
}

static void a_full_disk_stops_nobody(void **state)
{
	struct world *w = *state;
	if (geteuid())
		skip_saying("a_full_disk_stops_nobody", "needs root, to make a small disk");
	cleanup_free char *out = xasprintf("%s/out", w->dir);
	assert_int_equal(mkdir(out, 0777) | chmod(out, 0777), 0);
	assert_int_equal(mount("small", w->state, "tmpfs", 0, "size=128k,mode=0711"), 0);
	SERVICE s;
	cleanup_free char *script = xasprintf("head -c 3000000 /dev/zero | tr '\\0' x; echo done > %s/done; while [ ! -e "
	                                      "%s/go ]; do sleep 0.02; done; echo later; exit 6",
	                                      out, out);
	service_init(&s, "db", script);
	start(w, &s);
	for (int i = 0; i < 500 && !exists("%s/done", out); i++)
		nap(w, 20);
	bool finished = exists("%s/done", out);
	cleanup_free char *path = backend_log_path(w->b, "db"), *go = xasprintf("%s/go", out);
	assert_int_equal(truncate(path, 0), 0); /* room again */
	close(open(go, O_CREAT | O_WRONLY, 0644));
	await_changes(w, 1);
	int code = w->changed.exit_code;
	cleanup_free char *text = log_of(w, "db");
	discard(w, "db");
	umount2(w->state, MNT_DETACH);
	assert_true(finished);
	assert_int_equal(code, 6);
	assert_line(text, "bytes of output found no room here");
	assert_line(text, "later\n");
}

/* An exit is recorded where there is no room at all. */
static void an_exit_needs_no_room(void **state)
{
	struct world *w = *state;
	if (geteuid())
		skip_saying("an_exit_needs_no_room", "needs root, to make a small disk");
	assert_int_equal(mount("small", w->state, "tmpfs", 0, "size=128k,mode=0711"), 0);
	SERVICE s;
	service_init(&s, "db", "sleep 0.3; exit 8");
	start(w, &s);
	cleanup_free char *filler = xasprintf("%s/filler", w->state);
	int fd = open(filler, O_CREAT | O_WRONLY, 0600);
	char page[4096] = "";
	while (write(fd, page, sizeof page) > 0)
		;
	close(fd);
	await_changes(w, 1);
	int code = w->changed.exit_code;
	SERVICE other;
	service_init(&other, "other", FOREVER);
	OUTCOME o = {0};
	backend_start(w->b, &other.spec, on_done, &o);
	await_calls(w, &o.calls, 1);
	discard(w, "db");
	discard(w, "other");
	umount2(w->state, MNT_DETACH);
	assert_int_equal(code, 8);
	assert_int_equal(o.code, ERROR_NO_SPACE);
}

/* ---- limits ---- */

static bool warned(struct world *w, const struct service *s)
{
	cleanup_buffer struct buffer found = BUFFER_INIT;
	backend_check(w->b, &s->spec, on_diagnostic, &found);
	return found.len > 0;
}

static void memory_is_limited(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", "exec tail /dev/zero");
	s.spec.memory_bytes = 64 << 20;
	bool by_process = warned(w, &s);
	int code = run(w, &s);
	cleanup_free char *text = log_of(w, "db");
	if (by_process) {
		assert_line(text, "memory exhausted");
		return;
	}
	assert_int_equal(code, 137);
	assert_line(text, "killed: out of memory");
}

static void processes_are_limited(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", "i=0; while [ $i -lt 60 ]; do sleep 100 & i=$((i+1)); done; echo all of them");
	s.spec.pids = 20;
	bool by_cgroup = !warned(w, &s);
	int code = run(w, &s);
	cleanup_free char *record = read_text("%s/services/db/record", w->state);
	if (!by_cgroup && !strstr(record, "namespaces user\n"))
		return; /* nothing can limit them then, and that was said */
	assert_int_not_equal(code, 0);
	cleanup_free char *text = log_of(w, "db");
	assert_line(text, "fork");
}

/* ---- programs run once ---- */

static void exec_sees_what_the_service_sees(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", FOREVER);
	keyvals_set(&s.env, "A", "1");
	s.process.directory = w->dir;
	char *argv[] = {(char *)"sh", (char *)"-c", (char *)"echo $A; pwd; id -u; read x || echo no input", NULL};
	OUTCOME o = {0};
	backend_exec(w->b, &s.spec, argv, 10000, on_exec, &o);
	await_calls(w, &o.calls, 1);
	must(o);
	cleanup_free char *wanted = xasprintf("1\n%s\n%d\nno input\n", w->dir, geteuid() ? (int)geteuid() : SERVICES_UID);
	assert_string_equal(o.output, wanted);
}

static void exec_output_is_bounded(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", FOREVER);
	char *argv[] = {(char *)"sh", (char *)"-c", (char *)"head -c 300000 /dev/zero | tr '\\0' x; echo the end", NULL};
	OUTCOME o = {0};
	backend_exec(w->b, &s.spec, argv, 10000, on_exec, &o);
	await_calls(w, &o.calls, 1);
	must(o);
	assert_int_equal(strlen(o.output), BACKEND_EXEC_OUTPUT_MAX);
	assert_string_equal(o.output + BACKEND_EXEC_OUTPUT_MAX - 8, "the end\n");
}

static void exec_leaves_nothing(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", FOREVER);
	cleanup_free char *mark = unique_sleep();
	cleanup_free char *script = xasprintf("(setsid sleep %s &); sleep %s & exit 2", mark, mark);
	char *argv[] = {(char *)"sh", (char *)"-c", script, NULL};
	OUTCOME o = {0};
	backend_exec(w->b, &s.spec, argv, 10000, on_exec, &o);
	await_calls(w, &o.calls, 1);
	must(o);
	assert_int_equal(o.exit_code, 2);
	assert_int_equal(processes_with(mark, NULL), 0);
}

static void exec_fails_with_a_reason(void **state)
{
	struct world *w = *state;
	SERVICE s;
	service_init(&s, "db", FOREVER);
	char *argv[] = {(char *)"no-such-program", NULL};
	OUTCOME a = {0}, b = {0};
	backend_exec(w->b, &s.spec, argv, 1000, on_exec, &a);
	assert_int_equal(a.calls, 0);
	await_calls(w, &a.calls, 1);
	assert_int_equal(a.code, ERROR_PROGRAM_NOT_FOUND);
	s.process.directory = "/no/such/directory";
	argv[0] = (char *)"true";
	backend_exec(w->b, &s.spec, argv, 1000, on_exec, &b);
	await_calls(w, &b.calls, 1);
	assert_int_equal(b.code, ERROR_BACKEND_SPAWN_FAILED);
}

/* ---- with and without ---- */

static int setup(void **state)
{
	struct world *w = xcalloc(1, sizeof *w);
	*state = w;
	return world_begin(w, "process");
}

static int teardown(void **state)
{
	struct world *w = *state;
	world_end(w);
	free(w);
	return 0;
}

static int without(void **state)
{
	return setenv("AETHER_PROCESS_NAMESPACES", "off", 1) | setenv("AETHER_PROCESS_CGROUPS", "off", 1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(environment_is_exact),
	    T(descriptors_are_four),
	    T(user_and_limits),
	    T(standard_output_can_be_opened),
	    T(root_is_never_lent),
	    T(failed_starts_say_why_and_leave_nothing),
	    T(what_cannot_be_is_said_before),
	    T(a_stop_is_asked_for_first),
	    T(then_it_is_killed),
	    T(a_frozen_service_stops),
	    T(stop_leaves_no_daemon),
	    T(an_exit_leaves_no_daemon),
	    T(a_killed_shim_takes_all_with_it),
	    T(a_killed_shim_is_cleaned_up_after_by_the_next_server),
	    T(a_reader_of_the_lock_is_spared),
	    T(a_hung_shim_is_not_waited_for),
	    T(services_end_with_the_keeper),
	    T(services_outlive_a_killed_server),
	    T(many_servers_start_one),
	    T(logs_are_bounded),
	    T(a_full_disk_stops_nobody),
	    T(an_exit_needs_no_room),
	    T(memory_is_limited),
	    T(processes_are_limited),
	    T(what_is_beside_ends_with_the_service),
	    T(a_daemon_beside_outlives_its_program),
	    T(exec_sees_what_the_service_sees),
	    T(exec_output_is_bounded),
	    T(exec_leaves_nothing),
	    T(exec_fails_with_a_reason),
	};
	int failed = cmocka_run_group_tests_name("with namespaces and cgroups", tests, NULL, NULL);
	return failed + cmocka_run_group_tests_name("without", tests, without, NULL);
}
