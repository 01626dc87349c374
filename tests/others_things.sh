# What a service shares with others, on a container engine. Sourced by tests/e2e/others_things and others_things_podman, after lib.sh and
# containers.sh, with `engine` (its socket).

foreign=other-$$
cleanup() {
	api DELETE "/containers/$foreign?force=1" >/dev/null 2>&1
	api DELETE "/volumes/$foreign" >/dev/null 2>&1
	api DELETE "/networks/$foreign" >/dev/null 2>&1
}
trap cleanup EXIT

warned() {
	grep -q -- "$1" .aether/status.json || fail "no warning of: $1"
}

# inspected SERVICE EXPRESSION: of c, what the engine says of its container
inspected() {
	api GET "/containers/$AETHER_NAMESPACE-$1/json" | python3 -c 'import json, sys; c = json.load(sys.stdin); print(eval(sys.argv[1]))' "$2"
}

mkdir app && cd app && git init -q . || exit 1
mkdir home-of-main
cat >compose.yaml <<YAML
services:
  shared:
    image: busybox:1
    stop_signal: SIGKILL
    command: [sh, -c, "echo from-shared >/others/file; sleep 1000"]
    volumes:
      - outside:/others
      - { type: volume, source: limited, target: /limited, volume: { nocopy: true } }
      - { type: tmpfs, target: /scratch, tmpfs: { size: 1m, mode: 0700 } }
    networks: [default, theirs]
    hostname: named
    external_links: ["another:its-alias"]
  beside:
    image: busybox:1
    stop_signal: SIGKILL
    command: [sh, -c, "sleep 1000"]
    network_mode: service:server
    pid: service:server
  server:
    image: busybox:1
    stop_signal: SIGKILL
    command: [sh, -c, "while :; do echo hello | nc -l -p 7000; done"]
    init: true
    expose: ["7000"]
    x-aether: { ready: { exec: ["true"] } }
  borrows: { image: busybox:1, stop_signal: SIGKILL, command: [sleep, "1000"], volumes_from: ["shared:ro"] }
  alone: { image: busybox:1, stop_signal: SIGKILL, command: [sleep, "1000"], network_mode: none, depends_on: { server: { condition: service_started, restart: true } } }
  on-host:
    image: busybox:1
    stop_signal: SIGKILL
    command: [sleep, "1000"]
    network_mode: host
    environment: { SERVER: "http://server:7000/" }
networks:
  theirs: { external: true, name: $foreign }
  fenced: { internal: true, ipam: { config: [{ subnet: 172.30.0.0/16 }] } }
volumes:
  outside: { external: true, name: $foreign }
  limited: { driver: local, driver_opts: { type: tmpfs, device: tmpfs, o: nodev }, labels: { mine: "yes" } }
YAML

# what is said to be there, and is not, is told by name
ajj up shared >said 2>&1 && fail 'started without the external volume'
grep -q "the volume $foreign is external" said || fail "the volume is not named: $(cat said)"
api POST /volumes/create "{\"Name\": \"$foreign\"}" >/dev/null || fail 'volume create'
ajj up shared >said 2>&1 && fail 'started without the external network'
grep -q "the network $foreign is external" said || fail "the network is not named: $(cat said)"
grep -q "docker network create $foreign" said || fail "no hint: $(cat said)"
api POST /networks/create "{\"Name\": \"$foreign\"}" >/dev/null || fail 'network create'

ajj up || fail 'ajj up'
cd . && set -a && . ./.env && set +a
warned 'networks.fenced: internal, ipam'
warned 'on-host: network_mode host'

same "$foreign" "$(inspected shared '[m["Name"] for m in c["Mounts"] if m["Destination"] == "/others"][0]')" 'the external volume'
same True "$(inspected shared "'$foreign' in c['NetworkSettings']['Networks'] and len(c['NetworkSettings']['Networks']) == 2")" 'the networks'
[ "$engine" != "${DOCKER_SOCKET:-}" ] || same "['another:its-alias']" "$(inspected shared "c['NetworkSettings']['Networks']['$foreign']['Links']")" 'external_links'
same True "$(inspected shared '"size=" in c["HostConfig"]["Tmpfs"]["/scratch"] and "mode=" in c["HostConfig"]["Tmpfs"]["/scratch"]')" 'the tmpfs'
limited=$(inspected shared '[m["Name"] for m in c["Mounts"] if m["Destination"] == "/limited"][0]')
same "{'device': 'tmpfs', 'o': 'nodev', 'type': 'tmpfs'} yes" "$(api GET "/volumes/$limited" | python3 -c 'import json, sys; v = json.load(sys.stdin); print(v["Options"], v["Labels"]["mine"])')" 'driver_opts'

