# What others stop or remove, of services that are to be restarted. Sourced after containers.sh.

container() {
	api "$1" "/containers/$AETHER_NAMESPACE-$2" "${3-}" >said || fail "$1 $2: $(cat said)"
}

# running SERVICE: in the engine
running() {
	api GET "/containers/$AETHER_NAMESPACE-$1/json" 2>/dev/null | python3 -c 'import json, sys; sys.exit(not json.load(sys.stdin)["State"]["Running"])' 2>/dev/null
}

stays_stopped() {
	wait_for 5 "status.json tells of $1" state_is "$2" stopped
	sleep 1.5
	state_is "$2" stopped || fail "$1: $2 is $(field services "$2" state)"
	not running "$2" || fail "$1 was undone"
}

# environment_with_policies [MORE-SERVICES]
environment_with_policies() {
	mkdir app && cd app && git init -q . || exit 1
	cat >compose.yaml <<'YAML'
services:
  cache:
    image: redis:7
    ports: ["6379"]
    restart: unless-stopped
  worker:
    image: busybox:1
    command: ["sh", "-c", "trap 'exit 4' HUP; while :; do sleep 0.1; done"]
    stop_grace_period: 1s
    restart: always
    depends_on: [cache]
  once:
    image: busybox:1
    command: ["true"]
  plain:
    image: busybox:1
    command: ["sleep", "1000"]
    stop_grace_period: 1s
YAML
	[ -z "${1-}" ] || printf '%s\n' "${1#?}" >>compose.yaml
	ajj up && cd . || fail up
	set -a
	. ./.env
	port=$REDIS_PORT
}

# Podman 4.3 has no event of it.
others_stop() {
	container POST 'cache/stop?t=5'
	stays_stopped 'docker stop' cache
	same degraded "$(field state)" 'the state while one is stopped'
	. ./.env && redis-cli -u "$REDIS_URL" ping >/dev/null || fail 'a demand after docker stop'
	same "$port" "$REDIS_PORT" 'the port after docker stop'
	same ready "$(field state)" 'the state after that'
	container POST 'plain/stop?t=0'
	stays_stopped 'docker stop of what has no policy' plain
	container POST 'plain/start'
	wait_for 5 'docker start is taken up' state_is plain ready
}

others_end() {
	# an end of its own, and a signal that is not for its end, are none of these
	container POST 'worker/kill?signal=HUP'
	wait_for 10 'what has ended by itself is started again' eval '[ "$(field services worker restarts)" = 1 ] && state_is worker ready'

	[ "$backend" = podman ] || others_stop
	container POST 'worker/kill'
	stays_stopped 'docker kill' worker
	ajj up || fail 'ajj up after docker kill'
	state_is worker ready || fail "worker is $(field services worker state)"
	container POST 'cache/restart?t=1'
	wait_for 10 'docker restart is taken up' eval 'state_is cache ready && redis-cli -u "$REDIS_URL" ping >/dev/null'
	container DELETE 'worker?force=1'
	stays_stopped 'docker rm -f' worker
	. ./.env && running worker || fail 'a demand after docker rm -f'
}

# What was stopped by us, and is started by others: so it is wanted.
others_start() {
	ajj stop plain || fail 'ajj stop'
	container POST 'plain/start'
	wait_for 10 'docker start of what ajj stop has stopped is taken up' state_is plain ready
	ajj down || fail 'ajj down'
	container POST 'plain/start'
	wait_for 10 'docker start of what ajj down has stopped is taken up' state_is plain ready
	sleep 1.5
	running plain && state_is plain ready || fail "docker start was undone: plain is $(field services plain state)"
	state_is cache stopped || fail "cache is $(field services cache state)"
	same ready "$(field state)" 'the state after docker start'
	. ./.env || fail 'a demand after ajj down and docker start'
}

# Whoever has stopped it: the next server neither starts it, nor says anything else of it.
the_next_server_knows() {
	local server before
	container POST 'worker/kill'
	stays_stopped 'docker kill' worker
	ajj stop plain || fail 'ajj stop'
	before=$(field state)
	server=$(field aetherfs server_pid)
	kill -9 "$server" || fail "no server $server"
	wait_for 10 'another server' eval '[ "$(field aetherfs server_pid)" != "$server" ] && state_is cache ready'
	stays_stopped 'docker kill, and another server' worker
	stays_stopped 'ajj stop, and another server' plain
	same "$before" "$(field state)" 'the state by another server'
	. ./.env && running worker && running plain || fail 'a demand of another server'
}
