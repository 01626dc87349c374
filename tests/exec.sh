# ajj exec, from end to end, the same on every backend. Sourced by tests, after lib.sh, in a workspace with a running service `cache` of redis:7
# and one `db` that is not started.

# code PATTERN WHAT COMMAND...: what it exits with, wherever its stderr goes
exec 9>&2
code() {
	local expected=$1 what=$2 got=0
	shift 2
	"$@" 9>&- || got=$?
	[[ $got == $expected ]] || fail "$what: expected exit code $expected, got $got" 2>&9
}

exec_in_pipes() {
	same out "$(ajj exec cache sh -c 'echo out; echo err >&2' 2>err)" 'stdout'
	same err "$(cat err)" 'stderr'
	same 'in' "$(echo in | ajj exec -T cache cat)" 'stdin'
	same '' "$(ajj exec cache cat </dev/null)" 'an empty stdin'
	same '' "$(ajj exec cache cat <&-)" 'a closed stdin'
	same gone "$(ajj exec cache sh -c 'echo gone' >&- 2>/dev/null; echo gone)" 'a closed stdout'
	code 7 'its own' ajj exec cache sh -c 'exit 7'
	code 137 'a kill' ajj exec cache sh -c 'kill -9 $$'
	code 0 'the word --' ajj exec cache -- true
	code 0 'the word -- before' ajj exec -- cache true
	code 0 "docker's letters" ajj exec -it cache true </dev/null
	same '1 a b' "$(VAR='a b' ajj exec -e ONE=1 -e VAR -e NONE_SUCH cache sh -c 'echo "$ONE $VAR${NONE_SUCH-}"')" '-e'
	same /usr "$(ajj exec -w /usr cache pwd)" '-w'

	head -c 5000000 /dev/urandom >bytes
	ajj exec -T cache cat <bytes >back || fail 'bytes'
	cmp bytes back || fail 'the bytes are not what they were'
	same "$(sha256sum <bytes)" "$(ajj exec cache sha256sum <bytes)" 'bytes in'
	same 5000000 "$(ajj exec cache head -c 5000000 /dev/zero | wc -c)" 'bytes out'
	timeout 20 ajj exec cache cat /dev/zero | head -c 100000 >/dev/null # whose reader goes away
	[ "${PIPESTATUS[0]}" = 141 ] || fail "after its reader went away: ${PIPESTATUS[0]}"
	for i in {1..20}; do # when it is noticed depends on who comes first
		timeout 20 ajj exec -T cache head -c 1 </dev/zero >/dev/null || fail "who reads but a byte: exit $?, time $i"
	done
	rm bytes back err
}

exec_refused() {
	code '12[67]' 'no such command' ajj exec cache no-such-program 2>said >&2
	code 126 'no command' ajj exec cache /etc 2>said >&2
	code 3 'no such service' ajj exec nobody true 2>said
	grep -q 'there is no service nobody' said && grep -q '^Hint: there are: .*cache' said || fail "said: $(cat said)"
	code 1 'a service that does not run' ajj exec db true 2>said
	grep -q 'service db does not run' said && grep -q '^Hint: ajj start db' said || fail "said: $(cat said)"
	state_is db absent || fail "ajj exec has started db: $(field services db state)"
	code 2 'no command at all' ajj exec cache 2>said
	same SERVICE_UNKNOWN "$(ajj exec --json nobody true | python3 -c 'import json, sys; print(json.load(sys.stdin)["error"]["code"])')" '--json'
	rm said
}

# what it holds is seen, and keeps the environment from being taken away
exec_leases() {
	ajj exec cache sleep 1000 &
	local pid=$!
	wait_for 10 'the lease' eval 'grep -q "services/cache/exec" .aether/status.json'
	ajj down 2>said && fail 'down under a lease'
	grep -q "$pid" said || fail "said: $(cat said)"
	kill $pid
	code 143 'after SIGTERM' wait $pid
	wait_for 10 'the lease is over' not grep -q services/cache/exec .aether/status.json
	rm said
}

