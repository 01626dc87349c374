/* A container of its own, in the environment's network: made for one program, and gone with it. */
#include <stdlib.h>
#include <string.h>

#include "backends/backends.h"
#include "backends/engine_attachment.h"
#include "backends/engine_view.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"

#define REMOVE_MS 30000

/* ---- what it needs: its image, and the network ---- */

struct need {
	const struct attachment_spec *spec;
	unsigned open; /* that are not there yet */
	struct error failed;
};

static void on_had(void *arg, const struct error *err)
{
	struct need *n = arg;
	n->open--;
	if (err && !error_is_set(&n->failed))
		error_copy(&n->failed, err);
}

static void on_changed(void *arg, const struct instance *instance)
{
}

static void on_progress(void *arg, const char *service, const json_t *progress)
{
	const struct need *n = arg;
	if (n->spec->container->progress)
		n->spec->container->progress(n->spec->container->arg, progress);
}

static void on_closed(void *arg)
{
	*(bool *)arg = true;
}

/* By the same means as for a service, on a loop of its own. */
static int have_needs(const struct attachment_spec *spec, const char *url, struct error *err)
{
	uv_loop_t loop;
	struct backend *b = NULL;
	struct need n = {spec, 2, ERROR_INIT};
	bool closed = false;
	const struct backend_params params = {.loop = &loop, .target = url, .address = url, .namespace_ = spec->namespace_, .workspace = spec->workspace,
	                                      .workspace_root = "/", .state_dir = spec->state_dir, .changed = on_changed, .progress = on_progress, .changed_arg = &n};
	const struct service_spec wanted = {.name = "run", .image = spec->container->image};
	uv_loop_init(&loop);
	int r = backend_open(&params, &b, err);
	if (r < 0) {
		uv_loop_close(&loop);
		return r;
	}
	struct engine_plan *plan = engine_plan_new((struct engine *)b, &wanted);
	engine_network_ensure((struct engine *)b, on_had, &n);
	engine_image_ensure((struct engine *)b, plan, NULL, on_had, &n);
	while (n.open)
		uv_run(&loop, UV_RUN_ONCE);
	engine_plan_free(plan);
	backend_close(b, on_closed, &closed);
	uv_run(&loop, UV_RUN_DEFAULT);
	uv_loop_close(&loop);
	if (error_is_set(&n.failed))
		r = error_is_set(&n.failed) ? -n.failed.err : 0;
	if (r < 0 && err)
		error_move(err, &n.failed);
	error_release(&n.failed);
	return r;
}

/* ---- what it is ---- */

/* Rootless, "root" inside is the user outside; Podman can map him to himself. */
static int look_at_engine(struct engine_attachment *s, bool *rootless, bool *podman, struct error *err)
{
	cleanup_reply struct engine_reply info = {0, NULL}, version = {0, NULL};
	int r = engine_attachment_call(s, "GET", "/info", NULL, &info, err);
	if (r == 0)
		r = engine_attachment_call(s, "GET", "/version", NULL, &version, err);
	size_t i;
	json_t *item;
	*rootless = json_is_true(json_object_get(info.json, "Rootless")); /* Podman's word; Docker's: */
	json_array_foreach (json_object_get(info.json, "SecurityOptions"), i, item)
		*rootless |= json_string_value(item) && strstr(json_string_value(item), "name=rootless");
	json_array_foreach (json_object_get(version.json, "Components"), i, item) {
		const char *name = json_string_value(json_object_get(item, "Name"));
		*podman |= name && strstr(name, "Podman");
	}
	return r;
}

static json_t *mounts(const struct attachment_spec *spec)
{
	json_t *list = json_array();
	for (char *const *path = spec->container->binds; path && *path; path++)
		json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "Type", "bind", "Source", *path, "Target", *path));
	return list;
}

