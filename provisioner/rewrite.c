#include "provisioner/rewrite.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/config.h"

struct span {
	const char *at;
	size_t len;
};

struct rewriting {
	const struct rewrite_map *map;
	bool literal;
	rewrite_lookup *lookup;
	void *arg;
	struct buffer *out;
	const char *done; /* what comes before is in `out` */
	const char *service;
};

/* ---- names ---- */

/* Words that end so and say nothing of a network. */
static bool is_other_word(const char *word)
{
	static const char *const words[] = {"SUPPORT",   "EXPORT",   "IMPORT",  "REPORT",  "PASSPORT",
	                                    "TRANSPORT", "VIEWPORT", "AIRPORT", "RAPPORT", "GHOST"};
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (!strcasecmp(word, words[i]))
			return true;
	return false;
}

/* Length of what comes before the suffix; -1: the key does not end so. */
static int key_stem(const char *key, const char *suffix)
{
	size_t len = strlen(key), n = strlen(suffix);
	const char *word = key;
	if (len < n || strcasecmp(key + len - n, suffix) != 0)
		return -1;
	for (const char *p = key; *p; p++)
		if (strchr("_.-", *p))
			word = p + 1;
	return is_other_word(word) ? -1 : (int)(len - n);
}

static bool is_local(const char *host)
{
	return !strcasecmp(host, "localhost") || !strcmp(host, "127.0.0.1") || !strcmp(host, "::1");
}

static bool is_any(const char *host)
{
	return !*host || !strcmp(host, "0.0.0.0") || !strcmp(host, "::") || !strcmp(host, "*");
}

static bool has_name(const struct rewrite_target *t, const char *host)
{
	for (size_t i = 0; i < sizeof t->names / sizeof *t->names; i++)
		if (t->names[i] && !strcasecmp(t->names[i], host))
			return true;
	for (char *const *alias = t->aliases; alias && *alias; alias++)
		if (!strcasecmp(*alias, host))
			return true;
	return false;
}

static uint16_t parse_port(const char *text)
{
	size_t digits = strspn(text, "0123456789");
	unsigned long n = digits && digits <= 5 && !text[digits] ? strtoul(text, NULL, 10) : 0;
	return n <= 65535 ? (uint16_t)n : 0;
}

/* ---- which service ---- */

struct match {
	const struct rewrite_target *target; /* NULL: none */
	uint16_t leased;
};

static uint16_t leased_of(const struct rewrite_target *t, uint16_t port, bool published)
{
	for (size_t i = 0; port && i < t->n_ports; i++)
		if ((published ? t->ports[i].published : t->ports[i].internal) == port)
			return t->ports[i].leased;
	return 0;
}

/* Among its peers a service has its container's port; people write the published one all the same. */
static struct match match_target(const struct rewrite_target *t, uint16_t port)
{
	uint16_t leased = leased_of(t, port, false);
	if (!leased)
		leased = leased_of(t, port, true);
	return (struct match){leased ? t : NULL, leased};
}

/* On this host the published number says which; a container's number does where only one has it. */
static struct match match_local(const struct rewrite_map *map, uint16_t port)
{
	for (int published = 1; published >= 0; published--) {
		struct match found = {NULL, 0};
		size_t count = 0;
		for (size_t i = 0; i < map->n_targets; i++) {
			const struct rewrite_target *t = &map->targets[i];
			uint16_t leased = leased_of(t, port, published);
			if (leased && !t->names[0]) /* the application's own port was asked for by name */
				return (struct match){t, leased};
			if (leased && !count++)
				found = (struct match){t, leased};
		}
		if (count)
			return count == 1 ? found : (struct match){NULL, 0};
	}
	return (struct match){NULL, 0};
}

static const struct rewrite_target *target_named(const struct rewrite_map *map, const char *host)
{
	for (size_t i = 0; i < map->n_targets; i++)
		if (has_name(&map->targets[i], host))
			return &map->targets[i];
	return NULL;
}

static const char *host_of(const struct rewrite_map *map, const struct rewrite_target *t)
{
	return t->host ? t->host : map->host;
}

static struct match match_endpoint(const struct rewrite_map *map, const char *host, uint16_t port)
{
	if (is_local(host))
		return match_local(map, port);
	const struct rewrite_target *t = target_named(map, host);
	return t ? match_target(t, port) : (struct match){NULL, 0};
}

/* ---- text ---- */

