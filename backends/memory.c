/* A backend in memory, for tests: the second implementation that keeps the contract honest.
 *
 * A service is an entry in a table of the process, kept by namespace so that it outlives the backend object (as real
 * services outlive a server), and a listening socket on 127.0.0.1 for every TCP port, so that a readiness probe
 * succeeds. It ends with the process. What happens is asked for through the service's environment (spec->env):
 *
 *   MEMORY_START_DELAY_MS  MEMORY_STOP_DELAY_MS   how long these take
 *   MEMORY_FAIL_START      MEMORY_FAIL_STOP  MEMORY_FAIL_REMOVE  MEMORY_FAIL_PREPARE   they fail with this text;
 *                          "CODE: text" chooses the code ("NO_SPACE: the disk is full")
 *   MEMORY_FAIL_COUNT      how many starts fail before one succeeds (default: all)
 *   MEMORY_LISTEN          "no": listens on nothing
 *   MEMORY_LISTEN_DELAY_MS listens that long after the start
 *   MEMORY_EXIT_AFTER_MS   ends by itself after the start, with MEMORY_EXIT_CODE (default 1)
 *   MEMORY_IGNORE_STOP     "yes": the whole grace passes
 *   MEMORY_EXEC_EXIT  MEMORY_EXEC_OUTPUT  MEMORY_EXEC_DELAY_MS   what exec gives
 *   MEMORY_UNSUPPORTED     check says so, with this text
 *   MEMORY_WARNING         check warns with this text
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backends/attached_process.h"
#include "backends/backends.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"

#define MEMORY_BYTES 4096 /* what an instance is said to use */

/* ---- the world: what outlives a backend. Loop thread alone ---- */

struct memory_service {
	char *namespace_, *name, *config_hash;
	enum instance_state state;
	int exit_code;
	int64_t started_ms, exited_ms;
	uint64_t serial; /* tells one instance from the next */
	unsigned failed_starts;
	struct keyvals env;
	struct port_binding *ports;
	size_t n_ports;
	int *sockets; /* parallel to ports; -1: not listening */
	struct memory_service *next;
};

static struct memory_service *world;

static struct memory_service *world_find(const char *namespace_, const char *name)
{
	for (struct memory_service *s = world; s; s = s->next)
		if (!strcmp(s->namespace_, namespace_) && !strcmp(s->name, name))
			return s;
	return NULL;
}

static void sockets_close(struct memory_service *s)
{
	for (size_t i = 0; i < s->n_ports; i++)
		if (s->sockets[i] >= 0)
			close(move_fd(&s->sockets[i]));
}

static void service_take(struct memory_service *s, const struct service_spec *spec)
{
	keyvals_release(&s->env);
	if (spec->env)
		keyvals_copy(&s->env, spec->env);
	free(s->config_hash);
	s->config_hash = xstrdup(spec->config_hash ? spec->config_hash : "");
	sockets_close(s);
	s->n_ports = spec->n_ports;
	s->ports = xrealloc(s->ports, (spec->n_ports + 1) * sizeof *s->ports);
	s->sockets = xrealloc(s->sockets, (spec->n_ports + 1) * sizeof *s->sockets);
	for (size_t i = 0; i < spec->n_ports; i++) {
		s->ports[i] = spec->ports[i];
		s->sockets[i] = -1;
	}
}

static struct memory_service *world_get(const char *namespace_, const char *name)
{
	struct memory_service *s = world_find(namespace_, name);
	if (s)
		return s;
	s = xcalloc(1, sizeof *s);
	s->namespace_ = xstrdup(namespace_);
	s->name = xstrdup(name);
	s->next = world;
	return world = s;
}

static void world_drop(struct memory_service *s)
{
	for (struct memory_service **at = &world; *at; at = &(*at)->next)
		if (*at == s) {
			*at = s->next;
			break;
		}
	sockets_close(s);
	keyvals_release(&s->env);
	free(s->namespace_);
	free(s->name);
	free(s->config_hash);
	free(s->ports);
	free(s->sockets);
	free(s);
}

