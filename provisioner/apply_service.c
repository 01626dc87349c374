/* One service on its way: its operations, its exits, its readiness, and what is told of them. */
#include <arpa/inet.h>
#include <ctype.h>
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
#include "provisioner/apply_private.h"
#include "provisioner/port_owner.h"

#define LOG_TAIL_BYTES 4096

const char *service_state_name(enum service_state state)
{
	static const char *const names[] = {
	    [SERVICE_ABSENT] = "absent",       [SERVICE_WAITING] = "waiting",
	    [SERVICE_STARTING] = "starting",   [SERVICE_READY] = "ready",
	    [SERVICE_COMPLETED] = "completed", [SERVICE_RESTARTING] = "restarting",
	    [SERVICE_FAILED] = "failed",       [SERVICE_STOPPING] = "stopping",
	    [SERVICE_STOPPED] = "stopped",     [SERVICE_UNSUPPORTED] = "unsupported",
	};
	return names[state];
}

/* ---- timers and probes ---- */

static void on_timer_closed(uv_handle_t *h)
{
	struct apply *a = h->data;
	a->open_timers--;
	free(h);
}

void service_backoff_end(struct apply_service *s)
{
	if (!s->backoff)
		return;
	s->backoff->data = s->apply;
	uv_close((uv_handle_t *)s->backoff, on_timer_closed);
	s->backoff = NULL;
}

static void health_end(struct apply_service *s)
{
	probe_cancel(s->health_probe);
	s->health_probe = NULL;
	s->health_failures = 0;
	s->unhealthy = false;
	if (!s->health)
		return;
	s->health->data = s->apply;
	uv_close((uv_handle_t *)s->health, on_timer_closed);
	s->health = NULL;
}

void service_probe_end(struct apply_service *s)
{
	probe_cancel(s->probe);
	s->probe = NULL;
	service_adapt_end(s);
	health_end(s);
}

/* ---- states ---- */

static enum service_state state_of(const struct apply_service *s)
{
	if (s->operation == OPERATION_STOP || s->operation == OPERATION_REMOVE || (service_goes_down(s) && service_runs(s)))
		return SERVICE_STOPPING;
	if (s->operation == OPERATION_START)
		return SERVICE_STARTING;
	switch (s->present) {
	case PRESENT_RUNNING:
		return s->unhealthy ? SERVICE_FAILED : SERVICE_STARTING;
	case PRESENT_READY:
		return s->gone ? SERVICE_RESTARTING : SERVICE_READY;
	case PRESENT_COMPLETED:
		return SERVICE_COMPLETED;
	case PRESENT_FAILED:
		return SERVICE_FAILED;
	case PRESENT_ABSENT:
	case PRESENT_STOPPED:
		break;
	}
	if (s->model && error_is_set(&s->model->unsupported))
		return model_is_refused(s->model) ? SERVICE_FAILED : SERVICE_UNSUPPORTED;
	if (s->goal == GOAL_UP)
		return s->backoff ? SERVICE_RESTARTING : SERVICE_WAITING;
	return s->present == PRESENT_STOPPED || s->goal == GOAL_STOPPED ? SERVICE_STOPPED : SERVICE_ABSENT;
}

void service_tell(struct apply_service *s, bool always)
{
	enum service_state state = state_of(s);
	bool state_changed = s->state != state;
	if (!state_changed && !always)
		return;
	s->state = state;
	if (!s->apply->halted)
		s->apply->params.changed(s->apply->params.arg, s, state_changed);
}

/* That it has become unhealthy, or healthy again. */
static void service_tell_health(struct apply_service *s)
{
	if (!s->apply->halted && s->apply->params.health)
		s->apply->params.health(s->apply->params.arg, s);
	service_tell(s, true);
	apply_wake(s->apply);
}

const char *service_health_name(const struct apply_service *s)
{
	return s->paused ? "paused" : s->unplugged ? "unplugged" : s->unhealthy ? "unhealthy" : "healthy";
}

