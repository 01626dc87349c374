/* What an image would run on a new database (/docker-entrypoint-initdb.d), run on the data directory that is being made: it
 * gets its name only when all of it went well, so nothing half-seeded is ever kept. Each environment is seeded by itself,
 * after the clone: a script may do anything, so a template of its result would be somebody else's. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "backends/process.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/digest.h"
#include "base/file.h"

#ifndef FUSE_SUPER_MAGIC
#define FUSE_SUPER_MAGIC 0x65735546
#endif
#define LINES_SHOWN 8 /* of a script that failed: psql points at the place in the last three */

#define PART ".part" /* in the staging directory: a mount on its way, until it is known to be what was approved */

struct script {
	char *name, *path, *shown, *digest; /* as in struct process_script */
};

struct process_seed {
	char **argv;
	struct keyvals env;
	struct script *scripts;
	size_t n_scripts;
};

struct process_seed *process_seed_new(const struct process_spec *spec)
{
	if (!spec->seed || !spec->n_scripts)
		return NULL;
	struct process_seed *s = xcalloc(1, sizeof *s);
	s->argv = strv_copy(spec->seed);
	if (spec->seed_env)
		keyvals_copy(&s->env, spec->seed_env);
	s->scripts = xcalloc(spec->n_scripts, sizeof *s->scripts);
	for (; s->n_scripts < spec->n_scripts; s->n_scripts++) {
		const struct process_script *from = &spec->scripts[s->n_scripts];
		s->scripts[s->n_scripts] =
		    (struct script){xstrdup(from->name), xstrdup(from->path), xstrdup(from->shown), xstrdup(from->digest)};
	}
	return s;
}

void process_seed_free(struct process_seed *s)
{
	if (!s)
		return;
	strv_free(s->argv);
	keyvals_release(&s->env);
	for (size_t i = 0; i < s->n_scripts; i++) {
		free(s->scripts[i].name);
		free(s->scripts[i].path);
		free(s->scripts[i].shown);
		free(s->scripts[i].digest);
	}
	free(s->scripts);
	free(s);
}

/* ---- the scripts, where the service's user can read them ---- */

struct staging {
	int to; /* the directory */
	uid_t uid;
	gid_t gid;
};

