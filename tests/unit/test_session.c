/* The session against a kernel of our own: the other end of a socket pair that keeps packets apart, as /dev/fuse does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fs/session.h"

#define RESENT (UINT64_C(1) << 63)
#define BIT(n) (UINT64_C(1) << (n))
enum { EXT = 30, KILLPRIV_V2 = 28, PASSTHROUGH = 37, HAS_RESEND = 39, INIT_UNIQUE = 2 };

struct kernel {
	int device, end; /* the session's side, and the kernel's */
	struct shared *shared;
	struct session *session;
};

static unsigned statfs_calls;
static bool statfs_was_resent;

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	statfs_calls++;
	statfs_was_resent = session_request_resent();
	fuse_reply_err(req, 0);
}

static const struct fuse_lowlevel_ops ops = {.statfs = op_statfs};

static void say_init(struct kernel *k, uint64_t unique, uint64_t flags)
{
	struct {
		struct fuse_in_header h;
		struct fuse_init_in in;
	} m = {.h = {.len = sizeof m, .opcode = FUSE_INIT, .unique = unique},
	       .in = {.major = FUSE_KERNEL_VERSION, .minor = 36, .max_readahead = 131072, .flags = (uint32_t)flags,
	              .flags2 = (uint32_t)(flags >> 32)}};
	assert_int_equal(write(k->end, &m, sizeof m), sizeof m);
}

static void say_statfs(struct kernel *k, uint64_t unique)
{
	struct fuse_in_header h = {.len = sizeof h, .opcode = FUSE_STATFS, .unique = unique, .nodeid = 1};
	assert_int_equal(write(k->end, &h, sizeof h), sizeof h);
}

struct reply {
	struct fuse_out_header h;
	char body[256];
};

static bool hear(struct kernel *k, struct reply *ret)
{
	return recv(k->end, ret, sizeof *ret, MSG_DONTWAIT) >= (ssize_t)sizeof ret->h;
}

static uint64_t flags_of(const struct reply *r)
{
	const struct fuse_init_out *out = (const void *)r->body;
	return out->flags | (uint64_t)out->flags2 << 32;
}

static int start(struct kernel *k, struct error *err)
{
	return session_new(k->device, SESSION_OVERLAY, k->shared, &ops, sizeof ops, NULL, &k->session, err);
}

