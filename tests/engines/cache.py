"""What is built once and kept outside of the source tree: $XDG_CACHE_HOME/aetherfs-tests/WHAT-HASH, HASH over all that makes it."""
import contextlib
import fcntl
import hashlib
import os
import shutil

HERE = os.path.dirname(os.path.realpath(__file__))


def top():
    return os.path.join(os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'), 'aetherfs-tests')


def path(what, digest):
    return os.path.join(top(), f'{what}-{digest}')


def hash_of(files, *words):
    h = hashlib.sha256()
    for name in sorted(files):
        with open(name, 'rb') as f:
            h.update(os.path.relpath(name, HERE).encode() + b'\0' + f.read() + b'\0')
    for word in words:
        h.update(word.encode() + b'\0')
    return h.hexdigest()[:16]


@contextlib.contextmanager
def locked(folder):
    """Another run may be building the same."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, 'lock'), 'w') as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def forget_others(what, folder):
    for name in os.listdir(folder):
        if name.startswith(what + '-'):
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


def made(what, digest, make):
    """The directory WHAT-DIGEST, made by make(directory) where it is absent. Older ones of the same kind go."""
    target = path(what, digest)
    if os.path.isdir(target):
        return target
    with locked(top()):
        if os.path.isdir(target):
            return target
        forget_others(what, top())
        part = target + '.part'
        os.makedirs(part)
        make(part)
        os.rename(part, target)
    return target
