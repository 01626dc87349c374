/* provisioner/store: many processes on one database, ports, users, secrets, and files that are not what they should be.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "provisioner/store.h"

static int set_up(void **state)
{
	char template[] = "/tmp/store.XXXXXX";
	*state = xstrdup(mkdtemp(template));
	return 0;
}

static int tear_down(void **state)
{
	tree_remove(AT_FDCWD, *state);
	free(*state);
	return 0;
}

static struct store *open_store(const char *dir)
{
	struct store *s = NULL;
	cleanup_error struct error err = ERROR_INIT;
	if (store_open(dir, &s, &err))
		fail_msg("%s", err.message);
	return s;
}

static void ok(int r, struct error *err)
{
	if (r < 0)
		fail_msg("%s", err->message ? err->message : "?");
	error_release(err);
}

static struct store_environment sample(const char *namespace_)
{
	return (struct store_environment){.namespace_ = (char *)namespace_,
	                                  .root = (char *)"/w",
	                                  .repository = (char *)"/r",
	                                  .workspace = (char *)"w",
	                                  .control_dir = (char *)"/c",
	                                  .state_dir = (char *)"/s"};
}

/* ---- processes at once ---- */

/* Starts `count` children at the same moment. Returns how many failed. */
static int at_once(int count, int (*work)(const char *dir, int index), const char *dir)
{
	int gate[2], failed = 0;
	assert_int_equal(pipe(gate), 0);
	for (int i = 0; i < count; i++) {
		pid_t pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			char c;
			close(gate[1]);
			_exit(read(gate[0], &c, 1) == 0 ? work(dir, i) : 99); /* end of file: all are here */
		}
	}
	close(gate[0]);
	close(gate[1]);
	for (int i = 0; i < count; i++) {
		int status;
		wait(&status);
		failed += status != 0;
	}
	return failed;
}

static int report(const struct error *err, int code)
{
	fprintf(stderr, "process %d: %s\n", (int)getpid(), err->message ? err->message : "?");
	return code;
}

static int open_and_register(const char *dir, int index)
{
	struct store *s = NULL;
	struct error err = ERROR_INIT;
	char name[32];
	snprintf(name, sizeof name, "ns-%d", index);
	struct store_environment e = sample(name);
	struct port_lease lease[2] = {{"db", "5432/tcp", 0, 0}, {"", "PORT", 0, 0}};
	if (store_open(dir, &s, &err))
		return report(&err, 1);
	if (store_environment_put(s, &e, true, &err))
		return report(&err, 2);
	if (store_ports_lease(s, name, lease, 2, &err))
		return report(&err, 3);
	store_close(s);
	return 0;
}

static void hundred_processes_on_a_fresh_directory(void **state)
{
	cleanup_free char *dir = xasprintf("%s/fresh", (char *)*state);
	assert_int_equal(at_once(100, open_and_register, dir), 0);
	struct store *s = open_store(dir);
	struct store_environment *list = NULL;
	size_t count = 0;
	cleanup_error struct error err = ERROR_INIT;
	ok(store_environment_list(s, &list, &count, &err), &err);
	assert_int_equal(count, 100);
	for (size_t i = 0; i < count; i++) {
		for (size_t k = 0; geteuid() == 0 && k < i; k++)
			assert_int_not_equal(list[i].uid, list[k].uid);
		store_environment_release(&list[i]);
	}
	free(list);
	store_close(s);
}

static int lease_and_release(const char *dir, int index)
{
	struct store *s = NULL;
	struct error err = ERROR_INIT;
	cleanup_free char *name = xasprintf("many-%d", index);
	if (store_open(dir, &s, &err))
		return report(&err, 1);
	for (int round = 0; round < 40; round++) {
		struct port_lease l[10];
		char keys[10][16];
		for (int i = 0; i < 10; i++) {
			snprintf(keys[i], sizeof keys[i], "%d", i);
			l[i] = (struct port_lease){"db", keys[i], 0, 0};
		}
		if (store_ports_lease(s, name, l, 10, &err))
			return report(&err, 2);
		/* a number is ours alone exactly when nobody else can make the directory of its name */
		for (int i = 0; i < 10; i++) {
			cleanup_free char *mark = xasprintf("%s/held-%u", dir, l[i].port);
			if (mkdir(mark, 0700))
				return fprintf(stderr, "port %u was leased twice\n", l[i].port), 3;
		}
		for (int i = 0; i < 10; i++) {
			cleanup_free char *mark = xasprintf("%s/held-%u", dir, l[i].port);
			rmdir(mark);
		}
		if (store_ports_release(s, name, &err))
			return report(&err, 4);
	}
	store_close(s);
	return 0;
}

