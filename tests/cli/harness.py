# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests of the command line share: `ruche` in a world of its own, on pipes or on a pseudo-terminal."""
import fcntl
import hashlib
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import stat
import struct
import subprocess
import tempfile
import termios
import time
import unittest

import kernels

HERE = os.path.dirname(os.path.abspath(__file__))
RUCHE = os.environ.get("RUCHE", os.path.join(HERE, "../../build/src/cli/ruche"))

# A recipe of an image, as far as `ruche image` is concerned.
RECIPE = """#!/bin/sh
echo 'steps 2' >&3
echo 'step one' >&3
qemu-img create -q -f qcow2 disk.qcow2 "$RUCHE_SIZE"
echo kernel$KIND >vmlinuz
echo 'step two' >&3
echo initrd >initrd
echo "root=/dev/vda console=ttyS0" >cmdline
echo "a test" >description
"""


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="ruche-test-")
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.runtime = self.path("run")
        os.mkdir(self.runtime, 0o700)
        self.env = dict(os.environ, XDG_DATA_HOME=self.path("data"), XDG_RUNTIME_DIR=self.runtime, TERM="xterm",
                        RUCHE_VMM=os.path.join(HERE, "fake-vmm"), RUCHE_RECIPES=self.path("recipes"),
                        FAKE_LOG=self.path("log"))
        self.how = {}  # further arguments for who starts `ruche`
        self.program = RUCHE

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
        done = subprocess.run([self.program, *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False,
                              env=dict(self.env, **environment), **self.how)
        self.assertEqual(done.returncode, status, (arguments, done.stdout, done.stderr))
        return done.stdout, done.stderr

    def one_line(self, stderr):
        """A reason is one line with our name in front."""
        self.assertRegex(stderr, r"\Aruche(-vmm)?: [^\n]+\n\Z")
        return stderr


def table(*rows):
    """Decorator of a class of tests: each row becomes a test. A row is its title, then the arguments of cls.row()."""
    def add(cls):
        for title, *arguments in rows:
            name = "test_" + re.sub(r"\W+", "_", title)
            assert not hasattr(cls, name), f"two rows '{title}'"
            setattr(cls, name, lambda self, arguments=arguments: self.row(*arguments))
        return cls
    return add


class Files(dict):
    """Files to run with, by name; each is made when it is first asked for."""

    def __init__(self, folder):
        super().__init__(here=folder, x200="x" * 200)
        self.folder = folder

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data)
        return self.path(name)

    def __missing__(self, name):
        self[name] = getattr(self, "make_" + name)(name)
        return self[name]

    def make_missing(self, name):
        return self.path(name)

    def make_folder(self, name):
        os.mkdir(self.path(name))
        return self.path(name)

    def make_fifo(self, name):
        os.mkfifo(self.path(name))
        return self.path(name)

    def make_empty(self, name):
        return self.write(name, b"")

    def make_noise(self, name):
        return self.write(name, bytes(range(256)) * 64)

    def make_kernel(self, name):
        """Runs until it is ended."""
        return self.write(name, kernels.multiboot(kernels.HANG))

    def make_off(self, name):
        """Says something and powers off."""
        return self.write(name, kernels.multiboot(kernels.say("hello\n") + kernels.POWER_OFF))

    def make_quiet(self, name):
        return self.write(name, kernels.multiboot(kernels.POWER_OFF))

    def make_flood(self, name):
        return self.write(name, kernels.multiboot(kernels.FLOOD))

    def make_bzimage(self, name):
        return self.write(name, kernels.bzimage(kernels.say("hello\n") + kernels.POWER_OFF))

    def make_pvh(self, name):
        return self.write(name, kernels.pvh(kernels.say("hello\n") + kernels.POWER_OFF))

    def make_raw(self, name):
        return self.write(name, bytes(1 << 20))

    def qemu_img(self, *arguments):
        subprocess.run(["qemu-img", *arguments], check=True, stdout=subprocess.DEVNULL)

    def make_qcow2(self, name):
        """A disk of 16 MiB with data at its beginning and in its middle."""
        path = self.path(name)
        self.qemu_img("create", "-q", "-f", "qcow2", path, "16M")
        subprocess.run(["qemu-io", "-c", "write -P 1 0 512k", "-c", "write -P 2 8M 512k", path], check=True,
                       stdout=subprocess.DEVNULL)
        return path

    def make_overlay(self, name):
        self.qemu_img("create", "-q", "-f", "qcow2", "-b", self["qcow2"], "-F", "qcow2", self.path(name))
        return self.path(name)


def contents(folder):
    """All that is in a folder but for folders: what would show if something were left behind or changed."""
    found = {}
    for where, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(where, name)
            status = os.lstat(path)
            digest = ""
            if os.path.isfile(path) and not os.path.islink(path) and os.access(path, os.R_OK):
                with open(path, "rb") as f:
                    digest = hashlib.sha256(f.read()).hexdigest()
            found[os.path.relpath(path, folder)] = (status.st_mode, status.st_size, digest)
    return found


