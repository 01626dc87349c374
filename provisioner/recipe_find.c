/* Which programs of a recipe this machine has. What `--version` said is kept for as long as the file does not change,
 * since asking costs a process. */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <poll.h>
#include <regex.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "provisioner/recipe_private.h"
#include "provisioner/template.h"

#define VERSION_OUTPUT_MAX 4096
#define FOUND_FILE_MAX 65536

struct found_program {
	char *path;
	struct timespec changed;
	off_t size;
	char *major; /* NULL: it did not say */
};

void recipe_found_free(struct recipes *rs)
{
	for (size_t i = 0; i < rs->n_found; i++) {
		free(rs->found[i].path);
		free(rs->found[i].major);
	}
	free(rs->found);
	free(rs->found_file);
}

/* ---- what is remembered from process to process: "size seconds nanoseconds major path" a line, "-" for none ---- */

static void remember(struct recipes *rs, const char *path, off_t size, struct timespec changed, const char *major)
{
	array_grow(rs->found, rs->n_found);
	rs->found[rs->n_found++] = (struct found_program){xstrdup(path), changed, size, xstrdup(major)};
}

static void read_found(struct recipes *rs, char *line)
{
	long long size, seconds;
	long nanoseconds;
	char major[32];
	int path = 0;
	if (sscanf(line, "%lld %lld %ld %31s %n", &size, &seconds, &nanoseconds, major, &path) < 4 || line[path] != '/')
		return;
	const struct timespec changed = {.tv_sec = seconds, .tv_nsec = nanoseconds};
	remember(rs, line + path, size, changed, strcmp(major, "-") ? major : NULL);
}

void recipes_remember(struct recipes *rs, const char *path)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	char *save = NULL;
	rs->found_file = xstrdup(path);
	if (file_read(AT_FDCWD, path, FOUND_FILE_MAX, &text) < 0 || !text.len)
		return;
	for (char *line = strtok_r(text.data, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		read_found(rs, line);
}

/* Only files that are still what they were: the list does not grow with every upgrade. */
static void write_found(const struct recipes *rs)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	struct stat st;
	for (size_t i = 0; i < rs->n_found; i++) {
		const struct found_program *f = &rs->found[i];
		bool same = stat(f->path, &st) == 0 && st.st_size == f->size && st.st_ctim.tv_sec == f->changed.tv_sec &&
		            st.st_ctim.tv_nsec == f->changed.tv_nsec;
		if (same && !strchr(f->path, '\n'))
			buffer_printf(&text, "%lld %lld %ld %s %s\n", (long long)f->size, (long long)f->changed.tv_sec,
			              f->changed.tv_nsec, f->major ? f->major : "-", f->path);
	}
	if (rs->found_file)
		file_write_atomic(AT_FDCWD, rs->found_file, buffer_str(&text), text.len, 0600);
}

/* ---- the version ---- */

/* The first group that matched something. new; NULL: none */
static char *match_major(const char *pattern, const char *text)
{
	regex_t regex;
	regmatch_t groups[10];
	char *major = NULL;
	if (!pattern || regcomp(&regex, pattern, REG_EXTENDED))
		return NULL;
	if (regexec(&regex, text, 10, groups, 0) == 0)
		for (int i = 1; i < 10 && !major; i++)
			if (groups[i].rm_so >= 0 && groups[i].rm_eo > groups[i].rm_so)
				major = xstrndup(text + groups[i].rm_so, (size_t)(groups[i].rm_eo - groups[i].rm_so));
	regfree(&regex);
	return major;
}

static void read_output(int fd, struct buffer *out)
{
	uint64_t end = now_monotonic_ms() + RECIPE_VERSION_TIMEOUT_MS;
	char part[512];
	while (out->len < VERSION_OUTPUT_MAX) {
		uint64_t now = now_monotonic_ms();
		struct pollfd p = {fd, POLLIN, 0};
		int r = now < end ? poll(&p, 1, (int)(end - now)) : 0;
		if (r < 0 && errno == EINTR)
			continue;
		ssize_t n = r > 0 ? read(fd, part, sizeof part) : 0;
		if (n <= 0)
			return;
		buffer_add(out, part, (size_t)n);
	}
}

/* Not fork: other threads of this process may hold locks. */
static int run_program(const char *path, char *const *arguments, struct buffer *out)
{
	char path_variable[] = "PATH=/usr/bin:/bin", locale[] = "LC_ALL=C";
	char *const clean[] = {path_variable, locale, NULL};
	cleanup_strv char **argv = strv_copy(arguments);
	posix_spawn_file_actions_t actions;
	int pipes[2], status;
	pid_t pid;
	char **all = NULL;
	strv_push(&all, xstrdup(path));
	for (char **a = argv; a && *a; a++)
		strv_push(&all, xstrdup(*a));
	if (pipe2(pipes, O_CLOEXEC) < 0) {
		strv_free(all);
		return -errno;
	}
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, pipes[1], 1);
	posix_spawn_file_actions_adddup2(&actions, pipes[1], 2);
	int r = posix_spawn(&pid, path, &actions, NULL, all, clean);
	posix_spawn_file_actions_destroy(&actions);
	close(pipes[1]);
	strv_free(all);
	if (r == 0) {
		read_output(pipes[0], out);
		kill(pid, SIGKILL); /* it has said what it has to say, or hangs */
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
	}
	close(pipes[0]);
	return -r;
}

