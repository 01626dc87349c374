/* The control file system mounted for real: names, attributes, demands, deletion. */
#include "control_harness.h"

/* ---- names and attributes ----------------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void expect_listed(const char *name, const char *want)
{
	DIR *dir = opendir(at(name));
	assert_non_null(dir);
	char *names[64], joined[1024] = "";
	size_t n = 0;
	for (struct dirent *e; (e = readdir(dir));)
		if (e->d_name[0] != '.')
			names[n++] = strdup(e->d_name);
	closedir(dir);
	qsort(names, n, sizeof *names, compare);
	for (size_t i = 0; i < n; i++) {
		strcat(joined, names[i]);
		strcat(joined, i + 1 < n ? "," : "");
		free(names[i]);
	}
	assert_string_equal(joined, want);
}

static void everything_is_listed(void **state)
{
	expect_listed("", "compose.yaml,ctl,env,env.container,env.container.json,env.container.list,env.json,env.own,errors.json,events,ports,services,status.json,trust.json");
	expect_listed("services", "a b,cache,db");
	expect_listed("services/db", "env,exec,host,log,port,state,url");
	fake->service_count = 1;
	expect_listed("services", "db");
}

static void looking_never_demands(void **state)
{
	static const char *const names[] = {"",         "env",         "ports",  "env.json", "status.json", "env.own",
	                                    "events",   "ctl",         "errors.json", "services", "services/db/url",
	                                    "services/db/host", "services/db/port", "services/db/env", "services/db/state",
	                                    "services/db/log"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		struct stat st;
		assert_return_code(lstat(at(names[i]), &st), errno);
		assert_return_code(access(at(names[i]), R_OK), errno);
		assert_int_equal(st.st_mode & 077, 0);
		assert_int_equal(st.st_uid, geteuid());
	}
	expect_text("status.json", "{\"state\": \"absent\"}\n");
	expect_text("env.own", "OWN=1\n");
	expect_text("errors.json", "[0]\n");
	expect_text("ctl", "up     start\ndown   stop\n");
	expect_text("services/db/state", "state of db\n");
	expect_text("services/db/log", "");
	expect_text("events", "");
	assert_int_equal(fake->demands, 0);
	struct stat st;
	stat(at("env"), &st);
	assert_int_equal(st.st_size, 4); /* what would be served now */
	assert_int_equal(st.st_mode, S_IFREG | 0600);
	stat(at("env.json"), &st);
	assert_int_equal(st.st_mode, S_IFREG | 0600);
	assert_int_equal(fake->demands, 0);
}

static void absent_names_are_absent(void **state)
{
	struct stat st;
	expect_errno(ENOENT, stat(at("nothing"), &st));
	expect_errno(ENOENT, stat(at("services/nothing"), &st));
	expect_errno(ENOENT, stat(at("services/db/nothing"), &st));
	expect_errno(ENOENT, unlink(at("nothing")));
	expect_errno(ENOENT, rmdir(at("services/nothing")));
}

static void a_version_is_an_inode_that_never_changes(void **state)
{
	fake->ready = true;
	struct stat before, after, other;
	char text[64] = "";
	int fd = open(at("env"), O_RDONLY);
	assert_return_code(fd, errno);
	assert_return_code(fstat(fd, &before), errno);
	changed(CHANGED_ENV); /* the same bytes */
	assert_int_equal(ino_of("env"), before.st_ino);
	set_env("A=1\nB=2\n");
	assert_return_code(stat(at("env"), &other), errno);
	assert_int_not_equal(other.st_ino, before.st_ino);
	assert_int_equal(other.st_size, 8);
	assert_return_code(fstat(fd, &after), errno);
	assert_int_equal(after.st_size, 4);
	assert_memory_equal(&after.st_mtim, &before.st_mtim, sizeof after.st_mtim);
	assert_int_equal(pread(fd, text, sizeof text, 0), 4);
	assert_string_equal(text, "A=1\n");
	close(fd);
	expect_text("env", "A=1\nB=2\n");
}

