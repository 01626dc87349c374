/* Who waits for what: demands, and the commands of `ctl`. One object each; a turn admits them (says to apply what they
 * want), judges them and calls back. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "provisioner/environment_private.h"
#include "provisioner/layers.h"

#define BUILD_LOOK_MS 1000

/* ---- life ---- */

static struct demand *demand_new(struct environment *e, enum wait wait, const struct requester *who, demand_done *done,
                                 void *arg)
{
	struct demand *d = xcalloc(1, sizeof *d), **end = &e->demands;
	d->e = e;
	d->wait = wait;
	d->done = done;
	d->arg = arg;
	d->began_ms = now_monotonic_ms();
	if (who)
		d->who = *who;
	while (*end)
		end = &(*end)->next;
	*end = d;
	environment_wake(e);
	return d;
}

static void demand_unlink(struct demand *d)
{
	struct demand **at = &d->e->demands;
	while (*at != d)
		at = &(*at)->next;
	*at = d->next;
}

static void demand_free(struct demand *d)
{
	environment_timer_end(d->e, &d->deadline);
	demand_builds_give_up(d);
	strv_free(d->renewed);
	strv_free(d->names);
	strv_free(d->profiles);
	strv_free(d->needed);
	free(d->file);
	free(d->approves);
	error_release(&d->error);
	free(d);
}

/* Who is not admitted yet has still to say what it wants: provisioning goes on, only nobody hears of its end. */
void demand_cancel(struct demand *d)
{
	if (!d)
		return;
	struct environment *e = d->e;
	d->done = NULL;
	if (d->admitted || d->finished || d->builds) { /* what is built for nobody ends */
		demand_unlink(d);
		demand_free(d);
	}
	environment_wake(e);
}

static void finish(struct demand *d, const struct error *err)
{
	if (d->finished)
		return;
	d->finished = true;
	if (err)
		error_copy(&d->error, err);
}

void demand_end(struct demand *d, const struct error *err)
{
	finish(d, err);
}

void demands_fail_all(struct environment *e, bool admitted_only, const struct error *err)
{
	for (struct demand *d = e->demands; d; d = d->next)
		if (!admitted_only || (d->wait == WAIT_READY && (d->admitted || d->builds)))
			finish(d, err);
}

void demands_cancel_all(struct environment *e, bool admitted_only, const char *why, const char *hint)
{
	cleanup_error struct error err = ERROR_INIT;
	error_set_errno(&err, ERROR_CANCELED, ECANCELED, "%s", why);
	error_hint(&err, "%s", hint);
	demands_fail_all(e, admitted_only, &err);
}

void demands_finish(struct environment *e)
{
	struct demand *d = e->demands;
	while (d) {
		if (!d->finished) {
			d = d->next;
			continue;
		}
		bool ok = !error_is_set(&d->error);
		demand_unlink(d);
		if (!ok && !d->known)
			environment_fail(e, &d->error);
		if (d->done)
			d->done(d->arg, ok ? NULL : &d->error);
		demand_free(d);
		d = e->demands; /* the callback may have changed the list */
	}
	for (d = e->demands; d && (!d->apply || d->admitted); d = d->next)
		;
	if (!d && !e->recalled)
		environment_drop_next(e); /* nobody waits for it any more */
}

/* ---- who asked ---- */

static void note_requester(struct environment *e, const struct demand *d)
{
	json_t *who = requester_json(&d->who), *old;
	size_t i;
	char time[32];
	json_array_foreach(e->requested_by, i,
	                   old) if (json_equal(json_object_get(old, "pid"), json_object_get(who, "pid")))
	{
		json_array_remove(e->requested_by, i);
		break;
	}
	format_time(time, now_wall_ms());
	json_t *event = json_copy(who);
	json_object_set_new(who, "time", json_string(time));
	if (d->names)
		json_object_set_new(event, "service", json_string(d->names[0]));
	json_array_append_new(e->requested_by, who);
	if (json_array_size(e->requested_by) > REQUESTED_BY_MAX)
		json_array_remove(e->requested_by, 0);
	environment_event(e, d->command ? "up" : "demand", event);
	environment_mark(e, CHANGED_STATUS);
}

