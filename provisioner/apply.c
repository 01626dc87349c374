#include "provisioner/apply.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"

#define LOG_TAIL_BYTES 4096

struct apply {
	struct apply_params params;
	struct backend *backend;
	const struct model *model;
	struct apply_service **services; /* those of the configuration in its order, then others */
	size_t count;
	bool held;
	bool halted;
	bool listing;
	unsigned open_timers; /* close callbacks that are to come */
};

const char *service_state_name(enum service_state state)
{
	static const char *const names[] = {
		[SERVICE_ABSENT] = "absent",     [SERVICE_WAITING] = "waiting",       [SERVICE_STARTING] = "starting",
		[SERVICE_READY] = "ready",       [SERVICE_COMPLETED] = "completed",   [SERVICE_RESTARTING] = "restarting",
		[SERVICE_FAILED] = "failed",     [SERVICE_STOPPING] = "stopping",     [SERVICE_STOPPED] = "stopped",
		[SERVICE_UNSUPPORTED] = "unsupported",
	};
	return names[state];
}

/* ---- life ---- */

struct apply *apply_new(const struct apply_params *params)
{
	struct apply *a = xcalloc(1, sizeof *a);
	a->params = *params;
	return a;
}

static void wake(struct apply *a)
{
	if (!a->halted)
		a->params.wake(a->params.arg);
}

static void on_timer_closed(uv_handle_t *h)
{
	struct apply *a = h->data;
	a->open_timers--;
	free(h);
}

static void backoff_end(struct apply_service *s)
{
	if (!s->backoff)
		return;
	s->backoff->data = s->apply;
	uv_close((uv_handle_t *)s->backoff, on_timer_closed);
	s->backoff = NULL;
}

static void probe_end(struct apply_service *s)
{
	probe_cancel(s->probe);
	s->probe = NULL;
}

static void service_free(struct apply_service *s)
{
	free(s->name);
	free(s->handle);
	free(s->config_hash);
	free(s->start_hash);
	error_release(&s->error);
	free(s);
}

void apply_halt(struct apply *a)
{
	a->halted = true;
	for (size_t i = 0; i < a->count; i++) {
		backoff_end(a->services[i]);
		probe_end(a->services[i]);
	}
}

bool apply_may_free(const struct apply *a)
{
	return !a->open_timers;
}

void apply_free(struct apply *a)
{
	for (size_t i = 0; a && i < a->count; i++)
		service_free(a->services[i]);
	if (a)
		free(a->services);
	free(a);
}

void apply_set_backend(struct apply *a, struct backend *backend)
{
	a->backend = backend;
}

size_t apply_count(const struct apply *a)
{
	return a->count;
}

struct apply_service *apply_at(const struct apply *a, size_t i)
{
	return a->services[i];
}

struct apply_service *apply_find(const struct apply *a, const char *name)
{
	for (size_t i = 0; i < a->count; i++)
		if (!strcmp(a->services[i]->name, name))
			return a->services[i];
	return NULL;
}

static struct apply_service *service_new(struct apply *a, const char *name)
{
	struct apply_service *s = xcalloc(1, sizeof *s);
	s->apply = a;
	s->name = xstrdup(name);
	s->handle = xstrdup("");
	return s;
}

static bool is_of_interest(const struct apply_service *s)
{
	return s->made || s->operation != OPERATION_NONE;
}

void apply_set_model(struct apply *a, const struct model *model)
{
	size_t n = model ? model->n_services : 0;
	struct apply_service **services = xcalloc(n + a->count, sizeof *services);
	a->model = model;
	for (size_t i = 0; i < n; i++) {
		const char *name = model->services[i].config->name;
		services[i] = apply_find(a, name);
		if (!services[i])
			services[i] = service_new(a, name);
		services[i]->model = &model->services[i];
		services[i]->taken = false; /* it may bring another port; if not, the next start finds out */
	}
	for (size_t i = 0; i < a->count; i++) {
		struct apply_service *s = a->services[i];
		if (model_service(model, s->name))
			continue;
		s->model = NULL;
		if (is_of_interest(s)) {
			probe_end(s);
			services[n++] = s;
		} else {
			backoff_end(s);
			probe_end(s);
			service_free(s);
		}
	}
	free(a->services);
	a->services = services;
	a->count = n;
}

