/* Building: one job an image name, through looking (is it there?), packing (which tells whether it must be), naming (an equal one is there), pulling
 * (what it begins with) and the build itself. Jobs of one environment that go into the same image go one after the other: the second finds the
 * first one's. Packing reads a whole directory in a worker, and is done for one at a time, so that others are not kept waiting for theirs.
 *
 * BuildKit is asked only where the classic builder does not do: without a session, which is another protocol, it takes no credentials, no
 * `# syntax=`, and where images are kept by containerd no context (https://github.com/moby/moby/issues/47717). */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/engine.h"
#include "backends/engine_auth.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"

#define BUILD_MS (3600u * 1000) /* all of one */
#define BUILD_SILENCE_S 900     /* of one that says nothing: a compiler may be at it */
#define HEREDOC_API_MIN 42      /* Docker 23: in the Dockerfile of what it has in it */

enum stage { STAGE_LOOKING, STAGE_WAITING, STAGE_PACKING, STAGE_BUILDING };

struct build_wait {
	struct build_wait *next;
	struct engine *e;
	engine_build_done *done;
	void *arg;
	const void *token;
};

struct build_job {
	struct build_job *next;
	struct engine *e;
	char *service, *image;
	struct build_spec *spec;
	enum build_when when;
	enum stage stage;
	struct build_wait *waits;
	char *id; /* of what has the name */
	char *known_key, *known_context, *known_file; /* its labels; NULL: it has none, somebody else has built it */
	/* packing */
	uv_work_t work;
	struct build_context *context;
	int fd;
	bool same;
	uint64_t known_stamp;
	char known_digest[SHA256_HEX];
	char *auth;
	struct error auth_failed; /* why there is none, though docker's configuration names somebody to ask */
	struct error failed;
	/* building */
	size_t pulled;
	bool buildkit, canceled;
	struct http_call *call;
	struct build_progress progress;
	int log_fd;
	unsigned told_step;
	bool told;
};

/* What an image's context looked like, and its digest: reading all of it again and again is for nothing. */
struct build_known {
	struct build_known *next;
	char *image;
	uint64_t stamp;
	char digest[SHA256_HEX];
};

static void turn(struct engine *e);

/* ---- what is told ---- */

static void tell(struct build_job *j)
{
	const struct build_progress *p = &j->progress;
	if (!j->e->progress || j->e->closing)
		return;
	json_t *json = json_pack("{s:s, s:b, s:i, s:i, s:s}", "image", j->image, "building", true, "step", (int)p->step, "steps", (int)p->steps, "text",
	                         p->what ? p->what : j->stage == STAGE_BUILDING ? "sending the context" : "reading the context");
	if (!json)
		return;
	j->told = true;
	j->told_step = p->step;
	j->e->progress(j->e->changed_arg, j->service, json);
	json_decref(json);
}

static char *log_path(const struct build_job *j)
{
	return xasprintf("%s/services/%s/build.log", j->e->state_dir, j->service);
}

static void open_log(struct build_job *j)
{
	cleanup_free char *dir = xasprintf("%s/services/%s", j->e->state_dir, j->service), *path = log_path(j);
	if (!dir_make(AT_FDCWD, dir, 0700))
		j->log_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	j->progress.log_fd = j->log_fd;
}

static void add_lines(const struct build_job *j, struct error *err)
{
	const struct build_progress *p = &j->progress;
	unsigned n = p->n_lines < BUILD_LINES_MAX ? p->n_lines : BUILD_LINES_MAX;
	json_t *lines = json_array();
	for (unsigned i = p->n_lines - n; i < p->n_lines; i++)
		json_array_append_new(lines, json_string(p->lines[i % BUILD_LINES_MAX]));
	error_detail(err, "log", lines);
}

static void explain(const struct build_job *j, const char *text, struct error *err)
{
	const struct build_progress *p = &j->progress;
	cleanup_free char *step = p->steps ? xasprintf(", at step %u of %u (%.200s)", p->step, p->steps, p->what) : xstrdup(""), *log = log_path(j);
	const char *last = p->n_lines ? p->lines[(p->n_lines - 1) % BUILD_LINES_MAX] : "";
	bool full = strcasestr(text, "no space left on device");
	const char *auth = error_is_set(&j->auth_failed) ? j->auth_failed.message : "";
	error_set(err, full ? ERROR_NO_SPACE : ERROR_BUILD_FAILED, "the image could not be built%s: %s%s%s%s%.300s", step, text, *auth ? "; " : "", auth, *last ? "; its output ends: " : "", last);
	if (j->buildkit && strstr(text, "403"))
		error_hint(err, "this Dockerfile needs BuildKit (%s), and an engine that keeps its images in containerd builds so only for docker's own program: `docker compose build %s`; what it "
		                "builds is used",
		           j->context->file.buildkit, j->service);
	else
		error_hint(err, "all of its output: %s", log);
	add_lines(j, err);
}

