#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The README's tour of a machine's life, with a Debian: made, used, broken and brought back, cloned, backed up, lost and
restored, moved to another catalogue."""
import os
import subprocess
import time
import unittest

from machine import ENGINE, PATIENCE, RUCHE
from named import Named


class Tour(Named):
    def exec(self, name, *words):
        return self.ruche("exec", name, "--", *words)

    def wait_for(self, name):
        """Until the guest's agent answers."""
        deadline = time.monotonic() + 180 * PATIENCE
        while subprocess.run([RUCHE, "exec", name, "--", "true"], env=self.env, capture_output=True, timeout=120 * PATIENCE,
                             check=False).returncode:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.2)

    def broken_and_brought_back(self):
        self.ruche("snapshot", "create", "web", "clean")
        self.exec("web", "rm", "-rf", "/usr")
        self.ruche("exec", "web", "--", "cat", "/etc/os-release", status=125)
        self.ruche("snapshot", "revert", "web", "clean")
        self.wait_for("web")
        self.assertIn("Debian", self.exec("web", "cat", "/etc/os-release"))

    def cloned(self):
        names = ["web-1", "web-2", "web-3"]
        self.ruche("clone", "--count", "3", "web", "web")
        for name in names:
            self.wait_for(name)
        for what in (["cat", "/etc/machine-id"], ["head", "-c", "16", "/dev/urandom"], ["cat", "/sys/class/net/e*/address"]):
            said = [self.exec(name, "sh", "-c", " ".join(what) + " | od -An -tx1") for name in ["web", *names]]
            self.assertEqual(len(set(said)), 4, (what, said))
        self.ruche("rm", "--force", *names)

    def lost_and_restored(self):
        folder = self.path("backups")
        self.exec("web", "sh", "-c", "echo precious >/root/note; sync")
        self.ruche("backup", "web", folder)
        self.ruche("rm", "--force", "web")
        self.ruche("backup", "verify", folder)
        self.ruche("backup", "restore", folder)
        self.ruche("start", "web")
        self.wait_for("web")
        self.assertEqual(self.exec("web", "cat", "/root/note"), "precious\n")

    def moved(self):
        there = dict(self.env, XDG_DATA_HOME=self.path("there"), XDG_RUNTIME_DIR=self.path("run-there"))
        os.mkdir(self.path("run-there"), 0o700)
        os.mkdir(self.path("there"))
        socket = "unix:" + self.path("door")
        boot = self.exec("web", "cat", "/proc/sys/kernel/random/boot_id")
        receiver = subprocess.Popen([RUCHE, "receive", "--listen", socket], env=there, stdout=subprocess.PIPE, text=True)
        self.addCleanup(lambda: receiver.poll() is None and receiver.kill())
        deadline = time.monotonic() + 30 * PATIENCE
        while not os.path.exists(self.path("door")):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)
        self.ruche("migrate", "web", socket)
        self.assertEqual(receiver.communicate(timeout=60 * PATIENCE)[0].split()[-1], "web")
        self.env = there
        self.addCleanup(self.ruche, "stop", "--all", "--force", "--timeout", "0")
        self.assertEqual(self.exec("web", "cat", "/proc/sys/kernel/random/boot_id"), boot)
        self.ruche("restart", "web")
        self.wait_for("web")
        self.assertEqual(self.exec("web", "cat", "/root/note"), "precious\n")
        self.ruche("stop", "web")

    def test_tour(self):
        self.ruche("create", "web", *(["--engine", ENGINE] if ENGINE else []), "--memory", "512M", "debian")
        self.ruche("start", "web")
        self.wait_for("web")
        self.broken_and_brought_back()
        self.cloned()
        self.lost_and_restored()
        self.moved()


unittest.main(verbosity=2)
