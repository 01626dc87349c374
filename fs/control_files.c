#include "fs/control_files.h"

#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/hash.h"
#include "provisioner/env_name.h"

/* ---- texts ---- */

static int render_env(struct environment *e, const char *service, struct buffer *out, struct error *err)
{
	return environment_env(e, out, err);
}

static int render_env_file(struct environment *e, const char *path, struct buffer *out, struct error *err)
{
	return environment_file(e, path, out, err);
}

static int render_env_json(struct environment *e, const char *service, struct buffer *out, struct error *err)
{
	return environment_env_json(e, out, err);
}

static int render_container(struct environment *e, const char *service, struct buffer *out, struct error *err)
{
	return environment_container(e, CONTAINER_ENV, out, err);
}

static int render_container_json(struct environment *e, const char *service, struct buffer *out, struct error *err)
{
	return environment_container(e, CONTAINER_ENV_JSON, out, err);
}

static int render_container_list(struct environment *e, const char *service, struct buffer *out, struct error *err)
{
	return environment_container(e, CONTAINER_ENV_LIST, out, err);
}

static int render_compose(struct environment *e, const char *service, struct buffer *out, struct error *err)
{
	environment_compose(e, out);
	return 0;
}

static int render_ports(struct environment *e, const char *service, struct buffer *out, struct error *err)
{
	environment_ports(e, out);
	return 0;
}

static int render_status(struct environment *e, const char *service, struct buffer *out, struct error *err)
{
	environment_status(e, out);
	return 0;
}

static int render_env_own(struct environment *e, const char *service, struct buffer *out, struct error *err)
{
	environment_env_own(e, out);
	return 0;
}

static int render_errors(struct environment *e, const char *service, struct buffer *out, struct error *err)
{
	environment_errors(e, out);
	return 0;
}

static int render_trust(struct environment *e, const char *service, struct buffer *out, struct error *err)
{
	environment_trust(e, out);
	return 0;
}

static int render_commands(struct environment *e, const char *service, struct buffer *out, struct error *err)
{
	buffer_adds(out, environment_command_list());
	return 0;
}

static int render_url(struct environment *e, const char *service, struct buffer *out, struct error *err)
{
	return environment_service(e, service, SERVICE_URL, out, err);
}

static int render_host(struct environment *e, const char *service, struct buffer *out, struct error *err)
{
	return environment_service(e, service, SERVICE_HOST, out, err);
}

static int render_port(struct environment *e, const char *service, struct buffer *out, struct error *err)
{
	return environment_service(e, service, SERVICE_PORT, out, err);
}

static int render_service_env(struct environment *e, const char *service, struct buffer *out, struct error *err)
{
	return environment_service(e, service, SERVICE_ENV, out, err);
}

static int render_exec(struct environment *e, const char *service, struct buffer *out, struct error *err)
{
	return environment_service(e, service, SERVICE_EXEC, out, err);
}

static int render_state(struct environment *e, const char *service, struct buffer *out, struct error *err)
{
	return environment_service(e, service, SERVICE_STATE, out, err);
}

/* ---- events ---- */

static uint64_t events_size(struct environment *e, const char *service, struct shared_version *node)
{
	return environment_events_size(e);
}

static size_t events_read(struct environment *e, const char *service, struct shared_version *node, uint64_t *offset,
                          char *buf, size_t size)
{
	uint64_t start = environment_events_start(e);
	if (*offset < start)
		*offset = start;
	return environment_events_read(e, *offset, buf, size);
}

static const struct control_growing events = {.size = events_size, .read = events_read};

/* ---- the table ---- */

