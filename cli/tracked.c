#include "cli/tracked.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/hash.h"
#include "base/strv.h"
#include "cli/configuration.h"
#include "cli/git.h"
#include "cli/jj.h"
#include "cli/output.h"
#include "cli/registry.h"
#include "provisioner/env_name.h"
#include "provisioner/native.h"

/* ---- jj ---- */

/* The operations that the repository stands at: while they are the same, so is every bookmark and every `@`. new */
static char *jj_state(const struct identity *id)
{
	cleanup_free char *directory = xasprintf("%s/op_heads/heads", id->repository);
	struct dirent **names = NULL;
	struct buffer out = BUFFER_INIT;
	int n = scandir(directory, &names, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		if (names[i]->d_name[0] != '.')
			buffer_printf(&out, "%s%s", out.len ? " " : "", names[i]->d_name);
		free(names[i]);
	}
	free(names);
	return buffer_detach(&out);
}

/* Does ours really stand in one of its workspaces? There it would get into a commit that is checked out and edited, too. */
static bool has_native(const struct identity *id)
{
	cleanup_registry_list struct registry_list list = {NULL, 0};
	registry_list(&list, NULL);
	for (size_t i = 0; i < list.count; i++)
		if (!strcmp(list.items[i].repository, id->repository) && native_find_at(list.items[i].root) != NATIVE_NONE)
			return true;
	return false;
}

/* Those of `names` that are tracked somewhere, one a line. */
static int ask_jj(const struct identity *id, char *const *names, bool native, struct buffer *out)
{
	cleanup_buffer struct buffer template = BUFFER_INIT;
	cleanup_strv char **argv = NULL;
	buffer_adds(&template, "self.files(\"");
	for (size_t i = 0; names[i]; i++)
		buffer_printf(&template, "%sroot-file:\\\"%s\\\"", i ? "|" : "", names[i]);
	buffer_adds(&template, "\").map(|f| f.path() ++ \"\\n\").join(\"\")");
	static const char *const words[] = {"--ignore-working-copy", "log", "--no-graph", "-r"};
	strv_pushf(&argv, "-R");
	strv_pushf(&argv, "%s", id->root);
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		strv_pushf(&argv, "%s", words[i]);
	strv_pushf(&argv, "bookmarks() | remote_bookmarks() | working_copies()-%s", native ? " | working_copies()" : "");
	strv_pushf(&argv, "-T");
	strv_pushf(&argv, "%s", buffer_str(&template));
	return jj_capture(argv, out, NULL);
}

/* ---- git ---- */

/* "ID:.env" lines for the second process, each commit once; `refs` holds one id a line. */
static void list_objects(const char *refs, char *const *names, struct buffer *out)
{
	const char *before = "";
	for (const char *line = refs; *line; line += strcspn(line, "\n") + (line[strcspn(line, "\n")] == '\n')) {
		size_t len = strcspn(line, "\n");
		if (!strncmp(line, before, len + 1))
			continue;
		for (size_t i = 0; names[i]; i++)
			buffer_printf(out, "%.*s:%s\n", (int)len, line, names[i]);
		before = line;
	}
}

static int run_git(const char *git_dir, const char *const *words, const struct buffer *in, struct buffer *out)
{
	cleanup_strv char **argv = NULL;
	cleanup_buffer struct buffer said = BUFFER_INIT;
	strv_pushf(&argv, "--git-dir=%s", git_dir);
	for (; *words; words++)
		strv_pushf(&argv, "%s", *words);
	return git_filter(argv, in, out, &said, NULL);
}

/* The heads of the other worktrees are nearly always branches; one that is detached counts, too. */
static void add_heads(const struct git_worktrees *list, struct buffer *refs)
{
	for (size_t i = 0; i < list->count; i++)
		if (list->items[i].commit)
			buffer_printf(refs, "%s\n", list->items[i].commit);
}

static int ask_git(const struct identity *id, const struct git_worktrees *list, char *const *names, struct buffer *out)
{
	cleanup_free char *count = xasprintf("--count=%d", TRACKED_REFS_MAX);
	const char *const branches[] = {"for-each-ref", count, "--format=%(objectname)", "refs/heads", "refs/remotes", NULL};
	static const char *const check[] = {"cat-file", "--batch-check=%(objecttype)", NULL};
	cleanup_buffer struct buffer refs = BUFFER_INIT, objects = BUFFER_INIT, found = BUFFER_INIT;
	int r = run_git(id->repository, branches, NULL, &refs);
	if (r)
		return -EIO;
	add_heads(list, &refs);
	list_objects(buffer_str(&refs), names, &objects);
	if (!objects.len)
		return 0;
	r = run_git(id->repository, check, &objects, &found);
	if (r)
		return -EIO;
	/* one line of the answer for each of the question */
	const char *question = buffer_str(&objects), *answer = buffer_str(&found);
	while (*question && *answer) {
		size_t asked = strcspn(question, "\n"), told = strcspn(answer, "\n");
		const char *colon = memchr(question, ':', asked);
		if (told == 4 && !strncmp(answer, "blob", 4) && colon)
			buffer_printf(out, "%.*s\n", (int)(question + asked - colon - 1), colon + 1);
		question += asked + 1;
		answer += told + (answer[told] == '\n');
	}
	return 0;
}

