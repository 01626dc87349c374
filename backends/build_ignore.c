/* .dockerignore, as moby's patternmatcher reads it (https://pkg.go.dev/github.com/moby/patternmatcher): each line is a pattern that matches a whole
 * path or that of a directory above it; the last one that matches decides. */
#include <stdlib.h>
#include <string.h>

#include "backends/build.h"
#include "base/alloc.h"
#include "base/cleanup.h"

struct pattern {
	char *text;
	size_t literal; /* bytes at its begin without a special one */
	bool in_again;  /* ! */
	bool suffix;    /* `**x`, and x nothing special: whatever ends in it */
};

struct build_ignore {
	struct pattern *patterns;
	size_t n;
	bool any_in_again;
};

/* ---- patterns ---- */

/* As Go's path.Clean. */
static char *clean(const char *path)
{
	struct buffer out = BUFFER_INIT;
	bool rooted = *path == '/';
	size_t floor = 0; /* what a `..` may not take away */
	while (*path) {
		size_t n = strcspn(path, "/");
		if (n == 2 && !strncmp(path, "..", 2) && out.len > floor) {
			while (out.len > floor && out.data[out.len - 1] != '/')
				out.len--;
			if (out.len > floor)
				out.len--;
		} else if (n == 2 && !strncmp(path, "..", 2) && !rooted) {
			buffer_adds(&out, out.len ? "/.." : "..");
			floor = out.len;
		} else if (n && !(n == 1 && *path == '.') && !(n == 2 && !strncmp(path, "..", 2))) {
			if (out.len)
				buffer_addc(&out, '/');
			buffer_add(&out, path, n);
		}
		path += n + (path[n] == '/');
	}
	char *text = xasprintf("%.*s", (int)out.len, buffer_str(&out));
	buffer_release(&out);
	if (*text)
		return text;
	free(text);
	return xstrdup(rooted ? "/" : ".");
}

static char *trimmed(const char *text, size_t len)
{
	static const char space[] = " \t\r\n\v\f";
	while (len && strchr(space, *text)) {
		text++;
		len--;
	}
	while (len && strchr(space, text[len - 1]))
		len--;
	return xstrndup(text, len);
}

static int add_pattern(struct build_ignore *g, const char *line, size_t len, unsigned number, struct error *err)
{
	cleanup_free char *text = trimmed(line, len);
	if (line[0] == '#' || !*text)
		return 0;
	bool in_again = *text == '!';
	cleanup_free char *rest = trimmed(text + in_again, strlen(text + in_again));
	if (!*rest)
		return error_set(err, ERROR_CONFIG_INVALID, "line %u: a ! wants a pattern", number);
	struct pattern p = {.text = clean(rest), .in_again = in_again};
	if (p.text[0] == '/' && p.text[1])
		memmove(p.text, p.text + 1, strlen(p.text));
	p.literal = strcspn(p.text, "*?[\\");
	p.suffix = !strncmp(p.text, "**", 2) && p.text[2] != '/' && !p.text[2 + strcspn(p.text + 2, "*?[]\\")];
	array_grow(g->patterns, g->n);
	g->patterns[g->n++] = p;
	g->any_in_again |= in_again;
	return 0;
}

int build_ignore_parse(const char *text, struct build_ignore **ret, struct error *err)
{
	struct build_ignore *g = xcalloc(1, sizeof *g);
	int r = 0;
	if (!strncmp(text, "\xef\xbb\xbf", 3))
		text += 3;
	for (unsigned number = 1; r == 0 && *text; number++) {
		size_t n = strcspn(text, "\n");
		r = add_pattern(g, text, n, number, err);
		text += n + (text[n] == '\n');
	}
	if (r < 0)
		build_ignore_free(g);
	else
		*ret = g;
	return r;
}

void build_ignore_free(struct build_ignore *g)
{
	for (size_t i = 0; g && i < g->n; i++)
		free(g->patterns[i].text);
	if (g)
		free(g->patterns);
	free(g);
}

/* ---- matching ---- */

/* After the `[`; *ret is behind the `]`. An unfinished class matches nothing. */
static bool class_matches(const char *class, char c, const char **ret)
{
	bool negated = *class == '^', found = false;
	class += negated;
	for (bool first = true; *class && (first || *class != ']'); first = false) {
		if (*class == '\\' && class[1])
			class++;
		char low = *class++, high = low;
		if (*class == '-' && class[1] && class[1] != ']') {
			class += 1 + (class[1] == '\\' && class[2]);
			high = *class++;
		}
		found |= (unsigned char)low <= (unsigned char)c && (unsigned char)c <= (unsigned char)high;
	}
	*ret = *class ? class + 1 : NULL;
	return *ret && found != negated;
}

static bool glob(const char *pattern, const char *path);

/* `**`: nothing, or anything up to a slash; at the end anything. */
static bool glob_any(const char *pattern, const char *path)
{
	pattern += *pattern == '/';
	if (!*pattern || glob(pattern, path))
		return true;
	for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/'))
		if (glob(pattern, slash + 1))
			return true;
	return false;
}

static bool glob_star(const char *pattern, const char *path)
{
	for (;; path++) {
		if (glob(pattern, path))
			return true;
		if (!*path || *path == '/')
			return false;
	}
}

static bool glob(const char *pattern, const char *path)
{
	for (; *pattern; path++) {
		if (!strncmp(pattern, "**", 2))
			return glob_any(pattern + 2, path);
		if (*pattern == '*')
			return glob_star(pattern + 1, path);
		if (!*path)
			return false;
		if (*pattern == '[') {
			if (!class_matches(pattern + 1, *path, &pattern))
				return false;
			continue;
		}
		bool any = *pattern == '?';
		if (*pattern == '\\' && pattern[1])
			pattern++;
		if (any ? *path == '/' : *pattern != *path)
			return false;
		pattern++;
	}
	return !*path;
}

static bool pattern_matches(const struct pattern *p, const char *path)
{
	size_t tail = strlen(p->text) - 2, len = strlen(path);
	if (p->suffix)
		return len >= tail && !strcmp(path + len - tail, p->text + 2);
	return strncmp(p->text, path, p->literal < len ? p->literal : len) == 0 && glob(p->text, path);
}

/* The path, or one of the directories above it. */
static bool covers(const struct pattern *p, const char *path)
{
	if (pattern_matches(p, path))
		return true;
	cleanup_free char *above = xstrdup(path);
	for (char *slash = strchr(above, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		bool matches = pattern_matches(p, above);
		*slash = '/';
		if (matches)
			return true;
	}
	return false;
}

bool build_ignore_matches(const struct build_ignore *g, const char *path)
{
	bool out = false;
	for (size_t i = 0; g && i < g->n; i++)
		if (g->patterns[i].in_again == out && covers(&g->patterns[i], path))
			out = !g->patterns[i].in_again;
	return out;
}

/* By what is literal at a pattern's begin: one that begins with a `*` may mean anything. */
bool build_ignore_looks_into(const struct build_ignore *g, const char *directory)
{
	size_t len = strlen(directory);
	for (size_t i = 0; g->any_in_again && i < g->n; i++) {
		const struct pattern *p = &g->patterns[i];
		size_t n = p->literal < len ? p->literal : len;
		bool leads = !strncmp(p->text, directory, n) && (p->literal <= len || p->text[len] == '/');
		if (p->in_again && leads)
			return true;
	}
	return false;
}