/* clang-format off */
const struct control_file control_files[] = {
	{"env", IN_ROOT, 0600, DEMAND_ENVIRONMENT, WRITE_TEXT, UNLINK_ENVIRONMENT, POLL_ALWAYS,
	 CHANGED_ENV | CHANGED_PORTS | CHANGED_ENV_OWN, 0, render_env},
	{"ports", IN_ROOT, 0600, DEMAND_ENVIRONMENT, WRITE_REFUSED, UNLINK_ENVIRONMENT, POLL_ALWAYS, CHANGED_PORTS, 0, render_ports},
	{"env.json", IN_ROOT, 0600, DEMAND_ENVIRONMENT, WRITE_REFUSED, UNLINK_REFUSED, POLL_ALWAYS,
	 CHANGED_ENV | CHANGED_PORTS | CHANGED_ENV_OWN, 0, render_env_json},
	{"env.container", IN_ROOT, 0600, DEMAND_ENVIRONMENT, WRITE_REFUSED, UNLINK_REFUSED, POLL_ALWAYS,
	 CHANGED_ENV | CHANGED_PORTS | CHANGED_ENV_OWN, 0, render_container},
	{"env.container.json", IN_ROOT, 0600, DEMAND_ENVIRONMENT, WRITE_REFUSED, UNLINK_REFUSED, POLL_ALWAYS,
	 CHANGED_ENV | CHANGED_PORTS | CHANGED_ENV_OWN, 0, render_container_json},
	{"env.container.list", IN_ROOT, 0600, DEMAND_ENVIRONMENT, WRITE_REFUSED, UNLINK_REFUSED, POLL_ALWAYS,
	 CHANGED_ENV | CHANGED_PORTS | CHANGED_ENV_OWN, 0, render_container_list},
	{"compose.yaml", IN_ROOT, 0600, DEMAND_ENVIRONMENT, WRITE_REFUSED, UNLINK_REFUSED, POLL_ALWAYS,
	 CHANGED_ENV | CHANGED_PORTS | CHANGED_SERVICES | CHANGED_STATUS /* volumes are known when they are made */, 0, render_compose},
	{"status.json", IN_ROOT, 0600, DEMAND_NONE, WRITE_REFUSED, UNLINK_ENVIRONMENT, POLL_CHANGED,
	 CHANGED_STATUS | CHANGED_ENV | CHANGED_PORTS | CHANGED_SERVICES, 1000, render_status},
	{"env.own", IN_ROOT, 0400, DEMAND_NONE, WRITE_REFUSED, UNLINK_REFUSED, POLL_ALWAYS, CHANGED_ENV_OWN, 1000, render_env_own},
	{"events", IN_ROOT, 0400, DEMAND_NONE, WRITE_REFUSED, UNLINK_REFUSED, POLL_UNREAD, CHANGED_EVENTS, 0, NULL, &events},
	{"ctl", IN_ROOT, 0600, DEMAND_NONE, WRITE_COMMAND, UNLINK_REFUSED, POLL_ALWAYS, 0, 0, render_commands},
	{"trust.json", IN_ROOT, 0400, DEMAND_NONE, WRITE_REFUSED, UNLINK_REFUSED, POLL_ALWAYS, CHANGED_STATUS, 0, render_trust},
	{"errors.json", IN_ROOT, 0600, DEMAND_NONE, WRITE_REFUSED, UNLINK_ERRORS, POLL_ALWAYS, CHANGED_ERRORS, 0, render_errors},

	{"url", IN_SERVICE, 0400, DEMAND_SERVICE, WRITE_REFUSED, UNLINK_REFUSED, POLL_ALWAYS, CHANGED_ENV | CHANGED_PORTS, 0, render_url},
	{"host", IN_SERVICE, 0400, DEMAND_SERVICE, WRITE_REFUSED, UNLINK_REFUSED, POLL_ALWAYS, CHANGED_ENV | CHANGED_PORTS, 0, render_host},
	{"port", IN_SERVICE, 0400, DEMAND_SERVICE, WRITE_REFUSED, UNLINK_REFUSED, POLL_ALWAYS, CHANGED_ENV | CHANGED_PORTS, 0, render_port},
	{"env", IN_SERVICE, 0400, DEMAND_SERVICE, WRITE_REFUSED, UNLINK_REFUSED, POLL_ALWAYS, CHANGED_ENV | CHANGED_PORTS, 0, render_service_env},
	{"state", IN_SERVICE, 0400, DEMAND_NONE, WRITE_REFUSED, UNLINK_REFUSED, POLL_ALWAYS, CHANGED_STATUS | CHANGED_SERVICES, 0, render_state},
	{"exec", IN_SERVICE, 0400, DEMAND_HELD, WRITE_REFUSED, UNLINK_REFUSED, POLL_ALWAYS, CHANGED_ENV | CHANGED_PORTS | CHANGED_SERVICES, 0, render_exec},
	/* what lies beneath, and in the main checkout, is looked at whenever it is looked up */
	{CONTROL_ENV_FILE_PREFIX, IN_ENV_FILES, 0600, DEMAND_FILE, WRITE_TEXT, UNLINK_REFUSED, POLL_ALWAYS,
	 CHANGED_ENV | CHANGED_PORTS | CHANGED_FILES | CHANGED_OWN_FILES, 1, render_env_file},
	{"log", IN_SERVICE, 0400, DEMAND_NONE, WRITE_REFUSED, UNLINK_REFUSED, POLL_UNREAD, 0, 0, NULL, &control_log},
};
/* clang-format on */
const size_t control_files_count = sizeof control_files / sizeof *control_files;