static void replace(struct rewriting *r, struct span old, const char *text)
{
	buffer_add(r->out, r->done, (size_t)(old.at - r->done));
	buffer_adds(r->out, text);
	r->done = old.at + old.len;
}

/* The length of a ${...} that begins here, else 1. */
static size_t step(const struct rewriting *r, const char *p, const char *end)
{
	if (r->literal || end - p < 2 || p[0] != '$' || p[1] != '{')
		return 1;
	size_t depth = 0;
	for (const char *q = p; q < end; q++) {
		if (*q == '{')
			depth++;
		else if (*q == '}' && --depth == 0)
			return (size_t)(q - p) + 1;
	}
	return 1;
}

/* The first of `set` outside every ${...}; else `end`. */
static const char *find_any(const struct rewriting *r, const char *p, const char *end, const char *set)
{
	for (; p < end; p += step(r, p, end))
		if (strchr(set, *p))
			return p;
	return end;
}

static const char *find_last(const struct rewriting *r, const char *p, const char *end, char c)
{
	const char *last = NULL;
	for (; p < end; p += step(r, p, end))
		if (*p == c)
			last = p;
	return last;
}

static bool refers(const struct rewriting *r, struct span s)
{
	return !r->literal && memchr(s.at, '$', s.len);
}

/* new; NULL when it cannot be expanded. */
static char *expanded(const struct rewriting *r, struct span s)
{
	char *text = xstrndup(s.at, s.len), *value = NULL;
	if (!refers(r, s))
		return text;
	if (config_interpolate(text, r->lookup, r->arg, NULL, &value, NULL) < 0)
		value = NULL;
	free(text);
	return value;
}

/* new: NAME of $NAME or ${NAME}; NULL when it is anything else. */
static char *reference_name(struct span s)
{
	static const char name[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789";
	cleanup_free char *text = xstrndup(s.at, s.len);
	bool braces = !strncmp(text, "${", 2);
	char *start = text + (braces ? 2 : 1);
	size_t len = strspn(start, name);
	if (*text != '$' || !len || strcmp(start + len, braces ? "}" : "") != 0)
		return NULL;
	return xstrndup(start, len);
}

/* ---- endpoints ---- */

static struct match match_number(const struct rewrite_map *map, const char *key, int stem, uint16_t port,
                                 rewrite_lookup *lookup, void *arg);

/* A port that is another variable's follows that one, where it is rewritten to the same. */
static bool port_follows(const struct rewriting *r, struct span port, uint16_t number, uint16_t leased)
{
	cleanup_free char *name = refers(r, port) ? reference_name(port) : NULL;
	int stem = name ? key_stem(name, "PORT") : -1;
	return stem >= 0 && match_number(r->map, name, stem, number, r->lookup, r->arg).leased == leased;
}

static bool host_stays(const struct rewriting *r, struct span host, const char *value, const struct rewrite_target *t)
{
	if (is_local(value))
		return t->own_program || refers(r, host);
	cleanup_free char *name = refers(r, host) ? reference_name(host) : NULL;
	return name && key_stem(name, "HOST") >= 0;
}

/* Where host and port stand in the text. */
struct endpoint {
	struct span host, inner; /* inner: without the brackets of IPv6, quotes and the like */
	struct span port;        /* nothing: where it would stand, */
	const char *before_port; /* with this before it */
	uint16_t default_port;   /* 0: there is none */
};

static void replace_endpoint(struct rewriting *r, const struct endpoint *e, const char *host, const char *port)
{
	bool port_first = e->port.at < e->host.at;
	if (port && port_first)
		replace(r, e->port, port);
	if (host)
		replace(r, e->host, host);
	if (port && !port_first)
		replace(r, e->port, port);
}

static void rewrite_found(struct rewriting *r, const struct endpoint *e)
{
	cleanup_free char *host_value = expanded(r, e->inner), *port_value = expanded(r, e->port);
	if (!host_value || !port_value)
		return;
	uint16_t number = e->port.len ? parse_port(port_value) : e->default_port;
	struct match m = number ? match_endpoint(r->map, host_value, number) : (struct match){NULL, 0};
	if (!m.target)
		return;
	cleanup_free char *text = xasprintf("%s%u", e->port.len ? "" : e->before_port, m.leased);
	replace_endpoint(r, e, host_stays(r, e->inner, host_value, m.target) ? NULL : host_of(r->map, m.target),
	                 port_follows(r, e->port, number, m.leased) ? NULL : text);
	if (!r->service)
		r->service = m.target->service;
}

/* host[:port] in [p, end) */
static void rewrite_endpoint(struct rewriting *r, const char *p, const char *end, uint16_t default_port)
{
	const char *close = p < end && *p == '[' ? memchr(p, ']', (size_t)(end - p)) : NULL;
	const char *colon = find_any(r, close ? close + 1 : p, end, ":");
	struct span host = {p, (size_t)(colon - p)}, inner = host, port = {colon, 0};
	if (close)
		inner = (struct span){p + 1, (size_t)(close - p - 1)};
	if (colon < end)
		port = (struct span){colon + 1, (size_t)(end - colon - 1)};
	if (!inner.len || (colon < end && !port.len))
		return;
	const struct endpoint found = {host, inner, port, ":", default_port};
	rewrite_found(r, &found);
}

static void rewrite_list(struct rewriting *r, const char *p, const char *end, uint16_t default_port)
{
	while (p < end) {
		const char *comma = find_any(r, p, end, ",");
		rewrite_endpoint(r, p, comma, default_port);
		p = comma < end ? comma + 1 : end;
	}
}

/* ---- URLs ---- */

static uint16_t port_of_word(const char *word, size_t len)
{
	static const struct {
		const char *scheme;
		uint16_t port;
	} known[] = {{"http", 80},          {"https", 443},       {"ws", 80},      {"wss", 443},    {"postgres", 5432},
	             {"postgresql", 5432},  {"pgsql", 5432},      {"postgis", 5432},    {"mysql", 3306}, {"mysql2", 3306}, {"mariadb", 3306},
	             {"redis", 6379},       {"rediss", 6379},     {"valkey", 6379}, {"amqp", 5672}, {"amqps", 5671},
	             {"mongodb", 27017},    {"nats", 4222},       {"mqtt", 1883},  {"smtp", 25},    {"ldap", 389},
	             {"ldaps", 636},        {"sqlserver", 1433},  {"mssql", 1433}, {"kafka", 9092}, {"clickhouse", 9000},
	             {"memcached", 11211},  {"cassandra", 9042},  {"bolt", 7687},  {"neo4j", 7687}, {"ftp", 21},
	             {"elasticsearch", 9200}};
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (strlen(known[i].scheme) == len && !strncasecmp(known[i].scheme, word, len))
			return known[i].port;
	return 0;
}

/* jdbc:postgresql, postgresql+asyncpg: the first part that has a port. */
static uint16_t default_port(const char *p, const char *end)
{
	while (p < end) {
		size_t len = 0;
		while (p + len < end && p[len] != ':' && p[len] != '+')
			len++;
		uint16_t port = port_of_word(p, len);
		if (port)
			return port;
		p += len + 1;
	}
	return 0;
}

static bool is_scheme_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr("+.-_:", c));
}

