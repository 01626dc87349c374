/* A program beside a service that is a process: as the service's shim was told to run that. Its order is still open there, so what is run is what
 * was approved when the service was started, whatever the configuration says by now. */
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/attached_process.h"
#include "backends/process.h"
#include "backends/shim.h"
#include "backends/shim_order.h"
#include "base/alloc.h"
#include "base/cleanup.h"

/* ---- the service ---- */

static void order_release(struct order *o)
{
	free(o->arguments.items);
	free(o->environment.items);
	free(o->cgroups.items);
}
#define cleanup_order __attribute__((cleanup(order_release)))

static int open_of(pid_t shim, const char *name)
{
	cleanup_free char *path = xasprintf("/proc/%d/%s", (int)shim, name);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static int not_running(const char *service, struct error *err)
{
	error_set(err, ERROR_SERVICE_FAILED, "service %s does not run", service);
	return error_hint(err, "ajj start %s", service);
}

/* The shim that answers for the service; it was looked for by the lock, so its number is its own. */
static int find_shim(const struct attachment_spec *spec, struct process_found *ret, struct error *err)
{
	cleanup_free char *directory = xasprintf("%s/services/%s", spec->state_dir, spec->service);
	int r = process_find(directory, ret, err);
	return r ? r : ret->shim_pidfd < 0 || ret->record.ended ? not_running(spec->service, err) : 0;
}

static int read_order(const struct attachment_spec *spec, pid_t shim, struct order *ret, struct error *err)
{
	cleanup_free char *name = xasprintf("fd/%d", SHIM_FD_ORDER);
	cleanup_close int fd = open_of(shim, name);
	int r = fd < 0 ? -errno : order_read(fd, ret);
	if (r == 0)
		return 0;
	error_set_errno(err, r == -EACCES || r == -EPERM ? ERROR_PERMISSION : ERROR_SERVICE_FAILED, -r, "service %s does not tell how it is run", spec->service);
	return error_hint(err, "ajj restart %s", spec->service);
}

/* ---- how the program is run ---- */

static void take_environment(const struct attachment_spec *spec, const struct order *o, struct keyvals *env)
{
	if (spec->defaults)
		keyvals_copy(env, spec->defaults);
	for (size_t i = 0; i < o->environment.count; i++) {
		const char *text = o->environment.items[i], *equals = strchr(text, '=');
		cleanup_free char *key = equals ? xstrndup(text, (size_t)(equals - text)) : NULL;
		if (key)
			keyvals_set(env, key, equals + 1);
	}
	if (spec->env)
		keyvals_copy(env, spec->env);
}

static int take_user(const struct attachment_spec *spec, const struct order *o, struct attached_process *p, struct error *err)
{
	p->uid = o->uid < 0 ? (uid_t)-1 : (uid_t)o->uid;
	p->gid = o->gid < 0 ? (gid_t)-1 : (gid_t)o->gid;
	p->no_new_privileges = o->no_new_privileges > 0;
	if (!spec->user)
		return 0;
	char *end;
	unsigned long number = strtoul(spec->user, &end, 10);
	const struct passwd *known = getpwnam(spec->user);
	if (!known && (*end || end == spec->user || number >= (uid_t)-1))
		return error_set(err, ERROR_USAGE, "there is no user %s", spec->user);
	uid_t uid = known ? known->pw_uid : (uid_t)number;
	if (geteuid() && uid != geteuid())
		return error_set(err, ERROR_PERMISSION, "only root may run something as %s", spec->user);
	if (geteuid())
		return 0;
	p->uid = uid;
	p->gid = known ? known->pw_gid : (gid_t)number;
	p->no_new_privileges = false;
	return 0;
}

int process_attach(const struct attachment_spec *spec, struct attachment **ret, struct error *err)
{
	cleanup_found struct process_found found = PROCESS_FOUND_INIT;
	cleanup_order struct order o = {0};
	cleanup_keyvals struct keyvals env = KEYVALS_INIT;
	if (!spec->service) {
		error_set(err, ERROR_CONFIG_INVALID, "there is no container engine here: services are processes of this machine");
		return error_hint(err, "ajj run -- COMMAND runs it here; x-aether: { backend: docker } has the services in containers");
	}
	int r = find_shim(spec, &found, err);
	if (!r)
		r = read_order(spec, found.record.shim, &o, err);
	if (r)
		return r;
	cleanup_close int pid_ns = o.namespaces ? open_of(found.record.shim, "ns/pid_for_children") : -1;
	cleanup_close int user_ns = o.namespaces && !strcmp(o.namespaces, "user") ? open_of(found.record.shim, "ns/user") : -1;
	cleanup_free char *what = xasprintf("service %s", spec->service);
	struct attached_process p = {.what = what, .argv = spec->argv, .env = &env, .directory = spec->directory ? spec->directory : o.directory, .cgroups = o.cgroups.items,
	                             .user_ns = user_ns, .pid_ns = pid_ns, .until = found.shim_pidfd, .terminal = spec->terminal, .rows = spec->rows, .columns = spec->columns};
	take_environment(spec, &o, &env);
	r = take_user(spec, &o, &p, err);
	return r ? r : attached_process_open(&p, ret, err);
}
