/* Where a configuration is looked for, and reading files of the workspace from beneath our own mount. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/hash.h"
#include "provisioner/config_private.h"
#include "provisioner/envfile.h"

#ifndef FUSE_SUPER_MAGIC
#define FUSE_SUPER_MAGIC 0x65735546
#endif

static const char *const file_names[] = {"aether.yaml",         "compose.yaml",       "compose.yml",
                                         "docker-compose.yaml", "docker-compose.yml", NULL};

/* A link may lead into a mount of ours (`.env -> .aether/env`), where reading would start services: such a file is on a
 * FUSE file system other than the directory's, and is as if it were not there. Looking costs no open (O_PATH). */
static int open_to_look(const struct loading *l, int dirfd, const char *path, struct stat *ret)
{
	if (l->params->again)
		return config_record_open(l, dirfd, path, ret);
	struct stat dir;
	struct statfs fs;
	cleanup_close int fd = openat(dirfd, path, O_PATH | O_CLOEXEC);
	if (fd < 0 || fstat(fd, ret) < 0 || fstat(dirfd, &dir) < 0 || fstatfs(fd, &fs) < 0)
		return -errno;
	if (fs.f_type == FUSE_SUPER_MAGIC && ret->st_dev != dir.st_dev)
		return -ENOENT;
	if (!S_ISREG(ret->st_mode))
		return S_ISDIR(ret->st_mode) ? -EISDIR : -EINVAL;
	return move_fd(&fd);
}

static int read_file(struct loading *l, int dirfd, const char *path, struct buffer *out)
{
	struct stat st;
	char proc[40];
	cleanup_close int fd = open_to_look(l, dirfd, path, &st);
	if (fd < 0)
		return fd;
	snprintf(proc, sizeof proc, "/proc/self/fd/%d", fd);
	size_t before = out->len;
	int r = file_read(AT_FDCWD, proc, CONFIG_FILE_MAX, out);
	if (r < 0)
		return r;
	l->hash = hash_str(l->hash, path);
	l->hash = hash_bytes(l->hash, out->data ? out->data + before : "", out->len - before);
	config_record_add(l, dirfd, path, buffer_str(out) + before);
	return 0;
}

/* ---- paths ---- */

/* What follows `directory` in an absolute path; NULL: it does not lie below. borrowed */
static const char *below(const char *path, const char *directory)
{
	size_t len = directory ? strlen(directory) : 0;
	return len && !strncmp(path, directory, len) && path[len] == '/' ? path + len + 1 : NULL;
}

/* Below the workspace or the main checkout, as far as it is there. new */
static char *relative_to_root(const struct loading *l, const char *path)
{
	const char *begin = l->config->subdirectory;
	if (path[0] == '/' || !begin || !*begin)
		return config_path_normalized(path);
	cleanup_free char *whole = xasprintf("%s/%s", begin, path);
	return config_path_normalized(whole);
}

static bool has_main(const struct config_params *p)
{
	return p->main_root && strcmp(p->main_root, p->root) != 0;
}

static bool is_written_outside(const struct loading *l, const char *path)
{
	cleanup_free char *relative = relative_to_root(l, path);
	if (path[0] == '~')
		return true;
	if (path[0] != '/')
		return !strcmp(relative, "..") || !strncmp(relative, "../", 3);
	cleanup_free char *absolute = xasprintf("/%s", relative);
	return !below(absolute, l->params->root) && !below(absolute, l->params->main_root);
}

/* A link that comes with the repository may lead anywhere. An absolute one counts as leading out, wherever it ends. */
static bool leads_out(int dirfd, const char *relative)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
	cleanup_close int fd = (int)syscall(SYS_openat2, dirfd, relative, &how, sizeof how);
	return fd < 0 && errno == EXDEV;
}

bool loading_is_outside(const struct loading *l, const char *path)
{
	if (is_written_outside(l, path))
		return true;
	const char *inside = path[0] == '/' ? below(path, l->params->root) : NULL;
	if (path[0] == '/' && !inside)
		return false; /* the main checkout's, which is the user's own */
	cleanup_free char *relative = inside ? config_path_normalized(inside) : relative_to_root(l, path);
	return leads_out(inside ? l->params->root_fd : l->dir_fd, relative);
}