static void no_port_is_leased_twice(void **state)
{
	assert_int_equal(at_once(10, lease_and_release, *state), 0);
}

static int same_secret(const char *dir, int index)
{
	struct store *s = NULL;
	struct error err = ERROR_INIT;
	char *secret = NULL;
	if (store_open(dir, &s, &err) || store_secret(s, "ns", "password", &secret, &err))
		return report(&err, 1);
	cleanup_free char *path = xasprintf("%s/secret-%s", dir, secret);
	int r = mkdir(path, 0700) && errno != EEXIST;
	free(secret);
	store_close(s);
	return r;
}

static void racing_processes_get_one_secret(void **state)
{
	assert_int_equal(at_once(10, same_secret, *state), 0);
	cleanup_free char *count = xasprintf("test $(ls -d %s/secret-* | wc -l) = 1", (char *)*state);
	assert_int_equal(system(count), 0);
}

/* ---- the registry ---- */

static void environments_are_kept(void **state)
{
	struct store *s = open_store(*state);
	cleanup_error struct error err = ERROR_INIT;
	struct store_environment e = sample("ns"), got = {0};
	assert_int_equal(store_environment_get(s, "ns", &got, &err), 0);
	ok(store_environment_put(s, &e, false, &err), &err);
	assert_int_equal(store_environment_get(s, "ns", &got, &err), 1);
	assert_string_equal(got.root, "/w");
	assert_string_equal(got.desired, "absent");
	assert_null(got.backend);
	assert_int_equal(got.generation, 1);
	assert_true(got.uid == (uid_t)-1);
	assert_true(got.created_ms > INT64_C(1700000000000));
	store_environment_release(&got);

	uint32_t generation = 0;
	ok(store_environment_set_backend(s, "ns", "docker", "unix:///run/docker.sock", "it answers", &err), &err);
	ok(store_environment_set_desired(s, "ns", "up", &err), &err);
	ok(store_environment_next_generation(s, "ns", &generation, &err), &err);
	assert_int_equal(generation, 2);
	/* a refresh changes the paths alone */
	e.root = (char *)"/moved";
	ok(store_environment_put(s, &e, false, &err), &err);
	store_close(s);
	s = open_store(*state);
	assert_int_equal(store_environment_get(s, "ns", &got, &err), 1);
	assert_string_equal(got.root, "/moved");
	assert_string_equal(got.backend, "docker");
	assert_string_equal(got.backend_target, "unix:///run/docker.sock");
	assert_string_equal(got.backend_reason, "it answers");
	assert_string_equal(got.desired, "up");
	assert_int_equal(got.generation, 2);
	store_environment_release(&got);

	ok(store_environment_set_backend(s, "ns", NULL, NULL, NULL, &err), &err);
	store_environment_get(s, "ns", &got, &err);
	assert_null(got.backend);
	store_environment_release(&got);
	assert_int_equal(store_environment_set_desired(s, "other", "up", &err), -ENOENT);
	assert_int_equal(err.code, ERROR_WORKSPACE_NOT_FOUND);
	assert_int_equal(store_environment_next_generation(s, "other", &generation, NULL), -ENOENT);
	store_close(s);
}

static void deleting_an_environment_frees_all_of_it(void **state)
{
	struct store *s = open_store(*state);
	cleanup_error struct error err = ERROR_INIT;
	struct store_environment e = sample("ns"), got = {0};
	struct port_lease lease = {"db", "5432/tcp", 0, 0}, other = {"db", "5432/tcp", 0, 0};
	char *first = NULL, *second = NULL;
	ok(store_environment_put(s, &e, true, &err), &err);
	ok(store_ports_lease(s, "ns", &lease, 1, &err), &err);
	ok(store_secret(s, "ns", "k", &first, &err), &err);
	ok(store_environment_delete(s, "ns", &err), &err);
	assert_int_equal(store_environment_get(s, "ns", &got, &err), 0);
	other.preferred = lease.port;
	ok(store_ports_lease(s, "other", &other, 1, &err), &err);
	assert_int_equal(other.port, lease.port);
	ok(store_secret(s, "ns", "k", &second, &err), &err);
	assert_string_not_equal(first, second);
	free(first);
	free(second);
	store_close(s);
}