/* The URL whose "://" is at `mark`. */
static void rewrite_url(struct rewriting *r, const char *start, const char *mark, const char *end)
{
	const char *scheme = mark, *authority = mark + 3;
	while (scheme > start && is_scheme_char(scheme[-1]))
		scheme--;
	const char *stop = find_any(r, authority, end, "/?#; \t\n\"'`<>()|\\");
	const char *at = find_last(r, authority, stop, '@');
	if (scheme < mark)
		rewrite_list(r, at ? at + 1 : authority, stop, default_port(scheme, mark));
}

static bool rewrite_urls(struct rewriting *r, const char *value, const char *end)
{
	const char *p = value, *mark;
	while (p < end && (mark = memmem(p, (size_t)(end - p), "://", 3))) {
		rewrite_url(r, value, mark, end);
		p = mark + 3;
	}
	return p > value;
}

/* user:password@tcp(host:port)/name */
static bool rewrite_go_address(struct rewriting *r, const char *value, const char *end)
{
	const char *open = memmem(value, (size_t)(end - value), "@tcp(", 5);
	const char *close = open ? memchr(open, ')', (size_t)(end - open)) : NULL;
	if (close)
		rewrite_endpoint(r, open + 5, close, 3306);
	return close;
}

/* ---- connection strings: pairs within one value ---- */

/* key=value between blanks (libpq) or semicolons (ADO.NET, PDO behind its `driver:`), and what of it says where. */
struct connection {
	struct span host, port; /* values, without their quotes; at NULL: none */
	const char *behind_host; /* and behind them */
	struct span driver;
	unsigned hosts, ports;
	bool names_database; /* as libpq does: its port has a default */
};

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static struct span trimmed(const char *p, const char *end)
{
	while (p < end && is_blank(*p))
		p++;
	while (end > p && is_blank(end[-1]))
		end--;
	return (struct span){p, (size_t)(end - p)};
}

