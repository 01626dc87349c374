/* An environment.h whose every answer the test decides, through memory that it shares with the server process. Included by
 * one source file of a test program, it takes the place of the real one there. */
#ifndef TESTS_FAKE_ENVIRONMENT_H
#define TESTS_FAKE_ENVIRONMENT_H

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "fs/unlinked.h"
#include "provisioner/environment.h"

#define FAKE_SERVICES 3

struct fake {
	/* what the test says */
	_Atomic bool ready;           /* demands are answered at once */
	_Atomic int demand_errno;     /* demands and commands end with it */
	_Atomic int render_errno;     /* env cannot be rendered */
	_Atomic bool finish;          /* ends everything that waits, once */
	_Atomic bool loading;         /* a server that starts has not read its configuration */
	_Atomic bool restless;        /* env changes between every lookup and its open */
	_Atomic unsigned changed;     /* calls environment_params.changed with it, once */
	_Atomic int service_count;    /* of `db`, `cache`, `a b` */
	_Atomic uint64_t events_end, events_begin;
	char events[1 << 20];
	char env[8192];
	char status[8192];
	char log[512];                /* path; "": none */
	/* what it was asked */
	_Atomic int demands, waiting, unlinked, replaced, errors_cleared, commands, writes;
	_Atomic int unlinked_delay;
	char demanded[64], demander[64], removed[64], command[64];
	_Atomic int demander_pid, unlinker_pid, replacer_pid;
	char written[8192];
	_Atomic unsigned written_len;
	_Atomic bool with_leases;     /* status.json is the list of leases */
};

static struct fake *fake; /* shared between test and server */

struct demand {
	struct demand *next;
	demand_done *done;
	void *arg;
	bool command;
};

struct environment {
	struct demand *waiting;
	json_t *(*leases)(void *arg);
	void *leases_arg;
};

static int fake_error(struct error *err)
{
	static const enum error_code codes[] = {ERROR_BACKEND_UNREACHABLE, ERROR_NOT_READY, ERROR_CONFIG_INVALID, ERROR_CONFIG_UNTRUSTED,
	                                        ERROR_NO_SPACE};
	for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
		if (error_code_errno(codes[i]) == fake->demand_errno) { /* the reason is another errno than what is reported */
			error_set_errno(err, codes[i], ENOTTY, "as the test says");
			return -fake->demand_errno;
		}
	return error_set_errno(err, ERROR_INTERNAL, fake->demand_errno, "as the test says");
}

static struct demand *fake_wait(struct environment *e, demand_done *done, void *arg, bool command)
{
	struct demand *d = xcalloc(1, sizeof *d);
	*d = (struct demand){e->waiting, done, arg, command};
	e->waiting = d;
	fake->waiting++;
	return d;
}

static struct environment *fake_environment;

/* Called by the server every few milliseconds. */
static inline void fake_turn(struct environment *e, void (*changed)(void *arg, unsigned what), void *arg)
{
	unsigned what = atomic_exchange(&fake->changed, 0);
	if (what)
		changed(arg, what);
	if (!atomic_exchange(&fake->finish, false))
		return;
	while (e->waiting) {
		struct demand *d = e->waiting;
		e->waiting = d->next;
		fake->waiting--;
		cleanup_error struct error err = ERROR_INIT;
		if (fake->demand_errno)
			fake_error(&err);
		d->done(d->arg, fake->demand_errno ? &err : NULL);
		free(d);
	}
}

int environment_demand(struct environment *e, const char *service, const struct requester *who, demand_done *done,
                       void *arg, struct demand **ret, struct error *err)
{
	fake->demands++;
	snprintf(fake->demanded, sizeof fake->demanded, "%s", service ? service : "*");
	snprintf(fake->demander, sizeof fake->demander, "%s", who->command);
	fake->demander_pid = who->pid;
	if (fake->ready)
		return fake->demand_errno ? fake_error(err) : 0;
	*ret = fake_wait(e, done, arg, false);
	return 1;
}

int environment_demand_file(struct environment *e, const char *path, const struct requester *who, demand_done *done, void *arg,
                            struct demand **ret, struct error *err)
{
	return environment_demand(e, NULL, who, done, arg, ret, err);
}

size_t environment_file_count(const struct environment *e)
{
	return 0;
}

const char *environment_file_path(const struct environment *e, size_t i)
{
	return NULL;
}

int environment_file(struct environment *e, const char *path, struct buffer *out, struct error *err)
{
	return -ESTALE;
}

int environment_write_file(struct environment *e, const char *path, const char *text, size_t len, struct error *err)
{
	return -ESTALE;
}

void demand_cancel(struct demand *d)
{
	if (!d)
		return;
	for (struct demand **p = &fake_environment->waiting; *p; p = &(*p)->next) {
		if (*p == d) {
			*p = d->next;
			fake->waiting--;
			free(d);
			return;
		}
	}
	abort(); /* called off twice, or after it ended */
}

