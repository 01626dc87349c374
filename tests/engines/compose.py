"""docker compose v2, the program that users have, built once by the Go tool chain from the Go module proxy."""
import os
import shutil
import subprocess

import cache
import part

VERSION = 'v2.40.3'
PACKAGE = 'github.com/docker/compose/v2/cmd'
BUILD_S = 1500


def make(folder):
    go = os.path.join(folder, 'go')
    os.makedirs(go + '/module')
    env = dict(os.environ, GOPATH=go + '/path', GOCACHE=go + '/cache', GOFLAGS='-mod=mod -modcacherw -buildvcs=false', CGO_ENABLED='0')
    for argv in (['go', 'mod', 'init', 'compose'], ['go', 'get', f'{PACKAGE}@{VERSION}'],
                 ['go', 'build', '-trimpath', '-ldflags', f'-s -w -X github.com/docker/compose/v2/internal.Version={VERSION}',
                  '-o', folder + '/docker-compose', PACKAGE]):
        run = subprocess.run(['nice', *argv], cwd=go + '/module', env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, timeout=BUILD_S)
        if run.returncode:
            raise OSError(f'{" ".join(argv[:3])}: {run.stdout.strip()[-300:]}')
    shutil.rmtree(go)


def folder():
    return cache.made('compose', digest(), make)


def digest():
    return cache.hash_of([os.path.realpath(__file__)], os.uname().machine)


def why_not():
    """Whoever cannot build it, for want of Go or of the network, does without."""
    if not os.path.isdir(cache.path('compose', digest())) and not shutil.which('go'):
        return f'docker compose {VERSION} is not built and there is no Go to build it with'
    try:
        folder()
    except (OSError, subprocess.SubprocessError) as e:
        return f'docker compose {VERSION} cannot be built: {e}'
    return None


class Compose(part.Part):
    name = 'compose'

    def why_not(self):
        return why_not()

    def start(self):
        # a copy that every user may run: the cache is below somebody's home
        shutil.copy2(os.path.join(folder(), 'docker-compose'), self.place.path('docker-compose'))

    def environment(self):
        return {'DOCKER_COMPOSE': self.place.path('docker-compose')}
