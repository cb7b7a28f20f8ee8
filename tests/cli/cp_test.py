#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""`ruche cp`, against a stand-in for the guest whose files are in a folder of the host: whole copies or none, whatever comes
between."""
import base64
import os
import resource
import signal
import unittest

from fake_agent import FakeAgent, Refusal
from harness import Named

DATA = bytes(range(256)) * 3000 + b"the end"


class Copy(Named):
    def setUp(self):
        super().setUp()
        self.create()
        self.ruche("start", "web")
        self.agent = FakeAgent(self.state()["agent"])
        self.addCleanup(self.agent.close)
        for name in ("host", "guest"):
            os.mkdir(self.path(name))
        self.source = self.path("host/file")
        with open(self.source, "wb") as f:
            f.write(DATA)

    def read(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()

    def guest(self, name):
        return "web:" + self.path("guest/" + name)

    def left(self):
        """What is in both folders, but for the source."""
        return sorted(os.listdir(self.path("guest")) + [name for name in os.listdir(self.path("host")) if name != "file"])

    def fails(self, source, target, reason, status=125):
        before = self.left()
        self.assertIn(reason, self.refused("cp", source, target, status=status))
        self.assertEqual(self.left(), before)
        self.assertEqual(self.agent.files, {})


class Whole(Copy):
    def test_both_ways(self):
        os.chmod(self.source, 0o741)
        self.assertEqual(self.ruche("cp", self.source, self.guest("a")), ("", ""))
        self.assertEqual(self.read("guest/a"), DATA)
        self.assertEqual(os.stat(self.path("guest/a")).st_mode & 0o7777, 0o741)
        self.assertEqual(self.ruche("cp", self.guest("a"), self.path("host/b")), ("", ""))
        self.assertEqual(self.read("host/b"), DATA)
        mask = os.umask(0)
        os.umask(mask)
        self.assertEqual(os.stat(self.path("host/b")).st_mode & 0o7777, 0o741 & ~mask)
        self.assertEqual(self.left(), ["a", "b"])
        self.assertEqual(self.agent.files, {})

    def test_sizes(self):
        for size in (0, 1, 2, 3, 196607, 196608, 196609):
            with open(self.source, "wb") as f:
                f.write(DATA[:size])
            self.ruche("cp", self.source, self.guest("a"))
            self.ruche("cp", self.guest("a"), self.path("host/b"))
            self.assertEqual(self.read("host/b"), DATA[:size])

    def test_into_folders(self):
        self.ruche("cp", self.source, self.guest(""))
        self.ruche("cp", self.source, "web:" + self.path("guest"))
        self.ruche("cp", self.guest("file"), self.path("host"))
        os.rename(self.path("guest/file"), self.path("guest/second"))
        self.ruche("cp", self.guest("second"), self.path("host/"))
        self.assertEqual(self.left(), ["second", "second"])

    def test_odd_names(self):
        name = "a b'\"$(x)\\ \u00e9;*"
        self.ruche("cp", self.source, self.guest(name))
        self.ruche("cp", self.guest(name), self.path("host/with:colon"))
        self.how["cwd"] = self.path("host")
        self.ruche("cp", "./with:colon", self.guest("c"))
        self.assertEqual(self.read("guest/c"), DATA)

    def test_short_writes(self):
        self.agent.replies["guest-file-write"] = lambda handle, buf_b64: {
            "count": self.agent.files[handle].write(base64.b64decode(buf_b64)[:50000])}
        self.ruche("cp", self.source, self.guest("a"))
        self.assertEqual(self.read("guest/a"), DATA)

    def test_links_stay(self):
        os.symlink("real", self.path("host/link"))
        self.write("host/real", "old")
        self.ruche("cp", self.source, self.guest("a"))
        self.ruche("cp", self.guest("a"), self.path("host/link"))
        self.assertTrue(os.path.islink(self.path("host/link")))
        self.assertEqual(self.read("host/real"), DATA)

    def test_guests_that_lack_programs(self):
        self.agent.missing = ("sha256sum", "stat")
        for source, target in ((self.source, self.guest("a")), (self.guest("a"), self.path("host/b"))):
            out, err = self.ruche("cp", source, target)
            self.assertEqual(out, "")
            self.assertRegex(self.one_line(err), "not checked.*sha256sum")
        self.assertEqual(self.read("host/b"), DATA)


class Refused(Copy):
    def test_usage(self):
        for words, reason in ((("a",), "a source and a target"), (("a", "b"), "'a'"), (("web:/a", "web:/b"), "'web:/b'"),
                              (("web:a", "b"), "'a'"), (("web:", "b"), "''"), (("a", "./web:/b"), "'./web:/b'"),
                              (("--bogus", "a", "web:/b"), "'--bogus'")):
            self.assertIn(reason, self.refused("cp", *words, status=2))
        self.assertIn("no machine 'x'", self.refused("cp", self.source, "x:/a"))

    def test_what_is_no_file(self):
        os.mkfifo(self.path("host/fifo"))
        os.mkfifo(self.path("guest/fifo"))
        self.write("guest/a", "x")
        for source, target, reason in ((self.path("host/none"), self.guest("b"), "No such file"),
                                       (self.path("host"), self.guest("b"), "no regular file"),
                                       (self.path("host/fifo"), self.guest("b"), "no regular file"),
                                       (self.guest("none"), self.path("host/b"), "No such file"),
                                       (self.guest("fifo"), self.path("host/b"), "no regular file"),
                                       ("web:" + self.path("guest"), self.path("host/b"), "no regular file"),
                                       (self.guest("a/"), self.path("host/b"), "names a folder"),
                                       (self.guest(".."), self.path("host"), "names a folder"),
                                       (self.guest("a"), self.path("host/fifo"), "no regular file"),
                                       (self.guest("a"), "/dev/null", "no regular file"),
                                       (self.guest("a"), self.path("host/none/b"), "No such file"),
                                       (self.source, self.guest("none/b"), "No such file")):
            with self.subTest(source=source, target=target):
                self.fails(source, target, reason)

    def test_nothing_half_made(self):
        """Each step of a copy fails in its turn; what was there before stays."""
        for step in ("guest-file-open", "guest-file-write", "guest-file-close"):
            self.write("guest/a", "old")
            kept = getattr(self.agent, step.replace("-", "_"))
            def once(step=step, kept=kept, **arguments):
                if step == "guest-file-close":
                    kept(**arguments)
                raise Refusal("disk full")
            self.agent.replies[step] = once
            with self.subTest(step=step):
                self.assertIn("disk full", self.refused("cp", self.source, self.guest("a")))
                self.assertEqual(self.left(), ["a"])
                self.assertEqual(self.read("guest/a"), b"old")
            del self.agent.replies[step]
            for f in self.agent.files.values():
                f.close()
            self.agent.files.clear()
        self.agent.missing = ("sh",)
        self.fails(self.source, self.guest("a"), "No such file")
        self.assertEqual(self.read("guest/a"), b"old")

    def test_damage_on_the_way(self):
        self.write("host/b", "old")
        read, write = self.agent.guest_file_read, self.agent.guest_file_write
        def other(reply):
            data = base64.b64decode(reply["buf-b64"])
            return {**reply, "buf-b64": base64.b64encode(bytes(b ^ 1 for b in data)).decode()}
        self.agent.replies["guest-file-read"] = lambda **arguments: other(read(**arguments))
        self.write("guest/a", "x" * 5000)
        self.fails(self.guest("a"), self.path("host/b"), "differs")
        self.assertEqual(self.read("host/b"), b"old")
        self.agent.replies["guest-file-write"] = lambda handle, buf_b64: write(handle=handle, buf_b64=buf_b64[:4]) and \
            {"count": len(base64.b64decode(buf_b64))}
        self.fails(self.source, self.guest("a"), "differs")
        self.assertEqual(self.read("guest/a"), b"x" * 5000)

    def test_replies(self):
        self.write("guest/a", "x" * 5000)
        text = base64.b64encode(b"text").decode()
        for value in ({}, [], 5, {"count": 0, "buf-b64": "", "eof": False}, {"count": 5, "buf-b64": text, "eof": True},
                      {"count": -1, "buf-b64": "", "eof": True}, {"count": 4, "buf-b64": text[:-1], "eof": True},
                      {"count": 4, "buf-b64": 4, "eof": True}, {"count": 4, "buf-b64": text + text, "eof": True},
                      {"count": 300000, "buf-b64": "QUJD" * 100000, "eof": True}):
            self.agent.replies["guest-file-read"] = lambda value=value, **_: value
            with self.subTest(value=str(value)[:80]):
                self.fails(self.guest("a"), self.path("host/b"), "protocol")
        for value in ({}, {"count": 0}, {"count": -5}, {"count": 1 << 40}, {"count": "1"}):
            self.agent.replies["guest-file-write"] = lambda value=value, **_: value
            with self.subTest(value=value):
                self.fails(self.source, self.guest("b"), "protocol")
        for value in ({}, -1, "1", 1.5):
            self.agent.replies["guest-file-open"] = lambda value=value, **_: value
            with self.subTest(value=value):
                self.fails(self.source, self.guest("b"), "protocol")

    def test_full_disk_of_the_host(self):
        self.how["preexec_fn"] = limit_files
        with open(self.path("guest/a"), "wb") as f:
            f.write(DATA)
        self.fails(self.guest("a"), self.path("host/b"), "File too large")

    def test_interrupted(self):
        """In the middle, both ways; with the machine as it was."""
        with open(self.path("guest/a"), "wb") as f:
            f.write(DATA)
        for source, target, step in ((self.source, self.guest("b"), "guest-file-write"),
                                     (self.guest("a"), self.path("host/b"), "guest-file-read")):
            for number in (signal.SIGINT, signal.SIGTERM):
                self.agent.calls.clear()
                self.agent.replies[step] = b""  # never answered
                p = self.popen("cp", source, target)
                self.wait_until(lambda step=step: step in self.agent.names())
                p.send_signal(number)
                self.assertEqual(p.wait(60), 128 + number)
                self.assertIn("interrupted", p.stderr.read())
                self.assertEqual(self.left(), ["a"])
                self.assertEqual(self.agent.files, {})
            del self.agent.replies[step]


def limit_files():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500000, 500000))


unittest.main(verbosity=2)