static void users_are_leased_under_root(void **state)
{
	if (geteuid() != 0) {
		printf("skip: users_are_leased_under_root: root alone\n");
		skip();
	}
	struct store *s = open_store(*state);
	cleanup_error struct error err = ERROR_INIT;
	struct store_environment got = {0};
	uid_t uids[20];
	for (int i = 0; i < 20; i++) {
		cleanup_free char *name = xasprintf("ns-%d", i);
		struct store_environment e = sample(name);
		for (int again = 0; again < 2; again++) {
			ok(store_environment_put(s, &e, true, &err), &err);
			store_environment_get(s, name, &got, &err);
			assert_true(!again || uids[i] == got.uid); /* and stays */
			uids[i] = got.uid;
			store_environment_release(&got);
		}
		assert_true(uids[i] != (uid_t)-1 && uids[i] != 0);
		for (int k = 0; k < i; k++)
			assert_int_not_equal(uids[i], uids[k]);
	}
	/* it comes back after a forget, most likely */
	struct store_environment e = sample("ns-3");
	store_environment_delete(s, "ns-3", &err);
	ok(store_environment_put(s, &e, true, &err), &err);
	store_environment_get(s, "ns-3", &got, &err);
	assert_int_equal(got.uid, uids[3]);
	store_environment_release(&got);
	store_close(s);
}

/* ---- ports ---- */

static int listen_on(uint32_t address, uint16_t port, uint16_t *ret_port)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(address)}};
	socklen_t size = sizeof a;
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(fd, 1), 0);
	getsockname(fd, (struct sockaddr *)&a, &size);
	*ret_port = ntohs(a.sin_port);
	return fd;
}

static void ports_are_stable_and_distinct(void **state)
{
	struct store *s = open_store(*state);
	cleanup_error struct error err = ERROR_INIT;
	struct port_lease a[3] = {{"db", "5432/tcp", 0, 0}, {"db", "5433/tcp", 0, 0}, {"", "PORT", 0, 0}}, b[3], c[4];
	memcpy(b, a, sizeof a);
	memcpy(c, a, sizeof a);
	c[3] = (struct port_lease){"cache", "6379/tcp", 0, 0};
	ok(store_ports_lease(s, "one", a, 3, &err), &err);
	ok(store_ports_lease(s, "two", b, 3, &err), &err);
	for (int i = 0; i < 3; i++) {
		assert_true(a[i].port >= 1024);
		for (int k = 0; k < 3; k++) {
			assert_int_not_equal(a[i].port, b[k].port);
			assert_true(i == k || a[i].port != a[k].port);
		}
	}
	store_close(s);
	s = open_store(*state);
	ok(store_ports_lease(s, "one", c, 4, &err), &err);
	for (int i = 0; i < 3; i++)
		assert_int_equal(c[i].port, a[i].port);
	assert_true(c[3].port != 0);
	store_close(s);
}

/* In a child with a network of its own: 0 passed, 77 cannot be tried here. */
static int beside_a_packet_filter(const char *dir)
{
	enum { LED = 23456 };
	static const char *const to[] = {"127.0.0.2:9", "192.0.2.1:9"}; /* refused at once; no answer, or no way */
	struct error err = ERROR_INIT;
	struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	if ((geteuid() ? unshare(CLONE_NEWUSER | CLONE_NEWNET) : unshare(CLONE_NEWNET)) || ioctl(socket(AF_INET, SOCK_DGRAM, 0), SIOCSIFFLAGS, &lo))
		return 77;
	struct store *s = open_store(dir);
	for (int i = 0; i < 2; i++) {
		cleanup_free char *rule = xasprintf("iptables -t nat -A OUTPUT -p tcp -d 127.0.0.1 --dport %d -j DNAT --to-destination %s 2>/dev/null", LED + i, to[i]);
		if (system(rule))
			return 77;
		struct port_lease led = {"db", "5432/tcp", (uint16_t)(LED + i), 0}, beside = {"cache", "6379/tcp", (uint16_t)(LED + 2 + i), 0};
		cleanup_free char *namespace_ = xasprintf("n%d", i);
		if (store_ports_lease(s, namespace_, &led, 1, &err) < 0 || store_ports_lease(s, namespace_, &beside, 1, &err) < 0)
			return report(&err, 1);
		if (led.port == LED + i || !led.port || beside.port != LED + 2 + i)
			return 2;
	}
	store_close(s);
	return 0;
}