const struct control_file *control_file_find(enum control_place place, const char *name)
{
	for (size_t i = 0; i < control_files_count; i++)
		if (control_files[i].place == place && strcmp(control_files[i].name, name) == 0)
			return &control_files[i];
	return NULL;
}

char *control_env_file_name(const char *path)
{
	cleanup_free char *flat = env_name_flat(path);
	return xasprintf(CONTROL_ENV_FILE_PREFIX "%s", flat);
}

const struct control_file *control_root_file(struct environment *e, const char *name, const char **ret_owner)
{
	*ret_owner = NULL;
	if (strncmp(name, CONTROL_ENV_FILE_PREFIX, strlen(CONTROL_ENV_FILE_PREFIX)) != 0)
		return control_file_find(IN_ROOT, name);
	for (size_t i = 0; i < environment_file_count(e); i++) {
		cleanup_free char *own = control_env_file_name(environment_file_path(e, i));
		if (strcmp(own, name) != 0)
			continue;
		*ret_owner = environment_file_path(e, i);
		return control_file_find(IN_ENV_FILES, CONTROL_ENV_FILE_PREFIX);
	}
	return NULL;
}

/* ---- keys ---- */

/* Never 0, which is the root's. */
static uint64_t service_bits(const char *service)
{
	return service ? (hash_str(HASH_INIT, service) | 1) << 8 : 0;
}

uint64_t control_file_key(const struct control_file *file, const char *service)
{
	return service_bits(service) | (uint64_t)(CONTROL_FILE_FIRST + (file - control_files));
}

uint64_t control_dir_key(const char *service)
{
	return service_bits(service) | CONTROL_DIR_SERVICE;
}

const struct control_file *control_file_of(uint64_t key)
{
	uint64_t index = key & 0xff;
	return index >= CONTROL_FILE_FIRST && index - CONTROL_FILE_FIRST < control_files_count
	           ? &control_files[index - CONTROL_FILE_FIRST]
	           : NULL;
}

const char *control_service_of(struct environment *e, uint64_t key)
{
	if (key >> 8 == 0)
		return NULL;
	const struct control_file *file = control_file_of(key);
	for (size_t i = 0; file && file->place == IN_ENV_FILES && i < environment_file_count(e); i++)
		if (service_bits(environment_file_path(e, i)) >> 8 == key >> 8)
			return environment_file_path(e, i);
	if (file && file->place == IN_ENV_FILES)
		return NULL;
	for (size_t i = 0; i < environment_service_count(e); i++) {
		const char *name = environment_service_name(e, i);
		if (service_bits(name) >> 8 == key >> 8)
			return name;
	}
	return NULL;
}

char *control_file_path(struct environment *e, uint64_t key)
{
	const struct control_file *file = control_file_of(key);
	const char *owner = control_service_of(e, key);
	if (!file || (!owner && key >> 8))
		return NULL;
	if (file->place == IN_ENV_FILES)
		return control_env_file_name(owner);
	return owner ? xasprintf("services/%s/%s", owner, file->name) : xstrdup(file->name);
}