static void what_grows_old_is_rendered_again(void **state)
{
	expect_text("status.json", "{\"state\": \"absent\"}\n");
	strcpy(fake->status, "{\"memory\": 1}\n"); /* without a word */
	usleep(1100000);
	expect_text("status.json", "{\"memory\": 1}\n");
}

static void others_may_not_look(void **state)
{
	if (geteuid() != 0) {
		print_message("skip: %s: only root can become another\n", __func__);
		skip();
	}
	pid_t pid = client();
	if (pid == 0) {
		struct stat st;
		if (setgid(65534) < 0 || setuid(65534) < 0)
			_exit(1);
		int bad = stat(at("env"), &st) == 0 || errno != EACCES;
		bad |= open(at("status.json"), O_RDONLY) >= 0 || errno != EACCES;
		bad |= opendir(at("")) != NULL || errno != EACCES;
		bad |= unlink(at("env")) == 0 || errno != EACCES;
		bad |= open(at("scratch"), O_CREAT | O_WRONLY, 0600) >= 0 || errno != EACCES;
		_exit(bad);
	}
	join(pid);
	assert_int_equal(fake->demands + fake->unlinked, 0);
}

static void a_file_that_cannot_be_rendered_is_empty_and_its_demand_fails(void **state)
{
	struct stat st;
	fake->render_errno = EINVAL;
	fake->ready = true;
	assert_return_code(stat(at("env"), &st), errno);
	assert_int_equal(st.st_size, 0);
	changed(CHANGED_ENV);
	pid_t pid = reader(0, at("env"), O_RDONLY, NULL);
	join(pid);
	assert_int_equal(m.outcome[0].err, EINVAL);
}

/* ---- demands ------------------------------------------------------------------------------------------------------ */

static void a_demand_waits_and_nobody_else_does(void **state)
{
	pid_t pid = reader(0, at("env"), O_RDONLY, NULL);
	eventually(fake->waiting == 1);
	assert_string_equal(fake->demanded, "*");
	assert_int_equal(fake->demander_pid, pid);
	assert_string_equal(fake->demander, "test_control");
	expect_text("status.json", "{\"state\": \"absent\"}\n");
	expect_listed("services", "a b,cache,db");
	struct stat st;
	assert_return_code(stat(at("env"), &st), errno);
	assert_false(m.outcome[0].done);
	fake->finish = true;
	join(pid);
	assert_int_equal(m.outcome[0].err, 0);
	assert_string_equal(m.outcome[0].text, "A=1\n");
	assert_int_equal(fake->demands, 1);
}

static void a_warm_demand_is_answered_at_once(void **state)
{
	fake->ready = true;
	expect_text("env", "A=1\n");
	expect_text("ports", "db 5432 127.0.0.1 21001\n");
	expect_text("env.json", "{\"length\": 4}\n");
	assert_int_equal(fake->demands, 3);
	assert_int_equal(fake->waiting, 0);
}

static void a_service_is_demanded_by_its_files(void **state)
{
	static const char *const files[] = {"url", "host", "port", "env"};
	fake->ready = true;
	for (size_t i = 0; i < 4; i++) {
		char name[64], text[64];
		snprintf(name, sizeof name, "services/%s/%s", i % 2 ? "a b" : "cache", files[i]);
		snprintf(text, sizeof text, "%s of %s\n", files[i], i % 2 ? "a b" : "cache");
		expect_text(name, text);
		assert_string_equal(fake->demanded, i % 2 ? "a b" : "cache");
	}
	assert_int_equal(fake->demands, 4);
}

static void only_reading_demands(void **state)
{
	int fd = open(at("env"), O_WRONLY);
	assert_return_code(fd, errno);
	close(fd);
	fd = open(at("env"), O_WRONLY | O_APPEND);
	assert_return_code(fd, errno);
	close(fd);
	assert_int_equal(fake->demands, 0);
	pid_t pid = reader(0, at("env"), O_RDWR, NULL);
	eventually(fake->demands == 1);
	fake->finish = true;
	join(pid);
}

