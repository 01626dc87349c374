/* Names of the control file system: lookup, listing, deletion, renaming. Every name is looked up at each use (entry timeout
 * 0): what is found is the version of now, and nothing has to be taken back from the kernel, which would mean to notify
 * under its directory lock. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "fs/control_private.h"
#include "provisioner/config.h"

/* ---- names ---- */

const char *control_hidden_name(const struct control_file *file, char buf[CONTROL_HIDDEN_NAME])
{
	snprintf(buf, CONTROL_HIDDEN_NAME, ".aether/%s", file->name);
	return buf;
}

/* Does the caller, having deleted it, see it absent? */
static bool is_hidden(struct control *c, fuse_req_t req, const struct control_file *file)
{
	char name[CONTROL_HIDDEN_NAME];
	if (file->unlink != UNLINK_ENVIRONMENT || !unlinked_any(c->p.unlinked, control_hidden_name(file, name)))
		return false;
	return unlinked_hides(c->p.unlinked, name, thread_group(fuse_req_ctx(req)->pid));
}

/* A lookup is counted before it is answered: a crash between the two leaves a version that is kept too long, not one
 * that is gone too early. */
static void reply_version(struct control *c, fuse_req_t req, struct shared_version *version)
{
	struct fuse_entry_param entry;
	control_entry(c, version, &entry);
	version_ref(version);
	if (fuse_reply_entry(req, &entry) != 0)
		version_forget(c->versions, version, 1);
}

static void reply_scratch(struct control *c, fuse_req_t req, struct shared_scratch *s)
{
	struct fuse_entry_param entry;
	control_scratch_entry(c, s, &entry);
	atomic_fetch_add(&s->nlookup, 1);
	if (fuse_reply_entry(req, &entry) != 0)
		scratch_forget(c->versions, s, 1);
}

static void lookup_key(struct control *c, fuse_req_t req, uint64_t key)
{
	const struct control_file *file = control_file_of(key);
	struct shared_version *version = control_told_version(c, req, key);
	if (version) {
		reply_version(c, req, version);
		return;
	}
	/* A write holds its inode's lock in the kernel: the next command gets an inode of its own and does not wait for it. */
	version = version_current(c->versions, key);
	if (file && file->write == WRITE_COMMAND && version && control_busy(c, version->ino))
		version_retire(c->versions, version);
	int r = control_refresh(c, key, false, &version, NULL);
	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	if (!control_is_helper(c, req))
		c->views[version_index(c->versions, version)].seen = true;
	reply_version(c, req, version);
}

static void lookup_in_root(struct control *c, fuse_req_t req, const char *name)
{
	const char *owner;
	const struct control_file *file = control_root_file(c->env, name, &owner);
	struct shared_scratch *scratch = file ? NULL : scratch_by_name(c->versions, name);
	if (strcmp(name, "services") == 0) {
		struct fuse_entry_param entry = {.ino = CONTROL_INO_SERVICES};
		entry.attr_timeout = entry.entry_timeout = CONTROL_FOREVER_S;
		control_directory_attr(c, CONTROL_INO_SERVICES, &entry.attr);
		fuse_reply_entry(req, &entry);
	} else if (file && !is_hidden(c, req, file))
		lookup_key(c, req, control_file_key(file, owner));
	else if (scratch)
		reply_scratch(c, req, scratch);
	else
		fuse_reply_err(req, ENOENT);
}

/* The service whose directory this is; NULL: none. */
static const char *service_of_dir(struct control *c, fuse_ino_t ino)
{
	struct shared_version *version = version_by_ino(c->versions, ino);
	return version && !control_file_of(version->file) ? control_service_of(c->env, version->file) : NULL;
}

static void lookup(struct control *c, fuse_req_t req, fuse_ino_t parent, const char *name)
{
	if (!control_allows(c, req)) {
		fuse_reply_err(req, EACCES);
	} else if (parent == FUSE_ROOT_ID) {
		lookup_in_root(c, req, name);
	} else if (parent == CONTROL_INO_SERVICES) {
		if (environment_has_service(c->env, name))
			lookup_key(c, req, control_dir_key(name));
		else
			fuse_reply_err(req, ENOENT);
	} else {
		const char *service = service_of_dir(c, parent);
		const struct control_file *file = service ? control_file_find(IN_SERVICE, name) : NULL;
		if (file)
			lookup_key(c, req, control_file_key(file, service));
		else
			fuse_reply_err(req, service ? ENOENT : ESTALE);
	}
}

