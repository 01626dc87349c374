"""What the benches share."""
import os
import statistics
import subprocess
import time

COMPOSE = '''services:
  db:
    image: postgres:16
    environment: { POSTGRES_PASSWORD: dev }
    ports: ["5432"]
  cache:
    image: redis:7
    ports: ["6379"]
x-aether:
  backend: process
'''


def sh(*argv, **kw):
    kw.setdefault('check', True)
    kw.setdefault('stdout', subprocess.DEVNULL)
    return subprocess.run(argv, **kw)


def timed(function):
    started = time.perf_counter()
    function()
    return (time.perf_counter() - started) * 1000


def show(name, samples, unit='ms'):
    print(f'{name:48} median {statistics.median(samples):8.3f}  min {min(samples):8.3f}  max {max(samples):8.3f} {unit}  n={len(samples)}')
    return statistics.median(samples)


def workspace(path, compose=COMPOSE):
    os.makedirs(path)
    with open(path + '/compose.yaml', 'w') as f:
        f.write(compose)


def mount(path):
    sh('aetherfs', path)


def unmount(path):
    control = os.readlink(path + '/.aether')
    sh('fusermount3', '-u', path)
    while os.path.ismount(control):
        time.sleep(0.01)
