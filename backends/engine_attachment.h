/* What the two kinds of attachments on an engine share: a program in a service's container, and a container of its own. Private to them. */
#ifndef BACKENDS_ENGINE_ATTACHMENT_H
#define BACKENDS_ENGINE_ATTACHMENT_H

#include "backends/engine.h"
#include "backends/http_upgrade.h"
#include "backends/attachment.h"

#define ATTACHMENT_CALL_MS 30000

/* Docker lets go of a terminal by a key sequence (ctrl-p, ctrl-q), and holds back its first key: nothing that people type. */
#define ATTACHMENT_DETACH_KEYS "ctrl-^,ctrl-_,ctrl-^"
#define ATTACHMENT_DETACH_KEYS_URL "ctrl-%5E,ctrl-_,ctrl-%5E"

struct engine_attachment {
	struct attachment base;
	struct engine_target target;
	struct http_stream *stream;
	char *container; /* id */
	char *program;   /* "/exec/ID", or "/containers/ID" of a container that is the program */
	char *what;      /* "service db", for messages */
	char *user;      /* who runs; NULL: the container's */
	pid_t pid;       /* of the container's first process, as the engine numbers it; 0: not known */
	bool terminal;
	struct engine_frames frames;
};

extern const struct attachment_ops engine_exec_attachment, engine_one_off_attachment;

void engine_attachment_release(struct engine_attachment *s); /* frees it */
static inline void engine_attachment_freep(struct engine_attachment **s)
{
	if (*s)
		engine_attachment_release(*s);
}
#define cleanup_engine_attachment __attribute__((cleanup(engine_attachment_freep)))

/* One call that must succeed; the engine's words are the error's. `ret` may be NULL. */
int engine_attachment_call(struct engine_attachment *s, const char *method, const char *path, const json_t *body, struct engine_reply *ret, struct error *err);
/* The same of the one that runs the program: PROGRAM_NOT_FOUND, BACKEND_SPAWN_FAILED. */
int engine_attachment_run(struct engine_attachment *s, const char *path, struct error *err);
/* The stream of `path` from now on. */
int engine_attachment_connect(struct engine_attachment *s, const char *path, const json_t *body, struct error *err);
#define ENGINE_NOT_UTF8 "the command line is no UTF-8, which an engine cannot be told"
/* new; NULL: what engines speak is JSON, and they are no UTF-8 */
json_t *engine_attachment_words(char *const *words);
/* new: `env` over `defaults` that `there` (an inspected container's or image's "Env") does not have */
json_t *engine_attachment_env(const struct attachment_spec *spec, const json_t *there);

/* Operations that both have. */
size_t engine_attachment_fds(struct attachment *s, bool writing, struct pollfd *ret);
int engine_attachment_read(struct attachment *s, attachment_take *take, void *arg);
ssize_t engine_attachment_write(struct attachment *s, const void *data, size_t len);
int engine_attachment_end_input(struct attachment *s);
int engine_attachment_resize(struct attachment *s, unsigned rows, unsigned columns);
/* Asks until `running` of what is inspected is false. */
int engine_attachment_wait(struct attachment *s, const char *state, unsigned timeout_ms, int *ret_code, struct error *err);

int engine_one_off(const struct attachment_spec *spec, struct attachment **ret, struct error *err); /* engine_one_off.c */

#endif