static void lookup_delayed(struct control *c, struct delayed *d)
{
	lookup(c, d->req, d->ino, d->name);
}

void control_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct control *c = fuse_req_userdata(req);
	if (!control_delay(c, &(struct delayed){.run = lookup_delayed, .req = req, .ino = parent}, name, NULL))
		lookup(c, req, parent, name);
}

static void forget(struct control *c, fuse_ino_t ino, uint64_t count)
{
	struct shared_version *version = version_by_ino(c->versions, ino);
	struct shared_scratch *scratch = version ? NULL : scratch_by_ino(c->versions, ino);
	if (version)
		version_forget(c->versions, version, count);
	else if (scratch)
		scratch_forget(c->versions, scratch, count);
}

void control_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	forget(fuse_req_userdata(req), ino, count);
	fuse_reply_none(req);
}

void control_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		forget(fuse_req_userdata(req), forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

/* ---- directories ---- */

void control_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (control_allows(fuse_req_userdata(req), req))
		fuse_reply_open(req, fi);
	else
		fuse_reply_err(req, EACCES);
}

struct listed {
	const char *name; /* NULL: nothing at this position */
	mode_t type;
	uint64_t ino;
	char *made; /* the name, where it is made for this; owned */
};

static void list_env_file(struct control *c, size_t i, struct listed *ret)
{
	if (i >= environment_file_count(c->env))
		return;
	const char *path = environment_file_path(c->env, i);
	const struct control_file *file = control_file_find(IN_ENV_FILES, CONTROL_ENV_FILE_PREFIX);
	struct shared_version *version = version_current(c->versions, control_file_key(file, path));
	ret->made = control_env_file_name(path);
	ret->name = ret->made;
	ret->type = S_IFREG;
	ret->ino = version ? version->ino : UINT32_MAX;
}

/* Positions are fixed: the table's index, then `services`, env files, then the slot of a scratch file. What is not rendered yet has no
 * number to show. */
static bool list_root(struct control *c, fuse_req_t req, size_t i, struct listed *ret)
{
	if (i < control_files_count) {
		const struct control_file *file = &control_files[i];
		struct shared_version *version = version_current(c->versions, control_file_key(file, NULL));
		if (file->place == IN_ROOT && !is_hidden(c, req, file))
			*ret = (struct listed){file->name, S_IFREG, version ? version->ino : UINT32_MAX};
		return true;
	}
	i -= control_files_count;
	if (i == 0) {
		*ret = (struct listed){"services", S_IFDIR, CONTROL_INO_SERVICES};
		return true;
	}
	if (--i < CONFIG_ENV_FILES_MAX) {
		list_env_file(c, i, ret);
		return true;
	}
	i -= CONFIG_ENV_FILES_MAX;
	struct shared_scratch *s = i < scratch_end(c->versions) ? scratch_at(c->versions, i) : NULL;
	if (s)
		*ret = (struct listed){scratch_name(s), S_IFREG, s->ino};
	return i < scratch_end(c->versions);
}

static bool list_services(struct control *c, size_t i, struct listed *ret)
{
	if (i >= environment_service_count(c->env))
		return false;
	const char *name = environment_service_name(c->env, i);
	struct shared_version *version = version_current(c->versions, control_dir_key(name));
	*ret = (struct listed){name, S_IFDIR, version ? version->ino : UINT32_MAX};
	return true;
}

static bool list_service(struct control *c, const char *service, size_t i, struct listed *ret)
{
	if (i >= control_files_count)
		return false;
	const struct control_file *file = &control_files[i];
	struct shared_version *version = version_current(c->versions, control_file_key(file, service));
	if (file->place == IN_SERVICE)
		*ret = (struct listed){file->name, S_IFREG, version ? version->ino : UINT32_MAX};
	return true;
}