/* ---- readiness ---- */

static bool is_ready(const struct apply_service *s)
{
	return (s->present == PRESENT_READY || s->present == PRESENT_COMPLETED) && s->operation == OPERATION_NONE && !s->gone && !s->unplugged && !s->restart && !s->recreate &&
	       s->goal == GOAL_UP;
}

static unsigned timeout_ms(const struct environment *e)
{
	return e->model && e->model->config->timeout_ms ? e->model->config->timeout_ms : ENVIRONMENT_DEMAND_TIMEOUT_MS;
}

static void describe_waiting(struct error *err, const struct apply_service *s, struct buffer *out)
{
	cleanup_strv char **lines = apply_log_tail(s);
	size_t n = strv_len(lines);
	buffer_printf(out, "%s%s is %s", out->len ? "; " : "", s->name, service_state_name(s->state));
	if (s->probe && s->model) {
		uint16_t port = model_external_port(s->model, s->model->ready.port);
		cleanup_free char *what = probe_describe(&s->model->ready, port);
		buffer_printf(out, " (%s: %s)", what, *probe_last(s->probe) ? probe_last(s->probe) : "no answer yet");
	}
	if (!n)
		return;
	buffer_printf(out, ", its log ends: %s", lines[n - 1]);
	json_t *log = json_array();
	for (size_t i = 0; i < n; i++)
		json_array_append_new(log, json_string(lines[i]));
	error_detail(err, s->name, log);
}

static void on_deadline(uv_timer_t *timer);

static void arm_for(struct demand *d, uint64_t ms)
{
	environment_timer_end(d->e, &d->deadline);
	d->deadline = environment_timer(d->e, on_deadline, ms, d);
}

/* How long a build takes nobody can say; it has bounds of its own. What comes after it has the whole time. */
static bool extends(struct demand *d)
{
	bool building = demand_is_building(d);
	if (!building && !d->extended)
		return false;
	d->extended = building;
	if (building)
		arm_for(d, BUILD_LOOK_MS);
	else
		demand_begin_anew(d);
	return true;
}

static void on_deadline(uv_timer_t *timer)
{
	struct demand *d = timer->data;
	struct environment *e = d->e;
	if (extends(d))
		return;
	cleanup_error struct error err = ERROR_INIT;
	cleanup_buffer struct buffer what = BUFFER_INIT;
	uint64_t waited = now_monotonic_ms() - d->began_ms;
	error_set(&err, ERROR_NOT_READY, "not ready");
	for (char **name = d->needed; name && *name; name++) {
		const struct apply_service *s = apply_find(e->apply, *name);
		if (s && !is_ready(s))
			describe_waiting(&err, s, &what);
	}
	cleanup_free char *message = xasprintf("not ready after %llu s: %s", (unsigned long long)((waited + 500) / 1000),
	                                       what.len ? buffer_str(&what) : e->state);
	free(err.message);
	err.message = move_ptr(message);
	error_hint(&err, "it is still being started: ask again, look at `ajj logs`, or raise x-aether.timeout");
	finish(d, &err);
	environment_wake(e);
}

static void arm(struct demand *d)
{
	uint64_t waited = now_monotonic_ms() - d->began_ms, limit = timeout_ms(d->e);
	arm_for(d, limit > waited ? limit - waited : 0);
}

void demand_begin_anew(struct demand *d)
{
	d->began_ms = now_monotonic_ms();
	arm(d);
}

/* ---- admission ---- */

/* borrowed; NULL: none of its own */
static char **services_of(const struct model *m, const char *file)
{
	const struct model_file *f = file ? model_file(m, file) : NULL;
	return f ? f->services : NULL;
}

