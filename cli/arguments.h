/* What stands after a command's name, read by that command's table of options. Pure; libc and base alone.
 *
 * Two kinds of commands need more than getopt: `ajj run` ends its own options at the first word, and `ajj workspace add`
 * hands on, in their order, options that only jj knows (ARGUMENTS_PASS), of which it must find the word DEST.
 */
#ifndef CLI_ARGUMENTS_H
#define CLI_ARGUMENTS_H

#include <stdbool.h>

#include "base/error.h"

struct option {
	const char *name;  /* without dashes; NULL ends a table */
	char letter;       /* 0: none */
	const char *value; /* what the help calls its value; NULL: a flag */
	const char *help;
};

enum arguments_mode {
	ARGUMENTS_OWN,  /* every option must be in the table */
	ARGUMENTS_STOP, /* the first word ends the options: the rest is somebody else's command line */
	ARGUMENTS_PASS, /* unknown options are jj's */
	ARGUMENTS_RAW   /* everything is: nothing is looked at */
};

struct arguments {
	const struct option *options; /* borrowed */
	const char **values; /* parallel to options: NULL not given, "" a flag given; borrowed from argv */
	char **given;        /* "name" and its value for each that was, in their order, as often as it was; elements borrowed */
	char **words;        /* what is no option; elements borrowed from argv, NULL-terminated */
	char **rest;         /* ARGUMENTS_PASS: all that is not in the table, in its order; elements borrowed */
	bool json, help;     /* --json and -h, --help, which every command takes */
};

/* `argv` is NULL-terminated and begins after the command's name; it must outlive `ret`. USAGE on failure. */
int arguments_parse(char *const *argv, const struct option *options, enum arguments_mode mode, struct arguments *ret,
                    struct error *err);
void arguments_release(struct arguments *args);
#define cleanup_arguments __attribute__((cleanup(arguments_release)))

/* borrowed; NULL when the option was not given. `name` must be in the table. */
const char *arguments_value(const struct arguments *args, const char *name);
/* The value of the `nth` time that it was given, from 0; NULL: it was not so often. */
const char *arguments_value_at(const struct arguments *args, const char *name, size_t nth);
static inline bool arguments_flag(const struct arguments *args, const char *name)
{
	return arguments_value(args, name) != NULL;
}
unsigned arguments_word_count(const struct arguments *args);

/* The value of a jj option in a command line for jj ("-R x", "-Rx", "--repository=x"); the last one wins.
 * borrowed; NULL: not given. */
const char *jj_option_value(char *const *argv, const char *name, char letter);

#endif
