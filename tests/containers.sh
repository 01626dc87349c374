# The main job on a container engine. Sourced by tests/e2e/docker and tests/e2e/podman, after lib.sh, with
# `engine` (its socket) and `backend` (what status.json calls it).

api() {
	engine_api "$engine" "$@"
}

# things containers|networks|volumes: the names of those that this test's environments have
things() {
	case $1 in
	containers) api GET "/containers/json?all=1" ;;
	*) api GET "/$1" ;;
	esac | python3 -c '
import json, sys
things = json.load(sys.stdin)
things = things["Volumes"] or [] if isinstance(things, dict) else things
for t in things:
    if (t.get("Labels") or {}).get("aether.managed") == "true":
        print((t.get("Names") or [t.get("Name")])[0].lstrip("/"))' | sort
}

none_of() {
	[ -z "$(things "$1")" ]
}

# field PATH...: of .aether/status.json
field() {
	python3 -c '
import json, sys
value = json.load(open(".aether/status.json"))
for name in sys.argv[1:]:
    value = value[name]
print(value)' "$@"
}

state_is() {
	[ "$(field services "$1" state)" = "$2" ]
}

id_of() {
	api GET "/containers/$AETHER_NAMESPACE-$1/json" | json_field Id
}

workspace_with_containers() {
	mkdir main && cd main || exit 1
	jj git init --no-colocate . || fail 'jj git init'
	cat >compose.yaml <<'YAML'
services:
  db:
    image: postgres:16
    environment: { POSTGRES_PASSWORD: dev }
    ports: ["5432:5432"]
    volumes: ["pgdata:/var/lib/postgresql/data"]
  cache:
    image: redis:7
    ports: ["6379"]
volumes:
  pgdata:
YAML
	ajj workspace add ../feature-a || fail 'workspace add'
	cd ../feature-a || exit 1
	set -a
	. ./.env || fail "source .env: $(cat .aether/errors.json)"
	set +a
}

same_data() {
	same 42 "$(psql "$DATABASE_URL" -Atc 'select x from t')" "the data after $1"
	same kept "$(redis-cli -u "$REDIS_URL" get key)" "the cache's data after $1"
}

serves() {
	same "$backend" "$(field backend)" backend
	field backend_reason | grep -q "$engine" || fail "the reason does not name the engine: $(field backend_reason)"
	same 1 "$(psql "$DATABASE_URL" -Atc 'select 1')" 'select 1'
	same PONG "$(redis-cli -u "$REDIS_URL" ping)" ping
	same 2 "$(things containers | wc -l)" containers
	same 2 "$(things volumes | wc -l)" volumes
	same 1 "$(things networks | wc -l)" networks
	ss -Hltn | awk '{print $4}' | grep -E ":($PGPORT|$REDIS_PORT)\$" | grep -v '^127\.0\.0\.1:' && fail 'published on more than 127.0.0.1'
	psql "$DATABASE_URL" -qAtc 'create table t(x int); insert into t values (42)' || fail 'create table'
	same OK "$(redis-cli -u "$REDIS_URL" set key kept)" 'set key'
}

sees_what_others_do() {
	api POST "/containers/$AETHER_NAMESPACE-cache/stop?t=1" || fail 'stop'
	[ "$backend" != podman ] || sleep 1 # which answers before it tells of it
	. ./.env || fail 'a demand right after a stop'
	same_data 'a stop from outside'
	api POST "/containers/$AETHER_NAMESPACE-cache/stop?t=1" || fail 'stop'
	wait_for 10 'status.json tells of a container that was stopped' not state_is cache ready
	. ./.env || fail 'a demand after a stop'
	same_data 'a second stop from outside'
	api DELETE "/containers/$AETHER_NAMESPACE-db?force=1" || fail 'rm -f'
	wait_for 10 'status.json tells of a container that was removed' not state_is db ready
	. ./.env || fail 'a demand after a removal'
	same_data 'a removal from outside'
}