/* False at the end. */
static bool list_at(struct control *c, fuse_req_t req, fuse_ino_t ino, const char *service, size_t i, struct listed *ret)
{
	*ret = (struct listed){0};
	if (i < 2) {
		*ret = (struct listed){i ? ".." : ".", S_IFDIR, i ? FUSE_ROOT_ID : ino};
		return true;
	}
	if (ino == FUSE_ROOT_ID)
		return list_root(c, req, i - 2, ret);
	return ino == CONTROL_INO_SERVICES ? list_services(c, i - 2, ret) : list_service(c, service, i - 2, ret);
}

static void list(struct control *c, fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset)
{
	const char *service = service_of_dir(c, ino);
	if (!service && ino != FUSE_ROOT_ID && ino != CONTROL_INO_SERVICES) {
		fuse_reply_buf(req, NULL, 0); /* its service is gone: an empty directory */
		return;
	}
	cleanup_free char *buf = xcalloc(1, size);
	size_t used = 0;
	struct listed entry;
	for (size_t i = (size_t)offset; list_at(c, req, ino, service, i, &entry); i++) {
		if (!entry.name)
			continue;
		struct stat st = {.st_ino = entry.ino, .st_mode = entry.type};
		size_t len = fuse_add_direntry(req, buf + used, size - used, entry.name, &st, (off_t)i + 1);
		free(entry.made);
		if (len > size - used)
			break;
		used += len;
	}
	fuse_reply_buf(req, buf, used);
}

static void list_delayed(struct control *c, struct delayed *d)
{
	list(c, d->req, d->ino, d->size, d->offset);
}

void control_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct control *c = fuse_req_userdata(req);
	struct delayed d = {.run = list_delayed, .req = req, .ino = ino, .size = size, .offset = offset};
	if (!control_delay(c, &d, NULL, NULL))
		list(c, req, ino, size, offset);
}

/* ---- deletion ---- */

/* Never waits for the teardown: the kernel holds the directory's lock until this is answered. */
static void unlink_environment(struct control *c, fuse_req_t req, const struct control_file *file)
{
	struct requester who;
	char name[CONTROL_HIDDEN_NAME];
	requester_of(fuse_req_ctx(req)->pid, &who);
	environment_unlinked(c->env, &who, UNLINKED_VIEW_MS);
	unlinked_add(c->p.unlinked, control_hidden_name(file, name), who.pid);
	version_retire(c->versions, version_current(c->versions, control_file_key(file, NULL)));
	fuse_reply_err(req, 0);
}

static void unlink_errors(struct control *c, fuse_req_t req, const struct control_file *file)
{
	environment_errors_clear(c->env);
	version_retire(c->versions, version_current(c->versions, control_file_key(file, NULL)));
	fuse_reply_err(req, 0);
}

static void unlink_in_root(struct control *c, fuse_req_t req, const char *name)
{
	const char *owner;
	const struct control_file *file = control_root_file(c->env, name, &owner);
	struct shared_scratch *scratch = file ? NULL : scratch_by_name(c->versions, name);
	if (file && file->unlink == UNLINK_ENVIRONMENT)
		unlink_environment(c, req, file);
	else if (file && file->unlink == UNLINK_ERRORS)
		unlink_errors(c, req, file);
	else if (file)
		fuse_reply_err(req, EPERM);
	else if (scratch) {
		scratch_unlink(c->versions, scratch);
		fuse_reply_err(req, 0);
	} else
		fuse_reply_err(req, session_request_resent() ? 0 : ENOENT);
}

void control_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct control *c = fuse_req_userdata(req);
	if (!control_allows(c, req))
		fuse_reply_err(req, EACCES);
	else if (parent == FUSE_ROOT_ID)
		unlink_in_root(c, req, name);
	else
		fuse_reply_err(req, control_file_find(IN_SERVICE, name) ? EPERM : ENOENT);
}