char *config_source_path(const struct config *c, int root_fd, const char *root, const char *main_root, const char *source)
{
	const char *home = getenv("HOME"), *begin = c->subdirectory ? c->subdirectory : "";
	if (source[0] == '~' && source[1] == '/' && home)
		return xasprintf("%s%s", home, source + 1);
	const char *inside = source[0] == '/' ? below(source, root) : NULL;
	if (source[0] == '/' && !inside)
		return xstrdup(source);
	cleanup_free char *relative =
	    inside ? xstrdup(inside) : xasprintf("%s%s%s", begin, *begin ? "/" : "", !strncmp(source, "./", 2) ? source + 2 : source);
	cleanup_free char *beneath = xasprintf("/proc/self/fd/%d/%s", root_fd, relative);
	cleanup_free char *in_main = main_root && strcmp(main_root, root) ? xasprintf("%s/%s", main_root, relative) : NULL;
	bool main_alone = in_main && access(beneath, F_OK) && !access(in_main, F_OK);
	return main_alone ? move_ptr(in_main) : move_ptr(beneath);
}

/* A change of any of the places where it may be is a change of the configuration. */
static void watch_path(struct loading *l, const char *path)
{
	const struct config_params *p = l->params;
	if (path[0] == '/') {
		strv_push(&l->config->env_files, xstrdup(path));
		return;
	}
	cleanup_free char *relative = relative_to_root(l, path), *beside = config_path_normalized(path);
	strv_pushf(&l->config->env_files, "%s/%s", l->config->directory, beside);
	if (l->place == IN_WORKSPACE && has_main(p))
		strv_pushf(&l->config->env_files, "%s/%s", p->main_root, relative);
}

/* Not of a mount of ours that a link leads into: reading there starts services, even one's own. The overlay of the main checkout
 * is as good as what lies beneath. */
static bool is_of_repository(const struct loading *l, int fd)
{
	struct stat st, root, main_root;
	struct statfs fs;
	if (fstat(fd, &st) || fstatfs(fd, &fs) || fstat(l->params->root_fd, &root))
		return false;
	if (fs.f_type != FUSE_SUPER_MAGIC || st.st_dev == root.st_dev)
		return true;
	return l->params->main_root && !stat(l->params->main_root, &main_root) && st.st_dev == main_root.st_dev;
}

char *loading_digest(struct loading *l, const char *source, int *ret_why)
{
	const struct config_params *p = l->params;
	char hex[SHA256_HEX], proc[40];
	if (!p->recipes)
		return NULL;
	watch_path(l, source);
	cleanup_free char *path = config_source_path(l->config, p->root_fd, p->root, p->main_root, source);
	cleanup_close int fd = open(path, O_PATH | O_CLOEXEC);
	bool missing = fd < 0 && errno == ENOENT;
	if (!missing && (fd < 0 || !is_of_repository(l, fd))) {
		*ret_why = fd < 0 ? -errno : -EXDEV;
		return NULL;
	}
	snprintf(proc, sizeof proc, "/proc/self/fd/%d", fd);
	*ret_why = digest_of_known(AT_FDCWD, missing ? path : proc, p->digests, hex);
	return *ret_why < 0 ? NULL : xstrdup(hex);
}

/* ---- the configuration ---- */

#define FILES_MAX 200
#define BYTES_MAX (16u << 20) /* of all of them */

/* Documents of one file lie on each other like files. */
static int join_documents(struct loading *l, struct yaml_document *doc)
{
	const struct yaml *whole = yaml_root(doc), *next;
	if (!yaml_next_root(doc, 1))
		return 0;
	for (size_t i = 0; (next = yaml_next_root(doc, i)); i++) {
		struct field f = field_root(&l->reader, next);
		if (next->type != YAML_MAP)
			return field_expected(&f, "a mapping: every document of the file is laid on those before it");
		whole = i ? config_merge(doc, whole, next) : next;
	}
	yaml_set_root(doc, whole);
	return 0;
}

