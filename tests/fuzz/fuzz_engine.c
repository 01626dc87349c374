/* The readers of what a container engine says, over any bytes: the HTTP client beneath is replaced by one that answers each request with the next
 * record of the input. A record: a byte that chooses the status, a byte for the size of the pieces in which a stream comes, then the body up to the next 0xff. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/backend.h"
#include "backends/http.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"

#define SETTLE_MS 50
#define MESSAGE_MAX 4000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
	if (!holds)
		abort();
}

/* ---- the client ---- */

struct http {
	uv_loop_t *loop;
	struct http_call *calls;
	void (*closed)(void *arg);
	void *closed_arg;
};

struct http_call {
	struct http *h;
	struct http_call *next;
	bool version, canceled;
	http_data *data;
	http_done *done;
	void *arg;
};

static const uint8_t *input;
static size_t input_left;

static void end_call(struct http_call *c, const struct http_response *res)
{
	cleanup_error struct error err = ERROR_INIT;
	for (struct http_call **at = &c->h->calls; *at; at = &(*at)->next)
		if (*at == c) {
			*at = c->next;
			break;
		}
	if (c->canceled)
		error_set(&err, ERROR_CANCELED, "given up");
	else if (!res)
		error_set(&err, ERROR_BACKEND_UNREACHABLE, "nobody there");
	c->done(c->arg, error_is_set(&err) ? &err : NULL, error_is_set(&err) ? NULL : res);
	free(c);
}

/* Each piece of its exact size, so that a sanitizer sees a read behind it. */
static void stream(struct http_call *c, int status, const uint8_t *body, size_t len, size_t piece)
{
	while (len && !c->canceled) {
		size_t n = piece && piece < len ? piece : len;
		cleanup_free char *copy = xcalloc(1, n);
		memcpy(copy, body, n);
		if (!c->data(c->arg, status, copy, n))
			c->canceled = true;
		body += n;
		len -= n;
	}
}

static void answer(void *arg)
{
	static const int statuses[] = {200, 200, 200, 200, 200, 201, 204, 304, 404, 500, 0, 302};
	struct http_call *c = arg;
	int status = 0;
	const uint8_t *body = input, *end;
	size_t len = 0, piece = 0;
	if (c->version && !c->canceled) {
		static const char version[] = "{\"ApiVersion\":\"1.41\",\"MinAPIVersion\":\"1.12\"}";
		end_call(c, &(struct http_response){200, version, sizeof version - 1});
		return;
	}
	if (input_left >= 2 && !c->canceled) {
		end = memchr(input + 2, 0xff, input_left - 2);
		status = statuses[input[0] % (sizeof statuses / sizeof *statuses)];
		piece = input[1];
		body = input + 2;
		len = end ? (size_t)(end - body) : input_left - 2;
		input_left -= 2 + len + (end != NULL);
		input += 2 + len + (end != NULL);
	}
	cleanup_free char *copy = xcalloc(1, len + 1);
	memcpy(copy, body, len);
	bool streams = c->data && status >= 200 && status < 300;
	if (streams)
		stream(c, status, body, len, piece);
	end_call(c, status ? &(struct http_response){status, streams ? "" : copy, streams ? 0 : len} : NULL);
}

int http_new(const struct http_params *params, struct http **ret, struct error *err)
{
	*ret = xcalloc(1, sizeof **ret);
	(*ret)->loop = params->loop;
	return 0;
}

struct http_call *http_start(struct http *h, const struct http_request *request)
{
	struct http_call *c = xcalloc(1, sizeof *c);
	*c = (struct http_call){h, h->calls, !strcmp(request->path, "/version"), h->closed != NULL, request->data, request->done, request->arg};
	h->calls = c;
	backend_defer(h->loop, answer, c);
	return c;
}

void http_cancel(struct http_call *call)
{
	if (call)
		call->canceled = true;
}

static void close_when_empty(void *arg)
{
	struct http *h = arg;
	if (h->calls) {
		backend_defer(h->loop, close_when_empty, h);
		return;
	}
	h->closed(h->closed_arg);
	free(h);
}