static int set_up(void **state)
{
	struct kernel *k = calloc(1, sizeof *k);
	int pair[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	k->device = pair[0];
	k->end = pair[1];
	fcntl(k->device, F_SETFL, O_NONBLOCK);
	k->shared = mmap(NULL, sizeof *k->shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	statfs_calls = 0;
	*state = k;
	return 0;
}

static int tear_down(void **state)
{
	struct kernel *k = *state;
	session_free(k->session);
	close(k->device); /* when libfuse did not: EBADF */
	close(k->end);
	munmap(k->shared, sizeof *k->shared);
	free(k);
	return 0;
}

/* The server dies: what it had allocated goes, the descriptor stays with the keeper. */
static void die(struct kernel *k)
{
	int kept = fcntl(k->device, F_DUPFD_CLOEXEC, 100);
	session_free(k->session);
	k->session = NULL;
	close(k->device);
	k->device = kept;
}

static void started(struct kernel *k, uint64_t flags, struct reply *init)
{
	say_init(k, INIT_UNIQUE, flags);
	assert_int_equal(start(k, NULL), 0);
	assert_true(hear(k, init));
	assert_int_equal(init->h.unique, INIT_UNIQUE);
	assert_int_equal(init->h.error, 0);
}

/* session_new answers INIT itself: what comes after can be taken over */
static void init_is_answered_and_stored(void **state)
{
	struct kernel *k = *state;
	struct reply r;
	started(k, BIT(EXT) | BIT(KILLPRIV_V2) | BIT(PASSTHROUGH) | BIT(HAS_RESEND), &r);
	assert_int_equal(flags_of(&r) & (BIT(EXT) | BIT(KILLPRIV_V2) | BIT(HAS_RESEND)), BIT(EXT) | BIT(KILLPRIV_V2) | BIT(HAS_RESEND));
	assert_int_equal(flags_of(&r) & BIT(PASSTHROUGH), 0); /* not asked for */
	assert_int_equal(k->shared->init[SESSION_OVERLAY].len, sizeof(struct fuse_in_header) + sizeof(struct fuse_init_in));
	assert_false(hear(k, &r));
}

static void only_what_the_kernel_offers(void **state)
{
	struct kernel *k = *state;
	struct reply r;
	started(k, 0, &r);
	assert_int_equal(flags_of(&r) & (BIT(EXT) | BIT(KILLPRIV_V2) | BIT(HAS_RESEND)), 0);
}

/* a new server says the same again, which the kernel drops, or needs when the first died before it could */
static void init_is_said_again(void **state)
{
	struct kernel *k = *state;
	struct reply first, second, resend;
	started(k, BIT(EXT) | BIT(HAS_RESEND), &first);
	die(k);
	assert_int_equal(start(k, NULL), 0);
	assert_true(hear(k, &second));
	assert_memory_equal(&first, &second, first.h.len);
	assert_true(hear(k, &resend));
	assert_int_equal(resend.h.len, sizeof resend.h);
	assert_int_equal(resend.h.unique, 0);
	assert_int_equal(resend.h.error, 7); /* FUSE_NOTIFY_RESEND */
	assert_false(hear(k, &resend));
}

static void a_mount_that_is_gone_again(void **state)
{
	struct kernel *k = *state;
	cleanup_error struct error err = ERROR_INIT;
	shutdown(k->end, SHUT_WR); /* as a mount that is gone: readable at once */
	assert_int_equal(start(k, &err), 0);
	assert_int_equal(session_process(k->session), -ENODEV);
}

static void requests_are_processed(void **state)
{
	struct kernel *k = *state;
	struct reply r;
	started(k, BIT(EXT) | BIT(HAS_RESEND), &r);
	say_statfs(k, 4);
	say_statfs(k, 6 | RESENT);
	assert_int_equal(session_process(k->session), 0);
	assert_int_equal(statfs_calls, 2);
	assert_true(statfs_was_resent);
	assert_true(hear(k, &r));
	assert_int_equal(r.h.unique, 4);
	assert_true(hear(k, &r));
	assert_int_equal(r.h.unique, 6 | RESENT); /* the kernel looks for it with the mark */
	say_statfs(k, 8);
	assert_int_equal(session_process(k->session), 0);
	assert_false(statfs_was_resent);
	assert_int_equal(k->shared->handling[SESSION_OVERLAY][0], 0);
}

/* A server takes the request and dies with it. */
static void die_handling(struct kernel *k, uint64_t unique, bool fault)
{
	struct reply r;
	k->shared->handling[SESSION_OVERLAY][3] = unique;
	k->shared->faulted = fault;
	die(k);
	assert_int_equal(start(k, NULL), 0);
	while (hear(k, &r))
		;
}

static int answer_of(struct kernel *k, uint64_t unique)
{
	struct reply r;
	say_statfs(k, unique);
	assert_int_equal(session_process(k->session), 0);
	assert_true(hear(k, &r));
	assert_int_equal(r.h.unique, unique);
	return r.h.error;
}

static void what_kills_two_servers_fails_alone(void **state)
{
	struct kernel *k = *state;
	struct reply r;
	started(k, BIT(EXT) | BIT(HAS_RESEND), &r);
	die_handling(k, 10, true);
	assert_int_equal(k->shared->handling[SESSION_OVERLAY][3], 0);
	assert_int_equal(answer_of(k, 10 | RESENT), 0);
	die_handling(k, 10, true);
	say_statfs(k, 10 | RESENT);
	say_statfs(k, 12 | RESENT);
	statfs_calls = 0;
	assert_int_equal(session_process(k->session), 0);
	assert_int_equal(statfs_calls, 1);
	assert_true(hear(k, &r));
	assert_int_equal(r.h.unique, 10 | RESENT);
	assert_int_equal(r.h.error, -EIO);
	assert_true(hear(k, &r));
	assert_int_equal(r.h.unique, 12 | RESENT);
	assert_int_equal(r.h.error, 0);
}

/* kill -9 says nothing about a request */
static void being_killed_accuses_nobody(void **state)
{
	struct kernel *k = *state;
	struct reply r;
	started(k, BIT(EXT) | BIT(HAS_RESEND), &r);
	for (int i = 0; i < 5; i++)
		die_handling(k, 10, false);
	assert_int_equal(answer_of(k, 10 | RESENT), 0);
}

static void suspicions_are_bounded(void **state)
{
	struct kernel *k = *state;
	struct reply r;
	started(k, BIT(EXT) | BIT(HAS_RESEND), &r);
	die_handling(k, 10, true);
	for (uint64_t unique = 100; unique < 100 + 2 * SHARED_SUSPECTS; unique += 2)
		die_handling(k, unique, true);
	die_handling(k, 10, true); /* forgotten meanwhile, so the first time again */
	assert_int_equal(answer_of(k, 10 | RESENT), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(init_is_answered_and_stored), TEST(only_what_the_kernel_offers), TEST(init_is_said_again),
		TEST(a_mount_that_is_gone_again),         TEST(requests_are_processed),      TEST(what_kills_two_servers_fails_alone),
		TEST(being_killed_accuses_nobody), TEST(suspicions_are_bounded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
