"""What every part of the harness has in common, and what the two engines have: their API."""
import json
import os
import shutil
import signal
import time

import api
import host
import images


class Failed(Exception):
    """It should run here and does not: a failure of the tests that need it, no skip."""


class Part:
    name = ''
    programs = ()  # (program, the Debian package that has it)
    needs = ()  # other parts, started before

    def __init__(self, place):
        self.place, self.started = place, False

    def why_not(self):
        """Why it cannot be had on this machine, or None."""
        for program, package in self.programs:
            if not shutil.which(program, path=self.place.environment()['PATH']):
                return f'{program} is not installed (package {package})'
        return None

    def start(self):
        raise NotImplementedError

    def environment(self):
        """What a test finds in its environment."""
        return {}

    def settle(self):
        """After a test: everything as before it. Returns what the test left behind."""
        return []

    def end(self):
        pass


def await_that(what, condition, processes, log, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        ended = [p for p in processes if not host.is_alive(p)]
        if ended or time.monotonic() > deadline:
            raise Failed(f'{what} {"ended" if ended else "does not answer"}: {last_words(log)}')
        time.sleep(0.01)


def last_words(log):
    lines = host.read(log).strip().splitlines()
    telling = [line for line in lines if 'level=error' in line or 'level=fatal' in line or 'rror' in line] or lines
    return telling[-1][-400:] if telling else 'it said nothing'


class Engine(Part):
    """Behind a Docker API on a Unix socket. A subclass starts and ends the daemon that answers there."""
    api_version = 'v1.41'

    def __init__(self, place):
        super().__init__(place)
        self.socket = place.path(self.name + '.sock')
        self.log = place.path(self.name + '.log')
        self.daemon = None
        self.baseline = None

    def start_daemon(self):
        raise NotImplementedError

    def start(self):
        self.start_daemon()
        self.load_images()
        self.baseline = self.things()
        self.tags = self.image_tags()

    def answers(self):
        try:
            return api.call(self.socket, 'GET', '/_ping', timeout=5) == b'OK'
        except OSError:
            return False

    def await_answer(self, processes):
        await_that(self.name, self.answers, processes, self.log)
        self.place.give(self.socket)

    def call(self, method, url, **kw):
        return api.call(self.socket, method, f'/{self.api_version}{url}', **kw)

    def get(self, url):
        return json.loads(self.call('GET', url) or 'null')

    # ---- what is in it ----

    def load_images(self):
        with open(os.path.join(images.folder(), 'images.tar'), 'rb') as f:
            said = self.call('POST', '/images/load?quiet=1', body=f, headers={'Content-Type': 'application/x-tar'}).decode()
        if '"error"' in said:
            raise Failed(f'{self.name} does not take the images: {said}')

    def things(self):
        """What a test must take away again."""
        found = {('container', c['Id'], (c.get('Names') or ['?'])[0].lstrip('/')) for c in self.get('/containers/json?all=1') or []}
        found |= {('network', n['Id'], n['Name']) for n in self.get('/networks') or []}
        return found | {('volume', v['Name'], v['Name']) for v in (self.get('/volumes') or {}).get('Volumes') or []}

    def image_tags(self):
        return {(tag, i['Id']) for i in self.get('/images/json') or [] for tag in i.get('RepoTags') or [i['Id']] if tag != '<none>:<none>'} | \
            {(i['Id'], i['Id']) for i in self.get('/images/json') or []}

    REMOVE = {'container': '/containers/{}?force=1&v=1', 'network': '/networks/{}', 'volume': '/volumes/{}?force=1'}

    def remove(self, things):
        for kind in ('container', 'network', 'volume'):  # the later ones are in use by the former
            for _, identity, _ in [t for t in things if t[0] == kind]:
                try:
                    self.call('DELETE', self.REMOVE[kind].format(api.quote(identity)))
                except (OSError, api.Refused):
                    pass  # gone meanwhile; what stays is seen by the caller

    def restore_images(self):
        """What a test has pulled, built or retagged is no fault of its; but the next one finds what it expects."""
        now = self.image_tags()
        for tag, _ in sorted(now - self.tags):
            try:
                self.call('DELETE', f'/images/{api.quote(tag)}?force=1')
            except api.Refused:
                pass  # went with another of its names
        if self.tags - self.image_tags():
            self.load_images()

    # ---- between tests ----

    def is_running(self):
        return self.daemon is not None and host.is_alive(self.daemon)

    def settle(self):
        left = []
        if self.is_running():
            self.signal(signal.SIGCONT)
        else:
            self.start_daemon()
        things = self.things() - self.baseline
        if things:
            left = [f'{self.name}: {kind} {name}' for kind, _, name in sorted(things)]
            self.remove(things)
        self.restore_images()
        return left

    # ---- what a test may do to it: see engine stop|start|kill|pause|resume ----

    def signal(self, number):
        if self.is_running():
            os.kill(self.daemon.pid, number)

    def pause(self):
        self.signal(signal.SIGSTOP)

    def resume(self):
        self.signal(signal.SIGCONT)

    def kill(self):
        self.signal(signal.SIGKILL)
        host.await_end(self.daemon, 5)

    def stop(self):
        host.end(self.daemon, 30)

    def restart(self):
        self.stop()
        self.start_daemon()

    def end(self):
        if self.is_running():
            self.resume()
            try:
                self.remove(self.things())
            except (OSError, api.Refused):
                pass  # the sweep takes what is left
        self.stop()