exec_in_a_terminal() {
	python3 - <<'PY' || fail 'in a terminal'
import os, signal, sys, time
sys.path.insert(0, os.environ['TESTS'])
from terminal import Terminal, same, fail

t = Terminal('ajj', 'exec', 'cache', 'sh', rows=33, columns=99)
before = t.modes()
t.send('stty size; tty -s && echo is-a-tty; echo $TERM\r')
t.expect('33 99')
t.expect('is-a-tty')
t.expect(os.environ.get('TERM', ''))
if before[3] == t.modes()[3]:
    fail('the terminal is not raw')
t.resize(44, 111)
time.sleep(0.3)
t.send('stty size\r')
t.expect('44 111')
t.send('sleep 1000\r')
time.sleep(0.5)
t.send('\x03')
t.expect('^C')
t.send('echo after-$?\r')
t.expect('after-130')
t.send('echo s1; cat\r')
t.expect('s1\r\n')
t.send('line\r')
t.expect('line\r\nline')
t.send('\x04')
t.send('exit 6\r')
same(6, t.wait(), 'exit code')

# the terminal is as it was, however it ends
for signo in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
    t = Terminal('sh', '-c', 'stty -g >before; ajj exec cache sh -c "echo begun; sleep 1000"; echo ended-$?; stty -g >after')
    t.expect('begun')
    ajj = int(os.popen(f'pgrep -P {t.pid} -x ajj').read())
    os.kill(ajj, signo)
    t.expect(f'ended-{128 + signo}')
    same(0, t.wait(), 'the shell')
    same(open('before').read(), open('after').read(), f'the terminal after signal {signo}')
t = Terminal('sh', '-c', 'stty -g >before; ajj exec cache no-such-program; echo ended-$?; stty -g >after')
t.expect('ended-12')
same(0, t.wait(), 'the shell')
same(open('before').read(), open('after').read(), 'the terminal after what could not be run')

# without one: what is typed is a signal
t = Terminal('sh', '-c', 'trap : INT; ajj exec -T cache sh -c "trap \\"echo heard; exit 4\\" INT; echo begun; while :; do sleep 0.1; done"; echo ended-$?')
t.expect('begun')
t.send('\x03')
t.expect('ended-4')
t.wait()

# into a file it is a pipe, at a terminal or not
t = Terminal('sh', '-c', 'ajj exec cache sh -c "tty -s || echo a-pipe" >out')
same(0, t.wait(), 'into a file')
same('a-pipe\n', open('out').read(), 'into a file')

# stopped by somebody else, and continued
t = Terminal('ajj', 'exec', 'cache', 'sh')
t.send('echo here-$((1 + 1))\r')
t.expect('here-2')
raw = t.modes()[3]
t.kill(signal.SIGTSTP)
for _ in range(100):
    if open(f'/proc/{t.pid}/stat').read().split(') ')[1][0] == 'T':
        break
    time.sleep(0.05)
else:
    fail('it does not stop')
if t.modes()[3] == raw:
    fail('the terminal is raw while it is stopped')
t.kill(signal.SIGCONT)
t.send('echo again-$((2 + 2))\r')
t.expect('again-4')
same(raw, t.modes()[3], 'raw again')
t.send('exit\r')
same(0, t.wait(), 'after it was stopped')

# the terminal goes away: so does the program
t = Terminal('ajj', 'exec', 'cache', 'sh', '-c', 'echo begun; exec sleep 98765')
t.expect('begun')
os.close(t.master)
os.waitpid(t.pid, 0)
for _ in range(100):
    if not os.popen('ajj exec cache sh -c "ps ax 2>/dev/null || ps" | grep "[s]leep 98765"').read():
        break
    time.sleep(0.1)
else:
    fail('it lives on without its terminal')
for name in ('before', 'after', 'out'):
    os.unlink(name)
PY
}

exec_in_containers() {
	mkdir app && cd app && git init -q . || exit 1
	cat >compose.yaml <<YAML
services:
  cache: { image: "redis:7", ports: ["6379"] }
  db: { image: "postgres:16", environment: { POSTGRES_PASSWORD: dev }, ports: ["5432"] }
x-aether: { backend: $backend, services: [cache] }
YAML
	ajj up && cd . || fail up
	exec_in_pipes
	exec_refused
	exec_leases
	exec_in_a_terminal
	same PONG "$(ajj exec cache redis-cli ping)" redis-cli
	ajj start db || fail 'start db'
	same 'postgres|postgres' "$(ajj exec db psql -Atc 'select current_user, current_database()')" psql
	same 12345 "$(ajj exec -u 12345 db id -u)" '-u'
	same cache "$(ajj exec -e WHO=cache cache sh -c 'echo $WHO')" '-e'

	# its container ends under it, and goes
	ajj exec db sleep 1000 2>said &
	local pid=$! got=0
	wait_for 10 'the lease' grep -q services/db/exec .aether/status.json
	ajj stop db || fail 'stop db'
	wait $pid || got=$?
	[ $got = 137 ] || [ $got = 1 ] || fail "after its container ended: $got"
	ajj start db || fail 'start db'
	AETHER_NAMESPACE=$(field namespace)
	ajj exec db sleep 1000 2>said &
	pid=$! got=0
	wait_for 10 'the lease' grep -q services/db/exec .aether/status.json
	api DELETE "/containers/$AETHER_NAMESPACE-db?force=1" >/dev/null
	wait $pid || got=$?
	[ $got = 137 ] || { [ $got = 1 ] && grep -q '^Error: ' said; } || fail "after its container was removed: $got, $(cat said)"
	local delay # that long after it was asked for: it has begun, or not, but is never what cannot be run
	for delay in 0.005 0.01 0.015 0.02 0.025 0.03; do
		ajj up || fail "up before a removal $delay s after an exec"
		ajj exec cache sleep 1000 >out 2>said &
		pid=$! got=0
		sleep $delay
		api DELETE "/containers/$AETHER_NAMESPACE-cache?force=1" >/dev/null
		wait $pid || got=$?
		[ $got = 137 ] || { [ $got = 1 ] && grep -q '^Error: ' said; } || fail "its container was removed $delay s after it was asked for: $got, $(cat out said)"
	done
	ajj up || fail 'up after removals'
	rm out said
}
