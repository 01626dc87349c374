"""Holds the engines of one run of tests: starts each when it is first needed, puts everything back between tests, and ends them all when
whoever started it ends, however that happens. A process of its own, and a sub-reaper: what an engine leaves comes to it.

It answers one line of JSON to each line `COMMAND NAME...` on its socket, and ends with its standard input.
"""
import fcntl
import glob
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile

import api
import compose
import dockerd
import host
import part
import podman
import registry

PARTS = (registry.Registry, dockerd.Dockerd, podman.Podman, compose.Compose)
MAY = ('stop', 'kill', 'pause', 'resume', 'restart')  # what a test may do to an engine
PREFIX = 'aether-engines.'
FAILURES = (part.Failed, api.Refused, OSError, subprocess.SubprocessError, http.client.HTTPException)


class Keeper:
    def __init__(self, folder, gid):
        self.place = host.Place(folder, gid)
        self.parts = {kind.name: kind(self.place) for kind in PARTS}
        self.missing, self.failed = {}, {}  # name: why it is not there
        self.mounted = None
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.place.path('control'))
        self.place.give(self.place.path('control'))
        self.listener.listen(16)

    # ---- commands: each returns what becomes JSON ----

    def need(self, *names):
        env, missing = {'ENGINES': self.place.path('control')}, {}
        for name in names:
            if name not in self.parts:
                raise part.Failed(f'there is no "{name}", but {", ".join(self.parts)}')
            if self.start(self.parts[name]):
                env.update(self.parts[name].environment())
            else:
                missing[name] = self.missing[name]
        return {'env': env, 'missing': missing}

    def start(self, one):
        """False: it cannot be had here."""
        if one.name in self.failed:
            raise part.Failed(self.failed[one.name])
        if not one.started and one.name not in self.missing:
            why = self.why_not(one)
            if why:
                self.missing[one.name] = why
            else:
                self.start_now(one)
        return one.started

    def why_not(self, one):
        return isinstance(one, part.Engine) and self.mounted is None and host.why_no_engine() or one.why_not()

    def start_now(self, one):
        if isinstance(one, part.Engine) and self.mounted is None:
            self.mounted = host.mount_cgroups()
        one.started = True  # from here on it must be ended
        try:
            one.start()
        except FAILURES as e:
            self.failed[one.name] = f'{one.name} does not start: {e}'
            raise part.Failed(self.failed[one.name]) from e

    def settle(self):
        return {'left': [x for one in self.parts.values() if one.started and one.name not in self.failed for x in one.settle()]}

    def control(self, command, name):
        one = self.parts.get(name)
        if not one or not one.started or not hasattr(one, command):
            raise part.Failed(f'there is no engine "{name}" here')
        getattr(one, command)()
        return {}

    def answer(self, line):
        words = line.split()
        try:
            if words[:1] == ['need']:
                return self.need(*words[1:])
            if words == ['settle']:
                return self.settle()
            if len(words) == 2 and words[0] in MAY:
                return self.control(*words)
            return {'failed': f'there is no command "{line}"'}
        except FAILURES as e:
            return {'failed': str(e)}

    # ---- life ----

    def serve(self, lifetime):
        while True:
            ready, _, _ = select.select([self.listener, lifetime], [], [], 1)
            host.reap()
            if lifetime in ready and not os.read(lifetime, 100):
                return
            if self.listener in ready:
                self.serve_one(self.listener.accept()[0])

    def serve_one(self, connection):
        with connection, connection.makefile('rw') as f:
            connection.settimeout(5)
            try:
                line = f.readline()
                connection.settimeout(None)
                f.write(json.dumps(self.answer(line)) + '\n')
                f.flush()
            except OSError:
                pass  # who asked has gone

    def end(self):
        for one in reversed(self.parts.values()):
            if one.started:
                one.end()
        left = host.sweep(self.place.folder, own_processes=True)
        host.unmount(self.mounted or [])
        return left


def lock(folder):
    """A keeper's directory is locked as long as it lives. None where it does."""
    f = open(os.path.join(folder, 'lock'), 'w')
    try:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return f
    except OSError:
        f.close()
        return None


def sweep_stale():
    """Takes away what a killed keeper left."""
    for folder in glob.glob(os.path.join('/tmp', PREFIX + '*')):
        if os.path.islink(folder) or os.stat(folder).st_uid != os.geteuid() or not os.path.exists(os.path.join(folder, 'lock')):
            continue
        f = lock(folder)
        if f:
            host.sweep(folder, own_processes=False)
            f.close()


def keep(lifetime, ready, gid):
    """Runs a keeper until reading lifetime comes to its end. Writes the control socket's path to ready. Returns what was left at the end."""
    host.LIBC.prctl(host.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if os.geteuid() == 0:
        sweep_stale()
    folder = tempfile.mkdtemp(prefix=PREFIX, dir='/tmp')
    os.chmod(folder, 0o711)
    held = lock(folder)
    for name in ('tmp', 'home'):
        os.mkdir(os.path.join(folder, name), 0o700)
    keeper = Keeper(folder, gid)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        os.write(ready, (keeper.place.path('control') + '\n').encode())
        keeper.serve(lifetime)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        left = keeper.end()
        held.close()
    return left
