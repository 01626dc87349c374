/* provisioner/envfile: what `.env` says to its readers, and what comes back when somebody writes over it. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "provisioner/envfile.h"

/* With generated variables that win over the user's. */
static int render(const char *user, const struct keyvals *generated, struct buffer *out, char ***flagged, struct error *err)
{
	static const struct keyvals none = KEYVALS_INIT;
	const struct envset_params params = {.own = user, .offered = &none, .imposed = generated};
	cleanup_envset struct envset set;
	envset_make(&params, &set);
	return envfile_render(user, &set, out, flagged, err);
}

/* ---- reading ---- */

static const char *from_outside(void *arg, const char *name)
{
	return !strcmp(name, "OUTSIDE") ? "outer" : NULL;
}

static void count_bad(void *arg, unsigned line)
{
	unsigned *bad = arg;
	*bad = *bad * 100 + line; /* 203: lines 2 and 3 */
}

/* The keys and values as "K=v|K=v"; a newline as "\n". */
static char *parsed(const char *text, unsigned *ret_bad)
{
	cleanup_keyvals struct keyvals kv = KEYVALS_INIT;
	struct buffer out = BUFFER_INIT;
	*ret_bad = 0;
	envfile_parse(text, from_outside, ret_bad, count_bad, &kv);
	for (size_t i = 0; i < kv.count; i++)
		buffer_printf(&out, "%s%s=%s", i ? "|" : "", kv.items[i].key, kv.items[i].value);
	return buffer_detach(&out);
}

static void reads_as_compose_does(void **state)
{
	static const struct {
		const char *text, *expected;
		unsigned bad;
	} cases[] = {
	    {"", "", 0},
	    {"\n\n", "", 0},
	    {"# comment\n  # indented\n", "", 0},
	    {"A=1", "A=1", 0},
	    {"A=1\n", "A=1", 0},
	    {"A=1\nB=2\n", "A=1|B=2", 0},
	    {"A=1\nA=2\n", "A=2", 0},
	    {"A=\n", "A=", 0},
	    {"A=\nB=2", "A=|B=2", 0},
	    {"  A = 1  \n", "A=1", 0},
	    {"A: 1\n", "A=1", 0},
	    {"export A=1\n", "A=1", 0},
	    {"export\tA=1\n", "A=1", 0},
	    {"exported=1\n", "exported=1", 0},
	    {"export A\n", "", 0},
	    {"OUTSIDE\n", "OUTSIDE=outer", 0},
	    {"NOWHERE\nA=1\n", "A=1", 0},
	    {"a.b-c=1\n", "a.b-c=1", 0},
	    {"1A=1\nB=2\n", "B=2", 1},
	    {"=1\n", "", 1},
	    {"A B=1\n", "", 1},
	    {"A=1 # comment\n", "A=1", 0},
	    {"A=1\t# comment\n", "A=1", 0},
	    {"A=a#b\n", "A=a#b", 0},
	    {"A=#b\n", "A=#b", 0},
	    {"A= # comment\n", "A=", 0},
	    {"A=a b c\n", "A=a b c", 0},
	    {"A=a=b=c\n", "A=a=b=c", 0},
	    {"A='a b'\n", "A=a b", 0},
	    {"A='a # b' # c\n", "A=a # b", 0},
	    {"A='$OUTSIDE'\n", "A=$OUTSIDE", 0},
	    {"A='a\\nb'\n", "A=a\\nb", 0},
	    {"A='it\\'s'\n", "A=it's", 0},
	    {"A='one\ntwo'\nB=2\n", "A=one\ntwo|B=2", 0},
	    {"A=\"a b\"\n", "A=a b", 0},
	    {"A=\"a\\nb\\tc\"\n", "A=a\nb\tc", 0},
	    {"A=\"a\\\"b\"\n", "A=a\"b", 0},
	    {"A=\"a\\\\b\"\n", "A=a\\b", 0},
	    {"A=\"a\\qb\"\n", "A=a\\qb", 0},
	    {"A=\"\\0101\"\n", "A=A", 0},
	    {"A=\"one\ntwo\"\nB=2\n", "A=one\ntwo|B=2", 0},
	    {"A=\"\"\nB=''\n", "A=|B=", 0},
	    {"A=\"$OUTSIDE\"\n", "A=outer", 0},
	    {"A=\"\\$OUTSIDE\"\n", "A=$OUTSIDE", 0},
	    {"A=\"$$OUTSIDE\"\n", "A=$OUTSIDE", 0},
	    {"A=$OUTSIDE\n", "A=outer", 0},
	    {"A=x${OUTSIDE}y\n", "A=xoutery", 0},
	    {"A=${NONE:-d}\n", "A=d", 0},
	    {"A=$NONE.\n", "A=.", 0},
	    {"B=1\nA=${B}2\n", "B=1|A=12", 0},
	    {"OUTSIDE=own\nA=$OUTSIDE\n", "OUTSIDE=own|A=own", 0},
	    {"A=postgres://${U}@h/db\n", "A=postgres://@h/db", 0},
	    {"A='open\nB=2\n", "B=2", 1},
	    {"A=\"open\nB=2\nC=3", "B=2|C=3", 1},
	    {"A='x'y\nB=2\n", "B=2", 1},
	    {"A='x' y\nB=2\n", "B=2", 1},
	    {"A=1\n???\nB=2\n!!\n", "A=1|B=2", 204},
	    {"A='1\n2\n3'\n???\n", "A=1\n2\n3", 4},
	    {"A=${unclosed\nB=2\n", "B=2", 1},
	    {"\xef\xbb\xbf"
	     "A=1\n",
	     "A=1", 0},
	    {"A=1\r\nB='2'\r\n\r\n# c\r\nC=\"3\"\r\n", "A=1|B=2|C=3", 0},
	    {"A=\xc3\xa9\n", "A=\xc3\xa9", 0},
	    {"A=a'b\n", "A=a'b", 0},
	    {"A={\"a\": 1}\n", "A={\"a\": 1}", 0},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		unsigned bad;
		cleanup_free char *got = parsed(cases[i].text, &bad);
		if (strcmp(got, cases[i].expected) || bad != cases[i].bad)
			fail_msg("case %zu, <%s>: got <%s>, bad %u; expected <%s>, bad %u", i, cases[i].text, got, bad,
			         cases[i].expected, cases[i].bad);
	}
}