static bool is_word(struct span s, const char *const *words)
{
	for (; *words; words++)
		if (strlen(*words) == s.len && !strncasecmp(*words, s.at, s.len))
			return true;
	return false;
}

static void note_pair(struct connection *c, struct span key, struct span value, const char *behind)
{
	static const char *const hosts[] = {"host", "hostaddr", "hostname", "server", "data source", "datasource", "addr", "address", "network address", NULL};
	static const char *const ports[] = {"port", NULL}, *const databases[] = {"dbname", NULL};
	if (is_word(key, hosts)) {
		c->host = value;
		c->behind_host = behind;
		c->hosts++;
	} else if (is_word(key, ports)) {
		c->port = value;
		c->ports++;
	}
	c->names_database |= is_word(key, databases);
}

/* The end of a quoted value, behind its quote; NULL: it has none. */
static const char *quoted_end(const char *p, const char *end)
{
	for (const char *q = p + 1; q < end; q++)
		if (*q == '\\')
			q++;
		else if (*q == *p)
			return q + 1;
	return NULL;
}

/* One pair at `p`; what comes behind it and its separator, NULL: it is none. */
static const char *read_pair(const struct rewriting *r, const char *p, const char *end, bool semicolons, struct connection *c)
{
	const char *equals = find_any(r, p, end, semicolons ? "=;" : "=");
	struct span key = trimmed(p, equals);
	if (equals == end || *equals != '=' || !key.len || (!semicolons && find_any(r, key.at, key.at + key.len, " \t") < key.at + key.len))
		return NULL;
	const char *colon = c->driver.at || c->hosts ? NULL : memchr(key.at, ':', key.len);
	if (colon) {
		c->driver = (struct span){key.at, (size_t)(colon - key.at)};
		key = (struct span){colon + 1, key.len - c->driver.len - 1};
	}
	const char *start = equals + 1;
	while (start < end && is_blank(*start))
		start++;
	bool quoted = start < end && (*start == '\'' || (semicolons && *start == '"'));
	const char *stop = quoted ? quoted_end(start, end) : find_any(r, start, end, semicolons ? ";" : " \t\n\r");
	if (!stop)
		return NULL;
	struct span value = trimmed(start, stop), rest;
	if (quoted)
		value = (struct span){start + 1, (size_t)(stop - start - 2)};
	note_pair(c, key, value, quoted ? stop : value.at + value.len);
	rest = trimmed(stop, end);
	if (semicolons && rest.len && *rest.at++ != ';')
		return NULL;
	return rest.at;
}

static bool read_connection(const struct rewriting *r, const char *p, const char *end, bool semicolons, struct connection *ret)
{
	*ret = (struct connection){.hosts = 0};
	while (p && trimmed(p, end).len)
		p = read_pair(r, p, end, semicolons, ret);
	return p && ret->hosts == 1 && ret->ports <= 1;
}

/* SQL Server's [tcp:]host,port; true where it is one. */
static bool split_at_comma(const struct rewriting *r, struct endpoint *e)
{
	const char *end = e->host.at + e->host.len, *comma = find_any(r, e->host.at, end, ",");
	size_t skip = e->host.len > 4 && !strncasecmp(e->host.at, "tcp:", 4) ? 4 : 0;
	if (comma == end)
		return false;
	e->inner = e->host = trimmed(e->host.at + skip, comma);
	e->port = trimmed(comma + 1, end);
	return e->port.len;
}

/* Host and port of one value; a string that names several of either is left alone. */
static bool rewrite_connection(struct rewriting *r, const char *value, const char *end)
{
	struct connection c;
	bool semicolons = find_any(r, value, end, ";") < end;
	if (!memchr(value, '=', (size_t)(end - value)))
		return false;
	if (!read_connection(r, value, end, semicolons, &c)) { /* a semicolon may be of a password, and one pair has none */
		semicolons = !semicolons;
		if (!read_connection(r, value, end, semicolons, &c))
			return false;
	}
	struct endpoint e = {c.host, c.host, c.port, semicolons || c.driver.at ? ";port=" : " port=", 0};
	const char *after = c.host.at + c.host.len;
	if (!c.ports) {
		e.port = (struct span){c.behind_host, 0};
		e.default_port = c.driver.at ? port_of_word(c.driver.at, c.driver.len) : !semicolons && c.names_database ? 5432 : 0;
	}
	if (c.ports || split_at_comma(r, &e) || (e.default_port && find_any(r, c.host.at, after, ":") == after))
		rewrite_found(r, &e);
	else
		rewrite_endpoint(r, c.host.at, after, 0);
	return true;
}

