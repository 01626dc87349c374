// once
/* The environment's network as the file wants it, on an engine that is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "backends/backend.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "tests/unit/fake_engine.h"
#include "tests/unit/outcome.h"

#define EXACT "{\"Exact\":true,\"Subnet\":\"172.28.0.0/16\",\"Gateway\":\"172.28.0.9\",\"IPRange\":\"172.28.5.0/24\",\"Labels\":{\"own\":\"1\"},\"Options\":{\"mtu\":\"1400\"}}"
#define MOVED "{\"Exact\":false,\"Subnet\":\"172.28.0.0/16\",\"Gateway\":\"172.28.0.9\",\"IPRange\":\"172.28.5.0/24\",\"Labels\":{\"own\":\"1\"},\"Options\":{\"mtu\":\"1400\"}}"
#define OTHER "{\"Exact\":true,\"Subnet\":\"172.29.0.0/16\"}"
#define LENT "172.20.0.0/16"

struct world {
	uv_loop_t loop;
	struct fake_engine engine;
	struct backend *b;
	char dir[64], data[128];
	struct container_options options;
	struct service_spec spec;
	struct buffer calls; /* with engine.lock: of networks, with the subnet that was asked for */
	const char *overlaps, *overlap_words; /* with what is there; NULL: nothing */
	bool in_use;
};

/* ---- the engine ---- */

static const char *subnet_in(const json_t *body)
{
	const char *subnet = json_string_value(json_object_get(json_array_get(json_object_get(json_object_get(body, "IPAM"), "Config"), 0), "Subnet"));
	return subnet ? subnet : "-";
}

/* As fake_make has it, and with what an inspection shows of addresses. */
static bool make(struct world *w, int fd, json_t *body)
{
	const char *subnet = subnet_in(body);
	buffer_printf(&w->calls, "POST %s ", subnet);
	if (w->overlaps && !strcmp(subnet, w->overlaps))
		return fake_refuse(fd, 403, w->overlap_words);
	bool kept = fake_make(&w->engine, fd, w->engine.networks, "ns", body);
	json_object_set_new(json_object_get(w->engine.networks, "ns"), "IPAM", json_pack("{s:[{s:s}, {s:s}]}", "Config", "Subnet", "fd00::/64", "Subnet", strcmp(subnet, "-") ? subnet : LENT));
	return kept;
}

static bool on_call(void *arg, int fd, const struct scripted_request *r, bool *keep)
{
	struct world *w = arg;
	if (!strstr(r->path, "/networks/") || strstr(r->path, "/connect"))
		return false;
	bool makes = strstr(r->path, "/networks/create"), answered = makes;
	json_t *body = json_loads(r->body, 0, NULL);
	pthread_mutex_lock(&w->engine.lock);
	if (makes)
		*keep = make(w, fd, body);
	else
		buffer_printf(&w->calls, "%s ", r->method);
	if (!strcmp(r->method, "DELETE") && w->in_use) {
		*keep = fake_refuse(fd, 403, "network ns has active endpoints");
		answered = true;
	}
	pthread_mutex_unlock(&w->engine.lock);
	json_decref(body);
	return answered;
}

static void assert_told(struct world *w, const char *expected)
{
	pthread_mutex_lock(&w->engine.lock);
	cleanup_free char *calls = xstrdup(buffer_str(&w->calls));
	buffer_clear(&w->calls);
	pthread_mutex_unlock(&w->engine.lock);
	assert_string_equal(calls, expected);
}

static void assert_json(const json_t *value, const char *expected)
{
	cleanup_free char *text = value ? json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY) : NULL;
	assert_string_equal(text ? text : "", expected);
}

static const json_t *network(const struct world *w, const char *key)
{
	return json_object_get(json_object_get(json_object_get(w->engine.networks, "ns"), "Config"), key);
}

static void assert_address(const struct world *w, const char *expected)
{
	const json_t *create = json_object_get(json_object_get(w->engine.containers, "ns-web"), "Config"), *endpoints = json_object_get(json_object_get(create, "NetworkingConfig"), "EndpointsConfig");
	assert_json(json_object_get(json_object_get(endpoints, "ns"), "IPAMConfig"), expected);
}

static void assert_record(const struct world *w, const char *expected)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	cleanup_free char *path = xasprintf("%s/" BACKEND_SUBNET, w->dir);
	file_read(AT_FDCWD, path, 100, &text);
	assert_string_equal(buffer_str(&text), expected);
}

/* ---- the backend ---- */

static void open_backend(struct world *w)
{
	w->b = fake_engine_open(&w->engine, &w->loop, w->dir, NULL, NULL, w);
}

static void close_backend(struct world *w)
{
	struct outcome closed = {0};
	backend_close(w->b, on_closed, &closed);
	await(&w->loop, &closed);
}

static void start(struct world *w)
{
	struct outcome o = {0};
	backend_start(w->b, &w->spec, on_done, &o);
	assert_int_equal(await(&w->loop, &o), ERROR_NONE);
}

