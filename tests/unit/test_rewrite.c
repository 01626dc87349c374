/* provisioner/rewrite: which of a user's values name a service, and what becomes of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/strv.h"
#include "provisioner/rewrite.h"

/* db: 5432:5432, container_name app-db · replica: 5433:5432 · cache: publishes nothing · web: built, 8080:8080 ·
 * mail: 1025 and 8025 · idle: nothing leased · PORT: 3000 of the application */
static const struct rewrite_port app[] = {{3000, 0, 21000}};
static const struct rewrite_port db[] = {{5432, 5432, 21001}};
static const struct rewrite_port replica[] = {{5433, 5432, 21002}};
static const struct rewrite_port cache[] = {{0, 6379, 21003}};
static const struct rewrite_port web[] = {{8080, 8080, 21004}, {3000, 3000, 21005}};
static const struct rewrite_port mail[] = {{1025, 1025, 21006}, {0, 8025, 21007}};
static const struct rewrite_port idle[] = {{9999, 9999, 0}};

static const struct rewrite_target targets[] = {
    {"PORT", {NULL, NULL}, true, app, 1},      {"db", {"db", "app-db"}, false, db, 1},
    {"replica", {"replica", NULL}, false, replica, 1}, {"cache", {"cache", NULL}, false, cache, 1},
    {"web", {"web", NULL}, true, web, 2},      {"mail", {"mail", NULL}, false, mail, 2},
    {"idle", {"idle", NULL}, false, idle, 1},
};
static const struct rewrite_map map = {targets, sizeof targets / sizeof *targets, "127.0.0.1"};

static const struct keyval user[] = {
    {(char *)"DB_HOST", (char *)"localhost"},         {(char *)"DB_PORT", (char *)"5432"},
    {(char *)"REMOTE_HOST", (char *)"db.prod.example"}, {(char *)"REMOTE_PORT", (char *)"5432"},
    {(char *)"R_HOST", (char *)"replica"},            {(char *)"R_PORT", (char *)"5432"},
    {(char *)"HOST", (char *)"0.0.0.0"},              {(char *)"CACHE_HOST", (char *)"cache"},
    {(char *)"ODD_HOST", (char *)"db"},               {(char *)"ODD_PORT", (char *)"9"},
    {(char *)"NAME", (char *)"cache"},                {(char *)"NUMBER", (char *)"6379"},
};

static const char *lookup(void *arg, const char *name)
{
	(void)arg;
	for (size_t i = 0; i < sizeof user / sizeof *user; i++)
		if (!strcmp(user[i].key, name))
			return user[i].value;
	return NULL;
}

struct rewrite_case {
	const char *key, *value, *expected, *service; /* expected NULL: stays */
};

static void check(const struct rewrite_case *c, size_t count, bool literal)
{
	for (size_t i = 0; i < count; i++) {
		cleanup_buffer struct buffer out = BUFFER_INIT;
		const char *service = rewrite_value(&map, c[i].key, c[i].value, strlen(c[i].value), literal, lookup, NULL, &out);
		if (!c[i].expected) {
			if (service)
				print_error("%s=%s became %s\n", c[i].key, c[i].value, buffer_str(&out));
			assert_null(service);
			assert_int_equal(out.len, 0);
			continue;
		}
		if (!service)
			print_error("%s=%s stayed\n", c[i].key, c[i].value);
		assert_non_null(service);
		assert_string_equal(buffer_str(&out), c[i].expected);
		assert_string_equal(service, c[i].service);
	}
}
#define CHECK(cases) check(cases, sizeof(cases) / sizeof *(cases), false)