/* ---- life ---- */

static void unlink_job(struct build_job *j)
{
	for (struct build_job **at = &j->e->builds; *at; at = &(*at)->next)
		if (*at == j) {
			*at = j->next;
			return;
		}
}

static void job_end(struct build_job *j, const struct error *err)
{
	struct engine *e = j->e;
	struct build_wait *next, *w = j->waits;
	unlink_job(j);
	if (j->told && !e->closing)
		e->progress(e->changed_arg, j->service, NULL);
	for (; w; w = next) {
		next = w->next;
		w->done(w->arg, err, err ? NULL : j->id);
		engine_end(e);
		free(w);
	}
	build_context_free(j->context);
	build_spec_free(j->spec);
	build_progress_release(&j->progress);
	error_release(&j->auth_failed);
	error_release(&j->failed);
	if (j->fd >= 0)
		close(j->fd);
	if (j->log_fd >= 0)
		close(j->log_fd);
	free(j->service);
	free(j->image);
	free(j->id);
	free(j->known_key);
	free(j->known_context);
	free(j->known_file);
	free(j->auth);
	free(j);
	turn(e);
	engine_end(e);
}

static bool is_over(struct build_job *j)
{
	cleanup_error struct error closing = ERROR_INIT;
	if (!j->e->closing && !j->canceled)
		return false;
	error_set(&closing, ERROR_CANCELED, j->canceled ? "the build was given up" : "the backend is being closed");
	job_end(j, &closing);
	return true;
}

/* ---- the end of a build: what has the name now ---- */

static void on_named(void *arg, const struct error *err, int status, const json_t *json)
{
	struct build_job *j = arg;
	const char *id = json_string_value(json_object_get(json, "Id"));
	cleanup_error struct error none = ERROR_INIT;
	if (err || !id) {
		error_set(&none, ERROR_BUILD_FAILED, "the engine has built %s and does not know it: %s", j->image, err ? err->message : "it has no ID");
		job_end(j, &none);
		return;
	}
	if (j->id && !engine_image_is(j->id, id))
		strv_push(&j->e->stale_images, move_ptr(j->id));
	free(j->id);
	j->id = xstrdup(id);
	job_end(j, NULL);
}

static void look_at_name(struct build_job *j, engine_answer *done)
{
	cleanup_free char *name = engine_escape(j->image), *path = xasprintf("/images/%s/json", name);
	engine_call(j->e, "GET", path, NULL, ENGINE_CALL_MS, done, j);
}

static bool on_data(void *arg, int status, const char *data, size_t len)
{
	struct build_job *j = arg;
	bool more = build_progress_feed(&j->progress, data, len);
	if (j->progress.step != j->told_step) /* nothing may come after it for long */
		tell(j);
	return more;
}

static void on_built(void *arg, const struct error *err, int status, const json_t *json)
{
	struct build_job *j = arg;
	cleanup_error struct error why = ERROR_INIT;
	j->call = NULL;
	build_progress_end(&j->progress);
	if (is_over(j))
		return;
	if (err && !status && err->err != ETIMEDOUT)
		error_copy(&why, err);
	else if (err)
		explain(j, err->err == ETIMEDOUT ? "it took too long, or said nothing for too long" : err->message, &why);
	else if (error_is_set(&j->progress.failed))
		explain(j, j->progress.failed.message, &why);
	if (error_is_set(&why)) {
		log_warning("engine", "%s: %s", j->image, why.message);
		job_end(j, &why);
		return;
	}
	look_at_name(j, on_named);
}

static void begin_build(struct build_job *j)
{
	struct stat st;
	cleanup_free char *path = engine_build_path(j->e, j->context, j->image, j->buildkit);
	cleanup_free char *auth = j->auth && !j->buildkit ? xasprintf("X-Registry-Config: %s", j->auth) : NULL;
	char *const headers[] = {auth, NULL};
	if (is_over(j))
		return;
	if (fstat(j->fd, &st)) {
		cleanup_error struct error err = ERROR_INIT;
		error_set_errno(&err, ERROR_BUILD_FAILED, errno, "its context");
		job_end(j, &err);
		return;
	}
	open_log(j);
	tell(j);
	log_info("engine", "building %s%s, %lld bytes", j->image, j->buildkit ? " by BuildKit" : "", (long long)st.st_size);
	j->call = engine_upload(j->e, path, j->fd, (size_t)st.st_size, headers, BUILD_MS, BUILD_SILENCE_S, on_data, on_built, j);
}