static void reading_is_bounded(void **state)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	for (int i = 0; i < 30000; i++)
		buffer_printf(&text, "K%d=\n", i);
	cleanup_keyvals struct keyvals kv = KEYVALS_INIT;
	envfile_parse(text.data, NULL, NULL, NULL, &kv);
	assert_int_equal(kv.count, 10000);
}

/* ---- forms ---- */

static const struct form_case {
	const char *value;
	enum envfile_form form;
	const char *text; /* NULL: none */
} forms[] = {
    {"", ENVFILE_PLAIN, ""},
    {"abcXYZ019_./:@%+,?^-", ENVFILE_PLAIN, "abcXYZ019_./:@%+,?^-"},
    {"postgres://u:p%40ss@127.0.0.1:20001/db?sslmode=disable", ENVFILE_PLAIN,
     "postgres://u:p%40ss@127.0.0.1:20001/db?sslmode=disable"},
    {"!*[]{}", ENVFILE_PLAIN, "!*[]{}"},
    {"-x", ENVFILE_PLAIN, "-x"},
    {"a=b==", ENVFILE_PLAIN, "a=b=="},
    {"gr\xc3\xbc\xc3\x9f", ENVFILE_PLAIN, "gr\xc3\xbc\xc3\x9f"},
    {"\xf0\x9f\x90\x98", ENVFILE_PLAIN, "\xf0\x9f\x90\x98"},
    {"=ls", ENVFILE_QUOTED, "'=ls'"},
    {"a:=ls", ENVFILE_QUOTED, "'a:=ls'"},
    {"~", ENVFILE_QUOTED, "'~'"},
    {"~/x", ENVFILE_QUOTED, "'~/x'"},
    {"a:~/x", ENVFILE_QUOTED, "'a:~/x'"},
    {"a b", ENVFILE_QUOTED, "'a b'"},
    {" a", ENVFILE_QUOTED, "' a'"},
    {"a ", ENVFILE_QUOTED, "'a '"},
    {"a\tb", ENVFILE_QUOTED, "'a\tb'"},
    {"a#b", ENVFILE_QUOTED, "'a#b'"},
    {"$x", ENVFILE_QUOTED, "'$x'"},
    {"${x}", ENVFILE_QUOTED, "'${x}'"},
    {"a\"b", ENVFILE_QUOTED, "'a\"b'"},
    {"`id`", ENVFILE_QUOTED, "'`id`'"},
    {"{\"a\": [1]}", ENVFILE_QUOTED, "'{\"a\": [1]}'"},
    {"it's", ENVFILE_QUOTED, "\"it's\""},
    {"'", ENVFILE_QUOTED, "\"'\""},
    {"it's #1 & more", ENVFILE_QUOTED, "\"it's #1 & more\""},
    {"a\\b", ENVFILE_QUOTED, "'a\\b'"},
    {"a\nb", ENVFILE_QUOTED, "'a\nb'"},
    {"a&b", ENVFILE_QUOTED, "'a&b'"},
    {"a;b", ENVFILE_QUOTED, "'a;b'"},
    {"(a)", ENVFILE_QUOTED, "'(a)'"},
    {"<a>", ENVFILE_QUOTED, "'<a>'"},
    {"a|b", ENVFILE_QUOTED, "'a|b'"},
    {"a\x01", ENVFILE_QUOTED, "'a\x01'"},
    {"a\xc2\xa0", ENVFILE_QUOTED, "'a\xc2\xa0'"},
    {"\xe3\x80\x80"
     "a",
     ENVFILE_QUOTED,
     "'\xe3\x80\x80"
     "a'"},
    {"\xef\xbb\xbf"
     "a",
     ENVFILE_QUOTED,
     "'\xef\xbb\xbf"
     "a'"},
    {"a\xe2\x80\xa8"
     "b",
     ENVFILE_QUOTED,
     "'a\xe2\x80\xa8"
     "b'"},
    {"a\xc2\x85"
     "b",
     ENVFILE_QUOTED,
     "'a\xc2\x85"
     "b'"},
    {"a\\", ENVFILE_UNREPRESENTABLE, NULL},
    {"a b\\", ENVFILE_UNREPRESENTABLE, NULL},
    {"\\", ENVFILE_UNREPRESENTABLE, NULL},
    {"it's\\", ENVFILE_UNREPRESENTABLE, NULL},
    {"it's $5", ENVFILE_ESCAPED, "\"it's \\$5\""},
    {"it's \"x\"", ENVFILE_ESCAPED, "\"it's \\\"x\\\"\""},
    {"it's \\x", ENVFILE_ESCAPED, "\"it's \\\\x\""},
    {"it's `x`", ENVFILE_ESCAPED, "\"it's \\`x\\`\""},
    {"\\\"'\\'", ENVFILE_ESCAPED, "\"\\\\\\\"'\\\\'\""},
    {"a\rb", ENVFILE_UNREPRESENTABLE, NULL},
    {"a\r\nb", ENVFILE_UNREPRESENTABLE, NULL},
    {"\xff", ENVFILE_UNREPRESENTABLE, NULL},
    {"a\xc3", ENVFILE_UNREPRESENTABLE, NULL},
    {"\xc0\xaf", ENVFILE_UNREPRESENTABLE, NULL},
    {"\xed\xa0\x80", ENVFILE_UNREPRESENTABLE, NULL},
    {"\xf4\x90\x80\x80", ENVFILE_UNREPRESENTABLE, NULL},
};

