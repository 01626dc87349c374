/* provisioner/envset: the layers of `.env` over each other, what is turned to this workspace's services, and in which order it
 * stands there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "provisioner/envfile.h"
#include "provisioner/envset.h"

static const struct rewrite_port db_ports[] = {{5432, 5432, 21001}};
static const struct rewrite_port cache_ports[] = {{0, 6379, 21002}};
static const struct rewrite_target targets[] = {{"db", {"db", NULL}, false, db_ports, 1},
                                                {"cache", {"cache", NULL}, false, cache_ports, 1}};
static const struct rewrite_map map = {targets, 2, "127.0.0.1"};

struct layers_case {
	const char *name, *main, *own;
	const char *text;   /* the block's user lines, and before it what is left of the workspace's */
	const char *values; /* as a reader has them; generated ones left out */
};

/* offered: DB_PORT, DB_HOST, DATABASE_URL; imposed: FORCED */
static void make(const char *main, const char *own, bool rewrite, struct envset *set)
{
	cleanup_keyvals struct keyvals offered = KEYVALS_INIT, imposed = KEYVALS_INIT;
	keyvals_set(&offered, "DB_PORT", "21001");
	keyvals_set(&offered, "DB_HOST", "127.0.0.1");
	keyvals_set(&offered, "DATABASE_URL", "postgres://127.0.0.1:21001/x");
	keyvals_set(&imposed, "FORCED", "ours");
	const struct envset_params params = {main, own, &offered, &imposed, rewrite ? &map : NULL};
	envset_make(&params, set);
}

static bool is_generated(const struct env_entry *e)
{
	return e->layer == ENV_SERVICE || e->layer == ENV_IMPOSED;
}

static void check(const struct layers_case *c, bool rewrite)
{
	cleanup_envset struct envset set;
	cleanup_buffer struct buffer text = BUFFER_INIT, lines = BUFFER_INIT, values = BUFFER_INIT;
	cleanup_keyvals struct keyvals read_back = KEYVALS_INIT;
	make(c->main, c->own, rewrite, &set);
	for (size_t i = 0; i < set.count; i++) {
		const struct env_entry *e = &set.items[i];
		if (is_generated(e))
			continue;
		if (e->statement)
			buffer_adds(&lines, e->statement);
		else if (!e->own_line)
			buffer_printf(&lines, "%s=%s\n", e->key, e->value);
		buffer_printf(&values, "%s%s=%s", values.len ? "|" : "", e->key, e->value);
	}
	if (strcmp(buffer_str(&lines), c->text) || strcmp(buffer_str(&values), c->values))
		print_error("%s\n", c->name);
	assert_string_equal(buffer_str(&lines), c->text);
	assert_string_equal(buffer_str(&values), c->values);

	/* env.json says what a reader of the text finds */
	assert_int_equal(envfile_render(c->own, &set, &text, NULL, NULL), 0);
	envfile_parse(buffer_str(&text), NULL, NULL, NULL, &read_back);
	assert_int_equal(read_back.count, set.count);
	for (size_t i = 0; i < set.count; i++)
		assert_string_equal(keyvals_get(&read_back, set.items[i].key), set.items[i].value);
}

