"""Images made of Debian's packages: a small busybox, a real Postgres and a real Redis under the tags that compose files name.

Their layers are written straight from the packages' archives: no root is needed, and the same packages give the same bytes. The
digest of what makes them, this file among it, names the cached result; a new version of a package alone makes no new image. Versions are
Debian's, whatever the tag says: the label dev.aether.test.packages has them.
"""
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile

import cache

HERE = os.path.join(cache.HERE, 'images')
CREATED = '2024-01-01T00:00:00Z'
MULTIARCH = {'amd64': 'x86_64-linux-gnu', 'arm64': 'aarch64-linux-gnu'}
ELF_MACHINES = {'amd64': b'\xb7\x00', 'arm64': b'\x3e\x00'}  # the other one's
OTHER = {'amd64': 'arm64', 'arm64': 'amd64'}

# Never wanted in an image: documentation, and what a package has for other uses than running its program.
UNWANTED_PATHS = re.compile(r'usr/share/(doc|man|info|lintian|locale|bug|menu|bash-completion|initramfs-tools|gdb|perl5|systemd)(/|$)'
                            r'|usr/lib/(systemd|udev|tmpfiles\.d|init)(/|$)|etc/(init\.d|cron|logrotate|default|ssl|perl)'
                            r'|.*/(bitcode|gconv)(/|$)|.*/llvmjit|usr/share/zoneinfo/(right|posix)(/|$)')
# Of a dependency closure, libraries are taken and tools are not; of the libraries not those that only what is left out needs.
LIBRARIES = re.compile(r'zlib1g|lib(?!.*(perl|llvm|z3-|pam-modules|semanage|sepol|db5|gdbm|l10n|sasl2-modules|c-bin))')


class Layer:
    def __init__(self, name, below=None, packages=None, files=None, libraries=False):
        self.name, self.below = name, below
        self.packages = packages or {}  # name: the paths that are wanted of it, or None for all
        self.files = files or (lambda entries: None)
        self.libraries = libraries  # with all that the packages need

    def chain(self):
        return (self.below.chain() if self.below else []) + [self]


class Image:
    def __init__(self, tags, layer, config):
        self.tags, self.layer, self.config = tags, layer, config


# ---- what is put into the layers besides the packages ----

class Entries(dict):
    """path: (TarInfo, bytes). Paths are as in a merged /usr."""

    def put(self, path, data=b'', mode=0o644, kind=tarfile.REGTYPE, owner=0, link=''):
        info = tarfile.TarInfo(path)
        info.type, info.mode, info.uid, info.gid, info.linkname, info.size = kind, mode, owner, owner, link, len(data)
        self[path] = (info, data)

    def folder(self, path, mode=0o755, owner=0):
        self.put(path, mode=mode, kind=tarfile.DIRTYPE, owner=owner)

    def link(self, path, target):
        self.put(path, mode=0o777, kind=tarfile.SYMTYPE, link=target)

    def script(self, path, source):
        with open(os.path.join(HERE, source), 'rb') as f:
            self.put(path, f.read(), 0o755)

    def users(self, *names):
        rows = [('root', 0, '/root', '/bin/sh'), ('nobody', 65534, '/nonexistent', '/bin/false')] + list(names)
        self.put('etc/passwd', ''.join(f'{n}:x:{i}:{i}:{n}:{home}:{shell}\n' for n, i, home, shell in rows).encode())
        self.put('etc/group', ''.join(f'{"nogroup" if n == "nobody" else n}:x:{i}:\n' for n, i, _, _ in rows).encode())

    def text(self, path):
        return self[path][1].decode()