static void values_take_their_best_form(void **state)
{
	for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
		cleanup_buffer struct buffer out = BUFFER_INIT;
		enum envfile_form form = envfile_quote(forms[i].value, &out);
		if (form != forms[i].form || strcmp(buffer_str(&out), forms[i].text ? forms[i].text : ""))
			fail_msg("<%s>: form %d, text <%s>", forms[i].value, form, buffer_str(&out));
	}
	cleanup_free char *large = xcalloc(1, 70001);
	memset(large, 'x', 70000);
	cleanup_buffer struct buffer out = BUFFER_INIT;
	assert_int_equal(envfile_quote(large, &out), ENVFILE_QUOTED); /* docker reads no such line */
	assert_int_equal(envfile_quote(NULL, &out), ENVFILE_PLAIN);
}

/* ---- real readers ---- */

/* Each prints its whole environment, "KEY=value" NUL-terminated, after reading the file "f" of the working directory.
 */
static const struct reader {
	const char *name, *there, *command;
	enum envfile_form reads; /* and everything before it in that list */
} readers[] = {
    {"bash", "command -v bash", "bash -c 'set -a; . ./f; exec env -0'", ENVFILE_ESCAPED},
    {"dash", "command -v dash", "dash -c 'set -a; . ./f; exec env -0'", ENVFILE_ESCAPED},
    {"zsh", "command -v zsh", "zsh -fc 'set -a; . ./f; exec env -0'", ENVFILE_ESCAPED},
    {"busybox", "command -v busybox", "busybox sh -c 'set -a; . ./f; exec env -0'", ENVFILE_ESCAPED},
    {"ksh", "command -v ksh", "ksh -c 'set -a; . ./f; exec env -0'", ENVFILE_ESCAPED},
    {"node", "echo > f; node --env-file=f -e 0",
     "node --env-file=f -e 'for (const k in process.env) process.stdout.write(k + \"=\" + process.env[k] + \"\\0\")'",
     ENVFILE_QUOTED},
    {"python-dotenv", "python3 -c 'import dotenv'",
     "python3 -c 'import dotenv\nfor k, v in dotenv.dotenv_values(\"f\").items(): print(k + \"=\" + v, end=\"\\0\")'",
     ENVFILE_QUOTED},
    /* pkg/kvfile of docker/cli: no quotes, no escapes, no inline comments */
    {"docker's way", "command -v awk", "awk '/^#/ || /^$/ {next} {printf \"%s%c\", $0, 0}' f", ENVFILE_PLAIN},
};

