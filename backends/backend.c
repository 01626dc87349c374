/* The waist: every call into a backend passes here, is checked once and logged once. */
#include "backends/backend.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/subnet.h"
#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"

#define AREA "backend"
#define SERVICE_NAME_MAX 128
#define RECORD_MAX 4096
#define SUBNET_MAX 64

char *backend_subnet(const char *state_dir)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_free char *path = xasprintf("%s/" BACKEND_SUBNET, state_dir);
	return file_read(AT_FDCWD, path, SUBNET_MAX, &text) == 0 && subnet_is(buffer_str(&text)) ? xstrdup(buffer_str(&text)) : NULL;
}

void instance_release(struct instance *i)
{
	free(i->service);
	free(i->handle);
	free(i->config_hash);
}

void instances_release(struct instances *list)
{
	for (size_t i = 0; i < list->count; i++)
		instance_release(&list->items[i]);
	free(list->items);
	*list = (struct instances){NULL, 0};
}

bool backend_service_name_valid(const char *name)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
	size_t len = name ? strlen(name) : 0;
	return len > 0 && len <= SERVICE_NAME_MAX && name[0] != '.' && strspn(name, allowed) == len;
}

/* ---- later ---- */

struct deferred {
	uv_timer_t timer; /* timers of one duration fire in the order of their starts */
	void (*call)(void *arg);
	void *arg;
};

static void deferred_closed(uv_handle_t *handle)
{
	struct deferred *d = handle->data;
	free(d);
}

static void deferred_fire(uv_timer_t *timer)
{
	struct deferred *d = timer->data;
	d->call(d->arg);
	uv_close((uv_handle_t *)timer, deferred_closed);
}

void backend_defer(uv_loop_t *loop, void (*call)(void *arg), void *arg)
{
	struct deferred *d = xcalloc(1, sizeof *d);
	d->call = call;
	d->arg = arg;
	uv_timer_init(loop, &d->timer);
	d->timer.data = d;
	uv_timer_start(&d->timer, deferred_fire, 0, 0);
}

/* ---- one call ---- */

struct call {
	const char *backend; /* static */
	const char *verb;    /* static */
	char *service;       /* may be NULL */
	uint64_t began_ms;
	struct error failed; /* set when it never reached the backend */
	backend_done *done;
	backend_list_done *list_done;
	backend_exec_done *exec_done;
	void *arg;
};

static struct call *call_new(const struct backend *b, const char *verb, const char *service, void *arg)
{
	struct call *c = xcalloc(1, sizeof *c);
	c->backend = b->ops->name;
	c->verb = verb;
	c->service = xstrdup(service);
	c->began_ms = now_monotonic_ms();
	c->arg = arg;
	return c;
}

/* What succeeds often is for the one who debugs. */
static void call_log(const struct call *c, const struct error *err)
{
	unsigned long long took = now_monotonic_ms() - c->began_ms;
	const char *service = c->service ? c->service : "";
	if (!err)
		log_debug(AREA, "%s: %s %s: done in %llu ms", c->backend, c->verb, service, took);
	else if (err->code == ERROR_CANCELED || err->code == ERROR_CONFIG_INVALID || c->exec_done)
		log_debug(AREA, "%s: %s %s: %s after %llu ms", c->backend, c->verb, service, err->message, took);
	else
		log_warning(AREA, "%s: %s %s: %s: %s (after %llu ms)", c->backend, c->verb, service, error_code_name(err->code),
		            err->message, took);
}

static void call_free(struct call *c)
{
	error_release(&c->failed);
	free(c->service);
	free(c);
}

static void call_done(void *arg, const struct error *err)
{
	struct call *c = arg;
	call_log(c, err);
	c->done(c->arg, err);
	call_free(c);
}

static void call_list_done(void *arg, const struct error *err, const struct instances *list)
{
	static const struct instances none = {NULL, 0};
	struct call *c = arg;
	call_log(c, err);
	c->list_done(c->arg, err, list ? list : &none);
	call_free(c);
}

