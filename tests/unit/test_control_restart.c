/* The control file system mounted for real, and its server killed. */
#include <sys/utsname.h>

#include "control_harness.h"

static void need_resend(const char *test)
{
	struct utsname u;
	int major = 0, minor_ = 0;
	uname(&u);
	sscanf(u.release, "%d.%d", &major, &minor_);
	if (major > 6 || (major == 6 && minor_ >= 9))
		return;
	print_message("skip: %s: this kernel cannot send requests again\n", test);
	skip();
}

static void restart(void)
{
	kill_server();
	start_server();
}

static void open_files_go_on(void **state)
{
	need_resend(__func__);
	fake->ready = true;
	char text[64] = "";
	struct stat st;
	int fd = open(at("env"), O_RDONLY), dir = open(at("services/db"), O_RDONLY | O_DIRECTORY);
	uint64_t other = ino_of("ports");
	set_env("B=22\n");
	restart();
	assert_int_equal(pread(fd, text, sizeof text, 0), 4);
	assert_string_equal(text, "A=1\n");
	assert_return_code(fstat(fd, &st), errno);
	assert_int_equal(st.st_size, 4);
	expect_text("env", "B=22\n");
	assert_int_equal(ino_of("ports"), other); /* the same bytes are the same inode to an heir too */
	int file = openat(dir, "url", O_RDONLY);
	assert_int_equal(read(file, text, sizeof text), 10);
	close(file);
	close(dir);
	close(fd);
	eventually(m.shared->handles[0].state == HANDLE_FREE);
}

static size_t live_handles(void)
{
	size_t n = 0;
	for (size_t i = 0; i < SHARED_HANDLE_MAX; i++)
		n += m.shared->handles[i].state != HANDLE_FREE;
	return n;
}

static void a_parked_open_comes_again(void **state)
{
	need_resend(__func__);
	pid_t pid = reader(0, at("env"), O_RDONLY, NULL);
	eventually(fake->waiting == 1);
	fake->waiting = 0; /* what waits dies with its server */
	restart();
	eventually(fake->waiting == 1);
	assert_int_equal(fake->demands, 2);
	assert_int_equal(fake->demander_pid, pid);
	assert_int_equal(live_handles(), 0); /* no lease before it is answered */
	fake->finish = true;
	join(pid);
	assert_int_equal(m.outcome[0].err, 0);
	assert_string_equal(m.outcome[0].text, "A=1\n");
	eventually(live_handles() == 0);
}

/* To a new server the services are not known at once. */
static void names_wait_for_the_configuration(void **state)
{
	need_resend(__func__);
	fake->ready = true;
	int held = open(at("env"), O_RDONLY);
	char text[16];
	expect_text("services/db/url", "url of db\n");
	kill_server();
	fake->loading = true;
	fake->service_count = 0;
	start_server();
	assert_int_equal(pread(held, text, sizeof text, 0), 4); /* what is open is not kept waiting */
	pid_t pids[3] = {reader(0, at("services/db/url"), O_RDONLY, NULL), reader(1, at("env"), O_RDONLY, NULL), client()};
	if (pids[2] == 0) {
		DIR *dir = opendir(at("services"));
		int n = 0;
		while (readdir(dir))
			n++;
		m.outcome[2].done = n;
		_exit(0);
	}
	assert_false(within(&m.outcome[0].done, 100));
	assert_false(m.outcome[1].done || m.outcome[2].done);
	fake->service_count = FAKE_SERVICES;
	changed(CHANGED_SERVICES);
	for (int i = 0; i < 3; i++)
		join(pids[i]);
	assert_string_equal(m.outcome[0].text, "url of db\n");
	assert_string_equal(m.outcome[1].text, "A=1\n");
	assert_int_equal(m.outcome[2].done, FAKE_SERVICES + 2);
	close(held);
	/* but not for ever */
	kill_server();
	start_server();
	pid_t pid = reader(0, at("env"), O_RDONLY, NULL);
	assert_false(within(&m.outcome[0].done, 1000));
	assert_true(within(&m.outcome[0].done, 2500));
	join(pid);
}

/* Its server died after it had made the handle and before it answered. */
static void an_open_answered_twice_is_one_lease(void **state)
{
	need_resend(__func__);
	pid_t pid = reader(0, at("env"), O_RDONLY, NULL);
	eventually(fake->waiting == 1);
	fake->waiting = 0;
	kill_server();
	struct shared_handle *h = &m.shared->handles[3];
	*h = (struct shared_handle){.generation = 9, .pid = pid, .tid = pid};
	for (size_t i = 0; i < SHARED_VERSION_MAX; i++) {
		struct shared_version *version = &m.shared->versions[i];
		if (version->state == VERSION_LIVE && version->bytes.size == 4) {
			h->file = version->file;
			h->ino = version->ino;
		}
	}
	assert_int_not_equal(h->ino, 0);
	m.shared->handle_count = 4;
	h->state = HANDLE_ANSWERING;
	fake->ready = true;
	start_server();
	join(pid);
	assert_int_equal(m.outcome[0].err, 0);
	eventually(live_handles() == 0);
}