static unsigned long number(const struct keyvals *env, const char *key, unsigned long otherwise)
{
	const char *value = env ? keyvals_get(env, key) : NULL;
	return value ? strtoul(value, NULL, 10) : otherwise;
}

static bool says(const struct keyvals *env, const char *key, const char *word)
{
	const char *value = env ? keyvals_get(env, key) : NULL;
	return value && !strcmp(value, word);
}

/* The kernel completes connections by itself, as many as the queue holds: enough for a probe. */
static int listen_on(uint16_t port)
{
	cleanup_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int on = 1;
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
	    bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, SOMAXCONN))
		return -errno;
	return move_fd(&fd);
}

static int sockets_open(struct memory_service *s, struct error *err)
{
	for (size_t i = 0; i < s->n_ports && !says(&s->env, "MEMORY_LISTEN", "no"); i++) {
		if (s->sockets[i] >= 0 || (s->ports[i].protocol && strcmp(s->ports[i].protocol, "tcp")))
			continue;
		int fd = listen_on(s->ports[i].external);
		if (fd < 0) {
			sockets_close(s);
			return error_set_errno(err, ERROR_BACKEND_SPAWN_FAILED, -fd, "service %s: port %u", s->name,
			                       s->ports[i].external);
		}
		s->sockets[i] = fd;
	}
	return 0;
}

/* ---- a backend ---- */

struct memory_backend {
	struct backend base;
	char *namespace_;
	backend_changed *changed;
	void *changed_arg;
	struct memory_op *ops; /* waiting for their time */
	unsigned active;
	bool closing;
	void (*closed)(void *arg);
	void *closed_arg;
};

/* Everything takes its time on a timer, so that nothing completes from within its own call. */
struct memory_op {
	struct memory_backend *backend;
	struct memory_op *next;
	uv_timer_t timer;
	char *service;                                        /* by name: the entry may go meanwhile */
	void (*run)(struct memory_op *op, struct error *err); /* NULL: only the answer */
	struct error err;                                     /* how it ends, unless it is canceled */
	unsigned grace_ms;
	int exit_code;
	char *output;
	uint64_t serial; /* of the instance that a timer is about */
	backend_done *done;
	backend_list_done *list_done;
	backend_exec_done *exec_done;
	void *arg;
};

static void active_end(struct memory_backend *b)
{
	if (--b->active || !b->closing)
		return;
	void (*closed)(void *) = b->closed;
	void *arg = b->closed_arg;
	free(b->namespace_);
	free(b);
	closed(arg);
}

static void op_closed(uv_handle_t *handle)
{
	struct memory_op *op = handle->data;
	struct memory_backend *b = op->backend;
	error_release(&op->err);
	free(op->service);
	free(op->output);
	free(op);
	active_end(b);
}

static void list_fill(const struct memory_backend *b, struct instances *list)
{
	size_t n = 0;
	for (const struct memory_service *s = world; s; s = s->next)
		n++;
	*list = (struct instances){xcalloc(n + 1, sizeof *list->items), 0};
	for (const struct memory_service *s = world; s; s = s->next) {
		if (strcmp(s->namespace_, b->namespace_) || s->state == INSTANCE_ABSENT)
			continue;
		bool running = s->state == INSTANCE_RUNNING;
		list->items[list->count++] = (struct instance){s->name,
		                                               s->state,
		                                               0,
		                                               (char *)"",
		                                               s->config_hash,
		                                               running ? 0 : s->exit_code,
		                                               s->started_ms,
		                                               running ? 0 : s->exited_ms,
		                                               running ? MEMORY_BYTES : 0};
	}
}

static void op_answer(struct memory_op *op)
{
	const struct error *err = error_is_set(&op->err) ? &op->err : NULL;
	if (op->done)
		op->done(op->arg, err);
	if (op->exec_done)
		op->exec_done(op->arg, err, err ? -1 : op->exit_code, op->output ? op->output : "");
	if (op->list_done) {
		struct instances list = {NULL, 0};
		if (!err)
			list_fill(op->backend, &list);
		op->list_done(op->arg, err, &list);
		free(list.items); /* the strings are the world's */
	}
}