/* ---- what follows ---- */

static bool has_line(const char *text, const char *line)
{
	size_t len = strlen(line);
	for (; *text; text += strcspn(text, "\n") + (text[strcspn(text, "\n")] == '\n'))
		if (strcspn(text, "\n") == len && !strncmp(text, line, len))
			return true;
	return false;
}

static const char *choose(const char *tracked)
{
	for (size_t i = 0; env_names[i]; i++)
		if (!has_line(tracked, env_names[i]))
			return env_names[i];
	return ENV_NAME_DEFAULT;
}

/* What there is to ask for: the workspaces' own name, and x-aether.env_files. new */
static char **list_names(const struct identity *id)
{
	char **names = NULL;
	for (size_t i = 0; env_names[i]; i++)
		strv_push(&names, xstrdup(env_names[i]));
	configuration_more_files(id, &names);
	return names;
}

static char **tracked_files(char *const *names, const char *tracked)
{
	char **list = NULL;
	for (size_t i = 0; names[i]; i++) {
		bool own = false;
		for (size_t k = 0; env_names[k]; k++)
			own = own || !strcmp(names[i], env_names[k]);
		if (!own && has_line(tracked, names[i]))
			strv_push(&list, xstrdup(names[i]));
	}
	return list;
}

static bool are_equal(char *const *a, char *const *b)
{
	for (; a && *a && b && *b && !strcmp(*a, *b); a++, b++)
		;
	return !(a && *a) && !(b && *b);
}

struct answer {
	const char *name;
	char **files;
	const char *state;
};

static void take(struct client *c, const struct answer *before, const struct answer *now)
{
	cleanup_error struct error err = ERROR_INIT;
	bool other_name = strcmp(now->name, before->name), other_files = !are_equal(now->files, before->files);
	if ((other_name || other_files || *now->state) &&
	    env_name_write(c->id.shared_dir, c->id.repository, now->name, now->state, now->files, &err)) {
		output_note("Warning: %s", err.message);
		return;
	}
	c->id.env_name = now->name;
	if (other_name && env_name_has_base(now->name))
		output_note("Note: a commit of this repository tracks .env, so the variables are in %s here: source %s", now->name, now->name);
	else if (other_name)
		output_note("Note: no branch of this repository tracks .env any more: the variables are in .env again");
	for (char **f = now->files; f && *f; f++)
		if (other_files && !strv_contains(before->files, *f))
			output_note("Note: a commit of this repository tracks %s, which is left as it is", *f);
	if ((other_name || other_files) && c->mounted && client_command(c, "reload", &err))
		output_note("Warning: %s", err.message);
}

/* The state that was asked about: the repository's and, as the configuration's files may be others now, theirs. new; "": it cannot be told */
static char *full_state(const struct identity *id, const struct git_worktrees *list, char *const *names, bool native)
{
	bool jj = id->kind == WORKSPACE_JJ;
	cleanup_free char *heads = jj ? jj_state(id) : NULL;
	uint64_t h = HASH_INIT, refs = 0;
	for (char *const *n = names; *n; n++)
		h = hash_str(h, *n);
	if (jj ? !*heads : !git_refs_fingerprint(id->repository, list, &refs))
		return xstrdup("");
	return jj ? xasprintf("%s %016llx%s", heads, (unsigned long long)h, native ? " native" : "")
	          : xasprintf("git %016llx %016llx", (unsigned long long)refs, (unsigned long long)h);
}

void tracked_settle(struct client *c)
{
	cleanup_free char *old_state = NULL, *state = NULL;
	cleanup_buffer struct buffer tracked = BUFFER_INIT;
	cleanup_git_worktrees struct git_worktrees list = GIT_WORKTREES_INIT;
	if (c->id.kind == WORKSPACE_PLAIN)
		return;
	cleanup_strv char **names = list_names(&c->id), **files = env_name_tracked(c->id.shared_dir, c->id.repository), **now = NULL;
	const char *before = env_name_read(c->id.shared_dir, c->id.repository, &old_state);
	bool jj = c->id.kind == WORKSPACE_JJ, native = jj && has_native(&c->id);
	if (!jj)
		git_worktrees_read(c->id.repository, c->id.main_root, &list);
	state = full_state(&c->id, &list, names, native);
	if (*state && !strcmp(state, old_state)) {
		c->id.env_name = before;
		return;
	}
	if ((jj ? ask_jj(&c->id, names, native, &tracked) : ask_git(&c->id, &list, names, &tracked)) < 0)
		return;
	now = tracked_files(names, buffer_str(&tracked));
	const struct answer was = {before, files, old_state}, is = {choose(buffer_str(&tracked)), now, state};
	take(c, &was, &is);
}
