#include "fs/mount_options.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fs/shared.h"

enum option_kind {
	OPTION_BIT,         /* sets `bit` */
	OPTION_TEXT,        /* NAME=TEXT; kept where `text` says */
	OPTION_NUMBER,      /* NAME=NUMBER; the same */
	OPTION_FLAG,        /* sets the bool where `text` says */
	OPTION_KERNEL,      /* passed on as it is */
	OPTION_KERNEL_ROOT, /* passed on by root; an ordinary user's mount never has it, and fusermount3 would say so */
	OPTION_IGNORED,     /* what mount(8), fstab and their friends add for themselves */
	OPTION_NOT_YET      /* known, and refused */
};

struct option {
	const char *name; /* up to the "=" included where a text follows */
	enum option_kind kind;
	uint32_t bit;
	size_t where;     /* offset in struct mount_options */
	const char *help; /* NULL: not listed */
};

static const struct option options[] = {
	{"listed", OPTION_BIT, MOUNT_LISTED, 0, "readdir shows .env and .aether"},
	{"allow_other", OPTION_BIT, MOUNT_ALLOW_OTHER, 0, "other users may look in, or it is an error (as it is, they may where it is allowed)"},
	{"cache=strict", OPTION_BIT, MOUNT_CACHE_STRICT, 0, "nothing is cached: for directories that others change behind the mount"},
	{"noprewarm", OPTION_BIT, MOUNT_NO_PREWARM, 0, "no walk through the fresh mount"},
	{"overlay=off", OPTION_BIT, MOUNT_NO_OVERLAY, 0, "the directory stays as it is: links to the control file system, which alone is mounted"},
	{"plain", OPTION_BIT, MOUNT_PLAIN, 0, "nothing is mounted: a real .env and real files in .aether/, as by ajj up --plain"},
	{"workspace=", OPTION_TEXT, 0, offsetof(struct mount_options, workspace), "the workspace's name; a comma in it is written \\,"},
	{"watchdog=", OPTION_NUMBER, 0, offsetof(struct mount_options, watchdog_s), "seconds without a sign of life until a server is replaced (30; 0: never)"},
	{"ro", OPTION_KERNEL, 0, 0, "read-only"},
	{"json", OPTION_FLAG, 0, offsetof(struct mount_options, json), "errors as one JSON object, as with AETHER_JSON_ERRORS=1"},
	{"no_resend", OPTION_FLAG, 0, offsetof(struct mount_options, mask_resend), NULL},
	{"io=passthrough", OPTION_NOT_YET, 0, 0, NULL},
	{"suid", OPTION_KERNEL_ROOT, 0, 0, NULL},
	{"dev", OPTION_KERNEL_ROOT, 0, 0, NULL},
	{"nosuid", OPTION_KERNEL, 0, 0, NULL},
	{"nodev", OPTION_KERNEL, 0, 0, NULL},
	{"exec", OPTION_KERNEL, 0, 0, NULL},
	{"noexec", OPTION_KERNEL, 0, 0, NULL},
	{"sync", OPTION_KERNEL, 0, 0, NULL},
	{"dirsync", OPTION_KERNEL, 0, 0, NULL},
	/* times are those of the file system beneath; the rest is for the programs that call us */
	{"rw", OPTION_IGNORED, 0, 0, NULL},
	{"async", OPTION_IGNORED, 0, 0, NULL},
	{"atime", OPTION_IGNORED, 0, 0, NULL},
	{"noatime", OPTION_IGNORED, 0, 0, NULL},
	{"relatime", OPTION_IGNORED, 0, 0, NULL},
	{"norelatime", OPTION_IGNORED, 0, 0, NULL},
	{"default_permissions", OPTION_IGNORED, 0, 0, NULL},
	{"defaults", OPTION_IGNORED, 0, 0, NULL},
	{"auto", OPTION_IGNORED, 0, 0, NULL},
	{"noauto", OPTION_IGNORED, 0, 0, NULL},
	{"nofail", OPTION_IGNORED, 0, 0, NULL},
	{"user", OPTION_IGNORED, 0, 0, NULL},
	{"user=", OPTION_IGNORED, 0, 0, NULL},
	{"users", OPTION_IGNORED, 0, 0, NULL},
	{"nouser", OPTION_IGNORED, 0, 0, NULL},
	{"owner", OPTION_IGNORED, 0, 0, NULL},
	{"group", OPTION_IGNORED, 0, 0, NULL},
	{"_netdev", OPTION_IGNORED, 0, 0, NULL},
	{"comment=", OPTION_IGNORED, 0, 0, NULL},
	{"x-", OPTION_IGNORED, 0, 0, NULL},
};

