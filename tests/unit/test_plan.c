/* The plan: what is wanted and present, and the steps that follow. One line of the table is one situation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "provisioner/plan.h"

/* web -> db (healthy), web -> cache (started), db -> init (completed) */
enum { WEB, DB, CACHE, INIT, COUNT };

static const char *const names[COUNT] = {"web", "db", "cache", "init"};
static const struct plan_dependency of_web[] = {{DB, DEPENDS_HEALTHY}, {CACHE, DEPENDS_STARTED}};
static const struct plan_dependency of_db[] = {{INIT, DEPENDS_COMPLETED}};

#define U GOAL_UP
#define S GOAL_STOPPED
#define A GOAL_ABSENT
#define N GOAL_NONE
#define ABS PRESENT_ABSENT
#define STO PRESENT_STOPPED
#define RUN PRESENT_RUNNING
#define RDY PRESENT_READY
#define DON PRESENT_COMPLETED
#define FAI PRESENT_FAILED

struct situation {
	const char *what;
	enum plan_goal goal[COUNT]; /* web, db, cache, init */
	enum plan_present present[COUNT];
	const char *flags[COUNT]; /* m made, b busy, h held, s stuck, r restart, c recreate; NULL none */
	const char *steps;        /* in order; ! now */
};

static const struct situation table[] = {
    {"nothing is wanted", {N, N, N, N}, {ABS, ABS, ABS, ABS}, {NULL}, ""},
    {"all at once: what depends on nothing begins",
     {U, U, U, U},
     {ABS, ABS, ABS, ABS},
     {NULL},
     "start init! start db start cache! start web"},
    {"running is not completed", {U, U, U, U}, {ABS, ABS, RDY, RUN}, {NULL, NULL, "m", "m"}, "start db start web"},
    {"ready is not completed", {U, U, U, U}, {ABS, ABS, RDY, RDY}, {NULL, NULL, "m", "m"}, "start db start web"},
    {"completed lets the next one go",
     {U, U, U, U},
     {ABS, ABS, RDY, DON},
     {NULL, NULL, "m", "m"},
     "start db! start web"},
    {"started is not healthy", {U, U, U, U}, {ABS, RUN, RDY, DON}, {NULL, "m", "m", "m"}, "start web"},
    {"started is enough where started is asked for",
     {U, U, U, U},
     {ABS, RDY, RUN, DON},
     {NULL, "m", "m", "m"},
     "start web!"},
    {"all is there", {U, U, U, U}, {RDY, RDY, RDY, DON}, {"m", "m", "m", "m"}, ""},
    {"what is under way is not begun again",
     {U, U, U, U},
     {ABS, ABS, ABS, ABS},
     {NULL, NULL, "b", "b"},
     "start init start db start cache start web"},
    {"backing off", {U, U, U, U}, {ABS, ABS, STO, DON}, {NULL, NULL, "mh", "m"}, "start db! start cache start web"},
    {"failed for good is left alone",
     {U, U, U, U},
     {ABS, ABS, FAI, DON},
     {NULL, NULL, "m", "m"},
     "start db! start web"},
    {"an exited one is started again", {U, U, U, U}, {RDY, RDY, STO, DON}, {"m", "m", "m", "m"}, "start cache!"},

    {"down: dependents first",
     {S, S, S, S},
     {RDY, RDY, RDY, DON},
     {"m", "m", "m", "m"},
     "stop web! stop cache stop db"},
    {"down: what is being stopped still holds back",
     {S, S, S, S},
     {RDY, RDY, RDY, DON},
     {"mb", "m", "m", "m"},
     "stop web stop cache stop db"},
    {"down: then the rest at once", {S, S, S, S}, {STO, RDY, RDY, DON}, {"m", "m", "m", "m"}, "stop cache! stop db!"},
    {"down: stopped stays made", {S, S, S, S}, {STO, STO, STO, DON}, {"m", "m", "m", "m"}, ""},
    {"one is stopped though another that stays up needs it",
     {U, S, U, N},
     {RDY, RDY, RDY, DON},
     {"m", "m", "m", "m"},
     "stop db!"},
    {"what is stuck holds nobody back",
     {S, S, S, S},
     {RDY, RDY, RDY, DON},
     {"ms", "m", "m", "m"},
     "stop web stop cache! stop db!"},

    {"teardown: running ones stop, made ones go",
     {A, A, A, A},
     {RDY, RDY, STO, DON},
     {"m", "m", "m", "m"},
     "stop web! remove cache! stop db remove init!"},
    {"teardown: failed ones go too", {A, A, A, A}, {FAI, ABS, ABS, ABS}, {"m", NULL, NULL, NULL}, "remove web!"},
    {"teardown: what was never made is done", {A, A, A, A}, {FAI, ABS, ABS, ABS}, {NULL}, ""},
    {"teardown: what cannot be removed is left",
     {A, A, A, A},
     {STO, RDY, ABS, ABS},
     {"ms", "m", NULL, NULL},
     "remove web stop db!"},

    {"restart: stop first", {U, U, U, U}, {RDY, RDY, RDY, DON}, {"m", "mr", "m", "m"}, "stop db!"},
    {"restart: it is stopped", {U, U, U, U}, {RDY, STO, RDY, DON}, {"m", "m", "m", "m"}, "start db!"},
    {"replaced: who waits for it waits for the new one", {U, U, U, U}, {ABS, RDY, RDY, DON}, {NULL, "mc", "m", "m"}, "stop db! start web"},
    {"replaced: also while it is being stopped", {U, U, U, U}, {ABS, RDY, RDY, DON}, {NULL, "mb", "m", "m"}, "start web"},
    {"replaced: but for what cannot be brought down", {U, U, U, U}, {ABS, RDY, RDY, DON}, {NULL, "mcs", "m", "m"}, "stop db start web!"},
    {"recreate: stop", {U, U, U, U}, {RDY, RDY, RDY, DON}, {"m", "m", "mc", "m"}, "stop cache!"},
    {"recreate: remove", {U, U, U, U}, {RDY, RDY, STO, DON}, {"m", "m", "mc", "m"}, "remove cache!"},
    {"recreate: start", {U, U, U, U}, {RDY, RDY, ABS, DON}, {"m", "m", NULL, "m"}, "start cache!"},
};

