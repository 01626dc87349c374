/* A backend that does what a test says: starts late, fails, exits, cannot be removed. It keeps its instances when it is
 * closed, as real ones do. A running service listens on its leased ports, so that real probes find it. Included by one
 * program; it takes the registry's place. */
#ifndef TESTS_UNIT_SCRIPTED_BACKEND_H
#define TESTS_UNIT_SCRIPTED_BACKEND_H

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backends/backend.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"

struct scripted {
	char name[64];
	/* what it does */
	unsigned start_ms, stop_ms;
	bool deaf; /* does not listen */
	enum error_code start_error;
	bool refuses_port; /* the first that it is started on: that is its own, it says, and nobody listens there */
	uint16_t refused;
	unsigned unfinished; /* so many starts find half made data; all of them: 1000 */
	unsigned settled;
	unsigned exit_ms; /* exits this long after each start; 0: never */
	int exit_code;
	unsigned exits; /* this many times, then it stays; 0: always */
	bool unsupported;
	bool immortal;   /* cannot be removed */
	bool sick;       /* what is executed in it fails */
	const char *check; /* what its image would have executed */
	unsigned execs;
	bool gone;       /* its process is: nobody has been told */
	bool dismissed;  /* its next end is others' doing */
	bool unplugged;
	bool rises;      /* a killed server has left it: it is not listed, may run all the same, and a start finds out */
	const char *log; /* what its log holds */
	unsigned build_ms;
	enum error_code build_error;
	bool build_differs;
	unsigned builds, builds_canceled;
	enum build_when build_when;
	/* what was done */
	bool made, running;
	unsigned starts, stops, removes, prepares;
	unsigned order; /* of its last start or stop, over all services */
	char hash[32];
	int last_exit;
	/* its own */
	int fds[4];
	struct operation_ports {
		uint16_t port[4];
		size_t count;
	} ports;
	uv_timer_t *timer;
};

struct scripted_backend {
	struct backend base;
	struct backend_params params;
};

struct scripted_operation {
	struct scripted_backend *b;
	struct scripted *s;
	backend_done *done;
	void *arg;
	bool start;
	struct operation_ports ports;
	uv_timer_t timer;
	struct scripted_operation *next;
};

static struct scripted scripted[16];
static size_t scripted_count;
static unsigned scripted_order;
static struct scripted_backend *scripted_open_backend; /* one at a time */
static struct scripted_operation *scripted_pending;
static const char *scripted_logs = "/tmp";
static bool scripted_unreachable; /* it does not say what is there */

static struct scripted *scripted_get(const char *name)
{
	for (size_t i = 0; i < scripted_count; i++)
		if (!strcmp(scripted[i].name, name))
			return &scripted[i];
	struct scripted *s = &scripted[scripted_count++];
	memset(s, 0, sizeof *s);
	snprintf(s->name, sizeof s->name, "%s", name);
	memset(s->fds, -1, sizeof s->fds);
	return s;
}

static void scripted_free_handle(uv_handle_t *h)
{
	free(h);
}

static void scripted_down(struct scripted *s)
{
	s->running = false;
	for (size_t i = 0; i < 4; i++) {
		if (s->fds[i] >= 0)
			close(s->fds[i]);
		s->fds[i] = -1;
	}
	if (s->timer)
		uv_close((uv_handle_t *)s->timer, scripted_free_handle);
	s->timer = NULL;
}

static void scripted_exit(struct scripted *s, int code)
{
	scripted_down(s);
	s->last_exit = code;
	struct instance i = {.service = s->name,
	                     .state = INSTANCE_EXITED,
	                     .handle = (char *)"",
	                     .config_hash = s->hash,
	                     .exit_code = code,
	                     .exited_ms = now_wall_ms(),
	                     .dismissed = s->dismissed};
	s->dismissed = false;
	if (scripted_open_backend)
		scripted_open_backend->params.changed(scripted_open_backend->params.changed_arg, &i);
}

static inline void scripted_unplug(struct scripted *s, bool unplugged)
{
	s->unplugged = unplugged;
	struct instance i = {.service = s->name, .state = INSTANCE_RUNNING, .handle = (char *)"", .config_hash = s->hash, .unplugged = unplugged};
	scripted_open_backend->params.changed(scripted_open_backend->params.changed_arg, &i);
}

static void scripted_on_exit(uv_timer_t *timer)
{
	struct scripted *s = timer->data;
	scripted_exit(s, s->exit_code);
}

