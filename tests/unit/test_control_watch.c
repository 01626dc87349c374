/* The control file system mounted for real: poll(2), inotify, growing files. */
#include <limits.h>
#include <sys/epoll.h>
#include <sys/inotify.h>

#include "control_harness.h"

/* ---- poll(2) ------------------------------------------------------------------------------------------------------ */

static int ready(int fd, int timeout_ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLPRI};
	return poll(&p, 1, timeout_ms) > 0 ? p.revents : 0;
}

static void add_event(const char *line)
{
	memcpy(fake->events + fake->events_end, line, strlen(line));
	fake->events_end += strlen(line);
	fake->changed |= CHANGED_EVENTS;
}

static void events_grow_and_are_polled(void **state)
{
	char text[64] = "";
	struct stat st;
	int fd = open(at("events"), O_RDONLY);
	assert_return_code(fd, errno);
	assert_int_equal(ready(fd, 50), 0);
	assert_int_equal(read(fd, text, sizeof text), 0);
	add_event("{\"a\":1}\n");
	assert_int_equal(ready(fd, 2000) & POLLIN, POLLIN);
	assert_return_code(fstat(fd, &st), errno);
	assert_int_equal(st.st_size, 8); /* one inode that grows */
	assert_int_equal(read(fd, text, sizeof text), 8);
	assert_string_equal(text, "{\"a\":1}\n");
	assert_int_equal(ready(fd, 50), 0); /* all is read */
	pid_t pid = client();
	if (pid == 0) {
		usleep(100000);
		add_event("{\"b\":2}\n");
		_exit(0);
	}
	uint64_t started = now_monotonic_ms();
	assert_int_equal(ready(fd, 5000) & POLLIN, POLLIN);
	assert_in_range(now_monotonic_ms() - started, 50, 2500); /* woken: at the end of its time it would look again */
	join(pid);
	assert_int_equal(read(fd, text, sizeof text), 8);
	assert_string_equal(text, "{\"b\":2}\n");
	int other = open(at("events"), O_RDONLY);
	assert_int_equal(ready(other, 0) & POLLIN, POLLIN); /* nothing of it is read yet */
	close(other);
	close(fd);
	assert_int_equal(fake->demands, 0);
}

static void a_long_history_is_read_once_from_its_oldest_line(void **state)
{
	char text[4096];
	size_t len = 0;
	ssize_t n;
	memset(fake->events, '.', 300000);
	strcpy(fake->events + 300000, "kept 1\nkept 2\n");
	fake->events_begin = 300000;
	fake->events_end = 300014;
	int fd = open(at("events"), O_RDONLY);
	while ((n = read(fd, text + len, 5)) > 0 && len < 1000)
		len += (size_t)n;
	text[len] = 0;
	assert_string_equal(text, "kept 1\nkept 2\n");
	assert_int_equal(ready(fd, 50), 0);
	add_event("more\n");
	assert_int_equal(ready(fd, 2000) & POLLIN, POLLIN);
	assert_int_equal(read(fd, text, sizeof text), 5);
	/* tail(1) seeks from the end */
	assert_return_code(lseek(fd, -5, SEEK_END), errno);
	assert_int_equal(read(fd, text, sizeof text), 5);
	assert_memory_equal(text, "more\n", 5);
	close(fd);
}

static void status_is_polled_for_a_change(void **state)
{
	int fd = open(at("status.json"), O_RDONLY);
	assert_int_equal(ready(fd, 50), 0);
	fake->changed |= CHANGED_STATUS; /* the same bytes: nothing that anybody should wake for */
	assert_int_equal(ready(fd, 100), 0);
	int set = epoll_create1(0);
	struct epoll_event event = {.events = EPOLLIN};
	assert_return_code(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), errno);
	assert_int_equal(epoll_wait(set, &event, 1, 50), 0);
	strcpy(fake->status, "{\"state\": \"starting\"}\n");
	fake->changed |= CHANGED_STATUS;
	assert_int_equal(epoll_wait(set, &event, 1, 2000), 1);
	assert_int_equal(ready(fd, 0) & POLLIN, POLLIN); /* and it stays so: this is the old one */
	close(set);
	close(fd);
	fd = open(at("status.json"), O_RDONLY);
	assert_int_equal(ready(fd, 50), 0);
	close(fd);
}

