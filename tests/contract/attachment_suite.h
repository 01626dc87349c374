/* Programs beside a service that runs (backends/attachment.h), over every backend. Included by backend_suite.h alone. */
#include "backends/attachment.h"

struct heard {
	struct buffer out, err;
};

static void heard_release(struct heard *h)
{
	buffer_release(&h->out);
	buffer_release(&h->err);
}
#define HEARD __attribute__((cleanup(heard_release))) struct heard

static void hear(void *arg, int stream, const char *data, size_t len)
{
	struct heard *h = arg;
	buffer_add(stream == ATTACHMENT_ERR ? &h->err : &h->out, data, len);
}

static char *engine_address(const struct world *w)
{
	char *address = NULL;
	cleanup_free char *from = NULL;
	cleanup_error struct error err = ERROR_INIT;
	if (is_engine(w) && backend_locate(w->target, false, &address, &from, &err))
		fail_msg("%s", err.message);
	return address;
}

static int attach_spec(struct world *w, struct attachment_spec *spec, struct attachment **ret, struct error *err)
{
	cleanup_free char *address = engine_address(w);
	spec->address = address;
	spec->namespace_ = "aether-contract-test";
	spec->state_dir = w->state;
	spec->uid = geteuid() ? (uid_t)-1 : SERVICES_UID;
	spec->service = "db";
	signal(SIGPIPE, SIG_IGN);
	return attachment_open(w->target, spec, ret, err);
}

static struct attachment *attach_shell(struct world *w, const char *script, bool terminal)
{
	char *const argv[] = {(char *)"sh", (char *)"-c", (char *)script, NULL};
	struct attachment_spec spec = {.argv = argv, .terminal = terminal, .rows = 31, .columns = 97};
	struct attachment *a = NULL;
	cleanup_error struct error err = ERROR_INIT;
	if (attach_spec(w, &spec, &a, &err))
		fail_msg("%s", err.message);
	return a;
}

/* Gives it `input`, and its end unless `open`, and takes what it writes, until that ends or `until` stands in it. */
static void talk(struct attachment *a, const char *input, size_t len, bool open, const char *until, struct heard *h)
{
	uint64_t limit = now_monotonic_ms() + WAIT_MS;
	bool ended = open;
	for (;;) {
		struct pollfd fds[ATTACHMENT_FDS_MAX];
		size_t n = a->ops->fds(a, len > 0, fds);
		poll(fds, n, 100);
		ssize_t taken = len ? a->ops->write(a, input, len) : 0;
		assert_true(taken >= 0 || taken == -EAGAIN);
		if (taken > 0) {
			input += taken;
			len -= (size_t)taken;
		}
		if (!len && !ended) {
			assert_int_equal(a->ops->end_input(a), 0);
			ended = true;
		}
		int r = a->ops->read(a, hear, h);
		if (r <= 0 || (until && strstr(buffer_str(&h->out), until)))
			return;
		if (now_monotonic_ms() > limit)
			fail_msg("heard: %s", buffer_str(&h->out));
	}
}

static int end_of(struct attachment *a)
{
	int code = -1;
	cleanup_error struct error err = ERROR_INIT;
	int r = a->ops->wait(a, 10000, &code, &err);
	if (r)
		fail_msg("%d %s", r, err.message ? err.message : "");
	attachment_close(a);
	return code;
}

static int run_shell(struct world *w, const char *script, const char *input, struct heard *h)
{
	struct attachment *a = attach_shell(w, script, false);
	talk(a, input, strlen(input), false, NULL, h);
	return end_of(a);
}

static void start_db(struct world *w)
{
	SERVICE s;
	service_init(&s, "db", FOREVER);
	keyvals_set(&s.env, "OF_SERVICE", "yes");
	start(w, &s);
}

