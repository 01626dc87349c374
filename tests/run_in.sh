# ajj run --in, from end to end, the same on every engine. Sourced by tests, after lib.sh and containers.sh.

runs() {
	things containers | grep -e '-run-'
}

run_in_containers() {
	mkdir -p app/sub && cd app && git init -q . || exit 1
	cat >compose.yaml <<YAML
services:
  cache: { image: "redis:7", ports: ["6379"] }
x-aether: { backend: $backend }
YAML
	local again=true
	echo OWN=line >.env
	if [ -n "${plain-}" ]; then # an engine that lives in a mount namespace of its own sees no mount that is made later
		ajj up --plain || fail 'up --plain'
		again='ajj up --plain'
	else
		ajj attach . && cd . || fail attach
	fi
	if [ -z "${plain-}" ] && [ "$(stat -c %u "$engine")" != "$(id -u)" ] && ! grep -q '^user_allow_other' /etc/fuse.conf; then
		code 1 'an engine that may not look in' ajj run --in busybox:1 -- true 2>said </dev/null
		grep -q '^Hint: .*user_allow_other' said || fail "said: $(cat said)"
		same absent "$(field state)" 'nothing was started'
		cd .. && ajj detach app && cd app && ajj up --plain || fail 'up --plain'
		again='ajj up --plain'
	fi

	# the services are there by their names, before anything else was asked for
	same PONG "$(ajj run --in redis:7 -- redis-cli -h cache ping </dev/null)" 'by its name'
	same PONG "$(ajj run --in redis:7 -- sh -c 'redis-cli -u "$REDIS_URL" ping' </dev/null)" 'by its variable'
	same line "$(ajj run --in busybox:1 -- sh -c 'echo $OWN' </dev/null)" 'own lines'

	# the workspace is where it is, and its links lead where they do
	same "$PWD" "$(ajj run --in busybox:1 -- pwd </dev/null)" 'the directory'
	same "$PWD/sub" "$(cd sub && ajj run --in busybox:1 -- pwd </dev/null)" 'a directory below'
	same "$(id -u):$(id -g)" "$(ajj run --in busybox:1 -- sh -c 'echo $(id -u):$(id -g)' </dev/null)" 'user and group'
	same ready "$(ajj run --in busybox:1 -- sed -n 's/^  "state": "\(.*\)",/\1/p' .aether/status.json </dev/null)" '.aether from inside'
	grep -q REDIS_URL .env || fail '.env from outside'
	ajj run --in busybox:1 -- grep -q REDIS_URL .env </dev/null || fail '.env from inside'
	ajj run --in busybox:1 -- sh -c 'echo made >sub/file' </dev/null || fail 'a file'
	same "made $(id -u)" "$(cat sub/file) $(stat -c %u sub/file)" 'a file made inside'
	same '' "$(git status --short sub/file | grep -v '^??')" 'git'

	# pipes, codes, variables
	head -c 3000000 /dev/urandom >bytes
	ajj run --in busybox:1 -- cat <bytes >back && cmp bytes back || fail bytes
	same "out err" "$(ajj run --in busybox:1 -- sh -c 'echo err >&2; echo out' 2>err </dev/null) $(cat err)" 'stdout and stderr'
	same 'a b /usr 4321' "$(ajj run --in busybox:1 -e X='a b' -w /usr -u 4321 -- sh -c 'echo $X $PWD $(id -u)' </dev/null)" 'options'
	code 7 'its own' ajj run --in busybox:1 -- sh -c 'exit 7' </dev/null
	code '@(1|12[67])' 'no such command' ajj run --in busybox:1 -- no-such-program </dev/null 2>said # 1: Podman's catatonit
	code 1 'no such image' ajj run --in 127.0.0.1:1/no-such-image:1 -- true </dev/null 2>said
	grep -q '^Error: .*no-such-image' said || fail "said: $(cat said)"
	code 2 'its options alone' ajj run -T -- true 2>said
	same '' "$(runs)" 'containers afterwards'

	# a signal is the command's; kill -9 is seen by cleanup
	ajj run --in busybox:1 -- sh -c 'trap "exit 5" TERM; echo begun; while :; do sleep 0.1; done' </dev/null >begun &
	local pid=$!
	wait_for 20 'the command' grep -q begun begun
	kill $pid
	code 5 'after SIGTERM' wait $pid
	ajj run --in busybox:1 -- sleep 1000 </dev/null &
	pid=$!
	wait_for 20 'the container' eval '[ -n "$(runs)" ]'
	sleep 0.5
	ajj cleanup --force
	[ -n "$(runs)" ] || fail 'ajj cleanup has removed what is used'
	kill -9 $pid
	wait $pid 2>/dev/null
	[ -n "$(runs)" ] || fail 'it went by itself, which is more than is promised: say so'
	ajj cleanup | grep -q -e '-run-' || fail 'ajj cleanup does not see it'
	ajj cleanup --force || fail 'cleanup --force'
	same '' "$(runs)" 'after cleanup'
	ajj run --in busybox:1 -- sleep 1000 </dev/null &
	pid=$!
	wait_for 20 'the container' eval '[ -n "$(runs)" ]'
	sleep 0.5
	kill -9 $pid
	wait $pid 2>/dev/null
	ajj destroy || fail 'destroy beside it'
	same '' "$(runs)" 'after destroy'

	# one that is used goes on, and may be where it is reset
	$again || fail "$again"
	if [ "$again" = true ]; then
		same 'PONG PONG' "$(ajj run --in redis:7 -- sh -c 'redis-cli -h cache ping; rm .env; cat .env >/dev/null; redis-cli -h cache ping' </dev/null | xargs)" 'a reset from inside'
	fi
	python3 - <<'PY' || fail 'in a terminal'
import os, sys, time
sys.path.insert(0, os.environ['TESTS'])
from terminal import Terminal, same
t = Terminal('sh', '-c', 'stty -g >before; ajj run --in busybox:1; echo ended-$?; stty -g >after', rows=33, columns=99)
t.expect('$ ' if os.geteuid() else '# ')
t.send('stty size\r')
t.expect('33 99')
t.resize(22, 88)
time.sleep(0.5)
t.send('stty size\r')
t.expect('22 88')
t.send('sleep 1000\r')
time.sleep(0.5)
t.send('\x03')
t.expect('^C')
t.send('echo after-$?\r')
t.expect('after-130')
t.send('exit 9\r')
t.expect('ended-9')
t.wait()
same(open('before').read(), open('after').read(), 'the terminal')
PY
	rm -f begun bytes back err said before after
}
