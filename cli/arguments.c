#include "cli/arguments.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/strv.h"

/* jj's options that take a value as the next word: global ones, and those of `jj workspace add`, `forget`, `list` and
 * `status`. One that is missing here makes its value look like a word, nothing worse (see cmd_workspace_add.c). */
static const struct option jj_options[] = {
	{"repository", 'R', "", NULL}, {"at-operation", 0, "", NULL},
	{"at-op", 0, "", NULL},        {"color", 0, "", NULL},
	{"config", 0, "", NULL},       {"config-file", 0, "", NULL},
	{"name", 0, "", NULL},         {"revision", 'r', "", NULL},
	{"message", 'm', "", NULL},    {"sparse-patterns", 0, "", NULL},
	{"template", 'T', "", NULL},   {NULL, 0, NULL, NULL},
};

/* One option as it stands in argv: "--name", "--name=value", "-n", "-nvalue". */
struct spelled {
	const char *name; /* not terminated */
	size_t len;
	char letter;
	const char *attached; /* value in the same argument; NULL: none */
};

static struct spelled spell(const char *arg)
{
	if (arg[1] != '-')
		return (struct spelled){NULL, 0, arg[1], arg[2] ? arg + 2 : NULL};
	const char *equals = strchr(arg, '=');
	size_t len = equals ? (size_t)(equals - arg) - 2 : strlen(arg) - 2;
	return (struct spelled){arg + 2, len, 0, equals ? equals + 1 : NULL};
}

static bool is(const struct spelled *s, const char *name, char letter)
{
	return s->name ? strlen(name) == s->len && !strncmp(name, s->name, s->len) : letter && s->letter == letter;
}

static const struct option *find(const struct option *options, const struct spelled *s)
{
	for (const struct option *o = options; o && o->name; o++)
		if (is(s, o->name, o->letter))
			return o;
	return NULL;
}

static void push(char ***v, char *s)
{
	strv_push(v, s); /* elements are borrowed: arguments_release frees the array alone */
}

static int take_own(const struct option *o, const struct spelled *s, char *const *argv, struct arguments *ret, struct error *err);

/* "-it" is "-i -t". */
static int take_letters(const struct spelled *s, char *const *argv, struct arguments *ret, struct error *err)
{
	const struct spelled next = {NULL, 0, s->attached[0], s->attached[1] ? s->attached + 1 : NULL};
	const struct option *o = s->name ? NULL : find(ret->options, &next);
	return o ? take_own(o, &next, argv, ret, err) : error_set(err, ERROR_USAGE, "%s takes no value", argv[0]);
}

/* An option of ours. Returns how many arguments it took (1 or 2). */
static int take_own(const struct option *o, const struct spelled *s, char *const *argv, struct arguments *ret,
                    struct error *err)
{
	size_t i = (size_t)(o - ret->options);
	if (!o->value) {
		ret->values[i] = "";
		return s->attached ? take_letters(s, argv, ret, err) : 1;
	}
	ret->values[i] = s->attached ? s->attached : argv[1];
	if (!ret->values[i])
		return error_set(err, ERROR_USAGE, "%s wants %s", argv[0], o->value);
	push(&ret->given, (char *)o->name);
	push(&ret->given, (char *)ret->values[i]);
	return s->attached ? 1 : 2;
}

static int take_option(char *const *argv, enum arguments_mode mode, struct arguments *ret, struct error *err)
{
	struct spelled s = spell(argv[0]);
	const struct option *o = find(ret->options, &s);

	if (o)
		return take_own(o, &s, argv, ret, err);
	if (is(&s, "json", 0) && !s.attached) {
		ret->json = true;
		return 1;
	}
	if (is(&s, "help", 'h') && !s.attached) {
		ret->help = true;
		return 1;
	}
	if (mode != ARGUMENTS_PASS)
		return error_set(err, ERROR_USAGE, "unknown option %s", argv[0]);
	push(&ret->rest, argv[0]);
	if (!find(jj_options, &s) || s.attached || !argv[1])
		return 1;
	push(&ret->rest, argv[1]);
	return 2;
}

static void take_words(char *const *argv, enum arguments_mode mode, struct arguments *ret)
{
	for (; *argv; argv++) {
		push(&ret->words, *argv);
		if (mode == ARGUMENTS_PASS)
			push(&ret->rest, *argv);
	}
}

/* One step. Returns how many arguments it took. */
static int take_next(char *const *argv, enum arguments_mode mode, struct arguments *ret, struct error *err)
{
	if (**argv == '-' && (*argv)[1] && strcmp(*argv, "--"))
		return take_option(argv, mode, ret, err);
	if (!strcmp(*argv, "--")) {
		if (mode == ARGUMENTS_PASS)
			push(&ret->rest, *argv);
		take_words(argv + 1, mode, ret);
		return (int)strv_len(argv);
	}
	if (mode == ARGUMENTS_STOP) {
		take_words(argv, mode, ret);
		return (int)strv_len(argv);
	}
	push(&ret->words, *argv);
	if (mode == ARGUMENTS_PASS)
		push(&ret->rest, *argv);
	return 1;
}

int arguments_parse(char *const *argv, const struct option *options, enum arguments_mode mode, struct arguments *ret,
                    struct error *err)
{
	size_t count = 0;
	while (options && options[count].name)
		count++;
	*ret = (struct arguments){.options = options, .values = xcalloc(count + 1, sizeof *ret->values)};
	if (mode == ARGUMENTS_RAW)
		take_words(argv, mode, ret);
	while (mode != ARGUMENTS_RAW && *argv) {
		int n = take_next(argv, mode, ret, err);
		if (n < 0) {
			arguments_release(ret);
			return n;
		}
		argv += n;
	}
	return 0;
}

void arguments_release(struct arguments *args)
{
	free(args->values);
	free(args->given);
	free(args->words);
	free(args->rest);
	*args = (struct arguments){0};
}

const char *arguments_value(const struct arguments *args, const char *name)
{
	for (size_t i = 0; args->options && args->options[i].name; i++)
		if (!strcmp(args->options[i].name, name))
			return args->values[i];
	abort(); /* not in the command's table: a mistake in the program */
}

const char *arguments_value_at(const struct arguments *args, const char *name, size_t nth)
{
	for (char *const *at = args->given; at && *at; at += 2)
		if (!strcmp(at[0], name) && !nth--)
			return at[1];
	return NULL;
}

unsigned arguments_word_count(const struct arguments *args)
{
	return (unsigned)strv_len(args->words);
}

const char *jj_option_value(char *const *argv, const char *name, char letter)
{
	const char *value = NULL;
	for (; argv && *argv && strcmp(*argv, "--"); argv++) {
		if (**argv != '-' || !(*argv)[1])
			continue;
		struct spelled s = spell(*argv);
		const struct option *o = find(jj_options, &s);
		if (o && is(&s, name, letter))
			value = s.attached ? s.attached : argv[1];
		if (o && !s.attached && argv[1])
			argv++;
	}
	return value;
}