static void a_port_that_is_led_elsewhere_is_nobodys(void **state)
{
	pid_t pid = fork();
	if (pid == 0)
		_exit(beside_a_packet_filter(*state));
	int status;
	waitpid(pid, &status, 0);
	if (WEXITSTATUS(status) == 77) {
		printf("skip: a_port_that_is_led_elsewhere_is_nobodys: no network of our own, or no iptables\n");
		skip();
	}
	assert_int_equal(status, 0);
}

static void preferred_ports_come_first(void **state)
{
	struct store *s = open_store(*state);
	cleanup_error struct error err = ERROR_INIT;
	uint16_t free_port, taken;
	close(listen_on(INADDR_LOOPBACK, 0, &free_port));
	struct port_lease a = {"db", "5432/tcp", free_port, 0}, b = a, c = a, d = a;
	ok(store_ports_lease(s, "one", &a, 1, &err), &err);
	assert_int_equal(a.port, free_port);
	ok(store_ports_lease(s, "two", &b, 1, &err), &err);
	assert_int_not_equal(b.port, free_port);
	assert_true(b.port != 0);
	/* what is held stays, whatever is preferred now */
	ok(store_ports_release(s, "one", &err), &err);
	ok(store_ports_lease(s, "two", &d, 1, &err), &err);
	assert_int_equal(d.port, b.port);
	/* 0.0.0.0 has it too */
	int fd = listen_on(INADDR_ANY, 0, &taken);
	c.preferred = taken;
	ok(store_ports_lease(s, "three", &c, 1, &err), &err);
	assert_int_not_equal(c.port, taken);
	close(fd);
	/* one that somebody else had only for a moment is had at the next lease */
	ok(store_ports_release(s, "three", &err), &err);
	ok(store_ports_lease(s, "three", &c, 1, &err), &err);
	assert_int_equal(c.port, taken);
	store_close(s);
}

static void ports_of_foreigners_are_passed_over(void **state)
{
	struct store *s = open_store(*state);
	cleanup_error struct error err = ERROR_INIT;
	struct port_lease a = {"db", "5432/tcp", 0, 0};
	ok(store_ports_lease(s, "ns", &a, 1, &err), &err);
	uint16_t first = a.port, second = 0, bound;
	ok(store_ports_release(s, "ns", &err), &err);
	int fd = listen_on(INADDR_LOOPBACK, first, &bound);
	ok(store_ports_lease(s, "ns", &a, 1, &err), &err);
	assert_int_not_equal(a.port, first);
	close(fd);
	/* marked: not the first choice again at once, though it is free now */
	ok(store_ports_release(s, "ns", &err), &err);
	ok(store_ports_lease(s, "ns", &a, 1, &err), &err);
	assert_int_not_equal(a.port, first);

	ok(store_port_replace(s, "ns", "db", "5432/tcp", &second, &err), &err);
	assert_int_not_equal(second, a.port);
	assert_int_not_equal(second, first);
	uint16_t previous = a.port;
	ok(store_ports_lease(s, "ns", &a, 1, &err), &err);
	assert_int_equal(a.port, second);
	struct port_lease other = {"x", "y", previous, 0};
	ok(store_ports_lease(s, "other", &other, 1, &err), &err);
	assert_int_not_equal(other.port, previous);
	store_close(s);
}

static void all_or_none_when_the_range_is_exhausted(void **state)
{
	struct store *s = open_store(*state);
	cleanup_error struct error err = ERROR_INIT;
	cleanup_free struct port_lease *l = xcalloc(PORT_RANGE_COUNT + 1, sizeof *l);
	cleanup_strv char **keys = NULL;
	char **names = xcalloc(PORT_RANGE_COUNT + 2, sizeof *names);
	keys = names;
	for (size_t i = 0; i <= PORT_RANGE_COUNT; i++) {
		names[i] = xasprintf("%zu", i);
		l[i] = (struct port_lease){"db", names[i], 0, 0};
	}
	assert_int_equal(store_ports_lease(s, "ns", l, PORT_RANGE_COUNT + 1, &err), -ENOSPC);
	assert_int_equal(err.code, ERROR_PORT_ALLOCATION_FAILED);
	assert_non_null(err.hint);
	error_release(&err);
	/* nothing of it stays */
	struct port_lease one = {"db", "7", 0, 0};
	ok(store_ports_lease(s, "other", &one, 1, &err), &err);
	store_close(s);
}

