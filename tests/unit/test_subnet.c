/* An address of the file's subnet has the same place in another one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "backends/subnet.h"
#include "base/cleanup.h"

static void addresses_keep_their_place(void **state)
{
	static const struct {
		const char *address, *from, *to, *moved;
	} cases[] = {
	    {"172.28.0.5", "172.28.0.0/16", "172.20.0.0/16", "172.20.0.5"},
	    {"172.28.1.7", "172.28.0.0/16", "192.168.16.0/20", "192.168.17.7"},
	    {"172.28.0.5", "172.28.0.0/16", "10.89.3.0/24", "10.89.3.5"},
	    {"172.28.0.5", "172.28.0.5/16", "10.89.3.7/24", "10.89.3.5"}, /* as people write them */
	    {"172.28.1.5", "172.28.0.0/16", "10.89.3.0/24", NULL},
	    {"172.28.0.255", "172.28.0.0/16", "10.89.3.0/24", NULL},
	    {"172.28.0.254", "172.28.0.0/16", "10.89.3.0/24", "10.89.3.254"},
	    {"172.28.0.5", "172.28.0.0/16", "172.28.0.0/16", "172.28.0.5"},
	    {"172.29.0.5", "172.28.0.0/16", "172.20.0.0/16", NULL},
	    {"fd00::5", "172.28.0.0/16", "172.20.0.0/16", NULL},
	    {"172.28.0.5", "fd00::/64", "172.20.0.0/16", NULL},
	    {"172.28.0.5", "172.28.0.0", "172.20.0.0/16", NULL},
	    {"172.28.0.5", "172.28.0.0/33", "172.20.0.0/16", NULL},
	    {"172.28.0", "172.28.0.0/16", "172.20.0.0/16", NULL},
	    {"255.255.255.254", "0.0.0.0/0", "0.0.0.0/0", "255.255.255.254"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		cleanup_free char *moved = subnet_moved(cases[i].address, cases[i].from, cases[i].to);
		if (cases[i].moved)
			assert_string_equal(moved ? moved : "none", cases[i].moved);
		else
			assert_null(moved);
	}
}

static void parts_keep_theirs(void **state)
{
	cleanup_free char *fits = subnet_moved_part("172.28.5.0/24", "172.28.0.0/16", "192.168.16.0/20");
	assert_string_equal(fits, "192.168.21.0/24");
	assert_null(subnet_moved_part("172.28.5.0/24", "172.28.0.0/16", "10.89.3.0/24"));
	assert_null(subnet_moved_part("172.28.0.0/15", "172.28.0.0/16", "10.0.0.0/8"));
	assert_true(subnet_is("10.0.0.0/8"));
	assert_false(subnet_is("fd00::/8"));
	assert_false(subnet_is(NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(addresses_keep_their_place), cmocka_unit_test(parts_keep_theirs)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