static void layers(void **state)
{
	(void)state;
	static const struct layers_case cases[] = {
	    {"own lines stay where they are", "", "A=1\nB=2\n", "", "A=1|B=2"},
	    {"the main checkout's are inherited, comments are not", "# c\nA=1\n", "", "A=1\n", "A=1"},
	    {"own over main", "A=1\nB=1\n", "A=2\n", "B=1\n", "A=2|B=1"},
	    {"quotes and export stay", "export A=\"x y\"\nB='1 2' # why\n", "", "export A=\"x y\"\nB='1 2' # why\n",
	     "A=x y|B=1 2"},
	    {"a value of many lines", "K='one\ntwo'\nB=1\n", "", "K='one\ntwo'\nB=1\n", "K=one\ntwo|B=1"},
	    {"the last of equal keys counts", "A=1\nA=2\n", "", "A=2\n", "A=2"},
	    {"no newline at the end, and CRLF", "A=1\r\nB=2", "", "A=1\nB=2\n", "A=1|B=2"},
	    {"a byte order mark", "\xef\xbb\xbf" "A=1\n", "", "A=1\n", "A=1"},
	    {"what cannot be read is left out", "A='open\nB=1\n!\nC\n", "", "B=1\n", "B=1"},
	    {"imposed wins", "FORCED=1\nA=1\n", "FORCED=2\n", "A=1\n", "A=1"},
	    {"offered yields", "DATABASE_URL=mine\n", "", "DATABASE_URL=mine\n", "DATABASE_URL=mine"},
	    {"rewritten, textually", "", "U=\"postgres://${USER_}:x@db:5432/d\"\n",
	     "U=\"postgres://${USER_}:x@127.0.0.1:21001/d\"\n", "U=postgres://:x@127.0.0.1:21001/d"},
	    {"rewritten, inherited", "export U=redis://cache:6379/1 # note\n", "",
	     "export U=redis://127.0.0.1:21002/1 # note\n", "U=redis://127.0.0.1:21002/1"},
	    {"a remote one stays", "DB_HOST=db.prod.example\nDB_PORT=5432\n", "",
	     "DB_HOST=db.prod.example\nDB_PORT=5432\n", "DB_HOST=db.prod.example|DB_PORT=5432"},
	    {"a pair", "", "DB_HOST=localhost\nDB_PORT=5432\n", "DB_PORT=21001\n", "DB_HOST=localhost|DB_PORT=21001"},
	    {"who refers to a moved line moves", "", "X_PORT=5432\nL=port ${X_PORT}\nM=$L\nN=1\n",
	     "X_PORT=21001\nL=port ${X_PORT}\nM=$L\n", "X_PORT=21001|L=port 21001|M=port 21001|N=1"},
	    {"and after what it refers to", "A=${B}\n", "B=redis://cache\n", "B=redis://127.0.0.1:21002\nA=${B}\n",
	     "B=redis://127.0.0.1:21002|A=redis://127.0.0.1:21002"},
	    {"what is generated can be referred to", "", "A=${DATABASE_URL}?x\n", "A=${DATABASE_URL}?x\n",
	     "A=postgres://127.0.0.1:21001/x?x"},
	    {"single quotes refer to nothing", "", "X_PORT=5432\nL='${X_PORT}'\n", "X_PORT=21001\n",
	     "X_PORT=21001|L=${X_PORT}"},
	    {"itself", "A=1\nA=$A:2\n", "", "A=1:2\n", "A=1:2"},
	    {"a circle", "A=$B\nB=$A\n", "", "B=$A\nA=$B\n", "B=|A="},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		check(&cases[i], true);
	static const struct layers_case off = {"not rewritten", "U=redis://cache\n", "DB_PORT=5432\n", "U=redis://cache\n",
	                                       "U=redis://cache|DB_PORT=5432"};
	check(&off, false);
}

static void what_changed_is_told(void **state)
{
	(void)state;
	cleanup_envset struct envset set;
	make("U=redis://cache\nSAME=1\n", "FORCED=1\nDB_PORT=5432\nREF=${DB_PORT}\n", true, &set);
	const struct env_entry *u = envset_find(&set, "U"), *forced = envset_find(&set, "FORCED");
	assert_string_equal(u->before, "redis://cache");
	assert_string_equal(u->service, "cache");
	assert_int_equal(u->layer, ENV_MAIN);
	assert_string_equal(forced->before, "1");
	assert_null(forced->service);
	assert_null(envset_find(&set, "SAME")->before);
	assert_string_equal(envset_find(&set, "REF")->before, "5432");
	assert_null(envset_find(&set, "REF")->service);
	assert_int_equal(envset_find(&set, "DATABASE_URL")->layer, ENV_SERVICE);
	assert_null(envset_find(&set, "NONE"));
}

static void a_missing_port_is_given(void **state)
{
	(void)state;
	cleanup_envset struct envset set;
	make("", "CACHE_HOST=cache\n", true, &set);
	assert_string_equal(envset_find(&set, "CACHE_HOST")->value, "127.0.0.1");
	assert_string_equal(envset_find(&set, "CACHE_PORT")->value, "21002");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(layers),
	    cmocka_unit_test(what_changed_is_told),
	    cmocka_unit_test(a_missing_port_is_given),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
