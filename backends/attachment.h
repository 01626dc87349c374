/* A program beside a service that runs, for somebody who waits for it at a terminal or in a pipe: what `ajj exec` is. Or, where a service is not
 * meant, in a container of its own that goes with it (`ajj run --in`). One duplex stream on every backend, wherever the program is.
 *
 * Without a loop and without a `struct backend`: whoever asks is a command, and no server. One thread. Opening, `resize`, `signal`,
 * `wait` and closing may block, for seconds at most where somebody answers at all (an image is pulled as long as it takes); `read` and `write`
 * never do. */
#ifndef BACKENDS_ATTACHMENT_H
#define BACKENDS_ATTACHMENT_H

#include <jansson.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/strv.h"

#define ATTACHMENT_FDS_MAX 4

enum { ATTACHMENT_OUT = 1, ATTACHMENT_ERR = 2 }; /* of a terminal all is ATTACHMENT_OUT */

/* Where a container of its own begins, and what it sees. */
struct attachment_container {
	const char *image;
	char *const *binds; /* absolute paths, each at the same path inside; NULL: none */
	const char *seen;   /* a path in them by which it is known that the engine sees there what we do; NULL: it is believed */
	uid_t uid;          /* who it is to be; the caller's own where the engine maps users to itself */
	gid_t gid;
	void (*progress)(void *arg, const json_t *progress); /* of a pull, as backend_progress; NULL: nobody wants to know */
	void (*making)(void *arg); /* from now on something is there that closing takes away: whoever ends without it leaves it. May be NULL */
	void *arg;
};

struct attachment_spec {
	const char *address; /* of the backend, as it was found when the environment was started; NULL: it has none */
	const char *namespace_;
	const char *workspace;
	const char *state_dir; /* as in struct backend_params */
	uid_t uid;             /* the same */
	const char *service;   /* NULL: `container` */
	const struct attachment_container *container;
	char *const *argv;
	const struct keyvals *env;      /* over what the service has */
	const struct keyvals *defaults; /* beneath it; NULL: none */
	const char *user;      /* NULL: the service's */
	const char *directory; /* NULL: the service's */
	bool terminal;         /* it gets one, `rows` by `columns` */
	unsigned rows, columns;
	bool only_check; /* nothing is made, nothing is run: could it be? *ret stays as it is */
};

struct attachment;

/* A piece of what the program writes. */
typedef void attachment_take(void *arg, int stream, const char *data, size_t len);

struct attachment_ops {
	/* What to poll for, `writing`: also for room for input. Returns how many. A negative descriptor is none. */
	size_t (*fds)(struct attachment *s, bool writing, struct pollfd *ret);
	/* Takes what is there. 1: go on; 0: that was all, `wait` is next; a negative errno: the connection broke, `wait` knows more. */
	int (*read)(struct attachment *s, attachment_take *take, void *arg);
	/* How much of the input was taken; -EAGAIN; -EPIPE: nobody reads it any more. */
	ssize_t (*write)(struct attachment *s, const void *data, size_t len);
	/* The input is at its end. */
	int (*end_input)(struct attachment *s);
	int (*resize)(struct attachment *s, unsigned rows, unsigned columns);
	/* 0, or -EOPNOTSUPP where there is no way to reach the program. */
	int (*signal)(struct attachment *s, int signo);
	/* How it ended: exit status, or 128 + signal; 126 and 127 when it could not be run. -EAGAIN: it still runs after `timeout_ms`. */
	int (*wait)(struct attachment *s, unsigned timeout_ms, int *ret_code, struct error *err);
	/* Lets go: its input ends, its terminal hangs up; a container of its own is removed. */
	void (*close)(struct attachment *s);
};

/* Every implementation begins its own struct with it. */
struct attachment {
	const struct attachment_ops *ops;
};

/* `backend`: its name, or an engine's address. SERVICE_FAILED: the service does not run. */
int attachment_open(const char *backend, const struct attachment_spec *spec, struct attachment **ret, struct error *err);
/* Containers of their own whose caller is gone: adds their names to `found`; with `remove` they go. */
int attachment_sweep(const char *backend, const char *address, const char *namespace_, bool remove, char ***found, struct error *err);
/* By a container's label it is known whose it is: "PID:TICKS:BOOT" of the caller. new */
char *attachment_owner(void);
bool attachment_owner_is_gone(const char *owner);
void attachment_close(struct attachment *s); /* NULL is allowed */
static inline void attachment_closep(struct attachment **s)
{
	attachment_close(*s);
}
#define cleanup_attachment __attribute__((cleanup(attachment_closep)))

#endif