void http_close(struct http *h, void (*closed)(void *arg), void *arg)
{
	h->closed = closed;
	h->closed_arg = arg;
	for (struct http_call *c = h->calls; c; c = c->next)
		c->canceled = true;
	backend_defer(h->loop, close_when_empty, h);
}

int http_wait(const struct http_params *params, const struct http_request *request, struct error *err)
{
	return error_set(err, ERROR_BACKEND_UNREACHABLE, "nobody there");
}

/* ---- a life ---- */

static unsigned open_calls;

static void take(const struct error *err)
{
	open_calls--;
	if (!err)
		return;
	require(err->code != ERROR_NONE && err->message && strlen(err->message) < MESSAGE_MAX);
	for (const char *c = err->message; *c; c++)
		require((unsigned char)*c >= ' ');
	json_t *text = json_string(err->message);
	require(text);
	json_decref(text);
}

static void on_done(void *arg, const struct error *err)
{
	take(err);
}

static void check_instance(const struct instance *i)
{
	require(backend_service_name_valid(i->service) && i->handle);
	require(i->state == INSTANCE_RUNNING || i->state == INSTANCE_EXITED || i->state == INSTANCE_ABSENT);
}

static void on_list(void *arg, const struct error *err, const struct instances *list)
{
	take(err);
	for (size_t i = 0; i < list->count; i++)
		check_instance(&list->items[i]);
}

static void on_exec(void *arg, const struct error *err, int exit_code, const char *output)
{
	take(err);
	require(strlen(output) <= BACKEND_EXEC_OUTPUT_MAX);
}

static void on_changed(void *arg, const struct instance *instance)
{
	check_instance(instance);
}

static void on_progress(void *arg, const char *service, const json_t *progress)
{
	json_int_t percent = json_integer_value(json_object_get(progress, "percent"));
	require(percent >= 0 && percent <= 100);
}

static void on_closed(void *arg)
{
	*(bool *)arg = true;
}

static char directory[] = "/tmp/aether-fuzz-XXXXXX";

static void remove_directory(void)
{
	tree_remove(AT_FDCWD, directory);
}

static void settle(uv_loop_t *loop)
{
	uint64_t until = now_monotonic_ms() + SETTLE_MS;
	while (open_calls && now_monotonic_ms() < until) /* credentials are looked for by a worker */
		uv_run(loop, UV_RUN_NOWAIT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool begun;
	static const struct keyvals env = KEYVALS_INIT;
	static char *argv[] = {(char *)"true", NULL};
	if (!begun) {
		require(mkdtemp(directory));
		atexit(remove_directory);
		setenv("DOCKER_CONFIG", directory, 1);
		log_set_level(LOG_LEVEL_ERROR);
	}
	begun = true;
	uv_loop_t loop;
	struct backend *b = NULL;
	bool closed = false;
	input = data;
	input_left = size;
	uv_loop_init(&loop);
	cleanup_free char *place = xasprintf("%s/data", directory);
	const struct service_spec spec = {.name = "web", .image = "app:1", .env = &env, .config_hash = "h", .generation = 1, .data = place};
	const struct backend_params params = {.loop = &loop, .target = "unix:///fuzz.sock", .namespace_ = "ns", .workspace = "w", .workspace_root = directory, .state_dir = directory,
	                                      .shared_dir = directory, .keeper_pidfd = -1, .uid = (uid_t)-1, .changed = on_changed, .progress = on_progress};
	require(backend_open(&params, &b, NULL) == 0);
	open_calls = 1;
	backend_list(b, on_list, NULL);
	settle(&loop);
	open_calls++;
	backend_start(b, &spec, on_done, NULL);
	settle(&loop);
	open_calls++;
	backend_exec(b, &spec, argv, 1000, on_exec, NULL);
	settle(&loop);
	backend_check_of(b, "web");
	backend_close(b, on_closed, &closed);
	uv_run(&loop, UV_RUN_DEFAULT);
	require(closed && !open_calls && uv_loop_close(&loop) == 0);
	return 0;
}
