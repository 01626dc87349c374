"""What the tests of keeper and server share."""
import json
import os
import shutil
import subprocess
import time


def environment(path='ws'):
    with open(f'{path}/.aether/status.json') as f:
        return json.load(f)


def status(path='ws'):
    return environment(path)['aetherfs']


def mounts(path):
    """Types of what is mounted there, the topmost last."""
    with open('/proc/self/mountinfo') as f:
        lines = [line.split() for line in f]
    return [line[line.index('-') + 1] for line in lines if line[4] == os.path.realpath(path)]


def options(path):
    with open('/proc/self/mountinfo') as f:
        return next(line.split()[5].split(',') for line in f if line.split()[4] == os.path.realpath(path))


def alive(pid):
    try:
        with open(f'/proc/{pid}/status') as f:
            return 'State:\tZ' not in f.read()
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition, what, seconds=10):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, 'waited in vain for: ' + what
        time.sleep(0.01)


def unmount(path='ws', how='-u'):
    """A mount is busy for the moment in which our own helper looks through it."""
    until = time.monotonic() + 5
    while subprocess.run(['fusermount3', how, path], stderr=subprocess.DEVNULL if time.monotonic() < until else None).returncode:
        assert time.monotonic() < until, f'fusermount3 {how} {path}'
        time.sleep(0.05)


def nothing_left(us, control, path='ws', seconds=10):
    """No process, no mount, no directory: the plain directory is back."""
    wait_for(lambda: not alive(us['keeper_pid']), 'the keeper to end', seconds)
    wait_for(lambda: not alive(us['server_pid']), 'the server to end', seconds)
    assert not mounts(path) and not mounts(control)
    assert not os.path.lexists(control), control
    wait_for(lambda: not os.listdir(os.environ['AETHER_RUNTIME_DIR']), f'{os.environ["AETHER_RUNTIME_DIR"]} to be empty', 5)


def own_programs():
    """A copy of the programs, to put something else in the place of one."""
    os.makedirs('bin')
    for name in ('aetherfs', 'aetherfs-server', 'aetherfs-helper', 'aetherfs-shim'):
        shutil.copy2(os.path.join(os.environ['BUILD'], name), 'bin')
    if os.path.isdir(os.environ['BUILD'] + '/contrib'):
        os.symlink(os.path.realpath(os.environ['BUILD'] + '/contrib'), 'bin/contrib')
    return os.path.realpath('bin')
