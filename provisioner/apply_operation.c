/* The operations on a service: start, stop and remove, one at a time. */
#include <signal.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "provisioner/apply_private.h"

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

/* ---- start ---- */

static void start_failed(struct apply_service *s, const struct error *err)
{
	bool wanted = s->goal == GOAL_UP;
	if (err->code == ERROR_CANCELED && !wanted) { /* its build was given up for that */
		s->present = s->made ? PRESENT_STOPPED : PRESENT_ABSENT;
		service_tell(s, false);
	} else if (err->code == ERROR_DATA_UNFINISHED && !s->anew) { /* that is said once: also who has changed his mind gets new data */
		s->discard = s->unfinished = s->anew = s->made = true;
		s->recreate = wanted;
		s->present = PRESENT_STOPPED;
		service_tell(s, false);
	} else if (s->outdated && wanted) {
		s->present = s->made ? PRESENT_STOPPED : PRESENT_ABSENT;
	} else if (err->code == ERROR_PORT_ALLOCATION_FAILED && wanted && s->port_tries++ < APPLY_PORT_TRIES) {
		service_replace_port(s, err->message); /* or taken since it was looked at: the next start looks again, and gets another */
	} else {
		s->anew = false;
		service_fail(s, err);
	}
}

static void start_succeeded(struct apply_service *s)
{
	s->anew = false;
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
	if (!s->apply->backend->ops->tells_starts)
		apply_refresh(s->apply);
}

static void on_started(void *arg, const struct error *err)
{
	struct apply_service *s = arg;
	if (!end(s))
		return;
	s->restart = s->recreate = false;
	if (err)
		start_failed(s, err);
	else
		start_succeeded(s);
}

/* Demands are refused before it comes to this; a service that has ended by itself, or a new server, is not. */
static bool is_approved(struct apply_service *s)
{
	const struct model *m = s->apply->model;
	cleanup_error struct error err = ERROR_INIT;
	if (trust_is_given(&m->trust))
		return true;
	trust_refuse(&m->trust, m->config->file, &err);
	service_fail(s, &err);
	return false;
}

void service_start(struct apply_service *s)
{
	if (!is_approved(s) || !service_ports_are_free(s))
		return;
	s->log_offset = service_log_size(s);
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

/* ---- stop ---- */

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

/* ---- remove ---- */

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
