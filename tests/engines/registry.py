"""Debian's docker-registry, twice over one store: one that answers everybody, and one that wants a name and a password."""
import base64
import http.client
import json
import os
import urllib.error
import urllib.request

import host
import images
import part

USER, PASSWORD = 'tester', 'correct-horse'
# bcrypt of PASSWORD, as `htpasswd -B` writes it
HTPASSWD = 'tester:$2y$04$519WU5qCcjS57ohXO0d2neJfXxgd4GJZEsrFuyAhqbyIvMfsQP4LO\n'
MANIFEST_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json'

CONFIGURATION = '''version: 0.1
log: {{level: warn}}
storage:
  filesystem: {{rootdirectory: {store}}}
  delete: {{enabled: true}}
http:
  addr: 127.0.0.1:{port}
  secret: test
{auth}'''


class Registry(part.Part):
    name = 'registry'
    programs = (('docker-registry', 'docker-registry'),)

    def __init__(self, place):
        super().__init__(place)
        self.daemons = []
        self.log = place.path('registry.log')

    def start(self):
        place = self.place
        os.makedirs(place.path('registry', 'store'))
        with open(place.path('registry', 'htpasswd'), 'w') as f:
            f.write(HTPASSWD)
        self.start_one(place.registry_port, '')
        self.start_one(place.registry_auth_port, f'auth: {{htpasswd: {{realm: tests, path: {place.path("registry", "htpasswd")}}}}}\n')
        self.push_images()

    def start_one(self, port, auth):
        configuration = self.place.path('registry', f'{port}.yml')
        with open(configuration, 'w') as f:
            f.write(CONFIGURATION.format(store=self.place.path('registry', 'store'), port=port, auth=auth))
        daemon = host.spawn(['docker-registry', 'serve', configuration], self.log, self.place.environment())
        self.daemons.append(daemon)
        part.await_that('docker-registry', lambda: self.status(port) in (200, 401), [daemon], self.log)

    @staticmethod
    def status(port):
        try:
            with urllib.request.urlopen(f'http://127.0.0.1:{port}/v2/', timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as e:
            return e.code
        except OSError:
            return 0

    # ---- the images ----

    def push_images(self):
        folder = images.folder()
        with open(os.path.join(folder, 'index.json')) as f:
            index = json.load(f)
        self.connection = http.client.HTTPConnection('127.0.0.1', self.place.registry_port, timeout=60)
        self.blobs = os.path.join(folder, 'blobs')
        self.homes = {}  # blob: the repository that has it
        for tag, manifest in index.items():
            name, version = tag.split(':')
            # library/NAME is what an engine asks its mirror of the Hub for when NAME is wanted
            for repository in (name, 'library/' + name):
                self.push(repository, version, manifest)
        self.connection.close()

    def blob(self, name):
        with open(os.path.join(self.blobs, name), 'rb') as f:
            return f.read()

    def push(self, repository, version, manifest):
        text = self.blob(manifest['digest'])
        parsed = json.loads(text)
        if manifest['mediaType'] == MANIFEST_LIST:
            for one in parsed['manifests']:
                self.push(repository, one['digest'], one)
        else:
            for blob in [parsed['config']] + parsed['layers']:
                self.push_blob(repository, blob['digest'])
        self.request('PUT', f'/v2/{repository}/manifests/{version}', text, {'Content-Type': manifest['mediaType']})

    def push_blob(self, repository, name):
        home = self.homes.setdefault(name, repository)
        start = f'/v2/{repository}/blobs/uploads/' + (f'?mount={name}&from={home}' if home != repository else '')
        status, location = self.request('POST', start)
        if status == 202:
            self.request('PUT', f'{location}{"&" if "?" in location else "?"}digest={name}', self.blob(name),
                         {'Content-Type': 'application/octet-stream'})

    def request(self, method, url, body=b'', headers=None):
        url = url.removeprefix(f'http://127.0.0.1:{self.place.registry_port}')
        self.connection.request(method, url, body=body, headers=headers or {})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise part.Failed(f'registry: {method} {url}: {answer.status} {text.decode(errors="replace")}')
        return answer.status, answer.getheader('Location', '')

    # ---- tests ----

    def environment(self):
        text = json.dumps({'username': USER, 'password': PASSWORD, 'serveraddress': f'127.0.0.1:{self.place.registry_auth_port}'})
        return {'REGISTRY': f'127.0.0.1:{self.place.registry_port}', 'REGISTRY_AUTH': f'127.0.0.1:{self.place.registry_auth_port}',
                'REGISTRY_USER': USER, 'REGISTRY_PASSWORD': PASSWORD, 'REGISTRY_LOG': self.log,
                'REGISTRY_HEADER': base64.urlsafe_b64encode(text.encode()).decode()}

    def settle(self):
        if not all(host.is_alive(d) for d in self.daemons):
            raise part.Failed(f'docker-registry ended: {part.last_words(self.log)}')
        return []

    def end(self):
        for daemon in self.daemons:
            host.end(daemon, 5)