/* Its root is *ret, borrowed. `name` is how messages name it; the same file is read once. */
static int read_document(struct loading *l, int dirfd, const char *name, const char *path, const char *shown,
                         struct yaml_document **ret)
{
	struct config *c = l->config;
	cleanup_buffer struct buffer text = BUFFER_INIT;
	if (c->n_files == FILES_MAX)
		return error_set(l->reader.err, ERROR_CONFIG_INVALID, "%s would be one file more than %d", path, FILES_MAX);
	array_grow(c->files, c->n_files);
	c->files[c->n_files++] = (struct config_file){xstrdup(path), xstrdup(shown)};
	l->reader.files = c->files;
	l->reader.n_files = c->n_files;
	const char *kept = c->files[c->n_files - 1].shown;
	int r = read_file(l, dirfd, name, &text);
	if (r == -EFBIG)
		return error_set(l->reader.err, ERROR_CONFIG_INVALID, "%s is larger than %u MiB", path, CONFIG_FILE_MAX >> 20);
	if (r < 0)
		return error_set_errno(l->reader.err, ERROR_CONFIG_INVALID, -r, "%s cannot be read", path);
	l->bytes += text.len;
	if (l->bytes > BYTES_MAX)
		return error_set(l->reader.err, ERROR_CONFIG_INVALID, "%s and the files before it come to more than %u MiB", path,
		                 BYTES_MAX >> 20);
	array_grow(l->docs, l->n_docs);
	l->docs[l->n_docs] = NULL;
	r = yaml_parse_all(kept, buffer_str(&text), text.len, &l->docs[l->n_docs], l->reader.err);
	if (r == 0 && (r = join_documents(l, l->docs[l->n_docs])) < 0)
		yaml_free(l->docs[l->n_docs]);
	if (r < 0)
		return error_detail(l->reader.err, "file", json_string(path)), r;
	*ret = l->docs[l->n_docs++];
	return 0;
}

static char *join(const char *directory, const char *name)
{
	return xasprintf("%s%s%s", directory, !strcmp(directory, "/") ? "" : "/", name);
}

/* `name` is below `directory`. What relative paths begin at is where the first file lies. */
static void is_base(struct loading *l, const char *directory, const char *name)
{
	struct config *c = l->config;
	const char *slash = strrchr(name, '/');
	c->file = join(directory, name);
	c->subdirectory = slash ? xstrndup(name, (size_t)(slash - name)) : xstrdup("");
	c->directory = slash ? join(directory, c->subdirectory) : xstrdup(directory);
}

static int found(struct loading *l, const char *directory, const char *name, struct yaml_document **ret)
{
	is_base(l, directory, name);
	/* by its name alone in the workspace and the main checkout: there people stand */
	return read_document(l, l->dir_fd, name, l->config->file, l->place == ABOVE ? l->config->file : name, ret);
}

/* The first of `names` that is there. 1, 0: none; negative errno. A directory or a dangling link of that name is passed over. */
static int first_of(struct loading *l, int dirfd, const char *directory, const char *const *names, const char **ret)
{
	struct stat st;
	for (; *names; names++) {
		cleanup_close int fd = open_to_look(l, dirfd, *names, &st);
		if (fd == -EACCES)
			return error_set_errno(l->reader.err, ERROR_CONFIG_INVALID, EACCES, "%s/%s", directory, *names);
		if (fd < 0)
			continue;
		/* above the workspace may lie what a stranger put there: /tmp/compose.yaml */
		if (l->place == ABOVE && st.st_uid != geteuid() && st.st_uid != 0)
			continue;
		*ret = *names;
		return 1;
	}
	return 0;
}

static int try_directory(struct loading *l, const char *directory, struct yaml_document **ret)
{
	const char *name;
	int r = first_of(l, l->dir_fd, directory, file_names, &name);
	if (r > 0)
		r = found(l, directory, name, ret);
	return r < 0 ? r : *ret != NULL;
}

/* Beside the file that was found by its name; it is mostly untracked, and then stands in the main checkout alone. */
static int read_override(struct loading *l)
{
	static const char *const names[] = {"compose.override.yml", "compose.override.yaml", "docker-compose.override.yml",
	                                    "docker-compose.override.yaml", NULL}; /* in compose's own order */
	const struct config_params *p = l->params;
	struct yaml_document *doc;
	const char *name, *directory = l->config->directory;
	cleanup_close int main_fd = -1;
	int dirfd = l->dir_fd, r = first_of(l, dirfd, directory, names, &name);
	if (r == 0 && l->place == IN_WORKSPACE && has_main(p)) {
		directory = p->main_root;
		dirfd = main_fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
		r = dirfd < 0 ? 0 : first_of(l, dirfd, directory, names, &name);
	}
	if (r <= 0)
		return r;
	cleanup_free char *path = join(directory, name);
	return read_document(l, dirfd, name, path, l->place == ABOVE || main_fd >= 0 ? path : name, &doc);
}

