/* What must be known of a Dockerfile before an engine has it: the images that it begins with, and which builder understands it.
 * https://docs.docker.com/reference/dockerfile/ */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "backends/build.h"
#include "base/alloc.h"
#include "base/cleanup.h"

struct reading {
	struct build_file *file;
	const struct keyvals *args;
	struct keyvals global; /* ARG before the first FROM */
	char **stages;
	bool begun; /* a FROM was there */
	char escape;
	char **heredocs; /* the words that end those of this line, in their order */
};

static const char *const platform_args[] = {"BUILDPLATFORM", "BUILDOS", "BUILDARCH", "BUILDVARIANT", "TARGETPLATFORM", "TARGETOS", "TARGETARCH", "TARGETVARIANT", NULL};

static bool is_platform_arg(const char *name, size_t len)
{
	for (size_t i = 0; platform_args[i]; i++)
		if (strlen(platform_args[i]) == len && !strncmp(platform_args[i], name, len))
			return true;
	return false;
}

static void needs_buildkit(struct reading *r, const char *what)
{
	if (!r->file->buildkit)
		r->file->buildkit = what;
}

/* ---- words ---- */

static bool next_word(const char **at, char **ret)
{
	const char *word = *at + strspn(*at, " \t");
	size_t n = strcspn(word, " \t");
	*at = word + n;
	free(*ret);
	*ret = n ? xstrndup(word, n) : NULL;
	return n > 0;
}

static const char *value_of(const struct reading *r, const char *name)
{
	const char *given = keyvals_has(&r->global, name) ? keyvals_get(r->args, name) : NULL;
	return given ? given : keyvals_get(&r->global, name);
}

/* $NAME, ${NAME}, ${NAME:-default}. new; NULL: only the engine knows */
static char *expanded(const struct reading *r, const char *text)
{
	struct buffer out = BUFFER_INIT;
	bool known = true;
	while (*text && known) {
		if (*text != '$') {
			buffer_addc(&out, *text++);
			continue;
		}
		bool braces = text[1] == '{';
		const char *name = text + 1 + braces;
		size_t n = 0;
		while (isalnum((unsigned char)name[n]) || name[n] == '_')
			n++;
		cleanup_free char *key = xstrndup(name, n);
		const char *value = value_of(r, key), *rest = name + n;
		size_t len = value ? strlen(value) : 0;
		if (braces && (!strncmp(rest, ":-", 2) || *rest == '-')) {
			const char *other = rest + 1 + (*rest == ':');
			size_t other_len = strcspn(other, "}");
			if (!len) {
				value = other;
				len = other_len;
			}
			rest = other + other_len;
		}
		known = value && n && (!braces || *rest == '}');
		buffer_add(&out, value ? value : "", len);
		text = rest + (braces && *rest);
	}
	char *result = known && out.len ? xstrdup(buffer_str(&out)) : NULL;
	buffer_release(&out);
	return result;
}

static void add_image(struct reading *r, const char *name)
{
	cleanup_free char *image = expanded(r, name);
	if (!image || !strcmp(image, "scratch") || image[strspn(image, "0123456789")] == '\0')
		return;
	for (char **stage = r->stages; stage && *stage; stage++)
		if (!strcasecmp(*stage, image))
			return;
	if (!strv_contains(r->file->images, image))
		strv_push(&r->file->images, move_ptr(image));
}

/* ---- instructions ---- */

static void read_from(struct reading *r, const char *rest)
{
	cleanup_free char *word = NULL, *as = NULL, *stage = NULL;
	r->begun = true;
	while (next_word(&rest, &word) && !strncmp(word, "--", 2)) {
		const char *variable = strchr(word, '$');
		const char *name = variable ? variable + 1 + (variable[1] == '{') : "";
		if (variable && is_platform_arg(name, strcspn(name, "}:-/")))
			needs_buildkit(r, "FROM --platform=$BUILDPLATFORM");
	}
	if (!word)
		return;
	add_image(r, word);
	if (next_word(&rest, &as) && !strcasecmp(as, "as") && next_word(&rest, &stage))
		strv_push(&r->stages, move_ptr(stage));
}

