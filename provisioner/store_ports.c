/* Port leases. A number belongs to one (namespace, service, key) until it is released; the primary key is what keeps
 * two from having it, bind(2) what keeps us off the ports of others, and a connection what keeps us off those that a packet filter leads elsewhere. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hash.h"
#include "provisioner/port_owner.h"
#include "provisioner/store_sql.h"

#define STEP 7919                   /* prime, so that every number of a range is met once */
#define FOREIGN_MS (10 * 60 * 1000) /* how long a number that somebody else had is left alone */
#define PRIVILEGED_PORTS 1024
#define ARRIVAL_MS 200 /* it is there at once, or never */

/* ---- the range ---- */

struct port_range {
	uint32_t first, count;
};

static uint32_t overlap(uint32_t first, uint32_t last, uint32_t low, uint32_t high)
{
	uint32_t from = first > low ? first : low, to = last < high ? last : high;
	return from <= to ? to - from + 1 : 0;
}

/* Outside [low, high], where the kernel takes its ephemeral ports from: as much of the documented range as lies below
 * or above them, else as many just below or above. Where they fill everything, the range as it is: bind tells. */
static struct port_range range_outside(uint32_t low, uint32_t high)
{
	const uint32_t first = PORT_RANGE_FIRST, last = PORT_RANGE_FIRST + PORT_RANGE_COUNT - 1,
	               enough = PORT_RANGE_COUNT / 10;
	if (low > high || !overlap(first, last, low, high))
		return (struct port_range){first, PORT_RANGE_COUNT};
	if (low >= first + enough)
		return (struct port_range){first, low - first};
	if (high + enough <= last)
		return (struct port_range){high + 1, last - high};
	if (65535 >= high + enough)
		return (struct port_range){high + 1, 65535 - high < PORT_RANGE_COUNT ? 65535 - high : PORT_RANGE_COUNT};
	if (low >= PRIVILEGED_PORTS + enough)
		return (struct port_range){
		    low - PRIVILEGED_PORTS < PORT_RANGE_COUNT ? PRIVILEGED_PORTS : low - PORT_RANGE_COUNT,
		    low - PRIVILEGED_PORTS < PORT_RANGE_COUNT ? low - PRIVILEGED_PORTS : PORT_RANGE_COUNT};
	return (struct port_range){first, PORT_RANGE_COUNT};
}

void port_range_outside(uint32_t low, uint32_t high, uint32_t *ret_first, uint32_t *ret_count)
{
	struct port_range range = range_outside(low, high);
	*ret_first = range.first;
	*ret_count = range.count;
}

static struct port_range port_range(void)
{
	cleanup_fclose FILE *f = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
	unsigned low, high;
	if (!f || fscanf(f, "%u %u", &low, &high) != 2)
		return (struct port_range){PORT_RANGE_FIRST, PORT_RANGE_COUNT};
	return range_outside(low, high);
}

/* ---- is it free? ---- */

/* What an engine published that was killed since: its rules stay, nobody listens, and whoever connects reaches what is gone. */
static bool is_led_elsewhere(int listener, const struct sockaddr *address, socklen_t size)
{
	cleanup_close int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct pollfd arrives = {listener, POLLIN, 0};
	if (fd < 0 || (connect(fd, address, size) && errno != EINPROGRESS && errno != ECONNREFUSED))
		return false; /* not known: there may be no descriptor, no number for this end */
	return poll(&arrives, 1, ARRIVAL_MS) == 0;
}

static bool can_listen(int family, const struct sockaddr *address, socklen_t size, bool *ret_taken)
{
	cleanup_close int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = 1;
	if (fd < 0)
		return false;
	/* as servers do: connections that linger in TIME_WAIT do not count */
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
	if (bind(fd, address, size) || listen(fd, 1)) {
		*ret_taken = errno == EADDRINUSE;
		return false;
	}
	*ret_taken = family == AF_INET && is_led_elsewhere(fd, address, size);
	return !*ret_taken;
}

/* On 127.0.0.1, which also meets listeners on 0.0.0.0 and [::]; and nobody may have it on ::1, where `localhost` leads
 * first. */
static bool probe(uint16_t port)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	bool taken = false;
	if (!can_listen(AF_INET, (const struct sockaddr *)&v4, sizeof v4, &taken))
		return false;
	return can_listen(AF_INET6, (const struct sockaddr *)&v6, sizeof v6, &taken) || !taken;
}

bool store_port_is_free(uint16_t port)
{
	return probe(port);
}

/* ---- leasing ---- */

