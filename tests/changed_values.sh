# Data in a container's volume that is there, and a configuration that gives it another password, user or database: the login printed works. Sourced
# by tests/e2e/docker_changed_values and tests/e2e/podman_changed_values, after lib.sh and containers.sh, with `engine`.

configuration() { # ENVIRONMENT [MORE]
	printf 'services:\n  db:\n    image: postgres:16\n    environment: %s\n%s' "$1" "${2:-}" >compose.yaml
}

query() { # as .env says
	(set -a; . ./.env && psql "$DATABASE_URL" -Atc "$1" 2>&1)
}

changed_values() {
	mkdir ws && cd ws || exit 1
	configuration '{ POSTGRES_PASSWORD: first }'
	ajj attach >/dev/null && cd . || fail attach
	query 'create table t as select 42 as n' >/dev/null || fail "the first login: $(cat .aether/errors.json)"

	configuration '{ POSTGRES_PASSWORD: "it'"''"'s \\ \"new\" $$(x) `y`; --" }'
	ajj up >/dev/null || fail "up: $(cat .aether/errors.json)"
	same 42 "$(query 'select n from t')" 'the data under a new password'
	PGPASSWORD=first psql -h 127.0.0.1 -p "$(port_of db)" -U postgres -Atc 'select 1' >/dev/null 2>&1 && fail 'the old password still works'
	ajj logs db | grep -q 'it.s' && fail 'the password stands in the log'

	configuration '{ POSTGRES_USER: "the \"shop\"", POSTGRES_PASSWORD: third, POSTGRES_DB: other }'
	ajj up >/dev/null || fail "up: $(cat .aether/errors.json)"
	same 'the "shop"|other' "$(query "select current_user || '|' || current_database()")" 'another user and database'
	same 42 "$(set -a; . ./.env && psql -d postgres -Atc 'select n from t')" 'the data of the old database'
	query 'create table u as select 43 as n' >/dev/null || fail 'the new user may not create'

	# what was changed by hand is left alone while the configuration stays, for a restart and for another container
	query "alter role \"the \"\"shop\"\"\" password 'mine'" >/dev/null || fail 'alter role'
	ajj down >/dev/null && ajj up >/dev/null || fail 'down and up'
	configuration '{ POSTGRES_USER: "the \"shop\"", POSTGRES_PASSWORD: third, POSTGRES_DB: other }' '    mem_limit: 200m
'
	ajj up >/dev/null || fail 'another container'
	same 43 "$(. ./.env && PGPASSWORD=mine psql -h 127.0.0.1 -p "$DB_PORT" -U 'the "shop"' -d other -Atc 'select n from u')" 'a password changed by hand'

	# of a secret
	printf 'of a file' >../secret
	configuration '{ POSTGRES_USER: "the \"shop\"", POSTGRES_PASSWORD_FILE: /run/secrets/pw, POSTGRES_DB: other }' '    secrets: [pw]
secrets: { pw: { file: ../secret } }
'
	ajj trust >/dev/null; ajj up >/dev/null || fail "with a secret: $(cat .aether/errors.json)"
	same 43 "$(query 'select n from u')" 'the data under a password of a file'

	# a check of the file that wants the new user does not hold it up
	configuration '{ POSTGRES_USER: checked, POSTGRES_PASSWORD: fourth }' '    healthcheck: { test: "psql -U checked -c \"select 1\"", interval: 200ms }
'
	ajj up >/dev/null || fail "with a check: $(cat .aether/errors.json)"
	same checked "$(query 'select current_database()')" 'a user that the health check wants'
}

# nobody of it can be asked: that is said, it goes on running, and what it was made with is as good as before
refuses_what_cannot_be() {
	query "alter role postgres nosuperuser; alter role \"the \"\"shop\"\"\" nosuperuser; alter role checked nosuperuser" >/dev/null || fail 'nosuperuser'
	configuration '{ POSTGRES_USER: nobody_knows, POSTGRES_PASSWORD: fifth }'
	ajj up >said 2>&1 && fail 'ajj up with a user that could not be made'
	grep -q '^Error: service db: its data was made with other values .*no superuser of it is known: neither nobody_knows, checked nor postgres' said || fail "said: $(cat said)"
	same failed "$(field services db state)" 'the state of what could not be adapted'
	cat .env >/dev/null 2>&1 && fail '.env of what could not be adapted'
	same failed "$(field services db state)" 'the state after a demand'
	configuration '{ POSTGRES_USER: checked, POSTGRES_PASSWORD: fourth }'
	ajj up >/dev/null || fail "with the values of before: $(cat .aether/errors.json)"
	same checked "$(query 'select current_user')" 'the values that it was made with'
}

# data from the trash gets the password of today
adapts_what_is_restored() {
	ajj destroy >/dev/null || fail destroy
	configuration '{ POSTGRES_PASSWORD: sixth }'
	ajj up >/dev/null && query 'create table t as select 44 as n' >/dev/null || fail "sixth: $(cat .aether/errors.json)"
	ajj destroy >/dev/null || fail destroy
	configuration '{ POSTGRES_PASSWORD: seventh }'
	ajj trash restore >/dev/null && ajj up >/dev/null || fail "restore: $(cat .aether/errors.json)"
	same 44 "$(query 'select n from t')" 'restored data under a new password'
	ajj destroy >/dev/null && cd .. && ajj detach ws && ajj trash empty || fail 'the end'
	none_of volumes || fail "left: $(things volumes)"
}
