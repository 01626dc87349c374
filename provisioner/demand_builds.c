/* What `up` does before it starts or stops anything: the images of what it needs are built, and those of what is to take a running container's place
 * pulled, so that one that cannot be had leaves running what runs. Demands of readers do not come here: an image of theirs is had by the start, where there is none yet. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "provisioner/environment_private.h"

struct demand_build {
	struct demand_build *next;
	struct demand *d; /* NULL: it has ended before */
	struct environment *e;
	char *service;
};

static void unlink_build(struct demand_build *b)
{
	struct demand_build **at = &b->d->builds;
	while (*at != b)
		at = &(*at)->next;
	*at = b->next;
}

static void fail(struct demand *d, const char *service, const struct error *err)
{
	struct apply_service *s = err->code == ERROR_CANCELED ? NULL : apply_find(d->e->apply, service);
	bool was_failed = s && s->state == SERVICE_FAILED;
	if (s && apply_image_failed(s, err))
		d->known = !was_failed; /* told when it failed */
	if (d->e->next && err->code != ERROR_CANCELED)
		environment_notice_failure(d->e, err);
	demand_end(d, err);
}

static void on_built(void *arg, const struct error *err, bool differs)
{
	struct demand_build *b = arg;
	struct demand *d = b->d;
	cleanup_error struct error why = ERROR_INIT;
	if (d)
		unlink_build(b);
	if (d && err) {
		error_copy(&why, err);
		if (why.code != ERROR_CANCELED)
			error_prefix(&why, "service %s", b->service);
		error_detail(&why, "service", json_string(b->service));
		fail(d, b->service, &why);
	} else if (d) {
		if (differs)
			strv_push(&d->renewed, xstrdup(b->service));
		if (!d->builds)
			demand_begin_anew(d);
	}
	environment_wake(b->e);
	free(b->service);
	free(b);
}

struct model *demand_model(const struct demand *d)
{
	return d->apply && d->e->next ? d->e->next : d->e->model;
}

/* What it needs comes first: a failure of that is what whoever asked is told. */
static bool is_had(const struct demand *d, const struct model_service *s, enum images which)
{
	const struct apply_service *now = apply_find(d->e->apply, s->config->name);
	bool needed = strv_contains(d->needed, s->config->name), replaced = now && apply_is_replaced(now, s) && !error_is_set(&s->unsupported);
	return needed == (which == IMAGES_NEEDED) && (replaced || (needed && s->spec.build));
}

static void have(struct demand *d, enum images which)
{
	const struct model *m = demand_model(d);
	enum build_when when = which == IMAGES_BESIDE ? BUILD_MISSING : d->build_always ? BUILD_ALWAYS : BUILD_CHANGED;
	for (size_t i = 0; i < m->n_services; i++) {
		const struct model_service *s = &m->services[i];
		if (!is_had(d, s, which))
			continue;
		struct demand_build *b = xcalloc(1, sizeof *b);
		*b = (struct demand_build){d->builds, d, d->e, xstrdup(s->config->name)};
		d->builds = b;
		backend_build(d->e->backend, &s->spec, when, on_built, b);
	}
}

bool demand_builds(struct demand *d)
{
	while (d->apply && !d->builds && d->images < IMAGES_HAD)
		have(d, d->images++);
	return !d->builds;
}

void demand_builds_give_up(struct demand *d)
{
	struct demand_build *next, *b = d->builds;
	d->builds = NULL;
	for (; b; b = next) {
		next = b->next;
		b->d = NULL;
		if (d->e->backend)
			backend_build_cancel(d->e->backend, b->service, b);
	}
}

void demand_builds_anew(struct environment *e)
{
	for (struct demand *d = e->demands; d; d = d->next) {
		if (!d->apply || d->admitted || d->finished)
			continue;
		demand_builds_give_up(d);
		strv_free(move_ptr(d->renewed));
		d->images = IMAGES_NEEDED;
	}
}

void environment_command_forsaken(struct environment *e, const void *arg)
{
	cleanup_error struct error err = ERROR_INIT;
	error_set_errno(&err, ERROR_CANCELED, ECANCELED, "whoever wanted it built does not wait for it any more");
	for (struct demand *d = e->demands; d; d = d->next)
		if (d->arg == arg && d->command && d->builds)
			demand_end(d, &err);
	environment_wake(e);
}

bool demand_is_building(const struct demand *d)
{
	if (d->builds)
		return true;
	for (char **name = d->needed; name && *name; name++) {
		const struct apply_service *s = apply_find(d->e->apply, *name);
		if (s && json_object_get(s->progress, "building"))
			return true;
	}
	return false;
}