static struct found_program *remembered(struct recipes *rs, const char *path, const struct stat *st)
{
	for (size_t i = 0; i < rs->n_found; i++) {
		struct found_program *f = &rs->found[i];
		if (!strcmp(f->path, path) && f->size == st->st_size && f->changed.tv_sec == st->st_ctim.tv_sec &&
		    f->changed.tv_nsec == st->st_ctim.tv_nsec)
			return f;
	}
	return NULL;
}

/* new; NULL: unknown. Called with the lock held: two that ask at once do not both run the program. */
static char *ask_version(struct recipes *rs, const struct recipe *r, const char *path)
{
	cleanup_buffer struct buffer out = BUFFER_INIT;
	struct stat st;
	if (stat(path, &st) < 0)
		return NULL;
	struct found_program *known = remembered(rs, path, &st);
	if (known)
		return xstrdup(known->major);
	if (run_program(path, r->version_argv, &out) < 0)
		return NULL;
	char *major = match_major(r->version_pattern, buffer_str(&out));
	remember(rs, path, st.st_size, st.st_ctim, major);
	write_found(rs);
	return major;
}

/* ---- candidates ---- */

struct search {
	struct recipes *rs;
	const struct recipe *recipe;
	long wanted; /* -1: the newest */
	char *directory, *major;
	long best;
	bool exact;
};

const char *recipe_program_in(const struct recipe *r, const char *directory)
{
	for (char **name = r->programs; name && *name; name++) {
		cleanup_free char *path = xasprintf("%s/%s", directory, *name);
		struct stat st;
		if (stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0)
			return *name;
	}
	return NULL;
}

/* The nearest; of two that are equally near the newer, of two of one version the first. */
static bool is_better(const struct search *s, long major)
{
	if (!s->directory)
		return true;
	if (s->wanted < 0)
		return major > s->best;
	long before = labs(s->best - s->wanted), now = labs(major - s->wanted);
	return now < before || (now == before && major > s->best);
}

static void consider(struct search *s, const char *directory)
{
	const char *name = recipe_program_in(s->recipe, directory);
	if (!name || s->exact)
		return;
	cleanup_free char *path = xasprintf("%s/%s", directory, name);
	char *major = match_major(s->recipe->version_pattern, directory);
	if (!major && s->recipe->version_argv)
		major = ask_version(s->rs, s->recipe, path);
	long number = major ? strtol(major, NULL, 10) : 0;
	if (!is_better(s, number)) {
		free(major);
		return;
	}
	free(s->directory);
	free(s->major);
	s->directory = xstrdup(directory);
	s->major = major;
	s->best = number;
	s->exact = s->wanted >= 0 && number == s->wanted;
}

static void consider_glob(struct search *s, const char *pattern)
{
	glob_t found;
	if (glob(pattern, 0, NULL, &found) == 0)
		for (size_t i = 0; i < found.gl_pathc; i++)
			consider(s, found.gl_pathv[i]);
	globfree(&found);
}

static void consider_path(struct search *s)
{
	const char *at = getenv("PATH");
	for (at = at ? at : "/usr/local/bin:/usr/bin:/bin"; *at;) {
		size_t len = strcspn(at, ":");
		cleanup_free char *directory = xstrndup(at, len);
		if (*directory == '/') /* a relative one would be the workspace's */
			consider(s, directory);
		at += len + (at[len] == ':');
	}
}

static const char *package_value(void *arg, const char *name)
{
	const char *wanted = arg;
	return !strcmp(name, "major") ? (wanted ? wanted : "") : NULL;
}

static int not_found(const struct recipe *r, const char *wanted, struct error *err)
{
	cleanup_free char *package = NULL;
	int result = error_set(err, ERROR_PROGRAM_NOT_FOUND, "%s is not installed on this machine",
	                       r->programs ? r->programs[0] : r->name);
	if (r->package && template_expand(r->package, package_value, (void *)(uintptr_t)wanted, &package, NULL) == 0)
		error_hint(err, "apt-get install %s", package);
	return result;
}

int recipe_find_program(const struct recipes *rs, const struct recipe *r, const char *wanted, char **ret_dir,
                        char **ret_major, struct error *err)
{
	struct recipes *cache = (struct recipes *)(uintptr_t)rs; /* what is remembered has its own lock */
	struct search s = {.rs = cache, .recipe = r, .wanted = wanted ? strtol(wanted, NULL, 10) : -1};
	if (!r->programs)
		return error_set(err, ERROR_PROGRAM_NOT_FOUND,
		                 "the recipe %s does not say how to run it as a process of this machine", r->name);
	pthread_mutex_lock(&cache->lock);
	for (char **pattern = r->program_paths; pattern && *pattern; pattern++)
		consider_glob(&s, *pattern);
	if (!s.exact)
		consider_path(&s);
	pthread_mutex_unlock(&cache->lock);
	if (!s.directory)
		return not_found(r, wanted, err);
	*ret_dir = s.directory;
	*ret_major = s.major;
	return 0;
}