static void leave_directory(struct loading *l)
{
	if (l->dir_fd >= 0 && l->dir_fd != l->params->root_fd)
		close(l->dir_fd);
	l->dir_fd = -1;
}

static int try_path(struct loading *l, const char *directory, struct yaml_document **ret)
{
	leave_directory(l);
	l->dir_fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return l->dir_fd < 0 ? 0 : try_directory(l, directory, ret);
}

static int try_above(struct loading *l, struct yaml_document **ret)
{
	cleanup_free char *directory = xstrdup(l->params->root);
	int r = 0;
	l->place = ABOVE;
	for (char *slash; r == 0 && (slash = strrchr(directory, '/')) && directory[1];) {
		slash[slash == directory] = '\0'; /* the root keeps its slash */
		r = try_path(l, directory, ret);
	}
	return r;
}

/* 1: *ret is it; 0: there is none */
static int find_default(struct loading *l, struct yaml_document **ret)
{
	const struct config_params *p = l->params;
	l->place = IN_WORKSPACE;
	l->dir_fd = p->root_fd;
	int r = try_directory(l, p->root, ret);
	if (r == 0 && has_main(p)) {
		l->place = IN_MAIN;
		r = try_path(l, p->main_root, ret);
	}
	return r == 0 && p->search_upwards ? try_above(l, ret) : r;
}

static int not_found(struct loading *l)
{
	const struct config_params *p = l->params;
	int r = error_set(l->reader.err, ERROR_CONFIG_NOT_FOUND, "no configuration in %s%s%s", p->root, has_main(p) ? " or " : "",
	                  has_main(p) ? p->main_root : "");
	error_hint(l->reader.err,
	           "looked for aether.yaml, compose.yaml, compose.yml, docker-compose.yaml and docker-compose.yml%s",
	           p->search_upwards ? ", also in the directories above" : "");
	return r;
}

/* ---- files that one of them names ---- */

/* The list in x-aether.compose; false: none. */
static bool names_files(struct loading *l, struct yaml_document *doc, struct field *root, struct field *aether,
                        struct field *ret)
{
	*root = field_root(&l->reader, yaml_root(doc));
	return field_find(root, "x-aether", aether) && field_find(aether, "compose", ret) && !field_is_null(ret);
}

/* In the workspace, else (what is not tracked) in the main checkout. 1, 0 or a negative errno */
static int open_listed(struct loading *l, const char *relative, int *ret_fd, bool *ret_main)
{
	const struct config_params *p = l->params;
	struct stat st;
	*ret_main = false;
	int fd = open_to_look(l, p->root_fd, relative, &st);
	if (fd == -ENOENT && has_main(p)) {
		cleanup_close int main_fd = open(p->main_root, O_PATH | O_DIRECTORY | O_CLOEXEC);
		fd = main_fd < 0 ? -ENOENT : open_to_look(l, main_fd, relative, &st);
		*ret_main = fd >= 0;
	}
	*ret_fd = fd;
	return fd < 0 ? fd : 0;
}

/* Relative paths of what lies in the main checkout begin there. */
static void enter(struct loading *l, bool in_main)
{
	const struct config_params *p = l->params;
	leave_directory(l);
	l->place = in_main ? IN_MAIN : IN_WORKSPACE;
	l->dir_fd = in_main ? open(p->main_root, O_PATH | O_DIRECTORY | O_CLOEXEC) : p->root_fd;
}

/* `f` is where it is named; NULL: by the user's `.env`. */
static int cannot_take(struct loading *l, const struct field *f, const char *text, const char *why)
{
	return f ? field_error(f, "%s: %s", text, why)
	         : error_set(l->reader.err, ERROR_CONFIG_INVALID, "COMPOSE_FILE of .env: %s: %s", text, why);
}

static bool is_read(const struct loading *l, const char *path)
{
	for (size_t i = 0; i < l->config->n_files; i++)
		if (!strcmp(l->config->files[i].path, path))
			return true;
	return false;
}