struct leasing {
	struct store *s;
	const char *namespace_;
	struct port_range range;
	sqlite3_stmt *find, *known, *insert;
	int64_t now_ms;
};

static void leasing_release(struct leasing *l)
{
	sqlite3_finalize(l->find);
	sqlite3_finalize(l->known);
	sqlite3_finalize(l->insert);
}

static int leasing_init(struct leasing *l, struct store *s, const char *namespace_, struct error *err)
{
	*l = (struct leasing){s, namespace_, port_range(), NULL, NULL, NULL, now_wall_ms()};
	int r = sql_prepare(s, &l->find, err, "SELECT port FROM ports WHERE namespace=? AND service=? AND key=?", "");
	if (r == 0)
		r = sql_prepare(
		    s, &l->known, err,
		    "SELECT 1 FROM ports WHERE port=?1 UNION ALL SELECT 1 FROM foreign_ports WHERE port=?1 AND until_ms>?2",
		    "");
	if (r == 0)
		r = sql_prepare(s, &l->insert, err, "INSERT INTO ports(port, namespace, service, key) VALUES(?,?,?,?)", "");
	return r;
}

/* 1 with lease->port when this namespace has it already. */
static int find_held(struct leasing *l, struct port_lease *lease, struct error *err)
{
	int r = sql_bind(l->s, l->find, err, "sss", l->namespace_, lease->service, lease->key);
	if (r == 0)
		r = sql_step(l->s, l->find, err);
	if (r == 1)
		lease->port = (uint16_t)sqlite3_column_int(l->find, 0);
	sqlite3_reset(l->find);
	return r;
}

static int mark_foreign(struct store *s, uint16_t port, struct error *err)
{
	int64_t now = now_wall_ms();
	int r = sql_run(s, err, "DELETE FROM foreign_ports WHERE until_ms<=?", "i", now);
	if (r >= 0)
		r = sql_run(s, err, "INSERT OR REPLACE INTO foreign_ports(port, until_ms) VALUES(?,?)", "ii", (int64_t)port,
		            now + FOREIGN_MS);
	return r < 0 ? r : 0;
}

/* 1 when `port` is the lease's now, 0 when somebody has it. */
static int try_port(struct leasing *l, struct port_lease *lease, uint16_t port, bool mark, struct error *err)
{
	int r = sql_bind(l->s, l->known, err, "ii", (int64_t)port, l->now_ms);
	if (r == 0)
		r = sql_step(l->s, l->known, err);
	sqlite3_reset(l->known);
	if (r)
		return r < 0 ? r : 0;
	if (!probe(port))
		return mark ? mark_foreign(l->s, port, err) : 0;
	r = sql_bind(l->s, l->insert, err, "isss", (int64_t)port, l->namespace_, lease->service, lease->key);
	if (r == 0)
		r = sql_step(l->s, l->insert, err);
	sqlite3_reset(l->insert);
	if (r < 0)
		return r;
	lease->port = port;
	return 1;
}

int store_port_holder(struct store *s, uint16_t port, char **ret, struct error *err)
{
	cleanup_statement sqlite3_stmt *find = NULL;
	int r = sql_prepare(s, &find, err,
	                    "SELECT ports.namespace, service, root FROM ports LEFT JOIN environments USING(namespace)"
	                    " WHERE port=?",
	                    "i", (int64_t)port);
	if (r == 0)
		r = sql_step(s, find, err);
	*ret = NULL;
	if (r == 1) {
		const char *root = (const char *)sqlite3_column_text(find, 2);
		*ret = xasprintf("%s of %s has it", (const char *)sqlite3_column_text(find, 1),
		                 root ? root : (const char *)sqlite3_column_text(find, 0));
	} else if (r == 0 && !probe(port)) {
		cleanup_free char *owner = port_owner(port);
		*ret = owner ? xasprintf("%s uses it", owner)
		             : xstrdup(port < PRIVILEGED_PORTS && geteuid() ? "only root may listen on it" : "another program uses it");
	}
	return r < 0 ? r : 0;
}

/* The lease is held. A refusal is no failure: it keeps what it has, and whoever loads says why. */
static int move(struct leasing *l, struct port_lease *lease, struct error *err)
{
	cleanup_free char *holder = NULL;
	int r = store_port_holder(l->s, lease->preferred, &holder, err);
	if (r < 0 || holder)
		return r;
	if (lease->move == LEASE_MAY_MOVE) {
		lease->port = lease->preferred;
		lease->moves = true;
		return 0;
	}
	r = sql_run(l->s, err, "UPDATE ports SET port=? WHERE namespace=? AND service=? AND key=?", "isss",
	            (int64_t)lease->preferred, l->namespace_, lease->service, lease->key);
	if (r >= 0)
		lease->port = lease->preferred;
	return r < 0 ? r : 0;
}