static void op_end(struct memory_op *op)
{
	for (struct memory_op **at = &op->backend->ops; *at; at = &(*at)->next)
		if (*at == op) {
			*at = op->next;
			break;
		}
	op_answer(op);
	uv_close((uv_handle_t *)&op->timer, op_closed);
}

static void op_due(uv_timer_t *timer)
{
	struct memory_op *op = timer->data;
	if (op->run && !error_is_set(&op->err))
		op->run(op, &op->err);
	op_end(op);
}

static struct memory_op *op_new(struct memory_backend *b, const char *service, unsigned long delay_ms)
{
	struct memory_op *op = xcalloc(1, sizeof *op);
	op->backend = b;
	op->service = xstrdup(service);
	struct memory_op **last = &b->ops;
	while (*last)
		last = &(*last)->next;
	*last = op;
	b->active++;
	uv_timer_init(b->base.loop, &op->timer);
	op->timer.data = op;
	uv_timer_start(&op->timer, op_due, delay_ms, 0);
	return op;
}

/* "CODE: text" or text, from the environment. */
static void fail_as_asked(const struct keyvals *env, const char *key, enum error_code otherwise, struct error *err)
{
	const char *text = env ? keyvals_get(env, key) : NULL;
	if (!text)
		return;
	size_t len = strcspn(text, ":");
	cleanup_free char *word = xstrndup(text, len);
	enum error_code code = text[len] ? error_code_from_name(word) : ERROR_NONE;
	if (code != ERROR_NONE) {
		text += len + 1;
		text += strspn(text, " ");
	}
	error_set(err, code != ERROR_NONE ? code : otherwise, "%s", text);
}

/* ---- changes by themselves ---- */

static void tell(struct memory_backend *b, const struct memory_service *s)
{
	struct instance i = {s->name,       s->state,     0, (char *)"", s->config_hash, s->exit_code,
	                     s->started_ms, s->exited_ms, 0};
	if (b->changed && !b->closing)
		b->changed(b->changed_arg, &i);
}

static void service_end(struct memory_service *s, int code)
{
	s->state = INSTANCE_EXITED;
	s->exit_code = code;
	s->exited_ms = now_wall_ms();
	sockets_close(s);
}

/* The instance that the timer was set for, if it still runs. */
static struct memory_service *same_instance(const struct memory_op *op)
{
	struct memory_service *s = world_find(op->backend->namespace_, op->service);
	return s && s->state == INSTANCE_RUNNING && s->serial == op->serial ? s : NULL;
}

static void exit_run(struct memory_op *op, struct error *err)
{
	struct memory_service *s = same_instance(op);
	if (!s)
		return;
	service_end(s, op->exit_code);
	tell(op->backend, s);
}

static void listen_run(struct memory_op *op, struct error *err)
{
	struct memory_service *s = same_instance(op);
	cleanup_error struct error why = ERROR_INIT;
	if (!s || !sockets_open(s, &why))
		return;
	service_end(s, 1);
	tell(op->backend, s);
}

static void watch(struct memory_backend *b, const struct memory_service *s)
{
	if (keyvals_has(&s->env, "MEMORY_EXIT_AFTER_MS")) {
		struct memory_op *op = op_new(b, s->name, number(&s->env, "MEMORY_EXIT_AFTER_MS", 0));
		op->run = exit_run;
		op->serial = s->serial;
		op->exit_code = (int)number(&s->env, "MEMORY_EXIT_CODE", 1);
	}
	if (keyvals_has(&s->env, "MEMORY_LISTEN_DELAY_MS")) {
		struct memory_op *op = op_new(b, s->name, number(&s->env, "MEMORY_LISTEN_DELAY_MS", 0));
		op->run = listen_run;
		op->serial = s->serial;
	}
}

/* ---- the operations ---- */