static int read_listed_inside(struct loading *l, const struct field *f, const char *relative, bool first)
{
	const struct config_params *p = l->params;
	struct yaml_document *doc;
	bool in_main;
	cleanup_close int fd = -1;
	int r = open_listed(l, relative, &fd, &in_main);
	if (r < 0)
		return cannot_take(l, f, relative, strerror(-r));
	if (first) {
		enter(l, in_main);
		is_base(l, in_main ? p->main_root : p->root, relative);
	}
	cleanup_free char *path = join(in_main ? p->main_root : p->root, relative);
	if (is_read(l, path))
		return 0; /* it names itself: it lies on the others as it is */
	cleanup_close int dir = in_main ? open(p->main_root, O_PATH | O_DIRECTORY | O_CLOEXEC) : dup(p->root_fd);
	return read_document(l, dir, relative, path, relative, &doc);
}

static int read_listed_one(struct loading *l, const struct field *f, const char *text, bool first)
{
	const struct config_params *p = l->params;
	const char *inside = text[0] == '/' ? below(text, p->root) : text;
	cleanup_free char *relative = config_path_normalized(inside ? inside : text);
	if (!inside || is_written_outside(l, relative))
		return field_error(f, "expected a file of this repository, got %s", text);
	return read_listed_inside(l, f, relative, first);
}

static int read_listed(struct loading *l, const struct field *list)
{
	cleanup_strv char **names = NULL;
	int r = field_strings_or_one(list, &names);
	if (r == 0 && !names[0])
		r = field_expected(list, "a list of compose files");
	for (size_t i = 0; r == 0 && names[i]; i++) {
		struct field item = list->node->type == YAML_LIST ? field_child(list, i) : *list;
		r = read_listed_one(l, &item, names[i], i == 0);
	}
	return r;
}

/* ---- COMPOSE_FILE ---- */

/* The user's `.env` may name any file; where that lies elsewhere, what it says is a matter of trust, and paths begin there. */
static int read_from_outside(struct loading *l, const char *text, bool first)
{
	const struct config_params *p = l->params;
	cleanup_free char *joined = text[0] == '/' ? xstrdup(text) : join(p->root, text), *relative = config_path_normalized(joined),
	                  *path = xasprintf("/%s", relative);
	const char *name = strrchr(path, '/') + 1;
	cleanup_free char *directory = xstrndup(path, name - path > 1 ? (size_t)(name - path) - 1 : 1);
	struct yaml_document *doc;
	struct stat st;
	cleanup_close int dirfd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC), fd = dirfd < 0 ? -errno : open_to_look(l, dirfd, name, &st);
	if (fd < 0)
		return cannot_take(l, NULL, text, strerror(-fd));
	if (first) {
		leave_directory(l);
		l->place = ABOVE;
		l->dir_fd = fcntl(dirfd, F_DUPFD_CLOEXEC, 0);
		is_base(l, directory, name);
	}
	approve_file(l, text);
	return is_read(l, path) ? 0 : read_document(l, dirfd, name, path, path, &doc);
}

static int read_named_one(struct loading *l, const char *text, bool first)
{
	const struct config_params *p = l->params;
	const char *inside = text[0] == '/' ? below(text, p->root) : text;
	if (!inside)
		inside = below(text, p->main_root);
	cleanup_free char *relative = config_path_normalized(inside ? inside : text);
	if (!inside || !strcmp(relative, "..") || !strncmp(relative, "../", 3) || leads_out(p->root_fd, relative))
		return read_from_outside(l, text, first);
	return read_listed_inside(l, NULL, relative, first);
}

/* What we wrote ourselves, for docker compose to find our services. */
static bool leads_to_ours(const char *value, const char *separator)
{
	for (const char *at = value; (at = strstr(at, ".aether")); at++)
		if ((at == value || at[-1] == '/' || at[-1] == *separator) && at[7] == '/')
			return true;
	return false;
}