static void without_blocking_it_only_starts(void **state)
{
	expect_errno(EAGAIN, open(at("env"), O_RDONLY | O_NONBLOCK));
	assert_int_equal(fake->demands, 1);
	assert_int_equal(fake->waiting, 0);
	fake->ready = true;
	int fd = open(at("env"), O_RDONLY | O_NONBLOCK);
	assert_return_code(fd, errno);
	close(fd);
}

static void a_failure_is_its_errno(void **state)
{
	static const int errnos[] = {ECONNREFUSED, ETIMEDOUT, EINVAL, EACCES, ENOSPC, EIO};
	for (size_t i = 0; i < sizeof errnos / sizeof *errnos; i++) {
		fake->demand_errno = errnos[i];
		fake->ready = i % 2; /* refused at once, or after a while */
		pid_t pid = reader(0, at("env"), O_RDONLY, NULL);
		if (!fake->ready) {
			eventually(fake->waiting == 1);
			fake->finish = true;
		}
		join(pid);
		assert_int_equal(m.outcome[0].err, errnos[i]);
	}
}

static void what_changed_while_it_waited_has_its_exact_size(void **state)
{
	pid_t pid = reader(0, at("env"), O_RDONLY, NULL);
	eventually(fake->waiting == 1);
	strcpy(fake->env, "A=1\nB=22\nC=333\n"); /* told only later, or never */
	fake->ready = true;
	fake->finish = true;
	join(pid);
	assert_int_equal(m.outcome[0].err, 0);
	assert_string_equal(m.outcome[0].text, "A=1\nB=22\nC=333\n");
	assert_int_equal(m.outcome[0].size, 15);
	assert_int_equal(fake->demands, 2); /* the kernel looked it up once more */
}

/* The kernel looks up once more, not for ever. */
static void a_file_that_changes_all_the_time_can_be_opened(void **state)
{
	fake->ready = fake->restless = true;
	struct outcome *o = &m.outcome[0];
	for (int n = 0; n < 100; n++) {
		memset(o, 0, sizeof *o);
		read_into(at("env"), O_RDONLY, o);
		assert_int_equal(o->err, 0);
		assert_int_equal(o->size, o->len);
	}
}

/* ---- signals ------------------------------------------------------------------------------------------------------ */

static void nothing(int sig)
{
}

static void handle_signals(void)
{
	static const int signals[] = {SIGCHLD, SIGWINCH, SIGUSR1, SIGALRM, SIGCONT, SIGINT, SIGTERM, SIGHUP, SIGQUIT};
	struct sigaction action = {.sa_handler = nothing}; /* no SA_RESTART: open(2) would say EINTR */
	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
		sigaction(signals[i], &action, NULL);
}

static void block_interrupts(void)
{
	handle_signals();
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

static pid_t parked_reader(void (*before)(void))
{
	pid_t pid = reader(0, at("env"), O_RDONLY, before);
	eventually(fake->waiting == 1);
	usleep(20000);
	return pid;
}

static void signals_of_everyday_do_not_end_a_wait(void **state)
{
	static const int signals[] = {SIGCHLD, SIGWINCH, SIGUSR1, SIGALRM, SIGSTOP, SIGCONT};
	pid_t pid = parked_reader(handle_signals);
	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
		kill(pid, signals[i]);
		assert_false(within(&m.outcome[0].done, 120));
	}
	fake->finish = true;
	join(pid);
	assert_int_equal(m.outcome[0].err, 0);
	assert_string_equal(m.outcome[0].text, "A=1\n");
	assert_int_equal(fake->demands, 1);
}

static void expect_ended_by(int sig)
{
	pid_t pid = parked_reader(handle_signals);
	kill(pid, sig);
	assert_true(within(&m.outcome[0].done, 1000));
	join(pid);
	assert_int_equal(m.outcome[0].err, EINTR);
	eventually(fake->waiting == 0);
}

static void signals_that_end_a_program_end_a_wait(void **state)
{
	expect_ended_by(SIGINT);
	expect_ended_by(SIGTERM);
	expect_ended_by(SIGHUP);
	expect_ended_by(SIGQUIT);
	int status;
	pid_t pid = parked_reader(NULL);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	eventually(fake->waiting == 0);
}

