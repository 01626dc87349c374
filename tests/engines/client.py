"""What the runner, and `engine` on a command line, have in hand of a keeper."""
import json
import os
import socket
import subprocess
import sys

HERE = os.path.dirname(os.path.realpath(__file__))


def ask(control, line):
    """The keeper's answer to one command."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.connect(control)
        s.sendall((line + '\n').encode())
        with s.makefile() as f:
            return json.loads(f.readline() or '{"failed": "the keeper of the engines has ended"}')


class Engines:
    """A keeper, started when something is needed of it."""

    def __init__(self, gid):
        self.gid, self.process, self.control = gid, None, None

    def pid(self):
        return self.process.pid if self.process else None

    def need(self, names):
        """{'env', 'missing': {NAME: why}} or {'failed': why}"""
        if not self.process:
            # a session of its own: ^C is for whoever started it, at whose end the pipe closes
            self.process = subprocess.Popen([sys.executable, os.path.join(HERE, 'engine'), 'keep', str(self.gid)], stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, text=True, start_new_session=True)
            self.control = self.process.stdout.readline().strip()
        return ask(self.control, 'need ' + ' '.join(names)) if self.control else {'failed': 'the keeper of the engines does not start'}

    def settle(self):
        """What a test has left in them, and what does not work any more."""
        if not self.control:
            return []
        answer = ask(self.control, 'settle')
        return answer.get('left', []) + ([answer['failed']] if 'failed' in answer else [])

    def end(self):
        """Ends all; returns what they left on this machine."""
        if not self.process:
            return []
        said, _ = self.process.communicate()
        self.process, self.control = None, None
        return json.loads(said or '["the keeper of the engines ended early"]')