def busybox_files(entries):
    for name in ('bin', 'sbin', 'lib', 'lib64'):
        entries.folder('usr/' + name)
        entries.link(name, 'usr/' + name)
    for name, mode in (('tmp', 0o1777), ('var/tmp', 0o1777), ('root', 0o700), ('etc', 0o755), ('run', 0o755), ('var', 0o755), ('home', 0o755)):
        entries.folder(name, mode)
    entries.link('var/run', '/run')
    entries.users()
    with tempfile.TemporaryDirectory() as folder:
        program = os.path.join(folder, 'busybox')
        with open(program, 'wb') as f:
            f.write(entries['usr/bin/busybox'][1])
        os.chmod(program, 0o755)
        applets = subprocess.run([program, '--list'], check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    for applet in applets:
        if applet != 'busybox':
            entries.link('usr/bin/' + applet, 'busybox')


def debian_files(entries):
    entries.script('usr/local/bin/gosu', 'gosu.sh')
    entries.put('etc/nsswitch.conf', b'passwd: files\ngroup: files\nhosts: files dns\n')


def postgres_files(entries):
    entries.users(('postgres', 999, '/var/lib/postgresql', '/bin/bash'))
    entries.folder('var/lib/postgresql', 0o755, 999)
    entries.folder('var/lib/postgresql/data', 0o1777, 999)
    entries.folder('run/postgresql', 0o3777, 999)
    entries.folder('docker-entrypoint-initdb.d')
    entries.script('usr/local/bin/docker-entrypoint.sh', 'postgres.sh')
    sample = 'usr/share/postgresql/15/postgresql.conf.sample'
    entries.put(sample, entries.text(sample).encode() + b"\nlisten_addresses = '*'\n")


def redis_files(entries):
    entries.users(('redis', 999, '/data', '/bin/sh'))
    entries.folder('data', 0o755, 999)
    entries.script('usr/local/bin/docker-entrypoint.sh', 'redis.sh')


BUSYBOX = Layer('busybox', None, {'busybox-static': ('bin/busybox',)}, busybox_files)
DEBIAN = Layer('debian', BUSYBOX, {'bash': ('bin/bash',), 'util-linux': ('usr/bin/setpriv',),
                                   'libc-bin': ('usr/lib/locale/', 'usr/bin/getent', 'usr/bin/locale')}, debian_files, libraries=True)
POSTGRES = Layer('postgres', DEBIAN, {'postgresql-15': None, 'postgresql-client-15': None, 'tzdata': None}, postgres_files, libraries=True)
REDIS = Layer('redis', DEBIAN, {'redis-server': None, 'redis-tools': None}, redis_files, libraries=True)

PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
IMAGES = (
    Image(('busybox:1', 'busybox:latest'), BUSYBOX, {'Env': ['PATH=' + PATH], 'Cmd': ['sh']}),
    Image(('postgres:16', 'postgres:15', 'postgres:latest'), POSTGRES, {
        'Env': [f'PATH={PATH}:/usr/lib/postgresql/15/bin', 'LANG=C.UTF-8', 'PG_MAJOR=15', 'PGDATA=/var/lib/postgresql/data'],
        'Entrypoint': ['docker-entrypoint.sh'], 'Cmd': ['postgres'], 'ExposedPorts': {'5432/tcp': {}},
        'Volumes': {'/var/lib/postgresql/data': {}}, 'StopSignal': 'SIGINT'}),
    Image(('redis:7', 'redis:latest'), REDIS, {
        'Env': ['PATH=' + PATH], 'Entrypoint': ['docker-entrypoint.sh'], 'Cmd': ['redis-server'], 'ExposedPorts': {'6379/tcp': {}},
        'Volumes': {'/data': {}}, 'WorkingDir': '/data'}),
)


# ---- packages ----

class Packages:
    """Debian packages by name, downloaded once each."""

    def __init__(self, folder):
        self.folder = folder
        os.makedirs(folder, mode=0o755)
        with open(os.path.join(folder, 'none'), 'w'):
            pass

    def apt(self, *argv):
        run = subprocess.run(['apt-get', '-qq', *argv], cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if run.returncode:
            raise OSError(f'apt-get {argv[-1]}: {run.stderr.strip()}')
        return run.stdout

    def closure(self, names):
        """With all that they depend on, as on an empty machine. Simulated: --print-uris would leave out what apt's cache of archives holds."""
        lines = self.apt('-o', f'Dir::State::status={self.folder}/none', '--simulate', '--no-install-recommends', 'install', *names)
        return sorted({line.split()[1] for line in lines.splitlines() if line.startswith('Inst ')})

    def download(self, names):
        missing = [n for n in names if not self.file(n)]
        if missing:
            self.apt('download', *missing)

    def file(self, name):
        found = [f for f in os.listdir(self.folder) if f.startswith(name + '_') and f.endswith('.deb')]
        return os.path.join(self.folder, found[0]) if found else None

    def version(self, name):
        return os.path.basename(self.file(name)).split('_')[1].replace('%3a', ':')

    def entries(self, name, wanted):
        data = subprocess.run(['dpkg-deb', '--fsys-tarfile', self.file(name)], check=True, stdout=subprocess.PIPE).stdout
        found = Entries()
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for info in tar:
                path = info.name.removeprefix('./').strip('/')
                if wanted and not path.startswith(wanted) or not path or path == '.':
                    continue
                path = re.sub(r'^(bin|sbin|lib|lib64)(?=/|$)', r'usr/\1', path)
                if UNWANTED_PATHS.match(path):
                    continue
                if info.islnk():
                    info.linkname = re.sub(r'^(bin|sbin|lib|lib64)/', r'usr/\1/', info.linkname.removeprefix('./'))
                info.name, info.mtime, info.uname, info.gname, info.pax_headers = path, 0, '', '', {}
                found[path] = (info, tar.extractfile(info).read() if info.isreg() else b'')
        return found


# ---- layers, images, and the files that carry them ----

def parents(path):
    while '/' in path:
        path = path.rsplit('/', 1)[0]
        yield path


def layer_tar(entries):
    for path in list(entries):
        for parent in parents(path):
            if parent not in entries:
                entries.folder(parent)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w', format=tarfile.GNU_FORMAT) as tar:
        # a hard link comes after what it links to
        for path in sorted(entries, key=lambda p: (entries[p][0].islnk(), p)):
            info, data = entries[path]
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def digest(data):
    return 'sha256:' + hashlib.sha256(data).hexdigest()


class Builder:
    def __init__(self, folder):
        self.folder, self.packages = folder, Packages(os.path.join(folder, 'packages'))
        self.layers = {}  # name: (the layer's tar, its packages with versions)
        self.arch = subprocess.run(['dpkg', '--print-architecture'], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        self.index = {}

    def blob(self, data):
        name = os.path.join(self.folder, 'blobs', digest(data))
        os.makedirs(os.path.dirname(name), exist_ok=True)
        with open(name, 'wb') as f:
            f.write(data)
        return {'digest': digest(data), 'size': len(data)}

    def layer(self, layer):
        if layer.name not in self.layers:
            names = set(layer.packages)
            if layer.libraries:
                names |= {n for n in self.packages.closure(sorted(names)) if LIBRARIES.match(n)} - self.packages_of(layer.below)
            self.packages.download(sorted(names))
            entries = Entries()
            for name in sorted(names):
                entries.update(self.packages.entries(name, layer.packages.get(name)))
            layer.files(entries)
            self.layers[layer.name] = layer_tar(entries), {n: self.packages.version(n) for n in names}
        return self.layers[layer.name]

    def packages_of(self, layer):
        return {name for one in (layer.chain() if layer else []) for name in self.layer(one)[1]}

    def image(self, tags, tars, config, arch, packages):
        config = dict(config, Labels={'dev.aether.test.packages': ' '.join(f'{k}={v}' for k, v in sorted(packages.items()))})
        text = json.dumps({'created': CREATED, 'architecture': arch, 'os': 'linux', 'config': config,
                           'rootfs': {'type': 'layers', 'diff_ids': [digest(t) for t in tars]},
                           'history': [{'created': CREATED, 'created_by': 'tests/engines/images.py'} for _ in tars]}, sort_keys=True).encode()
        kind = 'application/vnd.docker.'
        manifest = {'schemaVersion': 2, 'mediaType': kind + 'distribution.manifest.v2+json',
                    'config': dict(self.blob(text), mediaType=kind + 'container.image.v1+json'),
                    'layers': [dict(self.blob(gzip.compress(t, 6, mtime=0)), mediaType=kind + 'image.rootfs.diff.tar.gzip') for t in tars]}
        blob = self.blob(json.dumps(manifest, sort_keys=True).encode())
        for tag in tags:
            self.index[tag] = dict(blob, mediaType=manifest['mediaType'])
        return text, blob

    def foreign(self, tar):
        """busybox for another architecture: one that starts nowhere, and a list of manifests that has nothing for this machine."""
        entries = Entries()
        with tarfile.open(fileobj=io.BytesIO(tar)) as t:
            for info in t:
                data = t.extractfile(info).read() if info.isreg() else b''
                if info.name == 'usr/bin/busybox':
                    data = data[:18] + ELF_MACHINES[self.arch] + data[20:]
                entries[info.name] = (info, data)
        arch = OTHER[self.arch]
        _, blob = self.image(['busybox:foreign'], [layer_tar(entries)], {'Cmd': ['sh']}, arch, {})
        kind = 'application/vnd.docker.distribution.manifest.'
        listed = {'schemaVersion': 2, 'mediaType': kind + 'list.v2+json',
                  'manifests': [dict(blob, mediaType=kind + 'v2+json', platform={'architecture': arch, 'os': 'linux'})]}
        self.index['busybox:foreign-list'] = dict(self.blob(json.dumps(listed).encode()), mediaType=listed['mediaType'])

    def build(self):
        archive, said = {}, []
        for image in IMAGES:
            chain = image.layer.chain()
            tars = [self.layer(one)[0] for one in chain]
            packages = {n: v for one in chain for n, v in self.layer(one)[1].items()}
            text, _ = self.image(image.tags, tars, image.config, self.arch, packages)
            config = digest(text)[7:] + '.json'
            archive[config] = text
            archive.update({f'{digest(t)[7:]}/layer.tar': t for t in tars})
            said.append({'Config': config, 'RepoTags': ['docker.io/library/' + t for t in image.tags],
                         'Layers': [f'{digest(t)[7:]}/layer.tar' for t in tars]})
        archive['manifest.json'] = json.dumps(said).encode()
        entries = Entries()
        for name, data in archive.items():
            entries.put(name, data)
        with open(os.path.join(self.folder, 'images.tar'), 'wb') as f:
            f.write(layer_tar(entries))
        self.foreign(self.layer(BUSYBOX)[0])
        with open(os.path.join(self.folder, 'index.json'), 'w') as f:
            json.dump(self.index, f, indent=1)
        shutil.rmtree(self.packages.folder)


def folder():
    """images.tar for an engine's load; index.json (tag: manifest) and blobs/DIGEST for a registry."""
    made_of = [os.path.join(HERE, n) for n in os.listdir(HERE)] + [os.path.realpath(__file__)]
    release = open('/etc/os-release').read() if os.path.exists('/etc/os-release') else ''
    codename = re.search(r'^VERSION_CODENAME=(\w+)', release, re.M)
    return cache.made('images', cache.hash_of(made_of, os.uname().machine, codename.group(1) if codename else ''), lambda f: Builder(f).build())
