"""What the tests of the control file system share: `with workspace() as w:` mounts one with a real service, approved."""
import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
import traceback

SERVICE = '''  {name}:
    x-aether:
      command: ["sh", "-c", "sleep {delay}; exec python3 -m http.server --bind 127.0.0.1 $$PORT"]
      ready: {{ tcp: 8000 }}
    ports: ["8000"]
'''


def compose(services=('web',), delay=0.2, timeout='30s'):
    return ('services:\n' + ''.join(SERVICE.format(name=s, delay=delay) for s in services)
            + f'x-aether: {{ backend: process, timeout: {timeout} }}\n')


class Workspace:
    def __init__(self, path, text):
        self.path = os.path.realpath(path)
        os.makedirs(self.path, exist_ok=True)
        with open(os.path.join(self.path, 'compose.yaml'), 'w') as f:
            f.write(text)

    def __enter__(self):
        subprocess.run(['ajj', 'attach', self.path], check=True, timeout=60, stdout=subprocess.DEVNULL)
        return self

    def __exit__(self, failure, *_):
        with contextlib.suppress(OSError):
            if failure:
                print(read(self / '.aether/errors.json'), read(self / '.aether/events'))
            write(self / '.aether/ctl', 'destroy\n')
        subprocess.run(['ajj', 'detach', self.path], check=True, timeout=60, stdout=subprocess.DEVNULL)

    def __truediv__(self, name):
        return os.path.join(self.path, name)

    def status(self):
        return json.loads(read(self / '.aether/status.json'))

    def events(self, kind):
        return [e for e in map(json.loads, read(self / '.aether/events').splitlines()) if e['type'] == kind]


def workspace(text=None, path='ws'):
    return Workspace(path, text or compose())


def read(path):
    """All of it, and never more or less than fstat says."""
    fd = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        data = b''
        while part := os.read(fd, 65536):
            data += part
    finally:
        os.close(fd)
    assert os.path.basename(path) in ('events', 'log') or size == len(data), f'{path}: st_size {size}, {len(data)} bytes'
    return data.decode()


def write(path, text, mode='w'):
    with open(path, mode) as f:
        f.write(text)


def variables(path):
    return dict(line.split('=', 1) for line in read(path).splitlines() if '=' in line and not line.startswith('#'))


def soon(what, check, seconds=10):
    until = time.monotonic() + seconds
    while not (value := check()):
        assert time.monotonic() < until, f'waited in vain for {what}'
        time.sleep(0.01)
    return value


@contextlib.contextmanager
def fails(*errnos):
    try:
        yield
    except OSError as e:
        if e.errno not in errnos:
            raise AssertionError(f'{errno.errorcode.get(e.errno)}, expected {[errno.errorcode[n] for n in errnos]}') from e
        return
    raise AssertionError(f'success, expected {[errno.errorcode[n] for n in errnos]}')


def cat(path, **kw):
    return subprocess.Popen(['cat', path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kw)


def default_signals():
    for s in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(s, signal.SIG_DFL)


def run_all(tests):
    failed = 0
    for test in tests:
        try:
            test()
            print(f'ok {test.__name__}', flush=True)
        except Exception:  # noqa: BLE001 every test runs, whatever became of the one before
            failed += 1
            print(f'FAILED {test.__name__}')
            traceback.print_exc(file=sys.stdout)
    sys.exit(1 if failed else 0)