/* Who lives in another's network ends with it, and starts after it. */
static void joined_services_follow(void **state)
{
	static const struct plan_dependency in = {1, DEPENDS_STARTED, false, true};
	struct plan_service services[2] = {{.goal = GOAL_UP, .present = PRESENT_READY, .made = true, .depends_on = &in, .n_depends_on = 1},
	                                   {.goal = GOAL_UP, .present = PRESENT_READY, .made = true}};
	struct plan_step steps[2];
	assert_int_equal(plan_steps(services, 2, steps), 0);
	services[1].recreate = true;
	assert_int_equal(plan_steps(services, 2, steps), 2);
	assert_true(steps[0].action == PLAN_STOP && steps[0].now && steps[1].action == PLAN_STOP && steps[1].now);
	services[0].present = PRESENT_STOPPED;
	assert_int_equal(plan_steps(services, 2, steps), 2);
	assert_true(steps[0].service == 1 && steps[0].action == PLAN_STOP);
	assert_true(steps[1].service == 0 && steps[1].action == PLAN_START && !steps[1].now);
	services[1] = (struct plan_service){.goal = GOAL_UP, .present = PRESENT_STOPPED, .made = true, .held = true}; /* it exited */
	services[0].present = PRESENT_READY;
	assert_int_equal(plan_steps(services, 2, steps), 2);
	assert_true(steps[0].service == 0 && steps[0].action == PLAN_STOP && steps[0].now);
	services[0].present = PRESENT_STOPPED;
	services[1] = (struct plan_service){.goal = GOAL_UP, .present = PRESENT_RUNNING, .made = true};
	assert_int_equal(plan_steps(services, 2, steps), 1);
	assert_true(steps[0].service == 0 && steps[0].action == PLAN_START && steps[0].now);
}

static void who_follows_is_restarted_with_the_other(void **state)
{
	static const struct plan_dependency on = {1, DEPENDS_HEALTHY, true};
	struct plan_service services[2] = {{.goal = GOAL_UP, .present = PRESENT_READY, .made = true, .depends_on = &on, .n_depends_on = 1},
	                                   {.goal = GOAL_UP, .present = PRESENT_READY, .made = true, .restart = true}};
	struct plan_step steps[2];
	assert_int_equal(plan_steps(services, 2, steps), 2);
	assert_true(steps[0].service == 0 && steps[0].action == PLAN_STOP && steps[0].now && steps[1].action == PLAN_STOP && steps[1].now);
	services[0].present = services[1].present = PRESENT_STOPPED;
	services[1].restart = false;
	assert_int_equal(plan_steps(services, 2, steps), 2);
	assert_true(steps[0].service == 1 && steps[0].now && steps[1].service == 0 && steps[1].action == PLAN_START && !steps[1].now);
	services[0].present = PRESENT_READY; /* it ended by itself: who depends on it goes on */
	assert_int_equal(plan_steps(services, 2, steps), 1);
	assert_true(steps[0].service == 1 && steps[0].action == PLAN_START);
}

static bool flag(const char *flags, char c)
{
	return flags && strchr(flags, c);
}