/* 1: it names files; 0: it does not. */
static int read_named(struct loading *l)
{
	const struct keyvals *user = l->params->variables;
	const char *value = user ? keyvals_get(user, "COMPOSE_FILE") : NULL;
	const char *separator = user ? keyvals_get(user, "COMPOSE_PATH_SEPARATOR") : NULL;
	if (!separator || !*separator)
		separator = ":";
	if (!value || leads_to_ours(value, separator))
		return 0;
	bool any = false;
	int r = 0;
	while (r == 0 && *value) {
		const char *end = strstr(value, separator);
		cleanup_free char *text = xstrndup(value, end ? (size_t)(end - value) : strlen(value));
		value = end ? end + strlen(separator) : value + strlen(value);
		if (!*text)
			continue;
		r = read_named_one(l, text, !any);
		any = true;
	}
	return r < 0 ? r : any;
}

/* ---- what lies on top ---- */

#define LOCAL_FILE "aether.local.yaml"

/* *ret stays NULL when there is none. */
static int read_local(struct loading *l, int dirfd, const char *directory, bool own, struct yaml_document **ret)
{
	struct stat st;
	cleanup_close int fd = dirfd < 0 ? -1 : open_to_look(l, dirfd, LOCAL_FILE, &st);
	if (fd < 0)
		return fd == -EACCES ? error_set_errno(l->reader.err, ERROR_CONFIG_INVALID, EACCES, "%s/" LOCAL_FILE, directory) : 0;
	cleanup_free char *path = join(directory, LOCAL_FILE);
	return read_document(l, dirfd, LOCAL_FILE, path, own ? LOCAL_FILE : path, ret);
}

static int read_locals(struct loading *l, struct yaml_document *locals[2])
{
	const struct config_params *p = l->params;
	int r = 0;
	if (has_main(p)) {
		cleanup_close int fd = open(p->main_root, O_PATH | O_DIRECTORY | O_CLOEXEC);
		r = read_local(l, fd, p->main_root, false, &locals[0]);
	}
	return r < 0 ? r : read_local(l, p->root_fd, p->root, true, &locals[1]);
}

/* ---- the whole ---- */

static bool has_aether_yaml(const struct loading *l)
{
	struct stat st;
	cleanup_close int fd = open_to_look(l, l->params->root_fd, file_names[0], &st);
	return fd >= 0;
}

/* By its name. *ret_over: it lies on those that it names. */
static int read_found(struct loading *l, struct yaml_document *const locals[2], struct yaml_document **ret_over)
{
	struct field root, aether, list;
	struct yaml_document *doc = NULL;
	int r = find_default(l, &doc);
	if (r < 0)
		return r;
	if (r > 0 && l->place != ABOVE && names_files(l, doc, &root, &aether, &list)) {
		*ret_over = doc;
		free(move_ptr(l->config->file));
		free(move_ptr(l->config->directory));
		free(move_ptr(l->config->subdirectory));
		return read_listed(l, &list);
	}
	if (r > 0)
		return strcmp(strrchr(l->config->file, '/') + 1, file_names[0]) ? read_override(l) : 0;
	if (!locals[0] && !locals[1])
		return not_found(l);
	enter(l, !locals[1]);
	is_base(l, locals[1] ? l->params->root : l->params->main_root, LOCAL_FILE);
	return 0;
}

/* What lies beneath the local files. */
static int read_base(struct loading *l, struct yaml_document *const locals[2], struct yaml_document **ret_over)
{
	struct field root, aether, list;
	for (size_t i = 2; i-- > 0;)
		if (locals[i] && names_files(l, locals[i], &root, &aether, &list))
			return read_listed(l, &list);
	int r = has_aether_yaml(l) ? 0 : read_named(l);
	return r ? (r < 0 ? r : 0) : read_found(l, locals, ret_over);
}

/* The files come into the order in which they lie on each other. */
static int lay_on(struct loading *l, struct yaml_document *doc, size_t at)
{
	const struct yaml *root = yaml_root(doc);
	struct config_file *files = l->config->files;
	size_t from = at;
	while (files[from].shown != root->file)
		from++;
	const struct config_file own = files[from];
	memmove(&files[at + 1], &files[at], (from - at) * sizeof *files);
	files[at] = own;
	int r = related_resolve(l, doc, own.path, &root);
	if (r == 0)
		l->root = !l->root ? root : config_merge(doc, l->root, root);
	return r;
}

