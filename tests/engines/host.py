"""What an engine needs of the host, and what it may leave there: processes, mounts, cgroups, links, shim sockets, packet filter chains."""
import ctypes
import ipaddress
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
CGROUPS = '/sys/fs/cgroup'
LIBC = ctypes.CDLL(None)


def quiet(*argv):
    """Also false where there is no such program: then nothing of its was left either."""
    return bool(shutil.which(argv[0])) and subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def output(*argv):
    if not shutil.which(argv[0]):
        return ''
    return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def read(path):
    try:
        with open(path, errors='replace') as f:
            return f.read()
    except OSError:
        return ''


# ---- may an engine run here ----

def why_no_engine():
    """The reason why none can, or None. Each is tried, for a container or a chroot may forbid any of them."""
    if os.geteuid() != 0:
        return 'a container engine is started by root alone'
    if not shutil.which('ip'):
        return 'ip is not installed (package iproute2)'
    if not quiet('unshare', '--mount', 'mount', '-t', 'tmpfs', 'probe', '/tmp'):
        return 'mounting is not permitted here'
    link = f'aep{os.getpid()}'
    if not quiet('ip', 'link', 'add', link, 'type', 'bridge'):
        return 'a network bridge cannot be made here'
    quiet('ip', 'link', 'del', link)
    if not cgroup_hierarchies() and not quiet('unshare', '--mount', 'mount', '-t', 'cgroup', '-o', 'memory', 'probe', CGROUPS) and \
            not quiet('unshare', '--mount', 'mount', '-t', 'cgroup2', 'probe', CGROUPS):
        return 'there are no cgroups, and they cannot be mounted here'
    return None


def overlay_works(folder):
    parts = [os.path.join(folder, 'probe', p) for p in ('lower', 'upper', 'work', 'merged')]
    for part in parts:
        os.makedirs(part, exist_ok=True)
    lower, upper, work, merged = parts
    works = quiet('unshare', '--mount', 'mount', '-t', 'overlay', 'probe', '-o', f'lowerdir={lower},upperdir={upper},workdir={work}', merged)
    shutil.rmtree(os.path.join(folder, 'probe'))
    return works


# ---- cgroups ----

def cgroup_hierarchies():
    with open('/proc/self/mountinfo') as f:
        fields = [line.split() for line in f]
    return [x[4] for x in fields if x[x.index('-') + 1] in ('cgroup', 'cgroup2') and x[4].startswith(CGROUPS)]


def mount_cgroups():
    """On a machine that has none mounted, as a bare chroot: what Debian's cgroupfs-mount does. Returns what was mounted."""
    if cgroup_hierarchies():
        return []
    mounted = []
    free = [line.split()[0] for line in read('/proc/cgroups').splitlines() if not line.startswith('#') and line.split()[3] == '1']
    # a controller that the second version holds cannot be mounted as one of the first: then all are there
    if free and quiet('mount', '-t', 'tmpfs', '-o', 'mode=755', 'cgroup', CGROUPS):
        mounted.append(CGROUPS)
        for name in free:
            point = os.path.join(CGROUPS, name)
            os.mkdir(point)
            if quiet('mount', '-t', 'cgroup', '-o', name, 'cgroup', point):
                mounted.append(point)
        if len(mounted) > 1:
            return mounted
        unmount(mounted)
    return [CGROUPS] if quiet('mount', '-t', 'cgroup2', 'cgroup2', CGROUPS) else []


def unmount(points):
    for point in sorted(points, key=len, reverse=True):
        quiet('umount', point) or quiet('umount', '-l', point)


def cgroups_named(name):
    return [folder for top in cgroup_hierarchies() for folder, _, _ in os.walk(os.path.join(top, name), topdown=False)]


def remove_cgroups(name):
    """Goes as far as they are empty; returns those that are not."""
    left = []
    for folder in cgroups_named(name):
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            pass
        except OSError:
            left.append(folder)
    return left


# ---- processes ----

def prepare_daemon(dies_with_us):
    def prepare():
        os.setsid()
        if dies_with_us:
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    return prepare


def spawn(argv, log, env=None, dies_with_us=True):
    with open(log, 'ab') as f:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=f, stderr=f, env=env, cwd='/', preexec_fn=prepare_daemon(dies_with_us))


def reap():
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def is_alive(process):
    """Popen's own poll() would not do: reap() may have taken its status."""
    reap()
    stat = read(f'/proc/{process.pid}/stat')
    return bool(stat) and stat.rsplit(')', 1)[1].split()[1] == str(os.getpid())