static void what_is_being_written_is_not_lost(void **state)
{
	need_resend(__func__);
	int fd = open(at("env"), O_WRONLY | O_TRUNC), appending = open(at("env"), O_WRONLY | O_APPEND);
	int scratch = open(at("swap"), O_RDWR | O_CREAT, 0600);
	char text[16] = "";
	assert_int_equal(write(fd, "X=1\n", 4), 4);
	assert_int_equal(write(appending, "Z=3\n", 4), 4);
	assert_int_equal(write(scratch, "swap", 4), 4);
	restart();
	assert_int_equal(write(fd, "Y=2\n", 4), 4);
	assert_return_code(close(fd), errno);
	assert_string_equal(fake->written, "X=1\nY=2\n");
	assert_return_code(close(appending), errno);
	assert_string_equal(fake->written, "X=1\nY=2\nZ=3\n");
	assert_int_equal(pread(scratch, text, sizeof text, 0), 4);
	assert_string_equal(text, "swap");
	close(scratch);
	expect_text("swap", "swap");
}

static void a_poll_is_answered_by_the_heir(void **state)
{
	need_resend(__func__);
	m.outcome[0].started = m.outcome[0].done = 0;
	pid_t pid = client();
	if (pid == 0) {
		struct pollfd p = {.fd = open(at("events"), O_RDONLY), .events = POLLIN};
		m.outcome[0].started = 1;
		m.outcome[0].err = poll(&p, 1, 10000) == 1 && p.revents & POLLIN ? 0 : 1;
		_exit(0);
	}
	eventually(m.shared->handles[0].poll != 0);
	usleep(20000);
	restart();
	usleep(20000);
	memcpy(fake->events, "x\n", 2);
	fake->events_end = 2;
	fake->changed = CHANGED_EVENTS;
	join(pid);
	assert_int_equal(m.outcome[0].err, 0);
}

static void followers_of_what_began_anew_begin_anew(void **state)
{
	need_resend(__func__);
	char text[64] = "";
	strcpy(fake->events, "a long history\n");
	fake->events_end = 15;
	int fd = open(at("events"), O_RDONLY);
	assert_int_equal(read(fd, text, sizeof text), 15);
	kill_server();
	strcpy(fake->events, "new\n"); /* events are not kept */
	fake->events_end = 4;
	start_server();
	memset(text, 0, sizeof text);
	assert_int_equal(read(fd, text, sizeof text), 4);
	assert_string_equal(text, "new\n");
	assert_int_equal(read(fd, text, sizeof text), 0);
	close(fd);
}

static void twenty_deaths_under_readers_and_writers(void **state)
{
	need_resend(__func__);
	fake->ready = true;
	pid_t pids[6];
	m.outcome[15].started = 0; /* the end, for all */
	for (int i = 0; i < 6; i++) {
		struct outcome *o = &m.outcome[i];
		memset(o, 0, sizeof *o);
		pids[i] = client();
		if (pids[i])
			continue;
		const char *names[] = {"env", "status.json", "services/db/url", "ports"};
		while (!m.outcome[15].started && !o->err) {
			o->started++;
			o->len = 0;
			if (i == 5)
				o->err = put("env", "A=1\n", O_TRUNC);
			else
				read_into(at(names[i % 4]), O_RDONLY, o);
			/* 0: the writer truncates the same file, and as with any file an fstat may meet that */
			if (!o->err && i < 5 && o->size != 0 && (size_t)o->size != o->len)
				o->err = 1000;
		}
		_exit(0);
	}
	for (int i = 0; i < 20; i++) {
		usleep(50000);
		restart();
	}
	usleep(50000);
	m.outcome[15].started = 1;
	for (int i = 0; i < 6; i++) {
		join(pids[i]);
		assert_int_equal(m.outcome[i].err, 0);
		assert_true(m.outcome[i].started > 0);
	}
	eventually(live_handles() == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(open_files_go_on),
		T(a_parked_open_comes_again),
		T(names_wait_for_the_configuration),
		T(an_open_answered_twice_is_one_lease),
		T(what_is_being_written_is_not_lost),
		T(a_poll_is_answered_by_the_heir),
		T(followers_of_what_began_anew_begin_anew),
		T(twenty_deaths_under_readers_and_writers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