static void scripted_up(struct scripted *s, uv_loop_t *loop, const struct operation_ports *ports)
{
	s->made = s->running = true;
	s->unplugged = false;
	s->ports = *ports;
	for (size_t i = 0; i < ports->count && !s->deaf; i++) {
		struct sockaddr_in a = {
		    .sin_family = AF_INET, .sin_port = htons(ports->port[i]), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		int on = 1;
		s->fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		setsockopt(s->fds[i], SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
		if (bind(s->fds[i], (struct sockaddr *)&a, sizeof a) < 0 || listen(s->fds[i], 16) < 0)
			abort(); /* the lease promised it */
	}
	if (s->exit_ms && (!s->exits || s->starts <= s->exits)) {
		s->timer = xcalloc(1, sizeof *s->timer);
		uv_timer_init(loop, s->timer);
		s->timer->data = s;
		uv_timer_start(s->timer, scripted_on_exit, s->exit_ms, 0);
	}
}

/* It ends with its engine, which answers again later, or does so already. */
static inline void scripted_lose(struct scripted *s, bool returned)
{
	if (s->running)
		scripted_down(s);
	s->last_exit = 255;
	struct instance i = {.service = s->name, .state = INSTANCE_EXITED, .handle = (char *)"", .config_hash = s->hash, .exit_code = 255, .lost = !returned, .returned = returned};
	scripted_open_backend->params.changed(scripted_open_backend->params.changed_arg, &i);
}

/* By others, as it was started last. */
static inline void scripted_start_outside(struct scripted *s)
{
	const struct operation_ports ports = s->ports;
	scripted_up(s, scripted_open_backend->params.loop, &ports);
	struct instance i = {.service = s->name, .state = INSTANCE_RUNNING, .handle = (char *)"", .config_hash = s->hash, .started_ms = 2};
	scripted_open_backend->params.changed(scripted_open_backend->params.changed_arg, &i);
}

static void scripted_operation_free(uv_handle_t *h)
{
	free(h->data);
}

static void scripted_operation_end(struct scripted_operation *o, const struct error *err)
{
	struct scripted_operation **at = &scripted_pending;
	while (*at != o)
		at = &(*at)->next;
	*at = o->next;
	o->done(o->arg, err);
	uv_close((uv_handle_t *)&o->timer, scripted_operation_free);
}

static void scripted_operate(uv_timer_t *timer)
{
	struct scripted_operation *o = timer->data;
	cleanup_error struct error err = ERROR_INIT;
	if (o->start && o->s->unfinished) {
		o->s->unfinished--;
		error_set(&err, ERROR_DATA_UNFINISHED, "as the test says");
	} else if (o->start && o->s->start_error) {
		error_set(&err, o->s->start_error, "service %s: as the test says", o->s->name);
	} else if (o->start && o->s->refuses_port && (!o->s->refused || o->s->refused == o->ports.port[0])) {
		o->s->refused = o->ports.port[0];
		error_set(&err, ERROR_PORT_ALLOCATION_FAILED, "Bind for 127.0.0.1:%u failed: port is already allocated", o->s->refused);
	} else if (o->start && o->s->rises) {
		o->s->rises = false;
		if (!o->s->running)
			error_set(&err, ERROR_PORT_ALLOCATION_FAILED, "service %s: port is already allocated", o->s->name);
	} else if (o->start) {
		scripted_up(o->s, o->b->params.loop, &o->ports);
	} else {
		scripted_down(o->s);
	}
	scripted_operation_end(o, error_is_set(&err) ? &err : NULL);
}

static struct scripted_operation *scripted_begin(struct backend *base, const char *service, unsigned ms,
                                                 backend_done *done, void *arg)
{
	struct scripted_operation *o = xcalloc(1, sizeof *o);
	o->b = (struct scripted_backend *)base;
	o->s = scripted_get(service);
	o->done = done;
	o->arg = arg;
	o->next = scripted_pending;
	scripted_pending = o;
	uv_timer_init(o->b->params.loop, &o->timer);
	o->timer.data = o;
	uv_timer_start(&o->timer, scripted_operate, ms, 0);
	return o;
}

static int scripted_open(const struct backend_params *params, struct backend **ret, struct error *err)
{
	struct scripted_backend *b = xcalloc(1, sizeof *b);
	b->params = *params;
	scripted_open_backend = b;
	*ret = &b->base;
	return 0;
}

struct scripted_closing {
	struct scripted_backend *b;
	void (*closed)(void *arg);
	void *arg;
};

static void scripted_closed(void *arg)
{
	struct scripted_closing *c = arg;
	cleanup_error struct error err = ERROR_INIT;
	error_set_errno(&err, ERROR_CANCELED, ECANCELED, "closed");
	for (struct scripted_operation *o = scripted_pending, *next; o; o = next) {
		next = o->next;
		if (o->b == c->b)
			scripted_operation_end(o, &err);
	}
	if (scripted_open_backend == c->b)
		scripted_open_backend = NULL;
	free(c->b);
	c->closed(c->arg);
	free(c);
}

static void scripted_close(struct backend *b, void (*closed)(void *arg), void *arg)
{
	struct scripted_closing *c = xcalloc(1, sizeof *c);
	*c = (struct scripted_closing){(struct scripted_backend *)b, closed, arg};
	backend_defer(c->b->params.loop, scripted_closed, c);
}

static void scripted_check(struct backend *b, const struct service_spec *spec, backend_diagnostic *report, void *arg)
{
	if (scripted_get(spec->name)->unsupported)
		report(arg, DIAGNOSTIC_UNSUPPORTED, spec->name, "image", "cannot run here", "try another");
}

static void scripted_start(struct backend *b, const struct service_spec *spec, backend_done *done, void *arg)
{
	struct scripted *s = scripted_get(spec->name);
	struct scripted_operation *o = scripted_begin(b, spec->name, s->start_ms, done, arg);
	o->start = true;
	for (size_t i = 0; i < spec->n_ports && i < 4; i++)
		o->ports.port[o->ports.count++] = spec->ports[i].external;
	s->starts++;
	s->order = ++scripted_order;
	snprintf(s->hash, sizeof s->hash, "%s", spec->config_hash);
}

static void scripted_settled(struct backend *b, const struct service_spec *spec)
{
	scripted_get(spec->name)->settled++;
}

static void scripted_stop(struct backend *b, const char *service, int signal, unsigned grace_ms, backend_done *done,
                          void *arg)
{
	struct scripted *s = scripted_get(service);
	s->stops++;
	s->order = ++scripted_order;
	scripted_begin(b, service, s->stop_ms, done, arg);
}

struct scripted_later {
	backend_done *done;
	void *arg;
	struct error err;
};

static void scripted_later(void *arg)
{
	struct scripted_later *l = arg;
	l->done(l->arg, error_is_set(&l->err) ? &l->err : NULL);
	error_release(&l->err);
	free(l);
}

static void scripted_prepare(struct backend *b, const struct service_spec *spec, backend_done *done, void *arg)
{
	struct scripted_later *l = xcalloc(1, sizeof *l);
	l->done = done;
	l->arg = arg;
	scripted_get(spec->name)->prepares++;
	backend_defer(((struct scripted_backend *)b)->params.loop, scripted_later, l);
}

static void scripted_remove(struct backend *b, const char *service, backend_done *done, void *arg)
{
	struct scripted *s = scripted_get(service);
	struct scripted_later *l = xcalloc(1, sizeof *l);
	l->done = done;
	l->arg = arg;
	s->removes++;
	if (s->immortal) {
		error_set(&l->err, ERROR_BACKEND_DEPROVISION_FAILED, "service %s: still there", service);
	} else {
		scripted_down(s);
		s->made = false;
	}
	backend_defer(((struct scripted_backend *)b)->params.loop, scripted_later, l);
}

struct scripted_listing {
	backend_list_done *done;
	void *arg;
};

static void scripted_listed(void *arg)
{
	struct scripted_listing *l = arg;
	struct instances list = {NULL, 0};
	for (size_t i = 0; i < scripted_count; i++) {
		struct scripted *s = &scripted[i];
		if (!s->made || s->rises)
			continue;
		array_grow(list.items, list.count);
		list.items[list.count++] = (struct instance){.service = xstrdup(s->name),
		                                             .state = s->running ? INSTANCE_RUNNING : INSTANCE_EXITED,
		                                             .pid = s->running ? 1000 + (pid_t)i : 0,
		                                             .handle = xstrdup(""),
		                                             .config_hash = xstrdup(s->hash),
		                                             .exit_code = s->running ? 0 : s->last_exit,
		                                             .started_ms = 1,
		                                             .unplugged = s->running && s->unplugged};
	}
	cleanup_error struct error err = ERROR_INIT;
	if (scripted_unreachable)
		error_set(&err, ERROR_BACKEND_UNREACHABLE, "nobody answers");
	l->done(l->arg, scripted_unreachable ? &err : NULL, &list);
	instances_release(&list);
	free(l);
}

static void scripted_list(struct backend *b, backend_list_done *done, void *arg)
{
	struct scripted_listing *l = xcalloc(1, sizeof *l);
	*l = (struct scripted_listing){done, arg};
	backend_defer(((struct scripted_backend *)b)->params.loop, scripted_listed, l);
}

struct scripted_execution {
	struct scripted *s;
	backend_exec_done *done;
	void *arg;
};

static void scripted_executed(void *arg)
{
	struct scripted_execution *x = arg;
	x->done(x->arg, NULL, x->s->sick, "");
	free(x);
}

static void scripted_exec(struct backend *b, const struct service_spec *spec, char *const *argv, unsigned timeout_ms,
                          backend_exec_done *done, void *arg)
{
	struct scripted_execution *x = xcalloc(1, sizeof *x);
	*x = (struct scripted_execution){scripted_get(spec->name), done, arg};
	x->s->execs++;
	backend_defer(((struct scripted_backend *)b)->params.loop, scripted_executed, x);
}

static char *scripted_log_path(struct backend *b, const char *service)
{
	struct scripted *s = scripted_get(service);
	if (!s->log)
		return NULL;
	char *path = xasprintf("%s/%s.log", scripted_logs, service);
	file_write_atomic(AT_FDCWD, path, s->log, strlen(s->log), 0600);
	return path;
}

static const struct backend_check *scripted_check_of(struct backend *b, const char *service)
{
	static char *argv[2];
	static struct backend_check check = {.argv = argv, .interval_ms = 20, .retries = 2};
	argv[0] = (char *)scripted_get(service)->check;
	return argv[0] ? &check : NULL;
}

static bool scripted_lives(struct backend *b, const char *service, pid_t pid)
{
	return !scripted_get(service)->gone;
}

static bool scripted_rises(struct backend *b, const char *service)
{
	return scripted_get(service)->rises;
}

struct scripted_build {
	struct scripted_build *next;
	struct scripted *s;
	backend_build_done *done;
	void *arg;
	bool canceled;
	uv_timer_t timer;
};

static struct scripted_build *scripted_builds;

static void scripted_build_free(uv_handle_t *h)
{
	free(h->data);
}

static void scripted_built(uv_timer_t *timer)
{
	struct scripted_build *o = timer->data, **at = &scripted_builds;
	cleanup_error struct error err = ERROR_INIT;
	while (*at != o)
		at = &(*at)->next;
	*at = o->next;
	if (o->canceled || o->s->build_error)
		error_set(&err, o->canceled ? ERROR_CANCELED : o->s->build_error, "as the test says");
	o->done(o->arg, error_is_set(&err) ? &err : NULL, o->s->build_differs);
	uv_close((uv_handle_t *)timer, scripted_build_free);
}

static void scripted_build(struct backend *b, const struct service_spec *spec, enum build_when when, backend_build_done *done, void *arg)
{
	struct scripted_build *o = xcalloc(1, sizeof *o);
	struct scripted *s = scripted_get(spec->name);
	*o = (struct scripted_build){.next = scripted_builds, .s = s, .done = done, .arg = arg};
	scripted_builds = o;
	s->builds++;
	s->build_when = when;
	uv_timer_init(((struct scripted_backend *)b)->params.loop, &o->timer);
	o->timer.data = o;
	uv_timer_start(&o->timer, scripted_built, s->build_ms, 0);
}

static void scripted_build_cancel(struct backend *b, const char *service, void *arg)
{
	for (struct scripted_build *o = scripted_builds; o; o = o->next)
		if (o->arg == arg) {
			o->s->builds_canceled++;
			o->canceled = true;
			uv_timer_start(&o->timer, scripted_built, 0, 0);
		}
}

static const struct backend_ops backend_scripted = {
    .name = "memory",
    .open = scripted_open,
    .close = scripted_close,
    .check = scripted_check,
    .prepare = scripted_prepare,
    .build = scripted_build,
    .build_cancel = scripted_build_cancel,
    .start = scripted_start,
    .settled = scripted_settled,
    .stop = scripted_stop,
    .remove = scripted_remove,
    .list = scripted_list,
    .exec = scripted_exec,
    .check_of = scripted_check_of,
    .log_path = scripted_log_path,
    .lives = scripted_lives,
    .rises = scripted_rises,
};

static const struct backend_ops *const scripted_backends[] = {&backend_scripted, NULL};

const struct backend_ops *backend_find(const char *name)
{
	return strcmp(name, "memory") ? NULL : &backend_scripted;
}

const struct backend_ops *const *backend_all(void)
{
	return scripted_backends;
}

static void scripted_reset(void)
{
	for (size_t i = 0; i < scripted_count; i++)
		scripted_down(&scripted[i]);
	scripted_count = 0;
	scripted_order = 0;
}

#endif
