# Services one by one on a container engine: stop, start, restart, what they use and what they say. Sourced by tests/e2e/docker_services and
# tests/e2e/podman_services, after lib.sh and containers.sh, with `engine` (its socket) and `backend`.

started() {
	api GET "/containers/$AETHER_NAMESPACE-$1/json" | python3 -c 'import json, sys; print(json.load(sys.stdin)["State"]["StartedAt"])'
}

# followed TEXT: ajj logs -f has said it
followed() {
	grep -q -- "$1" ../followed
}

services_one_by_one() {
	local one two
	mkdir app && cd app && git init -q . || exit 1
	cat >compose.yaml <<'YAML'
services:
  one: { image: "busybox:1", stop_signal: SIGKILL, command: [sh, -c, "echo one begins; while :; do sleep 0.2; echo one goes on; done"] }
  second: { image: "busybox:1", stop_signal: SIGKILL, depends_on: [one], command: [sh, -c, "echo second begins; echo of stderr >&2; while :; do sleep 0.2; echo second goes on; done"] }
YAML
	ajj up && cd . && . ./.env || fail "up: $(cat .aether/errors.json)"

	# what they say, of all in one, each line with its service's name, and over whatever becomes of them
	ajj logs -f >../followed &
	follower=$!
	wait_for 5 'the first words' eval 'followed "^one    | one begins" && followed "^second | second begins" && followed "^second | of stderr"'
	one=$(started one) two=$(started second)
	ajj restart second || fail restart
	same "$one" "$(started one)" 'who is not restarted'
	[ "$two" != "$(started second)" ] || fail 'it was not restarted'
	wait_for 5 'its words after a restart' eval '[ "$(grep -c "second begins" ../followed)" = 2 ]'
	ajj stop second || fail stop
	same stopped "$(field services second state)" 'the state after a stop'
	same ready "$(field services one state)" 'the other one'
	ajj stats >said || fail stats
	grep -Eq '^one +ready +[0-9.]+ MiB +[0-9.]+ cpus +[0-9]+ processes$' said && grep -Eq '^second +stopped *$' said || fail "stats: $(cat said)"
	ajj start second || fail start
	wait_for 5 'its words after a start' eval '[ "$(grep -c "second begins" ../followed)" = 3 ]'
	sed -i 's/second goes on/second has changed/' compose.yaml
	ajj up || fail 'up after a change'
	wait_for 5 'the words of another container' followed '^second | second has changed'
	ajj destroy && . ./.env || fail 'destroy and again'
	wait_for 5 'the words of a new environment' eval '[ "$(grep -c "^one    | one begins" ../followed)" = 2 ]'
	kill $follower
	wait $follower 2>/dev/null
	grep -v -E '^(one   |second) \| ' ../followed && fail 'lines without a name'
	same 1 "$(ajj logs -n 1 one | wc -l)" 'logs of one'
	tail -n 1 .aether/services/second/log | grep -q 'second has changed' || fail 'services/second/log'
}