/* Does the word name this option? *ret_text is what follows the name, "" for one that takes nothing. */
static bool names(const struct option *o, const char *word, const char **ret_text)
{
	size_t len = strlen(o->name);
	bool takes_text = strchr("=-", o->name[len - 1]);
	if (strncmp(word, o->name, len) || (!takes_text && word[len]))
		return false;
	*ret_text = word + len;
	return true;
}

static void pass_on(struct mount_options *o, const char *word)
{
	size_t len = strlen(o->kernel);
	cleanup_free char *found = xasprintf(",%s,", o->kernel), *wanted = xasprintf(",%s,", word);
	if (!strstr(found, wanted)) /* once each: the table bounds the sum */
		snprintf(o->kernel + len, sizeof o->kernel - len, "%s%s", len ? "," : "", word);
}

static int take_number(const char *name, const char *text, unsigned *ret, struct error *err)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || n > MOUNT_NUMBER_MAX)
		return error_set(err, ERROR_USAGE, "the mount option '%s' wants a number, not '%s'", name, text);
	*ret = (unsigned)n;
	return 0;
}

static int take(struct mount_options *o, const char *word, struct error *err)
{
	const struct option *found = NULL;
	const char *text = "";
	for (size_t i = 0; !found && i < sizeof options / sizeof options[0]; i++)
		if (names(&options[i], word, &text))
			found = &options[i];
	if (!found) {
		error_set(err, ERROR_USAGE, "unknown mount option '%s'", word);
		return error_hint(err, "aetherfs --help lists them");
	}
	void *where = (char *)o + found->where;
	switch (found->kind) {
	case OPTION_BIT:
		o->bits |= found->bit;
		break;
	case OPTION_FLAG:
		*(bool *)where = true;
		break;
	case OPTION_TEXT:
		if (!*text)
			return error_set(err, ERROR_USAGE, "the mount option '%s' wants a text", found->name);
		free(*(char **)where);
		*(char **)where = xstrdup(text);
		break;
	case OPTION_NUMBER:
		return take_number(found->name, text, where, err);
	case OPTION_KERNEL:
		pass_on(o, word);
		break;
	case OPTION_KERNEL_ROOT:
		if (geteuid() == 0)
			pass_on(o, word);
		break;
	case OPTION_IGNORED:
		break;
	case OPTION_NOT_YET:
		error_set(err, ERROR_USAGE, "the mount option '%s' is not implemented yet", word);
		return error_hint(err, "mount without it");
	}
	return 0;
}

/* Words between commas; a backslash takes the next character as it is. All are taken, so that a `json` behind what is
 * wrong counts; the first error is told. */
static void take_list(struct mount_options *o, const char *list, struct error *err)
{
	cleanup_free char *word = xcalloc(1, strlen(list) + 1);
	size_t len = 0;
	for (const char *p = list;; p++) {
		cleanup_error struct error e = ERROR_INIT;
		if (*p == '\\' && p[1]) {
			word[len++] = *++p;
			continue;
		}
		if (*p && *p != ',') {
			word[len++] = *p;
			continue;
		}
		word[len] = '\0';
		if (len && take(o, word, &e) && !error_is_set(err))
			error_move(err, &e);
		len = 0;
		if (!*p)
			return;
	}
}