/* Of those that are to start, one that waits for it; borrowed; NULL: none */
static const char *who_needs(const struct model *m, const bool *chosen, const char *name)
{
	for (size_t i = 0; i < m->n_services; i++) {
		const struct config_service *c = m->services[i].config;
		for (size_t d = 0; chosen[i] && d < c->n_depends_on; d++)
			if (c->depends_on[d].required && !strcmp(c->depends_on[d].service, name))
				return c->name;
	}
	return NULL;
}

/* What it needs, by name; services that cannot run here are left out where nobody has named them. */
static int find_needed(struct demand *d, struct error *err)
{
	const struct model *m = demand_model(d);
	cleanup_free bool *chosen = xcalloc(m->n_services, sizeof *chosen), *named = xcalloc(m->n_services, sizeof *named);
	const struct plan_selection selection = {d->all, d->names, d->profiles, services_of(m, d->file)};
	const struct error *unsupported = NULL;
	int r = plan_select(m->config, &selection, chosen, named, err);
	if (r < 0)
		return r;
	strv_free(move_ptr(d->needed));
	for (size_t i = 0; i < m->n_services; i++) {
		const struct model_service *s = &m->services[i];
		if (!chosen[i])
			continue;
		if (!error_is_set(&s->unsupported)) {
			strv_push(&d->needed, xstrdup(s->config->name));
			continue;
		}
		/* what a service on an engine needs, and may not be there for want of a permission, others would wait for in vain */
		const char *needs = s->unsupported.code == ERROR_PERMISSION ? who_needs(m, chosen, s->config->name) : NULL;
		bool fails = named[i] || model_is_refused(s) || needs;
		if (!unsupported || fails)
			unsupported = &s->unsupported;
		if (fails)
			strv_free(move_ptr(d->needed));
		if (fails)
			break;
	}
	if (unsupported && !d->needed) { /* none can run at all: that is no success */
		error_copy(err, unsupported);
		return -err->err;
	}
	return 0;
}

/* Has the configuration been looked at since it was asked for? */
static bool is_loaded(struct demand *d)
{
	struct environment *e = d->e;
	bool moves = e->model && e->model->moves && !error_is_set(&e->config_error); /* it is applied: now its ports are taken */
	if (d->load_seq && e->load_done >= d->load_seq && (!e->model || e->model->planned) && !moves)
		return true;
	if (!d->load_seq || e->load_done >= d->load_seq) {
		e->plan = true;
		d->load_seq = environment_load(e, d->load | LOAD_NEEDED | (moves ? LOAD_FORCE | LOAD_APPLY : 0));
	}
	return false;
}

/* Who waits for the end of what is wanted again would wait for ever. */
void demands_cancel_stops(struct environment *e, char *const *services)
{
	cleanup_error struct error err = ERROR_INIT;
	error_set(&err, ERROR_CANCELED, "it was started again meanwhile");
	for (struct demand *o = e->demands; o; o = o->next) {
		bool waits = o->admitted && !o->finished && (o->wait == WAIT_DOWN || o->wait == WAIT_STOPPED), again = o->wait == WAIT_DOWN;
		for (char **name = o->names; waits && name && *name; name++)
			again |= strv_contains(services, *name);
		if (waits && again && services && *services)
			finish(o, &err);
	}
}

static void want(struct demand *d)
{
	struct environment *e = d->e;
	demands_cancel_stops(e, d->needed);
	if (d->apply) {
		apply_changes(e->apply);
		e->config_changed = false;
		strv_free(move_ptr(e->warnings));
	}
	for (char **name = d->renewed; name && *name; name++)
		if (strv_contains(d->needed, *name))
			apply_recreate(apply_find(e->apply, *name));
	if (d->needed)
		environment_store_up(e);
	for (char **name = d->needed; name && *name; name++) {
		struct apply_service *s = apply_find(e->apply, *name);
		if (d->restart && strv_contains(d->names, *name))
			apply_restart(s);
		else
			apply_want(s, GOAL_UP);
		apply_renew(s);
	}
}