static int setup(void **state)
{
	static const struct keyvals env = KEYVALS_INIT;
	struct world *w = xcalloc(1, sizeof *w);
	strcpy(w->dir, "/tmp/aether-network-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	snprintf(w->data, sizeof w->data, "%s/data", w->dir);
	assert_int_equal(uv_loop_init(&w->loop), 0);
	fake_engine_start(&w->engine);
	w->calls = (struct buffer)BUFFER_INIT;
	w->engine.spoil = on_call;
	w->engine.arg = w;
	w->options = (struct container_options)CONTAINER_OPTIONS_INIT;
	w->options.ipv4_address = (char *)"172.28.0.5";
	w->spec = (struct service_spec){.name = "web", .image = "app:1", .env = &env, .stop_signal = 15, .stop_grace_ms = 100, .config_hash = "h", .generation = 1, .data = w->data, .container = &w->options};
	open_backend(w);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	struct outcome removed = {0}, cleared = {0};
	w->in_use = false;
	backend_remove(w->b, "web", on_done, &removed);
	assert_int_equal(await(&w->loop, &removed), ERROR_NONE);
	backend_clear(w->b, on_done, &cleared);
	assert_int_equal(await(&w->loop, &cleared), ERROR_NONE);
	assert_record(w, "");
	close_backend(w);
	fake_engine_end(&w->engine, &w->loop, w->dir);
	buffer_release(&w->calls);
	free(w);
	return 0;
}

/* ---- cases ---- */

static void test_as_it_is_written(void **state)
{
	struct world *w = *state;
	w->spec.network = EXACT;
	start(w);
	assert_told(w, "GET POST 172.28.0.0/16 ");
	assert_json(network(w, "IPAM"), "{\"Config\":[{\"Gateway\":\"172.28.0.9\",\"IPRange\":\"172.28.5.0/24\",\"Subnet\":\"172.28.0.0/16\"}],\"Driver\":\"default\"}");
	assert_json(network(w, "Options"), "{\"mtu\":\"1400\"}");
	assert_json(json_object_get(network(w, "Labels"), "own"), "\"1\"");
	assert_json(json_object_get(network(w, "Labels"), "aether.namespace"), "\"ns\"");
	assert_address(w, "{\"IPv4Address\":\"172.28.0.5\"}");
	assert_record(w, "172.28.0.0/16");
}

/* One that is free, with the same places in it. */
static void test_in_another_workspace(void **state)
{
	struct world *w = *state;
	w->spec.network = MOVED;
	start(w);
	assert_told(w, "GET POST - GET DELETE POST " LENT " ");
	assert_json(network(w, "IPAM"), "{\"Config\":[{\"Gateway\":\"172.20.0.9\",\"IPRange\":\"172.20.5.0/24\",\"Subnet\":\"172.20.0.0/16\"}],\"Driver\":\"default\"}");
	assert_address(w, "{\"IPv4Address\":\"172.20.0.5\"}");
	assert_record(w, LENT);
	close_backend(w);
	open_backend(w); /* it is known again from what is there */
	w->spec.config_hash = "other";
	start(w);
	assert_told(w, "GET ");
	assert_address(w, "{\"IPv4Address\":\"172.20.0.5\"}");
	assert_record(w, LENT);
}

static void test_somebody_has_it(void **state)
{
	struct world *w = *state;
	w->spec.network = EXACT;
	w->overlaps = "172.28.0.0/16";
	w->overlap_words = "Pool overlaps with other one on this address space";
	start(w);
	assert_told(w, "GET POST 172.28.0.0/16 POST - GET DELETE POST " LENT " ");
	assert_address(w, "{\"IPv4Address\":\"172.20.0.5\"}");
	assert_record(w, LENT);
}

/* As Docker says it of one with an ip_range. */
static void test_somebody_has_a_part(void **state)
{
	struct world *w = *state;
	w->spec.network = EXACT;
	w->overlaps = "172.28.0.0/16";
	w->overlap_words = "cannot create network 3a (br-3a): conflicts with network 4b (br-4b): networks have overlapping IPv4";
	start(w);
	assert_told(w, "GET POST 172.28.0.0/16 POST - GET DELETE POST " LENT " ");
	assert_record(w, LENT);
}

/* While it is used it keeps the subnet that it was made with, and gives addresses of that. */
static void test_its_subnet_changes(void **state)
{
	struct world *w = *state;
	w->spec.network = EXACT;
	start(w);
	assert_told(w, "GET POST 172.28.0.0/16 ");
	w->spec.network = OTHER;
	w->options.ipv4_address = (char *)"172.29.0.5";
	w->spec.config_hash = "other";
	w->in_use = true;
	start(w);
	assert_told(w, "GET DELETE ");
	assert_address(w, "{\"IPv4Address\":\"172.28.0.5\"}");
	assert_record(w, "172.28.0.0/16");
}

/* What is used stays as it is. */
static void test_it_changes(void **state)
{
	struct world *w = *state;
	w->options.ipv4_address = NULL;
	start(w);
	assert_told(w, "GET POST - ");
	assert_null(json_object_get(network(w, "Labels"), "aether.network"));
	w->options.ipv4_address = (char *)"172.28.0.5";
	w->spec.network = EXACT;
	w->spec.config_hash = "addressed";
	w->in_use = true;
	start(w);
	assert_told(w, "GET DELETE ");
	assert_address(w, "");
	assert_record(w, "");
	w->in_use = false; /* after `ajj down` */
	w->spec.config_hash = "anew";
	start(w);
	assert_told(w, "GET DELETE POST 172.28.0.0/16 ");
	assert_address(w, "{\"IPv4Address\":\"172.28.0.5\"}");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_as_it_is_written, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_in_another_workspace, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_somebody_has_it, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_somebody_has_a_part, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_it_changes, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_its_subnet_changes, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
