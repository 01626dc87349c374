#include "cli/native.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "cli/mounting.h"
#include "provisioner/mounts.h"

/* Nobody else, a server least of all, is at it: -1 where somebody is. */
static int lock_keepers_out(const struct identity *id)
{
	cleanup_free char *path = xasprintf("%s/keeper.lock", id->state_dir);
	cleanup_close int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno == ENOENT ? open("/dev/null", O_RDONLY | O_CLOEXEC) : -1;
	return flock(fd, LOCK_EX | LOCK_NB) ? -1 : move_fd(&fd);
}

int native_repair(struct client *c, struct error *err)
{
	if (!c->native || (c->mounted && !c->dead))
		return 0;
	cleanup_close int lock = lock_keepers_out(&c->id);
	cleanup_close int root = open(c->id.root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (lock < 0 || root < 0)
		return 0; /* it begins, or ends, and does that itself */
	int r = c->dead ? mounting_clear_dead(c->control, err) : 0;
	if (!r)
		r = native_take_away(root, err);
	client_refresh(c);
	return r;
}

bool native_is_demand(const char *file)
{
	static const char *const demands[] = {"env", "env.json", "ports"};
	for (size_t i = 0; i < sizeof demands / sizeof demands[0]; i++)
		if (!strcmp(demands[i], file))
			return true;
	return false;
}

static int read_answer(int fd, struct buffer *out)
{
	char chunk[4096];
	ssize_t n;
	while ((n = read(fd, chunk, sizeof chunk)) > 0 && out->len < CLIENT_FILE_MAX)
		buffer_add(out, chunk, (size_t)n);
	return n < 0 ? -errno : 0;
}

int native_command(const struct client *c, const char *line, struct error *err)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_free char *whole = xasprintf("%s\n", line);
	cleanup_close int fd = native_connect(&c->id);
	int r = fd < 0 ? fd : write_all(fd, whole, strlen(whole));
	if (!r)
		r = read_answer(fd, &text);
	if (r == -EINTR)
		return error_set(err, ERROR_CANCELED, "interrupted");
	json_t *answer = r ? NULL : json_loads(buffer_str(&text), 0, NULL);
	if (!answer)
		return error_set(err, ERROR_NOT_MOUNTED, "%s is not served any more", c->id.root);
	bool refused = json_object_size(answer) > 0;
	if (refused)
		error_from_json(err, answer);
	json_decref(answer);
	return refused ? -EIO : 0;
}