def processes(folder):
    """Processes whose environment names the folder."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                if folder.encode() in f.read():
                    found.append(int(pid))
        except OSError:
            pass
    return found


def without_note(stderr):
    """What a machine said, less the note that may come with its start on a host whose KVM is there but closed to it."""
    return re.sub(r"\Aruche-vmm: warning: engine kvm is not used: [^\n]+\n", "", stderr)


class Real(Case):
    """`ruche` with the real machine, and files to run it with."""

    def ruche(self, *arguments, status=0, **more):
        out, err = super().ruche(*arguments, status=status, **more)
        return out, err if status else without_note(err)

    def setUp(self):
        super().setUp()
        del self.env["RUCHE_VMM"]
        self.files = Files(self.path("files"))
        os.mkdir(self.files.folder)

    def words(self, command):
        return [word.format_map(self.files) for word in shlex.split(command)]

    def row(self, command, status, *reason):
        """Ends with that status and, in one line, that reason; leaves nothing behind and changes nothing."""
        words = self.words(command)
        reason = [part.format_map(self.files) for part in reason]
        before = contents(self.folder)
        _, err = self.ruche(*words, status=status)
        self.one_line(err)
        for part in reason:
            self.assertIn(part, err)
        self.unchanged(before)

    def unchanged(self, before):
        self.assertEqual(contents(self.folder), before)
        self.assertEqual(processes(self.folder), [])

    def start(self, command, **more):
        """A machine that goes on running; returned once it does. It is ended with the test."""
        words = self.words(command)
        sockets = os.path.join(self.runtime, "ruche")
        before = set(os.listdir(sockets)) if os.path.exists(sockets) else set()
        p = subprocess.Popen([RUCHE, *words], **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": self.env,
                                                 **more})
        self.addCleanup(self.stop, p)
        self.wait_for(p, lambda: os.path.exists(sockets) and set(os.listdir(sockets)) - before)
        return p

    def stop(self, p, number=signal.SIGTERM):
        """Gives the exit status."""
        if p.poll() is None:
            p.send_signal(number)
        try:
            return p.wait(30)
        finally:
            if p.poll() is None:
                p.kill()
            for f in (p.stdin, p.stdout, p.stderr):
                if f:
                    f.close()

    def wait_for(self, p, condition):
        deadline = time.monotonic() + 30
        while not condition():
            self.assertIsNone(p.poll())
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)


class Named(Case):
    """Named machines, with a stand-in for the machine unless a test says otherwise."""
    fake = "guest"

    def setUp(self):
        super().setUp()
        self.env["FAKE"] = self.fake
        self.addCleanup(self.end_all)

    def end_all(self):
        """Whatever still runs in this test's world."""
        while left := processes(self.folder):
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.02)

    def create(self, name="web", *options):
        self.assertEqual(self.ruche("create", name, "--kernel", "/k", *options), ("", ""))

    def sockets(self):
        return [name for name, (mode, *_) in contents(self.folder).items() if stat.S_ISSOCK(mode)]

    def inspect(self, name="web"):
        return json.loads(self.ruche("inspect", "--json", name)[0])[0]

    def state(self, name="web"):
        with open(os.path.join(self.inspect(name)["folder"], "state.json"), encoding="utf-8") as f:
            return json.load(f)

    def list(self, *options):
        return {o["name"]: o for o in json.loads(self.ruche("ls", "--json", *options)[0])}

    def refused(self, *words, status=125):
        return self.one_line(self.ruche(*words, status=status)[1])

    def wait_until(self, condition):
        deadline = time.monotonic() + 30
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)

    def kill(self, pid):
        os.kill(pid, signal.SIGKILL)
        self.wait_until(lambda: not os.path.exists(f"/proc/{pid}"))

    def vmm_runs(self):
        """Whether the stand-in has written down that it was started."""
        return os.path.exists(self.path("log")) and any("--uuid" in line for line in self.log())

    def end(self, p):
        """A command that a failed test has left waiting must not keep the others from running."""
        p.kill()
        p.communicate()

    def popen(self, *words, **environment):
        p = subprocess.Popen([RUCHE, *words], env=dict(self.env, **environment), stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(self.end, p)
        return p

    def option(self, name):
        words = [line for line in self.log() if "--uuid" in line][-1].split(" --")
        return [word.split(" ", 1)[1] for word in words if word.startswith(name + " ")]


class Terminal:
    """`ruche` on a pseudo-terminal, as the leader of its session."""

    def __init__(self, arguments, env, size=(0, 0)):
        self.text = ""
        self.at = 0
        wait, go = os.pipe()
        pid, self.fd = pty.fork()
        if pid == 0:
            os.read(wait, 1)  # until its settings have been noted: it is about to change them
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
            os.execve(RUCHE, [RUCHE, *arguments], env)
        self.pid = pid
        self.before = termios.tcgetattr(self.fd)
        os.write(go, b"x")
        os.close(wait)
        os.close(go)
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

    def take(self, timeout):
        """Adds what comes to the text; whether anything came."""
        if not select.select([self.fd], [], [], timeout)[0]:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # nobody has the other end open any more
            time.sleep(min(timeout, 0.02))
            return False
        self.text += data.decode(errors="replace")
        return bool(data)

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
                while self.take(0):  # its last words
                    continue
                return os.waitstatus_to_exitcode(status)
            self.take(0.05)
        raise AssertionError(f"did not end: {self.text!r}")

    def close(self):
        if self.status is None:
            self.kill(signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)
