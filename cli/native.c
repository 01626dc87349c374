#include "cli/native.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "cli/mounting.h"
#include "provisioner/mounts.h"

#define MOVED_WAIT_MS 20000 /* its services are stopped meanwhile */

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

/* A copy of a workspace that is still there is not served by its server. */
static bool is_served_as_moved(const char *root)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_free char *path = xasprintf("%s/" NATIVE_DIRECTORY "/status.json", root);
	struct stat st;
	if (native_find_at(root) == NATIVE_NONE || is_mounted_by_us(root) || file_read(AT_FDCWD, path, CLIENT_FILE_MAX, &text))
		return false;
	json_t *status = json_loads(buffer_str(&text), 0, NULL);
	const char *was = json_string_value(json_object_get(status, "workspace_root"));
	json_int_t keeper = json_integer_value(json_object_get(json_object_get(status, "aetherfs"), "keeper_pid"));
	bool served = was && strcmp(was, root) && lstat(was, &st) && errno == ENOENT && keeper > 0 && !kill((pid_t)keeper, 0);
	json_decref(status);
	return served;
}

void native_wait_moved(const char *root)
{
	uint64_t until = now_monotonic_ms() + MOVED_WAIT_MS;
	while (is_served_as_moved(root) && now_monotonic_ms() < until)
		poll(NULL, 0, 50);
}

bool native_is_demand(const char *file)
{
	static const char *const demands[] = {"env", "env.json", "ports", "env.container", "env.container.json", "env.container.list"};
	for (size_t i = 0; i < sizeof demands / sizeof demands[0]; i++)
		if (!strcmp(demands[i], file))
			return true;
	return false;
}

/* One line. */
static int read_answer(int fd, struct buffer *out)
{
	char chunk[4096];
	ssize_t n;
	while ((n = read(fd, chunk, sizeof chunk)) > 0 && out->len < CLIENT_FILE_MAX) {
		buffer_add(out, chunk, (size_t)n);
		if (out->data[out->len - 1] == '\n')
			return 0;
	}
	return n < 0 ? -errno : -EPIPE;
}

/* The connection, answered. `wait_ms` 0: however long it takes. `ret`: what it answered on success, new; NULL: that is nothing. */
static int ask(const struct client *c, const char *line, unsigned wait_ms, json_t **ret, struct error *err)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_free char *whole = xasprintf("%s\n", line);
	cleanup_close int fd = native_connect(&c->id);
	const struct timeval wait = {wait_ms / 1000, wait_ms % 1000 * 1000};
	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
	int r = fd < 0 ? fd : send(fd, whole, strlen(whole), MSG_NOSIGNAL) < 0 ? -errno : 0;
	if (!r)
		r = read_answer(fd, &text);
	if (r == -EINTR)
		return error_set(err, ERROR_CANCELED, "interrupted");
	json_t *answer = r ? NULL : json_loads(buffer_str(&text), 0, NULL);
	if (!answer)
		return error_set(err, ERROR_NOT_MOUNTED, "%s is not served any more", c->id.root);
	bool refused = json_object_get(answer, "code") != NULL;
	if (refused)
		error_from_json(err, answer);
	if (ret && !refused)
		*ret = json_incref(answer);
	json_decref(answer);
	return refused ? -EIO : move_fd(&fd);
}

int native_demand(const struct client *c, struct error *err)
{
	return ask(c, NATIVE_DEMAND, 0, NULL, err);
}

int native_hold(const struct client *c, const char *service, json_t **ret, struct error *err)
{
	cleanup_free char *line = xasprintf(NATIVE_HOLD "%s", service);
	return ask(c, line, 0, ret, err);
}

int native_command(const struct client *c, const char *line, struct error *err)
{
	cleanup_close int fd = ask(c, line, 0, NULL, err);
	return fd < 0 ? fd : 0;
}

void native_look(const struct client *c)
{
	cleanup_error struct error err = ERROR_INIT;
	cleanup_close int fd = ask(c, NATIVE_LOOK, MOUNT_ANSWER_MS, NULL, &err);
}
