/* Limits and the sure end of everything, where cgroups are ours to make: version 2
 * (Documentation/admin-guide/cgroup-v2.rst), then the controllers of version 1. Root makes them below BASE/aether; an
 * ordinary user where systemd has delegated: beside the cgroup that this process is in, or in it. Where there are none:
 * rlimits, which count per process. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/process.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"

#define AREA "process"
#define CPU_PERIOD_US 100000

enum version { V2, V1 };

/* One place where cgroups of ours can be made. */
struct hierarchy {
	enum version version;
	char *base;      /* our directories begin below it; NULL: not usable */
	unsigned offers; /* PROCESS_LIMIT_* */
};

enum { UNIFIED, MEMORY, PIDS, CPU, N_HIERARCHIES };
static struct hierarchy hierarchies[N_HIERARCHIES];

static const struct {
	const char *controller; /* mount option of version 1 */
	unsigned limit;
} v1[] = {[MEMORY] = {"memory", PROCESS_LIMIT_MEMORY},
          [PIDS] = {"pids", PROCESS_LIMIT_PIDS},
          [CPU] = {"cpu", PROCESS_LIMIT_CPU}};

/* ---- looking ---- */

static int text_write(const char *directory, const char *file, const char *text)
{
	cleanup_free char *path = xasprintf("%s/%s", directory, file);
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 ? -errno : write_all(fd, text, strlen(text));
}

static bool has(const char *directory, const char *file)
{
	cleanup_free char *path = xasprintf("%s/%s", directory, file);
	return !access(path, F_OK);
}

/* new: the path of this process in the version 2 hierarchy ("0::/path"); NULL: none. */
static char *own_path(void)
{
	cleanup_buffer struct buffer text = BUFFER_INIT;
	if (file_read(AT_FDCWD, "/proc/self/cgroup", 65536, &text))
		return NULL;
	for (char *line = strtok(text.data, "\n"); line; line = strtok(NULL, "\n"))
		if (!strncmp(line, "0::", 3))
			return xstrdup(line + 3);
	return NULL;
}

/* A directory that we could make and enter; the controllers that it then has. Version 2 wants them enabled from above.
 */
static bool can_make(const char *base, enum version version, unsigned *ret_offers)
{
	cleanup_free char *probe = xasprintf("%s/aether-probe-%d", base, (int)getpid());
	if (version == V2)
		for (const char *const *c = (const char *const[]){"+memory", "+pids", "+cpu", NULL}; *c; c++)
			text_write(base, "cgroup.subtree_control", *c);
	if (mkdir(probe, 0755))
		return false;
	cleanup_free char *procs = xasprintf("%s/cgroup.procs", probe);
	bool usable = !access(procs, W_OK);
	if (version == V2)
		*ret_offers =
		    (has(probe, "memory.max") ? PROCESS_LIMIT_MEMORY : 0) | (has(probe, "pids.max") ? PROCESS_LIMIT_PIDS : 0) |
		    (has(probe, "cpu.max") ? PROCESS_LIMIT_CPU : 0) | (has(probe, "cgroup.kill") ? PROCESS_LIMIT_KILL : 0);
	rmdir(probe);
	return usable;
}

/* Moving a process between two cgroups asks for write permission on what both are below: root has it anywhere, an
 * ordinary user beside or below where it is. */
static void look_unified(const char *mount)
{
	struct hierarchy *h = &hierarchies[UNIFIED];
	cleanup_free char *own = own_path();
	cleanup_free char *in = xasprintf("%s%s", mount, own && strcmp(own, "/") ? own : "");
	cleanup_free char *beside = xstrdup(in);
	char *slash = strrchr(beside + strlen(mount), '/');
	if (slash)
		*slash = '\0';
	const char *const places[] = {geteuid() ? beside : mount, geteuid() ? in : NULL};
	for (size_t i = 0; i < 2 && !h->base; i++) {
		cleanup_free char *procs = xasprintf("%s/cgroup.procs", places[i] ? places[i] : "");
		if (places[i] && !access(procs, W_OK) && can_make(places[i], V2, &h->offers))
			h->base = xstrdup(places[i]);
	}
}

