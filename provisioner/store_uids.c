/* Under root every environment's services run as a user of their own, a number without a name from UID_RANGE_*. */
#include <ctype.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/hash.h"
#include "provisioner/store_sql.h"

struct span {
	uint64_t first, count;
};

/* The first is where nobody else puts users: above the first ten users' subordinate ranges (subuid(5), 65536 each from
 * 100000), below those that container managers take (1000000 and up), and within what old archive formats hold. The
 * second is for a root whose user namespace has 65536 users only: between systemd-homed's and its dynamic users
 * (https://systemd.io/UIDS-GIDS/). */
static const struct span ranges[] = {
    {UID_RANGE_FIRST, UID_RANGE_COUNT},
    {60600, 500},
};

/* May a process here have these uids? They must be inside this user namespace's map, user_namespaces(7). */
static bool is_mapped(const struct span *range)
{
	cleanup_fclose FILE *f = fopen("/proc/self/uid_map", "re");
	unsigned long long inside, outside, count;
	while (f && fscanf(f, "%llu %llu %llu", &inside, &outside, &count) == 3)
		if (inside <= range->first && range->first + range->count <= inside + count)
			return true;
	return !f;
}

/* Does a line of /etc/subuid, "name:first:count", give this number to somebody? */
static bool is_subordinate(uint64_t uid)
{
	cleanup_fclose FILE *f = fopen("/etc/subuid", "re");
	char line[512];
	while (f && fgets(line, sizeof line, f)) {
		const char *colon = strchr(line, ':');
		unsigned long long first, count;
		if (colon && sscanf(colon, ":%llu:%llu", &first, &count) == 2 && uid >= first && uid - first < count)
			return true;
	}
	return false;
}

/* Of /etc/passwd alone: asking a directory service about a number may take seconds. */
static bool has_a_name(uint64_t uid)
{
	cleanup_fclose FILE *f = fopen("/etc/passwd", "re");
	for (const struct passwd *pw; f && (pw = fgetpwent(f));)
		if (pw->pw_uid == uid)
			return true;
	return false;
}

static int try_uid(struct store *s, const char *namespace_, uint64_t uid, struct error *err)
{
	if (is_subordinate(uid) || has_a_name(uid))
		return 0;
	return sql_run(s, err, "UPDATE OR IGNORE environments SET uid=? WHERE namespace=?", "is", (int64_t)uid, namespace_);
}

static int need_users(const char *namespace_, struct error *err)
{
	for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
		if (is_mapped(&ranges[i]))
			return 0;
	error_set(err, ERROR_PERMISSION,
	          "this user namespace has no users for the services of %s, and as root they are not run", namespace_);
	return error_hint(err,
	                  "be an ordinary user in it (unshare --map-current-user, not --map-root-user), or give it 65536 users");
}

/* From a place that the name decides, so that an environment that comes again has its old number again, most likely. */
int uid_lease(struct store *s, const char *namespace_, struct error *err)
{
	cleanup_statement sqlite3_stmt *row = NULL;
	int r = need_users(namespace_, err);
	if (r == 0)
		r = sql_prepare(s, &row, err, "SELECT 1 FROM environments WHERE namespace=? AND uid IS NOT NULL", "s", namespace_);
	if (r == 0)
		r = sql_step(s, row, err);
	if (r)
		return r < 0 ? r : 0;
	for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
		if (!is_mapped(&ranges[i]))
			continue;
		uint64_t start = hash_str(HASH_INIT, namespace_) % ranges[i].count;
		for (uint64_t n = 0; r == 0 && n < ranges[i].count; n++)
			r = try_uid(s, namespace_, ranges[i].first + (start + n) % ranges[i].count, err);
		if (r)
			return r < 0 ? r : 0;
	}
	r = error_set(err, ERROR_QUOTA_EXCEEDED, "no user number is free for the services of %s", namespace_);
	error_hint(err, "ajj list shows the environments that hold them; ajj cleanup forgets those that are gone");
	return r;
}