changes_one_alone() {
	local db cache
	db=$(id_of db) cache=$(id_of cache)
	sed -i 's/image: redis:7/&\n    environment: { CHANGED: "yes" }/' ../main/compose.yaml
	ajj up || fail 'ajj up after a change'
	same "$db" "$(id_of db)" 'the container of a service that has not changed'
	[ "$cache" != "$(id_of cache)" ] || fail 'the container of a changed service is the old one'
	same_data 'a change'
	cache=$(id_of cache)
	ajj up || fail 'ajj up without a change'
	same "$db $cache" "$(id_of db) $(id_of cache)" 'containers after an up without a change'
}

rests_and_returns() {
	local db=$PGPORT
	cd .. && ajj detach feature-a || fail detach
	listens "$db" && fail 'Postgres survives the unmount'
	ajj attach feature-a && cd feature-a || fail attach
	. ./.env || fail 'a demand after unmount and mount'
	same "$db" "$PGPORT" 'the port after unmount and mount'
	same_data 'unmount and mount'
	ajj down || fail down
	listens "$db" && fail 'Postgres survives ajj down'
	. ./.env || fail 'a demand after down'
	same_data 'ajj down'
}

survives_a_server() {
	local server
	server=$(field aetherfs server_pid)
	kill -9 "$server" || fail "no server $server"
	. ./.env || fail 'a demand after kill -9 of the server'
	same_data 'kill -9 of the server'
	same 2 "$(things containers | wc -l)" 'containers after kill -9 of the server'
}

goes_and_comes_back() {
	rm .env || fail 'rm .env'
	wait_for 20 'the containers are removed' none_of containers
	wait_for 5 'the network is removed' none_of networks
	same 2 "$(things volumes | wc -l)" 'volumes in the trash'
	. ./.env || fail 'a demand after rm .env'
	same 0 "$(psql "$DATABASE_URL" -Atc "select count(*) from pg_tables where tablename = 't'")" 'tables in the fresh database'
	ajj destroy && ajj trash list || fail destroy
	ajj trash restore "$(ajj trash list | awk 'END {print $1}')" || fail 'trash restore'
	. ./.env || fail 'a demand after trash restore'
	same_data 'trash restore'
}

killed_keeper_is_swept() {
	local keeper server
	keeper=$(field aetherfs keeper_pid) server=$(field aetherfs server_pid)
	cd .. || exit 1
	kill -9 "$keeper" "$server" || fail 'kill -9'
	wait_for 10 'the mount is dead' not stat feature-a/compose.yaml
	ajj cleanup --force || fail 'cleanup --force'
	none_of containers || fail "left by cleanup --force: $(things containers)"
	none_of networks || fail "left by cleanup --force: $(things networks)"
	ajj attach feature-a && cd feature-a || fail 'attach after cleanup'
	. ./.env || fail 'a demand after cleanup'
	same_data 'cleanup --force'
}

ends_without_a_trace() {
	cd ../main || exit 1
	ajj workspace forget feature-a || fail forget
	none_of containers || fail "left by forget: $(things containers)"
	none_of networks || fail "left by forget: $(things networks)"
	[ -n "$(things volumes)" ] || fail 'forget took the data'
	ajj trash empty || fail 'trash empty'
	none_of volumes || fail "left by trash empty: $(things volumes)"
	nothing_left
}

main_job() {
	workspace_with_containers
	for step in serves sees_what_others_do changes_one_alone rests_and_returns survives_a_server goes_and_comes_back killed_keeper_is_swept ends_without_a_trace; do
		printf '== %s\n' "$step"
		"$step"
	done
}

# The environment of the workspace app, in which one stands, ends; nothing of it is left.
the_end() {
	ajj destroy && cd .. && ajj detach app && ajj trash empty || fail 'the end'
	for kind in containers networks volumes; do
		none_of $kind || fail "left: $(things $kind)"
	done
	nothing_left
}