static void look_v1(const struct mntent *m)
{
	for (size_t i = MEMORY; i < N_HIERARCHIES; i++) {
		struct hierarchy *h = &hierarchies[i];
		if (h->base || !hasmntopt(m, v1[i].controller) || !can_make(m->mnt_dir, V1, NULL))
			continue;
		*h = (struct hierarchy){V1, xstrdup(m->mnt_dir), v1[i].limit};
	}
}

/* Removes the empty ones below `path`: what was killed together with its keeper has nobody else. One that is just being
 * made may go with them; its maker makes it again. */
static void sweep_below(const char *path, int levels)
{
	cleanup_closedir DIR *d = levels ? opendir(path) : NULL;
	struct dirent *e;
	while (d && (e = readdir(d))) {
		if (e->d_type != DT_DIR || e->d_name[0] == '.')
			continue;
		cleanup_free char *child = xasprintf("%s/%s", path, e->d_name);
		sweep_below(child, levels - 1);
		rmdir(child);
	}
}

static void sweep(const char *base)
{
	cleanup_free char *top = xasprintf("%s/aether", base);
	sweep_below(top, 2);
}

static void look(void)
{
	FILE *mounts = setmntent("/proc/self/mounts", "re");
	struct mntent m;
	char text[4096];
	while (mounts && getmntent_r(mounts, &m, text, sizeof text)) {
		if (!strcmp(m.mnt_type, "cgroup2") && !hierarchies[UNIFIED].base)
			look_unified(m.mnt_dir);
		if (!strcmp(m.mnt_type, "cgroup"))
			look_v1(&m);
	}
	if (mounts)
		endmntent(mounts);
	for (size_t i = 0; i < N_HIERARCHIES; i++)
		if (hierarchies[i].base)
			sweep(hierarchies[i].base);
}

unsigned process_limits_available(const struct process_settings *p)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	if (atomic_load(&p->no_cgroups))
		return 0;
	pthread_once(&once, look);
	unsigned all = 0;
	for (size_t i = 0; i < N_HIERARCHIES; i++)
		all |= hierarchies[i].base ? hierarchies[i].offers : 0;
	return all;
}

/* ---- making ---- */

/* BASE/aether/NAMESPACE-HASH/SERVICE: one namespace may stand in two state directories (a test's, another root's), and
 * what is in a cgroup of ours is killed without a question. */
static char *environment_cgroup(const struct process_settings *p, const char *top)
{
	return xasprintf("%s/%s-%08x", top, p->namespace_, (unsigned)hash_str(HASH_INIT, p->state_dir));
}

/* Each level of version 2 passes its controllers on. Another environment may remove the empty
 * upper level between our two steps. */
static char *cgroup_make(const struct process_settings *p, const struct hierarchy *h, const char *service)
{
	cleanup_free char *top = xasprintf("%s/aether", h->base);
	cleanup_free char *middle = environment_cgroup(p, top);
	cleanup_free char *leaf = xasprintf("%s/%s", middle, service);
	const char *const levels[] = {top, middle, leaf};
	for (int tries = 0; tries < 5; tries++)
		for (size_t i = 0; i < 3; i++) {
			if (mkdir(levels[i], 0755) && errno != EEXIST)
				break;
			if (i == 2)
				return move_ptr(leaf);
			if (h->version == V2)
				for (const char *const *c = (const char *const[]){"+memory", "+pids", "+cpu", NULL}; *c; c++)
					text_write(levels[i], "cgroup.subtree_control", *c);
		}
	return NULL;
}

static void __attribute__((format(printf, 3, 4))) set(const char *cgroup, const char *file, const char *fmt, ...)
{
	char text[64];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	int r = text_write(cgroup, file, text);
	if (r)
		log_warning(AREA, "%s/%s: %s", cgroup, file, strerror(-r));
}