static void start_run(struct memory_op *op, struct error *err)
{
	static uint64_t last_serial;
	struct memory_service *s = world_get(op->backend->namespace_, op->service);
	if (s->state == INSTANCE_RUNNING)
		return;
	if (s->failed_starts < number(&s->env, "MEMORY_FAIL_COUNT", (unsigned long)-1)) {
		fail_as_asked(&s->env, "MEMORY_FAIL_START", ERROR_BACKEND_SPAWN_FAILED, err);
		if (error_is_set(err)) {
			s->failed_starts++;
			return;
		}
	}
	if (!keyvals_has(&s->env, "MEMORY_LISTEN_DELAY_MS") && sockets_open(s, err))
		return;
	s->state = INSTANCE_RUNNING;
	s->started_ms = now_wall_ms();
	s->serial = ++last_serial;
	watch(op->backend, s);
}

static void memory_start(struct backend *base, const struct service_spec *spec, backend_done *done, void *arg)
{
	struct memory_backend *b = (struct memory_backend *)base;
	struct memory_service *s = world_get(b->namespace_, spec->name);
	if (s->state != INSTANCE_RUNNING)
		service_take(s, spec);
	struct memory_op *op = op_new(b, spec->name, number(spec->env, "MEMORY_START_DELAY_MS", 0));
	op->run = start_run;
	op->done = done;
	op->arg = arg;
}

static void stop_run(struct memory_op *op, struct error *err)
{
	struct memory_service *s = world_find(op->backend->namespace_, op->service);
	if (!s || s->state != INSTANCE_RUNNING)
		return;
	fail_as_asked(&s->env, "MEMORY_FAIL_STOP", ERROR_BACKEND_DEPROVISION_FAILED, err);
	if (!error_is_set(err))
		service_end(s, says(&s->env, "MEMORY_IGNORE_STOP", "yes") ? 137 : 0);
}

static unsigned long stop_delay_ms(const struct memory_service *s, unsigned grace_ms)
{
	if (!s || s->state != INSTANCE_RUNNING)
		return 0;
	return says(&s->env, "MEMORY_IGNORE_STOP", "yes") ? grace_ms : number(&s->env, "MEMORY_STOP_DELAY_MS", 0);
}

static void memory_stop(struct backend *base, const char *service, int signal, unsigned grace_ms, backend_done *done,
                        void *arg)
{
	struct memory_backend *b = (struct memory_backend *)base;
	struct memory_op *op = op_new(b, service, stop_delay_ms(world_find(b->namespace_, service), grace_ms));
	op->run = stop_run;
	op->done = done;
	op->arg = arg;
}

static void remove_run(struct memory_op *op, struct error *err)
{
	struct memory_service *s = world_find(op->backend->namespace_, op->service);
	if (!s)
		return;
	fail_as_asked(&s->env, "MEMORY_FAIL_REMOVE", ERROR_BACKEND_DEPROVISION_FAILED, err);
	if (!error_is_set(err))
		world_drop(s);
}

static void memory_remove(struct backend *base, const char *service, backend_done *done, void *arg)
{
	struct memory_op *op = op_new((struct memory_backend *)base, service, 0);
	op->run = remove_run;
	op->done = done;
	op->arg = arg;
}

static void memory_list(struct backend *base, backend_list_done *done, void *arg)
{
	struct memory_op *op = op_new((struct memory_backend *)base, NULL, 0);
	op->list_done = done;
	op->arg = arg;
}

static void memory_exec(struct backend *base, const struct service_spec *spec, char *const *argv, unsigned timeout_ms,
                        backend_exec_done *done, void *arg)
{
	unsigned long delay_ms = number(spec->env, "MEMORY_EXEC_DELAY_MS", 0);
	struct memory_op *op =
	    op_new((struct memory_backend *)base, spec->name, delay_ms < timeout_ms ? delay_ms : timeout_ms);
	if (delay_ms >= timeout_ms && delay_ms)
		error_set(&op->err, ERROR_NOT_READY, "%s: %s: not done within %u ms", spec->name, argv[0], timeout_ms);
	op->exit_code = (int)number(spec->env, "MEMORY_EXEC_EXIT", 0);
	op->output = xstrdup(spec->env ? keyvals_get(spec->env, "MEMORY_EXEC_OUTPUT") : NULL);
	op->exec_done = done;
	op->arg = arg;
}