static void read_arg(struct reading *r, const char *rest)
{
	cleanup_free char *word = NULL;
	while (next_word(&rest, &word)) {
		char *equals = strchr(word, '=');
		size_t n = equals ? (size_t)(equals - word) : strlen(word);
		if (!equals && is_platform_arg(word, n) && !keyvals_get(r->args, word))
			needs_buildkit(r, "ARG TARGETPLATFORM and its kind");
		if (r->begun)
			continue;
		cleanup_free char *key = xstrndup(word, n), *text = equals ? xstrdup(equals + 1) : NULL;
		size_t len = text ? strlen(text) : 0;
		bool quoted = len > 1 && (*text == '"' || *text == '\'') && text[len - 1] == *text;
		cleanup_free char *value = text ? xstrndup(text + quoted, len - 2 * quoted) : NULL;
		cleanup_free char *whole = value ? expanded(r, value) : NULL;
		keyvals_set(&r->global, key, whole);
	}
}

/* type=bind,from=IMAGE */
static void read_mount(struct reading *r, const char *text)
{
	for (; *text; text += strcspn(text, ",") + (text[strcspn(text, ",")] == ',')) {
		size_t n = strcspn(text, ",");
		if (strncmp(text, "from=", 5))
			continue;
		cleanup_free char *image = xstrndup(text + 5, n - 5);
		add_image(r, image);
	}
}

static const struct {
	const char *instruction, *flag, *what;
} flags[] = {
    {"RUN", "--mount", "RUN --mount"},
    {"RUN", "--network", "RUN --network"},
    {"RUN", "--security", "RUN --security"},
    {"RUN", "--device", "RUN --device"},
    {"COPY", "--link", "COPY --link"},
    {"COPY", "--chmod", "COPY --chmod"},
    {"COPY", "--parents", "COPY --parents"},
    {"COPY", "--exclude", "COPY --exclude"},
    {"ADD", "--link", "ADD --link"},
    {"ADD", "--chmod", "ADD --chmod"},
    {"ADD", "--checksum", "ADD --checksum"},
    {"ADD", "--keep-git-dir", "ADD --keep-git-dir"},
    {"ADD", "--unpack", "ADD --unpack"},
    {"ADD", "--exclude", "ADD --exclude"},
};

static void read_flag(struct reading *r, const char *instruction, const char *word)
{
	size_t n = strcspn(word, "=");
	const char *value = word[n] ? word + n + 1 : "";
	for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
		if (!strcasecmp(instruction, flags[i].instruction) && strlen(flags[i].flag) == n && !strncmp(word, flags[i].flag, n))
			needs_buildkit(r, flags[i].what);
	if (!strncmp(word, "--from=", 7))
		add_image(r, value);
	if (!strncmp(word, "--mount=", 8))
		read_mount(r, value);
}

/* A word `<<EOF`, `<<-"EOF"`, `3<<EOF`. */
static void read_heredoc(struct reading *r, const char *word)
{
	word += strspn(word, "0123456789");
	if (strncmp(word, "<<", 2) || word[2] == '<')
		return;
	word += 2 + (word[2] == '-');
	word += *word == '"' || *word == '\'';
	size_t n = strcspn(word, "\"'");
	if (!n || !(isalpha((unsigned char)*word) || *word == '_'))
		return;
	r->file->heredocs = true;
	needs_buildkit(r, "heredocs (<<EOF)");
	strv_push(&r->heredocs, xstrndup(word, n));
}

static void read_flagged(struct reading *r, const char *instruction, const char *rest)
{
	cleanup_free char *word = NULL;
	bool begins = true;
	while (next_word(&rest, &word)) {
		begins = begins && !strncmp(word, "--", 2);
		if (begins)
			read_flag(r, instruction, word);
		else
			read_heredoc(r, word);
	}
}

static void read_instruction(struct reading *r, const char *line)
{
	cleanup_free char *word = NULL;
	if (!next_word(&line, &word))
		return;
	if (!strcasecmp(word, "FROM"))
		read_from(r, line);
	else if (!strcasecmp(word, "ARG"))
		read_arg(r, line);
	else if (!strcasecmp(word, "RUN") || !strcasecmp(word, "COPY") || !strcasecmp(word, "ADD"))
		read_flagged(r, word, line);
}