static void admit_ready(struct demand *d)
{
	struct environment *e = d->e;
	cleanup_error struct error err = ERROR_INIT;
	if (!is_loaded(d))
		return;
	if (error_is_set(&e->config_error) && (d->apply || !e->model)) {
		if (!e->model)
			error_copy(&e->failure, &e->config_error);
		finish(d, &e->config_error);
		return;
	}
	if (!e->model)
		return;
	if (!trust_is_given(&e->trust)) {
		trust_refuse(&e->trust, e->model->config->file, &err);
		finish(d, &err);
		return;
	}
	if (!d->command && e->model->config->start == START_MANUAL) {
		finish(d, NULL);
		return;
	}
	if (error_is_set(&e->backend_error)) {
		d->known = true;
		finish(d, &e->backend_error);
		return;
	}
	if (!environment_is_known(e) || !e->backend)
		return;
	if (find_needed(d, &err) < 0) {
		finish(d, &err);
		return;
	}
	if (!demand_builds(d))
		return;
	if (d->apply)
		environment_take_next(e);
	if (!is_loaded(d))
		return;
	d->admitted = true;
	error_release(&e->failure);
	note_requester(e, d);
	want(d);
	arm(d);
}

/* What is still being built for a start has not been wanted yet, and is not any more. */
static void cancel_builds(const struct demand *d)
{
	cleanup_error struct error err = ERROR_INIT;
	error_set_errno(&err, ERROR_CANCELED, ECANCELED, "it was stopped meanwhile");
	for (struct demand *o = d->e->demands; o; o = o->next) {
		bool concerns = d->wait == WAIT_DOWN;
		for (char **name = d->names; name && *name; name++)
			concerns |= strv_contains(o->needed, *name);
		if (o->builds && concerns)
			finish(o, &err);
	}
}

static void admit_stop(struct demand *d)
{
	struct environment *e = d->e;
	cleanup_error struct error err = ERROR_INIT;
	if (!environment_is_known(e))
		return;
	d->admitted = true;
	cancel_builds(d);
	if (d->wait == WAIT_DOWN) {
		environment_want_all(e, GOAL_STOPPED);
		e->satisfied = false;
		if (!e->desired || strcmp(e->desired, "absent"))
			environment_store_desired(e, "stopped");
		return;
	}
	for (char **name = d->names; *name; name++) {
		struct apply_service *s = apply_find(e->apply, *name);
		if (s) {
			apply_want(s, GOAL_STOPPED);
			continue;
		}
		error_set(&err, ERROR_SERVICE_UNKNOWN, "there is no service '%s'", *name);
		finish(d, &err);
	}
}

static void admit_loaded(struct demand *d)
{
	struct environment *e = d->e;
	if (!d->load_seq && d->approves) {
		free(e->approves);
		e->approves = xstrdup(d->approves);
	}
	if (!d->load_seq)
		d->load_seq = environment_load(e, d->load);
	if (e->load_done < d->load_seq)
		return;
	if (error_is_set(&e->config_error) || !d->approves || trust_is_given(&e->trust)) {
		finish(d, error_is_set(&e->config_error) ? &e->config_error : NULL);
		return;
	}
	cleanup_error struct error err = ERROR_INIT;
	error_set(&err, ERROR_CONFIG_UNTRUSTED, "%s has changed since it was looked at", e->model ? e->model->config->file : "the configuration");
	error_hint(&err, "ajj trust --show");
	finish(d, &err);
}

/* One that a server before us began, and that we have not taken up yet, is a teardown, too. */
static void admit_settled(struct demand *d)
{
	struct environment *e = d->e;
	if (e->desired && !strcmp(e->desired, DESIRED_DESTROYING))
		teardown_begin(e);
	else
		d->admitted = true;
}