void service_set_held(struct apply_service *s, bool paused, bool unplugged)
{
	bool changed = s->paused != paused || s->unplugged != unplugged;
	s->paused = paused;
	s->unplugged = unplugged;
	if (changed)
		service_tell_health(s);
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
		if (((unsigned char)bytes[i] < ' ' && bytes[i] != '\n') ||
		    (unsigned char)bytes[i] >= 0x7f) /* JSON wants UTF-8; a cut may split one */
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

/* What programs that end say of the reason in their logs alone, and engines of what cannot be started. */
static const struct {
	const char *says;
	enum error_code code;
	const char *hint;
} reasons[] = {
    {ERROR_SAYS_NO_SPACE, ERROR_NO_SPACE, "make room on the disk of the services' data, and ask again"},
    {"exec format error", ERROR_IMAGE_NOT_FOUND, "its image is for another kind of machine: name one for this, or let the engine emulate it (platform:, and qemu-user-static)"},
};

static void take_reason(char *const *lines, struct error *err)
{
	for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
		char *const *line = lines;
		bool told = strstr(err->message, reasons[i].says);
		while (!told && line && *line && !strstr(*line, reasons[i].says))
			line++;
		if ((!told && (err->code != ERROR_SERVICE_FAILED || !line || !*line)) || err->code == reasons[i].code)
			continue;
		cleanup_free char *message = told ? xstrdup(err->message) : xasprintf("%s; its log says: %s", err->message, *line);
		error_set(err, reasons[i].code, "%s", message);
		error_hint(err, "%s", reasons[i].hint);
		return;
	}
}

/* With what its log says; steals what `err` holds. */
static void set_error(struct apply_service *s, struct error *err)
{
	cleanup_strv char **lines = apply_log_tail(s);
	size_t n = strv_len(lines);
	json_t *log = json_array();
	for (size_t i = 0; i < n; i++)
		json_array_append_new(log, json_string(lines[i]));
	error_detail(err, "service", json_string(s->name));
	take_reason(lines, err);
	if (n && err->code == ERROR_SERVICE_FAILED) {
		cleanup_free char *message = xasprintf("%s; its log ends: %s", err->message, lines[n - 1]);
		free(err->message);
		err->message = move_ptr(message);
	}
	if (err->code == ERROR_BUILD_FAILED) /* it has the build's */
		json_decref(log);
	else
		error_detail(err, "log", log);
	if (!err->hint && n) /* else nothing of it has ever said anything */
		error_hint(err, "ajj logs %s", s->name);
	log_warning("apply", "%s: %s", s->name, err->message);
	error_move(&s->error, err);
}

/* the same */
static void fail(struct apply_service *s, struct error *err)
{
	set_error(s, err);
	s->present = PRESENT_FAILED;
	service_probe_end(s);
	service_tell(s, false);
}