/* ---- pairs of keys ---- */

/* X_HOST of X_PORT: does it name a place that is none of ours? *ret_target: the service that it names. */
static bool host_is_elsewhere(const struct rewrite_map *map, const char *key, int stem, rewrite_lookup *lookup, void *arg,
                              const struct rewrite_target **ret_target)
{
	static const char *const suffixes[] = {"HOST", "HOSTNAME", "SERVER", "ADDR", "ADDRESS", "host", "hostname"};
	*ret_target = NULL;
	for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
		cleanup_free char *name = xasprintf("%.*s%s", stem, key, suffixes[i]);
		const char *host = lookup ? lookup(arg, name) : NULL;
		if (!host)
			continue;
		*ret_target = target_named(map, host);
		return !*ret_target && !is_local(host) && !is_any(host);
	}
	return false;
}

static struct match match_number(const struct rewrite_map *map, const char *key, int stem, uint16_t port,
                                 rewrite_lookup *lookup, void *arg)
{
	const struct rewrite_target *named;
	if (!port || host_is_elsewhere(map, key, stem, lookup, arg, &named))
		return (struct match){NULL, 0};
	return named ? match_target(named, port) : match_local(map, port);
}

/* X_PORT of X_HOST, as the user has it; borrowed. `*ret_key` (may be NULL) gets its name, new. */
static const char *port_beside(const char *key, int stem, rewrite_lookup *lookup, void *arg, char **ret_key)
{
	bool lower = key[stem] == 'h';
	cleanup_free char *name = xasprintf("%.*s%s", stem, key, lower ? "port" : "PORT");
	const char *value = lookup ? lookup(arg, name) : NULL;
	if (ret_key)
		*ret_key = move_ptr(name);
	return value;
}

static struct match match_name(const struct rewrite_map *map, const char *key, const char *value, rewrite_lookup *lookup,
                               void *arg)
{
	int stem = key_stem(key, "HOST");
	const struct rewrite_target *t = stem >= 0 ? target_named(map, value) : NULL;
	if (!t || !t->n_ports)
		return (struct match){NULL, 0};
	const char *port = port_beside(key, stem, lookup, arg, NULL);
	return port ? match_target(t, parse_port(port)) : (struct match){t->ports[0].leased ? t : NULL, t->ports[0].leased};
}

/* A bare number or name. */
static bool rewrite_word(struct rewriting *r, const char *key, struct span value)
{
	cleanup_free char *word = xstrndup(value.at, value.len);
	int stem = key_stem(key, "PORT");
	struct match m = {NULL, 0};
	char number[8];
	if (stem >= 0 && parse_port(word)) {
		m = match_number(r->map, key, stem, parse_port(word), r->lookup, r->arg);
		snprintf(number, sizeof number, "%u", m.leased);
		if (m.target)
			replace(r, value, number);
	} else if (!refers(r, value)) {
		m = match_name(r->map, key, word, r->lookup, r->arg);
		if (m.target)
			replace(r, value, host_of(r->map, m.target));
	}
	if (m.target)
		r->service = m.target->service;
	return m.target;
}

char *rewrite_missing_port(const struct rewrite_map *map, const char *key, const char *value, rewrite_lookup *lookup,
                           void *arg, uint16_t *ret_port)
{
	struct match m = match_name(map, key, value, lookup, arg);
	char *name = NULL;
	if (!m.target || port_beside(key, key_stem(key, "HOST"), lookup, arg, &name)) {
		free(name);
		return NULL;
	}
	*ret_port = m.leased;
	return name;
}

/* ---- values ---- */

const char *rewrite_value(const struct rewrite_map *map, const char *key, const char *value, size_t len, bool literal,
                          rewrite_lookup *lookup, void *arg, struct buffer *out)
{
	struct rewriting r = {map, literal, lookup, arg, out, value, NULL};
	const char *end = value + len;
	if (!rewrite_urls(&r, value, end) && !rewrite_go_address(&r, value, end) && !rewrite_connection(&r, value, end) &&
	    !rewrite_word(&r, key, (struct span){value, len}) && memchr(value, ':', len))
		rewrite_list(&r, value, end, 0);
	if (r.service)
		buffer_add(out, r.done, (size_t)(end - r.done));
	return r.service;
}