static void admit(struct demand *d)
{
	struct environment *e = d->e;
	if (d->wait == WAIT_LOADED) {
		admit_loaded(d);
		return;
	}
	if (d->wait == WAIT_DESTROYED) {
		d->admitted = true;
		teardown_begin(e);
		return;
	}
	if (e->teardown != TEARDOWN_NONE)
		return;
	if (d->wait == WAIT_SETTLED)
		admit_settled(d);
	else if (d->wait == WAIT_READY)
		admit_ready(d);
	else
		admit_stop(d);
}

void demands_admit(struct environment *e)
{
	for (struct demand *d = e->demands; d; d = d->next)
		if (!d->admitted && !d->finished)
			admit(d);
}

/* ---- judgement ---- */

static void judge_ready(struct demand *d)
{
	struct environment *e = d->e;
	size_t missing = 0;
	for (char **name = d->needed; name && *name; name++) {
		const struct apply_service *s = apply_find(e->apply, *name);
		bool failed = s && apply_has_failed(s) && s->goal == GOAL_UP, ended = failed || (s && s->dismissed);
		if (ended && d->revives) {
			d->revives = d->admitted = false;
			environment_wake(e);
			return;
		}
		if (failed) {
			d->known = true; /* told when it failed */
			finish(d, &s->error);
			if (e->config_changed)
				error_hint(&d->error, "the configuration has changed since, and more than this service: `ajj up` applies it");
			return;
		}
		if (!s || s->goal != GOAL_UP) {
			cleanup_error struct error err = ERROR_INIT;
			error_set_errno(&err, ERROR_CANCELED, ECANCELED, "service %s was stopped meanwhile", *name);
			finish(d, &err);
			return;
		}
		missing += !is_ready(s);
	}
	if (missing)
		return;
	if (!d->needed)
		e->satisfied = true;
	finish(d, NULL);
}

static const struct error *stuck_error(const struct environment *e, char *const *names)
{
	for (size_t i = 0; i < apply_count(e->apply); i++) {
		const struct apply_service *s = apply_at(e->apply, i);
		if (s->stuck && (!names || strv_contains(names, s->name)))
			return &s->error;
	}
	return NULL;
}

static void judge_stop(struct demand *d)
{
	struct environment *e = d->e;
	if (e->running_job || e->jobs || (d->wait == WAIT_DOWN && !apply_is_down(e->apply, false)))
		return;
	for (char **name = d->names; d->wait == WAIT_STOPPED && *name; name++) {
		const struct apply_service *s = apply_find(e->apply, *name);
		if (s && !s->stuck &&
		    (s->operation != OPERATION_NONE || s->present == PRESENT_RUNNING || s->present == PRESENT_READY))
			return;
	}
	finish(d, stuck_error(e, d->names));
}

static void judge_settled(struct demand *d)
{
	for (size_t i = 0; i < apply_count(d->e->apply); i++) {
		const struct apply_service *s = apply_at(d->e->apply, i);
		if (s->discard && !(s->made && s->goal == GOAL_STOPPED)) /* which waits for the next start */
			return;
	}
	finish(d, NULL);
}

void demands_judge(struct environment *e)
{
	for (struct demand *d = e->demands; d; d = d->next) {
		if (!d->admitted || d->finished)
			continue;
		if (!d->done)
			finish(d, NULL);
		else if (d->wait == WAIT_READY)
			judge_ready(d);
		else if (d->wait == WAIT_DOWN || d->wait == WAIT_STOPPED)
			judge_stop(d);
		else if (d->wait == WAIT_SETTLED)
			judge_settled(d);
	}
}

/* ---- demands ---- */