static void situations(void **state)
{
	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		const struct situation *t = &table[i];
		struct plan_service services[COUNT] = {0};
		struct plan_step steps[COUNT];
		char got[256] = "";
		for (size_t s = 0; s < COUNT; s++)
			services[s] = (struct plan_service){.goal = t->goal[s],
			                                    .present = t->present[s],
			                                    .made = flag(t->flags[s], 'm'),
			                                    .busy = flag(t->flags[s], 'b'),
			                                    .held = flag(t->flags[s], 'h'),
			                                    .stuck = flag(t->flags[s], 's'),
			                                    .restart = flag(t->flags[s], 'r'),
			                                    .recreate = flag(t->flags[s], 'c')};
		services[WEB].depends_on = of_web;
		services[WEB].n_depends_on = 2;
		services[DB].depends_on = of_db;
		services[DB].n_depends_on = 1;
		size_t n = plan_steps(services, COUNT, steps);
		static const char *const actions[] = {[PLAN_START] = "start", [PLAN_STOP] = "stop", [PLAN_REMOVE] = "remove"};
		for (size_t s = 0; s < n; s++)
			snprintf(got + strlen(got), sizeof got - strlen(got), "%s%s %s%s", s ? " " : "", actions[steps[s].action],
			         names[steps[s].service], steps[s].now ? "!" : "");
		if (strcmp(got, t->steps))
			fail_msg("%s: expected \"%s\", got \"%s\"", t->what, t->steps, got);
	}
}

/* From anything to what is wanted in a bounded number of rounds, whatever was there. */
static void every_beginning_ends_where_it_should(void **state)
{
	for (unsigned code = 0; code < 6 * 6 * 6 * 6 * 3; code++) {
		struct plan_service s[COUNT] = {0};
		struct plan_step steps[COUNT];
		static const enum plan_goal goals[] = {GOAL_UP, GOAL_STOPPED, GOAL_ABSENT};
		unsigned rest = code;
		for (size_t i = 0; i < COUNT; i++, rest /= 6) {
			s[i].present = (enum plan_present)(rest % 6);
			s[i].made = s[i].present != PRESENT_ABSENT;
		}
		for (size_t i = 0; i < COUNT; i++)
			s[i].goal = goals[rest % 3];
		s[WEB].depends_on = of_web, s[WEB].n_depends_on = 2;
		s[DB].depends_on = of_db, s[DB].n_depends_on = 1;
		for (size_t i = 0; i < COUNT; i++) /* a new demand gives failed ones another chance; init alone has an end */
			if (s[i].goal == GOAL_UP &&
			    (s[i].present == PRESENT_FAILED || s[i].present == (i == INIT ? PRESENT_READY : PRESENT_COMPLETED)))
				s[i].present = PRESENT_STOPPED;
		int rounds = 0;
		for (size_t n = 1; n && rounds < 20; rounds++) {
			n = plan_steps(s, COUNT, steps);
			for (size_t i = 0; i < COUNT; i++)
				if (s[i].present == PRESENT_RUNNING && s[i].goal == GOAL_UP)
					s[i].present = i == INIT ? PRESENT_COMPLETED : PRESENT_READY;
			for (size_t i = 0; i < n; i++) {
				struct plan_service *on = &s[steps[i].service];
				if (!steps[i].now)
					continue;
				on->made = steps[i].action != PLAN_REMOVE;
				on->present = steps[i].action == PLAN_START  ? PRESENT_RUNNING
				              : steps[i].action == PLAN_STOP ? PRESENT_STOPPED
				                                             : PRESENT_ABSENT;
			}
		}
		assert_true(rounds < 20);
		for (size_t i = 0; i < COUNT; i++) {
			if (s[i].goal == GOAL_UP)
				assert_int_equal(s[i].present, i == INIT ? PRESENT_COMPLETED : PRESENT_READY);
			if (s[i].goal == GOAL_STOPPED)
				assert_true(s[i].present != PRESENT_RUNNING && s[i].present != PRESENT_READY);
			if (s[i].goal == GOAL_ABSENT)
				assert_false(s[i].made);
		}
	}
}

/* ---- which services ---- */

static struct config_dependency web_needs[] = {{(char *)"db", DEPENDS_HEALTHY, true},
                                               {(char *)"mail", DEPENDS_STARTED, false}};
static struct config_dependency db_needs[] = {{(char *)"tool", DEPENDS_STARTED, true}};
static char *debug[] = {(char *)"debug", NULL};

static struct config make_config(struct config_service *services)
{
	memset(services, 0, 5 * sizeof *services);
	const char *const all[] = {"web", "db", "mail", "trace", "tool"};
	for (size_t i = 0; i < 5; i++)
		services[i].name = (char *)all[i];
	services[0].has_build = true;
	services[0].depends_on = web_needs;
	services[0].n_depends_on = 2;
	services[1].depends_on = db_needs;
	services[1].n_depends_on = 1;
	services[3].profiles = debug;
	services[4].has_build = true;
	return (struct config){.file = (char *)"compose.yaml", .services = services, .n_services = 5};
}

