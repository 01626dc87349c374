#include "cli/jj_guarded.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/strv.h"
#include "cli/client.h"
#include "cli/jj.h"
#include "cli/output.h"
#include "cli/process.h"
#include "cli/tracked.h"
#include "provisioner/env_name.h"
#include "provisioner/native.h"

#define RENAMED_MS 5000 /* until a server that knows the new name has taken the file under the old one away */

/* `jj file VERB` of this one file in the commit that is checked out. */
static int ask(const struct client *c, const char *verb, const char *template, const char *name, struct buffer *out, struct error *err)
{
	cleanup_strv char **argv = NULL;
	const char *const words[] = {"-R", c->id.root, "--ignore-working-copy", "file", verb, "-r", "@"};
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		strv_pushf(&argv, "%s", words[i]);
	if (template)
		strv_pushf(&argv, "-T%s", template);
	strv_pushf(&argv, "root-file:\"%s\"", name);
	int r = jj_capture(argv, out, err);
	return r > 0 ? -EIO : r;
}

/* What it has there: its type and 'x' or '-', as "file x". False: nothing, or jj cannot say. */
static bool in_commit(const struct client *c, const char *name, struct buffer *type)
{
	return !ask(c, "list", "file_type ++ if(executable, \" x\", \" -\")", name, type, NULL) && type->len;
}

static int write_file(const struct client *c, int root_fd, const char *name, bool executable, struct error *err)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	int r = ask(c, "show", NULL, name, &text, err);
	if (r)
		return r;
	r = file_write_atomic(root_fd, name, buffer_str(&text), text.len, executable ? 0755 : 0644);
	return r ? error_set_errno(err, r == -ENOSPC ? ERROR_NO_SPACE : ERROR_PERMISSION, -r, "%s/%s", c->id.root, name) : 0;
}

static bool is_there(int root_fd, const char *name)
{
	struct stat st;
	return !fstatat(root_fd, name, &st, AT_SYMLINK_NOFOLLOW);
}

/* The file of ours goes; where the user's own one rested, that comes in its place. Nothing is held open meanwhile: the server takes who holds the directory
 * for one who removes it. */
static bool wait_renamed(const char *path, const struct stat *ours)
{
	struct stat st;
	uint64_t until = now_monotonic_ms() + RENAMED_MS;
	while (!lstat(path, &st) && st.st_ino == ours->st_ino) {
		if (now_monotonic_ms() >= until)
			return false;
		poll(NULL, 0, 20);
	}
	return true;
}

/* The user's own lines were not of this commit: they are what they were, under the new name. */
static int make_room(int root_fd, const char *old_name, const char *new_name)
{
	const char *own = env_name_own(new_name);
	if (is_there(root_fd, own))
		return is_there(root_fd, old_name) ? -EEXIST : 0;
	return renameat(root_fd, old_name, root_fd, own) && errno != ENOENT ? -errno : 0;
}

static int refuse(const struct client *c, const char *name, struct error *err)
{
	error_set(err, ERROR_JJ_FAILED, "the commit that is checked out tracks %s, and jj would lose it: another one stands in its place", name);
	return error_hint(err, "ajj detach; jj restore --from %s@ %s", c->id.workspace, name);
}

static int put_there(const struct client *c, const char *name, bool executable, struct error *err)
{
	cleanup_close int root_fd = open(c->id.root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root_fd < 0)
		return error_set_errno(err, ERROR_WORKSPACE_NOT_FOUND, errno, "%s", c->id.root);
	int r = make_room(root_fd, name, c->id.env_name);
	return r ? refuse(c, name, err) : write_file(c, root_fd, name, executable, err);
}

static int put_back(struct client *c, struct error *err)
{
	cleanup_buffer struct buffer type = BUFFER_INIT;
	struct stat ours;
	const char *name = c->id.env_name;
	cleanup_free char *path = xasprintf("%s/%s", c->id.root, name);
	if (lstat(path, &ours) || !in_commit(c, name, &type))
		return 0;
	bool known = !strncmp(buffer_str(&type), "file ", 5);
	if (known)
		tracked_settle(c);
	if (!known || c->id.env_name == name || !wait_renamed(path, &ours))
		return refuse(c, name, err);
	return put_there(c, name, buffer_str(&type)[5] == 'x', err);
}

static bool needs_guard(struct client *c)
{
	return !client_find(NULL, c, NULL) && c->native && c->mounted && !c->dead && c->id.kind == WORKSPACE_JJ;
}

int jj_guarded(char *const *argv, struct error *err)
{
	cleanup_client struct client c = CLIENT_INIT;
	cleanup_free char *path = NULL;
	if (jj_find(&path, NULL) || !needs_guard(&c))
		return jj_exec(argv, err);
	int r = put_back(&c, err);
	if (r)
		return r;
	interrupts_note();
	int code = jj_wait(argv, err);
	interrupts_release();
	r = code < 0 ? code : put_back(&c, err);
	return r ? r : code;
}