/* ---- what it begins with ---- */

static void pull_next(struct build_job *j);

/* One that cannot be had may be a name that BuildKit never looks for: it says so itself. */
static void on_pulled(void *arg, const struct error *err)
{
	struct build_job *j = arg;
	if (err)
		log_info("engine", "%s: %s", j->image, err->message);
	pull_next(j);
}

static void pull_next(struct build_job *j)
{
	char *const image = j->buildkit && j->context->file.images ? j->context->file.images[j->pulled] : NULL;
	if (is_over(j))
		return;
	if (!image) {
		begin_build(j);
		return;
	}
	j->pulled++;
	const struct engine_plan plan = {
	    .service = j->service, .image = image, .platform = (char *)j->spec->platform, .pull = j->spec->options->pull ? PULL_ALWAYS : PULL_MISSING};
	engine_image_ensure(j->e, &plan, NULL, on_pulled, j);
}

/* ---- an equal one ---- */

static void on_tagged(void *arg, const struct error *err, int status, const json_t *json)
{
	struct build_job *j = arg;
	if (err && status != 201) /* it has just gone; Podman's success has a body that is no JSON */
		pull_next(j);
	else
		look_at_name(j, on_named);
}

static void on_equals(void *arg, const struct error *err, int status, const json_t *json)
{
	struct build_job *j = arg;
	const char *id = NULL;
	size_t i;
	json_t *image;
	json_array_foreach (json, i, image) /* what others build on it has its labels, too */
		if (engine_image_is_built(image, j->spec->key))
			id = json_string_value(json_object_get(image, "Id"));
	if (is_over(j))
		return;
	if (!id) {
		pull_next(j);
		return;
	}
	cleanup_free char *path = xasprintf("/images/%s/tag?repo=%s&tag=latest", id, j->image);
	log_info("engine", "%s is equal to one that is there: %s", j->image, id);
	engine_call(j->e, "POST", path, NULL, ENGINE_CHANGE_MS, on_tagged, j);
}

/* In another workspace, or for another service, it may have been built: the same context, with the same options. Of two labels Podman 4.3 finds none. */
static void look_for_equal(struct build_job *j)
{
	cleanup_free char *context = xasprintf(ENGINE_LABEL_CONTEXT "=%s", j->context->digest);
	json_t *filters = json_pack("{s:[s]}", "label", context);
	cleanup_free char *text = json_dumps(filters, JSON_COMPACT), *escaped = engine_escape(text);
	cleanup_free char *path = xasprintf("/images/json?filters=%s", escaped);
	json_decref(filters);
	engine_call(j->e, "GET", path, NULL, ENGINE_CALL_MS, on_equals, j);
}

/* ---- packing ---- */

/* Is it what was built? Of a service that sees its context anyway the Dockerfile alone counts. */
static bool is_same(struct build_job *j)
{
	if (j->when != BUILD_CHANGED || !j->id || (j->known_key && strcmp(j->known_key, j->spec->key)))
		return false;
	if (!j->known_key)
		return true; /* somebody else's doing, and wish */
	if (j->spec->live)
		return j->known_file && !strcmp(j->known_file, j->context->file_digest);
	if (*j->known_digest && j->known_stamp == j->context->stamp)
		memcpy(j->context->digest, j->known_digest, sizeof j->known_digest);
	else if (build_context_pack(j->context, -1, &j->failed))
		return false;
	return j->known_context && !strcmp(j->known_context, j->context->digest);
}

static struct build_known *known_of(struct engine *e, const char *image)
{
	struct build_known *k = e->known_contexts;
	while (k && strcmp(k->image, image))
		k = k->next;
	return k;
}

static void remember(struct build_job *j)
{
	struct build_known *k = known_of(j->e, j->image);
	if (!j->context || !*j->context->digest || !j->context->settled)
		return;
	if (!k) {
		k = xcalloc(1, sizeof *k);
		*k = (struct build_known){.next = j->e->known_contexts, .image = xstrdup(j->image)};
		j->e->known_contexts = k;
	}
	k->stamp = j->context->stamp;
	memcpy(k->digest, j->context->digest, sizeof k->digest);
}