int loading_read(struct loading *l)
{
	struct yaml_document *locals[2] = {NULL, NULL}, *own = NULL;
	int r = read_locals(l, locals);
	size_t n = 0;
	if (r == 0)
		r = read_base(l, locals, &own);
	for (size_t i = 0, count = l->n_docs; r == 0 && i < count; i++)
		if (l->docs[i] != locals[0] && l->docs[i] != locals[1] && l->docs[i] != own)
			r = lay_on(l, l->docs[i], n++);
	struct yaml_document *const last[] = {own, locals[0], locals[1]};
	for (size_t i = 0; r == 0 && i < 3; i++)
		if (last[i])
			r = lay_on(l, last[i], n++);
	return r;
}

/* ---- files that others extend or include ---- */

struct whereabouts {
	int dirfd; /* owned */
	char *name, *path, *shown;
	bool outside;
};

static void whereabouts_release(struct whereabouts *w)
{
	if (w->dirfd >= 0)
		close(w->dirfd);
	free(w->name);
	free(w->path);
	free(w->shown);
}

static const char *place_of(const struct loading *l)
{
	return l->place == IN_WORKSPACE ? l->params->root : l->place == IN_MAIN ? l->params->main_root : l->config->directory;
}

/* An absolute path anywhere but in the workspace. */
static void stands_alone(const struct loading *l, const char *path, struct whereabouts *ret)
{
	cleanup_free char *plain = config_path_normalized(path);
	ret->dirfd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	ret->name = move_ptr(plain);
	ret->path = xasprintf("/%s", ret->name);
	ret->shown = xstrdup(ret->path);
	ret->outside = !below(ret->path, l->params->main_root);
}