/* `-o LIST` and `-oLIST` */
static void take_lists(int argc, char *const *argv, struct mount_options *o, struct error *err)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--"); i++) {
		if (strncmp(argv[i], "-o", 2))
			continue;
		const char *list = argv[i][2] ? argv[i] + 2 : i + 1 < argc ? argv[++i] : NULL;
		if (list)
			take_list(o, list, err);
		else if (!error_is_set(err))
			error_set(err, ERROR_USAGE, "-o wants options");
	}
}

static int take_words(int argc, char *const *argv, struct mount_options *o, struct error *err)
{
	static const struct {
		const char *name;
		size_t where;
	} flags[] = {{"-f", offsetof(struct mount_options, foreground)},
	             {"-h", offsetof(struct mount_options, help)},
	             {"--help", offsetof(struct mount_options, help)},
	             {"-V", offsetof(struct mount_options, version)},
	             {"--version", offsetof(struct mount_options, version)}};
	const char *places[2] = {NULL, NULL};
	int n = 0;
	bool only_places = false;
	for (int i = 1; i < argc; i++) {
		const char *word = argv[i];
		if (!only_places && !strcmp(word, "--")) {
			only_places = true;
		} else if (!only_places && !strncmp(word, "-o", 2)) {
			i += !word[2];
		} else if (only_places || word[0] != '-' || !word[1]) {
			if (n < 2)
				places[n] = word;
			n++;
		} else {
			bool known = false;
			for (size_t f = 0; f < sizeof flags / sizeof flags[0]; f++)
				if (!strcmp(word, flags[f].name))
					known = *(bool *)((char *)o + flags[f].where) = true;
			if (!known) {
				error_set(err, ERROR_USAGE, "unknown option %s", word);
				return error_hint(err, "aetherfs --help");
			}
		}
	}
	if (o->help || o->version)
		return 0;
	if (n < 1 || n > 2) {
		error_set(err, ERROR_USAGE, n ? "one directory is wanted, and before it a source at most" : "a directory is wanted");
		return error_hint(err, "aetherfs DIR");
	}
	o->dir = xstrdup(places[n - 1]); /* mount(8) gives a source first */
	return 0;
}

int mount_options_parse(int argc, char *const *argv, struct mount_options *ret, struct error *err)
{
	struct mount_options o = {.watchdog_s = MOUNT_WATCHDOG_S};
	cleanup_error struct error e = ERROR_INIT; /* the caller may want none, but it is asked here */
	take_lists(argc, argv, &o, &e);
	if (!error_is_set(&e))
		take_words(argc, argv, &o, &e);
	int r = -e.err;
	if (r && err)
		error_move(err, &e);
	*ret = o;
	return r;
}

void mount_options_list(const struct mount_options *o, struct buffer *out)
{
	for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
		if (options[i].kind == OPTION_BIT && o->bits & options[i].bit)
			buffer_printf(out, "%s\n", options[i].name);
	if (o->watchdog_s != MOUNT_WATCHDOG_S)
		buffer_printf(out, "watchdog=%u\n", o->watchdog_s);
	for (const char *p = o->kernel; *p; p += strcspn(p, ","), p += *p == ',')
		buffer_printf(out, "%.*s\n", (int)strcspn(p, ","), p);
}

void mount_options_help(FILE *out)
{
	fputs("usage: aetherfs [-f] [-o OPTION,...] [SOURCE] DIR\n"
	      "Lays itself over DIR in place and gives it .env and .aether/. Unmount with: fusermount3 -u DIR\n\n"
	      "  -f                stay in the foreground; messages go to standard error\n"
	      "  --help, --version\n\n"
	      "mount options, beside ro, nosuid, nodev, noexec, sync and dirsync:\n",
	      out);
	for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
		cleanup_free char *name = xasprintf("%s%s", options[i].name, options[i].kind == OPTION_TEXT ? "NAME" : "");
		if (options[i].help)
			fprintf(out, "  -o %-15s %s\n", name, options[i].help);
	}
}

void mount_options_release(struct mount_options *o)
{
	free(o->dir);
	free(o->workspace);
	*o = (struct mount_options){0};
}
