"""A terminal that a program is run in, as a person sits before it. For the scripted tests: `from terminal import Terminal` with $TESTS in sys.path."""
import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

LIMIT = 20  # seconds that anything is waited for


def screen(text, rows):
    """The lines that a terminal shows of what was written to it, and how many have left it at the top: by what ajj draws with, and no more."""
    lines, row, column, gone = [''] * rows, 0, 0, 0
    for count, letter, control, word in re.findall(r'\033\[([0-9;]*)([A-Za-z])|([\r\n])|([^\033\r\n]+)', text):
        if letter == 'A':
            row = max(0, row - int(count or 1))
        elif letter in ('K', 'J'):
            lines[row] = lines[row][:column]
            lines[row + 1:] = [''] * (rows - row - 1) if letter == 'J' else lines[row + 1:]
        elif control == '\r':
            column = 0
        elif control and row + 1 < rows:
            row += 1
        elif control:
            lines, gone = lines[1:] + [''], gone + 1
        elif word:
            lines[row] = lines[row][:column].ljust(column) + word + lines[row][column + len(word):]
            column += len(word)
    return [line for line in lines if line], gone


class Terminal:
    def __init__(self, *argv, rows=24, columns=80, cwd=None):
        self.seen = ''
        self.rows = rows
        self.code = None
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            try:
                if cwd:
                    os.chdir(cwd)
                os.execvp(argv[0], argv)
            finally:
                os._exit(99)
        self.resize(rows, columns)

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))

    def send(self, text):
        os.write(self.master, text.encode())

    def _read(self, seconds):
        if not select.select([self.master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError as e:
            if e.errno != errno.EIO:
                raise
            data = b''
        self.seen += data.decode(errors='replace')
        return bool(data)

    def expect(self, text, what=None):
        """Waits until it was written since the last call, and takes it and what stands before it away."""
        until = time.monotonic() + LIMIT
        while text not in self.seen:
            left = until - time.monotonic()
            if left <= 0 or not self._read(left):
                if text in self.seen:
                    break
                fail(f'{what or "waiting"} for {text!r}: {self.seen!r}')
        before, self.seen = self.seen.split(text, 1)
        return before

    def watch(self, condition, what):
        """Waits until it holds for the lines on the screen. Returns them, and how many have left it. Not beside expect()."""
        until = time.monotonic() + LIMIT
        while not condition(screen(self.seen, self.rows)[0]):
            left = until - time.monotonic()
            if left <= 0 or not self._read(left):
                fail(f'{what}: {screen(self.seen, self.rows)}')
        return screen(self.seen, self.rows)

    def modes(self):
        return termios.tcgetattr(self.master)

    def kill(self, signo):
        os.kill(self.pid, signo)

    def wait(self, limit=LIMIT):
        """Its exit code, 128 + signal. What it writes meanwhile is in `seen`."""
        until = time.monotonic() + limit
        while self.code is None:
            self._read(0.02)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
            elif time.monotonic() > until:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                fail(f'it does not end: {self.seen!r}')
        while self._read(0.05):
            pass
        os.close(self.master)
        return self.code


def fail(*words):
    print('FAILED:', *words, file=sys.stderr)
    sys.exit(1)


def same(expected, actual, what):
    if expected != actual:
        fail(f'{what}: expected {expected!r}, got {actual!r}')