static void range_avoids_the_kernels(void **state)
{
	static const struct {
		uint32_t low, high, first, count;
	} cases[] = {
	    {32768, 60999, 20000, 10000}, {25000, 60999, 20000, 5000},  {20500, 60999, 61000, 4536},
	    {10000, 24999, 25000, 5000},  {10000, 29500, 29501, 10000}, {15000, 65535, 5000, 10000},
	    {10000, 65535, 1024, 8976},   {1024, 65535, 20000, 10000}, /* it fills everything */
	    {60999, 32768, 20000, 10000},                              /* nonsense */
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		uint32_t first, count;
		port_range_outside(cases[i].low, cases[i].high, &first, &count);
		assert_int_equal(first, cases[i].first);
		assert_int_equal(count, cases[i].count);
	}
}

/* ---- secrets and approvals ---- */

static void secrets_are_stable_until_released(void **state)
{
	struct store *s = open_store(*state);
	cleanup_error struct error err = ERROR_INIT;
	char *a = NULL, *b = NULL, *c = NULL, *d = NULL;
	ok(store_secret(s, "ns", "db.password", &a, &err), &err);
	ok(store_secret(s, "ns", "db.password", &b, &err), &err);
	ok(store_secret(s, "ns", "other", &c, &err), &err);
	assert_string_equal(a, b);
	assert_string_not_equal(a, c);
	assert_int_equal(strlen(a), 24);
	assert_int_equal(strspn(a, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"), 24);
	assert_true(a[0] != '-' && a[0] != '_');
	ok(store_secrets_release(s, "ns", &err), &err);
	ok(store_secret(s, "ns", "db.password", &d, &err), &err);
	assert_string_not_equal(a, d);
	free(a);
	free(b);
	free(c);
	free(d);
	store_close(s);
}

static void approvals_are_of_the_exact_text(void **state)
{
	struct store *s = open_store(*state);
	cleanup_error struct error err = ERROR_INIT;
	const char *text = "command: [sh, -c, 'echo \xc3\xa9']\n";
	assert_int_equal(store_is_approved(s, "/r", text, &err), 0);
	ok(store_approve(s, "/r", text, "[]", &err), &err);
	ok(store_approve(s, "/r", text, "[]", &err), &err);
	assert_int_equal(store_is_approved(s, "/r", text, &err), 1);
	assert_int_equal(store_is_approved(s, "/r", "command: [sh, -c, 'echo \xc3\xa9'] \n", &err), 0);
	assert_int_equal(store_is_approved(s, "/other", text, &err), 0);
	for (int i = 0; i < 300; i++) {
		cleanup_free char *other = xasprintf("text %d", i);
		ok(store_approve(s, "/r2", other, "[]", &err), &err);
		assert_int_equal(store_is_approved(s, "/r2", other, &err), 1); /* even when many share a millisecond */
	}
	int kept = 0;
	for (int i = 0; i < 300; i++) {
		cleanup_free char *other = xasprintf("text %d", i);
		kept += store_is_approved(s, "/r2", other, &err);
	}
	assert_int_equal(kept, 100);
	assert_int_equal(store_is_approved(s, "/r", text, &err), 1);
	store_close(s);
}

/* ---- the file ---- */

static void the_file_is_private(void **state)
{
	mode_t old = umask(0);
	store_close(open_store(*state));
	struct store *s = open_store(*state);
	umask(old);
	static const char *const names[] = {"aether.db", "aether.db-wal", "aether.db-shm"};
	cleanup_error struct error err = ERROR_INIT;
	ok(store_approve(s, "/r", "x", "[]", &err), &err);
	for (size_t i = 0; i < 3; i++) {
		cleanup_free char *path = xasprintf("%s/%s", (char *)*state, names[i]);
		struct stat st;
		assert_int_equal(stat(path, &st), 0); /* the last two say that it is WAL */
		assert_int_equal(st.st_mode & 07777, 0600);
	}
	store_close(s);
}

/* Two handles in one process: opening the second must not drop the first one's locks. */
static void two_handles_of_one_process(void **state)
{
	struct store *a = open_store(*state);
	struct store *b = open_store(*state);
	cleanup_error struct error err = ERROR_INIT;
	ok(store_approve(a, "/r", "x", "[]", &err), &err);
	assert_int_equal(store_is_approved(b, "/r", "x", &err), 1);
	store_close(b);
	ok(store_approve(a, "/r", "y", "[]", &err), &err);
	store_close(a);
}

static void run_sql(const char *dir, const char *sql)
{
	cleanup_free char *path = xasprintf("%s/aether.db", dir);
	sqlite3 *db = NULL;
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
}

static void damaged_files_are_reported_and_kept(void **state)
{
	cleanup_free char *path = xasprintf("%s/aether.db", (char *)*state);
	cleanup_free char *rubbish = xcalloc(1, 8192);
	memset(rubbish, 'x', 8192);
	assert_int_equal(file_write_atomic(AT_FDCWD, path, rubbish, 8192, 0600), 0);
	struct store *s = NULL;
	cleanup_error struct error err = ERROR_INIT;
	assert_int_equal(store_open(*state, &s, &err), -EIO);
	assert_int_equal(err.code, ERROR_STORE_FAILED);
	assert_non_null(strstr(err.message, path));
	assert_non_null(strstr(err.hint, "mv "));
	cleanup_buffer struct buffer b = BUFFER_INIT;
	assert_int_equal(file_read(AT_FDCWD, path, 1 << 20, &b), 0);
	assert_int_equal(b.len, 8192);
	assert_memory_equal(b.data, rubbish, 8192);
	assert_int_equal(store_open(*state, &s, NULL), -EIO);
}

static void damage_within_is_reported(void **state)
{
	struct store *s = open_store(*state);
	cleanup_error struct error err = ERROR_INIT;
	for (int i = 0; i < 200; i++) {
		cleanup_free char *name = xasprintf("ns-%d", i);
		struct store_environment e = sample(name);
		ok(store_environment_put(s, &e, false, &err), &err);
	}
	store_close(s);
	run_sql(*state, "PRAGMA wal_checkpoint(TRUNCATE)");
	cleanup_free char *path = xasprintf("%s/aether.db", (char *)*state);
	int fd = open(path, O_WRONLY);
	char rubbish[4096];
	memset(rubbish, 0x5a, sizeof rubbish);
	struct stat st;
	fstat(fd, &st);
	for (off_t at = 4096; at < st.st_size; at += 4096)
		assert_int_equal(pwrite(fd, rubbish, sizeof rubbish, at), 4096);
	close(fd);
	struct store_environment *list = NULL;
	size_t count = 0;
	int r = store_open(*state, &s, &err);
	if (r == 0) {
		r = store_environment_list(s, &list, &count, &err);
		store_close(s);
	}
	assert_int_equal(r, -EIO);
	assert_int_equal(err.code, ERROR_STORE_FAILED);
	assert_non_null(err.hint);
}

static void newer_files_are_refused(void **state)
{
	store_close(open_store(*state));
	run_sql(*state, "PRAGMA user_version=99");
	struct store *s = NULL;
	cleanup_error struct error err = ERROR_INIT;
	assert_int_equal(store_open(*state, &s, &err), -EIO);
	assert_int_equal(err.code, ERROR_STORE_FAILED);
	assert_non_null(strstr(err.message, "newer"));
}

static void unwritable_places_are_reported(void **state)
{
	struct store *s = NULL;
	cleanup_error struct error err = ERROR_INIT;
	cleanup_free char *file = xasprintf("%s/file", (char *)*state), *below = xasprintf("%s/state", file);
	file_write_atomic(AT_FDCWD, file, "", 0, 0600);
	assert_int_equal(store_open(below, &s, &err), -ENOTDIR);
	assert_int_equal(err.code, ERROR_STORE_FAILED);
	cleanup_free char *dir = xasprintf("%s/dir", (char *)*state), *database = xasprintf("%s/aether.db", dir);
	dir_make(AT_FDCWD, database, 0700); /* a directory where the file should be */
	assert_true(store_open(dir, &s, &err) < 0);
	assert_int_equal(err.code, ERROR_STORE_FAILED);
	assert_non_null(err.hint);
}

/* In a child with a mount namespace of its own: 0 passed, 77 cannot be tried here. */
static int on_a_full_disk(const char *dir)
{
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("tmpfs", dir, "tmpfs", 0, "size=256k"))
		return 77;
	struct store *s = NULL;
	struct error err = ERROR_INIT;
	if (store_open(dir, &s, &err))
		return report(&err, 1);
	cleanup_free char *text = xcalloc(1, 20001);
	memset(text, 't', 20000);
	int r = 0;
	for (int i = 0; r == 0 && i < 1000; i++) {
		cleanup_free char *repository = xasprintf("/r%d", i);
		r = store_approve(s, repository, "hash", text, &err);
	}
	if (r != -ENOSPC || err.code != ERROR_NO_SPACE || !err.hint)
		return report(&err, 2);
	/* what was there can still be read, and the handle lives on once there is room */
	if (store_is_approved(s, "/r0", "hash", &err) != 1)
		return report(&err, 3);
	if (mount("tmpfs", dir, "tmpfs", MS_REMOUNT, "size=4m") || store_approve(s, "/later", "x", "[]", &err))
		return report(&err, 4);
	store_close(s);
	umount(dir);
	return 0;
}

static void a_full_disk_is_reported(void **state)
{
	pid_t pid = fork();
	if (pid == 0)
		_exit(on_a_full_disk(*state));
	int status;
	waitpid(pid, &status, 0);
	if (WEXITSTATUS(status) == 77) {
		printf("skip: a_full_disk_is_reported: only root can mount\n");
		skip();
	}
	assert_int_equal(status, 0);
}

/* ---- trash rows ---- */

static void trash_rows(void **state)
{
	struct store *s = open_store(*state);
	cleanup_error struct error err = ERROR_INIT;
	char *services[] = {(char *)"db", (char *)"c\xc3\xa9", NULL}, *path = NULL;
	struct trash_entry e = {.namespace_ = (char *)"ns",
	                        .root = (char *)"/w",
	                        .workspace = (char *)"w",
	                        .generation = 3,
	                        .services = services,
	                        .has_env = true},
	                   *list = NULL;
	int64_t first = 0, second = 0;
	size_t count = 0;
	ok(store_trash_begin(s, &e, &first, &path, &err), &err);
	cleanup_free char *expected = xasprintf("%s/trash/%lld", (char *)*state, (long long)first);
	assert_string_equal(path, expected);
	free(path);
	ok(store_trash_list(s, NULL, &list, &count, &err), &err);
	assert_int_equal(count, 0);
	free(list);
	ok(store_trash_commit(s, first, 4096, &err), &err);
	ok(store_trash_begin(s, &e, &second, &path, &err), &err);
	free(path);
	ok(store_trash_commit(s, second, 1, &err), &err);
	ok(store_trash_list(s, "ns", &list, &count, &err), &err);
	assert_int_equal(count, 2);
	assert_int_equal(list[0].id, second); /* newest first */
	assert_int_equal(list[1].bytes, 4096);
	assert_int_equal(list[1].generation, 3);
	assert_true(list[1].has_env);
	assert_string_equal(list[1].services[1], "c\xc3\xa9");
	assert_null(list[1].services[2]);
	trash_entries_free(list, count);
	ok(store_trash_list(s, "other", &list, &count, &err), &err);
	assert_int_equal(count, 0);
	free(list);
	/* an id does not come back */
	ok(store_trash_delete(s, second, &err), &err);
	ok(store_trash_begin(s, &e, &first, &path, &err), &err);
	free(path);
	assert_true(first > second);
	assert_int_equal(store_trash_commit(s, 999, 1, &err), -ENOENT);
	assert_int_equal(err.code, ERROR_TRASH_NOT_FOUND);
	store_close(s);
}

#define test(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    test(hundred_processes_on_a_fresh_directory),
	    test(no_port_is_leased_twice),
	    test(racing_processes_get_one_secret),
	    test(environments_are_kept),
	    test(deleting_an_environment_frees_all_of_it),
	    test(users_are_leased_under_root),
	    test(ports_are_stable_and_distinct),
	    test(preferred_ports_come_first),
	    test(a_port_that_is_led_elsewhere_is_nobodys),
	    test(ports_of_foreigners_are_passed_over),
	    test(all_or_none_when_the_range_is_exhausted),
	    test(range_avoids_the_kernels),
	    test(secrets_are_stable_until_released),
	    test(approvals_are_of_the_exact_text),
	    test(the_file_is_private),
	    test(two_handles_of_one_process),
	    test(damaged_files_are_reported_and_kept),
	    test(damage_within_is_reported),
	    test(newer_files_are_refused),
	    test(unwritable_places_are_reported),
	    test(a_full_disk_is_reported),
	    test(trash_rows),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