static void memory_prepare(struct backend *base, const struct service_spec *spec, backend_done *done, void *arg)
{
	struct memory_op *op = op_new((struct memory_backend *)base, spec->name, 0);
	fail_as_asked(spec->env, "MEMORY_FAIL_PREPARE", ERROR_BACKEND_SPAWN_FAILED, &op->err);
	op->done = done;
	op->arg = arg;
}

static void memory_check(struct backend *base, const struct service_spec *spec, backend_diagnostic *report, void *arg)
{
	const char *text = spec->env ? keyvals_get(spec->env, "MEMORY_UNSUPPORTED") : NULL;
	if (text)
		report(arg, DIAGNOSTIC_UNSUPPORTED, spec->name, "environment.MEMORY_UNSUPPORTED", text, NULL);
	text = spec->env ? keyvals_get(spec->env, "MEMORY_WARNING") : NULL;
	if (text)
		report(arg, DIAGNOSTIC_WARNING, spec->name, "environment.MEMORY_WARNING", text, NULL);
}

static int memory_open(const struct backend_params *params, struct backend **ret, struct error *err)
{
	struct memory_backend *b = xcalloc(1, sizeof *b);
	b->namespace_ = xstrdup(params->namespace_);
	b->changed = params->changed;
	b->changed_arg = params->changed_arg;
	b->active = 1;
	b->base.loop = params->loop;
	for (const struct memory_service *s = world; s; s = s->next)
		if (!strcmp(s->namespace_, b->namespace_) && s->state == INSTANCE_RUNNING)
			watch(b, s);
	*ret = &b->base;
	return 0;
}

static void close_now(void *arg)
{
	struct memory_backend *b = arg;
	while (b->ops) {
		struct memory_op *op = b->ops;
		error_set_errno(&op->err, ERROR_CANCELED, ECANCELED, "the backend is being closed");
		op_end(op);
	}
	active_end(b);
}

static void memory_close(struct backend *base, void (*closed)(void *arg), void *arg)
{
	struct memory_backend *b = (struct memory_backend *)base;
	b->closing = true;
	b->closed = closed;
	b->closed_arg = arg;
	backend_defer(b->base.loop, close_now, b);
}

/* ---- beside a service ---- */

static int memory_attach(const struct attachment_spec *spec, struct attachment **ret, struct error *err)
{
	const struct memory_service *s = spec->service ? world_find(spec->namespace_, spec->service) : NULL;
	cleanup_keyvals struct keyvals env = KEYVALS_INIT;
	if (!s || s->state != INSTANCE_RUNNING)
		return error_set(err, ERROR_SERVICE_FAILED, "service %s does not run", spec->service ? spec->service : "(none)");
	const struct keyvals *layers[] = {spec->defaults, &s->env, spec->env};
	for (size_t i = 0; i < sizeof layers / sizeof *layers; i++)
		if (layers[i])
			keyvals_copy(&env, layers[i]);
	const struct attached_process p = {.what = s->name, .argv = spec->argv, .env = &env, .directory = spec->directory, .user_ns = -1, .pid_ns = -1, .until = -1, .uid = (uid_t)-1,
	                                   .terminal = spec->terminal, .rows = spec->rows, .columns = spec->columns};
	return attached_process_open(&p, ret, err);
}

const struct backend_ops backend_memory = {
    .name = "memory",
    .open = memory_open,
    .close = memory_close,
    .check = memory_check,
    .prepare = memory_prepare,
    .start = memory_start,
    .stop = memory_stop,
    .remove = memory_remove,
    .list = memory_list,
    .exec = memory_exec,
    .attach = memory_attach,
};