static json_t *description(const struct attachment_spec *spec, bool rootless, bool podman, bool init)
{
	cleanup_free char *own = xasprintf("%u:%u", (unsigned)spec->container->uid, (unsigned)spec->container->gid);
	const char *user = spec->user ? spec->user : rootless && !podman ? "0:0" : own;
	json_t *host = json_pack("{s:s, s:o, s:[s], s:{s:s}, s:b}", "NetworkMode", spec->namespace_, "Mounts", mounts(spec), "SecurityOpt", "no-new-privileges",
	                         "RestartPolicy", "Name", "no", "Init", (int)init);
	if (rootless && podman)
		json_object_set_new(host, "UsernsMode", json_string("keep-id"));
	cleanup_free char *owner = attachment_owner();
	json_t *labels = json_pack("{s:s, s:s, s:s, s:s}", ENGINE_LABEL_MANAGED, "true", ENGINE_LABEL_NAMESPACE, spec->namespace_, ENGINE_LABEL_WORKSPACE,
	                           spec->workspace ? spec->workspace : "", ENGINE_LABEL_RUN, owner);
	json_t *body = json_pack("{s:s, s:s, s:b, s:b, s:b, s:b, s:b, s:b, s:o, s:o, s:o}", "Image", spec->container->image, "User", user, "Tty", (int)spec->terminal,
	                         "OpenStdin", true, "StdinOnce", true, "AttachStdin", true, "AttachStdout", true, "AttachStderr", true, "Env",
	                         engine_attachment_env(spec, NULL), "Labels", labels, "HostConfig", host);
	json_t *words = engine_attachment_words(spec->argv);
	if (!words || !body) {
		json_decref(words);
		json_decref(body);
		return NULL;
	}
	if (*spec->argv)
		json_object_set_new(body, "Cmd", words);
	else
		json_decref(words);
	if (spec->directory)
		json_object_set_new(body, "WorkingDir", json_string(spec->directory));
	return body;
}

/* ---- its life ---- */

static void discard(struct engine_attachment *s)
{
	cleanup_free char *path = s->container ? xasprintf("/containers/%s?force=1&v=1", s->container) : NULL;
	cleanup_reply struct engine_reply reply = {0, NULL};
	if (path)
		engine_ask(&s->target, "DELETE", path, NULL, REMOVE_MS, &reply, NULL);
	free(move_ptr(s->container));
	free(move_ptr(s->program));
}

static int make(struct engine_attachment *s, const struct attachment_spec *spec, bool rootless, bool podman, bool init, struct error *err)
{
	cleanup_free char *path = xasprintf("/containers/create?name=%s-run-%llx", spec->namespace_, (unsigned long long)now_wall_ms() << 16 | (unsigned)(getpid() & 0xffff));
	cleanup_reply struct engine_reply made = {0, NULL};
	json_t *body = description(spec, rootless, podman, init);
	if (!body)
		return error_set(err, ERROR_USAGE, ENGINE_NOT_UTF8);
	int r = engine_attachment_call(s, "POST", path, body, &made, err);
	json_decref(body);
	const char *id = json_string_value(json_object_get(made.json, "Id"));
	if (r == 0) {
		s->container = xstrdup(id ? id : "");
		s->program = xasprintf("/containers/%s", s->container);
	}
	return r;
}

/* An engine in a virtual machine, or in a mount namespace that is older than a mount, binds what lies beneath that, and says nothing. Podman
 * cannot be asked before the start, and is on this machine. */
static int check_seen(struct engine_attachment *s, const char *path, struct error *err)
{
	cleanup_free char *escaped = path ? engine_escape(path) : NULL, *stat = xasprintf("%s/archive?path=%s", s->program, escaped ? escaped : "");
	cleanup_reply struct engine_reply reply = {0, NULL};
	if (!path || engine_ask(&s->target, "HEAD", stat, NULL, ATTACHMENT_CALL_MS, &reply, NULL) || reply.status != 404)
		return 0;
	error_set(err, ERROR_PERMISSION, "the engine at %s does not see %s: it is in a virtual machine, or was started where this mount is not seen", s->target.url, path);
	return error_hint(err, "restart the engine, or do without a mount: ajj detach, then ajj up --plain");
}

/* Its streams before it starts, or its first words are lost. */
static int make_and_start(struct engine_attachment *s, const struct attachment_spec *spec, bool rootless, bool podman, bool init, struct error *err)
{
	int r = make(s, spec, rootless, podman, init, err);
	cleanup_free char *attach = xasprintf("%s/attach?stream=1&stdin=1&stdout=1&stderr=1&detachKeys=%s", s->program ? s->program : "", ATTACHMENT_DETACH_KEYS_URL);
	cleanup_free char *start = xasprintf("%s/start", s->program ? s->program : "");
	if (r == 0 && !podman)
		r = check_seen(s, spec->container->seen, err);
	if (r == 0)
		r = engine_attachment_connect(s, attach, NULL, err);
	if (r == 0)
		r = engine_attachment_run(s, start, err);
	if (r < 0) {
		http_stream_free(move_ptr(s->stream));
		discard(s);
	}
	return r;
}

/* Something that is process 1, hands on signals and reaps: where the engine has such a program (docker-init, catatonit). */
static int run_with_init(struct engine_attachment *s, const struct attachment_spec *spec, bool rootless, bool podman, struct error *err)
{
	cleanup_error struct error why = ERROR_INIT;
	int r = make_and_start(s, spec, rootless, podman, true, &why);
	if (r < 0 && why.message && (strstr(why.message, "docker-init") || strstr(why.message, "catatonit") || strstr(why.message, "init binary")))
		return make_and_start(s, spec, rootless, podman, false, err);
	if (r < 0 && err)
		error_move(err, &why);
	return r;
}