static void call_exec_done(void *arg, const struct error *err, int exit_code, const char *output)
{
	struct call *c = arg;
	call_log(c, err);
	c->exec_done(c->arg, err, exit_code, output ? output : "");
	call_free(c);
}

static void call_fail_now(void *arg)
{
	struct call *c = arg;
	const struct error *err = error_is_set(&c->failed) ? &c->failed : NULL;
	if (c->list_done)
		call_list_done(c, err, NULL);
	else if (c->exec_done)
		call_exec_done(c, err, -1, "");
	else
		call_done(c, err);
}

/* Ends a call that did not reach the backend: with c->failed, or as a success. */
static void call_end(struct backend *b, struct call *c)
{
	backend_defer(b->loop, call_fail_now, c);
}

static bool service_refused(struct call *c, const char *service)
{
	if (backend_service_name_valid(service))
		return false;
	error_set(&c->failed, ERROR_CONFIG_INVALID, "\"%.*s\" cannot be the name of a service", SERVICE_NAME_MAX,
	          service ? service : "");
	free(move_ptr(c->service));
	return true;
}

static bool spec_refused(struct call *c, const struct service_spec *spec)
{
	if (service_refused(c, spec->name))
		return true;
	for (size_t i = 0; i < spec->n_ports; i++)
		if (!spec->ports[i].internal || !spec->ports[i].external) {
			error_set(&c->failed, ERROR_INTERNAL, "service %s: port %u has no lease", spec->name,
			          spec->ports[i].internal);
			return true;
		}
	return false;
}

/* ---- the operations ---- */

int backend_locate(const char *asked, bool answering, char **address, char **from, struct error *err)
{
	const struct backend_ops *ops = backend_find(asked);
	*address = *from = NULL;
	return ops && ops->find ? ops->find(asked, answering, address, from, err) : 0;
}

int backend_sweep(const char *backend, const char *address, const char *namespace_, bool remove, char ***found, struct error *err)
{
	const struct backend_ops *ops = backend ? backend_find(backend) : NULL;
	return ops && ops->sweep && address ? ops->sweep(address, namespace_, remove, found, err) : 0;
}

/* new; NULL: it is none */
static json_t *read_record(const char *path)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	if (file_read(AT_FDCWD, path, RECORD_MAX, &text))
		return NULL;
	return json_loads(buffer_str(&text), 0, NULL);
}

static int sweep_record(const char *path, const char *namespace_, bool remove, char ***found, struct error *err)
{
	json_t *record = read_record(path);
	int r = backend_sweep(json_string_value(json_object_get(record, "backend")), json_string_value(json_object_get(record, "engine")), namespace_, remove, found, err);
	if (r == 0 && remove)
		unlink(path);
	json_decref(record);
	return r;
}

bool backend_has_made(const char *state_dir)
{
	cleanup_closedir DIR *dir = opendir(state_dir);
	for (struct dirent *d; dir && (d = readdir(dir));)
		if (!strncmp(d->d_name, BACKEND_MADE, strlen(BACKEND_MADE)))
			return true;
	return false;
}

int backend_sweep_made(const char *state_dir, const char *namespace_, bool remove, char ***found, struct error *err)
{
	cleanup_closedir DIR *dir = opendir(state_dir);
	int r = 0;
	for (struct dirent *d; r >= 0 && dir && (d = readdir(dir));) {
		cleanup_free char *path = xasprintf("%s/%s", state_dir, d->d_name);
		if (!strncmp(d->d_name, BACKEND_MADE, strlen(BACKEND_MADE)))
			r = sweep_record(path, namespace_, remove, found, err);
	}
	return r;
}

