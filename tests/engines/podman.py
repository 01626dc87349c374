"""Debian's podman, its service on a socket. crun, its default, refuses hosts with both versions of cgroups: runc is taken."""
import glob
import os
import resource

import host
import part

CONFIGURATION = '''[containers]
default_ulimits = ["nofile={nofile}:{nofile}", "nproc={nproc}:{nproc}"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
runtime = "runc"
tmp_dir = "{folder}/podman/tmp"
image_copy_tmp_dir = "{folder}/podman/tmp"
volume_path = "{folder}/podman/volumes"
helper_binaries_dir = ["/usr/lib/podman", "/usr/libexec/podman"]
init_path = "/usr/bin/catatonit"
[engine.runtimes]
runc = ["/usr/sbin/runc", "/usr/bin/runc"]
[network]
network_backend = "netavark"
network_config_dir = "{folder}/podman/networks"
default_subnet = "{subnet}"
default_subnet_pools = [{{"base" = "{net}", "size" = 24}}]
'''

STORAGE = '''[storage]
driver = "{driver}"
graphroot = "{folder}/podman/storage"
runroot = "{folder}/podman/run"
'''

REGISTRIES = '''unqualified-search-registries = ["docker.io"]
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "127.0.0.1:{registry}"
insecure = true
[[registry]]
location = "127.0.0.1:{registry}"
insecure = true
[[registry]]
location = "127.0.0.1:{registry_auth}"
insecure = true
'''


class Podman(part.Engine):
    name = 'podman'
    programs = (('podman', 'podman'), ('runc', 'runc'), ('conmon', 'conmon'), ('iptables', 'iptables'))

    def __init__(self, place):
        super().__init__(place)
        self.forwarding = host.read('/proc/sys/net/ipv4/ip_forward').strip()

    def why_not(self):
        for helper in ('netavark', 'aardvark-dns'):
            if not os.path.exists('/usr/lib/podman/' + helper):
                return f'{helper} is not installed (package {helper})'
        return super().why_not()

    def write_configuration(self):
        place = self.place
        # Without CAP_SYS_RESOURCE no container may have more than podman itself, which lowers its own processes to 32768.
        words = {'folder': place.folder, 'net': place.podman_net, 'subnet': place.podman_net.replace('.0.0/16', '.0.0/24'),
                 'nofile': resource.getrlimit(resource.RLIMIT_NOFILE)[1], 'nproc': min(max(resource.getrlimit(resource.RLIMIT_NPROC)[1], 0) or 32768, 32768),
                 'driver': 'overlay' if host.overlay_works(place.folder) else 'vfs',
                 'registry': place.registry_port, 'registry_auth': place.registry_auth_port}
        os.makedirs(place.path('podman', 'tmp'), exist_ok=True)
        for name, text in (('containers', CONFIGURATION), ('storage', STORAGE), ('registries', REGISTRIES)):
            with open(place.path('podman', name + '.conf'), 'w') as f:
                f.write(text.format(**words))

    def podman_environment(self):
        env = self.place.environment()
        env.update({'CONTAINERS_CONF': self.place.path('podman', 'containers.conf'),
                    'CONTAINERS_STORAGE_CONF': self.place.path('podman', 'storage.conf'),
                    'CONTAINERS_REGISTRIES_CONF': self.place.path('podman', 'registries.conf')})
        return env

    def start_daemon(self):
        if not os.path.exists(self.place.path('podman', 'containers.conf')):
            self.write_configuration()
        if os.path.exists(self.socket):
            os.unlink(self.socket)  # of a service that was killed
        self.daemon = host.spawn(['podman', '--runtime', '/usr/sbin/runc', 'system', 'service', '--time=0', 'unix://' + self.socket],
                                 self.log, self.podman_environment())
        self.await_answer([self.daemon])

    def environment(self):
        return {'PODMAN_SOCKET': self.socket, 'PODMAN_LOG': self.log}

    def end(self):
        super().end()
        # The API's exec sessions keep their conmon for five minutes, in which their exit code can be asked for.
        host.kill_all(lambda: [p for p in host.below([os.getpid()]) if host.command_line(p).startswith('/usr/bin/conmon ')])
        host.unmount([m for m in host.mounts_below(self.place.folder) if m == self.place.path('podman', 'storage', 'overlay')])  # they held it
        # The host's one aardvark-dns goes when nobody has a name there: those of containers that were never torn down would keep it for ever.
        for path in glob.glob('/run/containers/networks/aardvark-dns/*'):
            if host.read(path).startswith(self.place.podman_net.split('.0.0/')[0] + '.'):
                os.unlink(path)
        if self.forwarding == '0':  # netavark switches it on for the whole host
            with open('/proc/sys/net/ipv4/ip_forward', 'w') as f:
                f.write('0\n')