static char *run(const char *dir, const char *command, size_t *ret_len)
{
	cleanup_free char *line = xasprintf("cd %s && %s 2>/dev/null", dir, command);
	cleanup_buffer struct buffer b = BUFFER_INIT;
	FILE *f = popen(line, "r");
	assert_non_null(f);
	char chunk[4096];
	for (size_t n; (n = fread(chunk, 1, sizeof chunk, f)) > 0;)
		buffer_add(&b, chunk, n);
	pclose(f);
	*ret_len = b.len;
	return buffer_detach(&b);
}

static void expect_read(const char *reader, const char *output, size_t len, const char *key, const char *value)
{
	size_t n = strlen(key);
	for (const char *p = output; p < output + len; p += strlen(p) + 1)
		if (!strncmp(p, key, n) && p[n] == '=') {
			if (strcmp(p + n + 1, value))
				fail_msg("%s reads %s as <%s>, not <%s>", reader, key, p + n + 1, value);
			return;
		}
	fail_msg("%s does not see %s", reader, key);
}

static void generate(struct keyvals *kv, enum envfile_form most)
{
	for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
		cleanup_free char *key = xasprintf("V%zu", i);
		/* python-dotenv expands ${x} even there, and others split at these: what QUOTED warns of */
		if (forms[i].form <= most && !strstr(forms[i].value, "${") && !strstr(forms[i].value, "\xe2\x80\xa8"))
			keyvals_set(kv, key, forms[i].value);
	}
}

static enum envfile_form form_of(const char *value)
{
	cleanup_buffer struct buffer unused = BUFFER_INIT;
	return envfile_quote(value, &unused);
}

static void check_reader(const char *dir, const struct reader *r)
{
	cleanup_keyvals struct keyvals kv = KEYVALS_INIT;
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_free char *path = xasprintf("%s/f", dir);
	generate(&kv, r->reads == ENVFILE_PLAIN ? ENVFILE_PLAIN : ENVFILE_ESCAPED);
	assert_int_equal(render("# it's a comment \"\nV0=overridden\nOWN=1\nlower=2\n", &kv, &text, NULL, NULL), 0);
	assert_int_equal(file_write_atomic(AT_FDCWD, path, text.data, text.len, 0644), 0);
	size_t len;
	cleanup_free char *output = run(dir, r->command, &len);
	for (size_t i = 0; i < kv.count; i++)
		if (form_of(kv.items[i].value) <= r->reads) /* what it reads wrongly spoils nothing else */
			expect_read(r->name, output, len, kv.items[i].key, kv.items[i].value);
	expect_read(r->name, output, len, "OWN", "1");
	expect_read(r->name, output, len, "lower", "2");
}

