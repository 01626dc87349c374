"""What the tests of the overlay share: `with mounted() as m:` mounts a directory in place and leaves nothing behind."""
import contextlib
import errno
import json
import os
import subprocess
import sys
import time


def is_running(pid):
    """A dead one may be waiting for a parent that does not look yet."""
    try:
        return read(f'/proc/{pid}/stat').rsplit(')', 1)[1].split()[0] not in 'ZX'
    except (FileNotFoundError, ProcessLookupError):
        return False


class Mount:
    def __init__(self, path, options=None):
        self.path = os.path.realpath(path)
        os.makedirs(self.path, exist_ok=True)
        self.beneath = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)  # the other door
        self.options = ['-o', options] if options else []

    def __enter__(self):
        subprocess.run(['aetherfs', *self.options, self.path], check=True, timeout=60)
        return self

    def __exit__(self, *failure):
        os.close(self.beneath)
        keeper = self.status()['keeper_pid']
        # a test that failed may hold something open, and says why itself; the walk that prewarms holds it for a moment
        unmount = ['fusermount3', '-u', *(['-z'] if failure[0] else []), self.path]
        until = time.monotonic() + 5
        while subprocess.run(unmount, stderr=subprocess.DEVNULL).returncode and time.monotonic() < until:
            time.sleep(0.05)
        until = time.monotonic() + 20
        while is_running(keeper) and time.monotonic() < until:
            time.sleep(0.01)

    def __truediv__(self, name):
        return os.path.join(self.path, name)

    def status(self):
        with open(self / '.aether/status.json') as f:
            return json.load(f)['aetherfs']

    def server_fds(self):
        return len(os.listdir(f'/proc/{self.status()["server_pid"]}/fd'))

    def server_fds_of(self, prefix):
        """The names, that begin so, of files that the server holds open."""
        fds = f'/proc/{self.status()["server_pid"]}/fd'
        names = set()
        for fd in os.listdir(fds):
            with contextlib.suppress(FileNotFoundError):
                names.add(os.readlink(f'{fds}/{fd}'))
        return {n for n in names if n.startswith(prefix)}


@contextlib.contextmanager
def mounted(path='ws', options=None):
    with Mount(path, options) as m:
        yield m


@contextlib.contextmanager
def fails(*errnos):
    try:
        yield
    except OSError as e:
        if e.errno not in errnos:
            raise AssertionError(f'{errno.errorcode.get(e.errno)}, expected {[errno.errorcode[n] for n in errnos]}') from e
        return
    raise AssertionError(f'success, expected {[errno.errorcode[n] for n in errnos]}')


def write(path, text='', mode='w'):
    with open(path, mode) as f:
        f.write(text)


def read(path):
    with open(path) as f:
        return f.read()


def run_all(functions, *args, **kwargs):
    """Each in turn; all are run, the names of those that fail are the last line."""
    import traceback
    failed = []
    for f in functions:
        try:
            f(*args, **kwargs)
        except Exception:  # noqa: BLE001 a test reports whatever went wrong
            print(f'--- {f.__name__}: {f.__doc__ or ""}', file=sys.stderr)
            traceback.print_exc()
            failed.append(f.__name__)
    if failed:
        sys.exit(f'failed: {" ".join(failed)}')


def drop(uid, gid=None, groups=()):
    """For subprocess's preexec_fn."""
    def change():
        os.setgroups(list(groups))
        os.setgid(gid if gid is not None else uid)
        os.setuid(uid)
    return change


def as_user(uid, function, gid=None, groups=()):
    """Runs it in a child with other ids; its exception is ours."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        text, code = '', 0
        try:
            drop(uid, gid, groups)()
            function()
        except BaseException:  # noqa: BLE001 passed to the parent as text
            import traceback
            text, code = traceback.format_exc(), 1
        os.write(w, text.encode())
        os._exit(code)
    os.close(w)
    with open(r) as f:
        text = f.read()
    _, status = os.waitpid(pid, 0)
    if status:
        raise AssertionError(f'as {uid}: {text or status}')