void service_fail_running(struct apply_service *s, struct error *err)
{
	s->unhealthy = true;
	set_error(s, err);
	service_tell(s, false);
	apply_wake(s->apply);
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
	service_backoff_end(s);
	apply_wake(s->apply);
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

/* Before anybody is told. */
static void settle(struct apply_service *s)
{
	if (s->model && s->apply->backend)
		backend_settled(s->apply->backend, &s->model->spec);
}

static void judge_exit(struct apply_service *s, bool was_ready)
{
	char how[48];
	cleanup_error struct error err = ERROR_INIT;
	describe_exit(s, how, sizeof how);
	if (s->exit_code == 0 && s->model->config->restart <= RESTART_ON_FAILURE && may_end(s)) {
		settle(s);
		s->present = PRESENT_COMPLETED;
		return;
	}
	if (!restarts(s)) {
		error_set(&err, ERROR_SERVICE_FAILED, "service %s has ended%s: %s", s->name,
		          was_ready ? "" : " before it was ready", how);
		fail(s, &err);
		return;
	}
	bool quick = !was_ready || now_monotonic_ms() - s->started_at < APPLY_QUICK_EXIT_MS;
	s->quick_exits = quick ? s->quick_exits + 1 : 1;
	if (s->quick_exits <= APPLY_QUICK_EXITS) {
		back_off(s);
		return;
	}
	error_set(&err, ERROR_SERVICE_FAILED, "service %s ends again and again (%u times in a row): %s", s->name,
	          s->quick_exits, how);
	fail(s, &err);
}

/* Whoever has ended it does not want it, and may be about to make another in its place. */
static void dismiss(struct apply_service *s)
{
	service_backoff_end(s);
	error_release(&s->error);
	s->goal = GOAL_NONE;
	s->dismissed = true;
}

static void lose(struct apply_service *s)
{
	cleanup_error struct error err = ERROR_INIT;
	error_set(&err, ERROR_BACKEND_UNREACHABLE, "service %s has ended with its engine, which does not answer", s->name);
	error_hint(&err, "it is started again when that answers");
	s->lost = true;
	fail(s, &err);
}

void service_exited(struct apply_service *s, const struct exit *how)
{
	bool was_ready = s->present == PRESENT_READY;
	s->changes++;
	s->exit_code = how->code;
	s->exited_ms = how->ms ? how->ms : now_wall_ms();
	s->pid = 0;
	s->memory_bytes = 0;
	s->gone = s->lost = s->paused = s->unplugged = false;
	service_probe_end(s);
	s->present = PRESENT_STOPPED;
	bool counts = s->goal == GOAL_UP && s->model && s->operation == OPERATION_NONE && !s->restart && !s->recreate;
	if (counts && how->dismissed)
		dismiss(s);
	else if (counts && how->lost)
		lose(s);
	else if (counts && !how->returned)
		judge_exit(s, was_ready);
	service_tell(s, true);
	apply_wake(s->apply);
}

/* ---- readiness ---- */

static void probe_exec(void *arg, char *const *argv, unsigned timeout_ms, backend_exec_done *done, void *done_arg)
{
	struct apply_service *s = arg;
	backend_exec(s->apply->backend, &s->model->spec, argv, timeout_ms, done, done_arg);
}

/* A command for a probe is as good as any. */
static bool may_probe(const struct apply_service *s, const struct config_probe *what)
{
	return what->kind != PROBE_EXEC || trust_is_given(&s->apply->model->trust);
}

/* ---- health: Compose's healthcheck of what is ready ---- */

/* The image's own, unless the file has another or wants none. Its strings are the backend's. */
static bool image_check(const struct apply_service *s, struct config_probe *ret)
{
	const struct config_service *c = s->model->config;
	const struct backend_check *check = s->apply->backend && c->healthcheck.kind == PROBE_NONE && !c->healthcheck_disabled ? backend_check_of(s->apply->backend, s->name) : NULL;
	if (!check)
		return false;
	*ret = (struct config_probe){.kind = PROBE_EXEC, .argv = check->argv, .interval_ms = check->interval_ms, .timeout_ms = check->timeout_ms,
	                             .start_period_ms = check->start_period_ms, .retries = check->retries};
	return true;
}

/* A recipe's process is asked in the recipe's way: the file's check means the image's programs, and its ports. */
static bool health_check(const struct apply_service *s, struct config_probe *ret)
{
	const struct model_service *m = s->model;
	const struct config_service *c = m ? m->config : NULL;
	if (!m || !s->apply->backend)
		return false;
	if (c->healthcheck.kind == PROBE_NONE || c->healthcheck_disabled)
		return image_check(s, ret);
	*ret = c->healthcheck;
	if (m->recipe && m->spec.process && !c->run_command) {
		*ret = m->ready;
		ret->interval_ms = c->healthcheck.interval_ms;
		ret->retries = c->healthcheck.retries;
		if (ret->kind == PROBE_NONE || ret->kind == PROBE_LOG)
			return false;
	}
	return may_probe(s, ret);
}

static void on_health_timer(uv_timer_t *timer);

static void health_again(struct apply_service *s)
{
	struct config_probe what;
	if (s->health && health_check(s, &what))
		uv_timer_start(s->health, on_health_timer, what.interval_ms ? what.interval_ms : APPLY_HEALTH_INTERVAL_MS, 0);
}

static void health_next(struct apply_service *s, bool unhealthy)
{
	bool changed = s->unhealthy != unhealthy;
	s->health_probe = NULL;
	s->unhealthy = unhealthy;
	health_again(s);
	if (changed)
		service_tell_health(s);
}

static void on_healthy(void *arg)
{
	struct apply_service *s = arg;
	s->health_failures = 0;
	health_next(s, false);
}

static void on_unhealthy(void *arg, const char *why)
{
	struct apply_service *s = arg;
	struct config_probe what;
	unsigned retries = health_check(s, &what) ? what.retries : 0;
	bool unhealthy = ++s->health_failures >= (retries ? retries : APPLY_HEALTH_RETRIES);
	if (unhealthy && !s->unhealthy)
		log_warning("apply", "%s is unhealthy: %s", s->name, why);
	health_next(s, s->unhealthy || unhealthy);
}

static void on_health_timer(uv_timer_t *timer)
{
	struct apply_service *s = timer->data;
	struct config_probe what;
	if (s->present != PRESENT_READY || !health_check(s, &what))
		return;
	const struct probe_params params = {
	    .loop = s->apply->params.loop,
	    .what = &what,
	    .host = MODEL_HOST,
	    .port = model_external_port(s->model, what.port),
	    .exec = probe_exec,
	    .ready = on_healthy,
	    .failed = on_unhealthy,
	    .arg = s,
	};
	s->health_probe = probe_start(&params);
}

static void health_begin(struct apply_service *s)
{
	struct config_probe what;
	health_end(s);
	if (!health_check(s, &what))
		return;
	s->health = xcalloc(1, sizeof *s->health);
	uv_timer_init(s->apply->params.loop, s->health);
	s->apply->open_timers++;
	s->health->data = s;
	health_again(s);
}

static void on_proven(void *arg)
{
	struct apply_service *s = arg;
	s->probe = NULL;
	s->present = PRESENT_READY;
	s->proven = true;
	s->used_up = false;
	settle(s);
	health_begin(s);
	error_release(&s->error);
	service_tell(s, false);
	apply_wake(s->apply);
}

/* As docker says, and whoever waits for it to be healthy: it runs on, and may become so yet. */
static void on_exhausted(void *arg, const char *why, unsigned tries)
{
	struct apply_service *s = arg;
	cleanup_error struct error err = ERROR_INIT;
	cleanup_free char *times = s->used_up ? xstrdup("again") : xasprintf("%u times", tries);
	error_set(&err, ERROR_SERVICE_FAILED, "service %s is unhealthy: its health check has failed %s: %s", s->name, times, why);
	s->used_up = true;
	service_fail_running(s, &err);
}

/* A check whose failures count: Compose's defaults where it says nothing. */
static void count_retries(const struct apply_service *s, struct config_probe *check, struct probe_params *params)
{
	check->interval_ms = s->used_up ? 0 : check->interval_ms ? check->interval_ms : APPLY_HEALTH_INTERVAL_MS;
	check->start_period_ms = s->used_up ? 0 : check->start_period_ms;
	check->retries = s->used_up ? 1 : check->retries ? check->retries : APPLY_HEALTH_RETRIES;
	params->exhausted = on_exhausted;
}

static void probe_for(struct apply_service *s, unsigned least_ms);

static void probe_more(struct apply_service *s, struct config_probe *what, bool counts)
{
	struct probe_params params = {
	    .loop = s->apply->params.loop,
	    .what = what,
	    .host = MODEL_HOST,
	    .port = model_external_port(s->model, what->port),
	    .exec = probe_exec,
	    .ready = on_proven,
	    .arg = s,
	};
	if (counts)
		count_retries(s, what, &params);
	s->probe = probe_start(&params);
}

/* What the file says of readiness counts alone, but that its check may find what is not reached; else the image is heard, too. */
static void on_ready(void *arg)
{
	struct apply_service *s = arg;
	struct config_probe check;
	s->probe = NULL;
	if (s->model && s->model->ready.kind == PROBE_NONE && s->apply->backend && !backend_lives(s->apply->backend, s->name, s->pid)) {
		probe_for(s, APPLY_ENDING_MS); /* it has ended, which is about to be told, by this loop: not at once */
		return;
	}
	if (s->model && s->model->reached.kind != PROBE_NONE) {
		check = s->model->reached;
		probe_more(s, &check, false);
	} else if (s->model && s->model->config->ready.kind == PROBE_NONE && image_check(s, &check)) {
		probe_more(s, &check, true);
	} else {
		on_proven(s);
	}
}

/* What was found running has run for a while. */
static unsigned left_to_settle(const struct apply_service *s, unsigned ms)
{
	int64_t ran = s->proven ? now_wall_ms() - s->started_ms : 0;
	return ran < 0 || ran > ms ? 0 : ms - (unsigned)ran;
}

/* What is asked of nothing takes at least so long. */
static void probe_for(struct apply_service *s, unsigned least_ms)
{
	if (!s->model || s->probe || s->adaptation || service_adapts(s) || !may_probe(s, &s->model->ready))
		return;
	cleanup_free char *log = backend_log_path(s->apply->backend, s->name);
	struct config_probe what = s->model->ready;
	if (what.kind == PROBE_NONE)
		what.linger_ms = left_to_settle(s, what.linger_ms);
	if (what.kind == PROBE_NONE && what.linger_ms < least_ms)
		what.linger_ms = least_ms;
	struct probe_params params = {
	    .loop = s->apply->params.loop,
	    .what = &what,
	    .host = MODEL_HOST,
	    .port = model_external_port(s->model, s->model->ready.port),
	    .log_path = log,
	    .log_offset = s->log_offset,
	    .exec = probe_exec,
	    .ready = on_ready,
	    .arg = s,
	};
	if (what.argv && what.argv == s->model->config->healthcheck.argv)
		count_retries(s, &what, &params);
	s->probe = probe_start(&params);
}

void service_probe(struct apply_service *s)
{
	probe_for(s, 0);
}

/* ---- operations ---- */

static void begin(struct apply_service *s, enum service_operation operation)
{
	s->operation = operation;
	s->changes++;
	service_tell(s, false);
}

/* false: we are letting go, the operation's end is nobody's business */
static bool end(struct apply_service *s)
{
	s->operation = OPERATION_NONE;
	s->changes++;
	if (s->apply->halted)
		return false;
	apply_wake(s->apply);
	return true;
}

/* Looked at before each start: a process that finds its port taken exits with a message of its own, which nobody can
 * understand for all programs. SO_REUSEADDR, as the services do: connections in TIME_WAIT are no hindrance. */
static bool is_taken(const struct port_binding *port)
{
	struct sockaddr_in address = {
	    .sin_family = AF_INET, .sin_port = htons(port->external), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	bool udp = !strcmp(port->protocol, "udp");
	int on = 1;
	cleanup_close int fd = socket(AF_INET, (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
	if (fd < 0 || !port->external)
		return false;
	if (!udp)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	return bind(fd, (const struct sockaddr *)&address, sizeof address) < 0 && errno == EADDRINUSE;
}

static bool is_published(const struct model_service *m, const struct port_binding *port)
{
	for (size_t i = 0; i < m->config->n_ports; i++)
		if (m->config->ports[i].published == port->external)
			return true;
	return false;
}

/* A backend names a port that is free as far as this process can tell: an engine may hold one that nobody listens on, or somewhere else. */
static void replace_refused_port(struct apply_service *s, const char *message)
{
	for (size_t i = 0; s->model && message && i < s->model->n_ports; i++) {
		const struct port_binding *port = &s->model->ports[i];
		cleanup_free char *words = xasprintf(":%u", port->external);
		const char *at = strstr(message, words);
		if (!at || isdigit((unsigned char)at[strlen(words)]) || is_taken(port) || (s->model->strict_ports && is_published(s->model, port)))
			continue;
		s->taken = true;
		s->apply->params.port_taken(s->apply->params.arg, s->name, port);
		return;
	}
}

static void on_started(void *arg, const struct error *err)
{
	struct apply_service *s = arg;
	if (!end(s))
		return;
	s->restart = s->recreate = false;
	if (err && err->code == ERROR_CANCELED && s->goal != GOAL_UP) { /* its build was given up for that */
		s->present = s->made ? PRESENT_STOPPED : PRESENT_ABSENT;
		service_tell(s, false);
		return;
	}
	if (err && err->code == ERROR_DATA_UNFINISHED && !s->anew) { /* that is said once: also who has changed his mind gets new data */
		s->discard = s->unfinished = s->anew = s->made = true;
		s->recreate = s->goal == GOAL_UP;
		s->present = PRESENT_STOPPED;
		service_tell(s, false);
		return;
	}
	if (err && s->outdated && s->goal == GOAL_UP) {
		s->present = s->made ? PRESENT_STOPPED : PRESENT_ABSENT;
		return;
	}
	if (err && err->code == ERROR_PORT_ALLOCATION_FAILED && s->goal == GOAL_UP && s->port_tries++ < APPLY_PORT_TRIES) {
		replace_refused_port(s, err->message); /* or taken since it was looked at: the next start looks again, and gets another */
		return;
	}
	s->anew = false;
	if (err) {
		cleanup_error struct error copy = ERROR_INIT;
		error_copy(&copy, err);
		fail(s, &copy);
		return;
	}
	service_note_values(s, s->start_values);
	s->made = true;
	s->lost = false;
	s->recreate = s->outdated && s->goal == GOAL_UP;
	free(s->config_hash);
	s->config_hash = move_ptr(s->start_hash);
	s->present = PRESENT_RUNNING;
	if (s->exited) {
		service_exited(s, &(struct exit){.code = s->exit_code, .ms = s->exited_ms});
		return;
	}
	if (s->goal == GOAL_UP)
		service_probe(s);
	service_tell(s, false);
	apply_refresh(s->apply);
}

static void fail_strictly(struct apply_service *s, const struct port_binding *port)
{
	cleanup_error struct error err = ERROR_INIT;
	cleanup_free char *owner = port_owner(port->external);
	error_set(&err, ERROR_PORT_ALLOCATION_FAILED, "service %s: port %u is asked for: %s uses it", s->name, port->external,
	          owner ? owner : "another program");
	error_hint(&err, "end that and ask again, or leave out x-aether.host_ports: strict");
	fail(s, &err);
}

static bool ports_are_free(struct apply_service *s)
{
	for (size_t i = 0; i < s->model->n_ports; i++) {
		const struct port_binding *port = &s->model->ports[i];
		if (!is_taken(port) || backend_rises(s->apply->backend, s->name)) /* that may be its own container, which a killed server has started */
			continue;
		cleanup_error struct error err = ERROR_INIT;
		if (s->model->strict_ports && is_published(s->model, port)) {
			fail_strictly(s, port);
			return false;
		}
		if (s->port_tries++ < APPLY_PORT_TRIES) {
			s->taken = true;
			s->apply->params.port_taken(s->apply->params.arg, s->name, port);
		} else {
			error_set(&err, ERROR_PORT_ALLOCATION_FAILED,
			          "service %s: port %u is taken by another program, and so were %u others", s->name, port->external,
			          APPLY_PORT_TRIES);
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
	apply_wake(s->apply);
}

bool apply_image_failed(struct apply_service *s, const struct error *err)
{
	cleanup_error struct error copy = ERROR_INIT;
	if (!s->model || service_runs(s) || s->operation != OPERATION_NONE || s->backoff || s->present == PRESENT_COMPLETED)
		return false;
	error_copy(&copy, err);
	fail(s, &copy);
	return true;
}

static uint64_t log_size(const struct apply_service *s)
{
	cleanup_free char *path = backend_log_path(s->apply->backend, s->name);
	struct stat st;
	return path && stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* Demands are refused before it comes to this; a service that has ended by itself, or a new server, is not. */
static bool is_approved(struct apply_service *s)
{
	const struct model *m = s->apply->model;
	cleanup_error struct error err = ERROR_INIT;
	if (trust_is_given(&m->trust))
		return true;
	trust_refuse(&m->trust, m->config->file, &err);
	fail(s, &err);
	return false;
}

void service_start(struct apply_service *s)
{
	if (!is_approved(s) || !ports_are_free(s))
		return;
	s->log_offset = log_size(s);
	s->exited = s->proven = s->gone = s->outdated = s->paused = s->unplugged = s->used_up = false;
	s->started_at = now_monotonic_ms();
	s->started_ms = now_wall_ms();
	free(s->start_hash);
	s->start_hash = xstrdup(s->model->spec.config_hash);
	free(s->start_values);
	s->start_values = service_values(s);
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
		s->stuck = service_goes_down(s);
		s->restart = s->recreate = false;
		if (!s->stuck)
			s->present = PRESENT_FAILED;
	} else {
		s->present = PRESENT_STOPPED;
		s->pid = 0;
		s->restart = false;
	}
	service_tell(s, false);
}

void service_stop(struct apply_service *s)
{
	int signal = s->model && s->model->spec.stop_signal ? s->model->spec.stop_signal : SIGTERM;
	service_probe_end(s);
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
	service_tell(s, false);
}

void service_remove(struct apply_service *s)
{
	begin(s, OPERATION_REMOVE);
	backend_remove(s->apply->backend, s->name, on_removed, s);
}