static void real_readers_agree(void **state)
{
	char dir[] = "/tmp/env.XXXXXX";
	assert_non_null(mkdtemp(dir));
	for (size_t i = 0; i < sizeof readers / sizeof readers[0]; i++) {
		cleanup_free char *there = xasprintf("cd %s && (%s) >/dev/null 2>&1", dir, readers[i].there);
		if (system(there))
			fprintf(stderr, "SKIPPED: no %s here\n", readers[i].name);
		else
			check_reader(dir, &readers[i]);
	}
	tree_remove(AT_FDCWD, dir);
}

/* Our own reader reads what we write, whatever it is. */
static void rendered_values_are_read_back(void **state)
{
	cleanup_keyvals struct keyvals kv = KEYVALS_INIT, back = KEYVALS_INIT;
	cleanup_buffer struct buffer text = BUFFER_INIT;
	for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
		cleanup_free char *key = xasprintf("V%zu", i);
		if (forms[i].form != ENVFILE_UNREPRESENTABLE)
			keyvals_set(&kv, key, forms[i].value);
	}
	assert_int_equal(render("", &kv, &text, NULL, NULL), 0);
	envfile_parse(text.data, NULL, NULL, NULL, &back);
	assert_int_equal(back.count, kv.count);
	for (size_t i = 0; i < kv.count; i++)
		assert_string_equal(keyvals_get(&back, kv.items[i].key), kv.items[i].value);
}

/* ---- rendering ---- */

#define BLOCK(inside) ENVFILE_BEGIN "\n" inside ENVFILE_END "\n"

static void expect_render(const char *user, const struct keyvals *kv, const char *expected)
{
	cleanup_buffer struct buffer out = BUFFER_INIT;
	cleanup_error struct error err = ERROR_INIT;
	if (render(user, kv, &out, NULL, &err))
		fail_msg("%s", err.message);
	assert_string_equal(out.data, expected);
}

static void rendering_keeps_the_users_lines(void **state)
{
	cleanup_keyvals struct keyvals kv = KEYVALS_INIT;
	expect_render("", &kv, BLOCK(""));
	keyvals_set(&kv, "A", "1");
	keyvals_set(&kv, "B", "b b");
	keyvals_set(&kv, "NULL", NULL);
	expect_render("", &kv, BLOCK("A=1\nB='b b'\n"));
	expect_render("# mine\nX = 1 \n\n", &kv, "# mine\nX = 1 \n\n" BLOCK("A=1\nB='b b'\n"));
	expect_render("X=1\nA=own\nY=2\n", &kv, "X=1\n#~ A=own\nY=2\n" BLOCK("A=1\nB='b b'\n"));
	expect_render(" export A = 'o\nw'\nY=2\n", &kv, "#~  export A = 'o\n#~ w'\nY=2\n" BLOCK("A=1\nB='b b'\n"));
	expect_render("A='open\nY=2\n", &kv, "#~ A='open\nY=2\n" BLOCK("A=1\nB='b b'\n"));
	expect_render("A\n", &kv, "A\n" BLOCK("A=1\nB='b b'\n"));
	expect_render("AA=1\r\nA=2\r\n", &kv, "AA=1\r\n#~ A=2\r\n" BLOCK("A=1\nB='b b'\n"));
	expect_render("#~ X=1\n", &kv, "#~ #~ X=1\n" BLOCK("A=1\nB='b b'\n"));
}

static void rendering_flags_and_refuses(void **state)
{
	cleanup_keyvals struct keyvals kv = KEYVALS_INIT;
	cleanup_buffer struct buffer out = BUFFER_INIT;
	cleanup_error struct error err = ERROR_INIT;
	cleanup_strv char **flagged = NULL;
	keyvals_set(&kv, "A", "plain");
	keyvals_set(&kv, "B", "b b");
	assert_int_equal(render("", &kv, &out, &flagged, &err), 0);
	assert_int_equal(strv_len(flagged), 1);
	assert_string_equal(flagged[0], "B");

	buffer_clear(&out);
	keyvals_set(&kv, "BAD_ONE", "it's \rx");
	assert_int_equal(render("", &kv, &out, NULL, &err), -EINVAL);
	assert_int_equal(err.code, ERROR_CONFIG_INVALID);
	assert_non_null(strstr(err.message, "BAD_ONE"));
	assert_null(strstr(err.message, "it's")); /* a value may be a secret */
	assert_int_equal(out.len, 0);
	keyvals_unset(&kv, "BAD_ONE");

	static const char *const names[] = {"", "1A", "A-B", "A B", "A.B", "\xc3\xa9"};
	for (size_t i = 0; i < 6; i++) {
		keyvals_set(&kv, names[i], "1");
		assert_int_equal(render("", &kv, &out, NULL, NULL), -EINVAL);
		keyvals_unset(&kv, names[i]);
	}
	keyvals_set(&kv, "C", "x\n" ENVFILE_END "\ny");
	assert_int_equal(render("", &kv, &out, NULL, NULL), -EINVAL);
}

