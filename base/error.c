#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

static const struct {
	const char *name;
	int err;
} codes[] = {
	{"NONE", 0},
#define X(code, err) {#code, err},
	ERROR_CODES(X)
#undef X
};

#define CODE_COUNT (sizeof codes / sizeof codes[0])

bool error_is_set(const struct error *e)
{
	return e->code != ERROR_NONE;
}

const char *error_code_name(enum error_code code)
{
	return (size_t)code < CODE_COUNT ? codes[code].name : "INTERNAL";
}

int error_code_errno(enum error_code code)
{
	return (size_t)code < CODE_COUNT ? codes[code].err : EIO;
}

int error_reported_errno(const struct error *e)
{
	return e->code == ERROR_CANCELED && e->err ? e->err : error_code_errno(e->code);
}

enum error_code error_code_from_name(const char *name)
{
	for (size_t i = 1; name && i < CODE_COUNT; i++)
		if (!strcmp(codes[i].name, name))
			return (enum error_code)i;
	return ERROR_NONE;
}

static void replace(char **slot, char *s)
{
	free(*slot);
	*slot = s;
}

static char *vformat(const char *fmt, va_list ap)
{
	char *s = NULL;
	if (vasprintf(&s, fmt, ap) < 0)
		abort();
	return s;
}

static void fill(struct error *e, enum error_code code, int err, char *message)
{
	e->code = code;
	e->err = err;
	replace(&e->message, message);
}

int error_set(struct error *e, enum error_code code, const char *fmt, ...)
{
	int err = error_code_errno(code);
	if (!e)
		return -err;
	va_list ap;
	va_start(ap, fmt);
	fill(e, code, err, vformat(fmt, ap));
	va_end(ap);
	return -err;
}

int error_set_errno(struct error *e, enum error_code code, int err, const char *fmt, ...)
{
	if (!e)
		return -err;
	va_list ap;
	va_start(ap, fmt);
	char *text = vformat(fmt, ap);
	va_end(ap);
	fill(e, code, err, xasprintf("%s: %s", text, strerror(err)));
	free(text);
	return -err;
}

int error_prefix(struct error *e, const char *fmt, ...)
{
	if (!e)
		return -EIO;
	va_list ap;
	va_start(ap, fmt);
	char *text = vformat(fmt, ap);
	va_end(ap);
	replace(&e->message, xasprintf("%s: %s", text, e->message ? e->message : "failed"));
	free(text);
	return -e->err;
}

int error_hint(struct error *e, const char *fmt, ...)
{
	if (!e)
		return -EIO;
	va_list ap;
	va_start(ap, fmt);
	replace(&e->hint, vformat(fmt, ap));
	va_end(ap);
	return -e->err;
}

void error_detail(struct error *e, const char *key, json_t *value)
{
	if (!e) {
		json_decref(value);
		return;
	}
	if (!e->details)
		e->details = json_object();
	json_object_set_new(e->details, key, value);
}

json_t *error_to_json(const struct error *e)
{
	json_t *json = json_pack("{s:s, s:s}", "code", error_code_name(e->code), "message",
	                         e->message ? e->message : "");
	if (!json) /* the message was not UTF-8 */
		json = json_pack("{s:s, s:s}", "code", error_code_name(e->code), "message", "(not UTF-8)");
	if (e->hint)
		json_object_set_new(json, "hint", json_string(e->hint));
	if (e->details)
		json_object_set(json, "details", e->details);
	return json;
}

void error_from_json(struct error *e, const json_t *json)
{
	const char *message = json_string_value(json_object_get(json, "message"));
	const char *hint = json_string_value(json_object_get(json, "hint"));
	json_t *details = json_object_get(json, "details");
	enum error_code code = error_code_from_name(json_string_value(json_object_get(json, "code")));

	error_release(e);
	error_set(e, code ? code : ERROR_INTERNAL, "%s", message ? message : "an error without a message");
	if (hint)
		error_hint(e, "%s", hint);
	if (details)
		e->details = json_incref(details);
}

void error_copy(struct error *to, const struct error *from)
{
	if (to == from)
		return;
	error_release(to);
	to->code = from->code;
	to->err = from->err;
	to->message = xstrdup(from->message);
	to->hint = xstrdup(from->hint);
	to->details = json_deep_copy(from->details);
}

void error_move(struct error *to, struct error *from)
{
	if (to == from)
		return;
	error_release(to);
	*to = *from;
	*from = (struct error)ERROR_INIT;
}

void error_release(struct error *e)
{
	free(e->message);
	free(e->hint);
	json_decref(e->details);
	*e = (struct error)ERROR_INIT;
}
