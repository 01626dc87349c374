# kill -9 at any moment, on a container engine. Sourced by tests/e2e/docker_killed and tests/e2e/podman_killed, after lib.sh and containers.sh.

ms() {
	sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))"
}

# kill_both KEEPER: and its server
kill_both() {
	local keeper=$1
	if [ $((RANDOM % 2)) = 0 ]; then
		kill -9 "$keeper" $(pgrep -P "$keeper") 2>/dev/null
	else # the server first, and the keeper while it starts another
		kill -9 $(pgrep -P "$keeper") 2>/dev/null
		ms $((RANDOM % 60))
		kill -9 "$keeper" 2>/dev/null
	fi
}

# Servers that a keeper has begun meanwhile, a keeper that ajj has; until all of them are gone
kill_others() {
	local pids
	for _ in $(seq 1000); do
		pids=$(pgrep -f "^[^ ]*aetherfs(-server)? .*$PWD/app\$") || return 0
		kill -9 $pids 2>/dev/null
		ms 5
	done
	fail "they live on: $pids"
}

# Whoever kills a Postgres that makes its database has half of one, as with docker alone: it is given up then
up_afresh() {
	ajj up >/dev/null 2>&1 || { ajj destroy >/dev/null && ajj up >../said 2>&1; }
}

# one_round NUMBER COMMAND: kills everything at some moment of it
one_round() {
	local keeper command pid before=$((RANDOM % 1800))
	ajj attach app >/dev/null || fail "round $1: attach"
	keeper=$(cd app && field aetherfs keeper_pid)
	case $2 in
	attach) ;;
	up) [ $((RANDOM % 2)) = 0 ] || ms $((RANDOM % 300)) ;;
	*) (cd app && up_afresh) || fail "round $1: up before $2: $(cat said)" ;;
	esac
	(cd app && exec ajj "$2" >/dev/null 2>&1) &
	pid=$!
	[ "$2" != destroy ] || before=$((before / 2))
	ms $before
	echo "round $1: $2, kill, at $SECONDS s"
	kill_both "$keeper"
	kill -9 $pid 2>/dev/null
	wait $pid 2>/dev/null
	kill_others
	echo "round $1: $2, killed after $before ms, at $SECONDS s"
	ajj cleanup --force >said 2>&1 || fail "round $1, $2 killed after $before ms: cleanup: $(cat said)"
	for kind in containers networks; do
		none_of $kind || fail "round $1, $2 killed after $before ms: left: $(things $kind); cleanup said: $(cat said)"
	done
	not is_mounted app || fail "round $1, $2 killed after $before ms: a mount is left"
}

killed_at_any_moment() {
	RANDOM=${SEED:-$$}
	echo "SEED=${SEED:-$$}"
	mkdir app && (cd app && git init -q .) || exit 1
	cat >app/compose.yaml <<'YAML'
services:
  db: { image: "postgres:16", ports: ["5432"], volumes: ["pgdata:/var/lib/postgresql/data"] }
  cache: { image: "redis:7", ports: ["6379"] }
volumes: { pgdata: {} }
x-aether: { timeout: 20s }
YAML
	for round in $(seq "${ROUNDS:-12}"); do
		case $((round % 4)) in
		1 | 2) one_round "$round" up ;;
		3) one_round "$round" attach ;; # containers are made ahead of need
		0) one_round "$round" destroy ;;
		esac
	done
	sleep 1
	for kind in containers networks; do
		none_of $kind || fail "left after all: $(things $kind)"
	done
	ajj attach app >/dev/null && cd app && up_afresh || fail "up after all: $(cat ../said)"
	set -a
	. ./.env || fail "a demand after all: $(cat .aether/errors.json)"
	same 1 "$(psql "$DATABASE_URL" -Atc 'select 1')" 'the database after all'
	ajj destroy >/dev/null && cd .. && ajj detach app >/dev/null && ajj trash empty >/dev/null || fail 'the end'
	for kind in containers networks volumes; do
		none_of $kind || fail "left at the end: $(things $kind)"
	done
	nothing_left
}