static void urls(void **state)
{
	(void)state;
	static const struct rewrite_case cases[] = {
	    {"U", "postgres://u:p@localhost:5432/app", "postgres://u:p@127.0.0.1:21001/app", "db"},
	    {"U", "postgres://u:p@db:5432/app?sslmode=disable#x", "postgres://u:p@127.0.0.1:21001/app?sslmode=disable#x", "db"},
	    {"U", "postgres://u:p@app-db/app", "postgres://u:p@127.0.0.1:21001/app", "db"},
	    {"U", "postgres://DB", "postgres://127.0.0.1:21001", "db"},
	    {"U", "jdbc:postgresql://localhost:5432/app?x=y", "jdbc:postgresql://127.0.0.1:21001/app?x=y", "db"},
	    {"U", "jdbc:postgresql://db/app", "jdbc:postgresql://127.0.0.1:21001/app", "db"},
	    {"U", "postgresql+asyncpg://u@db/app", "postgresql+asyncpg://u@127.0.0.1:21001/app", "db"},
	    {"U", "postgres://u:p%40ss@db:5432/app", "postgres://u:p%40ss@127.0.0.1:21001/app", "db"},
	    {"U", "postgres://u:p@ss@db:5432/app", "postgres://u:p@ss@127.0.0.1:21001/app", "db"},
	    {"U", "postgres://u:p@[::1]:5432/app", "postgres://u:p@127.0.0.1:21001/app", "db"},
	    {"U", "postgres://[::1]/app", "postgres://127.0.0.1:21001/app", "db"},
	    {"U", "postgres://db:5432,replica:5432/app", "postgres://127.0.0.1:21001,127.0.0.1:21002/app", "db"},
	    {"U", "postgres://db:5432,far.example:5432/app", "postgres://127.0.0.1:21001,far.example:5432/app", "db"},
	    {"U", "postgres://localhost:5433/app", "postgres://127.0.0.1:21002/app", "replica"},
	    {"U", "redis://cache:6379/1", "redis://127.0.0.1:21003/1", "cache"},
	    {"U", "redis://cache/1", "redis://127.0.0.1:21003/1", "cache"},
	    {"U", "redis://localhost/1", "redis://127.0.0.1:21003/1", "cache"},
	    {"U", "http://localhost:8080/callback", "http://localhost:21004/callback", "web"},
	    {"U", "http://127.0.0.1:3000", "http://127.0.0.1:21000", "PORT"},
	    {"U", "http://web:3000", "http://127.0.0.1:21005", "web"},
	    {"U", "http://localhost:3000,http://localhost:8080", "http://localhost:21000,http://localhost:21004", "PORT"},
	    {"U", "http://localhost:3000 http://x.example", "http://localhost:21000 http://x.example", "PORT"},
	    {"U", "http://mail:8025", "http://127.0.0.1:21007", "mail"},
	    {"U", "u:p@tcp(db:3306)/x", NULL, NULL},
	    {"U", "u:p@tcp(db:5432)/x", "u:p@tcp(127.0.0.1:21001)/x", "db"},
	    {"U", "PLAINTEXT_HOST://mail:1025", "PLAINTEXT_HOST://127.0.0.1:21006", "mail"},
	    {"U", "jdbc:sqlserver://db:5432;databaseName=x", "jdbc:sqlserver://127.0.0.1:21001;databaseName=x", "db"},
	    /* not ours */
	    {"U", "https://pay.example:5432/", NULL, NULL},
	    {"U", "postgres://u:p@db.prod.example:5432/app", NULL, NULL},
	    {"U", "postgres://u:p@10.0.0.7:5432/app", NULL, NULL},
	    {"U", "postgres://db:p@far.example/app", NULL, NULL},
	    {"U", "postgres://db:1/app", NULL, NULL},
	    {"U", "http://db/", NULL, NULL},
	    {"U", "odd://db/", NULL, NULL},
	    {"U", "http://idle:9999/", NULL, NULL},
	    {"U", "https://far.example/?next=localhost:5432", NULL, NULL},
	    {"U", "https://far.example/?next=http://localhost:8080/", "https://far.example/?next=http://localhost:21004/", "web"},
	    {"U", "file:///var/lib/db:5432", NULL, NULL},
	    {"U", "postgres://localhost:/x", NULL, NULL},
	    {"U", "postgres://localhost:99999999999/x", NULL, NULL},
	    {"U", "postgres://[::1", NULL, NULL},
	    {"U", "://localhost:5432", NULL, NULL},
	    {"U", "://", NULL, NULL},
	};
	CHECK(cases);
}

