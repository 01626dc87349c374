#!/bin/bash
# Does what the official image's entrypoint does, as far as compose files depend on it.
set -Eeo pipefail
shopt -s nullglob

die() {
	printf 'Error: %s\n' "$*" >&2
	exit 1
}

# file_env NAME [DEFAULT]: NAME's value, or the contents of the file that NAME_FILE names
file_env() {
	local file=$1_FILE value=${!1:-${2:-}}
	[ -z "${!1:-}" ] || [ -z "${!file:-}" ] || die "both $1 and $file are set (but are exclusive)"
	[ -z "${!file:-}" ] || value=$(<"${!file}")
	export "$1=$value"
	unset "$file"
}

sql() {
	psql -v ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER" --no-password "$@"
}

run_script() {
	printf '%s: running %s\n' "$0" "$1"
	case $1 in
	*.sh) if [ -x "$1" ]; then "$1"; else . "$1"; fi ;;
	*.sql) sql --dbname "$POSTGRES_DB" -f "$1" ;;
	*.sql.gz) gunzip -c "$1" | sql --dbname "$POSTGRES_DB" ;;
	*) printf '%s: ignoring %s\n' "$0" "$1" ;;
	esac
}

initialize() {
	[ -n "$POSTGRES_PASSWORD" ] || [ "${POSTGRES_HOST_AUTH_METHOD:-}" = trust ] ||
		die 'Database is uninitialized and superuser password is not specified.' \
			'You must specify POSTGRES_PASSWORD to a non-empty value for the superuser.'
	eval 'initdb --username="$POSTGRES_USER" --pwfile=<(printf "%s\n" "$POSTGRES_PASSWORD") '"${POSTGRES_INITDB_ARGS:-}"
	printf '\nhost all all all %s\n' "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"
	pg_ctl -o "-c listen_addresses=''" -w start
	[ "$POSTGRES_DB" = postgres ] || sql --dbname postgres --set db="$POSTGRES_DB" <<<'create database :"db";'
	for script in /docker-entrypoint-initdb.d/*; do
		run_script "$script"
	done
	pg_ctl -m fast -w stop
	printf '\nPostgreSQL init process complete; ready for start up.\n\n'
}

[ "${1:0:1}" != - ] || set -- postgres "$@"
if [ "$1" = postgres ]; then
	if [ "$(id -u)" = 0 ]; then
		mkdir -p "$PGDATA" /var/run/postgresql
		chmod 00700 "$PGDATA"
		chmod 03775 /var/run/postgresql
		find "$PGDATA" /var/run/postgresql \! -user postgres -exec chown postgres {} +
		exec gosu postgres "$0" "$@"
	fi
	file_env POSTGRES_PASSWORD
	file_env POSTGRES_USER postgres
	file_env POSTGRES_DB "$POSTGRES_USER"
	file_env POSTGRES_INITDB_ARGS
	if [ -s "$PGDATA/PG_VERSION" ]; then
		printf '\nPostgreSQL Database directory appears to contain a database; Skipping initialization\n\n'
	else
		export PGPASSWORD=$POSTGRES_PASSWORD
		initialize
		unset PGPASSWORD
	fi
fi
exec "$@"