/* ---- states ---- */

static bool runs(const struct apply_service *s)
{
	return s->present == PRESENT_RUNNING || s->present == PRESENT_READY;
}

static bool is_down_goal(const struct apply_service *s)
{
	return s->goal == GOAL_STOPPED || s->goal == GOAL_ABSENT;
}

static enum service_state state_of(const struct apply_service *s)
{
	if (s->operation == OPERATION_STOP || s->operation == OPERATION_REMOVE || (is_down_goal(s) && runs(s)))
		return SERVICE_STOPPING;
	if (s->operation == OPERATION_START)
		return SERVICE_STARTING;
	switch (s->present) {
	case PRESENT_RUNNING:
		return SERVICE_STARTING;
	case PRESENT_READY:
		return SERVICE_READY;
	case PRESENT_COMPLETED:
		return SERVICE_COMPLETED;
	case PRESENT_FAILED:
		return SERVICE_FAILED;
	case PRESENT_ABSENT:
	case PRESENT_STOPPED:
		break;
	}
	if (s->model && error_is_set(&s->model->unsupported))
		return SERVICE_UNSUPPORTED;
	if (s->goal == GOAL_UP)
		return s->backoff ? SERVICE_RESTARTING : SERVICE_WAITING;
	return s->present == PRESENT_STOPPED || s->goal == GOAL_STOPPED ? SERVICE_STOPPED : SERVICE_ABSENT;
}

static void tell(struct apply_service *s, bool always)
{
	enum service_state state = state_of(s);
	if (s->state == state && !always)
		return;
	s->state = state;
	if (!s->apply->halted)
		s->apply->params.changed(s->apply->params.arg, s);
}

char **apply_log_tail(const struct apply_service *s)
{
	cleanup_free char *path = s->apply->backend ? backend_log_path(s->apply->backend, s->name) : NULL;
	cleanup_close int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return NULL;
	char bytes[LOG_TAIL_BYTES + 1];
	off_t from = st.st_size > LOG_TAIL_BYTES ? st.st_size - LOG_TAIL_BYTES : 0;
	ssize_t n = pread(fd, bytes, LOG_TAIL_BYTES, from);
	if (n <= 0)
		return NULL;
	for (ssize_t i = 0; i < n; i++)
		if (((unsigned char)bytes[i] < ' ' && bytes[i] != '\n') || (unsigned char)bytes[i] >= 0x7f) /* JSON wants UTF-8; a cut may split one */
			bytes[i] = bytes[i] == '\t' ? ' ' : '?';
	bytes[n] = '\0';
	cleanup_free char *text = model_mask(s->apply->model, bytes);
	char **lines = NULL, *save = NULL;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		strv_push(&lines, xstrdup(line));
	size_t count = strv_len(lines);
	for (; count > APPLY_LOG_LINES; count--) {
		free(lines[0]);
		memmove(lines, lines + 1, count * sizeof *lines);
	}
	return lines;
}

/* steals what `err` holds */
static void fail(struct apply_service *s, struct error *err)
{
	cleanup_strv char **lines = apply_log_tail(s);
	size_t n = strv_len(lines);
	json_t *log = json_array();
	for (size_t i = 0; i < n; i++)
		json_array_append_new(log, json_string(lines[i]));
	error_detail(err, "service", json_string(s->name));
	if (n && err->code == ERROR_SERVICE_FAILED) {
		cleanup_free char *message = xasprintf("%s; its log ends: %s", err->message, lines[n - 1]);
		free(err->message);
		err->message = move_ptr(message);
	}
	error_detail(err, "log", log);
	if (!err->hint)
		error_hint(err, "ajj logs %s", s->name);
	log_warning("apply", "%s: %s", s->name, err->message);
	error_move(&s->error, err);
	s->present = PRESENT_FAILED;
	probe_end(s);
	tell(s, false);
}

/* ---- exits ---- */