void engine_builds_free(struct engine *e)
{
	struct build_known *next, *k = move_ptr(e->known_contexts);
	for (; k; k = next) {
		next = k->next;
		free(k->image);
		free(k);
	}
	strv_free(move_ptr(e->stale_images));
}

static int open_archive(struct build_job *j)
{
	cleanup_free char *name = xasprintf("%s/build-XXXXXX", j->e->state_dir);
	j->fd = open(j->e->state_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (j->fd < 0) {
		j->fd = mkostemp(name, O_CLOEXEC);
		if (j->fd >= 0)
			unlink(name);
	}
	return j->fd < 0 ? error_set_errno(&j->failed, ERROR_BUILD_FAILED, errno, "%s", j->e->state_dir) : 0;
}

static void pack_work(uv_work_t *work)
{
	struct build_job *j = work->data;
	const struct engine_places places = {.run = ""};
	engine_proxies(&places, (struct keyvals *)&j->spec->options->args); /* the copy is the job's; they make no other image */
	if (build_context_open(j->spec, &j->context, &j->failed))
		return;
	j->same = is_same(j);
	if (j->same || error_is_set(&j->failed) || open_archive(j) || build_context_pack(j->context, j->fd, &j->failed))
		return;
	j->auth = engine_auth_config(j->context->file.images, &places, &j->auth_failed);
}

/* What its Dockerfile needs and cannot be had here, in words. */
static bool is_refused(const struct build_job *j, struct error *err)
{
	const struct build_file *f = &j->context->file;
	if (!j->buildkit)
		return false;
	if (f->frontend)
		error_set(err, ERROR_BUILD_FAILED, "its Dockerfile wants a frontend of its own (# syntax=), which is not supported");
	else if (f->heredocs && j->e->api < HEREDOC_API_MIN)
		error_set(err, ERROR_BUILD_FAILED, "its Dockerfile has heredocs (<<EOF), which this engine does not know: Docker 23 does");
	else
		return false;
	error_hint(err, "`docker compose build %s` builds it by docker's own program; what it builds is used", j->service);
	return true;
}

static void on_packed(uv_work_t *work, int status)
{
	struct build_job *j = work->data;
	cleanup_error struct error err = ERROR_INIT;
	struct engine *e = j->e;
	j->stage = STAGE_BUILDING;
	if (is_over(j))
		return;
	if (error_is_set(&j->failed)) {
		error_move(&err, &j->failed);
		job_end(j, &err);
		return;
	}
	remember(j);
	if (j->same) {
		job_end(j, NULL);
		return;
	}
	j->buildkit = !j->e->podman && j->context->file.buildkit;
	if (is_refused(j, &err))
		job_end(j, &err);
	else if (j->when == BUILD_ALWAYS || j->spec->options->no_cache || j->spec->options->tags)
		pull_next(j);
	else
		look_for_equal(j);
	turn(e);
}

/* ---- whose turn it is ---- */

static bool must_wait(const struct build_job *j)
{
	for (const struct build_job *o = j->e->builds; o; o = o->next)
		if (o != j && (o->stage == STAGE_PACKING || (o->stage == STAGE_BUILDING && !strcmp(o->spec->key, j->spec->key) && !strcmp(o->spec->context, j->spec->context))))
			return true;
	return false;
}

static void turn(struct engine *e)
{
	struct build_job *j = e->builds;
	while (j && (j->stage != STAGE_WAITING || must_wait(j)))
		j = j->next;
	if (!j || is_over(j))
		return;
	const struct build_known *known = known_of(e, j->image);
	if (known) {
		j->known_stamp = known->stamp;
		memcpy(j->known_digest, known->digest, sizeof known->digest);
	}
	j->stage = STAGE_PACKING;
	tell(j);
	j->work.data = j;
	uv_queue_work(e->base.loop, &j->work, pack_work, on_packed);
}

/* ---- looking ---- */

static char *label_of(const json_t *image, const char *key)
{
	return xstrdup(engine_label(json_object_get(json_object_get(image, "Config"), "Labels"), key));
}

static void on_looked(void *arg, const struct error *err, int status, const json_t *json)
{
	struct build_job *j = arg;
	if (err && status != 404) {
		job_end(j, err);
		return;
	}
	if (is_over(j))
		return;
	if (!err) {
		j->id = xstrdup(json_string_value(json_object_get(json, "Id")));
		j->known_key = label_of(json, ENGINE_LABEL_BUILD);
		j->known_context = label_of(json, ENGINE_LABEL_CONTEXT);
		j->known_file = label_of(json, ENGINE_LABEL_DOCKERFILE);
	}
	bool is_there = j->id && (!j->known_key || !strcmp(j->known_key, j->spec->key));
	if (is_there && j->when == BUILD_MISSING) {
		job_end(j, NULL);
		return;
	}
	j->stage = STAGE_WAITING;
	turn(j->e);
}

static struct build_job *job_new(struct engine *e, const char *service, const char *image, const struct build_spec *spec, enum build_when when)
{
	struct build_job *j = xcalloc(1, sizeof *j), **end = &e->builds;
	*j = (struct build_job){.e = e, .service = xstrdup(service), .image = xstrdup(image), .spec = build_spec_copy(spec), .when = when, .fd = -1, .log_fd = -1, .auth_failed = ERROR_INIT, .failed = ERROR_INIT,
	                        .progress = BUILD_PROGRESS_INIT};
	while (*end)
		end = &(*end)->next;
	*end = j;
	engine_begin(e);
	look_at_name(j, on_looked);
	return j;
}

/* A job that goes on takes who wants the same; who wants more of it, or of another configuration, comes after it. */
void engine_build_ensure(struct engine *e, const char *service, const char *image, const char *data, const struct build_spec *spec, enum build_when when, engine_build_done *done, void *arg, const void *token)
{
	struct build_wait *w = xcalloc(1, sizeof *w);
	struct build_job *j = e->builds;
	int r = data ? engine_record_image(e, data, image) : 0;
	if (r < 0)
		log_warning("engine", "%s: it will not be removed with the data: %s", image, strerror(-r));
	while (j && (strcmp(j->image, image) || strcmp(j->spec->key, spec->key) || j->when < when || j->canceled))
		j = j->next;
	if (!j)
		j = job_new(e, service, image, spec, when);
	*w = (struct build_wait){j->waits, e, done, arg, token};
	j->waits = w;
	engine_begin(e);
}

/* ---- giving up ---- */

static void given_up(void *arg)
{
	struct build_wait *w = arg;
	struct engine *e = w->e;
	cleanup_error struct error err = ERROR_INIT;
	error_set(&err, ERROR_CANCELED, "the build was given up");
	w->done(w->arg, &err, NULL);
	free(w);
	turn(e);
	engine_end(e);
}

bool engine_build_give_up(struct engine *e, const char *service, const void *token)
{
	for (struct build_job *j = e->builds; j; j = j->next)
		for (struct build_wait **at = &j->waits; *at; at = &(*at)->next) {
			struct build_wait *w = *at;
			if (w->token != token || strcmp(j->service, service))
				continue;
			*at = w->next;
			j->canceled = !j->waits;
			if (j->canceled && j->call)
				http_cancel(j->call);
			backend_defer(e->base.loop, given_up, w);
			return true;
		}
	return false;
}

/* ---- by itself, while the service runs on ---- */

struct by_itself {
	struct engine *e;
	char *container, *id;
	backend_build_done *done;
	void *arg;
};

static void by_itself_end(struct by_itself *b, const struct error *err, bool differs)
{
	struct engine *e = b->e;
	b->done(b->arg, err, differs);
	free(b->container);
	free(b->id);
	free(b);
	engine_end(e);
}

static void on_container(void *arg, const struct error *err, int status, const json_t *json)
{
	struct by_itself *b = arg;
	by_itself_end(b, err && status != 404 ? err : NULL, !err && !engine_image_is(json_string_value(json_object_get(json, "Image")), b->id));
}

static void on_ensured(void *arg, const struct error *err, const char *id)
{
	struct by_itself *b = arg;
	if (err) {
		by_itself_end(b, err, false);
		return;
	}
	cleanup_free char *path = xasprintf("/containers/%s/json", b->container);
	b->id = xstrdup(id);
	engine_call(b->e, "GET", path, NULL, ENGINE_CALL_MS, on_container, b);
}

static void on_there(void *arg, const struct error *err)
{
	by_itself_end(arg, err, false);
}

void engine_build(struct backend *backend, const struct service_spec *spec, enum build_when when, backend_build_done *done, void *arg)
{
	struct engine *e = (struct engine *)backend;
	struct by_itself *b = xcalloc(1, sizeof *b);
	*b = (struct by_itself){.e = e, .container = engine_container_name(e, spec->name), .done = done, .arg = arg};
	engine_begin(e);
	if (!spec->build) {
		struct engine_plan *plan = engine_plan_new(e, spec);
		engine_image_ensure(e, plan, NULL, on_there, b);
		engine_plan_free(plan);
		return;
	}
	engine_build_ensure(e, spec->name, spec->image, spec->data, spec->build, when, on_ensured, b, arg);
}
