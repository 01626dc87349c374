/* Compose's healthcheck, and x-aether.ready. */
#include <limits.h>
#include <regex.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/config_private.h"

static int read_ms(const struct field *f, unsigned *ret)
{
	int64_t ms;
	int r = field_duration(f, &ms);
	if (r == 0 && ms > UINT_MAX)
		return field_error(f, "longer than %u days", UINT_MAX / 86400000);
	if (r == 0)
		*ret = (unsigned)ms;
	return r;
}

static int read_interval(const struct field *f, void *out)
{
	return read_ms(f, &((struct config_probe *)out)->interval_ms);
}

static int read_timeout(const struct field *f, void *out)
{
	return read_ms(f, &((struct config_probe *)out)->timeout_ms);
}

static int read_start_period(const struct field *f, void *out)
{
	return read_ms(f, &((struct config_probe *)out)->start_period_ms);
}

static int read_retries(const struct field *f, void *out)
{
	int64_t n;
	int r = field_int(f, 0, 1000000, &n);
	if (r == 0)
		((struct config_probe *)out)->retries = (unsigned)n;
	return r;
}

/* ---- healthcheck ---- */

struct healthcheck {
	struct config_probe probe;
	char **test; /* in the engines' form */
	unsigned start_interval_ms; /* probes of ours are closer together than it anyhow, until the service is ready */
	bool disable;
};

static char **shell(const char *text)
{
	char **argv = NULL;
	strv_push(&argv, xstrdup("sh"));
	strv_push(&argv, xstrdup("-c"));
	strv_push(&argv, xstrdup(text));
	return argv;
}

#define TEST_FORM "a command as text, or a list that begins with CMD, CMD-SHELL or NONE"

static int take_test(const struct field *f, char **words, struct healthcheck *h)
{
	size_t n = strv_len(words);
	if (n == 1 && !strcmp(words[0], "NONE")) {
		h->disable = true;
		return 0;
	}
	if (n >= 2 && !strcmp(words[0], "CMD"))
		h->probe.argv = strv_copy(words + 1);
	else if (n == 2 && !strcmp(words[0], "CMD-SHELL"))
		h->probe.argv = shell(words[1]);
	else
		return field_error(f, "expected %s", TEST_FORM);
	h->probe.kind = PROBE_EXEC;
	strv_free(h->test);
	h->test = strv_copy(words);
	return 0;
}

static int read_test(const struct field *f, void *out)
{
	struct healthcheck *h = out;
	cleanup_strv char **words = NULL;
	cleanup_free char *text = NULL;
	int r;
	if (f->node->type == YAML_LIST) {
		r = field_strings(f, &words);
		return r < 0 ? r : take_test(f, words, h);
	}
	if (f->node->type != YAML_SCALAR)
		return field_expected(f, TEST_FORM);
	r = field_text(f, &text);
	if (r < 0)
		return r;
	h->disable = !strcmp(text, "NONE");
	if (!h->disable) {
		h->probe.argv = shell(text);
		h->probe.kind = PROBE_EXEC;
		strv_push(&h->test, xstrdup("CMD-SHELL"));
		strv_push(&h->test, xstrdup(text));
	}
	return 0;
}

static int read_disable(const struct field *f, void *out)
{
	bool disable = false;
	int r = field_bool(f, &disable);
	((struct healthcheck *)out)->disable |= disable;
	return r;
}

static int read_start_interval(const struct field *f, void *out)
{
	return read_ms(f, &((struct healthcheck *)out)->start_interval_ms);
}

static const struct field_reader healthcheck_fields[] = {
    {"test", read_test},
    {"interval", read_interval},
    {"timeout", read_timeout},
    {"start_period", read_start_period},
    {"start_interval", read_start_interval},
    {"retries", read_retries},
    {"disable", read_disable},
    {NULL, NULL},
};

/* Steals the test. */
static void take_check(struct healthcheck *h, struct container_check *ret)
{
	if (h->disable) {
		strv_free(move_ptr(h->test));
		strv_push(&h->test, xstrdup("NONE"));
		*ret = (struct container_check){.test = h->test};
		return;
	}
	*ret = (struct container_check){h->test, h->probe.interval_ms, h->probe.timeout_ms, h->probe.start_period_ms, h->start_interval_ms, h->probe.retries};
}

