# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests of the command line share: `ruche` in a world of its own, on pipes or on a pseudo-terminal."""
import fcntl
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import termios
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
RUCHE = os.environ.get("RUCHE", os.path.join(HERE, "../../build/src/cli/ruche"))


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="ruche-test-")
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.runtime = self.path("run")
        os.mkdir(self.runtime, 0o700)
        self.env = dict(os.environ, XDG_DATA_HOME=self.path("data"), XDG_RUNTIME_DIR=self.runtime, TERM="xterm",
                        RUCHE_VMM=os.path.join(HERE, "fake-vmm"), RUCHE_RECIPES=self.path("recipes"),
                        FAKE_LOG=self.path("log"))

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text, mode=0o644):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(path, mode)
        return path

    def log(self):
        with open(self.path("log"), encoding="utf-8") as f:
            return f.read().splitlines()

    def ruche(self, *arguments, stdin="", status=0, **environment):
        """Runs it to its end; checks the exit status; gives stdout and stderr."""
        done = subprocess.run([RUCHE, *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False,
                              env=dict(self.env, **environment))
        self.assertEqual(done.returncode, status, (arguments, done.stdout, done.stderr))
        return done.stdout, done.stderr

    def one_line(self, stderr):
        """A reason is one line with our name in front."""
        self.assertRegex(stderr, r"\Aruche: [^\n]+\n\Z")
        return stderr


class Terminal:
    """`ruche` on a pseudo-terminal, as the leader of its session."""

    def __init__(self, arguments, env, size=(0, 0)):
        self.text = ""
        self.at = 0
        pid, self.fd = pty.fork()
        if pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
            os.execve(RUCHE, [RUCHE, *arguments], env)
        self.pid = pid
        self.before = termios.tcgetattr(self.fd)
        self.status = None

    def send(self, keys):
        os.write(self.fd, keys)

    def expect(self, text, timeout=20):
        deadline = time.monotonic() + timeout
        while text not in self.text[self.at:]:
            ready, _, _ = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise AssertionError(f"no {text!r} in {self.text[self.at:]!r}")
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                data = b""
            if not data:
                raise AssertionError(f"ended without {text!r}: {self.text[self.at:]!r}")
            self.text += data.decode(errors="replace")
        self.at = self.text.index(text, self.at) + len(text)

    def is_raw(self):
        return not termios.tcgetattr(self.fd)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def restored(self):
        return termios.tcgetattr(self.fd) == self.before

    def kill(self, number):
        os.kill(self.pid, number)

    def wait_state(self, state, timeout=10):
        """Waits for the process state that /proc shows, such as T for stopped."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with open(f"/proc/{self.pid}/stat", encoding="ascii") as f:
                if f.read().rsplit(")", 1)[1].split()[0] == state:
                    return
            time.sleep(0.02)
        raise AssertionError(f"process never came to state {state}")

    def wait(self, timeout=30):
        """The exit status; the terminal stays open for a look at its settings."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = status
                return os.waitstatus_to_exitcode(status)
            ready, _, _ = select.select([self.fd], [], [], 0.05)
            if ready:
                try:
                    self.text += os.read(self.fd, 65536).decode(errors="replace")
                except OSError:
                    time.sleep(0.02)
        raise AssertionError(f"did not end: {self.text!r}")

    def close(self):
        if self.status is None:
            self.kill(signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)