static void pairs_in_one_value(void **state)
{
	(void)state;
	static const struct rewrite_case cases[] = {
	    {"DSN", "host=localhost port=5432 dbname=x", "host=127.0.0.1 port=21001 dbname=x", "db"},
	    {"DSN", "host=db user=u password=p dbname=x port=5432 sslmode=disable", "host=127.0.0.1 user=u password=p dbname=x port=21001 sslmode=disable", "db"},
	    {"DSN", "port=5432 host=localhost", "port=21001 host=127.0.0.1", "db"},
	    {"DSN", "host = 'localhost'  port = '5432' password='a b;host=far'", "host = '127.0.0.1'  port = '21001' password='a b;host=far'", "db"},
	    {"DSN", "HOST=replica PORT=5432", "HOST=127.0.0.1 PORT=21002", "replica"},
	    {"DSN", "host=localhost dbname=x", "host=127.0.0.1 port=21001 dbname=x", "db"},
	    {"DSN", "host=db dbname='x y'", "host=127.0.0.1 port=21001 dbname='x y'", "db"},
	    {"DSN", "dbname=x host='db'", "dbname=x host='127.0.0.1' port=21001", "db"},
	    {"DSN", "host=localhost port=8080", "host=localhost port=21004", "web"},
	    {"DSN", "host=$DB_HOST port=${DB_PORT} user=${USER:-a b}", "host=$DB_HOST port=${DB_PORT} user=${USER:-a b}", "db"},
	    {"DSN", "host=${DB_HOST} port=5432", "host=${DB_HOST} port=21001", "db"},
	    {"CS", "Host=localhost;Port=5432;Database=x;Username=u;Password=p", "Host=127.0.0.1;Port=21001;Database=x;Username=u;Password=p", "db"},
	    {"CS", "User Id=u; Server = db ;Port=5432; ", "User Id=u; Server = 127.0.0.1 ;Port=21001; ", "db"},
	    {"CS", "server=localhost,5432;Database=x", "server=127.0.0.1,21001;Database=x", "db"},
	    {"CS", "Data Source=tcp:localhost,5432;User ID=sa", "Data Source=tcp:127.0.0.1,21001;User ID=sa", "db"},
	    {"CS", "server=localhost,5432", "server=127.0.0.1,21001", "db"},
	    {"CS", "Host=localhost:5432;Database=x", "Host=127.0.0.1:21001;Database=x", "db"},
	    {"CS", "Password=\"a;Host=far\";Host=db;Port=5432", "Password=\"a;Host=far\";Host=127.0.0.1;Port=21001", "db"},
	    {"PDO", "pgsql:host=localhost;port=5433;dbname=x", "pgsql:host=127.0.0.1;port=21002;dbname=x", "replica"},
	    {"PDO", "pgsql:dbname=x;host=db", "pgsql:dbname=x;host=127.0.0.1;port=21001", "db"},
	    {"PDO", "pgsql:host=db", "pgsql:host=127.0.0.1;port=21001", "db"},
	    /* elsewhere, or by chance */
	    {"DSN", "host=db.prod.example port=5432", NULL, NULL},
	    {"DSN", "host=localhost port=1", NULL, NULL},
	    {"DSN", "host=localhost user=u", NULL, NULL},
	    {"DSN", "host=localhost,far.example port=5432", NULL, NULL},
	    {"DSN", "host=localhost host=far.example port=5432", NULL, NULL},
	    {"DSN", "connect to host=localhost port=5432", NULL, NULL},
	    {"DSN", "host=localhost port=5432 and more", NULL, NULL},
	    {"DSN", "host='localhost port=5432", NULL, NULL},
	    {"DSN", "user=u password='host=localhost port=5432'", NULL, NULL},
	    {"OPTS", "-Dhost=localhost -Dport=5432", NULL, NULL},
	    {"CS", "Server=localhost;Database=x", NULL, NULL},
	    {"CS", "Server=.\\SQLEXPRESS;Database=x", NULL, NULL},
	    {"CS", "host=localhost;port=;", NULL, NULL},
	    {"CS", "Host=localhost;Port=5432;rest", NULL, NULL},
	    {"CS", "=;=", NULL, NULL},
	    {"CS", "host=", NULL, NULL},
	    {"CS", ";", NULL, NULL},
	};
	CHECK(cases);
}

static void hosts_and_ports(void **state)
{
	(void)state;
	static const struct rewrite_case cases[] = {
	    {"A", "localhost:5432", "127.0.0.1:21001", "db"},
	    {"A", "cache:6379", "127.0.0.1:21003", "cache"},
	    {"A", "[::1]:5432", "127.0.0.1:21001", "db"},
	    {"A", "db:5432,replica:5432", "127.0.0.1:21001,127.0.0.1:21002", "db"},
	    {"A", "localhost:8080", "localhost:21004", "web"},
	    {"A", "db", NULL, NULL},
	    {"A", "5432", NULL, NULL},
	    {"A", "::1:5432", NULL, NULL},
	    {"A", "0.0.0.0:5432", NULL, NULL},
	    {"A", "the db:5432", NULL, NULL},
	    {"A", "far.example:5432", NULL, NULL},
	    {"A", "5432:5432", NULL, NULL},
	    {"A", "", NULL, NULL},
	    {"A", ":", NULL, NULL},
	    {"A", ",", NULL, NULL},
	};
	CHECK(cases);
}

