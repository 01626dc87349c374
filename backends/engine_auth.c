#include "backends/engine_auth.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/base64.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"

#define HUB "docker.io"
#define HUB_KEY "https://index.docker.io/v1/" /* as docker writes it */
#define OUTPUT_MAX (64u << 10)

extern char **environ;

/* ---- names: https://pkg.go.dev/github.com/distribution/reference ---- */

void engine_image_name_parse(const char *image, struct engine_image_name *ret)
{
	const char *slash = strchr(image, '/'), *digest = strchr(image, '@');
	size_t first = slash ? (size_t)(slash - image) : 0;
	bool has_registry = slash && (memchr(image, '.', first) || memchr(image, ':', first) || (first == 9 && !strncmp(image, "localhost", 9)));
	const char *end = digest ? digest : image + strlen(image);
	const char *colon = memrchr(image, ':', (size_t)(end - image));
	bool tagged = colon && !memchr(colon, '/', (size_t)(end - colon));
	ret->registry = has_registry ? xstrndup(image, first) : xstrdup(HUB);
	ret->repository = xstrndup(image, (size_t)((tagged ? colon : end) - image));
	ret->tag = digest ? xstrdup(digest + 1) : tagged ? xstrdup(colon + 1) : xstrdup("latest");
}

void engine_image_name_release(struct engine_image_name *n)
{
	free(n->registry);
	free(n->repository);
	free(n->tag);
}

/* new; NULL: no value, for what it was made of is no UTF-8 */
static char *header_of(json_t *value)
{
	if (!value)
		return NULL;
	char *text = json_dumps(value, JSON_COMPACT);
	char *header = base64_url(text);
	free(text);
	json_decref(value);
	return header;
}

/* ---- helpers ---- */

static int end_helper(pid_t pid)
{
	int status = 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

/* Reads until the end, or the time is up. */
static int collect(int fd, pid_t pid, struct buffer *out)
{
	uint64_t until = now_monotonic_ms() + ENGINE_AUTH_HELPER_MS;
	char chunk[4096];
	for (;;) {
		uint64_t now = now_monotonic_ms();
		struct pollfd p = {fd, POLLIN, 0};
		int r = now < until ? poll(&p, 1, (int)(until - now)) : 0;
		if (r < 0 && errno == EINTR)
			continue;
		ssize_t n = r > 0 ? read(fd, chunk, sizeof chunk) : -1;
		if (n == 0)
			return 0;
		if (n < 0 || out->len > OUTPUT_MAX) {
			kill(pid, SIGKILL);
			return r == 0 ? -ETIMEDOUT : -EIO;
		}
		buffer_add(out, chunk, (size_t)n);
	}
}

static int run_helper(const char *helper, const char *input, struct buffer *out, int *ret_status)
{
	cleanup_free char *program = xasprintf("docker-credential-%s", helper);
	char *argv[] = {program, (char *)"get", NULL};
	int in[2], from[2];
	pid_t pid;
	if (pipe2(in, O_CLOEXEC))
		return -errno;
	if (pipe2(from, O_CLOEXEC)) {
		int r = -errno;
		close(in[0]);
		close(in[1]);
		return r;
	}
	posix_spawn_file_actions_t actions;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, in[0], 0);
	posix_spawn_file_actions_adddup2(&actions, from[1], 1);
	int r = -posix_spawnp(&pid, program, &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(in[0]);
	close(from[1]);
	if (!r && write_all(in[1], input, strlen(input))) /* SIGPIPE is ignored; what it says, or its silence, tells */
		r = 0;
	close(in[1]);
	if (!r) {
		r = collect(from[0], pid, out);
		*ret_status = end_helper(pid);
	}
	close(from[0]);
	return r;
}

/* What helpers say, on stdout, of a registry that they know nothing of; all else that comes with a failure is one. */
static bool is_failure(int status, const char *said)
{
	return status && !strstr(said, "credentials not found");
}

/* new: what it said, for JSON and a terminal; "": nothing, or no text */
static char *words_of(const struct buffer *out)
{
	size_t len = out->len;
	while (len && isspace((unsigned char)out->data[len - 1]))
		len--;
	cleanup_free char *text = xstrndup(len ? out->data : "", len);
	json_t *checked = json_string(text); /* NULL: it is no UTF-8 */
	char *said = engine_told(checked ? text : "");
	json_decref(checked);
	return said;
}

/* new or NULL: it knows nothing of this registry, or `err` */
static json_t *ask_helper(const char *helper, const char *key, const char *registry, struct error *err)
{
	cleanup_buffer struct buffer out = BUFFER_INIT;
	int status = 0, r = run_helper(helper, key, &out, &status);
	if (r) {
		error_set_errno(err, ERROR_IMAGE_AUTH, -r, "docker-credential-%s, which docker's config.json names for %s", helper, registry);
		return NULL;
	}
	if (is_failure(status, buffer_str(&out))) {
		cleanup_free char *said = words_of(&out);
		error_set(err, ERROR_IMAGE_AUTH, "docker-credential-%s, which docker's config.json names for %s, failed%s%s", helper, registry, *said ? ": " : "", said);
		return NULL;
	}
	json_t *json = json_loads(buffer_str(&out), 0, NULL);
	const char *user = NULL, *secret = NULL;
	json_t *known = NULL;
	if (json && !json_unpack(json, "{s:s, s:s}", "Username", &user, "Secret", &secret))
		known = !strcmp(user, "<token>") ? json_pack("{s:s, s:s}", "identitytoken", secret, "serveraddress", key)
		                                 : json_pack("{s:s, s:s, s:s}", "username", user, "password", secret, "serveraddress", key);
	json_decref(json);
	return known;
}

/* ---- config.json ---- */

static json_t *of_entry(const json_t *entry, const char *key)
{
	const char *token = json_string_value(json_object_get(entry, "identitytoken"));
	const char *auth = json_string_value(json_object_get(entry, "auth"));
	if (token && *token)
		return json_pack("{s:s, s:s}", "identitytoken", token, "serveraddress", key);
	if (!auth || !*auth)
		return NULL;
	cleanup_buffer struct buffer both = BUFFER_INIT;
	base64_decode(auth, &both);
	char *colon = both.len ? strchr(both.data, ':') : NULL;
	if (!colon)
		return NULL;
	*colon = '\0';
	return json_pack("{s:s, s:s, s:s}", "username", both.data, "password", colon + 1, "serveraddress", key);
}

/* Is that the host of "https://HOST/v1/", or however it was given to docker login? */
static bool is_host_of(const char *host, const char *key)
{
	const char *scheme = strstr(key, "://");
	size_t n = strlen(host);
	key = scheme ? scheme + 3 : key;
	return !strncmp(key, host, n) && (!key[n] || key[n] == '/');
}

/* borrowed or NULL */
static const json_t *find_entry(json_t *auths, const char *registry, const char *key)
{
	json_t *entry = json_object_get(auths, key);
	const char *name;
	json_t *other;
	if (entry)
		return entry;
	json_object_foreach (auths, name, other)
		if (is_host_of(registry, name))
			return other;
	return NULL;
}

json_t *engine_auth_of(const char *registry, const struct engine_places *places, struct error *err)
{
	cleanup_free char *dir = engine_config_dir(places);
	cleanup_free char *path = dir ? xasprintf("%s/config.json", dir) : NULL;
	bool hub = !strcmp(registry, HUB) || !strcmp(registry, "index.docker.io") || !strcmp(registry, "registry-1.docker.io");
	const char *key = hub ? HUB_KEY : registry;
	json_t *config = path ? json_load_file(path, 0, NULL) : NULL;
	const char *helper = json_string_value(json_object_get(json_object_get(config, "credHelpers"), key));
	const char *store = json_string_value(json_object_get(config, "credsStore"));
	json_t *known = helper || store ? ask_helper(helper ? helper : store, key, registry, err) : of_entry(find_entry(json_object_get(config, "auths"), registry, key), key);
	json_decref(config);
	return known;
}

char *engine_auth_lookup(const char *registry, const struct engine_places *places, struct error *err)
{
	json_t *known = engine_auth_of(registry, places, err);
	return known ? header_of(known) : NULL;
}

void engine_proxies(const struct engine_places *places, struct keyvals *args)
{
	static const char *const names[][3] = {{"httpProxy", "HTTP_PROXY", "http_proxy"},
	                                       {"httpsProxy", "HTTPS_PROXY", "https_proxy"},
	                                       {"ftpProxy", "FTP_PROXY", "ftp_proxy"},
	                                       {"noProxy", "NO_PROXY", "no_proxy"},
	                                       {"allProxy", "ALL_PROXY", "all_proxy"}};
	cleanup_free char *dir = engine_config_dir(places);
	cleanup_free char *path = dir ? xasprintf("%s/config.json", dir) : NULL;
	json_t *config = path ? json_load_file(path, 0, NULL) : NULL;
	const json_t *proxies = json_object_get(json_object_get(config, "proxies"), "default");
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		const char *value = json_string_value(json_object_get(proxies, names[i][0]));
		for (size_t k = 1; k < 3 && value; k++)
			if (!keyvals_get(args, names[i][k]))
				keyvals_set(args, names[i][k], value);
	}
	json_decref(config);
}