/* ---- the way back ---- */

static const char served[] = "X=1\n#~ A=own\n" ENVFILE_BEGIN "\nA=1\nB='b b'\nM='one\ntwo'\n" ENVFILE_END "\n";

static void users_part_of_what_was_written(void **state)
{
	static const struct {
		const char *written, *own;
		bool changed;
	} cases[] = {
	    {served, "X=1\nA=own\n", false},
	    {"", "", false},
	    {"NEW=1\n", "NEW=1\n", false},
	    {"NEW=1", "NEW=1", false},
	    /* `echo Y=2 >> .env` */
	    {"X=1\n" BLOCK("A=1\nB='b b'\nM='one\ntwo'\n") "Y=2\n", "X=1\nY=2\n", false},
	    {BLOCK("A=1\nB='b b'\nM='one\ntwo'\n") "Y=2", "Y=2", false},
	    /* edited inside: not kept */
	    {"X=1\n" BLOCK("A=2\nB='b b'\nM='one\ntwo'\n"), "X=1\n", true},
	    {"X=1\n" BLOCK("A=1\nB='b b'\nM='one\ntwo'\nMORE=1\n"), "X=1\n", true},
	    {"X=1\n" BLOCK(""), "X=1\n", true},
	    /* CRLF all through, and blanks at line ends: an editor's doing, no edit */
	    {"X=1\r\n" ENVFILE_BEGIN "\r\nA=1\r\nB='b b'\r\nM='one\r\ntwo'\r\n" ENVFILE_END "\r\n", "X=1\r\n", false},
	    {"X=1\n" ENVFILE_BEGIN "  \nA=1 \nB='b b'\nM='one\ntwo'\n" ENVFILE_END " \nY=2\n", "X=1\nY=2\n", false},
	    /* the markers are gone, one or both */
	    {"X=1\nA=1\nB='b b'\nM='one\ntwo'\n", "X=1\n", false},
	    {"X=1\nA=2\nB='b b'\n", "X=1\nA=2\n", false},
	    {"X=1\n" ENVFILE_BEGIN "\nA=1\nB='b b'\nM='one\ntwo'\nY=2\n", "X=1\nY=2\n", false},
	    {"X=1\nA=1\nB='b b'\nM='one\ntwo'\n" ENVFILE_END "\nY=2\n", "X=1\nY=2\n", false},
	    {"A=1\r\nY=2\r\n", "Y=2\r\n", false},
	    /* the block alone is taken out */
	    {"X=1\n#~ A=own\n", "X=1\nA=own\n", false},
	    /* twice, as by `cat .env .env` */
	    {"X=1\n" BLOCK("A=1\nB='b b'\nM='one\ntwo'\n") "X=1\n" BLOCK("A=1\nB='b b'\nM='one\ntwo'\n"), "X=1\nX=1\n",
	     false},
	    /* an editor that cuts blanks at line ends */
	    {"#~\n#~ A=1\n", "\nA=1\n", false},
	    /* an empty line is nobody's generated line */
	    {"\n\nX=1\n", "\n\nX=1\n", false},
	    /* a marker in the middle of a line is none */
	    {"X=\"" ENVFILE_BEGIN "\"\n", "X=\"" ENVFILE_BEGIN "\"\n", false},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		cleanup_buffer struct buffer own = BUFFER_INIT;
		bool changed = !cases[i].changed;
		envfile_user_part(cases[i].written, served, &own, &changed);
		if (strcmp(buffer_str(&own), cases[i].own) || changed != cases[i].changed)
			fail_msg("case %zu: <%s>, changed %d", i, buffer_str(&own), changed);
	}
}

