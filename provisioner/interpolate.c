/* Compose's interpolation (compose-spec 12-interpolation). The text of a default is interpolated in its turn, and only
 * when it is taken; substituted values never are. */
#include <ctype.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "provisioner/config.h"

#define DEPTH_MAX 20
#define NAME_LEN_MAX 255

struct interpolation {
	config_lookup *lookup;
	void *arg;
	void (*unset)(void *arg, const char *name);
	struct error *err;
	struct buffer out;
	unsigned depth;
};

static int run(struct interpolation *in, const char *text, const char *end);

static int put(struct interpolation *in, const char *text, size_t len)
{
	if (in->out.len + len > CONFIG_VALUE_MAX)
		return error_set(in->err, ERROR_CONFIG_INVALID, "more than %u bytes come of interpolation", CONFIG_VALUE_MAX);
	buffer_add(&in->out, text, len);
	return 0;
}

static size_t name_length(const char *at, const char *end)
{
	size_t n = 0;
	if (at < end && (isalpha((unsigned char)*at) || *at == '_'))
		while (at + n < end && (isalnum((unsigned char)at[n]) || at[n] == '_'))
			n++;
	return n <= NAME_LEN_MAX ? n : 0;
}

static int bad(struct interpolation *in, const char *at, const char *end)
{
	int r =
	    error_set(in->err, ERROR_CONFIG_INVALID, "'%.*s' is not a variable", (int)(end - at < 40 ? end - at : 40), at);
	error_hint(in->err, "a literal $ is written $$");
	return r;
}

/* Behind the `}` that ends what begins at `at`, just behind a "${"; NULL: none. */
static const char *closing(const char *at, const char *end)
{
	unsigned open = 1;
	for (; at < end; at++) {
		if (at[0] == '$' && at + 1 < end && at[1] == '$')
			at++;
		else if (at[0] == '$' && at + 1 < end && at[1] == '{')
			open++, at++;
		else if (*at == '}' && --open == 0)
			return at + 1;
	}
	return NULL;
}

static int fail_required(struct interpolation *in, const char *name, const char *text, const char *end)
{
	struct interpolation message = {in->lookup, in->arg, NULL, in->err, BUFFER_INIT, in->depth};
	int r = run(&message, text, end);
	if (r == 0) {
		r = error_set(in->err, ERROR_CONFIG_INVALID, "the variable %s is required%s%.500s", name,
		              message.out.len ? ": " : "", buffer_str(&message.out));
		error_hint(in->err, "set %s in the environment or in .env", name);
	}
	buffer_release(&message.out);
	return r;
}

/* `op` is one of - ? + with an optional colon before it, [text, end) what follows. */
static int substitute(struct interpolation *in, const char *name, char op, bool colon, const char *text,
                      const char *end)
{
	const char *value = in->lookup(in->arg, name);
	bool given = value && (!colon || *value);
	if (op == '+')
		return given ? run(in, text, end) : 0;
	if (given)
		return put(in, value, strlen(value));
	if (op == '-')
		return run(in, text, end);
	if (op == '?')
		return fail_required(in, name, text, end);
	if (in->unset)
		in->unset(in->arg, name);
	return 0;
}

/* `*at` stands on a `$`. */
static int run_variable(struct interpolation *in, const char **at, const char *end)
{
	const char *from = *at, *name = from + 1, *close = NULL;
	if (name < end && *name == '$') {
		*at += 2;
		return put(in, "$", 1);
	}
	bool braced = name < end && *name == '{';
	name += braced;
	size_t len = name_length(name, end);
	if (!len || (braced && !(close = closing(name, end))))
		return bad(in, from, end);
	cleanup_free char *copy = xstrndup(name, len);
	*at = braced ? close : name + len;
	if (!braced || name + len == close - 1)
		return substitute(in, copy, 0, false, NULL, NULL);
	const char *op = name + len; /* the `}` stands behind it at the latest */
	bool colon = *op == ':';
	op += colon;
	if (!memchr("-?+", *op, 3))
		return bad(in, from, close);
	return substitute(in, copy, *op, colon, op + 1, close - 1);
}

static int run(struct interpolation *in, const char *text, const char *end)
{
	int r = 0;
	if (in->depth++ == DEPTH_MAX)
		r = error_set(in->err, ERROR_CONFIG_INVALID, "variables are nested deeper than %d", DEPTH_MAX);
	while (r == 0 && text < end) {
		const char *dollar = memchr(text, '$', (size_t)(end - text));
		size_t plain = (size_t)((dollar ? dollar : end) - text);
		r = put(in, text, plain);
		text += plain;
		if (r == 0 && dollar)
			r = run_variable(in, &text, end);
	}
	in->depth--;
	return r;
}

int config_interpolate(const char *text, config_lookup *lookup, void *arg, void (*unset)(void *arg, const char *name),
                       char **ret, struct error *err)
{
	struct interpolation in = {lookup, arg, unset, err, BUFFER_INIT, 0};
	int r = run(&in, text, text + strlen(text));
	if (r == 0)
		*ret = buffer_detach(&in.out);
	buffer_release(&in.out);
	return r;
}
