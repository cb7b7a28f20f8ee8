#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Seeds with a Debian: what `ruche create` says to a guest is so after its first boot, and is left alone after its second."""
import os
import subprocess
import time
import unittest

from machine import ENGINE, PATIENCE, Failed, free_port
from named import Named


class Seed(Named):
    def setUp(self):
        super().setUp()
        self.key = self.path("key")
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me: 'here' #1", "-f", self.key], check=True)
        with open(self.key + ".pub", encoding="ascii") as f:
            self.public = f.read().strip()
        self.port = free_port()

    def create(self, *options):
        self.ruche("create", "web", *(["--engine", ENGINE] if ENGINE else []), "--memory", "512M", "--net",
                   f"user,forward=tcp:127.0.0.1:{self.port}:22", *options, "debian")
        self.ruche("start", "web")

    def shell(self, name):
        c = self.console("web")
        c.expect(f"root@{name}:~# ", 180)
        c.run("bind 'set enable-bracketed-paste off' 2>/dev/null; PS1=; stty -echo; dmesg -n 1")
        return c

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.write(text)
        return self.path(name)

    def ssh(self, user, command):
        """Its output; tries until the guest listens."""
        words = ["ssh", "-F", "none", "-i", self.key, "-p", str(self.port), "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o",
                 "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", user + "@127.0.0.1", command]
        deadline = time.monotonic() + 60 * PATIENCE
        while True:
            done = subprocess.run(words, capture_output=True, text=True, timeout=60 * PATIENCE, check=False)
            if done.returncode != 255:
                self.assertEqual(done.returncode, 0, done)
                return done.stdout
            if time.monotonic() >= deadline:
                raise Failed(done.stderr)
            time.sleep(0.5)

    def test_user_and_script(self):
        password = subprocess.run(["openssl", "passwd", "-6", "of the test"], check=True, capture_output=True,
                                  text=True).stdout.strip()
        script = self.write("script", "#!/bin/sh\ncat /etc/hostname >>/var/tmp/script\n")
        self.create("--hostname", "web1", "--user", "alice", "--ssh-key", self.key + ".pub", "--password-hash", password,
                    "--user-data", script)
        c = self.shell("web1")
        self.assertEqual(c.run("hostname; getent shadow alice | cut -d: -f2; getent hosts web1").splitlines(),
                         ["web1", password, "127.0.1.1       web1"])
        self.assertEqual(c.run("cat ~alice/.ssh/authorized_keys; stat -c '%a %U' ~alice/.ssh ~alice/.ssh/authorized_keys")
                         .splitlines(), [self.public, "700 alice", "600 alice"])
        self.assertEqual(self.ssh("alice", "whoami; sudo -n whoami; while [ ! -s /var/tmp/script ]; do sleep 0.2; done; "
                                  "cat /var/tmp/script").split(), ["alice", "root", "web1"])
        # What its owner changes afterwards is not undone.
        c.run("echo other >/etc/hostname; : >~alice/.ssh/authorized_keys; usermod -p changed alice; sync")
        c.close()
        self.ruche("restart", "web")
        c = self.shell("other")
        self.assertEqual(c.run("getent shadow alice | cut -d: -f2; cat ~alice/.ssh/authorized_keys; systemctl is-system-running "
                               "--wait; cat /var/tmp/script").splitlines(), ["changed", "running", "web1"])

    def test_settings_and_what_is_not_honoured(self):
        settings = self.write("settings", "#cloud-config\nhostname: two  # over the machine's name\npackages:\n- hello\n"
                              "runcmd:\n- [sh, -c, 'echo \"$0\" >/var/tmp/said', 'a  b']\n")
        self.create("--ssh-key", self.public, "--user-data", settings, "--network-config",
                    self.write("network", "version: 2\n"))
        c = self.shell("two")
        self.assertEqual(self.ssh("root", "while [ ! -s /var/tmp/said ]; do sleep 0.2; done; cat /var/tmp/said"), "a  b\n")
        said = c.run("journalctl -o cat -u ruche-seed")
        self.assertIn("user-data: 'packages' is not honoured", said)
        self.assertIn("network-config: it is not honoured", said)
        self.assertNotIn("of instance " + os.path.basename(self.inspect("web")["folder"]) + ": applied in part", said)


unittest.main(verbosity=2)