int backend_record_read(const char *path, char **volume, char **target)
{
	json_t *record = read_record(path);
	const char *name = json_string_value(json_object_get(record, "volume")), *at = json_string_value(json_object_get(record, "target"));
	int r = name && at ? 0 : -ENOENT;
	if (r == 0) {
		*volume = xstrdup(name);
		*target = xstrdup(at);
	}
	json_decref(record);
	return r;
}

int backend_discard(const char *path, const char *namespace_, struct error *err)
{
	json_t *record = read_record(path);
	const char *name = json_string_value(json_object_get(record, "backend"));
	const struct backend_ops *ops = name ? backend_find(name) : NULL;
	int r = ops && ops->discard ? ops->discard(record, namespace_, err) : 0;
	json_decref(record);
	return r;
}

int64_t backend_measure(const char *path, json_t *told)
{
	json_t *record = read_record(path), *sizes, *bytes;
	const char *name = json_string_value(json_object_get(record, "backend")), *place = json_string_value(json_object_get(record, "engine"));
	const char *volume = json_string_value(json_object_get(record, "volume"));
	const struct backend_ops *ops = name && volume ? backend_find(name) : NULL;
	int64_t result = 0;
	if (ops && ops->usage && place) {
		cleanup_error struct error ignored = ERROR_INIT;
		sizes = json_object_get(told, place);
		if (!sizes) {
			if (ops->usage(record, &sizes, &ignored) < 0)
				log_debug(AREA, "%s: %s", place, ignored.message);
			json_object_set_new(told, place, sizes ? sizes : json_null());
			sizes = json_object_get(told, place);
		}
		bytes = json_object_get(sizes, volume);
		result = json_is_null(sizes) ? -1 : bytes ? json_integer_value(bytes) : 0;
	}
	json_decref(record);
	return result;
}

char *backend_lost(const char *path)
{
	json_t *record = read_record(path);
	const char *name = json_string_value(json_object_get(record, "backend")), *volume = json_string_value(json_object_get(record, "volume"));
	const struct backend_ops *ops = name && volume ? backend_find(name) : NULL;
	char *lost = ops && ops->holds && !ops->holds(record, NULL) ? xstrdup(volume) : NULL;
	json_decref(record);
	return lost;
}

int backend_open(const struct backend_params *params, struct backend **ret, struct error *err)
{
	const char *target = params->target ? params->target : "";
	const struct backend_ops *ops = backend_find(target);
	if (!ops)
		return error_set(err, ERROR_CONFIG_INVALID, "there is no backend \"%s\"", target);
	struct backend *b = NULL;
	int r = ops->open(params, &b, err);
	if (r)
		return r;
	b->ops = ops;
	b->loop = params->loop;
	log_debug(AREA, "%s: open for %s", ops->name, params->namespace_);
	*ret = b;
	return 0;
}

struct closing {
	uv_loop_t *loop;
	void (*closed)(void *arg);
	void *arg;
};

/* Deferred once more: what the waist itself has deferred comes first. */
static void close_done(void *arg)
{
	struct closing *c = arg;
	backend_defer(c->loop, c->closed, c->arg);
	free(c);
}

void backend_close(struct backend *b, void (*closed)(void *arg), void *arg)
{
	if (!b) {
		closed(arg);
		return;
	}
	struct closing *c = xcalloc(1, sizeof *c);
	*c = (struct closing){b->loop, closed, arg};
	b->ops->close(b, close_done, c);
}

void backend_probe(struct backend *b, backend_done *done, void *arg)
{
	struct call *c = call_new(b, "probe", NULL, arg);
	c->done = done;
	if (b->ops->probe)
		b->ops->probe(b, call_done, c);
	else
		call_end(b, c);
}

void backend_check(struct backend *b, const struct service_spec *spec, backend_diagnostic *report, void *arg)
{
	b->ops->check(b, spec, report, arg);
}