/* ---- lines ---- */

/* "# syntax=x" of the lines at the top, that all look like this; *ret is new */
static bool read_directive(const char *line, size_t len, char **key, char **value)
{
	cleanup_free char *text = xstrndup(line, len);
	char *at = text + strspn(text, " \t"), *equals = strchr(at, '=');
	if (*at != '#' || !equals)
		return false;
	at += 1 + strspn(at + 1, " \t");
	size_t n = strcspn(at, " \t="), skipped = strspn(equals + 1, " \t");
	if (!n || at + n + strspn(at + n, " \t") != equals)
		return false;
	char *word = equals + 1 + skipped;
	*key = xstrndup(at, n);
	*value = xstrndup(word, strcspn(word, " \t\r"));
	return true;
}

/* Docker's own is what the engine has in it; it is fetched only where another is asked for. */
static bool is_docker_frontend(const char *name)
{
	const char *const prefix[] = {"docker/dockerfile", "docker.io/docker/dockerfile"};
	for (size_t i = 0; i < 2; i++) {
		size_t n = strlen(prefix[i]);
		if (!strncmp(name, prefix[i], n) && (!name[n] || (name[n] == ':' && !strstr(name, "labs"))))
			return true;
	}
	return false;
}

/* Returns where the instructions begin. */
static const char *read_directives(struct reading *r, const char *text)
{
	struct buffer plain = BUFFER_INIT;
	const char *at = text;
	bool stripped = false;
	for (;;) {
		size_t n = strcspn(at, "\n"), whole = n + (at[n] == '\n');
		cleanup_free char *key = NULL, *value = NULL;
		if (!read_directive(at, n, &key, &value))
			break;
		bool syntax = !strcasecmp(key, "syntax");
		if (!strcasecmp(key, "escape") && *value == '`')
			r->escape = '`';
		if (syntax && !is_docker_frontend(value)) {
			r->file->frontend = true;
			needs_buildkit(r, "# syntax= with another frontend");
		}
		if (syntax && !r->file->frontend)
			stripped = true;
		else
			buffer_add(&plain, at, whole);
		at += whole;
	}
	buffer_adds(&plain, at);
	if (stripped)
		r->file->plain = xstrdup(buffer_str(&plain));
	buffer_release(&plain);
	return at;
}

static const char *skip_heredocs(struct reading *r, const char *at)
{
	for (char **end = r->heredocs; end && *end; end++)
		while (*at) {
			size_t n = strcspn(at, "\n"), tabs = strspn(at, "\t"), len = strlen(*end);
			bool ends = n >= tabs && n - tabs == len && !strncmp(at + tabs, *end, len);
			at += n + (at[n] == '\n');
			if (ends)
				break;
		}
	strv_free(move_ptr(r->heredocs));
	return at;
}

void build_file_read(const char *text, const struct keyvals *args, struct build_file *ret)
{
	struct reading r = {.file = ret, .args = args, .escape = '\\'};
	cleanup_buffer struct buffer line = BUFFER_INIT;
	*ret = (struct build_file){.images = NULL};
	const char *at = read_directives(&r, text);
	while (*at) {
		const char *begin = at + strspn(at, " \t"), *stop = at + strcspn(at, "\n");
		at = stop + (*stop == '\n');
		while (stop > begin && strchr(" \t\r", stop[-1]))
			stop--;
		if (*begin == '#' || begin >= stop)
			continue; /* also between the lines of one instruction */
		bool goes_on = stop[-1] == r.escape;
		buffer_add(&line, begin, (size_t)(stop - begin) - goes_on);
		buffer_addc(&line, ' ');
		if (goes_on)
			continue;
		read_instruction(&r, buffer_str(&line));
		buffer_clear(&line);
		at = skip_heredocs(&r, at);
	}
	read_instruction(&r, buffer_str(&line));
	keyvals_release(&r.global);
	strv_free(r.stages);
	strv_free(r.heredocs);
}

void build_file_release(struct build_file *f)
{
	strv_free(f->images);
	free(f->plain);
	*f = (struct build_file){.images = NULL};
}