char *engine_auth_config(char *const *images, const struct engine_places *places, struct error *err)
{
	json_t *all = json_object();
	for (; images && *images; images++) {
		cleanup_error struct error why = ERROR_INIT;
		struct engine_image_name name;
		engine_image_name_parse(*images, &name);
		json_t *known = engine_auth_of(name.registry, places, &why);
		if (known)
			json_object_set_new(all, json_string_value(json_object_get(known, "serveraddress")), known);
		if (error_is_set(&why))
			error_move(err, &why);
		engine_image_name_release(&name);
	}
	if (json_object_size(all))
		return header_of(all);
	json_decref(all);
	return NULL;
}

/* ---- on the loop ---- */

struct search {
	uv_work_t work;
	struct engine *e;
	char *registry, *header;
	struct error error;
	engine_auth_done *done;
	void *arg;
};

static void search_work(uv_work_t *work)
{
	struct search *s = work->data;
	const struct engine_places places = {.run = ""};
	s->header = engine_auth_lookup(s->registry, &places, &s->error);
}

static void search_done(uv_work_t *work, int status)
{
	struct search *s = work->data;
	s->done(s->arg, error_is_set(&s->error) ? &s->error : NULL, s->header);
	engine_end(s->e);
	error_release(&s->error);
	free(s->registry);
	free(s->header);
	free(s);
}

void engine_auth_find(struct engine *e, const char *image, engine_auth_done *done, void *arg)
{
	struct engine_image_name name;
	struct search *s = xcalloc(1, sizeof *s);
	engine_image_name_parse(image, &name);
	*s = (struct search){.e = e, .registry = xstrdup(name.registry), .error = ERROR_INIT, .done = done, .arg = arg};
	engine_image_name_release(&name);
	s->work.data = s;
	engine_begin(e);
	uv_queue_work(e->base.loop, &s->work, search_work, search_done);
}
