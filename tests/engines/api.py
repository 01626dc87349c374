"""The engines' HTTP API on a Unix socket."""
import http.client
import json
import socket
import urllib.parse


class Connection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__('engine', timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Refused(Exception):
    """The engine answered, with something else than success."""


def call(path, method, url, body=None, headers=(), timeout=60):
    """Returns the answer's bytes. body: bytes, an open file, or anything that becomes JSON."""
    connection = Connection(path, timeout)
    headers = dict(headers)
    if body is not None and not isinstance(body, bytes) and not hasattr(body, 'read'):
        body = json.dumps(body).encode()
        headers['Content-Type'] = 'application/json'
    try:
        connection.request(method, url, body=body, headers=headers)
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    if answer.status >= 400:
        raise Refused(f'{method} {url}: {answer.status} {text.decode(errors="replace").strip()}')
    return text


def get(path, url, **kw):
    return json.loads(call(path, 'GET', url, **kw) or 'null')


def quote(word):
    return urllib.parse.quote(word, safe='')
