#include "cli/jj.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/program.h"
#include "base/strv.h"
#include "cli/output.h"
#include "cli/process.h"

/* Somebody who calls ajj by a link named jj must not make it run itself for ever. */
static bool is_self(const char *path)
{
	struct stat self, other;
	return !stat("/proc/self/exe", &self) && !stat(path, &other) && self.st_dev == other.st_dev &&
	       self.st_ino == other.st_ino;
}

int jj_find(char **ret, struct error *err)
{
	const char *p = getenv("PATH");
	while (p && *p) {
		size_t n = strcspn(p, ":");
		cleanup_free char *directory = n ? xstrndup(p, n) : xstrdup(".");
		cleanup_free char *found = program_in_path("jj", directory);
		if (found && !is_self(found)) {
			*ret = move_ptr(found);
			return 0;
		}
		p += n + (p[n] == ':');
	}
	error_set(err, ERROR_JJ_NOT_FOUND, "jj is not in PATH");
	return error_hint(
	    err, "install it: cargo install --locked jj-cli, or see https://docs.jj-vcs.dev/latest/install-and-setup/");
}

/* new array, borrowed elements: "jj" before `argv` */
static char **command_line(char *const *argv)
{
	static char name[] = "jj";
	size_t n = strv_len(argv);
	char **line = xcalloc(n + 2, sizeof *line);
	line[0] = name;
	for (size_t i = 0; i < n; i++)
		line[i + 1] = argv[i];
	return line;
}

int jj_exec(char *const *argv, struct error *err)
{
	cleanup_free char *path = NULL;
	cleanup_free char **line = command_line(argv);
	int r = jj_find(&path, err);
	if (r)
		return r;
	output_flush();
	execv(path, line);
	return error_set_errno(err, ERROR_JJ_FAILED, errno, "cannot run %s", path);
}

static void trim(struct buffer *b)
{
	while (b->len && strchr("\n\r \t", b->data[b->len - 1]))
		b->data[--b->len] = '\0';
}

/* jj's own words are the message; its first line names the thing. */
static int failed(char *const *argv, int code, struct buffer *stderr_text, struct error *err)
{
	trim(stderr_text);
	const char *text = buffer_str(stderr_text);
	size_t first = strcspn(text, "\n");
	cleanup_free char *line = xstrndup(text, first);
	const char *message = strncmp(line, "Error: ", 7) ? line : line + 7;
	error_set(err, ERROR_JJ_FAILED, "jj %s: %s", argv[0] ? argv[0] : "", *message ? message : "failed without a word");
	error_detail(err, "exit_code", json_integer(code));
	error_detail(err, "stderr", json_string(text));
	return -error_code_errno(ERROR_JJ_FAILED);
}

static int run(char *const *argv, struct buffer *out, bool keep_stderr, struct error *err)
{
	cleanup_free char *path = NULL;
	cleanup_free char **line = command_line(argv);
	cleanup_buffer struct buffer stderr_text = BUFFER_INIT;
	int r = jj_find(&path, err);
	if (r)
		return r;
	output_flush();
	struct process p = {.program = path,
	                    .argv = line,
	                    .out = out,
	                    .err = keep_stderr ? &stderr_text : NULL,
	                    .out_to_err = output_is_json()};
	r = process_run(&p, err);
	if (r > 0 && keep_stderr)
		return failed(argv, r, &stderr_text, err);
	return r;
}

int jj_wait(char *const *argv, struct error *err)
{
	cleanup_free char *path = NULL;
	cleanup_free char **line = command_line(argv);
	int r = jj_find(&path, err);
	output_flush();
	struct process p = {.program = path, .argv = line};
	return r ? r : process_run(&p, err);
}

int jj_run(char *const *argv, struct error *err)
{
	return run(argv, NULL, output_is_json(), err);
}

int jj_capture(char *const *argv, struct buffer *out, struct error *err)
{
	return run(argv, out, true, err);
}

/* One line: json(name) TAB json(root), the root missing where jj does not know it. */
static int parse_workspace(char *line, struct jj_workspace *ret, struct error *err)
{
	char *tab = strchr(line, '\t'); /* JSON strings escape theirs */
	if (tab)
		*tab = '\0';
	json_t *name = json_loads(line, JSON_DECODE_ANY, NULL);
	json_t *root = tab ? json_loads(tab + 1, JSON_DECODE_ANY, NULL) : NULL;
	*ret = (struct jj_workspace){xstrdup(json_string_value(name)), xstrdup(json_string_value(root))};
	json_decref(name);
	json_decref(root);
	return ret->name ? 0 : error_set(err, ERROR_JJ_FAILED, "jj workspace list: not understood: %s", line);
}

static int list_by_template(const char *root, const char *template, struct buffer *out, struct error *err)
{
	cleanup_strv char **argv = NULL;
	const char *const words[] = {"workspace", "list", "--ignore-working-copy", "-R", root, "-T", template};
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
		strv_pushf(&argv, "%s", words[i]);
	buffer_clear(out);
	return jj_capture(argv, out, err);
}

int jj_workspaces(const char *root, struct jj_workspace **ret, size_t *ret_count, struct error *err)
{
	cleanup_buffer struct buffer out = BUFFER_INIT;
	struct jj_workspace *list = NULL;
	size_t count = 0;
	/* root() came with 0.40, as String, and has been an optional path since 0.44: this form is right for both */
	int r = list_by_template(root, "json(name) ++ \"\\t\" ++ if(root, json(stringify(root))) ++ \"\\n\"", &out, NULL);
	if (r)
		r = list_by_template(root, "json(name) ++ \"\\n\"", &out, err);
	if (r)
		return r;
	char *save = NULL;
	cleanup_free char *text = buffer_detach(&out);
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		array_grow(list, count);
		r = parse_workspace(line, &list[count++], err);
		if (r) {
			jj_workspaces_free(list, count);
			return r;
		}
	}
	*ret = list;
	*ret_count = count;
	return 0;
}

void jj_workspaces_free(struct jj_workspace *list, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(list[i].name);
		free(list[i].root);
	}
	free(list);
}

static bool has_jj(const char *directory)
{
	struct stat st;
	cleanup_free char *path = xasprintf("%s/.jj", strcmp(directory, "/") ? directory : "");
	return !stat(path, &st) && S_ISDIR(st.st_mode);
}

int jj_root(const char *directory, char **ret, struct error *err)
{
	cleanup_free char *path = realpath(directory, NULL);
	if (!path)
		return error_set_errno(err, ERROR_NOT_A_REPOSITORY, errno, "%s", directory);
	for (;;) {
		if (has_jj(path)) {
			*ret = move_ptr(path);
			return 0;
		}
		char *slash = strrchr(path, '/');
		if (!slash[1])
			break;
		slash[slash == path] = '\0';
	}
	error_set(err, ERROR_NOT_A_REPOSITORY, "there is no jj repository in %s or above it", directory);
	return error_hint(err,
	                  "jj git init --colocate (in a Git repository or an empty directory); `ajj attach` needs none");
}