static void set_v2(const char *cgroup, unsigned offers, const struct process_limits *l, struct buffer *order)
{
	if (offers & PROCESS_LIMIT_MEMORY) {
		if (l->memory_bytes)
			set(cgroup, "memory.max", "%lld", (long long)l->memory_bytes);
		process_order_add(order, "memory_events", "%s/memory.events", cgroup);
	}
	if ((offers & PROCESS_LIMIT_PIDS) && l->pids > 0)
		set(cgroup, "pids.max", "%lld", (long long)l->pids);
	if ((offers & PROCESS_LIMIT_CPU) && l->cpus > 0)
		set(cgroup, "cpu.max", "%lld %d", (long long)(l->cpus * CPU_PERIOD_US), CPU_PERIOD_US);
}

static void set_v1(const char *cgroup, unsigned offers, const struct process_limits *l, struct buffer *order)
{
	if (offers & PROCESS_LIMIT_MEMORY) {
		set(cgroup, "memory.limit_in_bytes", "%lld", (long long)l->memory_bytes);
		process_order_add(order, "memory_events", "%s/memory.oom_control", cgroup);
	}
	if (offers & PROCESS_LIMIT_PIDS)
		set(cgroup, "pids.max", "%lld", (long long)l->pids);
	if (offers & PROCESS_LIMIT_CPU) {
		set(cgroup, "cpu.cfs_period_us", "%d", CPU_PERIOD_US);
		set(cgroup, "cpu.cfs_quota_us", "%lld", (long long)(l->cpus * CPU_PERIOD_US));
	}
}

static unsigned limits_wanted(const struct process_limits *l)
{
	return (l->memory_bytes ? PROCESS_LIMIT_MEMORY : 0) | (l->pids > 0 ? PROCESS_LIMIT_PIDS : 0) |
	       (l->cpus > 0 ? PROCESS_LIMIT_CPU : 0);
}

/* In a user namespace of its own, a service's processes are all that RLIMIT_NPROC counts (since Linux 5.14); elsewhere
 * it counts what else has the uid, the environment's other services to begin with, and would refuse this one's start.
 */
static void apply_rlimits(const struct process_settings *p, const struct process_limits *l, unsigned have,
                          struct buffer *order)
{
	if (l->memory_bytes && !(have & PROCESS_LIMIT_MEMORY))
		process_order_add(order, "limit_data", "%llu", (unsigned long long)l->memory_bytes);
	bool own_count = p->uid == (uid_t)-1 && !atomic_load(&p->no_namespaces);
	if (l->pids > 0 && !(have & PROCESS_LIMIT_PIDS) && own_count)
		process_order_add(order, "limit_processes", "%lld", (long long)l->pids);
}

void process_limits_apply(const struct process_settings *p, const char *service, const struct process_limits *l,
                          struct buffer *order)
{
	unsigned have = process_limits_available(p), wanted = limits_wanted(l);
	apply_rlimits(p, l, have, order);
	for (size_t i = 0; have && i < N_HIERARCHIES; i++) {
		const struct hierarchy *h = &hierarchies[i];
		bool needed = h->version == V1 ? (wanted & h->offers & ~(i ? hierarchies[UNIFIED].offers : 0)) != 0
		                               : (h->offers & (wanted | PROCESS_LIMIT_KILL)) != 0;
		cleanup_free char *cgroup = h->base && needed ? cgroup_make(p, h, service) : NULL;
		if (!cgroup)
			continue;
		if (h->version == V2)
			set_v2(cgroup, h->offers, l, order);
		else
			set_v1(cgroup, h->offers, l, order);
		process_order_add(order, "cgroup", "%s", cgroup);
	}
}

/* ---- removing ---- */

void process_limits_remove(const struct process_settings *p, const char *service)
{
	unsigned have = process_limits_available(p);
	for (size_t i = 0; have && i < N_HIERARCHIES; i++) {
		if (!hierarchies[i].base)
			continue;
		cleanup_free char *top = xasprintf("%s/aether", hierarchies[i].base);
		cleanup_free char *middle = environment_cgroup(p, top);
		cleanup_free char *leaf = xasprintf("%s/%s", middle, service);
		if (has(leaf, "cgroup.kill"))
			text_write(leaf, "cgroup.kill", "1");
		rmdir(leaf);
		rmdir(middle); /* these two while others use them: refused, as it should be */
		rmdir(top);
	}
}