/* All that is asked for is there: nothing is parked. */
static bool is_satisfied(struct environment *e, const char *service, const char *file)
{
	if (e->teardown != TEARDOWN_NONE || e->teardown_failed || !e->model || !e->model->planned || e->model->moves ||
	    !environment_is_known(e))
		return false;
	if (e->load_done < e->user_load)
		return false;
	if (!trust_is_given(&e->trust))
		return false;
	if (layers_root_stamp(e->params.root_fd) != e->root_stamp ||
	    layers_files_stamp(e->id, e->params.root_fd, e->model->config) != e->files_stamp) /* changed a moment ago: not noticed by the clock yet */
		return false;
	if (e->model->config->start == START_MANUAL)
		return true;
	const struct model *m = e->model;
	cleanup_free bool *chosen = xcalloc(m->n_services, sizeof *chosen);
	char *const names[] = {(char *)service, NULL};
	const struct plan_selection selection = {false, service ? names : NULL, NULL, services_of(m, file)};
	size_t up = 0;
	if (plan_select(m->config, &selection, chosen, NULL, NULL) < 0)
		return false;
	for (size_t i = 0; i < m->n_services; i++) {
		if (!chosen[i] || (!service && error_is_set(&m->services[i].unsupported) && !model_is_refused(&m->services[i])))
			continue;
		const struct apply_service *s = apply_find(e->apply, m->services[i].config->name);
		if (!s || !is_ready(s))
			return false;
		up++;
	}
	return up || e->satisfied;
}

static int begin(struct environment *e, const char *service, const char *file, const struct requester *who, demand_done *done,
                 void *arg, struct demand **ret, struct error *err)
{
	if (e->closing)
		return error_set_errno(err, ERROR_CANCELED, ECANCELED, "the workspace is being unmounted");
	environment_refresh_user(e);
	bool gone = apply_look(e->apply);
	if (is_satisfied(e, service, file))
		return 0;
	if ((e->teardown == TEARDOWN_PENDING && (!who || who->pid != e->unlinker.pid)) || e->teardown_failed)
		teardown_begin(e);
	error_release(&e->backend_error);
	struct demand *d = demand_new(e, WAIT_READY, who, done, arg);
	d->revives = gone;
	if (service)
		strv_push(&d->names, xstrdup(service));
	d->file = file ? xstrdup(file) : NULL;
	arm(d);
	*ret = d;
	return 1;
}

int environment_demand(struct environment *e, const char *service, const struct requester *who, demand_done *done,
                       void *arg, struct demand **ret, struct error *err)
{
	return begin(e, service, NULL, who, done, arg, ret, err);
}

int environment_demand_file(struct environment *e, const char *path, const struct requester *who, demand_done *done, void *arg,
                            struct demand **ret, struct error *err)
{
	return begin(e, NULL, path, who, done, arg, ret, err);
}

int environment_service_remove(struct environment *e, const char *service, const struct requester *who,
                               struct error *err)
{
	struct apply_service *s = apply_find(e->apply, service);
	if (!s)
		return error_set(err, ERROR_SERVICE_UNKNOWN, "there is no service '%s'", service);
	json_t *fields = requester_json(who);
	json_object_set_new(fields, "service", json_string(service));
	environment_event(e, "remove", fields);
	if (e->teardown != TEARDOWN_NONE)
		return 0;
	apply_want(s, GOAL_ABSENT);
	s->discard = true;
	return 0;
}

/* ---- ctl ---- */

struct command {
	const char *name;
	const char *help;
	enum wait wait;
	bool names; /* wants at least one service; else takes none, but for `up` */
	bool restart;
	bool apply;
	enum load_flags load;
};