static int locate(struct loading *l, const char *path, struct whereabouts *ret)
{
	const struct config_params *p = l->params;
	const char *home = path[0] == '~' && path[1] == '/' ? loading_variable(l, "HOME") : NULL;
	cleanup_free char *of_home = home ? join(home, path + 2) : NULL;
	const char *given = of_home ? of_home : path, *inside = given[0] == '/' ? below(given, p->root) : NULL;
	cleanup_free char *relative = inside ? config_path_normalized(inside) : relative_to_root(l, given);
	bool above = !strcmp(relative, "..") || !strncmp(relative, "../", 3);
	struct stat st;
	if (given[0] == '/' && !inside) {
		stands_alone(l, given, ret);
	} else if (above) {
		cleanup_free char *joined = join(inside ? p->root : place_of(l), relative);
		stands_alone(l, joined, ret);
	} else {
		ret->dirfd = fcntl(inside ? p->root_fd : l->dir_fd, F_DUPFD_CLOEXEC, 0);
		ret->name = xstrdup(relative);
		ret->path = join(inside ? p->root : place_of(l), relative);
		ret->shown = xstrdup(l->place == ABOVE && !inside ? ret->path : relative);
		ret->outside = leads_out(ret->dirfd, relative);
	}
	cleanup_close int fd = open_to_look(l, ret->dirfd, ret->name, &st);
	if (fd != -ENOENT || above || given[0] == '/' || l->place != IN_WORKSPACE || !has_main(p))
		return fd < 0 ? fd : 0;
	close(ret->dirfd);
	ret->dirfd = open(p->main_root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	free(ret->path);
	ret->path = join(p->main_root, relative);
	cleanup_close int main_fd = open_to_look(l, ret->dirfd, ret->name, &st);
	return main_fd < 0 ? main_fd : 0;
}

char *loading_find_file(struct loading *l, const char *path)
{
	__attribute__((cleanup(whereabouts_release))) struct whereabouts w = {.dirfd = -1};
	return locate(l, path, &w) < 0 ? NULL : move_ptr(w.path);
}

int loading_read_file(struct loading *l, const struct field *f, const char *path, char **ret_path, struct yaml_document **ret)
{
	__attribute__((cleanup(whereabouts_release))) struct whereabouts w = {.dirfd = -1};
	if (strstr(path, "://") || !strncmp(path, "git@", 4))
		return field_error(f, "%s: only files are read, nothing is fetched", path);
	watch_path(l, path);
	int r = locate(l, path, &w);
	if (r < 0)
		return field_error(f, "%s: %s", path, strerror(-r));
	if (w.outside)
		approve_file(l, path);
	r = read_document(l, w.dirfd, w.name, w.path, w.shown, ret);
	if (r == 0)
		*ret_path = move_ptr(w.path);
	return r;
}

/* ---- env_file ---- */

static int read_anywhere(struct loading *l, const char *path, struct buffer *out, bool *ret_outside)
{
	const struct config_params *p = l->params;
	const char *inside = path[0] == '/' ? below(path, p->root) : NULL;
	cleanup_free char *relative = inside ? config_path_normalized(inside) : relative_to_root(l, path);
	bool above = !strcmp(relative, "..") || !strncmp(relative, "../", 3);
	int r;
	*ret_outside = above || l->place == ABOVE;
	if (path[0] == '/' && !inside) {
		*ret_outside = !below(path, p->main_root);
		cleanup_close int slash = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
		return read_file(l, slash, path, out);
	}
	r = read_file(l, inside ? p->root_fd : l->dir_fd, relative, out);
	/* what is not tracked stands in the main checkout alone */
	if (r == -ENOENT && !above && l->place == IN_WORKSPACE && has_main(p)) {
		cleanup_close int main_fd = open(p->main_root, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (main_fd >= 0)
			r = read_file(l, main_fd, relative, out);
	}
	return r;
}

/* `.env` beside the configuration is the user's layers, which whoever loads us has read (never through a mount, where a
 * read starts services); a fresh workspace has no such file. */
static bool is_users_env(const struct loading *l, const char *path)
{
	const char *inside = path[0] == '/' ? below(path, l->params->root) : NULL;
	if (path[0] == '/' && !inside)
		inside = below(path, l->params->main_root);
	if (l->place == ABOVE || (path[0] == '/' && !inside))
		return false;
	cleanup_free char *relative = inside ? config_path_normalized(inside) : relative_to_root(l, path);
	return !strcmp(relative, ".env");
}

/* In the place of a variable that is the user's: what it says there may change. */
static const char *itself(void *arg, const char *name)
{
	return name;
}

int loading_read_env_file(struct loading *l, const char *path, bool raw, struct keyvals *out, bool *ret_outside)
{
	*ret_outside = false;
	if (is_users_env(l, path)) {
		if (l->params->variables)
			keyvals_copy(out, l->params->variables);
		return 0;
	}
	cleanup_buffer struct buffer text = BUFFER_INIT;
	watch_path(l, path);
	int r = read_anywhere(l, path, &text, ret_outside);
	if (r < 0)
		return r;
	if (raw)
		envfile_parse_raw(buffer_str(&text), loading_variable, l, out);
	else
		envfile_parse(buffer_str(&text), loading_variable, l, NULL, out);
	*ret_outside = *ret_outside || loading_is_outside(l, path);
	if (!*ret_outside && raw)
		envfile_parse_raw(buffer_str(&text), itself, NULL, &l->strange_env);
	else if (!*ret_outside)
		envfile_parse(buffer_str(&text), itself, NULL, NULL, &l->strange_env);
	return 0;
}

int loading_read_labels(struct loading *l, const char *path, struct keyvals *out, bool *ret_outside)
{
	struct keyvals environment = l->strange_env;
	l->strange_env = (struct keyvals)KEYVALS_INIT;
	int r = loading_read_env_file(l, path, false, out, ret_outside);
	keyvals_release(&l->strange_env);
	l->strange_env = environment;
	return r;
}

#define ASKED_MAX 500

static void note_asked(struct config *c, const char *name)
{
	if (!strv_contains(c->asked, name) && strv_len(c->asked) < ASKED_MAX)
		strv_push(&c->asked, xstrdup(name));
}

const char *loading_variable(void *arg, const char *name)
{
	const struct loading *l = arg;
	size_t len = strlen(name);
	if (!strcmp(name, "PWD")) /* wherever somebody stood who mounted it */
		return l->params->root;
	note_asked(l->config, name);
	for (char *const *e = l->params->environ_; e && *e; e++)
		if (!strncmp(*e, name, len) && (*e)[len] == '=')
			return *e + len + 1;
	const char *value = l->params->variables ? keyvals_get(l->params->variables, name) : NULL;
	if (!value)
		value = related_variable(l, l->reader.file, name);
	return value || strcmp(name, "COMPOSE_PROJECT_NAME") ? value : l->project;
}
