#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""ruche migrate and ruche receive without a guest: words, machines that do not run, and ends that are not what they should be."""
import json
import os
import socket
import struct
import subprocess
import time
import unittest
import uuid

from harness import RECIPE, RUCHE, Named, contents

CONFIG = {"cpus": 1, "memory": 64 << 20, "kernel": "/k", "nets": [], "disks": []}


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def frame(number, contents, kind=1):
    """As docs/migration.md has it."""
    header = b"uRfM" + struct.pack("<IIII", kind, number, len(contents), crc32c(contents))
    return header + struct.pack("<I", crc32c(header)) + contents


class Words(Named):
    def test_usage(self):
        self.create()
        for words in ((), ("web",), ("web", "unix:/x", "y"), ("web", "nowhere"), ("web", "tcp:host"), ("web", "fd:0"),
                      ("web", "pass:/x"), ("web", "ssh:"), ("web", "ssh:-oProxyCommand=x"), ("web", "tcp:h:1"),
                      ("web", "tcp:h:1", "--psk", "/k", "--plain"), ("web", "tcp:h:1", "--cert", "/k"),
                      ("web", "tcp:h:1", "--psk"), ("web", "unix:/x", "--plain"), ("web", "unix:/x", "--bandwidth", "fast"),
                      ("web", "unix:/x", "--downtime", "-1"), ("--frob", "web", "unix:/x")):
            self.one_line(self.ruche("migrate", *words, status=2)[1])
        for words in (("a", "b"), ("--listen",), ("--listen", "nowhere"), ("--listen", "ssh:h"), ("--listen", "tcp:h:1"),
                      ("--listen", "unix:/x", "--stdio"), ("a/b", "--listen", "unix:" + self.path("x"))):
            self.one_line(self.ruche("receive", *words, status=2)[1])

    def test_machines_that_do_not_run(self):
        self.create()
        self.assertIn("its status is 'stopped'", self.refused("migrate", "web", "unix:/x"))
        self.assertIn("no machine 'other'", self.refused("migrate", "other", "unix:/x"))


class Moved(Named):
    """A machine that is elsewhere, with its disk still here."""

    def test_is_left_alone(self):
        self.write("recipes/small", RECIPE, 0o755)
        self.ruche("image", "build", "small")
        self.ruche("create", "web", "--autostart", "small")
        self.ruche("start", "web")
        subprocess.run([RUCHE, "console", "web"], input="exit 124\n", capture_output=True, text=True, timeout=60, check=False,
                       env=self.env)
        self.wait_until(lambda: self.inspect()["status"] == "moved")
        before = contents(self.path("data/ruche/machines"))
        for words in (("start", "web"), ("rm", "web"), ("clone", "web", "copy"), ("snapshot", "create", "web", "one"),
                      ("backup", "web", self.path("backups"))):
            self.assertIn("it was moved to another host", self.refused(*words), words)
        self.ruche("start", "--autostart")
        self.assertEqual(self.inspect()["status"], "moved")
        after = contents(self.path("data/ruche/machines"))
        self.assertEqual({name for name in after if name.endswith(".qcow2")}, {name for name in before if name.endswith(".qcow2")})
        self.ruche("rm", "--force", "web")


class Peers(Named):
    """Whoever speaks to `ruche receive`."""

    def receive(self):
        self.process = subprocess.Popen([RUCHE, "receive"], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        self.addCleanup(lambda: self.process.poll() is None and self.process.kill())
        self.process.stderr.readline()
        deadline = time.monotonic() + 60
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(60)
        while True:
            try:
                s.connect(self.runtime + "/ruche/receive.sock")
                return s
            except OSError:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.01)

    def say(self, *data):
        """What it makes of that: its last words, and what it answers as far as that is a frame."""
        with self.receive() as s:
            try:
                s.sendall(b"".join(data))
                s.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            answer = b""
            try:
                while more := s.recv(65536):
                    answer += more
            except OSError:
                pass
        out, err = self.process.communicate(timeout=60)
        self.assertEqual((self.process.returncode, out), (125, ""))
        self.one_line(err)
        self.assertEqual(json.loads(self.ruche("ls", "-a", "--json")[0]), [])
        return err, answer[24:]

    def offer(self, **changes):
        o = {"ruche": "0.1.0", "name": "web", "uuid": str(uuid.uuid4()), "config": dict(CONFIG), **changes}
        return frame(0, json.dumps({k: v for k, v in o.items() if v is not None}).encode())

    def test_bytes(self):
        good = self.offer()
        for data, text in ((b"", "closed the connection"), (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "another language"),
                           (good[:-5], "closed the connection"), (good[:40] + b"!" + good[41:], "damaged: the checksum"),
                           (good[:13] + b"\xff" + good[14:], "damaged: the checksum of the header"),
                           (frame(1, b"{}"), "damaged: the number"), (frame(0, b"{}", 7), "kind 7"),
                           (frame(0, b"[]"), "no JSON object"), (frame(0, b"\xff"), "no JSON object")):
            self.assertIn(text, self.say(data)[0])

    def test_offers(self):
        for changes, text in (({"name": None}, "does not speak"), ({"extra": 1}, "does not speak"), ({"name": 5}, "does not speak"),
                              ({"name": "../x"}, "name"), ({"name": "-x"}, "name"), ({"uuid": "../../../../tmp/x"}, "UUID"),
                              ({"uuid": "x" * 36}, "UUID"), ({"config": {}}, "cpus"), ({"config": dict(CONFIG, cpus=99)}, "cpus"),
                              ({"config": dict(CONFIG, novelty=1)}, "novelty"), ({"config": 1}, "object")):
            with self.subTest(changes=changes):
                line, answer = self.say(self.offer(**changes))
                self.assertIn(text, line)
                self.assertIn("error", json.loads(answer))

    def test_machine_that_does_not_come(self):
        """The stand-in for the machine's process says that it failed; then there is no machine."""
        self.env["FAKE"] = "refuse"
        line, answer = self.say(self.offer())
        self.assertIn("No such file", line)
        self.assertEqual(json.loads(answer), {})
        self.assertEqual(os.listdir(self.path("data/ruche/machines")), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