static void pairs_of_keys(void **state)
{
	(void)state;
	static const struct rewrite_case cases[] = {
	    {"DB_HOST", "localhost", NULL, NULL},
	    {"DB_PORT", "5432", "21001", "db"},
	    {"CACHE_HOST", "cache", "127.0.0.1", "cache"},
	    {"PGPORT", "6379", "21003", "cache"},
	    {"PORT", "3000", "21000", "PORT"}, /* HOST=0.0.0.0 is everywhere */
	    {"R_PORT", "5432", "21002", "replica"},
	    {"R_HOST", "replica", "127.0.0.1", "replica"},
	    {"WEB_PORT", "8080", "21004", "web"},
	    {"db.port", "5433", "21002", "replica"},
	    /* elsewhere, or by chance */
	    {"REMOTE_PORT", "5432", NULL, NULL},
	    {"REMOTE_HOST", "db.prod.example", NULL, NULL},
	    {"ODD_HOST", "db", NULL, NULL},
	    {"SUPPORT", "5432", NULL, NULL},
	    {"X_EXPORT", "5432", NULL, NULL},
	    {"GHOST", "db", NULL, NULL},
	    {"TIMEOUT", "5432", NULL, NULL},
	    {"X_PORT", "05432x", NULL, NULL},
	    {"X_PORT", "1", NULL, NULL},
	    {"IDLE_PORT", "9999", NULL, NULL},
	    {"X_NAME", "db", NULL, NULL},
	};
	CHECK(cases);
}

static void what_refers_to_others(void **state)
{
	(void)state;
	static const struct rewrite_case cases[] = {
	    {"U", "postgres://${USER}:${PW}@db:5432/${NAME}", "postgres://${USER}:${PW}@127.0.0.1:21001/${NAME}", "db"},
	    {"U", "postgres://${USER:-a@b}:${PW}@localhost:5432/x", "postgres://${USER:-a@b}:${PW}@127.0.0.1:21001/x", "db"},
	    {"U", "postgres://db:${DB_PORT}/x", "postgres://127.0.0.1:${DB_PORT}/x", "db"},
	    {"U", "postgres://$DB_HOST:$DB_PORT/x", "postgres://$DB_HOST:$DB_PORT/x", "db"},
	    {"U", "postgres://${DB_HOST}:5432/x", "postgres://${DB_HOST}:21001/x", "db"},
	    {"U", "postgres://${DB_HOST}/x", "postgres://${DB_HOST}:21001/x", "db"},
	    {"U", "postgres://${R_HOST}:${R_PORT}/x", "postgres://${R_HOST}:${R_PORT}/x", "replica"},
	    {"U", "redis://${NAME}:${NUMBER}", "redis://127.0.0.1:21003", "cache"},
	    {"U", "redis://cache:${UNSET:-6379}", "redis://127.0.0.1:21003", "cache"},
	    {"A", "${DB_HOST}:${DB_PORT}", "${DB_HOST}:${DB_PORT}", "db"},
	    {"U", "postgres://${REMOTE_HOST}:5432/x", NULL, NULL},
	    {"U", "postgres://${UNSET}:5432/x", NULL, NULL},
	    {"U", "postgres://${DB_HOST:?}/${", "postgres://${DB_HOST:?}:21001/${", "db"},
	    {"U", "postgres://${:5432/x", NULL, NULL},
	    {"X_PORT", "${DB_PORT}", NULL, NULL},
	};
	CHECK(cases);
	static const struct rewrite_case literal[] = {
	    {"U", "postgres://$DB_HOST:5432/x", NULL, NULL},
	    {"U", "postgres://u:${@db:5432/x", "postgres://u:${@127.0.0.1:21001/x", "db"},
	};
	check(literal, sizeof literal / sizeof *literal, true);
}

static void a_port_that_nobody_wrote(void **state)
{
	(void)state;
	uint16_t port = 0;
	cleanup_free char *name = rewrite_missing_port(&map, "CACHE_HOST", "cache", lookup, NULL, &port);
	assert_string_equal(name, "CACHE_PORT");
	assert_int_equal(port, 21003);
	assert_null(rewrite_missing_port(&map, "R_HOST", "replica", lookup, NULL, &port));
	assert_null(rewrite_missing_port(&map, "CACHE_HOST", "far.example", lookup, NULL, &port));
	assert_null(rewrite_missing_port(&map, "CACHE_URL", "cache", lookup, NULL, &port));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(urls),
	    cmocka_unit_test(pairs_in_one_value),
	    cmocka_unit_test(hosts_and_ports),
	    cmocka_unit_test(pairs_of_keys),
	    cmocka_unit_test(what_refers_to_others),
	    cmocka_unit_test(a_port_that_nobody_wrote),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
