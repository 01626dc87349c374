/* The few descriptors that nodes have: files without a name that somebody has open still, and files that only their creator's handle may write.
 * The keeper holds a copy of each, so that they outlive this server. */
#include "fs/overlay_private.h"

#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/log.h"
#include "fs/keeper.h"

#define KEEPER_PATIENCE_MS 1000 /* for room in its queue; then the descriptor is ours alone */

static int send_once(int socket, const struct msghdr *message)
{
	return sendmsg(socket, message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

static void tell_keeper(struct overlay *o, enum keeper_message_type type, uint32_t key, int fd)
{
	struct { uint32_t type, key; } head = {type, key};
	struct iovec iov = {&head, offsetof(struct keeper_message, text)};
	union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = {.bytes = {0}};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	_Static_assert(sizeof(head) == offsetof(struct keeper_message, text), "the head of a message");
	if (o->keeper_socket < 0)
		return;
	if (fd >= 0) {
		message.msg_control = control.bytes;
		message.msg_controllen = sizeof(control.bytes);
		struct cmsghdr *c = CMSG_FIRSTHDR(&message);
		*c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	}
	int r = send_once(o->keeper_socket, &message);
	struct pollfd room = {.fd = o->keeper_socket, .events = POLLOUT};
	if (r == -EAGAIN && poll(&room, 1, KEEPER_PATIENCE_MS) == 1)
		r = send_once(o->keeper_socket, &message);
	if (r < 0)
		log_warning("overlay", "a descriptor would not outlive the server: %s", strerror(-r));
}

/* pin_lock held. Steals fd when true. */
static bool pin(struct overlay *o, uint32_t index, int fd)
{
	if (fd < 0 || o->pins >= OVERLAY_PINS_MAX)
		return false;
	nodes_lock(o->nodes);
	bool taken = atomic_load(&node_record(o->nodes, index)->state) == NODE_LIVE && node_fd(o->nodes, index) < 0;
	if (taken)
		node_set_fd(o->nodes, index, fd);
	nodes_unlock(o->nodes);
	if (taken) {
		o->pins++;
		tell_keeper(o, KEEPER_STASH, index, fd);
	}
	return taken;
}

/* pin_lock held. */
static void unpin(struct overlay *o, uint32_t index)
{
	nodes_lock(o->nodes);
	cleanup_close int fd = node_take_fd(o->nodes, index);
	nodes_unlock(o->nodes);
	if (fd >= 0) {
		o->pins--;
		tell_keeper(o, KEEPER_UNSTASH, index, -1);
	}
}

bool overlay_pin(struct overlay *o, uint32_t index, int fd)
{
	pthread_mutex_lock(&o->pin_lock);
	bool taken = pin(o, index, fd);
	pthread_mutex_unlock(&o->pin_lock);
	return taken;
}

void overlay_unpin(struct overlay *o, uint32_t index)
{
	pthread_mutex_lock(&o->pin_lock);
	unpin(o, index);
	pthread_mutex_unlock(&o->pin_lock);
}

/* Makes room in the ring: the oldest is dropped if it has a name still (it can be opened again, at a price). pin_lock held. */
static void remember_creator(struct overlay *o, uint32_t index)
{
	unsigned at = o->next_creator++ % OVERLAY_CREATORS_MAX;
	uint32_t old = o->creators[at].index;
	nodes_lock_shared(o->nodes);
	const struct shared_node *r = node_record(o->nodes, old);
	bool evict = old != NODE_NONE && atomic_load(&r->state) == NODE_LIVE && r->generation == o->creators[at].generation &&
	             atomic_load(&r->unlinked) == NODE_NAMED;
	o->creators[at].index = index;
	o->creators[at].generation = node_record(o->nodes, index)->generation;
	nodes_unlock(o->nodes);
	if (evict && old != index)
		unpin(o, old);
}

void overlay_pin_creator(struct overlay *o, uint32_t index, int fd)
{
	pthread_mutex_lock(&o->pin_lock);
	if (pin(o, index, fd))
		remember_creator(o, index);
	else if (fd >= 0)
		close(fd);
	pthread_mutex_unlock(&o->pin_lock);
}

uint32_t overlay_enter_nameless(struct overlay *o, const struct stat *st, enum shared_node_unlinked why, int fd)
{
	uint32_t index = NODE_NONE;
	pthread_mutex_lock(&o->pin_lock);
	if (o->pins < OVERLAY_PINS_MAX) {
		nodes_lock(o->nodes);
		index = node_enter_nameless(o->nodes, st, why, fd);
		nodes_unlock(o->nodes);
	}
	if (index == NODE_NONE) {
		close(fd);
	} else {
		o->pins++;
		tell_keeper(o, KEEPER_STASH, index, fd);
	}
	pthread_mutex_unlock(&o->pin_lock);
	return index;
}

static void drop_freed(struct overlay *o)
{
	uint32_t index;
	int fd;
	pthread_mutex_lock(&o->pin_lock);
	while (node_next_dropped(o->nodes, &index, &fd)) {
		o->pins--;
		tell_keeper(o, KEEPER_UNSTASH, index, -1);
		node_dropped(o->nodes, index);
		close(fd);
	}
	pthread_mutex_unlock(&o->pin_lock);
}

void overlay_forget(struct overlay *o, fuse_ino_t id, uint64_t count)
{
	nodes_lock_shared(o->nodes);
	uint32_t index = node_index(o->nodes, id);
	nodes_unlock(o->nodes);
	if (index == NODE_NONE)
		return;
	virtual_closed(o, index, count);
	node_forget(o->nodes, index, count);
	if (nodes_dropped(o->nodes))
		drop_freed(o);
}

void overlay_restore(struct overlay *o, uint32_t key, int fd)
{
	struct stat st;
	pthread_mutex_lock(&o->pin_lock);
	nodes_lock(o->nodes);
	bool wanted = key >= NODE_FIRST && key < atomic_load(&o->shared->node_count) && fstat(fd, &st) == 0 &&
	              atomic_load(&node_record(o->nodes, key)->state) == NODE_LIVE && node_is(o->nodes, key, &st) &&
	              node_fd(o->nodes, key) < 0;
	bool named = wanted && atomic_load(&node_record(o->nodes, key)->unlinked) == NODE_NAMED;
	if (wanted)
		node_set_fd(o->nodes, key, fd);
	nodes_unlock(o->nodes);
	if (wanted) {
		o->pins++;
		if (named)
			remember_creator(o, key);
	} else {
		close(fd);
		tell_keeper(o, KEEPER_UNSTASH, key, -1);
	}
	pthread_mutex_unlock(&o->pin_lock);
}