static bool may_end(const struct apply_service *s)
{
	const struct model *m = s->apply->model;
	if (s->model->one_shot)
		return true;
	for (size_t i = 0; i < m->n_services; i++)
		for (size_t d = 0; d < m->services[i].config->n_depends_on; d++) {
			const struct config_dependency *dep = &m->services[i].config->depends_on[d];
			if (dep->condition == DEPENDS_COMPLETED && !strcmp(dep->service, s->name))
				return true;
		}
	return false;
}

static bool restarts(const struct apply_service *s)
{
	switch (s->model->config->restart) {
	case RESTART_NO:
		return false;
	case RESTART_ON_FAILURE:
		return s->exit_code != 0 && (!s->model->config->restart_max || s->restarts < s->model->config->restart_max);
	case RESTART_ALWAYS:
	case RESTART_UNLESS_STOPPED:
		return true;
	}
	return false;
}

static void on_backoff(uv_timer_t *timer)
{
	struct apply_service *s = timer->data;
	backoff_end(s);
	wake(s->apply);
}

static void back_off(struct apply_service *s)
{
	uint64_t delay = (uint64_t)APPLY_BACKOFF_MS << (s->quick_exits ? s->quick_exits - 1 : 0);
	s->restarts++;
	s->present = PRESENT_STOPPED;
	s->backoff = xcalloc(1, sizeof *s->backoff);
	uv_timer_init(s->apply->params.loop, s->backoff);
	s->apply->open_timers++;
	s->backoff->data = s;
	uv_timer_start(s->backoff, on_backoff, delay > APPLY_BACKOFF_MAX_MS ? APPLY_BACKOFF_MAX_MS : delay, 0);
}

static void describe_exit(const struct apply_service *s, char *out, size_t size)
{
	if (s->exit_code > 128 && s->exit_code < 128 + 65)
		snprintf(out, size, "killed by signal %d", s->exit_code - 128);
	else
		snprintf(out, size, "exit status %d", s->exit_code);
}

static void judge_exit(struct apply_service *s, bool was_ready)
{
	char how[48];
	cleanup_error struct error err = ERROR_INIT;
	describe_exit(s, how, sizeof how);
	if (s->exit_code == 0 && s->model->config->restart <= RESTART_ON_FAILURE && may_end(s)) {
		s->present = PRESENT_COMPLETED;
		return;
	}
	if (!restarts(s)) {
		error_set(&err, ERROR_SERVICE_FAILED, "service %s has ended%s: %s", s->name, was_ready ? "" : " before it was ready", how);
		fail(s, &err);
		return;
	}
	bool quick = !was_ready || now_monotonic_ms() - s->started_at < APPLY_QUICK_EXIT_MS;
	s->quick_exits = quick ? s->quick_exits + 1 : 1;
	if (s->quick_exits <= APPLY_QUICK_EXITS) {
		back_off(s);
		return;
	}
	error_set(&err, ERROR_SERVICE_FAILED, "service %s ends again and again (%u times in a row): %s", s->name, s->quick_exits, how);
	fail(s, &err);
}

static void on_exit_of(struct apply_service *s, int exit_code, int64_t exited_ms)
{
	bool was_ready = s->present == PRESENT_READY;
	s->changes++;
	s->exit_code = exit_code;
	s->exited_ms = exited_ms ? exited_ms : now_wall_ms();
	s->pid = 0;
	s->memory_bytes = 0;
	probe_end(s);
	s->present = PRESENT_STOPPED;
	if (s->goal == GOAL_UP && s->model && s->operation == OPERATION_NONE && !s->restart && !s->recreate)
		judge_exit(s, was_ready);
	tell(s, true);
	wake(s->apply);
}

/* ---- readiness ---- */

static void on_ready(void *arg)
{
	struct apply_service *s = arg;
	s->probe = NULL;
	s->present = PRESENT_READY;
	error_release(&s->error);
	tell(s, false);
	wake(s->apply);
}

static void probe_exec(void *arg, char *const *argv, unsigned timeout_ms, backend_exec_done *done, void *done_arg)
{
	struct apply_service *s = arg;
	backend_exec(s->apply->backend, &s->model->spec, argv, timeout_ms, done, done_arg);
}

