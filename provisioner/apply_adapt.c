/* A container finds data that an earlier one was given a user and a password for: images take them for new data alone, and what .env says would be wrong.
 * Which values data has stands in a file that rests with it: their fingerprint, and below it what the recipe wants to be told of them. */
#include <fcntl.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "provisioner/apply_private.h"

#define AREA "apply"
#define VALUES "container-values" /* in service_spec.data */
#define VALUES_MAX 4096
#define ADAPT_MS 300000 /* it waits for the service, which may have to recover first */

/* An operation of the backend outlives what it was for. */
struct adaptation {
	struct apply_service *s; /* NULL: given up */
	char **argv;
	char *values; /* that the data has then */
};

static int read_values(const struct apply_service *s, struct buffer *ret)
{
	cleanup_free char *path = xasprintf("%s/" VALUES, s->model->spec.data);
	return file_read(AT_FDCWD, path, VALUES_MAX, ret);
}

char *service_values(const struct apply_service *s)
{
	return s->model && s->model->adapt ? xasprintf("%s\n%s", s->model->adapt_key, s->model->adapt_as) : NULL;
}

static void write_values(const struct apply_service *s, const char *text)
{
	const char *data = s->model->spec.data;
	cleanup_free char *path = xasprintf("%s/" VALUES, data);
	int r = dir_make(AT_FDCWD, data, 0711);
	if (r >= 0)
		r = file_write_atomic(AT_FDCWD, path, text, strlen(text), 0600);
	if (r < 0)
		log_warning(AREA, "%s: %s", path, strerror(-r));
}

void service_note_values(struct apply_service *s, const char *values)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	if (values && s->model && read_values(s, &text) == -ENOENT)
		write_values(s, values);
}

static char *last_line(const char *output)
{
	cleanup_free char *text = xstrdup(output);
	char *save = NULL, *last = NULL;
	for (char *line = strtok_r(text, "\r\n", &save); line; line = strtok_r(NULL, "\r\n", &save))
		last = line;
	return xstrdup(last ? last : "");
}

static void explain(const struct apply_service *s, const struct error *why, int exit_code, const char *output, struct error *err)
{
	cleanup_free char *last = last_line(output), *masked = model_mask(s->apply->model, last);
	if (why)
		error_copy(err, why);
	else
		error_set(err, ERROR_SERVICE_FAILED, "%s", *masked ? masked : "no reason was told");
	if (!why && !*masked)
		error_detail(err, "exit_code", json_integer(exit_code));
	error_prefix(err, "service %s: its data was made with other values than are configured now (user, password, database), and could not be given those", s->name);
	error_hint(err, "configure what it was made with and `ajj up`, or begin with new data: rm .env");
}

static void on_adapted(void *arg, const struct error *why, int exit_code, const char *output)
{
	struct adaptation *a = arg;
	struct apply_service *s = a->s;
	cleanup_error struct error err = ERROR_INIT;
	if (s)
		s->adaptation = NULL;
	if (s && (why || exit_code)) {
		explain(s, why, exit_code, output, &err);
		service_fail_running(s, &err);
	} else if (s) {
		log_info(AREA, "%s: its data has today's values", s->name);
		write_values(s, a->values);
		service_probe(s);
		apply_wake(s->apply);
	}
	strv_free(a->argv);
	free(a->values);
	free(a);
}

bool service_adapts(struct apply_service *s)
{
	const struct model_service *m = s->model;
	cleanup_buffer struct buffer text = BUFFER_INIT;
	bool is_as_configured = s->config_hash && !strcmp(s->config_hash, m->spec.config_hash); /* else it has the values of another configuration */
	if (!m->adapt || !is_as_configured)
		return false;
	cleanup_free char *now = service_values(s);
	service_note_values(s, now); /* others may have started it first */
	if (read_values(s, &text) < 0)
		return false;
	char *values = (char *)buffer_str(&text), *as = strchr(values, '\n');
	if (!as)
		return false;
	*as++ = '\0';
	if (!strcmp(values, m->adapt_key))
		return false;
	struct adaptation *a = xcalloc(1, sizeof *a);
	a->s = s;
	a->argv = strv_copy(m->adapt);
	a->values = move_ptr(now);
	strv_push(&a->argv, xstrdup(as));
	s->adaptation = a;
	backend_exec(s->apply->backend, &m->spec, a->argv, ADAPT_MS, on_adapted, a);
	return true;
}

void service_adapt_end(struct apply_service *s)
{
	if (s->adaptation)
		s->adaptation->s = NULL;
	s->adaptation = NULL;
}
