/* A server on a Unix socket that answers as it is told, right or wrong: each request is given to a function of the test's, on a
 * thread of its own a connection. */
#ifndef TESTS_UNIT_SCRIPTED_SERVER_H
#define TESTS_UNIT_SCRIPTED_SERVER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buffer.h"

struct scripted_request {
	char method[16], path[1024];
	const char *body;
	unsigned number; /* of all, from 0 */
};

/* Writes what it likes to fd. Returns whether the connection stays open. */
typedef bool scripted_answer(void *arg, int fd, const struct scripted_request *request);

#define SCRIPTED_CONNECTIONS_MAX 256

struct scripted_server;

struct scripted_connection {
	struct scripted_server *server;
	int fd;
	pthread_t thread;
};

struct scripted_server {
	char path[108];
	int fd;
	pthread_t thread;
	scripted_answer *answer;
	void *arg;
	_Atomic unsigned requests, connections;
	struct scripted_connection items[SCRIPTED_CONNECTIONS_MAX];
};

static inline void scripted_say(int fd, const char *text)
{
	if (send(fd, text, strlen(text), MSG_NOSIGNAL) < 0)
		return;
}

static inline bool scripted_json(int fd, int status, const char *body)
{
	cleanup_free char *text = xasprintf("HTTP/1.1 %d Status\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", status, strlen(body), body);
	scripted_say(fd, text);
	return true;
}

/* Until the client, or the test, goes away. */
static inline bool scripted_hang(int fd)
{
	char chunk[64];
	while (read(fd, chunk, sizeof chunk) > 0)
		;
	return false;
}

/* false: the client has gone. */
static inline bool scripted_read(int fd, struct buffer *in, struct scripted_request *ret, struct buffer *body)
{
	char chunk[4096];
	char *end;
	buffer_clear(in);
	while (!(end = strstr(buffer_str(in), "\r\n\r\n"))) {
		ssize_t n = read(fd, chunk, sizeof chunk);
		if (n <= 0)
			return false;
		buffer_add(in, chunk, (size_t)n);
	}
	const char *length = strcasestr(buffer_str(in), "\r\ncontent-length:");
	size_t want = length ? strtoul(length + 17, NULL, 10) : 0, head = (size_t)(end + 4 - in->data);
	while (in->len - head < want) {
		ssize_t n = read(fd, chunk, sizeof chunk);
		if (n <= 0)
			return false;
		buffer_add(in, chunk, (size_t)n);
	}
	if (sscanf(buffer_str(in), "%15s %1023s", ret->method, ret->path) != 2)
		return false;
	buffer_clear(body);
	buffer_add(body, in->data + head, want);
	ret->body = buffer_str(body);
	return true;
}

static inline void *scripted_connection_run(void *arg)
{
	struct scripted_connection *c = arg;
	struct buffer in = BUFFER_INIT, body = BUFFER_INIT;
	struct scripted_request request;
	while (scripted_read(c->fd, &in, &request, &body)) {
		request.number = c->server->requests++;
		if (!c->server->answer(c->server->arg, c->fd, &request))
			break;
	}
	shutdown(c->fd, SHUT_RDWR);
	buffer_release(&in);
	buffer_release(&body);
	return NULL;
}

static inline void *scripted_run(void *arg)
{
	struct scripted_server *s = arg;
	for (;;) {
		int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0 || s->connections == SCRIPTED_CONNECTIONS_MAX)
			return NULL;
		struct scripted_connection *c = &s->items[s->connections++];
		c->server = s;
		c->fd = fd;
		pthread_create(&c->thread, NULL, scripted_connection_run, c);
	}
}

static inline void scripted_server_start(struct scripted_server *s, scripted_answer *answer, void *arg)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char dir[] = "/tmp/aether-scripted-XXXXXX";
	s->answer = answer;
	s->arg = arg;
	s->requests = s->connections = 0;
	if (!mkdtemp(dir))
		abort();
	snprintf(s->path, sizeof s->path, "%s/s", dir);
	snprintf(address.sun_path, sizeof address.sun_path, "%s", s->path);
	s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(s->fd, (struct sockaddr *)&address, sizeof address) || listen(s->fd, 64))
		abort();
	pthread_create(&s->thread, NULL, scripted_run, s);
}

static inline void scripted_server_stop(struct scripted_server *s)
{
	shutdown(s->fd, SHUT_RDWR);
	pthread_join(s->thread, NULL);
	for (unsigned i = 0; i < s->connections; i++) {
		shutdown(s->items[i].fd, SHUT_RDWR);
		pthread_join(s->items[i].thread, NULL);
		close(s->items[i].fd);
	}
	close(s->fd);
	unlink(s->path);
	*strrchr(s->path, '/') = '\0';
	rmdir(s->path);
}

#endif