static void expect_selection(const struct config *c, struct plan_selection selection, const char *expected,
                             const char *expected_named)
{
	bool chosen[5], named[5];
	char got[8] = "", got_named[8] = "";
	assert_int_equal(plan_select(c, &selection, chosen, named, NULL), 0);
	for (int i = 0; i < 5; i++) {
		got[i] = chosen[i] ? '1' : '.';
		got_named[i] = named[i] ? '1' : '.';
	}
	assert_string_equal(got, expected);
	assert_string_equal(got_named, expected_named);
}

static void selections(void **state)
{
	struct config_service services[5];
	struct config c = make_config(services);
	char *web[] = {(char *)"web", NULL}, *trace[] = {(char *)"trace", NULL}, *mail[] = {(char *)"mail", NULL};

	/* web db mail trace tool: without build:, without profiles, and what they need */
	expect_selection(&c, (struct plan_selection){0}, ".11.1", ".....");
	expect_selection(&c, (struct plan_selection){.all = true}, "111.1", ".....");
	expect_selection(&c, (struct plan_selection){.profiles = debug}, ".1111", ".....");
	services[3].has_build = true;
	expect_selection(&c, (struct plan_selection){.profiles = debug}, ".1111", ".....");
	services[3].has_build = false;
	/* a name brings what it requires, and no more */
	expect_selection(&c, (struct plan_selection){.names = web}, "11..1", "11..1");
	expect_selection(&c, (struct plan_selection){.names = trace}, "...1.", "...1.");
	/* and one that an env file has of its own comes with the default ones */
	expect_selection(&c, (struct plan_selection){.also = trace}, ".1111", "...1.");
	services[1].is_copy = true; /* but is none of them */
	services[0].is_copy = true;
	expect_selection(&c, (struct plan_selection){.all = true}, "..1.1", ".....");
	services[0].is_copy = services[1].is_copy = false;
	/* nor one of which the file wants no instance, needed or not, but where it is named */
	services[1].no_instances = services[2].no_instances = true;
	expect_selection(&c, (struct plan_selection){0}, ".....", ".....");
	expect_selection(&c, (struct plan_selection){.all = true}, "1...1", ".....");
	expect_selection(&c, (struct plan_selection){.names = web}, "1...1", "1...1");
	expect_selection(&c, (struct plan_selection){.names = mail}, "..1..", "..1..");
	services[1].no_instances = services[2].no_instances = false;
	/* the configuration's own set */
	c.service_set = mail;
	expect_selection(&c, (struct plan_selection){0}, "..1..", "..1..");
	expect_selection(&c, (struct plan_selection){.profiles = debug}, "..11.", "..1.."); /* and what is asked for beside it */
	expect_selection(&c, (struct plan_selection){.all = true}, "111.1", ".....");
	expect_selection(&c, (struct plan_selection){.names = web}, "11..1", "11..1");
}

static void an_unknown_name_is_said(void **state)
{
	struct config_service services[5];
	struct config c = make_config(services);
	char *none[] = {(char *)"nope", NULL};
	bool chosen[5];
	struct error err = ERROR_INIT;
	assert_int_equal(plan_select(&c, &(struct plan_selection){.names = none}, chosen, NULL, &err), -EINVAL);
	assert_int_equal(err.code, ERROR_SERVICE_UNKNOWN);
	assert_non_null(strstr(err.message, "nope"));
	assert_non_null(strstr(err.hint, "web, db, mail"));
	error_release(&err);
}

static void circles_are_named(void **state)
{
	struct config_service services[5];
	struct config c = make_config(services);
	struct error err = ERROR_INIT;
	assert_int_equal(plan_check_circles(&c, &err), 0);

	struct config_dependency back = {(char *)"db", DEPENDS_STARTED, true};
	services[4].depends_on = &back;
	services[4].n_depends_on = 1;
	assert_int_equal(plan_check_circles(&c, &err), -EINVAL);
	assert_non_null(strstr(err.message, "db -> tool -> db"));
	error_release(&err);

	struct config_dependency self = {(char *)"mail", DEPENDS_STARTED, true};
	services[4].n_depends_on = 0;
	services[2].depends_on = &self;
	services[2].n_depends_on = 1;
	assert_int_equal(plan_check_circles(&c, &err), -EINVAL);
	assert_non_null(strstr(err.message, "mail -> mail"));
	error_release(&err);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(situations),
	    cmocka_unit_test(joined_services_follow),
	    cmocka_unit_test(who_follows_is_restarted_with_the_other),        cmocka_unit_test(every_beginning_ends_where_it_should),
	    cmocka_unit_test(selections),        cmocka_unit_test(an_unknown_name_is_said),
	    cmocka_unit_test(circles_are_named),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