void backend_prepare(struct backend *b, const struct service_spec *spec, backend_done *done, void *arg)
{
	struct call *c = call_new(b, "prepare", spec->name, arg);
	c->done = done;
	if (spec_refused(c, spec) || !b->ops->prepare)
		call_end(b, c);
	else
		b->ops->prepare(b, spec, call_done, c);
}

struct no_build {
	backend_build_done *done;
	void *arg;
};

static void no_build_done(void *arg)
{
	struct no_build *n = arg;
	n->done(n->arg, NULL, false);
	free(n);
}

void backend_build(struct backend *b, const struct service_spec *spec, enum build_when when, backend_build_done *done, void *arg)
{
	if ((spec->build || spec->image) && b->ops->build) {
		b->ops->build(b, spec, when, done, arg);
		return;
	}
	struct no_build *n = xcalloc(1, sizeof *n);
	*n = (struct no_build){done, arg};
	backend_defer(b->loop, no_build_done, n);
}

void backend_build_cancel(struct backend *b, const char *service, void *arg)
{
	if (b->ops->build_cancel)
		b->ops->build_cancel(b, service, arg);
}

void backend_start(struct backend *b, const struct service_spec *spec, backend_done *done, void *arg)
{
	struct call *c = call_new(b, "start", spec->name, arg);
	c->done = done;
	if (spec_refused(c, spec))
		call_end(b, c);
	else
		b->ops->start(b, spec, call_done, c);
}

void backend_stop(struct backend *b, const char *service, int signal, unsigned grace_ms, backend_done *done, void *arg)
{
	struct call *c = call_new(b, "stop", service, arg);
	c->done = done;
	if (service_refused(c, service))
		call_end(b, c);
	else
		b->ops->stop(b, service, signal, grace_ms, call_done, c);
}

void backend_remove(struct backend *b, const char *service, backend_done *done, void *arg)
{
	struct call *c = call_new(b, "remove", service, arg);
	c->done = done;
	if (service_refused(c, service))
		call_end(b, c);
	else
		b->ops->remove(b, service, call_done, c);
}

void backend_clear(struct backend *b, backend_done *done, void *arg)
{
	struct call *c = call_new(b, "clear", NULL, arg);
	c->done = done;
	if (b->ops->clear)
		b->ops->clear(b, call_done, c);
	else
		call_end(b, c);
}

void backend_list(struct backend *b, backend_list_done *done, void *arg)
{
	struct call *c = call_new(b, "list", NULL, arg);
	c->list_done = done;
	b->ops->list(b, call_list_done, c);
}

void backend_exec(struct backend *b, const struct service_spec *spec, char *const *argv, unsigned timeout_ms,
                  backend_exec_done *done, void *arg)
{
	struct call *c = call_new(b, "exec", spec->name, arg);
	c->exec_done = done;
	if (!argv || !argv[0])
		error_set(&c->failed, ERROR_CONFIG_INVALID, "service %s: nothing to run", spec->name);
	if (error_is_set(&c->failed) || spec_refused(c, spec))
		call_end(b, c);
	else
		b->ops->exec(b, spec, argv, timeout_ms, call_exec_done, c);
}

void backend_settled(struct backend *b, const struct service_spec *spec)
{
	if (b->ops->settled)
		b->ops->settled(b, spec);
}

const struct backend_check *backend_check_of(struct backend *b, const char *service)
{
	return b->ops->check_of ? b->ops->check_of(b, service) : NULL;
}

bool backend_differs(struct backend *b, const struct service_spec *spec)
{
	return b->ops->differs && b->ops->differs(b, spec);
}

char *backend_log_path(struct backend *b, const char *service)
{
	return b->ops->log_path && backend_service_name_valid(service) ? b->ops->log_path(b, service) : NULL;
}

bool backend_lives(struct backend *b, const char *service, pid_t pid)
{
	return !pid || !b->ops->lives || b->ops->lives(b, service, pid);
}

bool backend_rises(struct backend *b, const char *service)
{
	return b->ops->rises && b->ops->rises(b, service);
}