static int one_off_wait(struct attachment *base, unsigned timeout_ms, int *ret_code, struct error *err)
{
	cleanup_error struct error why = ERROR_INIT;
	int r = engine_attachment_wait(base, "State", timeout_ms, ret_code, &why);
	if (r < 0 && r != -EAGAIN && why.code != ERROR_BACKEND_UNREACHABLE)
		return error_set(err, ERROR_SERVICE_FAILED, "its container was removed meanwhile");
	if (r < 0 && r != -EAGAIN && err)
		error_move(err, &why);
	return r;
}

static int one_off_signal(struct attachment *base, int signo)
{
	struct engine_attachment *s = (struct engine_attachment *)base;
	cleanup_free char *path = xasprintf("%s/kill?signal=%d", s->program, signo);
	return engine_attachment_call(s, "POST", path, NULL, NULL, NULL) ? -EOPNOTSUPP : 0;
}

static void one_off_close(struct attachment *base)
{
	discard((struct engine_attachment *)base);
	engine_attachment_release((struct engine_attachment *)base);
}

const struct attachment_ops engine_one_off_attachment = {
	.fds = engine_attachment_fds,
	.read = engine_attachment_read,
	.write = engine_attachment_write,
	.end_input = engine_attachment_end_input,
	.resize = engine_attachment_resize,
	.signal = one_off_signal,
	.wait = one_off_wait,
	.close = one_off_close,
};

static int check_binds(const struct engine_attachment *s, const struct attachment_spec *spec, struct error *err)
{
	for (char *const *path = spec->container->binds; path && *path; path++) {
		if (!engine_view_is_closed("/proc/self/mounts", *path, engine_view_uid(s->target.socket_path)))
			continue;
		error_set(err, ERROR_PERMISSION, "the engine at %s, which is another user, may not look into %s", s->target.url, *path);
		return error_hint(err, "%s", engine_view_mend(false)); /* .aether is a mount in any case */
	}
	return 0;
}

int engine_one_off(const struct attachment_spec *spec, struct attachment **ret, struct error *err)
{
	cleanup_engine_attachment struct engine_attachment *s = xcalloc(1, sizeof *s);
	bool rootless = false, podman = false;
	s->base.ops = &engine_one_off_attachment;
	s->what = xasprintf("a container of %s", spec->container->image);
	s->terminal = spec->terminal;
	if (!spec->address)
		return error_set(err, ERROR_SERVICE_FAILED, "it is not known which engine the environment is on");
	int r = engine_target_resolve(spec->address, spec->address, &s->target, err);
	if (r == 0)
		r = check_binds(s, spec, err);
	if (r < 0 || spec->only_check)
		return r;
	r = have_needs(spec, s->target.url, err);
	if (r == 0)
		r = look_at_engine(s, &rootless, &podman, err);
	if (r == 0 && spec->container->making)
		spec->container->making(spec->container->arg);
	if (r == 0)
		r = run_with_init(s, spec, rootless, podman, err);
	if (r < 0)
		return r;
	if (spec->terminal)
		engine_attachment_resize(&s->base, spec->rows, spec->columns);
	*ret = &move_ptr(s)->base;
	return 0;
}

/* ---- what callers that were killed have left ---- */

int engine_sweep_attached(const char *address, const char *namespace_, bool remove, char ***found, struct error *err)
{
	cleanup_engine_attachment struct engine_attachment *s = xcalloc(1, sizeof *s);
	cleanup_reply struct engine_reply list = {0, NULL};
	cleanup_free char *path = engine_labelled("/containers/json?all=1&", namespace_);
	s->what = xstrdup("what is left of ajj run");
	int r = engine_target_resolve(address, address, &s->target, err);
	if (r == 0)
		r = engine_attachment_call(s, "GET", path, NULL, &list, err);
	size_t i;
	json_t *item;
	json_array_foreach (list.json, i, item) {
		const char *owner = engine_label(json_object_get(item, "Labels"), ENGINE_LABEL_RUN), *id = json_string_value(json_object_get(item, "Id"));
		const char *name = json_string_value(json_array_get(json_object_get(item, "Names"), 0));
		if (!owner || !id || !attachment_owner_is_gone(owner))
			continue;
		if (found)
			strv_push(found, xstrdup(name ? name + (*name == '/') : id));
		cleanup_free char *one = xasprintf("/containers/%s?force=1&v=1", id);
		if (remove && r == 0)
			r = engine_attachment_call(s, "DELETE", one, NULL, NULL, err);
	}
	return r;
}