same "$(inspected shared '[m["Name"] for m in c["Mounts"] if m["Destination"] == "/limited"]') False" "$(inspected borrows '[m["Name"] for m in c["Mounts"] if m["Destination"] == "/limited"], any(m["RW"] for m in c["Mounts"])' | sed "s/^(\(.*\), \([A-Z][a-z]*\))$/\1 \2/")" 'volumes_from'
same "container:$(id_of server)" "$(inspected beside 'c["HostConfig"]["NetworkMode"]')" 'network_mode service'
same "container:$(id_of server)" "$(inspected beside 'c["HostConfig"]["PidMode"]')" 'pid service'
same none "$(inspected alone 'c["HostConfig"]["NetworkMode"]')" 'network_mode none'
same host "$(inspected on-host 'c["HostConfig"]["NetworkMode"]')" 'network_mode host'
port=$(port_of server)
same True "$(inspected on-host "'SERVER=http://127.0.0.1:$port/' in c['Config']['Env']")" 'the environment on the host network'

# who is in another's network comes with it, again and again
started() {
	inspected "$1" 'c["State"]["StartedAt"]'
}
alone=$(started alone) shared=$(started shared)
ajj restart server || fail 'restart server'
wait_for 10 'who follows is restarted' eval '[ "$(started alone)" != "$alone" ]'
same "$shared" "$(started shared)" 'who does not follow'
wait_for 10 'all run again' eval 'state_is alone ready && state_is beside ready'
ajj down && ajj up || fail 'down and up'
same "container:$(id_of server)" "$(inspected beside 'c["HostConfig"]["NetworkMode"]')" 'network_mode service after down and up'
sed -i 's/init: true/&\n    environment: { CHANGED: "1" }/' compose.yaml
ajj up || fail 'up with a changed server'
same "container:$(id_of server)" "$(inspected beside 'c["HostConfig"]["NetworkMode"]')" 'network_mode service after a change'
wait_for 5 'both run' eval 'state_is server ready && state_is beside ready'

# what belongs to others stays theirs
ajj destroy && ajj trash empty || fail destroy
api GET "/volumes/$foreign" >/dev/null || fail 'the external volume went with destroy'
api GET "/networks/$foreign" >/dev/null || fail 'the external network went with destroy'

# paths that are not there
cat >compose.yaml <<'YAML'
services:
  must: { image: busybox:1, stop_signal: SIGKILL, command: [sleep, "1000"], volumes: [{ type: bind, source: ./absent, target: /x, bind: { create_host_path: false } }] }
  made: { image: busybox:1, stop_signal: SIGKILL, command: [sleep, "1000"], volumes: ["./made:/x", "./deep/../file.txt:/file.txt:ro,bogus"] }
  part: { image: busybox:1, stop_signal: SIGKILL, command: [sleep, "1000"], volumes: [{ type: volume, source: v, target: /x, volume: { subpath: below } }] }
volumes: { v: }
YAML
echo text >file.txt
if [ "$(id -u)" = 0 ] || grep -qx user_allow_other /etc/fuse.conf; then
	ajj up must >said 2>&1 && fail 'a source that must exist was made'
	grep -q absent said || fail "the path is not named: $(cat said)"
	[ ! -e absent ] || fail 'it was made nevertheless'
	mkdir absent && ajj up must >said 2>&1 || fail "with the source: $(cat said)"
	ajj up made || fail 'up made'
	[ -d made ] || fail 'the source was not made'
	cd . && . ./.env
	same "$PWD/file.txt" "$(inspected made '[m["Source"] for m in c["Mounts"] if m["Destination"] == "/file.txt"][0]')" 'a path with ..'
	warned 'bogus'
fi
ajj up part >said 2>&1 && fail 'a subpath on an engine that knows none'
grep -q 'subpath' said || fail "subpath is not named: $(cat said)"