static void beside_a_service_streams_are_apart(void **state)
{
	struct world *w = *state;
	start_db(w);
	HEARD h = {BUFFER_INIT, BUFFER_INIT};
	assert_int_equal(run_shell(w, "echo out; echo err >&2; cat; exit 7", "in\n", &h), 7);
	assert_string_equal(buffer_str(&h.out), "out\nin\n");
	assert_string_equal(buffer_str(&h.err), "err\n");
	HEARD none = {BUFFER_INIT, BUFFER_INIT};
	assert_int_equal(run_shell(w, "kill -9 $$", "", &none), 137);
	assert_int_equal(w->changes, 0); /* the service has heard nothing of it */
}

static void beside_a_service_bytes_stay_what_they_are(void **state)
{
	struct world *w = *state;
	enum { LEN = 3 << 20 };
	cleanup_free char *bytes = xcalloc(1, LEN);
	start_db(w);
	for (uint32_t i = 0, x = 1; i < LEN; i++, x = x * 1664525 + 1013904223)
		bytes[i] = (char)(x >> 24);
	HEARD h = {BUFFER_INIT, BUFFER_INIT};
	struct attachment *a = attach_shell(w, "cat", false);
	talk(a, bytes, LEN, false, NULL, &h);
	assert_int_equal(end_of(a), 0);
	assert_int_equal(h.out.len, LEN);
	assert_memory_equal(h.out.data, bytes, LEN);
	assert_int_equal(h.err.len, 0);
}

static void beside_a_service_is_its_environment(void **state)
{
	struct world *w = *state;
	cleanup_keyvals struct keyvals env = KEYVALS_INIT, defaults = KEYVALS_INIT;
	start_db(w);
	keyvals_set(&env, "OVER", "a b=c");
	keyvals_set(&defaults, "BENEATH", "beneath");
	keyvals_set(&defaults, "OF_SERVICE", "never");
	char *const argv[] = {(char *)"sh", (char *)"-c", (char *)"echo $OF_SERVICE,$OVER,$BENEATH,$PWD", NULL};
	struct attachment_spec spec = {.argv = argv, .env = &env, .defaults = &defaults, .directory = "/usr"};
	struct attachment *a = NULL;
	cleanup_error struct error err = ERROR_INIT;
	HEARD h = {BUFFER_INIT, BUFFER_INIT};
	if (attach_spec(w, &spec, &a, &err))
		fail_msg("%s", err.message);
	talk(a, "", 0, false, NULL, &h);
	assert_int_equal(end_of(a), 0);
	assert_string_equal(buffer_str(&h.out), "yes,a b=c,beneath,/usr\n");
}

static void beside_a_service_is_a_terminal(void **state)
{
	struct world *w = *state;
	start_db(w);
	HEARD h = {BUFFER_INIT, BUFFER_INIT};
	struct attachment *a = attach_shell(w, "trap 'echo changed' WINCH; tty -s && echo err >&2; until stty size | grep -q '31 97'; do sleep 0.05; done; stty size; "
	                              "read x; stty size; read y; echo got-$x-$y; exit 5", true);
	talk(a, "", 0, true, "31 97", &h); /* an engine tells it a moment after the start */
	assert_non_null(strstr(buffer_str(&h.out), "err"));
	assert_int_equal(a->ops->resize(a, 44, 133), 0);
	talk(a, "one\n", 4, true, "44 133", &h);
	talk(a, "two\n", 4, true, "got-one-two", &h);
	talk(a, "", 0, true, NULL, &h);
	assert_int_equal(h.err.len, 0); /* a terminal has one stream */
	assert_int_equal(end_of(a), 5);

	HEARD key = {BUFFER_INIT, BUFFER_INIT};
	a = attach_shell(w, "echo begun; sleep 1000", true);
	talk(a, "", 0, true, "begun", &key);
	nap(w, 100); /* for sleep to have the terminal */
	talk(a, "\003", 1, true, NULL, &key);
	assert_int_equal(end_of(a), 130);
}