/* It stays listed, `absent`: by another number, for the kernel counts the removed directory as dead. */
static void remove_directory(struct control *c, fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct requester who;
	if (!control_allows(c, req)) {
		fuse_reply_err(req, EACCES);
		return;
	}
	if (parent != CONTROL_INO_SERVICES || !environment_has_service(c->env, name)) {
		fuse_reply_err(req, parent == CONTROL_INO_SERVICES ? ENOENT : EPERM);
		return;
	}
	requester_of(fuse_req_ctx(req)->pid, &who);
	cleanup_error struct error err = ERROR_INIT;
	int r = environment_service_remove(c->env, name, &who, &err);
	if (r == 0)
		version_retire(c->versions, version_current(c->versions, control_dir_key(name)));
	fuse_reply_err(req, -r);
}

static void remove_delayed(struct control *c, struct delayed *d)
{
	remove_directory(c, d->req, d->ino, d->name);
}

void control_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct control *c = fuse_req_userdata(req);
	if (!control_delay(c, &(struct delayed){.run = remove_delayed, .req = req, .ino = parent}, name, NULL))
		remove_directory(c, req, parent, name);
}

/* ---- other changes of names ---- */

static bool is_fixed(struct control *c, fuse_ino_t parent, const char *name)
{
	const char *owner;
	return parent != FUSE_ROOT_ID || strcmp(name, "services") == 0 || control_root_file(c->env, name, &owner);
}

/* What an editor made is put in the place of `env`. */
static int rename_over_file(struct control *c, fuse_req_t req, struct shared_scratch *s, const struct control_file *file, const char *owner)
{
	char name[CONTROL_HIDDEN_NAME];
	if (file->write != WRITE_TEXT)
		return -EACCES;
	int r = control_replace_env(c, owner, blob_bytes(c->versions, &s->text), s->text.size);
	if (r < 0)
		return r;
	pid_t tgid = thread_group(fuse_req_ctx(req)->pid);
	if (unlinked_take(c->p.unlinked, control_hidden_name(file, name), tgid))
		environment_replaced(c->env, tgid);
	version_retire(c->versions, version_current(c->versions, control_file_key(file, owner)));
	scratch_unlink(c->versions, s);
	return 0;
}

static int rename_to(struct control *c, fuse_req_t req, const char *from, fuse_ino_t to_parent, const char *to,
                     unsigned flags)
{
	struct shared_scratch *s = scratch_by_name(c->versions, from);
	const char *owner;
	const struct control_file *file = control_root_file(c->env, to, &owner);
	if (!s)
		return session_request_resent() && (file || scratch_by_name(c->versions, to)) ? 0 : -ENOENT;
	if (to_parent != FUSE_ROOT_ID || strcmp(to, "services") == 0)
		return -EPERM;
	if (flags & ~(unsigned)RENAME_NOREPLACE)
		return -EINVAL;
	if (flags & RENAME_NOREPLACE && (file || scratch_by_name(c->versions, to)))
		return -EEXIST;
	return file ? rename_over_file(c, req, s, file, owner) : scratch_rename(c->versions, s, to);
}

void control_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to_parent, const char *to,
                    unsigned flags)
{
	struct control *c = fuse_req_userdata(req);
	int r;
	if (!control_allows(c, req))
		r = -EACCES;
	else if (is_fixed(c, parent, name))
		r = -EBUSY;
	else
		r = rename_to(c, req, name, to_parent, to, flags);
	fuse_reply_err(req, -r);
}

void control_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t dev)
{
	struct control *c = fuse_req_userdata(req);
	struct shared_scratch *s = NULL;
	int r = !control_allows(c, req) ? -EACCES : parent != FUSE_ROOT_ID || !S_ISREG(mode) ? -EPERM : 0;
	if (r == 0 && is_fixed(c, parent, name))
		r = -EEXIST;
	if (r == 0)
		r = scratch_create(c->versions, name, mode & 07777, now_wall_ms(), &s);
	if (r == -EEXIST && session_request_resent() && (s = scratch_by_name(c->versions, name)))
		r = 0;
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		reply_scratch(c, req, s);
}

void control_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	fuse_reply_err(req, EPERM);
}

void control_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	fuse_reply_err(req, EPERM);
}

void control_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	fuse_reply_err(req, EPERM);
}
