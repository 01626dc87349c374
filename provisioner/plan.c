#include "provisioner/plan.h"

#include <string.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"

static bool runs(const struct plan_service *s)
{
	return s->present == PRESENT_RUNNING || s->present == PRESENT_READY;
}

/* What runs of it now is about to go, and it comes again: that one is meant. */
static bool is_replaced(const struct plan_service *s)
{
	return !s->stuck && (s->restart || s->recreate || (s->busy && runs(s)));
}

static bool dependency_holds(const struct plan_service *on, enum depends_condition condition)
{
	if (is_replaced(on))
		return false;
	switch (condition) {
	case DEPENDS_STARTED:
		return on->present == PRESENT_RUNNING || on->present == PRESENT_READY || on->present == PRESENT_COMPLETED;
	case DEPENDS_HEALTHY:
		return on->present == PRESENT_READY;
	case DEPENDS_COMPLETED:
		return on->present == PRESENT_COMPLETED;
	}
	return false;
}


/* The other one goes: it does, too. What it lives in may also have gone. */
static bool goes_with(const struct plan_service *services, const struct plan_dependency *d)
{
	const struct plan_service *on = &services[d->service];
	return ((d->joined || d->follows) && (on->restart || on->recreate)) || (d->joined && !runs(on));
}

static bool goes_with_any(const struct plan_service *services, const struct plan_service *s)
{
	for (size_t i = 0; i < s->n_depends_on; i++)
		if (goes_with(services, &s->depends_on[i]))
			return true;
	return false;
}

bool plan_may_start(const struct plan_service *services, size_t service)
{
	const struct plan_service *s = &services[service];
	for (size_t i = 0; i < s->n_depends_on; i++)
		if (!dependency_holds(&services[s->depends_on[i].service], s->depends_on[i].condition) || goes_with(services, &s->depends_on[i]))
			return false;
	return true;
}

static bool goes_down(const struct plan_service *s)
{
	return s->goal == GOAL_STOPPED || s->goal == GOAL_ABSENT;
}

/* What is going down goes before what it depends on; who stays up holds nobody back. */
static bool may_stop(const struct plan_service *services, size_t count, size_t service)
{
	for (size_t i = 0; i < count; i++) {
		const struct plan_service *s = &services[i];
		if (i == service || !goes_down(s) || s->stuck || (!runs(s) && !s->busy))
			continue;
		for (size_t d = 0; d < s->n_depends_on; d++)
			if (s->depends_on[d].service == service)
				return false;
	}
	return true;
}

static bool step_down(const struct plan_service *services, size_t count, size_t i, struct plan_step *ret)
{
	const struct plan_service *s = &services[i];
	bool again = s->goal == GOAL_UP && (s->restart || s->recreate || (runs(s) && goes_with_any(services, s)));
	if (!goes_down(s) && !again)
		return false;
	if (runs(s)) {
		*ret = (struct plan_step){PLAN_STOP, i, !s->busy && !s->stuck && (again || may_stop(services, count, i))};
		return true;
	}
	if (s->made && (s->goal == GOAL_ABSENT || (again && s->recreate))) {
		*ret = (struct plan_step){PLAN_REMOVE, i, !s->busy && !s->stuck};
		return true;
	}
	return false;
}

static bool step_up(const struct plan_service *services, size_t i, struct plan_step *ret)
{
	const struct plan_service *s = &services[i];
	if (s->goal != GOAL_UP || (s->present != PRESENT_ABSENT && s->present != PRESENT_STOPPED))
		return false;
	*ret = (struct plan_step){PLAN_START, i, !s->busy && !s->held && plan_may_start(services, i)};
	return true;
}

/* Dependencies before dependents: depth first. `seen` also ends the walk in a circle, which plan_check_circles reports.
 */
static void visit(const struct plan_service *services, size_t i, bool *seen, size_t *order, size_t *n)
{
	if (seen[i])
		return;
	seen[i] = true;
	for (size_t d = 0; d < services[i].n_depends_on; d++)
		visit(services, services[i].depends_on[d].service, seen, order, n);
	order[(*n)++] = i;
}

size_t plan_steps(const struct plan_service *services, size_t count, struct plan_step *ret)
{
	cleanup_free bool *seen = xcalloc(count, sizeof *seen);
	cleanup_free size_t *order = xcalloc(count, sizeof *order);
	size_t n = 0, steps = 0;
	for (size_t i = 0; i < count; i++)
		visit(services, i, seen, order, &n);

	memset(seen, 0, count * sizeof *seen);
	for (size_t i = count; i-- > 0;)
		if (step_down(services, count, order[i], &ret[steps])) {
			seen[order[i]] = true;
			steps++;
		}
	for (size_t i = 0; i < count; i++)
		if (!seen[order[i]] && step_up(services, order[i], &ret[steps]))
			steps++;
	return steps;
}

