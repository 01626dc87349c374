/* The commands of ajj. Each is one file, cmd_*.c, that ends in a const struct command; commands.c lists them. This
 * table alone drives dispatch, help, and the test of the shell completions. */
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

#include "cli/arguments.h"

#define COMMAND_WORDS_ANY 1000u

struct command {
	const char *name;      /* "up", "workspace add" */
	const char *arguments; /* "DEST", "[SERVICE...]"; "" when it takes none */
	const char *summary;   /* one line, lower case, no full stop */
	const char *help;      /* a paragraph after the usage line, wrapped when it is printed; may be NULL */
	const struct option *options; /* may be NULL */
	enum arguments_mode mode;
	bool looks_away;              /* not preceded by reconcile() */
	bool looks_closely;           /* reconcile(true) */
	unsigned words_min, words_max; /* of words that are no options */
	/* Returns the exit code, or a negative errno with `err` set. */
	int (*run)(const struct arguments *args, struct error *err);
};

/* NULL-terminated, in the order of the help */
extern const struct command *const commands[];

/* The command that argv (NULL-terminated, without the program) names, and how many words its name has. NULL: none of ours. */
const struct command *command_find(char *const *argv, unsigned *ret_words);
/* Is `word` the first of a name like "trash list"? */
bool command_is_family(const char *word);

/* The others of the family, "list|restore|empty"; new. */
char *command_family(const char *word);

/* Prints the help of one command, or of all (NULL), on stdout; with --json the table as a document. */
void help_print(const struct command *command);
/* The same of a family's members. */
void help_print_family(const char *word);

#endif