static int copy_all(const struct staging *s, const char *directory)
{
	cleanup_closedir DIR *d = opendir(directory);
	cleanup_close int part = -1;
	struct dirent *e;
	if (mkdirat(s->to, PART, 0700))
		return -errno;
	if (!d)
		return errno == ENOENT ? 0 : -errno; /* an engine would mount an empty one */
	part = openat(s->to, PART, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int r = part < 0 ? -errno : 0;
	while (!r && (e = readdir(d)))
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			r = tree_copy(dirfd(d), e->d_name, part, e->d_name, s->uid, s->gid);
	return r;
}

/* A link is followed, as a mount follows it; but not into a mount of ours, whose files may start services. */
static int copy_target(const struct staging *s, const char *path)
{
	char chunk[65536];
	struct stat st;
	struct statfs fs;
	cleanup_close int from = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (from < 0 || fstat(from, &st) || fstatfs(from, &fs))
		return -errno;
	if (!S_ISREG(st.st_mode) || fs.f_type == FUSE_SUPER_MAGIC)
		return -EINVAL;
	cleanup_close int to = openat(s->to, PART, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, st.st_mode & 0700);
	if (to < 0 || (s->uid != (uid_t)-1 && fchown(to, s->uid, s->gid)))
		return -errno;
	int r = 0;
	ssize_t n = 0;
	while (!r && (n = read(from, chunk, sizeof chunk)) > 0)
		r = write_all(to, chunk, (size_t)n);
	return r || n == 0 ? r : -errno;
}

static int copy_part(const struct staging *s, const struct script *script)
{
	struct stat st;
	if (!script->name)
		return copy_all(s, script->path);
	if (lstat(script->path, &st))
		return -errno;
	return S_ISLNK(st.st_mode) ? copy_target(s, script->path)
	                           : tree_copy(AT_FDCWD, script->path, s->to, PART, s->uid, s->gid);
}

/* Looked at in the copy, which nobody else can change any more: between the approval and now somebody may have. */
static int check_part(const struct staging *s, const struct script *script, struct error *err)
{
	char digest[SHA256_HEX];
	int r = digest_of(s->to, PART, digest);
	if (r == 0 && script->digest && !strcmp(digest, script->digest))
		return 0;
	if (r == -EXDEV) {
		error_set(err, ERROR_CONFIG_INVALID, "%s, which is to fill the new database: a link in it leads out of it", script->shown);
		return error_hint(err, "mount what the link leads to by a line of its own");
	}
	if (r < 0)
		return error_set_errno(err, ERROR_CONFIG_INVALID, -r, "%s, which is to fill the new database", script->shown);
	error_set(err, ERROR_CONFIG_UNTRUSTED, "%s, which is to fill the new database, is not what was approved", script->shown);
	return error_hint(err, "ajj trust --show says what has changed, ajj trust approves it");
}

/* Under their names; one that is there already gives way. */
static int place_part(const struct staging *s, const struct script *script)
{
	if (script->name) {
		int r = tree_remove(s->to, script->name);
		return r ? r : renameat(s->to, PART, s->to, script->name) ? -errno : 0;
	}
	cleanup_close int part = openat(s->to, PART, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	cleanup_closedir DIR *d = part < 0 ? NULL : fdopendir(dup(part));
	struct dirent *e;
	int r = d ? 0 : -errno;
	while (!r && (e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") || !strcmp(e->d_name, PART))
			continue;
		r = tree_remove(s->to, e->d_name);
		if (!r && renameat(part, e->d_name, s->to, e->d_name))
			r = -errno;
	}
	return r ? r : tree_remove(s->to, PART);
}

static int stage_script(const struct staging *s, const struct script *script, struct error *err)
{
	int r = copy_part(s, script);
	if (!r) {
		r = check_part(s, script, err);
		if (r)
			return r;
		r = place_part(s, script);
	}
	return r ? error_set_errno(err, r == -ENOSPC ? ERROR_NO_SPACE : ERROR_CONFIG_INVALID, -r, "%s, which is to fill the new database",
	                           script->shown)
	         : 0;
}

static int stage(const struct process_settings *p, const struct process_seed *s, const char *directory, struct error *err)
{
	bool other = p->uid != (uid_t)-1;
	int r = mkdir(directory, 0700) ? -errno : 0;
	if (!r && other && lchown(directory, p->uid, (gid_t)p->uid))
		r = -errno;
	if (r)
		return error_set_errno(err, r == -ENOSPC ? ERROR_NO_SPACE : ERROR_BACKEND_SPAWN_FAILED, -r, "%s", directory);
	cleanup_close int to = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const struct staging staging = {to, p->uid, other ? (gid_t)p->uid : (gid_t)-1};
	for (size_t pass = 0; pass < 2; pass++) /* files lie over directories, in whatever order they are named */
		for (size_t i = 0; i < s->n_scripts; i++) {
			if ((s->scripts[i].name != NULL) != (pass == 1))
				continue;
			r = to < 0 ? -EIO : stage_script(&staging, &s->scripts[i], err);
			if (r)
				return r;
		}
	return 0;
}

static bool is_empty(const char *directory)
{
	cleanup_closedir DIR *d = opendir(directory);
	struct dirent *e;
	while (d && (e = readdir(d)))
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			return false;
	return true;
}

int process_seed_run(const struct process_settings *p, const struct process_seed *s, const char *data, struct error *err)
{
	cleanup_free char *scripts = xasprintf("%s.seed", data);
	gid_t gid = p->uid == (uid_t)-1 ? (gid_t)-1 : (gid_t)p->uid;
	int r = tree_remove(AT_FDCWD, scripts);
	if (r)
		return error_set_errno(err, ERROR_BACKEND_SPAWN_FAILED, -r, "%s", scripts);
	if (p->uid != (uid_t)-1 && lchown(data, p->uid, gid))
		return error_set_errno(err, ERROR_BACKEND_SPAWN_FAILED, errno, "%s", data);
	r = stage(p, s, scripts, err);
	char **argvs[] = {s->argv, NULL};
	char *inputs[] = {NULL, NULL};
	const struct process_steps steps = {argvs, inputs};
	const struct process_run run = {
	    p, "the scripts of the new database", &steps, &s->env, data, p->uid, gid, PROCESS_SEED_MS, LINES_SHOWN};
	if (!r && !is_empty(scripts))
		r = process_steps_run(&run, err);
	tree_remove(AT_FDCWD, scripts);
	return r;
}
