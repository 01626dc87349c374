/* fs/unlinked: who finds a virtual name absent, and for how long. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/unlinked.h"

static void absent_for_the_one_that_deleted(void **state)
{
	struct unlinked *u = unlinked_new();
	assert_false(unlinked_any(u, ".env"));
	unlinked_add(u, ".env", 100);
	assert_true(unlinked_any(u, ".env"));
	assert_true(unlinked_hides(u, ".env", 100));
	assert_false(unlinked_hides(u, ".env", 101));
	assert_false(unlinked_hides(u, ".aether", 100));
	assert_false(unlinked_any(u, ".aether"));
	unlinked_free(u);
}

static void until_it_is_created(void **state)
{
	struct unlinked *u = unlinked_new();
	unlinked_add(u, ".env", 100);
	unlinked_add(u, ".env", 200);
	assert_false(unlinked_take(u, ".env", 300));
	assert_true(unlinked_take(u, ".env", 100));
	assert_false(unlinked_take(u, ".env", 100));
	assert_false(unlinked_hides(u, ".env", 100));
	assert_true(unlinked_hides(u, ".env", 200));
	assert_true(unlinked_any(u, ".env"));
	unlinked_free(u);
}

static void until_its_time_is_over(void **state)
{
	struct unlinked *u = unlinked_new();
	unlinked_add(u, ".env", 100);
	usleep(600 * 1000);
	unlinked_add(u, ".env", 100); /* begins anew */
	unlinked_add(u, ".aether", 100);
	usleep(600 * 1000);
	assert_true(unlinked_hides(u, ".env", 100));
	usleep(500 * 1000);
	assert_false(unlinked_hides(u, ".env", 100));
	assert_false(unlinked_take(u, ".env", 100));
	assert_false(unlinked_any(u, ".env"));
	assert_false(unlinked_any(u, ".aether"));
	unlinked_free(u);
}

static void the_oldest_is_forgotten_first(void **state)
{
	struct unlinked *u = unlinked_new();
	for (pid_t p = 1; p <= UNLINKED_MAX; p++) {
		unlinked_add(u, ".env", p);
		if (p == 1)
			usleep(5000);
	}
	assert_true(unlinked_hides(u, ".env", 1));
	unlinked_add(u, ".env", 9999);
	assert_false(unlinked_hides(u, ".env", 1));
	assert_true(unlinked_hides(u, ".env", 2));
	assert_true(unlinked_hides(u, ".env", 9999));
	unlinked_free(u);
}

/* A process of another pid namespace has number 0: it must not hide the name from all others of that kind. */
static void nobody_in_particular_has_no_view(void **state)
{
	struct unlinked *u = unlinked_new();
	unlinked_add(u, ".env", 0);
	assert_false(unlinked_any(u, ".env"));
	assert_false(unlinked_hides(u, ".env", 0));
	unlinked_add(u, ".env", 7);
	assert_false(unlinked_hides(u, ".env", 0));
	assert_false(unlinked_take(u, ".env", 0));
	assert_true(unlinked_hides(u, ".env", 7));
	unlinked_free(u);
}

static void *own_tid(void *arg)
{
	pid_t tid = (pid_t)syscall(SYS_gettid);
	*(pid_t *)arg = tid == getpid() ? -1 : thread_group(tid);
	return NULL;
}

static void a_thread_belongs_to_its_process(void **state)
{
	pthread_t t;
	pid_t group = 0;
	assert_int_equal(pthread_create(&t, NULL, own_tid, &group), 0);
	pthread_join(t, NULL);
	assert_int_equal(group, getpid());
	assert_int_equal(thread_group(getpid()), getpid());
	assert_int_equal(thread_group(1 << 30), 1 << 30);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(absent_for_the_one_that_deleted),
		cmocka_unit_test(until_it_is_created),
		cmocka_unit_test(until_its_time_is_over),
		cmocka_unit_test(the_oldest_is_forgotten_first),
		cmocka_unit_test(nobody_in_particular_has_no_view),
		cmocka_unit_test(a_thread_belongs_to_its_process),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