/* The kernel says INTERRUPT once. */
static void the_second_signal_is_seen_too(void **state)
{
	pid_t pid = parked_reader(handle_signals);
	kill(pid, SIGCHLD);
	assert_false(within(&m.outcome[0].done, 200));
	kill(pid, SIGINT);
	assert_true(within(&m.outcome[0].done, 1000));
	join(pid);
	assert_int_equal(m.outcome[0].err, EINTR);
}

static void a_blocked_signal_does_not_count(void **state)
{
	pid_t pid = parked_reader(block_interrupts);
	kill(pid, SIGINT);
	kill(pid, SIGCHLD);
	assert_false(within(&m.outcome[0].done, 200));
	fake->finish = true;
	join(pid);
	assert_int_equal(m.outcome[0].err, 0);
}

/* ---- leases ------------------------------------------------------------------------------------------------------- */

static void expect_leases(const char *const *files, size_t n)
{
	struct outcome *o = &m.outcome[14];
	memset(o, 0, sizeof *o);
	read_into(at("status.json"), O_RDONLY, o);
	json_t *leases = json_loads(o->text, 0, NULL);
	assert_int_equal(json_array_size(leases), n);
	for (size_t i = 0; i < n; i++) {
		json_t *lease = json_array_get(leases, i);
		assert_string_equal(json_string_value(json_object_get(lease, "file")), files[i]);
		assert_int_equal(json_integer_value(json_object_get(lease, "pid")), getpid());
		assert_string_equal(json_string_value(json_object_get(lease, "command")), "test_control");
	}
	json_decref(leases);
}

static void an_open_demand_file_is_a_lease(void **state)
{
	static const char *const names[] = {"env", "ports", "env.json", "services/db/url", "services/cache/port"};
	fake->ready = fake->with_leases = true;
	int fds[5], writer = open(at("env"), O_WRONLY), state_fd = open(at("services/db/state"), O_RDONLY);
	for (size_t i = 0; i < 5; i++) {
		fds[i] = open(at(names[i]), O_RDONLY);
		assert_return_code(fds[i], errno);
	}
	expect_leases(names, 5); /* neither who writes nor who looks holds one */
	close(writer);
	close(state_fd);
	int copy = dup(fds[0]);
	close(fds[0]);
	expect_leases(names, 5); /* what is inherited or copied holds it still */
	close(copy);
	eventually(m.shared->handles[2].state == HANDLE_FREE);
	expect_leases(names + 1, 4);
	for (size_t i = 1; i < 5; i++)
		close(fds[i]);
}

/* ---- deletion ----------------------------------------------------------------------------------------------------- */

static int exists_elsewhere(const char *name)
{
	pid_t pid = client();
	if (pid == 0) {
		struct stat st;
		_exit(stat(at(name), &st) == 0);
	}
	int status;
	waitpid(pid, &status, 0);
	return WEXITSTATUS(status);
}

static void deleting_asks_for_the_teardown(void **state)
{
	static const char *const names[] = {"env", "ports", "status.json"};
	for (int i = 0; i < 3; i++) {
		struct stat st;
		uint64_t ino = ino_of(names[i]);
		assert_return_code(unlink(at(names[i])), errno);
		assert_int_equal(fake->unlinked, i + 1);
		assert_int_equal(fake->unlinker_pid, getpid());
		assert_int_equal(fake->unlinked_delay, 1000);
		/* absent for who did it, for a while; there for all others */
		expect_errno(ENOENT, stat(at(names[i]), &st));
		assert_true(exists_elsewhere(names[i]));
		expect_errno(ENOENT, stat(at(names[i]), &st));
		usleep(1050000);
		assert_return_code(stat(at(names[i]), &st), errno);
		assert_int_not_equal(st.st_ino, ino);
	}
}

