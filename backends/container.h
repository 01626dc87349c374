/* What of Compose's service fields only a container has: https://github.com/compose-spec/compose-spec/blob/main/05-services.md.
 * Zero and NULL are the image's or the engine's own. Whoever fills one owns what it points to, and releases it. */
#ifndef BACKENDS_CONTAINER_H
#define BACKENDS_CONTAINER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/strv.h"

enum pull_policy { PULL_MISSING, PULL_ALWAYS, PULL_NEVER, PULL_OLD /* and when it was pulled longer ago than pull_after_s */ };

struct ulimit_option {
	char *name;         /* "nofile" */
	int64_t soft, hard; /* -1: unlimited */
};

/* 0: the image's, or the engine's own */
struct container_check {
	char **test; /* "CMD" and words, "CMD-SHELL" and a text, or "NONE"; NULL: the image's */
	unsigned interval_ms, timeout_ms, start_period_ms, start_interval_ms, retries;
};

struct container_options {
	char *user;     /* UID[:GID] or names of the image's */
	char *hostname, *domainname;
	char *platform; /* os[/arch[/variant]] */
	char *network;  /* "host", "none", "service:NAME", "container:NAME"; NULL: the environment's */
	char *pid, *ipc, *uts, *userns, *cgroup; /* modes: "host", "private", ... */
	char *runtime;
	char *cpuset, *cgroup_parent;
	char **cap_add, **cap_drop, **group_add, **security_opt;
	char **devices;     /* HOST[:CONTAINER[:PERMISSIONS]] */
	char **device_rules;
	char **device_requests; /* by what they can do (gpus), each as JSON: a DeviceRequest of the engine's API */
	char **volumes_from; /* SERVICE[:ro] or container:NAME[:ro] */
	char **networks;    /* of others, which it is on as well */
	char **network_names; /* NETWORK NAME: what it is called there, beside its container's own name */
	char **external_links; /* CONTAINER[:ALIAS], of others', on these networks */
	char **dns, **dns_search, **dns_options;
	char **extra_hosts; /* NAME:ADDRESS, the address may be "host-gateway" */
	struct keyvals labels, sysctls, storage, annotations;
	char *log_driver;    /* NULL: the engine's */
	struct keyvals log_options;
	char *ipv4_address;  /* there, of the subnet that the file gives it */
	char *mac_address;   /* on the environment's network */
	char *blkio;         /* JSON: what HostConfig says of it */
	char **post_start, **pre_stop; /* each as JSON: the body of POST /containers/ID/exec */
	struct ulimit_option *ulimits;
	size_t n_ulimits;
	uint64_t shm_bytes, memory_reservation_bytes;
	int64_t memory_swap_bytes; /* memory and swap together; -1: unlimited */
	int64_t memory_swappiness; /* from 0; UNSET: the engine's */
	int64_t cpu_shares, cpu_quota, cpu_period, oom_score_adj; /* quota and period in microseconds */
	bool privileged, read_only, init, tty, stdin_open, oom_kill_disable;
	struct container_check check; /* instead of the image's HEALTHCHECK */
	enum pull_policy pull;
	unsigned pull_after_s;
};

#define CONTAINER_UNSET INT64_MIN
#define CONTAINER_OPTIONS_INIT {.memory_swappiness = CONTAINER_UNSET}

#define CONTAINER_LABEL_PRE_STOP "aether.pre-stop" /* whoever stops it need not know what it was made from */
/* new: the value of that label, a JSON list; NULL: there are none */
char *container_hooks_text(char *const *hooks);

/* base/hash.h, of all of it */
uint64_t container_options_hash(uint64_t h, const struct container_options *o);
void ulimit_options_free(struct ulimit_option *list, size_t count);
void container_options_release(struct container_options *o);

#endif