static const struct command commands[] = {
    {"up", "up [--all] [--build] [--profile=NAME] [SERVICE...]  start, apply a changed configuration, wait until ready",
     WAIT_READY, false, false, true, LOAD_FORCE | LOAD_OFFER},
    {"down", "down               stop everything; data and ports are kept", WAIT_DOWN, false, false, false, 0},
    {"destroy", "destroy            tear everything down; the data goes to the trash", WAIT_DESTROYED, false, false,
     false, 0},
    {"settle", "settle             wait for a teardown that is pending or under way, a service's own, too", WAIT_SETTLED, false, false,
     false, 0},
    {"start", "start SERVICE...   start services and what they depend on, wait until ready", WAIT_READY, true, false,
     false, 0},
    {"stop", "stop SERVICE...    stop services", WAIT_STOPPED, true, false, false, 0},
    {"restart", "restart SERVICE... stop and start services, wait until ready", WAIT_READY, true, true, false, 0},
    {"reload", "reload             read the configuration again", WAIT_LOADED, false, false, false, LOAD_FORCE},
    {"refresh", "refresh            read the configuration again where one of its files has changed", WAIT_LOADED, false, false, false, 0},
    {"approve", "approve [HASH]     approve what the configuration could run, for this repository; with the HASH of trust.json nothing else",
     WAIT_LOADED, false, false, false, LOAD_FORCE | LOAD_APPROVE},
    {"revoke", "revoke             approve nothing any more for this repository", WAIT_LOADED, false, false, false,
     LOAD_FORCE | LOAD_REVOKE},
};

const char *environment_command_list(void)
{
	static char text[2048];
	size_t len = 0;
	for (size_t i = 0; !text[0] || (len && i < sizeof commands / sizeof *commands); i++)
		len += (size_t)snprintf(text + len, sizeof text - len, "%s\n", commands[i].help);
	return text;
}

static const struct command *command_find(const char *name)
{
	for (size_t i = 0; name && i < sizeof commands / sizeof *commands; i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

static int parse_words(struct demand *d, const struct command *c, char **words, struct error *err)
{
	if (c->load & LOAD_APPROVE)
		d->approves = xstrdup("");
	for (; *words; words++) {
		if (c->apply && !strcmp(*words, "--all"))
			d->all = true;
		else if (c->apply && !strcmp(*words, "--build"))
			d->build_always = true;
		else if (c->apply && !strncmp(*words, "--profile=", 10))
			strv_push(&d->profiles, xstrdup(*words + 10));
		else if (d->approves && !*d->approves && (*words)[0] != '-') {
			free(d->approves);
			d->approves = xstrdup(*words);
		} else if ((*words)[0] == '-' || (!c->names && !c->apply))
			return error_set(err, ERROR_USAGE, "%s does not take '%s'", c->name, *words);
		else
			strv_push(&d->names, xstrdup(*words));
	}
	if (c->names && !d->names)
		return error_set(err, ERROR_USAGE, "%s wants the name of a service", c->name);
	return 0;
}

void environment_command(struct environment *e, const char *line, const struct requester *who, demand_done *done,
                         void *arg)
{
	cleanup_error struct error err = ERROR_INIT;
	cleanup_strv char **words = NULL;
	struct demand *d = demand_new(e, WAIT_LOADED, who, done, arg);
	d->command = true;
	int r = config_split_words(line, &words, &err);
	const struct command *c = r == 0 ? command_find(words ? words[0] : NULL) : NULL;
	if (r == 0 && !c) {
		r = error_set(&err, ERROR_USAGE, "there is no command '%s'", words && words[0] ? words[0] : "");
		error_hint(&err, "the commands are: up, down, destroy, settle, start, stop, restart, reload, refresh, approve, revoke");
	}
	if (r == 0 && c)
		r = parse_words(d, c, words + 1, &err);
	if (r == 0 && e->closing)
		r = error_set_errno(&err, ERROR_CANCELED, ECANCELED, "the workspace is being unmounted");
	if (r < 0) {
		finish(d, &err);
		return;
	}
	d->wait = c->wait;
	d->load = c->load;
	d->apply = c->apply;
	d->restart = c->restart;
	environment_event(
	    e, "command",
	    json_pack("{s:s, s:i, s:s}", "line", line, "pid", who ? (int)who->pid : 0, "command", who ? who->command : ""));
	if (c->wait == WAIT_DESTROYED && who)
		e->unlinker = *who;
	if ((e->teardown == TEARDOWN_PENDING || e->teardown_failed) && c->wait != WAIT_LOADED)
		teardown_begin(e);
	error_release(&e->backend_error);
	if (c->wait == WAIT_READY)
		arm(d);
}
