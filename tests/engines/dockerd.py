"""Debian's dockerd with a containerd of its own: a system's one, at /run/containerd, is never touched."""
import os

import host
import part


class Dockerd(part.Engine):
    name = 'docker'
    programs = (('dockerd', 'docker.io'), ('containerd', 'containerd'), ('runc', 'runc'), ('iptables', 'iptables'))

    def __init__(self, place):
        super().__init__(place)
        self.containerd = None
        self.driver = None

    def start_daemon(self):
        if not self.containerd or not host.is_alive(self.containerd):
            self.start_containerd()
        self.driver = self.driver or ('overlay2' if host.overlay_works(self.place.folder) else 'vfs')
        self.daemon = host.spawn(self.arguments(), self.log, self.place.environment())
        self.await_answer([self.daemon, self.containerd])

    def start_containerd(self):
        folder, address = self.place.path('containerd'), self.place.path('containerd', 'sock')
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, 'config.toml'), 'w') as f:
            f.write(f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
                    f'[grpc]\n  address = "{address}"\n')
        log = self.place.path('containerd.log')
        # It outlives a killed keeper until the next one's sweep: dockerd, which ends with the keeper, stops its containers through it.
        self.containerd = host.spawn(['containerd', '--config', folder + '/config.toml'], log, self.place.environment(), dies_with_us=False)
        part.await_that('containerd', lambda: os.path.exists(address), [self.containerd], log)

    def arguments(self):
        place = self.place
        return ['dockerd', '--host', 'unix://' + self.socket, '--group', str(place.gid), '--containerd', place.path('containerd', 'sock'),
                '--data-root', place.path('docker'), '--exec-root', place.path('docker-run'), '--pidfile', place.path('docker.pid'),
                '--storage-driver', self.driver, '--cgroup-parent', '/' + place.cgroup, '--exec-opt', 'native.cgroupdriver=cgroupfs',
                # The host's packet filter and settings stay as they are. Ports are published by docker-proxy, which needs neither;
                # containers reach their networks, and nothing outside.
                '--iptables=false', '--ip6tables=false', '--ip-forward=false', '--ip-masq=false', '--bridge=none',
                '--default-address-pool', f'base={place.docker_net},size=24', '--dns', '127.0.0.1',
                '--registry-mirror', f'http://127.0.0.1:{place.registry_port}', '--shutdown-timeout', '5']

    def environment(self):
        return {'DOCKER_SOCKET': self.socket, 'DOCKER_LOG': self.log}

    def end(self):
        super().end()
        # On a host whose mounts are not shared dockerd mounts its root over itself; below a chroot it does not recognize that as its own.
        # And it keeps the host's network mounted for containers on it, for as long as the machine is up.
        kept = (self.place.path('docker'), self.place.path('docker-run', 'netns', 'default'))
        host.unmount([m for m in host.mounts_below(self.place.folder) if m in kept])
        host.end(self.containerd, 5)