static bool wants_to_move(const struct port_lease *lease)
{
	return (lease->move || lease->strict) && lease->preferred && lease->port != lease->preferred;
}

static int exhausted(const struct leasing *l, const struct port_lease *lease, struct error *err)
{
	int r = error_set(err, ERROR_PORT_ALLOCATION_FAILED, "no port is free between %u and %u for %s %s", l->range.first,
	                  l->range.first + l->range.count - 1, *lease->service ? lease->service : "the application",
	                  lease->key);
	error_hint(err, "ajj list shows the environments that hold them; ajj cleanup forgets those that are gone");
	if (err) {
		error_detail(err, "first", json_integer(l->range.first));
		error_detail(err, "count", json_integer(l->range.count));
	}
	return r;
}

/* The number asked for, whether another is held or none. */
static int lease_strictly(struct leasing *l, struct port_lease *lease, struct error *err)
{
	int r = find_held(l, lease, err);
	if (r == 1 && lease->port != lease->preferred)
		r = move(l, lease, err);
	else if (r == 0)
		r = try_port(l, lease, lease->preferred, false, err);
	if (r >= 0 && lease->port != lease->preferred)
		lease->port = 0;
	return r < 0 ? r : 0;
}

static int lease_one(struct leasing *l, struct port_lease *lease, struct error *err)
{
	if (lease->strict && lease->preferred)
		return lease_strictly(l, lease, err);
	int r = find_held(l, lease, err);
	if (r == 1 && wants_to_move(lease))
		return move(l, lease, err);
	if (r == 0 && lease->preferred)
		r = try_port(l, lease, lease->preferred, false, err); /* somebody's own server may be gone the next time */
	uint64_t start = hash_str(hash_str(hash_str(HASH_INIT, l->namespace_), lease->service), lease->key);
	uint32_t step = l->range.count % STEP ? STEP : 1;
	for (uint64_t n = 0; r == 0 && n < l->range.count; n++)
		r = try_port(l, lease, (uint16_t)(l->range.first + (start % l->range.count + n * step) % l->range.count), true,
		             err);
	if (r == 0)
		r = exhausted(l, lease, err);
	return r < 0 ? r : 0;
}

/* 1 when all are held already, which is what every start but the first finds: no lock is taken for that. */
static int all_held(struct leasing *l, struct port_lease *leases, size_t count, struct error *err)
{
	int r = 1;
	for (size_t i = 0; r == 1 && i < count; i++)
		r = find_held(l, &leases[i], err) == 1 ? !wants_to_move(&leases[i]) : 0;
	return r;
}

int store_ports_lease(struct store *s, const char *namespace_, struct port_lease *leases, size_t count,
                      struct error *err)
{
	__attribute__((cleanup(leasing_release))) struct leasing l = {0};
	cleanup_transaction struct transaction t = TRANSACTION_INIT;
	int r = leasing_init(&l, s, namespace_, err);
	if (r == 0)
		r = all_held(&l, leases, count, err);
	if (r)
		return r < 0 ? r : 0;
	r = transaction_begin(s, &t, err);
	for (size_t i = 0; r == 0 && i < count; i++)
		r = lease_one(&l, &leases[i], err);
	return r < 0 ? r : transaction_commit(&t, err);
}

int store_port_replace(struct store *s, const char *namespace_, const char *service, const char *key, uint16_t *ret,
                       struct error *err)
{
	struct port_lease lease = {.service = service, .key = key};
	__attribute__((cleanup(leasing_release))) struct leasing l = {0};
	cleanup_transaction struct transaction t = TRANSACTION_INIT;
	int r = leasing_init(&l, s, namespace_, err);
	if (r == 0)
		r = transaction_begin(s, &t, err);
	if (r == 0)
		r = find_held(&l, &lease, err);
	if (r == 1)
		r = mark_foreign(s, lease.port, err);
	if (r == 0)
		r = sql_run(s, err, "DELETE FROM ports WHERE namespace=? AND service=? AND key=?", "sss", namespace_, service,
		            key);
	if (r >= 0)
		r = lease_one(&l, &lease, err);
	if (r >= 0)
		r = transaction_commit(&t, err);
	if (r == 0)
		*ret = lease.port;
	return r;
}

int store_ports_release(struct store *s, const char *namespace_, struct error *err)
{
	int r = sql_run(s, err, "DELETE FROM ports WHERE namespace=?", "s", namespace_);
	return r < 0 ? r : 0;
}