static void probe_begin(struct apply_service *s)
{
	if (!s->model || s->probe)
		return;
	cleanup_free char *log = backend_log_path(s->apply->backend, s->name);
	const struct probe_params params = {
		.loop = s->apply->params.loop,
		.what = &s->model->ready,
		.host = MODEL_HOST,
		.port = model_external_port(s->model, s->model->ready.port),
		.log_path = log,
		.log_offset = s->log_offset,
		.exec = probe_exec,
		.ready = on_ready,
		.arg = s,
	};
	s->probe = probe_start(&params);
}

/* ---- operations ---- */

static void begin(struct apply_service *s, enum service_operation operation)
{
	s->operation = operation;
	s->changes++;
	tell(s, false);
}

/* false: we are letting go, the operation's end is nobody's business */
static bool end(struct apply_service *s)
{
	s->operation = OPERATION_NONE;
	s->changes++;
	if (s->apply->halted)
		return false;
	wake(s->apply);
	return true;
}

static void on_started(void *arg, const struct error *err)
{
	struct apply_service *s = arg;
	if (!end(s))
		return;
	s->restart = s->recreate = false;
	if (err) {
		cleanup_error struct error copy = ERROR_INIT;
		error_copy(&copy, err);
		fail(s, &copy);
		return;
	}
	s->made = true;
	free(s->config_hash);
	s->config_hash = move_ptr(s->start_hash);
	s->present = PRESENT_RUNNING;
	if (s->exited) {
		on_exit_of(s, s->exit_code, s->exited_ms);
		return;
	}
	if (s->goal == GOAL_UP)
		probe_begin(s);
	tell(s, false);
	apply_refresh(s->apply);
}

/* Looked at before each start: a process that finds its port taken exits with a message of its own, which nobody can understand for
 * all programs. SO_REUSEADDR, as the services do: connections in TIME_WAIT are no hindrance. */