def await_end(process, seconds):
    deadline = time.monotonic() + seconds
    while is_alive(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def end(process, seconds):
    if process and is_alive(process):
        os.kill(process.pid, signal.SIGCONT)
        os.kill(process.pid, signal.SIGTERM)
        if not await_end(process, seconds):
            os.kill(process.pid, signal.SIGKILL)
            await_end(process, 5)


def children_of(pid):
    return [int(p) for task in (os.listdir(f'/proc/{pid}/task') if os.path.isdir(f'/proc/{pid}/task') else [])
            for p in read(f'/proc/{pid}/task/{task}/children').split()]


def below(pids):
    found, todo = [], list(pids)
    while todo:
        for child in children_of(todo.pop()):
            found.append(child)
            todo.append(child)
    return found


def command_line(pid):
    return read(f'/proc/{pid}/cmdline').replace('\0', ' ').strip()


# ---- a keeper's place ----

class Place:
    """A private directory, and names, ports and subnets of one's own. Another run on this machine has others."""

    def __init__(self, folder, gid):
        self.folder, self.gid = folder, gid
        self.cgroup = os.path.basename(folder).replace('.', '-')
        self.docker_net, self.podman_net = self.free_subnets()
        self.registry_port, self.registry_auth_port = free_ports(2)
        self.mounted = []
        with open(self.path('place.json'), 'w') as f:
            json.dump({'nets': [self.docker_net, self.podman_net]}, f)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def give(self, path):
        """To the group that may use the engines."""
        if os.geteuid() == 0:
            os.chown(path, 0, self.gid)
        os.chmod(path, 0o660)

    @staticmethod
    def free_subnets():
        taken = [word.split('/')[0] for word in output('ip', '-4', 'route', 'show', 'table', 'all').split() if word.startswith('10.')]
        free = [n for n in range(64, 128) if not any(word.startswith(f'10.{n}.') for word in taken)]
        return [f'10.{n}.0.0/16' for n in random.sample(free, 2)]

    def environment(self):
        """The engines' own: no image comes from elsewhere, a pull from outside fails at once instead."""
        env = {k: v for k, v in os.environ.items() if k in ('PATH', 'LANG')}
        env['PATH'] = env.get('PATH', '') + ':/usr/sbin:/sbin:/usr/bin:/bin'
        env.update({'HTTP_PROXY': 'http://127.0.0.1:9', 'HTTPS_PROXY': 'http://127.0.0.1:9', 'NO_PROXY': '127.0.0.1,localhost',
                    'HOME': self.path('home'), 'TMPDIR': self.path('tmp')})
        return env


def free_ports(count):
    """Below the kernel's ephemeral ports and above those that are leased to workspaces."""
    found = []
    for port in random.sample(range(30100, 32700), 1000):
        with socket.socket() as s:
            try:
                s.bind(('127.0.0.1', port))
                found.append(port)
            except OSError:
                continue
        if len(found) == count:
            break
    return found


# ---- what is left ----

def mounts_below(folder):
    with open('/proc/self/mountinfo') as f:
        points = [line.split()[4].encode().decode('unicode_escape') for line in f]
    return [p for p in points if p.startswith(folder + '/')]


def links_within(nets):
    nets = [ipaddress.ip_network(n) for n in nets]
    found = set()
    for line in output('ip', '-4', '-o', 'address').splitlines():
        words = line.split()
        if any(ipaddress.ip_interface(words[3]).ip in net for net in nets):
            found.add(words[1])
    return sorted(found)


def shim_sockets(folder):
    """containerd's shims have theirs in /run/containerd/s whatever its configuration says."""
    found = []
    for top, _, files in os.walk(os.path.join(folder, 'containerd', 'state')):
        if 'address' in files:
            found.append(read(os.path.join(top, 'address')).strip().removeprefix('unix://'))
    return [p for p in found if p.startswith('/run/containerd/s/') and os.path.exists(p)]


def remove_netavark_chains():
    """Netavark leaves its chains when the last network is gone, and with them rules that every packet passes."""
    for tool in ('iptables', 'ip6tables'):
        saved = output(tool + '-save')
        if 'NETAVARK' not in saved or any(line.startswith(':NETAVARK-') and 'HOSTPORT' not in line for line in saved.splitlines()):
            continue  # none, or another podman has a network
        table, chains = '', []
        for line in saved.splitlines():
            if line.startswith('*'):
                table = line[1:]
            elif line.startswith(':NETAVARK'):
                chains.append((table, line[1:].split()[0]))
            elif line.startswith('-A') and ' -j NETAVARK' in line and not line.startswith('-A NETAVARK'):
                subprocess.run(f'{tool} -t {table} -D{line[2:]}', shell=True, stderr=subprocess.DEVNULL)
        for flag in ('-F', '-X'):
            for table, chain in chains:
                quiet(tool, '-t', table, flag, chain)


ENGINE_PROGRAMS = ('dockerd', 'containerd', 'containerd-shim-runc-v2', 'podman', 'conmon', 'docker-registry')


def stale_processes(folder):
    """Of a keeper that was killed: its engines, and what is below them."""
    roots = []
    for pid in [int(p) for p in os.listdir('/proc') if p.isdigit()]:
        words = command_line(pid).split()
        if words and os.path.basename(words[0]) in ENGINE_PROGRAMS and any(folder + '/' in w for w in words):
            roots.append(pid)
    return roots + below(roots)


def kill_all(find):
    """Kills what find() returns until it returns nothing; returns what it found at first."""
    first = None
    for _ in range(100):
        reap()
        pids = [p for p in set(find()) if command_line(p)]
        if first is None:
            first = [f'process {p}: {command_line(p)[:100]}' for p in pids]
        if not pids:
            break
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        time.sleep(0.02)
    return first


def sweep(folder, own_processes):
    """Takes away whatever is left of the engines in folder, and folder. Returns what there was besides plain files."""
    cgroup = os.path.basename(folder).replace('.', '-')
    try:
        nets = json.loads(read(os.path.join(folder, 'place.json')) or '{}').get('nets', [])
    except ValueError:
        nets = []

    def processes():
        members = [int(p) for f in cgroups_named(cgroup) for p in read(os.path.join(f, 'cgroup.procs')).split()]
        return members + (below([os.getpid()]) if own_processes else stale_processes(folder))

    left = kill_all(processes)
    sockets = shim_sockets(folder)
    for path in sockets:
        os.unlink(path)
    links = links_within(nets)
    for link in links:
        quiet('ip', 'link', 'del', link)
    mounts = mounts_below(folder)
    unmount(mounts)
    remove_netavark_chains()
    left += [f'shim socket {p}' for p in sockets] + [f'link {x}' for x in links] + [f'mount {m}' for m in mounts]
    left += [f'cgroup {c}' for c in remove_cgroups(cgroup)]
    remove_cgroups('libpod_parent')
    shutil.rmtree(folder, ignore_errors=True)
    return left