void environment_command(struct environment *e, const char *line, const struct requester *who, demand_done *done, void *arg)
{
	fake->commands++;
	snprintf(fake->command, sizeof fake->command, "%s", line);
	fake_wait(e, done, arg, true);
	if (fake->ready)
		fake->finish = true;
}

void environment_command_forsaken(struct environment *e, const void *arg)
{
}

const char *environment_command_list(void)
{
	return "up     start\ndown   stop\n";
}

void environment_tell(struct environment *e)
{
}

void environment_unlinked(struct environment *e, const struct requester *who, unsigned delay_ms)
{
	fake->unlinked++;
	fake->unlinker_pid = who->pid;
	fake->unlinked_delay = (int)delay_ms;
}

void environment_replaced(struct environment *e, pid_t tgid)
{
	fake->replaced++;
	fake->replacer_pid = tgid;
}

int environment_write_env(struct environment *e, const char *text, size_t len, struct error *err)
{
	fake->writes++;
	fake->written_len = (unsigned)len;
	memset(fake->written, 0, sizeof fake->written);
	if (len)
		memcpy(fake->written, text, len < sizeof fake->written - 1 ? len : sizeof fake->written - 1);
	if (fake->demand_errno)
		return fake_error(err);
	snprintf(fake->env, sizeof fake->env, "%s", fake->written);
	return 0;
}

int environment_env(struct environment *e, struct buffer *out, struct error *err)
{
	if (fake->render_errno)
		return error_set_errno(err, ERROR_CONFIG_INVALID, fake->render_errno, "no text");
	buffer_adds(out, fake->env);
	return 0;
}

int environment_container(struct environment *e, enum container_text form, struct buffer *out, struct error *err)
{
	return environment_env(e, out, err);
}

void environment_compose(struct environment *e, struct buffer *out)
{
}

int environment_env_json(struct environment *e, struct buffer *out, struct error *err)
{
	buffer_printf(out, "{\"length\": %zu}\n", strlen(fake->env));
	return 0;
}

void environment_ports(struct environment *e, struct buffer *out)
{
	buffer_adds(out, "db 5432 127.0.0.1 21001\n");
}

void environment_status(struct environment *e, struct buffer *out)
{
	if (!fake->with_leases) {
		buffer_adds(out, fake->status);
		return;
	}
	json_t *leases = e->leases(e->leases_arg);
	cleanup_free char *text = json_dumps(leases, JSON_COMPACT);
	buffer_adds(out, text);
	json_decref(leases);
}

void environment_env_own(struct environment *e, struct buffer *out)
{
	buffer_adds(out, "OWN=1\n");
}

void environment_errors(struct environment *e, struct buffer *out)
{
	buffer_printf(out, "[%d]\n", fake->errors_cleared);
}

void environment_trust(struct environment *e, struct buffer *out)
{
	buffer_adds(out, "{}\n");
}

void environment_errors_clear(struct environment *e)
{
	fake->errors_cleared++;
}

size_t environment_events_read(struct environment *e, uint64_t offset, char *buf, size_t size)
{
	uint64_t from = offset < fake->events_begin ? fake->events_begin : offset;
	if (from >= fake->events_end)
		return 0;
	size_t n = fake->events_end - from < size ? fake->events_end - from : size;
	memcpy(buf, fake->events + from, n);
	return n;
}

uint64_t environment_events_size(struct environment *e)
{
	return fake->events_end;
}

uint64_t environment_events_start(struct environment *e)
{
	return fake->events_begin;
}

size_t environment_service_count(struct environment *e)
{
	return (size_t)fake->service_count;
}

const char *environment_service_name(struct environment *e, size_t i)
{
	static const char *const names[FAKE_SERVICES] = {"db", "cache", "a b"};
	return names[i];
}

bool environment_has_service(struct environment *e, const char *service)
{
	for (size_t i = 0; i < environment_service_count(e); i++)
		if (strcmp(environment_service_name(e, i), service) == 0)
			return true;
	return false;
}

int environment_service(struct environment *e, const char *service, enum service_text what, struct buffer *out, struct error *err)
{
	static const char *const texts[] = {"url", "host", "port", "env", "state"};
	buffer_printf(out, "%s of %s\n", texts[what], service);
	return 0;
}

char *environment_service_log(struct environment *e, const char *service)
{
	return fake->log[0] ? xstrdup(fake->log) : NULL;
}

int environment_service_remove(struct environment *e, const char *service, const struct requester *who, struct error *err)
{
	snprintf(fake->removed, sizeof fake->removed, "%s", service);
	return fake->demand_errno ? fake_error(err) : 0;
}

void requester_of(pid_t tid, struct requester *ret)
{
	cleanup_buffer struct buffer comm = BUFFER_INIT;
	char path[64];
	*ret = (struct requester){.pid = thread_group(tid)};
	snprintf(path, sizeof path, "/proc/%d/comm", (int)ret->pid);
	file_read(AT_FDCWD, path, 64, &comm);
	snprintf(ret->command, sizeof ret->command, "%.*s", (int)strcspn(buffer_str(&comm), "\n"), buffer_str(&comm));
}

#endif