static void who_deletes_and_creates_replaces(void **state)
{
	assert_return_code(unlink(at("env")), errno);
	int fd = open(at("env"), O_CREAT | O_EXCL | O_WRONLY, 0600);
	assert_return_code(fd, errno);
	assert_int_equal(fake->replaced, 1);
	assert_int_equal(fake->replacer_pid, getpid());
	assert_int_equal(write(fd, "NEW=1\n", 6), 6);
	assert_int_equal(fake->writes, 0);
	close(fd);
	assert_string_equal(fake->written, "NEW=1\n");
	assert_true(exists_elsewhere("env"));
	expect_errno(EEXIST, open(at("env"), O_CREAT | O_EXCL | O_WRONLY, 0600));
	assert_return_code(unlink(at("status.json")), errno);
	expect_errno(EACCES, open(at("status.json"), O_CREAT | O_EXCL | O_WRONLY, 0600));
}

static void the_rest_cannot_be_deleted(void **state)
{
	static const char *const names[] = {"env.json", "env.own", "events", "ctl", "services/db/url", "services/db/host",
	                                    "services/db/port", "services/db/env", "services/db/state", "services/db/log"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		expect_errno(EPERM, unlink(at(names[i])));
	expect_errno(EPERM, rmdir(at("services")));
	assert_int_equal(fake->unlinked, 0);
}

static void deleting_errors_clears_them(void **state)
{
	expect_text("errors.json", "[0]\n");
	assert_return_code(unlink(at("errors.json")), errno);
	expect_text("errors.json", "[1]\n");
}

static void removing_a_service_keeps_it_listed(void **state)
{
	int dir = open(at("services/db"), O_RDONLY | O_DIRECTORY);
	assert_return_code(dir, errno);
	fake->ready = true;
	assert_return_code(rmdir(at("services/db")), errno);
	assert_string_equal(fake->removed, "db");
	expect_listed("services", "a b,cache,db");
	/* although somebody still stands in what was removed */
	expect_text("services/db/url", "url of db\n");
	expect_listed("services/db", "env,exec,host,log,port,state,url");
	close(dir);
	fake->demand_errno = EIO;
	expect_errno(EIO, rmdir(at("services/cache")));
}

static void names_are_fixed(void **state)
{
	expect_errno(EPERM, mkdir(at("new"), 0700));
	expect_errno(EPERM, mkdir(at("services/new"), 0700));
	expect_errno(EPERM, symlink("x", at("new")));
	expect_errno(EPERM, link(at("ctl"), at("new")));
	expect_errno(EPERM, mkfifo(at("new"), 0600));
	expect_errno(EPERM, open(at("services/db/new"), O_CREAT | O_WRONLY, 0600));
	expect_errno(EBUSY, rename(at("env"), at("x")));
	expect_errno(EBUSY, rename(at("status.json"), at("env")));
	expect_errno(EBUSY, rename(at("services"), at("x")));
	expect_errno(EBUSY, rename(at("services/db"), at("services/x")));
	expect_errno(EBUSY, rename(at("services/db/url"), at("x")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(everything_is_listed),
		T(looking_never_demands),
		T(absent_names_are_absent),
		T(a_version_is_an_inode_that_never_changes),
		T(what_grows_old_is_rendered_again),
		T(others_may_not_look),
		T(a_file_that_cannot_be_rendered_is_empty_and_its_demand_fails),
		T(a_demand_waits_and_nobody_else_does),
		T(a_warm_demand_is_answered_at_once),
		T(a_service_is_demanded_by_its_files),
		T(only_reading_demands),
		T(without_blocking_it_only_starts),
		T(a_failure_is_its_errno),
		T(what_changed_while_it_waited_has_its_exact_size),
		T(a_file_that_changes_all_the_time_can_be_opened),
		T(signals_of_everyday_do_not_end_a_wait),
		T(signals_that_end_a_program_end_a_wait),
		T(the_second_signal_is_seen_too),
		T(a_blocked_signal_does_not_count),
		T(an_open_demand_file_is_a_lease),
		T(deleting_asks_for_the_teardown),
		T(who_deletes_and_creates_replaces),
		T(the_rest_cannot_be_deleted),
		T(deleting_errors_clears_them),
		T(removing_a_service_keeps_it_listed),
		T(names_are_fixed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