/* ---- which services ---- */

static size_t index_of(const struct config *config, const char *name)
{
	for (size_t i = 0; i < config->n_services; i++)
		if (!strcmp(config->services[i].name, name))
			return i;
	return config->n_services;
}

static void choose(const struct config *config, size_t i, bool *chosen)
{
	if (chosen[i])
		return;
	chosen[i] = true;
	const struct config_service *s = &config->services[i];
	for (size_t d = 0; d < s->n_depends_on; d++) {
		size_t on = index_of(config, s->depends_on[d].service);
		if (on < config->n_services && s->depends_on[d].required)
			choose(config, on, chosen);
	}
}

static int choose_named(const struct config *config, char *const *names, bool *chosen, struct error *err)
{
	for (char *const *name = names; *name; name++) {
		size_t i = index_of(config, *name);
		if (i == config->n_services) {
			cleanup_buffer struct buffer known = BUFFER_INIT;
			for (size_t k = 0; k < config->n_services; k++)
				buffer_printf(&known, "%s%s", k ? ", " : "", config->services[k].name);
			error_set(err, ERROR_SERVICE_UNKNOWN, "there is no service '%s' in %s", *name, config->file);
			if (!known.len)
				return error_hint(err, "the file names no services");
			return error_hint(err, "the file names: %s", buffer_str(&known));
		}
		choose(config, i, chosen);
	}
	return 0;
}

/* Of which no instance is wanted, and that were not named themselves: as for docker compose nobody waits for them, and what they need is started. */
static void leave_out_empty(const struct config *config, char *const *names, char *const *also, bool *chosen)
{
	for (size_t i = 0; i < config->n_services; i++) {
		const struct config_service *s = &config->services[i];
		if (s->no_instances && !strv_contains(names, s->name) && !strv_contains(also, s->name))
			chosen[i] = false;
	}
}

int plan_select(const struct config *config, const struct plan_selection *selection, bool *ret, bool *named,
                struct error *err)
{
	cleanup_free bool *chosen = xcalloc(config->n_services, sizeof *chosen);
	char *const *names = selection->names, *const *profiles = selection->profiles ? selection->profiles : config->profiles;
	if (!names && !selection->all)
		names = config->service_set;
	int r = names ? choose_named(config, names, chosen, err) : 0;
	if (r == 0 && selection->also)
		r = choose_named(config, selection->also, chosen, err);
	if (r < 0)
		return r;
	leave_out_empty(config, names, selection->also, chosen);
	if (named)
		memcpy(named, chosen, config->n_services * sizeof *chosen);
	for (size_t i = 0; !selection->names && i < config->n_services; i++) {
		const struct config_service *s = &config->services[i];
		if (s->is_copy || s->no_instances)
			continue;
		bool by_default = !names && (selection->all || !s->has_build) && config_in_profiles(s, profiles);
		if (by_default || config_has_profile_of(s, selection->profiles))
			choose(config, i, chosen);
	}
	leave_out_empty(config, names, selection->also, chosen);
	memcpy(ret, chosen, config->n_services * sizeof *chosen);
	return 0;
}

struct walk {
	const struct config *config;
	bool *left;   /* walked to the end without a circle */
	size_t *path; /* from where the walk began to where it is */
	size_t depth;
};

static bool find_circle(struct walk *w, size_t i, struct buffer *circle)
{
	const struct config_service *s = &w->config->services[i];
	size_t from = 0;
	while (from < w->depth && w->path[from] != i)
		from++;
	if (from < w->depth) {
		for (; from < w->depth; from++)
			buffer_printf(circle, "%s -> ", w->config->services[w->path[from]].name);
		buffer_adds(circle, s->name);
		return true;
	}
	w->path[w->depth++] = i;
	for (size_t d = 0; d < s->n_depends_on; d++) {
		size_t on = index_of(w->config, s->depends_on[d].service);
		if (on < w->config->n_services && !w->left[on] && find_circle(w, on, circle))
			return true;
	}
	w->left[i] = true;
	w->depth--;
	return false;
}

int plan_check_circles(const struct config *config, struct error *err)
{
	cleanup_free bool *left = xcalloc(config->n_services, sizeof *left);
	cleanup_free size_t *path = xcalloc(config->n_services, sizeof *path);
	cleanup_buffer struct buffer circle = BUFFER_INIT;
	struct walk w = {config, left, path, 0};
	for (size_t i = 0; i < config->n_services; i++)
		if (!left[i] && find_circle(&w, i, &circle)) {
			error_set(err, ERROR_CONFIG_INVALID, "%s:%u:%u: services depend on each other in a circle: %s",
			          config->file, config->services[i].line, config->services[i].column, buffer_str(&circle));
			return error_hint(err, "remove one of these depends_on");
		}
	return 0;
}
