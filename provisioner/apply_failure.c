/* A service has failed: why, with what its log says. */
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "provisioner/apply_private.h"

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

static void add_words(struct error *err, const char *lead, const char *words)
{
	char *message = xasprintf("%s%s%s", err->message, lead, words);
	free(err->message);
	err->message = message;
}

/* With what its log says. */
static void set_error(struct apply_service *s, const struct error *why)
{
	cleanup_error struct error err = ERROR_INIT;
	error_copy(&err, why);
	cleanup_strv char **lines = apply_log_tail(s);
	size_t n = strv_len(lines);
	json_t *log = json_array();
	for (size_t i = 0; i < n; i++)
		json_array_append_new(log, json_string(lines[i]));
	error_detail(&err, "service", json_string(s->name));
	take_reason(lines, &err);
	if (err.code == ERROR_IMAGE_NOT_FOUND && s->foreign)
		add_words(&err, "; ", s->foreign);
	if (n && err.code == ERROR_SERVICE_FAILED)
		add_words(&err, "; its log ends: ", lines[n - 1]);
	if (err.code == ERROR_BUILD_FAILED) /* it has the build's */
		json_decref(log);
	else
		error_detail(&err, "log", log);
	if (!err.hint && n) /* else nothing of it has ever said anything */
		error_hint(&err, "ajj logs %s", s->name);
	log_warning("apply", "%s: %s", s->name, err.message);
	error_move(&s->error, &err);
}

void service_fail(struct apply_service *s, const struct error *err)
{
	set_error(s, err);
	s->present = PRESENT_FAILED;
	service_probe_end(s);
	service_tell(s, false);
}

void service_fail_running(struct apply_service *s, const struct error *err)
{
	s->unhealthy = true;
	set_error(s, err);
	service_tell(s, false);
	apply_wake(s->apply);
}

bool apply_image_failed(struct apply_service *s, const struct error *err)
{
	if (!s->model || service_runs(s) || s->operation != OPERATION_NONE || s->backoff || s->present == PRESENT_COMPLETED)
		return false;
	service_fail(s, err);
	return true;
}