static void a_lease_changes_the_status(void **state)
{
	fake->ready = fake->with_leases = true;
	int fd = open(at("status.json"), O_RDONLY);
	assert_int_equal(ready(fd, 50), 0);
	int lease = open(at("env"), O_RDONLY);
	assert_int_equal(ready(fd, 2000) & POLLIN, POLLIN);
	close(lease);
	close(fd);
}

static void other_files_are_always_ready(void **state)
{
	fake->ready = true;
	static const char *const names[] = {"env", "ports", "errors.json", "services/db/state"};
	for (size_t i = 0; i < 4; i++) {
		int fd = open(at(names[i]), O_RDONLY);
		assert_int_equal(ready(fd, 0) & POLLIN, POLLIN);
		close(fd);
	}
}

static void append(const char *path, const char *text)
{
	FILE *f = fopen(path, "a");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void a_log_is_followed_over_its_rotation(void **state)
{
	char dir[] = "/tmp/log.XXXXXX", rotated[600], text[64] = "";
	struct stat st;
	assert_non_null(mkdtemp(dir));
	snprintf(fake->log, sizeof fake->log, "%s/log", dir);
	snprintf(rotated, sizeof rotated, "%s/log.1", dir);
	append(fake->log, "first\n");
	int fd = open(at("services/db/log"), O_RDONLY);
	assert_return_code(fd, errno);
	assert_return_code(fstat(fd, &st), errno);
	assert_int_equal(st.st_size, 6);
	assert_int_equal(read(fd, text, sizeof text), 6);
	assert_int_equal(ready(fd, 50), 0);
	append(fake->log, "second\n");
	assert_int_equal(ready(fd, 2000) & POLLIN, POLLIN);
	assert_int_equal(read(fd, text, sizeof text), 7);
	append(fake->log, "third\n");
	assert_return_code(rename(fake->log, rotated), errno);
	append(fake->log, "fourth\n");
	assert_int_equal(ready(fd, 2000) & POLLIN, POLLIN);
	assert_int_equal(read(fd, text, sizeof text), 6);
	assert_memory_equal(text, "third\n", 6);
	assert_int_equal(read(fd, text, sizeof text), 7);
	assert_memory_equal(text, "fourth\n", 7);
	assert_int_equal(read(fd, text, sizeof text), 0);
	close(fd);
	unlink(fake->log);
	unlink(rotated);
	rmdir(dir);
	assert_int_equal(fake->demands, 0);
}

/* ---- inotify ------------------------------------------------------------------------------------------------------ */

struct watch {
	int fd, env, dir;
};

static struct watch watch_both(void)
{
	struct watch w = {.fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC)};
	w.env = inotify_add_watch(w.fd, at("env"), IN_ALL_EVENTS);
	w.dir = inotify_add_watch(w.fd, at(""), IN_ATTRIB | IN_DELETE | IN_CREATE | IN_MODIFY | IN_MOVED_TO);
	return w;
}

/* The events of one watch until nothing comes for a while. With `name`: those that name it. */
static uint32_t heard(const struct watch *w, int wd, const char *name, int timeout_ms)
{
	union {
		char bytes[4096];
		struct inotify_event align;
	} buf;
	uint32_t mask = 0;
	struct pollfd p = {.fd = w->fd, .events = POLLIN};
	while (poll(&p, 1, timeout_ms) > 0) {
		ssize_t n = read(w->fd, buf.bytes, sizeof buf);
		for (char *at_ = buf.bytes; at_ < buf.bytes + n;) {
			struct inotify_event *e = (struct inotify_event *)at_;
			if (e->wd == wd && (!name || (e->len && strcmp(e->name, name) == 0)))
				mask |= e->mask;
			at_ += sizeof *e + e->len;
		}
		timeout_ms = 300;
	}
	return mask;
}

static void a_watch_on_the_file_hears_of_its_replacement(void **state)
{
	fake->ready = true;
	struct watch w = watch_both();
	set_env("B=2\n");
	assert_true(heard(&w, w.env, NULL, 2000) & IN_DELETE_SELF);
	expect_text("env", "B=2\n");
	close(w.fd);
}

static void a_watch_on_the_directory_hears_of_it(void **state)
{
	fake->ready = true;
	struct watch w = watch_both();
	set_env("B=2\n");
	assert_true(heard(&w, w.dir, "env", 2000) & IN_ATTRIB);
	close(w.fd);
}

