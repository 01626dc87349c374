# What the scripted tests share. Sourced by bash: . "$TESTS/lib.sh"
set -u

fail() {
	printf 'FAILED: %s\n' "$*" >&2
	exit 1
}

skip() {
	printf '%s\n' "$*"
	exit 77
}

need() {
	local program
	for program; do
		command -v "$program" >/dev/null || skip "$program is not installed"
	done
}

# same EXPECTED ACTUAL WHAT
same() {
	[ "$1" = "$2" ] || fail "$3: expected '$1', got '$2'"
}

# wait_for SECONDS WHAT COMMAND...
wait_for() {
	local until=$(($(date +%s%N) + $1 * 1000000000)) what=$2
	shift 2
	until "$@"; do
		[ "$(date +%s%N)" -lt $until ] || fail "waited in vain for: $what"
		sleep 0.02
	done
}

is_mounted() {
	grep -q " $(realpath "$1") " /proc/self/mountinfo
}

not() {
	! "$@"
}

# Nothing of ours may remain of the environments below this test's directories.
nothing_left() {
	not_ours=$(awk '{print $5}' /proc/self/mountinfo | grep -F "$(dirname "$PWD")" || true)
	[ -z "$not_ours" ] || fail "still mounted: $not_ours"
}

# The compose file of the README's transcript.
postgres_and_redis() {
	cat <<'YAML'
services:
  db:
    image: postgres:16
    environment: { POSTGRES_PASSWORD: dev }
    ports: ["5432"]
  cache:
    image: redis:7
    ports: ["6379"]
x-aether:
  backend: process
YAML
}

# port_of SERVICE: the leased port in .aether/ports of the working directory
port_of() {
	awk -v s="$1" '$1 == s {print $4}' .aether/ports
}

listens() {
	(exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# engine_api SOCKET METHOD PATH [JSON]: one call of a container engine's API; prints the answer, fails where it is an error
engine_api() {
	curl -sS --fail-with-body --max-time 60 --unix-socket "$1" -X "$2" ${4:+-H 'Content-Type: application/json' -d "$4"} "http://engine/v1.41$3"
}

# json_field NAME: of the object on stdin
json_field() {
	python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"
}

# need_engine_exec SOCKET: runc cannot enter a container's directories again where the engine itself lives below a chroot
need_engine_exec() {
	local id exec code
	id=$(engine_api "$1" POST /containers/create '{"Image":"redis:7","Entrypoint":[],"Cmd":["sleep","60"]}' | json_field Id) || fail 'no container to try exec in'
	engine_api "$1" POST "/containers/$id/start" >/dev/null || fail 'the container to try exec in'
	exec=$(engine_api "$1" POST "/containers/$id/exec" '{"Cmd":["true"],"AttachStdout":true}' | json_field Id)
	engine_api "$1" POST "/exec/$exec/start" '{"Detach":false}' >/dev/null
	code=$(engine_api "$1" GET "/exec/$exec/json" | json_field ExitCode)
	engine_api "$1" DELETE "/containers/$id?force=1&v=1" >/dev/null
	[ "$code" = 0 ] || skip 'this engine cannot run a program in a container that runs (it lives below a chroot)'
}