static void beside_a_service_signals_arrive(void **state)
{
	struct world *w = *state;
	start_db(w);
	HEARD h = {BUFFER_INIT, BUFFER_INIT};
	struct attachment *a = attach_shell(w, "trap 'echo heard; exit 3' TERM; echo begun; while :; do sleep 0.05; done", false);
	talk(a, "", 0, true, "begun", &h);
	assert_int_equal(a->ops->signal(a, SIGTERM), 0);
	talk(a, "", 0, true, NULL, &h);
	assert_non_null(strstr(buffer_str(&h.out), "heard"));
	assert_int_equal(end_of(a), 3);
}

/* Either it is not opened, or it ends as a shell says it. */
static int failing(struct world *w, char *const *argv, const char *directory)
{
	struct attachment_spec spec = {.argv = argv, .directory = directory};
	struct attachment *a = NULL;
	cleanup_error struct error err = ERROR_INIT;
	HEARD h = {BUFFER_INIT, BUFFER_INIT};
	if (attach_spec(w, &spec, &a, &err)) {
		assert_true(error_is_set(&err));
		return err.code == ERROR_PROGRAM_NOT_FOUND ? 127 : 126;
	}
	talk(a, "", 0, false, NULL, &h);
	return end_of(a);
}

static void beside_a_service_what_cannot_be_run_says_so(void **state)
{
	struct world *w = *state;
	start_db(w);
	assert_in_range(failing(w, (char *[]){(char *)"no-such-program", NULL}, NULL), 126, 127);
	assert_int_equal(failing(w, (char *[]){(char *)"/etc", NULL}, NULL), 126);
	struct attachment_spec spec = {.argv = (char *[]){NULL}};
	struct attachment *a = NULL;
	cleanup_error struct error err = ERROR_INIT;
	assert_true(attach_spec(w, &spec, &a, &err) < 0);
	assert_int_equal(err.code, ERROR_USAGE);
}

static void beside_a_service_that_ends(void **state)
{
	struct world *w = *state;
	char *const argv[] = {(char *)"true", NULL};
	struct attachment_spec spec = {.argv = argv};
	struct attachment *a = NULL;
	cleanup_error struct error before = ERROR_INIT, after = ERROR_INIT;
	assert_true(attach_spec(w, &spec, &a, &before) < 0);
	assert_int_equal(before.code, ERROR_SERVICE_FAILED);
	assert_non_null(strstr(before.message, "does not run"));
	start_db(w);
	HEARD h = {BUFFER_INIT, BUFFER_INIT};
	a = strcmp(w->target, "memory") ? attach_shell(w, "echo begun; sleep 1000", false) : NULL; /* a service there is no place */
	if (a)
		talk(a, "", 0, true, "begun", &h);
	stop(w, "db", SIGTERM, 1000);
	if (a) {
		int code = 0;
		cleanup_error struct error err = ERROR_INIT;
		talk(a, "", 0, true, NULL, &h);
		int r = a->ops->wait(a, 10000, &code, &err);
		assert_true(r ? error_is_set(&err) : code != 0);
		attachment_close(move_ptr(a));
	}
	assert_true(attach_spec(w, &spec, &a, &after) < 0);
	assert_int_equal(after.code, ERROR_SERVICE_FAILED);
}

static void beside_a_service_its_reader_goes_away(void **state)
{
	struct world *w = *state;
	start_db(w);
	struct attachment *a = attach_shell(w, "yes", false);
	HEARD h = {BUFFER_INIT, BUFFER_INIT};
	talk(a, "", 0, true, "y\ny\n", &h);
	a->ops->signal(a, SIGPIPE);
	attachment_close(a);
	HEARD ps = {BUFFER_INIT, BUFFER_INIT};
	nap(w, 300);
	assert_int_equal(run_shell(w, "cat", "x", &ps), 0);
	assert_string_equal(buffer_str(&ps.out), "x");
}