static void users_part_without_what_was_served(void **state)
{
	cleanup_buffer struct buffer own = BUFFER_INIT;
	bool changed = true;
	envfile_user_part("X=1\n" BLOCK("A=1\n") "Y=1\n", NULL, &own, &changed);
	assert_string_equal(own.data, "X=1\nY=1\n");
	assert_false(changed);
	buffer_clear(&own);
	envfile_user_part("A=1\n", NULL, &own, &changed);
	assert_string_equal(own.data, "A=1\n");
}

static void a_missing_last_newline_comes_back_missing(void **state)
{
	cleanup_keyvals struct keyvals kv = KEYVALS_INIT;
	cleanup_buffer struct buffer text = BUFFER_INIT, own = BUFFER_INIT;
	bool changed;
	keyvals_set(&kv, "A", "1");
	assert_int_equal(render("X=1", &kv, &text, NULL, NULL), 0);
	assert_memory_equal(text.data, "X=1\n" ENVFILE_BEGIN "\n", 4 + strlen(ENVFILE_BEGIN) + 1);
	envfile_user_part(text.data, text.data, &own, &changed);
	assert_string_equal(own.data, "X=1");
	/* but a line appended is a line of its own */
	cleanup_free char *appended = xasprintf("%sY=2\n", text.data);
	buffer_clear(&own);
	envfile_user_part(appended, text.data, &own, &changed);
	assert_string_equal(own.data, "X=1\nY=2\n");
	assert_false(changed);
}

/* For any text and any generated variables: what is rendered, written back as it is, gives the text. */
static void any_text_survives_the_round_trip(void **state)
{
	static const char *const pieces[] = {
	    "\n",
	    "\n",
	    "\n",
	    "\r\n",
	    "A",
	    "B",
	    "KEY",
	    "=",
	    "=",
	    "'",
	    "\"",
	    "#",
	    "#~",
	    "#~ ",
	    " ",
	    "\t",
	    "\\",
	    "$",
	    "${A}",
	    "x",
	    "export ",
	    ENVFILE_BEGIN,
	    ENVFILE_END,
	    ENVFILE_BEGIN "\n",
	    "\n" ENVFILE_END "\n",
	    "A=1\n",
	    "B='b b'\n",
	    "# (the last line above ends without a newline)\n",
	    "\xef\xbb\xbf",
	    "\xc3\xa9",
	    "\xff",
	    ":",
	    "A='1\n2'\n",
	};
	unsigned seed = 20260131;
	for (int round = 0; round < 20000; round++) {
		cleanup_buffer struct buffer user = BUFFER_INIT, text = BUFFER_INIT, own = BUFFER_INIT;
		cleanup_keyvals struct keyvals kv = KEYVALS_INIT;
		for (int n = rand_r(&seed) % 24; n > 0; n--)
			buffer_adds(&user, pieces[(size_t)rand_r(&seed) % (sizeof pieces / sizeof pieces[0])]);
		if (rand_r(&seed) % 4)
			keyvals_set(&kv, "A", rand_r(&seed) % 2 ? "1" : "two words\nand lines");
		if (rand_r(&seed) % 2)
			keyvals_set(&kv, "B", "b b");
		bool changed = true;
		assert_int_equal(render(buffer_str(&user), &kv, &text, NULL, NULL), 0);
		envfile_user_part(text.data, rand_r(&seed) % 2 ? text.data : NULL, &own, &changed);
		if (strcmp(buffer_str(&own), buffer_str(&user)) || changed)
			fail_msg("round %d: <%s> came back as <%s> from <%s>", round, buffer_str(&user), buffer_str(&own),
			         text.data);
	}
}

/* ---- secrets ---- */