int read_healthcheck(const struct field *f, void *out)
{
	struct config_service *s = out;
	struct healthcheck h = {0};
	int r = field_read_map(f, healthcheck_fields, UNKNOWN_WARNS, "a mapping with test", &h);
	s->healthcheck = h.probe; /* also on failure: config_free knows it then */
	s->healthcheck_disabled = h.disable;
	take_check(&h, &s->container.check);
	struct field test;
	if (r == 0 && h.probe.kind == PROBE_EXEC && !h.disable && field_find(f, "test", &test))
		approve_node(&test);
	return r;
}

/* ---- x-aether.ready ---- */

static int take_kind(const struct field *f, struct config_probe *probe, enum probe_kind kind)
{
	if (probe->kind != PROBE_NONE)
		return field_key_error(f, "expected only one of tcp, http, exec and log");
	probe->kind = kind;
	return 0;
}

static int read_tcp(const struct field *f, void *out)
{
	struct config_probe *probe = out;
	int64_t port;
	int r = take_kind(f, probe, PROBE_TCP);
	if (r == 0)
		r = field_int(f, 1, 65535, &port);
	if (r == 0)
		probe->port = (uint16_t)port;
	return r;
}

/* "/path", ":8080/path", "http://localhost:8080/path". Whatever the host, the service itself is asked. */
static int read_http(const struct field *f, void *out)
{
	struct config_probe *probe = out;
	cleanup_free char *text = NULL;
	int r = take_kind(f, probe, PROBE_HTTP);
	if (r == 0)
		r = field_text(f, &text);
	if (r < 0)
		return r;
	const char *at = text, *scheme = strstr(text, "://");
	if (scheme) {
		if (strncmp(text, "http://", 7))
			return field_error(f, "expected http://, got '%.60s'", text);
		at = scheme + 3;
	}
	size_t authority = strcspn(at, "/");
	const char *colon = memrchr(at, ':', authority);
	if (colon && parse_port(colon + 1, authority - (size_t)(colon + 1 - at), &probe->port) < 0)
		return field_error(f, "expected a port behind the colon, got '%.60s'", text);
	if (authority && !colon && !scheme)
		return field_error(f, "expected a path that begins with / or an http:// URL, got '%.60s'", text);
	probe->path = xstrdup(at[authority] ? at + authority : "/");
	return 0;
}

static int read_exec(const struct field *f, void *out)
{
	struct config_probe *probe = out;
	struct field verbatim = *f;
	cleanup_free char *text = NULL;
	verbatim.verbatim = true; /* its variables are the service's own */
	int r = take_kind(f, probe, PROBE_EXEC);
	if (r == 0 && f->node->type == YAML_LIST) {
		r = field_strings(&verbatim, &probe->argv);
	} else if (r == 0 && f->node->type == YAML_SCALAR) {
		r = field_text(&verbatim, &text);
		probe->argv = r == 0 ? shell(text) : NULL;
	} else if (r == 0) {
		r = field_expected(f, "a command: a text or a list of texts");
	}
	if (r == 0 && !probe->argv[0])
		return field_expected(f, "a command");
	if (r == 0)
		approve_argv(f, probe->argv);
	return r;
}

static int read_log(const struct field *f, void *out)
{
	struct config_probe *probe = out;
	struct field verbatim = *f;
	regex_t regex;
	verbatim.verbatim = true; /* $ is the line's end */
	int r = take_kind(f, probe, PROBE_LOG);
	if (r == 0)
		r = field_text(&verbatim, &probe->pattern);
	if (r < 0)
		return r;
	int bad = regcomp(&regex, probe->pattern, REG_EXTENDED | REG_NOSUB);
	if (bad) {
		char why[200];
		regerror(bad, &regex, why, sizeof why);
		return field_error(f, "expected a POSIX extended regular expression: %s", why);
	}
	regfree(&regex);
	return 0;
}

static const struct field_reader ready_fields[] = {
    {"tcp", read_tcp},           {"http", read_http},       {"exec", read_exec}, {"log", read_log},
    {"interval", read_interval}, {"timeout", read_timeout}, {NULL, NULL},
};

int read_ready(const struct field *f, void *out)
{
	struct config_probe *probe = out;
	int r = field_read_map(f, ready_fields, UNKNOWN_FAILS, "a mapping with tcp, http, exec or log", probe);
	if (r == 0 && probe->kind == PROBE_NONE)
		return field_error(f, "expected one of tcp, http, exec and log");
	return r;
}