/* Somebody else may have looked the new version up before the watchers are told. */
static void a_watch_hears_although_another_was_faster(void **state)
{
	fake->ready = true;
	struct watch w = watch_both();
	set_env("B=2\n");
	expect_text("env", "B=2\n");
	assert_true(heard(&w, w.env, NULL, 2000) & (IN_ATTRIB | IN_DELETE_SELF));
	expect_text("env", "B=2\n");
	close(w.fd);
}

static void who_watches_again_hears_again(void **state)
{
	fake->ready = true;
	for (int i = 0; i < 3; i++) {
		char text[32];
		struct watch w = watch_both();
		snprintf(text, sizeof text, "N=%d%d\n", i, i);
		set_env(text);
		assert_true(heard(&w, w.env, NULL, 3000) & IN_DELETE_SELF);
		close(w.fd);
	}
}

static void changes_without_number_are_told_once_a_second(void **state)
{
	fake->ready = true;
	struct watch w = watch_both();
	set_env("N=0\n");
	heard(&w, w.dir, "env", 2000); /* the first is told soon */
	unsigned told = 0;
	uint64_t until = now_monotonic_ms() + 2500;
	for (int i = 0; now_monotonic_ms() < until; i++) {
		char text[32];
		snprintf(text, sizeof text, "N=%d\n", i);
		set_env(text);
		expect_text("env", text);
		struct pollfd p = {.fd = w.fd, .events = POLLIN};
		if (poll(&p, 1, 20) > 0) {
			union {
				char bytes[4096];
				struct inotify_event align;
			} buf;
			ssize_t n = read(w.fd, buf.bytes, sizeof buf);
			for (char *at_ = buf.bytes; at_ < buf.bytes + n;) {
				struct inotify_event *e = (struct inotify_event *)at_;
				told += e->wd == w.dir && e->mask & IN_ATTRIB && e->len && strcmp(e->name, "env") == 0;
				at_ += sizeof *e + e->len;
			}
		}
	}
	assert_in_range(told, 1, 9); /* at most three times, of each at most the helper's two touches and the delete */
	close(w.fd);
}

static void nobody_is_told_what_nobody_looked_at(void **state)
{
	fake->ready = true;
	set_env("B=2\n");
	usleep(600000); /* the first of all may be heard by who watches the directory */
	uint64_t ino = m.shared->next_ino;
	for (int i = 0; i < 5; i++) {
		char text[32];
		snprintf(text, sizeof text, "N=%d\n", i);
		set_env(text);
		usleep(300000);
	}
	assert_int_equal(m.shared->next_ino, ino); /* nothing was rendered: no helper came, and nobody else */
}

/* A notification takes the directory's lock, which an unlink holds in the kernel. */
static void telling_and_deleting_do_not_block_each_other(void **state)
{
	fake->ready = true;
	struct watch w = watch_both();
	uint64_t until = now_monotonic_ms() + 2500;
	for (int i = 0; now_monotonic_ms() < until; i++) {
		char name[32], text[32];
		snprintf(text, sizeof text, "N=%d\n", i);
		snprintf(fake->env, sizeof fake->env, "%s", text);
		fake->changed |= CHANGED_ENV | CHANGED_STATUS;
		snprintf(name, sizeof name, "scratch%d", i % 8);
		assert_int_equal(put(name, "x", O_CREAT), 0);
		assert_return_code(unlink(at(name)), errno);
		pid_t pid = client();
		if (pid == 0) {
			unlink(at("env"));
			_exit(0);
		}
		join(pid);
		ino_of("env");
	}
	close(w.fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(events_grow_and_are_polled),
		T(a_long_history_is_read_once_from_its_oldest_line),
		T(status_is_polled_for_a_change),
		T(a_lease_changes_the_status),
		T(other_files_are_always_ready),
		T(a_log_is_followed_over_its_rotation),
		T(a_watch_on_the_file_hears_of_its_replacement),
		T(a_watch_on_the_directory_hears_of_it),
		T(a_watch_hears_although_another_was_faster),
		T(who_watches_again_hears_again),
		T(changes_without_number_are_told_once_a_second),
		T(nobody_is_told_what_nobody_looked_at),
		T(telling_and_deleting_do_not_block_each_other),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
