#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest agent of a Debian: commands with their ends and streams, several at the same time, files both ways, addresses, the
clock after a halt, frozen file systems."""
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import time
import unittest

from machine import ENGINE, PATIENCE, RUCHE
from named import Named

FREEZE = os.environ.get("FREEZE", os.path.join(os.path.dirname(RUCHE), "../../tests/cli/test-freeze"))
SIZE = 8 << 20


class Agent(Named):
    def run_it(self, *words, data=None):
        return subprocess.run([RUCHE, *words], env=self.env, input=data or b"", capture_output=True, timeout=300 * PATIENCE,
                              check=False)

    def ruche(self, *words, status=0, data=None):
        done = self.run_it(*words, data=data)
        self.assertEqual(done.returncode, status, (words, done.stdout[-1000:], done.stderr[-1000:]))
        return done.stdout

    def exec(self, *words, status=0):
        return self.ruche("exec", "web", "--", *words, status=status)

    def wait_until(self, condition, timeout=180):
        deadline = time.monotonic() + timeout * PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.2)

    def boot(self):
        self.ruche("create", "web", *(["--engine", ENGINE] if ENGINE else []), "--memory", "512M", "debian")
        self.ruche("start", "web")
        self.wait_until(lambda: self.run_it("exec", "web", "--", "true").returncode == 0)

    def commands(self):
        done = self.run_it("exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (7, b"out\n", b"err\n"))
        self.assertEqual(self.exec("sh", "-c", "kill -SEGV $$", status=128 + signal.SIGSEGV), b"")
        self.assertIn(b"No such file", self.run_it("exec", "web", "--", "nosuch").stderr)
        self.assertEqual(self.exec("id", "-u"), b"0\n")
        data = os.urandom(3 << 20)
        self.assertEqual(self.ruche("exec", "-i", "web", "--", "cat", data=data), data)
        self.assertEqual(self.exec("sh", "-c", "yes | head -c 12000000"), b"y\n" * 6000000)
        self.ruche("exec", "--timeout", "2", "web", "--", "sleep", "1000", status=124)
        self.exec("pgrep", "sleep", status=1)

    def at_once(self):
        several = [subprocess.Popen([RUCHE, "exec", "web", "--", "sh", "-c", f"sleep 1; seq {i} 20000 | sha256sum"], env=self.env,
                                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) for i in range(8)]
        for i, p in enumerate(several):
            out, _ = p.communicate(timeout=300 * PATIENCE)
            text = "".join(f"{k}\n" for k in range(i, 20001))
            self.assertEqual((p.returncode, out.split()[0]), (0, hashlib.sha256(text.encode()).hexdigest()))

    def files(self):
        data = os.urandom(SIZE)
        with open(self.path("there"), "wb") as f:
            f.write(data)
        os.chmod(self.path("there"), 0o750)
        self.ruche("cp", self.path("there"), "web:/root/")
        said = self.exec("sh", "-c", "sha256sum /root/there; stat -c %a /root/there; ls -A /root").decode()
        self.assertEqual(said.split()[0], hashlib.sha256(data).hexdigest())
        self.assertIn("\n750\n", said)
        self.assertNotIn(".ruche-", said)
        self.ruche("cp", "web:/root/there", self.path("back"))
        with open(self.path("back"), "rb") as f:
            self.assertEqual(hashlib.sha256(f.read()).hexdigest(), hashlib.sha256(data).hexdigest())
        self.assertIn(b"No such file", self.run_it("cp", "web:/nosuch", self.path("x")).stderr)
        self.assertEqual([name for name in os.listdir(self.folder) if "ruche-" in name or name == "x"], [])
        # A file that says that it is empty, and is not.
        self.ruche("cp", "web:/proc/version", self.path("version"))
        with open(self.path("version"), encoding="utf-8") as f:
            self.assertIn("Linux version", f.read())

    def addresses(self):
        self.wait_until(lambda: self.inspect("web")["addresses"])
        self.assertEqual(self.inspect("web")["addresses"][0], "10.0.2.15")
        self.wait_until(lambda: re.search(rb"(?m)^web +running .* 10\.0\.2\.15 +debian$", self.ruche("ls")))

    def clock(self):
        self.ruche("pause", "web")
        done = self.run_it("exec", "web", "--", "true")
        self.assertEqual(done.returncode, 125)
        self.assertIn(b"ruche resume web", done.stderr)
        self.ruche("resume", "web")
        self.exec("date", "-s", "2001-01-01")
        self.assertTrue(self.exec("date", "+%Y").startswith(b"2001"))
        self.ruche("pause", "web")
        done = self.run_it("resume", "web")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))
        self.assertGreater(int(self.exec("date", "+%s")), time.time() - 60 * PATIENCE)

    def frozen(self):
        """A guest whose freezer was killed can be written to again."""
        p = subprocess.Popen([FREEZE, "web", "600000"], env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(p.communicate)
        self.assertEqual(p.stdout.readline(), "frozen\n")
        self.assertIn(b"disabled", self.run_it("exec", "web", "--", "true").stderr)
        p.kill()
        self.wait_until(lambda: self.run_it("exec", "web", "--", "sh", "-c", "echo x >/root/x && sync").returncode == 0)

    def restored(self):
        """A saved machine goes on elsewhere, in the present, with its agent on another socket."""
        self.exec("date", "-s", "2001-01-01")
        self.ruche("save", "--end", "web", self.path("saved"))
        self.ruche("wait", "web", status=130)
        self.ruche("run", "--detach", "--name", "back", "--restore", self.path("saved"))
        pid = int(subprocess.run(["pgrep", "-f", self.path("run/ruche/back.sock")], capture_output=True, check=True).stdout.split()[0])
        self.addCleanup(lambda: os.path.exists(f"/proc/{pid}") and os.kill(pid, signal.SIGKILL))
        self.wait_until(lambda: self.guest_time("run/ruche/back.agent") > time.time() - 60 * PATIENCE)
        os.kill(pid, signal.SIGTERM)
        self.wait_until(lambda: not os.path.exists(f"/proc/{pid}"))
        self.ruche("start", "web")
        self.wait_until(lambda: self.run_it("exec", "web", "--", "true").returncode == 0)

    def guest_time(self, name):
        """By a conversation of our own, in seconds; 0 when another one is in progress."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(20 * PATIENCE)
            s.connect(self.path(name))
            try:
                s.sendall(b'\xff{"execute": "guest-sync-delimited", "arguments": {"id": 5}}\n{"execute": "guest-get-time"}\n')
                f = s.makefile("rb")
                while not (line := f.readline()).endswith(b'\xff{"return": 5}\n'):
                    if not line:
                        return 0
                return json.loads(f.readline())["return"] / 1e9
            except (OSError, ValueError):
                return 0

    def test_of_a_debian(self):
        self.boot()
        self.commands()
        self.at_once()
        self.files()
        self.addresses()
        self.clock()
        self.frozen()
        self.restored()
        web = self.inspect("web")
        self.assertEqual(os.stat(web["agent"]).st_mode & 0o777, 0o600)
        self.ruche("stop", "web")
        self.assertFalse(os.path.exists(web["agent"]))


unittest.main(verbosity=2)