# what it says, what is run in it and where it is, here and in another workspace
ajj destroy || fail destroy
base=10.$((130 + $$ % 90)).$((RANDOM % 250))
cat >compose.yaml <<YAML
services:
  web:
    image: busybox:1
    stop_signal: SIGKILL
    command: [sh, -c, "echo from-web; sleep 1000"]
    container_name: shop-web
    logging: { driver: json-file, options: { max-size: 1m } }
    label_file: own.labels
    mac_address: 02:42:ac:11:65:43
    networks: { inner: { ipv4_address: $base.5 } }
    post_start: [{ command: [sh, -c, 'echo "post-start \$\$A"; touch /started'], user: "0", working_dir: /tmp, environment: { A: of-its-own } }]
    pre_stop: [{ command: [sh, -c, "ls /started; echo pre-stop"] }]
  quiet: { image: busybox:1, stop_signal: SIGKILL, command: [sh, -c, "echo unheard; sleep 1000"], logging: { driver: none }, networks: [inner] }
  fails: { image: busybox:1, stop_signal: SIGKILL, command: [sleep, "1000"], networks: [inner], post_start: [{ command: [sh, -c, "echo why; exit 3"] }], profiles: [never] }
networks:
  inner: { labels: { mine: "yes" }, driver_opts: { com.docker.network.driver.mtu: "1400" }, ipam: { config: [{ subnet: $base.0/24 }] } }
YAML
echo from.file=yes >own.labels
git add compose.yaml own.labels && git -c user.name=x -c user.email=x@x commit -qm x || fail commit
address_of() {
	inspected "$1" "c['NetworkSettings']['Networks']['$AETHER_NAMESPACE']['IPAddress']"
}
around() { # what the service's container is and was told in this workspace
	same json-file "$(inspected web 'c["HostConfig"]["LogConfig"]["Type"]')" 'the logging driver'
	same yes "$(inspected web 'c["Config"]["Labels"]["from.file"]')" 'label_file'
	same 02:42:ac:11:65:43 "$(inspected web "c['NetworkSettings']['Networks']['$AETHER_NAMESPACE']['MacAddress']")" 'mac_address'
	wait_for 10 'what a service says' eval 'ajj logs web | grep -qx from-web'
	ajj logs web | grep -qx 'post-start of-its-own' || fail "post_start: $(ajj logs web)"
	wait_for 10 'that nothing is heard' eval 'ajj logs quiet | grep -q "its logging driver, which lets nobody read it"'
	ajj logs quiet | grep -q '^Hint: logging: !reset' || fail "no hint: $(ajj logs quiet)"
	same "$(address_of web)" "$(sed -n 's/.*ipv4_address: *//p' .aether/compose.yaml | tr -d "\"'")" 'the address that docker compose is told'
	api GET "/networks/$AETHER_NAMESPACE" | python3 -c '
import json, sys
n = json.load(sys.stdin)
assert n["Labels"]["mine"] == "yes" and "1400" in n["Options"].values(), n' || fail 'the network'
}
ajj up || fail 'up with hooks'
cd . && set -a && . ./.env && set +a
around
same "$base.5" "$(address_of web)" 'an address as it is written'
ajj stop web || fail 'stop web'
ajj logs web | tail -n 2 | tr '\n' ' ' | grep -qx '/started pre-stop ' || fail "pre_stop: $(ajj logs web)"
ajj up fails >said 2>&1 && fail 'started although its hook fails'
grep -q 'post_start hook 1 has ended with exit status 3: why' said || fail "said: $(cat said)"

first=$PWD
git worktree add -q ../second && cd ../second && ajj up || fail 'the second workspace'
cd . && set -a && . ./.env && set +a
around
moved=$(address_of web)
[ "$moved" != "$base.5" ] && [ "${moved##*.}" = 5 ] || fail "the address in the second workspace: $moved"
warned "networks.inner: the subnet $base.0/24 is the main checkout's"
warned "web: its address is $moved, not $base.5"
[ "$engine" != "${DOCKER_SOCKET:-}" ] || ajj exec web nslookup shop-web | grep -q "$moved" || fail 'its container_name is no name of it here'
ajj destroy && cd .. && ajj detach second || fail 'the end of the second workspace'
cd "$first" && set -a && . ./.env && set +a

ajj destroy && cd .. && ajj detach app && ajj trash empty || fail 'the end'
for kind in containers networks volumes; do
	none_of $kind || fail "left: $(things $kind)"
done
nothing_left