static void names_that_say_secret(void **state)
{
	static const char *const secret[] = {"PASSWORD",  "PGPASSWORD",  "POSTGRES_PASSWORD", "db_password",  "DB_PASS",
	                                     "API_KEY",   "apiKey",      "SECRET_KEY_BASE",   "GITHUB_TOKEN", "aws.secret",
	                                     "MYSQL_PWD", "CREDENTIALS", "SSH_PRIVATE"};
	static const char *const open_[] = {"DATABASE_URL", "PGHOST", "PORT", "PWD",
	                                    "OLDPWD",       "USER",   "",     "AETHER_WORKSPACE"};
	for (size_t i = 0; i < sizeof secret / sizeof secret[0]; i++)
		assert_true(env_name_is_secret(secret[i]));
	for (size_t i = 0; i < sizeof open_ / sizeof open_[0]; i++)
		assert_false(env_name_is_secret(open_[i]));
}

static void passwords_in_urls_are_masked(void **state)
{
	static const char *const cases[][2] = {
	    {"postgres://user:dev@127.0.0.1:21001/db", "postgres://user:***@127.0.0.1:21001/db"},
	    {"redis://:pw@h:1", "redis://:***@h:1"},
	    {"redis://h:6379/0", "redis://h:6379/0"},
	    {"http://user@h/", "http://user@h/"},
	    {"http://user:@h/", "http://user:@h/"},
	    {"http://h/a:b@c", "http://h/a:b@c"},
	    {"http://h:80/a@b", "http://h:80/a@b"},
	    {"http://[::1]:80/a@b", "http://[::1]:80/a@b"},
	    {"http://u:p@[::1]:80/", "http://u:***@[::1]:80/"},
	    {"postgres://u:a@b@h/db", "postgres://u:***@h/db"},
	    {"postgres://u:a/b#c@h/db", "postgres://u:***@h/db"},
	    {"mongodb://u:p@h1:1,h2:2/db", "mongodb://u:***@h1:1,h2:2/db"},
	    {"postgres://h/db?user=u&password=p&x=1", "postgres://h/db?user=u&password=***&x=1"},
	    {"postgres://u:p@h/db?sslpassword=p#f", "postgres://u:***@h/db?sslpassword=***#f"},
	    {"http://h/?a=1#b?token=x", "http://h/?a=1#b?token=x"},
	    {"u:p@tcp(127.0.0.1:3306)/db", "u:***@tcp(127.0.0.1:3306)/db"},
	    {"host=h port=1 user=u password=p dbname=d", "host=h port=1 user=u password=*** dbname=d"},
	    {"password=p host=h", "password=*** host=h"},
	    {"password = 'a b' host=h", "password = *** host=h"},
	    {"password='a\\' b' host=h", "password=*** host=h"},
	    {"password='a b host=h", "password=*** host=h"},
	    {"password=a b=c", "password=*** b=c"},
	    {"password=a b c d=e", "password=*** d=e"},
	    {"Server=h;User Id=u;Password=a b;Port=1", "Server=h;User Id=u;Password=***;Port=1"},
	    {"Server=h;pwd=p;User Id=u;", "Server=h;pwd=***;User Id=u;"},
	    {"Server=h;Pwd=\"a;b\";Port=1", "Server=h;Pwd=***;Port=1"},
	    {"Password=a;b;Port=1", "Password=***;Port=1"},
	    {"jdbc:sqlserver://h:1;user=u;password=p", "jdbc:sqlserver://h:1;user=u;password=***"},
	    {"password=", "password="},
	    {"=", "="},
	    {"a=b", "a=b"},
	    {"127.0.0.1:6379", "127.0.0.1:6379"},
	    {"", ""},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		cleanup_free char *masked = url_mask_password(cases[i][0]);
		assert_string_equal(masked, cases[i][1]);
		cleanup_free char *again = url_mask_password(masked);
		assert_string_equal(again, masked);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(reads_as_compose_does),
	    cmocka_unit_test(reading_is_bounded),
	    cmocka_unit_test(values_take_their_best_form),
	    cmocka_unit_test(real_readers_agree),
	    cmocka_unit_test(rendered_values_are_read_back),
	    cmocka_unit_test(rendering_keeps_the_users_lines),
	    cmocka_unit_test(rendering_flags_and_refuses),
	    cmocka_unit_test(users_part_of_what_was_written),
	    cmocka_unit_test(users_part_without_what_was_served),
	    cmocka_unit_test(a_missing_last_newline_comes_back_missing),
	    cmocka_unit_test(any_text_survives_the_round_trip),
	    cmocka_unit_test(names_that_say_secret),
	    cmocka_unit_test(passwords_in_urls_are_masked),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