static bool is_taken(const struct port_binding *port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port->external), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	bool udp = !strcmp(port->protocol, "udp");
	int on = 1;
	cleanup_close int fd = socket(AF_INET, (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
	if (fd < 0 || !port->external)
		return false;
	if (!udp)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	return bind(fd, (const struct sockaddr *)&address, sizeof address) < 0 && errno == EADDRINUSE;
}

static bool ports_are_free(struct apply_service *s)
{
	for (size_t i = 0; i < s->model->n_ports; i++) {
		const struct port_binding *port = &s->model->ports[i];
		if (!is_taken(port))
			continue;
		cleanup_error struct error err = ERROR_INIT;
		if (s->port_tries++ < APPLY_PORT_TRIES) {
			s->taken = true;
			s->apply->params.port_taken(s->apply->params.arg, s->name, port);
		} else {
			error_set(&err, ERROR_PORT_ALLOCATION_FAILED, "service %s: port %u is taken by another program, and so were %u others", s->name,
			          port->external, APPLY_PORT_TRIES);
			error_hint(&err, "ss -ltnp 'sport = :%u' names who holds it", port->external);
			fail(s, &err);
		}
		return false;
	}
	return true;
}

void apply_port_failed(struct apply_service *s, const struct error *err)
{
	cleanup_error struct error copy = ERROR_INIT;
	error_copy(&copy, err);
	s->taken = false;
	fail(s, &copy);
	wake(s->apply);
}

static uint64_t log_size(const struct apply_service *s)
{
	cleanup_free char *path = backend_log_path(s->apply->backend, s->name);
	struct stat st;
	return path && stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

static void start(struct apply_service *s)
{
	if (!ports_are_free(s))
		return;
	s->log_offset = log_size(s);
	s->exited = false;
	s->started_at = now_monotonic_ms();
	s->started_ms = now_wall_ms();
	free(s->start_hash);
	s->start_hash = xstrdup(s->model->spec.config_hash);
	begin(s, OPERATION_START);
	backend_start(s->apply->backend, &s->model->spec, on_started, s);
}

static void on_stopped(void *arg, const struct error *err)
{
	struct apply_service *s = arg;
	if (!end(s))
		return;
	if (err) {
		error_copy(&s->error, err);
		s->stuck = is_down_goal(s);
		s->restart = s->recreate = false;
		if (!s->stuck)
			s->present = PRESENT_FAILED;
	} else {
		s->present = PRESENT_STOPPED;
		s->pid = 0;
		s->restart = false;
	}
	tell(s, false);
}

static void stop(struct apply_service *s)
{
	int signal = s->model && s->model->spec.stop_signal ? s->model->spec.stop_signal : SIGTERM;
	probe_end(s);
	begin(s, OPERATION_STOP);
	backend_stop(s->apply->backend, s->name, signal, s->model ? s->model->spec.stop_grace_ms : 10000, on_stopped, s);
}

static void on_removed(void *arg, const struct error *err)
{
	struct apply_service *s = arg;
	if (!end(s))
		return;
	if (err) {
		error_copy(&s->error, err);
		s->stuck = true;
	} else {
		s->made = false;
		s->recreate = false;
		s->present = PRESENT_ABSENT;
		s->pid = 0;
		error_release(&s->error);
	}
	tell(s, false);
}

static void remove_it(struct apply_service *s)
{
	begin(s, OPERATION_REMOVE);
	backend_remove(s->apply->backend, s->name, on_removed, s);
}

static void (*const actions[])(struct apply_service *s) = {[PLAN_START] = start, [PLAN_STOP] = stop, [PLAN_REMOVE] = remove_it};

/* ---- planning ---- */

/* A dependency that nobody wants up (it is not supported here, or `required: false`) holds nobody back. */
static bool counts(const struct apply_service *on)
{
	return !error_is_set(&on->model->unsupported) && on->goal == GOAL_UP;
}

static struct plan_dependency *dependencies(const struct apply *a, const struct apply_service *s, size_t *ret_n)
{
	*ret_n = 0;
	if (!s->model)
		return NULL;
	const struct config_service *c = s->model->config;
	struct plan_dependency *deps = xcalloc(c->n_depends_on, sizeof *deps);
	for (size_t d = 0; d < c->n_depends_on; d++)
		for (size_t i = 0; i < a->count; i++) {
			const struct apply_service *on = a->services[i];
			if (!on->model || strcmp(on->name, c->depends_on[d].service))
				continue;
			if (is_down_goal(s) || counts(on))
				deps[(*ret_n)++] = (struct plan_dependency){i, c->depends_on[d].condition};
		}
	return deps;
}

static void describe(const struct apply *a, const struct apply_service *s, struct plan_service *ret)
{
	size_t n;
	const struct plan_dependency *deps = dependencies(a, s, &n);
	*ret = (struct plan_service){
		.goal = s->goal,
		.present = s->present,
		.made = s->made,
		.busy = s->operation != OPERATION_NONE,
		.stuck = s->stuck,
		.held = a->held || s->backoff || s->taken || !s->model || error_is_set(&s->model->unsupported),
		.restart = s->restart,
		.recreate = s->recreate,
		.depends_on = deps,
		.n_depends_on = n,
	};
}

/* Who waits for a service that has failed for good will not start: it fails for the same reason. */
static bool fail_dependents(struct apply *a, struct plan_service *plan)
{
	bool any = false;
	for (size_t i = 0; i < a->count; i++) {
		struct apply_service *s = a->services[i];
		if (s->goal != GOAL_UP || (s->present != PRESENT_ABSENT && s->present != PRESENT_STOPPED) || s->operation != OPERATION_NONE)
			continue;
		for (size_t d = 0; d < plan[i].n_depends_on; d++) {
			const struct apply_service *on = a->services[plan[i].depends_on[d].service];
			if (on->present != PRESENT_FAILED)
				continue;
			cleanup_error struct error err = ERROR_INIT;
			error_copy(&err, &on->error);
			error_prefix(&err, "service %s needs %s", s->name, on->name);
			error_move(&s->error, &err);
			plan[i].present = s->present = PRESENT_FAILED;
			any = true;
			tell(s, false);
			break;
		}
	}
	return any;
}

/* A service that is configured no longer goes when nothing of it is left. */
static void prune(struct apply *a)
{
	size_t n = 0;
	for (size_t i = 0; i < a->count; i++) {
		struct apply_service *s = a->services[i];
		if (s->model || is_of_interest(s)) {
			a->services[n++] = s;
			continue;
		}
		backoff_end(s);
		probe_end(s);
		service_free(s);
	}
	a->count = n;
}

void apply_turn(struct apply *a)
{
	if (!a->backend || a->halted || !a->count)
		return;
	cleanup_free struct plan_service *plan = xcalloc(a->count, sizeof *plan);
	cleanup_free struct plan_step *steps = xcalloc(a->count, sizeof *steps);
	for (size_t i = 0; i < a->count; i++)
		describe(a, a->services[i], &plan[i]);
	while (fail_dependents(a, plan))
		;
	size_t n = plan_steps(plan, a->count, steps);
	for (size_t i = 0; i < n; i++)
		if (steps[i].now)
			actions[steps[i].action](a->services[steps[i].service]);
	for (size_t i = 0; i < a->count; i++) {
		free((void *)plan[i].depends_on);
		tell(a->services[i], false);
	}
	prune(a);
}

/* ---- what is wanted ---- */

void apply_want(struct apply_service *s, enum plan_goal goal)
{
	if (s->present == PRESENT_FAILED) {
		s->present = s->made ? PRESENT_STOPPED : PRESENT_ABSENT;
		s->quick_exits = 0;
		error_release(&s->error);
	}
	s->stuck = false;
	s->port_tries = 0;
	if (goal != GOAL_UP) {
		backoff_end(s);
		s->restart = s->recreate = false;
	}
	if (goal != s->goal)
		s->quick_exits = 0;
	s->goal = goal;
	if (goal == GOAL_UP && s->present == PRESENT_RUNNING && s->operation == OPERATION_NONE && s->apply->backend)
		probe_begin(s);
	wake(s->apply);
}

void apply_restart(struct apply_service *s)
{
	apply_want(s, GOAL_UP);
	backoff_end(s);
	s->quick_exits = 0;
	if (s->present == PRESENT_COMPLETED)
		s->present = PRESENT_STOPPED;
	s->restart = runs(s) || s->operation != OPERATION_NONE;
}

static bool is_changed(const struct apply_service *s)
{
	return s->made && s->model && s->config_hash && strcmp(s->config_hash, s->model->spec.config_hash) != 0;
}

bool apply_has_changes(const struct apply *a)
{
	for (size_t i = 0; i < a->count; i++)
		if (is_changed(a->services[i]) || (!a->services[i]->model && a->services[i]->made))
			return true;
	return false;
}

void apply_changes(struct apply *a)
{
	for (size_t i = 0; i < a->count; i++) {
		struct apply_service *s = a->services[i];
		if (!s->model && s->made)
			apply_want(s, GOAL_ABSENT);
		if (!is_changed(s))
			continue;
		backoff_end(s);
		if (s->present == PRESENT_COMPLETED || s->present == PRESENT_FAILED)
			s->present = PRESENT_STOPPED;
		s->recreate = true;
		s->quick_exits = 0;
	}
	wake(a);
}

void apply_hold(struct apply *a, bool held)
{
	a->held = held;
	wake(a);
}

bool apply_is_active(const struct apply *a)
{
	for (size_t i = 0; i < a->count; i++) {
		const struct apply_service *s = a->services[i];
		if (runs(s) || s->operation != OPERATION_NONE || s->goal == GOAL_UP)
			return true;
	}
	return false;
}

bool apply_is_down(const struct apply *a, bool removed)
{
	for (size_t i = 0; i < a->count; i++) {
		const struct apply_service *s = a->services[i];
		if (s->operation != OPERATION_NONE || (!s->stuck && (runs(s) || (removed && s->made))))
			return false;
	}
	return true;
}

void apply_forget(struct apply *a)
{
	for (size_t i = 0; i < a->count; i++) {
		struct apply_service *s = a->services[i];
		backoff_end(s);
		probe_end(s);
		s->goal = GOAL_NONE;
		s->present = PRESENT_ABSENT;
		s->made = s->stuck = s->restart = s->recreate = s->taken = false;
		s->restarts = s->quick_exits = s->port_tries = 0;
		s->pid = 0;
		s->memory_bytes = 0;
		s->started_ms = s->exited_ms = 0;
		s->exit_code = 0;
		free(s->config_hash);
		s->config_hash = NULL;
		error_release(&s->error);
		tell(s, false);
	}
}

/* ---- what is there ---- */

static void take_details(struct apply_service *s, const struct instance *i)
{
	bool differs = s->pid != i->pid || i->memory_bytes > s->memory_bytes + s->memory_bytes / 8 ||
	               i->memory_bytes < s->memory_bytes - s->memory_bytes / 8;
	s->pid = i->pid;
	s->memory_bytes = i->memory_bytes;
	if (i->started_ms)
		s->started_ms = i->started_ms;
	if (i->handle && strcmp(s->handle, i->handle)) {
		free(s->handle);
		s->handle = xstrdup(i->handle);
	}
	if (differs)
		tell(s, true);
}

static const struct instance *instance_of(const struct instances *list, const char *name)
{
	for (size_t i = 0; i < list->count; i++)
		if (!strcmp(list->items[i].service, name))
			return &list->items[i];
	return NULL;
}

static void on_list(void *arg, const struct error *err, const struct instances *list)
{
	struct apply *a = arg;
	a->listing = false;
	for (size_t i = 0; !a->halted && !err && i < a->count; i++) {
		struct apply_service *s = a->services[i];
		if (s->changes != s->changes_at_list || s->operation != OPERATION_NONE || !runs(s))
			continue;
		const struct instance *found = instance_of(list, s->name);
		if (found && found->state == INSTANCE_RUNNING)
			take_details(s, found);
		else
			on_exit_of(s, found ? found->exit_code : 0, found ? found->exited_ms : 0);
	}
}

void apply_refresh(struct apply *a)
{
	if (a->listing || a->halted || !a->backend)
		return;
	a->listing = true;
	for (size_t i = 0; i < a->count; i++)
		a->services[i]->changes_at_list = a->services[i]->changes;
	backend_list(a->backend, on_list, a);
}

static struct apply_service *find_or_add(struct apply *a, const char *name)
{
	struct apply_service *s = apply_find(a, name);
	if (s)
		return s;
	a->services = xrealloc(a->services, (a->count + 1) * sizeof *a->services);
	return a->services[a->count++] = service_new(a, name);
}

void apply_adopt(struct apply *a, const struct instances *list, bool up)
{
	for (size_t i = 0; i < list->count; i++) {
		const struct instance *found = &list->items[i];
		if (found->state == INSTANCE_ABSENT)
			continue;
		struct apply_service *s = find_or_add(a, found->service);
		s->made = true;
		free(s->config_hash);
		s->config_hash = found->config_hash && *found->config_hash ? xstrdup(found->config_hash) : NULL;
		s->started_ms = found->started_ms;
		s->goal = up && s->model ? GOAL_UP : GOAL_NONE;
		if (found->state == INSTANCE_RUNNING) {
			s->present = PRESENT_RUNNING;
			take_details(s, found);
			if (up)
				probe_begin(s);
			tell(s, false);
		} else {
			s->present = PRESENT_READY; /* as far as we know it had been */
			on_exit_of(s, found->exit_code, found->exited_ms);
		}
	}
}

void apply_instance_changed(struct apply *a, const struct instance *i)
{
	struct apply_service *s = a->halted ? NULL : apply_find(a, i->service);
	if (!s)
		return;
	if (i->state == INSTANCE_RUNNING) {
		if (runs(s))
			take_details(s, i);
		return;
	}
	s->exit_code = i->exit_code;
	s->exited_ms = i->exited_ms;
	if (s->operation == OPERATION_START)
		s->exited = true;
	else if (s->operation == OPERATION_NONE && runs(s))
		on_exit_of(s, i->exit_code, i->exited_ms);
}
